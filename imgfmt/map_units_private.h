/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_private.h - what the files of map_units share: map_units.c (space, life),
 * map_units_census.c (who owns what), map_units_check.c (check, repair), map_units_move.c (tidy,
 * compact), map_units_resize.c, map_units_create.c. */
#ifndef IMGFMT_MAP_UNITS_PRIVATE_H
#define IMGFMT_MAP_UNITS_PRIVATE_H

#include "imgfmt/map_private.h"
#include "imgfmt/map_units.h"

/* A stretch of the file that one owner has. */
struct map_units_place {
    uint64_t at, end; /* in the file */
    uint64_t owner;   /* a cluster, UNITS_TABLE_OWNER + a table, UNITS_OWN */
};
#define UNITS_TABLE_OWNER (1ULL << 62)
#define UNITS_OWN         UINT64_MAX

enum map_units_wrong {
    UNITS_OUT_OF_RANGE, /* outside of what can be owned */
    UNITS_TWICE,        /* another one owns it too */
    UNITS_MISALIGNED,
};
struct map_units_bad {
    uint64_t owner;
    enum map_units_wrong wrong;
};

#define UNITS_BAD_AT_ONCE 4096

/* What a walk found. */
struct map_units_census {
    uint64_t clusters, twice, out_of_range, misaligned, fragmented;
    uint64_t last_end;           /* of the cluster that was seen last */
    struct map_units_place *odd; /* off the unit boundaries, until the walk is over */
    size_t odd_count, odd_room;
    struct map_units_bad *bad; /* NULL: only counted */
    size_t bad_count;
    bool bad_left; /* there are more */
};

static inline uint64_t map_units_bad_count(const struct map_units_census *c)
{
    return c->twice + c->out_of_range + c->misaligned;
}

/* Fills u->space anew; nothing may be on its way to be placed or released. @bad: room for
 * UNITS_BAD_AT_ONCE, or NULL. */
must_use int co_map_units_census(struct map *m, struct map_units_bad *bad,
                                 struct map_units_census *out);

static inline uint64_t units_cluster_units(const struct map *m)
{
    return m->units->cluster_units ? m->units->cluster_units : 1;
}

static inline uint64_t units_table_units(const struct map *m)
{
    const struct map_units *u = m->units;
    return u->table_units ? u->table_units : div_up(m->shape.table_bytes, u->unit_bytes);
}

/* Where the place of a cluster ends, from the offset in its cell. */
static inline uint64_t units_place_bytes(const struct map *m)
{
    return m->shape.lead_bytes + m->cluster_bytes;
}

static inline uint64_t units_offset(const struct map *m, uint64_t unit)
{
    return m->units->base + unit * m->units->unit_bytes;
}

/* Units that begin below @offset. */
static inline uint64_t units_below(const struct map *m, uint64_t offset)
{
    const struct map_units *u = m->units;
    return offset > u->base ? div_up(offset - u->base, u->unit_bytes) : 0;
}

static inline bool units_on_boundary(const struct map *m, uint64_t place)
{
    const struct map_units *u = m->units;
    return place >= u->base && (place - u->base) % u->unit_bytes == 0;
}

struct units_request {
    uint64_t from, below; /* unit numbers; below 0: where placing ends */
    uint64_t step, span;  /* so many units, at most; out: so many whole steps */
    uint64_t unit;        /* out: the first */
    bool reused;          /* out: all of them were written before, or none */
};
/* Owns free units that lie together, the lowest there are; extends the file as need be. */
must_use int co_map_units_take_span(struct map *m, struct units_request *r);
/* The session is over: tidy, co_end, the file ends where it should. */
must_use int co_map_units_finish(struct map *m);
/* The file ends behind the last unit. */
must_use int co_map_units_fit(struct map *m);

/* Moves down what can be moved into the gaps below it. */
must_use int co_map_units_squeeze(struct map *m);
/* Moves the clusters of the first @units units to free ones behind them. */
must_use int co_map_units_move_away(struct map *m, uint64_t units);

#endif

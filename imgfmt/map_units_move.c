/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_move.c - clusters and tables moved to lower units, and the file truncated behind them.
 *
 *   1 a copy in a free place, durable -> the entry that names it, durable -> the old place free
 *   2 all that was moved durable -> the file truncated
 * so a crash leaves each where it was or where it is to be. What the format reserves stays. */
#include <stdlib.h>

#include "imgfmt/map_units_private.h"

struct mover {
    uint64_t unit;
    uint64_t owner; /* a cluster, or UNITS_TABLE_OWNER + a table */
};
struct movers {
    uint64_t from, to; /* units whose clusters have to go */
    struct mover *list;
    size_t count, room;
};

static int keep(struct movers *w, uint64_t unit, uint64_t owner)
{
    if (unit < w->from || unit >= w->to)
        return 0;
    if (w->count == w->room) {
        size_t room = MAX(2 * w->room, 64);
        struct mover *bigger = mem_resize(w->list, room * sizeof(*bigger));
        if (!bigger)
            return -ENOMEM;
        w->list = bigger;
        w->room = room;
    }
    w->list[w->count++] = (struct mover){unit, owner};
    return 0;
}

static int keep_cluster(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    bool movable = (cell->state == MAP_DATA || cell->state == MAP_PARTIAL) && !cell->shared;
    return movable ? keep(arg, map_units_number(m, cell->offset), cluster) : 0;
}

static int co_keep_tables(struct map *m, struct movers *w)
{
    for (uint64_t i = 0; i < m->shape.root_entries; i++) {
        uint64_t offset;
        TRY(co_map_table(m, i, &offset));
        if (offset)
            TRY(keep(w, (offset - m->units->base) / m->units->unit_bytes, UNITS_TABLE_OWNER + i));
    }
    return 0;
}

static int highest_first(const void *a, const void *b)
{
    const struct mover *p = a, *q = b;
    return p->unit > q->unit ? -1 : p->unit < q->unit;
}

static int co_move_cluster(struct map *m, uint64_t cluster, struct units_request *r)
{
    struct map_cell to;
    TRY(co_map_units_take_span(m, r));
    int rc = co_map_cell(m, cluster, &to);
    to.offset = units_offset(m, r->unit) + m->shape.lead_bytes;
    if (rc == 0)
        rc = co_map_move(m, cluster, &to);
    if (rc < 0)
        m->format->unplace(m, &to, 1);
    return rc;
}

/* -ENOSPC: there is no free place for it in [low, below). */
static int co_move_one(struct map *m, const struct mover *w, uint64_t low, uint64_t below)
{
    if (w->owner >= UNITS_TABLE_OWNER) {
        if (map_space_find(&m->units->space, 0, units_table_units(m)) >= below)
            return -ENOSPC;
        return co_map_table_anew(m, w->owner - UNITS_TABLE_OWNER, false, true);
    }
    uint64_t step = units_cluster_units(m);
    struct units_request r = {.from = low, .below = below, .step = step, .span = step};
    return co_move_cluster(m, w->owner, &r);
}

int co_map_units_move_away(struct map *m, uint64_t units)
{
    struct movers w = {.to = units};
    int rc = co_map_walk(m, keep_cluster, &w);
    for (size_t i = 0; i < w.count && rc == 0; i++)
        rc = co_move_one(m, &w.list[i], units, MAP_SPACE_MOST);
    mem_free(w.list);
    TRY(rc);
    return co_meta_settle(m->meta, !m->fresh);
}

/* Moves down what lies at or behind the unit where a file without gaps would end. *moved: so many
 * were. */
static int co_move_down(struct map *m, uint64_t *moved)
{
    struct movers w = {.from = m->units->space.count, .to = UINT64_MAX};
    int rc = m->shape.levels == 2 ? co_keep_tables(m, &w) : 0;
    if (rc == 0)
        rc = co_map_walk(m, keep_cluster, &w);
    if (w.count)
        qsort(w.list, w.count, sizeof(*w.list), highest_first);
    *moved = 0;
    for (size_t i = 0; i < w.count && rc == 0; i++) {
        rc = co_move_one(m, &w.list[i], 0, w.list[i].unit);
        *moved += rc == 0;
        if (rc == -ENOSPC) /* too large for what is free below */
            rc = 0;
    }
    mem_free(w.list);
    TRY(rc);
    return co_meta_settle(m->meta, !m->fresh);
}

int co_map_units_fit(struct map *m)
{
    struct map_units *u = m->units;
    struct blk_error ignored;
    uint64_t end = units_offset(m, u->space.next);
    if (u->ops->co_fit)
        return u->ops->co_fit(m, end);
    if (m->file->limits.growable && m->file->size != end &&
        co_blk_resize(m->file, end, true, &ignored) < 0)
        return 0; /* untidy, and right all the same */
    return 0;
}

int co_map_units_tidy(struct map *m)
{
    struct map_units *u = m->units;
    uint64_t moved;
    TRY(co_meta_settle(m->meta, !m->fresh));
    if (u->dense && u->space.next > u->space.count)
        TRY(co_move_down(m, &moved));
    return 0;
}

int co_map_units_squeeze(struct map *m)
{
    struct map_units_census found;
    uint64_t moved = 1, next = UINT64_MAX;
    TRY(co_meta_settle(m->meta, !m->fresh));
    while (moved && m->units->space.next < next) {
        next = m->units->space.next;
        TRY(co_move_down(m, &moved));
        /* What lay off the boundaries is free only now. */
        TRY(co_map_units_census(m, NULL, &found));
    }
    return 0;
}

int co_map_units_compact(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    int rc = co_map_will_write(m);
    if (rc == 0)
        rc = co_map_units_squeeze(m);
    if (rc == 0)
        rc = co_map_units_finish(m);
    return rc < 0 ? err_errno(e, rc, "the image cannot be compacted") : 0;
}

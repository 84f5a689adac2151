/* SPDX-License-Identifier: BSD-3-Clause */
/* map_private.h - what the engine's files share: map.c (tables, look-ups), map_read.c, map_write.c
 * (the write path), map_zero.c (zero, discard), map_piece.c (clusters in pieces),
 * map_release.c (space lets go), map_packed.c and
 * map_pack.c (compressed clusters).
 */
#ifndef IMGFMT_MAP_PRIVATE_H
#define IMGFMT_MAP_PRIVATE_H

#include "imgfmt/map.h"

#define MAP_BATCH         64          /* cells that change in one step, at most */
#define MAP_RELEASE_CELLS 256         /* of one struct map_release */
#define MAP_UNPACKED      4           /* decompressed clusters kept per image */
#define MAP_PACK_BYTES    (512 * KiB) /* compressed or inflated in one trip to the pool */
#define MAP_INLINE_BYTES  4096        /* less than this is not worth a trip */

/* Space that lets go after a batch. */
struct map_release {
    struct meta_deferred deferred;
    struct map *map;
    struct map_release *prev, *next; /* all there are, to be freed with the map */
    bool queued;
    unsigned count, done;
    uint64_t low, high; /* clusters of the items lie in [low, high] */
    struct map_released {
        uint64_t cluster;     /* whose it was */
        struct map_cell cell; /* MAP_HOLE: taken back */
        bool punch;
        bool stays; /* the cluster keeps the space: it is only punched */
    } items[MAP_RELEASE_CELLS];
};

/* A decompressed cluster. */
struct map_unpacked {
    uint64_t offset; /* of the packed bytes; 0: empty */
    uint8_t *cluster;
    uint64_t used_at;
    unsigned pins;
    bool loading;
    int rc;
    struct co_queue waiters;
};

struct map_private {
    /* The index: table pages by number, direct mapped; a page that lost its slot is found through
     * the root again. Read by any worker. */
    struct meta_page **index;
    uint64_t index_mask;
    unsigned page_bits;         /* entries per page, as a power of two */
    unsigned page_bytes;        /* meta's */
    uint64_t last_page;         /* levels 2: the table page that was looked for last */
    struct co_range writers;    /* virtual bytes */
    struct co_mutex new_tables; /* levels 2: one at a time */
    struct co_mutex first_write;
    bool may_write;   /* co_before_first_write has run */
    bool flush_owed;  /* it ran, and is to run again: flushes go on */
    uint32_t changes; /* entry_bytes 16: odd while entries change, which takes two stores each */
    bool said_corrupt;
    struct map_release *releases, *open_release;
    struct table_release *table_releases;
    unsigned releasing; /* releases whose grace period is over */
    struct co_queue released;
    struct map_unpacked unpacked[MAP_UNPACKED];
    uint64_t unpacked_clock;
};

/* Neighbouring clusters of one kind: for data, that lie together. */
struct map_run {
    struct map_cell cell; /* of the first */
    uint64_t offset;      /* where the asked byte lies; only of data */
    uint64_t bytes;       /* from the asked byte on */
};

static inline uint64_t map_slot(const struct map *m, uint64_t cluster)
{
    return m->format->slot ? m->format->slot(m, cluster) : cluster;
}

/* True if the image has a backing device, open or not. */
static inline bool map_has_backing(const struct map *m)
{
    return m->backing || m->backing_missing;
}

/* True if something shows through a hole at this cluster. */
static inline bool map_hides(const struct map *m, uint64_t cluster)
{
    return m->backing_missing ||
           (m->backing && cluster << m->shape.cluster_bits < m->backing->size);
}

static inline bool map_in_place(const struct map_cell *cell)
{
    return cell->state == MAP_DATA && !cell->shared;
}

/* Space of a whole cluster that nobody else refers to. */
static inline bool map_owns_space(const struct map_cell *cell)
{
    return map_has_space(cell) && !cell->shared && cell->state != MAP_PACKED;
}

/* The pieces that bytes [from, to) of a cluster touch. */
uint32_t map_pieces_of(const struct map *m, uint64_t from, uint64_t to);
/* How many of the @most bytes from @at on (inside the cluster) are in the same *state. */
uint64_t map_piece_run(const struct map *m, const struct map_cell *c, uint64_t at, uint64_t most,
                       enum map_state *state);
/* The same, asking co_subrange where the cell is not in pieces. */
must_use int co_map_partial(struct map *m, uint64_t cluster, const struct map_cell *cell,
                            uint64_t at, uint64_t *bytes, enum map_state *state);

/* How many clusters the table has entries for, behind the end of the disk too. */
uint64_t map_clusters_in_table(const struct map *m);

/* The page of table entries that holds @cluster's, pinned; NULL: its table is not there, all are
 * holes. *first and *count: the clusters that the answer covers, from @cluster on. */
must_use int co_map_page(struct map *m, uint64_t cluster, struct meta_page **out, uint64_t *count);
/* The same to change it: its table is made where it was not there, copied where shared. */
must_use int co_map_page_to_write(struct map *m, uint64_t cluster, struct meta_page **out,
                                  uint64_t *count);
must_use int map_entry_get(struct map *m, const struct meta_page *page, uint64_t cluster,
                           struct map_cell *out);
/* What lies at @offset, at most @bytes of it. */
must_use int co_map_run(struct map *m, uint64_t offset, uint64_t bytes, struct map_run *out);
/* Marks the image corrupt and gives -EIO. */
int map_broken(struct map *m, const char *sentence);

/* Table page @number is wanted, which @root (pinned) names: if this is a walk, those that follow
 * are read with it. */
void co_map_read_ahead(struct map *m, const struct meta_page *root, uint64_t number);

/* Changes cells of one page, which is pinned: prepare, touch, commit, show. What is let go of is
 * released once that is durable (@punch: and given back below). */
must_use int co_map_change(struct map *m, struct meta_page *page, const struct map_update *u,
                           size_t count, bool punch);
/* Data space that @cluster let go of and that nobody else may have yet is its own again. */
bool map_take_back(struct map *m, uint64_t cluster, uint64_t *offset);
/* It was not shown after all. */
void map_give_back(struct map *m, uint64_t cluster, const struct map_cell *cell);
bool map_may_take_back(const struct map *m, uint64_t cluster);
/* Waits for space that is just being released; false: there is none. */
bool co_map_await_release(struct map *m);
/* True if the update lets go of space, or is to punch what it keeps. */
bool map_lets_go(const struct map *m, const struct map_update *u, bool punch);
/* Room for @count updates that let go; NULL: no memory. */
struct map_release *map_release_room(struct map *m, size_t count);
/* Queues what they let go of. */
void map_release_old(struct map *m, struct map_release *r, const struct map_update *u, size_t count,
                     bool punch);
void map_release_free(struct map_release *r);
void map_unplace_one(struct map *m, const struct map_cell *cell);

/* Reads [at, +to->bytes) inside one cluster as its cell says. */
must_use int co_map_read_cell(struct map *m, uint64_t cluster, const struct map_cell *cell,
                              uint32_t at, const struct vec *to);
must_use int co_map_read_backing(struct map *m, uint64_t offset, const struct vec *to);

/* Where new bytes come from: one of three. */
struct map_source {
    const struct vec *vec;
    const struct blk_place *place;
    /* neither: zeroes */
    uint64_t offset; /* virtual, where the source begins */
};
/* Steps 3 to 7 for the clusters of [at, end), which are locked and not in place: as many as go
 * together; *done bytes. */
must_use int co_map_allocate(struct map *m, uint64_t at, uint64_t end, const struct map_source *src,
                             uint64_t *done);

must_use int co_map_read_packed(struct map *m, const struct map_cell *cell, uint32_t at,
                                const struct vec *to);
/* Compressed clusters that follow one another. */
struct map_packed_run {
    struct map *map;
    unsigned count;
    struct map_cell cells[MAP_BATCH];
    uint32_t at[MAP_BATCH]; /* where their bytes are in memory; map_packed.c's */
};
/* How many go to the pool together. */
static inline uint64_t map_pack_clusters(const struct map *m)
{
    return MIN(MAX(MAP_PACK_BYTES >> m->shape.cluster_bits, 1), MAP_BATCH);
}
/* Those from @cluster on, at most @most. */
must_use int co_map_packed_run(struct map *m, uint64_t cluster, uint64_t most,
                               struct map_packed_run *r);
must_use int co_map_read_packed_run(struct map_packed_run *r, const struct vec *to);
must_use int co_map_write_packed(struct map *m, uint64_t offset, const struct vec *from);
/* The packed bytes at @offset are not what they were. */
void map_forget_unpacked(struct map *m, uint64_t offset);
void map_forget_all_unpacked(struct map *m); /* drained */
void map_free_unpacked(struct map *m);

/* Where compressed clusters lie: never encrypted. */
static inline struct blk_device *map_packed_in(const struct map *m)
{
    return m->packed ? m->packed : m->data;
}

#endif

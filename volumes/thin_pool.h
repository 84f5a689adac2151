/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_pool.h - an open thin pool and its open volumes.
 *
 *     thin.c          the driver "thin": the pool as a container, its options
 *     thin_pool.c     space for writers; commits in the background; space that was let go of;
 *                     volumes made, snapshotted, deleted; growing
 *     thin_volume.c   a volume as a device: opening, reading, resolve, map
 *     thin_write.c    a volume's writes, zeroes, discards
 *     thin_cells.c    mappings in memory
 *     thin_meta.h     what lies on disk
 *
 * Children of the pool: "metadata", "data"; of a volume the pool as "container", "data", and as
 * "backing" its external origin, which shows where nothing was written. */
#ifndef VOLUMES_THIN_POOL_H
#define VOLUMES_THIN_POOL_H

#include "block/resolver.h"
#include "volumes/thin.h"
#include "volumes/thin_cells.h"
#include "volumes/thin_meta.h"

struct thin_pool {
    struct blk_device *dev, *data, *origin; /* borrowed; origin NULL: none */
    struct thin_meta meta;
    uint64_t chunk; /* bytes of a data block */
    struct thin_volume *volumes;
    uint64_t size;      /* option: of volumes whose name does not say one; 0: what is mapped */
    uint64_t wait_ns;   /* option: for how long a write waits for space */
    uint64_t low_water; /* option: blocks */
    bool no_overcommit, told_low;
    struct timer timer; /* the next commit in the background */
    bool timer_armed;
    unsigned background; /* coroutines that work for the pool */
    struct co_queue idle;
    unsigned releasing; /* coroutines that will make blocks free */
    /* Grace periods for blocks that were let go of: asked for, ended. */
    uint64_t freed_seen, grace_wanted, grace_done;
    bool gracing;
    struct co_queue graced;
    /* Blocks that were written whole, one behind the other: how many, and where they end. */
    uint64_t streak, streak_end;
    struct thin_run ahead; /* for which space was taken in the data's file */
    bool no_ahead;         /* it cannot be */
};

struct thin_volume {
    struct thin_pool *pool;
    struct blk_device *dev;
    struct thin_volume *next;
    uint32_t id;
    uint64_t quota, reserve; /* blocks; 0: none */
    struct thin_detail detail;
    bool detail_dirty;       /* differs from what the tree says */
    struct co_range writers; /* who changes mappings */
    struct thin_cells cells;
};

extern const struct blk_driver thin_volume_driver;

/* The pool of a device of driver "thin"; NULL: it is none. */
struct thin_pool *thin_pool_of(struct blk_device *dev);

/* --- the pool's space (at home, without the lock) --- */

/* Lets a grace period end that has nothing more to wait for: to be called where a request begins
 * that may let go of space, so that its own comes behind. */
void co_pool_pass(struct thin_pool *p);
void pool_init(struct thin_pool *p); /* of an opened metadata: what commits call */
/* Up to @count blocks that lie together, for a write of @v: held, not referred to yet. *zeroes:
 * they are known to be a hole. -ENOSPC when it has waited as long as it may. */
must_use int co_pool_take(struct thin_volume *v, uint64_t count, struct thin_run *out,
                          bool *zeroes);
void pool_give_back(struct thin_pool *p, const struct thin_run *run);
/* @run, just taken, is going to be written whole: takes space in the data's file for the blocks
 * that are likely to follow. A hint, which fails in silence. */
void co_pool_reserve_ahead(struct thin_pool *p, const struct thin_run *run);
/* The lock for writing, with room for an operation that needs up to @blocks metadata blocks;
 * commits if that makes room. 0: held. */
must_use int co_pool_begin(struct thin_pool *p, uint64_t blocks, bool frees);
/* Ends it: gives @rc; a commit follows in a second. @before: meta.changes after co_pool_begin(). */
int co_pool_end(struct thin_pool *p, uint64_t before, int rc);
/* A pool is about to be closed: nothing works in its background any more. */
void co_pool_settle(struct thin_pool *p);

/* --- volumes: durable when they return --- */

must_use int co_pool_create(struct thin_pool *p, uint32_t id, struct blk_error *e);
/* Of one instant: requests of @of in flight end first. */
must_use int co_pool_snap(struct thin_pool *p, uint32_t id, uint32_t of, struct blk_error *e);
must_use int co_pool_delete(struct thin_pool *p, uint32_t id, struct blk_error *e);
/* The pool takes what its devices have grown by. */
must_use int co_pool_grow(struct thin_pool *p, struct blk_error *e);
/* Discards what is free in the data device; *bytes: how much that was. */
must_use int co_pool_trim(struct thin_pool *p, uint64_t *bytes, struct blk_error *e);

/* --- a volume --- */

must_use int co_volume_open(struct blk_device *container, const char *name, struct blk_device *dev,
                            struct blk_error *e);
/* What is kept for it and not mapped yet, in blocks. */
uint64_t volume_claim(const struct thin_volume *v);
/* The cell of @block, from the tree if need be. */
must_use int co_volume_cell(struct thin_volume *v, uint64_t block, thin_cell *out);
/* How many of up to @most blocks from @block on, which is @first, lie behind each other. */
must_use int co_volume_run(struct thin_volume *v, uint64_t block, thin_cell first, uint64_t most,
                           uint64_t *count);
int co_volume_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                    unsigned flags);
int co_volume_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags);
int co_volume_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes);

#endif

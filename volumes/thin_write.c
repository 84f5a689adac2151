/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_write.c - writes, zeroes and discards of a thin volume.
 *
 * Order of a write where the volume owns no block yet, or shares it:
 *  1. The blocks are locked among those who change mappings.
 *  2. Data blocks are taken: held in memory, on disk still free. (Where they are written whole, the
 *     data's file may be asked for space here, for these and those that follow: a hint.)
 *  3. What the write does not cover is copied there (from the shared block, from the origin) or
 *     zeroed; the write's own bytes are written. Whole blocks copy nothing.
 *  4. The mapping goes into the tree, with the references; the cells show it.
 * A shared block that nobody else refers to any more (its snapshot is gone, and durably so) becomes
 * the volume's own as it is, instead: nothing is taken or copied.
 * It is durable with the next commit, which flushes data before (thin_meta.c). A block that is the
 * volume's own is overwritten in place, with no lock.
 *
 * A discard unmaps whole blocks; those that nobody refers to any more may be used again when that
 * is durable and no request reads them (thin_pool.c). */
#include "volumes/thin_pool.h"

#define BLOCKS_MOST 64 /* mapped in one go */
#define COPY_BYTES  (1 * MiB)
#define UNMAP_MOST  256

/* --- filling a new block ----------------------------------------------------------------------
 */

static int co_copy(struct blk_device *data, uint64_t to, struct blk_device *src, uint64_t from,
                   uint64_t bytes)
{
    size_t step = (size_t)MIN(bytes, COPY_BYTES);
    if (bytes == 0)
        return 0;
    void *buf = buf_get(step);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t at = 0, n; rc == 0 && at < bytes; at += n) {
        n = MIN(step, bytes - at);
        rc = co_blk_read_buf(src, from + at, buf, n);
        if (rc == 0)
            rc = co_blk_write_buf(data, to + at, buf, n, 0);
    }
    buf_put(buf, step);
    return rc;
}

/* A part [from, to) of volume block @block that is not written to. */
struct edge {
    uint64_t block, from, to;
    uint64_t at; /* where the new block lies */
    bool zeroes; /* which is a hole */
};

static int co_fill(struct thin_volume *v, const struct edge *g)
{
    struct thin_pool *p = v->pool;
    struct blk_device *origin = v->dev->backing;
    uint64_t base = g->block * p->chunk, behind = 0, bytes = g->to - g->from;
    thin_cell old;
    if (bytes == 0)
        return 0;
    TRY(co_volume_cell(v, g->block, &old));
    if (thin_cell_mapped(old))
        return co_copy(p->data, g->at + g->from, p->data, thin_cell_block(old) * p->chunk + g->from,
                       bytes);
    if (origin && origin->size > base + g->from)
        behind = MIN(bytes, origin->size - base - g->from);
    if (behind)
        TRY(co_copy(p->data, g->at + g->from, origin, base + g->from, behind));
    return g->zeroes || behind == bytes
               ? 0
               : co_blk_write_zeroes(p->data, g->at + g->from + behind, bytes - behind, 0);
}

/* --- mapping new blocks -----------------------------------------------------------------------
 */

struct change {
    struct thin_volume *v;
    uint64_t offset, bytes;
    const struct vec *from; /* NULL: zeroes */
};

/* Step 3: [offset, +bytes) and what else there is of its blocks. */
static int co_fill_run(const struct change *c, const struct thin_run *run, bool zeroes)
{
    struct thin_volume *v = c->v;
    uint64_t chunk = v->pool->chunk, first = c->offset / chunk, in = c->offset % chunk;
    uint64_t end = (in + c->bytes) % chunk, ahead = run->count - 1;
    if (in + end == 0 && c->from)
        co_pool_reserve_ahead(v->pool, run);
    else if (!zeroes && in + end > 0)
        TRY(co_thin_ask_zeroes(&v->pool->meta, run, &zeroes));
    struct edge head = {first, 0, in, run->first * chunk, zeroes};
    struct edge tail = {first + ahead, end, end ? chunk : 0, (run->first + ahead) * chunk, zeroes};
    TRY(co_fill(v, &head));
    TRY(co_fill(v, &tail));
    uint64_t at = run->first * chunk + in;
    return c->from ? co_blk_write(v->pool->data, at, c->from, 0)
                   : co_blk_write_zeroes(v->pool->data, at, c->bytes, 0);
}

/* Step 4. */
static int co_map_run(struct thin_volume *v, uint64_t first, const struct thin_run *run)
{
    struct thin_meta *m = &v->pool->meta;
    uint64_t added;
    TRY(co_pool_begin(v->pool, 24 + run->count, false));
    uint64_t before = m->changes;
    int rc = co_thin_map(m, v->id, first, run, &added);
    for (uint64_t i = 0; rc == 0 && i < run->count; i++)
        thin_cells_set(&v->cells, first + i, thin_cell_of(run->first + i, true));
    if (rc == 0) {
        v->detail.mapped += added;
        v->detail_dirty |= added > 0;
    }
    return co_pool_end(v->pool, before, rc);
}

/* Blocks that are shared no more; *claimed 0: the first one is, or is a hole. @wait: what makes it
 * so is made durable, if that is all that is missing. */
static int co_claim(struct thin_volume *v, uint64_t first, uint64_t count, bool wait,
                    uint64_t *claimed)
{
    struct thin_meta *m = &v->pool->meta;
    bool pending = false;
    *claimed = 0;
    for (unsigned tries = 0; tries < 2; tries++) {
        TRY(co_pool_begin(v->pool, 24 + count, false));
        uint64_t before = m->changes;
        int rc = co_thin_claim(m, v->id, first, count, claimed, &pending);
        for (uint64_t i = 0; rc == 0 && i < *claimed; i++)
            thin_cells_own(&v->cells, first + i);
        TRY(co_pool_end(v->pool, before, rc));
        if (*claimed || !pending || !wait)
            break;
        TRY(co_thin_commit(m));
    }
    return 0;
}

/* How many blocks from @first on are not the volume's own, and shared or not as the first one. */
static int co_count_foreign(struct thin_volume *v, uint64_t first, uint64_t most, uint64_t *count,
                            bool *shared)
{
    thin_cell c;
    for (*count = 0; *count < most; ++*count) {
        TRY(co_volume_cell(v, first + *count, &c));
        if (*count == 0)
            *shared = thin_cell_mapped(c);
        if (thin_cell_own(c) || thin_cell_mapped(c) != *shared)
            break;
    }
    return 0;
}

/* Step 2, for holes. */
static int co_take_new(struct thin_volume *v, uint64_t count, struct thin_run *run, bool *zeroes)
{
    if (v->quota && v->detail.mapped >= v->quota)
        return -EDQUOT;
    if (v->quota)
        count = MIN(count, v->quota - v->detail.mapped);
    return co_pool_take(v, count, run, zeroes);
}

/* Step 2, for shared blocks; run->count 0: the first one has become the volume's own as it is. */
static int co_take_copies(struct thin_volume *v, uint64_t first, uint64_t count,
                          struct thin_run *run, bool *zeroes)
{
    uint64_t claimed;
    *run = (struct thin_run){0};
    TRY(co_claim(v, first, count, false, &claimed));
    if (claimed)
        return 0;
    int rc = co_pool_take(v, count, run, zeroes);
    if (rc != -ENOSPC)
        return rc;
    *run = (struct thin_run){0};
    TRY(co_claim(v, first, count, true, &claimed));
    return claimed ? 0 : -ENOSPC;
}

/* Steps 2 to 4; *done: how much of it, 0 if the first block has become the volume's own. */
static int co_provide_locked(struct change *c, uint64_t most, uint64_t *done)
{
    struct thin_volume *v = c->v;
    struct thin_run run;
    uint64_t first = c->offset / v->pool->chunk, count;
    bool shared, zeroes;
    *done = 0;
    TRY(co_count_foreign(v, first, most, &count, &shared));
    if (count == 0)
        return 0;
    TRY(shared ? co_take_copies(v, first, count, &run, &zeroes)
               : co_take_new(v, count, &run, &zeroes));
    if (run.count == 0)
        return 0;
    struct vec part;
    struct change now = *c;
    now.bytes = MIN(c->bytes, run.count * v->pool->chunk - c->offset % v->pool->chunk);
    if (c->from) {
        part = vec_slice(c->from, 0, now.bytes);
        now.from = &part;
    }
    int rc = co_fill_run(&now, &run, zeroes);
    if (rc == 0)
        rc = co_map_run(v, first, &run);
    if (rc < 0 && !v->pool->meta.failed)
        pool_give_back(v->pool, &run);
    *done = now.bytes;
    return rc;
}

static int co_provide(struct change *c, uint64_t *done)
{
    struct thin_volume *v = c->v;
    uint64_t first = c->offset / v->pool->chunk;
    uint64_t count = (c->offset + c->bytes - 1) / v->pool->chunk - first + 1;
    struct co_range_hold hold;
    count = MIN(count, BLOCKS_MOST);
    co_pool_pass(v->pool);
    co_range_lock(&v->writers, &hold, first, count, false); /* 1 */
    int rc = co_provide_locked(c, count, done);
    co_range_unlock(&v->writers, &hold);
    return rc;
}

/* Where the volume's own blocks lie together: in place. */
static int co_overwrite(struct change *c, thin_cell cell, uint64_t *done)
{
    struct thin_pool *p = c->v->pool;
    uint64_t block = c->offset / p->chunk, in = c->offset % p->chunk, count;
    TRY(co_volume_run(c->v, block, cell, div_up(in + c->bytes, p->chunk), &count));
    *done = MIN(c->bytes, count * p->chunk - in);
    uint64_t at = thin_cell_block(cell) * p->chunk + in;
    if (!c->from)
        return co_blk_write_zeroes(p->data, at, *done, 0);
    struct vec part = vec_slice(c->from, 0, *done);
    return co_blk_write(p->data, at, &part, 0);
}

static int co_change_step(struct change *c, uint64_t *done)
{
    struct thin_volume *v = c->v;
    thin_cell cell;
    TRY(co_volume_cell(v, c->offset / v->pool->chunk, &cell));
    if (thin_cell_own(cell))
        return co_overwrite(c, cell, done);
    if (cell == THIN_HOLE && !c->from && !v->dev->backing) { /* zero it is */
        *done = MIN(c->bytes, v->pool->chunk - c->offset % v->pool->chunk);
        return 0;
    }
    return co_provide(c, done);
}

static int co_change(struct change c)
{
    const struct vec *from = c.from;
    uint64_t done, total = c.bytes, offset = c.offset;
    for (uint64_t at = 0; at < total; at += done) {
        struct vec rest;
        c.offset = offset + at;
        c.bytes = total - at;
        if (from) {
            rest = vec_slice(from, at, total - at);
            c.from = &rest;
        }
        TRY(co_change_step(&c, &done));
    }
    return 0;
}

int co_volume_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    struct thin_volume *v = dev->state;
    TRY(co_change((struct change){v, offset, from->bytes, from}));
    return flags & BLK_FUA ? co_thin_commit(&v->pool->meta) : 0;
}

/* --- letting go -------------------------------------------------------------------------------
 */

static int co_unmap_some(struct thin_volume *v, uint64_t *at, uint64_t end)
{
    struct thin_meta *m = &v->pool->meta;
    uint64_t from = *at, removed = 0;
    TRY(co_pool_begin(v->pool, 24, true));
    uint64_t before = m->changes;
    int rc = co_thin_unmap(m, v->id, at, end, UNMAP_MOST, &removed);
    if (rc == 0) {
        thin_cells_make_holes(&v->cells, from, *at);
        v->detail.mapped -= MIN(removed, v->detail.mapped);
        v->detail_dirty |= removed > 0;
    }
    return co_pool_end(v->pool, before, rc);
}

static int co_unmap(struct thin_volume *v, uint64_t first, uint64_t end)
{
    struct co_range_hold hold;
    int rc = 0;
    co_pool_pass(v->pool);
    co_range_lock(&v->writers, &hold, first, end - first, false);
    while (rc == 0 && first < end)
        rc = co_unmap_some(v, &first, end);
    co_range_unlock(&v->writers, &hold);
    return rc;
}

/* The whole blocks in it; the device's end ends a block. False: none. */
static bool whole_blocks(const struct thin_volume *v, uint64_t offset, uint64_t bytes,
                         uint64_t *first, uint64_t *end)
{
    uint64_t chunk = v->pool->chunk;
    *first = div_up(offset, chunk);
    *end =
        offset + bytes == v->dev->size ? div_up(offset + bytes, chunk) : (offset + bytes) / chunk;
    return *first < *end;
}

int co_volume_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct thin_volume *v = dev->state;
    uint64_t first, end;
    return whole_blocks(v, offset, bytes, &first, &end) ? co_unmap(v, first, end) : 0;
}

/* Whole blocks are unmapped, the rest is zeroed. */
static int co_zero_by_unmapping(struct thin_volume *v, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    uint64_t first, end, chunk = v->pool->chunk, stop = offset + bytes;
    bool whole = whole_blocks(v, offset, bytes, &first, &end);
    uint64_t head = whole ? first * chunk - offset : bytes;
    uint64_t tail = whole && end * chunk < stop ? stop - end * chunk : 0;
    if (flags & BLK_NO_FALLBACK && head + tail > 0)
        return -ENOTSUP;
    if (head)
        TRY(co_change((struct change){v, offset, head, NULL}));
    if (whole)
        TRY(co_unmap(v, first, end));
    return tail ? co_change((struct change){v, stop - tail, tail, NULL}) : 0;
}

int co_volume_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct thin_volume *v = dev->state;
    bool unmap = flags & BLK_MAY_UNMAP && !dev->backing;
    if (flags & BLK_NO_FALLBACK && !unmap)
        return -ENOTSUP;
    TRY(unmap ? co_zero_by_unmapping(v, offset, bytes, flags)
              : co_change((struct change){v, offset, bytes, NULL}));
    return flags & BLK_FUA ? co_thin_commit(&v->pool->meta) : 0;
}

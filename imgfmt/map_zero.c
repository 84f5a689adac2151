/* SPDX-License-Identifier: BSD-3-Clause */
/* map_zero.c - the write path without data: zeroes, discard, and letting go of a tail for
 * shrinking.
 *
 * Whole clusters change their cell where that says it all; what cannot be said by a cell, and the
 * parts of clusters at both ends, are written as zeroes. Space is released after write-back. */
#include "imgfmt/map_private.h"

enum intent {
    KEEP_ZERO, /* reads zero, space stays */
    FREE_ZERO, /* reads zero, space may go */
    DISCARD,
    DROP, /* becomes a hole, whatever shows through then */
};

enum verdict {
    LEAVE,    /* it is so already, or cannot be had */
    CHANGE,   /* another cell says it */
    IN_PLACE, /* write zeroes where it lies */
    ELSEWHERE /* write zeroes into new space */
};

static enum verdict zero_verdict(const struct map *m, const struct map_update *u, bool may_free,
                                 struct map_cell *now)
{
    bool says_zero = !m->shape.no_zero_cells;
    bool hides = map_hides(m, u->cluster);
    const struct map_cell *old = &u->old;
    *now = (struct map_cell){.state = says_zero ? MAP_ZERO : MAP_HOLE};
    if (m->shape.always_stored)
        return map_in_place(old) ? IN_PLACE : ELSEWHERE;
    if (old->state == MAP_ZERO || (old->state == MAP_HOLE && !hides))
        return LEAVE;
    if (map_owns_space(old) && (!may_free || m->shape.discard_keeps) && says_zero &&
        m->shape.zero_keeps_space) {
        now->offset = old->offset;
        return CHANGE;
    }
    if (map_in_place(old) && !may_free)
        return IN_PLACE;
    if (says_zero || !hides)
        return CHANGE;
    return map_in_place(old) ? IN_PLACE : ELSEWHERE;
}

/* A hole, or zeroes without space: there is nothing to discard. */
static bool reads_zero_freely(const struct map_cell *c)
{
    return c->state == MAP_HOLE || (c->state == MAP_ZERO && !c->offset);
}

/* As decide(), for some @pieces of a cluster. */
static enum verdict decide_pieces(const struct map *m, enum intent intent,
                                  const struct map_update *u, uint32_t pieces, struct map_cell *now)
{
    const struct map_cell *old = &u->old;
    uint32_t here = map_pieces_here(old), zero = map_pieces_zero(old);

    if (old->state == MAP_PACKED)
        return intent == DISCARD ? LEAVE : ELSEWHERE;
    if (intent == DISCARD ? reads_zero_freely(old)
                          : old->state == MAP_HOLE && !map_hides(m, u->cluster))
        return LEAVE;
    if (intent != DISCARD)
        zero |= pieces;
    else if (map_has_backing(m))
        zero |= here & pieces;
    else
        zero &= ~pieces;
    here &= ~pieces;
    if (here == map_pieces_here(old) && zero == map_pieces_zero(old))
        return LEAVE;
    *now = *old;
    bool keep = intent == KEEP_ZERO || m->shape.discard_keeps;
    if (here == 0 && (!keep || old->shared)) /* nothing of it lies there any more */
        *now = (struct map_cell){0};
    map_set_pieces(now, here, zero);
    return CHANGE;
}

static enum verdict decide(const struct map *m, enum intent intent, const struct map_update *u,
                           struct map_cell *now)
{
    const struct map_cell *old = &u->old;
    switch (intent) {
    case KEEP_ZERO:
    case FREE_ZERO:
        return zero_verdict(m, u, intent == FREE_ZERO, now);
    case DISCARD:
        if (m->shape.always_stored)
            return map_in_place(old) ? IN_PLACE : LEAVE;
        if (reads_zero_freely(old) || (m->shape.discard_keeps && old->state == MAP_ZERO))
            return LEAVE;
        if (m->shape.discard_keeps && map_owns_space(old)) {
            *now = (struct map_cell){.state = MAP_ZERO, .offset = old->offset};
            return CHANGE;
        }
        if (map_has_backing(m) && m->shape.no_zero_cells)
            return LEAVE; /* a hole would bring back what the backing device held */
        *now = (struct map_cell){.state = map_has_backing(m) ? MAP_ZERO : MAP_HOLE};
        return CHANGE;
    case DROP:
        *now = (struct map_cell){.state = MAP_HOLE};
        return old->state == MAP_HOLE ? LEAVE : CHANGE;
    }
    return LEAVE;
}

struct zeroing {
    struct map *map;
    enum intent intent;
    unsigned flags;
};

static int co_zero_in_place(struct map *m, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint64_t there = offset < m->data->size ? m->data->size - offset : 0;
    bytes = MIN(bytes, there); /* past the end of the file it is zero already */
    return bytes ? co_blk_write_zeroes(m->data, offset, bytes,
                                       flags & (BLK_MAY_UNMAP | BLK_NO_FALLBACK))
                 : 0;
}

static int co_zero_elsewhere(const struct zeroing *z, uint64_t at, uint64_t bytes)
{
    if (z->flags & BLK_NO_FALLBACK)
        return -ENOTSUP;
    struct map_source zeroes = {.offset = at};
    uint64_t done;
    for (uint64_t end = at + bytes; at < end; at += done)
        TRY(co_map_allocate(z->map, at, end, &zeroes, &done));
    return 0;
}

/* Cells of one page, from @cluster on: those of one verdict at a time. */
static int co_change_some(const struct zeroing *z, struct meta_page *page, uint64_t cluster,
                          uint64_t count, uint64_t *done)
{
    struct map *m = z->map;
    struct map_update u[MAP_BATCH];
    enum verdict first = LEAVE;
    uint64_t n;
    size_t changes = 0;
    for (n = 0; n < count && n < MAP_BATCH; n++) {
        struct map_update *next = &u[changes];
        next->cluster = cluster + n;
        TRY(map_entry_get(m, page, next->cluster, &next->old));
        enum verdict v = decide(m, z->intent, next, &next->now);
        if (n == 0)
            first = v;
        if (v != first)
            break;
        if (v == CHANGE)
            changes++;
        if (v == IN_PLACE || v == ELSEWHERE) {
            n = 1;
            break;
        }
    }
    *done = n;
    uint64_t at = cluster << m->shape.cluster_bits;
    if (first == IN_PLACE)
        return co_zero_in_place(m, u[0].old.offset, m->cluster_bytes, z->flags);
    if (first == ELSEWHERE)
        return co_zero_elsewhere(z, at, MIN(m->cluster_bytes, m->shape.size - at));
    return changes ? co_map_change(m, page, u, changes, z->intent != KEEP_ZERO) : 0;
}

/* True if a cluster without a table entry is as it should be. */
static bool hole_will_do(const struct zeroing *z, uint64_t cluster)
{
    struct map_update u = {.cluster = cluster};
    struct map_cell now;
    return decide(z->map, z->intent, &u, &now) == LEAVE;
}

static int co_change_clusters(const struct zeroing *z, uint64_t cluster, uint64_t end)
{
    struct map *m = z->map;
    uint64_t done;
    for (; cluster < end; cluster += done) {
        struct meta_page *page;
        TRY(co_map_page(m, cluster, &page, &done));
        if (!page && hole_will_do(z, cluster))
            continue;
        if (page)
            meta_put(m->meta, page);
        TRY(meta_error(m->meta));
        TRY(co_map_page_to_write(m, cluster, &page, &done));
        int rc = co_change_some(z, page, cluster, MIN(done, end - cluster), &done);
        meta_put(m->meta, page);
        TRY(rc);
    }
    return 0;
}

/* --- clusters in pieces --- */

/* Whole pieces of one cluster. */
static int co_zero_whole_pieces(const struct zeroing *z, uint64_t at, uint64_t bytes)
{
    struct map *m = z->map;
    struct map_update u = {.cluster = at >> m->shape.cluster_bits};
    uint64_t in = at & (m->cluster_bytes - 1), covered;
    uint32_t pieces = map_pieces_of(m, in, in + bytes);
    struct meta_page *page;

    TRY(co_map_cell(m, u.cluster, &u.old));
    enum verdict v = decide_pieces(m, z->intent, &u, pieces, &u.now);
    if (v == LEAVE)
        return 0;
    if (v == ELSEWHERE)
        return co_zero_elsewhere(z, at, MIN(bytes, m->shape.size - at));
    TRY(meta_error(m->meta));
    TRY(co_map_page_to_write(m, u.cluster, &page, &covered));
    /* Its table may have been copied just now; what it says of this cluster is the same. */
    int rc = co_map_change(m, page, &u, 1, z->intent != KEEP_ZERO);
    meta_put(m->meta, page);
    return rc;
}

/* Parts of pieces. */
static int co_zero_bytes(const struct zeroing *z, uint64_t at, uint64_t bytes)
{
    struct map *m = z->map;

    for (uint64_t end = at + bytes, n; at < end; at += n) {
        uint64_t cluster = at >> m->shape.cluster_bits, in = at & (m->cluster_bytes - 1);
        struct map_cell cell;
        enum map_state state;
        TRY(co_map_cell(m, cluster, &cell));
        n = map_piece_run(m, &cell, in, end - at, &state);
        if (state == MAP_ZERO || (state == MAP_HOLE && !map_hides(m, cluster)))
            continue;
        if (state == MAP_DATA && !cell.shared)
            TRY(co_zero_in_place(m, cell.offset + in, n, z->flags));
        else
            TRY(co_zero_elsewhere(z, at, n));
    }
    return 0;
}

/* Part of one cluster. */
static int co_zero_pieces(const struct zeroing *z, uint64_t at, uint64_t bytes)
{
    uint64_t piece = 1ULL << z->map->shape.piece_bits, end = at + bytes;
    uint64_t first = align_up(at, piece);
    uint64_t last = end == z->map->shape.size ? align_up(end, piece) : align_down(end, piece);

    if (first >= last || z->map->shape.always_stored)
        return co_zero_bytes(z, at, bytes);
    if (at < first)
        TRY(co_zero_bytes(z, at, first - at));
    TRY(co_zero_whole_pieces(z, first, last - first));
    return last < end ? co_zero_bytes(z, last, end - last) : 0;
}

/* --- ranges --- */

/* Part of one cluster. */
static int co_zero_part(const struct zeroing *z, uint64_t at, uint64_t bytes)
{
    struct map *m = z->map;
    if (m->shape.piece_bits)
        return co_zero_pieces(z, at, bytes);
    uint64_t cluster = at >> m->shape.cluster_bits;
    struct map_cell cell;
    TRY(co_map_cell(m, cluster, &cell));
    if (cell.state == MAP_ZERO || (cell.state == MAP_HOLE && !map_hides(m, cluster)))
        return 0;
    if (map_in_place(&cell))
        return co_zero_in_place(m, cell.offset + (at & (m->cluster_bytes - 1)), bytes, z->flags);
    return co_zero_elsewhere(z, at, bytes);
}

static int co_zero_range(const struct zeroing *z, uint64_t offset, uint64_t end)
{
    struct map *m = z->map;
    uint64_t mask = m->cluster_bytes - 1;
    uint64_t first = (offset + mask) & ~mask;
    uint64_t last = end == m->shape.size ? (end + mask) & ~mask : end & ~mask;
    if (first > end) /* inside one cluster */
        return co_zero_part(z, offset, end - offset);
    if (first > offset)
        TRY(co_zero_part(z, offset, first - offset));
    if (first < last)
        TRY(co_change_clusters(z, first >> m->shape.cluster_bits, last >> m->shape.cluster_bits));
    last = MAX(last, first);
    return last < end ? co_zero_part(z, last, end - last) : 0;
}

static void lock_clusters(struct map *m, struct co_range_hold *hold, uint64_t offset, uint64_t end)
{
    uint64_t mask = m->cluster_bytes - 1;
    uint64_t begin = offset & ~mask;
    co_range_lock(&m->priv->writers, hold, begin, ((end + mask) & ~mask) - begin, false);
}

int co_map_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct map *m = dev->state;
    struct co_range_hold hold;
    if (m->shape.keeps_all)
        flags &= ~(unsigned)BLK_MAY_UNMAP;
    struct zeroing z = {m, flags & BLK_MAY_UNMAP ? FREE_ZERO : KEEP_ZERO, flags};
    TRY(co_map_will_write(m));
    lock_clusters(m, &hold, offset, offset + bytes);
    int rc = co_zero_range(&z, offset, offset + bytes);
    co_range_unlock(&m->priv->writers, &hold);
    TRY(rc);
    return flags & BLK_FUA ? co_map_flush(dev) : 0;
}

int co_map_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct map *m = dev->state;
    struct co_range_hold hold;
    struct zeroing z = {m, DISCARD, BLK_MAY_UNMAP};
    unsigned bits = m->shape.piece_bits ? m->shape.piece_bits : m->shape.cluster_bits;
    uint64_t end = offset + bytes;
    uint64_t first = align_up(offset, 1ULL << bits);
    uint64_t last = end == m->shape.size ? end : align_down(end, 1ULL << bits);
    if (first >= last || m->shape.keeps_all)
        return 0;
    TRY(co_map_will_write(m));
    lock_clusters(m, &hold, offset, end);
    int rc = co_zero_range(&z, first, last);
    co_range_unlock(&m->priv->writers, &hold);
    return rc;
}

int co_map_drop(struct map *m, uint64_t from, uint64_t to)
{
    struct co_range_hold hold;
    struct zeroing z = {m, DROP, 0};
    if (from >= to)
        return 0;
    TRY(co_map_will_write(m));
    lock_clusters(m, &hold, from << m->shape.cluster_bits, to << m->shape.cluster_bits);
    int rc = co_change_clusters(&z, from, to);
    co_range_unlock(&m->priv->writers, &hold);
    return rc;
}

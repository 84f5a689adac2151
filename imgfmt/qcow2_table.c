/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_table.c - how the reference counts of a qcow2 image get room: new refcount blocks, a longer
 * refcount table, and space that must lie together (tables of many clusters).
 *
 * A new block is put into the cluster that was to be handed out, so as a rule it counts itself. Its
 * contents (rank 0) are durable before the table's entry (rank 1), and that before any L2 entry
 * (rank 2) that relies on it.
 *
 * A longer table changes the header, which has no rank: the new table, and new blocks that count it
 * and themselves, are written behind all that the old table could count; then a flush; then offset
 * and length in one write of the header; then a flush; then the old table's space is given back.
 * Every block that the old table names must be durable before, so all is written back first,
 * without the lock, and again if another block came meanwhile. */
#include "imgfmt/qcow2_alloc.h"

/* The zeroed pages of a new block into the cache; @own: index of the count to be one, or
 * UINT64_MAX. */
static int co_new_block_pages(struct qcow2 *q, uint64_t offset, uint64_t own)
{
    uint32_t order = q->header.refcount_order;
    uint64_t per_page = (uint64_t)q->page_bytes * 8 >> order;
    uint64_t cluster = q->map.cluster_bytes;

    for (uint64_t at = 0; at < cluster; at += q->page_bytes) {
        struct meta_page *page;
        int rc = co_meta_new(q->map.meta, offset + at, QCOW2_RANK_BLOCK, &page);
        if (rc < 0) {
            co_meta_forget(q->map.meta, offset, cluster);
            return rc;
        }
        if (own != UINT64_MAX && own / per_page == at / q->page_bytes)
            qcow2_count_set(page->data, order, own % per_page, 1);
        meta_put(q->map.meta, page);
    }
    return 0;
}

/* The table's entry @index := @offset. */
static int co_set_table_entry(struct qcow2 *q, uint64_t index, uint64_t offset)
{
    be64 raw = be64_of(offset);
    struct meta_page *page;
    uint8_t *entry;

    TRY(co_qcow2_table_page(q, index, &page, &entry));
    int rc = meta_touch(q->map.meta, page);
    if (rc == 0) {
        memcpy(entry, &raw, sizeof(raw));
        q->table_seq++;
        q->memo_index = index;
        q->memo_block = offset;
        qcow2_guard_add(q, offset, QCOW2_GUARD_BLOCK);
    }
    meta_put(q->map.meta, page);
    return rc;
}

/* No structure is placed on another, whatever is counted. */
static int refuse_taken(struct qcow2 *q, uint64_t first, uint64_t count)
{
    if (likely(!qcow2_guard_hits(q, first, count)))
        return 0;
    map_corrupt(&q->map, "a cluster of the header or of a table is counted as free");
    return -EIO;
}

int co_qcow2_create_block(struct qcow2 *q, uint64_t index, uint64_t at)
{
    uint64_t offset = at << q->header.cluster_bits;
    bool counts_itself = at >> q->block_order == index;
    uint64_t own = counts_itself ? at & ((1ULL << q->block_order) - 1) : UINT64_MAX;

    assert_held(&q->alloc);
    if (index >= qcow2_table_entries(q))
        return -EAGAIN;
    if (offset >= QCOW2_MAX_OFFSET ||
        (!q->map.file->limits.growable && offset + q->map.cluster_bytes > q->map.file->size))
        return -ENOSPC;
    TRY(refuse_taken(q, at, 1));
    if (!counts_itself)
        TRY(co_qcow2_count_add(q, at, 1, 1));
    int rc = co_new_block_pages(q, offset, own);
    if (rc == 0) {
        rc = co_set_table_entry(q, index, offset);
        if (rc < 0)
            co_meta_forget(q->map.meta, offset, q->map.cluster_bytes);
    }
    if (rc < 0 && !counts_itself)
        qcow2_release(q, offset, 1, 0);
    return rc;
}

/* --- a longer table ------------------------------------------------------- */

struct growth {
    uint64_t old_entries, entries; /* of the table */
    uint64_t first;                /* cluster: the blocks, then the table */
    uint64_t blocks, table_clusters;
};

static int plan_growth(const struct qcow2 *q, struct growth *g)
{
    uint64_t per_cluster = q->map.cluster_bytes / 8;

    g->old_entries = qcow2_table_entries(q);
    g->first = g->old_entries << q->block_order;
    g->blocks = 1;
    for (;;) {
        uint64_t want = MAX(g->old_entries + g->blocks + 1, g->old_entries * 3 / 2);
        g->table_clusters = div_up(want, per_cluster);
        uint64_t covered = g->blocks << q->block_order;
        if (covered >= g->blocks + g->table_clusters)
            break;
        g->blocks++;
    }
    g->entries = g->table_clusters * per_cluster;
    if (g->table_clusters * q->map.cluster_bytes > QCOW2_MAX_REFTABLE)
        return -EFBIG;
    uint64_t end = g->first + g->blocks + g->table_clusters;
    if (end > QCOW2_MAX_OFFSET >> q->header.cluster_bits)
        return -EFBIG;
    if (!q->map.file->limits.growable && end * q->map.cluster_bytes > q->map.file->size)
        return -ENOSPC;
    return 0;
}

static int co_write_blocks(struct qcow2 *q, const struct growth *g, uint8_t *buf)
{
    uint64_t used = g->blocks + g->table_clusters;

    for (uint64_t b = 0; b < g->blocks; b++) {
        uint64_t base = b << q->block_order;
        memset(buf, 0, q->map.cluster_bytes);
        for (uint64_t i = 0; i < 1ULL << q->block_order && base + i < used; i++)
            qcow2_count_set(buf, q->header.refcount_order, i, 1);
        uint64_t at = (g->first + b) * q->map.cluster_bytes;
        TRY(co_blk_write_buf(q->map.file, at, buf, q->map.cluster_bytes, 0));
    }
    return 0;
}

static int co_write_table(struct qcow2 *q, const struct growth *g, uint8_t *buf)
{
    uint64_t per_cluster = q->map.cluster_bytes / 8;

    for (uint64_t c = 0; c < g->table_clusters; c++) {
        for (uint64_t i = 0; i < per_cluster; i++) {
            uint64_t index = c * per_cluster + i;
            be64 entry = be64_of(0);
            if (index < g->old_entries) {
                struct meta_page *page;
                uint8_t *old;
                TRY(co_qcow2_table_page(q, index, &page, &old));
                memcpy(&entry, old, sizeof(entry));
                meta_put(q->map.meta, page);
            } else if (index - g->old_entries < g->blocks) {
                entry = be64_of((g->first + index - g->old_entries) * q->map.cluster_bytes);
            }
            memcpy(buf + i * 8, &entry, sizeof(entry));
        }
        uint64_t at = (g->first + g->blocks + c) * q->map.cluster_bytes;
        TRY(co_blk_write_buf(q->map.file, at, buf, q->map.cluster_bytes, 0));
    }
    return 0;
}

/* Writes the new table and makes it the image's. */
static int co_switch_table(struct qcow2 *q, const struct growth *g)
{
    uint64_t old_at = q->header.refcount_table_offset;
    uint64_t old_bytes = g->old_entries * 8;
    struct qcow2_header h = q->header;
    auto_free uint8_t *buf = mem_aligned(q->map.cluster_bytes);

    if (!buf)
        return -ENOMEM;
    TRY(refuse_taken(q, g->first, g->blocks + g->table_clusters));
    co_meta_forget(q->map.meta, g->first * q->map.cluster_bytes,
                   (g->blocks + g->table_clusters) * q->map.cluster_bytes);
    TRY(co_write_blocks(q, g, buf));
    TRY(co_write_table(q, g, buf));
    if (!q->map.fresh)
        TRY(co_blk_flush(q->map.file));
    h.refcount_table_offset = (g->first + g->blocks) * q->map.cluster_bytes;
    h.refcount_table_clusters = (uint32_t)g->table_clusters;
    TRY(co_qcow2_put_header(q, &h));
    q->memo_block = 0;
    q->table_seq++;
    for (uint64_t b = 0; b < g->blocks; b++)
        qcow2_guard_add(q, (g->first + b) * q->map.cluster_bytes, QCOW2_GUARD_BLOCK);
    qcow2_release(q, old_at, old_bytes, QCOW2_TABLE);
    return 0;
}

/* Makes everything durable that the old table names, alloc let go meanwhile. */
static int co_settle(struct qcow2 *q)
{
    uint64_t seq = q->table_seq;

    if (q->map.fresh)
        return 0;
    co_mutex_unlock(&q->alloc);
    int rc = co_meta_write_back(q->map.meta, true);
    co_mutex_lock(&q->alloc);
    return rc < 0 ? rc : seq != q->table_seq;
}

int co_qcow2_grow_table(struct qcow2 *q)
{
    uint64_t old_entries = qcow2_table_entries(q);
    struct growth g;
    int again = 1;

    assert_held(&q->alloc);
    TRY(plan_growth(q, &g));
    while (again) {
        again = co_settle(q);
        TRY(again);
        if (qcow2_table_entries(q) != old_entries)
            return 0; /* somebody else did it */
    }
    TRY(plan_growth(q, &g));
    return co_switch_table(q, &g);
}

void qcow2_forget_counts(struct qcow2 *q)
{
    q->memo_block = 0;
    q->table_seq++;
    q->next = UINT64_MAX;
    q->scan = 0;
    q->pack_at = 0;
    q->file_bytes = q->map.file->size;
    qcow2_runs_drop(&q->free);
    q->guard.built = false;
}

/* --- space that lies together --------------------------------------------- */

/* Makes the refcount blocks that [first, first + n) needs, into clusters from *first on, which
 * moves up. */
static int co_cover(struct qcow2 *q, uint64_t *first, uint64_t n)
{
    for (uint64_t c = *first; c < *first + n;) {
        uint64_t index = c >> q->block_order, block;
        TRY(co_qcow2_block_of(q, c, &block));
        if (block == 0) {
            TRY(co_qcow2_create_block(q, index, *first));
            ++*first;
            c = MAX(c, *first);
            continue;
        }
        c = (index + 1) << q->block_order;
    }
    return 0;
}

/* The first cluster of [first, +n) that is in use; first + n: none. */
static int co_first_used(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *used)
{
    for (uint64_t c = first; c < first + n;) {
        uint64_t value, same, run = MIN(first + n - c, qcow2_page_run(q, c));
        TRY(co_qcow2_count_same(q, c, run, &value, &same));
        if (value) {
            *used = c;
            return 0;
        }
        c += same;
    }
    *used = first + n;
    return 0;
}

static int co_count_all(struct qcow2 *q, uint64_t first, uint64_t n)
{
    for (uint64_t c = first; c < first + n;) {
        uint64_t run = MIN(first + n - c, qcow2_page_run(q, c));
        int rc = co_qcow2_count_add(q, c, run, 1);
        if (rc < 0) {
            if (c > first)
                qcow2_release(q, first << q->header.cluster_bits,
                              (c - first) << q->header.cluster_bits, 0);
            return rc;
        }
        c += run;
    }
    return 0;
}

static int co_place_together(struct qcow2 *q, uint64_t clusters, uint64_t *offset)
{
    uint64_t first = q->next, used;

    for (;; first = used + 1) {
        uint64_t end = (first + clusters) << q->header.cluster_bits;
        if (end > QCOW2_MAX_OFFSET || (!q->map.file->limits.growable && end > q->map.file->size))
            return -ENOSPC;
        uint64_t block;
        TRY(co_qcow2_block_of(q, first, &block));
        if (block) { /* a block made below must not land on something */
            TRY(co_first_used(q, first, 1, &used));
            if (used == first)
                continue;
        }
        TRY(co_cover(q, &first, clusters));
        TRY(co_first_used(q, first, clusters, &used));
        if (used == first + clusters)
            break;
    }
    TRY(refuse_taken(q, first, clusters));
    TRY(co_qcow2_extend_file(q, first + clusters));
    TRY(co_count_all(q, first, clusters));
    q->next = MAX(q->next, first + clusters);
    *offset = first << q->header.cluster_bits;
    return 0;
}

int co_qcow2_place_together(struct qcow2 *q, uint64_t clusters, uint64_t *offset)
{
    uint64_t first = 0, one = 1;
    bool reused;
    int rc;

    assert_held(&q->alloc);
    TRY(co_qcow2_sure_header(q));
    if (clusters == 1 || q->next == UINT64_MAX) {
        /* one is the ordinary case; else this finds the end */
        TRY(co_qcow2_place_run(q, &first, &one, &reused));
        *offset = first << q->header.cluster_bits;
        if (clusters == 1)
            return 0;
        qcow2_release(q, *offset, 1, 0);
    }
    while ((rc = co_place_together(q, clusters, offset)) == -EAGAIN)
        TRY(co_qcow2_grow_table(q));
    return rc;
}

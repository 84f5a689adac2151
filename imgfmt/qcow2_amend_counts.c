/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_amend_counts.c - reference counts of another width.
 *
 *   1 all the image holds -> F
 *   2 behind the last cluster in use, which nobody counts: new refcount blocks with the old counts
 *     (and those of the new blocks and table), a new table                              -> F
 *   3 one write of the header: the table's place and length, and the width             -> F
 *   4 the old table and blocks are let go of, like any space
 *
 * A crash before 3 leaves the old counts and bytes that nobody refers to; after 3 the new ones,
 * with the old structure leaked at most. A count that the new width cannot hold refuses at 2. */
#include "imgfmt/qcow2_alloc.h"

#define TABLE_MAX (QCOW2_MAX_REFTABLE / 8)

struct recount {
    struct qcow2 *q;
    uint32_t order, block_order; /* the new ones */
    uint64_t *old;               /* offsets of the old blocks, by index; 0: there is none */
    uint64_t old_entries;
    uint64_t *blocks; /* of the new table: 1 is wanted, then where it lies; 0: none */
    uint64_t needs;   /* entries that it needs */
    uint64_t count;   /* blocks that are wanted */
    uint64_t end;     /* the first cluster above all that are used */
    uint64_t table_clusters;
    struct blk_error *e;
};

static int want_block(struct recount *r, uint64_t cluster)
{
    uint64_t index = cluster >> r->block_order;

    if (index >= TABLE_MAX)
        return err_set(r->e, -EFBIG,
                       "the refcount table would be longer than 8 MiB with counts this wide");
    if (r->blocks[index] == 0) {
        r->blocks[index] = 1;
        r->count++;
    }
    r->needs = MAX(r->needs, index + 1);
    return 0;
}

/* --- the old counts ------------------------------------------------------- */

static int refuse_count(const struct recount *r, uint64_t cluster, uint64_t count)
{
    return err_set(r->e, -EINVAL,
                   "Cannot decrease refcount entry width to %u bits: Cluster at offset %#" PRIx64
                   " has a refcount of %" PRIu64,
                   1u << r->order, cluster << r->q->header.cluster_bits, count);
}

/* The counts of one page: do they fit, and which new blocks hold them. */
static int co_look_at_page(struct recount *r, uint64_t first)
{
    struct qcow2 *q = r->q;
    uint32_t order = q->header.refcount_order;
    uint64_t n = qcow2_page_run(q, first), index, at;
    struct meta_page *page;

    TRY(co_qcow2_count_page(q, first, &page, &index));
    int rc = 0;
    for (at = index; rc == 0; at++) {
        at = qcow2_count_find(page->data, order, at, index + n, false);
        if (at == index + n)
            break;
        uint64_t count = qcow2_count_get(page->data, order, at), cluster = first + (at - index);
        r->end = MAX(r->end, cluster + 1);
        rc = count > qcow2_count_max(r->order) ? refuse_count(r, cluster, count)
                                               : want_block(r, cluster);
    }
    meta_put(q->map.meta, page);
    return rc;
}

static int co_look(struct recount *r)
{
    struct qcow2 *q = r->q;

    for (uint64_t i = 0; i < r->old_entries; i++) {
        uint64_t first = i << q->block_order, past = (i + 1) << q->block_order;
        TRY(co_qcow2_block_of(q, first, &r->old[i]));
        for (uint64_t c = first; r->old[i] && c < past; c += qcow2_page_run(q, c))
            TRY(co_look_at_page(r, c));
    }
    return 0;
}

/* --- the new ones --------------------------------------------------------- */

/* Space for blocks and table, which themselves want blocks. */
static int plan(struct recount *r)
{
    const struct qcow2 *q = r->q;
    uint64_t last = 0, total = 1;

    while (total != last) {
        last = total;
        for (uint64_t i = 0; i < total; i++)
            TRY(want_block(r, r->end + i));
        r->table_clusters = div_up((r->needs + 1) * 8, q->map.cluster_bytes);
        total = r->count + r->table_clusters;
    }
    uint64_t past = (r->end + total) << q->header.cluster_bits;
    if (r->table_clusters * q->map.cluster_bytes > QCOW2_MAX_REFTABLE)
        return err_set(r->e, -EFBIG, "the refcount table would be longer than 8 MiB");
    if (past > QCOW2_MAX_OFFSET || (!q->map.file->limits.growable && past > q->map.file->size))
        return err_set(r->e, -ENOSPC, "there is no space behind the image for other counts");
    uint64_t at = r->end << q->header.cluster_bits;
    for (uint64_t i = 0; i < r->needs; i++)
        if (r->blocks[i]) {
            r->blocks[i] = at;
            at += q->map.cluster_bytes;
        }
    return 0;
}

/* Copies the old counts of [first, +n), which lie in one old page, to @block, that begins with
 * @base. */
static int co_copy_counts(struct recount *r, uint64_t first, uint64_t n, uint64_t base,
                          uint8_t *block)
{
    struct qcow2 *q = r->q;
    uint32_t order = q->header.refcount_order;
    struct meta_page *page;
    uint64_t index;
    int rc = co_qcow2_count_page(q, first, &page, &index);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (uint64_t at = index;
         (at = qcow2_count_find(page->data, order, at, index + n, false)) < index + n; at++)
        qcow2_count_set(block, r->order, first + (at - index) - base,
                        qcow2_count_get(page->data, order, at));
    meta_put(q->map.meta, page);
    return 0;
}

static int co_write_block(struct recount *r, uint64_t index, uint8_t *block)
{
    struct qcow2 *q = r->q;
    uint64_t base = index << r->block_order, past = base + (1ULL << r->block_order);
    uint64_t own_past = r->end + r->count + r->table_clusters;

    memset(block, 0, q->map.cluster_bytes);
    for (uint64_t c = base, n; c < MIN(past, r->end); c += n) {
        n = MIN(MIN(past, r->end) - c, qcow2_page_run(q, c));
        TRY(co_copy_counts(r, c, n, base, block));
    }
    for (uint64_t c = MAX(base, r->end); c < MIN(past, own_past); c++)
        qcow2_count_set(block, r->order, c - base, 1);
    return co_blk_write_buf(q->map.file, r->blocks[index], block, q->map.cluster_bytes, 0);
}

static int co_write_table(struct recount *r, uint8_t *buf)
{
    struct qcow2 *q = r->q;
    uint64_t per_cluster = q->map.cluster_bytes / 8;

    for (uint64_t c = 0; c < r->table_clusters; c++) {
        memset(buf, 0, q->map.cluster_bytes);
        for (uint64_t i = 0; i < per_cluster && c * per_cluster + i < r->needs; i++) {
            be64 entry = be64_of(r->blocks[c * per_cluster + i]);
            memcpy(buf + i * 8, &entry, sizeof(entry));
        }
        uint64_t at = (r->end + r->count + c) << q->header.cluster_bits;
        TRY(co_blk_write_buf(q->map.file, at, buf, q->map.cluster_bytes, 0));
    }
    return 0;
}

static int co_write_new(struct recount *r)
{
    struct qcow2 *q = r->q;
    uint64_t clusters = r->count + r->table_clusters;
    auto_free uint8_t *buf = mem_aligned(q->map.cluster_bytes);

    if (!buf)
        return -ENOMEM;
    if (qcow2_guard_hits(q, r->end, clusters)) { /* R2 */
        map_corrupt(&q->map, "a cluster of the header or of a table is counted as free");
        return -EIO;
    }
    co_meta_forget(q->map.meta, r->end << q->header.cluster_bits,
                   clusters << q->header.cluster_bits);
    for (uint64_t i = 0; i < r->needs; i++)
        if (r->blocks[i])
            TRY(co_write_block(r, i, buf));
    TRY(co_write_table(r, buf));
    return q->map.fresh ? 0 : co_blk_flush(q->map.file);
}

/* --- from one to the other ------------------------------------------------ */

static int co_switch(struct recount *r)
{
    struct qcow2 *q = r->q;
    struct qcow2_header h = q->header;
    uint64_t old_table = h.refcount_table_offset, old_bytes = r->old_entries * 8;

    h.refcount_order = r->order;
    h.refcount_table_offset = (r->end + r->count) << h.cluster_bits;
    h.refcount_table_clusters = (uint32_t)r->table_clusters;
    TRY(co_qcow2_put_header(q, &h));
    qcow2_forget_counts(q);
    q->block_order = r->block_order;
    q->next = r->end + r->count + r->table_clusters;
    q->used_end = MAX(q->next, div_up(q->map.file->size, q->map.cluster_bytes));
    qcow2_release(q, old_table, old_bytes, QCOW2_TABLE);
    for (uint64_t i = 0; i < r->old_entries; i++)
        if (r->old[i])
            qcow2_release(q, r->old[i], q->map.cluster_bytes, QCOW2_TABLE);
    return 0;
}

/* Caller holds alloc. */
static int co_recount(struct qcow2 *q, uint32_t order, struct blk_error *e)
{
    uint64_t entries = qcow2_table_entries(q);
    auto_free uint64_t *old = mem_array(entries, sizeof(*old));
    auto_free uint64_t *blocks = mem_array(TABLE_MAX, sizeof(*blocks));
    struct recount r = {.q = q,
                        .order = order,
                        .block_order = q->header.cluster_bits + 3 - order,
                        .old = old,
                        .old_entries = entries,
                        .blocks = blocks,
                        .e = e};

    if (!old || !blocks)
        return -ENOMEM;
    TRY(co_qcow2_sure_header(q));
    TRY(co_qcow2_guard(q));
    TRY(co_look(&r));
    TRY(plan(&r));
    TRY(co_write_new(&r));
    return co_switch(&r);
}

/* Everything durable and let go of, and alloc held. */
static int co_lock_settled(struct qcow2 *q)
{
    for (;;) {
        TRY(co_qcow2_settle(q, !q->map.fresh));
        co_mutex_lock(&q->alloc);
        if (!q->release_count && !q->draining)
            return 0;
        co_mutex_unlock(&q->alloc);
    }
}

int co_qcow2_change_counts(struct qcow2 *q, uint32_t order, struct blk_error *e)
{
    if (order == q->header.refcount_order)
        return 0;
    TRY(co_lock_settled(q));
    int rc = co_recount(q, order, e);
    co_mutex_unlock(&q->alloc);
    return rc < 0 ? rc : co_qcow2_settle(q, !q->map.fresh);
}

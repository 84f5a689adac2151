/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refcount.c - who owns which cluster of a qcow2 image: looking counts up, changing them, and
 * handing clusters out.
 *
 *   refcount table --> refcount blocks, one cluster each --> one count per cluster of the file
 *
 * Where a cluster comes from, in this order:
 *   1 what this session freed, and holes that the scan has found (qcow2.free)
 *   2 the scan looks at one page of counts per call, until it has seen the whole file once
 *   3 the first cluster above all that was ever used (qcow2.next)
 * so no allocation walks the counts. All counts go through the metadata cache at rank 0: they are
 * durable before any L2 entry that relies on them (M4).
 *
 * Invariants:
 *   R1  A cluster is handed out only if its count was zero, and its count is one when it is.
 *   R2  No cluster that the header or a table lies in is handed out, whatever the counts say
 *       (qcow2_guard.c).
 *   R3  Counts change in one page at a time, after everything that can fail. */
#include "imgfmt/qcow2_alloc.h"

uint64_t qcow2_page_run(const struct qcow2 *q, uint64_t first)
{
    uint64_t per_page = (uint64_t)q->page_bytes * 8 >> q->header.refcount_order;

    return per_page - first % per_page;
}

int co_qcow2_table_page(struct qcow2 *q, uint64_t index, struct meta_page **page, uint8_t **entry)
{
    uint64_t at = q->header.refcount_table_offset + index * 8;
    uint64_t page_at = align_down(at, q->page_bytes);

    TRY(co_meta_get(q->map.meta, page_at, QCOW2_RANK_TABLE, page));
    *entry = (*page)->data + (at - page_at);
    return 0;
}

int co_qcow2_block_of(struct qcow2 *q, uint64_t cluster, uint64_t *offset)
{
    uint64_t index = cluster >> q->block_order;
    struct meta_page *page;
    uint8_t *entry;
    be64 raw;

    if (q->memo_block && q->memo_index == index) {
        *offset = q->memo_block;
        return 0;
    }
    *offset = 0;
    if (index >= qcow2_table_entries(q))
        return 0;
    TRY(co_qcow2_table_page(q, index, &page, &entry));
    memcpy(&raw, entry, sizeof(raw));
    meta_put(q->map.meta, page);
    uint64_t at = be64_get(raw) & ~QCOW2_TABLE_RESERVED;
    if (at == 0)
        return 0;
    if (at & (q->map.cluster_bytes - 1) || at >= QCOW2_MAX_OFFSET ||
        qcow2_hits_tables(q, at, q->map.cluster_bytes)) {
        map_corrupt(&q->map, "a refcount block lies where none can be");
        return -EIO;
    }
    q->memo_index = index;
    *offset = q->memo_block = at;
    return 0;
}

int co_qcow2_block_page(struct qcow2 *q, uint64_t block, uint64_t cluster, struct meta_page **page,
                        uint64_t *index)
{
    uint64_t in_block = cluster & ((1ULL << q->block_order) - 1);
    uint64_t at = block + align_down((in_block << q->header.refcount_order) / 8, q->page_bytes);

    *index = in_block % ((uint64_t)q->page_bytes * 8 >> q->header.refcount_order);
    return co_meta_get(q->map.meta, at, QCOW2_RANK_BLOCK, page);
}

int co_qcow2_count_page(struct qcow2 *q, uint64_t cluster, struct meta_page **page, uint64_t *index)
{
    uint64_t block;

    TRY(co_qcow2_block_of(q, cluster, &block));
    return block ? co_qcow2_block_page(q, block, cluster, page, index) : -ENOENT;
}

int co_qcow2_count(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct meta_page *page;
    uint64_t index;
    int rc = co_qcow2_count_page(q, cluster, &page, &index);

    *count = 0;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    *count = qcow2_count_get(page->data, q->header.refcount_order, index);
    meta_put(q->map.meta, page);
    return 0;
}

int co_qcow2_count_add(struct qcow2 *q, uint64_t first, uint64_t count, int delta)
{
    uint32_t order = q->header.refcount_order;
    uint64_t refuse = delta > 0 ? qcow2_count_max(order) : 0;
    struct meta_page *page;
    uint64_t index;

    assert_held(&q->alloc);
    assert(count && count <= qcow2_page_run(q, first));
    TRY(co_qcow2_count_page(q, first, &page, &index));
    int rc = 0;
    for (uint64_t i = 0; i < count && rc == 0; i++)
        if (qcow2_count_get(page->data, order, index + i) == refuse)
            rc = -ERANGE;
    if (rc == 0)
        rc = meta_touch(q->map.meta, page);
    if (rc == 0) /* R3 */
        for (uint64_t i = 0; i < count; i++) {
            uint64_t now = qcow2_count_get(page->data, order, index + i);
            qcow2_count_set(page->data, order, index + i, delta > 0 ? now + 1 : now - 1);
        }
    meta_put(q->map.meta, page);
    return rc;
}

/* How many of the @count clusters from @first on (in one page) share the first one's count. */
int co_qcow2_count_same(struct qcow2 *q, uint64_t first, uint64_t count, uint64_t *value,
                        uint64_t *same)
{
    uint32_t order = q->header.refcount_order;
    struct meta_page *page;
    uint64_t index, n = 1;

    assert(count && count <= qcow2_page_run(q, first));
    TRY(co_qcow2_count_page(q, first, &page, &index));
    *value = qcow2_count_get(page->data, order, index);
    while (n < count && qcow2_count_get(page->data, order, index + n) == *value)
        n++;
    *same = n;
    meta_put(q->map.meta, page);
    return 0;
}

/* --- the end, and the holes ----------------------------------------------- */

/* The last cluster of the block at @block whose count is not zero, plus one; 0: there is none. */
static int co_block_end(struct qcow2 *q, uint64_t base, unsigned *budget, uint64_t *end)
{
    uint64_t per_page = qcow2_page_run(q, 0);
    uint64_t pages = (1ULL << q->block_order) / per_page;

    *end = 0;
    for (uint64_t p = pages; p-- > 0 && *end == 0;) {
        uint64_t first = base + p * per_page, index, used = 0;
        struct meta_page *page;
        if ((*budget)-- == 0) {
            *end = first + per_page; /* far enough: an upper bound will do */
            return 0;
        }
        TRY(co_qcow2_count_page(q, first, &page, &index));
        uint32_t order = q->header.refcount_order;
        for (uint64_t i = per_page; i-- > 0 && used == 0;)
            if (qcow2_count_get(page->data, order, i))
                used = i + 1;
        meta_put(q->map.meta, page);
        if (used)
            *end = first + used;
    }
    return 0;
}

/* Finds where the used part of the file ends: by the counts, since a file may be longer than what
 * is used of it. */
static int co_find_end(struct qcow2 *q)
{
    uint64_t inside = div_up(q->map.file->size, q->map.cluster_bytes);
    unsigned budget = 4096;
    uint64_t end = 0;

    for (uint64_t i = qcow2_table_entries(q); i-- > 0 && end == 0;) {
        uint64_t block;
        TRY(co_qcow2_block_of(q, i << q->block_order, &block));
        if (block)
            TRY(co_block_end(q, i << q->block_order, &budget, &end));
    }
    q->next = MAX(end, 1);
    q->used_end = MAX(q->next, inside);
    return 0;
}

/* Looks at one page of counts for holes below next. */
static int co_scan_page(struct qcow2 *q)
{
    uint32_t order = q->header.refcount_order;
    uint64_t n = MIN(qcow2_page_run(q, q->scan), q->next - q->scan);
    struct meta_page *page;
    uint64_t index;
    int rc = co_qcow2_count_page(q, q->scan, &page, &index);

    if (rc == -ENOENT) {
        qcow2_runs_add(&q->free, q->scan, n);
        q->scan += n;
        return 0;
    }
    TRY(rc);
    for (uint64_t at = index; at < index + n;) {
        uint64_t from = qcow2_count_find(page->data, order, at, index + n, true);
        uint64_t to = qcow2_count_find(page->data, order, from, index + n, false);
        if (to > from)
            qcow2_runs_add(&q->free, q->scan + (from - index), to - from);
        at = to;
    }
    meta_put(q->map.meta, page);
    q->scan += n;
    return 0;
}

/* --- handing out ---------------------------------------------------------- */

/* Marks up to *count clusters from *first on as used: the first ones there whose count is zero, in
 * the page of *first. *count 0: there are none in this page. -ENOENT: no block. */
static int co_claim(struct qcow2 *q, uint64_t *first, uint64_t *count)
{
    uint32_t order = q->header.refcount_order;
    uint64_t run = qcow2_page_run(q, *first);
    struct meta_page *page;
    uint64_t index;

    TRY(co_qcow2_count_page(q, *first, &page, &index));
    uint64_t from = qcow2_count_find(page->data, order, index, index + run, true);
    uint64_t limit = MIN(index + run, from + *count);
    uint64_t to = qcow2_count_find(page->data, order, from, limit, false);
    *first += from - index;
    *count = to - from;
    int rc = 0;
    if (*count && qcow2_guard_hits(q, *first, *count)) {
        map_corrupt(&q->map, "a cluster of the header or of a table is counted as free"); /* R2 */
        rc = -EIO;
    }
    if (rc == 0 && *count)
        rc = meta_touch(q->map.meta, page);
    if (rc == 0)
        for (uint64_t i = 0; i < *count; i++)
            qcow2_count_set(page->data, order, from + i, 1); /* R1 */
    meta_put(q->map.meta, page);
    return rc;
}

/* How many clusters of [first, +count) the file can have. */
static uint64_t file_holds(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    uint64_t end = QCOW2_MAX_OFFSET;

    if (!q->map.file->limits.growable)
        end = MIN(end, q->map.file->size);
    end >>= q->header.cluster_bits;
    return first >= end ? 0 : MIN(count, end - first);
}

int co_qcow2_extend_file(struct qcow2 *q, uint64_t end)
{
    struct blk_device *file = q->map.file;
    uint64_t bytes = end << q->header.cluster_bits;

    if (bytes <= file->size || !file->limits.growable)
        return 0;
    uint64_t ahead = MIN(MAX(bytes / 16, 256 * KiB), 16 * MiB);
    bytes = align_up(bytes + ahead, q->map.cluster_bytes);
    blk_step(file, "cluster_alloc_space");
    return co_blk_write_buf(file, bytes - 1, "", 1, 0);
}

void co_qcow2_trim_file(struct qcow2 *q)
{
    struct blk_device *file = q->map.file;

    if (q->next == UINT64_MAX || q->header_unsure || !file->limits.growable)
        return;
    uint64_t end = MAX(q->next << q->header.cluster_bits, q->file_bytes);
    if (file->size > end)
        (void)!co_blk_resize(file, end, true, NULL); /* a tail of zeroes is no harm */
}

/* Fills q->free by the scan: one page, or until something is found when nothing else is left. */
static int co_look_for_holes(struct qcow2 *q, bool all)
{
    if (q->map.fresh)
        return 0;
    do {
        if (q->free.used || q->scan >= q->next)
            return 0;
        TRY(co_scan_page(q));
    } while (all);
    return 0;
}

/* Takes from what is known to be free. *count 0: nothing there. */
static int co_place_freed(struct qcow2 *q, uint64_t *first, uint64_t *count)
{
    uint64_t want = *count;

    while ((*count = qcow2_runs_take(&q->free, want, first)) != 0) {
        uint64_t at = *first, n = MIN(*count, qcow2_page_run(q, at)), got = n;
        if (*count > n)
            qcow2_runs_add(&q->free, at + n, *count - n);
        int rc = co_claim(q, first, &got);
        if (rc == -ENOENT) {
            TRY(co_qcow2_create_block(q, at >> q->block_order, at));
            if (n > 1)
                qcow2_runs_add(&q->free, at + 1, n - 1);
            continue;
        }
        TRY(rc); /* what was taken is forgotten until the next open */
        if (got && *first + got < at + n)
            qcow2_runs_add(&q->free, *first + got, at + n - *first - got);
        *count = got;
        if (got)
            return 0;
    }
    return 0;
}

/* Takes from above all that is used. */
static int co_place_next(struct qcow2 *q, uint64_t *first, uint64_t *count)
{
    uint64_t want = *count;

    for (;;) {
        *first = q->next;
        *count = file_holds(q, *first, MIN(want, qcow2_page_run(q, *first)));
        if (*count == 0)
            return -ENOSPC;
        uint64_t page_end = *first + qcow2_page_run(q, *first);
        int rc = co_claim(q, first, count);
        if (rc == -ENOENT) {
            TRY(co_qcow2_create_block(q, q->next >> q->block_order, q->next));
            q->next++;
            continue;
        }
        TRY(rc);
        q->next = *count ? *first + *count : page_end;
        if (*count)
            return 0;
    }
}

/* One run of clusters with counts of one. -EAGAIN: the refcount table must grow first. */
static int co_try_place(struct qcow2 *q, uint64_t *first, uint64_t *count, bool *reused)
{
    uint64_t want = *count;

    assert_held(&q->alloc);
    TRY(co_qcow2_sure_header(q));
    TRY(co_qcow2_guard(q));
    if (q->next == UINT64_MAX)
        TRY(co_find_end(q));
    TRY(co_look_for_holes(q, false));
    *reused = true;
    TRY(co_place_freed(q, first, count));
    if (*count)
        return 0;
    *count = want;
    int rc = co_place_next(q, first, count);
    if (rc == -ENOSPC && q->scan < q->next) {
        TRY(co_look_for_holes(q, true));
        *count = want;
        TRY(co_place_freed(q, first, count));
        return *count ? 0 : -ENOSPC;
    }
    TRY(rc);
    rc = co_qcow2_extend_file(q, q->next);
    if (rc < 0) {
        qcow2_release(q, *first << q->header.cluster_bits, *count << q->header.cluster_bits, 0);
        return rc;
    }
    *reused = *first < q->used_end || !q->map.file->limits.fresh_reads_zero;
    return 0;
}

/* As co_try_place(), growing the table when needed. */
int co_qcow2_place_run(struct qcow2 *q, uint64_t *first, uint64_t *count, bool *reused)
{
    uint64_t want = *count;
    bool drained = false;

    for (;; *count = want) {
        int rc = co_try_place(q, first, count, reused);
        if (rc == -EAGAIN) {
            TRY(co_qcow2_grow_table(q));
        } else if (rc == -ENOSPC && !drained && (q->release_count || q->draining)) {
            drained = true; /* what was let go of may do */
            co_mutex_unlock(&q->alloc);
            co_qcow2_drain(q);
            co_mutex_lock(&q->alloc);
        } else {
            return rc;
        }
    }
}

int co_qcow2_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    struct qcow2 *q = qcow2_of(m);
    uint64_t first = 0;

    blk_step(m->file, "cluster_alloc");
    with_lock(&q->alloc);
    TRY(co_qcow2_place_run(q, &first, count, reused));
    *offset = first << q->header.cluster_bits;
    return 0;
}

int co_qcow2_place_table(struct map *m, uint64_t *offset)
{
    uint64_t one = 1;
    bool reused;

    TRY(co_qcow2_place(m, &one, offset, &reused));
    qcow2_guard_add(qcow2_of(m), *offset, QCOW2_GUARD_L2);
    return 0;
}

/* --- compressed clusters -------------------------------------------------- */

/* Puts @bytes behind the last compressed cluster where its host cluster has room and its count can
 * still rise. False: there is no room. */
static int co_pack_behind(struct qcow2 *q, uint32_t bytes, uint64_t *offset)
{
    uint64_t cluster = q->map.cluster_bytes;

    *offset = 0;
    if (q->pack_at % cluster == 0 || q->pack_at % cluster + bytes > cluster)
        return 0;
    int rc = co_qcow2_count_add(q, q->pack_at >> q->header.cluster_bits, 1, 1);
    if (rc == -ERANGE) {
        q->pack_at = 0;
        return 0;
    }
    TRY(rc);
    *offset = q->pack_at;
    q->pack_at += bytes;
    return 0;
}

/* Begins in the tail of the last host cluster and goes on in @first, which was just claimed and
 * follows it. */
static int co_pack_across(struct qcow2 *q, uint64_t first, uint32_t bytes, uint64_t *offset)
{
    uint64_t at = first << q->header.cluster_bits;

    *offset = at;
    if (q->pack_at > at - q->map.cluster_bytes && q->pack_at < at) {
        int rc = co_qcow2_count_add(q, first - 1, 1, 1);
        if (rc == 0)
            *offset = q->pack_at;
        else if (rc != -ERANGE)
            return rc;
    }
    q->pack_at = *offset + bytes;
    return 0;
}

int co_qcow2_place_packed(struct map *m, uint32_t bytes, uint64_t *offset, bool *reused)
{
    struct qcow2 *q = qcow2_of(m);
    uint64_t first = 0, one = 1;

    assert(bytes && bytes <= m->cluster_bytes);
    with_lock(&q->alloc);
    TRY(co_qcow2_sure_header(q));
    *reused = true;
    TRY(co_pack_behind(q, bytes, offset));
    if (*offset)
        return 0;
    TRY(co_qcow2_place_run(q, &first, &one, reused));
    uint64_t at = first << q->header.cluster_bits;
    int rc = at + bytes > qcow2_packed_offset_max(q->header.cluster_bits)
                 ? -ENOSPC
                 : co_pack_across(q, first, bytes, offset);
    if (rc < 0)
        qcow2_release(q, at, 1, 0);
    return rc;
}

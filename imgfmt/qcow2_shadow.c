/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_shadow.c - a second refcount structure beside the image's own.
 *
 * All blocks are copied, whether their counts change or not: two bytes for each cluster of the file
 * are little beside the tables that a snapshot walks. The pages of the new blocks go through the
 * metadata cache, so memory stays bounded. What became free is found at the end by comparing the
 * old blocks with the new ones, so no list of it is kept. The old blocks and the old table still
 * count one in the new structure and are released like any table: a crash before that leaks them.
 */
#include "imgfmt/qcow2_shadow.h"

/* --- clusters ahead of their use ------------------------------------------ */

static int places_room(struct qcow2_places *p, uint64_t want)
{
    if (want <= p->room)
        return 0;
    uint64_t *more = mem_resize(p->at, want * sizeof(*more));
    if (!more)
        return -ENOMEM;
    p->at = more;
    p->room = want;
    return 0;
}

int co_qcow2_places(struct qcow2 *q, struct qcow2_places *p, uint64_t want)
{
    uint32_t bits = q->header.cluster_bits;

    TRY(places_room(p, want));
    while (p->count < want) {
        uint64_t first = 0, got = want - p->count;
        bool reused;
        co_mutex_lock(&q->alloc);
        int rc = co_qcow2_place_run(q, &first, &got, &reused);
        co_mutex_unlock(&q->alloc);
        TRY(rc);
        /* Pages of what lay there before may be in the cache. */
        co_meta_forget(q->map.meta, first << bits, got << bits);
        for (uint64_t i = 0; i < got; i++)
            p->at[p->count++] = (first + i) << bits;
    }
    return 0;
}

uint64_t qcow2_places_take(struct qcow2_places *p)
{
    assert(p->used < p->count);
    return p->at[p->used++];
}

void qcow2_places_undo(struct qcow2 *q, struct qcow2_places *p)
{
    for (size_t i = 0; i < p->count; i++)
        qcow2_release(q, p->at[i], q->map.cluster_bytes, QCOW2_TABLE);
    qcow2_places_drop(p);
}

void qcow2_places_drop(struct qcow2_places *p)
{
    mem_free(p->at);
    *p = (struct qcow2_places){0};
}

/* --- room for the structure ----------------------------------------------- */

/* Where the blocks lie now; gives how many there are. */
static int co_read_table(struct qcow2_shadow *s, uint64_t *count)
{
    struct qcow2 *q = s->q;

    mem_free(s->old);
    s->old_table = q->header.refcount_table_offset;
    s->entries = qcow2_table_entries(q);
    s->old = mem_array(s->entries, sizeof(*s->old));
    if (!s->old)
        return -ENOMEM;
    *count = 0;
    with_lock(&q->alloc);
    for (uint64_t i = 0; i < s->entries; i++) {
        TRY(co_qcow2_block_of(q, i << q->block_order, &s->old[i]));
        *count += s->old[i] != 0;
    }
    return 0;
}

static int co_place_table(struct qcow2_shadow *s)
{
    struct qcow2 *q = s->q;
    uint64_t want = q->header.refcount_table_clusters;

    if (s->table)
        qcow2_release(q, s->table, s->table_clusters << q->header.cluster_bits, QCOW2_TABLE);
    s->table_clusters = want;
    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_place_together(q, want, &s->table);
    co_mutex_unlock(&q->alloc);
    if (rc < 0)
        s->table = 0;
    return rc;
}

/* Placing may make another block, or the table longer: until there is room for all. */
int co_qcow2_shadow_place(struct qcow2 *q, struct qcow2_shadow *s)
{
    uint64_t count = 0;

    *s = (struct qcow2_shadow){.q = q};
    for (;;) {
        if (s->table_clusters != q->header.refcount_table_clusters) {
            TRY(co_place_table(s));
            continue;
        }
        TRY(co_read_table(s, &count));
        if (count <= s->places.count)
            break;
        TRY(co_qcow2_places(q, &s->places, count));
    }
    s->blocks = mem_array(s->entries, sizeof(*s->blocks));
    if (!s->blocks)
        return -ENOMEM;
    for (uint64_t i = 0; i < s->entries; i++)
        s->blocks[i] = s->old[i] ? qcow2_places_take(&s->places) : 0;
    return 0;
}

int co_qcow2_shadow_copy(struct qcow2_shadow *s)
{
    struct qcow2 *q = s->q;
    uint64_t cluster = q->map.cluster_bytes;
    auto_free uint8_t *buf = mem_aligned(cluster);

    if (!buf)
        return -ENOMEM;
    TRY(co_qcow2_settle(q, false)); /* the old ones are in the file, and nothing waits to change */
    for (uint64_t i = 0; i < s->entries; i++) {
        if (!s->old[i])
            continue;
        TRY(co_blk_read_buf(q->map.file, s->old[i], buf, cluster));
        TRY(co_blk_write_buf(q->map.file, s->blocks[i], buf, cluster, 0));
    }
    return 0;
}

/* --- counts --------------------------------------------------------------- */

int co_qcow2_shadow_page(struct qcow2_shadow *s, uint64_t cluster, struct meta_page **page,
                         uint64_t *index)
{
    uint64_t block = cluster >> s->q->block_order;

    if (block >= s->entries || !s->blocks[block])
        return -ENOENT;
    return co_qcow2_block_page(s->q, s->blocks[block], cluster, page, index);
}

int co_qcow2_shadow_count(struct qcow2_shadow *s, uint64_t cluster, uint64_t *count)
{
    struct meta_page *page;
    uint64_t index;
    int rc = co_qcow2_shadow_page(s, cluster, &page, &index);

    *count = 0;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    *count = qcow2_count_get(page->data, s->q->header.refcount_order, index);
    meta_put(s->q->map.meta, page);
    return 0;
}

int co_qcow2_shadow_lower(struct qcow2_shadow *s, uint64_t cluster)
{
    uint32_t order = s->q->header.refcount_order;
    struct meta_page *page;
    uint64_t index;
    int rc = co_qcow2_shadow_page(s, cluster, &page, &index);

    if (rc < 0)
        return rc == -ENOENT ? -ERANGE : rc;
    uint64_t count = qcow2_count_get(page->data, order, index);
    rc = count ? meta_touch(s->q->map.meta, page) : -ERANGE;
    if (rc == 0)
        qcow2_count_set(page->data, order, index, count - 1);
    meta_put(s->q->map.meta, page);
    return rc;
}

/* --- into the file -------------------------------------------------------- */

int co_qcow2_write_words(struct qcow2 *q, const uint64_t *words, uint64_t count, uint64_t offset,
                         uint64_t bytes)
{
    uint64_t step = MIN(bytes, 256 * KiB);
    auto_free be64 *buf = mem_aligned(step);

    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < bytes; at += step) {
        uint64_t n = MIN(step, bytes - at);
        for (uint64_t i = 0; i < n / 8; i++)
            buf[i] = be64_of(at / 8 + i < count ? words[at / 8 + i] : 0);
        TRY(co_blk_write_buf(q->map.file, offset + at, buf, n, 0));
    }
    return 0;
}

int co_qcow2_shadow_write(struct qcow2_shadow *s)
{
    TRY(co_qcow2_write_words(s->q, s->blocks, s->entries, s->table, s->entries * 8));
    TRY(co_meta_write_back(s->q->map.meta, true)); /* with what was written past the cache */
    return co_blk_flush(s->q->map.file);
}

void co_qcow2_freed(struct qcow2 *q, uint64_t first, uint64_t count)
{
    uint32_t bits = q->header.cluster_bits;

    for (uint64_t i = 0; i < count; i++)
        qcow2_guard_remove(q, (first + i) << bits);
    (void)!co_blk_discard(q->map.file, first << bits, count << bits);
    if (!qcow2_runs_add(&q->free, first, count))
        q->scan = MIN(q->scan, first);
}

/* What the old block counts and the new one does not, from cluster @base on. */
static void co_compare(struct qcow2_shadow *s, uint64_t base, const uint8_t *old,
                       const uint8_t *now, uint64_t *freed)
{
    struct qcow2 *q = s->q;
    uint32_t order = q->header.refcount_order;
    uint64_t n = 1ULL << q->block_order, from = 0, to;

    for (; (from = qcow2_count_find(old, order, from, n, false)) < n; from = to) {
        to = from + 1;
        if (qcow2_count_get(now, order, from))
            continue;
        while (to < n && qcow2_count_get(old, order, to) && !qcow2_count_get(now, order, to))
            to++;
        co_qcow2_freed(q, base + from, to - from);
        *freed += (to - from) << q->header.cluster_bits;
    }
}

static int co_free_all(struct qcow2_shadow *s, uint64_t *freed)
{
    struct qcow2 *q = s->q;
    uint64_t cluster = q->map.cluster_bytes;
    auto_free uint8_t *buf = mem_aligned(2 * cluster);

    if (!buf)
        return -ENOMEM;
    for (uint64_t i = 0; i < s->entries; i++) {
        if (!s->old[i])
            continue;
        TRY(co_blk_read_buf(q->map.file, s->old[i], buf, cluster));
        TRY(co_blk_read_buf(q->map.file, s->blocks[i], buf + cluster, cluster));
        if (memcmp(buf, buf + cluster, cluster) != 0)
            co_compare(s, i << q->block_order, buf, buf + cluster, freed);
    }
    return 0;
}

void co_qcow2_shadow_taken(struct qcow2_shadow *s, uint64_t *freed)
{
    struct qcow2 *q = s->q;

    {
        with_lock(&q->alloc);
        q->memo_block = 0;
        q->table_seq++;
    }
    if (co_free_all(s, freed) < 0)
        q->scan = 0; /* whoever looks for holes finds what is left */
    for (uint64_t i = 0; i < s->entries; i++)
        if (s->old[i])
            qcow2_release(q, s->old[i], q->map.cluster_bytes, QCOW2_TABLE);
    qcow2_release(q, s->old_table, s->table_clusters << q->header.cluster_bits, QCOW2_TABLE);
}

/* --- the end -------------------------------------------------------------- */

void co_qcow2_shadow_undo(struct qcow2_shadow *s)
{
    struct qcow2 *q = s->q;

    if (!q)
        return;
    for (size_t i = 0; i < s->places.count; i++)
        co_meta_forget(q->map.meta, s->places.at[i], q->map.cluster_bytes);
    qcow2_places_undo(q, &s->places);
    if (s->table)
        qcow2_release(q, s->table, s->table_clusters << q->header.cluster_bits, QCOW2_TABLE);
}

void co_qcow2_shadow_drop(struct qcow2_shadow *s)
{
    for (uint64_t i = 0; s->blocks && i < s->entries; i++)
        if (s->blocks[i] && s->q->header.refcount_table_offset != s->table)
            co_meta_forget(s->q->map.meta, s->blocks[i], s->q->map.cluster_bytes);
    qcow2_places_drop(&s->places);
    mem_free(s->old);
    mem_free(s->blocks);
    *s = (struct qcow2_shadow){0};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_guard.c - no metadata is written onto another structure, and no space is handed out that
 * one lies in, whatever the counts and tables of a damaged image say.
 *
 * Known in memory: every cluster that an active L2 table or a refcount block lies in (a hash set,
 * eight to sixteen bytes for each), and the ranges of the snapshot table, of the snapshots' L1
 * tables and of the bitmap directory. The header, the active L1 table and the refcount table stand
 * in the header itself (qcow2_hits_tables()). It is learned from the tables before the first
 * allocation, kept up by who makes and frees tables, and learned anew after the header has named
 * other ones. Where it is asked:
 *
 *   - before space is handed out                                        (qcow2_guard_hits())
 *   - before a page of the metadata cache goes to disk, by its rank     (qcow2_guard_page())
 *
 * A violation sets the corrupt bit, and nothing more is written. */
#include "imgfmt/qcow2_bitmap.h"

/* A slot of the set: 0 is empty. */
static uint64_t slot_value(uint64_t cluster, enum qcow2_guard_kind kind)
{
    return (cluster << 1 | kind) + 1;
}

static uint64_t slot_cluster(uint64_t value)
{
    return (value - 1) >> 1;
}

static size_t slot_home(const struct qcow2_guard *g, uint64_t cluster)
{
    return (cluster * 0x9e3779b97f4a7c15ULL) >> 20 & (g->slot_room - 1);
}

/* Where @cluster is, or the empty slot where it would be. */
static size_t slot_of(const struct qcow2_guard *g, uint64_t cluster)
{
    size_t at = slot_home(g, cluster);

    while (g->slots[at] && slot_cluster(g->slots[at]) != cluster)
        at = (at + 1) & (g->slot_room - 1);
    return at;
}

static int more_slots(struct qcow2_guard *g)
{
    size_t old_room = g->slot_room, room = old_room ? old_room * 2 : 64;
    uint64_t *old = g->slots, *slots = mem_array(room, sizeof(*slots));

    if (!slots)
        return -ENOMEM;
    g->slots = slots;
    g->slot_room = room;
    for (size_t i = 0; i < old_room; i++)
        if (old[i])
            slots[slot_of(g, slot_cluster(old[i]))] = old[i];
    mem_free(old);
    return 0;
}

/* -EUCLEAN: a structure of another kind lies there. */
static int slot_add(struct qcow2_guard *g, uint64_t cluster, enum qcow2_guard_kind kind)
{
    if (g->slots_used * 2 >= g->slot_room)
        TRY(more_slots(g));
    size_t at = slot_of(g, cluster);
    if (g->slots[at])
        return g->slots[at] == slot_value(cluster, kind) ? 0 : -EUCLEAN;
    g->slots[at] = slot_value(cluster, kind);
    g->slots_used++;
    return 0;
}

/* Those behind it that were pushed away from home move up. */
static void slot_remove(struct qcow2_guard *g, uint64_t cluster)
{
    size_t mask = g->slot_room - 1, gap = slot_of(g, cluster);

    if (!g->slots[gap])
        return;
    g->slots_used--;
    for (size_t at = (gap + 1) & mask; g->slots[at]; at = (at + 1) & mask) {
        size_t home = slot_home(g, slot_cluster(g->slots[at]));
        if (((at - home) & mask) < ((at - gap) & mask))
            continue; /* its home lies behind the gap */
        g->slots[gap] = g->slots[at];
        gap = at;
    }
    g->slots[gap] = 0;
}

/* --- learning ------------------------------------------------------------- */

static int range_add(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    struct qcow2_guard *g = &q->guard;
    uint64_t end;

    if (bytes == 0 || !add_u64(offset, bytes, &end) || end > QCOW2_MAX_OFFSET)
        return 0;
    struct qcow2_run *more = mem_resize(g->ranges, (g->range_count + 1) * sizeof(*more));
    if (!more)
        return -ENOMEM;
    g->ranges = more;
    g->ranges[g->range_count++] = (struct qcow2_run){offset >> q->header.cluster_bits,
                                                     ((end - 1) >> q->header.cluster_bits) + 1 -
                                                         (offset >> q->header.cluster_bits)};
    return 0;
}

static int learn_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    return range_add(arg, s->l1_offset, s->l1_entries * 8ULL);
}

static int ignore_bitmap(void *arg, const struct qcow2_bitmap *b)
{
    (void)arg;
    (void)b;
    return 0;
}

static int co_learn_ranges(struct qcow2 *q)
{
    struct qcow2_bitmap_list list = {0};
    struct blk_error ignored = {0};
    uint64_t bytes = 0;

    if (q->header.snapshot_count) {
        TRY(co_qcow2_snapshots(q, learn_snapshot, q, &ignored));
        TRY(co_qcow2_snapshot_bytes(q, &bytes, &ignored));
        TRY(range_add(q, q->header.snapshots_offset, bytes));
    }
    if (q->header.crypto_bytes)
        TRY(range_add(q, q->header.crypto_offset, q->header.crypto_bytes));
    if (!q->header.bitmaps.bytes)
        return 0;
    TRY(co_qcow2_bitmaps(q, &list, ignore_bitmap, q, &ignored));
    return range_add(q, list.offset, list.bytes);
}

/* Adds what the @entries entries at @offset name, as the cache has them. */
static int co_learn_table(struct qcow2 *q, uint64_t offset, uint64_t entries,
                          enum qcow2_guard_kind kind)
{
    unsigned rank = kind == QCOW2_GUARD_L2 ? QCOW2_RANK_L1 : QCOW2_RANK_TABLE;
    uint64_t mask = kind == QCOW2_GUARD_L2 ? QCOW2_OFFSET_MASK : ~QCOW2_TABLE_RESERVED;
    uint64_t end = offset + entries * 8;

    for (uint64_t at = offset; at < end;) {
        uint64_t page_at = align_down(at, q->page_bytes), stop = MIN(end, page_at + q->page_bytes);
        struct meta_page *page;
        TRY(co_meta_get(q->map.meta, page_at, rank, &page));
        int rc = 0;
        for (; at < stop && rc == 0; at += 8) {
            be64 raw;
            memcpy(&raw, page->data + (at - page_at), sizeof(raw));
            uint64_t place = be64_get(raw) & mask;
            if (place && place < QCOW2_MAX_OFFSET && !(place & (q->map.cluster_bytes - 1)))
                rc = slot_add(&q->guard, place >> q->header.cluster_bits, kind);
        }
        meta_put(q->map.meta, page);
        TRY(rc);
    }
    return 0;
}

static int co_learn(struct qcow2 *q)
{
    const struct qcow2_header *h = &q->header;

    TRY(co_learn_ranges(q));
    int rc = co_learn_table(q, h->refcount_table_offset, qcow2_table_entries(q), QCOW2_GUARD_BLOCK);
    return rc < 0 ? rc : co_learn_table(q, h->l1_offset, h->l1_entries, QCOW2_GUARD_L2);
}

void qcow2_guard_drop(struct qcow2 *q)
{
    mem_free(q->guard.slots);
    mem_free(q->guard.ranges);
    q->guard = (struct qcow2_guard){0};
}

int co_qcow2_guard(struct qcow2 *q)
{
    assert_held(&q->alloc);
    if (likely(q->guard.built))
        return 0;
    qcow2_guard_drop(q);
    int rc = co_learn(q);
    if (rc == -EUCLEAN)
        map_corrupt(&q->map, "one table lies in another");
    TRY(rc == -EUCLEAN ? -EIO : rc);
    q->guard.built = true;
    return 0;
}

/* --- keeping up ----------------------------------------------------------- */

void qcow2_guard_add(struct qcow2 *q, uint64_t offset, enum qcow2_guard_kind kind)
{
    if (q->guard.built && slot_add(&q->guard, offset >> q->header.cluster_bits, kind) < 0)
        q->guard.built = false; /* learned anew before the next allocation */
}

void qcow2_guard_remove(struct qcow2 *q, uint64_t offset)
{
    if (q->guard.built && q->guard.slots)
        slot_remove(&q->guard, offset >> q->header.cluster_bits);
}

/* --- asking --------------------------------------------------------------- */

static bool hits_range(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (size_t i = 0; i < q->guard.range_count; i++)
        if (first < q->guard.ranges[i].first + q->guard.ranges[i].count &&
            first + count > q->guard.ranges[i].first)
            return true;
    return false;
}

bool qcow2_guard_is_table(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    const struct qcow2_guard *g = &q->guard;
    uint32_t bits = q->header.cluster_bits;

    if (qcow2_hits_tables(q, first << bits, count << bits))
        return true;
    for (uint64_t i = 0; i < count && g->slots; i++)
        if (g->slots[slot_of(g, first + i)])
            return true;
    return false;
}

bool qcow2_guard_hits(const struct qcow2 *q, uint64_t first, uint64_t count)
{
    const struct qcow2_guard *g = &q->guard;

    return qcow2_guard_is_table(q, first, count) || (g->built && hits_range(q, first, count));
}

/* Whether a page of this rank lies in the structure of its kind that the header names. */
static bool is_at_home(const struct qcow2 *q, uint64_t offset, unsigned rank)
{
    const struct qcow2_header *h = &q->header;
    uint64_t at = rank == QCOW2_RANK_L1 ? h->l1_offset : h->refcount_table_offset;
    uint64_t bytes = rank == QCOW2_RANK_L1
                         ? h->l1_entries * 8ULL
                         : (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    return (rank == QCOW2_RANK_L1 || rank == QCOW2_RANK_TABLE) && offset >= at &&
           offset < at + bytes;
}

int qcow2_guard_page(void *arg, uint64_t offset, unsigned rank)
{
    struct qcow2 *q = arg;
    const struct qcow2_guard *g = &q->guard;
    uint64_t cluster = offset >> q->header.cluster_bits, there = 0;
    bool bad = !is_at_home(q, offset, rank) && qcow2_hits_tables(q, offset, q->page_bytes);

    if (g->built && g->slots)
        there = g->slots[slot_of(g, cluster)];
    if (there)
        bad |= rank == QCOW2_RANK_L2      ? there != slot_value(cluster, QCOW2_GUARD_L2)
               : rank == QCOW2_RANK_BLOCK ? there != slot_value(cluster, QCOW2_GUARD_BLOCK)
                                          : true;
    bad |= g->built && hits_range(q, cluster, 1);
    if (!bad)
        return 0;
    map_corrupt(&q->map, "a table was to be written onto another structure");
    return -EIO;
}

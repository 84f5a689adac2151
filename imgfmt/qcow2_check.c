/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_check.c - counts every reference of a qcow2 image anew and compares with what the image
 * says; repairs leaks, and lets qcow2_repair.c do the rest.
 *
 * Classes as qemu-img has them: a *leak* is a count that is too high (space lost, nothing else); a
 * *corruption* is a count that is too low, an entry that points where nothing can be, or a COPIED
 * flag that contradicts the count; a *check error* is something that could not be looked at.
 *
 * References beyond the end of the file are corruptions and take no memory. Tables are read
 * directly, many at a time, not through the metadata cache: what is in it was written back before.
 * One pass over the L2 tables is enough for a sound image: beside each cluster's count stands
 * whether entries with and without the COPIED flag lead there. */
#include <stdarg.h>
#include <stdio.h>

#include "imgfmt/qcow2_bitmap.h"
#include "imgfmt/qcow2_check.h"

#define REFS_LIMIT (1 * GiB)
#define LANES      32u
#define LANE_BYTES (4 * MiB) /* of all lanes, but for tables that are larger */

/* An L2 table on its way into memory. */
struct qcow2_l2_lane {
    struct qcow2_checker *k;
    uint64_t offset;
    uint64_t first; /* virtual cluster of its first entry; in the active table */
    uint8_t *data;
};

void qcow2_check_say(struct qcow2_checker *k, const char *fmt, ...)
{
    char text[300];
    va_list args;

    if (!k->c->say)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    k->c->say(k->c, text);
}

/* One reference on every cluster that [offset, +bytes) touches; @mark: enum qcow2_refs_mark. */
static int refer_marked(struct qcow2_checker *k, const char *what, uint64_t offset, uint64_t bytes,
                        uint32_t mark)
{
    uint32_t bits = k->q->header.cluster_bits;
    uint64_t cluster = k->q->map.cluster_bytes, end;

    if (bytes == 0)
        return 0;
    /* The last cluster of a file need not be whole. */
    if (!add_u64(offset, bytes, &end) || end >= QCOW2_MAX_OFFSET ||
        (end > k->file_bytes && end - k->file_bytes >= cluster)) {
        qcow2_check_say(k, "ERROR: %s at offset 0x%" PRIx64 " reaches beyond the end of the file",
                        what, offset);
        k->c->corruptions++;
        k->bad_flags |= mark == QCOW2_SEEN_COPIED; /* nothing can be counted there */
        return 0;
    }
    for (uint64_t at = offset >> bits; at <= (end - 1) >> bits; at++)
        TRY(qcow2_refs_add(&k->refs, at, mark));
    return 0;
}

static int refer(struct qcow2_checker *k, const char *what, uint64_t offset, uint64_t bytes)
{
    return refer_marked(k, what, offset, bytes, 0);
}

static uint32_t mark_of(const struct qcow2_checker *k, uint64_t raw)
{
    return k->snapshot ? 0 : raw & QCOW2_COPIED ? QCOW2_SEEN_COPIED : QCOW2_SEEN_PLAIN;
}

void co_qcow2_check_read(struct qcow2_checker *k, uint64_t offset, void *to, uint64_t bytes)
{
    uint64_t there = offset < k->file_bytes ? MIN(bytes, k->file_bytes - offset) : 0;

    memset((uint8_t *)to + there, 0, bytes - there);
    if (there && co_blk_read_buf(k->q->map.file, offset, to, there) < 0) {
        qcow2_check_say(k, "ERROR: cannot read a table at offset 0x%" PRIx64, offset);
        k->c->check_errors++;
        memset(to, 0, there);
    }
}

/* --- L2 and L1 ------------------------------------------------------------ */

static int check_packed(struct qcow2_checker *k, struct qcow2_bits bits,
                        const struct qcow2_entry *e)
{
    if (bits.sub) {
        qcow2_check_say(
            k, "ERROR: the compressed cluster at offset 0x%" PRIx64 " has a bitmap of subclusters",
            e->offset);
        k->c->corruptions++;
        k->bad_entries |= !k->snapshot;
    }
    if (bits.entry & QCOW2_COPIED) {
        qcow2_check_say(k,
                        "ERROR: the compressed cluster at offset 0x%" PRIx64 " has the COPIED flag",
                        e->offset);
        k->c->corruptions++;
        k->bad_entries |= !k->snapshot;
    }
    if (!k->snapshot) {
        k->c->allocated_clusters++;
        k->c->compressed_clusters++;
        k->c->fragmented_clusters++;
    }
    uint64_t first = align_down(e->offset, QCOW2_SECTOR);
    return refer(k, "a compressed cluster", first, e->offset + e->packed_bytes - first);
}

static void check_impossible(struct qcow2_checker *k, struct qcow2_bits bits)
{
    if (bits.sub)
        qcow2_check_say(k,
                        "ERROR: an L2 entry 0x%016" PRIx64 " with bitmap 0x%016" PRIx64
                        " is none that an image can hold",
                        bits.entry, bits.sub);
    else
        qcow2_check_say(k, "ERROR: an L2 entry 0x%016" PRIx64 " is none that an image can hold",
                        bits.entry);
    k->c->corruptions++;
    k->bad_entries |= !k->snapshot;
}

static void note_data(struct qcow2_checker *k, uint64_t offset, uint64_t *next)
{
    if (k->snapshot)
        return;
    k->c->allocated_clusters++;
    if (*next && offset != *next)
        k->c->fragmented_clusters++;
    *next = offset + k->q->map.cluster_bytes;
}

/* In the data file nothing is counted, and every cluster has its own place. */
static void check_outside(struct qcow2_checker *k, const struct qcow2_entry *e, uint64_t cluster,
                          uint64_t *next)
{
    struct map_cell cell = {.state = e->state, .offset = e->offset, .sub = e->sub};

    if (!map_has_space(&cell) && !e->copied) /* place 0 is as good as any */
        return;
    note_data(k, e->offset, next);
    if (e->offset == cluster << k->q->header.cluster_bits)
        return;
    qcow2_check_say(k,
                    "ERROR: the data cluster at offset 0x%" PRIx64
                    " of the data file belongs to the disk at 0x%" PRIx64,
                    e->offset, cluster << k->q->header.cluster_bits);
    k->c->corruptions++;
}

static int check_entry(struct qcow2_checker *k, struct qcow2_bits bits, uint64_t cluster,
                       uint64_t *next)
{
    const struct qcow2_header *h = &k->q->header;
    struct qcow2_entry e;
    uint64_t raw = bits.entry;

    if ((raw | bits.sub) == 0)
        return 0;
    int rc = qcow2_entry_decode(h, bits, &e);
    if (e.state == MAP_PACKED && rc == 0)
        return check_packed(k, bits, &e);
    if (rc < 0) {
        check_impossible(k, bits);
        if (!qcow2_extended(h) || qcow2_has_data_file(h) ||
            e.offset & (k->q->map.cluster_bytes - 1))
            return 0;
    }
    if (raw & qcow2_l2_reserved(h)) {
        qcow2_check_say(k, "ERROR: an L2 entry 0x%016" PRIx64 " has reserved bits set", raw);
        k->c->corruptions++;
        k->bad_entries |= !k->snapshot;
    }
    if (qcow2_has_data_file(h)) {
        check_outside(k, &e, cluster, next);
        return 0;
    }
    if (e.offset == 0)
        return 0;
    note_data(k, e.offset, next);
    return refer_marked(k, "a data cluster", e.offset, k->q->map.cluster_bytes, mark_of(k, raw));
}

static int check_l2(struct qcow2_checker *k, const struct qcow2_l2_lane *lane)
{
    const struct qcow2_header *h = &k->q->header;
    uint32_t step = qcow2_entry_bytes(h);
    uint64_t next = 0, count = k->q->map.cluster_bytes / step;

    for (uint64_t i = 0; i < count; i++)
        TRY(check_entry(k, qcow2_bits_get(h, lane->data + i * step), lane->first + i, &next));
    return 0;
}

static int co_read_lane(void *arg)
{
    struct qcow2_l2_lane *lane = arg;

    co_qcow2_check_read(lane->k, lane->offset, lane->data, lane->k->q->map.cluster_bytes);
    return 0;
}

/* Reads the tables that wait in the lanes, side by side, and looks at them in their order. */
static int co_check_lanes(struct qcow2_checker *k)
{
    struct co_group g;
    unsigned n = k->lanes_used;

    co_group_init(&g, LANES);
    for (unsigned i = 0; i < n; i++)
        co_group_start(&g, co_read_lane, &k->lanes[i]);
    int rc = co_group_wait(&g);
    k->lanes_used = 0;
    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = check_l2(k, &k->lanes[i]);
    return rc;
}

static int co_check_l2(struct qcow2_checker *k, uint64_t offset, uint64_t index)
{
    k->lanes[k->lanes_used].first =
        index * (k->q->map.cluster_bytes / qcow2_entry_bytes(&k->q->header));
    k->lanes[k->lanes_used].k = k;
    k->lanes[k->lanes_used++].offset = offset;
    return k->lanes_used == k->lane_count ? co_check_lanes(k) : 0;
}

static int co_check_l1_entry(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK;

    if (raw == 0)
        return 0;
    if (raw & QCOW2_L1_RESERVED) {
        qcow2_check_say(k, "ERROR: an L1 entry 0x%016" PRIx64 " has reserved bits set", raw);
        k->c->corruptions++;
        k->bad_entries |= !k->snapshot;
    }
    if (offset & (k->q->map.cluster_bytes - 1)) {
        qcow2_check_say(
            k, "ERROR: the L2 table at offset 0x%" PRIx64 " does not begin at a cluster", offset);
        k->c->corruptions++;
        return 0;
    }
    if (offset == 0)
        return 0;
    TRY(refer_marked(k, "an L2 table", offset, k->q->map.cluster_bytes, mark_of(k, raw)));
    /* Each L1 table may name it once; more is no image, and counting it again could take for ever.
     */
    if (qcow2_refs_get(&k->refs, offset >> k->q->header.cluster_bits) >
        k->q->header.snapshot_count + 1ULL) {
        qcow2_check_say(k, "ERROR: the L2 table at offset 0x%" PRIx64 " is used more than once",
                        offset);
        k->c->corruptions++;
        return 0;
    }
    return co_check_l2(k, offset, (at - k->q->header.l1_offset) / 8);
}

int co_qcow2_check_each(struct qcow2_checker *k, uint64_t offset, uint64_t entries,
                        int (*co_fn)(struct qcow2_checker *k, uint64_t raw, uint64_t at))
{
    auto_free uint8_t *buf = mem_alloc(64 * KiB);

    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < entries; at += 8 * KiB) {
        uint64_t n = MIN(entries - at, 8 * KiB);
        co_qcow2_check_read(k, offset + at * 8, buf, n * 8);
        for (uint64_t i = 0; i < n; i++) {
            be64 raw;
            memcpy(&raw, buf + i * 8, sizeof(raw));
            TRY(co_fn(k, be64_get(raw), offset + (at + i) * 8));
        }
    }
    return 0;
}

static int co_check_l1(struct qcow2_checker *k, uint64_t offset, uint64_t entries)
{
    TRY(refer(k, "an L1 table", offset, entries * 8));
    TRY(co_qcow2_check_each(k, offset, entries, co_check_l1_entry));
    return co_check_lanes(k);
}

/* --- snapshots and bitmaps ------------------------------------------------ */

static int co_check_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    struct qcow2_checker *k = arg;

    if (s->l1_entries == 0)
        return 0;
    if (s->l1_entries * 8ULL > QCOW2_MAX_L1_BYTES || s->l1_offset & (k->q->map.cluster_bytes - 1)) {
        qcow2_check_say(k, "ERROR: the L1 table of a snapshot, at offset 0x%" PRIx64 ", is none",
                        s->l1_offset);
        k->c->corruptions++;
        return 0;
    }
    return co_check_l1(k, s->l1_offset, s->l1_entries);
}

static int co_check_snapshots(struct qcow2_checker *k, struct blk_error *e)
{
    uint64_t bytes = 0;

    k->snapshot = true;
    int rc = co_qcow2_snapshots(k->q, co_check_snapshot, k, e);
    k->snapshot = false;
    if (rc == 0)
        rc = co_qcow2_snapshot_bytes(k->q, &bytes, e);
    if (rc == 0)
        return refer(k, "the snapshot table", k->q->header.snapshots_offset, bytes);
    if (rc == -ENOMEM)
        return rc;
    qcow2_check_say(k, "ERROR: the snapshot table cannot be read");
    k->c->check_errors++;
    return 0;
}

static int co_check_bitmap_cluster(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK;

    if (raw & QCOW2_BITMAP_CELL_INVALID || offset & (k->q->map.cluster_bytes - 1) ||
        (offset && raw & QCOW2_BITMAP_ALL_DIRTY)) {
        qcow2_check_say(k, "ERROR: the entry of a bitmap's table at offset 0x%" PRIx64 " is none",
                        at);
        k->c->corruptions++;
        return 0;
    }
    return offset ? refer(k, "a bitmap's cluster", offset, k->q->map.cluster_bytes) : 0;
}

static int co_check_bitmap(void *arg, const struct qcow2_bitmap *b)
{
    struct qcow2_checker *k = arg;

    if (b->table_offset & (k->q->map.cluster_bytes - 1) || b->table_entries > 8 * MiB) {
        qcow2_check_say(k, "ERROR: the table of bitmap %.*s is none", (int)b->name_bytes, b->name);
        k->c->corruptions++;
        return 0;
    }
    TRY(refer(k, "a bitmap's table", b->table_offset, b->table_entries * 8ULL));
    return co_qcow2_check_each(k, b->table_offset, b->table_entries, co_check_bitmap_cluster);
}

static int co_check_bitmaps(struct qcow2_checker *k, struct blk_error *e)
{
    struct qcow2_bitmap_list list;
    int rc = co_qcow2_bitmaps(k->q, &list, co_check_bitmap, k, e);

    if (rc == 0 && list.bytes)
        return refer(k, "the list of bitmaps", list.offset, list.bytes);
    if (rc == 0 || rc == -ENOMEM)
        return rc;
    qcow2_check_say(k, "ERROR: the list of bitmaps cannot be read");
    k->c->check_errors++;
    return 0;
}

/* --- refcounts ------------------------------------------------------------ */

/* What is wrong with the refcount structure a new one mends. */
static void table_fault(struct qcow2_checker *k, uint64_t faults)
{
    k->c->corruptions += faults;
    k->table_faults += faults;
    k->bad_table |= faults != 0;
}

static int refer_counts(struct qcow2_checker *k, const char *what, uint64_t offset, uint64_t bytes)
{
    uint64_t before = k->c->corruptions;

    TRY(refer(k, what, offset, bytes));
    uint64_t faults = k->c->corruptions - before;
    k->c->corruptions = before;
    table_fault(k, faults);
    return 0;
}

static int co_refer_block(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & ~QCOW2_TABLE_RESERVED;

    (void)at;
    if (raw & QCOW2_TABLE_RESERVED) {
        qcow2_check_say(k, "ERROR: a refcount table entry 0x%016" PRIx64 " has reserved bits set",
                        raw);
        table_fault(k, 1);
    }
    if (offset & (k->q->map.cluster_bytes - 1)) {
        qcow2_check_say(
            k, "ERROR: the refcount block at offset 0x%" PRIx64 " does not begin at a cluster",
            offset);
        table_fault(k, 1);
        return 0;
    }
    if (offset == 0)
        return 0;
    return refer_counts(k, "a refcount block", offset, k->q->map.cluster_bytes);
}

static int co_refer_all(struct qcow2_checker *k, struct blk_error *e)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t table_bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    TRY(refer(k, "the header", 0, k->q->map.cluster_bytes));
    TRY(co_check_l1(k, h->l1_offset, h->l1_entries));
    if (h->snapshot_count)
        TRY(co_check_snapshots(k, e));
    TRY(co_check_bitmaps(k, e));
    TRY(refer(k, "the LUKS header", h->crypto_offset, h->crypto_bytes));
    TRY(refer_counts(k, "the refcount table", h->refcount_table_offset, table_bytes));
    return co_qcow2_check_each(k, h->refcount_table_offset, qcow2_table_entries(k->q),
                               co_refer_block);
}

/* Lowers one count to what it should be. */
static int co_fix_leak(struct qcow2_checker *k, uint64_t cluster, uint64_t count, uint64_t should)
{
    with_lock(&k->q->alloc);
    for (; count > should; count--)
        TRY(co_qcow2_count_add(k->q, cluster, 1, -1));
    return 0;
}

static int co_mend_count(struct qcow2_checker *k, uint64_t cluster, uint64_t count)
{
    uint64_t should = qcow2_refs_get(&k->refs, cluster);

    if (count <= should || should == QCOW2_REFS_MAX)
        return 0;
    qcow2_check_say(k, "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                    cluster, count, should);
    if (co_fix_leak(k, cluster, count, should) == 0) {
        k->c->leaks_fixed++;
        k->too_high--;
    }
    return 0;
}

static int co_compare_one(struct qcow2_checker *k, uint64_t cluster, uint64_t count)
{
    uint64_t should = qcow2_refs_get(&k->refs, cluster);
    uint32_t marks = qcow2_refs_marks(&k->refs, cluster);

    if (count)
        k->c->image_end = MAX(k->c->image_end, (cluster + 1) << k->q->header.cluster_bits);
    if (marks & (count == 1 ? QCOW2_SEEN_PLAIN : QCOW2_SEEN_COPIED))
        k->bad_flags = true;
    if (count == should || (should == QCOW2_REFS_MAX && count > should))
        return 0;
    if (count < should) {
        qcow2_check_say(k, "ERROR cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                        cluster, count, should);
        k->too_low++;
        return 0;
    }
    if (!k->c->fix_leaks)
        qcow2_check_say(k, "Leaked cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                        cluster, count, should);
    k->too_high++;
    return 0;
}

/* From here on k->refs says what the image counts. */
static int co_take_count(struct qcow2_checker *k, uint64_t cluster, uint64_t count)
{
    uint64_t should = qcow2_refs_get(&k->refs, cluster);

    return count == should ? 0 : qcow2_refs_set(&k->refs, cluster, count);
}

/* Calls @co_fn with the counts of one block (offset 0: there is none), where a count or a reference
 * can be. */
static int co_each_in_block(struct qcow2_checker *k, uint64_t index, uint64_t offset,
                            int (*co_fn)(struct qcow2_checker *k, uint64_t cluster, uint64_t count))
{
    uint32_t order = k->q->header.refcount_order;
    uint64_t n = 1ULL << k->q->block_order, base = index * n;
    uint64_t end = div_up(k->file_bytes, k->q->map.cluster_bytes) + 1;

    if (offset)
        co_qcow2_check_read(k, offset, k->block, k->q->map.cluster_bytes);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t count = offset ? qcow2_count_get(k->block, order, i) : 0;
        if (base + i >= end && count == 0) { /* no reference can be here */
            i = offset ? qcow2_count_find(k->block, order, i, n, false) - 1 : n;
            continue;
        }
        TRY(co_fn(k, base + i, count));
    }
    return 0;
}

/* As co_each_in_block(), for all blocks. */
static int co_each_count(struct qcow2_checker *k,
                         int (*co_fn)(struct qcow2_checker *k, uint64_t cluster, uint64_t count))
{
    uint64_t entries = qcow2_table_entries(k->q);
    uint64_t clusters = div_up(k->file_bytes, k->q->map.cluster_bytes);
    uint64_t blocks = MAX(entries, div_up(clusters, 1ULL << k->q->block_order));
    auto_free uint8_t *table = mem_alloc(4 * KiB);

    if (!table)
        return -ENOMEM;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t offset = 0;
        if (i < entries) {
            be64 raw;
            if (i % 512 == 0)
                co_qcow2_check_read(k, k->q->header.refcount_table_offset + i * 8, table,
                                    MIN(entries - i, 512) * 8);
            memcpy(&raw, table + i % 512 * 8, sizeof(raw));
            offset = be64_get(raw) & ~QCOW2_TABLE_RESERVED;
            if (offset & (k->q->map.cluster_bytes - 1) || offset >= QCOW2_MAX_OFFSET)
                offset = 0; /* said above */
        }
        if (offset || i << k->q->block_order < clusters)
            TRY(co_each_in_block(k, i, offset, co_fn));
    }
    return 0;
}

/* A block or the table that shares its clusters with something else must not be written to. */
static int co_check_block_alone(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & ~QCOW2_TABLE_RESERVED;

    if (offset >= QCOW2_MAX_OFFSET)
        offset = 0; /* told before */
    if (qcow2_refs_get(&k->refs, at >> k->q->header.cluster_bits) > 1 ||
        (offset && qcow2_refs_get(&k->refs, offset >> k->q->header.cluster_bits) > 1))
        k->bad_table = true;
    return 0;
}

/* --- all of it ------------------------------------------------------------ */

/* The counts as they should be, by the way that writes least. */
static int co_repair_counts(struct qcow2_checker *k)
{
    struct blk_check *c = k->c;
    bool rebuild = c->fix_errors && (k->too_low || k->bad_table) && c->check_errors == 0;

    if (rebuild) {
        qcow2_check_say(k, "Rebuilding the refcount structure");
        k->bad_flags = true; /* or not: they are compared with the new counts */
        return co_qcow2_rebuild(k);
    }
    /* What a table that cannot be read leads to only looks like a leak. */
    if (c->fix_leaks && k->too_high && !k->bad_table && c->check_errors == 0) {
        k->bad_flags = true;
        TRY(co_each_count(k, co_mend_count));
        TRY(co_meta_write_back(k->q->map.meta, true));
    }
    return 0;
}

static int co_check_all(struct qcow2_checker *k, struct blk_error *e)
{
    struct qcow2 *q = k->q;

    TRY(co_refer_all(k, e));
    TRY(co_qcow2_check_each(k, q->header.refcount_table_offset, qcow2_table_entries(q),
                            co_check_block_alone));
    TRY(co_each_count(k, co_compare_one));
    if (k->c->fix_leaks || k->c->fix_errors)
        TRY(co_repair_counts(k));
    k->c->corruptions += k->too_low;
    k->c->leaks += k->too_high;
    if (k->bad_flags || (k->bad_entries && k->c->fix_errors)) {
        TRY(co_each_count(k, co_take_count));
        TRY(co_qcow2_check_entries(k));
    }
    k->c->total_clusters = div_up(q->header.size, q->map.cluster_bytes);
    return k->c->fix_errors ? co_qcow2_mark_sound(k) : 0;
}

static int make_lanes(struct qcow2_checker *k, uint8_t **memory)
{
    uint64_t cluster = k->q->map.cluster_bytes;

    k->lane_count = (unsigned)MAX(1, MIN(LANES, LANE_BYTES / cluster));
    *memory = mem_aligned((k->lane_count + 1) * cluster);
    k->lanes = mem_array(k->lane_count, sizeof(*k->lanes));
    if (!*memory || !k->lanes)
        return -ENOMEM;
    for (unsigned i = 0; i < k->lane_count; i++)
        k->lanes[i].data = *memory + i * cluster;
    k->block = *memory + k->lane_count * cluster;
    return 0;
}

int co_qcow2_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct qcow2_checker k = {.q = q, .c = check, .refs.limit = REFS_LIMIT};
    bool fix = check->fix_leaks || check->fix_errors;
    auto_free uint8_t *memory = NULL;
    int rc = dev->writable ? co_qcow2_settle(q, fix) : 0;

    if (check->data && q->data_missing)
        return err_set(e, -ENOTSUP,
                       "its data lies in an external data file, which check does not open; compare "
                       "or convert reads it");
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's tables back");
    k.file_bytes = q->map.file->size;
    rc = make_lanes(&k, &memory);
    if (rc == 0)
        rc = co_check_all(&k, e);
    mem_free(k.lanes);
    qcow2_refs_drop(&k.refs);
    if (rc == -EFBIG)
        return err_set(e, rc, "checking the image would take more than 1 GiB of memory");
    return rc < 0 ? err_errno(e, rc, "cannot check the image") : 0;
}

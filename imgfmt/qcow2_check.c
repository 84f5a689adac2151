/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_check.c - counts every reference of a qcow2 image anew and compares with what the image
 * says; repairs leaks.
 *
 * Classes as qemu-img has them: a *leak* is a count that is too high (space lost, nothing else); a
 * *corruption* is a count that is too low, an entry that points where nothing can be, or a COPIED
 * flag that contradicts the count; a *check error* is something that could not be looked at.
 *
 * References beyond the end of the file are corruptions and take no memory. Tables are read
 * directly, page by page, not through the metadata cache: what is in it was written back before. */
#include <stdarg.h>
#include <stdio.h>

#include "imgfmt/qcow2_alloc.h"
#include "imgfmt/qcow2_refs.h"

#define REFS_LIMIT (1 * GiB)

struct checker {
    struct qcow2 *q;
    struct blk_check *c;
    struct qcow2_refs refs;
    uint8_t *l2;    /* one L2 table */
    uint8_t *block; /* one refcount block, or a piece of another table */
    uint64_t file_bytes;
    bool snapshot; /* the tables of one are being counted: no flags, no facts */
};

static void say(struct checker *k, const char *fmt, ...) printf_like(2, 3);
static void say(struct checker *k, const char *fmt, ...)
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

/* One reference on every cluster that [offset, +bytes) touches. */
static int refer(struct checker *k, const char *what, uint64_t offset, uint64_t bytes)
{
    uint32_t bits = k->q->header.cluster_bits;
    uint64_t cluster = k->q->map.cluster_bytes, end;

    if (bytes == 0)
        return 0;
    /* The last cluster of a file need not be whole. */
    if (!add_u64(offset, bytes, &end) || end >= QCOW2_MAX_OFFSET ||
        (end > k->file_bytes && end - k->file_bytes >= cluster)) {
        say(k, "ERROR: %s at offset 0x%" PRIx64 " reaches beyond the end of the file", what,
            offset);
        k->c->corruptions++;
        return 0;
    }
    for (uint64_t at = offset >> bits; at <= (end - 1) >> bits; at++)
        TRY(qcow2_refs_add(&k->refs, at));
    return 0;
}

/* Reads [offset, +bytes); beyond the end of the file it is zero. An error is counted; then the
 * bytes are zero. */
static void co_read_piece(struct checker *k, uint64_t offset, void *to, uint64_t bytes)
{
    uint64_t there = offset < k->file_bytes ? MIN(bytes, k->file_bytes - offset) : 0;

    memset((uint8_t *)to + there, 0, bytes - there);
    if (there && co_blk_read_buf(k->q->map.file, offset, to, there) < 0) {
        say(k, "ERROR: cannot read a table at offset 0x%" PRIx64, offset);
        k->c->check_errors++;
        memset(to, 0, there);
    }
}

/* --- L2 and L1 ------------------------------------------------------------ */

static int check_packed(struct checker *k, uint64_t raw, const struct qcow2_entry *e)
{
    if (raw & QCOW2_COPIED) {
        say(k, "ERROR: the compressed cluster at offset 0x%" PRIx64 " has the COPIED flag",
            e->offset);
        k->c->corruptions++;
    }
    if (!k->snapshot) {
        k->c->allocated_clusters++;
        k->c->compressed_clusters++;
        k->c->fragmented_clusters++;
    }
    uint64_t first = align_down(e->offset, QCOW2_SECTOR);
    return refer(k, "a compressed cluster", first, e->offset + e->packed_bytes - first);
}

static int check_entry(struct checker *k, uint64_t raw, uint64_t *next)
{
    const struct qcow2_header *h = &k->q->header;
    struct qcow2_entry e;

    if (raw == 0)
        return 0;
    int rc = qcow2_entry_decode(raw, h->cluster_bits, h->version, &e);
    if (e.state == MAP_PACKED && rc == 0)
        return check_packed(k, raw, &e);
    if (rc < 0) {
        say(k, "ERROR: an L2 entry 0x%016" PRIx64 " is none that an image can hold", raw);
        k->c->corruptions++;
        return 0;
    }
    if (raw & QCOW2_L2_RESERVED) {
        say(k, "ERROR: an L2 entry 0x%016" PRIx64 " has reserved bits set", raw);
        k->c->corruptions++;
    }
    if (e.offset == 0)
        return 0;
    if (!k->snapshot) {
        k->c->allocated_clusters++;
        if (*next && e.offset != *next)
            k->c->fragmented_clusters++;
        *next = e.offset + k->q->map.cluster_bytes;
    }
    return refer(k, "a data cluster", e.offset, k->q->map.cluster_bytes);
}

static int co_check_l2(struct checker *k, uint64_t offset)
{
    uint64_t bytes = k->q->map.cluster_bytes, next = 0;

    co_read_piece(k, offset, k->l2, bytes);
    for (uint64_t i = 0; i < bytes; i += 8) {
        be64 raw;
        memcpy(&raw, k->l2 + i, sizeof(raw));
        TRY(check_entry(k, be64_get(raw), &next));
    }
    return 0;
}

static int co_check_l1_entry(struct checker *k, uint64_t raw)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK;

    if (raw == 0)
        return 0;
    if (raw & QCOW2_L1_RESERVED) {
        say(k, "ERROR: an L1 entry 0x%016" PRIx64 " has reserved bits set", raw);
        k->c->corruptions++;
    }
    if (offset & (k->q->map.cluster_bytes - 1)) {
        say(k, "ERROR: the L2 table at offset 0x%" PRIx64 " does not begin at a cluster", offset);
        k->c->corruptions++;
        return 0;
    }
    if (offset == 0)
        return 0;
    TRY(refer(k, "an L2 table", offset, k->q->map.cluster_bytes));
    /* Each L1 table may name it once; more is no image, and counting it again could take for ever.
     */
    if (qcow2_refs_get(&k->refs, offset >> k->q->header.cluster_bits) >
        k->q->header.snapshot_count + 1ULL) {
        say(k, "ERROR: the L2 table at offset 0x%" PRIx64 " is used more than once", offset);
        k->c->corruptions++;
        return 0;
    }
    return co_check_l2(k, offset);
}

/* Calls @fn for the @entries entries of 8 bytes at @offset. */
static int co_each_entry(struct checker *k, uint64_t offset, uint64_t entries,
                         int (*co_fn)(struct checker *k, uint64_t raw))
{
    auto_free uint8_t *buf = mem_alloc(64 * KiB);

    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < entries; at += 8 * KiB) {
        uint64_t n = MIN(entries - at, 8 * KiB);
        co_read_piece(k, offset + at * 8, buf, n * 8);
        for (uint64_t i = 0; i < n; i++) {
            be64 raw;
            memcpy(&raw, buf + i * 8, sizeof(raw));
            TRY(co_fn(k, be64_get(raw)));
        }
    }
    return 0;
}

static int co_check_l1(struct checker *k, uint64_t offset, uint64_t entries)
{
    TRY(refer(k, "an L1 table", offset, entries * 8));
    return co_each_entry(k, offset, entries, co_check_l1_entry);
}

/* --- snapshots and bitmaps ------------------------------------------------ */

static int co_check_snapshot(void *arg, const struct qcow2_snapshot *s)
{
    struct checker *k = arg;

    if (s->l1_entries == 0)
        return 0;
    if (s->l1_entries * 8ULL > QCOW2_MAX_L1_BYTES || s->l1_offset & (k->q->map.cluster_bytes - 1)) {
        say(k, "ERROR: the L1 table of a snapshot, at offset 0x%" PRIx64 ", is none", s->l1_offset);
        k->c->corruptions++;
        return 0;
    }
    return co_check_l1(k, s->l1_offset, s->l1_entries);
}

static int co_check_snapshots(struct checker *k, struct blk_error *e)
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
    say(k, "ERROR: the snapshot table cannot be read");
    k->c->check_errors++;
    return 0;
}

static int co_check_bitmap_cluster(struct checker *k, uint64_t raw)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK;

    return offset ? refer(k, "a bitmap's cluster", offset, k->q->map.cluster_bytes) : 0;
}

static int co_check_bitmap(void *arg, const struct qcow2_bitmap *b)
{
    struct checker *k = arg;

    if (b->table_offset & (k->q->map.cluster_bytes - 1) || b->table_entries > 8 * MiB) {
        say(k, "ERROR: the table of bitmap %.*s is none", (int)b->name_bytes, b->name);
        k->c->corruptions++;
        return 0;
    }
    TRY(refer(k, "a bitmap's table", b->table_offset, b->table_entries * 8ULL));
    return co_each_entry(k, b->table_offset, b->table_entries, co_check_bitmap_cluster);
}

static int co_check_bitmaps(struct checker *k, struct blk_error *e)
{
    struct qcow2_bitmap_list list;
    int rc = co_qcow2_bitmaps(k->q, &list, co_check_bitmap, k, e);

    if (rc == 0 && list.bytes)
        return refer(k, "the list of bitmaps", list.offset, list.bytes);
    if (rc == 0 || rc == -ENOMEM)
        return rc;
    say(k, "ERROR: the list of bitmaps cannot be read");
    k->c->check_errors++;
    return 0;
}

/* --- refcounts ------------------------------------------------------------ */

static int co_refer_block(struct checker *k, uint64_t raw)
{
    uint64_t offset = raw & ~QCOW2_TABLE_RESERVED;

    if (raw & QCOW2_TABLE_RESERVED) {
        say(k, "ERROR: a refcount table entry 0x%016" PRIx64 " has reserved bits set", raw);
        k->c->corruptions++;
    }
    if (offset & (k->q->map.cluster_bytes - 1)) {
        say(k, "ERROR: the refcount block at offset 0x%" PRIx64 " does not begin at a cluster",
            offset);
        k->c->corruptions++;
        return 0;
    }
    return offset ? refer(k, "a refcount block", offset, k->q->map.cluster_bytes) : 0;
}

static int co_refer_all(struct checker *k, struct blk_error *e)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t table_bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    TRY(refer(k, "the header", 0, k->q->map.cluster_bytes));
    TRY(co_check_l1(k, h->l1_offset, h->l1_entries));
    if (h->snapshot_count)
        TRY(co_check_snapshots(k, e));
    TRY(co_check_bitmaps(k, e));
    TRY(refer(k, "the refcount table", h->refcount_table_offset, table_bytes));
    return co_each_entry(k, h->refcount_table_offset, qcow2_table_entries(k->q), co_refer_block);
}

/* Lowers one count to what it should be. */
static int co_fix_leak(struct checker *k, uint64_t cluster, uint64_t count, uint64_t should)
{
    with_lock(&k->q->alloc);
    for (; count > should; count--)
        TRY(co_qcow2_count_add(k->q, cluster, 1, -1));
    return 0;
}

static int co_compare_one(struct checker *k, uint64_t cluster, uint64_t count)
{
    uint64_t should = qcow2_refs_get(&k->refs, cluster);

    if (count)
        k->c->image_end = MAX(k->c->image_end, (cluster + 1) << k->q->header.cluster_bits);
    if (count == should || (should == QCOW2_REFS_MAX && count > should))
        return 0;
    if (count < should) {
        say(k, "ERROR cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster, count,
            should);
        k->c->corruptions++;
        return 0;
    }
    say(k, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
        k->c->fix_leaks ? "Repairing" : "Leaked", cluster, count, should);
    if (k->c->fix_leaks && co_fix_leak(k, cluster, count, should) == 0) {
        k->c->leaks_fixed++;
        return 0;
    }
    k->c->leaks++;
    return 0;
}

/* The counts of one block (0: there is none) against the references. */
static int co_compare_block(struct checker *k, uint64_t index, uint64_t offset)
{
    uint32_t order = k->q->header.refcount_order;
    uint64_t n = 1ULL << k->q->block_order, base = index * n;
    uint64_t end = div_up(k->file_bytes, k->q->map.cluster_bytes) + 1;

    if (offset)
        co_read_piece(k, offset, k->block, k->q->map.cluster_bytes);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t count = offset ? qcow2_count_get(k->block, order, i) : 0;
        if (base + i >= end && count == 0) { /* no reference can be here */
            i = offset ? qcow2_count_find(k->block, order, i, n, false) - 1 : n;
            continue;
        }
        TRY(co_compare_one(k, base + i, count));
    }
    return 0;
}

static int co_compare_all(struct checker *k)
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
                co_read_piece(k, k->q->header.refcount_table_offset + i * 8, table,
                              MIN(entries - i, 512) * 8);
            memcpy(&raw, table + i % 512 * 8, sizeof(raw));
            offset = be64_get(raw) & ~QCOW2_TABLE_RESERVED;
            if (offset & (k->q->map.cluster_bytes - 1) || offset >= QCOW2_MAX_OFFSET)
                offset = 0; /* said above */
        }
        if (offset || i << k->q->block_order < clusters)
            TRY(co_compare_block(k, i, offset));
    }
    return 0;
}

/* --- COPIED flags --------------------------------------------------------- */

/* A cluster may be written in place exactly if the image counts one reference on it. */
static void co_check_flag(struct checker *k, const char *what, uint64_t raw)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK, count;

    if (offset == 0 || offset & (k->q->map.cluster_bytes - 1) || offset >= k->file_bytes)
        return;
    if (co_qcow2_count(k->q, offset >> k->q->header.cluster_bits, &count) < 0) {
        k->c->check_errors++;
        return;
    }
    if ((count == 1) == !!(raw & QCOW2_COPIED))
        return;
    say(k, "ERROR OFLAG_COPIED %s: entry=0x%016" PRIx64 " refcount=%" PRIu64, what, raw, count);
    k->c->corruptions++;
}

static int co_check_flags(struct checker *k, uint64_t l1_raw)
{
    uint64_t offset = l1_raw & QCOW2_OFFSET_MASK, bytes = k->q->map.cluster_bytes;

    co_check_flag(k, "L2 cluster", l1_raw);
    if (offset == 0 || offset & (bytes - 1) || offset >= k->file_bytes)
        return 0;
    co_read_piece(k, offset, k->l2, bytes);
    for (uint64_t i = 0; i < bytes; i += 8) {
        be64 raw;
        memcpy(&raw, k->l2 + i, sizeof(raw));
        uint64_t v = be64_get(raw);
        if (v && !(v & QCOW2_COMPRESSED))
            co_check_flag(k, "data cluster", v);
    }
    return 0;
}

/* --- all of it ------------------------------------------------------------ */

static int co_check_all(struct checker *k, struct blk_error *e)
{
    struct qcow2 *q = k->q;

    TRY(co_refer_all(k, e));
    TRY(co_compare_all(k));
    if (k->c->leaks_fixed)
        TRY(co_meta_write_back(q->map.meta, true));
    TRY(co_each_entry(k, q->header.l1_offset, q->header.l1_entries, co_check_flags));
    k->c->total_clusters = div_up(q->header.size, q->map.cluster_bytes);
    return 0;
}

int co_qcow2_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct checker k = {.q = q, .c = check, .refs.limit = REFS_LIMIT};
    auto_free uint8_t *l2 = NULL;
    auto_free uint8_t *block = NULL;

    if (check->fix_errors)
        return err_set(e, -ENOTSUP,
                       "this version of lamina repairs leaks of qcow2 images "
                       "(-r leaks), not corruptions; qemu-img check -r all does");
    int rc = dev->writable ? co_qcow2_settle(q, false) : 0;
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's tables back");
    l2 = k.l2 = mem_aligned(q->map.cluster_bytes);
    block = k.block = mem_aligned(q->map.cluster_bytes);
    k.file_bytes = q->map.file->size;
    rc = l2 && block ? co_check_all(&k, e) : -ENOMEM;
    qcow2_refs_drop(&k.refs);
    if (rc == -EFBIG)
        return err_set(e, rc, "checking the image would take more than 1 GiB of memory");
    return rc < 0 ? err_errno(e, rc, "cannot check the image") : 0;
}

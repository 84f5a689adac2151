/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap_table.c - the directory of persistent bitmaps: bytes to structs and back. Pure but
 * for reading it, entry by entry. */
#include "imgfmt/qcow2_bitmap.h"

struct bitmap_disk { /* a directory entry */
    be64 table_offset;
    be32 table_entries;
    be32 flags;
    uint8_t type;
    uint8_t granularity_bits;
    be16 name_bytes;
    be32 extra_bytes; /* then extra data, name, padding to 8 */
};
static_assert(sizeof(struct bitmap_disk) == 24, "qcow2 bitmap");

int64_t qcow2_bitmap_parse(const uint8_t *raw, size_t bytes, struct qcow2_bitmap *out)
{
    struct bitmap_disk d;

    if (bytes < sizeof(d))
        return -EINVAL;
    memcpy(&d, raw, sizeof(d));
    *out = (struct qcow2_bitmap){
        .table_offset = be64_get(d.table_offset),
        .table_entries = be32_get(d.table_entries),
        .flags = be32_get(d.flags),
        .type = d.type,
        .granularity_bits = d.granularity_bits,
        .name_bytes = be16_get(d.name_bytes),
        .extra_bytes = be32_get(d.extra_bytes),
    };
    uint64_t all = sizeof(d) + (uint64_t)out->extra_bytes + out->name_bytes;
    if (out->extra_bytes > QCOW2_MAX_BITMAP_EXTRA || out->name_bytes == 0 ||
        out->name_bytes > QCOW2_MAX_BITMAP_NAME || out->granularity_bits > 63 || all > bytes)
        return -EINVAL;
    out->extra = raw + sizeof(d);
    out->name = (const char *)raw + sizeof(d) + out->extra_bytes;
    return (int64_t)MIN(align_up(all, 8), bytes);
}

uint64_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap *b)
{
    return align_up(sizeof(struct bitmap_disk) + (uint64_t)b->extra_bytes + b->name_bytes, 8);
}

uint64_t qcow2_bitmap_put(const struct qcow2_bitmap *b, uint8_t *to)
{
    uint64_t bytes = qcow2_bitmap_entry_bytes(b);
    struct bitmap_disk d = {
        .table_offset = be64_of(b->table_offset),
        .table_entries = be32_of(b->table_entries),
        .flags = be32_of(b->flags),
        .type = b->type,
        .granularity_bits = b->granularity_bits,
        .name_bytes = be16_of(b->name_bytes),
        .extra_bytes = be32_of(b->extra_bytes),
    };

    memset(to, 0, bytes);
    memcpy(to, &d, sizeof(d));
    if (b->extra_bytes)
        memcpy(to + sizeof(d), b->extra, b->extra_bytes);
    memcpy(to + sizeof(d) + b->extra_bytes, b->name, b->name_bytes);
    return bytes;
}

uint64_t qcow2_bitmap_needs(uint64_t size, unsigned granularity_bits, unsigned cluster_bits)
{
    uint64_t bits = div_up(size, 1ULL << granularity_bits);

    return div_up(bits, 8ULL << cluster_bits);
}

bool qcow2_bitmap_usable(const struct qcow2_bitmap *b, uint64_t size, unsigned cluster_bits)
{
    return b->type == QCOW2_BITMAP_DIRTY && !(b->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN) &&
           (b->extra_bytes == 0 || b->flags & QCOW2_BITMAP_EXTRA_HARMLESS) &&
           b->granularity_bits >= QCOW2_MIN_GRANULARITY &&
           b->granularity_bits <= QCOW2_MAX_GRANULARITY && b->table_offset &&
           !(b->table_offset & ((1ULL << cluster_bits) - 1)) &&
           (uint64_t)b->table_entries << cluster_bits <= QCOW2_MAX_BITMAP_BYTES &&
           b->table_entries == qcow2_bitmap_needs(size, b->granularity_bits, cluster_bits);
}

/* The place of the directory, from the header's extension. */
static int co_find(struct qcow2 *q, struct qcow2_bitmap_list *list, struct blk_error *e)
{
    struct qcow2_bitmaps_disk d;
    int rc = co_blk_read_buf(q->map.file, q->header.bitmaps.offset, &d, sizeof(d));

    if (rc < 0)
        return err_errno(e, rc, "cannot read the list of bitmaps");
    list->count = be32_get(d.count);
    list->offset = be64_get(d.directory_offset);
    list->bytes = be64_get(d.directory_bytes);
    if (list->count > QCOW2_MAX_BITMAPS || list->bytes > QCOW2_MAX_BITMAP_DIR ||
        list->offset & (q->map.cluster_bytes - 1) ||
        !range_fits(list->offset, list->bytes, q->map.file->size))
        return err_bad(e, -EINVAL, "the list of bitmaps at %" PRIu64 " is damaged", list->offset);
    return 0;
}

int co_qcow2_bitmaps(struct qcow2 *q, struct qcow2_bitmap_list *list,
                     int (*fn)(void *arg, const struct qcow2_bitmap *b), void *arg,
                     struct blk_error *e)
{
    *list = (struct qcow2_bitmap_list){0};
    if (!q->header.bitmaps.bytes || !(q->header.autoclear & QCOW2_BITMAPS))
        return 0;
    TRY(co_find(q, list, e));
    auto_free uint8_t *buf = mem_alloc(QCOW2_BITMAP_ENTRY_MAX);
    if (!buf)
        return err_errno(e, -ENOMEM, "cannot read the list of bitmaps");
    uint64_t at = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        struct qcow2_bitmap b;
        uint64_t n = MIN(QCOW2_BITMAP_ENTRY_MAX, list->bytes - at);
        int rc = n ? co_blk_read_buf(q->map.file, list->offset + at, buf, n) : 0;
        if (rc < 0)
            return err_errno(e, rc, "cannot read the list of bitmaps");
        int64_t used = qcow2_bitmap_parse(buf, n, &b);
        if (used < 0)
            return err_bad(e, -EINVAL, "bitmap %" PRIu32 " is damaged", i);
        rc = fn(arg, &b);
        if (rc != 0)
            return rc;
        at += (uint64_t)used;
    }
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_resize.c - a qcow2 image grows and shrinks.
 *
 * The header decides at which instant it happens, so a crash leaves the old size or the new one:
 *   grow    what lies between the old size and the new becomes zero (left-overs of an earlier
 *           shrink, the rest of the last cluster, contents of a longer backing file); a longer L1
 *           table is written where nothing was -> F -> header: size, L1 place and length in one
 *           sector -> F -> old L1 freed
 *   shrink  header: size -> F -> clusters and L2 tables behind it are let go of
 * Bitmaps get their new size in the same write of the header (qcow2_bitmap.c). The device is
 * drained. */
#include "imgfmt/qcow2_bitmap.h"

static uint64_t clusters_of(const struct qcow2 *q, uint64_t size)
{
    return div_up(size, q->map.cluster_bytes);
}

int qcow2_reshape(struct qcow2 *q, const struct qcow2_header *h)
{
    struct map_shape s = q->map.shape;

    s.size = h->size;
    s.root_offset = h->l1_offset;
    s.root_entries = h->l1_entries;
    TRY(map_reshape(&q->map, &s));
    q->map.dev->size = h->size;
    return 0;
}

/* --- a longer L1 table ---------------------------------------------------- */

static int co_copy_l1(struct qcow2 *q, uint64_t to, uint64_t bytes)
{
    auto_free uint8_t *buf = mem_aligned(q->page_bytes);
    uint64_t old_bytes = q->header.l1_entries * 8ULL;

    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < bytes; at += q->page_bytes) {
        memset(buf, 0, q->page_bytes);
        if (at < old_bytes) {
            struct meta_page *page;
            TRY(co_meta_get(q->map.meta, q->header.l1_offset + at, QCOW2_RANK_L1, &page));
            memcpy(buf, page->data, MIN(q->page_bytes, old_bytes - at));
            meta_put(q->map.meta, page);
        }
        TRY(co_blk_write_buf(q->map.file, to + at, buf, q->page_bytes, 0));
    }
    return 0;
}

/* Puts a table of @entries at *offset with what the present one holds, durable but not yet named by
 * the header. */
static int co_new_l1(struct qcow2 *q, uint64_t entries, uint64_t *offset)
{
    uint64_t bytes = align_up(entries * 8, q->map.cluster_bytes);

    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_place_together(q, bytes >> q->header.cluster_bits, offset);
    co_mutex_unlock(&q->alloc);
    TRY(rc);
    /* Its counts, and every L2 table the old L1 names, are durable before the header names it. */
    rc = q->map.fresh ? 0 : co_meta_write_back(q->map.meta, true);
    if (rc == 0)
        rc = co_copy_l1(q, *offset, bytes);
    if (rc == 0 && !q->map.fresh)
        rc = co_blk_flush(q->map.file);
    if (rc < 0)
        qcow2_release(q, *offset, bytes, 0);
    return rc;
}

/* --- grow ----------------------------------------------------------------- */

/* [from, to) of the virtual disk reads as zero afterwards, whatever was there or lies behind. The
 * device has its new size already. */
static int co_make_zero(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t cluster = q->map.cluster_bytes;
    uint64_t whole = MIN(align_up(from, cluster), to);
    uint64_t behind = q->map.backing ? q->map.backing->size : 0;

    if (from < whole)
        TRY(co_map_write_zeroes(q->map.dev, from, whole - from, 0));
    if (whole < to)
        TRY(co_map_drop(&q->map, clusters_of(q, whole), clusters_of(q, to)));
    if (qcow2_raw_data(&q->header) && whole < to)
        TRY(co_map_write_zeroes(q->map.dev, whole, to - whole, BLK_MAY_UNMAP));
    else if (behind > whole)
        TRY(co_map_write_zeroes(q->map.dev, whole, MIN(behind, to) - whole, BLK_MAY_UNMAP));
    return 0;
}

static int co_put_size(struct qcow2 *q, const struct qcow2_header *h)
{
    if (q->bitmaps.count && h->size != q->header.size)
        return co_qcow2_bitmaps_put_size(q, h);
    co_mutex_lock(&q->alloc);
    struct qcow2_header now = q->header; /* the refcount table may have moved meanwhile */
    now.size = h->size;
    now.l1_offset = h->l1_offset;
    now.l1_entries = h->l1_entries;
    int rc = co_qcow2_put_header(q, &now);
    co_mutex_unlock(&q->alloc);
    return rc;
}

static int co_grow_l1(struct qcow2 *q, uint64_t size)
{
    struct qcow2_header h = q->header, old = q->header;
    uint64_t entries = qcow2_l1_needs(size, &h);

    if (entries <= h.l1_entries)
        return 0;
    TRY(co_new_l1(q, entries, &h.l1_offset));
    h.l1_entries = (uint32_t)entries;
    /* Longer than the size needs is no harm, so this is a step of its own. */
    TRY(co_put_size(q, &h));
    TRY(qcow2_reshape(q, &h));
    if (old.l1_entries)
        qcow2_release(q, old.l1_offset, align_up(old.l1_entries * 8ULL, q->map.cluster_bytes),
                      QCOW2_TABLE);
    return 0;
}

static int co_grow(struct qcow2 *q, uint64_t size, struct blk_error *e)
{
    struct qcow2_header h, old;
    int rc;

    if (qcow2_l1_needs(size, &q->header) > QCOW2_MAX_L1_BYTES / 8)
        return err_set(e, -EFBIG,
                       "the image's clusters are too small for %" PRIu64 " bytes: its L1 table "
                       "would exceed 32 MiB",
                       size);
    TRY(co_qcow2_resize_data(q, size, false, e));
    rc = co_grow_l1(q, size);
    if (rc < 0)
        return err_errno(e, rc, "cannot make the L1 table longer");
    old = h = q->header;
    h.size = size;
    rc = qcow2_reshape(q, &h);
    if (rc == 0)
        rc = co_make_zero(q, old.size, size);
    if (rc == 0 && !q->map.fresh)
        rc = co_meta_write_back(q->map.meta, true);
    if (rc == 0)
        rc = co_put_size(q, &h);
    if (rc < 0) {
        (void)!qcow2_reshape(q, &old); /* smaller: cannot fail for want of memory */
        return err_errno(e, rc, "cannot grow the image");
    }
    return 0;
}

/* --- shrink --------------------------------------------------------------- */

/* Lets go of the L2 tables from L1 entry @from on: the entry first, the table once that is durable.
 * They hold nothing but holes by now. */
int co_qcow2_drop_tables(struct qcow2 *q, uint64_t from)
{
    uint64_t per_page = q->page_bytes / 8;
    auto_free uint64_t *tables = mem_array(per_page, sizeof(*tables));

    if (!tables)
        return -ENOMEM;
    for (uint64_t i = from; i < q->header.l1_entries;) {
        uint64_t at = q->header.l1_offset + i * 8;
        uint64_t page_at = align_down(at, q->page_bytes);
        uint64_t end = MIN(q->header.l1_entries, i + (q->page_bytes - (at - page_at)) / 8);
        struct meta_page *page;
        size_t found = 0;
        TRY(co_meta_get(q->map.meta, page_at, QCOW2_RANK_L1, &page));
        int rc = meta_touch(q->map.meta, page);
        for (; rc == 0 && i < end; i++, at += 8) {
            uint8_t *raw = page->data + (at - page_at);
            bool shared;
            if (qcow2_root_decode(&q->map, raw, &tables[found], &shared) == 0 && tables[found])
                found++;
            memset(raw, 0, 8);
        }
        meta_put(q->map.meta, page);
        if (rc == 0 && found)
            rc = co_meta_write_back(q->map.meta, !q->map.fresh);
        TRY(rc);
        for (size_t t = 0; t < found; t++)
            qcow2_release(q, tables[t], q->map.cluster_bytes, QCOW2_TABLE);
    }
    return 0;
}

static int co_shrink(struct qcow2 *q, uint64_t size, struct blk_error *e)
{
    struct qcow2_header h = q->header;
    uint64_t had = clusters_of(q, h.size);
    struct map_shape wide = q->map.shape;

    h.size = size;
    int rc = q->map.fresh ? 0 : co_meta_write_back(q->map.meta, true);
    if (rc == 0)
        rc = co_put_size(q, &h);
    if (rc < 0)
        return err_errno(e, rc, "cannot shrink the image");
    /* The image is smaller now, whatever becomes of giving space back. */
    q->map.dev->size = size;
    rc = co_map_drop(&q->map, clusters_of(q, size), had);
    if (rc == 0)
        rc = co_meta_write_back(q->map.meta, !q->map.fresh);
    if (rc == 0)
        rc = map_reshape(&q->map, &wide); /* no table stays pinned or published */
    if (rc == 0)
        rc = co_qcow2_drop_tables(q, qcow2_l1_needs(size, &h));
    if (rc < 0)
        return err_errno(e, rc, "cannot give the space behind the new end back");
    rc = qcow2_reshape(q, &q->header);
    if (rc < 0)
        return err_errno(e, rc, "cannot shrink the image");
    return co_qcow2_resize_data(q, size, true, e);
}

int co_qcow2_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);

    if (size > INT64_MAX - 511)
        return err_set(e, -EFBIG, "a size of %" PRIu64 " bytes is too large", size);
    size = align_up(size, 512); /* as every reader of qcow2 counts */
    if (size == q->header.size)
        return 0;
    if (q->header.snapshot_count && q->header.version < 3)
        return err_set(
            e, -ENOTSUP,
            "the image holds snapshots, and version 2 of qcow2 does not say how large the "
            "disk was at each; delete them first, or amend the image to version 3");
    if (dev->open_flags & BLK_OPEN_CHECK)
        return err_set(e, -EROFS, "the image is open for check and repair only");
    if (q->data_missing)
        return err_set(e, -ENOTSUP, "the data file was not opened, so it cannot be resized");
    if (q->backing_missing)
        return err_set(e, -ENOTSUP,
                       "the backing file was not opened, so what the new part would show is "
                       "unknown");
    if (size < q->header.size && !shrink)
        return err_set(e, -EINVAL,
                       "the disk would become smaller, and lose what lies behind its new end: "
                       "shrinking has to be asked for");
    TRY(qcow2_bitmaps_may_resize(q, size, e));
    int rc = co_map_will_write(&q->map);
    if (rc < 0)
        return err_errno(e, rc, "cannot resize the image");
    return size > q->header.size ? co_grow(q, size, e) : co_shrink(q, size, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_data_file.c - clusters in a file of their own, beside the one with the tables.
 *
 * Each cluster lies at its own offset in the data file (the engine's fixed_places), entries say
 * which are in use, and nothing of it is counted. A raw data file (autoclear bit 1) is the disk by
 * itself at all times: every cluster is mapped when the image is made and stays so, zeroes and
 * discards are zeroes there (always_stored). What must be on disk before what:
 *
 *   D1  data -> L2 entry, always: the data file may hold other bytes (meta's data device)
 *   D2  entry gone -> its place is punched, unless it was written again
 *   D3  grow    the data file is long enough -> entries -> header
 *       shrink  header -> entries -> the data file is cut */
#include "block/resolver.h"
#include "imgfmt/qcow2_alloc.h"

int co_qcow2_ask_for_data(struct qcow2 *q, struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *dev = q->map.dev;
    unsigned pass = dev->open_flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE);
    bool told = blk_child(dev, "data-file") || (opener && opener_has(opener, "data-file"));

    if (!qcow2_has_data_file(&q->header))
        return told ? err_set(e, -EINVAL,
                              "'data-file' can only be set for images with an external data file")
                    : 0;
    q->data_missing = true; /* until it is there */
    if (blk_child(dev, "data-file"))
        return 0;
    if (!told && !q->data_name && !(dev->open_flags & BLK_OPEN_NO_BACKING))
        return err_set(e, -EINVAL, "'data-file' is required for this image: it names none");
    if (!told && (!opener || dev->open_flags & BLK_OPEN_NO_BACKING))
        return 0;
    return co_opener_reference(opener, dev, "data-file", q->data_name ? q->data_name : "", NULL,
                               pass, e);
}

void qcow2_data_opened(struct qcow2 *q)
{
    struct blk_device *data = blk_child(q->map.dev, "data-file");

    if (!qcow2_has_data_file(&q->header) || !data)
        return;
    q->map.data = data;
    q->data_missing = false;
    q->map.dev->limits.never_compressed = true;
    meta_set_data(q->map.meta, data);
}

int co_qcow2_resize_data(struct qcow2 *q, uint64_t size, bool shrink, struct blk_error *e)
{
    struct blk_device *data = q->map.data;

    if (!qcow2_has_data_file(&q->header) || data->size == size || (data->size > size && !shrink))
        return 0;
    int rc = co_blk_resize(data, size, shrink, e);
    /* A block device that is longer is as good. */
    return rc == -ENOTSUP && data->size > size ? 0 : rc;
}

/* --- create --------------------------------------------------------------- */

#define CHUNK (1 * MiB)

static int co_fill(struct blk_device *data, uint64_t bytes)
{
    auto_free uint8_t *zeroes = mem_aligned(CHUNK);

    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, CHUNK);
    for (uint64_t at = 0; at < bytes; at += CHUNK)
        TRY(co_blk_write_buf(data, at, zeroes, MIN(CHUNK, bytes - at), 0));
    return 0;
}

static int co_size_data(struct blk_device *data, uint64_t bytes, enum qcow2_preallocation how)
{
    if (data->size != bytes && data->limits.growable)
        TRY(co_blk_resize(data, bytes, true, NULL));
    if (data->size < bytes)
        return -ENOSPC;
    if (how == QCOW2_PRE_FULL)
        return co_fill(data, bytes);
    if (how == QCOW2_PRE_FALLOC)
        return co_blk_write_zeroes(data, 0, bytes, 0);
    if (how == QCOW2_PRE_OFF || data->limits.fresh_reads_zero) /* nothing is mapped, or zero */
        return 0;
    return co_blk_write_zeroes(data, 0, bytes, BLK_MAY_UNMAP);
}

int co_qcow2_make_data(const struct blk_create *c, const char *name, uint64_t bytes,
                       enum qcow2_preallocation how, struct blk_error *e)
{
    struct blk_device *data;

    if (!c->co_make_file)
        return err_set(e, -ENOTSUP, "an external data file cannot be made here");
    TRY(c->co_make_file(c, name, &data, e));
    int rc = co_size_data(data, bytes, how);
    if (rc == 0 && !c->fresh)
        rc = co_blk_flush(data);
    if (rc < 0)
        err_errno(e, rc, "cannot prepare the data file '%.200s'", name);
    int closed = co_blk_close(data, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

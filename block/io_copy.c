/* SPDX-License-Identifier: BSD-3-Clause */
/* io_copy.c - copies that need not bring the bytes up: the source says where they lie in a host
 * file, the target's driver takes them from there (copy_file_range, reflink).
 *
 * -ENOTSUP means that nothing was done. Once something was, what cannot be taken so is read and
 * written. */
#include "block/waist.h"

#define BOUNCE_BYTES (256 * KiB)
#define STEP_BYTES   (1 * MiB)

/* --- one place of a host file ----------------------------------------------------------------- */

/* Does the front of @from; gives the bytes done. */
static int64_t copy_front(struct blk_device *dst, uint64_t offset, const struct blk_place *from)
{
    uint64_t align = dst->limits.request_align;
    if (!dst->driver->co_copy) {
        struct blk_place to = {0}, part = *from;
        if (!dst->driver->is_filter ||
            !dst->driver->resolve(dst, offset, from->bytes, false, &to) || !to.child)
            return -ENOTSUP;
        part.bytes = to.bytes;
        int rc = co_blk_copy_from(to.child, to.offset, &part);
        return rc < 0 ? rc : (int64_t)part.bytes;
    }
    if (((offset | from->bytes) & (align - 1)) != 0)
        return -ENOTSUP;
    uint64_t end = offset + from->bytes;
    bool serial = align > 1 || end > dst->size;
    struct co_range_hold hold;
    if (serial)
        co_blk_hold(dst, &hold, offset, from->bytes, false, false);
    int rc = dst->driver->co_copy(dst, offset, from);
    assert(rc <= 0);
    if (rc == 0 && end > dst->size)
        dst->size = end;
    if (serial)
        co_range_unlock(&dst->serial, &hold);
    if (rc < 0 && end > dst->size)
        co_blk_cut_back(dst);
    return rc < 0 ? rc : (int64_t)from->bytes;
}

/* Takes the front of @from through memory; gives the bytes done. */
static int64_t bounce_front(struct blk_device *dst, uint64_t offset, const struct blk_place *from)
{
    uint64_t bytes = MIN(from->bytes, BOUNCE_BYTES);
    void *buf = buf_get(BOUNCE_BYTES);
    if (!buf)
        return -ENOMEM;
    struct vec view = VEC_BUF(buf, bytes);
    int64_t got = co_host_read(from->file, from->offset, &view);
    if (got >= 0) {
        memset((char *)buf + got, 0, bytes - (uint64_t)got); /* past the end of the file */
        got = co_blk_inside_write(dst, offset, &view, 0);
    }
    buf_put(buf, BOUNCE_BYTES);
    return got < 0 ? got : (int64_t)bytes;
}

static int copy_by_driver(void *arg)
{
    struct blk_call *call = arg;
    struct blk_place rest = *call->from;
    uint64_t offset = call->offset;
    while (rest.bytes > 0) {
        int64_t done = copy_front(call->dev, offset, &rest);
        if (done == -ENOTSUP && rest.bytes < call->from->bytes)
            done = bounce_front(call->dev, offset, &rest);
        if (done < 0)
            return (int)done;
        offset += (uint64_t)done;
        rest.offset += (uint64_t)done;
        rest.bytes -= (uint64_t)done;
    }
    return 0;
}

static int copy_from_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_copy_from(call->dev, call->offset, call->from);
}

int co_blk_copy_from(struct blk_device *dst, uint64_t offset, const struct blk_place *from)
{
    assert(from->file && !from->child);
    struct blk_call call = {.dev = dst, .offset = offset, .from = from};
    if (!blk_at_home(dst))
        return co_on(dst->home, copy_from_at_home, &call);
    unsigned epoch = blk_enter(dst);
    int rc = blk_may_change(dst, offset, from->bytes);
    if (rc == 0 && from->bytes)
        rc = co_blk_run(copy_by_driver, &call);
    blk_leave(dst, epoch);
    return rc;
}

/* --- device to device ------------------------------------------------------------------------- */

int co_blk_copy_through_memory(struct blk_device *dst, uint64_t dst_offset, struct blk_device *src,
                               uint64_t src_offset, uint64_t bytes)
{
    void *buf = buf_get(STEP_BYTES);
    if (!buf)
        return -ENOMEM;
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < bytes; at += STEP_BYTES) {
        uint64_t part = MIN(bytes - at, STEP_BYTES);
        rc = co_blk_read_buf(src, src_offset + at, buf, part);
        if (rc == 0)
            rc = co_blk_write_buf(dst, dst_offset + at, buf, part, 0);
    }
    buf_put(buf, STEP_BYTES);
    return rc;
}

/* Copies the front of a range; *bytes in: what is left, out: what was done. */
static int copy_piece(struct blk_device *dst, uint64_t dst_offset, struct blk_device *src,
                      uint64_t src_offset, uint64_t *bytes)
{
    struct blk_place at;
    if (!blk_resolve(src, src_offset, *bytes, false, &at)) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(src, NULL, src_offset, *bytes, &ext, &depth));
        *bytes = ext.bytes;
        if (ext.flags & BLK_EXT_ZERO)
            return co_blk_write_zeroes(dst, dst_offset, *bytes, BLK_MAY_UNMAP);
        if (!blk_resolve(src, src_offset, *bytes, false, &at)) /* map read the tables in */
            return -ENOTSUP;
    }
    *bytes = at.bytes;
    return co_blk_copy_from(dst, dst_offset, &at);
}

int co_blk_copy(struct blk_device *dst, uint64_t dst_offset, struct blk_device *src,
                uint64_t src_offset, uint64_t bytes)
{
    if (!range_fits(src_offset, bytes, src->size))
        return -EINVAL;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t part = bytes - at;
        int rc = copy_piece(dst, dst_offset + at, src, src_offset + at, &part);
        if (rc == -ENOTSUP && at > 0)
            rc = co_blk_copy_through_memory(dst, dst_offset + at, src, src_offset + at, part);
        TRY(rc);
        at += part;
    }
    return 0;
}

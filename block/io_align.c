/* SPDX-License-Identifier: BSD-3-Clause */
/* io_align.c - requests that a device does not take as they are: odd edges, odd memory, too long;
 * and writes that move the device's end.
 *
 * Such requests go through bounce buffers, one piece after the other. Odd edges of a write are
 * read, patched and written under dev->serial, alone on their blocks; aligned writes share it, so
 * they run side by side, but never beside a read-modify-write of the same block.
 *
 * A1  A failed edge read fails the request: nothing that was not read is written.
 * A2  A piece never leaves [offset, +bytes) widened to the alignment.
 * A3  The last block may reach past the size: devices answer zeroes there, and drop (or, growable,
 *     are cut back from) what is written there. */
#include "block/waist.h"

#define BOUNCE_BYTES (256 * KiB)

static uint64_t piece_bytes(const struct blk_device *dev)
{
    uint64_t most = BOUNCE_BYTES;
    if (dev->limits.max_transfer)
        most = MIN(most, dev->limits.max_transfer);
    return MAX(align_down(most, dev->limits.request_align), dev->limits.request_align);
}

/* Splits what is aligned and only too long. */
static int read_split(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    uint64_t most = align_down(dev->limits.max_transfer, dev->limits.request_align);
    for (uint64_t at = 0; at < to->bytes; at += most) {
        struct vec piece = vec_slice(to, at, MIN(most, to->bytes - at));
        TRY(co_blk_driver_read(dev, offset + at, &piece));
    }
    return 0;
}

static int write_split(struct blk_device *dev, uint64_t offset, const struct vec *from,
                       unsigned flags)
{
    uint64_t most = align_down(dev->limits.max_transfer, dev->limits.request_align);
    for (uint64_t at = 0; at < from->bytes; at += most) {
        struct vec piece = vec_slice(from, at, MIN(most, from->bytes - at));
        TRY(co_blk_driver_write(dev, offset + at, &piece, flags));
    }
    return 0;
}

/* True if splitting is all that is needed. */
static bool only_long(const struct blk_device *dev, uint64_t offset, const struct vec *v)
{
    return ((offset | v->bytes) & (dev->limits.request_align - 1)) == 0 &&
           vec_aligned(v, dev->limits.memory_align);
}

/* Reads [from, +bytes), aligned, into @buf; what lies past the end is zero. */
static int read_blocks(struct blk_device *dev, uint64_t from, void *buf, uint64_t bytes)
{
    uint64_t end = align_up(dev->size, dev->limits.request_align);
    uint64_t inside = from >= end ? 0 : MIN(bytes, end - from);
    memset((char *)buf + inside, 0, bytes - inside);
    if (inside == 0)
        return 0;
    struct vec to = VEC_BUF(buf, inside);
    return co_blk_driver_read(dev, from, &to);
}

int co_blk_read_unfit(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    if (only_long(dev, offset, to))
        return read_split(dev, offset, to);
    uint64_t align = dev->limits.request_align, most = piece_bytes(dev);
    uint64_t end = offset + to->bytes;
    uint64_t first = align_down(offset, align), last = align_up(end, align);
    uint64_t buf_bytes = MIN(most, last - first);
    void *buf = buf_get(buf_bytes);
    if (!buf)
        return -ENOMEM;
    int rc = 0;
    for (uint64_t at = first; rc == 0 && at < last; at += most) {
        uint64_t bytes = MIN(most, last - at);
        rc = read_blocks(dev, at, buf, bytes);
        if (rc < 0)
            break;
        uint64_t from = MAX(at, offset), until = MIN(at + bytes, end);
        struct vec piece = vec_slice(to, from - offset, until - from);
        vec_from_buf(&piece, (char *)buf + (from - at));
    }
    buf_put(buf, buf_bytes);
    return rc;
}

/* --- writes ----------------------------------------------------------------------------------- */

/* Fills @buf with the new contents of the blocks [at, +bytes): old edges (A1), @from between them.
 */
static int patch_blocks(struct blk_device *dev, uint64_t at, char *buf, uint64_t bytes,
                        uint64_t offset, const struct vec *from)
{
    uint64_t align = dev->limits.request_align, end = offset + from->bytes;
    bool odd_head = at<offset, odd_tail = at + bytes> end;
    if (odd_head)
        TRY(read_blocks(dev, at, buf, align));
    if (odd_tail && !(odd_head && bytes == align))
        TRY(read_blocks(dev, at + bytes - align, buf + bytes - align, align));
    uint64_t first = MAX(at, offset), until = MIN(at + bytes, end);
    struct vec piece = vec_slice(from, first - offset, until - first);
    vec_to_buf(&piece, buf + (first - at));
    return 0;
}

static int write_bounced(struct blk_device *dev, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    uint64_t align = dev->limits.request_align, most = piece_bytes(dev);
    uint64_t first = align_down(offset, align), last = align_up(offset + from->bytes, align);
    uint64_t buf_bytes = MIN(most, last - first);
    char *buf = buf_get(buf_bytes);
    if (!buf)
        return -ENOMEM;
    int rc = 0;
    for (uint64_t at = first; rc == 0 && at < last; at += most) {
        uint64_t bytes = MIN(most, last - at);
        rc = patch_blocks(dev, at, buf, bytes, offset, from);
        if (rc < 0)
            break;
        struct vec piece = VEC_BUF(buf, bytes);
        rc = co_blk_driver_write(dev, at, &piece, flags);
    }
    buf_put(buf, buf_bytes);
    return rc;
}

void co_blk_hold(struct blk_device *dev, struct co_range_hold *hold, uint64_t offset,
                 uint64_t bytes, bool alone, bool grows)
{
    uint64_t align = dev->limits.request_align, end = align_up(offset + bytes, align);
    offset = align_down(offset, align);
    if (grows) {
        offset = MIN(offset, align_down(dev->size, align));
        end = INT64_MAX;
    }
    co_range_lock(&dev->serial, hold, offset, end - offset, !alone && !grows);
}

/* The block that was padded past the end: a growable device is cut back to the exact size. */
static int cut_padding(struct blk_device *dev, uint64_t end)
{
    if (!dev->limits.growable || !dev->driver->co_resize)
        return 0;
    return dev->driver->co_resize(dev, MAX(end, dev->size), true, NULL);
}

/* A growing write that failed may have left bytes behind the end; they must not surface as the
 * zeroes that later growth promises. */
void co_blk_cut_back(struct blk_device *dev)
{
    struct co_range_hold hold;
    co_blk_hold(dev, &hold, dev->size, 0, true, true);
    if (!dev->driver->co_resize || dev->driver->co_resize(dev, dev->size, true, NULL) < 0)
        dev->limits.fresh_reads_zero = false;
    co_range_unlock(&dev->serial, &hold);
}

int co_blk_write_serial(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    uint64_t align = dev->limits.request_align, end = offset + from->bytes;
    bool odd = ((offset | from->bytes) & (align - 1)) != 0;
    bool padded = align_up(end, align) > MAX(end, dev->size);
    struct co_range_hold hold;
    co_blk_hold(dev, &hold, offset, from->bytes, odd, padded);
    int rc;
    if (!only_long(dev, offset, from))
        rc = write_bounced(dev, offset, from, flags);
    else if (!blk_fits(dev, offset, from))
        rc = write_split(dev, offset, from, flags);
    else
        rc = co_blk_driver_write(dev, offset, from, flags);
    if (rc == 0 && padded)
        rc = cut_padding(dev, end);
    if (rc == 0 && end > dev->size)
        __atomic_store_n(&dev->size, end, __ATOMIC_RELAXED); /* who resolves elsewhere looks */
    co_range_unlock(&dev->serial, &hold);
    if (rc < 0 && end > dev->size)
        co_blk_cut_back(dev);
    return rc;
}

int co_blk_read_inside(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    uint64_t inside = offset < dev->size ? MIN(to->bytes, dev->size - offset) : 0;
    struct vec front = vec_slice(to, 0, inside);
    struct vec rest = vec_slice(to, inside, to->bytes - inside);
    vec_fill(&rest, 0);
    return co_blk_read(dev, offset, &front);
}

int co_blk_write_inside(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct vec front = *from;
    if (!dev->limits.growable && offset + from->bytes > dev->size)
        front = vec_slice(from, 0, dev->size - offset);
    return co_blk_write(dev, offset, &front, flags);
}

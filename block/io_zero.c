/* SPDX-License-Identifier: BSD-3-Clause */
/* io_zero.c - write_zeroes: the driver's fast way where it has one, else zeroes written as data;
 * and space taken in a host's file before it is written to.
 *
 * Only whole units (zero_align) go to the driver; odd edges are written as data, so nothing outside
 * of the request is ever touched. With NO_FALLBACK nothing is written as data: the answer is
 * -ENOTSUP, and then nothing has changed. */
#include "block/waist.h"

static const uint8_t zeroes[BLK_ZERO_BYTES] __attribute__((aligned(4096)));

struct vec blk_zero_vec(struct iovec iov[BLK_ZERO_PIECES], uint64_t bytes)
{
    assert(bytes <= BLK_ZERO_PIECES * BLK_ZERO_BYTES);
    for (unsigned i = 0; i < BLK_ZERO_PIECES; i++)
        iov[i] = (struct iovec){.iov_base = (void *)zeroes, .iov_len = sizeof(zeroes)};
    return (struct vec){.iov = iov, .bytes = bytes};
}

static int write_as_data(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct iovec iov[BLK_ZERO_PIECES];
    while (bytes > 0) {
        uint64_t part = MIN(bytes, BLK_ZERO_PIECES * BLK_ZERO_BYTES);
        struct vec from = blk_zero_vec(iov, part);
        TRY(co_blk_inside_write(dev, offset, &from, flags & BLK_FUA));
        offset += part;
        bytes -= part;
    }
    return 0;
}

static int filter_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    while (bytes > 0) {
        struct blk_place p = {0};
        bool hit = dev->driver->resolve(dev, offset, bytes, false, &p);
        assert(hit && p.child && p.bytes > 0 && p.bytes <= bytes);
        (void)hit;
        TRY(co_blk_write_zeroes(p.child, p.offset, p.bytes, flags));
        offset += p.bytes;
        bytes -= p.bytes;
    }
    return 0;
}

/* Whole units, under the device's own rules for writers. */
static int zero_units(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    if (!dev->driver->co_write_zeroes)
        return dev->driver->is_filter ? filter_zeroes(dev, offset, bytes, flags) : -ENOTSUP;
    uint64_t end = offset + bytes;
    bool grows = end > dev->size, serial = grows || dev->limits.request_align > 1;
    struct co_range_hold hold;
    if (serial)
        co_blk_hold(dev, &hold, offset, bytes, false, grows);
    int rc = dev->driver->co_write_zeroes(dev, offset, bytes, flags);
    assert(rc <= 0);
    if (rc == 0 && end > dev->size)
        __atomic_store_n(&dev->size, end, __ATOMIC_RELAXED); /* who resolves elsewhere looks */
    if (serial)
        co_range_unlock(&dev->serial, &hold);
    if (rc < 0 && end > dev->size)
        co_blk_cut_back(dev);
    return rc;
}

static int zeroes_by_driver(void *arg)
{
    struct blk_call *call = arg;
    struct blk_device *dev = call->dev;
    uint64_t unit = MAX(dev->limits.zero_align, dev->limits.request_align);
    uint64_t first = call->offset, end = first + call->bytes;
    uint64_t from = MIN(align_up(first, unit), end);
    uint64_t to = end >= dev->size ? end : MAX(align_down(end, unit), from);
    unsigned flags = call->flags;
    if (flags & BLK_NO_FALLBACK)
        return from == first && to == end ? zero_units(dev, first, call->bytes, flags) : -ENOTSUP;
    TRY(write_as_data(dev, first, from - first, flags));
    int rc = from < to ? zero_units(dev, from, to - from, flags) : 0;
    if (rc == -ENOTSUP)
        rc = write_as_data(dev, from, to - from, flags);
    TRY(rc);
    return write_as_data(dev, to, end - to, flags);
}

static int inside_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    bool flush = (flags & BLK_FUA) && !dev->driver->handles_fua && !dev->driver->is_filter;
    struct blk_call call = {
        .dev = dev, .offset = offset, .bytes = bytes, .flags = flush ? flags & ~BLK_FUA : flags};
    int rc = co_blk_run(zeroes_by_driver, &call);
    if (rc == 0 && flush)
        rc = co_blk_inside_flush(dev);
    return rc;
}

static int zeroes_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_write_zeroes(call->dev, call->offset, call->bytes, call->flags);
}

int co_blk_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    if (!blk_at_home(dev)) {
        struct blk_call call = {.dev = dev, .offset = offset, .bytes = bytes, .flags = flags};
        return co_on(dev->home, zeroes_at_home, &call);
    }
    unsigned epoch = blk_enter(dev);
    int rc = blk_may_change(dev, offset, bytes);
    if (rc == 0 && bytes)
        rc = inside_zeroes(dev, offset, bytes, flags);
    blk_leave(dev, epoch);
    return rc;
}

static int reserve_inside(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct blk_place p;
    while (bytes > 0) {
        if (!blk_resolve(dev, offset, bytes, true, &p) || p.file->stat.type != HOST_FILE_REGULAR ||
            p.file->stat.inline_io)
            return -ENOTSUP;
        TRY(co_host_fallocate(p.file, HOST_ALLOCATE, p.offset, p.bytes));
        offset += p.bytes;
        bytes -= p.bytes;
    }
    return 0;
}

int co_blk_reserve(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    assert(blk_at_home(dev));
    if (!range_fits(offset, bytes, dev->size))
        return -EINVAL;
    unsigned epoch = blk_enter(dev);
    int rc = blk_may_change(dev, offset, bytes);
    if (rc == 0)
        rc = reserve_inside(dev, offset, bytes);
    blk_leave(dev, epoch);
    return rc;
}

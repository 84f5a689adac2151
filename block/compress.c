/* SPDX-License-Identifier: BSD-3-Clause */
/* compress.c - a layer that has everything stored compressed that is written through it. It asks
 * for whole clusters, so the waist makes them of what is smaller. Zeroes and discards go down as
 * they are. */
#include "block/block.h"

static struct blk_device *below(const struct blk_device *dev)
{
    return dev->state;
}

static int co_compress_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return co_blk_read_inside(below(dev), offset, to);
}

static int co_compress_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                             unsigned flags)
{
    return co_blk_write_inside(below(dev), offset, from, flags | BLK_COMPRESSED);
}

static int co_compress_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                    unsigned flags)
{
    return co_blk_write_zeroes(below(dev), offset, bytes, flags);
}

static int co_compress_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    return co_blk_discard(below(dev), offset, bytes);
}

static int co_compress_flush(struct blk_device *dev)
{
    return co_blk_flush(below(dev));
}

static int co_compress_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                           struct blk_extent *out)
{
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = below(dev),
                               .child_offset = offset};
    return 0;
}

static int co_compress_resize(struct blk_device *dev, uint64_t size, bool shrink,
                              struct blk_error *e)
{
    return co_blk_resize(below(dev), size, shrink, e);
}

static int co_compress_open(struct blk_device *dev, const struct opts *opts,
                            struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    if (!child->driver->compresses || child->limits.never_compressed)
        return err_set(e, -ENOTSUP, "Compression not supported for this file format");
    dev->state = child;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    if (is_pow2(child->limits.cluster_size))
        dev->limits.request_align = child->limits.cluster_size;
    return 0;
}

static const struct opt_desc compress_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the image below"}, {0}};

const struct blk_driver compress_driver = {
    .name = "compress",
    .title = "has what is written stored compressed",
    .handles_fua = true,
    .open_options = compress_options,
    .co_open = co_compress_open,
    .co_read = co_compress_read,
    .co_write = co_compress_write,
    .co_write_zeroes = co_compress_write_zeroes,
    .co_discard = co_compress_discard,
    .co_flush = co_compress_flush,
    .co_map = co_compress_map,
    .co_resize = co_compress_resize,
};

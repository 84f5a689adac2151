/* SPDX-License-Identifier: BSD-3-Clause */
/* null.c - a disk that forgets: takes everything, reads as zero. For measuring what lies above. */
#include "block/block.h"

static int co_null_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    vec_fill(to, 0);
    return 0;
}

static int co_null_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    return 0;
}

static int co_null_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    return 0;
}

static int co_null_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                       struct blk_extent *out)
{
    *out = (struct blk_extent){.flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED, .bytes = bytes};
    return 0;
}

static int co_null_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    return 0;
}

static const struct opt_desc null_options[] = {
    {.name = "size", .type = OPT_SIZE, .preset = "1G", .max = INT64_MAX, .help = "bytes"},
    {0},
};

static int co_null_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    dev->size = opts_number(opts, "size");
    dev->limits.fresh_reads_zero = dev->limits.discard_reads_zero = true;
    dev->limits.can_zero_fast = dev->limits.can_unmap = true;
    return 0;
}

const struct blk_driver null_driver = {
    .name = "null",
    .title = "takes everything, reads as zero",
    .handles_fua = true,
    .open_options = null_options,
    .co_open = co_null_open,
    .co_read = co_null_read,
    .co_write = co_null_write,
    .co_write_zeroes = co_null_write_zeroes,
    .co_map = co_null_map,
    .co_resize = co_null_resize,
};

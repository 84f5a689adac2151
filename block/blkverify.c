/* SPDX-License-Identifier: BSD-3-Clause */
/* blkverify.c - a device beside another one that must always show the same: what is written goes to
 * both, what is read is read from both and compared. A difference is an I/O error, and told. */
#include "block/block.h"

struct blkverify {
    struct blk_device *raw, *test;
};

static int differ(const struct blk_device *dev, uint64_t offset)
{
    fprintf(stderr, "blkverify: %s: contents mismatch at offset %" PRIu64 "\n", dev->name, offset);
    return -EIO;
}

/* The first byte in which the two are not the same. */
static uint64_t difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    uint64_t at = 0;
    while (at < bytes && a[at] == b[at])
        at++;
    return at;
}

static int co_blkverify_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct blkverify *v = dev->state;
    uint8_t *raw = buf_get(to->bytes), *test = buf_get(to->bytes);
    int rc = raw && test ? co_blk_read_buf(v->raw, offset, raw, to->bytes) : -ENOMEM;
    if (rc == 0)
        rc = co_blk_read_buf(v->test, offset, test, to->bytes);
    if (rc == 0 && memcmp(raw, test, to->bytes) != 0)
        rc = differ(dev, offset + difference(raw, test, to->bytes));
    if (rc == 0)
        vec_from_buf(to, raw);
    if (raw)
        buf_put(raw, to->bytes);
    if (test)
        buf_put(test, to->bytes);
    return rc;
}

static int co_blkverify_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                              unsigned flags)
{
    const struct blkverify *v = dev->state;
    TRY(co_blk_write(v->raw, offset, from, flags));
    return co_blk_write(v->test, offset, from, flags);
}

static int co_blkverify_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                     unsigned flags)
{
    const struct blkverify *v = dev->state;
    TRY(co_blk_write_zeroes(v->raw, offset, bytes, flags));
    return co_blk_write_zeroes(v->test, offset, bytes, flags);
}

static int co_blkverify_flush(struct blk_device *dev)
{
    const struct blkverify *v = dev->state;
    TRY(co_blk_flush(v->raw));
    return co_blk_flush(v->test);
}

static int co_blkverify_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                            struct blk_extent *out)
{
    *out = (struct blk_extent){.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED, .bytes = bytes};
    return 0;
}

static const struct opt_desc blkverify_options[] = {
    {.name = "raw", .type = OPT_CHILD, .help = "the device that is believed"},
    {.name = "test", .type = OPT_CHILD, .help = "the device that is tested"},
    {0},
};

static int co_blkverify_open(struct blk_device *dev, const struct opts *opts,
                             struct blk_opener *opener, struct blk_error *e)
{
    struct blkverify v;
    TRY(co_blk_want_child(dev, opener, "raw", dev->open_flags, &v.raw, e));
    TRY(co_blk_want_child(dev, opener, "test", dev->open_flags, &v.test, e));
    if (!v.raw || !v.test || v.raw->size < v.test->size)
        return err_set(e, -EINVAL, "blkverify needs raw and test, raw at least as large");
    struct blkverify *state = mem_zalloc(sizeof(*state));
    if (!state)
        return err_set(e, -ENOMEM, "out of memory");
    *state = v;
    dev->state = state;
    dev->size = v.test->size;
    dev->limits.max_transfer = 1 * MiB; /* two buffers of it for each read */
    return 0;
}

static int co_blkverify_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver blkverify_driver = {
    .name = "blkverify",
    .title = "compares two devices at every read",
    .handles_fua = true,
    .open_options = blkverify_options,
    .co_open = co_blkverify_open,
    .co_close = co_blkverify_close,
    .co_read = co_blkverify_read,
    .co_write = co_blkverify_write,
    .co_write_zeroes = co_blkverify_write_zeroes,
    .co_flush = co_blkverify_flush,
    .co_map = co_blkverify_map,
};

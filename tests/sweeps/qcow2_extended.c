/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_extended.c - the proof over qcow2 images with extended L2 entries (clusters in 32 pieces),
 * with an external data file, raw or not, and with discards that keep their space. */
#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 6, .unmap = 6, .discard = 8, .read = 10, .flush = 6, \
    .reopen = 1, .kill = 1, .hot = 6

static const struct sweep_profile tiny = {ANY, .max_bytes = 4 * KiB};
static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 64 * KiB};
static const struct sweep_profile resizing = {ANY, .resize = 4, .max_bytes = 128 * KiB};
static const struct sweep_profile busy = {
    .write = 25, .unmap = 8, .discard = 20, .read = 30, .flush = 12, .max_bytes = 8 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 1536 * KiB};
static const struct sweep_backing base_extended = {
    .format = "qcow2", .create = "extended_l2=on,cluster_size=16k", .size = 700 * KiB};

/* A raw data file is the disk by itself, after any crash. */
static int co_same_bytes(struct blk_device *dev, struct blk_device *data, struct blk_error *e)
{
    enum { STEP = 64 * 1024 };
    auto_free uint8_t *a = mem_alloc(STEP), *b = mem_alloc(STEP);
    if (!a || !b)
        return -ENOMEM;
    for (uint64_t at = 0; at < dev->size; at += STEP) {
        uint64_t n = MIN(STEP, dev->size - at);
        TRY(co_blk_read_buf(dev, at, a, n));
        TRY(co_blk_read_buf(data, at, b, n));
        if (memcmp(a, b, n) != 0)
            return err_set(e, -EIO, "the data file differs from the disk behind %" PRIu64, at);
    }
    return 0;
}

static int co_check_raw(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                        struct blk_error *e)
{
    struct blk_check check = {0};
    (void)run;
    TRY(co_blk_check(dev, &check, e));
    *bad = check.corruptions + check.check_errors;
    if (*bad)
        return err_set(e, -EIO, "the image is corrupt");
    return co_same_bytes(dev, blk_child(dev, "data-file"), e);
}

#define EXTENDED .format = "qcow2", .foreign = "qcow2"
#define TINY     "l2-cache-size=4k,refcount-cache-size=4k"

static const struct sweep_subject rows[] = {
    {.name = "extended-64k",
     EXTENDED,
     .create = "extended_l2=on",
     .size = 4 * MiB,
     .granule = 2 * KiB,
     .profile = &middle},
    {.name = "extended-16k",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "extended-lazy",
     EXTENDED,
     .create = "extended_l2=on,lazy_refcounts=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "extended-2m",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=2M",
     .size = 8 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "extended-over-raw",
     EXTENDED,
     .create = "extended_l2=on,backing_file=base.img,backing_fmt=raw,cluster_size=64k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 2 * KiB,
     .profile = &small},
    {.name = "extended-over-extended",
     EXTENDED,
     .create = "extended_l2=on,backing_file=base.img,backing_fmt=qcow2,cluster_size=32k",
     .backing = &base_extended,
     .size = 1 * MiB,
     .granule = 1 * KiB,
     .profile = &tiny},
    {.name = "extended-preallocated-over-raw",
     EXTENDED,
     .create = "extended_l2=on,backing_file=base.img,backing_fmt=raw,cluster_size=64k,"
               "preallocation=metadata",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 2 * KiB,
     .profile = &small},
    {.name = "extended-packed",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &packing},
    {.name = "extended-packed-over-raw",
     EXTENDED,
     .create = "extended_l2=on,backing_file=base.img,backing_fmt=raw,cluster_size=16k,"
               "compression_type=zstd",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 16 * KiB,
     .profile = &packing},
    {.name = "extended-tiny-cache",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .open = TINY,
     .size = 8 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "extended-resize",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "extended-odd-size",
     EXTENDED,
     .create = "extended_l2=on",
     .size = 1 * MiB + 1536,
     .granule = 2 * KiB,
     .profile = &middle},
    {.name = "extended-two-workers",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 2 * MiB,
     .granule = 512,
     .workers = 2,
     .profile = &small},
    {.name = "extended-reuse",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 192 * KiB,
     .granule = 512,
     .profile = &busy,
     .model_factor = 40,
     .ops = 100},
    {.name = "extended-on-a-device",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k",
     .size = 2 * MiB,
     .granule = 512,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {.name = "data-file",
     EXTENDED,
     .create = "data_file=data.img,cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "data-file-64k",
     EXTENDED,
     .create = "data_file=data.img",
     .size = 4 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "data-file-over-raw",
     EXTENDED,
     .create = "data_file=data.img,backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 16 * KiB,
     .profile = &small},
    {.name = "data-file-busy",
     EXTENDED,
     .create = "data_file=data.img,cluster_size=4k",
     .size = 96 * KiB,
     .profile = &busy,
     .model_factor = 40,
     .ops = 100},
    {.name = "data-file-tiny-cache",
     EXTENDED,
     .create = "data_file=data.img,cluster_size=512",
     .open = TINY,
     .size = 512 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "data-file-resize",
     EXTENDED,
     .create = "data_file=data.img,cluster_size=4k",
     .size = 1 * MiB + 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "data-file-raw",
     EXTENDED,
     .create = "data_file=data.img,data_file_raw=on,cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small,
     .co_check = co_check_raw},
    {.name = "data-file-raw-resize",
     EXTENDED,
     .create = "data_file=data.img,data_file_raw=on,cluster_size=16k",
     .size = 1 * MiB + 512,
     .granule = 16 * KiB,
     .profile = &resizing,
     .flags = SWEEP_SHRINK,
     .co_check = co_check_raw},
    {.name = "extended-data-file",
     EXTENDED,
     .create = "data_file=data.img,extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "extended-data-file-over-raw",
     EXTENDED,
     .create = "data_file=data.img,extended_l2=on,cluster_size=32k,"
               "backing_file=base.img,backing_fmt=raw",
     .backing = &base_raw,
     .size = 2 * MiB + 512,
     .granule = 1 * KiB,
     .profile = &small},
    {.name = "extended-data-file-raw",
     EXTENDED,
     .create = "data_file=data.img,data_file_raw=on,extended_l2=on,cluster_size=16k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small,
     .co_check = co_check_raw},
    {.name = "discard-no-unref",
     EXTENDED,
     .create = "cluster_size=4k",
     .open = "discard-no-unref=on",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "discard-no-unref-busy",
     EXTENDED,
     .create = "cluster_size=4k",
     .open = "discard-no-unref=on",
     .size = 96 * KiB,
     .profile = &busy,
     .model_factor = 40,
     .ops = 100},
    {.name = "discard-no-unref-extended-over-raw",
     EXTENDED,
     .create = "extended_l2=on,cluster_size=16k,backing_file=base.img,backing_fmt=raw",
     .open = "discard-no-unref=on",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 512,
     .profile = &small},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 700, 3000);
}

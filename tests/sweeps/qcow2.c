/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.c - the proof over qcow2 images: versions, cluster sizes, refcount widths, a backing file,
 * compression, caches of next to nothing, resizing. */
#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 6, .read = 10, .flush = 6, \
    .reopen = 1, .kill = 1, .hot = 6

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile big = {ANY, .max_bytes = 3 * MiB};
static const struct sweep_profile packing = {ANY, .compressed = 25, .max_bytes = 256 * KiB};
static const struct sweep_profile packing_small = {ANY, .compressed = 25, .max_bytes = 32 * KiB};
static const struct sweep_profile resizing = {ANY, .resize = 4, .max_bytes = 128 * KiB};

/* Few clusters, given away again as soon as may be, while slow reads of them are in flight. */
static const struct sweep_profile busy = {
    .write = 25, .unmap = 5, .discard = 20, .read = 30, .flush = 12, .max_bytes = 8 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 1536 * KiB};
static const struct sweep_backing base_qcow2 = {.format = "qcow2", .size = 2 * MiB};

#define QCOW2 .format = "qcow2", .foreign = "qcow2"
#define TINY  "l2-cache-size=4k,refcount-cache-size=4k"

static const struct sweep_subject rows[] = {
    {.name = "qcow2-v3", QCOW2, .size = 4 * MiB, .granule = 64 * KiB, .profile = &middle},
    {.name = "qcow2-v2",
     QCOW2,
     .create = "compat=0.10",
     .size = 4 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "qcow2-4k",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 2 * MiB,
     .granule = 4 * KiB,
     .profile = &small},
    {.name = "qcow2-512",
     QCOW2,
     .create = "cluster_size=512",
     .size = 512 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-2m",
     QCOW2,
     .create = "cluster_size=2M",
     .size = 8 * MiB,
     .granule = 2 * MiB,
     .profile = &big},
    {.name = "qcow2-refcount-1",
     QCOW2,
     .create = "cluster_size=4k,refcount_bits=1",
     .size = 2 * MiB,
     .profile = &small},
    {.name = "qcow2-refcount-64",
     QCOW2,
     .create = "cluster_size=512,refcount_bits=64",
     .size = 512 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-over-raw",
     QCOW2,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .granule = 16 * KiB,
     .profile = &small},
    {.name = "qcow2-v2-over-qcow2",
     QCOW2,
     .create = "backing_file=base.img,backing_fmt=qcow2,compat=0.10",
     .backing = &base_qcow2,
     .size = 3 * MiB,
     .granule = 64 * KiB,
     .profile = &middle,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "qcow2-packed", QCOW2, .size = 4 * MiB, .granule = 64 * KiB, .profile = &packing},
    {.name = "qcow2-packed-zstd-4k",
     QCOW2,
     .create = "cluster_size=4k,compression_type=zstd",
     .size = 1 * MiB,
     .profile = &packing_small},
    {.name = "qcow2-packed-over-raw",
     QCOW2,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=4k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .profile = &packing_small},
    {.name = "qcow2-tiny-cache",
     QCOW2,
     .create = "cluster_size=4k",
     .open = TINY,
     .size = 8 * MiB,
     .profile = &small},
    {.name = "qcow2-tiny-cache-512",
     QCOW2,
     .create = "cluster_size=512",
     .open = TINY,
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-resize",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 2 * MiB,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "qcow2-resize-512",
     QCOW2,
     .create = "cluster_size=512",
     .size = 256 * KiB,
     .granule = 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "qcow2-odd-size",
     QCOW2,
     .size = 1 * MiB + 1536,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "qcow2-two-workers",
     QCOW2,
     .create = "cluster_size=16k",
     .size = 2 * MiB,
     .workers = 2,
     .profile = &small},
    {.name = "qcow2-reuse",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 96 * KiB,
     .profile = &busy,
     .model_factor = 40,
     .ops = 100},
    {.name = "qcow2-on-a-device",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 2 * MiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 3000);
}

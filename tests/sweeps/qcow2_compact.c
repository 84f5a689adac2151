/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_compact.c - the proof over qcow2 files that lose their gaps: much is discarded, the file is
 * compacted between other operations, and every step of that is cut and failed. Snapshots and
 * bitmaps are compacted in qcow2_snapshot.c's and qcow2_bitmap.c's rows. */
#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 24, .fua = 2, .zeroes = 4, .unmap = 6, .discard = 14, .read = 6, .flush = 5, \
    .reopen = 1, .kill = 1, .compact = 5, .hot = 4

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 25, .max_bytes = 32 * KiB};
static const struct sweep_profile resizing = {ANY, .resize = 4, .max_bytes = 64 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 768 * KiB};

#define QCOW2 .format = "qcow2", .foreign = "qcow2"

static const struct sweep_subject rows[] = {
    {.name = "compact", QCOW2, .size = 4 * MiB, .granule = 64 * KiB, .profile = &middle},
    {.name = "compact-v2-4k",
     QCOW2,
     .create = "compat=0.10,cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    /* Refcount blocks and tables of many clusters come and go. */
    {.name = "compact-512",
     QCOW2,
     .create = "cluster_size=512,refcount_bits=64",
     .size = 512 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "compact-refcount-1",
     QCOW2,
     .create = "cluster_size=1k,refcount_bits=1",
     .size = 512 * KiB,
     .granule = 1 * KiB,
     .profile = &small},
    {.name = "compact-packed",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &packing},
    {.name = "compact-over-raw",
     QCOW2,
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=4k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .profile = &packing},
    {.name = "compact-extended",
     QCOW2,
     .create = "cluster_size=16k,extended_l2=on",
     .size = 2 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "compact-data-file",
     QCOW2,
     .create = "data_file=data.img,cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "compact-resize",
     QCOW2,
     .create = "cluster_size=512",
     .size = 256 * KiB,
     .granule = 512,
     .profile = &resizing,
     .flags = SWEEP_SHRINK},
    {.name = "compact-tiny-cache",
     QCOW2,
     .create = "cluster_size=512",
     .open = "l2-cache-size=4k,refcount-cache-size=4k",
     .size = 1 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "compact-on-a-device",
     QCOW2,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 300, 1500);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qed.c - the proof over QED images, alone and over another image. */
#include <stdio.h>
#include <string.h>

#include "tests/sweep.h"

static const struct sweep_backing base_raw = {.format = "raw", .size = 1536 * KiB};
static const struct sweep_backing base_qcow2 = {.format = "qcow2", .size = 2 * MiB};

static const struct sweep_subject rows[] = {
    {.name = "qed-64k", .format = "qed", .size = 3 * MiB, .foreign = "qed"},
    {.name = "qed-4k",
     .format = "qed",
     .create = "cluster_size=4k,table_size=2",
     .size = 3 * MiB + 1536,
     .foreign = "qed"},
    {.name = "qed-over-raw",
     .format = "qed",
     .create = "backing_file=base.img,backing_fmt=raw,cluster_size=16k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "qed-over-qcow2",
     .format = "qed",
     .create = "backing_file=base.img,backing_fmt=qcow2,cluster_size=4k",
     .backing = &base_qcow2,
     .size = 3 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "qed-resize",
     .format = "qed",
     .create = "cluster_size=4k,table_size=2",
     .size = 3 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK,
     .foreign = "qed"},
    {.name = "qed-tiny-cache",
     .format = "qed",
     .create = "cluster_size=4k,table_size=2",
     .open = "cache-size=64k",
     .size = 8 * MiB},
    {.name = "qed-on-a-device", .format = "qed", .size = 2 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

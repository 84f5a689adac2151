/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - the proof over VMDK images, alone and over a parent. "-delta" is QEMU's lost data that
 * the guest never touched. */
#include <stdio.h>
#include <string.h>

#include "tests/sweep.h"

static const struct sweep_profile resizing = {.write = 30,
                                              .fua = 3,
                                              .zeroes = 4,
                                              .unmap = 4,
                                              .discard = 4,
                                              .read = 10,
                                              .flush = 5,
                                              .reopen = 1,
                                              .kill = 1,
                                              .resize = 3,
                                              .compact = 1,
                                              .hot = 2};
static const struct sweep_backing base = {.format = "vmdk", .size = 3 * MiB};
static const struct sweep_backing short_base = {.format = "vmdk", .size = 1536 * KiB};

static const struct sweep_subject rows[] = {
    {.name = "vmdk", .format = "vmdk", .size = 6 * MiB, .foreign = "vmdk"},
    {.name = "vmdk-zeroed",
     .format = "vmdk",
     .create = "zeroed_grain=on",
     .size = 6 * MiB + 1536,
     .foreign = "vmdk"},
    {.name = "vmdk-delta",
     .format = "vmdk",
     .create = "backing_file=base.img,backing_fmt=vmdk",
     .backing = &base,
     .size = 3 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vmdk-zeroed-delta",
     .format = "vmdk",
     .create = "backing_file=base.img,backing_fmt=vmdk,zeroed_grain=on",
     .backing = &short_base,
     .size = 4 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vmdk-resize",
     .format = "vmdk",
     .size = 6 * MiB,
     .profile = &resizing,
     .flags = SWEEP_SHRINK,
     .foreign = "vmdk"},
    {.name = "vmdk-on-a-device", .format = "vmdk", .size = 2 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

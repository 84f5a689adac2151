/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd.c - the proof over VHD images. The driver's check calls it a corruption when there is no
 * footer at the end of the file, so every crash state shows that there always is one. */
#include "tests/sweep.h"

static const struct sweep_backing base_raw = {.format = "raw", .size = 1536 * KiB};
static const struct sweep_backing base_vhd = {
    .format = "vpc", .create = "force_size=on,block_size=64k", .size = 2 * MiB};

static const struct sweep_subject rows[] = {
    {.name = "vhd-dynamic", .format = "vpc", .create = "force_size=on", .size = 6 * MiB},
    {.name = "vhd-small-blocks",
     .format = "vpc",
     .create = "force_size=on,block_size=16k",
     .size = 3 * MiB + 1536},
    {.name = "vhd-fixed",
     .format = "vpc",
     .create = "force_size=on,subformat=fixed",
     .size = 4 * MiB},
    {.name = "vhd-fixed-resize",
     .format = "vpc",
     .create = "force_size=on,subformat=fixed",
     .size = 4 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK},
    {.name = "vhd-resize",
     .format = "vpc",
     .create = "force_size=on,block_size=4k",
     .size = 3 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK},
    {.name = "vhd-over-raw",
     .format = "vpc",
     .create = "backing_file=base.img,backing_fmt=raw,force_size=on,block_size=16k",
     .backing = &base_raw,
     .size = 2 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vhd-over-vhd",
     .format = "vpc",
     .create = "backing_file=base.img,backing_fmt=vpc,force_size=on,block_size=64k",
     .backing = &base_vhd,
     .size = 3 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vhd-on-a-device",
     .format = "vpc",
     .create = "force_size=on,block_size=64k",
     .size = 2 * MiB,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

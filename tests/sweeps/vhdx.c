/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx.c - the proof over VHDX images. Every crash state of a writer has a log or not, and opens,
 * replayed, with all that was flushed. */
#include "tests/sweep.h"

static const struct sweep_backing base_raw = {.format = "raw", .size = 3 * MiB};
static const struct sweep_backing base_vhdx = {
    .format = "vhdx", .create = "block_size=1M", .size = 6 * MiB};

static const struct sweep_subject rows[] = {
    {.name = "vhdx-dynamic", .format = "vhdx", .create = "block_size=1M", .size = 8 * MiB},
    {.name = "vhdx-not-zero",
     .format = "vhdx",
     .create = "block_size=2M,block_state_zero=off,log_size=2M",
     .size = 9 * MiB + 512},
    {.name = "vhdx-sectors-of-4096",
     .format = "vhdx",
     .create = "block_size=1M,logical_sector_size=4096",
     .size = 8 * MiB},
    {.name = "vhdx-large-blocks", .format = "vhdx", .create = "block_size=256M", .size = 8 * MiB},
    {.name = "vhdx-fixed",
     .format = "vhdx",
     .create = "block_size=1M,subformat=fixed",
     .size = 4 * MiB},
    {.name = "vhdx-resize",
     .format = "vhdx",
     .create = "block_size=1M",
     .size = 6 * MiB,
     .profile = &sweep_resizing,
     .flags = SWEEP_SHRINK},
    {.name = "vhdx-over-raw",
     .format = "vhdx",
     .create = "backing_file=base.img,backing_fmt=raw,block_size=1M",
     .backing = &base_raw,
     .size = 6 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "vhdx-over-vhdx",
     .format = "vhdx",
     .create = "backing_file=base.img,backing_fmt=vhdx,block_size=1M",
     .backing = &base_vhdx,
     .size = 8 * MiB,
     .flags = SWEEP_DISCARD_ANY},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raw.c - the proof over raw images: plain, with two workers, resized, of odd size. */
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
                                              .resize = 3};

static const struct sweep_subject rows[] = {
    {.name = "raw", .format = "raw", .size = 2 * MiB},
    {.name = "raw-two-workers", .format = "raw", .size = 2 * MiB, .workers = 2},
    {.name = "raw-resize",
     .format = "raw",
     .size = 1 * MiB,
     .profile = &resizing,
     .flags = SWEEP_SHRINK | SWEEP_SIZE_OF_FILE},
    {.name = "raw-odd-size", .format = "raw", .size = 1 * MiB + 1536, .granule = 512},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 400, 2000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - the proof over VDI images, dynamic and static. */
#include <stdio.h>
#include <string.h>

#include "tests/sweep.h"

static const struct sweep_profile big = {.write = 30,
                                         .fua = 3,
                                         .zeroes = 5,
                                         .unmap = 4,
                                         .discard = 5,
                                         .read = 10,
                                         .flush = 6,
                                         .reopen = 1,
                                         .kill = 1,
                                         .max_bytes = 1280 * KiB,
                                         .hot = 4};
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
                                              .hot = 2};

/* A count in the header above the map's is a leak to us; qemu-img calls it a corruption. */
static bool count_only(const char *output)
{
    unsigned map, header;
    const char *at = strstr(output, "allocated blocks mismatch, is ");
    return at && sscanf(at, "allocated blocks mismatch, is %u, should be %u", &map, &header) == 2 &&
           map < header && strstr(output, "\n1 errors were found") != NULL;
}

static const struct sweep_subject rows[] = {
    {.name = "vdi-dynamic",
     .format = "vdi",
     .size = 6 * MiB,
     .foreign = "vdi",
     .foreign_ok = count_only},
    {.name = "vdi-dynamic-big-requests",
     .format = "vdi",
     .size = 8 * MiB,
     .granule = 1 * MiB,
     .profile = &big,
     .foreign = "vdi",
     .foreign_ok = count_only},
    {.name = "vdi-static",
     .format = "vdi",
     .create = "static=on",
     .size = 4 * MiB,
     .foreign = "vdi",
     .foreign_ok = count_only},
    {.name = "vdi-odd-size",
     .format = "vdi",
     .size = 3 * MiB + 1536,
     .foreign = "vdi",
     .foreign_ok = count_only},
    {.name = "vdi-resize",
     .format = "vdi",
     .size = 3 * MiB,
     .profile = &resizing,
     .foreign = "vdi",
     .foreign_ok = count_only},
    {.name = "vdi-two-workers", .format = "vdi", .size = 4 * MiB, .workers = 2},
    {.name = "vdi-on-a-device", .format = "vdi", .size = 4 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 2400);
}

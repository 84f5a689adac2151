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
                                              .compact = 1,
                                              .hot = 2};

/* One of the errors that qemu-img sees in what a crash leaves is none: a count in the header above
 * the map's is a leak to us, put right when the image is next opened for writing. */
static bool only_harmless(const char *output)
{
    unsigned map, header, errors = 0, harmless = 0;
    for (const char *at = output; at && *at; at = strchr(at, '\n'), at += at ? 1 : 0) {
        harmless += sscanf(at, "ERROR: allocated blocks mismatch, is %u, should be %u", &map,
                           &header) == 2 &&
                    map < header;
        (void)sscanf(at, "%u errors were found", &errors);
    }
    return errors > 0 && harmless == errors;
}

static const struct sweep_subject rows[] = {
    {.name = "vdi-dynamic",
     .format = "vdi",
     .size = 6 * MiB,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-dynamic-big-requests",
     .format = "vdi",
     .size = 8 * MiB,
     .granule = 1 * MiB,
     .profile = &big,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-static",
     .format = "vdi",
     .create = "static=on",
     .size = 4 * MiB,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-odd-size",
     .format = "vdi",
     .size = 3 * MiB + 1536,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-resize",
     .format = "vdi",
     .size = 3 * MiB,
     .profile = &resizing,
     .foreign = "vdi",
     .foreign_ok = only_harmless},
    {.name = "vdi-two-workers", .format = "vdi", .size = 4 * MiB, .workers = 2},
    {.name = "vdi-on-a-device", .format = "vdi", .size = 4 * MiB, .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 2400);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_reshape.c - the proof over 5 and 6 while they get a member more: the power goes at every
 * write of every step, with requests going on beside it, and members are lost at that moment. What
 * is left is opened, shows the same, and the reshape goes on to its end. */
#include "tests/lib/raid_disks.h"

#define DATA DISKS_DATA

/* Chunks of 4 KiB, and room for moving two of them at a time at first. */
static struct raid_disks steps5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                   .data_offset = 112 * KiB,
                                   .chunk = 4 * KiB,
                                   .lost = 1,
                                   .spares = 1,
                                   .grows = 1};
static struct raid_disks steps6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                                   .data_offset = 112 * KiB,
                                   .chunk = 4 * KiB,
                                   .lost = 2,
                                   .spares = 1,
                                   .grows = 1};
/* With a stripe log before and after it. */
static struct raid_disks logged5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                    .data_offset = 512 * KiB,
                                    .spares = 2,
                                    .grows = 2};
/* With a bitmap of writes, all of which is set while it lasts. */
static struct raid_disks noted5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                   .data_offset = 112 * KiB,
                                   .chunk = 4 * KiB,
                                   .lost = 1,
                                   .spares = 1,
                                   .grows = 1,
                                   .bitmap = true};
static struct raid_disks noted6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                                   .data_offset = 112 * KiB,
                                   .chunk = 4 * KiB,
                                   .lost = 2,
                                   .spares = 1,
                                   .grows = 1,
                                   .bitmap = true};

#define GROWING(a, bytes, how) DISKS_HOOKS(a, bytes, how), .flags = DISKS_FLAGS | SWEEP_FAULTS_ONCE

static const struct sweep_subject rows[] = {
    {.name = "raid5-grow", GROWING(steps5, 2 * DATA, disks_moving), .long_factor = 2},
    {.name = "raid6-grow", GROWING(steps6, 2 * DATA, disks_moving), .long_factor = 2},
    {.name = "raid5-grow-logged", GROWING(logged5, 2 * DATA, disks_moving), .long_factor = 2},
    {.name = "raid5-grow-bitmap", GROWING(noted5, 2 * DATA, disks_moving), .long_factor = 2},
    {.name = "raid6-grow-bitmap", GROWING(noted6, 2 * DATA, disks_moving), .long_factor = 2},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 120, 1500);
}

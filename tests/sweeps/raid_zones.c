/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_zones.c - the proof over linear and 0, whose members are not of the same size: every call
 * fails, the power goes at every write. */
#include "tests/lib/raid_disks.h"

#define SIZE (576 * KiB) /* 256, 192 and 128 */

static struct raid_disks linear = {
    {.level = RAID_LINEAR, .disks = 3}, .data_offset = 128 * KiB, .uneven = true};
static struct raid_disks striped = {
    {.level = 0, .layout = RAID0_ALTERNATE, .disks = 3}, .data_offset = 128 * KiB, .uneven = true};

static const struct sweep_subject rows[] = {
    {.name = "linear", DISKS_ROW(linear, SIZE, disks_mixed), .long_factor = 5},
    {.name = "raid0", DISKS_ROW(striped, SIZE, disks_mixed), .long_factor = 5},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 60, 2100);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_mirrors.c - the proof over 1 and 10: every call fails, the power goes at every write, and
 * members are lost at that moment, as many as the level can lose. In the rows
 * with spares a new member takes the place of each that was lost; where writes overlap, copies are
 * compared afterwards. */
#include "tests/lib/raid_disks.h"

#define HEAD (128 * KiB)
#define DATA DISKS_DATA

static struct raid_disks two = {{.level = 1, .disks = 2}, .data_offset = HEAD, .lost = 1};
static struct raid_disks three = {
    {.level = 1, .disks = 3}, .data_offset = HEAD, .lost = 2, .spares = 2};
static struct raid_disks two_spare = {
    {.level = 1, .disks = 2}, .data_offset = HEAD, .lost = 1, .spares = 1};
static struct raid_disks noted1 = {
    {.level = 1, .disks = 2}, .data_offset = HEAD, .lost = 1, .spares = 1, .bitmap = true};
static struct raid_disks near = {
    {.level = 10, .layout = 0x102, .disks = 4}, .data_offset = HEAD, .lost = 2};
static struct raid_disks near_odd = {
    {.level = 10, .layout = 0x102, .disks = 3}, .data_offset = HEAD, .lost = 1};
static struct raid_disks far_spare = {
    {.level = 10, .layout = 0x201, .disks = 4}, .data_offset = HEAD, .lost = 1, .spares = 1};
static struct raid_disks offset_spares = {
    {.level = 10, .layout = 0x10201, .disks = 4}, .data_offset = HEAD, .lost = 2, .spares = 2};

static const struct sweep_subject rows[] = {
    {.name = "raid1", DISKS_ROW(two, DATA, disks_mixed), .long_factor = 5},
    {.name = "raid1-spare", DISKS_ROW(two_spare, DATA, disks_mending), .long_factor = 5},
    {.name = "raid1-three-spares", DISKS_ROW(three, DATA, disks_mending), .long_factor = 5},
    {.name = "raid1-bitmap", DISKS_ROW(noted1, DATA, disks_mending), .long_factor = 5},
    {.name = "raid1-overlap", DISKS_ROW(two, DATA, disks_overlapping), .long_factor = 5},
    {.name = "raid10", DISKS_ROW(near, 2 * DATA, disks_mixed), .long_factor = 4},
    {.name = "raid10-odd", DISKS_ROW(near_odd, 384 * KiB, disks_mixed), .long_factor = 4},
    {.name = "raid10-far-spare", DISKS_ROW(far_spare, 2 * DATA, disks_mending), .long_factor = 4},
    {.name = "raid10-offset-spares",
     DISKS_ROW(offset_spares, 2 * DATA, disks_mending),
     .long_factor = 4},
    {.name = "raid10-overlap",
     DISKS_ROW(offset_spares, 2 * DATA, disks_overlapping),
     .long_factor = 4},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 250, 2500);
}

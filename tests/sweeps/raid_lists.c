/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_lists.c - the proof over members with lists of bad blocks. In some rows each member has a
 * fifth of its pages on its list, where it holds garbage: the power goes at every write of what is
 * listed, and of the lists. A member that fails beside those may take with it what is only there
 * (as with md, the array goes on without it), so faults are for lists that begin empty: there each
 * write that fails is listed. */
#include "tests/lib/raid_disks.h"

static struct raid_disks listed1 = {
    {.level = 1, .disks = 2, .lists = true}, .data_offset = 128 * KiB, .listed = true};
static struct raid_disks listed5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .lists = true},
    .data_offset = 512 * KiB,
    .listed = true};
static struct raid_disks listed6 = {
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4, .lists = true},
    .data_offset = 512 * KiB,
    .listed = true};
static struct raid_disks empty1 = {
    {.level = 1, .disks = 2, .lists = true}, .data_offset = 128 * KiB, .lost = 1};
static struct raid_disks empty5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .lists = true},
    .data_offset = 512 * KiB,
    .lost = 1};

#define LISTED_ROW(a, bytes) \
    DISKS_HOOKS(a, bytes, disks_mixed), .flags = DISKS_FLAGS | SWEEP_NO_FAULTS

static const struct sweep_subject rows[] = {
    {.name = "raid1-bad-blocks", LISTED_ROW(listed1, DISKS_DATA)},
    {.name = "raid5-bad-blocks", LISTED_ROW(listed5, 2 * DISKS_DATA)},
    {.name = "raid6-bad-blocks", LISTED_ROW(listed6, 2 * DISKS_DATA)},
    {.name = "raid1-lists", DISKS_ROW(empty1, DISKS_DATA, disks_mixed)},
    {.name = "raid5-lists", DISKS_ROW(empty5, 2 * DISKS_DATA, disks_mixed)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 100, 1500);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_journal.c - the proof over levels 4, 5 and 6 with md's journal: as raid_rows.c. The journals
 * are small, so that they go round often. */
#include "tests/lib/raid_disks.h"

#define HEAD (32 * KiB)
#define DATA DISKS_DATA

static struct raid_disks four = {
    {.level = 4, .disks = 3, .journal = true}, .data_offset = HEAD, .lost = 1};
static struct raid_disks five = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .journal = true},
    .data_offset = HEAD,
    .lost = 1};
static struct raid_disks six = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4, .journal = true},
                                .data_offset = HEAD,
                                .lost = 2};
static struct raid_disks spare = {
    {.level = 5, .layout = RIGHT_ASYMMETRIC, .disks = 3, .journal = true, .lists = true},
    .data_offset = HEAD,
    .lost = 1,
    .spares = 1};

static const struct sweep_subject rows[] = {
    {.name = "raid4-journal", DISKS_ROW(four, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal", DISKS_ROW(five, 2 * DATA, disks_overlapping)},
    {.name = "raid6-journal", DISKS_ROW(six, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal-spare", DISKS_ROW(spare, 2 * DATA, disks_mending)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 80, 1200);
}

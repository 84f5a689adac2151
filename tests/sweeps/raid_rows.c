/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rows.c - the proof over 4, 5 and 6: every call fails; the power goes at every write, and as
 * many members as the level can lose are lost at that moment, so that the write hole would show. In
 * the rows with spares resync and recovery go on beside the workload, and a new member takes the
 * place of each that was lost; where writes overlap, parity is compared afterwards. */
#include "tests/lib/raid_disks.h"

#define HEAD  (512 * KiB)
#define TIGHT (128 * KiB) /* the log is full all the time */
#define DATA  DISKS_DATA

static struct raid_disks level4 = {{.level = 4, .disks = 3}, .data_offset = HEAD, .lost = 1};
static struct raid_disks spare4 = {
    {.level = 4, .disks = 4}, .data_offset = TIGHT, .lost = 1, .spares = 1};
static struct raid_disks level5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3}, .data_offset = HEAD, .lost = 1};
static struct raid_disks tight5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4}, .data_offset = TIGHT, .lost = 1};
static struct raid_disks spare5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                   .data_offset = HEAD,
                                   .lost = 1,
                                   .spares = 1};
/* Without room for a log, so that nobody may be lost, nor fail before a crash: the bitmap says what
 * to resync. */
static struct raid_disks noted5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3}, .data_offset = TIGHT, .bitmap = true};
static struct raid_disks noted_spare5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                         .data_offset = HEAD,
                                         .bitmap = true,
                                         .lost = 1,
                                         .spares = 1};
static struct raid_disks level6 = {
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4}, .data_offset = HEAD, .lost = 2};
static struct raid_disks turned6 = {
    {.level = 6, .layout = DDF_N_CONTINUE, .disks = 5}, .data_offset = TIGHT, .lost = 2};
static struct raid_disks spares6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                                    .data_offset = HEAD,
                                    .lost = 2,
                                    .spares = 2};
/* Of short chunks a write covers whole rows, several of them, and parts of others. Where nobody is
 * lost each sector is old or new; else the log promises that only of what was flushed, and of what
 * nobody was writing to. */
static struct raid_disks short5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4},
                                   .chunk = 4 * KiB,
                                   .data_offset = HEAD,
                                   .lost = 1};
static struct raid_disks kept5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4}, .chunk = 4 * KiB, .data_offset = HEAD};
static struct raid_disks short6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                                   .chunk = 4 * KiB,
                                   .data_offset = TIGHT,
                                   .lost = 2};

#define NOTED(a, bytes, how) DISKS_HOOKS(a, bytes, how), .flags = DISKS_FLAGS | SWEEP_NO_FAULTS
#define RUNS_ROW(a, bytes, how) \
    DISKS_HOOKS(a, bytes, how), .flags = DISKS_FLAGS | SWEEP_UNFLUSHED_ANY

static const struct sweep_subject rows[] = {
    {.name = "raid4", DISKS_ROW(level4, 2 * DATA, disks_mixed), .long_factor = 7},
    {.name = "raid4-spare", DISKS_ROW(spare4, 3 * DATA, disks_mending), .long_factor = 7},
    {.name = "raid5", DISKS_ROW(level5, 2 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid5-small-log", DISKS_ROW(tight5, 3 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid5-spare", DISKS_ROW(spare5, 2 * DATA, disks_mending), .long_factor = 3},
    {.name = "raid5-bitmap", NOTED(noted5, 2 * DATA, disks_mending), .long_factor = 3},
    {.name = "raid5-bitmap-spare", DISKS_ROW(noted_spare5, 2 * DATA, disks_mending)},
    {.name = "raid5-overlap", DISKS_ROW(level5, 2 * DATA, disks_overlapping), .long_factor = 3},
    {.name = "raid6", DISKS_ROW(level6, 2 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid6-turned-small-log", DISKS_ROW(turned6, 3 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid6-spares", DISKS_ROW(spares6, 2 * DATA, disks_mending), .long_factor = 3},
    {.name = "raid6-overlap", DISKS_ROW(level6, 2 * DATA, disks_overlapping), .long_factor = 3},
    {.name = "raid5-runs", RUNS_ROW(short5, 3 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid5-runs-kept", DISKS_ROW(kept5, 3 * DATA, disks_overlapping)},
    {.name = "raid6-runs", RUNS_ROW(short6, 2 * DATA, disks_mixed), .long_factor = 3},
    {.name = "raid6-runs-overlap", RUNS_ROW(short6, 2 * DATA, disks_overlapping)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 250, 5000);
}

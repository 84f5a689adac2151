/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_raid.c - the proof over arrays of LVM2: dm-raid's superblocks and its bitmap, in which bits
 * must be set before what they speak of is written. Resync goes on beside the workload. Levels with
 * parity lose as many images as they can in a crash, so that the write hole would show; without
 * room for a stripe log nobody may be lost, nor fail before a crash. */
#include "tests/lib/raid_disks.h"

#define HEAD  (512 * KiB)
#define TIGHT (128 * KiB)
#define DATA  DISKS_DATA

static struct raid_disks level1 = {
    {.level = 1, .disks = 2, .dm_layout = "0"}, .data_offset = TIGHT, .lost = 1};
static struct raid_disks near10 = {{.level = 10, .layout = 0x102, .disks = 4, .dm_layout = "n2"},
                                   .data_offset = TIGHT};
#define LEVEL5                                                                          \
    {                                                                                   \
        .level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .dm_layout = "left-symmetric" \
    }
static struct raid_disks level5 = {LEVEL5, .data_offset = HEAD, .lost = 1};
static struct raid_disks tight5 = {LEVEL5, .data_offset = TIGHT};
static struct raid_disks level6 = {
    {.level = 6, .layout = DDF_N_CONTINUE, .disks = 4, .dm_layout = "ddf-N-continue"},
    .data_offset = HEAD,
    .lost = 2};

#define CRASHES(a) DISKS_HOOKS(a, 2 * DATA, disks_mending), .flags = DISKS_FLAGS | SWEEP_NO_FAULTS

static const struct sweep_subject rows[] = {
    {.name = "lvm-raid1", DISKS_ROW(level1, DATA, disks_mixed)},
    {.name = "lvm-raid10", DISKS_ROW(near10, 2 * DATA, disks_mending)},
    {.name = "lvm-raid5", DISKS_ROW(level5, 2 * DATA, disks_mending)},
    {.name = "lvm-raid5-no-log", CRASHES(tight5)},
    {.name = "lvm-raid6", DISKS_ROW(level6, 2 * DATA, disks_mending)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 60, 1200);
}

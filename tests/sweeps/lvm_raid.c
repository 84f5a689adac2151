/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_raid.c - the proof over arrays of LVM2: dm-raid's superblocks and its bitmap, in which bits
 * must be set before what they speak of is written. Resync goes on beside the workload. Without the
 * stripe log an array with parity that lost a member and then went down does not start, so there is
 * only the crash of whole ones. */
#include "tests/lib/raid_disks.h"

#define HEAD (128 * KiB)
#define DATA DISKS_DATA

static struct raid_disks level1 = {
    {.level = 1, .disks = 2}, .data_offset = HEAD, .lost = 1, .dm_layout = "0"};
static struct raid_disks near10 = {
    {.level = 10, .layout = 0x102, .disks = 4}, .data_offset = HEAD, .dm_layout = "n2"};
static struct raid_disks level5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                   .data_offset = HEAD,
                                   .dm_layout = "left-symmetric"};
static struct raid_disks level6 = {{.level = 6, .layout = DDF_N_CONTINUE, .disks = 4},
                                   .data_offset = HEAD,
                                   .dm_layout = "ddf-N-continue"};

#define CRASHES(a) DISKS_HOOKS(a, 2 * DATA, disks_mending), .flags = DISKS_FLAGS | SWEEP_NO_FAULTS

static const struct sweep_subject rows[] = {
    {.name = "lvm-raid1", DISKS_ROW(level1, DATA, disks_mixed)},
    {.name = "lvm-raid10", DISKS_ROW(near10, 2 * DATA, disks_mending)},
    {.name = "lvm-raid5", CRASHES(level5)},
    {.name = "lvm-raid6", CRASHES(level6)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 60, 1200);
}

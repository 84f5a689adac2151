/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_ppl.c - the proof over level 5 with a partial parity log: as raid_rows.c. A request is
 * smaller than a chunk, so that a strip changes one member's data and its parity: of what is being
 * written to several the log promises nothing if one of them is lost. */
#include "tests/lib/raid_disks.h"

#define HEAD (512 * KiB)
#define DATA DISKS_DATA

static struct raid_disks small = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .ppl = true},
                                  .data_offset = HEAD,
                                  .lost = 1};
static struct raid_disks listed = {
    {.level = 5, .layout = RIGHT_ASYMMETRIC, .disks = 4, .ppl = true, .lists = true},
    .data_offset = HEAD,
    .lost = 1};
static struct raid_disks spare = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .ppl = true},
                                  .data_offset = HEAD,
                                  .lost = 1,
                                  .spares = 1};

static const struct sweep_subject rows[] = {
    {.name = "raid5-ppl", DISKS_ROW(small, 2 * DATA, disks_mixed)},
    {.name = "raid5-ppl-lists", DISKS_ROW(listed, 3 * DATA, disks_mixed)},
    {.name = "raid5-ppl-spare", DISKS_ROW(spare, 2 * DATA, disks_mending)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 80, 1200);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_replace.c - the proof over hot replace: a spare is filled to take the place of member 1,
 * which serves until then, beside a workload; every call fails, the power goes at every write, and
 * members are lost at that moment, that one among them. */
#include "raid/array.h"
#include "tests/lib/raid_disks.h"

#define DATA DISKS_DATA

/* As soon as all is in sync, and the spare is one. */
static int co_begin(struct blk_device *dev, struct blk_error *e)
{
    const struct raid_array *a = dev->state;
    struct blk_member_change c = {.action = BLK_MEMBER_REPLACE, .name = "1"};
    bool spare = false, whole = !a->was_dirty;
    for (unsigned i = 0; i < a->member_count; i++)
        spare |= a->members[i].state == MEMBER_SPARE;
    for (unsigned role = 0; role < a->shape.disks; role++)
        whole &= a->by_role[role] && a->by_role[role]->state == MEMBER_IN_SYNC;
    int rc = spare && whole ? co_blk_member(dev, &c, e) : 0;
    return rc == -EBUSY ? 0 : rc; /* another step came first */
}

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    TRY(co_begin(dev, e));
    return co_disks_step(run, dev, e);
}

static struct raid_disks two = {
    {.level = 1, .disks = 2}, .data_offset = 128 * KiB, .lost = 1, .spares = 1};
static struct raid_disks near = {
    {.level = 10, .layout = 0x102, .disks = 4}, .data_offset = 128 * KiB, .lost = 1, .spares = 1};
static struct raid_disks rows5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                  .data_offset = 512 * KiB,
                                  .lost = 1,
                                  .spares = 1};
static struct raid_disks rows6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                                  .data_offset = 512 * KiB,
                                  .lost = 2,
                                  .spares = 1};

#define ROW(a, bytes)                                                                 \
    .format = "md", .size = (bytes), .arg = &(a), .profile = &disks_mending,          \
    .co_create = co_disks_make, .co_open = co_disks_open, .co_check = co_disks_check, \
    .co_step = co_step, .flags = DISKS_FLAGS

static const struct sweep_subject subjects[] = {
    {.name = "raid1-replace", ROW(two, DATA)},
    {.name = "raid10-replace", ROW(near, 2 * DATA)},
    {.name = "raid5-replace", ROW(rows5, 2 * DATA)},
    {.name = "raid6-replace", ROW(rows6, 2 * DATA)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, subjects, 120, 4000);
}

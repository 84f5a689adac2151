/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_back.c - the proof over members that come back: member 1 is pulled, requests go on without
 * it, and it is added again, so that only what the bitmap says is copied; sometimes it is pulled
 * again before it has all of that. Every call fails, the power goes at every write. What is left is
 * opened, shows the same, and once it has all its members again they agree. */
#include "raid/array.h"
#include "tests/lib/raid_disks.h"

#define DATA DISKS_DATA

static struct raid_disks two = {{.level = 1, .disks = 2}, .data_offset = 64 * KiB, .bitmap = true};
static struct raid_disks near = {
    {.level = 10, .layout = 0x102, .disks = 4}, .data_offset = 64 * KiB, .bitmap = true};
static struct raid_disks rows4 = {
    {.level = 4, .disks = 3}, .data_offset = 512 * KiB, .bitmap = true};
static struct raid_disks rows5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3}, .data_offset = 512 * KiB, .bitmap = true};
static struct raid_disks rows6 = {
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4}, .data_offset = 512 * KiB, .bitmap = true};

static struct raid_member *find(struct raid_array *a, enum raid_member_state state)
{
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].dev && a->members[i].state == state)
            return &a->members[i];
    return NULL;
}

/* Neither there nor on its way. */
static bool is_gone(struct raid_array *a)
{
    return find(a, MEMBER_OUT) || (!a->by_role[1] && !find(a, MEMBER_SPARE));
}

/* By the bitmap, but where that does not say enough any more: as a spare, then. */
static int co_bring_back(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct blk_member_change c = {.action = BLK_MEMBER_ADD};
    TRY(co_disks_member(run, 1, &c.device, e));
    return co_blk_member(dev, &c, e);
}

/* One step on its way; every fourth time that it is being filled it is pulled again. */
static int co_back(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct raid_array *a = dev->state;
    struct raid_member *one = a->by_role[1], *out = find(a, MEMBER_OUT);
    if (out)
        return co_blk_member(
            dev, &(struct blk_member_change){.action = BLK_MEMBER_REMOVE, .name = member_name(out)},
            e);
    if (is_gone(a))
        return co_bring_back(run, dev, e);
    if (one && (one->state == MEMBER_IN_SYNC || a->super->events % 4 == 0))
        return co_blk_member(
            dev, &(struct blk_member_change){.action = BLK_MEMBER_FAIL, .name = "1"}, e);
    return 0;
}

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct raid_disks *d = run->subject->arg;
    if (d->syncing)
        return 0;
    d->syncing = true;
    int rc = co_back(run, blk_find_redundant(dev), e);
    d->syncing = false;
    return rc < 0 ? rc : co_disks_step(run, dev, e);
}

/* First it comes back. */
static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    struct blk_device *md = blk_find_redundant(dev);
    struct raid_array *a = md->state;
    while (is_gone(a))
        TRY(co_back(run, md, e));
    return co_disks_check(run, dev, bad, e);
}

#define ROW(a, bytes)                                                           \
    .format = "md", .size = (bytes), .arg = &(a), .profile = &disks_mending,    \
    .co_create = co_disks_make, .co_open = co_disks_open, .co_check = co_check, \
    .co_step = co_step, .flags = DISKS_FLAGS

static const struct sweep_subject subjects[] = {
    {.name = "raid1-back", ROW(two, DATA)},       {.name = "raid10-back", ROW(near, 2 * DATA)},
    {.name = "raid4-back", ROW(rows4, 2 * DATA)}, {.name = "raid5-back", ROW(rows5, 2 * DATA)},
    {.name = "raid6-back", ROW(rows6, 2 * DATA)}, {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, subjects, 60, 2000);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rows.c - the proof over levels with redundancy: a crash at any write, after which as many
 * members are gone as the level can lose, and every call that can fail. In the rows that are called
 * after it, resync and recovery go on beside the workload, a new member takes the place of each
 * that was lost, and scrubs run.
 *
 * Which members are lost is drawn from what the others hold, and only where all were there and the
 * array is dirty, so that an array that is opened again has lost what it lost before. */
#include <stdio.h>

#include "block/crc32c.h"
#include "raid/array.h"
#include "tests/lib/raid_rig.h"
#include "tests/sweep.h"

#define DATA (256 * KiB)

struct array {
    struct rig shape;
    uint64_t data_offset;
    unsigned lost;   /* members, in a crash */
    unsigned spares; /* beside the disks of the shape */
    bool replaces;   /* the spare takes the place of member 1, which serves until then */
    bool syncing;    /* a step of resync or recovery is under way */
};

static void member_path(unsigned i, char path[32])
{
    snprintf(path, 32, "/sim/m%u.img", i);
}

static int co_open_member(struct sweep_run *run, unsigned i, unsigned flags,
                          struct blk_device **out, struct blk_error *e)
{
    char path[32];
    member_path(i, path);
    return co_resolver_open_file(&run->resolver, path, BLK_OPEN_WRITE, flags, out, e);
}

static int co_make_member(struct sweep_run *run, unsigned i, struct md_super *s,
                          struct blk_error *e)
{
    const struct array *a = run->subject->arg;
    struct blk_device *dev;
    rig_super(&a->shape, i, s);
    s->data_offset = a->data_offset;
    s->size = s->data_size = DATA;
    md_super_build(s);
    TRY(co_open_member(run, i, HOST_CREATE, &dev, e));
    int rc = co_blk_resize(dev, a->data_offset + DATA, false, e);
    if (rc == 0)
        rc = co_blk_write_buf(dev, s->super_offset, s->raw, MD_SUPER_BYTES, BLK_FUA);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

static int co_make_array(struct sweep_run *run, struct blk_error *e)
{
    const struct array *a = run->subject->arg;
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    for (unsigned i = 0; i < a->shape.disks + a->spares; i++)
        TRY(co_make_member(run, i, s, e));
    return 0;
}

/* --- who is lost -------------------------------------------------------------------------------
 */

struct look {
    uint32_t crc; /* of what lies before the data of all members */
    uint64_t events;
    bool dirty, even; /* even: no member is behind or knows of a faulty one */
};

static int co_look_at(struct sweep_run *run, unsigned i, struct look *k)
{
    const struct array *a = run->subject->arg;
    struct blk_device *dev;
    struct md_super *s = NULL;
    auto_free uint8_t *head = mem_aligned(a->data_offset);
    if (!head)
        return -ENOMEM;
    TRY(co_open_member(run, i, 0, &dev, NULL));
    int rc = co_member_find_super(dev, &s, NULL);
    if (rc == 0)
        rc = co_blk_read_buf(dev, 0, head, a->data_offset);
    if (rc == 0) {
        k->crc = crc32c(k->crc, head, a->data_offset);
        k->dirty |= s->resync_offset != UINT64_MAX;
        k->even &= k->events == 0 || MAX(k->events, s->events) - MIN(k->events, s->events) <= 1;
        for (unsigned n = 0; n < a->shape.disks; n++)
            k->even &= s->roles[n] == n;
        k->events = s->events;
    }
    mem_free(s);
    int closed = co_blk_close(dev, NULL);
    return rc < 0 ? rc : closed;
}

/* Bits of members that are not there. */
static unsigned lose(const struct array *a, const struct look *k)
{
    unsigned lost = 0, draw = k->crc;
    if (!k->dirty || !k->even)
        return 0;
    for (unsigned n = 0; n < a->lost; n++, draw /= a->shape.disks + 1) {
        unsigned i = draw % (a->shape.disks + 1); /* the last: nobody */
        lost |= i < a->shape.disks ? 1u << i : 0;
    }
    return lost;
}

static int co_open_array(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct array *a = run->subject->arg;
    struct look k = {.even = true};
    char text[300] = "md:", path[32];
    for (unsigned i = 0; i < a->shape.disks; i++)
        TRY(co_look_at(run, i, &k));
    unsigned lost = lose(a, &k);
    a->syncing = false;
    for (unsigned i = 0; i < a->shape.disks + a->spares; i++) {
        member_path(i, path);
        if (!(lost >> i & 1))
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", text[3] ? "," : "",
                     path);
    }
    return co_resolver_open(&run->resolver, text, NULL, BLK_OPEN_WRITE, out, e);
}

/* As soon as all is in sync, and the spare is one. */
static int co_begin_replace(struct blk_device *dev, struct blk_error *e)
{
    const struct raid_array *a = dev->state;
    struct blk_member_change c = {.action = BLK_MEMBER_REPLACE, .name = "1"};
    bool spare = false, whole = !a->was_dirty;
    for (unsigned i = 0; i < a->member_count; i++)
        spare |= a->members[i].state == MEMBER_SPARE;
    for (unsigned role = 0; role < a->shape.disks; role++)
        whole &= a->by_role[role] && a->by_role[role]->state == MEMBER_IN_SYNC;
    return spare && whole ? co_blk_member(dev, &c, e) : 0;
}

/* A step of what is owed: a spare takes the place of a member that is lost, and is filled. */
static int co_keep_whole(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct array *a = run->subject->arg;
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    if (a->syncing)
        return 0;
    a->syncing = true;
    int rc = a->replaces ? co_begin_replace(dev, e) : 0;
    if (rc == 0)
        rc = co_blk_sync(dev, &s, e);
    if (rc == 0)
        rc = co_blk_sync_save(dev, e);
    a->syncing = false;
    return rc;
}

/* Copies and parity, where all members are there. */
static int co_scrub_array(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                          struct blk_error *e)
{
    (void)run;
    struct raid_array *a = dev->state;
    struct raid_scrub found = {0};
    int rc = a->was_dirty ? 0 : a->engine->co_scrub(a, 0, array_sync_bytes(a), false, &found);
    *bad = found.mismatches;
    return rc < 0 ? err_errno(e, rc, "comparing members") : 0;
}

static const struct sweep_profile mix = {.write = 26,
                                         .fua = 4,
                                         .zeroes = 4,
                                         .unmap = 4,
                                         .discard = 2,
                                         .read = 6,
                                         .flush = 5,
                                         .reopen = 3,
                                         .kill = 2,
                                         .hot = 6,
                                         .max_bytes = 24 * KiB};

static const struct sweep_profile mending = {.write = 26,
                                             .fua = 4,
                                             .zeroes = 3,
                                             .read = 8,
                                             .flush = 5,
                                             .reopen = 3,
                                             .kill = 3,
                                             .hook = 12,
                                             .hot = 6,
                                             .max_bytes = 24 * KiB};

static struct array level1 = {{.level = 1, .disks = 2}, .data_offset = 128 * KiB, .lost = 1};
static struct array near10 = {
    {.level = 10, .layout = 0x102, .disks = 4}, .data_offset = 128 * KiB, .lost = 1};
static struct array level4 = {{.level = 4, .disks = 3}, .data_offset = 512 * KiB, .lost = 1};
static struct array level5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3}, .data_offset = 512 * KiB, .lost = 1};
static struct array tight5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4}, .data_offset = 128 * KiB, .lost = 1};
static struct array level6 = {
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4}, .data_offset = 512 * KiB, .lost = 2};
static struct array turned6 = {
    {.level = 6, .layout = DDF_N_CONTINUE, .disks = 5}, .data_offset = 128 * KiB, .lost = 2};

static struct array mend1 = {
    {.level = 1, .disks = 2}, .data_offset = 128 * KiB, .lost = 1, .spares = 1};
static struct array mend10 = {
    {.level = 10, .layout = 0x201, .disks = 4}, .data_offset = 128 * KiB, .lost = 1, .spares = 1};
static struct array mend5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                             .data_offset = 512 * KiB,
                             .lost = 1,
                             .spares = 1};

static struct array mend6 = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4},
                             .data_offset = 512 * KiB,
                             .lost = 2,
                             .spares = 2};
static struct array replace1 = {
    {.level = 1, .disks = 2}, .data_offset = 128 * KiB, .lost = 1, .spares = 1, .replaces = true};
static struct array replace5 = {{.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3},
                                .data_offset = 512 * KiB,
                                .lost = 1,
                                .spares = 1,
                                .replaces = true};
#define ROW(a, data_disks)                                                            \
    .format = "md", .size = (data_disks)*DATA, .arg = &(a), .profile = &mix,          \
    .co_create = co_make_array, .co_open = co_open_array, .co_check = co_scrub_array, \
    .flags = SWEEP_DISCARD_ANY | SWEEP_FSYNCS_ONCE

#define MENDING(a, data_disks)                                                        \
    .format = "md", .size = (data_disks)*DATA, .arg = &(a), .profile = &mending,      \
    .co_create = co_make_array, .co_open = co_open_array, .co_check = co_scrub_array, \
    .co_step = co_keep_whole, .flags = SWEEP_DISCARD_ANY | SWEEP_FSYNCS_ONCE

static const struct sweep_subject rows[] = {
    {.name = "raid1", ROW(level1, 1)},
    {.name = "raid10", ROW(near10, 2)},
    {.name = "raid1-spare", MENDING(mend1, 1)},
    {.name = "raid10-far-spare", MENDING(mend10, 2)},
    {.name = "raid5-spare", MENDING(mend5, 2)},
    {.name = "raid1-replace", MENDING(replace1, 1)},
    {.name = "raid5-replace", MENDING(replace5, 2)},
    {.name = "raid4", ROW(level4, 2)},
    {.name = "raid5", ROW(level5, 2)},
    {.name = "raid5-small-log", ROW(tight5, 3)},
    {.name = "raid6", ROW(level6, 2)},
    {.name = "raid6-turned-small-log", ROW(turned6, 3)},
    {.name = "raid6-spares", MENDING(mend6, 2)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 250, 5000);
}

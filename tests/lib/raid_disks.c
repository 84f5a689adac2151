/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_disks.c - see raid_disks.h. */
#include "tests/lib/raid_disks.h"

#include <stdio.h>

#include "block/crc32c.h"

const struct sweep_profile disks_mixed = {.write = 26,
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

const struct sweep_profile disks_mending = {.write = 26,
                                            .fua = 4,
                                            .zeroes = 3,
                                            .read = 8,
                                            .flush = 5,
                                            .reopen = 3,
                                            .kill = 3,
                                            .hook = 12,
                                            .hot = 6,
                                            .max_bytes = 24 * KiB};

const struct sweep_profile disks_moving = {.write = 8,
                                           .fua = 2,
                                           .zeroes = 2,
                                           .read = 6,
                                           .flush = 4,
                                           .reopen = 10,
                                           .hook = 50,
                                           .max_bytes = 24 * KiB};

const struct sweep_profile disks_overlapping = {.write = 40,
                                                .fua = 4,
                                                .zeroes = 10,
                                                .unmap = 6,
                                                .read = 6,
                                                .flush = 3,
                                                .reopen = 2,
                                                .hot = 14,
                                                .max_bytes = 96 * KiB};

/* --- made --------------------------------------------------------------------------------------
 */

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

int co_disks_member(struct sweep_run *run, unsigned i, struct blk_device **out, struct blk_error *e)
{
    return co_open_member(run, i, 0, out, e);
}

void disks_super(const struct raid_disks *a, unsigned i, struct md_super *s)
{
    rig_super(&a->shape, i, s);
    s->data_offset = a->data_offset;
    s->data_size = DISKS_DATA - (a->uneven ? i * RIG_CHUNK : 0);
    s->size = s->size ? s->data_size : 0;
    s->chunk = s->chunk && a->chunk ? a->chunk : s->chunk;
    s->features |= (a->listed ? MD_BAD_BLOCKS : 0) | (a->bitmap ? MD_BITMAP : 0);
    s->bitmap_offset = a->bitmap ? 4096 : 0;
    md_super_build(s);
}

/* Every fifth page of the data, by turns of the members, is bad: it holds garbage. */
static int co_list_bad(struct blk_device *dev, unsigned i, const struct md_super *s)
{
    uint8_t garbage[4096];
    auto_free le64 *page = mem_aligned(4096);
    unsigned count = 0;
    if (!page)
        return -ENOMEM;
    memset(page, 0xff, 4096);
    memset(garbage, 0xa5, sizeof(garbage));
    for (uint64_t at = s->data_offset + i * 4096; at < dev->size; at += 5 * 4096) {
        page[count++] = le64_of(at / 512 << 10 | 8);
        TRY(co_blk_write_buf(dev, at, garbage, sizeof(garbage), 0));
    }
    return co_blk_write_buf(dev, s->super_offset + (uint64_t)s->bad_offset, page, 4096, 0);
}

static int co_make_member(struct sweep_run *run, unsigned i, struct md_super *s,
                          struct blk_error *e)
{
    const struct raid_disks *a = run->subject->arg;
    struct blk_device *dev;
    disks_super(a, i, s);
    TRY(co_open_member(run, i, HOST_CREATE, &dev, e));
    int rc = co_blk_resize(dev, s->data_offset + s->data_size, false, e);
    if (rc == 0)
        rc = co_blk_write_buf(dev, s->super_offset, s->raw, MD_SUPER_BYTES, BLK_FUA);
    if (rc == 0 && a->listed)
        rc = co_list_bad(dev, i, s);
    if (rc == 0 && (a->shape.dm_layout || a->bitmap))
        rc = co_rig_bitmap(dev, s);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

int co_disks_make(struct sweep_run *run, struct blk_error *e)
{
    const struct raid_disks *a = run->subject->arg;
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    for (unsigned i = 0; i < a->shape.disks + a->shape.journal + a->spares; i++)
        TRY(co_make_member(run, i, s, e));
    return 0;
}

/* --- who is lost -------------------------------------------------------------------------------
 */

struct look {
    uint32_t crc; /* of what lies before the data of all members */
    uint64_t events;
    unsigned disks;
    bool dirty, reshaping;
    bool even; /* no member is behind, being filled, knows of a faulty one, or has bad blocks */
};

/* A spare may be one that was being filled: it says only whom it knows to be faulty. */
static void look_at_super(struct look *k, const struct md_super *s, bool spare)
{
    for (unsigned n = 0; n < s->disks; n++)
        k->even &= md_super_role(s, n) == n;
    if (spare)
        return;
    k->dirty |= s->resync_offset != UINT64_MAX;
    k->reshaping |= s->reshaping;
    k->even &= !(s->features & (MD_BAD_BLOCKS | MD_RECOVERY));
    k->even &= k->events == 0 || MAX(k->events, s->events) - MIN(k->events, s->events) <= 1;
    k->events = s->events;
    k->disks = MAX(k->disks, s->disks);
}

static int co_look_at(struct sweep_run *run, unsigned i, struct look *k)
{
    const struct raid_disks *a = run->subject->arg;
    struct blk_device *dev;
    struct md_super *s = NULL;
    auto_free uint8_t *head = mem_aligned(a->data_offset);
    if (!head)
        return -ENOMEM;
    TRY(co_disks_member(run, i, &dev, NULL));
    int rc = a->shape.dm_layout ? co_member_dm_super(dev, a->data_offset, &s, NULL)
                                : co_member_find_super(dev, &s, NULL);
    if (rc == 0)
        rc = co_blk_read_buf(dev, 0, head, a->data_offset);
    bool spare = i >= a->shape.disks + a->grows;
    k->even &= s || spare; /* none: it was about to be added anew */
    if (rc == 0 && s && !spare)
        k->crc = crc32c(k->crc, head, a->data_offset);
    if (rc == 0 && s)
        look_at_super(k, s, spare);
    mem_free(s);
    int closed = co_blk_close(dev, NULL);
    return rc < 0 ? rc : closed;
}

static bool may_lose(const struct sweep_run *run, const struct look *k)
{
    const struct raid_disks *a = run->subject->arg;
    if (a->shape.journal)
        return k->even && run->crashed;
    return k->even && (a->grows ? run->crashed && k->reshaping && !k->dirty : k->dirty);
}

/* Bits of members that are not there. */
static int lose(const struct sweep_run *run, const struct look *k, unsigned *lost)
{
    const struct raid_disks *a = run->subject->arg;
    struct raid_shape shape;
    struct raid_wanted w = {.level = a->shape.level,
                            .layout = a->shape.layout,
                            .disks = k->disks,
                            .chunk = a->shape.level == 1 ? 0 : RIG_CHUNK,
                            .used = DISKS_DATA};
    bool there[RIG_MOST];
    unsigned draw = k->crc;
    *lost = 0;
    if (!a->lost || !may_lose(run, k))
        return 0;
    TRY(raid_shape_init(&shape, &w, NULL));
    memset(there, true, sizeof(there));
    for (unsigned n = 0; n < a->lost; n++, draw /= k->disks + 1) {
        unsigned i = draw % (k->disks + 1); /* the last: nobody */
        if (i == k->disks || !there[i])
            continue;
        there[i] = false;
        there[i] = !raid_enough(&shape, there);
        *lost |= there[i] ? 0 : 1u << i;
    }
    raid_shape_drop(&shape);
    return 0;
}

/* What the text of LVM2 says of an array. */
static size_t add_dm_options(const struct raid_disks *a, char *text, size_t room)
{
    return (size_t)snprintf(text, room,
                            ",superblocks=dm-raid,data-offset=%" PRIu64 ",level=%d,layout=%s%s",
                            a->data_offset, a->shape.level, a->shape.dm_layout,
                            a->shape.level == 1 ? "" : ",chunk=64K");
}

/* Members in a spec; one that grows is cut off where it ended at first. */
static void spec_text(const struct sweep_run *run, unsigned lost, char *text, size_t room)
{
    const struct raid_disks *a = run->subject->arg;
    char path[32];
    size_t at = 0;
    if (a->grows)
        at = (size_t)snprintf(text, room,
                              "json:{\"driver\":\"slice\",\"size\":%" PRIu64 ",\"file\":\"",
                              run->subject->size);
    const char *between = "md:";
    for (unsigned i = 0; i < a->shape.disks + a->shape.journal + a->spares; i++) {
        member_path(i, path);
        if (lost >> i & 1)
            continue;
        at += (size_t)snprintf(text + at, room - at, "%s%s", between, path);
        between = ",";
    }
    if (a->shape.dm_layout)
        at += add_dm_options(a, text + at, room - at);
    snprintf(text + at, room - at, "%s", a->grows ? "\"}" : "");
}

int co_disks_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct raid_disks *a = run->subject->arg;
    struct look k = {.even = true, .disks = a->shape.disks};
    char text[300];
    unsigned lost;
    for (unsigned i = 0; i < a->shape.disks + MAX(a->grows, a->spares); i++)
        TRY(co_look_at(run, i, &k));
    TRY(lose(run, &k, &lost));
    a->syncing = false;
    spec_text(run, lost, text, sizeof(text));
    return co_resolver_open(&run->resolver, text, NULL, BLK_OPEN_WRITE, out, e);
}

/* --- kept whole --------------------------------------------------------------------------------
 */

static bool may_grow(const struct raid_disks *a, const struct raid_array *r)
{
    unsigned spares = 0;
    for (unsigned i = 0; i < r->member_count; i++)
        spares += r->members[i].state == MEMBER_SPARE;
    for (unsigned role = 0; role < r->shape.disks; role++)
        if (!r->by_role[role] || r->by_role[role]->state != MEMBER_IN_SYNC)
            return false;
    return a->grows && r->engine != &raid_reshape_engine && r->shape.disks == a->shape.disks &&
           !r->was_dirty && spares >= a->grows;
}

static int co_step(const struct raid_disks *a, struct blk_device *md, struct blk_sync *s,
                   struct blk_error *e)
{
    if (may_grow(a, md->state))
        return co_blk_members_grow(
            md, &(struct blk_members_grow){.disks = a->shape.disks + a->grows}, e);
    TRY(co_blk_sync(md, s, e));
    return co_blk_sync_save(md, e);
}

int co_disks_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct raid_disks *a = run->subject->arg;
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    if (a->syncing)
        return 0;
    a->syncing = true;
    int rc = co_step(a, blk_find_redundant(dev), &s, e);
    a->syncing = false;
    return rc;
}

/* --- judged ------------------------------------------------------------------------------------
 */

static int co_all(struct blk_device *md, struct blk_sync *s, struct blk_error *e)
{
    do
        TRY(co_blk_sync(md, s, e));
    while (s->doing);
    return co_blk_sync_save(md, e);
}

int co_disks_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                   struct blk_error *e)
{
    (void)run;
    struct blk_device *md = blk_find_redundant(dev);
    struct blk_sync owed = {.kind = BLK_SYNC_OWED}, check = {.kind = BLK_SYNC_CHECK};
    uint64_t before, after;
    TRY(co_sweep_hash(dev, &before));
    TRY(co_all(md, &owed, e));
    TRY(co_all(md, &check, e));
    TRY(co_sweep_hash(dev, &after));
    *bad = check.mismatches + (before != after);
    return 0;
}

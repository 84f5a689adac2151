/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_repair.c - the proof over arrays of LVM2 whose physical volumes come and go: at each opening
 * one may be lost that the array can do without, and another may be back. What is lost is repaired
 * or left for later, what is back is refreshed, its mark is taken off, and recovery goes on beside
 * a workload. Every call fails, the power goes at every write.
 *
 * A physical volume that is back, and on which nothing lies any more, has what it had, or garbage.
 * Who is lost is drawn anew at each opening, so after a crash a physical volume may be back that
 * the array went on without, before or after its image was given another place. */
#include <stdio.h>

#include "tests/lib/lvm_group.h"
#include "tests/lib/raid_disks.h"
#include "volumes/lvm_alloc.h"
#include "volumes/lvm_repair.h"

#define EXTENT   (64 * KiB)
#define PV_BYTES (4 * MiB)
#define SOILED   MiB
#define NOBODY   UINT_MAX

static struct raid_disks level1 = {{.level = 1, .disks = 2, .dm_layout = "0"},
                                   .data_offset = 128 * KiB};
static struct raid_disks level5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .dm_layout = "left-symmetric"},
    .data_offset = 512 * KiB};

static const struct lvm_repair told = {.lv = "lv", .why = "a test"};

/* --- made --------------------------------------------------------------------------------------
 */

/* One more than images. */
static unsigned pv_count(const struct sweep_run *run)
{
    const struct raid_disks *a = run->subject->arg;
    return a->shape.disks + 1;
}

static int co_open_pv(struct sweep_run *run, unsigned i, unsigned flags, struct blk_device **out,
                      struct blk_error *e)
{
    char path[32];
    snprintf(path, sizeof(path), "/sim/p%u.img", i);
    return co_resolver_open_file(&run->resolver, path, BLK_OPEN_WRITE, flags, out, e);
}

static int co_make_pv(struct sweep_run *run, unsigned i, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_open_pv(run, i, HOST_CREATE | HOST_TRUNCATE, &file, e));
    int rc = co_blk_resize(file, PV_BYTES, false, e);
    if (rc == 0)
        rc = co_lvm_pv_create(file, e);
    co_blk_close(file, NULL);
    return rc;
}

/* The group's container over all physical volumes but @lost. */
static int co_open_set(struct sweep_run *run, unsigned lost, bool write, struct blk_device **out,
                       struct blk_error *e)
{
    json_t *members = json_array();
    json_auto_t *tree = json_pack("{s:s, s:o}", "driver", "lvm", "members", members);
    for (unsigned i = 0; tree && i < pv_count(run); i++)
        if (i != lost)
            json_array_append_new(members, json_pack("{s:s, s:o}", "driver", "file", "filename",
                                                     json_sprintf("/sim/p%u.img", i)));
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    return co_resolver_open_tree(&run->resolver, tree,
                                 BLK_OPEN_FACTS | (write ? BLK_OPEN_WRITE : 0), out, e);
}

static int co_add_part(struct lvm_set *s, struct lvm_vg **vg, const char *name, struct lvm_pv *on,
                       uint64_t bytes, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    struct lvm_volume_new n = {.name = name, .uuid = uuid, .hidden = true};
    n.space =
        (struct lvm_wanted){.extents = bytes / EXTENT, .stripes = 1, .only = &on, .only_count = 1};
    lvm_uuid_new(s->dev->host, uuid);
    TRY(lvm_lv_create(*vg, &n, e));
    return co_lvm_commit(s, vg, "a test", e);
}

/* As Linux has left it: clean, all zeroes. */
static int co_put_super(struct lvm_set *s, struct lvm_vg *vg, const struct raid_disks *a,
                        unsigned i, struct blk_error *e)
{
    char name[32];
    struct blk_device *dev;
    auto_free struct md_super *super = mem_alloc(sizeof(*super));
    if (!super)
        return -ENOMEM;
    snprintf(name, sizeof(name), "lv_rmeta_%u", i);
    disks_super(a, i, super);
    TRY(co_lvm_open_planned(s, vg, name, &dev, e));
    int rc = co_blk_write_buf(dev, 0, super->raw, MD_SUPER_BYTES, 0);
    if (rc == 0)
        rc = co_rig_bitmap(dev, super);
    if (rc == 0)
        rc = co_blk_flush(dev);
    co_blk_close(dev, NULL);
    return rc;
}

static int co_add_image(struct lvm_set *s, struct lvm_vg **vg, const struct raid_disks *a,
                        unsigned i, struct blk_error *e)
{
    char name[32];
    snprintf(name, sizeof(name), "lv_rmeta_%u", i);
    TRY(co_add_part(s, vg, name, &(*vg)->pvs[i], a->data_offset, e));
    TRY(co_put_super(s, *vg, a, i, e));
    snprintf(name, sizeof(name), "lv_rimage_%u", i);
    return co_add_part(s, vg, name, &(*vg)->pvs[i], DISKS_DATA, e);
}

static int put_array(struct lvm_vg *vg, const struct raid_disks *a, const char *uuid,
                     uint64_t extents)
{
    struct lvm_text *t = &vg->text;
    char name[32];
    struct lvm_node *lv = lvm_put_lv(vg, &(struct lvm_volume_new){.name = "lv", .uuid = uuid});
    struct lvm_node *seg = lv ? lvm_put_segment(t, lv, 1, 0, extents) : NULL;
    if (!seg)
        return -ENOMEM;
    TRY(lvm_set_number(t, lv, "segment_count", 1));
    TRY(lvm_set_text(t, seg, "type", a->shape.level == 1 ? "raid1" : "raid5_ls"));
    TRY(lvm_set_number(t, seg, "device_count", a->shape.disks));
    if (a->shape.level != 1)
        TRY(lvm_set_number(t, seg, "stripe_size", RIG_CHUNK / LVM_SECTOR));
    struct lvm_node *list = lvm_add(t, seg, LVM_LIST, "raids");
    for (unsigned i = 0; list && i < 2 * a->shape.disks; i++) {
        snprintf(name, sizeof(name), "lv_%s_%u", i % 2 ? "rimage" : "rmeta", i / 2);
        TRY(lvm_list_add(t, list, name));
    }
    return list ? 0 : -ENOMEM;
}

static int co_fill_set(struct sweep_run *run, struct lvm_set *s, struct blk_error *e)
{
    const struct raid_disks *a = run->subject->arg;
    char uuid[LVM_UUID + 1];
    struct lvm_vg *vg;
    TRY(co_lvm_group_make(s, EXTENT, &vg, e));
    for (unsigned i = 0; i < a->shape.disks; i++)
        TRY(co_add_image(s, &vg, a, i, e));
    lvm_uuid_new(run->host, uuid);
    TRY(put_array(vg, a, uuid, run->subject->size / EXTENT));
    return co_lvm_commit(s, &vg, "a test", e);
}

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *dev;
    for (unsigned i = 0; i < pv_count(run); i++)
        TRY(co_make_pv(run, i, e));
    TRY(co_open_set(run, NOBODY, true, &dev, e));
    int rc = co_fill_set(run, lvm_set_of(dev), e);
    co_blk_close(dev, NULL);
    TRY(rc);
    return co_host_sync_dir(run->host, "/sim");
}

/* --- who is lost -------------------------------------------------------------------------------
 */

/* The array goes on without the image @i. */
static bool may_go(const struct raid_array *a, unsigned i)
{
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (role != i && (!a->by_role[role] || a->by_role[role]->state != MEMBER_IN_SYNC))
            return false;
    return true;
}

/* Both parts of an image lie on one physical volume, for there is room. */
static int draw_lost(struct lvm_set *s, const struct raid_array *a, unsigned *lost)
{
    const struct lvm_segment *seg = &lvm_find_lv(s->vgs[0], "lv")->segments[0];
    uint8_t draw;
    host_random(s->dev->host, &draw, 1);
    unsigned i = draw % (a->shape.disks + 2); /* the last two: nobody */
    if (i >= a->shape.disks || !may_go(a, i))
        return 0;
    const struct blk_device *dev = seg->areas[i].lv->segments[0].areas[0].pv->dev;
    for (unsigned m = 0; m < s->member_count; m++)
        if (s->members[m].dev == dev)
            *lost = m;
    return 0;
}

static int co_look(struct sweep_run *run, unsigned *lost, struct blk_error *e)
{
    struct blk_device *set, *dev;
    struct blk_error none = {0};
    *lost = NOBODY;
    TRY(co_open_set(run, NOBODY, false, &set, e));
    struct lvm_set *s = lvm_set_of(set);
    int rc = co_lvm_open_planned(s, s->vgs[0], "lv", &dev, &none);
    if (rc == 0) {
        rc = draw_lost(s, blk_find_redundant(dev)->state, lost);
        co_blk_close(dev, NULL);
    }
    co_blk_close(set, NULL);
    return rc == -ENOMEM ? err_set(e, rc, "out of memory") : 0;
}

/* --- opened ------------------------------------------------------------------------------------
 */

/* It was in use elsewhere meanwhile; or it still has what it had. */
static int co_soil(const struct lvm_vg *vg, const struct lvm_pv *pv, bool soil)
{
    auto_free uint8_t *garbage = mem_alloc(SOILED);
    if (!soil || lvm_free_extents(vg, pv) != pv->extents)
        return 0;
    if (!garbage)
        return -ENOMEM;
    memset(garbage, 0xa5, SOILED);
    return co_blk_write_buf(pv->dev, pv->start, garbage, SOILED, 0);
}

/* Marks of those that are here go. */
static int co_restore(struct lvm_set *s, struct lvm_vg **vg, bool soil, struct blk_error *e)
{
    struct lvm_vg *plan;
    bool any = false;
    TRY(lvm_vg_copy(*vg, &plan, e));
    int rc = 0;
    for (size_t i = 0; i < plan->pv_count && rc == 0; i++) {
        if (!plan->pvs[i].missing || !plan->pvs[i].dev)
            continue;
        any = true;
        rc = co_soil(plan, &plan->pvs[i], soil);
        if (rc == 0)
            rc = lvm_pv_set_missing(plan, &plan->pvs[i], false, e);
    }
    if (rc == 0 && any)
        rc = co_lvm_commit(s, &plan, "a test", e);
    if (rc < 0 || !any)
        lvm_vg_drop(plan);
    else
        *vg = plan;
    return rc;
}

/* The only room may be marked as missing, or an image that it takes. */
static bool is_refused(const struct lvm_set *s, int rc)
{
    return !s->unsure && (rc == -ENOSPC || rc == -EROFS || rc == -ENODEV);
}

/* All of it, a part, or nothing: who comes next goes on. */
static int co_mend(struct lvm_set *s, struct blk_error *e)
{
    struct lvm_vg *vg = s->vgs[0];
    unsigned count;
    uint8_t draw;
    host_random(s->dev->host, &draw, 1);
    s->partial = true;
    if (draw % 8 == 0)
        return 0;
    if (draw & 8)
        TRY(co_restore(s, &vg, draw & 16, e));
    int rc = co_lvm_images_replace(s, &vg, &told, &count, e);
    if (rc < 0 && !is_refused(s, rc))
        return rc;
    return draw % 8 == 1 ? 0 : co_lvm_images_take(s, &vg, &told, e);
}

static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct raid_disks *a = run->subject->arg;
    struct blk_device *set;
    unsigned lost;
    a->syncing = false;
    TRY(co_look(run, &lost, e));
    TRY(co_open_set(run, lost, true, &set, e));
    int rc = co_mend(lvm_set_of(set), e);
    if (rc < 0) {
        co_blk_close(set, NULL);
        return rc;
    }
    return co_lvm_volume_open(set, out, e);
}

/* Several, so that arrays are whole now and then, and another image may be lost. */
static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    for (unsigned n = 0; n < 8; n++)
        TRY(co_disks_step(run, dev, e));
    return 0;
}

/* After all that is owed is done only those images are missing that are lost. */
static int co_check_images(struct lvm_set *s, struct blk_device *dev, uint64_t *bad,
                           struct blk_error *e)
{
    const struct raid_array *a = blk_find_redundant(dev)->state;
    const struct lvm_vg *vg = s->vgs[0];
    const struct lvm_segment *seg = &lvm_find_lv(vg, "lv")->segments[0];
    for (unsigned i = 0; i < a->shape.disks; i++) {
        bool here = seg->areas[i].lv->segments[0].areas[0].pv->dev != NULL;
        bool whole = a->by_role[i] && a->by_role[i]->state == MEMBER_IN_SYNC;
        if (here && !whole)
            err_set(e, -EIO, "image %u is here and was not filled", i);
        *bad += here && !whole;
    }
    return 0;
}

/* One group, and of each physical volume that is here a text that can be read. Images that are back
 * or new are taken first. */
static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    const struct blk_member_change again = {.action = BLK_MEMBER_RE_ADD};
    struct lvm_set *s = lvm_set_of(blk_child(dev, "container"));
    TRY(co_blk_member(blk_find_redundant(dev), &again, e));
    TRY(co_disks_check(run, dev, bad, e));
    TRY(co_check_images(s, dev, bad, e));
    *bad += s->vg_count != 1;
    for (size_t i = 0; i < s->member_count; i++)
        *bad += !s->members[i].usable[0] || s->members[i].texts[0].bytes == 0;
    return 0;
}

static const struct sweep_profile coming = {.write = 20,
                                            .fua = 3,
                                            .zeroes = 3,
                                            .read = 8,
                                            .flush = 5,
                                            .reopen = 10,
                                            .kill = 5,
                                            .hook = 20,
                                            .hot = 6,
                                            .max_bytes = 24 * KiB};

#define ROW(a, bytes)                                                                          \
    .format = "raw", .size = (bytes), .arg = &(a), .profile = &coming, .co_create = co_create, \
    .co_open = co_open, .co_check = co_check, .co_step = co_step, .flags = DISKS_FLAGS

static const struct sweep_subject rows[] = {
    {.name = "lvm-repair-raid1", ROW(level1, DISKS_DATA)},
    {.name = "lvm-repair-raid5", ROW(level5, 2 * DISKS_DATA)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 60, 1000);
}

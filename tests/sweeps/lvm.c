/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - the proof over a volume whose group changes while it is used: volumes beside it are made,
 * grown, renamed and removed, in flight with reads and writes, and the power goes anywhere. In one
 * row these are thin volumes and snapshots.
 *
 * Two physical volumes, /sim/top.img and /sim/data.img. After any crash each of them must have a
 * whole text, the old one or the new one; the volume, which lies on both, shows what it must; and
 * once messages are settled a pool has the devices that the text names. */
#include <stdio.h>

#include "tests/sweep.h"
#include "volumes/lvm_pool.h"

#define EXTENT   (64 * KiB)
#define PV_BYTES (4 * MiB)

static const struct sweep_profile busy = {.write = 20,
                                          .fua = 3,
                                          .zeroes = 3,
                                          .discard = 2,
                                          .read = 8,
                                          .flush = 5,
                                          .reopen = 3,
                                          .kill = 1,
                                          .hook = 12,
                                          .max_bytes = 96 * KiB};

struct shape {
    unsigned stripes;
    bool thin; /* what changes is in a pool */
    struct co_mutex changing;
};
static struct shape linear = {.stripes = 1}, striped = {.stripes = 2},
                    thin = {.stripes = 1, .thin = true};

static const char *const files[] = {SWEEP_TOP, SWEEP_DATA};

/* --- the group ---------------------------------------------------------------------------------
 */

static int co_open_set(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    json_auto_t *tree =
        json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:s}]}", "driver", "lvm", "members", "driver", "file",
                  "filename", files[0], "driver", "file", "filename", files[1]);
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    return co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE | BLK_OPEN_FACTS, out, e);
}

static int co_make_pv(struct sweep_run *run, const char *name, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, name, BLK_OPEN_WRITE, HOST_CREATE | HOST_TRUNCATE,
                              &file, e));
    int rc = co_blk_resize(file, PV_BYTES, false, e);
    if (rc == 0)
        rc = co_lvm_pv_create(file, e);
    co_blk_close(file, NULL);
    return rc;
}

static int co_add_volume(struct lvm_set *s, struct lvm_vg **vg, const char *name, uint64_t extents,
                         unsigned stripes, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    struct lvm_volume_new n = {.name = name, .uuid = uuid};
    n.space = (struct lvm_wanted){.extents = extents, .stripes = stripes, .stripe_bytes = 8 * KiB};
    lvm_uuid_new(s->dev->host, uuid);
    TRY(lvm_lv_create(*vg, &n, e));
    return co_lvm_commit(s, vg, "a test", e);
}

static int co_add_pool(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e)
{
    char uuids[3][LVM_UUID + 1];
    struct lvm_vg *copy;
    struct lvm_pool_new n = {.name = "pool", .chunk_bytes = 64 * KiB};
    n.data = (struct lvm_wanted){.extents = 4, .stripes = 1};
    n.metadata = (struct lvm_wanted){.extents = 8, .stripes = 1};
    for (size_t i = 0; i < ARRAY_LEN(uuids); i++) {
        lvm_uuid_new(s->dev->host, uuids[i]);
        n.uuids[i] = uuids[i];
    }
    TRY(lvm_vg_copy(*vg, &copy, e));
    int rc = lvm_pool_create(&copy, &n, e);
    if (rc == 0)
        rc = co_lvm_pool_format(s, copy, "pool", e);
    if (rc == 0)
        rc = co_lvm_commit(s, &copy, "a test", e);
    if (rc < 0)
        lvm_vg_drop(copy);
    else
        *vg = copy;
    return rc;
}

static int co_fill_set(struct sweep_run *run, struct lvm_set *s, struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    char uuid[LVM_UUID + 1];
    struct lvm_vg *vg;
    lvm_uuid_new(run->host, uuid);
    TRY(lvm_vg_create("vg", uuid, EXTENT, &vg, e));
    int rc = 0;
    for (size_t i = 0; i < s->member_count && rc == 0; i++)
        rc = lvm_vg_add_member(vg, &s->members[i], e);
    if (rc == 0)
        rc = co_lvm_commit(s, &vg, "a test", e);
    if (rc < 0) {
        lvm_vg_drop(vg);
        return rc;
    }
    TRY(co_add_volume(s, &vg, "lv", run->subject->size / EXTENT, shape->stripes, e));
    return shape->thin ? co_add_pool(s, &vg, e) : 0;
}

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *dev;
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        TRY(co_make_pv(run, files[i], e));
    TRY(co_open_set(run, &dev, e));
    int rc = co_fill_set(run, lvm_set_of(dev), e);
    co_blk_close(dev, NULL);
    TRY(rc);
    return co_host_sync_dir(run->host, "/sim");
}

/* The volume; the container is a child of it, so that the other hooks find it. */
static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_device *set;
    TRY(co_open_set(run, &set, e));
    int rc = co_blk_inner_open(set, "vg/lv", out, e);
    if (rc == 0 && blk_add_child(*out, "container", set) < 0) {
        co_blk_close(*out, NULL);
        rc = err_set(e, -ENOMEM, "out of memory");
    }
    if (rc < 0)
        co_blk_close(set, NULL);
    return rc;
}

/* --- what is done to it ------------------------------------------------------------------------
 */

/* The next of a round: made, grown, renamed, removed. */
static int co_change(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e)
{
    struct lvm_lv *other = lvm_find_lv(*vg, "other"), *moved = lvm_find_lv(*vg, "moved");
    struct lvm_wanted more = {.extents = 3, .stripes = 1};
    if (!other && !moved)
        return co_add_volume(s, vg, "other", 2, 1, e);
    if (moved)
        TRY(lvm_lv_remove(*vg, moved, e));
    else if (other->extents == 2)
        TRY(lvm_lv_extend(*vg, other, &more, e));
    else
        TRY(lvm_lv_rename(*vg, other, "moved", e));
    return co_lvm_commit(s, vg, "a test", e);
}

/* The same in the pool: a volume, a snapshot of it, both removed, the first one first. */
static int co_change_thin(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    struct lvm_lv *volume = lvm_find_lv(*vg, "thin"), *snap = lvm_find_lv(*vg, "snap");
    struct lvm_thin_new n = {.name = volume ? "snap" : "thin", .uuid = uuid, .extents = 16};
    n.pool = lvm_find_lv(*vg, "pool");
    n.origin = volume;
    lvm_uuid_new(s->dev->host, uuid);
    TRY(snap ? lvm_thin_remove(*vg, volume ? volume : snap, e) : lvm_thin_create(*vg, &n, e));
    return co_lvm_commit(s, vg, "a test", e);
}

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct lvm_set *s = lvm_set_of(blk_child(dev, "container"));
    struct shape *shape = run->subject->arg;
    struct lvm_vg *copy, *now = s->vgs[0];
    if (shape->changing.holder) /* one change at a time */
        return 0;
    with_lock(&shape->changing);
    if (shape->thin)
        TRY(co_lvm_pool_settle(s, &now, "pool", "a test", e));
    TRY(lvm_vg_copy(now, &copy, e));
    int rc = shape->thin ? co_change_thin(s, &copy, e) : co_change(s, &copy, e);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc < 0 || !shape->thin ? rc : co_lvm_pool_settle(s, &copy, "pool", "a test", e);
}

/* Thin volumes that the text names, and that the pool has. */
static int co_count_thin(struct lvm_set *s, size_t *told, size_t *there, struct blk_error *e)
{
    struct lvm_vg *vg = s->vgs[0];
    struct lvm_lv *pool = lvm_find_lv(vg, "pool");
    struct lvm_opening o = {.set = s, .vg = vg, .lv = pool, .dev = s->dev, .e = e};
    struct blk_device *dev;
    struct blk_inner *list = NULL;
    *told = *there = 0;
    for (size_t i = 0; i < vg->lv_count; i++)
        *told += vg->lvs[i].segments[0].type->what == LVM_THIN;
    with_lock(&s->opening);
    int rc = co_lvm_pool_find(&o, pool, &dev);
    if (rc == 0)
        rc = co_blk_inner_list(dev, &list, there, e);
    blk_inner_drop(list, *there);
    int closed = co_lvm_opened_close(s, rc ? NULL : e);
    return rc ? rc : closed;
}

static int co_check_thin(struct lvm_set *s, uint64_t *bad, struct blk_error *e)
{
    struct lvm_vg *vg = s->vgs[0];
    size_t told, there;
    TRY(co_lvm_pool_settle(s, &vg, "pool", "a test", e));
    TRY(co_count_thin(s, &told, &there, e));
    *bad += told != there;
    return 0;
}

/* Each physical volume has a header and a text that can be read. */
static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    struct lvm_set *s = lvm_set_of(blk_child(dev, "container"));
    *bad = s->vg_count != 1;
    for (size_t i = 0; i < s->member_count; i++)
        *bad += !s->members[i].usable[0] || s->members[i].texts[0].bytes == 0;
    return shape->thin ? co_check_thin(s, bad, e) : 0;
}

#define ROW(words, its_shape)                                                                 \
    {                                                                                         \
        .name = words, .format = "raw", .size = 2 * MiB, .profile = &busy, .ops = 40,         \
        .co_create = co_create, .co_open = co_open, .co_check = co_check, .co_step = co_step, \
        .arg = its_shape                                                                      \
    }

static const struct sweep_subject rows[] = {
    ROW("lvm-linear", &linear),
    ROW("lvm-striped", &striped),
    ROW("lvm-thin", &thin),
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 900, 4500);
}

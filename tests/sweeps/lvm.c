/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - the proof over a volume whose group changes while it is used: volumes beside it are made,
 * grown, renamed and removed, in flight with reads and writes, and the power goes anywhere.
 *
 * Two physical volumes, /sim/top.img and /sim/data.img. After any crash each of them must have a
 * whole text, the old one or the new one; the volume, which lies on both, shows what it must. */
#include <stdio.h>

#include "tests/sweep.h"
#include "volumes/lvm_commit.h"

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
};
static const struct shape linear = {1}, striped = {2};

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
    return co_add_volume(s, &vg, "lv", run->subject->size / EXTENT, shape->stripes, e);
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

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct lvm_set *s = lvm_set_of(blk_child(dev, "container"));
    struct lvm_vg *copy;
    if (s->opening.holder) /* one change at a time */
        return 0;
    with_lock(&s->opening);
    TRY(lvm_vg_copy(s->vgs[0], &copy, e));
    int rc = co_change(s, &copy, e);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc;
}

/* Each physical volume has a header and a text that can be read. */
static int co_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e)
{
    const struct lvm_set *s = lvm_set_of(blk_child(dev, "container"));
    *bad = s->vg_count != 1;
    for (size_t i = 0; i < s->member_count; i++)
        *bad += !s->members[i].usable[0] || s->members[i].texts[0].bytes == 0;
    return 0;
}

#define ROW(words, its_shape)                                                                 \
    {                                                                                         \
        .name = words, .format = "raw", .size = 2 * MiB, .profile = &busy, .ops = 40,         \
        .co_create = co_create, .co_open = co_open, .co_check = co_check, .co_step = co_step, \
        .arg = (void *)(its_shape)                                                            \
    }

static const struct sweep_subject rows[] = {
    ROW("lvm-linear", &linear),
    ROW("lvm-striped", &striped),
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 600, 3000);
}

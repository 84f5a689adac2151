/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - the proof over a volume whose group changes while it is used: volumes beside it are made,
 * grown, renamed and removed, in flight with reads and writes, and the power goes anywhere.
 *
 *   lvm-linear, lvm-striped   the volume lies on two physical volumes
 *   lvm-thin                  what is made and removed beside it are thin volumes and snapshots
 *   lvm-in-pool               all on one: the volume is a thin one, beside which nothing can change
 *                             while it is open. Each opening makes a snapshot of it, which must go
 *                             on to show the same, or removes that; and then changes the group or
 *                             the pool as the other rows do
 *
 * The physical volumes are /sim/top.img and /sim/data.img. After any crash each of them must have a
 * whole text, the old one or the new one; the volume shows what it must; and once messages are
 * settled a pool has the devices that the text names, and metadata sound to the last reference. */
#include <stdio.h>

#include "tests/lib/lvm_group.h"
#include "tests/sweep.h"
#include "volumes/lvm_pool.h"
#include "volumes/thin_check.h"
#include "volumes/thin_pool.h"

#define EXTENT   (64 * KiB)
#define PV_BYTES (8 * MiB)
#define VOLUME   16 /* extents of a thin one */

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

static const struct sweep_profile reopening = {.write = 24,
                                               .fua = 3,
                                               .zeroes = 3,
                                               .discard = 4,
                                               .read = 8,
                                               .flush = 5,
                                               .reopen = 8,
                                               .kill = 3,
                                               .max_bytes = 200 * KiB};

struct shape {
    unsigned stripes, members;
    bool thin;   /* what changes is in a pool */
    bool inside; /* the volume is, too */
    struct co_mutex changing;
};
static struct shape linear = {.stripes = 1, .members = 2}, striped = {.stripes = 2, .members = 2},
                    thin = {.stripes = 1, .members = 2, .thin = true},
                    in_pool = {.stripes = 1, .members = 1, .thin = true, .inside = true};

/* Hashes of snapshots by their UUID. They outlive the machine on which they were found. */
static struct {
    char uuid[LVM_UUID + 1];
    uint64_t hash;
} known[1 << 14];

static const char *const files[] = {SWEEP_TOP, SWEEP_DATA};

/* --- the group ---------------------------------------------------------------------------------
 */

static int co_open_set(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    json_auto_t *tree = json_pack("{s:s, s:[{s:s, s:s}]}", "driver", "lvm", "members", "driver",
                                  "file", "filename", files[0]);
    if (tree && shape->members == 2)
        json_array_append_new(json_object_get(tree, "members"),
                              json_pack("{s:s, s:s}", "driver", "file", "filename", files[1]));
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

static int co_add_pool(struct lvm_set *s, struct lvm_vg **vg, uint64_t extents, struct blk_error *e)
{
    char uuids[3][LVM_UUID + 1];
    struct lvm_vg *copy;
    struct lvm_pool_new n = {.name = "pool", .chunk_bytes = 64 * KiB};
    n.data = (struct lvm_wanted){.extents = extents, .stripes = 1};
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

/* Into the text; the pool is told when messages are settled. */
static int co_add_thin(struct lvm_set *s, struct lvm_vg **vg, const char *name,
                       struct lvm_lv *origin, struct blk_error *e)
{
    char uuid[LVM_UUID + 1];
    struct lvm_thin_new n = {.name = name,
                             .uuid = uuid,
                             .extents = VOLUME,
                             .pool = lvm_find_lv(*vg, "pool"),
                             .origin = origin};
    lvm_uuid_new(s->dev->host, uuid);
    TRY(lvm_thin_create(*vg, &n, e));
    return co_lvm_commit(s, vg, "a test", e);
}

typedef int change_fn(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e);

/* A change of a copy of the group, committed; what waited before and after it is done. */
static int co_change_with(struct lvm_set *s, bool pool, change_fn *co_change, struct blk_error *e)
{
    struct lvm_vg *copy, *now = s->vgs[0];
    if (pool)
        TRY(co_lvm_pool_settle(s, &now, "pool", "a test", e));
    TRY(lvm_vg_copy(now, &copy, e));
    int rc = co_change(s, &copy, e);
    if (rc < 0)
        lvm_vg_drop(copy);
    return rc < 0 || !pool ? rc : co_lvm_pool_settle(s, &copy, "pool", "a test", e);
}

static int co_add_inside(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e)
{
    return co_add_thin(s, vg, "lv", NULL, e);
}

static int co_fill_set(struct sweep_run *run, struct lvm_set *s, struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    struct lvm_vg *vg;
    TRY(co_lvm_group_make(s, EXTENT, &vg, e));
    if (shape->inside) { /* room for it, a snapshot, and one that was let go of */
        TRY(co_add_pool(s, &vg, 4 * VOLUME, e));
        return co_change_with(s, true, co_add_inside, e);
    }
    TRY(co_add_volume(s, &vg, "lv", run->subject->size / EXTENT, shape->stripes, e));
    return shape->thin ? co_add_pool(s, &vg, 4, e) : 0;
}

static int co_create(struct sweep_run *run, struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    struct blk_device *dev;
    for (size_t i = 0; i < shape->members; i++)
        TRY(co_make_pv(run, files[i], e));
    TRY(co_open_set(run, &dev, e));
    int rc = co_fill_set(run, lvm_set_of(dev), e);
    co_blk_close(dev, NULL);
    TRY(rc);
    return co_host_sync_dir(run->host, "/sim");
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
    struct lvm_lv *volume = lvm_find_lv(*vg, "thin"), *snap = lvm_find_lv(*vg, "snap");
    if (!snap)
        return co_add_thin(s, vg, volume ? "snap" : "thin", volume, e);
    TRY(lvm_thin_remove(*vg, volume ? volume : snap, e));
    return co_lvm_commit(s, vg, "a test", e);
}

static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    struct shape *shape = run->subject->arg;
    if (shape->changing.holder) /* one change at a time */
        return 0;
    with_lock(&shape->changing);
    return co_change_with(lvm_set_of(blk_child(dev, "container")), shape->thin,
                          shape->thin ? co_change_thin : co_change, e);
}

/* --- snapshots of the volume -------------------------------------------------------------------
 */

static size_t place_of(const char *uuid)
{
    size_t hash = 5381;
    for (; *uuid; uuid++)
        hash = hash * 33 + (uint8_t)*uuid;
    return hash % ARRAY_LEN(known);
}

static int co_hash_kept(struct lvm_set *s, uint64_t *hash, struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_blk_inner_open(s->dev, "vg/kept", &dev, e));
    int rc = co_sweep_hash(dev, hash);
    co_blk_close(dev, NULL);
    return rc < 0 ? err_errno(e, rc, "cannot read the snapshot") : 0;
}

/* Shows the snapshot what it did? Not asked while messages wait: it may not be made yet. */
static int co_verify_kept(struct lvm_set *s, uint64_t *bad, struct blk_error *e)
{
    const struct lvm_lv *kept = lvm_find_lv(s->vgs[0], "kept");
    size_t at = kept ? place_of(kept->uuid) : 0;
    uint64_t hash;
    if (!kept || lvm_find_lv(s->vgs[0], "pool")->segments[0].messages ||
        strcmp(known[at].uuid, kept->uuid) != 0)
        return 0;
    TRY(co_hash_kept(s, &hash, e));
    if (hash != known[at].hash) {
        ++*bad;
        err_set(e, -EBADMSG, "the snapshot shows something else than it did");
    }
    return 0;
}

static int co_change_kept(struct lvm_set *s, struct lvm_vg **vg, struct blk_error *e)
{
    struct lvm_lv *kept = lvm_find_lv(*vg, "kept");
    if (!kept)
        return co_add_thin(s, vg, "kept", lvm_find_lv(*vg, "lv"), e);
    TRY(lvm_thin_remove(*vg, kept, e));
    return co_lvm_commit(s, vg, "a test", e);
}

static int co_keep(struct lvm_set *s, struct blk_error *e)
{
    uint8_t which;
    TRY(co_change_with(s, true, co_change_kept, e));
    host_random(s->dev->host, &which, 1);
    TRY(co_change_with(s, true, which & 1 ? co_change : co_change_thin, e));
    const struct lvm_lv *kept = lvm_find_lv(s->vgs[0], "kept");
    if (!kept)
        return 0;
    size_t at = place_of(kept->uuid);
    known[at].uuid[0] = 0;
    TRY(co_hash_kept(s, &known[at].hash, e));
    snprintf(known[at].uuid, sizeof(known[at].uuid), "%s", kept->uuid);
    return 0;
}

/* --- opening, checking --------------------------------------------------------------------------
 */

/* The volume; the container is a child of it, so that the other hooks find it. */
static int co_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct shape *shape = run->subject->arg;
    struct blk_device *set;
    TRY(co_open_set(run, &set, e));
    int rc = shape->inside ? co_keep(lvm_set_of(set), e) : 0;
    if (rc < 0) {
        co_blk_close(set, NULL);
        return rc;
    }
    return co_lvm_volume_open(set, out, e);
}

static void keep_first(struct thin_check *c, const char *sentence)
{
    struct blk_error *e = c->arg;
    if (!e->rc)
        err_set(e, -EIO, "%s", sentence);
}

/* @dev: the pool. It has as many devices as the text names, and metadata without a fault. */
static int co_check_pool(const struct lvm_vg *vg, struct blk_device *dev, uint64_t *bad,
                         struct blk_error *e)
{
    struct blk_inner *list;
    struct blk_error first = {0};
    struct thin_check c = {.say = keep_first, .arg = &first};
    size_t there, told = 0;
    for (size_t i = 0; i < vg->lv_count; i++)
        told += vg->lvs[i].segments[0].type->what == LVM_THIN;
    TRY(co_blk_inner_list(dev, &list, &there, e));
    blk_inner_drop(list, there);
    TRY(co_thin_commit(&thin_pool_of(dev)->meta));
    TRY(co_thin_check(thin_pool_of(dev)->meta.dev, &c, e));
    *bad += (told != there) + c.errors + c.leaks;
    if (c.errors + c.leaks)
        *e = first;
    return 0;
}

static int co_check_thin(struct lvm_set *s, uint64_t *bad, struct blk_error *e)
{
    struct lvm_vg *vg = s->vgs[0];
    struct blk_device *dev;
    TRY(co_verify_kept(s, bad, e));
    TRY(co_lvm_pool_settle(s, &vg, "pool", "a test", e));
    struct lvm_opening o = {
        .set = s, .vg = vg, .lv = lvm_find_lv(vg, "pool"), .dev = s->dev, .e = e};
    with_lock(&s->opening);
    int rc = co_lvm_pool_find(&o, o.lv, &dev);
    if (rc == 0)
        rc = co_check_pool(vg, dev, bad, e);
    int closed = co_lvm_opened_close(s, rc ? NULL : e);
    return rc ? rc : closed;
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

#define ROW                                                                               \
    .format = "raw", .size = VOLUME * EXTENT, .co_create = co_create, .co_open = co_open, \
    .co_check = co_check
#define BUSY ROW, .ops = 120, .profile = &busy, .co_step = co_step

static const struct sweep_subject rows[] = {
    {.name = "lvm-linear", BUSY, .arg = &linear},
    {.name = "lvm-striped", BUSY, .arg = &striped},
    {.name = "lvm-thin", BUSY, .arg = &thin},
    {.name = "lvm-in-pool",
     ROW,
     .ops = 120,
     .profile = &reopening,
     .arg = &in_pool,
     .granule = 64 * KiB,
     .long_factor = 7},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 1200, 6000);
}

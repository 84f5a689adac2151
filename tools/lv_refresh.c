/* SPDX-License-Identifier: BSD-3-Clause */
/* lv_refresh.c - lamina lv refresh: images of an array that were away take their places again and
 * are filled, as after lvchange --refresh. lv repair: images that are lost with a physical volume
 * are made anew on others, as after lvconvert --repair. */
#include "tools/lvm.h"
#include "volumes/lvm_repair.h"

static const struct arg_desc options[] = {ARG_PROGRESS, ARG_IMAGE_FORMAT, ARG_SECRET, ARG_QUIET,
                                          ARG_END};

/* --- refresh -----------------------------------------------------------------------------------
 */

/* All that is owed; where it is cut off the superblocks say how far it came. */
static int co_fill(struct lvm_verb *v, struct blk_device *array)
{
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    return co_job_sync(&v->task.job, array, &s, &v->error);
}

static int co_again(struct lvm_verb *v, struct blk_device *array)
{
    const struct blk_member_change again = {.action = BLK_MEMBER_RE_ADD};
    TRY(co_blk_member(array, &again, &v->error));
    return co_fill(v, array);
}

/* @dev: what was opened, closed here. */
static int co_with_array(struct lvm_verb *v, struct blk_device *dev,
                         int (*co_do)(struct lvm_verb *v, struct blk_device *array))
{
    struct blk_device *array = blk_find_redundant(dev);
    int rc =
        array ? co_do(v, array)
              : err_set(&v->error, -EINVAL, "%s/%s stands on no array", v->vg->name, v->lv->name);
    int closed = co_blk_close(dev, rc < 0 ? NULL : &v->error);
    return rc < 0 ? rc : closed;
}

static int co_refresh(struct lvm_verb *v)
{
    struct blk_device *dev;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    auto_free char *name = mem_printf("%s/%s", v->vg->name, v->lv->name);
    if (!name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    TRY(co_blk_inner_open(v->dev, name, &dev, &v->error));
    TRY(co_with_array(v, dev, co_again));
    return lvm_verb_say(v, "Logical volume %s refreshed.", name);
}

static int run_with(struct tool *t, int argc, char **argv, struct lvm_verb *v)
{
    const struct arg_place places[] = {LVM_PLACES(v), {0, NULL, NULL}};
    v->tool = t;
    return lvm_verb_run(v, argc, argv, places, 1);
}

static int refresh(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_refresh});
}

const struct command lv_refresh_command = {
    .name = "lv refresh",
    .run = refresh,
    .usage = "lv refresh [OPTION]... SET//VG/LV",
    .summary = "Images of the volume's array that were away are filled and take their places again",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "What the bitmap says that they missed is copied, or all of it.\n\n"
             "  lamina lv refresh lvm:disk0.img,disk1.img,disk2.img//vg0/home",
};

/* --- repair ------------------------------------------------------------------------------------
 */

static int co_repair(struct lvm_verb *v)
{
    unsigned count;
    struct blk_device *dev;
    auto_free struct lvm_pv **only = NULL;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    auto_free char *name = mem_strdup(v->lv->name);
    struct lvm_repair r = {.lv = name, .why = "lamina lv repair"};
    if (!name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    if (v->count > 1)
        TRY(lvm_verb_pvs(v, v->operands + 1, (size_t)v->count - 1, &only));
    r.only = only;
    r.only_count = (size_t)v->count - 1;
    v->set->partial = true;
    TRY(co_lvm_images_replace(v->set, &v->vg, &r, &count, &v->error));
    TRY(co_lvm_images_take(v->set, &v->vg, &r, &v->error));
    v->lv = lvm_find_lv(v->vg, name);
    TRY(co_lvm_open_planned(v->set, v->vg, name, &dev, &v->error));
    TRY(co_with_array(v, dev, co_fill));
    return count ? lvm_verb_say(v, "Faulty devices in %s/%s successfully replaced.", v->vg->name,
                                name)
                 : lvm_verb_say(v, "No image of %s/%s is lost: all are filled.", v->vg->name, name);
}

static int repair(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_repair});
}

const struct command lv_repair_command = {
    .name = "lv repair",
    .run = repair,
    .usage = "lv repair [OPTION]... SET//VG/LV [PV]...",
    .summary = "Images of an array on physical volumes that are missing are made anew on others",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "On PV, or any with room on which no other image of the volume lies. Interrupted, it\n"
             "goes on when it is said again.\n\n"
             "  lamina lv repair lvm:disk0.img,disk1.img,disk3.img//vg0/home",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* lv_refresh.c - lamina lv refresh: images of an array that were away take their places again and
 * are filled, as after lvchange --refresh. */
#include "tools/lvm.h"

static const struct arg_desc options[] = {ARG_IMAGE_FORMAT, ARG_SECRET, ARG_QUIET, ARG_END};

/* All that is owed; where it is cut off the superblocks say how far it came. */
static int co_fill(struct blk_device *array, struct blk_error *e)
{
    const struct blk_member_change again = {.action = BLK_MEMBER_RE_ADD};
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    TRY(co_blk_member(array, &again, e));
    do
        TRY(co_blk_sync(array, &s, e));
    while (s.doing);
    return co_blk_sync_save(array, e);
}

static int co_refresh(struct lvm_verb *v)
{
    struct blk_device *dev;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    auto_free char *name = mem_printf("%s/%s", v->vg->name, v->lv->name);
    if (!name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    TRY(co_blk_inner_open(v->dev, name, &dev, &v->error));
    struct blk_device *array = blk_find_redundant(dev);
    int rc = array ? co_fill(array, &v->error)
                   : err_set(&v->error, -EINVAL, "%s stands on no array", name);
    int closed = co_blk_close(dev, rc < 0 ? NULL : &v->error);
    TRY(rc < 0 ? rc : closed);
    return lvm_verb_say(v, "Logical volume %s refreshed.", name);
}

static int refresh(struct tool *t, int argc, char **argv)
{
    struct lvm_verb v = {.tool = t, .co_work = co_refresh};
    const struct arg_place places[] = {LVM_PLACES(&v), {0, NULL, NULL}};
    return lvm_verb_run(&v, argc, argv, places, 1);
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

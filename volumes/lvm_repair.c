/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_repair.c - images of arrays that are lost get new places.
 *
 * Order:
 *  1 the array is opened without what is lost, to be written to: what is left is enough
 *  2 where superblocks of new images are to lie, which no text knows of yet, is zeroed, flushed
 *  3 the text is committed: the images lie there and are marked REBUILD, who is not here is MISSING
 *  4 raid/ gives each new image its bitmap and its superblock, in sync up to 0, and the others do
 *    not count it as failed any more
 *  5 the text is committed without the marks
 *  6 recovery, with its checkpoints
 * Until 4 an image without a superblock has nothing, for Linux as for lamina: whoever comes next
 * goes on with 4. From then on the superblocks say what is filled. */
#include "volumes/lvm_repair.h"

/* Calls @co_do for the array, which is open then, and closes it. */
static int co_with_array(struct lvm_set *s, struct lvm_vg *vg, const char *lv,
                         int (*co_do)(struct blk_device *array, struct blk_error *e),
                         struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_lvm_open_planned(s, vg, lv, &dev, e));
    struct blk_device *array = blk_find_redundant(dev);
    int rc = array ? co_do(array, e) : err_set(e, -EINVAL, "%s/%s is no array", vg->name, lv);
    int closed = co_blk_close(dev, rc < 0 ? NULL : e);
    rc = rc < 0 ? rc : closed;
    closed = co_lvm_opened_close(s, rc < 0 ? NULL : e);
    return rc < 0 ? rc : closed;
}

static int co_nothing(struct blk_device *array, struct blk_error *e)
{
    return 0;
}

static int co_take_in(struct blk_device *array, struct blk_error *e)
{
    return co_blk_member(array, &(struct blk_member_change){.action = BLK_MEMBER_RE_ADD}, e);
}

/* --- new places --------------------------------------------------------------------------------
 */

/* What lies there now would be taken for a superblock, a bitmap or a log. */
static int co_wipe(struct lvm_set *s, struct lvm_vg *plan, const char *meta, struct blk_error *e)
{
    struct blk_device *dev;
    TRY(co_lvm_open_planned(s, plan, meta, &dev, e));
    int rc = co_blk_write_zeroes(dev, 0, dev->size, BLK_MAY_UNMAP);
    if (rc == 0)
        rc = co_blk_flush(dev);
    if (rc < 0)
        err_errno(e, rc, "%s could not be zeroed", meta);
    int closed = co_blk_close(dev, rc < 0 ? NULL : e);
    return rc < 0 ? rc : closed;
}

static int co_replace_one(struct lvm_set *s, struct lvm_vg **plan, const struct lvm_repair *r,
                          unsigned image, struct blk_error *e)
{
    char uuids[2][LVM_UUID + 1];
    struct lvm_image_new n = {r->lv, {uuids[0], uuids[1]}, r->only, r->only_count};
    for (size_t i = 0; i < ARRAY_LEN(uuids); i++)
        lvm_uuid_new(s->dev->host, uuids[i]);
    TRY(lvm_image_replace(plan, &n, image, e));
    return co_wipe(s, *plan, lvm_find_lv(*plan, r->lv)->segments[0].metas[image].lv->name, e);
}

/* 2 and 3. */
static int co_replace_all(struct lvm_set *s, struct lvm_vg **plan, const struct lvm_repair *r,
                          unsigned *count, struct blk_error *e)
{
    int image;
    while ((image = lvm_image_lost(*plan, lvm_find_lv(*plan, r->lv), e)) >= 0) {
        TRY(co_replace_one(s, plan, r, (unsigned)image, e));
        ++*count;
    }
    return image == -ENOENT ? co_lvm_commit(s, plan, r->why, e) : image;
}

/* 1. One that is marked as missing and is here again does not count. */
static int co_check_rest(struct lvm_set *s, const struct lvm_vg *vg, const char *lv,
                         struct blk_error *e)
{
    struct lvm_vg *rest;
    struct blk_error why = {0};
    TRY(lvm_vg_copy(vg, &rest, e));
    int rc = lvm_images_drop(&rest, lv, &why);
    if (rc == 0)
        rc = co_with_array(s, rest, lv, co_nothing, &why);
    lvm_vg_drop(rest);
    return rc < 0 ? err_set(e, rc,
                            "without images on physical volumes that are missing, or marked so: %s",
                            why.text)
                  : 0;
}

int co_lvm_images_replace(struct lvm_set *s, struct lvm_vg **vg, const struct lvm_repair *r,
                          unsigned *count, struct blk_error *e)
{
    struct lvm_vg *plan;
    *count = 0;
    int image = lvm_image_lost(*vg, lvm_find_lv(*vg, r->lv), e);
    if (image < 0)
        return image == -ENOENT ? 0 : image;
    TRY(co_check_rest(s, *vg, r->lv, e));
    TRY(lvm_vg_copy(*vg, &plan, e));
    int rc = co_replace_all(s, &plan, r, count, e);
    if (rc < 0)
        lvm_vg_drop(plan);
    else
        *vg = plan;
    return rc;
}

/* --- back into the array -----------------------------------------------------------------------
 */

static int co_unmark(struct lvm_set *s, struct lvm_vg **vg, const struct lvm_repair *r,
                     struct blk_error *e)
{
    struct lvm_vg *plan;
    TRY(lvm_vg_copy(*vg, &plan, e));
    lvm_images_unmark(lvm_find_lv(plan, r->lv));
    int rc = co_lvm_commit(s, &plan, r->why, e);
    if (rc < 0)
        lvm_vg_drop(plan);
    else
        *vg = plan;
    return rc;
}

int co_lvm_images_take(struct lvm_set *s, struct lvm_vg **vg, const struct lvm_repair *r,
                       struct blk_error *e)
{
    TRY(co_with_array(s, *vg, r->lv, co_take_in, e));
    return lvm_images_marked(lvm_find_lv(*vg, r->lv)) ? co_unmark(s, vg, r, e) : 0;
}

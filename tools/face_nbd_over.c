/* SPDX-License-Identifier: BSD-3-Clause */
/* face_nbd_over.c - what qemu-nbd puts over the image that it opened, from below: a temporary image
 * (-s), or a snapshot inside it (-l); what comes behind an offset (-o); what becomes of discards
 * and zeroes. Then the bitmaps that are to be shown have to be there. */
#include <stdlib.h>

#include "nbd/clones.h"
#include "tools/face_nbd.h"
#include "tools/image.h"

/* Changes go to a file without a name. */
static int co_temporary(const struct nbd_face *f, struct blk_device **dev, struct blk_error *e)
{
    const char *tmp = getenv("TMPDIR");
    struct blk_device *over = NULL;
    struct resolver r;
    int rc = co_tool_resolver(f->plan.tool, TRUST_WRITE, NULL, &r, e);

    if (rc < 0)
        return rc;
    const struct nbd_clones_options o = {.host = f->plan.tool->host,
                                         .resolver = &r,
                                         .prefix = "",
                                         .golden = *dev,
                                         .scratch = tmp && *tmp == '/' ? tmp : "/var/tmp"};
    rc = co_nbd_clone_alone(&o, &over, e);
    resolver_drop(&r);
    if (rc < 0)
        return rc;
    co_blk_close(*dev, NULL); /* the temporary image has a reference */
    *dev = over;
    return 0;
}

/* *dev is taken, also on failure, and given. */
static int co_put(const struct blk_driver *driver, json_t *tree, struct blk_device **dev,
                  struct blk_error *e)
{
    const struct blk_child child = {"file", *dev};
    int rc = tree ? co_blk_open(driver, (*dev)->name, tree, (*dev)->writable ? BLK_OPEN_WRITE : 0,
                                NULL, &child, 1, dev, e)
                  : err_set(e, -ENOMEM, "out of memory");

    if (!tree)
        co_blk_close(child.dev, NULL);
    if (rc < 0)
        *dev = NULL;
    json_decref(tree);
    return rc;
}

static int co_part(const struct nbd_face *f, struct blk_device **dev, struct blk_error *e)
{
    if (f->offset > (*dev)->size)
        return err_set(e, -EINVAL,
                       "Offset (%" PRIu64 ") cannot be greater than size of the containing file "
                       "(%" PRIu64 ")",
                       f->offset, (*dev)->size);
    return co_put(&slice_driver, json_pack("{s:I}", "offset", (json_int_t)f->offset), dev, e);
}

static int co_find_bitmap(struct blk_device *dev, const char *name, struct blk_error *e)
{
    struct blk_error none = {0};
    struct blk_bitmap *list = NULL;
    size_t count = 0, i = 0;
    bool found, bad;

    (void)!co_blk_bitmap_list(dev, &list, &count, &none);
    while (i < count && strcmp(list[i].name, name) != 0)
        i++;
    found = i < count;
    bad = found && (list[i].inconsistent || list[i].foreign);
    blk_bitmaps_drop(list, count);
    if (!found)
        return err_set(e, -ENOENT, "Bitmap '%s' is not found", name);
    return bad ? err_set(e, -EINVAL,
                         "Bitmap '%s' is inconsistent and cannot be used\n"
                         "Try block-dirty-bitmap-remove to delete this bitmap from disk",
                         name)
               : 0;
}

static int co_all(const struct nbd_face *f, struct blk_device **dev, struct blk_error *e)
{
    const char *detect = f->detect ? f->detect : "off";
    bool ignores = !f->discard || strcmp(f->discard, "unmap") != 0;

    if (f->temporary)
        TRY(co_temporary(f, dev, e));
    if (f->offset)
        TRY(co_part(f, dev, e));
    if (f->snapshot)
        TRY(co_image_snapshot(f->plan.tool, f->snapshot, dev, e));
    if ((*dev)->writable && (ignores || strcmp(detect, "off") != 0))
        TRY(co_put(
            &zeroes_driver,
            json_pack("{s:s, s:s}", "detect", detect, "discard", ignores ? "ignore" : "unmap"), dev,
            e));
    for (size_t i = 0; i < f->shown.bitmap_count; i++)
        TRY(co_find_bitmap(*dev, f->bitmaps[i], e));
    return 0;
}

int co_nbd_face_over(void *arg, struct blk_device **dev, struct blk_error *e)
{
    int rc = co_all(arg, dev, e);

    if (rc < 0)
        co_blk_close(take(*dev), NULL);
    return rc;
}

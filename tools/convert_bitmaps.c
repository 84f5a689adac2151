/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_bitmaps.c - the persistent bitmaps of the source go into the target: looked at before the
 * target is made, copied once it holds the data and is an image.
 *
 * Each is made disabled, filled, and only then enabled where the source's is: whoever is
 * interrupted leaves none that records but lacks what came before. */
#include "tools/convert.h"

/* A format may hold bitmaps, and this image (its version) not. */
static int co_can_hold(struct blk_device *dev, bool *can, struct blk_error *e)
{
    struct blk_info info;
    TRY(co_blk_info(dev, &info, e));
    *can = info.has_bitmaps && dev->driver->co_bitmap_list;
    blk_info_drop(&info);
    return 0;
}

static bool is_broken(const struct blk_bitmap *b)
{
    return b->inconsistent || b->foreign;
}

int co_convert_check_bitmaps(struct convert *c)
{
    struct blk_error *e = &c->task.error;
    bool can;
    TRY(co_can_hold(c->bitmap_source, &can, e));
    if (!can)
        return err_set(e, -ENOTSUP, "Source lacks bitmap support");
    TRY(co_blk_bitmap_list(c->bitmap_source, &c->bitmaps, &c->bitmap_count, e));
    for (size_t i = 0; i < c->bitmap_count && !c->skip_broken; i++) {
        const struct blk_bitmap *b = &c->bitmaps[i];
        if (is_broken(b))
            return err_set(e, -EINVAL,
                           "Cannot copy %s bitmap '%s'\n"
                           "Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it",
                           b->foreign ? "unknown kind of" : "inconsistent", b->name,
                           c->make.tool->called);
    }
    return 0;
}

int co_convert_check_target(struct convert *c)
{
    bool can;
    TRY(co_can_hold(c->target, &can, &c->task.error));
    if (can)
        return 0;
    return err_set(&c->task.error, -ENOTSUP, "Format driver '%s' does not support bitmaps",
                   c->target->driver->name);
}

static int co_copy_one(struct convert *c, const struct blk_bitmap *b)
{
    struct blk_error *e = &c->task.error;
    struct blk_bitmap_change change = {.action = BLK_BITMAP_ADD,
                                       .name = b->name,
                                       .granularity = b->granularity,
                                       .disabled = !b->enabled,
                                       .source = c->bitmap_source,
                                       .source_name = b->name};
    bool fits = c->target->size == c->bitmap_source->size;
    int rc = co_blk_bitmap_change(c->target, &change, e);
    if (rc == 0)
        return 0;
    return err_prefix(e, "Failed to %s bitmap %s", fits ? "create" : "populate", b->name);
}

int co_convert_copy_bitmaps(struct convert *c)
{
    for (size_t i = 0; i < c->bitmap_count; i++) {
        const struct blk_bitmap *b = &c->bitmaps[i];
        if (c->task.signal)
            return err_set(&c->task.error, -ECANCELED, "interrupted");
        if (is_broken(b))
            tool_error(c->make.tool, "warning: Skipping %s bitmap '%s'",
                       b->foreign ? "unknown kind of" : "inconsistent", b->name);
        else
            TRY(co_copy_one(c, b));
    }
    return 0;
}

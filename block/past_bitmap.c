/* SPDX-License-Identifier: BSD-3-Clause */
/* past_bitmap.c - the device's dirty bitmap at the instant that a past begins: what it says is
 * remembered, and it begins anew; if the past ends badly, that is put back. */
#include "block/past.h"

static int co_find(const struct live_past *p, bool *there, struct blk_error *e)
{
    struct blk_bitmap *list;
    size_t count;
    int rc = 0;
    *there = false;
    TRY(co_blk_bitmap_list(seat_device(p->seat), &list, &count, e));
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (strcmp(list[i].name, p->bitmap) != 0)
            continue;
        *there = true;
        if (list[i].inconsistent || list[i].foreign)
            rc = err_set(e, -EINVAL,
                         "the bitmap '%s' was not stored by who wrote last; remove it, and make a "
                         "full backup",
                         p->bitmap);
        else if (!list[i].enabled)
            rc = err_set(e, -EINVAL, "the bitmap '%s' does not record what changes", p->bitmap);
    }
    blk_bitmaps_drop(list, count);
    return rc;
}

static int co_read(struct live_past *p, struct blk_error *e)
{
    struct blk_device *dev = seat_device(p->seat);
    if (granules_init(&p->dirty, dev->size, false) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    for (uint64_t at = 0; at < dev->size;) {
        struct blk_bitmap_extent x;
        TRY(co_blk_bitmap_read(dev, p->bitmap, at, dev->size - at, &x, e));
        if (x.dirty)
            granules_set(&p->dirty, at, x.bytes, true);
        at += x.bytes;
    }
    return 0;
}

static int co_change(const struct live_past *p, struct blk_bitmap_change *c, struct blk_error *e)
{
    c->source = seat_device(p->seat);
    return co_blk_bitmap_change(c->source, c, e);
}

/* Its copy in the image is there from here on: what it says cannot be lost. */
static int co_copy(const struct live_past *p, struct blk_error *e)
{
    struct blk_bitmap_change add = {
        .action = BLK_BITMAP_ADD, .name = p->before, .disabled = true, .source_name = p->bitmap};
    return co_change(p, &add, e);
}

static int co_simple(const struct live_past *p, enum blk_bitmap_action action, const char *name,
                     struct blk_error *e)
{
    struct blk_bitmap_change c = {.action = action, .name = name};
    return co_change(p, &c, e);
}

int co_past_take_bitmap(struct live_past *p, struct blk_error *e)
{
    bool there;
    TRY(co_find(p, &there, e));
    if (!there)
        return co_simple(p, BLK_BITMAP_ADD, p->bitmap, e);
    TRY(co_read(p, e));
    TRY(co_copy(p, e));
    p->copy_there = true;
    return co_simple(p, BLK_BITMAP_CLEAR, p->bitmap, e);
}

int co_past_leave_bitmap(struct live_past *p, bool failed, struct blk_error *e)
{
    struct blk_bitmap_change merge = {
        .action = BLK_BITMAP_MERGE, .name = p->bitmap, .source_name = p->before};
    if (!p->copy_there)
        return 0;
    if (failed)
        TRY(co_change(p, &merge, e));
    return co_simple(p, BLK_BITMAP_REMOVE, p->before, e);
}

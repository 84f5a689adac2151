/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.c - persistent dirty bitmaps of a device: the checked way to the driver's operations.
 *
 * Changes close the gate, so a bitmap begins or ends between two requests. Everything runs at the
 * device's home; callers may be anywhere. */
#include "block/waist.h"

struct bitmap_call {
    struct blk_device *dev;
    struct blk_bitmap **list;
    size_t *count;
    const struct blk_bitmap_change *change;
    const char *name;
    uint64_t offset, bytes;
    struct blk_bitmap_extent *extent;
    struct blk_error *e;
};

static int has_bitmaps(const struct bitmap_call *c)
{
    if (c->dev->driver->co_bitmap_list)
        return 0;
    return err_set(c->e, -ENOTSUP, "%s images hold no bitmaps; those of qcow2 do",
                   c->dev->driver->name);
}

static int list_at_home(void *arg)
{
    struct bitmap_call *c = arg;
    TRY(has_bitmaps(c));
    return c->dev->driver->co_bitmap_list(c->dev, c->list, c->count, c->e);
}

int co_blk_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                       struct blk_error *e)
{
    struct bitmap_call c = {.dev = dev, .list = out, .count = count, .e = e};
    *out = NULL;
    *count = 0;
    return co_on(dev->home, list_at_home, &c);
}

static int change_gated(const struct bitmap_call *c)
{
    const struct blk_bitmap_change *change = c->change;
    if (!c->dev->writable)
        return err_set(c->e, -EROFS, "%s is read-only", c->dev->name);
    assert(change->name);
    bool merge = change->action == BLK_BITMAP_MERGE;
    bool reads = merge || (change->action == BLK_BITMAP_ADD && change->source_name);
    assert(!reads || (change->source && change->source_name));
    if (reads && change->source->size != c->dev->size)
        return err_set(c->e, -EINVAL,
                       "Bitmaps are of different sizes (destination size is %" PRIu64
                       ", source size is %" PRIu64 ") and can't be merged",
                       c->dev->size, change->source->size);
    return c->dev->driver->co_bitmap_change(c->dev, change, c->e);
}

static int change_at_home(void *arg)
{
    struct bitmap_call *c = arg;
    TRY(has_bitmaps(c));
    co_blk_gate_close(c->dev);
    int rc = change_gated(c);
    blk_gate_open(c->dev);
    return rc;
}

int co_blk_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *change,
                         struct blk_error *e)
{
    struct bitmap_call c = {.dev = dev, .change = change, .e = e};
    return co_on(dev->home, change_at_home, &c);
}

static int read_at_home(void *arg)
{
    struct bitmap_call *c = arg;
    TRY(has_bitmaps(c));
    if (c->bytes == 0 || !range_fits(c->offset, c->bytes, c->dev->size))
        return err_set(c->e, -EINVAL, "%" PRIu64 " bytes at %" PRIu64 " do not lie in %s", c->bytes,
                       c->offset, c->dev->name);
    int rc = c->dev->driver->co_bitmap_read(c->dev, c->name, c->offset, c->bytes, c->extent, c->e);
    assert(rc < 0 || (c->extent->bytes > 0 && c->extent->bytes <= c->bytes));
    return rc;
}

int co_blk_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset, uint64_t bytes,
                       struct blk_bitmap_extent *out, struct blk_error *e)
{
    struct bitmap_call c = {
        .dev = dev, .name = name, .offset = offset, .bytes = bytes, .extent = out, .e = e};
    return co_on(dev->home, read_at_home, &c);
}

void blk_bitmaps_drop(struct blk_bitmap *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        mem_free(list[i].name);
    mem_free(list);
}

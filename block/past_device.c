/* SPDX-License-Identifier: BSD-3-Clause */
/* past_device.c - a device that shows what another one showed at an instant: what has changed since
 * comes out of the store, all else out of the device as it is now.
 *
 * What lies in the store never changes. What does not is read with its place held, so nobody copies
 * it, and then changes it, meanwhile (past.c); and inside the seat, so that nobody exchanges it. */
#include "block/past.h"

static const struct blk_driver past_driver;

static struct live_past *past_of(const struct blk_device *dev)
{
    return dev->state;
}

/* The place is held. */
static int co_read_held(struct live_past *p, uint64_t offset, const struct vec *to)
{
    for (uint64_t at = 0; at < to->bytes;) {
        uint64_t n = to->bytes - at;
        bool here = granules_run(&p->left, offset + at, &n);
        struct vec part = vec_slice(to, at, n);
        TRY(co_blk_read(here ? seat_device(p->seat) : p->store, offset + at, &part));
        at += n;
    }
    return p->rc < 0 ? -EIO : 0;
}

static int co_past_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct live_past *p = past_of(dev);
    struct co_range_hold hold;
    co_blk_stay(p->seat);
    co_range_lock(&p->lock, &hold, offset, to->bytes, true);
    int rc = co_read_held(p, offset, to);
    co_range_unlock(&p->lock, &hold);
    blk_release(p->seat);
    return rc;
}

/* A whole answer, not where to ask: what is true of the device now may not be when it is asked. */
static int co_past_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                       struct blk_extent *out)
{
    struct live_past *p = past_of(dev);
    struct co_range_hold hold;
    unsigned depth;
    co_blk_stay(p->seat);
    co_range_lock(&p->lock, &hold, offset, bytes, true);
    bool here = granules_run(&p->left, offset, &bytes);
    struct blk_device *from = here ? seat_device(p->seat) : p->store;
    int rc = p->rc ? -EIO : co_blk_map_chain(from, NULL, offset, bytes, out, &depth);
    co_range_unlock(&p->lock, &hold);
    blk_release(p->seat);
    if (rc == 0)
        *out = (struct blk_extent){.flags = (out->flags & (BLK_EXT_DATA | BLK_EXT_ZERO)) |
                                            BLK_EXT_ALLOCATED,
                                   .bytes = out->bytes};
    return rc;
}

static int co_past_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                               struct blk_error *e)
{
    const struct live_past *p = past_of(dev);
    if (!p->dirty.words)
        return 0;
    struct blk_bitmap *b = mem_zalloc(sizeof(*b));
    if (!b)
        return err_set(e, -ENOMEM, "out of memory");
    *b =
        (struct blk_bitmap){.name = mem_strdup(p->bitmap), .granularity = granule_bytes(&p->dirty)};
    *out = b;
    *count = 1;
    return b->name ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int co_past_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *c,
                                 struct blk_error *e)
{
    return err_set(e, -EROFS, "%s is read-only", dev->name);
}

static int co_past_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset,
                               uint64_t bytes, struct blk_bitmap_extent *out, struct blk_error *e)
{
    const struct live_past *p = past_of(dev);
    if (!p->dirty.words || strcmp(name, p->bitmap) != 0)
        return err_set(e, -ENOENT, "there is no bitmap '%s'", name);
    out->bytes = bytes;
    out->dirty = granules_run(&p->dirty, offset, &out->bytes);
    return 0;
}

static int co_past_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    return 0;
}

static const struct blk_driver past_driver = {
    .name = "past",
    .title = "what another device showed at an instant",
    .co_open = co_past_open,
    .co_read = co_past_read,
    .co_map = co_past_map,
    .co_bitmap_list = co_past_bitmap_list,
    .co_bitmap_change = co_past_bitmap_change,
    .co_bitmap_read = co_past_bitmap_read,
};

struct opening {
    struct live_past *p;
    struct blk_device *dev;
    struct blk_error *e;
};

static int co_open_at_home(void *arg)
{
    struct opening *o = arg;
    TRY(co_blk_open(&past_driver, o->p->seat->name, NULL, 0, NULL, NULL, 0, &o->dev, o->e));
    o->dev->state = o->p;
    o->dev->size = o->p->seat->size;
    return 0;
}

int co_live_past_device(struct live_past *p, struct blk_device **out, struct blk_error *e)
{
    struct opening o = {.p = p, .e = e};
    TRY(co_on(p->seat->home, co_open_at_home, &o));
    *out = o.dev;
    return 0;
}

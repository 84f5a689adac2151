/* SPDX-License-Identifier: BSD-3-Clause */
/* map_chain.c - the status of extents: one layer's answer, and what the guest sees through a chain.
 *
 * The rules are those of QEMU's block status, so that `map` prints the same:
 *   - a layer that holds nothing there defers to its backing device; where that one is shorter, or
 *     there is none, the bytes are zero and not allocated;
 *   - an extent that says RECURSE (raw, slices, fixed images) is refined by its child: alone, the
 *     child's answer is the answer; with DATA, the child's zeroes are zeroes too. */
#include "block/waist.h"

static int map_by_driver(void *arg)
{
    struct blk_call *call = arg;
    struct blk_device *dev = call->dev;
    struct blk_place p = {0};
    if (dev->driver->co_map)
        return dev->driver->co_map(dev, call->offset, call->bytes, call->extent);
    *call->extent =
        (struct blk_extent){.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED, .bytes = call->bytes};
    if (dev->driver->is_filter && dev->driver->resolve(dev, call->offset, call->bytes, false, &p))
        *call->extent = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                                            .bytes = p.bytes,
                                            .child = p.child,
                                            .child_offset = p.offset};
    return 0;
}

static int map_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_map(call->dev, call->offset, call->bytes, call->extent);
}

/* Inside @dev already. */
static int inside_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    struct blk_call call = {.dev = dev, .offset = offset, .bytes = bytes, .extent = out};
    if (bytes == 0 || !range_fits(offset, bytes, dev->size))
        return -EINVAL;
    memset(out, 0, sizeof(*out));
    TRY(co_blk_run(map_by_driver, &call));
    assert(out->bytes > 0 && out->bytes <= bytes);
    assert(!(out->flags & BLK_EXT_RECURSE) || ((out->flags & BLK_EXT_PLACED) && out->child));
    return 0;
}

int co_blk_map(struct blk_device *dev, uint64_t offset, uint64_t bytes, struct blk_extent *out)
{
    struct blk_call call = {.dev = dev, .offset = offset, .bytes = bytes, .extent = out};
    if (!blk_at_home(dev))
        return co_on(dev->home, map_at_home, &call);
    unsigned epoch = blk_enter(dev);
    int rc = inside_map(dev, offset, bytes, out);
    blk_leave(dev, epoch);
    return rc;
}

/* Where a walk stands: a device and the offset in it; @bytes shrinks to what is alike. */
struct walk {
    struct blk_device *top; /* we are inside: what it stands on stays what it is meanwhile */
    struct blk_device *dev;
    uint64_t offset, bytes;
    unsigned seen; /* flags that the layers above add */
};

/* One layer and what refines it. The walk ends on the device whose answer *out is. */
static int layer_status(struct walk *w, struct blk_extent *out)
{
    bool refined = false;
    for (;;) {
        TRY((w->dev == w->top ? inside_map : co_blk_map)(w->dev, w->offset, w->bytes, out));
        w->bytes = out->bytes;
        if (!(out->flags & BLK_EXT_RECURSE))
            break;
        struct blk_device *child = out->child;
        w->seen |= out->flags & ~(BLK_EXT_RECURSE | BLK_EXT_PLACED);
        if (out->child_offset >= child->size) { /* the child ended: what lies behind reads zero */
            out->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED | BLK_EXT_PLACED;
            break;
        }
        w->dev = child;
        w->offset = out->child_offset;
        w->bytes = MIN(w->bytes, child->size - w->offset);
        refined = true;
    }
    if (refined && !(out->flags & BLK_EXT_PLACED) && (out->flags & BLK_EXT_ALLOCATED)) {
        out->flags |= BLK_EXT_PLACED;
        out->child = w->dev;
        out->child_offset = w->offset;
    }
    out->flags |= w->seen;
    return 0;
}

static int walk_chain(struct walk *w, struct blk_device *base, struct blk_extent *out,
                      unsigned *depth)
{
    for (*depth = 0;; ++*depth) {
        TRY(layer_status(w, out));
        if (out->flags & (BLK_EXT_DATA | BLK_EXT_ZERO))
            return 0;
        struct blk_device *backing = w->dev->backing;
        out->child = NULL;
        out->child_offset = 0;
        if (base && backing == base) {
            out->flags = 0;
            return 0;
        }
        if (!backing || w->offset >= backing->size) {
            out->flags = BLK_EXT_ZERO;
            return 0;
        }
        w->dev = backing;
        w->bytes = MIN(w->bytes, backing->size - w->offset);
    }
}

struct chain_call {
    struct walk walk;
    struct blk_device *base;
    struct blk_extent *out;
    unsigned *depth;
};

static int chain_at_home(void *arg)
{
    struct chain_call *c = arg;
    unsigned epoch = blk_enter(c->walk.top);
    int rc = walk_chain(&c->walk, c->base, c->out, c->depth);
    blk_leave(c->walk.top, epoch);
    return rc;
}

int co_blk_map_chain(struct blk_device *dev, struct blk_device *base, uint64_t offset,
                     uint64_t bytes, struct blk_extent *out, unsigned *depth)
{
    struct chain_call call = {.walk = {.top = dev, .dev = dev, .offset = offset, .bytes = bytes},
                              .base = base,
                              .out = out,
                              .depth = depth};
    return co_on(dev->home, chain_at_home, &call);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_backing.c - the device behind an image: asked for while opening, found when it is there. */
#include "block/resolver.h"
#include "imgfmt/map_private.h"

int co_map_want_backing(struct map *m, struct blk_opener *opener, const char *name,
                        const char *format, struct blk_error *e)
{
    struct blk_device *dev = m->dev, *given;
    unsigned flags = dev->open_flags & BLK_OPEN_FORCE_SHARE;
    if (blk_child(dev, "backing")) /* given by hand */
        return 0;
    if (opener && opener_has(opener, "backing") && !name)
        return co_blk_want_child(dev, opener, "backing", flags, &given, e);
    if (!name)
        return 0;
    m->backing_missing = !opener || (dev->open_flags & BLK_OPEN_NO_BACKING);
    m->dev->limits.fresh_reads_zero = false;
    return m->backing_missing ? 0
                              : co_opener_reference(opener, dev, "backing", name, format, flags, e);
}

int co_map_opened(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    m->backing = blk_child(dev, "backing");
    if (m->backing)
        m->backing_missing = false;
    m->dev->limits.fresh_reads_zero &= !map_has_backing(m);
    return 0;
}

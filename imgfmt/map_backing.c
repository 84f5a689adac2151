/* SPDX-License-Identifier: BSD-3-Clause */
/* map_backing.c - backing devices: asked for, looked up when they are open, told. */
#include "imgfmt/map_backing.h"

int co_map_backing_ask(struct map *m, struct map_backing *b, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct blk_device *dev = m->dev, *given;
    unsigned flags = dev->open_flags & BLK_OPEN_FORCE_SHARE;
    if (blk_child(dev, "backing"))
        return 0;
    if (opener && opener_has(opener, "backing") && !b->name)
        return co_blk_want_child(dev, opener, "backing", flags, &given, e);
    if (!b->name)
        return 0;
    if (opener && opener_full_name(opener, b->name, &b->full_name) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    m->backing_missing = !opener || dev->open_flags & BLK_OPEN_NO_BACKING;
    if (m->backing_missing)
        return 0;
    return co_opener_reference(opener, dev, "backing", b->name, b->format, flags, e);
}

int co_map_backing_opened(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    m->backing = blk_child(dev, "backing");
    if (m->backing)
        m->backing_missing = false;
    bool behind = m->backing || m->backing_missing;
    dev->limits.fresh_reads_zero = !behind;
    dev->limits.discard_reads_zero = !behind;
    if (m->shape.no_zero_cells)
        dev->limits.can_zero_fast = !behind;
    return 0;
}

static int copy(const char *text, char **to)
{
    *to = text ? mem_strdup(text) : NULL;
    return text && !*to ? -ENOMEM : 0;
}

int map_backing_info(const struct map_backing *b, struct blk_info *out, struct blk_error *e)
{
    if (copy(b->name, &out->backing_name) < 0 || copy(b->format, &out->backing_format) < 0 ||
        copy(b->full_name, &out->full_backing_name) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    return 0;
}

void map_backing_drop(struct map_backing *b)
{
    mem_free(take(b->name));
    mem_free(take(b->format));
    mem_free(take(b->full_name));
}

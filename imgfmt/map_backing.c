/* SPDX-License-Identifier: BSD-3-Clause */
/* map_backing.c - the device behind an image: asked for while opening, found when it is there. */
#include "imgfmt/map_backing.h"
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

/* --- without it --- */

/* Writing any of it places all of the cluster anew. */
static int co_make_one_whole(struct map *m, uint64_t cluster)
{
    uint8_t sector[512];
    struct vec v = VEC_BUF(sector, sizeof(sector));
    uint64_t at = cluster << m->shape.cluster_bits;
    if (m->backing_missing)
        return -ENOTSUP;
    TRY(co_map_read(m->dev, at, &v));
    return co_map_write(m->dev, at, &v, 0);
}

int co_map_make_whole(struct map *m)
{
    uint64_t clusters = div_up(m->shape.size, m->cluster_bytes);
    for (uint64_t i = 0; i < clusters; i++) {
        struct map_cell cell;
        TRY(co_map_cell(m, i, &cell));
        if (cell.state == MAP_PARTIAL)
            TRY(co_make_one_whole(m, i));
    }
    return 0;
}

/* --- its name --- */

int co_map_backing_want(struct map *m, struct map_backing *b, struct blk_opener *opener,
                        struct blk_error *e)
{
    if (opener && b->name && opener_full_name(opener, b->name, &b->full_name) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    return co_map_want_backing(m, opener, b->name, b->format, e);
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

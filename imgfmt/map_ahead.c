/* SPDX-License-Identifier: BSD-3-Clause */
/* map_ahead.c - table pages are read ahead, many at a time, where a walk goes through an image in
 * order: tables lie scattered, and one after the other each would cost a whole trip to the disk.
 *
 * Only in images of two levels (a flat table lies together, and the host reads that ahead), only as
 * far as one page of the root names tables, and never more than a quarter of the cache. What cannot
 * be read is left to whoever really wants it. */
#include "imgfmt/map_private.h"

#define AHEAD 32u

struct ahead {
    struct map *map;
    uint64_t offset;
};

static int co_ahead_one(void *arg)
{
    const struct ahead *a = arg;
    struct meta_page *page;

    if (co_meta_get(a->map->meta, a->offset, a->map->format->table_rank, &page) == 0)
        meta_put(a->map->meta, page);
    return 0;
}

static bool is_cached(struct map *m, uint64_t offset)
{
    struct meta_page *page = meta_peek(m->meta, offset);

    if (page)
        meta_put(m->meta, page);
    return page;
}

/* Where page @number of the tables lies, if @root names it; 0: it does not, or there is none. */
static uint64_t place_of(struct map *m, const struct meta_page *root, uint64_t number)
{
    uint64_t slot = number << m->priv->page_bits, table = slot / m->shape.table_entries, offset;
    uint64_t at = m->shape.root_offset + table * m->shape.root_entry_bytes;
    bool shared;

    if (table >= m->shape.root_entries || at - root->offset >= m->priv->page_bytes ||
        m->format->root_decode(m, root->data + (at - root->offset), &offset, &shared) < 0 ||
        offset == 0 || offset % m->priv->page_bytes)
        return 0;
    return offset + slot % m->shape.table_entries * m->shape.entry_bytes;
}

void co_map_read_ahead(struct map *m, const struct meta_page *root, uint64_t number)
{
    uint64_t last = m->priv->last_page;
    uint64_t near = AHEAD * (m->shape.table_bytes / m->priv->page_bytes);
    uint64_t pages = MIN(AHEAD, meta_limit(m->meta) / m->priv->page_bytes / 4);
    struct ahead wanted[AHEAD];
    struct co_group g;
    unsigned n = 0;

    m->priv->last_page = number;
    if (number <= last || number - last > near)
        return;
    uint64_t offset = place_of(m, root, number);
    if (offset == 0 || is_cached(m, offset))
        return;
    for (uint64_t i = 0; i < near && n < pages; i++) {
        offset = place_of(m, root, number + i);
        if (offset && !is_cached(m, offset))
            wanted[n++] = (struct ahead){m, offset};
    }
    co_group_init(&g, AHEAD);
    for (unsigned i = 0; i < n; i++)
        co_group_start(&g, co_ahead_one, &wanted[i]);
    (void)!co_group_wait(&g);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels_odd.c - Parallels images whose clusters are no power of two (old ones have 63 sectors),
 * read only: the map engine counts in powers of two. A cluster is a chunk that is not packed. */
#include "imgfmt/chunks.h"
#include "imgfmt/meta.h"
#include "imgfmt/parallels.h"

#define PAGE_BYTES 4096

struct odd {
    struct chunks chunks;
    struct meta *meta;
    struct parallels_header h;
};

static int co_odd_find(struct chunks *chunks, uint64_t offset, struct chunk *out)
{
    struct odd *o = container_of(chunks, struct odd, chunks);
    uint64_t cluster = offset / o->h.cluster_bytes, begin = cluster * o->h.cluster_bytes;
    uint64_t at = sizeof(struct parallels_header_disk) + cluster * 4;
    struct meta_page *page;
    le32 raw;
    TRY(co_meta_get(o->meta, align_down(at, PAGE_BYTES), 0, &page));
    memcpy(&raw, page->data + at % PAGE_BYTES, sizeof(raw));
    meta_put(o->meta, page);
    *out = (struct chunk){.kind = le32_get(raw) ? CHUNK_RAW : CHUNK_ZERO,
                          .offset = begin,
                          .bytes = MIN(o->h.cluster_bytes, o->h.size - begin),
                          .packed_offset = le32_get(raw) * parallels_entry_unit(&o->h)};
    return 0;
}

static int co_odd_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct odd *o = dev->state;
    return co_chunks_read(&o->chunks, offset, to);
}

static int co_odd_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    struct odd *o = dev->state;
    return co_chunks_map(&o->chunks, offset, bytes, out);
}

static int co_odd_close(struct blk_device *dev, struct blk_error *e)
{
    struct odd *o = dev->state;
    co_meta_close(o->meta);
    mem_free(o);
    return 0;
}

static int co_odd_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct odd *o = dev->state;
    out->cluster_size = o->h.cluster_bytes;
    return 0;
}

static const struct blk_driver odd_driver = {
    .name = "parallels",
    .title = "Parallels expanding disk of odd clusters (read only)",
    .is_format = true,
    .co_close = co_odd_close,
    .co_reopen = co_readonly_reopen,
    .co_read = co_odd_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_map = co_odd_map,
    .co_info = co_odd_info,
};

int parallels_open_odd(struct blk_device *dev, struct blk_device *file,
                       const struct parallels_header *h, uint64_t cache_bytes, struct blk_error *e)
{
    if (dev->open_flags & BLK_OPEN_WRITE)
        return err_set(e, -EROFS,
                       "clusters of %u bytes, no power of two, are only read: convert it",
                       h->cluster_bytes);
    auto_free struct odd *o = mem_zalloc(sizeof(*o));
    if (!o)
        return err_set(e, -ENOMEM, "out of memory");
    struct meta_options options = {
        .file = file, .page_bytes = PAGE_BYTES, .limit_bytes = cache_bytes};
    o->chunks = (struct chunks){.file = file, .co_find = co_odd_find};
    o->h = *h;
    if (meta_open(&options, &o->meta) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    dev->driver = &odd_driver;
    dev->size = h->size;
    dev->state = take(o);
    return 0;
}

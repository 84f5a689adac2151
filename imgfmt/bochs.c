/* SPDX-License-Identifier: BSD-3-Clause */
/* bochs.c - Bochs' growing disks, read only.
 *
 *   | header 512 | catalog: le32 per extent | extents, in order of first write |
 *   an extent: | bitmap: a bit per sector | sectors |
 *
 * A catalog entry is the number of the extent that holds that part of the disk, or FREE. A sector
 * whose bit is clear reads zero. Reading is map.c's; extents are its cells, of the kind that the
 * bitmap refines. */
#include "imgfmt/bochs.h"
#include "imgfmt/map.h"

#define SECTOR      512u
#define CATALOG_MAX 0x100000u
#define EXTENT_MAX  0x800000u

struct bochs {
    struct map map; /* first: the engine's operations find it there */
    struct bochs_header h;
};

/* --- the header ------------------------------------------------------------------------------- */

static int parse_sizes(struct bochs_header *h, struct blk_error *e)
{
    if (!is_pow2(h->extent_bytes) || h->extent_bytes < SECTOR || h->extent_bytes > EXTENT_MAX)
        return err_bad(e, -EINVAL, "the header says extents of %u bytes, which no Bochs disk has",
                       h->extent_bytes);
    if (h->catalog > CATALOG_MAX)
        return err_bad(e, -EFBIG,
                       "the header says a catalog of %u entries; at most %u are possible",
                       h->catalog, CATALOG_MAX);
    if (h->catalog_offset % SECTOR || h->catalog_offset == 0)
        return err_bad(e, -EINVAL,
                       "the header puts the catalog at byte %" PRIu64
                       ", which is not at a sector of its own",
                       h->catalog_offset);
    if (h->bitmap_bytes > EXTENT_MAX || h->bitmap_bytes < div_up(h->extent_bytes / SECTOR, 8))
        return err_bad(e, -EINVAL, "a bitmap of %u bytes does not fit extents of %u",
                       h->bitmap_bytes, h->extent_bytes);
    if (h->size > INT64_MAX || div_up(h->size, h->extent_bytes) > h->catalog)
        return err_bad(e, -EINVAL, "%u extents of %u bytes are too few for a disk of %" PRIu64,
                       h->catalog, h->extent_bytes, h->size);
    h->bitmap_stride = align_up(h->bitmap_bytes, SECTOR);
    h->extent_stride = h->bitmap_stride + h->extent_bytes;
    h->data_offset = h->catalog_offset + h->catalog * 4ULL;
    return 0;
}

static bool is_growing(const struct bochs_header_disk *raw)
{
    uint32_t version = le32_get(raw->version);
    return strncmp(raw->magic, "Bochs Virtual HD Image", sizeof(raw->magic)) == 0 &&
           strncmp(raw->type, "Redolog", sizeof(raw->type)) == 0 &&
           strncmp(raw->subtype, "Growing", sizeof(raw->subtype)) == 0 &&
           (version == BOCHS_VERSION_1 || version == BOCHS_VERSION_2);
}

int bochs_header_parse(const struct bochs_header_disk *raw, struct bochs_header *out,
                       struct blk_error *e)
{
    le64 size;
    if (!is_growing(raw))
        return err_set(e, -EINVAL, "not a growing Bochs disk of version 1 or 2");
    memcpy(&size, raw->versioned + (le32_get(raw->version) == BOCHS_VERSION_1 ? 0 : 4),
           sizeof(size));
    *out = (struct bochs_header){
        .size = align_down(le64_get(size), SECTOR),
        .catalog_offset = le32_get(raw->header_bytes),
        .catalog = le32_get(raw->catalog),
        .bitmap_bytes = le32_get(raw->bitmap_bytes),
        .extent_bytes = le32_get(raw->extent_bytes),
    };
    return parse_sizes(out, e);
}

static int bochs_probe(const struct blk_probe *p, const char **reason)
{
    if (p->head_bytes < sizeof(struct bochs_header_disk))
        return 0;
    *reason = "the header of a growing Bochs disk";
    return is_growing((const struct bochs_header_disk *)p->head) ? 100 : 0;
}

/* --- entries ---------------------------------------------------------------------------------- */

static int bochs_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    const struct bochs_header *h = &container_of(m, struct bochs, map)->h;
    le32 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint32_t extent = le32_get(raw);
    out->state = extent == BOCHS_FREE ? MAP_HOLE : MAP_PARTIAL;
    if (out->state == MAP_PARTIAL) /* below 2^32 * 2^24 */
        out->offset = h->data_offset + extent * h->extent_stride + h->bitmap_stride;
    return 0;
}

/* The bit of @sector in the bitmap at @at; pages are kept by the metadata cache. */
static int co_bit(struct map *m, uint64_t at, uint32_t sector, struct meta_page **page, bool *set)
{
    uint64_t byte = at + sector / 8, page_bytes = meta_page_bytes(m->meta);
    if (*page && (*page)->offset != align_down(byte, page_bytes)) {
        meta_put(m->meta, *page);
        *page = NULL;
    }
    if (!*page)
        TRY(co_meta_get(m->meta, align_down(byte, page_bytes), 0, page));
    *set = (*page)->data[byte % page_bytes] >> (sector % 8) & 1;
    return 0;
}

static int co_bochs_subrange(struct map *m, const struct map_cell *cell, uint64_t cluster,
                             uint32_t at, uint32_t *bytes, enum map_state *state)
{
    const struct bochs_header *h = &container_of(m, struct bochs, map)->h;
    uint64_t bitmap = cell->offset - h->bitmap_stride;
    uint64_t end = MIN((uint64_t)at + *bytes, h->extent_bytes);
    uint32_t sector = at / SECTOR;
    struct meta_page *page = NULL;
    bool first, next;
    int rc = co_bit(m, bitmap, sector, &page, &first);
    while (rc == 0 && (uint64_t)++sector * SECTOR < end) {
        rc = co_bit(m, bitmap, sector, &page, &next);
        if (rc == 0 && next != first)
            break;
    }
    if (page)
        meta_put(m->meta, page);
    *bytes = (uint32_t)(MIN((uint64_t)sector * SECTOR, end) - at);
    *state = rc == 0 && first ? MAP_DATA : MAP_ZERO;
    return rc;
}

static const struct map_format bochs_format = {
    .decode = bochs_decode,
    .co_subrange = co_bochs_subrange,
};

/* --- the driver ------------------------------------------------------------------------------- */

static int make_map(struct bochs *b, struct blk_device *dev, uint64_t limit, struct blk_error *e)
{
    b->map.dev = dev;
    b->map.data = b->map.file;
    b->map.format = &bochs_format;
    b->map.shape = (struct map_shape){
        .size = b->h.size,
        .cluster_bits = log2_floor(b->h.extent_bytes),
        .entry_bytes = 4,
        .levels = 1,
        .root_offset = b->h.catalog_offset,
        .root_entries = b->h.catalog,
        .stands_alone = true,
    };
    struct meta_options o = {.file = b->map.file, .page_bytes = SECTOR, .limit_bytes = limit};
    int rc = meta_open(&o, &b->map.meta);
    return rc < 0 ? err_set(e, rc, "out of memory") : map_attach(&b->map, e);
}

static int co_open_parts(struct bochs *b, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct bochs_header_disk raw;
    TRY(co_readonly_file(dev, opener, &b->map.file, e));
    if (b->map.file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a Bochs disk",
                       b->map.file->size);
    int rc = co_blk_read_buf(b->map.file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    TRY(bochs_header_parse(&raw, &b->h, e));
    if (b->h.data_offset > b->map.file->size)
        return err_bad(e, -EINVAL, "a catalog of %" PRIu64 " entries ends past the file",
                       (uint64_t)b->h.catalog);
    return make_map(b, dev, opts_number(opts, "cache-size"), e);
}

static int co_bochs_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct bochs *b = mem_zalloc(sizeof(*b));
    if (!b)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(b, dev, opts, opener, e);
    if (rc < 0) {
        co_map_detach(&b->map);
        mem_free(b);
        return rc;
    }
    dev->state = b;
    dev->size = b->h.size;
    return 0;
}

static int co_bochs_close(struct blk_device *dev, struct blk_error *e)
{
    struct bochs *b = dev->state;
    co_map_detach(&b->map);
    mem_free(b);
    return 0;
}

static const struct opt_desc bochs_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the image lies in"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of catalog and bitmaps kept in memory",
     .preset = "4M",
     .min = 64 * KiB},
    {0},
};

const struct blk_driver bochs_driver = {
    .name = "bochs",
    .title = "Bochs growing disk (read only)",
    .extensions = "bochs",
    .is_format = true,
    .open_options = bochs_options,
    .probe = bochs_probe,
    .co_open = co_bochs_open,
    .co_close = co_bochs_close,
    .co_reopen = co_readonly_reopen,
    .co_read = co_map_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .resolve = map_resolve,
    .co_map = co_map_map,
};

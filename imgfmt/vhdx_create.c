/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_create.c - new VHDX images.
 *
 *   | identifier, headers, region tables 1M | log | metadata 1M | block table | blocks |
 *
 * All GUIDs follow from the option uuid where that is told, so that the same input makes the same
 * bytes; else they are random. The identifier is written last. */
#include "block/utf16.h"
#include "block/uuid.h"
#include "imgfmt/vhdx.h"

#define ITEMS_AT   (64 * KiB) /* in the metadata region */
#define LOCATOR_AT (ITEMS_AT + 4 * KiB)

enum { SUB_DYNAMIC, SUB_FIXED };
static const char *const subformats[] = {"dynamic", "fixed", NULL};

const struct opt_desc vhdx_create_options[] = {
    {.name = "subformat",
     .type = OPT_ENUM,
     .choices = subformats,
     .preset = "dynamic",
     .help = "VHDX format type, can be either 'dynamic' or 'fixed'"},
    {.name = "block_size",
     .type = OPT_SIZE,
     .preset = "0",
     .max = 256 * MiB,
     .help = "bytes that are allocated at once, 1M to 256M; 0: by the size of the disk"},
    {.name = "log_size",
     .type = OPT_SIZE,
     .preset = "1M",
     .min = MiB,
     .max = UINT32_MAX,
     .help = "bytes of the log, whole MiB"},
    {.name = "block_state_zero",
     .type = OPT_BOOL,
     .preset = "on",
     .help = "new blocks are marked as zero, instead of as not present"},
    {.name = "logical_sector_size",
     .type = OPT_SIZE,
     .preset = "512",
     .help = "that guests see: 512 or 4096"},
    {.name = "physical_sector_size",
     .type = OPT_SIZE,
     .preset = "512",
     .help = "that guests are told: 512 or 4096"},
    {.name = "uuid", .type = OPT_STRING, .help = "of the virtual disk (default: a new one)"},
    {.name = "backing_file", .type = OPT_STRING, .help = "the parent of a differencing image"},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "format of the parent"},
    {0},
};

struct plan {
    const struct blk_create *c; /* NULL: it is only measured */
    const struct opts *opts;
    uint64_t size; /* that is asked for */
    struct vhdx_metadata d;
    uint64_t log_bytes, metadata_at, table_at, data_at, entries, end;
    const char *parent; /* NULL: none */
    uint8_t uuid[16];   /* RFC 4122 order */
    bool zero;
    uint8_t identifier[64 * KiB];
    struct vhdx_header_disk headers[2];
    struct vhdx_regions_disk regions;
    struct vhdx_metadata_disk table;
    uint8_t items[512];
    uint8_t locator[VHDX_LOCATOR_ROOM];
    size_t locator_bytes;
};

static uint64_t block_for(uint64_t size)
{
    return size > 32 * TiB    ? 64 * MiB
           : size > 100 * GiB ? 32 * MiB
           : size > GiB       ? 16 * MiB
                              : 8 * MiB;
}

static int choose(struct plan *p, struct blk_error *e)
{
    const struct opts *o = p->opts;
    uint64_t block = opts_number(o, "block_size");
    p->d.block_bytes = block ? block : block_for(p->size);
    p->d.logical = opts_number(o, "logical_sector_size");
    p->d.physical = MAX(opts_number(o, "physical_sector_size"), p->d.logical);
    p->d.fixed = opts_number(o, "subformat") == SUB_FIXED;
    p->log_bytes = opts_number(o, "log_size");
    p->parent = opts_text(o, "backing_file");
    p->parent = p->parent && *p->parent ? p->parent : NULL;
    p->d.has_parent = p->parent;
    p->zero = opts_bool(o, "block_state_zero") && !p->parent;
    if (!is_pow2(p->d.block_bytes) || p->d.block_bytes < MiB)
        return err_set(e, -EINVAL, "block_size must be a power of two from 1M to 256M");
    if (p->log_bytes % MiB)
        return err_set(e, -EINVAL, "log_size must be whole MiB");
    if ((p->d.logical != 512 && p->d.logical != 4096) ||
        (p->d.physical != 512 && p->d.physical != 4096))
        return err_set(e, -EINVAL, "sectors have 512 or 4096 bytes");
    if (p->size > VHDX_SIZE_MOST)
        return err_set(e, -EFBIG, "a VHDX image cannot be larger than 64 TiB");
    if (p->d.fixed && p->parent)
        return err_set(e, -EINVAL, "a fixed VHDX image has no parent");
    p->d.size = align_up(p->size, p->d.logical);
    return 0;
}

static void lay_out(struct plan *p)
{
    p->entries = vhdx_entries(&p->d, p->d.size);
    p->metadata_at = MiB + p->log_bytes;
    p->table_at = p->metadata_at + MiB;
    p->data_at = p->table_at + MAX(align_up(p->entries * 8, MiB), MiB);
    p->end = p->data_at + (p->d.fixed ? align_up(p->d.size, p->d.block_bytes) : 0);
}

/* GUID number @which of the image, as it lies in the file. */
static void guid_of(const struct plan *p, uint8_t which, uint8_t out[16])
{
    uint8_t guid[16];
    uuid_derive(p->uuid, which, guid);
    uuid_swap(guid, out);
}

static void fill_headers(struct plan *p)
{
    memcpy(p->identifier, "vhdxfile", 8);
    (void)!utf16_from_text("lamina", false, p->identifier + 8, 512);
    if (p->c->fresh)
        memset(p->identifier, 0, 8);
    for (unsigned i = 0; i < 2; i++) {
        struct vhdx_header_disk *h = &p->headers[i];
        memcpy(h->signature, "head", 4);
        h->sequence = le64_of(i);
        h->version = le16_of(1);
        h->log_offset = le64_of(MiB);
        h->log_bytes = le32_of(p->log_bytes);
        guid_of(p, 1, h->file_write);
        guid_of(p, 2, h->data_write);
        vhdx_seal(h, sizeof(*h));
    }
}

static void fill_regions(struct plan *p)
{
    struct vhdx_regions_disk *r = &p->regions;
    memcpy(r->signature, "regi", 4);
    r->count = le32_of(2);
    memcpy(r->regions[0].guid, vhdx_guid_table, 16);
    r->regions[0].offset = le64_of(p->table_at);
    r->regions[0].bytes = le32_of(p->data_at - p->table_at);
    memcpy(r->regions[1].guid, vhdx_guid_metadata, 16);
    r->regions[1].offset = le64_of(p->metadata_at);
    r->regions[1].bytes = le32_of(MiB);
    r->regions[0].required = r->regions[1].required = le32_of(1);
    vhdx_seal(r, sizeof(*r));
}

/* The next item, whose contents are @bytes at @from of p->items. */
static void add_item(struct plan *p, enum vhdx_item i, uint32_t offset, uint32_t bytes)
{
    uint16_t n = le16_get(p->table.count);
    struct vhdx_item_disk *item = &p->table.items[n];
    bool of_disk = i != VHDX_ITEM_FILE && i != VHDX_ITEM_PARENT;
    memcpy(item->guid, vhdx_items[i].guid, 16);
    item->offset = le32_of(offset);
    item->bytes = le32_of(bytes);
    item->flags = le32_of(of_disk ? 6 : 4);
    p->table.count = le16_of(n + 1);
}

static void fill_metadata(struct plan *p)
{
    const struct vhdx_metadata *d = &p->d;
    le32 file[2] = {le32_of(d->block_bytes), le32_of((d->fixed ? 1 : 0) | (d->has_parent ? 2 : 0))};
    le64 size = le64_of(d->size);
    le32 logical = le32_of(d->logical), physical = le32_of(d->physical);
    uint8_t id[16];
    uuid_swap(p->uuid, id);
    const struct {
        const void *bytes;
        uint32_t count;
    } contents[] = {{file, 8}, {&size, 8}, {id, 16}, {&logical, 4}, {&physical, 4}};
    memcpy(p->table.signature, "metadata", 8);
    for (unsigned i = 0, at = 0; i < ARRAY_LEN(contents); at += contents[i++].count) {
        memcpy(p->items + at, contents[i].bytes, contents[i].count);
        add_item(p, i, ITEMS_AT + at, contents[i].count);
    }
    if (p->parent)
        add_item(p, VHDX_ITEM_PARENT, LOCATOR_AT, p->locator_bytes);
}

/* --- the parent --- */

static int name_parent(struct plan *p, struct blk_error *e)
{
    p->locator_bytes = vhdx_locator_make(p->parent, vhdx_identity(p->c->backing), p->locator);
    return p->locator_bytes
               ? 0
               : err_set(e, -EINVAL, "the name of the parent is too long, or no UTF-8");
}

/* --- writing --- */

static void fill_entries(const void *arg, uint64_t first, uint64_t count, void *to)
{
    const struct plan *p = arg;
    uint64_t ratio = vhdx_chunk_ratio(&p->d);
    le64 *entries = to;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t slot = first + i, block = slot - slot / (ratio + 1);
        bool bitmap = slot % (ratio + 1) == ratio, beyond = slot >= p->entries;
        uint64_t at = p->data_at + block * p->d.block_bytes;
        uint64_t value = p->d.fixed ? at | VHDX_PRESENT : p->zero ? VHDX_ZERO : VHDX_NOT_PRESENT;
        entries[i] = le64_of(bitmap || beyond ? 0 : value);
    }
}

static int co_write(struct plan *p, struct blk_error *e)
{
    uint64_t data_bytes = p->end - p->data_at;
    struct map_units_piece pieces[] = {
        {VHDX_HEADER_AT(0), &p->headers[0], sizeof(p->headers[0])},
        {VHDX_HEADER_AT(1), &p->headers[1], sizeof(p->headers[1])},
        {VHDX_REGIONS_AT(0), &p->regions, sizeof(p->regions)},
        {VHDX_REGIONS_AT(1), &p->regions, sizeof(p->regions)},
        {p->metadata_at, &p->table, sizeof(p->table)},
        {p->metadata_at + ITEMS_AT, p->items, sizeof(p->items)},
        {p->metadata_at + LOCATOR_AT, p->locator, sizeof(p->locator)},
    };
    struct map_units_image image = {
        .end = p->end,
        .table_offset = p->table_at,
        .table_bytes = MAX(align_up(p->entries * 8, 4096), 4096),
        .entries = p->entries,
        .entry_bytes = 8,
        .fill = fill_entries,
        .arg = p,
        .zero_offset = p->data_at,
        .zero_bytes = data_bytes,
        .pieces = pieces,
        .piece_count = ARRAY_LEN(pieces),
        .last = {0, p->identifier, sizeof(p->identifier)},
    };
    return co_map_units_create(p->c, &image, e);
}

int co_vhdx_create(const struct blk_create *c, struct blk_error *e)
{
    auto_free struct plan *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    p->c = c;
    p->opts = c->opts;
    p->size = c->size;
    TRY(choose(p, e));
    TRY(uuid_choose(c->file->host, opts_text(c->opts, "uuid"), p->uuid, e));
    lay_out(p);
    if (p->parent)
        TRY(name_parent(p, e));
    fill_headers(p);
    fill_regions(p);
    fill_metadata(p);
    return co_write(p, e);
}

int co_vhdx_measure(struct blk_measure *m, struct blk_error *e)
{
    auto_free struct plan *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    p->opts = m->opts;
    p->size = m->size;
    TRY(choose(p, e));
    lay_out(p);
    struct map_units_measure u = {.size = p->d.size,
                                  .empty_bytes = p->end,
                                  .cluster_bytes = p->d.block_bytes,
                                  .unit_bytes = p->d.fixed ? 0 : p->d.block_bytes,
                                  .overlay = opts_given(m->opts, "backing_file")};
    return co_map_units_measure(m, &u, e);
}

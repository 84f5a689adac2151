/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - VirtualBox disk images.
 *
 *   | header 512 | ... | block map: le32 per block of 1 MiB | ... | blocks in order of first write
 * |
 *
 * An entry is a block number, or FREE (a hole), or ZERO. Reading and writing are map.c's; this file
 * knows the header and the entry; which block numbers are owned, checking, moving and resizing are
 * map_units.c's.
 *
 * What is durable before what:
 *   1 block data -> map entry, where the block hides older contents or its space was used before
 *   2 header's `allocated` (rank 0) -> map entry (rank 1): after a crash it may be too high, which
 *     leaks, never too low, which would hand out an owned block
 *   3 map entry let go -> its block number is reused, its space punched
 * The number that the next block gets is taken from the map, never from the header. */
#include "imgfmt/vdi.h"
#include "block/resolver.h"
#include "block/uuid.h"
#include "imgfmt/vbox.h"

#define MAP_AT      (4 * KiB)  /* where we put the map of a new image */
#define MOST_BLOCKS 0x1fffff7f /* VirtualBox's bound; the map of so many ends well below 4 GiB */

/* --- the header --- */

static int parse_geometry(const struct vdi_header_disk *raw, struct vdi_header *out,
                          uint64_t file_bytes, struct blk_error *e)
{
    uint64_t map_bytes = out->blocks * 4ULL;
    if (le32_get(raw->sector_bytes) != 512)
        return err_bad(e, -EINVAL, "the header says sectors of %u bytes; VDI has 512",
                       le32_get(raw->sector_bytes));
    if (!is_pow2(out->block_bytes) || out->block_bytes < 4096 || out->block_bytes > 256 * MiB)
        return err_bad(
            e, -EINVAL,
            "the header says blocks of %u bytes: not a power of two from 4 KiB to 256 MiB",
            out->block_bytes);
    if (le32_get(raw->block_extra) != 0)
        return err_bad(e, -ENOTSUP, "blocks with %u extra bytes are unknown",
                       le32_get(raw->block_extra));
    if (out->map_offset % 512 || out->data_offset % 512 || out->map_offset < 512)
        return err_bad(e, -EINVAL,
                       "the header puts the map at byte %u and the data at %u, not each at a "
                       "sector of its own",
                       out->map_offset, out->data_offset);
    if (!range_fits(out->map_offset, map_bytes, file_bytes))
        return err_bad(e, -EINVAL,
                       "the block map of %u entries at %u ends past the file (%" PRIu64 " bytes)",
                       out->blocks, out->map_offset, file_bytes);
    if (out->map_offset + map_bytes > out->data_offset)
        return err_bad(e, -EINVAL, "the block map of %u entries at %u reaches into the data at %u",
                       out->blocks, out->map_offset, out->data_offset);
    if (out->size > out->blocks * (uint64_t)out->block_bytes)
        return err_bad(e, -EINVAL, "%u blocks of %u bytes are too few for a disk of %" PRIu64,
                       out->blocks, out->block_bytes, out->size);
    return 0;
}

int vdi_header_parse(const struct vdi_header_disk *raw, uint64_t file_bytes, bool fresh,
                     struct vdi_header *out, struct blk_error *e)
{
    uint32_t signature = le32_get(raw->signature), version = le32_get(raw->version);
    bool parent = !uuid_is_nil(raw->ids.parent);
    if (signature != VDI_SIGNATURE && !(fresh && signature == 0))
        return err_wrong_format(e, "not a VDI image (signature %08x)", signature);
    if (version != VDI_VERSION)
        return err_bad(e, -ENOTSUP, "VDI version %u.%u is unknown; 1.1 is", version >> 16,
                       version & 0xffff);
    *out = (struct vdi_header){
        .size = align_up(MIN(le64_get(raw->size), 1ULL << 62), 512),
        .map_offset = le32_get(raw->map_offset),
        .data_offset = le32_get(raw->data_offset),
        .block_bytes = le32_get(raw->block_bytes),
        .blocks = le32_get(raw->blocks),
        .allocated = le32_get(raw->allocated),
        .type = le32_get(raw->type),
        .ids = raw->ids,
    };
    if (out->type != VDI_DYNAMIC && out->type != VDI_STATIC && out->type != VDI_DIFFERENCING)
        return err_bad(e, -ENOTSUP, "VDI type %u is unknown; 1, 2 and 4 are", out->type);
    if (parent != (out->type == VDI_DIFFERENCING))
        return err_set(e, parent ? -ENOTSUP : -EINVAL, "of VDI type %u, and %s parent", out->type,
                       parent ? "yet it has a" : "it has no");
    return parse_geometry(raw, out, file_bytes, e);
}

static int vdi_probe(const struct blk_probe *p, const char **reason)
{
    le32 signature;
    if (p->head_bytes < sizeof(struct vdi_header_disk))
        return 0;
    memcpy(&signature, p->head + offsetof(struct vdi_header_disk, signature), 4);
    *reason = "the VDI signature at byte 64";
    return le32_get(signature) == VDI_SIGNATURE ? 100 : 0;
}

/* --- the entry --- */

static int vdi_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    le32 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint32_t block = le32_get(raw);
    out->state = block == VDI_FREE ? MAP_HOLE : block == VDI_ZERO ? MAP_ZERO : MAP_DATA;
    if (out->state == MAP_DATA)
        out->offset = m->units->base + ((uint64_t)block << m->shape.cluster_bits);
    return 0;
}

static void vdi_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    uint32_t block = cell->state == MAP_HOLE ? VDI_FREE : VDI_ZERO;
    if (cell->state == MAP_DATA)
        block = map_units_number(m, cell->offset);
    le32 raw = le32_of(block);
    memcpy(entry, &raw, sizeof(raw));
}

/* --- the header's count --- */

static struct vdi *vdi_of(struct map *m)
{
    return container_of(m, struct vdi, map);
}

static int set_allocated(struct vdi *v, uint64_t allocated)
{
    if (v->h.allocated == allocated)
        return 0;
    TRY(meta_touch(v->map.meta, v->header));
    v->h.allocated = allocated;
    ((struct vdi_header_disk *)v->header->data)->allocated = le32_of(allocated);
    return 0;
}

static int vdi_commit(struct map *m, const struct map_update *u, size_t count)
{
    struct vdi *v = vdi_of(m);
    uint64_t allocated = v->h.allocated;
    for (size_t i = 0; i < count; i++)
        if (u[i].now.state == MAP_DATA)
            allocated = MAX(allocated, map_units_number(m, u[i].now.offset) + 1);
    return set_allocated(v, allocated);
}

static int co_vdi_begin(struct map *m)
{
    struct vdi *v = vdi_of(m);
    if (!v->header)
        TRY(co_meta_get(m->meta, 0, VDI_RANK_HEADER, &v->header));
    TRY(meta_touch(m->meta, v->header));
    if (!m->fresh) /* children see that their parent changed */
        host_uuid(m->dev->host, v->h.ids.modify);
    memcpy(((struct vdi_header_disk *)v->header->data)->ids.modify, v->h.ids.modify, 16);
    return set_allocated(v, v->units.space.next);
}

static int co_vdi_end(struct map *m)
{
    TRY(set_allocated(vdi_of(m), m->units->space.next));
    return co_meta_write_back(m->meta, !m->fresh);
}

static void fill_header(struct map *m, void *page)
{
    struct vdi_header_disk *raw = page;
    raw->signature = le32_of(m->units->unfinished ? 0 : VDI_SIGNATURE);
    raw->map_offset = le32_of(m->shape.root_offset);
    raw->data_offset = le32_of(m->units->base);
    raw->size = le64_of(m->shape.size);
    raw->blocks = le32_of(m->shape.root_entries);
    raw->allocated = le32_of(vdi_of(m)->h.allocated = m->units->space.next);
}

static int co_vdi_publish(struct map *m)
{
    if (m->units->base > UINT32_MAX)
        return -EFBIG;
    return co_map_units_rewrite(m, 0, VDI_RANK_HEADER, fill_header);
}

static int co_vdi_check(struct map *m, struct blk_check *c)
{
    uint64_t allocated = vdi_of(m)->h.allocated, next = m->units->space.next;
    uint64_t known = MAX(next, map_units_in_file(m));
    uint64_t leaks = MAX(allocated, known) - known;
    map_units_say(c, MAX(next, allocated) - allocated, "blocks lie beyond the header's count");
    map_units_say(c, leaks, "blocks are counted but not owned by any entry");
    c->corruptions += next > allocated;
    c->leaks += leaks;
    return 0;
}

static const struct map_units_ops vdi_units = {
    .co_begin = co_vdi_begin,
    .co_end = co_vdi_end,
    .co_publish = co_vdi_publish,
    .co_check = co_vdi_check,
};

static const struct map_format vdi_format = {
    .decode = vdi_decode,
    .encode = vdi_encode,
    MAP_UNITS_HOOKS,
    .commit = vdi_commit,
    .table_rank = VDI_RANK_MAP,
};

/* --- creating --- */

static const struct opt_desc vdi_create_options[] = {
    {.name = "static", .type = OPT_BOOL, .help = "allocate all blocks at once", .preset = "off"},
    {.name = "uuid", .type = OPT_STRING, .help = "the image's UUID (else random)", .ours = true},
    {.name = "backing_file", .type = OPT_STRING, .help = "a VDI image behind it", .ours = true},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "its format: vdi", .ours = true},
    {0},
};

static void fill_entries(const void *arg, uint64_t first, uint64_t count, void *to)
{
    const uint64_t *owned = arg;
    le32 *entries = to;
    for (uint64_t i = first; i < first + count; i++)
        entries[i - first] = le32_of(i < *owned ? i : VDI_FREE);
}

static int choose_uuids(const struct blk_create *c, struct vdi_header_disk *raw,
                        struct blk_error *e)
{
    uint8_t uuid[16], modify[16];
    TRY(uuid_choose(c->file->host, opts_text(c->opts, "uuid"), uuid, e));
    uuid_derive(uuid, 1, modify);
    uuid_swap(uuid, raw->ids.image);
    uuid_swap(modify, raw->ids.modify);
    return co_vdi_name_parent(c->backing, raw, e);
}

static int co_vdi_measure(struct blk_measure *m, struct blk_error *e)
{
    bool is_static = opts_bool(m->opts, "static");
    uint64_t blocks = div_up(m->size, VDI_BLOCK);
    uint64_t data = align_up(MAP_AT + align_up(blocks * 4, 4096), VDI_BLOCK);
    if (blocks > MOST_BLOCKS)
        return err_set(e, -EFBIG, "a VDI image cannot be larger than 512 TiB");
    struct map_units_measure u = {.size = m->size,
                                  .empty_bytes = data + (is_static ? blocks * VDI_BLOCK : 0),
                                  .cluster_bytes = VDI_BLOCK,
                                  .unit_bytes = is_static ? 0 : VDI_BLOCK,
                                  .overlay = opts_given(m->opts, "backing_file")};
    return co_map_units_measure(m, &u, e);
}

static int co_vdi_create(const struct blk_create *c, struct blk_error *e)
{
    bool is_static = opts_bool(c->opts, "static");
    uint64_t blocks = div_up(c->size, VDI_BLOCK), map_bytes = align_up(blocks * 4, 4096);
    uint64_t owned = is_static ? blocks : 0, data = align_up(MAP_AT + map_bytes, VDI_BLOCK);
    if (blocks > MOST_BLOCKS)
        return err_set(e, -EFBIG, "a VDI image cannot be larger than 512 TiB");
    if (is_static && c->backing)
        return err_set(e, -EINVAL, "a static VDI image has no parent");
    struct vdi_header_disk raw = {
        .text = "<<< lamina VirtualBox disk image >>>\n",
        .signature = le32_of(c->fresh ? 0 : VDI_SIGNATURE),
        .version = le32_of(VDI_VERSION),
        .header_bytes = le32_of(0x180),
        .type = le32_of(is_static ? VDI_STATIC : VDI_DYNAMIC),
        .map_offset = le32_of(MAP_AT),
        .data_offset = le32_of(data),
        .sector_bytes = le32_of(512),
        .size = le64_of(align_up(c->size, 512)),
        .block_bytes = le32_of(VDI_BLOCK),
        .blocks = le32_of(blocks),
        .allocated = le32_of(owned),
    };
    TRY(choose_uuids(c, &raw, e));
    struct map_units_image image = {
        .end = data + owned * VDI_BLOCK,
        .table_offset = MAP_AT,
        .table_bytes = map_bytes,
        .entry_bytes = 4,
        .fill = fill_entries,
        .arg = &owned,
        .zero_offset = data,
        .zero_bytes = owned * VDI_BLOCK,
        .last = {0, &raw, sizeof(raw)},
    };
    return co_map_units_create(c, &image, e);
}

/* --- the driver --- */

static void fill_map(struct vdi *v, struct blk_device *dev, struct blk_device *file)
{
    const struct vdi_header *h = &v->h;
    v->map = (struct map){
        .dev = dev,
        .file = file,
        .format = &vdi_format,
        .units = &v->units,
        .fresh = dev->open_flags & BLK_OPEN_FRESH,
        .shape = {.size = h->size,
                  .cluster_bits = log2_floor(h->block_bytes),
                  .entry_bytes = 4,
                  .levels = 1,
                  .root_offset = h->map_offset,
                  .root_entries = h->blocks,
                  .tight = true,
                  .stands_alone = h->type != VDI_DIFFERENCING,
                  .file_has_holes = h->type == VDI_STATIC,
                  .keeps_all = h->type == VDI_STATIC},
    };
    v->units = (struct map_units){
        .ops = &vdi_units,
        .base = h->data_offset,
        .unit_bytes = h->block_bytes,
        .cluster_limit = MOST_BLOCKS,
        .table = UNITS_TABLE_FRONT,
        .dense = true,
    };
}

static int co_vdi_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct vdi_header_disk raw;
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    if (file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a VDI image", file->size);
    int rc = co_blk_read_buf(file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    auto_free struct vdi *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(vdi_header_parse(&raw, file->size, dev->open_flags & BLK_OPEN_FRESH, &v->h, e));
    fill_map(v, dev, file);
    v->units.unfinished = le32_get(raw.signature) != VDI_SIGNATURE;
    TRY(co_map_units_open(&v->map, opts_number(opts, "cache-size"), e));
    rc = co_vdi_want_parent(v, opener, e);
    if (rc < 0)
        co_map_detach(&v->map);
    else
        (void)take(v); /* the device's now */
    return rc;
}

static int co_vdi_close(struct blk_device *dev, struct blk_error *e)
{
    struct vdi *v = dev->state;
    int rc = co_map_units_close(&v->map, e);
    mem_free(v->parent_name);
    mem_free(v);
    return rc;
}

const struct blk_driver vdi_driver = {
    .name = "vdi",
    .title = "VirtualBox disk image",
    .extensions = "vdi",
    MAP_UNITS_DRIVER,
    .knows_backing = true,
    .check_is_bare = true,
    .create_options = vdi_create_options,
    .probe = vdi_probe,
    .co_create = co_vdi_create,
    .co_measure = co_vdi_measure,
    .measure_is_ours = true,
    .co_open = co_vdi_open,
    .co_opened = co_vdi_opened,
    .co_close = co_vdi_close,
    .co_identify_backing = co_vdi_identify_backing,
    .co_change_backing = co_vdi_change_backing,
    .co_info = co_vdi_info,
};

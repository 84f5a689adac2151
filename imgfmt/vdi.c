/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - VirtualBox disk images.
 *
 *   | header 512 | ... | block map: le32 per block of 1 MiB | ... | blocks in order of first write
 * |
 *
 * An entry is a block number, or FREE (a hole), or ZERO. Reading and writing are map.c's; this file
 * knows the header, the entry, and which block numbers are owned. vdi_tool.c creates, resizes,
 * checks and tidies.
 *
 * What is durable before what:
 *   1 block data -> map entry, where the block hides older contents or its space was used before
 *   2 header's `allocated` (rank 0) -> map entry (rank 1): after a crash it may be too high, which
 *     leaks, never too low, which would hand out an owned block
 *   3 map entry let go -> its block number is reused, its space punched
 * The number that the next block gets is taken from the map, never from the header. */
#include "imgfmt/vdi.h"

#define RANK_HEADER 0
#define RANK_MAP    1

/* --- the header --- */

static int parse_geometry(const struct vdi_header_disk *raw, struct vdi_header *out,
                          uint64_t file_bytes, struct blk_error *e)
{
    uint64_t map_bytes = out->blocks * 4ULL;
    if (le32_get(raw->sector_bytes) != 512)
        return err_set(e, -EINVAL, "sectors of %u bytes; VDI has 512", le32_get(raw->sector_bytes));
    if (!is_pow2(out->block_bytes) || out->block_bytes < 4096 || out->block_bytes > 256 * MiB)
        return err_set(e, -EINVAL, "a block size of %u is none", out->block_bytes);
    if (le32_get(raw->block_extra) != 0)
        return err_set(e, -ENOTSUP, "blocks with %u extra bytes are unknown",
                       le32_get(raw->block_extra));
    if (out->map_offset % 512 || out->data_offset % 512 || out->map_offset < 512)
        return err_set(e, -EINVAL, "map at %u or data at %u is not at a sector of its own",
                       out->map_offset, out->data_offset);
    if (!range_fits(out->map_offset, map_bytes, file_bytes))
        return err_set(e, -EINVAL,
                       "the block map of %u entries at %u ends past the file (%" PRIu64 " bytes)",
                       out->blocks, out->map_offset, file_bytes);
    if (out->map_offset + map_bytes > out->data_offset)
        return err_set(e, -EINVAL, "the block map of %u entries at %u reaches into the data at %u",
                       out->blocks, out->map_offset, out->data_offset);
    if (out->size > out->blocks * (uint64_t)out->block_bytes)
        return err_set(e, -EINVAL, "%u blocks of %u bytes are too few for a disk of %" PRIu64,
                       out->blocks, out->block_bytes, out->size);
    return 0;
}

int vdi_header_parse(const struct vdi_header_disk *raw, uint64_t file_bytes, bool fresh,
                     struct vdi_header *out, struct blk_error *e)
{
    static const uint8_t none[16];
    uint32_t signature = le32_get(raw->signature), version = le32_get(raw->version);
    if (signature != VDI_SIGNATURE && !(fresh && signature == 0))
        return err_set(e, -EINVAL, "not a VDI image (signature %08x)", signature);
    if (version != VDI_VERSION)
        return err_set(e, -ENOTSUP, "VDI version %u.%u is unknown; 1.1 is", version >> 16,
                       version & 0xffff);
    *out = (struct vdi_header){
        .size = align_up(MIN(le64_get(raw->size), 1ULL << 62), 512),
        .map_offset = le32_get(raw->map_offset),
        .data_offset = le32_get(raw->data_offset),
        .block_bytes = le32_get(raw->block_bytes),
        .blocks = le32_get(raw->blocks),
        .allocated = le32_get(raw->allocated),
        .type = le32_get(raw->type),
    };
    if (out->type == VDI_DIFFERENCING || memcmp(raw->uuid_parent, none, 16) != 0)
        return err_set(e, -ENOTSUP, "a differencing VDI image (with a parent) cannot be opened");
    if (out->type != VDI_DYNAMIC && out->type != VDI_STATIC)
        return err_set(e, -ENOTSUP, "VDI type %u is unknown; 1 (dynamic) and 2 (static) are",
                       out->type);
    return parse_geometry(raw, out, file_bytes, e);
}

static int vdi_probe(const struct blk_probe *p, const char **reason)
{
    struct vdi_header_disk raw;
    if (p->head_bytes < sizeof(raw))
        return 0;
    memcpy(&raw, p->head, sizeof(raw));
    if (le32_get(raw.signature) != VDI_SIGNATURE)
        return 0;
    *reason = "the VDI signature at byte 64";
    return 100;
}

/* --- the entry --- */

static int vdi_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    const struct vdi *v = container_of(m, struct vdi, map);
    le32 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint32_t block = le32_get(raw);
    out->state = block == VDI_FREE ? MAP_HOLE : block == VDI_ZERO ? MAP_ZERO : MAP_DATA;
    if (out->state == MAP_DATA)
        out->offset = v->h.data_offset + ((uint64_t)block << m->shape.cluster_bits);
    return 0;
}

static void vdi_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    const struct vdi *v = container_of(m, struct vdi, map);
    uint32_t block = cell->state == MAP_HOLE ? VDI_FREE : VDI_ZERO;
    if (cell->state == MAP_DATA)
        block = vdi_block_of(v, cell);
    le32 raw = le32_of(block);
    memcpy(entry, &raw, sizeof(raw));
}

uint64_t vdi_block_of(const struct vdi *v, const struct map_cell *cell)
{
    return (cell->offset - v->h.data_offset) >> v->map.shape.cluster_bits;
}

/* --- which block numbers are owned --- */

/* More numbers than any sane image uses. */
static uint64_t highest_block(const struct vdi *v)
{
    return MIN(2ULL * v->h.blocks + 65536, VDI_ZERO);
}

static int count_entry(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct vdi *v = container_of(m, struct vdi, map);
    struct vdi_census *c = arg;
    if (cell->state != MAP_DATA)
        return 0;
    uint64_t block = vdi_block_of(v, cell);
    c->count++;
    if (block >= highest_block(v))
        c->too_high++;
    else if (map_space_owned(&v->space, block))
        c->twice++;
    else
        return map_space_own(&v->space, block);
    return 0;
}

int co_vdi_census(struct vdi *v, struct vdi_census *out)
{
    *out = (struct vdi_census){0};
    map_space_reset(&v->space);
    int rc = co_map_walk(&v->map, count_entry, out);
    /* What the file holds behind the last owned block was written by somebody who crashed. */
    if (v->map.file->size > v->h.data_offset)
        v->space.touched = MAX(v->space.touched,
                               div_up(v->map.file->size - v->h.data_offset, v->map.cluster_bytes));
    return rc;
}

/* --- hooks of the engine --- */

static struct vdi_header_disk *header_of(struct vdi *v)
{
    return (struct vdi_header_disk *)v->header->data;
}

int vdi_set_allocated(struct vdi *v, uint64_t allocated)
{
    if (v->h.allocated == allocated)
        return 0;
    TRY(meta_touch(v->map.meta, v->header));
    v->h.allocated = allocated;
    header_of(v)->allocated = le32_of(allocated);
    return 0;
}

static int co_vdi_first_write(struct map *m)
{
    struct vdi *v = container_of(m, struct vdi, map);
    struct vdi_census found;
    TRY(co_vdi_census(v, &found));
    if (found.twice || found.too_high) {
        map_corrupt(m, "two entries of the block map own one block, or an entry is out of range");
        return -EROFS;
    }
    if (!v->header)
        TRY(co_meta_get(m->meta, 0, RANK_HEADER, &v->header));
    return vdi_set_allocated(v, v->space.next);
}

/* Numbers stay below the number of blocks, as peers ask: then all discarded blocks that are written
 * again before they could be released must get their own back, which the engine sees to. */
static int co_vdi_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    struct vdi *v = container_of(m, struct vdi, map);
    uint64_t first;
    TRY(map_space_take_run(&v->space, v->h.blocks, count, &first, reused));
    *offset = v->h.data_offset + (first << m->shape.cluster_bits);
    return 0;
}

static void vdi_unplace(struct map *m, const struct map_cell *cells, size_t count)
{
    struct vdi *v = container_of(m, struct vdi, map);
    for (size_t i = 0; i < count; i++)
        map_space_let_go(&v->space, vdi_block_of(v, &cells[i]));
}

static void co_vdi_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch)
{
    struct vdi *v = container_of(m, struct vdi, map);
    uint64_t first = vdi_block_of(v, cell);
    uint64_t there = cell->offset < m->data->size ? m->data->size - cell->offset : 0;
    int rc = 0;
    if (punch && there)
        rc = co_blk_discard(m->data, cell->offset, MIN(there, count * m->cluster_bytes));
    (void)rc; /* a hint; the space is ours again either way */
    for (uint64_t i = 0; i < count; i++)
        map_space_let_go(&v->space, first + i);
}

static int vdi_commit(struct map *m, const struct map_update *u, size_t count)
{
    struct vdi *v = container_of(m, struct vdi, map);
    uint64_t allocated = v->h.allocated;
    for (size_t i = 0; i < count; i++)
        if (u[i].now.state == MAP_DATA)
            allocated = MAX(allocated, vdi_block_of(v, &u[i].now) + 1);
    return vdi_set_allocated(v, allocated);
}

static const struct map_format vdi_format = {
    .decode = vdi_decode,
    .encode = vdi_encode,
    .co_place = co_vdi_place,
    .unplace = vdi_unplace,
    .co_release = co_vdi_release,
    .commit = vdi_commit,
    .co_before_first_write = co_vdi_first_write,
    .table_rank = RANK_MAP,
};

/* --- the driver --- */

int co_vdi_change_header(struct vdi *v, void (*fill)(struct vdi *v, struct vdi_header_disk *raw))
{
    TRY(co_meta_write_back(v->map.meta, !v->map.fresh));
    TRY(meta_touch(v->map.meta, v->header));
    fill(v, header_of(v));
    return co_meta_write_back(v->map.meta, !v->map.fresh);
}

static int make_map(struct blk_device *dev, struct vdi *v, uint64_t limit, struct blk_error *e)
{
    uint64_t map_end = v->h.map_offset + v->h.blocks * 4ULL;
    /* Pages of the cache must not reach from the map into its neighbours. */
    bool large = v->h.map_offset % 4096 == 0 && align_up(map_end, 4096) <= v->h.data_offset;
    v->map.dev = dev;
    v->map.data = v->map.file;
    v->map.format = &vdi_format;
    v->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    v->map.shape = (struct map_shape){
        .size = v->h.size,
        .cluster_bits = log2_floor(v->h.block_bytes),
        .entry_bytes = 4,
        .levels = 1,
        .root_offset = v->h.map_offset,
        .root_entries = v->h.blocks,
        .tight = true,
        .stands_alone = true,
        .file_has_holes = v->h.type == VDI_STATIC,
    };
    struct meta_options o = {
        .file = v->map.file,
        .page_bytes = large ? 4096 : 512,
        .limit_bytes = limit,
        .fresh = v->map.fresh,
    };
    int rc = meta_open(&o, &v->map.meta);
    if (rc < 0)
        return err_set(e, rc, "out of memory");
    return map_attach(&v->map, e);
}

static int co_vdi_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct vdi_header_disk raw;
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    if (file->size < sizeof(raw))
        return err_set(e, -EINVAL, "%" PRIu64 " bytes are too few for a VDI image", file->size);
    int rc = co_blk_read_buf(file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    auto_free struct vdi *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    bool fresh = dev->open_flags & BLK_OPEN_FRESH;
    TRY(vdi_header_parse(&raw, file->size, fresh, &v->h, e));
    v->recognisable = le32_get(raw.signature) == VDI_SIGNATURE;
    v->map.file = file;
    rc = make_map(dev, v, opts_number(opts, "cache-size"), e);
    if (rc < 0) {
        co_map_detach(&v->map);
        return rc;
    }
    dev->size = v->h.size;
    dev->limits.fresh_reads_zero = true;
    dev->limits.cluster_size = v->h.block_bytes;
    dev->limits.discard_granularity = v->h.block_bytes;
    dev->limits.can_zero_fast = file->limits.can_zero_fast;
    dev->limits.can_unmap = v->h.type == VDI_DYNAMIC;
    dev->state = take(v);
    return 0;
}

static int co_vdi_close(struct blk_device *dev, struct blk_error *e)
{
    struct vdi *v = dev->state;
    int rc = v->header ? co_vdi_tidy(v) : 0;
    if (v->header)
        meta_put(v->map.meta, v->header);
    co_map_detach(&v->map);
    map_space_drop(&v->space);
    mem_free(v);
    return rc < 0 ? err_errno(e, rc, "the block map cannot be written") : 0;
}

static int co_vdi_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct vdi *v = dev->state;
    int rc = v->header && !write ? co_vdi_tidy(v) : 0;
    return rc < 0 ? err_errno(e, rc, "the block map cannot be written") : 0;
}

static void fill_signature(struct vdi *v, struct vdi_header_disk *raw)
{
    raw->signature = le32_of(VDI_SIGNATURE);
}

static int co_vdi_complete(struct blk_device *dev, struct blk_error *e)
{
    struct vdi *v = dev->state;
    int rc = co_map_will_write(&v->map);
    if (rc == 0)
        rc = co_vdi_tidy(v);
    if (rc == 0)
        rc = co_vdi_change_header(v, fill_signature);
    if (rc < 0)
        return err_errno(e, rc, "the image cannot be completed");
    v->recognisable = true;
    return 0;
}

/* A static image keeps all its blocks. */
static int co_vdi_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct vdi *v = dev->state;
    unsigned not_ours = v->h.type == VDI_STATIC ? BLK_MAY_UNMAP : 0;
    return co_map_write_zeroes(dev, offset, bytes, flags & ~not_ours);
}

static int co_vdi_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct vdi *v = dev->state;
    return v->h.type == VDI_STATIC ? 0 : co_map_discard(dev, offset, bytes);
}

static int co_vdi_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct vdi *v = dev->state;
    out->cluster_size = v->h.block_bytes;
    return 0;
}

static const struct opt_desc vdi_open_options[] = {
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of the block map kept in memory",
     .preset = "8M",
     .min = 64 * KiB},
    {0},
};

static const struct opt_desc vdi_create_options[] = {
    {.name = "static", .type = OPT_BOOL, .help = "allocate all blocks at once", .preset = "off"},
    {0},
};

const struct blk_driver vdi_driver = {
    .name = "vdi",
    .title = "VirtualBox disk image",
    .extensions = "vdi",
    .is_format = true,
    .handles_fua = true,
    .open_options = vdi_open_options,
    .create_options = vdi_create_options,
    .probe = vdi_probe,
    .co_create = co_vdi_create,
    .co_open = co_vdi_open,
    .co_close = co_vdi_close,
    .co_reopen = co_vdi_reopen,
    .co_read = co_map_read,
    .co_write = co_map_write,
    .co_write_zeroes = co_vdi_zeroes,
    .co_discard = co_vdi_discard,
    .co_flush = co_map_flush,
    .resolve = map_resolve,
    .co_map = co_map_map,
    .co_copy = co_map_copy,
    .co_complete = co_vdi_complete,
    .co_resize = co_vdi_resize,
    .co_check = co_vdi_check,
    .co_info = co_vdi_info,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx.c - Hyper-V disks, version 2: fixed, dynamic, differencing.
 *
 * An entry of the block table is a state and a place in MiB. After every chunk of entries (as many
 * blocks as 2^23 sectors make) one stands for the chunk's sector bitmap, which says of blocks that
 * are partly here which sectors are. What we write to such a block goes to a new place, whole: no
 * bitmap is ever changed.
 *
 * Reading and writing are map.c's, places map_units.c's; a log that somebody left is replayed into
 * memory when an image is opened to be read. */
#include "imgfmt/vhdx.h"
#include "block/uuid.h"

enum { RANK_TABLE };

#define AHEAD_BYTES (64 * MiB)

/* --- entries --- */

static uint64_t vhdx_slot(const struct map *m, uint64_t cluster)
{
    return cluster + (cluster >> vhdx_of(m)->chunk_bits);
}

static int vhdx_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    le64 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint64_t at = align_down(le64_get(raw), MiB);
    switch (le64_get(raw) & 7) {
    case VHDX_NOT_PRESENT:
        out->state = MAP_HOLE;
        return 0;
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
        out->state = MAP_ZERO;
        return 0;
    case VHDX_PARTLY:
        if (!vhdx_of(m)->d.has_parent)
            return -EIO;
        out->state = MAP_PARTIAL;
        break;
    case VHDX_PRESENT:
        out->state = MAP_DATA;
        break;
    default:
        return -EIO;
    }
    out->offset = at;
    return at < MiB || at > INT64_MAX ? -EIO : 0;
}

static void vhdx_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    static const uint8_t states[] = {
        [MAP_HOLE] = VHDX_NOT_PRESENT,
        [MAP_ZERO] = VHDX_ZERO,
        [MAP_DATA] = VHDX_PRESENT,
        [MAP_PARTIAL] = VHDX_PARTLY,
    };
    bool here = cell->state == MAP_DATA || cell->state == MAP_PARTIAL;
    le64 raw = le64_of((here ? cell->offset : 0) | states[cell->state]);
    memcpy(entry, &raw, sizeof(raw));
}

/* --- sector bitmaps --- */

int co_vhdx_bitmap_place(struct map *m, uint64_t chunk, uint64_t *offset)
{
    struct vhdx *v = vhdx_of(m);
    uint64_t slot = chunk * (v->chunk_ratio + 1) + v->chunk_ratio;
    uint64_t at = m->shape.root_offset + slot * 8;
    struct meta_page *page;
    le64 raw;
    *offset = 0;
    if (slot * 8 >= v->regions.table.bytes)
        return 0;
    TRY(co_meta_get(m->meta, align_down(at, VHDX_PAGE), RANK_TABLE, &page));
    memcpy(&raw, page->data + at % VHDX_PAGE, sizeof(raw));
    meta_put(m->meta, page);
    if ((le64_get(raw) & 7) == VHDX_PRESENT)
        *offset = align_down(le64_get(raw), MiB);
    return *offset > INT64_MAX ? -EIO : 0;
}

int co_vhdx_bitmap_drop(struct map *m, uint64_t chunk)
{
    struct vhdx *v = vhdx_of(m);
    uint64_t at = m->shape.root_offset + (chunk * (v->chunk_ratio + 1) + v->chunk_ratio) * 8;
    struct meta_page *page;
    TRY(co_meta_get(m->meta, align_down(at, VHDX_PAGE), RANK_TABLE, &page));
    int rc = meta_touch(m->meta, page);
    if (rc == 0)
        memset(page->data + at % VHDX_PAGE, 0, 8);
    meta_put(m->meta, page);
    return rc;
}

/* From bit @bit of the bitmap at @at: its value, and how many of @most are alike. */
static int co_bits_alike(struct map *m, uint64_t at, uint64_t bit, uint64_t most, uint64_t *alike,
                         bool *value)
{
    struct meta_page *page = NULL;
    int rc = 0;
    for (*alike = 0; *alike < most; ++*alike) {
        uint64_t byte = at + (bit + *alike) / 8;
        if (page && page->offset != align_down(byte, VHDX_PAGE)) {
            meta_put(m->meta, page);
            page = NULL;
        }
        if (!page)
            rc = co_meta_get(m->meta, align_down(byte, VHDX_PAGE), RANK_TABLE, &page);
        if (rc < 0)
            return rc;
        bool here = page->data[byte % VHDX_PAGE] >> ((bit + *alike) % 8) & 1;
        if (*alike == 0)
            *value = here;
        else if (here != *value)
            break;
    }
    meta_put(m->meta, page);
    return 0;
}

static int co_vhdx_subrange(struct map *m, const struct map_cell *cell, uint64_t cluster,
                            uint32_t at, uint32_t *bytes, enum map_state *state)
{
    struct vhdx *v = vhdx_of(m);
    uint64_t sector = at / v->d.logical, in_block = m->cluster_bytes / v->d.logical;
    uint64_t end = div_up((uint64_t)at + *bytes, v->d.logical), place, alike;
    bool here = false;
    TRY(co_vhdx_bitmap_place(m, cluster >> v->chunk_bits, &place));
    if (!place)
        return -EIO; /* it must say which sectors are here */
    uint64_t bit = (cluster & (v->chunk_ratio - 1)) * in_block + sector;
    TRY(co_bits_alike(m, place, bit, end - sector, &alike, &here));
    *state = here ? MAP_DATA : MAP_HOLE;
    *bytes = MIN(*bytes, (sector + alike) * v->d.logical - at);
    return 0;
}

static const struct map_format vhdx_format = {
    .decode = vhdx_decode,
    .encode = vhdx_encode,
    .slot = vhdx_slot,
    .co_subrange = co_vhdx_subrange,
    MAP_UNITS_HOOKS,
    .table_rank = RANK_TABLE,
};

static uint64_t entries_for(const struct map *m, uint64_t size)
{
    return vhdx_entries(&vhdx_of(m)->d, size);
}

static int co_check_log(struct map *m, struct blk_check *c)
{
    map_units_say(c, vhdx_of(m)->replay.log != NULL,
                  "log of a writer that did not close the image");
    return 0;
}

static const struct map_units_ops vhdx_units = {
    .co_reserve = co_vhdx_reserve,
    .co_begin = co_vhdx_begin,
    .co_end = co_vhdx_end,
    .co_publish = co_vhdx_publish,
    .co_check = co_check_log,
    .entries_for = entries_for,
};

/* --- opening --- */

static int vhdx_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "the file begins with vhdxfile";
    return p->head_bytes >= 8 && memcmp(p->head, "vhdxfile", 8) == 0 ? 100 : 0;
}

int co_vhdx_read_meta(struct vhdx *v, uint64_t offset, void *to, uint64_t bytes)
{
    struct blk_device *file = v->map.file;
    uint64_t there = offset < file->size ? MIN(file->size - offset, bytes) : 0;
    memset((uint8_t *)to + there, 0, bytes - there);
    if (there)
        TRY(co_blk_read_buf(file, offset, to, there));
    vhdx_replay_patch(&v->replay, offset, to, bytes);
    return 0;
}

static int co_read_headers(struct vhdx *v, struct blk_error *e)
{
    struct blk_device *file = v->map.file;
    char signature[8];
    auto_free struct vhdx_header_disk *raw = mem_array(2, sizeof(*raw));
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    if (file->size < MiB)
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a VHDX image", file->size);
    int rc = co_blk_read_buf(file, 0, signature, sizeof(signature));
    for (unsigned i = 0; i < 2 && rc == 0; i++)
        rc = co_blk_read_buf(file, VHDX_HEADER_AT(i), &raw[i], sizeof(raw[i]));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    v->units.unfinished = memcmp(signature, "vhdxfile", 8) != 0;
    if (v->units.unfinished && !(v->map.fresh && mem_is_zero(signature, sizeof(signature))))
        return err_wrong_format(e, "not a VHDX image");
    return vhdx_header_choose(raw, file->size, &v->h, e);
}

static int co_read_log(struct vhdx *v, struct blk_error *e)
{
    struct vhdx_replay *r = &v->replay;
    if (uuid_is_nil(v->h.log_guid))
        return 0;
    if (v->h.log_bytes > VHDX_LOG_MOST)
        return err_bad(e, -EFBIG, "a log of %u bytes is not replayed; at most %llu are",
                       v->h.log_bytes, VHDX_LOG_MOST);
    r->log_bytes = v->h.log_bytes;
    r->log = mem_aligned(r->log_bytes);
    if (!r->log)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(v->map.file, v->h.log_offset, r->log, r->log_bytes);
    if (rc < 0)
        return err_errno(e, rc, "the log cannot be read");
    return vhdx_replay_find(r, &v->h, v->map.file->size, e);
}

static int co_read_regions(struct vhdx *v, struct blk_error *e)
{
    auto_free struct vhdx_regions_disk *raw = mem_alloc(sizeof(*raw));
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = -EINVAL;
    for (unsigned i = 0; i < 2 && rc == -EINVAL; i++) {
        rc = co_vhdx_read_meta(v, VHDX_REGIONS_AT(i), raw, sizeof(*raw));
        if (rc < 0)
            return err_errno(e, rc, "the region table cannot be read");
        rc = vhdx_regions_parse(raw, &v->h, &v->regions, e);
    }
    return rc;
}

static int co_read_metadata(struct vhdx *v, struct blk_error *e)
{
    uint64_t region = v->regions.metadata.offset;
    uint8_t items[VHDX_ITEMS][16] = {0};
    auto_free struct vhdx_metadata_disk *raw = mem_alloc(sizeof(*raw));
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_vhdx_read_meta(v, region, raw, sizeof(*raw));
    if (rc == 0)
        TRY(vhdx_metadata_parse(raw, v->regions.metadata.bytes, &v->d, e));
    for (unsigned i = 0; i < VHDX_ITEMS && rc == 0; i++) {
        const struct vhdx_region *at = &v->d.at[i];
        rc = co_vhdx_read_meta(v, region + at->offset, items[i], MIN(at->bytes, 16));
    }
    if (rc < 0)
        return err_errno(e, rc, "the metadata cannot be read");
    TRY(vhdx_items_parse(items, &v->d, e));
    uint64_t entries = vhdx_entries(&v->d, v->d.size);
    if (entries > v->regions.table.bytes / 8)
        return err_bad(e, -EINVAL, "a table of %u bytes is too short for %" PRIu64 " entries",
                       v->regions.table.bytes, entries);
    uint64_t there = MAX(v->map.file->size, v->replay.length);
    if (!range_fits(v->regions.table.offset, entries * 8, there))
        return err_bad(e, -EINVAL,
                       "the table of %" PRIu64 " entries at %" PRIu64 " ends past the file",
                       entries, v->regions.table.offset);
    return v->d.has_parent ? co_vhdx_parent_name(v, e) : 0;
}

static void fill_map(struct vhdx *v)
{
    v->chunk_ratio = vhdx_chunk_ratio(&v->d);
    v->chunk_bits = log2_floor(v->chunk_ratio);
    v->map.format = &vhdx_format;
    v->map.units = &v->units;
    v->map.shape = (struct map_shape){
        .size = v->d.size,
        .cluster_bits = log2_floor(v->d.block_bytes),
        .entry_bytes = 8,
        .levels = 1,
        .root_offset = v->regions.table.offset,
        .root_entries = vhdx_entries(&v->d, v->d.size),
        .stands_alone = !v->d.has_parent,
        .file_has_holes = v->d.fixed,
        .keeps_all = v->d.fixed,
    };
    v->units.ops = &vhdx_units;
    v->units.base = MiB;
    v->units.unit_bytes = MiB;
    v->units.cluster_units = v->d.block_bytes / MiB;
    v->units.page_bytes = VHDX_PAGE;
    v->units.cluster_limit = VHDX_SIZE_MOST / v->d.block_bytes;
    v->units.ahead_bytes = AHEAD_BYTES;
    v->units.table = UNITS_TABLE_MOVES;
    v->units.aligned = true;
    v->units.gaps = true;
    v->units.roomy = true;
}

static int co_open_parts(struct vhdx *v, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;
    v->map.dev = dev;
    v->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &v->map.file, e));
    TRY(co_read_headers(v, e));
    TRY(co_read_log(v, e));
    if (dev->open_flags & BLK_OPEN_WRITE)
        TRY(co_vhdx_replay(v, e));
    TRY(co_read_regions(v, e));
    TRY(co_read_metadata(v, e));
    fill_map(v);
    TRY(co_map_units_open(&v->map, opts_number(opts, "cache-size"), e));
    vhdx_hook(v);
    int rc = v->d.has_parent ? co_map_backing_want(&v->map, &v->backing, opener, e) : 0;
    if (rc < 0)
        co_map_detach(&v->map);
    return rc;
}

static void drop(struct vhdx *v)
{
    vhdx_replay_drop(&v->replay);
    map_backing_drop(&v->backing);
    mem_free(v);
}

static int co_vhdx_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct vhdx *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(v, dev, opts, opener, e);
    if (rc < 0)
        drop(v);
    return rc;
}

static int co_vhdx_close(struct blk_device *dev, struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    int rc = co_map_units_close(&v->map, e);
    drop(v);
    return rc;
}

static int co_vhdx_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    if (write)
        TRY(co_vhdx_replay(vhdx_of(dev->state), e));
    return co_map_units_reopen(dev, write, e);
}

/* --- the whole image: without the log --- */

static int co_begin_direct(struct vhdx *v, struct blk_error *e)
{
    int rc = co_vhdx_direct(v, true);
    return rc < 0 ? err_errno(e, rc, "the log cannot be emptied") : 0;
}

static int co_vhdx_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    if (size % v->d.logical)
        return err_set(e, -EINVAL, "the size must be a multiple of the image's sectors, %u bytes",
                       v->d.logical);
    TRY(co_begin_direct(v, e));
    int rc = co_map_units_resize(dev, size, shrink, e);
    v->direct = false;
    return rc;
}

static int co_vhdx_compact(struct blk_device *dev, struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    TRY(co_begin_direct(v, e));
    int rc = co_map_units_compact(dev, e);
    v->direct = false;
    return rc;
}

static int co_vhdx_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    struct vhdx *v = vhdx_of(dev->state);
    TRY(co_begin_direct(v, e));
    int rc = co_map_units_check(dev, c, e);
    v->direct = false;
    return rc;
}

static int co_vhdx_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct vhdx *v = vhdx_of(dev->state);
    out->cluster_size = v->d.block_bytes;
    return map_backing_info(&v->backing, out, e);
}

const struct blk_driver vhdx_driver = {
    .name = "vhdx",
    .title = "Hyper-V disk, version 2 (VHDX)",
    .extensions = "vhdx avhdx",
    MAP_UNITS_REQUESTS,
    .knows_backing = true,
    .check_is_bare = true,
    .open_options = map_units_open_options,
    .create_options = vhdx_create_options,
    .probe = vhdx_probe,
    .co_create = co_vhdx_create,
    .co_measure = co_vhdx_measure,
    .measure_is_ours = true,
    .co_open = co_vhdx_open,
    .co_opened = co_vhdx_opened,
    .co_close = co_vhdx_close,
    .co_reopen = co_vhdx_reopen,
    .co_resize = co_vhdx_resize,
    .co_check = co_vhdx_check,
    .co_compact = co_vhdx_compact,
    .co_make_empty = co_map_units_make_empty,
    .co_identify_backing = co_vhdx_identify_backing,
    .co_change_backing = co_vhdx_change_backing,
    .co_info = co_vhdx_info,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi_tool.c - VDI images made, grown, shrunk, checked, and tidied when they are closed.
 *
 * Peers take the header's count both as the number of owned blocks and as the next number to hand
 * out, so a clean image is dense: tidying moves the last blocks into numbers that discards freed.
 *
 * Growing past the room for the map: the first blocks move to the end, the new map is written where
 * they lay, with numbers counted from a later data offset; then one sector, the header, changes
 * map, data offset and size together. A crash leaves either the old image or the new. */
#include "imgfmt/vdi.h"

#define MAP_AT (4 * KiB) /* where we put the map of a new image */

/* --- moving blocks --- */

struct movers {
    uint64_t from, to; /* block numbers that have to go */
    uint64_t *clusters;
    size_t count, room;
};

static int note_mover(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct vdi *v = container_of(m, struct vdi, map);
    struct movers *w = arg;
    if (cell->state != MAP_DATA || vdi_block_of(v, cell) < w->from ||
        vdi_block_of(v, cell) >= w->to)
        return 0;
    if (w->count == w->room) {
        size_t room = MAX(2 * w->room, 64);
        uint64_t *bigger = mem_resize(w->clusters, room * sizeof(*bigger));
        if (!bigger)
            return -ENOMEM;
        w->clusters = bigger;
        w->room = room;
    }
    w->clusters[w->count++] = cluster;
    return 0;
}

static int co_move_one(struct vdi *v, uint64_t cluster, uint64_t low, uint64_t high)
{
    uint64_t block;
    TRY(map_space_take(&v->space, low, high, &block));
    struct map_cell to = {.state = MAP_DATA,
                          .offset = v->h.data_offset + block * v->map.cluster_bytes};
    int rc = co_map_move(&v->map, cluster, &to);
    if (rc < 0)
        map_space_let_go(&v->space, block);
    return rc;
}

/* Moves the blocks with a number in [from, to) to free numbers in [low, high). */
static int co_move_blocks(struct vdi *v, uint64_t from, uint64_t to, uint64_t low, uint64_t high)
{
    struct movers w = {.from = from, .to = to};
    int rc = co_map_walk(&v->map, note_mover, &w);
    for (size_t i = 0; i < w.count && rc == 0; i++)
        rc = co_move_one(v, w.clusters[i], low, high);
    mem_free(w.clusters);
    TRY(rc);
    return co_meta_settle(v->map.meta, !v->map.fresh);
}

/* The file ends where the last block does: readers of whole blocks find them whole. */
static void co_fit_file(struct vdi *v)
{
    struct blk_device *file = v->map.file;
    struct blk_error ignored;
    uint64_t end = v->h.data_offset + v->space.next * v->map.cluster_bytes;
    if (file->limits.growable && file->size != end && co_blk_resize(file, end, true, &ignored) < 0)
        return; /* untidy, and right all the same */
}

int co_vdi_tidy(struct vdi *v)
{
    bool flush = !v->map.fresh;
    TRY(co_meta_settle(v->map.meta, flush));
    if (v->space.next > v->space.count)
        TRY(co_move_blocks(v, v->space.count, v->space.next, 0, v->space.count));
    if (v->h.allocated != v->space.next) {
        TRY(vdi_set_allocated(v, v->space.next));
        TRY(co_meta_write_back(v->map.meta, flush));
    }
    co_fit_file(v);
    return 0;
}

/* --- creating --- */

static void fill_header(struct vdi_header_disk *raw, const struct vdi_header *h, struct host *host,
                        bool fresh)
{
    memset(raw, 0, sizeof(*raw));
    strcpy(raw->text, "<<< lamina VirtualBox disk image >>>\n");
    raw->signature = le32_of(fresh ? 0 : VDI_SIGNATURE);
    raw->version = le32_of(VDI_VERSION);
    raw->header_bytes = le32_of(0x180);
    raw->type = le32_of(h->type);
    raw->map_offset = le32_of(h->map_offset);
    raw->data_offset = le32_of(h->data_offset);
    raw->sector_bytes = le32_of(512);
    raw->size = le64_of(h->size);
    raw->block_bytes = le32_of(h->block_bytes);
    raw->blocks = le32_of(h->blocks);
    raw->allocated = le32_of(h->allocated);
    host_uuid(host, raw->uuid);
    host_uuid(host, raw->uuid_snapshot);
}

static int co_write_new_map(struct blk_device *file, const struct vdi_header *h)
{
    uint64_t piece = 64 * KiB, bytes = align_up(h->blocks * 4ULL, 4096);
    le32 *entries = buf_get(piece);
    if (!entries)
        return -ENOMEM;
    int rc = 0;
    for (uint64_t at = 0; at < bytes && rc == 0; at += piece) {
        for (uint64_t i = 0; i < piece / 4; i++) {
            uint64_t entry = at / 4 + i;
            bool own = h->type == VDI_STATIC && entry < h->blocks;
            entries[i] = le32_of(own ? entry : VDI_FREE);
        }
        rc = co_blk_write_buf(file, h->map_offset + at, entries, MIN(piece, bytes - at), 0);
    }
    buf_put(entries, piece);
    return rc;
}

static int co_make_room(struct blk_device *file, const struct vdi_header *h, struct blk_error *e)
{
    uint64_t end = h->data_offset + (uint64_t)h->allocated * h->block_bytes;
    if (file->limits.growable)
        return co_blk_resize(file, end, true, e);
    return end <= file->size
               ? 0
               : err_set(e, -ENOSPC, "%s has %" PRIu64 " bytes, %" PRIu64 " are needed", file->name,
                         file->size, end);
}

int co_vdi_create(const struct blk_create *c, struct blk_error *e)
{
    bool is_static = opts_bool(c->opts, "static");
    uint64_t blocks = div_up(c->size, VDI_BLOCK);
    /* VirtualBox's own bound, and the map of so many entries ends well below 4 GiB. */
    if (blocks >= 0x1fffff80)
        return err_set(e, -EFBIG, "a VDI image cannot be larger than 512 TiB");
    uint64_t map_bytes = align_up(blocks * 4, 4096);
    struct vdi_header h = {
        .size = align_up(c->size, 512),
        .map_offset = MAP_AT,
        .data_offset = align_up(MAP_AT + map_bytes, VDI_BLOCK),
        .block_bytes = VDI_BLOCK,
        .blocks = blocks,
        .allocated = is_static ? blocks : 0,
        .type = is_static ? VDI_STATIC : VDI_DYNAMIC,
    };
    struct vdi_header_disk raw;
    fill_header(&raw, &h, c->file->host, c->fresh);
    TRY(co_make_room(c->file, &h, e));
    int rc = co_write_new_map(c->file, &h);
    if (rc == 0 && is_static && !c->file->limits.fresh_reads_zero)
        rc = co_blk_write_zeroes(c->file, h.data_offset, blocks * VDI_BLOCK, 0);
    if (rc == 0 && !c->fresh)
        rc = co_blk_flush(c->file);
    if (rc == 0)
        rc = co_blk_write_buf(c->file, 0, &raw, sizeof(raw), 0);
    if (rc == 0 && !c->fresh)
        rc = co_blk_flush(c->file);
    return rc < 0 ? err_errno(e, rc, "the image cannot be written") : 0;
}

/* --- resizing --- */

static void fill_resized(struct vdi *v, struct vdi_header_disk *raw)
{
    raw->map_offset = le32_of(v->h.map_offset);
    raw->data_offset = le32_of(v->h.data_offset);
    raw->size = le64_of(v->h.size);
    raw->blocks = le32_of(v->h.blocks);
    raw->allocated = le32_of(v->h.allocated);
}

/* Takes @h over, in memory and on disk. */
static int co_adopt(struct vdi *v, const struct vdi_header *h)
{
    struct vdi_header before = v->h;
    struct map_shape shape = v->map.shape;
    shape.size = h->size;
    shape.root_offset = h->map_offset;
    shape.root_entries = h->blocks;
    TRY(map_reshape(&v->map, &shape));
    v->h = *h;
    int rc = co_vdi_change_header(v, fill_resized);
    if (rc == 0)
        return 0;
    shape.size = before.size;
    shape.root_offset = before.map_offset;
    shape.root_entries = before.blocks;
    v->h = before;
    if (map_reshape(&v->map, &shape) < 0)
        map_corrupt(&v->map, "out of memory while a failed resize was taken back");
    return rc;
}

/* Entries [from, to) of the map at @map_at, for a data offset that is @shift blocks later; those
 * that the old map does not have are free. */
static int co_write_map(struct vdi *v, uint64_t map_at, uint64_t from, uint64_t to, uint64_t shift)
{
    uint64_t piece = 64 * KiB;
    le32 *entries = buf_get(piece);
    if (!entries)
        return -ENOMEM;
    int rc = 0;
    for (uint64_t c = from; c < to && rc == 0;) {
        uint64_t n = MIN(to - c, piece / 4);
        for (uint64_t i = 0; i < n && rc == 0; i++) {
            struct map_cell cell = {.state = MAP_HOLE};
            if (c + i < v->h.blocks)
                rc = co_map_cell(&v->map, c + i, &cell);
            uint32_t entry = cell.state == MAP_HOLE   ? VDI_FREE
                             : cell.state == MAP_ZERO ? VDI_ZERO
                                                      : vdi_block_of(v, &cell) - shift;
            entries[i] = le32_of(entry);
        }
        if (rc == 0)
            rc = co_blk_write_buf(v->map.file, map_at + c * 4, entries, n * 4, 0);
        c += n;
    }
    buf_put(entries, piece);
    return rc;
}

/* The map grows where it is. */
static int co_grow_in_place(struct vdi *v, struct vdi_header *h)
{
    TRY(co_meta_write_back(v->map.meta, !v->map.fresh));
    uint64_t old_end = v->h.map_offset + v->h.blocks * 4ULL;
    TRY(co_write_map(v, h->map_offset, v->h.blocks, h->blocks, 0));
    co_meta_forget(v->map.meta, old_end, h->map_offset + h->blocks * 4ULL - old_end);
    return co_adopt(v, h);
}

/* The map moves to where the first @first blocks are. */
static int co_grow_elsewhere(struct vdi *v, struct vdi_header *h, uint64_t first)
{
    uint64_t page = meta_page_bytes(v->map.meta);
    TRY(co_move_blocks(v, 0, first, first, UINT32_MAX));
    h->map_offset = align_up(v->h.data_offset, page);
    h->data_offset = v->h.data_offset + first * v->map.cluster_bytes;
    h->allocated = MAX(v->space.next, first) - first;
    TRY(co_write_map(v, h->map_offset, 0, h->blocks, first));
    co_meta_forget(v->map.meta, h->map_offset, h->blocks * 4ULL);
    TRY(co_adopt(v, h));
    struct vdi_census found;
    return co_vdi_census(v, &found);
}

static int co_grow(struct vdi *v, uint64_t size)
{
    struct vdi_header h = v->h;
    uint64_t page = meta_page_bytes(v->map.meta);
    h.size = size;
    h.blocks = MAX(h.blocks, div_up(size, v->map.cluster_bytes));
    uint64_t end = align_up(h.map_offset + h.blocks * 4ULL, page);
    if (end <= h.data_offset)
        return co_grow_in_place(v, &h);
    uint64_t room = align_up(h.data_offset, page) - h.data_offset;
    room += align_up(h.blocks * 4ULL, page);
    uint64_t first = div_up(room, v->map.cluster_bytes);
    if (h.data_offset + first * v->map.cluster_bytes > UINT32_MAX)
        return -EFBIG;
    return co_grow_elsewhere(v, &h, first);
}

static int co_shrink(struct vdi *v, uint64_t size)
{
    struct vdi_header h;
    uint64_t bits = v->map.shape.cluster_bits;
    uint64_t keep = div_up(size, v->map.cluster_bytes);
    uint64_t tail = MIN(keep << bits, v->h.size) - size;
    if (tail) /* what a later growth shows there is zero */
        TRY(co_map_write_zeroes(v->map.dev, size, tail, 0));
    TRY(co_map_drop(&v->map, keep, v->h.blocks));
    TRY(co_vdi_tidy(v)); /* all numbers are below the new number of blocks */
    h = v->h;
    h.size = size;
    h.blocks = keep;
    return co_adopt(v, &h);
}

/* New blocks of a static image are owned from the start. */
static int co_fill_static(struct vdi *v, uint64_t from)
{
    static const uint8_t zeroes[4096];
    for (uint64_t c = from; c < v->h.blocks; c++) {
        struct map_cell cell;
        TRY(co_map_cell(&v->map, c, &cell));
        uint64_t at = c << v->map.shape.cluster_bits;
        struct vec v4k = VEC_BUF(zeroes, MIN(sizeof(zeroes), v->h.size - at));
        if (cell.state != MAP_DATA)
            TRY(co_map_write(v->map.dev, at, &v4k, 0));
    }
    return co_vdi_tidy(v);
}

int co_vdi_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct vdi *v = dev->state;
    uint64_t before = v->h.blocks;
    uint64_t blocks = div_up(size, v->map.cluster_bytes);
    if (size % 512)
        return err_set(e, -EINVAL, "the size of a VDI image is a multiple of 512 bytes");
    if (blocks >= 0x1fffff80)
        return err_set(e, -EFBIG, "a VDI image has at most %u blocks", 0x1fffff80 - 1);
    int rc = co_map_will_write(&v->map);
    if (rc == 0) /* what a careless peer left behind the end must not come to light */
        rc = co_map_drop(&v->map, div_up(v->h.size, v->map.cluster_bytes), before);
    if (rc == 0)
        rc = size < v->h.size ? co_shrink(v, size) : co_grow(v, size);
    if (rc == 0 && v->h.type == VDI_STATIC && blocks > before)
        rc = co_fill_static(v, before);
    return rc < 0 ? err_errno(e, rc, "the image cannot be resized") : 0;
}

/* --- checking --- */

static void say(struct blk_check *c, const char *what, uint64_t n)
{
    char sentence[200];
    snprintf(sentence, sizeof(sentence), "%" PRIu64 " %s", n, what);
    if (n && c->say)
        c->say(c, sentence);
}

static int co_repair(struct vdi *v, struct blk_check *c, uint64_t too_low, uint64_t leaks)
{
    bool fix = (too_low && c->fix_errors) || (leaks && c->fix_leaks);
    if (!fix)
        return 0;
    TRY(co_map_will_write(&v->map)); /* corrects the count */
    TRY(co_vdi_tidy(v));
    c->corruptions_fixed += too_low ? 1 : 0;
    c->corruptions -= too_low ? 1 : 0;
    c->leaks_fixed += leaks;
    c->leaks -= leaks;
    return 0;
}

int co_vdi_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    struct vdi *v = dev->state;
    struct vdi_census found;
    int rc = v->header ? co_meta_settle(v->map.meta, true) : 0;
    if (rc == 0)
        rc = co_vdi_census(v, &found);
    if (rc < 0)
        return err_errno(e, rc, "the block map cannot be read");
    uint64_t too_low = v->space.next > v->h.allocated ? v->space.next - v->h.allocated : 0;
    uint64_t known = MAX(v->space.next, v->h.allocated);
    uint64_t leaks = known > v->space.count ? known - v->space.count : 0;
    say(c, "entries of the block map own a block that another one owns", found.twice);
    say(c, "entries of the block map are out of range", found.too_high);
    say(c, "blocks lie beyond the header's count", too_low);
    say(c, "blocks are counted but not owned by any entry", leaks);
    c->corruptions += found.twice + found.too_high + (too_low ? 1 : 0);
    c->leaks += leaks;
    if (found.twice == 0 && found.too_high == 0)
        rc = co_repair(v, c, too_low, leaks);
    return rc < 0 ? err_errno(e, rc, "the image cannot be repaired") : 0;
}

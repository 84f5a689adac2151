/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd.c - Virtual PC and Hyper-V disks: fixed, dynamic, differencing.
 *
 *   fixed    | the disk | footer |
 *   else     | footer's copy | header 1024 | spare | names of parents | table: be32 per block |
 *            | blocks |
 *            | footer |; a block: a bitmap, bit per sector, and its data
 *
 * An entry is the sector where a block's bitmap lies. The bitmap counts in differencing images: bit
 * clear, and the parent shows; those that we write are all ones.
 *
 * What is durable before what:
 *   1 a new footer, far behind the old one -> any block over the old one (co_extend); at closing,
 *     the footer behind the last block -> the file is cut there
 *   2 a block's bitmap and data -> its entry
 *   3 growing: header (entries, table) -> copy of the footer -> footer; shrinking the other way
 * The copy of the footer counts when an image is opened; one that is missing at the end is written
 * before anything else. */
#include "imgfmt/vhd.h"

enum { RANK_TABLE };

#define AHEAD_BYTES (64 * MiB)
#define SEARCHED    (64 * KiB)

/* --- found out --- */

static int vhd_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "the footer's copy at byte 0";
    if (p->head_bytes >= 8 && vhd_is_footer(p->head))
        return 100;
    *reason = "the footer of a fixed disk in the last sector";
    bool fixed =
        !p->as_qemu && p->tail_bytes >= 512 && vhd_is_footer(p->tail + p->tail_bytes - 512);
    return fixed ? 90 : 0;
}

/* --- the entry and the bitmap --- */

static struct vhd *vhd_of(const struct map *m)
{
    return container_of(m, struct vhd, map);
}

/* Only of a place on the unit boundaries is it remembered that its bitmap is all ones. */
static bool is_whole(const struct vhd *v, uint64_t place)
{
    const struct map_units *u = &v->units;
    return place >= u->base && (place - u->base) % u->unit_bytes == 0 &&
           map_space_owned(&v->whole, (place - u->base) / u->unit_bytes);
}

static void note_whole(struct vhd *v, uint64_t place, bool whole)
{
    const struct map_units *u = &v->units;
    if (!v->differs || place < u->base || (place - u->base) % u->unit_bytes ||
        is_whole(v, place) == whole)
        return;
    uint64_t unit = (place - u->base) / u->unit_bytes;
    if (!whole)
        map_space_let_go(&v->whole, unit);
    else if (map_space_own(&v->whole, unit, 1) < 0)
        return; /* it is asked for again */
}

static int vhd_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    const struct vhd *v = vhd_of(m);
    be32 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint64_t place = be32_get(raw) * 512ULL;
    if (be32_get(raw) == VHD_FREE) {
        out->state = MAP_HOLE;
        return 0;
    }
    out->state = v->differs && !is_whole(v, place) ? MAP_PARTIAL : MAP_DATA;
    out->offset = place + m->shape.lead_bytes;
    return 0;
}

static void vhd_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    bool here = cell->state == MAP_DATA || cell->state == MAP_PARTIAL;
    be32 raw = be32_of(here ? (cell->offset - m->shape.lead_bytes) / 512 : VHD_FREE);
    memcpy(entry, &raw, sizeof(raw));
}

static bool all_ones(const uint8_t *bitmap, uint64_t bits)
{
    for (uint64_t i = 0; i < bits / 8; i++)
        if (bitmap[i] != 0xff)
            return false;
    return true; /* blocks have 8 sectors at least, and a power of two */
}

static bool bit_of(const uint8_t *bitmap, uint64_t sector)
{
    return bitmap[sector / 8] >> (7 - sector % 8) & 1;
}

/* *bitmap: NULL where it is known to be all ones; else buf_put() it, lead_bytes long. */
static int co_get_bitmap(struct vhd *v, const struct map_cell *cell, uint8_t **bitmap)
{
    uint32_t lead = v->map.shape.lead_bytes;
    uint64_t place = cell->offset - lead;
    *bitmap = is_whole(v, place) ? NULL : buf_get(lead);
    if (!*bitmap)
        return is_whole(v, place) ? 0 : -ENOMEM;
    int rc = co_blk_read_buf(v->map.file, place, *bitmap, lead);
    if (rc == 0 && !all_ones(*bitmap, v->map.cluster_bytes / 512))
        return 0;
    buf_put(take(*bitmap), lead);
    if (rc == 0)
        note_whole(v, place, true);
    return rc;
}

static int co_vhd_subrange(struct map *m, const struct map_cell *cell, uint64_t cluster,
                           uint32_t at, uint32_t *bytes, enum map_state *state)
{
    uint8_t *bitmap;
    TRY(co_get_bitmap(vhd_of(m), cell, &bitmap));
    *state = MAP_DATA;
    if (!bitmap)
        return 0;
    uint64_t sector = at / 512, end = div_up((uint64_t)at + *bytes, 512), next = sector + 1;
    bool here = bit_of(bitmap, sector);
    while (next < end && bit_of(bitmap, next) == here)
        next++;
    *state = here ? MAP_DATA : MAP_HOLE;
    *bytes = MIN(*bytes, next * 512 - at);
    buf_put(bitmap, m->shape.lead_bytes);
    return 0;
}

/* --- space --- */

/* A block's bitmap is all ones before anybody sees it. */
static int co_vhd_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    static const uint8_t ones[512] = {[0 ... 511] = 0xff};
    uint32_t lead = m->shape.lead_bytes;
    *count = 1;
    TRY(co_map_units_place(m, count, offset, reused));
    int rc = 0;
    for (uint32_t at = 0; at < lead && rc == 0; at += sizeof(ones))
        rc = co_blk_write_buf(m->file, *offset - lead + at, ones, sizeof(ones), 0);
    meta_data_before(m->meta, RANK_TABLE);
    if (rc < 0)
        map_units_unplace(m, &(struct map_cell){.state = MAP_DATA, .offset = *offset}, 1);
    return rc;
}

static int vhd_commit(struct map *m, const struct map_update *u, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (u[i].now.offset)
            note_whole(vhd_of(m), u[i].now.offset - m->shape.lead_bytes,
                       u[i].now.state == MAP_DATA);
    return 0;
}

/* --- the footer's places --- */

static int co_write_footer(struct map *m, uint64_t at)
{
    struct vhd *v = vhd_of(m);
    return co_blk_write_buf(m->file, at, &v->footer, sizeof(v->footer), 0);
}

static int co_sync(struct map *m)
{
    return m->fresh ? 0 : co_blk_flush(m->file);
}

/* On a device that does not grow the last sector stays the footer's. */
static int co_vhd_extend(struct map *m, uint64_t end)
{
    const uint64_t footer = sizeof(struct vhd_footer_disk);
    if (!m->file->limits.growable) {
        m->units->prepared = m->file->size - footer;
        return end <= m->units->prepared ? 0 : -ENOSPC;
    }
    uint64_t at = align_up(MAX(end + (m->fresh ? 0 : AHEAD_BYTES), m->file->size - footer), 512);
    TRY(co_write_footer(m, at));
    TRY(co_sync(m));
    m->units->prepared = at;
    return 0;
}

static int co_vhd_fit(struct map *m, uint64_t end)
{
    const uint64_t footer = sizeof(struct vhd_footer_disk);
    struct blk_error ignored;
    if (!m->file->limits.growable || end + footer == m->file->size)
        return 0;
    TRY(co_write_footer(m, end));
    TRY(co_sync(m));
    if (co_blk_resize(m->file, end + footer, true, &ignored) < 0)
        return 0; /* longer than need be, with a footer at its end all the same */
    return co_sync(m);
}

static int note_bitmap(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    uint8_t *bitmap = NULL;
    int rc = cell->state == MAP_PARTIAL ? co_get_bitmap(vhd_of(m), cell, &bitmap) : 0;
    if (bitmap)
        buf_put(bitmap, m->shape.lead_bytes);
    return rc;
}

/* --- size and table --- */

int co_vhd_put_header(struct map *m)
{
    struct vhd *v = vhd_of(m);
    v->header.table_offset = be64_of(m->shape.root_offset);
    v->header.entries = be32_of(m->shape.root_entries);
    vhd_seal_header(&v->header);
    TRY(co_blk_write_buf(m->file, v->h.header_offset, &v->header, sizeof(v->header), 0));
    return co_sync(m);
}

/* From now on the size counts, whatever the geometry says: "win " means that to all readers. */
static void say_size(struct vhd *v, uint64_t size)
{
    struct vhd_geometry g = vhd_geometry_of(size / 512);
    if (be64_get(v->footer.size) != size) {
        v->footer.size = be64_of(size);
        v->footer.cylinders = be16_of(g.cylinders);
        v->footer.heads = g.heads;
        v->footer.sectors = g.sectors;
        if (vhd_geometry_sectors(&g) * 512 != size)
            memcpy(v->footer.creator, "win ", 4);
    }
    if (!v->units.unfinished)
        memcpy(v->footer.cookie, "conectix", 8);
    vhd_seal_footer(&v->footer);
}

int co_vhd_put_footer(struct map *m)
{
    TRY(co_write_footer(m, 0));
    TRY(co_sync(m));
    TRY(co_write_footer(m, m->file->size - sizeof(struct vhd_footer_disk)));
    return co_sync(m);
}

static int co_put_both(struct map *m, bool header_first)
{
    if (header_first)
        TRY(co_vhd_put_header(m));
    TRY(co_vhd_put_footer(m));
    return header_first ? 0 : co_vhd_put_header(m);
}

/* The old header and footers, after a publication that failed half way. */
static int co_take_back(struct map *m)
{
    struct vhd *v = vhd_of(m);
    TRY(co_blk_write_buf(m->file, v->h.header_offset, &v->header, sizeof(v->header), 0));
    TRY(co_vhd_put_footer(m));
    TRY(co_vhd_drop_spare(v));
    v->unsure = false;
    return 0;
}

static int co_vhd_publish(struct map *m)
{
    struct vhd *v = vhd_of(m);
    struct vhd_header_disk header = v->header;
    struct vhd_footer_disk footer = v->footer;
    TRY(co_meta_write_back(m->meta, !m->fresh));
    if (m->shape.size / 512 > VHD_SECTORS_MOST)
        return -EFBIG;
    say_size(v, m->shape.size);
    int rc = co_put_both(m, m->shape.root_entries >= be32_get(header.entries));
    if (rc < 0) {
        v->header = header;
        v->footer = footer;
        v->unsure = true; /* the file may mean the new table, which is the old one's copy so far */
    }
    return rc;
}

/* Before the first change: the footer is at the end; and what can be overwritten in place is known.
 */
static int co_vhd_begin(struct map *m)
{
    struct vhd *v = vhd_of(m);
    if (v->unsure)
        TRY(co_take_back(m));
    m->units->prepared = m->file->size - sizeof(v->footer);
    if (v->footer_lost) {
        TRY(co_write_footer(m, align_up(m->file->size, 512)));
        TRY(co_sync(m));
        m->units->prepared = m->file->size - sizeof(v->footer);
        v->footer_lost = false;
    }
    return v->differs ? co_map_walk(m, note_bitmap, NULL) : 0;
}

static int co_vhd_reserve(struct map *m)
{
    return map_units_reserve(m, m->shape.root_offset, align_up(m->shape.root_entries * 4, 512));
}

static int co_check_footer(struct map *m, struct blk_check *c)
{
    struct vhd *v = vhd_of(m);
    map_units_say(c, v->footer_lost, "footer is missing at the end of the file");
    c->corruptions += v->footer_lost;
    return 0;
}

static const struct map_units_ops vhd_units = {
    .co_reserve = co_vhd_reserve,
    .co_extend = co_vhd_extend,
    .co_begin = co_vhd_begin,
    .co_publish = co_vhd_publish,
    .co_check = co_check_footer,
    .co_fit = co_vhd_fit,
};

static const struct map_format vhd_format = {
    .decode = vhd_decode,
    .encode = vhd_encode,
    MAP_UNITS_HOOKS_BUT_PLACE,
    .co_place = co_vhd_place,
    .commit = vhd_commit,
    .co_subrange = co_vhd_subrange,
    .table_rank = RANK_TABLE,
};

/* --- opening --- */

/* Behind the table, where it is in its first place: right behind the headers. Once it moved, it
 * lies on the same units as blocks do. */
static uint64_t base_of(const struct vhd_header *h, uint64_t unit)
{
    if (h->table_offset == h->data_from)
        return align_up(h->table_offset + h->entries * 4ULL, 512);
    return h->table_offset < h->data_from ? h->data_from
                                          : h->data_from + (h->table_offset - h->data_from) % unit;
}

static void fill_map(struct vhd *v, struct blk_device *dev)
{
    const struct vhd_header *h = &v->h;
    uint32_t lead = align_up(div_up(h->block_bytes / 512, 8), 512);
    v->map.dev = dev;
    v->map.format = &vhd_format;
    v->map.units = &v->units;
    v->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    v->map.shape = (struct map_shape){.size = h->size,
                                      .cluster_bits = log2_floor(h->block_bytes),
                                      .entry_bytes = 4,
                                      .levels = 1,
                                      .root_offset = h->table_offset,
                                      .root_entries = h->entries,
                                      .lead_bytes = lead,
                                      .no_zero_cells = true,
                                      .stands_alone = !v->differs};
    v->units.ops = &vhd_units;
    v->units.unit_bytes = (uint64_t)lead + h->block_bytes;
    v->units.base = base_of(h, v->units.unit_bytes);
    v->units.cluster_limit = VHD_SECTORS_MOST * 512 / h->block_bytes;
    v->units.table = UNITS_TABLE_MOVES;
    v->units.page_bytes = 512; /* the table moves to where blocks are, on any sector */
}

/* The last footer in the @bytes before @end, if any, becomes ours. */
static int co_search(struct vhd *v, uint64_t end, uint64_t bytes, uint8_t *buffer, bool *found)
{
    struct vhd_header h;
    struct blk_error no;
    TRY(co_blk_read_buf(v->map.file, end - bytes, buffer, bytes));
    for (; bytes >= 512; bytes -= 512) {
        struct vhd_footer_disk at;
        memcpy(&at, buffer + bytes - 512, sizeof(at));
        if (vhd_footer_parse(&at, true, false, &h, &no) < 0 || h.type != VHD_FIXED)
            continue;
        v->footer = at;
        *found = true;
        return 0;
    }
    return 0;
}

/* A crash while a fixed disk grew may have left the file longer, and a hole behind the footer that
 * it had: the last one before a hole counts. */
static int co_find_footer(struct vhd *v)
{
    struct blk_device *file = v->map.file;
    auto_free uint8_t *buffer = mem_alloc(SEARCHED);
    struct blk_extent ext;
    bool found = false;
    if (!buffer)
        return -ENOMEM;
    for (uint64_t at = 0; at < file->size; at += ext.bytes) {
        unsigned depth;
        TRY(co_blk_map_chain(file, NULL, at, file->size - at, &ext, &depth));
        uint64_t end = align_down(at + ext.bytes, 512);
        if (!(ext.flags & BLK_EXT_ZERO) && end > at)
            TRY(co_search(v, end, MIN(end - at, SEARCHED), buffer, &found));
    }
    return found ? 0 : -EINVAL;
}

/* The footer's copy at the front, but for fixed disks; a lost one at the end is noted. */
static int co_read_footer(struct vhd *v, bool fresh, struct blk_error *e)
{
    struct blk_device *file = v->map.file;
    struct vhd_footer_disk last;
    if (file->size < sizeof(last))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a VHD image", file->size);
    int rc = co_blk_read_buf(file, file->size - sizeof(last), &last, sizeof(last));
    if (rc == 0)
        rc = co_blk_read_buf(file, 0, &v->footer, sizeof(v->footer));
    if (rc < 0)
        return err_errno(e, rc, "the footer cannot be read");
    struct vhd_header ignored;
    struct blk_error no;
    bool copy =
        vhd_footer_parse(&v->footer, true, fresh, &ignored, &no) == 0 && ignored.type != VHD_FIXED;
    bool end = vhd_footer_parse(&last, true, fresh, &ignored, &no) == 0;
    v->footer_lost = !end;
    if (!copy && !end && !fresh && co_find_footer(v) < 0)
        return vhd_is_footer(&v->footer) || vhd_is_footer(&last)
                   ? err_bad(e, -EINVAL, "the footer and its copy are damaged")
                   : err_wrong_format(e, "not a VHD image");
    if (!copy && end)
        v->footer = last;
    return vhd_footer_parse(&v->footer, v->by_size, fresh, &v->h, e);
}

static int co_open_fixed(struct vhd *v, struct blk_device *dev, struct blk_error *e)
{
    uint64_t room = v->map.file->size - sizeof(v->footer);
    if (v->h.size > room)
        return err_bad(e, -EINVAL, "a disk of %" PRIu64 " bytes does not fit into its file",
                       v->h.size);
    v->map.dev = dev;
    dev->size = v->h.size;
    blk_inherit_limits(dev, v->map.file);
    dev->state = &v->map;
    if (!v->footer_lost || !(dev->open_flags & BLK_OPEN_WRITE) || v->units.unfinished)
        return 0;
    int rc = co_write_footer(&v->map, align_up(v->map.file->size, 512) - sizeof(v->footer));
    v->footer_lost = rc < 0;
    return rc < 0 ? err_errno(e, rc, "the footer cannot be written") : 0;
}

static int co_open_dynamic(struct vhd *v, struct blk_device *dev, const struct opts *opts,
                           struct blk_opener *opener, struct blk_error *e)
{
    int rc = -EINVAL;
    if (range_fits(v->h.header_offset, sizeof(v->header), v->map.file->size))
        rc = co_blk_read_buf(v->map.file, v->h.header_offset, &v->header, sizeof(v->header));
    if (rc < 0)
        return rc == -EINVAL
                   ? err_bad(e, rc, "the dynamic disk header lies past the end of the file")
                   : err_errno(e, rc, "the dynamic disk header cannot be read");
    rc = vhd_header_parse(&v->header, v->map.file->size, &v->h, e);
    if (rc < 0 && co_vhd_take_spare(v) < 0)
        return rc;
    v->differs = v->h.type == VHD_DIFFERENCING;
    fill_map(v, dev);
    if (v->differs)
        TRY(co_vhd_parent_name(v, e));
    TRY(co_map_units_open(&v->map, opts_number(opts, "cache-size"), e));
    dev->limits.discard_granularity = v->h.block_bytes;
    if (v->differs)
        rc = co_map_backing_want(&v->map, &v->backing, opener, e);
    if (rc < 0)
        co_map_detach(&v->map);
    return rc;
}

static int co_open_parts(struct vhd *v, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;
    bool fresh = dev->open_flags & BLK_OPEN_FRESH;
    v->by_size = opts_number(opts, "force_size_calc") == 1;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &v->map.file, e));
    TRY(co_read_footer(v, fresh, e));
    v->units.unfinished = !vhd_is_footer(&v->footer);
    return v->h.type == VHD_FIXED ? co_open_fixed(v, dev, e)
                                  : co_open_dynamic(v, dev, opts, opener, e);
}

static int co_vhd_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct vhd *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(v, dev, opts, opener, e);
    if (rc == 0)
        return 0;
    map_backing_drop(&v->backing);
    mem_free(v);
    dev->state = NULL;
    return rc;
}

static int co_vhd_close(struct blk_device *dev, struct blk_error *e)
{
    struct vhd *v = dev->state;
    int rc = v->map.meta ? co_map_units_close(&v->map, e) : 0;
    map_space_drop(&v->whole);
    map_backing_drop(&v->backing);
    mem_free(v);
    return rc;
}

/* --- requests: a fixed disk is its file --- */

static struct blk_device *fixed(const struct blk_device *dev)
{
    const struct map *m = dev->state;
    return m->meta ? NULL : m->file;
}

static int co_vhd_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct blk_device *file = fixed(dev);
    return file ? co_blk_read(file, offset, to) : co_map_read(dev, offset, to);
}

static int co_vhd_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct blk_device *file = fixed(dev);
    return file ? co_blk_write(file, offset, from, flags) : co_map_write(dev, offset, from, flags);
}

static int co_vhd_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    struct blk_device *file = fixed(dev);
    return file ? co_blk_write_zeroes(file, offset, bytes, flags)
                : co_map_write_zeroes(dev, offset, bytes, flags);
}

static int co_vhd_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct blk_device *file = fixed(dev);
    return file ? co_blk_discard(file, offset, bytes) : co_map_discard(dev, offset, bytes);
}

/* After a failed resize the footer says the old size again before anything is called durable. */
static int co_sure_footer(struct vhd *v)
{
    if (v->unsure)
        TRY(co_write_footer(&v->map, v->map.file->size - sizeof(v->footer)));
    v->unsure = false;
    return 0;
}

static int co_vhd_flush(struct blk_device *dev)
{
    struct blk_device *file = fixed(dev);
    if (!file)
        return co_map_flush(dev);
    TRY(co_sure_footer(vhd_of(dev->state)));
    return co_blk_flush(file);
}

static bool vhd_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    struct blk_device *file = fixed(dev);
    if (!file)
        return map_resolve(dev, offset, bytes, write, out);
    *out = (struct blk_place){.child = file, .offset = offset, .bytes = bytes};
    return true;
}

static int co_vhd_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    struct blk_device *file = fixed(dev);
    if (!file)
        return co_map_map(dev, offset, bytes, out);
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = file,
                               .child_offset = offset};
    return 0;
}

static int co_vhd_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct blk_device *file = fixed(dev);
    return file ? co_blk_copy_from(file, offset, from) : co_map_copy(dev, offset, from);
}

/* --- the whole image --- */

static int co_vhd_complete(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    if (!fixed(dev))
        return co_map_units_complete(dev, e);
    m->units = &vhd_of(m)->units;
    m->units->unfinished = false;
    memcpy(vhd_of(m)->footer.cookie, "conectix", 8);
    vhd_seal_footer(&vhd_of(m)->footer);
    int rc = co_write_footer(m, m->file->size - sizeof(struct vhd_footer_disk));
    return rc < 0 ? err_errno(e, rc, "the footer cannot be written") : 0;
}

static int co_vhd_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return fixed(dev) ? 0 : co_map_units_reopen(dev, write, e);
}

/* The footer at the end is always one sector's write from old size to new:
 * growing: it stands at the new end, saying the old size -> F -> the old one zeroed -> F -> it says
 * the new size; shrinking: it says the new size -> F -> one stands there -> F -> the file is cut.
 */
static int co_grow_fixed(struct map *m, uint64_t size)
{
    const uint64_t footer = sizeof(struct vhd_footer_disk);
    struct vhd *v = vhd_of(m);
    uint64_t old_at = m->file->size - footer;
    struct blk_error ignored;
    int rc = size > old_at ? co_write_footer(m, size) : 0;
    if (rc == 0)
        rc = co_sync(m);
    if (rc < 0) {
        if (m->file->size > old_at + footer)
            (void)!co_blk_resize(m->file, old_at + footer, true, &ignored);
        return rc;
    }
    uint64_t stale = MIN(v->h.size, old_at), end = m->file->size - footer;
    TRY(co_blk_write_zeroes(m->file, stale, MIN(old_at + footer, end) - stale, 0));
    TRY(co_sync(m));
    say_size(v, size);
    TRY(co_write_footer(m, end));
    return co_sync(m);
}

/* Once the size is said, a file that cannot be cut is only longer than need be. */
static int co_shrink_fixed(struct map *m, uint64_t size)
{
    const uint64_t footer = sizeof(struct vhd_footer_disk);
    struct blk_error ignored;
    say_size(vhd_of(m), size);
    TRY(co_write_footer(m, m->file->size - footer));
    TRY(co_sync(m));
    if (co_write_footer(m, size) < 0 || co_sync(m) < 0 ||
        co_blk_resize(m->file, size + footer, true, &ignored) < 0)
        return 0;
    return co_sync(m);
}

static int co_resize_fixed(struct vhd *v, uint64_t size, struct blk_error *e)
{
    struct map *m = &v->map;
    struct vhd_footer_disk old = v->footer;
    int rc = co_sure_footer(v);
    if (rc == 0 && size != v->h.size)
        rc = size > v->h.size ? co_grow_fixed(m, size) : co_shrink_fixed(m, size);
    if (rc < 0) {
        v->footer = old;
        v->unsure = true;
        return err_errno(e, rc, "the image cannot be resized");
    }
    v->h.size = size;
    return 0;
}

static int co_vhd_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    if (!fixed(dev))
        return co_map_units_resize(dev, size, shrink, e);
    if (size % 512)
        return err_set(e, -EINVAL, "the size of a VHD image is a multiple of 512 bytes");
    if (!fixed(dev)->limits.growable)
        return err_set(e, -ENOTSUP, "a fixed VHD on a device cannot be resized");
    return co_resize_fixed(vhd_of(dev->state), size, e);
}

static int co_vhd_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    if (!fixed(dev))
        return co_map_units_check(dev, c, e);
    c->image_end = fixed(dev)->size;
    c->total_clusters = c->allocated_clusters = dev->size / 512;
    return 0;
}

static int co_vhd_compact(struct blk_device *dev, struct blk_error *e)
{
    return fixed(dev) ? 0 : co_map_units_compact(dev, e);
}

static int co_vhd_make_empty(struct blk_device *dev, struct blk_error *e)
{
    return fixed(dev) ? err_set(e, -ENOTSUP, "a fixed VHD image holds all of its disk")
                      : co_map_units_make_empty(dev, e);
}

static int co_vhd_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct vhd *v = vhd_of(dev->state);
    out->cluster_size = fixed(dev) ? 0 : v->h.block_bytes;
    return map_backing_info(&v->backing, out, e);
}

static const char *const size_means[] = {"creator", "current_size", NULL};

static const struct opt_desc vhd_open_options[] = {
    {.name = "backing", .type = OPT_CHILD, .help = "instead of the parent the image names"},
    {.name = "force_size_calc",
     .type = OPT_ENUM,
     .choices = size_means,
     .preset = "creator",
     .help = "current_size: the footer's size counts, whoever made the image"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of the table kept in memory",
     .preset = "8M",
     .min = 64 * KiB},
    {0},
};

const struct blk_driver vhd_driver = {
    .name = "vpc",
    .title = "Virtual PC and Hyper-V disk (VHD)",
    .extensions = "vhd vpc",
    .is_format = true,
    .handles_fua = true,
    .knows_backing = true,
    .open_options = vhd_open_options,
    .create_options = vhd_create_options,
    .probe = vhd_probe,
    .co_create = co_vhd_create,
    .co_measure = co_vhd_measure,
    .measure_is_ours = true,
    .co_open = co_vhd_open,
    .co_opened = co_vhd_opened,
    .co_close = co_vhd_close,
    .co_reopen = co_vhd_reopen,
    .co_read = co_vhd_read,
    .co_write = co_vhd_write,
    .co_write_zeroes = co_vhd_write_zeroes,
    .co_discard = co_vhd_discard,
    .co_flush = co_vhd_flush,
    .resolve = vhd_resolve,
    .co_map = co_vhd_map,
    .co_copy = co_vhd_copy,
    .co_complete = co_vhd_complete,
    .co_resize = co_vhd_resize,
    .co_check = co_vhd_check,
    .co_compact = co_vhd_compact,
    .co_make_empty = co_vhd_make_empty,
    .co_identify_backing = co_vhd_identify_backing,
    .co_change_backing = co_vhd_change_backing,
    .co_info = co_vhd_info,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_sparse.c - one sparse extent as a map.
 *
 *   | header | descriptor | RGD | twins of the grain tables | GD | grain tables | grains |
 *
 * A grain table has 512 entries, a directory one per table, le32 sector numbers all. 0: not here.
 * 1, where a flag says so: zeroes. Who makes such files makes all tables at once, one behind the
 * other, so together they are one flat table of the engine, and the directories only say where it
 * lies. The twins are changed in the step in which the tables are.
 *
 * What is durable before what:
 *   1 uncleanShutdown and the new CID -> the first change of a session; cleared <- the last one
 *   2 grain data -> its entry and the entry's twin, where the grain hides older contents or was
 *     used before; the two of them in one batch, in any order: the first counts, and who finds the
 *     mark of an unclean end makes the second equal
 *   3 new tables, twins and directories -> header
 * Tables that lie scattered (made by others) are read through the directory: vmdk_stream.c. */
#include "imgfmt/vmdk.h"

enum { RANK_HEADER, RANK_TABLE };

#define AHEAD_BYTES (64 * MiB)
#define PIECE       (64 * KiB)
#define ZERO_GRAIN  512u /* entry 1 */

/* --- the header --- */

static int parse_places(const struct vmdk_header_disk *raw, struct vmdk_header *h,
                        struct blk_error *e)
{
    const uint64_t most = INT64_MAX / 512;
    uint64_t gd = le64_get(raw->gd_at), rgd = le64_get(raw->rgd_at), over = le64_get(raw->overhead);
    uint64_t text = le64_get(raw->descriptor_at), room = le64_get(raw->descriptor_size);
    if ((gd > most && gd != VMDK_AT_END) || rgd > most || over > most || text > most)
        return err_bad(e, -EINVAL,
                       "the header is damaged: it puts tables past the end of any file");
    h->gd_at = gd == VMDK_AT_END ? VMDK_AT_END : gd * 512;
    h->rgd_at = h->flags & VMDK_REDUNDANT ? rgd * 512 : 0;
    h->overhead = over * 512;
    h->text_at = text * 512;
    if (text && room > VMDK_TEXT_MOST / 512)
        return err_bad(e, -EFBIG,
                       "the header says a descriptor of %" PRIu64 " sectors, which is too large",
                       room);
    h->text_room = text ? room * 512 : 0;
    return 0;
}

int vmdk_header_parse(const struct vmdk_header_disk *raw, bool fresh, struct vmdk_header *out,
                      struct blk_error *e)
{
    uint32_t magic = le32_get(raw->magic), entries = le32_get(raw->table_entries);
    uint64_t capacity = le64_get(raw->capacity), grain = le64_get(raw->grain);
    if (magic != VMDK_MAGIC && !(fresh && magic == 0))
        return err_set(e, -EINVAL, "not a VMDK extent");
    *out = (struct vmdk_header){
        .version = le32_get(raw->version),
        .flags = le32_get(raw->flags),
        .unclean = raw->unclean,
    };
    if (out->version < 1 || out->version > 3)
        return err_bad(e, -ENOTSUP, "VMDK version %u; 1 to 3 are known", out->version);
    if (entries != VMDK_TABLE)
        return err_bad(e, -EINVAL, "the header says grain tables of %u entries; VMDK has 512",
                       entries);
    if (!is_pow2(grain) || grain < 8 || grain > 256 * MiB / 512)
        return err_bad(e, -EINVAL,
                       "the header says grains of %" PRIu64 " sectors, which are impossible",
                       grain);
    if (capacity > UINT32_MAX * grain)
        return err_bad(e, -EFBIG, "a disk of %" PRIu64 " sectors is more than entries can say",
                       capacity);
    out->table_entries = VMDK_TABLE;
    out->entry_bytes = 4;
    out->size = capacity * 512;
    out->grain_bytes = grain * 512;
    out->tables = div_up(capacity, grain * VMDK_TABLE);
    if (out->tables > 32 * MiB / 4)
        return err_bad(e, -EFBIG, "the disk needs %" PRIu64 " grain tables, more than are read",
                       out->tables);
    return parse_places(raw, out, e);
}

static void put_header(struct map *m, void *at)
{
    const struct vmdk *v = vmdk_of(m);
    struct vmdk_header_disk *raw = at;
    raw->magic = le32_of(m->units->unfinished ? 0 : VMDK_MAGIC);
    raw->unclean = v->h.unclean;
    raw->capacity = le64_of(m->shape.size / 512);
    raw->gd_at = le64_of(v->h.gd_at / 512);
    if (v->h.rgd_at)
        raw->rgd_at = le64_of(v->h.rgd_at / 512);
}

static int co_put_header(struct map *m)
{
    return co_map_units_rewrite(m, 0, RANK_HEADER, put_header);
}

/* --- entries --- */

static int vmdk_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    uint64_t at = vmdk_entry_get(entry);
    bool zero = at == ZERO_GRAIN && !m->shape.no_zero_cells;
    out->state = at == 0 ? MAP_HOLE : zero ? MAP_ZERO : MAP_DATA;
    out->offset = out->state == MAP_DATA ? at : 0;
    return 0;
}

static void vmdk_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    uint64_t at = cell->state == MAP_ZERO ? ZERO_GRAIN : 0;
    vmdk_entry_put(entry, cell->state == MAP_DATA ? cell->offset : at);
}

/* Entries are 32 bits of sectors. */
static int co_vmdk_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    TRY(co_map_units_place(m, count, offset, reused));
    if ((*offset + (*count << m->shape.cluster_bits)) / 512 <= UINT32_MAX)
        return 0;
    for (uint64_t i = 0; i < *count; i++) {
        struct map_cell back = {.state = MAP_DATA,
                                .offset = *offset + (i << m->shape.cluster_bits)};
        map_units_unplace(m, &back, 1);
    }
    return -ENOSPC;
}

/* --- the twins --- */

static uint64_t twin_page(const struct map *m, const struct map_update *u)
{
    return align_down(vmdk_of(m)->rgt_at + u->cluster * 4, meta_page_bytes(m->meta));
}

static int co_vmdk_prepare(struct map *m, const struct map_update *u, size_t count)
{
    struct meta_page *page;
    if (!vmdk_of(m)->rgt_at)
        return 0;
    TRY(co_meta_get(m->meta, twin_page(m, u), RANK_TABLE, &page));
    meta_put(m->meta, page);
    return 0;
}

/* All updates are of one page of the table, so of one of the twins too. */
static int vmdk_commit(struct map *m, const struct map_update *u, size_t count)
{
    const struct vmdk *v = vmdk_of(m);
    struct meta_page *page = v->rgt_at ? meta_peek(m->meta, twin_page(m, u)) : NULL;
    if (!page)
        return v->rgt_at ? -ENOMEM : 0;
    int rc = meta_touch(m->meta, page);
    for (size_t i = 0; i < count && rc == 0; i++)
        vmdk_encode(m, &u[i].now, page->data + (v->rgt_at + u[i].cluster * 4 - page->offset));
    meta_put(m->meta, page);
    return rc;
}

static uint64_t tables_of(const struct map *m)
{
    return div_up(m->shape.root_entries, VMDK_TABLE);
}

/* Compares the twins with the tables and, where @mend, makes them equal. All is written back. */
static int co_compare_twins(struct map *m, bool mend, uint64_t *differ)
{
    const struct vmdk *v = vmdk_of(m);
    auto_free uint8_t *a = mem_alloc(2 * PIECE);
    uint64_t total = v->h.tables * VMDK_TABLE_BYTES;
    *differ = 0;
    if (!a)
        return -ENOMEM;
    for (uint64_t at = 0, n; v->rgt_at && at < total; at += n) {
        n = MIN(PIECE, total - at);
        TRY(co_blk_read_buf(m->file, v->gt_at + at, a, n));
        TRY(co_blk_read_buf(m->file, v->rgt_at + at, a + PIECE, n));
        for (uint64_t i = 0; i < n; i += 4)
            *differ += memcmp(a + i, a + PIECE + i, 4) != 0;
        if (!mend || memcmp(a, a + PIECE, n) == 0)
            continue;
        co_meta_forget(m->meta, v->rgt_at + at, n);
        TRY(co_blk_write_buf(m->file, v->rgt_at + at, a, n, 0));
    }
    return 0;
}

/* --- the descriptor in the file --- */

/* In front of the header's rewriting, which makes it durable. */
static int co_tell(struct vmdk *v, const struct vmdk_edit *edit)
{
    struct map *m = &v->map;
    uint32_t page = meta_page_bytes(m->meta);
    uint64_t from = align_down(v->h.text_at, page),
             end = align_up(v->h.text_at + v->h.text_room, page);
    TRY(co_meta_write_back(m->meta, !m->fresh));
    co_meta_forget(m->meta, from, MIN(end, v->gt_at) - from);
    int rc = co_vmdk_tell(v, edit);
    if (rc == 0)
        rc = co_put_header(m);
    v->text_unsure |= rc < 0 && rc != -EMSGSIZE;
    return rc;
}

static int co_will_write(struct vmdk *v)
{
    return co_map_will_write(&v->map);
}

/* The size as it is now, in text and header, and, with @new_cid, another CID. Where the text has no
 * room, the header counts, and the old one can be read. */
static int co_tell_size(struct map *m, bool new_cid)
{
    struct vmdk *v = vmdk_of(m);
    struct vmdk_edit edit = vmdk_as_it_is(v);
    if (!v->text || !v->h.text_at)
        return co_put_header(m);
    edit.number = 0;
    edit.bytes = m->shape.size;
    if (new_cid)
        edit.cid = vmdk_new_cid(v, m->dev->host);
    int rc = co_tell(v, &edit);
    return rc == -EMSGSIZE ? co_put_header(m) : rc;
}

/* --- hooks of units --- */

struct span {
    uint64_t at, end;
};

static void add_span(struct span *list, size_t *count, struct span s)
{
    if (s.at >= s.end)
        return;
    for (size_t i = 0; i < *count;) {
        if (s.at > list[i].end || list[i].at > s.end) {
            i++;
            continue;
        }
        s = (struct span){MIN(s.at, list[i].at), MAX(s.end, list[i].end)};
        list[i] = list[--*count];
        i = 0;
    }
    list[(*count)++] = s;
}

/* Header, directories and tables: none of them twice, where they share units. While tables move,
 * those that the header still names too (v->gt_at). */
static int co_vmdk_reserve(struct map *m)
{
    const struct vmdk *v = vmdk_of(m);
    uint64_t unit = m->units->unit_bytes, gd = v->h.tables * 4;
    uint64_t gts = v->h.tables * VMDK_TABLE_BYTES, root = tables_of(m) * VMDK_TABLE_BYTES;
    uint64_t rgd_at = v->rgt_at ? v->h.rgd_at : 0;
    const struct span all[] = {
        {0, MAX(512, MIN(v->h.overhead, m->file->size))},
        {v->h.text_at, v->h.text_at + v->h.text_room},
        {v->h.gd_at, v->h.gd_at + gd},
        {rgd_at, rgd_at + gd},
        {v->rgt_at, v->rgt_at + gts},
        {v->gt_at, v->gt_at + gts},
        {m->shape.root_offset, m->shape.root_offset + root},
    };
    struct span list[ARRAY_LEN(all)];
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].at || i == 0)
            add_span(list, &count,
                     (struct span){align_down(all[i].at, unit), align_up(all[i].end, unit)});
    for (size_t i = 0; i < count; i++)
        TRY(map_units_reserve(m, list[i].at, list[i].end - list[i].at));
    return 0;
}

static int co_vmdk_begin(struct map *m)
{
    struct vmdk *v = vmdk_of(m);
    uint64_t differ;
    if (v->h.unclean || v->tables_differ)
        TRY(co_compare_twins(m, true, &differ));
    v->tables_differ = false;
    bool before = v->h.unclean;
    v->h.unclean = true;
    int rc = co_tell_size(m, !m->fresh);
    if (rc < 0)
        v->h.unclean = before;
    return rc;
}

static int co_vmdk_end(struct map *m)
{
    vmdk_of(m)->h.unclean = false;
    int rc = co_put_header(m);
    if (rc < 0)
        vmdk_of(m)->h.unclean = true;
    return rc;
}

/* --- tables at a new place --- */

static int co_fill_directory(struct map *m, uint64_t at, uint64_t first, uint64_t count)
{
    uint64_t bytes = align_up(count * 4, 512);
    auto_free uint8_t *raw = mem_zalloc(bytes);
    if (!raw)
        return -ENOMEM;
    for (uint64_t i = 0; i < count; i++)
        vmdk_entry_put(raw + i * 4, first + i * VMDK_TABLE_BYTES);
    co_meta_forget(m->meta, at, align_up(bytes, meta_page_bytes(m->meta)));
    return co_blk_write_buf(m->file, at, raw, bytes, 0);
}

/* The last table is filled up with holes; then all are copied. */
static int co_copy_tables(struct map *m, uint64_t to)
{
    uint64_t used = m->shape.root_entries * 4, total = tables_of(m) * VMDK_TABLE_BYTES;
    uint64_t from = m->shape.root_offset;
    auto_free uint8_t *buffer = mem_zalloc(PIECE);
    if (!buffer)
        return -ENOMEM;
    if (used < total) {
        TRY(co_blk_write_buf(m->file, from + used, buffer, total - used, 0));
        co_meta_forget(m->meta, from + align_down(used, meta_page_bytes(m->meta)),
                       total - align_down(used, meta_page_bytes(m->meta)));
    }
    for (uint64_t at = 0, n; to && at < total; at += n) {
        n = MIN(PIECE, total - at);
        TRY(co_blk_read_buf(m->file, from + at, buffer, n));
        co_meta_forget(m->meta, to + at, n);
        TRY(co_blk_write_buf(m->file, to + at, buffer, n, 0));
    }
    return 0;
}

/* What lies beside the table: both directories, the twins. */
static uint64_t side_bytes(const struct vmdk *v, uint64_t tables)
{
    return 2 * align_up(tables * 4, VMDK_TABLE_BYTES) + (v->rgt_at ? tables * VMDK_TABLE_BYTES : 0);
}

static int co_new_tables(struct map *m, uint64_t side)
{
    struct vmdk *v = vmdk_of(m);
    uint64_t tables = tables_of(m), gd = align_up(tables * 4, VMDK_TABLE_BYTES);
    uint64_t twins = v->rgt_at ? side + 2 * gd : 0;
    TRY(co_copy_tables(m, twins));
    TRY(co_fill_directory(m, side, m->shape.root_offset, tables));
    if (twins)
        TRY(co_fill_directory(m, side + gd, twins, tables));
    TRY(m->fresh ? 0 : co_blk_flush(m->file));
    v->h.gd_at = side;
    v->h.rgd_at = twins ? side + gd : v->h.rgd_at;
    v->rgt_at = twins;
    v->gt_at = m->shape.root_offset;
    v->h.tables = tables;
    return 0;
}

static int co_vmdk_publish(struct map *m)
{
    struct vmdk *v = vmdk_of(m), before = *v;
    bool moved = m->shape.root_offset != v->gt_at, reused;
    uint64_t side = 0, bytes = side_bytes(v, tables_of(m));
    if (moved)
        TRY(co_map_units_take(m, bytes, &side, &reused));
    assert(!moved || side + bytes <= v->gt_at ||
           side >= v->gt_at + v->h.tables * VMDK_TABLE_BYTES); /* 3: they count until the header */
    int rc = moved ? co_new_tables(m, side) : 0;
    if (rc == 0)
        rc = co_tell_size(m, false);
    if (rc < 0) {
        v->h = before.h;
        v->gt_at = before.gt_at;
        v->rgt_at = before.rgt_at;
        if (moved)
            map_units_let_go(m, side, bytes);
        return rc;
    }
    if (moved && before.tables_ours) { /* the places of an earlier move */
        map_units_let_go(m, before.h.gd_at, side_bytes(&before, before.h.tables));
        map_units_let_go(m, before.gt_at, before.h.tables * VMDK_TABLE_BYTES);
    }
    v->tables_ours |= moved;
    return 0;
}

static int co_vmdk_check(struct map *m, struct blk_check *c)
{
    struct vmdk *v = vmdk_of(m);
    uint64_t differ;
    if (!v->rgt_at || v->units.begun)
        return 0;
    TRY(co_compare_twins(m, c->fix_errors || c->fix_leaks, &differ));
    map_units_say(c, differ, "entries of the redundant grain tables are not as the first ones are");
    c->leaks += differ;
    if (differ && (c->fix_errors || c->fix_leaks)) {
        c->leaks -= differ;
        c->leaks_fixed += differ;
        TRY(m->fresh ? 0 : co_blk_flush(m->file));
    }
    return 0;
}

static const struct map_units_ops vmdk_units = {
    .co_reserve = co_vmdk_reserve,
    .co_begin = co_vmdk_begin,
    .co_end = co_vmdk_end,
    .co_publish = co_vmdk_publish,
    .co_check = co_vmdk_check,
};

static const struct map_format vmdk_format = {
    .decode = vmdk_decode,
    .encode = vmdk_encode,
    .co_place = co_vmdk_place,
    MAP_UNITS_HOOKS_BUT_PLACE,
    .co_prepare = co_vmdk_prepare,
    .commit = vmdk_commit,
    .table_rank = RANK_TABLE,
};

/* --- opening --- */

/* *first: where the tables of the directory at @at lie, if one behind the other; else 0. */
static int co_find_tables(struct vmdk *v, uint64_t at, uint64_t *first, struct blk_error *e)
{
    auto_free uint8_t *raw = mem_alloc(PIECE);
    uint64_t count = v->h.tables;
    *first = 0;
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    if (at == 0 || !range_fits(at, count * 4, v->map.file->size))
        return err_bad(e, -EINVAL, "the grain directory at %" PRIu64 " ends past the file", at);
    for (uint64_t i = 0; i < count; i++) {
        if (i % (PIECE / 4) == 0) {
            int rc = co_blk_read_buf(v->map.file, at + i * 4, raw, MIN(PIECE, (count - i) * 4));
            if (rc < 0)
                return err_errno(e, rc, "the grain directory cannot be read");
        }
        uint64_t place = vmdk_entry_get(raw + i % (PIECE / 4) * 4);
        if (i == 0)
            *first = place;
        if (place == 0 || place != *first + i * VMDK_TABLE_BYTES) {
            *first = 0;
            return 0;
        }
    }
    return 0;
}

static uint32_t page_for(const struct vmdk *v)
{
    uint32_t page = VMDK_TABLE_BYTES;
    while (page > 512 && (v->gt_at % page || v->rgt_at % page))
        page /= 2;
    return page;
}

static void fill_map(struct vmdk *v, struct blk_device *dev)
{
    const struct vmdk_header *h = &v->h;
    v->map.dev = dev;
    v->map.format = &vmdk_format;
    v->map.units = &v->units;
    v->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    v->map.shape = (struct map_shape){.size = h->size,
                                      .cluster_bits = log2_floor(h->grain_bytes),
                                      .entry_bytes = 4,
                                      .levels = 1,
                                      .root_offset = v->gt_at,
                                      .root_entries = h->tables * VMDK_TABLE,
                                      .no_zero_cells = !(h->flags & VMDK_ZERO_GRAIN)};
    v->units.ops = &vmdk_units;
    v->units.unit_bytes = h->grain_bytes;
    v->units.cluster_limit = UINT32_MAX / (h->grain_bytes / 512);
    v->units.ahead_bytes = AHEAD_BYTES;
    v->units.table = UNITS_TABLE_MOVES;
    v->units.page_bytes = page_for(v);
}

/* The tables are there whole, their twins too where there are any. */
static int co_look_at_tables(struct vmdk *v, bool *whole, struct blk_error *e)
{
    bool twins = v->h.flags & VMDK_REDUNDANT;
    struct blk_error why;
    TRY(co_find_tables(v, v->h.gd_at, &v->gt_at, e));
    if (twins && co_find_tables(v, v->h.rgd_at, &v->rgt_at, &why) < 0)
        v->rgt_at = 0;
    uint64_t bytes = v->h.tables * VMDK_TABLE_BYTES, file = v->map.file->size;
    *whole = v->gt_at && range_fits(v->gt_at, bytes, file) &&
             (!twins || (v->rgt_at && range_fits(v->rgt_at, bytes, file)));
    *whole |= v->h.tables == 0;
    return 0;
}

int co_vmdk_open_sparse(struct vmdk *v, struct blk_device *dev, const struct vmdk_header_disk *raw,
                        const struct opts *opts, struct blk_error *e)
{
    bool fresh = dev->open_flags & BLK_OPEN_FRESH, whole;
    TRY(vmdk_header_parse(raw, fresh, &v->h, e));
    if (v->h.flags & VMDK_COMPRESSED)
        return co_vmdk_open_readonly(v, dev, opts, e);
    v->units.unfinished = le32_get(raw->magic) != VMDK_MAGIC;
    TRY(co_look_at_tables(v, &whole, e));
    if (!whole)
        return co_vmdk_open_readonly(v, dev, opts, e);
    fill_map(v, dev);
    v->co_tell = co_tell;
    v->co_will_write = co_will_write;
    return co_map_units_open(&v->map, opts_number(opts, "cache-size"), e);
}

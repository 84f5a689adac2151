/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_cowd.c - vmfsSparse ("COWD"), the snapshots of ESX up to 6.0: one extent as a map.
 *
 *   | header, 4 sectors | directory | table or grain, in order of first write ... |
 *
 * A table has 4096 entries and is made when its first grain is; directory and tables hold le32
 * sector numbers. 0: not here. A grain is one sector as a rule, so a unit is a sector, and tables
 * take 32 of them. The header says which sector is the next free one, and others begin there to
 * write.
 *
 * What is durable before what:
 *   1 uncleanShutdown -> the first change of a session; cleared <- the last one
 *   2 the file is as long, and the next free sector as far ahead, as any place that is handed out;
 *     both exact again when writing ends
 *   3 grain data -> its entry, where the grain hides older contents or was used before
 *   4 table -> the directory's entry
 *   5 a directory elsewhere -> header */
#include "imgfmt/vmdk.h"

enum { RANK_TABLE, RANK_DIRECTORY };

#define AHEAD_BYTES (64 * MiB)
#define UNIT        512u
#define HEADER      2048u
#define PLACE_MOST  (UINT32_MAX * 512ULL) /* the last one that an entry can name */

int vmdk_cowd_parse(const struct vmdk_cowd_disk *raw, struct vmdk_header *out, struct blk_error *e)
{
    uint64_t capacity = le32_get(raw->capacity), grain = le32_get(raw->grain);
    if (le32_get(raw->magic) != VMDK_COWD_MAGIC || le32_get(raw->version) != 1)
        return err_set(e, -EINVAL, "not a vmfsSparse extent of version 1");
    if (!is_pow2(grain) || grain > 256 * MiB / 512)
        return err_bad(e, -EINVAL,
                       "the header says grains of %" PRIu64 " sectors, which are impossible",
                       grain);
    *out = (struct vmdk_header){
        .version = 1,
        .size = capacity * 512,
        .grain_bytes = grain * 512,
        .gd_at = le32_get(raw->gd_at) * 512ULL,
        .tables = div_up(capacity, grain * VMDK_COWD_TABLE),
        .table_entries = VMDK_COWD_TABLE,
        .entry_bytes = 4,
        .next_free = le32_get(raw->next_free) * 512ULL,
        .unclean = le32_get(raw->unclean),
    };
    if (le32_get(raw->tables) < out->tables)
        return err_bad(e, -EINVAL, "the directory is too short for the disk");
    if (out->gd_at < HEADER)
        return err_bad(e, -EINVAL, "the directory lies in the header");
    return 0;
}

/* --- entries --- */

static int cowd_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    out->offset = vmdk_entry_get(entry);
    out->state = out->offset ? MAP_DATA : MAP_HOLE;
    return 0;
}

static void cowd_root_encode(const struct map *m, uint64_t offset, void *to)
{
    vmdk_entry_put(to, offset);
}

static void cowd_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    vmdk_entry_put(entry, cell->state == MAP_DATA ? cell->offset : 0);
}

static int cowd_root_decode(const struct map *m, const void *entry, uint64_t *offset, bool *shared)
{
    *shared = false;
    *offset = vmdk_entry_get(entry);
    return 0;
}

/* --- the header: its first sector, and the last one, which has the mark --- */

static int co_put(struct map *m, uint64_t at, const void *from)
{
    TRY(co_blk_write_buf(m->file, at, from, 512, 0));
    return co_blk_flush(m->file);
}

static int co_put_first(struct map *m)
{
    struct vmdk *v = vmdk_of(m);
    struct vmdk_cowd_disk *raw = v->cowd;
    raw->capacity = le32_of((uint32_t)(m->shape.size / 512));
    raw->gd_at = le32_of((uint32_t)(m->shape.root_offset / 512));
    raw->tables = le32_of((uint32_t)m->shape.root_entries);
    raw->next_free = le32_of((uint32_t)(v->h.next_free / 512));
    return co_put(m, 0, raw);
}

static int co_put_mark(struct map *m, bool unclean)
{
    struct vmdk *v = vmdk_of(m);
    size_t at = align_down(offsetof(struct vmdk_cowd_disk, unclean), 512);
    v->cowd->unclean = le32_of(unclean);
    TRY(co_put(m, at, (const uint8_t *)v->cowd + at));
    v->h.unclean = unclean;
    return 0;
}

/* --- hooks of units --- */

static int co_cowd_reserve(struct map *m)
{
    uint64_t root = m->shape.root_entries * 4;
    TRY(map_units_reserve(m, 0, HEADER));
    return map_units_reserve(m, m->shape.root_offset, align_up(root, UNIT));
}

/* What fails may be half written: the next flush must say so. */
static int co_cowd_begin(struct map *m)
{
    int rc = co_put_mark(m, true);
    if (rc < 0)
        map_write_again(m);
    return rc;
}

/* What fails leaves the next free sector too far ahead in memory, which does no harm. */
static int co_cowd_extend(struct map *m, uint64_t end)
{
    struct vmdk *v = vmdk_of(m);
    struct blk_error ignored;
    uint64_t ahead = MIN(end + AHEAD_BYTES, PLACE_MOST);
    if (end > PLACE_MOST || (end > m->file->size && !m->file->limits.growable))
        return -ENOSPC;
    if (end > m->file->size)
        TRY(co_blk_resize(m->file, ahead, false, &ignored));
    v->h.next_free = MAX(v->h.next_free, MIN(ahead, m->file->size));
    TRY(co_put_first(m));
    m->units->prepared = v->h.next_free;
    return 0;
}

static int co_cowd_end(struct map *m)
{
    struct vmdk *v = vmdk_of(m);
    TRY(co_meta_write_back(m->meta, true));
    v->h.next_free = m->units->space.next * UNIT;
    TRY(co_put_first(m));
    return co_put_mark(m, false);
}

static int co_cowd_publish(struct map *m)
{
    TRY(co_meta_write_back(m->meta, true));
    return co_put_first(m);
}

/* Who writes next, a repair too, puts it right. */
static int co_cowd_check(struct map *m, struct blk_check *c)
{
    const struct vmdk *v = vmdk_of(m);
    bool low = !m->units->begun && v->h.next_free < m->units->space.next * UNIT;
    TRY(co_map_units_marked(m, c, v->h.unclean));
    map_units_say(c, low, "next free sector lies among those that are used");
    c->leaks += low;
    return 0;
}

static const struct map_units_ops cowd_units = {
    .co_reserve = co_cowd_reserve,
    .co_extend = co_cowd_extend,
    .co_begin = co_cowd_begin,
    .co_end = co_cowd_end,
    .co_publish = co_cowd_publish,
    .co_check = co_cowd_check,
};

static const struct map_format cowd_format = {
    .decode = cowd_decode,
    .encode = cowd_encode,
    .root_decode = cowd_root_decode,
    .root_encode = cowd_root_encode,
    MAP_UNITS_HOOKS,
    .table_rank = RANK_TABLE,
    .root_rank = RANK_DIRECTORY,
};

/* --- opening --- */

static void fill_map(struct vmdk *v, struct blk_device *dev)
{
    const struct vmdk_header *h = &v->h;
    v->map.dev = dev;
    v->map.format = &cowd_format;
    v->map.units = &v->units;
    v->map.shape = (struct map_shape){.size = h->size,
                                      .cluster_bits = log2_floor(h->grain_bytes),
                                      .entry_bytes = 4,
                                      .levels = 2,
                                      .table_entries = VMDK_COWD_TABLE,
                                      .table_bytes = VMDK_COWD_TABLE * 4,
                                      .root_entry_bytes = 4,
                                      .root_offset = h->gd_at,
                                      .root_entries = h->tables,
                                      .no_zero_cells = true};
    v->units.ops = &cowd_units;
    v->units.unit_bytes = UNIT;
    v->units.cluster_units = (uint32_t)(h->grain_bytes / UNIT);
    v->units.cluster_limit = PLACE_MOST / h->grain_bytes;
    v->units.table = UNITS_TABLE_MOVES;
    v->units.gaps = true; /* sectors between structures, here and there */
    v->units.page_bytes = 512;
}

int co_vmdk_open_cowd(struct vmdk *v, struct blk_device *dev, const struct opts *opts,
                      struct blk_error *e)
{
    v->cowd = mem_zalloc(sizeof(*v->cowd));
    if (!v->cowd)
        return err_set(e, -ENOMEM, "out of memory");
    uint64_t file = v->map.file->size;
    int rc = co_blk_read_buf(v->map.file, 0, v->cowd, MIN(file, sizeof(*v->cowd)));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    TRY(vmdk_cowd_parse(v->cowd, &v->h, e));
    if (!range_fits(v->h.gd_at, v->h.tables * 4, file))
        return err_bad(e, -EINVAL, "the grain directory ends past the file");
    fill_map(v, dev);
    return co_map_units_open(&v->map, opts_number(opts, "cache-size"), e);
}

/* --- creating --- */

uint64_t vmdk_cowd_empty_bytes(uint64_t size)
{
    return HEADER + align_up(div_up(size, 512ULL * VMDK_COWD_TABLE) * 4, UNIT);
}

int co_vmdk_create_cowd(const struct blk_create *c, uint64_t size, struct blk_error *e)
{
    uint64_t tables = div_up(size, 512ULL * VMDK_COWD_TABLE);
    uint64_t end = vmdk_cowd_empty_bytes(size);
    if (size > PLACE_MOST)
        return err_set(e, -EFBIG, "a vmfsSparse extent is smaller than 2 TiB");
    struct vmdk_cowd_disk raw = {
        .magic = le32_of(VMDK_COWD_MAGIC),
        .version = le32_of(1),
        .flags = le32_of(3), /* as all that were seen have */
        .capacity = le32_of((uint32_t)(size / 512)),
        .grain = le32_of(1),
        .gd_at = le32_of(HEADER / 512),
        .tables = le32_of((uint32_t)tables),
        .next_free = le32_of((uint32_t)(end / 512)),
    };
    struct map_units_image image = {
        .end = end,
        .table_offset = HEADER,
        .entries = tables,
        .entry_bytes = 4,
        .last = {0, &raw, sizeof(raw)},
    };
    return co_map_units_create(c, &image, e);
}

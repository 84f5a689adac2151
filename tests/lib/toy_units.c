/* SPDX-License-Identifier: BSD-3-Clause */
/* toy_units.c - four toy formats in one driver. */
#include "tests/lib/toy_units.h"

#define MAGIC       0x7374696e752d796fULL
#define FOOTER      0x7265746f6f66ULL /* "footer" */
#define RANK_HEADER 0
#define RANK_TABLE  1
#define RANK_ROOT   2
#define ROOT_AT     4096

struct kind {
    uint32_t cluster_bytes, unit_bytes, cluster_units, lead, table_entries;
    uint8_t levels;
    enum map_units_table table;
    uint32_t ahead;
    bool aligned, footer;
};
static const struct kind kinds[TOY_UNITS_KINDS] = {
    [TOY_STAYS] = {4096, 4096, 1, 0, 0, 1, UNITS_TABLE_STAYS, 0, false, false},
    [TOY_MOVES] = {4096, 4096 + 512, 1, 512, 0, 1, UNITS_TABLE_MOVES, 0, false, true},
    [TOY_TABLES] = {4096, 1024, 4, 0, 64, 2, UNITS_TABLE_MOVES, 64 * KiB, false, false},
    [TOY_BIG] = {16384, 4096, 4, 0, 0, 1, UNITS_TABLE_MOVES, 0, true, false},
};

struct toy {
    struct map map; /* first */
    struct map_units units;
    const struct kind *kind;
    enum toy_units_kind number;
    bool dirty;
};

static struct toy *toy_of(struct map *m)
{
    return container_of(m, struct toy, map);
}

struct map *toy_units_map(struct blk_device *dev)
{
    return dev->state;
}

/* --- entries --- */

static uint64_t get(const void *raw)
{
    le64 v;
    memcpy(&v, raw, 8);
    return le64_get(v);
}

static void put(void *raw, uint64_t n)
{
    le64 v = le64_of(n);
    memcpy(raw, &v, 8);
}

static int toy_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    uint64_t raw = get(entry);
    out->state = (raw & 3) == 1 ? MAP_DATA : (raw & 3) == 2 ? MAP_ZERO : MAP_HOLE;
    if (out->state == MAP_DATA)
        out->offset = raw & ~3ULL;
    return 0;
}

static void toy_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    put(entry, cell->state == MAP_DATA ? cell->offset | 1 : cell->state == MAP_ZERO ? 2 : 0);
}

static int toy_root_decode(const struct map *m, const void *raw, uint64_t *offset, bool *shared)
{
    *offset = get(raw);
    return 0;
}

static void toy_root_encode(const struct map *m, uint64_t offset, void *raw)
{
    put(raw, offset);
}

/* --- header --- */

static void fill_header(struct map *m, void *page)
{
    struct toy_units_header *h = page;
    h->magic = le64_of(MAGIC);
    h->kind = le64_of(toy_of(m)->number);
    h->size = le64_of(m->shape.size);
    h->root_offset = le64_of(m->shape.root_offset);
    h->root_entries = le64_of(m->shape.root_entries);
    h->base = le64_of(m->units->base);
    h->dirty = le64_of(toy_of(m)->dirty);
}

static int co_toy_publish(struct map *m)
{
    return co_map_units_rewrite(m, 0, RANK_HEADER, fill_header);
}

static int co_toy_begin(struct map *m)
{
    toy_of(m)->dirty = true;
    if (toy_of(m)->kind->footer)
        m->units->prepared = m->file->size - 512;
    return co_toy_publish(m);
}

static int co_toy_end(struct map *m)
{
    toy_of(m)->dirty = false;
    return co_toy_publish(m);
}

static int co_toy_reserve(struct map *m)
{
    uint64_t entry = m->shape.levels == 1 ? m->shape.entry_bytes : m->shape.root_entry_bytes;
    return map_units_reserve(m, m->shape.root_offset, align_up(m->shape.root_entries * entry, 512));
}

/* --- the footer --- */

static int co_put_footer(struct map *m, uint64_t at)
{
    uint8_t footer[512] = {0};
    put(footer, FOOTER);
    TRY(co_blk_write_buf(m->file, at, footer, 512, 0));
    return m->fresh ? 0 : co_blk_flush(m->file);
}

static int co_toy_extend(struct map *m, uint64_t end)
{
    uint64_t to = end + 8 * m->units->unit_bytes, old = m->units->prepared + 512;
    int rc = co_put_footer(m, to);
    if (rc < 0) { /* the old one is to be at the end again */
        struct blk_error ignored;
        (void)!co_blk_resize(m->file, old, true, &ignored);
        return rc;
    }
    map_units_touch(m, old);
    m->units->prepared = to;
    return 0;
}

static int co_toy_fit(struct map *m, uint64_t end)
{
    struct blk_error e;
    if (m->file->size == end + 512)
        return 0;
    TRY(co_put_footer(m, end));
    m->units->prepared = 0; /* begun again before anything else is placed */
    return co_blk_resize(m->file, end + 512, true, &e);
}

/* The lead of a new cluster is durable before its entry. */
static int co_toy_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    uint8_t lead[512];
    TRY(co_map_units_place(m, count, offset, reused));
    if (m->shape.lead_bytes == 0)
        return 0;
    memset(lead, 0xff, sizeof(lead));
    int rc = co_blk_write_buf(m->data, *offset - 512, lead, 512, 0);
    if (rc < 0) {
        struct map_cell cell = {.state = MAP_DATA, .offset = *offset};
        map_units_unplace(m, &cell, 1);
        return rc;
    }
    meta_data_before(m->meta, RANK_TABLE);
    return 0;
}

static int co_look_at_lead(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct blk_check *c = arg;
    uint8_t lead[512];
    if (cell->state != MAP_DATA || m->shape.lead_bytes == 0 || cell->offset < 512 ||
        !range_fits(cell->offset - 512, 512, m->file->size))
        return 0;
    TRY(co_blk_read_buf(m->file, cell->offset - 512, lead, 512));
    for (unsigned i = 0; i < 512; i++)
        if (lead[i] != 0xff) {
            map_units_say(c, cluster, "is a cluster with a wrong lead");
            c->corruptions++;
            break;
        }
    return 0;
}

static int co_toy_check(struct map *m, struct blk_check *c)
{
    return co_map_walk(m, co_look_at_lead, c);
}

/* --- tables --- */

static const struct map_units_ops plain_ops = {
    .co_reserve = co_toy_reserve,
    .co_begin = co_toy_begin,
    .co_end = co_toy_end,
    .co_publish = co_toy_publish,
};
static const struct map_units_ops footer_ops = {
    .co_reserve = co_toy_reserve,
    .co_extend = co_toy_extend,
    .co_begin = co_toy_begin,
    .co_end = co_toy_end,
    .co_publish = co_toy_publish,
    .co_check = co_toy_check,
    .co_fit = co_toy_fit,
};

static const struct map_format toy_format = {
    .decode = toy_decode,
    .encode = toy_encode,
    .root_decode = toy_root_decode,
    .root_encode = toy_root_encode,
    .co_place = co_toy_place,
    .unplace = map_units_unplace,
    .co_release = co_map_units_release,
    .co_place_table = co_map_units_place_table,
    .unplace_table = map_units_unplace_table,
    .co_release_table = co_map_units_release_table,
    .co_before_first_write = co_map_units_begin,
    .root_rank = RANK_ROOT,
    .table_rank = RANK_TABLE,
};

/* --- creating --- */

static void fill_nothing(const void *arg, uint64_t first, uint64_t count, void *to)
{
    memset(to, 0, count * 8);
}

int co_toy_units_create(struct blk_device *file, enum toy_units_kind kind, uint64_t size,
                        struct blk_error *e)
{
    const struct kind *k = &kinds[kind];
    uint64_t entries = div_up(size, k->cluster_bytes);
    if (k->levels == 2)
        entries = div_up(entries, k->table_entries);
    uint64_t base = ROOT_AT + align_up(entries * 8, kind == TOY_BIG ? 4096 : 512);
    uint8_t footer[512] = {0};
    struct toy_units_header h = {
        .magic = le64_of(MAGIC),
        .kind = le64_of(kind),
        .size = le64_of(size),
        .root_offset = le64_of(ROOT_AT),
        .root_entries = le64_of(entries),
        .base = le64_of(base),
    };
    put(footer, FOOTER);
    struct map_units_piece piece = {base, footer, 512};
    struct map_units_image image = {
        .end = base,
        .table_offset = ROOT_AT,
        .entries = entries,
        .entry_bytes = 8,
        .fill = fill_nothing,
        .pieces = &piece,
        .piece_count = k->footer,
        .last = {0, &h, sizeof(h)},
    };
    struct blk_create c = {.file = file, .size = size};
    return co_map_units_create(&c, &image, e);
}

/* --- the driver --- */

static void fill_map(struct toy *t, struct blk_device *dev, const struct toy_units_header *h)
{
    const struct kind *k = t->kind;
    t->map.dev = dev;
    t->map.format = &toy_format;
    t->map.units = &t->units;
    t->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    t->map.shape = (struct map_shape){
        .size = le64_get(h->size),
        .cluster_bits = log2_floor(k->cluster_bytes),
        .entry_bytes = 8,
        .levels = k->levels,
        .table_entries = k->table_entries,
        .table_bytes = k->table_entries * 8,
        .root_entry_bytes = 8,
        .root_offset = le64_get(h->root_offset),
        .root_entries = le64_get(h->root_entries),
        .lead_bytes = k->lead,
    };
    t->units = (struct map_units){
        .ops = k->footer ? &footer_ops : &plain_ops,
        .base = le64_get(h->base),
        .unit_bytes = k->unit_bytes,
        .cluster_units = k->cluster_units,
        .ahead_bytes = k->ahead,
        .table = k->table,
        .aligned = k->aligned,
        .page_bytes = 512,
    };
}

static int co_toy_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct toy_units_header h;
    uint8_t footer[512];
    struct blk_device *file = blk_child(dev, "file");
    auto_free struct toy *t = mem_zalloc(sizeof(*t));
    if (!t)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(file, 0, &h, sizeof(h));
    if (rc < 0)
        return err_errno(e, rc, "no header");
    if (le64_get(h.magic) != MAGIC || le64_get(h.kind) >= TOY_UNITS_KINDS)
        return err_set(e, -EINVAL, "not a toy");
    t->number = le64_get(h.kind);
    t->kind = &kinds[t->number];
    /* A crash may keep a file's new length and lose what was written there. */
    if (t->kind->footer && le64_get(h.dirty) == 0) {
        rc = co_blk_read_buf(file, file->size - 512, footer, 512);
        if (rc < 0 || get(footer) != FOOTER)
            return err_set(e, rc < 0 ? rc : -EINVAL, "no footer");
    }
    t->map.file = file;
    fill_map(t, dev, &h);
    TRY(co_map_units_open(&t->map, opts_number(opts, "cache-size"), e));
    (void)take(t);
    return 0;
}

static int co_toy_close(struct blk_device *dev, struct blk_error *e)
{
    struct toy *t = dev->state;
    int rc = co_map_units_close(&t->map, e);
    mem_free(t);
    return rc;
}

const struct blk_driver toy_units_driver = {
    .name = "toy-units",
    .title = "a toy",
    MAP_UNITS_DRIVER,
    .co_open = co_toy_open,
    .co_close = co_toy_close,
};

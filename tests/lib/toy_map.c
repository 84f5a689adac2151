/* SPDX-License-Identifier: BSD-3-Clause */
#include <check.h>

#include "block/endian.h"
#include "tests/lib/on_host.h"
#include "tests/lib/toy_map.h"

#define RANK_TABLE 2
#define RANK_ROOT  3

struct toy_kind how;

/* --- the format --- */

uint64_t toy_get(const void *entry)
{
    le64 v;
    memcpy(&v, entry, 8);
    return le64_get(v);
}

void toy_put(void *entry, uint64_t n)
{
    le64 v = le64_of(n);
    memcpy(entry, &v, 8);
}

static int toy_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    uint64_t raw = toy_get(entry);
    if (raw >> 60 > MAP_PACKED || raw >> 60 == MAP_PARTIAL)
        return -EIO;
    out->state = raw >> 60;
    out->shared = raw & TOY_SHARED;
    out->offset = raw & TOY_OFFSET;
    out->packed_bytes = raw >> 40 & 0xffff;
    return 0;
}

static void toy_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    toy_put(entry, (uint64_t)cell->state << 60 | (cell->shared ? TOY_SHARED : 0) |
                       (uint64_t)cell->packed_bytes << 40 | cell->offset);
}

static int toy_root_decode(const struct map *m, const void *raw, uint64_t *offset, bool *shared)
{
    *offset = toy_get(raw) & TOY_OFFSET;
    *shared = toy_get(raw) & TOY_SHARED;
    return 0;
}

static void toy_root_encode(const struct map *m, uint64_t offset, void *raw)
{
    toy_put(raw, offset);
}

struct toy *toy_of(struct map *m)
{
    return container_of(m, struct toy, map);
}

TEST_LOOP int toy_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    struct toy *t = toy_of(m);
    uint64_t u = 1;
    while (u < UNITS && t->refs[u])
        u++;
    uint64_t n = 0;
    while (n < *count && u + n < UNITS && !t->refs[u + n] && (u + n < t->high) == (u < t->high))
        t->refs[u + n++] = 1;
    if (n == 0)
        return -ENOSPC;
    *reused = u < t->high;
    t->high = MAX(t->high, u + n);
    *count = n;
    *offset = u * UNIT;
    return 0;
}

static int toy_place_packed(struct map *m, uint32_t bytes, uint64_t *offset, bool *reused)
{
    struct toy *t = toy_of(m);
    uint64_t one = 1;
    if (t->packed_at + bytes > t->packed_end || !t->refs[t->packed_at / UNIT]) {
        TRY(toy_place(m, &one, &t->packed_at, reused));
        t->packed_end = t->packed_at + UNIT;
    } else {
        t->refs[t->packed_at / UNIT]++;
    }
    *reused = true;
    *offset = t->packed_at;
    t->packed_at += bytes;
    return 0;
}

static int toy_place_table(struct map *m, uint64_t *offset)
{
    uint64_t one = 1;
    bool reused;
    return toy_place(m, &one, offset, &reused);
}

static void let_go(struct map *m, uint64_t offset)
{
    struct toy *t = toy_of(m);
    ck_assert(t->refs[offset / UNIT] > 0);
    t->refs[offset / UNIT]--;
}

static void toy_unplace(struct map *m, const struct map_cell *cells, size_t count)
{
    for (size_t i = 0; i < count; i++)
        let_go(m, cells[i].offset);
}

static void toy_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch)
{
    for (uint64_t i = 0; i < count; i++)
        let_go(m, cell->offset + i * UNIT);
}

/* A cluster of one byte packs to a few. */
static int toy_pack(const struct map *m, const void *cluster, void *packed, size_t *bytes)
{
    const uint8_t *c = cluster;
    if (memcmp(c, c + 1, m->cluster_bytes - 1) != 0)
        return -ENOSPC;
    memset(packed, c[0], 200);
    *bytes = 200;
    return 0;
}

static int toy_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                      size_t bytes, void *cluster)
{
    if (bytes < 200)
        return -EIO;
    memset(cluster, *(const uint8_t *)packed, m->cluster_bytes);
    return 0;
}

static const struct map_format toy_format = {
    .decode = toy_decode,
    .encode = toy_encode,
    .root_decode = toy_root_decode,
    .root_encode = toy_root_encode,
    .co_place = toy_place,
    .co_place_packed = toy_place_packed,
    .co_place_table = toy_place_table,
    .unplace = toy_unplace,
    .unplace_table = let_go,
    .co_release = toy_release,
    .co_release_table = let_go,
    .pack = toy_pack,
    .unpack = toy_unpack,
    .table_rank = RANK_TABLE,
    .root_rank = RANK_ROOT,
};

/* --- the driver --- */

static int count_cell(struct map *m, uint64_t cluster, const struct map_cell *cell, void *refs)
{
    if (cell->offset)
        ((uint8_t *)refs)[cell->offset / UNIT]++;
    return 0;
}

int co_toy_count(struct toy *t, uint8_t refs[UNITS])
{
    memset(refs, 0, UNITS);
    TRY(co_map_walk(&t->map, count_cell, refs));
    for (uint64_t i = 0; i < t->map.shape.root_entries; i++) {
        struct meta_page *p;
        TRY(co_meta_get(t->map.meta, t->map.shape.root_offset, RANK_ROOT, &p));
        uint64_t table = toy_get(p->data + i * 8) & TOY_OFFSET;
        if (table)
            refs[table / UNIT]++;
        meta_put(t->map.meta, p);
    }
    refs[0] = 1;
    refs[how.root / UNIT] = 1;
    return 0;
}

static int co_toy_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct toy *t = mem_zalloc(sizeof(*t));
    t->map = (struct map){
        .dev = dev,
        .file = blk_child(dev, "file"),
        .data = blk_child(dev, "file"),
        .backing = blk_child(dev, "backing"),
        .format = &toy_format,
        .fresh = dev->open_flags & BLK_OPEN_FRESH,
        .shape = {.size = TOY_SIZE,
                  .cluster_bits = 12,
                  .entry_bytes = 8,
                  .levels = 2,
                  .table_entries = 512,
                  .table_bytes = 4096,
                  .root_entry_bytes = 8,
                  .root_offset = how.root,
                  .root_entries = 3,
                  .no_zero_cells = how.no_zero_cells,
                  .zero_keeps_space = how.zero_keeps_space},
    };
    struct meta_options o = {.file = t->map.file,
                             .page_bytes = 4096,
                             .limit_bytes = how.cache ? how.cache : MiB,
                             .fresh = t->map.fresh};
    ck_assert_int_eq(meta_open(&o, &t->map.meta), 0);
    ck_assert_int_eq(map_attach(&t->map, e), 0);
    ck_assert_int_eq(co_toy_count(t, t->refs), 0);
    t->high = div_up(t->map.file->size, UNIT);
    dev->state = t;
    dev->size = TOY_SIZE;
    dev->limits.fresh_reads_zero = true;
    return 0;
}

static int co_toy_close(struct blk_device *dev, struct blk_error *e)
{
    struct toy *t = dev->state;
    int rc = co_meta_settle(t->map.meta, true);
    if (rc == 0 && dev->writable && !(dev->open_flags & BLK_OPEN_CHECK)) {
        uint8_t refs[UNITS];
        ck_assert_int_eq(co_toy_count(t, refs), 0);
        uint64_t i = 1;
        while (i < UNITS && refs[i] == t->refs[i])
            i++;
        ck_assert_msg(i == UNITS, "unit %" PRIu64 ": owners and counts differ", i);
    }
    co_map_detach(&t->map);
    mem_free(t);
    return rc;
}

static const struct opt_desc no_options[] = {{0}};

static const struct blk_driver toy_driver = {
    .name = "toy",
    .handles_fua = true,
    .open_options = no_options,
    .co_open = co_toy_open,
    .co_close = co_toy_close,
    .co_read = co_map_read,
    .co_write = co_map_write,
    .co_write_zeroes = co_map_write_zeroes,
    .co_discard = co_map_discard,
    .co_flush = co_map_flush,
    .resolve = map_resolve,
    .co_map = co_map_map,
    .co_copy = co_map_copy,
};

struct blk_device *open_toy(struct blk_device *file, struct blk_device *backing, unsigned flags)
{
    struct blk_child children[] = {{"file", blk_ref(file)}, {"backing", backing}};
    struct blk_device *dev;
    struct blk_error e = {0};
    if (backing)
        blk_ref(backing);
    int rc =
        co_blk_open(&toy_driver, "toy", NULL, flags, NULL, children, backing ? 2 : 1, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    return dev;
}

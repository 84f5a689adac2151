/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap_bits.c - the bits of one persistent bitmap: set and looked at in memory, read from
 * the file, written to the file.
 *
 * In memory a bit per granule in 64-bit words. They are set at home only, by atomic stores, and
 * looked at by any worker. In the file bit n is bit n % 8 of byte n / 8; a table says for each
 * cluster of them: all clean, all dirty, or where they lie. What is written goes to new space,
 * table and clusters together, so what was there before stays until the directory names the new
 * table. */
#include "imgfmt/qcow2_bitmap.h"

int qcow2_granules_make(struct qcow2_granules *b, uint64_t size, unsigned granularity_bits,
                        unsigned cluster_bits)
{
    uint64_t needs = qcow2_bitmap_needs(size, granularity_bits, cluster_bits);

    if (needs > QCOW2_MAX_BITMAP_BYTES >> cluster_bits)
        return -EFBIG;
    *b = (struct qcow2_granules){.count = div_up(size, 1ULL << granularity_bits)};
    b->words = mem_array(div_up(b->count, 64), sizeof(*b->words));
    return b->words ? 0 : -ENOMEM;
}

/* Those of [first, last] that lie in word @w. */
static uint64_t mask_of(uint64_t w, uint64_t first, uint64_t last)
{
    uint64_t from = w == first / 64 ? first % 64 : 0, to = w == last / 64 ? last % 64 : 63;

    return UINT64_MAX << from & UINT64_MAX >> (63 - to);
}

bool qcow2_granules_set(struct qcow2_granules *b, uint64_t first, uint64_t last)
{
    bool changed = false;

    assert(first <= last && last < b->count);
    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask = mask_of(w, first, last);
        uint64_t old = __atomic_load_n(&b->words[w], __ATOMIC_RELAXED);
        if ((old & mask) == mask)
            continue;
        __atomic_store_n(&b->words[w], old | mask, __ATOMIC_RELAXED);
        changed = true;
    }
    return changed;
}

bool qcow2_granules_all(const struct qcow2_granules *b, uint64_t first, uint64_t last)
{
    if (last >= b->count)
        return false;
    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask = mask_of(w, first, last);
        if ((__atomic_load_n(&b->words[w], __ATOMIC_RELAXED) & mask) != mask)
            return false;
    }
    return true;
}

uint64_t qcow2_granules_run(const struct qcow2_granules *b, uint64_t from, bool *set)
{
    uint64_t flip, w = from / 64;

    assert(from < b->count);
    *set = b->words[w] >> from % 64 & 1;
    flip = *set ? UINT64_MAX : 0; /* looks for a one after this */
    uint64_t word = (b->words[w] ^ flip) & UINT64_MAX << from % 64;
    while (!word && ++w * 64 < b->count)
        word = b->words[w] ^ flip;
    return word ? MIN(w * 64 + (unsigned)__builtin_ctzll(word), b->count) : b->count;
}

/* --- from the file -------------------------------------------------------- */

static int damaged(const struct qcow2_dirty *d, struct blk_error *e)
{
    return err_bad(e, -EINVAL, "the table of bitmap '%s' is damaged", d->name);
}

/* A reader of one bitmap. */
struct load {
    struct qcow2 *q;
    struct qcow2_dirty *d;
    struct qcow2_granules *bits;
    le64 *cluster;
};

static int co_take_cell(struct load *l, uint64_t index, uint64_t cell, struct blk_error *e)
{
    uint64_t cluster = l->q->map.cluster_bytes, offset = cell & QCOW2_OFFSET_MASK;
    uint64_t first = index * cluster * 8, last = MIN(first + cluster * 8, l->bits->count) - 1;

    if (cell == 0)
        return 0;
    if (cell & QCOW2_BITMAP_CELL_INVALID || offset & (cluster - 1) ||
        (offset && cell & QCOW2_BITMAP_ALL_DIRTY))
        return damaged(l->d, e);
    if (offset == 0) {
        qcow2_granules_set(l->bits, first, last);
        return 0;
    }
    int rc = co_blk_read_buf(l->q->map.file, offset, l->cluster, cluster);
    if (rc < 0)
        return err_errno(e, rc, "cannot read bitmap '%s'", l->d->name);
    for (uint64_t i = 0; i < cluster / 8; i++) { /* behind the last bit: whatever lies there */
        uint64_t word = le64_get(l->cluster[i]), at = first / 64 + i;
        if (word && at <= last / 64)
            l->bits->words[at] |= word & mask_of(at, first, last);
    }
    return 0;
}

#define CELLS 512 /* of a table read at once */

static int co_load(struct load *l, struct blk_error *e)
{
    const struct qcow2_bitmap *b = &l->d->disk;
    be64 cells[CELLS];

    for (uint64_t i = 0; i < b->table_entries;) {
        uint64_t n = MIN(CELLS, b->table_entries - i);
        int rc = co_blk_read_buf(l->q->map.file, b->table_offset + i * 8, cells, n * 8);
        if (rc < 0)
            return err_errno(e, rc, "cannot read bitmap '%s'", l->d->name);
        for (uint64_t c = 0; c < n; c++, i++)
            TRY(co_take_cell(l, i, be64_get(cells[c]), e));
    }
    return 0;
}

int co_qcow2_granules_load(struct qcow2 *q, struct qcow2_dirty *d, struct blk_error *e)
{
    struct qcow2_granules fresh = {0}, *bits = d->bits.words ? &d->bits : &fresh;
    unsigned granularity_bits = d->disk.granularity_bits, cluster_bits = q->header.cluster_bits;

    assert(d->kind == QCOW2_USABLE);
    if (d->whole)
        return 0;
    auto_free le64 *cluster = mem_alloc(q->map.cluster_bytes);
    int rc = cluster ? 0 : -ENOMEM;
    if (rc == 0 && !d->bits.words)
        rc = qcow2_granules_make(&fresh, q->header.size, granularity_bits, cluster_bits);
    if (rc < 0)
        return err_errno(e, rc, "cannot read bitmap '%s'", d->name);
    struct load l = {.q = q, .d = d, .bits = bits, .cluster = cluster};
    rc = co_load(&l, e);
    if (rc < 0) { /* what came into bits that record is dirty for no reason: no harm */
        mem_free(fresh.words);
        return rc;
    }
    d->bits = *bits;
    d->whole = true;
    return 0;
}

/* --- to the file ---------------------------------------------------------- */

/* What cell @index says; *data: it needs a cluster. */
static uint64_t cell_of(const struct qcow2 *q, const struct qcow2_granules *bits, uint64_t index,
                        bool *data)
{
    uint64_t per_cluster = q->map.cluster_bytes * 8, first = index * per_cluster;
    uint64_t behind = MIN(first + per_cluster, bits->count);
    bool set, one_run = qcow2_granules_run(bits, first, &set) >= behind;

    *data = !one_run || (set && behind < first + per_cluster); /* no bits behind the last */
    return one_run && set && !*data ? QCOW2_BITMAP_ALL_DIRTY : 0;
}

static int co_write_cluster(struct qcow2 *q, const struct qcow2_granules *bits, uint64_t index,
                            uint64_t at, le64 *buf)
{
    uint64_t words = q->map.cluster_bytes / 8, first = index * words;
    uint64_t there = MIN(words, div_up(bits->count, 64) - first);

    for (uint64_t i = 0; i < words; i++)
        buf[i] = le64_of(i < there ? bits->words[first + i] : 0);
    return co_blk_write_buf(q->map.file, at, buf, q->map.cluster_bytes, 0);
}

/* --- space ---------------------------------------------------------------- */

/* Out of memory it is forgotten: a leak. */
static void space_add(struct qcow2_space *s, uint64_t first, uint64_t count)
{
    if (s->count && s->runs[s->count - 1].first + s->runs[s->count - 1].count == first) {
        s->runs[s->count - 1].count += count;
        return;
    }
    if (s->count == s->room) {
        size_t room = s->room ? s->room * 2 : 16;
        struct qcow2_run *more = mem_resize(s->runs, room * sizeof(*more));
        if (!more)
            return;
        s->runs = more;
        s->room = room;
    }
    s->runs[s->count++] = (struct qcow2_run){first, count};
}

void co_qcow2_space_of(struct qcow2 *q, const struct qcow2_bitmap *b, struct qcow2_space *s)
{
    uint32_t bits = q->header.cluster_bits;
    uint64_t cluster = q->map.cluster_bytes, table_bytes = b->table_entries * 8ULL;
    be64 cells[CELLS];

    if (!b->table_offset || b->table_offset & (cluster - 1) || !table_bytes ||
        (uint64_t)b->table_entries << bits > QCOW2_MAX_BITMAP_BYTES ||
        !range_fits(b->table_offset, table_bytes, q->map.file->size))
        return;
    space_add(s, b->table_offset >> bits, align_up(table_bytes, cluster) >> bits);
    for (uint64_t i = 0; i < b->table_entries;) {
        uint64_t n = MIN(CELLS, b->table_entries - i);
        if (co_blk_read_buf(q->map.file, b->table_offset + i * 8, cells, n * 8) < 0)
            return;
        for (uint64_t c = 0; c < n; c++, i++) {
            uint64_t at = be64_get(cells[c]) & QCOW2_OFFSET_MASK;
            if (at && !(at & (cluster - 1)) && range_fits(at, cluster, q->map.file->size))
                space_add(s, at >> bits, 1);
        }
    }
}

void co_qcow2_space_drop(struct qcow2 *q, struct qcow2_space *s, bool release)
{
    uint32_t bits = q->header.cluster_bits;

    for (size_t i = 0; release && i < s->count; i++)
        if (!qcow2_guard_is_table(q, s->runs[i].first, s->runs[i].count))
            qcow2_release(q, s->runs[i].first << bits, s->runs[i].count << bits, QCOW2_TABLE);
    mem_free(s->runs);
    *s = (struct qcow2_space){0};
}

/* --- all of it to the file ------------------------------------------------ */

/* A bitmap on its way to the file. */
struct storing {
    struct qcow2 *q;
    const struct qcow2_granules *bits;
    struct qcow2_stored *out;
    uint64_t wanted;      /* clusters that are still to be placed */
    struct qcow2_run run; /* of those that are placed, what is left */
};

static void note_space(struct storing *s, uint64_t first, uint64_t count)
{
    uint32_t bits = s->q->header.cluster_bits;

    space_add(&s->out->space, first, count);
    /* Pages of what lay there before may be in the cache. */
    co_meta_forget(s->q->map.meta, first << bits, count << bits);
}

/* The place of the next cluster: wherever there is room, holes first. */
static int co_next_place(struct storing *s, uint64_t *at)
{
    if (s->run.count == 0) {
        uint64_t count = s->wanted;
        bool reused;
        co_mutex_lock(&s->q->alloc);
        int rc = co_qcow2_place_run(s->q, &s->run.first, &count, &reused);
        co_mutex_unlock(&s->q->alloc);
        TRY(rc);
        s->run.count = count;
        note_space(s, s->run.first, count);
    }
    *at = s->run.first++ << s->q->header.cluster_bits;
    s->run.count--;
    s->wanted--;
    return 0;
}

static int co_write_all(struct storing *s, uint64_t table_bytes)
{
    struct qcow2 *q = s->q;
    auto_free be64 *table = mem_zalloc(table_bytes);
    auto_free le64 *buf = mem_alloc(q->map.cluster_bytes);

    if (!table || !buf)
        return -ENOMEM;
    for (uint64_t i = 0; i < s->out->table_entries; i++) {
        bool data;
        uint64_t cell = cell_of(q, s->bits, i, &data);
        if (data) {
            TRY(co_next_place(s, &cell));
            TRY(co_write_cluster(q, s->bits, i, cell, buf));
        }
        table[i] = be64_of(cell);
    }
    return co_blk_write_buf(q->map.file, s->out->table_offset, table, table_bytes, 0);
}

static int co_place_table(struct storing *s, uint64_t clusters)
{
    co_mutex_lock(&s->q->alloc);
    int rc = co_qcow2_place_together(s->q, clusters, &s->out->table_offset);
    co_mutex_unlock(&s->q->alloc);
    if (rc == 0)
        note_space(s, s->out->table_offset >> s->q->header.cluster_bits, clusters);
    return rc;
}

int co_qcow2_granules_store(struct qcow2 *q, const struct qcow2_granules *bits,
                            struct qcow2_stored *out)
{
    struct storing s = {.q = q, .bits = bits, .out = out};
    uint64_t cluster = q->map.cluster_bytes, entries = div_up(bits->count, cluster * 8);
    uint64_t table_bytes = align_up(entries * 8, cluster);

    *out = (struct qcow2_stored){.table_entries = (uint32_t)entries};
    for (uint64_t i = 0; i < entries; i++) {
        bool data;
        cell_of(q, bits, i, &data);
        s.wanted += data;
    }
    int rc = co_place_table(&s, table_bytes >> q->header.cluster_bits);
    if (rc == 0)
        rc = co_write_all(&s, table_bytes);
    if (rc < 0)
        co_qcow2_space_drop(q, &out->space, true);
    return rc;
}

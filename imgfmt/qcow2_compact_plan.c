/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_compact_plan.c - which clusters of a qcow2 file move down, and where to.
 *
 * The survey reads all tables once: what is counted, what refers to it, and which clusters have to
 * stay side by side (a table of many clusters, compressed bytes across a boundary). What is counted
 * but not referred to by anything known here stays where it is.
 *
 * The plan: clusters that hang together and reach past where a file without gaps would end go to
 * the first free run that is long enough; then, as long as there is a free cluster below the
 * highest one, that one moves; the clusters which that takes keep their order. */
#include <stdlib.h>

#include "imgfmt/qcow2_compact.h"

static void set_bit(uint64_t *bits, uint64_t i)
{
    bits[i / 64] |= 1ULL << i % 64;
}

static void clear_bit(uint64_t *bits, uint64_t i)
{
    bits[i / 64] &= ~(1ULL << i % 64);
}

int co_qcow2_compact_read(struct blk_device *file, uint64_t offset, void *to, uint64_t bytes)
{
    uint64_t there = offset < file->size ? MIN(bytes, file->size - offset) : 0;

    memset((uint8_t *)to + there, 0, bytes - there);
    return there ? co_blk_read_buf(file, offset, to, there) : 0;
}

/* --- the survey ----------------------------------------------------------- */

/* @bytes that lie together at @offset, whose place can be changed. */
static void note(struct qcow2_compaction *c, uint64_t offset, uint64_t bytes)
{
    uint32_t bits = c->q->header.cluster_bits;

    if (!offset || !bytes)
        return;
    uint64_t first = offset >> bits, last = (offset + bytes - 1) >> bits;
    for (uint64_t i = first; i <= last && i < c->clusters; i++) {
        set_bit(c->known, i);
        if (i < last)
            set_bit(c->joined, i);
    }
}

static int note_l2(void *arg, struct qcow2_l2_seen *t)
{
    struct qcow2_compaction *c = arg;
    const struct qcow2_header *h = &c->q->header;
    uint64_t cluster = c->q->map.cluster_bytes;

    note(c, t->offset, cluster);
    if (qcow2_has_data_file(h)) /* nothing of it lies here */
        return 0;
    for (uint64_t i = 0; i < cluster; i += qcow2_entry_bytes(h)) {
        uint64_t bits = qcow2_entry_word(t->data + i);
        struct qcow2_entry e;
        if (bits == 0 || qcow2_entry_decode(h, (struct qcow2_bits){bits, 0}, &e) < 0)
            continue;
        note(c, e.offset, e.state == MAP_PACKED ? e.packed_bytes : cluster);
    }
    return 0;
}

struct l1_places {
    struct qcow2_compaction *c;
    int (*co_fn)(struct qcow2_compaction *c, uint64_t offset, uint32_t entries);
};

static int co_snapshot_l1(void *arg, const struct qcow2_snapshot *s)
{
    struct l1_places *p = arg;

    return s->l1_entries ? p->co_fn(p->c, s->l1_offset, s->l1_entries) : 0;
}

int co_qcow2_compact_each_l1(struct qcow2_compaction *c,
                             int (*co_fn)(struct qcow2_compaction *c, uint64_t offset,
                                          uint32_t entries))
{
    const struct qcow2_header *h = &c->q->header;
    struct l1_places p = {c, co_fn};

    if (h->l1_entries)
        TRY(co_fn(c, h->l1_offset, h->l1_entries));
    return h->snapshot_count ? co_qcow2_snapshots(c->q, co_snapshot_l1, &p, c->e) : 0;
}

static int co_survey_l1(struct qcow2_compaction *c, uint64_t offset, uint32_t entries)
{
    struct qcow2_l1 l;

    note(c, offset, entries * 8ULL);
    TRY(co_qcow2_l1_read(c->q, offset, entries, &l, c->e));
    int rc = co_qcow2_each_l2(c->q, &l, note_l2, c);
    qcow2_l1_drop(&l);
    return rc;
}

static int co_survey_bitmap(struct qcow2_compaction *c, const struct qcow2_bitmap *b)
{
    auto_free uint8_t *table = mem_alloc(64 * KiB);

    if (!table)
        return -ENOMEM;
    note(c, b->table_offset, b->table_entries * 8ULL);
    for (uint64_t at = 0; at < b->table_entries * 8ULL; at += 64 * KiB) {
        uint64_t n = MIN(64 * KiB, b->table_entries * 8ULL - at);
        TRY(co_qcow2_compact_read(c->q->map.file, b->table_offset + at, table, n));
        for (uint64_t i = 0; i < n; i += 8)
            note(c, qcow2_entry_word(table + i) & QCOW2_OFFSET_MASK, c->q->map.cluster_bytes);
    }
    return 0;
}

/* The counts of the page that begins with cluster @first. */
static int co_survey_page(struct qcow2_compaction *c, uint64_t first)
{
    struct qcow2 *q = c->q;
    uint32_t order = q->header.refcount_order;
    uint64_t n = MIN(qcow2_page_run(q, first), c->clusters - first), index;
    struct meta_page *page;
    int rc = co_qcow2_count_page(q, first, &page, &index);

    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    for (uint64_t i = 0; i < n; i++)
        set_bit(qcow2_count_get(page->data, order, index + i) ? c->used : c->open, first + i);
    meta_put(q->map.meta, page);
    return 0;
}

/* Where the refcount blocks lie, and how many clusters there are: the last one of the file need not
 * be whole, and compressed bytes may reach into one more; but what no block counts is not used. */
static int co_survey_blocks(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint64_t counted = 0;

    c->entries = qcow2_table_entries(q);
    c->blocks = mem_array(c->entries, sizeof(*c->blocks));
    if (!c->blocks)
        return -ENOMEM;
    with_lock(&q->alloc);
    for (uint64_t i = 0; i < c->entries; i++) {
        TRY(co_qcow2_block_of(q, i << q->block_order, &c->blocks[i]));
        if (c->blocks[i])
            counted = (i + 1) << q->block_order;
    }
    c->clusters = MIN(div_up(q->map.file->size, q->map.cluster_bytes) + 1, counted);
    return c->clusters ? 0 : -EIO;
}

static int co_survey_counts(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;

    with_lock(&q->alloc);
    note(c, q->header.refcount_table_offset, c->entries * 8);
    for (uint64_t i = 0; i < c->entries; i++)
        note(c, c->blocks[i], q->map.cluster_bytes);
    for (uint64_t at = 0; at < c->clusters; at += qcow2_page_run(q, at))
        TRY(co_survey_page(c, at));
    return 0;
}

static int co_survey(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint64_t words, snapshots = 0;

    TRY(co_survey_blocks(c));
    words = c->clusters / 64 + 1;
    c->used = mem_array(words, 8);
    c->open = mem_array(words, 8);
    c->known = mem_array(words, 8);
    c->joined = mem_array(words, 8);
    if (!c->used || !c->open || !c->known || !c->joined)
        return -ENOMEM;
    TRY(co_qcow2_compact_each_l1(c, co_survey_l1));
    if (q->header.snapshot_count)
        TRY(co_qcow2_snapshot_bytes(q, &snapshots, c->e));
    note(c, q->header.snapshots_offset, snapshots);
    note(c, q->bitmaps.at, q->bitmaps.bytes);
    for (uint32_t i = 0; i < q->bitmaps.count; i++)
        if (q->bitmaps.list[i]->kind != QCOW2_FOREIGN)
            TRY(co_survey_bitmap(c, &q->bitmaps.list[i]->disk));
    TRY(co_survey_counts(c));
    clear_bit(c->known, 0); /* the header */
    return 0;
}

/* --- the plan ------------------------------------------------------------- */

static int add_move(struct qcow2_compaction *c, uint64_t from, uint64_t to, uint64_t count)
{
    struct qcow2_move *last = c->count ? &c->moves[c->count - 1] : NULL;

    for (uint64_t i = 0; i < count; i++) {
        clear_bit(c->used, from + i);
        clear_bit(c->open, to + i);
        set_bit(c->used, to + i);
        clear_bit(c->known, to + i); /* it stays there */
    }
    if (last && last->from + last->count == from && last->to + last->count == to) {
        last->count += count;
        return 0;
    }
    if (c->count == c->room) {
        size_t room = MAX(2 * c->room, 64);
        struct qcow2_move *more = mem_resize(c->moves, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        c->moves = more;
        c->room = room;
    }
    c->moves[c->count++] = (struct qcow2_move){from, to, count};
    return 0;
}

/* A free run of @want clusters below @from; 0: none. Every look costs one of the *budget. */
static uint64_t find_run(const struct qcow2_compaction *c, uint64_t want, uint64_t from,
                         uint64_t *budget)
{
    for (uint64_t at = 1, n = 0; at < from && *budget; at++) {
        if (at % 64 == 0 && n == 0 && c->open[at / 64] == 0) {
            at += 63;
            --*budget;
            continue;
        }
        --*budget;
        n = qcow2_bit(c->open, at) ? n + 1 : 0;
        if (n == want)
            return at + 1 - want;
    }
    return 0;
}

static int longest_first(const void *a, const void *b)
{
    const struct qcow2_run *p = a, *q = b;

    return p->count != q->count ? (p->count < q->count ? 1 : -1) : p->first < q->first ? -1 : 1;
}

/* Those of many clusters that reach behind @end, the longest first. */
static int find_chains(struct qcow2_compaction *c, uint64_t end, struct qcow2_run **out,
                       size_t *count)
{
    size_t room = 0;

    for (uint64_t at = 1, n; at < c->clusters; at += n) {
        bool movable = qcow2_bit(c->known, at) && qcow2_bit(c->used, at);
        for (n = 1; at + n < c->clusters && qcow2_bit(c->joined, at + n - 1); n++)
            movable &= qcow2_bit(c->known, at + n) && qcow2_bit(c->used, at + n);
        if (n == 1 || at + n <= end || !movable)
            continue;
        if (*count == room) {
            room = MAX(2 * room, 64);
            struct qcow2_run *more = mem_resize(*out, room * sizeof(*more));
            if (!more)
                return -ENOMEM;
            *out = more;
        }
        (*out)[(*count)++] = (struct qcow2_run){at, n};
    }
    return 0;
}

static int move_chains(struct qcow2_compaction *c, uint64_t end)
{
    struct qcow2_run *chains = NULL;
    size_t count = 0;
    uint64_t budget = 200 * MiB; /* a second or so: what is not found until then stays */
    int rc = find_chains(c, end, &chains, &count);

    if (count)
        qsort(chains, count, sizeof(*chains), longest_first);
    for (size_t i = 0; i < count && rc == 0; i++) {
        uint64_t to = find_run(c, chains[i].count, chains[i].first, &budget);
        rc = to ? add_move(c, chains[i].first, to, chains[i].count) : 0;
    }
    mem_free(chains);
    return rc;
}

/* One cluster by itself. */
static bool is_single(const struct qcow2_compaction *c, uint64_t at)
{
    return qcow2_bit(c->used, at) && qcow2_bit(c->known, at) && !qcow2_bit(c->joined, at) &&
           !qcow2_bit(c->joined, at - 1);
}

static uint64_t next_open(const struct qcow2_compaction *c, uint64_t at)
{
    while (at < c->clusters && !qcow2_bit(c->open, at))
        at = c->open[at / 64] >> at % 64 ? at + 1 : (at / 64 + 1) * 64;
    return at;
}

static int move_singles(struct qcow2_compaction *c)
{
    uint64_t slot = next_open(c, 1), from = c->clusters, single = c->clusters;

    /* From which one on: so many have a free cluster below. */
    for (uint64_t at = c->clusters - 1; at > slot; at--) {
        if (!is_single(c, at))
            continue;
        from = at;
        slot = next_open(c, slot + 1);
    }
    slot = next_open(c, 1);
    for (single = from; single < c->clusters; single++) {
        if (!is_single(c, single))
            continue;
        TRY(add_move(c, single, slot, 1));
        slot = next_open(c, slot + 1);
    }
    return 0;
}

/* Refcount blocks that count nothing below cluster @end do not move: they are not needed then. */
static void leave_blocks(struct qcow2_compaction *c, uint64_t end)
{
    for (uint64_t i = div_up(end, 1ULL << c->q->block_order); i < c->entries; i++)
        if (c->blocks[i])
            clear_bit(c->used, c->blocks[i] >> c->q->header.cluster_bits);
}

/* The end of what will be used, and of blocks left by leave_blocks(@ideal) that count something
 * below it. */
static uint64_t find_end(const struct qcow2_compaction *c, uint64_t ideal)
{
    uint64_t end = c->clusters, last = 0;

    while (end > 1 && !qcow2_bit(c->used, end - 1))
        end--;
    while (end != last) {
        last = end;
        for (uint64_t i = div_up(ideal, 1ULL << c->q->block_order); i < c->entries; i++)
            if (c->blocks[i] && i << c->q->block_order < end)
                end = MAX(end, (c->blocks[i] >> c->q->header.cluster_bits) + 1);
    }
    return end;
}

static int by_from(const void *a, const void *b)
{
    const struct qcow2_move *p = a, *q = b;

    return p->from < q->from ? -1 : p->from > q->from;
}

static uint64_t count_used(const struct qcow2_compaction *c)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < c->clusters / 64 + 1; i++)
        n += (uint64_t)__builtin_popcountll(c->used[i]);
    return n;
}

int co_qcow2_compact_plan(struct qcow2_compaction *c)
{
    TRY(co_survey(c));
    uint64_t ideal = count_used(c);
    leave_blocks(c, ideal);
    uint64_t before = find_end(c, ideal);
    TRY(move_chains(c, ideal));
    TRY(move_singles(c));
    c->end = find_end(c, ideal);
    if (c->end >= before) { /* nothing would be won */
        c->end = before;
        c->count = 0;
    }
    if (c->count)
        qsort(c->moves, c->count, sizeof(*c->moves), by_from);
    return 0;
}

uint64_t qcow2_moved(const struct qcow2_compaction *c, uint64_t offset)
{
    uint32_t bits = c->q->header.cluster_bits;
    uint64_t cluster = offset >> bits;
    size_t low = 0, high = c->count;

    while (low < high) { /* the first that begins behind it */
        size_t middle = low + (high - low) / 2;
        if (c->moves[middle].from <= cluster)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return offset;
    const struct qcow2_move *m = &c->moves[low - 1];
    return cluster - m->from < m->count ? offset - (m->from << bits) + (m->to << bits) : offset;
}

void qcow2_compaction_drop(struct qcow2_compaction *c)
{
    mem_free(c->used);
    mem_free(c->open);
    mem_free(c->known);
    mem_free(c->joined);
    mem_free(c->blocks);
    mem_free(c->moves);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_compact.c - what lies at the end of a qcow2 file moves into free clusters before it, and
 * the file is truncated: data, compressed or not, L1 and L2 tables, refcount blocks and table, the
 * snapshots' and the bitmaps' tables. A cluster that several refer to moves with all references.
 *
 * The order (F: a flush):
 *   1 leaks are given back; the counts of the new places, as high as those of the old ones  -> F
 *   2 copies of all clusters that move, raw                                                 -> F
 *   3 what all tables and the lists of snapshots and bitmaps lead to, each at its new place or
 *     where it stays                                                                        -> F
 *   4 header: L1 table, refcount table, list of snapshots, in one sector (before it, in the same
 *     or another sector of cluster 0, the list of bitmaps)                                  -> F
 *   5 the counts of the old places := 0                                                     -> F
 *   6 refcount blocks that count nothing any more leave the table                           -> F
 *   7 the file is truncated
 *
 * From 2 to 4 both places hold the same, but that some words in them lead to the old places and
 * some to the new, and both have the same count. So each word by itself may be old or new, in any
 * mix: a crash leaves the same contents, the COPIED flags are right, and one of two places is a
 * leak. All is done again as long as the file gets shorter: what moved made room for what hangs
 * together. */
#include "imgfmt/qcow2_compact.h"

#define COPY_BYTES  (1 * MiB)
#define COPIES      4u /* in flight */
#define MOST_ROUNDS 16u

/* --- 1: counts ------------------------------------------------------------ */

static int co_set_count(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    struct meta_page *page;
    uint64_t index;

    TRY(co_qcow2_count_page(q, cluster, &page, &index));
    int rc = meta_touch(q->map.meta, page);
    if (rc == 0)
        qcow2_count_set(page->data, q->header.refcount_order, index, count);
    meta_put(q->map.meta, page);
    return rc;
}

static int co_count_places(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;

    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_sure_header(q);
    for (size_t i = 0; i < c->count && rc == 0; i++)
        for (uint64_t k = 0; k < c->moves[i].count && rc == 0; k++) {
            uint64_t count;
            rc = co_qcow2_count(q, c->moves[i].from + k, &count);
            if (rc == 0)
                rc = co_set_count(q, c->moves[i].to + k, count);
        }
    co_mutex_unlock(&q->alloc);
    return rc < 0 ? rc : co_meta_write_back(q->map.meta, true);
}

/* --- 2: copies ------------------------------------------------------------ */

struct copy {
    struct blk_device *file;
    uint64_t from, to, bytes;
    uint8_t *buf; /* COPY_BYTES or a cluster */
};

static int co_copy(void *arg)
{
    struct copy *k = arg;

    TRY(co_qcow2_compact_read(k->file, k->from, k->buf, k->bytes));
    if (mem_is_zero(k->buf, k->bytes))
        return co_blk_write_zeroes(k->file, k->to, k->bytes, BLK_MAY_UNMAP);
    return co_blk_write_buf(k->file, k->to, k->buf, k->bytes, 0);
}

static int co_copy_round(struct copy *copies, unsigned count)
{
    struct co_group g;

    co_group_init(&g, COPIES);
    for (unsigned i = 0; i < count && !co_group_failed(&g); i++)
        co_group_start(&g, co_copy, &copies[i]);
    return co_group_wait(&g);
}

static int co_copy_all(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint32_t bits = q->header.cluster_bits;
    uint64_t step = MAX(COPY_BYTES, q->map.cluster_bytes);
    auto_free uint8_t *memory = mem_aligned(COPIES * step);
    struct copy copies[COPIES];
    unsigned used = 0;

    if (!memory)
        return -ENOMEM;
    for (size_t i = 0; i < c->count; i++) {
        const struct qcow2_move *m = &c->moves[i];
        co_meta_forget(q->map.meta, m->to << bits, m->count << bits);
        for (uint64_t at = 0; at < m->count << bits; at += step) {
            copies[used] = (struct copy){.file = q->map.file,
                                         .from = (m->from << bits) + at,
                                         .to = (m->to << bits) + at,
                                         .bytes = MIN(step, (m->count << bits) - at),
                                         .buf = memory + used * step};
            if (++used == COPIES) {
                TRY(co_copy_round(copies, used));
                used = 0;
            }
        }
    }
    TRY(co_copy_round(copies, used));
    return co_blk_flush(q->map.file);
}

/* --- 3: references --------------------------------------------------- */

/* True if the word, which holds an offset under @mask, leads elsewhere now. */
static bool redirect(const struct qcow2_compaction *c, uint8_t *word, uint64_t offset)
{
    uint64_t now = offset ? qcow2_moved(c, offset) : 0;

    if (now == offset)
        return false;
    qcow2_entry_word_put(word, qcow2_entry_word(word) - offset + now);
    return true;
}

static int redirect_l2(void *arg, struct qcow2_l2_seen *t)
{
    struct qcow2_compaction *c = arg;
    const struct qcow2_header *h = &c->q->header;

    t->to = qcow2_moved(c, t->offset);
    if (qcow2_has_data_file(h))
        return 0;
    for (uint64_t i = 0; i < c->q->map.cluster_bytes; i += qcow2_entry_bytes(h)) {
        uint64_t bits = qcow2_entry_word(t->data + i);
        struct qcow2_entry e;
        if (bits && qcow2_entry_decode(h, (struct qcow2_bits){bits, 0}, &e) == 0)
            t->dirty |= redirect(c, t->data + i, e.offset);
    }
    return 0;
}

static int co_redirect_l2s(struct qcow2_compaction *c, uint64_t offset, uint32_t entries)
{
    struct qcow2_l1 l;

    TRY(co_qcow2_l1_read(c->q, offset, entries, &l, c->e));
    int rc = co_qcow2_each_l2(c->q, &l, redirect_l2, c);
    qcow2_l1_drop(&l);
    return rc;
}

/* A table of offsets, of which a copy lies at its new place. */
static int co_redirect_table(struct qcow2_compaction *c, uint64_t offset, uint64_t entries)
{
    struct qcow2 *q = c->q;
    uint64_t bytes = entries * 8, to = qcow2_moved(c, offset);
    auto_free uint8_t *buf = mem_alloc(64 * KiB);

    if (!buf)
        return -ENOMEM;
    for (uint64_t at = 0; at < bytes; at += 64 * KiB) {
        uint64_t n = MIN(64 * KiB, bytes - at);
        bool dirty = false;
        TRY(co_qcow2_compact_read(q->map.file, offset + at, buf, n));
        for (uint64_t i = 0; i < n; i += 8)
            dirty |= redirect(c, buf + i, qcow2_entry_word(buf + i) & QCOW2_OFFSET_MASK);
        if (!dirty)
            continue;
        co_meta_forget(q->map.meta, to + at, n);
        TRY(co_blk_write_buf(q->map.file, to + at, buf, n, 0));
    }
    return 0;
}

static int co_redirect_l1(struct qcow2_compaction *c, uint64_t offset, uint32_t entries)
{
    return co_redirect_table(c, offset, entries);
}

static int co_redirect_bitmaps(struct qcow2_compaction *c)
{
    const struct qcow2_bitmaps *m = &c->q->bitmaps;

    for (uint32_t i = 0; i < m->count; i++)
        if (m->list[i]->kind != QCOW2_FOREIGN)
            TRY(co_redirect_table(c, m->list[i]->disk.table_offset,
                                  m->list[i]->disk.table_entries));
    return 0;
}

/* The entries of both lists begin with a place. */
static int co_redirect_snapshots(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    struct qcow2_snapshot_table t;
    uint64_t at = 0;
    bool dirty = false;

    if (!q->header.snapshot_count)
        return 0;
    TRY(co_qcow2_snapshot_table(q, &t, c->e));
    for (uint32_t i = 0; i < t.count; i++) {
        struct qcow2_snapshot s;
        uint8_t *word = t.raw + at;
        qcow2_snapshot_next(&t, &at, &s);
        dirty |= redirect(c, word, s.l1_offset);
    }
    int rc = dirty ? co_blk_write_buf(q->map.file, qcow2_moved(c, q->header.snapshots_offset),
                                      t.raw, t.bytes, 0)
                   : 0;
    mem_free(t.raw);
    return rc;
}

static int co_redirect_directory(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint64_t bytes = q->bitmaps.bytes, at = 0;

    if (!bytes)
        return 0;
    auto_free uint8_t *raw = mem_alloc(bytes);
    if (!raw)
        return -ENOMEM;
    TRY(co_blk_read_buf(q->map.file, q->bitmaps.at, raw, bytes));
    for (uint32_t i = 0; i < q->bitmaps.count; i++) {
        struct qcow2_bitmap b;
        int64_t used = qcow2_bitmap_parse(raw + at, bytes - at, &b);
        if (used < 0)
            return -EIO;
        redirect(c, raw + at, b.table_offset);
        at += (uint64_t)used;
    }
    return co_blk_write_buf(q->map.file, qcow2_moved(c, q->bitmaps.at), raw, bytes, 0);
}

static int co_redirect_all(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;

    TRY(co_qcow2_compact_each_l1(c, co_redirect_l2s));
    TRY(co_qcow2_compact_each_l1(c, co_redirect_l1));
    TRY(co_redirect_table(c, q->header.refcount_table_offset, c->entries));
    TRY(co_redirect_bitmaps(c));
    TRY(co_redirect_snapshots(c));
    TRY(co_redirect_directory(c));
    return co_blk_flush(q->map.file);
}

/* --- 4: the header -------------------------------------------------------- */

/* The extension's field: eight bytes of one sector. */
static int co_name_directory(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint64_t now = qcow2_moved(c, q->bitmaps.at);
    uint64_t at = q->header.bitmaps.offset + offsetof(struct qcow2_bitmaps_disk, directory_offset);
    be64 raw = be64_of(now);

    if (!q->bitmaps.bytes || now == q->bitmaps.at)
        return 0;
    TRY(co_blk_write_buf(q->map.file, at, &raw, sizeof(raw), BLK_FUA));
    if (at + sizeof(raw) <= QCOW2_SECTOR)
        memcpy(q->sector + at, &raw, sizeof(raw));
    q->bitmaps.at = now;
    return 0;
}

static int co_turn_header(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    struct qcow2_header h = q->header;

    TRY(co_name_directory(c));
    h.l1_offset = qcow2_moved(c, h.l1_offset);
    h.refcount_table_offset = qcow2_moved(c, h.refcount_table_offset);
    h.snapshots_offset = qcow2_moved(c, h.snapshots_offset);
    with_lock(&q->alloc);
    TRY(co_qcow2_put_header(q, &h));
    for (uint32_t i = 0; i < q->bitmaps.count; i++) {
        struct qcow2_bitmap *b = &q->bitmaps.list[i]->disk;
        b->table_offset = qcow2_moved(c, b->table_offset);
    }
    return 0;
}

/* What the cache and the index know of the old places, whether that came to pass or not. */
static void co_forget(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint32_t bits = q->header.cluster_bits;

    for (size_t i = 0; i < c->count; i++) {
        co_meta_forget(q->map.meta, c->moves[i].from << bits, c->moves[i].count << bits);
        co_meta_forget(q->map.meta, c->moves[i].to << bits, c->moves[i].count << bits);
    }
    (void)!qcow2_reshape(q, &q->header);
    qcow2_forget_counts(q);
}

/* --- 5 to 7: the old places ---------------------------------------------- */

/* Counts of old places in blocks that stay. */
static int co_uncount(struct qcow2_compaction *c, uint64_t past)
{
    struct qcow2 *q = c->q;

    with_lock(&q->alloc);
    for (size_t i = 0; i < c->count; i++)
        for (uint64_t k = 0; k < c->moves[i].count && c->moves[i].from + k < past; k++)
            TRY(co_set_count(q, c->moves[i].from + k, 0));
    return 0;
}

/* Blocks from @first on, that count nothing, leave the table, and then nothing counts them. */
static int co_drop_blocks(struct qcow2_compaction *c, uint64_t first)
{
    struct qcow2 *q = c->q;
    uint64_t past = first << q->block_order;
    be64 none = be64_of(0);

    with_lock(&q->alloc);
    for (uint64_t i = first; i < c->entries; i++) {
        struct meta_page *page;
        uint8_t *entry;
        if (!c->blocks[i])
            continue;
        uint64_t cluster = qcow2_moved(c, c->blocks[i]) >> q->header.cluster_bits;
        TRY(co_qcow2_table_page(q, i, &page, &entry));
        int rc = meta_touch(q->map.meta, page);
        if (rc == 0)
            memcpy(entry, &none, sizeof(none));
        meta_put(q->map.meta, page);
        if (rc == 0 && cluster < past) /* else its count went with a block */
            qcow2_release(q, cluster << q->header.cluster_bits, 1, QCOW2_TABLE);
        TRY(rc);
    }
    qcow2_forget_counts(q);
    return 0;
}

static int co_cut(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    struct blk_device *file = q->map.file;
    uint64_t bytes = c->end << q->header.cluster_bits;
    uint64_t counted = c->clusters << q->header.cluster_bits;

    if (file->size <= bytes)
        return 0;
    if (counted > bytes) /* no table lies behind that */
        co_meta_forget(q->map.meta, bytes, counted - bytes);
    if (!file->limits.growable)
        return co_blk_discard(file, bytes, file->size - bytes);
    return co_blk_resize(file, bytes, true, c->e);
}

static int co_let_go(struct qcow2_compaction *c)
{
    struct qcow2 *q = c->q;
    uint64_t kept = div_up(c->end, 1ULL << q->block_order);

    TRY(co_uncount(c, kept << q->block_order));
    TRY(co_meta_write_back(q->map.meta, true));
    TRY(co_drop_blocks(c, kept));
    TRY(co_meta_write_back(q->map.meta, true));
    TRY(co_qcow2_settle(q, true));
    int rc = co_cut(c);
    qcow2_forget_counts(q);
    return rc;
}

/* --- all of it ------------------------------------------------------------ */

static int co_move_all(struct qcow2_compaction *c)
{
    TRY(co_count_places(c));
    TRY(co_copy_all(c));
    TRY(co_redirect_all(c));
    return co_turn_header(c);
}

/* Only what is sound is moved; leaks, of a crash in an earlier attempt too, are free space. */
static int co_look(struct qcow2 *q, struct blk_error *e)
{
    struct blk_check found = {.fix_leaks = true};

    TRY(co_qcow2_check(q->map.dev, &found, e));
    if (found.corruptions || found.check_errors)
        return err_set(e, -EIO,
                       "the image is damaged, or cannot be read whole; check and repair it first");
    return 0;
}

/* *moved: something did. */
static int co_compact_once(struct qcow2 *q, bool *moved, struct blk_error *e)
{
    struct qcow2_compaction c = {.q = q, .e = e};

    TRY(co_look(q, e));
    int rc = co_qcow2_compact_plan(&c);
    if (rc == 0 && c.count) {
        rc = co_move_all(&c);
        co_forget(&c);
    }
    if (rc == 0)
        rc = co_let_go(&c);
    *moved = c.count;
    qcow2_compaction_drop(&c);
    return rc;
}

static int co_compact(struct qcow2 *q, struct blk_error *e)
{
    bool moved = true;

    for (unsigned i = 0; moved && i < MOST_ROUNDS; i++)
        TRY(co_compact_once(q, &moved, e));
    return 0;
}

int co_qcow2_compact(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct blk_error unasked;

    e = e ? e : &unasked;
    *e = (struct blk_error){0};
    if (q->map.fresh)
        return err_set(e, -EBUSY, "the image is not complete yet");
    if (q->views)
        return err_set(e, -EBUSY, "a snapshot of the image is being read");
    int rc = co_map_will_write(&q->map);
    with_lock(&q->snapshots);
    with_lock(&q->bitmaps.lock);
    if (rc == 0)
        rc = co_qcow2_bitmaps_known(q, e);
    if (rc == 0)
        rc = co_look(q, e); /* before anything is written: it is sound */
    if (rc == 0)
        rc = co_qcow2_repack(q, false);
    if (rc == 0)
        rc = co_compact(q, e);
    if (rc == 0)
        rc = co_qcow2_repack(q, true);
    if (rc == 0)
        rc = co_compact(q, e);
    if (rc < 0 && !*e->text)
        return err_errno(e, rc, "the image cannot be compacted");
    return rc;
}

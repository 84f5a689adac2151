/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_repair.c - makes a damaged qcow2 image sound: a new refcount structure, right entries, and
 * then a header that says so.
 *
 * The new structure is computed from what refers to what (the checker's counters), never from the
 * old counts. What is on disk before what:
 *
 *   1  unknown autoclear bits are cleared (the engine's first-write duty)
 *   2  the new blocks and the new table, in clusters that nothing refers to: behind the end of the
 *      file, or in holes of one that cannot grow                              -> flush
 *   3  the header's sector, with the new table's offset and length, in one write -> flush
 *   4  the old table and blocks are nobody's any more: punched
 *   5  entries: the COPIED flags that contradict the counts, and what else has one right form;
 *      each sector by itself may be old or new                                -> flush
 *   6  the header's sector without the dirty and the corrupt bit, if nothing is left to mend
 *
 * A crash before 3 leaves the old structure untouched and some bytes that nobody counts; after 3
 * the new one. Bits that ask for repair stay until 6, so a repair that was cut is begun again.
 * Nothing is rebuilt if something could not be read: what it refers to would look free. */
#include "imgfmt/qcow2_alloc.h"
#include "imgfmt/qcow2_check.h"

#define INDEXES_MAX (QCOW2_MAX_REFTABLE / 8)

struct rebuild {
    struct qcow2_checker *k;
    uint64_t *blocks; /* per entry of the new table: where its block lies; 0: none */
    uint64_t room;    /* of @blocks */
    uint64_t needs;   /* entries that the table needs */
    uint64_t table, table_clusters;
    uint64_t next; /* the first cluster that was not looked at for space */
};

/* --- space ---------------------------------------------------------------- */

/* @n clusters that lie together and that nothing refers to; they count one from now on. */
static int take_space(struct rebuild *r, uint64_t n, uint64_t *first)
{
    const struct qcow2 *q = r->k->q;
    uint64_t end = QCOW2_MAX_OFFSET >> q->header.cluster_bits, from = r->next;

    if (!q->map.file->limits.growable)
        end = MIN(end, q->map.file->size >> q->header.cluster_bits);
    for (uint64_t used; (used = qcow2_refs_next(&r->k->refs, from)) - from < n; from = used + 1)
        if (used >= end)
            return -ENOSPC;
    if (from >= end || n > end - from)
        return -ENOSPC;
    for (uint64_t i = 0; i < n; i++)
        TRY(qcow2_refs_add(&r->k->refs, from + i, 0));
    if (n == 1 || q->map.file->limits.growable)
        r->next = from + n;
    *first = from;
    return 0;
}

static int index_room(struct rebuild *r, uint64_t index)
{
    if (index >= INDEXES_MAX)
        return -EFBIG;
    if (index < r->room)
        return 0;
    uint64_t room = MIN(INDEXES_MAX, MAX(index + 1, r->room * 2));
    uint64_t *more = mem_resize(r->blocks, room * sizeof(*more));
    if (!more)
        return -ENOMEM;
    memset(more + r->room, 0, (room - r->room) * sizeof(*more));
    r->blocks = more;
    r->room = room;
    return 0;
}

/* A block for everything that has references; *added: some were missing. */
static int place_blocks(struct rebuild *r, bool *added)
{
    uint32_t order = r->k->q->block_order;
    uint64_t cluster = 0, at;

    *added = false;
    while ((cluster = qcow2_refs_next(&r->k->refs, cluster)) != UINT64_MAX) {
        uint64_t index = cluster >> order;
        TRY(index_room(r, index));
        r->needs = MAX(r->needs, index + 1);
        if (!r->blocks[index]) {
            TRY(take_space(r, 1, &at));
            r->blocks[index] = at << r->k->q->header.cluster_bits;
            *added = true;
        }
        cluster = (index + 1) << order;
    }
    return 0;
}

static int place_table(struct rebuild *r)
{
    uint32_t bits = r->k->q->header.cluster_bits;
    uint64_t cluster = r->k->q->map.cluster_bytes, first;

    for (uint64_t i = 0; i < r->table_clusters; i++)
        qcow2_refs_sub(&r->k->refs, (r->table >> bits) + i);
    r->table_clusters = div_up((r->needs + 1) * 8, cluster);
    if (r->table_clusters * cluster > QCOW2_MAX_REFTABLE)
        return -EFBIG;
    TRY(take_space(r, r->table_clusters, &first));
    r->table = first << bits;
    return 0;
}

/* Blocks need space, which needs blocks, and so does the table: until all is covered. */
static int plan(struct rebuild *r)
{
    uint64_t cluster = r->k->q->map.cluster_bytes;
    bool added = true;

    if (r->k->q->map.file->limits.growable)
        r->next = div_up(r->k->file_bytes, cluster);
    while (added) {
        TRY(place_blocks(r, &added));
        if (r->needs * 8 > r->table_clusters * cluster) {
            TRY(place_table(r));
            added = true;
        }
    }
    return 0;
}

/* --- the old structure ---------------------------------------------------- */

static int co_unrefer_block(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & ~QCOW2_TABLE_RESERVED, cluster = k->q->map.cluster_bytes;

    (void)at;
    if (offset == 0 || offset & (cluster - 1) || offset >= QCOW2_MAX_OFFSET - cluster ||
        (offset + cluster > k->file_bytes && offset + cluster - k->file_bytes >= cluster))
        return 0; /* was not counted either */
    qcow2_refs_sub(&k->refs, offset >> k->q->header.cluster_bits);
    return 0;
}

/* The references that the old table and its blocks were to the checker. */
static int co_unrefer_old(struct qcow2_checker *k)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t first = h->refcount_table_offset >> h->cluster_bits;
    uint64_t bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    TRY(co_qcow2_check_each(k, h->refcount_table_offset, qcow2_table_entries(k->q),
                            co_unrefer_block));
    if (h->refcount_table_offset + bytes > k->file_bytes &&
        h->refcount_table_offset + bytes - k->file_bytes >= k->q->map.cluster_bytes)
        return 0;
    for (uint64_t i = 0; i < h->refcount_table_clusters; i++)
        qcow2_refs_sub(&k->refs, first + i);
    return 0;
}

/* Pages of the old structure leave the cache; what nothing refers to is given back. */
static void co_leave(struct qcow2_checker *k, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = k->q->map.cluster_bytes;

    for (uint64_t at = offset; at < offset + bytes; at += cluster) {
        co_meta_forget(k->q->map.meta, at, cluster);
        if (qcow2_refs_get(&k->refs, at >> k->q->header.cluster_bits) == 0 &&
            range_fits(at, cluster, k->q->map.file->size))
            (void)!co_blk_discard(k->q->map.file, at, cluster);
    }
}

static int co_leave_block(struct qcow2_checker *k, uint64_t raw, uint64_t at)
{
    uint64_t offset = raw & ~QCOW2_TABLE_RESERVED;

    (void)at;
    if (offset && !(offset & (k->q->map.cluster_bytes - 1)) && offset < QCOW2_MAX_OFFSET)
        co_leave(k, offset, k->q->map.cluster_bytes);
    return 0;
}

/* --- the new one ---------------------------------------------------------- */

static int co_write_block(struct rebuild *r, uint64_t index)
{
    struct qcow2_checker *k = r->k;
    uint32_t order = k->q->header.refcount_order;
    uint64_t n = 1ULL << k->q->block_order, base = index * n, cluster = base;

    memset(k->block, 0, k->q->map.cluster_bytes);
    for (; (cluster = qcow2_refs_next(&k->refs, cluster)) < base + n; cluster++) {
        uint64_t count = qcow2_refs_get(&k->refs, cluster);
        if (count > qcow2_count_max(order) || count == QCOW2_REFS_MAX) {
            qcow2_check_say(k,
                            "ERROR cluster %" PRIu64 " has %" PRIu64
                            " references, more than the image can count",
                            cluster, count);
            return -ERANGE;
        }
        qcow2_count_set(k->block, order, cluster - base, count);
    }
    return co_blk_write_buf(k->q->map.file, r->blocks[index], k->block, k->q->map.cluster_bytes, 0);
}

static int co_write_all(struct rebuild *r)
{
    struct qcow2_checker *k = r->k;
    uint64_t bytes = r->table_clusters * k->q->map.cluster_bytes;
    auto_free uint8_t *table = mem_aligned(bytes);

    if (!table)
        return -ENOMEM;
    memset(table, 0, bytes);
    for (uint64_t i = 0; i < r->needs; i++) {
        be64 raw = be64_of(r->blocks[i]);
        memcpy(table + i * 8, &raw, sizeof(raw));
        if (r->blocks[i])
            TRY(co_write_block(r, i));
    }
    TRY(co_blk_write_buf(k->q->map.file, r->table, table, bytes, 0));
    return co_blk_flush(k->q->map.file);
}

static int co_switch(struct rebuild *r)
{
    struct qcow2_checker *k = r->k;
    struct qcow2 *q = k->q;
    struct qcow2_header old = q->header, h = q->header;

    h.refcount_table_offset = r->table;
    h.refcount_table_clusters = (uint32_t)r->table_clusters;
    {
        with_lock(&q->alloc);
        TRY(co_qcow2_put_header(q, &h));
        qcow2_forget_counts(q);
    }
    TRY(co_qcow2_check_each(k, old.refcount_table_offset,
                            (uint64_t)old.refcount_table_clusters << (old.cluster_bits - 3),
                            co_leave_block));
    co_leave(k, old.refcount_table_offset,
             (uint64_t)old.refcount_table_clusters << old.cluster_bits);
    for (uint64_t i = 0; i < r->needs; i++)
        if (r->blocks[i])
            co_meta_forget(q->map.meta, r->blocks[i], q->map.cluster_bytes);
    co_meta_forget(q->map.meta, r->table, r->table_clusters * q->map.cluster_bytes);
    return 0;
}

int co_qcow2_rebuild(struct qcow2_checker *k)
{
    struct rebuild r = {.k = k};
    struct blk_check *c = k->c;

    int rc = co_map_will_write(&k->q->map);
    if (rc == 0)
        rc = plan(&r);
    if (rc == 0)
        rc = co_unrefer_old(k);
    if (rc == 0)
        rc = co_write_all(&r);
    if (rc == 0)
        rc = co_switch(&r);
    uint64_t end = r.table + r.table_clusters * k->q->map.cluster_bytes;
    mem_free(r.blocks);
    TRY(rc);
    c->corruptions -= k->table_faults;
    c->corruptions_fixed += k->table_faults + k->too_low;
    c->leaks_fixed += k->too_high;
    k->table_faults = k->too_low = k->too_high = 0;
    k->file_bytes = k->q->map.file->size;
    c->image_end = MAX(c->image_end, end);
    return 0;
}

/* --- entries -------------------------------------------------------------- */

struct mender {
    struct qcow2_checker *k;
    uint8_t *l1, *l2;
    uint64_t bytes; /* of @l2 */
};

/* COPIED as the count wants it. What lies nowhere sensible stays as it is. */
static uint64_t right_flag(struct qcow2_checker *k, const char *what, uint64_t raw)
{
    uint64_t offset = raw & QCOW2_OFFSET_MASK;

    if (offset == 0 || offset & (k->q->map.cluster_bytes - 1))
        return raw;
    uint64_t count = qcow2_refs_get(&k->refs, offset >> k->q->header.cluster_bits);
    if ((count == 1) == !!(raw & QCOW2_COPIED))
        return raw;
    qcow2_check_say(k, "%s OFLAG_COPIED %s: entry=0x%016" PRIx64 " refcount=%" PRIu64,
                    k->c->fix_errors ? "Repairing" : "ERROR", what, raw, count);
    k->c->corruptions++;
    return raw ^ QCOW2_COPIED;
}

/* A bitmap of subclusters of which each is in one state: what lies here is believed; without space
 * nothing can lie here, and what was there is lost, as it is for every reader. */
static struct qcow2_bits right_bitmap(struct qcow2_bits b)
{
    uint32_t here = (uint32_t)b.sub, zero = (uint32_t)(b.sub >> 32);

    if (b.entry & QCOW2_OFFSET_MASK)
        zero &= ~here;
    else {
        zero |= here;
        here = 0;
    }
    b.sub = here | (uint64_t)zero << 32;
    return b;
}

/* The one form that @was can have meant, without reserved bits; @was where there is none. */
static struct qcow2_bits right_form(const struct qcow2_checker *k, struct qcow2_bits was)
{
    const struct qcow2_header *h = &k->q->header;
    uint64_t low = k->q->map.cluster_bytes - 1, raw = was.entry;
    struct qcow2_bits now = {raw & ~qcow2_l2_reserved(h), was.sub};
    bool misplaced = raw & QCOW2_OFFSET_MASK & low;
    struct qcow2_entry e;

    if (raw & QCOW2_COMPRESSED)
        now = (struct qcow2_bits){raw & ~QCOW2_COPIED, 0};
    else if (qcow2_extended(h) && misplaced && (uint32_t)was.sub == 0)
        now.entry = 0; /* zeroes, or what is behind; where their space is, nobody knows */
    else if (qcow2_extended(h))
        now = right_bitmap(now);
    else if (h->version >= 3 && raw & QCOW2_ZERO && misplaced)
        now.entry = QCOW2_ZERO;
    return qcow2_entry_decode(h, now, &e) < 0 ? was : now;
}

/* An entry becomes another; *changed says that there is something to write. */
static void note_mended(struct qcow2_checker *k, bool *changed)
{
    /* The checker has counted each entry once, whatever was wrong with it. */
    k->c->corruptions -= k->c->corruptions ? 1 : 0;
    k->c->corruptions_fixed++;
    *changed = true;
}

/* Puts @now where @was stood. */
static void put_entry(struct qcow2_checker *k, uint8_t *entry, uint64_t was, uint64_t now,
                      bool *changed)
{
    be64 raw = be64_of(now);

    if (was == now || !k->c->fix_errors)
        return;
    memcpy(entry, &raw, sizeof(raw));
    note_mended(k, changed);
}

static void put_form(struct qcow2_checker *k, uint8_t *entry, struct qcow2_bits was,
                     struct qcow2_bits now, bool *changed)
{
    if (was.entry == now.entry && was.sub == now.sub)
        return;
    qcow2_bits_put(&k->q->header, now, entry);
    note_mended(k, changed);
}

static int co_put_piece(struct qcow2_checker *k, uint64_t offset, const uint8_t *data,
                        uint64_t bytes)
{
    /* The first-write duties come before everything (1). */
    TRY(co_map_will_write(&k->q->map));
    TRY(co_blk_write_buf(k->q->map.file, offset, data, bytes, 0));
    uint64_t page = k->q->page_bytes, first = align_down(offset, page);
    co_meta_forget(k->q->map.meta, first, align_up(offset + bytes, page) - first);
    return 0;
}

static uint64_t entry_at(const uint8_t *table, uint64_t at)
{
    be64 raw;

    memcpy(&raw, table + at, sizeof(raw));
    return be64_get(raw);
}

static int co_mend_l2(struct qcow2_checker *k, struct mender *m, uint64_t offset)
{
    bool changed = false;

    co_qcow2_check_read(k, offset, m->l2, m->bytes);
    for (uint64_t i = 0; i < m->bytes; i += qcow2_entry_bytes(&k->q->header)) {
        struct qcow2_bits was = qcow2_bits_get(&k->q->header, m->l2 + i), now = was;
        if ((was.entry | was.sub) == 0)
            continue;
        if (k->c->fix_errors)
            put_form(k, m->l2 + i, was, now = right_form(k, was), &changed);
        if (!(now.entry & QCOW2_COMPRESSED) && !qcow2_has_data_file(&k->q->header))
            put_entry(k, m->l2 + i, now.entry, right_flag(k, "data cluster", now.entry), &changed);
    }
    return changed ? co_put_piece(k, offset, m->l2, m->bytes) : 0;
}

/* One sector of the L1 table, and the tables that it names. */
static int co_mend_sector(struct qcow2_checker *k, struct mender *m, uint64_t at, uint64_t bytes)
{
    bool changed = false;

    co_qcow2_check_read(k, at, m->l1, bytes);
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t was = entry_at(m->l1, i), now = was;
        uint64_t offset = was & QCOW2_OFFSET_MASK;
        if (was == 0)
            continue;
        if (k->c->fix_errors)
            put_entry(k, m->l1 + i, was, now = was & ~QCOW2_L1_RESERVED, &changed);
        put_entry(k, m->l1 + i, now, right_flag(k, "L2 cluster", now), &changed);
        if (offset && !(offset & (m->bytes - 1)) && offset < k->file_bytes)
            TRY(co_mend_l2(k, m, offset));
    }
    return changed ? co_put_piece(k, at, m->l1, bytes) : 0;
}

int co_qcow2_check_entries(struct qcow2_checker *k)
{
    const struct qcow2_header *h = &k->q->header;
    struct mender m = {.k = k, .bytes = k->q->map.cluster_bytes};
    uint64_t bytes = h->l1_entries * 8ULL, before = k->c->corruptions_fixed;
    auto_free uint8_t *l1 = m.l1 = mem_alloc(QCOW2_SECTOR);
    auto_free uint8_t *l2 = m.l2 = mem_aligned(m.bytes);

    if (!l1 || !l2)
        return -ENOMEM;
    for (uint64_t at = 0; at < bytes; at += QCOW2_SECTOR)
        TRY(co_mend_sector(k, &m, h->l1_offset + at, MIN(QCOW2_SECTOR, bytes - at)));
    return k->c->corruptions_fixed != before ? co_blk_flush(k->q->map.file) : 0;
}

int co_qcow2_mark_sound(struct qcow2_checker *k)
{
    struct qcow2 *q = k->q;
    struct qcow2_header h = q->header;

    h.incompatible &= ~(uint64_t)(QCOW2_DIRTY | QCOW2_CORRUPT);
    if (k->c->corruptions || k->c->check_errors || h.incompatible == q->header.incompatible)
        return 0;
    TRY(co_map_will_write(&q->map));
    h.autoclear = q->header.autoclear; /* as that left it */
    TRY(co_blk_flush(q->map.file));
    with_lock(&q->alloc);
    return co_qcow2_put_header(q, &h);
}

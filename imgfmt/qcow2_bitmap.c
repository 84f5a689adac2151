/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap.c - the persistent bitmaps of an open image: what is written is recorded in memory,
 * the list is changed as a whole, and stored when the image is closed.
 *
 * What must be on disk before what (each arrow a flush):
 *
 *   B1  in_use set in every enabled bitmap, in place -> the first change of what the guest sees.
 *       So after a crash a bitmap is marked, or it holds all that was written. Marks that are found
 *       when the image is opened are flushed as well: they may be in the page cache only.
 *
 *   B2  every change of the list (one made, removed, cleared, enabled, disabled, merged; stored; of
 *       another size): counts of new space -> new clusters, tables and a new directory beside the
 *       old ones -> header: place of the directory, the autoclear bit, with a resize the disk's
 *       size and L1 table too, in one sector (qcow2_rewrite.c) -> space of the old ones.
 *
 *   B3  in_use is cleared only by B2, when a bitmap is stored: at closing, before the image becomes
 *       read-only, and when it is disabled. Where that fails and the image stays writable, B1 comes
 *       anew, and they record on.
 *
 * So each change happens in one write of the header; a crash around it leaves leaks. Bits are set
 * before the write they stand for, and stay set if it fails. A bitmap with something that is not
 * known here cannot be kept right: if it is enabled, B1 marks it as well.
 *
 * An image with a list that somebody's writes made stale (its autoclear bit is gone) has none; the
 * extension goes with the first write, what it named leaks until check repairs it. */
#include "imgfmt/qcow2_bitmap.h"

/* --- the list ------------------------------------------------------------- */

void qcow2_dirty_drop(struct qcow2_dirty *d)
{
    if (!d)
        return;
    mem_free(d->bits.words);
    mem_free(d->raw);
    mem_free(d->name);
    mem_free(d);
}

void qcow2_bitmaps_drop(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->bitmaps.count; i++)
        qcow2_dirty_drop(q->bitmaps.list[i]);
    mem_free(q->bitmaps.list);
    q->bitmaps = (struct qcow2_bitmaps){0};
}

struct qcow2_dirty *qcow2_dirty_make(const struct qcow2 *q, const struct qcow2_bitmap *b)
{
    struct qcow2_dirty *d = mem_zalloc(sizeof(*d));

    if (!d)
        return NULL;
    d->disk = *b;
    d->raw = mem_alloc(b->extra_bytes + 1);
    d->name = mem_alloc(b->name_bytes + 1);
    if (!d->raw || !d->name) {
        qcow2_dirty_drop(d);
        return NULL;
    }
    if (b->extra_bytes)
        memcpy(d->raw, b->extra, b->extra_bytes);
    memcpy(d->name, b->name, b->name_bytes);
    d->name[b->name_bytes] = 0;
    d->disk.extra = d->raw;
    d->disk.name = d->name;
    d->kind = b->flags & QCOW2_BITMAP_IN_USE                                   ? QCOW2_INCONSISTENT
              : qcow2_bitmap_usable(b, q->header.size, q->header.cluster_bits) ? QCOW2_USABLE
                                                                               : QCOW2_FOREIGN;
    return d;
}

struct learning {
    struct qcow2 *q;
    size_t room;
};

static int learn(void *arg, const struct qcow2_bitmap *b)
{
    struct learning *l = arg;
    struct qcow2_bitmaps *m = &l->q->bitmaps;

    if (m->count == l->room) {
        size_t room = l->room ? l->room * 2 : 8;
        struct qcow2_dirty **more = mem_resize(m->list, room * sizeof(struct qcow2_dirty *));
        if (!more)
            return -ENOMEM;
        m->list = more;
        l->room = room;
    }
    m->list[m->count] = qcow2_dirty_make(l->q, b);
    if (!m->list[m->count])
        return -ENOMEM;
    m->count++;
    return 0;
}

static int co_learn(struct qcow2 *q, struct blk_error *e)
{
    struct learning l = {.q = q};
    struct qcow2_bitmap_list list;
    int rc = co_qcow2_bitmaps(q, &list, learn, &l, e);

    if (rc < 0)
        return rc == -ENOMEM ? err_errno(e, rc, "cannot read the list of bitmaps") : rc;
    if (list.bytes && qcow2_hits_tables(q, list.offset, list.bytes))
        return err_bad(e, -EINVAL, "the list of bitmaps at %" PRIu64 " lies in another table",
                       list.offset);
    q->bitmaps.at = list.offset;
    q->bitmaps.bytes = list.bytes;
    return 0;
}

int co_qcow2_bitmaps_known(struct qcow2 *q, struct blk_error *e)
{
    struct qcow2_bitmaps *m = &q->bitmaps;

    if (m->known)
        return 0;
    int rc = co_learn(q, e);
    if (rc < 0) {
        while (m->count)
            qcow2_dirty_drop(m->list[--m->count]);
        mem_free(take(m->list));
        return rc;
    }
    m->known = true;
    qcow2_bitmaps_watch(q);
    return 0;
}

static bool records(const struct qcow2_dirty *d, uint32_t flags)
{
    return d->kind != QCOW2_INCONSISTENT && flags & QCOW2_BITMAP_AUTO;
}

void qcow2_bitmaps_watch(struct qcow2 *q)
{
    struct qcow2_bitmaps *m = &q->bitmaps;

    m->recording = NULL;
    m->watch = false;
    for (uint32_t i = 0; i < m->count; i++) {
        struct qcow2_dirty *d = m->list[i];
        bool recorder = records(d, d->disk.flags);
        m->watch |= recorder || (d->kind == QCOW2_INCONSISTENT && !m->armed);
        if (recorder && m->armed) {
            d->next = m->recording;
            m->recording = d;
        }
    }
}

/* --- recording ------------------------------------------------------------ */

bool qcow2_recorded_all(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    if (!__atomic_load_n(&q->bitmaps.armed, __ATOMIC_ACQUIRE))
        return false;
    for (const struct qcow2_dirty *d = q->bitmaps.recording; d; d = d->next)
        if (!qcow2_granules_all(&d->bits, offset >> d->disk.granularity_bits,
                                (offset + bytes - 1) >> d->disk.granularity_bits))
            return false;
    return true;
}

/* All entries as @r has them; gives the bytes. */
static uint64_t build_directory(const struct qcow2_bitmap_rows *r, uint8_t *to)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < r->count; i++) {
        struct qcow2_bitmap b = r->rows[i].d->disk;
        b.table_offset = r->rows[i].table_offset;
        b.table_entries = r->rows[i].table_entries;
        b.flags = r->rows[i].flags;
        at += qcow2_bitmap_put(&b, to + at);
    }
    return at;
}

static uint64_t directory_bytes(const struct qcow2_bitmap_rows *r)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < r->count; i++)
        bytes += qcow2_bitmap_entry_bytes(&r->rows[i].d->disk);
    return bytes;
}

/* B1: only flags differ, so a torn write leaves each entry as it was or marked. */
static int co_write_in_place(struct qcow2 *q, const struct qcow2_bitmap_rows *r)
{
    uint32_t bits = q->header.cluster_bits;
    uint64_t first = q->bitmaps.at >> bits;
    uint64_t clusters = div_up(q->bitmaps.bytes, q->map.cluster_bytes);
    auto_free uint8_t *buf = mem_alloc(directory_bytes(r));

    if (!buf)
        return -ENOMEM;
    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_guard(q);
    bool bad = rc == 0 && qcow2_guard_is_table(q, first, clusters);
    co_mutex_unlock(&q->alloc);
    if (bad) {
        map_corrupt(&q->map, "the list of bitmaps lies in another table");
        return -EIO;
    }
    TRY(rc);
    uint64_t bytes = MIN(build_directory(r, buf), q->bitmaps.bytes);
    return co_blk_write_buf(q->map.file, q->bitmaps.at, buf, bytes, q->map.fresh ? 0 : BLK_FUA);
}

static int co_mark(struct qcow2 *q, struct qcow2_bitmap_rows *r)
{
    bool any = false, flush = false;

    for (uint32_t i = 0; i < r->count; i++) {
        struct qcow2_bitmap_row *row = &r->rows[i];
        struct qcow2_dirty *d = row->d;
        flush |= d->kind == QCOW2_INCONSISTENT;
        if (!records(d, row->flags))
            continue;
        any = true;
        row->flags |= QCOW2_BITMAP_IN_USE;
        if (d->kind == QCOW2_USABLE && !d->bits.words)
            TRY(qcow2_granules_make(&d->bits, q->header.size, d->disk.granularity_bits,
                                    q->header.cluster_bits));
    }
    if (any)
        return co_write_in_place(q, r);
    /* Marks that were there: who wrote them may have died before they were durable. */
    return flush && !q->map.fresh ? co_blk_flush(q->map.file) : 0;
}

int co_qcow2_bitmaps_arm(struct qcow2 *q)
{
    struct qcow2_bitmap_rows r;

    with_lock(&q->bitmaps.lock);
    if (q->bitmaps.armed)
        return 0;
    int rc = qcow2_bitmap_rows_begin(q, &r);
    if (rc == 0)
        rc = co_mark(q, &r);
    for (uint32_t i = 0; rc == 0 && i < r.count; i++) {
        struct qcow2_dirty *d = r.rows[i].d;
        d->disk.flags = r.rows[i].flags;
        if (d->kind == QCOW2_FOREIGN && d->disk.flags & QCOW2_BITMAP_IN_USE)
            d->kind = QCOW2_INCONSISTENT;
    }
    co_qcow2_bitmap_rows_drop(q, &r);
    TRY(rc);
    __atomic_store_n(&q->bitmaps.armed, true, __ATOMIC_RELEASE);
    qcow2_bitmaps_watch(q);
    return 0;
}

int co_qcow2_record_all(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    if (unlikely(!q->bitmaps.armed))
        TRY(co_qcow2_bitmaps_arm(q));
    for (struct qcow2_dirty *d = q->bitmaps.recording; d && bytes; d = d->next)
        if (qcow2_granules_set(&d->bits, offset >> d->disk.granularity_bits,
                               (offset + bytes - 1) >> d->disk.granularity_bits))
            d->changed = true;
    return 0;
}

/* --- publishing ----------------------------------------------------------- */

int qcow2_bitmap_rows_begin(struct qcow2 *q, struct qcow2_bitmap_rows *r)
{
    const struct qcow2_bitmaps *m = &q->bitmaps;

    *r = (struct qcow2_bitmap_rows){0};
    r->rows = mem_array(m->count + 1ULL, sizeof(*r->rows));
    r->list = mem_array(m->count + 1ULL, sizeof(struct qcow2_dirty *));
    if (!r->rows || !r->list) {
        co_qcow2_bitmap_rows_drop(q, r);
        return -ENOMEM;
    }
    for (; r->count < m->count; r->count++) {
        struct qcow2_dirty *d = m->list[r->count];
        r->rows[r->count] = (struct qcow2_bitmap_row){.d = d,
                                                      .table_offset = d->disk.table_offset,
                                                      .table_entries = d->disk.table_entries,
                                                      .flags = d->disk.flags};
    }
    return 0;
}

static void give_back(struct qcow2 *q, uint64_t at, uint64_t clusters)
{
    if (clusters)
        qcow2_release(q, at, clusters << q->header.cluster_bits, QCOW2_TABLE);
}

/* Not published: what was written is nobody's, unless the header may name it. */
void co_qcow2_bitmap_rows_drop(struct qcow2 *q, struct qcow2_bitmap_rows *r)
{
    for (uint32_t i = 0; i < r->count; i++)
        co_qcow2_space_drop(q, &r->rows[i].stored.space, !q->header_unsure);
    co_qcow2_space_drop(q, &r->old, false);
    mem_free(r->rows);
    mem_free(r->list);
    *r = (struct qcow2_bitmap_rows){0};
}

int co_qcow2_bitmap_row_store(struct qcow2 *q, struct qcow2_bitmap_rows *r,
                              struct qcow2_bitmap_row *row, const struct qcow2_granules *bits)
{
    assert(row->stored.space.count == 0);
    TRY(co_qcow2_granules_store(q, bits, &row->stored));
    co_qcow2_space_of(q, &row->d->disk, &r->old);
    row->table_offset = row->stored.table_offset;
    row->table_entries = row->stored.table_entries;
    return 0;
}

/* A new directory; clusters 0: there is none to be. */
struct directory {
    uint64_t at, clusters, bytes;
};

static int co_fill_directory(struct qcow2 *q, const struct qcow2_bitmap_rows *r,
                             const struct directory *d)
{
    uint64_t room = d->clusters << q->header.cluster_bits;
    auto_free uint8_t *buf = mem_zalloc(room);

    if (!buf)
        return -ENOMEM;
    build_directory(r, buf);
    co_meta_forget(q->map.meta, d->at, room);
    return co_blk_write_buf(q->map.file, d->at, buf, room, 0);
}

/* B2, up to the header: all that it is to name is durable. */
static int co_make_directory(struct qcow2 *q, const struct qcow2_bitmap_rows *r,
                             struct directory *d)
{
    bool flush = !q->map.fresh;

    *d = (struct directory){.bytes = directory_bytes(r)};
    co_mutex_lock(&q->alloc);
    int rc = co_qcow2_guard(q); /* for what is given back */
    uint64_t clusters = div_up(d->bytes, q->map.cluster_bytes);
    if (rc == 0 && clusters)
        rc = co_qcow2_place_together(q, clusters, &d->at);
    co_mutex_unlock(&q->alloc);
    TRY(rc);
    d->clusters = clusters;
    rc = co_meta_write_back(q->map.meta, flush);
    if (rc == 0 && clusters)
        rc = co_fill_directory(q, r, d);
    return rc == 0 && flush ? co_blk_flush(q->map.file) : rc;
}

static int co_name_directory(struct qcow2 *q, const struct qcow2_bitmap_rows *r,
                             const struct directory *d)
{
    struct qcow2_bitmaps_disk ext = {.count = be32_of(r->count),
                                     .directory_bytes = be64_of(d->bytes),
                                     .directory_offset = be64_of(d->at)};
    struct qcow2_cover cover = {.backing_name = q->backing_name,
                                .backing_format = q->backing_format,
                                .set_bitmaps = true,
                                .bitmaps = r->count ? &ext : NULL};

    with_lock(&q->alloc);
    struct qcow2_header h = q->header; /* tables may have moved meanwhile */
    if (r->resized) {
        h.size = r->resized->size;
        h.l1_offset = r->resized->l1_offset;
        h.l1_entries = r->resized->l1_entries;
    }
    h.autoclear = (h.autoclear & ~(uint64_t)QCOW2_BITMAPS) | (r->count ? QCOW2_BITMAPS : 0);
    cover.header = &h;
    return co_qcow2_rewrite(q, &cover);
}

/* The header names the new list: memory shows it, and what only the old one used is nobody's. */
static void take_over(struct qcow2 *q, struct qcow2_bitmap_rows *r, const struct directory *d)
{
    struct qcow2_bitmaps *m = &q->bitmaps;
    uint64_t old_clusters = div_up(m->bytes, q->map.cluster_bytes);

    if (old_clusters && !qcow2_guard_is_table(q, m->at >> q->header.cluster_bits, old_clusters))
        give_back(q, m->at, old_clusters);
    co_qcow2_space_drop(q, &r->old, true);
    q->guard.built = false; /* learned anew: the directory moved */
    for (uint32_t i = 0; i < r->count; i++) {
        struct qcow2_bitmap_row *row = &r->rows[i];
        row->d->disk.table_offset = row->table_offset;
        row->d->disk.table_entries = row->table_entries;
        row->d->disk.flags = row->flags;
        r->list[i] = row->d;
        co_qcow2_space_drop(q, &row->stored.space, false);
    }
    mem_free(m->list);
    m->list = take(r->list);
    m->count = r->count;
    m->at = d->at;
    m->bytes = d->bytes;
    qcow2_bitmaps_watch(q);
    qcow2_dirty_drop(take(r->removed));
    mem_free(take(r->rows));
}

int co_qcow2_bitmap_publish(struct qcow2 *q, struct qcow2_bitmap_rows *r, struct blk_error *e)
{
    struct directory d = {0};
    int rc = q->hidden ? -EBUSY : co_make_directory(q, r, &d);

    if (rc == 0)
        rc = co_name_directory(q, r, &d);
    if (rc == 0) {
        take_over(q, r, &d);
        return 0;
    }
    if (!q->header_unsure)
        give_back(q, d.at, d.clusters);
    co_qcow2_bitmap_rows_drop(q, r);
    return rc == -ENOSPC ? err_errno(e, rc, "there is no room for the list of bitmaps")
                         : err_errno(e, rc, "cannot write the list of bitmaps");
}

int co_qcow2_bitmaps_forget_stale(struct qcow2 *q)
{
    struct qcow2_cover cover = {
        .backing_name = q->backing_name, .backing_format = q->backing_format, .set_bitmaps = true};

    if (q->header.autoclear & QCOW2_BITMAPS || !q->header.bitmaps.bytes || q->hidden)
        return 0;
    with_lock(&q->alloc);
    struct qcow2_header h = q->header;
    cover.header = &h;
    int rc = co_qcow2_rewrite(q, &cover);
    return rc == -ENOSPC ? 0 : rc; /* no room to lay it out anew: it is stale as it stands */
}

/* --- storing -------------------------------------------------------------- */

/* What it recorded, or only the mark taken off. One that cannot be stored stays marked. */
static int co_store_one(struct qcow2 *q, struct qcow2_bitmap_rows *r, struct qcow2_bitmap_row *row,
                        struct blk_error *e)
{
    struct qcow2_dirty *d = row->d;

    if (d->changed) {
        TRY(co_qcow2_granules_load(q, d, e));
        int rc = co_qcow2_bitmap_row_store(q, r, row, &d->bits);
        if (rc < 0)
            return err_errno(e, rc, "cannot store bitmap '%s'", d->name);
    }
    row->flags &= ~(uint32_t)QCOW2_BITMAP_IN_USE;
    return 0;
}

static int co_store_all(struct qcow2 *q, struct blk_error *e)
{
    struct qcow2_bitmap_rows r;
    int lost = 0, rc = qcow2_bitmap_rows_begin(q, &r);

    if (rc < 0)
        return err_errno(e, rc, "cannot store the bitmaps");
    for (uint32_t i = 0; i < r.count; i++) {
        if (!records(r.rows[i].d, r.rows[i].flags))
            continue;
        rc = co_store_one(q, &r, &r.rows[i], e);
        lost = rc < 0 ? rc : lost;
    }
    rc = co_qcow2_bitmap_publish(q, &r, e);
    return rc < 0 ? rc : lost;
}

int co_qcow2_bitmaps_store(struct qcow2 *q, struct blk_error *e)
{
    with_lock(&q->bitmaps.lock);
    if (!q->bitmaps.recording)
        return 0;
    int rc = co_store_all(q, e);
    for (uint32_t i = 0; i < q->bitmaps.count; i++) {
        struct qcow2_dirty *d = q->bitmaps.list[i];
        d->changed &= (d->disk.flags & QCOW2_BITMAP_IN_USE) != 0; /* it could not be stored */
    }
    q->bitmaps.armed = false;
    qcow2_bitmaps_watch(q);
    return rc;
}

void qcow2_bitmaps_lose(struct qcow2 *q)
{
    for (uint32_t i = 0; i < q->bitmaps.count; i++)
        if (q->bitmaps.list[i]->disk.flags & QCOW2_BITMAP_IN_USE)
            q->bitmaps.list[i]->kind = QCOW2_INCONSISTENT;
    qcow2_bitmaps_watch(q);
}

/* --- another size --------------------------------------------------------- */

int qcow2_bitmap_inconsistent(const struct qcow2_dirty *d, struct blk_error *e)
{
    return err_set(e, -EINVAL,
                   "Bitmap '%s' is inconsistent and cannot be used\n"
                   "Try bitmap --remove to delete this bitmap from disk",
                   d->name);
}

int qcow2_bitmaps_may_resize(struct qcow2 *q, uint64_t size, struct blk_error *e)
{
    for (uint32_t i = 0; i < q->bitmaps.count; i++) {
        const struct qcow2_dirty *d = q->bitmaps.list[i];
        if (d->kind == QCOW2_INCONSISTENT)
            return qcow2_bitmap_inconsistent(d, e);
        if (d->kind == QCOW2_FOREIGN)
            return err_set(e, -EINVAL,
                           "bitmap '%s' has features that are not known here, so it cannot be "
                           "resized with the disk",
                           d->name);
        if (size == 0 ||
            qcow2_bitmap_needs(size, d->disk.granularity_bits, 0) > QCOW2_MAX_BITMAP_BYTES)
            return err_set(e, size ? -EFBIG : -EINVAL,
                           "bitmap '%s' cannot be kept for a disk of %" PRIu64 " bytes", d->name,
                           size);
    }
    return 0;
}

/* The bits of @d for the new size, in @out; the ones that are not recording go to the file. */
static int co_resize_one(struct qcow2 *q, struct qcow2_bitmap_rows *r, struct qcow2_bitmap_row *row,
                         struct qcow2_granules *out)
{
    struct qcow2_dirty *d = row->d;
    struct blk_error ignored;
    uint64_t size = r->resized->size;

    TRY(co_qcow2_granules_load(q, d, &ignored));
    TRY(qcow2_granules_make(out, size, d->disk.granularity_bits, q->header.cluster_bits));
    uint64_t kept = MIN(out->count, d->bits.count), whole = kept / 64;
    memcpy(out->words, d->bits.words, whole * 8);
    if (kept % 64)
        out->words[whole] = d->bits.words[whole] & (UINT64_MAX >> (64 - kept % 64));
    /* What is in use is stored later; else anew also where the table stays as long: nobody knows
     * what lies behind the last bit, and it must not come to light. */
    return row->flags & QCOW2_BITMAP_IN_USE ? 0 : co_qcow2_bitmap_row_store(q, r, row, out);
}

static void take_bits(struct qcow2_dirty *d, struct qcow2_granules *bits)
{
    mem_free(d->bits.words);
    d->bits = *bits;
    d->changed = d->disk.flags & QCOW2_BITMAP_IN_USE;
    *bits = (struct qcow2_granules){0};
}

int co_qcow2_bitmaps_put_size(struct qcow2 *q, const struct qcow2_header *h)
{
    struct qcow2_bitmap_rows r;
    struct blk_error ignored;

    with_lock(&q->bitmaps.lock);
    TRY(qcow2_bitmap_rows_begin(q, &r));
    r.resized = h;
    uint32_t count = r.count;
    struct qcow2_granules *bits = mem_array(MAX(count, 1), sizeof(*bits));
    int rc = bits ? 0 : -ENOMEM;
    for (uint32_t i = 0; rc == 0 && i < count; i++)
        rc = co_resize_one(q, &r, &r.rows[i], &bits[i]);
    if (rc == 0)
        rc = co_qcow2_bitmap_publish(q, &r, &ignored);
    else
        co_qcow2_bitmap_rows_drop(q, &r);
    for (uint32_t i = 0; bits && i < count; i++) {
        if (rc == 0)
            take_bits(q->bitmaps.list[i], &bits[i]);
        mem_free(bits[i].words);
    }
    mem_free(bits);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* log_replay.c - the stripe log, read.
 *
 * The log counts if each member's head fits its superblock as it was found, and in arrays of LVM2
 * the bitmap's seal as well: then nobody else has been here. A ring is read from its tail on, as
 * long as records of the session follow each other in sequence; what comes behind was not durable,
 * so that its strip was not begun in place.
 *
 * A record that is not on all the rings that it names, of those that are there and have not let go
 * of it, was not begun in place: it is passed over. Of those that are not there nobody knows.
 *
 * Order:
 *  1. All members are flushed: the records that were found are durable. Superblocks say who is not
 *     there: it does not come back with a ring that lacks a record, or a row that is older.
 *  2. Contents are written again, oldest first of all rings, but for what a later mark covers:
 *     there newer data was being written in place.
 *  3. Parity is made anew where there are marks, if what is left of it says anything.
 *  4. All members are flushed; then heads say that nothing is in the rings, so that what was passed
 *     over is never found when more is not there; then superblocks say clean.
 * Interrupted anywhere, it is done again. */
#include <stdlib.h>

#include "block/crc32c.h"
#include "block/worker.h"
#include "raid/bitmap.h"
#include "raid/log.h"

/* --- heads -------------------------------------------------------------------------------------
 */

static int co_check_seal(const struct raid_member *m, uint64_t session)
{
    uint8_t raw[MD_BITMAP_HEADER];
    struct md_bitmap b;
    struct blk_error ignored = {0};
    if (m->super->version != MD_DM_RAID)
        return 0;
    TRY(co_blk_read_buf(m->dev, (uint64_t)m->super->bitmap_offset, raw, sizeof(raw)));
    return md_bitmap_parse(raw, &b, &ignored) == 0 && b.seal == log_seal_of(session) ? 0 : -ENODATA;
}

/* The head of @m, if it belongs to the superblock that was found; -ENODATA: it does not. */
static int co_read_head(const struct raid_member *m, struct log_head_disk *h)
{
    uint64_t start, bytes;
    if (!log_area(m->super, &start, &bytes) || start + bytes > m->dev->size)
        return -ENODATA;
    uint8_t *block = buf_get(LOG_BLOCK);
    if (!block)
        return -ENOMEM;
    int rc = co_blk_read_buf(m->dev, start - LOG_BLOCK, block, LOG_BLOCK);
    memcpy(h, block, sizeof(*h));
    buf_put(block, LOG_BLOCK);
    TRY(rc);
    uint32_t crc = le32_get(h->crc), found = log_super_crc(m->super);
    bool ours = memcmp(h->tag, LOG_HEAD_TAG, sizeof(h->tag)) == 0 &&
                crc == crc32c_but(h, sizeof(*h), offsetof(struct log_head_disk, crc)) &&
                memcmp(h->array_uuid, m->super->uuid, sizeof(h->array_uuid)) == 0 &&
                le64_get(h->ring_bytes) == bytes &&
                (found == le32_get(h->super_now) || found == le32_get(h->super_tried) ||
                 found == le32_get(h->super_next));
    return ours ? co_check_seal(m, le64_get(h->session)) : -ENODATA;
}

uint64_t co_log_session(const struct raid_member *m)
{
    struct log_head_disk h;
    if (co_read_head(m, &h) < 0 || !(le32_get(h.flags) & LOG_SYNCED))
        return 0;
    return le64_get(h.session);
}

/* --- records -----------------------------------------------------------------------------------
 */

/* What was found in the rings. */
struct place {
    uint64_t order, at, bytes; /* at: on the ring's member */
    struct raid_member *m;
    unsigned rings; /* that are there and would have it, had it been durable */
};
struct mark {
    uint64_t order, offset, bytes;
};

struct replay {
    struct raid_array *a;
    bool *is_there;  /* by member: its ring is of the session */
    uint8_t *record; /* the one that was read last */
    uint64_t room;   /* for the longest */
    struct place *places;
    size_t place_count, place_room;
    struct mark *marks;
    size_t mark_count, mark_room;
};

static const struct log_record_disk *header_of(const struct replay *d)
{
    return (const struct log_record_disk *)d->record;
}

/* Reads the record at @at of @r, if it is the next one; its header and contents are whole. */
static int co_read_record(struct replay *d, const struct log_ring *r, uint64_t at)
{
    uint64_t place = at % r->bytes, most = MIN(r->bytes - place, d->room);
    const struct log_record_disk *h = header_of(d);
    TRY(co_blk_read_buf(r->m->dev, r->start + place, d->record, LOG_BLOCK));
    uint64_t header = log_header_bytes(le32_get(h->count)), total = le32_get(h->bytes);
    if (memcmp(h->tag, LOG_TAG, sizeof(h->tag)) != 0 ||
        le64_get(h->session) != d->a->log->session || le64_get(h->sequence) != r->next_sequence ||
        le32_get(h->count) > 2 * d->a->shape.disks || header > total || total > most)
        return -ENODATA;
    TRY(co_blk_read_buf(r->m->dev, r->start + place, d->record, total));
    if (le32_get(h->crc) != crc32c_but(h, header, offsetof(struct log_record_disk, crc)) ||
        le32_get(h->contents_crc) != crc32c(0, d->record + header, total - header))
        return -ENODATA;
    return 0;
}

/* Room for one more in an array that grows. */
static int grow(void **items, size_t item_bytes, size_t count, size_t *room)
{
    if (count < *room)
        return 0;
    size_t more = *room ? 2 * *room : 256;
    void *bigger = mem_resize(*items, more * item_bytes);
    if (!bigger)
        return -ENOMEM;
    *items = bigger;
    *room = more;
    return 0;
}

/* Whether an entry can be what it says, with @left bytes of contents. */
static bool is_sane(const struct replay *d, const struct log_entry_disk *e, uint64_t left)
{
    uint64_t offset = le64_get(e->offset), bytes = le32_get(e->bytes), chunk = d->a->shape.chunk;
    unsigned kind = le16_get(e->kind);
    if (kind == LOG_RING)
        return true;
    return range_fits(offset, bytes, d->a->shape.member) && offset % ROW_PAGE == 0 && bytes > 0 &&
           bytes % ROW_PAGE == 0 && (kind == LOG_MARK || bytes <= chunk - offset % chunk) &&
           le16_get(e->role) < d->a->shape.disks && kind <= LOG_MARK &&
           (kind != LOG_CONTENTS || bytes <= left);
}

/* Calls @co_entry for each entry of the record that was read, with its contents. */
static int co_entries(struct replay *d,
                      int (*co_entry)(struct replay *d, const struct log_entry_disk *e,
                                      uint8_t *contents))
{
    const struct log_record_disk *h = header_of(d);
    uint64_t at = log_header_bytes(le32_get(h->count)), total = le32_get(h->bytes);
    for (unsigned i = 0; i < le32_get(h->count); i++) {
        const struct log_entry_disk *e = &h->entry[i];
        if (!is_sane(d, e, total - at))
            return -EINVAL;
        TRY(co_entry(d, e, d->record + at));
        at += le16_get(e->kind) == LOG_CONTENTS ? le32_get(e->bytes) : 0;
    }
    return 0;
}

/* --- finding them ------------------------------------------------------------------------------
 */

/* Whether the ring of that number is there, and has not let go of what is of that order. */
static bool would_have(const struct replay *d, uint64_t number, uint64_t order)
{
    for (unsigned i = 0; i < d->a->member_count; i++) {
        const struct log_ring *r = d->a->members[i].log;
        if (d->is_there[i] && r->number == number)
            return order >= r->tail.order;
    }
    return false;
}

static int co_remember(struct replay *d, const struct log_entry_disk *e, uint8_t *contents)
{
    (void)contents;
    uint64_t order = le64_get(header_of(d)->order);
    if (le16_get(e->kind) == LOG_RING)
        d->places[d->place_count - 1].rings += would_have(d, le64_get(e->offset), order);
    if (le16_get(e->kind) != LOG_MARK)
        return 0;
    TRY(grow((void **)&d->marks, sizeof(*d->marks), d->mark_count, &d->mark_room));
    d->marks[d->mark_count++] = (struct mark){order, le64_get(e->offset), le32_get(e->bytes)};
    return 0;
}

/* All records from the tail on; r->next is behind the last then. */
static int co_find_records(struct replay *d, struct log_ring *r)
{
    for (;;) {
        uint64_t rest = r->bytes - r->next % r->bytes;
        int rc = co_read_record(d, r, r->next);
        if (rc == -ENODATA && rest < r->bytes) { /* it may not have fitted there */
            rc = co_read_record(d, r, r->next + rest);
            r->next += rc == 0 ? rest : 0;
        }
        if (rc < 0)
            return rc == -ENODATA ? 0 : rc;
        const struct log_record_disk *h = header_of(d);
        TRY(grow((void **)&d->places, sizeof(*d->places), d->place_count, &d->place_room));
        d->places[d->place_count++] = (struct place){.order = le64_get(h->order),
                                                     .at = r->start + r->next % r->bytes,
                                                     .bytes = le32_get(h->bytes),
                                                     .m = r->m};
        TRY(co_entries(d, co_remember));
        r->next += le32_get(h->bytes);
        r->next_sequence++;
    }
}

static int by_order(const void *a, const void *b)
{
    uint64_t x = ((const struct place *)a)->order, y = ((const struct place *)b)->order;
    return (x > y) - (x < y);
}

static void forget_marks(struct replay *d, uint64_t order)
{
    size_t left = 0;
    for (size_t i = 0; i < d->mark_count; i++)
        if (d->marks[i].order != order)
            d->marks[left++] = d->marks[i];
    d->mark_count = left;
}

/* In order, and without records that have not reached all rings. */
static void sort_places(struct replay *d)
{
    size_t left = 0, end;
    if (d->place_count)
        qsort(d->places, d->place_count, sizeof(*d->places), by_order);
    for (size_t i = 0; i < d->place_count; i = end) {
        const uint64_t order = d->places[i].order, rings = d->places[i].rings;
        for (end = i; end < d->place_count && d->places[end].order == order; end++)
            ;
        if (end - i < rings)
            forget_marks(d, order);
        for (size_t k = i; k < end && end - i >= rings; k++)
            d->places[left++] = d->places[k];
    }
    d->place_count = left;
}

/* --- replaying ---------------------------------------------------------------------------------
 */

static bool is_covered(const struct replay *d, uint64_t offset)
{
    for (size_t i = 0; i < d->mark_count; i++)
        if (d->marks[i].order > le64_get(header_of(d)->order) && offset >= d->marks[i].offset &&
            offset - d->marks[i].offset < d->marks[i].bytes)
            return true;
    return false;
}

/* Runs of pages that no later mark covers, as one write each. */
static int co_put(struct replay *d, const struct log_entry_disk *e, uint8_t *contents)
{
    uint64_t offset = le64_get(e->offset), bytes = le32_get(e->bytes), run;
    unsigned kind = le16_get(e->kind);
    struct raid_member *m = kind < LOG_MARK ? array_writable(d->a, le16_get(e->role)) : NULL;
    if (!m)
        return 0;
    for (uint64_t at = 0; at < bytes; at += run) {
        bool covered = is_covered(d, offset + at);
        run = ROW_PAGE;
        while (at + run < bytes && is_covered(d, offset + at + run) == covered)
            run += ROW_PAGE;
        if (covered)
            continue;
        struct iovec iov = {contents + at, run};
        struct member_io io = {.m = m,
                               .op = kind == LOG_ZEROES ? MEMBER_ZERO : MEMBER_WRITE,
                               .offset = offset + at,
                               .bytes = run,
                               .vec = VEC_ONE(&iov)};
        co_member_io(&io);
        if (io.rc == -ENOMEM)
            return io.rc;
        if (io.rc < 0)
            TRY(co_array_miss(d->a, &io, rows_enough_without(d->a, m->role, io.offset, io.bytes)));
        if (m->state == MEMBER_OUT)
            return 0;
    }
    return 0;
}

static int co_put_records(struct replay *d)
{
    for (size_t i = 0; i < d->place_count; i++) {
        const struct place *p = &d->places[i];
        TRY(co_blk_read_buf(p->m->dev, p->at, d->record, p->bytes));
        TRY(co_entries(d, co_put));
    }
    return 0;
}

/* Whether parity says something of that page: less data is lost than there are parities. */
static bool has_parity(const struct raid_array *a, uint64_t offset)
{
    struct raid_row row = raid_row(&a->shape, offset / a->shape.chunk);
    unsigned lost = 0;
    for (unsigned i = 0; i < a->shape.data_disks; i++)
        lost += !array_readable(a, raid_row_disk(&row, i), offset, ROW_PAGE);
    return lost < a->shape.level->parities;
}

static int co_make_parity(struct raid_array *a, const struct mark *m)
{
    uint64_t run;
    for (uint64_t at = 0; at < m->bytes; at += run) {
        bool has = has_parity(a, m->offset + at);
        run = ROW_PAGE;
        while (at + run < m->bytes && has_parity(a, m->offset + at + run) == has)
            run += ROW_PAGE;
        if (has)
            TRY(co_rows_resync(a, m->offset + at, run));
    }
    return 0;
}

static int co_make_marked_parity(struct replay *d)
{
    for (size_t i = 0; i < d->mark_count; i++)
        TRY(co_make_parity(d->a, &d->marks[i]));
    return 0;
}

/* --- all rings ---------------------------------------------------------------------------------
 */

static bool is_dirty(const struct raid_member *m)
{
    return m->super->resync_offset != UINT64_MAX;
}

static bool counts(const struct raid_member *m)
{
    return m->state == MEMBER_IN_SYNC || m->state == MEMBER_REBUILDING;
}

/* Heads of members that are dirty have to fit, and to be of one session, which is given. *synced:
 * they all say that parity was right. */
static int co_read_heads(struct raid_array *a, struct log_head_disk *h, uint64_t *session,
                         bool *synced)
{
    *session = 0;
    *synced = true;
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct raid_member *m = &a->members[i];
        if (!counts(m))
            continue;
        if (m->super->events + 1 < a->super->events)
            return -ENODATA; /* a stale one that was taken by force */
        int rc = co_read_head(m, &h[i]);
        if (rc < 0)
            h[i] = (struct log_head_disk){0};
        if (!is_dirty(m))
            continue;
        TRY(rc);
        if (*session && le64_get(h[i].session) != *session)
            return -ENODATA;
        *session = le64_get(h[i].session);
        *synced &= (le32_get(h[i].flags) & LOG_SYNCED) != 0;
    }
    return *session ? 0 : -ENODATA;
}

static void take_tail(struct log_ring *r, const struct log_head_disk *h)
{
    r->tail =
        (struct log_tail){le64_get(h->tail), le64_get(h->tail_sequence), le64_get(h->tail_order)};
    r->next = r->tail.at;
    r->next_sequence = r->tail.sequence;
    if (le32_get(h->ring))
        r->number = le32_get(h->ring);
}

static int co_replay_all(struct replay *d, const struct log_head_disk *h)
{
    struct raid_array *a = d->a;
    /* From here on a head that is written for another reason says the same as it did. One whose
     * superblock says clean was not written to in a session that it does not know (A1). */
    for (unsigned i = 0; i < a->member_count; i++) {
        d->is_there[i] = counts(&a->members[i]) && le64_get(h[i].session) == a->log->session;
        if (d->is_there[i])
            take_tail(a->members[i].log, &h[i]);
        if (d->is_there[i])
            a->log->order = MAX(a->log->order, a->members[i].log->tail.order);
    }
    TRY(co_array_level(a));
    for (unsigned i = 0; i < a->member_count; i++)
        d->is_there[i] &= counts(&a->members[i]);
    for (unsigned i = 0; i < a->member_count; i++)
        if (d->is_there[i])
            TRY(co_find_records(d, a->members[i].log));
    for (size_t i = 0; i < d->place_count; i++)
        a->log->order = MAX(a->log->order, d->places[i].order + 1);
    if (d->place_count) /* what was found may have been in memory only, of a process that died */
        TRY(co_array_flush(a));
    sort_places(d);
    if (d->place_count)
        TRY(co_array_go_without(a));
    TRY(co_put_records(d));
    TRY(co_make_marked_parity(d));
    TRY(co_array_flush(a));
    return co_log_empty(a);
}

int co_log_replay(struct raid_array *a, bool *replayed, struct blk_error *e)
{
    bool synced;
    uint64_t session;
    auto_free struct log_head_disk *h = mem_array(a->member_count, sizeof(*h));
    if (!h)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_read_heads(a, h, &session, &synced);
    if (rc == -ENODATA)
        return 0;
    if (rc == 0) {
        struct replay d = {.a = a, .room = LOG_MOST / 2};
        auto_free bool *is_there = mem_array(a->member_count, sizeof(*is_there));
        a->log->session = session;
        a->log->synced = synced;
        d.record = mem_aligned(d.room);
        d.is_there = is_there;
        rc = d.record && is_there ? co_replay_all(&d, h) : -ENOMEM;
        mem_free(d.record);
        mem_free(d.places);
        mem_free(d.marks);
    }
    if (rc < 0)
        return err_errno(e, rc, "the stripe log cannot be replayed");
    *replayed = synced;
    return 0;
}

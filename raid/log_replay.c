/* SPDX-License-Identifier: BSD-3-Clause */
/* log_replay.c - the stripe log, read.
 *
 * The log counts if each member's head fits its superblock as it was found: then nobody else has
 * been here. A ring is read from its tail on, as long as records of the session follow each other
 * in sequence; what comes behind was not durable, so that its strip was not begun in place.
 *
 * Order:
 *  1. Contents are written again, oldest first, but for what a later mark covers: there newer data
 *     was being written in place.
 *  2. Parity is made anew where there are marks, if all data is there.
 *  3. All members are flushed; then superblocks say clean.
 * Interrupted anywhere, it is done again. */
#include "block/crc32c.h"
#include "block/worker.h"
#include "raid/log.h"

/* --- heads -------------------------------------------------------------------------------------
 */

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
                (found == le32_get(h->super_now) || found == le32_get(h->super_next));
    return ours ? 0 : -ENODATA;
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

struct mark {
    uint64_t sequence, offset, bytes;
};

/* A ring while it is read. */
struct reader {
    struct raid_array *a;
    struct log_ring *r;
    uint64_t session;
    uint64_t at, sequence; /* of the next record */
    uint64_t end_sequence; /* once all have been seen: behind the last */
    uint8_t *record;       /* the one that was read last; room for the longest */
    uint64_t room;
    struct mark *marks;
    size_t mark_count, mark_room;
};

/* The one at @at, if it is the next; its header and contents are whole. */
static int co_read_at(struct reader *d, uint64_t at, uint64_t *bytes)
{
    uint64_t place = at % d->r->bytes, left = d->r->bytes - place;
    struct log_record_disk *h = (struct log_record_disk *)d->record;
    TRY(co_blk_read_buf(d->r->m->dev, d->r->start + place, d->record, LOG_BLOCK));
    uint64_t header = log_header_bytes(le32_get(h->count)), total = le32_get(h->bytes);
    if (memcmp(h->tag, LOG_TAG, sizeof(h->tag)) != 0 || le64_get(h->session) != d->session ||
        le64_get(h->sequence) != d->sequence || header > total || total > MIN(left, d->room))
        return -ENODATA;
    TRY(co_blk_read_buf(d->r->m->dev, d->r->start + place, d->record, total));
    if (le32_get(h->crc) != crc32c_but(h, header, offsetof(struct log_record_disk, crc)) ||
        le32_get(h->contents_crc) != crc32c(0, d->record + header, total - header))
        return -ENODATA;
    *bytes = total;
    return 0;
}

/* 1: there is one, and it has been read; 0: there is none. */
static int co_next_record(struct reader *d)
{
    uint64_t bytes, place = d->at % d->r->bytes;
    int rc = co_read_at(d, d->at, &bytes);
    if (rc == -ENODATA && place > 0) { /* it did not fit there */
        d->at += d->r->bytes - place;
        rc = co_read_at(d, d->at, &bytes);
        if (rc == -ENODATA)
            d->at -= d->r->bytes - place;
    }
    if (rc < 0)
        return rc == -ENODATA ? 0 : rc;
    d->at += bytes;
    d->sequence++;
    return 1;
}

static int remember_mark(struct reader *d, const struct log_entry_disk *e)
{
    if (d->mark_count == d->mark_room) {
        size_t room = d->mark_room ? 2 * d->mark_room : 64;
        struct mark *more = mem_resize(d->marks, room * sizeof(*more));
        if (!more)
            return -ENOMEM;
        d->marks = more;
        d->mark_room = room;
    }
    d->marks[d->mark_count++] =
        (struct mark){d->sequence - 1, le64_get(e->offset), le32_get(e->bytes)};
    return 0;
}

/* Whether an entry can be what it says: @left bytes of contents are there. */
static bool is_sane(const struct reader *d, const struct log_entry_disk *e, uint64_t left)
{
    uint64_t offset = le64_get(e->offset), bytes = le32_get(e->bytes);
    return range_fits(offset, bytes, d->a->shape.member) && offset % ROW_PAGE == 0 && bytes > 0 &&
           bytes % ROW_PAGE == 0 && le16_get(e->role) < d->a->shape.disks &&
           le16_get(e->kind) <= LOG_MARK && (le16_get(e->kind) != LOG_CONTENTS || bytes <= left);
}

/* Calls @co_entry for each entry of the record that was read, with its contents. */
static int co_entries(struct reader *d,
                      int (*co_entry)(struct reader *d, const struct log_entry_disk *e,
                                      uint8_t *contents))
{
    const struct log_record_disk *h = (const struct log_record_disk *)d->record;
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

/* --- replaying ---------------------------------------------------------------------------------
 */

static bool is_covered(const struct reader *d, uint64_t offset)
{
    for (size_t i = 0; i < d->mark_count; i++)
        if (d->marks[i].sequence >= d->sequence && offset >= d->marks[i].offset &&
            offset - d->marks[i].offset < d->marks[i].bytes)
            return true;
    return false;
}

static int co_see(struct reader *d, const struct log_entry_disk *e, uint8_t *contents)
{
    (void)contents;
    return le16_get(e->kind) == LOG_MARK ? remember_mark(d, e) : 0;
}

/* Runs of pages that no later mark covers, as one write each. */
static int co_put(struct reader *d, const struct log_entry_disk *e, uint8_t *contents)
{
    uint64_t offset = le64_get(e->offset), bytes = le32_get(e->bytes), run;
    struct raid_member *m = array_writable(d->a, le16_get(e->role));
    if (!m || le16_get(e->kind) == LOG_MARK)
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
                               .op = le16_get(e->kind) == LOG_ZEROES ? MEMBER_ZERO : MEMBER_WRITE,
                               .offset = offset + at,
                               .bytes = run,
                               .vec = VEC_ONE(&iov)};
        co_member_io(&io);
        TRY(io.rc);
    }
    return 0;
}

/* All records from the tail on; the first time to know the marks, then to do it. */
static int co_pass(struct reader *d,
                   int (*co_entry)(struct reader *d, const struct log_entry_disk *e,
                                   uint8_t *contents))
{
    int rc;
    d->at = d->r->tail;
    d->sequence = d->r->tail_sequence;
    while (d->sequence < d->end_sequence && (rc = co_next_record(d)) != 0) {
        TRY(rc);
        TRY(co_entries(d, co_entry));
    }
    return 0;
}

static int co_make_marked_parity(struct reader *d)
{
    for (size_t i = 0; i < d->mark_count; i++) {
        const struct mark *m = &d->marks[i];
        struct raid_row row = raid_row(&d->a->shape, m->offset / d->a->shape.chunk);
        bool all = true;
        for (unsigned k = 0; k < d->a->shape.data_disks; k++)
            all &= array_readable(d->a, raid_row_disk(&row, k), m->offset, m->bytes) != NULL;
        if (all)
            TRY(co_rows_resync(d->a, m->offset, m->bytes));
    }
    return 0;
}

static void take_tail(struct log_ring *r, const struct log_head_disk *h)
{
    r->tail = r->next = le64_get(h->tail);
    r->tail_sequence = r->next_sequence = le64_get(h->tail_sequence);
}

static int co_replay_ring(struct raid_array *a, struct log_ring *r)
{
    struct reader d = {.a = a, .r = r, .session = a->log->session, .room = r->bytes / 2};
    auto_free uint8_t *record = mem_aligned(d.room);
    if (!record)
        return -ENOMEM;
    d.record = record;
    d.end_sequence = UINT64_MAX;
    int rc = co_pass(&d, co_see);
    d.end_sequence = d.sequence;
    if (rc == 0)
        rc = co_pass(&d, co_put);
    if (rc == 0)
        rc = co_make_marked_parity(&d);
    r->next = d.at;
    r->next_sequence = d.sequence;
    mem_free(d.marks);
    return rc;
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

static int co_replay_rings(struct raid_array *a, const struct log_head_disk *h)
{
    int rc = 0;
    /* From here on a head that is written for another reason says the same as it did. */
    for (unsigned i = 0; i < a->member_count; i++)
        if (counts(&a->members[i]) && le64_get(h[i].session) == a->log->session)
            take_tail(a->members[i].log, &h[i]);
    /* One whose superblock says clean was not written to in a session that it does not know (A1).
     */
    for (unsigned i = 0; i < a->member_count && rc == 0; i++)
        if (counts(&a->members[i]) && le64_get(h[i].session) == a->log->session)
            rc = co_replay_ring(a, a->members[i].log);
    return rc < 0 ? rc : co_array_flush(a);
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
        a->log->session = session;
        rc = co_replay_rings(a, h);
    }
    if (rc < 0)
        return err_errno(e, rc, "replaying the stripe log");
    *replayed = synced;
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* log.c - the stripe log, written.
 *
 * Order:
 *  1. Before the first write every member has a head that names the session and the superblock that
 *     comes; then its superblock says dirty (A1). Linux, should it come first, finds a dirty array,
 *     and changes the superblock, so that the head does not fit it any more. (Arrays of LVM2: all
 *     bitmaps are sealed before, and dm-raid breaks the seal.)
 *  2. A record is durable (FUA; one write for all that wait) on all members that have the row's
 *     parity before the first block of its strip is written in place.
 *  3. Room is used again when the strips of the records there have been written in place, then all
 *     members flushed, then the head says that what counts begins behind.
 *  4. Every superblock of ours is announced in the head, durably, before it is written: the log
 *     counts if the one that is found is the one before or the one announced.
 *  5. When all is in place and flushed, superblocks say clean, and the log does not count. */
#include "raid/log.h"

#include "block/crc32c.h"
#include "block/host.h"
#include "block/worker.h"
#include "raid/bitmap.h"

#define PIECES_MOST   280 /* of memory, in one write of records */
#define SEQUENCE_JUMP (1ULL << 32)

/* --- places ------------------------------------------------------------------------------------
 */

static void leave_out(uint64_t *low, const struct md_super *s, int64_t offset, uint64_t bytes)
{
    if (bytes)
        *low = MAX(*low, s->super_offset + (uint64_t)offset + bytes);
}

/* Behind everything that md has there: room for any bitmap that mdadm makes, or dm-raid, which has
 * 2^21 bits at the most. */
bool log_area(const struct md_super *s, uint64_t *start, uint64_t *bytes)
{
    bool dm = s->version == MD_DM_RAID;
    uint64_t low = s->super_offset + MD_SUPER_BYTES;
    uint64_t high = align_down(dm ? s->head_bytes : s->data_offset, LOG_BLOCK);
    uint64_t bitmap = 256 * KiB + (dm ? MD_BITMAP_HEADER : 0);
    if (s->version == MD_0_90 || s->super_offset >= s->data_offset)
        return false;
    leave_out(&low, s, s->bitmap_offset, s->features & MD_BITMAP ? bitmap : 0);
    leave_out(&low, s, s->bad_offset, s->bad_bytes);
    leave_out(&low, s, s->ppl_offset, s->ppl_bytes);
    low = align_up(low, LOG_BLOCK) + LOG_BLOCK; /* the head */
    if (low > high || high - low < LOG_LEAST)
        return false;
    *bytes = MIN(high - low, LOG_MOST);
    *start = high - *bytes;
    return true;
}

uint32_t log_super_crc(const struct md_super *s)
{
    return crc32c(0, s->raw, md_super_bytes(s, 512));
}

uint64_t log_seal_of(uint64_t session)
{
    return MD_BITMAP_SEAL | (session << 32 & (MD_BITMAP_SEAL - 1));
}

uint64_t log_seal(const struct raid_array *a)
{
    return a->super->version == MD_DM_RAID ? log_seal_of(a->log ? a->log->session : 0) : 0;
}

uint64_t log_widest(const struct raid_array *a)
{
    uint64_t least = LOG_MOST, blocks = a->shape.disks, rings = a->shape.level->parities;
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].log)
            least = MIN(least, a->members[i].log->bytes);
    uint64_t room = least / 4 - MIN(least / 4, log_header_bytes(blocks + rings));
    return MIN(align_down(room / blocks, ROW_PAGE), ROW_SLICE);
}

/* --- heads -------------------------------------------------------------------------------------
 */

/* What counts begins at @tail, which is so once that is durable: nobody may write to the room
 * before it any sooner. */
static int co_write_head(struct raid_array *a, struct log_ring *r, struct log_tail tail)
{
    assert_held(&r->head_lock);
    uint8_t *block = buf_get(LOG_BLOCK);
    if (!block)
        return -ENOMEM;
    struct log_head_disk h = {.tag = LOG_HEAD_TAG,
                              .flags = le32_of(a->was_dirty && !a->log->synced ? 0 : LOG_SYNCED),
                              .session = le64_of(a->log->session),
                              .ring_bytes = le64_of(r->bytes),
                              .tail = le64_of(tail.at),
                              .tail_sequence = le64_of(tail.sequence),
                              .tail_order = le64_of(tail.order),
                              .ring = le32_of(r->number),
                              .super_now = le32_of(r->super_now),
                              .super_tried = le32_of(r->super_tried),
                              .super_next = le32_of(r->super_next)};
    memcpy(h.array_uuid, a->super->uuid, sizeof(h.array_uuid));
    h.crc = le32_of(crc32c(0, &h, sizeof(h)));
    memset(block, 0, LOG_BLOCK);
    memcpy(block, &h, sizeof(h));
    uint32_t number = r->number;
    int rc = co_blk_write_buf(r->m->dev, r->start - LOG_BLOCK, block, LOG_BLOCK, BLK_FUA);
    buf_put(block, LOG_BLOCK);
    if (rc == 0 && r->number == number)
        r->tail = tail;
    return rc;
}

/* With a number that no other ring has, and records that are not taken for those that were written
 * to that member before: while it was away, rows may have changed without a record. */
static void begin_ring(struct log_ring *r)
{
    const struct raid_log *log = r->m->array->log;
    host_random(r->m->dev->home->host, &r->number, sizeof(r->number));
    r->number |= 1; /* 0 is none */
    r->next_sequence = r->number * SEQUENCE_JUMP;
    r->tail = (struct log_tail){r->next, r->next_sequence, log->order};
    r->marked = 0;
}

void log_leave(struct raid_member *m)
{
    if (m->log)
        begin_ring(m->log);
}

static int add_ring(struct raid_member *m)
{
    uint64_t start, bytes;
    if (!log_area(m->super, &start, &bytes))
        return 0;
    struct log_ring *r = mem_zalloc(sizeof(*r));
    if (!r)
        return -ENOMEM;
    *r = (struct log_ring){.m = m, .start = start, .bytes = bytes};
    r->super_now = r->super_tried = r->super_next = log_super_crc(m->super);
    m->log = r;
    begin_ring(r);
    return 0;
}

/* A member that comes while the array is open may have too little room: its rows go without. */
static int add_late_ring(struct raid_array *a, struct raid_member *m)
{
    const struct rows *rows = a->engine_state;
    TRY(add_ring(m));
    if (m->log && log_widest(a) < rows->slice)
        mem_free(take(m->log));
    return 0;
}

int co_log_announce(struct raid_array *a, struct raid_member *m)
{
    if (!a->log)
        return 0;
    if (!m->log)
        TRY(add_late_ring(a, m));
    struct log_ring *r = m->log;
    if (!r)
        return 0;
    with_lock(&r->head_lock);
    r->super_next = log_super_crc(m->super);
    return co_write_head(a, r, r->tail);
}

void log_announced(struct raid_member *m, bool written)
{
    struct log_ring *r = m->log;
    if (!r)
        return;
    r->super_tried = r->super_next;
    if (written)
        r->super_now = r->super_next;
}

/* --- room --------------------------------------------------------------------------------------
 */

/* Where a record of that length begins: none wraps around. */
static uint64_t place_of(const struct log_ring *r, uint64_t bytes)
{
    uint64_t left = r->bytes - r->next % r->bytes;
    return left < bytes ? r->next + left : r->next;
}

static bool has_room(const struct raid_log *log, const struct log_ring *r, uint64_t bytes)
{
    return r->marked < log->marked_most && place_of(r, bytes) + bytes - r->tail.at <= r->bytes;
}

/* Of records that have to stay where they are. */
static uint64_t marked_in_flight(const struct log_ring *r)
{
    uint64_t bytes = 0;
    for (const struct log_ticket *t = r->first; t; t = t->next)
        bytes += t->marked;
    return bytes;
}

/* A member that does not take its head is put out: then it needs no room. */
static int co_move_tail(struct raid_array *a, struct log_ring *r, struct log_tail tail)
{
    co_mutex_lock(&r->head_lock);
    int rc = co_write_head(a, r, tail);
    co_mutex_unlock(&r->head_lock);
    if (rc == 0)
        r->rc = 0;
    else if (rc != -ENOMEM)
        rc = co_array_fail(a, r->m);
    return rc;
}

static struct log_tail tail_of(const struct raid_log *log, const struct log_ring *r)
{
    const struct log_ticket *t = r->first;
    return t ? (struct log_tail){t->at, t->sequence, t->order}
             : (struct log_tail){r->next, r->next_sequence, log->order};
}

/* Everything older than the oldest strip in flight is in place; flushed, its room is free. A ring
 * that a record is missing from goes on under other numbers when nothing in it is needed. */
static int co_trim(struct raid_array *a, struct log_ring *r)
{
    if (r->rc && !r->first && !r->trimming)
        r->next_sequence += SEQUENCE_JUMP;
    struct log_tail tail = tail_of(a->log, r);
    if (r->trimming || (r->rc ? r->first != NULL : tail.at == r->tail.at)) {
        co_queue_wait(&a->log->room);
        return 0;
    }
    uint64_t marked = r->marked - marked_in_flight(r);
    uint32_t number = r->number;
    r->trimming = true;
    int rc = co_array_flush(a); /* which fails while a strip is torn: its record stays */
    if (rc == 0 && r->number == number)
        rc = co_move_tail(a, r, tail);
    if (rc == 0 && r->number == number)
        r->marked -= marked;
    r->trimming = false;
    a->log->trims++;
    co_queue_wake_all(&a->log->room);
    return rc;
}

/* --- records -----------------------------------------------------------------------------------
 */

static bool is_logged(const struct row_block *b)
{
    return b->written && b->fresh;
}

static void put_entry(struct log_record_disk *r, uint64_t offset, uint64_t bytes, unsigned role,
                      enum log_kind kind)
{
    unsigned count = le32_get(r->count);
    r->entry[count] = (struct log_entry_disk){.offset = le64_of(offset),
                                              .bytes = le32_of((uint32_t)bytes),
                                              .role = le16_of((uint16_t)role),
                                              .kind = le16_of(kind)};
    r->count = le32_of(count + 1);
}

/* The entries of a strip. Gives the bytes of their contents. */
static uint64_t put_strip(const struct row_strip *s, struct log_record_disk *r)
{
    uint64_t contents = 0;
    uint32_t crc = 0;
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        const struct row_block *b = &s->block[d];
        if (!b->written)
            continue;
        put_entry(r, s->offset, s->bytes, d, b->fresh ? LOG_CONTENTS : LOG_ZEROES);
        if (!b->fresh)
            continue;
        crc = crc32c(crc, b->fresh, s->bytes);
        contents += s->bytes;
    }
    r->contents_crc = le32_of(crc);
    return contents;
}

static void take_place(struct raid_array *a, struct log_ticket *t, const uint8_t *header,
                       uint64_t header_bytes)
{
    struct log_ring *r = t->ring;
    struct log_record_disk *h = (struct log_record_disk *)t->header;
    memcpy(h, header, header_bytes);
    t->at = place_of(r, t->bytes);
    t->sequence = r->next_sequence++;
    t->order = a->log->order;
    r->next = t->at + t->bytes;
    r->marked += t->marked;
    h->session = le64_of(a->log->session);
    h->sequence = le64_of(t->sequence);
    h->order = le64_of(t->order);
    h->bytes = le32_of((uint32_t)t->bytes);
    h->crc = le32_of(0);
    h->crc = le32_of(crc32c(0, h, header_bytes));
    t->prev = r->last;
    *(r->last ? &r->last->next : &r->first) = t;
    r->last = t;
    *(r->end ? &r->end->next_unwritten : &r->unwritten) = t;
    r->end = t;
    a->log->records++;
}

/* --- writing them ------------------------------------------------------------------------------
 */

/* The pieces of a record, in the order in which they lie; false: there are too many for what is
 * left of @iov. */
static bool add_pieces(const struct log_ticket *t, struct iovec *iov, unsigned *count)
{
    const struct log_record_disk *h = (const struct log_record_disk *)t->header;
    uint64_t header_bytes = log_header_bytes(le32_get(h->count));
    unsigned n = *count;
    if (*count && *count + 1 + le32_get(h->count) > PIECES_MOST)
        return false;
    iov[n++] = (struct iovec){t->header, header_bytes};
    for (unsigned d = 0; t->s && d < t->a->shape.disks; d++)
        if (is_logged(&t->s->block[d]))
            iov[n++] = (struct iovec){t->s->block[d].fresh, t->s->bytes};
    *count = n;
    return true;
}

static void wake_ticket(struct log_ticket *t, int rc)
{
    t->rc = rc;
    t->done = true;
    if (t->co)
        co_wake(t->co);
}

/* As many of those that wait as lie behind each other, in one write. */
static void co_write_records(struct raid_array *a, struct log_ring *r)
{
    struct iovec iov[PIECES_MOST];
    unsigned count = 0;
    struct log_ticket *first = r->unwritten, *last = NULL, *t = first;
    uint64_t bytes = 0;
    for (; t && t->at == first->at + bytes; t = t->next_unwritten) {
        if (t->at / r->bytes != first->at / r->bytes || !add_pieces(t, iov, &count))
            break;
        bytes += t->bytes;
        last = t;
    }
    r->unwritten = t;
    if (!t)
        r->end = NULL;
    last->next_unwritten = NULL;
    struct vec v = {.iov = iov, .bytes = bytes};
    int rc = r->rc;
    if (rc == 0 && r->m->state != MEMBER_OUT)
        rc = co_blk_write(r->m->dev, r->start + first->at % r->bytes, &v, BLK_FUA);
    if (rc < 0 && r->rc == 0) {
        r->rc = rc;
        rc = co_array_fail(a, r->m) < 0 ? rc : 0; /* without it no record is needed there */
        if (rc == 0)
            r->rc = 0;
    }
    for (t = first; t; t = first) {
        first = t->next_unwritten;
        wake_ticket(t, rc);
    }
}

/* The first that comes writes, also for those that come meanwhile; then the next one does. */
static int co_write_ticket(void *arg)
{
    struct log_ticket *t = arg;
    struct log_ring *r = t->ring;
    struct raid_array *a = t->a;
    if (r->writing) {
        t->co = co_self();
        while (!t->done && !t->leads)
            co_suspend();
    }
    if (t->done)
        return t->rc;
    r->writing = true;
    t->co = NULL;
    while (!t->done)
        co_write_records(a, r);
    r->writing = false;
    if (r->unwritten) {
        r->writing = true; /* for it */
        r->unwritten->leads = true;
        if (r->unwritten->co)
            co_wake(r->unwritten->co);
    }
    return t->rc;
}

/* --- strips and marks --------------------------------------------------------------------------
 */

/* A record that is to be made. */
struct wanted {
    const struct row_strip *s; /* NULL: a mark */
    uint64_t offset;           /* in the members' data */
    unsigned rows;             /* but those whose parity is where that of others is */
    uint64_t contents, marked; /* bytes */
    struct log_record_disk *header;
    uint64_t header_room;
};

static void add_ring_of(struct raid_array *a, uint32_t role, struct log_hold *h)
{
    struct raid_member *m = role == RAID_NO_DISK ? NULL : array_writable(a, role);
    if (!m || !m->log)
        return;
    for (unsigned i = 0; i < h->count; i++)
        if (h->ticket[i].ring == m->log)
            return;
    assert(h->count < h->room);
    h->ticket[h->count++] = (struct log_ticket){.ring = m->log, .a = a};
}

/* The rings of the members that are to have the record: those with parity of its rows. */
static void find_rings(struct raid_array *a, const struct wanted *w, struct log_hold *h)
{
    uint64_t first = w->offset / a->shape.chunk;
    h->count = 0;
    for (unsigned n = 0; n < w->rows; n++) {
        struct raid_row row = raid_row(&a->shape, first + n);
        add_ring_of(a, row.p, h);
        add_ring_of(a, row.q, h);
    }
}

/* Room in all of them at the same time: nobody waits who has some. */
static int co_find_room(struct raid_array *a, const struct wanted *w, uint64_t bytes,
                        struct log_hold *h)
{
    for (;;) {
        unsigned with_room = 0;
        find_rings(a, w, h);
        for (unsigned i = 0; i < h->count; i++) {
            if (h->ticket[i].ring->rc || !has_room(a->log, h->ticket[i].ring, bytes)) {
                TRY(co_trim(a, h->ticket[i].ring));
                break;
            }
            with_room++;
        }
        if (with_room == h->count)
            return 0;
    }
}

static void put_rings(struct log_record_disk *r, const struct log_hold *h)
{
    for (unsigned i = 0; i < h->count; i++)
        put_entry(r, h->ticket[i].ring->number, 0, 0, LOG_RING);
}

static int get_headers(struct log_hold *h, uint64_t header_bytes)
{
    for (unsigned i = 0; i < h->count; i++) {
        h->ticket[i].header = buf_get(header_bytes);
        if (h->ticket[i].header)
            continue;
        while (i-- > 0)
            buf_put(h->ticket[i].header, header_bytes);
        h->count = 0;
        return -ENOMEM;
    }
    return 0;
}

static int co_write_tickets(struct log_hold *h)
{
    struct co_group g;
    if (h->count == 1)
        return co_write_ticket(&h->ticket[0]);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < h->count; i++)
        co_group_start(&g, co_write_ticket, &h->ticket[i]);
    return co_group_wait(&g);
}

/* That rows which follow each other can have their parity on. */
static unsigned rings_most(const struct raid_array *a, unsigned rows)
{
    return MIN(2 * rows, a->shape.disks);
}

static int co_log(struct raid_array *a, const struct wanted *w, struct log_hold *h)
{
    h->room = rings_most(a, w->rows);
    h->ticket = buf_get(h->room * sizeof(*h->ticket));
    int rc = h->ticket ? co_find_room(a, w, w->header_room + w->contents, h) : -ENOMEM;
    if (rc < 0)
        h->count = 0;
    put_rings(w->header, h);
    uint64_t used = log_header_bytes(le32_get(w->header->count));
    if (rc == 0)
        rc = get_headers(h, used);
    for (unsigned i = 0; i < h->count; i++) {
        h->ticket[i].s = w->s;
        h->ticket[i].bytes = used + w->contents;
        h->ticket[i].marked = w->marked;
        take_place(a, &h->ticket[i], (const uint8_t *)w->header, used);
    }
    a->log->order++;
    if (rc == 0)
        rc = co_write_tickets(h);
    if (rc < 0)
        log_end(a, h);
    return rc;
}

static int get_header(const struct raid_array *a, struct wanted *w, unsigned entries)
{
    w->header_room = log_header_bytes(entries + rings_most(a, w->rows));
    w->header = buf_get(w->header_room);
    if (!w->header)
        return -ENOMEM;
    memset(w->header, 0, w->header_room);
    memcpy(w->header->tag, LOG_TAG, sizeof(w->header->tag));
    return 0;
}

int co_log_strip(const struct row_strip *s, struct log_hold *h)
{
    struct wanted w = {.s = s, .offset = s->offset, .rows = 1};
    *h = (struct log_hold){0};
    if (!s->a->log)
        return 0;
    TRY(get_header(s->a, &w, s->a->shape.disks));
    w.contents = put_strip(s, w.header);
    int rc = co_log(s->a, &w, h);
    buf_put(w.header, w.header_room);
    return rc;
}

int co_log_mark(struct raid_array *a, uint64_t offset, uint64_t bytes, struct log_hold *h)
{
    uint64_t rows = (offset % a->shape.chunk + bytes - 1) / a->shape.chunk + 1;
    struct wanted w = {
        .offset = offset, .rows = (unsigned)MIN(rows, a->shape.disks), .marked = bytes};
    *h = (struct log_hold){0};
    if (!a->log)
        return 0;
    TRY(get_header(a, &w, 1));
    put_entry(w.header, offset, bytes, 0, LOG_MARK);
    int rc = co_log(a, &w, h);
    buf_put(w.header, w.header_room);
    return rc;
}

void log_end(struct raid_array *a, struct log_hold *h)
{
    for (unsigned i = 0; i < h->count; i++) {
        struct log_ticket *t = &h->ticket[i];
        struct log_ring *r = t->ring;
        const struct log_record_disk *head = (const struct log_record_disk *)t->header;
        *(t->prev ? &t->prev->next : &r->first) = t->next;
        *(t->next ? &t->next->prev : &r->last) = t->prev;
        buf_put(t->header, log_header_bytes(le32_get(head->count)));
    }
    if (h->count)
        co_queue_wake_all(&a->log->room);
    buf_put(h->ticket, h->room * sizeof(*h->ticket));
    *h = (struct log_hold){0};
}

/* --- opening -----------------------------------------------------------------------------------
 */

static bool wants_log(const struct raid_array *a)
{
    unsigned own = MD_JOURNAL | MD_PPL | MD_MULTIPLE_PPLS;
    return a->super && !(a->super->features & own) &&
           (a->super->version != MD_DM_RAID || a->super->events < MD_BITMAP_EVENTS / 2);
}

bool log_has_no_room(const struct raid_array *a)
{
    return wants_log(a) && a->dev->open_flags & BLK_OPEN_WRITE && a->engine == &raid_row_engine &&
           !a->log;
}

static int add_rings(struct raid_array *a, bool *all)
{
    *all = true;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->state == MEMBER_OUT || m->state == MEMBER_SPARE)
            continue;
        TRY(add_ring(m));
        *all &= m->log != NULL;
    }
    return 0;
}

int co_log_open(struct raid_array *a, struct blk_error *e)
{
    bool all, replayed = false;
    if (!wants_log(a))
        return 0;
    a->log = mem_zalloc(sizeof(*a->log));
    if (!a->log || add_rings(a, &all) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    a->log->marked_most = LOG_MARKED;
    host_random(a->dev->host, &a->log->session, sizeof(a->log->session));
    a->log->session |= 1; /* 0 is none */
    if (!all || log_widest(a) == 0) {
        log_close(a);
        return 0;
    }
    if (!a->was_dirty)
        return 0;
    TRY(co_log_replay(a, &replayed, e));
    if (!replayed)
        return 0;
    a->was_dirty = false;
    a->super->resync_offset = UINT64_MAX;
    int rc = co_array_write_supers(a);
    return rc < 0 ? err_errno(e, rc,
                              "the superblocks cannot be written after the stripe log was replayed")
                  : 0;
}

int co_log_empty(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        struct log_ring *r = a->members[i].log;
        if (r && a->members[i].state != MEMBER_OUT)
            TRY(co_move_tail(a, r, tail_of(a->log, r)));
    }
    return 0;
}

void log_close(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        mem_free(a->members[i].log);
        a->members[i].log = NULL;
    }
    mem_free(a->log);
    a->log = NULL;
}

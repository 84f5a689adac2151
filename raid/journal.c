/* SPDX-License-Identifier: BSD-3-Clause */
/* journal.c - the journal, written: in write-through mode, as Linux has it by default.
 *
 * Order:
 *  1. When the array is opened to be written, what there is is replayed (journal_replay.c). Before
 *     the first write a meta block that describes nothing begins a new chain of records, durably;
 *     then superblocks say that the tail is there, and that who is missing is out. They go on
 * saying clean, if parity was right: who comes next replays.
 *  2. A strip's data and parity are durable in the journal (FUA; one write for all that wait), and
 *     all records before it, before the first block of it is written in place. Parity is there even
 *     if its member is not.
 *  3. Room is used again when the strips of the records there have been written in place, then all
 *     members flushed, then the journal's superblock says that the tail is behind.
 *  4. A record that could not be written leaves a gap that nobody reads over: nothing is written
 * any more until all is in place and flushed, and a new chain has begun.
 *  5. At closing all is in place and flushed; then a new chain begins.
 * A new chain has much higher numbers, so that no older record can be taken for one of it. */
#include "raid/journal.h"

#include "block/worker.h"

#define SECTOR 512

/* --- chains ------------------------------------------------------------------------------------
 */

/* A tail is told by the journal's own superblock; the others need not know. */
static int co_tell_tail(struct raid_array *a, uint64_t tail)
{
    struct raid_journal *j = a->journal;
    struct md_super *s = j->m->super;
    assert_held(&a->state_lock);
    s->recovery_offset = tail % j->blocks * JOURNAL_BLOCK;
    md_super_build(s);
    uint64_t bytes = md_super_bytes(s, MAX(j->m->dev->limits.request_align, SECTOR));
    TRY(co_blk_write_buf(j->m->dev, s->super_offset, s->raw, bytes, BLK_FUA));
    j->tail = tail;
    return 0;
}

static struct journal_meta_disk *start_meta(struct raid_journal *j, uint8_t *block, uint64_t at)
{
    struct journal_meta_disk *m = (struct journal_meta_disk *)block;
    memset(m, 0, sizeof(*m));
    m->magic = le32_of(JOURNAL_MAGIC);
    m->version = 1;
    m->bytes = le32_of(JOURNAL_HEAD);
    m->position = le64_of(at % j->blocks * (JOURNAL_BLOCK / SECTOR));
    m->sequence = le64_of(j->sequence++);
    return m;
}

int co_journal_begin(struct raid_array *a)
{
    struct raid_journal *j = a->journal;
    assert(!j->first && !j->unwritten);
    uint8_t *block = buf_get(JOURNAL_BLOCK);
    if (!block)
        return -ENOMEM;
    j->sequence += JOURNAL_JUMP;
    journal_seal(start_meta(j, block, j->next), j->seed);
    int rc = co_blk_write_buf(j->m->dev, j->start + j->next % j->blocks * JOURNAL_BLOCK, block,
                              JOURNAL_BLOCK, BLK_FUA);
    buf_put(block, JOURNAL_BLOCK);
    TRY(rc);
    j->chain = j->newest = j->next++;
    j->m->super->recovery_offset = j->chain % j->blocks * JOURNAL_BLOCK;
    return 0;
}

void journal_begun(struct raid_journal *j)
{
    j->tail = j->chain;
    j->rc = 0;
}

/* All is in place: nothing in the journal counts any more. */
static int co_begin_anew(struct raid_array *a)
{
    TRY(co_array_flush(a));
    with_lock(&a->state_lock);
    TRY(co_journal_begin(a));
    TRY(co_tell_tail(a, a->journal->chain));
    journal_begun(a->journal);
    return 0;
}

int co_journal_empty(struct raid_array *a)
{
    return a->journal && a->marked_dirty ? co_begin_anew(a) : 0;
}

/* --- room --------------------------------------------------------------------------------------
 */

/* Of a long ring not all is used at once: who opens the array has to read all of it. What is
 * replayed has all the room that others left. */
static bool has_room(const struct raid_journal *j, uint64_t blocks)
{
    uint64_t most = j->replaying ? j->blocks : MIN(j->blocks, JOURNAL_LIVE_MOST);
    return j->next + blocks - j->tail < most;
}

/* Everything older than the oldest strip in flight is in place; flushed, its room is free. There
 * has to be a record at the tail, durably: where nothing is in flight the newest one stays. */
static int co_make_room(struct raid_array *a)
{
    struct raid_journal *j = a->journal;
    uint64_t tail = j->first ? j->first->at : j->newest;
    bool is_there = !j->first || j->first->done;
    if (j->replaying)
        return -ENOSPC;
    if (j->trimming || (j->rc ? j->first != NULL : tail == j->tail || !is_there)) {
        co_queue_wait(&j->room);
        return 0;
    }
    int rc;
    j->trimming = true;
    j->trims++;
    if (j->rc) {
        rc = co_begin_anew(a);
    } else {
        rc = co_array_flush(a); /* which fails while a strip is torn: its record stays */
        if (rc == 0) {
            with_lock(&a->state_lock);
            rc = co_tell_tail(a, tail);
        }
    }
    j->trimming = false;
    co_queue_wake_all(&j->room);
    return rc;
}

/* --- records -----------------------------------------------------------------------------------
 */

static unsigned written_data(const struct row_strip *s)
{
    unsigned count = 0;
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        count += s->block[raid_row_disk(&s->row, i)].written;
    return count;
}

/* Bytes of payloads that a stripe takes, with that many pages of data. */
static unsigned stripe_payload(const struct raid_array *a, unsigned data)
{
    const unsigned head = sizeof(struct journal_payload_disk), crc = sizeof(le32);
    return data * (head + crc) + head + a->shape.level->parities * crc;
}

static unsigned columns_of(const struct raid_array *a, unsigned data)
{
    return (unsigned)(JOURNAL_BLOCK - JOURNAL_HEAD) / stripe_payload(a, data);
}

uint64_t journal_widest(const struct raid_array *a)
{
    uint64_t disks = a->shape.disks, room = a->journal->blocks / 4;
    if (a->journal->blocks * JOURNAL_BLOCK < journal_least(a->shape.disks))
        return 0;
    return MIN(MIN(room, JOURNAL_PIECES) / (disks + 1) * ROW_PAGE, ROW_SLICE);
}

static uint8_t *contents_of(const struct journal_hold *h, uint32_t role)
{
    uint8_t *fresh = h->s->block[role].fresh;
    return fresh ? fresh : h->zeroes;
}

struct record {
    struct journal_hold *h;
    struct journal_meta_disk *meta;
    uint64_t first, end; /* of its bytes, in the strip's columns */
};

static struct record record_of(struct journal_hold *h, unsigned i)
{
    uint64_t bytes = h->columns * JOURNAL_BLOCK;
    return (struct record){h, &h->meta[i], i * bytes, MIN((i + 1) * bytes, h->s->bytes)};
}

static struct journal_payload_disk *add_payload(const struct record *r, enum journal_kind kind,
                                                unsigned blocks, uint64_t location)
{
    unsigned at = le32_get(r->meta->bytes);
    struct journal_payload_disk *p = (void *)((uint8_t *)r->meta + at);
    p->kind = le16_of(kind);
    p->sectors = le32_of(blocks * (JOURNAL_BLOCK / SECTOR));
    p->location = le64_of(location / SECTOR);
    r->meta->bytes = le32_of((uint32_t)(at + sizeof(*p) + blocks * sizeof(p->crc[0])));
    return p;
}

static le32 page_crc(const struct record *r, uint32_t role, uint64_t at)
{
    return le32_of(journal_crc(r->h->journal->seed, contents_of(r->h, role) + at, JOURNAL_BLOCK));
}

/* Data, one chunk after the other, then parity. */
static void describe(const struct record *r)
{
    const struct row_strip *s = r->h->s;
    const struct raid_shape *shape = &s->a->shape;
    uint64_t row = s->offset / shape->chunk * shape->data_disks * shape->chunk;
    for (unsigned i = 0; i < shape->data_disks; i++) {
        uint32_t role = raid_row_disk(&s->row, i);
        uint64_t chunk = row + i * shape->chunk + s->offset % shape->chunk;
        for (uint64_t at = r->first; at < r->end && s->block[role].written; at += JOURNAL_BLOCK)
            add_payload(r, JOURNAL_DATA, 1, chunk + at)->crc[0] = page_crc(r, role, at);
    }
    for (uint64_t at = r->first; at < r->end; at += JOURNAL_BLOCK) {
        struct journal_payload_disk *p =
            add_payload(r, JOURNAL_PARITY, shape->level->parities, s->offset + at);
        p->crc[0] = page_crc(r, s->row.p, at);
        if (s->row.q != RAID_NO_DISK)
            p->crc[1] = page_crc(r, s->row.q, at);
    }
}

static void add_piece(struct iovec *iov, unsigned *n, const struct record *r, uint32_t role,
                      uint64_t at, uint64_t bytes)
{
    iov[(*n)++] = (struct iovec){contents_of(r->h, role) + at, bytes};
}

/* In the order of what describes them. */
static void add_pieces(const struct record *r, struct iovec *iov, unsigned *n)
{
    const struct row_strip *s = r->h->s;
    iov[(*n)++] = (struct iovec){r->meta, JOURNAL_BLOCK};
    for (unsigned i = 0; i < s->a->shape.data_disks; i++) {
        uint32_t role = raid_row_disk(&s->row, i);
        if (s->block[role].written)
            add_piece(iov, n, r, role, r->first, r->end - r->first);
    }
    uint64_t step = s->row.q == RAID_NO_DISK ? r->end - r->first : JOURNAL_BLOCK;
    for (uint64_t at = r->first; at < r->end; at += step) {
        add_piece(iov, n, r, s->row.p, at, step);
        if (s->row.q != RAID_NO_DISK)
            add_piece(iov, n, r, s->row.q, at, step);
    }
}

static unsigned pieces_of(const struct journal_hold *h)
{
    unsigned parity =
        h->s->row.q == RAID_NO_DISK ? h->metas : (unsigned)(2 * h->s->bytes / JOURNAL_BLOCK);
    return h->metas * (1 + written_data(h->s)) + parity;
}

/* --- writing them ------------------------------------------------------------------------------
 */

/* What wraps around goes to the beginning. */
static int co_put_records(const struct raid_journal *j, uint64_t at, const struct vec *v)
{
    uint64_t place = at % j->blocks * JOURNAL_BLOCK;
    uint64_t n = MIN(v->bytes, j->blocks * JOURNAL_BLOCK - place);
    struct vec part = vec_slice(v, 0, n);
    TRY(co_blk_write(j->m->dev, j->start + place, &part, BLK_FUA));
    if (n == v->bytes)
        return 0;
    part = vec_slice(v, n, v->bytes - n);
    return co_blk_write(j->m->dev, j->start, &part, BLK_FUA);
}

/* Of as many strips of those that wait as one write has room for. */
static void co_write_records(struct raid_journal *j)
{
    struct iovec iov[JOURNAL_PIECES];
    unsigned count = 0;
    struct journal_hold *first = j->unwritten, *h = first;
    struct vec v = {.iov = iov};
    for (; h && count + pieces_of(h) <= JOURNAL_PIECES; h = h->next_unwritten) {
        for (unsigned i = 0; i < h->metas; i++) {
            struct record r = record_of(h, i);
            add_pieces(&r, iov, &count);
        }
        v.bytes += h->blocks * JOURNAL_BLOCK;
    }
    assert(h != first);
    j->unwritten = h; /* others come while these are written */
    int rc = j->rc ? j->rc : co_put_records(j, first->at, &v);
    j->rc = rc;
    j->writes++;
    for (; first != h; first = first->next_unwritten) {
        first->rc = rc;
        first->done = true;
    }
}

static int co_write_own(struct journal_hold *h)
{
    with_lock(&h->journal->write_lock);
    while (!h->done) /* who had the lock before may have written it */
        co_write_records(h->journal);
    return h->rc;
}

/* --- strips ------------------------------------------------------------------------------------
 */

static bool has_zeroes(const struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (s->block[d].written && !s->block[d].fresh)
            return true;
    return false;
}

static void drop_memory(struct journal_hold *h)
{
    buf_put(h->meta, h->metas * sizeof(*h->meta));
    buf_put(h->zeroes, h->s->bytes);
}

static int get_memory(struct journal_hold *h)
{
    bool zeroes = has_zeroes(h->s);
    h->meta = buf_get(h->metas * sizeof(*h->meta));
    h->zeroes = zeroes ? buf_get(h->s->bytes) : NULL;
    if (!h->meta || (zeroes && !h->zeroes)) {
        drop_memory(h);
        return -ENOMEM;
    }
    if (zeroes)
        memset(h->zeroes, 0, h->s->bytes);
    return 0;
}

/* There is room: no waiting from here on until it is in the queue. */
static void take_place(struct raid_journal *j, struct journal_hold *h)
{
    h->at = j->next;
    for (unsigned i = 0; i < h->metas; i++) {
        struct record r = record_of(h, i);
        start_meta(j, (uint8_t *)r.meta, j->next);
        j->newest = j->next;
        describe(&r);
        journal_seal(r.meta, j->seed);
        uint64_t columns = (r.end - r.first) / JOURNAL_BLOCK;
        j->next += 1 + columns * (written_data(h->s) + h->s->a->shape.level->parities);
    }
    assert(j->next == h->at + h->blocks);
    h->prev = j->last;
    *(j->last ? &j->last->next : &j->first) = h;
    j->last = h;
    *(j->unwritten ? &j->end->next_unwritten : &j->unwritten) = h;
    j->end = h;
    j->records++;
}

int co_journal_strip(const struct row_strip *s, struct journal_hold *h)
{
    struct raid_journal *j = s->a->journal;
    unsigned data = written_data(s);
    uint64_t columns = s->bytes / JOURNAL_BLOCK;
    *h = (struct journal_hold){.s = s};
    if (!j)
        return 0;
    h->columns = columns_of(s->a, data);
    h->metas = (unsigned)div_up(columns, h->columns);
    h->blocks = h->metas + columns * (data + s->a->shape.level->parities);
    TRY(get_memory(h));
    int rc = 0;
    while (rc == 0 && (j->rc || !has_room(j, h->blocks)))
        rc = co_make_room(s->a);
    if (rc < 0) {
        drop_memory(h);
        return rc;
    }
    h->journal = j;
    take_place(j, h);
    rc = co_write_own(h);
    if (rc < 0)
        journal_end(h);
    return rc;
}

void journal_end(struct journal_hold *h)
{
    struct raid_journal *j = h->journal;
    if (!j)
        return;
    *(h->prev ? &h->prev->next : &j->first) = h->next;
    *(h->next ? &h->next->prev : &j->last) = h->prev;
    drop_memory(h);
    h->journal = NULL;
    co_queue_wake_all(&j->room);
}

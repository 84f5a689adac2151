/* SPDX-License-Identifier: BSD-3-Clause */
/* ppl_replay.c - the partial parity log, read: parity of what was being changed is made anew from
 * the data that is in place and from the partial parity, where all of that data is there. Nothing
 * of it is trusted: places outside of a row are passed over, and count as a log that is not whole.
 *
 * Order: parity is written; all members are flushed; then superblocks may say clean. Interrupted
 * anywhere, it is done again. */
#include "block/crc32c.h"
#include "block/worker.h"
#include "raid/ppl.h"

#define SECTOR 512

struct replay {
    struct raid_array *a;
    struct raid_member *m;     /* whose log it is */
    struct ppl_head_disk head; /* the newest */
    uint64_t at;               /* on the device: where its partial parity begins */
    uint64_t end;              /* of the area */
    unsigned entries, bad;     /* replayed; not whole */
    uint8_t *sum, *block;      /* a page each */
};

/* --- headers -----------------------------------------------------------------------------------
 */

static bool is_whole(const struct replay *d, const struct ppl_head_disk *h)
{
    return le32_get(h->signature) == d->a->ppl->signature && le32_get(h->count) <= PPL_ENTRIES &&
           le32_get(h->crc) == crc32c_but(h, sizeof(*h), offsetof(struct ppl_head_disk, crc));
}

static uint64_t partial_bytes(const struct ppl_head_disk *h)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < le32_get(h->count); i++)
        sum += le32_get(h->entry[i].partial_bytes);
    return sum;
}

/* The newest header; where there can be several they lie behind each other. *found: there is one.
 */
static int co_find_newest(struct replay *d, bool *found)
{
    const struct md_super *s = d->m->super;
    uint64_t at = d->m->ppl->start;
    auto_free struct ppl_head_disk *h = mem_aligned(sizeof(*h));
    *found = false;
    d->end = at + s->ppl_bytes;
    if (!h)
        return -ENOMEM;
    while (at + PPL_HEAD <= d->end) {
        int rc = co_blk_read_buf(d->m->dev, at, h, sizeof(*h));
        if (rc < 0 && !*found)
            return rc;
        if (rc < 0 || !is_whole(d, h) ||
            (*found && le64_get(h->generation) < le64_get(d->head.generation)))
            return 0;
        *found = true;
        d->head = *h;
        d->at = at + PPL_HEAD;
        at = d->at + partial_bytes(h);
        if (!(s->features & MD_MULTIPLE_PPLS))
            return 0;
    }
    return 0;
}

/* --- entries -----------------------------------------------------------------------------------
 */

bool ppl_span_of(const struct raid_shape *shape, const struct ppl_entry_disk *e, uint32_t role,
                 struct ppl_span *p)
{
    uint64_t partial = le32_get(e->partial_bytes), data = le32_get(e->data_bytes);
    if (!mul_u64(le64_get(e->sector), SECTOR, &p->first) || data == 0 ||
        !range_fits(p->first, data, shape->size) || (partial | data) % SECTOR)
        return false;
    p->chunks = partial && partial < shape->chunk ? (unsigned)(data / partial) : shape->data_disks;
    p->columns = partial < shape->chunk ? data / MAX(p->chunks, 1) : shape->chunk;
    p->last = partial < shape->chunk ? p->first + (p->chunks - 1) * shape->chunk + p->columns
                                     : p->first + data;
    uint64_t index = p->first / shape->chunk;
    p->row = raid_row(shape, index / shape->data_disks);
    p->index = (unsigned)(index % shape->data_disks);
    p->offset = index / shape->data_disks * shape->chunk + p->first % shape->chunk;
    uint64_t row_end = (index / shape->data_disks + 1) * shape->data_disks * shape->chunk;
    return p->chunks > 0 && p->chunks <= shape->data_disks && p->columns > 0 &&
           p->columns <= shape->chunk - p->first % shape->chunk && p->last <= row_end &&
           (partial == 0 || partial >= p->columns) && p->row.p == role;
}

/* The sum of what is in place of the data that was changed, @bytes of it from column @at on; 0:
 * some of it is not there. */
static int co_sum_data(struct replay *d, const struct ppl_span *p, uint64_t at, uint64_t bytes)
{
    const struct raid_shape *shape = &d->a->shape;
    for (unsigned i = 0; i < p->chunks && p->first + at + i * shape->chunk < p->last; i++) {
        uint32_t role = raid_row_disk(&p->row, p->index + i);
        struct member_io io = {.m = array_readable(d->a, role, p->offset + at, bytes),
                               .op = MEMBER_READ,
                               .offset = p->offset + at,
                               .bytes = bytes,
                               .vec = VEC_BUF(d->block, bytes)};
        if (!io.m)
            return 0;
        co_member_io(&io);
        TRY(io.rc);
        parity_add(d->sum, d->block, 1, bytes);
    }
    return 1;
}

static int co_put_parity(struct replay *d, uint64_t offset, uint64_t bytes)
{
    struct member_io io = {.m = d->m,
                           .op = MEMBER_WRITE,
                           .offset = offset,
                           .bytes = bytes,
                           .vec = VEC_BUF(d->sum, bytes)};
    co_member_io(&io);
    if (io.rc == 0 || io.rc == -ENOMEM)
        return io.rc;
    return co_array_miss(d->a, &io, rows_enough_without(d->a, d->m->role, offset, bytes));
}

static int co_replay_span(struct replay *d, const struct ppl_span *p, uint64_t partial)
{
    uint64_t step = (p->offset | p->columns) % ROW_PAGE ? SECTOR : ROW_PAGE;
    for (uint64_t at = 0; at < p->columns && d->m->state != MEMBER_OUT; at += step) {
        memset(d->sum, 0, step);
        if (partial)
            TRY(co_blk_read_buf(d->m->dev, d->at + at, d->sum, step));
        int rc = co_sum_data(d, p, at, step);
        if (rc > 0)
            rc = co_put_parity(d, p->offset + at, step);
        TRY(rc);
    }
    return 0;
}

/* Whether the partial parity at d->at is what was written. */
static int co_check_partial(struct replay *d, const struct ppl_entry_disk *e, bool *whole)
{
    uint32_t crc = 0;
    uint64_t left = le32_get(e->partial_bytes), n;
    *whole = range_fits(d->at, left, d->end);
    for (uint64_t at = d->at; *whole && left; at += n, left -= n) {
        n = MIN(left, ROW_PAGE);
        TRY(co_blk_read_buf(d->m->dev, at, d->block, n));
        crc = crc32c(crc, d->block, n);
    }
    *whole &= crc == le32_get(e->crc);
    return 0;
}

static int co_replay_log(struct replay *d)
{
    bool whole;
    TRY(co_find_newest(d, &whole));
    for (unsigned i = 0; whole && i < le32_get(d->head.count); i++) {
        const struct ppl_entry_disk *e = &d->head.entry[i];
        struct ppl_span p;
        bool good;
        TRY(co_check_partial(d, e, &good));
        if (good && ppl_span_of(&d->a->shape, e, d->m->role, &p)) {
            TRY(co_replay_span(d, &p, le32_get(e->partial_bytes)));
            d->entries++;
        } else {
            d->bad++;
        }
        d->at += le32_get(e->partial_bytes);
    }
    return 0;
}

/* Level 5 that was never in sync is dirty too, from somewhere else than the beginning. */
int co_ppl_replay(struct raid_array *a, bool *clean)
{
    auto_free struct replay *d = mem_aligned(sizeof(*d));
    auto_free uint8_t *pages = mem_aligned(2 * ROW_PAGE);
    int rc = 0;
    if (!d || !pages)
        return -ENOMEM;
    memset(d, 0, sizeof(*d));
    d->a = a;
    d->sum = pages;
    d->block = pages + ROW_PAGE;
    for (unsigned role = 0; role < a->shape.disks && rc == 0; role++) {
        d->m = a->by_role[role];
        if (d->m)
            rc = co_replay_log(d);
    }
    TRY(rc);
    TRY(co_array_flush(a));
    *clean = a->super->resync_offset == 0 && d->entries > 0 && d->bad == 0;
    return 0;
}

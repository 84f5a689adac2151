/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_write.c - a strip that changes.
 *
 * Order:
 *  1. The strip is locked; what is needed of its old contents is read, or got back.
 *  2. New contents and new parity are computed.
 *  3. What will be written is durable in the stripe log (log.h), or that a whole row will be; or
 *     what the array has instead is (ppl.h, journal.h).
 *  4. Data and parity are written side by side. A member that fails is put out, durably, before the
 *     write is answered (A2); what it missed is in the parity.
 *
 * Of the two ways to new parity the one that reads less is taken: from the old parity and the old
 * contents of what changes, or from the contents of what does not change. Where parity may be
 * wrong, since the array went down while it was written to, it is the second. */
#include "raid/journal.h"
#include "raid/log.h"
#include "raid/ppl.h"

struct change {
    struct row_strip s;
    struct row_batch *b;
    uint64_t at;       /* columns, in the chunk */
    bool from_changes; /* parity from what changes; else from all data */
};

static struct row_block *data_block(struct change *c, unsigned i)
{
    return &c->s.block[raid_row_disk(&c->s.row, i)];
}

/* P and Q as far as there is somebody who has them, or a journal that is to; NULL: none. */
static struct row_block *parity_block(struct change *c, unsigned i)
{
    uint32_t role = i == 0 ? c->s.row.p : c->s.row.q;
    if (role == RAID_NO_DISK || (!array_writable(c->s.a, role) && !c->s.a->journal))
        return NULL;
    return &c->s.block[role];
}

static bool is_readable(const struct change *c, const struct row_block *b)
{
    return array_readable(c->s.a, (uint32_t)(b - c->s.block), c->s.offset, c->s.bytes) != NULL;
}

/* --- what to read ------------------------------------------------------------------------------
 */

struct need {
    unsigned reads;
    bool possible; /* without getting back what is lost */
};

static void need_block(const struct change *c, struct need *n, const struct row_block *b)
{
    n->reads++;
    n->possible &= is_readable(c, b);
}

static bool parity_may_be_wrong(const struct change *c)
{
    const struct raid_array *a = c->s.a;
    return a->was_dirty && c->s.offset + c->s.bytes > a->resync_at;
}

/* Marks what is written, and decides. */
static void plan(struct change *c)
{
    struct need changes = {.possible = !parity_may_be_wrong(c)}, rest = {.possible = true};
    bool has_parity = parity_block(c, 0) || parity_block(c, 1);
    for (unsigned i = 0; i < c->s.a->shape.data_disks; i++) {
        struct row_block *b = data_block(c, i);
        enum row_cover cover = row_cover(c->b, i, c->at, c->s.bytes);
        b->written = cover != ROW_UNTOUCHED;
        b->partly = cover == ROW_TOUCHED;
        if (b->written)
            need_block(c, &changes, b);
        if (b->partly || (has_parity && !b->written))
            need_block(c, &rest, b);
    }
    for (unsigned k = 0; k < 2; k++)
        if (parity_block(c, k))
            need_block(c, &changes, parity_block(c, k));
    c->from_changes =
        has_parity && changes.possible && (!rest.possible || changes.reads < rest.reads);
    for (unsigned i = 0; i < c->s.a->shape.data_disks; i++) {
        struct row_block *b = data_block(c, i);
        b->wanted = b->partly || (has_parity && b->written == c->from_changes);
    }
    for (unsigned k = 0; k < 2; k++)
        if (parity_block(c, k)) {
            parity_block(c, k)->wanted = c->from_changes;
            parity_block(c, k)->written = true;
        }
}

/* --- new contents ------------------------------------------------------------------------------
 */

static void take_parts(struct change *c, unsigned i, uint8_t *to)
{
    for (struct row_part *p = c->b->parts; p; p = p->next) {
        uint64_t in_part, in_strip, n;
        n = row_meet(c->b, p, i, c->at, c->s.bytes, &in_part, &in_strip);
        if (n == 0)
            continue;
        if (p->zero) {
            memset(to + in_strip, 0, n);
        } else {
            struct vec from = vec_slice(&p->vec, in_part, n);
            vec_to_buf(&from, to + in_strip);
        }
    }
}

static bool is_degraded(const struct raid_array *a)
{
    for (unsigned d = 0; d < a->shape.disks; d++)
        if (!array_writable(a, d))
            return true;
    return false;
}

/* Fresh contents of data: where they are, or gathered behind each other; where no member can be
 * spared, in memory of ours, which is kept if they cannot be written. */
static int take_fresh(struct change *c, unsigned i)
{
    struct row_block *b = data_block(c, i);
    if (!b->partly && c->b->parts->zero)
        return 0;
    if (!is_degraded(c->s.a))
        b->fresh = row_direct(c->b, i, c->at, c->s.bytes);
    if (b->fresh)
        return 0;
    TRY(strip_fresh(&c->s, b));
    if (b->partly)
        memcpy(b->fresh, b->old, c->s.bytes);
    take_parts(c, i, b->fresh);
    return 0;
}

/* The old contents of what changes become the difference, which goes into the old parity. */
static void parity_from_changes(struct change *c)
{
    struct row_block *p = parity_block(c, 0), *q = parity_block(c, 1);
    for (unsigned i = 0; i < c->s.a->shape.data_disks; i++) {
        struct row_block *b = data_block(c, i);
        if (!b->written)
            continue;
        if (b->fresh)
            parity_add(b->old, b->fresh, 1, c->s.bytes);
        unsigned power = raid_row_power(&c->s.row, (uint32_t)(b - c->s.block));
        if (p)
            parity_add(p->old, b->old, 1, c->s.bytes);
        if (q)
            parity_add(q->old, b->old, parity_power(power), c->s.bytes);
    }
    if (p)
        p->fresh = p->old;
    if (q)
        q->fresh = q->old;
}

static void parity_from_all(struct change *c)
{
    uint8_t *data[PARITY_POWERS_MOST];
    unsigned only_q = PARITY_Q;
    struct parity_row row = strip_parity(&c->s, data, true);
    if (row.p)
        parity_make(&row, c->s.bytes);
    else
        parity_recover(&row, &only_q, 1, c->s.bytes);
}

static int make_parity(void *arg)
{
    struct change *c = arg;
    if (c->from_changes)
        parity_from_changes(c);
    else
        parity_from_all(c);
    return 0;
}

static bool all_zero(struct change *c)
{
    for (unsigned i = 0; i < c->s.a->shape.data_disks; i++)
        if (!data_block(c, i)->written || data_block(c, i)->fresh)
            return false;
    return true;
}

static int co_make_parity(struct change *c)
{
    bool any = false;
    if (all_zero(c)) /* and so is its parity */
        return 0;
    for (unsigned k = 0; k < 2; k++) {
        struct row_block *b = parity_block(c, k);
        any |= b != NULL;
        if (b && !c->from_changes)
            TRY(strip_fresh(&c->s, b));
    }
    if (!any)
        return 0;
    return co_rows_compute(make_parity, c, c->s.bytes * c->s.a->shape.disks);
}

/* --- the strip ---------------------------------------------------------------------------------
 */

static int co_change(struct change *c)
{
    plan(c);
    TRY(co_strip_load(&c->s));
    for (unsigned i = 0; i < c->s.a->shape.data_disks; i++)
        if (data_block(c, i)->written)
            TRY(take_fresh(c, i));
    TRY(co_make_parity(c));
    struct log_hold hold;
    struct ppl_hold ppl;
    struct journal_hold journal;
    /* What is left out here is not in the log either: after a crash nobody may count on it. */
    TRY(co_array_tell(c->s.a));
    if (c->s.a->lost) /* what was read may be older than what was written */
        return -EIO;
    TRY(co_journal_strip(&c->s, &journal));
    if (c->b->whole) /* an array has one of the three */
        TRY(co_log_mark(c->s.a, c->s.offset, c->s.bytes, &hold));
    else
        TRY(co_log_strip(&c->s, &hold));
    int rc = co_ppl_strip(&c->s, &ppl);
    if (rc == 0)
        rc = c->s.a->lost ? -EIO : co_strip_store(&c->s, c->b->flags);
    ppl_end(&ppl);
    log_end(c->s.a, &hold);
    journal_end(&journal);
    return rc;
}

int co_strip_change(struct raid_array *a, struct row_batch *b, uint64_t at, uint64_t bytes)
{
    struct change c = {.b = b, .at = at};
    TRY(co_strip_open(&c.s, a, b->row * a->shape.chunk + at, bytes, false));
    int rc = co_change(&c);
    strip_close(&c.s);
    return rc;
}

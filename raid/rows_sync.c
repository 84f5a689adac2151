/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_sync.c - levels 4, 5 and 6: parity that is made anew, members that are filled, members that
 * are compared. All of it strip by strip, each locked alone, so that writes go on beside it;
 * offsets are of the members' data. */
#include "block/worker.h"
#include "raid/rows.h"

#define SYNC_AT_ONCE 4 /* strips */

/* --- strip by strip ----------------------------------------------------------------------------
 */

struct sync {
    struct raid_array *a;
    uint64_t offset, end;
    int (*co_strip)(struct sync *y, struct row_strip *s);
    struct raid_member *member; /* of rebuild */
    bool repair;
    struct raid_scrub *found;
};

/* Where something cannot be read it is done in halves, down to a page. */
static int co_one_strip(struct sync *y, uint64_t offset, uint64_t bytes)
{
    struct row_strip s;
    TRY(co_strip_open(&s, y->a, offset, bytes, false));
    int rc = y->co_strip(y, &s);
    strip_close(&s);
    if (rc != -EIO || bytes == ROW_PAGE)
        return rc;
    uint64_t half = align_up(bytes / 2, ROW_PAGE);
    TRY(co_one_strip(y, offset, half));
    return co_one_strip(y, offset + half, bytes - half);
}

static int co_strips(void *arg)
{
    struct sync *y = arg;
    while (y->offset < y->end) {
        uint64_t chunk = y->a->shape.chunk, at = y->offset;
        uint64_t bytes = MIN(MIN(ROW_SLICE, chunk - at % chunk), y->end - at);
        bytes = rows_even(y->a, at, bytes);
        y->offset += bytes;
        int rc = co_one_strip(y, at, bytes);
        if (rc < 0) {
            y->offset = y->end;
            return rc;
        }
    }
    return 0;
}

static int co_sync(struct sync *y, uint64_t offset, uint64_t bytes)
{
    struct co_group g;
    uint64_t used = align_down(y->a->shape.member, y->a->shape.chunk);
    y->offset = align_down(offset, ROW_PAGE);
    y->end = MIN(align_up(offset + bytes, ROW_PAGE), used);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < SYNC_AT_ONCE; i++)
        co_group_start(&g, co_strips, y);
    return co_group_wait(&g);
}

/* --- resync ------------------------------------------------------------------------------------
 */

/* Some of it is only on lists of bad blocks: whatever it was, it cannot be read. */
static bool is_bad(const struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (array_is_bad(s->a, d, s->offset, s->bytes))
            return true;
    return false;
}

static int co_parity_anew(struct sync *y, struct row_strip *s)
{
    (void)y;
    uint8_t *data[PARITY_POWERS_MOST];
    struct row_block *p = &s->block[s->row.p];
    struct row_block *q = s->row.q == RAID_NO_DISK ? NULL : &s->block[s->row.q];
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        s->block[raid_row_disk(&s->row, i)].wanted = true;
    int rc = co_strip_load(s);
    if (rc < 0)
        return rc == -EIO && s->bytes == ROW_PAGE && is_bad(s) ? 0 : rc; /* it is gone */
    TRY(strip_fresh(s, p));
    p->written = true;
    if (q) {
        TRY(strip_fresh(s, q));
        q->written = true;
    }
    struct parity_row row = strip_parity(s, data, true);
    parity_make(&row, s->bytes);
    return co_strip_store(s, 0);
}

int co_rows_resync(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    struct sync y = {.a = a, .co_strip = co_parity_anew};
    return co_sync(&y, offset, bytes);
}

/* --- recovery ----------------------------------------------------------------------------------
 */

/* What the others cannot bring back is bad on the new member too, if it has a list to say so. */
static int co_is_lost(struct row_strip *s, struct raid_member *m)
{
    struct member_io lost = {
        .m = m, .op = MEMBER_ZERO, .offset = s->offset, .bytes = s->bytes, .rc = -EIO};
    return m->state != MEMBER_OUT && m->bad ? co_array_miss(s->a, &lost, true) : -EIO;
}

static int co_fill(struct sync *y, struct row_strip *s)
{
    struct row_block *b = &s->block[y->member->role];
    b->wanted = true;
    int rc = co_strip_load(s);
    if (rc == -EIO && s->bytes == ROW_PAGE)
        return co_is_lost(s, y->member);
    if (rc < 0)
        return rc;
    if (y->member->replaces) /* nobody else changes */
        return co_member_put(y->member, s->offset, b->old, s->bytes);
    b->fresh = b->old;
    b->written = true;
    return co_strip_store(s, 0);
}

int co_rows_rebuild(struct raid_array *a, struct raid_member *member, uint64_t offset,
                    uint64_t bytes)
{
    assert(member->role < a->shape.disks);
    struct sync y = {.a = a, .co_strip = co_fill, .member = member};
    return co_sync(&y, offset, bytes);
}

/* --- scrub -------------------------------------------------------------------------------------
 */

struct comparison {
    const struct row_strip *s;
    struct parity_row page; /* that is looked at */
    uint8_t *data[PARITY_POWERS_MOST];
    uint64_t at; /* of the page, in the strip */
    uint8_t *scratch;
    unsigned suspect;
};

static void turn_to_page(struct comparison *c)
{
    c->page = strip_parity(c->s, c->data, false);
    for (unsigned i = 0; i < c->page.powers; i++)
        if (c->data[i])
            c->data[i] += c->at;
    c->page.p += c->at;
    if (c->page.q)
        c->page.q += c->at;
}

/* The next page from c->at on that is wrong; 0: there is none. */
static int find_wrong_page(void *arg)
{
    struct comparison *c = arg;
    for (; c->at < c->s->bytes; c->at += ROW_PAGE) {
        turn_to_page(c);
        if (!parity_check(&c->page, ROW_PAGE, c->scratch, &c->suspect))
            return 1;
    }
    return 0;
}

/* The one member that can have the wrong block; RAID_NO_DISK: it may be any. */
static uint32_t suspected(const struct comparison *c)
{
    const struct raid_row *r = &c->s->row;
    if (c->suspect == PARITY_P || c->suspect == PARITY_Q)
        return c->suspect == PARITY_P ? r->p : r->q;
    for (unsigned i = 0; i < r->shape->data_disks; i++)
        if (raid_row_power(r, raid_row_disk(r, i)) == c->suspect)
            return raid_row_disk(r, i);
    return RAID_NO_DISK;
}

static void to_be_written(struct row_strip *s, uint32_t role)
{
    s->block[role].fresh = s->block[role].old;
    s->block[role].written = true;
}

/* The wrong block is made from the others; where it may be any of them, parity from the data. */
static void mend_page(struct comparison *c, struct row_strip *s)
{
    uint32_t role = suspected(c);
    if (role != RAID_NO_DISK) {
        parity_recover(&c->page, &c->suspect, 1, ROW_PAGE);
        to_be_written(s, role);
        return;
    }
    parity_make(&c->page, ROW_PAGE);
    to_be_written(s, s->row.p);
    if (s->row.q != RAID_NO_DISK)
        to_be_written(s, s->row.q);
}

static bool is_whole(const struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (!array_readable(s->a, d, s->offset, s->bytes))
            return false;
    return true;
}

/* What is on lists of bad blocks is got back and written: then it is there no more. */
static int co_mend_bad(struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        s->block[d].wanted = array_is_bad(s->a, d, s->offset, s->bytes);
    int rc = co_strip_load(s);
    if (rc < 0)
        return rc == -EIO && s->bytes == ROW_PAGE ? 0 : rc;
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (array_is_bad(s->a, d, s->offset, s->bytes))
            to_be_written(s, d);
    return co_strip_store(s, 0);
}

static int co_compare(struct sync *y, struct row_strip *s)
{
    uint8_t scratch[2 * ROW_PAGE] __attribute__((aligned(PARITY_ALIGN)));
    struct comparison c = {.s = s, .scratch = scratch};
    if (!is_whole(s))
        return y->repair && is_bad(s) ? co_mend_bad(s) : 0; /* nothing is there to compare with */
    for (unsigned d = 0; d < y->a->shape.disks; d++)
        s->block[d].wanted = true;
    TRY(co_strip_load(s));
    for (; co_offload(find_wrong_page, &c) == 1; c.at += ROW_PAGE) {
        uint32_t role = suspected(&c);
        y->found->mismatches += ROW_PAGE;
        if (role != RAID_NO_DISK && y->found->by_role)
            y->found->by_role[role] += ROW_PAGE;
        if (y->repair)
            mend_page(&c, s);
    }
    return co_strip_store(s, 0);
}

int co_rows_scrub(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                  struct raid_scrub *found)
{
    struct sync y = {.a = a, .co_strip = co_compare, .repair = repair, .found = found};
    return co_sync(&y, offset, bytes);
}

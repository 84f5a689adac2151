/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_strip.c - a strip: memory for it, its lock, its contents.
 *
 * Loading goes in rounds: what is wanted is read; if something of that is lost, everything is
 * wanted that brings it back (all data, and as many parities as data is lost), until nothing new is
 * wanted.
 */
#include "block/worker.h"
#include "raid/journal.h"

#define TRIES 3 /* of a write that must not fail */

/* --- memory ------------------------------------------------------------------------------------
 */

static uint64_t strip_memory(const struct row_strip *s)
{
    return s->bytes * s->a->shape.disks;
}

static size_t blocks_memory(const struct raid_array *a)
{
    return a->shape.disks * sizeof(struct row_block);
}

int co_rows_hold(struct row_hold *h, struct raid_array *a, uint64_t offset, uint64_t bytes,
                 bool shared, uint64_t memory)
{
    struct rows *rows = a->engine_state;
    *h = (struct row_hold){.a = a, .memory = memory};
    co_range_lock(&a->writers, &h->range, offset, bytes, shared);
    while (unlikely(a->torn) && !a->lost && rows_torn(a, offset, bytes)) {
        co_range_unlock(&a->writers, &h->range);
        TRY(co_rows_mend(a));
        co_range_lock(&a->writers, &h->range, offset, bytes, shared);
    }
    while (rows->held && rows->held + memory > rows->most) /* R3 */
        co_queue_wait(&rows->room);
    rows->held += memory;
    return 0;
}

void rows_release(struct row_hold *h)
{
    struct rows *rows = h->a->engine_state;
    rows->held -= h->memory;
    co_queue_wake_all(&rows->room);
    co_range_unlock(&h->a->writers, &h->range);
}

int co_strip_open(struct row_strip *s, struct raid_array *a, uint64_t offset, uint64_t bytes,
                  bool shared)
{
    assert(bytes > 0 && bytes % ROW_PAGE == 0 && offset % ROW_PAGE == 0);
    *s = (struct row_strip){.a = a, .offset = offset, .bytes = bytes};
    s->row = raid_row(&a->shape, offset / a->shape.chunk);
    TRY(co_rows_hold(&s->hold, a, offset, bytes, shared, strip_memory(s)));
    s->block = buf_get(blocks_memory(a));
    if (!s->block) {
        rows_release(&s->hold);
        return -ENOMEM;
    }
    memset(s->block, 0, blocks_memory(a));
    return 0;
}

void strip_close(struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        if (s->block[d].ours)
            buf_put(s->block[d].old, s->bytes);
        if (s->block[d].fresh_ours)
            buf_put(s->block[d].fresh, s->bytes);
    }
    buf_put(s->block, blocks_memory(s->a));
    rows_release(&s->hold);
}

int co_rows_compute(int (*fn)(void *arg), void *arg, uint64_t bytes)
{
    return bytes < PARITY_OFFLOAD ? fn(arg) : co_offload(fn, arg);
}

uint64_t rows_even(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    for (unsigned d = 0; d < a->shape.disks; d++)
        bytes = MAX(align_down(array_even(a, d, offset, bytes), ROW_PAGE), ROW_PAGE);
    return bytes;
}

static int get_memory(const struct row_strip *s, uint8_t **memory, bool *ours)
{
    if (*memory)
        return 0;
    *memory = buf_get(s->bytes);
    *ours = *memory != NULL;
    return *memory ? 0 : -ENOMEM;
}

int strip_old(struct row_strip *s, struct row_block *b)
{
    return get_memory(s, &b->old, &b->ours);
}

int strip_fresh(struct row_strip *s, struct row_block *b)
{
    return get_memory(s, &b->fresh, &b->fresh_ours);
}

struct parity_row strip_parity(const struct row_strip *s, uint8_t **data, bool fresh)
{
    const struct raid_row *r = &s->row;
    struct parity_row p = {.powers = raid_row_powers(&s->a->shape), .data = data};
    memset(data, 0, p.powers * sizeof(*data));
    for (unsigned i = 0; i < s->a->shape.data_disks; i++) {
        uint32_t d = raid_row_disk(r, i);
        const struct row_block *b = &s->block[d];
        data[raid_row_power(r, d)] = fresh && b->written ? b->fresh : b->old;
    }
    p.p = fresh ? s->block[r->p].fresh : s->block[r->p].old;
    if (r->q != RAID_NO_DISK)
        p.q = fresh ? s->block[r->q].fresh : s->block[r->q].old;
    return p;
}

/* --- reading -----------------------------------------------------------------------------------
 */

/* Starts reading the block; one that cannot be is lost at once. */
static int start_read(struct row_strip *s, uint32_t role, struct co_group *g)
{
    struct row_block *b = &s->block[role];
    struct raid_member *m = array_readable(s->a, role, s->offset, s->bytes);
    TRY(strip_old(s, b));
    if (!m) {
        b->state = BLOCK_LOST;
        return 0;
    }
    b->iov = (struct iovec){b->old, s->bytes};
    b->io = (struct member_io){
        .m = m, .op = MEMBER_READ, .offset = s->offset, .bytes = s->bytes, .vec = VEC_ONE(&b->iov)};
    co_group_start(g, co_member_io, &b->io);
    return 0;
}

static bool is_unread(const struct row_block *b)
{
    return b->wanted && b->state == BLOCK_UNKNOWN;
}

/* Reads all that is wanted and not there. */
static int co_read_round(struct row_strip *s)
{
    struct co_group g;
    int rc = 0;
    co_group_init(&g, 0);
    for (unsigned d = 0; d < s->a->shape.disks && rc == 0; d++)
        if (is_unread(&s->block[d]))
            rc = start_read(s, d, &g);
    (void)co_group_wait(&g); /* each says for itself */
    for (unsigned d = 0; d < s->a->shape.disks && rc == 0; d++) {
        struct row_block *b = &s->block[d];
        if (!is_unread(b))
            continue;
        b->failed = b->io.rc < 0;
        b->state = b->failed ? BLOCK_LOST : BLOCK_GOOD;
        if (b->io.rc == -ENOMEM)
            rc = -ENOMEM; /* not the member's fault */
        else if (!b->failed)
            rc = co_journal_patch(s, d, b->old, ITEM_WHOLE);
    }
    return rc;
}

/* --- getting back ------------------------------------------------------------------------------
 */

static bool is_lost(const struct row_strip *s, uint32_t role)
{
    return role != RAID_NO_DISK && s->block[role].state == BLOCK_LOST;
}

static bool has_lost(const struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (is_lost(s, d))
            return true;
    return false;
}

static bool has_unread(const struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++)
        if (is_unread(&s->block[d]))
            return true;
    return false;
}

static unsigned lost_data(const struct row_strip *s)
{
    unsigned lost = 0;
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        lost += is_lost(s, raid_row_disk(&s->row, i));
    return lost;
}

/* Wants what brings back what is lost; false: there is not enough. */
static bool want_others(struct row_strip *s)
{
    const struct raid_row *r = &s->row;
    unsigned lost = lost_data(s);
    bool p_lost = is_lost(s, r->p), q_lost = r->q == RAID_NO_DISK || is_lost(s, r->q);
    if (lost > (p_lost ? 0u : 1u) + (q_lost ? 0u : 1u))
        return false;
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        s->block[raid_row_disk(r, i)].wanted = true;
    if (lost && !p_lost)
        s->block[r->p].wanted = true;
    if (lost > (p_lost ? 0u : 1u))
        s->block[r->q].wanted = true;
    return true;
}

/* Everything that has not been lost is there; no more is lost than there are parities. */
static void recover(struct row_strip *s)
{
    const struct raid_row *r = &s->row;
    uint8_t *data[PARITY_POWERS_MOST];
    unsigned lost[2], count = 0;
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        if (!is_lost(s, d))
            continue;
        assert(count < s->a->shape.level->parities);
        lost[count++] = d == r->p ? PARITY_P : d == r->q ? PARITY_Q : raid_row_power(r, d);
        s->block[d].state = BLOCK_GOOD;
    }
    struct parity_row row = strip_parity(s, data, false);
    parity_recover(&row, lost, count, s->bytes);
}

bool rows_enough_without(const struct raid_array *a, uint32_t role, uint64_t offset, uint64_t bytes)
{
    bool there[RAID_DISKS_MOST];
    for (unsigned d = 0; d < a->shape.disks; d++)
        there[d] = d != role && array_readable(a, d, offset, bytes);
    return raid_enough(&a->shape, there);
}

static int co_miss(struct raid_array *a, uint32_t role, const struct member_io *io)
{
    return co_array_miss(a, io, rows_enough_without(a, role, io->offset, io->bytes));
}

/* Puts back what could not be read; a member that does not take it is put out. */
static int co_correct(struct row_strip *s)
{
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        struct row_block *b = &s->block[d];
        if (!b->failed || b->state != BLOCK_GOOD || !s->a->dev->writable)
            continue;
        b->failed = false;
        if (s->a->by_role[d] != b->io.m)
            continue;
        b->io.op = MEMBER_WRITE;
        co_member_io(&b->io);
        if (b->io.rc == 0)
            b->io.m->read_errors++;
        else
            TRY(co_miss(s->a, d, &b->io));
    }
    return 0;
}

int co_strip_load(struct row_strip *s)
{
    do {
        TRY(co_read_round(s));
        if (!has_lost(s))
            return 0;
        if (!want_others(s))
            return -EIO;
    } while (has_unread(s));
    recover(s);
    return co_correct(s);
}

/* --- writing -----------------------------------------------------------------------------------
 */

int co_rows_write_again(struct raid_array *a, uint32_t role, struct member_io *io)
{
    for (unsigned n = 0; n < TRIES && io->rc < 0; n++) {
        bool there = array_writable(a, role) == io->m;
        int rc = there && io->rc == -ENOMEM ? io->rc : co_miss(a, role, io);
        if (rc == 0 || array_writable(a, role) != io->m) /* out, and perhaps removed already */
            return rc;
        co_member_io(io);
    }
    return io->rc == 0 || co_miss(a, role, io) == 0 ? 0 : io->rc;
}

/* Gives the block's own memory, if it has some: nothing is allocated where memory may be what
 * failed. NULL: there is none. */
static uint8_t *take_fresh(struct row_block *b, uint64_t bytes)
{
    bool *ours = b->fresh_ours ? &b->fresh_ours : b->ours && b->fresh == b->old ? &b->ours : NULL;
    if (ours) {
        *ours = false;
        return b->fresh;
    }
    uint8_t *copy = buf_get(bytes);
    if (copy)
        memcpy(copy, b->fresh, bytes);
    return copy;
}

int co_strip_store(struct row_strip *s, unsigned flags)
{
    struct co_group g;
    co_group_init(&g, 0);
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        struct row_block *b = &s->block[d];
        struct raid_member *m = array_writable(s->a, d);
        b->written &= m != NULL;
        if (!b->written)
            continue;
        b->iov = (struct iovec){b->fresh, s->bytes};
        b->io = (struct member_io){.m = m,
                                   .op = b->fresh ? MEMBER_WRITE : MEMBER_ZERO,
                                   .flags = b->fresh ? flags & BLK_FUA : flags,
                                   .offset = s->offset,
                                   .bytes = s->bytes,
                                   .vec = VEC_ONE(&b->iov)};
        co_group_start(&g, co_member_io, &b->io);
    }
    (void)co_group_wait(&g); /* each says for itself */
    int rc = 0;
    for (unsigned d = 0; d < s->a->shape.disks; d++) {
        struct row_block *b = &s->block[d];
        int one = b->written ? co_rows_write_again(s->a, d, &b->io) : 0;
        if (one < 0 && !array_is_bad(s->a, d, s->offset, s->bytes))
            rows_tear(s->a, d, &b->io, b->fresh ? take_fresh(b, s->bytes) : NULL);
        rc = one < 0 ? one : rc;
    }
    return rc;
}

/* --- reads that need more than the member ------------------------------------------------------
 */

/* Copies what the parts want of a block from where it was read. */
static void hand_out(const struct row_batch *b, const struct row_strip *s, unsigned i, uint64_t at)
{
    const uint8_t *from = s->block[raid_row_disk(&s->row, i)].old;
    for (struct row_part *p = b->parts; p; p = p->next) {
        uint64_t in_part, in_strip, n = row_meet(b, p, i, at, s->bytes, &in_part, &in_strip);
        if (n == 0)
            continue;
        struct vec to = vec_slice(&p->vec, in_part, n);
        vec_from_buf(&to, from + in_strip);
    }
}

int co_strip_read(struct raid_array *a, struct row_batch *b, uint64_t at, uint64_t bytes)
{
    struct row_strip s;
    TRY(co_strip_open(&s, a, b->row * a->shape.chunk + at, bytes, true));
    for (unsigned i = 0; i < a->shape.data_disks; i++) {
        struct row_block *block = &s.block[raid_row_disk(&s.row, i)];
        block->wanted = row_cover(b, i, at, bytes) != ROW_UNTOUCHED;
        if (block->wanted)
            block->old = row_direct(b, i, at, bytes);
    }
    int rc = co_strip_load(&s);
    for (unsigned i = 0; i < a->shape.data_disks && rc == 0; i++) {
        const struct row_block *block = &s.block[raid_row_disk(&s.row, i)];
        if (block->wanted)
            rc = co_journal_patch(&s, raid_row_disk(&s.row, i), block->old, ITEM_ALONE);
        if (block->ours && block->wanted)
            hand_out(b, &s, i, at);
    }
    strip_close(&s);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_run.c - whole rows, several at a time.
 *
 * A *run* is rows behind each other, all of whose data one request writes, or columns of one row
 * where chunks are long. It needs nothing of what was there, so each member gets one write, of data
 * where the caller has it, and of parity:
 *
 *     member 0   D0 D5 D7 P3 ...
 *     member 1   D1 D3 P2 D9 ...
 *     member 2   D2 P1 D6 D10 ...
 *     member 3   P0 D4 D8 D11 ...
 *
 * Order:
 *  1. The run is locked. Who is out and will get none of it is told to the others (A2).
 *  2. That these rows are being written is durable in the stripe log (log.h); meanwhile parity is
 *     computed.
 *  3. All members are written side by side. One that does not take its part gets it once more,
 *     slice by slice, and each slice is judged as a strip's block is (rows_strip.c).
 *
 * Strip by strip go: arrays that have another log than ours, or a member missing, or bad blocks
 * there, and data that does not lie in memory as parity.h wants it. */
#include "block/worker.h"
#include "raid/badblocks.h"
#include "raid/log.h"

#define STEP_BYTES MiB /* of all blocks: then others have their turn */

struct run {
    struct raid_array *a;
    const struct row_part *part;
    uint64_t offset, bytes; /* in the members' data */
    unsigned rows;
    uint8_t *parity;      /* of each row P, then Q */
    struct iovec *iov;    /* by role, then by row */
    struct member_io *io; /* by role */
    struct log_hold log;
};

/* Columns of each row that it has. */
static uint64_t width(const struct run *r)
{
    return r->bytes / r->rows;
}

static struct iovec *piece(const struct run *r, uint32_t role, unsigned row)
{
    return &r->iov[role * r->rows + row];
}

/* --- whether it can be -------------------------------------------------------------------------
 */

static bool is_healthy(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    for (unsigned d = 0; d < a->shape.disks; d++) {
        const struct raid_member *m = array_writable(a, d);
        if (!m || (m->bad && bad_hits(m->bad, m->data_offset + offset, bytes)))
            return false;
    }
    return true;
}

/* Chunk @i of the part's rows, from column @at on; NULL: its memory is in pieces, or not aligned.
 */
static uint8_t *chunk_memory(struct raid_array *a, const struct row_part *part, unsigned i,
                             uint64_t at, uint64_t bytes)
{
    struct row_batch b = {.a = a, .row = part->row, .parts = (struct row_part *)part};
    return row_direct(&b, i, at, bytes);
}

static bool can_run(struct raid_array *a, const struct row_part *part)
{
    uint64_t chunk = a->shape.chunk, bytes = part->bytes / a->shape.data_disks;
    if (a->ppl || a->journal || !is_healthy(a, part->row * chunk, bytes))
        return false;
    for (unsigned i = 0; i < part->bytes / chunk; i++)
        if (!chunk_memory(a, part, i, 0, chunk))
            return false;
    return true;
}

/* --- what each member gets ---------------------------------------------------------------------
 */

static void aim(struct run *r)
{
    const struct raid_shape *shape = &r->a->shape;
    uint64_t columns = width(r), at = r->offset % shape->chunk;
    uint8_t *parity = r->parity;
    for (unsigned n = 0; n < r->rows; n++) {
        struct raid_row row = raid_row(shape, r->part->row + n);
        for (unsigned i = 0; i < shape->data_disks; i++)
            *piece(r, raid_row_disk(&row, i), n) = (struct iovec){
                chunk_memory(r->a, r->part, n * shape->data_disks + i, at, columns), columns};
        *piece(r, row.p, n) = (struct iovec){parity, columns};
        if (row.q != RAID_NO_DISK)
            *piece(r, row.q, n) = (struct iovec){parity + columns, columns};
        parity += shape->level->parities * columns;
    }
}

struct step {
    const struct run *r;
    unsigned row;
    uint64_t at, bytes; /* in its columns */
};

static uint8_t *block_of(const struct step *s, uint32_t role)
{
    return (uint8_t *)piece(s->r, role, s->row)->iov_base + s->at;
}

static int make_parity(void *arg)
{
    const struct step *s = arg;
    const struct raid_shape *shape = &s->r->a->shape;
    struct raid_row row = raid_row(shape, s->r->part->row + s->row);
    uint8_t *data[PARITY_POWERS_MOST] = {0};
    for (unsigned i = 0; i < shape->data_disks; i++) {
        uint32_t d = raid_row_disk(&row, i);
        data[raid_row_power(&row, d)] = block_of(s, d);
    }
    struct parity_row p = {.powers = raid_row_powers(shape),
                           .data = data,
                           .p = block_of(s, row.p),
                           .q = row.q == RAID_NO_DISK ? NULL : block_of(s, row.q)};
    parity_make(&p, s->bytes);
    return 0;
}

static void co_make_parity(const struct run *r)
{
    unsigned disks = r->a->shape.disks;
    uint64_t most = MAX(align_down(STEP_BYTES / disks, ROW_PAGE), ROW_PAGE);
    struct step s = {.r = r};
    for (; s.row < r->rows; s.row++)
        for (s.at = 0; s.at < width(r); s.at += s.bytes) {
            s.bytes = MIN(most, width(r) - s.at);
            (void)!co_rows_compute(make_parity, &s, s.bytes * disks);
            co_yield ();
        }
}

/* --- writing -----------------------------------------------------------------------------------
 */

/* Slices, so that a bad block takes few others with it. */
static int co_write_slices(struct run *r, uint32_t role)
{
    const struct member_io *all = &r->io[role];
    int rc = 0;
    for (uint64_t at = 0; at < r->bytes; at += ROW_SLICE) {
        struct member_io io = *all;
        io.m = array_writable(r->a, role);
        io.offset += at;
        io.bytes = MIN(ROW_SLICE, r->bytes - at);
        io.vec = vec_slice(&all->vec, at, io.bytes);
        if (!io.m)
            return rc;
        co_member_io(&io);
        int one = co_rows_write_again(r->a, role, &io);
        if (one == 0)
            continue;
        rc = one;
        if (array_is_bad(r->a, role, io.offset, io.bytes))
            continue;
        uint8_t *copy = buf_get(io.bytes);
        if (copy)
            vec_to_buf(&io.vec, copy);
        rows_tear(r->a, role, &io, copy);
    }
    return rc;
}

static int co_write_members(struct run *r)
{
    struct co_group g;
    int rc = 0;
    co_group_init(&g, 0);
    for (unsigned d = 0; d < r->a->shape.disks; d++) {
        r->io[d] = (struct member_io){.m = array_writable(r->a, d),
                                      .op = MEMBER_WRITE,
                                      .flags = r->part->flags & BLK_FUA,
                                      .offset = r->offset,
                                      .bytes = r->bytes,
                                      .vec = {.iov = piece(r, d, 0), .bytes = r->bytes}};
        if (r->io[d].m)
            co_group_start(&g, co_member_io, &r->io[d]);
    }
    (void)co_group_wait(&g); /* each says for itself */
    for (unsigned d = 0; d < r->a->shape.disks; d++) {
        int one = r->io[d].rc < 0 ? co_write_slices(r, d) : 0;
        rc = one < 0 ? one : rc;
    }
    return rc;
}

static int co_mark(void *arg)
{
    struct run *r = arg;
    return co_log_mark(r->a, r->offset, r->bytes, &r->log);
}

static int co_change(struct run *r)
{
    struct co_group g;
    aim(r);
    TRY(co_array_tell(r->a));
    co_group_init(&g, 0);
    co_group_start(&g, co_mark, r);
    co_make_parity(r);
    TRY(co_group_wait(&g));
    int rc = r->a->lost ? -EIO : co_write_members(r);
    log_end(r->a, &r->log);
    return rc;
}

/* --- runs --------------------------------------------------------------------------------------
 */

static int co_run(struct run *r)
{
    const struct raid_shape *shape = &r->a->shape;
    uint64_t parity = shape->level->parities * r->bytes;
    size_t iov = shape->disks * r->rows * sizeof(*r->iov), io = shape->disks * sizeof(*r->io);
    struct row_hold hold;
    TRY(co_rows_hold(&hold, r->a, r->offset, r->bytes, false, parity + iov + io));
    r->parity = buf_get(parity);
    r->iov = buf_get(iov);
    r->io = buf_get(io);
    int rc = r->parity && r->iov && r->io ? co_change(r) : -ENOMEM;
    buf_put(r->parity, parity);
    buf_put(r->iov, iov);
    buf_put(r->io, io);
    rows_release(&hold);
    return rc;
}

int co_rows_run(struct raid_array *a, const struct row_part *part)
{
    uint64_t start = part->row * a->shape.chunk, bytes = part->bytes / a->shape.data_disks, n;
    if (!can_run(a, part))
        return -ENOTSUP;
    for (uint64_t at = 0; at < bytes; at += n) {
        n = MIN(bytes - at, ROW_RUN);
        struct run r = {.a = a,
                        .part = part,
                        .offset = start + at,
                        .bytes = n,
                        .rows = (unsigned)MAX(n / a->shape.chunk, 1u)};
        TRY(co_run(&r));
    }
    return 0;
}

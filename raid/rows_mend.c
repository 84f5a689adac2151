/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_mend.c - strips that could be written only in part, since a member failed that cannot be
 * spared. Its request has failed; but the strip's parity is wrong, and with it what is got back of
 * other data. So the missing blocks are kept and written before anything else is done there. Until
 * then nothing is called durable and the log keeps the strip's record: if the array is opened anew,
 * that does the same. */
#include "raid/rows.h"

void rows_tear(struct raid_array *a, uint32_t role, const struct member_io *io)
{
    struct rows *rows = a->engine_state;
    bool zero = io->op == MEMBER_ZERO;
    struct row_torn *t = mem_alloc(sizeof(*t));
    a->torn = true;
    if (!t) {
        rows->lost_torn = true;
        return;
    }
    *t = (struct row_torn){
        .next = rows->torn, .role = role, .offset = io->offset, .bytes = io->vec.bytes};
    if (!zero) {
        t->contents = mem_aligned(t->bytes);
        if (!t->contents) {
            rows->lost_torn = true;
            mem_free(t);
            return;
        }
        vec_to_buf(&io->vec, t->contents);
    }
    rows->torn = t;
}

bool rows_torn(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    const struct rows *rows = a->engine_state;
    bool torn = rows->lost_torn;
    for (const struct row_torn *t = rows->torn; t && !torn; t = t->next)
        torn = t->offset < offset + bytes && offset < t->offset + t->bytes;
    return torn;
}

static void drop_first(struct rows *rows)
{
    struct row_torn *t = rows->torn;
    rows->torn = t->next;
    mem_free(t->contents);
    mem_free(t);
}

/* A member that has gone meanwhile needs nothing. */
static int co_mend_one(struct raid_array *a, const struct row_torn *t)
{
    struct co_range_hold hold;
    struct iovec iov = {t->contents, t->bytes};
    struct member_io io = {.m = array_writable(a, t->role),
                           .op = t->contents ? MEMBER_WRITE : MEMBER_ZERO,
                           .offset = t->offset,
                           .bytes = t->bytes,
                           .vec = VEC_ONE(&iov)};
    co_range_lock(&a->writers, &hold, t->offset, t->bytes, false);
    if (io.m)
        co_member_io(&io);
    co_range_unlock(&a->writers, &hold);
    return io.rc;
}

int co_rows_mend(struct raid_array *a)
{
    struct rows *rows = a->engine_state;
    with_lock(&rows->mending);
    if (!a->torn)
        return 0;
    if (rows->lost_torn)
        return -EIO;
    while (rows->torn) {
        TRY(co_mend_one(a, rows->torn));
        drop_first(rows);
    }
    a->torn = false;
    return 0;
}

void rows_forget_torn(struct raid_array *a)
{
    struct rows *rows = a->engine_state;
    while (rows->torn)
        drop_first(rows);
}

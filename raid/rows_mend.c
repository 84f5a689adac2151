/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_mend.c - strips that could be written only in part, since a member failed that cannot be
 * spared. Its request has failed; but the strip's parity is wrong, and with it what is got back of
 * other data. So the missing blocks are kept and written before anything else is done there. Until
 * then nothing is called durable and the log keeps the strip's record: if the array is opened anew,
 * that does the same. */
#include "block/worker.h"
#include "raid/rows.h"

void rows_tear(struct raid_array *a, uint32_t role, const struct member_io *io, uint8_t *contents)
{
    struct rows *rows = a->engine_state;
    bool lacks = io->op == MEMBER_WRITE && !contents;
    if (lacks || rows->torn_count == ARRAY_LEN(rows->torn)) {
        buf_put(contents, io->bytes);
        a->lost = true;
        return;
    }
    a->torn = true;
    rows->torn[rows->torn_count++] = (struct row_torn){role, io->offset, io->bytes, contents};
}

bool rows_torn(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    const struct rows *rows = a->engine_state;
    for (unsigned i = 0; i < rows->torn_count; i++)
        if (rows->torn[i].offset < offset + bytes &&
            offset < rows->torn[i].offset + rows->torn[i].bytes)
            return true;
    return false;
}

static void drop_first(struct rows *rows)
{
    buf_put(rows->torn[0].contents, rows->torn[0].bytes);
    rows->torn_count--;
    memmove(&rows->torn[0], &rows->torn[1], rows->torn_count * sizeof(rows->torn[0]));
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
    if (a->lost)
        return -EIO;
    if (!a->torn)
        return 0;
    while (rows->torn_count) {
        TRY(co_mend_one(a, &rows->torn[0])); /* others come behind it */
        drop_first(rows);
    }
    a->torn = false;
    return 0;
}

void rows_forget_torn(struct raid_array *a)
{
    struct rows *rows = a->engine_state;
    while (rows->torn_count)
        drop_first(rows);
}

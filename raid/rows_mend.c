/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_mend.c - strips that could be written only in part, since a member failed that cannot be
 * spared. Its request has failed; but the strip's parity is wrong, and with it what is got back of
 * other data. So the missing blocks are kept and written before anything else is done there. Until
 * then nothing is called durable and the log keeps the strip's record: if the array is opened anew,
 * that does the same. */
#include "block/worker.h"
#include "raid/rows.h"

/* The block's own memory, if it has some: nothing is allocated where memory may be what failed. */
static uint8_t *take_memory(struct row_block *b, uint64_t bytes)
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

void rows_tear(struct row_strip *s, uint32_t role)
{
    struct rows *rows = s->a->engine_state;
    struct row_block *b = &s->block[role];
    uint8_t *contents = b->fresh ? take_memory(b, s->bytes) : NULL;
    if ((b->fresh && !contents) || rows->torn_count == ARRAY_LEN(rows->torn)) {
        buf_put(contents, s->bytes);
        s->a->lost = true;
        return;
    }
    s->a->torn = true;
    rows->torn[rows->torn_count++] = (struct row_torn){role, s->offset, s->bytes, contents};
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

/* SPDX-License-Identifier: BSD-3-Clause */
/* rows.c - the engine of levels 4, 5 and 6.
 *
 * Reads of members that are there go straight to their files (resolve). What that cannot serve, and
 * all changes, are cut into rows, of which several are under way at a time; rows_merge.c says how a
 * row is cut further, rows_strip.c and rows_write.c what happens to a strip. */
#include "raid/journal.h"
#include "raid/log.h"
#include "raid/ppl.h"

#define ROWS_AT_ONCE 8
#define CACHE_BYTES  (64 * MiB)

static uint64_t row_bytes(const struct raid_array *a)
{
    return a->shape.chunk * a->shape.data_disks;
}

static void rows_close(struct raid_array *a)
{
    log_close(a);
    ppl_close(a);
    journal_close(a);
    rows_forget_torn(a);
    mem_free(a->engine_state);
    a->engine_state = NULL;
}

static int co_rows_open(struct raid_array *a, struct blk_error *e)
{
    struct rows *rows = mem_zalloc(sizeof(*rows));
    if (!rows)
        return err_set(e, -ENOMEM, "out of memory");
    rows->most = CACHE_BYTES;
    rows->slice = ROW_SLICE;
    a->engine_state = rows;
    bool writes = a->dev->open_flags & BLK_OPEN_WRITE;
    int rc = writes ? co_log_open(a, e) : 0;
    if (rc == 0 && writes)
        rc = co_ppl_open(a, e);
    if (rc == 0)
        rc = co_journal_open(a, e);
    if (rc < 0)
        rows_close(a);
    else if (a->log)
        rows->slice = log_widest(a);
    else if (a->journal)
        rows->slice = journal_widest(a);
    return rc;
}

static bool rows_resolve(struct raid_array *a, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    if (write)
        return false;
    struct raid_piece p = raid_place(&a->shape, offset, 0);
    uint64_t n = MIN(bytes, p.bytes);
    struct raid_member *m = array_readable(a, p.disk, p.offset, n);
    if (!m || journal_covers(a, p.offset, n))
        return false;
    *out = (struct blk_place){
        .child = m->dev, .offset = m->data_offset + p.offset, .bytes = n, .redundant = true};
    return true;
}

/* --- requests ----------------------------------------------------------------------------------
 */

/* A request; its rows are taken from the front, by several coroutines. */
struct request {
    struct raid_array *a;
    uint64_t offset, bytes, done;
    uint64_t most;         /* bytes of whole rows that are one part */
    const struct vec *vec; /* NULL: zeroes */
    unsigned flags;
    int (*co_part)(struct raid_array *a, struct row_part *p);
    int rc;
};

static bool next_part(struct request *q, struct row_part *p)
{
    if (q->done == q->bytes || q->rc < 0)
        return false;
    uint64_t whole = row_bytes(q->a), at = q->offset + q->done;
    *p = (struct row_part){.row = at / whole, .at = at % whole, .zero = !q->vec, .flags = q->flags};
    p->bytes = MIN(q->bytes - q->done, whole - p->at);
    if (p->bytes == whole)
        p->bytes = MIN((q->bytes - q->done) / whole * whole, q->most);
    if (q->vec)
        p->vec = vec_slice(q->vec, q->done, p->bytes);
    q->done += p->bytes;
    return true;
}

static int co_parts(void *arg)
{
    struct request *q = arg;
    struct row_part p;
    while (next_part(q, &p)) {
        int rc = q->co_part(q->a, &p);
        if (rc < 0 && q->rc == 0)
            q->rc = rc;
    }
    return 0;
}

static int co_request(struct request *q)
{
    uint64_t whole = row_bytes(q->a);
    uint64_t rows = (q->offset + q->bytes - 1) / whole - q->offset / whole + 1;
    struct co_group g;
    if (rows == 1) {
        co_parts(q);
        return q->rc;
    }
    co_group_init(&g, 0);
    for (unsigned i = 0; i < MIN(rows, ROWS_AT_ONCE); i++)
        co_group_start(&g, co_parts, q);
    (void)co_group_wait(&g); /* q->rc says */
    return q->rc;
}

/* --- the driver's operations -------------------------------------------------------------------
 */

static int co_read_part(struct raid_array *a, struct row_part *p)
{
    struct row_batch b = {.a = a, .row = p->row, .parts = p, .co_strip = co_strip_read};
    return co_rows_batch(&b);
}

static int co_rows_read(struct raid_array *a, uint64_t offset, const struct vec *to)
{
    struct request q = {.a = a,
                        .offset = offset,
                        .bytes = to->bytes,
                        .most = row_bytes(a),
                        .vec = to,
                        .co_part = co_read_part};
    return co_request(&q);
}

static int co_change_row(struct raid_array *a, struct row_part *p)
{
    struct row_batch b = {.a = a,
                          .row = p->row,
                          .parts = p,
                          .flags = p->flags,
                          .whole = p->bytes == row_bytes(a),
                          .co_strip = co_strip_change};
    return co_rows_batch(&b);
}

static int co_change_rows(struct raid_array *a, struct row_part *p)
{
    uint64_t whole = row_bytes(a);
    int rc = p->zero ? -ENOTSUP : co_rows_run(a, p);
    if (rc != -ENOTSUP)
        return rc;
    for (uint64_t done = 0; done < p->bytes; done += whole) {
        struct row_part one = *p;
        one.row += done / whole;
        one.bytes = whole;
        if (!p->zero)
            one.vec = vec_slice(&p->vec, done, whole);
        TRY(co_change_row(a, &one));
    }
    return 0;
}

/* Whole rows need no neighbours, and zeroes are no bytes that could be put beside others. In a
 * partial parity log an entry has only chunks that lie behind each other, as one request's do. */
static int co_change_part(struct raid_array *a, struct row_part *p)
{
    if (p->bytes >= row_bytes(a))
        return co_change_rows(a, p);
    return p->zero || a->ppl ? co_change_row(a, p) : co_rows_merge(a, p);
}

/* A torn strip keeps the log's room, so it is mended by whoever writes next. */
static int co_prepare(struct raid_array *a)
{
    if (unlikely(a->torn || a->lost))
        TRY(co_rows_mend(a));
    return co_array_mark_dirty(a);
}

static int co_rows_write(struct raid_array *a, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    TRY(co_prepare(a));
    struct request q = {.a = a,
                        .offset = offset,
                        .bytes = from->bytes,
                        .most = MAX(ROW_RUN / a->shape.chunk, 1u) * row_bytes(a),
                        .vec = from,
                        .flags = flags,
                        .co_part = co_change_part};
    return co_request(&q);
}

static int co_rows_zeroes(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags)
{
    if (flags & BLK_NO_FALLBACK && !a->dev->limits.can_zero_fast)
        return -ENOTSUP;
    TRY(co_prepare(a));
    struct request q = {.a = a,
                        .offset = offset,
                        .bytes = bytes,
                        .most = row_bytes(a),
                        .flags = flags & ~(unsigned)BLK_NO_FALLBACK,
                        .co_part = co_change_part};
    return co_request(&q);
}

/* Whole rows become zeroes that need no space, so that parity stays right whatever a member's
 * discarded space reads as; the odd ends stay. */
static int co_rows_discard(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    uint64_t whole = row_bytes(a), first = div_up(offset, whole), end = (offset + bytes) / whole;
    if (first >= end || !a->dev->limits.can_unmap)
        return 0;
    return co_rows_zeroes(a, first * whole, (end - first) * whole, BLK_MAY_UNMAP);
}

const struct raid_engine raid_row_engine = {
    .resolve = rows_resolve,
    .co_open = co_rows_open,
    .close = rows_close,
    .co_read = co_rows_read,
    .co_write = co_rows_write,
    .co_write_zeroes = co_rows_zeroes,
    .co_discard = co_rows_discard,
    .co_mend = co_rows_mend,
    .co_resync = co_rows_resync,
    .co_rebuild = co_rows_rebuild,
    .co_scrub = co_rows_scrub,
    .sync_unit = ROW_PAGE,
};

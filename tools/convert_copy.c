/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_copy.c - the walk over the sources, and the pieces that are copied.
 *
 * One coroutine walks the sources' status: what reads zero is left out or zeroed, what holds data
 * is cut into pieces of 8 MiB at the target's cluster boundaries, and each piece is a child with a
 * few of its kind in flight. A piece looks at the first bytes of every cluster: data answers there,
 * only what begins with zeroes is read whole. What is not zero is copied inside the kernel where
 * source and target both know the place of their bytes in files (co_blk_copy), else read and
 * written.
 *
 * Memory is bounded by pieces in flight times their size, whatever the image's size. */
#include "block/pieces.h"
#include "tools/convert.h"

#define PIECE_BYTES  (8 * MiB) /* each costs some wakes and one call that reserves space */
#define MEMORY_STEP  (2 * MiB) /* of a piece that comes up after all */
#define PROBE_BYTES  64
#define SALVAGE_UNIT 512u
#define PROBE_UNIT   (64 * KiB) /* zeroes are looked for in units of at least this */
#define ZERO_STEP    (1 * GiB)  /* of one write_zeroes */
#define MEMORY_PIECE \
    (512 * KiB) /* where all bytes come up: a few of these stay in the CPU's cache */

struct copy {
    struct convert *c;
    struct pieces pieces;
    uint64_t run_offset, run_bytes; /* data seen and not yet given to a piece */
    uint64_t piece_bytes;
    bool unnoted;          /* --resume: something was copied since the last note */
    struct co_group drops; /* one at a time, beside the pieces */
    uint64_t drop_at;
};

enum kind { KIND_DATA, KIND_ZERO, KIND_BELOW /* the target's backing image shows the same */ };

/* --- reading the sources -------------------------------------------------------------------------
 */

static const struct convert_source *source_at(const struct convert *c, uint64_t offset)
{
    size_t i = c->count;
    while (i > 1 && c->sources[i - 1].start > offset)
        i--;
    return &c->sources[i - 1];
}

/* How many of @bytes at @offset lie in @s. */
static uint64_t within(const struct convert_source *s, uint64_t offset, uint64_t bytes)
{
    uint64_t at = offset - s->start;
    uint64_t end = MIN(s->dev->size, s->bytes);
    return at < end ? MIN(bytes, end - at) : 0;
}

/* A source whose size is odd, or that ends early, is followed by zeroes, up to the next source or
 * the end. */
static uint64_t gap_at(const struct convert *c, uint64_t offset)
{
    const struct convert_source *next = source_at(c, offset) + 1;
    return (next < c->sources + c->count ? next->start : c->size) - offset;
}

static int co_read(struct convert *c, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    while (bytes > 0) {
        const struct convert_source *s = source_at(c, offset);
        uint64_t n = within(s, offset, bytes);
        if (n == 0) {
            n = MIN(gap_at(c, offset), bytes);
            memset(to, 0, n);
        } else {
            TRY(co_blk_read_buf(s->dev, offset - s->start, to, n));
        }
        to += n;
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* What can be read of a range that failed: by halves down to sectors, of which those that fail are
 * told, and zero. */
static void co_salvage(struct convert *c, uint64_t offset, uint8_t *to, uint64_t bytes)
{
    const struct tool *t = c->make.tool;
    for (uint64_t at = 0, n = bytes; at < bytes; at += n, n = MIN(bytes - at, n * 2)) {
        int rc;
        while ((rc = co_read(c, offset + at, to + at, n)) < 0 && n > SALVAGE_UNIT)
            n = MAX(align_down(n / 2, SALVAGE_UNIT), SALVAGE_UNIT);
        if (rc == 0)
            continue;
        memset(to + at, 0, n);
        if (!t->quiet)
            fprintf(stderr, "%s: warning: error while reading offset %" PRIu64 ": %s\n", t->called,
                    offset + at, strerror(-rc));
    }
}

static int read_failed(struct convert *c, int rc, uint64_t offset)
{
    if (c->task.error.rc == 0) {
        err_errno(&c->task.error, rc, "error while reading at byte %" PRIu64, offset);
        image_failed(c->make.tool, source_at(c, offset)->dev, rc, &c->task.error);
    }
    return rc;
}

static int write_failed(struct convert *c, int rc, uint64_t offset)
{
    if (c->task.error.rc == 0)
        err_errno(&c->task.error, rc, "error while writing at byte %" PRIu64, offset);
    return rc;
}

/* --- pieces
 * ---------------------------------------------------------------------------------------- */

static int co_zero(struct convert *c, uint64_t offset, uint64_t bytes)
{
    if (c->target_reads_zero)
        return 0;
    while (bytes > 0) {
        uint64_t n = MIN(bytes, ZERO_STEP);
        int rc = co_blk_write_zeroes(c->target, offset, n, BLK_MAY_UNMAP);
        if (rc < 0)
            return write_failed(c, rc, offset);
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* True if block @i of what was read is to be left out. */
static bool block_is_zero(const struct convert *c, const uint8_t *buf, uint64_t at, uint64_t bytes)
{
    return c->sparse > 0 && mem_is_zero(buf + at, bytes);
}

/* Writes what was read: runs of blocks that hold something, and zeroes between them. */
static int co_write_blocks(struct convert *c, uint64_t offset, const uint8_t *buf, uint64_t bytes)
{
    uint64_t step = align_up(MAX(c->sparse, 4 * KiB), c->unit);
    unsigned flags = c->compress ? BLK_COMPRESSED : 0;
    for (uint64_t at = 0, end; at < bytes; at = end) {
        end = MIN(at + step, bytes);
        bool zero = block_is_zero(c, buf, at, end - at);
        while (end < bytes && block_is_zero(c, buf, end, MIN(step, bytes - end)) == zero)
            end = MIN(end + step, bytes);
        if (zero) {
            TRY(co_zero(c, offset + at, end - at));
            continue;
        }
        int rc = co_blk_write_buf(c->target, offset + at, buf + at, end - at, flags);
        if (rc < 0)
            return write_failed(c, rc, offset + at);
    }
    return 0;
}

/* A new target may be longer than a source of odd size: its last cluster is given whole, since part
 * of one can be neither compressed nor streamed. */
static uint64_t whole_units(const struct convert *c, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    return c->into || end < c->size ? bytes : MIN(align_up(end, c->unit), c->target->size) - offset;
}

static int co_memory_step(struct convert *c, uint64_t offset, uint64_t bytes)
{
    uint64_t whole = whole_units(c, offset, bytes);
    uint8_t *buf = buf_get(whole);
    if (!buf)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    memset(buf + bytes, 0, whole - bytes);
    int rc = co_read(c, offset, buf, bytes);
    if (rc < 0 && c->salvage) {
        co_salvage(c, offset, buf, bytes);
        rc = 0;
    }
    if (rc < 0)
        read_failed(c, rc, offset);
    else
        rc = co_write_blocks(c, offset, buf, whole);
    buf_put(buf, whole);
    return rc;
}

static int co_through_memory(struct convert *c, uint64_t offset, uint64_t bytes)
{
    uint64_t step = MAX(MEMORY_STEP, c->unit);
    for (uint64_t at = 0; at < bytes; at += step)
        TRY(co_memory_step(c, offset + at, MIN(bytes - at, step)));
    return 0;
}

/* Copies @bytes that hold something, without their coming up if that can be. */
static int co_data(struct convert *c, uint64_t offset, uint64_t bytes)
{
    const struct convert_source *s = source_at(c, offset);
    if (within(s, offset, bytes) == bytes) {
        if (co_blk_copy(c->target, offset, s->dev, offset - s->start, bytes) == 0)
            return 0;
    } /* which side fails shows as it is read and written */
    return co_through_memory(c, offset, bytes);
}

/* Whether the unit at @offset reads zero: its first bytes say no at once in nearly every case. */
static int co_is_zero(struct convert *c, uint64_t offset, uint64_t bytes, bool *zero)
{
    const struct convert_source *s = source_at(c, offset);
    uint64_t n = MIN(bytes, PROBE_BYTES);
    uint8_t first[PROBE_BYTES];
    struct vec v = VEC_BUF(first, n);
    struct blk_place p;
    int64_t got = -EAGAIN;
    *zero = false;
    if (within(s, offset, n) == n && blk_resolve(s->dev, offset - s->start, n, false, &p) &&
        p.bytes == n)
        got = host_read_now(p.file, p.offset, &v);
    if (got != (int64_t)n)
        TRY(co_read(c, offset, first, n));
    if (!mem_is_zero(first, n))
        return 0;
    uint8_t *buf = buf_get(bytes);
    if (!buf)
        return -ENOMEM;
    int rc = co_read(c, offset, buf, bytes);
    *zero = rc == 0 && mem_is_zero(buf, bytes);
    buf_put(buf, bytes);
    return rc;
}

/* Cuts a piece into runs of units that are zero or not. */
static int co_probe_and_copy(struct convert *c, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = MAX(c->unit, PROBE_UNIT), run = offset, end = offset + bytes;
    bool run_zero = false;
    for (uint64_t at = offset; at < end;) {
        uint64_t n = MIN(unit - at % unit, end - at);
        bool zero;
        int rc = co_is_zero(c, at, n, &zero);
        if (rc < 0)
            return read_failed(c, rc, at);
        if (at > run && zero != run_zero) {
            TRY(run_zero ? co_zero(c, run, at - run) : co_data(c, run, at - run));
            run = at;
        }
        run_zero = zero;
        at += n;
    }
    return run_zero ? co_zero(c, run, end - run) : co_data(c, run, end - run);
}

/* True if the piece's bytes have a place in a file: compressed ones, and what no table in memory
 * knows yet, are read instead. */
static bool has_place(const struct convert *c, uint64_t offset)
{
    const struct convert_source *s = source_at(c, offset);
    struct blk_place p;
    return within(s, offset, 1) && blk_resolve(s->dev, offset - s->start, 1, false, &p);
}

static int co_piece(struct piece *p)
{
    struct convert *c = p->all->arg;
    if (p->kind == KIND_ZERO)
        return co_zero(c, p->offset, p->bytes);
    if (c->read_always || !has_place(c, p->offset))
        return co_through_memory(c, p->offset, p->bytes);
    return co_probe_and_copy(c, p->offset, p->bytes);
}

static int co_drop(void *arg)
{
    struct copy *k = arg;
    co_convert_drop(k->c, k->drop_at);
    return 0;
}

static void start(struct copy *k, uint64_t offset, uint64_t bytes, enum kind kind)
{
    pieces_give(&k->pieces, offset, bytes, kind);
    if (kind == KIND_DATA && convert_drop_due(k->c, bytes)) {
        co_group_wait(&k->drops); /* a disk that is slower than we are holds us back here */
        k->drop_at = offset;
        co_group_start(&k->drops, co_drop, k);
    }
}

/* --- the walk
 * -------------------------------------------------------------------------------------- */

static int co_status(struct convert *c, uint64_t offset, enum kind *kind, uint64_t *bytes)
{
    const struct convert_source *s = source_at(c, offset);
    uint64_t left = within(s, offset, c->size - offset);
    struct blk_extent ext;
    unsigned depth;
    *kind = KIND_DATA;
    if (left == 0) {
        *kind = KIND_ZERO;
        *bytes = gap_at(c, offset);
        return 0;
    }
    struct blk_device *base = c->backing ? blk_child(s->dev, "backing") : NULL;
    int rc = co_blk_map_chain(s->dev, base, offset - s->start, left, &ext, &depth);
    if (rc < 0 && c->salvage) { /* then reading says what is there */
        *bytes = MIN(left, SALVAGE_UNIT);
        return 0;
    }
    if (rc < 0) {
        err_errno(&c->task.error, rc, "error while reading block status at byte %" PRIu64, offset);
        image_failed(c->make.tool, s->dev, rc, &c->task.error);
        return rc;
    }
    *bytes = ext.bytes;
    if (c->backing && !(ext.flags & BLK_EXT_ALLOCATED))
        *kind = KIND_BELOW;
    else if ((ext.flags & BLK_EXT_ZERO) && c->sparse > 0)
        *kind = KIND_ZERO;
    return 0;
}

static void give_run(struct copy *k)
{
    if (k->run_bytes)
        start(k, k->run_offset, k->run_bytes, KIND_DATA);
    k->run_bytes = 0;
}

/* Adds data to the run, and gives full pieces away. */
static void add_data(struct copy *k, uint64_t offset, uint64_t bytes)
{
    if (k->run_bytes && k->run_offset + k->run_bytes != offset)
        give_run(k);
    while (bytes > 0 && !pieces_stopped(&k->pieces)) {
        if (k->run_bytes == 0)
            k->run_offset = offset;
        uint64_t room = k->piece_bytes - offset % k->piece_bytes;
        uint64_t n = MIN(room, bytes);
        k->run_bytes += n;
        offset += n;
        bytes -= n;
        if (n == room)
            give_run(k);
    }
}

static void add_zero(struct copy *k, uint64_t offset, uint64_t bytes, enum kind kind)
{
    struct convert *c = k->c;
    if (kind == KIND_ZERO && !c->target_reads_zero) {
        give_run(k);
        start(k, offset, bytes, KIND_ZERO);
    } else {
        pieces_pass(&k->pieces, bytes);
    }
}

/* --resume: all before @at is written and durable, and noted. */
static int co_note(struct copy *k, uint64_t at)
{
    give_run(k);
    TRY(pieces_wait(&k->pieces));
    k->unnoted = false;
    return co_convert_resume_note(k->c, at);
}

/* Data grows to whole units of the target, so that no cluster is written twice. */
static int co_walk(struct copy *k)
{
    struct convert *c = k->c;
    uint64_t stop = c->resume.asked ? convert_resume_step(c->resume.from) : UINT64_MAX;
    pieces_pass(&k->pieces, c->resume.from);
    for (uint64_t at = c->resume.from; at < c->size && !pieces_stopped(&k->pieces);) {
        enum kind kind;
        uint64_t bytes;
        TRY(co_status(c, at, &kind, &bytes));
        uint64_t end = at + bytes;
        if (kind == KIND_DATA) {
            end = MIN(end, stop);
            k->unnoted = true;
        }
        if (kind != KIND_DATA && end < c->size)
            end = align_down(end, c->unit);
        if (kind != KIND_DATA && end > at) {
            add_zero(k, at, end - at, kind);
        } else {
            end = MIN(align_up(MAX(end, at + 1), c->unit), c->size);
            add_data(k, at, end - at);
        }
        at = end;
        if (at >= stop) {
            if (k->unnoted && at < c->size)
                TRY(co_note(k, at));
            stop = convert_resume_step(at);
        }
    }
    give_run(k);
    return 0;
}

int co_convert_copy(struct convert *c)
{
    struct copy *k = mem_zalloc(sizeof(*k));
    if (!k)
        return err_set(&c->task.error, -ENOMEM, "out of memory");
    k->c = c;
    k->piece_bytes = MAX(c->read_always ? MEMORY_PIECE : PIECE_BYTES, c->unit);
    k->pieces =
        (struct pieces){.co_work = co_piece, .arg = c, .job = &c->task.job, .limit = c->in_flight};
    pieces_init(&k->pieces);
    co_group_init(&k->drops, 1);
    int rc = co_walk(k);
    int done = pieces_wait(&k->pieces);
    co_group_wait(&k->drops);
    mem_free(k);
    if (rc == 0)
        rc = done;
    if (rc < 0 && c->task.error.rc == 0)
        err_errno(&c->task.error, rc, "error while converting");
    return rc;
}

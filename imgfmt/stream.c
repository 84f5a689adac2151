/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - random access to a compressed stream: points, cursors, pieces.
 *
 * A reader of a piece that is not kept looks for the cursor that is nearest before it. If no point
 * lies between, it drives that cursor on, or waits while another reader does; else it begins at the
 * point with a cursor that is idle. All pieces on the way are kept, so readers of neighbouring
 * pieces find them. */
#include "imgfmt/stream.h"

#define PIECE_BYTES   (1 * MiB)
#define IN_BYTES      (512 * KiB)
#define FIRST_SPACING (1 * MiB)

/* --- points ----------------------------------------------------------------------------------- */

static void drop_point(struct stream *s, struct stream_point *p)
{
    if (p->saved)
        s->kind->drop(p->saved);
}

/* The last point at or before @plain; there always is one. */
static size_t point_before(const struct stream *s, uint64_t plain)
{
    size_t low = 0, high = s->point_count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (s->points[mid].plain <= plain)
            low = mid;
        else
            high = mid;
    }
    return low;
}

static void thin_out(struct stream *s)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->point_count; i++) {
        if (i % 2 == 0)
            s->points[kept++] = s->points[i];
        else
            drop_point(s, &s->points[i]);
    }
    s->point_count = kept;
    s->spacing *= 2;
}

static bool point_is_wanted(const struct stream *s, uint64_t plain)
{
    size_t before = point_before(s, plain);
    return plain - s->points[before].plain >= s->spacing &&
           (before + 1 == s->point_count || s->points[before + 1].plain - plain >= s->spacing / 2);
}

void stream_add_point(struct stream *s, uint64_t plain, uint64_t packed, void *saved)
{
    struct stream_point p = {plain, packed, saved};
    uint64_t each = sizeof(p) + s->kind->saved_bytes;
    size_t most = MAX(s->points_limit / each, 4);
    if (!point_is_wanted(s, plain)) {
        drop_point(s, &p);
        return;
    }
    if (s->point_count == s->point_room) {
        size_t room = MAX(2 * s->point_room, 16);
        struct stream_point *grown = mem_resize(s->points, room * sizeof(*grown));
        if (!grown) {
            drop_point(s, &p);
            return;
        }
        s->points = grown;
        s->point_room = room;
    }
    size_t at = point_before(s, plain) + 1;
    memmove(s->points + at + 1, s->points + at, (s->point_count - at) * sizeof(p));
    s->points[at] = p;
    if (++s->point_count > most)
        thin_out(s);
}

static int find_point(struct stream *s, uint64_t plain, struct stream_point *out)
{
    if (s->kind->find)
        return s->kind->find(s, plain, out);
    *out = s->points[point_before(s, plain)];
    return 0;
}

/* --- cursors ---------------------------------------------------------------------------------- */

static void cursor_end(struct stream *s, struct stream_cursor *c)
{
    if (c->decoder)
        s->kind->end(take(c->decoder));
}

/* The buffer goes on at @packed; what of it is there already stays. */
static void cursor_seek(struct stream_cursor *c, uint64_t packed)
{
    uint64_t begin = c->packed - c->in_have;
    if (packed >= begin && packed <= c->packed) {
        c->in_at = (size_t)(packed - begin);
        return;
    }
    c->in_at = c->in_have = 0;
    c->packed = packed;
}

static int cursor_begin(struct stream *s, struct stream_cursor *c, const struct stream_point *p)
{
    cursor_end(s, c);
    if (!c->in && !(c->in = mem_aligned(IN_BYTES)))
        return -ENOMEM;
    c->decoder = s->kind->begin(s, p);
    if (!c->decoder)
        return -ENOMEM;
    cursor_seek(c, p->packed);
    c->plain = p->plain;
    c->used = true;
    return 0;
}

static int co_refill(struct stream *s, struct stream_cursor *c)
{
    size_t left = c->in_have - c->in_at;
    if (left >= STREAM_IN_LEAST || c->packed == s->file->size)
        return 0;
    uint64_t more = MIN(IN_BYTES - left, s->file->size - c->packed);
    memmove(c->in, c->in + c->in_at, left);
    c->in_at = 0;
    c->in_have = left;
    TRY(co_blk_read_buf(s->file, c->packed, c->in + left, more));
    c->in_have += more;
    c->packed += more;
    return 0;
}

struct run_job {
    struct stream *s;
    void *decoder;
    struct stream_step step;
};

static int run_step(void *arg)
{
    struct run_job *j = arg;
    return j->s->kind->run(j->decoder, &j->step);
}

static void save_point(struct stream *s, struct stream_cursor *c)
{
    if (!s->kind->save || !point_is_wanted(s, c->plain))
        return;
    void *saved = s->kind->save(c->decoder);
    if (saved)
        stream_add_point(s, c->plain, c->packed - (c->in_have - c->in_at), saved);
}

/* One step: up to @bytes more. */
static int co_step(struct stream *s, struct stream_cursor *c, uint8_t *out, size_t bytes,
                   size_t *made, bool *ended)
{
    TRY(co_refill(s, c));
    struct run_job j = {.s = s,
                        .decoder = c->decoder,
                        .step = {.in = c->in + c->in_at,
                                 .in_bytes = c->in_have - c->in_at,
                                 .in_last = c->packed == s->file->size,
                                 .out = out,
                                 .out_bytes = bytes}};
    TRY(co_offload(run_step, &j));
    assert(j.step.in_used <= j.step.in_bytes && j.step.out_made <= bytes);
    c->in_at += j.step.in_used;
    c->plain += j.step.out_made;
    *made = j.step.out_made;
    *ended = j.step.ended;
    if (*ended)
        cursor_end(s, c);
    else if (j.step.in_used == 0 && j.step.out_made == 0)
        return -EIO; /* it is cut off */
    else if (j.step.out_made)
        save_point(s, c);
    return 0;
}

/* What is behind the last byte must be the end; checksums are looked at there. */
static int co_expect_end(struct stream *s, struct stream_cursor *c)
{
    bool ended = false;
    while (c->decoder && !ended) {
        uint8_t byte;
        size_t made;
        TRY(co_step(s, c, &byte, 1, &made, &ended));
        if (made)
            return -EIO;
    }
    return 0;
}

static int co_fill(struct stream *s, struct stream_cursor *c, uint8_t *out, size_t bytes)
{
    for (size_t done = 0, made; done < bytes; done += made) {
        bool ended;
        if (!c->decoder) {
            struct stream_point p;
            TRY(find_point(s, c->plain, &p));
            if (p.plain != c->plain)
                return -EIO; /* it ends before it should */
            TRY(cursor_begin(s, c, &p));
        }
        TRY(co_step(s, c, out + done, bytes - done, &made, &ended));
    }
    return c->plain == s->size ? co_expect_end(s, c) : 0;
}

int co_stream_measure(struct stream *s, const struct stream_point *p, uint64_t most, bool *ended,
                      uint64_t *plain, uint64_t *packed)
{
    struct stream_cursor *c = &s->cursors[0];
    uint8_t *scratch = buf_get(IN_BYTES);
    uint64_t from = p->plain; /* @p may be one of our points, which move when more are added */
    size_t made;
    int rc = scratch ? cursor_begin(s, c, p) : -ENOMEM;
    *ended = false;
    while (rc == 0 && !*ended && c->plain - from < most)
        rc = co_step(s, c, scratch, IN_BYTES, &made, ended);
    *plain = c->plain;
    *packed = c->packed - (c->in_have - c->in_at);
    buf_put(scratch, IN_BYTES);
    cursor_end(s, c);
    c->used = false;
    return rc;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static size_t piece_bytes(const struct stream *s, uint64_t at)
{
    return (size_t)MIN(PIECE_BYTES, s->size - at);
}

/* Up to the next piece's begin, from anywhere in one: into nothing. */
static int co_skip(struct stream *s, struct stream_cursor *c, uint64_t to)
{
    uint8_t *scratch = buf_get(IN_BYTES);
    int rc = scratch ? 0 : -ENOMEM;
    while (rc == 0 && c->plain < to)
        rc = co_fill(s, c, scratch, (size_t)MIN(IN_BYTES, to - c->plain));
    buf_put(scratch, IN_BYTES);
    return rc;
}

/* The piece at @at, where the cursor is; *out pinned, or NULL where somebody has it already. */
static int co_make_piece(struct stream *s, struct stream_cursor *c, uint64_t at, struct kept **out)
{
    size_t bytes = piece_bytes(s, at);
    struct kept *k = kept_find(&s->kept, at);
    *out = NULL;
    if (k) {
        kept_put(&s->kept, k);
        return co_skip(s, c, at + bytes);
    }
    k = kept_new(&s->kept, at, bytes);
    if (!k)
        return -ENOMEM;
    int rc = co_fill(s, c, k->data, bytes);
    kept_filled(&s->kept, k, rc);
    if (rc < 0)
        kept_put(&s->kept, k);
    else
        *out = k;
    return rc;
}

/* Drives @c on until the piece @at is there; *out pinned. */
static int co_drive(struct stream *s, struct stream_cursor *c, uint64_t at, struct kept **out)
{
    int rc = 0;
    *out = NULL;
    c->busy = true;
    c->used_at = ++s->clock;
    if (c->plain % PIECE_BYTES)
        rc = co_skip(s, c, MIN(align_up(c->plain, PIECE_BYTES), s->size));
    while (rc == 0 && c->plain <= at && !*out) {
        uint64_t piece = c->plain;
        rc = co_make_piece(s, c, piece, out);
        if (*out && piece != at) {
            kept_put(&s->kept, *out);
            *out = NULL;
        }
        co_queue_wake_all(&s->moved);
    }
    if (rc < 0) {
        cursor_end(s, c);
        c->used = false;
    }
    c->busy = false;
    co_queue_wake_all(&s->moved);
    return rc;
}

/* The cursor to drive on for @at: behind no point that would be nearer. NULL: none. */
static struct stream_cursor *nearest_cursor(struct stream *s, uint64_t at,
                                            const struct stream_point *p)
{
    struct stream_cursor *best = NULL;
    for (unsigned i = 0; i < s->cursor_count; i++) {
        struct stream_cursor *c = &s->cursors[i];
        if (c->used && c->plain <= at && c->plain >= p->plain && (!best || c->plain > best->plain))
            best = c;
    }
    return best;
}

/* One that nobody drives, the one used longest ago; NULL: all are busy. */
static struct stream_cursor *idle_cursor(struct stream *s)
{
    struct stream_cursor *best = NULL;
    for (unsigned i = 0; i < s->cursor_count; i++) {
        struct stream_cursor *c = &s->cursors[i];
        if (!c->busy && (!best || !c->used || (best->used && c->used_at < best->used_at)))
            best = c;
    }
    return best;
}

static int co_piece(struct stream *s, uint64_t at, struct kept **out)
{
    for (;;) {
        struct stream_point p;
        *out = kept_find(&s->kept, at);
        if (*out)
            return co_kept_wait(*out);
        TRY(find_point(s, at, &p));
        struct stream_cursor *c = nearest_cursor(s, at, &p);
        bool begin = !c;
        if (begin)
            c = idle_cursor(s);
        if (!c || c->busy) {
            co_queue_wait(&s->moved);
            continue;
        }
        if (begin)
            TRY(cursor_begin(s, c, &p));
        TRY(co_drive(s, c, at, out));
        if (*out)
            return 0;
    }
}

int co_stream_read(struct stream *s, uint64_t offset, const struct vec *to)
{
    for (uint64_t done = 0, n; done < to->bytes; done += n) {
        uint64_t at = align_down(offset + done, PIECE_BYTES);
        uint64_t in_piece = offset + done - at;
        struct kept *k = NULL;
        n = MIN(to->bytes - done, piece_bytes(s, at) - in_piece);
        int rc = co_piece(s, at, &k);
        if (rc == 0) {
            struct vec part = vec_slice(to, done, n);
            vec_from_buf(&part, k->data + in_piece);
        }
        if (k)
            kept_put(&s->kept, k);
        TRY(rc);
    }
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

int stream_init(struct stream *s, const struct stream_kind *kind, struct blk_device *file,
                const struct opts *opts)
{
    s->kind = kind;
    s->file = file;
    s->cursor_count = STREAM_CURSORS;
    s->spacing = FIRST_SPACING;
    s->points_limit = opts_number(opts, "index-size");
    kept_init(&s->kept, opts_number(opts, "cache-size"));
    s->points = mem_array(16, sizeof(*s->points)); /* the first is the start */
    s->point_room = 16;
    s->point_count = 1;
    return s->points ? 0 : -ENOMEM;
}

void stream_drop(struct stream *s)
{
    for (unsigned i = 0; i < STREAM_CURSORS; i++) {
        cursor_end(s, &s->cursors[i]);
        mem_free(s->cursors[i].in);
    }
    for (size_t i = 0; s->points && i < s->point_count; i++)
        drop_point(s, &s->points[i]);
    mem_free(s->points);
    kept_drop(&s->kept);
}

int stream_info(const struct stream *s, struct blk_info *out, struct blk_error *e)
{
    if (!s->estimated)
        return 0;
    out->specific = json_pack("{s:b}", "size-estimated", 1);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - moves what overlays hold into an image below them.
 *
 *   1 base grows to the size of top, if it is smaller
 *   2 every extent that a layer above base determines is copied into base, inside the kernel where
 *     both sides know its place in a file
 *   3 base is flushed: from here on it shows what top shows
 *   4 top lets go of what it holds (unless it is to keep it), entry by entry; until an entry is
 *     gone it hides the same bytes in base
 * So after a crash at any instant top shows what it showed. Images between the two show a mixture
 * from step 2 on: base has changed under them. */
#include "block/chain.h"

#define PIECE_BYTES (1 * MiB)
#define ZERO_STEP   (1 * GiB)
#define IN_FLIGHT   8

struct piece {
    struct commit *c;
    uint64_t offset, bytes;
    bool zero, busy;
};

struct commit {
    const struct blk_commit *what;
    struct co_group group;
    struct piece pieces[IN_FLIGHT + 1]; /* one more than run: it is filled before it may start */
};

static int co_through_memory(const struct blk_commit *w, uint64_t offset, uint64_t bytes)
{
    void *buf = buf_get(PIECE_BYTES);
    if (!buf)
        return -ENOMEM;
    int rc = co_blk_read_buf(w->top, offset, buf, bytes);
    if (rc == 0)
        rc = co_blk_write_buf(w->base, offset, buf, bytes, 0);
    buf_put(buf, PIECE_BYTES);
    return rc;
}

static int co_piece(void *arg)
{
    struct piece *p = arg;
    const struct blk_commit *w = p->c->what;
    int rc;
    if (p->zero) {
        rc = co_blk_write_zeroes(w->base, p->offset, p->bytes, BLK_MAY_UNMAP);
    } else {
        rc = co_blk_copy(w->base, p->offset, w->top, p->offset, p->bytes);
        if (rc == -ENOTSUP)
            rc = co_through_memory(w, p->offset, p->bytes);
    }
    if (rc == 0 && w->job)
        rc = co_job_step(w->job, p->bytes);
    p->busy = false;
    return rc;
}

static void start(struct commit *c, uint64_t offset, uint64_t bytes, bool zero)
{
    struct piece *p = c->pieces;
    while (p->busy) /* at most group.limit of them are */
        p++;
    assert(p < c->pieces + ARRAY_LEN(c->pieces));
    *p = (struct piece){.c = c, .offset = offset, .bytes = bytes, .zero = zero, .busy = true};
    co_group_start(&c->group, co_piece, p);
}

static int co_walk(struct commit *c)
{
    const struct blk_commit *w = c->what;
    for (uint64_t at = 0; at < w->top->size && !co_group_failed(&c->group);) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(w->top, w->base, at, w->top->size - at, &ext, &depth));
        uint64_t end = at + ext.bytes;
        bool zero = ext.flags & BLK_EXT_ZERO;
        if (!(ext.flags & (BLK_EXT_DATA | BLK_EXT_ZERO))) { /* base shows it */
            if (w->job)
                w->job->done += ext.bytes;
            at = end;
        }
        while (at < end && !co_group_failed(&c->group)) {
            uint64_t step = zero ? ZERO_STEP : PIECE_BYTES;
            uint64_t n = MIN(end - at, step - at % step);
            start(c, at, n, zero);
            at += n;
        }
        if (w->job && w->job->cancel_asked)
            return -ECANCELED;
    }
    return 0;
}

static int co_copy_down(const struct blk_commit *w, struct blk_error *e)
{
    struct commit *c = mem_zalloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    c->what = w;
    co_group_init(&c->group, IN_FLIGHT);
    int rc = co_walk(c);
    int done = co_group_wait(&c->group);
    mem_free(c);
    rc = rc < 0 ? rc : done;
    return rc < 0 ? err_errno(e, rc, "cannot copy from %s to %s", w->top->name, w->base->name) : 0;
}

int co_blk_commit(const struct blk_commit *w, struct blk_error *e)
{
    assert(w->base->writable && (w->keep || w->top->writable));
    if (w->job)
        w->job->total = w->top->size;
    if (w->base->size < w->top->size) /* 1 */
        TRY(co_blk_resize(w->base, w->top->size, false, e));
    TRY(co_copy_down(w, e));        /* 2 */
    int rc = co_blk_flush(w->base); /* 3 */
    if (rc < 0)
        return err_errno(e, rc, "%s cannot be made durable", w->base->name);
    if (w->keep)
        return 0;
    rc = co_blk_make_empty(w->top, e); /* 4 */
    return rc == -ENOTSUP ? 0 : rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* commit.c - moves what overlays hold into an image below them.
 *
 *   0 where top says by a UUID who base is, and base gets another one when it changes: top says
 *     nothing of it until step 3 is done
 *   1 base grows to the size of top, if it is smaller
 *   2 every extent that a layer above base determines is copied into base, inside the kernel where
 *     both sides know its place in a file
 *   3 base is flushed: from here on it shows what top shows
 *   4 top lets go of what it holds (unless it is to keep it), entry by entry; until an entry is
 *     gone it hides the same bytes in base
 * So after a crash at any instant top shows what it showed. Images between the two show a mixture
 * from step 2 on: base has changed under them. */
#include "block/chain.h"
#include "block/pieces.h"

#define PIECE_BYTES (1 * MiB)
#define ZERO_STEP   (1 * GiB)
#define IN_FLIGHT   8

enum { DATA, ZERO };

static int co_piece(struct piece *p)
{
    const struct blk_commit *w = p->all->arg;
    if (p->kind == ZERO)
        return co_blk_write_zeroes(w->base, p->offset, p->bytes, BLK_MAY_UNMAP);
    int rc = co_blk_copy(w->base, p->offset, w->top, p->offset, p->bytes);
    return rc == -ENOTSUP
               ? co_blk_copy_through_memory(w->base, p->offset, w->top, p->offset, p->bytes)
               : rc;
}

static int co_walk(const struct blk_commit *w, struct pieces *p)
{
    for (uint64_t at = 0; at < w->top->size && !pieces_stopped(p);) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(w->top, w->base, at, w->top->size - at, &ext, &depth));
        uint64_t end = at + ext.bytes;
        unsigned kind = ext.flags & BLK_EXT_ZERO ? ZERO : DATA;
        if (!(ext.flags & (BLK_EXT_DATA | BLK_EXT_ZERO))) { /* base shows it */
            pieces_pass(p, ext.bytes);
            at = end;
        }
        while (at < end && !pieces_stopped(p)) {
            uint64_t step = kind == ZERO ? ZERO_STEP : PIECE_BYTES;
            uint64_t n = MIN(end - at, step - at % step);
            pieces_give(p, at, n, kind);
            at += n;
        }
    }
    return 0;
}

static int co_copy_down(const struct blk_commit *w, struct blk_error *e)
{
    struct pieces p = {.co_work = co_piece, .arg = (void *)w, .job = w->job, .limit = IN_FLIGHT};
    pieces_init(&p);
    int rc = co_walk(w, &p);
    int done = pieces_wait(&p);
    rc = rc < 0 ? rc : done;
    return rc < 0 ? err_errno(e, rc, "cannot copy from %s to %s", w->top->name, w->base->name) : 0;
}

int co_blk_commit(const struct blk_commit *w, struct blk_error *e)
{
    assert(w->base->writable && (w->keep || w->top->writable));
    if (w->job)
        w->job->total = w->top->size;
    bool above = blk_child(w->top, "backing") == w->base && w->top->writable;
    if (above) /* 0 */
        TRY(co_blk_identify_backing(w->top, NULL, e));
    if (w->base->size < w->top->size) /* 1 */
        TRY(co_blk_resize(w->base, w->top->size, false, e));
    TRY(co_copy_down(w, e));        /* 2 */
    int rc = co_blk_flush(w->base); /* 3 */
    if (rc < 0)
        return err_errno(e, rc, "%s cannot be made durable", w->base->name);
    if (above)
        TRY(co_blk_identify_backing(w->top, w->base, e));
    if (w->keep)
        return 0;
    rc = co_blk_make_empty(w->top, e); /* 4 */
    return rc == -ENOTSUP ? 0 : rc;
}

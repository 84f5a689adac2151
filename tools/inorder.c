/* SPDX-License-Identifier: BSD-3-Clause */
/* inorder.c - pieces of a disk: read at once, used in order by whoever finds the next one ready.
 * Memory is INORDER_SLOTS pieces, whatever the disk's size. */
#include "tools/inorder.h"

#include "block/co.h"

#define ZERO_PIECE (256 * MiB)

static void failed(struct inorder *w, int rc)
{
    if (w->rc == 0)
        w->rc = rc;
}

/* --- pieces --- */

static int run_prepare(void *arg)
{
    struct inorder_piece *p = arg;
    return p->all->prepare(p);
}

static int run_use(void *arg)
{
    struct inorder_piece *p = arg;
    return p->all->use(p);
}

static void co_use(struct inorder_piece *p)
{
    struct inorder *w = p->all;
    failed(w, p->rc);
    if (w->rc == 0)
        failed(w, w->use_blocks ? co_blocking(run_use, p) : co_offload(run_use, p));
    if (p->data)
        buf_put(p->data, INORDER_PIECE);
    p->data = NULL;
    p->ready = false;
    if (w->rc == 0 && w->job)
        failed(w, co_job_step(w->job, p->bytes));
}

static void co_use_ready(struct inorder *w)
{
    if (w->using)
        return;
    w->using = true;
    while (w->first < w->next && w->pieces[w->first % INORDER_SLOTS].ready) {
        co_use(&w->pieces[w->first % INORDER_SLOTS]);
        w->first++;
        co_queue_wake_all(&w->room);
    }
    w->using = false;
}

static int co_load(struct inorder_piece *p)
{
    struct inorder *w = p->all;
    p->data = buf_get(INORDER_PIECE);
    int rc = p->data ? co_blk_read_buf(w->dev, p->offset, p->data, p->bytes) : -ENOMEM;
    if (rc < 0) {
        if (w->error->rc == 0) /* the first is told */
            err_errno(w->error, rc, "error while reading at byte %" PRIu64, p->offset);
        return rc;
    }
    if (w->co_more)
        TRY(w->co_more(p));
    return w->prepare ? co_offload(run_prepare, p) : 0;
}

static int co_piece(void *arg)
{
    struct inorder_piece *p = arg;
    p->rc = co_load(p);
    p->ready = true;
    co_use_ready(p->all);
    return 0;
}

static void co_give(struct inorder *w, uint64_t offset, uint64_t bytes, bool zero)
{
    while (w->next - w->first == INORDER_SLOTS)
        co_queue_wait(&w->room);
    unsigned slot = w->next++ % INORDER_SLOTS;
    struct inorder_piece *p = &w->pieces[slot];
    *p = (struct inorder_piece){
        .all = w, .slot = slot, .offset = offset, .bytes = bytes, .ready = zero};
    if (zero)
        co_use_ready(w);
    else
        co_group_start(&w->group, co_piece, p);
}

/* --- the walk --- */

/* A run that is all zeroes, or not, in whole blocks but for the end. */
static int co_status_run(struct inorder *w, uint64_t at, uint64_t *run, enum inorder_kind *kind)
{
    struct blk_extent ext;
    unsigned depth;
    int rc = co_blk_map_chain(w->dev, NULL, at, w->bytes - at, &ext, &depth);
    if (rc < 0)
        return err_errno(w->error, rc, "error while reading block status at byte %" PRIu64, at);
    uint64_t to = at + ext.bytes;
    bool zero =
        (ext.flags & BLK_EXT_ZERO) && (to == w->bytes || align_down(to, INORDER_BLOCK) > at);
    if (to < w->bytes)
        to = zero ? align_down(to, INORDER_BLOCK) : MIN(align_up(to, INORDER_BLOCK), w->bytes);
    *run = to - at;
    *kind = zero ? INORDER_ZERO : INORDER_DATA;
    return 0;
}

static int co_give_run(struct inorder *w, uint64_t at, uint64_t run, enum inorder_kind kind)
{
    bool zero = kind == INORDER_ZERO;
    for (uint64_t end = at + run, n; at < end; at += n) {
        n = MIN(end - at, zero ? ZERO_PIECE : INORDER_PIECE);
        if (w->rc < 0)
            return w->rc;
        co_give(w, at, n, zero);
    }
    return 0;
}

static int co_walk(struct inorder *w)
{
    for (uint64_t at = 0, run = 0; at < w->bytes; at += run) {
        enum inorder_kind kind;
        TRY((w->co_run ? w->co_run : co_status_run)(w, at, &run, &kind));
        if (kind != INORDER_SKIP)
            TRY(co_give_run(w, at, run, kind));
        else if (w->job)
            TRY(co_job_step(w->job, run));
    }
    return 0;
}

int co_inorder(struct inorder *w)
{
    assert(w->bytes <= w->dev->size);
    co_group_init(&w->group, 0);
    failed(w, co_walk(w));
    while (w->first < w->next) /* also after an error: their memory is theirs until then */
        co_queue_wait(&w->room);
    failed(w, co_group_wait(&w->group));
    return w->rc;
}

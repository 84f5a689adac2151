/* SPDX-License-Identifier: BSD-3-Clause */
/* pieces.c - pieces of a disk, a few in flight. */
#include "block/pieces.h"

void pieces_init(struct pieces *p)
{
    assert(p->co_work && p->limit > 0 && p->limit <= PIECES_MAX);
    co_group_init(&p->group, p->limit);
}

static int co_piece(void *arg)
{
    struct piece *p = arg;
    struct pieces *all = p->all;
    int rc = all->co_work(p);
    if (rc == 0 && all->job)
        rc = co_job_step(all->job, p->bytes);
    p->busy = false;
    return rc;
}

void pieces_give(struct pieces *all, uint64_t offset, uint64_t bytes, unsigned kind)
{
    struct piece *p = all->slots;
    while (p->busy) /* at most @limit of them are */
        p++;
    assert(p < all->slots + ARRAY_LEN(all->slots));
    *p = (struct piece){.all = all, .offset = offset, .bytes = bytes, .kind = kind, .busy = true};
    co_group_start(&all->group, co_piece, p);
}

void pieces_pass(struct pieces *p, uint64_t bytes)
{
    if (!p->job)
        return;
    p->job->done += bytes;
    if (p->job->on_event)
        p->job->on_event(p->job);
}

bool pieces_stopped(const struct pieces *p)
{
    return co_group_failed(&p->group) || (p->job && p->job->cancel_asked);
}

int pieces_wait(struct pieces *p)
{
    int rc = co_group_wait(&p->group);
    return rc == 0 && p->job && p->job->cancel_asked ? -ECANCELED : rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* seat_walk.c - planning is a call to the seat's home for each piece, so that the device is looked
 * at only where nobody exchanges it meanwhile; the pieces then go there side by side. */
#include "block/seat_walk.h"

#define PIECE_BYTES (1 * MiB)
#define FREE_STEP   (1 * GiB)

struct visit {
    struct seat_walk *walk;
    struct seat_stretch s;
};

static int co_work_at_home(void *arg)
{
    const struct visit *v = arg;
    return v->walk->co_work(v->walk->arg, &v->s);
}

static int co_piece(struct piece *p)
{
    struct visit v = {.walk = p->all->arg, .s = {.offset = p->offset, .bytes = p->bytes}};
    return co_on(v.walk->seat->home, co_work_at_home, &v);
}

static int co_plan_at_home(void *arg)
{
    struct visit *v = arg;
    return v->walk->co_plan(v->walk->arg, &v->s);
}

static int co_give_out(struct seat_walk *w, struct pieces *p)
{
    uint64_t size = w->seat->size;
    for (uint64_t at = 0; at < size && !pieces_stopped(p);) {
        struct visit v = {.walk = w, .s = {.offset = at, .bytes = size - at}};
        TRY(co_on(w->seat->home, co_plan_at_home, &v));
        if (v.s.pass)
            pieces_pass(p, v.s.bytes);
        else
            pieces_give(p, at, v.s.bytes, 0);
        at += v.s.bytes;
    }
    return 0;
}

int co_seat_walk(struct seat_walk *w)
{
    struct pieces p = {.co_work = co_piece, .arg = w, .job = w->job, .limit = w->in_flight};
    pieces_init(&p);
    int rc = co_give_out(w, &p);
    int done = pieces_wait(&p);
    return rc < 0 ? rc : done;
}

void seat_stretch_cut(struct seat_stretch *s, const struct granules *left,
                      const struct blk_extent *x)
{
    bool data = x->flags & BLK_EXT_DATA && !(x->flags & BLK_EXT_ZERO);
    uint64_t most = MAX(data ? PIECE_BYTES : FREE_STEP, granule_bytes(left));
    s->bytes = MIN(MAX(MIN(x->bytes, most), PIECE_BYTES), s->bytes);
    granules_widen(left, &s->offset, &s->bytes);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* worker_timer.c - the timers of a worker: a pairing heap linked through the timers themselves, so
 * arming cannot fail. Timers due at the same time fire in the order in which they were armed. */
#include "block/host.h"
#include "block/worker_priv.h"

static bool sooner(const struct timer *a, const struct timer *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

/* Two heaps become one. A root has neither next nor prev. prev of a first child is its parent. */
static struct timer *meld(struct timer *a, struct timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (sooner(b, a)) {
        struct timer *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    if (b->next)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

/* A list of siblings becomes one heap: by pairs, then from the last pair to the first. */
static struct timer *meld_siblings(struct timer *first)
{
    struct timer *pairs = NULL, *heap = NULL;

    while (first) {
        struct timer *a = first, *b = a->next;
        first = b ? b->next : NULL;
        a->next = a->prev = NULL;
        if (b)
            b->next = b->prev = NULL;
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs) {
        struct timer *rest = pairs->next;
        pairs->next = NULL;
        heap = meld(heap, pairs);
        pairs = rest;
    }
    return heap;
}

static void unlink_timer(struct worker_core *w, struct timer *t)
{
    if (t == w->timers) {
        w->timers = meld_siblings(t->child);
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next)
            t->next->prev = t->prev;
        t->next = t->prev = NULL;
        w->timers = meld(w->timers, meld_siblings(t->child));
    }
    t->child = t->next = t->prev = NULL;
    t->seq = 0;
}

void timer_arm(struct timer *t, uint64_t at_ns, void (*fn)(struct timer *t))
{
    struct worker_core *w = core_self();

    assert(w);
    if (t->seq)
        unlink_timer(w, t);
    *t = (struct timer){.at_ns = at_ns, .fn = fn, .seq = ++w->timer_seq};
    w->timers = meld(w->timers, t);
}

void timer_cancel(struct timer *t)
{
    if (t->seq)
        unlink_timer(core_self(), t);
}

bool timers_run(struct worker_core *w, uint64_t now)
{
    uint64_t newest = w->timer_seq; /* what is armed from now on waits for the next turn */
    bool any = false;

    while (w->timers && w->timers->at_ns <= now && w->timers->seq <= newest) {
        struct timer *t = w->timers;
        unlink_timer(w, t);
        t->fn(t);
        any = true;
    }
    return any;
}

uint64_t worker_next_timer(const struct worker *pub)
{
    const struct worker_core *w = container_of(pub, struct worker_core, pub);

    return w->timers ? w->timers->at_ns : UINT64_MAX;
}

uint64_t worker_now(void)
{
    struct worker_core *w = core_self();

    assert(w);
    return w->pub.host->ops->now(w->pub.host);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* co_sync.c - the vocabulary of waiting. Nothing here is atomic: all users are coroutines of one
 * worker. What is released is handed to the first that waits, so nobody can overtake. A stray wake
 * of a sleeping coroutine (one remembered by co_wake()) is harmless: each looks again. */
#include "block/co.h"
#include "block/worker_priv.h"

/* --- queue ------------------------------------------------------------------------------------ */

struct co_waiter {
    struct co_waiter *next;
    struct co *co;
    bool woken;
    bool writer; /* of a co_rwlock */
};

static void queue_add(struct co_queue *q, struct co_waiter *w)
{
    if (q->last)
        q->last->next = w;
    else
        q->first = w;
    q->last = w;
}

static struct co_waiter *queue_take(struct co_queue *q)
{
    struct co_waiter *w = q->first;

    if (!w)
        return NULL;
    q->first = w->next;
    if (!q->first)
        q->last = NULL;
    return w;
}

/* Not inlined: the compiler would warn of the waiter's address left in the queue, not knowing that
 * whoever sets @woken has taken it out. */
static __attribute__((noinline)) void queue_sleep(struct co_queue *q, struct co_waiter *w)
{
    w->co = co_self();
    assert(w->co);
    queue_add(q, w);
    while (!w->woken)
        co_suspend();
}

static struct co *queue_wake(struct co_queue *q)
{
    struct co_waiter *w = queue_take(q);

    if (!w)
        return NULL;
    w->woken = true;
    co_wake(w->co);
    return w->co;
}

void co_queue_wait(struct co_queue *q)
{
    struct co_waiter w = {0};

    queue_sleep(q, &w);
}

bool co_queue_wake_one(struct co_queue *q)
{
    return queue_wake(q) != NULL;
}

void co_queue_wake_all(struct co_queue *q)
{
    while (queue_wake(q))
        continue;
}

bool co_queue_empty(const struct co_queue *q)
{
    return q->first == NULL;
}

/* --- mutex ------------------------------------------------------------------------------------ */

void co_mutex_lock(struct co_mutex *m)
{
    struct co *self = co_self();

    assert(self && m->holder != self);
    if (!m->holder) {
        m->holder = self;
        return;
    }
    co_queue_wait(&m->waiters);
    assert(m->holder == self);
}

void co_mutex_unlock(struct co_mutex *m)
{
    assert_held(m);
    m->holder = queue_wake(&m->waiters);
}

/* --- readers and writers ---------------------------------------------------------------------- */

static void rwlock_wait(struct co_rwlock *l, bool writer)
{
    struct co_waiter w = {.writer = writer};

    queue_sleep(&l->waiters, &w);
}

void co_rwlock_read(struct co_rwlock *l)
{
    if (l->writer || !co_queue_empty(&l->waiters))
        rwlock_wait(l, false);
    else
        l->readers++;
}

void co_rwlock_write(struct co_rwlock *l)
{
    if (l->writer || l->readers || !co_queue_empty(&l->waiters))
        rwlock_wait(l, true);
    else
        l->writer = true;
}

void co_rwlock_unlock(struct co_rwlock *l)
{
    assert(l->writer || l->readers);
    if (l->writer)
        l->writer = false;
    else
        l->readers--;
    while (l->waiters.first && !l->writer) {
        bool writer = l->waiters.first->writer;
        if (writer && l->readers)
            return;
        if (writer)
            l->writer = true;
        else
            l->readers++;
        queue_wake(&l->waiters);
    }
}

/* --- byte ranges ------------------------------------------------------------------------------ */

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    if (a_bytes == 0 || b_bytes == 0)
        return false;
    return a >= b ? a - b < b_bytes : b - a < a_bytes;
}

static bool conflicts(const struct co_range_hold *h, uint64_t offset, uint64_t bytes, bool shared)
{
    return !(h->shared && shared) && overlap(h->offset, h->bytes, offset, bytes);
}

/* True if none that came before @end conflicts (@end NULL: none at all). */
static bool range_clear(const struct co_range *r, const struct co_range_hold *end, uint64_t offset,
                        uint64_t bytes, bool shared)
{
    for (const struct co_range_hold *h = r->first; h != end; h = h->next)
        if (conflicts(h, offset, bytes, shared))
            return false;
    return true;
}

bool co_range_free(const struct co_range *r, uint64_t offset, uint64_t bytes, bool shared)
{
    return range_clear(r, NULL, offset, bytes, shared);
}

static void range_add(struct co_range *r, struct co_range_hold *hold)
{
    hold->next = NULL;
    hold->prev = r->last;
    if (r->last)
        r->last->next = hold;
    else
        r->first = hold;
    r->last = hold;
}

bool co_range_trylock(struct co_range *r, struct co_range_hold *hold, uint64_t offset,
                      uint64_t bytes, bool shared)
{
    if (!co_range_free(r, offset, bytes, shared))
        return false;
    *hold = (struct co_range_hold){
        .offset = offset, .bytes = bytes, .shared = shared, .granted = true, .co = co_self()};
    range_add(r, hold);
    return true;
}

void co_range_lock(struct co_range *r, struct co_range_hold *hold, uint64_t offset, uint64_t bytes,
                   bool shared)
{
    if (co_range_trylock(r, hold, offset, bytes, shared))
        return;
    *hold =
        (struct co_range_hold){.offset = offset, .bytes = bytes, .shared = shared, .co = co_self()};
    range_add(r, hold);
    while (!hold->granted)
        co_suspend();
}

void co_range_unlock(struct co_range *r, struct co_range_hold *hold)
{
    assert(hold->granted);
    *(hold->prev ? &hold->prev->next : &r->first) = hold->next;
    *(hold->next ? &hold->next->prev : &r->last) = hold->prev;
    for (struct co_range_hold *h = hold->next; h; h = h->next) {
        if (h->granted || !conflicts(hold, h->offset, h->bytes, h->shared))
            continue;
        if (!range_clear(r, h, h->offset, h->bytes, h->shared))
            continue;
        h->granted = true;
        co_wake(h->co);
    }
}

/* --- fork and join ---------------------------------------------------------------------------- */

void co_group_init(struct co_group *g, unsigned limit)
{
    *g = (struct co_group){.limit = limit};
}

void co_group_ended(struct co_group *g, int rc)
{
    assert(g->running > 0);
    g->running--;
    if (rc < 0 && g->rc == 0)
        g->rc = rc;
    if (g->room.first)
        co_queue_wake_one(&g->room);
    if (g->running == 0 && g->done.first)
        co_queue_wake_all(&g->done);
}

void co_group_start(struct co_group *g, int (*fn)(void *arg), void *arg)
{
    while (g->limit && g->running >= g->limit)
        co_queue_wait(&g->room);
    g->running++;
    if (co_start_child(g, fn, arg) < 0)
        co_group_ended(g, fn(arg));
}

bool co_group_failed(const struct co_group *g)
{
    return g->rc < 0;
}

int co_group_wait(struct co_group *g)
{
    while (g->running)
        co_queue_wait(&g->done);
    return g->rc;
}

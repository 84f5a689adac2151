/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.c - the loop of a worker, messages between workers, and the runtime that holds them.
 *
 * One turn of a loop: the mailbox, due timers, the coroutines that are ready. When nothing is ready
 * any more: the turn hooks (batches are sent), then the host's wait. The mailbox is a lock-free
 * stack, turned round when it is read; its receiver is woken only if it said that it sleeps. It
 * says so, then looks into the mailbox once more; a sender puts the message in, then looks whether
 * the receiver sleeps; both orders sequentially consistent, so one of the two sees the other. */
#include "block/worker.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/host.h"
#include "block/worker_priv.h"

#define BUSY_TURNS     16 /* turns in a row after which the host is asked even if more is ready */
#define BLOCKING_WIDTH 32 /* threads at most for system calls that block */

/* --- who am I --------------------------------------------------------------------------------- */

static __thread struct worker_core *self_core;

/* Never inlined, never folded: a coroutine asks again after a switch, when under host_sim another
 * worker may have been current in between. */
__attribute__((noinline)) struct worker_core *core_self(void)
{
    __asm__ volatile("" ::: "memory");
    return self_core;
}

struct worker *worker_self(void)
{
    struct worker_core *w = core_self();

    return w ? &w->pub : NULL;
}

struct worker *worker_enter(struct worker *w)
{
    struct worker *before = worker_self();

    self_core = w ? container_of(w, struct worker_core, pub) : NULL;
    return before;
}

/* --- messages --------------------------------------------------------------------------------- */

static void worker_kick(struct worker_core *w)
{
    if (atomic_load(&w->asleep) && atomic_exchange(&w->asleep, false))
        w->pub.host->ops->wake(&w->pub);
}

void worker_post(struct worker *pub, struct worker_msg *m)
{
    struct worker_core *w = container_of(pub, struct worker_core, pub);
    struct worker_msg *head = atomic_load(&w->mail);

    do
        m->next = head;
    while (!atomic_compare_exchange_weak(&w->mail, &head, m));
    worker_kick(w);
}

static bool mail_run(struct worker_core *w)
{
    if (!atomic_load(&w->mail))
        return false;
    struct worker_msg *m = atomic_exchange(&w->mail, NULL), *in_order = NULL;
    while (m) {
        struct worker_msg *next = m->next;
        m->next = in_order;
        in_order = m;
        m = next;
    }
    while (in_order) {
        struct worker_msg *next = in_order->next; /* fn may give the message back */
        in_order->fn(in_order);
        in_order = next;
    }
    return true;
}

struct hop {
    struct worker_msg msg;
    int (*fn)(void *arg);
    void *arg;
    int rc;
    bool done;
    struct worker *from, *to;
    struct co *co;
};

static void hop_back(struct worker_msg *msg)
{
    struct hop *hop = container_of(msg, struct hop, msg);

    hop->done = true;
    co_wake(hop->co);
}

static void hop_finish(struct hop *hop, int rc)
{
    hop->rc = rc;
    hop->msg.fn = hop_back;
    worker_post(hop->from, &hop->msg);
}

static void hop_main(void *arg)
{
    struct hop *hop = arg;

    hop_finish(hop, hop->fn(hop->arg));
}

static void hop_arrive(struct worker_msg *msg)
{
    struct hop *hop = container_of(msg, struct hop, msg);

    if (co_start(hop_main, hop) < 0)
        hop_finish(hop, -ENOMEM);
}

int co_on(struct worker *w, int (*fn)(void *arg), void *arg)
{
    struct hop hop = {.msg.fn = hop_arrive,
                      .fn = fn,
                      .arg = arg,
                      .from = worker_self(),
                      .to = w,
                      .co = co_self()};

    if (w == hop.from)
        return fn(arg);
    assert(hop.co);
    worker_post(w, &hop.msg);
    while (!hop.done)
        co_suspend();
    return hop.rc;
}

/* --- the loop --------------------------------------------------------------------------------- */

static void hook_add(struct hook_list *list, struct turn_hook *h)
{
    *(list->last ? &list->last->next : &list->first) = h;
    list->last = h;
}

static struct turn_hook *hook_take(struct hook_list *list)
{
    struct turn_hook *h = list->first;

    if (!h)
        return NULL;
    list->first = h->next;
    if (!list->first)
        list->last = NULL;
    return h;
}

void worker_at_turn_end(struct turn_hook *h, void (*fn)(struct turn_hook *h))
{
    struct worker_core *w = core_self();

    assert(w);
    if (h->armed)
        return;
    *h = (struct turn_hook){.fn = fn, .armed = true};
    hook_add(h == w->running_hook ? &w->again : &w->hooks, h);
}

/* A hook that arms itself is no reason for another turn: else the loop would never sleep. */
static bool hooks_run(struct worker_core *w, bool any)
{
    struct turn_hook *h;

    w->busy_turns = 0;
    if (!any && !w->hooks.first)
        return false;
    struct hook_list again = w->again;
    w->again = (struct hook_list){0};
    while ((h = hook_take(&again)) || (h = hook_take(&w->hooks))) {
        h->armed = false;
        w->running_hook = h;
        h->fn(h);
        w->running_hook = NULL;
        any = true;
    }
    return any;
}

static bool ready_run(struct worker_core *w)
{
    struct co *first = w->ready_first;

    if (!first)
        return false;
    w->ready_first = w->ready_last = NULL;
    co_run_ready(w, first);
    return true;
}

bool worker_turn(struct worker *pub)
{
    struct worker_core *w = container_of(pub, struct worker_core, pub);
    bool any = mail_run(w);

    if (w->timers)
        any |= timers_run(w, worker_now());
    any |= ready_run(w);
    if (!w->ready_first || ++w->busy_turns >= BUSY_TURNS)
        any = hooks_run(w, any);
    return any;
}

static void worker_sleep(struct worker_core *w)
{
    uint64_t deadline = worker_next_timer(&w->pub);

    atomic_store(&w->asleep, true);
    if (atomic_load(&w->mail) || atomic_load(&w->stop))
        deadline = 0;
    w->pub.host->ops->wait(&w->pub, deadline);
    atomic_store(&w->asleep, false);
}

/* Runs until *done, which only this worker's coroutines set, or until told to stop. */
static void worker_loop(struct worker_core *w, const bool *done)
{
    unsigned turns = 0;

    while (!(done && *done) && !atomic_load(&w->stop)) {
        bool any = worker_turn(&w->pub);
        if (done && *done)
            return;
        if (!any || (!w->ready_first && !atomic_load(&w->mail))) {
            worker_sleep(w);
            turns = 0;
        } else if (++turns >= BUSY_TURNS) {
            w->pub.host->ops->wait(&w->pub, 0);
            turns = 0;
        }
    }
}

/* --- the runtime ------------------------------------------------------------------------------ */

struct starting {
    struct worker_core *worker;
    pthread_mutex_t lock;
    pthread_cond_t up;
    bool is_up;
    int rc;
};

static int worker_attach(struct worker_core *w)
{
    return w->pub.host->ops->attach(w->pub.host, &w->pub);
}

static void worker_detach(struct worker_core *w)
{
    struct worker *before = worker_enter(&w->pub);

    while (worker_turn(&w->pub))
        continue;
    assert(w->live == 0); /* a coroutine would be left behind */
    w->pub.host->ops->detach(&w->pub);
    co_free_stacks(w);
    bufs_free(w);
    worker_enter(before);
}

static void wait_for_others(struct runtime *rt)
{
    pthread_mutex_lock(&rt->lock);
    rt->ended++;
    pthread_cond_broadcast(&rt->changed);
    while (!rt->may_detach)
        pthread_cond_wait(&rt->changed, &rt->lock);
    pthread_mutex_unlock(&rt->lock);
}

static void *worker_main(void *arg)
{
    struct starting *s = arg;
    struct worker_core *w = s->worker;
    char name[16];

    snprintf(name, sizeof(name), "worker %u", w->pub.index % 1000);
    pthread_setname_np(pthread_self(), name);
    worker_enter(&w->pub);
    int rc = worker_attach(w);
    pthread_mutex_lock(&s->lock);
    s->rc = rc;
    s->is_up = true;
    pthread_cond_signal(&s->up);
    pthread_mutex_unlock(&s->lock); /* @s is gone from here on */
    if (rc == 0) {
        worker_loop(w, NULL);
        wait_for_others(w->pub.runtime);
        worker_detach(w);
    }
    return NULL;
}

static int worker_start(struct worker_core *w)
{
    struct starting s = {
        .worker = w, .lock = PTHREAD_MUTEX_INITIALIZER, .up = PTHREAD_COND_INITIALIZER};

    int rc = thread_start(&w->thread, MiB, worker_main, &s);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&s.lock);
    while (!s.is_up)
        pthread_cond_wait(&s.up, &s.lock);
    pthread_mutex_unlock(&s.lock);
    pthread_cond_destroy(&s.up);
    pthread_mutex_destroy(&s.lock);
    if (s.rc < 0)
        pthread_join(w->thread, NULL);
    return s.rc;
}

static bool threaded(const struct runtime *rt, unsigned index)
{
    return index > 0 && !rt->host->ops->drive;
}

/* Adds the next worker, attached, on a thread of its own where it needs one. */
static int runtime_add(struct runtime *rt)
{
    struct worker_core *w = aligned_alloc(64, align_up(sizeof(*w), 64));
    int rc;

    if (!w)
        return -ENOMEM;
    memset(w, 0, sizeof(*w));
    w->pub = (struct worker){.runtime = rt, .host = rt->host, .index = rt->worker_count};
    /* In place before the worker runs: what it does may look for it. */
    rt->workers[rt->worker_count] = w;
    if (threaded(rt, rt->worker_count)) {
        rc = worker_start(w);
    } else {
        struct worker *before = worker_enter(&w->pub);
        rc = worker_attach(w);
        worker_enter(before);
    }
    if (rc < 0) {
        free(w);
        return rc;
    }
    rt->worker_count++;
    return 0;
}

static unsigned cpus_allowed(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return MAX(1u, (unsigned)CPU_COUNT(&set));
}

int runtime_open(const struct runtime_options *o, struct runtime **out)
{
    unsigned workers = MAX(1u, o->workers);
    struct runtime *rt = mem_zalloc(sizeof(*rt));
    int rc = -ENOMEM;

    if (!rt)
        return rc;
    pthread_mutex_init(&rt->lock, NULL);
    pthread_cond_init(&rt->changed, NULL);
    rt->host = o->host;
    rt->pool_threads = o->pool_threads ? o->pool_threads : cpus_allowed();
    rt->workers = mem_array(workers, sizeof(struct worker_core *));
    if (rt->workers)
        rc = pool_open(rt->pool_threads, 2 * MiB, &rt->cpu);
    if (rc == 0)
        rc = pool_open(BLOCKING_WIDTH, 256 * KiB, &rt->blocking);
    while (rc == 0 && rt->worker_count < workers)
        rc = runtime_add(rt);
    if (rc < 0) {
        runtime_close(rt);
        return rc;
    }
    *out = rt;
    return 0;
}

static void stop_threads(struct runtime *rt)
{
    unsigned threads = 0;

    for (unsigned i = 0; i < rt->worker_count; i++) {
        if (!threaded(rt, i))
            continue;
        threads++;
        atomic_store(&rt->workers[i]->stop, true);
        worker_kick(rt->workers[i]);
    }
    pthread_mutex_lock(&rt->lock);
    while (rt->ended < threads)
        pthread_cond_wait(&rt->changed, &rt->lock);
    rt->may_detach = true;
    pthread_cond_broadcast(&rt->changed);
    pthread_mutex_unlock(&rt->lock);
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    pool_close(rt->cpu);
    pool_close(rt->blocking);
    stop_threads(rt);
    for (unsigned i = 0; i < rt->worker_count; i++) {
        if (threaded(rt, i))
            pthread_join(rt->workers[i]->thread, NULL);
        else
            worker_detach(rt->workers[i]);
    }
    pthread_cond_destroy(&rt->changed);
    pthread_mutex_destroy(&rt->lock);
    for (unsigned i = 0; i < rt->worker_count; i++)
        free(rt->workers[i]);
    mem_free(rt->workers);
    mem_free(rt);
}

struct main_call {
    int (*fn)(void *arg);
    void *arg;
    int rc;
    bool done;
};

static void main_co(void *arg)
{
    struct main_call *call = arg;

    call->rc = call->fn(call->arg);
    call->done = true;
}

int runtime_run(struct runtime *rt, int (*fn)(void *arg), void *arg)
{
    struct main_call call = {.fn = fn, .arg = arg};
    struct worker_core *w = rt->workers[0];
    struct worker *before = worker_enter(&w->pub);

    assert(!before);
    int rc = co_start_later(main_co, &call);
    if (rc == 0 && rt->host->ops->drive)
        rt->host->ops->drive(rt, &call.done);
    else if (rc == 0)
        worker_loop(w, &call.done);
    worker_enter(before);
    return rc < 0 ? rc : call.rc;
}

unsigned runtime_workers(const struct runtime *rt)
{
    return rt->worker_count;
}

struct worker *runtime_worker(struct runtime *rt, unsigned index)
{
    assert(index < rt->worker_count);
    return &rt->workers[index]->pub;
}

unsigned runtime_pool_threads(const struct runtime *rt)
{
    return rt->pool_threads;
}

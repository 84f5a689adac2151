/* SPDX-License-Identifier: BSD-3-Clause */
/* worker_pool.c - threads for work that burns CPU or blocks.
 *
 * A runtime has two pools: one as wide as the machine for co_offload(), one wider for system calls
 * that block. Threads start when work waits and none is idle, and stay. The answer travels as a
 * message to the coroutine's worker. */
#include <signal.h>

#include "block/host.h"
#include "block/worker_priv.h"

struct pool_job {
    struct worker_msg msg;
    struct pool_job *next;
    int (*fn)(void *arg);
    void *arg;
    int rc;
    bool done;
    struct worker *worker;
    struct co *co;
    struct pool_lane *lane; /* or NULL */
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct pool_job *first, *last; /* all below guarded by lock */
    unsigned queued, idle, threads, max_threads;
    bool stop;
    size_t stack_bytes;
    pthread_t thread[];
};

int thread_start(pthread_t *thread, size_t stack_bytes, void *(*fn)(void *), void *arg)
{
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t mask, old;
    pthread_attr_t attr;

    pthread_attr_init(&attr);
#if !defined(CO_ASAN) && !defined(CO_TSAN)
    if (stack_bytes)
        pthread_attr_setstacksize(&attr, stack_bytes);
#endif
    sigfillset(&mask);
    for (size_t i = 0; i < ARRAY_LEN(synchronous); i++)
        sigdelset(&mask, synchronous[i]);
    pthread_sigmask(SIG_SETMASK, &mask, &old);
    int rc = pthread_create(thread, &attr, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return -rc;
}

static void job_answered(struct worker_msg *msg)
{
    struct pool_job *job = container_of(msg, struct pool_job, msg);

    job->done = true;
    co_wake(job->co);
}

void co_await_help(const bool *done)
{
    struct worker_core *w = core_self();

    w->helped++;
    while (!*done)
        co_suspend();
    w->helped--;
}

static struct pool_job *pool_take(struct pool *p)
{
    while (!p->first && !p->stop) {
        p->idle++;
        pthread_cond_wait(&p->work, &p->lock);
        p->idle--;
    }
    struct pool_job *job = p->first;
    if (!job)
        return NULL;
    p->first = job->next;
    if (!p->first)
        p->last = NULL;
    p->queued--;
    return job;
}

static void append(struct pool_job **first, struct pool_job **last, struct pool_job *job)
{
    *(*last ? &(*last)->next : first) = job;
    *last = job;
}

/* The next job of a lane whose last one has ended, or NULL. */
static struct pool_job *lane_take(struct pool *p, struct pool_lane *lane)
{
    pthread_mutex_lock(&p->lock);
    struct pool_job *job = lane->first;
    if (!job)
        lane->busy = false;
    else if (!(lane->first = job->next))
        lane->last = NULL;
    pthread_mutex_unlock(&p->lock);
    return job;
}

/* Runs @job and those that wait for it in its lane. */
static void job_run(struct pool *p, struct pool_job *job)
{
    while (job) {
        job->rc = job->fn(job->arg);
        struct pool_job *next = job->lane ? lane_take(p, job->lane) : NULL;
        worker_post(job->worker, &job->msg); /* the job and its lane are gone from here on */
        job = next;
    }
}

static void *pool_main(void *arg)
{
    struct pool *p = arg;
    struct pool_job *job;

    pthread_mutex_lock(&p->lock);
    while ((job = pool_take(p))) {
        pthread_mutex_unlock(&p->lock);
        job_run(p, job);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int pool_open(unsigned max_threads, size_t stack_bytes, struct pool **out)
{
    struct pool *p = mem_zalloc(sizeof(*p) + max_threads * sizeof(p->thread[0]));

    if (!p)
        return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    p->max_threads = max_threads;
    p->stack_bytes = stack_bytes;
    *out = p;
    return 0;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    assert(!p->first);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    mem_free(p);
}

/* False if there is no thread to do it. */
static bool pool_push(struct pool *p, struct pool_job *job)
{
    struct pool_lane *lane = job->lane;

    pthread_mutex_lock(&p->lock);
    if (lane && lane->busy) { /* whose thread takes it next */
        append(&lane->first, &lane->last, job);
        pthread_mutex_unlock(&p->lock);
        return true;
    }
    if (p->queued >= p->idle && p->threads < p->max_threads &&
        thread_start(&p->thread[p->threads], p->stack_bytes, pool_main, p) == 0)
        p->threads++;
    bool can = p->threads > 0;
    if (can) {
        append(&p->first, &p->last, job);
        p->queued++;
        if (lane)
            lane->busy = true;
        if (p->idle)
            pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    return can;
}

static int co_pool_in(struct pool *p, struct pool_lane *lane, int (*fn)(void *arg), void *arg)
{
    struct pool_job job = {.msg.fn = job_answered,
                           .fn = fn,
                           .arg = arg,
                           .worker = worker_self(),
                           .co = co_self(),
                           .lane = lane};

    assert(job.co);
    if (!pool_push(p, &job))
        return fn(arg); /* no thread can be had: late is better than never */
    co_await_help(&job.done);
    return job.rc;
}

int co_pool(struct pool *p, int (*fn)(void *arg), void *arg)
{
    return co_pool_in(p, NULL, fn, arg);
}

int co_offload(int (*fn)(void *arg), void *arg)
{
    struct worker *w = worker_self();

    assert(w);
    if (w->host->ops->co_offload)
        return w->host->ops->co_offload(w->host, fn, arg);
    return co_pool(w->runtime->cpu, fn, arg);
}

int co_blocking(int (*fn)(void *arg), void *arg)
{
    return co_pool(worker_self()->runtime->blocking, fn, arg);
}

int co_blocking_in_turn(struct pool_lane *lane, int (*fn)(void *arg), void *arg)
{
    return co_pool_in(worker_self()->runtime->blocking, lane, fn, arg);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* worker_priv.h - the whole of a worker, for the files that make it: co*.c, worker*.c, and the real
 * hosts where they need a thread that may block. */
#ifndef BLOCK_WORKER_PRIV_H
#define BLOCK_WORKER_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/co_switch.h"
#include "block/worker.h"

enum co_state {
    CO_FREE,    /* in the pool, or being made */
    CO_RUNNING, /* or it started another one and waits below that */
    CO_ASLEEP,
    CO_WOKEN,   /* in the ready list because of co_wake() */
    CO_STARTED, /* in the ready list, not by a wake: started later, or yielding */
};

/* Lives at the upper end of its stack. */
struct co {
    struct co_frame frame;
    struct co_frame *back; /* who goes on when it suspends: the loop, or the coroutine that started
                              it */
    struct worker_core *worker;
    enum co_state state;
    bool wake_pending;
    void (*fn)(void *arg);
    void *arg;
    struct co_group *group; /* child of a group: then group_fn is what runs */
    int (*group_fn)(void *arg);
    struct co *next; /* in the pool or the ready list */
    void *map;       /* guard page and stack */
    size_t map_bytes;
};

#define BUF_CLASSES 12 /* 4 KiB << 0 ... 8 MiB */

struct buf_class {
    struct buf_free *first;
    size_t bytes; /* that lie here */
};

struct hook_list {
    struct turn_hook *first, *last;
};

struct worker_core {
    struct worker pub;

    /* co.c */
    struct co_frame loop;
    struct co *current;
    struct co *free;
    unsigned free_count, made_count;
    uint64_t live; /* coroutines started and not ended */
    struct co *ready_first, *ready_last;

    /* worker_timer.c */
    struct timer *timers;
    uint64_t timer_seq;

    struct hook_list hooks; /* to run before the loop waits */
    struct hook_list again; /* armed by themselves: to run in the next turn that does anything */
    struct turn_hook *running_hook;
    unsigned busy_turns; /* since the hooks last ran */

    unsigned helped; /* coroutines in co_await_help() */

    struct buf_class bufs[BUF_CLASSES];

    _Alignas(64) _Atomic(struct worker_msg *) mail;
    atomic_bool asleep;
    atomic_bool stop;
    pthread_t thread;
};

struct worker_core *core_self(void);

/* co.c */
void co_run_ready(struct worker_core *w, struct co *first);
void co_free_stacks(struct worker_core *w);
/* As co_start(), as a child of @g. */
int co_start_child(struct co_group *g, int (*fn)(void *arg), void *arg);
/* co_sync.c: a child has ended. */
void co_group_ended(struct co_group *g, int rc);

/* worker_timer.c: fires what is due; true if anything was. */
bool timers_run(struct worker_core *w, uint64_t now);
/* worker_buf.c */
void bufs_free(struct worker_core *w);

/* worker_pool.c */
/* Sleeps until *@done, which somebody else works for: a thread, or the kernel. */
void co_await_help(const bool *done);
struct pool;
must_use int pool_open(unsigned max_threads, size_t stack_bytes, struct pool **out);
void pool_close(struct pool *p); /* nothing may be queued */
/* Runs @fn(@arg) on a thread of @p; the coroutine sleeps; gives its value. */
int co_pool(struct pool *p, int (*fn)(void *arg), void *arg);
/* Jobs of a lane run one after the other, on one thread while there are any: for work that would
 * wait for its like inside the kernel. Zeroed is idle; it may be freed when nothing is in it. */
struct pool_lane {
    struct pool_job *first, *last; /* that wait; all under the pool's lock */
    bool busy;
};
int co_blocking_in_turn(struct pool_lane *lane, int (*fn)(void *arg), void *arg);
/* A thread with signals blocked, for hosts. */
must_use int thread_start(pthread_t *thread, size_t stack_bytes, void *(*fn)(void *), void *arg);

struct runtime {
    struct host *host;
    struct worker_core **workers;
    unsigned worker_count, pool_threads;
    struct pool *cpu, *blocking;

    /* Closing: no worker lets go of the host before all loops have ended, because one that still
     * runs may be about to wake it. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned ended;  /* loops of threads, guarded by lock */
    bool may_detach; /* guarded by lock */
};

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.h - workers (one event loop each), the pool for work that burns CPU or blocks, messages
 * between workers.
 *
 * A worker is a struct, never a raw thread-local: with real hosts each has a thread, under host_sim
 * one OS thread runs all of them in seeded order. worker_self() is the one pointer that follows. */
#ifndef BLOCK_WORKER_H
#define BLOCK_WORKER_H

#include "block/co.h"

struct host;
struct runtime;

/* Makes the n-th allocation from now fail (1: the next). 0: off. Sticky: all from then on. For the
 * fault sweep. */
struct alloc_fault {
    uint64_t countdown;
    bool sticky;
    uint64_t seen; /* allocations since it was set */
};

/* A message to another worker; owned by the sender until @fn ran. */
struct worker_msg {
    struct worker_msg *next;
    void (*fn)(struct worker_msg *msg); /* runs on the receiving worker's loop, must not suspend */
};

/* Zero-initialised is not armed. Arming cannot fail: timers are linked into a heap of their own. */
struct timer {
    uint64_t at_ns;
    void (*fn)(struct timer *t);       /* on the loop, must not suspend */
    struct timer *child, *next, *prev; /* worker_timer.c's */
    uint64_t seq;                      /* 0: not armed; timers due at one time fire in this order */
};

/* The public part of a worker; worker.c embeds it. */
struct worker {
    struct runtime *runtime;
    struct host *host;
    unsigned index;
    void *host_state; /* the host's per-worker part */
    struct alloc_fault alloc_fault;
    /* block/device.c's: requests in flight here, by the epoch in which they began (two counters, as
     * in SRCU), so that a grace period waits only for those that began before it. */
    struct {
        unsigned epoch;
        uint64_t in_flight[2];
        struct co_queue ended;
        struct co_mutex one_waiter;
        bool lanes; /* other workers look through devices of this home: blk_open_lane() */
    } requests;
    uint64_t served; /* requests that servers took here; tells host_os_wait.c what waiting costs */
    uint64_t fixed_changes; /* block/behind.c's: devices here became writable */
};

struct runtime_options {
    struct host *host;     /* borrowed; must outlive the runtime */
    unsigned workers;      /* 0: one */
    unsigned pool_threads; /* 0: as many as CPUs this process may use */
};

must_use int runtime_open(const struct runtime_options *o, struct runtime **out);
/* Runs @fn(@arg) as a coroutine on worker 0 until it returns, and all other workers meanwhile;
 * gives its value. The caller's thread is worker 0's. May be called again. */
int runtime_run(struct runtime *rt, int (*fn)(void *arg), void *arg);
/* No coroutine may be left (asserted). */
void runtime_close(struct runtime *rt);
unsigned runtime_workers(const struct runtime *rt);
struct worker *runtime_worker(struct runtime *rt, unsigned index);
unsigned runtime_pool_threads(const struct runtime *rt);

/* The current worker; NULL on a thread that is none (pool threads, before start). */
struct worker *worker_self(void);
/* Posts @m; any thread. */
void worker_post(struct worker *w, struct worker_msg *m);
/* Runs @fn(@arg) as a coroutine on @w and sleeps until it returned; gives its value. On the same
 * worker: a plain call. */
int co_on(struct worker *w, int (*fn)(void *arg), void *arg);
/* Runs @fn(@arg) on a pool thread; the coroutine sleeps; gives its value. @fn must not touch the
 * device graph or call co_*. Under host_sim: inline, completing at a later virtual time. */
int co_offload(int (*fn)(void *arg), void *arg);
/* The same on a thread that may block for long: for system calls, and for libraries that do their
 * own I/O. */
int co_blocking(int (*fn)(void *arg), void *arg);

void timer_arm(struct timer *t, uint64_t at_ns,
               void (*fn)(struct timer *t)); /* on the current worker; re-arms */
void timer_cancel(struct timer *t);
uint64_t worker_now(void); /* ns, monotonic, the host's clock */

/* Calls @fn once at the end of this loop turn, when nothing is ready any more and before the worker
 * waits: where batches are sent. A hook that arms itself from inside is called again in the next
 * turn that does anything; it does not keep the loop awake. */
struct turn_hook {
    struct turn_hook *next;
    void (*fn)(struct turn_hook *h);
    bool armed;
};
void worker_at_turn_end(struct turn_hook *h, void (*fn)(struct turn_hook *h));

/* Bounce buffers of the current worker: aligned to 4096, @bytes rounded up to a power of two,
 * pooled. NULL when out of memory. */
void *buf_get(size_t bytes);
void buf_put(void *buf, size_t bytes);

/* --- for hosts
 * ---------------------------------------------------------------------------------------------------
 */

/* Runs all that is ready on @w, its mailbox and its due timers once. True if anything ran. */
bool worker_turn(struct worker *w);
/* When the next timer of @w is due; UINT64_MAX: never. */
uint64_t worker_next_timer(const struct worker *w);
/* Makes @w the current one on this thread (host_sim). Gives the previous. */
struct worker *worker_enter(struct worker *w);

#endif

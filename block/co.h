/* SPDX-License-Identifier: BSD-3-Clause */
/* co.h - coroutines and the whole vocabulary of waiting.
 *
 * A coroutine is stackful (64 KiB, 256 KiB under AddressSanitizer, guard page, pooled per worker),
 * belongs to the worker it was started on and never leaves it. Functions that may suspend carry the
 * prefix co_. Coroutines of a worker interleave only there, so none of these needs atomics; none
 * may be touched from another worker (co_on() in worker.h hops). All waits are first come, first
 * served. No function here fails for lack of memory except co_start(), and that only where it says
 * so. */
#ifndef BLOCK_CO_H
#define BLOCK_CO_H

#include "block/base.h"

struct worker;
struct co;

/* Starts @fn(@arg) on the current worker and runs it at once until it first suspends or ends; then
 * the caller goes on. May be called from a coroutine or from the loop. Returns -ENOMEM if no stack
 * could be had (then fn did not run). */
must_use int co_start(void (*fn)(void *arg), void *arg);
/* As co_start() but the new coroutine runs in a later step of the loop, not now. */
must_use int co_start_later(void (*fn)(void *arg), void *arg);

/* The running coroutine; NULL on the loop itself. */
struct co *co_self(void);
/* Suspends the running coroutine until co_wake(). A wake that comes first is remembered (one). */
void co_suspend(void);
/* Makes @co ready; it runs from the loop, not at once. Same worker only (asserted). */
void co_wake(struct co *co);
/* Lets every other ready coroutine run once. */
void co_yield (void);
/* Sleeps on the host's clock. */
void co_sleep(uint64_t ns);
/* The stack's remaining bytes: for asserts and tests. */
size_t co_stack_left(void);

/* A queue of sleeping coroutines: the primitive the others are made of. Zero-initialised is empty.
 */
struct co_queue {
    struct co_waiter *first, *last;
};
void co_queue_wait(struct co_queue *q);
bool co_queue_wake_one(struct co_queue *q); /* false if nobody slept there */
void co_queue_wake_all(struct co_queue *q);
bool co_queue_empty(const struct co_queue *q);

/* Zero-initialised is unlocked. Not recursive. */
struct co_mutex {
    struct co *holder;
    struct co_queue waiters;
};
void co_mutex_lock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);
static inline void co_mutex_unlock_at_(struct co_mutex **m)
{
    if (*m)
        co_mutex_unlock(*m);
}
/* Holds @m to the end of the scope. */
#define with_lock(m)              with_lock_named_(m, __LINE__)
#define with_lock_named_(m, line) with_lock_paste_(m, line)
#define with_lock_paste_(m, line)                                                                \
    struct co_mutex *with_lock_##line##_ __attribute__((cleanup(co_mutex_unlock_at_), unused)) = \
        (co_mutex_lock(m), (m))
#define assert_held(m) assert((m)->holder == co_self())

/* Readers share, a writer is alone; a waiting writer holds new readers back. Zero-initialised is
 * free. */
struct co_rwlock {
    unsigned readers;
    bool writer;
    struct co_queue waiters;
};
void co_rwlock_read(struct co_rwlock *l);
void co_rwlock_write(struct co_rwlock *l);
void co_rwlock_unlock(struct co_rwlock *l);

/* A lock over byte ranges. Holds that overlap exclude each other unless both are shared; a hold
 * waits behind every earlier one it conflicts with (no starvation). The hold lives in the caller.
 * Zero-initialised is free. */
struct co_range_hold {
    uint64_t offset, bytes;
    bool shared, granted;
    struct co *co;
    struct co_range_hold *prev, *next;
};
struct co_range {
    struct co_range_hold *first, *last; /* in order of arrival */
};
void co_range_lock(struct co_range *r, struct co_range_hold *hold, uint64_t offset, uint64_t bytes,
                   bool shared);
bool co_range_trylock(struct co_range *r, struct co_range_hold *hold, uint64_t offset,
                      uint64_t bytes, bool shared);
void co_range_unlock(struct co_range *r, struct co_range_hold *hold);
/* True if nothing conflicting is held or waiting there. Never suspends. */
bool co_range_free(const struct co_range *r, uint64_t offset, uint64_t bytes, bool shared);

/* Fork and join with the first error. At most @limit children at once (0: no limit):
 * co_group_start() suspends until there is room. After an error, co_group_start() still runs what
 * it is given (a caller that wants to stop asks co_group_failed()). */
struct co_group {
    unsigned limit, running;
    int rc; /* first error */
    struct co_queue room, done;
};
void co_group_init(struct co_group *g, unsigned limit);
/* Runs @fn(@arg) as a child; @arg lives until it returned. If no coroutine can be had, runs it in
 * the caller. */
void co_group_start(struct co_group *g, int (*fn)(void *arg), void *arg);
bool co_group_failed(const struct co_group *g);
int co_group_wait(struct co_group *g);

#endif

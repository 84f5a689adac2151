/* SPDX-License-Identifier: BSD-3-Clause */
/* co.c - coroutines: stacks, starting, suspending, waking.
 *
 * A coroutine runs on a stack of its own, at whose upper end its struct lies. co_start() jumps onto
 * it at once; when it suspends or ends, control goes back to whoever jumped (co->back): the one
 * that started it, or the worker's loop after a wake. An ended coroutine stays inside co_main() and
 * is used again from the worker's pool, so a start costs two jumps and no system call. */
#include "block/co.h"

#include <sys/mman.h>

#include "block/worker_priv.h"

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(low, high) 0
#endif

#ifdef CO_ASAN
#define STACK_BYTES (256 * KiB)
#else
#define STACK_BYTES (64 * KiB)
#endif
#define GUARD_BYTES (64 * KiB) /* only addresses; a large frame must not step over it */
#define POOL_MAX    1024       /* unused stacks that a worker keeps */

/* --- stacks ----------------------------------------------------------------------------------- */

static void co_main(void);

/* The structs of different stacks get different low address bits; at equal ones a hundred
 * coroutines would fight for one set of the first-level cache. */
static size_t stack_colour(const struct worker_core *w)
{
    return (w->made_count % 16) * 256;
}

static char *stack_low(const struct co *co)
{
    return (char *)co->map + GUARD_BYTES;
}

static struct co *stack_make(struct worker_core *w)
{
    size_t bytes = GUARD_BYTES + STACK_BYTES;
    char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map, GUARD_BYTES, PROT_NONE) < 0) {
        munmap(map, bytes);
        return NULL;
    }
    (void)VALGRIND_STACK_REGISTER(map + GUARD_BYTES, map + bytes);
    char *top = map + bytes - align_up(sizeof(struct co), 64) - stack_colour(w);
    struct co *co = (struct co *)(void *)top;
    *co = (struct co){.worker = w, .map = map, .map_bytes = bytes};
    co->frame.sp = stack_low(co);
#ifdef CO_ASAN
    co->frame.stack = stack_low(co);
    co->frame.stack_bytes = STACK_BYTES;
#endif
#ifdef CO_TSAN
    co->frame.fiber = __tsan_create_fiber(0);
#endif
    co_frame_init(&co->frame, top, co_main);
    w->made_count++;
    return co;
}

static void stack_unmap(struct co *co)
{
#ifdef CO_TSAN
    __tsan_destroy_fiber(co->frame.fiber);
#endif
#ifdef CO_ASAN
    __asan_unpoison_memory_region(stack_low(co), STACK_BYTES);
#endif
    munmap(co->map, co->map_bytes);
}

static struct co *stack_get(struct worker_core *w)
{
    struct co *co = w->free;

    if (unlikely(!co))
        return stack_make(w);
    w->free = co->next;
    w->free_count--;
    return co;
}

static void stack_put(struct worker_core *w, struct co *co)
{
    co->next = w->free;
    w->free = co;
    w->free_count++;
}

/* Only where no coroutine of the pool is still on its way out. */
static void stacks_trim(struct worker_core *w, unsigned keep)
{
    while (w->free_count > keep)
        stack_unmap(stack_get(w));
}

void co_free_stacks(struct worker_core *w)
{
    stacks_trim(w, 0);
}

size_t co_stack_left(void)
{
    struct co *co = co_self();

    assert(co);
    return (size_t)((char *)__builtin_frame_address(0) - stack_low(co));
}

/* --- switching -------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void enter(struct worker_core *w, struct co *co)
{
    struct co *before = w->current;
    struct co_frame *me = before ? &before->frame : &w->loop;

#ifdef CO_TSAN
    if (!before)
        me->fiber = __tsan_get_current_fiber();
#endif
    co->back = me;
    co->state = CO_RUNNING;
    w->current = co;
    co_leaving(me, &co->frame);
    co_switch_raw(me, &co->frame);
    co_arrived(me, NULL);
    w->current = before;
}

static inline __attribute__((always_inline)) void leave(struct co *co)
{
    co_leaving(&co->frame, co->back);
    co_switch_raw(&co->frame, co->back);
    co_arrived(&co->frame, co->back);
}

/* Runs one function after another for ever. Uninstrumented: its only frame is the lowest. */
static __attribute__((noreturn, noinline)) void co_main(void)
{
    struct co *co = core_self()->current;

    co_arrived(&co->frame, co->back);
    for (;;) {
        if (co->group)
            co_group_ended(co->group, co->group_fn(co->arg));
        else
            co->fn(co->arg);
        co->state = CO_FREE;
        co->worker->live--;
        stack_put(co->worker, co);
        leave(co);
    }
}

static inline struct co *co_make(struct worker_core *w)
{
    assert(w);
    struct co *co = stack_get(w);
    if (likely(co)) {
        w->live++;
        co->wake_pending = false;
    }
    return co;
}

int co_start(void (*fn)(void *arg), void *arg)
{
    struct worker_core *w = core_self();
    struct co *co = co_make(w);

    if (unlikely(!co))
        return -ENOMEM;
    co->group = NULL;
    co->fn = fn;
    co->arg = arg;
    enter(w, co);
    return 0;
}

int co_start_child(struct co_group *g, int (*fn)(void *arg), void *arg)
{
    struct worker_core *w = core_self();
    struct co *co = co_make(w);

    if (unlikely(!co))
        return -ENOMEM;
    co->group = g;
    co->group_fn = fn;
    co->arg = arg;
    enter(w, co);
    return 0;
}

/* --- readiness -------------------------------------------------------------------------------- */

static void make_ready(struct worker_core *w, struct co *co, enum co_state why)
{
    co->state = why;
    co->next = NULL;
    if (w->ready_last)
        w->ready_last->next = co;
    else
        w->ready_first = co;
    w->ready_last = co;
}

int co_start_later(void (*fn)(void *arg), void *arg)
{
    struct worker_core *w = core_self();
    struct co *co = co_make(w);

    if (!co)
        return -ENOMEM;
    co->group = NULL;
    co->fn = fn;
    co->arg = arg;
    make_ready(w, co, CO_STARTED);
    return 0;
}

struct co *co_self(void)
{
    struct worker_core *w = core_self();

    return w ? w->current : NULL;
}

void co_suspend(void)
{
    struct co *co = core_self()->current;

    assert(co);
    if (co->wake_pending) {
        co->wake_pending = false;
        return;
    }
    co->state = CO_ASLEEP;
    leave(co);
}

void co_wake(struct co *co)
{
    struct worker_core *w = co->worker;

    assert(w == core_self());
    assert(co->state != CO_FREE);
    if (co->state == CO_ASLEEP)
        make_ready(w, co, CO_WOKEN);
    else if (co->state != CO_WOKEN)
        co->wake_pending = true;
}

void co_yield (void)
{
    struct worker_core *w = core_self();
    struct co *co = w->current;

    assert(co);
    make_ready(w, co, CO_STARTED);
    leave(co);
}

void co_run_ready(struct worker_core *w, struct co *first)
{
    while (first) {
        struct co *co = first;
        first = co->next;
        enter(w, co);
    }
    if (unlikely(w->free_count > POOL_MAX))
        stacks_trim(w, POOL_MAX);
}

struct sleep {
    struct timer timer;
    struct co *co;
    bool over;
};

static void sleep_over(struct timer *t)
{
    struct sleep *s = container_of(t, struct sleep, timer);

    s->over = true;
    co_wake(s->co);
}

void co_sleep(uint64_t ns)
{
    struct sleep s = {.co = co_self()};
    uint64_t now = worker_now();

    timer_arm(&s.timer, ns > UINT64_MAX - now ? UINT64_MAX : now + ns, sleep_over);
    while (!s.over)
        co_suspend();
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_wait.c - how a worker of the real hosts waits: asleep in epoll, or awake for a moment
 * before.
 *
 * To fall asleep and be woken costs more than all the system calls of a small request: some
 * microseconds on a bare machine, tens in a virtual one, of this thread and of whoever wakes it and
 * is woken by it. No thread can see all of that by looking at one wait. So both ways are tried:
 *
 * W1  In turn some waits only sleep and some look first. What a request took meanwhile of this
 *     thread's CPU time and of the time of day says what each way costs (what a wait took, where
 *     nobody counts requests). Then one is kept for a long while, and measured on: the cheaper one,
 *     or looking where it takes little more CPU time and much less time. A client that waits for
 *     each answer is served sooner by who looks; one that always has more in flight is not.
 *
 * W2  A look lasts LOOK_NS at most. Many in vain end that while at once: the load has changed.
 *
 * W3  While threads or the kernel work for this worker it sleeps at once: they may want its CPU,
 *     and what they do seldom takes less than a sleep. Such waits measure nothing.
 */
#include <sys/epoll.h>
#include <time.h>

#include "block/host_os.h"

#define EVENTS_AT_ONCE 128
#define LOOK_NS        100000
#define TRIED          96 /* waits each way */
#define KEPT           8192
#define VAIN_AT_MOST   64

/* --- asleep ----------------------------------------------------------------------------------- */

static int wait_ms(int epoll, struct epoll_event *events, uint64_t ns)
{
    uint64_t ms = div_up(ns, 1000000);

    return epoll_wait(epoll, events, EVENTS_AT_ONCE, (int)MIN(ms, (uint64_t)INT32_MAX));
}

/* epoll_pwait2() counts nanoseconds; kernels before 5.11 do not have it. */
static int wait_ns(int epoll, struct epoll_event *events, uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    int n = epoll_pwait2(epoll, events, EVENTS_AT_ONCE, &ts, NULL);

    return n < 0 && (errno == ENOSYS || errno == EPERM) ? wait_ms(epoll, events, ns) : n;
}

static int sleep_until(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX)
        return epoll_wait(ow->epoll, events, EVENTS_AT_ONCE, -1);
    uint64_t now = os_now(ow->worker->host);
    return wait_ns(ow->epoll, events, deadline_ns > now ? deadline_ns - now : 0);
}

/* --- which way -------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static struct os_wait_cost clocks_now(void)
{
    return (struct os_wait_cost){.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
                                 .ns = clock_ns(CLOCK_MONOTONIC)};
}

/* What was is worth half as much as what is. */
static uint64_t smoothed(uint64_t was, uint64_t is)
{
    return was ? (was + is) / 2 : is;
}

static void take_cost(struct os_wait *wait, struct os_wait_cost now, uint64_t served)
{
    uint64_t requests = served - wait->served ? served - wait->served : wait->measured;
    struct os_wait_cost *to = &wait->cost[wait->looks];

    to->cpu_ns = smoothed(to->cpu_ns, (now.cpu_ns - wait->began.cpu_ns) / requests);
    to->ns = smoothed(to->ns, (now.ns - wait->began.ns) / requests);
}

/* W1 */
static bool looking_pays(const struct os_wait *wait)
{
    const struct os_wait_cost *looking = &wait->cost[true], *sleeping = &wait->cost[false];

    if (looking->cpu_ns < sleeping->cpu_ns)
        return true;
    return looking->cpu_ns < sleeping->cpu_ns + sleeping->cpu_ns / 4 &&
           looking->ns < sleeping->ns - sleeping->ns / 3;
}

static void next_phase(struct os_wait *wait)
{
    wait->phase = wait->phase == OS_WAIT_TRY_LOOKING ? OS_WAIT_KEEP : wait->phase + 1;
    wait->left = wait->phase == OS_WAIT_KEEP ? KEPT : TRIED;
    wait->looks =
        wait->phase == OS_WAIT_TRY_LOOKING || (wait->phase == OS_WAIT_KEEP && looking_pays(wait));
    wait->measured = wait->vain = 0;
}

bool os_wait_looks(struct os_wait *wait, uint64_t served, struct os_wait_cost (*clocks)(void))
{
    if (wait->left == 0 || wait->vain == VAIN_AT_MOST) {
        if (wait->measured)
            take_cost(wait, clocks(), served);
        next_phase(wait);
    }
    if (wait->measured++ == 0) {
        wait->began = clocks();
        wait->served = served;
    }
    wait->left--;
    return wait->looks;
}

/* --- awake ------------------------------------------------------------------------------------ */

static int look_once(struct os_worker *ow, struct epoll_event *events)
{
    return epoll_wait(ow->epoll, events, EVENTS_AT_ONCE, 0);
}

/* W2 */
static int look(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    uint64_t now = os_now(ow->worker->host), until = MIN(deadline_ns, now + LOOK_NS);
    int n = 0;

    while (n == 0 && now < until) {
        n = look_once(ow, events);
        now = os_now(ow->worker->host);
    }
    ow->wait.vain = n ? 0 : ow->wait.vain + 1;
    return n;
}

static int wait_for_events(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    int n = 0;

    if (deadline_ns == 0)
        return look_once(ow, events);
    if (container_of(ow->worker, struct worker_core, pub)->helped > 0) /* W3 */
        ow->wait.measured = 0;
    else if (os_wait_looks(&ow->wait, ow->worker->served, clocks_now))
        n = look(ow, events, deadline_ns);
    return n ? n : sleep_until(ow, events, deadline_ns);
}

void os_wait(struct worker *w, uint64_t deadline_ns)
{
    struct os_worker *ow = os_worker(w);
    struct epoll_event events[EVENTS_AT_ONCE];
    int n = wait_for_events(ow, events, deadline_ns);

    ow->woken = false;
    for (int i = 0; i < n; i++) {
        struct os_source *s = events[i].data.ptr;
        if (s)
            s->on_event(ow, s, events[i].events);
        else
            ow->woken = true;
    }
}

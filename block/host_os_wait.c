/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os_wait.c - how a worker of the real hosts waits: awake for a moment, then asleep in epoll.
 *
 * To fall asleep and be woken costs more than all the system calls of a small request: some
 * microseconds on a bare machine, tens in a virtual one, of this thread and of whoever wakes it. So
 * a wait first looks again and again, for as long as a sleep would cost both, and only then sleeps.
 * Where the other side answers at once (a client with one request at a time) that costs less.
 *
 * W1  What a sleep costs is measured: every 64th wait sleeps at once, between two looks at this
 *     thread's CPU time.
 *
 * W2  What looking saves is added up: a sleep that was not needed, less the time of looking. Where
 *     it costs more than it saves, the next 1, 3, 7, ... 1023 waits sleep at once. So a worker
 *     whose events are far apart hardly ever looks.
 *
 * W3  While threads or the kernel work for this worker it sleeps at once: they may want its CPU,
 *     and what they do seldom takes less than a sleep.
 */
#include <sys/epoll.h>
#include <time.h>

#include "block/host_os.h"

#define EVENTS_AT_ONCE  128
#define MEASURED_OF     64
#define LOOK_AT_MOST_NS 100000
#define SAVED_AT_MOST   8 /* sleeps */
#define MOST_SKIPPED    1023

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

static uint64_t thread_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* W1 */
static int sleep_measured(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    struct os_wait *wait = &ow->wait;
    uint64_t before = thread_ns();
    int n = sleep_until(ow, events, deadline_ns);
    uint64_t cost = thread_ns() - before;

    wait->sleep_ns = wait->sleep_ns ? (7 * wait->sleep_ns + cost) / 8 : cost;
    return n;
}

/* --- awake ------------------------------------------------------------------------------------ */

static int look_once(struct os_worker *ow, struct epoll_event *events)
{
    return epoll_wait(ow->epoll, events, EVENTS_AT_ONCE, 0);
}

/* W2 */
void os_wait_looked(struct os_wait *wait, bool found, uint64_t ns)
{
    int64_t sleep = (int64_t)wait->sleep_ns;

    wait->saved = MIN(wait->saved + (found ? sleep : 0) - (int64_t)ns, SAVED_AT_MOST * sleep);
    if (wait->saved >= 0) {
        wait->vain = 0;
        return;
    }
    wait->saved = 0;
    wait->vain = MIN(2 * wait->vain + 1, MOST_SKIPPED);
    wait->skip = wait->vain;
}

/* Looks until there is something, a sleep would have been cheaper, or it is @deadline_ns. */
static int look(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    uint64_t both = 2 * ow->wait.sleep_ns; /* who wakes us pays about the same */
    uint64_t began = os_now(ow->worker->host), now = began;
    uint64_t until = MIN(deadline_ns, began + MIN(both, (uint64_t)LOOK_AT_MOST_NS));
    int n = 0;

    while (n == 0 && now < until) {
        n = look_once(ow, events);
        now = os_now(ow->worker->host);
    }
    os_wait_looked(&ow->wait, n != 0, now - began);
    return n;
}

static int wait_for_events(struct os_worker *ow, struct epoll_event *events, uint64_t deadline_ns)
{
    struct os_wait *wait = &ow->wait;
    int n = 0;

    if (deadline_ns == 0)
        return look_once(ow, events);
    if (container_of(ow->worker, struct worker_core, pub)->helped > 0) /* W3 */
        return sleep_until(ow, events, deadline_ns);
    if (wait->count++ % MEASURED_OF == 0)
        return sleep_measured(ow, events, deadline_ns);
    if (wait->skip > 0)
        wait->skip--;
    else
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

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_os.c - the common frame of the real hosts: opening one, waking, clocks, randomness. */
#include "block/host_os.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* --- opening ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*open)(struct host **out);
} hosts[] = {
    /* The best first. */
    {"uring", host_uring_open},
    {"threads", host_threads_open},
    {"aio", host_aio_open}, /* only where asked for */
};

int host_open(const char *kind, struct host **out)
{
    int rc = -ENOTSUP;

    *out = NULL;
    if (!kind)
        kind = getenv(HOST_VARIABLE);
    if (kind && !*kind)
        kind = NULL;
    for (size_t i = 0; i < ARRAY_LEN(hosts) && rc < 0; i++)
        if (!kind || strcmp(kind, hosts[i].name) == 0)
            rc = hosts[i].open(out);
    return rc;
}

/* https://reproducible-builds.org/specs/source-date-epoch/ : seconds, decimal. */
static bool date_epoch(uint64_t *ns)
{
    const char *text = getenv("SOURCE_DATE_EPOCH");
    char *end;

    if (!text || *text < '0' || *text > '9')
        return false;
    errno = 0;
    uint64_t seconds = strtoull(text, &end, 10);
    return errno == 0 && *end == 0 && mul_u64(seconds, 1000000000, ns);
}

void os_host_init(struct os_host *h, const struct host_ops *ops)
{
    h->pub.ops = ops;
    pthread_mutex_init(&h->signal_lock, NULL);
    pthread_mutex_init(&h->pipe_lock, NULL);
    h->use_date_epoch = date_epoch(&h->date_epoch_ns);
}

void os_close(struct host *pub)
{
    struct os_host *h = os_host(pub);

    assert(!h->signal_stream);
    pthread_mutex_destroy(&h->signal_lock);
    os_pipes_close(h);
    pthread_mutex_destroy(&h->pipe_lock);
    mem_free(h);
}

/* --- a worker's part -------------------------------------------------------------------------- */

static int watch(struct os_worker *ow, int how, int fd, uint32_t events, struct os_source *s)
{
    struct epoll_event ev = {.events = events | EPOLLET, .data.ptr = s};

    return epoll_ctl(ow->epoll, how, fd, &ev) < 0 ? -errno : 0;
}

int os_watch(struct os_worker *ow, int fd, uint32_t events, struct os_source *s)
{
    return watch(ow, EPOLL_CTL_ADD, fd, events, s);
}

int os_watch_for(struct os_worker *ow, int fd, uint32_t events, struct os_source *s)
{
    return watch(ow, EPOLL_CTL_MOD, fd, events, s);
}

int os_worker_init(struct os_worker *ow, struct worker *w)
{
    *ow = (struct os_worker){.worker = w, .event = -1};
    ow->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (ow->epoll < 0)
        return -errno;
    ow->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = ow->event < 0 ? -errno : os_watch(ow, ow->event, EPOLLIN, NULL);
    if (rc < 0) {
        os_worker_end(ow);
        return rc;
    }
    w->host_state = ow;
    return 0;
}

void os_worker_end(struct os_worker *ow)
{
    os_batch_end(ow);
    if (ow->event >= 0)
        close(ow->event);
    close(ow->epoll);
}

/* --- waking (waiting is host_os_wait.c's) --------------------------------------------------------
 */

void os_wake(struct worker *w)
{
    uint64_t one = 1;

    /* Nobody reads it: each write is a new edge, and 2^64 of them do not happen. */
    ssize_t rc = write(os_worker(w)->event, &one, sizeof(one));
    assert(rc == sizeof(one));
}

/* --- clocks and randomness -------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint64_t os_now(struct host *h)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t os_wall_clock(struct host *pub)
{
    struct os_host *h = os_host(pub);

    return h->use_date_epoch ? h->date_epoch_ns : clock_ns(CLOCK_REALTIME);
}

void os_random(struct host *h, void *to, size_t bytes)
{
    uint8_t *at = to;

    while (bytes) {
        ssize_t n = getrandom(at, bytes, 0);
        assert(n > 0 || errno == EINTR);
        if (n > 0) {
            at += n;
            bytes -= (size_t)n;
        }
    }
}

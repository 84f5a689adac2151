/* SPDX-License-Identifier: BSD-3-Clause */
/* host_signal.c - signals as something a coroutine waits for: a signalfd, watched like a stream. */
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "block/host_os.h"

/* On the worker of the coroutine that waits, if it still does. */
static void cancelled(struct worker_msg *msg)
{
    struct os_host *h = container_of(msg, struct os_host, signal_msg);

    pthread_mutex_lock(&h->signal_lock);
    if (h->signal_stream)
        os_stream_kick(h->signal_stream);
    pthread_mutex_unlock(&h->signal_lock);
}

void os_signal_cancel(struct host *pub)
{
    struct os_host *h = os_host(pub);

    pthread_mutex_lock(&h->signal_lock);
    if (!h->signal_cancelled && h->signal_stream) {
        atomic_store(&h->signal_stream->shut, true);
        h->signal_msg.fn = cancelled;
        worker_post(h->signal_worker, &h->signal_msg);
    }
    h->signal_cancelled = true;
    pthread_mutex_unlock(&h->signal_lock);
}

/* False if there is nothing to wait for any more. */
static bool publish(struct os_host *h, struct os_stream *s)
{
    pthread_mutex_lock(&h->signal_lock);
    bool ok = !h->signal_cancelled;
    if (ok) {
        assert(!h->signal_stream); /* one waits at a time */
        h->signal_stream = s;
        h->signal_worker = worker_self();
    }
    pthread_mutex_unlock(&h->signal_lock);
    return ok;
}

static void unpublish(struct os_host *h)
{
    pthread_mutex_lock(&h->signal_lock);
    h->signal_stream = NULL;
    pthread_mutex_unlock(&h->signal_lock);
}

static int wait_for_signal(struct os_stream *s)
{
    struct signalfd_siginfo info;

    for (;;) {
        ssize_t n = read(s->fd, &info, sizeof(info));
        if (n == sizeof(info))
            return (int)info.ssi_signo;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        atomic_fetch_and(&s->ready, ~(unsigned)HOST_READABLE);
        TRY(co_os_stream_wait(&s->pub, HOST_READABLE, 0));
    }
}

int co_os_signal(struct host *pub, const int *signals)
{
    struct os_host *h = os_host(pub);
    struct os_stream *s;
    sigset_t set;

    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    TRY(os_stream_make(pub, fd, NULL, &s));
    int rc = -ECANCELED;
    if (publish(h, s)) {
        rc = wait_for_signal(s);
        unpublish(h);
    }
    os_stream_close(&s->pub);
    return rc;
}

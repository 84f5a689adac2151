/* SPDX-License-Identifier: BSD-3-Clause */
/* host_stream.c - sockets of the real hosts: receive, send, wait, shut down, close.
 *
 * Calls are tried first; only EAGAIN sleeps. A stream is registered once with its worker's epoll,
 * edge-triggered: each edge sets bits in s->ready, an EAGAIN or a short transfer clears its bit
 * (the next edge will set it again). Bits may be stale the harmless way: a wait that returns at
 * once, a call that gives EAGAIN. A hang-up is remembered for ever, as it comes but once.
 *
 * Room in the socket is watched only where somebody waited for it: else whatever the peer takes
 * would wake us, once for each answer. */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/host_os.h"

#define SEND_PIECES 1024 /* IOV_MAX of Linux */
#define ALWAYS      (EPOLLIN | EPOLLRDHUP)

/* Further bits of s->ready: readable, or writable, for ever. */
enum { FOREVER_READABLE = 4, FOREVER_WRITABLE = 8 };

struct os_stream_wait {
    struct co *co;
    struct timer timer;
    bool timed_out;
};

static struct os_stream *os_stream(struct host_stream *s)
{
    return container_of(s, struct os_stream, pub);
}

/* --- readiness -------------------------------------------------------------------------------- */

static unsigned ready_bits(uint32_t events)
{
    unsigned bits = 0;

    if (events & EPOLLIN)
        bits |= HOST_READABLE;
    if (events & EPOLLOUT)
        bits |= HOST_WRITABLE;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        bits |= FOREVER_READABLE;
    if (events & (EPOLLHUP | EPOLLERR))
        bits |= FOREVER_WRITABLE;
    return bits;
}

static unsigned what_holds(const struct os_stream *s, unsigned what)
{
    unsigned bits = atomic_load(&s->ready);

    return (bits | bits / FOREVER_READABLE) & what;
}

static void not_ready(struct os_stream *s, unsigned what)
{
    if (atomic_load(&s->ready) & what)
        atomic_fetch_and(&s->ready, ~what);
}

static void wake_waiters(struct os_stream *s)
{
    if (s->reader)
        co_wake(s->reader->co);
    if (s->writer && s->writer != s->reader)
        co_wake(s->writer->co);
}

static int watch_room(struct os_stream *s, struct os_worker *ow, bool room)
{
    TRY(os_watch_for(ow, s->fd, room ? ALWAYS | EPOLLOUT : ALWAYS, &s->source));
    s->watches_room = room;
    return 0;
}

static void stream_event(struct os_worker *ow, struct os_source *source, uint32_t events)
{
    struct os_stream *s = container_of(source, struct os_stream, source);

    pthread_mutex_lock(&s->lock);
    if (s->owner == ow) {
        atomic_fetch_or(&s->ready, ready_bits(events));
        wake_waiters(s);
        if (events & EPOLLOUT && !s->writer)
            (void)!watch_room(s, ow, false); /* else it is told again: that costs time only */
    }
    pthread_mutex_unlock(&s->lock);
}

void os_stream_kick(struct os_stream *s)
{
    pthread_mutex_lock(&s->lock);
    wake_waiters(s);
    pthread_mutex_unlock(&s->lock);
}

/* --- waiting ---------------------------------------------------------------------------------- */

static int stream_adopt(struct os_stream *s, struct os_worker *ow)
{
    struct os_worker *before = s->owner; /* only waiters on the owner change it */

    assert(!s->reader && !s->writer);
    if (before) {
        assert(before == s->first_owner);
        epoll_ctl(before->epoll, EPOLL_CTL_DEL, s->fd, NULL);
    }
    pthread_mutex_lock(&s->lock);
    s->owner = ow;
    s->watches_room = false;
    if (!s->first_owner)
        s->first_owner = ow;
    pthread_mutex_unlock(&s->lock);
    int rc = os_watch(ow, s->fd, ALWAYS, &s->source);
    if (rc < 0) {
        pthread_mutex_lock(&s->lock);
        s->owner = NULL;
        pthread_mutex_unlock(&s->lock);
    }
    return rc;
}

static void set_waiter(struct os_stream *s, unsigned what, struct os_stream_wait *w)
{
    pthread_mutex_lock(&s->lock);
    if (what & HOST_READABLE) {
        assert(!w || !s->reader);
        s->reader = w;
    }
    if (what & HOST_WRITABLE) {
        assert(!w || !s->writer);
        s->writer = w;
    }
    pthread_mutex_unlock(&s->lock);
}

static void wait_over(struct timer *t)
{
    struct os_stream_wait *w = container_of(t, struct os_stream_wait, timer);

    w->timed_out = true;
    co_wake(w->co);
}

static int sleep_until(struct os_stream *s, unsigned what, uint64_t timeout_ns)
{
    struct os_stream_wait w = {.co = co_self()};
    int rc;

    assert(w.co);
    set_waiter(s, what, &w);
    if (timeout_ns) {
        uint64_t now = worker_now();
        timer_arm(&w.timer, timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns,
                  wait_over);
    }
    for (;;) {
        rc = atomic_load(&s->shut) ? -ECANCELED : (int)what_holds(s, what);
        if (rc == 0 && w.timed_out)
            rc = -ETIMEDOUT;
        if (rc)
            break;
        co_suspend();
    }
    timer_cancel(&w.timer);
    set_waiter(s, what, NULL);
    return rc;
}

/* What holds now, of a stream whose transfers are not seen here. */
static void look(struct os_stream *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN | POLLOUT};
    unsigned bits = 0;

    if (poll(&p, 1, 0) < 0)
        return;
    if (p.revents & (POLLIN | POLLHUP | POLLERR))
        bits |= HOST_READABLE;
    if (p.revents & (POLLOUT | POLLHUP | POLLERR))
        bits |= HOST_WRITABLE;
    not_ready(s, HOST_READABLE | HOST_WRITABLE);
    atomic_fetch_or(&s->ready, bits);
}

int co_os_stream_wait(struct host_stream *pub, unsigned what, uint64_t timeout_ns)
{
    struct os_stream *s = os_stream(pub);
    struct os_worker *ow = os_worker(worker_self());

    if (atomic_load(&s->shut))
        return -ECANCELED;
    if (s->owner != ow)
        TRY(stream_adopt(s, ow));
    if (what & HOST_WRITABLE && !s->watches_room)
        TRY(watch_room(s, ow, true));
    if (s->foreign)
        look(s);
    unsigned holds = what_holds(s, what);
    return holds ? (int)holds : sleep_until(s, what, timeout_ns);
}

/* --- transfer --------------------------------------------------------------------------------- */

int64_t os_stream_recv(struct host_stream *pub, void *to, size_t bytes)
{
    struct os_stream *s = os_stream(pub);
    ssize_t n;

    if (atomic_load(&s->shut))
        return -ECANCELED;
    do
        n = recv(s->fd, to, bytes, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    if (rc == -EAGAIN || (n > 0 && (size_t)n < bytes))
        not_ready(s, HOST_READABLE);
    return rc ? rc : n;
}

static uint64_t iov_bytes(const struct iovec *iov, unsigned count)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

int64_t os_stream_sendv(struct host_stream *pub, const struct iovec *iov, unsigned count)
{
    struct os_stream *s = os_stream(pub);
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = MIN(count, SEND_PIECES)};
    ssize_t n;

    if (atomic_load(&s->shut))
        return -ECANCELED;
    do
        n = sendmsg(s->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    if (rc == -EAGAIN || (n >= 0 && (uint64_t)n < iov_bytes(iov, (unsigned)msg.msg_iovlen)))
        not_ready(s, HOST_WRITABLE);
    return rc ? rc : n;
}

/* sendfile() has no MSG_NOSIGNAL; threads of our own have all signals blocked already. */
static void block_pipe_signal(void)
{
    struct os_worker *ow = os_worker(worker_self());
    sigset_t pipe_only;

    if (ow->pipe_signal_blocked)
        return;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);
    ow->pipe_signal_blocked = true;
}

int64_t os_stream_send_file(struct host_stream *pub, struct host_file *f, uint64_t offset,
                            uint64_t bytes)
{
    struct os_stream *s = os_stream(pub);
    off_t at = (off_t)offset;
    ssize_t n;

    if (atomic_load(&s->shut))
        return -ECANCELED;
    block_pipe_signal();
    do
        n = sendfile(s->fd, os_file(f)->fd, &at, bytes);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    if (rc == -EAGAIN)
        not_ready(s, HOST_WRITABLE);
    return rc ? rc : n;
}

void os_stream_widen(struct host_stream *pub, uint32_t bytes)
{
    struct os_stream *s = os_stream(pub);
    int domain = 0, room = (int)bytes;
    socklen_t n = sizeof(domain);

    if (getsockopt(s->fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && domain == AF_UNIX)
        (void)!setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

/* --- life ------------------------------------------------------------------------------------- */

int os_stream_make(struct host *h, int fd, const char *address, struct os_stream **out)
{
    struct os_stream *s = mem_zalloc(sizeof(*s));

    if (s && address)
        s->address = mem_strdup(address);
    if (!s || (address && !s->address)) {
        mem_free(s);
        close(fd);
        return -ENOMEM;
    }
    s->pub.host = h;
    s->fd = fd;
    s->source.on_event = stream_event;
    pthread_mutex_init(&s->lock, NULL);
    *out = s;
    return 0;
}

int os_stream_watch(struct host *h, int fd, struct host_stream **out)
{
    struct os_stream *s;

    TRY(os_stream_make(h, fd, NULL, &s));
    s->foreign = true;
    *out = &s->pub;
    return 0;
}

void os_stream_shutdown(struct host_stream *pub)
{
    struct os_stream *s = os_stream(pub);

    atomic_store(&s->shut, true);
    if (!s->shared)
        shutdown(s->fd, SHUT_RDWR); /* the hang-up is an edge: it wakes whoever waits, wherever */
    if (pub->listening && s->owner && s->owner->worker == worker_self())
        os_stream_kick(s); /* there is none of one that is shared, nor of vsock */
}

static void stream_free(struct os_stream *s)
{
    pthread_mutex_destroy(&s->lock);
    mem_free(s->address);
    mem_free(s->unlink_path);
    mem_free(s);
}

/* On each worker in turn that may have fetched an event of the stream before it was closed. */
static void free_here(struct worker_msg *msg)
{
    struct os_stream *s = container_of(msg, struct os_stream, free_msg);
    struct worker *self = worker_self();

    if (s->owner && s->owner->worker != self) {
        worker_post(s->owner->worker, msg);
        return;
    }
    stream_free(s);
}

static void unlink_socket(const struct os_stream *s)
{
    struct stat st;

    /* Only if it is still ours: another server may have replaced it. */
    if (s->unlink_path && lstat(s->unlink_path, &st) == 0 && st.st_dev == s->unlink_device &&
        st.st_ino == s->unlink_inode)
        unlink(s->unlink_path);
}

void os_stream_close(struct host_stream *pub)
{
    struct os_stream *s = os_stream(pub);
    struct worker *self = worker_self();

    assert(!s->reader && !s->writer);
    unlink_socket(s);
    close(s->fd); /* and out of epoll */
    struct os_worker *first = s->first_owner, *last = s->owner;
    if ((!first || first->worker == self) && (!last || last->worker == self)) {
        stream_free(s);
        return;
    }
    s->free_msg.fn = free_here;
    worker_post(first->worker, &s->free_msg);
}

const char *os_stream_address(const struct host_stream *pub)
{
    const struct os_stream *s = container_of(pub, const struct os_stream, pub);

    return s->address ? s->address : "";
}

void os_stream_peer(struct host_stream *pub, struct host_peer *out)
{
    struct ucred cred;
    socklen_t bytes = sizeof(cred);

    if (getsockopt(os_stream(pub)->fd, SOL_SOCKET, SO_PEERCRED, &cred, &bytes) < 0)
        return;
    if (cred.pid > 0) /* 0 and -1 as uid: not a Unix socket, or a process we cannot see */
        out->pid = cred.pid;
    if (cred.uid != (uid_t)-1)
        out->uid = cred.uid;
}

int os_listener_share(struct host_stream *pub)
{
    struct os_stream *s = os_stream(pub);

    mem_free(s->unlink_path);
    s->unlink_path = NULL;
    s->shared = true;
    return s->fd;
}

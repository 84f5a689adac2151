/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_stream.c - simulated sockets: pairs of bounded pipes, with short reads and short sends
 * drawn from the seed, and wakes that arrive after a latency. */
#include <stdio.h>
#include <stdlib.h>

#include "block/host_sim_int.h"

#define PIPE_BYTES (64 * KiB)

struct sim_stream {
    struct host_stream base;
    struct sim_stream *next; /* of the host's */
    char *address;
    bool shut;
    /* connected */
    struct sim_stream *peer; /* NULL: gone */
    uint8_t *in;             /* what arrived: a ring */
    size_t in_at, in_bytes;
    bool in_end; /* the peer sends no more */
    struct sim_event *reader, *writer;
    /* listening */
    struct sim_stream *waiting; /* connected, not yet accepted */
    struct sim_stream *next_waiting;
};

static struct sim_stream *stream_of(const struct host_stream *s)
{
    return container_of(s, struct sim_stream, base);
}

static void wake(struct sim_host *h, struct sim_event **who)
{
    struct sim_event *ev = *who;
    if (!ev)
        return;
    *who = NULL;
    if (ev->fired)
        return;
    sim_event_cancel(h, ev); /* its timeout */
    sim_event_post(h, ev, 2000 + sim_rng_below(&h->rng, 30000));
}

static void wake_all(struct sim_host *h, struct sim_stream *s)
{
    struct sim_event *both = s->reader;
    wake(h, &s->reader);
    if (s->writer == both)
        s->writer = NULL;
    wake(h, &s->writer);
}

static struct sim_stream *stream_new(struct sim_host *h, const char *address, bool listening)
{
    struct sim_stream *s = mem_zalloc(sizeof(*s));
    if (!s)
        return NULL;
    s->base = (struct host_stream){.host = &h->base, .listening = listening};
    s->address = mem_strdup(address);
    s->in = listening ? NULL : mem_alloc(PIPE_BYTES);
    if (!s->address || (!listening && !s->in)) {
        mem_free(s->address);
        mem_free(s->in);
        mem_free(s);
        return NULL;
    }
    s->next = h->streams;
    h->streams = s;
    return s;
}

static struct sim_stream *find_listener(const struct sim_host *h, const char *address)
{
    for (struct sim_stream *s = h->streams; s; s = s->next)
        if (s->base.listening && !s->shut && strcmp(s->address, address) == 0)
            return s;
    return NULL;
}

int sim_listen(struct host *host, const char *address, struct host_stream **out)
{
    struct sim_host *h = sim_of(host);
    co_sim_latency(h);
    if (strncmp(address, "private:", 8) == 0)
        address += 8;
    size_t n = strlen(address);
    auto_free char *real = NULL;
    if (strncmp(address, "tcp:", 4) == 0 && n > 2 && strcmp(address + n - 2, ":0") == 0)
        real = mem_printf("%.*s:%u", (int)(n - 2), address, 40000 + h->next_port++);
    else
        real = mem_strdup(address);
    if (!real)
        return -ENOMEM;
    if (find_listener(h, real))
        return -EADDRINUSE;
    struct sim_stream *s = stream_new(h, real, true);
    if (!s)
        return -ENOMEM;
    *out = &s->base;
    return 0;
}

int sim_accept(struct host_stream *listener, struct host_stream **out)
{
    struct sim_stream *l = stream_of(listener);
    while (!l->waiting) {
        if (l->shut)
            return -ECANCELED;
        TRY(sim_stream_wait(listener, HOST_READABLE, 0));
    }
    *out = &l->waiting->base;
    l->waiting = l->waiting->next_waiting;
    return 0;
}

int sim_connect(struct host *host, const char *address, struct host_stream **out)
{
    struct sim_host *h = sim_of(host);
    co_sim_latency(h);
    struct sim_stream *l = find_listener(h, address);
    if (!l)
        return -ECONNREFUSED;
    struct sim_stream *here = stream_new(h, address, false), *there = NULL;
    if (here)
        there = stream_new(h, address, false);
    if (!there) {
        if (here)
            sim_stream_close(&here->base);
        return -ENOMEM;
    }
    here->peer = there;
    there->peer = here;
    struct sim_stream **end = &l->waiting;
    while (*end)
        end = &(*end)->next_waiting;
    *end = there;
    wake(h, &l->reader);
    *out = &here->base;
    return 0;
}

/* How much of @bytes one call moves: any amount. */
static size_t some(struct sim_host *h, size_t bytes)
{
    return sim_rng_below(&h->rng, 4) ? bytes : 1 + (size_t)sim_rng_below(&h->rng, bytes);
}

int64_t sim_stream_recv(struct host_stream *stream, void *to, size_t bytes)
{
    struct sim_stream *s = stream_of(stream);
    struct sim_host *h = sim_of(stream->host);
    if (s->in_bytes == 0 || bytes == 0)
        return s->in_end || s->shut || bytes == 0 ? 0 : -EAGAIN;
    size_t n = some(h, MIN(bytes, s->in_bytes)), first = MIN(n, PIPE_BYTES - s->in_at);
    memcpy(to, s->in + s->in_at, first);
    memcpy((uint8_t *)to + first, s->in, n - first);
    s->in_at = (s->in_at + n) % PIPE_BYTES;
    s->in_bytes -= n;
    if (s->peer)
        wake(h, &s->peer->writer);
    return (int64_t)n;
}

static size_t push(struct sim_stream *to, const uint8_t *from, size_t bytes)
{
    size_t n = MIN(bytes, PIPE_BYTES - to->in_bytes);
    size_t end = (to->in_at + to->in_bytes) % PIPE_BYTES, first = MIN(n, PIPE_BYTES - end);
    memcpy(to->in + end, from, first);
    memcpy(to->in, from + first, n - first);
    to->in_bytes += n;
    return n;
}

int64_t sim_stream_sendv(struct host_stream *stream, const struct iovec *iov, unsigned count)
{
    struct sim_stream *s = stream_of(stream);
    struct sim_host *h = sim_of(stream->host);
    if (s->shut || !s->peer || s->peer->shut)
        return -EPIPE;
    size_t want = 0, done = 0;
    for (unsigned i = 0; i < count; i++)
        want += iov[i].iov_len;
    if (want == 0)
        return 0;
    if (s->peer->in_bytes == PIPE_BYTES)
        return -EAGAIN;
    want = some(h, MIN(want, PIPE_BYTES - s->peer->in_bytes));
    for (unsigned i = 0; i < count && done < want; i++)
        done += push(s->peer, iov[i].iov_base, MIN(iov[i].iov_len, want - done));
    wake(h, &s->peer->reader);
    return (int64_t)done;
}

int64_t sim_stream_send_file(struct host_stream *s, struct host_file *f, uint64_t offset,
                             uint64_t bytes)
{
    uint8_t chunk[SIM_PAGE];
    struct vec v = VEC_BUF(chunk, MIN(bytes, sizeof(chunk)));
    int64_t n = sim_read_contents(sim_of(f->host), sim_file_of(f)->inode, offset, &v);
    if (n <= 0)
        return n;
    struct iovec iov = {chunk, (size_t)n};
    return sim_stream_sendv(s, &iov, 1);
}

static unsigned ready(const struct sim_stream *s)
{
    if (s->base.listening)
        return s->waiting ? HOST_READABLE : 0;
    bool writable = !s->peer || s->peer->shut || s->peer->in_bytes < PIPE_BYTES;
    return (s->in_bytes > 0 || s->in_end ? HOST_READABLE : 0) | (writable ? HOST_WRITABLE : 0);
}

int sim_stream_wait(struct host_stream *stream, unsigned what, uint64_t timeout_ns)
{
    struct sim_stream *s = stream_of(stream);
    struct sim_host *h = sim_of(stream->host);
    uint64_t end = h->now + timeout_ns;
    while (!s->shut && !(ready(s) & what)) {
        if (timeout_ns && h->now >= end)
            return -ETIMEDOUT;
        struct sim_event ev = {.worker = worker_self(), .co = co_self()};
        if (what & HOST_READABLE) {
            assert(!s->reader);
            s->reader = &ev;
        }
        if (what & HOST_WRITABLE) {
            assert(!s->writer);
            s->writer = &ev;
        }
        if (timeout_ns)
            sim_event_post(h, &ev, end - h->now);
        co_sim_event_wait(&ev);
        if (s->reader == &ev)
            s->reader = NULL;
        if (s->writer == &ev)
            s->writer = NULL;
    }
    return s->shut ? -ECANCELED : (int)(ready(s) & what);
}

/* The other side reads to the end of what was sent and finds it closed. */
static void part(struct sim_host *h, struct sim_stream *s)
{
    if (s->peer) {
        s->peer->in_end = true;
        wake_all(h, s->peer);
    }
}

void sim_stream_shutdown(struct host_stream *stream)
{
    struct sim_stream *s = stream_of(stream);
    struct sim_host *h = sim_of(stream->host);
    s->shut = true;
    wake_all(h, s);
    part(h, s);
}

void sim_stream_close(struct host_stream *stream)
{
    struct sim_stream *s = stream_of(stream);
    struct sim_host *h = sim_of(stream->host);
    assert(!s->reader && !s->writer);
    part(h, s);
    if (s->peer)
        s->peer->peer = NULL;
    while (s->waiting) {
        struct sim_stream *never = s->waiting;
        s->waiting = never->next_waiting;
        sim_stream_close(&never->base);
    }
    struct sim_stream **at = &h->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    mem_free(s->address);
    mem_free(s->in);
    mem_free(s);
}

const char *sim_stream_address(const struct host_stream *s)
{
    return stream_of(s)->address;
}

/* --- signals ------------------------------------------------------------------------------------
 */

int sim_signal(struct host *host, const int *signals)
{
    struct sim_host *h = sim_of(host);
    if (h->signals_cancelled)
        return -ECANCELED;
    struct sim_event ev = {.worker = worker_self(), .co = co_self()};
    h->signal_waiter = &ev;
    co_sim_event_wait(&ev);
    return h->signal ? h->signal : -ECANCELED;
}

static void end_signal_wait(struct sim_host *h)
{
    struct sim_event *ev = h->signal_waiter;
    h->signal_waiter = NULL;
    if (ev)
        sim_event_post(h, ev, 1000);
}

void sim_signal_cancel(struct host *host)
{
    struct sim_host *h = sim_of(host);
    h->signals_cancelled = true;
    end_signal_wait(h);
}

void host_sim_signal(struct host *host, int number)
{
    struct sim_host *h = sim_of(host);
    h->signal = number;
    end_signal_wait(h);
}

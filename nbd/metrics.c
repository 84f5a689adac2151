/* SPDX-License-Identifier: BSD-3-Clause */
/* metrics.c - a server's counts in Prometheus' text format, over HTTP/1.0 on a Unix or loopback
 * socket.
 *
 * A request is at most 8 KiB and has five seconds; eight are served at a time. The answer is made
 * and sent in parts of 64 KiB, so its memory does not grow with the number of exports. */
#include <stdarg.h>

#include "nbd/watch.h"

#define SECOND    1000000000ULL
#define PATIENCE  (5 * SECOND)
#define CLIENTS   8
#define ASK_BYTES (8 * KiB)
#define TEXT_ROOM (64 * KiB)
#define LINE_ROOM (16 * KiB) /* left, or what is there is sent: names are escaped */

struct client {
    struct client *next;
    struct nbd_metrics *metrics;
    struct host_stream *stream;
};

struct nbd_metrics {
    struct nbd_watch *watch;
    struct host_stream *listener;
    struct client *first;
    unsigned clients, coroutines;
    bool ending;
    struct co_queue changed;
};

/* --- text --- */

struct answer {
    struct host_stream *stream;
    char *text;
    size_t bytes;
    int rc; /* the first error; then nothing is sent any more */
};

static void co_send(struct answer *a)
{
    const char *from = a->text;

    while (a->bytes && a->rc == 0) {
        struct iovec iov = {.iov_base = (void *)from, .iov_len = a->bytes};
        int64_t n = host_stream_sendv(a->stream, &iov, 1);

        if (n == -EAGAIN) {
            int rc = co_host_stream_wait(a->stream, HOST_WRITABLE, PATIENCE);
            a->rc = rc < 0 ? rc : 0;
        } else if (n < 0) {
            a->rc = (int)n;
        } else {
            from += n;
            a->bytes -= (size_t)n;
        }
    }
    a->bytes = 0;
}

static void co_say(struct answer *a, const char *fmt, ...) printf_like(2, 3);
static void co_say(struct answer *a, const char *fmt, ...)
{
    va_list args;

    if (TEXT_ROOM - a->bytes < LINE_ROOM)
        co_send(a);
    va_start(args, fmt);
    int n = vsnprintf(a->text + a->bytes, TEXT_ROOM - a->bytes, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < TEXT_ROOM - a->bytes)
        a->bytes += (size_t)n;
}

/* A label's value: \ " and newline are escaped; what is no UTF-8 was made so by nobody. */
static void escape(const char *name, char *to, size_t room)
{
    char *end = to + room - 3;

    for (; *name && to < end; name++) {
        if (*name == '\\' || *name == '"')
            *to++ = '\\';
        if (*name == '\n')
            *to++ = '\\';
        *to++ = *name == '\n' ? 'n' : *name;
    }
    *to = 0;
}

#define IN_SECONDS(ns) (ns) / SECOND, (ns) % SECOND

/* --- one export --- */

static const char *const kinds[NBD_KINDS] = {"read", "write", "flush", "other"};

static uint64_t count_of(const struct nbd_export_stats *s, unsigned kind)
{
    const uint64_t counts[] = {s->reads, s->writes, s->flushes, s->others};
    return counts[kind];
}

static void co_say_latency(struct answer *a, const char *name, const char *kind,
                           const struct nbd_latency *l)
{
    static const char metric[] = "lamina_export_request_duration_seconds";
    uint64_t sum = 0;

    for (unsigned i = 0; i < NBD_LATENCY_BUCKETS; i++) {
        uint64_t limit_ns = (uint64_t)1000 << i;

        sum += l->bucket[i];
        co_say(a, "%s_bucket{export=\"%s\",op=\"%s\",le=\"%llu.%09llu\"} %" PRIu64 "\n", metric,
               name, kind, IN_SECONDS(limit_ns), sum);
    }
    sum += l->bucket[NBD_LATENCY_BUCKETS];
    co_say(a, "%s_bucket{export=\"%s\",op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", metric, name, kind,
           sum);
    co_say(a, "%s_sum{export=\"%s\",op=\"%s\"} %llu.%09llu\n", metric, name, kind,
           IN_SECONDS((unsigned long long)l->sum_ns));
    co_say(a, "%s_count{export=\"%s\",op=\"%s\"} %" PRIu64 "\n", metric, name, kind, sum);
}

/* A family of metrics: its head, then a part for each export. */
static const struct family {
    const char *name, *type, *help;
    void (*co_say)(struct answer *a, const char *metric, const char *name,
                   const struct nbd_seen *x);
} families[];

static void co_say_clients(struct answer *a, const char *metric, const char *name,
                           const struct nbd_seen *x)
{
    co_say(a, "%s{export=\"%s\"} %u\n", metric, name, x->clients);
}

static void co_say_size(struct answer *a, const char *metric, const char *name,
                        const struct nbd_seen *x)
{
    co_say(a, "%s{export=\"%s\"} %" PRIu64 "\n", metric, name, x->size);
}

static void co_say_requests(struct answer *a, const char *metric, const char *name,
                            const struct nbd_seen *x)
{
    for (unsigned k = 0; k < NBD_KINDS; k++)
        co_say(a, "%s{export=\"%s\",op=\"%s\"} %" PRIu64 "\n", metric, name, kinds[k],
               count_of(&x->stats, k));
}

static void co_say_bytes(struct answer *a, const char *metric, const char *name,
                         const struct nbd_seen *x)
{
    co_say(a, "%s{export=\"%s\",op=\"read\"} %" PRIu64 "\n", metric, name, x->stats.read_bytes);
    co_say(a, "%s{export=\"%s\",op=\"write\"} %" PRIu64 "\n", metric, name, x->stats.written_bytes);
}

static void co_say_errors(struct answer *a, const char *metric, const char *name,
                          const struct nbd_seen *x)
{
    co_say(a, "%s{export=\"%s\"} %" PRIu64 "\n", metric, name, x->stats.errors);
}

static void co_say_durations(struct answer *a, const char *metric, const char *name,
                             const struct nbd_seen *x)
{
    for (unsigned k = 0; k < NBD_KINDS; k++)
        if (nbd_latency_count(&x->stats.latency[k]))
            co_say_latency(a, name, kinds[k], &x->stats.latency[k]);
}

static void co_say_waited(struct answer *a, const char *metric, const char *name,
                          const struct nbd_seen *x)
{
    if (x->shares)
        co_say(a, "%s{export=\"%s\"} %llu.%09llu\n", metric, name,
               IN_SECONDS((unsigned long long)x->share.waited_ns));
}

static const struct family families[] = {
    {"lamina_export_clients", "gauge", "Clients connected to the export.", co_say_clients},
    {"lamina_export_size_bytes", "gauge", "Size of the export.", co_say_size},
    {"lamina_export_requests_total", "counter", "Requests received.", co_say_requests},
    {"lamina_export_bytes_total", "counter", "Bytes asked for.", co_say_bytes},
    {"lamina_export_errors_total", "counter", "Requests answered with an error.", co_say_errors},
    {"lamina_export_waited_seconds_total", "counter",
     "Time that requests waited for their turn among exports that share.", co_say_waited},
    {"lamina_export_request_duration_seconds", "histogram",
     "From a request's receipt to its answer's.", co_say_durations},
};

static void co_say_all(struct answer *a, struct nbd_watch *w)
{
    struct nbd_seen *seen;
    size_t count;

    a->rc = co_nbd_watch_look(w, &seen, &count);
    if (a->rc < 0)
        return;
    co_say(a,
           "# HELP lamina_clients Clients past the handshake.\n# TYPE lamina_clients gauge\n"
           "lamina_clients %u\n",
           nbd_server_clients(w->server));
    for (size_t f = 0; f < ARRAY_LEN(families); f++) {
        co_say(a, "# HELP %s %s\n# TYPE %s %s\n", families[f].name, families[f].help,
               families[f].name, families[f].type);
        for (size_t i = 0; i < count && a->rc == 0; i++) {
            char name[4 * KiB + 4]; /* an export's name has at most 4096 bytes */

            escape(seen[i].name, name, sizeof(name));
            families[f].co_say(a, families[f].name, name, &seen[i]);
        }
    }
    nbd_seen_drop(seen, count);
}

/* --- HTTP --- */

/* The request's head, up to the empty line. 0, or why it is none. */
static int co_hear(struct host_stream *s, char *ask)
{
    uint64_t end = worker_now() + PATIENCE;
    size_t have = 0;

    for (;;) {
        int64_t n = host_stream_recv(s, ask + have, ASK_BYTES - 1 - have);
        uint64_t now = worker_now();

        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && n != -EAGAIN)
            return (int)n;
        if (n > 0) {
            have += (size_t)n;
            ask[have] = 0;
            if (strstr(ask, "\r\n\r\n") || strstr(ask, "\n\n"))
                return 0;
            if (have == ASK_BYTES - 1)
                return -E2BIG;
            continue;
        }
        if (now >= end)
            return -ETIMEDOUT;
        TRY(co_host_stream_wait(s, HOST_READABLE, end - now));
    }
}

static const char *refusal(const char *ask)
{
    if (strncmp(ask, "GET ", 4) != 0)
        return "405 Method Not Allowed";
    ask += 4;
    size_t n = strcspn(ask, " ?\r\n");
    bool known = (n == 1 && ask[0] == '/') || (n == 8 && strncmp(ask, "/metrics", 8) == 0);
    return known ? NULL : "404 Not Found";
}

static void co_answer(struct nbd_metrics *m, struct answer *a, char *ask)
{
    const char *no;

    if (co_hear(a->stream, ask) < 0)
        return;
    no = refusal(ask);
    co_say(a,
           "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
           "Connection: close\r\n\r\n",
           no ? no : "200 OK");
    if (no)
        co_say(a, "%s: the counts are at /metrics\n", no);
    else
        co_say_all(a, m->watch);
    co_send(a);
}

static void co_client(void *arg)
{
    struct client *c = arg;
    struct nbd_metrics *m = c->metrics;
    auto_free char *ask = mem_alloc(ASK_BYTES);
    struct answer a = {.stream = c->stream, .text = buf_get(TEXT_ROOM)};

    if (ask && a.text)
        co_answer(m, &a, ask);
    if (a.text)
        buf_put(a.text, TEXT_ROOM);
    for (struct client **at = &m->first; *at; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            break;
        }
    host_stream_close(c->stream);
    mem_free(c);
    m->clients--;
    m->coroutines--;
    co_queue_wake_all(&m->changed);
}

static int begin_client(struct nbd_metrics *m, struct host_stream *stream)
{
    struct client *c = mem_zalloc(sizeof(*c));

    if (c) {
        *c = (struct client){m->first, m, stream};
        m->first = c;
        m->clients++;
        m->coroutines++;
        if (co_start(co_client, c) == 0)
            return 0;
        m->first = c->next;
        m->clients--;
        m->coroutines--;
    }
    mem_free(c);
    host_stream_close(stream);
    return -ENOMEM;
}

static void co_listen(void *arg)
{
    struct nbd_metrics *m = arg;

    while (!m->ending) {
        struct host_stream *stream;

        if (m->clients >= CLIENTS) {
            co_queue_wait(&m->changed);
            continue;
        }
        int rc = co_host_accept(m->listener, &stream);
        if (rc == 0)
            rc = begin_client(m, stream);
        if (rc < 0 && !m->ending)
            co_sleep(SECOND / 20);
    }
    m->coroutines--;
    co_queue_wake_all(&m->changed);
}

/* --- life --- */

int nbd_metrics_address(const char *text, char **out, struct blk_error *e)
{
    static const char *const hosts[] = {"127.0.0.1:", "localhost:", "[::1]:"};

    *out = NULL;
    if (strncmp(text, "unix:", 5) == 0 && text[5])
        *out = mem_strdup(text);
    else if (text[0] == '/')
        *out = mem_printf("unix:%s", text);
    for (size_t i = 0; i < ARRAY_LEN(hosts) && !*out; i++)
        if (strncmp(text, hosts[i], strlen(hosts[i])) == 0)
            *out = mem_printf("tcp:%s", text);
    if (*out)
        return 0;
    return err_set(e, -EINVAL,
                   "'%.100s': metrics are told on unix:PATH or on this machine's 127.0.0.1:PORT",
                   text);
}

int co_nbd_metrics_open(struct nbd_watch *w, const char *address, struct blk_error *e)
{
    struct host *h = worker_self()->host;
    struct nbd_metrics *m = mem_zalloc(sizeof(*m));
    auto_free char *at = NULL;
    int rc = m ? nbd_metrics_address(address, &at, e) : err_set(e, -ENOMEM, "out of memory");

    if (rc == 0) {
        rc = co_host_listen(h, at, &m->listener);
        if ((rc == -EADDRINUSE || rc == -EEXIST) && co_nbd_remove_dead_socket(h, at))
            rc = co_host_listen(h, at, &m->listener);
        if (rc < 0)
            err_errno(e, rc, "cannot listen on %s", address);
    }
    if (rc < 0) {
        mem_free(m);
        return rc;
    }
    m->watch = w;
    m->coroutines = 1;
    if (co_start(co_listen, m) < 0) {
        host_stream_close(m->listener);
        mem_free(m);
        return err_set(e, -ENOMEM, "out of memory");
    }
    w->metrics = m;
    return 0;
}

void co_nbd_metrics_close(struct nbd_watch *w)
{
    struct nbd_metrics *m = take(w->metrics);

    if (!m)
        return;
    m->ending = true;
    host_stream_shutdown(m->listener);
    for (struct client *c = m->first; c; c = c->next)
        host_stream_shutdown(c->stream);
    co_queue_wake_all(&m->changed);
    while (m->coroutines)
        co_queue_wait(&m->changed);
    host_stream_close(m->listener);
    mem_free(m);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* server.c - listening, letting clients in, and stopping.
 *
 * A silent client costs a coroutine and a few KiB for ten seconds; a hundred of them at most, then
 * the oldest makes room, so a real client always gets in. */
#include "nbd/server.h"

#include "nbd/connection.h"

struct listener {
    struct listener *next;
    struct nbd_server *server;
    struct host_stream *stream;
};

/* Oldest first. */
struct conn_list {
    struct nbd_conn *first, *last;
};

struct nbd_server {
    struct host *host;
    struct listener *listeners; /* in the order they were made */
    unsigned accepting;         /* coroutines */
    struct nbd_tls *tls;
    enum nbd_tls_mode tls_mode;
    unsigned max_clients;
    bool once, stopping;
    struct nbd_limits limits;
    struct nbd_exports exports;
    void (*on_event)(void *arg, const struct nbd_event *ev);
    void *event_arg;

    struct conn_list greeting; /* clients in the handshake */
    struct conn_list others;   /* through it, or leaving */
    atomic_uint wide;          /* of them with wide sockets */
    unsigned clients, half_open, through;
    unsigned lanes;            /* dealt out */
    _Atomic size_t held;       /* bytes of requests in flight, on all lanes */
    _Atomic size_t held_short; /* of them those of short ones */
    atomic_uint wait_for_room; /* clients that have nothing in flight */
    struct co_queue changed;   /* a client left, or stop was asked */
    struct timer stop_timer;
};

#define SECOND 1000000000ULL
#define LET_IN 64 /* clients in a row, before those who are there get their turn */

static void fill_limits(struct nbd_limits *l)
{
    static const struct nbd_limits preset = {
        .handshake_ns = 10 * SECOND,
        .slow_ns = 60 * SECOND,
        .stop_ns = 30 * SECOND,
        .half_open = 100,
        .in_flight = 1024,
        .memory = 64 * MiB,
        .total = 128 * MiB,
    };

    l->handshake_ns = l->handshake_ns ? l->handshake_ns : preset.handshake_ns;
    l->slow_ns = l->slow_ns ? l->slow_ns : preset.slow_ns;
    l->stop_ns = l->stop_ns ? l->stop_ns : preset.stop_ns;
    l->half_open = l->half_open ? l->half_open : preset.half_open;
    l->in_flight = l->in_flight ? l->in_flight : preset.in_flight;
    l->memory = l->memory ? l->memory : preset.memory;
    l->total = l->total ? l->total : preset.total;
}

int nbd_server_open(const struct nbd_server_options *o, struct nbd_server **out,
                    struct blk_error *e)
{
    struct nbd_server *s = mem_zalloc(sizeof(*s));

    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    *s = (struct nbd_server){.host = o->host,
                             .max_clients = o->max_clients,
                             .once = o->once,
                             .tls = o->tls,
                             .tls_mode = o->tls ? o->tls_mode : NBD_TLS_OFF,
                             .limits = o->limits,
                             .on_event = o->on_event,
                             .event_arg = o->event_arg};
    fill_limits(&s->limits);
    *out = s;
    return 0;
}

bool co_nbd_remove_dead_socket(struct host *h, const char *address)
{
    static const char unix_prefix[] = "unix:";
    const char *path = address + sizeof(unix_prefix) - 1;
    struct host_stream *peer;
    struct host_stat st;
    int rc;

    if (strncmp(address, unix_prefix, sizeof(unix_prefix) - 1) != 0)
        return false;
    if (co_host_stat(h, path, &st) < 0 || st.type != HOST_FILE_OTHER)
        return false;
    rc = co_host_connect(h, address, &peer);
    if (rc == 0)
        host_stream_close(peer);
    return rc == -ECONNREFUSED && co_host_unlink(h, path) == 0;
}

/* Takes @stream, also on failure. */
static int add_listener(struct nbd_server *s, struct host_stream *stream, struct blk_error *e)
{
    struct listener **at = &s->listeners, *l = mem_zalloc(sizeof(*l));

    if (!l) {
        host_stream_close(stream);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *l = (struct listener){.server = s, .stream = stream};
    while (*at)
        at = &(*at)->next;
    *at = l;
    return 0;
}

int co_nbd_server_listen(struct nbd_server *s, const char *address, struct blk_error *e)
{
    struct host_stream *stream;
    int rc = co_host_listen(s->host, address, &stream);

    if ((rc == -EADDRINUSE || rc == -EEXIST) && co_nbd_remove_dead_socket(s->host, address))
        rc = co_host_listen(s->host, address, &stream);
    return rc < 0 ? err_errno(e, rc, "cannot listen on %s", address) : add_listener(s, stream, e);
}

int nbd_server_listen_at(struct nbd_server *s, int fd, struct blk_error *e)
{
    struct host_stream *stream;
    int rc = host_listen_at(s->host, fd, &stream);

    return rc < 0 ? err_errno(e, rc, "descriptor %d is no listening socket", fd)
                  : add_listener(s, stream, e);
}

unsigned nbd_server_share(struct nbd_server *s, int *fds, unsigned room)
{
    unsigned n = 0;

    for (struct listener *l = s->listeners; l && n < room; l = l->next)
        fds[n++] = host_listener_share(l->stream);
    return n;
}

struct nbd_exports *nbd_server_exports(struct nbd_server *s)
{
    return &s->exports;
}

const char *nbd_server_address(const struct nbd_server *s)
{
    return s->listeners ? host_stream_address(s->listeners->stream) : "";
}

const char *nbd_server_next_address(const struct nbd_server *s, const char *address)
{
    const struct listener *l = s->listeners;

    if (address) {
        while (host_stream_address(l->stream) != address)
            l = l->next;
        l = l->next;
    }
    return l ? host_stream_address(l->stream) : NULL;
}

const struct nbd_limits *nbd_server_limits(const struct nbd_server *s)
{
    return &s->limits;
}

struct nbd_tls *nbd_server_tls(const struct nbd_server *s)
{
    return s->tls;
}

enum nbd_tls_mode nbd_server_tls_mode(const struct nbd_server *s)
{
    return s->tls_mode;
}

void nbd_server_hold(struct nbd_server *s, size_t bytes)
{
    atomic_fetch_add(&s->held, bytes);
    if (bytes <= NBD_SHORT)
        atomic_fetch_add(&s->held_short, bytes);
}

void nbd_server_unhold(struct nbd_server *s, size_t bytes)
{
    atomic_fetch_sub(&s->held, bytes);
    if (bytes <= NBD_SHORT)
        atomic_fetch_sub(&s->held_short, bytes);
}

bool nbd_server_crowded(struct nbd_server *s)
{
    return atomic_load(&s->held) >= s->limits.total;
}

bool nbd_server_has_room(struct nbd_server *s, uint64_t bytes, bool first)
{
    if (bytes == 0)
        return true;
    if (!first)
        return atomic_load(&s->held) < s->limits.total / 2;
    return !nbd_server_crowded(s) ||
           (bytes <= NBD_SHORT && atomic_load(&s->held_short) < s->limits.total / 8);
}

bool nbd_server_pressed(struct nbd_server *s)
{
    return atomic_load(&s->wait_for_room) > 0;
}

int co_nbd_server_wait_room(struct nbd_server *s, uint64_t bytes, const atomic_bool *broken)
{
    atomic_fetch_add(&s->wait_for_room, 1);
    while (!nbd_server_has_room(s, bytes, true) && !atomic_load(broken))
        co_sleep(SECOND / 100);
    atomic_fetch_sub(&s->wait_for_room, 1);
    return atomic_load(broken) ? -ECANCELED : 0;
}

struct worker *nbd_server_next_lane(struct nbd_server *s)
{
    struct runtime *rt = worker_self()->runtime;

    /* Not the server's own first: it lets clients in as well. */
    return runtime_worker(rt, ++s->lanes % MIN(runtime_workers(rt), NBD_MAX_LANES));
}

unsigned nbd_server_clients(const struct nbd_server *s)
{
    return s->through;
}

/* --- clients --- */

static void tell(const struct nbd_server *s, const char *what, const struct nbd_conn *c)
{
    struct nbd_event ev = {.what = what, .clients = s->through};

    if (!s->on_event)
        return;
    if (c) {
        ev.export = c->export ? c->export->name : NULL;
        ev.peer = host_stream_address(c->stream);
        ev.ns = worker_now() - c->entered_at;
    }
    s->on_event(s->event_arg, &ev);
}

static void on_deadline(struct timer *t)
{
    nbd_conn_abort(container_of(t, struct nbd_conn, deadline));
}

static void list_add(struct conn_list *l, struct nbd_conn *c)
{
    c->next = NULL;
    c->prev = l->last;
    *(l->last ? &l->last->next : &l->first) = c;
    l->last = c;
}

static void list_remove(struct conn_list *l, struct nbd_conn *c)
{
    *(c->prev ? &c->prev->next : &l->first) = c->next;
    *(c->next ? &c->next->prev : &l->last) = c->prev;
}

static void handshake_over(struct nbd_server *s, struct nbd_conn *c)
{
    if (!c->half_open)
        return;
    timer_cancel(&c->deadline);
    c->half_open = false;
    s->half_open--;
    list_remove(&s->greeting, c);
    list_add(&s->others, c);
}

static void evict_oldest(struct nbd_server *s)
{
    struct nbd_conn *c = s->greeting.first;

    if (c) {
        handshake_over(s, c);
        nbd_conn_abort(c);
    }
}

void nbd_server_enter(struct nbd_server *s, struct nbd_conn *c)
{
    list_add(&s->greeting, c);
    s->clients++;
    c->entered_at = worker_now();
    c->half_open = true;
    if (++s->half_open > s->limits.half_open)
        evict_oldest(s);
    timer_arm(&c->deadline, worker_now() + s->limits.handshake_ns, on_deadline);
}

void nbd_server_through(struct nbd_server *s, struct nbd_conn *c)
{
    handshake_over(s, c);
    s->through++;
    c->export->clients++;
    tell(s, "client-in", c);
}

bool nbd_server_widens(struct nbd_server *s)
{
    if (atomic_fetch_add(&s->wide, 1) < NBD_WIDE_CLIENTS)
        return true;
    atomic_fetch_sub(&s->wide, 1);
    return false;
}

void nbd_server_leave(struct nbd_server *s, struct nbd_conn *c)
{
    if (c->wide)
        atomic_fetch_sub(&s->wide, 1);
    handshake_over(s, c);
    list_remove(&s->others, c);
    if (!c->export) {
        tell(s, "handshake-failed", c);
    } else {
        c->export->clients--;
        nbd_export_leave(c->export, c->writer);
        s->through--;
        tell(s, "client-out", c);
        nbd_export_release(c->export);
        if (s->through == 0 && s->once)
            nbd_server_stop(s);
    }
}

void nbd_server_gone(struct nbd_server *s)
{
    s->clients--;
    co_queue_wake_all(&s->changed);
}

/* Requests that wait for their turn among exports that share do not hold up an end. */
static void hurry(struct nbd_export *x)
{
    if (x->share)
        share_set(x->share, &(struct share_wish){.min_iops = 1000000000});
}

int co_nbd_server_remove(struct nbd_server *s, struct nbd_export *x, struct blk_error *e)
{
    hurry(x);
    for (struct nbd_conn *c = s->others.first; c; c = c->next)
        if (c->export == x && !c->told_stop)
            nbd_conn_tell_stop(c);
    return co_nbd_export_remove(x, e);
}

/* --- serving --- */

static void on_stop_timer(struct timer *t)
{
    struct nbd_server *s = container_of(t, struct nbd_server, stop_timer);

    for (struct nbd_conn *c = s->others.first; c; c = c->next)
        nbd_conn_tell_abort(c);
}

void nbd_server_stop(struct nbd_server *s)
{
    if (s->stopping)
        return;
    s->stopping = true;
    for (struct nbd_export *x = s->exports.first; x; x = x->next)
        hurry(x);
    tell(s, "stopping", NULL);
    for (struct listener *l = s->listeners; l; l = l->next)
        host_stream_shutdown(l->stream);
    timer_arm(&s->stop_timer, worker_now() + s->limits.stop_ns, on_stop_timer);
    for (struct nbd_conn *c = s->greeting.first; c; c = c->next)
        nbd_conn_tell_abort(c);
    for (struct nbd_conn *c = s->others.first; c; c = c->next)
        if (!c->told_stop)
            nbd_conn_tell_stop(c);
    co_queue_wake_all(&s->changed);
}

/* Accepting fails for want of descriptors or memory: later there may be some. */
static void co_let_in(struct nbd_server *s, struct host_stream *listener)
{
    struct host_stream *stream;
    int rc = co_host_accept(listener, &stream);

    if (rc == 0 && s->stopping) {
        host_stream_close(stream);
        return;
    }
    if (rc == 0)
        rc = nbd_conn_start(s, stream);
    if (rc < 0 && !s->stopping) {
        evict_oldest(s);
        co_sleep(SECOND / 20);
    }
}

static void co_accept(void *arg)
{
    struct listener *l = arg;
    struct nbd_server *s = l->server;

    for (unsigned n = 1; !s->stopping; n++) {
        if (s->max_clients && s->clients >= s->max_clients)
            co_queue_wait(&s->changed);
        else
            co_let_in(s, l->stream);
        if (n % LET_IN == 0)
            co_yield ();
    }
    s->accepting--;
    co_queue_wake_all(&s->changed);
}

void co_nbd_server_run(struct nbd_server *s)
{
    for (struct listener *l = s->listeners; l; l = l->next) {
        s->accepting++;
        if (co_start(co_accept, l) < 0) {
            s->accepting--;
            nbd_server_stop(s); /* a server with one ear is none */
        }
    }
    while (s->accepting || s->clients)
        co_queue_wait(&s->changed);
    timer_cancel(&s->stop_timer);
}

int co_nbd_server_close(struct nbd_server *s, struct blk_error *e)
{
    int rc;

    assert(s->clients == 0 && s->accepting == 0);
    while (s->listeners) {
        struct listener *l = s->listeners;

        s->listeners = l->next;
        host_stream_close(l->stream);
        mem_free(l);
    }
    rc = co_nbd_exports_close(&s->exports, e);
    mem_free(s);
    return rc;
}

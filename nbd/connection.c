/* SPDX-License-Identifier: BSD-3-Clause */
/* connection.c - one client from accept to end: receiving many requests at a time, parsing them in
 * place, backpressure.
 *
 * Bytes are received into a buffer of 256 KiB that a connection has only while there is something
 * in it (the pool hands out the warm one, so in effect it belongs to the worker). A write whose
 * payload does not lie there whole gets its own aligned buffer, and the rest of the payload is
 * received straight into that. After a long payload another one is expected: then no more than the
 * next header is received into the common buffer, so nothing of what follows has to be copied.
 * Payloads of refused writes are thrown away as they come. */
#include "nbd/connection.h"
#include "nbd/server.h"

#define IN_BYTES     (256u << 10)
#define LARGE        (32u << 10) /* a payload that costs more to copy than to receive by itself */
#define BURST        256u        /* requests taken before others get their turn */
#define SHARED_BURST 16u         /* the same where exports share: order is not made here */
#define BURST_BYTES  (4u << 20)  /* of their data */
#define UNTAKEN      (4u << 20)  /* of a client that does not take its answers */
#define SPARES       256u        /* request structs kept by a connection */

/* --- requests' memory --- */

struct nbd_request *nbd_request_get(struct nbd_conn *c)
{
    struct nbd_request *r = c->spare;

    if (r) {
        c->spare = r->next;
        c->spares--;
    } else {
        r = mem_alloc(sizeof(*r));
        if (!r)
            return NULL;
        r->conn = c;
    }
    r->buf = r->data = r->more = NULL;
    r->file = NULL;
    r->file_left = 0;
    r->filled = 0;
    r->moving_since = 0;
    c->in_flight++;
    return r;
}

void nbd_request_put(struct nbd_request *r)
{
    struct nbd_conn *c = r->conn;

    nbd_request_drop_buf(r);
    if (r->more)
        buf_put(r->more, r->more_bytes);
    nbd_request_drop_file(r);
    c->in_flight--;
    if (c->spares == SPARES) {
        mem_free(r);
        return;
    }
    r->next = c->spare;
    c->spare = r;
    c->spares++;
}

int nbd_request_buf(struct nbd_request *r, size_t bytes)
{
    /* As the pool rounds: what is counted is what is held. */
    r->buf_bytes = bytes <= 4096 ? 4096 : (size_t)2 << log2_floor(bytes - 1);
    r->buf = r->data = buf_get(r->buf_bytes);
    if (!r->buf)
        return -ENOMEM;
    r->conn->memory += r->buf_bytes;
    nbd_server_hold(r->conn->server, r->buf_bytes);
    return 0;
}

void nbd_request_drop_buf(struct nbd_request *r)
{
    if (!r->buf)
        return;
    buf_put(r->buf, r->buf_bytes);
    r->conn->memory -= r->buf_bytes;
    nbd_server_unhold(r->conn->server, r->buf_bytes);
    r->buf = r->data = NULL;
}

bool nbd_request_hold_file(struct nbd_request *r, struct host_file *file, uint64_t at)
{
    if (!blk_hold(r->conn->export->dev))
        return false;
    r->file = file;
    r->file_at = at;
    r->file_left = r->ask.length;
    r->conn->memory += r->ask.length;
    return true;
}

void nbd_request_drop_file(struct nbd_request *r)
{
    if (!r->file)
        return;
    blk_release(r->conn->export->dev);
    r->conn->memory -= r->ask.length;
    r->file = NULL;
    r->file_left = 0;
}

bool nbd_conn_stands_still(const struct nbd_request *r, int waited)
{
    uint64_t enough = NBD_PATIENCE_NS + r->ask.length * NBD_SLOWEST_NS;

    return nbd_server_pressed(r->conn->server) &&
           (waited == -ETIMEDOUT || worker_now() - r->moving_since >= enough);
}

/* --- stopping --- */

static bool full(const struct nbd_conn *c)
{
    const struct nbd_limits *l = nbd_server_limits(c->server);

    return c->in_flight >= l->in_flight || c->memory >= l->memory ||
           (c->sending && c->memory >= UNTAKEN);
}

void nbd_conn_settle(struct nbd_conn *c)
{
    if (!co_queue_empty(&c->room) && (c->broken || c->stopping || !full(c)))
        co_queue_wake_all(&c->room);
    if (c->stopping && c->in_flight == (c->filling ? 1 : 0) && !c->broken)
        nbd_conn_abort(c);
    if (c->ending)
        co_queue_wake_all(&c->idle);
}

void nbd_conn_stop(struct nbd_conn *c)
{
    c->stopping = true;
    if (!c->export)
        nbd_conn_abort(c);
    nbd_conn_settle(c);
}

void nbd_conn_abort(struct nbd_conn *c)
{
    if (c->broken)
        return;
    c->broken = true;
    host_stream_shutdown(c->stream);
    if (!co_queue_empty(&c->room))
        co_queue_wake_all(&c->room);
}

static void on_stop_msg(struct worker_msg *m)
{
    nbd_conn_stop(container_of(m, struct nbd_conn, stop_msg));
}

static void on_abort_msg(struct worker_msg *m)
{
    nbd_conn_abort(container_of(m, struct nbd_conn, abort_msg));
}

static void tell(struct nbd_conn *c, struct worker_msg *m, void (*fn)(struct worker_msg *m))
{
    m->fn = fn;
    if (!c->lane || c->lane == worker_self()) {
        fn(m);
    } else {
        c->told = true;
        worker_post(c->lane, m);
    }
}

void nbd_conn_tell_stop(struct nbd_conn *c)
{
    c->told_stop = true;
    tell(c, &c->stop_msg, on_stop_msg);
}

void nbd_conn_tell_abort(struct nbd_conn *c)
{
    tell(c, &c->abort_msg, on_abort_msg);
}

/* --- receiving --- */

static int take_in(struct nbd_conn *c)
{
    if (c->in)
        return 0;
    c->in = buf_get(IN_BYTES);
    if (!c->in)
        return -ENOMEM;
    memcpy(c->in, c->stash, c->stashed);
    c->in_start = 0;
    c->in_end = c->stashed;
    c->stashed = 0;
    return 0;
}

/* Gives the buffer back before the connection sleeps, if what is left fits the stash. */
static void park_in(struct nbd_conn *c)
{
    size_t left = c->in_end - c->in_start;

    if (!c->in || left > sizeof(c->stash))
        return;
    memcpy(c->stash, c->in + c->in_start, left);
    c->stashed = left;
    buf_put(c->in, IN_BYTES);
    c->in = NULL;
}

/* Room behind what is there; nothing longer than a part of a header is ever left over there. */
static void pack_in(struct nbd_conn *c)
{
    if (c->in_start == 0)
        return;
    memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
    c->in_end -= c->in_start;
    c->in_start = 0;
}

/* One recv: of a payload into its own buffer, else into the shared one. The count, 0 at the end of
 * the stream, -EAGAIN. *room is what it could have been. */
static int64_t receive(struct nbd_conn *c, size_t *room)
{
    struct nbd_request *w = c->filling;
    int64_t n;

    if (w) {
        *room = w->ask.payload - w->filled;
        n = host_stream_recv(c->stream, w->data + w->filled, *room);
        if (n > 0)
            w->filled += (uint32_t)n;
        return n;
    }
    TRY(take_in(c));
    pack_in(c);
    *room = (c->large && !c->skip ? nbd_head_bytes(&c->session) : IN_BYTES) - c->in_end;
    n = host_stream_recv(c->stream, c->in + c->in_end, *room);
    if (n > 0)
        c->in_end += (size_t)n;
    c->received_at = worker_now();
    return n;
}

/* --- parsing --- */

enum parsed {
    PARSED_ALL,   /* needs more bytes */
    PARSED_BURST, /* there is more, but others are to have their turn */
    PARSED_FULL,  /* there is more, but too much is in flight: of this client or of all */
    PARSED_END,   /* the client said goodbye */
};

/* A request whose payload is not all there: what is, is copied; the rest comes by receive(). */
static int begin_filling(struct nbd_conn *c, struct nbd_request *r)
{
    size_t have = c->in_end - c->in_start;

    if (nbd_request_buf(r, r->ask.payload) < 0) {
        c->skip = r->ask.payload;
        nbd_reply(r, -ENOMEM);
        return 0;
    }
    memcpy(r->data, c->in + c->in_start, have);
    r->filled = (uint32_t)have;
    r->moving_since = c->received_at;
    c->in_start = c->in_end;
    c->filling = r;
    return 0;
}

static int take_payload(struct nbd_conn *c, struct nbd_request *r)
{
    if (c->in_end - c->in_start < r->ask.payload)
        return begin_filling(c, r);
    c->in_start += r->ask.payload;
    nbd_request_run(r, c->in + c->in_start - r->ask.payload);
    return 0;
}

/* Among all clients; @a is counted as in flight already. */
static bool has_room(struct nbd_conn *c, const struct nbd_ask *a)
{
    c->wants = nbd_ask_memory(a);
    return nbd_server_has_room(c->server, c->wants, c->in_flight == 1);
}

/* The request at in_start, which lies there whole. */
static int take_request(struct nbd_conn *c)
{
    struct nbd_facts facts = nbd_facts_now(&c->export->facts);
    struct nbd_request *r;
    uint32_t error;
    const char *why;

    r = nbd_request_get(c);
    if (!r)
        return -ENOMEM;
    r->began = c->received_at;
    if (nbd_ask_parse(c->in + c->in_start, &c->session, &facts, &r->ask, &error, &why) < 0) {
        nbd_request_put(r);
        return -EPROTO;
    }
    if (!error && !has_room(c, &r->ask)) {
        nbd_request_put(r);
        return PARSED_FULL;
    }
    c->in_start += nbd_head_bytes(&c->session);
    c->large = r->ask.payload >= LARGE;
    if (r->ask.type == NBD_CMD_DISC) {
        nbd_request_put(r);
        return PARSED_END;
    }
    if (error) {
        c->skip = r->ask.payload;
        nbd_reply_error(r, error, why);
        return 0;
    }
    if (r->ask.payload)
        return take_payload(c, r);
    nbd_request_run(r, NULL);
    return 0;
}

static void take_skipped(struct nbd_conn *c)
{
    size_t n = MIN(c->skip, c->in_end - c->in_start);

    c->skip -= n;
    c->in_start += n;
}

/* Takes requests from what has been received. An enum parsed, or a negative errno. */
static int parse(struct nbd_conn *c)
{
    struct nbd_request *w = c->filling;

    if (w) {
        if (w->filled < w->ask.payload)
            return PARSED_ALL;
        c->filling = NULL;
        nbd_request_run(w, NULL);
    }
    uint64_t bytes = 0;
    for (unsigned taken = 0; c->in; taken++) {
        int rc;

        take_skipped(c);
        if (c->filling || c->in_end - c->in_start < nbd_head_bytes(&c->session))
            return PARSED_ALL;
        if (c->stopping || full(c))
            return PARSED_FULL;
        if (taken == (c->export->share ? SHARED_BURST : BURST) || bytes >= BURST_BYTES)
            return PARSED_BURST;
        rc = take_request(c);
        if (rc != 0)
            return rc;
        worker_self()->served++;
        bytes += c->wants;
    }
    return PARSED_ALL;
}

/* All clients together hold too much: until an answer of ours is out, or if none is, until theirs
 * are. */
static int co_wait_for_others(struct nbd_conn *c)
{
    if (!c->in_flight)
        return co_nbd_server_wait_room(c->server, c->wants, &c->broken);
    co_queue_wait(&c->room);
    return 0;
}

/* Parses all that is there, with pauses. 0: more bytes are needed; PARSED_END; a negative errno. */
static int co_parse(struct nbd_conn *c)
{
    for (;;) {
        int rc = parse(c);

        if (rc != PARSED_BURST && rc != PARSED_FULL)
            return rc;
        nbd_send(c);
        if (rc == PARSED_BURST)
            co_yield ();
        else if (!c->broken && (c->stopping || full(c)))
            co_queue_wait(&c->room);
        else if (!c->broken && !nbd_server_has_room(c->server, c->wants, !c->in_flight))
            TRY(co_wait_for_others(c));
        if (c->broken || c->stopping)
            return -ECANCELED;
    }
}

/* Of long payloads, which come one by one: not faster than they are written; and others get their
 * turn. */
static void co_pause(struct nbd_conn *c, uint64_t *burst, size_t more)
{
    if (c->large && co_host_ease(c->export->dev->host))
        nbd_send(c); /* the answers to these: the client's turn */
    *burst += more;
    if (*burst < BURST_BYTES)
        return;
    *burst = 0;
    nbd_send(c);
    co_yield ();
}

static int co_receive(struct nbd_conn *c)
{
    uint64_t burst = 0;

    while (!c->broken && !c->stopping) {
        size_t room;
        int64_t n = receive(c, &room);
        int rc;

        if (n == 0 || (n < 0 && n != -EAGAIN))
            return (int)n;
        rc = n > 0 ? co_parse(c) : PARSED_ALL;
        if (rc != PARSED_ALL)
            return rc;
        if ((size_t)n == room) { /* there may be more */
            co_pause(c, &burst, room);
            continue;
        }
        burst = 0;
        park_in(c);
        rc = co_host_stream_wait(c->stream, HOST_READABLE, c->filling ? NBD_PATIENCE_NS : 0);
        if (rc < 0 && rc != -ETIMEDOUT)
            return rc;
        if (c->filling && nbd_conn_stands_still(c->filling, rc))
            return -ETIMEDOUT;
    }
    return 0;
}

/* --- life --- */

/* Waits until nothing of the connection is running any more. */
static void co_drain(struct nbd_conn *c)
{
    if (c->filling) {
        nbd_request_put(c->filling);
        c->filling = NULL;
    }
    c->ending = true;
    c->stopping = true;
    nbd_conn_settle(c);
    while (c->in_flight || c->sending || c->hooked)
        co_queue_wait(&c->idle);
}

static void conn_free(struct nbd_conn *c)
{
    assert(c->memory == 0);
    while (c->spare) {
        struct nbd_request *r = c->spare;

        c->spare = r->next;
        mem_free(r);
    }
    host_stream_close(c->stream);
    nbd_contexts_drop(c->contexts);
    mem_free(c);
}

struct transmission {
    struct nbd_conn *c;
    const uint8_t *left; /* received already */
    size_t left_bytes;
};

/* On the lane: from the first request until nothing is in flight any more. */
static int co_transmit(void *arg)
{
    struct transmission *t = arg;
    struct nbd_conn *c = t->c;
    int rc = c->stopping ? -ECANCELED : take_in(c);

    if (rc == 0) {
        c->received_at = worker_now();
        memcpy(c->in, t->left, t->left_bytes);
        c->in_end = t->left_bytes;
        rc = co_parse(c);
    }
    if (rc == PARSED_ALL)
        rc = co_receive(c);
    if (rc < 0 && rc != -ECANCELED)
        nbd_conn_abort(c); /* a stop lets the replies out first, so does a goodbye */
    co_drain(c);
    if (c->in)
        buf_put(c->in, IN_BYTES);
    return 0;
}

static int co_nothing(void *arg)
{
    return 0;
}

static int open_lane(void *dev)
{
    blk_open_lane(dev);
    return 0;
}

/* Clients are spread over all workers, but those whose every request would go home. */
static int co_take_lane(struct nbd_conn *c)
{
    struct blk_device *dev = c->export->dev;
    struct worker *lane = dev->driver->resolve ? nbd_server_next_lane(c->server) : dev->home;

    TRY(nbd_export_stats_of(c->export, lane->index, &c->stats));
    if (lane != dev->home)
        co_on(dev->home, open_lane, dev);
    c->lane = lane;
    return 0;
}

static void co_conn(void *arg)
{
    struct nbd_conn *c = arg;
    auto_free uint8_t *in = mem_alloc(NBD_GREET_IN);
    struct transmission t = {.c = c, .left = in};
    struct nbd_server *server = c->server;

    nbd_server_enter(server, c);
    if (in && co_nbd_greet(c, in, &t.left_bytes) == 0) {
        nbd_server_through(server, c);
        co_yield (); /* who is in the handshake does not wait for the requests of who is through */
        if (co_take_lane(c) == 0)
            co_on(c->lane, co_transmit, &t);
    }
    nbd_server_leave(server, c);
    if (c->told) /* messages arrive in order: behind this there is none */
        co_on(c->lane, co_nothing, NULL);
    conn_free(c);
    nbd_server_gone(server);
}

int nbd_conn_start(struct nbd_server *server, struct host_stream *stream)
{
    struct nbd_conn *c = mem_zalloc(sizeof(*c));
    int rc = -ENOMEM;

    if (c) {
        c->server = server;
        c->stream = stream;
        rc = co_start(co_conn, c);
    }
    if (rc < 0) {
        host_stream_close(stream);
        mem_free(c);
    }
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_server.c - the whole server over simulated streams and disks: clients that pipeline, cut
 * their messages anywhere, leave in the middle, say nothing, or never read. Virtual time makes the
 * time limits cheap to wait for; the seed decides how everything interleaves. */
#include <check.h>

#include <unistd.h>

#include "block/host_sim.h"
#include "imgfmt/qcow2.h"
#include "nbd/connection.h"
#include "nbd/server.h"
#include "tests/lib/on_host.h"

#define SECOND   1000000000ULL
#define SLOTS    8
#define REGION   (256 * KiB) /* of a slot: requests of one slot follow each other */
#define CLIENTS  3
#define REQUESTS 60 /* of a client */
#define DISK     (CLIENTS * SLOTS * REGION)

enum mode { SIMPLE, STRUCTURED, EXTENDED };

struct world {
    struct host *host;
    uint64_t seed, random;
    struct nbd_limits limits;
    unsigned workers;
    bool qcow2; /* what is served; else the file itself */
    char disk[200], address[220];
    struct nbd_server *server;
    unsigned running;
    struct co_queue ended;
    unsigned index; /* of the next client */
};

/* One request in flight, and what the disk holds in the part that this slot owns. */
struct slot {
    uint16_t type;
    uint32_t at, length, got;
    bool busy;
    uint8_t model[REGION];
};

struct client {
    struct world *world;
    struct host_stream *stream;
    uint64_t random;
    unsigned index;
    unsigned mode; /* enum mode */
    bool reading;
    unsigned left; /* requests still to be sent */
    struct co_queue changed;
    struct slot slots[SLOTS];
    uint8_t scratch[REGION];
};

/* --- talking --- */

static int co_send(struct host_stream *s, const void *from, size_t bytes)
{
    while (bytes) {
        struct iovec iov = {.iov_base = (void *)from, .iov_len = bytes};
        int64_t n = host_stream_sendv(s, &iov, 1);

        if (n == -EAGAIN)
            n = co_host_stream_wait(s, HOST_WRITABLE, 0) < 0 ? -EPIPE : 0;
        if (n < 0)
            return (int)n;
        from = (const uint8_t *)from + n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int co_take(struct host_stream *s, void *to, size_t bytes)
{
    while (bytes) {
        int64_t n = host_stream_recv(s, to, bytes);

        if (n == 0)
            return -ECONNRESET;
        if (n == -EAGAIN)
            n = co_host_stream_wait(s, HOST_READABLE, 0) < 0 ? -EPIPE : 0;
        if (n < 0)
            return (int)n;
        to = (uint8_t *)to + n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int co_option(struct host_stream *s, uint32_t code, const void *payload, uint32_t bytes)
{
    struct nbd_option_head h = {be64_of(NBD_OPTION_MAGIC), be32_of(code), be32_of(bytes)};
    struct nbd_option_reply r;
    uint8_t rest[256];

    TRY(co_send(s, &h, sizeof(h)));
    TRY(co_send(s, payload, bytes));
    do {
        TRY(co_take(s, &r, sizeof(r)));
        must(be32_get(r.bytes) <= sizeof(rest));
        TRY(co_take(s, rest, be32_get(r.bytes)));
    } while (be32_get(r.type) == NBD_REP_INFO);
    must(be32_get(r.type) == NBD_REP_ACK);
    return 0;
}

static int co_dial(struct world *w, unsigned mode, struct host_stream **out)
{
    struct nbd_hello hello;
    be32 flags = be32_of(3);

    must(co_host_connect(w->host, w->address, out) == 0);
    TRY(co_take(*out, &hello, sizeof(hello)));
    TRY(co_send(*out, &flags, sizeof(flags)));
    if (mode == STRUCTURED)
        TRY(co_option(*out, NBD_OPT_STRUCTURED_REPLY, NULL, 0));
    if (mode == EXTENDED)
        TRY(co_option(*out, NBD_OPT_EXTENDED_HEADERS, NULL, 0));
    return co_option(*out, NBD_OPT_GO, "\0\0\0\0\0\0", 6);
}

/* A simple read from the beginning. */
static int co_read(struct host_stream *s, uint32_t bytes)
{
    struct nbd_request_wire r = {be32_of(NBD_REQUEST_MAGIC),
                                 be16_of(0),
                                 be16_of(NBD_CMD_READ),
                                 be64_of(0),
                                 be64_of(0),
                                 be32_of(bytes)};

    return co_send(s, &r, sizeof(r));
}

/* --- an honest client --- */

static uint64_t base_of(const struct client *c, unsigned slot)
{
    return ((uint64_t)c->index * SLOTS + slot) * REGION;
}

static void choose(struct client *c, struct slot *s)
{
    static const uint16_t types[] = {NBD_CMD_READ,  NBD_CMD_WRITE,        NBD_CMD_READ,
                                     NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLUSH};

    s->type = types[next_random(&c->random) % ARRAY_LEN(types)];
    s->at = (uint32_t)(next_random(&c->random) % REGION);
    s->length = (uint32_t)(next_random(&c->random) % (REGION - s->at)) + 1;
    if (next_random(&c->random) % 4) /* mostly small */
        s->length = MIN(s->length, 5000);
    s->got = 0;
    s->busy = true;
    if (s->type == NBD_CMD_FLUSH)
        s->at = s->length = 0;
    if (s->type == NBD_CMD_WRITE)
        fill_random(&c->random, s->model + s->at, s->length);
    if (s->type == NBD_CMD_WRITE_ZEROES)
        memset(s->model + s->at, 0, s->length);
}

static int co_ask(struct client *c, unsigned i)
{
    struct slot *s = &c->slots[i];
    struct nbd_request_wire r;
    struct nbd_request_ext x;
    uint16_t flags = 0;

    choose(c, s);
    if (s->type == NBD_CMD_WRITE && next_random(&c->random) % 8 == 0)
        flags = NBD_CMD_FLAG_FUA;
    if (s->type == NBD_CMD_WRITE && c->mode == EXTENDED)
        flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
    r = (struct nbd_request_wire){be32_of(NBD_REQUEST_MAGIC),
                                  be16_of(flags),
                                  be16_of(s->type),
                                  be64_of(i),
                                  be64_of(s->type == NBD_CMD_FLUSH ? 0 : base_of(c, i) + s->at),
                                  be32_of(s->length)};
    x = (struct nbd_request_ext){
        be32_of(NBD_EXT_REQUEST_MAGIC), r.flags, r.type, r.cookie, r.offset, be64_of(s->length)};
    if (c->mode == EXTENDED)
        TRY(co_send(c->stream, &x, sizeof(x)));
    else
        TRY(co_send(c->stream, &r, sizeof(r)));
    return s->type == NBD_CMD_WRITE ? co_send(c->stream, s->model + s->at, s->length) : 0;
}

static int co_take_simple(struct client *c, const struct nbd_simple_reply *r)
{
    struct slot *s = &c->slots[be64_get(r->cookie)];

    must(be32_get(r->error) == 0 && s->busy);
    if (s->type == NBD_CMD_READ) {
        must(c->mode == SIMPLE);
        TRY(co_take(c->stream, c->scratch, s->length));
        must(memcmp(c->scratch, s->model + s->at, s->length) == 0);
    }
    s->busy = false;
    return 0;
}

static int co_take_chunk(struct client *c, const struct nbd_chunk_ext *k)
{
    unsigned i = (unsigned)be64_get(k->cookie);
    struct slot *s = &c->slots[i];
    uint32_t bytes = (uint32_t)be64_get(k->bytes), at;
    be64 offset;
    be32 hole;

    if (be16_get(k->type) == NBD_CHUNK_NONE) {
        must(i < SLOTS && s->busy && s->type != NBD_CMD_READ && bytes == 0);
        must(c->mode == EXTENDED && be16_get(k->flags) == NBD_CHUNK_DONE);
        s->busy = false;
        return 0;
    }
    must(i < SLOTS && s->busy && s->type == NBD_CMD_READ);
    TRY(co_take(c->stream, &offset, sizeof(offset)));
    at = (uint32_t)(be64_get(offset) - base_of(c, i));
    if (be16_get(k->type) == NBD_CHUNK_HOLE) {
        TRY(co_take(c->stream, &hole, sizeof(hole)));
        bytes = be32_get(hole);
        memset(c->scratch, 0, bytes);
    } else {
        must(be16_get(k->type) == NBD_CHUNK_DATA);
        bytes -= (uint32_t)sizeof(offset);
        must(bytes <= REGION);
        TRY(co_take(c->stream, c->scratch, bytes));
    }
    must(at == s->at + s->got && s->got + bytes <= s->length); /* ours come in order */
    must(memcmp(c->scratch, s->model + at, bytes) == 0);
    s->got += bytes;
    if (be16_get(k->flags) & NBD_CHUNK_DONE) {
        must(s->got == s->length);
        s->busy = false;
    }
    return 0;
}

static int co_take_reply(struct client *c)
{
    union {
        struct nbd_simple_reply simple;
        struct nbd_chunk chunk;
        struct nbd_chunk_ext ext;
    } r;

    if (c->mode == EXTENDED) {
        TRY(co_take(c->stream, &r.ext, sizeof(r.ext)));
        must(be32_get(r.ext.magic) == NBD_EXT_REPLY_MAGIC);
        return co_take_chunk(c, &r.ext);
    }
    TRY(co_take(c->stream, &r.simple, sizeof(r.simple)));
    if (be32_get(r.simple.magic) == NBD_SIMPLE_MAGIC)
        return co_take_simple(c, &r.simple);
    must(be32_get(r.chunk.magic) == NBD_STRUCTURED_MAGIC && c->mode == STRUCTURED);
    TRY(co_take(c->stream, &r.chunk.bytes, sizeof(r.chunk.bytes)));
    r.ext.bytes = be64_of(be32_get(r.chunk.bytes)); /* the rest lies alike */
    return co_take_chunk(c, &r.ext);
}

static unsigned busy(const struct client *c)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SLOTS; i++)
        n += c->slots[i].busy;
    return n;
}

static void co_reader(void *arg)
{
    struct client *c = arg;

    while (c->left || busy(c)) {
        if (busy(c))
            must(co_take_reply(c) == 0);
        else
            co_queue_wait(&c->changed);
        co_queue_wake_all(&c->changed);
    }
    c->reading = false;
    co_queue_wake_all(&c->changed);
}

static void co_client(void *arg)
{
    struct world *w = arg;
    struct client *c = mem_zalloc(sizeof(*c));

    must(c);
    c->world = w;
    c->index = w->index++;
    c->random = w->seed * 77 + c->index;
    c->mode = (unsigned)(next_random(&c->random) % 3);
    must(co_dial(w, c->mode, &c->stream) == 0);
    c->left = REQUESTS;
    c->reading = true;
    must(co_start_later(co_reader, c) == 0);
    while (c->left) {
        unsigned i = (unsigned)(next_random(&c->random) % SLOTS);

        if (c->slots[i].busy) {
            co_queue_wait(&c->changed);
            continue;
        }
        must(co_ask(c, i) == 0);
        c->left--;
        co_queue_wake_all(&c->changed);
    }
    while (c->reading)
        co_queue_wait(&c->changed);
    host_stream_close(c->stream);
    mem_free(c);
    w->running--;
    co_queue_wake_all(&w->ended);
}

/* --- clients that are not --- */

/* Sends what looks like an honest client's words up to some byte, and goes. */
static void co_quitter(void *arg)
{
    struct world *w = arg;
    uint64_t random = w->seed * 131 + w->running;
    struct host_stream *s;
    uint8_t *junk = mem_zalloc(300 * KiB);
    struct nbd_request_wire r = {be32_of(NBD_REQUEST_MAGIC),
                                 be16_of(0),
                                 be16_of(NBD_CMD_READ),
                                 be64_of(1),
                                 be64_of(0),
                                 be32_of(100000)};

    must(junk);
    for (size_t at = 0; at + sizeof(r) < 40 * sizeof(r); at += sizeof(r)) {
        r.type = be16_of((uint16_t)(next_random(&random) % 2 ? NBD_CMD_READ : 60));
        memcpy(junk + at, &r, sizeof(r));
    }
    if (next_random(&random) % 4 == 0)
        must(co_host_connect(w->host, w->address, &s) == 0);
    else if (co_dial(w, next_random(&random) % 2, &s) < 0)
        must(false);
    if (co_send(s, junk, next_random(&random) % (40 * sizeof(r))) == 0 && next_random(&random) % 2)
        co_take(s, junk, next_random(&random) % 1000);
    host_stream_close(s);
    mem_free(junk);
    w->running--;
    co_queue_wake_all(&w->ended);
}

/* --- the server around them --- */

static void co_run_server(void *arg)
{
    struct world *w = arg;

    co_nbd_server_run(w->server);
    w->running--;
    co_queue_wake_all(&w->ended);
}

static struct blk_device *co_open_disk(struct world *w)
{
    auto_free char *name = mem_printf("filename=%s", w->disk);
    struct blk_device *file = co_open_text(&file_driver, name, NULL);

    if (!w->qcow2)
        return file;
    co_create_text(&qcow2_driver, "", file, DISK);
    return co_open_text(&qcow2_driver, "", file);
}

static void co_open_server(struct world *w, bool once)
{
    struct nbd_server_options o = {.host = w->host, .once = once, .limits = w->limits};
    struct blk_error e = {0};
    struct host_file *f;
    struct blk_device *dev;

    must(co_host_open(w->host, w->disk, NULL, HOST_READ | HOST_WRITE | HOST_CREATE, &f) == 0);
    must(co_host_truncate(f, w->qcow2 ? 0 : DISK) == 0);
    co_host_close(f);
    dev = co_open_disk(w);
    must(nbd_server_open(&o, &w->server, &e) == 0);
    must(co_nbd_export_add(nbd_server_exports(w->server), dev,
                           &(struct nbd_export_options){.name = "disk"}, NULL, &e) == 0);
    must(co_nbd_server_listen(w->server, w->address, &e) == 0);
    w->running = 1;
    must(co_start_later(co_run_server, w) == 0);
}

static void co_wait_until_left(struct world *w, unsigned left)
{
    while (w->running > left)
        co_queue_wait(&w->ended);
}

static void co_close_server(struct world *w)
{
    struct blk_error e = {0};

    nbd_server_stop(w->server);
    co_wait_until_left(w, 0);
    must(co_nbd_server_close(w->server, &e) == 0);
}

static void spawn(struct world *w, void (*fn)(void *arg))
{
    w->running++;
    must(co_start_later(fn, w) == 0);
}

/* Runs @fn in a simulated world; every coroutine must have ended when it returns. */
static void in_world(uint64_t seed, int (*fn)(void *arg), const struct nbd_limits *limits)
{
    struct sim_options so = {.seed = seed};
    struct world w = {.seed = seed,
                      .random = seed,
                      .workers = 1 + (unsigned)(seed % 3),
                      .disk = "/disk",
                      .address = "unix:/s"};
    struct runtime_options ro = {.workers = w.workers};
    struct runtime *rt;

    if (limits)
        w.limits = *limits;
    must(host_sim_open(&so, &w.host) == 0);
    ro.host = w.host;
    must(runtime_open(&ro, &rt) == 0);
    must(runtime_run(rt, fn, &w) == 0);
    runtime_close(rt);
    host_close(w.host);
}

/* The same on threads. */
static void in_real_world(uint64_t seed, int (*fn)(void *arg), bool qcow2)
{
    struct world w = {.seed = seed, .random = seed, .workers = 3, .qcow2 = qcow2};
    struct runtime_options ro = {.workers = w.workers, .pool_threads = 2};
    struct runtime *rt;

    snprintf(w.disk, sizeof(w.disk), "%s/lamina-nbd-%d", fast_folder(), getpid());
    snprintf(w.address, sizeof(w.address), "unix:%s.s", w.disk);
    must(host_open(NULL, &w.host) == 0);
    ro.host = w.host;
    must(runtime_open(&ro, &rt) == 0);
    must(runtime_run(rt, fn, &w) == 0);
    runtime_close(rt);
    host_close(w.host);
    must(unlink(w.disk) == 0);
}

static int co_mixed(void *arg)
{
    struct world *w = arg;

    co_open_server(w, false);
    for (unsigned i = 0; i < CLIENTS; i++) {
        spawn(w, co_client);
        spawn(w, co_quitter);
    }
    co_wait_until_left(w, 1);
    must(nbd_server_clients(w->server) <= 2 * CLIENTS);
    co_close_server(w);
    return 0;
}

START_TEST(every_client_reads_what_it_wrote)
{
    static const struct nbd_limits tight = {.in_flight = 3, .memory = 64 * KiB};

    for (uint64_t seed = 1; seed <= 25; seed++)
        in_world(seed, co_mixed, seed % 2 ? NULL : &tight);
}
END_TEST

/* Clients on three workers, and a device whose gate is shut and opened all the while. */
static void co_changer(void *arg)
{
    struct world *w = arg;
    struct blk_device *dev = nbd_server_exports(w->server)->first->dev;
    struct blk_error e = {0};

    for (unsigned i = 1; w->running > 2 && i < 200; i++) {
        must(co_blk_resize(dev, DISK + i * 64 * KiB, false, &e) == 0);
        co_sleep(200000);
    }
    w->running--;
    co_queue_wake_all(&w->ended);
}

static int co_lanes(void *arg)
{
    struct world *w = arg;
    struct nbd_export_stats *stats = mem_alloc(sizeof(*stats));

    co_open_server(w, false);
    for (unsigned i = 0; i < CLIENTS; i++)
        spawn(w, co_client);
    spawn(w, co_changer);
    co_wait_until_left(w, 1);
    must(stats);
    co_nbd_export_stats(nbd_server_exports(w->server)->first, stats);
    must(stats->reads + stats->writes + stats->flushes + stats->others == CLIENTS * REQUESTS);
    must(stats->errors == 0);
    mem_free(stats);
    co_close_server(w);
    return 0;
}

START_TEST(clients_are_served_on_all_workers)
{
    for (uint64_t seed = 1; seed <= 12; seed++)
        in_world(seed, co_lanes, NULL);
    in_real_world(1, co_lanes, false);
    in_real_world(2, co_lanes, true);
}
END_TEST

static int co_stop_under_load(void *arg)
{
    struct world *w = arg;
    struct host_stream *s;
    unsigned answers = 0;
    uint8_t *data = mem_alloc(16384 + 16);

    must(data);
    co_open_server(w, false);
    must(co_dial(w, SIMPLE, &s) == 0);
    for (unsigned i = 0; i < 20; i++)
        must(co_read(s, 16384) == 0);
    must(co_take(s, data, 16384 + 16) == 0); /* so all or some of them are in flight */
    nbd_server_stop(w->server);
    while (co_take(s, data, 16384 + 16) == 0)
        answers++;
    must(answers < 20);
    host_stream_close(s);
    co_close_server(w);
    mem_free(data);
    return 0;
}

START_TEST(a_stop_ends_with_whole_replies)
{
    for (uint64_t seed = 1; seed <= 25; seed++)
        in_world(seed, co_stop_under_load, NULL);
}
END_TEST

static int co_silent(void *arg)
{
    struct world *w = arg;
    struct nbd_hello hello;
    struct host_stream *s;
    uint64_t begin;

    co_open_server(w, false);
    must(co_host_connect(w->host, w->address, &s) == 0);
    begin = worker_now();
    must(co_take(s, &hello, sizeof(hello)) == 0);
    must(co_take(s, &hello, 1) < 0);
    must(worker_now() - begin >= 9 * SECOND && worker_now() - begin < 11 * SECOND);
    host_stream_close(s);
    co_close_server(w);
    return 0;
}

START_TEST(a_silent_client_goes_after_ten_seconds)
{
    in_world(3, co_silent, NULL);
}
END_TEST

static int co_slow(void *arg)
{
    struct world *w = arg;
    struct host_stream *s;

    co_open_server(w, true);
    must(co_dial(w, SIMPLE, &s) == 0);
    must(co_read(s, REGION) == 0);
    co_wait_until_left(w, 0); /* --once: the server ends when this client is thrown out */
    must(worker_now() < 70 * SECOND);
    host_stream_close(s);
    co_close_server(w);
    return 0;
}

START_TEST(a_client_that_never_reads_goes_after_a_minute)
{
    in_world(4, co_slow, NULL);
}
END_TEST

/* The simulated clock may jump to the next thing that happens though somebody is ready to run: with
 * this it never jumps far. */
static void co_ticker(void *arg)
{
    struct world *w = arg;

    while (w->running > 2)
        co_sleep(SECOND / 50);
    w->running--;
    co_queue_wake_all(&w->ended);
}

/* Four long reads whose answers the client leaves in the socket for a while: a change of the device
 * does not wait for that long, and the answers are what the disk held. */
static int co_stalling(void *arg)
{
    struct world *w = arg;
    uint8_t *data = mem_alloc(REGION), *got = mem_alloc(REGION + 16);
    struct host_stream *s;
    struct blk_device *dev;
    struct blk_error e = {0};

    must(data && got);
    co_open_server(w, false);
    dev = nbd_server_exports(w->server)->first->dev;
    fill_random(&w->random, data, REGION);
    must(co_blk_write_buf(dev, 0, data, REGION, 0) == 0);
    must(co_dial(w, SIMPLE, &s) == 0);
    for (unsigned i = 0; i < 4; i++)
        must(co_read(s, REGION) == 0);
    spawn(w, co_ticker);
    w->running++;
    co_sleep(SECOND / 10);
    must(co_blk_resize(dev, DISK + MiB, false, &e) == 0);
    must(worker_now() < 3 * SECOND);
    w->running--;
    co_sleep(20 * SECOND);
    for (unsigned i = 0; i < 4; i++) {
        must(co_take(s, got, REGION + 16) == 0);
        must(memcmp(got + 16, data, REGION) == 0);
    }
    host_stream_close(s);
    co_close_server(w);
    mem_free(data);
    mem_free(got);
    return 0;
}

START_TEST(a_client_that_stalls_holds_nothing_up)
{
    for (uint64_t seed = 1; seed <= 25; seed++)
        in_world(seed, co_stalling, NULL);
}
END_TEST

#define GREEDY 40

struct greedy {
    struct world *world;
    struct host_stream *crowd[GREEDY];
    bool over;
};

/* They do take something now and then. */
static void co_trickle(void *arg)
{
    struct greedy *g = arg;
    uint8_t few[64];

    while (!g->over) {
        co_sleep(SECOND / 20);
        for (unsigned i = 0; i < GREEDY; i++)
            (void)!host_stream_recv(g->crowd[i], few, sizeof(few));
    }
    for (unsigned i = 0; i < GREEDY; i++)
        host_stream_close(g->crowd[i]);
    g->world->running--;
    co_queue_wake_all(&g->world->ended);
}

/* All the memory that there is lies in answers that nobody takes, and more of them wait for it:
 * who asks for little gets it at once, who asks for much when those who stand still had to go. */
static int co_greedy(void *arg)
{
    struct world *w = arg;
    struct greedy g = {.world = w};
    struct host_stream *s;
    uint8_t *got = mem_alloc(2 * REGION + 16);

    must(got);
    co_open_server(w, false);
    for (unsigned i = 0; i < GREEDY; i++) {
        must(co_dial(w, SIMPLE, &g.crowd[i]) == 0);
        for (unsigned j = 0; j < 4; j++)
            must(co_read(g.crowd[i], 2 * REGION) == 0);
    }
    w->running++;
    must(co_start_later(co_trickle, &g) == 0);
    must(co_dial(w, SIMPLE, &s) == 0);
    must(nbd_server_crowded(w->server));
    uint64_t began = worker_now();
    must(co_read(s, 4096) == 0 && co_take(s, got, 4096 + 16) == 0);
    must(worker_now() - began < NBD_PATIENCE_NS / 2);
    must(co_read(s, 2 * REGION) == 0 && co_take(s, got, 2 * REGION + 16) == 0);
    must(worker_now() - began < 5 * SECOND);
    g.over = true;
    host_stream_close(s);
    co_close_server(w);
    mem_free(got);
    return 0;
}

START_TEST(who_asks_for_little_does_not_wait_behind_who_holds_much)
{
    static const struct nbd_limits little = {.total = 4 * MiB};

    for (uint64_t seed = 1; seed <= 10; seed++)
        in_world(seed, co_greedy, &little);
}
END_TEST

static int co_crowd(void *arg)
{
    struct world *w = arg;
    struct host_stream *crowd[30], *s;
    struct nbd_hello hello;

    co_open_server(w, false);
    for (unsigned i = 0; i < ARRAY_LEN(crowd); i++)
        must(co_host_connect(w->host, w->address, &crowd[i]) == 0);
    must(co_dial(w, SIMPLE, &s) == 0);
    must(co_take(crowd[0], &hello, sizeof(hello)) < 0 || co_take(crowd[0], &hello, 1) < 0);
    must(worker_now() < 9 * SECOND); /* evicted, not timed out */
    for (unsigned i = 0; i < ARRAY_LEN(crowd); i++)
        host_stream_close(crowd[i]);
    host_stream_close(s);
    co_close_server(w);
    return 0;
}

START_TEST(the_oldest_silent_client_makes_room)
{
    static const struct nbd_limits few = {.half_open = 10};

    in_world(5, co_crowd, &few);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("nbd_server");
    TCase *tc = tcase_create("all");
    SRunner *sr = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, tc);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_client_reads_what_it_wrote);
    tcase_add_test(tc, clients_are_served_on_all_workers);
    tcase_add_test(tc, a_stop_ends_with_whole_replies);
    tcase_add_test(tc, a_silent_client_goes_after_ten_seconds);
    tcase_add_test(tc, a_client_that_never_reads_goes_after_a_minute);
    tcase_add_test(tc, a_client_that_stalls_holds_nothing_up);
    tcase_add_test(tc, who_asks_for_little_does_not_wait_behind_who_holds_much);
    tcase_add_test(tc, the_oldest_silent_client_makes_room);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - sockets and signals on each real host: partial sends, shutdown, time-outs, moves
 * between workers. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/host_os.h"
#include "tests/lib/on_host.h"

static const char *const kinds[] = {"threads", "uring", "aio"};
static char dir[80], unix_address[100];

static struct host *self_host(void)
{
    return worker_self()->host;
}

/* Runs @fn on a host of @kind with two workers. */
static int with_host(const char *kind, int (*fn)(void *), void *arg)
{
    struct runtime_options o = {.workers = 2};
    struct runtime *rt;
    int rc = host_open(kind, &o.host);

    if (rc == -ENOTSUP) {
        printf("skip - %s is not there\n", kind);
        return 0;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    rc = runtime_run(rt, fn, arg);
    runtime_close(rt);
    host_close(o.host);
    return rc;
}

static void make_dir(void)
{
    snprintf(dir, sizeof(dir), "%s/stream-XXXXXX", fast_folder());
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(unix_address, sizeof(unix_address), "unix:%s/socket", dir);
}

static void remove_dir(void)
{
    ck_assert_int_eq(rmdir(dir), 0); /* fails if a socket was left */
}

/* --- echo ------------------------------------------------------------------------------------- */

static int send_all(struct host_stream *s, const uint8_t *from, size_t bytes)
{
    while (bytes) {
        size_t first = bytes / 3;
        struct iovec iov[2] = {{(void *)from, first}, {(void *)(from + first), bytes - first}};
        int64_t n = host_stream_sendv(s, iov, 2);
        if (n == -EAGAIN) {
            TRY(co_host_stream_wait(s, HOST_WRITABLE, 0));
            continue;
        }
        if (n < 0)
            return (int)n;
        from += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int64_t recv_some(struct host_stream *s, void *to, size_t bytes)
{
    for (;;) {
        int64_t n = host_stream_recv(s, to, bytes);
        if (n != -EAGAIN)
            return n;
        TRY(co_host_stream_wait(s, HOST_READABLE, 0));
    }
}

/* Takes the stream @arg; gives back what comes until the peer closes. */
static int echo_here(void *arg)
{
    struct host_stream *s = arg;
    uint8_t *buf = malloc(50000);
    int64_t n;
    int rc = 0;

    while (rc == 0 && (n = recv_some(s, buf, 50000)) > 0)
        rc = send_all(s, buf, (size_t)n);
    free(buf);
    host_stream_close(s);
    return rc;
}

static int echo_there(void *arg)
{
    struct worker *self = worker_self();

    return co_on(runtime_worker(self->runtime, 1), echo_here, arg);
}

static int serve(void *arg)
{
    struct host_stream *listener = arg, *s;
    struct co_group g;
    unsigned count = 0;
    int rc;

    co_group_init(&g, 0);
    while ((rc = co_host_accept(listener, &s)) == 0) {
        /* Every second one has been waited for here before it moves. */
        if (count++ % 2)
            ck_assert_int_gt(co_host_stream_wait(s, HOST_READABLE | HOST_WRITABLE, 0), 0);
        co_group_start(&g, count % 4 < 2 ? echo_there : echo_here, s);
    }
    ck_assert_int_eq(rc, -ECANCELED);
    ck_assert_int_eq(co_group_wait(&g), 0);
    return 0;
}

#define ECHO_BYTES 700000

struct sender {
    struct host_stream *s;
    const uint8_t *data;
};

static int sender_main(void *arg)
{
    struct sender *c = arg;

    return send_all(c->s, c->data, ECHO_BYTES);
}

static int client(void *arg)
{
    struct host_stream *s;
    struct co_group g;
    uint8_t *data = malloc(ECHO_BYTES), *back = malloc(ECHO_BYTES);
    size_t got = 0;
    int64_t n;

    for (size_t i = 0; i < ECHO_BYTES; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    ck_assert_int_eq(co_host_connect(self_host(), arg, &s), 0);
    struct sender sender = {s, data};
    co_group_init(&g, 0);
    co_group_start(&g, sender_main, &sender);
    while (got < ECHO_BYTES && (n = recv_some(s, back + got, ECHO_BYTES - got)) > 0)
        got += (size_t)n;
    ck_assert_uint_eq(got, ECHO_BYTES);
    ck_assert_mem_eq(data, back, ECHO_BYTES);
    ck_assert_int_eq(co_group_wait(&g), 0);
    host_stream_close(s);
    free(data);
    free(back);
    return 0;
}

static int echo_test(void *arg)
{
    struct host_stream *listener;
    struct co_group servers, clients;

    ck_assert_int_eq(co_host_listen(self_host(), arg, &listener), 0);
    co_group_init(&servers, 0);
    co_group_init(&clients, 0);
    co_group_start(&servers, serve, listener);
    for (int i = 0; i < 12; i++)
        co_group_start(&clients, client, (char *)host_stream_address(listener));
    ck_assert_int_eq(co_group_wait(&clients), 0);
    host_stream_shutdown(listener);
    ck_assert_int_eq(co_group_wait(&servers), 0);
    host_stream_close(listener);
    return 0;
}

START_TEST(echo_over_unix_and_tcp)
{
    make_dir();
    ck_assert_int_eq(with_host(kinds[_i], echo_test, unix_address), 0);
    ck_assert_int_eq(with_host(kinds[_i], echo_test, "tcp:127.0.0.1:0"), 0);
    ck_assert_int_eq(with_host(kinds[_i], echo_test, "tcp:localhost:0"), 0);
    remove_dir();
}
END_TEST

/* --- waiting ---------------------------------------------------------------------------------- */

struct pair {
    struct host_stream *listener, *a, *b;
};

static int pair_connect(void *arg)
{
    struct pair *p = arg;

    return co_host_connect(self_host(), unix_address, &p->b);
}

static void pair_open(struct pair *p)
{
    struct co_group g;

    ck_assert_int_eq(co_host_listen(self_host(), unix_address, &p->listener), 0);
    co_group_init(&g, 0);
    co_group_start(&g, pair_connect, p);
    ck_assert_int_eq(co_host_accept(p->listener, &p->a), 0);
    ck_assert_int_eq(co_group_wait(&g), 0);
}

static void pair_close(struct pair *p)
{
    host_stream_close(p->a);
    host_stream_close(p->b);
    host_stream_close(p->listener);
}

static int waiter(void *arg)
{
    return co_host_stream_wait(arg, HOST_READABLE, 0);
}

static int filler(void *arg)
{
    static uint8_t zeroes[65536];

    while (send_all(arg, zeroes, sizeof(zeroes)) == 0)
        continue;
    return -ECANCELED;
}

static int acceptor(void *arg)
{
    struct host_stream *s;

    return co_host_accept(arg, &s);
}

static int waits_test(void *arg)
{
    struct pair p;
    struct co_group g, never;
    struct host_stream *s;
    char c = 'x';

    pair_open(&p);
    uint64_t before = worker_now();
    ck_assert_int_eq(co_host_stream_wait(p.a, HOST_READABLE, 5000000), -ETIMEDOUT);
    ck_assert_uint_ge(worker_now() - before, 5000000);
    ck_assert_int_eq(host_stream_recv(p.a, &c, 1), -EAGAIN);

    /* One reads, one writes, then both are told to stop. */
    co_group_init(&g, 0);
    co_group_start(&g, waiter, p.a);
    co_group_start(&g, filler, p.a);
    co_sleep(1000000);
    ck_assert_uint_eq(g.running, 2);
    host_stream_shutdown(p.a);
    ck_assert_int_eq(co_group_wait(&g), -ECANCELED);
    ck_assert_int_eq(host_stream_recv(p.a, &c, 1), -ECANCELED);

    /* The other end sees the end, not an error, once it has read what was sent. */
    static uint8_t sink[1 << 16];
    while (recv_some(p.b, sink, sizeof(sink)) > 0)
        continue;
    ck_assert_int_eq(recv_some(p.b, sink, 1), 0);
    ck_assert_int_eq(co_host_stream_wait(p.b, HOST_READABLE, 0), HOST_READABLE);
    ck_assert_int_eq(host_stream_sendv(p.b, &(struct iovec){&c, 1}, 1), -EPIPE);

    /* A listener's address is taken; a waiting accept ends. */
    ck_assert_int_eq(co_host_listen(self_host(), unix_address, &s), -EADDRINUSE);
    co_group_init(&never, 0);
    co_group_start(&never, acceptor, p.listener);
    co_yield ();
    host_stream_shutdown(p.listener);
    ck_assert_int_eq(co_group_wait(&never), -ECANCELED);
    pair_close(&p);
    ck_assert_int_eq(co_host_connect(self_host(), unix_address, &s), -ENOENT);
    ck_assert_int_eq(co_host_connect(self_host(), "tcp:127.0.0.1:1", &s), -ECONNREFUSED);
    ck_assert_int_eq(co_host_connect(self_host(), "carrier-pigeon", &s), -EINVAL);
    return 0;
}

START_TEST(waits_end_by_time_and_shutdown)
{
    make_dir();
    ck_assert_int_eq(with_host(kinds[_i], waits_test, NULL), 0);
    remove_dir();
}
END_TEST

static bool watches_room(struct host_stream *s)
{
    return container_of(s, struct os_stream, pub)->watches_room;
}

static int room_waiter(void *arg)
{
    return co_host_stream_wait(arg, HOST_WRITABLE, 0) == HOST_WRITABLE ? 0 : -EIO;
}

static void fill(struct host_stream *s)
{
    static uint8_t zeroes[65536];
    struct iovec iov = {zeroes, sizeof(zeroes)};

    while (host_stream_sendv(s, &iov, 1) > 0)
        continue;
}

static void drain(struct host_stream *s)
{
    static uint8_t sink[1 << 16];

    while (host_stream_recv(s, sink, sizeof(sink)) > 0)
        continue;
}

/* A peer that takes what was sent wakes nobody, unless somebody waits for room: then until it came
 * once when nobody did. */
static int room_test(void *arg)
{
    struct pair p;
    struct co_group g;
    char c = 'x';

    pair_open(&p);
    ck_assert_int_eq(co_host_stream_wait(p.a, HOST_READABLE, 1000000), -ETIMEDOUT);
    ck_assert(!watches_room(p.a));
    for (int round = 0; round < 3; round++) {
        fill(p.a);
        co_group_init(&g, 0);
        co_group_start(&g, room_waiter, p.a);
        ck_assert(watches_room(p.a));
        ck_assert_uint_eq(g.running, 1);
        drain(p.b);
        ck_assert_int_eq(co_group_wait(&g), 0);
        ck_assert_int_eq(host_stream_sendv(p.a, &(struct iovec){&c, 1}, 1), 1);
        drain(p.b);
        for (int i = 0; i < 1000 && watches_room(p.a); i++)
            co_sleep(1000000);
        ck_assert(!watches_room(p.a));
    }
    pair_close(&p);
    return 0;
}

START_TEST(room_is_watched_while_it_is_wanted)
{
    make_dir();
    ck_assert_int_eq(with_host(kinds[_i], room_test, NULL), 0);
    remove_dir();
}
END_TEST

/* A listener that belongs to one worker is shut down by another, again and again. */
static int shut_elsewhere(void *arg)
{
    host_stream_shutdown(arg);
    return 0;
}

static int races_test(void *arg)
{
    struct worker *self = worker_self(), *other = runtime_worker(self->runtime, 1);

    for (int i = 0; i < 50; i++) {
        struct host_stream *listener;
        struct co_group g;
        ck_assert_int_eq(co_host_listen(self_host(), unix_address, &listener), 0);
        co_group_init(&g, 0);
        co_group_start(&g, acceptor, listener);
        if (i % 3)
            co_yield ();
        ck_assert_int_eq(co_on(other, shut_elsewhere, listener), 0);
        ck_assert_int_eq(co_group_wait(&g), -ECANCELED);
        host_stream_close(listener);
    }
    return 0;
}

START_TEST(accept_and_shutdown_race)
{
    make_dir();
    ck_assert_int_eq(with_host(kinds[_i], races_test, NULL), 0);
    remove_dir();
}
END_TEST

/* --- files through sockets -------------------------------------------------------------------- */

static int send_file_test(void *arg)
{
    struct pair p;
    struct host_file *f;
    static uint8_t out[300000], in[300000];
    uint64_t sent = 0, got = 0;

    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i / 7);
    ck_assert_int_eq(
        co_host_open(self_host(), dir, NULL, HOST_READ | HOST_WRITE | HOST_TEMPORARY, &f), 0);
    ck_assert_int_eq(co_host_write(f, 0, &VEC_BUF(out, sizeof(out))), 0);
    pair_open(&p);
    while (got < sizeof(in)) {
        int64_t n = 0;
        if (sent < sizeof(out))
            n = host_stream_send_file(p.a, f, sent, sizeof(out) - sent);
        ck_assert(n >= 0 || n == -EAGAIN);
        sent += n > 0 ? (uint64_t)n : 0;
        n = recv_some(p.b, in + got, sizeof(in) - got);
        ck_assert_int_gt(n, 0);
        got += (uint64_t)n;
    }
    ck_assert_mem_eq(in, out, sizeof(in));
    host_stream_shutdown(p.b);
    int64_t n = 0;
    while (n >= 0)
        n = host_stream_send_file(p.a, f, 0, sizeof(out));
    ck_assert_int_eq(n, -EPIPE); /* and no signal */
    pair_close(&p);
    co_host_close(f);
    return 0;
}

START_TEST(files_go_out_without_a_copy)
{
    make_dir();
    ck_assert_int_eq(with_host(kinds[_i], send_file_test, NULL), 0);
    remove_dir();
}
END_TEST

/* --- signals ---------------------------------------------------------------------------------- */

static const int stop_signals[] = {SIGTERM, SIGUSR1, 0};

static int signal_waiter(void *arg)
{
    *(int *)arg = co_host_signal(self_host(), stop_signals);
    return 0;
}

static int cancel_there(void *arg)
{
    host_signal_cancel(self_host());
    return 0;
}

static int signals_test(void *arg)
{
    struct worker *self = worker_self();
    struct co_group g;
    int got = 0;

    for (int i = 0; i < 2; i++) {
        co_group_init(&g, 0);
        co_group_start(&g, signal_waiter, &got);
        co_sleep(1000000);
        ck_assert_uint_eq(g.running, 1);
        kill(getpid(), stop_signals[i]);
        co_group_wait(&g);
        ck_assert_int_eq(got, stop_signals[i]);
    }
    co_group_init(&g, 0);
    co_group_start(&g, signal_waiter, &got);
    co_sleep(1000000);
    ck_assert_int_eq(co_on(runtime_worker(self->runtime, 1), cancel_there, NULL), 0);
    co_group_wait(&g);
    ck_assert_int_eq(got, -ECANCELED);
    ck_assert_int_eq(co_host_signal(self_host(), stop_signals), -ECANCELED);
    return 0;
}

START_TEST(signals_arrive_and_are_cancelled)
{
    sigset_t set, old;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    ck_assert_int_eq(with_host(kinds[_i], signals_test, NULL), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stream");
    TCase *tc = tcase_create("stream");
    int n = ARRAY_LEN(kinds);

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, echo_over_unix_and_tcp, 0, n);
    tcase_add_loop_test(tc, waits_end_by_time_and_shutdown, 0, n);
    tcase_add_loop_test(tc, room_is_watched_while_it_is_wanted, 0, n);
    tcase_add_loop_test(tc, accept_and_shutdown_race, 0, n);
    tcase_add_loop_test(tc, files_go_out_without_a_copy, 0, n);
    tcase_add_loop_test(tc, signals_arrive_and_are_cancelled, 0, n);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

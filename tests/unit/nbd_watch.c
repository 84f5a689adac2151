/* SPDX-License-Identifier: BSD-3-Clause */
/* nbd_watch.c - metrics over simulated streams: what is answered to whom, and who is hung up when;
 * the words of `throttle`. */
#include <check.h>

#include "block/host_sim.h"
#include "nbd/watch.h"
#include "tests/lib/on_host.h"

#define SECOND  1000000000ULL
#define EXPORTS 40

struct world {
    struct host *host;
    struct nbd_server *server;
    struct nbd_watch watch;
};

static void co_open(struct world *w)
{
    struct nbd_server_options o = {.host = w->host};
    struct blk_error e;

    must(nbd_server_open(&o, &w->server, &e) == 0);
    for (unsigned i = 0; i < EXPORTS; i++) {
        char name[16];
        struct nbd_export_options x = {.name = name};

        snprintf(name, sizeof(name), "disk\"%u", i);
        must(co_nbd_export_add(nbd_server_exports(w->server),
                               co_open_text(&mem_driver, "size=1M", NULL), &x, NULL, &e) == 0);
    }
    nbd_watch_init(&w->watch, w->server);
    must(co_nbd_metrics_open(&w->watch, "unix:/m", &e) == 0);
}

static void co_close(struct world *w)
{
    co_nbd_metrics_close(&w->watch);
    must(co_nbd_server_close(w->server, NULL) == 0);
    nbd_watch_drop(&w->watch);
}

static int in_world(int (*fn)(void *))
{
    struct world w = {0};

    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 7}, &w.host), 0);
    int rc = on_this_host(w.host, fn, &w);
    host_close(w.host);
    return rc;
}

static void co_send(struct host_stream *s, const char *text, size_t bytes)
{
    while (bytes) {
        struct iovec iov = {.iov_base = (void *)text, .iov_len = bytes};
        int64_t n = host_stream_sendv(s, &iov, 1);

        if (n == -EAGAIN) {
            if (co_host_stream_wait(s, HOST_WRITABLE, 0) < 0)
                return;
            continue;
        }
        if (n < 0)
            return; /* hung up */
        text += n;
        bytes -= (size_t)n;
    }
}

/* All that is answered, until it is hung up. Gives text to be freed. */
static char *co_answer(struct host_stream *s)
{
    size_t have = 0, room = 1 << 20;
    char *text = mem_alloc(room);

    must(text);
    for (;;) {
        int64_t n = host_stream_recv(s, text + have, room - 1 - have);

        if (n == -EAGAIN && co_host_stream_wait(s, HOST_READABLE, 0) >= 0)
            continue;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    text[have] = 0;
    return text;
}

static char *co_ask(struct world *w, const char *request)
{
    struct host_stream *s;

    must(co_host_connect(w->host, "unix:/m", &s) == 0);
    co_send(s, request, strlen(request));
    char *text = co_answer(s);
    host_stream_close(s);
    return text;
}

static unsigned count_of(const char *text, const char *what)
{
    unsigned n = 0;

    for (const char *at = text; (at = strstr(at, what)); at++)
        n++;
    return n;
}

static int co_requests(void *arg)
{
    static const struct {
        const char *request, *answer;
    } cases[] = {
        {"GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 "},
        {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.0 200 "},
        {"GET /metrics?x=y HTTP/1.1\n\n", "HTTP/1.0 200 "},
        {"GET /metricsx HTTP/1.1\r\n\r\n", "HTTP/1.0 404 "},
        {"GET /../etc HTTP/1.1\r\n\r\n", "HTTP/1.0 404 "},
        {"POST / HTTP/1.1\r\n\r\n", "HTTP/1.0 405 "},
        {"\r\n\r\n", "HTTP/1.0 405 "},
    };
    struct world *w = arg;

    co_open(w);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = co_ask(w, cases[i].request);
        ck_assert_msg(strncmp(text, cases[i].answer, strlen(cases[i].answer)) == 0, "%s: %.60s",
                      cases[i].request, text);
        mem_free(text);
    }
    char *text = co_ask(w, "GET / HTTP/1.0\r\n\r\n"); /* more than one part */
    must(strlen(text) > 10000 && text[strlen(text) - 1] == '\n');
    must(count_of(text, "lamina_export_size_bytes{export=\"disk\\\"") == EXPORTS);
    must(count_of(text, "# TYPE ") == 8);
    mem_free(text);
    co_close(w);
    return 0;
}

START_TEST(what_is_answered)
{
    ck_assert_int_eq(in_world(co_requests), 0);
}
END_TEST

/* Too much, too slow, too many. */
static int co_misused(void *arg)
{
    struct world *w = arg;
    struct host_stream *s, *idle[8];
    char *much = mem_alloc(20000);

    co_open(w);
    must(much);
    memset(much, 'G', 20000);
    must(co_host_connect(w->host, "unix:/m", &s) == 0);
    co_send(s, much, 20000);
    mem_free(much);
    char *text = co_answer(s);
    must(*text == 0);
    mem_free(text);
    host_stream_close(s);

    for (unsigned i = 0; i < ARRAY_LEN(idle); i++) {
        must(co_host_connect(w->host, "unix:/m", &idle[i]) == 0);
        co_send(idle[i], "GET", i % 4);
    }
    uint64_t began = worker_now();
    text = co_ask(w, "GET / HTTP/1.0\r\n\r\n");
    must(strncmp(text, "HTTP/1.0 200 ", 13) == 0);
    must(worker_now() - began >= 4 * SECOND && worker_now() - began < 6 * SECOND);
    mem_free(text);
    for (unsigned i = 0; i < ARRAY_LEN(idle); i++)
        host_stream_close(idle[i]);

    must(co_host_connect(w->host, "unix:/m", &s) == 0); /* closing waits for nobody for long */
    co_sleep(1);
    began = worker_now();
    co_close(w);
    must(worker_now() - began < SECOND);
    host_stream_close(s);
    return 0;
}

START_TEST(who_is_hung_up)
{
    ck_assert_int_eq(in_world(co_misused), 0);
}
END_TEST

static int co_words(void *arg)
{
    static const struct {
        const char *request;
        int rc;
    } cases[] = {
        {"{'export': 'disk\\\"0', 'weight': 200}", 0},
        {"{'export': 'disk\\\"0', 'group': 'g', 'iops': '10k'}", 0},
        {"{'export': 'disk\\\"1', 'group': 'g'}", 0},
        {"{'group': 'g', 'bps': '1G', 'depth': 9}", 0},
        {"{'group': 'new', 'iops': 5}", 0},
        {"{}", -EINVAL},
        {"{'export': 'disk\\\"1'}", -EINVAL},
        {"{'group': 'g'}", -EINVAL},
        {"{'export': 'none', 'weight': 1}", -ENOENT},
        {"{'export': 'disk\\\"0', 'weight': 0}", -ERANGE},
        {"{'export': 'disk\\\"0', 'weight': [1]}", -EINVAL},
        {"{'export': 'disk\\\"0', 'depth': 1}", -ENOENT},
        {"{'group': 'g', 'weight': 1}", -ENOENT},
    };
    struct world *w = arg;
    struct nbd_seen *seen;
    size_t count;

    co_open(w);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct blk_error e = {0};
        char text[200];

        snprintf(text, sizeof(text), "%s", cases[i].request);
        for (char *p = text; *p; p++)
            *p = *p == '\'' ? '"' : *p;
        json_t *request = json_loads(text, 0, NULL), *result = NULL;
        must(request);
        int rc = co_nbd_watch_throttle(&w->watch, request, &result, &e);
        ck_assert_msg(rc == cases[i].rc, "%s: %d %s", text, rc, e.text);
        json_decref(request);
    }
    must(co_nbd_watch_look(&w->watch, &seen, &count) == 0 && count == EXPORTS);
    must(seen[0].shares && strcmp(seen[0].group, "g") == 0);
    must(seen[0].wish.weight == 200 && seen[0].wish.iops == 10 * KiB);
    must(seen[1].wish.weight == 100 && !seen[2].shares);
    nbd_seen_drop(seen, count);
    co_close(w);
    return 0;
}

START_TEST(words_of_throttle)
{
    ck_assert_int_eq(in_world(co_words), 0);
}
END_TEST

START_TEST(buckets_double)
{
    static const struct {
        uint64_t ns;
        unsigned bucket;
    } cases[] = {{0, 0},           {999, 0},         {1000, 1},     {1999, 1},
                 {2000, 2},        {3999, 2},        {4000, 3},     {1000000, 10},
                 {8388607999, 23}, {8388608000, 24}, {1 << 30, 21}, {UINT64_MAX, 24}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        ck_assert_uint_eq(nbd_latency_bucket(cases[i].ns), cases[i].bucket);
}
END_TEST

START_TEST(addresses)
{
    static const char *const cases[][2] = {
        {"unix:/run/m", "unix:/run/m"},
        {"/run/m", "unix:/run/m"},
        {"127.0.0.1:9", "tcp:127.0.0.1:9"},
        {"[::1]:9", "tcp:[::1]:9"},
        {"localhost:0", "tcp:localhost:0"},
        {"0.0.0.0:9", NULL},
        {"10.0.0.1:9", NULL},
        {"127.0.0.1.evil.org:9", NULL},
        {"9", NULL},
        {"", NULL},
        {"unix:", NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *out;
        int rc = nbd_metrics_address(cases[i][0], &out, NULL);

        ck_assert_int_eq(rc, cases[i][1] ? 0 : -EINVAL);
        if (rc == 0)
            ck_assert_str_eq(out, cases[i][1]);
        mem_free(out);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("nbd_watch");
    TCase *tc = tcase_create("all");
    SRunner *sr = srunner_create(s);

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_is_answered);
    tcase_add_test(tc, who_is_hung_up);
    tcase_add_test(tc, words_of_throttle);
    tcase_add_test(tc, buckets_double);
    tcase_add_test(tc, addresses);
    suite_add_tcase(s, tc);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

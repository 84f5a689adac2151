/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.c - the control socket: verbs, hostile lines, too many clients, slow ones. Over the simulator
 * (which cuts sends and receives anywhere) and over a real socket. */
#include <check.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/ctl.h"
#include "block/host_sim.h"

static struct host *host;
static struct runtime *rt;
static char path[200];
static bool real;

static void setup_on(bool on_real, uint64_t seed)
{
    struct sim_options s = {.seed = seed};
    struct runtime_options o = {.workers = 1};
    real = on_real;
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof path, "%s/ctl.%d", real && tmp ? tmp : "/tmp", (int)getpid());
    ck_assert_int_eq(real ? host_open("threads", &host) : host_sim_open(&s, &host), 0);
    o.host = host;
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
}

static void teardown(void)
{
    runtime_close(rt);
    host_close(host);
}

/* --- a server with two verbs and a job
 * ------------------------------------------------------------------------------------- */

struct server {
    struct ctl *ctl;
    struct job_list jobs;
    struct job job;
    unsigned echoes;
};

static int co_echo(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    ((struct server *)ctl_arg(c))->echoes++;
    *result = json_incref(json_object_get(request, "what"));
    return 0;
}

static int co_fail(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    return err_set(e, -EBUSY, "the disk \xff is busy");
}

static int co_slow(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    co_sleep(100 * 1000000);
    return 0;
}

static int co_big(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    char *text = malloc(3000000);
    memset(text, 'x', 3000000);
    *result = json_stringn(text, 3000000);
    free(text);
    return 0;
}

static const struct ctl_verb verbs[] = {{"echo", "gives back what", co_echo},
                                        {"fail", "fails", co_fail},
                                        {"slow", "takes a while", co_slow},
                                        {"big", "gives much", co_big},
                                        {0}};

static int co_endless(struct job *j, struct blk_error *e)
{
    j->total = 1000;
    for (;;) {
        co_sleep(10 * 1000000);
        TRY(co_job_step(j, 1));
    }
}

static void co_serve(struct server *s)
{
    struct blk_error e = {0};
    struct ctl_options o = {.path = path, .jobs = &s->jobs, .verbs = verbs, .arg = s};
    *s = (struct server){0};
    job_init(&s->job, "scrub", co_endless, NULL);
    ck_assert_int_eq(job_start(&s->jobs, &s->job), 0);
    int rc = co_ctl_open(host, &o, &s->ctl, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
}

static void co_stop(struct server *s)
{
    co_ctl_close(s->ctl);
    job_cancel(&s->job);
    ck_assert_int_eq(co_job_wait(&s->job), -ECANCELED);
    job_forget(&s->jobs, &s->job);
}

static int call(const char *text, json_t **result, struct blk_error *e)
{
    json_t *request = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(request);
    *result = NULL;
    e->text[0] = 0;
    int rc = co_ctl_call(host, path, request, result, e);
    json_decref(request);
    return rc;
}

/* --- verbs
 * ------------------------------------------------------------------------------------- */

static const struct {
    const char *request;
    int rc;
    const char *says;
} refused[] = {
    {"{}", -EINVAL, "\"do\" is missing"},
    {"{\"do\":1}", -EINVAL, "\"do\" is missing"},
    {"{\"do\":\"jbos\"}", -ENOSYS, "help lists them"},
    {"{\"do\":\"canel\"}", -ENOSYS, "the nearest is 'cancel'"},
    {"{\"do\":\"show\"}", -EINVAL, "\"id\" is missing"},
    {"{\"do\":\"show\",\"id\":7}", -EINVAL, "\"id\" is missing"},
    {"{\"do\":\"show\",\"id\":\"scrub-9\"}", -ENOENT, "no job 'scrub-9'"},
    {"{\"do\":\"speed\",\"id\":\"scrub-1\"}", -EINVAL, "how fast"},
    {"{\"do\":\"speed\",\"id\":\"scrub-1\",\"bytes_per_second\":-1}", -EINVAL, "how fast"},
    {"{\"do\":\"speed\",\"id\":\"scrub-1\",\"bytes_per_second\":\"x\"}", -EINVAL, "not a size"},
    {"{\"do\":\"complete\",\"id\":\"scrub-1\"}", -EBUSY, "not ready"},
    {"{\"do\":\"fail\"}", -EBUSY, "the disk ? is busy"},
};

static int co_verbs(void *arg)
{
    struct server s;
    struct blk_error e = {0};
    json_t *result;
    co_serve(&s);
    ck_assert_int_eq(call("{\"do\":\"echo\",\"what\":{\"a\":[1]}}", &result, &e), 0);
    ck_assert_int_eq((int)json_array_size(json_object_get(result, "a")), 1);
    json_decref(result);
    ck_assert_int_eq(call("{\"do\":\"echo\"}", &result, &e), 0);
    ck_assert(json_is_null(result));
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        int rc = call(refused[i].request, &result, &e);
        ck_assert_msg(rc == refused[i].rc && strstr(e.text, refused[i].says), "%s: %d %s",
                      refused[i].request, rc, e.text);
    }
    ck_assert_int_eq(call("{\"do\":\"help\"}", &result, &e), 0);
    ck_assert_uint_eq(json_array_size(result), 12);
    json_decref(result);
    ck_assert_int_eq(call("{\"do\":\"big\"}", &result, &e), 0);
    ck_assert_uint_eq(json_string_length(result), 3000000);
    json_decref(result);
    co_stop(&s);
    ck_assert_int_lt(call("{\"do\":\"help\"}", &result, &e), 0);
    return 0;
}

static const char *state_of(const char *id, char *to)
{
    char text[100];
    struct blk_error e;
    json_t *result;
    snprintf(text, sizeof text, "{\"do\":\"show\",\"id\":\"%s\"}", id);
    ck_assert_int_eq(call(text, &result, &e), 0);
    strcpy(to, json_string_value(json_object_get(result, "state")));
    json_decref(result);
    return to;
}

static int co_steers_jobs(void *arg)
{
    struct server s;
    struct blk_error e = {0};
    json_t *result;
    char state[40];
    co_serve(&s);
    ck_assert_int_eq(call("{\"do\":\"jobs\"}", &result, &e), 0);
    ck_assert_uint_eq(json_array_size(result), 1);
    json_decref(result);
    ck_assert_int_eq(call("{\"do\":\"pause\",\"id\":\"scrub-1\"}", &result, &e), 0);
    co_sleep(50 * 1000000);
    ck_assert_str_eq(state_of("scrub-1", state), "paused");
    ck_assert_int_eq(call("{\"do\":\"resume\",\"id\":\"scrub-1\"}", &result, &e), 0);
    co_sleep(50 * 1000000);
    ck_assert_str_eq(state_of("scrub-1", state), "running");
    ck_assert_int_eq(
        call("{\"do\":\"speed\",\"id\":\"scrub-1\",\"bytes_per_second\":\"1M\"}", &result, &e), 0);
    ck_assert_uint_eq(s.job.bytes_per_second, MiB);
    ck_assert_int_eq(call("{\"do\":\"cancel\",\"id\":\"scrub-1\"}", &result, &e), 0);
    ck_assert_int_eq(co_job_wait(&s.job), -ECANCELED);
    ck_assert_str_eq(state_of("scrub-1", state), "cancelled");
    ck_assert_int_eq(call("{\"do\":\"pause\",\"id\":\"scrub-1\"}", &result, &e), -EINVAL);
    ck_assert_ptr_nonnull(strstr(e.text, "has ended: cancelled"));
    co_stop(&s);
    return 0;
}

/* --- hostile peers
 * ------------------------------------------------------------------------------------- */

static struct host_stream *connect_raw(void)
{
    char address[220];
    struct host_stream *s;
    snprintf(address, sizeof address, "unix:%s", path);
    ck_assert_int_eq(co_host_connect(host, address, &s), 0);
    return s;
}

static int co_send_all(struct host_stream *s, const char *text, size_t bytes)
{
    while (bytes) {
        struct iovec iov = {.iov_base = (void *)text, .iov_len = bytes};
        int64_t n = host_stream_sendv(s, &iov, 1);
        if (n == -EAGAIN)
            n = co_host_stream_wait(s, HOST_WRITABLE, 1000000000) < 0 ? -EPIPE : 0;
        if (n < 0)
            return (int)n;
        text += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* All that comes until the peer closes, or until @lines lines came. */
static size_t co_read_lines(struct host_stream *s, char *to, size_t room, unsigned lines)
{
    size_t have = 0;
    while (lines && have < room - 1) {
        int64_t n = host_stream_recv(s, to + have, 1);
        if (n == -EAGAIN && co_host_stream_wait(s, HOST_READABLE, 20000000000ULL) >= 0)
            continue;
        if (n <= 0)
            break;
        lines -= to[have] == '\n';
        have++;
    }
    to[have] = 0;
    return have;
}

static const struct {
    const char *line, *says;
} hostile[] = {
    {"not json\n", "not valid JSON"},
    {"[]\n", "expected an object"},
    {"\"do\"\n", "not valid JSON"},
    {"{\"do\":\"help\"\n", "not valid JSON"},
    {"{\"do\":\"echo\",\"what\":\"\\ud800\"}\n", "not valid JSON"},
    {"{\"do\":\"echo\",\"what\":1e9999}\n", "not valid JSON"},
    {"{\"do\":\"echo\",\"what\":99999999999999999999}\n", "not valid JSON"},
    {"{\"do\":\"\xff\"}\n", "not valid JSON"},
    {"\r\n\n{\"do\":\"echo\",\"what\":5}\r\n", "{\"ok\":true,\"result\":5}\n"},
    {"{\"do\":\"help\\u0000x\"}\n", "not valid JSON"},
};

static int co_hostile_lines(void *arg)
{
    struct server s;
    char answer[2000], *deep = malloc(200000);
    co_serve(&s);
    struct host_stream *c = connect_raw();
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        ck_assert_int_eq(co_send_all(c, hostile[i].line, strlen(hostile[i].line)), 0);
        co_read_lines(c, answer, sizeof answer, 1);
        ck_assert_msg(strstr(answer, hostile[i].says), "%s: %s", hostile[i].line, answer);
    }
    /* nested: refused before it is parsed */
    memset(deep, '[', 60000);
    deep[60000] = '\n';
    ck_assert_int_eq(co_send_all(c, deep, 60001), 0);
    co_read_lines(c, answer, sizeof answer, 1);
    ck_assert_ptr_nonnull(strstr(answer, "nests deeper"));
    /* a zero byte */
    ck_assert_int_eq(co_send_all(c, "{\"do\":\0\"help\"}\n", 15), 0);
    co_read_lines(c, answer, sizeof answer, 1);
    ck_assert_ptr_nonnull(strstr(answer, "not valid JSON"));
    /* many requests at once are answered in order */
    const char *two = "{\"do\":\"slow\"}\n{\"do\":\"echo\",\"what\":7}\n";
    ck_assert_int_eq(co_send_all(c, two, strlen(two)), 0);
    co_read_lines(c, answer, sizeof answer, 2);
    ck_assert_str_eq(answer, "{\"ok\":true,\"result\":null}\n{\"ok\":true,\"result\":7}\n");
    /* no newline ever: refused, and the connection is over */
    memset(deep, ' ', 200000);
    int rc = co_send_all(c, deep, 200000);
    (void)rc; /* the server may be gone before all is sent */
    co_read_lines(c, answer, sizeof answer, 1);
    if (rc == 0 || answer[0])
        ck_assert_msg(!answer[0] || strstr(answer, "longer than 65536"), "%s", answer);
    ck_assert_uint_eq(co_read_lines(c, answer, sizeof answer, 1), 0);
    host_stream_close(c);
    free(deep);
    co_stop(&s);
    return 0;
}

static int co_many_clients(void *arg)
{
    struct server s;
    struct blk_error e = {0};
    json_t *result;
    struct host_stream *idle[100];
    char answer[100];
    co_serve(&s);
    for (size_t i = 0; i < ARRAY_LEN(idle); i++) {
        idle[i] = connect_raw();
        ck_assert_int_eq(co_send_all(idle[i], "{\"do\":", 6), 0); /* and never the rest */
        co_sleep(1000000);
    }
    ck_assert_int_eq(call("{\"do\":\"echo\",\"what\":1}", &result, &e), 0);
    json_decref(result);
    /* the oldest were let go, the latest are there */
    ck_assert_uint_eq(co_read_lines(idle[0], answer, sizeof answer, 1), 0);
    ck_assert_int_eq(co_send_all(idle[99], "\"echo\",\"what\":2}\n", 17), 0);
    co_read_lines(idle[99], answer, sizeof answer, 1);
    ck_assert_str_eq(answer, "{\"ok\":true,\"result\":2}\n");
    for (size_t i = 0; i < ARRAY_LEN(idle); i++)
        host_stream_close(idle[i]);
    co_stop(&s);
    return 0;
}

/* Asks for megabytes and reads nothing: others are served meanwhile, and in the end it is dropped.
 */
static int co_slow_reader(void *arg)
{
    struct server s;
    struct blk_error e = {0};
    json_t *result;
    co_serve(&s);
    struct host_stream *c = connect_raw();
    ck_assert_int_eq(co_send_all(c, "{\"do\":\"big\"}\n", 13), 0);
    co_sleep(100 * 1000000);
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(call("{\"do\":\"echo\",\"what\":1}", &result, &e), 0);
        json_decref(result);
    }
    if (!real) { /* virtual seconds cost nothing */
        co_sleep(30000000000ULL);
        char *all = malloc(4000000);
        ck_assert_uint_lt(co_read_lines(c, all, 4000000, 1), 3000000);
        free(all);
    }
    uint64_t before = worker_now();
    co_stop(&s); /* also while it hangs there, and soon */
    ck_assert_uint_lt(worker_now() - before, 5000000000ULL);
    host_stream_close(c);
    return 0;
}

static int co_second_server(void *arg)
{
    struct server s;
    struct blk_error e = {0};
    struct stat st;
    struct ctl *second;
    struct ctl_options o = {.path = path};
    co_serve(&s);
    ck_assert_int_eq(co_ctl_open(host, &o, &second, &e), -EADDRINUSE);
    ck_assert_ptr_nonnull(strstr(e.text, "is there already"));
    if (real) {
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_uint_eq(st.st_mode & 0777, 0600);
    }
    co_stop(&s);
    ck_assert_int_eq(real ? access(path, F_OK) : -1, -1);
    return 0;
}

/* --- a server that misbehaves
 * ------------------------------------------------------------------------------------- */

struct impostor {
    struct host_stream *listener;
    const char *says;
};

static void co_impostor(void *arg)
{
    struct impostor *p = arg;
    struct host_stream *s;
    while (co_host_accept(p->listener, &s) == 0) {
        char request[100];
        co_read_lines(s, request, sizeof request, 1);
        int rc = p->says ? co_send_all(s, p->says, strlen(p->says)) : 0;
        (void)rc;
        if (!p->says)
            co_sleep(60000000000ULL);
        host_stream_close(s);
    }
    host_stream_close(p->listener);
    p->listener = NULL;
}

static int co_client_is_careful(void *arg)
{
    static const struct {
        const char *says;
        int rc;
    } rows[] = {
        {"", -ECONNRESET},
        {"{\"ok\":", -ECONNRESET},
        {"[]\n", -EINVAL},
        {"{}\n", -EPROTO},
        {"{\"ok\":false}\n", -EPROTO},
        {"{\"ok\":1}\n", -EPROTO},
        {"{\"ok\":false,\"error\":\"x\",\"errno\":\"EWHAT\"}\n", -EIO},
        {NULL, -ETIMEDOUT},
    };
    char address[220];
    snprintf(address, sizeof address, "unix:%s", path);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct impostor p = {.says = rows[i].says};
        struct blk_error e = {0};
        json_t *result;
        if (real && !p.says)
            continue;
        ck_assert_int_eq(co_host_listen(host, address, &p.listener), 0);
        ck_assert_int_eq(co_start(co_impostor, &p), 0);
        int rc = call("{\"do\":\"help\"}", &result, &e);
        ck_assert_msg(rc == rows[i].rc, "%zu: %d %s", i, rc, e.text);
        host_stream_shutdown(p.listener);
        while (p.listener)
            co_sleep(1000000);
    }
    return 0;
}

static int (*const runs[])(void *) = {
    co_verbs,       co_steers_jobs,   co_hostile_lines,     co_many_clients,
    co_slow_reader, co_second_server, co_client_is_careful,
};

START_TEST(over_the_simulator)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        setup_on(false, seed);
        ck_assert_int_eq(runtime_run(rt, runs[_i], NULL), 0);
        teardown();
    }
}
END_TEST

START_TEST(over_a_socket)
{
    setup_on(true, 0);
    ck_assert_int_eq(runtime_run(rt, runs[_i], NULL), 0);
    teardown();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ctl");
    TCase *t = tcase_create("ctl");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, over_the_simulator, 0, ARRAY_LEN(runs));
    tcase_add_loop_test(t, over_a_socket, 0, ARRAY_LEN(runs));
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

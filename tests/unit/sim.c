/* SPDX-License-Identifier: BSD-3-Clause */
/* sim.c - the simulated host: files, names, streams, the clock, faults, and what a crash leaves. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/host_sim.h"
#include "block/host_sim_store.h"

/* --- a small frame: each test is one coroutine over a host
 * ---------------------------------------- */

struct frame {
    struct host *host;
    uint64_t seed;
    bool in_order;
    unsigned workers;
};

static void open_frame(struct frame *f)
{
    struct sim_options o = {.seed = f->seed, .in_order = f->in_order};
    ck_assert_int_eq(host_sim_open(&o, &f->host), 0);
}

static int run_on(struct host *host, unsigned workers, int (*fn)(void *), void *arg)
{
    struct runtime_options o = {.host = host, .workers = workers, .pool_threads = 1};
    struct runtime *rt;
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    int rc = runtime_run(rt, fn, arg);
    runtime_close(rt);
    return rc;
}

static struct host_file *open_file(struct host *h, const char *path, unsigned flags)
{
    struct host_file *f;
    ck_assert_int_eq(co_host_open(h, path, NULL, HOST_READ | HOST_WRITE | flags, &f), 0);
    return f;
}

static void put(struct host_file *f, uint64_t at, int byte, size_t bytes)
{
    uint8_t *buf = malloc(bytes);
    memset(buf, byte, bytes);
    struct vec v = VEC_BUF(buf, bytes);
    ck_assert_int_eq(co_host_write(f, at, &v), 0);
    free(buf);
}

static int get(struct host_file *f, uint64_t at)
{
    uint8_t byte;
    struct vec v = VEC_BUF(&byte, 1);
    int64_t n = co_host_read(f, at, &v);
    return n == 1 ? byte : -1;
}

/* --- the store
 * ------------------------------------------------------------------------------------ */

START_TEST(store_shares_until_written)
{
    struct sim_tree a = {0};
    bool fresh;
    for (uint64_t i = 0; i < 300; i++)
        sim_tree_edit(&a, i * i, &fresh)->bytes[0] = (uint8_t)(i + 1);
    struct sim_tree b = sim_tree_copy(&a);
    ck_assert_uint_eq(sim_tree_hash(&a), sim_tree_hash(&b));
    sim_tree_edit(&b, 49, &fresh)->bytes[0] = 99;
    ck_assert(!fresh);
    ck_assert_int_eq(sim_tree_get(&a, 49)->bytes[0], 8);
    ck_assert_int_eq(sim_tree_get(&b, 49)->bytes[0], 99);
    ck_assert_uint_ne(sim_tree_hash(&a), sim_tree_hash(&b));
    sim_tree_edit(&b, 49, &fresh)->bytes[0] = 8;
    ck_assert_uint_eq(sim_tree_hash(&a), sim_tree_hash(&b));
    ck_assert_uint_eq(sim_tree_next(&a, 50), 64);
    ck_assert(sim_tree_clear(&a, 10, 1ULL << 40));
    ck_assert_uint_eq(sim_tree_next(&a, 10), UINT64_MAX);
    ck_assert_uint_eq(a.pages, 4);
    ck_assert_uint_eq(b.pages, 300);
    sim_tree_drop(&a);
    sim_tree_drop(&b);
}
END_TEST

START_TEST(hash_ignores_zero_pages_and_height)
{
    struct sim_tree a = {0}, b = {0};
    bool fresh;
    sim_tree_edit(&a, 3, &fresh)->bytes[7] = 1;
    sim_tree_edit(&b, 3, &fresh)->bytes[7] = 1;
    sim_tree_edit(&b, 1ULL << 30, &fresh);
    ck_assert_uint_eq(sim_tree_hash(&a), sim_tree_hash(&b));
    sim_tree_edit(&b, 4, &fresh)->bytes[7] = 1;
    ck_assert_uint_ne(sim_tree_hash(&a), sim_tree_hash(&b));
    sim_tree_drop(&a);
    sim_tree_drop(&b);
}
END_TEST

/* --- files
 * ---------------------------------------------------------------------------------------- */

static int files_main(void *arg)
{
    struct host *h = arg;
    struct host_file *f = open_file(h, "/d/a", HOST_CREATE);
    put(f, 5000, 7, 9000);
    ck_assert_int_eq(get(f, 4999), 0);
    ck_assert_int_eq(get(f, 5000), 7);
    ck_assert_int_eq(get(f, 13999), 7);
    ck_assert_int_eq(get(f, 14000), -1);
    ck_assert_int_eq(co_host_fallocate(f, HOST_PUNCH, 6000, 6000), 0);
    ck_assert_int_eq(get(f, 5999), 7);
    ck_assert_int_eq(get(f, 6000), 0);
    ck_assert_int_eq(get(f, 11999), 0);
    ck_assert_int_eq(get(f, 12000), 7);
    ck_assert_int_eq(co_host_truncate(f, 5500), 0);
    ck_assert_int_eq(co_host_truncate(f, 20000), 0);
    ck_assert_int_eq(get(f, 5499), 7);
    ck_assert_int_eq(get(f, 5500), 0);
    bool data;
    uint64_t end;
    ck_assert_int_eq(co_host_extent(f, 0, &data, &end), 0);
    ck_assert(!data && end == 4096);
    ck_assert_int_eq(co_host_extent(f, 4096, &data, &end), 0);
    ck_assert(data && end == 8192);
    ck_assert_int_eq(co_host_extent(f, 20000, &data, &end), -ENXIO);
    struct host_file *g = open_file(h, "/d/b", HOST_CREATE | HOST_EXCLUSIVE);
    ck_assert_int_eq(co_host_copy(f, 5000, g, 1, 300), 300);
    ck_assert_int_eq(get(g, 0), 0);
    ck_assert_int_eq(get(g, 300), 7);
    ck_assert_int_eq(host_lock(f, 100, 1, 2), 0);
    struct host_file *same = open_file(h, "/d/../d/a", 0);
    ck_assert_int_eq(host_lock(same, 100, 1, 1), -EAGAIN);
    ck_assert_int_eq(host_lock(f, 100, 1, 0), 0);
    ck_assert_int_eq(host_lock(same, 100, 1, 1), 0);
    co_host_close(f);
    co_host_close(same);
    co_host_close(g);
    return 0;
}

static int names_main(void *arg)
{
    struct host *h = arg;
    struct host_stat st;
    struct host_file *f, *never;
    char **names, *real;
    size_t count;
    co_host_close(open_file(h, "/n/x", HOST_CREATE));
    co_host_close(open_file(h, "/n/c", HOST_CREATE));
    ck_assert_int_eq(co_host_rename(h, "/n/x", "/n/a"), 0);
    ck_assert_int_eq(co_host_rename(h, "/n/x", "/n/b"), -ENOENT);
    ck_assert_int_eq(co_host_list(h, "/n", &names, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(names[0], "a");
    ck_assert_str_eq(names[1], "c");
    for (size_t i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
    ck_assert_int_eq(co_host_stat(h, "/n", &st), 0);
    ck_assert_int_eq(st.type, HOST_FILE_DIRECTORY);
    ck_assert_int_eq(co_host_open(h, "../e", "/n", HOST_READ, &never), -EXDEV);
    ck_assert_int_eq(co_host_open(h, "a", "/n", HOST_READ, &f), 0);
    ck_assert_int_eq(co_host_unlink(h, "/n/a"), 0);
    ck_assert_int_eq(co_host_open(h, "/n/a", NULL, HOST_READ, &never), -ENOENT);
    co_host_close(f);
    ck_assert_int_eq(co_host_realpath(h, "/n//./c", &real), 0);
    ck_assert_str_eq(real, "/n/c");
    mem_free(real);
    return 0;
}

START_TEST(files_behave)
{
    struct frame f = {.seed = (uint64_t)_i, .in_order = _i == 0};
    open_frame(&f);
    ck_assert_int_eq(run_on(f.host, 1, files_main, f.host), 0);
    ck_assert_int_eq(run_on(f.host, 1, names_main, f.host), 0);
    host_close(f.host);
}
END_TEST

/* --- streams
 * -------------------------------------------------------------------------------------- */

#define ECHO_BYTES 300000

static void echo_server(void *arg)
{
    struct host_stream *l = arg, *s;
    ck_assert_int_eq(co_host_accept(l, &s), 0);
    uint8_t buf[5000];
    int64_t n;
    while ((n = host_stream_recv(s, buf, sizeof(buf))) != 0) {
        if (n == -EAGAIN) {
            ck_assert_int_ge(co_host_stream_wait(s, HOST_READABLE, 0), 0);
            continue;
        }
        for (int64_t at = 0; at < n;) {
            struct iovec iov = {buf + at, (size_t)(n - at)};
            int64_t sent = host_stream_sendv(s, &iov, 1);
            if (sent == -EAGAIN)
                ck_assert_int_ge(co_host_stream_wait(s, HOST_WRITABLE, 0), 0);
            else
                at += sent;
        }
    }
    host_stream_close(s);
}

struct sender {
    struct host_stream *s;
    bool done;
};

static void send_all(void *arg)
{
    struct sender *snd = arg;
    uint8_t buf[7000];
    for (uint32_t at = 0; at < ECHO_BYTES;) {
        size_t n = MIN(sizeof(buf), (size_t)(ECHO_BYTES - at));
        for (size_t i = 0; i < n; i++)
            buf[i] = (uint8_t)((at + i) * 31 >> 3);
        struct iovec iov = {buf, n};
        int64_t sent = host_stream_sendv(snd->s, &iov, 1);
        if (sent == -EAGAIN)
            ck_assert_int_ge(co_host_stream_wait(snd->s, HOST_WRITABLE, 0), 0);
        else
            at += (uint32_t)sent;
    }
    snd->done = true;
}

static int streams_main(void *arg)
{
    struct host *h = arg;
    struct host_stream *l, *s, *never;
    ck_assert_int_eq(co_host_connect(h, "unix:/s", &never), -ECONNREFUSED);
    ck_assert_int_eq(co_host_listen(h, "tcp:127.0.0.1:0", &l), 0);
    ck_assert_int_eq(co_start(echo_server, l), 0);
    ck_assert_int_eq(co_host_connect(h, host_stream_address(l), &s), 0);
    struct sender snd = {.s = s};
    ck_assert_int_eq(co_start(send_all, &snd), 0);
    uint8_t buf[3000];
    for (uint32_t at = 0; at < ECHO_BYTES;) {
        int64_t n = host_stream_recv(s, buf, sizeof(buf));
        if (n == -EAGAIN) {
            ck_assert_int_ge(co_host_stream_wait(s, HOST_READABLE, 0), 0);
            continue;
        }
        ck_assert_int_gt(n, 0);
        for (int64_t i = 0; i < n; i++)
            ck_assert_int_eq(buf[i], (uint8_t)((at + i) * 31 >> 3));
        at += (uint32_t)n;
    }
    ck_assert(snd.done);
    ck_assert_int_eq(co_host_stream_wait(s, HOST_READABLE, 1000000), -ETIMEDOUT);
    host_stream_close(s);
    host_stream_close(l);
    co_sleep(1000000);
    return 0;
}

START_TEST(streams_carry_bytes_in_order)
{
    struct frame f = {.seed = (uint64_t)_i};
    open_frame(&f);
    ck_assert_int_eq(run_on(f.host, 1, streams_main, f.host), 0);
    host_close(f.host);
}
END_TEST

/* --- the same seed gives the same run
 * --------------------------------------------------------------- */

struct trace {
    struct host *host;
    struct host_file *file;
    uint64_t hash;
    unsigned left;
};

static int add_up(void *arg)
{
    struct trace *t = arg;
    t->hash = sim_mix(t->hash, worker_now());
    return 0;
}

static void tracer(void *arg)
{
    struct trace *t = arg;
    static unsigned number;
    unsigned me = ++number;
    for (unsigned i = 0; i < 20; i++) {
        put(t->file, (me * 37 + i * 11) % 60 * 700, (int)(me * 16 + i), 700);
        t->hash = sim_mix(t->hash, me * 100 + i + (uint64_t)get(t->file, i * 1000));
        if (i % 5 == 0)
            co_on(runtime_worker(worker_self()->runtime, 1), add_up, t);
        if (i % 7 == 0)
            t->hash = sim_mix(t->hash, (uint64_t)co_offload(add_up, t));
    }
    if (--t->left == 0)
        number = 0;
}

static int trace_main(void *arg)
{
    struct trace *t = arg;
    t->file = open_file(t->host, "/t", HOST_CREATE);
    t->left = 6;
    for (unsigned i = 0; i < 6; i++)
        ck_assert_int_eq(co_start(tracer, t), 0);
    while (t->left)
        co_sleep(50000);
    co_host_close(t->file);
    return 0;
}

static uint64_t trace(uint64_t seed)
{
    struct frame f = {.seed = seed};
    open_frame(&f);
    struct trace t = {.host = f.host};
    run_on(f.host, 2, trace_main, &t);
    uint64_t hash = sim_mix(t.hash, host_sim_hash(f.host));
    host_close(f.host);
    return hash;
}

START_TEST(a_seed_is_a_run)
{
    uint64_t first = trace(1), second = trace(2);
    ck_assert_uint_eq(trace(1), first);
    ck_assert_uint_eq(trace(2), second);
    ck_assert_uint_ne(first, second);
}
END_TEST

/* --- faults
 * --------------------------------------------------------------------------------------- */

static int fault_main(void *arg)
{
    struct host *h = arg;
    struct host_file *f = open_file(h, "/f", HOST_CREATE);
    uint8_t buf[2048] = {1};
    memset(buf, 9, sizeof(buf));
    struct vec v = VEC_BUF(buf, sizeof(buf));
    put(f, 0, 3, 8192);
    ck_assert_int_eq(co_host_fsync(f), 0);
    host_sim_fault(h,
                   &(struct sim_fault){
                       .op = SIM_WRITE, .nth = 2, .times = 1, .rc = -ENOSPC, .short_bytes = 512});
    ck_assert_int_eq(co_host_write(f, 0, &v), 0);
    ck_assert_int_eq(co_host_write(f, 4096, &v), -ENOSPC);
    ck_assert_int_eq(get(f, 4096 + 511), 9);
    ck_assert_int_eq(get(f, 4096 + 512), 3);
    ck_assert_int_eq(co_host_write(f, 4096, &v), 0);
    ck_assert_uint_eq(host_sim_fired(h), 1);
    host_sim_fault(h,
                   &(struct sim_fault){.op = SIM_WRITE, .nth = 1, .times = 1, .damage = SIM_LOST});
    ck_assert_int_eq(co_host_write(f, 6144, &v), 0);
    ck_assert_int_eq(get(f, 6144), 3);
    host_sim_fault(
        h, &(struct sim_fault){
               .op = SIM_FSYNC, .nth = 1, .times = UINT64_MAX, .rc = -EIO, .lose_unsynced = true});
    put(f, 0, 5, 512);
    unsigned lost = 0;
    for (unsigned i = 0; i < 20 && !lost; i++) {
        ck_assert_int_eq(co_host_fsync(f), -EIO);
        lost += get(f, 0) == 3;
    }
    ck_assert_uint_gt(lost, 0); /* back to what was durable */
    host_sim_fault(h, NULL);
    co_host_close(f);
    return 0;
}

START_TEST(faults_hit_the_nth_call)
{
    struct frame f = {.seed = 5};
    open_frame(&f);
    ck_assert_int_eq(run_on(f.host, 1, fault_main, f.host), 0);
    host_close(f.host);
}
END_TEST

/* --- crashes
 * -------------------------------------------------------------------------------------- */

struct crash_run {
    struct host *host;
    size_t written, synced, later, cut_before_close;
};

static int crash_main(void *arg)
{
    struct crash_run *c = arg;
    struct host_file *f = open_file(c->host, "/a", 0);
    put(f, 0, 1, 1024);
    put(f, 8192, 2, 512); /* extends */
    c->written = host_sim_cut(c->host);
    ck_assert_int_eq(co_host_fsync(f), 0);
    c->synced = host_sim_cut(c->host);
    put(f, 0, 3, 1024);
    ck_assert_int_eq(co_host_truncate(f, 100), 0);
    ck_assert_int_eq(co_host_truncate(f, 600), 0);
    ck_assert_int_eq(co_host_rename(c->host, "/a", "/b"), 0);
    c->later = host_sim_cut(c->host);
    co_host_close(f);
    return 0;
}

struct peek {
    struct host *host;
    const char *name;
    uint64_t at;
    int value;
    uint64_t size;
};

static int peek_main(void *arg)
{
    struct peek *p = arg;
    struct host_file *f;
    p->value = co_host_open(p->host, p->name, NULL, HOST_READ, &f);
    if (p->value < 0)
        return 0;
    p->size = f->stat.size;
    p->value = get(f, p->at);
    co_host_close(f);
    return 0;
}

/* What a crash leaves at byte @at of @name: its value, -1 past the end, -ENOENT. */
static int after_crash(struct host *h, size_t cut, const char *apply, const char *name, uint64_t at,
                       uint64_t *size)
{
    uint8_t bytes[16];
    struct host *crashed;
    ck_assert_uint_eq(host_sim_pending(h, cut), strlen(apply));
    for (size_t i = 0; apply[i]; i++)
        bytes[i] = (uint8_t)(apply[i] - '0');
    ck_assert_int_eq(host_sim_crash(h, cut, bytes, 1, &crashed), 0);
    struct peek p = {.host = crashed, .name = name, .at = at};
    ck_assert_int_eq(run_on(crashed, 1, peek_main, &p), 0);
    host_close(crashed);
    if (size)
        *size = p.size;
    return p.value;
}

START_TEST(a_crash_keeps_what_was_synced)
{
    struct frame f = {.seed = (uint64_t)_i};
    open_frame(&f);
    uint8_t old[2048];
    memset(old, 9, sizeof(old));
    ck_assert_int_eq(host_sim_import(f.host, "/a", old, sizeof(old)), 0);
    host_sim_record(f.host);
    struct crash_run c = {.host = f.host};
    ck_assert_int_eq(run_on(f.host, 1, crash_main, &c), 0);
    uint64_t size;
    ck_assert_int_eq(after_crash(f.host, 0, "", "/a", 0, NULL), 9);
    ck_assert_int_eq(after_crash(f.host, c.written, "00", "/a", 0, &size), 9);
    ck_assert_uint_eq(size, 2048);
    ck_assert_int_eq(after_crash(f.host, c.written, "01", "/a", 0, &size), 9);
    ck_assert_uint_eq(size, 8704);
    ck_assert_int_eq(after_crash(f.host, c.written, "01", "/a", 8192, NULL), 2);
    ck_assert_int_eq(after_crash(f.host, c.written, "10", "/a", 0, NULL), 1);
    ck_assert_int_eq(after_crash(f.host, c.synced, "", "/a", 8192, NULL), 2);
    ck_assert_int_eq(after_crash(f.host, c.later, "1000", "/a", 0, &size), 3);
    ck_assert_uint_eq(size, 8704);
    ck_assert_int_eq(after_crash(f.host, c.later, "0100", "/a", 0, &size), 1);
    ck_assert_uint_eq(size, 100);
    /* metadata is a prefix: without the first size change not the second either */
    ck_assert_int_eq(after_crash(f.host, c.later, "0010", "/a", 0, &size), 1);
    ck_assert_uint_eq(size, 8704);
    ck_assert_int_eq(after_crash(f.host, c.later, "0110", "/a", 0, &size), 1);
    ck_assert_uint_eq(size, 600);
    ck_assert_int_eq(after_crash(f.host, c.later, "0110", "/a", 100, NULL), 0);
    ck_assert_int_eq(after_crash(f.host, c.later, "0001", "/a", 0, NULL), -ENOENT);
    ck_assert_int_eq(after_crash(f.host, c.later, "0001", "/b", 0, NULL), 1);
    host_close(f.host);
}
END_TEST

static void flight_write(void *arg)
{
    put(arg, 0, 4, 4096);
}

static int flight_main(void *arg)
{
    struct crash_run *c = arg;
    struct host_file *f = open_file(c->host, "/a", 0);
    ck_assert_int_eq(co_start(flight_write, f), 0);
    c->written = host_sim_cut(c->host); /* issued, not done */
    co_sleep(100000000);
    co_host_close(f);
    return 0;
}

START_TEST(what_is_in_flight_may_be_torn)
{
    struct frame f = {.seed = 3};
    open_frame(&f);
    uint8_t old[4096] = {0};
    ck_assert_int_eq(host_sim_import(f.host, "/a", old, sizeof(old)), 0);
    host_sim_record(f.host);
    struct crash_run c = {.host = f.host};
    ck_assert_int_eq(run_on(f.host, 1, flight_main, &c), 0);
    ck_assert_int_eq(after_crash(f.host, c.written, "0", "/a", 0, NULL), 0);
    ck_assert_int_eq(after_crash(f.host, c.written, "1", "/a", 0, NULL), 4);
    unsigned applied = 0;
    for (uint64_t at = 0; at < 4096; at += 512) {
        int v = after_crash(f.host, c.written, "2", "/a", at, NULL);
        ck_assert(v == 0 || v == 4);
        ck_assert_int_eq(after_crash(f.host, c.written, "2", "/a", at + 511, NULL), v);
        applied += v == 4;
    }
    ck_assert(applied > 0 && applied < 8);
    host_close(f.host);
}
END_TEST

static int device_main(void *arg)
{
    struct host_file *f = open_file(arg, "/dev/d", 0);
    int a = get(f, 1000), b = get(f, 100000);
    put(f, 4096, 0, 4096);
    ck_assert_int_eq(get(f, 1000), a);
    ck_assert_int_eq(get(f, 100000), b);
    unsigned zeroes = 0;
    for (unsigned i = 8192; i < 8292; i++)
        zeroes += get(f, i) == 0;
    ck_assert_uint_lt(zeroes, 10);
    uint8_t byte = 1;
    struct vec v = VEC_BUF(&byte, 1);
    ck_assert_int_eq(co_host_write(f, 1 << 20, &v), -ENOSPC);
    co_host_close(f);
    return 0;
}

START_TEST(devices_hold_garbage)
{
    struct frame f = {.seed = 3};
    open_frame(&f);
    ck_assert_int_eq(host_sim_add_device(f.host, "/dev/d", 1 << 20), 0);
    ck_assert_int_eq(run_on(f.host, 1, device_main, f.host), 0);
    host_close(f.host);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sim");
    TCase *t = tcase_create("host");
    tcase_add_test(t, store_shares_until_written);
    tcase_add_test(t, hash_ignores_zero_pages_and_height);
    tcase_add_loop_test(t, files_behave, 0, 20);
    tcase_add_loop_test(t, streams_carry_bytes_in_order, 0, 10);
    tcase_add_test(t, a_seed_is_a_run);
    tcase_add_test(t, faults_hit_the_nth_call);
    tcase_add_loop_test(t, a_crash_keeps_what_was_synced, 0, 10);
    tcase_add_test(t, what_is_in_flight_may_be_torn);
    tcase_add_test(t, devices_hold_garbage);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

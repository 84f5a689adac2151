/* SPDX-License-Identifier: BSD-3-Clause */
/* runtime.c - what the runtime itself costs, in nanoseconds: starting and resuming coroutines,
 * hops between workers, the pool, a cached read beside its bare system call, writes at depth 64.
 *
 * Usage: build/bench/runtime [uring|threads|aio] [FOLDER ...] */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "block/host.h"

/* CPU time of this thread: what other programs do to the wall clock does not count. */
static uint64_t cpu_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void row(const char *what, uint64_t cpu_before, uint64_t times)
{
    printf("%-52s %10.1f ns\n", what, (double)(cpu_now() - cpu_before) / (double)times);
}

/* --- coroutines ------------------------------------------------------------------------------- */

static void nothing(void *arg)
{
    __asm__ volatile("" ::"r"(arg));
}

static int nothing_int(void *arg)
{
    __asm__ volatile("" ::"r"(arg));
    return 0;
}

static void bench_start(void)
{
    const uint64_t times = 20000000;
    uint64_t before = cpu_now();

    for (uint64_t i = 0; i < times; i++)
        if (co_start(nothing, NULL) < 0)
            abort();
    row("co_start, does not suspend", before, times);

    struct co_group g;
    co_group_init(&g, 64);
    before = cpu_now();
    for (uint64_t i = 0; i < times; i++)
        co_group_start(&g, nothing_int, NULL);
    co_group_wait(&g);
    row("co_group_start, does not suspend", before, times);
}

static void suspender(void *arg)
{
    uint64_t *left = arg;

    while (*left) {
        (*left)--;
        co_yield ();
    }
}

static void bench_suspend(unsigned count)
{
    const uint64_t times = 10000000;
    uint64_t left = times, before = cpu_now();
    char what[64];

    for (unsigned i = 0; i < count; i++)
        if (co_start(suspender, &left) < 0)
            abort();
    while (left)
        co_yield ();
    snprintf(what, sizeof(what), "suspend and resume by the loop, %u coroutines", count);
    row(what, before, times);
    co_yield ();
}

static void bench_locks(void)
{
    const uint64_t times = 20000000;
    struct co_mutex m = {0};
    struct co_range r = {0};
    struct co_range_hold hold;
    uint64_t before = cpu_now();

    for (uint64_t i = 0; i < times; i++) {
        co_mutex_lock(&m);
        co_mutex_unlock(&m);
    }
    row("co_mutex, free", before, times);
    before = cpu_now();
    for (uint64_t i = 0; i < times; i++) {
        co_range_lock(&r, &hold, i, 100, false);
        co_range_unlock(&r, &hold);
    }
    row("co_range, free", before, times);
    before = cpu_now();
    for (uint64_t i = 0; i < times; i++)
        buf_put(buf_get(65536), 65536);
    row("buf_get and buf_put", before, times);
}

/* --- threads ---------------------------------------------------------------------------------- */

static int hopper(void *arg)
{
    struct worker *there = arg;

    for (int i = 0; i < 1000; i++)
        TRY(co_on(there, nothing_int, NULL));
    return 0;
}

static int offloader(void *arg)
{
    for (int i = 0; i < 200; i++)
        TRY(co_offload(nothing_int, NULL));
    return 0;
}

static void bench_many(const char *what, int (*fn)(void *), void *arg, unsigned each)
{
    static const unsigned widths[] = {1, 64};

    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        char text[80];
        struct co_group g;
        uint64_t before = worker_now();
        co_group_init(&g, 0);
        for (unsigned k = 0; k < widths[i]; k++)
            co_group_start(&g, fn, arg);
        if (co_group_wait(&g) < 0)
            abort();
        snprintf(text, sizeof(text), "%s, %u at a time", what, widths[i]);
        printf("%-52s %10.1f ns\n", text,
               (double)(worker_now() - before) / (double)(each * widths[i]));
    }
}

/* --- files ------------------------------------------------------------------------------------ */

#define FILE_BYTES (256 * MiB)

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return *state >> 33;
}

static void bench_read(struct host_file *f, const char *folder)
{
    const uint64_t times = 500000;
    uint8_t *buf = buf_get(4096);
    uint64_t seed = 1, before, best_raw = UINT64_MAX, best_ours = UINT64_MAX;

    for (int turn = 0; turn < 5; turn++) {
        before = cpu_now();
        for (uint64_t i = 0; i < times; i++) {
            struct iovec iov = {buf, 4096};
            off_t at = (off_t)(draw(&seed) % (FILE_BYTES / 4096) * 4096);
            if (preadv2(host_fd(f), &iov, 1, at, f->stat.inline_io ? 0 : RWF_NOWAIT) != 4096)
                abort();
        }
        best_raw = MIN(best_raw, cpu_now() - before);
        before = cpu_now();
        for (uint64_t i = 0; i < times; i++)
            if (co_host_read(f, draw(&seed) % (FILE_BYTES / 4096) * 4096, &VEC_BUF(buf, 4096)) !=
                4096)
                abort();
        best_ours = MIN(best_ours, cpu_now() - before);
    }
    printf("%-52s %10.1f ns (preadv2 alone: %.1f)  %s\n", "co_host_read, 4 KiB cached",
           (double)best_ours / times, (double)best_raw / times, folder);
    buf_put(buf, 4096);
}

struct writer {
    struct host_file *f;
    uint64_t left, seed;
    bool read;
};

static int writer_main(void *arg)
{
    struct writer *w = arg;
    uint8_t *buf = buf_get(4096);

    memset(buf, 7, 4096);
    while (w->left) {
        w->left--;
        uint64_t at = draw(&w->seed) % (FILE_BYTES / 4096) * 4096;
        if (w->read)
            TRY((int)MIN(0, co_host_read(w->f, at, &VEC_BUF(buf, 4096))));
        else
            TRY(co_host_write(w->f, at, &VEC_BUF(buf, 4096)));
    }
    buf_put(buf, 4096);
    return 0;
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void bench_random(struct host_file *f, bool read, unsigned depth, const char *folder)
{
    const uint64_t times = depth == 1 ? 20000 : 200000;
    struct writer w = {.f = f, .left = times, .seed = 3, .read = read};
    struct co_group g;
    char what[80];
    double cpu = cpu_seconds();
    uint64_t before = worker_now();

    co_group_init(&g, 0);
    for (unsigned i = 0; i < depth; i++)
        co_group_start(&g, writer_main, &w);
    if (co_group_wait(&g) < 0)
        abort();
    double wall = (double)(worker_now() - before);
    snprintf(what, sizeof(what), "random 4 KiB %s%s, depth %u", read ? "reads" : "writes",
             f->flags & HOST_DIRECT ? ", O_DIRECT" : "", depth);
    printf("%-52s %10.1f ns (CPU %.1f)  %s\n", what, wall / (double)times,
           (cpu_seconds() - cpu) * 1e9 / (double)times, folder);
}

static void bench_files(const char *folder)
{
    struct host *h = worker_self()->host;
    struct host_file *f;
    uint8_t *buf = buf_get(MiB);
    char path[300];

    snprintf(path, sizeof(path), "%s/lamina-bench-%d", folder, (int)getpid());
    unsigned flags = HOST_READ | HOST_WRITE | HOST_CREATE;
    if (co_host_open(h, path, NULL, flags, &f) < 0)
        abort();
    memset(buf, 1, MiB);
    for (uint64_t at = 0; at < FILE_BYTES; at += MiB)
        if (co_host_write(f, at, &VEC_BUF(buf, MiB)) < 0)
            abort();
    bench_read(f, folder);
    bench_random(f, false, 1, folder);
    bench_random(f, false, 64, folder);
    if (co_host_fsync(f) < 0)
        abort();
    co_host_close(f);
    if (co_host_open(h, path, NULL, flags | HOST_DIRECT, &f) == 0) {
        if (!f->stat.inline_io) {
            bench_random(f, true, 64, folder);
            bench_random(f, false, 64, folder);
        }
        co_host_close(f);
    }
    buf_put(buf, MiB);
    if (co_host_unlink(h, path) < 0)
        abort();
}

struct args {
    int argc;
    char **argv;
};

static int bench(void *arg)
{
    struct args *args = arg;
    struct worker *there = runtime_worker(worker_self()->runtime, 1);

    if (args->argc < 3) {
        bench_start();
        bench_suspend(1);
        bench_suspend(64);
        bench_suspend(1000);
        bench_locks();
        bench_many("hop to another worker and back", hopper, there, 1000);
        bench_many("pool and back", offloader, NULL, 200);
        bench_files("/dev/shm");
        bench_files("/tmp");
    }
    for (int i = 2; i < args->argc; i++)
        bench_files(args->argv[i]);
    return 0;
}

int main(int argc, char **argv)
{
    struct runtime_options o = {.workers = 2};
    struct args args = {argc, argv};
    struct runtime *rt;

    int rc = host_open(argc > 1 ? argv[1] : NULL, &o.host);
    if (rc == 0)
        rc = runtime_open(&o, &rt);
    if (rc < 0) {
        fprintf(stderr, "%s\n", strerror(-rc));
        return 1;
    }
    printf("host %s\n", host_name(o.host));
    rc = runtime_run(rt, bench, &args);
    runtime_close(rt);
    host_close(o.host);
    return rc < 0;
}

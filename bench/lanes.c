/* SPDX-License-Identifier: BSD-3-Clause */
/* lanes.c - what a second worker adds: 4 KiB random reads of one cached image, in this process, no
 * sockets, by one worker (the image's home) and by two, each on a CPU of its own.
 *
 *   lanes [--seconds S] [--rounds N] FORMAT IMAGE
 *
 * Each worker does what an NBD connection does with a request on its lane: resolve, read at once,
 * else the long way through the image's home. Prints one JSON line: the best round of each. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/resolver.h"
#include "imgfmt/qcow2.h"
#include "imgfmt/raw.h"

#define BLOCK 4096u
#define BURST 64 /* reads between two looks at the loop, as a batch of requests is */

struct bench {
    struct host *host;
    struct runtime *rt;
    const char *format, *image;
    double seconds;
    struct blk_device *dev;
};

struct lane {
    struct bench *b;
    unsigned cpu;
    uint64_t until, done, missed;
    double ran; /* seconds of CPU */
};

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "lanes: %s\n", what);
        exit(2);
    }
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 27);
}

static void co_read_one(struct lane *l, uint64_t at, uint8_t *to)
{
    struct vec v = VEC_BUF(to, BLOCK);
    struct blk_place p;

    if (!blk_resolve(l->b->dev, at, BLOCK, false, &p) || p.bytes != BLOCK ||
        host_read_now(p.file, p.offset, &v) != BLOCK) {
        l->missed++;
        check(co_blk_read(l->b->dev, at, &v) == 0, "a read failed");
    }
    l->done++;
}

static double thread_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int co_lane(void *arg)
{
    struct lane *l = arg;
    uint64_t random = l->cpu + 1, blocks = l->b->dev->size / BLOCK;
    uint8_t *to = buf_get(BLOCK);
    cpu_set_t one;

    check(to, "out of memory");
    CPU_ZERO(&one);
    CPU_SET(l->cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
    l->ran = -thread_seconds();
    while (worker_now() < l->until) {
        for (unsigned i = 0; i < BURST; i++)
            co_read_one(l, next(&random) % blocks * BLOCK, to);
        co_yield ();
    }
    l->ran += thread_seconds();
    buf_put(to, BLOCK);
    return 0;
}

struct start {
    struct worker *worker;
    struct lane *lane;
};

static int co_start_lane(void *arg)
{
    struct start *s = arg;

    return co_on(s->worker, co_lane, s->lane);
}

struct found {
    double iops, missed;
    double ran; /* reads for each second that the workers ran, summed over them: what it would be on
                   an idle machine */
};

/* @workers of them together; keeps the best of each figure. */
static void co_round(struct bench *b, unsigned workers, struct found *best)
{
    struct co_group g;
    struct lane lanes[2];
    struct start starts[2];
    uint64_t begin = worker_now(), done = 0, miss = 0;
    double ran = 0;

    co_group_init(&g, 0);
    for (unsigned i = workers; i-- > 0;) { /* its own last: it runs at once */
        lanes[i] = (struct lane){.b = b, .cpu = i, .until = begin + (uint64_t)(b->seconds * 1e9)};
        starts[i] = (struct start){runtime_worker(b->rt, i), &lanes[i]};
        co_group_start(&g, co_start_lane, &starts[i]);
    }
    check(co_group_wait(&g) == 0, "a lane failed");
    for (unsigned i = 0; i < workers; i++) {
        done += lanes[i].done;
        miss += lanes[i].missed;
        ran += (double)lanes[i].done / lanes[i].ran;
    }
    best->missed = (double)miss / (double)done;
    best->iops = MAX(best->iops, (double)done * 1e9 / (double)(worker_now() - begin));
    best->ran = MAX(best->ran, ran);
}

static void co_open(struct bench *b)
{
    const struct blk_driver *format = strcmp(b->format, "qcow2") == 0 ? &qcow2_driver : &raw_driver;
    json_t *tree = json_pack("{s:s}", "filename", b->image), *none = json_object();
    struct blk_child child = {.role = "file"};
    struct blk_error e = {0};
    uint8_t *buf = buf_get(1 * MiB);

    check(co_blk_open(&file_driver, b->image, tree, 0, NULL, NULL, 0, &child.dev, &e) == 0,
          "cannot open the file");
    check(co_blk_open(format, b->image, none, 0, NULL, &child, 1, &b->dev, &e) == 0,
          "cannot open the image");
    check(buf && b->dev->size >= 1 * MiB, "too small");
    for (uint64_t at = 0; at + 1 * MiB <= b->dev->size; at += 1 * MiB) /* the cache is warm then */
        check(co_blk_read_buf(b->dev, at, buf, 1 * MiB) == 0, "a read failed");
    buf_put(buf, 1 * MiB);
    json_decref(tree);
    json_decref(none);
    blk_open_lane(b->dev);
}

struct job {
    struct bench *b;
    unsigned rounds;
};

static int co_main(void *arg)
{
    struct job *j = arg;
    struct found one = {0}, two = {0};

    co_open(j->b);
    for (unsigned i = 0; i < j->rounds; i++) {
        co_round(j->b, 1, &one);
        co_round(j->b, 2, &two);
    }
    printf("{\"one\": %.0f, \"two\": %.0f, \"ratio\": %.2f, \"ratio_by_cpu_time\": %.2f, "
           "\"missed\": %.4f}\n",
           one.iops, two.iops, two.iops / one.iops, two.ran / one.ran, two.missed);
    return co_blk_close(j->b->dev, NULL);
}

int main(int argc, char **argv)
{
    struct bench b = {.seconds = 0.5};
    struct job j = {&b, 5};
    struct runtime_options o = {.workers = 2, .pool_threads = 1};
    int at = 1;

    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        if (strcmp(argv[at], "--seconds") == 0)
            b.seconds = strtod(argv[at + 1], NULL);
        else if (strcmp(argv[at], "--rounds") == 0)
            j.rounds = (unsigned)strtoul(argv[at + 1], NULL, 10);
        else
            check(false, "an option that is not known");
    }
    check(argc - at == 2, "lanes [--seconds S] [--rounds N] FORMAT IMAGE");
    b.format = argv[at];
    b.image = argv[at + 1];
    check(host_open(NULL, &b.host) == 0, "no host");
    o.host = b.host;
    check(runtime_open(&o, &b.rt) == 0, "no runtime");
    runtime_run(b.rt, co_main, &j);
    runtime_close(b.rt);
    host_close(b.host);
    return 0;
}

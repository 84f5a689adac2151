/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rates.c - what arrays cost, members being files in the folder that is told: reads of levels
 * 0 and 1 beside a plain file, whole rows of 5 and 6 beside the same bytes written to the members
 * plainly, requests per small write, and filling a member beside reading the others and writing
 * one. Prints a line for each figure: name, measure, ours, the peer's, the goal of their ratio. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "block/fault.h"
#include "block/resolver.h"
#include "block/worker.h"
#include "raid/array.h"
#include "raid/create.h"
#include "raid/md.h"

#define MEMBERS 6
#define MEMBER  (130 * MiB)
#define ROUNDS  5
#define PIECE   MiB         /* of one member */
#define PART    (256 * KiB) /* of that: one request when a member is filled */
#define SMALL   500         /* writes of 4 KiB */

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

struct bench {
    struct blk_device *member[MEMBERS], *array;
    uint8_t *buf;
    unsigned disks; /* of the array */
};

struct cost {
    double seconds, cpu;
};

static struct cost now(void)
{
    struct timespec t;
    struct rusage u;
    clock_gettime(CLOCK_MONOTONIC, &t);
    getrusage(RUSAGE_SELF, &u);
    return (struct cost){t.tv_sec + t.tv_nsec / 1e9,
                         u.ru_utime.tv_sec + u.ru_stime.tv_sec +
                             (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6};
}

/* The best of some rounds, taken in turns with the other's. */
static struct cost best(struct cost a, struct cost start)
{
    struct cost end = now(), took = {end.seconds - start.seconds, end.cpu - start.cpu};
    if (a.seconds == 0)
        return took;
    return (struct cost){MIN(a.seconds, took.seconds), MIN(a.cpu, took.cpu)};
}

static void print(const char *name, const char *measure, double ours, double peer, const char *goal)
{
    printf("%s\t%s\t%.3f\t%.3f\t%s\n", name, measure, ours, peer, goal);
}

/* --- arrays ------------------------------------------------------------------------------------
 */

static void co_make(struct bench *b, int level, unsigned disks)
{
    struct blk_error e = {0};
    struct raid_created made;
    const struct raid_level *l = raid_level_by_number(level);
    struct raid_create c = {.level = l,
                            .layout = l->default_layout,
                            .disks = disks,
                            .chunk = l->has_chunk ? 512 * KiB : 0,
                            .data_offset = 2 * MiB,
                            .name = "bench",
                            .assume_clean = true,
                            .members = b->member,
                            .count = disks};
    must(co_raid_create(&c, &made, &e), e.text);
    b->disks = disks;
}

static void co_open(struct bench *b, bool counted)
{
    struct blk_child parts[MEMBERS];
    struct blk_error e = {0};
    for (unsigned i = 0; i < b->disks; i++) {
        struct blk_child file = {"file", blk_ref(b->member[i])};
        parts[i] = (struct blk_child){"member", file.dev};
        if (counted)
            must(co_blk_open(&fault_driver, "counted", NULL, BLK_OPEN_WRITE, NULL, &file, 1,
                             &parts[i].dev, &e),
                 e.text);
        if (counted)
            fault_set(parts[i].dev, NULL);
    }
    must(co_blk_open(&md_driver, "array", NULL, BLK_OPEN_WRITE, NULL, parts, b->disks, &b->array,
                     &e),
         e.text);
}

static void co_close(struct bench *b)
{
    must(co_blk_close(b->array, NULL), "closing the array");
}

/* --- reads -------------------------------------------------------------------------------------
 */

static void co_read_all(struct bench *b, struct blk_device *dev, uint64_t bytes)
{
    for (uint64_t at = 0; at + PIECE <= bytes; at += PIECE)
        must(co_blk_read_buf(dev, at, b->buf, PIECE), "reading");
}

static void co_reads(struct bench *b, int level, unsigned disks, const char *name)
{
    struct cost ours = {0}, plain = {0};
    co_make(b, level, disks);
    co_open(b, false);
    uint64_t bytes = MIN(b->array->size, MEMBER);
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct cost start = now();
        co_read_all(b, b->array, bytes);
        ours = best(ours, start);
        start = now();
        co_read_all(b, b->member[0], bytes);
        plain = best(plain, start);
    }
    print(name, "MB/s", bytes / 1e6 / ours.seconds, bytes / 1e6 / plain.seconds, "0.95");
    print(name, "CPU ms", ours.cpu * 1e3, plain.cpu * 1e3, "-1.2");
    co_close(b);
}

/* --- whole rows --------------------------------------------------------------------------------
 */

struct plain_job {
    struct bench *b;
    unsigned member;
    uint64_t at, bytes;
    bool read;
};

static int co_plain(void *arg)
{
    struct plain_job *j = arg;
    struct blk_device *dev = j->b->member[j->member];
    uint8_t *buf = j->b->buf + j->member * PIECE + j->at % PIECE;
    return j->read ? co_blk_read_buf(dev, j->at, buf, j->bytes)
                   : co_blk_write_buf(dev, j->at, buf, j->bytes, 0);
}

/* A piece at the same place of all members at once, in requests as long as the array's own: all are
 * written, or only the first and the others read. Each has memory of its own, as what an array
 * writes has. */
static void co_members(struct bench *b, uint64_t at, uint64_t part, bool others_are_read)
{
    struct plain_job jobs[MEMBERS * (PIECE / PART)];
    struct co_group g;
    co_group_init(&g, 0);
    for (unsigned i = 0; i < b->disks * (PIECE / part); i++) {
        jobs[i] = (struct plain_job){b, i % b->disks, at + i / b->disks * part, part,
                                     others_are_read && i % b->disks > 0};
        co_group_start(&g, co_plain, &jobs[i]);
    }
    must(co_group_wait(&g), "a member");
}

static void co_rows(struct bench *b, int level, unsigned disks, const char *name)
{
    struct cost ours = {0}, plain = {0};
    co_make(b, level, disks);
    co_open(b, false);
    const struct raid_array *a = b->array->state;
    uint64_t piece = PIECE * a->shape.data_disks, all = b->array->size / piece * piece;
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct cost start = now();
        for (uint64_t at = 0; at < all; at += piece)
            must(co_blk_write_buf(b->array, at, b->buf, piece, 0), "writing");
        ours = best(ours, start);
        start = now();
        for (uint64_t at = 0; at < all / a->shape.data_disks; at += PIECE)
            co_members(b, 2 * MiB + at, PIECE, false);
        plain = best(plain, start);
    }
    print(name, "MB/s", all / 1e6 / ours.seconds, all / 1e6 / plain.seconds, "0.7");
    print(name, "CPU ms", ours.cpu * 1e3, plain.cpu * 1e3, "");
    must(co_blk_write_buf(b->array, 0, b->buf, 512, 0), "writing");
    co_close(b);
}

/* --- small writes ------------------------------------------------------------------------------
 */

static double seen(const struct bench *b, enum fault_op op)
{
    const struct raid_array *a = b->array->state;
    uint64_t count = 0;
    for (unsigned i = 0; i < a->member_count; i++)
        count += fault_seen(a->members[i].dev, op);
    return (double)count;
}

static void co_small(struct bench *b, int level, unsigned disks, const char *name, double most)
{
    uint64_t random = 1;
    co_make(b, level, disks);
    co_open(b, true);
    must(co_blk_write_buf(b->array, 0, b->buf, 512, 0), "writing");
    double reads = seen(b, FAULT_READ), writes = seen(b, FAULT_WRITE);
    struct cost start = now();
    for (unsigned n = 0; n < SMALL; n++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        uint64_t at = (random >> 20) % (b->array->size / 4096) * 4096;
        must(co_blk_write_buf(b->array, at, b->buf, 4096, 0), "writing");
    }
    struct cost took = best((struct cost){0}, start);
    print(name, "reads", (seen(b, FAULT_READ) - reads) / SMALL, most, "-1");
    print(name, "writes, log's too", (seen(b, FAULT_WRITE) - writes) / SMALL, 2 * most - 1,
          "-1.02");
    print(name, "us each", took.seconds / SMALL * 1e6, 0, "");
    co_close(b);
}

/* --- filling a member --------------------------------------------------------------------------
 */

static void co_rebuild(struct bench *b, int level, unsigned disks, const char *name)
{
    struct cost ours = {0}, plain = {0};
    co_make(b, level, disks);
    co_open(b, false);
    struct raid_array *a = b->array->state;
    struct raid_member *m = a->by_role[0];
    uint64_t all = align_down(a->shape.member, 8 * MiB);
    m->state = MEMBER_REBUILDING;
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct cost start = now();
        for (uint64_t at = 0; at < all; at += 8 * MiB)
            must(a->engine->co_rebuild(a, m, at, 8 * MiB), "filling");
        ours = best(ours, start);
        start = now();
        for (uint64_t at = 0; at < all; at += PIECE)
            co_members(b, 2 * MiB + at, PART, true);
        plain = best(plain, start);
    }
    m->state = MEMBER_IN_SYNC;
    print(name, "MB/s", all / 1e6 / ours.seconds, all / 1e6 / plain.seconds, "0.7");
    co_close(b);
}

static int co_main(void *arg)
{
    struct bench b = {.buf = mem_aligned(MEMBERS * PIECE)};
    struct resolver r = {.host = worker_self()->host, .drivers = blk_drivers, .trust = TRUST_WRITE};
    struct blk_error e = {0};
    char path[4096];
    must(b.buf ? 0 : -ENOMEM, "memory");
    memset(b.buf, 0x5a, MEMBERS * PIECE);
    for (unsigned i = 0; i < MEMBERS; i++) {
        snprintf(path, sizeof(path), "%s/m%u.img", (const char *)arg, i);
        must(co_resolver_open_file(&r, path, BLK_OPEN_WRITE, HOST_CREATE, &b.member[i], &e),
             e.text);
        for (uint64_t at = 0; at < MEMBER; at += PIECE) /* no page is new when it counts */
            must(co_blk_write_buf(b.member[i], at, b.buf, PIECE, 0), path);
    }
    co_reads(&b, 0, 3, "RAID-0 reads, beside a file");
    co_reads(&b, 1, 2, "RAID-1 reads, beside a file");
    co_rows(&b, 5, 4, "RAID-5 whole rows, beside plain writes");
    co_rows(&b, 6, 6, "RAID-6 whole rows, beside plain writes");
    co_small(&b, 5, 4, "RAID-5 4 KiB at random", 2);
    co_small(&b, 6, 6, "RAID-6 4 KiB at random", 3);
    co_rebuild(&b, 5, 4, "RAID-5 member filled, beside plain copying");
    co_rebuild(&b, 6, 6, "RAID-6 member filled, beside plain copying");
    for (unsigned i = 0; i < MEMBERS; i++)
        must(co_blk_close(b.member[i], NULL), "closing");
    mem_free(b.buf);
    return 0;
}

int main(int argc, char **argv)
{
    struct host *host;
    struct runtime *rt;
    if (argc != 2) {
        fprintf(stderr, "usage: raid_rates FOLDER\n");
        return 2;
    }
    must(host_open(NULL, &host), "the host");
    must(runtime_open(&(struct runtime_options){.host = host}, &rt), "the runtime");
    int rc = runtime_run(rt, co_main, argv[1]);
    runtime_close(rt);
    host_close(host);
    return rc < 0;
}

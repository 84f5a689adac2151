/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep.c - who watches the watchmen: a toy format, right and broken in each of the classic ways.
 * The sweeps must pass the first and catch every other.
 *
 *   | map: le32 per 4 KiB block, 0: hole, n: block n of the file | block 1 | block 2 | ... */
#include <check.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sweep.h"

#define BLOCK  4096U
#define BLOCKS 48U

/* What is wrong with the driver. */
enum bug {
    RIGHT,
    PUBLISHES_FIRST, /* the map is written without the data being durable before */
    FORGETS_FLUSH,   /* the map is not durable when a flush returns */
    REUSES_EARLY,    /* a discarded block is given away before the map says so */
    MEMORY_FIRST,    /* the entry is in memory before the data; a retry never writes the map */
    ROLLS_BACK_HALF, /* after a failed write the place is free again but the entry stays */
    SWALLOWS_ERRORS, /* a flush that failed says it did not */
    LOSES_EDGES,     /* a partial write into a new block does not keep what was below */
    IGNORES_FUA,
    DROPS_SIZE_OF_TWO, /* of two writes in flight to new blocks one entry is lost */
    TRUSTS_CACHE,      /* reuses what an earlier process freed without making that durable */
    DIES_TORN,         /* a checksum over the whole map: a torn write makes it unreadable */
};
static enum bug bug;

struct toy {
    struct blk_device *file;
    uint32_t map[BLOCK / 4];
    uint32_t next;          /* never used from here on */
    uint32_t spare[BLOCKS]; /* may be reused */
    uint32_t freed[BLOCKS]; /* may be once the map is durable */
    unsigned spares, frees;
    bool dirty;
    int failed;
    struct co_mutex lock;
};

static uint32_t sum_of(const uint32_t *map)
{
    uint32_t sum = 1;
    for (unsigned i = 0; i < BLOCK / 4 - 1; i++)
        sum = sum * 31 + map[i];
    return sum;
}

/* What no entry points at may be used. */
static void find_space(struct toy *t)
{
    bool used[BLOCK / 4] = {false};
    for (unsigned i = 0; i < BLOCKS; i++) {
        used[t->map[i] % (BLOCK / 4)] = true;
        t->next = MAX(t->next, t->map[i]);
    }
    for (uint32_t place = 1; place <= t->next && t->spares < BLOCKS; place++)
        if (!used[place])
            t->spare[t->spares++] = place;
    t->next++;
}

static int co_toy_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct toy *t = calloc(1, sizeof(*t));
    t->file = blk_child(dev, "file");
    dev->state = t;
    dev->size = BLOCKS * BLOCK;
    dev->limits = (struct blk_limits){.request_align = 512,
                                      .memory_align = 1,
                                      .zero_align = 1,
                                      .fresh_reads_zero = true,
                                      .discard_reads_zero = true};
    int rc = co_blk_read_buf(t->file, 0, t->map, sizeof(t->map));
    /* What was read may be in the page cache only, if whoever wrote it died: what it says is free
     * is free once it is durable. */
    if (rc == 0 && bug != TRUSTS_CACHE)
        rc = co_blk_flush(t->file);
    if (rc == 0 && bug == DIES_TORN && t->map[BLOCK / 4 - 1] != sum_of(t->map))
        rc = err_set(e, -EINVAL, "the map's checksum is wrong");
    find_space(t);
    if (rc < 0)
        free(t);
    return rc;
}

/* The way of every flush: data, map, both durable. */
static int co_write_back(struct toy *t, bool flush)
{
    if (t->failed)
        return t->failed;
    unsigned frees = t->frees;
    int rc = 0;
    if (t->dirty) {
        uint32_t map[BLOCK / 4];
        memcpy(map, t->map, sizeof(map));
        map[BLOCK / 4 - 1] = bug == DIES_TORN ? sum_of(map) : 0;
        rc = bug == PUBLISHES_FIRST ? 0 : co_blk_flush(t->file);
        if (rc == 0)
            rc = co_blk_write_buf(t->file, 0, map, sizeof(map), 0);
        if (rc == 0 && bug != FORGETS_FLUSH)
            rc = co_blk_flush(t->file);
    } else if (flush) {
        rc = co_blk_flush(t->file);
    }
    if (rc < 0) {
        t->failed = bug == SWALLOWS_ERRORS ? 0 : rc;
        return t->failed;
    }
    t->dirty = false;
    memcpy(t->spare + t->spares, t->freed, frees * 4);
    t->spares += frees;
    t->frees = 0;
    return 0;
}

static int co_toy_flush(struct blk_device *dev)
{
    struct toy *t = dev->state;
    with_lock(&t->lock);
    return co_write_back(t, true);
}

static int co_toy_close(struct blk_device *dev, struct blk_error *e)
{
    struct toy *t = dev->state;
    int rc = co_write_back(t, false);
    free(t);
    return rc < 0 ? err_set(e, rc, "write back") : 0;
}

static int co_block_read(struct toy *t, uint32_t place, uint8_t *buf)
{
    memset(buf, 0, BLOCK);
    return place ? co_blk_read_buf(t->file, (uint64_t)place * BLOCK, buf, BLOCK) : 0;
}

/* A write into a block that has no place yet. Called with the lock held, but for one bug. */
static int co_block_new(struct toy *t, unsigned block, uint8_t *buf)
{
    bool reused = t->spares > 0;
    uint32_t place = reused ? t->spare[--t->spares] : t->next++;
    if (bug == MEMORY_FIRST || bug == ROLLS_BACK_HALF)
        t->map[block] = place;
    int rc = co_blk_write_buf(t->file, (uint64_t)place * BLOCK, buf, BLOCK, 0);
    if (rc < 0) {
        if (bug == MEMORY_FIRST)
            return rc;
        t->spare[t->spares++] = place; /* bug or not: what the entry says is the difference */
        return rc;
    }
    t->map[block] = place;
    t->dirty = true;
    return 0;
}

static int co_block_write(struct toy *t, unsigned block, uint32_t in, const struct vec *part)
{
    uint8_t *buf = aligned_alloc(4096, BLOCK);
    uint32_t place = t->map[block];
    int rc = place || bug == LOSES_EDGES ? 0 : co_block_read(t, 0, buf);
    if (bug == LOSES_EDGES)
        memset(buf, place ? 0 : 0x55, BLOCK);
    if (place)
        rc = co_blk_write(t->file, (uint64_t)place * BLOCK + in, part, 0);
    else if (rc == 0) {
        vec_to_buf(part, buf + in);
        rc = co_block_new(t, block, buf);
    }
    free(buf);
    return rc;
}

static int co_toy_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct toy *t = dev->state;
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < from->bytes;) {
        uint32_t in = (uint32_t)((offset + at) % BLOCK);
        uint64_t bytes = MIN(BLOCK - in, from->bytes - at);
        struct vec part = vec_slice(from, at, bytes);
        if (bug != DROPS_SIZE_OF_TWO)
            co_mutex_lock(&t->lock);
        if (t->failed)
            rc = t->failed;
        else
            rc = co_block_write(t, (unsigned)((offset + at) / BLOCK), in, &part);
        if (bug != DROPS_SIZE_OF_TWO)
            co_mutex_unlock(&t->lock);
        at += bytes;
    }
    return rc;
}

static int co_toy_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct toy *t = dev->state;
    for (uint64_t at = 0; at < to->bytes;) {
        uint32_t in = (uint32_t)((offset + at) % BLOCK);
        uint64_t bytes = MIN(BLOCK - in, to->bytes - at);
        struct vec part = vec_slice(to, at, bytes);
        uint8_t *buf = aligned_alloc(4096, BLOCK);
        co_mutex_lock(&t->lock);
        int rc = co_block_read(t, t->map[(offset + at) / BLOCK], buf);
        co_mutex_unlock(&t->lock);
        if (rc == 0)
            vec_from_buf(&part, buf + in);
        free(buf);
        TRY(rc);
        at += bytes;
    }
    return 0;
}

static int co_toy_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct toy *t = dev->state;
    with_lock(&t->lock);
    for (uint64_t b = div_up(offset, BLOCK); b < (offset + bytes) / BLOCK; b++) {
        if (!t->map[b])
            continue;
        if (bug == REUSES_EARLY)
            t->spare[t->spares++] = t->map[b];
        else
            t->freed[t->frees++] = t->map[b];
        t->map[b] = 0;
        t->dirty = true;
    }
    return 0;
}

static int co_toy_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    const struct toy *t = dev->state;
    uint64_t left = BLOCK - offset % BLOCK;
    bool there = t->map[offset / BLOCK];
    *out = (struct blk_extent){.flags = there ? BLK_EXT_DATA | BLK_EXT_ALLOCATED : BLK_EXT_ZERO,
                               .bytes = MIN(left, bytes)};
    return 0;
}

static int co_toy_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    const struct toy *t = dev->state;
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned j = 0; j < i; j++)
            c->corruptions += t->map[i] && t->map[i] == t->map[j];
    return 0;
}

static const struct blk_driver toy = {
    .name = "toy",
    .co_open = co_toy_open,
    .co_close = co_toy_close,
    .co_read = co_toy_read,
    .co_write = co_toy_write,
    .co_discard = co_toy_discard,
    .co_flush = co_toy_flush,
    .co_map = co_toy_map,
    .co_check = co_toy_check,
};
static struct blk_driver toy_with_fua;

/* --- the subject
 * ---------------------------------------------------------------------------------- */

static int co_make(struct sweep_run *run, struct blk_error *e)
{
    struct blk_device *file;
    uint32_t map[BLOCK / 4] = {0};
    if (bug == DIES_TORN)
        map[BLOCK / 4 - 1] = sum_of(map);
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, HOST_CREATE, &file, e));
    int rc = co_blk_write_buf(file, 0, map, sizeof(map), BLK_FUA);
    int closed = co_blk_close(file, e);
    return rc < 0 ? rc : closed;
}

static int co_open_toy(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_child child = {.role = "file"};
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, &child.dev, e));
    toy_with_fua = toy;
    toy_with_fua.handles_fua = true;
    return co_blk_open(bug == IGNORES_FUA ? &toy_with_fua : &toy, "toy", NULL, BLK_OPEN_WRITE, NULL,
                       &child, 1, out, e);
}

static const struct sweep_profile profile = {.write = 30,
                                             .fua = 4,
                                             .discard = 12,
                                             .read = 10,
                                             .flush = 8,
                                             .reopen = 2,
                                             .kill = 3,
                                             .max_bytes = 16384,
                                             .hot = 6};
static const struct sweep_subject subject = {
    .name = "toy",
    .size = BLOCKS * BLOCK,
    .profile = &profile,
    .co_create = co_make,
    .co_open = co_open_toy,
};

static const struct sweep_profile dying = {
    .write = 20, .discard = 8, .flush = 16, .kill = 6, .max_bytes = 8192};
static const struct sweep_subject dying_subject = {
    .name = "toy",
    .size = BLOCKS * BLOCK,
    .profile = &dying,
    .ops = 300,
    .co_create = co_make,
    .co_open = co_open_toy,
};

static struct sweep_result judge(enum bug which, unsigned ops, uint64_t faults, uint64_t states)
{
    struct sweep_budget b = {
        .seeds = 3, .model_ops = ops, .fault_points = faults, .crash_states = states};
    struct sweep_result r;
    bug = which;
    sweep_row("toy", which == TRUSTS_CACHE ? &dying_subject : &subject, &b, &r);
    return r;
}

START_TEST(a_right_driver_passes)
{
    struct sweep_result r = judge(RIGHT, 300, 600, 1500);
    ck_assert_msg(!r.failed, "%s", r.first);
    ck_assert_uint_gt(r.fault_points, 250);
    ck_assert_uint_gt(r.crash_states, 1000);
    ck_assert_uint_gt(r.model_ops, 800);
}
END_TEST

struct expectation {
    enum bug bug;
    const char *by; /* what the replay line must name */
};
static const struct expectation crashes[] = {
    {PUBLISHES_FIRST, "--cut"}, {FORGETS_FLUSH, "--cut"}, {REUSES_EARLY, "--cut"},
    {IGNORES_FUA, "--cut"},     {DIES_TORN, "--cut"},     {TRUSTS_CACHE, "--cut"},
};
static const struct expectation faults[] = {
    {MEMORY_FIRST, "--fault"},
    {ROLLS_BACK_HALF, "--fault"},
    {SWALLOWS_ERRORS, "--fault"},
};
static const struct expectation runs[] = {
    {LOSES_EDGES, "--model"},
    {DROPS_SIZE_OF_TWO, "--model"},
};

START_TEST(crash_sweep_catches)
{
    struct sweep_result r = judge(crashes[_i].bug, 0, 0, 9000);
    ck_assert_msg(r.failed, "bug %d was not caught", crashes[_i].bug);
    ck_assert_msg(strstr(r.first, crashes[_i].by), "%s", r.first);
}
END_TEST

START_TEST(fault_sweep_catches)
{
    struct sweep_result r = judge(faults[_i].bug, 0, 1200, 0);
    ck_assert_msg(r.failed, "bug %d was not caught", faults[_i].bug);
    ck_assert_msg(strstr(r.first, faults[_i].by), "%s", r.first);
}
END_TEST

START_TEST(model_test_catches)
{
    struct sweep_result r = judge(runs[_i].bug, 300, 0, 0);
    ck_assert_msg(r.failed, "bug %d was not caught", runs[_i].bug);
    ck_assert_msg(strstr(r.first, runs[_i].by), "%s", r.first);
}
END_TEST

/* The line that a failure prints leads to the same failure. */
START_TEST(failures_replay)
{
    static const struct sweep_subject rows[] = {
        {.name = "toy",
         .size = BLOCKS * BLOCK,
         .profile = &profile,
         .co_create = co_make,
         .co_open = co_open_toy},
        {0},
    };
    const enum bug which[] = {FORGETS_FLUSH, MEMORY_FIRST};
    struct sweep_result r = judge(which[_i], 0, 1200, 1500);
    char *line = strstr(r.first, "replay: "), *argv[16];
    int argc = 0;
    ck_assert_ptr_nonnull(line);
    optind = 1;
    for (char *word = strtok(line + 8, " \n"); word && argc < 15; word = strtok(NULL, " \n"))
        argv[argc++] = word;
    argv[argc] = NULL;
    ck_assert_int_eq(sweep_main(argc, argv, rows, 1, 1), 1);
    bug = RIGHT;
    optind = 1;
    ck_assert_int_eq(sweep_main(argc, argv, rows, 1, 1), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sweep");
    TCase *t = tcase_create("toys");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, a_right_driver_passes);
    tcase_add_loop_test(t, crash_sweep_catches, 0, (int)ARRAY_LEN(crashes));
    tcase_add_loop_test(t, fault_sweep_catches, 0, (int)ARRAY_LEN(faults));
    tcase_add_loop_test(t, model_test_catches, 0, (int)ARRAY_LEN(runs));
    tcase_add_loop_test(t, failures_replay, 0, 2);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

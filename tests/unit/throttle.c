/* SPDX-License-Identifier: BSD-3-Clause */
/* throttle.c - the throttle layer in virtual time: what it lets through, when, and in which order.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/host_sim.h"
#include "tests/lib/on_host.h"

#define DISK   (64 * MiB)
#define SECOND 1000000000.0

struct load {
    struct blk_device *dev;
    const char *options;
    unsigned requests, reads; /* of each kind; reads go beside the others */
    uint64_t bytes;           /* of each */
    int (*op)(struct blk_device *dev, uint64_t bytes);
};

static uint8_t buffer[2 * MiB];

static int co_do_read(struct blk_device *dev, uint64_t bytes)
{
    return co_blk_read_buf(dev, 4096, buffer, bytes);
}
static int co_do_write(struct blk_device *dev, uint64_t bytes)
{
    return co_blk_write_buf(dev, 4096, buffer, bytes, 0);
}
static int co_do_zero(struct blk_device *dev, uint64_t bytes)
{
    return co_blk_write_zeroes(dev, 4096, bytes, 0);
}
static int co_do_discard(struct blk_device *dev, uint64_t bytes)
{
    return co_blk_discard(dev, 4096, bytes);
}
static int co_do_flush(struct blk_device *dev, uint64_t bytes)
{
    return co_blk_flush(dev);
}

static struct blk_device *co_throttled(const char *options)
{
    char text[64];
    snprintf(text, sizeof(text), "size=%" PRIu64, (uint64_t)DISK);
    return co_open_text(&throttle_driver, options, co_open_text(&mem_driver, text, NULL));
}

struct one {
    struct load *load;
    int (*op)(struct blk_device *dev, uint64_t bytes);
};

static int co_one(void *arg)
{
    struct one *o = arg;
    return o->op(o->load->dev, o->load->bytes);
}

/* Virtual seconds, in thousandths, that the load takes with all of it in flight. */
static int co_load(void *arg)
{
    struct load *l = arg;
    struct co_group g;
    struct one main = {l, l->op}, read = {l, co_do_read};
    l->dev = co_throttled(l->options);
    co_group_init(&g, 0);
    uint64_t start = worker_now();
    for (unsigned i = 0; i < MAX(l->requests, l->reads); i++) {
        if (i < l->requests)
            co_group_start(&g, co_one, &main);
        if (i < l->reads)
            co_group_start(&g, co_one, &read);
    }
    int rc = co_group_wait(&g);
    uint64_t took = worker_now() - start;
    co_close_ok(l->dev);
    return rc < 0 ? rc : (int)((double)took / SECOND * 1000 + 0.5);
}

static int in_simulator(int (*fn)(void *), void *arg)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1}, &h), 0);
    int rc = on_this_host(h, fn, arg);
    host_close(h);
    return rc;
}

/* Ten of a tenth of a second's worth pass at once, and the one that overflows. */
static const struct timing {
    struct load load;
    int thousandths; /* expected */
} timings[] = {
    {{.options = "iops-total=100", .requests = 11, .bytes = 512, .op = co_do_read}, 0},
    {{.options = "iops-total=100", .requests = 12, .bytes = 512, .op = co_do_read}, 10},
    {{.options = "iops-total=100", .requests = 111, .bytes = 512, .op = co_do_write}, 1000},
    {{.options = "iops-total=100", .requests = 111, .bytes = 4096, .op = co_do_zero}, 1000},
    {{.options = "iops-total=100", .requests = 111, .bytes = 4096, .op = co_do_discard}, 1000},
    {{.options = "iops-total=100", .requests = 111, .op = co_do_flush}, 0},
    {{.options = "iops-read=100", .requests = 111, .bytes = 512, .op = co_do_read}, 1000},
    {{.options = "iops-read=100", .requests = 111, .bytes = 512, .op = co_do_write}, 0},
    {{.options = "iops-write=100", .requests = 111, .bytes = 512, .op = co_do_read}, 0},
    {{.options = "iops-write=100", .requests = 111, .bytes = 512, .op = co_do_discard}, 1000},
    /* both directions share a total, and have each their own otherwise */
    {{.options = "iops-total=100", .requests = 60, .reads = 51, .bytes = 512, .op = co_do_write},
     1000},
    {{.options = "iops-read=100,iops-write=100",
      .requests = 111,
      .reads = 111,
      .bytes = 512,
      .op = co_do_write},
     1000},
    /* a request of a mebibyte passes, and what follows waits for it */
    {{.options = "bps-total=1M", .requests = 1, .bytes = MiB, .op = co_do_read}, 0},
    {{.options = "bps-total=1M", .requests = 11, .bytes = MiB, .op = co_do_read}, 9900},
    {{.options = "bps-read=1M", .requests = 11, .bytes = MiB, .op = co_do_write}, 0},
    {{.options = "bps-write=1M", .requests = 3, .bytes = 2 * MiB, .op = co_do_write}, 3900},
    {{.options = "iops-total=100,bps-total=1M", .requests = 11, .bytes = MiB, .op = co_do_read},
     9900},
    /* requests larger than iops-size count as several */
    {{.options = "iops-total=100,iops-size=4k", .requests = 12, .bytes = 4096, .op = co_do_read},
     10},
    {{.options = "iops-total=100,iops-size=4k", .requests = 11, .bytes = 40960, .op = co_do_read},
     900},
    /* a burst all at once; then one at a rate of its own; then the ordinary rate */
    {{.options = "iops-total=100,iops-total-max=300",
      .requests = 301,
      .bytes = 512,
      .op = co_do_read},
     0},
    {{.options = "iops-total=100,iops-total-max=300",
      .requests = 401,
      .bytes = 512,
      .op = co_do_read},
     1000},
    {{.options = "iops-total=100,iops-total-max=300,iops-total-max-length=2",
      .requests = 31 + 300,
      .bytes = 512,
      .op = co_do_read},
     1000},
    /* the brim, 600, is reached at 300 - 100 a second after 2.85 s, 31 having come at once */
    {{.options = "iops-total=100,iops-total-max=300,iops-total-max-length=2",
      .requests = 31 + 855 + 100,
      .bytes = 512,
      .op = co_do_read},
     3850},
};

START_TEST(requests_pass_in_time)
{
    struct load l = timings[_i].load;
    int took = in_simulator(co_load, &l);
    int slack = 2 + timings[_i].thousandths / 100; /* the simulated disk takes its time as well */
    ck_assert_msg(took >= timings[_i].thousandths - 1 && took <= timings[_i].thousandths + slack,
                  "%s: %d ms, not %d", l.options, took, timings[_i].thousandths);
}
END_TEST

struct numbered {
    struct blk_device *dev;
    unsigned number, *next;
};

static int co_numbered(void *arg)
{
    struct numbered *n = arg;
    int rc = co_do_read(n->dev, 512);
    must(*n->next == n->number);
    ++*n->next;
    return rc;
}

static int co_order(void *arg)
{
    struct numbered all[40];
    struct co_group g;
    unsigned next = 0;
    struct blk_device *dev = co_throttled("iops-total=50");
    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        all[i] = (struct numbered){dev, i, &next};
        co_group_start(&g, co_numbered, &all[i]);
    }
    int rc = co_group_wait(&g);
    co_close_ok(dev);
    return rc;
}

START_TEST(nobody_overtakes)
{
    ck_assert_int_eq(in_simulator(co_order, NULL), 0);
}
END_TEST

/* Idle time is not saved up beyond the brim. */
static int co_idle(void *arg)
{
    struct blk_device *dev = co_throttled("iops-total=100");
    for (unsigned i = 0; i < 11; i++)
        TRY(co_do_read(dev, 512));
    co_sleep((uint64_t)(100 * SECOND));
    uint64_t start = worker_now();
    for (unsigned i = 0; i < 61; i++)
        TRY(co_do_read(dev, 512));
    uint64_t took = worker_now() - start;
    co_close_ok(dev);
    return (int)((double)took / SECOND * 1000 + 0.5);
}

START_TEST(idle_time_is_not_saved_up)
{
    int took = in_simulator(co_idle, NULL);
    ck_assert_int_ge(took, 490);
    ck_assert_int_le(took, 520);
}
END_TEST

static int co_place(void *arg)
{
    struct blk_device *dev = co_throttled("iops-total=1000");
    struct blk_place place;
    struct blk_extent ext;
    uint8_t out[100], in[100];
    memset(out, 0x42, sizeof(out));
    ck_assert(!blk_resolve(dev, 0, 4096, false, &place));
    ck_assert(!blk_resolve(dev, 0, 4096, true, &place));
    ck_assert_uint_eq(dev->size, DISK);
    TRY(co_blk_write_buf(dev, 777, out, sizeof(out), BLK_FUA));
    TRY(co_blk_read_buf(dev, 777, in, sizeof(in)));
    ck_assert_mem_eq(in, out, sizeof(in));
    TRY(co_blk_map(dev, 0, DISK, &ext));
    ck_assert(ext.flags & BLK_EXT_RECURSE);
    TRY(co_blk_resize(dev, DISK / 2, true, NULL));
    ck_assert_uint_eq(dev->size, DISK / 2);
    co_close_ok(dev);
    return 0;
}

START_TEST(nothing_goes_round_it)
{
    ck_assert_int_eq(in_simulator(co_place, NULL), 0);
}
END_TEST

static const struct {
    const char *options, *word;
} refused[] = {
    {"iops-total-max=10", "iops-total-max needs iops-total"},
    {"bps-read=100,bps-read-max=99", "lower than bps-read"},
    {"bps-write=100,bps-write-max-length=2", "needs bps-write-max"},
    {"iops-total=5,iops-read=5", "cannot be used together"},
    {"bps-total=5,bps-write=5", "cannot be used together"},
    {"iops-total=1,iops-total-max=100000000000000,iops-total-max-length=4000000000", "too much"},
    {"iops-total=-1", "iops-total"},
    {"iops-total=1000000000000001", "iops-total"},
    {"iops-total=1,iops-total-max=2,iops-total-max-length=0", "length"},
    {"iops=5", "iops"},
};

static int co_refused(void *arg)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct blk_error e = {0};
        struct blk_device *dev = NULL;
        struct blk_device *mem = co_open_text(&mem_driver, "size=1M", NULL);
        ck_assert_int_lt(
            co_try_open_text(&throttle_driver, refused[i].options, BLK_OPEN_WRITE, mem, &dev, &e),
            0);
        ck_assert_msg(strstr(e.text, refused[i].word), "%s: %s", refused[i].options, e.text);
    }
    return 0;
}

START_TEST(contradictions_are_refused)
{
    ck_assert_int_eq(in_simulator(co_refused, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("throttle");
    TCase *tc = tcase_create("throttle");
    tcase_add_loop_test(tc, requests_pass_in_time, 0, ARRAY_LEN(timings));
    tcase_add_test(tc, nobody_overtakes);
    tcase_add_test(tc, idle_time_is_not_saved_up);
    tcase_add_test(tc, nothing_goes_round_it);
    tcase_add_test(tc, contradictions_are_refused);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

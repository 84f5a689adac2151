/* SPDX-License-Identifier: BSD-3-Clause */
/* live_bitmaps.c - dirty bitmaps go along when another image becomes the device, though any one
 * call on either image's file may fail meanwhile: then a snapshot, a mirror or a commit says so and
 * the device is the one that it was, or it ends well; no bitmap says less than was changed, the
 * next write succeeds, and so does the same work once more. */
#include <check.h>

#include "block/fault.h"
#include "block/host_sim.h"
#include "block/live.h"
#include "imgfmt/qcow2.h"
#include "tests/lib/on_host.h"

#define BLOCK 65536u /* what a bit of the bitmaps stands for, too */
#define SIZE  (64ULL * BLOCK)
#define CALLS 10000u /* more than any of these makes */

enum work { SNAPSHOT, MIRROR, COMMIT, WORKS };

/* An image whose file can be made to fail, and outlives it. */
struct image {
    struct blk_device *mem, *fault;
};

struct world {
    enum work work;
    struct blk_device *seat;
    struct image first, second; /* the device, and what is to become it */
    struct blk_device *next;    /* the second, open */
    unsigned written;           /* blocks from the first on */
};

static void make_image(struct image *i, const char *options)
{
    i->mem = co_open_text(&mem_driver, "size=0", NULL);
    i->fault = co_open_text(&fault_driver, "op=all,nth=1,times=0,errno=none", blk_ref(i->mem));
    co_create_text(&qcow2_driver, options, i->fault, SIZE);
}

/* With what it stands on, it is opened without that. */
static struct blk_device *co_open_image(const struct image *i)
{
    struct blk_error e = {0};
    struct blk_device *dev;

    must(co_try_open_text(&qcow2_driver, "", BLK_OPEN_WRITE | BLK_OPEN_NO_BACKING,
                          blk_ref(i->fault), &dev, &e) == 0);
    return dev;
}

static void drop_image(struct image *i)
{
    co_close_ok(i->fault);
    co_close_ok(i->mem);
}

static void co_make_second(struct world *w)
{
    make_image(&w->second, w->work == MIRROR ? "" : "backing_file=first,backing_fmt=qcow2");
    w->next = co_open_image(&w->second);
}

/* --- what is done ----------------------------------------------------------------------------- */

static int co_nothing(struct job *j, struct blk_error *e)
{
    return 0;
}

static int co_snapshot(struct world *w, struct blk_error *e)
{
    struct live_overlay o = {.seat = w->seat, .image = w->next};

    return co_live_overlay(&o, 1, e);
}

static int co_mirror(struct world *w, struct job *job, struct blk_error *e)
{
    struct live_mirror m = {.seat = w->seat, .target = w->next, .blank = true, .job = job};

    return co_live_mirror(&m, e);
}

static int co_work(struct world *w, struct blk_error *e)
{
    struct job job;

    job_init(&job, "work", co_nothing, NULL);
    return w->work == SNAPSHOT ? co_snapshot(w, e)
           : w->work == MIRROR ? co_mirror(w, &job, e)
                               : co_live_commit(w->seat, false, &job, e);
}

/* --- what has to be so ------------------------------------------------------------------------ */

static int co_try_write(struct world *w)
{
    uint8_t *data = mem_alloc(BLOCK);

    must(data);
    memset(data, (int)w->written + 1, BLOCK);
    int rc = co_blk_write_buf(w->seat, (uint64_t)w->written * BLOCK, data, BLOCK, 0);
    mem_free(data);
    w->written += rc == 0;
    return rc;
}

static void co_write_next(struct world *w)
{
    must(co_try_write(w) == 0);
}

static void co_shows_what_was_written(const struct world *w)
{
    uint8_t byte;

    for (unsigned i = 0; i < w->written; i++) {
        must(co_blk_read_buf(w->seat, (i + 1) * BLOCK - 1, &byte, 1) == 0);
        must(byte == i + 1);
    }
}

/* "early" was made before the first block was written, "late" after the second. */
static void co_bitmaps_say_so(struct blk_device *dev, unsigned written)
{
    struct blk_bitmap_extent x;
    struct blk_error e = {0};

    for (unsigned i = 0; i <= written; i++) {
        must(co_blk_bitmap_read(dev, "early", (uint64_t)i * BLOCK, 1, &x, &e) == 0);
        must(x.dirty == (i < written));
        must(co_blk_bitmap_read(dev, "late", (uint64_t)i * BLOCK, 1, &x, &e) == 0);
        must(x.dirty == (i >= 2 && i < written));
    }
}

static void co_add(struct world *w, const char *name)
{
    struct blk_bitmap_change add = {.action = BLK_BITMAP_ADD, .name = name, .granularity = BLOCK};
    struct blk_error e = {0};

    must(co_blk_bitmap_change(w->seat, &add, &e) == 0);
}

/* --- all of it -------------------------------------------------------------------------------- */

static void co_open_world(struct world *w)
{
    struct blk_error e = {0};

    make_image(&w->first, "");
    must(co_seat_put(co_open_image(&w->first), &w->seat, &e) == 0);
    co_add(w, "early");
    co_write_next(w);
    co_write_next(w);
    co_add(w, "late");
    co_write_next(w);
    co_make_second(w);
    if (w->work == COMMIT) { /* then the second is what is left, and the first what is to become */
        must(co_snapshot(w, &e) == 0);
        co_write_next(w);
    }
}

/* Closed, the image that is the device now has stored them. @lost: what is below it has an error
 * that it keeps telling. */
static void co_close_world(struct world *w, bool second, bool lost)
{
    struct blk_device *dev;
    int rc = co_blk_close(w->seat, NULL);

    must(rc == 0 || lost);
    dev = co_open_image(second ? &w->second : &w->first);
    co_bitmaps_say_so(dev, w->written);
    co_close_ok(dev);
    drop_image(&w->first);
    drop_image(&w->second);
}

/* A write of the device's own tables that failed is an error of the disk, which it keeps telling:
 * nothing more can be asked of it. True if it is so. */
static bool co_disk_is_lost(struct world *w, bool own_write)
{
    if (!own_write || co_try_write(w) == 0)
        return false;
    co_blk_close(w->seat, NULL);
    drop_image(&w->first);
    drop_image(&w->second);
    return true;
}

/* The @nth call on the file of one of the two fails. True if there was none. */
static bool co_one(enum work work, bool on_second, enum fault_op op, unsigned nth)
{
    struct world w = {.work = work};
    const struct fault_rule rule = {.op = op, .nth = nth, .times = 1, .rc = -EIO};
    struct blk_error e = {0};
    bool fired;

    co_open_world(&w);
    struct blk_device *before = seat_device(w.seat);
    struct blk_device *fault = on_second ? w.second.fault : w.first.fault;
    uint64_t fired_before = fault_fired(fault);
    fault_set(fault, &rule);
    int rc = co_work(&w, &e);
    fired = fault_fired(fault) > fired_before;
    fault_set(fault, NULL);
    must(fired || rc == 0);
    must(rc == 0 || (seat_device(w.seat) == before && e.text[0]));
    co_bitmaps_say_so(w.seat, w.written);
    if (co_disk_is_lost(&w, rc < 0 && op == FAULT_WRITE && on_second == (work == COMMIT)))
        return false;
    co_write_next(&w);
    co_shows_what_was_written(&w);
    if (rc < 0) {
        if (work != COMMIT) {
            drop_image(&w.second);
            co_make_second(&w);
        }
        e = (struct blk_error){0};
        rc = co_work(&w, &e);
        must(rc == 0 || (work == COMMIT && op == FAULT_WRITE)); /* what is below keeps its error */
        co_write_next(&w);
        co_shows_what_was_written(&w);
    }
    co_bitmaps_say_so(w.seat, w.written);
    co_close_world(&w, (work != COMMIT) == (rc == 0), rc < 0);
    return !fired;
}

static int co_all(void *arg)
{
    static const enum fault_op ops[] = {FAULT_READ, FAULT_WRITE};
    enum work work = *(const enum work *)arg;

    for (unsigned second = 0; second < 2; second++)
        for (unsigned op = 0; op < ARRAY_LEN(ops); op++) {
            unsigned nth = 1;

            while (!co_one(work, second, ops[op], nth))
                must(++nth < CALLS);
            must(nth > 1); /* some did fail */
        }
    return 0;
}

START_TEST(a_fault_on_the_way_loses_no_bitmap)
{
    const struct sim_options s = {.seed = 3};
    enum work work = (enum work)_i;
    struct host *host;

    must(host_sim_open(&s, &host) == 0);
    ck_assert_int_eq(on_this_host(host, co_all, &work), 0);
    host_close(host);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("live_bitmaps");
    TCase *t = tcase_create("all");
    SRunner *r = srunner_create(s);

    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, a_fault_on_the_way_loses_no_bitmap, 0, WORKS);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

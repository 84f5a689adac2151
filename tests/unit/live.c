/* SPDX-License-Identifier: BSD-3-Clause */
/* live.c - work on a device while clients write to it: what a past shows is of one instant and
 * stays so, a mirror ends with the same on both sides or leaves everything alone, bitmaps say what
 * changed since the last backup that ended well. On a simulated host; the device lives on another
 * worker than those who use it. */
#include <check.h>

#include "block/fault.h"
#include "block/host_sim.h"
#include "block/live.h"
#include "imgfmt/qcow2.h"
#include "tests/lib/on_host.h"

#define BLOCK   4096u
#define BLOCKS  261u /* not whole granules */
#define SIZE    ((uint64_t)BLOCKS * BLOCK)
#define WRITERS 3u
#define OPS     20000u

/* --- a device with writers ----------------------------------------------------------------------
 */

struct done {
    uint32_t block;
    bool zero;
};
/* Each has blocks of its own, between those of the others, and does one thing after the other; the
 * n-th writes the number n. */
struct writer {
    struct world *world;
    struct done done[OPS];
    uint32_t started, ended;
    unsigned index;
};
struct world {
    struct runtime *rt;
    struct worker *home;
    struct blk_device *seat;
    struct writer writers[WRITERS];
    uint64_t random;
    bool stop;
    unsigned running;
    struct co_queue ended;
    struct blk_error e;
};

static void fill(uint64_t *to, uint64_t number)
{
    for (size_t i = 0; i < BLOCK / 8; i++)
        to[i] = number;
}

static void co_write_one(struct writer *w, uint64_t *buf)
{
    struct world *world = w->world;
    uint64_t random = next_random(&world->random);
    unsigned mine = (BLOCKS - w->index + WRITERS - 1) / WRITERS;
    struct done *d = &w->done[w->started];
    d->block = (uint32_t)(random % mine) * WRITERS + w->index;
    d->zero = random >> 40 & 1;
    uint64_t at = (uint64_t)d->block * BLOCK;
    fill(buf, ++w->started);
    int rc = !d->zero
                 ? co_blk_write_buf(world->seat, at, buf, BLOCK, random >> 41 & 1 ? BLK_FUA : 0)
             : random >> 42 & 1 ? co_blk_discard(world->seat, at, BLOCK)
                                : co_blk_write_zeroes(world->seat, at, BLOCK, BLK_MAY_UNMAP);
    must(rc == 0);
    w->ended++;
}

static void co_writer(void *arg)
{
    struct writer *w = arg;
    uint64_t *buf = mem_alloc(BLOCK);
    while (!w->world->stop && w->started < OPS) {
        co_write_one(w, buf);
        if (next_random(&w->world->random) % 8 == 0)
            co_sleep(next_random(&w->world->random) % 2000000);
        if (next_random(&w->world->random) % 64 == 0)
            must(co_blk_flush(w->world->seat) == 0);
    }
    mem_free(buf);
    w->world->running--;
    co_queue_wake_all(&w->world->ended);
}

/* A layer that takes its time to say where data lies. */
static int co_dawdle_open(struct blk_device *dev, const struct opts *opts,
                          struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    return 0;
}

static bool dawdle_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    *out = (struct blk_place){.child = dev->children[0].dev, .offset = offset, .bytes = bytes};
    return true;
}

static int co_dawdle_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                         struct blk_extent *out)
{
    co_sleep(100000);
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = MIN(bytes, 128 * KiB),
                               .child = dev->children[0].dev,
                               .child_offset = offset};
    return 0;
}

static const struct blk_driver dawdle_driver = {
    .name = "dawdle",
    .title = "asks slowly",
    .is_filter = true,
    .co_open = co_dawdle_open,
    .resolve = dawdle_resolve,
    .co_map = co_dawdle_map,
};

/* Requests take some time each; *fault: what may let them fail. */
static struct blk_device *co_slow_mem(struct blk_device **fault)
{
    char text[64];
    snprintf(text, sizeof(text), "size=%" PRIu64, SIZE);
    *fault = co_open_text(&fault_driver, "op=all,nth=1,times=0,errno=none,delay=50000",
                          co_open_text(&mem_driver, text, NULL));
    return co_open_text(&dawdle_driver, "", *fault);
}

static int co_open_world(void *arg)
{
    struct world *w = arg;
    struct blk_device *fault;
    must(co_seat_put(co_slow_mem(&fault), &w->seat, &w->e) == 0);
    return 0;
}

static void co_begin(struct world *w, struct runtime *rt, uint64_t seed)
{
    *w = (struct world){.rt = rt, .home = runtime_worker(rt, 1), .random = seed};
    co_on(w->home, co_open_world, w);
}

static void start_writers(struct world *w)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        w->writers[i].world = w;
        w->writers[i].index = i;
        w->running++;
        must(co_start_later(co_writer, &w->writers[i]) == 0);
    }
}

static void co_stop_writers(struct world *w)
{
    w->stop = true;
    while (w->running)
        co_queue_wait(&w->ended);
}

/* --- what a device shows ------------------------------------------------------------------------
 */

struct shown {
    uint64_t blocks[BLOCKS];
};

static void co_look(struct blk_device *dev, struct shown *s)
{
    uint64_t *buf = mem_alloc(SIZE);
    must(co_blk_read_buf(dev, 0, buf, SIZE) == 0);
    for (unsigned b = 0; b < BLOCKS; b++) {
        s->blocks[b] = buf[b * BLOCK / 8];
        for (unsigned i = 1; i < BLOCK / 8; i++)
            must(buf[b * BLOCK / 8 + i] == s->blocks[b]);
    }
    mem_free(buf);
}

/* What one writer's blocks show after its first @n. */
static bool shows(const struct writer *w, uint32_t n, const struct shown *s)
{
    uint64_t model[BLOCKS] = {0};
    for (uint32_t i = 0; i < n; i++)
        model[w->done[i].block] = w->done[i].zero ? 0 : i + 1;
    for (unsigned b = w->index; b < BLOCKS; b += WRITERS)
        if (s->blocks[b] != model[b])
            return false;
    return true;
}

/* Of some instant when each writer had done between from[] and to[]. */
static bool is_instant(const struct world *w, const struct shown *s, const uint32_t *from,
                       const uint32_t *to)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        uint32_t n = from[i];
        while (n <= to[i] && !shows(&w->writers[i], n, s))
            n++;
        if (n > to[i])
            return false;
    }
    return true;
}

static void counts(const struct world *w, bool started, uint32_t *to)
{
    for (unsigned i = 0; i < WRITERS; i++)
        to[i] = started ? w->writers[i].started : w->writers[i].ended;
}

static bool is_now(const struct world *w, const struct shown *s)
{
    uint32_t n[WRITERS];
    counts(w, false, n);
    return is_instant(w, s, n, n);
}

/* Nobody writes any more, and what is there is what was written last. */
static void co_end(struct world *w)
{
    struct shown last;
    co_stop_writers(w);
    co_look(w->seat, &last);
    must(is_now(w, &last));
    co_close_ok(w->seat);
}

/* --- pasts --------------------------------------------------------------------------------------
 */

struct opening {
    struct blk_device *dev, *fault;
};

static int co_open_store(void *arg)
{
    struct opening *o = arg;
    o->dev = co_slow_mem(&o->fault);
    return 0;
}

/* *fault may be set to fail; NULL: no matter. */
static struct blk_device *co_store(struct world *w, struct blk_device **fault)
{
    struct opening o;
    co_on(w->home, co_open_store, &o);
    if (fault)
        *fault = o.fault;
    return o.dev;
}

static int co_no_job(struct job *j, struct blk_error *e)
{
    return 0;
}

static void co_past_is_stable(struct world *w, bool copy)
{
    uint32_t from[WRITERS], to[WRITERS];
    struct live_past *p;
    struct blk_device *dev;
    struct shown first, later;
    struct job job;
    const struct live_past_options o = {.seat = w->seat, .store = co_store(w, NULL), .blank = true};
    job_init(&job, "backup", co_no_job, NULL);
    counts(w, false, from);
    must(co_live_past_begin(&o, 1, &p, &w->e) == 0);
    counts(w, true, to);
    must(co_live_past_device(p, &dev, &w->e) == 0);
    co_look(dev, &first);
    must(is_instant(w, &first, from, to));
    for (int i = 0; i < 6; i++) {
        co_sleep(next_random(&w->random) % 5000000);
        if (copy && i == 3)
            must(co_live_past_copy(p, &job, &w->e) == 0);
        co_look(dev, &later);
        must(memcmp(&first, &later, sizeof(first)) == 0);
    }
    co_close_ok(dev);
    must(co_live_past_end(p, false, &w->e) == 0);
}

static int co_pasts(void *arg)
{
    struct world *w = mem_alloc(sizeof(*w));
    for (uint64_t seed = 1; seed <= 40; seed++) {
        co_begin(w, arg, seed);
        start_writers(w);
        co_sleep(3000000);
        co_past_is_stable(w, false);
        co_past_is_stable(w, true);
        co_end(w);
    }
    mem_free(w);
    return 0;
}

/* A store that takes no more costs the past, and nothing else. */
static int co_lost(void *arg)
{
    struct world *w = mem_alloc(sizeof(*w));
    struct shown now;
    struct live_past *p;
    uint64_t copied;
    for (int limit = 0; limit < 2; limit++) {
        co_begin(w, arg, 5);
        struct blk_device *fault;
        const struct live_past_options o = {
            .seat = w->seat, .store = co_store(w, &fault), .store_bytes = limit ? 128 * KiB : 0};
        const struct fault_rule rule = {.op = FAULT_WRITE, .nth = 2, .rc = -EIO};
        if (!limit)
            fault_set(fault, &rule);
        start_writers(w);
        co_sleep(20000000); /* so that there is something to be copied */
        must(co_live_past_begin(&o, 1, &p, &w->e) == 0);
        while (live_past_state(p, &copied) == 0)
            co_sleep(1000000);
        must(live_past_state(p, &copied) == (limit ? -ENOSPC : -EIO));
        co_sleep(10000000);
        co_stop_writers(w);
        must(co_live_past_end(p, false, &w->e) == 0);
        co_look(w->seat, &now);
        must(is_now(w, &now));
        co_close_ok(w->seat);
    }
    mem_free(w);
    return 0;
}

/* --- mirrors ------------------------------------------------------------------------------------
 */

/* @nth: the target's write that fails; 0: none. */
static void co_one_mirror(struct world *w, uint64_t nth, bool cancel)
{
    struct job job;
    struct blk_device *fault;
    struct live_mirror m = {
        .seat = w->seat, .target = co_store(w, &fault), .blank = true, .job = &job};
    const struct fault_rule rule = {.op = FAULT_WRITE, .nth = nth, .rc = -EIO};
    const struct blk_device *target = m.target, *before = seat_device(w->seat);
    job_init(&job, "mirror", co_no_job, NULL);
    if (nth)
        fault_set(fault, &rule), m.by_hand = true; /* it stays until that write comes */
    if (cancel)
        job_cancel(&job);
    w->e = (struct blk_error){0};
    int rc = co_live_mirror(&m, &w->e);
    must(rc == (cancel ? -ECANCELED : nth ? -EIO : 0));
    must(seat_device(w->seat) == (rc < 0 ? before : target));
    must(!seat_watched(w->seat));
}

static void co_one_mirror_of(struct world *w)
{
    struct blk_error e = {0};
    struct job job;
    struct live_mirror m = {
        .seat = w->seat, .target = co_store(w, NULL), .blank = true, .job = &job};
    job_init(&job, "mirror", co_no_job, NULL);
    must(co_live_mirror(&m, &e) == 0);
}

static int co_mirrors(void *arg)
{
    struct world *w = mem_alloc(sizeof(*w));
    for (uint64_t seed = 1; seed <= 40; seed++) {
        co_begin(w, arg, seed);
        start_writers(w);
        co_sleep(20000000);
        co_one_mirror(w, 0, false);
        co_one_mirror(w, 1 + seed, false);
        co_one_mirror(w, 0, true);
        co_one_mirror(w, 0, false);
        co_end(w);
    }
    mem_free(w);
    return 0;
}

/* --- all at once --------------------------------------------------------------------------------
 */

static void co_mapper(void *arg)
{
    struct world *w = arg;
    while (!w->stop) {
        struct blk_extent x;
        unsigned depth;
        for (uint64_t at = 0; at < SIZE; at += x.bytes)
            must(co_blk_map_chain(w->seat, NULL, at, SIZE - at, &x, &depth) == 0);
        co_sleep(100000);
    }
    w->running--;
    co_queue_wake_all(&w->ended);
}

static void co_mirrorer(void *arg)
{
    struct world *w = arg;
    while (!w->stop) {
        co_one_mirror_of(w);
        co_sleep(next_random(&w->random) % 1000000);
    }
    w->running--;
    co_queue_wake_all(&w->ended);
}

/* Pasts, and who asks where data lies, while the device is exchanged again and again. */
static int co_exchanges(void *arg)
{
    struct world *w = mem_alloc(sizeof(*w));
    for (uint64_t seed = 1; seed <= 20; seed++) {
        co_begin(w, arg, seed);
        start_writers(w);
        w->running += 2;
        must(co_start_later(co_mapper, w) == 0);
        must(co_start_later(co_mirrorer, w) == 0);
        co_past_is_stable(w, false);
        co_past_is_stable(w, true);
        co_end(w);
    }
    mem_free(w);
    return 0;
}

/* --- bitmaps ------------------------------------------------------------------------------------
 */

static int co_open_qcow2(void *arg)
{
    struct world *w = arg;
    struct blk_device *mem = co_open_text(&mem_driver, "size=0", NULL), *dev;
    co_create_text(&qcow2_driver, "", mem, SIZE);
    dev = co_open_text(&qcow2_driver, "", mem);
    must(co_seat_put(dev, &w->seat, &w->e) == 0);
    return 0;
}

static void co_put(struct world *w, unsigned block)
{
    uint64_t buf[BLOCK / 8];
    fill(buf, block + 1);
    must(co_blk_write_buf(w->seat, (uint64_t)block * BLOCK, buf, BLOCK, 0) == 0);
}

static bool co_dirty(struct world *w, struct blk_device *dev, unsigned block)
{
    struct blk_bitmap_extent x;
    must(co_blk_bitmap_read(dev, "daily", (uint64_t)block * BLOCK, 1, &x, &w->e) == 0);
    return x.dirty;
}

/* One backup: of what the bitmap says in blocks 0, 100 and 200 @was; they are dirty then as @then.
 */
static void co_backup(struct world *w, bool fails, const bool *was, const bool *then)
{
    static const unsigned blocks[] = {0, 100, 200};
    struct live_past *p;
    struct blk_device *dev;
    const struct live_past_options o = {
        .seat = w->seat, .store = co_store(w, NULL), .bitmap = "daily", .only_dirty = true};
    must(co_live_past_begin(&o, 1, &p, &w->e) == 0);
    must(co_live_past_device(p, &dev, &w->e) == 0);
    for (int i = 0; was && i < 3; i++)
        must(co_dirty(w, dev, blocks[i]) == was[i]);
    for (int i = 0; i < 3; i++)
        must(!co_dirty(w, w->seat, blocks[i]));
    co_put(w, 200);
    co_close_ok(dev);
    must(co_live_past_end(p, fails, &w->e) == 0);
    for (int i = 0; i < 3; i++)
        must(co_dirty(w, w->seat, blocks[i]) == then[i]);
}

static int co_bitmaps(void *arg)
{
    struct world *w = mem_alloc(sizeof(*w));
    struct blk_bitmap *list;
    size_t count;
    *w = (struct world){.rt = arg, .home = runtime_worker(arg, 1)};
    co_on(w->home, co_open_qcow2, w);
    co_put(w, 0);
    co_backup(w, false, NULL, (const bool[]){false, false, true}); /* made by it */
    co_put(w, 100);
    co_backup(w, true, (const bool[]){false, true, true}, (const bool[]){false, true, true});
    co_put(w, 0);
    co_backup(w, false, (const bool[]){true, true, true}, (const bool[]){false, false, true});
    co_backup(w, true, (const bool[]){false, false, true}, (const bool[]){false, false, true});
    must(co_blk_bitmap_list(w->seat, &list, &count, &w->e) == 0);
    must(count == 1);
    blk_bitmaps_drop(list, count);
    co_close_ok(w->seat);
    mem_free(w);
    return 0;
}

/* --- all ----------------------------------------------------------------------------------------
 */

static void run(int (*fn)(void *arg))
{
    const struct sim_options s = {.seed = 11};
    struct runtime_options o = {.workers = 2};
    struct runtime *rt;
    must(host_sim_open(&s, &o.host) == 0);
    must(runtime_open(&o, &rt) == 0);
    must(runtime_run(rt, fn, rt) == 0);
    runtime_close(rt);
    host_close(o.host);
}

START_TEST(a_past_is_one_instant_and_stays)
{
    run(co_pasts);
}
END_TEST

START_TEST(a_store_that_fails_loses_the_past_only)
{
    run(co_lost);
}
END_TEST

START_TEST(a_mirror_takes_over_or_leaves_all_alone)
{
    run(co_mirrors);
}
END_TEST

START_TEST(a_past_outlives_the_device_that_it_began_on)
{
    run(co_exchanges);
}
END_TEST

START_TEST(bitmaps_say_what_changed_since_a_backup_that_ended_well)
{
    run(co_bitmaps);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("live");
    TCase *t = tcase_create("live");
    SRunner *r = srunner_create(s);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, a_past_is_one_instant_and_stays);
    tcase_add_test(t, a_store_that_fails_loses_the_past_only);
    tcase_add_test(t, a_mirror_takes_over_or_leaves_all_alone);
    tcase_add_test(t, a_past_outlives_the_device_that_it_began_on);
    tcase_add_test(t, bitmaps_say_what_changed_since_a_backup_that_ended_well);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

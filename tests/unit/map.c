/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c - the map engine over a toy format (tests/lib/toy_map.h): random work against an array of
 * bytes, over a backing device, with shared tables, with many requests at once, with faults; what
 * goes to disk in which order, and when space is used again. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/fault.h"
#include "block/log.h"
#include "tests/lib/on_host.h"
#include "tests/lib/toy_map.h"

/* --- random work against an array of bytes --- */

struct work {
    struct blk_device *file, *backing, *dev;
    uint8_t *model, *buffer;
    uint64_t seed;
};

TEST_LOOP static void compare_with(struct blk_device *dev, const uint8_t *model)
{
    uint8_t *now = mem_alloc(TOY_SIZE);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, now, TOY_SIZE), 0);
    uint64_t i = 0;
    while (i < TOY_SIZE && now[i] == model[i])
        i++;
    ck_assert_msg(i == TOY_SIZE, "byte %" PRIu64 ": %u, not %u", i, now[i], model[i]);
    mem_free(now);
}

TEST_LOOP static void write_some(struct work *w, uint64_t at, uint64_t bytes, uint64_t r)
{
    unsigned flags = r >> 24 & 7 ? 0 : BLK_FUA;
    if (r >> 32 & 1) {
        at = align_down(at, UNIT);
        bytes = MIN(align_up(bytes, UNIT), TOY_SIZE - at);
        flags |= BLK_COMPRESSED;
        for (uint64_t i = 0; i < bytes; i++)
            w->model[at + i] = r >> 40 & 3 ? (at + i) / UNIT + r : next_random(&w->seed);
    } else {
        fill_random(&w->seed, w->model + at, bytes);
    }
    ck_assert_int_eq(co_blk_write_buf(w->dev, at, w->model + at, bytes, flags), 0);
}

/* Bytes that are neither what they were nor zero. */
TEST_LOOP static uint64_t neither(const uint8_t *now, const uint8_t *was, uint64_t bytes)
{
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < bytes; i++)
        wrong += now[i] != was[i] && now[i] != 0;
    return wrong;
}

static void one_step(struct work *w)
{
    uint64_t r = next_random(&w->seed);
    uint64_t at = next_random(&w->seed) % TOY_SIZE;
    uint64_t most = r & 1 ? 600 * KiB : 9000;
    uint64_t bytes = 1 + next_random(&w->seed) % MIN(most, TOY_SIZE - at);
    switch (r >> 16 & 7) {
    case 0:
        ck_assert_int_eq(co_blk_write_zeroes(w->dev, at, bytes, r >> 24 & 1 ? BLK_MAY_UNMAP : 0),
                         0);
        memset(w->model + at, 0, bytes);
        break;
    case 1:
        at = align_down(at, UNIT);
        bytes = MIN(align_up(bytes, UNIT), TOY_SIZE - at);
        if (w->backing) { /* holes show the backing device, old data reads zero or stays */
            ck_assert_int_eq(co_blk_discard(w->dev, at, bytes), 0);
            ck_assert_int_eq(co_blk_read_buf(w->dev, at, w->buffer, bytes), 0);
            ck_assert_uint_eq(neither(w->buffer, w->model + at, bytes), 0);
            memcpy(w->model + at, w->buffer, bytes);
        } else {
            ck_assert_int_eq(co_blk_discard(w->dev, at, bytes), 0);
            memset(w->model + at, 0, bytes);
        }
        break;
    case 2:
        ck_assert_int_eq(co_blk_flush(w->dev), 0);
        break;
    case 3:
        ck_assert_int_eq(co_blk_read_buf(w->dev, at, w->buffer, bytes), 0);
        ck_assert_mem_eq(w->buffer, w->model + at, bytes);
        break;
    default:
        write_some(w, at, bytes, r);
    }
}

static void begin(struct work *w, bool with_backing)
{
    uint64_t backing_bytes = 3 * MiB + 777;
    w->model = mem_zalloc(TOY_SIZE);
    w->buffer = mem_alloc(TOY_SIZE);
    w->file = co_open_text(&mem_driver, "size=4096", NULL);
    w->backing = NULL;
    if (with_backing) {
        w->backing = co_open_text(&mem_driver, "size=0", NULL);
        fill_random(&w->seed, w->model + 40000, backing_bytes - 40000);
        ck_assert_int_eq(co_blk_write_buf(w->backing, 0, w->model, backing_bytes, 0), 0);
    }
}

static void end(struct work *w)
{
    mem_free(w->model);
    mem_free(w->buffer);
    co_close_ok(w->file);
    if (w->backing)
        co_close_ok(w->backing);
}

static int random_work(void *arg)
{
    unsigned i = *(int *)arg;
    struct work w = {.seed = i};
    memset(&how, 0, sizeof(how));
    how.no_zero_cells = i & 1;
    how.zero_keeps_space = i & 2;
    how.cache = i & 4 ? 8192 : 0;
    begin(&w, i & 8);
    for (unsigned round = 0; round < 4; round++) {
        w.dev = open_toy(w.file, w.backing, BLK_OPEN_WRITE | (i == 31 ? BLK_OPEN_FRESH : 0));
        compare_with(w.dev, w.model);
        for (unsigned k = 0; k < 150; k++)
            one_step(&w);
        compare_with(w.dev, w.model);
        co_close_ok(w.dev);
    }
    end(&w);
    return 0;
}

START_TEST(random_work_reads_back_and_owners_add_up)
{
    on_host(NULL, random_work, &_i);
}
END_TEST

/* --- a snapshot: everything is shared, then overwritten --- */

static int share_cell(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    toy_of(m)->refs[cell->offset / UNIT] += cell->offset != 0;
    return 0;
}

/* Sets the shared flag of every entry of the table, in the file. */
static void share_table(struct blk_device *file, uint64_t table)
{
    uint8_t raw[4096];
    ck_assert_int_eq(co_blk_read_buf(file, table, raw, sizeof(raw)), 0);
    for (unsigned i = 0; i < 512; i++)
        if (toy_get(raw + i * 8) & TOY_OFFSET)
            toy_put(raw + i * 8, toy_get(raw + i * 8) | TOY_SHARED);
    ck_assert_int_eq(co_blk_write_buf(file, table, raw, sizeof(raw), 0), 0);
}

/* Gives the snapshot's root. The image is closed and opened again meanwhile. */
static uint64_t snapshot(struct work *w)
{
    uint8_t root[4096], refs[UNITS];
    uint64_t at, one = 1;
    bool reused;
    struct toy *t = w->dev->state;
    ck_assert_int_eq(co_meta_settle(t->map.meta, true), 0);
    ck_assert_int_eq(toy_place(&t->map, &one, &at, &reused), 0);
    ck_assert_int_eq(co_map_walk(&t->map, share_cell, NULL), 0);
    ck_assert_int_eq(co_blk_read_buf(w->file, 0, root, sizeof(root)), 0);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t table = toy_get(root + i * 8) & TOY_OFFSET;
        if (!table)
            continue;
        t->refs[table / UNIT]++;
        share_table(w->file, table);
        toy_put(root + i * 8, table | TOY_SHARED);
    }
    ck_assert_int_eq(co_blk_write_buf(w->file, 0, root, sizeof(root), 0), 0);
    ck_assert_int_eq(co_blk_write_buf(w->file, at, root, sizeof(root), 0), 0);
    memcpy(refs, t->refs, sizeof(refs));
    memset(t->refs, 0, sizeof(t->refs));
    ck_assert_int_eq(co_toy_count(t, t->refs), 0); /* for close's own check */
    co_close_ok(w->dev);
    w->dev = open_toy(w->file, w->backing, BLK_OPEN_WRITE | BLK_OPEN_CHECK);
    t = w->dev->state;
    memcpy(t->refs, refs, sizeof(refs));
    return at;
}

static int shared_work(void *arg)
{
    struct work w = {.seed = 77 + *(int *)arg};
    memset(&how, 0, sizeof(how));
    begin(&w, *(int *)arg & 1);
    w.dev = open_toy(w.file, w.backing, BLK_OPEN_WRITE);
    for (unsigned k = 0; k < 100; k++)
        one_step(&w);
    uint8_t *then = mem_alloc(TOY_SIZE);
    memcpy(then, w.model, TOY_SIZE);
    uint64_t root = snapshot(&w);
    for (unsigned k = 0; k < 200; k++)
        one_step(&w);
    compare_with(w.dev, w.model);
    ck_assert_int_eq(co_blk_flush(w.dev), 0);
    how.root = root;
    struct blk_device *old = open_toy(w.file, w.backing, 0);
    compare_with(old, then);
    co_close_ok(old);
    how.root = 0;
    co_close_ok(w.dev);
    mem_free(then);
    end(&w);
    return 0;
}

START_TEST(shared_clusters_and_tables_are_copied_before_they_change)
{
    on_host(NULL, shared_work, &_i);
}
END_TEST

/* --- many at once --- */

#define WRITERS 16
#define STRIPE  700

struct writer {
    struct work *work;
    unsigned index;
};

/* Writer i owns every 16th stripe of 700 bytes; neighbours share clusters. */
static int write_stripes(void *arg)
{
    struct writer *me = arg;
    struct work *w = me->work;
    for (unsigned pass = 0; pass < 2; pass++)
        for (uint64_t at = me->index * STRIPE; at + STRIPE <= 256 * KiB; at += WRITERS * STRIPE) {
            memset(w->model + at, 1 + me->index + pass * 100, STRIPE);
            TRY(co_blk_write_buf(w->dev, at, w->model + at, STRIPE, 0));
            uint8_t back[STRIPE];
            TRY(co_blk_read_buf(w->dev, at, back, STRIPE));
            ck_assert_mem_eq(back, w->model + at, STRIPE);
        }
    return 0;
}

static int parallel_work(void *arg)
{
    struct work w = {.seed = 5};
    struct writer writers[WRITERS];
    struct co_group g;
    memset(&how, 0, sizeof(how));
    begin(&w, *(int *)arg & 1);
    /* A layer that delays every request makes the writers overlap. */
    struct blk_device *slow = co_open_text(&fault_driver, "", blk_ref(w.file));
    fault_set(slow, &(struct fault_rule){.op = FAULT_ALL, .nth = 1, .delay_ns = 1000});
    w.dev = open_toy(slow, w.backing, BLK_OPEN_WRITE);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){&w, i};
        co_group_start(&g, write_stripes, &writers[i]);
    }
    ck_assert_int_eq(co_group_wait(&g), 0);
    compare_with(w.dev, w.model);
    co_close_ok(w.dev);
    co_close_ok(slow);
    end(&w);
    return 0;
}

START_TEST(writers_that_share_clusters_do_not_disturb_each_other)
{
    on_host(NULL, parallel_work, &_i);
}
END_TEST

/* --- faults --- */

/* A write that fails at any step leaves what was there; the next one succeeds. */
CO_TEST(a_failed_write_leaves_old_or_new)
{
    struct work w = {.seed = 9};
    memset(&how, 0, sizeof(how));
    begin(&w, true);
    struct blk_device *broken = co_open_text(&fault_driver, "", blk_ref(w.file));
    w.dev = open_toy(broken, w.backing, BLK_OPEN_WRITE);
    bool fired = true;
    for (uint64_t nth = 1; fired; nth++) {
        uint64_t before = fault_fired(broken), at = nth * 10000;
        uint8_t bytes[30000];
        memset(bytes, nth, sizeof(bytes));
        fault_set(broken,
                  &(struct fault_rule){.op = FAULT_WRITE, .nth = nth, .times = 1, .rc = -ENOSPC});
        int rc = co_blk_write_buf(w.dev, at, bytes, sizeof(bytes), 0);
        fault_set(broken, NULL);
        fired = fault_fired(broken) != before;
        ck_assert_int_eq(rc, fired ? -ENOSPC : 0);
        if (!fired)
            memcpy(w.model + at, bytes, sizeof(bytes));
        ck_assert_int_eq(co_blk_read_buf(w.dev, at, w.buffer, sizeof(bytes)), 0);
        unsigned wrong = 0;
        for (unsigned i = 0; i < sizeof(bytes); i++)
            wrong += w.buffer[i] != w.model[at + i] && (!fired || w.buffer[i] != bytes[i]);
        ck_assert_uint_eq(wrong, 0);
        memcpy(w.model + at, w.buffer, sizeof(bytes));
    }
    compare_with(w.dev, w.model);
    co_close_ok(w.dev);
    co_close_ok(broken);
    end(&w);
    return 0;
}

CO_TEST(a_failed_flush_stays_failed_and_nothing_is_allocated_any_more)
{
    struct work w = {.seed = 9};
    memset(&how, 0, sizeof(how));
    begin(&w, false);
    struct blk_device *broken = co_open_text(&fault_driver, "", blk_ref(w.file));
    w.dev = open_toy(broken, NULL, BLK_OPEN_WRITE | BLK_OPEN_CHECK);
    uint8_t bytes[5000] = {1};
    ck_assert_int_eq(co_blk_write_buf(w.dev, 0, bytes, sizeof(bytes), 0), 0);
    fault_set(broken, &(struct fault_rule){.op = FAULT_FLUSH, .nth = 1, .times = 1, .rc = -EIO});
    ck_assert_int_eq(co_blk_flush(w.dev), -EIO);
    ck_assert_int_eq(co_blk_flush(w.dev), -EIO); /* it stays failed */
    ck_assert_int_eq(co_blk_write_buf(w.dev, 9 * UNIT, bytes, sizeof(bytes), 0), -EIO);
    ck_assert_int_eq(co_blk_read_buf(w.dev, 0, bytes, sizeof(bytes)), 0);
    ck_assert_uint_eq(bytes[0], 1);
    struct blk_error e;
    ck_assert_int_lt(co_blk_close(w.dev, &e), 0);
    co_close_ok(broken);
    end(&w);
    return 0;
}

/* --- order --- */

CO_TEST(writes_go_out_in_order_and_no_more_than_needed)
{
    struct work w = {.seed = 9};
    memset(&how, 0, sizeof(how));
    begin(&w, true);
    struct blk_device *log = co_open_text(&log_driver, "", blk_ref(w.file));
    w.dev = open_toy(log, w.backing, BLK_OPEN_WRITE);
    uint8_t byte = 7;
    ck_assert_int_eq(co_blk_write_buf(w.dev, 50000, &byte, 1, 0), 0);
    ck_assert_uint_eq(log_count(log), 1); /* the cluster, and nothing else */
    ck_assert_uint_eq(log_at(log, 0)->bytes, UNIT);
    ck_assert_int_eq(co_blk_flush(w.dev), 0);
    /* data | flush | table | flush | root | flush */
    static const enum log_op ops[] = {LOG_WRITE, LOG_FLUSH, LOG_WRITE,
                                      LOG_FLUSH, LOG_WRITE, LOG_FLUSH};
    ck_assert_uint_eq(log_count(log), ARRAY_LEN(ops));
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
        ck_assert_uint_eq(log_at(log, i)->op, ops[i]);
    ck_assert_uint_eq(log_at(log, 4)->offset, 0);
    /* An overwrite in place needs one write, its flush one flush. */
    ck_assert_int_eq(co_blk_write_buf(w.dev, 50000, &byte, 1, BLK_FUA), 0);
    ck_assert_uint_eq(log_count(log), ARRAY_LEN(ops) + 1);
    ck_assert_uint_eq(log_at(log, ARRAY_LEN(ops))->flags, BLK_FUA);
    /* Behind the backing device nothing is hidden: data and table go out together. */
    log_clear(log);
    ck_assert_int_eq(co_blk_write_buf(w.dev, 4 * MiB - 10, &byte, 1, 0), 0);
    ck_assert_uint_eq(log_at(log, 0)->bytes, 1);
    co_close_ok(w.dev);
    co_close_ok(log);
    end(&w);
    return 0;
}

/* --- when freed space is used again --- */

/* A toy over a layer that can be slowed down, its first @clusters written and durable. */
static struct blk_device *co_filled(struct work *w, unsigned clusters)
{
    memset(&how, 0, sizeof(how));
    begin(w, false);
    struct blk_device *slow = co_open_text(&fault_driver, "", blk_ref(w->file));
    w->dev = open_toy(slow, NULL, BLK_OPEN_WRITE);
    for (unsigned i = 0; i < clusters; i++) {
        memset(w->buffer, 1 + i, UNIT);
        ck_assert_int_eq(co_blk_write_buf(w->dev, i * UNIT, w->buffer, UNIT, 0), 0);
    }
    ck_assert_int_eq(co_blk_flush(w->dev), 0);
    return slow;
}

static uint64_t offset_of(struct work *w, uint64_t cluster)
{
    struct toy *t = w->dev->state;
    struct map_cell cell;
    ck_assert_int_eq(co_map_cell(&t->map, cluster, &cell), 0);
    return cell.offset;
}

static void co_done(struct work *w, struct blk_device *below)
{
    co_close_ok(w->dev);
    co_close_ok(below);
    end(w);
}

static int read_first(void *arg)
{
    struct work *w = arg;
    return co_blk_read_buf(w->dev, 0, w->buffer, UNIT);
}

CO_TEST(space_that_is_being_read_is_not_reused)
{
    struct work w = {.seed = 1};
    struct blk_device *slow = co_filled(&w, 3);
    uint8_t other[UNIT];
    memset(other, 99, sizeof(other));
    struct co_group g;
    co_group_init(&g, 0);
    fault_set(slow, &(struct fault_rule){.op = FAULT_READ, .nth = 1, .delay_ns = 100000000});
    co_group_start(&g, read_first, &w); /* has looked, and waits for the disk */
    uint64_t place = offset_of(&w, 0);
    ck_assert_int_eq(co_blk_discard(w.dev, 0, UNIT), 0);
    ck_assert_int_eq(co_blk_flush(w.dev), 0);
    co_sleep(1000000);
    for (unsigned i = 10; i < 20; i++) {
        ck_assert_int_eq(co_blk_write_buf(w.dev, i * UNIT, other, UNIT, 0), 0);
        ck_assert_uint_ne(offset_of(&w, i), place); /* M5: somebody still reads there */
    }
    ck_assert_int_eq(co_group_wait(&g), 0);
    ck_assert_uint_eq(w.buffer[0], 1);
    co_sleep(1000000);
    ck_assert_int_eq(co_blk_write_buf(w.dev, 30 * UNIT, other, UNIT, 0), 0);
    ck_assert_uint_eq(offset_of(&w, 30), place); /* now it is free */
    co_done(&w, slow);
    return 0;
}

static int flush_it(void *arg)
{
    return co_blk_flush(((struct work *)arg)->dev);
}

CO_TEST(space_is_released_with_the_batch_that_let_it_go)
{
    struct work w = {.seed = 1};
    struct blk_device *slow = co_filled(&w, 3);
    struct toy *t = w.dev->state;
    uint64_t first = offset_of(&w, 0) / UNIT, second = offset_of(&w, 1) / UNIT;
    struct co_group g;
    co_group_init(&g, 0);
    ck_assert_int_eq(co_blk_discard(w.dev, 0, UNIT), 0);
    fault_set(slow, &(struct fault_rule){.op = FAULT_WRITE, .nth = 1, .delay_ns = 20000000});
    co_group_start(&g, flush_it, &w); /* its batch holds the first discard only */
    ck_assert_int_eq(co_blk_discard(w.dev, UNIT, UNIT), 0);
    ck_assert_int_eq(co_group_wait(&g), 0);
    co_sleep(1000000);
    ck_assert_uint_eq(t->refs[first], 0);
    ck_assert_uint_eq(t->refs[second], 1); /* not durable yet */
    ck_assert_int_eq(co_blk_flush(w.dev), 0);
    co_sleep(1000000);
    ck_assert_uint_eq(t->refs[second], 0);
    co_done(&w, slow);
    return 0;
}

CO_TEST(reused_space_is_covered_and_durable_before_it_is_shown)
{
    struct work w = {.seed = 1};
    struct blk_device *slow = co_filled(&w, 3);
    ck_assert_int_eq(co_blk_discard(w.dev, 0, UNIT), 0);
    co_close_ok(w.dev);
    struct blk_device *log = co_open_text(&log_driver, "", blk_ref(slow));
    w.dev = open_toy(log, NULL, BLK_OPEN_WRITE);
    uint8_t byte = 3;
    ck_assert_int_eq(co_blk_write_buf(w.dev, 50 * UNIT + 100, &byte, 1, 0), 0);
    /* The old bytes around it are covered, and durable before the entry. */
    uint64_t covered = 0;
    for (size_t i = 0; i < log_count(log); i++)
        covered += log_at(log, i)->bytes;
    ck_assert_uint_eq(covered, UNIT);
    log_clear(log);
    ck_assert_int_eq(co_blk_flush(w.dev), 0);
    static const enum log_op ops[] = {LOG_FLUSH, LOG_WRITE, LOG_FLUSH};
    ck_assert_uint_eq(log_count(log), ARRAY_LEN(ops));
    for (unsigned i = 0; i < ARRAY_LEN(ops); i++)
        ck_assert_uint_eq(log_at(log, i)->op, ops[i]);
    co_close_ok(log);
    co_done(&w, slow);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("map");
    TCase *tc = tcase_create("map");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, random_work_reads_back_and_owners_add_up, 0, 32);
    tcase_add_loop_test(tc, shared_clusters_and_tables_are_copied_before_they_change, 0, 4);
    tcase_add_loop_test(tc, writers_that_share_clusters_do_not_disturb_each_other, 0, 2);
    tcase_add_test(tc, a_failed_write_leaves_old_or_new);
    tcase_add_test(tc, a_failed_flush_stays_failed_and_nothing_is_allocated_any_more);
    tcase_add_test(tc, writes_go_out_in_order_and_no_more_than_needed);
    tcase_add_test(tc, space_that_is_being_read_is_not_reused);
    tcase_add_test(tc, space_is_released_with_the_batch_that_let_it_go);
    tcase_add_test(tc, reused_space_is_covered_and_durable_before_it_is_shown);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

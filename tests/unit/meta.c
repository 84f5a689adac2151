/* SPDX-License-Identifier: BSD-3-Clause */
/* meta.c - the metadata cache: order of ranks, sharing of batches, eviction, what a batch freezes,
 * deferred calls, failures. */
#include <check.h>
#include <stdio.h>

#include "block/fault.h"
#include "block/log.h"
#include "imgfmt/meta.h"
#include "tests/lib/on_host.h"

#define PAGE 4096

struct bed {
    struct blk_device *log, *fault;
    struct meta *m;
};

/* meta over log over fault over memory: the log shows what was meant, the fault breaks it. */
static struct bed co_bed(uint64_t limit, bool fresh)
{
    struct bed b;
    b.fault = co_open_text(&fault_driver, "", co_open_text(&mem_driver, "size=0", NULL));
    b.log = co_open_text(&log_driver, "data=on", blk_ref(b.fault));
    struct meta_options o = {
        .file = b.log, .page_bytes = PAGE, .limit_bytes = limit, .fresh = fresh};
    ck_assert_int_eq(meta_open(&o, &b.m), 0);
    return b;
}

static void co_end(struct bed *b)
{
    co_meta_close(b->m);
    co_close_ok(b->log);
    co_close_ok(b->fault);
}

static void co_set(struct bed *b, uint64_t page, unsigned rank, uint8_t value)
{
    struct meta_page *p;
    ck_assert_int_eq(co_meta_get(b->m, page * PAGE, rank, &p), 0);
    ck_assert_int_eq(meta_touch(b->m, p), 0);
    memset(p->data, value, PAGE);
    meta_put(b->m, p);
}

static uint8_t co_value(struct bed *b, uint64_t page, unsigned rank)
{
    struct meta_page *p;
    ck_assert_int_eq(co_meta_get(b->m, page * PAGE, rank, &p), 0);
    uint8_t v = p->data[PAGE - 1];
    meta_put(b->m, p);
    return v;
}

/* The log as text: W and the page number, F. */
static void expect_log(struct bed *b, const char *text)
{
    char now[500] = "";
    for (size_t i = 0, n = 0; i < log_count(b->log); i++) {
        const struct log_record *r = log_at(b->log, i);
        if (r->op == LOG_WRITE)
            n += snprintf(now + n, sizeof(now) - n, "W%d ", (int)(r->offset / PAGE));
        else
            n += snprintf(now + n, sizeof(now) - n, "F ");
    }
    ck_assert_str_eq(now, text);
    log_clear(b->log);
}

static int ranks(void *arg)
{
    struct bed b = co_bed(MiB, false);
    co_set(&b, 5, 2, 1);
    co_set(&b, 9, 0, 1);
    co_set(&b, 3, 1, 1);
    ck_assert(meta_is_dirty(b.m));
    ck_assert_int_eq(co_meta_write_back(b.m, true), 0);
    expect_log(&b, "W9 F W3 F W5 F ");
    ck_assert(!meta_is_dirty(b.m));
    co_set(&b, 5, 2, 2); /* one rank, nothing to order */
    ck_assert_int_eq(co_meta_write_back(b.m, true), 0);
    expect_log(&b, "W5 F ");
    co_set(&b, 9, 0, 3); /* one flush covers data and rank 0 */
    co_set(&b, 5, 2, 3);
    meta_data_before(b.m, 2);
    ck_assert_int_eq(co_meta_write_back(b.m, true), 0);
    expect_log(&b, "W9 F W5 F ");
    meta_data_before(b.m, 2);
    co_set(&b, 5, 2, 4);
    ck_assert_int_eq(co_meta_write_back(b.m, true), 0);
    expect_log(&b, "F W5 F ");
    co_set(&b, 3, 1, 5); /* what went out without a flush is remembered */
    ck_assert_int_eq(co_meta_write_back(b.m, false), 0);
    expect_log(&b, "W3 ");
    ck_assert(meta_is_dirty(b.m));
    co_set(&b, 5, 2, 5);
    ck_assert_int_eq(co_meta_write_back(b.m, false), 0);
    expect_log(&b, "F W5 ");
    for (unsigned i = 20; i < 52; i++) /* neighbours go together */
        co_set(&b, i, 1, 6);
    ck_assert_int_eq(co_meta_write_back(b.m, true), 0);
    ck_assert_uint_le(log_count(b.log), 4);
    co_end(&b);
    return 0;
}

START_TEST(lower_ranks_are_durable_first_and_no_flush_is_wasted)
{
    on_host(NULL, ranks, NULL);
}
END_TEST

static int fresh(void *arg)
{
    struct bed b = co_bed(MiB, true);
    co_set(&b, 5, 2, 1);
    co_set(&b, 9, 0, 1);
    meta_data_before(b.m, 2);
    ck_assert_int_eq(co_meta_write_back(b.m, false), 0);
    expect_log(&b, "W9 W5 ");
    co_end(&b);
    return 0;
}

START_TEST(a_fresh_image_is_written_without_order)
{
    on_host(NULL, fresh, NULL);
}
END_TEST

static int eviction(void *arg)
{
    struct bed b = co_bed(8 * PAGE, false);
    struct meta_page *slot = NULL, *p;
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 200; i++) {
            if (round > 0)
                ck_assert_uint_eq(co_value(&b, i, 1), (uint8_t)(i + round));
            co_set(&b, i, 1, i + round + 1);
            ck_assert_uint_le(meta_bytes(b.m), 8 * PAGE);
        }
    ck_assert_int_eq(co_meta_get(b.m, 0, 1, &p), 0);
    meta_publish(b.m, p, 77, &slot);
    ck_assert_ptr_eq(slot, p);
    ck_assert_uint_eq(slot->key, 77);
    for (unsigned i = 1; i < 40; i++)
        co_value(&b, i, 1);
    ck_assert_ptr_eq(slot, p); /* pinned: it stays */
    meta_put(b.m, p);
    for (unsigned i = 1; i < 40; i++)
        co_value(&b, i, 1);
    ck_assert_ptr_null(slot); /* evicted: out of the index */
    co_end(&b);
    return 0;
}

START_TEST(the_limit_holds_and_nothing_is_lost)
{
    on_host(NULL, eviction, NULL);
}
END_TEST

/* --- a page that changes while it is being written --- */

static int write_back(void *arg)
{
    return co_meta_write_back(arg, true);
}

CO_TEST(a_batch_writes_what_was_dirty_when_it_began)
{
    struct bed b = co_bed(MiB, false);
    struct co_group g;
    co_group_init(&g, 0);
    co_set(&b, 1, 0, 10);
    co_set(&b, 2, 1, 10);
    fault_set(b.fault, &(struct fault_rule){.op = FAULT_ALL, .nth = 1, .delay_ns = 2000000});
    co_group_start(&g, write_back, b.m); /* now it waits for page 1 */
    co_set(&b, 1, 0, 20);                /* already copied */
    co_set(&b, 2, 1, 20);                /* belongs to the batch: frozen */
    ck_assert_uint_eq(co_value(&b, 2, 1), 20);
    ck_assert_int_eq(co_group_wait(&g), 0);
    ck_assert_uint_eq(log_count(b.log), 4);
    ck_assert_uint_eq(log_at(b.log, 0)->data[0], 10);
    ck_assert_uint_eq(log_at(b.log, 2)->data[0], 10);
    log_clear(b.log);
    ck_assert(meta_is_dirty(b.m));
    /* Two that ask at once share the batch. */
    co_group_start(&g, write_back, b.m);
    co_set(&b, 2, 1, 30);
    co_group_start(&g, write_back, b.m);
    co_group_start(&g, write_back, b.m);
    ck_assert_int_eq(co_group_wait(&g), 0);
    expect_log(&b, "W1 F W2 F W2 F ");
    ck_assert(!meta_is_dirty(b.m));
    co_end(&b);
    return 0;
}

/* --- deferred calls --- */

struct call {
    struct meta_deferred d;
    unsigned *ran;
};

static void co_note(struct meta_deferred *d)
{
    (*container_of(d, struct call, d)->ran)++;
}

static int deferred(void *arg)
{
    struct bed b = co_bed(MiB, false);
    unsigned ran = 0;
    struct call first = {{.co_fn = co_note}, &ran}, second = first;
    co_set(&b, 1, 0, 1);
    meta_defer(b.m, &first.d);
    ck_assert(!first.d.taken);
    co_yield ();
    ck_assert_uint_eq(ran, 0);
    ck_assert_int_eq(co_meta_settle(b.m, false), 0);
    ck_assert_uint_eq(ran, 1);
    expect_log(&b, "W1 F "); /* durable, though nobody asked for a flush */
    co_set(&b, 1, 0, 2);
    meta_defer(b.m, &second.d);
    fault_set(b.fault, &(struct fault_rule){.op = FAULT_FLUSH, .nth = 1, .rc = -EIO});
    ck_assert_int_eq(co_meta_settle(b.m, true), -EIO);
    ck_assert_uint_eq(ran, 1); /* not durable: never run */
    co_end(&b);
    return 0;
}

START_TEST(deferred_calls_wait_until_it_is_durable)
{
    on_host(NULL, deferred, NULL);
}
END_TEST

/* --- failures --- */

static int failures(void *arg)
{
    struct bed b = co_bed(MiB, false);
    struct meta_page *p;
    co_set(&b, 1, 0, 1);
    co_set(&b, 2, 1, 1);
    fault_set(b.fault,
              &(struct fault_rule){.op = FAULT_WRITE, .nth = 1, .times = 1, .rc = -ENOSPC});
    ck_assert_int_eq(co_meta_write_back(b.m, true), -ENOSPC);
    ck_assert_int_eq(co_meta_write_back(b.m, true), -ENOSPC); /* it stays failed */
    ck_assert_int_eq(meta_error(b.m), -ENOSPC);
    ck_assert(meta_is_dirty(b.m));
    ck_assert_uint_eq(co_value(&b, 1, 0), 1); /* reads go on */
    ck_assert_int_eq(co_meta_get(b.m, PAGE, 0, &p), 0);
    ck_assert_int_eq(meta_touch(b.m, p), -ENOSPC);
    meta_put(b.m, p);
    expect_log(&b, "W1 "); /* and the higher rank was not written */
    co_end(&b);
    return 0;
}

START_TEST(a_failed_write_back_stays_failed)
{
    on_host(NULL, failures, NULL);
}
END_TEST

CO_TEST(pages_load_once_and_ranks_do_not_mix)
{
    struct bed b = co_bed(MiB, false);
    struct meta_page *p;
    uint8_t bytes[PAGE + 100];
    memset(bytes, 5, sizeof(bytes));
    ck_assert_int_eq(co_blk_write_buf(b.log, 0, bytes, sizeof(bytes), 0), 0);
    fault_set(b.fault, &(struct fault_rule){.op = FAULT_READ, .nth = 1, .times = 1, .rc = -EIO});
    ck_assert_int_eq(co_meta_get(b.m, PAGE, 1, &p), -EIO);
    ck_assert_int_eq(co_meta_get(b.m, PAGE, 1, &p), 0); /* the failure is not kept */
    ck_assert_uint_eq(p->data[99], 5);
    ck_assert_uint_eq(p->data[100], 0); /* past the end of the file */
    meta_put(b.m, p);
    ck_assert_int_eq(co_meta_get(b.m, PAGE, 2, &p), -EIO); /* tables that overlap */
    ck_assert_ptr_null(meta_peek(b.m, 7 * PAGE));
    ck_assert_int_eq(co_meta_new(b.m, 7 * PAGE, 0, &p), 0);
    meta_put(b.m, p);
    p = meta_peek(b.m, 7 * PAGE);
    ck_assert_ptr_nonnull(p);
    meta_put(b.m, p);
    co_meta_forget(b.m, 7 * PAGE, PAGE);
    ck_assert_ptr_null(meta_peek(b.m, 7 * PAGE));
    ck_assert(!meta_is_dirty(b.m));
    co_end(&b);
    return 0;
}

CO_TEST(write_back_happens_by_itself)
{
    struct bed b = co_bed(MiB, false);
    co_set(&b, 1, 0, 1);
    ck_assert_uint_eq(log_count(b.log), 0);
    co_sleep(1200000000ULL);
    expect_log(&b, "W1 ");
    for (unsigned i = 0; i < 80; i++) /* more than a quarter of the limit */
        co_set(&b, 100 + 2 * i, 0, 1);
    co_sleep(20000000);
    ck_assert_uint_gt(log_count(b.log), 0);
    co_end(&b);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("meta");
    TCase *tc = tcase_create("meta");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, lower_ranks_are_durable_first_and_no_flush_is_wasted);
    tcase_add_test(tc, a_fresh_image_is_written_without_order);
    tcase_add_test(tc, the_limit_holds_and_nothing_is_lost);
    tcase_add_test(tc, a_batch_writes_what_was_dirty_when_it_began);
    tcase_add_test(tc, deferred_calls_wait_until_it_is_durable);
    tcase_add_test(tc, a_failed_write_back_stays_failed);
    tcase_add_test(tc, pages_load_once_and_ranks_do_not_mix);
    tcase_add_test(tc, write_back_happens_by_itself);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_wait.c - when a worker waits awake: where that costs less, or answers much sooner and costs
 * little more. */
#include <check.h>

#include "block/host_os.h"

#define PHASES_MOST 100000u

/* A thread whose requests cost this, by the way it waits. */
static struct {
    struct os_wait_cost now, each[2];
    uint64_t served;
    unsigned looked, waits;
} load;

static struct os_wait_cost clocks(void)
{
    return load.now;
}

static bool wait_once(struct os_wait *w, unsigned requests)
{
    bool looks = os_wait_looks(w, load.served, clocks);

    load.served += requests;
    load.now.cpu_ns += load.each[looks].cpu_ns * MAX(requests, 1u);
    load.now.ns += load.each[looks].ns * MAX(requests, 1u);
    load.looked += looks;
    load.waits++;
    return looks;
}

static void set_load(uint64_t sleeping, uint64_t looking)
{
    load.each[false] = (struct os_wait_cost){.cpu_ns = sleeping, .ns = 50000};
    load.each[true] = (struct os_wait_cost){.cpu_ns = looking, .ns = 50000};
    load.looked = load.waits = 0;
}

static void wait_many(struct os_wait *w, unsigned requests)
{
    for (unsigned i = 0; i < PHASES_MOST; i++)
        wait_once(w, requests);
}

static void is_mostly(bool looking)
{
    unsigned of = looking ? load.looked : load.waits - load.looked;

    ck_assert_uint_gt(of, load.waits / 100 * 95);
    ck_assert_uint_lt(of, load.waits); /* the other way is tried now and then */
}

START_TEST(the_cheaper_way_is_kept)
{
    struct os_wait w = {0};

    set_load(40000, 20000);
    wait_many(&w, 1);
    is_mostly(true);
    set_load(20000, 40000); /* it changes: so do we */
    wait_many(&w, 1);
    set_load(20000, 40000);
    wait_many(&w, 1);
    is_mostly(false);
}
END_TEST

START_TEST(what_answers_much_sooner_may_cost_a_quarter_more)
{
    struct os_wait w = {0};

    set_load(20000, 24000);
    wait_many(&w, 1);
    is_mostly(false);
    w = (struct os_wait){0};
    set_load(20000, 24000);
    load.each[true].ns = 25000;
    wait_many(&w, 1);
    is_mostly(true);
    w = (struct os_wait){0};
    set_load(20000, 24000);
    load.each[true].ns = 40000;
    wait_many(&w, 1);
    is_mostly(false);
    w = (struct os_wait){0};
    set_load(20000, 26000);
    load.each[true].ns = 25000;
    wait_many(&w, 1);
    is_mostly(false);
}
END_TEST

START_TEST(costs_are_by_request_where_they_are_counted)
{
    struct os_wait w = {0};

    set_load(20000, 10000);
    for (unsigned i = 0; i < PHASES_MOST; i++) /* who sleeps finds four requests at once */
        wait_once(&w, w.looks ? 1 : 4);
    is_mostly(true);
    w = (struct os_wait){0};
    set_load(20000, 10000);
    wait_many(&w, 0);
    is_mostly(true);
}
END_TEST

START_TEST(looks_in_vain_end_the_while)
{
    struct os_wait w = {0};
    unsigned n = 0;

    set_load(40000, 20000);
    do
        wait_once(&w, 1);
    while (w.phase != OS_WAIT_KEEP);
    ck_assert(w.looks && w.left > 1000);
    for (; w.phase == OS_WAIT_KEEP; n++) {
        w.vain++;
        wait_once(&w, 0);
    }
    ck_assert_uint_lt(n, 100);
    ck_assert(!w.looks);
}
END_TEST

START_TEST(what_was_interrupted_measures_nothing)
{
    struct os_wait w = {0};

    set_load(20000, 40000);
    for (unsigned i = 0; i < PHASES_MOST; i++) {
        wait_once(&w, 1);
        if (w.phase == OS_WAIT_TRY_SLEEPING) { /* threads work for the worker: W3 */
            load.now.cpu_ns += 1000000;
            w.measured = 0;
        }
    }
    is_mostly(false);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("host_wait");
    TCase *tc = tcase_create("host_wait");
    tcase_add_test(tc, the_cheaper_way_is_kept);
    tcase_add_test(tc, what_answers_much_sooner_may_cost_a_quarter_more);
    tcase_add_test(tc, costs_are_by_request_where_they_are_counted);
    tcase_add_test(tc, looks_in_vain_end_the_while);
    tcase_add_test(tc, what_was_interrupted_measures_nothing);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

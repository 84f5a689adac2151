/* SPDX-License-Identifier: BSD-3-Clause */
/* co.c - coroutines and the vocabulary of waiting, on one worker of a real host. */
#include <check.h>

#include "block/host.h"

static struct host *host;
static struct runtime *rt;

static void setup(void)
{
    struct runtime_options o = {.workers = 1};

    ck_assert_int_eq(host_open("threads", &host), 0);
    o.host = host;
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
}

static void teardown(void)
{
    runtime_close(rt);
    host_close(host);
}

/* --- starting, suspending, waking ------------------------------------------------------------- */

struct trace {
    char text[64];
    size_t len;
};

static void say(struct trace *t, char c)
{
    ck_assert_uint_lt(t->len + 1, sizeof(t->text));
    t->text[t->len++] = c;
}

struct nested {
    struct trace *t;
    struct co *co;
};

static void nested_child(void *arg)
{
    struct nested *n = arg;

    n->co = co_self();
    say(n->t, 'a');
    co_suspend();
    say(n->t, 'b');
}

static int order_of_start(void *arg)
{
    struct trace t = {0};
    struct nested n = {.t = &t};

    ck_assert_int_eq(co_start(nested_child, &n), 0);
    say(&t, '1');
    co_wake(n.co);
    say(&t, '2');
    co_yield ();
    say(&t, '3');
    ck_assert_str_eq(t.text, "a12b3");
    return 7;
}

START_TEST(a_started_coroutine_runs_at_once_and_wakes_later)
{
    ck_assert_int_eq(runtime_run(rt, order_of_start, NULL), 7);
    ck_assert_ptr_null(worker_self());
}
END_TEST

static void wake_self_child(void *arg)
{
    co_wake(co_self()); /* remembered */
    co_suspend();
    *(int *)arg = 1;
}

static int remembered(void *arg)
{
    int done = 0;

    ck_assert_int_eq(co_start(wake_self_child, &done), 0);
    ck_assert_int_eq(done, 1);
    ck_assert_int_eq(co_start_later(wake_self_child, &done), 0);
    co_yield ();
    co_sleep(2000000);
    return 0;
}

START_TEST(a_wake_before_the_suspend_is_remembered)
{
    ck_assert_int_eq(runtime_run(rt, remembered, NULL), 0);
}
END_TEST

/* --- mutexes and groups under load ------------------------------------------------------------ */

#define MANY 3000

struct counter {
    struct co_mutex lock;
    unsigned inside, total;
};

static int count_slowly(void *arg)
{
    struct counter *c = arg;

    for (int i = 0; i < 3; i++) {
        with_lock(&c->lock);
        ck_assert_uint_eq(c->inside++, 0);
        co_yield ();
        c->total++;
        c->inside--;
    }
    return c->total == 17 ? -EDOM : 0;
}

static int many_over_a_mutex(void *arg)
{
    struct counter c = {0};
    struct co_group g;

    co_group_init(&g, 0);
    for (int i = 0; i < MANY; i++)
        co_group_start(&g, count_slowly, &c);
    int rc = co_group_wait(&g);
    ck_assert_uint_eq(c.total, 3 * MANY);
    return rc;
}

START_TEST(thousands_share_a_mutex)
{
    runtime_run(rt, many_over_a_mutex, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("co");
    TCase *tc = tcase_create("co");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_started_coroutine_runs_at_once_and_wakes_later);
    tcase_add_test(tc, a_wake_before_the_suspend_is_remembered);
    tcase_add_test(tc, thousands_share_a_mutex);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

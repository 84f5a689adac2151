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

/* A fiber of the thread sanitizer costs about a millisecond. */
#if defined(__SANITIZE_THREAD__)
#define MANY 200
#else
#define MANY 3000
#endif

struct counter {
    struct co_mutex lock;
    unsigned inside, total;
};

static int count_slowly(void *arg)
{
    struct counter *c = arg;

    for (int i = 0; i < 3; i++) {
        with_lock(&c->lock);
        assert_held(&c->lock);
        ck_assert_uint_eq(c->inside++, 0);
        co_yield ();
        c->total++;
        c->inside--;
    }
    return c->total == MANY / 2 ? -EDOM : 0;
}

static int many_over_a_mutex(void *arg)
{
    struct counter c = {0};
    struct co_group g;

    co_group_init(&g, 0);
    for (int i = 0; i < MANY; i++)
        co_group_start(&g, count_slowly, &c);
    ck_assert_uint_eq(g.running, MANY);
    int rc = co_group_wait(&g);
    ck_assert_uint_eq(c.total, 3 * MANY);
    return rc;
}

START_TEST(thousands_share_a_mutex)
{
    for (int i = 0; i < 2; i++)
        runtime_run(rt, many_over_a_mutex, NULL);
}
END_TEST

/* --- groups ----------------------------------------------------------------------------------- */

struct child {
    unsigned *running, *peak;
    int rc;
};

static int child_main(void *arg)
{
    struct child *c = arg;

    ++*c->running;
    *c->peak = MAX(*c->peak, *c->running);
    co_yield ();
    co_sleep(10000);
    --*c->running;
    return c->rc;
}

static int groups(void *arg)
{
    struct child children[100];
    unsigned running = 0, peak = 0;
    struct co_group g;

    co_group_init(&g, 7);
    for (int i = 0; i < 100; i++) {
        children[i] = (struct child){&running, &peak, i == 30 ? -EIO : i > 30 ? -EPERM : 5};
        co_group_start(&g, child_main, &children[i]);
        ck_assert_uint_le(g.running, 7);
        if (i < 30)
            ck_assert(!co_group_failed(&g));
    }
    ck_assert_int_eq(co_group_wait(&g), -EIO);
    ck_assert(co_group_failed(&g));
    ck_assert_uint_eq(running, 0);
    ck_assert_uint_eq(peak, 7);
    co_group_init(&g, 1);
    ck_assert_int_eq(co_group_wait(&g), 0);
    return 0;
}

START_TEST(a_group_keeps_its_limit_and_its_first_error)
{
    ck_assert_int_eq(runtime_run(rt, groups, NULL), 0);
}
END_TEST

/* --- queues ----------------------------------------------------------------------------------- */

struct sleeper {
    struct co_queue *q;
    struct trace *t;
    char name;
};

static void sleeper_main(void *arg)
{
    struct sleeper *s = arg;

    co_queue_wait(s->q);
    say(s->t, s->name);
}

static int queues(void *arg)
{
    struct co_queue q = {0};
    struct trace t = {0};
    struct sleeper s[4];

    ck_assert(!co_queue_wake_one(&q) && co_queue_empty(&q));
    for (int i = 0; i < 4; i++) {
        s[i] = (struct sleeper){&q, &t, (char)('a' + i)};
        ck_assert_int_eq(co_start(sleeper_main, &s[i]), 0);
    }
    ck_assert(co_queue_wake_one(&q));
    co_yield ();
    ck_assert_str_eq(t.text, "a");
    co_queue_wake_all(&q);
    ck_assert(co_queue_empty(&q));
    co_yield ();
    ck_assert_str_eq(t.text, "abcd");
    return 0;
}

START_TEST(queues_are_first_come_first_served)
{
    ck_assert_int_eq(runtime_run(rt, queues, NULL), 0);
}
END_TEST

/* --- readers and writers ---------------------------------------------------------------------- */

struct rw {
    struct co_rwlock *l;
    struct trace *t;
    char name; /* upper case: a writer */
};

static void rw_main(void *arg)
{
    struct rw *r = arg;

    if (r->name < 'a')
        co_rwlock_write(r->l);
    else
        co_rwlock_read(r->l);
    say(r->t, r->name);
    co_yield ();
    say(r->t, r->name);
    co_rwlock_unlock(r->l);
}

static int rwlocks(void *arg)
{
    struct co_rwlock l = {0};
    struct trace t = {0};
    struct rw r[6];

    for (int i = 0; i < 6; i++) {
        r[i] = (struct rw){&l, &t, "abCdeF"[i]};
        ck_assert_int_eq(co_start(rw_main, &r[i]), 0);
    }
    ck_assert_str_eq(t.text, "ab");
    co_sleep(1000000);
    ck_assert_str_eq(t.text, "ababCCdedeFF"); /* a writer that waits holds readers back */
    ck_assert(!l.readers && !l.writer && co_queue_empty(&l.waiters));
    return 0;
}

START_TEST(writers_are_alone_and_not_starved)
{
    ck_assert_int_eq(runtime_run(rt, rwlocks, NULL), 0);
}
END_TEST

/* --- ranges ----------------------------------------------------------------------------------- */

static int range_rules(void *arg)
{
    struct co_range r = {0};
    struct co_range_hold a, b, c;

    ck_assert(co_range_trylock(&r, &a, 100, 100, true));
    ck_assert(co_range_trylock(&r, &b, 150, 100, true));
    ck_assert(!co_range_trylock(&r, &c, 199, 1, false));
    ck_assert(co_range_free(&r, 0, 100, false));
    ck_assert(co_range_free(&r, 250, UINT64_MAX - 250, false));
    ck_assert(!co_range_free(&r, 0, UINT64_MAX, false));
    ck_assert(co_range_free(&r, 0, UINT64_MAX, true));
    ck_assert(co_range_free(&r, 120, 0, false));
    co_range_unlock(&r, &a);
    ck_assert(co_range_trylock(&r, &c, 100, 50, false));
    co_range_unlock(&r, &b);
    co_range_unlock(&r, &c);
    ck_assert_ptr_null(r.first);
    ck_assert_ptr_null(r.last);
    return 0;
}

START_TEST(ranges_exclude_where_they_overlap)
{
    ck_assert_int_eq(runtime_run(rt, range_rules, NULL), 0);
}
END_TEST

#define CELLS 64

struct cells {
    struct co_range range;
    int readers[CELLS], writers[CELLS];
    unsigned seed;
};

static unsigned draw(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 16;
}

static int cells_main(void *arg)
{
    struct cells *c = arg;

    for (int round = 0; round < 5; round++) {
        unsigned at = draw(&c->seed) % CELLS, len = 1 + draw(&c->seed) % (CELLS - at);
        bool shared = draw(&c->seed) % 2;
        struct co_range_hold hold;
        co_range_lock(&c->range, &hold, at, len, shared);
        for (unsigned i = at; i < at + len; i++) {
            ck_assert_int_eq(c->writers[i], 0);
            ck_assert(shared || c->readers[i] == 0);
            ++*(shared ? &c->readers[i] : &c->writers[i]);
        }
        for (unsigned i = draw(&c->seed) % 3; i; i--)
            co_yield ();
        for (unsigned i = at; i < at + len; i++)
            --*(shared ? &c->readers[i] : &c->writers[i]);
        co_range_unlock(&c->range, &hold);
    }
    return 0;
}

static int many_over_ranges(void *arg)
{
    struct cells c = {.seed = 7};
    struct co_group g;

    co_group_init(&g, 0);
    for (int i = 0; i < MANY / 4; i++)
        co_group_start(&g, cells_main, &c);
    ck_assert_int_eq(co_group_wait(&g), 0);
    ck_assert_ptr_null(c.range.first);
    return 0;
}

START_TEST(hundreds_over_random_ranges)
{
    ck_assert_int_eq(runtime_run(rt, many_over_ranges, NULL), 0);
}
END_TEST

/* --- stacks ----------------------------------------------------------------------------------- */

static int deep(unsigned depth)
{
    volatile char here[512];

    here[0] = (char)depth;
    co_yield ();
    return depth ? deep(depth - 1) + here[0] : 0;
}

static int deep_main(void *arg)
{
    size_t left = co_stack_left();

    ck_assert_uint_gt(left, 50 * 1024);
    ck_assert_uint_le(left, 256 * 1024);
    return deep(40) == 40 * 41 / 2 ? 0 : -EDOM;
}

static int stacks(void *arg)
{
    struct co_group g;

    co_group_init(&g, 0);
    for (int i = 0; i < 50; i++)
        co_group_start(&g, deep_main, NULL);
    return co_group_wait(&g);
}

START_TEST(each_has_a_stack_of_its_own)
{
    ck_assert_int_eq(runtime_run(rt, stacks, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("co");
    TCase *tc = tcase_create("co");

    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_started_coroutine_runs_at_once_and_wakes_later);
    tcase_add_test(tc, a_wake_before_the_suspend_is_remembered);
    tcase_add_test(tc, thousands_share_a_mutex);
    tcase_add_test(tc, a_group_keeps_its_limit_and_its_first_error);
    tcase_add_test(tc, queues_are_first_come_first_served);
    tcase_add_test(tc, writers_are_alone_and_not_starved);
    tcase_add_test(tc, ranges_exclude_where_they_overlap);
    tcase_add_test(tc, hundreds_over_random_ranges);
    tcase_add_test(tc, each_has_a_stack_of_its_own);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

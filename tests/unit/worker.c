/* SPDX-License-Identifier: BSD-3-Clause */
/* worker.c - several workers: hops, messages, the pool, timers, turn hooks, on each real host. */
#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "block/host.h"
#include "block/worker_priv.h"

static const char *const kinds[] = {"threads", "uring", "aio"};

static void with_workers(int kind, unsigned workers, int (*fn)(void *), void *arg)
{
    struct runtime_options o = {.workers = workers, .pool_threads = 3};
    struct runtime *rt;
    int rc = host_open(kinds[kind], &o.host);

    if (rc == -ENOTSUP) {
        printf("skip - %s is not there\n", kinds[kind]);
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    ck_assert_uint_eq(runtime_workers(rt), workers);
    ck_assert_uint_eq(runtime_pool_threads(rt), 3);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(runtime_run(rt, fn, arg), 0);
    runtime_close(rt);
    host_close(o.host);
}

static struct worker *nth(unsigned index)
{
    return runtime_worker(worker_self()->runtime, index);
}

/* --- hops ------------------------------------------------------------------------------------- */

struct ping {
    struct worker *expect;
    uint64_t count;
    unsigned depth;
};

static int ping_there(void *arg)
{
    struct ping *p = arg;

    ck_assert_ptr_eq(worker_self(), p->expect);
    p->count++;
    if (p->depth) { /* and on to the next worker */
        struct ping further = {
            .expect = nth((p->expect->index + 1) % runtime_workers(p->expect->runtime)),
            .depth = p->depth - 1};
        ck_assert_int_eq(co_on(further.expect, ping_there, &further), 42);
        p->count += further.count;
        ck_assert_ptr_eq(worker_self(), p->expect);
    }
    if (p->count % 3 == 0)
        co_yield ();
    return 42;
}

static int pinger(void *arg)
{
    struct worker *home = worker_self();

    for (unsigned i = 0; i < 30; i++) {
        struct ping p = {.expect = nth(i % 3), .depth = i % 5};
        ck_assert_int_eq(co_on(p.expect, ping_there, &p), 42);
        ck_assert_uint_eq(p.count, i % 5 + 1);
        ck_assert_ptr_eq(worker_self(), home);
    }
    return 0;
}

static int many_pingers(void *arg)
{
    struct co_group g;

    co_group_init(&g, 0);
    for (int i = 0; i < 60; i++)
        co_group_start(&g, pinger, NULL);
    return co_group_wait(&g);
}

static int hops(void *arg)
{
    return many_pingers(NULL) | co_on(nth(1), many_pingers, NULL) |
           co_on(nth(2), many_pingers, NULL);
}

START_TEST(coroutines_hop_between_workers)
{
    with_workers(_i, 3, hops, NULL);
}
END_TEST

/* --- messages --------------------------------------------------------------------------------- */

#define SENDERS 3
#define NOTES   2000

struct note {
    struct worker_msg msg;
    unsigned sender, number;
    struct notes *all;
};

struct notes {
    struct worker *to;
    unsigned next[SENDERS], arrived;
    struct note note[SENDERS][NOTES];
};

static void note_arrived(struct worker_msg *msg)
{
    struct note *n = container_of(msg, struct note, msg);

    ck_assert_ptr_eq(worker_self(), n->all->to);
    ck_assert_uint_eq(n->all->next[n->sender]++, n->number); /* each sender's in order */
    n->all->arrived++;
}

static int send_notes(void *arg)
{
    struct notes *all = arg;
    unsigned sender = worker_self()->index;

    for (unsigned i = 0; i < NOTES; i++) {
        struct note *n = &all->note[sender][i];
        *n = (struct note){.msg.fn = note_arrived, .sender = sender, .number = i, .all = all};
        worker_post(all->to, &n->msg);
        if (i % 100 == 0)
            co_yield ();
    }
    return 0;
}

struct remote {
    struct worker *w;
    int (*fn)(void *arg);
    void *arg;
};

static int run_remote(void *arg)
{
    struct remote *r = arg;

    return co_on(r->w, r->fn, r->arg);
}

static int messages(void *arg)
{
    static struct notes all;
    struct remote r[SENDERS];
    struct co_group g;

    memset(&all, 0, sizeof(all));
    all.to = worker_self();
    co_group_init(&g, 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        r[i] = (struct remote){nth(i), send_notes, &all};
        co_group_start(&g, run_remote, &r[i]);
    }
    ck_assert_int_eq(co_group_wait(&g), 0);
    while (all.arrived < SENDERS * NOTES)
        co_yield ();
    return 0;
}

START_TEST(messages_arrive_once_and_in_order)
{
    with_workers(_i, SENDERS, messages, NULL);
}
END_TEST

/* --- the pool --------------------------------------------------------------------------------- */

struct burn {
    atomic_uint *now, *peak;
    unsigned n;
};

static int burn(void *arg)
{
    struct burn *b = arg;
    unsigned now = atomic_fetch_add(b->now, 1) + 1, peak = atomic_load(b->peak);

    while (now > peak && !atomic_compare_exchange_weak(b->peak, &peak, now))
        continue;
    ck_assert_ptr_null(worker_self());
    usleep(200);
    atomic_fetch_sub(b->now, 1);
    return (int)b->n;
}

static int burner(void *arg)
{
    struct burn *b = arg;

    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(co_offload(burn, b), (int)b->n);
    return 0;
}

static int offloads(void *arg)
{
    static atomic_uint now, peak;
    struct burn burns[100];
    struct co_group g;

    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(burns); i++) {
        burns[i] = (struct burn){&now, &peak, i};
        co_group_start(&g, burner, &burns[i]);
    }
    int rc = co_group_wait(&g);
    ck_assert_uint_le(atomic_load(&peak), 3); /* as many as were asked for */
    return rc;
}

START_TEST(work_goes_to_the_pool_and_comes_back)
{
    with_workers(_i, 1, offloads, NULL);
}
END_TEST

/* --- lanes: jobs of many workers, one at a time, in the order in which they came ----------------
 */

struct turn {
    struct pool_lane *lane;
    atomic_uint *now, *ran;
    struct worker *home;
    unsigned n, last; /* last: how many had run when this one last did */
};

static int turn_job(void *arg)
{
    struct turn *t = arg;

    ck_assert_uint_eq(atomic_fetch_add(t->now, 1), 0);
    unsigned ran = atomic_fetch_add(t->ran, 1) + 1;
    ck_assert_uint_gt(ran, t->last);
    t->last = ran;
    if (ran % 16 == 0)
        usleep(100);
    ck_assert_uint_eq(atomic_fetch_sub(t->now, 1), 1);
    return (int)t->n;
}

static int turns_there(void *arg)
{
    struct turn *t = arg;

    for (int i = 0; i < 20; i++)
        ck_assert_int_eq(co_blocking_in_turn(t->lane, turn_job, t), (int)t->n);
    return 0;
}

static int turner(void *arg)
{
    return co_on(((struct turn *)arg)->home, turns_there, arg);
}

static int take_turns(void *arg)
{
    struct pool_lane *lanes = mem_zalloc(2 * sizeof(*lanes));
    atomic_uint now[2] = {0}, ran[2] = {0};
    struct turn turns[60];
    struct co_group g;

    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(turns); i++) {
        turns[i] = (struct turn){&lanes[i % 2], &now[i % 2], &ran[i % 2], nth(i % 3), i, 0};
        co_group_start(&g, turner, &turns[i]);
    }
    int rc = co_group_wait(&g);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(atomic_load(&ran[i]), ARRAY_LEN(turns) / 2 * 20);
        ck_assert(!lanes[i].busy && !lanes[i].first && !lanes[i].last);
    }
    mem_free(lanes); /* who answers last must not look at it any more */
    return rc;
}

START_TEST(jobs_of_a_lane_take_turns)
{
    with_workers(_i, 3, take_turns, NULL);
}
END_TEST

/* --- timers ----------------------------------------------------------------------------------- */

#define TIMERS 500

struct alarm {
    struct timer t;
    bool cancelled, fired;
    struct alarms *all;
    unsigned index;
};

struct alarms {
    struct alarm alarm[TIMERS];
    uint64_t last;
    unsigned last_index, fired;
};

static void alarm_fired(struct timer *t)
{
    struct alarm *a = container_of(t, struct alarm, t);

    ck_assert(!a->cancelled && !a->fired);
    ck_assert_uint_ge(worker_now(), t->at_ns);
    ck_assert_uint_ge(t->at_ns, a->all->last);
    if (t->at_ns == a->all->last)
        ck_assert_uint_gt(a->index, a->all->last_index); /* in order of arming */
    a->all->last = t->at_ns;
    a->all->last_index = a->index;
    a->fired = true;
    a->all->fired++;
}

static int timers(void *arg)
{
    static struct alarms all;
    unsigned seed = 5, expect = 0;
    uint64_t now = worker_now();

    memset(&all, 0, sizeof(all));
    for (unsigned i = 0; i < TIMERS; i++) {
        struct alarm *a = &all.alarm[i];
        seed = seed * 1103515245 + 12345;
        a->all = &all;
        a->index = i;
        timer_arm(&a->t, now + 50000000, alarm_fired); /* then moved */
        timer_arm(&a->t, now + 1000000 + (seed >> 16) % 50 * 100000, alarm_fired);
    }
    for (unsigned i = 0; i < TIMERS; i++) {
        seed = seed * 1103515245 + 12345;
        all.alarm[i].cancelled = (seed >> 16) % 4 == 0;
        if (all.alarm[i].cancelled)
            timer_cancel(&all.alarm[i].t);
        else
            expect++;
    }
    co_sleep(10000000);
    ck_assert_uint_eq(all.fired, expect);
    timer_cancel(&all.alarm[0].t); /* no longer armed: nothing happens */
    ck_assert_uint_eq(worker_next_timer(worker_self()), UINT64_MAX);
    uint64_t before = worker_now();
    co_sleep(3000000);
    uint64_t took = worker_now() - before;
    ck_assert_uint_ge(took, 3000000);
    return 0;
}

START_TEST(timers_fire_in_order_and_not_early)
{
    with_workers(_i, 1, timers, NULL);
}
END_TEST

/* --- turn hooks ------------------------------------------------------------------------------- */

struct batch {
    struct turn_hook hook;
    unsigned collected, runs, sent;
    struct co_queue done;
};

static void batch_end(struct turn_hook *h)
{
    struct batch *b = container_of(h, struct batch, hook);

    b->runs++;
    b->sent += b->collected;
    b->collected = 0;
    co_queue_wake_all(&b->done);
}

static int collect(void *arg)
{
    struct batch *b = arg;

    b->collected++;
    worker_at_turn_end(&b->hook, batch_end);
    worker_at_turn_end(&b->hook, batch_end);
    co_queue_wait(&b->done);
    return 0;
}

static void every_turn(struct turn_hook *h)
{
    struct batch *b = container_of(h, struct batch, hook);

    b->runs++;
    if (b->collected)
        worker_at_turn_end(h, every_turn);
}

static int hooks(void *arg)
{
    struct batch b = {0}, steady = {.collected = 1};
    struct co_group g;

    worker_at_turn_end(&steady.hook, every_turn);
    for (int i = 0; i < 20; i++)
        co_yield ();
    ck_assert_uint_ge(steady.runs, 1);
    co_sleep(1000000);
    steady.runs = 0;
    co_sleep(5000000);
    ck_assert_uint_le(steady.runs, 10); /* it does not keep the loop awake */
    ck_assert_uint_ge(steady.runs, 1);
    steady.collected = 0;
    while (steady.hook.armed)
        co_sleep(1000);

    for (unsigned round = 1; round <= 3; round++) {
        co_group_init(&g, 0);
        for (int i = 0; i < 50; i++)
            co_group_start(&g, collect, &b);
        ck_assert_int_eq(co_group_wait(&g), 0);
        ck_assert_uint_eq(b.runs, round);
        ck_assert_uint_eq(b.sent, round * 50);
    }
    return 0;
}

START_TEST(what_a_turn_collects_is_sent_at_its_end)
{
    with_workers(_i, 1, hooks, NULL);
}
END_TEST

/* --- buffers ---------------------------------------------------------------------------------- */

static int buffers(void *arg)
{
    static const size_t sizes[] = {1, 4096, 4097, 65536, 1 << 20, 9 << 20, 20 << 20};
    void *held[64];

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        unsigned n = sizes[i] > MiB ? 3 : 64;
        for (int round = 0; round < 3; round++) {
            for (unsigned k = 0; k < n; k++) {
                held[k] = buf_get(sizes[i]);
                ck_assert_ptr_nonnull(held[k]);
                ck_assert_uint_eq((uintptr_t)held[k] % 4096, 0);
                memset(held[k], (int)k, MIN(sizes[i], 8192));
            }
            for (unsigned k = 0; k < n; k++) {
                ck_assert_uint_eq(*(uint8_t *)held[k], k);
                buf_put(held[k], sizes[i]);
            }
        }
    }
    buf_put(NULL, 1);
    return 0;
}

START_TEST(buffers_are_aligned_and_apart)
{
    with_workers(_i, 1, buffers, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("worker");
    TCase *tc = tcase_create("worker");
    int n = ARRAY_LEN(kinds);

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, coroutines_hop_between_workers, 0, n);
    tcase_add_loop_test(tc, messages_arrive_once_and_in_order, 0, n);
    tcase_add_loop_test(tc, work_goes_to_the_pool_and_comes_back, 0, n);
    tcase_add_loop_test(tc, jobs_of_a_lane_take_turns, 0, n);
    tcase_add_loop_test(tc, timers_fire_in_order_and_not_early, 0, n);
    tcase_add_loop_test(tc, what_a_turn_collects_is_sent_at_its_end, 0, n);
    tcase_add_loop_test(tc, buffers_are_aligned_and_apart, 0, n);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

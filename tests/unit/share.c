/* SPDX-License-Identifier: BSD-3-Clause */
/* share.c - weights, budgets and minimums in virtual time, over a disk that does so many requests
 * at a time and takes so long for each. */
#include <check.h>
#include <stdlib.h>

#include "block/host_sim.h"
#include "block/share.h"
#include "tests/lib/on_host.h"

#define MS     1000000ULL
#define SECOND (1000 * MS)
#define USERS  4

/* A disk with a few arms and a queue in front of them. */
struct disk {
    unsigned free;
    uint64_t service_ns;
    struct co_queue queue;
};

struct user {
    struct share_wish wish;
    unsigned depth;     /* requests in flight; 0: quiet, one every... */
    uint64_t period_ns; /* ... so often */
    uint64_t bytes;     /* of each; 0: 4 KiB */
    /* what is expected, 0: anything: requests a second; milliseconds of the slowest 1 % */
    unsigned least, most;
    double p99_ms;
};

struct scene {
    const char *name;
    struct share_budget budget;
    unsigned arms;
    uint64_t service_ns;
    unsigned seconds;
    struct user users[USERS]; /* ends with a weight of 0 */
};

struct play;
struct actor {
    struct play *play;
    const struct user *user;
    struct share *share;
    uint64_t done;
    unsigned samples;
    double ms[4096];
};

struct play {
    const struct scene *scene;
    struct disk disk;
    uint64_t end;
    struct co_group group;
    struct actor actors[USERS];
};

static void co_disk(struct disk *d)
{
    if (d->free == 0)
        co_queue_wait(&d->queue); /* and is handed the arm */
    else
        d->free--;
    co_sleep(d->service_ns);
    if (!co_queue_wake_one(&d->queue))
        d->free++;
}

static void co_request(struct actor *a)
{
    struct share_ticket t;
    uint64_t began = worker_now();

    co_share_begin(a->share, a->user->bytes ? a->user->bytes : 4096, &t);
    co_disk(&a->play->disk);
    co_share_end(a->share, &t);
    a->done += worker_now() <= a->play->end;
    if (!a->user->depth && a->samples < ARRAY_LEN(a->ms))
        a->ms[a->samples++] = (double)(worker_now() - began) / MS;
}

static int co_flood(void *arg)
{
    struct actor *a = arg;
    while (worker_now() < a->play->end)
        co_request(a);
    return 0;
}

static int co_quiet(void *arg)
{
    struct actor *a = arg;
    for (uint64_t next = worker_now(); next < a->play->end; next += a->user->period_ns) {
        if (next > worker_now())
            co_sleep(next - worker_now());
        co_request(a);
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void judge(const struct scene *s, struct actor *a)
{
    const struct user *u = a->user;
    unsigned rate = (unsigned)(a->done / s->seconds);
    qsort(a->ms, a->samples, sizeof(a->ms[0]), compare);
    double p99 = a->samples ? a->ms[a->samples - 1 - a->samples / 100] : 0;

    printf("# %s: weight %u: %u a second, p99 %.2f ms\n", s->name, u->wish.weight, rate, p99);
    ck_assert_msg(rate >= u->least && (!u->most || rate <= u->most),
                  "%s: weight %u: %u a second, wanted %u to %u", s->name, u->wish.weight, rate,
                  u->least, u->most);
    ck_assert_msg(!u->p99_ms || p99 <= u->p99_ms, "%s: p99 is %.2f ms, wanted %.2f", s->name, p99,
                  u->p99_ms);
}

static int co_play(void *arg)
{
    const struct scene *s = arg;
    struct play *p = calloc(1, sizeof(*p));
    struct share_group *g = share_group_new(&s->budget);

    must(p && g);
    p->scene = s;
    p->disk = (struct disk){.free = s->arms, .service_ns = s->service_ns};
    p->end = worker_now() + s->seconds * SECOND;
    co_group_init(&p->group, 0);
    for (unsigned i = 0; i < USERS && s->users[i].wish.weight; i++) {
        struct actor *a = &p->actors[i];
        *a = (struct actor){
            .play = p, .user = &s->users[i], .share = share_join(g, &s->users[i].wish)};
        must(a->share);
        for (unsigned k = 0; k < a->user->depth; k++)
            co_group_start(&p->group, co_flood, a);
        if (!a->user->depth)
            co_group_start(&p->group, co_quiet, a);
    }
    co_group_wait(&p->group);
    for (unsigned i = 0; i < USERS && p->actors[i].share; i++) {
        judge(s, &p->actors[i]);
        share_leave(p->actors[i].share);
    }
    share_group_free(g);
    free(p);
    return 0;
}

static int in_simulator(int (*fn)(void *), void *arg)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1}, &h), 0);
    int rc = on_this_host(h, fn, arg);
    host_close(h);
    return rc;
}

/* A disk of 4 arms and 1 ms does 4,000 a second. */
static const struct scene scenes[] = {
    {"nobody holds it back", {0}, 4, MS, 4, {{{.weight = 100}, .depth = 64, .least = 3700}}},
    {"an equal share",
     {0},
     4,
     MS,
     4,
     {{{.weight = 100}, .depth = 64, .least = 1800, .most = 2100},
      {{.weight = 100}, .depth = 8, .least = 1800, .most = 2100}}},
    {"weights",
     {0},
     4,
     MS,
     4,
     {{{.weight = 100}, .depth = 32, .least = 500, .most = 620},
      {{.weight = 200}, .depth = 32, .least = 1000, .most = 1200},
      {{.weight = 400}, .depth = 32, .least = 2050, .most = 2350}}},
    {"large requests cost more",
     {0},
     4,
     MS,
     4,
     {{{.weight = 100}, .depth = 32, .bytes = 15 * 64 * KiB, .most = 400},
      {{.weight = 100}, .depth = 32, .least = 2500}}},
    {"a budget is shared",
     {.iops = 1000},
     64,
     MS,
     4,
     {{{.weight = 100}, .depth = 64, .least = 325, .most = 355},
      {{.weight = 100}, .depth = 64, .least = 325, .most = 355},
      {{.weight = 100}, .depth = 64, .least = 325, .most = 355}}},
    {"what one leaves others take",
     {.iops = 1000},
     64,
     MS,
     4,
     {{{.weight = 100}, .period_ns = 10 * MS, .least = 99, .most = 101},
      {{.weight = 100}, .depth = 64, .least = 880, .most = 930}}},
    {"a budget of bytes",
     {.bps = 4 * MiB},
     64,
     MS,
     4,
     {{{.weight = 300}, .depth = 64, .bytes = 64 * KiB, .least = 46, .most = 52},
      {{.weight = 100}, .depth = 64, .bytes = 64 * KiB, .least = 15, .most = 19}}},
    {"own limits",
     {0},
     4,
     MS,
     4,
     {{{.weight = 100, .iops = 100}, .depth = 16, .least = 99, .most = 103},
      {{.weight = 100, .bps = MiB}, .depth = 16, .bytes = 4096, .least = 254, .most = 270},
      {{.weight = 100}, .depth = 64, .least = 3200}}},
    {"a minimum holds against weight",
     {0},
     4,
     MS,
     4,
     {{{.weight = 1, .min_iops = 500}, .depth = 8, .least = 495, .most = 560},
      {{.weight = 10000}, .depth = 64, .least = 3000}}},
    {"a minimum holds against the budget",
     {.iops = 1000},
     64,
     MS,
     4,
     {{{.weight = 1, .min_iops = 300}, .depth = 8, .least = 299, .most = 330},
      {{.weight = 10000}, .depth = 64, .least = 660, .most = 710}}},
    /* alone it would see 1 ms */
    {"a quiet one beside a flood",
     {0},
     4,
     MS,
     8,
     {{{.weight = 100}, .period_ns = 7 * MS, .least = 142, .p99_ms = 2.0},
      {{.weight = 100}, .depth = 64, .least = 3300}}},
    {"a quiet one beside three floods",
     {0},
     4,
     MS,
     8,
     {{{.weight = 100, .min_iops = 150}, .period_ns = 7 * MS, .least = 142, .p99_ms = 2.0},
      {{.weight = 100}, .depth = 64, .least = 1050},
      {{.weight = 100}, .depth = 64, .least = 1050},
      {{.weight = 100}, .depth = 64, .least = 1050}}},
    {"a quiet one beside a budget that is spent",
     {.iops = 2000},
     64,
     MS,
     8,
     {{{.weight = 100, .min_iops = 150}, .period_ns = 7 * MS, .least = 142, .p99_ms = 1.5},
      {{.weight = 100}, .depth = 64, .least = 1800, .most = 1900}}},
};

START_TEST(shares_come_out_as_told)
{
    ck_assert_int_eq(in_simulator(co_play, (void *)&scenes[_i]), 0);
}
END_TEST

/* --- changes while requests wait --- */

struct one {
    struct share *share;
    bool passed;
    struct share_ticket ticket;
};

static int co_one(void *arg)
{
    struct one *o = arg;
    co_share_begin(o->share, 4096, &o->ticket);
    o->passed = true;
    return 0;
}

static int co_changes(void *arg)
{
    struct share_group *slow = share_group_new(&(struct share_budget){.depth = 1});
    struct share_group *fast = share_group_new(&(struct share_budget){.depth = 100});
    struct share *a = share_join(slow, &(struct share_wish){.weight = 100});
    struct one ones[4] = {{.share = a}, {.share = a}, {.share = a}, {.share = a}};
    struct co_group g;

    must(slow && fast && a);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < 4; i++)
        co_group_start(&g, co_one, &ones[i]);
    co_sleep(SECOND);
    must(ones[0].passed && !ones[1].passed);
    share_group_set(slow, &(struct share_budget){.depth = 2}); /* more room at once */
    co_sleep(1);
    must(ones[1].passed && !ones[2].passed);
    share_move(a, fast); /* what waits goes with it */
    co_group_wait(&g);
    must(ones[3].passed && share_group_count(slow) == 0);
    for (unsigned i = 0; i < 4; i++)
        co_share_end(a, &ones[i].ticket);
    share_leave(a);
    share_group_free(slow);
    share_group_free(fast);
    return 0;
}

START_TEST(changes_hold_at_once)
{
    ck_assert_int_eq(in_simulator(co_changes, NULL), 0);
}
END_TEST

START_TEST(words)
{
    struct share_wish w = {0};
    struct share_budget b = {0};
    ck_assert_int_eq(share_wish_word(&w, "weight", "250", NULL), 0);
    ck_assert_int_eq(share_wish_word(&w, "bps", "10M", NULL), 0);
    ck_assert_int_eq(share_budget_word(&b, "iops", "1000", NULL), 0);
    ck_assert(w.weight == 250 && w.bps == 10 * MiB && b.iops == 1000);
    ck_assert_int_eq(share_wish_word(&w, "weight", "0", NULL), -ERANGE);
    ck_assert_int_eq(share_wish_word(&w, "weight", "10001", NULL), -ERANGE);
    ck_assert_int_eq(share_wish_word(&w, "depth", "1", NULL), -ENOENT);
    ck_assert_int_lt(share_budget_word(&b, "iops", "many", NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("share");
    TCase *tc = tcase_create("share");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, shares_come_out_as_told, 0, ARRAY_LEN(scenes));
    tcase_add_test(tc, changes_hold_at_once);
    tcase_add_test(tc, words);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* pieces.c - pieces of a disk in flight: as many as may be, each once; errors and the end of the
 * job stop the walk. */
#include <check.h>

#include "block/pieces.h"
#include "tests/lib/on_host.h"

#define DISK  (64 * KiB)
#define PIECE (4 * KiB)

struct world {
    unsigned running, most, done;
    uint64_t fails_at; /* UINT64_MAX: none */
    bool seen[DISK / PIECE];
    struct job job;
};

static int co_work(struct piece *p)
{
    struct world *w = p->all->arg;
    unsigned turns = 1 + (unsigned)(p->offset / PIECE * 7 % 5);
    w->running++;
    w->most = MAX(w->most, w->running);
    while (turns--)
        co_yield ();
    w->running--;
    ck_assert(!w->seen[p->offset / PIECE]);
    w->seen[p->offset / PIECE] = true;
    ck_assert_uint_eq(p->kind, p->offset / PIECE % 3);
    ck_assert_uint_eq(p->bytes, PIECE);
    w->done++;
    return p->offset == w->fails_at ? -EIO : 0;
}

static uint64_t co_walk(struct world *w, unsigned limit, int *rc)
{
    struct pieces p = {.co_work = co_work, .arg = w, .job = &w->job, .limit = limit};
    uint64_t at = 0;
    pieces_init(&p);
    for (; at < DISK && !pieces_stopped(&p); at += PIECE)
        pieces_give(&p, at, PIECE, at / PIECE % 3);
    *rc = pieces_wait(&p);
    ck_assert_uint_eq(w->running, 0);
    return at;
}

static int co_all(void *arg)
{
    static const unsigned limits[] = {1, 2, 8, PIECES_MAX};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct world w = {.fails_at = UINT64_MAX};
        int rc;
        ck_assert_uint_eq(co_walk(&w, limits[i], &rc), DISK);
        ck_assert_int_eq(rc, 0);
        ck_assert_uint_eq(w.most, limits[i]);
        ck_assert_uint_eq(w.done, DISK / PIECE);
        ck_assert_uint_eq(w.job.done, DISK);
    }
    return 0;
}

static int co_error(void *arg)
{
    struct world w = {.fails_at = 2 * PIECE};
    int rc;
    ck_assert_uint_lt(co_walk(&w, 2, &rc), DISK);
    ck_assert_int_eq(rc, -EIO);
    ck_assert_uint_eq(w.job.done, (w.done - 1) * PIECE); /* what failed does not count */
    return 0;
}

static int co_end(void *arg)
{
    struct world w = {.fails_at = UINT64_MAX, .job.cancel_asked = true};
    int rc;
    ck_assert_uint_eq(co_walk(&w, 4, &rc), 0);
    ck_assert_int_eq(rc, -ECANCELED);
    return 0;
}

START_TEST(pieces_in_flight)
{
    static int (*const runs[])(void *) = {co_all, co_error, co_end};
    on_host("threads", runs[_i], NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pieces");
    TCase *t = tcase_create("pieces");
    SRunner *r = srunner_create(s);
    tcase_add_loop_test(t, pieces_in_flight, 0, 3);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}

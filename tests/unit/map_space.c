/* SPDX-License-Identifier: BSD-3-Clause */
/* map_space.c - the set of owned units against an array of flags. */
#include "imgfmt/map_space.h"

#include <check.h>
#include <stdlib.h>

#define UNITS 300

struct truth {
    bool owned[UNITS], touched[UNITS];
};

static uint64_t first_free(const struct truth *t, uint64_t from)
{
    while (from < UNITS && t->owned[from])
        from++;
    return from;
}

static void check_same(const struct map_space *s, const struct truth *t)
{
    uint64_t count = 0, next = 0;
    bool same = true;
    for (uint64_t i = 0; i < UNITS; i++) {
        same &= map_space_owned(s, i) == t->owned[i];
        count += t->owned[i];
        if (t->owned[i])
            next = i + 1;
    }
    ck_assert(same);
    ck_assert_uint_eq(s->count, count);
    ck_assert_uint_eq(s->next, next);
    ck_assert_uint_le(s->lowest, first_free(t, 0));
}

static void take_some(struct map_space *s, struct truth *t, uint64_t span)
{
    uint64_t from = (uint64_t)rand() % 4 ? 0 : (uint64_t)rand() % UNITS, expected = from, n = 0;
    while (n < span && expected + n < UNITS) {
        if (t->owned[expected + n]) {
            expected += n + 1;
            n = 0;
        } else {
            n++;
        }
    }
    uint64_t first = map_space_find(s, from, span);
    ck_assert_uint_eq(first, expected);
    if (first + span > UNITS)
        return;
    ck_assert_int_eq(map_space_own(s, first, span), 0);
    for (uint64_t i = first; i < first + span; i++)
        t->owned[i] = t->touched[i] = true;
}

START_TEST(every_unit_has_one_owner)
{
    struct map_space s = {0};
    struct truth t = {0};
    srand(1);
    for (int step = 0; step < 4000; step++) {
        uint64_t unit = (uint64_t)rand() % UNITS;
        if (t.owned[unit]) {
            map_space_let_go(&s, unit);
            t.owned[unit] = false;
        } else if (rand() % 4 == 0) {
            take_some(&s, &t, 1 + (uint64_t)rand() % 9);
        }
        check_same(&s, &t);
    }
    map_space_drop(&s);
}
END_TEST

START_TEST(owning_twice_counts_once)
{
    struct map_space s = {0};
    ck_assert_int_eq(map_space_own(&s, 70, 10), 0);
    ck_assert_int_eq(map_space_own(&s, 75, 10), 0);
    ck_assert_uint_eq(s.count, 15);
    ck_assert_uint_eq(s.next, 85);
    ck_assert_uint_eq(map_space_find(&s, 0, 71), 85);
    ck_assert_uint_eq(map_space_find(&s, 0, 70), 0);
    ck_assert_int_eq(map_space_own(&s, 0, 70), 0);
    ck_assert_uint_eq(map_space_find(&s, 0, 1), 85);
    ck_assert_uint_eq(s.lowest, 85);
    ck_assert_int_eq(map_space_own(&s, MAP_SPACE_MOST, 1), -EFBIG);
    map_space_reset(&s);
    ck_assert(!map_space_owned(&s, 3) && s.count == 0);
    map_space_drop(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("map_space");
    TCase *t = tcase_create("all");
    tcase_add_test(t, every_unit_has_one_owner);
    tcase_add_test(t, owning_twice_counts_once);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

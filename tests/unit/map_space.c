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
    for (uint64_t i = 0; i < UNITS; i++) {
        ck_assert(map_space_owned(s, i) == t->owned[i]);
        count += t->owned[i];
        if (t->owned[i])
            next = i + 1;
    }
    ck_assert_uint_eq(s->count, count);
    ck_assert_uint_eq(s->next, next);
    ck_assert_uint_le(s->lowest, first_free(t, 0));
}

static void take_run(struct map_space *s, struct truth *t, uint64_t want)
{
    uint64_t first, count = want, expected = first_free(t, 0);
    bool reused;
    int rc = map_space_take_run(s, UNITS, &count, &first, &reused);
    if (expected == UNITS) {
        ck_assert_int_eq(rc, -ENOSPC);
        return;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(first, expected);
    ck_assert(count >= 1 && count <= want && first + count <= UNITS);
    for (uint64_t i = first; i < first + count; i++) {
        ck_assert(!t->owned[i]);
        ck_assert(t->touched[i] == reused);
        t->owned[i] = t->touched[i] = true;
    }
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
            take_run(&s, &t, 1 + (uint64_t)rand() % 9);
        }
        check_same(&s, &t);
    }
    map_space_drop(&s);
}
END_TEST

START_TEST(a_full_range_is_said)
{
    struct map_space s = {0};
    uint64_t unit;
    for (uint64_t i = 0; i < 5; i++)
        ck_assert_int_eq(map_space_take(&s, 0, 5, &unit), 0);
    ck_assert_int_eq(map_space_take(&s, 0, 5, &unit), -ENOSPC);
    ck_assert_int_eq(map_space_take(&s, 7, 9, &unit), 0);
    ck_assert_uint_eq(unit, 7);
    map_space_let_go(&s, 3);
    ck_assert_int_eq(map_space_take(&s, 0, 5, &unit), 0);
    ck_assert_uint_eq(unit, 3);
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
    tcase_add_test(t, a_full_range_is_said);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

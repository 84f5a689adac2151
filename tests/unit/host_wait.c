/* SPDX-License-Identifier: BSD-3-Clause */
/* host_wait.c - when a worker waits awake: as long as that saves more than it costs. */
#include <check.h>

#include "block/host_os.h"

#define SLEEP 1000 /* ns that a sleep costs */

START_TEST(looking_in_vain_becomes_rare)
{
    static const unsigned skips[] = {1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 1023, 1023};
    struct os_wait w = {.sleep_ns = SLEEP};

    for (size_t i = 0; i < ARRAY_LEN(skips); i++) {
        os_wait_looked(&w, false, 2 * SLEEP);
        ck_assert_uint_eq(w.skip, skips[i]);
        w.skip = 0;
    }
    os_wait_looked(&w, true, SLEEP / 2);
    ck_assert_uint_eq(w.skip, 0);
    os_wait_looked(&w, false, 2 * SLEEP);
    ck_assert_uint_eq(w.skip, 1); /* what was is forgiven */
}
END_TEST

START_TEST(what_was_saved_may_be_spent)
{
    struct os_wait w = {.sleep_ns = SLEEP};
    unsigned vain = 0;

    for (int i = 0; i < 1000; i++) {
        os_wait_looked(&w, true, SLEEP / 10);
        ck_assert_uint_eq(w.skip, 0);
    }
    for (; w.skip == 0; vain++)
        os_wait_looked(&w, false, 2 * SLEEP);
    ck_assert_uint_eq(vain, 5); /* the eight sleeps that are kept at most, and one */
}
END_TEST

START_TEST(finding_something_late_is_no_gain)
{
    struct os_wait w = {.sleep_ns = SLEEP};

    os_wait_looked(&w, true, SLEEP + 1);
    ck_assert_uint_eq(w.skip, 1);
    os_wait_looked(&w, true, SLEEP + 1);
    ck_assert_uint_eq(w.skip, 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("host_wait");
    TCase *tc = tcase_create("host_wait");
    tcase_add_test(tc, looking_in_vain_becomes_rare);
    tcase_add_test(tc, what_was_saved_may_be_spent);
    tcase_add_test(tc, finding_something_late_is_no_gain);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_array.c - arrays that live, over disks in memory: every byte against a model, members that
 * fail while it is written to, and what is made of them afterwards. */
#include <check.h>
#include <stdio.h>

#include "tests/lib/raid_rig.h"

static const struct {
    int level;
    uint32_t layout;
    unsigned disks;
    bool redundant;
} kinds[] = {
    {RAID_LINEAR, 0, 3, false},
    {0, RAID0_ORIGINAL, 3, false},
    {1, 0, 2, true},
    {1, 0, 3, true},
    {10, 0x102, 4, true},
    {10, 0x102, 3, true},
    {10, 0x201, 4, true},
    {10, 0x10201, 3, true},
    {4, 0, 3, true},
    {5, LEFT_SYMMETRIC, 4, true},
    {6, LEFT_SYMMETRIC, 5, true},
};

/* Opened again with all its members, it shows the same. */
static void co_reopened_is_same(struct rig *r)
{
    co_rig_close(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_rig_compare(r);
    co_rig_end(r);
}

CO_TEST(every_byte_of_every_level)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_work(&r, 8);
        co_rig_compare(&r);
        co_reopened_is_same(&r);
    }
    return 0;
}

/* Without any one member; then the members that were there go on without it, and when it comes back
 * it is stale. */
CO_TEST(any_member_may_be_missing_and_is_stale_then)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned i = 0; kinds[k].redundant && i < kinds[k].disks; i++) {
            struct rig r;
            co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
            co_rig_reopen(&r, 0, 0, NULL);
            co_rig_work(&r, 4);
            co_rig_close(&r);
            co_rig_reopen(&r, 1u << i, 0, NULL);
            co_rig_compare(&r);
            co_rig_work(&r, 4);
            co_reopened_is_same(&r);
        }
    return 0;
}

/* A member that fails at the n-th write is put out; nothing is lost, and it does not come back. */
CO_TEST(a_member_that_fails_is_put_out)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned n = 1; kinds[k].redundant && n < 40; n += 3) {
            struct rig r;
            char fault[100];
            unsigned at = n % kinds[k].disks;
            snprintf(fault, sizeof(fault), "op=write,nth=%u,times=0,errno=EIO", n);
            co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
            co_rig_reopen(&r, 0, at, fault);
            co_rig_work(&r, 4);
            co_rig_compare(&r);
            co_reopened_is_same(&r);
        }
    return 0;
}

/* Sectors that cannot be read are read from another copy, and written back. */
CO_TEST(what_cannot_be_read_comes_from_another_copy)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        if (!kinds[k].redundant)
            continue;
        co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_work(&r, 4);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, "op=read,nth=6,times=5,errno=EIO");
        co_rig_compare(&r);
        for (unsigned i = 0; i < r.disks; i++)
            ck_assert_int_eq(rig_array(&r)->members[i].state, MEMBER_IN_SYNC);
        co_rig_end(&r);
    }
    return 0;
}

/* The last member that has something does not fail: the request does. */
CO_TEST(the_last_member_stays)
{
    struct rig r;
    uint8_t buf[4096] = {1};
    co_rig_init(&r, 1, 0, 2);
    co_rig_reopen(&r, 2, 0, "op=write,nth=3,times=0,errno=EIO");
    int rc = 0;
    for (unsigned i = 0; i < 4 && rc == 0; i++)
        rc = co_blk_write_buf(r.array, i * 4096, buf, sizeof(buf), 0);
    ck_assert_int_eq(rc, -EIO);
    ck_assert_int_eq(co_blk_read_buf(r.array, 0, buf, sizeof(buf)), 0);
    (void)!co_blk_close(r.array, NULL);
    co_rig_drop(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_array");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_byte_of_every_level);
    tcase_add_test(tc, any_member_may_be_missing_and_is_stale_then);
    tcase_add_test(tc, a_member_that_fails_is_put_out);
    tcase_add_test(tc, what_cannot_be_read_comes_from_another_copy);
    tcase_add_test(tc, the_last_member_stays);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

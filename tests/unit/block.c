/* SPDX-License-Identifier: BSD-3-Clause */
/* block.c - the waist: ranges, defaults, alignment, splitting, life of devices. */
#include <check.h>
#include <stdio.h>

#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

static int ranges(void *arg)
{
    struct blk_device *mem = co_open_text(&mem_driver, "size=1000,growable=off", NULL);
    uint8_t buf[2000];
    ck_assert_int_eq(co_blk_read_buf(mem, 990, buf, 10), 0);
    ck_assert_int_eq(co_blk_read_buf(mem, 990, buf, 11), -EINVAL);
    ck_assert_int_eq(co_blk_read_buf(mem, UINT64_MAX, buf, 2), -EINVAL);
    ck_assert_int_eq(co_blk_write_buf(mem, 990, buf, 11, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_write_buf(mem, UINT64_MAX - 1, buf, 11, 0), -EINVAL);
    ck_assert_int_eq(co_blk_write_zeroes(mem, 1000, 1, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_discard(mem, 999, 2), -EINVAL);
    ck_assert_int_eq(co_blk_read_buf(mem, 1000, buf, 0), 0);
    co_close_ok(mem);
    return 0;
}

START_TEST(out_of_range_is_an_error_not_a_crash)
{
    on_host(NULL, ranges, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("block");
    TCase *tc = tcase_create("waist");
    tcase_add_test(tc, out_of_range_is_an_error_not_a_crash);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels.c - Parallels: the header's bounds, with either magic. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "imgfmt/parallels.h"

static struct parallels_header_disk good_header(void)
{
    struct parallels_header_disk raw = {0};
    memcpy(raw.magic, PARALLELS_MAGIC, 16);
    raw.version = le32_of(2);
    raw.cluster_sectors = le32_of(2048);
    raw.entries = le32_of(100);
    raw.sectors = le64_of(100 * MiB / 512);
    raw.data_sector = le32_of(2048);
    return raw;
}

START_TEST(header_bounds)
{
    struct parallels_header out;
    struct blk_error e;
    struct parallels_header_disk raw = good_header();
    ck_assert_int_eq(parallels_header_parse(&raw, 464, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 100 * MiB);
    ck_assert_uint_eq(out.data_offset, MiB);
#define REFUSED(field, value, rc)                                               \
    do {                                                                        \
        struct parallels_header_disk r = good_header();                         \
        r.field = value;                                                        \
        ck_assert_int_eq(parallels_header_parse(&r, 464, false, &out, &e), rc); \
        ck_assert_int_ne(e.text[0], 0);                                         \
    } while (0)
    REFUSED(magic[3], 'x', -EINVAL);
    REFUSED(version, le32_of(1), -ENOTSUP);
    REFUSED(cluster_sectors, le32_of(0), -EINVAL);
    REFUSED(cluster_sectors, le32_of(63), -EINVAL); /* then they are too few for the disk */
    REFUSED(cluster_sectors, le32_of(1 << 20), -EINVAL);
    REFUSED(entries, le32_of(99), -EINVAL);         /* too few for the disk */
    REFUSED(entries, le32_of(101), -EINVAL);        /* past the file */
    REFUSED(entries, le32_of(UINT32_MAX), -EINVAL); /* past the file, and no wrap */
    REFUSED(sectors, le64_of(UINT64_MAX), -EFBIG);
    ck_assert_int_eq(parallels_header_parse(&raw, 463, false, &out, &e), -EINVAL);
}
END_TEST

START_TEST(data_behind_the_table)
{
    struct parallels_header out;
    struct blk_error e;
    struct parallels_header_disk raw = good_header();
    raw.entries = le32_of(112); /* 64 + 448: exactly a sector */
    raw.data_sector = le32_of(1);
    memcpy(raw.magic, PARALLELS_OLD_MAGIC, 16);
    ck_assert_int_eq(parallels_header_parse(&raw, 1024, false, &out, &e), 0);
    ck_assert_uint_eq(out.data_offset, 512);
    ck_assert(out.old);
    raw.entries = le32_of(113);
    ck_assert_int_eq(parallels_header_parse(&raw, 1024, false, &out, &e), -EINVAL);
    raw.data_sector = le32_of(0);
    ck_assert_int_eq(parallels_header_parse(&raw, 1024, false, &out, &e), 0);
    ck_assert_uint_eq(out.data_offset, 1024);
    raw.sectors = le64_of((7ULL << 32) + 8); /* of the old magic 32 bits count */
    ck_assert_int_eq(parallels_header_parse(&raw, 1024, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 4096);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("parallels");
    TCase *t = tcase_create("parallels");
    tcase_add_test(t, header_bounds);
    tcase_add_test(t, data_behind_the_table);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qed.c - QED: the header's bounds. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "imgfmt/qed.h"

static struct qed_header_disk good_header(void)
{
    return (struct qed_header_disk){
        .magic = le32_of(QED_MAGIC),
        .cluster_bytes = le32_of(64 * KiB),
        .table_clusters = le32_of(4),
        .header_clusters = le32_of(1),
        .features = le64_of(QED_BACKING_FILE),
        .l1_offset = le64_of(64 * KiB),
        .size = le64_of(100 * MiB),
        .backing_offset = le32_of(64),
        .backing_bytes = le32_of(1023),
    };
}

START_TEST(header_bounds)
{
    const uint64_t file = 5 * 64 * KiB;
    struct qed_header out;
    struct blk_error e;
    struct qed_header_disk raw = good_header();
    ck_assert_int_eq(qed_header_parse(&raw, file, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 100 * MiB);
    ck_assert_uint_eq(out.backing_bytes, 1023);
    ck_assert_int_eq(qed_header_parse(&raw, file - 1, false, &out, &e), -EINVAL);
#define REFUSED(field, value, rc)                                          \
    do {                                                                   \
        struct qed_header_disk r = good_header();                          \
        r.field = value;                                                   \
        ck_assert_int_eq(qed_header_parse(&r, file, false, &out, &e), rc); \
        ck_assert_int_ne(e.text[0], 0);                                    \
    } while (0)
    REFUSED(magic, le32_of(0), -EINVAL);
    REFUSED(cluster_bytes, le32_of(2 * KiB), -EINVAL);
    REFUSED(cluster_bytes, le32_of(128 * MiB), -EINVAL);
    REFUSED(cluster_bytes, le32_of(65 * KiB), -EINVAL);
    REFUSED(table_clusters, le32_of(0), -EINVAL);
    REFUSED(table_clusters, le32_of(3), -EINVAL);
    REFUSED(table_clusters, le32_of(32), -EINVAL);
    REFUSED(header_clusters, le32_of(0), -EINVAL);
    REFUSED(header_clusters, le32_of(2), -EINVAL); /* over the L1 table */
    REFUSED(header_clusters, le32_of(UINT32_MAX), -EINVAL);
    REFUSED(features, le64_of(8), -ENOTSUP);
    REFUSED(l1_offset, le64_of(0), -EINVAL);
    REFUSED(l1_offset, le64_of(64 * KiB + 512), -EINVAL);
    REFUSED(l1_offset, le64_of(128 * KiB), -EINVAL); /* past the file */
    REFUSED(l1_offset, le64_of(UINT64_MAX - 64 * KiB + 1), -EINVAL);
    REFUSED(size, le64_of(UINT64_MAX), -EINVAL);
    REFUSED(size, le64_of((1ULL << 46) + 512), -EINVAL); /* more than the tables can say */
    REFUSED(size, le64_of(513), -EINVAL);
    REFUSED(backing_bytes, le32_of(0), -EINVAL);
    REFUSED(backing_bytes, le32_of(1024), -EINVAL);
    REFUSED(backing_offset, le32_of(64 * KiB - 1022), -EINVAL);
    REFUSED(backing_offset, le32_of(UINT32_MAX), -EINVAL);
    raw = good_header();
    raw.magic = le32_of(0);
    ck_assert_int_eq(qed_header_parse(&raw, file, true, &out, &e), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("qed");
    TCase *t = tcase_create("qed");
    tcase_add_test(t, header_bounds);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_rewrite.c - unit tests of the header cluster's layout: what a rewrite keeps, where it puts
 * things, what does not fit. */
#include <check.h>
#include <stdlib.h>

#include "imgfmt/qcow2.h"

#define CLUSTER 4096u

static uint8_t old[CLUSTER], made[CLUSTER];

/* A header as a create makes it, with an extension that nobody knows where @unknown > 0. */
static struct qcow2_header header_with(const char *name, size_t unknown)
{
    struct qcow2_header h = {.version = 3,
                             .cluster_bits = 12,
                             .size = 1 * MiB,
                             .l1_entries = 1,
                             .l1_offset = 3 * CLUSTER,
                             .refcount_table_offset = CLUSTER,
                             .refcount_table_clusters = 1,
                             .refcount_order = 4};
    ck_assert_int_eq(
        qcow2_header_build(&h, &(struct qcow2_names){name, name ? "raw" : NULL, NULL}, old), 0);
    qcow2_header_put(&h, false, old);
    if (unknown) {
        be32 head[2] = {be32_of(0x12345678), be32_of((uint32_t)unknown)};
        uint32_t at = qcow2_cover_end(old, &h) - 8;
        ck_assert_ptr_null(name);
        memcpy(old + at, head, 8);
        memset(old + at + 8, 0x5a, unknown);
    }
    return h;
}

static struct qcow2_header parsed(const uint8_t *cluster)
{
    struct qcow2_raw_header in = {.raw = cluster, .bytes = CLUSTER, .file_bytes = 1 * MiB};
    struct qcow2_header h;
    struct blk_error e = {0};
    ck_assert_msg(qcow2_header_parse(&in, &h, &e) == 0, "%s", e.text);
    return h;
}

static bool holds(const uint8_t *cluster, uint32_t type, size_t bytes)
{
    be32 head[2] = {be32_of(type), be32_of((uint32_t)bytes)};
    return memmem(cluster, CLUSTER, head, 8) != NULL;
}

static void expect_name(const char *name)
{
    struct qcow2_header h = parsed(made);
    ck_assert_uint_eq(h.backing_name.bytes, name ? strlen(name) : 0);
    if (name)
        ck_assert_mem_eq(made + h.backing_name.offset, name, strlen(name));
    ck_assert_uint_eq(h.backing_format.bytes, name ? 5 : 0);
    ck_assert_uint_eq(h.size, 1 * MiB);
    ck_assert_uint_eq(h.l1_offset, 3 * CLUSTER);
}

START_TEST(a_name_comes_and_goes)
{
    static const char *const names[] = {"x", "a/longer/name.img", NULL, "again"};
    struct qcow2_header h = header_with("first.img", 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct qcow2_cover c = {
            .header = &h, .backing_name = names[i], .backing_format = names[i] ? "qcow2" : NULL};
        struct qcow2_cover_plan plan = {0};
        ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
        expect_name(names[i]);
        h = parsed(made);
        ck_assert_uint_eq(h.feature_names.bytes, 384);
        ck_assert_uint_eq(qcow2_cover_end(made, &h), plan.end);
        memcpy(old, made, CLUSTER);
    }
}
END_TEST

START_TEST(unknown_extensions_stay)
{
    for (size_t bytes = 1; bytes < 1000; bytes += 37) {
        struct qcow2_header h = header_with(NULL, bytes);
        struct qcow2_cover c = {.header = &h, .backing_name = "name", .backing_format = "qcow2"};
        struct qcow2_cover_plan plan = {0};
        ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
        expect_name("name");
        ck_assert(holds(made, 0x12345678, bytes));
    }
}
END_TEST

START_TEST(a_parked_cover_touches_nothing_in_use)
{
    struct qcow2_header h = header_with(NULL, 300);
    uint32_t end = qcow2_cover_end(old, &h);
    struct qcow2_cover c = {.header = &h, .backing_name = "name", .backing_format = "qcow2"};
    struct qcow2_cover_plan plan = {.park = (uint32_t)align_up(end, 8)}, home = {0};
    ck_assert_uint_gt(end, QCOW2_SECTOR);
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
    expect_name("name");
    ck_assert(holds(made, QCOW2_EXT_FILLER, plan.park - h.header_bytes - 8));
    ck_assert(holds(made, 0x12345678, 300));
    for (uint32_t i = QCOW2_SECTOR; i < end; i++)
        ck_assert_uint_eq(made[i], 0);
    /* The filler goes with the next rewrite. */
    h = parsed(made);
    memcpy(old, made, CLUSTER);
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &home, made), 0);
    expect_name("name");
    ck_assert(!holds(made, QCOW2_EXT_FILLER, plan.park - h.header_bytes - 8));
    ck_assert_uint_lt(home.end, plan.end);
}
END_TEST

START_TEST(versions_change_the_fixed_part)
{
    struct qcow2_header h = header_with("base", 0), two = h, three;
    struct qcow2_cover c = {.header = &two, .backing_name = "base", .backing_format = "qcow2"};
    struct qcow2_cover_plan plan = {.drop_names = true};
    two.version = 2;
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
    expect_name("base");
    ck_assert_uint_eq(parsed(made).header_bytes, QCOW2_V2_BYTES);
    ck_assert_uint_eq(parsed(made).feature_names.bytes, 0);
    memcpy(old, made, CLUSTER);
    h = three = parsed(made);
    three.version = 3;
    c.header = &three;
    plan = (struct qcow2_cover_plan){0};
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
    expect_name("base");
    ck_assert_uint_eq(parsed(made).header_bytes, sizeof(struct qcow2_header_disk));
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    char name[1100];
    struct qcow2_header h = header_with(NULL, 0);
    struct qcow2_cover c = {.header = &h, .backing_name = name, .backing_format = "raw"};
    struct qcow2_cover_plan plan = {0};
    memset(name, 'n', sizeof(name));
    name[1024] = '\0';
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), -ENOSPC);
    name[1023] = '\0';
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
    plan.park = CLUSTER - 1024;
    ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), -ENOSPC);
}
END_TEST

START_TEST(the_list_of_bitmaps_comes_goes_and_stays)
{
    struct qcow2_header h = header_with(NULL, 300);
    uint8_t list[QCOW2_EXT_BITMAPS_BYTES];
    for (unsigned turn = 0; turn < 5; turn++) { /* none, set, kept by another change, set, gone */
        bool kept = turn == 2, gone = turn == 0 || turn == 4;
        struct qcow2_cover c = {.header = &h,
                                .backing_name = "name",
                                .backing_format = "qcow2",
                                .set_bitmaps = !kept,
                                .bitmaps = gone || kept ? NULL : list};
        struct qcow2_cover_plan plan = {0};
        if (!kept)
            memset(list, (int)turn + 1, sizeof(list));
        ck_assert_int_eq(qcow2_cover_build(&c, old, &h, &plan, made), 0);
        expect_name("name");
        h = parsed(made);
        ck_assert_uint_eq(h.bitmaps.bytes, gone ? 0 : sizeof(list));
        if (!gone) {
            ck_assert_mem_eq(made + h.bitmaps.offset, list, sizeof(list));
            ck_assert_uint_le(h.bitmaps.offset + h.bitmaps.bytes, QCOW2_SECTOR);
        }
        ck_assert(holds(made, 0x12345678, 300));
        memcpy(old, made, CLUSTER);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("qcow2_rewrite");
    TCase *t = tcase_create("cover");
    tcase_add_test(t, a_name_comes_and_goes);
    tcase_add_test(t, unknown_extensions_stay);
    tcase_add_test(t, a_parked_cover_touches_nothing_in_use);
    tcase_add_test(t, versions_change_the_fixed_part);
    tcase_add_test(t, what_does_not_fit_is_refused);
    tcase_add_test(t, the_list_of_bitmaps_comes_goes_and_stays);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_meta.c - labels, headers and the model of a group: known bytes, what is built is parsed
 * again, and what would let a volume lie outside, on another or on itself is refused. */
#include <check.h>
#include <stdlib.h>

#include "volumes/lvm_meta.h"

#define UUID_A "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
#define UUID_B "bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb"
#define UUID_C "cccccc-cccc-cccc-cccc-cccc-cccc-cccccc"

START_TEST(the_checksum_is_lvms)
{
    ck_assert_uint_eq(lvm_crc(LVM_CRC_INITIAL, "123456789", 9), 0x4991cf02);
}
END_TEST

START_TEST(uuids_go_both_ways)
{
    char uuid[LVM_UUID + 1], text[LVM_UUID_TEXT];
    ck_assert(lvm_uuid_parse("JUy5cu-ao8m-xaYP-lTHJ-vuKM-LZ8B-iv1Und", uuid));
    ck_assert_str_eq(uuid, "JUy5cuao8mxaYPlTHJvuKMLZ8Biv1Und");
    lvm_uuid_text(uuid, text);
    ck_assert_str_eq(text, "JUy5cu-ao8m-xaYP-lTHJ-vuKM-LZ8B-iv1Und");
    ck_assert(!lvm_uuid_parse("JUy5cu-ao8m-xaYP-lTHJ-vuKM-LZ8B-iv1Un", uuid));
    ck_assert(!lvm_uuid_parse("JUy5cu-ao8m-xaYP-lTHJ-vuKM-LZ8B-iv1Und1", uuid));
    ck_assert(!lvm_uuid_parse("JUy5cu-ao8m-xaYP-lTHJ-vuKM-LZ8B-iv1U*d", uuid));
}
END_TEST

static void make_label(uint8_t *sectors, bool used)
{
    struct lvm_label_disk raw;
    lvm_label_build("JUy5cuao8mxaYPlTHJvuKMLZ8Biv1Und", 16 * MiB, used, &raw);
    memset(sectors, 0, 2048);
    memcpy(sectors + 512, &raw, sizeof(raw));
}

START_TEST(labels_go_both_ways)
{
    uint8_t sectors[2048];
    struct lvm_label l;
    struct blk_error e = {0};
    for (int used = 0; used < 2; used++) {
        make_label(sectors, used);
        ck_assert_int_eq(lvm_label_find(sectors, sizeof(sectors), &l, &e), 0);
        ck_assert_str_eq(l.uuid, "JUy5cuao8mxaYPlTHJvuKMLZ8Biv1Und");
        ck_assert_uint_eq(l.sector, 1);
        ck_assert_uint_eq(l.device_bytes, 16 * MiB);
        ck_assert_uint_eq(l.area_count, 1);
        ck_assert_uint_eq(l.areas[0].offset, 4096);
        ck_assert_uint_eq(l.areas[0].bytes, 1044480);
        ck_assert_int_eq(l.used, used);
        lvm_label_set_used((struct lvm_label_disk *)(sectors + 512), &l, !used);
        ck_assert_int_eq(lvm_label_find(sectors, sizeof(sectors), &l, &e), 0);
        ck_assert_int_eq(l.used, !used);
    }
}
END_TEST

START_TEST(damaged_labels_are_none)
{
    uint8_t sectors[2048];
    struct lvm_label l;
    struct blk_error e = {0};
    for (size_t i = 0; i < 512; i++) { /* each byte counts */
        make_label(sectors, true);
        sectors[512 + i] ^= 1;
        ck_assert_int_eq(lvm_label_find(sectors, sizeof(sectors), &l, &e), -ENOENT);
    }
    make_label(sectors, true); /* another sector than it says */
    memmove(sectors + 1024, sectors + 512, 512);
    memset(sectors + 512, 0, 512);
    ck_assert_int_eq(lvm_label_find(sectors, sizeof(sectors), &l, &e), -ENOENT);
}
END_TEST

START_TEST(areas_go_both_ways)
{
    struct lvm_area_disk raw;
    struct lvm_span area = {4096, 1044480};
    struct lvm_locn there = {.offset = 512, .bytes = 1500, .crc = 77}, l;
    struct blk_error e = {0};
    lvm_area_build(&area, &there, NULL, &raw);
    ck_assert_int_eq(lvm_area_parse(&raw, &area, &l, &e), 0);
    ck_assert(l.offset == 512 && l.bytes == 1500 && l.crc == 77 && !l.ignored);
    raw.zero[400] = 1;
    ck_assert_int_eq(lvm_area_parse(&raw, &area, &l, &e), -EBADMSG);
    struct lvm_locn outside[] = {{.offset = 500, .bytes = 10},
                                 {.offset = 1044480, .bytes = 1},
                                 {.offset = 512, .bytes = 1044480},
                                 {.offset = UINT64_MAX, .bytes = UINT64_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(outside); i++) {
        lvm_area_build(&area, &outside[i], NULL, &raw);
        ck_assert_int_eq(lvm_area_parse(&raw, &area, &l, &e), -EINVAL);
    }
}
END_TEST

/* --- the model ---------------------------------------------------------------------------------
 */

#define SEG(from, count, words) \
    "segment1 { start_extent = " #from " extent_count = " #count " " words " }"
#define LV(name, words)      \
    name " { id = \"" UUID_C \
         "\" status = [\"READ\", \"WRITE\", \"VISIBLE\"] segment_count = 1 " words " }"
#define LINEAR(count, pe) \
    SEG(0, count, "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", " #pe "]")
#define GROUP(keys, lvs)                                                                        \
    "vg { id = \"" UUID_A "\" seqno = 4 status = [\"RESIZEABLE\", \"READ\", \"WRITE\"] "        \
    "extent_size = 2048 " keys " physical_volumes { pv0 { id = \"" UUID_B "\" pe_start = 2048 " \
    "pe_count = 10 } } logical_volumes { " lvs " } } "                                          \
    "contents = \"Text Format Volume Group\" version = 1"

static int read_group(const char *text, struct lvm_vg **vg, struct blk_error *e)
{
    struct lvm_text t;
    ck_assert_msg(lvm_text_parse(text, strlen(text), &t, e) == 0, "%s", e->text);
    return lvm_vg_read(&t, vg, e);
}

START_TEST(a_group_is_read)
{
    struct lvm_vg *vg;
    struct blk_error e = {0};
    int rc = read_group(GROUP("", LV("b", LINEAR(3, 0)) LV("a", LINEAR(7, 3))), &vg, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    ck_assert_uint_eq(vg->extent_bytes, MiB);
    ck_assert_uint_eq(vg->seqno, 4);
    ck_assert_ptr_null(vg->foreign);
    const struct lvm_lv *a = lvm_find_lv(vg, "a");
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_null(lvm_find_lv(vg, "c"));
    ck_assert_uint_eq(lvm_lv_bytes(vg, a), 7 * MiB);
    ck_assert_uint_eq(a->segments[0].areas[0].extent, 3);
    ck_assert_ptr_eq(a->segments[0].areas[0].pv, &vg->pvs[0]);
    lvm_vg_drop(vg);
}
END_TEST

static const struct {
    const char *text, *says;
} refused[] = {
    {GROUP("", LV("a", LINEAR(11, 0))), "reaches past the end of pv0"},
    {GROUP("", LV("a", LINEAR(1, 10))), "reaches past the end of pv0"},
    {GROUP("", LV("a", LINEAR(2, 9223372036854775807))), "reaches past the end of pv0"},
    {GROUP("", LV("a", LINEAR(5, 0)) LV("b", LINEAR(5, 4))), "belongs to a and to b"},
    {GROUP("", LV("a", LINEAR(0, 0))), "no valid start_extent"},
    {GROUP("", LV("a", LINEAR(1, 0)) LV("a", LINEAR(1, 1))), "two logical volumes are called a"},
    {GROUP("", LV("a/b", LINEAR(1, 0))), "no valid name"},
    {GROUP("", LV("a", "")), "as many segments as it says"},
    {GROUP("", LV("a", SEG(1, 1, "type = \"striped\" stripe_count = 1 stripes = [\"pv0\", 0]"))),
     "leave a gap"},
    {GROUP("", LV("a", SEG(0, 1, "type = \"striped\" stripe_count = 1 stripes = [\"pv1\", 0]"))),
     "volume that is not there"},
    {GROUP("", LV("a", SEG(0, 1, "type = \"striped\" stripe_count = 1 stripes = [\"a\", 0]"))),
     "stands on itself"},
    {GROUP("", LV("a", SEG(0, 1, "type = \"striped\" stripe_count = 1 stripes = [\"b\", 0]"))
                   LV("b", SEG(0, 1, "type = \"mirror\" mirror_count = 1 mirrors = [\"a\", 0]"))),
     "stands on itself"},
    {GROUP("", LV("a", SEG(0, 3,
                           "type = \"striped\" stripe_count = 2 stripe_size = 8 "
                           "stripes = [\"pv0\", 0, \"pv0\", 4]"))),
     "not equally long"},
    {GROUP("", LV("a", SEG(0, 2,
                           "type = \"striped\" stripe_count = 2 stripe_size = 9 "
                           "stripes = [\"pv0\", 0, \"pv0\", 4]"))),
     "no valid size"},
    {GROUP("", LV("a", SEG(0, 1, "type = \"raid1\" device_count = 1 raids = [\"pv0\", \"pv0\"]"))),
     "not a logical volume"},
    {GROUP("", LV("a", SEG(0, 1,
                           "type = \"thin\" thin_pool = \"p\" transaction_id = 0 "
                           "device_id = 1"))),
     "volume that is not there"},
    {GROUP("", LV("a", SEG(0, 9223372036854775807, "type = \"zero\""))), "too big"},
};

START_TEST(what_cannot_be_is_refused)
{
    struct lvm_vg *vg;
    struct blk_error e = {0};
    ck_assert_int_lt(read_group(refused[_i].text, &vg, &e), 0);
    ck_assert_msg(strstr(e.text, refused[_i].says) != NULL, "%s", e.text);
}
END_TEST

/* Each volume stands twice on the one before: 2^30 devices. */
START_TEST(towers_are_not_built)
{
    static const char level[] =
        LV("l%d", SEG(0, 2,
                      "type = \"striped\" stripe_count = 2 "
                      "stripe_size = 8 stripes = [\"l%d\", 0, \"l%d\", 0]"));
    struct blk_error e = {0};
    struct lvm_vg *vg;
    char *lvs = mem_printf("%s", LV("l0", LINEAR(10, 0)));
    for (int i = 1; i < 15; i++) {
        char *one = mem_printf(level, i, i - 1, i - 1), *more = mem_printf("%s%s", lvs, one);
        mem_free(lvs);
        mem_free(one);
        lvs = more;
    }
    char *text = mem_printf(GROUP("", "%s"), lvs);
    ck_assert_msg(read_group(text, &vg, &e) == 0, "%s", e.text);
    ck_assert_uint_gt(lvm_find_lv(vg, "l14")->weight, LVM_WEIGHT_MOST);
    lvm_vg_drop(vg);
    mem_free(lvs);
    mem_free(text);
}
END_TEST

static const struct {
    const char *text, *says;
} foreign[] = {
    {GROUP("system_id = \"other\"", ""), "system_id"},
    {GROUP("lock_type = \"sanlock\"", ""), "shared"},
};

START_TEST(groups_of_others_are_only_read)
{
    struct lvm_vg *vg;
    struct blk_error e = {0};
    ck_assert_msg(read_group(foreign[_i].text, &vg, &e) == 0, "%s", e.text);
    ck_assert_msg(vg->foreign && strstr(vg->foreign, foreign[_i].says), "%s", foreign[_i].says);
    lvm_vg_drop(vg);
}
END_TEST

#define HIDDEN(name, words) \
    name " { id = \"" UUID_C "\" status = [\"READ\", \"WRITE\"] segment_count = 1 " words " }"

/* A thin volume in a pool whose data lies on a mirror of the old kind. */
START_TEST(mirrors_below_keep_from_writing)
{
    struct lvm_vg *vg;
    struct blk_error e = {0};
    int rc = read_group(
        GROUP("", LV("t", SEG(0, 9,
                              "type = \"thin\" thin_pool = \"p\" transaction_id = 0 "
                              "device_id = 1"))
                      LV("p", SEG(0, 2,
                                  "type = \"thin-pool\" metadata = \"m\" pool = \"d\" "
                                  "transaction_id = 1 chunk_size = 128")) HIDDEN("m", LINEAR(1, 0))
                          HIDDEN("d", SEG(0, 2,
                                          "type = \"mirror\" mirror_count = 2 "
                                          "mirrors = [\"d0\", 0, \"d1\", 0]"))
                              HIDDEN("d0", LINEAR(2, 4)) HIDDEN("d1", LINEAR(2, 2))),
        &vg, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    ck_assert_ptr_null(lvm_part_fixed(lvm_find_lv(vg, "m")));
    ck_assert_ptr_null(lvm_part_fixed(lvm_find_lv(vg, "d1")));
    static const char *const fixed[] = {"d", "p", "t"};
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
        const char *why = lvm_part_fixed(lvm_find_lv(vg, fixed[i]));
        ck_assert_msg(why && strstr(why, "mirror"), "%s", fixed[i]);
    }
    lvm_vg_drop(vg);
}
END_TEST

START_TEST(names_are_those_of_lvm)
{
    struct blk_error e = {0};
    ck_assert_int_eq(lvm_check_name("a-b.c+d_0", true, &e), 0);
    ck_assert_int_eq(lvm_check_name("snapshot1", false, &e), 0);
    static const char *const no[] = {"",    "-a",        ".",       "..",      "a b",
                                     "a/b", "snapshot1", "x_tdata", "\xc3\xa4"};
    for (size_t i = 0; i < ARRAY_LEN(no); i++)
        ck_assert_int_lt(lvm_check_name(no[i], true, &e), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lvm_meta");
    TCase *t = tcase_create("all");
    tcase_add_test(t, the_checksum_is_lvms);
    tcase_add_test(t, uuids_go_both_ways);
    tcase_add_test(t, labels_go_both_ways);
    tcase_add_test(t, damaged_labels_are_none);
    tcase_add_test(t, areas_go_both_ways);
    tcase_add_test(t, a_group_is_read);
    tcase_add_loop_test(t, what_cannot_be_is_refused, 0, (int)ARRAY_LEN(refused));
    tcase_add_test(t, towers_are_not_built);
    tcase_add_loop_test(t, groups_of_others_are_only_read, 0, (int)ARRAY_LEN(foreign));
    tcase_add_test(t, mirrors_below_keep_from_writing);
    tcase_add_test(t, names_are_those_of_lvm);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

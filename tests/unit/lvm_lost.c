/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_lost.c - what is lost with a physical volume, in the text alone: where an image may go, what
 * stays as it is when there is no room, and what leaves the group. */
#include <check.h>
#include <stdlib.h>

#include "block/block.h"
#include "volumes/lvm_change.h"

#define UUID(c)                                                                       \
    "id = \"" c c c c c c "-" c c c c "-" c c c c "-" c c c c "-" c c c c "-" c c c c \
    "-" c c c c c c "\" "
#define PV(n, c) "pv" n " { " UUID(c) "status = [\"ALLOCATABLE\"] pe_start = 2048 pe_count = 8 } "
#define PART(name, c, pv, at, extents)                                                \
    name " { " UUID(c) "status = [\"READ\", \"WRITE\"] segment_count = 1 segment1 { " \
                       "start_extent = 0 extent_count = " extents                     \
                       " type = \"striped\" stripe_count = 1 stripes = [\"" pv "\", " at "] } } "

static const char text[] = "vg { " UUID(
    "v") "seqno = 1 status = [\"READ\", \"WRITE\"] extent_size = 128 "
         "physical_volumes { " PV("0", "a") PV("1", "b") PV("2", "c") PV(
             "3",
             "d") "} "
                  "logical_volumes { "
                  "r { " UUID(
                      "r") "status = [\"READ\", \"WRITE\", \"VISIBLE\"] segment_count = 1 segment1 "
                           "{ "
                           "start_extent = 0 extent_count = 4 type = \"raid1\" device_count = 2 "
                           "raids = [\"r_rmeta_0\", \"r_rimage_0\", \"r_rmeta_1\", \"r_rimage_1\"] "
                           "} } " PART("r_rmeta_0", "e", "pv0", "0", "1") PART(
                               "r_rimage_0", "f", "pv0", "1",
                               "4") PART("r_rmeta_1", "g", "pv1", "0", "1") PART("r_rimage_1", "h",
                                                                                 "pv1", "1", "4")
                               PART("plain", "i", "pv1", "5", "2") PART(
                                   "full", "j", "pv2", "0",
                                   "4") "} } contents = \"Text Format Volume Group\" version = 1\n";

static struct blk_device here; /* only its address counts */

/* The group without @lost. */
static struct lvm_vg *group_without(unsigned lost)
{
    struct lvm_text tree;
    struct lvm_vg *vg;
    struct blk_error e = {0};
    ck_assert_msg(lvm_text_parse(text, sizeof(text), &tree, &e) == 0, "%s", e.text);
    ck_assert_msg(lvm_vg_read(&tree, &vg, &e) == 0, "%s", e.text);
    for (unsigned i = 0; i < vg->pv_count; i++)
        vg->pvs[i].dev = i == lost ? NULL : &here;
    return vg;
}

static const char *place_of(const struct lvm_vg *vg, const char *lv)
{
    return lvm_find_lv(vg, lv)->segments[0].areas[0].pv->name;
}

static const struct lvm_image_new anew = {
    .lv = "r", .uuids = {"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk", "llllllllllllllllllllllllllllllll"}};

START_TEST(an_image_goes_where_no_other_one_lies)
{
    struct blk_error e = {0};
    struct lvm_vg *vg = group_without(1);
    ck_assert_int_eq(lvm_image_lost(vg, lvm_find_lv(vg, "r"), &e), 1);
    ck_assert_int_eq(lvm_image_replace(&vg, &anew, 1, &e), 0);
    ck_assert_str_eq(place_of(vg, "r_rmeta_1"), "pv3"); /* pv2 has no room for both parts */
    ck_assert_str_eq(place_of(vg, "r_rimage_1"), "pv3");
    ck_assert_str_eq(place_of(vg, "r_rimage_0"), "pv0");
    ck_assert_str_eq(lvm_find_lv(vg, "r_rimage_1")->uuid, anew.uuids[1]);
    ck_assert(lvm_images_marked(lvm_find_lv(vg, "r")));
    ck_assert_int_eq(lvm_image_lost(vg, lvm_find_lv(vg, "r"), &e), -ENOENT);
    lvm_images_unmark(lvm_find_lv(vg, "r"));
    ck_assert(!lvm_images_marked(lvm_find_lv(vg, "r")));
    lvm_vg_drop(vg);
}
END_TEST

START_TEST(without_room_there_is_no_place)
{
    struct blk_error e = {0};
    struct lvm_vg *vg = group_without(1);
    struct lvm_image_new n = anew;
    n.only = (struct lvm_pv *[]){&vg->pvs[0], &vg->pvs[2]};
    n.only_count = 2;
    ck_assert_int_eq(lvm_image_replace(&vg, &n, 1, &e), -ENOSPC);
    ck_assert_int_eq(lvm_image_lost(vg, lvm_find_lv(vg, "plain"), &e), -EINVAL);
    lvm_vg_drop(vg);
}
END_TEST

START_TEST(what_is_lost_leaves_the_group)
{
    struct blk_error e = {0};
    struct lvm_vg *vg = group_without(1);
    ck_assert(lvm_lv_lost(lvm_find_lv(vg, "r")));
    ck_assert(!lvm_lv_lost(lvm_find_lv(vg, "full")));
    ck_assert_int_eq(lvm_vg_drop_lost(&vg, false, &e), -EBUSY);
    ck_assert_int_eq(lvm_vg_drop_lost(&vg, true, &e), 0);
    ck_assert_uint_eq(vg->pv_count, 3);
    ck_assert_ptr_null(lvm_find_lv(vg, "plain"));
    ck_assert_ptr_nonnull(lvm_find_lv(vg, "full"));
    for (size_t i = 0; i < vg->pv_count; i++) /* nobody has another one's device */
        ck_assert_ptr_eq(vg->pvs[i].dev, &here);
    ck_assert_int_eq(lvm_image_lost(vg, lvm_find_lv(vg, "r"), &e), 1);
    ck_assert_int_eq(lvm_image_replace(&vg, &anew, 1, &e), 0);
    ck_assert_str_eq(place_of(vg, "r_rimage_1"), "pv3");
    lvm_vg_drop(vg);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lvm_lost");
    TCase *c = tcase_create("all");
    tcase_add_test(c, an_image_goes_where_no_other_one_lies);
    tcase_add_test(c, without_room_there_is_no_place);
    tcase_add_test(c, what_is_lost_leaves_the_group);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

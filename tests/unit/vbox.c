/* SPDX-License-Identifier: BSD-3-Clause */
/* vbox.c - UUIDs as text and in both orders; the location of a disk in a .vbox file. */
#include "imgfmt/vbox.h"

#include <check.h>

#include "block/uuid.h"

static const uint8_t one[16] = {0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0,    0x11,
                                0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99};
#define ONE "aabbccdd-eeff-0011-2233-445566778899"

START_TEST(uuids)
{
    static const char *const bad[] = {"",
                                      "{" ONE,
                                      ONE "}",
                                      ONE "0",
                                      "{" ONE "} ",
                                      "aabbccdd-eeff-0011-2233-44556677889g",
                                      "aabbccddeeff-0011-2233-445566778899",
                                      "aabbccdd-eeff-0011"};
    static const uint8_t swapped[16] = {0xdd, 0xcc, 0xbb, 0xaa, 0xff, 0xee, 0x11, 0,
                                        0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99};
    uint8_t uuid[16], again[16];
    char text[UUID_TEXT];
    ck_assert(uuid_parse(ONE, uuid));
    ck_assert_mem_eq(uuid, one, 16);
    ck_assert(uuid_parse("{AABBCCDD-EEFF-0011-2233-445566778899}", uuid));
    ck_assert_mem_eq(uuid, one, 16);
    uuid_text(one, text);
    ck_assert_str_eq(text, ONE);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(!uuid_parse(bad[i], uuid), "%s", bad[i]);
    uuid_swap(one, uuid);
    ck_assert_mem_eq(uuid, swapped, 16);
    uuid_swap(uuid, uuid);
    ck_assert_mem_eq(uuid, one, 16);
    uuid_derive(one, 1, uuid);
    uuid_derive(one, 1, again);
    ck_assert_mem_eq(uuid, again, 16);
    uuid_derive(one, 2, again);
    ck_assert_mem_ne(uuid, again, 16);
}
END_TEST

static const struct {
    const char *text, *location; /* NULL: not there */
} lists[] = {
    {"", NULL},
    {"<HardDisk", NULL},
    {"<HardDisk uuid=\"{" ONE "}\" location=\"a.vdi\"/>", "a.vdi"},
    {"<HardDisk location='a &amp; &lt;b&gt; &quot;c&apos; &d.vdi' format=\"VDI\" uuid='" ONE "'>",
     "a & <b> \"c' &d.vdi"},
    {"<HardDisk uuid=\"{" ONE "}\"/>", NULL},
    {"<HardDisk uuid=\"{" ONE "}\" location=\"\"/>", NULL},
    {"<HardDisk uuid=\"{" ONE "}\" location=\"a", NULL},
    {"<HardDisk uuid=\"{" ONE "}\" location=\"a>", NULL},
    {"<HardDisk uuid=\"{00000000-eeff-0011-2233-445566778899}\" location=\"no\"/>"
     "<HardDisk uuid=\"{" ONE "}\"\n location=\"yes\"/>",
     "yes"},
    {"<HardDisk note=\" location='no'\" uuid=\"{" ONE "}\" location=\"yes\"/>", "yes"},
    {"<HardDisk xuuid=\"{" ONE "}\" location=\"no\"/>", NULL},
    {"<DVDImage uuid=\"{" ONE "}\" location=\"no\"/>", NULL},
};

START_TEST(locations)
{
    char *found;
    ck_assert_int_eq(vbox_location(lists[_i].text, strlen(lists[_i].text), one, &found), 0);
    if (lists[_i].location) {
        ck_assert_ptr_nonnull(found);
        ck_assert_str_eq(found, lists[_i].location);
    } else {
        ck_assert_ptr_null(found);
    }
    mem_free(found);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vbox");
    TCase *tc = tcase_create("vbox");
    tcase_add_test(tc, uuids);
    tcase_add_loop_test(tc, locations, 0, (int)ARRAY_LEN(lists));
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

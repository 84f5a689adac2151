/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd.c - VHD: footer and header bounds, the geometry, names in UTF-16. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "block/utf16.h"
#include "imgfmt/vhd.h"

static struct vhd_footer_disk good_footer(void)
{
    struct vhd_footer_disk f = {.cookie = "conectix"};
    f.size = be64_of(100 * MiB);
    f.header_offset = be64_of(512);
    f.type = be32_of(VHD_DYNAMIC);
    memcpy(f.creator, "win ", 4);
    return f;
}

static struct vhd_header_disk good_header(void)
{
    struct vhd_header_disk h = {.cookie = "cxsparse"};
    h.table_offset = be64_of(1536);
    h.entries = be32_of(50);
    h.block_bytes = be32_of(2 * MiB);
    return h;
}

START_TEST(footer_bounds)
{
    struct vhd_header out;
    struct blk_error e;
    struct vhd_footer_disk f = good_footer();
    vhd_seal_footer(&f);
    ck_assert_int_eq(vhd_footer_parse(&f, false, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 100 * MiB);
    f.reserved[0]++;
    ck_assert_int_eq(vhd_footer_parse(&f, false, false, &out, &e), -EINVAL);
#define REFUSED(field, value, rc)                                           \
    do {                                                                    \
        struct vhd_footer_disk r = good_footer();                           \
        r.field = value;                                                    \
        vhd_seal_footer(&r);                                                \
        ck_assert_int_eq(vhd_footer_parse(&r, false, false, &out, &e), rc); \
        ck_assert_int_ne(e.text[0], 0);                                     \
    } while (0)
    REFUSED(cookie[0], 'x', -EINVAL);
    REFUSED(type, be32_of(5), -ENOTSUP);
    REFUSED(size, be64_of(1ULL << 42), -EFBIG);
    REFUSED(size, be64_of(UINT64_MAX), -EFBIG);
}
END_TEST

START_TEST(whose_size_counts)
{
    struct vhd_header out;
    struct blk_error e;
    struct vhd_footer_disk f = good_footer();
    f.cylinders = be16_of(100);
    f.heads = 4;
    f.sectors = 17;
    static const struct {
        char creator[5];
        bool by_size;
    } who[] = {{"vpc ", false}, {"qemu", false}, {"vbox", false}, {"win ", true}, {"qem2", true},
               {"d2v ", true},  {"CTXS", true},  {"tap", true},   {"wa", true}};
    for (size_t i = 0; i < ARRAY_LEN(who); i++) {
        memcpy(f.creator, who[i].creator, 4);
        vhd_seal_footer(&f);
        ck_assert_int_eq(vhd_footer_parse(&f, false, false, &out, &e), 0);
        ck_assert_uint_eq(out.size, who[i].by_size ? 100 * MiB : 100 * 4 * 17 * 512);
        ck_assert_int_eq(vhd_footer_parse(&f, true, false, &out, &e), 0);
        ck_assert_uint_eq(out.size, 100 * MiB);
    }
    memcpy(f.creator, "vpc ", 4); /* the largest geometry says nothing */
    f.cylinders = be16_of(65535);
    f.heads = 16;
    f.sectors = 255;
    vhd_seal_footer(&f);
    ck_assert_int_eq(vhd_footer_parse(&f, false, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 100 * MiB);
}
END_TEST

START_TEST(header_bounds)
{
    struct vhd_header out;
    struct blk_error e;
    struct vhd_footer_disk f = good_footer();
    vhd_seal_footer(&f);
    struct vhd_header_disk h = good_header();
    vhd_seal_header(&h);
    ck_assert_int_eq(vhd_footer_parse(&f, false, false, &out, &e), 0);
    ck_assert_int_eq(vhd_header_parse(&h, 1736, &out, &e), 0);
    ck_assert_uint_eq(out.data_from, 1536);
    ck_assert_int_eq(vhd_header_parse(&h, 1735, &out, &e), -EINVAL);
#undef REFUSED
#define REFUSED(field, value)                                            \
    do {                                                                 \
        struct vhd_header_disk r = good_header();                        \
        r.field = value;                                                 \
        vhd_seal_header(&r);                                             \
        ck_assert_int_eq(vhd_header_parse(&r, 1736, &out, &e), -EINVAL); \
        ck_assert_int_ne(e.text[0], 0);                                  \
    } while (0)
    REFUSED(cookie[7], 'x');
    REFUSED(table_offset, be64_of(0));
    REFUSED(table_offset, be64_of(1537));
    REFUSED(table_offset, be64_of(UINT64_MAX - 511));
    REFUSED(entries, be32_of(49));
    REFUSED(entries, be32_of(UINT32_MAX));
    REFUSED(block_bytes, be32_of(0));
    REFUSED(block_bytes, be32_of(3 * MiB));
    REFUSED(block_bytes, be32_of(1U << 31));
    h.rest[3]++;
    ck_assert_int_eq(vhd_header_parse(&h, 1736, &out, &e), -EINVAL);
}
END_TEST

START_TEST(geometry)
{
    static const struct {
        uint64_t sectors;
        unsigned cylinders, heads, per_track;
    } want[] = {
        {68, 1, 4, 17},                      /* the smallest */
        {102400, 1003, 6, 17},               /* 50 MiB */
        {20971520, 20805, 16, 63},           /* 10 GiB */
        {65535ULL * 16 * 63, 65535, 16, 63}, /* the last of 63 */
        {1ULL << 40, 65535, 16, 255},        /* no geometry says it */
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct vhd_geometry g = vhd_geometry_of(want[i].sectors);
        ck_assert_uint_eq(g.heads, want[i].heads);
        ck_assert_uint_eq(g.sectors, want[i].per_track);
        ck_assert_uint_eq(g.cylinders, want[i].cylinders);
    }
}
END_TEST

START_TEST(names)
{
    static const char *const good[] = {"a", ".\\b\xc3\xa4se.vhd", "\xe2\x82\xac",
                                       "\xf0\x9f\x98\x80x"};
    static const char *const bad[] = {"\xff", "\xc0\x80", "\xed\xa0\x80", "\xe2\x82",
                                      "\xf4\x90\x80\x80"};
    uint8_t raw[64];
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        for (int big = 0; big < 2; big++) {
            size_t n = utf16_from_text(good[i], big, raw, sizeof(raw));
            ck_assert_uint_gt(n, 0);
            char *back = utf16_to_text(raw, n, big);
            ck_assert_str_eq(back, good[i]);
            mem_free(back);
        }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_uint_eq(utf16_from_text(bad[i], false, raw, sizeof(raw)), 0);
    ck_assert_uint_eq(utf16_from_text("abc", false, raw, 4), 0);
    static const uint8_t lone[] = {0x00, 0xd8, 0x41, 0x00}, low[] = {0x00, 0xdc};
    ck_assert_ptr_null(utf16_to_text(lone, 4, false));
    ck_assert_ptr_null(utf16_to_text(lone, 2, false));
    ck_assert_ptr_null(utf16_to_text(low, 2, false));
    ck_assert_ptr_null(utf16_to_text("\0\0", 2, false));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vhd");
    TCase *t = tcase_create("vhd");
    tcase_add_test(t, footer_bounds);
    tcase_add_test(t, whose_size_counts);
    tcase_add_test(t, header_bounds);
    tcase_add_test(t, geometry);
    tcase_add_test(t, names);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

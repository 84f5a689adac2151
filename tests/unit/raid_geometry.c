/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_geometry.c - the shapes of arrays: the tables of docs/raid.md, and for every level, layout
 * and number of disks that each byte has its places, no two the same, and all roles agree. */
#include <check.h>
#include <stdio.h>

#include "block/base.h"
#include "raid/geometry.h"

#define CHUNK (4 * KiB)

static struct raid_shape shape_of(int level, uint32_t layout, unsigned disks, uint64_t chunks)
{
    struct raid_wanted w = {
        .level = level, .layout = layout, .disks = disks, .used = chunks * CHUNK};
    struct raid_shape s;
    struct blk_error e = {0};
    if (raid_level_by_number(level)->has_chunk)
        w.chunk = CHUNK;
    ck_assert_msg(raid_shape_init(&s, &w, &e) == 0, "%s", e.text);
    return s;
}

/* The chunk numbers of the first rows, as the pictures show them; -1: parity or nothing. */
static void expect_rows(const struct raid_shape *s, unsigned rows, const int *picture)
{
    int got[64];
    ck_assert_uint_le(rows * s->disks, ARRAY_LEN(got));
    for (unsigned i = 0; i < rows * s->disks; i++)
        got[i] = -1;
    for (uint64_t k = 0; k < s->size / CHUNK; k++)
        for (unsigned c = 0; c < s->copies; c++) {
            struct raid_piece p = raid_place(s, k * CHUNK, c);
            if (p.offset / CHUNK < rows)
                got[p.offset / CHUNK * s->disks + p.disk] = (int)k;
        }
    for (unsigned i = 0; i < rows * s->disks; i++)
        ck_assert_msg(got[i] == picture[i], "%s row %u disk %u: %d, not %d", s->level->name,
                      i / s->disks, i % s->disks, got[i], picture[i]);
}

START_TEST(the_pictures_of_the_layouts)
{
    static const struct {
        int level;
        uint32_t layout;
        unsigned disks, chunks, rows;
        int picture[32];
    } rows[] = {
        {10, 0x102, 3, 4, 4, {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5}},
        {10, 0x201, 4, 4, 4, {0, 1, 2, 3, 4, 5, 6, 7, 3, 0, 1, 2, 7, 4, 5, 6}},
        {10, 0x10201, 4, 4, 4, {0, 1, 2, 3, 3, 0, 1, 2, 4, 5, 6, 7, 7, 4, 5, 6}},
        {10, 0x202, 4, 4, 4, {0, 0, 1, 1, 2, 2, 3, 3, 1, 1, 0, 0, 3, 3, 2, 2}},
        {5, LEFT_SYMMETRIC, 4, 4, 4, {0, 1, 2, -1, 4, 5, -1, 3, 8, -1, 6, 7, -1, 9, 10, 11}},
        {5, LEFT_ASYMMETRIC, 3, 3, 3, {0, 1, -1, 2, -1, 3, -1, 4, 5}},
        {5, PARITY_FIRST, 3, 2, 2, {-1, 0, 1, -1, 2, 3}},
        {4, 0, 3, 2, 2, {0, 1, -1, 2, 3, -1}},
        {6, LEFT_SYMMETRIC, 4, 4, 4, {-1, 0, 1, -1, 2, 3, -1, -1, 5, -1, -1, 4, -1, -1, 6, 7}},
        {6, LEFT_SYMMETRIC_6, 4, 3, 3, {0, 1, -1, -1, 3, -1, 2, -1, -1, 4, 5, -1}},
        {1, 0, 2, 2, 2, {0, 0, 1, 1}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct raid_shape s =
            shape_of(rows[i].level, rows[i].layout, rows[i].disks, rows[i].chunks);
        if (rows[i].level == 6 && rows[i].layout == LEFT_SYMMETRIC)
            ck_assert_uint_eq(raid_row(&s, 0).p, 3); /* Q is disk 0 */
        expect_rows(&s, rows[i].rows, rows[i].picture);
        raid_shape_drop(&s);
    }
}
END_TEST

/* No place twice, all inside the members, pieces no longer than what is contiguous. */
static void check_places(const struct raid_shape *s, uint64_t unit)
{
    uint64_t units = s->member / unit;
    auto_free bool *taken = mem_array(units * s->disks, sizeof(*taken));
    ck_assert_ptr_nonnull(taken);
    for (uint64_t at = 0; at < s->size; at += unit)
        for (unsigned c = 0; c < s->copies; c++) {
            struct raid_piece p = raid_place(s, at, c);
            ck_assert_uint_lt(p.disk, s->disks);
            ck_assert_uint_le(p.offset + unit, s->member);
            ck_assert_uint_ge(p.bytes, unit);
            bool *t = &taken[p.offset / unit * s->disks + p.disk];
            ck_assert_msg(!*t, "%s layout %x, %u disks: twice", s->level->name, s->layout,
                          s->disks);
            *t = true;
            struct raid_piece last = raid_place(s, at + unit - 1, c);
            ck_assert(last.disk == p.disk && last.offset == p.offset + unit - 1);
        }
}

START_TEST(no_place_is_had_twice)
{
    static const int levels[] = {1, 4, 5, 6, 10};
    unsigned shapes = 0;
    for (size_t l = 0; l < ARRAY_LEN(levels); l++)
        for (uint32_t layout = 0; layout < (levels[l] == 10 ? 0x60000 : 21); layout++)
            for (unsigned disks = 2; disks <= 9; disks++) {
                struct raid_wanted w = {.level = levels[l], .layout = layout, .disks = disks};
                struct raid_shape s;
                struct blk_error e = {0};
                if (layout > 0x404 && (layout & 0xffff) > 0x404)
                    continue;
                w.chunk = levels[l] == 1 ? 0 : CHUNK;
                w.used = 24 * CHUNK;
                if (raid_shape_init(&s, &w, &e) < 0)
                    continue;
                check_places(&s, CHUNK);
                raid_shape_drop(&s);
                shapes++;
            }
    ck_assert_uint_gt(shapes, 500);
}
END_TEST

/* Each disk of a row is one of data, P and Q; index and disk are inverse; powers are not shared. */
START_TEST(the_roles_of_a_row_agree)
{
    unsigned checked = 0;
    for (int level = 4; level <= 6; level++)
        for (uint32_t layout = 0; layout < 32; layout++)
            for (unsigned disks = 2; disks <= 12; disks++) {
                struct raid_wanted w = {
                    .level = level, .layout = layout, .disks = disks, .chunk = CHUNK, .used = MiB};
                struct raid_shape s;
                struct blk_error e = {0};
                if (raid_shape_init(&s, &w, &e) < 0)
                    continue;
                for (uint64_t row = 0; row < 3 * disks; row++) {
                    struct raid_row r = raid_row(&s, row);
                    uint64_t powers = 0;
                    ck_assert(r.p < disks && r.p != r.q);
                    ck_assert((level == 6) == (r.q < disks));
                    ck_assert_uint_eq(raid_row_index(&r, r.p), s.data_disks);
                    for (unsigned i = 0; i < s.data_disks; i++) {
                        uint32_t d = raid_row_disk(&r, i);
                        unsigned power = raid_row_power(&r, d);
                        ck_assert(d < disks && d != r.p && d != r.q);
                        ck_assert_uint_eq(raid_row_index(&r, d), i);
                        ck_assert_uint_lt(power, raid_row_powers(&s));
                        ck_assert(!(powers >> power & 1));
                        powers |= 1ull << power;
                    }
                    checked++;
                }
                raid_shape_drop(&s);
            }
    ck_assert_uint_gt(checked, 3000);
}
END_TEST

START_TEST(powers_follow_the_disks_behind_q)
{
    struct raid_shape s = shape_of(6, LEFT_ASYMMETRIC, 5, 8);
    struct raid_row r = raid_row(&s, 2);
    ck_assert(r.p == 2 && r.q == 3);
    ck_assert(raid_row_disk(&r, 0) == 0 && raid_row_disk(&r, 1) == 1 && raid_row_disk(&r, 2) == 4);
    ck_assert(raid_row_power(&r, 4) == 0 && raid_row_power(&r, 0) == 1 &&
              raid_row_power(&r, 1) == 2);
    raid_shape_drop(&s);
    s = shape_of(6, DDF_ZERO_RESTART, 5, 8);
    r = raid_row(&s, 2);
    ck_assert(r.p == 2 && r.q == 3);
    ck_assert(raid_row_power(&r, 0) == 0 && raid_row_power(&r, 1) == 1 &&
              raid_row_power(&r, 4) == 4);
    raid_shape_drop(&s);
}
END_TEST

/* --- zones -------------------------------------------------------------------------------------
 */

static int zones_of(struct raid_shape *s, int level, uint32_t layout, const uint64_t *members,
                    unsigned disks)
{
    struct raid_wanted w = {
        .level = level, .layout = layout, .disks = disks, .chunk = CHUNK, .members = members};
    struct blk_error e = {0};
    return raid_shape_init(s, &w, &e);
}

START_TEST(members_of_unequal_size_make_zones)
{
    const uint64_t members[] = {5 * CHUNK + 512, 2 * CHUNK, 4 * CHUNK};
    /* role of each chunk: zone 0 has 6 chunks, zone 1 4 chunks, zone 2 one */
    static const unsigned roles[][11] = {
        [RAID0_ORIGINAL] = {0, 1, 2, 0, 1, 2, 0, 2, 0, 2, 0},
        [RAID0_ALTERNATE] = {0, 1, 2, 0, 1, 2, 0, 2, 0, 2, 0},
    };
    for (uint32_t layout = 1; layout <= 2; layout++) {
        struct raid_shape s;
        ck_assert_int_eq(zones_of(&s, 0, layout, members, 3), 0);
        ck_assert_uint_eq(s.size, 11 * CHUNK);
        for (unsigned k = 0; k < 11; k++)
            ck_assert_uint_eq(raid_place(&s, k * CHUNK, 0).disk, roles[layout][k]);
        ck_assert_uint_eq(raid_place(&s, 10 * CHUNK + 7, 0).offset, 4 * CHUNK + 7);
        raid_shape_drop(&s);
    }
}
END_TEST

/* A first zone of an odd number of chunks: then the layouts differ in the second one. */
START_TEST(the_two_layouts_of_level_0_differ)
{
    const uint64_t members[] = {3 * CHUNK, 1 * CHUNK, 3 * CHUNK};
    struct raid_shape s;
    ck_assert_int_eq(zones_of(&s, 0, RAID0_ORIGINAL, members, 3), 0);
    ck_assert_uint_eq(raid_place(&s, 3 * CHUNK, 0).disk, 2); /* chunk 3 of the array: odd */
    ck_assert_uint_eq(raid_place(&s, 4 * CHUNK, 0).disk, 0);
    ck_assert_uint_eq(raid_place(&s, 4 * CHUNK, 0).offset, CHUNK);
    raid_shape_drop(&s);
    ck_assert_int_eq(zones_of(&s, 0, RAID0_ALTERNATE, members, 3), 0);
    ck_assert_uint_eq(raid_place(&s, 3 * CHUNK, 0).disk, 0);
    ck_assert_uint_eq(raid_place(&s, 4 * CHUNK, 0).disk, 2);
    raid_shape_drop(&s);
    ck_assert_int_eq(zones_of(&s, 0, 0, members, 3), -EINVAL); /* which one is not told */
    const uint64_t equal[] = {3 * CHUNK, 3 * CHUNK};
    ck_assert_int_eq(zones_of(&s, 0, 0, equal, 2), 0);
    raid_shape_drop(&s);
}
END_TEST

START_TEST(linear_arrays_are_members_in_order)
{
    const uint64_t members[] = {3 * CHUNK + 100, 1 * CHUNK};
    struct raid_shape s;
    ck_assert_int_eq(zones_of(&s, RAID_LINEAR, 0, members, 2), 0);
    ck_assert_uint_eq(s.size, 4 * CHUNK);
    struct raid_piece p = raid_place(&s, CHUNK + 5, 0);
    ck_assert(p.disk == 0 && p.offset == CHUNK + 5 && p.bytes == 2 * CHUNK - 5);
    p = raid_place(&s, 3 * CHUNK, 0);
    ck_assert(p.disk == 1 && p.offset == 0 && p.bytes == CHUNK);
    raid_shape_drop(&s);
}
END_TEST

/* --- what is enough, what is refused, names ----------------------------------------------------
 */

START_TEST(which_members_may_be_missing)
{
    static const struct {
        int level;
        uint32_t layout;
        unsigned disks, missing; /* missing: bits */
        bool enough;
    } rows[] = {
        {1, 0, 3, 6, true},       {1, 0, 3, 7, false},      {5, 2, 4, 2, true},
        {5, 2, 4, 3, false},      {6, 2, 4, 3, true},       {6, 2, 4, 7, false},
        {4, 0, 3, 4, true},       {10, 0x102, 4, 5, true},  {10, 0x102, 4, 3, false},
        {10, 0x102, 4, 10, true}, {10, 0x201, 4, 5, true},  {10, 0x201, 4, 3, false},
        {10, 0x102, 3, 1, true},  {10, 0x102, 3, 5, false}, {10, 0x103, 3, 6, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct raid_shape s = shape_of(rows[i].level, rows[i].layout, rows[i].disks, 24);
        bool there[8];
        for (unsigned d = 0; d < rows[i].disks; d++)
            there[d] = !(rows[i].missing >> d & 1);
        ck_assert_msg(raid_enough(&s, there) == rows[i].enough, "row %zu", i);
        raid_shape_drop(&s);
    }
}
END_TEST

START_TEST(arrays_that_cannot_be_are_refused)
{
    static const struct raid_wanted bad[] = {
        {.level = 7, .disks = 3, .chunk = CHUNK, .used = MiB},
        {.level = 5, .layout = 6, .disks = 3, .chunk = CHUNK, .used = MiB},
        {.level = 5, .layout = 16, .disks = 3, .chunk = CHUNK, .used = MiB},
        {.level = 6, .layout = 2, .disks = 3, .chunk = CHUNK, .used = MiB},
        {.level = 5, .layout = 2, .disks = 1, .chunk = CHUNK, .used = MiB},
        {.level = 5, .layout = 2, .disks = 3, .chunk = 12 * KiB, .used = MiB},
        {.level = 5, .layout = 2, .disks = 3, .chunk = 2 * KiB, .used = MiB},
        {.level = 5, .layout = 2, .disks = 3, .chunk = MiB, .used = 64 * KiB},
        {.level = 5, .layout = 2, .disks = 300, .chunk = CHUNK, .used = MiB},
        {.level = 5, .layout = 2, .disks = 3, .chunk = CHUNK, .used = UINT64_MAX - 8191},
        {.level = 10, .layout = 0x101, .disks = 4, .chunk = CHUNK, .used = MiB},
        {.level = 10, .layout = 0x105, .disks = 4, .chunk = CHUNK, .used = MiB},
        {.level = 10, .layout = 0x30102, .disks = 4, .chunk = CHUNK, .used = MiB},
        {.level = 10, .layout = 0x10202, .disks = 5, .chunk = CHUNK, .used = MiB},
        {.level = 10, .layout = 0, .disks = 4, .chunk = CHUNK, .used = MiB},
        {.level = 10, .layout = 0x102, .disks = 4, .chunk = CHUNK, .used = INT64_MAX - 4095},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct raid_shape s;
        struct blk_error e = {0};
        ck_assert_msg(raid_shape_init(&s, &bad[i], &e) < 0, "row %zu", i);
        ck_assert_uint_gt(strlen(e.text), 10);
    }
}
END_TEST

START_TEST(layouts_have_the_names_of_mdadm)
{
    static const struct {
        int level;
        uint32_t layout;
        const char *name, *also;
    } rows[] = {
        {5, 2, "left-symmetric", "ls"},
        {6, 18, "left-symmetric-6", "ls_6"},
        {6, 10, "ddf-N-continue", "ddf-nc"},
        {10, 0x102, "n2", "258"},
        {10, 0x201, "f2", "513"},
        {10, 0x10301, "o3", "0x10301"},
        {10, 0x202, "n2f2", "514"},
        {0, 2, "alternate", "2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct raid_level *l = raid_level_by_number(rows[i].level);
        char text[RAID_LAYOUT_TEXT];
        uint32_t layout;
        raid_layout_text(l, rows[i].layout, text);
        ck_assert_str_eq(text, rows[i].name);
        ck_assert(raid_layout_parse(l, rows[i].name, &layout) && layout == rows[i].layout);
        ck_assert(raid_layout_parse(l, rows[i].also, &layout) && layout == rows[i].layout);
    }
    uint32_t none;
    ck_assert(!raid_layout_parse(raid_level_by_number(5), "ls_6", &none));
    ck_assert(!raid_layout_parse(raid_level_by_number(5), "n2", &none));
    ck_assert(!raid_layout_parse(raid_level_by_number(10), "n", &none));
    ck_assert(!raid_layout_parse(raid_level_by_number(10), "", &none));
    ck_assert_ptr_eq(raid_level_by_name("mirror"), raid_level_by_number(1));
    ck_assert_ptr_null(raid_level_by_name("raid7"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("raid_geometry");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, the_pictures_of_the_layouts);
    tcase_add_test(tc, no_place_is_had_twice);
    tcase_add_test(tc, the_roles_of_a_row_agree);
    tcase_add_test(tc, powers_follow_the_disks_behind_q);
    tcase_add_test(tc, members_of_unequal_size_make_zones);
    tcase_add_test(tc, the_two_layouts_of_level_0_differ);
    tcase_add_test(tc, linear_arrays_are_members_in_order);
    tcase_add_test(tc, which_members_may_be_missing);
    tcase_add_test(tc, arrays_that_cannot_be_are_refused);
    tcase_add_test(tc, layouts_have_the_names_of_mdadm);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

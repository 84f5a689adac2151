/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units.c - what table-only formats share, over toy formats: places that somebody else chose,
 * damage and its repair, compacting. Crashes and faults are tests/sweeps/units.c's. */
#include <check.h>

#include "tests/lib/on_host.h"
#include "tests/lib/toy_units.h"

#define SIZE (2 * MiB)

struct rig {
    enum toy_units_kind kind;
    struct blk_device *file, *dev;
    uint64_t seed, cluster;
    uint8_t *model, *buffer;
};

static void open_rig(struct rig *r)
{
    struct blk_error e = {0};
    int rc = co_try_open_text(&toy_units_driver, "", BLK_OPEN_WRITE, blk_ref(r->file), &r->dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    r->cluster = toy_units_map(r->dev)->cluster_bytes;
}

static void set_up(struct rig *r, enum toy_units_kind kind)
{
    struct blk_error e;
    *r = (struct rig){.kind = kind, .seed = 7};
    r->model = mem_zalloc(SIZE);
    r->buffer = mem_alloc(SIZE);
    r->file = co_open_text(&mem_driver, "size=0", NULL);
    ck_assert_int_eq(co_toy_units_create(r->file, kind, SIZE, &e), 0);
    open_rig(r);
}

static void reopen(struct rig *r)
{
    co_close_ok(r->dev);
    open_rig(r);
}

static void tear_down(struct rig *r)
{
    co_close_ok(r->dev);
    co_close_ok(r->file);
    mem_free(r->model);
    mem_free(r->buffer);
}

static void put_cluster(struct rig *r, uint64_t cluster)
{
    uint64_t at = cluster * r->cluster;
    fill_random(&r->seed, r->model + at, r->cluster);
    ck_assert_int_eq(co_blk_write_buf(r->dev, at, r->model + at, r->cluster, 0), 0);
}

static void drop_cluster(struct rig *r, uint64_t cluster)
{
    memset(r->model + cluster * r->cluster, 0, r->cluster);
    ck_assert_int_eq(co_blk_discard(r->dev, cluster * r->cluster, r->cluster), 0);
}

static void compare(struct rig *r)
{
    ck_assert_int_eq(co_blk_read_buf(r->dev, 0, r->buffer, SIZE), 0);
    ck_assert_mem_eq(r->buffer, r->model, SIZE);
}

static struct blk_check check(struct rig *r, bool fix)
{
    struct blk_check c = {.fix_leaks = fix, .fix_errors = fix};
    struct blk_error e;
    ck_assert_msg(co_blk_check(r->dev, &c, &e) == 0, "%s", e.text);
    return c;
}

static void is_clean(struct rig *r)
{
    struct blk_check c = check(r, false);
    ck_assert_uint_eq(c.corruptions, 0);
    ck_assert_uint_eq(c.leaks, 0);
}

/* --- entries changed behind the format's back --- */

static uint64_t entry_at(struct rig *r, uint64_t cluster)
{
    const struct map_shape *s = &toy_units_map(r->dev)->shape;
    if (s->levels == 1)
        return s->root_offset + cluster * 8;
    le64 table;
    ck_assert_int_eq(
        co_blk_read_buf(r->file, s->root_offset + cluster / s->table_entries * 8, &table, 8), 0);
    return le64_get(table) + cluster % s->table_entries * 8;
}

static uint64_t get_word(struct rig *r, uint64_t at)
{
    le64 raw;
    ck_assert_int_eq(co_blk_read_buf(r->file, at, &raw, 8), 0);
    return le64_get(raw);
}

static void put_word(struct rig *r, uint64_t at, uint64_t word)
{
    le64 raw = le64_of(word);
    ck_assert_int_eq(co_blk_write_buf(r->file, at, &raw, 8, 0), 0);
}

/* Puts @word where the entry of @cluster is, with the image closed. */
static void set_entry(struct rig *r, uint64_t cluster, uint64_t word)
{
    uint64_t at = entry_at(r, cluster);
    co_close_ok(r->dev);
    put_word(r, at, word);
    open_rig(r);
}

static uint64_t file_end(struct rig *r)
{
    check(r, false); /* counts */
    const struct map *m = toy_units_map(r->dev);
    return m->units->base + m->units->space.next * m->units->unit_bytes +
           (r->kind == TOY_MOVES ? 512 : 0);
}

static int doubles(void *arg)
{
    struct rig r;
    set_up(&r, *(enum toy_units_kind *)arg);
    put_cluster(&r, 0);
    put_cluster(&r, 9);
    put_cluster(&r, 3);
    reopen(&r);
    set_entry(&r, 9, get_word(&r, entry_at(&r, 3))); /* 9's own place leaks */
    memcpy(r.model + 9 * r.cluster, r.model + 3 * r.cluster, r.cluster);
    compare(&r);
    struct blk_check c = check(&r, false);
    ck_assert_uint_eq(c.corruptions, 1);
    ck_assert_uint_eq(c.leaks, toy_units_map(r.dev)->units->cluster_units);
    ck_assert_uint_eq(c.allocated_clusters, 3);
    uint8_t byte = 1;
    ck_assert_int_eq(co_blk_write_buf(r.dev, 0, &byte, 1, 0), -EROFS);
    reopen(&r);
    c = check(&r, true);
    ck_assert_uint_eq(c.corruptions_fixed, 1);
    ck_assert_uint_eq(c.corruptions + c.leaks, 0);
    compare(&r);
    put_cluster(&r, 3); /* they are two now */
    put_cluster(&r, 20);
    compare(&r);
    reopen(&r);
    compare(&r);
    is_clean(&r);
    tear_down(&r);
    return 0;
}

static int out_of_range(void *arg)
{
    static const uint64_t places[] = {1ULL << 40, UINT64_MAX - 4095, 512, 0x7ffffffffffff000};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        struct rig r;
        set_up(&r, *(enum toy_units_kind *)arg);
        put_cluster(&r, 0);
        put_cluster(&r, 5);
        reopen(&r);
        set_entry(&r, 5, align_down(places[i], 512) | 1);
        struct blk_check c = check(&r, false);
        uint64_t wrong = c.corruptions; /* where there are leads, that of a header is wrong too */
        ck_assert(wrong == 1 || (wrong == 2 && r.kind == TOY_MOVES));
        c = check(&r, true);
        ck_assert_uint_eq(c.corruptions_fixed, wrong);
        ck_assert_uint_eq(c.corruptions + c.leaks, 0);
        memset(r.model + 5 * r.cluster, 0, r.cluster);
        compare(&r);
        put_cluster(&r, 5);
        compare(&r);
        is_clean(&r);
        tear_down(&r);
    }
    return 0;
}

static void put_footer(struct rig *r)
{
    static const char footer[512] = "footer";
    if (r->kind == TOY_MOVES)
        ck_assert_int_eq(co_blk_write_buf(r->file, r->file->size, footer, 512, 0), 0);
}

/* The data of @cluster moves to @to, with what leads it. */
static void relocate(struct rig *r, uint64_t cluster, uint64_t to)
{
    uint8_t lead[512];
    memset(lead, 0xff, sizeof(lead));
    if (r->kind == TOY_MOVES)
        ck_assert_int_eq(co_blk_write_buf(r->file, to - 512, lead, 512, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(r->file, to, r->model + cluster * r->cluster, r->cluster, 0),
                     0);
    put_footer(r);
    set_entry(r, cluster, to | 1);
}

/* Two clusters that somebody put off the boundaries, close together: they share a unit, no byte. */
static int odd_places(void *arg)
{
    struct rig r;
    set_up(&r, *(enum toy_units_kind *)arg);
    for (uint64_t i = 0; i < 8; i++)
        put_cluster(&r, i);
    reopen(&r);
    uint64_t step = r.cluster + (r.kind == TOY_MOVES ? 512 : 0);
    uint64_t free_at = file_end(&r) + 8 * step + 512;
    relocate(&r, 2, free_at);
    relocate(&r, 5, free_at + step);
    reopen(&r);
    ck_assert_uint_eq(check(&r, false).corruptions, 0);
    ck_assert_uint_gt(check(&r, false).leaks, 0);
    for (uint64_t i = 8; i < 40; i++)
        put_cluster(&r, i);
    drop_cluster(&r, 2);
    for (uint64_t i = 40; i < 60; i++)
        put_cluster(&r, i);
    compare(&r);
    reopen(&r);
    compare(&r);
    ck_assert_uint_eq(check(&r, true).corruptions, 0);
    compare(&r);
    struct blk_error e;
    ck_assert_int_eq(co_blk_compact(r.dev, &e), 0);
    compare(&r);
    is_clean(&r);
    tear_down(&r);
    return 0;
}

static int overlapping_odd_places(void *arg)
{
    struct rig r;
    set_up(&r, *(enum toy_units_kind *)arg);
    for (uint64_t i = 0; i < 8; i++)
        put_cluster(&r, i);
    reopen(&r);
    uint64_t free_at = file_end(&r) + 8 * 8192 + 512;
    relocate(&r, 2, free_at);
    relocate(&r, 5, free_at + 1024);
    ck_assert_int_eq(co_blk_read_buf(r.dev, 0, r.model, SIZE), 0); /* whatever it is now */
    ck_assert_uint_eq(check(&r, false).corruptions, 1);
    reopen(&r);
    ck_assert_uint_eq(check(&r, true).corruptions, 0);
    compare(&r);
    tear_down(&r);
    return 0;
}

static int misaligned(void *arg)
{
    struct rig r;
    set_up(&r, TOY_BIG);
    for (uint64_t i = 0; i < 8; i++)
        put_cluster(&r, i);
    reopen(&r);
    relocate(&r, 2, file_end(&r) + 65536 + 512);
    ck_assert_uint_eq(check(&r, false).corruptions, 1);
    struct blk_check c = check(&r, true);
    ck_assert_uint_eq(c.corruptions_fixed, 1);
    compare(&r);
    reopen(&r);
    is_clean(&r);
    compare(&r);
    tear_down(&r);
    return 0;
}

static int tables(void *arg)
{
    struct rig r;
    set_up(&r, TOY_TABLES);
    put_cluster(&r, 3);
    put_cluster(&r, 64 + 5);
    put_cluster(&r, 128 + 7);
    reopen(&r);
    uint64_t root = toy_units_map(r.dev)->shape.root_offset, first = get_word(&r, root);
    co_close_ok(r.dev);
    put_word(&r, root + 8, first);       /* two root entries own one table */
    put_word(&r, root + 16, 1ULL << 40); /* a table out of range */
    open_rig(&r);
    memcpy(r.model + 67 * r.cluster, r.model + 3 * r.cluster, r.cluster);
    memset(r.model + 69 * r.cluster, 0, r.cluster);
    memset(r.model + 135 * r.cluster, 0, r.cluster);
    compare(&r);
    ck_assert_uint_eq(check(&r, false).corruptions, 3); /* and the cluster in the doubled table */
    struct blk_check c = check(&r, true);
    ck_assert_uint_eq(c.corruptions_fixed, 3);
    ck_assert_uint_eq(c.corruptions + c.leaks, 0);
    put_cluster(&r, 67);
    put_cluster(&r, 129);
    compare(&r);
    reopen(&r);
    is_clean(&r);
    compare(&r);
    tear_down(&r);
    return 0;
}

static int compacting(void *arg)
{
    struct rig r;
    struct blk_error e;
    set_up(&r, *(enum toy_units_kind *)arg);
    uint64_t clusters = SIZE / r.cluster, step = toy_units_map(r.dev)->units->cluster_units;
    for (uint64_t i = 0; i < clusters; i++)
        put_cluster(&r, i * 37 % clusters);
    for (uint64_t i = 0; i < clusters; i++)
        if (i % 5 != 1)
            drop_cluster(&r, i);
    reopen(&r);
    uint64_t before = r.file->size;
    ck_assert_int_eq(co_blk_compact(r.dev, &e), 0);
    const struct map_units *u = toy_units_map(r.dev)->units;
    ck_assert_uint_lt(u->space.next, u->space.count + step); /* at most one gap */
    ck_assert_uint_eq(r.file->size, file_end(&r));
    ck_assert_uint_lt(r.file->size, before / 2);
    compare(&r);
    struct blk_check c = check(&r, false);
    ck_assert_uint_eq(c.corruptions, 0);
    ck_assert_uint_eq(c.image_end, u->base + u->space.next * u->unit_bytes);
    put_cluster(&r, 4);
    reopen(&r);
    compare(&r);
    ck_assert_uint_eq(check(&r, false).corruptions, 0);
    tear_down(&r);
    return 0;
}

/* --- the suite --- */

static enum toy_units_kind kind_of(int i)
{
    return (enum toy_units_kind)i;
}

#define FOR_EACH_KIND(name, fn)              \
    START_TEST(name)                         \
    {                                        \
        enum toy_units_kind k = kind_of(_i); \
        on_host(NULL, fn, &k);               \
    }                                        \
    END_TEST
FOR_EACH_KIND(a_place_of_two_owners_forbids_writing_until_copied, doubles)
FOR_EACH_KIND(an_entry_out_of_range_becomes_a_hole, out_of_range)
FOR_EACH_KIND(places_off_the_boundaries_are_kept_clear_of, odd_places)
FOR_EACH_KIND(overlapping_odd_places_are_found, overlapping_odd_places)
FOR_EACH_KIND(compacting_leaves_no_gap, compacting)
FOR_EACH_KIND(a_misaligned_place_is_copied, misaligned)
FOR_EACH_KIND(tables_are_owned_as_clusters_are, tables)

int main(void)
{
    Suite *s = suite_create("map_units");
    TCase *tc = tcase_create("map_units");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, a_place_of_two_owners_forbids_writing_until_copied, 0, TOY_UNITS_KINDS);
    tcase_add_loop_test(tc, an_entry_out_of_range_becomes_a_hole, 0, TOY_UNITS_KINDS);
    tcase_add_loop_test(tc, places_off_the_boundaries_are_kept_clear_of, 0, TOY_BIG);
    tcase_add_loop_test(tc, overlapping_odd_places_are_found, 0, TOY_BIG);
    tcase_add_loop_test(tc, compacting_leaves_no_gap, 0, TOY_UNITS_KINDS);
    tcase_add_test(tc, a_misaligned_place_is_copied);
    tcase_add_test(tc, tables_are_owned_as_clusters_are);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

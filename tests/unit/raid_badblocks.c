/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_badblocks.c - lists of bad blocks: the ranges against an array of flags; what is listed is
 * never read from its member; what cannot be written is listed, durably, and no more when it was
 * written after all. The sweep raid_rows has rows with lists for every cut. */
#include <check.h>

#include "raid/badblocks.h"
#include "raid/rows.h"
#include "tests/lib/raid_rig.h"

/* --- ranges ------------------------------------------------------------------------------------
 */

#define UNITS 4096

static void compare(const struct bad_list *l, const bool *bad)
{
    for (unsigned u = 0; u < UNITS; u++)
        ck_assert_msg(bad_hits(l, u * 512ull, 512) == bad[u], "unit %u", u);
    for (unsigned u = 0; u < UNITS; u += 7) {
        unsigned n = 1;
        while (u + n < UNITS && bad[u + n] == bad[u])
            n++;
        ck_assert_uint_eq(bad_even(l, u * 512ull, (UNITS - u) * 512ull), n * 512ull);
    }
}

START_TEST(ranges_are_what_was_added_and_not_cleared)
{
    auto_free struct bad_list *l = mem_zalloc(sizeof(*l));
    auto_free bool *bad = mem_array(UNITS, sizeof(*bad));
    uint64_t seed = 1;
    *l = (struct bad_list){.room = BAD_MOST, .shift = 9};
    for (unsigned n = 0; n < 400; n++) {
        uint64_t at = next_random(&seed) % (UNITS * 512 - 20000);
        uint64_t bytes = 1 + next_random(&seed) % 20000;
        bool adds = n % 3 > 0;
        if (adds)
            ck_assert(bad_add(l, at, bytes));
        else
            bad_clear(l, at, bytes);
        for (uint64_t u = adds ? at / 512 : div_up(at, 512);
             adds ? u * 512 < at + bytes : (u + 1) * 512 <= at + bytes; u++)
            bad[u] = adds;
        if (n % 20 == 0)
            compare(l, bad);
    }
    compare(l, bad);
}
END_TEST

START_TEST(a_full_list_takes_nothing_more_and_hides_nothing)
{
    auto_free struct bad_list *l = mem_zalloc(sizeof(*l));
    *l = (struct bad_list){.room = BAD_MOST, .shift = 9};
    for (unsigned n = 0; n < BAD_MOST; n++)
        ck_assert(bad_add(l, n * 4096ull, 1024));
    ck_assert(!bad_add(l, 1ull << 40, 512));
    bad_clear(l, 512, 512);
    ck_assert(!bad_hits(l, 512, 512));
    ck_assert(bad_hits(l, 0, 512));
    ck_assert(bad_add(l, 512, 512)); /* one again with its neighbour */
    ck_assert_uint_eq(l->count, BAD_MOST);
}
END_TEST

START_TEST(entries_of_a_page_are_taken_as_far_as_they_can_be)
{
    auto_free struct bad_list *l = mem_zalloc(sizeof(*l));
    le64 page[4] = {le64_of(100 << 10 | 8), le64_of(0), le64_of(UINT64_MAX - 1),
                    le64_of(104 << 10 | 1023)};
    *l = (struct bad_list){.room = 4, .shift = 20};
    bad_parse(l, page);
    ck_assert_uint_eq(l->count, 1);
    ck_assert(bad_hits(l, 100ull << 20, 1) && bad_hits(l, (1127ull << 20) - 1, 1));
    ck_assert(!bad_hits(l, 1127ull << 20, 1));
    page[1] = le64_of(UINT64_MAX);
    *l = (struct bad_list){.room = 4, .shift = 9};
    bad_parse(l, page);
    ck_assert(l->told_count == 1 && bad_hits(l, 107 * 512, 512) && !bad_hits(l, 108 * 512, 512));
}
END_TEST

/* --- arrays ------------------------------------------------------------------------------------
 */

static const struct kind {
    int level;
    uint32_t layout;
    unsigned disks;
} kinds[] = {{1, 0, 2}, {10, 0x102, 4},         {10, 0x201, 3},
             {4, 0, 3}, {5, LEFT_SYMMETRIC, 4}, {6, LEFT_SYMMETRIC, 5}};

static void co_make(struct rig *r, const struct kind *k)
{
    *r = (struct rig){.level = k->level, .layout = k->layout, .disks = k->disks, .lists = true};
    co_rig_make(r);
    co_rig_reopen(r, 0, 0, NULL);
}

static void co_put_super(struct rig *r, unsigned disk, struct md_super *s)
{
    md_super_build(s);
    must(co_blk_write_buf(r->disk[disk], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
}

/* As somebody else would: [at, +bytes) of the member's data is on its list, and garbage. */
static void co_list(struct rig *r, unsigned disk, uint64_t at, uint64_t bytes)
{
    static uint8_t page[4096], garbage[64 * KiB];
    struct md_super *s;
    uint64_t seed = at + disk;
    must(co_member_find_super(r->disk[disk], &s, NULL) == 0);
    must(bytes <= sizeof(garbage));
    fill_random(&seed, garbage, sizeof(garbage));
    must(co_blk_write_buf(r->disk[disk], MiB + at, garbage, bytes, 0) == 0);
    memset(page, 0xff, sizeof(page));
    *(le64 *)page = le64_of((MiB + at) / 512 << 10 | bytes / 512);
    must(co_blk_write_buf(r->disk[disk], s->super_offset + (uint64_t)s->bad_offset, page,
                          sizeof(page), 0) == 0);
    s->features |= MD_BAD_BLOCKS;
    co_put_super(r, disk, s);
    mem_free(s);
}

static bool co_says_bad(struct rig *r, unsigned disk)
{
    struct md_super *s;
    must(co_member_find_super(r->disk[disk], &s, NULL) == 0);
    bool says = s->features & MD_BAD_BLOCKS;
    mem_free(s);
    return says;
}

static struct raid_member *member_at(const struct rig *r, unsigned disk)
{
    return rig_array(r)->by_role[disk];
}

static void co_scrubbed(struct rig *r, bool repair)
{
    struct raid_array *a = rig_array(r);
    struct raid_scrub found = {0};
    must(a->engine->co_scrub(a, 0, array_sync_bytes(a), repair, &found) == 0);
    must(found.mismatches == 0);
}

/* What is listed comes from the others, in requests of every size, and is good again once it is
 * written: by a request, or by a repair. */
CO_TEST(what_is_listed_comes_from_the_others)
{
    for (size_t k = 0; k < 2 * ARRAY_LEN(kinds); k++) {
        struct rig r;
        bool repairs = k % 2;
        co_make(&r, &kinds[k / 2]);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        co_list(&r, 1, 70 * KiB, 9 * KiB);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_compare(&r);
        co_scrubbed(&r, false);
        must(member_at(&r, 1)->bad->count == 1);
        if (repairs)
            co_scrubbed(&r, true);
        else
            must(co_rig_put(&r, 0, r.array->size, 3) == 0);
        must(member_at(&r, 1)->bad->count == 0);
        must(co_says_bad(&r, 1)); /* until it is flushed */
        must(repairs ? co_array_mark_dirty(rig_array(&r)) == 0 : true);
        co_rig_close(&r);
        must(!co_says_bad(&r, 1));
        co_rig_reopen(&r, 0, 0, NULL);
        must(member_at(&r, 1)->bad->told_count == 0);
        co_rig_compare(&r);
        co_scrubbed(&r, false);
        co_rig_close(&r);
        co_rig_drop(&r);
    }
    return 0;
}

/* Two that are bad at different places still give every byte, and small changes beside them. */
CO_TEST(two_with_lists_give_every_byte)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_make(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        co_list(&r, 0, 64 * KiB, 6 * KiB);
        co_list(&r, 1, 76 * KiB, 7 * KiB);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_compare(&r);
        for (uint64_t at = 0; at + 700 < r.array->size; at += 5000)
            must(co_rig_put(&r, at, 700, 1 + at % 5) == 0);
        co_rig_compare(&r);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_compare(&r);
        co_rig_close(&r);
        co_rig_drop(&r);
    }
    return 0;
}

/* With the other copy gone what is listed is an error, never the garbage. */
CO_TEST(what_nobody_has_is_an_error)
{
    struct rig r;
    uint8_t buf[4096];
    co_make(&r, &kinds[0]);
    must(co_rig_put(&r, 0, r.array->size, 3) == 0);
    co_rig_close(&r);
    co_list(&r, 0, 70 * KiB, 9 * KiB);
    co_rig_reopen(&r, 2, 0, NULL);
    must(co_blk_read_buf(r.array, 70 * KiB + 512, buf, 512) == -EIO);
    must(co_blk_read_buf(r.array, 69 * KiB, buf, 4096) == -EIO);
    must(co_blk_read_buf(r.array, 66 * KiB, buf, 4096) == 0);
    must(memcmp(buf, r.model + 66 * KiB, 4096) == 0);
    must(co_rig_put(&r, 64 * KiB, 64 * KiB, 4) == 0);
    co_rig_compare(&r);
    co_rig_close(&r);
    must(!co_says_bad(&r, 0));
    co_rig_drop(&r);
    return 0;
}

/* --- writes that fail --------------------------------------------------------------------------
 */

/* The write number @n to the first member fails. Gives whether its list has it then. */
static bool co_one_failure(const struct kind *k, unsigned n)
{
    struct rig r;
    char fault[64];
    co_make(&r, k);
    must(co_rig_put(&r, 0, r.array->size, 2) == 0);
    co_rig_close(&r);
    snprintf(fault, sizeof(fault), "op=write,nth=%u,times=1,errno=EIO", n);
    co_rig_reopen(&r, 0, 0, fault);
    for (unsigned i = 0; i < 12; i++)
        must(co_rig_put(&r, i * 50000, 9000, 3) == 0);
    co_rig_compare(&r);
    struct raid_member *m = member_at(&r, 0);
    bool listed = m && m->bad->count;
    must(!listed || (m->state == MEMBER_IN_SYNC && co_says_bad(&r, 0)));
    co_rig_close(&r);
    co_rig_reopen(&r, 0, 0, NULL);
    must(!listed || member_at(&r, 0)->bad->count);
    co_rig_compare(&r);
    must(co_rig_put(&r, 0, r.array->size, 4) == 0);
    co_rig_close(&r);
    must(!listed || !co_says_bad(&r, 0));
    co_rig_reopen(&r, 0, 0, NULL);
    co_rig_compare(&r);
    co_rig_close(&r);
    co_rig_drop(&r);
    return listed;
}

CO_TEST(what_cannot_be_written_is_listed)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        unsigned listed = 0;
        for (unsigned n = 1; n <= 16; n++)
            listed += co_one_failure(&kinds[k], n);
        must(listed >= 4);
    }
    return 0;
}

/* A member that takes nothing any more is put out all the same. */
CO_TEST(one_that_takes_nothing_is_put_out)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_make(&r, &kinds[k]);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, "op=write,nth=3,times=0,errno=EIO");
        for (unsigned i = 0; i < 12; i++)
            must(co_rig_put(&r, i * 50000, 9000, 3) == 0);
        must(!member_at(&r, 0));
        co_rig_compare(&r);
        co_rig_close(&r);
        co_rig_drop(&r);
    }
    return 0;
}

/* --- members that are filled -------------------------------------------------------------------
 */

/* What the others cannot bring back is on the new one's list then; all else is filled. */
CO_TEST(what_is_lost_is_bad_on_a_member_that_is_filled)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        unsigned bad = kinds[k].level == 6 ? 2 : 1; /* beside the one that is filled */
        co_make(&r, &kinds[k]);
        must(co_rig_put(&r, 0, r.array->size, 2) == 0);
        co_rig_close(&r);
        for (unsigned d = 1; d <= bad; d++)
            co_list(&r, d, 64 * KiB, 8 * KiB);
        co_rig_reopen(&r, 0, 0, NULL);
        struct raid_member *m = member_at(&r, 0);
        m->state = MEMBER_REBUILDING;
        m->recovered = 0;
        must(rig_array(&r)->engine->co_rebuild(rig_array(&r), m, 0, RIG_DATA) == 0);
        m->state = MEMBER_IN_SYNC;
        /* Far and near copies of it lie elsewhere, or not here. */
        must(kinds[k].level == 10 || bad_hits(m->bad, MiB + 64 * KiB, 8 * KiB));
        must(!bad_hits(m->bad, MiB, 64 * KiB) && !bad_hits(m->bad, MiB + 72 * KiB, 4 * KiB));
        must(co_rig_put(&r, 0, r.array->size, 4) == 0);
        co_rig_compare(&r);
        must(m->bad->count == 0);
        co_rig_close(&r);
        co_rig_drop(&r);
    }
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_badblocks");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, ranges_are_what_was_added_and_not_cleared);
    tcase_add_test(tc, a_full_list_takes_nothing_more_and_hides_nothing);
    tcase_add_test(tc, entries_of_a_page_are_taken_as_far_as_they_can_be);
    tcase_add_test(tc, what_is_listed_comes_from_the_others);
    tcase_add_test(tc, two_with_lists_give_every_byte);
    tcase_add_test(tc, what_nobody_has_is_an_error);
    tcase_add_test(tc, what_cannot_be_written_is_listed);
    tcase_add_test(tc, one_that_takes_nothing_is_put_out);
    tcase_add_test(tc, what_is_lost_is_bad_on_a_member_that_is_filled);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

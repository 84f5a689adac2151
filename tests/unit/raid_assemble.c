/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_assemble.c - which members an array is made of: every order of what is found, stale members,
 * split halves, spares, gaps, members being rebuilt. */
#include <check.h>

#include "block/base.h"
#include "raid/assemble.h"

#define MOST 6

/* A heap of superblocks of one array, made by a table. */
struct heap {
    struct md_super supers[MOST];
    struct raid_candidate c[MOST];
    size_t count;
};

static void heap_init(struct heap *h, int level, unsigned disks)
{
    *h = (struct heap){.count = disks};
    for (unsigned i = 0; i < MOST; i++) {
        struct md_super *s = &h->supers[i];
        *s = (struct md_super){.version = MD_1_2,
                               .level = level,
                               .disks = disks,
                               .events = 100,
                               .uuid = "array",
                               .chunk = level == 1 ? 0 : 64 * KiB,
                               .layout = level == 5 || level == 6 ? 2
                                         : level == 10            ? 0x102
                                                                  : 0,
                               .size = level > 0 ? MiB : 0,
                               .data_size = MiB,
                               .resync_offset = UINT64_MAX,
                               .recovery_offset = UINT64_MAX,
                               .number = i};
        for (unsigned r = 0; r < disks; r++)
            ck_assert(md_super_set_role(s, r, r));
        h->c[i] = (struct raid_candidate){.name = "x", .super = s};
    }
}

/* Plans in every order: the same comes of it. Gives the result of the last. */
static int plan(struct heap *h, bool force, struct raid_plan *p)
{
    struct blk_error e = {0};
    int first = 0;
    size_t there = 0;
    for (size_t turn = 0; turn < h->count; turn++) {
        struct raid_candidate one = h->c[0]; /* the next rotation */
        memmove(&h->c[0], &h->c[1], (h->count - 1) * sizeof(one));
        h->c[h->count - 1] = one;
        int rc = raid_plan(h->c, h->count, force, p, &e);
        if (turn == 0) {
            first = rc;
            there = p->there;
        }
        ck_assert_int_eq(rc, first);
        ck_assert_uint_eq(p->there, there);
        if (rc < 0)
            ck_assert_uint_gt(strlen(e.text), 20);
        if (turn + 1 < h->count)
            raid_plan_drop(p);
    }
    return first;
}

static const struct raid_candidate *find(const struct heap *h, unsigned i)
{
    for (size_t k = 0; k < h->count; k++)
        if (h->c[k].super == &h->supers[i])
            return &h->c[k];
    ck_abort();
}

START_TEST(members_are_found_in_any_order)
{
    static const int levels[] = {RAID_LINEAR, 0, 1, 4, 5, 6, 10};
    for (size_t l = 0; l < ARRAY_LEN(levels); l++) {
        struct heap h;
        struct raid_plan p;
        heap_init(&h, levels[l], 4);
        ck_assert_int_eq(plan(&h, false, &p), 0);
        ck_assert(p.there == 4 && p.missing == 0 && !p.dirty && p.enough);
        for (unsigned i = 0; i < 4; i++)
            ck_assert(find(&h, i)->place == PLACE_MEMBER && find(&h, i)->role == i);
        raid_plan_drop(&p);
    }
}
END_TEST

START_TEST(a_stale_member_never_wins)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 5, 3);
    h.supers[1].events = 98; /* two behind: it left */
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_int_eq(find(&h, 1)->place, PLACE_STALE);
    ck_assert(p.there == 2 && p.missing == 1);
    raid_plan_drop(&p);
    h.supers[1].events = 99; /* one behind: a crash between two writes of superblocks */
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_uint_eq(p.there, 3);
    raid_plan_drop(&p);
    h.supers[1].events = 90;
    h.supers[2].events = 80; /* two are stale: force takes the better one, which is enough */
    ck_assert_int_eq(plan(&h, false, &p), -ENODEV);
    ck_assert_int_eq(plan(&h, true, &p), 0);
    ck_assert(p.there == 2 && find(&h, 1)->place == PLACE_MEMBER);
    ck_assert_int_eq(find(&h, 2)->place, PLACE_STALE);
    raid_plan_drop(&p);
}
END_TEST

/* Both halves went on without the other, by as many events; whichever word the tables have for who
 * is gone. */
START_TEST(halves_that_are_as_fresh_are_split)
{
    static const unsigned gone[] = {MD_ROLE_FAULTY, MD_ROLE_SPARE};
    for (size_t i = 0; i < ARRAY_LEN(gone); i++) {
        struct heap h;
        struct raid_plan p;
        heap_init(&h, 1, 2);
        ck_assert(md_super_set_role(&h.supers[0], 1, gone[i]));
        ck_assert(md_super_set_role(&h.supers[1], 0, gone[i]));
        ck_assert_int_eq(plan(&h, false, &p), -EBUSY);
        h.supers[1]
            .events--; /* only one half was written to: the other one's word counts no more */
        ck_assert_int_eq(plan(&h, false, &p), 0);
        ck_assert_int_eq(find(&h, 1)->place, PLACE_FAULTY);
        raid_plan_drop(&p);
    }
}
END_TEST

/* It was the only one that got an update, and was away when the others made theirs. */
START_TEST(an_update_that_reached_only_one_is_no_split)
{
    static const int levels[] = {1, 5, 6, 10};
    for (size_t l = 0; l < ARRAY_LEN(levels); l++) {
        struct heap h;
        struct raid_plan p;
        heap_init(&h, levels[l], 4);
        for (unsigned i = 0; i < 3; i++)
            ck_assert(md_super_set_role(&h.supers[i], 3, MD_ROLE_FAULTY));
        ck_assert_int_eq(plan(&h, false, &p), 0);
        ck_assert_int_eq(find(&h, 3)->place, PLACE_FAULTY);
        ck_assert_uint_eq(p.there, 3);
        raid_plan_drop(&p);
    }
}
END_TEST

/* The others gave it a role in the last update, which it missed: it has no data yet. */
START_TEST(a_spare_that_missed_its_role_is_not_in_sync)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 1, 2);
    h.supers[0].events++;
    ck_assert(md_super_set_role(&h.supers[1], 1, MD_ROLE_SPARE));
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_int_eq(find(&h, 1)->place, PLACE_MEMBER);
    ck_assert(!raid_in_sync(find(&h, 1)) && p.there == 1);
    raid_plan_drop(&p);
}
END_TEST

/* Who was with it is missing, and what is there is old. */
START_TEST(a_spare_that_is_newer_keeps_old_members_from_starting)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 1, 2);
    ck_assert(md_super_set_role(&h.supers[1], 1, MD_ROLE_SPARE));
    h.supers[1].events = 110;
    ck_assert_int_eq(plan(&h, false, &p), -ENODEV);
    ck_assert_int_eq(plan(&h, true, &p), 0);
    ck_assert_uint_eq(p.there, 1);
    raid_plan_drop(&p);
}
END_TEST

START_TEST(the_faulty_stay_out)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 1, 2);
    h.supers[0].events = 101;
    ck_assert(md_super_set_role(&h.supers[0], 1, MD_ROLE_FAULTY));
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_int_eq(find(&h, 1)->place, PLACE_FAULTY);
    ck_assert_uint_eq(p.there, 1);
    raid_plan_drop(&p);
}
END_TEST

/* Both halves of a mirror were written to alone, and each says that the other one failed. */
START_TEST(a_split_array_is_refused)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 1, 2);
    ck_assert(md_super_set_role(&h.supers[0], 1, MD_ROLE_FAULTY));
    ck_assert(md_super_set_role(&h.supers[1], 0, MD_ROLE_FAULTY));
    ck_assert_int_eq(plan(&h, false, &p), -EBUSY);
    ck_assert_int_eq(plan(&h, true, &p), 0); /* one of them, as it is */
    ck_assert_uint_eq(p.there, 1);
    raid_plan_drop(&p);
}
END_TEST

START_TEST(spares_and_strangers_are_no_members)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 5, 3);
    h.count = 6;
    h.supers[3].events = 50; /* a spare is not written at each change */
    ck_assert(md_super_set_role(&h.supers[3], 3, MD_ROLE_SPARE));
    memcpy(h.supers[4].uuid, "other", 5);
    h.c[5].super = NULL;
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_int_eq(find(&h, 3)->place, PLACE_SPARE);
    ck_assert_int_eq(find(&h, 4)->place, PLACE_OTHER);
    ck_assert_uint_eq(p.there, 3);
    raid_plan_drop(&p);
}
END_TEST

/* Who cannot be read counts where it could have been an array without who can. */
START_TEST(a_superblock_that_cannot_be_read_may_be_newer)
{
    static const struct {
        int level;
        unsigned disks, unread;
        bool faulty; /* the others say so of who is unread */
        int expect;
    } rows[] = {
        {1, 2, 1, false, -EIO}, {1, 2, 1, true, 0}, {1, 3, 1, false, -EIO}, {5, 3, 1, false, 0},
        {6, 4, 2, false, -EIO}, {6, 4, 2, true, 0}, {6, 4, 1, false, 0},    {10, 4, 1, false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct heap h;
        struct raid_plan p;
        heap_init(&h, rows[i].level, rows[i].disks);
        for (unsigned k = 0; k < rows[i].unread; k++) {
            unsigned role = rows[i].disks - 1 - k;
            h.c[role] = (struct raid_candidate){.name = "x", .unread = true};
            for (unsigned s = 0; s < rows[i].disks; s++)
                ck_assert(
                    md_super_set_role(&h.supers[s], role, rows[i].faulty ? MD_ROLE_FAULTY : role));
        }
        ck_assert_msg(plan(&h, false, &p) == rows[i].expect, "row %zu", i);
        if (rows[i].expect == 0)
            raid_plan_drop(&p);
        ck_assert_int_eq(plan(&h, true, &p), 0);
        raid_plan_drop(&p);
    }
}
END_TEST

START_TEST(the_same_disk_twice_counts_once)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 5, 3);
    h.count = 4;
    h.supers[3] = h.supers[2];
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_uint_eq(p.there, 3);
    bool one = find(&h, 2)->place == PLACE_DUPLICATE, other = find(&h, 3)->place == PLACE_DUPLICATE;
    ck_assert(one != other);
    raid_plan_drop(&p);
}
END_TEST

START_TEST(a_member_being_rebuilt_is_not_counted_on)
{
    struct heap h;
    struct raid_plan p;
    heap_init(&h, 5, 3);
    h.supers[2].features = MD_RECOVERY;
    h.supers[2].recovery_offset = 64 * KiB;
    ck_assert_int_eq(plan(&h, false, &p), 0);
    ck_assert_int_eq(find(&h, 2)->place, PLACE_MEMBER);
    ck_assert_uint_eq(p.there, 2);
    raid_plan_drop(&p);
    h.supers[1].features = MD_RECOVERY;
    h.supers[1].recovery_offset = 0;
    ck_assert_int_eq(plan(&h, false, &p), -ENODEV);
}
END_TEST

START_TEST(dirty_and_degraded_is_not_started)
{
    static const struct {
        int level;
        uint32_t layout;
        unsigned missing;
        unsigned features;
        int expect;
    } rows[] = {
        {5, 2, 1, 0, -EUCLEAN}, {6, 2, 3, 0, -EUCLEAN},         {5, PARITY_LAST, 3, 0, 0},
        {4, 0, 3, 0, 0},        {4, 0, 0, 0, -EUCLEAN},         {5, 2, 1, MD_PPL, 0},
        {10, 0x102, 1, 0, 0},   {6, LEFT_SYMMETRIC_6, 3, 0, 0}, {1, 0, 1, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct heap h;
        struct raid_plan p;
        heap_init(&h, rows[i].level, 4);
        for (unsigned k = 0; k < 4; k++) {
            h.supers[k].layout = rows[i].layout;
            h.supers[k].resync_offset = 0;
            h.supers[k].features = rows[i].features;
        }
        h.c[rows[i].missing] = h.c[3];
        h.count = 3;
        ck_assert_msg(plan(&h, false, &p) == rows[i].expect, "row %zu", i);
        if (rows[i].expect == 0)
            raid_plan_drop(&p);
        ck_assert_int_eq(plan(&h, true, &p), 0);
        raid_plan_drop(&p);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("raid_assemble");
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, members_are_found_in_any_order);
    tcase_add_test(tc, a_stale_member_never_wins);
    tcase_add_test(tc, halves_that_are_as_fresh_are_split);
    tcase_add_test(tc, an_update_that_reached_only_one_is_no_split);
    tcase_add_test(tc, a_spare_that_missed_its_role_is_not_in_sync);
    tcase_add_test(tc, a_spare_that_is_newer_keeps_old_members_from_starting);
    tcase_add_test(tc, the_faulty_stay_out);
    tcase_add_test(tc, a_split_array_is_refused);
    tcase_add_test(tc, spares_and_strangers_are_no_members);
    tcase_add_test(tc, a_superblock_that_cannot_be_read_may_be_newer);
    tcase_add_test(tc, the_same_disk_twice_counts_once);
    tcase_add_test(tc, a_member_being_rebuilt_is_not_counted_on);
    tcase_add_test(tc, dirty_and_degraded_is_not_started);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

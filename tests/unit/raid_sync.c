/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_sync.c - what keeps arrays whole, over disks in memory: recovery that is interrupted after
 * every step, resync and scrub beside writes, members that come, go, fail meanwhile, and growing.
 */
#include <check.h>

#include "block/fault.h"
#include "raid/array.h"
#include "tests/lib/raid_rig.h"

static const struct kind {
    int level;
    uint32_t layout;
    unsigned disks;
} kinds[] = {{1, 0, 2},
             {1, 0, 3},
             {10, 0x102, 4},
             {10, 0x102, 3},
             {10, 0x201, 4},
             {10, 0x10201, 3},
             {10, 0x202, 4},
             {4, 0, 3},
             {5, LEFT_SYMMETRIC, 4},
             {6, LEFT_SYMMETRIC, 5}};

static void co_rig_start(struct rig *r, const struct kind *k)
{
    co_rig_init(r, k->level, k->layout, k->disks);
    co_rig_reopen(r, 0, 0, NULL);
}

/* Steps until all is done, or @most of them were. Gives how many. */
static unsigned co_sync(struct rig *r, enum blk_sync_kind kind, unsigned most, uint64_t *mismatches)
{
    struct blk_sync s = {.kind = kind};
    struct blk_error e = {0};
    unsigned n = 0;
    do {
        if (co_blk_sync(r->array, &s, &e) < 0)
            ck_abort_msg("%s", e.text);
    } while (s.doing && ++n < most);
    ck_assert_int_eq(co_blk_sync_save(r->array, &e), 0);
    if (mismatches)
        *mismatches = s.mismatches;
    return n;
}

static uint64_t co_check(struct rig *r, enum blk_sync_kind kind)
{
    uint64_t mismatches;
    co_sync(r, kind, UINT32_MAX, &mismatches);
    return mismatches;
}

static void co_member(struct rig *r, enum blk_member_action action, const char *name,
                      struct blk_device *dev, int want)
{
    struct blk_error e = {0};
    ck_assert_msg(co_rig_member(r, action, name, dev, &e) == want, "%s", e.text);
}

static unsigned count_in(const struct rig *r, enum raid_member_state state)
{
    unsigned n = 0;
    for (unsigned i = 0; i < rig_array(r)->member_count; i++)
        n += rig_array(r)->members[i].dev && rig_array(r)->members[i].state == state;
    return n;
}

/* The new disk takes the place of disk @at in the rig as well, so that it is there next time. */
static void co_add_in_place_of(struct rig *r, unsigned at)
{
    struct blk_device *fresh = co_open_text(&mem_driver, "size=4M,growable=off", NULL);
    ck_assert_int_eq(co_blk_close(r->disk[at], NULL), 0);
    r->disk[at] = fresh;
    co_member(r, BLK_MEMBER_ADD, NULL, blk_ref(fresh), 0);
}

/* One member is lost, another one filled: after every step the array is closed and opened again,
 * and written to. In the end each other member may be lost. */
CO_TEST(recovery_goes_on_wherever_it_was_interrupted)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        unsigned rounds = 0;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        co_rig_reopen(&r, 1, 0, NULL);
        co_add_in_place_of(&r, 0);
        while (co_sync(&r, BLK_SYNC_OWED, 2, NULL) == 2) {
            co_rig_work(&r, 1);
            co_rig_compare(&r);
            co_rig_close(&r);
            co_rig_reopen(&r, 0, 0, NULL);
            ck_assert_uint_le(++rounds, 64);
        }
        ck_assert_uint_ge(rounds, 2);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), kinds[k].disks);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_close(&r);
        co_rig_reopen(&r, 2, 0, NULL);
        co_rig_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

/* Copies and parity are damaged behind the array's back. */
static void co_damage(struct rig *r, unsigned disk, uint64_t offset, uint64_t bytes)
{
    auto_free uint8_t *junk = mem_alloc(bytes);
    memset(junk, 0x5a, bytes);
    ck_assert_int_eq(co_blk_write_buf(r->disk[disk], MiB + offset, junk, bytes, 0), 0);
}

CO_TEST(scrub_finds_what_differs_and_repairs_it)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_damage(&r, kinds[k].disks - 1, 0, RIG_CHUNK);
        ck_assert_uint_gt(co_check(&r, BLK_SYNC_CHECK), 0);
        ck_assert_uint_gt(co_check(&r, BLK_SYNC_REPAIR), 0);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_end(&r);
    }
    return 0;
}

/* Superblocks of all members: dirty from @from on. */
static void co_make_dirty(struct rig *r, uint64_t from)
{
    for (unsigned i = 0; i < r->disks; i++) {
        struct md_super *s;
        ck_assert_int_eq(co_member_find_super(r->disk[i], &s, NULL), 0);
        s->resync_offset = from;
        md_super_build(s);
        ck_assert_int_eq(co_blk_write_buf(r->disk[i], 4096, s->raw, MD_SUPER_BYTES, 0), 0);
        mem_free(s);
    }
}

/* The first copy, or the data, is what is true in the end; a half-done resync begins where it was.
 */
CO_TEST(resync_begins_where_it_was)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        uint64_t half = RIG_DATA / 2;
        co_damage(&r, kinds[k].disks - 1, RIG_DATA - 2 * RIG_CHUNK, RIG_CHUNK);
        co_make_dirty(&r, half);
        co_rig_reopen(&r, 0, 0, NULL);
        ck_assert(rig_array(&r)->was_dirty);
        ck_assert_uint_eq(rig_array(&r)->resync_at, half);
        co_sync(&r, BLK_SYNC_OWED, 1, NULL);
        uint64_t at = rig_array(&r)->resync_at;
        ck_assert_uint_gt(at, half);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        ck_assert_uint_eq(rig_array(&r)->resync_at, at);
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert(!rig_array(&r)->was_dirty);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_end(&r);
    }
    return 0;
}

static int co_keep_syncing(void *arg)
{
    struct rig *r = arg;
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    do {
        ck_assert_int_eq(co_blk_sync(r->array, &s, NULL), 0);
        co_yield ();
    } while (s.doing);
    return 0;
}

/* Writes go on while a member is filled. */
CO_TEST(writes_go_on_while_a_member_is_filled)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct co_group g;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_member(&r, BLK_MEMBER_FAIL, "0", NULL, 0);
        co_add_in_place_of(&r, 0);
        co_group_init(&g, 0);
        co_group_start(&g, co_keep_syncing, &r);
        co_rig_work(&r, 8);
        ck_assert_int_eq(co_group_wait(&g), 0);
        co_rig_compare(&r);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), kinds[k].disks);
        co_rig_end(&r);
    }
    return 0;
}

/* Fail, remove, spares: what may be done when. */
CO_TEST(members_come_and_go)
{
    struct rig r;
    co_rig_start(&r, &(struct kind){1, 0, 2});
    co_rig_work(&r, 1);
    co_member(&r, BLK_MEMBER_REMOVE, "1", NULL, -EBUSY);
    co_member(&r, BLK_MEMBER_FAIL, "nobody", NULL, -ENOENT);
    co_member(&r, BLK_MEMBER_ADD, NULL, co_open_text(&mem_driver, "size=2M,growable=off", NULL),
              -ENOSPC);
    co_add_in_place_of(&r, 1); /* a spare, beside the old one */
    ck_assert_uint_eq(count_in(&r, MEMBER_SPARE), 1);
    ck_assert_uint_eq(co_sync(&r, BLK_SYNC_OWED, 1000, NULL), 0);
    co_member(&r, BLK_MEMBER_FAIL, "1", NULL, 0);
    ck_assert_uint_eq(count_in(&r, MEMBER_OUT), 1);
    co_member(&r, BLK_MEMBER_FAIL, "0", NULL, -EBUSY);
    ck_assert_uint_gt(co_sync(&r, BLK_SYNC_OWED, 1000, NULL), 1);
    ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), 2);
    co_member(&r, BLK_MEMBER_FAIL, "0", NULL, 0);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

/* The member that is filled breaks at the n-th write: it is out, the next spare takes over. */
CO_TEST(a_spare_that_breaks_makes_room_for_the_next)
{
    for (unsigned n = 1; n < 12; n += 2) {
        struct rig r;
        char fault[64];
        co_rig_start(&r, &(struct kind){10, 0x102, 4});
        co_rig_work(&r, 2);
        co_member(&r, BLK_MEMBER_FAIL, "2", NULL, 0);
        snprintf(fault, sizeof(fault), "op=write,nth=%u,times=0,errno=EIO", n + 8);
        struct blk_device *bad = co_open_text(&mem_driver, "size=4M,growable=off", NULL);
        co_member(&r, BLK_MEMBER_ADD, NULL, co_open_text(&fault_driver, fault, bad), 0);
        co_add_in_place_of(&r, 2);
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), 4);
        co_rig_compare(&r);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_end(&r);
    }
    return 0;
}

/* --- members that come back --------------------------------------------------------------------
 */

/* Disk 1 is pulled, and three ranges are written to that it misses. */
static void co_pull(struct rig *r, uint8_t seed)
{
    co_member(r, BLK_MEMBER_FAIL, "1", NULL, 0);
    for (unsigned i = 0; i < rig_array(r)->member_count; i++)
        if (rig_array(r)->members[i].state == MEMBER_OUT)
            co_member(r, BLK_MEMBER_REMOVE, member_name(&rig_array(r)->members[i]), NULL, 0);
    for (uint64_t i = 0; i < 3; i++)
        ck_assert_int_eq(co_rig_put(r, (i * 512 + seed * 128) * KiB, 128 * KiB, seed), 0);
}

/* Pulled again while it gets what it missed: the bitmap still knows all of that, and only that is
 * copied when it is back. */
CO_TEST(a_member_that_is_pulled_again_gets_all_it_missed)
{
    static const struct kind some[] = {{1, 0, 2}, {10, 0x102, 4}, {5, LEFT_SYMMETRIC, 3}};
    for (size_t k = 0; k < ARRAY_LEN(some); k++) {
        struct rig r = {.level = some[k].level,
                        .layout = some[k].layout,
                        .disks = some[k].disks,
                        .bitmap = true};
        co_rig_make(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, NULL); /* no bit is set */
        co_pull(&r, 1);
        co_member(&r, BLK_MEMBER_RE_ADD, NULL, blk_ref(r.disk[1]), 0);
        co_sync(&r, BLK_SYNC_OWED, 1, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_REBUILDING), 1);
        co_pull(&r, 2);
        co_damage(&r, 1, RIG_DATA - 4096, 4096); /* nobody may copy there */
        co_member(&r, BLK_MEMBER_RE_ADD, NULL, blk_ref(r.disk[1]), 0);
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), r.disks);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 4096);
        co_rig_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

/* --- images of LVM2 ----------------------------------------------------------------------------
 */

/* An image was away while the others were written to. Back again it is filled with what it missed;
 * interrupted after some steps, with all; then the others may go. */
CO_TEST(an_image_that_was_away_is_filled)
{
    static const struct rig some[] = {
        {.level = 1, .disks = 2, .dm_layout = "0"},
        {.level = 10, .layout = 0x102, .disks = 4, .dm_layout = "n2"},
        {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4, .dm_layout = "left-symmetric"},
    };
    for (size_t k = 0; k < 2 * ARRAY_LEN(some); k++) {
        struct rig r = some[k / 2];
        bool interrupted = k % 2;
        co_rig_make(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_work(&r, 2);
        co_rig_close(&r);
        co_rig_reopen(&r, 1 << 1, 0, NULL);
        co_rig_work(&r, 1);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_OUT), 1);
        co_member(&r, BLK_MEMBER_RE_ADD, NULL, NULL, 0);
        ck_assert_uint_eq(count_in(&r, MEMBER_REBUILDING), 1);
        co_rig_compare(&r);
        if (interrupted) {
            co_sync(&r, BLK_SYNC_OWED, 2, NULL);
            co_rig_close(&r);
            co_rig_reopen(&r, 0, 0, NULL);
            ck_assert_uint_eq(count_in(&r, MEMBER_REBUILDING), 1);
            co_rig_work(&r, 1);
        }
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), r.disks);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_close(&r);
        co_rig_reopen(&r, 1 << 0, 0, NULL);
        co_rig_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

/* --- replace -----------------------------------------------------------------------------------
 */

static struct blk_device *co_disk(void)
{
    return co_open_text(&mem_driver, "size=4M,growable=off", NULL);
}

/* The disk behind those of the shape begins to replace member @at. */
static void co_begin_replace(struct rig *r, const char *at, const char *fault)
{
    struct blk_device *dev = blk_ref(r->disk[r->disks] = co_disk());
    r->extra = 1;
    co_member(r, BLK_MEMBER_REPLACE, at, fault ? co_open_text(&fault_driver, fault, dev) : dev, 0);
}

/* It is in the place of disk @at, which nobody needs any more. */
static void co_end_replace(struct rig *r, unsigned at)
{
    ck_assert_uint_eq(count_in(r, MEMBER_IN_SYNC), r->disks);
    ck_assert_uint_eq(count_in(r, MEMBER_OUT), 1);
    ck_assert_uint_eq(co_check(r, BLK_SYNC_CHECK), 0);
    co_rig_close(r);
    ck_assert_int_eq(co_blk_close(r->disk[at], NULL), 0);
    r->disk[at] = r->disk[r->disks];
    r->extra = 0;
    co_rig_reopen(r, at == 0 ? 2 : 1, 0, NULL);
    co_rig_compare(r);
    co_rig_end(r);
}

/* Closed, opened and written to after every step. */
CO_TEST(a_member_serves_until_it_is_replaced)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        unsigned rounds = 0;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_begin_replace(&r, "1", NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), kinds[k].disks);
        while (co_sync(&r, BLK_SYNC_OWED, 2, NULL) == 2) {
            co_rig_work(&r, 1);
            co_rig_compare(&r);
            co_rig_close(&r);
            co_rig_reopen(&r, 0, 0, NULL);
            ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), kinds[k].disks);
            ck_assert_uint_le(++rounds, 64);
        }
        ck_assert_uint_ge(rounds, 2);
        co_end_replace(&r, 1);
    }
    return 0;
}

/* Writes go on meanwhile. */
CO_TEST(writes_go_on_while_a_member_is_replaced)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct co_group g;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_begin_replace(&r, "0", NULL);
        co_group_init(&g, 0);
        co_group_start(&g, co_keep_syncing, &r);
        co_rig_work(&r, 8);
        ck_assert_int_eq(co_group_wait(&g), 0);
        co_rig_compare(&r);
        co_end_replace(&r, 0);
    }
    return 0;
}

/* The old one fails on the way: the new one is what is recovered, and goes on where it was. */
CO_TEST(a_replacement_goes_on_when_the_old_one_fails)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 2);
        co_begin_replace(&r, "1", NULL);
        co_sync(&r, BLK_SYNC_OWED, 2, NULL);
        uint64_t reached = rig_array(&r)->by_role[1]->replacement->recovered;
        ck_assert_uint_gt(reached, 0);
        co_member(&r, BLK_MEMBER_FAIL, "1", NULL, 0);
        ck_assert_uint_eq(rig_array(&r)->by_role[1]->recovered, reached);
        co_rig_work(&r, 1);
        co_rig_compare(&r);
        co_rig_close(&r);
        co_rig_reopen(&r, 2, 0, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_REBUILDING), 1);
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), kinds[k].disks);
        co_rig_compare(&r);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_end(&r);
    }
    return 0;
}

/* The new one breaks at the n-th write: the old one stays. */
CO_TEST(the_old_one_stays_when_its_replacement_breaks)
{
    for (unsigned n = 7; n < 40; n += 3) {
        struct rig r;
        char fault[64];
        co_rig_start(&r, &(struct kind){5, LEFT_SYMMETRIC, 4});
        co_rig_work(&r, 2);
        snprintf(fault, sizeof(fault), "op=write,nth=%u,times=0,errno=EIO", n);
        co_begin_replace(&r, "2", fault);
        co_rig_work(&r, 1);
        co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
        ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), 4);
        ck_assert_uint_eq(count_in(&r, MEMBER_OUT), 1);
        co_rig_compare(&r);
        ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
        co_rig_end(&r);
    }
    return 0;
}

CO_TEST(what_cannot_be_replaced_is_refused)
{
    struct rig r;
    co_rig_start(&r, &(struct kind){1, 0, 2});
    co_member(&r, BLK_MEMBER_REPLACE, "0", NULL, -ENODEV);
    co_member(&r, BLK_MEMBER_REPLACE, "nobody", co_disk(), -ENOENT);
    co_member(&r, BLK_MEMBER_RE_ADD, NULL, co_disk(), -EINVAL);
    co_begin_replace(&r, "0", NULL);
    co_member(&r, BLK_MEMBER_REPLACE, "0", co_disk(), -EBUSY);
    co_rig_end(&r);
    return 0;
}

/* Another copy; and more room in each. */
CO_TEST(an_array_grows)
{
    struct rig r;
    struct blk_error e = {0};
    co_rig_start(&r, &(struct kind){1, 0, 2});
    co_rig_work(&r, 1);
    co_member(&r, BLK_MEMBER_ADD, NULL, co_open_text(&mem_driver, "size=4M,growable=off", NULL), 0);
    ck_assert_int_eq(co_blk_members_grow(r.array, &(struct blk_members_grow){.disks = 3}, &e), 0);
    co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL);
    ck_assert_uint_eq(count_in(&r, MEMBER_IN_SYNC), 3);
    uint64_t was = r.array->size;
    ck_assert_int_eq(
        co_blk_members_grow(r.array, &(struct blk_members_grow){.size = BLK_GROW_MAX}, &e), 0);
    ck_assert_uint_eq(r.array->size, 3 * MiB); /* 4 MiB, data from 1 MiB on */
    ck_assert_uint_gt(co_sync(&r, BLK_SYNC_OWED, UINT32_MAX, NULL), 0);
    ck_assert_uint_eq(co_check(&r, BLK_SYNC_CHECK), 0);
    r.array->size = was; /* of the model */
    co_rig_compare(&r);
    r.array->size = 3 * MiB;
    co_rig_end(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_sync");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, recovery_goes_on_wherever_it_was_interrupted);
    tcase_add_test(tc, scrub_finds_what_differs_and_repairs_it);
    tcase_add_test(tc, resync_begins_where_it_was);
    tcase_add_test(tc, writes_go_on_while_a_member_is_filled);
    tcase_add_test(tc, members_come_and_go);
    tcase_add_test(tc, a_spare_that_breaks_makes_room_for_the_next);
    tcase_add_test(tc, a_member_that_is_pulled_again_gets_all_it_missed);
    tcase_add_test(tc, an_image_that_was_away_is_filled);
    tcase_add_test(tc, a_member_serves_until_it_is_replaced);
    tcase_add_test(tc, writes_go_on_while_a_member_is_replaced);
    tcase_add_test(tc, a_replacement_goes_on_when_the_old_one_fails);
    tcase_add_test(tc, the_old_one_stays_when_its_replacement_breaks);
    tcase_add_test(tc, what_cannot_be_replaced_is_refused);
    tcase_add_test(tc, an_array_grows);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

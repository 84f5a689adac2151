/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rows.c - levels 4, 5 and 6 over disks in memory: every layout with everything it can lose,
 * parity after writes that overlap, what a write costs, and what resync, recovery and scrub do. */
#include <check.h>

#include "block/fault.h"
#include "raid/rows.h"
#include "tests/lib/raid_rig.h"

static const struct kind {
    int level;
    uint32_t layout;
    unsigned disks;
} kinds[] = {
    {4, 0, 3},
    {5, LEFT_ASYMMETRIC, 4},
    {5, RIGHT_ASYMMETRIC, 4},
    {5, LEFT_SYMMETRIC, 4},
    {5, RIGHT_SYMMETRIC, 4},
    {5, PARITY_FIRST, 3},
    {5, PARITY_LAST, 3},
    {6, LEFT_ASYMMETRIC, 5},
    {6, RIGHT_ASYMMETRIC, 5},
    {6, LEFT_SYMMETRIC, 4},
    {6, RIGHT_SYMMETRIC, 5},
    {6, PARITY_FIRST, 5},
    {6, PARITY_LAST, 5},
    {6, DDF_ZERO_RESTART, 5},
    {6, DDF_N_RESTART, 5},
    {6, DDF_N_CONTINUE, 5},
    {6, LEFT_ASYMMETRIC_6, 5},
    {6, RIGHT_ASYMMETRIC_6, 5},
    {6, LEFT_SYMMETRIC_6, 5},
    {6, RIGHT_SYMMETRIC_6, 5},
    {6, PARITY_FIRST_6, 5},
};

static void co_rig_start(struct rig *r, const struct kind *k)
{
    co_rig_init(r, k->level, k->layout, k->disks);
    co_rig_reopen(r, 0, 0, NULL);
}

static uint64_t co_scrub(struct rig *r, bool repair, uint64_t *by_role)
{
    struct raid_scrub found = {.by_role = by_role};
    must(co_rows_scrub(rig_array(r), 0, RIG_DATA, repair, &found) == 0);
    return found.mismatches;
}

/* Everything that can be lost: one member, or two of level 6. */
static bool can_lose(const struct rig *r, unsigned without)
{
    int count = __builtin_popcount(without);
    return without < 1u << r->disks && count >= 1 && count <= (r->level == 6 ? 2 : 1);
}

/* --- contents ----------------------------------------------------------------------------------
 */

CO_TEST(every_layout_without_what_it_can_lose)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 4);
        must(co_scrub(&r, false, NULL) == 0);
        co_rig_close(&r);
        for (unsigned without = 0; without < 1u << r.disks; without++) {
            if (!can_lose(&r, without))
                continue;
            co_rig_reopen(&r, without, 0, NULL);
            co_rig_compare(&r);
            co_rig_close(&r);
        }
        co_rig_drop(&r);
    }
    return 0;
}

/* Written to while members are missing; those are stale then, and with others missing as well it is
 * not started. */
CO_TEST(writes_without_members_are_kept)
{
    static const struct kind few[] = {
        {4, 0, 3}, {5, LEFT_SYMMETRIC, 4}, {6, LEFT_SYMMETRIC, 5}, {6, DDF_N_CONTINUE, 5}};
    for (size_t k = 0; k < ARRAY_LEN(few); k++)
        for (unsigned without = 1; without < 1u << few[k].disks; without++) {
            struct rig r;
            struct blk_error e = {0};
            co_rig_init(&r, few[k].level, few[k].layout, few[k].disks);
            if (can_lose(&r, without)) {
                co_rig_reopen(&r, without, 0, NULL);
                co_rig_work(&r, 3);
                co_rig_compare(&r);
                co_rig_close(&r);
                co_rig_reopen(&r, 0, 0, NULL);
                co_rig_compare(&r);
                co_rig_close(&r);
                must(co_rig_open(&r, ~without, 0, NULL, &e) < 0);
            }
            co_rig_drop(&r);
        }
    return 0;
}

/* --- parity ------------------------------------------------------------------------------------
 */

struct random_job {
    struct rig *r;
    uint64_t seed;
};

static int co_random_change(void *arg)
{
    struct random_job *j = arg;
    uint8_t *buf = mem_aligned(256 * KiB);
    must(buf);
    for (unsigned n = 0; n < 24; n++) {
        uint64_t bytes = 1 + next_random(&j->seed) % (256 * KiB);
        uint64_t at = next_random(&j->seed) % (MiB - bytes); /* all in the first MiB */
        int rc;
        fill_random(&j->seed, buf, bytes);
        if (n % 6 == 4)
            rc = co_blk_write_zeroes(j->r->array, at, bytes, n % 4 ? 0 : BLK_MAY_UNMAP);
        else if (n % 6 == 5)
            rc = co_blk_discard(j->r->array, at, bytes);
        else
            rc = co_blk_write_buf(j->r->array, at, buf, bytes, 0);
        must(rc == 0);
    }
    mem_free(buf);
    return 0;
}

static void co_overlap(struct rig *r)
{
    struct random_job jobs[8];
    struct co_group g;
    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        jobs[i] = (struct random_job){r, i + 1};
        co_group_start(&g, co_random_change, &jobs[i]);
    }
    must(co_group_wait(&g) == 0);
}

CO_TEST(overlapping_changes_leave_parity_right)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        co_overlap(&r);
        must(co_scrub(&r, false, NULL) == 0);
        must(co_blk_read_buf(r.array, 0, r.model, MiB) == 0);
        co_rig_close(&r);
        co_rig_reopen(&r, 2, 0, NULL);
        co_rig_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

/* The same with a memory that has room for hardly one strip. */
CO_TEST(strips_wait_for_memory)
{
    struct rig r;
    co_rig_start(&r, &kinds[9]);
    struct rows *rows = rig_array(&r)->engine_state;
    rows->most = 100 * KiB;
    co_overlap(&r);
    must(rows->held == 0);
    must(co_scrub(&r, false, NULL) == 0);
    co_rig_end(&r);
    return 0;
}

/* --- what it costs -----------------------------------------------------------------------------
 */

struct cost {
    uint64_t reads, writes;
};

static struct cost cost_of(const struct rig *r)
{
    struct cost c = {0};
    for (unsigned i = 0; i < r->disks; i++) {
        c.reads += fault_seen(rig_array(r)->members[i].dev, FAULT_READ);
        c.writes += fault_seen(rig_array(r)->members[i].dev, FAULT_WRITE);
    }
    return c;
}

static void co_counted_start(struct rig *r, const struct kind *k)
{
    co_rig_init(r, k->level, k->layout, k->disks);
    co_rig_reopen(r, 0, RIG_ALL, "op=read,nth=0");
    must(co_rig_put(r, 0, 512, 1) == 0); /* the array is dirty from here on */
}

CO_TEST(a_small_write_costs_what_it_must)
{
    static const struct kind few[] = {
        {4, 0, 6}, {5, LEFT_SYMMETRIC, 6}, {5, LEFT_SYMMETRIC, 3}, {6, LEFT_SYMMETRIC, 6}};
    for (size_t k = 0; k < ARRAY_LEN(few); k++) {
        struct rig r;
        unsigned most = few[k].level == 6 ? 3 : 2;
        co_counted_start(&r, &few[k]);
        struct cost start = cost_of(&r), before = start;
        for (unsigned n = 0; n < 100; n++) {
            uint64_t at = (uint64_t)random() % (r.array->size / 4096) * 4096;
            must(co_rig_put(&r, at, 4096, 1 + n % 6) == 0);
            struct cost after = cost_of(&r);
            must(after.reads - before.reads <= most);
            before = after;
        }
        /* The log has a record on each member with parity, and a head when it has been filled. */
        must(before.writes - start.writes <= 100 * (most + most - 1) + 10);
        co_rig_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

/* Members that hold parity of rows [first, +count). */
static unsigned holders(const struct rig *r, uint64_t first, unsigned count)
{
    unsigned bits = 0;
    for (unsigned n = 0; n < count; n++) {
        struct raid_row row = raid_row(&rig_array(r)->shape, first + n);
        bits |= 1u << row.p | (r->level == 6 ? 1u << row.q : 0);
    }
    return (unsigned)__builtin_popcount(bits);
}

/* One write for each member, and one mark on all that hold parity of the rows; what is more than a
 * MiB of each member are two. */
CO_TEST(full_rows_read_nothing_and_are_one_write)
{
    static const unsigned rows[] = {5, 1, 16, 20};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_counted_start(&r, &kinds[k]);
        uint64_t row = rig_array(&r)->shape.data_disks * RIG_CHUNK;
        for (size_t n = 0; n < ARRAY_LEN(rows); n++) {
            unsigned first = MIN(rows[n], ROW_RUN / RIG_CHUNK), runs = rows[n] > first ? 2 : 1;
            unsigned marks = holders(&r, 2, first) + holders(&r, 2 + first, rows[n] - first);
            struct cost before = cost_of(&r);
            must(co_rig_put(&r, 2 * row, rows[n] * row, 1 + (uint8_t)n) == 0);
            struct cost after = cost_of(&r);
            must(after.reads == before.reads);
            must(after.writes - before.writes == runs * r.disks + marks);
        }
        co_rig_compare(&r);
        must(co_scrub(&r, false, NULL) == 0);
        co_rig_end(&r);
    }
    return 0;
}

/* Where parity cannot be computed from where the data lies, and where it lies in pieces. */
CO_TEST(full_rows_of_any_memory)
{
    struct rig r;
    co_rig_start(&r, &kinds[9]);
    uint64_t row = rig_array(&r)->shape.data_disks * RIG_CHUNK, seed = 1, bytes = 4 * row;
    auto_free uint8_t *memory = mem_aligned(bytes + 4096);
    must(memory);
    fill_random(&seed, memory, bytes + 4096);
    must(co_blk_write_buf(r.array, row, memory + 1, bytes, 0) == 0);
    memcpy(r.model + row, memory + 1, bytes);
    struct iovec iov[] = {{memory, 3000}, {memory + 64 * KiB, bytes - 3000 - 64 * KiB}};
    struct vec v = {.iov = iov, .bytes = bytes - 64 * KiB};
    must(co_blk_write(r.array, 8 * row, &v, 0) == 0);
    vec_to_buf(&v, r.model + 8 * row);
    co_rig_compare(&r);
    must(co_scrub(&r, false, NULL) == 0);
    co_rig_end(&r);
    return 0;
}

static void co_broken(struct rig *r, unsigned members, const struct fault_rule *rule)
{
    for (unsigned i = 0; i < members; i++)
        fault_set(rig_array(r)->members[i].dev, rule);
}

/* As many as can be spared are out, and their part is in the parity. One more: the write fails, and
 * what is missing of it is written before anything is durable. */
CO_TEST(members_that_do_not_take_full_rows)
{
    static const struct kind few[] = {{5, LEFT_SYMMETRIC, 4}, {6, LEFT_SYMMETRIC, 5}};
    const struct fault_rule broken = {.op = FAULT_WRITE, .nth = 2, .rc = -EIO};
    for (size_t k = 0; k < ARRAY_LEN(few); k++)
        for (unsigned more = 0; more < 2; more++) {
            struct rig r;
            unsigned out = few[k].level == 6 ? 2 : 1;
            co_counted_start(&r, &few[k]);
            uint64_t row = rig_array(&r)->shape.data_disks * RIG_CHUNK;
            co_broken(&r, out + more, &broken);
            must((co_rig_put(&r, 0, 16 * row, 2) < 0) == more);
            must(co_blk_flush(r.array) == (more ? -EIO : 0));
            co_broken(&r, r.disks, NULL);
            must(co_blk_flush(r.array) == 0);
            must(!rig_array(&r)->torn && !rig_array(&r)->lost);
            must(co_rig_put(&r, 3 * row, 8 * row, 3) == 0);
            co_rig_compare(&r);
            co_rig_end(&r);
        }
    return 0;
}

struct small_job {
    struct rig *r;
    uint64_t at;
};

static int co_small_job(void *arg)
{
    struct small_job *j = arg;
    return co_rig_put(j->r, j->at, 4096, 1 + (uint8_t)(j->at / 4096 % 6));
}

/* A stream of small writes, many in flight, with disks that take their time. */
CO_TEST(neighbouring_small_writes_are_merged)
{
    struct rig r;
    struct small_job jobs[32];
    struct co_group g;
    const struct fault_rule slow = {.op = FAULT_ALL, .nth = 1, .delay_ns = 1000000};
    co_counted_start(&r, &(struct kind){5, LEFT_SYMMETRIC, 4});
    for (unsigned i = 0; i < r.disks; i++)
        fault_set(rig_array(&r)->members[i].dev, &slow);
    struct cost before = cost_of(&r);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        jobs[i] = (struct small_job){&r, i * 4096};
        co_group_start(&g, co_small_job, &jobs[i]);
    }
    must(co_group_wait(&g) == 0);
    struct cost after = cost_of(&r);
    must(((struct rows *)rig_array(&r)->engine_state)->merged >= 24);
    must(after.reads - before.reads <= 12);
    must(after.writes - before.writes <= 16);
    co_rig_compare(&r);
    must(co_scrub(&r, false, NULL) == 0);
    co_rig_end(&r);
    return 0;
}

/* --- resync, recovery, scrub -------------------------------------------------------------------
 */

static void co_spoil(struct rig *r, unsigned disk, uint64_t at, uint64_t bytes)
{
    auto_free uint8_t *buf = mem_aligned(bytes);
    uint64_t seed = at + disk;
    must(buf);
    fill_random(&seed, buf, bytes);
    must(co_blk_write_buf(r->disk[disk], MiB + at, buf, bytes, 0) == 0);
}

CO_TEST(resync_makes_parity_anew)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_start(&r, &kinds[k]);
        for (unsigned d = 0; d < r.disks; d++)
            co_spoil(&r, d, 0, RIG_DATA);
        must(co_scrub(&r, false, NULL) == RIG_DATA);
        for (uint64_t at = 0; at < RIG_DATA; at += MiB)
            must(co_rows_resync(rig_array(&r), at, MiB) == 0);
        must(co_scrub(&r, false, NULL) == 0);
        co_rig_end(&r);
    }
    return 0;
}

static int co_rebuild_job(void *arg)
{
    struct raid_array *a = arg;
    for (unsigned d = 0; d < a->shape.disks; d++) {
        struct raid_member *m = a->by_role[d];
        for (; m->state == MEMBER_REBUILDING && m->recovered < RIG_DATA; m->recovered += 128 * KiB)
            TRY(co_rows_rebuild(a, m, m->recovered, 128 * KiB));
        m->state = MEMBER_IN_SYNC;
    }
    return 0;
}

/* Members are filled while the array is written to. */
CO_TEST(members_are_filled_beside_writes)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct co_group g;
        co_rig_start(&r, &kinds[k]);
        co_rig_work(&r, 3);
        for (unsigned d = 1; d < (r.level == 6 ? 3u : 2u); d++) {
            struct raid_member *m = rig_array(&r)->by_role[d];
            co_spoil(&r, d, 0, RIG_DATA);
            m->state = MEMBER_REBUILDING;
            m->recovered = 0;
        }
        co_rig_compare(&r);
        co_group_init(&g, 0);
        co_group_start(&g, co_rebuild_job, rig_array(&r));
        co_rig_work(&r, 3);
        must(co_group_wait(&g) == 0);
        co_rig_compare(&r);
        must(co_scrub(&r, false, NULL) == 0);
        co_rig_end(&r);
    }
    return 0;
}

/* A member that has wrong bytes and says nothing: level 6 tells which one it is, and mends it. */
CO_TEST(scrub_finds_damage_and_who_has_it)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned d = 0; d < kinds[k].disks; d++) {
            struct rig r;
            uint64_t by_role[RIG_MOST] = {0};
            co_rig_start(&r, &kinds[k]);
            co_rig_work(&r, 2);
            co_spoil(&r, d, 300 * KiB, 8 * KiB);
            must(co_scrub(&r, false, by_role) == 8 * KiB);
            must(by_role[d] == (r.level == 6 ? 8 * KiB : 0));
            must(co_scrub(&r, true, NULL) == 8 * KiB);
            must(co_scrub(&r, false, NULL) == 0);
            if (r.level == 6)
                co_rig_compare(&r);
            co_rig_end(&r);
        }
    return 0;
}

/* More than can be lost: an error, never wrong bytes. */
CO_TEST(more_than_can_be_lost_is_an_error)
{
    const struct fault_rule broken = {.op = FAULT_READ, .nth = 1, .rc = -EIO};
    uint8_t buf[4096];
    struct rig r;
    co_rig_init(&r, 5, LEFT_SYMMETRIC, 4);
    co_rig_reopen(&r, 1, 1, "op=read,nth=0");
    fault_set(rig_array(&r)->by_role[1]->dev, &broken);
    int rc = 0;
    for (uint64_t at = 0; at < r.array->size && rc == 0; at += RIG_CHUNK)
        rc = co_blk_read_buf(r.array, at, buf, sizeof(buf));
    must(rc == -EIO);
    must(co_blk_write_buf(r.array, 0, buf, 512, 0) == -EIO);
    must(co_blk_write_buf(r.array, 0, buf, 0, 0) == 0);
    (void)!co_blk_close(r.array, NULL);
    co_rig_drop(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_rows");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_layout_without_what_it_can_lose);
    tcase_add_test(tc, writes_without_members_are_kept);
    tcase_add_test(tc, overlapping_changes_leave_parity_right);
    tcase_add_test(tc, strips_wait_for_memory);
    tcase_add_test(tc, a_small_write_costs_what_it_must);
    tcase_add_test(tc, full_rows_read_nothing_and_are_one_write);
    tcase_add_test(tc, full_rows_of_any_memory);
    tcase_add_test(tc, members_that_do_not_take_full_rows);
    tcase_add_test(tc, neighbouring_small_writes_are_merged);
    tcase_add_test(tc, resync_makes_parity_anew);
    tcase_add_test(tc, members_are_filled_beside_writes);
    tcase_add_test(tc, scrub_finds_damage_and_who_has_it);
    tcase_add_test(tc, more_than_can_be_lost_is_an_error);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

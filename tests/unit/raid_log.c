/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_log.c - the stripe log of levels 4, 5 and 6: what a crash tore is whole again, with a member
 * gone at the same time; and the log does not count once somebody else was there. The sweep
 * raid_rows looks at every cut; here are the cases that it cannot make. */
#include <check.h>

#include "raid/bitmap.h"
#include "raid/log.h"
#include "tests/lib/raid_rig.h"

/* What the disks hold now, to be put back later: a crash. */
struct shot {
    uint8_t *disk[RIG_MOST];
};

static void co_take(const struct rig *r, struct shot *s)
{
    for (unsigned i = 0; i < r->disks; i++) {
        s->disk[i] = mem_alloc(RIG_DISK);
        must(s->disk[i] && co_blk_read_buf(r->disk[i], 0, s->disk[i], RIG_DISK) == 0);
    }
}

static void co_put_back(const struct rig *r, const struct shot *s)
{
    for (unsigned i = 0; i < r->disks; i++)
        must(co_blk_write_buf(r->disk[i], 0, s->disk[i], RIG_DISK, 0) == 0);
}

static void shot_drop(const struct rig *r, struct shot *s)
{
    for (unsigned i = 0; i < r->disks; i++)
        mem_free(s->disk[i]);
}

/* An array that was written to and went down: small writes everywhere, then one at the beginning,
 * of whose strip the parity never arrived. */
static void co_crashed(struct rig *r, struct shot *s, const struct rig *kind)
{
    static const uint8_t garbage[4096] = {0x55};
    *r = *kind;
    co_rig_make(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_rig_work(r, 2);
    must(co_rig_put(r, 0, 4096, 1) == 0);
    co_take(r, s);
    struct raid_row row = raid_row(&rig_array(r)->shape, 0);
    memcpy(s->disk[row.p] + MiB, garbage, sizeof(garbage));
    if (r->level == 6)
        memcpy(s->disk[row.q] + MiB, garbage, sizeof(garbage));
    co_rig_close(r);
    co_put_back(r, s);
}

static const struct rig kinds[] = {
    {.level = 4, .layout = LEFT_SYMMETRIC, .disks = 3},
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4},
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 5},
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4, .dm_layout = "left-symmetric"},
};

CO_TEST(what_a_crash_tore_is_whole_with_members_gone)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct shot s;
        co_crashed(&r, &s, &kinds[k]);
        for (unsigned without = 0; without < 1u << r.disks; without++) {
            if (__builtin_popcount(without) > (r.level == 6 ? 2 : 1))
                continue;
            co_put_back(&r, &s);
            co_rig_reopen(&r, without, 0, NULL);
            must(!rig_array(&r)->was_dirty);
            co_rig_compare(&r);
            co_rig_close(&r);
        }
        shot_drop(&r, &s);
        co_rig_drop(&r);
    }
    return 0;
}

/* Rows 1 to 5 were being written: of rows 2 to 4 a chunk and all parity are neither old nor new. */
static void co_torn_run(struct rig *r, struct shot *s, const struct rig *kind)
{
    uint64_t seed = 1, row_bytes;
    *r = *kind;
    co_rig_make(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_rig_work(r, 2);
    row_bytes = rig_array(r)->shape.data_disks * RIG_CHUNK;
    uint64_t before = rig_array(r)->log->records;
    must(co_rig_put(r, row_bytes, 5 * row_bytes, 1) == 0);
    must(rig_array(r)->log->records == before + (r->level == 4 ? 1 : r->disks));
    co_take(r, s);
    for (unsigned n = 2; n < 5; n++) {
        struct raid_row row = raid_row(&rig_array(r)->shape, n);
        fill_random(&seed, s->disk[raid_row_disk(&row, 1)] + MiB + n * RIG_CHUNK, RIG_CHUNK);
        fill_random(&seed, s->disk[row.p] + MiB + n * RIG_CHUNK, RIG_CHUNK);
        if (r->level == 6)
            fill_random(&seed, s->disk[row.q] + MiB + n * RIG_CHUNK, RIG_CHUNK);
    }
    co_rig_close(r);
}

/* What is not of those rows is as it was; the model has what they hold from now on. */
static void co_take_torn(struct rig *r)
{
    uint64_t row_bytes = rig_array(r)->shape.data_disks * RIG_CHUNK;
    must(co_blk_read_buf(r->array, 2 * row_bytes, r->model + 2 * row_bytes, 3 * row_bytes) == 0);
    co_rig_compare(r);
}

static uint64_t co_mismatches(const struct rig *r)
{
    struct raid_scrub found = {0};
    must(co_rows_scrub(rig_array(r), 0, RIG_DATA, false, &found) == 0);
    return found.mismatches;
}

/* What is read of rows that were torn does not depend on who else goes later. */
CO_TEST(a_torn_run_stays_what_it_is_read_as)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct shot s;
        co_torn_run(&r, &s, &kinds[k]);
        co_put_back(&r, &s);
        co_rig_reopen(&r, 0, 0, NULL);
        co_take_torn(&r);
        must(co_mismatches(&r) == 0);
        co_rig_close(&r);
        for (unsigned first = 0; first < r.disks; first++)
            for (unsigned next = 0; next < r.disks; next++) {
                co_put_back(&r, &s);
                co_rig_reopen(&r, 1u << first, 0, NULL);
                co_take_torn(&r);
                co_rig_close(&r);
                co_rig_reopen(&r, 1u << first | (r.level == 6 ? 1u << next : 0), 0, NULL);
                co_rig_compare(&r);
                co_rig_close(&r);
            }
        shot_drop(&r, &s);
        co_rig_drop(&r);
    }
    return 0;
}

/* Small writes, of which the log has the contents, then whole rows over them: whoever is lost,
 * those that are older do not come back. */
CO_TEST(contents_older_than_a_run_do_not_come_back)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r = kinds[k];
        struct shot s;
        co_rig_make(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        uint64_t row_bytes = rig_array(&r)->shape.data_disks * RIG_CHUNK;
        for (uint64_t at = 0; at < 8 * row_bytes; at += RIG_CHUNK)
            must(co_rig_put(&r, at + 4096, 8192, 2) == 0);
        must(co_rig_put(&r, 0, 8 * row_bytes, 3) == 0);
        must(co_blk_flush(r.array) == 0);
        co_take(&r, &s);
        co_rig_close(&r);
        for (unsigned without = 0; without < 1u << r.disks; without++) {
            if (__builtin_popcount(without) > (r.level == 6 ? 2 : 1))
                continue;
            co_put_back(&r, &s);
            co_rig_reopen(&r, without, 0, NULL);
            co_rig_compare(&r);
            co_rig_close(&r);
        }
        shot_drop(&r, &s);
        co_rig_drop(&r);
    }
    return 0;
}

/* A write went on its way when the power did: of its record, which P's and Q's members are to have,
 * one has it. Nothing is in place. @after: what the array would hold with it; the model is without.
 */
static void co_begun(struct rig *r, struct shot *s, uint8_t **after)
{
    struct shot with;
    *r = kinds[2];
    co_rig_make(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_rig_work(r, 2);
    auto_free uint8_t *before = mem_alloc(r->array->size);
    *after = mem_alloc(r->array->size);
    must(before && *after);
    memcpy(before, r->model, r->array->size);
    co_take(r, s);
    must(co_rig_put(r, 0, 4096, 1) == 0);
    co_take(r, &with);
    memcpy(*after, r->model, r->array->size);
    memcpy(r->model, before, r->array->size);
    unsigned q = raid_row(&rig_array(r)->shape, 0).q;
    must(memcmp(s->disk[q], with.disk[q], RIG_DATA_AT) != 0);
    memcpy(s->disk[q], with.disk[q], RIG_DATA_AT);
    shot_drop(r, &with);
    co_rig_close(r);
    co_put_back(r, s);
}

/* Where the one that lacks it says so; from then on also where that one is lost. If it never could
 * say so, the write is there whole. */
CO_TEST(a_record_that_not_all_rings_have_is_passed_over)
{
    struct rig r;
    struct shot s, later;
    uint8_t *after;
    co_begun(&r, &s, &after);
    co_rig_reopen(&r, 0, 0, NULL);
    struct raid_row row = raid_row(&rig_array(&r)->shape, 0);
    uint64_t size = r.array->size;
    co_rig_compare(&r);
    must(co_mismatches(&r) == 0);
    must(co_rig_put(&r, 5 * RIG_CHUNK, 4096, 3) == 0); /* in the same session of the log */
    co_take(&r, &later);
    co_rig_close(&r);
    for (unsigned d = 0; d < r.disks; d++) {
        co_put_back(&r, &later);
        co_rig_reopen(&r, 1u << row.p | 1u << d, 0, NULL);
        co_rig_compare(&r);
        co_rig_close(&r);
    }
    memcpy(r.model, after, size);
    co_put_back(&r, &s);
    co_rig_reopen(&r, 1u << row.p, 0, NULL);
    must(!rig_array(&r)->was_dirty);
    co_rig_compare(&r);
    co_rig_end(&r);
    shot_drop(&r, &s);
    shot_drop(&r, &later);
    mem_free(after);
    return 0;
}

/* Failed, written to without, and added again: by the bitmap. */
static void co_away(struct rig *r, unsigned d)
{
    struct blk_sync s = {.kind = BLK_SYNC_OWED};
    struct blk_error e = {0};
    char role[2] = {(char)('0' + d), 0};
    must(co_rig_member(r, BLK_MEMBER_FAIL, role, NULL, &e) == 0);
    must(co_rig_put(r, 0, 4096, 2) == 0);
    for (unsigned i = 0; i < r->disks; i++)
        if (rig_array(r)->members[i].state == MEMBER_OUT)
            must(co_rig_member(r, BLK_MEMBER_REMOVE, member_name(&rig_array(r)->members[i]), NULL,
                               &e) == 0);
    must(co_rig_member(r, BLK_MEMBER_ADD, NULL, blk_ref(r->disk[d]), &e) == 0);
    must(rig_array(r)->by_role[d] && rig_array(r)->by_role[d]->by_bitmap);
    do
        must(co_blk_sync(r->array, &s, &e) == 0);
    while (s.doing);
}

/* A row is written to while who has its log is away: what was logged there before is old. */
CO_TEST(the_ring_of_a_member_that_was_away_does_not_count)
{
    static const struct rig with_bitmap[] = {
        {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 4, .bitmap = true},
        {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 5, .bitmap = true},
    };
    for (size_t k = 0; k < ARRAY_LEN(with_bitmap); k++) {
        struct rig r = with_bitmap[k];
        struct shot s;
        co_rig_make(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        struct raid_row row = raid_row(&rig_array(&r)->shape, 0);
        must(co_rig_put(&r, 0, 4096, 1) == 0);
        co_away(&r, row.p);
        if (r.level == 6)
            co_away(&r, row.q);
        must(rig_array(&r)->marked_dirty);
        co_take(&r, &s);
        co_rig_close(&r);
        co_put_back(&r, &s);
        co_rig_reopen(&r, 0, 0, NULL);
        co_rig_compare(&r);
        must(co_mismatches(&r) == 0);
        co_rig_end(&r);
        shot_drop(&r, &s);
    }
    return 0;
}

/* What dm-raid does when it loads a bitmap, whatever it does to the superblock. */
static void co_foreign_bitmap(struct blk_device *dev)
{
    uint8_t raw[MD_BITMAP_HEADER];
    struct md_bitmap b;
    struct blk_error e = {0};
    must(co_blk_read_buf(dev, MD_SUPER_BYTES, raw, sizeof(raw)) == 0);
    must(md_bitmap_parse(raw, &b, &e) == 0 && b.seal);
    b.seal = 0;
    md_bitmap_build(&b, raw);
    must(co_blk_write_buf(dev, MD_SUPER_BYTES, raw, sizeof(raw), 0) == 0);
}

/* The superblock of each disk says that somebody else counted on. */
static void co_foreign_update(struct rig *r)
{
    for (unsigned i = 0; i < r->disks; i++) {
        struct md_super *s;
        if (r->dm_layout) {
            co_foreign_bitmap(r->disk[i]);
            continue;
        }
        must(co_member_find_super(r->disk[i], &s, NULL) == 0);
        s->events++;
        md_super_build(s);
        must(co_blk_write_buf(r->disk[i], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
        mem_free(s);
    }
}

CO_TEST(the_log_does_not_count_when_somebody_else_was_there)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        struct shot s;
        struct blk_error e = {0};
        co_crashed(&r, &s, &kinds[k]);
        co_foreign_update(&r);
        must(co_rig_open(&r, 2, 0, NULL, &e) == -EUCLEAN); /* degraded and dirty: the write hole */
        must(co_rig_open(&r, 0, 0, NULL, &e) == 0);
        must(rig_array(&r)->was_dirty);
        must(rig_array(&r)->log->records == 0);
        (void)!co_blk_close(r.array, NULL);
        shot_drop(&r, &s);
        co_rig_drop(&r);
    }
    return 0;
}

/* Without the log's head, or with a record that is not whole, nothing of it is taken. */
CO_TEST(a_damaged_log_does_no_harm)
{
    struct rig r;
    struct shot s;
    struct blk_error e = {0};
    uint64_t start, bytes, seed = 1;
    co_crashed(&r, &s, &kinds[1]);
    must(co_rig_open(&r, 0, 0, NULL, &e) == 0);
    must(log_area(rig_array(&r)->members[0].super, &start, &bytes));
    must(start + bytes == MiB && bytes >= LOG_LEAST);
    co_rig_close(&r);
    for (unsigned n = 0; n < 64; n++) {
        uint8_t noise[64];
        unsigned disk = n % r.disks;
        co_put_back(&r, &s);
        uint64_t at = n < 8 ? start - LOG_BLOCK : start + next_random(&seed) % (bytes / 4);
        fill_random(&seed, noise, sizeof(noise));
        must(co_blk_write_buf(r.disk[disk], at, noise, sizeof(noise), 0) == 0);
        int rc = co_rig_open(&r, 0, 0, NULL, &e);
        must(rc == 0 && (n >= 8 || rig_array(&r)->was_dirty));
        must(co_blk_close(r.array, NULL) == 0);
    }
    shot_drop(&r, &s);
    co_rig_drop(&r);
    return 0;
}

/* Far more than the rings hold goes through them. */
CO_TEST(rings_go_around)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        r = kinds[k];
        co_rig_make(&r);
        co_rig_reopen(&r, 0, 0, NULL);
        for (unsigned n = 0; n < 600; n++)
            must(co_rig_put(&r, n * 5 * 4096 % (r.array->size - 8192), 8192, 1 + n % 6) == 0);
        must(rig_array(&r)->log->trims >= 3);
        must(rig_array(&r)->log->records >= 600);
        co_rig_end_compared(&r);
    }
    return 0;
}

/* Nor do marks pile up: what they are about is read after a crash. */
CO_TEST(few_bytes_are_marked)
{
    struct rig r = kinds[1];
    co_rig_make(&r);
    co_rig_reopen(&r, 0, 0, NULL);
    struct raid_log *log = rig_array(&r)->log;
    log->marked_most = 8 * MiB;
    for (unsigned n = 0; n < 32; n++) {
        must(co_rig_put(&r, 0, r.array->size, 1 + n % 6) == 0);
        for (unsigned i = 0; i < r.disks; i++)
            must(rig_array(&r)->members[i].log->marked <= log->marked_most + ROW_RUN);
    }
    must(log->trims >= 64 / 8 - 1 && log->trims <= 64);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_log");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, what_a_crash_tore_is_whole_with_members_gone);
    tcase_add_test(tc, a_torn_run_stays_what_it_is_read_as);
    tcase_add_test(tc, contents_older_than_a_run_do_not_come_back);
    tcase_add_test(tc, a_record_that_not_all_rings_have_is_passed_over);
    tcase_add_test(tc, the_ring_of_a_member_that_was_away_does_not_count);
    tcase_add_test(tc, the_log_does_not_count_when_somebody_else_was_there);
    tcase_add_test(tc, a_damaged_log_does_no_harm);
    tcase_add_test(tc, rings_go_around);
    tcase_add_test(tc, few_bytes_are_marked);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_array.c - arrays that live, over disks in memory: every byte against a model, members that
 * fail while it is written to, and what is made of them afterwards. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/fault.h"
#include "raid/array.h"
#include "raid/md.h"
#include "tests/lib/on_host.h"

#define MEMBER (6 * MiB)
#define DATA   (4 * MiB)
#define MOST   6

struct rig {
    int level;
    uint32_t layout;
    unsigned disks;
    struct blk_device *disk[MOST]; /* held by us, so that they outlive the array */
    uint8_t *model;
    struct blk_device *array;
};

static void co_write_super(struct rig *r, unsigned i)
{
    struct md_super *s = mem_zalloc(sizeof(*s));
    struct md_super model = {.version = MD_1_2,
                             .super_offset = 4096,
                             .level = r->level,
                             .layout = r->layout,
                             .disks = r->disks,
                             .events = 5,
                             .number = i,
                             .chunk = r->level == 1 ? 0 : 64 * KiB,
                             .data_offset = MiB,
                             .size = r->level > 0 ? DATA : 0,
                             .data_size = DATA,
                             .resync_offset = UINT64_MAX,
                             .recovery_offset = UINT64_MAX};
    *s = model;
    memcpy(s->uuid, "test-array-uuid!", 16);
    if (r->level == 0)
        s->features = MD_RAID0_LAYOUT;
    for (unsigned k = 0; k < r->disks; k++)
        ck_assert(md_super_set_role(s, k, k));
    md_super_build(s);
    ck_assert_int_eq(co_blk_write_buf(r->disk[i], 4096, s->raw, MD_SUPER_BYTES, 0), 0);
    mem_free(s);
}

static void co_rig_init(struct rig *r, int level, uint32_t layout, unsigned disks)
{
    *r = (struct rig){.level = level, .layout = layout, .disks = disks};
    for (unsigned i = 0; i < disks; i++) {
        r->disk[i] = co_open_text(&mem_driver, "size=6M,growable=off", NULL);
        co_write_super(r, i);
    }
}

/* @fault: options of a fault layer over member @at; @without: bits of members that are missing. */
static int co_rig_open(struct rig *r, unsigned without, unsigned at, const char *fault,
                       struct blk_error *e)
{
    struct blk_child parts[MOST];
    size_t count = 0;
    for (unsigned n = 0; n < r->disks; n++) {
        unsigned i = r->disks - 1 - n; /* not in the order of their roles */
        if (without >> i & 1)
            continue;
        struct blk_device *dev = blk_ref(r->disk[i]);
        if (fault && i == at)
            dev = co_open_text(&fault_driver, fault, dev);
        parts[count++] = (struct blk_child){"member", dev};
    }
    return co_blk_open(&md_driver, NULL, NULL, BLK_OPEN_WRITE, NULL, parts, count, &r->array, e);
}

static void co_rig_reopen(struct rig *r, unsigned without, unsigned at, const char *fault)
{
    struct blk_error e = {0};
    int rc = co_rig_open(r, without, at, fault, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    if (!r->model)
        r->model = mem_zalloc(r->array->size);
    ck_assert_ptr_nonnull(r->model);
}

static void co_rig_close(struct rig *r)
{
    ck_assert_int_eq(co_blk_close(r->array, NULL), 0);
    r->array = NULL;
}

static void co_rig_drop(struct rig *r)
{
    for (unsigned i = 0; i < r->disks; i++)
        ck_assert_int_eq(co_blk_close(r->disk[i], NULL), 0);
    mem_free(r->model);
}

/* --- work --------------------------------------------------------------------------------------
 */

struct job {
    struct rig *r;
    uint64_t offset, bytes;
    uint8_t fill;
};

static int co_job(void *arg)
{
    struct job *j = arg;
    auto_free uint8_t *buf = mem_aligned(j->bytes);
    memset(buf, j->fill, j->bytes);
    if (j->fill)
        return co_blk_write_buf(j->r->array, j->offset, buf, j->bytes, j->fill % 7 ? 0 : BLK_FUA);
    return co_blk_write_zeroes(j->r->array, j->offset, j->bytes, BLK_MAY_UNMAP);
}

/* Sixteen at once that do not overlap: each in its own sixteenth. */
static void co_work(struct rig *r, unsigned rounds)
{
    uint64_t part = r->array->size / 16;
    for (unsigned n = 0; n < rounds; n++) {
        struct job jobs[16];
        struct co_group g;
        co_group_init(&g, 0);
        for (unsigned i = 0; i < 16; i++) {
            uint64_t at = (uint64_t)random() % part, bytes = 1 + (uint64_t)random() % (200 * KiB);
            if (random() % 2) {
                at = at / 4096 * 4096;
                bytes = align_up(bytes, 4096);
            }
            jobs[i] = (struct job){r, i * part + at, MIN(bytes, part - at),
                                   (uint8_t)(random() % 5 ? random() : 0)};
            memset(r->model + jobs[i].offset, jobs[i].fill, jobs[i].bytes);
            co_group_start(&g, co_job, &jobs[i]);
        }
        ck_assert_int_eq(co_group_wait(&g), 0);
    }
}

static void co_compare(struct rig *r)
{
    auto_free uint8_t *buf = mem_aligned(MiB);
    for (uint64_t at = 0; at < r->array->size; at += MiB) {
        uint64_t n = MIN(MiB, r->array->size - at);
        ck_assert_int_eq(co_blk_read_buf(r->array, at, buf, n), 0);
        ck_assert_msg(memcmp(buf, r->model + at, n) == 0, "level %d, MiB at %" PRIu64, r->level,
                      at);
    }
}

static const struct {
    int level;
    uint32_t layout;
    unsigned disks;
    bool redundant;
} kinds[] = {
    {RAID_LINEAR, 0, 3, false},
    {0, RAID0_ORIGINAL, 3, false},
    {1, 0, 2, true},
    {1, 0, 3, true},
    {10, 0x102, 4, true},
    {10, 0x102, 3, true},
    {10, 0x201, 4, true},
    {10, 0x10201, 3, true},
};

/* Opened again with all its members, it shows the same. */
static void co_rig_end(struct rig *r)
{
    co_rig_close(r);
    co_rig_reopen(r, 0, 0, NULL);
    co_compare(r);
    co_rig_close(r);
    co_rig_drop(r);
}

static int co_all_bytes(void *arg)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
        co_rig_reopen(&r, 0, 0, NULL);
        co_work(&r, 8);
        co_compare(&r);
        co_rig_end(&r);
    }
    return 0;
}

START_TEST(every_byte_of_every_level)
{
    ck_assert_int_eq(on_host(NULL, co_all_bytes, NULL), 0);
}
END_TEST

/* Without any one member; then the members that were there go on without it, and when it comes back
 * it is stale. */
static int co_each_missing(void *arg)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned i = 0; kinds[k].redundant && i < kinds[k].disks; i++) {
            struct rig r;
            co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
            co_rig_reopen(&r, 0, 0, NULL);
            co_work(&r, 4);
            co_rig_close(&r);
            co_rig_reopen(&r, 1u << i, 0, NULL);
            co_compare(&r);
            co_work(&r, 4);
            co_rig_end(&r);
        }
    return 0;
}

START_TEST(any_member_may_be_missing_and_is_stale_then)
{
    ck_assert_int_eq(on_host(NULL, co_each_missing, NULL), 0);
}
END_TEST

/* A member that fails at the n-th write is put out; nothing is lost, and it does not come back. */
static int co_each_fails(void *arg)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        for (unsigned n = 1; kinds[k].redundant && n < 40; n += 3) {
            struct rig r;
            char fault[100];
            unsigned at = n % kinds[k].disks;
            snprintf(fault, sizeof(fault), "op=write,nth=%u,times=0,errno=EIO", n);
            co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
            co_rig_reopen(&r, 0, at, fault);
            co_work(&r, 4);
            co_compare(&r);
            co_rig_end(&r);
        }
    return 0;
}

START_TEST(a_member_that_fails_is_put_out)
{
    ck_assert_int_eq(on_host(NULL, co_each_fails, NULL), 0);
}
END_TEST

/* Sectors that cannot be read are read from another copy, and written back. */
static int co_read_errors(void *arg)
{
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        struct rig r;
        if (!kinds[k].redundant)
            continue;
        co_rig_init(&r, kinds[k].level, kinds[k].layout, kinds[k].disks);
        co_rig_reopen(&r, 0, 0, NULL);
        co_work(&r, 4);
        co_rig_close(&r);
        co_rig_reopen(&r, 0, 0, "op=read,nth=6,times=5,errno=EIO");
        co_compare(&r);
        for (unsigned i = 0; i < r.disks; i++)
            ck_assert_int_eq(((struct raid_array *)r.array->state)->members[i].state,
                             MEMBER_IN_SYNC);
        co_rig_close(&r);
        co_rig_drop(&r);
    }
    return 0;
}

START_TEST(what_cannot_be_read_comes_from_another_copy)
{
    ck_assert_int_eq(on_host(NULL, co_read_errors, NULL), 0);
}
END_TEST

/* The last member that has something does not fail: the request does. */
static int co_last_one(void *arg)
{
    struct rig r;
    uint8_t buf[4096] = {1};
    co_rig_init(&r, 1, 0, 2);
    co_rig_reopen(&r, 2, 0, "op=write,nth=3,times=0,errno=EIO");
    int rc = 0;
    for (unsigned i = 0; i < 4 && rc == 0; i++)
        rc = co_blk_write_buf(r.array, i * 4096, buf, sizeof(buf), 0);
    ck_assert_int_eq(rc, -EIO);
    ck_assert_int_eq(co_blk_read_buf(r.array, 0, buf, sizeof(buf)), 0);
    (void)!co_blk_close(r.array, NULL);
    co_rig_drop(&r);
    return 0;
}

START_TEST(the_last_member_stays)
{
    ck_assert_int_eq(on_host(NULL, co_last_one, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("raid_array");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_byte_of_every_level);
    tcase_add_test(tc, any_member_may_be_missing_and_is_stale_then);
    tcase_add_test(tc, a_member_that_fails_is_put_out);
    tcase_add_test(tc, what_cannot_be_read_comes_from_another_copy);
    tcase_add_test(tc, the_last_member_stays);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

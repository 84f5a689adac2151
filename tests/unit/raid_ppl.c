/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_ppl.c - the partial parity log of level 5: what a header looks like, that many strips share
 * one, and what is not whole or points elsewhere is passed over. The sweep raid_ppl cuts it
 * everywhere; tests/e2e/raid_guest_kept.sh shows it to the kernel. */
#include <check.h>

#include "block/crc32c.h"
#include "block/fault.h"
#include "raid/ppl.h"
#include "tests/lib/raid_rig.h"

#define AREA (4096 + 8192) /* on each disk: raid_rig.c's */

START_TEST(an_empty_header_is_as_md_has_it)
{
    struct ppl_head_disk h = {.count = le32_of(0)};
    auto_free struct md_super *s = mem_zalloc(sizeof(*s));
    for (unsigned i = 0; i < 16; i++)
        s->uuid[i] = (uint8_t)i;
    h.signature = le32_of(md_uuid_crc(s));
    ppl_seal(&h);
    ck_assert_uint_eq(le32_get(h.signature), 0xd9c908eb);
    ck_assert_uint_eq(le32_get(h.crc), 0xa68b68c7);
}
END_TEST

static void co_make(struct rig *r)
{
    *r = (struct rig){.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .ppl = true};
    co_rig_make(r);
    co_rig_reopen(r, 0, 0, NULL);
}

static void co_read_head(struct rig *r, unsigned disk, struct ppl_head_disk *h)
{
    must(co_blk_read_buf(r->disk[disk], AREA, h, sizeof(*h)) == 0);
}

/* The first page of the array: its parity is on the last of three disks. */
CO_TEST(entries_say_what_is_written_and_what_stays)
{
    struct rig r;
    static struct ppl_head_disk h;
    co_make(&r);
    must(co_rig_put(&r, 64 * KiB, 64 * KiB, 1) == 0); /* the other chunk */
    must(co_rig_put(&r, 4096, 8192, 2) == 0);
    co_read_head(&r, 2, &h);
    must(le32_get(h.count) == 1 && le64_get(h.entry[0].sector) == 8);
    must(le32_get(h.entry[0].partial_bytes) == 8192 && le32_get(h.entry[0].data_bytes) == 8192);
    must(le32_get(h.entry[0].parity_role) == 2);
    must(le32_get(h.entry[0].crc) == crc32c(0, r.model + 68 * KiB, 8192)); /* what stays */
    must(co_rig_put(&r, 0, 128 * KiB, 3) == 0);
    co_read_head(&r, 2, &h);
    must(le32_get(h.count) == 1 && le32_get(h.entry[0].partial_bytes) == 0);
    must(le32_get(h.entry[0].data_bytes) == 128 * KiB);
    co_rig_close(&r);
    co_rig_reopen(&r, 0, 0, NULL);
    co_read_head(&r, 2, &h);
    must(le32_get(h.count) == 0); /* it begins anew */
    co_rig_compare(&r);
    co_rig_close(&r);
    co_rig_drop(&r);
    return 0;
}

struct job {
    struct rig *r;
    uint64_t at;
};

static int co_small(void *arg)
{
    const struct job *j = arg;
    return co_rig_put(j->r, j->at, 4096, 3);
}

/* Many writes in flight, with disks that take their time, need far fewer headers. */
CO_TEST(writes_in_flight_share_headers)
{
    struct rig r;
    struct co_group g;
    struct job jobs[32];
    const struct fault_rule slow = {.op = FAULT_ALL, .nth = 1, .delay_ns = 1000000};
    co_make(&r);
    co_rig_close(&r);
    co_rig_reopen(&r, 0, RIG_ALL, "op=read,nth=0");
    must(co_rig_put(&r, 0, 4096, 1) == 0);
    uint64_t before = rig_array(&r)->ppl->units;
    for (unsigned i = 0; i < r.disks; i++)
        fault_set(rig_array(&r)->members[i].dev, &slow);
    co_group_init(&g, 0);
    for (unsigned i = 0; i < ARRAY_LEN(jobs); i++) {
        jobs[i] = (struct job){&r, i * 128 * KiB + 4096};
        co_group_start(&g, co_small, &jobs[i]);
    }
    must(co_group_wait(&g) == 0);
    must(rig_array(&r)->ppl->units - before <= 12);
    co_rig_compare(&r);
    co_rig_close(&r);
    co_rig_drop(&r);
    return 0;
}

/* --- what is not whole -------------------------------------------------------------------------
 */

/* Says dirty, and has @e as the one entry of disk 2's log. */
static void co_plant(struct rig *r, const struct ppl_entry_disk *e)
{
    static struct ppl_head_disk h;
    for (unsigned i = 0; i < r->disks; i++) {
        struct md_super *s;
        must(co_member_find_super(r->disk[i], &s, NULL) == 0);
        s->resync_offset = 0;
        md_super_build(s);
        must(co_blk_write_buf(r->disk[i], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
        h.signature = le32_of(md_uuid_crc(s));
        mem_free(s);
    }
    h.count = le32_of(1);
    h.generation = le64_of(7);
    h.entry[0] = *e;
    ppl_seal(&h);
    must(co_blk_write_buf(r->disk[2], AREA, &h, sizeof(h), 0) == 0);
}

static struct ppl_entry_disk entry(uint64_t sector, uint32_t partial, uint32_t data, uint32_t crc)
{
    return (struct ppl_entry_disk){le64_of(sector), le32_of(partial), le32_of(data), le32_of(2),
                                   le32_of(crc)};
}

CO_TEST(entries_that_cannot_be_are_passed_over)
{
    static const uint8_t zero[8192];
    uint32_t one = crc32c(0, zero, 4096);
    const struct ppl_entry_disk bad[] = {
        entry(8, 4096, 4096, one + 1),                 /* not what was written */
        entry(UINT64_MAX, 4096, 4096, one),            /* nowhere */
        entry(8000, 4096, 4096, one),                  /* behind the end */
        entry(120, 8192, 8192, crc32c(0, zero, 8192)), /* over the end of a chunk */
        entry(128, 4096, 8192, one),                   /* over the end of a row */
        entry(256, 4096, 4096, one),                   /* whose parity is elsewhere */
        entry(8, 4096, 0, one),                        /* nothing */
        entry(8, 4096, 100, one),                      /* less than what stays */
        entry(8, 0x7fffff00, 4096, one),               /* more than the log */
        entry(8, 0, UINT32_MAX & ~511u, 0),            /* more than a row */
    };
    struct rig r;
    co_make(&r);
    co_rig_work(&r, 1);
    co_rig_close(&r);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        co_plant(&r, &bad[i]);
        co_rig_reopen(&r, 0, 0, NULL);
        must(rig_array(&r)->was_dirty); /* to be resynced, since something may be missing */
        co_rig_compare(&r);
        co_rig_close(&r);
    }
    co_rig_drop(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_ppl");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, an_empty_header_is_as_md_has_it);
    tcase_add_test(tc, entries_say_what_is_written_and_what_stays);
    tcase_add_test(tc, writes_in_flight_share_headers);
    tcase_add_test(tc, entries_that_cannot_be_are_passed_over);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_journal.c - md's journal: what counts of the records that are found there, for who reads and
 * for who writes; what is not whole or cannot be is passed over; arrays without their journal. The
 * sweep raid_journal cuts it everywhere; tests/e2e/raid_journal.sh has the kernel's own, and
 * tests/e2e/raid_guest_journal.sh shows ours to the kernel. */
#include <check.h>

#include "block/fault.h"
#include "raid/journal.h"
#include "tests/lib/raid_records.h"
#include "tests/lib/raid_rig.h"

#define SEQUENCE 100 /* of the record at the tail, where tests write some */
#define NEW      0x11
#define CHUNK    RIG_CHUNK

/* RAID-5 over disks 0 to 2, zeroes; disk 3 is the journal. Of row 0 disk 2 has the parity. */
static void co_make(struct rig *r)
{
    *r = (struct rig){.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .journal = true};
    co_rig_make(r);
}

/* --- records by hand ---------------------------------------------------------------------------
 */

static uint32_t seed_of(const struct rig *r)
{
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    must(s);
    rig_super(r, 0, s);
    return md_uuid_crc(s);
}

static struct records records_of(const struct rig *r)
{
    return (struct records){r->disk[3], RIG_DATA_AT, seed_of(r)};
}

static void add(const struct rig *r, struct journal_meta_disk *m, unsigned kind, uint64_t location,
                uint8_t byte)
{
    struct records to = records_of(r);
    records_add(&to, m, kind, location, byte);
}

static void co_put_record(struct rig *r, uint64_t at, struct journal_meta_disk *m, unsigned blocks,
                          uint8_t byte)
{
    struct records to = records_of(r);
    must(co_records_put(&to, at, m, blocks, byte) == 0);
}

/* At the tail: a page of data at the beginning of the array, and its parity. */
static void co_put_page(struct rig *r, bool parity)
{
    struct journal_meta_disk m;
    add(r, records_meta(&m, 0, SEQUENCE), JOURNAL_DATA, 0, NEW);
    if (parity)
        add(r, &m, JOURNAL_PARITY, 0, NEW);
    co_put_record(r, 0, &m, parity ? 2 : 1, NEW);
}

/* What the array shows at its beginning is @first, and nothing has changed elsewhere in the row. */
static void co_expect(struct rig *r, unsigned without, uint8_t first)
{
    uint8_t page[JOURNAL_BLOCK];
    co_rig_reopen(r, without, 0, NULL);
    must(co_blk_read_buf(r->array, 0, page, sizeof(page)) == 0);
    must(page[0] == first && page[4095] == first);
    must(co_blk_read_buf(r->array, CHUNK, page, sizeof(page)) == 0);
    must(mem_is_zero(page, sizeof(page)));
    co_rig_close(r);
}

/* For who reads, without any one disk; then replayed without @without, and once more without the
 * journal, by force. */
static void co_expect_everywhere(struct rig *r, unsigned without, uint8_t first)
{
    r->reads = true;
    co_expect(r, 0, first);
    for (unsigned i = 0; i < r->disks; i++)
        co_expect(r, 1u << i, first);
    r->reads = false;
    co_expect(r, without, first);
    r->reads = r->force = true;
    co_expect(r, without | 1u << r->disks, first);
}

CO_TEST(what_is_in_the_journal_is_what_readers_get_with_any_disk_lost)
{
    for (unsigned parity = 0; parity < 2; parity++)
        for (unsigned without = 0; without < 8; without += without ? without : 1) {
            struct rig r;
            co_make(&r);
            co_put_page(&r, parity);
            co_expect_everywhere(&r, without, NEW);
            co_rig_drop(&r);
        }
    return 0;
}

/* Behind the page with its parity comes word that the stripe is in place: there are zeroes. */
CO_TEST(what_is_said_to_be_in_place_counts_no_more)
{
    struct rig r;
    struct journal_meta_disk m;
    co_make(&r);
    co_put_page(&r, true);
    struct journal_flush_disk *f = (void *)records_meta(&m, 3, SEQUENCE + 1)->payload;
    f->kind = le16_of(JOURNAL_FLUSH);
    f->bytes = le32_of(8);
    m.bytes = le32_of(JOURNAL_HEAD + 16);
    co_put_record(&r, 3, &m, 0, 0);
    co_expect_everywhere(&r, 0, 0);
    co_rig_drop(&r);
    return 0;
}

static void co_resize_journal(struct rig *r, uint64_t bytes)
{
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    must(s);
    rig_super(r, r->disks, s);
    s->data_size = bytes;
    md_super_build(s);
    must(co_blk_write_buf(r->disk[3], s->super_offset, s->raw, MD_SUPER_BYTES, 0) == 0);
}

/* Data alone, and no room behind them for a record of their parity: it is read, and nothing of it
 * is lost when somebody wants to write. */
CO_TEST(a_full_journal_is_read_and_left_as_it_is)
{
    struct rig r;
    struct journal_meta_disk m;
    struct blk_error e = {0};
    co_make(&r);
    co_resize_journal(&r, 16 * JOURNAL_BLOCK);
    co_put_page(&r, false);
    for (unsigned i = 1; i < 14; i++) {
        struct journal_flush_disk *f = (void *)records_meta(&m, i + 1, SEQUENCE + i)->payload;
        f->kind = le16_of(JOURNAL_FLUSH);
        f->bytes = le32_of(8);
        f->stripe[0] = le64_of(8);
        m.bytes = le32_of(JOURNAL_HEAD + 16);
        co_put_record(&r, i + 1, &m, 0, 0);
    }
    for (unsigned n = 0; n < 2; n++) {
        must(co_rig_open(&r, 0, 0, NULL, &e) == -ENOSPC && strstr(e.text, "has no room"));
        r.reads = true;
        co_expect(&r, n, NEW);
        r.reads = false;
    }
    co_rig_drop(&r);
    return 0;
}

/* --- what cannot be ----------------------------------------------------------------------------
 */

static const struct {
    unsigned kind, sectors;
    uint64_t location;
    uint32_t bytes; /* of the meta block that are used */
} hostile[] = {
    {JOURNAL_DATA, 8, UINT64_MAX, JOURNAL_HEAD + 20},      /* nowhere */
    {JOURNAL_DATA, 8, 4 * MiB / 512, JOURNAL_HEAD + 20},   /* behind the end */
    {JOURNAL_DATA, 8, 1, JOURNAL_HEAD + 20},               /* over two pages */
    {JOURNAL_DATA, 16, 0, JOURNAL_HEAD + 20},              /* two blocks */
    {JOURNAL_DATA, 0, 0, JOURNAL_HEAD + 20},               /* none */
    {JOURNAL_DATA, 8, 0, JOURNAL_HEAD + 12},               /* cut off */
    {JOURNAL_PARITY, 8, 2 * MiB / 512, JOURNAL_HEAD + 20}, /* behind a member's end */
    {JOURNAL_FLUSH, 0xfffffff8, 0, JOURNAL_HEAD + 20},     /* longer than its block */
    {JOURNAL_FLUSH, 4, 0, JOURNAL_HEAD + 12},              /* half a stripe */
    {3, 8, 0, JOURNAL_HEAD + 20},                          /* of no kind */
    {JOURNAL_DATA, 8, 0, UINT32_MAX},
    {JOURNAL_DATA, 8, 0, JOURNAL_HEAD - 1},
};

CO_TEST(records_that_cannot_be_are_passed_over)
{
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        struct rig r;
        struct journal_meta_disk m;
        co_make(&r);
        add(&r, records_meta(&m, 0, SEQUENCE), hostile[i].kind, 0, NEW);
        struct journal_payload_disk *p = (void *)m.payload;
        p->sectors = le32_of(hostile[i].sectors);
        p->location = le64_of(hostile[i].location);
        m.bytes = le32_of(hostile[i].bytes);
        co_put_record(&r, 0, &m, 1, NEW);
        co_expect_everywhere(&r, 0, 0);
        co_rig_drop(&r);
    }
    return 0;
}

/* Of two pages one lies outside: the other one counts no more than that. */
CO_TEST(a_record_counts_as_a_whole_or_not_at_all)
{
    struct rig r;
    struct journal_meta_disk m;
    co_make(&r);
    add(&r, records_meta(&m, 0, SEQUENCE), JOURNAL_DATA, 0, NEW);
    add(&r, &m, JOURNAL_DATA, 4 * MiB, NEW);
    co_put_record(&r, 0, &m, 2, NEW);
    co_expect_everywhere(&r, 0, 0);
    co_rig_drop(&r);
    return 0;
}

/* A record of which a block never came, and what was written behind it all the same; whoever goes
 * on there must not make that count. */
CO_TEST(older_records_behind_a_torn_one_never_count)
{
    struct rig r;
    struct journal_meta_disk m;
    auto_free uint8_t *journal = mem_aligned(4 * MiB);
    must(journal);
    co_make(&r);
    co_put_record(&r, 0, records_meta(&m, 0, SEQUENCE), 0, 0);
    add(&r, records_meta(&m, 1, SEQUENCE + 1), JOURNAL_DATA, 0, NEW);
    co_put_record(&r, 1, &m, 1, NEW + 1);
    for (unsigned at = 3; at < 9; at += 2) { /* where an empty one and one of 3 blocks would end */
        add(&r, records_meta(&m, at, SEQUENCE + 3), JOURNAL_DATA, CHUNK, NEW);
        co_put_record(&r, at, &m, 1, NEW);
    }
    co_rig_reopen(&r, 0, 0, NULL);
    must(co_rig_put(&r, 0, 4096, 1) == 0);
    must(rig_array(&r)->journal->next == 5);
    must(co_blk_read_buf(r.disk[3], 0, journal, 4 * MiB) == 0);
    co_rig_close(&r);
    must(co_blk_write_buf(r.disk[3], 0, journal, 4 * MiB, 0) == 0); /* as if it had gone down */
    co_rig_reopen(&r, 0, 0, NULL);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

/* --- the journal's disk ------------------------------------------------------------------------
 */

CO_TEST(a_small_journal_goes_round)
{
    struct rig r;
    struct blk_error e = {0};
    co_make(&r);
    co_resize_journal(&r, 15 * JOURNAL_BLOCK);
    must(co_rig_open(&r, 0, 0, NULL, &e) == -EINVAL);
    r.reads = true;
    co_rig_reopen(&r, 1, 0, NULL);
    co_rig_compare(&r);
    co_rig_close(&r);
    r.reads = false;
    co_resize_journal(&r, 16 * JOURNAL_BLOCK); /* far less than members have */
    co_rig_reopen(&r, 0, 0, NULL);
    must(co_rig_put(&r, 0, 2 * CHUNK, 1) == 0); /* a whole row, longer than the ring */
    co_rig_work(&r, 2);
    must(rig_array(&r)->journal->trims > 100);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

/* A ring of which a quarter is full of records: it is not read block by block. Blocks behind them
 * are holes. */
CO_TEST(records_are_read_in_large_pieces)
{
    struct rig r;
    struct journal_meta_disk m;
    co_make(&r);
    for (unsigned i = 0; i < 64; i++) {
        add(&r, records_meta(&m, 2 * i, SEQUENCE + i), JOURNAL_DATA, 0, NEW + 1);
        co_put_record(&r, 2 * i, &m, 1, NEW + 1);
    }
    r.reads = true;
    co_rig_reopen(&r, 0, 3, "op=read,nth=0");
    must(rig_array(&r)->journal->next == 128 && rig_array(&r)->journal->found.count == 1);
    must(fault_seen(rig_array(&r)->journal->m->dev, FAULT_READ) < 32);
    co_rig_end(&r);
    return 0;
}

/* As if much had been written to a journal of 8 GiB: room is made before it is full, so that
 * whoever opens it has 1 GiB to read at most. */
CO_TEST(of_a_long_journal_only_a_part_is_used)
{
    struct rig r;
    co_make(&r);
    must(co_blk_resize(r.disk[3], 8 * GiB + MiB, false, NULL) == 0);
    co_resize_journal(&r, 8 * GiB);
    co_rig_reopen(&r, 0, 0, NULL);
    must(co_rig_put(&r, 0, 4096, 1) == 0);
    struct raid_journal *j = rig_array(&r)->journal;
    must(j->blocks == 8 * GiB / JOURNAL_BLOCK && j->trims == 0);
    j->next += JOURNAL_LIVE_MOST - 8;
    j->newest = j->next - 1;
    must(co_rig_put(&r, 0, MiB, 2) == 0);
    must(j->trims == 1 && j->next - j->tail < 1000);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

/* Where the superblock says that the oldest record is that counts, there is one: its number, or 0.
 */
static uint64_t co_tail_record(const struct rig *r)
{
    struct journal_meta_disk m;
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    uint8_t raw[MD_SUPER_BYTES];
    must(s);
    rig_super(r, r->disks, s);
    must(co_blk_read_buf(r->disk[3], s->super_offset, raw, sizeof(raw)) == 0);
    uint64_t tail = le64_get(*(const le64 *)(raw + 152)) * 512;
    must(co_blk_read_buf(r->disk[3], RIG_DATA_AT + tail, &m, sizeof(m)) == 0);
    return journal_is_meta(&m, seed_of(r), tail) ? le64_get(m.sequence) : 0;
}

/* When room is to be made, one of the requests to the journal fails, that which moves the tail
 * among them: as long as the superblock names an older tail, the room there is not used again. */
CO_TEST(room_is_not_used_before_the_tail_is_durable)
{
    struct rig r;
    uint64_t record = 0, failed = 0;
    co_make(&r);
    co_resize_journal(&r, 17 * JOURNAL_BLOCK); /* records of 3 do not begin where others did */
    co_rig_reopen(&r, 0, 3, "op=read,nth=0");
    must(co_rig_put(&r, 0, 4096, 1) == 0);
    struct raid_journal *j = rig_array(&r)->journal;
    for (unsigned i = 0; i < 400; i++) {
        bool is_full = j->next + 3 - j->tail >= j->blocks;
        const struct fault_rule once = {
            .op = FAULT_ALL, .nth = is_full ? 1 + failed % 3 : 0, .times = 1, .rc = -EIO};
        fault_set(j->m->dev, &once);
        failed += co_rig_put(&r, i % 50 * 4096, 4096, 1 + i % 100) < 0;
        uint64_t now = co_tail_record(&r);
        must(now >= record && now > 0);
        record = now;
    }
    must(failed > 50 && j->trims > 50);
    fault_set(j->m->dev, NULL);
    must(co_rig_put(&r, 0, 50 * 4096, 1) == 0);
    co_rig_end_compared(&r);
    return 0;
}

/* Sixteen writes at once, on a disk that takes its time. */
CO_TEST(records_in_flight_share_writes)
{
    struct rig r;
    const struct fault_rule slow = {.op = FAULT_ALL, .nth = 1, .delay_ns = 1000000};
    co_make(&r);
    co_rig_reopen(&r, 0, 3, "op=read,nth=0");
    must(co_rig_put(&r, 0, 4096, 1) == 0);
    fault_set(rig_array(&r)->journal->m->dev, &slow);
    co_rig_work(&r, 2);
    must(rig_array(&r)->journal->writes < rig_array(&r)->journal->records / 2);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

/* A write of the journal fails: so does the request, and the array goes on. */
CO_TEST(a_record_that_cannot_be_written_fails_its_request)
{
    struct rig r;
    uint8_t page[4096] = {1};
    const struct fault_rule once = {.op = FAULT_WRITE, .nth = 1, .times = 1, .rc = -EIO};
    co_make(&r);
    co_rig_reopen(&r, 0, 3, "op=read,nth=0");
    co_rig_work(&r, 1);
    fault_set(rig_array(&r)->journal->m->dev, &once);
    must(co_blk_write_buf(r.array, 0, page, sizeof(page), 0) < 0);
    co_rig_compare(&r);
    co_rig_work(&r, 1);
    co_rig_close(&r);
    co_rig_reopen(&r, 0, 0, NULL);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

CO_TEST(without_its_journal_an_array_is_read_or_forced)
{
    struct rig r;
    struct blk_error e = {0};
    co_make(&r);
    co_rig_reopen(&r, 0, 0, NULL);
    co_rig_work(&r, 1);
    co_rig_close(&r);
    must(co_rig_open(&r, 8, 0, NULL, &e) == -EROFS);
    r.reads = true;
    must(co_rig_open(&r, 8 + 1, 0, NULL, &e) == -EUCLEAN); /* what it had may be needed */
    co_rig_reopen(&r, 8, 0, NULL);
    co_rig_compare(&r);
    co_rig_close(&r);
    r.reads = false;
    r.force = true;
    co_rig_reopen(&r, 8, 0, NULL);
    must(rig_array(&r)->was_dirty && !rig_array(&r)->journal); /* to be resynced */
    co_rig_work(&r, 1);
    co_rig_close(&r);
    r.force = false;
    co_rig_reopen(&r, 0, 0, NULL); /* the journal counts no more */
    must(!journal_is_in(rig_array(&r)->super) && !rig_array(&r)->journal);
    co_rig_compare(&r);
    co_rig_end(&r);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("raid_journal");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, what_is_in_the_journal_is_what_readers_get_with_any_disk_lost);
    tcase_add_test(tc, what_is_said_to_be_in_place_counts_no_more);
    tcase_add_test(tc, a_full_journal_is_read_and_left_as_it_is);
    tcase_add_test(tc, records_that_cannot_be_are_passed_over);
    tcase_add_test(tc, a_record_counts_as_a_whole_or_not_at_all);
    tcase_add_test(tc, older_records_behind_a_torn_one_never_count);
    tcase_add_test(tc, a_small_journal_goes_round);
    tcase_add_test(tc, room_is_not_used_before_the_tail_is_durable);
    tcase_add_test(tc, records_are_read_in_large_pieces);
    tcase_add_test(tc, of_a_long_journal_only_a_part_is_used);
    tcase_add_test(tc, records_in_flight_share_writes);
    tcase_add_test(tc, a_record_that_cannot_be_written_fails_its_request);
    tcase_add_test(tc, without_its_journal_an_array_is_read_or_forced);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

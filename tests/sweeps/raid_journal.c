/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_journal.c - the proof over levels 4, 5 and 6 with md's journal: as raid_rows.c. The journals
 * are small, so that they go round often. Some were left in write-back mode, with little room for
 * the parity of their data. */
#include "tests/lib/raid_disks.h"
#include "tests/lib/raid_records.h"

#define HEAD (32 * KiB)
#define DATA DISKS_DATA

static struct raid_disks four = {
    {.level = 4, .disks = 3, .journal = true}, .data_offset = HEAD, .lost = 1};
static struct raid_disks five = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .journal = true},
    .data_offset = HEAD,
    .lost = 1};
static struct raid_disks six = {{.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4, .journal = true},
                                .data_offset = HEAD,
                                .lost = 2};
static struct raid_disks spare = {
    {.level = 5, .layout = RIGHT_ASYMMETRIC, .disks = 3, .journal = true, .lists = true},
    .data_offset = HEAD,
    .lost = 1,
    .spares = 1};

static struct raid_disks back5 = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .journal = true},
    .data_offset = HEAD,
    .lost = 1};
static struct raid_disks back6 = {
    {.level = 6, .layout = LEFT_SYMMETRIC, .disks = 4, .journal = true},
    .data_offset = HEAD,
    .lost = 2};

/* --- left in write-back mode -------------------------------------------------------------------
 */

#define ROWS     4  /* of two chunks; the first pages are newer in the journal: zeroes */
#define PAGES    8  /* of all rows */
#define EMPTY    47 /* records that describe nothing, before that */
#define SEQUENCE 100
#define GARBAGE  0x5a

/* The first pages of @disk in that row are garbage, times @factor. */
static int co_spoil(struct sweep_run *run, uint32_t disk, uint64_t row, uint8_t factor)
{
    struct blk_device *dev;
    uint8_t garbage[PAGES / ROWS * JOURNAL_BLOCK], bytes[sizeof(garbage)];
    memset(garbage, GARBAGE, sizeof(garbage));
    memset(bytes, 0, sizeof(bytes));
    parity_add(bytes, garbage, factor, sizeof(bytes));
    TRY(co_disks_member(run, disk, &dev, NULL));
    int rc = co_blk_write_buf(dev, HEAD + row * RIG_CHUNK, bytes, sizeof(bytes), BLK_FUA);
    int closed = co_blk_close(dev, NULL);
    return rc < 0 ? rc : closed;
}

/* In each row the first chunk begins with garbage, and parity agrees. */
static int co_spoil_rows(struct sweep_run *run, const struct rig *shape)
{
    struct raid_shape s;
    struct raid_wanted w = {.level = shape->level,
                            .layout = shape->layout,
                            .disks = shape->disks,
                            .chunk = RIG_CHUNK,
                            .used = DATA};
    int rc = raid_shape_init(&s, &w, NULL);
    for (uint64_t i = 0; rc == 0 && i < ROWS; i++) {
        struct raid_row row = raid_row(&s, i);
        uint32_t disk = raid_row_disk(&row, 0);
        rc = co_spoil(run, disk, i, 1);
        if (rc == 0)
            rc = co_spoil(run, row.p, i, 1);
        if (rc == 0 && row.q != RAID_NO_DISK)
            rc = co_spoil(run, row.q, i, parity_power(raid_row_power(&row, disk)));
    }
    raid_shape_drop(&s);
    return rc;
}

/* Data alone; and an older record that must never count, where the first one of parity will end. */
static int co_leave_records(const struct records *to, unsigned parities)
{
    struct journal_meta_disk m;
    uint64_t at = 0, older = EMPTY + 1 + PAGES + 1 + parities;
    for (; at < EMPTY; at++)
        TRY(co_records_put(to, at, records_meta(&m, at, SEQUENCE + at), 0, 0));
    records_meta(&m, at, SEQUENCE + at);
    for (unsigned i = 0; i < PAGES; i++)
        records_add(to, &m, JOURNAL_DATA, i % ROWS * 2 * RIG_CHUNK + i / ROWS * JOURNAL_BLOCK, 0);
    TRY(co_records_put(to, at, &m, PAGES, 0));
    records_add(to, records_meta(&m, older, SEQUENCE + at + 2), JOURNAL_DATA, 0, GARBAGE);
    return co_records_put(to, older, &m, 1, GARBAGE);
}

static int co_leave(struct sweep_run *run, struct blk_error *e)
{
    const struct raid_disks *a = run->subject->arg;
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    struct records to = {.start = HEAD};
    if (!s)
        return -ENOMEM;
    TRY(co_disks_make(run, e));
    TRY(co_spoil_rows(run, &a->shape));
    disks_super(a, a->shape.disks, s);
    to.seed = md_uuid_crc(s);
    TRY(co_disks_member(run, a->shape.disks, &to.dev, e));
    int rc = co_leave_records(&to, a->shape.disks - 2);
    int closed = co_blk_close(to.dev, e);
    return rc < 0 ? rc : closed;
}

#define BACK_ROW(a)                                                                                \
    .format = "md", .size = 2 * DATA, .arg = &(a), .profile = &disks_mixed, .co_create = co_leave, \
    .co_open = co_disks_open, .co_check = co_disks_check, .co_step = co_disks_step,                \
    .flags = DISKS_FLAGS, .ops = 6

static const struct sweep_subject rows[] = {
    {.name = "raid4-journal", DISKS_ROW(four, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal", DISKS_ROW(five, 2 * DATA, disks_overlapping)},
    {.name = "raid6-journal", DISKS_ROW(six, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal-spare", DISKS_ROW(spare, 2 * DATA, disks_mending)},
    {.name = "raid5-journal-back", BACK_ROW(back5)},
    {.name = "raid6-journal-back", BACK_ROW(back6)},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 80, 1200);
}

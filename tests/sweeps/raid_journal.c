/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_journal.c - the proof over levels 4, 5 and 6 with md's journal: as raid_rows.c. The journals
 * are small, so that they go round often. One was left in write-back mode, with little room for the
 * parity of its data. */
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

static struct raid_disks back = {
    {.level = 5, .layout = LEFT_SYMMETRIC, .disks = 3, .journal = true},
    .data_offset = HEAD,
    .lost = 1};

#define ROWS     3  /* in each another disk has the data that nobody changed */
#define PAGES    9  /* whose newer data, zeroes, are in the journal only */
#define EMPTY    47 /* records that describe nothing, before that */
#define SEQUENCE 100
#define GARBAGE  0x5a

/* Of each row the first data and parity agree, and are garbage. */
static int co_spoil(struct sweep_run *run, unsigned i, struct blk_error *e)
{
    struct blk_device *dev;
    uint8_t garbage[PAGES / ROWS * JOURNAL_BLOCK];
    int rc = 0;
    memset(garbage, GARBAGE, sizeof(garbage));
    TRY(co_disks_member(run, i, &dev, e));
    for (unsigned row = 0; rc == 0 && row < ROWS; row++)
        if ((row + i) % ROWS != 1) /* left symmetric: there the other data are */
            rc = co_blk_write_buf(dev, HEAD + row * RIG_CHUNK, garbage, sizeof(garbage), BLK_FUA);
    int closed = co_blk_close(dev, e);
    return rc < 0 ? rc : closed;
}

/* What was left, and a torn record behind it, which an older one follows that must never count. */
static int co_leave_records(const struct records *to)
{
    struct journal_meta_disk m;
    uint64_t at = 0, end = EMPTY + 1 + PAGES;
    for (; at < EMPTY; at++)
        TRY(co_records_put(to, at, records_meta(&m, at, SEQUENCE + at), 0, 0));
    records_meta(&m, at, SEQUENCE + at);
    for (unsigned i = 0; i < PAGES; i++)
        records_add(to, &m, JOURNAL_DATA, i % ROWS * 2 * RIG_CHUNK + i / ROWS * JOURNAL_BLOCK, 0);
    TRY(co_records_put(to, at, &m, PAGES, 0));
    records_add(to, records_meta(&m, end + 2, SEQUENCE + at + 2), JOURNAL_DATA, 0, GARBAGE);
    return co_records_put(to, end + 2, &m, 1, GARBAGE);
}

static int co_leave(struct sweep_run *run, struct blk_error *e)
{
    auto_free struct md_super *s = mem_alloc(sizeof(*s));
    struct records to = {.start = HEAD};
    if (!s)
        return -ENOMEM;
    TRY(co_disks_make(run, e));
    for (unsigned i = 0; i < back.shape.disks; i++)
        TRY(co_spoil(run, i, e));
    disks_super(&back, 3, s);
    to.seed = md_uuid_crc(s);
    TRY(co_disks_member(run, 3, &to.dev, e));
    int rc = co_leave_records(&to);
    int closed = co_blk_close(to.dev, e);
    return rc < 0 ? rc : closed;
}

static const struct sweep_subject rows[] = {
    {.name = "raid4-journal", DISKS_ROW(four, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal", DISKS_ROW(five, 2 * DATA, disks_overlapping)},
    {.name = "raid6-journal", DISKS_ROW(six, 2 * DATA, disks_mixed)},
    {.name = "raid5-journal-spare", DISKS_ROW(spare, 2 * DATA, disks_mending)},
    {.name = "raid5-journal-back",
     .format = "md",
     .size = 2 * DATA,
     .arg = &back,
     .profile = &disks_mixed,
     .co_create = co_leave,
     .co_open = co_disks_open,
     .co_check = co_disks_check,
     .co_step = co_disks_step,
     .flags = DISKS_FLAGS,
     .ops = 6},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 80, 1200);
}

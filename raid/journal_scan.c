/* SPDX-License-Identifier: BSD-3-Clause */
/* journal_scan.c - records of the journal found: from the tail on, as long as meta blocks follow
 * each other in place and sequence and what they describe is whole. What comes behind was not
 * durable, so that nothing of it was begun in place. A tail without a meta block is an empty
 * journal.
 *
 * It is read in windows; holes are not read at all. */
#include "block/host.h"
#include "block/worker.h"
#include "raid/journal.h"

#define WINDOW (256 * KiB)

struct scan {
    struct raid_array *a;
    struct raid_journal *j;
    struct journal_meta_disk *meta;
    uint8_t *window; /* [from, end) of the ring's blocks; a hole: one block of zeroes */
    uint64_t from, end;
    bool is_hole;
    uint32_t hole_crc; /* of a block in one */
};

int co_journal_block(const struct raid_journal *j, uint64_t at, void *block)
{
    return co_blk_read_buf(j->m->dev, j->start + at % j->blocks * JOURNAL_BLOCK, block,
                           JOURNAL_BLOCK);
}

/* The window begins at @at. */
static int co_move_window(struct scan *c, uint64_t at)
{
    struct blk_device *dev = c->j->m->dev;
    uint64_t place = at % c->j->blocks;
    uint64_t offset = c->j->start + place * JOURNAL_BLOCK;
    uint64_t bytes = MIN(WINDOW, (c->j->blocks - place) * JOURNAL_BLOCK);
    struct blk_extent x;
    unsigned depth;
    c->end = at; /* it has nothing if this fails */
    TRY(co_blk_map_chain(dev, NULL, offset, bytes, &x, &depth));
    c->is_hole = x.flags & BLK_EXT_ZERO && x.bytes >= JOURNAL_BLOCK;
    if (c->is_hole) {
        bytes = align_down(x.bytes, JOURNAL_BLOCK);
        memset(c->window, 0, JOURNAL_BLOCK);
    } else {
        bytes = align_up(x.bytes, JOURNAL_BLOCK);
        TRY(co_blk_read_buf(dev, offset, c->window, bytes));
    }
    c->from = at;
    c->end = at + bytes / JOURNAL_BLOCK;
    return 0;
}

/* *block is good until the next one is looked at. */
static int co_look_at(struct scan *c, uint64_t at, const uint8_t **block)
{
    if (at < c->from || at >= c->end)
        TRY(co_move_window(c, at));
    *block = c->window + (c->is_hole ? 0 : (at - c->from) * JOURNAL_BLOCK);
    return 0;
}

/* -ENODATA: it is not what was written. */
static int co_check_blocks(struct scan *c, uint64_t at, const struct journal_payload *p)
{
    const uint8_t *block;
    for (unsigned i = 0; i < p->blocks; i++) {
        if (at + i - c->j->tail >= c->j->blocks)
            return -ENODATA;
        TRY(co_look_at(c, at + i, &block));
        uint32_t crc = c->is_hole ? c->hole_crc : journal_crc(c->j->seed, block, JOURNAL_BLOCK);
        if (crc != le32_get(p->crc[i]))
            return -ENODATA;
    }
    return 0;
}

/* The record at j->next, and how long it is. -ENODATA: there is none. */
static int co_find_record(struct scan *c, bool first, uint64_t *blocks)
{
    struct raid_journal *j = c->j;
    struct journal_payload p;
    const uint8_t *block;
    unsigned at = JOURNAL_HEAD;
    int rc;
    if (j->next - j->tail >= j->blocks)
        return -ENODATA;
    if (j->next - j->tail >= JOURNAL_ITEMS_MOST)
        return -EFBIG;
    TRY(co_look_at(c, j->next, &block));
    memcpy(c->meta, block, JOURNAL_BLOCK);
    if (!journal_is_meta(c->meta, j->seed, j->next % j->blocks * JOURNAL_BLOCK) ||
        (!first && le64_get(c->meta->sequence) != j->sequence))
        return -ENODATA;
    *blocks = 1;
    while ((rc = journal_next(c->meta, &c->a->shape, &at, &p)) > 0) {
        TRY(co_check_blocks(c, j->next + *blocks, &p));
        *blocks += p.blocks;
    }
    return rc;
}

static bool says_more_than_parity(const struct journal_items *items, size_t first)
{
    for (size_t i = first; i < items->count; i++)
        if (items->item[i].kind != ITEM_PARITY)
            return true;
    return false;
}

static int co_scan(struct scan *c)
{
    struct raid_journal *j = c->j;
    uint64_t blocks;
    bool first = true;
    int rc;
    j->next = j->tail;
    while ((rc = co_find_record(c, first, &blocks)) == 0) {
        uint32_t behind = (uint32_t)(j->next - j->tail);
        size_t before = j->found.count;
        rc = journal_gather(c->meta, &c->a->shape, behind, &j->found);
        if (rc < 0)
            break;
        j->sequence = le64_get(c->meta->sequence) + 1;
        j->next += blocks;
        first = false;
        if (says_more_than_parity(&j->found, before)) {
            j->data_end = j->next;
            j->data_sequence = j->sequence;
        }
    }
    if (first) /* it begins anew, where others of its age cannot be mistaken for its own */
        host_random(c->a->dev->host, &j->sequence, sizeof(uint32_t));
    if (rc != -ENODATA && rc != -EINVAL)
        return rc;
    journal_fold(&j->found, c->a->shape.disks);
    return 0;
}

int co_journal_scan(struct raid_array *a, struct raid_journal *j)
{
    auto_free uint8_t *memory = mem_aligned(WINDOW + JOURNAL_BLOCK);
    if (!memory)
        return -ENOMEM;
    struct scan c = {
        .a = a, .j = j, .window = memory, .meta = (struct journal_meta_disk *)(memory + WINDOW)};
    memset(memory, 0, JOURNAL_BLOCK);
    c.hole_crc = journal_crc(j->seed, memory, JOURNAL_BLOCK);
    j->found.count = 0;
    return co_scan(&c);
}

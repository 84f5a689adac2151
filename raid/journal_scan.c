/* SPDX-License-Identifier: BSD-3-Clause */
/* journal_scan.c - records of the journal found: from the tail on, as long as meta blocks follow
 * each other in place and sequence and what they describe is whole. What comes behind was not
 * durable, so that nothing of it was begun in place. A tail without a meta block is an empty
 * journal. */
#include "block/host.h"
#include "block/worker.h"
#include "raid/journal.h"

struct scan {
    struct raid_array *a;
    struct raid_journal *j;
    struct journal_meta_disk *meta;
    uint8_t *block;
};

int co_journal_block(const struct raid_journal *j, uint64_t at, void *block)
{
    return co_blk_read_buf(j->m->dev, j->start + at % j->blocks * JOURNAL_BLOCK, block,
                           JOURNAL_BLOCK);
}

/* -ENODATA: it is not what was written. */
static int co_check_blocks(struct scan *c, uint64_t at, const struct journal_payload *p)
{
    for (unsigned i = 0; i < p->blocks; i++) {
        if (at + i - c->j->tail >= c->j->blocks)
            return -ENODATA;
        TRY(co_journal_block(c->j, at + i, c->block));
        if (journal_crc(c->j->seed, c->block, JOURNAL_BLOCK) != le32_get(p->crc[i]))
            return -ENODATA;
    }
    return 0;
}

/* The record at j->next, and how long it is. -ENODATA: there is none. */
static int co_find_record(struct scan *c, bool first, uint64_t *blocks)
{
    struct raid_journal *j = c->j;
    struct journal_payload p;
    unsigned at = JOURNAL_HEAD;
    int rc;
    if (j->next - j->tail >= j->blocks)
        return -ENODATA;
    TRY(co_journal_block(j, j->next, c->meta));
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

static int co_scan(struct scan *c)
{
    struct raid_journal *j = c->j;
    uint64_t blocks;
    bool first = true;
    int rc;
    j->next = j->tail;
    while ((rc = co_find_record(c, first, &blocks)) == 0) {
        uint32_t behind = (uint32_t)(j->next - j->tail);
        rc = journal_gather(c->meta, &c->a->shape, behind, &j->found);
        if (rc < 0)
            break;
        j->sequence = le64_get(c->meta->sequence) + 1;
        j->next += blocks;
        first = false;
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
    auto_free uint8_t *memory = mem_aligned(2 * JOURNAL_BLOCK);
    if (!memory)
        return -ENOMEM;
    struct scan c = {a, j, (struct journal_meta_disk *)memory, memory + JOURNAL_BLOCK};
    j->found.count = 0;
    return co_scan(&c);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* journal_replay.c - what is in the journal of an array that went down: written in place, or, where
 * the array is only read, given to readers.
 *
 * Order:
 *  1. All members and the journal are flushed: what was found is durable.
 *  2. What is whole is written in place, and flushed.
 *  3. Data that are alone are written to the journal once more, behind what was found, as whole
 *     stripes, in a new chain of records; superblocks say that the tail is there, and that who is
 *     missing is out. Then it begins at 1 again, and nothing is alone any more.
 *  4. A new chain begins; superblocks say that the tail is there, and that who is missing is out.
 * Interrupted anywhere, it is done again. */
#include "block/worker.h"
#include "raid/journal.h"

/* --- in place ----------------------------------------------------------------------------------
 */

static int co_put_item(struct raid_array *a, const struct journal_item *item, uint8_t *block)
{
    struct raid_journal *j = a->journal;
    struct raid_member *m = array_writable(a, item->role);
    struct member_io io = {.m = m,
                           .op = MEMBER_WRITE,
                           .offset = item->page * JOURNAL_BLOCK,
                           .bytes = JOURNAL_BLOCK,
                           .vec = VEC_BUF(block, JOURNAL_BLOCK)};
    if (item->kind != ITEM_WHOLE || !m)
        return 0;
    TRY(co_journal_block(j, j->tail + item->block, block));
    co_member_io(&io);
    if (io.rc == 0 || io.rc == -ENOMEM)
        return io.rc;
    return co_array_miss(a, &io, rows_enough_without(a, item->role, io.offset, io.bytes));
}

static int co_put_whole(struct raid_array *a)
{
    const struct journal_items *found = &a->journal->found;
    auto_free uint8_t *block = mem_aligned(JOURNAL_BLOCK);
    if (!block)
        return -ENOMEM;
    TRY(co_array_flush(a));
    for (size_t i = 0; i < found->count; i++)
        TRY(co_put_item(a, &found->item[i], block));
    return co_array_flush(a);
}

/* --- data that are alone -----------------------------------------------------------------------
 */

/* The stripe with its newer data becomes a record. */
static int co_record_stripe(struct row_strip *s)
{
    struct journal_hold hold;
    uint8_t *data[PARITY_POWERS_MOST];
    const uint32_t parity[2] = {s->row.p, s->row.q};
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        s->block[raid_row_disk(&s->row, i)].wanted = true;
    TRY(co_strip_load(s));
    for (unsigned i = 0; i < s->a->shape.data_disks; i++) {
        uint32_t role = raid_row_disk(&s->row, i);
        struct row_block *b = &s->block[role];
        TRY(co_journal_patch(s, role, b->old, ITEM_ALONE));
        b->fresh = b->old;
        b->written = true;
    }
    for (unsigned k = 0; k < s->a->shape.level->parities; k++) {
        TRY(strip_fresh(s, &s->block[parity[k]]));
        s->block[parity[k]].written = true;
    }
    struct parity_row row = strip_parity(s, data, true);
    parity_make(&row, s->bytes);
    TRY(co_journal_strip(s, &hold));
    journal_end(&hold);
    return 0;
}

static int co_record_alone(struct raid_array *a)
{
    const struct journal_items *found = &a->journal->found;
    uint64_t done = UINT64_MAX;
    TRY(co_journal_begin(a));
    for (size_t i = 0; i < found->count; i++) {
        struct row_strip s;
        if (found->item[i].kind != ITEM_ALONE || found->item[i].page == done)
            continue;
        done = found->item[i].page;
        TRY(co_strip_open(&s, a, done * ROW_PAGE, ROW_PAGE, false));
        int rc = co_record_stripe(&s);
        strip_close(&s);
        TRY(rc);
    }
    return co_array_write_supers(a);
}

/* --- opening -----------------------------------------------------------------------------------
 */

static void drop_found(struct raid_journal *j)
{
    mem_free(j->found.item);
    j->found = (struct journal_items){0};
}

static int co_replay(struct raid_array *a)
{
    struct raid_journal *j = a->journal;
    if (j->found.count == 0)
        return 0;
    TRY(co_array_level(a));
    TRY(co_put_whole(a));
    while (j->found.alone) {
        j->replaying = true;
        int rc = co_record_alone(a);
        j->replaying = false;
        TRY(rc);
        journal_begun(j);
        TRY(co_journal_scan(a, j));
        TRY(co_put_whole(a));
    }
    drop_found(j); /* it is in place */
    return co_array_mark_dirty(a);
}

static struct raid_member *find_journal(const struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].state == MEMBER_JOURNAL)
            return &a->members[i];
    return NULL;
}

static int make_journal(struct raid_array *a, struct raid_member *m, struct blk_error *e)
{
    struct raid_journal *j = mem_zalloc(sizeof(*j));
    if (!j)
        return err_set(e, -ENOMEM, "out of memory");
    a->journal = j;
    j->m = m;
    j->seed = md_uuid_crc(a->super);
    j->start = m->data_offset;
    j->blocks = MIN(m->super->data_size / JOURNAL_BLOCK, UINT32_MAX);
    j->tail = m->super->recovery_offset / JOURNAL_BLOCK;
    if (m->super->recovery_offset % JOURNAL_BLOCK || j->tail >= j->blocks)
        j->tail = 0; /* as md has it */
    if (a->shape.disks > JOURNAL_DISKS_MOST)
        return err_set(e, -EINVAL, "%u members are too many for a journal", a->shape.disks);
    if (j->blocks == 0 || (a->dev->open_flags & BLK_OPEN_WRITE && journal_widest(a) == 0))
        return err_set(e, -EINVAL, "%s: too small for a journal: %" PRIu64 " bytes", member_name(m),
                       m->super->data_size);
    return 0;
}

int co_journal_open(struct raid_array *a, struct blk_error *e)
{
    struct raid_member *m = a->super && journal_is_in(a->super) ? find_journal(a) : NULL;
    if (!m)
        return 0;
    TRY(make_journal(a, m, e));
    int rc = co_journal_scan(a, a->journal);
    if (rc == 0 && a->dev->open_flags & BLK_OPEN_WRITE)
        rc = co_replay(a);
    if (rc == -EFBIG)
        return err_set(e, rc, "%s: its journal has more records than are ever left: over %u GiB",
                       member_name(m), JOURNAL_ITEMS_MOST / (unsigned)(GiB / JOURNAL_BLOCK));
    return rc < 0 ? err_errno(e, rc, "%s: the journal cannot be replayed", member_name(m)) : 0;
}

void journal_close(struct raid_array *a)
{
    if (a->journal)
        drop_found(a->journal);
    mem_free(take(a->journal));
}

/* --- who reads ---------------------------------------------------------------------------------
 */

bool journal_covers(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    const struct journal_items *found = a->journal ? &a->journal->found : NULL;
    if (likely(!found || found->count == 0))
        return false;
    size_t i = journal_find(found, offset / JOURNAL_BLOCK);
    return i < found->count && found->item[i].page * JOURNAL_BLOCK < offset + bytes;
}

int co_journal_patch(const struct row_strip *s, uint32_t role, uint8_t *contents,
                     enum journal_item_kind kind)
{
    const struct raid_journal *j = s->a->journal;
    if (likely(!j || j->found.count == 0))
        return 0;
    uint64_t first = s->offset / JOURNAL_BLOCK, end = first + s->bytes / JOURNAL_BLOCK;
    for (size_t i = journal_find(&j->found, first); i < j->found.count; i++) {
        const struct journal_item *item = &j->found.item[i];
        if (item->page >= end)
            break;
        if (item->role == role && item->kind == kind)
            TRY(co_journal_block(j, j->tail + item->block,
                                 contents + (item->page - first) * JOURNAL_BLOCK));
    }
    return 0;
}

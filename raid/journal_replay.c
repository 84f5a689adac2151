/* SPDX-License-Identifier: BSD-3-Clause */
/* journal_replay.c - what is in the journal of an array that went down: written in place, or, where
 * the array is only read, given to readers.
 *
 * Order:
 *  1. All members and the journal are flushed: what was found is durable.
 *  2. What is whole is written in place, and flushed.
 *  3. If data are alone, superblocks say that who is missing is out. Room behind the last record
 *     that is not of parity alone becomes zeroes, durably, so that no older record follows there.
 *  4. Of each stripe with such data the new parity is recorded in that room, as the next record of
 *     the same chain, durably: now it is whole. Then data and parity are written in place. Where
 *     the room ends all members are flushed, and it is used once more: whoever finds records of two
 *     rounds there puts in place what is there already.
 *  5. All is flushed. A new chain begins; superblocks say that the tail is there, and that who is
 *     missing is out.
 * Interrupted anywhere, it is done again. */
#include "block/worker.h"
#include "raid/journal.h"

/* Blocks: of room for records of parity, and of such a record. */
#define ROUND     256
#define RECORD(a) (1 + (a)->shape.level->parities)

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

/* Newer data, and the parity that they have then. */
static int co_patch_stripe(struct row_strip *s, const uint32_t parity[2])
{
    uint8_t *data[PARITY_POWERS_MOST];
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        s->block[raid_row_disk(&s->row, i)].wanted = true;
    TRY(co_strip_load(s));
    for (unsigned i = 0; i < s->a->shape.data_disks; i++) {
        uint32_t role = raid_row_disk(&s->row, i);
        struct row_block *b = &s->block[role];
        TRY(co_journal_patch(s, role, b->old, ITEM_ALONE));
        b->fresh = b->old;
    }
    for (unsigned k = 0; k < s->a->shape.level->parities; k++) {
        TRY(strip_fresh(s, &s->block[parity[k]]));
        s->block[parity[k]].written = true;
    }
    struct parity_row row = strip_parity(s, data, true);
    parity_make(&row, s->bytes);
    return 0;
}

static int co_settle_stripe(struct row_strip *s)
{
    const uint32_t parity[2] = {s->row.p, s->row.q};
    struct journal_hold hold;
    TRY(co_patch_stripe(s, parity));
    TRY(co_journal_strip(s, &hold)); /* of parity: the data are there */
    for (unsigned i = 0; i < s->a->shape.data_disks; i++)
        s->block[raid_row_disk(&s->row, i)].written = true;
    int rc = co_strip_store(s, 0);
    journal_end(&hold);
    return rc;
}

static int co_clear_behind(const struct raid_journal *j, uint64_t blocks)
{
    for (uint64_t done = 0, n; done < blocks; done += n) {
        uint64_t place = (j->next + done) % j->blocks;
        n = MIN(blocks - done, j->blocks - place);
        TRY(co_blk_write_zeroes(j->m->dev, j->start + place * JOURNAL_BLOCK, n * JOURNAL_BLOCK,
                                BLK_FUA));
    }
    return 0;
}

static void begin_round(struct raid_journal *j)
{
    j->next = j->data_end;
    j->sequence = j->data_sequence;
}

/* For a round of records of parity. */
static uint64_t room_behind(const struct raid_journal *j)
{
    return MIN(j->blocks - (j->data_end - j->tail), ROUND);
}

static bool has_room_behind(const struct raid_array *a)
{
    return room_behind(a->journal) > RECORD(a); /* a block of zeroes stays at its end */
}

static int co_settle_alone(struct raid_array *a)
{
    struct raid_journal *j = a->journal;
    const struct journal_items *found = &j->found;
    const uint64_t end = j->data_end, room = room_behind(j);
    uint64_t done = UINT64_MAX;
    TRY(co_array_write_supers(a));
    begin_round(j);
    TRY(co_clear_behind(j, room));
    for (size_t i = 0; i < found->count; i++) {
        struct row_strip s;
        if (found->item[i].kind != ITEM_ALONE || found->item[i].page == done)
            continue;
        if (j->next + RECORD(a) >= end + room) {
            TRY(co_array_flush(a));
            begin_round(j);
        }
        done = found->item[i].page;
        TRY(co_strip_open(&s, a, done * ROW_PAGE, ROW_PAGE, false));
        int rc = co_settle_stripe(&s);
        strip_close(&s);
        TRY(rc);
    }
    return co_array_flush(a);
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
    if (j->found.alone) {
        j->replaying = true;
        int rc = co_settle_alone(a);
        j->replaying = false;
        TRY(rc);
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
    if (rc == -EFBIG)
        return err_set(e, rc, "%s: its journal has more records than are ever left: over %u GiB",
                       member_name(m), JOURNAL_ITEMS_MOST / (unsigned)(GiB / JOURNAL_BLOCK));
    if (rc == 0 && a->dev->open_flags & BLK_OPEN_WRITE) {
        if (a->journal->found.alone && !has_room_behind(a))
            return err_set(e, -ENOSPC, "%s: the journal has no room for the parity of its data",
                           member_name(m));
        rc = co_replay(a);
    }
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

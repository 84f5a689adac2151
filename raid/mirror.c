/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror.c - reading and writing of levels 1 and 10.
 *
 *   read   one copy that is in sync: which one depends on where it is, so that a stream stays on
 *          one member for a while and many streams use all. If it cannot be read, another copy is,
 *          and is written back to where reading failed.
 *   write  all copies side by side; overlapping writes one after the other, since copies must not
 *          end up different (A5). A member that cannot be written fails (A2), and the write is good
 *          if one copy of each byte is. */
#include "raid/mirror.h"

#define TURN_BYTES MiB /* of one member, before the next one serves */

/* While the copies may differ, all readers see the same one: the first that is not bad, however
 * much they ask for. */
static struct raid_member *pick(const struct raid_array *a, uint64_t offset, uint64_t *at,
                                uint64_t *bytes)
{
    unsigned turn = a->was_dirty ? 0 : (unsigned)(offset / TURN_BYTES % a->shape.copies);
    for (unsigned i = 0; i < a->shape.copies; i++) {
        unsigned copy = turn + i < a->shape.copies ? turn + i : turn + i - a->shape.copies;
        struct raid_piece p = raid_place(&a->shape, offset, copy);
        *bytes = array_even(a, p.disk, p.offset, MIN(*bytes, p.bytes));
        struct raid_member *m = array_readable(a, p.disk, p.offset, *bytes);
        *at = p.offset;
        if (m)
            return m;
    }
    return NULL;
}

static bool mirror_resolve(struct raid_array *a, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    uint64_t at, n = MIN(bytes, TURN_BYTES - offset % TURN_BYTES);
    struct raid_member *m = write ? NULL : pick(a, offset, &at, &n);
    if (!m)
        return false;
    *out = (struct blk_place){
        .child = m->dev, .offset = m->data_offset + at, .bytes = n, .redundant = true};
    return true;
}

/* --- reading what could not be read ------------------------------------------------------------
 */

/* Puts @good back where reading failed; a member that does not take it fails. */
static int co_write_back(struct raid_array *a, const struct raid_piece *p, const struct vec *good)
{
    struct raid_member *m = a->by_role[p->disk];
    if (!m || !a->dev->writable)
        return 0;
    struct member_io io = {.m = m, .op = MEMBER_WRITE, .offset = p->offset, .vec = *good};
    co_member_io(&io);
    if (io.rc < 0)
        return co_array_miss(a, &io, true);
    m->read_errors++;
    return 0;
}

/* One piece that lies together in all copies; @bad: copies that failed are written back. */
int co_mirror_read_piece(struct raid_array *a, uint64_t offset, const struct vec *to)
{
    struct raid_piece failed[RAID_COPIES_MOST];
    unsigned count = 0;
    int rc = -EIO;
    for (unsigned copy = 0; copy < a->shape.copies; copy++) {
        struct raid_piece p = raid_place(&a->shape, offset, copy);
        struct raid_member *m = array_readable(a, p.disk, p.offset, to->bytes);
        if (!m)
            continue;
        struct member_io io = {.m = m, .op = MEMBER_READ, .offset = p.offset, .vec = *to};
        co_member_io(&io);
        rc = io.rc;
        if (rc == 0)
            break;
        failed[count++] = p;
    }
    for (unsigned i = 0; i < count && rc == 0; i++)
        TRY(co_write_back(a, &failed[i], to));
    return rc;
}

uint64_t mirror_together(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    for (unsigned copy = 0; copy < a->shape.copies; copy++) {
        struct raid_piece p = raid_place(&a->shape, offset, copy);
        bytes = array_even(a, p.disk, p.offset, MIN(bytes, p.bytes));
    }
    return bytes;
}

/* The slow way: the short one failed, or no copy is whole. Nobody may write meanwhile, or what is
 * written back would be older than what is there. */
static int co_mirror_read(struct raid_array *a, uint64_t offset, const struct vec *to)
{
    struct co_range_hold hold;
    int rc = 0;
    co_range_lock(&a->writers, &hold, offset, to->bytes, false);
    for (uint64_t at = 0; at < to->bytes && rc == 0;) {
        uint64_t n = mirror_together(a, offset + at, to->bytes - at);
        struct vec piece = vec_slice(to, at, n);
        rc = co_mirror_read_piece(a, offset + at, &piece);
        at += n;
    }
    co_range_unlock(&a->writers, &hold);
    return rc;
}

/* --- changing ----------------------------------------------------------------------------------
 */

/* Members that failed are put out; the write is good if a copy has it that readers may use. */
static int co_judge(struct raid_array *a, const struct member_io *w, unsigned count)
{
    bool good = false;
    int first = -EIO;
    for (unsigned i = 0; i < count; i++)
        good |= w[i].rc == 0 && w[i].m->state == MEMBER_IN_SYNC;
    for (unsigned i = 0; i < count; i++) {
        if (w[i].rc == 0)
            continue;
        first = w[i].rc;
        if (w[i].rc == -ENOTSUP || !good)
            return first; /* nobody's fault, or there is nothing to go on with */
        TRY(co_array_miss(a, &w[i], true));
    }
    return good ? 0 : first;
}

static int co_change_piece(struct raid_array *a, struct member_io *w, uint64_t offset,
                           const struct member_io *like)
{
    struct co_group g;
    unsigned count = 0;
    co_group_init(&g, 0);
    for (unsigned copy = 0; copy < a->shape.copies; copy++) {
        struct raid_piece p = raid_place(&a->shape, offset, copy);
        struct raid_member *m = array_writable(a, p.disk);
        if (!m)
            continue;
        w[count] = *like;
        w[count].m = m;
        w[count].offset = p.offset;
        co_group_start(&g, co_member_io, &w[count++]);
    }
    TRY(co_group_wait(&g));
    return co_judge(a, w, count);
}

static int co_change(struct raid_array *a, uint64_t offset, uint64_t bytes, const struct vec *from,
                     struct member_io like)
{
    struct co_range_hold hold;
    auto_free struct member_io *w = mem_array(a->shape.copies, sizeof(*w));
    if (!w)
        return -ENOMEM;
    TRY(co_array_mark_dirty(a));
    int rc = 0;
    co_range_lock(&a->writers, &hold, offset, bytes, false);
    for (uint64_t at = 0; at < bytes && rc == 0; at += like.bytes) {
        like.bytes = mirror_together(a, offset + at, bytes - at);
        if (from)
            like.vec = vec_slice(from, at, like.bytes);
        rc = co_change_piece(a, w, offset + at, &like);
    }
    co_range_unlock(&a->writers, &hold);
    return rc;
}

static int co_mirror_write(struct raid_array *a, uint64_t offset, const struct vec *from,
                           unsigned flags)
{
    return co_change(a, offset, from->bytes, from,
                     (struct member_io){.op = MEMBER_WRITE, .flags = flags});
}

static int co_mirror_zeroes(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return co_change(a, offset, bytes, NULL, (struct member_io){.op = MEMBER_ZERO, .flags = flags});
}

/* Copies must read the same afterwards: where a member's discarded space may read as anything, they
 * would not. */
static int co_mirror_discard(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    for (unsigned d = 0; d < a->shape.disks; d++)
        if (a->by_role[d] && !a->by_role[d]->dev->limits.discard_reads_zero)
            return 0;
    return co_change(a, offset, bytes, NULL, (struct member_io){.op = MEMBER_DISCARD});
}

const struct raid_engine raid_mirror_engine = {
    .resolve = mirror_resolve,
    .co_read = co_mirror_read,
    .co_write = co_mirror_write,
    .co_write_zeroes = co_mirror_zeroes,
    .co_discard = co_mirror_discard,
    .co_resync = co_mirror_resync,
    .co_rebuild = co_mirror_rebuild,
    .co_scrub = co_mirror_scrub,
    .sync_unit = 64 * KiB,
};

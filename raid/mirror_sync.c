/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror_sync.c - levels 1 and 10: copies that are compared and made the same, members that are
 * filled. Piece by piece, each under the lock that writes take, so that those go on beside it. */
#include "block/worker.h"
#include "raid/mirror.h"

#define PIECE   (256 * KiB)
#define PAGE    4096
#define AT_ONCE 4

/* --- piece by piece ----------------------------------------------------------------------------
 */

struct sync {
    struct raid_array *a;
    uint64_t offset, end;
    /* One piece: at most PIECE, and within a chunk; @buf: room for all copies of it. */
    int (*co_piece)(struct sync *y, uint64_t offset, uint64_t bytes, uint8_t *buf);
    struct raid_member *member; /* of rebuild */
    bool repair;
    struct raid_scrub *found;
};

static int co_pieces(void *arg)
{
    struct sync *y = arg;
    uint64_t chunk = y->a->shape.chunk ? y->a->shape.chunk : PIECE;
    auto_free uint8_t *buf = mem_aligned(y->a->shape.copies * (size_t)MIN(PIECE, chunk));
    if (!buf)
        return -ENOMEM;
    while (y->offset < y->end) {
        uint64_t at = y->offset;
        uint64_t bytes = MIN(MIN(PIECE, chunk - at % chunk), y->end - at);
        y->offset += bytes;
        int rc = y->co_piece(y, at, bytes, buf);
        if (rc < 0) {
            y->offset = y->end;
            return rc;
        }
    }
    return 0;
}

static int co_sync(struct sync *y, uint64_t offset, uint64_t bytes)
{
    struct co_group g;
    y->offset = offset;
    y->end = offset + bytes;
    co_group_init(&g, 0);
    for (unsigned i = 0; i < AT_ONCE; i++)
        co_group_start(&g, co_pieces, y);
    return co_group_wait(&g);
}

/* --- copies that are to be the same ------------------------------------------------------------
 */
/* Sectors that differ, in bytes. */
static uint64_t count_unequal(const uint8_t *one, const uint8_t *other, uint64_t bytes)
{
    uint64_t n = 0;
    for (uint64_t at = 0; at < bytes; at += 512)
        n += memcmp(one + at, other + at, MIN(512, bytes - at)) ? MIN(512, bytes - at) : 0;
    return n;
}

/* All copies that should be right; those that cannot be read have rc < 0. What is on a list of bad
 * blocks is one of them when that is to be mended. Gives how many. */
static unsigned co_read_copies(struct sync *y, uint64_t offset, uint64_t bytes, uint8_t *buf,
                               struct member_io *io)
{
    struct co_group g;
    unsigned count = 0, copies = y->a->shape.copies;
    struct vec all = VEC_BUF(buf, copies * bytes);
    co_group_init(&g, 0);
    for (unsigned copy = 0; copy < copies; copy++) {
        struct raid_piece p = raid_place(&y->a->shape, offset, copy);
        bool bad = array_is_bad(y->a, p.disk, p.offset, bytes);
        if (!array_readable(y->a, p.disk, p.offset, bytes) && !(bad && y->repair))
            continue;
        io[count] = (struct member_io){.m = y->a->by_role[p.disk],
                                       .op = MEMBER_READ,
                                       .offset = p.offset,
                                       .vec = vec_slice(&all, count * bytes, bytes)};
        co_group_start(&g, co_member_io, &io[count++]);
    }
    (void)!co_group_wait(&g);
    return count;
}

/* The first that could be read is right: no more is known of copies. */
static int co_judge(struct sync *y, uint64_t bytes, uint8_t *buf, const struct member_io *io,
                    unsigned count)
{
    unsigned good = 0;
    while (good < count && io[good].rc < 0)
        good++;
    if (good == count)
        return -EIO;
    for (unsigned i = 0; i < count; i++) {
        uint8_t *copy = buf + i * bytes;
        bool read = io[i].rc == 0;
        uint64_t unequal = read && i != good ? count_unequal(buf + good * bytes, copy, bytes) : 0;
        y->found->mismatches += unequal;
        if (!read)
            io[i].m->read_errors++;
        if (!read || (unequal && y->repair))
            TRY(co_member_put(io[i].m, io[i].offset, buf + good * bytes, bytes));
    }
    return 0;
}

/* On the lists of all that have it. */
static bool is_lost(const struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    for (unsigned copy = 0; copy < a->shape.copies; copy++) {
        struct raid_piece p = raid_place(&a->shape, offset, copy);
        if (array_readable(a, p.disk, p.offset, bytes))
            return false;
    }
    return true;
}

static int co_compare(struct sync *y, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    struct co_range_hold hold;
    int rc = 0;
    auto_free struct member_io *io = mem_array(y->a->shape.copies, sizeof(*io));
    if (!io)
        return -ENOMEM;
    co_range_lock(&y->a->writers, &hold, offset, bytes, false);
    for (uint64_t at = 0, n; at < bytes && rc == 0; at += n) {
        n = mirror_together(y->a, offset + at, bytes - at);
        if (is_lost(y->a, offset + at, n))
            continue;
        unsigned count = co_read_copies(y, offset + at, n, buf, io);
        rc = co_judge(y, n, buf, io, count);
    }
    co_range_unlock(&y->a->writers, &hold);
    return rc;
}

int co_mirror_scrub(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                    struct raid_scrub *found)
{
    struct sync y = {.a = a, .co_piece = co_compare, .repair = repair, .found = found};
    return co_sync(&y, offset, bytes);
}

int co_mirror_resync(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    struct raid_scrub ignored = {0};
    return co_mirror_scrub(a, offset, bytes, true, &ignored);
}

/* --- a member that is filled -------------------------------------------------------------------
 */

/* What no copy has any more is bad on the new member too, if it has a list to say so. */
static int co_fill_piece(struct sync *y, uint64_t offset, uint64_t at, uint64_t bytes, uint8_t *buf)
{
    struct vec v = VEC_BUF(buf, bytes);
    struct member_io lost = {
        .m = y->member, .op = MEMBER_WRITE, .offset = offset, .vec = v, .rc = -EIO};
    int rc = co_mirror_read_piece(y->a, at, &v);
    if (y->member->state == MEMBER_OUT)
        return rc;
    if (rc == -EIO && y->member->bad && bytes > PAGE) {
        uint64_t half = align_up(bytes / 2, PAGE);
        TRY(co_fill_piece(y, offset, at, half, buf));
        return co_fill_piece(y, offset + half, at + half, bytes - half, buf);
    }
    if (rc == -EIO && y->member->bad)
        return co_array_miss(y->a, &lost, true);
    return rc < 0 ? rc : co_member_put(y->member, offset, buf, bytes);
}

static int co_fill(struct sync *y, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    struct raid_array *a = y->a;
    struct co_range_hold hold;
    uint64_t at = offset;
    if (a->shape.near && !raid10_find(&a->shape, y->member->role, offset, &at))
        return 0; /* behind the last chunk nothing is kept */
    int rc = 0;
    co_range_lock(&a->writers, &hold, at, bytes, false);
    for (uint64_t done = 0, n; done < bytes && rc == 0; done += n) {
        n = mirror_together(a, at + done, bytes - done);
        rc = co_fill_piece(y, offset + done, at + done, n, buf);
    }
    co_range_unlock(&a->writers, &hold);
    return rc;
}

int co_mirror_rebuild(struct raid_array *a, struct raid_member *member, uint64_t offset,
                      uint64_t bytes)
{
    struct sync y = {.a = a, .co_piece = co_fill, .member = member};
    return co_sync(&y, offset, bytes);
}

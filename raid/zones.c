/* SPDX-License-Identifier: BSD-3-Clause */
/* zones.c - reading and writing of linear and level 0: every byte has one place. Where all of it
 * lies together resolve says so and the waist does it; else the pieces go to their members side by
 * side. */
#include "raid/array.h"
#include "raid/badblocks.h"

#define PIECES_MOST 16 /* at once */

static bool zone_resolve(struct raid_array *a, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    struct raid_piece p = raid_place(&a->shape, offset, 0);
    const struct raid_member *m = a->by_role[p.disk];
    if (m->bad && bad_hits(m->bad, m->data_offset + p.offset, MIN(bytes, p.bytes)))
        return false;
    *out = (struct blk_place){
        .child = m->dev, .offset = m->data_offset + p.offset, .bytes = MIN(bytes, p.bytes)};
    return true;
}

/* The first of up to @most pieces of [offset, +bytes). Gives the bytes that were begun. */
static uint64_t start_pieces(struct raid_array *a, struct co_group *g, struct member_io *io,
                             uint64_t offset, uint64_t bytes, const struct vec *v)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < PIECES_MOST && at < bytes; i++) {
        struct raid_piece p = raid_place(&a->shape, offset + at, 0);
        io[i] = io[PIECES_MOST];
        io[i].m = a->by_role[p.disk];
        io[i].offset = p.offset;
        io[i].bytes = MIN(p.bytes, bytes - at);
        if (v)
            io[i].vec = vec_slice(v, at, io[i].bytes);
        at += io[i].bytes;
        co_group_start(g, co_member_io, &io[i]);
    }
    return at;
}

static int co_zone_io(struct raid_array *a, uint64_t offset, uint64_t bytes, const struct vec *v,
                      enum member_op op, unsigned flags)
{
    auto_free struct member_io *io = mem_array(PIECES_MOST + 1, sizeof(*io));
    if (!io)
        return -ENOMEM;
    io[PIECES_MOST] = (struct member_io){.op = op, .flags = flags};
    for (uint64_t at = 0; at < bytes;) {
        struct co_group g;
        struct vec rest = v ? vec_slice(v, at, bytes - at) : (struct vec){0};
        co_group_init(&g, 0);
        for (unsigned i = 0; i < PIECES_MOST; i++)
            io[i].rc = 0;
        at += start_pieces(a, &g, io, offset + at, bytes - at, v ? &rest : NULL);
        TRY(co_group_wait(&g));
        for (unsigned i = 0; i < PIECES_MOST; i++)
            TRY(io[i].rc);
    }
    return 0;
}

static int co_zone_read(struct raid_array *a, uint64_t offset, const struct vec *to)
{
    return co_zone_io(a, offset, to->bytes, to, MEMBER_READ, 0);
}

static int co_zone_write(struct raid_array *a, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    return co_zone_io(a, offset, from->bytes, from, MEMBER_WRITE, flags);
}

static int co_zone_zeroes(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return co_zone_io(a, offset, bytes, NULL, MEMBER_ZERO, flags);
}

static int co_zone_discard(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    return co_zone_io(a, offset, bytes, NULL, MEMBER_DISCARD, 0);
}

const struct raid_engine raid_zone_engine = {
    .resolve = zone_resolve,
    .co_read = co_zone_read,
    .co_write = co_zone_write,
    .co_write_zeroes = co_zone_zeroes,
    .co_discard = co_zone_discard,
};

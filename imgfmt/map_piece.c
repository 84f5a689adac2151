/* SPDX-License-Identifier: BSD-3-Clause */
/* map_piece.c - clusters that are kept in pieces: which of them lie in the cluster's space, read as
 * zero, or show what is behind.
 *
 * Pure. A cell says so in two masks of MAP_PIECES bits; cells whose pieces are all alike are
 * MAP_DATA, MAP_ZERO or MAP_HOLE, so that everything else need not know of pieces. */
#include "imgfmt/map_private.h"

#define ALL UINT32_MAX

uint32_t map_pieces_here(const struct map_cell *c)
{
    switch (c->state) {
    case MAP_DATA:
    case MAP_PACKED:
        return ALL;
    case MAP_PARTIAL:
        return (uint32_t)c->sub;
    default:
        return 0;
    }
}

uint32_t map_pieces_zero(const struct map_cell *c)
{
    switch (c->state) {
    case MAP_ZERO:
        return ALL;
    case MAP_PARTIAL:
        return (uint32_t)(c->sub >> 32);
    default:
        return 0;
    }
}

void map_set_pieces(struct map_cell *c, uint32_t here, uint32_t zero)
{
    assert(!(here & zero));
    c->packed_bytes = 0;
    c->sub = 0;
    if (here == ALL) {
        c->state = MAP_DATA;
    } else if (zero == ALL) {
        c->state = MAP_ZERO;
    } else if (here == 0 && zero == 0 && c->offset == 0) {
        c->state = MAP_HOLE;
    } else {
        c->state = MAP_PARTIAL;
        c->sub = here | (uint64_t)zero << 32;
    }
}

uint32_t map_pieces_of(const struct map *m, uint64_t from, uint64_t to)
{
    unsigned first = (unsigned)(from >> m->shape.piece_bits);
    unsigned last = (unsigned)((to - 1) >> m->shape.piece_bits);

    assert(from < to && last < MAP_PIECES);
    return ALL >> (MAP_PIECES - 1 - last) & ALL << first;
}

static enum map_state state_of(const struct map_cell *c, unsigned piece)
{
    if (c->state != MAP_PARTIAL)
        return c->state;
    if (map_pieces_here(c) >> piece & 1)
        return MAP_DATA;
    return map_pieces_zero(c) >> piece & 1 ? MAP_ZERO : MAP_HOLE;
}

uint64_t map_piece_run(const struct map *m, const struct map_cell *c, uint64_t at, uint64_t most,
                       enum map_state *state)
{
    unsigned bits = m->shape.piece_bits, piece = (unsigned)(at >> bits);

    *state = state_of(c, piece);
    if (c->state != MAP_PARTIAL)
        return most;
    while (++piece < MAP_PIECES && ((uint64_t)piece << bits) - at < most &&
           state_of(c, piece) == *state)
        ;
    return MIN(most, ((uint64_t)piece << bits) - at);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* zones.c - reading and writing of linear and level 0: every byte has one place, so resolve says it
 * all and the waist does the rest. */
#include "raid/array.h"

static bool zone_resolve(struct raid_array *a, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    struct raid_piece p = raid_place(&a->shape, offset, 0);
    struct raid_member *m = a->by_role[p.disk];
    *out = (struct blk_place){.child = m->dev,
                              .offset = m->data_offset + p.offset,
                              .bytes = MIN(bytes, p.bytes)};
    return true;
}

const struct raid_engine raid_zone_engine = {
    .resolve = zone_resolve,
};

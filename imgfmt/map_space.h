/* SPDX-License-Identifier: BSD-3-Clause */
/* map_space.h - which units of a file are owned, for formats that keep no count of it on disk.
 *
 * A unit is what the format hands out: a block, a grain, a cluster. The set is made of the table
 * when it is first needed; from then on it lives in memory only, a bit a unit. */
#ifndef IMGFMT_MAP_SPACE_H
#define IMGFMT_MAP_SPACE_H

#include "block/base.h"

#define MAP_SPACE_MOST (1ULL << 33) /* units: a GiB of memory */

/* Zero-initialised is empty. Free with map_space_drop(). */
struct map_space {
    uint64_t *used; /* bit set */
    uint64_t words;
    uint64_t next;    /* all from here on are free */
    uint64_t lowest;  /* all below are owned */
    uint64_t touched; /* all from here on were never written */
    uint64_t count;   /* owned */
};

void map_space_reset(struct map_space *s);
void map_space_drop(struct map_space *s);
bool map_space_owned(const struct map_space *s, uint64_t unit);
/* Owns @span units from @unit on, of which some may be owned already; all or none. -ENOMEM, -EFBIG
 */
must_use int map_space_own(struct map_space *s, uint64_t unit, uint64_t span);
/* The first of @span free units that lie together, at or behind @from. */
uint64_t map_space_find(struct map_space *s, uint64_t from, uint64_t span);
void map_space_let_go(struct map_space *s, uint64_t unit);

#endif

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
must_use int map_space_own(struct map_space *s, uint64_t unit); /* -ENOMEM, -EFBIG */
/* The first free unit in [@from, @below), now owned; else -ENOSPC. */
must_use int map_space_take(struct map_space *s, uint64_t from, uint64_t below, uint64_t *unit);
/* The same, and up to *count units behind it that are free too and alike in *reused: whether they
 * were written before. */
must_use int map_space_take_run(struct map_space *s, uint64_t below, uint64_t *count,
                                uint64_t *first, bool *reused);
/* The first of @span free units that lie together, at or behind @from. */
uint64_t map_space_find(const struct map_space *s, uint64_t from, uint64_t span);
/* Owns @span units from @unit on; all or none. */
must_use int map_space_own_span(struct map_space *s, uint64_t unit, uint64_t span);
void map_space_let_go(struct map_space *s, uint64_t unit);

#endif

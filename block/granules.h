/* SPDX-License-Identifier: BSD-3-Clause */
/* granules.h - a set of pieces of a disk, of one size each: what a job has still to do, what a
 * backup is to hold. At most 2 MiB for any disk: on a large one the pieces are larger. */
#ifndef BLOCK_GRANULES_H
#define BLOCK_GRANULES_H

#include "block/base.h"

#define GRANULE_LEAST (64 * KiB)
#define GRANULES_MOST (16 * MiB) /* pieces */

struct granules {
    uint64_t *words;
    uint64_t size;  /* of the disk */
    unsigned shift; /* bytes of a piece: 1 << shift */
};

/* All in or all out. -ENOMEM. */
must_use int granules_init(struct granules *g, uint64_t size, bool in);
void granules_drop(struct granules *g);
static inline uint64_t granule_bytes(const struct granules *g)
{
    return 1ULL << g->shift;
}
/* Of every piece that [offset, +bytes) touches. */
void granules_set(struct granules *g, uint64_t offset, uint64_t bytes, bool in);
/* True if the piece that @offset lies in is in; *bytes (in: at most; out) from @offset on are all
 * the same. */
bool granules_run(const struct granules *g, uint64_t offset, uint64_t *bytes);
/* [*offset, +*bytes) becomes all of the pieces that it touches, but for what is past the end. */
void granules_widen(const struct granules *g, uint64_t *offset, uint64_t *bytes);
/* Bytes of the disk that are in. */
uint64_t granules_count(const struct granules *g);

#endif

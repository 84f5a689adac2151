/* SPDX-License-Identifier: BSD-3-Clause */
/* ddrescue.h - the map of what GNU ddrescue could read of a disk, and the layer that keeps to it.
 */
#ifndef BLOCK_DDRESCUE_H
#define BLOCK_DDRESCUE_H

#include "block/block.h"

struct ddrescue_run {
    uint64_t offset, bytes;
};

struct ddrescue_map {
    struct ddrescue_run *runs; /* what was read, in order, apart from each other; owned */
    size_t count;
    uint64_t end; /* of what the map speaks of */
};

#define DDRESCUE_TEXT_MOST (16 * MiB)

/* Pure. Gives *out; ddrescue_map_drop() it, also on failure. */
must_use int ddrescue_map_parse(const char *text, size_t bytes, struct ddrescue_map *out,
                                struct blk_error *e);
void ddrescue_map_drop(struct ddrescue_map *m);
/* True if a file with that beginning is a map. */
bool ddrescue_is_map(const char *head, size_t bytes);

extern const struct blk_driver ddrescue_driver;

#endif

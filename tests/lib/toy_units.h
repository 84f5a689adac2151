/* SPDX-License-Identifier: BSD-3-Clause */
/* toy_units.h - toy formats over map_units.h, for its unit test and its rows of the proof.
 *
 *   | header 512: le64 words | ... | table of le64 | base: units |
 *
 * An entry is a file offset | 1 (data) or 2 (zero). The kinds differ in what real formats differ
 * in: where the table goes when it grows, what leads a cluster, units per cluster, a footer that
 * must always be at the file's end, tables of two levels. */
#ifndef TESTS_TOY_UNITS_H
#define TESTS_TOY_UNITS_H

#include "block/endian.h"
#include "imgfmt/map_units.h"

enum toy_units_kind {
    TOY_STAYS,  /* flat table that stays; a dirty flag (Parallels) */
    TOY_MOVES,  /* flat table that moves, a lead of 512 bytes of 0xff, a footer (VHD) */
    TOY_TABLES, /* two levels, clusters of 4 units, grown ahead (VMDK, QED) */
    TOY_BIG,    /* flat, clusters of 4 units, aligned (VHDX) */
    TOY_UNITS_KINDS,
};

struct toy_units_header {
    le64 magic, kind, size, root_offset, root_entries, base, dirty;
    uint8_t rest[456];
};
static_assert(sizeof(struct toy_units_header) == 512, "header");

extern const struct blk_driver toy_units_driver;

/* Writes a new image into @file. */
must_use int co_toy_units_create(struct blk_device *file, enum toy_units_kind kind, uint64_t size,
                                 struct blk_error *e);
struct map *toy_units_map(struct blk_device *dev);

#endif

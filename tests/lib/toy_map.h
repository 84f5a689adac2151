/* SPDX-License-Identifier: BSD-3-Clause */
/* toy_map.h - a toy format that knows every kind of cell, for tests of the map engine.
 *
 * | root: 512 le64 | 4 KiB units: tables of 512 le64, clusters, packed bytes |. An entry is
 * state << 60 | shared << 59 | packed bytes << 40 | offset. Ownership is counted in memory; closing
 * asserts that every unit has as many owners as were counted (not with BLK_OPEN_CHECK). */
#ifndef TESTS_TOY_MAP_H
#define TESTS_TOY_MAP_H

#include "imgfmt/map.h"

#define UNIT       4096ULL
#define UNITS      20000
#define TOY_SIZE   (5 * MiB + 1234)
#define TOY_SHARED (1ULL << 59)
#define TOY_OFFSET ((1ULL << 40) - 1)

struct toy {
    struct map map;
    uint8_t refs[UNITS];
    uint64_t high; /* units from here on were never used */
    uint64_t packed_at, packed_end;
};

/* What the next opened toy is like. */
struct toy_kind {
    bool no_zero_cells, zero_keeps_space;
    uint64_t root;
    uint64_t cache;
};
extern struct toy_kind how;

/* Over @file, and @backing where it is not NULL; both are borrowed. Asserts that it opens. */
struct blk_device *open_toy(struct blk_device *file, struct blk_device *backing, unsigned flags);
struct toy *toy_of(struct map *m);
int toy_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused);
/* Owners of each unit, by a walk over root and tables. */
int co_toy_count(struct toy *t, uint8_t refs[UNITS]);
uint64_t toy_get(const void *entry);
void toy_put(void *entry, uint64_t n);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_cells.h - what is known of a volume's mappings without asking the tree: pages of entries,
 * direct mapped, bounded. Any worker may look; home changes them.
 *
 * A page says whose it is in front and behind of every look (a tag with a count of its lives), so
 * a look that met a change finds out and is a miss. */
#ifndef VOLUMES_THIN_CELLS_H
#define VOLUMES_THIN_CELLS_H

#include "block/base.h"

#define THIN_PAGE       512  /* cells */
#define THIN_PAGES_MOST 2048 /* of one volume: 8 MiB, 64 GiB of blocks of 64 KiB */

/* 0: unknown. */
typedef uint64_t thin_cell;
#define THIN_HOLE 1

static inline thin_cell thin_cell_of(uint64_t data_block, bool own)
{
    return (data_block + 1) << 1 | own;
}
static inline bool thin_cell_mapped(thin_cell c)
{
    return c > THIN_HOLE;
}
/* Nobody else's: it may be overwritten in place. */
static inline bool thin_cell_own(thin_cell c)
{
    return c > THIN_HOLE && (c & 1);
}
static inline uint64_t thin_cell_block(thin_cell c)
{
    return (c >> 1) - 1;
}

struct thin_cell_page {
    uint64_t tag; /* number + 1, shifted, and a count; 0 in the upper part: nobody's */
    thin_cell cells[THIN_PAGE];
};

struct thin_cells {
    struct thin_cell_page *pages[THIN_PAGES_MOST]; /* NULL: never used */
};

thin_cell thin_cells_get(const struct thin_cells *c, uint64_t block);
/* The page of @block holds these from now on; false: no memory. */
bool thin_cells_fill(struct thin_cells *c, uint64_t block, const thin_cell cells[THIN_PAGE]);
/* As far as the pages are there. */
void thin_cells_set(struct thin_cells *c, uint64_t block, thin_cell cell);
void thin_cells_own(struct thin_cells *c, uint64_t block); /* it is shared no more */
void thin_cells_make_holes(struct thin_cells *c, uint64_t block, uint64_t end);
void thin_cells_forget(struct thin_cells *c); /* all of it */
void thin_cells_drop(struct thin_cells *c);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* alike.h - what two devices are known to show alike, without reading: both zeroes, or one place of
 * one file (layers that their chains share; snapshots of one image or pool). */
#ifndef BLOCK_ALIKE_H
#define BLOCK_ALIKE_H

#include "block/block.h"

struct blk_alike {
    bool same; /* they are; else they may be */
    bool first_zero, second_zero;
};
/* From @offset on, for *bytes, which may become fewer. @first and @second may be NULL, and are
 * zeroes behind their ends. */
must_use int co_blk_alike(struct blk_device *first, struct blk_device *second, uint64_t offset,
                          uint64_t *bytes, struct blk_alike *out);

#endif

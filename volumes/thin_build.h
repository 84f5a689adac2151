/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_build.h - a pool's metadata made anew from a list of mappings, in one transaction: the
 * superblock is the last that is written. */
#ifndef VOLUMES_THIN_BUILD_H
#define VOLUMES_THIN_BUILD_H

#include "volumes/thin_extents.h"

struct thin_build {
    struct thin_meta m;
    uint32_t id;
    uint64_t root;
    struct thin_detail detail;
    bool in_device;
};

/* @dev loses what it holds. Of @like count times, transaction, uuid, sizes of data. */
must_use int co_thin_build_begin(struct thin_build *b, struct blk_device *dev,
                                 const struct thin_super *like, struct blk_error *e);
must_use int co_thin_build_device(struct thin_build *b, uint32_t id, const struct thin_detail *d,
                                  struct blk_error *e);
/* In order of begin, or not. */
must_use int co_thin_build_extent(struct thin_build *b, const struct thin_extent *x,
                                  struct blk_error *e);
must_use int co_thin_build_device_end(struct thin_build *b, struct blk_error *e);
/* Completes it if @rc is 0; frees @b's memory. Gives the first error. */
int co_thin_build_end(struct thin_build *b, int rc, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* readonly.h - what the formats share that are read here and never written:
 *
 *   qcow1.c, bochs.c        table formats, through the map engine
 *   chunks.c, unpack.c      chunks that are decompressed whole, a few of them kept (kept.c):
 *     cloop.c, dmg*.c, bzip2.c
 *   stream.c                long streams with few places to start at: gzip.c, xz.c, zstd.c
 *   ova*.c, tar.c           a tar of disks
 *   xml.c                   expat, bounded: for dmg and ova */
#ifndef IMGFMT_READONLY_H
#define IMGFMT_READONLY_H

#include "block/block.h"

/* For a driver's open(): the child "file", read-only; refuses an open to write by one sentence. */
must_use int co_readonly_file(struct blk_device *dev, struct blk_opener *opener,
                              struct blk_device **file, struct blk_error *e);
/* Driver operations. */
int co_readonly_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                      unsigned flags);
int co_readonly_flush(struct blk_device *dev);
int co_readonly_reopen(struct blk_device *dev, bool write, struct blk_error *e);

/* For a driver's inner_open(): @dev shows @child, byte for byte, read-only. Takes @child, also on
 * failure. */
must_use int readonly_show(struct blk_device *dev, struct blk_device *child, struct blk_error *e);
/* inner_open() and inner_list() of what wraps one file: that is called "image". */
int co_readonly_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                           struct blk_error *e);
int co_readonly_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                           struct blk_error *e);

extern const struct blk_driver qcow1_driver, bochs_driver, cloop_driver, dmg_driver, gzip_driver,
    xz_driver, zstd_driver, bzip2_driver, ova_driver;

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* bzip2.h - where the blocks of a bzip2 file are, for its driver and its tests. */
#ifndef IMGFMT_BZIP2_H
#define IMGFMT_BZIP2_H

#include "imgfmt/readonly.h"

/* What the 48 bits that begin a block, or end a stream, stand before. Blocks begin at any bit. */
enum bzip2_mark { BZIP2_BLOCK, BZIP2_END };

/* Looks for marks, byte by byte; zero-initialised is the file's begin. */
struct bzip2_finder {
    uint64_t bits;  /* the last 64 seen */
    uint64_t bytes; /* seen in all */
};

/* The next mark in [in, +bytes): its first bit's number in *bit, what was used in *used. False:
 * there is none; all was used. */
bool bzip2_find(struct bzip2_finder *f, const uint8_t *in, size_t bytes, size_t *used,
                enum bzip2_mark *mark, uint64_t *bit);

/* A whole bzip2 stream of the one block that lies in @packed from bit @first (0 .. 7) to the bit
 * before @end. Gives *out (mem_free). */
must_use int bzip2_wrap(const uint8_t *packed, unsigned first, uint64_t end, uint8_t **out,
                        size_t *out_bytes);

#endif

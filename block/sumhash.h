/* SPDX-License-Identifier: BSD-3-Clause */
/* sumhash.h - a hash of what a disk holds that follows a change by the change alone.
 *
 *     sum over all blocks that are not zero of SHA-256(number || block), and SHA-256(2^64-1 ||
 * size)
 *
 * as numbers of 256 bits, modulo 2^256. Blocks have 64 KiB, the last is filled up with zeroes;
 * numbers and size are 64 bits, little endian, as is the sum. Who knows the hash of a disk and what
 * stood and stands in the blocks that were changed knows its new hash; the order of the blocks does
 * not matter, and zeroes cost nothing. Against mix-ups and errors, not against forgers: to find
 * blocks of the same sum takes far less work than to find two of the same SHA-256. */
#ifndef BLOCK_SUMHASH_H
#define BLOCK_SUMHASH_H

#include "block/base.h"

#define SUMHASH_BLOCK (64 * KiB)
#define SUMHASH_BYTES 32
#define SUMHASH_TEXT  65 /* hexadecimal digits and the end */

struct sumhash {
    uint64_t part[4]; /* the least first */
};

void sumhash_add(struct sumhash *s, const struct sumhash *more);
void sumhash_take(struct sumhash *s, const struct sumhash *less);
bool sumhash_equal(const struct sumhash *a, const struct sumhash *b);
/* Adds the blocks in @data, which begins at @offset, a multiple of the block's size. @bytes: a
 * multiple too, but for a disk's end. */
void sumhash_add_blocks(struct sumhash *s, uint64_t offset, const uint8_t *data, uint64_t bytes);
/* Adds what a disk's size adds. */
void sumhash_add_size(struct sumhash *s, uint64_t size);
void sumhash_take_size(struct sumhash *s, uint64_t size);

void sumhash_put(const struct sumhash *s, uint8_t to[SUMHASH_BYTES]);
struct sumhash sumhash_get(const uint8_t from[SUMHASH_BYTES]);
void sumhash_print(const struct sumhash *s, char to[SUMHASH_TEXT]);
/* False: it is not that many hexadecimal digits. */
must_use bool sumhash_parse(const char *text, struct sumhash *out);

#endif

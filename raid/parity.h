/* SPDX-License-Identifier: BSD-3-Clause */
/* parity.h - P and Q of a row, and what they can bring back.
 *
 *     P = sum of D(d)        Q = sum of g^power(d) * D(d)        over the data blocks d
 *
 * byte by byte in GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 and g = 2, as md has it
 * (H. P. Anvin, "The mathematics of RAID-6"). Blocks are given by their power, so that the order of
 * the disks does not matter here; one that is NULL counts as zeroes.
 *
 * Pure, any thread; blocks are aligned to 64 bytes and @bytes is a multiple of 64. With ISA-L where
 * it was found; parity_plain.c is the same in plain C: the truth in tests. */
#ifndef RAID_PARITY_H
#define RAID_PARITY_H

#include "block/base.h"

#define PARITY_POWERS_MOST 255
#define PARITY_ALIGN       64

/* Bytes of blocks from which on a thread of their own is worth the way there and back. */
#ifdef HAVE_LIBISAL
#define PARITY_OFFLOAD (4 * MiB)
#else
#define PARITY_OFFLOAD (256 * KiB)
#endif

/* A row's blocks. */
struct parity_row {
    unsigned powers;      /* entries of data */
    uint8_t *const *data; /* by power */
    uint8_t *p, *q;       /* q: NULL where the level has none */
};

/* Computes P, and Q if there is one, from the data. */
void parity_make(const struct parity_row *r, size_t bytes);

/* What is lost: powers of data blocks, or these. At most as many as there are parities, no two
 * equal. Their blocks are filled in from all others. */
#define PARITY_P 256u
#define PARITY_Q 257u
void parity_recover(const struct parity_row *r, const unsigned *lost, unsigned count, size_t bytes);

/* @to = sum of the @count blocks at @from (at least one; @to may be among them, NULL is zeroes). */
void parity_sum(uint8_t *to, uint8_t *const *from, unsigned count, size_t bytes);
/* @to += c * @from: with c = 1 for P, c = parity_power(power) for Q. */
void parity_add(uint8_t *to, const uint8_t *from, uint8_t c, size_t bytes);

/* 1 if the row's P and Q are right, 0 if not. *suspect (may be NULL): of a wrong one with Q, the
 * only block that can be the wrong one if but one is: a power, PARITY_P or PARITY_Q;
 * PARITY_UNKNOWN if no single one explains it. @scratch: 2 * @bytes. */
#define PARITY_UNKNOWN 258u
bool parity_check(const struct parity_row *r, size_t bytes, uint8_t *scratch, unsigned *suspect);

/* The field. */
uint8_t parity_power(unsigned n); /* g^n */
uint8_t parity_times(uint8_t a, uint8_t b);
uint8_t parity_inverse(uint8_t a); /* not of 0 */

/* parity_plain.c: as parity_make() and parity_add(), a byte at a time. */
void parity_plain_make(const struct parity_row *r, size_t bytes);
void parity_plain_add(uint8_t *to, const uint8_t *from, uint8_t c, size_t bytes);

#endif

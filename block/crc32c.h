/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.h - CRC-32C (Castagnoli), which VHDX seals its structures with. */
#ifndef BLOCK_CRC32C_H
#define BLOCK_CRC32C_H

#include "block/base.h"

/* Of one stretch: begin with 0, or go on from what came before. */
uint32_t crc32c(uint32_t before, const void *bytes, size_t count);
/* As if the four bytes at @skip_at were zero. */
uint32_t crc32c_but(const void *bytes, size_t count, size_t skip_at);

#endif

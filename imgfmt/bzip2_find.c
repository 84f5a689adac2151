/* SPDX-License-Identifier: BSD-3-Clause */
/* bzip2_find.c - blocks of a bzip2 file begin with 48 bits that can stand at any bit; a block can
 * be taken out and made a stream of its own, for it carries its own checksum. */
#include "imgfmt/bzip2.h"

#define BLOCK_MAGIC 0x314159265359ULL
#define END_MAGIC   0x177245385090ULL
#define MASK        ((1ULL << 48) - 1)

bool bzip2_find(struct bzip2_finder *f, const uint8_t *in, size_t bytes, size_t *used,
                enum bzip2_mark *mark, uint64_t *bit)
{
    for (size_t i = 0; i < bytes; i++) {
        f->bits = f->bits << 8 | in[i];
        f->bytes++;
        for (unsigned shift = 0; shift < 8; shift++) {
            uint64_t v = f->bits >> shift & MASK;
            if (likely(v != BLOCK_MAGIC && v != END_MAGIC))
                continue;
            if (f->bytes * 8 < 48 + shift) /* before the file's begin */
                continue;
            *mark = v == BLOCK_MAGIC ? BZIP2_BLOCK : BZIP2_END;
            *bit = f->bytes * 8 - shift - 48;
            *used = i + 1;
            return true;
        }
    }
    *used = bytes;
    return false;
}

static uint64_t bits_at(const uint8_t *p, uint64_t bit, unsigned count)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < count; i++)
        v = v << 1 | (p[(bit + i) / 8] >> (7 - (bit + i) % 8) & 1);
    return v;
}

static void put_bits(uint8_t *p, uint64_t bit, uint64_t value, unsigned count)
{
    for (unsigned i = 0; i < count; i++, bit++)
        if (value >> (count - 1 - i) & 1)
            p[bit / 8] |= 0x80 >> bit % 8;
}

int bzip2_wrap(const uint8_t *packed, unsigned first, uint64_t end, uint8_t **out,
               size_t *out_bytes)
{
    uint64_t bits = end - first;
    if (end < first + 80ULL)
        return -EIO;
    *out_bytes = 4 + (bits + 48 + 32 + 7) / 8;
    uint8_t *to = mem_zalloc(*out_bytes + 1);
    if (!to)
        return -ENOMEM;
    memcpy(to, "BZh9", 4);
    for (uint64_t i = 0; i < (bits + 7) / 8; i++) {
        uint8_t next = first && (i + 1) * 8 < end ? packed[i + 1] : 0;
        to[4 + i] = (uint8_t)(packed[i] << first | (first ? next >> (8 - first) : 0));
    }
    if (bits % 8) /* what follows the block */
        to[4 + bits / 8] &= (uint8_t)(0xff00 >> bits % 8);
    put_bits(to, 32 + bits, END_MAGIC, 48);
    put_bits(to, 32 + bits + 48, bits_at(packed, first + 48, 32), 32);
    *out = to;
    return 0;
}

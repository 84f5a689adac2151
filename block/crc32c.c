/* SPDX-License-Identifier: BSD-3-Clause */
/* crc32c.c - by the CPU's own instruction where there is one, else four bits at a time. */
#include "block/crc32c.h"

static uint32_t by_table(uint32_t crc, const uint8_t *b, size_t count)
{
    static const uint32_t table[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1,
                                       0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
                                       0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
    for (size_t i = 0; i < count; i++) {
        crc ^= b[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *b,
                                                                 size_t count)
{
    uint64_t wide = crc, word;
    for (; count >= 8; b += 8, count -= 8) {
        memcpy(&word, b, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; count; b++, count--)
        crc = __builtin_ia32_crc32qi(crc, *b);
    return crc;
}
#endif

uint32_t crc32c(uint32_t before, const void *bytes, size_t count)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2"))
        return ~by_instruction(~before, bytes, count);
#endif
    return ~by_table(~before, bytes, count);
}

uint32_t crc32c_but(const void *bytes, size_t count, size_t skip_at)
{
    static const uint8_t zeroes[4];
    uint32_t crc = crc32c(0, bytes, skip_at);
    crc = crc32c(crc, zeroes, 4);
    return crc32c(crc, (const uint8_t *)bytes + skip_at + 4, count - skip_at - 4);
}

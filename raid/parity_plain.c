/* SPDX-License-Identifier: BSD-3-Clause */
/* parity_plain.c - the field, and parity a byte at a time: slow, and easy to believe. */
#include "raid/parity.h"

#define POLYNOMIAL 0x11d

/* By shifting and adding. */
uint8_t parity_times(uint8_t a, uint8_t b)
{
    unsigned product = 0;
    for (unsigned bit = 0, shifted = a; bit < 8; bit++, shifted <<= 1)
        if (b >> bit & 1)
            product ^= shifted;
    for (int bit = 14; bit >= 8; bit--)
        if (product >> bit & 1)
            product ^= (unsigned)POLYNOMIAL << (bit - 8);
    return (uint8_t)product;
}

static uint8_t raised(uint8_t a, unsigned n)
{
    uint8_t result = 1;
    for (; n; n >>= 1, a = parity_times(a, a))
        if (n & 1)
            result = parity_times(result, a);
    return result;
}

uint8_t parity_power(unsigned n)
{
    return raised(2, n % 255);
}

uint8_t parity_inverse(uint8_t a)
{
    assert(a != 0);
    return raised(a, 254);
}

void parity_plain_add(uint8_t *to, const uint8_t *from, uint8_t c, size_t bytes)
{
    uint8_t times[256];
    for (unsigned i = 0; i < 256; i++)
        times[i] = parity_times(c, (uint8_t)i);
    for (size_t i = 0; i < bytes; i++)
        to[i] ^= times[from[i]];
}

void parity_plain_make(const struct parity_row *r, size_t bytes)
{
    memset(r->p, 0, bytes);
    if (r->q)
        memset(r->q, 0, bytes);
    for (unsigned i = 0; i < r->powers; i++) {
        if (!r->data[i])
            continue;
        parity_plain_add(r->p, r->data[i], 1, bytes);
        if (r->q)
            parity_plain_add(r->q, r->data[i], parity_power(i), bytes);
    }
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* sumhash.c - a sum of hashes (sumhash.h). */
#include "block/sumhash.h"

#include <nettle/sha2.h>
#include <stdio.h>

#include "block/endian.h"

static_assert(SUMHASH_BYTES == SHA256_DIGEST_SIZE, "a term is one SHA-256");

void sumhash_add(struct sumhash *s, const struct sumhash *more)
{
    uint64_t carry = 0;
    for (unsigned i = 0; i < ARRAY_LEN(s->part); i++) {
        uint64_t sum, whole;
        uint64_t over = __builtin_add_overflow(s->part[i], more->part[i], &sum);
        over += __builtin_add_overflow(sum, carry, &whole);
        s->part[i] = whole;
        carry = over;
    }
}

void sumhash_take(struct sumhash *s, const struct sumhash *less)
{
    struct sumhash minus = {{1}}, flipped;
    for (unsigned i = 0; i < ARRAY_LEN(flipped.part); i++)
        flipped.part[i] = ~less->part[i];
    sumhash_add(&minus, &flipped);
    sumhash_add(s, &minus);
}

bool sumhash_equal(const struct sumhash *a, const struct sumhash *b)
{
    return memcmp(a->part, b->part, sizeof(a->part)) == 0;
}

/* SHA-256 of @number, @data and zeroes up to @whole bytes. */
static struct sumhash term(uint64_t number, const uint8_t *data, uint64_t bytes, uint64_t whole)
{
    static const uint8_t zeroes[SUMHASH_BLOCK];
    struct sha256_ctx c;
    le64 first = le64_of(number);
    uint8_t sum[SHA256_DIGEST_SIZE];
    sha256_init(&c);
    sha256_update(&c, sizeof(first), first.b);
    sha256_update(&c, bytes, data);
    sha256_update(&c, whole - bytes, zeroes);
    sha256_digest(&c, sizeof(sum), sum);
    return sumhash_get(sum);
}

void sumhash_add_blocks(struct sumhash *s, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    assert(offset % SUMHASH_BLOCK == 0);
    for (uint64_t at = 0; at < bytes; at += SUMHASH_BLOCK) {
        uint64_t n = MIN(SUMHASH_BLOCK, bytes - at);
        if (mem_is_zero(data + at, n))
            continue;
        struct sumhash t = term((offset + at) / SUMHASH_BLOCK, data + at, n, SUMHASH_BLOCK);
        sumhash_add(s, &t);
    }
}

static struct sumhash size_term(uint64_t size)
{
    le64 bytes = le64_of(size);
    return term(UINT64_MAX, bytes.b, sizeof(bytes), sizeof(bytes));
}

void sumhash_add_size(struct sumhash *s, uint64_t size)
{
    struct sumhash t = size_term(size);
    sumhash_add(s, &t);
}

void sumhash_take_size(struct sumhash *s, uint64_t size)
{
    struct sumhash t = size_term(size);
    sumhash_take(s, &t);
}

/* --- as bytes and text --- */

void sumhash_put(const struct sumhash *s, uint8_t to[SUMHASH_BYTES])
{
    for (unsigned i = 0; i < ARRAY_LEN(s->part); i++) {
        le64 part = le64_of(s->part[i]);
        memcpy(to + i * sizeof(part), part.b, sizeof(part));
    }
}

struct sumhash sumhash_get(const uint8_t from[SUMHASH_BYTES])
{
    struct sumhash s;
    for (unsigned i = 0; i < ARRAY_LEN(s.part); i++) {
        le64 part;
        memcpy(part.b, from + i * sizeof(part), sizeof(part));
        s.part[i] = le64_get(part);
    }
    return s;
}

void sumhash_print(const struct sumhash *s, char to[SUMHASH_TEXT])
{
    uint8_t bytes[SUMHASH_BYTES];
    sumhash_put(s, bytes);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        snprintf(to + 2 * i, 3, "%02x", bytes[i]);
}

bool sumhash_parse(const char *text, struct sumhash *out)
{
    uint8_t bytes[SUMHASH_BYTES];
    if (strlen(text) != SUMHASH_TEXT - 1 ||
        strspn(text, "0123456789abcdefABCDEF") != SUMHASH_TEXT - 1)
        return false;
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        unsigned value;
        if (sscanf(text + 2 * i, "%2x", &value) != 1)
            return false;
        bytes[i] = (uint8_t)value;
    }
    *out = sumhash_get(bytes);
    return true;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* base.c - memory that can be made to fail, and the search for bytes that are not zero. */
#include "block/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/worker.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* --- memory ----------------------------------------------------------------------------------- */

/* True if the fault sweep wants the allocation that follows to fail. A sticky fault stays at 1. */
static bool alloc_must_fail(void)
{
    struct worker *w = worker_self();

    if (likely(!w || w->alloc_fault.countdown == 0))
        return false;
    struct alloc_fault *fault = &w->alloc_fault;
    fault->seen++;
    if (fault->countdown > 1) {
        fault->countdown--;
        return false;
    }
    if (!fault->sticky)
        fault->countdown = 0;
    return true;
}

void *mem_alloc(size_t bytes)
{
    return alloc_must_fail() ? NULL : malloc(bytes ? bytes : 1);
}

void *mem_zalloc(size_t bytes)
{
    return alloc_must_fail() ? NULL : calloc(1, bytes ? bytes : 1);
}

void *mem_array(size_t count, size_t item_bytes)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, item_bytes, &bytes))
        return NULL;
    return mem_zalloc(bytes);
}

void *mem_resize(void *p, size_t bytes)
{
    return alloc_must_fail() ? NULL : realloc(p, bytes ? bytes : 1);
}

void *mem_aligned(size_t bytes)
{
    size_t rounded = align_up(bytes ? bytes : 1, 4096);

    if (rounded < bytes || alloc_must_fail())
        return NULL;
    return aligned_alloc(4096, rounded);
}

char *mem_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = mem_alloc(bytes);

    return copy ? memcpy(copy, text, bytes) : NULL;
}

char *mem_printf(const char *fmt, ...)
{
    va_list args, again;

    va_start(args, fmt);
    va_copy(again, args);
    int bytes = vsnprintf(NULL, 0, fmt, args);
    char *text = bytes < 0 ? NULL : mem_alloc((size_t)bytes + 1);
    if (text)
        vsnprintf(text, (size_t)bytes + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}

void mem_free(void *p)
{
    free(p);
}

/* --- zeroes ----------------------------------------------------------------------------------- */

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static bool zero_tail(const uint8_t *p, size_t bytes)
{
    uint8_t any = 0;

    while (bytes >= 8) {
        if (load64(p))
            return false;
        p += 8;
        bytes -= 8;
    }
    for (size_t i = 0; i < bytes; i++)
        any |= p[i];
    return any == 0;
}

static bool zero_plain(const uint8_t *p, size_t bytes)
{
    for (; bytes >= 64; p += 64, bytes -= 64)
        if (load64(p) | load64(p + 8) | load64(p + 16) | load64(p + 24) | load64(p + 32) |
            load64(p + 40) | load64(p + 48) | load64(p + 56))
            return false;
    return zero_tail(p, bytes);
}

#if defined(__x86_64__)
static inline __attribute__((target("avx2"))) __m256i load256(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

static __attribute__((target("avx2"))) bool zero_avx2(const uint8_t *p, size_t bytes)
{
    for (; bytes >= 128; p += 128, bytes -= 128) {
        __m256i a = _mm256_or_si256(load256(p), load256(p + 32));
        __m256i b = _mm256_or_si256(load256(p + 64), load256(p + 96));
        __m256i any = _mm256_or_si256(a, b);
        if (!_mm256_testz_si256(any, any))
            return false;
    }
    return zero_tail(p, bytes);
}
#endif

bool mem_is_zero(const void *p, size_t bytes)
{
    const uint8_t *at = p;

    if (bytes >= 16 && (load64(at) | load64(at + 8)))
        return false;
#if defined(__x86_64__)
    if (bytes >= 256 && __builtin_cpu_supports("avx2"))
        return zero_avx2(at, bytes);
#endif
    return zero_plain(at, bytes);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* base.h - the small words every file uses: sizes, checked arithmetic, scope-bound cleanup, memory.
 *
 * Nothing here does I/O, yields, or knows a device. */
#ifndef BLOCK_BASE_H
#define BLOCK_BASE_H

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KiB (1ULL << 10)
#define MiB (1ULL << 20)
#define GiB (1ULL << 30)
#define TiB (1ULL << 40)

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#define printf_like(fmt, args) __attribute__((format(printf, fmt, args)))
#define must_use               __attribute__((warn_unused_result))
#define likely(x)              __builtin_expect(!!(x), 1)
#define unlikely(x)            __builtin_expect(!!(x), 0)

/* Returns from the enclosing function with the negative value of @expr, if it is negative. */
#define TRY(expr)             \
    do {                      \
        int try_rc_ = (expr); \
        if (try_rc_ < 0)      \
            return try_rc_;   \
    } while (0)

static inline bool is_pow2(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}
/* @align is a power of two. align_up() of a value near 2^64 wraps: check untrusted values first. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}
static inline uint64_t div_up(uint64_t v, uint64_t by)
{
    return v / by + (v % by != 0);
}
static inline unsigned log2_floor(uint64_t v)
{
    return 63 - (unsigned)__builtin_clzll(v);
}

/* Arithmetic on untrusted numbers: false when the result does not fit, then *out is unspecified. */
static inline must_use bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline must_use bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}
/* True if [offset, offset + bytes) lies inside [0, limit), without overflow. */
static inline bool range_fits(uint64_t offset, uint64_t bytes, uint64_t limit)
{
    return offset <= limit && bytes <= limit - offset;
}

/* Of @count things that lie one behind the other, the one that holds @offset: the first that ends
 * behind it, or the last. @end: where the first of them says it ends; @stride: bytes from one to
 * the next. */
static inline size_t find_by_end(const uint64_t *end, size_t stride, size_t count, uint64_t offset)
{
    size_t low = 0, high = count - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (*(const uint64_t *)((const char *)end + middle * stride) > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Memory. All allocation after start-up goes through these; they return NULL on failure and the
 * fault sweep makes the n-th fail (struct worker's alloc_fault). Free with mem_free(). */
void *mem_alloc(size_t bytes);  /* uninitialised */
void *mem_zalloc(size_t bytes); /* zeroed */
void *mem_array(size_t count,
                size_t item_bytes);      /* zeroed; NULL when count * item_bytes overflows */
void *mem_resize(void *p, size_t bytes); /* as realloc(); @p stays valid on failure */
void *mem_aligned(size_t bytes);         /* aligned to 4096, uninitialised; freed with mem_free() */
char *mem_strdup(const char *text);
char *mem_printf(const char *fmt, ...) printf_like(1, 2);
void mem_free(void *p);

static inline void mem_free_at_(void *p)
{
    mem_free(*(void **)p);
}
/* The pointer's target is freed when it leaves scope. Initialise it at once. */
#define auto_free __attribute__((cleanup(mem_free_at_)))
/* Gives the value away: returns it and leaves NULL behind. */
#define take(p)                   \
    ({                            \
        __auto_type taken_ = (p); \
        (p) = NULL;               \
        taken_;                   \
    })

/* True if all @bytes at @p are zero. Looks at the first bytes before anything else, so data answers
 * at once. AVX2 where the CPU has it. */
bool mem_is_zero(const void *p, size_t bytes);

#endif

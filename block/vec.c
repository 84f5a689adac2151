/* SPDX-License-Identifier: BSD-3-Clause */
/* vec.c - walking scatter lists. Pieces of length zero are allowed anywhere. */
#include "block/vec.h"

/* One contiguous piece after another: @left falls to 0. */
struct walk {
    const struct iovec *iov;
    size_t skip;
    uint64_t left;
};

static struct walk walk_begin(const struct vec *v)
{
    return (struct walk){.iov = v->iov, .skip = v->skip, .left = v->bytes};
}

/* The next piece, never empty; NULL at the end. */
static inline uint8_t *walk_next(struct walk *w, size_t *len)
{
    while (w->left) {
        size_t here = w->iov->iov_len - w->skip;
        uint8_t *at = (uint8_t *)w->iov->iov_base + w->skip;
        w->iov++;
        w->skip = 0;
        if (here == 0)
            continue;
        *len = MIN(here, w->left);
        w->left -= *len;
        return at;
    }
    return NULL;
}

struct vec vec_slice(const struct vec *v, uint64_t at, uint64_t bytes)
{
    struct vec out = {.iov = v->iov, .skip = v->skip, .bytes = bytes};

    assert(range_fits(at, bytes, v->bytes));
    if (bytes == 0)
        return out;
    while (at >= out.iov->iov_len - out.skip) {
        at -= out.iov->iov_len - out.skip;
        out.iov++;
        out.skip = 0;
    }
    out.skip += at;
    return out;
}

uint64_t vec_export(const struct vec *v, struct iovec *out, unsigned max, unsigned *count)
{
    struct walk w = walk_begin(v);
    uint64_t bytes = 0;
    unsigned n = 0;
    size_t len;
    void *at;

    while (n < max && (at = walk_next(&w, &len))) {
        out[n++] = (struct iovec){.iov_base = at, .iov_len = len};
        bytes += len;
    }
    *count = n;
    return bytes;
}

void *vec_first(const struct vec *v, size_t *len)
{
    struct walk w = walk_begin(v);

    assert(v->bytes > 0);
    return walk_next(&w, len);
}

void vec_to_buf(const struct vec *v, void *to)
{
    struct walk w = walk_begin(v);
    uint8_t *out = to, *at;
    size_t len;

    for (; (at = walk_next(&w, &len)); out += len)
        memcpy(out, at, len);
}

void vec_from_buf(const struct vec *v, const void *from)
{
    struct walk w = walk_begin(v);
    const uint8_t *in = from;
    uint8_t *at;
    size_t len;

    for (; (at = walk_next(&w, &len)); in += len)
        memcpy(at, in, len);
}

void vec_fill(const struct vec *v, int byte)
{
    struct walk w = walk_begin(v);
    uint8_t *at;
    size_t len;

    while ((at = walk_next(&w, &len)))
        memset(at, byte, len);
}

bool vec_is_zero(const struct vec *v)
{
    struct walk w = walk_begin(v);
    uint8_t *at;
    size_t len;

    while ((at = walk_next(&w, &len)))
        if (!mem_is_zero(at, len))
            return false;
    return true;
}

bool vec_aligned(const struct vec *v, size_t align)
{
    struct walk w = walk_begin(v);
    uint8_t *at;
    size_t len;

    assert(is_pow2(align));
    while ((at = walk_next(&w, &len)))
        if ((((uintptr_t)at) | len) & (align - 1))
            return false;
    return true;
}

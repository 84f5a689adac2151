/* SPDX-License-Identifier: BSD-3-Clause */
/* vec.h - scatter lists: a view of memory in pieces. Slicing a view copies nothing and allocates
 * nothing. */
#ifndef BLOCK_VEC_H
#define BLOCK_VEC_H

#include <sys/uio.h>

#include "block/base.h"

/* A view: @bytes bytes that begin @skip bytes into iov[0]. The last piece may reach past the view's
 * end. It borrows iov and what it points at; pass it by const pointer, copy it freely. */
struct vec {
    const struct iovec *iov;
    size_t skip;
    uint64_t bytes;
};

/* A view of one buffer needs an iovec that outlives it: */
#define VEC_ONE(iov_ptr) ((struct vec){.iov = (iov_ptr), .skip = 0, .bytes = (iov_ptr)->iov_len})
/* A vec over one buffer, for the scope of the enclosing block. */
#define VEC_BUF(ptr, len)                                                                      \
    ((struct vec){.iov = &(struct iovec){.iov_base = (void *)(ptr), .iov_len = (size_t)(len)}, \
                  .skip = 0,                                                                   \
                  .bytes = (len)})

/* The part [at, at + bytes) of @v; inside @v (asserted). */
struct vec vec_slice(const struct vec *v, uint64_t at, uint64_t bytes);
/* Writes up to @max plain iovecs for the front of @v into @out; *count says how many; returns the
 * bytes they cover. */
uint64_t vec_export(const struct vec *v, struct iovec *out, unsigned max, unsigned *count);
/* The first contiguous piece; *len is its length, clipped to the view. @v is not empty. */
void *vec_first(const struct vec *v, size_t *len);
/* Copies between a view and flat memory; the view's length rules. */
void vec_to_buf(const struct vec *v, void *to);
void vec_from_buf(const struct vec *v, const void *from);
void vec_fill(const struct vec *v, int byte);
bool vec_is_zero(const struct vec *v);
/* True if every piece begins and ends at a multiple of @align (a power of two) in memory. */
bool vec_aligned(const struct vec *v, size_t align);

#endif

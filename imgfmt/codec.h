/* SPDX-License-Identifier: BSD-3-Clause */
/* codec.h - compressing and inflating clusters, with contexts that are kept.
 *
 * The functions run on any thread, several at once: each takes a context from a free list and gives
 * it back, so that there are never more contexts than threads, and none is made per cluster. */
#ifndef IMGFMT_CODEC_H
#define IMGFMT_CODEC_H

#include <pthread.h>

#include "block/base.h"

enum codec_kind {
    CODEC_DEFLATE_4K, /* raw deflate; no distance beyond 4 KiB is written, any is read */
    CODEC_DEFLATE,    /* the same without that bound */
    CODEC_ZSTD,
};

#define CODEC_LEVEL_MAX 9 /* of deflate; zstd takes the same range */

struct codec_context;

struct codec {
    enum codec_kind kind;
    unsigned level; /* 0: the fast one */
    pthread_mutex_t lock;
    struct codec_context *free; /* under lock */
};

void codec_init(struct codec *c, enum codec_kind kind, unsigned level);
void codec_drop(struct codec *c); /* nobody uses it any more */
/* *packed_bytes: room in, length out; -ENOSPC when it does not fit there. */
must_use int codec_pack(struct codec *c, const void *plain, size_t bytes, void *packed,
                        size_t *packed_bytes);
/* Exactly @bytes come out, or -EIO; bytes behind the compressed ones are allowed. */
must_use int codec_unpack(struct codec *c, const void *packed, size_t packed_bytes, void *plain,
                          size_t bytes);
/* The checksum behind deflate in RFC 1950. */
uint32_t codec_adler32(const void *plain, size_t bytes);

#endif

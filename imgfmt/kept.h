/* SPDX-License-Identifier: BSD-3-Clause */
/* kept.h - plain pieces of a compressed image that are kept for a while, bounded in bytes.
 *
 * A piece is known by its offset. Who asks first fills it, who asks meanwhile waits for that, so
 * each is decompressed once. Runs at one home; only co_ functions suspend. */
#ifndef IMGFMT_KEPT_H
#define IMGFMT_KEPT_H

#include "block/co.h"

#define KEPT_BUCKETS 64

struct kept {
    uint64_t key;
    size_t bytes;
    uint8_t *data;
    /* kept.c's */
    unsigned pins;
    bool loading;
    int rc;
    struct co_queue waiters;
    struct kept *next;          /* of its bucket */
    struct kept *newer, *older; /* by use */
};

struct kept_list {
    uint64_t limit, used; /* bytes; exceeded only by what is pinned */
    struct kept *buckets[KEPT_BUCKETS];
    struct kept *newest, *oldest;
};

void kept_init(struct kept_list *l, uint64_t limit);
void kept_drop(struct kept_list *l); /* nothing may be pinned */
/* The piece @key if it is there (perhaps loading), pinned; NULL: it is not. */
struct kept *kept_find(struct kept_list *l, uint64_t key);
/* A new one of @bytes, pinned and loading: the caller fills data and calls kept_filled(). There
 * must be none of that key. NULL: no memory. */
struct kept *kept_new(struct kept_list *l, uint64_t key, size_t bytes);
/* @rc < 0: it is forgotten, and who waits gets the error. */
void kept_filled(struct kept_list *l, struct kept *k, int rc);
/* Until it is filled: 0 or the error. */
must_use int co_kept_wait(struct kept *k);
void kept_put(struct kept_list *l, struct kept *k);

#endif

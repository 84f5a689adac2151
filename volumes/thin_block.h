/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_block.h - the metadata blocks of a pool in memory: verified when read, sealed when written,
 * bounded.
 *
 * A block is changed only in the transaction that made it, and the superblock is no block of this
 * cache: so a dirty block may go to disk at any time, under pressure or when its transaction is
 * committed, and needs no order. Runs at home. */
#ifndef VOLUMES_THIN_BLOCK_H
#define VOLUMES_THIN_BLOCK_H

#include "block/block.h"
#include "volumes/thin_disk.h"

struct thin_block {
    uint64_t number;
    uint8_t *data; /* THIN_BLOCK bytes, aligned to 4096 */
    enum thin_kind kind;
    /* The cache's own. */
    bool dirty, loading;
    unsigned pins;
    int rc;
    uint64_t transaction; /* that dirtied it */
    struct co_queue loaded;
    struct thin_block *hash_next, *newer, *older; /* by last use */
    struct thin_block *dirty_prev, *dirty_next;
};

struct thin_cache {
    struct blk_device *dev; /* borrowed */
    uint64_t blocks;        /* of the device */
    size_t limit;           /* blocks; exceeded only by what is pinned or cannot be written */
    size_t count, bucket_count;
    struct thin_block **buckets;
    struct thin_block *newest, *oldest;
    struct thin_block *dirty_first, *dirty_last; /* in order of transactions */
    uint64_t transaction;                        /* what is dirtied now belongs to */
    /* Why the last block could not be had; of a reader that tells people. */
    uint64_t bad_number;
    const char *bad; /* static; NULL: the device failed */
};

must_use int thin_cache_init(struct thin_cache *c, struct blk_device *dev, size_t limit_bytes);
void thin_cache_drop(struct thin_cache *c); /* dirty or not; nothing is pinned */

/* The block, pinned. -EBADMSG: it is not what it should be. */
must_use int co_thin_get(struct thin_cache *c, uint64_t number, enum thin_kind kind,
                         struct thin_block **out);
/* A new one: zero-filled, dirty, pinned. What the cache still knew of that number is gone. */
must_use int co_thin_new(struct thin_cache *c, uint64_t number, enum thin_kind kind,
                         struct thin_block **out);
void thin_put(struct thin_cache *c, struct thin_block *b);
/* It is changed now, by the current transaction: to be called after the last suspension before
 * that.
 */
void thin_dirty(struct thin_cache *c, struct thin_block *b);
/* The current transaction refers to it no more: if it made it, it need not be written. */
void thin_forget(struct thin_cache *c, uint64_t number);
/* Writes all that is dirty of transactions up to @transaction; does not flush. */
must_use int co_thin_write_out(struct thin_cache *c, uint64_t transaction);

#endif

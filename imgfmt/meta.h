/* SPDX-License-Identifier: BSD-3-Clause */
/* meta.h - the metadata cache of one image: pages of its file, bounded in bytes, written back in
 * order of rank.
 *
 * Every table of an image (qcow2: refcount blocks and table, L2, L1, header; VDI: header, block
 * map) is reached through here. A *rank* says when a dirty page may go to disk: all pages of a
 * lower rank are durable before one of a higher rank is written. Formats choose ranks so that "own
 * before publish" holds (qcow2: refcount block 0, refcount table 1, L2 2, L1 3, header 4). The
 * other direction ("unpublish before free") is never an order between pages: what is freed is
 * queued (meta_defer) and its counts go down only after the batch that unpublished it is durable.
 * So there are no cycles.
 *
 * Write-back (flush, cache pressure, close, one second after the first change) takes all that is
 * dirty at one instant as a *batch*: [data flush if asked] rank 0, flush, rank 1, flush, ..., then
 * the deferred calls. A page that is changed while it is in the batch gets a second copy; the batch
 * keeps the old one. Flushes with nothing to order are left out: one fsync covers data and rank 0.
 * If any step fails, the flush fails and stays failed (meta_error), pages stay dirty.
 *
 * In fresh mode (BLK_OPEN_FRESH) there are no flushes and no order; pages still go out under
 * pressure and on complete.
 *
 * Runs at the device's home. Only co_ functions suspend. */
#ifndef IMGFMT_META_H
#define IMGFMT_META_H

#include "block/block.h"

#define META_RANKS 6

struct meta;

/* A cached piece of the file; @data is page_bytes long and aligned to 4096 or its size. Pinned
 * while somebody holds it. */
struct meta_page {
    uint64_t offset; /* in the file, a multiple of page_bytes */
    uint8_t *data;
    uint8_t rank;
    bool dirty;
    /* meta.c's */
    bool loading, listed;
    unsigned pins;
    uint8_t *frozen; /* the copy that a running write-back owns, once data has moved on */
    bool in_batch;
    int rc;
    void **published; /* where an index points at us: cleared before eviction */
    struct co_queue waiters;
    struct meta_page *lru_prev, *lru_next, *hash_next, *dirty_next;
};

struct meta_options {
    struct blk_device *file; /* borrowed */
    uint32_t page_bytes;     /* power of two, 512 .. 64 KiB */
    uint64_t limit_bytes; /* of clean and dirty pages together; exceeded only by what is pinned */
    bool fresh;
    /* Grace period: called before an evicted or replaced page's memory is reused; NULL until the
     * fast lane runs off home. */
    void (*co_quiesce)(void *arg);
    void *arg;
};

must_use int meta_open(const struct meta_options *o, struct meta **out);
/* Drops everything, dirty or not: write back first. */
void co_meta_close(struct meta *m);

/* The page at @offset, read if need be, pinned. Past the end of the file it reads as zero. One page
 * has one rank for life (asserted). */
must_use int co_meta_get(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out);
/* As co_meta_get() for space that was just allocated: zero-filled, dirty, never read. */
must_use int co_meta_new(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out);
/* The page if it is in memory and loaded, pinned; else NULL. Never suspends. */
struct meta_page *meta_peek(struct meta *m, uint64_t offset);
void meta_put(struct meta *m, struct meta_page *p);
/* Must precede a change of p->data; after it the change cannot fail and must be made without
 * suspending in between. Marks the page dirty. -ENOMEM (a batch holds the page and no copy could be
 * had), -EROFS/-EIO after a failed write-back. */
must_use int meta_touch(struct meta *m, struct meta_page *p);
/* Makes *slot point at @p (a release store) until the page is evicted. For lock-free look-ups. */
void meta_publish(struct meta *m, struct meta_page *p, void **slot);

/* The data written so far must be durable before any page of @rank or above that is dirty now (or
 * dirtied before the next batch) is written. */
void meta_data_before(struct meta *m, unsigned rank);
/* Runs @fn once all that is dirty now is durable (the batch that holds it, or in fresh mode: was
 * written). @d belongs to the caller until then. @fn runs on a coroutine and may suspend. If the
 * write-back fails, it is not run and stays queued. */
struct meta_deferred {
    struct meta_deferred *next;
    void (*co_fn)(struct meta_deferred *d);
};
void meta_defer(struct meta *m, struct meta_deferred *d);
/* Nothing in memory refers to [offset, bytes) of the file any more: drops clean and dirty pages
 * there. None may be pinned. */
void co_meta_forget(struct meta *m, uint64_t offset, uint64_t bytes);

/* Writes back all that is dirty in order. @flush: and the last step (and all data) is durable when
 * it returns. Many callers share one batch. */
must_use int co_meta_write_back(struct meta *m, bool flush);
/* 0, or the error of a failed write-back: allocation must stop. */
int meta_error(const struct meta *m);
bool meta_is_dirty(const struct meta *m);
uint64_t meta_bytes(const struct meta *m);

#endif

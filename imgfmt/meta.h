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
    uint64_t key; /* what an index knows it by, while published */
    uint8_t rank;
    bool dirty;
    /* meta.c's */
    bool used; /* looked at through an index: kept a while longer */
    bool loading;
    uint8_t batch; /* enum meta_batch_state */
    unsigned pins;
    uint8_t *frozen; /* the contents that a running write-back will write, once data moved on */
    int rc;
    struct meta_page **published; /* where an index points at us: cleared before eviction */
    struct co_queue waiters;
    struct meta_page *lru_prev, *lru_next, *hash_next, *dirty_prev, *dirty_next, *batch_next;
};

struct meta_options {
    struct blk_device *file; /* borrowed */
    struct blk_device *data; /* where meta_data_before()'s data lies; NULL: in @file */
    uint32_t page_bytes;     /* power of two, 512 .. 64 KiB */
    uint64_t limit_bytes; /* of clean and dirty pages together; exceeded only by what is pinned */
    bool fresh;
    /* Asked before each page is written; an error fails the write-back. NULL: all may be. */
    int (*may_write)(void *arg, uint64_t offset, unsigned rank);
    /* By rank, the names of the steps that read and write its pages (blk_step()). NULL: none. */
    const char *const *load_steps, *const *write_steps;
    void *guard; /* its argument */
    /* Grace period: called before an evicted or replaced page's memory is reused; NULL until the
     * fast lane runs off home. */
    void (*co_quiesce)(void *arg);
    void *arg;
};

must_use int meta_open(const struct meta_options *o, struct meta **out);
/* For formats with a log. Set before the first page is loaded; not in fresh mode. */
struct meta_hooks {
    void *arg;
    /* A page was read: what a log says beyond what the file holds. NULL: nothing. */
    void (*loaded)(void *arg, struct meta_page *page);
    /* The pages of @list (linked by batch_next, in order of offset) are about to be written in
     * place; those of lower ranks, and data where that is asked for, are durable. When it returns,
     * a crash while they are written loses nothing. @settled: all that was written in place before
     * is durable. An error fails the write-back. */
    int (*co_log)(void *arg, const struct meta_page *list, bool settled);
};
void meta_set_hooks(struct meta *m, const struct meta_hooks *hooks);
/* In co_log: what will be written of @p. */
const uint8_t *meta_page_contents(const struct meta_page *p);
/* Where data lies, once that is known (o.data). */
void meta_set_data(struct meta *m, struct blk_device *data);
/* Drops everything, dirty or not: write back first. */
void co_meta_close(struct meta *m);

/* The page at @offset, read if need be, pinned. Past the end of the file it reads as zero. -EIO if
 * it is cached with another rank: the image's tables overlap. */
must_use int co_meta_get(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out);
/* As co_meta_get() for space that was just allocated: zero-filled, dirty, never read. */
must_use int co_meta_new(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out);
/* The page if it is in memory and loaded, pinned; else NULL. Never suspends. */
struct meta_page *meta_peek(struct meta *m, uint64_t offset);
void meta_pin(struct meta *m,
              struct meta_page *p); /* of a page that is known to be there: published, or pinned */
void meta_put(struct meta *m, struct meta_page *p);
/* Must precede a change of p->data; after it the change cannot fail and must be made without
 * suspending in between. Marks the page dirty. -ENOMEM (a batch holds the page and no copy could be
 * had), -EROFS/-EIO after a failed write-back. */
must_use int meta_touch(struct meta *m, struct meta_page *p);
/* Makes *slot point at @p (an atomic store) until the page is evicted or another takes the slot.
 * For lock-free look-ups: p->key is @key all that time, p->data never moves, and its entries change
 * by atomic stores. */
void meta_publish(struct meta *m, struct meta_page *p, uint64_t key, struct meta_page **slot);

void meta_unpublish(struct meta_page *p);
void meta_unpublish_all(struct meta *m); /* the index goes away */

/* The data written so far must be durable before any page of @rank or above that is dirty now (or
 * dirtied before the next batch) is written. */
void meta_data_before(struct meta *m, unsigned rank);
/* Runs @co_fn once all that is dirty now is durable (in fresh mode: soon). It runs on a coroutine
 * of its own, may suspend and may dirty pages; no write-back waits for it. @taken: a batch holds
 * it, so nothing that is changed from now on may be added to it. If the write-back fails, it is not
 * run and stays the caller's to free after co_meta_close(). */
struct meta_deferred {
    struct meta_deferred *next;
    bool taken;
    void (*co_fn)(struct meta_deferred *d);
};
void meta_defer(struct meta *m, struct meta_deferred *d);
/* Nothing in memory refers to [offset, bytes) of the file any more: drops clean and dirty pages
 * there. None may be pinned. */
void co_meta_forget(struct meta *m, uint64_t offset, uint64_t bytes);

/* Writes back all that is dirty in order. @flush: and the last step (and all data) is durable when
 * it returns. Many callers share one batch. */
must_use int co_meta_write_back(struct meta *m, bool flush);
/* For closing: writes back, waits for the deferred calls, and again until nothing is left. */
must_use int co_meta_settle(struct meta *m, bool flush);
/* 0, or the error of a failed write-back: allocation must stop. */
int meta_error(const struct meta *m);
/* Something that was changed is not durable yet, or deferred calls have not run. */
bool meta_is_dirty(const struct meta *m);
uint64_t meta_bytes(const struct meta *m);
uint64_t meta_limit(const struct meta *m);
uint32_t meta_page_bytes(const struct meta *m);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* meta_private.h - what the two halves of the metadata cache share: meta.c (pages in memory) and
 * meta_batch.c (write-back). */
#ifndef IMGFMT_META_PRIVATE_H
#define IMGFMT_META_PRIVATE_H

#include "imgfmt/meta.h"

#define META_LANES      4 /* writes in flight of one write-back */
#define META_LANE_BYTES (64 * KiB)
#define META_NO_RANK    META_RANKS

enum meta_batch_state {
    META_OUT,     /* in no batch */
    META_WAITING, /* its contents now belong to the batch: freeze them before they change */
    META_WRITING, /* the batch has its copy; the page may change, but not go */
};

/* A write of neighbouring pages, gathered into one buffer. */
struct meta_lane {
    struct meta *meta;
    uint8_t *buffer;
    struct meta_page *first; /* linked by batch_next */
    unsigned count;
    bool busy;
};

struct meta_slab; /* memory of pages */

struct meta {
    struct meta_options o;
    struct meta_hooks hooks;

    /* Pages in memory. */
    struct meta_page **buckets;
    size_t bucket_count, page_count;
    struct meta_page *lru_first, *lru_last; /* loaded ones; first: used last */
    struct meta_page *spare;
    struct meta_slab *slabs;
    size_t slab_bytes; /* of the last one */

    /* What the next batch takes. */
    struct meta_page *dirty[META_RANKS];
    size_t dirty_count;
    unsigned data_rank; /* data must be durable before this rank; META_NO_RANK: need not */
    struct meta_deferred *deferred, **deferred_end;
    bool want_flush;

    /* The running batch, and what went before. */
    bool running;
    uint64_t captured, completed; /* batches */
    int last_rc;                  /* of the last completed one */
    int error;                    /* sticky */
    unsigned unflushed;           /* lowest rank written since the last flush */
    struct co_queue batch_end;
    struct meta_lane lanes[META_LANES];

    /* Work in the background. */
    struct timer timer;
    bool timer_armed, pressed;
    unsigned background; /* coroutines of ours: write-back and deferred calls */
    unsigned deferred_running;
    struct co_queue background_end;
};

void meta_list_dirty(struct meta *m, struct meta_page *p);
void meta_unlist_dirty(struct meta *m, struct meta_page *p);
/* Lanes get their buffers. -ENOMEM. */
must_use int meta_batch_prepare(struct meta *m);
void meta_batch_close(struct meta *m);
/* A page became dirty: sees to it that it is written some time. */
void meta_batch_wanted(struct meta *m);

#endif

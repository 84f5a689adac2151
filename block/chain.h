/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.h - work on a chain of images: moving a layer's contents down (commit), standing an image
 * on another one (rebase). Both run in the caller's coroutine, as a job's body or without one. */
#ifndef BLOCK_CHAIN_H
#define BLOCK_CHAIN_H

#include "block/block.h"
#include "block/job.h"

struct blk_commit {
    struct blk_device *top, *base; /* base: below top, writable; top too unless kept */
    bool keep;                     /* top keeps what it holds */
    struct job *job;               /* for steps and progress; NULL: none */
};
/* What the layers from top down to base hold is in base afterwards. commit.c has the order. */
must_use int co_blk_commit(const struct blk_commit *c, struct blk_error *e);

struct blk_rebase {
    struct blk_device *image;      /* writable */
    struct blk_device *now, *next; /* what it stands on, and will stand on; each may be NULL */
    const char *name, *format;     /* to be written down; NULL: none */
    bool unsafe;                   /* only the name changes: now and next show the same bytes */
    bool compress;                 /* what is written is, where it is whole clusters */
    struct job *job;
};
/* The image shows the same bytes as before, standing on next. It is to be closed then: the open
 * device still has its old child. rebase.c has the order. */
must_use int co_blk_rebase(const struct blk_rebase *r, struct blk_error *e);

#endif

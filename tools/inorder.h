/* SPDX-License-Identifier: BSD-3-Clause */
/* inorder.h - a disk read from begin to end with several reads in flight, its pieces taken in
 * order: hashing, writing to a pipe, sending. */
#ifndef TOOLS_INORDER_H
#define TOOLS_INORDER_H

#include "block/block.h"
#include "block/job.h"

#define INORDER_BLOCK (64 * KiB) /* pieces begin and end there, but for the disk's end */
#define INORDER_PIECE (1 * MiB)  /* the most bytes of one that holds data */
#define INORDER_SLOTS 16         /* so many pieces are in flight */

struct inorder;
struct inorder_piece {
    struct inorder *all;
    unsigned slot; /* no other piece has it until this one was used */
    uint8_t *data; /* NULL: zeroes, and then there may be more than INORDER_PIECE of them */
    uint64_t bytes;
    uint64_t offset;
    bool ready;
    int rc;
};

enum inorder_kind { INORDER_DATA, INORDER_ZERO, INORDER_SKIP /* nobody wants it */ };

struct inorder {
    /* told */
    struct blk_device *dev;
    uint64_t bytes;          /* from the begin of dev */
    struct job *job;         /* counts what was used, and can end it; NULL: none */
    struct blk_error *error; /* of reading */
    /* What the run at @at is, and its length; NULL: what reads zero by its status, or not. */
    int (*co_run)(struct inorder *w, uint64_t at, uint64_t *run, enum inorder_kind *kind);
    int (*co_more)(struct inorder_piece *p); /* reads what goes with its data; NULL: nothing */
    int (*prepare)(struct inorder_piece *p); /* on the pool, of data, in any order; NULL: nothing */
    int (*use)(struct inorder_piece *p);     /* off the worker, in order, one at a time */
    bool use_blocks;                         /* it may sleep for long */
    void *arg;
    /* inorder.c's */
    struct co_group group;
    struct inorder_piece pieces[INORDER_SLOTS];
    uint64_t first, next; /* the next piece to use, and to give out; its slot: % INORDER_SLOTS */
    bool using;
    int rc; /* the first error */
    struct co_queue room;
};

/* Runs it to its end. What reads zero by its status is not read. The first error; the caller words
 * those of its own functions. */
must_use int co_inorder(struct inorder *w);

#endif

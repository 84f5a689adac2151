/* SPDX-License-Identifier: BSD-3-Clause */
/* pieces.h - a walk over a disk gives out pieces of it, and a few of them are worked on at once:
 * convert, commit, rebase. All of one worker. */
#ifndef BLOCK_PIECES_H
#define BLOCK_PIECES_H

#include "block/co.h"
#include "block/job.h"

#define PIECES_MAX 16

struct piece {
    struct pieces *all;
    uint64_t offset, bytes;
    unsigned kind; /* the walk's word to the work */
    bool busy;
};

struct pieces {
    /* told */
    int (*co_work)(struct piece *p); /* its error ends the walk */
    void *arg;
    struct job *job; /* counts the bytes of each piece that is done; NULL: nobody does */
    unsigned limit;  /* how many at once; at most PIECES_MAX */
    /* pieces.c's */
    struct co_group group;
    struct piece slots[PIECES_MAX + 1]; /* one more than run: it is filled before it may start */
};

/* @p: with what is told, else zero. It lives until pieces_wait(), which is not to be left out. */
void pieces_init(struct pieces *p);
/* Gives out [offset, +bytes); waits while as many as may be are under way. */
void pieces_give(struct pieces *p, uint64_t offset, uint64_t bytes, unsigned kind);
/* Counts bytes that cost nothing: they do not use up a speed limit. */
void pieces_pass(struct pieces *p, uint64_t bytes);
/* True if a piece failed or the job is to end: the walk gives out no more. */
bool pieces_stopped(const struct pieces *p);
/* Waits for all; the first error, -ECANCELED if the job is to end. */
must_use int pieces_wait(struct pieces *p);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* seat_walk.h - one pass over all of a seat's device for a job, in pieces, a few of them at once
 * (pieces.h): mirror, stream, backup. The walk runs on the job's worker, plan and work at the
 * seat's home. */
#ifndef BLOCK_SEAT_WALK_H
#define BLOCK_SEAT_WALK_H

#include "block/granules.h"
#include "block/pieces.h"
#include "block/seat.h"

struct seat_stretch {
    uint64_t offset, bytes;
    bool pass; /* there is nothing to do there */
};

struct seat_walk {
    struct blk_device *seat;
    struct job *job;
    unsigned in_flight; /* pieces at once; at most PIECES_MAX */
    void *arg;
    /* In: the rest of the device. Out: how much of it is one piece. */
    int (*co_plan)(void *arg, struct seat_stretch *s);
    int (*co_work)(void *arg, const struct seat_stretch *s);
};

/* The first error; -ECANCELED if the job is to end. */
must_use int co_seat_walk(struct seat_walk *w);

/* For co_plan: whole granules, little of what has to be moved, much of what does not (@x: the
 * status at the offset). */
void seat_stretch_cut(struct seat_stretch *s, const struct granules *left,
                      const struct blk_extent *x);

#endif

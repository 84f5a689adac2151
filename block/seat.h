/* SPDX-License-Identifier: BSD-3-Clause */
/* seat.h - the layer on which an export sits, so that what is below it can be exchanged, and its
 * changes be watched, while clients go on: snapshot, mirror, commit, stream, backup, point exports.
 *
 *   export -> seat -> the device, which a job may exchange for another one that shows the same
 *
 * A job *holds* the seat for an instant: what is in flight ends, what comes waits, so all that
 * happens meanwhile is of one instant to every client. Held, it exchanges the device (seat_swap) or
 * puts itself beside it (seat_watch). A watched seat tells each watch before and after every
 * change, and no two changes that overlap are under way at once; a job takes part in that order by
 * co_seat_lock(). A seat that nobody watches costs one step of resolve.
 *
 * Everything here is called at the seat's home. */
#ifndef BLOCK_SEAT_H
#define BLOCK_SEAT_H

#include "block/block.h"

extern const struct blk_driver seat_driver;

enum seat_change_kind { SEAT_WRITE, SEAT_ZEROES, SEAT_DISCARD };
struct seat_change {
    enum seat_change_kind kind;
    uint64_t offset, bytes;
    const struct vec *from; /* of a write */
    unsigned flags;         /* enum blk_flags */
    int rc;                 /* after: what the device said; when negative, any part may be done */
};

/* Lives with the job. Neither call can fail the client's request: a job that fails has failed
 * alone. */
struct seat_watch {
    struct seat_watch *next;
    void (*co_before)(struct seat_watch *w, const struct seat_change *c); /* may be NULL */
    void (*co_after)(struct seat_watch *w, const struct seat_change *c);  /* may be NULL */
    /* The device was flushed, or (@rc < 0) has lost something. May be NULL. */
    void (*co_flush)(struct seat_watch *w, int rc);
};

/* Puts a seat over @dev (taken, also on failure). */
must_use int co_seat_put(struct blk_device *dev, struct blk_device **out, struct blk_error *e);
/* @dev itself, or what it stands on through layers of one child; NULL: there is none. */
struct blk_device *seat_under(struct blk_device *dev);
/* What sits on it now; borrowed, until somebody swaps. */
struct blk_device *seat_device(const struct blk_device *seat);

/* From here on nothing is in flight above the device, and what comes waits. One holder at a time;
 * released by whoever, so it may span coroutines. */
void co_seat_hold(struct blk_device *seat);
void seat_release(struct blk_device *seat);

/* Held: @dev (taken) takes the device's place; gives the old one. Same size. */
must_use struct blk_device *seat_swap(struct blk_device *seat, struct blk_device *dev);
/* Held: @w is told of every change from here on; or no more. */
void seat_watch(struct blk_device *seat, struct seat_watch *w);
void seat_unwatch(struct blk_device *seat, struct seat_watch *w);
bool seat_watched(const struct blk_device *seat);

/* While watched: no change of [offset, +bytes) is under way until the hold is given back. */
void co_seat_lock(struct blk_device *seat, struct co_range_hold *hold, uint64_t offset,
                  uint64_t bytes);
void seat_unlock(struct blk_device *seat, struct co_range_hold *hold);

#endif

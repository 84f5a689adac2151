/* SPDX-License-Identifier: BSD-3-Clause */
/* live.h - work on a device while clients use it, through the seat it has (seat.h).
 *
 *   overlay.c   snapshots: a new image on top becomes the device, of many in one instant
 *   mirror.c    another device becomes the device (migrate), or the one below does (commit)
 *   stream.c    an image takes in what it stands on
 *   bitmap_carry.c  what overlay and mirror do with the device's dirty bitmaps
 *   past.c      what a device showed at one instant, kept by copying before the first write, with
 *               the bitmap of what had changed (past_bitmap.c):
 *               a device of its own for point exports (past_device.c), or into an image: backup
 *
 * All may be called on any worker (a job's own, say); the work is done at the seat's home, where
 * the devices given must live. One seat takes part in one of overlay, mirror, commit and stream at
 * a time (the caller sees to that), and in any number of pasts. */
#ifndef BLOCK_LIVE_H
#define BLOCK_LIVE_H

#include "block/granules.h"
#include "block/job.h"
#include "block/seat.h"

/* --- snapshots */

struct live_overlay {
    struct blk_device *seat;
    struct blk_device *image; /* new and empty, opened without its backing device */
};
/* In one instant each seat's device becomes its image, which stands on what was there; that is
 * read-only afterwards. Takes the images, also on failure, which changes nothing. */
must_use int co_live_overlay(struct live_overlay *list, size_t count, struct blk_error *e);

/* --- mirror */

struct live_mirror {
    struct blk_device *seat;
    struct blk_device *target; /* of the same size; taken, also on failure */
    bool blank;                /* all of target reads zero */
    bool by_hand;              /* stays ready until job_complete() */
    struct job *job;           /* also tells when to end */
    /* Called when it is ready, on the job's worker; NULL: nothing. From here on who would start
     * again may take either: where a name says which, it is to change now. */
    int (*co_ready)(void *arg, struct blk_error *e);
    void *arg;
};
/* All that the device shows is copied while every change goes to both; when that is done the job is
 * ready: a flush covers both from here on. Then target becomes the device, and the old one is
 * closed. On failure or cancelling nothing has changed. */
must_use int co_live_mirror(const struct live_mirror *m, struct blk_error *e);

/* The device's layer is copied into the image that it stands on, which becomes the device; the
 * layer is empty then, and closed. @job as above. */
must_use int co_live_commit(struct blk_device *seat, bool by_hand, struct job *job,
                            struct blk_error *e);

/* Gives @to the dirty bitmaps of @from, where its format keeps any; nobody changes either
 * meanwhile. For overlay.c and mirror.c. */
must_use int co_live_carry_bitmaps(struct blk_device *from, struct blk_device *to,
                                   struct blk_error *e);

/* --- stream */

struct live_stream {
    struct blk_device *seat;
    struct blk_device *base;   /* below the device; what it will stand on; NULL: on nothing */
    const char *name, *format; /* of base, to be written down */
    struct job *job;
};
must_use int co_live_stream(const struct live_stream *s, struct blk_error *e);

/* --- the past */

struct live_past;
struct live_past_options {
    struct blk_device *seat;
    struct blk_device *store; /* where what is about to change is copied to, at the same offsets; of
                                 the same size; taken, also on failure */
    bool blank;               /* all of store reads zero */
    uint64_t store_bytes;     /* at most so much is copied, then this past is lost; 0: no limit */
    const char *bitmap;       /* of the device: what it says is dirty now is remembered, and it
                                 begins anew; made if it is not there; NULL: none */
    bool only_dirty;          /* of the bitmap: nothing else is kept */
};
/* From one instant on, the same for all of @list. Gives out[0..count). */
must_use int co_live_past_begin(const struct live_past_options *list, size_t count,
                                struct live_past **out, struct blk_error *e);
/* @failed: what the bitmap said is put back into it. Closes the store. */
int co_live_past_end(struct live_past *p, bool failed, struct blk_error *e);
/* A read-only device that shows it; with @bitmap as its bitmap, where that said anything. To be
 * closed before the end. */
must_use int co_live_past_device(struct live_past *p, struct blk_device **out, struct blk_error *e);
/* Copies all that is to be kept into the store, and makes that durable: a backup. */
must_use int co_live_past_copy(struct live_past *p, struct job *job, struct blk_error *e);
/* 0, or why it is lost; *bytes: how much was copied. */
int live_past_state(const struct live_past *p, uint64_t *bytes);

#endif

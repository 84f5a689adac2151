/* SPDX-License-Identifier: BSD-3-Clause */
/* intent.h - the write-intent bitmap of an array that lives: which chunks may differ between
 * members after a crash. */
#ifndef RAID_INTENT_H
#define RAID_INTENT_H

#include "raid/array.h"

struct raid_intent;

/* Reads the bitmap of an array that has one, for a writable array. If it is older than the array
 * all of it counts as set. *out: NULL, there is none. */
must_use int co_intent_open(struct raid_array *a, struct raid_intent **out, struct blk_error *e);
void intent_close(struct raid_intent *n);

/* All bits of [offset, +bytes) of the array are durably set when it returns, and stay so until
 * intent_end() and longer. @n may be NULL, in these two. */
struct intent_hold {
    uint64_t first, end; /* bits */
};
must_use int co_intent_begin(struct raid_intent *n, uint64_t offset, uint64_t bytes,
                             struct intent_hold *hold);
void intent_end(struct raid_intent *n, const struct intent_hold *hold);

/* With a->state_lock held, before superblocks of a->super->events: all bitmaps say that number.
 * *failed: a member that could not be written; NULL: none. */
must_use int co_intent_head(struct raid_intent *n, struct raid_member **failed);
/* Clears the bits that nobody has used for a while, if all members have everything: @all, or those
 * that were not used since the last time. What was written is flushed before. */
must_use int co_intent_sweep(struct raid_intent *n, bool all);
/* The whole bitmap for a new member, whose superblock @s is to be. */
must_use int co_intent_copy_to(struct raid_intent *n, struct blk_device *dev,
                               const struct md_super *s);

/* Gated: covers @sync_bytes from now on, in larger chunks if there is no room for so many bits;
 * those of what is new are set. On the members that is with the next superblocks. */
must_use int co_intent_resize(struct raid_intent *n, uint64_t sync_bytes, struct blk_error *e);
/* All bits are set with the next superblocks, and stay so while the array changes its shape. */
void intent_set_all(struct raid_intent *n);
/* Where it ends behind the superblock @s. */
uint64_t intent_bytes_end(const struct raid_intent *n, const struct md_super *s);

/* In what is kept in sync (array_sync_bytes()): the first set chunk at or behind @at, cut off
 * there: *bytes of it. False: there is none. */
bool intent_next(const struct raid_intent *n, uint64_t at, uint64_t *start, uint64_t *bytes);
/* Whether a member that was written last at @events missed only what bits are set for. */
bool intent_reaches(const struct raid_intent *n, uint64_t events);

#endif

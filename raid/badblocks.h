/* SPDX-License-Identifier: BSD-3-Clause */
/* badblocks.h - a member's list of bad blocks: what is not to be read there, since it could not be
 * written or was never got back.
 *
 * md keeps it in a page beside the superblock: entries in no order, all ones behind the last one.
 * In memory there are two of it: the ranges that are bad now, and the entries that are on the
 * member. What has been written since is bad no more, but stays on the member until it has been
 * flushed; so a crash leaves a range too many, never one too few.
 *
 * Order:
 *  1. What could not be written is appended to the list, durably (FUA); if it was empty,
 *     superblocks then say that there is one; then the write is answered.
 *  2. What was written again goes from the list when it has been flushed. The entries that remain
 *     move towards the front, a block of the device after the other, each durable: every one is
 *     there in its old place or in its new one. */
#ifndef RAID_BADBLOCKS_H
#define RAID_BADBLOCKS_H

#include "block/endian.h"
#include "block/err.h"

#define BAD_PAGE   4096u
#define BAD_MOST   (BAD_PAGE / sizeof(le64))
#define BAD_LENGTH 512u /* of an entry, in units */

struct blk_device;
struct md_super;

struct bad_range {
    uint64_t start, end; /* units from the beginning of the device */
};

struct bad_list {
    uint64_t at;                      /* bytes, in the device: of the page */
    unsigned room;                    /* entries that it has room for */
    unsigned shift;                   /* log2 of a unit's bytes */
    unsigned count;                   /* of what is bad now: */
    struct bad_range range[BAD_MOST]; /* ascending, apart from each other */
    unsigned told_count;              /* of what is on the member: */
    uint64_t told[BAD_MOST];
    bool shown;  /* the superblock says that there is one, durably */
    bool fewer;  /* some of that is bad no more */
    bool broken; /* it could not be written, and takes nothing more */
};

/* --- pure: offsets are bytes of the device --- */

/* Takes the entries of a page, as far as they can be. */
void bad_parse(struct bad_list *l, const le64 *page);
struct bad_range bad_range_of(uint64_t entry);
bool bad_hits(const struct bad_list *l, uint64_t offset, uint64_t bytes);
/* How many of @bytes (at least one) from @offset on are all bad, or all not. */
uint64_t bad_even(const struct bad_list *l, uint64_t offset, uint64_t bytes);
/* All units that it touches are bad. False: the list has no room for them, and is as it was. */
must_use bool bad_add(struct bad_list *l, uint64_t offset, uint64_t bytes);
/* The whole units in it are bad no more. */
void bad_clear(struct bad_list *l, uint64_t offset, uint64_t bytes);

/* --- on the member --- */

/* The list of the member with superblock @s. Gives *out (mem_free); NULL: it has none. */
must_use int co_bad_load(struct blk_device *dev, const struct md_super *s, struct bad_list **out,
                         struct blk_error *e);
/* The range, which is bad, is on the member, durably. -ENOSPC: there is no room. */
must_use int co_bad_tell(struct blk_device *dev, struct bad_list *l, uint64_t offset,
                         uint64_t bytes);
/* What neither was bad in @before nor is now goes from the member: all that was written before that
 * copy was made has been flushed. */
must_use int co_bad_forget(struct blk_device *dev, struct bad_list *l,
                           const struct bad_list *before);

#endif

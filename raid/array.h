/* SPDX-License-Identifier: BSD-3-Clause */
/* array.h - an assembled array: its members, its state, and what a level adds to it.
 *
 * Layers of this folder, from below:
 *
 *     geometry.h, parity.h, super.h    pure: places, parity, superblocks
 *     assemble.h                       pure: from superblocks to a plan: who has which role
 *     array.h, state.c                 members that live: superblocks written, members failed
 *     mirror.c, rows.c                 reading and writing of levels 1 and 10; 4, 5 and 6
 *     bitmap.c, log.c, ppl.c, ...      what must be on disk before a write
 *     sync.c                           resync, recovery, check, repair
 *     md.c                             the driver: one blk_device over members as children
 *
 * Everything runs at the device's home worker.
 *
 * Invariants:
 *  A1 Before the first write to a clean array all members' superblocks say dirty, durably.
 *  A2 A write that skips a member is not answered before the others' superblocks durably say that
 *     the member failed (or that it is not in sync from there on).
 *  A3 A member's superblock is never written again once it has failed.
 *  A4 The last member that something depends on is not failed: the request fails instead.
 *  A5 Overlapping writes are ordered (co_range); reads of data being rebuilt wait for its row. */
#ifndef RAID_ARRAY_H
#define RAID_ARRAY_H

#include "block/block.h"
#include "raid/geometry.h"
#include "raid/super.h"

struct raid_array;

enum raid_member_state {
    MEMBER_MISSING, /* nothing is there, or it is failed */
    MEMBER_IN_SYNC,
    MEMBER_REBUILDING, /* in sync below recovered */
    MEMBER_SPARE,
};

/* One device. It is a child of the array's device until it is removed. */
struct raid_member {
    struct blk_device *dev;
    struct md_super *super; /* NULL in arrays without superblocks */
    uint64_t data_offset;   /* bytes, in dev */
    enum raid_member_state state;
    unsigned role;      /* of spares: RAID_NO_DISK */
    uint64_t recovered; /* MEMBER_REBUILDING: bytes of its data that are in sync */
    bool failed;        /* since it was opened; never written again */
    bool write_mostly;
    uint64_t read_errors;        /* corrected */
    struct raid_bad_blocks *bad; /* NULL: it has no log */
};

/* What a kind of level does; offsets are in the array. NULL: the level has no such thing. */
struct raid_engine {
    int (*co_open)(struct raid_array *a, struct blk_error *e);
    void (*close)(struct raid_array *a);
    int (*co_read)(struct raid_array *a, uint64_t offset, const struct vec *to);
    int (*co_write)(struct raid_array *a, uint64_t offset, const struct vec *from, unsigned flags);
    int (*co_write_zeroes)(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags);
    int (*co_discard)(struct raid_array *a, uint64_t offset, uint64_t bytes);
    /* Makes [offset, +bytes) of all members agree (level 10: of the array): resync. */
    int (*co_resync)(struct raid_array *a, uint64_t offset, uint64_t bytes);
    /* Fills [offset, +bytes) of @member's data from the others: recovery. */
    int (*co_rebuild)(struct raid_array *a, struct raid_member *member, uint64_t offset,
                      uint64_t bytes);
    /* Compares; *mismatches += bytes that do not agree; with @repair they do afterwards. */
    int (*co_scrub)(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                    uint64_t *mismatches);
    uint64_t sync_unit; /* least that the four above take; 0: a chunk */
};

struct raid_array {
    struct blk_device *dev;
    struct raid_shape shape;
    const struct raid_engine *engine;
    struct raid_member **by_role; /* shape.disks of them; NULL: missing */
    struct raid_member *members;  /* all, spares too */
    unsigned member_count;
    bool has_supers, read_only;
    struct md_super *super;     /* of the freshest member: what all of them are to say */
    uint64_t resync_offset;     /* UINT64_MAX: in sync */
    bool dirty_on_disk;         /* A1 has been done and not undone */
    struct co_mutex state_lock; /* changes of superblocks, one at a time */
    struct co_range writers;    /* A5 */
    void *engine_state;
};

/* state.c */
/* A1; returns at once when it has been done. */
must_use int co_array_mark_dirty(struct raid_array *a);
/* Nothing has been written for a while, or at closing: superblocks say clean. */
must_use int co_array_mark_clean(struct raid_array *a);
/* A2 to A4: after an error of @m. 0: it is failed now and the others know; -errno: it was the last
 * one, and stays. */
must_use int co_array_fail(struct raid_array *a, struct raid_member *m);
/* Writes all superblocks (events + 1) with what a->super, roles and members' state say. */
must_use int co_array_write_supers(struct raid_array *a);

/* The member that has @role and whose bytes [offset, +bytes) of data are right; NULL: none. */
struct raid_member *array_readable(struct raid_array *a, unsigned role, uint64_t offset,
                                   uint64_t bytes);
/* The member that writes to @role must go to; NULL: none. */
struct raid_member *array_writable(struct raid_array *a, unsigned role);

/* Reads of and writes to a member's data; offsets in its data. Errors are the member's; the caller
 * decides what follows. */
must_use int co_member_read(struct raid_member *m, uint64_t offset, const struct vec *to);
must_use int co_member_write(struct raid_member *m, uint64_t offset, const struct vec *from,
                             unsigned flags);

extern const struct raid_engine raid_zone_engine, raid_mirror_engine, raid_row_engine;
extern const struct blk_driver md_driver;

#endif

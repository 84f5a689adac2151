/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_disks.h - arrays over simulated disks, for the sweeps: made, opened without members that a
 * crash took along, kept whole beside a workload, and judged.
 *
 * Which members are lost is drawn from what the others hold, so that an array that is opened again
 * has lost what it lost before; only where all were there, and never so many that the level cannot
 * go on. Lost at a crash: an array that was being written to (its superblocks say dirty); with a
 * journal, which leaves them clean, at what a sweep's crash left. While it is being reshaped
 * nothing closes the write hole, as with md, so that members are lost where it is reshaped and not
 * written to, and only at what a sweep's crash left. */
#ifndef TESTS_RAID_DISKS_H
#define TESTS_RAID_DISKS_H

#include "tests/lib/raid_rig.h"
#include "tests/sweep.h"

#define DISKS_DATA (256 * KiB) /* that each member holds */

/* A sweep's subject has one as its arg. */
struct raid_disks {
    struct rig shape; /* its level, layout and disks */
    uint64_t data_offset;
    uint64_t chunk;  /* 0: RIG_CHUNK */
    unsigned lost;   /* members, in a crash */
    unsigned spares; /* beside the disks of the shape */
    unsigned grows;  /* the array is reshaped to so many members more, which are among the spares;
                        it shows the size that it had */
    bool listed;     /* members begin with lists of bad blocks, each of other pages */
    bool uneven;     /* each member holds 64 KiB less than the one before */
    bool bitmap;     /* of writes, inside */
    bool syncing;    /* a step of what is owed is under way */
};

/* The superblock of member @i at the beginning. */
void disks_super(const struct raid_disks *a, unsigned i, struct md_super *s);
/* Opens member @i by itself. */
must_use int co_disks_member(struct sweep_run *run, unsigned i, struct blk_device **out,
                             struct blk_error *e);

/* What struct sweep_subject has. The step: of resync, recovery or reshape, which begins with the
 * first. The check: all that is owed is done, which changes nothing of what the array shows, and
 * then copies and parity agree. */
int co_disks_make(struct sweep_run *run, struct blk_error *e);
int co_disks_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e);
int co_disks_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e);
int co_disks_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                   struct blk_error *e);

/* Workloads: a mix of all there is; one with steps of what is owed; one that is mostly steps; one
 * of writes that overlap. */
extern const struct sweep_profile disks_mixed, disks_mending, disks_moving, disks_overlapping;

#define DISKS_FLAGS (SWEEP_DISCARD_ANY | SWEEP_FSYNCS_ONCE)
#define DISKS_HOOKS(a, bytes, how)                                                               \
    .format = "md", .size = (bytes), .arg = &(a), .profile = &(how), .co_create = co_disks_make, \
    .co_open = co_disks_open, .co_check = co_disks_check, .co_step = co_disks_step
#define DISKS_ROW(a, bytes, how) DISKS_HOOKS(a, bytes, how), .flags = DISKS_FLAGS

#endif

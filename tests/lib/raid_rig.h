/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_rig.h - small arrays over disks in memory, for unit tests: made, opened with members that
 * are missing or break, written to at random beside a model, and compared with it. */
#ifndef TESTS_RAID_RIG_H
#define TESTS_RAID_RIG_H

#include <limits.h>

#include "raid/array.h"
#include "tests/lib/on_host.h"

#define RIG_DISK    (4 * MiB)
#define RIG_DATA    (2 * MiB) /* that each member holds */
#define RIG_DATA_AT MiB
#define RIG_CHUNK   (64 * KiB)
#define RIG_MOST    6
#define RIG_ALL     UINT_MAX /* every member has the fault layer */

struct rig {
    int level;
    uint32_t layout;
    unsigned disks;
    unsigned extra;        /* disks behind those of the shape, which are opened with them */
    bool lists;            /* of bad blocks: members have room for one */
    bool bitmap;           /* of writes, where a list would be */
    bool ppl;              /* level 5: a partial parity log */
    const char *dm_layout; /* images of LVM2 with a bitmap: the layout as the driver has it; NULL:
                              members of md */
    bool journal;          /* levels 4 to 6: the first of the extra disks is a journal */
    bool reads, force;     /* how it is opened: only to be read; by force */
    struct blk_device *disk[RIG_MOST]; /* held by us, so that they outlive the array */
    uint8_t *model;
    struct blk_device *array;
};

/* The superblock of its member @i (disks: the journal): version 1.2 or dm-raid's, clean, without
 * anything else. */
void rig_super(const struct rig *r, unsigned i, struct md_super *s);
/* A bitmap without a bit that is set, behind the superblock @s. */
must_use int co_rig_bitmap(struct blk_device *dev, const struct md_super *s);
/* New, clean members with superblocks, full of zeroes. */
void co_rig_init(struct rig *r, int level, uint32_t layout, unsigned disks);
/* The same of what @r says so far: level, layout, disks, lists, bitmap, ppl,
 * dm_layout, journal. */
void co_rig_make(struct rig *r);
/* @without: bits of members that are missing; @fault: options of a fault layer over member @at;
 * NULL: none. In co_rig_reopen() that has to work. */
int co_rig_open(struct rig *r, unsigned without, unsigned at, const char *fault,
                struct blk_error *e);
void co_rig_reopen(struct rig *r, unsigned without, unsigned at, const char *fault);
void co_rig_close(struct rig *r);
void co_rig_drop(struct rig *r);
void co_rig_end(struct rig *r); /* closed and dropped */
/* The same, after it was compared, and once more when it had been opened again. */
void co_rig_end_compared(struct rig *r);
/* A change of members by the control of the open array; gives its error. */
int co_rig_member(struct rig *r, enum blk_member_action action, const char *name,
                  struct blk_device *dev, struct blk_error *e);
static inline struct raid_array *rig_array(const struct rig *r)
{
    return r->array->state;
}

/* Writes and zeroes of any size and place, sixteen at once that do not overlap, and the model. */
void co_rig_work(struct rig *r, unsigned rounds);
/* One write of bytes that tell where they belong, as far as they differ by @seed; 0: zeroes. */
int co_rig_put(struct rig *r, uint64_t offset, uint64_t bytes, uint8_t seed);
void co_rig_compare(struct rig *r);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* create.h - a new array: superblocks of version 1.2 with the places and sizes that mdadm would
 * choose (docs/raid.md). */
#ifndef RAID_CREATE_H
#define RAID_CREATE_H

#include "block/block.h"
#include "raid/geometry.h"
#include "raid/super.h"

#define RAID_DEFAULT UINT64_MAX

struct raid_create {
    const struct raid_level *level;
    uint32_t layout;
    unsigned disks;
    uint64_t chunk;        /* bytes; levels without chunks: 0 */
    uint64_t size;         /* used of each member; 0: as much as the smallest has */
    uint64_t data_offset;  /* RAID_DEFAULT: mdadm's */
    const char *name;      /* at most 32 bytes */
    bool assume_clean;     /* the members' data is known to agree */
    bool bitmap;           /* a write-intent bitmap inside */
    bool ppl;              /* level 5: a partial parity log */
    bool journal;          /* levels 4, 5, 6: the last of the members is the journal */
    uint64_t bitmap_chunk; /* RAID_DEFAULT: mdadm's */
    /* The first @disks by role (NULL: missing), then spares, then the journal; open for writing. */
    struct blk_device *const *members;
    size_t count;
};

struct raid_created {
    uint8_t uuid[16];
    uint64_t ctime; /* seconds */
    uint64_t size;  /* of the array */
    bool clean;     /* else it is to be resynced */
    bool zeroes;    /* clean because all members read as zeroes */
};

/* Order: everything is checked before anything is written; then (1) superblocks of earlier arrays
 * go; (2) the bitmap and the logs are written; all durable before (3) the new
 * superblocks. A crash before the last one leaves an array with members missing, or none. */
must_use int co_raid_create(const struct raid_create *c, struct raid_created *out,
                            struct blk_error *e);

/* What a new member of an array that lives gets before its superblock, which @s is to be: old ones
 * go, its log of bad blocks is empty; durable. */
must_use int co_raid_prepare_member(struct blk_device *dev, const struct md_super *s);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.h - md's write-intent bitmap as it lies on every member: a header of 256 bytes, then a bit
 * for each chunk of what is kept in sync (of a member's data; level 10: of the array). A bit that
 * is set says that members may differ there. Pure but for co_bitmap_make(). */
#ifndef RAID_BITMAP_H
#define RAID_BITMAP_H

#include "block/block.h"
#include "raid/md_disk.h"

#define MD_BITMAP_BITS_MOST (32ull << 20) /* that are read */

/* Added to the number of events, which it makes larger than any: who knows bitmaps takes that for
 * one that is not too old, and writes the array's own number in its place as soon as it loads it.
 * So it tells whether the array has been in use elsewhere, where superblocks do not. */
#define MD_BITMAP_SEAL   (1ull << 62)
#define MD_BITMAP_EVENTS UINT32_MAX /* that a sealed one can have */

struct md_bitmap {
    uint8_t uuid[16]; /* of the array */
    uint64_t events;  /* of the array when it was written */
    uint64_t seal;    /* MD_BITMAP_SEAL and a number of who sealed it; 0: it is not */
    uint64_t events_cleared;
    uint64_t sync_bytes; /* that it covers */
    uint64_t chunk;      /* bytes */
    unsigned state;      /* MD_BITMAP_STALE, ... */
    unsigned daemon_sleep, write_behind;
    uint64_t bits; /* how many */
};

/* @raw: MD_BITMAP_HEADER bytes. */
must_use int md_bitmap_parse(const uint8_t *raw, struct md_bitmap *out, struct blk_error *e);
void md_bitmap_build(const struct md_bitmap *b, uint8_t *raw);
/* Header and bits. */
uint64_t md_bitmap_bytes(const struct md_bitmap *b);
/* The least chunk with which the bits for @sync_bytes fit into @room; what mdadm takes is 64 MiB at
 * the least. */
uint64_t md_bitmap_chunk(uint64_t sync_bytes, uint64_t room);
/* A new one at @offset of @dev: all bits set, or none. @room: bytes that may be written there. */
must_use int co_bitmap_make(struct blk_device *dev, uint64_t offset, uint64_t room,
                            const struct md_bitmap *b, bool all);

#endif

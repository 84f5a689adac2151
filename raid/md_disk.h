/* SPDX-License-Identifier: BSD-3-Clause */
/* md_disk.h - md's superblocks and write-intent bitmap as they lie on members.
 *
 * Numbers of places and lengths are sectors of 512 bytes unless said otherwise. Source: md_p.h's
 * public description in md(4), checked with mdadm --examine; docs/raid.md has the facts in words.
 */
#ifndef RAID_MD_DISK_H
#define RAID_MD_DISK_H

#include <assert.h>

#include "block/endian.h"

#define MD_MAGIC       0xa92b4efc
#define MD_SUPER_BYTES 4096 /* read and written whole, whatever the version */

enum md_feature {
    MD_BITMAP = 1,
    MD_RECOVERY = 2, /* recovery_offset counts: in sync up to there only */
    MD_RESHAPE = 4,
    MD_BAD_BLOCKS = 8,   /* the list is not empty */
    MD_REPLACEMENT = 16, /* of the member that has the same role */
    MD_BACKWARDS = 32,   /* a reshape that does not change the number of members */
    MD_NEW_OFFSET = 64,  /* of data, once reshaped */
    MD_RESHAPE_FEATURES = MD_RESHAPE | MD_BACKWARDS | MD_NEW_OFFSET,
    MD_BITMAP_RECOVERY = 128, /* only what the bitmap marks is recovered */
    MD_CLUSTERED = 256,
    MD_JOURNAL = 512,
    MD_PPL = 1024,
    MD_MULTIPLE_PPLS = 2048,
    MD_RAID0_LAYOUT = 4096,
    MD_KNOWN_FEATURES = 0x1fff,
};

/* What a slot of the role table says. */
enum {
    MD_ROLE_MOST = 0xff00,
    MD_ROLE_SPARE = 0xffff,
    MD_ROLE_FAULTY = 0xfffe,
    MD_ROLE_JOURNAL = 0xfffd
};

enum { MD_WRITE_MOSTLY = 1, MD_FAILFAST = 2 }; /* devflags */

struct md_super_1 { /* versions 1.0, 1.1, 1.2 */
    le32 magic, major, features;
    le32 pad0; /* zero */
    uint8_t set_uuid[16];
    char set_name[32];
    le64 ctime; /* 40 bits of seconds, 24 of microseconds; utime too */
    le32 level, layout;
    le64 size; /* that is used of each member */
    le32 chunk, disks;
    union {
        le32 bitmap_offset; /* signed, from the superblock */
        struct {
            le16 offset, sectors; /* offset: signed, from the superblock */
        } ppl;
    };
    /* of a reshape */
    le32 new_level;
    le64 reshape_position; /* in the array */
    le32 delta_disks, new_layout, new_chunk, new_offset;
    /* of this member */
    le64 data_offset, data_size, super_offset;
    le64 recovery_offset; /* of a journal: its tail */
    le32 dev_number;      /* its slot in the role table */
    le32 corrected_reads;
    uint8_t device_uuid[16];
    uint8_t devflags;
    uint8_t bad_shift; /* bad blocks: log2 of the unit, space, and place */
    le16 bad_sectors;
    le32 bad_offset;
    /* of the array's state */
    le64 utime, events;
    le64 resync_offset; /* not in sync from there on; all ones: clean */
    le32 checksum, max_dev;
    uint8_t pad3[32]; /* zero */
    le16 roles[];
};
static_assert(sizeof(struct md_super_1) == 256, "md superblock 1");
#define MD_ROLES_1 ((MD_SUPER_BYTES - 256) / 2)

/* Version 0.90: in the byte order of the machine that made it. Here little-endian; members of
 * others are byte-swapped when they are read. */
struct md_disk_0 {
    le32 number, major, minor, role, state, reserved[27];
};
enum {
    MD0_FAULTY = 1,
    MD0_ACTIVE = 2,
    MD0_SYNC = 4,
    MD0_REMOVED = 8,
    MD0_WRITE_MOSTLY = 512,
    MD0_FAILFAST = 1024
};
enum { MD0_CLEAN = 1, MD0_BITMAP = 256 }; /* of the array */
#define MD_DISKS_0 27
struct md_super_0 {
    le32 magic, major, minor, patch, gvalid_words, uuid0;
    le32 ctime, level, size; /* size: in KiB */
    le32 nr_disks, disks, md_minor, not_persistent, uuid1, uuid2, uuid3;
    uint8_t pad1[64];
    le32 utime, state, active, working, failed, spare, checksum;
    le64 events, checkpoint_events;
    le32 resync_offset;
    le64 reshape_position; /* minor 91: of a reshape */
    le32 new_level, delta_disks, new_layout, new_chunk;
    uint8_t pad2[56];
    le32 layout, chunk, root_pv, root_block; /* chunk: bytes */
    uint8_t pad3[240];
    struct md_disk_0 disk[MD_DISKS_0];
    struct md_disk_0 this_disk;
};
static_assert(sizeof(struct md_disk_0) == 128, "md disk 0.90");
static_assert(offsetof(struct md_super_0, utime) == 128, "md superblock 0.90");
static_assert(offsetof(struct md_super_0, layout) == 256, "md superblock 0.90");
static_assert(sizeof(struct md_super_0) == MD_SUPER_BYTES, "md superblock 0.90");

#define MD_BITMAP_MAGIC  0x6d746962
#define MD_BITMAP_HEADER 256 /* bytes; then the bits, lowest first */
enum { MD_BITMAP_STALE = 2, MD_BITMAP_WRITE_ERROR = 4, MD_BITMAP_HOST_ENDIAN = 0x8000 };
struct md_bitmap_super {
    le32 magic, version;
    uint8_t uuid[16];
    le64 events, events_cleared;
    le64 sync_size;
    le32 state, chunk; /* chunk: bytes */
    le32 daemon_sleep; /* seconds */
    le32 write_behind, sectors_reserved, nodes;
    char cluster_name[64];
    uint8_t pad[120];
};
static_assert(sizeof(struct md_bitmap_super) == MD_BITMAP_HEADER, "md bitmap");

/* One bad range of a member: length in the lowest 10 bits, start above; both in units of
 * 1 << bad_shift sectors, from the start of the device. All ones ends the list. */
#define MD_BAD_END UINT64_MAX

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* super.h - md's superblocks, parsed and written: bytes in, trusted struct out, no I/O.
 *
 * All sizes and offsets are bytes. A superblock keeps its raw bytes, so that what is not known here
 * survives being written again. */
#ifndef RAID_SUPER_H
#define RAID_SUPER_H

#include "block/err.h"
#include "raid/md_disk.h"

enum md_version {
    MD_0_90,
    MD_1_0,
    MD_1_1,
    MD_1_2,
    MD_VERSIONS,             /* those that members of md are searched for */
    MD_DM_RAID = MD_VERSIONS /* of an image of LVM2 */
};
const char *md_version_name(enum md_version v); /* "1.2" */

struct md_super {
    enum md_version version;
    /* of the array: the same on all members */
    uint8_t uuid[16];
    char name[33];
    uint64_t ctime, utime; /* seconds */
    int level;
    uint32_t layout; /* level 0 without the feature: 0 */
    unsigned disks;
    uint64_t chunk, size; /* size: used of each member; levels 0 and linear: 0 */
    uint64_t events;
    uint64_t resync_offset; /* UINT64_MAX: clean. Level 10: in the array, else in the member */
    bool reshaping, backwards;
    int new_level, delta_disks;
    uint32_t new_layout;
    uint64_t new_chunk, reshape_position; /* in the array */
    /* of this member */
    unsigned features; /* enum md_feature */
    uint8_t device_uuid[16];
    uint64_t super_offset, data_offset, data_size;
    uint64_t head_bytes;                           /* MD_DM_RAID: of the volume it lies in */
    int64_t new_offset;                            /* what a reshape adds to data_offset */
    int64_t bitmap_offset, ppl_offset, bad_offset; /* from the superblock */
    uint64_t ppl_bytes, bad_bytes;
    unsigned bad_shift;       /* log2 of bytes */
    uint64_t recovery_offset; /* with MD_RECOVERY; of a journal its tail; else UINT64_MAX */
    unsigned number;          /* slot in roles */
    unsigned devflags;
    uint32_t corrected_reads;
    unsigned role_count;
    uint16_t roles[MD_ROLES_1]; /* by slot */
    bool read_only;             /* has something that must not be written by who does not know it */
    bool swapped;               /* version 0.90 of a machine of the other byte order */
    uint8_t raw[MD_SUPER_BYTES];
};

/* Where a superblock of that version lies on a device of @bytes; false: it is too small. */
bool md_super_place(enum md_version v, uint64_t bytes, uint64_t *offset);
/* @raw: MD_SUPER_BYTES found there; @bytes: of the device. -ENODATA: there is none;
 * -EINVAL and a sentence: there is one that cannot be. */
must_use int md_super_parse(enum md_version v, const uint8_t *raw, uint64_t bytes,
                            struct md_super *out, struct blk_error *e);
/* Puts what may change of an array that lives into s->raw: events, times, state, roles, recovery,
 * reshape, features, flags; and the checksum. */
void md_super_build(struct md_super *s);
/* How many bytes of raw have to be written: whole @block_bytes (512 or 4096). */
uint64_t md_super_bytes(const struct md_super *s, uint64_t block_bytes);

/* How many roles there are: while it is reshaped those of the larger shape. */
unsigned md_super_roles(const struct md_super *s);
/* Where what belongs to the superblock ends; version 1.1 and 1.2: data may begin there. */
uint64_t md_super_end(const struct md_super *s);
/* The role of the slot; MD_ROLE_SPARE behind the table. */
unsigned md_super_role(const struct md_super *s, unsigned number);
/* Puts it in, growing the table. False: it has no room. */
bool md_super_set_role(struct md_super *s, unsigned number, unsigned role);
/* The same array, as far as the superblocks say. */
bool md_super_same_array(const struct md_super *a, const struct md_super *b);
/* An UUID as mdadm prints it: four groups of eight digits. */
#define MD_UUID_TEXT 36
void md_uuid_text(const struct md_super *s, char text[MD_UUID_TEXT]);
/* CRC-32C of it, which tells whose a PPL or a journal is. */
uint32_t md_uuid_crc(const struct md_super *s);

/* super_0.c, super_1.c, super_dm.c */
must_use int md_super_0_parse(const uint8_t *raw, uint64_t bytes, struct md_super *out,
                              struct blk_error *e);
must_use int md_super_1_parse(enum md_version v, const uint8_t *raw, uint64_t bytes,
                              struct md_super *out, struct blk_error *e);
/* @raw: the first MD_SUPER_BYTES; superblock and bitmap lie before @data_offset, the image behind.
 * -ENODATA: there is none. */
must_use int md_super_dm_parse(const uint8_t *raw, uint64_t bytes, uint64_t data_offset,
                               struct md_super *out, struct blk_error *e);
void md_super_0_build(struct md_super *s);
void md_super_1_build(struct md_super *s);
void md_super_dm_build(struct md_super *s);

#endif

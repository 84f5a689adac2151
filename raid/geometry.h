/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry.h - where the bytes of an array lie: pure functions over a *shape*.
 *
 * A *member* is one device of an array; its *role* is its place in it, 0 to disks - 1. All offsets
 * are bytes; those in members count from where the member's data begins (md's data_offset).
 * Nothing here does I/O, allocates (but for zones) or yields.
 *
 * Three kinds of levels:
 *  - linear and 0 are *zones*: runs of the array that are striped over the same members;
 *  - 1 and 10 hold several *copies* of each byte;
 *  - 4, 5 and 6 have *rows*: one chunk of each member, of which one or two are parity.
 *
 * Source: the md driver's layouts as mdadm(8) and md(4) describe them; docs/raid.md has the tables.
 */
#ifndef RAID_GEOMETRY_H
#define RAID_GEOMETRY_H

#include "block/base.h"
#include "block/err.h"

#define RAID_DISKS_MOST 1920 /* roles that a superblock has room for */
#define RAID_PARITY_MOST                                                     \
    257 /* disks of levels 4 to 6: powers of the generator repeat behind 255 \
         */
#define RAID_COPIES_MOST 255
#define RAID_NO_DISK     UINT32_MAX

#define RAID_LINEAR (-1)

/* md's numbers */
enum raid0_layout { RAID0_ORIGINAL = 1, RAID0_ALTERNATE = 2 };
enum parity_layout {
    LEFT_ASYMMETRIC,
    RIGHT_ASYMMETRIC,
    LEFT_SYMMETRIC,
    RIGHT_SYMMETRIC,
    PARITY_FIRST,
    PARITY_LAST,
    DDF_ZERO_RESTART = 8,
    DDF_N_RESTART,
    DDF_N_CONTINUE,
    LEFT_ASYMMETRIC_6 = 16, /* level 6 only: as level 5 over all but the last disk, which has Q */
    RIGHT_ASYMMETRIC_6,
    LEFT_SYMMETRIC_6,
    RIGHT_SYMMETRIC_6,
    PARITY_FIRST_6,
};

struct raid_shape;

/* One way of keeping data: policy as a table. */
struct raid_level {
    const char *name; /* "raid5" */
    int number;       /* md's: RAID_LINEAR, 0, 1, 4, 5, 6, 10 */
    unsigned disks_min, disks_max;
    unsigned parities;
    bool has_chunk;
    bool is_zoned; /* members may differ in size, and none may be missing */
    uint32_t default_layout;
    /* Checks the layout and fills what follows from it. NULL: there is nothing. */
    int (*prepare)(struct raid_shape *s, struct blk_error *e);
};

struct raid_zone {
    uint64_t start, end;    /* in the array */
    uint64_t member_offset; /* where it begins in each of its members */
    unsigned disks;
    uint32_t *disk; /* roles, ascending */
};

struct raid_shape {
    const struct raid_level *level;
    uint32_t layout;
    unsigned disks;
    uint64_t chunk;  /* bytes; 0 where the level has none */
    uint64_t member; /* bytes that are used of each member; zoned levels: 0 */
    uint64_t size;   /* of the array, bytes */
    unsigned copies; /* of each byte; levels with parity: 1 */

    /* levels 4, 5, 6 */
    unsigned data_disks;
    const struct parity_rule *rule;

    /* level 10; near is 0 for others */
    unsigned near, far, far_set; /* far_set: disks among which far copies stay */
    bool offset_copies;          /* far copies lie in the next row instead of the next part */
    uint64_t stride;             /* bytes from one far copy to the next */

    /* zoned levels */
    struct raid_zone *zones;
    unsigned zone_count;
};

const struct raid_level *raid_level_by_number(int number);
const struct raid_level *raid_level_by_name(const char *name); /* "raid5", "5", "mirror", ... */
/* A layout as mdadm spells it ("left-symmetric", "n2", "original"); a number where it has no name.
 * Level 4, 1 and linear have none: "-". */
#define RAID_LAYOUT_TEXT 32
void raid_layout_text(const struct raid_level *l, uint32_t layout, char text[RAID_LAYOUT_TEXT]);
/* Long and short names, and numbers. False: there is none of that name. */
bool raid_layout_parse(const struct raid_level *l, const char *text, uint32_t *layout);

/* What a shape is made from. @members: bytes of data that each member can hold, by role: of all
 * members for zoned levels, else the smallest counts. @used: bytes that are used of each (md's
 * size); 0: as many as there are. */
struct raid_wanted {
    int level;
    uint32_t layout;
    unsigned disks;
    uint64_t chunk, used;
    const uint64_t *members;
};
/* Checks everything. Gives *out, to be dropped; -EINVAL and a sentence if there is no such array.
 */
must_use int raid_shape_init(struct raid_shape *out, const struct raid_wanted *w,
                             struct blk_error *e);
void raid_shape_drop(struct raid_shape *s);

/* Where bytes lie together on one member. */
struct raid_piece {
    uint32_t disk;
    uint64_t offset, bytes; /* bytes: to the end of what is contiguous there */
};
/* Copy @copy (below s->copies) of the byte at @offset (below s->size). */
struct raid_piece raid_place(const struct raid_shape *s, uint64_t offset, unsigned copy);

/* Which roles have to be there: true if @there (by role) is enough to read everything. */
bool raid_enough(const struct raid_shape *s, const bool *there);

/* --- rows of levels 4 to 6 ---------------------------------------------------------------------
 */

struct raid_row {
    const struct raid_shape *shape;
    uint32_t p, q; /* roles; q is RAID_NO_DISK but for level 6 */
};
struct raid_row raid_row(const struct raid_shape *s, uint64_t row);
/* The role that holds chunk @i of the row (below data_disks). */
uint32_t raid_row_disk(const struct raid_row *r, unsigned i);
/* Its inverse: the chunk that @disk holds; data_disks for P and Q. */
unsigned raid_row_index(const struct raid_row *r, uint32_t disk);
/* The power of the generator that @disk's data has in Q: below raid_row_powers(). Each is had by
 * one disk at most; those that none has count as zeroes. */
unsigned raid_row_power(const struct raid_row *r, uint32_t disk);
unsigned raid_row_powers(const struct raid_shape *s);

/* geometry_10.c, geometry_rows.c, geometry_zones.c: the levels' own parts */
struct parity_rule {
    const char *name, *brief;
    uint32_t layout;
    bool for_5, for_6;
    uint8_t p, q, data;  /* enums of geometry_rows.c */
    bool powers_by_disk; /* the disk's number is its power in Q; else counted from behind Q on */
};
/* NULL: none with that number, or name. */
const struct parity_rule *raid_rule_by_number(const struct raid_level *l, uint32_t layout);
const struct parity_rule *raid_rule_by_name(const struct raid_level *l, const char *name);
int raid10_prepare(struct raid_shape *s, struct blk_error *e);
int raid_rows_prepare(struct raid_shape *s, struct blk_error *e);
struct raid_piece raid10_place(const struct raid_shape *s, uint64_t offset, unsigned copy);
/* The other way round: which byte of the array lies at @offset of @disk; false: none. */
bool raid10_find(const struct raid_shape *s, uint32_t disk, uint64_t offset, uint64_t *array);
struct raid_piece raid_zone_place(const struct raid_shape *s, uint64_t offset);
must_use int raid_zones_init(struct raid_shape *s, const uint64_t *members, struct blk_error *e);

#endif

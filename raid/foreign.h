/* SPDX-License-Identifier: BSD-3-Clause */
/* foreign.h - members of arrays that are not md's: SNIA's DDF, and Intel's (IMSM, "Rapid Storage").
 *
 * They are recognised, not assembled: who keeps such an array has to write its metadata, and that
 * is their controller, or mdadm. What is read of it is where each volume's data lies, which is told
 * as a spec of an array without superblocks (docs/specs.md), so that the data can be got out.
 *
 *   foreign_imsm.c, foreign_ddf.c   pure: bytes from the member's end, checksums verified
 *   foreign.c                       finding them on a device; the specs
 *
 * Sizes and offsets are bytes. */
#ifndef RAID_FOREIGN_H
#define RAID_FOREIGN_H

#include "block/block.h"
#include "raid/geometry.h"

#define FOREIGN_VOLUMES 8
#define FOREIGN_DISKS   64
#define FOREIGN_ID      24
#define FOREIGN_NAME    17 /* with its end */

/* One volume, as one member tells it. */
struct foreign_volume {
    uint8_t id[FOREIGN_ID]; /* the same on all its members */
    char name[FOREIGN_NAME];
    const char *cannot; /* why it cannot be read as an array of md; NULL: it can */
    int level;
    uint32_t layout;
    unsigned disks;
    uint64_t chunk, used;    /* used: of each member */
    uint64_t offset;         /* of the data in this member */
    unsigned slot;           /* of this member; RAID_NO_DISK: that is not told, or it has none */
    bool out[FOREIGN_DISKS]; /* by slot: what is there does not count */
    char serial[FOREIGN_DISKS][FOREIGN_NAME]; /* by slot: of the disk; "": is not told */
};

struct foreign {
    const char *family; /* "DDF", "Intel (IMSM)" */
    uint64_t generation;
    unsigned count;
    struct foreign_volume volume[FOREIGN_VOLUMES];
};

/* @tail: the member's last @bytes. -ENODATA: there is nothing of it; -EINVAL and a sentence: there
 * is, and it is damaged. */
#define IMSM_TAIL (64 * KiB)
must_use int foreign_imsm_parse(const uint8_t *tail, uint64_t bytes, struct foreign *out,
                                struct blk_error *e);

/* DDF: the member's last sector says where its two headers lie, UINT64_MAX: there is none; a header
 * how many bytes from there on count; those tell the rest. */
#define DDF_SECTOR 512
#define DDF_MOST   (4 * MiB)
must_use int foreign_ddf_anchor(const uint8_t *sector, uint64_t member_bytes, uint64_t place[2],
                                struct blk_error *e);
must_use int foreign_ddf_header(const uint8_t *sector, uint64_t *bytes, struct blk_error *e);
must_use int foreign_ddf_parse(const uint8_t *raw, uint64_t bytes, struct foreign *out,
                               struct blk_error *e);

/* A text of 16 bytes, filled up with zeroes or spaces; what cannot be printed becomes "?". */
void foreign_text(char to[FOREIGN_NAME], const char *from);

/* Gives *out (mem_free); NULL: there is none. */
must_use int co_foreign_find(struct blk_device *dev, struct foreign **out, struct blk_error *e);

struct foreign_member {
    const char *name;         /* as a spec */
    const struct foreign *of; /* NULL: it is none, and not looked at; not of all */
    const char *format;       /* of the image that it is; NULL: none */
};
/* What they are, and a spec for each volume. Gives *out (free()). -ENOMEM. */
must_use int foreign_tell(const struct foreign_member *m, size_t count, char **out);

#endif

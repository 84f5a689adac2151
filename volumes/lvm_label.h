/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_label.h - what a physical volume of LVM2 says of itself in binary: its label and the headers
 * of its metadata areas.
 *
 *     | . | label 512 | . | mda header 512 | circular text ...       | . | extents ... | mda 1 |
 *     0   sector 0..3     4096               as far as the area goes     1 MiB
 *
 * Pure: bytes in, trusted structs out, and back. The checksum of all of it is CRC-32 without the
 * final inversion. Numbers on disk are little-endian. */
#ifndef VOLUMES_LVM_LABEL_H
#define VOLUMES_LVM_LABEL_H

#include "block/endian.h"
#include "block/err.h"

#define LVM_SECTOR        512
#define LVM_LABEL_SECTORS 4 /* that may hold the label; ours lies in the second */
#define LVM_AREAS_MOST    2 /* with metadata, per volume */
#define LVM_UUID          32
#define LVM_UUID_TEXT     (LVM_UUID + 6 + 1) /* with hyphens and a zero byte */
#define LVM_AREA_AT       4096               /* of the metadata area that we make */
#define LVM_DATA_AT       MiB                /* of the first extent in volumes that we make */

struct lvm_span_disk { /* of bytes on the device; all zero ends a list */
    le64 offset, bytes;
};

struct lvm_label_disk { /* one sector */
    char id[8];         /* LABELONE */
    le64 sector;        /* where it lies */
    le32 crc;           /* of what follows, to the sector's end */
    le32 header;        /* offset of uuid: 32 */
    char type[8];       /* LVM2 001 */
    char uuid[LVM_UUID];
    le64 device_bytes;
    uint8_t lists[440]; /* spans of data, spans of metadata, the extension with boot areas */
};
_Static_assert(sizeof(struct lvm_label_disk) == LVM_SECTOR, "the label fills a sector");

struct lvm_locn_disk { /* a text in the area; all zero: none */
    le64 offset;       /* from the area's begin */
    le64 bytes;        /* with the zero byte at its end */
    le32 crc;
    le32 flags; /* 1: the area is not used */
};

struct lvm_area_disk { /* the sector at the begin of a metadata area */
    le32 crc;          /* of what follows */
    char magic[16];
    le32 version; /* 1 */
    le64 start;   /* of the area on the device */
    le64 bytes;   /* with this header */
    struct lvm_locn_disk committed, precommitted;
    uint8_t zero[424];
};
_Static_assert(sizeof(struct lvm_area_disk) == LVM_SECTOR, "the header fills a sector");

struct lvm_span {
    uint64_t offset, bytes;
};

struct lvm_label {
    char uuid[LVM_UUID + 1];
    unsigned sector;
    uint64_t device_bytes;
    struct lvm_span areas[LVM_AREAS_MOST]; /* of metadata */
    unsigned area_count;
    uint64_t data_at; /* where the first data area begins */
    bool used;        /* it says that it belongs to a group */
    size_t extension; /* of its flags in the sector; 0: there is none */
};

/* Where the text of a group lies in an area. */
struct lvm_locn {
    uint64_t offset, bytes; /* bytes 0: there is none */
    uint32_t crc;
    bool ignored;
};

uint32_t lvm_crc(uint32_t crc, const void *data, size_t bytes);
#define LVM_CRC_INITIAL 0xf597a6cfu

/* Looks through the first sectors of a device. -ENOENT: none has a label. */
must_use int lvm_label_find(const void *sectors, size_t bytes, struct lvm_label *out,
                            struct blk_error *e);
/* The label of a new volume, in sector 1. */
void lvm_label_build(const char *uuid, uint64_t device_bytes, bool used,
                     struct lvm_label_disk *out);
/* The same label, which says another thing about being used. */
void lvm_label_set_used(struct lvm_label_disk *raw, const struct lvm_label *l, bool used);

must_use int lvm_area_parse(const struct lvm_area_disk *raw, const struct lvm_span *area,
                            struct lvm_locn *committed, struct blk_error *e);
/* NULL: none. */
void lvm_area_build(const struct lvm_span *area, const struct lvm_locn *committed,
                    const struct lvm_locn *precommitted, struct lvm_area_disk *out);

/* The hyphens of 6-4-4-4-4-4-6 are put in and taken out. False: it is no UUID. */
void lvm_uuid_text(const char *uuid, char text[LVM_UUID_TEXT]);
must_use bool lvm_uuid_parse(const char *text, char uuid[LVM_UUID + 1]);
/* Of random bytes. */
void lvm_uuid_make(const uint8_t random[LVM_UUID], char uuid[LVM_UUID + 1]);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* bochs.h - the header of Bochs' growing disks, for their driver and its tests. */
#ifndef IMGFMT_BOCHS_H
#define IMGFMT_BOCHS_H

#include "block/endian.h"
#include "imgfmt/readonly.h"

#define BOCHS_VERSION_1 0x00010000u
#define BOCHS_VERSION_2 0x00020000u
#define BOCHS_FREE      UINT32_MAX

struct bochs_header_disk { /* 512 bytes at offset 0, little endian */
    char magic[32];        /* "Bochs Virtual HD Image" */
    char type[16];         /* "Redolog" */
    char subtype[16];      /* "Growing"; "Undoable", "Volatile" are written over another disk */
    le32 version;
    le32 header_bytes;     /* where the catalog begins */
    le32 catalog;          /* entries */
    le32 bitmap_bytes;     /* of one extent's bitmap */
    le32 extent_bytes;     /* of one extent's data */
    uint8_t versioned[12]; /* version 1: le64 size; 2: le32 time stamp, le64 size */
    uint8_t padding[512 - 96];
};
_Static_assert(sizeof(struct bochs_header_disk) == 512, "Bochs header");

struct bochs_header {
    uint64_t size;
    uint64_t catalog_offset, data_offset; /* of the catalog, of extent 0 */
    uint64_t extent_stride;               /* bitmap and data, each in whole sectors */
    uint32_t catalog, bitmap_bytes, bitmap_stride, extent_bytes;
};

must_use int bochs_header_parse(const struct bochs_header_disk *raw, struct bochs_header *out,
                                struct blk_error *e);

#endif

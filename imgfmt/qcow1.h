/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1.h - the header of qcow version 1, for its driver and its tests. */
#ifndef IMGFMT_QCOW1_H
#define IMGFMT_QCOW1_H

#include "block/endian.h"
#include "imgfmt/readonly.h"

#define QCOW1_MAGIC        0x514649fbu
#define QCOW1_BACKING_MOST 1023 /* bytes of a backing file's name */

struct qcow1_header_disk { /* at offset 0, big endian */
    be32 magic;            /* "QFI\xfb", as in all versions */
    be32 version;          /* 1 */
    be64 backing_offset;   /* 0: none */
    be32 backing_bytes;
    be32 mtime; /* of the backing file once; ignored */
    be64 size;
    uint8_t cluster_bits; /* 9 .. 16 */
    uint8_t l2_bits;      /* entries of a table; 6 .. 13 */
    be16 padding;
    be32 crypt; /* 0: none, 1: AES */
    be64 l1_offset;
};
_Static_assert(sizeof(struct qcow1_header_disk) == 48, "qcow header");

struct qcow1_header {
    uint64_t size, l1_offset, l1_entries, backing_offset;
    uint32_t backing_bytes;
    uint8_t cluster_bits, l2_bits;
    bool encrypted; /* old_aes.h */
};

must_use int qcow1_header_parse(const struct qcow1_header_disk *raw, struct qcow1_header *out,
                                struct blk_error *e);

#endif

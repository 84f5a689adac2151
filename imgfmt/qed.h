/* SPDX-License-Identifier: BSD-3-Clause */
/* qed.h - what a QED image looks like (source: the public description of the format,
 * docs/interop/qed_spec.txt of QEMU). For qed.c and its tests. */
#ifndef IMGFMT_QED_H
#define IMGFMT_QED_H

#include "block/endian.h"
#include "imgfmt/map_backing.h"
#include "imgfmt/map_units.h"

#define QED_MAGIC        0x00444551u /* "QED" and a zero */
#define QED_ZERO_CLUSTER 1u          /* an L2 entry: reads as zeroes, hides the backing file */

enum qed_features {
    QED_BACKING_FILE = 1,
    QED_NEED_CHECK = 2,  /* somebody writes, or crashed while he did */
    QED_BACKING_RAW = 4, /* the backing file is raw, whatever it looks like */
    QED_FEATURES_KNOWN = 7,
};

struct qed_header_disk { /* at 0, little endian */
    le32 magic;
    le32 cluster_bytes;   /* a power of two, 4 KiB .. 64 MiB */
    le32 table_clusters;  /* of an L1 or L2 table: 1, 2, 4, 8, 16 */
    le32 header_clusters; /* the backing file's name lies in them */
    le64 features;        /* unknown bits: must not be opened */
    le64 compatible;      /* unknown bits: ignored */
    le64 autoclear;       /* unknown bits: cleared by who writes */
    le64 l1_offset;
    le64 size; /* virtual bytes */
    le32 backing_offset, backing_bytes;
};
static_assert(sizeof(struct qed_header_disk) == 64, "QED header");

struct qed_header {
    uint32_t cluster_bytes, table_clusters, header_clusters;
    uint64_t features, autoclear, l1_offset, size;
    uint32_t backing_offset, backing_bytes; /* bytes 0: none */
};

/* Pure. @fresh: the magic may still be missing. */
must_use int qed_header_parse(const struct qed_header_disk *raw, uint64_t file_bytes, bool fresh,
                              struct qed_header *out, struct blk_error *e);

struct qed {
    struct map map; /* first: dev->state is a struct map * */
    struct map_units units;
    struct qed_header h; /* as the file has it */
    struct map_backing backing;
};

extern const struct blk_driver qed_driver;

#endif

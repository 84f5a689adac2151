/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refs.h - counters for every cluster of a file: what check counts references with.
 *
 * Sparse: a counter takes memory only near others that are not zero, so offsets in a hostile image
 * cost little each. 16 bits, saturating. */
#ifndef IMGFMT_QCOW2_REFS_H
#define IMGFMT_QCOW2_REFS_H

#include "block/base.h"

#define QCOW2_REFS_LEAF_BITS 8  /* counters in a leaf */
#define QCOW2_REFS_NODE_BITS 10 /* children of a node */
#define QCOW2_REFS_LEVELS    4  /* of nodes: 2^48 clusters */
#define QCOW2_REFS_MAX       UINT16_MAX

struct qcow2_refs {
    void **root;
    uint64_t bytes, limit; /* of memory */
    bool memo_valid;
    uint64_t memo_index; /* the leaf that was looked for last */
    uint16_t *memo;      /* NULL: it is not there */
};

/* -ENOMEM; -EFBIG beyond @limit bytes of memory. */
must_use int qcow2_refs_add(struct qcow2_refs *r, uint64_t cluster);
uint32_t qcow2_refs_get(struct qcow2_refs *r, uint64_t cluster);
void qcow2_refs_drop(struct qcow2_refs *r);

#endif

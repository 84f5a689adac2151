/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refs.h - counters for every cluster of a file: what check counts references with.
 *
 * Sparse: a counter takes memory only near others that are not zero, so offsets in a hostile image
 * cost little each. 30 bits, saturating, and two marks that say how the references looked. */
#ifndef IMGFMT_QCOW2_REFS_H
#define IMGFMT_QCOW2_REFS_H

#include "block/base.h"

#define QCOW2_REFS_LEAF_BITS 8  /* counters in a leaf */
#define QCOW2_REFS_NODE_BITS 10 /* children of a node */
#define QCOW2_REFS_LEVELS    4  /* of nodes: 2^48 clusters */
#define QCOW2_REFS_MAX       ((1u << 30) - 1)

enum qcow2_refs_mark {
    QCOW2_SEEN_PLAIN = 1u << 30,  /* an active entry without the COPIED flag leads here */
    QCOW2_SEEN_COPIED = 1u << 31, /* one with it */
};

struct qcow2_refs {
    void **root;
    uint64_t bytes, limit; /* of memory */
    bool memo_valid;
    uint64_t memo_index; /* the leaf that was looked for last */
    uint32_t *memo;      /* NULL: it is not there */
};

/* One reference more. -ENOMEM; -EFBIG beyond @limit bytes of memory. */
must_use int qcow2_refs_add(struct qcow2_refs *r, uint64_t cluster, uint32_t mark);
/* One less; never below zero. */
void qcow2_refs_sub(struct qcow2_refs *r, uint64_t cluster);
/* Another number; the marks stay. */
must_use int qcow2_refs_set(struct qcow2_refs *r, uint64_t cluster, uint64_t count);
uint32_t qcow2_refs_get(struct qcow2_refs *r, uint64_t cluster);
uint32_t qcow2_refs_marks(struct qcow2_refs *r, uint64_t cluster);
/* The first cluster from @from on that has references; UINT64_MAX: none. */
uint64_t qcow2_refs_next(struct qcow2_refs *r, uint64_t from);
void qcow2_refs_drop(struct qcow2_refs *r);

#endif

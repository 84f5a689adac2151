/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_compact.h - what planning (qcow2_compact_plan.c) and doing (qcow2_compact.c) share: which
 * clusters of a qcow2 file move where. */
#ifndef IMGFMT_QCOW2_COMPACT_H
#define IMGFMT_QCOW2_COMPACT_H

#include "imgfmt/qcow2_bitmap.h"
#include "imgfmt/qcow2_refwalk.h"

/* @count clusters that lie together move together. */
struct qcow2_move {
    uint64_t from, to, count;
};

struct qcow2_compaction {
    struct qcow2 *q;
    uint64_t clusters; /* of the file, as far as they are counted */
    /* Bits, one per cluster, owned. */
    uint64_t *used;   /* has a count; once planned: will have one */
    uint64_t *open;   /* has none, and a refcount block for one */
    uint64_t *known;  /* all that refers to it is known here, so it can move */
    uint64_t *joined; /* the next one has to stay behind it */
    uint64_t *blocks; /* per entry of the refcount table: where the block lies, 0: none; owned */
    uint64_t entries;
    struct qcow2_move *moves; /* by from, owned */
    size_t count, room;
    uint64_t end; /* the first cluster behind all that will be used */
    struct blk_error *e;
};

static inline bool qcow2_bit(const uint64_t *bits, uint64_t i)
{
    return bits[i / 64] >> i % 64 & 1;
}

/* Looks at all tables (written back, sound) and says what moves: count 0: nothing is won by it. */
must_use int co_qcow2_compact_plan(struct qcow2_compaction *c);
void qcow2_compaction_drop(struct qcow2_compaction *c);
/* Where the byte at @offset will be. */
uint64_t qcow2_moved(const struct qcow2_compaction *c, uint64_t offset);
/* Calls @co_fn for the active L1 table and each snapshot's. */
must_use int co_qcow2_compact_each_l1(struct qcow2_compaction *c,
                                      int (*co_fn)(struct qcow2_compaction *c, uint64_t offset,
                                                   uint32_t entries));
/* The last cluster of a file need not be whole: behind its end it reads as zero. */
must_use int co_qcow2_compact_read(struct blk_device *file, uint64_t offset, void *to,
                                   uint64_t bytes);

/* --- qcow2_repack.c ------------------------------------------------------- */

/* Compressed clusters with gaps between them are placed anew, or (@tail, after all else has moved)
 * those at the end of a file that has free clusters all the same. Durable when it returns. */
must_use int co_qcow2_repack(struct qcow2 *q, bool tail);

#endif

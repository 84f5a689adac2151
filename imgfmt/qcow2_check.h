/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_check.h - what checking (qcow2_check.c) and repairing (qcow2_repair.c) a qcow2 image share.
 */
#ifndef IMGFMT_QCOW2_CHECK_H
#define IMGFMT_QCOW2_CHECK_H

#include "imgfmt/qcow2_alloc.h"
#include "imgfmt/qcow2_refs.h"

struct qcow2_checker {
    struct qcow2 *q;
    struct blk_check *c;
    struct qcow2_refs refs; /* references; once compared, what the image counts */
    uint64_t file_bytes;
    bool snapshot;    /* the tables of one are being counted: no marks, no facts */
    bool bad_entries; /* entries whose repair is known: reserved bits, flags of packed clusters */
    bool bad_flags;   /* a COPIED flag contradicts its count */
    bool bad_table; /* the refcount table or a block cannot be trusted: nothing is written there */
    uint64_t table_faults;      /* corruptions among those that a new table mends */
    uint64_t too_low, too_high; /* counts */

    struct qcow2_l2_lane *lanes; /* L2 tables that are read side by side */
    unsigned lane_count, lanes_used;
    uint8_t *block; /* one refcount block */
};

void qcow2_check_say(struct qcow2_checker *k, const char *fmt, ...) printf_like(2, 3);
/* Reads [offset, +bytes); beyond the end of the file it is zero. An error is counted; then the
 * bytes are zero. */
void co_qcow2_check_read(struct qcow2_checker *k, uint64_t offset, void *to, uint64_t bytes);
/* Calls @co_fn for the @entries entries of 8 bytes at @offset, with each one's place. */
must_use int co_qcow2_check_each(struct qcow2_checker *k, uint64_t offset, uint64_t entries,
                                 int (*co_fn)(struct qcow2_checker *k, uint64_t raw, uint64_t at));

/* Counts of the image := references (k->refs), in new blocks and a new table. */
must_use int co_qcow2_rebuild(struct qcow2_checker *k);
/* Looks at every entry of the active tables again: says which COPIED flags are wrong and, with
 * fix_errors, mends them and what else has one right form. The counts are right and durable. */
must_use int co_qcow2_check_entries(struct qcow2_checker *k);
/* The image is sound: it is neither dirty nor corrupt any more. */
must_use int co_qcow2_mark_sound(struct qcow2_checker *k);

#endif

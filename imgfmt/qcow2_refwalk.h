/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refwalk.h - every reference below one L1 table, counted up or down, and the COPIED flags
 * that follow from the counts. For snapshots.
 *
 * The device is gated and all its metadata is written back: tables are read and written directly,
 * many at a time, and what the metadata cache holds of a table is forgotten before it is written.
 */
#ifndef IMGFMT_QCOW2_REFWALK_H
#define IMGFMT_QCOW2_REFWALK_H

#include "imgfmt/qcow2_shadow.h"

/* An L1 table in memory. */
struct qcow2_l1 {
    uint64_t *entries; /* owned */
    uint32_t count;
    uint64_t *flagged; /* bitmap, owned: L2 tables whose entries change; filled by finding, or by
                        * counting: those that hold a COPIED flag */
};
/* Reads it and refuses what no sound image holds: places that cannot be, one L2 table twice. */
must_use int co_qcow2_l1_read(struct qcow2 *q, uint64_t offset, uint32_t count,
                              struct qcow2_l1 *out, struct blk_error *e);
void qcow2_l1_drop(struct qcow2_l1 *l);
/* Writes the entries at @offset, zeroes behind them up to @bytes. */
must_use int co_qcow2_l1_write(struct qcow2 *q, const struct qcow2_l1 *l, uint64_t offset,
                               uint64_t bytes);

/* One reference more or less (@delta) on every cluster that the table's entries lead to: L2 tables,
 * data, each cluster that compressed bytes touch; not the L1 table itself. In the counts of
 * @shadow, which is given up if that fails, or (NULL) in the image's own. There it is all or
 * nothing upwards: -ERANGE (a count is as high as it can be) changes nothing. Downwards what
 * becomes free is punched and handed to the allocator, *freed counts its bytes; -ERANGE: a count
 * was too low, the rest is left as it is. */
must_use int co_qcow2_refer_all(struct qcow2 *q, struct qcow2_l1 *l, int delta,
                                struct qcow2_shadow *shadow, uint64_t *freed);

/* L2 tables that will change are found first, so that there is room for each before counts change:
 * those that hold a COPIED flag; */
must_use int co_qcow2_find_copied(struct qcow2 *q, struct qcow2_l1 *l, uint64_t *tables);
/* or those that hold an entry without one to a cluster with two references or fewer. */
must_use int co_qcow2_find_uncopied(struct qcow2 *q, struct qcow2_l1 *l, uint64_t *tables);

/* Where changed L2 tables go: to @places, the old ones lose their reference in @shadow. NULL: they
 * are written in place. */
struct qcow2_moves {
    struct qcow2_shadow *shadow;
    struct qcow2_places places;
};
/* No COPIED flag stays in @l's entries and in its flagged L2 tables: those in the file are written,
 * not flushed; @l itself is the caller's to write. */
must_use int co_qcow2_clear_copied(struct qcow2 *q, struct qcow2_l1 *l, struct qcow2_moves *moves);
/* Sets it in @l and its flagged L2 tables where exactly one reference is counted. */
must_use int co_qcow2_set_copied(struct qcow2 *q, struct qcow2_l1 *l, struct qcow2_moves *moves);

/* An L2 table on its way through memory. */
struct qcow2_l2_seen {
    uint64_t offset;
    uint8_t *data;
    bool dirty;  /* out: was changed, and is written (not flushed) */
    uint64_t to; /* out: where to; @offset as it comes */
};
/* Calls @fn for each L2 table that @l names. A positive value ends it. */
must_use int co_qcow2_each_l2(struct qcow2 *q, struct qcow2_l1 *l,
                              int (*fn)(void *arg, struct qcow2_l2_seen *t), void *arg);
/* The first word of an L2 entry. */
uint64_t qcow2_entry_word(const uint8_t *entry);
void qcow2_entry_word_put(uint8_t *entry, uint64_t bits);

#endif

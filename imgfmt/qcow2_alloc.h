/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_alloc.h - what the files of the qcow2 allocator share among themselves. Everything here is
 * called with qcow2.alloc held. */
#ifndef IMGFMT_QCOW2_ALLOC_H
#define IMGFMT_QCOW2_ALLOC_H

#include "imgfmt/qcow2.h"

static inline uint64_t qcow2_table_entries(const struct qcow2 *q)
{
    return (uint64_t)q->header.refcount_table_clusters << (q->header.cluster_bits - 3);
}

/* qcow2_refcount.c */

/* The page of the refcount table that holds entry @index, pinned, and where in it. */
must_use int co_qcow2_table_page(struct qcow2 *q, uint64_t index, struct meta_page **page,
                                 uint8_t **entry);
/* The page that holds @cluster's count, pinned, and the count's index in it. -ENOENT: there is no
 * block. */
must_use int co_qcow2_count_page(struct qcow2 *q, uint64_t cluster, struct meta_page **page,
                                 uint64_t *index);
/* The same of the block at @block, whether the image's table names it or not. */
must_use int co_qcow2_block_page(struct qcow2 *q, uint64_t block, uint64_t cluster,
                                 struct meta_page **page, uint64_t *index);
must_use int co_qcow2_count_same(struct qcow2 *q, uint64_t first, uint64_t count, uint64_t *value,
                                 uint64_t *same);

/* One run of up to *count clusters, the table growing when needed. */
must_use int co_qcow2_place_run(struct qcow2 *q, uint64_t *first, uint64_t *count, bool *reused);

/* The file reaches to the end of cluster @end - 1, and some way on: an entry must never point past
 * the end of the file, which readers take for damage, and not every new cluster is written to. One
 * byte in space that is nobody's yet; durable with the counts, so before any entry (Q1). */
must_use int co_qcow2_extend_file(struct qcow2 *q, uint64_t end);

/* qcow2_guard.c */

/* Learns where the image's structures lie, if that is not known. Caller holds alloc. */
must_use int co_qcow2_guard(struct qcow2 *q);
void qcow2_guard_drop(struct qcow2 *q);
/* A table was made or is going to be free. */
void qcow2_guard_add(struct qcow2 *q, uint64_t offset, enum qcow2_guard_kind kind);
void qcow2_guard_remove(struct qcow2 *q, uint64_t offset);
/* True if a structure lies in one of these clusters. */
bool qcow2_guard_hits(const struct qcow2 *q, uint64_t first, uint64_t count);
/* True if the header, a refcount structure or an active table lies there. */
bool qcow2_guard_is_table(const struct qcow2 *q, uint64_t first, uint64_t count);
/* For the metadata cache: a page of @rank may be written to @offset; -EIO: the image is corrupt. */
int qcow2_guard_page(void *arg, uint64_t offset, unsigned rank);

/* qcow2_table.c */

/* Makes refcount block @index in the free cluster @at, which it counts itself or another block
 * does. -EAGAIN: the table has no entry for it (co_qcow2_grow_table()). */
must_use int co_qcow2_create_block(struct qcow2 *q, uint64_t index, uint64_t at);
/* Gives the refcount table more entries. Lets go of alloc and takes it again: look again at
 * everything. */
must_use int co_qcow2_grow_table(struct qcow2 *q);
/* The header names other counts: what the allocator remembers of the old ones is worth nothing. */
void qcow2_forget_counts(struct qcow2 *q);

#endif

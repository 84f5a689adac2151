/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_shadow.h - a second refcount structure beside the image's own, which the header's one write
 * puts in its place.
 *
 * A COPIED flag says that a count is one, but lies in another sector: no order of two writes is
 * free of a moment in which they contradict each other. So what changes both (a snapshot made or
 * deleted) writes nothing in place: tables with other flags, and all refcount blocks, are written
 * anew where nothing was, and the header names the new L1 table, the new refcount table and the new
 * snapshot table in one sector. Before it all is as it was (and some clusters leak), after it all
 * is new.
 *
 * The device is gated: no count changes but through the shadow. */
#ifndef IMGFMT_QCOW2_SHADOW_H
#define IMGFMT_QCOW2_SHADOW_H

#include "imgfmt/qcow2_alloc.h"

/* Single clusters that were handed out ahead of their use; each counts one. */
struct qcow2_places {
    uint64_t *at; /* offsets, owned */
    size_t count, room, used;
};
/* Until there are @want. */
must_use int co_qcow2_places(struct qcow2 *q, struct qcow2_places *p, uint64_t want);
/* The next one; there is one. */
uint64_t qcow2_places_take(struct qcow2_places *p);
/* Gives all back, used or not: what they were for did not happen. */
void qcow2_places_undo(struct qcow2 *q, struct qcow2_places *p);
void qcow2_places_drop(struct qcow2_places *p);

struct qcow2_shadow {
    struct qcow2 *q;
    uint64_t entries;       /* of the refcount table */
    uint64_t *old, *blocks; /* per entry: where the block lies, and where the new one; 0: none */
    uint64_t old_table, table, table_clusters;
    struct qcow2_places places;
};

/* Finds room for it. All else that the change needs has been placed; nothing is placed any more. */
must_use int co_qcow2_shadow_place(struct qcow2 *q, struct qcow2_shadow *s);
/* The new blocks say what the old ones say now. */
must_use int co_qcow2_shadow_copy(struct qcow2_shadow *s);

/* The page of the new blocks that holds @cluster's count, pinned; -ENOENT: there is no block. */
must_use int co_qcow2_shadow_page(struct qcow2_shadow *s, uint64_t cluster, struct meta_page **page,
                                  uint64_t *index);
must_use int co_qcow2_shadow_count(struct qcow2_shadow *s, uint64_t cluster, uint64_t *count);
/* One reference less. -ERANGE: it has none. */
must_use int co_qcow2_shadow_lower(struct qcow2_shadow *s, uint64_t cluster);

/* Writes @words as a table of big-endian ones at @offset, zeroes behind them up to @bytes. */
must_use int co_qcow2_write_words(struct qcow2 *q, const uint64_t *words, uint64_t count,
                                  uint64_t offset, uint64_t bytes);
/* Writes the new blocks and the new table, and makes them and all that was written durable. */
must_use int co_qcow2_shadow_write(struct qcow2_shadow *s);
/* The header names it (qcow2_shadow.table): what it counts no more is free, *freed its bytes; the
 * old structure is given back. */
void co_qcow2_shadow_taken(struct qcow2_shadow *s, uint64_t *freed);
/* The header was not written: its space is given back. */
void co_qcow2_shadow_undo(struct qcow2_shadow *s);
/* Frees the memory; whether the header names it or not, it forgets the pages of the new blocks. */
void co_qcow2_shadow_drop(struct qcow2_shadow *s);

/* Clusters whose counts became zero: punched, then free to be found. */
void co_qcow2_freed(struct qcow2 *q, uint64_t first, uint64_t count);

#endif

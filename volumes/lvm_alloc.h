/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_alloc.h - what the files share that change a group: claims on extents, and extents taken. */
#ifndef VOLUMES_LVM_ALLOC_H
#define VOLUMES_LVM_ALLOC_H

#include "volumes/lvm_change.h"

/* Extents of a physical volume that a segment of @lv lies on. */
struct lvm_claim {
    const struct lvm_pv *pv;
    const struct lvm_lv *lv;
    uint64_t extent, extents;
};
/* lvm_check.c: all of a group, by volume and extent. Gives *out (mem_free). */
must_use int lvm_claims(const struct lvm_vg *vg, struct lvm_claim **out, size_t *count,
                        struct blk_error *e);

/* Segments to be: of each its extents, and w->stripes places. */
struct lvm_pieces {
    size_t count;
    uint64_t *extents;
    struct lvm_area *areas;
};
/* Finds what @w wants. @behind: where a volume that grows ends, NULL: it is new. -ENOSPC. Gives
 * *out, to be dropped. */
must_use int lvm_take_extents(const struct lvm_vg *vg, const struct lvm_wanted *w,
                              const struct lvm_area *behind, struct lvm_pieces *out,
                              struct blk_error *e);
void lvm_pieces_drop(struct lvm_pieces *p);

/* lvm_change_lv.c: @name may be given to a new volume, or to one that gets another. */
must_use int lvm_check_new(const struct lvm_vg *vg, const char *name, bool hidden,
                           struct blk_error *e);
/* -ENOMEM gets its words; what is not negative is 0. */
int lvm_no_memory(int rc, struct blk_error *e);
/* A volume in the text without segments; the first or next segment of one, which
 * has its extents and no type yet. NULL: no memory. */
struct lvm_node *lvm_put_lv(struct lvm_vg *vg, const struct lvm_volume_new *n);
struct lvm_node *lvm_put_segment(struct lvm_text *t, struct lvm_node *lv, unsigned number,
                                 uint64_t start, uint64_t extents);
/* Segments of @pieces behind @number others that end at extent @start. */
must_use int lvm_put_pieces(struct lvm_text *t, struct lvm_node *lv, const struct lvm_wanted *w,
                            const struct lvm_pieces *p, unsigned number, uint64_t start);

#endif

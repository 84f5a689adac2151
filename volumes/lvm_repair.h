/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_repair.h - images of arrays that lie on lost physical volumes: new places for them, and back
 * into the array. What is left then is recovery, the array's own (raid/sync.c). */
#ifndef VOLUMES_LVM_REPAIR_H
#define VOLUMES_LVM_REPAIR_H

#include "volumes/lvm_commit.h"

/* All images of the array @lv that are lost get new places on @only (NULL: on any), while the array
 * is open nowhere in @s; *count of them. Durable when it returns. Takes *vg, and gives the model of
 * what was written; on failure *vg stays. */
struct lvm_repair {
    const char *lv;
    struct lvm_pv **only;
    size_t only_count;
    const char *why; /* for people */
};
must_use int co_lvm_images_replace(struct lvm_set *s, struct lvm_vg **vg,
                                   const struct lvm_repair *r, unsigned *count,
                                   struct blk_error *e);
/* Images that were away, or are new, take their places in the array @lv: what they hold counts once
 * it has been filled. The text loses its marks of new ones. As above. */
must_use int co_lvm_images_take(struct lvm_set *s, struct lvm_vg **vg, const struct lvm_repair *r,
                                struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_commit.h - what is written to physical volumes: labels, and the text of a group. */
#ifndef VOLUMES_LVM_COMMIT_H
#define VOLUMES_LVM_COMMIT_H

#include "volumes/lvm.h"
#include "volumes/lvm_change.h"

/* Makes @dev a physical volume of no group: its first MiB is lost. Durable when it returns. */
must_use int co_lvm_pv_create(struct blk_device *dev, struct blk_error *e);
/* Clears the label of @m, which is in no group: it is none any more. */
must_use int co_lvm_pv_remove(struct lvm_member *m, struct blk_error *e);
/* Adds @m, which is in no group, to the text of @vg. */
must_use int lvm_vg_add_member(struct lvm_vg *vg, const struct lvm_member *m, struct blk_error *e);

/* Writes what @vg says now: a group of @s, a copy of one, or a new one. @why: for people. Durable
 * when it returns; after an error or a crash the old text counts, or the new one. Takes *vg, and
 * gives the model of what was written, which is in @s; on failure *vg stays the caller's. */
must_use int co_lvm_commit(struct lvm_set *s, struct lvm_vg **vg, const char *why,
                           struct blk_error *e);
/* @m, whose physical volume is no longer in a text of its group, is in none. */
must_use int co_lvm_release(struct lvm_member *m, struct blk_error *e);
/* The group is no more; its physical volumes are in none. */
must_use int co_lvm_vg_remove(struct lvm_set *s, struct lvm_vg *vg, struct blk_error *e);
/* Of the host's random numbers. */
void lvm_uuid_new(struct host *h, char uuid[LVM_UUID + 1]);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_pool.h - thin pools of a group made and changed (lvm_pool.c has the order). */
#ifndef VOLUMES_LVM_POOL_H
#define VOLUMES_LVM_POOL_H

#include "volumes/lvm_commit.h"
#include "volumes/lvm_thin.h"

/* The metadata of the new pool @pool in @vg, a copy of a group of @s; before it is committed. */
must_use int co_lvm_pool_format(struct lvm_set *s, struct lvm_vg *vg, const char *pool,
                                struct blk_error *e);
/* Messages that wait in the text of *vg, a group of @s, are carried out and taken out of the text.
 * *vg is another model then. Nothing if there are none. */
must_use int co_lvm_pool_settle(struct lvm_set *s, struct lvm_vg **vg, const char *pool,
                                const char *why, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_thin.h - thin pools of a group while they are open. */
#ifndef VOLUMES_LVM_THIN_H
#define VOLUMES_LVM_THIN_H

#include "volumes/lvm.h"
#include "volumes/thin_pool.h"

/* The pool @pool as a device of driver "thin", which the set keeps: *out is borrowed. */
must_use int co_lvm_pool_find(const struct lvm_opening *o, struct lvm_lv *pool,
                              struct blk_device **out);

#endif

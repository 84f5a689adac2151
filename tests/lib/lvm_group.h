/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_group.h - a volume group for a test, and its volume. */
#ifndef TESTS_LIB_LVM_GROUP_H
#define TESTS_LIB_LVM_GROUP_H

#include "volumes/lvm.h"

/* The group "vg" of all members of @s, which hold none yet, with extents of so many bytes,
 * committed. *vg stays the set's. */
must_use int co_lvm_group_make(struct lvm_set *s, uint64_t extent_bytes, struct lvm_vg **vg,
                               struct blk_error *e);

/* "vg/lv" of the container @set, which becomes a child of it, so that who has the volume finds it.
 * Takes @set. Gives *out. */
must_use int co_lvm_volume_open(struct blk_device *set, struct blk_device **out,
                                struct blk_error *e);

#endif

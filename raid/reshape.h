/* SPDX-License-Identifier: BSD-3-Clause */
/* reshape.h - arrays that change their shape: what md left in the middle of it is read, and goes on
 * where only the number of members or the place of their data changes; levels 4, 5 and 6 get more
 * members. (Source: the facts of md 1.x superblocks, "reshape active"; docs/raid.md.)
 *
 * The array is seen as two, its *views*, over the same members: as it was and as it will be, whose
 * data begins elsewhere. A position divides them. */
#ifndef RAID_RESHAPE_H
#define RAID_RESHAPE_H

#include "raid/array.h"

/* Of an array whose superblocks say that it is being reshaped; a->shape is the old one. Takes the
 * place of a->engine. -ENOTSUP and a sentence: mdadm's backup file would be needed. */
must_use int raid_reshape_open(struct raid_array *a, struct blk_error *e);
void raid_reshape_drop(struct raid_array *a);
/* @own, of a member that missed the update of @array in which a reshape began or ended, says where
 * its data lies now. True: the reshape has just begun, and a member that it adds misses nothing. */
bool raid_reshape_catch_up(const struct md_super *array, struct md_super *own);
/* For info: from and to how many members, and how far. NULL: out of memory. */
json_t *raid_reshape_facts(const struct raid_array *a);
/* A member of the array in both views: whether they go on without it; it is out of them. */
bool raid_reshape_can_spare(const struct raid_array *a, const struct raid_member *m);
/* A strip of a view could be written only in part, or was lost. */
bool raid_reshape_torn(const struct raid_array *a);
void raid_reshape_forget(struct raid_array *a, const struct raid_member *m);
/* Whether it can be written to and go on; else one sentence. */
must_use int raid_reshape_may_write(const struct raid_array *a, struct blk_error *e);
/* Gated: begins to spread the array over @disks members, which spares become. */
must_use int co_array_reshape_begin(struct raid_array *a, unsigned disks, struct blk_error *e);
/* A step; with the last the array has its new shape and size, and another engine. */
must_use int co_array_reshape_step(struct raid_array *a, struct blk_sync *s, struct blk_error *e);

#endif

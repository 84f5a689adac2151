/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror.h - what mirror.c and mirror_sync.c share: levels 1 and 10. */
#ifndef RAID_MIRROR_H
#define RAID_MIRROR_H

#include "raid/array.h"

/* One piece that lies together in all copies, from the first that can be read; those that could not
 * are written back. Under the lock of its range. */
int co_mirror_read_piece(struct raid_array *a, uint64_t offset, const struct vec *to);

/* How many of @bytes from @offset on lie together in every copy, and are all bad there, or all not.
 */
uint64_t mirror_together(const struct raid_array *a, uint64_t offset, uint64_t bytes);

/* struct raid_engine's */
int co_mirror_resync(struct raid_array *a, uint64_t offset, uint64_t bytes);
int co_mirror_rebuild(struct raid_array *a, struct raid_member *member, uint64_t offset,
                      uint64_t bytes);
int co_mirror_scrub(struct raid_array *a, uint64_t offset, uint64_t bytes, bool repair,
                    struct raid_scrub *found);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* alike.c - two devices compared by what their layers know (alike.h). */
#include "block/alike.h"

/* What @dev (NULL: nothing) shows: *zero, for *bytes from @offset on. */
static int co_status(struct blk_device *dev, uint64_t offset, uint64_t *bytes, bool *zero)
{
    struct blk_extent ext;
    unsigned depth;
    *zero = true;
    if (!dev || offset >= dev->size)
        return 0;
    *bytes = MIN(*bytes, dev->size - offset);
    TRY(co_blk_map_chain(dev, NULL, offset, *bytes, &ext, &depth));
    *bytes = ext.bytes;
    *zero = ext.flags & BLK_EXT_ZERO;
    return 0;
}

/* True if both show the same place of the same file. */
static bool same_place(struct blk_device *first, struct blk_device *second, uint64_t offset,
                       uint64_t *bytes)
{
    struct blk_place a, b;
    if (!blk_resolve(first, offset, *bytes, false, &a) ||
        !blk_resolve(second, offset, *bytes, false, &b))
        return false;
    const struct host_stat *sa = &a.file->stat, *sb = &b.file->stat;
    if (a.offset != b.offset || sa->device != sb->device || sa->inode != sb->inode)
        return false;
    *bytes = MIN(a.bytes, b.bytes);
    return true;
}

int co_blk_alike(struct blk_device *first, struct blk_device *second, uint64_t offset,
                 uint64_t *bytes, struct blk_alike *out)
{
    TRY(co_status(first, offset, bytes, &out->first_zero));
    TRY(co_status(second, offset, bytes, &out->second_zero));
    out->same = (out->first_zero && out->second_zero) ||
                (!out->first_zero && !out->second_zero && same_place(first, second, offset, bytes));
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap_carry.c - dirty bitmaps go along when another image becomes the device: what was changed
 * since the last backup is a fact about the disk, whichever image holds it.
 *
 * While nobody changes anything, for each bitmap of the old device that can be read:
 *
 *   1 one of that name in the new image is removed
 *   2 a new one is made there that begins with what the old one says; durable
 *
 * So at no time is there one that says less than was changed. The old image keeps its own. A
 * failure is the caller's to tell: the old device still is the device then. */
#include "block/live.h"

static bool is_there(const struct blk_bitmap *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].name, name) == 0)
            return true;
    return false;
}

static int co_carry_one(struct blk_device *from, struct blk_device *to, const struct blk_bitmap *b,
                        bool replaces, struct blk_error *e)
{
    struct blk_bitmap_change remove = {.action = BLK_BITMAP_REMOVE, .name = b->name};
    struct blk_bitmap_change add = {.action = BLK_BITMAP_ADD,
                                    .name = b->name,
                                    .granularity = b->granularity,
                                    .disabled = !b->enabled,
                                    .source = from,
                                    .source_name = b->name};
    if (replaces)
        TRY(co_blk_bitmap_change(to, &remove, e)); /* 1 */
    return co_blk_bitmap_change(to, &add, e);      /* 2 */
}

int co_live_carry_bitmaps(struct blk_device *from, struct blk_device *to, struct blk_error *e)
{
    struct blk_bitmap *list, *have = NULL;
    struct blk_error none = {0};
    size_t count, had = 0;
    int rc = co_blk_bitmap_list(from, &list, &count, &none);
    if (rc == -ENOTSUP || (rc == 0 && count == 0))
        return 0;
    if (rc < 0)
        return err_set(e, rc, "%s", none.text);
    rc = co_blk_bitmap_list(to, &have, &had, &none);
    for (size_t i = 0; i < count && rc == 0; i++)
        if (!list[i].inconsistent && !list[i].foreign)
            rc = co_carry_one(from, to, &list[i], is_there(have, had, list[i].name), e);
    blk_bitmaps_drop(have, had);
    blk_bitmaps_drop(list, count);
    return rc == -ENOTSUP ? 0 : rc; /* the format keeps none */
}

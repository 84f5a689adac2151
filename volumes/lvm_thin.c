/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_thin.c - thin volumes: the driver "thin" over the pool's two hidden volumes, opened once for
 * all volumes of the pool, and in it the device that the text names by number.
 *
 * The text and the pool's superblock count transactions; where they differ, or messages wait in the
 * text, a change was cut off between the two: then the pool is only read. */
#include <stdio.h>

#include "volumes/lvm_thin.h"

/* Quota and reserve of a volume are tags: lamina.quota=10G. */
static int add_tag(const struct lvm_lv *lv, const char *key, char **name)
{
    auto_free char *front = mem_printf("lamina.%s=", key);
    const struct lvm_node *tags = lvm_find(lv->node, "tags", LVM_LIST);
    for (const struct lvm_node *n = front && tags ? tags->first : NULL; n; n = n->next) {
        if (n->kind != LVM_STRING || strncmp(n->text, front, strlen(front)) != 0)
            continue;
        char *longer = mem_printf("%s,%s=%s", *name, key, n->text + strlen(front));
        mem_free(*name);
        *name = longer;
        return longer ? 0 : -ENOMEM;
    }
    return front ? 0 : -ENOMEM;
}

/* What the driver calls the volume: "7,size=...". */
static int inner_name(const struct lvm_opening *o, uint32_t id, char **out)
{
    *out = mem_printf("%u,size=%" PRIu64, id, lvm_lv_bytes(o->vg, o->lv));
    if (*out && add_tag(o->lv, "quota", out) == 0 && add_tag(o->lv, "reserve", out) == 0)
        return 0;
    return err_set(o->e, -ENOMEM, "out of memory");
}

/* --- the pool ----------------------------------------------------------------------------------
 */

static int may_write(const struct lvm_opening *o, const struct lvm_segment *seg,
                     const struct blk_device *pool)
{
    uint64_t there = thin_pool_of((struct blk_device *)pool)->meta.super.transaction;
    if (!(o->dev->open_flags & BLK_OPEN_WRITE) || (there == seg->transaction_id && !seg->messages))
        return 0;
    return err_set(o->e, -EROFS,
                   "%s/%s cannot be written to: its pool is at transaction %" PRIu64
                   ", and the group says %" PRIu64 "%s: let LVM2 mend that, or open it read-only",
                   o->vg->name, o->lv->name, there, seg->transaction_id,
                   seg->messages ? " with messages waiting" : "");
}

static int co_open_pool(const struct lvm_opening *o, const struct lvm_segment *seg,
                        struct lvm_lv *external, struct blk_device **out)
{
    const struct blk_driver *thin = blk_find_driver(blk_drivers, "thin");
    struct blk_child parts[3] = {{"metadata", NULL}, {"data", NULL}, {"origin", NULL}};
    struct lvm_lv *const on[] = {seg->metadata, seg->data, external};
    size_t count = external ? 3 : 2, opened = 0;
    int rc = thin ? 0 : err_set(o->e, -ENOTSUP, "this build has no driver \"thin\"");
    for (; rc == 0 && opened < count; opened += rc == 0)
        rc = co_lvm_open_below(o, on[opened], &parts[opened].dev);
    if (rc == 0)
        return co_blk_open(thin, o->lv->name, NULL, o->dev->open_flags, NULL, parts, count, out,
                           o->e);
    while (opened-- > 0)
        co_blk_close(parts[opened].dev, NULL);
    return rc;
}

/* The set keeps it, so that volumes of one pool share it. *out is borrowed. */
static int co_find_pool(const struct lvm_opening *o, struct lvm_lv *pool, struct lvm_lv *external,
                        struct blk_device **out)
{
    const struct lvm_opened *open = lvm_opened_find(o->set, pool);
    if (open && open->external != external && o->dev->open_flags & BLK_OPEN_WRITE)
        return err_set(o->e, -EBUSY, "the pool of %s is open with another external origin",
                       o->lv->name);
    if (open && open->external == external) {
        *out = open->dev;
        return 0;
    }
    TRY(co_open_pool(o, &pool->segments[0], external, out));
    return co_lvm_opened_add(o, &(struct lvm_opened){pool, external, *out});
}

int co_lvm_pool_find(const struct lvm_opening *o, struct lvm_lv *pool, struct blk_device **out)
{
    return co_find_pool(o, pool, NULL, out);
}

/* --- a volume ----------------------------------------------------------------------------------
 */

int co_lvm_thin_open(const struct lvm_opening *o)
{
    const struct lvm_segment *s = &o->lv->segments[0];
    struct blk_device *pool, *inner;
    auto_free char *name = NULL;
    if (o->lv->segment_count > 1 || s->pool->segments[0].type->what != LVM_POOL)
        return err_set(o->e, -EINVAL, "%s/%s is no single segment in a thin pool", o->vg->name,
                       o->lv->name);
    TRY(inner_name(o, s->device_id, &name));
    TRY(co_find_pool(o, s->pool, s->external_origin, &pool));
    TRY(may_write(o, &s->pool->segments[0], pool));
    TRY(co_blk_inner_open(pool, name, &inner, o->e));
    TRY(co_lvm_keep_child(o, inner));
    TRY(co_lvm_show(o, inner));
    o->dev->limits = inner->limits; /* what was never written reads as zero */
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_change_thin.c - thin pools and thin volumes made and removed in the text. */
#include <stdio.h>

#include "volumes/lvm_alloc.h"

#define DEVICE_ID_MOST ((1 << 24) - 1)

/* --- a pool ------------------------------------------------------------------------------------
 */

/* A hidden volume; *vg is read anew, so that the next one sees the extents that it took. */
static int add_part(struct lvm_vg **vg, const char *pool, const char *ending, const char *uuid,
                    const struct lvm_wanted *space, struct blk_error *e)
{
    struct lvm_vg *next;
    auto_free char *name = mem_printf("%s_%s", pool, ending);
    struct lvm_volume_new n = {.name = name, .uuid = uuid, .space = *space, .hidden = true};
    if (!name)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(lvm_lv_create(*vg, &n, e));
    TRY(lvm_vg_copy(*vg, &next, e));
    lvm_vg_drop(*vg);
    *vg = next;
    return 0;
}

static int put_pool(struct lvm_vg *vg, const struct lvm_pool_new *n, const char *metadata,
                    const char *data)
{
    struct lvm_text *t = &vg->text;
    struct lvm_volume_new lv = {.name = n->name, .uuid = n->uuids[0]};
    struct lvm_node *node = lvm_put_lv(vg, &lv);
    struct lvm_node *seg = node ? lvm_put_segment(t, node, 1, 0, n->data.extents) : NULL;
    if (!seg)
        return -ENOMEM;
    TRY(lvm_set_number(t, node, "segment_count", 1));
    TRY(lvm_set_text(t, seg, "type", "thin-pool"));
    TRY(lvm_set_text(t, seg, "metadata", metadata));
    TRY(lvm_set_text(t, seg, "pool", data));
    TRY(lvm_set_number(t, seg, "transaction_id", 0));
    TRY(lvm_set_number(t, seg, "chunk_size", n->chunk_bytes / LVM_SECTOR));
    TRY(lvm_set_text(t, seg, "discards", "passdown"));
    return lvm_set_number(t, seg, "zero_new_blocks", 1);
}

int lvm_pool_create(struct lvm_vg **vg, const struct lvm_pool_new *n, struct blk_error *e)
{
    auto_free char *metadata = mem_printf("%s_tmeta", n->name);
    auto_free char *data = mem_printf("%s_tdata", n->name);
    if (!metadata || !data)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(lvm_check_new(*vg, n->name, false, e));
    TRY(add_part(vg, n->name, "tmeta", n->uuids[1], &n->metadata, e));
    TRY(add_part(vg, n->name, "tdata", n->uuids[2], &n->data, e));
    return lvm_no_memory(put_pool(*vg, n, metadata, data), e);
}

/* --- messages ----------------------------------------------------------------------------------
 */

/* The pool's next transaction, with one message: to create @lv, or else to delete device @id. */
static int put_message(struct lvm_vg *vg, const struct lvm_lv *pool, const char *lv, uint32_t id)
{
    const struct lvm_segment *s = &pool->segments[0];
    TRY(lvm_set_number(&vg->text, s->node, "transaction_id", s->transaction_id + 1));
    struct lvm_node *message = lvm_add(&vg->text, s->node, LVM_SECTION, "message1");
    if (!message)
        return -ENOMEM;
    return lv ? lvm_set_text(&vg->text, message, "create", lv)
              : lvm_set_number(&vg->text, message, "delete", id);
}

static int must_be_settled(const struct lvm_vg *vg, const struct lvm_lv *pool, struct blk_error *e)
{
    if (pool->segments[0].type->what != LVM_POOL)
        return err_set(e, -EINVAL, "%s/%s is not a thin pool", vg->name, pool->name);
    const char *fixed =
        pool->weight > LVM_WEIGHT_MOST ? "it stands on too many volumes" : lvm_part_fixed(pool);
    if (fixed)
        return err_set(e, -EROFS, "%s/%s cannot be changed: %s", vg->name, pool->name, fixed);
    assert(!pool->segments[0].messages); /* co_lvm_pool_settle() came first */
    return 0;
}

void lvm_messages_drop(struct lvm_lv *pool)
{
    struct lvm_node *seg = pool->segments[0].node, *next;
    for (struct lvm_node *n = seg->first; n; n = next) {
        next = n->next;
        if (n->kind == LVM_SECTION && strncmp(n->name, "message", 7) == 0)
            lvm_remove(seg, n);
    }
}

/* --- a volume ----------------------------------------------------------------------------------
 */

/* One that no volume of the pool has. */
static uint32_t free_device_id(const struct lvm_vg *vg, const struct lvm_lv *pool)
{
    uint32_t most = 0;
    for (size_t i = 0; i < vg->lv_count; i++) {
        const struct lvm_segment *s = &vg->lvs[i].segments[0];
        if (s->type->what == LVM_THIN && s->pool == pool)
            most = MAX(most, s->device_id);
    }
    return most + 1;
}

static int put_thin(struct lvm_vg *vg, const struct lvm_thin_new *n, uint32_t id)
{
    struct lvm_text *t = &vg->text;
    struct lvm_volume_new lv = {.name = n->name, .uuid = n->uuid};
    struct lvm_node *node = lvm_put_lv(vg, &lv);
    struct lvm_node *seg = node ? lvm_put_segment(t, node, 1, 0, n->extents) : NULL;
    if (!seg)
        return -ENOMEM;
    if (n->origin) /* as LVM2 makes them: not activated with the others */
        TRY(lvm_list_add(t, lvm_find(node, "flags", LVM_LIST), "ACTIVATION_SKIP"));
    TRY(lvm_set_number(t, node, "segment_count", 1));
    TRY(lvm_set_text(t, seg, "type", "thin"));
    TRY(lvm_set_text(t, seg, "thin_pool", n->pool->name));
    TRY(lvm_set_number(t, seg, "transaction_id", n->pool->segments[0].transaction_id));
    TRY(lvm_set_number(t, seg, "device_id", id));
    if (n->origin)
        TRY(lvm_set_text(t, seg, "origin", n->origin->name));
    return put_message(vg, n->pool, n->name, id);
}

int lvm_thin_create(struct lvm_vg *vg, const struct lvm_thin_new *n, struct blk_error *e)
{
    uint64_t bytes;
    TRY(lvm_check_new(vg, n->name, false, e));
    TRY(must_be_settled(vg, n->pool, e));
    if (n->extents == 0 || !mul_u64(n->extents, vg->extent_bytes, &bytes) || bytes > INT64_MAX)
        return err_set(e, -EINVAL, "a volume of %" PRIu64 " extents cannot be made", n->extents);
    uint32_t id = free_device_id(vg, n->pool);
    if (id > DEVICE_ID_MOST)
        return err_set(e, -ENOSPC, "all numbers of volumes in %s are taken", n->pool->name);
    return lvm_no_memory(put_thin(vg, n, id), e);
}

/* Snapshots of it stay; they name no origin any more. */
int lvm_thin_remove(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e)
{
    const struct lvm_segment *s = &lv->segments[0];
    TRY(must_be_settled(vg, s->pool, e));
    for (size_t i = 0; i < vg->lv_count; i++) {
        struct lvm_segment *other = &vg->lvs[i].segments[0];
        if (other->type->what == LVM_THIN && other->external_origin == lv)
            return err_set(e, -EBUSY, "%s/%s is the external origin of %s", vg->name, lv->name,
                           vg->lvs[i].name);
        if (other->type->what == LVM_THIN && other->origin == lv)
            lvm_remove(other->node, lvm_find(other->node, "origin", LVM_STRING));
    }
    lvm_remove(lvm_find(vg->node, "logical_volumes", LVM_SECTION), lv->node);
    return lvm_no_memory(put_message(vg, s->pool, NULL, s->device_id), e);
}

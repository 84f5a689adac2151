/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_pool.c - a thin pool's own metadata follows the text of its group.
 *
 * Order of a new pool:
 *  1 its metadata is written into extents that no text knows of, flushed
 *  2 the text is committed, with the pool and its two parts
 * Order of a change of what is in it:
 *  1 the text is committed: it says the change, the next transaction and a message
 *  2 the pool does what the message says and takes the transaction's number, in one commit
 *  3 the text is committed without the message
 * Cut off between 1 and 2 or between 2 and 3, the message waits: the next change here, or LVM2 when
 * it activates the pool, compares the two numbers and does what is left. */
#include "volumes/lvm_pool.h"

/* --- a new pool --------------------------------------------------------------------------------
 */

int co_lvm_pool_format(struct lvm_set *s, struct lvm_vg *vg, const char *pool, struct blk_error *e)
{
    struct lvm_vg *plan;
    struct blk_device *meta;
    TRY(lvm_vg_copy(vg, &plan, e));
    const struct lvm_segment *seg = &lvm_find_lv(plan, pool)->segments[0];
    uint64_t blocks = lvm_lv_bytes(plan, seg->data) / seg->chunk_bytes;
    int rc = co_lvm_open_planned(s, plan, seg->metadata->name, &meta, e);
    if (rc == 0) {
        rc = co_thin_format(meta, seg->chunk_bytes, blocks, e);
        if (rc == 0 && (rc = co_blk_flush(meta)) < 0)
            err_errno(e, rc, "the pool's metadata could not be written");
        int closed = co_blk_close(meta, rc ? NULL : e);
        rc = rc ? rc : closed;
    }
    lvm_vg_drop(plan);
    return rc;
}

/* --- messages ----------------------------------------------------------------------------------
 */

/* The device that "create" is about: an empty one, or a snapshot. */
static int co_create_device(struct thin_meta *m, const struct lvm_vg *vg, const char *name)
{
    const struct lvm_lv *lv = lvm_find_lv(vg, name);
    const struct lvm_segment *s = lv ? &lv->segments[0] : NULL;
    if (!s || s->type->what != LVM_THIN)
        return -EINVAL;
    return s->origin ? co_thin_snap(m, s->device_id, s->origin->segments[0].device_id)
                     : co_thin_create(m, s->device_id);
}

static bool is_message(const struct lvm_node *n)
{
    return n->kind == LVM_SECTION && strncmp(n->name, "message", 7) == 0;
}

/* Metadata blocks that the messages may take. */
static uint64_t blocks_for(const struct lvm_segment *pool)
{
    uint64_t count = 0;
    for (const struct lvm_node *n = pool->node->first; n; n = n->next)
        count += is_message(n);
    return count * 24;
}

static int co_apply(struct thin_meta *m, const struct lvm_vg *vg, const struct lvm_segment *pool)
{
    for (const struct lvm_node *n = pool->node->first; n; n = n->next) {
        uint64_t id;
        const char *create = is_message(n) ? lvm_find_text(n, "create") : NULL;
        if (!is_message(n))
            continue;
        if (create)
            TRY(co_create_device(m, vg, create));
        else if (lvm_find_number(n, "delete", &id) && id <= UINT32_MAX)
            TRY(co_thin_delete(m, (uint32_t)id));
        else
            return -EINVAL;
    }
    m->super.transaction = pool->transaction_id;
    return 0;
}

/* All messages and the number, in one commit of the pool. */
static int co_do_messages(struct blk_device *dev, const struct lvm_vg *vg,
                          const struct lvm_segment *seg, struct blk_error *e)
{
    struct thin_pool *p = thin_pool_of(dev);
    uint64_t there = p->meta.super.transaction;
    if (there == seg->transaction_id) /* they are done */
        return 0;
    if (there + 1 != seg->transaction_id)
        return err_set(e, -EUCLEAN,
                       "the pool is at transaction %" PRIu64 ", and the group says %" PRIu64, there,
                       seg->transaction_id);
    int rc = co_pool_begin(p, blocks_for(seg), true);
    if (rc == 0) {
        uint64_t before = p->meta.changes;
        rc = co_pool_end(p, before, co_apply(&p->meta, vg, seg));
    }
    if (rc == 0)
        rc = co_thin_commit(&p->meta);
    return rc < 0 ? err_errno(e, rc,
                              "the pool could not make or delete the volumes that the group says")
                  : 0;
}

static int co_tell_pool(struct lvm_set *s, struct lvm_vg *vg, struct lvm_lv *pool,
                        struct blk_error *e)
{
    struct lvm_opening o = {.set = s, .vg = vg, .lv = pool, .dev = s->dev, .e = e};
    struct blk_device *dev;
    with_lock(&s->opening);
    int rc = co_lvm_pool_find(&o, pool, &dev);
    if (rc == 0)
        rc = co_do_messages(dev, vg, &pool->segments[0], e);
    int closed = co_lvm_opened_close(s, rc ? NULL : e);
    return rc ? rc : closed;
}

int co_lvm_pool_settle(struct lvm_set *s, struct lvm_vg **vg, const char *pool, const char *why,
                       struct blk_error *e)
{
    struct lvm_lv *lv = lvm_find_lv(*vg, pool);
    struct lvm_vg *copy;
    if (!lv || !lv->segments[0].messages)
        return 0;
    if (lv->weight > LVM_WEIGHT_MOST || lvm_part_fixed(lv))
        return err_set(e, -EROFS,
                       "messages wait for %s/%s, which cannot be written to here: let "
                       "LVM2 carry them out",
                       (*vg)->name, pool);
    TRY(co_tell_pool(s, *vg, lv, e));
    TRY(lvm_vg_copy(*vg, &copy, e));
    lvm_messages_drop(lvm_find_lv(copy, pool));
    int rc = co_lvm_commit(s, &copy, why, e);
    if (rc < 0)
        lvm_vg_drop(copy);
    else
        *vg = copy;
    return rc;
}

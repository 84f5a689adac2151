/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_change_lv.c - logical volumes made, resized, renamed and removed in the text. */
#include <stdio.h>

#include "volumes/lvm_alloc.h"

int lvm_no_memory(int rc, struct blk_error *e)
{
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

/* --- segments ----------------------------------------------------------------------------------
 */

static int put_places(struct lvm_text *t, struct lvm_node *seg, const struct lvm_area *areas,
                      unsigned count)
{
    struct lvm_node *list = lvm_add(t, seg, LVM_LIST, "stripes");
    if (!list)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        TRY(lvm_list_add(t, list, areas[i].pv->name));
        struct lvm_node *n = lvm_add(t, list, LVM_NUMBER, NULL);
        if (!n)
            return -ENOMEM;
        n->number = (int64_t)areas[i].extent;
    }
    return 0;
}

struct lvm_node *lvm_put_segment(struct lvm_text *t, struct lvm_node *lv, unsigned number,
                                 uint64_t start, uint64_t extents)
{
    char name[24];
    snprintf(name, sizeof(name), "segment%u", number);
    struct lvm_node *seg = lvm_add(t, lv, LVM_SECTION, name);
    if (!seg || lvm_set_number(t, seg, "start_extent", start) < 0 ||
        lvm_set_number(t, seg, "extent_count", extents) < 0)
        return NULL;
    return seg;
}

int lvm_put_pieces(struct lvm_text *t, struct lvm_node *lv, const struct lvm_wanted *w,
                   const struct lvm_pieces *p, unsigned number, uint64_t start)
{
    for (size_t i = 0; i < p->count; i++) {
        struct lvm_node *seg = lvm_put_segment(t, lv, ++number, start, p->extents[i]);
        if (!seg)
            return -ENOMEM;
        TRY(lvm_set_text(t, seg, "type", "striped"));
        TRY(lvm_set_number(t, seg, "stripe_count", w->stripes));
        if (w->stripes > 1)
            TRY(lvm_set_number(t, seg, "stripe_size", w->stripe_bytes / LVM_SECTOR));
        TRY(put_places(t, seg, &p->areas[i * w->stripes], w->stripes));
        start += p->extents[i];
    }
    return lvm_set_number(t, lv, "segment_count", number);
}

int lvm_check_new(const struct lvm_vg *vg, const char *name, bool hidden, struct blk_error *e)
{
    if (!hidden)
        TRY(lvm_check_name(name, true, e));
    if (!lvm_find_lv(vg, name))
        return 0;
    return err_set(e, -EEXIST, "Logical Volume \"%s\" already exists in volume group \"%s\"", name,
                   vg->name);
}

/* --- making ------------------------------------------------------------------------------------
 */

struct lvm_node *lvm_put_lv(struct lvm_vg *vg, const struct lvm_volume_new *n)
{
    struct lvm_text *t = &vg->text;
    char uuid[LVM_UUID_TEXT];
    struct lvm_node *in = lvm_find(vg->node, "logical_volumes", LVM_SECTION);
    if (!in)
        in = lvm_add(t, vg->node, LVM_SECTION, "logical_volumes");
    struct lvm_node *lv = in ? lvm_add(t, in, LVM_SECTION, n->name) : NULL;
    struct lvm_node *status = NULL;
    lvm_uuid_text(n->uuid, uuid);
    if (lv && lvm_set_text(t, lv, "id", uuid) == 0)
        status = lvm_add(t, lv, LVM_LIST, "status");
    if (!status || lvm_list_add(t, status, "READ") < 0 || lvm_list_add(t, status, "WRITE") < 0 ||
        (!n->hidden && lvm_list_add(t, status, "VISIBLE") < 0) ||
        !lvm_add(t, lv, LVM_LIST, "flags"))
        return NULL;
    return lv;
}

int lvm_lv_create(struct lvm_vg *vg, const struct lvm_volume_new *n, struct blk_error *e)
{
    struct lvm_pieces pieces;
    TRY(lvm_check_new(vg, n->name, n->hidden, e));
    if (n->space.stripes > 1 && vg->extent_bytes % n->space.stripe_bytes)
        return err_set(e, -EINVAL,
                       "stripes of %" PRIu64 " bytes do not fit into extents of %" PRIu64,
                       n->space.stripe_bytes, vg->extent_bytes);
    TRY(lvm_take_extents(vg, &n->space, NULL, &pieces, e));
    struct lvm_node *lv = lvm_put_lv(vg, n);
    int rc = lv ? lvm_put_pieces(&vg->text, lv, &n->space, &pieces, 0, 0) : -ENOMEM;
    lvm_pieces_drop(&pieces);
    return lvm_no_memory(rc, e);
}

/* --- resizing ----------------------------------------------------------------------------------
 */

static bool is_thin(const struct lvm_lv *lv)
{
    return lv->segment_count == 1 && lv->segments[0].type->what == LVM_THIN;
}

/* Of a thin volume or a pool, which have a size and no extents. */
static int set_extents(struct lvm_vg *vg, struct lvm_lv *lv, uint64_t extents, struct blk_error *e)
{
    return lvm_no_memory(lvm_set_number(&vg->text, lv->segments[0].node, "extent_count", extents),
                         e);
}

static int must_be_plain(const struct lvm_vg *vg, const struct lvm_lv *lv, struct blk_error *e)
{
    for (unsigned i = 0; i < lv->segment_count; i++)
        if (lv->segments[i].type->what != LVM_STRIPED)
            return err_set(e, -ENOTSUP, "%s/%s is of type %.60s, which is not resized here",
                           vg->name, lv->name, lv->segments[i].type_name);
    return lv->has_snapshots || lv->snapshot
               ? err_set(e, -EBUSY, "%s/%s has or is a snapshot that copies on write", vg->name,
                         lv->name)
               : 0;
}

/* Where a linear segment ends. */
static struct lvm_area end_of(const struct lvm_segment *s)
{
    struct lvm_area end = s->areas[0];
    end.extent += s->extents;
    return end;
}

/* What lies right behind the last segment makes that longer. Takes the first of @p away. */
static int lengthen(struct lvm_text *t, const struct lvm_segment *last, struct lvm_pieces *p)
{
    struct lvm_area end = end_of(last);
    if (last->area_count > 1 || p->count == 0 || p->areas[0].pv != end.pv ||
        p->areas[0].extent != end.extent)
        return 0;
    TRY(lvm_set_number(t, last->node, "extent_count", last->extents + p->extents[0]));
    p->count--;
    memmove(p->areas, p->areas + 1, p->count * sizeof(*p->areas));
    memmove(p->extents, p->extents + 1, p->count * sizeof(*p->extents));
    return 1;
}

int lvm_lv_extend(struct lvm_vg *vg, struct lvm_lv *lv, const struct lvm_wanted *w,
                  struct blk_error *e)
{
    struct lvm_pieces pieces;
    const struct lvm_segment *last = &lv->segments[lv->segment_count - 1];
    struct lvm_wanted same = *w;
    if (is_thin(lv))
        return set_extents(vg, lv, lv->extents + w->extents, e);
    if (last->type->what == LVM_POOL) { /* it is as large as its data */
        TRY(lvm_lv_extend(vg, last->data, w, e));
        return set_extents(vg, lv, lv->extents + w->extents, e);
    }
    TRY(must_be_plain(vg, lv, e));
    struct lvm_area end = end_of(last);
    same.stripes = last->area_count;
    same.stripe_bytes = last->stripe_bytes;
    TRY(lvm_take_extents(vg, &same, same.stripes == 1 ? &end : NULL, &pieces, e));
    uint64_t first = pieces.extents[0], start = lv->extents;
    int rc = lengthen(&vg->text, last, &pieces);
    if (rc >= 0)
        rc = lvm_put_pieces(&vg->text, lv->node, &same, &pieces, lv->segment_count,
                            rc ? start + first : start);
    lvm_pieces_drop(&pieces);
    return lvm_no_memory(rc, e);
}

int lvm_lv_reduce(struct lvm_vg *vg, struct lvm_lv *lv, uint64_t extents, struct blk_error *e)
{
    unsigned count = lv->segment_count;
    if (is_thin(lv))
        return set_extents(vg, lv, extents, e);
    TRY(must_be_plain(vg, lv, e));
    assert(extents > 0 && extents < lv->extents);
    while (lv->segments[count - 1].start >= extents)
        lvm_remove(lv->node, lv->segments[--count].node);
    const struct lvm_segment *last = &lv->segments[count - 1];
    uint64_t kept = extents - last->start;
    if (kept % last->area_count)
        return err_set(e, -EINVAL, "%" PRIu64 " extents are not a multiple of %u stripes", kept,
                       last->area_count);
    TRY(lvm_no_memory(lvm_set_number(&vg->text, last->node, "extent_count", kept), e));
    return lvm_no_memory(lvm_set_number(&vg->text, lv->node, "segment_count", count), e);
}

/* --- who needs whom ----------------------------------------------------------------------------
 */

/* Keys of a segment that name logical volumes. */
static const char *const name_keys[] = {
    "metadata", "pool",       "thin_pool",     "origin",     "external_origin",
    "merge",    "cow_store",  "merging_store", "mirror_log", "cache_pool",
    "data",     "writecache", "vdo_pool",      "meta_dev",   NULL};
static const char *const list_keys[] = {"stripes", "mirrors", "raids", "raid0_lvs", NULL};

/* Calls @fn for each place in the text that names @lv. */
static int each_mention(struct lvm_vg *vg, const struct lvm_lv *lv,
                        int (*fn)(struct lvm_text *t, struct lvm_node *n, const void *arg),
                        const void *arg)
{
    int found = 0;
    for (size_t i = 0; i < vg->lv_count; i++)
        for (unsigned s = 0; s < vg->lvs[i].segment_count; s++) {
            struct lvm_node *seg = vg->lvs[i].segments[s].node;
            for (const char *const *k = name_keys; *k; k++) {
                struct lvm_node *n = lvm_find(seg, *k, LVM_STRING);
                if (n && strcmp(n->text, lv->name) == 0 && ++found)
                    TRY(fn(&vg->text, n, arg));
            }
            for (const char *const *k = list_keys; *k; k++) {
                struct lvm_node *list = lvm_find(seg, *k, LVM_LIST);
                for (struct lvm_node *n = list ? list->first : NULL; n; n = n->next)
                    if (n->kind == LVM_STRING && strcmp(n->text, lv->name) == 0 && ++found)
                        TRY(fn(&vg->text, n, arg));
            }
        }
    return found;
}

static int set_name(struct lvm_text *t, struct lvm_node *n, const void *name)
{
    return lvm_change_text(t, n, name);
}

static int nothing(struct lvm_text *t, struct lvm_node *n, const void *arg)
{
    return 0;
}

/* The parts of @lv: hidden volumes that it lies on. Calls @fn for each, deepest first. */
static int each_part(struct lvm_vg *vg, struct lvm_lv *lv,
                     int (*fn)(struct lvm_vg *vg, struct lvm_lv *part, const void *arg),
                     const void *arg)
{
    for (unsigned i = 0; i < lv->segment_count; i++) {
        const struct lvm_segment *s = &lv->segments[i];
        struct lvm_lv *const pool[] = {s->metadata, s->data};
        for (unsigned a = 0; a < s->area_count; a++) {
            struct lvm_lv *const parts[] = {s->areas[a].lv, s->metas ? s->metas[a].lv : NULL};
            for (size_t k = 0; k < ARRAY_LEN(parts); k++)
                if (parts[k] && !parts[k]->visible) {
                    TRY(each_part(vg, parts[k], fn, arg));
                    TRY(fn(vg, parts[k], arg));
                }
        }
        for (size_t k = 0; k < ARRAY_LEN(pool); k++)
            if (pool[k]) {
                TRY(each_part(vg, pool[k], fn, arg));
                TRY(fn(vg, pool[k], arg));
            }
    }
    return 0;
}

/* --- renaming ----------------------------------------------------------------------------------
 */

/* Of other types not all parts are known. */
static int must_be_known(const struct lvm_vg *vg, const struct lvm_lv *lv, struct blk_error *e)
{
    for (unsigned i = 0; i < lv->segment_count; i++) {
        enum lvm_what what = lv->segments[i].type->what;
        if (what == LVM_OTHER || what == LVM_MIRROR || what == LVM_SNAPSHOT)
            return err_set(e, -ENOTSUP, "%s/%s is of type %.60s, which is not changed here",
                           vg->name, lv->name, lv->segments[i].type_name);
    }
    return 0;
}

struct renaming {
    const char *from, *to;
};

/* OLD and OLD_tdata become NEW and NEW_tdata. */
static int rename_one(struct lvm_vg *vg, struct lvm_lv *lv, const void *arg)
{
    const struct renaming *r = arg;
    size_t len = strlen(r->from);
    if (strncmp(lv->name, r->from, len) != 0 || (lv->name[len] && lv->name[len] != '_'))
        return 0;
    auto_free char *name = mem_printf("%s%s", r->to, lv->name + len);
    if (!name)
        return -ENOMEM;
    TRY(each_mention(vg, lv, set_name, name));
    return lvm_rename(&vg->text, lv->node, name);
}

int lvm_lv_rename(struct lvm_vg *vg, struct lvm_lv *lv, const char *name, struct blk_error *e)
{
    struct renaming r = {lv->name, name};
    TRY(must_be_known(vg, lv, e));
    TRY(lvm_check_new(vg, name, false, e));
    int rc = each_part(vg, lv, rename_one, &r);
    if (rc >= 0)
        rc = rename_one(vg, lv, &r);
    return lvm_no_memory(rc, e);
}

/* --- removing ----------------------------------------------------------------------------------
 */

static int remove_one(struct lvm_vg *vg, struct lvm_lv *lv, const void *arg)
{
    lvm_remove(lvm_find(vg->node, "logical_volumes", LVM_SECTION), lv->node);
    return 0;
}

int lvm_lv_remove(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e)
{
    TRY(must_be_known(vg, lv, e));
    if (each_mention(vg, lv, nothing, NULL) > 0)
        return err_set(e, -EBUSY, "%s/%s is in use by another volume: remove that first", vg->name,
                       lv->name);
    TRY(each_part(vg, lv, remove_one, NULL));
    return remove_one(vg, lv, NULL);
}

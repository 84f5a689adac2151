/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_change_raid.c - what is lost with physical volumes that are not here: images of arrays get
 * other places in the text, or none; what has no redundancy leaves it. */
#include "volumes/lvm_alloc.h"

/* --- what lies where ---------------------------------------------------------------------------
 */

static bool stands_on(const struct lvm_lv *lv, bool (*is)(const struct lvm_pv *, const void *),
                      const void *arg);

static bool area_on(const struct lvm_area *a, bool (*is)(const struct lvm_pv *, const void *),
                    const void *arg)
{
    return a->pv ? is(a->pv, arg) : a->lv && stands_on(a->lv, is, arg);
}

/* True if a part of @lv lies on a physical volume of which @is is true. Goes no deeper than the
 * weight allows. */
static bool stands_on(const struct lvm_lv *lv, bool (*is)(const struct lvm_pv *, const void *),
                      const void *arg)
{
    for (unsigned i = 0; i < lv->segment_count; i++) {
        const struct lvm_segment *s = &lv->segments[i];
        const struct lvm_area named[] = {
            {.lv = s->metadata}, {.lv = s->data},
            {.lv = s->pool},     {.lv = s->external_origin},
            {.lv = s->store},    {.lv = s->type->what == LVM_SNAPSHOT ? s->origin : NULL}};
        for (unsigned a = 0; a < s->area_count; a++)
            if (area_on(&s->areas[a], is, arg) || (s->metas && area_on(&s->metas[a], is, arg)))
                return true;
        for (size_t k = 0; k < ARRAY_LEN(named); k++)
            if (area_on(&named[k], is, arg))
                return true;
    }
    return false;
}

static bool is_lost(const struct lvm_pv *pv, const void *arg)
{
    return lvm_pv_lost(pv);
}

static bool is_same(const struct lvm_pv *pv, const void *arg)
{
    return pv == arg;
}

static bool is_error(const struct lvm_lv *lv)
{
    for (unsigned i = 0; i < lv->segment_count; i++)
        if (lv->segments[i].type->what == LVM_ERROR)
            return true;
    return false;
}

/* --- images ------------------------------------------------------------------------------------
 */

/* The array that @lv is; NULL: it is none with superblocks that can be relied on. */
static const struct lvm_segment *array_of(const struct lvm_lv *lv)
{
    const struct lvm_segment *s = &lv->segments[0];
    bool is = lv->segment_count == 1 && s->type->what == LVM_RAID && s->metas && !s->reshaping &&
              strcmp(s->type->level, "0") != 0 && lv->weight <= LVM_WEIGHT_MOST;
    return is ? s : NULL;
}

static bool image_lost(const struct lvm_segment *s, unsigned i)
{
    const struct lvm_lv *parts[] = {s->areas[i].lv, s->metas[i].lv};
    for (size_t k = 0; k < ARRAY_LEN(parts); k++)
        if (stands_on(parts[k], is_lost, NULL) || is_error(parts[k]))
            return true;
    return false;
}

int lvm_image_lost(const struct lvm_vg *vg, const struct lvm_lv *lv, struct blk_error *e)
{
    const struct lvm_segment *s = array_of(lv);
    if (!s)
        return err_set(e, -EINVAL,
                       "%s/%s is of type %.60s, which has no images that could be replaced: raid1, "
                       "4, 5, 6 and 10 have",
                       vg->name, lv->name, lv->segments[0].type_name);
    for (unsigned i = 0; i < s->area_count; i++)
        if (image_lost(s, i))
            return (int)i;
    return -ENOENT;
}

/* Physical volumes that may take the image: no other one of the array lies there. */
static size_t find_allowed(const struct lvm_vg *vg, const struct lvm_segment *s, unsigned image,
                           const struct lvm_image_new *n, struct lvm_pv **out)
{
    size_t count = 0;
    for (size_t p = 0; p < vg->pv_count; p++) {
        const struct lvm_pv *pv = &vg->pvs[p];
        bool fit = !n->only;
        for (size_t i = 0; i < n->only_count; i++)
            fit |= strcmp(n->only[i]->name, pv->name) == 0;
        for (unsigned i = 0; i < s->area_count && fit; i++)
            fit = i == image || (!stands_on(s->areas[i].lv, is_same, pv) &&
                                 !stands_on(s->metas[i].lv, is_same, pv));
        if (fit && !lvm_pv_lost(pv))
            out[count++] = &vg->pvs[p];
    }
    return count;
}

static int put_status(struct lvm_text *t, struct lvm_node *lv, const char *word)
{
    struct lvm_node *status = lvm_find(lv, "status", LVM_LIST);
    return lvm_list_has(lv, "status", word) ? 0 : lvm_list_add(t, status, word);
}

static void drop_segments(struct lvm_lv *lv)
{
    for (unsigned i = 0; i < lv->segment_count; i++)
        lvm_remove(lv->node, lv->segments[i].node);
}

/* It becomes another volume of that name. */
static int move_part(struct lvm_vg *vg, struct lvm_lv *lv, const char *uuid,
                     const struct lvm_wanted *w, struct blk_error *e)
{
    char text[LVM_UUID_TEXT];
    struct lvm_pieces pieces;
    TRY(lvm_take_extents(vg, w, NULL, &pieces, e));
    drop_segments(lv);
    lvm_uuid_text(uuid, text);
    int rc = lvm_put_pieces(&vg->text, lv->node, w, &pieces, 0, 0);
    lvm_pieces_drop(&pieces);
    if (rc == 0)
        rc = lvm_set_text(&vg->text, lv->node, "id", text);
    if (rc == 0)
        rc = put_status(&vg->text, lv->node, "REBUILD");
    return lvm_no_memory(rc, e);
}

/* Both parts on one volume, if one has room for them. */
static size_t prefer_one(const struct lvm_vg *vg, uint64_t extents, struct lvm_pv **pvs,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (lvm_list_has(pvs[i]->node, "status", "ALLOCATABLE") &&
            lvm_free_extents(vg, pvs[i]) >= extents) {
            pvs[0] = pvs[i];
            return 1;
        }
    return count;
}

/* *vg is read anew, so that what comes next sees the extents that are taken; @pvs are its. */
static int read_anew(struct lvm_vg **vg, struct lvm_pv **pvs, size_t count, struct blk_error *e)
{
    struct lvm_vg *next;
    TRY(lvm_vg_copy(*vg, &next, e));
    for (size_t i = 0; i < count; i++)
        pvs[i] = &next->pvs[pvs[i] - (*vg)->pvs];
    lvm_vg_drop(*vg);
    *vg = next;
    return 0;
}

int lvm_image_replace(struct lvm_vg **vg, const struct lvm_image_new *n, unsigned image,
                      struct blk_error *e)
{
    const struct lvm_segment *s = &lvm_find_lv(*vg, n->lv)->segments[0];
    auto_free struct lvm_pv **only = mem_array((*vg)->pv_count, sizeof(struct lvm_pv *));
    if (!only)
        return err_set(e, -ENOMEM, "out of memory");
    struct lvm_wanted w = {.extents = s->metas[image].lv->extents, .stripes = 1, .only = only};
    w.only_count = prefer_one(*vg, w.extents + s->areas[image].lv->extents, only,
                              find_allowed(*vg, s, image, n, only));
    TRY(move_part(*vg, s->metas[image].lv, n->uuids[0], &w, e));
    TRY(read_anew(vg, only, w.only_count, e));
    s = &lvm_find_lv(*vg, n->lv)->segments[0];
    w.extents = s->areas[image].lv->extents;
    TRY(move_part(*vg, s->areas[image].lv, n->uuids[1], &w, e));
    return read_anew(vg, only, 0, e);
}

/* --- marks -------------------------------------------------------------------------------------
 */

bool lvm_images_marked(const struct lvm_lv *lv)
{
    const struct lvm_segment *s = array_of(lv);
    for (unsigned i = 0; s && i < s->area_count; i++)
        if (lvm_list_has(s->areas[i].lv->node, "status", "REBUILD") ||
            lvm_list_has(s->metas[i].lv->node, "status", "REBUILD"))
            return true;
    return false;
}

void lvm_images_unmark(struct lvm_lv *lv)
{
    const struct lvm_segment *s = array_of(lv);
    for (unsigned i = 0; s && i < s->area_count; i++) {
        lvm_list_remove(lvm_find(s->areas[i].lv->node, "status", LVM_LIST), "REBUILD");
        lvm_list_remove(lvm_find(s->metas[i].lv->node, "status", LVM_LIST), "REBUILD");
    }
}

/* --- physical volumes --------------------------------------------------------------------------
 */

bool lvm_pv_lost(const struct lvm_pv *pv)
{
    return !pv->dev || pv->missing;
}

int lvm_pv_set_missing(struct lvm_vg *vg, struct lvm_pv *pv, bool missing, struct blk_error *e)
{
    static const char *const lists[] = {"flags", "status"};
    for (size_t i = 0; i < ARRAY_LEN(lists) && !missing; i++) {
        struct lvm_node *list = lvm_find(pv->node, lists[i], LVM_LIST);
        if (list)
            lvm_list_remove(list, "MISSING");
    }
    if (!missing || pv->missing)
        return 0;
    struct lvm_node *flags = lvm_find(pv->node, "flags", LVM_LIST);
    if (!flags)
        flags = lvm_add(&vg->text, pv->node, LVM_LIST, "flags");
    return lvm_no_memory(flags ? lvm_list_add(&vg->text, flags, "MISSING") : -ENOMEM, e);
}

/* --- what goes with them -----------------------------------------------------------------------
 */

/* It has no place any more; its array goes on without it. */
static int put_error(struct lvm_vg *vg, struct lvm_lv *lv)
{
    drop_segments(lv);
    struct lvm_node *seg = lvm_put_segment(&vg->text, lv->node, 1, 0, lv->extents);
    if (!seg)
        return -ENOMEM;
    TRY(lvm_set_text(&vg->text, seg, "type", "error"));
    return lvm_set_number(&vg->text, lv->node, "segment_count", 1);
}

int lvm_images_drop(struct lvm_vg **vg, const char *lv, struct blk_error *e)
{
    const struct lvm_segment *s = array_of(lvm_find_lv(*vg, lv));
    int rc = 0;
    for (unsigned i = 0; s && i < s->area_count && rc == 0; i++) {
        if (!image_lost(s, i))
            continue;
        rc = put_error(*vg, s->areas[i].lv);
        if (rc == 0)
            rc = put_error(*vg, s->metas[i].lv);
    }
    TRY(lvm_no_memory(rc, e));
    return read_anew(vg, NULL, 0, e);
}

bool lvm_lv_lost(const struct lvm_lv *lv)
{
    return lv->weight <= LVM_WEIGHT_MOST && stands_on(lv, is_lost, NULL);
}

static const struct lvm_lv *find_lost(const struct lvm_vg *vg)
{
    for (size_t i = 0; i < vg->lv_count; i++)
        if (lvm_lv_lost(&vg->lvs[i]))
            return &vg->lvs[i];
    return NULL;
}

/* One of those that nothing else stands on. */
static int drop_one(struct lvm_vg *vg, struct blk_error *e)
{
    struct blk_error why = {0};
    for (size_t i = 0; i < vg->lv_count; i++)
        if (lvm_lv_lost(&vg->lvs[i]) && lvm_lv_remove(vg, &vg->lvs[i], &why) == 0)
            return 0;
    return err_copy(e, why.rc, &why);
}

static int drop_volumes(struct lvm_vg **vg, struct blk_error *e)
{
    for (size_t i = 0; i < (*vg)->lv_count; i++) /* their order stays */
        if (array_of(&(*vg)->lvs[i]) && lvm_lv_lost(&(*vg)->lvs[i]))
            TRY(lvm_images_drop(vg, (*vg)->lvs[i].name, e));
    while (find_lost(*vg)) {
        TRY(drop_one(*vg, e));
        TRY(read_anew(vg, NULL, 0, e));
    }
    return 0;
}

int lvm_vg_drop_lost(struct lvm_vg **vg, bool force, struct blk_error *e)
{
    const struct lvm_lv *lost = find_lost(*vg);
    if (lost && !force)
        return err_set(e, -EBUSY,
                       "%s/%s lies on a physical volume that is missing: repair or remove it, or "
                       "say --force, and what is lost with them goes from the group",
                       (*vg)->name, lost->name);
    if (lost)
        TRY(drop_volumes(vg, e));
    for (size_t i = (*vg)->pv_count; i-- > 0;) {
        if (!lvm_pv_lost(&(*vg)->pvs[i]))
            continue;
        TRY(lvm_pv_remove(*vg, &(*vg)->pvs[i], e));
        TRY(read_anew(vg, NULL, 0, e));
    }
    return 0;
}

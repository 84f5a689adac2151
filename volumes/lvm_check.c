/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_check.c - what must hold for all segments of a group together: they lie inside of what they
 * lie on, nothing lies on one extent twice, no volume stands on itself. */
#include "volumes/lvm_alloc.h"

#include <stdlib.h>

/* Extents that segment @s takes of each place it lies on. */
static uint64_t extents_per_area(const struct lvm_segment *s)
{
    return s->type->what == LVM_STRIPED ? s->extents / s->area_count : s->extents;
}

/* G2. Images may be longer than needed, never shorter; how long, is checked where they are opened.
 */
static int check_inside(const struct lvm_lv *lv, const struct lvm_segment *s, struct blk_error *e)
{
    for (unsigned i = 0; i < s->area_count && s->type->what != LVM_RAID; i++) {
        const struct lvm_area *a = &s->areas[i];
        if (!range_fits(a->extent, extents_per_area(s), a->pv ? a->pv->extents : a->lv->extents))
            return err_bad(e, -EINVAL, "%.127s reaches past the end of %.127s", lv->name,
                           a->pv ? a->pv->name : a->lv->name);
    }
    return 0;
}

/* --- extents of physical volumes ---------------------------------------------------------------
 */

static int by_place(const void *a, const void *b)
{
    const struct lvm_claim *x = a, *y = b;
    if (x->pv != y->pv)
        return x->pv < y->pv ? -1 : 1;
    return x->extent < y->extent ? -1 : x->extent > y->extent;
}

static size_t add_claims(const struct lvm_lv *lv, const struct lvm_segment *s, struct lvm_claim *to)
{
    size_t n = 0;
    for (unsigned i = 0; i < s->area_count; i++) {
        const struct lvm_area *a = &s->areas[i];
        if (!a->pv)
            continue;
        if (to)
            to[n] = (struct lvm_claim){a->pv, lv, a->extent, extents_per_area(s)};
        n++;
    }
    return n;
}

/* NULL: only counts. */
static size_t all_claims(const struct lvm_vg *vg, struct lvm_claim *to)
{
    size_t n = 0;
    for (size_t i = 0; i < vg->lv_count; i++)
        for (unsigned s = 0; s < vg->lvs[i].segment_count; s++)
            n += add_claims(&vg->lvs[i], &vg->lvs[i].segments[s], to ? to + n : NULL);
    return n;
}

int lvm_claims(const struct lvm_vg *vg, struct lvm_claim **out, size_t *count, struct blk_error *e)
{
    *count = all_claims(vg, NULL);
    *out = mem_array(MAX(*count, 1), sizeof(**out));
    if (!*out)
        return err_set(e, -ENOMEM, "out of memory");
    all_claims(vg, *out);
    qsort(*out, *count, sizeof(**out), by_place);
    return 0;
}

/* G3. */
static int check_claims(const struct lvm_vg *vg, struct blk_error *e)
{
    auto_free struct lvm_claim *c = NULL;
    size_t count;
    TRY(lvm_claims(vg, &c, &count, e));
    for (size_t i = 1; i < count; i++)
        if (c[i].pv == c[i - 1].pv && c[i].extent < c[i - 1].extent + c[i - 1].extents)
            return err_bad(e, -EINVAL,
                           "extent %" PRIu64 " of %.127s belongs to %.127s and to %.127s",
                           c[i].extent, c[i].pv->name, c[i - 1].lv->name, c[i].lv->name);
    return 0;
}

/* --- what stands on what -----------------------------------------------------------------------
 */

#define WEIGHING UINT32_MAX /* its own weight is being asked for */
#define DEEPEST  16

static int weigh(struct lvm_lv *lv, unsigned depth, struct blk_error *e);

static int add_weight(struct lvm_lv *on, unsigned depth, uint64_t *sum, struct blk_error *e)
{
    if (!on)
        return 0;
    TRY(weigh(on, depth + 1, e));
    *sum += on->weight;
    return 0;
}

static int weigh_segment(const struct lvm_segment *s, unsigned depth, uint64_t *sum,
                         struct blk_error *e)
{
    struct lvm_lv *const named[] = {s->metadata, s->data,
                                    s->pool,     s->external_origin,
                                    s->store,    s->type->what == LVM_SNAPSHOT ? s->origin : NULL};
    for (unsigned i = 0; i < s->area_count; i++) {
        TRY(add_weight(s->areas[i].lv, depth, sum, e));
        if (s->metas)
            TRY(add_weight(s->metas[i].lv, depth, sum, e));
    }
    for (size_t i = 0; i < ARRAY_LEN(named); i++)
        TRY(add_weight(named[i], depth, sum, e));
    return 0;
}

/* G4, and how many devices a volume takes: a text of a few lines could ask for billions. */
static int weigh(struct lvm_lv *lv, unsigned depth, struct blk_error *e)
{
    uint64_t sum = 1;
    if (lv->weight == WEIGHING)
        return err_set(e, -ELOOP, "%.127s stands on itself", lv->name);
    if (lv->weight)
        return 0;
    if (depth > DEEPEST)
        return err_set(e, -ELOOP, "volumes stand on each other too deep, down to %.127s", lv->name);
    lv->weight = WEIGHING;
    for (unsigned i = 0; i < lv->segment_count; i++)
        TRY(weigh_segment(&lv->segments[i], depth, &sum, e));
    lv->weight = (unsigned)MIN(sum, LVM_WEIGHT_MOST + 1);
    return 0;
}

static void note_snapshot(struct lvm_lv *lv, const struct lvm_segment *s)
{
    lv->merged_into |= s->type->what == LVM_THIN && s->merging;
    if (s->type->what != LVM_SNAPSHOT)
        return;
    s->store->snapshot = s;
    s->origin->has_snapshots = true;
    s->origin->merged_into |= s->merging;
}

int lvm_segments_check(struct lvm_vg *vg, struct blk_error *e)
{
    for (size_t i = 0; i < vg->lv_count; i++)
        for (unsigned s = 0; s < vg->lvs[i].segment_count; s++) {
            TRY(check_inside(&vg->lvs[i], &vg->lvs[i].segments[s], e));
            note_snapshot(&vg->lvs[i], &vg->lvs[i].segments[s]);
        }
    TRY(check_claims(vg, e));
    for (size_t i = 0; i < vg->lv_count; i++)
        TRY(weigh(&vg->lvs[i], 0, e));
    return 0;
}

/* Goes no deeper than the weight allows. */
const char *lvm_part_fixed(const struct lvm_lv *lv)
{
    const char *why = NULL;
    for (unsigned i = 0; i < lv->segment_count && !why; i++) {
        const struct lvm_segment *s = &lv->segments[i];
        const struct lvm_lv *const parts[] = {s->metadata, s->data, s->pool};
        if (s->type->what == LVM_MIRROR)
            return "a mirror of the old kind is in it, whose legs are not kept equal here";
        for (unsigned a = 0; a < s->area_count && !why; a++)
            why = s->areas[a].lv ? lvm_part_fixed(s->areas[a].lv) : NULL;
        for (size_t p = 0; p < ARRAY_LEN(parts) && !why; p++)
            why = parts[p] ? lvm_part_fixed(parts[p]) : NULL;
    }
    return why;
}

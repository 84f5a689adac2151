/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_alloc.c - free extents, and segments made of them.
 *
 * A linear volume goes into the first run that takes all of it, else into one run after the other.
 * Stripes lie on different physical volumes, those with the most free extents; where these are in
 * pieces, so is the volume: a segment is as long as the shortest of the runs it takes. */
#include <stdio.h>
#include <stdlib.h>

#include "volumes/lvm_alloc.h"

/* --- what is free ------------------------------------------------------------------------------
 */

int lvm_free_runs(const struct lvm_vg *vg, struct lvm_run_free **out, size_t *count,
                  struct blk_error *e)
{
    auto_free struct lvm_claim *c = NULL;
    size_t claims;
    TRY(lvm_claims(vg, &c, &claims, e));
    struct lvm_run_free *runs = mem_array(claims + vg->pv_count + 1, sizeof(*runs));
    if (!runs)
        return err_set(e, -ENOMEM, "out of memory");
    *count = 0;
    for (size_t p = 0, i = 0; p < vg->pv_count; p++) {
        struct lvm_pv *pv = &vg->pvs[p];
        uint64_t at = 0;
        for (; i < claims && c[i].pv == pv; i++) {
            if (c[i].extent > at)
                runs[(*count)++] = (struct lvm_run_free){pv, at, c[i].extent - at};
            at = c[i].extent + c[i].extents;
        }
        if (at < pv->extents)
            runs[(*count)++] = (struct lvm_run_free){pv, at, pv->extents - at};
    }
    *out = runs;
    return 0;
}

uint64_t lvm_free_extents(const struct lvm_vg *vg, const struct lvm_pv *pv)
{
    auto_free struct lvm_run_free *runs = NULL;
    size_t count = 0;
    uint64_t sum = 0;
    if (lvm_free_runs(vg, &runs, &count, NULL) < 0)
        return 0;
    for (size_t i = 0; i < count; i++)
        sum += !pv || runs[i].pv == pv ? runs[i].extents : 0;
    return sum;
}

static bool may_take(const struct lvm_wanted *w, const struct lvm_pv *pv)
{
    bool named = !w->only;
    for (size_t i = 0; i < w->only_count; i++)
        named |= w->only[i] == pv;
    return named && !pv->missing && lvm_list_has(pv->node, "status", "ALLOCATABLE");
}

/* --- taking ------------------------------------------------------------------------------------
 */

struct taking {
    const struct lvm_wanted *w;
    struct lvm_run_free *runs; /* emptied from the front */
    size_t count;
    struct lvm_pieces *out;
};

static struct lvm_run_free *best_linear(struct taking *t, uint64_t extents)
{
    struct lvm_run_free *first = NULL;
    for (size_t i = 0; i < t->count; i++) {
        if (t->runs[i].extents >= extents)
            return &t->runs[i];
        if (!first && t->runs[i].extents > 0)
            first = &t->runs[i];
    }
    return first;
}

static uint64_t left_on(const struct taking *t, const struct lvm_pv *pv)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->count; i++)
        sum += t->runs[i].pv == pv ? t->runs[i].extents : 0;
    return sum;
}

/* The first run of the volume that has the most left and is none of those before @stripe. */
static struct lvm_run_free *best_stripe(struct taking *t, struct lvm_run_free **taken,
                                        unsigned stripe)
{
    struct lvm_run_free *best = NULL;
    uint64_t most = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct lvm_run_free *r = &t->runs[i];
        unsigned s = 0;
        while (s < stripe && taken[s]->pv != r->pv)
            s++;
        uint64_t left = r->extents && s == stripe ? left_on(t, r->pv) : 0;
        if (left > most) {
            best = r;
            most = left;
        }
    }
    return best;
}

static int add_piece(struct taking *t, struct lvm_run_free **from, uint64_t each)
{
    struct lvm_pieces *p = t->out;
    unsigned n = t->w->stripes;
    struct lvm_area *grown = mem_resize(p->areas, (p->count + 1) * n * sizeof(*grown));
    uint64_t *extents = grown ? mem_resize(p->extents, (p->count + 1) * sizeof(*extents)) : NULL;
    if (grown)
        p->areas = grown;
    if (!extents)
        return -ENOMEM;
    p->extents = extents;
    for (unsigned i = 0; i < n; i++) {
        grown[p->count * n + i] = (struct lvm_area){.pv = from[i]->pv, .extent = from[i]->extent};
        from[i]->extent += each;
        from[i]->extents -= each;
    }
    extents[p->count++] = each * n;
    return 0;
}

/* One segment of at most @extents. *got: how many it has; 0: there is no more. */
static int take_piece(struct taking *t, uint64_t extents, uint64_t *got)
{
    unsigned n = t->w->stripes;
    auto_free struct lvm_run_free **from = mem_array(n, sizeof(struct lvm_run_free *));
    uint64_t each = extents / n;
    *got = 0;
    if (!from)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        from[i] = n == 1 ? best_linear(t, extents) : best_stripe(t, from, i);
        if (!from[i])
            return 0;
        each = MIN(each, from[i]->extents);
    }
    *got = each * n;
    return add_piece(t, from, each);
}

/* What a volume's last segment could grow by in place goes first. */
static void prefer(struct taking *t, const struct lvm_area *behind)
{
    for (size_t i = 0; behind && i < t->count; i++)
        if (t->runs[i].pv == behind->pv && t->runs[i].extent == behind->extent) {
            struct lvm_run_free first = t->runs[i];
            memmove(&t->runs[1], &t->runs[0], i * sizeof(first));
            t->runs[0] = first;
            return;
        }
}

void lvm_pieces_drop(struct lvm_pieces *p)
{
    mem_free(p->areas);
    mem_free(p->extents);
    *p = (struct lvm_pieces){0};
}

static int no_space(const struct lvm_vg *vg, const struct lvm_wanted *w, uint64_t left,
                    struct blk_error *e)
{
    if (w->stripes > 1)
        return err_set(e, -ENOSPC,
                       "insufficient free space: %" PRIu64 " extents in %u stripes needed, which "
                       "the free extents of %s do not give",
                       w->extents, w->stripes, vg->name);
    return err_set(e, -ENOSPC,
                   "insufficient free space: %" PRIu64 " extents needed, but only %" PRIu64
                   " available",
                   w->extents, w->extents - left);
}

int lvm_take_extents(const struct lvm_vg *vg, const struct lvm_wanted *w,
                     const struct lvm_area *behind, struct lvm_pieces *out, struct blk_error *e)
{
    auto_free struct lvm_run_free *runs = NULL;
    struct taking t = {.w = w, .out = out};
    uint64_t left = w->extents, got = 1;
    size_t all;
    assert(w->stripes > 0 && w->extents % w->stripes == 0);
    TRY(lvm_free_runs(vg, &runs, &all, e));
    t.runs = runs;
    for (size_t i = 0; i < all; i++)
        if (may_take(w, runs[i].pv))
            runs[t.count++] = runs[i];
    prefer(&t, behind);
    *out = (struct lvm_pieces){0};
    int rc = 0;
    while (rc == 0 && left && got) {
        rc = take_piece(&t, left, &got);
        left -= got;
    }
    if (rc < 0)
        err_set(e, rc, "out of memory");
    else if (left)
        rc = no_space(vg, w, left, e);
    if (rc < 0)
        lvm_pieces_drop(out);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_census.c - who owns what: a walk of all tables fills the set of owned units.
 *
 * First what the format reserves, then tables and clusters. What lies on the unit boundaries owns
 * its units at once. The others are collected; when the walk is over they are sorted, compared with
 * one another and with the units that are owned by then, and only then own what they touch: two of
 * them may share a unit and no byte. */
#include <stdlib.h>

#include "imgfmt/map_units_private.h"

struct walk {
    struct map_units_census *found;
    uint64_t limit; /* units from here on are out of range */
};

static void note(struct map_units_census *c, uint64_t owner, enum map_units_wrong wrong)
{
    c->out_of_range += wrong == UNITS_OUT_OF_RANGE;
    c->twice += wrong == UNITS_TWICE;
    c->misaligned += wrong == UNITS_MISALIGNED;
    if (!c->bad || owner == UNITS_OWN)
        return;
    if (c->bad_count < UNITS_BAD_AT_ONCE)
        c->bad[c->bad_count++] = (struct map_units_bad){owner, wrong};
    else
        c->bad_left = true;
}

static int keep_odd(struct map_units_census *c, const struct map_units_place *p)
{
    if (c->odd_count == c->odd_room) {
        size_t room = MAX(2 * c->odd_room, 64);
        struct map_units_place *bigger = mem_resize(c->odd, room * sizeof(*bigger));
        if (!bigger)
            return -ENOMEM;
        c->odd = bigger;
        c->odd_room = room;
    }
    c->odd[c->odd_count++] = *p;
    return 0;
}

static bool any_owned(const struct map_space *s, uint64_t unit, uint64_t end)
{
    while (unit < end && !map_space_owned(s, unit))
        unit++;
    return unit < end;
}

/* Of the place, what counts for the limit ends @short_by bytes before its end. */
static int own(struct map *m, const struct walk *w, const struct map_units_place *p,
               uint64_t short_by)
{
    struct map_space *s = &m->units->space;
    uint64_t unit = units_on_boundary(m, p->at) ? units_below(m, p->at) : 0;
    uint64_t end = units_below(m, p->end);
    if (p->at < m->units->base || p->end < p->at || units_below(m, p->end - short_by) > w->limit) {
        note(w->found, p->owner, UNITS_OUT_OF_RANGE);
        return 0;
    }
    if (!units_on_boundary(m, p->at))
        return keep_odd(w->found, p);
    if (any_owned(s, unit, end)) {
        note(w->found, p->owner, UNITS_TWICE);
        return 0;
    }
    return map_space_own(s, unit, end - unit);
}

int map_units_reserve(struct map *m, uint64_t offset, uint64_t bytes)
{
    struct map_units *u = m->units;
    struct map_units_place p = {MAX(offset, u->base), offset + bytes, UNITS_OWN};
    if (p.end <= u->base || bytes == 0)
        return 0;
    struct walk w = {.found = u->census, .limit = UINT64_MAX};
    return own(m, &w, &p, 0);
}

/* Bytes of the last cluster that are no part of the disk: QEMU ends a fixed VHDX before them. */
static uint64_t behind_disk(const struct map *m, uint64_t cluster)
{
    uint64_t at = cluster << m->shape.cluster_bits, left = m->shape.size - MIN(at, m->shape.size);
    return left && left < m->cluster_bytes ? m->cluster_bytes - left : 0;
}

static int own_cluster(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct walk *w = arg;
    if (cell->offset == 0) /* zero, no space under it */
        return 0;
    uint64_t bytes = cell->state == MAP_PACKED ? cell->packed_bytes : m->cluster_bytes;
    struct map_units_place p = {.owner = cluster};
    w->found->clusters++;
    w->found->fragmented +=
        w->found->last_end && w->found->last_end + m->shape.lead_bytes != cell->offset;
    if (cell->offset < m->shape.lead_bytes || !add_u64(cell->offset, bytes, &p.end)) {
        note(w->found, cluster, UNITS_OUT_OF_RANGE);
        return 0;
    }
    w->found->last_end = p.end;
    p.at = cell->offset - m->shape.lead_bytes;
    return own(m, w, &p, cell->state == MAP_PACKED ? 0 : behind_disk(m, cluster));
}

static int co_own_tables(struct map *m, const struct walk *w)
{
    uint64_t bytes = units_table_units(m) * m->units->unit_bytes;
    for (uint64_t i = 0; i < m->shape.root_entries; i++) {
        struct map_units_place p = {.owner = UNITS_TABLE_OWNER + i};
        TRY(co_map_table(m, i, &p.at));
        if (p.at == 0)
            continue;
        if (!add_u64(p.at, bytes, &p.end))
            note(w->found, p.owner, UNITS_OUT_OF_RANGE);
        else
            TRY(own(m, w, &p, 0));
    }
    return 0;
}

/* --- what lies off the boundaries --- */

static int in_order(const void *a, const void *b)
{
    const struct map_units_place *p = a, *q = b;
    if (p->at != q->at)
        return p->at < q->at ? -1 : 1;
    return p->owner < q->owner ? -1 : p->owner > q->owner;
}

static int settle_odd(struct map *m, struct map_units_census *c)
{
    struct map_units *u = m->units;
    uint64_t end = 0;
    if (c->odd_count)
        qsort(c->odd, c->odd_count, sizeof(*c->odd), in_order);
    for (size_t i = 0; i < c->odd_count; i++) {
        const struct map_units_place *p = &c->odd[i];
        uint64_t first = (p->at - u->base) / u->unit_bytes;
        if (p->at < end || any_owned(&u->space, first, units_below(m, p->end)))
            note(c, p->owner, UNITS_TWICE);
        else if (u->aligned && p->owner != UNITS_OWN)
            note(c, p->owner, UNITS_MISALIGNED);
        end = MAX(end, p->end);
    }
    for (size_t i = 0; i < c->odd_count; i++) {
        uint64_t first = (c->odd[i].at - u->base) / u->unit_bytes;
        TRY(map_space_own(&u->space, first, units_below(m, c->odd[i].end) - first));
    }
    return 0;
}

/* --- the walk --- */

static uint64_t limit_of(const struct map *m)
{
    const struct map_units *u = m->units;
    uint64_t in_file = units_below(m, m->file->size);
    if (u->limit)
        return u->limit;
    if (u->ahead_bytes || u->ops->co_extend)
        return in_file;
    /* What a crash lost of the file's length is no more than what was written at once. */
    uint64_t clusters = MIN(div_up(m->shape.size, m->cluster_bytes), 1ULL << 28);
    return in_file + (2 * clusters + 65536) * units_cluster_units(m);
}

static int co_walk(struct map *m, struct walk *w)
{
    if (m->units->ops->co_reserve)
        TRY(m->units->ops->co_reserve(m));
    if (m->shape.levels == 2)
        TRY(co_own_tables(m, w));
    TRY(co_map_walk(m, own_cluster, w));
    return settle_odd(m, w->found);
}

int co_map_units_census(struct map *m, struct map_units_bad *bad, struct map_units_census *out)
{
    struct map_units *u = m->units;
    struct walk w = {.found = out, .limit = limit_of(m)};
    *out = (struct map_units_census){.bad = bad};
    map_space_reset(&u->space);
    u->cluster_from = 0;
    u->census = out;
    int rc = co_walk(m, &w);
    u->census = NULL;
    mem_free(take(out->odd));
    /* What the file holds behind the last owned unit was written by somebody who crashed. */
    map_units_touch(m, m->file->size);
    return rc;
}

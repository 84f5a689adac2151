/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_check.c - check and repair, in qemu-img's classes.
 *
 * Corruptions: an entry out of range, two owners of one place, a place that is not where places can
 * be. Leaks: units of the file that nobody owns. Repairing corruptions, each durable by itself:
 *   1 an entry out of range becomes a hole
 *   2 the second owner of a place: its data copied to a place of its own -> its entry
 *   3 the same for what is misaligned
 * and again until a walk finds none, since a table that two own doubles all that it names. Leaks go
 * with tidying. What was fixed is the difference between what two examinations count. */
#include <stdio.h>

#include "imgfmt/map_units_private.h"

#define ROUNDS 64 /* a walk each; every one of them mends UNITS_BAD_AT_ONCE or all */

void map_units_say(struct blk_check *c, uint64_t n, const char *what)
{
    char sentence[200];
    snprintf(sentence, sizeof(sentence), "%" PRIu64 " %s", n, what);
    if (n && c->say)
        c->say(c, sentence);
}

int co_map_units_marked(struct map *m, struct blk_check *c, bool marked)
{
    marked &= !m->units->begun;
    map_units_say(c, marked, "mark of a writer that did not close the image");
    return marked && (c->fix_errors || c->fix_leaks) ? co_map_will_write(m) : 0;
}

/* --- finding --- */

uint64_t map_units_in_file(const struct map *m)
{
    const struct map_units *u = m->units;
    /* What we made ready to write is no leak. Nor is a footer, or what else fills no unit. */
    bool whole = m->file->limits.growable && !u->begun && m->file->size > u->base;
    uint64_t in_file = whole ? (m->file->size - u->base) / u->unit_bytes : 0;
    return MAX(u->space.next, in_file);
}

static int co_examine(struct map *m, struct map_units_bad *bad, struct map_units_census *found,
                      struct blk_check *c)
{
    TRY(co_map_units_census(m, bad, found));
    const struct map_units *u = m->units;
    uint64_t end = u->roomy ? u->space.next : map_units_in_file(m);
    uint64_t leaks = end - (u->gaps ? u->space.next : u->space.count);
    map_units_say(c, found->twice, "entries own a place that another one owns");
    map_units_say(c, found->out_of_range, "entries are out of range");
    map_units_say(c, found->misaligned, "entries are misaligned");
    map_units_say(c, leaks, "units of the file are owned by no entry");
    c->corruptions += map_units_bad_count(found);
    c->leaks += leaks;
    c->total_clusters = div_up(m->shape.size, m->cluster_bytes);
    c->allocated_clusters = found->clusters;
    c->fragmented_clusters = found->fragmented;
    c->image_end = units_offset(m, m->units->space.next);
    return m->units->ops->co_check ? m->units->ops->co_check(m, c) : 0;
}

/* --- mending --- */

static int co_mend_table(struct map *m, uint64_t table, enum map_units_wrong wrong)
{
    return co_map_table_anew(m, table, wrong == UNITS_OUT_OF_RANGE, wrong == UNITS_MISALIGNED);
}

static int co_mend_cluster(struct map *m, uint64_t cluster, enum map_units_wrong wrong)
{
    struct map_cell cell, now = {.state = MAP_HOLE};
    uint64_t one = 1;
    bool reused;
    TRY(co_map_cell(m, cluster, &cell));
    if (cell.state == MAP_HOLE || cell.offset == 0)
        return 0; /* what led here was mended first */
    if (wrong == UNITS_OUT_OF_RANGE)
        return co_map_put(m, cluster, &now);
    if (cell.state == MAP_PACKED)
        return -ENOTSUP;
    now = cell;
    TRY(m->format->co_place(m, &one, &now.offset, &reused));
    int rc = co_map_put_copy(m, cluster, cell.offset, &now);
    if (rc < 0)
        m->format->unplace(m, &now, 1);
    return rc;
}

static int co_mend_some(struct map *m, const struct map_units_census *found)
{
    for (size_t i = 0; i < found->bad_count; i++) {
        const struct map_units_bad *b = &found->bad[i];
        if (b->owner >= UNITS_TABLE_OWNER)
            TRY(co_mend_table(m, b->owner - UNITS_TABLE_OWNER, b->wrong));
        else
            TRY(co_mend_cluster(m, b->owner, b->wrong));
    }
    return co_meta_settle(m->meta, !m->fresh);
}

/* *clean: a walk found nothing more. */
static int co_mend(struct map *m, struct map_units_bad *bad, bool *clean)
{
    *clean = false;
    for (unsigned round = 0; round < ROUNDS && !*clean; round++) {
        struct map_units_census found;
        TRY(co_map_units_census(m, bad, &found));
        *clean = map_units_bad_count(&found) == 0;
        if (found.bad_count == 0)
            break;
        TRY(co_mend_some(m, &found));
    }
    return 0;
}

static int co_repair(struct map *m, struct map_units_bad *bad)
{
    struct map_units *u = m->units;
    bool clean = false;
    u->repairing = true;
    int rc = co_map_will_write(m);
    if (rc == 0)
        rc = co_mend(m, bad, &clean);
    u->repairing = false;
    if (clean)
        return co_map_units_finish(m);
    u->begun = false; /* places that two own must not be tidied */
    map_write_ended(m);
    return rc;
}

/* --- both --- */

static int co_examine_and_repair(struct map *m, struct map_units_bad *bad, struct blk_check *c)
{
    struct map_units_census found;
    struct blk_check before = *c;
    TRY(co_examine(m, bad, &found, c));
    uint64_t corruptions = c->corruptions - before.corruptions, leaks = c->leaks - before.leaks;
    bool clean = map_units_bad_count(&found) == 0;
    if (!((corruptions && c->fix_errors) || (leaks && c->fix_leaks && clean)))
        return 0;
    TRY(co_repair(m, bad));
    struct blk_check after = before;
    after.say = NULL;
    TRY(co_examine(m, NULL, &found, &after));
    c->corruptions = after.corruptions;
    c->leaks = after.leaks;
    c->corruptions_fixed += corruptions - MIN(corruptions, after.corruptions - before.corruptions);
    c->leaks_fixed += leaks - MIN(leaks, after.leaks - before.leaks);
    c->allocated_clusters = after.allocated_clusters;
    c->fragmented_clusters = after.fragmented_clusters;
    c->image_end = after.image_end;
    return 0;
}

int co_map_units_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    struct map *m = dev->state;
    auto_free struct map_units_bad *bad = mem_array(UNITS_BAD_AT_ONCE, sizeof(*bad));
    if (!bad)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = m->units->begun ? co_meta_settle(m->meta, !m->fresh) : 0;
    if (rc == 0)
        rc = co_examine_and_repair(m, bad, c);
    return rc < 0 ? err_errno(e, rc, "the image cannot be checked or repaired") : 0;
}

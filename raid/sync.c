/* SPDX-License-Identifier: BSD-3-Clause */
/* sync.c - what keeps an array whole, step by step beside its requests: resync after it went down
 * dirty, recovery of members that were replaced, and scrubs.
 *
 * Order:
 *  1. a spare takes a place: superblocks say that it has the role, in sync up to 0;
 *  2. from then on it is written to like the others; a step copies what is there;
 *  3. what steps have reached is flushed, then the superblocks say how far it is (state.c);
 *  4. at the end all is flushed, then superblocks say in sync (or what replace.c has).
 * An interruption at any point goes on at what the superblocks say. */
#include "raid/intent.h"
#include "raid/reshape.h"

#define STEP_MOST (8 * MiB)

/* How much is done next, from @at on: at most a sixteenth of all. */
static uint64_t step_bytes(const struct raid_array *a, uint64_t at, uint64_t end)
{
    uint64_t unit = a->engine->sync_unit ? a->engine->sync_unit : a->shape.chunk;
    uint64_t bytes = MAX(unit, MIN(STEP_MOST, end / 16) / unit * unit);
    return MIN(bytes - at % unit, end - at);
}

/* --- resync ------------------------------------------------------------------------------------
 */

/* Over what the bitmap says to be in sync: from @at on, where the work goes on, and *bytes of it at
 * most; @end: nothing is left. */
static uint64_t skip_clean(const struct raid_array *a, uint64_t at, uint64_t end, uint64_t *bytes)
{
    uint64_t start, set;
    *bytes = 0;
    if (!intent_next(a->intent, at, &start, &set) || start >= end)
        return end;
    set += start % 4096;
    start -= start % 4096;
    *bytes = MIN(align_up(set, 4096), end - start);
    return start;
}

static int co_resync(struct raid_array *a, struct blk_sync *s)
{
    uint64_t all = array_sync_bytes(a), at = a->resync_at, set = all;
    if (a->intent)
        at = skip_clean(a, at, all, &set);
    uint64_t bytes = MIN(step_bytes(a, at, all), set);
    *s = (struct blk_sync){.kind = s->kind, .doing = "resync", .at = at, .total = all};
    if (bytes)
        TRY(a->engine->co_resync(a, at, bytes));
    a->resync_at = s->at += bytes;
    if (s->at < s->total)
        return 0;
    TRY(co_array_flush(a));
    a->was_dirty = false;
    TRY(co_intent_sweep(a->intent, true));
    return co_array_checkpoint(a);
}

/* --- recovery ----------------------------------------------------------------------------------
 */

static struct raid_member *find_spare(const struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (array_is_spare(a, m))
            return m;
    }
    return NULL;
}

static void give_role(struct raid_array *a, struct raid_member *m, unsigned role)
{
    m->role = role;
    m->data_offset = m->super->data_offset;
    m->recovered = m->recovered_saved = 0;
    m->by_bitmap = false;
    m->state = MEMBER_REBUILDING;
    a->by_role[role] = m;
    (void)md_super_set_role(a->super, m->super->number, role); /* its slot is there */
}

static bool lacks_member(const struct raid_array *a)
{
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (!a->by_role[role])
            return true;
    return false;
}

/* Between writes: each goes to those that were there when it began. */
int co_array_use_spares(struct raid_array *a, bool *taken)
{
    struct co_range_hold hold;
    *taken = false;
    if (!a->super || !a->engine->co_rebuild || !lacks_member(a) || !find_spare(a))
        return 0;
    co_range_lock(&a->writers, &hold, 0, INT64_MAX, false);
    co_mutex_lock(&a->state_lock);
    for (unsigned role = 0; role < a->shape.disks; role++) {
        struct raid_member *spare = a->by_role[role] ? NULL : find_spare(a);
        if (!spare)
            continue;
        give_role(a, spare, role);
        *taken = true;
    }
    int rc = *taken ? co_array_write_supers_locked(a) : 0;
    co_mutex_unlock(&a->state_lock);
    co_range_unlock(&a->writers, &hold);
    return rc;
}

/* What makes the array whole comes before replacements. */
static struct raid_member *find_rebuilding(const struct raid_array *a)
{
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (a->by_role[role] && a->by_role[role]->state == MEMBER_REBUILDING)
            return a->by_role[role];
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (a->by_role[role] && a->by_role[role]->replacement)
            return a->by_role[role]->replacement;
    return NULL;
}

/* All of it is there. */
static int co_recovered(struct raid_array *a, struct raid_member *m)
{
    TRY(co_array_flush(a));
    if (m->replaces)
        return co_array_replaced(a, m);
    co_mutex_lock(&a->state_lock);
    bool whole = m->state == MEMBER_REBUILDING; /* it did not fail at last */
    if (whole) {
        m->state = MEMBER_IN_SYNC;
        m->by_bitmap = false;
    }
    int rc = whole ? co_array_write_supers_locked(a) : 0;
    co_mutex_unlock(&a->state_lock);
    return rc < 0 ? rc : co_intent_sweep(a->intent, true);
}

/* The same for a member that was there before. In level 10 the bits are of the array: one chunk
 * after the other is asked for. */
static uint64_t skip_kept(const struct raid_array *a, const struct raid_member *m, uint64_t at,
                          uint64_t *bytes)
{
    uint64_t end = a->shape.member, array, set;
    if (!a->shape.near)
        return skip_clean(a, at, end, bytes);
    for (; at < end; at += *bytes) {
        *bytes = MIN(a->shape.chunk - at % a->shape.chunk, end - at);
        if (raid10_find(&a->shape, m->role, at, &array) &&
            skip_clean(a, array, array + *bytes, &set) < array + *bytes)
            return at;
    }
    *bytes = 0;
    return end;
}

static int co_recover(struct raid_array *a, struct raid_member *m, struct blk_sync *s)
{
    uint64_t all = a->shape.member, at = m->recovered, missing = all;
    if (m->by_bitmap && a->intent)
        at = skip_kept(a, m, at, &missing);
    uint64_t bytes = MIN(step_bytes(a, at, all), missing);
    *s = (struct blk_sync){.kind = s->kind, .doing = "recovery", .at = at, .total = all};
    if (bytes)
        TRY(a->engine->co_rebuild(a, m, at, bytes));
    if (m->state != MEMBER_REBUILDING && !m->replaces)
        return 0; /* it failed: the next step finds another spare, or that all is done */
    m->recovered = s->at += bytes;
    return s->at < all ? 0 : co_recovered(a, m);
}

static int co_owed(struct raid_array *a, struct blk_sync *s)
{
    bool taken;
    if (a->was_dirty && a->engine->co_resync)
        return co_resync(a, s);
    TRY(co_array_use_spares(a, &taken));
    struct raid_member *m = find_rebuilding(a);
    if (m)
        return co_recover(a, m, s);
    s->doing = NULL;
    return co_intent_sweep(a->intent, !a->marked_dirty);
}

/* --- scrub -------------------------------------------------------------------------------------
 */

static int co_scrub(struct raid_array *a, struct blk_sync *s)
{
    bool repair = s->kind == BLK_SYNC_REPAIR;
    auto_free uint64_t *by_role = mem_array(a->shape.disks, sizeof(*by_role));
    struct raid_scrub found = {.by_role = by_role};
    if (!by_role)
        return -ENOMEM;
    s->total = array_sync_bytes(a);
    s->doing = s->at < s->total ? (repair ? "repair" : "check") : NULL;
    if (!s->doing || !a->engine->co_scrub) {
        s->doing = NULL;
        return 0;
    }
    uint64_t bytes = step_bytes(a, s->at, s->total);
    TRY(a->engine->co_scrub(a, s->at, bytes, repair, &found));
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (a->by_role[role])
            a->by_role[role]->mismatches += by_role[role];
    s->mismatches += found.mismatches;
    s->at += bytes;
    return 0;
}

/* Repairs write. */
static int co_prepare(struct raid_array *a, const struct blk_sync *s)
{
    return s->kind == BLK_SYNC_CHECK ? 0 : co_array_mark_dirty(a);
}

int co_array_sync(struct raid_array *a, struct blk_sync *s, struct blk_error *e)
{
    if (s->kind == BLK_SYNC_OWED && a->engine == &raid_reshape_engine)
        return co_array_reshape_step(a, s, e);
    int rc = s->kind == BLK_SYNC_OWED ? 0 : co_prepare(a, s);
    if (rc == 0)
        rc = s->kind == BLK_SYNC_OWED ? co_owed(a, s) : co_scrub(a, s);
    return rc < 0 ? err_errno(e, rc, "%s at byte %" PRIu64, s->doing ? s->doing : "sync", s->at)
                  : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* assemble.c - the plan of an array, in this order:
 *
 *  1. which array: that of the freshest superblock; others stay out;
 *  2. the freshest member that is no spare; its table of roles counts for all;
 *  3. each candidate's place by that table and by its own events;
 *  4. one candidate for each role, the best one;
 *  5. the shape, and whether that many are enough. */
#include <stdio.h>

#include "raid/assemble.h"

#define NOBODY SIZE_MAX

static void leave_out(struct raid_candidate *c, enum raid_place_in place, const char *why)
{
    c->place = place;
    c->role = RAID_NO_DISK;
    snprintf(c->why, sizeof(c->why), "%s", why);
}

static bool is_spare(const struct md_super *s)
{
    unsigned role = md_super_role(s, s->number);
    return role >= MD_ROLE_MOST && role != MD_ROLE_JOURNAL;
}

/* --- whose table counts ------------------------------------------------------------------------
 */

static bool is_active(unsigned role)
{
    return role < MD_ROLE_MOST;
}

static unsigned count_active(const struct md_super *s)
{
    unsigned n = 0;
    for (unsigned slot = 0; slot < s->role_count; slot++)
        n += is_active(s->roles[slot]);
    return n;
}

static bool is_journal(const struct md_super *s)
{
    return md_super_role(s, s->number) == MD_ROLE_JOURNAL;
}

/* Of the same events: who knows of more that failed, for members do not come back in an update; a
 * member before the journal, which no half of a split array can be told by. */
static bool is_later(const struct md_super *a, const struct md_super *b)
{
    if (a->events != b->events)
        return a->events > b->events;
    if (is_journal(a) != is_journal(b))
        return is_journal(b);
    return count_active(a) < count_active(b);
}

/* Spares count only where nothing else is there. */
static size_t freshest_of(const struct raid_candidate *c, size_t count)
{
    size_t best = NOBODY;
    for (size_t i = 0; i < count; i++) {
        if (!c[i].super)
            continue;
        const struct md_super *b = best == NOBODY ? NULL : c[best].super;
        bool more_active = b && is_spare(b) && !is_spare(c[i].super);
        bool less_active = b && !is_spare(b) && is_spare(c[i].super);
        if (!b || more_active || (!less_active && is_later(c[i].super, b)))
            best = i;
    }
    return best;
}

/* True if a member with the events of @s was there in the last but one update, or the last. */
static bool is_fresh(const struct md_super *s, const struct md_super *freshest)
{
    return s->events + 1 >= freshest->events;
}

/* --- places ------------------------------------------------------------------------------------
 */

static void place_stray(struct raid_candidate *c, const struct md_super *freshest)
{
    if (is_spare(c->super))
        leave_out(c, PLACE_SPARE, "");
    else
        leave_out(c, PLACE_STALE, "it left the array before the others went on without it");
    c->role = c->place == PLACE_STALE ? md_super_role(c->super, c->super->number) : c->role;
    if (c->role >= md_super_roles(freshest))
        c->role = RAID_NO_DISK;
}

/* Two that are as fresh and do not believe that the other is there went on without each other. If
 * only the freshest says so, the other one's update never came to its end: nothing was written
 * after it, since those who it says are there did not get it. */
static bool is_split(const struct md_super *s, const struct md_super *freshest)
{
    return s->events == freshest->events && is_active(md_super_role(s, s->number)) &&
           is_active(md_super_role(freshest, freshest->number)) &&
           !is_active(md_super_role(s, freshest->number));
}

/* A member that is as fresh as the freshest, or was until the last update. */
static void place_fresh(struct raid_candidate *c, const struct md_super *freshest)
{
    const struct md_super *s = c->super;
    unsigned said = md_super_role(freshest, s->number), own = md_super_role(s, s->number);
    if (is_split(s, freshest)) {
        leave_out(c, PLACE_SPLIT,
                  "it and the others went on without each other: the array was split");
    } else if (said == MD_ROLE_FAULTY || (is_active(own) && said == MD_ROLE_SPARE)) {
        leave_out(c, PLACE_FAULTY, "the others say that it failed");
    } else if (said == MD_ROLE_JOURNAL) {
        leave_out(c, PLACE_JOURNAL, "");
    } else if (said >= md_super_roles(freshest)) {
        leave_out(c, PLACE_SPARE, "");
    } else {
        c->place = s->features & MD_REPLACEMENT ? PLACE_REPLACEMENT : PLACE_MEMBER;
        c->role = said;
    }
}

static void place_one(struct raid_candidate *c, const struct md_super *freshest)
{
    c->why[0] = 0;
    c->role = RAID_NO_DISK;
    if (!c->super)
        leave_out(c, PLACE_OTHER, "it has no superblock of md");
    else if (!md_super_same_array(c->super, freshest))
        leave_out(c, PLACE_OTHER,
                  memcmp(c->super->uuid, freshest->uuid, sizeof(freshest->uuid)) == 0
                      ? "its superblock says another level, layout or chunk"
                      : "it belongs to another array");
    else if (c->super->data_size < freshest->size && !is_journal(c->super))
        leave_out(c, PLACE_OTHER, "it holds less than the array has on each member");
    else if (c->super->events > freshest->events) /* a spare that was written alone */
        leave_out(c, PLACE_STALE, "it was written to without the others");
    else if (!is_fresh(c->super, freshest))
        place_stray(c, freshest);
    else
        place_fresh(c, freshest);
}

/* --- one for each role -------------------------------------------------------------------------
 */

/* A spare that was given a role in the last update, which it may have missed, has nothing yet. */
bool raid_in_sync(const struct raid_candidate *c)
{
    return !(c->super->features & MD_RECOVERY) &&
           is_active(md_super_role(c->super, c->super->number));
}

/* True if @a serves better than @b in the same role. */
static bool better(const struct raid_candidate *a, const struct raid_candidate *b)
{
    if (raid_in_sync(a) != raid_in_sync(b))
        return raid_in_sync(a);
    return a->super->events > b->super->events;
}

static void drop_duplicates(struct raid_candidate *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++) {
            if (c[i].place != c[k].place || c[i].role != c[k].role ||
                (c[i].place != PLACE_MEMBER && c[i].place != PLACE_REPLACEMENT &&
                 c[i].place != PLACE_JOURNAL))
                continue;
            struct raid_candidate *worse = better(&c[i], &c[k]) ? &c[k] : &c[i];
            leave_out(worse, PLACE_DUPLICATE, "another one has the same place in the array");
        }
}

static bool is_filled(const struct raid_candidate *c, size_t count, unsigned role)
{
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_MEMBER && c[i].role == role)
            return true;
    return false;
}

/* Who was replacing a member that has gone since is that member. */
static void promote_replacements(struct raid_candidate *c, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_REPLACEMENT && !is_filled(c, count, c[i].role))
            c[i].place = PLACE_MEMBER;
}

/* --force: of the stale ones that fill a gap, the freshest. False: there is none. */
static bool take_stale(struct raid_candidate *c, size_t count)
{
    struct raid_candidate *best = NULL;
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_STALE && c[i].role != RAID_NO_DISK &&
            !is_filled(c, count, c[i].role) && (!best || better(&c[i], best)))
            best = &c[i];
    if (best)
        best->place = PLACE_MEMBER;
    return best != NULL;
}

/* --- the plan ----------------------------------------------------------------------------------
 */

struct raid_wanted raid_wanted_of(const struct md_super *s, bool next)
{
    const int level = next ? s->new_level : s->level;
    const uint64_t chunk = next ? s->new_chunk : s->chunk;
    int more = s->reshaping && !next ? s->delta_disks : 0;
    return (struct raid_wanted){.level = level,
                                .layout = next ? s->new_layout : s->layout,
                                .disks = (unsigned)((int)s->disks - more),
                                .chunk = level == 1 ? 0 : chunk,
                                .used = s->size};
}

/* Bytes of data by role; zoned levels need all of them. */
static int make_shape(const struct raid_candidate *c, size_t count, struct raid_plan *p,
                      struct blk_error *e)
{
    const struct md_super *s = p->freshest;
    auto_free uint64_t *sizes = mem_array(MAX(md_super_roles(s), 1), sizeof(*sizes));
    if (!sizes)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_MEMBER)
            sizes[c[i].role] = c[i].super->data_size;
    struct raid_wanted w = raid_wanted_of(s, false);
    const struct raid_level *l = raid_level_by_number(s->level);
    if (l && l->is_zoned) {
        for (unsigned d = 0; d < s->disks; d++)
            if (sizes[d] == 0)
                return err_set(e, -EINVAL, "member %u of %u is missing, and %s has no redundancy",
                               d, s->disks, l->name);
        w.members = sizes;
    }
    return raid_shape_init(&p->shape, &w, e);
}

/* Whether the stripe log says of all that was being written what it is: every member that was
 * written to has it, of one session. Where only a replacement says dirty, that update was not at an
 * end, and nothing has been written. */
static bool has_log(const struct raid_candidate *c, size_t count, const struct raid_plan *p)
{
    uint64_t session = 0;
    bool dirty = false;
    for (size_t i = 0; i < count; i++) {
        if (c[i].place != PLACE_MEMBER)
            continue;
        if (c[i].super->events + 1 < p->freshest->events)
            return false;
        if (c[i].super->resync_offset == UINT64_MAX)
            continue;
        dirty = true;
        if (!c[i].log_session || (session && session != c[i].log_session))
            return false;
        session = c[i].log_session;
    }
    return session != 0 || !dirty;
}

/* Dirty, or without its journal, and a member that holds data is not there: what was being written
 * when the array went down may have taken other data with it. */
static bool has_write_hole(const struct raid_plan *p, const bool *there)
{
    bool wrong = p->dirty || p->lacks_journal;
    if (!p->shape.level->parities || !wrong || p->missing == 0)
        return false;
    if (p->freshest->features & (MD_PPL | MD_MULTIPLE_PPLS))
        return false;
    unsigned lost_data = 0;
    for (unsigned d = 0; d < p->shape.disks; d++) {
        bool only_parity = true; /* of all rows: P or Q never move in this layout */
        for (uint64_t row = 0; row < p->shape.disks && only_parity; row++) {
            struct raid_row r = raid_row(&p->shape, row);
            only_parity = d == r.p || d == r.q;
        }
        lost_data += !there[d] && !only_parity;
    }
    return lost_data > 0;
}

/* A member that a reshape adds has what the new shape has by now; if it missed that one began:
 * nothing, of nothing. */
static bool has_new_shape(const struct raid_candidate *c, const struct raid_plan *p)
{
    bool begins = p->freshest->reshape_position == 0 && !c->super->reshaping;
    return raid_in_sync(c) || (begins && c->role >= p->shape.disks);
}

/* What is being reshaped goes on in its new shape. */
static int count_new_roles(const struct raid_candidate *c, size_t count, struct raid_plan *p,
                           struct blk_error *e)
{
    const struct md_super *s = p->freshest;
    struct raid_wanted w = raid_wanted_of(s, true);
    struct raid_shape next;
    const struct raid_level *l = raid_level_by_number(s->new_level);
    if (!s->reshaping || !l || l->is_zoned)
        return 0;
    auto_free bool *there = mem_array(s->disks, sizeof(*there));
    if (!there)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_MEMBER && c[i].role < s->disks && has_new_shape(&c[i], p))
            there[c[i].role] = true;
    TRY(raid_shape_init(&next, &w, e));
    p->enough_after = raid_enough(&next, there);
    raid_shape_drop(&next);
    return 0;
}

static unsigned count_place(const struct raid_candidate *c, size_t count, enum raid_place_in place)
{
    unsigned n = 0;
    for (size_t i = 0; i < count; i++)
        n += c[i].place == place;
    return n;
}

static int count_roles(struct raid_candidate *c, size_t count, struct raid_plan *p,
                       struct blk_error *e)
{
    auto_free bool *there = mem_array(p->shape.disks, sizeof(*there));
    if (!there)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        if (c[i].place == PLACE_MEMBER && c[i].role < p->shape.disks && raid_in_sync(&c[i]))
            there[c[i].role] = true;
    p->there = 0;
    for (unsigned d = 0; d < p->shape.disks; d++)
        p->there += there[d];
    p->missing = p->shape.disks - p->there;
    p->enough = raid_enough(&p->shape, there);
    p->dirty = p->freshest->resync_offset != UINT64_MAX && !p->shape.level->is_zoned;
    p->lacks_journal =
        p->freshest->features & MD_JOURNAL && count_place(c, count, PLACE_JOURNAL) == 0;
    p->write_hole = (p->lacks_journal || !has_log(c, count, p)) && has_write_hole(p, there);
    p->enough_after = true;
    return count_new_roles(c, count, p, e);
}

/* A spare sees each update that matters: one that saw more than the freshest member was with others
 * that are not here. */
static bool is_behind_spare(const struct raid_candidate *c, size_t count,
                            const struct md_super *freshest)
{
    for (size_t i = 0; i < count; i++)
        if (c[i].super && md_super_same_array(c[i].super, freshest) &&
            c[i].super->events > freshest->events + 1)
            return true;
    return false;
}

/* Roles that are neither here nor known to have failed: if they are an array by themselves, and
 * somebody's superblock cannot be read, those may have gone on without who is here. */
static bool may_be_behind_unread(const struct raid_candidate *c, size_t count,
                                 const struct raid_plan *p)
{
    bool unread = false, elsewhere[RAID_DISKS_MOST] = {false};
    for (unsigned slot = 0; slot < p->freshest->role_count; slot++)
        if (p->freshest->roles[slot] < p->shape.disks)
            elsewhere[p->freshest->roles[slot]] = true;
    for (size_t i = 0; i < count; i++) {
        unread |= c[i].unread;
        if (c[i].super && c[i].role < p->shape.disks)
            elsewhere[c[i].role] = false;
    }
    return unread && raid_enough(&p->shape, elsewhere);
}

static int judge(const struct raid_candidate *c, size_t count, bool force, struct raid_plan *p,
                 struct blk_error *e)
{
    unsigned split = count_place(c, count, PLACE_SPLIT);
    unsigned stale = count_place(c, count, PLACE_STALE);
    p->needs_force = !p->enough && stale > 0;
    if (split && !force)
        return err_set(e, -EBUSY,
                       "the array was split: %u of its members were written to apart from the "
                       "others; leave out those that are to be forgotten",
                       split);
    if (is_behind_spare(c, count, p->freshest) && !force)
        return err_set(e, -ENODEV,
                       "a spare is newer than all members that are there: with force they start, "
                       "and what was written since they left is lost");
    if (may_be_behind_unread(c, count, p) && !force)
        return err_set(e, -EIO,
                       "the superblock of a member cannot be read, and it may be newer than the "
                       "others: leave it out, or start with force; what was written since these "
                       "left is lost then");
    if (!p->enough)
        return err_set(e, -ENODEV, "%u of %u members are there, which is not enough for %s%s",
                       p->there, p->shape.disks, p->shape.level->name,
                       p->needs_force ? "; with force the stale ones are taken too: what was "
                                        "written since they left may be lost"
                                      : "");
    if (!p->enough_after)
        return err_set(e, -ENODEV,
                       "%s is being reshaped to %u members, and too many of those are missing",
                       p->shape.level->name, p->freshest->disks);
    if (p->write_hole && !force)
        return err_set(e, -EUCLEAN,
                       "%s %s when it went down, and %u of its members are "
                       "missing: with force it starts, and single blocks may be wrong",
                       p->shape.level->name,
                       p->lacks_journal ? "lacks its journal, which has what was being written"
                                        : "was being written to",
                       p->missing);
    return 0;
}

int raid_plan(struct raid_candidate *c, size_t count, bool force, struct raid_plan *out,
              struct blk_error *e)
{
    size_t best = freshest_of(c, count);
    *out = (struct raid_plan){0};
    if (best == NOBODY)
        return err_set(e, -ENODATA, "none of these has a superblock of md");
    out->freshest = c[best].super;
    for (size_t i = 0; i < count; i++)
        place_one(&c[i], out->freshest);
    drop_duplicates(c, count);
    promote_replacements(c, count);
    const struct raid_level *l = raid_level_by_number(out->freshest->level);
    while (force && l && l->is_zoned && take_stale(c, count))
        continue;
    int rc = make_shape(c, count, out, e);
    if (rc == 0)
        rc = count_roles(c, count, out, e);
    while (rc == 0 && force && !(out->enough && out->enough_after) &&
           take_stale(c, count)) /* no more than it takes */
        rc = count_roles(c, count, out, e);
    if (rc == 0)
        rc = judge(c, count, force, out, e);
    if (rc < 0)
        raid_shape_drop(&out->shape);
    return rc;
}

void raid_plan_drop(struct raid_plan *p)
{
    raid_shape_drop(&p->shape);
}

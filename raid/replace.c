/* SPDX-License-Identifier: BSD-3-Clause */
/* replace.c - hot replace: a member goes on serving while another one is filled to take its place,
 * so that the array is never degraded.
 *
 * Order:
 *  1. between writes superblocks say that the spare has the same role, as a replacement
 *     (MD_REPLACEMENT), in sync up to 0; from then on it gets what the member gets (A6);
 *  2. it is filled, and how far that is stands in its superblock (sync.c);
 *  3. all is flushed, and between writes superblocks say that it is in sync, still a replacement:
 * if that cannot be written the member is still there;
 *  4. superblocks say that the member failed and the other one has its place.
 * A crash on the way: Linux goes on, or we do. After one in the middle of writes the two may differ
 * where those were, so that it is filled from the beginning. */
#include "raid/intent.h"

static void join(struct raid_member *old, struct raid_member *m)
{
    m->replaces = old;
    m->role = old->role;
    m->state = MEMBER_REBUILDING;
    old->replacement = m;
}

void array_take_replacement(struct raid_array *a, struct raid_member *m)
{
    bool whole = m->state == MEMBER_IN_SYNC;
    struct raid_member *old = m->role < a->shape.disks ? a->by_role[m->role] : NULL;
    if (!old || old->replacement || a->super->reshaping) {
        m->state = MEMBER_OUT;
        m->role = RAID_NO_DISK;
        return;
    }
    join(old, m);
    if (whole)
        m->recovered = m->recovered_saved = a->shape.member;
    if (a->was_dirty)
        m->recovered = m->recovered_saved = 0;
}

/* What is under way to the member still goes to its replacement; nothing that comes does. */
void array_forget_replacement(struct raid_array *a, struct raid_member *m)
{
    struct raid_member *next = m->replacement, *old = m->replaces;
    if (old) {
        old->replacement = NULL;
        m->replaces = NULL;
    } else if (next && next->replaces == m) {
        next->replaces = NULL;
        a->by_role[next->role] = next;
    }
}

static int may_replace(const struct raid_array *a, const struct raid_member *old,
                       const struct raid_member *spare, struct blk_error *e)
{
    if (!a->super || !a->engine->co_rebuild)
        return err_set(e, -ENOTSUP, "members of %s are not replaced while it %s",
                       a->shape.level->name, a->super ? "serves" : "has no superblocks");
    if (a->by_role[old->role] != old || old->state != MEMBER_IN_SYNC)
        return err_set(e, -EBUSY, "%s is not in sync itself", member_name(old));
    if (old->replacement)
        return err_set(e, -EBUSY, "%s is being replaced already", member_name(old));
    if (!spare || spare->state != MEMBER_SPARE)
        return err_set(e, -ENODEV, "there is no spare to replace %s: add one first",
                       member_name(old));
    if (spare->super->data_size < a->shape.member)
        return err_set(e, -ENOSPC, "%s is too small to take the place of a member",
                       member_name(spare));
    return 0;
}

int co_array_replace(struct raid_array *a, struct raid_member *old, struct raid_member *spare,
                     struct blk_error *e)
{
    struct co_range_hold hold;
    co_range_lock(&a->writers, &hold, 0, INT64_MAX, false);
    co_mutex_lock(&a->state_lock);
    int rc = may_replace(a, old, spare, e);
    if (rc == 0) {
        spare->data_offset = spare->super->data_offset;
        spare->recovered = spare->recovered_saved = 0;
        join(old, spare);
        (void)md_super_set_role(a->super, spare->super->number, spare->role); /* it has a slot */
        rc = co_array_write_supers_locked(a);
        if (rc < 0)
            (void)err_errno(e, rc, "the superblocks cannot be written");
    }
    co_mutex_unlock(&a->state_lock);
    co_range_unlock(&a->writers, &hold);
    return rc;
}

/* @old is out in all superblocks but its own, which stays as it is (A3). */
static int co_swap(struct raid_array *a, struct raid_member *old, struct raid_member *m)
{
    a->by_role[m->role] = m;
    old->replacement = m->replaces = NULL;
    old->state = MEMBER_OUT;
    (void)md_super_set_role(a->super, old->super->number, MD_ROLE_FAULTY);
    blk_tell(a->dev, BLK_EV_MEMBER_FAILED);
    return co_array_write_supers_locked(a);
}

int co_array_replaced(struct raid_array *a, struct raid_member *m)
{
    struct co_range_hold hold;
    int rc = 0;
    co_range_lock(&a->writers, &hold, 0, INT64_MAX, false);
    co_mutex_lock(&a->state_lock);
    if (m->state == MEMBER_REBUILDING) {
        m->state = MEMBER_IN_SYNC;
        rc = co_array_write_supers_locked(a);
    }
    if (rc == 0 && m->state == MEMBER_IN_SYNC && m->replaces)
        rc = co_swap(a, m->replaces, m);
    co_mutex_unlock(&a->state_lock);
    co_range_unlock(&a->writers, &hold);
    return rc < 0 ? rc : co_intent_sweep(a->intent, true);
}

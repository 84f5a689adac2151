/* SPDX-License-Identifier: BSD-3-Clause */
/* change.c - members that come and go while the array is in use, and arrays that grow.
 *
 * Order of add: (1) old superblocks of the device go, its log of bad blocks and bitmap are written,
 * all durable; (2) all superblocks, its own among them, say that it is a spare. It takes a place
 * when there is work to be done (sync.c). With a bitmap, one that was a member before takes its
 * place at once, and only what bits are set for is copied.
 * Order of images of LVM2 that come back: (1) the bitmap is written to it; (2) all superblocks say
 * that it has its place, and nothing yet.
 * Order of grow: (1) superblocks say the new size, and that what is new is not in sync; (2) the
 * device shows it. */
#include <stdlib.h>

#include "raid/badblocks.h"
#include "raid/create.h"
#include "raid/intent.h"
#include "raid/reshape.h"

/* By its role, or its name; of several that are called the same one with @state is meant. */
static struct raid_member *find(const struct raid_array *a, const char *name,
                                enum raid_member_state state)
{
    struct raid_member *found = NULL;
    char *end;
    unsigned long role = strtoul(name, &end, 10);
    if (*name >= '0' && *name <= '9' && !*end)
        return role < a->shape.disks ? a->by_role[role] : NULL;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->dev && strcmp(member_name(m), name) == 0 && (!found || m->state == state))
            found = m;
    }
    return found;
}

/* --- add ---------------------------------------------------------------------------------------
 */

/* A slot of the role table that nobody has, behind those of the first members. */
static bool free_slot(const struct raid_array *a, unsigned *slot)
{
    for (*slot = a->shape.disks; *slot < MD_ROLES_1; ++*slot) {
        bool taken = md_super_role(a->super, *slot) < MD_ROLE_MOST;
        for (unsigned i = 0; i < a->member_count && !taken; i++)
            taken =
                a->members[i].dev && a->members[i].super && a->members[i].super->number == *slot;
        if (!taken)
            return true;
    }
    return false;
}

/* Where its data ends: version 1.0 has superblock, bitmap and log behind it. */
static uint64_t data_end(const struct md_super *s, uint64_t device)
{
    int64_t before = MIN(0, MIN(s->bitmap_offset, s->bad_offset));
    return s->version == MD_1_0 ? s->super_offset - (uint64_t)-before : align_down(device, 512);
}

/* What the new member's superblock says: as the others', but for its own. */
static int fill(const struct raid_array *a, struct blk_device *dev, struct md_super *s,
                struct blk_error *e)
{
    *s = *a->super;
    if (s->version == MD_0_90)
        return err_set(e, -ENOTSUP,
                       "superblocks of version 0.90 take no new members here: `mdadm --add` on "
                       "Linux does that");
    if (!free_slot(a, &s->number))
        return err_set(e, -ENOSPC, "the array's superblocks have no room for another member");
    if (!md_super_place(s->version, dev->size, &s->super_offset) || dev->size <= s->data_offset ||
        data_end(s, dev->size) <= s->data_offset)
        return err_set(e, -ENOSPC, "%s is too small for a member of this array", dev->name);
    s->data_size = data_end(s, dev->size) - s->data_offset;
    if (s->data_size < a->shape.member)
        return err_set(e, -ENOSPC,
                       "%s has room for %" PRIu64 " bytes of data, and members hold %" PRIu64,
                       dev->name, s->data_size, a->shape.member);
    host_random(dev->host, s->device_uuid, sizeof(s->device_uuid));
    s->features &= ~(unsigned)(MD_RECOVERY | MD_BAD_BLOCKS | MD_REPLACEMENT | MD_BITMAP_RECOVERY);
    s->recovery_offset = UINT64_MAX;
    s->corrected_reads = 0;
    s->devflags = 0;
    return 0;
}

static int may_join(const struct raid_array *a, struct blk_device *dev, struct blk_error *e)
{
    if (!a->super || a->shape.level->is_zoned)
        return err_set(e, -ENOTSUP, "%s takes no further members: make a new array and copy",
                       a->super ? a->shape.level->name : "an array without superblocks");
    if (a->super->version == MD_DM_RAID)
        return err_set(e, -ENOTSUP, "LVM2 says which images its arrays have: lvconvert --repair");
    if (dev->limits.request_align > a->dev->limits.request_align)
        return err_set(e, -EINVAL, "%s has larger sectors than the array", dev->name);
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].dev == dev)
            return err_set(e, -EEXIST, "%s is a member already", dev->name);
    return 0;
}

/* One that was removed leaves its place. */
static struct raid_member *free_member(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++)
        if (!a->members[i].dev)
            return &a->members[i];
    return a->member_count < a->member_room ? &a->members[a->member_count++] : NULL;
}

/* What is on the device before its superblock. */
static int co_prepare(struct raid_array *a, struct blk_device *dev, const struct md_super *s,
                      bool again)
{
    if (!again)
        TRY(co_raid_prepare_member(dev, s));
    return a->intent ? co_intent_copy_to(a->intent, dev, s) : 0;
}

/* @role: MD_ROLE_SPARE, or the place that it had. Gives 1 once it is in. */
static int co_take_in(struct raid_array *a, struct blk_device *dev, struct md_super *s,
                      unsigned role, struct blk_error *e)
{
    with_lock(&a->state_lock);
    struct raid_member *m = free_member(a);
    struct bad_list *bad = NULL;
    int rc = m ? co_bad_load(dev, s, &bad, e) : 0;
    if (rc < 0)
        return rc;
    if (!m || blk_add_child(a->dev, "member", dev) < 0) {
        mem_free(bad);
        return err_set(e, -ENOMEM, "no more members can be added while the array is open");
    }
    *m = (struct raid_member){
        .dev = dev, .super = s, .data_offset = s->data_offset, .bad = bad, .array = a};
    m->role = RAID_NO_DISK;
    m->state = MEMBER_SPARE;
    if (role < MD_ROLE_MOST) {
        m->role = role;
        m->state = MEMBER_REBUILDING;
        m->by_bitmap = true;
        a->by_role[role] = m;
    }
    (void)md_super_set_role(a->super, s->number, role);
    rc = co_array_write_supers_locked(a);
    return rc < 0 ? err_errno(e, rc, "the superblocks cannot be written") : 1;
}

/* @again: in the place that its superblock says. Gives 1 once it is in. */
static int co_join(struct raid_array *a, struct blk_device *dev, struct md_super *s, bool again,
                   struct blk_error *e)
{
    unsigned role = again ? md_super_role(s, s->number) : MD_ROLE_SPARE;
    int rc = co_prepare(a, dev, s, again);
    if (rc < 0)
        return err_errno(e, rc, "%s", dev->name);
    struct co_range_hold hold; /* between writes, as co_array_use_spares() */
    co_range_lock(&a->writers, &hold, 0, INT64_MAX, false);
    rc = co_take_in(a, dev, s, role, e);
    co_range_unlock(&a->writers, &hold);
    return rc;
}

static bool is_slot_taken(const struct raid_array *a, unsigned number)
{
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].dev && a->members[i].state != MEMBER_OUT &&
            a->members[i].super->number == number)
            return true;
    return false;
}

/* Why who has that superblock does not go back to its place with only what changed since; NULL: it
 * does. */
static const char *not_again(const struct raid_array *a, const struct md_super *own)
{
    if (!own || !md_super_same_array(own, a->super) || own->version != a->super->version)
        return "it was no member of this array";
    unsigned role = md_super_role(own, own->number);
    bool filled = !(own->features & MD_RECOVERY) || own->features & MD_BITMAP_RECOVERY;
    if (role >= a->shape.disks || !filled)
        return "it had no place, or was not filled yet, when it left";
    if (a->by_role[role] || is_slot_taken(a, own->number))
        return "another one has its place by now";
    if (!a->intent)
        return "the array has no bitmap, so that nothing says what has changed since";
    if (own->size != a->super->size || own->events > a->super->events)
        return "the array has changed without it";
    if (!intent_reaches(a->intent, own->events))
        return "the bitmap has forgotten what changed since";
    return NULL;
}

/* Whether the device was a member, and missed only what the bitmap knows of: then its superblock is
 * *s. -errno: it was not, and @c wants that. */
static int co_look_back(const struct raid_array *a, const struct blk_member_change *c,
                        struct md_super *s, bool *again, struct blk_error *e)
{
    struct blk_error ignored = {0};
    struct md_super *own;
    if (co_member_find_super(c->device, &own, &ignored) == -ENOMEM)
        return err_set(e, -ENOMEM, "out of memory");
    const char *why = not_again(a, own);
    *again = !why && c->action != BLK_MEMBER_REPLACE;
    if (*again)
        *s = *own;
    mem_free(own);
    return why && c->action == BLK_MEMBER_RE_ADD
               ? err_set(e, -EINVAL, "--re-add for %s is not possible: %s; add it as a new member",
                         c->device->name, why)
               : 0;
}

static int co_add(struct raid_array *a, const struct blk_member_change *c, struct blk_error *e)
{
    struct blk_device *dev = c->device;
    struct md_super *s = mem_alloc(sizeof(*s));
    bool again = false;
    int rc = s ? may_join(a, dev, e) : err_set(e, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = co_look_back(a, c, s, &again, e);
    if (rc == 0 && !again)
        rc = fill(a, dev, s, e);
    if (rc == 0)
        rc = co_join(a, dev, s, again, e);
    if (rc == 1)
        return 0;
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].super == s) /* it is in, and stays */
            return rc;
    mem_free(s);
    co_blk_close(dev, NULL);
    return rc;
}

/* --- images of LVM2 that were away -------------------------------------------------------------
 */

/* Whether @m, which was left out, is the image of a place that is empty. */
static bool was_image(const struct raid_array *a, const struct raid_member *m)
{
    return m->state == MEMBER_OUT && m->super && md_super_same_array(m->super, a->super) &&
           m->super->number < a->shape.disks && !a->by_role[m->super->number] &&
           m->super->data_size >= a->super->size;
}

/* A new image in the place of one that was lost, as the text of LVM2 has them in order: it has no
 * superblock yet. */
static bool is_new_image(const struct raid_array *a, const struct raid_member *m)
{
    size_t place = (size_t)(m - a->members);
    return m->state == MEMBER_OUT && !m->super && m->dev->driver != &null_driver &&
           a->member_count == a->shape.disks && !a->by_role[place] &&
           m->dev->size >= a->dm_offset + a->super->size;
}

/* What the others say, but of that place. */
static int make_super(const struct raid_array *a, struct raid_member *m, struct blk_error *e)
{
    m->super = mem_alloc(sizeof(*m->super));
    if (!m->super)
        return err_set(e, -ENOMEM, "out of memory");
    *m->super = *a->super;
    m->super->number = (unsigned)(m - a->members);
    m->super->data_size = m->dev->size - a->dm_offset;
    m->super->features |= MD_RECOVERY;
    m->super->events = 0;
    return 0;
}

/* It has nothing until it is filled: what its superblock says of itself is old. If the bitmap knows
 * all that it missed, only that is copied. */
static int co_take_back(struct raid_array *a, struct raid_member *m, struct blk_error *e)
{
    bool known = a->intent && intent_reaches(a->intent, m->super->events) &&
                 !(m->super->features & MD_RECOVERY) && m->super->events <= a->super->events;
    int rc = a->intent ? co_intent_copy_to(a->intent, m->dev, m->super) : 0;
    if (rc < 0)
        return err_errno(e, rc, "%s", member_name(m));
    with_lock(&a->state_lock);
    m->role = m->super->number;
    m->state = MEMBER_REBUILDING;
    m->data_offset = m->super->data_offset;
    m->recovered = m->recovered_saved = 0;
    m->by_bitmap = known;
    a->by_role[m->role] = m;
    (void)md_super_set_role(a->super, m->role, m->role);
    rc = co_array_write_supers_locked(a);
    return rc < 0 ? err_errno(e, rc, "the superblocks cannot be written") : 0;
}

static int co_images_again(struct raid_array *a, struct blk_error *e)
{
    struct co_range_hold hold;
    int rc = a->super && a->super->version == MD_DM_RAID
                 ? 0
                 : err_set(e, -EINVAL, "name the member that comes back");
    for (unsigned i = 0; i < a->member_count && rc == 0; i++) {
        if (is_new_image(a, &a->members[i]))
            rc = make_super(a, &a->members[i], e);
        if (rc < 0 || !was_image(a, &a->members[i]))
            continue;
        co_range_lock(&a->writers, &hold, 0, INT64_MAX, false); /* between writes */
        rc = co_take_back(a, &a->members[i], e);
        co_range_unlock(&a->writers, &hold);
    }
    return rc;
}

/* --- fail and remove ---------------------------------------------------------------------------
 */

static int co_fail(struct raid_array *a, struct raid_member *m, struct blk_error *e)
{
    if (m->state == MEMBER_OUT)
        return 0;
    int rc = co_array_fail(a, m);
    return rc < 0
               ? err_set(
                     e, -EBUSY,
                     "%s does not go on without %s: add another member and let it be filled first",
                     a->shape.level->name, member_name(m))
               : 0;
}

static int co_remove(struct raid_array *a, struct raid_member *m, struct blk_error *e)
{
    struct blk_device *dev = m->dev;
    if (m->state == MEMBER_SPARE)
        TRY(co_fail(a, m, e));
    if (m->state != MEMBER_OUT)
        return err_set(e, -EBUSY, "%s is in use: it has to fail before it is removed",
                       member_name(m));
    for (size_t i = 0; i < a->dev->child_count; i++)
        if (a->dev->children[i].dev == dev)
            (void)blk_remove_child(a->dev, i);
    m->dev = NULL;
    mem_free(take(m->super));
    mem_free(take(m->bad));
    co_blk_quiesce(a->dev);
    mem_free(take(m->ppl));
    mem_free(take(m->log));
    return co_blk_close(dev, e);
}

/* --- replace -----------------------------------------------------------------------------------
 */

static struct raid_member *spare_for(const struct raid_array *a, const struct blk_member_change *c)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (array_is_spare(a, m) && (!c->with || strcmp(member_name(m), c->with) == 0) &&
            (!c->device || m->dev == c->device))
            return m;
    }
    return NULL;
}

static int co_replace(struct raid_array *a, struct raid_member *old,
                      const struct blk_member_change *c, struct blk_error *e)
{
    if (c->device)
        TRY(co_add(a, c, e));
    return co_array_replace(a, old, spare_for(a, c), e);
}

/* --- what is asked for -------------------------------------------------------------------------
 */

int co_array_member(struct raid_array *a, const struct blk_member_change *c, struct blk_error *e)
{
    with_lock(&a->changes); /* who is asked for is the same one at the end */
    if (c->action == BLK_MEMBER_RE_ADD && !c->device)
        return co_images_again(a, e);
    if (c->action == BLK_MEMBER_ADD || c->action == BLK_MEMBER_RE_ADD)
        return co_add(a, c, e);
    struct raid_member *m =
        find(a, c->name, c->action == BLK_MEMBER_REMOVE ? MEMBER_OUT : MEMBER_IN_SYNC);
    if (!m || (c->action == BLK_MEMBER_REPLACE && m->role == RAID_NO_DISK)) {
        co_blk_close(c->device, NULL);
        return err_set(e, m ? -EINVAL : -ENOENT,
                       m ? "%s has no place in the array" : "the array has no member %s", c->name);
    }
    if (c->action == BLK_MEMBER_REPLACE)
        return co_replace(a, m, c, e);
    return c->action == BLK_MEMBER_FAIL ? co_fail(a, m, e) : co_remove(a, m, e);
}

/* --- grow --------------------------------------------------------------------------------------
 */

static int may_grow(const struct raid_array *a, const struct blk_members_grow *g,
                    struct blk_error *e)
{
    bool behind = a->super && (a->super->version == MD_0_90 || a->super->version == MD_1_0);
    if (!a->super || a->shape.level->is_zoned || a->super->version == MD_DM_RAID)
        return err_set(e, -ENOTSUP, "%s does not grow: make a new array and copy",
                       a->super ? a->shape.level->name : "an array without superblocks");
    if (g->disks && g->disks != a->shape.disks && a->shape.level->number == 10)
        return err_set(
            e, -ENOTSUP,
            "the number of members of raid10 cannot be changed: make a new array and copy");
    if (a->engine == &raid_reshape_engine)
        return err_set(e, -EBUSY, "the array is being reshaped already");
    if (g->disks > a->shape.disks + RAID_MEMBERS_MORE || g->disks > RAID_COPIES_MOST)
        return err_set(e, -EINVAL, "%u members are too many at once", g->disks);
    for (unsigned role = g->disks; g->disks && role < a->shape.disks; role++)
        if (a->by_role[role])
            return err_set(e, -EBUSY, "%s has to be removed first", member_name(a->by_role[role]));
    if (g->size && (behind || a->shape.far > 1))
        return err_set(e, -ENOTSUP, "%s has to stay as large as it is",
                       behind ? "an array with its superblocks at the end" : "a far layout");
    if (a->super->features & (MD_PPL | MD_MULTIPLE_PPLS | MD_JOURNAL))
        return err_set(e, -ENOTSUP,
                       "an array with a journal of Linux does not grow here: let mdadm do it");
    return 0;
}

/* What all members have room for by now. */
static uint64_t room(const struct raid_array *a)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->state == MEMBER_OUT)
            continue;
        m->super->data_size = data_end(m->super, m->dev->size) - m->super->data_offset;
        least = MIN(least, m->super->data_size);
    }
    return least;
}

/* How much of each is to be used, in md's units. */
static int used_size(const struct raid_array *a, const struct blk_members_grow *g, uint64_t *used,
                     struct blk_error *e)
{
    uint64_t most = room(a), unit = a->shape.chunk ? a->shape.chunk : 64 * KiB;
    uint64_t wanted = align_down(g->size == BLK_GROW_MAX ? most : g->size, unit);
    if (wanted > most)
        return err_set(e, -ENOSPC,
                       "members have room for %" PRIu64 " bytes of data each, not %" PRIu64, most,
                       wanted);
    *used = g->size == BLK_GROW_MAX ? MAX(wanted, a->shape.member) : wanted;
    if (*used < a->shape.member)
        return err_set(e, -EINVAL,
                       "%" PRIu64 " bytes of each member are used: an array does not get smaller",
                       a->shape.member);
    return 0;
}

/* The superblocks' part: what is new is not in sync. */
static int co_take_shape(struct raid_array *a, const struct raid_shape *shape, struct blk_error *e)
{
    with_lock(&a->state_lock);
    uint64_t in_sync = a->was_dirty ? a->resync_at : array_sync_bytes(a);
    TRY(co_intent_resize(a->intent, shape->near ? shape->size : shape->member, e));
    raid_shape_drop(&a->shape);
    a->shape = *shape;
    a->was_dirty = in_sync < array_sync_bytes(a);
    a->resync_at = in_sync;
    a->super->disks = shape->disks;
    a->super->size = shape->member;
    a->super->resync_offset = a->marked_dirty ? 0 : a->was_dirty ? in_sync : UINT64_MAX;
    int rc = co_array_write_supers_locked(a);
    if (rc < 0)
        return err_errno(e, rc, "the superblocks cannot be written");
    a->dev->size = shape->size;
    return 0;
}

int co_array_grow(struct raid_array *a, const struct blk_members_grow *g, struct blk_error *e)
{
    struct raid_shape shape;
    uint64_t used = a->shape.member;
    with_lock(&a->changes);
    TRY(may_grow(a, g, e));
    if (g->disks && g->disks != a->shape.disks && a->shape.level->parities)
        return co_array_reshape_begin(a, g->disks, e);
    if (g->size)
        TRY(used_size(a, g, &used, e));
    struct raid_wanted w = {.level = a->shape.level->number,
                            .layout = a->shape.layout,
                            .disks = g->disks ? g->disks : a->shape.disks,
                            .chunk = a->shape.chunk,
                            .used = used};
    TRY(raid_shape_init(&shape, &w, e));
    return co_take_shape(a, &shape, e);
}

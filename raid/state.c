/* SPDX-License-Identifier: BSD-3-Clause */
/* state.c - what the superblocks say while an array lives.
 *
 * Order of an update: what it is about is durable; then all superblocks at once, each durable
 * (FUA); a member whose superblock cannot be written fails, and all is written once more. */
#include "raid/badblocks.h"
#include "raid/intent.h"
#include "raid/journal.h"
#include "raid/log.h"
#include "raid/reshape.h"

static struct raid_member *array_in_sync(const struct raid_array *a, unsigned role, uint64_t offset,
                                         uint64_t bytes)
{
    struct raid_member *m = a->by_role[role];
    if (!m || m->state == MEMBER_IN_SYNC)
        return m;
    return offset + bytes <= m->recovered ? m : NULL;
}

struct raid_member *array_readable(const struct raid_array *a, unsigned role, uint64_t offset,
                                   uint64_t bytes)
{
    struct raid_member *m = array_in_sync(a, role, offset, bytes);
    return m && m->bad && bad_hits(m->bad, m->data_offset + offset, bytes) ? NULL : m;
}

bool array_is_bad(const struct raid_array *a, unsigned role, uint64_t offset, uint64_t bytes)
{
    return array_in_sync(a, role, offset, bytes) && !array_readable(a, role, offset, bytes);
}

uint64_t array_even(const struct raid_array *a, unsigned role, uint64_t offset, uint64_t bytes)
{
    const struct raid_member *m = a->by_role[role];
    return m && m->bad ? bad_even(m->bad, m->data_offset + offset, bytes) : bytes;
}

/* --- writing superblocks -----------------------------------------------------------------------
 */

void array_roles_told(struct raid_array *a)
{
    a->told_count = a->super->role_count;
    memcpy(a->told, a->super->roles, sizeof(a->told));
}

/* What the array says goes into the member's own. One that is behind gets the roles of the update
 * that it missed: two of the same events that differ are halves of a split array. */
static void fill(const struct raid_array *a, struct raid_member *m, bool behind)
{
    struct md_super *s = m->super;
    s->events = a->super->events;
    s->utime = a->super->utime;
    s->resync_offset = a->super->resync_offset;
    s->disks = a->super->disks;
    s->size = a->super->size;
    s->role_count = behind ? a->told_count : a->super->role_count;
    memcpy(s->roles, behind ? a->told : a->super->roles, sizeof(s->roles));
    s->reshaping = a->super->reshaping;
    s->delta_disks = a->super->delta_disks;
    s->new_level = a->super->new_level;
    s->new_layout = a->super->new_layout;
    s->new_chunk = a->super->new_chunk;
    s->reshape_position = a->super->reshape_position;
    unsigned of_array = MD_RESHAPE_FEATURES | MD_JOURNAL;
    s->features &= ~(unsigned)(MD_RECOVERY | MD_BITMAP_RECOVERY | of_array);
    s->features |= a->super->features & of_array;
    if (m->state != MEMBER_JOURNAL)
        s->recovery_offset = UINT64_MAX;
    s->features &= ~(unsigned)MD_REPLACEMENT;
    s->features |= m->replaces ? MD_REPLACEMENT : 0;
    if (m->state == MEMBER_REBUILDING) {
        s->features |= MD_RECOVERY | (m->by_bitmap ? MD_BITMAP_RECOVERY : 0);
        s->recovery_offset = m->recovered_saved;
    }
    if (m->bad) {
        s->features &= ~(unsigned)MD_BAD_BLOCKS;
        s->features |= m->bad->told_count ? MD_BAD_BLOCKS : 0;
    }
    if (m->read_errors)
        s->corrected_reads += (uint32_t)MIN(m->read_errors, UINT32_MAX - s->corrected_reads);
    m->read_errors = 0;
    md_super_build(s);
}

struct update {
    struct raid_array *a;
    struct raid_member *m;
    int rc;
};

static int co_write_one(void *arg)
{
    struct update *u = arg;
    struct md_super *s = u->m->super;
    uint64_t block = MAX(u->m->dev->limits.request_align, 512);
    u->rc = co_log_announce(u->a, u->m);
    if (u->rc < 0)
        return 0;
    u->rc = co_blk_write_buf(u->m->dev, s->super_offset, s->raw, md_super_bytes(s, block), BLK_FUA);
    log_announced(u->m, u->rc == 0);
    if (u->rc == 0)
        u->m->events = s->events;
    if (u->rc == 0 && u->m->bad)
        u->m->bad->shown = s->features & MD_BAD_BLOCKS;
    return 0;
}

static bool has_super_to_write(const struct raid_member *m)
{
    return m->super && m->state != MEMBER_OUT;
}

static bool is_behind(const struct raid_array *a, const struct raid_member *m)
{
    return has_super_to_write(m) && m->events != a->super->events;
}

/* *failed: one whose superblock could not be written; NULL: none. @behind: only those that are. */
static int co_write_all(struct raid_array *a, bool behind, struct raid_member **failed)
{
    struct co_group g;
    auto_free struct update *updates = mem_array(a->member_count, sizeof(*updates));
    if (!updates)
        return -ENOMEM;
    *failed = NULL;
    if (a->intent && !behind)
        TRY(co_intent_head(a->intent, failed));
    if (*failed)
        return 0;
    co_group_init(&g, 0);
    for (unsigned i = 0; i < a->member_count; i++) {
        updates[i] = (struct update){.a = a, .m = &a->members[i]};
        if (!has_super_to_write(&a->members[i]) || (behind && !is_behind(a, &a->members[i])))
            continue;
        fill(a, &a->members[i], behind);
        co_group_start(&g, co_write_one, &updates[i]);
    }
    int rc = co_group_wait(&g);
    for (unsigned i = 0; i < a->member_count && !*failed; i++)
        if (updates[i].rc < 0)
            *failed = updates[i].m;
    return rc;
}

bool array_can_spare(const struct raid_array *a, const struct raid_member *m)
{
    bool there[RAID_DISKS_MOST];
    if (m->state == MEMBER_JOURNAL)
        return false;
    if (m->role == RAID_NO_DISK || a->by_role[m->role] != m || m->state != MEMBER_IN_SYNC)
        return true;
    for (unsigned d = 0; d < a->shape.disks; d++) {
        const struct raid_member *other = a->by_role[d];
        there[d] = other && other != m && other->state == MEMBER_IN_SYNC;
    }
    return raid_enough(&a->shape, there);
}

/* The views of one that has ended count no more. */
static bool is_reshaping(const struct raid_array *a)
{
    return a->engine == &raid_reshape_engine;
}

/* While it is reshaped: in both views. */
static bool can_go(const struct raid_array *a, const struct raid_member *m)
{
    return array_can_spare(a, m) && (!is_reshaping(a) || raid_reshape_can_spare(a, m));
}

static void take_out(struct raid_array *a, struct raid_member *m)
{
    if (is_reshaping(a))
        raid_reshape_forget(a, m);
    if (m->role != RAID_NO_DISK && a->by_role[m->role] == m)
        a->by_role[m->role] = NULL;
    m->state = MEMBER_OUT;
    log_leave(m);
    array_forget_replacement(a, m);
    a->untold = a->super != NULL;
    if (a->super)
        (void)md_super_set_role(a->super, m->super->number, MD_ROLE_FAULTY);
    blk_tell(a->dev, BLK_EV_MEMBER_FAILED);
}

/* Whether who has a role by that slot is not there. */
static bool is_missing(const struct raid_array *a, unsigned slot)
{
    bool there = a->super->roles[slot] >= MD_ROLE_MOST;
    for (unsigned i = 0; i < a->member_count && !there; i++)
        there = has_super_to_write(&a->members[i]) && a->members[i].super->number == slot;
    return !there;
}

/* Who is not there has no role any more: from this update on it misses what is written. */
static void forget_missing(struct raid_array *a)
{
    for (unsigned slot = 0; slot < a->super->role_count; slot++)
        if (is_missing(a, slot))
            (void)md_super_set_role(a->super, slot, MD_ROLE_FAULTY);
}

/* @m has failed and cannot be spared. If it cannot even be flushed, it may have lost more than what
 * failed. */
static void co_look_for_loss(struct raid_array *a, struct raid_member *m)
{
    int rc = co_blk_flush(m->dev);
    a->lost |= rc < 0 && rc != -ENOMEM;
}

/* One update that is at an end everywhere, or members that failed at it are out. */
static int co_level_locked(struct raid_array *a)
{
    struct raid_member *failed;
    assert_held(&a->state_lock);
    TRY(co_write_all(a, true, &failed));
    if (failed && !can_go(a, failed))
        return -EIO;
    if (failed)
        take_out(a, failed);
    return 0;
}

int co_array_settle(struct raid_array *a)
{
    if (a->shape.level->is_zoned) /* nothing is built on anything */
        return 0;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        int rc = m->state == MEMBER_OUT ? 0 : co_blk_flush(m->dev);
        if (rc < 0 && !can_go(a, m))
            return rc;
        if (rc < 0)
            take_out(a, m);
    }
    return 0;
}

int co_array_level(struct raid_array *a)
{
    with_lock(&a->state_lock);
    if (!a->super)
        return 0;
    return a->untold ? co_array_write_supers_locked(a) : co_level_locked(a);
}

int co_array_write_supers_locked(struct raid_array *a)
{
    assert_held(&a->state_lock);
    struct raid_member *failed;
    TRY(co_level_locked(a));
    forget_missing(a);
    do {
        a->super->events++;
        a->super->utime = host_wall_clock(a->dev->home->host) / 1000000000;
        array_roles_told(a);
        TRY(co_write_all(a, false, &failed));
        if (failed && !can_go(a, failed)) {
            co_look_for_loss(a, failed);
            return -EIO;
        }
        if (failed)
            take_out(a, failed);
    } while (failed);
    a->untold = false;
    return 0;
}

int co_array_tell(struct raid_array *a)
{
    if (a->whole)
        return co_array_tell(a->whole);
    if (likely(!a->untold && !a->failing))
        return 0;
    with_lock(&a->state_lock);
    return a->untold ? co_array_write_supers_locked(a) : 0;
}

int co_array_go_without(struct raid_array *a)
{
    with_lock(&a->state_lock);
    bool news = a->untold;
    for (unsigned slot = 0; slot < a->super->role_count && !news; slot++)
        news = is_missing(a, slot);
    return news ? co_array_write_supers_locked(a) : 0;
}

int co_array_write_supers(struct raid_array *a)
{
    with_lock(&a->state_lock);
    return a->super ? co_array_write_supers_locked(a) : 0;
}

/* --- failing -----------------------------------------------------------------------------------
 */

/* Until it is over, others do not rely on what they have read: an fsync that failed may have made
 * it older than what was written, and an update that is under way can keep the judge waiting. */
static void co_begin_judging(struct raid_array *a)
{
    a->failing++;
    co_mutex_lock(&a->state_lock);
}

static void end_judging(struct raid_array *a)
{
    co_mutex_unlock(&a->state_lock);
    a->failing--;
}

static int co_fail_locked(struct raid_array *a, struct raid_member *m)
{
    assert_held(&a->state_lock);
    if (m->state == MEMBER_OUT) /* another request came first */
        return a->untold ? co_array_write_supers_locked(a) : 0;
    if (!can_go(a, m)) {
        co_look_for_loss(a, m);
        return -EIO;
    }
    take_out(a, m);
    return a->super ? co_array_write_supers_locked(a) : 0;
}

int co_array_fail(struct raid_array *a, struct raid_member *m)
{
    if (a->whole)
        return co_array_fail(a->whole, &a->whole->members[m - a->members]);
    co_begin_judging(a);
    int rc = co_fail_locked(a, m);
    end_judging(a);
    return rc;
}

/* Its list says what @m does not have, then its superblock that there is one. */
static int co_tell_bad(struct raid_array *a, struct raid_member *m, uint64_t at, uint64_t bytes)
{
    TRY(co_bad_tell(m->dev, m->bad, at, bytes));
    return m->bad->shown ? 0 : co_array_write_supers_locked(a);
}

static int co_miss_locked(struct raid_array *a, const struct member_io *write, bool others)
{
    struct raid_array *all = a->whole ? a->whole : a;
    struct raid_member *m = &all->members[write->m - a->members];
    uint64_t at = write->m->data_offset + write->offset;
    uint64_t bytes = write->op == MEMBER_ZERO ? write->bytes : write->vec.bytes;
    bool medium = write->rc == -EIO || write->rc == -ENODATA;
    if (m->state == MEMBER_OUT)
        return co_fail_locked(all, m);
    if (!others) {
        co_look_for_loss(all, m);
        return -EIO;
    }
    if (medium && m->bad && bad_add(m->bad, at, bytes) && co_tell_bad(all, m, at, bytes) == 0)
        return 0;
    return co_fail_locked(all, m);
}

int co_array_miss(struct raid_array *a, const struct member_io *write, bool others)
{
    struct raid_array *all = a->whole ? a->whole : a;
    co_begin_judging(all);
    int rc = co_miss_locked(a, write, others);
    end_judging(all);
    return rc;
}

/* --- clean and dirty ---------------------------------------------------------------------------
 */

/* While it is written to all of it may disagree after a crash, whatever was in sync before; with a
 * journal, nothing that was. */
static int co_begin_writing(struct raid_array *a)
{
    uint64_t was = a->super->resync_offset, in_sync = a->was_dirty ? a->resync_at : UINT64_MAX;
    if (a->journal)
        TRY(co_journal_begin(a));
    a->super->resync_offset = a->journal ? in_sync : a->ppl && a->was_dirty ? a->resync_at : 0;
    int rc = co_array_write_supers_locked(a);
    if (rc < 0)
        a->super->resync_offset = was;
    else if (a->journal)
        journal_begun(a->journal);
    return rc;
}

/* Zoned levels have nothing that could be out of sync. */
int co_array_mark_dirty(struct raid_array *a)
{
    if (likely(a->marked_dirty))
        return 0;
    with_lock(&a->state_lock);
    if (a->marked_dirty)
        return 0;
    if (a->super && !a->shape.level->is_zoned)
        TRY(co_begin_writing(a));
    a->marked_dirty = true;
    return 0;
}

static int co_flush_member(void *arg)
{
    struct member_io *io = arg;
    io->rc = co_blk_flush(io->m->dev);
    return 0;
}

int co_array_flush(struct raid_array *a)
{
    struct co_group g;
    unsigned count = a->member_count;
    auto_free struct member_io *io = mem_array(count, sizeof(*io));
    if (!io)
        return -ENOMEM;
    co_group_init(&g, 0);
    for (unsigned i = 0; i < count; i++) {
        io[i].m = &a->members[i];
        if (io[i].m->state != MEMBER_OUT)
            co_group_start(&g, co_flush_member, &io[i]);
    }
    int rc = co_group_wait(&g);
    for (unsigned i = 0; i < count; i++)
        if (io[i].rc < 0 && co_array_fail(a, io[i].m) < 0)
            rc = io[i].rc;
    return a->torn || a->lost || (is_reshaping(a) && raid_reshape_torn(a)) ? -EIO : rc;
}

/* What resync and recovery have reached now is what counts once it has been flushed. False: the
 * superblocks say all of that already. */
static bool take_positions(struct raid_array *a, uint64_t *resync, uint64_t *recovered)
{
    bool news = false;
    *resync = a->was_dirty ? a->resync_at : UINT64_MAX;
    for (unsigned i = 0; i < a->member_count; i++) {
        recovered[i] = a->members[i].recovered;
        news |= a->members[i].recovered != a->members[i].recovered_saved;
    }
    return news;
}

/* @clean: nobody writes any more. */
static int co_settle(struct raid_array *a, bool clean)
{
    uint64_t resync;
    auto_free uint64_t *recovered = mem_array(a->member_room, sizeof(*recovered));
    if (!recovered)
        return -ENOMEM;
    bool news = take_positions(a, &resync, recovered);
    bool idle = clean || !a->marked_dirty;
    if (!a->super || a->shape.level->is_zoned ||
        (!news && (!idle || a->super->resync_offset == resync)))
        return 0;
    TRY(co_array_flush(a));
    with_lock(&a->state_lock);
    clean |= !a->marked_dirty; /* somebody may have begun to write meanwhile */
    for (unsigned i = 0; i < a->member_count; i++)
        a->members[i].recovered_saved = recovered[i];
    if (clean)
        a->super->resync_offset = resync;
    int rc = co_array_write_supers_locked(a);
    if (rc == 0 && clean)
        a->marked_dirty = false;
    return rc;
}

/* What has been written since it was bad goes from the member's list, once it is flushed. */
static int co_forget_bad_of(struct raid_array *a, struct raid_member *m)
{
    auto_free struct bad_list *before = mem_alloc(sizeof(*before));
    if (!before)
        return -ENOMEM;
    m->bad->fewer = false;
    *before = *m->bad;
    int rc = co_blk_flush(m->dev);
    with_lock(&a->state_lock);
    if (m->state == MEMBER_OUT) /* meanwhile */
        return 0;
    if (rc == 0)
        rc = co_bad_forget(m->dev, m->bad, before);
    m->bad->fewer |= rc < 0;
    return rc == 0 || rc == -ENOMEM ? rc : co_fail_locked(a, m);
}

static int co_forget_bad(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->state != MEMBER_OUT && m->bad && m->bad->fewer && m->bad->told_count)
            TRY(co_forget_bad_of(a, m));
    }
    return 0;
}

int co_array_checkpoint(struct raid_array *a)
{
    TRY(co_forget_bad(a));
    TRY(co_intent_sweep(a->intent, false));
    return co_settle(a, false);
}

int co_array_mark_clean(struct raid_array *a)
{
    if (a->marked_dirty)
        TRY(co_intent_sweep(a->intent, true));
    TRY(co_journal_empty(a));
    TRY(co_forget_bad(a));
    return co_settle(a, true);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* md.c - the driver: an array of Linux' md over its members.
 *
 * Members come in any order; their superblocks say who is who (assemble.h). With `level=` they are
 * taken in the order in which they are told, and no superblock is looked at: for arrays whose
 * superblocks are lost. There the word `missing` stands for a member that is not there. With
 * `superblocks=dm-raid` too members are images of LVM2, each behind what dm-raid keeps of it. */
#include <stdio.h>
#include <stdlib.h>

#include "block/resolver.h"
#include "raid/assemble.h"
#include "raid/badblocks.h"
#include "raid/foreign.h"
#include "raid/intent.h"
#include "raid/journal.h"
#include "raid/log.h"
#include "raid/md.h"
#include "raid/ppl.h"
#include "raid/reshape.h"

static const struct opt_desc md_options[] = {
    {.name = "members", .type = OPT_CHILDREN, .help = "the devices, in any order"},
    {.name = "force",
     .type = OPT_BOOL,
     .help = "take stale members too, start where single blocks may be wrong"},
    {.name = "level",
     .type = OPT_STRING,
     .help = "no superblocks: linear, 0, 1, 4, 5, 6 or 10, members in order"},
    {.name = "superblocks",
     .type = OPT_STRING,
     .help = "with level: dm-raid: LVM2's, in front of the data"},
    {.name = "layout", .type = OPT_STRING, .help = "with level: as mdadm names it (the default's)"},
    {.name = "chunk", .type = OPT_SIZE, .help = "with level: bytes (512 KiB)"},
    {.name = "data-offset", .type = OPT_SIZE, .help = "with level: where data begins in each (0)"},
    {.name = "member-size", .type = OPT_SIZE, .help = "with level: bytes used of each (all)"},
    {0},
};

/* --- opening -----------------------------------------------------------------------------------
 */

const struct raid_engine *raid_engine_of(const struct raid_level *l)
{
    if (l->is_zoned)
        return &raid_zone_engine;
    return l->parities ? &raid_row_engine : &raid_mirror_engine;
}

static void array_drop(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        mem_free(a->members[i].super);
        mem_free(a->members[i].bad);
    }
    raid_reshape_drop(a);
    raid_shape_drop(&a->shape);
    intent_close(a->intent);
    mem_free(a->super);
    mem_free(a->members);
    mem_free(a->by_role);
    mem_free(a);
}

static struct raid_array *array_new(struct blk_device *dev)
{
    struct raid_array *a = mem_zalloc(sizeof(*a));
    if (!a)
        return NULL;
    a->dev = dev;
    a->member_count = (unsigned)dev->child_count;
    a->member_room = a->member_count + RAID_MEMBERS_MORE;
    a->members = mem_array(a->member_room, sizeof(a->members[0]));
    if (!a->members) {
        mem_free(a);
        return NULL;
    }
    for (unsigned i = 0; i < a->member_count; i++)
        a->members[i] =
            (struct raid_member){.dev = dev->children[i].dev, .role = RAID_NO_DISK, .array = a};
    return a;
}

/* Puts the plan's places into the members. */
static int take_places(struct raid_array *a, const struct raid_candidate *c, struct blk_error *e)
{
    a->by_role = mem_array(a->shape.disks + RAID_MEMBERS_MORE, sizeof(*a->by_role));
    if (!a->by_role)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        bool takes_part = c[i].place == PLACE_MEMBER || c[i].place == PLACE_SPARE;
        bool begins = m->super && takes_part && raid_reshape_catch_up(a->super, m->super);
        bool recovering = m->super && !raid_in_sync(&c[i]);
        bool begun = m->super && m->super->features & MD_RECOVERY;
        m->state = MEMBER_OUT;
        bool replaces = c[i].place == PLACE_REPLACEMENT;
        if (c[i].place == PLACE_SPARE)
            m->state = MEMBER_SPARE;
        if (c[i].place == PLACE_JOURNAL && !a->shape.level->is_zoned) {
            m->state = MEMBER_JOURNAL;
            m->data_offset = m->super->data_offset;
        }
        if ((c[i].place != PLACE_MEMBER && !replaces) || c[i].role >= md_super_roles(a->super))
            continue;
        m->role = c[i].role;
        recovering &= !begins || m->role < a->shape.disks;
        m->state = recovering ? MEMBER_REBUILDING : MEMBER_IN_SYNC;
        m->recovered = begun ? MIN(m->super->recovery_offset, a->shape.member) : 0;
        m->recovered_saved = m->recovered;
        m->by_bitmap = begun && m->super->features & MD_BITMAP_RECOVERY;
        m->data_offset = m->super->data_offset;
        if (m->role < a->shape.disks && !replaces) /* one that a reshape adds has none in the old */
            a->by_role[m->role] = m;
    }
    for (unsigned i = 0; i < a->member_count; i++)
        if (c[i].place == PLACE_REPLACEMENT && a->members[i].role != RAID_NO_DISK)
            array_take_replacement(a, &a->members[i]);
    return 0;
}

/* Members of arrays of others are refused with what gets their data out. */
static int co_refuse_foreign(struct raid_array *a, struct blk_error *e)
{
    struct foreign **found = mem_array(a->member_count, sizeof(*found));
    struct foreign_member *m = mem_array(a->member_count, sizeof(*m));
    struct blk_error none = {0};
    char *text = NULL;
    bool any = false;
    int rc = found && m ? 0 : -ENOMEM;
    for (unsigned i = 0; i < a->member_count && rc != -ENOMEM; i++) {
        struct blk_device *dev = a->members[i].dev;
        rc = co_foreign_find(dev, &found[i], &none);
        m[i] = (struct foreign_member){member_name(&a->members[i]), found[i],
                                       dev->driver->is_filter ? NULL : dev->driver->name};
        any |= found[i] != NULL;
    }
    if (rc != -ENOMEM)
        rc = any ? foreign_tell(m, a->member_count, &text) : 0;
    if (rc == 0 && any)
        rc = strlen(text) < sizeof(e->text)
                 ? err_set(e, -ENOTSUP, "%s", text)
                 : err_set(e, -ENOTSUP,
                           "members of an array of another kind: `lamina raid assemble` of these "
                           "prints how its data is read");
    for (unsigned i = 0; found && i < a->member_count; i++)
        mem_free(found[i]);
    mem_free(found);
    mem_free(m);
    free(text);
    return rc;
}

/* A damaged superblock makes its member a stranger; that is the error where nobody has a good one.
 */
static int co_read_supers(struct raid_array *a, struct raid_candidate *c, struct blk_error *e)
{
    struct blk_error damaged = {0};
    bool any = false;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        int rc = a->dm_offset ? co_member_dm_super(m->dev, a->dm_offset, &m->super, &damaged)
                              : co_member_find_super(m->dev, &m->super, &damaged);
        if (rc == -ENOMEM)
            return err_set(e, rc, "out of memory");
        if (rc < 0)
            err_prefix(&damaged, "%s", member_name(m));
        any |= m->super != NULL;
        c[i] = (struct raid_candidate){
            .name = member_name(m), .super = m->super, .unread = rc < 0 && rc != -EINVAL};
        m->events = m->super ? m->super->events : 0;
        if (m->super && a->dev->open_flags & BLK_OPEN_WRITE)
            c[i].log_session = co_log_session(m);
    }
    if (!any && !a->dm_offset)
        TRY(co_refuse_foreign(a, e));
    if (a->dm_offset)
        TRY(co_members_dm_bits(a, e));
    return any || !damaged.rc ? 0 : err_copy(e, damaged.rc, &damaged);
}

/* Who only reads does not replay the log that would make it right. */
static int check_ppl(const struct raid_array *a, const struct raid_plan *p, struct blk_error *e)
{
    if (a->dev->open_flags & BLK_OPEN_WRITE || !ppl_is_in(p->freshest) || !p->dirty || !p->missing)
        return 0;
    return err_set(e, -EUCLEAN,
                   "%u of the members are missing, and what was being written when the array went "
                   "down is in its partial parity log: open it to be written, or with force",
                   p->missing);
}

/* Without its journal it is only read; by force it goes on as one that never had one, and all of
 * parity is made anew. */
static int check_journal(struct raid_array *a, bool force, struct blk_error *e)
{
    if (!(a->dev->open_flags & BLK_OPEN_WRITE))
        return 0;
    if (!force)
        return err_set(e, -EROFS,
                       "the array's journal is missing: open it read-only, or with force, which "
                       "drops the journal: what was only there is lost, and parity is made anew");
    a->super->features &= ~(unsigned)MD_JOURNAL;
    for (unsigned slot = 0; slot < a->super->role_count; slot++)
        if (a->super->roles[slot] == MD_ROLE_JOURNAL)
            (void)md_super_set_role(a->super, slot, MD_ROLE_FAULTY);
    a->super->resync_offset = 0;
    a->was_dirty = true;
    return 0;
}

static int co_load_bad(struct raid_array *a, struct blk_error *e)
{
    struct blk_error why = {0};
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        int rc = m->state == MEMBER_OUT ? 0 : co_bad_load(m->dev, m->super, &m->bad, &why);
        if (rc < 0) {
            err_prefix(&why, "%s", member_name(m));
            return err_copy(e, rc, &why);
        }
    }
    return 0;
}

static int co_assemble(struct raid_array *a, bool force, struct blk_error *e)
{
    auto_free struct raid_candidate *c = mem_array(a->member_count, sizeof(*c));
    struct raid_plan plan;
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_read_supers(a, c, e));
    TRY(raid_plan(c, a->member_count, force, &plan, e));
    a->shape = plan.shape; /* taken over */
    if (!force)
        TRY(check_ppl(a, &plan, e));
    a->was_dirty = plan.dirty;
    a->super = mem_alloc(sizeof(*a->super));
    if (!a->super)
        return err_set(e, -ENOMEM, "out of memory");
    *a->super = *plan.freshest;
    array_roles_told(a);
    if (plan.lacks_journal)
        TRY(check_journal(a, force, e));
    if (a->was_dirty && a->super->resync_offset < array_sync_bytes(a))
        a->resync_at = align_down(a->super->resync_offset, 4096);
    TRY(take_places(a, c, e));
    return co_load_bad(a, e);
}

/* --- without superblocks -----------------------------------------------------------------------
 */

static int wanted_of(const struct raid_array *a, const struct opts *o, struct raid_wanted *w,
                     struct blk_error *e)
{
    const struct raid_level *l = raid_level_by_name(opts_text(o, "level"));
    const char *layout = opts_text(o, "layout");
    if (!l)
        return err_set(
            e, -EINVAL,
            "level '%s' is not known: linear, raid0, raid1, raid4, raid5, raid6 and raid10 are",
            opts_text(o, "level"));
    *w = (struct raid_wanted){.level = l->number,
                              .layout = l->default_layout,
                              .disks = a->member_count,
                              .used = opts_number(o, "member-size")};
    if (l->has_chunk)
        w->chunk = opts_given(o, "chunk") ? opts_number(o, "chunk") : 512 * KiB;
    if (layout && !raid_layout_parse(l, layout, &w->layout))
        return err_set(e, -EINVAL, "%s has no layout '%s'", l->name, layout);
    return 0;
}

/* The word `missing` in place of a member opens the null device. */
static bool is_missing(const struct raid_member *m)
{
    return m->dev->driver == &null_driver;
}

static int build(struct raid_array *a, const struct opts *o, struct blk_error *e)
{
    struct raid_wanted w;
    uint64_t offset = opts_number(o, "data-offset");
    auto_free uint64_t *sizes = mem_array(a->member_count, sizeof(*sizes));
    a->by_role = mem_array(a->member_count, sizeof(*a->by_role));
    if (!sizes || !a->by_role)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(wanted_of(a, o, &w, e));
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        bool there = !is_missing(m);
        if (there && m->dev->size <= offset)
            return err_set(e, -EINVAL, "%s ends before its data begins", member_name(m));
        sizes[i] = there ? m->dev->size - offset : UINT64_MAX;
        m->data_offset = offset;
        m->role = there ? i : RAID_NO_DISK;
        m->state = there ? MEMBER_IN_SYNC : MEMBER_OUT;
        a->by_role[i] = there ? m : NULL;
    }
    w.members = sizes;
    TRY(raid_shape_init(&a->shape, &w, e));
    auto_free bool *there = mem_array(a->member_count, sizeof(*there));
    if (!there)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < a->member_count; i++)
        there[i] = a->by_role[i] != NULL;
    if (!raid_enough(&a->shape, there))
        return err_set(e, -ENODEV, "too many members are missing for %s", a->shape.level->name);
    return 0;
}

/* --- images of LVM2 ----------------------------------------------------------------------------
 */

/* What LVM2's text says and what dm-raid's superblocks say must be the same array. */
static int check_told(const struct raid_array *a, const struct opts *o, struct blk_error *e)
{
    const struct raid_shape *s = &a->shape;
    struct raid_wanted w;
    TRY(wanted_of(a, o, &w, e));
    if (s->level->number == w.level && s->layout == w.layout && s->chunk == w.chunk)
        return 0;
    return err_set(e, -EINVAL, "the superblocks say another level, layout or chunk than %s",
                   opts_text(o, "level"));
}

static int co_assemble_dm(struct raid_array *a, const struct opts *o, struct blk_error *e)
{
    if (strcmp(opts_text(o, "superblocks"), "dm-raid") != 0)
        return err_set(e, -EINVAL, "superblocks '%s' are not known: dm-raid is",
                       opts_text(o, "superblocks"));
    a->dm_offset = opts_number(o, "data-offset");
    if (!a->dm_offset || !opts_given(o, "level"))
        return err_set(e, -EINVAL, "dm-raid's superblocks need level and data-offset");
    TRY(co_assemble(a, opts_bool(o, "force"), e));
    return check_told(a, o, e);
}

static int co_find_shape(struct raid_array *a, const struct opts *o, struct blk_error *e)
{
    if (opts_given(o, "superblocks"))
        return co_assemble_dm(a, o, e);
    return opts_given(o, "level") ? build(a, o, e) : co_assemble(a, opts_bool(o, "force"), e);
}

/* --- the device --------------------------------------------------------------------------------
 */

static void set_limits(struct raid_array *a)
{
    struct blk_limits *l = &a->dev->limits;
    *l = (struct blk_limits){.request_align = 1,
                             .memory_align = 1,
                             .zero_align = 1,
                             .fresh_reads_zero = false,
                             .can_zero_fast = true,
                             .can_unmap = true,
                             .discard_reads_zero = true};
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct blk_limits *m = &a->members[i].dev->limits;
        if (a->members[i].state == MEMBER_OUT)
            continue;
        l->request_align = MAX(l->request_align, m->request_align);
        l->memory_align = MAX(l->memory_align, m->memory_align);
        l->discard_granularity = MAX(l->discard_granularity, m->discard_granularity);
        l->can_zero_fast &= m->can_zero_fast;
        l->can_unmap &= m->can_unmap;
        l->discard_reads_zero &= m->discard_reads_zero;
    }
    l->optimal_transfer = a->shape.chunk;
    if (a->shape.level->parities) { /* parts of a row are not discarded */
        l->optimal_transfer = a->shape.chunk * a->shape.data_disks;
        l->discard_granularity = l->optimal_transfer;
        l->discard_reads_zero = false;
    }
}

/* A superblock that must not be written keeps the whole array from being written. */
static int may_write(const struct raid_array *a, struct blk_error *e)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct raid_member *m = &a->members[i];
        if (m->super && m->super->read_only && m->state != MEMBER_OUT)
            return err_set(
                e, -EROFS, "the superblock of %s is %s: open the array read-only", member_name(m),
                m->super->swapped ? "in the byte order of another machine" : "of a newer kernel");
    }
    if (a->reshape)
        TRY(raid_reshape_may_write(a, e));
    if (a->super && journal_is_in(a->super) && (a->reshape || !a->shape.level->parities))
        return err_set(e, -EROFS, "%s has a journal%s: open it read-only", a->shape.level->name,
                       a->reshape ? " and is being reshaped" : "");
    if (a->super && ppl_is_in(a->super) && a->reshape)
        return err_set(e, -EROFS,
                       "the array has a partial parity log and is being reshaped: open it "
                       "read-only, or let Linux finish that");
    return 0;
}

static int co_prepare_to_write(struct raid_array *a, struct blk_error *e)
{
    TRY(may_write(a, e));
    int rc = co_array_settle(a);
    if (rc < 0)
        return err_errno(e, rc, "what members hold cannot be made durable");
    TRY(co_intent_open(a, &a->intent, e));
    if (a->intent) /* the bits say what is in sync */
        a->resync_at = 0;
    return 0;
}

static bool lacks_journal(const struct raid_array *a)
{
    return a->super && journal_is_in(a->super) && a->engine == &raid_row_engine && !a->journal;
}

static int co_md_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                      struct blk_error *e)
{
    if (dev->child_count == 0 && opener)
        TRY(co_opener_children(opener, dev, "members", "member", dev->open_flags, e));
    if (dev->child_count == 0)
        return err_set(e, -EINVAL, "md needs \"members\"");
    struct raid_array *a = array_new(dev);
    if (!a)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_find_shape(a, opts, e);
    a->engine = rc == 0 ? raid_engine_of(a->shape.level) : NULL;
    if (rc == 0 && a->super && a->super->reshaping)
        rc = raid_reshape_open(a, e);
    if (rc == 0 && dev->open_flags & BLK_OPEN_WRITE)
        rc = co_prepare_to_write(a, e);
    if (rc == 0 && a->engine->co_open)
        rc = a->engine->co_open(a, e);
    if (rc == 0 && dev->open_flags & BLK_OPEN_WRITE && co_array_level(a) < 0) {
        rc = err_set(e, -EIO, "a superblock that is behind the others cannot be written");
        if (a->engine->close)
            a->engine->close(a);
    }
    if (rc < 0) {
        array_drop(a);
        return rc;
    }
    if (lacks_journal(a))
        opener_say(opener,
                   "%s: the array's journal is missing: what was being written when it went down "
                   "may be there only in part",
                   dev->name ? dev->name : "md");
    if (log_has_no_room(a))
        opener_say(opener,
                   "%s: no room for a stripe log between superblock and data: after a crash with "
                   "a member lost, data that was not being written may be wrong (as with Linux)",
                   dev->name ? dev->name : "md");
    dev->size = a->shape.size;
    set_limits(a);
    dev->state = a;
    return 0;
}

static int co_md_close(struct blk_device *dev, struct blk_error *e)
{
    struct raid_array *a = dev->state;
    int rc = dev->writable ? co_array_mark_clean(a) : 0;
    if (rc < 0)
        err_errno(e, rc, "the array stays dirty");
    if (a->engine->close)
        a->engine->close(a);
    array_drop(a);
    return rc;
}

static bool md_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                       struct blk_place *out)
{
    struct raid_array *a = dev->state;
    return a->engine->resolve && a->engine->resolve(a, offset, bytes, write, out);
}

static int co_md_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct raid_array *a = dev->state;
    return a->engine->co_read(a, offset, to);
}

static int co_md_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                       unsigned flags)
{
    struct raid_array *a = dev->state;
    struct intent_hold hold;
    TRY(co_intent_begin(a->intent, offset, from->bytes, &hold));
    int rc = a->engine->co_write(a, offset, from, flags);
    intent_end(a->intent, &hold);
    return rc < 0 ? rc : co_array_tell(a);
}

static int co_md_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct raid_array *a = dev->state;
    struct intent_hold hold;
    TRY(co_intent_begin(a->intent, offset, bytes, &hold));
    int rc = a->engine->co_write_zeroes(a, offset, bytes, flags);
    intent_end(a->intent, &hold);
    return rc < 0 ? rc : co_array_tell(a);
}

static int co_md_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct raid_array *a = dev->state;
    struct intent_hold hold;
    TRY(co_intent_begin(a->intent, offset, bytes, &hold));
    int rc = a->engine->co_discard(a, offset, bytes);
    intent_end(a->intent, &hold);
    return rc < 0 ? rc : co_array_tell(a);
}

static int co_md_flush(struct blk_device *dev)
{
    struct raid_array *a = dev->state;
    if (a->engine->co_mend)
        TRY(a->engine->co_mend(a));
    TRY(co_array_flush(a));
    return co_array_tell(a);
}

static int co_md_sync(struct blk_device *dev, struct blk_sync *s, struct blk_error *e)
{
    return co_array_sync(dev->state, s, e);
}

static int co_md_sync_save(struct blk_device *dev, struct blk_error *e)
{
    int rc = co_array_checkpoint(dev->state);
    return rc < 0 ? err_errno(e, rc, "how far it is cannot be written down") : 0;
}

static int co_md_member(struct blk_device *dev, const struct blk_member_change *c,
                        struct blk_error *e)
{
    return co_array_member(dev->state, c, e);
}

static int co_md_grow(struct blk_device *dev, const struct blk_members_grow *g, struct blk_error *e)
{
    return co_array_grow(dev->state, g, e);
}

/* --- facts -------------------------------------------------------------------------------------
 */

static json_t *member_facts(const struct raid_array *a, unsigned i)
{
    static const char *const states[] = {
        [MEMBER_OUT] = "left out", [MEMBER_IN_SYNC] = "in sync", [MEMBER_REBUILDING] = "rebuilding",
        [MEMBER_SPARE] = "spare",  [MEMBER_JOURNAL] = "journal",
    };
    const struct raid_member *m = &a->members[i];
    json_t *facts =
        json_pack("{s:o, s:s}", "name", json_from_text(member_name(m)), "state", states[m->state]);
    if (facts && m->replaces)
        json_object_set_new(facts, "state", json_string("replacing"));
    if (facts && m->role != RAID_NO_DISK)
        json_object_set_new(facts, "role", json_integer(m->role));
    if (facts && m->super)
        json_object_set_new(facts, "events", json_integer((json_int_t)m->super->events));
    if (facts && m->state == MEMBER_REBUILDING)
        json_object_set_new(facts, "recovered", json_integer((json_int_t)m->recovered));
    if (facts && m->mismatches)
        json_object_set_new(facts, "mismatches", json_integer((json_int_t)m->mismatches));
    return facts;
}

/* What is under way, or owed: resync comes first. NULL: nothing. */
static json_t *sync_facts(const struct raid_array *a)
{
    if (a->was_dirty)
        return json_pack("{s:s, s:I, s:I}", "doing", "resync", "at", (json_int_t)a->resync_at,
                         "total", (json_int_t)array_sync_bytes(a));
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].state == MEMBER_REBUILDING)
            return json_pack("{s:s, s:I, s:I}", "doing", "recovery", "at",
                             (json_int_t)a->members[i].recovered, "total",
                             (json_int_t)a->shape.member);
    return NULL;
}

static int co_md_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct raid_array *a = dev->state;
    char layout[RAID_LAYOUT_TEXT], uuid[MD_UUID_TEXT];
    raid_layout_text(a->shape.level, a->shape.layout, layout);
    json_t *members = json_array();
    json_t *facts = json_pack("{s:s, s:s, s:I, s:i, s:o}", "level", a->shape.level->name, "layout",
                              layout, "chunk-size", (json_int_t)a->shape.chunk, "raid-devices",
                              (int)a->shape.disks, "members", members);
    if (!facts)
        return err_set(e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].dev) /* it was not removed */
            json_array_append_new(members, member_facts(a, i));
    if (a->super) {
        json_object_set_new(facts, "metadata", json_string(md_version_name(a->super->version)));
        if (!a->dm_offset) {
            md_uuid_text(a->super, uuid);
            json_object_set_new(facts, "uuid", json_string(uuid));
            json_object_set_new(facts, "name", json_from_text(a->super->name));
        }
        json_object_set_new(facts, "clean", json_boolean(!a->was_dirty));
        if (a->super->reshaping)
            json_object_set_new(facts, "reshape", raid_reshape_facts(a));
        if (a->was_dirty)
            json_object_set_new(facts, "resynced", json_integer((json_int_t)a->resync_at));
        json_t *sync = sync_facts(a);
        if (sync)
            json_object_set_new(facts, "sync", sync);
    }
    out->specific = facts;
    return 0;
}

const struct blk_driver md_driver = {
    .name = "md",
    .title = "an array of Linux' md (RAID)",
    .mend = "`lamina raid examine MEMBER...` says what each member knows of the array",
    .handles_fua = true,
    .open_options = md_options,
    .co_open = co_md_open,
    .co_close = co_md_close,
    .co_member_of = co_md_member_of,
    .co_read = co_md_read,
    .co_write = co_md_write,
    .co_write_zeroes = co_md_zeroes,
    .co_discard = co_md_discard,
    .co_flush = co_md_flush,
    .co_sync = co_md_sync,
    .co_sync_save = co_md_sync_save,
    .co_member = co_md_member,
    .co_members_grow = co_md_grow,
    .resolve = md_resolve,
    .co_info = co_md_info,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* reshape.c - a change of shape, step by step beside the array's requests.
 *
 * Order of a step:
 *  1. nobody reads or writes a window from the position on (and who comes waits);
 *  2. it is read as the array was and written as it will be, over nothing that the old position
 *     still protects;
 *  3. all of that is durable;
 *  4. superblocks say the position behind it, durably;
 *  5. the window is let go of.
 * So a crash leaves each byte where the superblocks' position says. At the end superblocks say the
 * new shape and where data begins now, all at once.
 *
 * Members that fail while it goes on are failed in both views and in the array; a step that cannot
 * be done leaves the position where it was. */
#include "raid/reshape.h"
#include "raid/assemble.h"
#include "raid/intent.h"

#define WINDOW_BYTES (16 * MiB)

struct reshape {
    struct raid_array view[2]; /* as it was; as it will be */
    uint64_t at;               /* below it the array is as it will be (backwards: from it on) */
    uint64_t end;              /* where it is done */
    bool backwards;
    struct co_range range; /* of the array: requests share, a step has its window alone */
};

/* Where data begins now is where it was to begin. */
static void take_new_offset(struct md_super *s)
{
    s->data_offset += (uint64_t)s->new_offset;
    s->data_size -= (uint64_t)s->new_offset;
    s->new_offset = 0;
}

bool raid_reshape_catch_up(const struct md_super *array, struct md_super *own)
{
    if (own->reshaping && !array->reshaping)
        take_new_offset(own);
    if (own->reshaping || !array->reshaping)
        return false;
    int64_t free = (int64_t)own->data_offset - (int64_t)md_super_end(own);
    own->new_offset = array->new_offset < 0 && -array->new_offset <= free ? array->new_offset : 0;
    return array->reshape_position == 0;
}

/* --- views -------------------------------------------------------------------------------------
 */

static int view_members(struct raid_array *v, struct raid_array *whole, bool next)
{
    v->members = mem_array(whole->member_room, sizeof(v->members[0]));
    v->by_role = mem_array(v->shape.disks, sizeof(v->by_role[0]));
    if (!v->members || !v->by_role)
        return -ENOMEM;
    v->member_count = v->member_room = whole->member_count;
    for (unsigned i = 0; i < v->member_count; i++) {
        struct raid_member *m = &v->members[i];
        *m = whole->members[i];
        m->super = NULL;
        m->array = v;
        m->log = NULL; /* the array's, as long as its own engine has it */
        if (m->role >= v->shape.disks || m->state != MEMBER_IN_SYNC)
            continue;
        if (next)
            m->data_offset += (uint64_t)whole->members[i].super->new_offset;
        v->by_role[m->role] = m;
    }
    return 0;
}

static int view_init(struct raid_array *v, struct raid_array *whole, const struct raid_wanted *w,
                     bool next, struct blk_error *e)
{
    TRY(raid_shape_init(&v->shape, w, e));
    v->dev = whole->dev;
    v->whole = whole;
    v->engine = raid_engine_of(v->shape.level);
    v->was_dirty = whole->was_dirty;
    v->marked_dirty = true; /* the array is, by requests; a step needs it not: until the position
                               moves nothing counts of what it writes */
    int rc = view_members(v, whole, next);
    if (rc == 0 && v->engine->co_open)
        rc = v->engine->co_open(v, e);
    if (rc < 0)
        v->engine = NULL; /* it is not open */
    return rc < 0 && e && !e->rc ? err_set(e, rc, "out of memory") : rc;
}

static void view_drop(struct raid_array *v)
{
    if (v->engine && v->engine->close)
        v->engine->close(v);
    raid_shape_drop(&v->shape);
    mem_free(v->members);
    mem_free(v->by_role);
}

bool raid_reshape_can_spare(const struct raid_array *a, const struct raid_member *m)
{
    for (unsigned i = 0; i < ARRAY_LEN(a->reshape->view); i++) {
        const struct raid_array *v = &a->reshape->view[i];
        const struct raid_member *there = &v->members[m - a->members];
        if (there->role < v->shape.disks && !array_can_spare(v, there))
            return false;
    }
    return true;
}

void raid_reshape_forget(struct raid_array *a, const struct raid_member *m)
{
    for (unsigned i = 0; i < ARRAY_LEN(a->reshape->view); i++) {
        struct raid_array *v = &a->reshape->view[i];
        struct raid_member *there = &v->members[m - a->members];
        if (there->role < v->shape.disks && v->by_role[there->role] == there)
            v->by_role[there->role] = NULL;
        there->state = MEMBER_OUT;
    }
}

bool raid_reshape_torn(const struct raid_array *a)
{
    const struct raid_array *was = &a->reshape->view[0], *next = &a->reshape->view[1];
    return was->torn || was->lost || next->torn || next->lost;
}

/* --- opening -----------------------------------------------------------------------------------
 */

static int refuse_backup(const struct md_super *s, struct blk_error *e)
{
    bool moves = s->delta_disks || s->new_offset;
    /* Before the first position is written down, what is overwritten is only in that file. */
    bool begins = !s->new_offset && !s->backwards && s->reshape_position == 0;
    if (moves && !begins)
        return 0;
    return err_set(e, -ENOTSUP,
                   "the array is being reshaped in place: what was being moved is only in mdadm's "
                   "backup file, so mdadm has to go on with it");
}

static struct reshape *reshape_new(struct raid_array *a, struct blk_error *e)
{
    const struct md_super *s = a->super;
    struct reshape *r = mem_zalloc(sizeof(*r));
    struct raid_wanted was = raid_wanted_of(s, false), next = raid_wanted_of(s, true);
    raid_reshape_drop(a); /* one that ended while the array was open */
    a->reshape = r;
    if (!r) {
        (void)!err_set(e, -ENOMEM, "out of memory");
        return NULL;
    }
    r->backwards = s->backwards;
    if (view_init(&r->view[0], a, &was, false, e) < 0 ||
        view_init(&r->view[1], a, &next, true, e) < 0)
        return NULL;
    r->end = r->backwards ? 0 : r->view[1].shape.size;
    r->at = s->reshape_position;
    return r;
}

int raid_reshape_open(struct raid_array *a, struct blk_error *e)
{
    TRY(refuse_backup(a->super, e));
    struct reshape *r = reshape_new(a, e);
    if (!r)
        return -EINVAL;
    uint64_t most = MAX(r->view[0].shape.size, r->view[1].shape.size);
    if (r->at > most)
        return err_set(e, -EINVAL, "the reshape is at %" PRIu64 " of an array of %" PRIu64 " bytes",
                       r->at, most);
    a->engine = &raid_reshape_engine;
    a->shape.size = MIN(r->view[0].shape.size, r->view[1].shape.size);
    return 0;
}

void raid_reshape_drop(struct raid_array *a)
{
    if (!a->reshape)
        return;
    view_drop(&a->reshape->view[0]);
    view_drop(&a->reshape->view[1]);
    mem_free(take(a->reshape));
}

/* Bytes that a position has to be a multiple of. */
static uint64_t unit_of(const struct reshape *r)
{
    const struct raid_shape *s = &r->view[1].shape;
    return MAX(s->chunk, r->view[0].shape.chunk) * s->data_disks;
}

int raid_reshape_may_write(const struct raid_array *a, struct blk_error *e)
{
    const struct reshape *r = a->reshape;
    const struct raid_shape *was = &r->view[0].shape, *next = &r->view[1].shape;
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].state == MEMBER_REBUILDING)
            return err_set(e, -EROFS,
                           "a member is being recovered while the array is reshaped: open it "
                           "read-only, or let Linux finish that");
    bool same = was->level == next->level && was->layout == next->layout &&
                was->chunk == next->chunk && was->level->parities;
    if (same && !r->backwards && r->at % unit_of(r) == 0)
        return 0;
    return err_set(e, -EROFS,
                   "the array is being reshaped to another level, layout, chunk or fewer members: "
                   "open it read-only, or let Linux finish that");
}

json_t *raid_reshape_facts(const struct raid_array *a)
{
    const struct reshape *r = a->reshape;
    return json_pack("{s:i, s:i, s:I, s:I}", "from", (int)r->view[0].shape.disks, "to",
                     (int)r->view[1].shape.disks, "position", (json_int_t)r->at, "end",
                     (json_int_t)r->end);
}

/* --- requests ----------------------------------------------------------------------------------
 */

/* The view that counts at @offset, and for how many bytes. */
static struct raid_array *view_at(struct reshape *r, uint64_t offset, uint64_t *bytes)
{
    bool below = offset < r->at;
    if (below)
        *bytes = MIN(*bytes, r->at - offset);
    return &r->view[below != r->backwards];
}

enum what { READ, WRITE, ZEROES };
struct request {
    enum what what;
    uint64_t offset, bytes;
    const struct vec *vec;
    unsigned flags;
};

static int co_one(struct raid_array *v, const struct request *q, uint64_t done, uint64_t bytes)
{
    uint64_t at = q->offset + done;
    if (q->what == ZEROES)
        return v->engine->co_write_zeroes(v, at, bytes, q->flags);
    struct vec part = vec_slice(q->vec, done, bytes);
    return q->what == READ ? v->engine->co_read(v, at, &part)
                           : v->engine->co_write(v, at, &part, q->flags);
}

static int co_split(struct raid_array *a, const struct request *q)
{
    struct reshape *r = a->reshape;
    struct co_range_hold hold;
    uint64_t n;
    int rc = q->what == READ ? 0 : co_array_mark_dirty(a);
    if (rc < 0)
        return rc;
    co_range_lock(&r->range, &hold, q->offset, q->bytes, true);
    for (uint64_t done = 0; done < q->bytes && rc == 0; done += n) {
        n = q->bytes - done;
        /* It may have ended while we waited. */
        bool goes_on = a->engine == &raid_reshape_engine;
        rc = co_one(goes_on ? view_at(r, q->offset + done, &n) : a, q, done, n);
    }
    co_range_unlock(&r->range, &hold);
    return rc;
}

static int co_reshape_read(struct raid_array *a, uint64_t offset, const struct vec *to)
{
    struct request q = {.what = READ, .offset = offset, .bytes = to->bytes, .vec = to};
    return co_split(a, &q);
}

static int co_reshape_write(struct raid_array *a, uint64_t offset, const struct vec *from,
                            unsigned flags)
{
    struct request q = {
        .what = WRITE, .offset = offset, .bytes = from->bytes, .vec = from, .flags = flags};
    return co_split(a, &q);
}

static int co_reshape_zeroes(struct raid_array *a, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct request q = {.what = ZEROES, .offset = offset, .bytes = bytes, .flags = flags};
    return co_split(a, &q);
}

static int co_reshape_discard(struct raid_array *a, uint64_t offset, uint64_t bytes)
{
    return 0; /* a hint */
}

static int co_reshape_mend(struct raid_array *a)
{
    for (unsigned i = 0; i < ARRAY_LEN(a->reshape->view); i++) {
        struct raid_array *v = &a->reshape->view[i];
        if (v->torn)
            TRY(v->engine->co_mend(v));
    }
    return 0;
}

const struct raid_engine raid_reshape_engine = {
    .co_mend = co_reshape_mend,
    .co_read = co_reshape_read,
    .co_write = co_reshape_write,
    .co_write_zeroes = co_reshape_zeroes,
    .co_discard = co_reshape_discard,
};

/* --- steps -------------------------------------------------------------------------------------
 */

/* How many bytes of the new shape may be written at the position: they must end, on each member,
 * before what the old shape still has there. */
static uint64_t room_for(const struct raid_array *a, const struct reshape *r)
{
    const struct raid_shape *was = &r->view[0].shape, *next = &r->view[1].shape;
    uint64_t row = was->chunk * was->data_disks, left = r->end - r->at;
    uint64_t most = MIN(left, MAX(WINDOW_BYTES, unit_of(r)));
    if (r->at >= was->size) /* nothing of the old shape is needed any more */
        return MIN(left, most / unit_of(r) * unit_of(r));
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct raid_member *m = &a->members[i];
        if (m->state != MEMBER_IN_SYNC || m->role == RAID_NO_DISK)
            continue;
        uint64_t begin = m->data_offset + (uint64_t)m->super->new_offset;
        uint64_t kept = m->data_offset + r->at / row * was->chunk;
        uint64_t to = begin + r->at / next->data_disks;
        most = MIN(most, kept > to ? (kept - to) * next->data_disks : 0);
    }
    return MIN(left, most / unit_of(r) * unit_of(r));
}

/* Whole rows only: what the new ones hold, parity too, is of no array. So the last row with data
 * of the old shape is filled with zeroes. */
static int co_move(struct reshape *r, uint64_t at, uint64_t bytes)
{
    uint64_t have = at < r->view[0].shape.size ? MIN(bytes, r->view[0].shape.size - at) : 0;
    uint64_t row = r->view[1].shape.chunk * r->view[1].shape.data_disks;
    uint64_t rows = div_up(have, row) * row;
    int rc = 0;
    assert(bytes % row == 0);
    if (have) {
        uint8_t *buf = buf_get(rows);
        struct vec old = VEC_BUF(buf, have), all = VEC_BUF(buf, rows);
        rc = buf ? r->view[0].engine->co_read(&r->view[0], at, &old) : -ENOMEM;
        if (rc == 0) {
            memset(buf + have, 0, rows - have);
            rc = r->view[1].engine->co_write(&r->view[1], at, &all, 0);
        }
        if (buf)
            buf_put(buf, rows);
    }
    if (rc == 0 && rows < bytes)
        rc = r->view[1].engine->co_write_zeroes(&r->view[1], at + rows, bytes - rows, 0);
    return rc;
}

static int co_say_position(struct raid_array *a, uint64_t at)
{
    TRY(co_array_flush(a)); /* 3 */
    with_lock(&a->state_lock);
    a->super->reshape_position = at;
    return co_array_write_supers_locked(a); /* 4 */
}

/* All is where it will be: superblocks say so, and the array is as any other one. */
static int co_finish(struct raid_array *a, struct blk_error *e)
{
    struct raid_shape next;
    struct raid_wanted w = raid_wanted_of(a->super, true);
    TRY(raid_shape_init(&next, &w, e));
    TRY(co_array_flush(a));
    with_lock(&a->state_lock);
    a->super->reshaping = false;
    a->super->features &= ~(unsigned)MD_RESHAPE_FEATURES;
    a->resync_at = 0;
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (!m->super)
            continue;
        take_new_offset(m->super);
        m->data_offset = m->super->data_offset;
    }
    raid_shape_drop(&a->shape);
    a->shape = next;
    memset(a->by_role, 0, a->shape.disks * sizeof(a->by_role[0]));
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->state != MEMBER_OUT && m->role < a->shape.disks)
            a->by_role[m->role] = m;
    }
    int rc = co_array_write_supers_locked(a);
    if (rc < 0)
        return err_errno(e, rc, "the superblocks cannot be written");
    a->dev->size = a->shape.size;
    const struct raid_engine *engine = raid_engine_of(a->shape.level);
    TRY(engine->co_open ? engine->co_open(a, e) : 0); /* else requests still go by the new view */
    a->engine = engine;
    return 0;
}

static int co_step(struct raid_array *a, struct blk_error *e)
{
    struct reshape *r = a->reshape;
    uint64_t bytes = room_for(a, r);
    if (r->at == r->end)
        return co_finish(a, e);
    if (bytes == 0)
        return err_set(e, -ENOTSUP,
                       "there is no room between superblocks and data to go on without mdadm's "
                       "backup file");
    int rc = co_move(r, r->at, bytes); /* 2 */
    if (rc == 0)
        rc = co_say_position(a, r->at + bytes);
    if (rc < 0)
        return err_errno(e, rc, "the reshape stopped at byte %" PRIu64, r->at);
    r->at += bytes;
    return 0;
}

int co_array_reshape_step(struct raid_array *a, struct blk_sync *s, struct blk_error *e)
{
    struct reshape *r = a->reshape;
    struct co_range_hold hold;
    bool last = r->at == r->end;
    uint64_t from = last ? 0 : r->at;
    co_range_lock(&r->range, &hold, from, UINT64_MAX - from, false); /* 1 */
    int rc = co_step(a, e);
    co_range_unlock(&r->range, &hold); /* 5 */
    *s = (struct blk_sync){.kind = s->kind, .doing = "reshape", .at = r->at, .total = r->end};
    if (rc == 0 && last)
        blk_tell(a->dev, BLK_EV_RESIZED);
    return rc;
}

/* --- beginning ---------------------------------------------------------------------------------
 */

/* How far data can begin earlier on all members: half of what is free before it. */
static uint64_t headroom(const struct raid_array *a)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < a->member_count; i++) {
        const struct raid_member *m = &a->members[i];
        if (m->state == MEMBER_OUT)
            continue;
        uint64_t used = md_super_end(m->super);
        if (a->intent)
            used = MAX(used, intent_bytes_end(a->intent, m->super));
        least = MIN(least, m->super->data_offset > used ? m->super->data_offset - used : 0);
    }
    return align_down(least / 2, MAX(a->shape.chunk, 4096));
}

static void give_roles(struct raid_array *a, unsigned disks)
{
    unsigned role = a->shape.disks;
    for (unsigned i = 0; i < a->member_count && role < disks; i++) {
        struct raid_member *m = &a->members[i];
        if (!array_is_spare(a, m))
            continue;
        m->role = role++;
        m->state = MEMBER_IN_SYNC; /* of the new shape, which has nothing yet */
        m->data_offset = m->super->data_offset;
        (void)!md_super_set_role(a->super, m->super->number, m->role);
    }
}

static unsigned spares_of(const struct raid_array *a)
{
    unsigned n = 0;
    for (unsigned i = 0; i < a->member_count; i++)
        n += array_is_spare(a, &a->members[i]);
    return n;
}

static int may_begin(const struct raid_array *a, unsigned disks, uint64_t shift,
                     struct blk_error *e)
{
    if (disks < a->shape.disks)
        return err_set(e, -ENOTSUP, "%s cannot get fewer members", a->shape.level->name);
    if (spares_of(a) < disks - a->shape.disks)
        return err_set(e, -EINVAL, "%u members take %u spares; there are %u: add them first", disks,
                       disks - a->shape.disks, spares_of(a));
    if (a->was_dirty)
        return err_set(e, -EBUSY, "the array is not in sync: let its resync end first");
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].replaces)
            return err_set(e, -EBUSY, "%s is being replaced: let that end first",
                           member_name(a->members[i].replaces));
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (!a->by_role[role] || a->by_role[role]->state != MEMBER_IN_SYNC)
            return err_set(e, -EBUSY, "member %u is not in sync", role);
    if (shift == 0)
        return err_set(e, -ENOSPC,
                       "there is no room between superblocks and data for a chunk that is being "
                       "moved");
    return 0;
}

int co_array_reshape_begin(struct raid_array *a, unsigned disks, struct blk_error *e)
{
    uint64_t shift = headroom(a);
    TRY(may_begin(a, disks, shift, e));
    TRY(co_array_flush(a));
    with_lock(&a->state_lock);
    struct md_super *s = a->super;
    give_roles(a, disks);
    s->reshaping = true;
    s->features |= MD_RESHAPE | MD_NEW_OFFSET;
    s->new_level = s->level;
    s->new_layout = s->layout;
    s->new_chunk = s->chunk;
    s->delta_disks = (int)(disks - a->shape.disks);
    s->disks = disks;
    s->reshape_position = 0;
    s->new_offset = -(int64_t)shift;
    for (unsigned i = 0; i < a->member_count; i++)
        if (a->members[i].state != MEMBER_OUT)
            a->members[i].super->new_offset = -(int64_t)shift;
    intent_set_all(a->intent); /* what moves is not followed by bits */
    int rc = co_array_write_supers_locked(a);
    if (rc < 0)
        return err_errno(e, rc, "the superblocks cannot be written");
    const struct raid_engine *before = a->engine; /* goes on if this one cannot begin */
    TRY(raid_reshape_open(a, e));
    if (before->close)
        before->close(a);
    return 0;
}

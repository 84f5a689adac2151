/* SPDX-License-Identifier: BSD-3-Clause */
/* past.c - what a device showed at one instant, while it changes: copied before the first write.
 *
 *   1 the seat is held: the instant
 *   2 the bitmap, if there is one: a copy of it is made in the image, then it is cleared; both are
 *     durable when that returns
 *   3 from here on a change waits until what it is about to overwrite lies in the store
 *   4 a backup copies all that nobody has changed as well, then the device is flushed, which tells
 *     whether all of that was really there, and the store
 *   5 it ends well: the bitmap's copy is removed. Or not: it is merged back
 * A crash between leaves an image whose bitmaps were not stored, which can only be removed: so the
 * next backup is a full one, and none is silently short. The device is never at risk: where the
 * store cannot take it, the past is lost, and the client's change goes on. */
#include "block/past.h"

#include "block/seat_walk.h"

#define IN_FLIGHT 8

/* --- copying, at home --- */

/* Copies what lies there, all of it still to be kept. */
static int co_keep(struct live_past *p, uint64_t offset, uint64_t bytes)
{
    while (bytes) {
        struct blk_extent x;
        unsigned depth;
        TRY(co_blk_map_chain(seat_device(p->seat), NULL, offset, bytes, &x, &depth));
        if (!(x.flags & BLK_EXT_ZERO)) {
            p->copied += x.bytes;
            if (p->most && p->copied > p->most)
                return -ENOSPC;
            TRY(co_blk_copy_through_memory(p->store, offset, seat_device(p->seat), offset,
                                           x.bytes));
        } else if (!p->blank) {
            TRY(co_blk_write_zeroes(p->store, offset, x.bytes, BLK_MAY_UNMAP));
        }
        offset += x.bytes;
        bytes -= x.bytes;
    }
    return 0;
}

/* All of [offset, +bytes) that is still to be kept is in the store afterwards. */
static int co_save(struct live_past *p, uint64_t offset, uint64_t bytes)
{
    struct co_range_hold hold;
    uint64_t n = bytes;
    if (!granules_run(&p->left, offset, &n) && n == bytes)
        return p->rc;
    granules_widen(&p->left, &offset, &bytes);
    co_range_lock(&p->lock, &hold, offset, bytes, false);
    for (uint64_t at = offset, end = offset + bytes; at < end && p->rc == 0; at += n) {
        n = end - at;
        if (!granules_run(&p->left, at, &n))
            continue;
        p->rc = co_keep(p, at, n);
        if (p->rc == 0)
            granules_set(&p->left, at, n, false);
    }
    co_range_unlock(&p->lock, &hold);
    return p->rc;
}

static void co_before(struct seat_watch *w, const struct seat_change *c)
{
    struct live_past *p = container_of(w, struct live_past, watch);
    if (p->rc == 0)
        (void)!co_save(p, c->offset, c->bytes);
}

/* What a device shows that has lost something is not what it showed. */
static void co_flush(struct seat_watch *w, int rc)
{
    struct live_past *p = container_of(w, struct live_past, watch);
    if (p->rc == 0)
        p->rc = MIN(rc, 0);
}

/* --- all of it, for a job --- */

/* Another job may exchange the device, but not between two steps of ours: whoever looks at it is
 * inside the seat, before anything else that he waits for. */
static int co_piece(void *arg, const struct seat_stretch *s)
{
    struct live_past *p = arg;
    co_blk_stay(p->seat);
    int rc = co_save(p, s->offset, s->bytes);
    blk_release(p->seat);
    return rc;
}

static int co_plan(void *arg, struct seat_stretch *s)
{
    struct live_past *p = arg;
    struct blk_extent x;
    unsigned depth;
    s->pass = !granules_run(&p->left, s->offset, &s->bytes);
    if (s->pass)
        return 0;
    co_blk_stay(p->seat);
    int rc = co_blk_map_chain(seat_device(p->seat), NULL, s->offset, s->bytes, &x, &depth);
    blk_release(p->seat);
    if (rc == 0)
        seat_stretch_cut(s, &p->left, &x);
    return rc;
}

int co_live_past_copy(struct live_past *p, struct job *job, struct blk_error *e)
{
    struct seat_walk walk = {.seat = p->seat,
                             .job = job,
                             .in_flight = IN_FLIGHT,
                             .arg = p,
                             .co_plan = co_plan,
                             .co_work = co_piece};
    job->total = p->seat->size;
    int rc = co_seat_walk(&walk);
    if (rc == 0)
        rc = co_blk_flush(p->seat);
    if (rc == 0)
        rc = p->rc;
    if (rc == 0)
        rc = co_blk_flush(p->store);
    return rc < 0 && rc != -ECANCELED ? err_errno(e, rc, "cannot copy to %s", p->store->name) : rc;
}

int live_past_state(const struct live_past *p, uint64_t *bytes)
{
    *bytes = p->copied;
    return p->rc;
}

/* --- beginning and end --- */

static void past_free(struct live_past *p)
{
    co_blk_close(p->store, NULL);
    granules_drop(&p->left);
    granules_drop(&p->dirty);
    mem_free(p->bitmap);
    mem_free(p->before);
    mem_free(p);
}

static int past_new(const struct live_past_options *o, struct live_past **out, struct blk_error *e)
{
    struct live_past *p = mem_zalloc(sizeof(*p));
    *out = p;
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    *p = (struct live_past){.seat = o->seat,
                            .store = o->store,
                            .blank = o->blank,
                            .most = o->store_bytes,
                            .only_dirty = o->only_dirty,
                            .watch = {.co_before = co_before, .co_flush = co_flush}};
    p->bitmap = o->bitmap ? mem_strdup(o->bitmap) : NULL;
    p->before = o->bitmap ? mem_printf("%.900s.before", o->bitmap) : NULL;
    if ((o->bitmap && (!p->bitmap || !p->before)) ||
        granules_init(&p->left, o->seat->size, true) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    if (p->store->size != p->seat->size)
        return err_set(e, -EINVAL, "%s has %" PRIu64 " bytes, %s %" PRIu64, p->store->name,
                       p->store->size, p->seat->name, p->seat->size);
    return p->store->writable ? 0 : err_set(e, -EROFS, "%s is read-only", p->store->name);
}

struct step {
    struct live_past *p;
    struct blk_error *e;
    bool failed;
};

static int co_hold(void *arg)
{
    const struct step *s = arg;
    co_seat_hold(s->p->seat);
    return 0;
}

static int release(void *arg)
{
    const struct step *s = arg;
    seat_release(s->p->seat);
    return 0;
}

/* The seat is held. */
static int co_start_watching(void *arg)
{
    const struct step *s = arg;
    struct live_past *p = s->p;
    if (p->bitmap)
        TRY(co_past_take_bitmap(p, s->e)); /* 2 */
    if (p->only_dirty && p->dirty.words) {
        granules_drop(&p->left);
        TRY(granules_init(&p->left, p->seat->size, false));
        memcpy(p->left.words, p->dirty.words,
               div_up(div_up(p->left.size, granule_bytes(&p->left)), 64) * 8);
    }
    seat_watch(p->seat, &p->watch); /* 3 */
    p->watching = true;
    return 0;
}

static int co_stop_watching(void *arg)
{
    const struct step *s = arg;
    if (s->p->watching)
        seat_unwatch(s->p->seat, &s->p->watch);
    s->p->watching = false;
    return co_past_leave_bitmap(s->p, s->failed, s->e); /* 5 */
}

static int co_each(struct live_past **list, size_t count, int (*fn)(void *arg), struct step *s)
{
    for (size_t i = 0; i < count; i++) {
        s->p = list[i];
        TRY(co_on(list[i]->seat->home, fn, s));
    }
    return 0;
}

/* One seat may be there more than once, but is held once. */
static bool is_again(struct live_past **list, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (list[k]->seat == list[i]->seat)
            return true;
    return false;
}

static void co_each_seat(struct live_past **list, size_t count, int (*fn)(void *arg))
{
    for (size_t i = 0; i < count; i++) {
        struct step s = {.p = list[i]};
        if (!is_again(list, i))
            co_on(list[i]->seat->home, fn, &s);
    }
}

static int co_all_begin(struct live_past **list, size_t count, struct blk_error *e)
{
    struct blk_error ignored;
    struct step s = {.e = e}, undo = {.e = &ignored, .failed = true};
    co_each_seat(list, count, co_hold); /* 1 */
    int rc = co_each(list, count, co_start_watching, &s);
    for (size_t i = 0; rc < 0 && i < count; i++)
        (void)!co_each(&list[i], 1, co_stop_watching, &undo);
    co_each_seat(list, count, release);
    return rc;
}

int co_live_past_begin(const struct live_past_options *list, size_t count, struct live_past **out,
                       struct blk_error *e)
{
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = NULL;
        if (rc == 0)
            rc = past_new(&list[i], &out[i], e);
        if (!out[i])
            co_blk_close(list[i].store, NULL);
    }
    if (rc == 0)
        rc = co_all_begin(out, count, e);
    for (size_t i = 0; rc < 0 && i < count; i++)
        if (out[i])
            past_free(take(out[i]));
    return rc;
}

static int co_end_at_home(void *arg)
{
    struct step *s = arg;
    co_seat_hold(s->p->seat);
    int rc = co_stop_watching(s);
    seat_release(s->p->seat);
    return rc;
}

int co_live_past_end(struct live_past *p, bool failed, struct blk_error *e)
{
    struct step s = {.p = p, .e = e, .failed = failed || p->rc < 0};
    int rc = co_on(p->seat->home, co_end_at_home, &s);
    past_free(p);
    return rc;
}

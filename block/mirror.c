/* SPDX-License-Identifier: BSD-3-Clause */
/* mirror.c - another device becomes the device, while it is read and written: migrate, commit.
 *
 * The disk is a set of granules still to be copied, all of them at first. One walk copies them;
 * a change goes to the target as well where the granule was copied already, so none is ever to be
 * copied twice, and the walk ends after one pass however much is written. A change and the copying
 * of the same place exclude each other, and so do two changes (seat.h), so both sides see them in
 * one order.
 *
 *   1 all is copied: both show the same
 *   2 both are flushed, and from here on the target whenever the device is: the job is ready, and
 *     who has to start again may take either. A device whose flush fails has lost something, so its
 *     copy is none
 *   3 told to complete: the seat is held
 *   4 both are flushed
 *     and the dirty bitmaps go along (bitmap_carry.c)
 *   5 commit: the layer lets go of what it holds; durable when that returns
 *   6 the target takes the device's place; the seat is released
 * A crash before 6 leaves the device whole. A commit writes below the layer only what the layer
 * shows, so a crash leaves what it showed, or there, what came later; after 5 the layer is empty
 * and shows what is below, for ever.
 *
 * A commit does not own its target: what it copies stays there when it fails. So it copies only
 * what the layer holds durably: it flushes the layer as it begins, and once more before it copies
 * from a granule that was changed since. Else a flush of the layer that fails and loses what was
 * written (zeroes in a new cluster, say, also where nobody wrote) leaves that in the image below,
 * and the layer, whose entry is lost too, no longer hides it. */
#include <stdatomic.h>

#include "block/live.h"
#include "block/seat_walk.h"

#define IN_FLIGHT 8
#define POLL_NS   100000000ULL

struct mirror {
    struct seat_watch watch;
    struct blk_device *seat, *target;
    struct blk_device *base; /* of a commit: the target, which shows the rest; else NULL */
    bool blank, by_hand, watching;
    bool both; /* flushes cover the target */
    struct job *job;
    struct granules left;  /* at home */
    struct granules loose; /* of a commit: changed since the layer was flushed */
    struct co_mutex settling;
    atomic_int rc; /* of a change that could not be made there */
};

/* --- copying, at home, with the range locked ---------------------------------------------------
 */

static int co_copy_extent(const struct mirror *m, uint64_t offset, const struct blk_extent *x,
                          bool blank)
{
    if (!(x->flags & (BLK_EXT_DATA | BLK_EXT_ZERO))) /* base shows it */
        return 0;
    if (x->flags & BLK_EXT_ZERO)
        return blank ? 0 : co_blk_write_zeroes(m->target, offset, x->bytes, BLK_MAY_UNMAP);
    int rc = co_blk_copy(m->target, offset, seat_device(m->seat), offset, x->bytes);
    return rc == -ENOTSUP ? co_blk_copy_through_memory(m->target, offset, seat_device(m->seat),
                                                       offset, x->bytes)
                          : rc;
}

static void keep_error(struct mirror *m, int rc)
{
    if (rc < 0 && !m->rc)
        m->rc = rc;
}

/* What a commit copies next is durable in the layer. Who comes meanwhile waits for the same flush;
 * after one that failed nothing is copied any more. */
static int co_settle(struct mirror *m, uint64_t offset, uint64_t bytes)
{
    with_lock(&m->settling);
    uint64_t n = bytes;
    bool is_loose = granules_run(&m->loose, offset, &n) || n < bytes;
    if (is_loose && !m->rc) {
        granules_set(&m->loose, 0, m->loose.size, false); /* what changes from here on is not in */
        keep_error(m, co_blk_flush(seat_device(m->seat)));
    }
    return m->rc;
}

static int co_copy(struct mirror *m, uint64_t offset, uint64_t bytes, bool blank)
{
    if (m->base)
        TRY(co_settle(m, offset, bytes));
    while (bytes) {
        struct blk_extent x;
        unsigned depth;
        TRY(co_blk_map_chain(seat_device(m->seat), m->base, offset, bytes, &x, &depth));
        TRY(co_copy_extent(m, offset, &x, blank));
        offset += x.bytes;
        bytes -= x.bytes;
    }
    return 0;
}

/* --- changes ---------------------------------------------------------------------------------- */

/* One part of a change, all of which was copied before. */
static int co_follow(struct mirror *m, const struct seat_change *c, uint64_t at, uint64_t bytes)
{
    if (c->rc < 0 || c->kind == SEAT_DISCARD) /* what is there now, only the device can say */
        return co_copy(m, c->offset + at, bytes, false);
    unsigned fua = m->both ? c->flags & BLK_FUA : 0;
    if (c->kind == SEAT_ZEROES)
        return co_blk_write_zeroes(m->target, c->offset + at, bytes,
                                   fua | (c->flags & BLK_MAY_UNMAP));
    struct vec part = vec_slice(c->from, at, bytes);
    return co_blk_write(m->target, c->offset + at, &part, fua);
}

static void co_flush(struct seat_watch *w, int rc)
{
    struct mirror *m = container_of(w, struct mirror, watch);
    keep_error(m, rc);
    if (m->both && !m->rc)
        keep_error(m, co_blk_flush(m->target));
}

static void co_after(struct seat_watch *w, const struct seat_change *c)
{
    struct mirror *m = container_of(w, struct mirror, watch);
    /* A discard that is lost leaves what was there, which it may. */
    if (m->base && (c->rc < 0 || c->kind != SEAT_DISCARD))
        granules_set(&m->loose, c->offset, c->bytes, true);
    for (uint64_t at = 0; at < c->bytes && !m->rc;) {
        uint64_t n = c->bytes - at;
        if (!granules_run(&m->left, c->offset + at, &n))
            keep_error(m, co_follow(m, c, at, n));
        at += n;
    }
}

/* --- the walk, on the job's worker ------------------------------------------------------------ */

static int co_piece(void *arg, const struct seat_stretch *s)
{
    struct mirror *m = arg;
    struct co_range_hold hold;
    co_seat_lock(m->seat, &hold, s->offset, s->bytes);
    int rc = m->rc;
    if (rc == 0)
        rc = co_copy(m, s->offset, s->bytes, m->blank);
    if (rc == 0)
        granules_set(&m->left, s->offset, s->bytes, false);
    seat_unlock(m->seat, &hold);
    return rc;
}

static int co_plan(void *arg, struct seat_stretch *s)
{
    const struct mirror *m = arg;
    struct blk_extent x;
    unsigned depth;
    TRY(co_blk_map_chain(seat_device(m->seat), m->base, s->offset, s->bytes, &x, &depth));
    seat_stretch_cut(s, &m->left, &x);
    return 0;
}

static int co_copy_all(struct mirror *m)
{
    struct seat_walk w = {.seat = m->seat,
                          .job = m->job,
                          .in_flight = IN_FLIGHT,
                          .arg = m,
                          .co_plan = co_plan,
                          .co_work = co_piece};
    return co_seat_walk(&w);
}

static int co_flush_both(void *arg)
{
    struct mirror *m = arg;
    m->both = true;
    TRY(co_blk_flush(seat_device(m->seat))); /* what it lost is no copy's contents */
    return co_blk_flush(m->target);
}

/* From the end of copying to the word that it may end. */
static int co_be_ready(struct mirror *m, const struct live_mirror *what, struct blk_error *e)
{
    TRY(co_on(m->seat->home, co_flush_both, m)); /* 2 */
    if (what && what->co_ready)
        TRY(what->co_ready(what->arg, e));
    int rc = 0;
    while (m->by_hand && rc == 0)
        rc = m->rc ? m->rc : co_job_ready(m->job, POLL_NS);
    return MIN(rc, 0);
}

/* --- beginning and end, at home --------------------------------------------------------------- */

static int co_begin(void *arg)
{
    struct mirror *m = arg;
    TRY(granules_init(&m->left, m->seat->size, true));
    if (m->base)
        TRY(granules_init(&m->loose, m->seat->size, false));
    m->watch = (struct seat_watch){.co_after = co_after, .co_flush = co_flush};
    co_seat_hold(m->seat);
    seat_watch(m->seat, &m->watch);
    seat_release(m->seat);
    m->watching = true;
    return m->base ? co_blk_flush(seat_device(m->seat)) : 0;
}

/* The seat is held, and nothing is to be copied any more. */
static int co_switch(struct mirror *m, struct blk_device **old, struct blk_error *e)
{
    int rc = m->rc;
    if (rc == 0)
        rc = co_blk_flush(seat_device(m->seat)); /* 4 */
    if (rc == 0)
        rc = co_blk_flush(m->target);
    if (rc < 0)
        return rc;
    assert(granules_count(&m->left) == 0);
    TRY(co_live_carry_bitmaps(seat_device(m->seat), m->target, e));
    if (m->base)
        TRY(co_blk_make_empty(seat_device(m->seat), e)); /* 5 */
    *old = seat_swap(m->seat, take(m->target));          /* 6 */
    return 0;
}

struct ending {
    struct mirror *m;
    struct blk_error *e;
    bool well;
};

static int co_end(void *arg)
{
    const struct ending *end = arg;
    struct mirror *m = end->m;
    struct blk_device *old = NULL;
    int rc = 0;
    if (m->watching) {
        co_seat_hold(m->seat); /* 3 */
        if (end->well)
            rc = co_switch(m, &old, end->e);
        seat_unwatch(m->seat, &m->watch);
        seat_release(m->seat);
    }
    co_blk_close(old, NULL); /* all that it held is in the target */
    /* A base stays writable: to make it read-only waits for requests, which wait for it. */
    co_blk_close(m->target, NULL);
    granules_drop(&m->left);
    granules_drop(&m->loose);
    return rc;
}

static int co_mirror(struct mirror *m, const struct live_mirror *what, struct blk_error *e)
{
    struct blk_error ignored = {0};
    struct ending end = {.m = m, .e = e};
    m->job->total = m->seat->size;
    int rc = co_on(m->seat->home, co_begin, m);
    if (rc == 0)
        rc = co_copy_all(m);
    if (rc == 0)
        rc = co_be_ready(m, what, e);
    end.well = rc == 0;
    if (rc < 0)
        end.e = &ignored;
    int ended = co_on(m->seat->home, co_end, &end);
    return rc < 0 ? rc : ended;
}

static int refuse(const struct live_mirror *w, int rc)
{
    co_blk_close(w->target, NULL);
    return rc;
}

int co_live_mirror(const struct live_mirror *what, struct blk_error *e)
{
    struct live_mirror w = *what;
    struct mirror m = {
        .seat = w.seat, .target = w.target, .blank = w.blank, .by_hand = w.by_hand, .job = w.job};
    if (w.target->size != w.seat->size)
        return refuse(&w, err_set(e, -EINVAL, "%s has %" PRIu64 " bytes, %s %" PRIu64,
                                  w.target->name, w.target->size, w.seat->name, w.seat->size));
    if (!w.target->writable)
        return refuse(&w, err_set(e, -EROFS, "%s is read-only", w.target->name));
    auto_free char *name = mem_strdup(w.target->name);
    int rc = co_mirror(&m, &w, e);
    if (rc < 0 && rc != -ECANCELED && e->rc == 0)
        err_errno(e, rc, "cannot copy to %s", name ? name : "the target");
    return rc;
}

/* --- commit ----------------------------------------------------------------------------------- */

struct commit {
    struct blk_device *seat, *base;
    struct blk_error *e;
};

/* Makes the base writable and as large as what stands on it. */
static int co_take_base(void *arg)
{
    struct commit *c = arg;
    struct blk_device *top = seat_device(c->seat), *base = blk_child(top, "backing");
    if (!base)
        return err_set(c->e, -EINVAL, "%s does not stand on another image", top->name);
    if (!top->driver->co_make_empty)
        return err_set(c->e, -ENOTSUP, "the format of %s cannot let go of its contents", top->name);
    if (base->size > top->size)
        return err_set(c->e, -EINVAL, "%s is larger than %s", base->name, top->name);
    TRY(co_blk_reopen(base, true, c->e));
    int rc = base->size < top->size ? co_blk_resize(base, top->size, false, c->e) : 0;
    if (rc < 0) {
        (void)!co_blk_reopen(base, false, NULL);
        return rc;
    }
    c->base = blk_ref(base);
    return 0;
}

int co_live_commit(struct blk_device *seat, bool by_hand, struct job *job, struct blk_error *e)
{
    struct commit c = {.seat = seat, .e = e};
    TRY(co_on(seat->home, co_take_base, &c));
    struct mirror m = {
        .seat = seat, .target = c.base, .base = c.base, .by_hand = by_hand, .job = job};
    int rc = co_mirror(&m, NULL, e);
    if (rc < 0 && rc != -ECANCELED && e->rc == 0)
        err_errno(e, rc, "cannot copy into the image below");
    return rc;
}

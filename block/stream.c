/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.c - an image takes in what shows through it from below, while it is read and written, and
 * then stands on less, or on nothing.
 *
 *   1 everything that layers between the image and base hold, and it does not hide, is written into
 *     it; no change of the same place is under way meanwhile (seat.h)
 *   2 the seat is held, and the image flushed: it shows the same on either
 *   3 its header names base, or none (co_change_backing: old or new, nothing between)
 *   4 the open device stands on that too; what it stood on is closed
 * So after a crash at any instant the image shows what it showed. */
#include "block/live.h"
#include "block/seat_walk.h"

#define PIECE_BYTES (1 * MiB)
#define PASS_STEP   (1 * GiB)
#define IN_FLIGHT   4

struct stream {
    const struct live_stream *what;
    struct blk_device *seat;
    struct seat_watch watch; /* says nothing: it is there for the order of changes */
    struct blk_error *e;
};

static struct blk_device *image_of(const struct stream *s)
{
    return seat_device(s->seat);
}

/* What of the status means that there is something to take in. */
static bool is_below(const struct stream *s, const struct blk_extent *x, unsigned depth)
{
    if (depth == 0 || !(x->flags & (BLK_EXT_DATA | BLK_EXT_ZERO)))
        return false;
    /* Standing on nothing, a hole shows zeroes too. */
    return s->what->base || !(x->flags & BLK_EXT_ZERO);
}

static int co_take_in(const struct stream *s, uint64_t offset, uint64_t bytes)
{
    struct blk_device *image = image_of(s);
    while (bytes) {
        struct blk_extent x;
        unsigned depth;
        TRY(co_blk_map_chain(image, s->what->base, offset, bytes, &x, &depth));
        if (is_below(s, &x, depth))
            TRY(x.flags & BLK_EXT_ZERO
                    ? co_blk_write_zeroes(image, offset, x.bytes, BLK_MAY_UNMAP)
                    : co_blk_copy_through_memory(image, offset, image, offset, x.bytes));
        offset += x.bytes;
        bytes -= x.bytes;
    }
    return 0;
}

static int co_piece(void *arg, const struct seat_stretch *t)
{
    struct stream *s = arg;
    struct co_range_hold hold;
    co_seat_lock(s->seat, &hold, t->offset, t->bytes);
    int rc = co_take_in(s, t->offset, t->bytes); /* looks again: a client may have been faster */
    seat_unlock(s->seat, &hold);
    return rc;
}

static int co_plan(void *arg, struct seat_stretch *t)
{
    const struct stream *s = arg;
    struct blk_extent x;
    unsigned depth;
    TRY(co_blk_map_chain(image_of(s), s->what->base, t->offset, t->bytes, &x, &depth));
    t->pass = !is_below(s, &x, depth);
    t->bytes = MIN(x.bytes, t->pass || x.flags & BLK_EXT_ZERO ? PASS_STEP : PIECE_BYTES);
    return 0;
}

/* --- beginning and end ------------------------------------------------------------------------ */

/* Snapshots inside the image show what is below as well. */
static int co_refuse_snapshots(struct blk_device *image, struct blk_error *e)
{
    struct blk_snapshot *list;
    size_t count;
    if (!image->driver->co_snapshot_list)
        return 0;
    TRY(co_blk_snapshot_list(image, &list, &count, e));
    blk_snapshots_drop(list, count);
    return count
               ? err_set(e, -EBUSY, "%s holds snapshots, which need what it stands on", image->name)
               : 0;
}

static int co_begin(void *arg)
{
    struct stream *s = arg;
    struct blk_device *image = image_of(s);
    if (!blk_child(image, "backing"))
        return err_set(s->e, -EINVAL, "%s does not stand on another image", image->name);
    if (!image->driver->co_change_backing || !image->driver->co_opened)
        return err_set(s->e, -ENOTSUP, "the format of %s cannot be stood on another image",
                       image->name);
    TRY(co_refuse_snapshots(image, s->e));
    co_seat_hold(s->seat);
    seat_watch(s->seat, &s->watch);
    seat_release(s->seat);
    return 0;
}

static int co_leave(void *arg)
{
    struct stream *s = arg;
    co_seat_hold(s->seat);
    seat_unwatch(s->seat, &s->watch);
    seat_release(s->seat);
    return 0;
}

/* The seat is held. */
static int co_stand_on_base(struct stream *s, struct blk_device **old)
{
    const struct live_stream *w = s->what;
    struct blk_device *image = image_of(s);
    int rc = co_blk_flush(image);
    if (rc < 0)
        return err_errno(s->e, rc, "%s cannot be made durable", image->name);
    TRY(co_blk_change_backing(image, w->name, w->format, s->e)); /* 3 */
    return co_blk_exchange_child(image, "backing", w->base ? blk_ref(w->base) : NULL, old, s->e);
}

static int co_end(void *arg)
{
    struct stream *s = arg;
    struct blk_device *old = NULL;
    int rc = co_blk_flush(image_of(s)); /* outside of the instant */
    if (rc < 0)
        err_errno(s->e, rc, "%s cannot be made durable", image_of(s)->name);
    co_seat_hold(s->seat); /* 2 */
    if (rc == 0)
        rc = co_stand_on_base(s, &old);
    seat_unwatch(s->seat, &s->watch);
    seat_release(s->seat);
    co_blk_close(old, NULL); /* 4 */
    return rc;
}

int co_live_stream(const struct live_stream *what, struct blk_error *e)
{
    struct stream s = {.what = what, .seat = what->seat, .e = e};
    struct worker *home = s.seat->home;
    what->job->total = s.seat->size;
    TRY(co_on(home, co_begin, &s));
    struct seat_walk walk = {.seat = s.seat,
                             .job = what->job,
                             .in_flight = IN_FLIGHT,
                             .arg = &s,
                             .co_plan = co_plan,
                             .co_work = co_piece};
    int rc = co_seat_walk(&walk); /* 1 */
    if (rc == 0)
        return co_on(home, co_end, &s);
    co_on(home, co_leave, &s);
    return rc == -ECANCELED ? rc : err_errno(e, rc, "cannot take in what is below");
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* seat.c - a layer whose device can be exchanged, and whose changes can be watched, under load.
 *
 *  S1  The device and the list of watches change only while the seat is held: no request is inside.
 *  S2  While there is a watch, a change holds its range from before co_before to after co_after.
 *  S3  resolve answers no write while there is a watch, and nothing while the seat is held.
 *
 * Resolve may run on any worker, so what it looks at is atomic. */
#include "block/seat.h"

#include <stdatomic.h>

struct seat {
    struct blk_device *dev;
    _Atomic(struct blk_device *) child;
    struct seat_watch *watches;
    bool resizing;
    atomic_bool watched, held;
    struct co_range changes; /* S2 */
    struct blk_listener listener;
};

static struct seat *seat_of(const struct blk_device *dev)
{
    assert(dev->driver == &seat_driver);
    return dev->state;
}

/* --- changes ---------------------------------------------------------------------------------- */

static int co_do(struct seat *s, const struct seat_change *c)
{
    switch (c->kind) {
    case SEAT_WRITE:
        return co_blk_write(s->child, c->offset, c->from, c->flags);
    case SEAT_ZEROES:
        return co_blk_write_zeroes(s->child, c->offset, c->bytes, c->flags);
    case SEAT_DISCARD:
        return co_blk_discard(s->child, c->offset, c->bytes);
    }
    return -EINVAL;
}

static int co_change(struct seat *s, struct seat_change *c)
{
    if (likely(!s->watches))
        return co_do(s, c);
    struct co_range_hold hold;
    co_range_lock(&s->changes, &hold, c->offset, c->bytes, false);
    for (struct seat_watch *w = s->watches; w; w = w->next)
        if (w->co_before)
            w->co_before(w, c);
    c->rc = co_do(s, c);
    for (struct seat_watch *w = s->watches; w; w = w->next)
        if (w->co_after)
            w->co_after(w, c);
    co_range_unlock(&s->changes, &hold);
    return c->rc;
}

static int co_seat_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    struct seat_change c = {SEAT_WRITE, offset, from->bytes, from, flags, 0};
    return co_change(dev->state, &c);
}

static int co_seat_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                unsigned flags)
{
    struct seat_change c = {SEAT_ZEROES, offset, bytes, NULL, flags, 0};
    return co_change(dev->state, &c);
}

static int co_seat_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct seat_change c = {SEAT_DISCARD, offset, bytes, NULL, 0, 0};
    return co_change(dev->state, &c);
}

/* --- all else --------------------------------------------------------------------------------- */

static int co_seat_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return co_blk_read(seat_of(dev)->child, offset, to);
}

static int co_seat_flush(struct blk_device *dev)
{
    struct seat *s = dev->state;
    int rc = co_blk_flush(s->child);
    for (struct seat_watch *w = s->watches; w; w = w->next)
        if (w->co_flush)
            w->co_flush(w, rc);
    return rc;
}

static bool seat_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                         struct blk_place *out)
{
    struct seat *s = dev->state;
    if (s->held || (write && s->watched)) /* S3 */
        return false;
    *out = (struct blk_place){.child = s->child, .offset = offset, .bytes = bytes};
    return true;
}

static int co_seat_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                       struct blk_extent *out)
{
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = seat_of(dev)->child,
                               .child_offset = offset};
    return 0;
}

static int refuse_watched(const struct blk_device *dev, const char *what, struct blk_error *e)
{
    return seat_watched(dev)
               ? err_set(e, -EBUSY, "%s cannot %s while a job or a point export is at work on it",
                         dev->name, what)
               : 0;
}

static int co_seat_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct seat *s = seat_of(dev);
    TRY(refuse_watched(dev, "be resized", e));
    s->resizing = true;
    int rc = co_blk_resize(s->child, size, shrink, e);
    s->resizing = false;
    return rc;
}

static int co_seat_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    return co_blk_info(seat_of(dev)->child, out, e);
}

static int co_seat_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e)
{
    return co_blk_check(seat_of(dev)->child, check, e);
}

static int co_seat_snapshot_list(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                                 struct blk_error *e)
{
    return co_blk_snapshot_list(seat_of(dev)->child, out, count, e);
}

static int co_seat_snapshot_create(struct blk_device *dev, const struct blk_snapshot *snapshot,
                                   struct blk_error *e)
{
    return co_blk_snapshot_create(seat_of(dev)->child, snapshot, e);
}

static int co_seat_snapshot_apply(struct blk_device *dev, const char *id, struct blk_error *e)
{
    struct seat *s = dev->state;
    TRY(refuse_watched(dev, "go back to a snapshot", e));
    int rc = co_blk_snapshot_apply(s->child, id, e);
    dev->size = s->child->size;
    return rc;
}

static int co_seat_snapshot_delete(struct blk_device *dev, const char *id, uint64_t *freed_bytes,
                                   struct blk_error *e)
{
    return co_blk_snapshot_delete(seat_of(dev)->child, id, freed_bytes, e);
}

static int co_seat_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                               struct blk_error *e)
{
    return co_blk_bitmap_list(seat_of(dev)->child, out, count, e);
}

static int co_seat_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *c,
                                 struct blk_error *e)
{
    struct blk_bitmap_change below = *c;
    if (below.source == dev)
        below.source = seat_of(dev)->child;
    return co_blk_bitmap_change(seat_of(dev)->child, &below, e);
}

static int co_seat_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset,
                               uint64_t bytes, struct blk_bitmap_extent *out, struct blk_error *e)
{
    return co_blk_bitmap_read(seat_of(dev)->child, name, offset, bytes, out, e);
}

/* --- holding, swapping, watching -------------------------------------------------------------- */

void co_seat_hold(struct blk_device *dev)
{
    struct seat *s = seat_of(dev);
    co_blk_halt(dev);
    s->held = true;
}

void seat_release(struct blk_device *dev)
{
    struct seat *s = seat_of(dev);
    assert(s->held);
    s->held = false;
    blk_go_on(dev);
}

struct blk_device *seat_device(const struct blk_device *dev)
{
    return seat_of(dev)->child;
}

/* What the device below passes on of its nature; requests of any shape are its own matter. */
static void take_nature(struct seat *s)
{
    struct blk_device *child = s->child;
    blk_inherit_limits(s->dev, child);
    s->dev->writable = child->writable;
}

struct blk_device *seat_swap(struct blk_device *dev, struct blk_device *next)
{
    struct seat *s = seat_of(dev);
    struct blk_device *old = s->child;
    assert(s->held); /* S1 */
    assert(next->home == dev->home && next->size == dev->size && dev->child_count == 1);
    blk_unlisten(old, &s->listener);
    s->child = dev->children[0].dev = next;
    blk_forget_behind(dev);
    blk_listen(next, &s->listener);
    take_nature(s);
    return old;
}

void seat_watch(struct blk_device *dev, struct seat_watch *w)
{
    struct seat *s = seat_of(dev);
    assert(s->held); /* S1 */
    w->next = s->watches;
    s->watches = w;
    s->watched = true;
}

void seat_unwatch(struct blk_device *dev, struct seat_watch *w)
{
    struct seat *s = seat_of(dev);
    assert(s->held); /* S1 */
    struct seat_watch **at = &s->watches;
    while (*at && *at != w)
        at = &(*at)->next;
    assert(*at);
    *at = w->next;
    s->watched = s->watches != NULL;
}

bool seat_watched(const struct blk_device *dev)
{
    return seat_of(dev)->watched;
}

void co_seat_lock(struct blk_device *dev, struct co_range_hold *hold, uint64_t offset,
                  uint64_t bytes)
{
    co_range_lock(&seat_of(dev)->changes, hold, offset, bytes, false);
}

void seat_unlock(struct blk_device *dev, struct co_range_hold *hold)
{
    co_range_unlock(&seat_of(dev)->changes, hold);
}

struct blk_device *seat_under(struct blk_device *dev)
{
    while (dev && dev->driver != &seat_driver)
        dev = dev->child_count == 1 ? dev->children[0].dev : NULL;
    return dev;
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_event(struct blk_listener *l, struct blk_device *child, enum blk_event ev)
{
    struct seat *s = container_of(l, struct seat, listener);
    if (ev == BLK_EV_MARKED_CORRUPT)
        s->dev->writable = false;
    if (ev == BLK_EV_RESIZED && s->resizing)
        return;                              /* the waist tells */
    if (ev == BLK_EV_RESIZED && !s->watches) /* an array that grew */
        s->dev->size = child->size;
    blk_tell(s->dev, ev);
}

static int co_seat_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    struct seat *s = mem_zalloc(sizeof(*s));
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    s->dev = dev;
    s->child = child;
    s->listener.on_event = on_event;
    blk_listen(child, &s->listener);
    dev->state = s;
    dev->size = child->size;
    take_nature(s);
    return 0;
}

static int co_seat_close(struct blk_device *dev, struct blk_error *e)
{
    struct seat *s = seat_of(dev);
    assert(!s->watches && !s->held);
    blk_unlisten(s->child, &s->listener);
    mem_free(s);
    return 0;
}

int co_seat_put(struct blk_device *dev, struct blk_device **out, struct blk_error *e)
{
    struct blk_child child = {.role = "file", .dev = dev};
    return co_blk_open(&seat_driver, dev->name, NULL, dev->writable ? BLK_OPEN_WRITE : 0, NULL,
                       &child, 1, out, e);
}

const struct blk_driver seat_driver = {
    .name = "seat",
    .title = "lets the device below be exchanged and its changes be watched",
    .stays_put = true, /* who sends from a file holds us meanwhile, so nothing is exchanged */
    .handles_fua = true,
    .co_open = co_seat_open,
    .co_close = co_seat_close,
    .co_read = co_seat_read,
    .co_write = co_seat_write,
    .co_write_zeroes = co_seat_write_zeroes,
    .co_discard = co_seat_discard,
    .co_flush = co_seat_flush,
    .resolve = seat_resolve,
    .co_map = co_seat_map,
    .co_resize = co_seat_resize,
    .co_info = co_seat_info,
    .co_check = co_seat_check,
    .co_snapshot_list = co_seat_snapshot_list,
    .co_snapshot_create = co_seat_snapshot_create,
    .co_snapshot_apply = co_seat_snapshot_apply,
    .co_snapshot_delete = co_seat_snapshot_delete,
    .co_bitmap_list = co_seat_bitmap_list,
    .co_bitmap_change = co_seat_bitmap_change,
    .co_bitmap_read = co_seat_bitmap_read,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* overlay.c - external snapshots: in one instant, new images on top of several devices become the
 * devices.
 *
 *   1 each new image is durable, names what it will stand on, and is empty: it shows the same
 *   2 the devices are flushed, so that little is left for the instant
 *   3 all seats are held
 *   4 their dirty bitmaps go along (bitmap_carry.c); the devices become read-only, which flushes
 *     the rest
 *   5 the images take their places; the seats are released
 * A crash before 5 loses nothing: the empty images show what the devices do. After it every change
 * lies in the images. Who starts again takes the image if there is one. */
#include "block/live.h"

struct step {
    struct live_overlay *o;
    struct blk_error *e;
    bool write;
};

/* Stands the image on the device that is there now. */
static int co_attach(void *arg)
{
    struct step *s = arg;
    struct blk_device *top = seat_device(s->o->seat), *none;
    if (s->o->image->size != top->size)
        return err_set(s->e, -EINVAL, "%s is not as large as %s", s->o->image->name, top->name);
    TRY(co_blk_exchange_child(s->o->image, "backing", blk_ref(top), &none, s->e));
    int rc = co_blk_flush(s->o->image); /* 1 */
    if (rc == 0)
        rc = co_blk_flush(top); /* 2 */
    return rc < 0 ? err_errno(s->e, rc, "%s cannot be made durable", top->name) : 0;
}

static int co_hold(void *arg)
{
    const struct step *s = arg;
    co_seat_hold(s->o->seat);
    return 0;
}

static int release(void *arg)
{
    const struct step *s = arg;
    seat_release(s->o->seat);
    return 0;
}

static int co_reopen(void *arg)
{
    const struct step *s = arg;
    return co_blk_reopen(seat_device(s->o->seat), s->write, s->e);
}

static int co_carry(void *arg)
{
    const struct step *s = arg;
    return co_live_carry_bitmaps(seat_device(s->o->seat), s->o->image, s->e);
}

static int co_swap(void *arg)
{
    struct step *s = arg;
    /* The image has a reference too, so this closes nothing. */
    return co_blk_close(seat_swap(s->o->seat, take(s->o->image)), NULL);
}

static int co_each(struct live_overlay *list, size_t count, int (*fn)(void *arg), bool write,
                   struct blk_error *e)
{
    for (size_t i = 0; i < count; i++) {
        struct step s = {.o = &list[i], .e = e, .write = write};
        TRY(co_on(list[i].seat->home, fn, &s));
    }
    return 0;
}

/* All seats are held. */
static int co_switch(struct live_overlay *list, size_t count, struct blk_error *e)
{
    struct blk_error ignored;
    size_t done = 0;
    int rc = co_each(list, count, co_carry, false, e); /* 4 */
    for (; rc == 0 && done < count; done++)
        rc = co_each(&list[done], 1, co_reopen, false, e);
    if (rc < 0) { /* the one that failed may have become read-only in part */
        (void)!co_each(list, MIN(done + 1, count), co_reopen, true, &ignored);
        return rc;
    }
    (void)!co_each(list, count, co_swap, false, NULL); /* 5 */
    return 0;
}

int co_live_overlay(struct live_overlay *list, size_t count, struct blk_error *e)
{
    int rc = co_each(list, count, co_attach, false, e);
    if (rc == 0) {
        (void)!co_each(list, count, co_hold, false, NULL); /* 3 */
        rc = co_switch(list, count, e);
        (void)!co_each(list, count, release, false, NULL);
    }
    for (size_t i = 0; i < count; i++)
        co_blk_close(take(list[i].image), NULL);
    return rc;
}

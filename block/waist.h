/* SPDX-License-Identifier: BSD-3-Clause */
/* waist.h - what the files of the waist (device.c, io*.c, map_chain.c, control.c) share; nobody
 * else includes it.
 *
 * A request enters a device at its home, is counted in in_flight until it leaves, and waits at the
 * gate while somebody changes the device's size or mode. */
#ifndef BLOCK_WAIST_H
#define BLOCK_WAIST_H

#include "block/block.h"

/* One request, so that it can be run elsewhere: at home, or on a stack of its own. */
struct blk_call {
    struct blk_device *dev;
    uint64_t offset, bytes;
    const struct vec *vec;
    unsigned flags;
    const struct blk_place *from;
    struct blk_extent *extent;
    struct blk_error *error;
};

static inline bool blk_at_home(const struct blk_device *dev)
{
    return likely(worker_self() == dev->home);
}

void co_blk_gate_wait(struct blk_device *dev);

void blk_epoch_ended(struct worker *w);

/* Gives the epoch, which blk_leave() takes back. */
static inline must_use unsigned blk_enter(struct blk_device *dev)
{
    if (unlikely(dev->gate != NULL))
        co_blk_gate_wait(dev);
    dev->in_flight++;
    struct worker *w = dev->home;
    unsigned epoch = w->requests.epoch;
    w->requests.in_flight[epoch]++;
    return epoch;
}

static inline void blk_leave(struct blk_device *dev, unsigned epoch)
{
    struct worker *w = dev->home;
    assert(dev->in_flight > 0 && w->requests.in_flight[epoch] > 0);
    if (--w->requests.in_flight[epoch] == 0 && unlikely(epoch != w->requests.epoch))
        blk_epoch_ended(w);
    if (--dev->in_flight == 0 && unlikely(!co_queue_empty(&dev->idle)))
        co_queue_wake_all(&dev->idle);
}

/* Closes the gate and waits until the device is idle; the holder's own requests still pass. */
void co_blk_gate_close(struct blk_device *dev);
void blk_gate_open(struct blk_device *dev);

/* Each layer below takes some of the stack, and chains are up to 1,024 long: when little is left,
 * the request goes on in a coroutine of its own. */
#define BLK_STACK_RESERVE (20 * KiB)
int co_blk_run(int (*fn)(void *call), struct blk_call *call);

/* io.c, for the other io files: requests that are already inside @dev. */
/* 0, or why a change of [offset, +bytes) is refused. */
int blk_may_change(const struct blk_device *dev, uint64_t offset, uint64_t bytes);
int co_blk_driver_read(struct blk_device *dev, uint64_t offset, const struct vec *to);
int co_blk_driver_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags);
int co_blk_inside_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags);
int co_blk_inside_flush(struct blk_device *dev);
/* check_data.c: reads all that @dev itself stores and counts what cannot be. */
int co_blk_check_data(struct blk_device *dev, struct blk_check *check);
/* True if the device takes this as it is: no edge, no bounce, no split. */
static inline bool blk_fits(const struct blk_device *dev, uint64_t offset, const struct vec *v)
{
    const struct blk_limits *l = &dev->limits;
    return ((offset | v->bytes) & (l->request_align - 1)) == 0 &&
           (l->max_transfer == 0 || v->bytes <= l->max_transfer) &&
           (l->memory_align == 1 || vec_aligned(v, l->memory_align));
}

/* behind.c: *p is a place in @dev->backing, and may become one in a device further down. */
void blk_find_behind(struct blk_device *dev, struct blk_place *p);

/* io_align.c */
int co_blk_read_unfit(struct blk_device *dev, uint64_t offset, const struct vec *to);
/* Holds the range among writers, widens, bounces, splits, and lets a growable device grow. */
int co_blk_write_serial(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags);

/* After a change past the end has failed: nothing of it may stay there. */
void co_blk_cut_back(struct blk_device *dev);

/* io_zero.c */
#define BLK_ZERO_PIECES 16
#define BLK_ZERO_BYTES  (64 * KiB)
/* A view of up to BLK_ZERO_PIECES * BLK_ZERO_BYTES zeroes. */
struct vec blk_zero_vec(struct iovec iov[BLK_ZERO_PIECES], uint64_t bytes);
/* What a change of [offset, +bytes) holds in dev->serial. @grows: it sets the end of the device, so
 * nothing behind may be under way. */
void co_blk_hold(struct blk_device *dev, struct co_range_hold *hold, uint64_t offset,
                 uint64_t bytes, bool alone, bool grows);

#endif

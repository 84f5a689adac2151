/* SPDX-License-Identifier: BSD-3-Clause */
/* io.c - the checked waist: read, write, discard and flush, with the short way down to the host
 * file.
 *
 *   read    resolve says where all of it lies in the host file: read there, no layer is called
 *           else the layer's own co_read
 *   write   an overwrite in place that needs no order: the same; else the layer's own co_write
 *
 * I1  A request that failed in any part fails whole; what it was given to fill then means nothing.
 * I2  What no driver filled never comes out: short reads are zero to the end.
 * I3  A request is counted in in_flight from before its first step to after its last.
 * I4  Nothing grows by a read; only a growable device grows by a write, and only once it succeeded.
 *
 * io_align.c widens, bounces and splits, io_zero.c writes zeroes, io_copy.c copies. */
#include "block/waist.h"

/* --- elsewhere: another worker, another stack ------------------------------------------------- */

struct elsewhere {
    int (*fn)(void *call);
    struct blk_call *call;
    struct co *waiter;
    bool done;
    int rc;
};

static void run_elsewhere(void *arg)
{
    struct elsewhere *run = arg;
    run->rc = run->fn(run->call);
    run->done = true;
    if (run->waiter)
        co_wake(run->waiter);
}

/* On a fresh stack of the same worker. */
static int co_on_new_stack(int (*fn)(void *call), struct blk_call *call)
{
    struct elsewhere run = {.fn = fn, .call = call};
    TRY(co_start(run_elsewhere, &run));
    while (!run.done) {
        run.waiter = co_self();
        co_suspend();
    }
    return run.rc;
}

int co_blk_run(int (*fn)(void *call), struct blk_call *call)
{
    if (!blk_at_home(call->dev))
        return co_on(call->dev->home, fn, call);
    if (unlikely(co_stack_left() < BLK_STACK_RESERVE))
        return co_on_new_stack(fn, call);
    return fn(call);
}

/* --- the short way ---------------------------------------------------------------------------- */

/* Somebody is changing the device, and it is not us. */
static inline bool gate_shut(struct blk_device *dev)
{
    struct co *holder = __atomic_load_n(&dev->gate, __ATOMIC_SEQ_CST);
    return unlikely(holder != NULL) && !(blk_at_home(dev) && holder == co_self());
}

/* From a place in @d to the one below. */
static inline bool resolve_step(struct blk_device *d, struct blk_place *at, bool write)
{
    if (!d->driver->resolve || gate_shut(d)) /* first: the rest may be changing */
        return false;
    uint64_t size = __atomic_load_n(&d->size, __ATOMIC_RELAXED);
    if (unlikely(at->offset >= size))
        return false;
    uint64_t asked = MIN(at->bytes, size - at->offset);
    struct blk_place next = {0};
    if (!d->driver->resolve(d, at->offset, asked, write, &next))
        return false;
    assert(next.bytes > 0 && next.bytes <= asked);
    next.redundant |= at->redundant;
    *at = next;
    if (at->child && at->child == d->backing)
        blk_find_behind(d, at); /* such a layer never stays put, whatever this passes */
    return true;
}

bool blk_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                 struct blk_place *out)
{
    struct blk_place at = {.child = dev, .offset = offset, .bytes = bytes};
    do {
        if (!resolve_step(at.child, &at, write))
            return false;
    } while (!at.file);
    *out = at;
    return true;
}

bool blk_resolve_steady(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    struct blk_place at = {.child = dev, .offset = offset, .bytes = bytes};
    bool steady = true;
    do {
        struct blk_device *d = at.child;
        if (!resolve_step(d, &at, write))
            return false;
        steady &= d->driver->stays_put;
    } while (!at.file);
    *out = at;
    return steady || !(at.file->flags & HOST_WRITE);
}

/* O_DIRECT files take aligned requests only. */
static inline bool file_takes(const struct blk_place *p, const struct vec *v)
{
    const struct host_file *f = p->file;
    if (likely(!(f->flags & HOST_DIRECT)))
        return true;
    return ((p->offset | v->bytes) & (f->stat.request_align - 1)) == 0 &&
           vec_aligned(v, f->stat.memory_align);
}

static int zero_rest(const struct vec *to, int64_t got)
{
    if (unlikely((uint64_t)got < to->bytes)) { /* I2: the file ended before its size says */
        struct vec rest = vec_slice(to, (uint64_t)got, to->bytes - (uint64_t)got);
        vec_fill(&rest, 0);
    }
    return 0;
}

static int read_file(const struct blk_place *p, const struct vec *to)
{
    int64_t got = co_host_read(p->file, p->offset, to);
    return unlikely(got < 0) ? (int)got : zero_rest(to, got);
}

/* What lies in several places, as far as no piece has to wait: many waits one after the other are
 * the driver's to overlap. Gives the bytes served or an error. */
static int64_t read_pieces(struct blk_device *dev, uint64_t offset, const struct vec *to,
                           struct blk_place *p)
{
    uint64_t at = 0;
    do {
        struct vec piece = vec_slice(to, at, p->bytes);
        if (!file_takes(p, &piece))
            break;
        int64_t got = host_read_now(p->file, p->offset, &piece);
        if (got == -EAGAIN)
            break;
        if (got < 0)
            return got;
        zero_rest(&piece, got);
        at += p->bytes;
    } while (at < to->bytes && blk_resolve(dev, offset + at, to->bytes - at, false, p));
    return (int64_t)at;
}

/* --- through the driver ----------------------------------------------------------------------- */

/* One step of a filter that leaves an operation out: where this lies below. */
static struct blk_place filter_step(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct blk_place p = {0};
    bool hit = dev->driver->is_filter && dev->driver->resolve &&
               dev->driver->resolve(dev, offset, bytes, false, &p);
    assert(hit && p.child && p.bytes > 0 && p.bytes <= bytes);
    (void)hit;
    return p;
}

static int filter_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    for (uint64_t at = 0; at < to->bytes;) {
        struct blk_place p = filter_step(dev, offset + at, to->bytes - at);
        struct vec piece = vec_slice(to, at, p.bytes);
        TRY(co_blk_read(p.child, p.offset, &piece));
        at += p.bytes;
    }
    return 0;
}

static int filter_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    for (uint64_t at = 0; at < from->bytes;) {
        struct blk_place p = filter_step(dev, offset + at, from->bytes - at);
        struct vec piece = vec_slice(from, at, p.bytes);
        TRY(co_blk_write(p.child, p.offset, &piece, flags));
        at += p.bytes;
    }
    return 0;
}

int co_blk_driver_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    if (!dev->driver->co_read)
        return filter_read(dev, offset, to);
    int rc = dev->driver->co_read(dev, offset, to);
    assert(rc <= 0);
    return rc;
}

int co_blk_driver_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    if (!dev->driver->co_write)
        return dev->driver->is_filter ? filter_write(dev, offset, from, flags) : -ENOTSUP;
    int rc = dev->driver->co_write(dev, offset, from, flags);
    assert(rc <= 0);
    return rc;
}

/* --- read ------------------------------------------------------------------------------------- */

static int read_by_driver(void *arg)
{
    struct blk_call *call = arg;
    if (likely(blk_fits(call->dev, call->offset, call->vec)))
        return co_blk_driver_read(call->dev, call->offset, call->vec);
    return co_blk_read_unfit(call->dev, call->offset, call->vec);
}

static int inside_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct blk_place p;
    int64_t served = 0;
    if (likely(blk_resolve(dev, offset, to->bytes, false, &p))) {
        if (likely(p.bytes == to->bytes && file_takes(&p, to))) {
            served = read_file(&p, to);
            if (likely(served == 0))
                return 0;
        } else if (p.bytes < to->bytes) {
            served = read_pieces(dev, offset, to, &p);
            if (served == (int64_t)to->bytes)
                return 0;
        }
        if (served < 0 && !p.redundant)
            return (int)served;
        served = MAX(served, 0);
    }
    struct vec rest = vec_slice(to, (uint64_t)served, to->bytes - (uint64_t)served);
    struct blk_call call = {.dev = dev, .offset = offset + (uint64_t)served, .vec = &rest};
    return co_blk_run(read_by_driver, &call);
}

static int read_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_read(call->dev, call->offset, call->vec);
}

int co_blk_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    if (!blk_at_home(dev)) {
        struct blk_call call = {.dev = dev, .offset = offset, .vec = to};
        return co_on(dev->home, read_at_home, &call);
    }
    unsigned epoch = blk_enter(dev);
    int rc = -EINVAL;
    if (likely(range_fits(offset, to->bytes, dev->size)))
        rc = likely(to->bytes) ? inside_read(dev, offset, to) : 0;
    blk_leave(dev, epoch);
    return rc;
}

/* --- write ------------------------------------------------------------------------------------ */

int blk_may_change(const struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    uint64_t end;
    if (!add_u64(offset, bytes, &end) || end > INT64_MAX)
        return -EINVAL;
    if (!dev->writable)
        return -EROFS;
    return end <= dev->size || dev->limits.growable ? 0 : -ENOSPC;
}

static int write_by_driver(void *arg)
{
    struct blk_call *call = arg;
    struct blk_device *dev = call->dev;
    /* Where all requests fit and the size stays, writers need not know of each other (B2). */
    if (dev->limits.request_align == 1 && blk_fits(dev, call->offset, call->vec) &&
        call->offset + call->vec->bytes <= dev->size)
        return co_blk_driver_write(dev, call->offset, call->vec, call->flags);
    return co_blk_write_serial(dev, call->offset, call->vec, call->flags);
}

int co_blk_inside_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct blk_place p;
    if (likely(flags == 0) && blk_resolve(dev, offset, from->bytes, true, &p) &&
        p.bytes == from->bytes && file_takes(&p, from))
        return co_host_write(p.file, p.offset, from);
    bool flush = (flags & BLK_FUA) && !dev->driver->handles_fua && !dev->driver->is_filter;
    struct blk_call call = {
        .dev = dev, .offset = offset, .vec = from, .flags = flush ? flags & ~BLK_FUA : flags};
    int rc = co_blk_run(write_by_driver, &call);
    if (rc == 0 && flush)
        rc = co_blk_inside_flush(dev);
    return rc;
}

static int write_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_write(call->dev, call->offset, call->vec, call->flags);
}

int co_blk_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    if (!blk_at_home(dev)) {
        struct blk_call call = {.dev = dev, .offset = offset, .vec = from, .flags = flags};
        return co_on(dev->home, write_at_home, &call);
    }
    unsigned epoch = blk_enter(dev);
    int rc = blk_may_change(dev, offset, from->bytes);
    if (likely(rc == 0) && likely(from->bytes))
        rc = co_blk_inside_write(dev, offset, from, flags);
    blk_leave(dev, epoch);
    return rc;
}

/* --- not at home ------------------------------------------------------------------------------ */

static bool hold_place(struct blk_device *dev, uint64_t offset, const struct vec *v, bool write,
                       struct blk_place *p)
{
    if (v->bytes == 0 || blk_at_home(dev) || !blk_hold(dev))
        return false;
    if (blk_resolve_steady(dev, offset, v->bytes, write, p) && !p->redundant &&
        p->bytes == v->bytes && file_takes(p, v))
        return true;
    blk_release(dev);
    return false;
}

int co_blk_read_here(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct blk_place p;
    if (!hold_place(dev, offset, to, false, &p))
        return co_blk_read(dev, offset, to);
    int rc = read_file(&p, to);
    blk_release(dev);
    return rc;
}

int co_blk_write_here(struct blk_device *dev, uint64_t offset, const struct vec *from)
{
    struct blk_place p;
    if (!hold_place(dev, offset, from, true, &p))
        return co_blk_write(dev, offset, from, 0);
    int rc = co_host_write(p.file, p.offset, from);
    blk_release(dev);
    return rc;
}

/* --- discard ---------------------------------------------------------------------------------- */

static int filter_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        struct blk_place p = filter_step(dev, offset, bytes);
        TRY(co_blk_discard(p.child, p.offset, p.bytes));
        offset += p.bytes;
        bytes -= p.bytes;
    }
    return 0;
}

/* A hint: edges that are less than the granularity are left alone, and so is what cannot. */
static int discard_by_driver(void *arg)
{
    struct blk_call *call = arg;
    struct blk_device *dev = call->dev;
    if (!dev->driver->co_discard)
        return dev->driver->is_filter ? filter_discard(dev, call->offset, call->bytes) : 0;
    uint64_t unit = MAX(dev->limits.discard_granularity, dev->limits.request_align);
    uint64_t end = call->offset + call->bytes;
    uint64_t from = div_up(call->offset, unit) * unit;
    uint64_t to = end == dev->size ? end : end / unit * unit;
    if (from >= to)
        return 0;
    struct co_range_hold hold;
    bool serial = dev->limits.request_align > 1;
    if (serial)
        co_blk_hold(dev, &hold, from, to - from, false, false);
    int rc = dev->driver->co_discard(dev, from, to - from);
    assert(rc <= 0);
    if (serial)
        co_range_unlock(&dev->serial, &hold);
    return rc == -ENOTSUP ? 0 : rc;
}

static int discard_at_home(void *arg)
{
    struct blk_call *call = arg;
    return co_blk_discard(call->dev, call->offset, call->bytes);
}

int co_blk_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct blk_call call = {.dev = dev, .offset = offset, .bytes = bytes};
    if (!blk_at_home(dev))
        return co_on(dev->home, discard_at_home, &call);
    unsigned epoch = blk_enter(dev);
    int rc = !range_fits(offset, bytes, dev->size) ? -EINVAL : !dev->writable ? -EROFS : 0;
    if (rc == 0 && bytes)
        rc = co_blk_run(discard_by_driver, &call);
    blk_leave(dev, epoch);
    return rc;
}

/* --- flush ------------------------------------------------------------------------------------ */

static int flush_child(void *child)
{
    return co_blk_flush(child);
}

static int flush_by_driver(void *arg)
{
    struct blk_device *dev = ((struct blk_call *)arg)->dev;
    if (dev->driver->co_flush) {
        int rc = dev->driver->co_flush(dev);
        assert(rc <= 0);
        return rc;
    }
    if (dev->child_count == 1)
        return co_blk_flush(dev->children[0].dev);
    struct co_group group;
    co_group_init(&group, 0);
    for (size_t i = 0; i < dev->child_count; i++)
        co_group_start(&group, flush_child, dev->children[i].dev);
    return co_group_wait(&group);
}

int co_blk_inside_flush(struct blk_device *dev)
{
    struct blk_call call = {.dev = dev};
    return co_blk_run(flush_by_driver, &call);
}

static int flush_at_home(void *arg)
{
    return co_blk_flush(((struct blk_call *)arg)->dev);
}

int co_blk_flush(struct blk_device *dev)
{
    if (!blk_at_home(dev)) {
        struct blk_call call = {.dev = dev};
        return co_on(dev->home, flush_at_home, &call);
    }
    unsigned epoch = blk_enter(dev);
    /* Nothing can have been written to a read-only device, but for one that became so by damage. */
    int rc = dev->writable || dev->marked_corrupt ? co_blk_inside_flush(dev) : 0;
    blk_leave(dev, epoch);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* throttle.c - a layer that holds requests back: so many a second, so many bytes a second, with
 * bursts.
 *
 * Each limit is a leaky bucket on the host's clock. A request fills it by what it costs, and it
 * leaks at the limit's rate; a request waits while the bucket stands above its brim, so one that is
 * larger than the brim passes, and the next one waits longer. Options and their meaning are QEMU's:
 *
 *   no -max             the brim is a tenth of a second's worth
 *   -max                the brim is -max times -max-length: what may come at once
 *   -max-length > 1     a second bucket meanwhile keeps the burst itself at -max a second
 *   iops-size           a request larger than this counts as several
 *
 * Requests pass in the order in which they came, reads apart from writes. Zeroes and discards count
 * as writes of their length, flushes never wait. Nothing is resolved through this layer. */
#include "block/block.h"
#include "block/worker.h"

#define NS 1e9

enum direction { READS, WRITES };

static const struct limit {
    const char *name, *max, *length;
    bool bytes;        /* else requests */
    bool counts[2];    /* by direction */
    unsigned total_of; /* the limit for both directions that it excludes; itself: it is that one */
} limits[] = {
    {"iops-total", "iops-total-max", "iops-total-max-length", false, {true, true}, 0},
    {"iops-read", "iops-read-max", "iops-read-max-length", false, {true, false}, 0},
    {"iops-write", "iops-write-max", "iops-write-max-length", false, {false, true}, 0},
    {"bps-total", "bps-total-max", "bps-total-max-length", true, {true, true}, 3},
    {"bps-read", "bps-read-max", "bps-read-max-length", true, {true, false}, 3},
    {"bps-write", "bps-write-max", "bps-write-max-length", true, {false, true}, 3},
};

struct bucket {
    double rate, max;        /* a second; 0: no limit; no burst */
    double brim, burst_brim; /* burst_brim 0: the burst itself has no rate */
    double level, burst_level;
};

struct throttle {
    struct blk_device *child;
    struct bucket buckets[ARRAY_LEN(limits)];
    uint64_t iops_size; /* 0: every request is one */
    uint64_t leaked_at; /* ns */
    struct co_mutex turn[2];
};

/* --- the buckets ------------------------------------------------------------------------------ */

static void leak(struct throttle *t)
{
    uint64_t now = worker_now();
    double seconds = (double)(now - t->leaked_at) / NS;
    t->leaked_at = now;
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct bucket *b = &t->buckets[i];
        b->level = MAX(0.0, b->level - b->rate * seconds);
        b->burst_level = MAX(0.0, b->burst_level - b->max * seconds);
    }
}

/* Seconds until the bucket is down to its brim. */
static double wait_for(const struct bucket *b)
{
    if (b->rate == 0)
        return 0;
    if (b->level > b->brim)
        return (b->level - b->brim) / b->rate;
    if (b->burst_brim > 0 && b->burst_level > b->burst_brim)
        return (b->burst_level - b->burst_brim) / b->max;
    return 0;
}

static double longest_wait(const struct throttle *t, enum direction d)
{
    double longest = 0;
    for (size_t i = 0; i < ARRAY_LEN(limits); i++)
        if (limits[i].counts[d])
            longest = MAX(longest, wait_for(&t->buckets[i]));
    return longest;
}

static void fill(struct throttle *t, enum direction d, uint64_t bytes)
{
    double requests = 1;
    if (t->iops_size && bytes > t->iops_size)
        requests = (double)bytes / (double)t->iops_size;
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        struct bucket *b = &t->buckets[i];
        if (!limits[i].counts[d] || b->rate == 0)
            continue;
        double cost = limits[i].bytes ? (double)bytes : requests;
        b->level += cost;
        if (b->burst_brim > 0)
            b->burst_level += cost;
    }
}

static void co_pass(struct throttle *t, enum direction d, uint64_t bytes)
{
    double seconds;
    with_lock(&t->turn[d]);
    for (leak(t); (seconds = longest_wait(t, d)) > 0; leak(t)) /* the other direction may fill up */
        co_sleep((uint64_t)MIN(seconds * NS, 3600 * NS) + 1);
    fill(t, d, bytes);
}

/* --- requests --------------------------------------------------------------------------------- */

static int co_throttle_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct throttle *t = dev->state;
    co_pass(t, READS, to->bytes);
    return co_blk_read(t->child, offset, to);
}

static int co_throttle_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                             unsigned flags)
{
    struct throttle *t = dev->state;
    co_pass(t, WRITES, from->bytes);
    return co_blk_write(t->child, offset, from, flags);
}

static int co_throttle_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                                    unsigned flags)
{
    struct throttle *t = dev->state;
    co_pass(t, WRITES, bytes);
    return co_blk_write_zeroes(t->child, offset, bytes, flags);
}

static int co_throttle_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct throttle *t = dev->state;
    co_pass(t, WRITES, bytes);
    return co_blk_discard(t->child, offset, bytes);
}

static int co_throttle_flush(struct blk_device *dev)
{
    struct throttle *t = dev->state;
    return co_blk_flush(t->child);
}

static int co_throttle_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                           struct blk_extent *out)
{
    const struct throttle *t = dev->state;
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = bytes,
                               .child = t->child,
                               .child_offset = offset};
    return 0;
}

static int co_throttle_resize(struct blk_device *dev, uint64_t size, bool shrink,
                              struct blk_error *e)
{
    const struct throttle *t = dev->state;
    return co_blk_resize(t->child, size, shrink, e);
}

/* --- open ------------------------------------------------------------------------------------- */

#define MOST 1000000000000000ULL /* QEMU's bound */

#define LIMIT(word, kind, what)                                                                  \
    {.name = word, .type = kind, .preset = "0", .max = MOST, .help = what},                      \
        {.name = word "-max",                                                                    \
         .type = kind,                                                                           \
         .preset = "0",                                                                          \
         .max = MOST,                                                                            \
         .help = "the same in a burst"},                                                         \
    {                                                                                            \
        .name = word "-max-length", .type = OPT_INT, .preset = "1", .min = 1, .max = UINT32_MAX, \
        .help = "seconds that a burst may last"                                                  \
    }

static const struct opt_desc throttle_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the device below"},
    LIMIT("iops-total", OPT_INT, "requests a second"),
    LIMIT("iops-read", OPT_INT, "reads a second"),
    LIMIT("iops-write", OPT_INT, "writes a second"),
    LIMIT("bps-total", OPT_SIZE, "bytes a second"),
    LIMIT("bps-read", OPT_SIZE, "bytes read a second"),
    LIMIT("bps-write", OPT_SIZE, "bytes written a second"),
    {.name = "iops-size",
     .type = OPT_SIZE,
     .preset = "0",
     .max = MOST,
     .help = "a request of more bytes counts as several (0: as one)"},
    {0},
};

static int take_limit(const struct opts *opts, size_t i, struct bucket *b, struct blk_error *e)
{
    const struct limit *l = &limits[i];
    uint64_t rate = opts_number(opts, l->name), max = opts_number(opts, l->max);
    uint64_t length = opts_number(opts, l->length);
    if (max && !rate)
        return err_set(e, -EINVAL, "%s needs %s", l->max, l->name);
    if (max && max < rate)
        return err_set(e, -EINVAL, "%s is lower than %s", l->max, l->name);
    if (length > 1 && !max)
        return err_set(e, -EINVAL, "%s needs %s", l->length, l->max);
    if (max && length > MOST / max)
        return err_set(e, -EINVAL, "%s times %s is too much", l->max, l->length);
    const char *total = limits[l->total_of].name;
    if (rate && l->total_of != i && opts_number(opts, total))
        return err_set(e, -EINVAL, "%s and %s cannot be used together", l->name, total);
    b->rate = (double)rate;
    b->max = (double)max;
    b->brim = max ? (double)max * (double)length : (double)rate / 10;
    b->burst_brim = length > 1 ? (double)max / 10 : 0;
    return 0;
}

static int co_throttle_open(struct blk_device *dev, const struct opts *opts,
                            struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    if (!child)
        return err_set(e, -EINVAL, "the driver throttle needs a \"file\", the device below it");
    struct throttle *t = mem_zalloc(sizeof(*t));
    if (!t)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = 0;
    for (size_t i = 0; i < ARRAY_LEN(limits) && rc == 0; i++)
        rc = take_limit(opts, i, &t->buckets[i], e);
    if (rc < 0) {
        mem_free(t);
        return rc;
    }
    t->child = child;
    t->iops_size = opts_number(opts, "iops-size");
    t->leaked_at = worker_now();
    dev->state = t;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    dev->limits.growable = child->limits.growable;
    return 0;
}

static int co_throttle_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver throttle_driver = {
    .name = "throttle",
    .title = "holds requests and bytes a second to the device below under limits",
    .handles_fua = true,
    .open_options = throttle_options,
    .co_open = co_throttle_open,
    .co_close = co_throttle_close,
    .co_read = co_throttle_read,
    .co_write = co_throttle_write,
    .co_write_zeroes = co_throttle_write_zeroes,
    .co_discard = co_throttle_discard,
    .co_flush = co_throttle_flush,
    .co_map = co_throttle_map,
    .co_resize = co_throttle_resize,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* export.c - the list of exports, who holds them, and what a device looks like to an NBD client. */
#include "nbd/export.h"

#include "nbd/proto.h"
#include "nbd/source.h"

/* A minimal block size that does not divide the size would leave a tail nobody may touch. */
static uint32_t min_block_of(const struct blk_device *dev)
{
    uint32_t align = dev->limits.request_align;

    if (align <= 1 || align > 65536 || !is_pow2(align) || dev->size % align != 0)
        return 1;
    return align;
}

void nbd_facts_of(const struct blk_device *dev, struct nbd_facts *out)
{
    uint64_t best = dev->limits.optimal_transfer;

    *out = (struct nbd_facts){.size = dev->size, .max_block = NBD_MAX_REQUEST};
    out->min_block = min_block_of(dev);
    out->preferred_block = MAX(4096, out->min_block);
    if (is_pow2(best) && best >= out->preferred_block && best <= 2 * MiB)
        out->preferred_block = (uint32_t)best;
    /* One device stands behind all connections, so a flush on one covers the others. */
    out->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    if (dev->writable)
        out->flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    else
        out->flags |= NBD_FLAG_READ_ONLY;
}

void nbd_facts_publish(struct nbd_facts *to, const struct nbd_facts *from)
{
    __atomic_store_n(&to->size, from->size, __ATOMIC_RELAXED);
    __atomic_store_n(&to->flags, from->flags, __ATOMIC_RELAXED);
    __atomic_store_n(&to->min_block, from->min_block, __ATOMIC_RELAXED);
    __atomic_store_n(&to->preferred_block, from->preferred_block, __ATOMIC_RELAXED);
    __atomic_store_n(&to->max_block, from->max_block, __ATOMIC_RELAXED);
}

struct nbd_facts nbd_facts_now(const struct nbd_facts *from)
{
    return (struct nbd_facts){
        .size = __atomic_load_n(&from->size, __ATOMIC_RELAXED),
        .flags = __atomic_load_n(&from->flags, __ATOMIC_RELAXED),
        .min_block = __atomic_load_n(&from->min_block, __ATOMIC_RELAXED),
        .preferred_block = __atomic_load_n(&from->preferred_block, __ATOMIC_RELAXED),
        .max_block = __atomic_load_n(&from->max_block, __ATOMIC_RELAXED),
    };
}

static void facts_of(const struct nbd_export *x, struct nbd_facts *out)
{
    nbd_facts_of(x->dev, out);
    if (x->shown && x->shown->one_client)
        out->flags &= (uint16_t)~NBD_FLAG_CAN_MULTI_CONN;
}

static void publish_facts(struct nbd_export *x)
{
    struct nbd_facts now;

    facts_of(x, &now);
    nbd_facts_publish(&x->facts, &now);
}

static void on_event(struct blk_listener *l, struct blk_device *dev, enum blk_event ev)
{
    struct nbd_export *x = container_of(l, struct nbd_export, listener);

    atomic_fetch_add(&x->happened[ev], 1);
    atomic_fetch_add(&x->all->happened, 1);
    if (ev == BLK_EV_RESIZED || ev == BLK_EV_MARKED_CORRUPT)
        publish_facts(x);
}

int nbd_export_stats_of(struct nbd_export *x, unsigned lane, struct nbd_export_stats **out)
{
    assert(lane < NBD_MAX_LANES);
    if (!x->stats[lane])
        x->stats[lane] = mem_zalloc(sizeof(*x->stats[lane]));
    *out = x->stats[lane];
    return *out ? 0 : -ENOMEM;
}

struct adding {
    const struct nbd_export_stats *from;
    struct nbd_export_stats *to;
};

/* All of it is counts. */
static int add_counts(void *arg)
{
    struct adding *a = arg;
    const uint64_t *from = (const uint64_t *)(const void *)a->from;
    uint64_t *to = (uint64_t *)(void *)a->to;

    static_assert(sizeof(*a->from) % sizeof(*from) == 0, "nothing but uint64_t");
    for (size_t i = 0; i < sizeof(*a->from) / sizeof(*from); i++)
        to[i] += from[i];
    return 0;
}

void co_nbd_export_stats(const struct nbd_export *x, struct nbd_export_stats *out)
{
    struct runtime *rt = worker_self()->runtime;

    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < MIN(runtime_workers(rt), NBD_MAX_LANES); i++) {
        struct adding a = {x->stats[i], out};

        if (a.from)
            co_on(runtime_worker(rt, i), add_counts, &a);
    }
}

static void export_free(struct nbd_export *x)
{
    for (unsigned i = 0; i < NBD_MAX_LANES; i++)
        mem_free(x->stats[i]);
    assert(!x->writers);
    share_leave(x->share);
    mem_free(x->name);
    mem_free(x->description);
    nbd_zone_drop(&x->zone);
    mem_free(x);
}

static int export_new(struct blk_device *dev, const struct nbd_export_options *o,
                      struct nbd_export **out)
{
    struct nbd_export *x = mem_zalloc(sizeof(*x));

    if (!x)
        return -ENOMEM;
    x->dev = dev;
    x->max_writers = o->max_writers;
    x->preset = o->preset;
    x->name = mem_strdup(o->name);
    x->description = o->description ? mem_strdup(o->description) : NULL;
    if (!x->name || (o->description && !x->description) ||
        (o->zone && nbd_zone_copy(o->zone, &x->zone) < 0)) {
        export_free(x);
        return -ENOMEM;
    }
    x->shown = o->shown;
    facts_of(x, &x->facts);
    *out = x;
    return 0;
}

static int check_name(const struct nbd_exports *all, const struct nbd_export_options *o,
                      struct blk_error *e)
{
    if (strlen(o->name) > NBD_MAX_NAME || (o->description && strlen(o->description) > NBD_MAX_NAME))
        return err_set(e, -ENAMETOOLONG, "an export's name or description has at most %u bytes",
                       NBD_MAX_NAME);
    for (struct nbd_export *x = all->first; x; x = x->next)
        if (strcmp(x->name, o->name) == 0)
            return err_set(e, -EEXIST, "there are two exports named '%s'", o->name);
    return 0;
}

int co_nbd_export_add(struct nbd_exports *all, struct blk_device *dev,
                      const struct nbd_export_options *o, struct nbd_export **out,
                      struct blk_error *e)
{
    struct nbd_export *x = NULL;
    int rc = check_name(all, o, e);

    if (rc == 0 && (rc = export_new(dev, o, &x)) < 0)
        err_set(e, rc, "out of memory");
    if (rc < 0) {
        co_blk_close(dev, NULL);
        return rc;
    }
    x->all = all;
    x->listener.on_event = on_event;
    blk_listen(dev, &x->listener);
    if (all->last)
        all->last->next = x;
    else
        all->first = x;
    all->last = x;
    all->count++;
    if (out)
        *out = x;
    return 0;
}

static void unlink_export(struct nbd_export *x)
{
    struct nbd_exports *all = x->all;
    struct nbd_export **at = &all->first, *before = NULL;

    while (*at != x) {
        before = *at;
        at = &before->next;
    }
    *at = x->next;
    if (all->last == x)
        all->last = before;
    all->count--;
    x->gone = true;
}

int co_nbd_export_remove(struct nbd_export *x, struct blk_error *e)
{
    int rc;

    if (!x->gone)
        unlink_export(x);
    timer_cancel(&x->idle);
    while (x->holds)
        co_queue_wait(&x->unheld);
    blk_unlisten(x->dev, &x->listener);
    rc = co_blk_close(x->dev, e);
    if (x->source && x->source->ops->co_closed)
        x->source->ops->co_closed(x->source, x->source_state);
    export_free(x);
    return rc;
}

int co_nbd_exports_close(struct nbd_exports *all, struct blk_error *e)
{
    int rc = 0;

    while (all->first || all->busy.count || all->closers) {
        struct blk_error mine = {0};
        int closed;

        if (all->busy.count || all->closers) {
            co_queue_wait(&all->settled);
            continue;
        }
        assert(all->first->holds == 0);
        closed = co_nbd_export_remove(all->first, &mine);
        if (closed < 0 && rc == 0) {
            rc = closed;
            if (e)
                *e = mine;
        }
    }
    nbd_names_drop(&all->busy);
    co_nbd_sources_end(all);
    *all = (struct nbd_exports){0};
    return rc;
}

struct nbd_export *nbd_export_find(const struct nbd_exports *all, const void *name, size_t bytes,
                                   const struct nbd_peer *peer)
{
    struct nbd_export *preset = NULL;

    for (struct nbd_export *x = all->first; x; x = x->next) {
        if (strlen(x->name) == bytes && memcmp(x->name, name, bytes) == 0)
            return nbd_zone_admits(&x->zone, peer) ? x : NULL;
        if (!x->source && (!preset || (x->preset && !preset->preset)))
            preset = x;
    }
    return bytes == 0 && preset && nbd_zone_admits(&preset->zone, peer) ? preset : NULL;
}

/* --- holding --- */

void nbd_export_hold(struct nbd_export *x)
{
    x->holds++;
    timer_cancel(&x->idle);
}

void nbd_export_pin(struct nbd_export *x)
{
    x->holds++;
}

void nbd_export_release(struct nbd_export *x)
{
    assert(x->holds > 0);
    if (--x->holds)
        return;
    co_queue_wake_all(&x->unheld);
    if (x->source && !x->gone && !x->idle.seq)
        nbd_source_idle(x);
}

int nbd_export_enter(struct nbd_export *x, const char *host, struct nbd_writer **out)
{
    unsigned hosts = 0;
    struct nbd_writer *w;

    *out = NULL;
    if (!x->max_writers || nbd_facts_now(&x->facts).flags & NBD_FLAG_READ_ONLY)
        return 0;
    for (w = x->writers; w && strcmp(w->host, host) != 0; w = w->next)
        hosts++;
    if (!w && hosts >= x->max_writers)
        return -EBUSY;
    if (!w) {
        w = mem_zalloc(sizeof(*w) + strlen(host) + 1);
        if (!w)
            return -ENOMEM;
        strcpy(w->host, host);
        w->next = x->writers;
        x->writers = w;
    }
    w->clients++;
    *out = w;
    return 0;
}

void nbd_export_leave(struct nbd_export *x, struct nbd_writer *w)
{
    struct nbd_writer **at = &x->writers;

    if (!w || --w->clients)
        return;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    mem_free(w);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* source.c - exports that are opened when they are asked for, once, and closed when they have been
 * idle for long enough.
 *
 * A name is in all->busy while it is being opened or closed; nobody else touches it meanwhile. */
#include "nbd/source.h"

#include "block/worker.h"

#define RETRY_NS 1000000000ULL /* when there was no memory */

void nbd_source_add(struct nbd_exports *all, struct nbd_source *s)
{
    struct nbd_source **at = &all->sources;

    while (*at)
        at = &(*at)->next;
    s->next = NULL;
    *at = s;
}

static struct nbd_source *source_of(const struct nbd_exports *all, const char *name,
                                    const struct nbd_peer *peer)
{
    for (struct nbd_source *s = all->sources; s; s = s->next)
        if ((!peer || nbd_zone_admits(&s->zone, peer)) && s->ops->knows(s, name))
            return s;
    return NULL;
}

bool nbd_sources_know(const struct nbd_exports *all, const char *name, const struct nbd_peer *peer)
{
    return source_of(all, name, peer) != NULL;
}

bool nbd_source_doubts(const struct nbd_export *x)
{
    return x->source && x->source->ops->co_stale;
}

int co_nbd_sources_list(struct nbd_exports *all, const struct nbd_peer *peer, struct nbd_names *out)
{
    for (struct nbd_source *s = all->sources; s; s = s->next)
        if (nbd_zone_admits(&s->zone, peer))
            TRY(s->ops->co_list(s, out));
    return 0;
}

/* --- busy names --- */

static int co_begin_busy(struct nbd_exports *all, const char *name)
{
    while (nbd_names_have(&all->busy, name))
        co_queue_wait(&all->settled);
    return nbd_names_add(&all->busy, name, strlen(name));
}

static void end_busy(struct nbd_exports *all, const char *name)
{
    struct nbd_names *b = &all->busy;
    size_t i = 0;

    while (strcmp(b->at[i], name) != 0)
        i++;
    mem_free(b->at[i]);
    b->at[i] = b->at[--b->count];
    co_queue_wake_all(&all->settled);
}

/* --- opening --- */

static struct nbd_export *find_of_source(const struct nbd_exports *all, const struct nbd_source *s,
                                         const char *name)
{
    struct nbd_export *x = all->first;

    while (x && (x->source != s || strcmp(x->name, name) != 0))
        x = x->next;
    return x;
}

struct dressing {
    struct nbd_source *source;
    struct blk_device *dev;
    struct blk_error *e;
};

static int co_dress_at_home(void *arg)
{
    struct dressing *d = arg;

    return d->source->co_dress(d->dev, &d->dev, d->e);
}

static int co_open_dressed(struct nbd_source *s, const char *name, struct blk_device **dev,
                           void **state, struct blk_error *e)
{
    struct dressing d = {.source = s, .e = e};
    int rc = s->ops->co_open(s, name, dev, state, e);

    if (rc < 0 || !s->co_dress)
        return rc;
    d.dev = *dev;
    rc = co_on(d.dev->home, co_dress_at_home, &d);
    *dev = d.dev;
    if (rc < 0 && s->ops->co_closed)
        s->ops->co_closed(s, *state);
    return rc;
}

static int co_open_new(struct nbd_exports *all, struct nbd_source *s, const char *name,
                       struct nbd_export **out, struct blk_error *e)
{
    struct nbd_export_options o = {.name = name, .zone = &s->zone, .max_writers = s->max_writers};
    struct blk_device *dev = NULL;
    void *state = NULL;
    int rc = co_open_dressed(s, name, &dev, &state, e);

    if (rc < 0)
        return rc;
    rc = co_nbd_export_add(all, dev, &o, out, e);
    if (rc < 0) {
        if (s->ops->co_closed)
            s->ops->co_closed(s, state);
        return rc;
    }
    (*out)->source = s;
    (*out)->source_state = state;
    return 0;
}

/* --- closing --- */

static void co_close_export(struct nbd_export *x)
{
    struct nbd_exports *all = x->all;
    struct nbd_source *s = x->source;
    struct blk_error e = {0};

    all->closers++;
    if (co_nbd_export_remove(x, &e) < 0 && s->say)
        s->say(s, e.text);
    all->closers--;
    co_queue_wake_all(&all->settled);
}

/* What was at its name is not any more; the clients that are on it keep it. */
static void co_outdated(void *arg)
{
    co_close_export(arg);
}

static void on_idle(struct timer *t);

static void co_idle(void *arg)
{
    struct nbd_export *x = arg;
    struct nbd_exports *all = x->all;
    auto_free char *name = mem_strdup(x->name);

    if (nbd_names_have(&all->busy, x->name)) /* somebody is about to hold it */
        return;
    if (!name || nbd_names_add(&all->busy, name, strlen(name)) < 0) {
        timer_arm(&x->idle, worker_now() + RETRY_NS, on_idle);
        return;
    }
    co_close_export(x);
    end_busy(all, name);
}

static void on_idle(struct timer *t)
{
    struct nbd_export *x = container_of(t, struct nbd_export, idle);

    if (co_start(co_idle, x) < 0)
        timer_arm(&x->idle, worker_now() + RETRY_NS, on_idle);
}

void nbd_source_idle(struct nbd_export *x)
{
    timer_arm(&x->idle, worker_now() + x->source->idle_ns, on_idle);
}

void co_nbd_sources_end(struct nbd_exports *all)
{
    while (all->sources) {
        struct nbd_source *s = all->sources;

        all->sources = s->next;
        nbd_zone_drop(&s->zone);
        s->ops->co_end(s);
    }
}

/* --- asked for --- */

int co_nbd_sources_open(struct nbd_exports *all, const char *name, const struct nbd_peer *peer,
                        struct nbd_export **out, struct blk_error *e)
{
    struct nbd_source *s = source_of(all, name, peer);
    struct nbd_export *x;
    int rc;

    if (!s)
        return err_set(e, -ENOENT, "no export of that name");
    rc = co_begin_busy(all, name);
    if (rc < 0)
        return err_set(e, rc, "out of memory");
    x = find_of_source(all, s, name);
    if (x && s->ops->co_stale && s->ops->co_stale(s, x)) {
        rc = co_start(co_outdated, x);
        x = rc < 0 ? x : NULL;
    }
    if (!x)
        rc = co_open_new(all, s, name, &x, e);
    if (rc == 0) {
        nbd_export_hold(x);
        *out = x;
    } else if (rc != -ENOENT && s->say) {
        s->say(s, e->text);
    }
    end_busy(all, name);
    return rc;
}

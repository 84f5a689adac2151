/* SPDX-License-Identifier: BSD-3-Clause */
/* resolver_within.c - a device inside another: what is before // is opened, then asked for what is
 * behind it.
 *
 * What one run names more than once before // is opened once: members of a set may be partitions of
 * one disk, or two sets of one folder, and a file's lock lets nobody open it twice for writing. So
 * it is with runs that share (exports of one server). Each name behind // of such a container is
 * given out once, until it is closed, so no device has two writers. */
#include "block/option_text.h"
#include "block/resolver_private.h"
#include "block/worker.h"

struct within {
    struct within *next;
    json_t *of;      /* what is before // */
    char *file_name; /* of its first user, as are these */
    bool has_id;
    uint64_t device, inode;
    unsigned flags;
    struct blk_device *container;
    struct given *given; /* touched at the container's home */
};

/* A device inside that was given out. */
struct given {
    struct given *next;
    char *name;
    struct blk_listener listener; /* of it, once it is open */
    struct blk_device *dev;
    bool closed;
};

static void on_event(struct blk_listener *l, struct blk_device *dev, enum blk_event ev)
{
    if (ev == BLK_EV_CLOSED)
        container_of(l, struct given, listener)->closed = true;
}

/* @all: also those that are open. */
static void drop_given(struct within *w, bool all)
{
    for (struct given **at = &w->given, *g; (g = *at);) {
        if (!all && !g->closed) {
            at = &g->next;
            continue;
        }
        if (g->dev && !g->closed)
            blk_unlisten(g->dev, &g->listener);
        *at = g->next;
        mem_free(g->name);
        mem_free(g);
    }
}

static int co_drop_at_home(void *arg)
{
    struct within *w = arg;
    drop_given(w, true);
    co_blk_close(w->container, NULL);
    json_decref(w->of);
    mem_free(w->file_name);
    mem_free(w);
    return 0;
}

static void drop_list(struct within *w)
{
    for (struct within *next; w; w = next) {
        next = w->next;
        (void)co_on(w->container->home, co_drop_at_home, w);
    }
}

void within_drop(struct open_run *run)
{
    drop_list(take(run->within));
}

void co_resolver_shared_drop(struct resolver_shared *s)
{
    drop_list(take(s->open));
}

/* Gives 1 if nothing that was given out is open. */
static int is_unused_at_home(void *arg)
{
    struct within *w = arg;
    drop_given(w, false);
    return !w->given || !(w->flags & BLK_OPEN_WRITE);
}

void co_resolver_shared_prune(struct resolver_shared *s)
{
    for (struct within **at = &s->open, *w; (w = *at);) {
        if (!co_on(w->container->home, is_unused_at_home, w)) {
            at = &w->next;
            continue;
        }
        *at = take(w->next);
        drop_list(w);
        at = &s->open; /* what that stood on may be free now */
    }
}

void within_share(struct open_run *run)
{
    struct within **end = &run->within;
    if (!run->r->shared)
        return;
    while (*end)
        end = &(*end)->next;
    *end = run->r->shared->open;
    run->r->shared->open = take(run->within);
}

static struct within *find_in(struct within *w, const struct node *of)
{
    while (w && (w->flags != of->flags || !json_equal(w->of, of->tree)))
        w = w->next;
    return w;
}

/* *out NULL: it is not open. */
static int find_within(const struct open_run *run, const struct node *of, struct within **out,
                       struct blk_error *e)
{
    struct resolver_shared *shared = run->r->shared;
    *out = find_in(run->within, of);
    if (*out || !shared)
        return 0;
    *out = find_in(shared->open, of);
    if (!*out || (*out)->container->home == worker_self())
        return 0;
    shared->elsewhere = (*out)->container->home;
    return err_set(e, -EXDEV, "what it stands on is in use at two workers: serve with one");
}

/* @container stays open until the run ends. */
static int add_within(struct open_run *run, const struct node *of, struct blk_device *container,
                      struct within **out, struct blk_error *e)
{
    struct within *w = mem_zalloc(sizeof(*w));
    const char *file = of->link->file_name;
    char *file_name = file ? mem_strdup(file) : NULL;
    if (!w || (file && !file_name)) {
        mem_free(w);
        mem_free(file_name);
        return err_set(e, -ENOMEM, "no memory to open a device");
    }
    *w = (struct within){.next = run->within,
                         .of = json_incref((json_t *)of->tree),
                         .file_name = file_name,
                         .has_id = of->link->has_id,
                         .device = of->link->device,
                         .inode = of->link->inode,
                         .flags = of->flags,
                         .container = blk_ref(container)};
    run->within = w;
    *out = w;
    return 0;
}

/* Who uses it again stands on the same file. */
static int take_link(const struct within *w, struct link *l, struct blk_error *e)
{
    if (l->file_name || !w->file_name)
        return 0;
    l->file_name = mem_strdup(w->file_name);
    l->has_id = w->has_id;
    l->device = w->device;
    l->inode = w->inode;
    return l->file_name ? 0 : err_set(e, -ENOMEM, "no memory to open a device");
}

/* Readers may have it as often as they like. Gives *out, whose device is not open yet. */
static int give_name(struct within *w, const char *name, struct given **out, struct blk_error *e)
{
    for (const struct given *g = w->given; g; g = g->next)
        if (w->flags & BLK_OPEN_WRITE && !g->closed && strcmp(g->name, name) == 0)
            return err_set(e, -EBUSY, "\"%.200s\" is named twice", name);
    struct given *g = mem_zalloc(sizeof(*g));
    char *copy = mem_strdup(name);
    if (!g || !copy) {
        mem_free(g);
        mem_free(copy);
        return err_set(e, -ENOMEM, "no memory to open a device");
    }
    *g = (struct given){.next = w->given, .name = copy, .listener.on_event = on_event};
    w->given = *out = g;
    return 0;
}

/* @dev: what has been opened under the name; NULL: nothing. */
static void name_given(struct given *g, struct blk_device *dev)
{
    g->dev = dev;
    g->closed = !dev;
    if (dev)
        blk_listen(dev, &g->listener);
}

/* *dev becomes what sees a container in its contents. -ENOTSUP: nothing does, and it stays. */
static int co_as_container(struct open_run *run, const struct node *n, struct blk_device **dev,
                           struct blk_error *e)
{
    const struct blk_driver *d = co_find_container(run->r, *dev);
    if (!d)
        return err_set(
            e, -ENOTSUP,
            "it holds no partitions, volumes or snapshots that are known, which // could name");
    json_auto_t *tree = json_pack("{s:s, s:s, s:{}}", "driver", d->name, "x-lamina-name",
                                  tree_name(n->tree), "file");
    if (!tree)
        return err_set(e, -ENOMEM, "no memory to open a device");
    struct node over = *n;
    over.tree = tree;
    struct blk_device *below = *dev;
    *dev = NULL;
    return co_driver_open(run, &over, d, below, dev, e);
}

static int co_named(struct blk_device *container, const char *name, struct blk_device **out,
                    struct blk_error *e)
{
    int rc = co_blk_inner_container(container, name, out, e);
    return rc == -ENOENT ? co_blk_inner_open(container, name, out, e) : rc;
}

/* A device inside *container: its driver's (a snapshot always is), else what is found in its
 * contents, which *container becomes then. */
static int co_open_named(struct open_run *run, const struct node *n, const char *name,
                         struct blk_device **container, struct blk_device **out,
                         struct blk_error *e)
{
    const struct blk_driver *own = (*container)->driver;
    int rc = -ENOENT;
    if (own->co_inner_open)
        rc = co_named(*container, name, out, e);
    if (rc != -ENOENT || own->only_inner || (own->co_inner_open && *name == '@'))
        return rc;
    struct blk_error none;
    TRY(co_references_open(run, e)); /* its contents are read: what they stand on must be there */
    TRY(co_run_opened(run, e));
    rc = co_as_container(run, n, container, own->co_inner_open ? &none : e);
    if (rc == -ENOTSUP && *container)
        return own->co_inner_open ? -ENOENT : rc; /* in the driver's own words */
    if (rc < 0 && own->co_inner_open)
        *e = none;
    return rc < 0 ? rc : co_named(*container, name, out, e);
}

/* x//luks: a driver that is a layer, named behind //, with its options. NULL: it is none. */
static const struct blk_driver *find_layer(struct open_run *run, const char *name)
{
    size_t len = strcspn(name, ",");
    for (const struct blk_driver *const *d = run->r->drivers; *d; d++)
        if ((*d)->is_layer && strlen((*d)->name) == len && strncmp((*d)->name, name, len) == 0)
            return *d;
    return NULL;
}

/* What the layer @d stands on. Where a probe sees @d itself in a file, that is the layer that was
 * named, not one below it. */
static int co_layer_below(struct open_run *run, const struct node *of, const struct blk_driver *d,
                          struct blk_device **out, struct blk_error *e)
{
    struct node bottom = *of;
    const struct blk_driver *found = NULL;
    bottom.tree = json_object_get(of->tree, "file");
    bottom.bottom = true;
    if (!json_object_get(of->tree, "driver") && bottom.tree) {
        TRY(co_node_open(run, &bottom, out, e));
        int rc = co_resolver_probe(run->r, *out, &found, NULL, e);
        if (rc == 0 && found == d)
            return 0;
        co_blk_close(take(*out), NULL);
        TRY(rc);
    }
    return co_node_open(run, of, out, e);
}

static int co_layer_open(struct open_run *run, const struct node *n, const struct node *of,
                         const struct blk_driver *d, struct blk_device **out, struct blk_error *e)
{
    const char *options = strchr(json_string_value(json_object_get(n->tree, "name")), ',');
    json_auto_t *tree = json_pack("{s:s, s:{}}", "driver", d->name, "file");
    if (!tree)
        return err_set(e, -ENOMEM, "no memory to open a device");
    if (options)
        TRY(opts_text_to_tree(options + 1, NULL, tree, e));
    struct node over = *n;
    struct blk_device *below = NULL;
    over.tree = tree;
    TRY(co_layer_below(run, of, d, &below, e));
    int rc = co_driver_open(run, &over, d, below, out, e);
    if (rc < 0 && !run->rule->face)
        return run_name_error(run, tree_name(n->tree), rc, e);
    return rc;
}

/* *dev is a file inside a container of images: the format that is on it. */
static int co_image_inside(struct open_run *run, const struct node *n, struct blk_device **dev,
                           struct blk_error *e)
{
    const struct blk_driver *d = NULL;
    struct blk_device *file = take(*dev);
    int rc = co_resolver_probe(run->r, file, &d, NULL, e);
    if (rc == 0 && strcmp(d->name, "raw") == 0) {
        *dev = file;
        return 0;
    }
    json_auto_t *tree = rc == 0 ? json_pack("{s:s, s:{}}", "driver", d->name, "file") : NULL;
    if (!tree) {
        co_blk_close(file, NULL);
        return rc < 0 ? rc : err_set(e, -ENOMEM, "no memory to open a device");
    }
    struct node over = *n;
    over.tree = tree;
    return co_driver_open(run, &over, d, file, dev, e);
}

/* The container that @of is, opened or open; *out may become what is found in its contents. */
static int co_open_within(struct open_run *run, const struct node *n, const struct node *of,
                          const char *name, struct blk_device **container, struct blk_device **out,
                          struct blk_error *e)
{
    struct within *w;
    struct given *given;
    TRY(find_within(run, of, &w, e));
    if (w) {
        *container = blk_ref(w->container);
        TRY(take_link(w, of->link, e));
        TRY(give_name(w, name, &given, e));
        int rc = co_named(*container, name, out, e);
        name_given(given, rc < 0 ? NULL : *out);
        return rc;
    }
    TRY(co_node_open(run, of, container, e));
    TRY(co_open_named(run, n, name, container, out, e));
    int rc = add_within(run, of, *container, &w, e);
    if (rc == 0)
        rc = give_name(w, name, &given, e);
    if (rc < 0)
        co_blk_close(take(*out), NULL);
    else
        name_given(given, *out);
    return rc;
}

int co_inner_node_open(struct open_run *run, const struct node *n, struct blk_device **out,
                       struct blk_error *e)
{
    const char *name = json_string_value(json_object_get(n->tree, "name"));
    struct node of = *n;
    of.tree = json_object_get(n->tree, "of");
    of.flags &= ~(unsigned)BLK_OPEN_FACTS; /* it is to be read */
    of.bottom = false;
    of.create = 0;
    if (!name || !*name || !of.tree)
        return err_set(e, -EINVAL, "an inner device needs \"name\" and \"of\"");
    const struct blk_driver *layer = find_layer(run, name);
    if (layer)
        return co_layer_open(run, n, &of, layer, out, e);
    struct blk_device *container = NULL;
    int rc = co_open_within(run, n, &of, name, &container, out, e);
    if (rc == 0 && container->driver->inner_is_image && !n->bottom)
        rc = co_image_inside(run, n, out, e);
    co_blk_close(container, NULL);
    if (rc < 0 && !run->rule->face)
        return run_name_error(run, tree_name(n->tree), rc, e);
    return rc;
}

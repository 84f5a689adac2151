/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_open.c - exports, folders and clones of a plan are opened. Exports are dealt out to the
 * workers: each is served where its device lives. What several stand on (the disk of two
 * partitions, the set of two volumes) is opened once, and they are all served where that lives. */
#include "nbd/clones.h"
#include "nbd/folder.h"
#include "tools/image.h"
#include "tools/serve.h"

struct opening {
    struct serving *serving;
    const struct serve_offer *offer;
    struct resolver_shared *shared; /* by all exports of the plan */
    struct blk_device *dev;
    bool opened; /* the image */
    struct blk_error error;
};

/* The qemu-nbd face says it as qemu-nbd does: without the words that qemu-img begins with. */
static int open_failed(const struct opening *o)
{
    const struct tool *t = o->serving->plan->tool;
    const char *text = o->error.text, *spec = o->offer->what;
    char prefix[256];
    int n = snprintf(prefix, sizeof(prefix), "Could not open '%.200s': ", spec);

    if (t->face != FACE_NBD || o->opened) {
        (void)tool_failed(t, &o->error);
        return o->error.rc;
    }
    if (strncmp(text, prefix, (size_t)n) == 0)
        text += n;
    tool_error(t, "Failed to blk_new_open '%s': %s", spec, text);
    return o->error.rc;
}

static bool read_only(const struct serving *s, const struct serve_offer *o)
{
    return o->read_only || o->kind == SERVE_CLONES || s->plan->check_only;
}

static int co_open_at_home(void *arg)
{
    struct opening *o = arg;
    const struct serve_plan *p = o->serving->plan;
    bool reads = read_only(o->serving, o->offer);
    struct image i = {.text = o->offer->what,
                      .format = o->offer->format,
                      .cache = p->cache,
                      .image_opts = p->image_opts,
                      .flags = reads ? 0 : BLK_OPEN_WRITE,
                      .shared = o->shared,
                      .trust = reads ? TRUST_READ : TRUST_WRITE};

    struct blk_device *dev;

    if (p->check_only)
        i.flags |= BLK_OPEN_FORCE_SHARE;
    TRY(co_image_open(p->tool, &i, &dev, &o->error));
    o->opened = true;
    if (o->offer->co_over)
        TRY(o->offer->co_over(o->offer->over_arg, &dev, &o->error));
    if (p->control) /* else nobody could ask for work on it */
        return co_serve_seat(dev, &o->dev, &o->error);
    o->dev = dev;
    return 0;
}

static int co_add_export(struct serving *s, const struct serve_offer *o, struct opening *opened)
{
    const struct nbd_export_options x = {.name = o->name,
                                         .description = o->description,
                                         .zone = &o->zone,
                                         .max_writers = o->writers,
                                         .preset = o->preset,
                                         .shown = o->shown};

    return co_nbd_export_add(nbd_server_exports(s->server), opened->dev, &x, NULL, &opened->error);
}

static void say(struct nbd_source *source, const char *sentence)
{
    const struct serving *s = source->arg;

    tool_error(s->plan->tool, "%s", sentence);
}

/* A folder, or clones of the image that was opened. */
static int co_make_source(struct serving *s, const struct serve_offer *o, struct opening *opened,
                          struct nbd_source **out)
{
    const struct serve_plan *p = s->plan;

    if (o->kind == SERVE_FOLDER) {
        const struct nbd_folder_options f = {.host = p->tool->host,
                                             .resolver = &s->resolver[!o->read_only],
                                             .prefix = o->name,
                                             .folder = o->what,
                                             .format = o->format,
                                             .read_only = o->read_only};

        return co_nbd_folder_open(&f, out, &opened->error);
    }
    const struct nbd_clones_options c = {.host = p->tool->host,
                                         .resolver = &s->resolver[true],
                                         .prefix = o->name,
                                         .golden_name = o->what,
                                         .golden = opened->dev,
                                         .keep = o->keep,
                                         .scratch = p->scratch,
                                         .space = o->space};

    return co_nbd_clones_open(&c, out, &opened->error);
}

static int co_add_source(struct serving *s, const struct serve_offer *o, struct opening *opened)
{
    struct nbd_source *source = NULL;

    TRY(co_make_source(s, o, opened, &source));
    nbd_source_add(nbd_server_exports(s->server), source); /* from here on it is freed with it */
    source->max_writers = o->writers;
    source->idle_ns = o->idle_sec * 1000000000ULL;
    source->say = say;
    if (s->plan->control)
        source->co_dress = co_serve_seat;
    source->arg = s;
    return nbd_zone_copy(&o->zone, &source->zone) < 0
               ? err_set(&opened->error, -ENOMEM, "out of memory")
               : 0;
}

static int co_open_image(struct opening *o, struct worker *home)
{
    int rc = co_on(home, co_open_at_home, o);

    if (rc == -EXDEV && o->shared->elsewhere)
        rc = co_on(take(o->shared->elsewhere), co_open_at_home, o);
    return rc;
}

static int co_open_offer(struct serving *s, size_t i, struct resolver_shared *shared)
{
    struct runtime *rt = s->plan->tool->runtime;
    const struct serve_offer *o = &s->plan->offers[i];
    struct opening opening = {.serving = s, .offer = o, .shared = shared};
    struct worker *home = runtime_worker(rt, (unsigned)i % runtime_workers(rt));
    int rc = o->kind == SERVE_FOLDER ? 0 : co_open_image(&opening, home);

    if (rc == 0)
        rc =
            o->kind == SERVE_EXPORT ? co_add_export(s, o, &opening) : co_add_source(s, o, &opening);
    return rc < 0 ? open_failed(&opening) : 0;
}

int co_serve_open(struct serving *s)
{
    const struct serve_plan *p = s->plan;
    struct blk_error e = {0};

    for (int write = 0; write < 2; write++) {
        int rc = co_tool_resolver(p->tool, write ? TRUST_WRITE : TRUST_READ, p->cache,
                                  &s->resolver[write], &e);
        if (rc < 0) {
            (void)tool_failed(p->tool, &e);
            return rc;
        }
    }
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < p->count; i++)
        rc = co_open_offer(s, i, &s->ctl.shared);
    if (!p->control) /* none is to come; the exports keep what they stand on */
        co_resolver_shared_drop(&s->ctl.shared);
    return rc;
}

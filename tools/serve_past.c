/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_past.c - what a served device showed at one instant: copied into an image (backup), or
 * offered as a read-only export of its own (point export), kept in a scratch file.
 *
 * The scratch file loses its name as soon as it is open, so nothing stays of it, whatever happens.
 * Who works with a bitmap works alone: its image must stay the device until the end. */
#include "tools/serve_ctl.h"

#include <stdlib.h>

#define POINTS_MOST  64
#define SCRATCH_MOST (16 * GiB)

/* --- backup --- */

static int co_do_backup(struct serve_work *w, struct blk_error *e)
{
    struct blk_error ignored = {0};
    int rc = co_live_past_copy(w->past, &w->job, e);

    if (rc == 0)
        rc = co_serve_image_name(&w->image, e);
    int ended = co_live_past_end(take(w->past), rc < 0, rc < 0 ? &ignored : e);
    return rc < 0 ? rc : ended;
}

struct backup {
    const char *name, *bitmap;
    bool incremental;
    struct serve_image_wish wish;
};

static int read_backup(const json_t *request, struct backup *b, struct blk_error *e)
{
    static const char *const keys[] = {"name",        "target", "format",      "existing", "base",
                                       "base-format", "bitmap", "incremental", "speed",    NULL};
    struct serve_image_wish *w = &b->wish;

    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "name", true, &b->name, e));
    TRY(ask_text(request, "target", true, &w->file, e));
    TRY(ask_text(request, "format", false, &w->format, e));
    TRY(ask_bool(request, "existing", &w->existing, e));
    TRY(ask_text(request, "base", false, &w->backing, e));
    TRY(ask_text(request, "base-format", false, &w->backing_format, e));
    TRY(ask_text(request, "bitmap", false, &b->bitmap, e));
    TRY(ask_bool(request, "incremental", &b->incremental, e));
    if (b->incremental && !b->bitmap)
        return err_set(e, -EINVAL, "an incremental backup needs \"bitmap\"");
    if (b->incremental && !w->backing && !w->existing)
        return err_set(e, -EINVAL,
                       "an incremental backup needs \"base\", the backup before it, or one that is "
                       "\"existing\" to go into");
    if (w->backing && w->existing)
        return err_set(e, -EINVAL, "\"base\" is for a new image, not for an existing one");
    if (w->backing && !w->backing_format)
        w->backing_format = "qcow2";
    return 0;
}

static int co_prepare_backup(struct serve_work *w, const json_t *request, struct blk_error *e)
{
    struct backup b = {0};

    TRY(read_backup(request, &b, e));
    TRY(ask_size(request, "speed", &w->speed, e));
    TRY(co_serve_claim(w->s, b.name, "a backup", b.bitmap ? CLAIM_ALONE : 0, &w->claim, e));
    struct blk_device *seat = w->claim.export->dev;
    b.wish.size = seat->size;
    TRY(co_serve_image_open(w->s, seat->home, &b.wish, &w->image, e));
    const struct live_past_options o = {.seat = seat,
                                        .store = w->image.dev,
                                        .blank = w->image.blank,
                                        .bitmap = b.bitmap,
                                        .only_dirty = b.incremental};
    w->image.taken = true;
    return co_live_past_begin(&o, 1, &w->past, e);
}

int co_serve_backup(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_work *w;

    TRY(serve_work_new(ctl_arg(c), "backup", co_do_backup, &w, e));
    return co_serve_work_begin(w, co_prepare_backup(w, request, e), result, e);
}

/* --- point exports --- */

struct serve_point {
    struct serve_point *next;
    struct serve_claim claim;
    struct live_past *past;
    struct nbd_export *export; /* NULL: it is going */
    struct blk_device *store;  /* until a past takes it */
    const char *as;            /* while it begins */
};

struct pointing {
    struct serve_ctl *s;
    struct serve_point **points;
    size_t count;
    const char *bitmap, *scratch;
    uint64_t limit;
};

struct scratch {
    const struct pointing *g;
    struct blk_device *dev;
    uint64_t size;
    struct blk_error *e;
};

static char *scratch_name(const struct pointing *g)
{
    const char *tmp = getenv("TMPDIR");
    uint8_t random[6];

    host_random(g->s->tool->host, random, sizeof(random));
    return mem_printf("%s/lamina-point-%02x%02x%02x%02x%02x%02x",
                      g->scratch           ? g->scratch
                      : tmp && *tmp == '/' ? tmp
                                           : "/var/tmp",
                      random[0], random[1], random[2], random[3], random[4], random[5]);
}

static int co_open_scratch(void *arg)
{
    struct scratch *x = arg;
    struct tool *t = x->g->s->tool;
    struct resolver r;
    auto_free char *name = scratch_name(x->g);

    if (!name)
        return err_set(x->e, -ENOMEM, "out of memory");
    tool_resolver(t, TRUST_WRITE, &r);
    json_t *tree = json_pack("{s:s, s:s, s:I}", "driver", "file", "filename", name,
                             "x-lamina-create", (json_int_t)(HOST_CREATE | HOST_EXCLUSIVE));
    int rc = co_resolver_open_tree(&r, tree, BLK_OPEN_WRITE, &x->dev, x->e);
    json_decref(tree);
    if (rc < 0)
        return rc;
    (void)!co_host_unlink(t->host, name);
    rc = co_blk_resize(x->dev, x->size, false, x->e);
    if (rc < 0)
        co_blk_close(take(x->dev), NULL);
    return rc;
}

static int co_prepare_point(struct pointing *g, const json_t *one, struct serve_point **out,
                            struct blk_error *e)
{
    static const char *const keys[] = {"name", "as", NULL};
    struct serve_point *p = mem_zalloc(sizeof(*p));
    const char *name;

    *out = p;
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(ask_known(one, keys, e));
    TRY(ask_text(one, "name", true, &name, e));
    TRY(ask_text(one, "as", true, &p->as, e));
    TRY(co_serve_claim(g->s, name, "a point export", CLAIM_ALONE, &p->claim, e));
    struct scratch x = {.g = g, .size = p->claim.export->dev->size, .e = e};
    TRY(co_on(p->claim.export->dev->home, co_open_scratch, &x));
    p->store = x.dev;
    return 0;
}

/* The instant. */
static int co_begin_all(struct pointing *g, struct blk_error *e)
{
    struct live_past_options o[POINTS_MOST];
    struct live_past *pasts[POINTS_MOST];

    for (size_t i = 0; i < g->count; i++)
        o[i] = (struct live_past_options){.seat = g->points[i]->claim.export->dev,
                                          .store = take(g->points[i]->store),
                                          .blank = true,
                                          .store_bytes = g->limit,
                                          .bitmap = g->bitmap};
    TRY(co_live_past_begin(o, g->count, pasts, e));
    for (size_t i = 0; i < g->count; i++)
        g->points[i]->past = pasts[i];
    return 0;
}

/* Seen by those who see what it is a point of. */
static int co_offer(struct pointing *g, struct serve_point *p, struct blk_error *e)
{
    struct nbd_export_options o = {.name = p->as, .zone = &p->claim.export->zone};
    struct blk_device *dev;

    TRY(co_live_past_device(p->past, &dev, e));
    return co_nbd_export_add(nbd_server_exports(g->s->server), dev, &o, &p->export, e);
}

/* Everything of it ends but its place on the list. */
static int co_point_end(struct serve_ctl *s, struct serve_point *p, bool failed,
                        struct blk_error *e)
{
    struct nbd_export *x = take(p->export);
    int rc = 0;

    if (x)
        rc = co_nbd_server_remove(s->server, x, e);
    if (p->past) {
        struct blk_error ignored = {0};
        int ended = co_live_past_end(take(p->past), failed, rc < 0 ? &ignored : e);
        rc = rc < 0 ? rc : ended;
    }
    co_blk_close(p->store, NULL);
    serve_unclaim(&p->claim);
    mem_free(p);
    return rc;
}

static int co_all_points(struct pointing *g, const json_t *list, struct blk_error *e)
{
    for (size_t i = 0; i < g->count; i++)
        TRY(co_prepare_point(g, json_array_get(list, i), &g->points[i], e));
    TRY(co_begin_all(g, e));
    for (size_t i = 0; i < g->count; i++)
        TRY(co_offer(g, g->points[i], e));
    return 0;
}

static int read_pointing(const json_t *request, struct pointing *g, struct blk_error *e)
{
    static const char *const keys[] = {"exports", "bitmap", "scratch", "limit", NULL};

    g->limit = SCRATCH_MOST;
    TRY(ask_known(request, keys, e));
    TRY(ask_text(request, "bitmap", false, &g->bitmap, e));
    TRY(ask_text(request, "scratch", false, &g->scratch, e));
    return ask_size(request, "limit", &g->limit, e);
}

int co_serve_point(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_point *points[POINTS_MOST] = {NULL};
    struct pointing g = {.s = ctl_arg(c), .points = points};
    struct blk_error ignored = {0};
    const json_t *list;

    TRY(read_pointing(request, &g, e));
    TRY(ask_list(request, "exports", POINTS_MOST, &list, &g.count, e));
    int rc = co_all_points(&g, list, e);
    for (size_t i = 0; i < g.count && points[i]; i++) {
        if (rc < 0) {
            (void)!co_point_end(g.s, points[i], true, &ignored);
            continue;
        }
        points[i]->as = NULL;
        points[i]->next = g.s->points;
        g.s->points = points[i];
    }
    return rc;
}

bool co_serve_point_remove(struct serve_ctl *s, struct nbd_export *x, bool failed, int *rc,
                           struct blk_error *e)
{
    struct serve_point **at = &s->points, *p;

    while (*at && (*at)->export != x)
        at = &(*at)->next;
    p = *at;
    if (!p)
        return false;
    *at = p->next;
    *rc = co_point_end(s, p, failed, e);
    return true;
}

/* A backup that was being pulled is not whole: the bitmap is as it was. */
void co_serve_points_end(struct serve_ctl *s)
{
    struct blk_error ignored = {0};

    while (s->points) {
        struct serve_point *p = s->points;

        s->points = p->next;
        (void)!co_point_end(s, p, true, &ignored);
    }
}

struct look {
    const struct live_past *past;
    uint64_t copied;
};

static int look_at_home(void *arg)
{
    struct look *l = arg;

    return live_past_state(l->past, &l->copied);
}

json_t *co_serve_point_to_json(const struct serve_ctl *s, const struct nbd_export *x)
{
    const struct serve_point *p = s->points;

    while (p && p->export != x)
        p = p->next;
    if (!p)
        return NULL;
    struct look l = {.past = p->past};
    int rc = co_on(x->dev->home, look_at_home, &l);
    return json_pack("{s:s, s:I, s:b}", "of", p->claim.export->name, "scratch-bytes",
                     (json_int_t)l.copied, "lost", rc < 0);
}

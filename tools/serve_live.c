/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_live.c - what exchanges the device below an export: snapshots, mirror, commit, stream. */
#include "tools/serve_ctl.h"

#define SNAPSHOTS_MOST 64

/* --- snapshots --- */

struct shot {
    struct serve_claim claim;
    struct serve_image image;
    bool named;
};
struct shooting {
    struct serve_ctl *s;
    struct shot *shots;
    size_t count;
    const char *format;
};

/* The image below has to stay what it is, so it must be found again by its name. */
static int co_new_top(struct shooting *g, struct shot *shot, const char *file, struct blk_error *e)
{
    struct blk_device *seat = shot->claim.export->dev;
    struct serve_image_wish wish = {
        .file = file, .format = g->format, .size = seat->size, .bare = true};
    char *backing = NULL;
    int rc =
        co_serve_image_reference(g->s, seat_device(seat), file, &backing, &wish.backing_format, e);

    wish.backing = backing;
    if (rc == 0)
        rc = co_serve_image_open(g->s, seat->home, &wish, &shot->image, e);
    mem_free(backing);
    return rc;
}

static int co_prepare(struct shooting *g, const json_t *list, struct blk_error *e)
{
    static const char *const keys[] = {"name", "file", NULL};

    for (size_t i = 0; i < g->count; i++) {
        const json_t *one = json_array_get(list, i);
        const char *name, *file;

        TRY(ask_known(one, keys, e));
        TRY(ask_text(one, "name", true, &name, e));
        TRY(ask_text(one, "file", true, &file, e));
        TRY(co_serve_claim(g->s, name, "a snapshot", CLAIM_ALONE | CLAIM_MOVES, &g->shots[i].claim,
                           e));
        TRY(co_new_top(g, &g->shots[i], file, e));
    }
    return 0;
}

static int co_flush_image(void *arg)
{
    return co_blk_flush(arg);
}

/* Each is durable before it has its name, and has that before it is the device. */
static int co_name_all(struct shooting *g, struct blk_error *e)
{
    for (size_t i = 0; i < g->count; i++) {
        struct serve_image *image = &g->shots[i].image;
        int rc = co_on(image->home, co_flush_image, image->dev);

        if (rc < 0)
            return err_errno(e, rc, "%s cannot be made durable", image->file);
        g->shots[i].named = true;
        TRY(co_serve_image_name(image, e));
    }
    return 0;
}

static int co_switch(struct shooting *g, struct blk_error *e)
{
    struct live_overlay *list = mem_array(g->count, sizeof(*list));

    if (!list)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < g->count; i++) {
        list[i] = (struct live_overlay){.seat = g->shots[i].claim.export->dev,
                                        .image = g->shots[i].image.dev};
        g->shots[i].image.taken = true;
    }
    int rc = co_live_overlay(list, g->count, e);
    mem_free(list);
    return rc;
}

static void co_end_shots(struct shooting *g, bool failed)
{
    for (size_t i = 0; i < g->count; i++) {
        struct shot *shot = &g->shots[i];

        if (failed && shot->named && shot->image.make.path)
            (void)!co_host_unlink(g->s->tool->host, shot->image.make.path);
        co_serve_image_drop(&shot->image);
        serve_unclaim(&shot->claim);
    }
    mem_free(g->shots);
}

int co_serve_snapshot(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct shooting g = {.s = ctl_arg(c)};
    const json_t *list;

    TRY(ask_known(request, (const char *const[]){"exports", "format", NULL}, e));
    TRY(ask_text(request, "format", false, &g.format, e));
    TRY(ask_list(request, "exports", SNAPSHOTS_MOST, &list, &g.count, e));
    g.shots = mem_array(g.count, sizeof(*g.shots));
    if (!g.shots)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_prepare(&g, list, e);
    if (rc == 0)
        rc = co_name_all(&g, e);
    if (rc == 0)
        rc = co_switch(&g, e);
    co_end_shots(&g, rc < 0);
    return rc;
}

int co_serve_snapshot_inside(struct ctl *c, const json_t *request, json_t **result,
                             struct blk_error *e)
{
    struct serve_ctl *s = ctl_arg(c);
    struct serve_claim claim;
    const char *name, *snapshot;
    uint64_t now = host_wall_clock(s->tool->host);
    struct blk_snapshot wanted = {.date_sec = now / 1000000000,
                                  .date_nsec = (uint32_t)(now % 1000000000)};

    TRY(ask_known(request, (const char *const[]){"name", "snapshot", NULL}, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_text(request, "snapshot", true, &snapshot, e));
    TRY(co_serve_claim(s, name, "a snapshot", CLAIM_ALONE, &claim, e));
    wanted.name = (char *)snapshot;
    int rc = co_blk_snapshot_create(claim.export->dev, &wanted, e);
    serve_unclaim(&claim);
    return rc;
}

/* --- mirror --- */

static int co_mirror_ready(void *arg, struct blk_error *e)
{
    struct serve_work *w = arg;

    return co_serve_image_name(&w->image, e);
}

static int co_do_mirror(struct serve_work *w, struct blk_error *e)
{
    struct live_mirror m = {.seat = w->claim.export->dev,
                            .target = w->image.dev,
                            .blank = w->image.blank,
                            .by_hand = w->by_hand,
                            .job = &w->job,
                            .co_ready = co_mirror_ready,
                            .arg = w};

    w->image.taken = true;
    int rc = co_live_mirror(&m, e);
    /* It was ready, and has missed something since: nobody shall take it for the disk. */
    if (rc < 0 && rc != -ECANCELED && !w->image.anew && w->image.make.path)
        (void)!co_host_unlink(w->s->tool->host, w->image.make.path);
    return rc;
}

static int co_prepare_mirror(struct serve_work *w, const json_t *request, struct blk_error *e)
{
    struct serve_image_wish wish = {0};
    const char *name;

    TRY(ask_known(
        request,
        (const char *const[]){"name", "target", "format", "existing", "by-hand", "speed", NULL},
        e));
    TRY(ask_size(request, "speed", &w->speed, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_text(request, "target", true, &wish.file, e));
    TRY(ask_text(request, "format", false, &wish.format, e));
    TRY(ask_bool(request, "existing", &wish.existing, e));
    TRY(ask_bool(request, "by-hand", &w->by_hand, e));
    TRY(co_serve_claim(w->s, name, "a mirror", CLAIM_ALONE | CLAIM_MOVES, &w->claim, e));
    wish.size = w->claim.export->dev->size;
    return co_serve_image_open(w->s, w->claim.export->dev->home, &wish, &w->image, e);
}

int co_serve_mirror(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_work *w;

    TRY(serve_work_new(ctl_arg(c), "mirror", co_do_mirror, &w, e));
    return co_serve_work_begin(w, co_prepare_mirror(w, request, e), result, e);
}

/* --- commit --- */

static int co_do_commit(struct serve_work *w, struct blk_error *e)
{
    return co_live_commit(w->claim.export->dev, w->by_hand, &w->job, e);
}

static int co_prepare_commit(struct serve_work *w, const json_t *request, struct blk_error *e)
{
    const char *name;

    TRY(ask_known(request, (const char *const[]){"name", "by-hand", "speed", NULL}, e));
    TRY(ask_size(request, "speed", &w->speed, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_bool(request, "by-hand", &w->by_hand, e));
    TRY(co_serve_claim(w->s, name, "a commit", CLAIM_ALONE | CLAIM_STANDS, &w->claim, e));
    const struct blk_device *top = seat_device(w->claim.export->dev);
    return blk_child(top, "backing")
               ? 0
               : err_set(e, -EINVAL, "%s does not stand on another image", top->name);
}

int co_serve_commit(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_work *w;

    TRY(serve_work_new(ctl_arg(c), "commit", co_do_commit, &w, e));
    return co_serve_work_begin(w, co_prepare_commit(w, request, e), result, e);
}

/* --- stream --- */

static int co_do_stream(struct serve_work *w, struct blk_error *e)
{
    struct live_stream stream = {.seat = w->claim.export->dev,
                                 .base = w->base,
                                 .name = w->name,
                                 .format = w->format,
                                 .job = &w->job};

    return co_live_stream(&stream, e);
}

static bool co_same_file(struct host *h, const char *a, const char *b)
{
    struct host_stat sa, sb;

    return a &&
           (strcmp(a, b) == 0 || (co_host_stat(h, a, &sa) == 0 && co_host_stat(h, b, &sb) == 0 &&
                                  sa.device == sb.device && sa.inode == sb.inode));
}

/* The image in @file below the device; what it is called there is kept as it will be written down.
 */
static int co_find_base(struct serve_work *w, const char *file, struct blk_error *e)
{
    struct blk_device *top = seat_device(w->claim.export->dev);
    struct blk_device *base = blk_child(top, "backing");
    const char *path = serve_image_path(top), *format;

    while (base && !co_same_file(w->s->tool->host, serve_image_path(base), file))
        base = blk_child(base, "backing");
    if (!base || !path)
        return err_set(e, -ENOENT, "%s does not stand on %s", top->name, file);
    TRY(co_serve_image_reference(w->s, base, path, &w->name, &format, e));
    w->format = mem_strdup(format);
    w->base = blk_ref(base);
    return w->format ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int co_prepare_stream(struct serve_work *w, const json_t *request, struct blk_error *e)
{
    const char *name, *base;

    TRY(ask_known(request, (const char *const[]){"name", "base", "speed", NULL}, e));
    TRY(ask_size(request, "speed", &w->speed, e));
    TRY(ask_text(request, "name", true, &name, e));
    TRY(ask_text(request, "base", false, &base, e));
    TRY(co_serve_claim(w->s, name, "a stream", CLAIM_ALONE | CLAIM_STANDS, &w->claim, e));
    return base ? co_find_base(w, base, e) : 0;
}

int co_serve_stream(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e)
{
    struct serve_work *w;

    TRY(serve_work_new(ctl_arg(c), "stream", co_do_stream, &w, e));
    return co_serve_work_begin(w, co_prepare_stream(w, request, e), result, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve_image.c - the images that work on a served device makes, or is given.
 *
 * A new one is written under a name of its own, and takes its name when it is whole (make.h), while
 * it is open and in use. Until then a failure, or the end of the server, takes it away. */
#include "tools/serve_ctl.h"

/* --- what a device lies in --- */

const char *serve_image_path(const struct blk_device *dev)
{
    const struct blk_device *file = dev;

    if (dev->driver->is_format)
        file = blk_child(dev, "file");
    return file && file->driver == &file_driver ? file->name : NULL;
}

/* Gives the folder of @path as it really is, with no slash at its end but for the root's. */
static int co_folder(struct host *h, const char *path, char **out)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = !slash          ? mem_strdup(".")
                             : slash == path ? mem_strdup("/")
                                             : mem_printf("%.*s", (int)(slash - path), path);

    return folder ? co_host_realpath(h, folder, out) : -ENOMEM;
}

/* A name alone where both lie in one folder, so that they can be moved together. */
static char *short_name(const char *path, const char *folder)
{
    const char *slash = strrchr(path, '/');
    size_t n = (size_t)(slash - path);

    if (strlen(folder) == MAX(n, 1) && strncmp(path, folder, MAX(n, 1)) == 0 && !strchr(slash, ':'))
        return mem_strdup(slash + 1);
    return mem_strdup(path);
}

int co_serve_image_reference(struct serve_ctl *s, struct blk_device *dev, const char *file,
                             char **out, const char **format, struct blk_error *e)
{
    struct host *h = s->tool->host;
    const char *path = serve_image_path(dev);
    auto_free char *real = NULL, *folder = NULL;
    int rc;

    if (!path)
        return err_set(e, -EINVAL, "%s is no image in a file: nothing can stand on it", dev->name);
    rc = co_host_realpath(h, path, &real);
    if (rc < 0) {
        real = NULL;
        return err_errno(e, rc, "%s", path);
    }
    rc = co_folder(h, file, &folder);
    if (rc < 0) {
        folder = NULL;
        return err_errno(e, rc, "%s", file);
    }
    *format = dev->driver->is_format ? dev->driver->name : "raw";
    *out = short_name(real, folder);
    return *out ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- opening and making --- */

struct opening {
    struct serve_ctl *s;
    const struct serve_image_wish *wish;
    struct serve_image *image;
    struct blk_error *e;
};

static int find_format(const struct serve_image_wish *w, const struct blk_driver **out,
                       struct blk_error *e)
{
    const struct blk_driver *d =
        w->format ? blk_find_driver(blk_drivers, w->format) : format_by_ending(w->file);

    if (!d && !w->format)
        d = blk_find_driver(blk_drivers, "qcow2");
    if (!d || !d->is_format)
        return err_set(e, -EINVAL, "there is no format '%.60s'", w->format);
    if (!d->co_create)
        return err_set(e, -ENOTSUP, "images of the format %s cannot be made", d->name);
    *out = d;
    return 0;
}

/* The words of a new image. */
static int describe(const struct serve_image_wish *w, struct make *m, struct blk_error *e)
{
    m->options = json_object();
    m->size = w->size;
    TRY(find_format(w, &m->driver, e));
    if (w->backing &&
        (json_object_set_new(m->options, "backing_file", json_string(w->backing)) < 0 ||
         json_object_set_new(m->options, "backing_fmt", json_string(w->backing_format)) < 0))
        return err_set(e, -EINVAL, "the name %s is not UTF-8", w->backing);
    return make_check_options(m, e);
}

static int co_make_new(const struct opening *o)
{
    struct serve_image *i = o->image;
    int rc = describe(o->wish, &i->make, o->e);

    if (rc == 0)
        rc = co_make(&i->make, o->e);
    if (rc == 0)
        rc = co_make_open(&i->make, o->wish->bare ? BLK_OPEN_NO_BACKING : 0, &i->dev, o->e);
    i->anew = true;
    if (rc == 0)
        i->blank = !o->wish->backing && i->dev->limits.fresh_reads_zero;
    return rc;
}

static int co_open_there(const struct opening *o)
{
    const struct image i = {.text = o->wish->file,
                            .format = o->wish->format,
                            .cache = o->s->cache,
                            .flags = BLK_OPEN_WRITE,
                            .trust = TRUST_WRITE};

    return co_image_open(o->s->tool, &i, &o->image->dev, o->e);
}

static int co_open_at_home(void *arg)
{
    const struct opening *o = arg;

    o->image->make.tool = o->s->tool;
    o->image->make.cache = o->s->cache;
    o->image->make.name = o->image->file;
    TRY(o->wish->existing ? co_open_there(o) : co_make_new(o));
    if (o->image->dev->size == o->wish->size)
        return 0;
    return err_set(o->e, -EINVAL, "%s has %" PRIu64 " bytes instead of %" PRIu64, o->wish->file,
                   o->image->dev->size, o->wish->size);
}

int co_serve_image_open(struct serve_ctl *s, struct worker *home,
                        const struct serve_image_wish *wish, struct serve_image *out,
                        struct blk_error *e)
{
    struct opening o = {.s = s, .wish = wish, .image = out, .e = e};
    int rc;

    *out = (struct serve_image){.home = home, .file = mem_strdup(wish->file)};
    rc = out->file ? co_on(home, co_open_at_home, &o) : err_set(e, -ENOMEM, "out of memory");
    if (rc < 0)
        co_serve_image_drop(out);
    return rc;
}

/* --- its end --- */

static int co_name_at_home(void *arg)
{
    const struct opening *o = arg;
    struct serve_image *i = o->image;
    struct host *h = i->make.tool->host;
    auto_free char *folder = NULL;

    i->anew = false; /* co_make_end() takes it away if it cannot be named */
    TRY(co_make_end(&i->make, 0, o->e));
    if (!i->make.path)
        return 0;
    int rc = co_folder(h, i->make.path, &folder);
    if (rc < 0)
        folder = NULL;
    else
        rc = co_host_sync_dir(h, folder);
    if (rc == 0)
        rc = blk_file_renamed(i->dev, i->make.path);
    return rc < 0 ? err_errno(o->e, rc, "cannot make the name of %s durable", i->make.path) : 0;
}

int co_serve_image_name(struct serve_image *i, struct blk_error *e)
{
    struct opening o = {.image = i, .e = e};

    return i->anew ? co_on(i->home, co_name_at_home, &o) : 0;
}

static int co_drop_at_home(void *arg)
{
    struct serve_image *i = arg;
    struct blk_error ignored = {0};

    if (!i->taken)
        co_blk_close(i->dev, NULL);
    if (i->anew)
        (void)!co_make_end(&i->make, -ECANCELED, &ignored);
    make_drop(&i->make);
    mem_free(i->file);
    return 0;
}

void co_serve_image_drop(struct serve_image *i)
{
    if (i->home)
        co_on(i->home, co_drop_at_home, i);
    *i = (struct serve_image){0};
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* clones.c - PREFIX/NAME is a copy-on-write clone of a golden image, a qcow2 image of its own over
 * the one open golden device, that all who ask for NAME share.
 *
 * A clone that is not kept lies in a file that has no name any more, so whatever ends the server
 * ends it too. One that is kept is KEEP/NAME.qcow2, made so:
 *
 *   1 the image is written under a temporary name beside it, durable, naming the golden image
 *   2 it gets its name
 *   3 the folder is made durable
 *
 * A crash before 2 leaves a file .NAME.lamina-..., which nobody reads. An image that is there is
 * opened only if it names this golden image. */
#include <stdio.h>

#include "nbd/clones.h"

#define NAME_BYTES   200u
#define CLUSTER_SIZE "64K"

struct clones {
    struct nbd_source pub;
    struct host *host;
    struct resolver resolver;
    const struct blk_driver *format;
    char *prefix, *golden_name, *keep, *scratch;
    struct blk_device *golden;
    struct nbd_budget budget; /* golden's home's */
    struct nbd_names open;
};

static struct clones *clones_of(const struct nbd_source *s)
{
    return container_of(s, struct clones, pub);
}

/* --- names --- */

/* NAME, or NULL. It becomes a file's name. */
static const char *clone_name(const struct clones *c, const char *export)
{
    size_t n = strlen(c->prefix);
    const char *name = export + n + 1;

    if (strncmp(export, c->prefix, n) != 0 || export[n] != '/' || !*name || *name == '.' ||
        strlen(name) > NAME_BYTES)
        return NULL;
    for (const char *p = name; *p; p++)
        if (*p == '/' || (unsigned char)*p < ' ' || *p == 127)
            return NULL;
    return name;
}

static bool knows(const struct nbd_source *s, const char *name)
{
    return clone_name(clones_of(s), name) != NULL;
}

static int add_name(struct clones *c, const char *name, size_t bytes, struct nbd_names *out)
{
    auto_free char *full = mem_printf("%s/%.*s", c->prefix, (int)bytes, name);

    if (!full)
        return -ENOMEM;
    return nbd_names_have(out, full) ? 0 : nbd_names_add(out, full, strlen(full));
}

static const char ending[] = ".qcow2";

/* The bytes of NAME in KEEP's file NAME.qcow2; 0: it is no clone. */
static size_t kept_name(const char *file)
{
    size_t n = strlen(file), less = sizeof(ending) - 1;

    return *file != '.' && n > less && strcmp(file + n - less, ending) == 0 ? n - less : 0;
}

/* Calls @fn for each file in KEEP that is a clone. */
static int co_each_kept(struct clones *c,
                        int (*co_fn)(struct clones *c, const char *file, void *arg), void *arg)
{
    char **names;
    size_t count;
    int rc;

    if (!c->keep)
        return 0;
    rc = co_host_list(c->host, c->keep, &names, &count);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++) {
        if (rc == 0 && kept_name(names[i]))
            rc = co_fn(c, names[i], arg);
        mem_free(names[i]);
    }
    mem_free(names);
    return rc;
}

static int add_kept(struct clones *c, const char *file, void *arg)
{
    return add_name(c, file, kept_name(file), arg);
}

static int co_list(struct nbd_source *s, struct nbd_names *out)
{
    struct clones *c = clones_of(s);

    for (size_t i = 0; i < c->open.count; i++)
        TRY(add_name(c, c->open.at[i], strlen(c->open.at[i]), out));
    return co_each_kept(c, add_kept, out);
}

/* --- space --- */

static int co_count(struct clones *c, const char *file, void *arg)
{
    auto_free char *path = mem_printf("%s/%s", c->keep, file);
    uint64_t *sum = arg;
    struct host_stat st;

    if (!path)
        return -ENOMEM;
    if (co_host_stat(c->host, path, &st) == 0)
        *sum += st.size;
    return 0;
}

/* Kept clones that somebody removed give their space back. */
static int co_count_kept(struct clones *c)
{
    uint64_t sum = 0;

    if (!c->keep)
        return 0;
    TRY(co_each_kept(c, co_count, &sum));
    c->budget.used = sum;
    return 0;
}

/* --- making --- */

static int co_new_file(struct clones *c, const char *path, struct blk_device **out,
                       struct blk_error *e)
{
    struct resolver r = c->resolver;

    if (!c->keep)
        r.cache = "unsafe"; /* nothing of it outlives us */
    return co_resolver_open_file(&r, path, BLK_OPEN_WRITE, HOST_CREATE | HOST_EXCLUSIVE, out, e);
}

static int co_write_image(struct clones *c, struct blk_device *file, struct blk_error *e)
{
    json_t *tree = json_pack("{s:s}", "cluster_size", CLUSTER_SIZE);
    struct blk_create create = {.file = file, .size = c->golden->size};
    struct opts *opts = mem_zalloc(sizeof(*opts)); /* too big for a coroutine's stack */
    int rc = tree && opts ? 0 : err_set(e, -ENOMEM, "out of memory");

    if (rc == 0 && c->keep &&
        (json_object_set_new(tree, "backing_file", json_string_nocheck(c->golden_name)) < 0 ||
         json_object_set_new(tree, "backing_fmt", json_string(c->golden->driver->name)) < 0))
        rc = err_set(e, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = opts_parse(c->format->create_options, tree, opts, e);
    if (rc == 0) {
        create.opts = opts;
        rc = c->format->co_create(&create, e);
        opts_drop(opts);
    }
    mem_free(opts);
    json_decref(tree);
    return rc;
}

/* The image over the golden device; takes @file, also on failure. */
static int co_stack(struct clones *c, struct blk_device *file, struct blk_device **out,
                    struct blk_error *e)
{
    const struct blk_child children[] = {{"file", file}, {"backing", blk_ref(c->golden)}};
    int rc = co_blk_open(c->format, file->name, NULL, BLK_OPEN_WRITE, NULL, children,
                         ARRAY_LEN(children), out, e);

    if (rc == 0)
        rc = c->format->co_opened(*out, e);
    else
        return rc;
    if (rc < 0)
        co_blk_close(*out, NULL);
    return rc;
}

static char *temporary(struct clones *c, const char *folder, const char *name)
{
    uint8_t r[6];

    host_random(c->host, r, sizeof(r));
    return mem_printf("%s/.%s.lamina-%02x%02x%02x%02x%02x%02x", folder, name, r[0], r[1], r[2],
                      r[3], r[4], r[5]);
}

/* A file that goes with its last descriptor. */
static int co_open_fleeting(struct clones *c, struct blk_device **out, struct blk_error *e)
{
    auto_free char *path = temporary(c, c->scratch, "clone");
    struct blk_device *file;
    int rc;

    if (!path)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_new_file(c, path, &file, e));
    rc = co_host_unlink(c->host, path);
    if (rc < 0) {
        co_blk_close(file, NULL);
        return err_errno(e, rc, "%s cannot be removed", path);
    }
    if (c->budget.limit != NBD_NO_BUDGET)
        TRY(co_nbd_budget_put(file, &c->budget, !c->keep, &file, e));
    rc = co_write_image(c, file, e);
    if (rc < 0) {
        co_blk_close(file, NULL);
        return rc;
    }
    return co_stack(c, file, out, e);
}

/* 1 of the order above. */
static int co_write_kept(struct clones *c, const char *path, struct blk_error *e)
{
    struct blk_device *file;
    int rc, closed;

    TRY(co_new_file(c, path, &file, e));
    TRY(co_nbd_budget_put(file, &c->budget, !c->keep, &file, e));
    rc = co_write_image(c, file, e);
    closed = co_blk_close(file, rc < 0 ? NULL : e);
    return rc ? rc : closed;
}

static int co_make_kept(struct clones *c, const char *name, const char *path, struct blk_error *e)
{
    auto_free char *beside = temporary(c, c->keep, name);
    int rc;

    if (!beside)
        return err_set(e, -ENOMEM, "out of memory");
    rc = co_count_kept(c);
    if (rc < 0)
        return err_errno(e, rc, "%s", c->keep);
    rc = co_write_kept(c, beside, e);                                   /* 1 */
    if (rc == 0 && ((rc = co_host_rename(c->host, beside, path)) < 0 || /* 2 */
                    (rc = co_host_sync_dir(c->host, c->keep)) < 0))     /* 3 */
        err_errno(e, rc, "%s", path);
    if (rc < 0)
        (void)!co_host_unlink(c->host, beside);
    return rc;
}

/* --- opening --- */

/* An image that stands on something else would show nonsense. */
static int co_check_kept(struct clones *c, struct blk_device *dev, struct blk_error *e)
{
    struct blk_info info = {0};
    int rc = co_blk_info(dev, &info, e);

    if (rc == 0 && (!info.backing_name || strcmp(info.backing_name, c->golden_name) != 0))
        rc = err_set(e, -EINVAL, "%s stands on %s, not on %s", dev->name,
                     info.backing_name ? info.backing_name : "nothing", c->golden_name);
    blk_info_drop(&info);
    return rc;
}

static int co_open_kept(struct clones *c, const char *name, struct blk_device **out,
                        struct blk_error *e)
{
    auto_free char *path = mem_printf("%s/%s%s", c->keep, name, ending);
    struct resolver r = c->resolver;
    struct blk_device *file;
    struct host_stat st;
    int rc;

    if (!path)
        return err_set(e, -ENOMEM, "out of memory");
    if (co_host_stat(c->host, path, &st) < 0)
        TRY(co_make_kept(c, name, path, e));
    TRY(co_resolver_open_file(&r, path, BLK_OPEN_WRITE, 0, &file, e));
    TRY(co_nbd_budget_put(file, &c->budget, !c->keep, &file, e));
    TRY(co_stack(c, file, out, e));
    rc = co_check_kept(c, *out, e);
    if (rc < 0)
        co_blk_close(*out, NULL);
    return rc;
}

struct opening {
    struct clones *clones;
    const char *name;
    struct blk_device **out;
    struct blk_error *e;
};

static int co_open_at_home(void *arg)
{
    const struct opening *o = arg;

    return o->clones->keep ? co_open_kept(o->clones, o->name, o->out, o->e)
                           : co_open_fleeting(o->clones, o->out, o->e);
}

static void forget(struct clones *c, const char *name)
{
    size_t i = 0;

    while (i < c->open.count && strcmp(c->open.at[i], name) != 0)
        i++;
    if (i == c->open.count)
        return;
    mem_free(c->open.at[i]);
    c->open.at[i] = c->open.at[--c->open.count];
}

/* The state of an open clone is its name. */
static int co_open(struct nbd_source *s, const char *name, struct blk_device **dev, void **state,
                   struct blk_error *e)
{
    struct clones *c = clones_of(s);
    struct opening o = {.clones = c, .name = clone_name(c, name), .out = dev, .e = e};
    auto_free char *copy = mem_strdup(o.name);
    int rc = copy ? nbd_names_add(&c->open, copy, strlen(copy)) : -ENOMEM;

    if (rc < 0)
        return err_set(e, rc, "out of memory");
    rc = co_on(c->golden->home, co_open_at_home, &o);
    if (rc < 0) {
        forget(c, copy);
        return err_prefix(e, "%s", name);
    }
    *state = take(copy);
    return 0;
}

static void co_closed(struct nbd_source *s, void *state)
{
    forget(clones_of(s), state);
    mem_free(state);
}

static void clones_free(struct clones *c)
{
    mem_free(c->prefix);
    mem_free(c->golden_name);
    mem_free(c->keep);
    mem_free(c->scratch);
    nbd_names_drop(&c->open);
    mem_free(c);
}

static void co_end(struct nbd_source *s)
{
    struct clones *c = clones_of(s);

    co_blk_close(c->golden, NULL);
    clones_free(c);
}

static const struct nbd_source_ops clones_ops = {
    .knows = knows,
    .co_list = co_list,
    .co_open = co_open,
    .co_closed = co_closed,
    .co_end = co_end,
    .on_golden = true,
};

/* --- the source --- */

static int co_folder(struct clones *c, const char *told, char **out, struct blk_error *e)
{
    struct host_stat st;
    int rc = co_host_realpath(c->host, told, out);

    if (rc == 0)
        rc = co_host_stat(c->host, *out, &st);
    if (rc == 0 && st.type != HOST_FILE_DIRECTORY)
        rc = -ENOTDIR;
    return rc < 0 ? err_errno(e, rc, "%s", told) : 0;
}

/* What kept clones write down as what they stand on. */
static int co_name_golden(struct clones *c, const char *told, struct blk_error *e)
{
    int rc = co_host_realpath(c->host, told, &c->golden_name);

    if (rc < 0 || !c->golden->driver->is_format)
        return err_set(e, -EINVAL,
                       "clones that are kept name what they stand on, and %s is no image file",
                       told);
    return 0;
}

static int co_set_up(struct clones *c, const struct nbd_clones_options *o, struct blk_error *e)
{
    int rc;

    c->pub.ops = &clones_ops;
    c->host = o->host;
    c->resolver = *o->resolver;
    c->budget.limit = o->space;
    c->format = blk_find_driver(c->resolver.drivers, "qcow2");
    c->prefix = mem_strdup(o->prefix);
    if (!c->prefix || !c->format)
        return err_set(e, -ENOMEM, "out of memory");
    if (!o->keep)
        return co_folder(c, o->scratch, &c->scratch, e);
    TRY(co_folder(c, o->keep, &c->keep, e));
    TRY(co_name_golden(c, o->golden_name, e));
    rc = co_count_kept(c);
    return rc < 0 ? err_errno(e, rc, "%s", o->keep) : 0;
}

int co_nbd_clones_open(const struct nbd_clones_options *o, struct nbd_source **out,
                       struct blk_error *e)
{
    struct clones *c = mem_zalloc(sizeof(*c));
    int rc;

    if (!c) {
        co_blk_close(o->golden, NULL);
        return err_set(e, -ENOMEM, "out of memory");
    }
    c->golden = o->golden;
    rc = co_set_up(c, o, e);
    if (rc < 0) {
        co_end(&c->pub);
        return rc;
    }
    *out = &c->pub;
    return 0;
}

int co_nbd_clone_alone(const struct nbd_clones_options *o, struct blk_device **out,
                       struct blk_error *e)
{
    struct nbd_clones_options alone = *o;
    struct clones *c = mem_zalloc(sizeof(*c));
    int rc;

    alone.keep = NULL;
    alone.space = NBD_NO_BUDGET;
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    c->golden = o->golden;
    rc = co_set_up(c, &alone, e);
    if (rc == 0)
        rc = co_open_fleeting(c, out, e);
    clones_free(c);
    return rc;
}

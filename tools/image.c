/* SPDX-License-Identifier: BSD-3-Clause */
/* image.c - opening what the command line names. All names go through the resolver, which knows who
 * may open what; this file only fills it in from the options. */
#include <ctype.h>

#include "tools/image.h"
#include "tools/pipe.h"

int co_tool_resolver(struct tool *t, enum trust trust, const char *cache, struct resolver *r,
                     struct blk_error *e)
{
    tool_resolver(t, trust, r);
    if (cache)
        r->cache = cache;
    for (unsigned i = 0; i < t->object_count; i++) {
        int rc = co_resolver_add_object(r, t->objects[i], e);
        if (rc < 0) {
            resolver_drop(r);
            return rc;
        }
    }
    return 0;
}

/* QEMU's sentence where the caller told a format and the file has another one. */
static void face_words(const struct tool *t, const struct image *i, struct blk_error *e)
{
    char prefix[320], wrong[64];
    if (t->face == FACE_LAMINA || !e)
        return;
    snprintf(prefix, sizeof(prefix), "Could not open '%.200s': ", i->text);
    snprintf(wrong, sizeof(wrong), "not a %.40s image", i->format ? i->format : "-");
    size_t n = strlen(prefix);
    if (i->format && strstr(e->text, wrong))
        err_set(e, e->rc, "%sImage is not in %s format", i->bare ? "" : prefix, i->format);
    else if (i->bare && strncmp(e->text, prefix, n) == 0)
        memmove(e->text, e->text + n, strlen(e->text + n) + 1);
}

/* What comes through standard input. */
static int co_open_pipe(struct tool *t, const struct image *i, struct resolver *r,
                        struct blk_device **out, struct blk_error *e)
{
    struct host_file *keep;
    char *path;
    if (i->flags & BLK_OPEN_WRITE)
        return err_set(e, -EROFS, "standard input cannot be written to");
    TRY(co_pipe_in(t, &keep, &path, e));
    json_auto_t *tree = json_pack("{s:s*, s:{s:s, s:s, s:s}}", "driver", i->format, "file",
                                  "driver", "file", "filename", path, "x-lamina-name", "-");
    int rc = tree ? co_resolver_open_tree(r, tree, i->flags, out, e)
                  : err_set(e, -ENOMEM, "out of memory");
    mem_free(path);
    if (keep)
        co_host_close(keep); /* the device has opened it for itself */
    return rc;
}

static int co_open(struct tool *t, const struct image *i, struct resolver *r,
                   struct blk_device **out, struct blk_error *e)
{
    unsigned flags = i->flags;
    if (t->force_share && !(flags & BLK_OPEN_WRITE))
        flags |= BLK_OPEN_FORCE_SHARE;
    if (is_pipe(i->text) && t->face == FACE_LAMINA && !i->image_opts)
        return co_open_pipe(t, i, r, out, e);
    if (!i->image_opts)
        return co_resolver_open(r, i->text, i->format, flags, out, e);
    return co_resolver_open_opts(r, i->text, flags, out, e);
}

/* In the face a raw file that somebody writes is read all the same, as by QEMU 7.2, where only
 * convert denies writers. Of other formats the tables would change meanwhile. */
static int co_open_raw_in_use(struct tool *t, const struct image *i, struct resolver *r,
                              struct blk_device **out)
{
    struct image shared = *i;
    struct blk_error ignored = {0};

    if (t->face != FACE_IMG || i->deny_writers || i->flags & BLK_OPEN_WRITE)
        return -EAGAIN;
    shared.flags |= BLK_OPEN_FORCE_SHARE;
    TRY(co_open(t, &shared, r, out, &ignored));
    if ((*out)->driver->is_filter) /* it has no tables of its own */
        return 0;
    (void)!co_blk_close(*out, NULL);
    *out = NULL;
    return -EAGAIN;
}

int co_image_open(struct tool *t, const struct image *i, struct blk_device **out,
                  struct blk_error *e)
{
    struct resolver r;
    *out = NULL;
    TRY(co_tool_resolver(t, i->trust, i->cache, &r, e));
    r.key_secret = i->secret;
    r.shared = i->shared;
    int rc = co_open(t, i, &r, out, e);
    if (rc == -EAGAIN && co_open_raw_in_use(t, i, &r, out) == 0) {
        *e = (struct blk_error){0};
        rc = 0;
    }
    resolver_drop(&r);
    if (rc < 0)
        face_words(t, i, e);
    return rc;
}

int co_image_close(struct blk_device *dev, int rc, struct blk_error *e)
{
    struct blk_error closing = {0};
    if (!dev)
        return rc;
    int closed = co_blk_close(dev, &closing);
    if (rc < 0 || closed >= 0)
        return rc;
    if (e)
        *e = closing;
    return closed;
}

void image_failed(const struct tool *t, struct blk_device *dev, int rc, struct blk_error *e)
{
    if (rc >= 0 || t->face != FACE_LAMINA)
        return;
    if (e->rc == 0)
        err_errno(e, rc, "it cannot be read");
    if (dev->name && !strstr(e->text, dev->name))
        err_prefix(e, "%.200s", dev->name);
    blk_next_after_io(dev, e);
}

int co_image_end(const struct tool *t, struct blk_device *dev, int rc, struct blk_error *e)
{
    image_failed(t, dev, rc, e);
    return co_image_close(dev, rc, e);
}

/* The snapshot of @list that @told means; NULL: there is none. */
static const struct blk_snapshot *find_snapshot(const struct blk_snapshot *list, size_t count,
                                                const char *told)
{
    static const char id_key[] = "snapshot.id=", name_key[] = ",snapshot.name=";
    const char *id = NULL, *name = NULL;
    size_t id_bytes = 0;

    if (strncmp(told, id_key, strlen(id_key)) == 0) {
        id = told + strlen(id_key);
        name = strstr(id, name_key);
        id_bytes = name ? (size_t)(name - id) : strlen(id);
        name = name ? name + strlen(name_key) : NULL;
    } else if (strncmp(told, name_key + 1, strlen(name_key) - 1) == 0) {
        name = told + strlen(name_key) - 1;
    } else { /* either, an id before a name */
        const struct blk_snapshot *s = blk_snapshot_by_id(list, count, told);
        if (s)
            return s;
        name = told;
    }
    for (size_t i = 0; i < count; i++)
        if ((!id || (strlen(list[i].id) == id_bytes && memcmp(list[i].id, id, id_bytes) == 0)) &&
            (!name || strcmp(list[i].name, name) == 0))
            return &list[i];
    return NULL;
}

static int snapshot_failed(const struct tool *t, const struct blk_device *dev, int rc,
                           struct blk_error *e)
{
    if (t->face != FACE_LAMINA && rc == -ENOTSUP)
        return err_set(e, rc,
                       "Failed to load snapshot: Block format '%s' used by device '' does not "
                       "support temporarily loading internal snapshots",
                       dev->driver->name);
    if (t->face != FACE_LAMINA)
        return err_set(e, rc, "Failed to load snapshot: Can't find snapshot");
    return rc;
}

int co_image_snapshot(const struct tool *t, const char *told, struct blk_device **dev,
                      struct blk_error *e)
{
    struct blk_snapshot *list;
    struct blk_device *inner = NULL;
    size_t count;
    int rc = co_blk_snapshot_list(*dev, &list, &count, e);
    if (rc < 0)
        return snapshot_failed(t, *dev, rc, e);
    const struct blk_snapshot *s = find_snapshot(list, count, told);
    auto_free char *name = s ? mem_printf("@id=%s", s->id) : NULL;
    bool found = s != NULL;
    blk_snapshots_drop(list, count);
    if (!found)
        rc = err_set(e, -ENOENT, "%s holds no snapshot %s", (*dev)->name, told);
    else if (!name)
        rc = err_set(e, -ENOMEM, "out of memory");
    else
        rc = co_blk_inner_open(*dev, name, &inner, e);
    if (rc < 0)
        return snapshot_failed(t, *dev, rc, e);
    rc = co_blk_close(*dev, e); /* the snapshot keeps it open */
    *dev = inner;
    return rc;
}

char *image_beside(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    if (!slash || name[0] == '/' || strchr(name, ':'))
        return mem_strdup(name);
    return mem_printf("%.*s/%s", (int)(slash - image), image, name);
}

int image_read(struct tool *t, struct command_line *w, struct image *image)
{
    int id = args_read(t, w);
    if (id != ARGS_END)
        return id;
    if (w->argc != 1) {
        tool_misuse(t, "Expecting one image file name");
        return ARGS_BAD;
    }
    image->text = w->argv[0];
    return ARGS_END;
}

bool cache_is_known(const char *name)
{
    static const char *const names[] = {"writeback", "none",       "off",
                                        "unsafe",    "directsync", "writethrough"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!name || strcmp(name, names[i]) == 0)
            return true;
    return false;
}

bool cache_told(const struct tool *t, const char *what, const char *name)
{
    if (cache_is_known(name))
        return true;
    tool_error(t,
               tool_words(t,
                          "the %s is writeback, none, writethrough, directsync or unsafe, not '%s'",
                          "Invalid %s option: %s"),
               what, name);
    return false;
}

#define MAX_FORMATS 64

const struct blk_driver *format_find(const struct tool *t, const char *name, const char *what)
{
    const char *names[MAX_FORMATS];
    size_t count = 0;
    for (const struct blk_driver *const *d = blk_drivers; *d; d++) {
        if (!(*d)->is_format)
            continue;
        if (strcmp((*d)->name, name) == 0)
            return *d;
        if (count < MAX_FORMATS)
            names[count++] = (*d)->name;
    }
    const char *near = opts_nearest(name, names, count);
    if (t->face != FACE_LAMINA)
        tool_error(t, "%sUnknown file format '%s'", what, name);
    else if (near)
        tool_error(t, "%sthere is no format '%s'; did you mean '%s'?", what, name, near);
    else
        tool_error(t, "%sthere is no format '%s'; `%s help formats` lists them", what, name,
                   t->called);
    return NULL;
}

bool format_creates(const struct tool *t, const struct blk_driver *d, const char *what)
{
    if (d->co_create)
        return true;
    tool_error(t,
               tool_words(t,
                          "%s%s images are only read; `lamina help formats` tells what can be "
                          "created",
                          "%sFormat driver '%s' does not support image creation"),
               what, d->name);
    return false;
}

int format_no_compression(const struct tool *t, const struct blk_driver *d, struct blk_error *e)
{
    return err_set(e, -ENOTSUP,
                   tool_words(t,
                              "%s images hold no compressed data; `lamina help formats` tells "
                              "which do",
                              "Compression not supported for this file format%.0s"),
                   d->name);
}

int format_no_backing(const struct tool *t, const struct blk_driver *d, struct blk_error *e)
{
    return err_set(e, -EINVAL,
                   tool_words(t, "%s images stand on no other image; those of qcow2 can",
                              "Backing file not supported for file format '%s'"),
                   d->name);
}

/* True if @word (of @bytes) stands in the blank separated @list. */
static bool listed(const char *list, const char *word, size_t bytes)
{
    while (list && *list) {
        size_t n = strcspn(list, " ");
        if (n == bytes && strncasecmp(list, word, n) == 0)
            return true;
        list += n + strspn(list + n, " ");
    }
    return false;
}

const struct blk_driver *format_by_ending(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *dot = strrchr(slash ? slash : name, '.');
    if (!dot)
        return NULL;
    for (const struct blk_driver *const *d = blk_drivers; *d; d++)
        if ((*d)->is_format && listed((*d)->extensions, dot + 1, strlen(dot + 1)))
            return *d;
    return NULL;
}

bool size_told(const struct tool *t, const char *what, const char *text, uint64_t *bytes)
{
    struct blk_error e = {0};
    int rc = opts_parse_size(text, bytes, &e);
    if (rc == 0 && *bytes <= INT64_MAX)
        return true;
    if (t->face == FACE_LAMINA) {
        tool_error(t, "the %s is a number of bytes, or ends with k, M, G, T, P or E: not '%s'",
                   what, text);
    } else if (rc == -EINVAL) {
        tool_error(t, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        tool_error(t, "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    } else {
        tool_error(t, "Invalid %s specified. Must be between 0 and %" PRId64 ".", what, INT64_MAX);
    }
    return false;
}

int tool_failed(const struct tool *t, const struct blk_error *e)
{
    if (e->text[0])
        tool_error(t, "%s", e->text);
    else if (e->rc < 0) /* else it was told already */
        tool_error(t, "%s", strerror(-e->rc));
    tool_next(t, e->next);
    return 1;
}

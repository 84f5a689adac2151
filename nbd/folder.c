/* SPDX-License-Identifier: BSD-3-Clause */
/* folder.c - every image in a folder is an export, found as it comes and goes: the folder is read
 * when a client asks for the list, an image is opened when a client asks for it.
 *
 * An image is a regular file (or a link to one in the same folder) whose name ends as a format's
 * files do, or any file where the format was told; names that begin with a dot are nobody's affair.
 * A file that was replaced is opened anew for who comes then; who is on the old one keeps it. */
#include "nbd/folder.h"

#include "block/worker.h"

#define MAX_NAMES 10000u /* said in one list */

struct folder {
    struct nbd_source pub;
    struct host *host;
    struct resolver resolver;
    char *prefix, *dir, *format;
    bool read_only;
    unsigned next_home; /* worker of the next one */
};

/* Which file an open export is. */
struct opened {
    uint64_t device, inode;
};

static struct folder *folder_of(const struct nbd_source *s)
{
    return container_of(s, struct folder, pub);
}

/* --- names --- */

static bool ends_as(const char *name, const char *extensions)
{
    const char *dot = strrchr(name, '.');

    while (dot && dot[1] && extensions && *extensions) {
        size_t n = strcspn(extensions, " ");

        if (strlen(dot + 1) == n && strncasecmp(dot + 1, extensions, n) == 0)
            return true;
        extensions += n + (extensions[n] == ' ');
    }
    return false;
}

static bool is_image_name(const struct folder *f, const char *name)
{
    if (!*name || *name == '.' || strchr(name, '/') || strlen(name) > 255)
        return false;
    for (const struct blk_driver *const *d = f->resolver.drivers; *d; d++)
        if (f->format || ((*d)->is_format && ends_as(name, (*d)->extensions)))
            return true;
    return false;
}

/* The file's name in an export's, or NULL. */
static const char *file_of(const struct folder *f, const char *name)
{
    size_t n = strlen(f->prefix);

    if (n && (strncmp(name, f->prefix, n) != 0 || name[n] != '/'))
        return NULL;
    name += n ? n + 1 : 0;
    return is_image_name(f, name) ? name : NULL;
}

static bool knows(const struct nbd_source *s, const char *name)
{
    return file_of(folder_of(s), name) != NULL;
}

/* --- files --- */

/* *path (mem_free) is the file itself, in this very folder. -ENOENT: there is none. */
static int co_find(struct folder *f, const char *file, char **path, struct host_stat *st)
{
    auto_free char *here = mem_printf("%s/%s", f->dir, file);
    char *real;
    int rc;

    if (!here)
        return -ENOMEM;
    rc = co_host_realpath(f->host, here, &real);
    if (rc == 0)
        rc = co_host_stat(f->host, real, st);
    else
        return rc;
    if (rc == 0 &&
        (st->type != HOST_FILE_REGULAR || (size_t)(strrchr(real, '/') - real) != strlen(f->dir) ||
         strncmp(real, f->dir, strlen(f->dir)) != 0))
        rc = -ENOENT;
    if (rc < 0)
        mem_free(real);
    else
        *path = real;
    return rc;
}

static int add_names(struct folder *f, char **names, size_t count, struct nbd_names *out)
{
    for (size_t i = 0; i < count && out->count < MAX_NAMES; i++) {
        auto_free char *path = NULL, *name = NULL;
        struct host_stat st;

        if (!is_image_name(f, names[i]) || co_find(f, names[i], &path, &st) < 0)
            continue;
        name = mem_printf("%s%s%s", f->prefix, *f->prefix ? "/" : "", names[i]);
        if (!name)
            return -ENOMEM;
        TRY(nbd_names_add(out, name, strlen(name)));
    }
    return 0;
}

static int co_list(struct nbd_source *s, struct nbd_names *out)
{
    struct folder *f = folder_of(s);
    char **names;
    size_t count;
    int rc = co_host_list(f->host, f->dir, &names, &count);

    if (rc < 0)
        return rc;
    rc = add_names(f, names, count, out);
    for (size_t i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
    return rc;
}

/* --- opening --- */

struct opening {
    struct folder *folder;
    const char *path;
    struct blk_device **out;
    struct blk_error *e;
};

static int co_open_at_home(void *arg)
{
    const struct opening *o = arg;
    struct resolver r = o->folder->resolver;

    return co_resolver_open(&r, o->path, o->folder->format,
                            o->folder->read_only ? 0 : BLK_OPEN_WRITE, o->out, o->e);
}

static int co_open(struct nbd_source *s, const char *name, struct blk_device **dev, void **state,
                   struct blk_error *e)
{
    struct folder *f = folder_of(s);
    struct runtime *rt = worker_self()->runtime;
    auto_free char *path = NULL;
    auto_free struct opened *o = mem_zalloc(sizeof(*o));
    struct opening open = {.folder = f, .out = dev, .e = e};
    struct host_stat st;
    int rc = o ? co_find(f, file_of(f, name), &path, &st) : -ENOMEM;

    if (rc < 0)
        return err_errno(e, rc == -ENOTDIR ? -ENOENT : rc, "%s", name);
    *o = (struct opened){.device = st.device, .inode = st.inode};
    open.path = path;
    rc = co_on(runtime_worker(rt, f->next_home++ % runtime_workers(rt)), co_open_at_home, &open);
    if (rc == 0)
        *state = take(o);
    return rc;
}

static bool co_stale(struct nbd_source *s, const struct nbd_export *x)
{
    struct folder *f = folder_of(s);
    const struct opened *o = x->source_state;
    auto_free char *path = NULL;
    struct host_stat st;

    return co_find(f, file_of(f, x->name), &path, &st) < 0 || st.device != o->device ||
           st.inode != o->inode;
}

static void co_closed(struct nbd_source *s, void *state)
{
    mem_free(state);
}

static void co_end(struct nbd_source *s)
{
    struct folder *f = folder_of(s);

    mem_free(f->prefix);
    mem_free(f->dir);
    mem_free(f->format);
    mem_free(f);
}

static const struct nbd_source_ops folder_ops = {
    .knows = knows,
    .co_list = co_list,
    .co_open = co_open,
    .co_stale = co_stale,
    .co_closed = co_closed,
    .co_end = co_end,
};

int co_nbd_folder_open(const struct nbd_folder_options *o, struct nbd_source **out,
                       struct blk_error *e)
{
    struct folder *f = mem_zalloc(sizeof(*f));
    struct host_stat st;
    int rc;

    if (!f)
        return err_set(e, -ENOMEM, "out of memory");
    f->pub.ops = &folder_ops;
    f->host = o->host;
    f->resolver = *o->resolver;
    f->read_only = o->read_only;
    f->prefix = mem_strdup(o->prefix);
    f->format = o->format ? mem_strdup(o->format) : NULL;
    rc = f->prefix && (f->format || !o->format) ? co_host_realpath(o->host, o->folder, &f->dir)
                                                : -ENOMEM;
    if (rc == 0)
        rc = co_host_stat(o->host, f->dir, &st);
    if (rc == 0 && st.type != HOST_FILE_DIRECTORY)
        rc = -ENOTDIR;
    if (rc < 0) {
        co_end(&f->pub);
        return err_errno(e, rc, "%s", o->folder);
    }
    *out = &f->pub;
    return 0;
}

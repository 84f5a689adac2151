/* SPDX-License-Identifier: BSD-3-Clause */
/* make.c - a new image: file, format, name. make_options.c has what is told with -o. */
#include <libgen.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/make.h"
#include "tools/pipe.h"

/* --- where it lies -----------------------------------------------------------------------------
 */

/* A name that no rule of the specs can take for something else. */
static char *plain(const char *path)
{
    bool special = strpbrk(path, ":=,{") || strstr(path, "//");
    return path[0] == '/' || !special ? mem_strdup(path) : mem_printf("./%s", path);
}

/* Of a format whose images are folders: the target is one, made if need be, and what is written
 * first is the file in it that says what the rest is. Who names that file means it. */
static int take_bundle(struct make *m, struct blk_error *e)
{
    const char *slash = strrchr(m->path, '/');
    if (strcmp(slash ? slash + 1 : m->path, m->driver->bundle_file) == 0)
        return 0;
    m->bundle_made = mkdir(m->path, 0777) == 0;
    int rc = -errno;
    m->bundle = m->path;
    m->path = mem_printf("%s/%s", m->bundle, m->driver->bundle_file);
    if (!m->path)
        return err_set(e, -ENOMEM, "out of memory");
    struct stat st;
    if (m->bundle_made || (stat(m->bundle, &st) == 0 && S_ISDIR(st.st_mode)))
        return 0;
    if (rc == -EEXIST)
        return err_set(e, rc, "%s exists already and is no folder, as a %s image is", m->bundle,
                       m->driver->name);
    return err_errno(e, rc, "the folder %s cannot be made", m->bundle);
}

/* The path that the target's text means, NULL if it is no plain file (a URL, a set). */
static int co_find_path(struct make *m, struct resolver *r, struct blk_error *e)
{
    json_t *tree = NULL;
    TRY(co_resolver_parse(r, m->name, "raw", false, &tree, e));
    const json_t *file = json_object_get(tree, "file");
    const char *driver = json_string_value(json_object_get(file, "driver"));
    const char *path = json_string_value(json_object_get(file, "filename"));
    int rc = 0;
    if (path && (!driver || strcmp(driver, "file") == 0)) {
        m->path = mem_strdup(path);
        rc = m->path ? 0 : err_set(e, -ENOMEM, "out of memory");
    }
    json_decref(tree);
    /* Without a driver only the place is asked for. */
    bool bundle = m->path && m->driver && m->driver->bundle_file;
    return rc == 0 && bundle ? take_bundle(m, e) : rc;
}

/* The file behind a symlink is replaced, not the link. */
static int co_follow(struct make *m)
{
    char *real;
    if (co_host_realpath(m->tool->host, m->path, &real) < 0)
        return 0; /* not there yet */
    mem_free(m->path);
    m->path = real;
    return 0;
}

#define NAME_BYTES 200 /* of the target that a temporary name keeps */

static char *temporary_name(const struct make *m)
{
    uint8_t random[6];
    const char *slash = strrchr(m->path, '/');
    const char *base = slash ? slash + 1 : m->path;
    host_random(m->tool->host, random, sizeof(random));
    return mem_printf("%.*s.%.*s.lamina-%02x%02x%02x%02x%02x%02x", (int)(base - m->path), m->path,
                      NAME_BYTES, base, random[0], random[1], random[2], random[3], random[4],
                      random[5]);
}

/* --- the file ------------------------------------------------------------------------------------
 */

int co_make_file(struct make *m, struct resolver *r, const char *path, unsigned create,
                 struct blk_device **out, struct blk_error *e)
{
    char *text = plain(path);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_resolver_open_file(r, text, BLK_OPEN_WRITE, create, out, e);
    mem_free(text);
    return rc;
}

/* The words for a file that cannot be made. */
static int create_error(const struct make *m, int rc, struct blk_error *e)
{
    bool ours = m->tool->face == FACE_LAMINA;
    if (!e || rc == -EAGAIN || rc == -EBUSY || (ours && rc != -ENOENT))
        return rc;
    if (ours) /* not the temporary name, which says nothing to anybody */
        return err_set(e, rc, "%s: the folder for it does not exist", m->name);
    return err_errno(e, rc, "Could not create '%s'", m->name);
}

/* A new file, under a name of its own if the directory lets us. */
static int co_new_file(struct make *m, struct resolver *r, struct blk_device **out,
                       struct blk_error *e)
{
    int rc = -EACCES;
    if (m->steady) { /* what is there is a rest of ours that no journal speaks of */
        rc = co_make_file(m, r, m->written, HOST_CREATE | HOST_TRUNCATE, out, e);
    } else if (!m->direct) {
        m->written = temporary_name(m);
        if (!m->written)
            return err_set(e, -ENOMEM, "out of memory");
        rc = co_make_file(m, r, m->written, HOST_CREATE | HOST_EXCLUSIVE, out, e);
    }
    bool named = !m->steady && (rc == -EACCES || rc == -EPERM || rc == -ENAMETOOLONG);
    if (named) { /* only the name itself is ours */
        mem_free(m->written);
        m->written = mem_strdup(m->path);
        if (!m->written)
            return err_set(e, -ENOMEM, "out of memory");
        rc = co_make_file(m, r, m->written, HOST_CREATE | HOST_EXCLUSIVE, out, e);
    }
    m->created = rc == 0;
    return rc < 0 ? create_error(m, rc, e) : 0;
}

/* Over a file that is there, in place. */
static int co_reuse_file(struct make *m, struct resolver *r, struct blk_device **out,
                         struct blk_error *e)
{
    m->written = mem_strdup(m->path);
    if (!m->written)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_make_file(m, r, m->path, HOST_TRUNCATE, out, e);
    return rc < 0 ? create_error(m, rc, e) : 0;
}

static int co_file(struct make *m, struct resolver *r, struct blk_device **out, struct blk_error *e)
{
    struct host_stat st;
    if (!m->pipe && !m->path)
        TRY(co_find_path(m, r, e));
    if (m->pipe) {
        TRY(co_pipe_spool(m->tool, &m->spool, e));
        *out = blk_ref(m->spool);
        return 0;
    }
    if (!m->path) { /* whoever is behind that name makes it */
        m->direct = true;
        return co_resolver_open_file(r, m->name, BLK_OPEN_WRITE, HOST_CREATE, out, e);
    }
    if (co_host_stat(m->tool->host, m->path, &st) < 0)
        return co_new_file(m, r, out, e);
    bool face = m->tool->face != FACE_LAMINA;
    if (!face && !m->force && st.type == HOST_FILE_BLOCK)
        return err_set(e, -EEXIST, "%s is a block device; --force lets go of what is on it%s",
                       m->name, m->direct ? "" : ", -n writes into what is there");
    if (!face && !m->force)
        return err_set(e, -EEXIST, "%s exists already; --force replaces it%s", m->name,
                       m->direct ? "" : ", -n writes into it");
    if (face || m->direct || st.type != HOST_FILE_REGULAR)
        return co_reuse_file(m, r, out, e);
    TRY(co_follow(m));
    /* Nobody else may be using it; and nobody shall begin to, until the new one has its name. */
    TRY(co_make_file(m, r, m->path, 0, &m->held, e));
    return co_new_file(m, r, out, e);
}

/* --- the format ---------------------------------------------------------------------------------
 */

/* The backing image, where the format wants to know it; *out NULL: none. */
static int co_look_behind(struct make *m, struct blk_device **out, struct blk_error *e)
{
    const char *name = json_string_value(json_object_get(m->options, "backing_file"));
    *out = NULL;
    if (!m->driver->knows_backing || !name || !*name)
        return 0;
    auto_free char *path = image_beside(m->name, name);
    if (!path)
        return err_set(e, -ENOMEM, "out of memory");
    struct image i = {
        .text = path,
        .format = json_string_value(json_object_get(m->options, "backing_fmt")),
        .flags = BLK_OPEN_NO_BACKING | BLK_OPEN_NO_DATA,
        .trust = TRUST_READ,
        .bare = true,
    };
    return co_image_open(m->tool, &i, out, e);
}

static int co_make_format(struct make *m, const struct resolver *r, struct blk_device *file,
                          struct blk_error *e)
{
    struct blk_create c = {.file = file,
                           .size = m->size,
                           .fresh = m->fresh,
                           .co_make_file = co_make_part,
                           .arg = m,
                           .name = m->bundle ? m->path : m->name};
    struct opts opts = {0};
    json_decref(m->parts);
    m->parts = json_array();
    TRY(opts_parse(m->driver->create_options, m->options, &opts, e));
    opts.secrets = r;
    c.opts = &opts;
    int rc = co_look_behind(m, &c.backing, e);
    if (rc == 0)
        rc = m->driver->co_create(&c, e);
    opts_drop(&opts);
    return co_image_close(c.backing, rc, e);
}

int co_make_place(struct make *m, struct blk_error *e)
{
    struct resolver r;
    TRY(co_tool_resolver(m->tool, TRUST_WRITE, m->cache, &r, e));
    int rc = co_find_path(m, &r, e);
    resolver_drop(&r);
    if (rc == 0 && !m->path)
        rc = err_set(e, -ENOTSUP, "%s is no plain file", m->name);
    if (rc < 0)
        return rc;
    const char *slash = strrchr(m->path, '/');
    m->folder = slash ? mem_printf("%.*s", (int)MAX(slash - m->path, 1), m->path) : mem_strdup(".");
    m->written = mem_printf("%s/.%s.lamina-resume", m->folder, slash ? slash + 1 : m->path);
    m->parts_note = mem_printf("%s/.%s.lamina-parts", m->folder, slash ? slash + 1 : m->path);
    bool known = m->folder && m->written && m->parts_note;
    return known ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int co_make(struct make *m, struct blk_error *e)
{
    struct resolver r;
    struct blk_device *file = NULL;
    if (m->parts_note)
        TRY(co_make_clear_parts(m, e));
    TRY(co_tool_resolver(m->tool, TRUST_WRITE, m->cache, &r, e));
    int rc = co_file(m, &r, &file, e);
    if (rc == 0)
        rc = co_make_format(m, &r, file, e);
    resolver_drop(&r);
    return co_image_close(file, rc, e);
}

static int co_open_written(struct make *m, unsigned flags, struct blk_device **out,
                           struct blk_error *e)
{
    if (m->spool) {
        struct blk_child file = {"file", blk_ref(m->spool)};
        return co_blk_open(m->driver, m->name, NULL, flags, NULL, &file, 1, out, e);
    }
    char *text = m->path ? plain(m->written) : mem_strdup(m->name);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    struct image i = {.text = text,
                      .format = m->driver->name,
                      .cache = m->cache,
                      .secret = make_key_secret(m),
                      .flags = flags,
                      .trust = TRUST_WRITE};
    int rc = co_image_open(m->tool, &i, out, e);
    mem_free(text);
    return rc;
}

int co_make_open(struct make *m, unsigned flags, struct blk_device **out, struct blk_error *e)
{
    return co_open_written(m, flags | BLK_OPEN_WRITE | (m->fresh ? BLK_OPEN_FRESH : 0), out, e);
}

int co_make_look(struct make *m, struct blk_device **out, struct blk_error *e)
{
    return co_open_written(m, 0, out, e);
}

int co_make_end(struct make *m, int rc, struct blk_error *e)
{
    struct host *h = m->tool->host;
    bool renames = m->path && m->written && strcmp(m->path, m->written) != 0;
    if (rc == 0 && renames) {
        rc = co_host_rename(h, m->written, m->path);
        if (rc < 0)
            err_errno(e, rc, "%s is written, but cannot be given its name %s", m->written, m->path);
    }
    if (rc < 0 && m->created)
        (void)!co_host_unlink(h, m->written); /* the first error is the one to tell */
    if (rc < 0)
        co_make_undo_parts(m);
    if (rc < 0 && m->bundle_made)
        (void)!rmdir(m->bundle);
    rc = co_image_close(take(m->spool), rc, e);
    return co_image_close(take(m->held), rc, e);
}

void make_drop(struct make *m)
{
    json_decref(m->options);
    mem_free(m->path);
    mem_free(m->written);
    mem_free(m->folder);
    mem_free(m->bundle);
    mem_free(m->parts_note);
    json_decref(m->parts);
    m->options = m->parts = NULL;
    m->path = m->written = m->folder = m->bundle = m->parts_note = NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* make_parts.c - the further files of a new image: extents, a data file.
 *
 * They have their own names from the start. Where the image is made to be gone on with (steady), a
 * run that was killed while it made them must not leave files that stand in the next one's way, nor
 * may the next one take away what somebody else has put there. So:
 *
 *   1 .TARGET.lamina-parts, a JSON object, says durably what is about to be made, where
 *     nothing was.
 *   2 The file is made.
 *   3 When the journal of those who go on is durable, or when all that was made is gone again, the
 *     note goes.
 *
 * Who makes the image and finds a note removes what it names. */
#include "tools/journal.h"
#include "tools/make.h"

/* Where it is to lie: beside the image; as QEMU has it, as seen from here. */
static char *part_path(const struct make *m, const struct blk_create *c, const char *name)
{
    return m->tool->face != FACE_LAMINA && !c->beside
               ? mem_strdup(name)
               : image_beside(m->path ? m->path : m->name, name);
}

/* 1 */
static int co_note(const struct make *m, struct blk_error *e)
{
    return m->parts_note ? co_journal_write(m->tool->host, m->parts_note,
                                            json_pack("{s:O}", "parts", m->parts), e)
                         : 0;
}

/* For a run that begins in another folder. */
static char *co_whole_path(const struct make *m, const char *path)
{
    auto_free char *here = NULL;
    if (path[0] != '/' && co_host_realpath(m->tool->host, ".", &here) == 0)
        return mem_printf("%s/%s", here, path);
    return mem_strdup(path);
}

/* It is about to be made. */
static int co_add(struct make *m, const char *path, struct blk_error *e)
{
    auto_free char *whole = co_whole_path(m, path);
    if (!whole || json_array_append_new(m->parts, json_string_nocheck(whole)) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    return co_note(m, e);
}

static int co_open_part(struct make *m, const char *path, struct blk_device **out,
                        struct blk_error *e)
{
    struct host_stat st;
    struct resolver r;
    bool there = co_host_stat(m->tool->host, path, &st) == 0;
    if (there && m->tool->face == FACE_LAMINA && !m->force)
        return err_set(e, -EEXIST, "%s exists already; --force replaces it", path);
    size_t before = json_array_size(m->parts);
    int rc = !there && m->parts ? co_add(m, path, e) : 0;
    if (rc == 0)
        rc = co_tool_resolver(m->tool, TRUST_WRITE, m->cache, &r, e);
    if (rc == 0) {
        unsigned how = there ? HOST_TRUNCATE : HOST_CREATE | HOST_EXCLUSIVE;
        rc = co_make_file(m, &r, path, how, out, e);
        resolver_drop(&r);
    }
    if (rc < 0 && json_array_size(m->parts) > before) /* it is not ours to remove */
        json_array_remove(m->parts, before);
    return rc;
}

int co_make_part(const struct blk_create *c, const char *name, struct blk_device **out,
                 struct blk_error *e)
{
    struct make *m = c->arg;
    auto_free char *path = part_path(m, c, name);
    auto_free char *real = NULL;
    if (!path)
        return err_set(e, -ENOMEM, "out of memory");
    if (co_host_realpath(m->tool->host, path, &real) < 0)
        real = NULL; /* not there yet */
    if (m->path && (strcmp(path, m->path) == 0 || (real && strcmp(real, m->path) == 0)))
        return err_set(e, -EINVAL, "%s cannot be the image and its data file", m->path);
    return co_open_part(m, path, out, e);
}

static void co_unlink_all(const struct make *m, const json_t *names)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (name)
            (void)!co_host_unlink(m->tool->host, name);
    }
}

int co_make_clear_parts(struct make *m, struct blk_error *e)
{
    json_auto_t *note = NULL;
    TRY(co_journal_read(m->tool->host, m->parts_note, &note, e));
    co_unlink_all(m, json_object_get(note, "parts"));
    return 0;
}

/* 3; only what is gone durably is not noted any more. */
static int co_forget(struct make *m)
{
    if (!m->parts_note)
        return 0;
    TRY(co_host_sync_dir(m->tool->host, m->folder));
    int rc = co_host_unlink(m->tool->host, m->parts_note);
    return rc < 0 && rc != -ENOENT ? rc : 0;
}

void co_make_undo_parts(struct make *m)
{
    co_unlink_all(m, m->parts);
    if (m->parts)
        (void)!co_forget(m);
}

int co_make_keep(struct make *m, struct blk_error *e)
{
    m->created = false;
    json_decref(take(m->parts));
    int rc = co_forget(m);
    if (rc == 0 && m->parts_note)
        rc = co_host_sync_dir(m->tool->host, m->folder);
    return rc < 0 ? err_errno(e, rc, "%s", m->parts_note) : 0;
}

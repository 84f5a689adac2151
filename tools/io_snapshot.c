/* SPDX-License-Identifier: BSD-3-Clause */
/* io_snapshot.c - qemu-io's -s: what is written goes into a new qcow2 image on top, a file in
 * $TMPDIR
 * (/var/tmp) that has no name any more once it is open. */
#include <stdlib.h>
#include <unistd.h>

#include "tools/io.h"
#include "tools/make.h"

struct overlay {
    struct make make;
    struct image base;
    struct blk_error *e;
};

static int co_make_overlay(void *arg)
{
    struct overlay *o = arg;
    struct blk_device *base;
    TRY(co_image_open(o->make.tool, &o->base, &base, o->e));
    o->make.size = align_up(base->size, 512);
    TRY(co_image_close(base, 0, o->e));
    return co_make(&o->make, o->e);
}

/* The image as a tree: what is told may be options, or a name with or without a format. */
static json_t *base_tree(const struct image *base, struct blk_error *e)
{
    if (!base->image_opts && base->format)
        return json_pack("{s:s, s:s}", "driver", base->format, "file", base->text);
    if (!base->image_opts)
        return json_string(base->text);
    json_t *tree = json_object();
    if (tree && opts_text_to_tree(base->text, NULL, tree, e) == 0)
        return tree;
    json_decref(tree);
    return NULL;
}

/* What opens the overlay: a new string, or NULL. */
static char *overlay_text(const char *path, const struct image *base, struct blk_error *e)
{
    json_t *below = base_tree(base, e);
    json_auto_t *all = json_pack("{s:s, s:{s:s, s:s}, s:o}", "driver", "qcow2", "file", "driver",
                                 "file", "filename", path, "backing", below);
    char *dump = all ? json_dumps(all, JSON_COMPACT) : NULL;
    char *text = dump ? mem_printf("json:%s", dump) : NULL;
    free(dump);
    return text;
}

int io_snapshot_make(struct io *io, const struct image *base, struct io_snapshot *s,
                     struct blk_error *e)
{
    const char *folder = getenv("TMPDIR");
    struct overlay o = {.make = {.tool = io->tool,
                                 .driver = blk_find_driver(blk_drivers, "qcow2"),
                                 .options = json_object(),
                                 .direct = true,
                                 .cache = "unsafe"},
                        .base = *base,
                        .e = e};
    s->path = mem_printf("%s/lamina-io-XXXXXX", folder && *folder ? folder : "/var/tmp");
    int fd = s->path ? mkstemp(s->path) : -1;
    if (fd < 0) {
        mem_free(s->path);
        s->path = NULL;
        make_drop(&o.make);
        return err_set(e, -errno, "cannot make a temporary file: %s", strerror(errno));
    }
    close(fd);
    o.base.flags = 0;
    o.make.name = s->path;
    int rc = io_work(io, co_make_overlay, &o);
    make_drop(&o.make);
    s->text = rc == 0 ? overlay_text(s->path, base, e) : NULL;
    return rc < 0 || s->text ? rc : err_set(e, -EINVAL, "cannot describe the temporary image");
}

void io_snapshot_drop(struct io_snapshot *s)
{
    if (s->path)
        (void)!unlink(s->path);
    mem_free(s->path);
    mem_free(s->text);
}

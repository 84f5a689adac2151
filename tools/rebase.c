/* SPDX-License-Identifier: BSD-3-Clause */
/* rebase.c - an overlay comes to stand on another image, or on none, and shows the same. */
#include "block/chain.h"
#include "tools/task.h"

static const struct arg_desc options[] = {
    {'b', "backing", "IMAGE", "what it is to stand on; an empty name: nothing", 0, false},
    {'F', "backing-format", "FORMAT", "the format of the image that -b names", 0, false},
    {'B', NULL, "FORMAT", "the same", FACE_IMG, false},
    {'u', "unsafe", NULL, "change the name only: what it will show is the caller's care",
     FACE_LAMINA, false},
    {'u', "backing-unsafe", NULL, "change the name only", FACE_IMG, false},
    {'c', "compress", NULL, "compress what is written", 0, false},
    ARG_IMAGE_FORMAT,
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    {'T', "source-cache", "MODE", "the same for the images below", FACE_LAMINA, false},
    {'T', "backing-cache", "MODE", "the same for the images below", FACE_IMG, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_FORCE_SHARE,
    ARG_QUIET,
    ARG_END};

struct rebase {
    struct task task;
    struct image image;
    const char *backing, *format, *source_cache;
    bool unsafe, compress;
};

static int co_open_next(struct rebase *r, struct blk_device **next)
{
    struct task *t = &r->task;
    auto_free char *path = image_beside(r->image.text, r->backing);
    if (!path)
        return err_set(&t->error, -ENOMEM, "out of memory");
    struct image i = {.text = path,
                      .format = r->format,
                      .cache = r->source_cache,
                      .trust = TRUST_READ,
                      .bare = true};
    int rc = co_image_open(t->tool, &i, next, &t->error);
    if (rc < 0)
        err_prefix(&t->error, "Could not open new backing file '%s'", r->backing);
    return rc;
}

/* What is in the image's metadata is written there with the format, always: a guest could make a
 * raw image look like another one. */
static int take_format(struct rebase *r, const struct blk_device *next)
{
    const struct tool *t = r->task.tool;
    if (!r->backing || !r->backing[0] || r->format)
        return 0;
    if (next && t->face == FACE_LAMINA) {
        r->format = next->driver->name;
        return 0;
    }
    return err_set(&r->task.error, -EINVAL,
                   tool_words(t, "the format of '%s' is not known here: tell it with -F",
                              "Could not change the backing file to '%s': backing format must be "
                              "specified"),
                   r->backing);
}

static int co_rebase(struct rebase *r, struct blk_device *image)
{
    struct task *t = &r->task;
    bool named = r->backing && r->backing[0];
    struct blk_rebase work = {.image = image,
                              .now = blk_child(image, "backing"),
                              .name = named ? r->backing : NULL,
                              .unsafe = r->unsafe,
                              .compress = r->compress,
                              .job = &t->job};
    bool identify = image->driver->co_identify_backing;
    if (named && image->driver->co_change_backing && (!r->unsafe || identify))
        TRY(co_open_next(r, &work.next));
    int rc = take_format(r, work.next);
    work.format = named ? r->format : NULL;
    if (rc == 0)
        rc = co_blk_rebase(&work, &t->error);
    return co_image_close(work.next, rc, &t->error);
}

static int co_body(struct task *t)
{
    struct rebase *r = container_of(t, struct rebase, task);
    struct blk_device *image;
    TRY(co_image_open(t->tool, &r->image, &image, &t->error));
    int rc = 0;
    if (!image->driver->co_change_backing && t->tool->face == FACE_LAMINA)
        rc = format_no_backing(t->tool, image->driver, &t->error);
    else if (r->compress && (!image->driver->compresses || image->limits.never_compressed))
        rc = format_no_compression(t->tool, image->driver, &t->error);
    else
        rc = co_rebase(r, image);
    return co_image_close(image, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

/* Everything that can be known before a file is opened; 0, or ARGS_BAD after a message. */
static int check(const struct rebase *r)
{
    struct tool *t = r->task.tool;
    if (!r->unsafe && !r->backing) {
        tool_misuse(t, "%s",
                    tool_words(t, "on which image? -b IMAGE; -b '' for none",
                               "Must specify backing file (-b) or use unsafe mode (-u)"));
        return ARGS_BAD;
    }
    if (!cache_told(t, "cache", r->image.cache) || !cache_told(t, "source cache", r->source_cache))
        return ARGS_BAD;
    if (!r->format || blk_find_driver(blk_drivers, r->format))
        return 0;
    if (t->face != FACE_LAMINA)
        tool_error(t, "Invalid format name: '%s'", r->format);
    else
        (void)format_find(t, r->format, "");
    return ARGS_BAD;
}

static int parse(struct rebase *r, int argc, char **argv)
{
    const struct arg_place places[] = {
        IMAGE_PLACES(&r->image),      {'b', &r->backing, NULL},      {'F', &r->format, NULL},
        {'B', &r->format, NULL},      {'c', NULL, &r->compress},     {'u', NULL, &r->unsafe},
        {'t', &r->image.cache, NULL}, {'T', &r->source_cache, NULL}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, NULL, NULL};
    int id = image_read(r->task.tool, &line, &r->image);
    if (id != ARGS_END)
        return id;
    if (r->unsafe)
        r->image.flags |= BLK_OPEN_NO_BACKING;
    return check(r) < 0 ? ARGS_BAD : ARGS_END;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct rebase r = {.task = {.tool = t, .kind = "rebase", .co_body = co_body},
                       .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
    int id = parse(&r, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    return task_run(&r.task, 1);
}

const struct command rebase_command = {
    .name = "rebase",
    .run = run,
    .usage = "rebase [OPTION]... -b BACKING IMAGE",
    .summary = "Stand an overlay on another image, without changing what it shows",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "What the two images below show differently is written into IMAGE first; then its "
             "header\nnames BACKING, as written here: a relative name is relative to IMAGE.\n"
             "\n"
             "  lamina rebase -b base2.qcow2 vm1.qcow2\n"
             "  lamina rebase -b '' vm1.qcow2                  it needs no other image any more\n"
             "  lamina rebase -u -b moved/base.raw -F raw vm1.qcow2",
};

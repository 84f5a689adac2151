/* SPDX-License-Identifier: BSD-3-Clause */
/* create.c - a new, empty image, or one that begins as another image is now. */
#include "tools/make.h"
#include "tools/output.h"

enum { ARG_FORCE = ARG_LONG };

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the new image's format (else what FILE's ending says, or raw)", 0,
     false},
    {'b', "backing", "IMAGE", "what it shows until something is written over it", 0, false},
    {'F', "backing-format", "FORMAT", "the backing image's format", 0, false},
    {'B', NULL, "FORMAT", "the same", FACE_IMG, false},
    {'u', "backing-unsafe", NULL, "do not open the backing image to look whether it is there", 0,
     false},
    {'o', "options", "KEY=VALUE,...", "options of the format; -o help lists them", 0, false},
    {ARG_FORCE, "force", NULL, "replace FILE if it exists", FACE_LAMINA, false},
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};

struct create {
    struct make make;
    const char *format, *backing, *backing_format;
    bool unsafe, help;
    const char *size_text;
    bool sized;    /* make.size is known */
    bool detected; /* the backing image's format was found out, not told */
    struct blk_error error;
};

/* Looks at the backing image: is it there, how large, what format. */
static int co_backing(struct create *c)
{
    struct tool *t = c->make.tool;
    auto_free char *path = image_beside(c->make.name, c->backing);
    struct blk_device *dev;
    if (!path)
        return err_set(&c->error, -ENOMEM, "out of memory");
    struct image i = {.text = path, .format = c->backing_format, .trust = TRUST_READ, .bare = true};
    int rc = co_image_open(t, &i, &dev, &c->error);
    if (rc < 0 && t->face != FACE_LAMINA) {
        size_t n = strlen(c->error.text);
        snprintf(c->error.text + n, sizeof(c->error.text) - n, "\nCould not open backing image.");
    }
    TRY(rc);
    if (!c->sized)
        c->make.size = dev->size;
    c->sized = true;
    if (!c->backing_format) {
        c->backing_format = dev->driver->name;
        c->detected = true;
    }
    return co_image_close(dev, 0, &c->error);
}

/* What is in the image's metadata is written there with the format, always: a guest could make a
 * raw image look like another one. */
static int note_backing(struct create *c)
{
    if (!c->backing)
        return 0;
    if (c->detected && c->make.tool->face != FACE_LAMINA)
        return err_set(&c->error, -EINVAL,
                       "Backing file specified without backing format\nDetected format of %s.",
                       c->backing_format);
    if (json_object_set_new(c->make.options, "backing_file", json_string(c->backing)) < 0 ||
        (c->backing_format &&
         json_object_set_new(c->make.options, "backing_fmt", json_string(c->backing_format)) < 0))
        return err_set(&c->error, -ENOMEM, "out of memory");
    return 0;
}

static int co_prepare(void *arg)
{
    struct create *c = arg;
    if (c->backing && !c->unsafe)
        TRY(co_backing(c));
    TRY(note_backing(c));
    return make_check_options(&c->make, &c->error);
}

static int co_run(void *arg)
{
    struct create *c = arg;
    int rc = co_make(&c->make, &c->error);
    return co_make_end(&c->make, rc, &c->error);
}

/* --- what is told -------------------------------------------------------------------------------
 */

static int option(void *verb, int id, const char *value)
{
    struct create *c = verb;
    return make_options_told(c->make.tool, c->make.options, value, &c->help);
}

static int operands(struct create *c, int count, char **words)
{
    struct tool *t = c->make.tool;
    c->make.name = count > 0 ? words[0] : NULL;
    c->size_text = count > 1 ? words[1] : NULL;
    if (c->help)
        return ARGS_END;
    if (count == 0 || count > 2) {
        tool_misuse(t, count == 0 ? "Expecting image file name" : "Unexpected argument: %s",
                    count == 0 ? "" : words[2]);
        return ARGS_BAD;
    }
    return ARGS_END;
}

static int parse(struct create *c, int argc, char **argv)
{
    const struct arg_place places[] = {{'f', &c->format, NULL},
                                       {'b', &c->backing, NULL},
                                       {'F', &c->backing_format, NULL},
                                       {'B', &c->backing_format, NULL},
                                       {'u', NULL, &c->unsafe},
                                       {ARG_FORCE, NULL, &c->make.force},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, c};
    int id = args_read(c->make.tool, &line);
    return id == ARGS_END ? operands(c, line.argc, line.argv) : id;
}

static const struct blk_driver *format(const struct create *c)
{
    const struct tool *t = c->make.tool;
    char what[300] = "";
    if (c->make.name && t->face != FACE_LAMINA)
        snprintf(what, sizeof(what), "%.256s: ", c->make.name);
    const struct blk_driver *d = NULL;
    if (!c->format && t->face == FACE_LAMINA && c->make.name)
        d = format_by_ending(c->make.name);
    if (!d)
        d = format_find(t, c->format ? c->format : "raw", what);
    return d && format_creates(t, d, what) ? d : NULL;
}

/* 0, or the exit status after a message. */
static int sizes(struct create *c)
{
    if (c->size_text) {
        json_object_del(c->make.options, "size");
        c->sized = size_told(c->make.tool, "image size", c->size_text, &c->make.size);
        return c->sized ? 0 : 1;
    }
    return make_take_size(&c->make, &c->make.size, &c->sized, &c->error) < 0
               ? tool_failed(c->make.tool, &c->error)
               : 0;
}

static int failed(const struct create *c)
{
    const struct tool *t = c->make.tool;
    if (t->face != FACE_LAMINA)
        tool_error(t, "%s: %s", c->make.name, c->error.text);
    else
        tool_failed(t, &c->error);
    return 1;
}

static int create(struct create *c)
{
    struct tool *t = c->make.tool;
    c->make.driver = format(c);
    if (!c->make.driver)
        return 1;
    if (c->help) {
        make_print_help(t, c->make.driver, c->make.name != NULL);
        return 0;
    }
    if (sizes(c))
        return 1;
    make_backing_told(c->make.options, &c->backing, &c->backing_format);
    if (c->backing_format && !format_find(t, c->backing_format, ""))
        return 1;
    if (c->backing_format && !c->backing)
        json_object_set_new(c->make.options, "backing_fmt", json_string(c->backing_format));
    if (tool_run(t, 1, co_prepare, c) < 0)
        return failed(c);
    if (!c->sized) {
        err_set(&c->error, -EINVAL, "%s",
                tool_words(t, "how large is it to be? Put its SIZE, as 20G, behind FILE",
                           "Image creation needs a size parameter"));
        return failed(c);
    }
    if (!t->quiet && t->face != FACE_LAMINA)
        make_print_formatting(&c->make);
    if (tool_run(t, 1, co_run, c) < 0)
        return failed(c);
    if (!t->quiet && t->face == FACE_LAMINA) {
        char size[32];
        printf("%s: %s, %s%s%s\n", c->make.name, c->make.driver->name,
               output_size(c->make.size, size, sizeof(size)), c->backing ? ", on " : "",
               c->backing ? c->backing : "");
    }
    return 0;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct create c = {.make = {.tool = t, .options = json_object(), .direct = true}};
    int id = parse(&c, argc, argv);
    int rc = id == ARGS_END ? create(&c) : id == ARGS_HELP ? 0 : 1;
    make_drop(&c.make);
    return rc;
}

const struct command create_command = {
    .name = "create",
    .run = run,
    .usage = "create [OPTION]... FILE [SIZE]",
    .summary = "Make a new disk: empty, or beginning as another image is now",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "SIZE is in bytes, or ends with k, M, G, T, P or E (1k is 1024). With -b it may be left\n"
        "out: the new disk is as large as its backing image, whose name is meant relative to\n"
        "FILE's directory and whose format is written down in FILE.\n"
        "\n"
        "  lamina create disk.qcow2 20G\n"
        "  lamina create -b base.qcow2 vm1.qcow2\n"
        "  lamina create -f qcow2 -o help",
};

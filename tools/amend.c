/* SPDX-License-Identifier: BSD-3-Clause */
/* amend.c - changes options of an existing image. The format's table says which there are. */
#include "tools/make.h"
#include "tools/task.h"

enum { ARG_FORCE = ARG_LONG };

static const struct arg_desc options[] = {
    {'o', "options", "KEY=VALUE,...", "what is to change; -o help lists it", 0, false},
    ARG_IMAGE_FORMAT,
    {'t', "cache", "MODE", "none, writeback (the default), writethrough, directsync, unsafe", 0,
     false},
    {ARG_FORCE, "force", NULL, "allow what would make an encrypted image unreadable", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_END};

struct amend {
    struct task task;
    struct image image;
    json_t *options; /* what is told with -o; owned */
    bool told, help, force;
    const struct opt_desc *listed; /* of the help that is to be printed */
    const char *driver;
};

static bool in_table(const struct opt_desc *table, const char *name)
{
    for (const struct opt_desc *o = table; o && o->name; o++)
        if (strcmp(o->name, name) == 0)
            return true;
    return false;
}

/* QEMU's words for what cannot be changed. */
static int check_names(struct amend *a, const struct blk_driver *d)
{
    const char *key;
    json_t *value;
    json_object_foreach (a->options, key, value) {
        if (in_table(d->amend_options, key) || opts_nests(d->amend_options, key))
            continue;
        bool at_creation = in_table(d->create_options, key);
        if (a->task.tool->face == FACE_LAMINA)
            return err_set(&a->task.error, -EINVAL, "'%s' %s; -o help lists what can be changed",
                           key, at_creation ? "stays as the image was made" : "is no option");
        return err_set(&a->task.error, -EINVAL, "Invalid parameter '%s'%s", key,
                       at_creation ? "\nThis option is only supported for image creation" : "");
    }
    return 0;
}

static int no_amending(const struct tool *t, const struct blk_driver *d, struct blk_error *e)
{
    return err_set(e, -ENOTSUP,
                   tool_words(t, "%s images have no options that could be changed",
                              "Format driver '%s' does not support option amendment"),
                   d->name);
}

static int co_amend(struct amend *a, struct blk_device *dev)
{
    struct task *t = &a->task;
    struct opts opts = {0};
    struct resolver secrets;
    if (a->help) { /* printed when all is closed */
        a->listed = dev->driver->amend_options;
        a->driver = dev->driver->name;
    }
    if (!dev->driver->co_amend)
        return no_amending(t->tool, dev->driver, &t->error);
    if (a->help)
        return 0;
    TRY(check_names(a, dev->driver));
    TRY(opts_parse(dev->driver->amend_options, a->options, &opts, &t->error));
    t->job.total = 1;
    int rc = co_tool_resolver(t->tool, TRUST_WRITE, NULL, &secrets, &t->error);
    if (rc < 0) {
        opts_drop(&opts);
        return rc;
    }
    opts.secrets = &secrets;
    opts.force = a->force;
    if (t->tool->face == FACE_LAMINA && in_table(opts.table, "size") && opts_given(&opts, "size") &&
        opts_number(&opts, "size") < dev->size)
        rc = err_set(&t->error, -EINVAL, "a smaller size would cut data off: use resize --shrink");
    if (rc == 0)
        rc = co_blk_amend(dev, &opts, &t->error);
    if (rc == 0)
        rc = co_job_step(&t->job, 1);
    resolver_drop(&secrets);
    opts_drop(&opts);
    return rc;
}

static int co_body(struct task *t)
{
    struct amend *a = container_of(t, struct amend, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &a->image, &dev, &t->error));
    int rc = co_amend(a, dev);
    return co_image_end(t->tool, dev, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static int option(void *verb, int id, const char *value)
{
    struct amend *a = verb;
    a->told = true;
    return make_options_told(a->task.tool, a->options, value, &a->help);
}

/* Of a format that is told, without an image. */
static int print_help(struct amend *a)
{
    struct tool *t = a->task.tool;
    const struct blk_driver *d = format_find(t, a->image.format, "");
    if (!d)
        return 1;
    if (!d->co_amend) {
        (void)no_amending(t, d, &a->task.error);
        return tool_failed(t, &a->task.error);
    }
    printf("Amend options for '%s':\n", d->name);
    make_print_options(d->amend_options);
    return 0;
}

static int amend(struct amend *a, int operands, char **words)
{
    struct tool *t = a->task.tool;
    if (!a->told)
        return tool_misuse(t, "%s",
                           tool_words(t, "what is to change? -o KEY=VALUE,...; -o help lists it",
                                      "Must specify options (-o)"));
    if (a->help && a->image.format)
        return print_help(a);
    if (operands != 1) {
        tool_error(t, "Expecting one image file name");
        return 1;
    }
    if (!cache_told(t, "cache", a->image.cache))
        return 1;
    a->image.text = words[0];
    int rc = task_run(&a->task, 1);
    if (rc == 0 && a->help) {
        printf("Amend options for '%s':\n", a->driver);
        make_print_options(a->listed);
    }
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct amend a = {.task = {.tool = t, .kind = "amend", .co_body = co_body},
                      .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE},
                      .options = json_object()};
    const struct arg_place places[] = {IMAGE_PLACES(&a.image),
                                       {'t', &a.image.cache, NULL},
                                       {ARG_FORCE, NULL, &a.force},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, &a};
    int id = args_read(t, &line);
    int rc = id == ARGS_HELP ? 0 : 1;
    if (id == ARGS_END)
        rc = amend(&a, line.argc, line.argv);
    json_decref(a.options);
    return rc;
}

const struct command amend_command = {
    .name = "amend",
    .run = run,
    .usage = "amend [OPTION]... -o KEY=VALUE,... IMAGE",
    .summary = "Change options of an existing image",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "What a format lets change, -o help lists. The image is as it was or as it is asked "
             "for,\nalso after a crash.\n"
             "\n"
             "  lamina amend -f qcow2 -o help\n"
             "  lamina amend -o compat=1.1,lazy_refcounts=on disk.qcow2",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* measure.c - how many bytes a new image would take: empty, or with the contents of another one.
 * Looks at extents only. */
#include "tools/make.h"
#include "tools/output.h"
#include "tools/task.h"

static const struct arg_desc options[] = {
    {'O', "target-format", "FORMAT", "the new image's format (raw)", 0, false},
    {'o', "options", "KEY=VALUE,...", "options of the format", 0, false},
    {'s', "size", "SIZE", "the new image is empty and shows SIZE bytes", 0, false},
    {'f', "format", "FORMAT", "IMAGE's format (else it is found out)", 0, false},
    {'l', "snapshot", "SNAPSHOT", "what IMAGE held when that snapshot was taken", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_FORCE_SHARE,
    ARG_END};

struct measure {
    struct task task;
    struct make make; /* only what is told with -O and -o */
    struct image image;
    const char *target_format, *snapshot;
    bool sized;
    struct opts opts;
    struct blk_measure m;
};

static int co_measure(struct measure *m, struct blk_device *dev, const struct blk_info *info)
{
    if (dev) {
        m->m.source = dev;
        /* QEMU counts in sectors, and a snapshot as large as the disk is now. */
        m->m.size =
            m->task.tool->face == FACE_LAMINA ? dev->size : align_up(info->virtual_size, 512);
    }
    const struct blk_driver *driver = m->make.driver;
    if (driver->measure_is_ours && m->task.tool->face != FACE_LAMINA)
        return err_set(&m->task.error, -ENOTSUP,
                       "Block driver '%s' does not support size measurement", driver->name);
    json_t *none = json_array();
    const json_t *held = json_object_get(info->specific, "bitmaps");
    m->m.bitmaps = info->has_bitmaps ? (held ? held : none) : NULL;
    int rc = co_blk_measure(driver, &m->m, &m->task.error);
    json_decref(none);
    return rc;
}

static int co_body(struct task *t)
{
    struct measure *m = container_of(t, struct measure, task);
    struct blk_device *dev = NULL;
    struct blk_info info = {0}; /* of the image itself: its bitmaps count with any snapshot */
    if (!m->sized)
        TRY(co_image_open(t->tool, &m->image, &dev, &t->error));
    int rc = dev ? co_blk_info(dev, &info, &t->error) : 0;
    if (rc == 0 && dev && m->snapshot)
        rc = co_image_snapshot(t->tool, m->snapshot, &dev, &t->error);
    if (rc == 0)
        rc = co_measure(m, dev, &info);
    blk_info_drop(&info);
    return co_image_close(dev, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static int option(void *verb, int id, const char *value)
{
    struct measure *m = verb;
    struct tool *t = m->task.tool;
    if (id == 'o')
        return make_add_options(t, m->make.options, value) < 0 ? ARGS_BAD : 0;
    m->sized = true;
    return size_told(t, "image size", value, &m->m.size) ? 0 : ARGS_BAD;
}

static int parse(struct measure *m, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&m->image),
                                       {'O', &m->target_format, NULL},
                                       {'l', &m->snapshot, NULL},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, m};
    int id = args_read(m->task.tool, &line);
    if (id != ARGS_END)
        return id;
    m->image.text = line.argc > 0 ? line.argv[0] : NULL;
    if (line.argc <= 1)
        return ARGS_END;
    tool_error(m->task.tool, "At most one filename argument is allowed.");
    return ARGS_BAD;
}

static const char *contradiction(const struct measure *m)
{
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {!m->image.text && (m->image.image_opts || m->image.format || m->snapshot),
         "--image-opts, -f, and -l require a filename argument."},
        {!m->image.text && !m->sized, "Either --size N or one filename must be specified."},
        {m->image.text && m->sized, "--size N cannot be used together with a filename."},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

/* The format and its options; 0, or 1 after a message. */
static int target(struct measure *m)
{
    struct tool *t = m->task.tool;
    struct blk_error e = {0};
    uint64_t ignored;
    bool given;
    const char *name = m->target_format ? m->target_format : "raw";
    m->make.driver = format_find(t, name, "");
    if (!m->make.driver)
        return 1;
    if (!format_creates(t, m->make.driver, ""))
        return 1;
    int rc = make_take_size(&m->make, &ignored, &given, &e);
    if (rc == 0)
        rc = make_check_options(&m->make, &e);
    if (rc == 0)
        rc = opts_parse(m->make.driver->create_options, m->make.options, &m->opts, &e);
    if (rc == 0)
        return 0;
    tool_error(t, "%s", e.text);
    if (strncmp(e.text, "Invalid parameter '", 19) == 0)
        tool_error(t, "Invalid options for file format '%s'", name);
    return 1;
}

static void print(const struct measure *m)
{
    const struct blk_measure *b = &m->m;
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", b->required,
           b->fully_allocated);
    if (b->has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", b->bitmap_bytes);
}

static int print_json(const struct measure *m)
{
    const struct blk_measure *b = &m->m;
    json_t *all = json_object();
    if (b->has_bitmaps)
        json_object_set_new(all, "bitmaps", json_integer((json_int_t)b->bitmap_bytes));
    json_object_set_new(all, "required", json_integer((json_int_t)b->required));
    json_object_set_new(all, "fully-allocated", json_integer((json_int_t)b->fully_allocated));
    return output_json(all);
}

static int measure(struct measure *m)
{
    struct tool *t = m->task.tool;
    const char *sentence = contradiction(m);
    if (sentence) {
        tool_error(t, "%s", sentence);
        return 1;
    }
    if (target(m))
        return 1;
    m->m.opts = &m->opts;
    int rc = task_run(&m->task, 1);
    opts_drop(&m->opts);
    if (rc == 0 && t->output == OUTPUT_JSON)
        rc = print_json(m);
    else if (rc == 0)
        print(m);
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct measure m = {.task = {.tool = t, .kind = "measure", .co_body = co_body},
                        .make = {.tool = t, .options = json_object()},
                        .image = {.trust = TRUST_READ}};
    int id = parse(&m, argc, argv);
    int rc = id == ARGS_END ? measure(&m) : id == ARGS_HELP ? 0 : 1;
    make_drop(&m.make);
    return rc;
}

const struct command measure_command = {
    .name = "measure",
    .run = run,
    .usage = "measure [OPTION]... {--size SIZE | IMAGE}",
    .summary = "Say how many bytes a new image will take",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "Prints what the image needs at once (required) and at most (fully allocated), for "
             "volumes\nthat are made before they are filled.\n"
             "\n"
             "  lamina measure -O qcow2 disk.img\n"
             "  lamina measure -O qcow2 -o cluster_size=2M --size 1T",
};

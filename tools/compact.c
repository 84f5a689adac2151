/* SPDX-License-Identifier: BSD-3-Clause */
/* compact.c - an image file without gaps: what it holds is moved to the front, and the file ends
 * behind it. What the image stands on is not opened: nothing of it is needed. */
#include "tools/output.h"
#include "tools/task.h"

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT, ARG_IMAGE_OPTIONS, ARG_SECRET, ARG_PROGRESS, ARG_OUTPUT, ARG_QUIET, ARG_END};

/* Of the file that the image lies in. */
struct extent_of {
    uint64_t length, taken; /* taken: on disk; UINT64_MAX: unknown */
};

struct compact {
    struct task task;
    struct image image;
    const char *format; /* static: a driver's name */
    struct extent_of before, after;
};

static int co_look(struct compact *c, struct blk_device *dev, struct extent_of *out)
{
    const struct blk_device *file = blk_child(dev, "file");
    struct blk_info info;
    TRY(co_blk_info(dev, &info, &c->task.error));
    *out = (struct extent_of){file ? file->size : dev->size, info.actual_size};
    blk_info_drop(&info);
    return 0;
}

static int co_compact(struct compact *c, struct blk_device *dev)
{
    struct task *t = &c->task;
    c->format = dev->driver->name;
    t->job.total = 1;
    if (!dev->driver->co_compact)
        return err_set(&t->error, -ENOTSUP, "there is nothing to compact in %s images",
                       dev->driver->name);
    TRY(co_look(c, dev, &c->before));
    TRY(co_blk_compact(dev, &t->error));
    TRY(co_look(c, dev, &c->after));
    return co_job_step(&t->job, 1);
}

static int co_body(struct task *t)
{
    struct compact *c = container_of(t, struct compact, task);
    struct blk_device *dev;
    TRY(co_image_open(t->tool, &c->image, &dev, &t->error));
    int rc = co_compact(c, dev);
    return co_image_end(t->tool, dev, rc, &t->error);
}

/* --- what is told ----------------------------------------------------------------------------- */

static void set_size(json_t *o, const char *key, uint64_t bytes)
{
    if (bytes != UINT64_MAX)
        json_object_set_new(o, key, json_integer((json_int_t)bytes));
}

static int print_json(const struct compact *c)
{
    json_t *o = json_object();
    json_object_set_new(o, "filename", output_text(c->image.text));
    json_object_set_new(o, "format", json_string(c->format));
    set_size(o, "length-before", c->before.length);
    set_size(o, "length-after", c->after.length);
    set_size(o, "actual-size-before", c->before.taken);
    set_size(o, "actual-size-after", c->after.taken);
    return output_json(o);
}

static int print_human(const struct compact *c)
{
    char before[32], after[32], freed[32];
    uint64_t less = c->before.length > c->after.length ? c->before.length - c->after.length : 0;
    if (less == 0) {
        printf("%s has no gaps to close: its file is %s long.\n", c->image.text,
               output_size(c->after.length, after, sizeof(after)));
        return 0;
    }
    printf("The file of %s was %s long and is %s now: %s less.\n", c->image.text,
           output_size(c->before.length, before, sizeof(before)),
           output_size(c->after.length, after, sizeof(after)),
           output_size(less, freed, sizeof(freed)));
    return 0;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct compact c = {
        .task = {.tool = t, .kind = "compact", .co_body = co_body},
        .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE | BLK_OPEN_NO_BACKING}};
    const struct arg_place places[] = {IMAGE_PLACES(&c.image), {0, NULL, NULL}};
    struct command_line line = {.argc = argc, .argv = argv, .places = places, .verb = &c};
    int id = image_read(t, &line, &c.image);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    int rc = task_run(&c.task, 1);
    if (rc || t->quiet)
        return rc;
    return t->output == OUTPUT_JSON ? print_json(&c) : print_human(&c);
}

const struct command compact_command = {
    .name = "compact",
    .run = run,
    .usage = "compact [OPTION]... IMAGE",
    .summary = "Move what an image holds to the front of its file and cut that off behind it",
    .faces = FACE_LAMINA,
    .options = options,
    .notes =
        "What the disk shows stays as it is, also after a crash; then running it again goes on.\n"
        "Discard first what the guest does not need (fstrim), for only that leaves gaps.\n"
        "\n"
        "  lamina compact disk.vdi\n"
        "  lamina compact --output json disk.qcow2",
};

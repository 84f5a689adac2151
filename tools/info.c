/* SPDX-License-Identifier: BSD-3-Clause */
/* info.c - what an image is. Opens the file that is named and, without --backing-chain, no other:
 * what an image says of other files is printed, not followed. */
#include "tools/draw.h"
#include "tools/image.h"
#include "tools/output.h"

enum { ARG_CHAIN = ARG_LONG };

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {ARG_CHAIN, "backing-chain", NULL, "say the same of all that it stands on", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_FORCE_SHARE,
    ARG_END};

struct fact {
    char *name;
    const char *format;
    struct blk_info info;
};

struct info {
    struct tool *tool;
    struct image image;
    bool chain;
    struct fact *facts;
    size_t count;
    struct blk_error error;
};

/* As it was told; in the face without what says how the file is reached. */
static const char *told_name(const struct info *in, const struct blk_device *dev)
{
    const char *text = in->image.text;
    bool face = in->tool->face != FACE_LAMINA;
    if (in->count > 0 || in->image.image_opts || (face && strncmp(text, "json:", 5) == 0))
        return dev->name ? dev->name : "";
    return face && strncmp(text, "file:", 5) == 0 ? text + 5 : text;
}

static int co_fact(struct info *in, struct blk_device *dev)
{
    struct fact *more = mem_resize(in->facts, (in->count + 1) * sizeof(*more));
    if (!more)
        return err_set(&in->error, -ENOMEM, "out of memory");
    in->facts = more;
    struct fact *f = &more[in->count];
    *f = (struct fact){.format = dev->driver->name};
    f->name = mem_strdup(told_name(in, dev));
    if (!f->name)
        return err_set(&in->error, -ENOMEM, "out of memory");
    in->count++;
    TRY(co_blk_info(dev, &f->info, &in->error));
    if (in->tool->face != FACE_LAMINA) /* QEMU counts in sectors */
        f->info.virtual_size = align_up(f->info.virtual_size, 512);
    return 0;
}

static int co_run(void *arg)
{
    struct info *in = arg;
    struct blk_device *top;
    TRY(co_image_open(in->tool, &in->image, &top, &in->error));
    int rc = 0;
    for (struct blk_device *dev = top; dev && rc == 0; dev = blk_child(dev, "backing")) {
        rc = co_fact(in, dev);
        if (!in->chain)
            break;
    }
    return co_image_end(in->tool, top, rc, &in->error);
}

/* On a terminal: each image of the chain and how much of the disk its file takes. */
static void draw_chain(const struct info *in)
{
    struct draw d = {0};
    if (in->count == 0 || draw_init(&d, in->facts[0].info.virtual_size, in->count) < 0)
        return; /* the words will follow */
    for (size_t i = 0; i < in->count; i++) {
        const struct blk_info *info = &in->facts[i].info;
        char took[32], size[32], note[100];
        bool known = info->actual_size != UINT64_MAX;
        draw_add(&d, i, 0, known ? MIN(info->actual_size, d.size) : 0);
        snprintf(note, sizeof(note), "%s, %s of %s", in->facts[i].format,
                 known ? output_size(info->actual_size, took, sizeof(took)) : "?",
                 output_size(info->virtual_size, size, sizeof(size)));
        draw_row(&d, i, in->facts[i].name, note);
    }
    putchar('\n');
    draw_drop(&d);
}

static int print(const struct info *in)
{
    if (in->chain && draw_is_wanted(in->tool))
        draw_chain(in);
    if (in->tool->output == OUTPUT_HUMAN) {
        for (size_t i = 0; i < in->count; i++) {
            if (i > 0)
                putchar('\n');
            output_info_human(in->facts[i].name, in->facts[i].format, &in->facts[i].info);
        }
        return 0;
    }
    if (!in->chain)
        return output_json(
            output_info_json(in->facts[0].name, in->facts[0].format, &in->facts[0].info));
    json_t *list = json_array();
    for (size_t i = 0; list && i < in->count; i++)
        json_array_append_new(
            list, output_info_json(in->facts[i].name, in->facts[i].format, &in->facts[i].info));
    return output_json(list);
}

static void drop(struct info *in)
{
    for (size_t i = 0; i < in->count; i++) {
        mem_free(in->facts[i].name);
        blk_info_drop(&in->facts[i].info);
    }
    mem_free(in->facts);
}

static int parse(struct info *in, int argc, char **argv)
{
    const struct arg_place places[] = {
        IMAGE_PLACES(&in->image), {ARG_CHAIN, NULL, &in->chain}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, NULL, NULL};
    return image_read(in->tool, &line, &in->image);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct info in = {.tool = t};
    int id = parse(&in, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    in.image.trust = in.chain ? TRUST_READ : TRUST_NOTHING;
    in.image.flags = BLK_OPEN_FACTS | BLK_OPEN_NO_DATA | (in.chain ? 0 : BLK_OPEN_NO_BACKING);
    t->quiet = true; /* the format that was found is the answer itself */
    int rc = tool_run(t, 1, co_run, &in);
    rc = rc < 0 ? tool_failed(t, &in.error) : print(&in);
    drop(&in);
    return rc;
}

const struct command info_command = {
    .name = "info",
    .run = run,
    .usage = "info [OPTION]... IMAGE",
    .summary = "Say what an image is: format, sizes, what it stands on",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes = "It opens IMAGE and no other file, unless --backing-chain asks for more.\n"
             "\n"
             "  lamina info disk.qcow2\n"
             "  lamina info --backing-chain --output=json overlay.qcow2",
};

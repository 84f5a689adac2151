/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.c - persistent dirty bitmaps of an image: made, removed, cleared, enabled, disabled,
 * merged, in the order that is told; listed, and what they say is dirty. */
#include "tools/image.h"
#include "tools/output.h"

enum {
    ARG_ADD = ARG_LONG,
    ARG_REMOVE,
    ARG_CLEAR,
    ARG_ENABLE,
    ARG_DISABLE,
    ARG_MERGE,
    ARG_MAP,
    ARG_IMAGE_OPTS
};

static const struct arg_desc options[] = {
    {ARG_ADD, "add", NULL, "make BITMAP; it records from now on", 0, false},
    {ARG_REMOVE, "remove", NULL, "delete BITMAP", 0, false},
    {ARG_CLEAR, "clear", NULL, "nothing is dirty in it any more", 0, false},
    {ARG_ENABLE, "enable", NULL, "it records what is written to the disk", 0, false},
    {ARG_DISABLE, "disable", NULL, "it records nothing any more", 0, false},
    {ARG_MERGE, "merge", "SOURCE", "what is dirty in bitmap SOURCE is dirty in it as well", 0,
     false},
    {ARG_MAP, "map", NULL, "print what is dirty in it", FACE_LAMINA, false},
    {'g', "granularity", "SIZE", "with --add: how much one bit stands for (64k)", 0, false},
    {'b', "source-file", "IMAGE", "with --merge: SOURCE is a bitmap of IMAGE", 0, false},
    {'F', "source-format", "FORMAT", "the format of -b's image (else it is found out)", 0, false},
    {'f', "format", "FORMAT", "the image's format (else it is found out)", 0, false},
    {ARG_OUTPUT_ID, "output", "human|json", "print for people or for programs", FACE_LAMINA, false},
    {ARG_IMAGE_OPTS, "image-opts", NULL, "images are driver=...,key=value or json:{...}", 0, false},
    ARG_SECRET,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct step {
    enum blk_bitmap_action action;
    const char *source; /* of merge */
};

struct bitmap {
    struct tool *tool;
    struct image image, source;
    const char *name;
    uint64_t granularity;
    bool sized, map;
    struct step *steps; /* owned */
    size_t count;
    size_t room;
    struct blk_bitmap *list; /* what is to be printed */
    size_t listed;
    json_t *ranges;
    struct blk_error error;
};

static const char *const words[] = {
    [BLK_BITMAP_ADD] = "add",       [BLK_BITMAP_REMOVE] = "remove",   [BLK_BITMAP_CLEAR] = "clear",
    [BLK_BITMAP_ENABLE] = "enable", [BLK_BITMAP_DISABLE] = "disable", [BLK_BITMAP_MERGE] = "merge",
};

/* What went wrong, with QEMU's words around it. */
static int failed(struct bitmap *b, const struct step *s, int rc)
{
    static const char hint[] = "is inconsistent and cannot be used\n";
    bool add = s->action == BLK_BITMAP_ADD, face = b->tool->face != FACE_LAMINA;
    char *at = strstr(b->error.text, hint);
    if (face && at)
        snprintf(at + sizeof(hint) - 1,
                 sizeof(b->error.text) - (size_t)(at - b->error.text) - sizeof(hint) + 1,
                 "Try block-dirty-bitmap-remove to delete this bitmap from disk");
    else if (face && rc == -ENOTSUP && strstr(b->error.text, "images hold no bitmaps"))
        err_set(&b->error, rc,
                add ? "Can't store persistent bitmaps to %s: Operation not supported"
                    : "Dirty bitmap '%s' not found",
                add ? b->image.text : b->name);
    else if (!face && rc == -ENOENT)
        err_set(&b->error, rc,
                "the image has no bitmap of that name; `lamina bitmap %s` lists them",
                b->image.text);
    return err_prefix(&b->error, "Operation %s on bitmap %s failed", words[s->action], b->name);
}

static int co_steps(struct bitmap *b, struct blk_device *dev, struct blk_device *source)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct step *s = &b->steps[i];
        struct blk_bitmap_change c = {.action = s->action,
                                      .name = b->name,
                                      .granularity = b->granularity,
                                      .source = source ? source : dev,
                                      .source_name = s->source};
        int rc = co_blk_bitmap_change(dev, &c, &b->error);
        if (rc < 0) {
            failed(b, s, rc);
            return rc;
        }
    }
    return 0;
}

static int co_map(struct bitmap *b, struct blk_device *dev)
{
    struct blk_bitmap_extent ext;
    uint64_t start = 0, end = 0; /* of the run that is being gathered */
    b->ranges = json_array();
    for (uint64_t at = 0; at < dev->size; at += ext.bytes) {
        TRY(co_blk_bitmap_read(dev, b->name, at, dev->size - at, &ext, &b->error));
        if (!ext.dirty)
            continue;
        if (end != at || at == 0)
            start = at;
        else
            json_array_remove(b->ranges, json_array_size(b->ranges) - 1);
        end = at + ext.bytes;
        json_array_append_new(b->ranges, json_pack("{s:I, s:I}", "start", (json_int_t)start,
                                                   "length", (json_int_t)(end - start)));
    }
    return 0;
}

static int co_body(struct bitmap *b, struct blk_device *dev)
{
    if (b->map)
        return co_map(b, dev);
    if (b->count == 0)
        return co_blk_bitmap_list(dev, &b->list, &b->listed, &b->error);
    struct blk_device *source = NULL;
    if (b->source.text)
        TRY(co_image_open(b->tool, &b->source, &source, &b->error));
    return co_image_close(source, co_steps(b, dev, source), &b->error);
}

static int co_run(void *arg)
{
    struct bitmap *b = arg;
    struct blk_device *dev;
    TRY(co_image_open(b->tool, &b->image, &dev, &b->error));
    return co_image_end(b->tool, dev, co_body(b, dev), &b->error);
}

/* --- printing --------------------------------------------------------------------------------- */

static json_t *list_json(const struct bitmap *b)
{
    json_t *all = json_array();
    for (size_t i = 0; i < b->listed; i++) {
        const struct blk_bitmap *one = &b->list[i];
        json_t *o = json_object();
        json_object_set_new(o, "name", output_text(one->name));
        json_object_set_new(o, "granularity", json_integer((json_int_t)one->granularity));
        json_object_set_new(o, "enabled", json_boolean(one->enabled));
        json_object_set_new(o, "inconsistent", json_boolean(one->inconsistent));
        json_object_set_new(o, "foreign", json_boolean(one->foreign));
        json_array_append_new(all, o);
    }
    return all;
}

static void print_list(const struct bitmap *b)
{
    char size[32];
    for (size_t i = 0; i < b->listed; i++) {
        const struct blk_bitmap *one = &b->list[i];
        const char *state = one->inconsistent ? "inconsistent (it can only be removed)"
                            : one->foreign    ? "of an unknown kind (it can only be removed)"
                            : one->enabled    ? "enabled"
                                              : "disabled";
        printf("%-24s %10s  %s\n", one->name, output_size(one->granularity, size, sizeof(size)),
               state);
    }
}

static int print(struct bitmap *b)
{
    const json_t *range;
    size_t i;
    bool json = b->tool->output == OUTPUT_JSON;
    if (b->map && json)
        return output_json(take(b->ranges));
    if (b->count == 0 && !b->map && json)
        return output_json(list_json(b));
    if (b->count == 0 && !b->map)
        print_list(b);
    json_array_foreach (b->ranges, i, range)
        printf("%#-18" PRIx64 " %#" PRIx64 "\n",
               (uint64_t)json_integer_value(json_object_get(range, "start")),
               (uint64_t)json_integer_value(json_object_get(range, "length")));
    return 0;
}

/* --- what is told ----------------------------------------------------------------------------- */

static int add_step(struct bitmap *b, int id, const char *value)
{
    if (b->count == b->room) {
        size_t room = b->room ? b->room * 2 : 8;
        struct step *more = mem_resize(b->steps, room * sizeof(*more));
        if (!more) {
            tool_error(b->tool, "out of memory");
            return ARGS_BAD;
        }
        b->steps = more;
        b->room = room;
    }
    b->steps[b->count++] = (struct step){BLK_BITMAP_ADD + (id - ARG_ADD), value};
    return 0;
}

static int option(struct bitmap *b, int id, const char *value)
{
    switch (id) {
    case 'g':
        b->sized = true;
        return size_told(b->tool, "granularity", value, &b->granularity) ? 0 : ARGS_BAD;
    case 'b':
        b->source.text = value;
        return 0;
    case 'F':
        b->source.format = value;
        return 0;
    case 'f':
        b->image.format = value;
        return 0;
    case ARG_MAP:
        b->map = true;
        return 0;
    case ARG_IMAGE_OPTS:
        b->image.image_opts = b->source.image_opts = true;
        return 0;
    default:
        return add_step(b, id, value);
    }
}

static bool has(const struct bitmap *b, enum blk_bitmap_action action)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->steps[i].action == action)
            return true;
    return false;
}

/* The first rule that what was told breaks, or NULL; in QEMU's order. */
static const char *contradiction(const struct bitmap *b, int left)
{
    bool own = b->tool->face == FACE_LAMINA;
    bool looks = own && b->count == 0;
    const struct {
        bool broken;
        const char *sentence;
    } rules[] = {
        {!looks && left != 2, "Expecting filename and bitmap name"},
        {looks && b->map && left != 2, "Expecting filename and bitmap name"},
        {looks && !b->map && left != 1,
         left == 2 ? "Need at least one of --add, --remove, --clear, --enable, --disable, --merge, "
                     "or --map"
                   : "Expecting one image file name"},
        {b->map && b->count, "--map does not go with what changes a bitmap"},
        {b->sized && !has(b, BLK_BITMAP_ADD), "granularity only supported with --add"},
        {b->source.format && !b->source.text, "-F only supported with -b"},
        {b->source.text && !has(b, BLK_BITMAP_MERGE),
         "Merge bitmap source file only supported with --merge"},
    };
    if (!own && b->count == 0)
        return "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return rules[i].sentence;
    return NULL;
}

static int parse(struct bitmap *b, int argc, char **argv)
{
    struct args a;
    const char *value, *sentence;
    char **operands;
    int id, rc = 0;
    if (args_init(&a, b->tool, argc, argv) < 0)
        return ARGS_BAD;
    while (rc == 0 && (id = args_next(&a, &value)) >= 0)
        rc = option(b, id, value);
    int left = args_operands(&a, &operands);
    args_drop(&a);
    if (rc < 0 || id != ARGS_END)
        return rc < 0 ? rc : id;
    sentence = contradiction(b, left);
    if (sentence) {
        tool_error(b->tool, "%s", sentence);
        return ARGS_BAD;
    }
    b->image.text = operands[0];
    b->name = left == 2 ? operands[1] : NULL;
    return ARGS_END;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct bitmap b = {.tool = t, .source = {.trust = TRUST_NOTHING, .flags = BLK_OPEN_NO_BACKING}};
    int id = parse(&b, argc, argv), rc = id == ARGS_HELP ? 0 : 1;
    if (id == ARGS_END) {
        bool write = b.count > 0;
        b.image.trust = write ? TRUST_WRITE : TRUST_NOTHING;
        b.image.flags = BLK_OPEN_NO_BACKING | (write ? BLK_OPEN_WRITE : 0);
        rc = tool_run(t, 1, co_run, &b);
        rc = rc < 0 ? tool_failed(t, &b.error) : print(&b);
    }
    blk_bitmaps_drop(b.list, b.listed);
    json_decref(b.ranges);
    mem_free(b.steps);
    return rc;
}

const struct command bitmap_command = {
    .name = "bitmap",
    .run = run,
    .usage = "bitmap [OPTION]... IMAGE [BITMAP]",
    .summary = "Dirty bitmaps inside an image: which parts of the disk were written to",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "Without options the image's bitmaps are listed. Several changes are made in the order "
        "that they\nare told. One that was in use when a program died is inconsistent: it "
        "misses writes, and can\nonly be removed.\n"
        "\n"
        "  lamina bitmap --add disk.qcow2 monday\n"
        "  lamina bitmap disk.qcow2\n"
        "  lamina bitmap --map disk.qcow2 monday\n"
        "  lamina bitmap --add --disable --merge monday --merge tuesday disk.qcow2 both\n"
        "  lamina bitmap --merge monday -b disk.qcow2 copy.qcow2 monday",
};

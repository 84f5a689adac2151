/* SPDX-License-Identifier: BSD-3-Clause */
/* resize.c - an image's virtual size: larger, or with --shrink smaller; with --grow a partition in
 * it becomes larger too. */
#include "tools/image.h"
#include "tools/output.h"

enum { ARG_SHRINK = ARG_LONG, ARG_PREALLOCATION, ARG_GROW };

static const struct arg_desc options[] = {
    {'f', "format", "FORMAT", "the image's format", 0, false},
    {ARG_SHRINK, "shrink", NULL, "allow it to become smaller: what lies behind is lost", 0, false},
    {ARG_PREALLOCATION, "preallocation", "off|falloc|full", "reserve the space that is added", 0,
     false},
    {ARG_GROW, "grow", NULL,
     "let the partition pN (else the last one) take the space behind it; SIZE may be left out",
     FACE_LAMINA, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};

struct resize {
    struct tool *tool;
    struct image image;
    struct image_size to;
    bool grow;
    const char *part; /* that grows; NULL: the last one */
    uint64_t part_bytes;
    const char *size_text;
    int sign; /* of what is told: +1, -1, or 0: the size itself */
    uint64_t by, before;
    struct blk_error error;
};

static int target_size(struct resize *r, uint64_t now)
{
    bool ok = true;
    uint64_t *after = &r->to.bytes;
    r->before = now;
    *after = r->by;
    if (r->sign > 0)
        ok = add_u64(now, r->by, after);
    else if (r->sign < 0)
        ok = r->by <= now, *after = ok ? now - r->by : 0;
    if (!ok || *after == 0 || *after > INT64_MAX)
        return err_set(&r->error, -EINVAL, "New image size must be positive");
    if (*after <= now && r->to.preallocation != PREALLOC_OFF)
        return err_set(&r->error, -EINVAL, "Preallocation can only be used for growing images");
    return 0;
}

#define ZERO_BYTES (1 * MiB)

/* Writes zeroes over what was added: space that is really there. */
static int co_fill(struct blk_device *dev, uint64_t from, struct blk_error *e)
{
    uint8_t *zeroes = buf_get(ZERO_BYTES);
    int rc = 0;
    if (!zeroes)
        return err_set(e, -ENOMEM, "out of memory");
    memset(zeroes, 0, ZERO_BYTES);
    for (uint64_t at = from; rc == 0 && at < dev->size; at += ZERO_BYTES)
        rc = co_blk_write_buf(dev, at, zeroes, MIN(ZERO_BYTES, dev->size - at), 0);
    buf_put(zeroes, ZERO_BYTES);
    return rc < 0 ? err_errno(e, rc, "the space that was added cannot be filled") : 0;
}

static int co_reserve(struct blk_device *dev, uint64_t from, enum preallocation how,
                      struct blk_error *e)
{
    if (how == PREALLOC_OFF)
        return 0;
    if (how == PREALLOC_FULL)
        return co_fill(dev, from, e);
    int rc = co_blk_write_zeroes(dev, from, dev->size - from, 0); /* keeps the space */
    return rc < 0 ? err_errno(e, rc, "the space that was added cannot be reserved") : 0;
}

int co_image_resize(const struct tool *t, struct blk_device *dev, const struct image_size *s,
                    struct blk_error *e)
{
    uint64_t before = dev->size;
    if (s->preallocation == PREALLOC_METADATA && strcmp(dev->driver->name, "raw") == 0)
        return err_set(e, -ENOTSUP, "Unsupported preallocation mode 'metadata'");
    if (s->bytes < before && !s->shrink)
        return err_set(e, -EINVAL, "%s",
                       tool_words(t,
                                  "it would become smaller, and what lies behind its new end "
                                  "be lost: --shrink allows that",
                                  "Use the --shrink option to perform a shrink operation."));
    if (t->face != FACE_LAMINA && !dev->driver->is_filter && s->bytes % 512)
        return err_set(e, -EINVAL, "The new size must be a multiple of 512");
    int rc = co_blk_resize(dev, s->bytes, s->shrink, e);
    if (rc == -ENOTSUP && t->face != FACE_LAMINA)
        return err_set(e, rc, "Image format driver does not support resize");
    TRY(rc);
    TRY(co_reserve(dev, before, s->preallocation, e));
    rc = co_blk_flush(dev);
    return rc < 0 ? err_errno(e, rc, "the new size cannot be made durable") : 0;
}

/* The table in the image takes in what was added, and so does a partition. */
static int co_grow(struct resize *r, struct blk_device *dev)
{
    struct resolver resolver;
    struct blk_device *table;
    TRY(co_tool_resolver(r->tool, r->image.trust, NULL, &resolver, &r->error));
    int rc = co_resolver_container(&resolver, dev, &table, &r->error);
    resolver_drop(&resolver);
    if (rc == -ENOENT)
        return err_set(&r->error, rc, "%s holds no partitions that could grow", r->image.text);
    TRY(rc);
    rc = co_blk_inner_grow(table, r->part, &r->part_bytes, &r->error);
    return co_image_end(r->tool, table, rc, &r->error);
}

static int co_run(void *arg)
{
    struct resize *r = arg;
    struct blk_device *dev;
    TRY(co_image_open(r->tool, &r->image, &dev, &r->error));
    int rc = r->size_text ? target_size(r, dev->size) : 0;
    if (rc == 0 && r->size_text)
        rc = co_image_resize(r->tool, dev, &r->to, &r->error);
    if (rc == 0 && r->grow)
        rc = co_grow(r, dev);
    return co_image_end(r->tool, dev, rc, &r->error);
}

/* --- what is told -------------------------------------------------------------------------------
 */

bool preallocation_told(const struct tool *t, const char *value, enum preallocation *out)
{
    static const char *const modes[] = {"off", "metadata", "falloc", "full"};
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        if (strcmp(value, modes[i]) == 0) {
            *out = (enum preallocation)i;
            return true;
        }
    }
    tool_error(t, "Invalid preallocation mode '%s'", value);
    return false;
}

static int option(void *verb, int id, const char *value)
{
    struct resize *r = verb;
    return preallocation_told(r->tool, value, &r->to.preallocation) ? 0 : ARGS_BAD;
}

/* The last word is the size. -1G looks like options, so it is taken off before they are read. */
static int take_size(struct resize *r, int *argc, char **argv)
{
    const char *word = *argc >= 3 ? argv[*argc - 1] : NULL;
    if (!word || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return 0;
    --*argc;
    r->sign = word[0] == '+' ? 1 : word[0] == '-' ? -1 : 0;
    r->size_text = word + (r->sign ? 1 : 0);
    return 0;
}

static int size_of_text(struct resize *r)
{
    struct blk_error e = {0};
    if (opts_parse_size(r->size_text, &r->by, &e) == 0 && r->by <= INT64_MAX)
        return 0;
    if (r->tool->face == FACE_LAMINA)
        return size_told(r->tool, "size", r->size_text, &r->by) ? 0 : ARGS_BAD;
    tool_error(r->tool, "Parameter 'size' expects a non-negative number below 2^64\n"
                        "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
                        "peta-\nand exabytes, respectively.");
    return ARGS_BAD;
}

static bool is_size(const char *text)
{
    uint64_t bytes;
    return opts_parse_size(text, &bytes, NULL) == 0;
}

/* With --grow: [pN] IMAGE [SIZE]. *word: what was taken for a size. */
static int grow_operands(struct resize *r, struct command_line *line, char *word)
{
    if (r->size_text && !is_size(r->size_text)) { /* it is the image */
        r->size_text = NULL;
        line->argv[line->argc++] = word;
    }
    if (line->argc == 2) {
        r->part = line->argv[0];
        line->argv++;
        line->argc--;
    }
    return line->argc == 1 && (r->size_text || !r->to.shrink) ? 0 : -EINVAL;
}

static int parse(struct resize *r, int argc, char **argv)
{
    const struct arg_place places[] = {IMAGE_PLACES(&r->image),
                                       {ARG_SHRINK, NULL, &r->to.shrink},
                                       {ARG_GROW, NULL, &r->grow},
                                       {0, NULL, NULL}};
    char *last = argv[argc - 1];
    take_size(r, &argc, argv);
    struct command_line line = {argc, argv, places, option, r};
    int id = args_read(r->tool, &line);
    if (id != ARGS_END)
        return id;
    if (r->grow && grow_operands(r, &line, last) < 0) {
        tool_misuse(r->tool, "Expecting [pN] IMAGE [+SIZE]");
        return ARGS_BAD;
    }
    if (!r->grow && (!r->size_text || line.argc != 1)) {
        const char *theirs =
            r->size_text ? "Expecting image file name and size" : "Not enough arguments";
        tool_misuse(r->tool, "%s", tool_words(r->tool, "Expecting IMAGE [+|-]SIZE", theirs));
        return ARGS_BAD;
    }
    r->image.text = line.argv[0];
    return r->size_text && size_of_text(r) < 0 ? ARGS_BAD : ARGS_END;
}

static int failed(const struct resize *r)
{
    int rc = tool_failed(r->tool, &r->error);
    if (strncmp(r->error.text, "Use the --shrink", 16) == 0)
        tool_error(r->tool, "warning: Shrinking an image will delete all data beyond the shrunken "
                            "image's end. Before performing such an operation, make sure there is "
                            "no important data there.");
    return rc;
}

static int run(struct tool *t, int argc, char **argv)
{
    struct resize r = {.tool = t, .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
    int id = parse(&r, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (tool_run(t, 1, co_run, &r) < 0)
        return failed(&r);
    if (!t->quiet && r.size_text)
        puts("Image resized.");
    if (!t->quiet && r.grow)
        printf("The partition has %" PRIu64 " bytes now.\n", r.part_bytes);
    return 0;
}

const struct command resize_command = {
    .name = "resize",
    .run = run,
    .usage = "resize [OPTION]... IMAGE [+|-]SIZE",
    .summary = "Change an image's virtual size",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "SIZE is the new size; +SIZE is added, -SIZE taken away. Make the file system in it "
        "smaller\nbefore the image.\n"
        "\n"
        "With --grow the table of partitions takes in what was added, and pN or the last\n"
        "partition reaches to the next one or the end. The file system in it is then grown by\n"
        "its own tool.\n"
        "\n"
        "  lamina resize disk.qcow2 +10G\n"
        "  lamina resize --grow p2 disk.qcow2 +10G\n"
        "  lamina resize --grow disk.qcow2\n"
        "  lamina resize -f raw --shrink disk.img 5G",
};

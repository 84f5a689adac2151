/* SPDX-License-Identifier: BSD-3-Clause */
/* check.c - is an image sound, and repairing it. What it stands on is not opened: an image's own
 * metadata is what is checked.
 *
 * Exit status: 0 sound, 1 the check failed, 2 corrupt, 3 only leaks, 63 the format has no check. */
#include "tools/image.h"
#include "tools/output.h"

enum { ARG_DATA = ARG_LONG };
enum { EXIT_FAILED = 1, EXIT_CORRUPT = 2, EXIT_LEAKS = 3, EXIT_NO_CHECKS = 63 };

static const struct arg_desc options[] = {
    ARG_IMAGE_FORMAT,
    {'r', "repair", "leaks|all", "give leaked clusters back, or repair everything", 0, false},
    {ARG_DATA, "data", NULL, "read and inflate all data as well", FACE_LAMINA, false},
    {'T', "cache", "MODE", "none, writeback, writethrough, directsync or unsafe", 0, false},
    {'T', "source-cache", "MODE", NULL, FACE_IMG, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_QUIET,
    ARG_FORCE_SHARE,
    ARG_END};

struct check {
    struct tool *tool;
    struct image image;
    bool fix_leaks, fix_errors, data;
    struct blk_check found;
    bool no_checks;
    bool mends;         /* what it can be opened for */
    const char *format; /* static: a driver's name */
    struct blk_error error;
};

static void say(struct blk_check *c, const char *sentence)
{
    fprintf(stderr, "%s\n", sentence);
}

static bool fixed(const struct blk_check *c)
{
    return c->leaks_fixed || c->corruptions_fixed;
}

static void print_fixed(const struct check *c)
{
    if (c->tool->quiet || c->tool->output == OUTPUT_JSON)
        return;
    printf("The following inconsistencies were found and repaired:\n\n"
           "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
           "Double checking the fixed image now...\n",
           c->found.leaks_fixed, c->found.corruptions_fixed);
    fflush(stdout);
}

static int co_check(struct check *c, struct blk_device *dev)
{
    c->found = (struct blk_check){.fix_leaks = c->fix_leaks,
                                  .fix_errors = c->fix_errors,
                                  .data = c->data && !c->fix_leaks,
                                  .say = say,
                                  .arg = c};
    TRY(co_blk_check(dev, &c->found, &c->error));
    if (!fixed(&c->found) && !(c->data && c->fix_leaks))
        return 0;
    if (fixed(&c->found))
        print_fixed(c);
    struct blk_check again = {.data = c->data, .say = say, .arg = c};
    TRY(co_blk_check(dev, &again, &c->error));
    again.leaks_fixed = c->found.leaks_fixed;
    again.corruptions_fixed = c->found.corruptions_fixed;
    c->found = again;
    return 0;
}

/* In the faces no more is told than QEMU does. */
static void leave_out(struct check *c, const struct blk_driver *driver)
{
    struct blk_check *f = &c->found;
    if (c->tool->face != FACE_LAMINA && driver->check_is_bare)
        f->image_end = f->total_clusters = f->allocated_clusters = f->fragmented_clusters = 0;
}

static int co_run(void *arg)
{
    struct check *c = arg;
    struct blk_device *dev;
    TRY(co_image_open(c->tool, &c->image, &dev, &c->error));
    c->format = dev->driver->name;
    c->mends = dev->driver->co_write != NULL;
    int rc = co_check(c, dev);
    if (rc < 0 && rc != -ENOTSUP)
        blk_next(&c->error, BLK_NEXT_SALVAGE, c->image.text);
    leave_out(c, dev->driver);
    c->no_checks = rc == -ENOTSUP && !dev->driver->co_check;
    return co_image_end(c->tool, dev, rc, &c->error);
}

/* --- printing
 * ------------------------------------------------------------------------------------- */

static void print_human(const struct blk_check *c)
{
    if (!c->corruptions && !c->leaks && !c->check_errors)
        puts("No errors were found on the image.");
    if (c->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\nData may be corrupted, or further "
               "writes to the image may corrupt it.\n",
               c->corruptions);
    if (c->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\nThis means waste of disk "
               "space, but no harm to data.\n",
               c->leaks);
    if (c->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", c->check_errors);
    if (c->read_errors || c->bad_packed)
        printf("\n%" PRIu64 " clusters could not be read, %" PRIu64
               " compressed clusters could not be inflated.\n",
               c->read_errors, c->bad_packed);
    double allocated = (double)MAX(c->allocated_clusters, 1);
    if (c->total_clusters && c->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64
               " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               c->allocated_clusters, c->total_clusters,
               (double)c->allocated_clusters * 100.0 / (double)c->total_clusters,
               (double)c->fragmented_clusters * 100.0 / allocated,
               (double)c->compressed_clusters * 100.0 / allocated);
    if (c->image_end)
        printf("Image end offset: %" PRIu64 "\n", c->image_end);
}

/* check-errors is always there, the others where they are not zero, as in QEMU's. */
static int print_json(const struct check *c)
{
    const struct blk_check *f = &c->found;
    const struct {
        const char *key;
        uint64_t value;
    } facts[] = {
        {"image-end-offset", f->image_end},
        {"total-clusters", f->total_clusters},
        {"allocated-clusters", f->allocated_clusters},
        {"fragmented-clusters", f->fragmented_clusters},
        {"compressed-clusters", f->compressed_clusters},
        {"corruptions", f->corruptions},
        {"leaks", f->leaks},
        {"corruptions-fixed", f->corruptions_fixed},
        {"leaks-fixed", f->leaks_fixed},
        {"read-errors", f->read_errors},
        {"bad-compressed", f->bad_packed},
    };
    json_t *o = json_object();
    json_object_set_new(o, "filename", output_text(c->image.text));
    json_object_set_new(o, "format", json_string(c->format));
    json_object_set_new(o, "check-errors", json_integer((json_int_t)f->check_errors));
    for (size_t i = 0; i < ARRAY_LEN(facts); i++)
        if (facts[i].value)
            json_object_set_new(o, facts[i].key, json_integer((json_int_t)facts[i].value));
    return output_json(o);
}

/* What a person can do about what was found. */
static void say_next(const struct check *c)
{
    const struct blk_check *f = &c->found;
    struct blk_error e = {0};
    char advice[200];
    if (c->tool->quiet || (!f->corruptions && !f->leaks && !f->check_errors))
        return;
    if (!c->mends)
        blk_next(&e, "only another copy of FILE has what is damaged here: get it again",
                 c->image.text);
    else if (f->check_errors || (f->corruptions && c->fix_errors))
        blk_next(&e, BLK_NEXT_SALVAGE, c->image.text);
    snprintf(advice, sizeof(advice),
             f->corruptions
                 ? "`lamina check -f %s -r all FILE` mends what can be; copy FILE before, if it is "
                   "the only one"
                 : "`lamina check -f %s -r leaks FILE` gives the space back",
             c->format);
    blk_next(&e, advice, c->image.text);
    tool_next(c->tool, e.next);
}

static int no_checks(const struct check *c)
{
    struct blk_error e = {0};
    tool_error(c->tool,
               tool_words(c->tool, "%s: images of this format have nothing that could be checked",
                          "This image format does not support checks"),
               c->image.text);
    blk_next(&e, "`lamina hash FILE` reads all of it, and says what cannot be read", c->image.text);
    tool_next(c->tool, e.next);
    return EXIT_NO_CHECKS;
}

static int result(const struct check *c, int rc)
{
    if (c->no_checks)
        return no_checks(c);
    if (rc < 0)
        return tool_failed(c->tool, &c->error);
    if (c->tool->output == OUTPUT_JSON && print_json(c))
        return EXIT_FAILED;
    if (c->tool->output == OUTPUT_HUMAN && !c->tool->quiet)
        print_human(&c->found);
    say_next(c);
    return c->found.check_errors  ? EXIT_FAILED
           : c->found.corruptions ? EXIT_CORRUPT
           : c->found.leaks       ? EXIT_LEAKS
                                  : 0;
}

/* --- what is told -------------------------------------------------------------------------------
 */

static int option(void *verb, int id, const char *value)
{
    struct check *c = verb;
    if (id == 'T')
        return cache_told(c->tool, "source cache", c->image.cache = value) ? 0 : ARGS_BAD;
    c->fix_leaks = true;
    c->fix_errors = strcmp(value, "all") == 0;
    if (c->fix_errors || strcmp(value, "leaks") == 0)
        return 0;
    tool_misuse(c->tool,
                tool_words(c->tool, "-r is leaks or all, not '%s'",
                           "Unknown option value for -r (expecting 'leaks' or 'all'): %s"),
                value);
    return ARGS_BAD;
}

static int parse(struct check *c, int argc, char **argv)
{
    const struct arg_place places[] = {
        IMAGE_PLACES(&c->image), {ARG_DATA, NULL, &c->data}, {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, c};
    return image_read(c->tool, &line, &c->image);
}

static int run(struct tool *t, int argc, char **argv)
{
    struct check c = {.tool = t};
    int id = parse(&c, argc, argv);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : EXIT_FAILED;
    c.image.trust = c.fix_leaks ? TRUST_WRITE : TRUST_READ;
    c.image.flags = BLK_OPEN_CHECK | BLK_OPEN_NO_BACKING | (c.fix_leaks ? BLK_OPEN_WRITE : 0);
    return result(&c, tool_run(t, 1, co_run, &c));
}

const struct command check_command = {
    .name = "check",
    .run = run,
    .usage = "check [OPTION]... IMAGE",
    .summary = "Say whether an image's metadata is sound; repair it with -r",
    .faces = FACE_LAMINA | FACE_IMG,
    .options = options,
    .notes =
        "Exit status: 0 it is sound (now), 1 the check failed, 2 it is corrupt, 3 it has leaks\n"
        "(space that nothing uses, no harm to data), 63 its format has nothing to check.\n"
        "What -r cannot mend, `lamina convert --salvage` leaves out of a new image.\n"
        "\n"
        "  lamina check disk.qcow2\n"
        "  lamina check -r all disk.qcow2\n"
        "  lamina check --data disk.qcow2",
};

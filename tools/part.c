/* SPDX-License-Identifier: BSD-3-Clause */
/* part.c - `lamina part VERB`: partition tables in any image, in the words of sfdisk and sgdisk.
 *
 * The image is opened as the guest sees it, the table found in its contents; what is changed is the
 * driver's matter (its own options, its own order of writes). */
#include "tools/image.h"
#include "tools/occupied.h"
#include "tools/output.h"

enum { ARG_TABLE = ARG_LONG, ARG_SECTOR, ARG_UUID, ARG_FORCE, ARG_START, ARG_SIZE };

struct part_verb {
    struct tool *tool;
    struct image image;
    const char *table; /* create: the driver that makes it */
    bool force;
    char **names; /* delete */
    int name_count;
    json_t *told; /* options of the driver; owned */
    struct resolver resolver;
    json_t *facts; /* list: what info says; owned */
    char *made;    /* add: its name; owned */
    struct blk_error error;
};

/* --- with the image open ------------------------------------------------------------------------
 */

/* @co_use(@v, image), then both are closed. */
static int co_with_image(struct part_verb *v,
                         int (*co_use)(struct part_verb *v, struct blk_device *disk))
{
    struct blk_device *disk;
    TRY(co_tool_resolver(v->tool, v->image.trust, NULL, &v->resolver, &v->error));
    int rc = co_image_open(v->tool, &v->image, &disk, &v->error);
    if (rc == 0)
        rc = co_image_close(disk, co_use(v, disk), &v->error);
    resolver_drop(&v->resolver);
    return rc;
}

/* @co_use(@v, table), where the table is what is found in @disk. */
static int co_with_table(struct part_verb *v, struct blk_device *disk,
                         int (*co_use)(struct part_verb *v, struct blk_device *table))
{
    struct blk_device *table;
    int rc = co_resolver_container(&v->resolver, disk, &table, &v->error);
    if (rc == -ENOENT)
        return err_set(&v->error, rc, "%s holds no partition table; `%s part create` makes one",
                       v->image.text, v->tool->called);
    return rc < 0 ? rc : co_image_close(table, co_use(v, table), &v->error);
}

/* The driver's options out of what was told; mem_free() it after opts_drop(). NULL: it says why. */
static struct opts *parse_told(struct part_verb *v, const struct opt_desc *table)
{
    struct opts *o = mem_zalloc(sizeof(*o));
    static const struct opt_desc nothing[] = {{0}};
    if (!o)
        err_set(&v->error, -ENOMEM, "out of memory");
    else if (opts_parse(table ? table : nothing, v->told, o, &v->error) < 0)
        mem_free(take(o));
    return o;
}

static int co_create_on(struct part_verb *v, struct blk_device *disk)
{
    const struct blk_driver *d = blk_find_driver(blk_drivers, v->table ? v->table : "gpt");
    if (!d || d->is_format || !d->co_create || !d->co_inner_add)
        return err_set(&v->error, -EINVAL, "there is no table '%s' that can be made", v->table);
    if (!v->force)
        TRY(co_refuse_occupied(v->tool, disk, "--force", &v->error));
    struct opts *o = parse_told(v, d->create_options);
    if (!o)
        return v->error.rc;
    struct blk_create c = {.file = disk, .opts = o, .size = disk->size, .name = v->image.text};
    int rc = d->co_create(&c, &v->error);
    opts_drop(o);
    mem_free(o);
    return rc;
}

static int co_create(void *arg)
{
    return co_with_image(arg, co_create_on);
}

static int co_add_to(struct part_verb *v, struct blk_device *table)
{
    struct opts *o = parse_told(v, table->driver->inner_options);
    if (!o)
        return v->error.rc;
    int rc = co_blk_inner_add(table, o, &v->made, &v->error);
    opts_drop(o);
    mem_free(o);
    return rc;
}

static int co_add_on(struct part_verb *v, struct blk_device *disk)
{
    return co_with_table(v, disk, co_add_to);
}

static int co_add(void *arg)
{
    return co_with_image(arg, co_add_on);
}

static int co_delete_from(struct part_verb *v, struct blk_device *table)
{
    for (int i = 0; i < v->name_count; i++)
        TRY(co_blk_inner_delete(table, v->names[i], &v->error));
    return 0;
}

static int co_delete_on(struct part_verb *v, struct blk_device *disk)
{
    return co_with_table(v, disk, co_delete_from);
}

static int co_delete(void *arg)
{
    return co_with_image(arg, co_delete_on);
}

static int co_list_table(struct part_verb *v, struct blk_device *table)
{
    struct blk_info info = {0};
    TRY(co_blk_info(table, &info, &v->error));
    v->facts = take(info.specific);
    blk_info_drop(&info);
    return 0;
}

static int co_list_on(struct part_verb *v, struct blk_device *disk)
{
    return co_with_table(v, disk, co_list_table);
}

static int co_list(void *arg)
{
    return co_with_image(arg, co_list_on);
}

/* --- what is told -------------------------------------------------------------------------------
 */

/* Options that go to the driver by these names. */
static const struct {
    int id;
    const char *key;
} keys[] = {{ARG_SECTOR, "sector-size"}, {ARG_UUID, "uuid"}, {'n', "number"}, {ARG_START, "start"},
            {ARG_SIZE, "size"},          {'t', "type"},      {'c', "label"}};

static int option(void *verb, int id, const char *value)
{
    struct part_verb *v = verb;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (keys[i].id == id &&
            json_object_set_new(v->told, keys[i].key, json_from_text(value)) < 0)
            return ARGS_BAD;
    return 0;
}

/* Reads the command line and runs @co_fn; gives the exit status, or -1: go on printing. */
static int part_run(struct part_verb *v, int argc, char **argv, int (*co_fn)(void *arg), bool named)
{
    const struct arg_place places[] = {IMAGE_PLACES(&v->image),
                                       {ARG_TABLE, &v->table, NULL},
                                       {ARG_FORCE, NULL, &v->force},
                                       {0, NULL, NULL}};
    struct command_line line = {argc, argv, places, option, v};
    v->told = json_object();
    int id = v->told ? args_read(v->tool, &line) : ARGS_BAD;
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < 1 + named || (!named && line.argc > 1))
        return tool_misuse(v->tool, named ? "Expecting one image and names of partitions"
                                          : "Expecting one image file name");
    v->image.text = line.argv[0];
    v->names = line.argv + 1;
    v->name_count = line.argc - 1;
    if (tool_run(v->tool, 1, co_fn, v) < 0)
        return tool_failed(v->tool, &v->error);
    return -1;
}

static int part_end(struct part_verb *v, int rc)
{
    json_decref(v->told);
    json_decref(v->facts);
    mem_free(v->made);
    return rc < 0 ? 0 : rc;
}

static struct part_verb writing(struct tool *t)
{
    return (struct part_verb){.tool = t, .image = {.trust = TRUST_WRITE, .flags = BLK_OPEN_WRITE}};
}

static int run_create(struct tool *t, int argc, char **argv)
{
    struct part_verb v = writing(t);
    return part_end(&v, part_run(&v, argc, argv, co_create, false));
}

static int run_delete(struct tool *t, int argc, char **argv)
{
    struct part_verb v = writing(t);
    return part_end(&v, part_run(&v, argc, argv, co_delete, true));
}

static int run_add(struct tool *t, int argc, char **argv)
{
    struct part_verb v = writing(t);
    int rc = part_run(&v, argc, argv, co_add, false);
    if (rc < 0 && !t->quiet)
        puts(v.made);
    return part_end(&v, rc);
}

static void print_list(const json_t *facts)
{
    size_t i;
    json_t *p;
    printf("table: %s, sectors of %" JSON_INTEGER_FORMAT " bytes\n",
           json_string_value(json_object_get(facts, "table")),
           json_integer_value(json_object_get(facts, "sector-size")));
    printf("%-5s %16s %16s  %-22s %s\n", "name", "start", "bytes", "type", "label");
    json_array_foreach (json_object_get(facts, "partitions"), i, p) {
        const char *title = json_string_value(json_object_get(p, "type-name"));
        const char *label = json_string_value(json_object_get(p, "label"));
        printf("%-5s %16" JSON_INTEGER_FORMAT " %16" JSON_INTEGER_FORMAT "  %-22s %s\n",
               json_string_value(json_object_get(p, "name")),
               json_integer_value(json_object_get(p, "start")),
               json_integer_value(json_object_get(p, "size")),
               title ? title : json_string_value(json_object_get(p, "type")), label ? label : "");
    }
}

static int run_list(struct tool *t, int argc, char **argv)
{
    struct part_verb v = {.tool = t, .image = {.trust = TRUST_READ}};
    int rc = part_run(&v, argc, argv, co_list, false);
    if (rc < 0 && t->output == OUTPUT_JSON)
        rc = output_json(take(v.facts));
    else if (rc < 0)
        print_list(v.facts);
    return part_end(&v, rc);
}

/* --- the table of verbs -------------------------------------------------------------------------
 */

#define ARG_FORMAT_TOLD                                         \
    {                                                           \
        'f', "format", "FORMAT", "the image's format", 0, false \
    }

static const struct arg_desc create_options[] = {
    ARG_FORMAT_TOLD,
    {ARG_TABLE, "table", "TABLE", "the kind of table: gpt (the default)", 0, false},
    {ARG_SECTOR, "sector-size", "512|4096", "bytes in a sector of the disk", 0, false},
    {ARG_UUID, "uuid", "UUID", "of the disk (else a random one)", 0, false},
    {ARG_FORCE, "force", NULL, "write over what is there: file systems, partitions, volumes", 0,
     false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_END};

static const struct command create = {
    .name = "part create",
    .run = run_create,
    .usage = "part create [OPTION]... IMAGE",
    .summary = "Make an empty partition table",
    .faces = FACE_LAMINA,
    .options = create_options,
    .notes = "  lamina create disk.qcow2 20G && lamina part create disk.qcow2",
};

static const struct arg_desc add_options[] = {
    ARG_FORMAT_TOLD,
    {'n', "number", "N", "it becomes pN (else the first free number)", 0, false},
    {ARG_START, "start", "BYTES", "where it begins (else where there is room)", 0, false},
    {ARG_SIZE, "size", "BYTES", "its length (else all of the largest room)", 0, false},
    {'t', "type", "TYPE", "linux, swap, lvm, raid, uefi, ...; a code as 8300; or a GUID", 0, false},
    {'c', "label", "NAME", "its name", 0, false},
    {ARG_UUID, "uuid", "UUID", "its UUID (else a random one)", 0, false},
    ARG_IMAGE_OPTIONS,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};

static const struct command add = {
    .name = "part add",
    .run = run_add,
    .usage = "part add [OPTION]... IMAGE",
    .summary = "Add a partition and print its name",
    .faces = FACE_LAMINA,
    .options = add_options,
    .notes = "  lamina part add --size 512M -t uefi -c boot disk.qcow2\n"
             "  lamina part add disk.qcow2\n"
             "  lamina convert root.img disk.qcow2//p2 -n",
};

static const struct arg_desc delete_options[] = {ARG_FORMAT_TOLD, ARG_IMAGE_OPTIONS, ARG_SECRET,
                                                 ARG_END};

static const struct command delete = {
    .name = "part delete",
    .run = run_delete,
    .usage = "part delete [OPTION]... IMAGE pN...",
    .summary = "Take partitions out of the table",
    .faces = FACE_LAMINA,
    .options = delete_options,
    .notes = "  lamina part delete disk.qcow2 p2",
};

static const struct arg_desc list_options[] = {ARG_IMAGE_FORMAT, ARG_IMAGE_OPTIONS, ARG_SECRET,
                                               ARG_OUTPUT,       ARG_FORCE_SHARE,   ARG_END};

static const struct command list = {
    .name = "part list",
    .run = run_list,
    .usage = "part list [OPTION]... IMAGE",
    .summary = "Print the partition table",
    .faces = FACE_LAMINA,
    .options = list_options,
    .notes = "  lamina part list disk.qcow2\n"
             "  lamina part list --output json disk.qcow2",
};

static const struct command *const verbs[] = {&create, &add, &delete, &list, NULL};

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc options[] = {ARG_END};

const struct command part_command = {
    .name = "part",
    .run = run,
    .usage = "part VERB [OPTION]... ...",
    .summary = "Partition tables: made, changed, listed",
    .faces = FACE_LAMINA,
    .options = options,
    .verbs = verbs,
};

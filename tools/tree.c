/* SPDX-License-Identifier: BSD-3-Clause */
/* tree.c - `lamina tree FILE...|FOLDER`, or `lamina FILE`: what is inside, drawn as a tree, each
 * with the spec that names it.
 *
 * The heap (block/heap.h) is found out on a coroutine and turned into JSON facts; printing, for
 * people too, is from those. */
#include <stdlib.h>
#include <unistd.h>

#include "block/heap.h"
#include "tools/filesystem.h"
#include "tools/image.h"
#include "tools/output.h"

static const struct arg_desc options[] = {ARG_OUTPUT, ARG_SECRET, ARG_FORCE_SHARE, ARG_END};

struct tree {
    struct tool *tool;
    char **told;
    int count;
    json_t *roots; /* owned */
    struct blk_error error;
};

/* --- facts -------------------------------------------------------------------------------------
 */

static void put_text(json_t *o, const char *key, const char *text)
{
    if (text && *text)
        json_object_set_new(o, key, json_from_text(text));
}

/* The images behind @dev, the nearest first. */
static json_t *backing_facts(struct blk_device *dev)
{
    json_t *list = json_array();
    for (dev = blk_child(dev, "backing"); list && dev; dev = blk_child(dev, "backing"))
        json_array_append_new(list, json_pack("{s:o, s:s, s:I}", "name",
                                              json_from_text(dev->name ? dev->name : ""), "format",
                                              dev->driver->name, "size", (json_int_t)dev->size));
    return list;
}

static bool has_inside(const struct heap *h, size_t at)
{
    for (size_t k = at + 1; k < h->count; k++)
        if (h->items[k].parent == at)
            return true;
    return false;
}

static void co_put_contents(const struct heap *h, size_t at, json_t *facts)
{
    const struct heap_item *i = &h->items[at];
    struct filesystem fs;
    if (i->container || i->member_of || i->dev->driver->only_inner || has_inside(h, at))
        return;
    co_filesystem_of(i->dev, &fs);
    put_text(facts, "filesystem", fs.type);
    put_text(facts, "label", fs.label);
    put_text(facts, "uuid", fs.uuid);
}

static json_t *co_item_facts(const struct heap *h, size_t at)
{
    const struct heap_item *i = &h->items[at];
    json_t *facts =
        json_pack("{s:o, s:s, s:o, s:I}", "name", json_from_text(i->name), "kind", i->kind, "spec",
                  json_from_text(i->spec), "size", (json_int_t)i->bytes);
    if (!facts)
        return NULL;
    put_text(facts, "member", i->what);
    if (i->set != HEAP_NONE)
        put_text(facts, "member-of", h->items[i->set].spec);
    if (i->error.rc < 0)
        put_text(facts, "error", i->error.text);
    if (!i->dev)
        return facts;
    if (i->parent == HEAP_NONE && !i->dev->driver->only_inner)
        put_text(facts, "format", i->dev->driver->name);
    if (i->container)
        put_text(facts, "holds", i->container->driver->name);
    if (blk_child(i->dev, "backing"))
        json_object_set_new(facts, "backing", backing_facts(i->dev));
    co_put_contents(h, at, facts);
    return facts;
}

/* Items follow those that they are inside of. */
static int co_facts(struct tree *t, const struct heap *h)
{
    json_t **made = mem_array(MAX(h->count, 1), sizeof(*made));
    if (!made)
        return err_set(&t->error, -ENOMEM, "out of memory");
    int rc = 0;
    for (size_t k = 0; k < h->count && rc == 0; k++) {
        size_t parent = h->items[k].parent;
        json_t *into = t->roots;
        made[k] = co_item_facts(h, k);
        if (parent != HEAP_NONE) {
            into = json_object_get(made[parent], "inside");
            if (!into && json_object_set_new(made[parent], "inside", into = json_array()) < 0)
                into = NULL;
        }
        if (!made[k] || json_array_append_new(into, made[k]) < 0)
            rc = err_set(&t->error, -ENOMEM, "out of memory");
    }
    mem_free(made);
    return rc;
}

static int co_add_told(struct tree *t, struct heap *h, const char *told)
{
    struct host_stat st;
    if (co_host_stat(t->tool->host, told, &st) < 0 || st.type != HOST_FILE_DIRECTORY)
        return co_heap_add(h, told, &t->error);
    if (t->count == 1)
        h->folder = told;
    return co_heap_add_folder(h, told, &t->error);
}

static int co_find(struct tree *t, struct resolver *r)
{
    struct heap h = {.r = r};
    int rc = 0;
    for (int i = 0; i < t->count && rc == 0; i++)
        rc = co_add_told(t, &h, t->told[i]);
    if (rc == 0)
        rc = co_heap_look(&h, &t->error);
    if (rc == 0)
        rc = co_facts(t, &h);
    if (rc == 0 && t->count == 1 && h.count == 1 && !h.items[0].dev) {
        t->error = h.items[0].error; /* nothing but what cannot be opened */
        rc = t->error.rc;
    }
    co_heap_close(&h);
    return rc;
}

static int co_run(void *arg)
{
    struct tree *t = arg;
    struct resolver r;
    TRY(co_tool_resolver(t->tool, TRUST_READ, NULL, &r, &t->error));
    int rc = co_find(t, &r);
    resolver_drop(&r);
    return rc;
}

/* --- the picture -------------------------------------------------------------------------------
 */

struct drawing {
    bool lines, color; /* characters of boxes; escapes */
    char before[400];  /* of the line: what goes on from above */
};

static const char *text_of(const json_t *facts, const char *key)
{
    return json_string_value(json_object_get(facts, key));
}

/* What stands in an image may be made to steer a terminal. */
static void print_clean(const char *text)
{
    for (; *text; text++)
        putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static void draw_words(const json_t *facts)
{
    char size[32];
    const char *member = text_of(facts, "member"), *format = text_of(facts, "format");
    const char *fs = text_of(facts, "filesystem"), *label = text_of(facts, "label");
    const char *holds = text_of(facts, "holds"), *error = text_of(facts, "error");
    size_t i;
    json_t *link;
    output_size((uint64_t)json_integer_value(json_object_get(facts, "size")), size, sizeof(size));
    printf("  %s", format ? format : text_of(facts, "kind"));
    if (json_integer_value(json_object_get(facts, "size")) > 0)
        printf(", %s", size);
    if (holds)
        printf(", holds %s", holds);
    if (member)
        printf(", %s", member);
    if (fs)
        printf(", %s", fs);
    if (label) {
        fputs(" \"", stdout);
        print_clean(label);
        putchar('"');
    }
    json_array_foreach (json_object_get(facts, "backing"), i, link) {
        output_size((uint64_t)json_integer_value(json_object_get(link, "size")), size,
                    sizeof(size));
        printf(" <- %s (%s, %s)", text_of(link, "name"), text_of(link, "format"), size);
    }
    if (error)
        printf(", cannot be opened: %s", error);
}

static void draw_one(struct drawing *d, const json_t *facts, const char *branch)
{
    printf("%s%s%s", d->before, branch, d->color ? "\033[1m" : "");
    print_clean(text_of(facts, "name"));
    fputs(d->color ? "\033[0m" : "", stdout);
    draw_words(facts);
    fputs(d->color ? "  \033[36m" : "  ", stdout);
    print_clean(text_of(facts, "spec"));
    fputs(d->color ? "\033[0m\n" : "\n", stdout);
}

static void draw_inside(struct drawing *d, const json_t *facts)
{
    const json_t *list = json_object_get(facts, "inside");
    size_t count = json_array_size(list), length = strlen(d->before);
    for (size_t i = 0; i < count; i++) {
        bool last = i + 1 == count;
        const json_t *one = json_array_get(list, i);
        draw_one(d, one, d->lines ? (last ? "└── " : "├── ") : last ? "`-- " : "|-- ");
        const char *more = last ? "    " : d->lines ? "│   " : "|   ";
        if (length + strlen(more) + 1 > sizeof(d->before))
            continue;
        strcpy(d->before + length, more);
        draw_inside(d, one);
        d->before[length] = '\0';
    }
}

static void draw(const json_t *roots)
{
    const char *locale = getenv("LC_ALL"), *no_color = getenv("NO_COLOR");
    bool terminal = isatty(STDOUT_FILENO) == 1;
    if (!locale || !*locale)
        locale = getenv("LANG");
    struct drawing d = {.lines = terminal && locale && strcasestr(locale, "UTF-8"),
                        .color = terminal && !(no_color && *no_color)};
    for (size_t i = 0; i < json_array_size(roots); i++) {
        draw_one(&d, json_array_get(roots, i), "");
        draw_inside(&d, json_array_get(roots, i));
    }
}

/* --- the verb ----------------------------------------------------------------------------------
 */

static int run(struct tool *tool, int argc, char **argv)
{
    struct tree t = {.tool = tool};
    struct command_line line = {argc, argv, NULL, NULL, NULL};
    int id = args_read(tool, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < 1)
        return tool_misuse(tool, "Expecting files, or a folder");
    t.told = line.argv;
    t.count = line.argc;
    t.roots = json_array();
    bool quiet = tool->quiet;
    tool->quiet = true; /* the formats that were found are the answer itself */
    int rc = t.roots ? tool_run(tool, 1, co_run, &t) : -ENOMEM;
    tool->quiet = quiet;
    if (rc < 0)
        rc = tool_failed(tool, &t.error);
    else if (tool->output == OUTPUT_JSON)
        rc = output_json(take(t.roots));
    else
        draw(t.roots);
    json_decref(t.roots);
    return rc;
}

const struct command tree_command = {
    .name = "tree",
    .run = run,
    .usage = "tree [OPTION]... FILE...|FOLDER",
    .summary = "Show what is inside: partitions, arrays, volumes, file systems",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "Each line ends in the spec that names what it shows, for convert, serve, map, ...\n"
             "Of several files, or of a folder, arrays and volume groups are assembled.\n"
             "`lamina FILE` is short for it.\n"
             "\n"
             "  lamina tree disk.qcow2\n"
             "  lamina tree nas/",
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* make_options.c - what is told with -o about a new image, and how it is shown again. */
#include "tools/make.h"

int make_add_options(const struct tool *t, json_t *options, const char *text)
{
    struct blk_error e = {0};
    size_t n = strlen(text);
    size_t commas = 0;
    while (commas < n && text[n - 1 - commas] == ',')
        commas++;
    /* An option list that begins or ends with a lone comma would swallow the next one. An empty one
     * is a caller's empty variable: under our own name it says nothing. */
    bool bad = n == 0 || text[0] == ',' || commas % 2 == 1;
    if (n == 0 && t->face == FACE_LAMINA)
        return 0;
    int rc = bad ? err_set(&e, -EINVAL, "Invalid option list: %s", text)
                 : opts_text_to_tree(text, NULL, options, &e);
    if (rc < 0)
        tool_error(t, "%s", e.text);
    return rc;
}

int make_options_told(const struct tool *t, json_t *options, const char *text, bool *help)
{
    if (strcmp(text, "help") != 0 && strcmp(text, "?") != 0)
        return make_add_options(t, options, text) < 0 ? ARGS_BAD : 0;
    *help = true;
    return 0;
}

void make_backing_told(const json_t *options, const char **backing, const char **format)
{
    if (!*backing)
        *backing = json_string_value(json_object_get(options, "backing_file"));
    if (!*format)
        *format = json_string_value(json_object_get(options, "backing_fmt"));
    if (*backing && !**backing)
        *backing = NULL;
}

static const struct opt_desc *find_option(const struct blk_driver *d, const char *name)
{
    for (const struct opt_desc *o = d->create_options; o && o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

bool make_has_option(const struct blk_driver *d, const char *name)
{
    return find_option(d, name);
}

bool make_knows_option(const struct make *m, const char *name)
{
    const struct opt_desc *o = find_option(m->driver, name);
    return o && !(o->ours && m->tool->face != FACE_LAMINA);
}

const char *make_key_secret(const struct make *m)
{
    const json_t *o = m->options, *inside = json_object_get(o, "encrypt");
    return json_string_value(json_object_get(inside ? inside : o, "key-secret"));
}

int make_take_size(struct make *m, uint64_t *size, bool *given, struct blk_error *e)
{
    const json_t *told = json_object_get(m->options, "size");
    int rc = 0;
    *given = told != NULL;
    if (json_is_string(told))
        rc = opts_parse_size(json_string_value(told), size, e);
    else if (json_is_integer(told) && json_integer_value(told) >= 0)
        *size = (uint64_t)json_integer_value(told);
    else if (told)
        rc = err_set(e, -EINVAL, "Parameter 'size' expects a size");
    json_object_del(m->options, "size");
    return rc;
}

/* The first option that the format does not have, or NULL. */
static const char *foreign(const struct make *m)
{
    const char *key;
    json_t *value;
    json_object_foreach (m->options, key, value) {
        bool nested = json_is_object(value);
        size_t n = strlen(key);
        bool known = make_knows_option(m, key);
        for (const struct opt_desc *o = m->driver->create_options; nested && o && o->name; o++)
            known |= strncmp(o->name, key, n) == 0 && o->name[n] == '.';
        if (!known)
            return key;
    }
    return NULL;
}

/* QEMU's words for a mode that it has but this format has not: callers look for them. */
static int face_preallocation(const struct make *m, struct blk_error *e)
{
    static const char *const modes[] = {"off", "metadata", "falloc", "full"};
    const char *told = json_string_value(json_object_get(m->options, "preallocation"));
    const struct opt_desc *o = m->driver->create_options;
    while (o && o->name && strcmp(o->name, "preallocation") != 0)
        o++;
    if (!told || !o || !o->name || !o->choices)
        return 0;
    for (const char *const *c = o->choices; *c; c++)
        if (strcmp(*c, told) == 0)
            return 0;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (strcmp(modes[i], told) == 0)
            return err_set(e, -ENOTSUP, "Unsupported preallocation mode: %s", told);
    return err_set(e, -EINVAL, "Invalid parameter value: %s", told);
}

int make_check_options(const struct make *m, struct blk_error *e)
{
    struct opts parsed = {0};
    const char *key = foreign(m);
    if (key && strcmp(key, "backing_file") == 0)
        return format_no_backing(m->tool, m->driver, e);
    if (key && strcmp(key, "backing_fmt") == 0)
        return err_set(e, -EINVAL, "Backing file format not supported for file format '%s'",
                       m->driver->name);
    if (key && m->tool->face != FACE_LAMINA)
        return err_set(e, -EINVAL, "Invalid parameter '%s'", key);
    if (m->tool->face != FACE_LAMINA)
        TRY(face_preallocation(m, e));
    TRY(opts_parse(m->driver->create_options, m->options, &parsed, e));
    opts_drop(&parsed);
    return 0;
}

/* --- showing -------------------------------------------------------------------------------------
 */

/* The order in which QEMU 7.2 shows them; others follow in the table's order. A plus: shown also
 * when it was not told. */
static const char *const shown_order[] = {
    "encrypt.format",
    "encrypt.key-secret",
    "encrypt.cipher-alg",
    "encrypt.cipher-mode",
    "encrypt.ivgen-alg",
    "encrypt.ivgen-hash-alg",
    "encrypt.hash-alg",
    "encrypt.iter-time",
    "encrypt.iterations",
    "+cluster_size",
    "+extended_l2",
    "preallocation",
    "+compression_type",
    "size",
    "compat",
    "backing_file",
    "backing_fmt",
    "data_file",
    "data_file_raw",
    "+lazy_refcounts",
    "+refcount_bits",
    "nocow",
    "+static",
    "late preallocation",
    "key-secret",
    "cipher-alg",
    "cipher-mode",
    "ivgen-alg",
    "ivgen-hash-alg",
    "hash-alg",
    "iter-time",
    "iterations",
};

/* A comma is doubled, as it would have to be told. */
static void show_text(const char *text)
{
    for (; *text; text++) {
        if (*text == ',')
            putchar(',');
        putchar(*text);
    }
}

static void show_value(const struct opt_desc *d, const struct opt_value *v)
{
    printf(" %s=", d->name);
    if (d->type == OPT_BOOL)
        fputs(v->number ? "on" : "off", stdout);
    else if (d->type == OPT_SIZE || d->type == OPT_INT)
        printf("%" PRIu64, v->number);
    else
        show_text(v->text ? v->text : "");
}

static void show(const struct make *m, const struct opts *opts, const char *entry)
{
    bool always = entry[0] == '+', late = strncmp(entry, "late ", 5) == 0;
    const char *name = entry + (always ? 1 : late ? 5 : 0);
    /* raw's preallocation comes behind its size */
    bool clusters = make_has_option(m->driver, "cluster_size");
    if (strcmp(name, "size") == 0) {
        printf(" size=%" PRIu64, m->size);
        return;
    }
    if (!make_has_option(m->driver, name) ||
        (strcmp(name, "preallocation") == 0 && late == clusters))
        return;
    const struct opt_value *v = opts_get(opts, name);
    for (const struct opt_desc *d = m->driver->create_options; d->name; d++)
        if (strcmp(d->name, name) == 0 && (v->given || (always && v->set)))
            show_value(d, v);
}

void make_print_formatting(const struct make *m)
{
    struct opts opts = {0};
    if (opts_parse(m->driver->create_options, m->options, &opts, NULL) < 0)
        return;
    printf("Formatting '%s', fmt=%s", m->name, m->driver->name);
    for (size_t i = 0; i < ARRAY_LEN(shown_order); i++)
        show(m, &opts, shown_order[i]);
    putchar('\n');
    fflush(stdout);
    opts_drop(&opts);
}

static const char *type_name(const struct opt_desc *d)
{
    switch (d->type) {
    case OPT_BOOL:
        return "bool (on/off)";
    case OPT_SIZE:
        return "size";
    case OPT_INT:
        return "num";
    default:
        return "str";
    }
}

static void help_line(const char *name, const char *type, const char *help)
{
    char left[80];
    snprintf(left, sizeof(left), "%s=<%s>", name, type);
    printf("  %-22s - %s\n", left, help);
}

void make_print_options(const struct opt_desc *table)
{
    for (const struct opt_desc *o = table; o && o->name; o++)
        help_line(o->name, type_name(o), o->help ? o->help : "");
}

void make_print_help(const struct tool *t, const struct blk_driver *d, bool with_target)
{
    bool face = t->face != FACE_LAMINA;
    bool sized = make_has_option(d, "size");
    if (face && with_target)
        puts("Supported options:");
    else
        printf("Supported %s options:\n", d->name);
    for (const struct opt_desc *o = d->create_options; o && o->name; o++) {
        if (!sized && strcmp(o->name, "size") > 0) {
            help_line("size", "size", "Virtual disk size");
            sized = true;
        }
        if (!(face && o->ours))
            help_line(o->name, type_name(o), o->help ? o->help : "");
    }
    if (!sized)
        help_line("size", "size", "Virtual disk size");
    if (face && !with_target)
        puts("\nThe protocol level may support further options.\n"
             "Specify the target filename to include those options.");
}

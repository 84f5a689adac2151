/* SPDX-License-Identifier: BSD-3-Clause */
/* option.c - typed options: a tree of values checked against a table.
 *
 * A tree is shared, never copied deep: opts_parse() takes a shallow copy of the top object, so the
 * cost does not grow with what hangs below it. Values may be text (from the command line) or typed
 * (from JSON); both are read by the same functions. */
#include "block/option.h"

#include <ctype.h>
#include <stdio.h>

/* --- one value
 * ------------------------------------------------------------------------------------- */

static const char *const bool_words[] = {"off", "on", "no", "yes", "false", "true", NULL};

static int find_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return -1;
}

static int value_bool(const struct opt_desc *d, const json_t *node, struct opt_value *v,
                      struct blk_error *e)
{
    int word = json_is_string(node) ? find_word(bool_words, json_string_value(node)) : -1;
    if (word < 0 && !json_is_boolean(node))
        return err_set(e, -EINVAL, "option %s: expected on or off", d->name);
    v->number = json_is_boolean(node) ? json_is_true(node) : (uint64_t)(word & 1);
    return 0;
}

static int in_range(const struct opt_desc *d, uint64_t number, struct blk_error *e)
{
    if (number >= d->min && (d->max == 0 || number <= d->max))
        return 0;
    if (d->max == 0)
        return err_set(e, -ERANGE, "option %s: %" PRIu64 " is less than %" PRIu64, d->name, number,
                       d->min);
    return err_set(e, -ERANGE, "option %s: %" PRIu64 " is not between %" PRIu64 " and %" PRIu64,
                   d->name, number, d->min, d->max);
}

static int parse_int(const char *text, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    *out = strtoull(text, &end, 0);
    if (errno)
        return -ERANGE;
    return *end ? -EINVAL : 0;
}

static int value_number(const struct opt_desc *d, const json_t *node, struct opt_value *v,
                        struct blk_error *e)
{
    if (json_is_integer(node)) {
        if (json_integer_value(node) < 0)
            return err_set(e, -EINVAL, "option %s: must not be negative", d->name);
        v->number = (uint64_t)json_integer_value(node);
    } else if (!json_is_string(node)) {
        return err_set(e, -EINVAL, "option %s: expected a number", d->name);
    } else if (d->type == OPT_SIZE) {
        int rc = opts_parse_size(json_string_value(node), &v->number, e);
        if (rc < 0)
            return e ? err_prefix(e, "option %s", d->name) : rc;
    } else {
        int rc = parse_int(json_string_value(node), &v->number);
        if (rc < 0)
            return err_set(e, rc, "option %s: '%s' is not a number that fits", d->name,
                           json_string_value(node));
    }
    return in_range(d, v->number, e);
}

static int value_enum(const struct opt_desc *d, const json_t *node, struct opt_value *v,
                      struct blk_error *e)
{
    const char *word = json_is_string(node) ? json_string_value(node) : "";
    int i = find_word(d->choices, word);
    if (i >= 0) {
        v->number = (uint64_t)i;
        v->text = d->choices[i];
        return 0;
    }
    char list[300] = "";
    size_t used = 0;
    for (int k = 0; d->choices[k] && used < sizeof list; k++)
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%s", k ? ", " : "", d->choices[k]);
    return err_set(e, -EINVAL, "option %s: '%s' is not one of %s", d->name, word, list);
}

/* `children.0=a,children.1=b` makes an object with numbered members: the list that was meant. */
static json_t *list_from_numbered(const json_t *object)
{
    json_t *list = json_array();
    char key[24];
    for (size_t i = 0; list && i < json_object_size(object); i++) {
        snprintf(key, sizeof key, "%zu", i);
        json_t *item = json_object_get(object, key);
        if (!item || json_array_append(list, item) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static int value_children(const struct opt_desc *d, json_t *tree, struct opt_value *v,
                          struct blk_error *e)
{
    if (json_is_object(v->node)) {
        json_t *list = list_from_numbered(v->node);
        if (!list || json_object_set_new_nocheck(tree, d->name, list) < 0)
            return err_set(e, -EINVAL, "option %s: expected a list, its members named 0, 1, ...",
                           d->name);
        v->node = list;
    }
    if (!json_is_array(v->node))
        return err_set(e, -EINVAL, "option %s: expected a list", d->name);
    return 0;
}

static int value_set(const struct opt_desc *d, json_t *tree, const json_t *node,
                     struct opt_value *v, struct blk_error *e)
{
    v->set = true;
    v->node = node;
    switch (d->type) {
    case OPT_BOOL:
        return value_bool(d, node, v, e);
    case OPT_SIZE:
    case OPT_INT:
        return value_number(d, node, v, e);
    case OPT_ENUM:
        return value_enum(d, node, v, e);
    case OPT_STRING:
    case OPT_SECRET:
        if (!json_is_string(node))
            return err_set(e, -EINVAL, "option %s: expected a text", d->name);
        v->text = json_string_value(node);
        return 0;
    case OPT_CHILD:
        if (!json_is_string(node) && !json_is_object(node) && !json_is_null(node))
            return err_set(e, -EINVAL, "option %s: expected a device", d->name);
        return 0;
    case OPT_CHILDREN:
        return value_children(d, tree, v, e);
    }
    return -EINVAL;
}

/* --- the table
 * ------------------------------------------------------------------------------------- */

static size_t table_size(const struct opt_desc *table)
{
    size_t n = 0;
    while (table && table[n].name)
        n++;
    assert(n <= OPT_MAX);
    return n;
}

static const struct opt_desc *find_desc(const struct opt_desc *table, const char *name)
{
    for (const struct opt_desc *d = table; d && d->name; d++)
        if (strcmp(d->name, name) == 0)
            return d;
    return NULL;
}

static int unknown_option(const struct opt_desc *table, const char *name, struct blk_error *e)
{
    const char *names[OPT_MAX] = {0};
    char known[400] = "";
    size_t n = table_size(table), at = 0;
    for (size_t i = 0; i < n; i++) {
        names[i] = table[i].name;
        if (at + strlen(names[i]) + 2 < sizeof(known))
            at += (size_t)snprintf(known + at, sizeof(known) - at, " %s", names[i]);
    }
    const char *near = opts_nearest(name, names, n);
    if (near)
        return err_set(e, -EINVAL, "unknown option '%.60s': the nearest is '%s'", name, near);
    return err_set(e, -EINVAL,
                   n ? "unknown option '%.60s'; there are:%s" : "unknown option '%.60s'", name,
                   known);
}

/* Children that the table does not list are the opener's: it refuses those that nobody asks for. */
static bool is_for_others(const char *key, const json_t *value)
{
    return strcmp(key, "driver") == 0 || strncmp(key, "x-lamina-", 9) == 0 ||
           json_is_object(value) || json_is_array(value) || json_is_null(value) ||
           strcmp(key, "file") == 0 || strcmp(key, "backing") == 0;
}

bool opts_nests(const struct opt_desc *table, const char *key)
{
    size_t n = strlen(key);
    for (const struct opt_desc *d = table; d && d->name; d++)
        if (strncmp(d->name, key, n) == 0 && d->name[n] == '.')
            return true;
    return false;
}

/* The members of "a" are the options "a.b", "a.c". */
static int check_members(const struct opt_desc *table, const char *key, json_t *object,
                         struct blk_error *e)
{
    const char *member;
    json_t *value;
    json_object_foreach (object, member, value) {
        auto_free char *name = mem_printf("%s.%s", key, member);
        if (!name)
            return err_set(e, -ENOMEM, "no memory for options");
        if (opts_nests(table, name) && json_is_object(value))
            TRY(check_members(table, name, value, e)); /* no deeper than the table's names */
        else if (!find_desc(table, name))
            return unknown_option(table, name, e);
    }
    return 0;
}

static int check_names(const struct opt_desc *table, json_t *tree, struct blk_error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach (tree, key, value)
        if (opts_nests(table, key) && json_is_object(value))
            TRY(check_members(table, key, value, e));
        else if (!find_desc(table, key) && !is_for_others(key, value))
            return unknown_option(table, key, e);
    return 0;
}

static int set_preset(const struct opt_desc *d, struct opts *out, struct opt_value *v,
                      struct blk_error *e)
{
    if (d->type == OPT_STRING || d->type == OPT_SECRET) {
        v->set = true;
        v->text = d->preset;
        return 0;
    }
    json_t *node = json_string_nocheck(d->preset);
    if (!node)
        return -ENOMEM;
    int rc = value_set(d, out->tree, node, v, e);
    v->node = NULL;
    json_decref(node);
    return rc;
}

/* "a.b" is the member b of the object a. */
static const json_t *find_node(const json_t *tree, const char *name)
{
    const json_t *node = json_object_get(tree, name);
    const char *dot = strchr(name, '.');
    if (node || !dot)
        return node;
    node = json_object_getn(tree, name, (size_t)(dot - name));
    return node ? find_node(node, dot + 1) : NULL;
}

static int fill_values(const struct opt_desc *table, struct opts *out, struct blk_error *e)
{
    size_t n = table_size(table);
    for (size_t i = 0; i < n; i++) {
        const struct opt_desc *d = &table[i];
        struct opt_value *v = &out->values[i];
        const json_t *node = find_node(out->tree, d->name);
        if (node) {
            v->given = true;
            TRY(value_set(d, out->tree, node, v, e));
        } else if (d->preset) {
            TRY(set_preset(d, out, v, e));
        } else if (d->required) {
            return err_set(e, -EINVAL, "option %s is missing: %s", d->name, d->help);
        }
    }
    return 0;
}

int opts_parse(const struct opt_desc *table, const json_t *tree, struct opts *out,
               struct blk_error *e)
{
    memset(out, 0, sizeof *out);
    out->table = table;
    if (tree && !json_is_object(tree))
        return err_set(e, -EINVAL, "expected options as an object");
    out->tree = tree ? json_copy((json_t *)tree) : json_object();
    if (!out->tree)
        return -ENOMEM;
    int rc = check_names(table, out->tree, e);
    if (rc == 0)
        rc = fill_values(table, out, e);
    if (rc < 0)
        opts_drop(out);
    return rc;
}

void opts_drop(struct opts *o)
{
    json_decref(o->tree);
    o->tree = NULL;
}

const struct opt_value *opts_get(const struct opts *o, const char *name)
{
    const struct opt_desc *d = find_desc(o->table, name);
    assert(d);
    return &o->values[d - o->table];
}

bool opts_given(const struct opts *o, const char *name)
{
    return opts_get(o, name)->given;
}

bool opts_bool(const struct opts *o, const char *name)
{
    return opts_get(o, name)->number != 0;
}

uint64_t opts_number(const struct opts *o, const char *name)
{
    return opts_get(o, name)->number;
}

const char *opts_text(const struct opts *o, const char *name)
{
    return opts_get(o, name)->text;
}

/* --- help
 * ------------------------------------------------------------------------------------- */

static const char *type_word(enum opt_type type)
{
    static const char *const words[] = {
        [OPT_BOOL] = "on|off",  [OPT_SIZE] = "<size>",     [OPT_INT] = "<number>",
        [OPT_STRING] = "<str>", [OPT_ENUM] = "<word>",     [OPT_SECRET] = "<secret id>",
        [OPT_CHILD] = "<spec>", [OPT_CHILDREN] = "<list>",
    };
    return words[type];
}

void opts_help(const struct opt_desc *table, FILE *to)
{
    for (const struct opt_desc *d = table; d && d->name; d++) {
        char word[300];
        size_t used = (size_t)snprintf(word, sizeof word, "%s=", d->name);
        if (d->type != OPT_ENUM)
            snprintf(word + used, sizeof word - used, "%s", type_word(d->type));
        for (int i = 0; d->type == OPT_ENUM && d->choices[i] && used < sizeof word; i++)
            used += (size_t)snprintf(word + used, sizeof word - used, "%s%s", i ? "|" : "",
                                     d->choices[i]);
        fprintf(to, "  %-30s - %s", word, d->help);
        if (d->preset)
            fprintf(to, " (default: %s)", d->preset);
        if (d->required)
            fprintf(to, " (required)");
        fputc('\n', to);
    }
}

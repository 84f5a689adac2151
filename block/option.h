/* SPDX-License-Identifier: BSD-3-Clause */
/* option.h - typed options: one table per driver operation; parsing, validation, JSON, help and
 * completion come from it.
 *
 * Values travel as a tree of strings, numbers, booleans and objects (jansson's json_t); `a.b=c` and
 * {"a": {"b": "c"}} are the same tree. */
#ifndef BLOCK_OPTION_H
#define BLOCK_OPTION_H

#include <jansson.h>
#include <stdio.h>

#include "block/err.h"

enum opt_type {
    OPT_BOOL, /* on/off, true/false, yes/no */
    OPT_SIZE, /* bytes: digits with an optional fraction and one of b k K M G T P E (powers of 1024)
               */
    OPT_INT,
    OPT_STRING,
    OPT_ENUM,     /* one of @choices */
    OPT_SECRET,   /* the name of a secret, never its value */
    OPT_CHILD,    /* a spec, or an object that is one */
    OPT_CHILDREN, /* a list of them */
};

/* One option. Tables end with a NULL name. */
struct opt_desc {
    const char *name;
    enum opt_type type;
    const char *help;           /* one line, no full stop */
    const char *preset;         /* the default as text; NULL: unset */
    uint64_t min, max;          /* OPT_SIZE, OPT_INT; max 0: no bound */
    const char *const *choices; /* OPT_ENUM: ends with NULL */
    bool required;
    bool ours; /* of create_options: QEMU's driver has it not, and the faces do not know it */
};

struct opt_value {
    bool set;           /* given by the caller, or has a preset */
    bool given;         /* given by the caller */
    uint64_t number;    /* OPT_SIZE, OPT_INT, OPT_BOOL (0, 1), OPT_ENUM (index into choices) */
    const char *text;   /* OPT_STRING, OPT_ENUM, OPT_SECRET; borrowed from the tree */
    const json_t *node; /* OPT_CHILD, OPT_CHILDREN; borrowed */
};

#define OPT_MAX 48
struct resolver;
struct opts {
    const struct opt_desc *table;
    json_t *tree; /* owned */
    struct opt_value values[OPT_MAX];
    /* Whose secrets the OPT_SECRET values name (resolver_secret()); set by who lets something be
     * created or amended. NULL: there are none. */
    const struct resolver *secrets;
    bool force; /* amend: what makes data unreadable may be done */
};

/* Checks @tree (an object; borrowed; NULL: empty) against @table: unknown names (the nearest known
 * one is named), types, ranges. Gives *out; opts_drop() it. Keys "driver" and those that begin with
 * "x-lamina-" are the caller's and skipped. */
must_use int opts_parse(const struct opt_desc *table, const json_t *tree, struct opts *out,
                        struct blk_error *e);
void opts_drop(struct opts *o);

/* True if the table has options "KEY.something": KEY may be an object. */
bool opts_nests(const struct opt_desc *table, const char *key);
/* By name, which must be in the table (asserted). */
const struct opt_value *opts_get(const struct opts *o, const char *name);
bool opts_given(const struct opts *o, const char *name);
bool opts_bool(const struct opts *o, const char *name);
uint64_t opts_number(const struct opts *o, const char *name);
const char *opts_text(const struct opts *o, const char *name); /* NULL if unset */

/* `key=value,key=value`, a comma in a value doubled, a word without `=` is key=on (nokey=off is not
 * a form). Adds to the object
 * @tree; `a.b=c` nests. @implied: NULL, or the key that a first word without `=` is the value of.
 */
must_use int opts_text_to_tree(const char *text, const char *implied, json_t *tree,
                               struct blk_error *e);
/* Sizes as callers write them; -EINVAL, -ERANGE. */
must_use int opts_parse_size(const char *text, uint64_t *bytes, struct blk_error *e);
/* One line per option: name, type or choices, help, default. */
void opts_help(const struct opt_desc *table, FILE *to);
/* A JSON string of @text; bytes that are not UTF-8 become '?'. NULL: no memory. */
json_t *json_from_text(const char *text);
/* The nearest of @count names (edit distance at most a third of the word), or NULL. */
const char *opts_nearest(const char *word, const char *const *names, size_t count);

#endif

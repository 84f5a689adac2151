/* SPDX-License-Identifier: BSD-3-Clause */
/* args.c - options from a verb's table, through getopt_long(): permuting, unique abbreviations,
 * glued values. Help is printed from the same table. */
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>

#include "tools/tool.h"

#define HELP_COLUMN 30 /* where what an option does stands in its help, behind two blanks */

const struct arg_desc tool_common_options[] = {
    {ARG_HOST_ID, "host", "uring|threads|aio", "how files are read and written", FACE_LAMINA,
     false},
    {ARG_CHAIN_ID, "chain", "DIR", "an image's own references may also lie below DIR", FACE_LAMINA,
     false},
    {ARG_UNTRUSTED_ID, "untrusted", NULL, "open nothing that an image refers to", FACE_LAMINA,
     false},
    {'h', "help", NULL, "show this", 0, false},
    ARG_END,
};

static bool known(const struct tool *t, const struct arg_desc *d)
{
    return d->faces == 0 || (d->faces & t->face);
}

static size_t count(const struct arg_desc *d)
{
    size_t n = 0;
    for (; d && d->id; d++)
        n++;
    return n;
}

/* Adds a table to the getopt structures; @s is where the next short letter goes. */
static void add(struct args *a, const struct arg_desc *d, size_t *longs, char **s)
{
    for (; d && d->id; d++) {
        if (!known(a->tool, d))
            continue;
        if (d->id < 256) {
            *(*s)++ = (char)d->id;
            if (d->value)
                *(*s)++ = ':';
            if (d->value && d->optional)
                *(*s)++ = ':';
        }
        if (d->name)
            a->longs[(*longs)++] = (struct option){.name = d->name,
                                                   .has_arg = !d->value     ? no_argument
                                                              : d->optional ? optional_argument
                                                                            : required_argument,
                                                   .val = d->id};
    }
}

int args_init(struct args *a, struct tool *t, int argc, char **argv)
{
    *a = (struct args){.tool = t, .command = t->command, .argc = argc, .argv = argv, .seen = 1};
    size_t n = count(t->command->options) + count(tool_common_options);
    a->longs = calloc(n + 1, sizeof(*a->longs));
    a->shorts = calloc(n + 2, 3);
    if (!a->longs || !a->shorts) {
        args_drop(a);
        tool_error(t, "out of memory");
        return -ENOMEM;
    }
    char *s = a->shorts;
    size_t longs = 0;
    *s++ = ':'; /* a missing value answers ':', and we word the message */
    add(a, t->command->options, &longs, &s);
    add(a, tool_common_options, &longs, &s);
    optind = 0; /* glibc: start over */
    opterr = 0;
    return 0;
}

void args_drop(struct args *a)
{
    free(a->longs);
    free(a->shorts);
    a->longs = NULL;
    a->shorts = NULL;
}

static int take_progress(struct tool *t, const char *value)
{
    t->progress = strcmp(value, "json") == 0 ? PROGRESS_JSON : PROGRESS_BAR;
    if (t->progress == PROGRESS_JSON || strcmp(value, "bar") == 0)
        return 0;
    tool_misuse(t, "--progress is bar or json, not '%s'", value);
    return ARGS_BAD;
}

/* Sets what the frame itself understands; true if it did, *rc is 0 or ARGS_BAD. */
static bool take_common(struct args *a, int id, const char *value, int *rc)
{
    struct tool *t = a->tool;
    *rc = 0;
    switch (id) {
    case ARG_HOST_ID:
        t->host_kind = value;
        break;
    case ARG_CHAIN_ID:
        t->chain_dir = value;
        break;
    case ARG_UNTRUSTED_ID:
        t->untrusted = true;
        break;
    case 'U':
        t->force_share = true;
        break;
    case 'q':
        t->quiet = true;
        break;
    case 'p':
        t->progress = PROGRESS_BAR;
        break;
    case ARG_PROGRESS_ID:
        *rc = take_progress(t, value);
        break;
    case ARG_OUTPUT_ID:
        t->output = strcmp(value, "json") == 0 ? OUTPUT_JSON : OUTPUT_HUMAN;
        if (t->output == OUTPUT_HUMAN && strcmp(value, "human") != 0) {
            tool_error(t,
                       tool_words(t, "--output is human or json, not '%s'",
                                  "--output must be used with human or json as argument.%.0s"),
                       value);
            *rc = ARGS_BAD;
        }
        break;
    case ARG_OBJECT_ID:
        *rc = tool_add_object(t, value) ? 0 : ARGS_BAD;
        break;
    default:
        return false;
    }
    return true;
}

/* True if @id came from an entry that means what the frame means by it: qemu-nbd's -p takes a
 * value, so it is not the progress option. */
static bool frames_own(const struct args *a, int id)
{
    if (id >= ARG_OUTPUT_ID && id < ARG_LONG)
        return true;
    for (const struct arg_desc *d = a->command->options; d && d->id; d++)
        if (d->id == id && known(a->tool, d))
            return !d->value;
    return false;
}

/* The verb's long option that is nearest to @word ("--forse=x"), or NULL. */
static const char *nearest_option(const struct args *a, const char *word)
{
    char bare[64];
    const char *names[80];
    size_t count = 0;
    snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(word + 2, "="), word + 2);
    for (const struct option *o = a->longs; o->name && count < ARRAY_LEN(names); o++)
        names[count++] = o->name;
    return opts_nearest(bare, names, count);
}

static int unknown_option(const struct args *a)
{
    const char *word = a->argv[optind > 0 ? optind - 1 : 0];
    if (strncmp(word, "--", 2) != 0) {
        tool_misuse(a->tool,
                    a->tool->face == FACE_NBD ? "invalid option -- '%c'"
                                              : "unrecognized option '-%c'",
                    optopt);
        return ARGS_BAD;
    }
    const char *near = nearest_option(a, word);
    if (near && a->tool->face == FACE_LAMINA)
        tool_misuse(a->tool, "unrecognized option '%s'; did you mean '--%s'?", word, near);
    else if (near && a->tool->face == FACE_IMG)
        tool_misuse(a->tool, "unrecognized option '%s'\nThe nearest is '--%s'.", word, near);
    else
        tool_misuse(a->tool, "unrecognized option '%s'", word);
    return ARGS_BAD;
}

static int missing_value(const struct args *a)
{
    const char *word = a->argv[optind - 1];
    if (a->tool->face != FACE_NBD)
        tool_misuse(a->tool, "missing argument for option '%s'", word);
    else if (strncmp(word, "--", 2) == 0)
        tool_misuse(a->tool, "option '%s' requires an argument", word);
    else
        tool_misuse(a->tool, "option requires an argument -- '%c'", optopt);
    return ARGS_BAD;
}

int args_next(struct args *a, const char **value)
{
    for (;;) {
        int id = getopt_long(a->argc, a->argv, a->shorts, a->longs, NULL), rc;
        *value = optarg;
        if (id == -1)
            return ARGS_END;
        if (id == '?')
            return unknown_option(a);
        if (id == ':') {
            return missing_value(a);
        }
        if (id == 'h') {
            command_help(a->tool, a->command, stdout);
            return ARGS_HELP;
        }
        if (!frames_own(a, id) || !take_common(a, id, optarg, &rc))
            return id;
        if (rc < 0)
            return rc;
    }
}

int args_operands(const struct args *a, char ***operands)
{
    *operands = a->argv + optind;
    return a->argc - optind;
}

/* True if the option @id has a place, and keeps it there. */
static bool put(const struct arg_place *p, int id, const char *value)
{
    while (p && p->id && p->id != id)
        p++;
    if (!p || !p->id)
        return false;
    if (p->text)
        *p->text = value;
    else
        *p->flag = true;
    return true;
}

int args_read(struct tool *t, struct command_line *w)
{
    struct args a;
    const char *value;
    int id, rc = 0;
    if (args_init(&a, t, w->argc, w->argv) < 0)
        return ARGS_BAD;
    while (rc == 0 && (id = args_next(&a, &value)) >= 0) {
        if (put(w->places, id, value))
            continue;
        assert(w->option);
        rc = w->option(w->verb, id, value);
    }
    w->argc = args_operands(&a, &w->argv);
    args_drop(&a);
    return rc < 0 ? rc : id;
}

static void help_table(const struct tool *t, const struct arg_desc *d, FILE *to)
{
    for (; d && d->id; d++) {
        if (!known(t, d) || !d->help)
            continue;
        char left[80], letter[8] = "    ";
        if (d->id < 256)
            snprintf(letter, sizeof(letter), "-%c%s", d->id, d->name ? ", " : " ");
        snprintf(left, sizeof(left), "%s%s%s%s%s", letter, d->name ? "--" : "",
                 d->name ? d->name : "", d->value ? (d->name ? "=" : "") : "",
                 d->value ? d->value : "");
        bool fits = strlen(left) <= HELP_COLUMN;
        fprintf(to, "  %-*s%s%*s %s\n", HELP_COLUMN, left, fits ? "" : "\n",
                fits ? 0 : HELP_COLUMN + 2, "", d->help);
    }
}

/* The examples in notes, `  lamina VERB ...`, are of our own name only. */
static void help_notes(const struct tool *t, const char *notes, FILE *to)
{
    static const char example[] = "  lamina ";
    fputc('\n', to);
    while (*notes) {
        size_t bytes = strcspn(notes, "\n");
        if (t->face == FACE_LAMINA || strncmp(notes, example, strlen(example)) != 0)
            fprintf(to, "%.*s\n", (int)bytes, notes);
        notes += bytes + (notes[bytes] == '\n');
    }
}

void command_help(const struct tool *t, const struct command *c, FILE *to)
{
    if (t->face == FACE_LAMINA || t->face == FACE_IMG)
        fprintf(to, "usage: %s %s\n", t->called, c->usage);
    else
        fprintf(to, "usage: %s\n", c->usage);
    if (c->summary)
        fprintf(to, "%s.\n", c->summary);
    fprintf(to, "\nOptions:\n");
    help_table(t, c->options, to);
    help_table(t, tool_common_options, to);
    if (c->notes)
        help_notes(t, c->notes, to);
}

bool tool_add_object(struct tool *t, const char *text)
{
    if (t->object_count == TOOL_OBJECTS) {
        tool_misuse(t, "more than %d objects", TOOL_OBJECTS);
        return false;
    }
    struct blk_error e = {0};
    char *told;
    if (tool_secret(t, text, &told, &e) < 0) {
        tool_error(t, "%s", e.text);
        return false;
    }
    t->told_objects[t->object_count] = told;
    t->objects[t->object_count++] = told ? told : text;
    return true;
}

void tool_drop_objects(struct tool *t)
{
    for (unsigned i = 0; i < t->object_count; i++) {
        if (t->told_objects[i])
            explicit_bzero(t->told_objects[i], strlen(t->told_objects[i]));
        mem_free(t->told_objects[i]);
    }
    t->object_count = 0;
}

const struct command *command_find(const struct tool *t, const char *name)
{
    for (const struct command *const *c = t->commands; *c; c++)
        if (((*c)->faces & t->face) && strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

static void message(const struct tool *t, const char *fmt, va_list ap)
{
    fflush(stdout);
    fprintf(stderr, "%s: ", t->called);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void tool_error(const struct tool *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message(t, fmt, ap);
    va_end(ap);
}

void tool_next(const struct tool *t, const char *sentence)
{
    if (sentence[0] && t->face == FACE_LAMINA && t->output == OUTPUT_HUMAN)
        tool_error(t, "next: %s", sentence);
}

const char *tool_words(const struct tool *t, const char *ours, const char *theirs)
{
    return t->face == FACE_LAMINA ? ours : theirs;
}

int tool_misuse(const struct tool *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message(t, fmt, ap);
    va_end(ap);
    if (t->face == FACE_NBD) /* qemu-nbd says this as an error of its own */
        fprintf(stderr, "%s: Try `%s --help' for more information.\n", t->called, t->called);
    else if (t->face != FACE_LAMINA || !t->command || !t->command->name)
        fprintf(stderr, "Try '%s --help' for more information\n", t->called);
    else
        fprintf(stderr, "Try '%s %s --help' for more information\n", t->called, t->command->name);
    return 1;
}

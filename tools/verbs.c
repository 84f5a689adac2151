/* SPDX-License-Identifier: BSD-3-Clause */
/* verbs.c - commands that have verbs of their own: `lamina lv create`. */
#include "tools/tool.h"

/* The verb's word: what is behind the command's name. */
static const char *word_of(const struct command *c)
{
    return strchr(c->name, ' ') + 1;
}

static int print_verbs(const struct tool *t, const struct command *const *verbs)
{
    printf("usage: %s %s\n%s.\n\n", t->called, t->command->usage, t->command->summary);
    for (const struct command *const *v = verbs; *v; v++)
        printf("  %-14s %s\n", word_of(*v), (*v)->summary);
    printf("\n`%s %s VERB --help` has a verb's options.\n", t->called, t->command->name);
    return 0;
}

int tool_run_verb(struct tool *t, int argc, char **argv, const struct command *const *verbs)
{
    const char *word = argc > 1 ? argv[1] : "--help", *names[TOOL_VERBS_MOST];
    size_t count = 0;
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return print_verbs(t, verbs);
    for (const struct command *const *v = verbs; *v && count < ARRAY_LEN(names); v++) {
        names[count] = word_of(*v);
        if (strcmp(word, names[count++]) != 0)
            continue;
        t->command = *v;
        return (*v)->run(t, argc - 1, argv + 1);
    }
    const char *near = opts_nearest(word, names, count), *name = t->command->name;
    return near ? tool_misuse(t, "%s has no verb '%s'; did you mean '%s'?", name, word, near)
                : tool_misuse(t, "%s has no verb '%s'", name, word);
}

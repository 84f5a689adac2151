/* SPDX-License-Identifier: BSD-3-Clause */
/* group.c - verbs of two words (`lamina raid create`): the second one out of a table. */
#include "tools/tool.h"

#define GROUP_MAX 32

/* The second word of its name. */
static const char *second(const struct command *c)
{
    return strchr(c->name, ' ') + 1;
}

static int print_verbs(const struct tool *t, const struct command *const *verbs)
{
    printf("usage: %s %s\n%s.\n\n", t->called, t->command->usage, t->command->summary);
    for (const struct command *const *v = verbs; *v; v++)
        printf("  %-14s %s\n", second(*v), (*v)->summary);
    if (t->command->notes)
        printf("\n%s\n", t->command->notes);
    printf("\n`%s %s VERB --help` has a verb's options.\n", t->called, t->command->name);
    return 0;
}

int command_group(struct tool *t, const struct command *const *verbs, int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "--help", *names[GROUP_MAX];
    const char *group = t->command->name;
    size_t count = 0;
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return print_verbs(t, verbs);
    for (const struct command *const *v = verbs; *v && count < GROUP_MAX; v++) {
        names[count] = second(*v);
        if (strcmp(word, names[count++]) != 0)
            continue;
        t->command = *v;
        return (*v)->run(t, argc - 1, argv + 1);
    }
    const char *near = opts_nearest(word, names, count);
    return near ? tool_misuse(t, "%s has no verb '%s'; did you mean '%s'?", group, word, near)
                : tool_misuse(t, "%s has no verb '%s'; `%s %s` lists them", group, word, t->called,
                              group);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* group.c - a command that is a word in front of verbs of its own: `lamina raid create`. */
#include "tools/tool.h"

static int print_verbs(const struct tool *t, const struct command *const *verbs, size_t skip)
{
    printf("usage: %s %s\n%s.\n\n", t->called, t->command->usage, t->command->summary);
    for (const struct command *const *v = verbs; *v; v++)
        printf("  %-14s %s\n", (*v)->name + skip, (*v)->summary);
    printf("\n`%s %s VERB --help` has a verb's options.\n", t->called, t->command->name);
    return 0;
}

int command_group(struct tool *t, const struct command *const *verbs, int argc, char **argv)
{
    const char *group = t->command->name, *names[TOOL_GROUP_MOST];
    const char *word = argc > 1 ? argv[1] : "--help";
    size_t count = 0, skip = strlen(group) + 1;
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return print_verbs(t, verbs, skip);
    for (const struct command *const *v = verbs; *v; v++) {
        assert(count < TOOL_GROUP_MOST);
        names[count] = (*v)->name + skip;
        if (strcmp(word, names[count++]) != 0)
            continue;
        t->command = *v;
        return (*v)->run(t, argc - 1, argv + 1);
    }
    const char *near = opts_nearest(word, names, count);
    return near ? tool_misuse(t, "%s has no verb '%s'; did you mean '%s'?", group, word, near)
                : tool_misuse(t, "%s has no verb '%s'", group, word);
}

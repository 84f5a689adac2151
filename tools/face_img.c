/* SPDX-License-Identifier: BSD-3-Clause */
/* face_img.c - called as qemu-img: the verbs under qemu-img's rules and words. */
#include "tools/tool.h"

static int misuse_hint(const struct tool *t)
{
    fprintf(stderr, "Try '%s --help' for more information\n", t->called);
    return 1;
}

static int misuse(const struct tool *t, const char *sentence, const char *word)
{
    tool_error(t, "%s%s", sentence, word ? word : "");
    return misuse_hint(t);
}

static void help(const struct tool *t)
{
    printf("usage: %s [standard options] command [command options]\n"
           "QEMU disk image utility, by lamina\n"
           "\n"
           "    '-h', '--help'       display this help and exit\n"
           "    '-V', '--version'    output version information and exit\n"
           "\n"
           "Command syntax:\n",
           t->called);
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->faces & FACE_IMG)
            printf("  %s\n", (*c)->usage);
}

int face_img_main(struct tool *t, int argc, char **argv)
{
    if (argc < 2)
        return misuse(t, "Not enough arguments", NULL);
    const char *verb = argv[1];
    if (strcmp(verb, "-h") == 0 || strcmp(verb, "--help") == 0) {
        help(t);
        return 0;
    }
    if (strcmp(verb, "-V") == 0 || strcmp(verb, "--version") == 0) {
        printf("qemu-img version 7.2.0 (lamina)\n");
        return 0;
    }
    if (verb[0] == '-') {
        tool_error(t, "unrecognized option '%s'", verb);
        return misuse_hint(t);
    }
    const struct command *c = command_find(t, verb);
    if (!c)
        return misuse(t, "Command not found: ", verb);
    t->command = c;
    return c->run(t, argc - 1, argv + 1);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* face_img.c - called as qemu-img: the verbs under qemu-img's rules and words. */
#include <getopt.h>
#include <stdlib.h>

#include "tools/tool.h"

#define MAX_DRIVERS 100

static int misuse(const struct tool *t, const char *sentence, const char *word)
{
    tool_error(t, sentence, word);
    fprintf(stderr, "Try '%s --help' for more information\n", t->called);
    return 1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Callers look in this line for what they may ask for. */
static void print_formats(void)
{
    const char *names[MAX_DRIVERS];
    size_t count = 0;
    for (const struct blk_driver *const *d = blk_drivers; *d && count < MAX_DRIVERS; d++)
        names[count++] = (*d)->name;
    qsort(names, count, sizeof(*names), by_name);
    printf("\nSupported formats:");
    for (size_t i = 0; i < count; i++)
        printf(" %s", names[i]);
    putchar('\n');
}

static void help(const struct tool *t)
{
    printf("usage: %s [standard options] command [command options]\n"
           "QEMU disk image utility, by lamina\n"
           "\n"
           "    '-h', '--help'       display this help and exit\n"
           "    '-V', '--version'    output version information and exit\n"
           "    '-T', '--trace'      accepted\n"
           "\n"
           "Command syntax:\n",
           t->called);
    for (const struct command *const *c = t->commands; *c; c++)
        if ((*c)->faces & FACE_IMG)
            printf("  %s\n", (*c)->usage);
    print_formats();
}

/* The options before the command: true if there are only some that let the command run; else *rc is
 * the exit status. */
static bool standard_options(const struct tool *t, int argc, char **argv, int *rc)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"trace", required_argument, NULL, 'T'},
                                          {0}};
    opterr = 0;
    for (;;) {
        int id = getopt_long(argc, argv, "+:hVT:", longs, NULL);
        *rc = 0;
        switch (id) {
        case -1:
            return true;
        case 'h':
            help(t);
            return false;
        case 'V':
            printf("qemu-img version 7.2.0 (lamina)\n");
            return false;
        case 'T':
            break;
        default:
            *rc = misuse(
                t, id == ':' ? "missing argument for option '%s'" : "unrecognized option '%s'",
                argv[optind - 1]);
            return false;
        }
    }
}

int face_img_main(struct tool *t, int argc, char **argv)
{
    int rc;
    if (argc < 2)
        return misuse(t, "Not enough arguments%s", "");
    if (!standard_options(t, argc, argv, &rc))
        return rc;
    if (optind == argc)
        return misuse(t, "Not enough arguments%s", "");
    argc -= optind;
    argv += optind;
    t->command = command_find(t, argv[0]);
    return t->command ? t->command->run(t, argc, argv)
                      : misuse(t, "Command not found: %s", argv[0]);
}

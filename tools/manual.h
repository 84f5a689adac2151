/* SPDX-License-Identifier: BSD-3-Clause */
/* manual.h - what is generated from the tables of verbs and options: man pages, completions. */
#ifndef TOOLS_MANUAL_H
#define TOOLS_MANUAL_H

#include "tools/tool.h"

/* A name that the program is called by, and what it is then; a list ends with a NULL name. */
struct tool_face {
    const char *name, *summary, *examples;
    enum face face;
    int (*main)(struct tool *t, int argc, char **argv);
    const struct command *command; /* what it is without verbs */
};

/* The man page @page on stdout; the exit status. */
int manual_page(const struct tool *t, const struct tool_face *faces, const char *page);
/* The names of all pages, a line each. */
void manual_list(const struct tool *t, const struct tool_face *faces);
/* The completions for a shell ("bash", "zsh", "fish") on stdout; the exit status. */
int completion_print(const struct tool *t, const char *shell);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* progress.h - how far a job is, for people: -p and SIGUSR1. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "block/job.h"
#include "tools/tool.h"

struct progress {
    const struct tool *tool;
    FILE *to;   /* standard output, or error where an image goes to that */
    bool shown; /* -p, and not -q */
    bool bar;   /* on a terminal, under lamina's own name */
    bool json;
    double last; /* percent shown last */
    uint64_t last_ns;
};

void progress_init(struct progress *p, const struct tool *t);
/* From the job's on_event: shows it if it is time to. */
void progress_update(struct progress *p, const struct job *j);
/* One line on stderr now, as SIGUSR1 asks for. */
void progress_line(const struct job *j);
/* The last word; @done: the job came to its end. */
void progress_end(struct progress *p, const struct job *j, bool done);

#endif

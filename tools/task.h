/* SPDX-License-Identifier: BSD-3-Clause */
/* task.h - a verb's work as a job in the foreground: progress on -p, SIGUSR1 asks how far it is,
 * SIGINT, SIGTERM and SIGHUP cancel it, and what is told at the end. */
#ifndef TOOLS_TASK_H
#define TOOLS_TASK_H

#include "tools/image.h"
#include "tools/progress.h"

struct task {
    /* told */
    struct tool *tool;
    const char *kind;               /* of the job: the verb */
    int (*co_body)(struct task *t); /* opens, works, closes; its error into .error */
    uint64_t rate;                  /* bytes a second; 0: no limit */
    /* kept; the body sets job.total once it knows it, and calls co_job_step() */
    struct job job;
    struct blk_error error;
    struct progress progress;
    int signal; /* that ended it; 0: none */
    bool listening;
    struct co_queue deaf;
};

/* Runs it to its end. The exit status, after a message if it failed. */
int task_run(struct task *t, unsigned pool_threads);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* serve.h - what `lamina serve` and the qemu-nbd face have in common: a server described, and run.
 */
#ifndef TOOLS_SERVE_H
#define TOOLS_SERVE_H

#include "tools/serve_watch.h"
#include "tools/tool.h"

struct serve_plan {
    struct tool *tool;
    char **specs;
    int count;
    const char *const *names; /* of the exports, one per spec */
    const char *format;       /* of all specs; NULL: probed */
    const char *cache;        /* NULL: the default */
    const char *address;      /* as host.h writes them */
    const char *pid_file;     /* NULL: none */
    const char *control;      /* path of the control socket; NULL: none */
    bool read_only;
    bool once;            /* end with the last client */
    bool announce;        /* print URIs and a QEMU line */
    unsigned max_clients; /* 0: no limit */
    struct serve_watch_plan watch;
    unsigned workers; /* event loops: exports are spread over them; 0: one */
};

/* Serves until a signal or the plan ends it. The exit status. */
int serve_run(struct serve_plan *plan);

#endif

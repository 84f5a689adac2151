/* SPDX-License-Identifier: BSD-3-Clause */
/* ctl.h - the control socket: newline-delimited JSON over a Unix stream. {"do": "list"} -> {"ok":
 * true, "result": ...} or {"ok": false, "error": "...", "errno": "ENOENT"}. One request per line
 * (64 KiB at most), answered in order; at most 64 clients, of which the longest idle makes room.
 * The socket is its owner's alone. docs/control.md is the protocol. */
#ifndef BLOCK_CTL_H
#define BLOCK_CTL_H

#include "block/job.h"

struct ctl;

/* One verb of the protocol. Tables end with a NULL name. Runs on a coroutine; *result is a new
 * reference or NULL. */
struct ctl_verb {
    const char *name;
    const char *help; /* one line */
    int (*co_run)(struct ctl *c, const json_t *request, json_t **result, struct blk_error *e);
};

struct ctl_options {
    const char *path;      /* of the Unix socket */
    struct job_list *jobs; /* borrowed; NULL: no job verbs: `jobs`, `show`, `pause`, `resume`,
                              `cancel`, `speed` are built in */
    const struct ctl_verb *verbs; /* the server's own (list, shutdown, ...) */
    void *arg;
};

must_use int co_ctl_open(struct host *h, const struct ctl_options *o, struct ctl **out,
                         struct blk_error *e);
void *ctl_arg(const struct ctl *c);
/* Ends all connections and waits for verbs that still run: not to be called by a verb. */
void co_ctl_close(struct ctl *c);

/* The client: one request, one answer within 30 seconds. *result is a new reference (JSON null if
 * the verb gives nothing). What the server refuses comes back as its errno and sentence. */
must_use int co_ctl_call(struct host *h, const char *path, const json_t *request, json_t **result,
                         struct blk_error *e);

#endif

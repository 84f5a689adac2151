/* SPDX-License-Identifier: BSD-3-Clause */
/* run.c - how a verb runs: host and runtime around one coroutine. */
#include <signal.h>
#include <stdlib.h>

#include "tools/tool.h"

int tool_start(struct tool *t, unsigned workers, unsigned pool_threads)
{
    int rc = host_open(t->host_kind, &t->host);
    if (rc < 0) {
        const char *kind = t->host_kind ? t->host_kind : getenv(HOST_VARIABLE);
        tool_error(t, "cannot use the host '%s' (there are uring, threads and aio): %s",
                   kind ? kind : "threads", strerror(-rc));
        return rc;
    }
    struct runtime_options o = {.host = t->host, .workers = workers, .pool_threads = pool_threads};
    rc = runtime_open(&o, &t->runtime);
    if (rc < 0) {
        tool_error(t, "cannot start: %s", strerror(-rc));
        t->runtime = NULL;
        tool_stop(t);
    }
    return rc;
}

void tool_stop(struct tool *t)
{
    if (t->runtime)
        runtime_close(t->runtime);
    host_close(t->host);
    t->runtime = NULL;
    t->host = NULL;
}

int tool_run_workers(struct tool *t, unsigned workers, unsigned pool_threads,
                     int (*co_fn)(void *arg), void *arg)
{
    TRY(tool_start(t, workers, pool_threads));
    int rc = runtime_run(t->runtime, co_fn, arg);
    tool_stop(t);
    return rc;
}

int tool_run(struct tool *t, unsigned pool_threads, int (*co_fn)(void *arg), void *arg)
{
    return tool_run_workers(t, 1, pool_threads, co_fn, arg);
}

void tool_block_signals(const int *signals)
{
    sigset_t set;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void say(struct resolver *r, const char *sentence)
{
    const struct tool *t = r->arg;
    if (t->face != FACE_LAMINA)
        fprintf(stderr, "%s\n", sentence); /* QEMU's own warning, with QEMU's own beginning */
    else if (!t->quiet)
        fprintf(stderr, "%s: %s\n", t->called, sentence);
}

void tool_resolver(struct tool *t, enum trust trust, struct resolver *r)
{
    *r = (struct resolver){
        .host = t->host,
        .drivers = blk_drivers,
        .trust = t->face != FACE_LAMINA ? TRUST_FACE
                 : t->untrusted         ? TRUST_NOTHING
                                        : trust,
        .chain_dir = t->chain_dir,
        .force_share = t->force_share,
        .cache = "writeback",
        .say = say,
        .arg = t,
    };
}

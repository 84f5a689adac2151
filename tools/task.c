/* SPDX-License-Identifier: BSD-3-Clause */
/* task.c - runs a verb's job and listens to signals beside it. */
#include <signal.h>

#include "tools/task.h"

static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, 0};

static void co_signals(void *arg)
{
    struct task *t = arg;
    for (;;) {
        int s = co_host_signal(t->tool->host, signals);
        if (s < 0)
            break;
        if (s == SIGUSR1) {
            progress_line(&t->job);
            continue;
        }
        t->signal = s;
        __atomic_store_n(&t->tool->ending, true, __ATOMIC_RELAXED);
        job_cancel(&t->job);
    }
    t->listening = false;
    co_queue_wake_all(&t->deaf);
}

static void on_event(struct job *j)
{
    struct task *t = j->arg;
    progress_update(&t->progress, j);
}

static int co_body(struct job *j, struct blk_error *e)
{
    struct task *t = j->arg;
    int rc = t->co_body(t);
    if (rc == -ECANCELED && !t->error.text[0])
        err_set(&t->error, rc, "interrupted");
    if (rc < 0 && e)
        *e = t->error;
    return rc;
}

static int co_run(void *arg)
{
    struct task *t = arg;
    job_init(&t->job, t->kind, co_body, t);
    t->job.on_event = on_event;
    t->job.bytes_per_second = t->rate;
    t->listening = co_start(co_signals, t) == 0;
    int rc = co_job_run(&t->job);
    progress_end(&t->progress, &t->job, rc == 0);
    host_signal_cancel(t->tool->host);
    while (t->listening)
        co_queue_wait(&t->deaf);
    return rc;
}

int task_run(struct task *t, unsigned pool_threads)
{
    progress_init(&t->progress, t->tool);
    tool_block_signals(signals);
    int rc = tool_run(t->tool, pool_threads, co_run, t);
    if (rc < 0 && t->signal) { /* everything is tidied up: now end as the caller meant it */
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, t->signal);
        signal(t->signal, SIG_DFL);
        raise(t->signal);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
    return rc < 0 ? tool_failed(t->tool, &t->error) : 0;
}

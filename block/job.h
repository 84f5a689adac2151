/* SPDX-License-Identifier: BSD-3-Clause */
/* job.h - long work that can be watched and steered: convert, check, rebuild, scrub, ... A verb
 * runs one in the foreground, a server under its control socket (ctl.h). Lives on one worker; its
 * functions are called there. */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include <jansson.h>

#include "block/err.h"
#include "block/worker.h"

enum job_state { JOB_CREATED, JOB_RUNNING, JOB_PAUSED, JOB_DONE, JOB_FAILED, JOB_CANCELLED };

struct job {
    char id[32];       /* "convert-1" */
    const char *kind;  /* "convert": static */
    const char *about; /* what it works on; NULL: that is clear */
    enum job_state state;
    uint64_t done, total;      /* bytes, or what the kind counts */
    uint64_t bytes_per_second; /* limit; 0: none */
    uint64_t started_ns, ended_ns;
    bool pause_asked, cancel_asked;
    bool ready, complete_asked; /* it keeps in step and waits to be told that it may end */
    struct blk_error error;

    int (*co_run)(struct job *j, struct blk_error *e);
    /* Writes what is needed to go on after a stop; NULL: the kind has no checkpoint. Called from
     * co_job_step(): before it pauses, when it was cancelled, and every 10 seconds. */
    int (*co_checkpoint)(struct job *j, struct blk_error *e);
    void (*on_event)(struct job *j); /* state or progress changed; may be NULL; must not suspend */
    void *arg;

    /* job.c's */
    struct co_queue wakers, finished;
    uint64_t budget_at_ns;  /* when all bytes so far are paid for */
    uint64_t checkpoint_ns; /* of the last one */
    struct job *next;
};

struct job_list {
    struct job *first;
    unsigned serial;
};

void job_init(struct job *j, const char *kind, int (*co_run)(struct job *, struct blk_error *),
              void *arg);
/* Runs to the end in the caller. */
int co_job_run(struct job *j);
/* Starts in the background, listed in @l until job_forget(). */
must_use int job_start(struct job_list *l, struct job *j);
int co_job_wait(struct job *j);
void job_forget(struct job_list *l, struct job *j);
struct job *job_find(struct job_list *l, const char *id);

/* To be called between steps of work: counts @bytes done, keeps the speed limit, waits while
 * paused, writes the checkpoint when one is due. -ECANCELED once cancelled; the checkpoint's error.
 */
must_use int co_job_step(struct job *j, uint64_t bytes);
/* For kinds that do not end by themselves: ready from here on, until somebody asks it to complete,
 * or for @poll_ns. -ECANCELED once cancelled; 1: complete; 0: the time is over. */
must_use int co_job_ready(struct job *j, uint64_t poll_ns);
/* sync.c: does all of @s's kind (block.h) to @dev as @j's work, and writes down how far it is every
 * 10 seconds and at the end, whatever ended it. */
struct blk_device;
struct blk_sync;
must_use int co_job_sync(struct job *j, struct blk_device *dev, struct blk_sync *s,
                         struct blk_error *e);
void job_complete(struct job *j);
void job_pause(struct job *j);
void job_resume(struct job *j);
void job_cancel(struct job *j);
void job_set_speed(struct job *j, uint64_t bytes_per_second);
const char *job_state_name(enum job_state s);
/* A new object: id kind of state ready done total speed seconds error; NULL: no memory. */
json_t *job_to_json(const struct job *j);

#endif

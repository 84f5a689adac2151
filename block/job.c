/* SPDX-License-Identifier: BSD-3-Clause */
/* job.c - long work that can be watched and steered.
 *
 * The work calls co_job_step() between its steps; there it sleeps for the speed limit or while
 * paused, there it learns that it was cancelled, and there its checkpoint is written: when it
 * pauses, when it is cancelled, and every CHECKPOINT_NS while it runs. The speed limit is a bucket
 * of time: each step moves the moment at which all bytes so far are paid for; time that was not
 * used is lost but for BURST_NS, so a job that stood still does not race afterwards. */
#include "block/job.h"

#include <stdio.h>

#include "block/option.h"

#define SECOND_NS     1000000000ULL
#define BURST_NS      (100 * 1000000ULL)
#define CHECKPOINT_NS (10 * SECOND_NS)

const char *job_state_name(enum job_state s)
{
    static const char *const names[] = {
        [JOB_CREATED] = "created", [JOB_RUNNING] = "running", [JOB_PAUSED] = "paused",
        [JOB_DONE] = "done",       [JOB_FAILED] = "failed",   [JOB_CANCELLED] = "cancelled",
    };
    return names[s];
}

static bool has_ended(const struct job *j)
{
    return j->state >= JOB_DONE;
}

static void tell(struct job *j)
{
    if (j->on_event)
        j->on_event(j);
}

static void set_state(struct job *j, enum job_state s)
{
    j->state = s;
    tell(j);
}

void job_init(struct job *j, const char *kind, int (*co_run)(struct job *, struct blk_error *),
              void *arg)
{
    *j = (struct job){.kind = kind, .co_run = co_run, .arg = arg};
    snprintf(j->id, sizeof j->id, "%s", kind);
}

/* --- run
 * ------------------------------------------------------------------------------------- */

int co_job_run(struct job *j)
{
    assert(j->state == JOB_CREATED);
    j->started_ns = j->checkpoint_ns = j->budget_at_ns = worker_now();
    set_state(j, JOB_RUNNING);
    int rc = j->co_run(j, &j->error);
    j->ended_ns = worker_now();
    if (rc < 0 && j->error.rc == 0)
        err_errno(&j->error, rc, "%s", j->kind);
    bool cancelled = rc == -ECANCELED && j->cancel_asked;
    set_state(j, cancelled ? JOB_CANCELLED : rc < 0 ? JOB_FAILED : JOB_DONE);
    co_queue_wake_all(&j->finished);
    return rc;
}

static void co_background(void *arg)
{
    int rc = co_job_run(arg);
    (void)rc; /* in the job's error */
}

int job_start(struct job_list *l, struct job *j)
{
    snprintf(j->id, sizeof j->id, "%.20s-%u", j->kind, ++l->serial);
    TRY(co_start_later(co_background, j));
    struct job **last = &l->first;
    while (*last)
        last = &(*last)->next;
    j->next = NULL;
    *last = j;
    return 0;
}

int co_job_wait(struct job *j)
{
    while (!has_ended(j))
        co_queue_wait(&j->finished);
    return j->state == JOB_DONE ? 0 : j->error.rc;
}

void job_forget(struct job_list *l, struct job *j)
{
    assert(has_ended(j));
    struct job **at = &l->first;
    while (*at && *at != j)
        at = &(*at)->next;
    if (*at)
        *at = j->next;
}

struct job *job_find(struct job_list *l, const char *id)
{
    struct job *j = l->first;
    while (j && strcmp(j->id, id) != 0)
        j = j->next;
    return j;
}

/* --- between steps
 * ------------------------------------------------------------------------------------- */

static int co_checkpoint(struct job *j)
{
    j->checkpoint_ns = worker_now();
    return j->co_checkpoint ? j->co_checkpoint(j, &j->error) : 0;
}

struct alarm {
    struct timer timer;
    struct job *job;
};

static void ring(struct timer *t)
{
    co_queue_wake_all(&container_of(t, struct alarm, timer)->job->wakers);
}

/* Until @at_ns or until somebody steers the job. */
static void co_sleep_until(struct job *j, uint64_t at_ns)
{
    struct alarm alarm = {.job = j};
    timer_arm(&alarm.timer, at_ns, ring);
    co_queue_wait(&j->wakers);
    timer_cancel(&alarm.timer);
}

static int co_pause(struct job *j)
{
    TRY(co_checkpoint(j));
    set_state(j, JOB_PAUSED);
    while (j->pause_asked && !j->cancel_asked)
        co_queue_wait(&j->wakers);
    j->budget_at_ns = worker_now();
    set_state(j, JOB_RUNNING);
    return 0;
}

/* Nanoseconds that @bytes take; a bound instead of an overflow. */
static uint64_t cost(uint64_t bytes, uint64_t bytes_per_second)
{
    unsigned __int128 ns = (unsigned __int128)bytes * SECOND_NS / bytes_per_second;
    return ns > UINT64_MAX / 4 ? UINT64_MAX / 4 : (uint64_t)ns;
}

static void pay(struct job *j, uint64_t bytes)
{
    uint64_t now = worker_now();
    uint64_t earliest = now > BURST_NS ? now - BURST_NS : 0;
    j->budget_at_ns = MAX(j->budget_at_ns, earliest);
    uint64_t price = cost(bytes, j->bytes_per_second);
    if (!add_u64(j->budget_at_ns, price, &j->budget_at_ns))
        j->budget_at_ns = UINT64_MAX;
}

int co_job_step(struct job *j, uint64_t bytes)
{
    j->done += bytes;
    if (j->bytes_per_second)
        pay(j, bytes);
    if (bytes)
        tell(j);
    for (;;) {
        if (j->cancel_asked) {
            TRY(co_checkpoint(j));
            return err_set(&j->error, -ECANCELED, "%s was cancelled", j->kind);
        }
        if (j->pause_asked)
            TRY(co_pause(j));
        else if (j->bytes_per_second && j->budget_at_ns > worker_now())
            co_sleep_until(j, j->budget_at_ns);
        else
            break;
    }
    if (j->co_checkpoint && worker_now() - j->checkpoint_ns >= CHECKPOINT_NS)
        return co_checkpoint(j);
    return 0;
}

int co_job_ready(struct job *j, uint64_t poll_ns)
{
    if (!j->ready) {
        j->ready = true;
        tell(j);
    }
    if (!j->cancel_asked && !j->complete_asked)
        co_sleep_until(j, worker_now() + poll_ns);
    if (j->cancel_asked)
        return err_set(&j->error, -ECANCELED, "%s was cancelled", j->kind);
    return j->complete_asked;
}

/* --- steering
 * ------------------------------------------------------------------------------------- */

void job_pause(struct job *j)
{
    j->pause_asked = true;
    co_queue_wake_all(&j->wakers);
}

void job_resume(struct job *j)
{
    j->pause_asked = false;
    co_queue_wake_all(&j->wakers);
}

void job_complete(struct job *j)
{
    j->complete_asked = true;
    co_queue_wake_all(&j->wakers);
}

void job_cancel(struct job *j)
{
    j->cancel_asked = true;
    co_queue_wake_all(&j->wakers);
}

/* What was owed at the old speed is forgiven. */
void job_set_speed(struct job *j, uint64_t bytes_per_second)
{
    j->bytes_per_second = bytes_per_second;
    j->budget_at_ns = worker_now();
    co_queue_wake_all(&j->wakers);
}

json_t *job_to_json(const struct job *j)
{
    uint64_t end = has_ended(j) ? j->ended_ns : worker_now();
    uint64_t ran = j->started_ns ? end - j->started_ns : 0;
    json_t *o =
        json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:f}", "id", j->id, "kind", j->kind, "state",
                  job_state_name(j->state), "ready", j->ready && !has_ended(j), "done",
                  (json_int_t)j->done, "total", (json_int_t)j->total, "speed",
                  (json_int_t)j->bytes_per_second, "seconds", (double)ran / (double)SECOND_NS);
    json_t *about = j->about ? json_from_text(j->about) : json_null();
    json_t *error = j->error.rc < 0 && has_ended(j) ? json_from_text(j->error.text) : json_null();
    if (json_object_set_new_nocheck(o, "of", about) < 0 ||
        json_object_set_new_nocheck(o, "error", error) < 0) {
        json_decref(o);
        return NULL;
    }
    return o;
}

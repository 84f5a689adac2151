/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_fault.c - the n-th call of each kind fails while a workload runs; errors are allowed, lies
 * are not.
 *
 * After the fault the client does what a database would: it repeats what failed, flushes, and if
 * the flush fails (it then has to stay failed) opens the image anew and repeats all that was not
 * flushed. In the end everything must be there, fresh allocations must alias nothing, the driver's
 * check must find leaks only. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/sweep_int.h"

struct fault_mode {
    const char *name;
    enum sweep_fault_target target;
    struct sim_fault fault;
};

#define FOREVER UINT64_MAX

static const struct fault_mode modes[] = {
    {"read-eio", FAULT_CALL, {.op = SIM_READ, .times = 1, .rc = -EIO}},
    {"read-eio-on", FAULT_CALL, {.op = SIM_READ, .times = FOREVER, .rc = -EIO}},
    {"write-eio", FAULT_CALL, {.op = SIM_WRITE, .times = 1, .rc = -EIO}},
    {"write-enospc", FAULT_CALL, {.op = SIM_WRITE, .times = 1, .rc = -ENOSPC}},
    {"write-short", FAULT_CALL, {.op = SIM_WRITE, .times = 1, .rc = -EIO, .short_bytes = 1536}},
    {"write-enospc-on", FAULT_CALL, {.op = SIM_WRITE, .times = FOREVER, .rc = -ENOSPC}},
    {"fsync-eio", FAULT_CALL, {.op = SIM_FSYNC, .times = 1, .rc = -EIO}},
    {"fsync-loss", FAULT_CALL, {.op = SIM_FSYNC, .times = 1, .rc = -EIO, .lose_unsynced = true}},
    {"fsync-loss-on",
     FAULT_CALL,
     {.op = SIM_FSYNC, .times = FOREVER, .rc = -EIO, .lose_unsynced = true}},
    {"truncate-enospc", FAULT_CALL, {.op = SIM_TRUNCATE, .times = 1, .rc = -ENOSPC}},
    {"truncate-eio-on", FAULT_CALL, {.op = SIM_TRUNCATE, .times = FOREVER, .rc = -EIO}},
    {"fallocate-enotsup", FAULT_CALL, {.op = SIM_FALLOCATE, .times = FOREVER, .rc = -ENOTSUP}},
    {"fallocate-eio", FAULT_CALL, {.op = SIM_FALLOCATE, .times = 1, .rc = -EIO}},
    {"open-eio", FAULT_CALL, {.op = SIM_OPEN, .times = 1, .rc = -EIO}},
    {"names-eio", FAULT_CALL, {.op = SIM_NAMES, .times = 1, .rc = -EIO}},
    {"copy-eio", FAULT_CALL, {.op = SIM_COPY, .times = 1, .rc = -EIO}},
    {"alloc", FAULT_ALLOC, {.times = 1}},
    {"alloc-on", FAULT_ALLOC, {.times = FOREVER}},
};

bool sweep_fault_parse(const char *text, struct sweep_fault_point *p)
{
    const char *colon = strchr(text, ':');
    for (unsigned i = 0; colon && i < ARRAY_LEN(modes); i++) {
        if (strlen(modes[i].name) == (size_t)(colon - text) &&
            strncmp(text, modes[i].name, (size_t)(colon - text)) == 0) {
            *p = (struct sweep_fault_point){i, strtoull(colon + 1, NULL, 10)};
            return p->nth > 0;
        }
    }
    return false;
}

struct faulted {
    struct sweep_work w;
    struct sweep_fault_point point; /* nth 0: none, only count */
    bool fired;
    uint64_t calls[SIM_OP_KINDS], allocs;
};

static void arm(struct faulted *f)
{
    const struct fault_mode *m = &modes[f->point.mode];
    if (!f->point.nth) {
        worker_self()->alloc_fault = (struct alloc_fault){.countdown = UINT64_MAX};
        return;
    }
    if (m->target == FAULT_ALLOC) {
        f->w.alloc_nth = f->point.nth;
        worker_self()->alloc_fault =
            (struct alloc_fault){.countdown = f->point.nth, .sticky = m->fault.times == FOREVER};
        return;
    }
    struct sim_fault fault = m->fault;
    fault.nth = f->point.nth;
    host_sim_fault(f->w.run.host, &fault);
}

static void count(struct faulted *f)
{
    f->allocs = worker_self()->alloc_fault.seen;
    for (unsigned i = 0; i < SIM_OP_KINDS; i++)
        f->calls[i] = host_sim_count(f->w.run.host, (enum sim_op)i);
}

/* Once more all that failed or is in doubt, as new operations. False: something failed again. */
static bool co_retry(struct sweep_work *w)
{
    bool ok = true;
    uint32_t until = w->model.op_count;
    for (uint32_t i = 1; i < until && !w->verdict.what; i++) {
        const struct model_op op = w->model.ops[i];
        if (op.ok || op.kind > MODEL_ZERO || op.offset >= w->dev->size)
            continue;
        struct sweep_step step = {.kind = op.kind == MODEL_WRITE ? STEP_WRITE : STEP_ZEROES,
                                  .offset = op.offset,
                                  .bytes = MIN(op.bytes, sweep_max_bytes(w->run.subject))};
        ok &= co_sweep_step(w, &step) == 0;
    }
    return ok;
}

static const struct sweep_step flush_step = {.kind = STEP_FLUSH};

static void co_look(struct sweep_work *w)
{
    if (w->dev && !w->verdict.what && !sweep_lost(w) && co_sweep_read_all(w) == 0)
        sweep_compare(w, NULL);
}

/* The fault is over: with the image as it is, then (if its flush is spoilt) opened anew. */
static void co_recover(struct sweep_work *w)
{
    co_look(w);
    if (!w->dev || w->verdict.what)
        return;
    bool retried = co_retry(w);
    bool flushed = co_sweep_step(w, &flush_step) == 0;
    if (flushed && !retried)
        sweep_broke(&w->verdict, BREAK_LIE,
                    "the fault is over, a retry still fails, yet a flush succeeds");
    if (flushed)
        w->faults = false;
    co_sweep_close(w);
    co_sweep_open_again(w);
    w->faults = false;
    co_look(w);
    if (flushed || !w->dev || w->verdict.what)
        return;
    co_retry(w);
    co_sweep_step(w, &flush_step);
    co_sweep_close(w);
    co_sweep_open_again(w);
    co_look(w);
}

static int fault_main(void *arg)
{
    struct faulted *f = arg;
    struct sweep_work *w = &f->w;
    arm(f);
    co_sweep_steps(w);
    count(f);
    sweep_disarm(w);
    f->fired = w->fired;
    co_recover(w);
    if (w->dev) {
        co_sweep_allocate(w);
        co_sweep_clean(w);
        co_sweep_close(w);
    }
    return 0;
}

static void fault_run(struct faulted *f, const struct sweep_subject *s, const struct host *base,
                      uint64_t seed, const struct sweep_fault_point *p)
{
    const struct fault_mode *m = &modes[p->mode];
    struct sweep_step *steps;
    struct host *host;
    if (host_sim_clone(base, seed, &host) < 0)
        abort();
    sweep_work_init(&f->w, s, host, seed);
    f->point = *p;
    f->w.step_count = sweep_plan(s, seed, s->ops ? s->ops : 60, &steps);
    f->w.steps = steps;
    f->w.faults = p->nth > 0;
    f->w.loses = m->fault.lose_unsynced;
    f->w.sticky_flush =
        m->target == FAULT_CALL && !(s->flags & SWEEP_FLUSH_RETRY) && m->fault.op == SIM_FSYNC;
    if (sweep_trace())
        host_sim_record(host);
    sweep_on(host, s->workers, fault_main, f);
    if (sweep_trace())
        host_sim_print(host, stdout);
    free(steps);
}

static void fault_end(struct faulted *f)
{
    host_close(f->w.run.host);
    sweep_work_drop(&f->w);
}

static void replay_text(const struct sweep_fault_point *p, char *to, size_t room)
{
    snprintf(to, room, "--fault %s:%" PRIu64, modes[p->mode].name, p->nth);
}

static void fault_note(struct faulted *f, const char *program, uint64_t seed,
                       struct sweep_result *r)
{
    char replay[100];
    replay_text(&f->point, replay, sizeof(replay));
    sweep_note(r, &f->w.verdict, program, f->w.run.subject, seed, replay);
    r->fault_points += f->fired;
}

static void foreign_look(struct faulted *f, unsigned *left, struct sweep_result *r)
{
    char text[32 * KiB];
    if (!f->w.run.subject->foreign || *left == 0 || f->w.verdict.what)
        return;
    int rc = sweep_foreign(f->w.run.subject, f->w.run.host, text, sizeof(text));
    if (rc < 0)
        return;
    (*left)--;
    r->foreign++;
    if (rc == 0)
        sweep_broke(&f->w.verdict, BREAK_REPAIR, "the foreign checker: %s", text);
}

static bool is_left_out(const struct sweep_subject *s, const struct fault_mode *m)
{
    if (m->target != FAULT_CALL || m->fault.times != FOREVER || m->fault.rc == -ENOTSUP)
        return false;
    return s->flags & SWEEP_FAULTS_ONCE ||
           (s->flags & SWEEP_FSYNCS_ONCE && m->fault.op == SIM_FSYNC);
}

/* How many points of each mode are taken: all where there are few, the budget is shared by the
 * others. */
static void share(const struct faulted *counted, uint64_t seed, uint64_t budget, uint64_t *quota,
                  uint64_t *calls)
{
    unsigned open = 0;
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        calls[i] =
            modes[i].target == FAULT_ALLOC ? counted->allocs : counted->calls[modes[i].fault.op];
        if (is_left_out(counted->w.run.subject, &modes[i]))
            calls[i] = 0;
        quota[i] = 0;
        open += calls[i] > 0;
    }
    while (open > 0 && budget >= open) {
        uint64_t each = budget / open;
        open = 0;
        for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
            uint64_t more = MIN(each, calls[i] - quota[i]);
            quota[i] += more;
            budget -= more;
            open += quota[i] < calls[i];
        }
    }
    for (unsigned k = 0; k < ARRAY_LEN(modes); k++) {
        unsigned i = (unsigned)((seed * 5 + k) % ARRAY_LEN(modes));
        bool one = budget > 0 && quota[i] < calls[i];
        quota[i] += one;
        budget -= one;
    }
}

static void fault_one(const char *program, const struct sweep_subject *s, const struct host *base,
                      uint64_t seed, const struct sweep_fault_point *p, unsigned *foreign,
                      struct sweep_result *r)
{
    struct faulted f = {0};
    char replay[100];
    replay_text(p, replay, sizeof(replay));
    sweep_watch(program, s, seed, replay);
    fault_run(&f, s, base, seed, p);
    foreign_look(&f, foreign, r);
    fault_note(&f, program, seed, r);
    fault_end(&f);
}

void sweep_faults(const char *program, const struct sweep_subject *s, uint64_t seed,
                  uint64_t budget, unsigned foreign, struct sweep_result *r)
{
    struct sweep_verdict v = {0};
    struct host *base = sweep_prepare(s, seed, &v);
    if (!base) {
        sweep_note(r, &v, program, s, seed, "");
        return;
    }
    struct faulted f = {0};
    uint64_t quota[ARRAY_LEN(modes)], calls[ARRAY_LEN(modes)];
    fault_run(&f, s, base, seed, &(struct sweep_fault_point){0});
    share(&f, seed, budget, quota, calls);
    sweep_note(r, &f.w.verdict, program, s, seed, "--fault write-eio:1000000000");
    fault_end(&f);
    for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
        for (uint64_t k = 0; k < quota[i] && !r->failed; k++) {
            /* evenly spread, beginning anywhere */
            uint64_t nth = 1 + (k * calls[i] + sim_mix(seed, i) % calls[i]) / quota[i] % calls[i];
            fault_one(program, s, base, seed, &(struct sweep_fault_point){i, nth}, &foreign, r);
        }
    }
    host_close(base);
}

void sweep_fault_one(const char *program, const struct sweep_subject *s, uint64_t seed,
                     const struct sweep_fault_point *p, struct sweep_result *r)
{
    struct sweep_verdict v = {0};
    struct host *base = sweep_prepare(s, seed, &v);
    unsigned foreign = 1;
    if (!base) {
        sweep_note(r, &v, program, s, seed, "");
        return;
    }
    fault_one(program, s, base, seed, p, &foreign, r);
    host_close(base);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep.c - rows, budgets, arguments and what is printed; the model test. */
#include "tests/sweep.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/lib/on_host.h"
#include "tests/lib/sweep_int.h"

#define STUCK_SECONDS 60 /* of CPU: the machine may be busy with other things */

static char running[1200]; /* for the signal handler */

static void died(int number)
{
    ssize_t n = write(STDOUT_FILENO, running, strlen(running));
    (void)n;
    signal(number, SIG_DFL);
    raise(number == SIGPROF ? SIGKILL : number);
}

static void watch_cpu(time_t seconds)
{
    struct itimerval t = {.it_value.tv_sec = seconds};
    setitimer(ITIMER_PROF, &t, NULL);
}

void sweep_watch(const char *program, const struct sweep_subject *s, uint64_t seed,
                 const char *replay)
{
    static const int numbers[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGPROF};
    if (!running[0])
        for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
            signal(numbers[i], died);
    snprintf(running, sizeof(running),
             "FAIL - %s: died or stuck\nreplay: %s --row %s --seed %" PRIu64 " %s\n", s->name,
             program, s->name, seed, replay);
    watch_cpu(STUCK_SECONDS);
}

bool sweep_trace(void)
{
    return getenv("SWEEP_TRACE") != NULL;
}

void sweep_note(struct sweep_result *r, const struct sweep_verdict *v, const char *program,
                const struct sweep_subject *s, uint64_t seed, const char *replay)
{
    r->lost += v->what == BREAK_LOST;
    r->aliased += v->what == BREAK_ALIAS;
    r->repairs += v->what == BREAK_REPAIR;
    r->lies += v->what == BREAK_LIE;
    if (v->what == BREAK_NONE || r->failed)
        return;
    r->failed = true;
    snprintf(r->first, sizeof(r->first), "# %s\nreplay: %s --row %s --seed %" PRIu64 " %s", v->text,
             program, s->name, seed, replay);
}

/* --- the model test: one long run
 * ----------------------------------------------------------------- */

static int model_main(void *arg)
{
    struct sweep_work *w = arg;
    co_sweep_steps(w);
    for (unsigned round = 0; round < 2 && w->dev && !w->verdict.what; round++) {
        if (co_sweep_read_all(w) == 0)
            sweep_compare(w, NULL);
        co_sweep_close(w);
        co_sweep_open_again(w);
    }
    if (w->dev && !w->verdict.what && co_sweep_read_all(w) == 0) {
        sweep_compare(w, NULL);
        co_sweep_allocate(w);
        co_sweep_clean(w);
    }
    co_sweep_close(w);
    return 0;
}

static void model_run(const char *program, const struct sweep_subject *s, uint64_t seed,
                      unsigned ops, struct sweep_result *r)
{
    struct sweep_work w;
    struct sweep_verdict v = {0};
    struct sweep_step *steps;
    char replay[40];
    snprintf(replay, sizeof(replay), "--model %u", ops);
    struct host *host = sweep_prepare(s, seed, &v);
    if (!host) {
        sweep_note(r, &v, program, s, seed, replay);
        return;
    }
    sweep_work_init(&w, s, host, seed);
    w.step_count = sweep_plan(s, sim_mix(seed, 99), ops, &steps);
    w.steps = steps;
    sweep_watch(program, s, seed, replay);
    sweep_on(host, s->workers, model_main, &w);
    r->model_ops += w.done;
    char text[600];
    if (!w.verdict.what && s->foreign && sweep_foreign(s, host, text, sizeof(text)) == 0)
        sweep_broke(&w.verdict, BREAK_REPAIR, "qemu-img check: %s", text);
    sweep_note(r, &w.verdict, program, s, seed, replay);
    sweep_work_drop(&w);
    host_close(host);
    free(steps);
}

/* --- rows
 * ----------------------------------------------------------------------------------------- */

void sweep_row(const char *program, const struct sweep_subject *s, const struct sweep_budget *b,
               struct sweep_result *r)
{
    *r = (struct sweep_result){0};
    /* Thousands of machines come and go: keep their memory. */
    mallopt(M_MMAP_THRESHOLD, 512 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 20);
    for (unsigned k = 0; k < b->seeds && !r->failed; k++) {
        uint64_t seed = k + 1, faults = b->fault_points / b->seeds;
        uint64_t states = b->crash_states / b->seeds * (long_form() ? MAX(1U, s->long_factor) : 1);
        if (b->model_ops)
            model_run(program, s, seed, b->model_ops * MAX(1U, s->model_factor), r);
        if (!r->failed && faults && !(s->flags & SWEEP_NO_FAULTS))
            sweep_faults(program, s, seed, faults, b->foreign / b->seeds / 4, r);
        if (!r->failed && states && !(s->flags & SWEEP_NO_CRASHES))
            sweep_crashes(program, s, seed, states, b->foreign / b->seeds, r);
    }
}

static void print_row(const struct sweep_subject *s, const struct sweep_result *r)
{
    printf("%s - %s: %" PRIu64 " fault points, %" PRIu64 " crash states, %" PRIu64
           " model operations, %" PRIu64 " lost, %" PRIu64 " aliased, %" PRIu64 " needing repair\n",
           r->failed ? "FAIL" : "ok", s->name, r->fault_points, r->crash_states, r->model_ops,
           r->lost + r->lies, r->aliased, r->repairs);
    if (r->failed)
        printf("%s\n", r->first);
    fflush(stdout);
}

struct arguments {
    const char *row, *fault, *apply;
    uint64_t seed, tear, cut, model;
    bool list, has_cut;
};

static bool parse(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {
        {"row", 1, NULL, 'r'},   {"seed", 1, NULL, 's'},  {"fault", 1, NULL, 'f'},
        {"cut", 1, NULL, 'c'},   {"apply", 1, NULL, 'a'}, {"tear", 1, NULL, 't'},
        {"model", 1, NULL, 'm'}, {"list", 0, NULL, 'l'},  {NULL, 0, NULL, 0},
    };
    *a = (struct arguments){.seed = 1, .apply = "-"};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (c) {
        case 'r':
            a->row = optarg;
            break;
        case 's':
            a->seed = number;
            break;
        case 'f':
            a->fault = optarg;
            break;
        case 'c':
            a->cut = number;
            a->has_cut = true;
            break;
        case 'a':
            a->apply = optarg;
            break;
        case 't':
            a->tear = number;
            break;
        case 'm':
            a->model = number;
            break;
        case 'l':
            a->list = true;
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

/* One point of one row. */
static int replay(const char *program, const struct sweep_subject *s, const struct arguments *a)
{
    struct sweep_result r = {0};
    struct sweep_fault_point p;
    if (a->fault && !sweep_fault_parse(a->fault, &p)) {
        fprintf(stderr, "no such fault: %s\n", a->fault);
        return 2;
    }
    if (a->fault)
        sweep_fault_one(program, s, a->seed, &p, &r);
    else if (a->has_cut)
        sweep_crash_one(program, s, a->seed, a->cut, a->apply, a->tear, &r);
    else
        model_run(program, s, a->seed, (unsigned)a->model, &r);
    print_row(s, &r);
    return r.failed;
}

static void budget_of(unsigned rows, uint64_t faults, uint64_t states, struct sweep_budget *b)
{
    bool longer = long_form();
    *b = (struct sweep_budget){
        .seeds = longer ? 8 : 2,
        .model_ops = longer ? MIN(4000, 32000 / rows) : MIN(1000, 16000 / rows),
        .fault_points = div_up(faults * (longer ? 10 : 1), rows) + 8,
        .crash_states = div_up(states * (longer ? 10 : 1), rows) + 8,
        .foreign = longer ? 2000 / rows : MAX(1, 150 / rows),
    };
}

static void add(struct sweep_result *sum, const struct sweep_result *r)
{
    sum->fault_points += r->fault_points;
    sum->crash_states += r->crash_states;
    sum->crash_skipped += r->crash_skipped;
    sum->model_ops += r->model_ops;
    sum->foreign += r->foreign;
    sum->lost += r->lost + r->lies;
    sum->aliased += r->aliased;
    sum->repairs += r->repairs;
    sum->failed |= r->failed;
}

int sweep_main(int argc, char **argv, const struct sweep_subject *rows, uint64_t faults,
               uint64_t states)
{
    struct arguments a;
    unsigned count = 0, ran = 0;
    struct sweep_result sum = {0};
    if (!parse(argc, argv, &a)) {
        fprintf(stderr,
                "usage: %s [--list] [--row ROW] [--seed N] [--model N | --fault MODE:N | "
                "--cut N --apply DIGITS --tear N]\n",
                argv[0]);
        return 2;
    }
    for (const struct sweep_subject *s = rows; s->name; s++)
        count++;
    struct sweep_budget b;
    budget_of(count, faults, states, &b);
    for (const struct sweep_subject *s = rows; s->name; s++) {
        if (a.list)
            printf("%s\n", s->name);
        if (a.list || (a.row && strcmp(a.row, s->name) != 0))
            continue;
        ran++;
        if (a.fault || a.has_cut || a.model)
            return replay(argv[0], s, &a);
        struct sweep_result r;
        sweep_row(argv[0], s, &b, &r);
        watch_cpu(0);
        print_row(s, &r);
        add(&sum, &r);
    }
    if (ran == 0)
        return a.list ? 0 : 2;
    printf("# %u rows: %" PRIu64 " fault points, %" PRIu64 " crash states (%" PRIu64
           " more were equal to one seen), %" PRIu64 " model operations, %" PRIu64
           " looks by foreign checkers: %" PRIu64 " lost, %" PRIu64 " aliased, %" PRIu64
           " needing repair\n",
           ran, sum.fault_points, sum.crash_states, sum.crash_skipped, sum.model_ops, sum.foreign,
           sum.lost, sum.aliased, sum.repairs);
    return sum.failed;
}

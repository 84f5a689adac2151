/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_int.h - what the files of the sweep library share.
 *
 *   sweep.c         rows, budgets, arguments, printing
 *   sweep_stack.c   a subject's images: create, open, check, the foreign checker
 *   sweep_work.c    workloads drawn from a seed, run with many operations in flight
 *   sweep_verify.c  reading a whole device; three fresh allocations; nothing else may change
 *   sweep_fault.c   the n-th call fails            sweep_crash.c   the power goes at every cut */
#ifndef TESTS_LIB_SWEEP_INT_H
#define TESTS_LIB_SWEEP_INT_H

#include "block/host_sim_store.h"
#include "tests/lib/model.h"
#include "tests/sweep.h"

#define SWEEP_SLOTS 16

/* What broke first. */
enum sweep_break {
    BREAK_NONE,
    BREAK_LOST,   /* a sector shows a value that it may not */
    BREAK_ALIAS,  /* a fresh write changed another place */
    BREAK_REPAIR, /* does not open, own check not clean, not writable */
    BREAK_LIE,    /* an operation succeeded that may not, failed without cause, a wrong read */
    BREAK_KINDS,
};
struct sweep_verdict {
    enum sweep_break what;
    char text[1200];
};
void sweep_broke(struct sweep_verdict *v, enum sweep_break what, const char *fmt, ...)
    printf_like(3, 4); /* keeps the first */

enum sweep_step_kind {
    STEP_WRITE,
    STEP_ZEROES,
    STEP_DISCARD,
    STEP_READ,
    STEP_FLUSH,
    STEP_HOOK,
    STEP_REOPEN,
    STEP_KILL,
    STEP_RESIZE,
    STEP_COMPACT,
};
struct sweep_step {
    enum sweep_step_kind kind;
    uint64_t offset, bytes; /* resize: bytes is the new size */
    unsigned flags;
    unsigned depth; /* operations in flight when this one starts, at most */
    bool elsewhere; /* called from another worker */
};

struct sweep_work;
struct sweep_slot {
    struct sweep_work *work;
    const struct sweep_step *step;
    uint8_t *buffer;
    bool busy;
};

/* One run of a workload on one machine. */
struct sweep_work {
    struct sweep_run run;
    const struct sweep_step *steps;
    unsigned step_count;
    struct model model;
    struct sweep_verdict verdict;
    struct blk_device *dev; /* NULL: not open */
    bool faults;            /* errors are allowed */
    bool loses;             /* the fault drops unsynced data */
    uint64_t alloc_nth;     /* the allocation that fails; 0: none */
    bool fired;             /* a fault has fired; up to date once it is disarmed */
    uint64_t fired_before;  /* faults that had fired when the device was opened */
    bool lost;              /* an fsync failed with loss since: the page cache may show anything
                               where data was lost, so reads are not checked until it is reopened */
    bool sticky_flush;      /* fsyncs fail: a failed flush must stay failed */
    uint64_t flush_failed;  /* model time of such a failure; 0: none since the last open */
    bool step_failed;       /* the row's own step did: what it left open may say so once more */
    bool killed;            /* errors are the process's own death */
    bool trace;             /* print each operation */
    uint64_t done;
    unsigned in_flight;
    struct co_queue room;
    struct sweep_slot slots[SWEEP_SLOTS];
    uint32_t *found;      /* values read by sweep_read_all(), one per sector */
    uint64_t found_count; /* sectors */
};

uint32_t sweep_granule(const struct sweep_subject *s);
uint32_t sweep_max_bytes(const struct sweep_subject *s);
uint64_t sweep_max_size(const struct sweep_subject *s);
bool sweep_trace(void);

/* sweep_stack.c */

/* A machine with the subject's images on it, durable. NULL with *v set if they cannot be made. */
struct host *sweep_prepare(const struct sweep_subject *s, uint64_t seed, struct sweep_verdict *v);
/* Runs @fn(@arg) as a coroutine on a new runtime over @host. */
int sweep_on(struct host *host, unsigned workers, int (*fn)(void *arg), void *arg);
void sweep_run_init(struct sweep_run *run, const struct sweep_subject *s, struct host *host,
                    uint64_t seed);
must_use int co_sweep_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e);
must_use int co_sweep_check(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                            struct blk_error *e);
/* qemu-img's opinion of the image on @host: 1 clean (or only leaks), 0 not, negative: no qemu-img.
 */
int sweep_foreign(const struct sweep_subject *s, const struct host *host, char *text, size_t room);

/* sweep_work.c */

/* Gives *steps (free()); the last is a flush. */
unsigned sweep_plan(const struct sweep_subject *s, uint64_t seed, unsigned count,
                    struct sweep_step **steps);
void sweep_work_init(struct sweep_work *w, const struct sweep_subject *s, struct host *host,
                     uint64_t seed);
void sweep_work_drop(struct sweep_work *w);
/* Opens (if need be) and runs the steps; leaves the device open. With faults: one that cannot be
 * opened any more is opened without. */
void co_sweep_steps(struct sweep_work *w);
void co_sweep_close(struct sweep_work *w);
void co_sweep_open_again(struct sweep_work *w);
/* One operation outside of the plan. */
int co_sweep_step(struct sweep_work *w, const struct sweep_step *step);
void sweep_disarm(struct sweep_work *w);
bool sweep_lost(struct sweep_work *w); /* brings w->lost up to date */

/* sweep_verify.c */

/* Fills w->found. Gives 0 or the error of a read. */
must_use int co_sweep_read_all(struct sweep_work *w);
/* Every value of w->found is legal: for reads now, or with @legal (see sweep_legal) for a crash. */
struct sweep_legal {
    uint64_t cut, sectors;
    uint32_t *at; /* sectors + 1: where the set of a sector begins */
    uint32_t *values;
};
void sweep_legal_make(struct sweep_legal *l, const struct model *m, uint64_t cut);
void sweep_legal_drop(struct sweep_legal *l);
void sweep_compare(struct sweep_work *w, const struct sweep_legal *legal);
/* Three fresh allocations, then everything else must be as w->found has it; flush. */
void co_sweep_allocate(struct sweep_work *w);
/* The driver's own check: no corruption. */
void co_sweep_clean(struct sweep_work *w);

/* sweep_fault.c */

enum sweep_fault_target { FAULT_CALL, FAULT_ALLOC };
struct sweep_fault_point {
    unsigned mode; /* index into the table of modes */
    uint64_t nth;
};
void sweep_faults(const char *program, const struct sweep_subject *s, uint64_t seed,
                  uint64_t budget, unsigned foreign, struct sweep_result *r);
bool sweep_fault_parse(const char *text, struct sweep_fault_point *p);
void sweep_fault_one(const char *program, const struct sweep_subject *s, uint64_t seed,
                     const struct sweep_fault_point *p, struct sweep_result *r);

/* sweep_crash.c */

void sweep_crashes(const char *program, const struct sweep_subject *s, uint64_t seed,
                   uint64_t budget, unsigned foreign, struct sweep_result *r);
void sweep_crash_one(const char *program, const struct sweep_subject *s, uint64_t seed, size_t cut,
                     const char *apply, uint64_t tear, struct sweep_result *r);

/* sweep.c */

/* What runs now: an assertion, a crash or a minute's standstill prints the line that replays it. */
void sweep_watch(const char *program, const struct sweep_subject *s, uint64_t seed,
                 const char *replay);
/* Counts @v in @r and keeps the first failure with its replay line. */
void sweep_note(struct sweep_result *r, const struct sweep_verdict *v, const char *program,
                const struct sweep_subject *s, uint64_t seed, const char *replay);

#endif

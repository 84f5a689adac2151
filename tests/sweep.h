/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep.h - the proof as a table-driven library: a subject (device stack, workload, checker) is one
 * row; the model test, the fault sweep and the crash sweep are the same for all.
 *
 * A sweep program is a table of subjects and `return sweep_main(argc, argv, "qcow2", rows)`. It
 * runs each row over the simulated host (block/host_sim.h), prints a line `ok - ROW: ...` or `FAIL
 * - ROW: ...` and, for a failure, one line that replays it:
 *
 *     replay: build/tests/sweeps/qcow2 --row qcow2-v3 --seed 7 --fault write:12:once:eio
 *     replay: build/tests/sweeps/qcow2 --row qcow2-v3 --seed 7 --cut 91 --apply 1:0:2 --tear 5
 *
 * What is checked, docs/testing.md says; what a crash may leave, block/host_sim.h does. */
#ifndef TESTS_SWEEP_H
#define TESTS_SWEEP_H

#include "block/block.h"
#include "block/host_sim.h"
#include "block/resolver.h"

struct sweep_run;

/* How often each operation is drawn: weights, 0: never. kill: the process dies with what it had in
 * flight, the next one opens what it left in the page cache. */
struct sweep_profile {
    unsigned write, fua, compressed, zeroes, unmap, discard, read, flush, reopen, kill, resize,
        compact;
    unsigned hook;      /* the subject's co_step, in flight with the others */
    uint32_t max_bytes; /* of one request; 0: 64 KiB */
    unsigned hot;       /* of 16 requests so many go to the first eighth of the device */
};

/* For formats that resize and compact: all there is but compression. */
extern const struct sweep_profile sweep_resizing;

/* A file of the stack below the image: filled with known data, then only read. With @below it
 * stands on another one, and of what that covers only every second 64 KiB are filled. */
struct sweep_backing {
    const char *format, *create;
    uint64_t size;
    const struct sweep_backing *below;
};

enum sweep_flags {
    SWEEP_ALIGNED = 1,     /* requests are whole granules; else edges of 512 are drawn as well */
    SWEEP_DISCARD_ANY = 2, /* discarded space may show the backing file or garbage */
    SWEEP_FLUSH_RETRY = 4, /* a failed flush may succeed later without reopening (none of ours) */
    SWEEP_NO_FAULTS = 8,
    SWEEP_NO_CRASHES = 16,
    SWEEP_SHRINK = 32, /* resize shrinks as well */
    SWEEP_SIZE_OF_FILE =
        128, /* the size is the file's, which a crash may leave between the old and the new */
    SWEEP_FSYNCS_ONCE = 256, /* the image is on several disks, not all of which lose what they hold
                                in memory again and again: fsyncs fail once */
    SWEEP_FAULTS_ONCE =
        512, /* calls fail once: who can write nothing any more has to be given up */
    SWEEP_UNFLUSHED_ANY = 1024, /* anything may be where a write failed, or its flush, and after a
                                   crash where it was not flushed */
    SWEEP_BLOCK_DEVICE = 64,    /* the image lies on a block device with garbage in it */
};

/* One row. Only name, format and size must be there. */
struct sweep_subject {
    const char *name;
    const char *format; /* of the image /sim/top.img */
    const char *create; /* create options as text */
    const char *open;   /* open options as text: key=value,... */
    uint64_t size;      /* virtual bytes, a multiple of 512 */
    uint32_t granule;   /* what requests are likely to be multiples of; 0: 4 KiB */
    unsigned flags;     /* enum sweep_flags */
    const struct sweep_backing *backing;
    const struct sweep_profile *profile; /* NULL: a mix of everything but compression and resize */
    const char *foreign; /* `qemu-img check -f` takes an export of it; NULL: only our own check */
    const char
        *foreign_command; /* looks at top.img in its place, 0: sound; then @foreign is a name */
    bool (*foreign_ok)(const char *output); /* accepts what qemu-img calls an error; NULL: none */
    unsigned ops;                           /* of one workload; 0: 60 */
    unsigned model_factor;                  /* times as many operations in the model test; 0: one */
    unsigned long_factor; /* times as many crash states with LAMINA_LONG=1; 0: one */
    unsigned workers;     /* 0: one */
    /* Hooks, each NULL for the default: through the resolver with the texts above. co_create makes
     * all files; co_open opens the stack for writing; co_check answers through *bad (corruptions;
     * leaks are no matter). */
    int (*co_create)(struct sweep_run *run, struct blk_error *e);
    int (*co_open)(struct sweep_run *run, struct blk_device **out, struct blk_error *e);
    int (*co_check)(struct sweep_run *run, struct blk_device *dev, uint64_t *bad,
                    struct blk_error *e);
    /* An operation that changes nothing of what the device shows, while others run. */
    int (*co_step)(struct sweep_run *run, struct blk_device *dev, struct blk_error *e);
    void *arg;
};

/* What the hooks find. */
struct sweep_run {
    const struct sweep_subject *subject;
    struct host *host; /* simulated */
    struct resolver resolver;
    uint64_t seed;
    bool crashed; /* the machine is what a crash left */
};

#define SWEEP_TOP  "/sim/top.img"
#define SWEEP_BASE "/sim/base.img"
#define SWEEP_DATA "/sim/data.img" /* of data_file=data.img */
#define SWEEP_ROOT "/sim/root.img" /* below base.img */

/* For a row's own co_create: the images of its backing, filled. */
must_use int co_sweep_make_base(struct sweep_run *run, struct blk_error *e);

/* A hash of all that @dev shows, and of its size. */
must_use int co_sweep_hash(struct blk_device *dev, uint64_t *hash);

/* How much is done for one row. */
struct sweep_budget {
    unsigned seeds;        /* workloads; each has its own model test, faults and crashes */
    unsigned model_ops;    /* of the model test, per seed */
    uint64_t fault_points; /* per row */
    uint64_t crash_states; /* per row, distinct */
    unsigned foreign;      /* states per row that the foreign checker sees as well */
};

struct sweep_result {
    uint64_t model_ops, fault_points, fired, crash_states, crash_skipped, foreign;
    uint64_t lost, aliased, repairs; /* repairs: not opening, own check not clean, not writable */
    uint64_t lies; /* a read that no order of the requests explains, outside a crash */
    bool failed;
    char first[2000]; /* what the first failure was, with its replay line */
};

/* Runs one row; nothing is printed. */
void sweep_row(const char *program, const struct sweep_subject *s, const struct sweep_budget *b,
               struct sweep_result *out);
/* Runs all rows (ends with a NULL name) or what argv asks for (--row, --seed, --fault, --cut,
 * --apply, --tear, --list). Gives the exit status. @faults and @states: totals over the rows in
 * `make check`; ten times as many with LAMINA_LONG=1. */
int sweep_main(int argc, char **argv, const struct sweep_subject *rows, uint64_t faults,
               uint64_t states);

#endif

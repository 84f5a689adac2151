/* SPDX-License-Identifier: BSD-3-Clause */
/* live.c - the proof over jobs that change what is below a device while it is used: a snapshot, a
 * commit, a stream, a mirror begins and ends in flight with up to 15 other operations, again and
 * again, and the power goes anywhere.
 *
 * The disk has a name that changes: /sim/top.img, then /sim/s1.img, /sim/s2.img, ...; a new one
 * appears, durable, before the device changes to it. Whoever opens takes the last name there is. */
#include <stdio.h>
#include <stdlib.h>

#include "block/live.h"
#include "block/option_text.h"
#include "tests/lib/on_host.h"
#include "tests/sweep.h"

static const struct sweep_profile flying = {.write = 30,
                                            .fua = 3,
                                            .zeroes = 5,
                                            .unmap = 5,
                                            .discard = 6,
                                            .read = 10,
                                            .flush = 5,
                                            .reopen = 1,
                                            .kill = 1,
                                            .hot = 6,
                                            .hook = 4,
                                            .max_bytes = 96 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 1 * MiB};
static const struct sweep_backing base_qcow2 = {
    .format = "qcow2", .create = "cluster_size=4096", .size = 768 * KiB};

/* --- names --- */

static void name_of(unsigned n, char *to, size_t room)
{
    if (n)
        snprintf(to, room, "/sim/s%u.img", n);
    else
        snprintf(to, room, "%s", SWEEP_TOP);
}

/* The number of the last name there is. */
static unsigned co_last(struct sweep_run *run)
{
    for (unsigned n = 0;; n++) {
        char name[40];
        struct host_stat st;
        name_of(n + 1, name, sizeof(name));
        if (co_host_stat(run->host, name, &st) < 0)
            return n;
    }
}

static int co_open_image(struct sweep_run *run, const char *name, const char *format,
                         unsigned flags, struct blk_device **out, struct blk_error *e)
{
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", format, "file", "driver", "file",
                             "filename", name);
    int rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE | flags, out, e);
    json_decref(tree);
    return rc;
}

static int co_open_last(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    char name[40];
    struct blk_device *dev;
    unsigned n = co_last(run);
    name_of(n, name, sizeof(name));
    TRY(co_open_image(run, name, n ? "qcow2" : run->subject->format, 0, &dev, e));
    return co_seat_put(dev, out, e);
}

/* A new image under a name of its own, flushed. */
static int co_make(struct sweep_run *run, const char *name, uint64_t size, const char *options,
                   struct blk_error *e)
{
    struct blk_create c = {.size = size};
    const struct blk_driver *qcow2 = blk_find_driver(blk_drivers, "qcow2");
    TRY(co_resolver_open_file(&run->resolver, name, BLK_OPEN_WRITE, HOST_CREATE | HOST_TRUNCATE,
                              &c.file, e));
    int rc = co_try_create_text(qcow2, options, &c, e);
    if (rc == 0)
        rc = co_blk_flush(c.file);
    co_blk_close(c.file, NULL);
    return rc;
}

/* The name appears, and stays. */
static int co_name(struct sweep_run *run, const char *from, unsigned n)
{
    char name[40];
    name_of(n, name, sizeof(name));
    TRY(co_host_rename(run->host, from, name));
    return co_host_sync_dir(run->host, "/sim");
}

/* --- steps --- */

#define NEW "/sim/new.img"

static int co_snapshot(struct sweep_run *run, struct blk_device *seat, struct blk_error *e)
{
    unsigned last = co_last(run);
    char below[40], options[120];
    struct live_overlay o = {.seat = seat};
    name_of(last, below, sizeof(below));
    snprintf(options, sizeof(options), "cluster_size=4096,backing_file=%s,backing_fmt=%s",
             below + sizeof("/sim/") - 1, last ? "qcow2" : run->subject->format);
    TRY(co_make(run, NEW, seat->size, options, e));
    TRY(co_name(run, NEW, last + 1));
    name_of(last + 1, below, sizeof(below));
    TRY(co_open_image(run, below, "qcow2", BLK_OPEN_NO_BACKING, &o.image, e));
    return co_live_overlay(&o, 1, e);
}

struct ready {
    struct sweep_run *run;
    unsigned name;
    bool named;
    struct blk_device *image;
};

static int co_ready(void *arg, struct blk_error *e)
{
    struct ready *r = arg;
    char name[40];
    name_of(r->name, name, sizeof(name));
    r->named = true;
    TRY(co_name(r->run, NEW, r->name));
    return blk_file_renamed(r->image, name);
}

static int co_nothing(struct job *j, struct blk_error *e)
{
    return 0;
}

static int co_mirror(struct sweep_run *run, struct blk_device *seat, struct blk_error *e)
{
    struct job job;
    struct ready ready = {.run = run, .name = co_last(run) + 1};
    struct live_mirror m = {
        .seat = seat, .blank = true, .job = &job, .co_ready = co_ready, .arg = &ready};
    job_init(&job, "mirror", co_nothing, NULL);
    TRY(co_make(run, NEW, seat->size, "cluster_size=8192", e));
    TRY(co_open_image(run, NEW, "qcow2", 0, &m.target, e));
    ready.image = m.target;
    int rc = co_live_mirror(&m, e);
    if (rc < 0 && ready.named) { /* it has missed something since */
        char name[40];
        name_of(ready.name, name, sizeof(name));
        (void)!co_host_unlink(run->host, name);
    }
    return rc;
}

static int co_commit(struct sweep_run *run, struct blk_device *seat, struct blk_error *e)
{
    struct job job;
    job_init(&job, "commit", co_nothing, NULL);
    if (co_last(run) == 0 || !blk_child(seat_device(seat), "backing") ||
        blk_child(seat_device(seat), "backing")->size > seat->size)
        return 0;
    return co_live_commit(seat, false, &job, e);
}

static int co_stream(struct sweep_run *run, struct blk_device *seat, struct blk_error *e)
{
    struct job job;
    struct live_stream s = {.seat = seat, .job = &job};
    job_init(&job, "stream", co_nothing, NULL);
    if (!blk_child(seat_device(seat), "backing"))
        return 0;
    return co_live_stream(&s, e);
}

/* A backup that is made and thrown away: it is there for what it does to others. */
static int co_past(struct sweep_run *run, struct blk_device *seat, struct blk_error *e)
{
    struct job job;
    struct live_past *p;
    struct live_past_options o = {.seat = seat};
    job_init(&job, "backup", co_nothing, NULL);
    TRY(co_make(run, "/sim/backup.img", seat->size, "cluster_size=4096", e));
    TRY(co_open_image(run, "/sim/backup.img", "qcow2", 0, &o.store, e));
    TRY(co_live_past_begin(&o, 1, &p, e));
    int rc = co_live_past_copy(p, &job, e);
    int ended = co_live_past_end(p, rc < 0, e);
    return rc < 0 ? rc : ended;
}

typedef int step_fn(struct sweep_run *run, struct blk_device *seat, struct blk_error *e);
static step_fn *const all_steps[] = {co_snapshot, co_commit,   co_past,   co_snapshot,
                                     co_mirror,   co_snapshot, co_stream, NULL};
static step_fn *const snapshots[] = {co_snapshot, NULL};
static step_fn *const commits[] = {co_snapshot, co_commit, NULL};
static step_fn *const streams[] = {co_stream, co_snapshot, NULL};
static step_fn *const mirrors[] = {co_mirror, co_past, NULL};

/* One at a time, also of a process that is being killed; but a past goes on through the others. */
static int co_step(struct sweep_run *run, struct blk_device *dev, struct blk_error *e)
{
    static bool is_busy[2];
    step_fn *const *steps = run->subject->arg;
    unsigned count = 0;
    uint8_t draw;
    while (steps[count])
        count++;
    host_random(run->host, &draw, 1);
    step_fn *step = steps[draw % count];
    bool *busy = &is_busy[step == co_past];
    if (*busy)
        return 0;
    *busy = true;
    int rc = step(run, dev, e);
    *busy = false;
    return rc;
}

#define ROW                                                                       \
    .format = "qcow2", .create = "cluster_size=4096", .size = 2 * MiB, .ops = 70, \
    .profile = &flying, .co_open = co_open_last, .co_step = co_step
#define OVER(below, options) \
    ROW_NO_CREATE, .create = "cluster_size=4096,backing_file=base.img" options, .backing = &(below)
#define ROW_NO_CREATE                                                                           \
    .format = "qcow2", .size = 2 * MiB, .ops = 70, .profile = &flying, .co_open = co_open_last, \
    .co_step = co_step

static const struct sweep_subject rows[] = {
    {.name = "live-snapshot", ROW, .arg = (void *)snapshots},
    {.name = "live-commit", ROW, .arg = (void *)commits},
    {.name = "live-stream", OVER(base_raw, ",backing_fmt=raw"), .arg = (void *)streams},
    {.name = "live-mirror", OVER(base_qcow2, ",backing_fmt=qcow2"), .arg = (void *)mirrors},
    {.name = "live-all", OVER(base_raw, ",backing_fmt=raw"), .arg = (void *)all_steps},
    {.name = "live-raw",
     .format = "raw",
     .size = 2 * MiB,
     .ops = 70,
     .profile = &flying,
     .co_open = co_open_last,
     .co_step = co_step,
     .arg = (void *)all_steps},
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 900, 1500);
}

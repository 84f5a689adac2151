/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim.c - the simulated host: clock, events, the loop that drives all workers, faults.
 *
 * One OS thread runs every worker in an order drawn from the seed. When nothing is ready the clock
 * jumps to the next event or timer; now and then an event is delivered although something is ready,
 * so that completions fall between any two steps. */
#include "block/host_sim_int.h"

#include <stdio.h>
#include <stdlib.h>

#define WALL_START 1700000000000000000ULL /* ns; what the simulated calendar says at time 0 */

int host_sim_open(const struct sim_options *o, struct host **out)
{
    struct sim_host *h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    h->base.ops = &sim_ops;
    h->options = *o;
    h->garbage = sim_mix(o->seed, 3);
    h->next_inode = 1;
    sim_rng_seed(&h->rng, o->seed);
    sim_rng_seed(&h->random_rng, sim_mix(o->seed, 2));
    *out = &h->base;
    return 0;
}

static void sim_close(struct host *host)
{
    struct sim_host *h = sim_of(host);
    assert(!h->streams && !h->events);
    sim_view_drop(h);
    for (size_t i = 0; i < h->log_count; i++)
        sim_change_drop(h->log[i]);
    free(h->log);
    for (struct sim_inode *i = h->inodes, *next; i; i = next) {
        next = i->next;
        assert(i->opens == 0 && !i->locks);
        sim_changes_drop(&i->pending);
        sim_tree_drop(&i->now.tree);
        sim_tree_drop(&i->durable.tree);
        sim_tree_drop(&i->start.tree);
        free(i);
    }
    for (struct sim_dir *d = h->dirs, *next; d; d = next) {
        next = d->next;
        sim_changes_drop(&d->pending);
        sim_names_drop(&d->now);
        sim_names_drop(&d->start);
        free(d->path);
        free(d);
    }
    free(h);
}

/* --- events ------------------------------------------------------------------------------------
 */

void sim_event_post(struct sim_host *h, struct sim_event *ev, uint64_t delay_ns)
{
    assert(!ev->queued && !ev->fired);
    ev->at = h->now + delay_ns;
    ev->order = h->order++;
    ev->queued = true;
    struct sim_event **at = &h->events;
    while (*at && (*at)->at <= ev->at)
        at = &(*at)->next;
    ev->next = *at;
    *at = ev;
}

void sim_event_cancel(struct sim_host *h, struct sim_event *ev)
{
    if (!ev->queued)
        return;
    struct sim_event **at = &h->events;
    while (*at != ev)
        at = &(*at)->next;
    *at = ev->next;
    ev->queued = false;
}

void co_sim_event_wait(struct sim_event *ev)
{
    while (!ev->fired)
        co_suspend();
}

/* Most calls take 10 to 100 microseconds, some twenty times that, a few two hundred times. */
static uint64_t latency(struct sim_host *h)
{
    uint64_t ns = 10000 + sim_rng_below(&h->rng, 90000);
    uint64_t slow = sim_rng_below(&h->rng, 96);
    return slow < 2 ? ns * 200 : slow < 10 ? ns * 20 : ns;
}

void co_sim_latency(struct sim_host *h)
{
    if (h->options.in_order || !co_self()) {
        h->now += 10000;
        return;
    }
    struct sim_event ev = {.worker = worker_self(), .co = co_self()};
    sim_event_post(h, &ev, latency(h));
    co_sim_event_wait(&ev);
}

static void fire(struct sim_host *h)
{
    struct sim_event *ev = h->events;
    h->events = ev->next;
    h->now = MAX(h->now, ev->at);
    ev->queued = false;
    ev->fired = true;
    worker_enter(ev->worker);
    co_wake(ev->co);
}

/* Delivers the next event or moves the clock to the next timer. False: nothing will ever happen. */
static bool step(struct sim_host *h, struct runtime *rt)
{
    uint64_t timer = UINT64_MAX;
    for (unsigned i = 0; i < runtime_workers(rt); i++)
        timer = MIN(timer, worker_next_timer(runtime_worker(rt, i)));
    if (h->events && h->events->at <= timer) {
        fire(h);
        return true;
    }
    if (timer == UINT64_MAX)
        return false;
    h->now = MAX(h->now, timer);
    return true;
}

/* One turn of every worker, beginning with any. */
static bool turn_all(struct sim_host *h, struct runtime *rt, const bool *done)
{
    unsigned count = runtime_workers(rt), first = 0;
    if (count > 1)
        first = (unsigned)sim_rng_below(&h->rng, count);
    bool ran = false;
    for (unsigned i = 0; i < count && !*done; i++) {
        struct worker *w = runtime_worker(rt, (first + i) % count);
        worker_enter(w);
        ran |= worker_turn(w);
    }
    return ran;
}

static void sim_drive(struct runtime *rt, const bool *done)
{
    struct sim_host *h = sim_of(runtime_worker(rt, 0)->host);
    struct worker *before = worker_self();
    while (!*done) {
        bool ran = turn_all(h, rt, done);
        if (*done || (ran && (!h->events || sim_rng_below(&h->rng, 4))))
            continue;
        if (!step(h, rt) && !ran) {
            fprintf(stderr,
                    "host_sim: every coroutine sleeps and nothing will wake one (seed %" PRIu64
                    ", time %" PRIu64 ")\n",
                    h->options.seed, h->now);
            abort();
        }
    }
    worker_enter(before);
}

/* The work is done before or after its latency: callers may rely on neither. */
static int sim_offload(struct host *host, int (*fn)(void *), void *arg)
{
    struct sim_host *h = sim_of(host);
    if (sim_rng_below(&h->rng, 2)) {
        int rc = fn(arg);
        co_sim_latency(h);
        return rc;
    }
    co_sim_latency(h);
    return fn(arg);
}

/* --- clock, randomness, faults -----------------------------------------------------------------
 */

static uint64_t sim_now(struct host *h)
{
    return sim_of(h)->now;
}

static uint64_t sim_wall_clock(struct host *h)
{
    return WALL_START + sim_of(h)->now;
}

static void sim_random(struct host *h, void *to, size_t bytes)
{
    for (uint8_t *at = to; bytes > 0;) {
        uint64_t word = sim_rng_next(&sim_of(h)->random_rng);
        size_t part = MIN(bytes, sizeof(word));
        memcpy(at, &word, part);
        at += part;
        bytes -= part;
    }
}

static bool fault_covers(const struct sim_host *h, enum sim_op op)
{
    const struct sim_fault *f = &h->fault;
    uint64_t n = h->count[op];
    return f->nth && f->op == op && n >= h->fault_from && n - h->fault_from < f->times;
}

int sim_fault_hit(struct sim_host *h, enum sim_op op)
{
    if (h->severed)
        return -EIO;
    h->count[op]++;
    if (!fault_covers(h, op))
        return 0;
    h->fired++;
    return h->fault.rc;
}

enum sim_damage sim_damage_hit(const struct sim_host *h, enum sim_op op)
{
    return fault_covers(h, op) ? h->fault.damage : SIM_NO_DAMAGE;
}

void host_sim_fault(struct host *host, const struct sim_fault *f)
{
    struct sim_host *h = sim_of(host);
    h->fault = f ? *f : (struct sim_fault){0};
    h->fault_from = f ? h->count[f->op] + f->nth : 0;
    h->fired = 0;
}

void host_sim_sever(struct host *h, bool on)
{
    sim_of(h)->severed = on;
}

uint64_t host_sim_count(const struct host *h, enum sim_op op)
{
    return container_of(h, const struct sim_host, base)->count[op];
}

uint64_t host_sim_fired(const struct host *h)
{
    return container_of(h, const struct sim_host, base)->fired;
}

/* --- the table ---------------------------------------------------------------------------------
 */

static int sim_attach(struct host *h, struct worker *w)
{
    return 0;
}

static void sim_detach(struct worker *w) {}

/* Only drive() waits. */
static void sim_wait(struct worker *w, uint64_t deadline_ns)
{
    abort();
}

/* drive() looks at every worker's mailbox in each round. */
static void sim_wake(struct worker *w) {}

const struct host_ops sim_ops = {
    .name = "sim",
    .close = sim_close,
    .attach = sim_attach,
    .detach = sim_detach,
    .wait = sim_wait,
    .wake = sim_wake,
    .drive = sim_drive,
    .co_offload = sim_offload,
    .now = sim_now,
    .wall_clock = sim_wall_clock,
    .random = sim_random,
    .co_open = sim_open,
    .co_close = sim_close_file,
    .co_read = sim_read,
    .co_write = sim_write,
    .read_now = sim_read_now,
    .write_now = sim_write_now,
    .resident = sim_resident,
    .co_fsync = sim_fsync,
    .co_truncate = sim_truncate,
    .co_fallocate = sim_fallocate,
    .co_extent = sim_extent,
    .co_copy = sim_copy,
    .co_fstat = sim_fstat,
    .co_advise = sim_advise,
    .lock = sim_lock,
    .lock_test = sim_lock_test,
    .fd = sim_fd,
    .co_stat = sim_stat,
    .co_rename = sim_rename,
    .co_unlink = sim_unlink,
    .co_sync_dir = sim_sync_dir,
    .co_realpath = sim_realpath,
    .co_list = sim_list,
    .co_listen = sim_listen,
    .co_accept = sim_accept,
    .co_connect = sim_connect,
    .stream_recv = sim_stream_recv,
    .stream_sendv = sim_stream_sendv,
    .stream_send_file = sim_stream_send_file,
    .co_stream_wait = sim_stream_wait,
    .stream_shutdown = sim_stream_shutdown,
    .stream_close = sim_stream_close,
    .stream_address = sim_stream_address,
    .co_signal = sim_signal,
    .signal_cancel = sim_signal_cancel,
};

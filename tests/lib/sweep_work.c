/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_work.c - workloads drawn from a seed, run with many operations in flight; every read is
 * checked against the model as it happens. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/sweep_int.h"

static const struct sweep_profile mixed = {.write = 30,
                                           .fua = 3,
                                           .zeroes = 5,
                                           .unmap = 4,
                                           .discard = 5,
                                           .read = 10,
                                           .flush = 6,
                                           .reopen = 1,
                                           .hot = 6};

const struct sweep_profile sweep_resizing = {.write = 30,
                                             .fua = 3,
                                             .zeroes = 4,
                                             .unmap = 4,
                                             .discard = 4,
                                             .read = 10,
                                             .flush = 5,
                                             .reopen = 1,
                                             .kill = 1,
                                             .resize = 3,
                                             .compact = 1,
                                             .hot = 2};

static const struct sweep_profile *profile_of(const struct sweep_subject *s)
{
    return s->profile ? s->profile : &mixed;
}

uint32_t sweep_granule(const struct sweep_subject *s)
{
    return s->granule ? s->granule : 4096;
}

uint32_t sweep_max_bytes(const struct sweep_subject *s)
{
    uint32_t max = profile_of(s)->max_bytes;
    return MAX(max ? max : (uint32_t)(64 * KiB), sweep_granule(s));
}

/* A resizing subject grows to twice its size at most. */
uint64_t sweep_max_size(const struct sweep_subject *s)
{
    return profile_of(s)->resize ? s->size * 2 : s->size;
}

void sweep_broke(struct sweep_verdict *v, enum sweep_break what, const char *fmt, ...)
{
    if (v->what != BREAK_NONE)
        return;
    v->what = what;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->text, sizeof(v->text), fmt, ap);
    va_end(ap);
}

/* --- the plan -----------------------------------------------------------------------------------
 */

/* The length of a request: mostly short, now and then as long as it may be. */
static uint64_t draw_bytes(struct sim_rng *r, uint64_t unit, uint64_t max)
{
    uint64_t most = MAX(1, max / unit);
    uint64_t n =
        sim_rng_below(r, 3) ? 1 + sim_rng_below(r, MIN(most, 8)) : 1 + sim_rng_below(r, most);
    return n * unit;
}

static void draw_range(const struct sweep_subject *s, struct sim_rng *r, uint64_t size, bool whole,
                       struct sweep_step *step)
{
    bool odd = !whole && !(s->flags & SWEEP_ALIGNED) && sim_rng_below(r, 2);
    uint64_t unit = odd ? MODEL_SECTOR : sweep_granule(s);
    if (unit > size)
        unit = MODEL_SECTOR;
    step->bytes = MIN(draw_bytes(r, unit, sweep_max_bytes(s)), align_down(size, unit));
    uint64_t room = size;
    if (sim_rng_below(r, 16) < profile_of(s)->hot)
        room = MIN(size, MAX(size / 8, step->bytes));
    step->offset = sim_rng_below(r, (room - step->bytes) / unit + 1) * unit;
    if (sim_rng_below(r, 24) == 0)
        step->offset = align_down(size - step->bytes, unit); /* the very end */
}

static uint64_t draw_size(const struct sweep_subject *s, struct sim_rng *r, uint64_t size)
{
    uint64_t max = sweep_max_size(s);
    uint64_t to = MODEL_SECTOR * (1 + sim_rng_below(r, max / MODEL_SECTOR));
    return s->flags & SWEEP_SHRINK ? to : MAX(size, to);
}

static void draw_step(const struct sweep_subject *s, struct sim_rng *r, uint64_t *size,
                      struct sweep_step *step)
{
    const struct sweep_profile *p = profile_of(s);
    const unsigned weights[] = {p->write,   p->fua,     p->compressed, p->zeroes, p->unmap,
                                p->discard, p->read,    p->flush,      p->reopen, p->kill,
                                p->resize,  p->compact, p->hook};
    unsigned sum = 0, kind = 0;
    for (unsigned i = 0; i < ARRAY_LEN(weights); i++)
        sum += weights[i];
    uint64_t draw = sim_rng_below(r, sum);
    while (draw >= weights[kind])
        draw -= weights[kind++];
    static const struct sweep_step kinds[ARRAY_LEN(weights)] = {
        {.kind = STEP_WRITE},
        {.kind = STEP_WRITE, .flags = BLK_FUA},
        {.kind = STEP_WRITE, .flags = BLK_COMPRESSED},
        {.kind = STEP_ZEROES},
        {.kind = STEP_ZEROES, .flags = BLK_MAY_UNMAP},
        {.kind = STEP_DISCARD},
        {.kind = STEP_READ},
        {.kind = STEP_FLUSH},
        {.kind = STEP_REOPEN},
        {.kind = STEP_KILL},
        {.kind = STEP_RESIZE},
        {.kind = STEP_COMPACT},
        {.kind = STEP_HOOK},
    };
    unsigned depth = step->depth;
    *step = kinds[kind];
    step->depth = depth;
    step->elsewhere = s->workers > 1 && sim_rng_below(r, 2);
    if (step->kind == STEP_ZEROES && p->fua && sim_rng_below(r, 8) == 0)
        step->flags |= BLK_FUA;
    if (step->kind == STEP_KILL) { /* some ns after the last operation began, or in a flush */
        step->offset = sim_rng_below(r, 3) * sim_rng_below(r, 200000);
        step->bytes = sim_rng_below(r, 2);
    }
    if (step->kind == STEP_RESIZE)
        step->bytes = *size = draw_size(s, r, *size);
    else if (step->kind <= STEP_READ)
        draw_range(s, r, *size, step->flags & BLK_COMPRESSED, step);
}

unsigned sweep_plan(const struct sweep_subject *s, uint64_t seed, unsigned count,
                    struct sweep_step **steps)
{
    struct sim_rng r;
    sim_rng_seed(&r, sim_mix(seed, 11));
    struct sweep_step *list = calloc(count + 1, sizeof(*list));
    if (!list)
        abort();
    uint64_t size = s->size;
    unsigned depth = 1;
    for (unsigned i = 0; i < count; i++) {
        if (sim_rng_below(&r, 8) == 0) /* one at a time, a few, as many as there may be */
            depth = 1U << sim_rng_below(&r, 5);
        list[i].depth = depth;
        draw_step(s, &r, &size, &list[i]);
    }
    list[count] = (struct sweep_step){.kind = STEP_FLUSH, .depth = 1};
    *steps = list;
    return count + 1;
}

/* --- one operation ------------------------------------------------------------------------------
 */

void sweep_work_init(struct sweep_work *w, const struct sweep_subject *s, struct host *host,
                     uint64_t seed)
{
    *w = (struct sweep_work){.trace = sweep_trace()};
    sweep_run_init(&w->run, s, host, seed);
    uint64_t base = s->backing ? MIN(s->backing->size, s->size) : 0;
    model_init(&w->model, s->size, sweep_max_size(s), base);
    w->model.unflushed_any = (s->flags & SWEEP_UNFLUSHED_ANY) != 0;
    w->found = calloc(sweep_max_size(s) / MODEL_SECTOR, sizeof(*w->found));
    for (unsigned i = 0; i < SWEEP_SLOTS; i++) {
        w->slots[i].work = w;
        w->slots[i].buffer = aligned_alloc(4096, align_up(sweep_max_bytes(s), 4096));
        if (!w->slots[i].buffer || !w->found)
            abort();
    }
}

void sweep_work_drop(struct sweep_work *w)
{
    for (unsigned i = 0; i < SWEEP_SLOTS; i++)
        free(w->slots[i].buffer);
    free(w->found);
    model_drop(&w->model);
}

static const char *const step_names[] = {
    [STEP_WRITE] = "write", [STEP_ZEROES] = "write_zeroes", [STEP_DISCARD] = "discard",
    [STEP_READ] = "read",   [STEP_FLUSH] = "flush",         [STEP_REOPEN] = "reopen",
    [STEP_KILL] = "kill",   [STEP_RESIZE] = "resize",       [STEP_COMPACT] = "compact",
    [STEP_HOOK] = "hook",
};

static void op_failed(struct sweep_work *w, const struct sweep_step *s, int rc)
{
    if (!w->faults && !w->killed)
        sweep_broke(&w->verdict, BREAK_LIE, "%s at %" PRIu64 "+%" PRIu64 " (flags %u) failed: %s",
                    step_names[s->kind], s->offset, s->bytes, s->flags, strerror(-rc));
}

static void check_read(struct sweep_work *w, uint64_t offset, uint64_t bytes, const uint8_t *data,
                       uint64_t began)
{
    if (sweep_lost(w))
        return;
    for (uint64_t at = 0; at < bytes; at += MODEL_SECTOR) {
        uint32_t value = model_value(offset + at, data + at);
        uint64_t sector = (offset + at) / MODEL_SECTOR;
        if (model_may_read(&w->model, sector, began, value))
            continue;
        uint32_t set[MODEL_SET];
        char want[200], got[60];
        unsigned n = model_legal_read(&w->model, sector, began, set, MODEL_SET);
        model_set_text(set, n, want, sizeof(want));
        model_set_text(&value, 1, got, sizeof(got));
        sweep_broke(&w->verdict, BREAK_LIE, "read: sector %" PRIu64 " shows %s, expected %s",
                    sector, got, want);
        return;
    }
}

static int co_read_step(struct sweep_work *w, const struct sweep_step *s, uint8_t *buf)
{
    uint64_t began = model_now(&w->model);
    int rc = co_blk_read_buf(w->dev, s->offset, buf, s->bytes);
    if (rc == 0)
        check_read(w, s->offset, s->bytes, buf, began);
    return rc;
}

static void trace(const struct sweep_work *w, const struct sweep_step *s, uint32_t op, int rc)
{
    if (w->trace)
        printf("# cut %zu: %s %s at %" PRIu64 "+%" PRIu64 " flags %u op %u rc %d\n",
               host_sim_cut(w->run.host), rc > 0 ? "begin" : "end", step_names[s->kind], s->offset,
               s->bytes, s->flags, op, MIN(rc, 0));
}

static enum model_kind kind_of(const struct sweep_work *w, const struct sweep_step *s)
{
    if (s->kind == STEP_WRITE)
        return MODEL_WRITE;
    if (s->kind == STEP_ZEROES)
        return MODEL_ZERO;
    return w->run.subject->flags & SWEEP_DISCARD_ANY ? MODEL_DISCARD_ANY : MODEL_DISCARD;
}

static int co_change_step(struct sweep_work *w, const struct sweep_step *s, uint8_t *buf)
{
    uint32_t op =
        model_begin(&w->model, kind_of(w, s), s->offset, s->bytes, host_sim_cut(w->run.host));
    int rc;
    if (s->kind == STEP_WRITE) {
        model_fill(op, s->offset, buf, s->bytes);
        rc = co_blk_write_buf(w->dev, s->offset, buf, s->bytes, s->flags);
    } else if (s->kind == STEP_ZEROES) {
        rc = co_blk_write_zeroes(w->dev, s->offset, s->bytes, s->flags);
    } else {
        rc = co_blk_discard(w->dev, s->offset, s->bytes);
        rc = rc == -ENOTSUP ? 0 : rc;
    }
    if (w->killed) /* nobody hears the answer of the dead */
        rc = -EIO;
    trace(w, s, op, rc);
    model_end(&w->model, op, rc == 0);
    if (rc == 0 && (s->flags & BLK_FUA))
        model_fua(&w->model, op, host_sim_cut(w->run.host));
    if (rc < 0 && (s->flags & BLK_FUA) && w->loses) /* its fsync took others' data along */
        model_doubt(&w->model);
    return rc;
}

static int co_flush_step(struct sweep_work *w)
{
    static const struct sweep_step flush = {.kind = STEP_FLUSH};
    uint64_t began = model_now(&w->model);
    trace(w, &flush, 0, 1);
    int rc = co_blk_flush(w->dev);
    if (w->killed)
        rc = -EIO;
    trace(w, &flush, 0, rc);
    if (rc < 0 && w->sticky_flush) {
        model_doubt(&w->model);
        w->flush_failed = model_now(&w->model);
    }
    if (rc < 0)
        return rc;
    if (w->flush_failed && began > w->flush_failed)
        sweep_broke(&w->verdict, BREAK_LIE, "a flush succeeded although an earlier one had failed");
    if (!w->flush_failed)
        model_flushed(&w->model, began, host_sim_cut(w->run.host));
    return 0;
}

static int co_hook_step(struct sweep_work *w)
{
    struct blk_error e = {0};
    int rc = w->run.subject->co_step(&w->run, w->dev, &e);
    if (rc < 0 && !w->faults && !w->killed)
        sweep_broke(&w->verdict, BREAK_LIE, "the row's own step: %s", e.text);
    w->step_failed |= rc < 0;
    return rc;
}

/* With nothing else in flight. */
static int co_resize_step(struct sweep_work *w, const struct sweep_step *s)
{
    struct blk_error e = {0};
    uint32_t op = model_resize_begin(&w->model, w->dev->size, s->bytes, host_sim_cut(w->run.host));
    int rc = co_blk_resize(w->dev, s->bytes, true, &e);
    model_resize_end(&w->model, op, rc == 0);
    if (rc < 0 && !w->faults)
        sweep_broke(&w->verdict, BREAK_LIE, "resize to %" PRIu64 ": %s", s->bytes, e.text);
    if (!model_size_legal(&w->model, w->dev->size, 0, false))
        sweep_broke(&w->verdict, BREAK_LIE,
                    "after a resize to %" PRIu64 " (%s) the size is %" PRIu64, s->bytes,
                    rc < 0 ? e.text : "done", w->dev->size);
    return rc;
}

/* With nothing else in flight: what the guest sees stays. */
static int co_compact_step(struct sweep_work *w)
{
    struct blk_error e = {0};
    int rc = co_blk_compact(w->dev, &e);
    if (rc < 0 && !w->faults)
        sweep_broke(&w->verdict, BREAK_LIE, "compact: %s", e.text);
    return rc;
}

struct call {
    struct sweep_work *w;
    const struct sweep_step *s;
    uint8_t *buf;
};

static int co_data_step(void *arg)
{
    struct call *c = arg;
    /* After a resize that failed the plan may reach past the end. */
    struct sweep_step clipped = *c->s;
    uint64_t size = c->w->dev->size;
    if (clipped.kind <= STEP_READ && !range_fits(clipped.offset, clipped.bytes, size)) {
        if (clipped.offset >= size || (clipped.flags & BLK_COMPRESSED))
            return 0;
        clipped.bytes = align_down(size - clipped.offset, MODEL_SECTOR);
    }
    if (clipped.kind == STEP_FLUSH)
        return co_flush_step(c->w);
    if (clipped.kind == STEP_HOOK)
        return co_hook_step(c->w);
    if (clipped.kind == STEP_READ)
        return co_read_step(c->w, &clipped, c->buf);
    return co_change_step(c->w, &clipped, c->buf);
}

static int co_one(struct sweep_work *w, const struct sweep_step *s, uint8_t *buf)
{
    struct call c = {w, s, buf};
    struct worker *self = worker_self();
    unsigned workers = runtime_workers(self->runtime);
    int rc;
    if (s->elsewhere && workers > 1)
        rc = co_on(runtime_worker(self->runtime, 1), co_data_step, &c);
    else
        rc = co_data_step(&c);
    if (rc < 0)
        op_failed(w, s, rc);
    w->done++;
    return rc;
}

int co_sweep_step(struct sweep_work *w, const struct sweep_step *step)
{
    if (step->kind == STEP_RESIZE)
        return co_resize_step(w, step);
    return step->kind == STEP_COMPACT ? co_compact_step(w) : co_one(w, step, w->slots[0].buffer);
}

/* --- the run ------------------------------------------------------------------------------------
 */

bool sweep_lost(struct sweep_work *w)
{
    w->lost |= w->loses && host_sim_fired(w->run.host) > w->fired_before;
    return w->lost;
}

void sweep_disarm(struct sweep_work *w)
{
    sweep_lost(w);
    w->fired |= host_sim_fired(w->run.host) > 0;
    w->fired |= w->alloc_nth && worker_self()->alloc_fault.seen >= w->alloc_nth;
    host_sim_fault(w->run.host, NULL);
    w->fired_before = 0;
    worker_self()->alloc_fault = (struct alloc_fault){0};
}

void co_sweep_close(struct sweep_work *w)
{
    struct blk_error e = {0};
    if (!w->dev)
        return;
    int rc = co_blk_close(w->dev, &e);
    w->dev = NULL;
    if (rc < 0 && !w->faults && !w->killed && !w->step_failed)
        sweep_broke(&w->verdict, BREAK_LIE, "close: %s", e.text);
    if (rc < 0 || w->flush_failed || w->killed || w->step_failed) /* its flush may have lost some */
        model_doubt(&w->model);
}

/* Opens; if a fault is armed and that fails, then without it. */
void co_sweep_open_again(struct sweep_work *w)
{
    struct blk_error e = {0};
    w->flush_failed = 0;
    w->step_failed = false;
    w->lost = false;
    w->fired_before = host_sim_fired(w->run.host);
    int rc = co_sweep_open(&w->run, &w->dev, &e);
    if (rc < 0 && w->faults) {
        if (sweep_lost(w)) /* what was never flushed, and it said so */
            model_doubt(&w->model);
        sweep_disarm(w);
        rc = co_sweep_open(&w->run, &w->dev, &e);
    }
    if (rc < 0) {
        w->dev = NULL;
        sweep_broke(&w->verdict, BREAK_REPAIR, "open: %s", e.text);
    } else if (!model_size_legal(&w->model, w->dev->size, 0, false)) {
        sweep_broke(&w->verdict, BREAK_LOST, "the size is %" PRIu64 ", expected %" PRIu64,
                    w->dev->size, model_size(&w->model));
    }
}

static void slot_run(void *arg)
{
    struct sweep_slot *slot = arg;
    struct sweep_work *w = slot->work;
    co_one(w, slot->step, slot->buffer);
    slot->busy = false;
    w->in_flight--;
    co_queue_wake_all(&w->room);
}

static void wait_until(struct sweep_work *w, unsigned in_flight)
{
    while (w->in_flight > in_flight)
        co_queue_wait(&w->room);
}

static void start(struct sweep_work *w, const struct sweep_step *step)
{
    wait_until(w, MIN(step->depth, SWEEP_SLOTS) - 1);
    struct sweep_slot *slot = w->slots;
    while (slot->busy)
        slot++;
    slot->busy = true;
    slot->step = step;
    w->in_flight++;
    if (co_start(slot_run, slot) < 0)
        slot_run(slot);
}

static void co_kill(struct sweep_work *w, const struct sweep_step *step)
{
    static const struct sweep_step flush = {.kind = STEP_FLUSH, .depth = SWEEP_SLOTS};
    if (step->bytes)
        start(w, &flush);
    if (step->offset)
        co_sleep(step->offset);
    w->killed = true;
    host_sim_sever(w->run.host, true);
    wait_until(w, 0);
    co_sweep_close(w);
    host_sim_sever(w->run.host, false);
    w->killed = false;
    co_sweep_open_again(w);
}

static void co_between(struct sweep_work *w, const struct sweep_step *step)
{
    if (step->kind == STEP_KILL) {
        co_kill(w, step);
        return;
    }
    wait_until(w, 0);
    if (step->kind == STEP_RESIZE) {
        co_resize_step(w, step);
    } else if (step->kind == STEP_COMPACT) {
        co_compact_step(w);
    } else {
        co_sweep_close(w);
        co_sweep_open_again(w);
    }
}

void co_sweep_steps(struct sweep_work *w)
{
    if (!w->dev)
        co_sweep_open_again(w);
    for (unsigned i = 0; i < w->step_count && w->dev && !w->verdict.what; i++) {
        const struct sweep_step *step = &w->steps[i];
        if (step->kind >= STEP_REOPEN)
            trace(w, step, 0, 1);
        if (step->kind >= STEP_REOPEN)
            co_between(w, step);
        else
            start(w, step);
    }
    wait_until(w, 0);
}

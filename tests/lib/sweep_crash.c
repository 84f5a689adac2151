/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_crash.c - a recorded workload, the power gone at every cut: each state must open without
 * repair, show legal values only, pass the driver's check, take fresh allocations that alias
 * nothing. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/sweep_int.h"

#define EXHAUSTIVE 12 /* pending operations up to which every subset is a candidate */
#define RANDOMS    200

/* The run whose crashes are looked at. */
struct recorded {
    struct sweep_work w;
    struct sweep_step *steps;
    size_t cuts;
};

static int record_main(void *arg)
{
    struct recorded *rec = arg;
    co_sweep_steps(&rec->w);
    co_sweep_close(&rec->w);
    return 0;
}

static bool record(struct recorded *rec, const struct sweep_subject *s, uint64_t seed,
                   struct sweep_verdict *v)
{
    struct host *base = sweep_prepare(s, seed, v), *host;
    if (!base)
        return false;
    if (host_sim_clone(base, seed, &host) < 0)
        abort();
    host_close(base);
    sweep_work_init(&rec->w, s, host, seed);
    rec->w.model.keep = true;
    rec->w.step_count = sweep_plan(s, sim_mix(seed, 77), s->ops ? s->ops : 60, &rec->steps);
    rec->w.steps = rec->steps;
    host_sim_record(host);
    sweep_on(host, s->workers, record_main, rec);
    rec->cuts = host_sim_cut(host);
    *v = rec->w.verdict;
    return true;
}

static void record_end(struct recorded *rec)
{
    host_close(rec->w.run.host);
    sweep_work_drop(&rec->w);
    free(rec->steps);
}

/* --- one state ----------------------------------------------------------------------------------
 */

struct state {
    struct recorded *rec;
    struct sweep_work w; /* of the crashed machine; its model only bounds the device */
    struct sweep_legal legal;
    size_t cut;
    uint64_t tear;
    uint8_t *apply;
    size_t pending;
};

static int state_main(void *arg)
{
    struct state *st = arg;
    struct sweep_work *w = &st->w;
    struct blk_error e = {0};
    if (co_sweep_open(&w->run, &w->dev, &e) < 0) {
        w->dev = NULL;
        sweep_broke(&w->verdict, BREAK_REPAIR, "does not open: %s", e.text);
        return 0;
    }
    const struct model *m = &st->rec->w.model;
    bool between = w->run.subject->flags & SWEEP_SIZE_OF_FILE;
    if (!(between ? model_size_between : model_size_legal)(m, w->dev->size, st->cut, true))
        sweep_broke(&w->verdict, BREAK_LOST, "the size is %" PRIu64, w->dev->size);
    if (!w->verdict.what && co_sweep_read_all(w) == 0)
        sweep_compare(w, &st->legal);
    co_sweep_allocate(w);
    co_sweep_clean(w);
    co_sweep_close(w);
    return 0;
}

/* What the crash left, in words: for a failure. */
static void explain(struct state *st)
{
    struct sweep_verdict *v = &st->w.verdict;
    size_t at = strlen(v->text);
    for (size_t i = 0; i < st->pending && at + 160 < sizeof(v->text); i++) {
        char op[100];
        host_sim_pending_text(st->rec->w.run.host, st->cut, i, op, sizeof(op));
        static const char *const fate[] = {"dropped", "applied", "torn"};
        at += (size_t)snprintf(v->text + at, sizeof(v->text) - at, "\n#   %s: %s",
                               fate[st->apply[i]], op);
    }
}

static void state_run(struct state *st, struct host *host)
{
    const struct sweep_subject *s = st->rec->w.run.subject;
    sweep_run_init(&st->w.run, s, host, st->tear);
    st->w.run.crashed = true;
    st->w.verdict.what = BREAK_NONE;
    sweep_on(host, 1, state_main, st);
    if (st->w.verdict.what)
        explain(st);
}

/* The line that replays a state; free() it. */
static char *replay_text(const struct state *st)
{
    char *digits = calloc(st->pending + 1, 1), *line = NULL;
    if (!digits)
        abort();
    for (size_t i = 0; i < st->pending; i++)
        digits[i] = (char)('0' + st->apply[i]);
    if (asprintf(&line, "--cut %zu --apply %s --tear %" PRIu64, st->cut, *digits ? digits : "-",
                 st->tear) < 0)
        abort();
    free(digits);
    return line;
}

static void foreign_look(struct state *st, const struct host *host, struct sweep_result *r)
{
    char text[32 * KiB];
    int rc = sweep_foreign(st->w.run.subject, host, text, sizeof(text));
    r->foreign += rc >= 0;
    if (rc == 0)
        sweep_broke(&st->w.verdict, BREAK_REPAIR, "the foreign checker: %s", text);
}

/* --- which states -------------------------------------------------------------------------------
 */

static uint64_t candidates(size_t pending)
{
    if (pending == 0)
        return 1;
    return pending <= EXHAUSTIVE ? (1ULL << pending) + RANDOMS / 4 : 3 * pending + 2 + RANDOMS;
}

static void random_subset(struct sim_rng *r, uint8_t *apply, size_t pending)
{
    uint64_t bias = 1 + sim_rng_below(r, 7); /* of 8: nearly nothing to nearly all */
    for (size_t i = 0; i < pending; i++) {
        apply[i] = sim_rng_below(r, 8) < bias;
        if (sim_rng_below(r, 4) == 0)
            apply[i] = 2;
    }
}

/* The candidate number @index: subsets, or prefixes, single drops, single applies; then torn random
 * ones. */
static void choose(uint64_t index, struct sim_rng *r, uint8_t *apply, size_t pending)
{
    if (pending <= EXHAUSTIVE) {
        if (index >> pending)
            random_subset(r, apply, pending);
        else
            for (size_t i = 0; i < pending; i++)
                apply[i] = index >> i & 1;
    } else if (index <= pending) {
        for (size_t i = 0; i < pending; i++)
            apply[i] = i < index;
    } else if (index < 3 * pending + 1) {
        bool drop = index < 2 * pending + 1;
        size_t one = (index - pending - 1) % pending;
        for (size_t i = 0; i < pending; i++)
            apply[i] = (i == one) != drop;
    } else {
        random_subset(r, apply, pending);
    }
}

/* A set of hashes. */
struct seen {
    uint64_t *slots;
    uint64_t room, count;
};

static bool seen_add(struct seen *s, uint64_t key)
{
    key |= 1;
    if (s->count * 2 >= s->room) {
        struct seen wider = {calloc(MAX(1024, s->room * 2), 8), MAX(1024, s->room * 2), 0};
        if (!wider.slots)
            abort();
        for (uint64_t i = 0; i < s->room; i++)
            if (s->slots[i])
                seen_add(&wider, s->slots[i]);
        free(s->slots);
        *s = wider;
    }
    uint64_t at = key % s->room;
    while (s->slots[at] && s->slots[at] != key)
        at = (at + 1) % s->room;
    if (s->slots[at])
        return false;
    s->slots[at] = key;
    s->count++;
    return true;
}

/* Equal disks ask for equal values only after equal flushes. */
static uint64_t flushes_before(const struct model *m, uint64_t cut)
{
    uint64_t last = 0;
    for (uint32_t i = 1; i < m->op_count; i++)
        if (m->ops[i].flushed_cut <= cut)
            last = MAX(last, m->ops[i].flushed_cut);
    return last;
}

struct hunt {
    const char *program;
    const struct sweep_subject *subject;
    uint64_t seed, budget, every_foreign;
    struct recorded rec;
    struct state st;
    struct seen seen;
    struct sim_rng rng;
    uint64_t *next; /* per cut: how many candidates were taken */
    struct sweep_result *r;
    uint64_t states;
};

static void one_state(struct hunt *h, uint64_t flushes)
{
    struct state *st = &h->st;
    struct host *host;
    st->tear = sim_rng_next(&h->rng) >> 32;
    if (host_sim_crash(h->rec.w.run.host, st->cut, st->apply, st->tear, &host) < 0)
        abort();
    if (!seen_add(&h->seen, sim_mix(host_sim_hash(host), flushes))) {
        h->r->crash_skipped++;
        host_close(host);
        return;
    }
    char *replay = replay_text(st);
    sweep_watch(h->program, h->subject, h->seed, replay);
    st->w.verdict.what = BREAK_NONE;
    if (h->every_foreign && h->states % h->every_foreign == 0)
        foreign_look(st, host, h->r);
    if (!st->w.verdict.what)
        state_run(st, host);
    sweep_note(h->r, &st->w.verdict, h->program, h->subject, h->seed, replay);
    free(replay);
    h->states++;
    host_close(host);
}

/* Up to @quota more states of one cut. True if it has any left. */
static bool one_cut(struct hunt *h, size_t cut, uint64_t quota)
{
    struct state *st = &h->st;
    const struct host *host = h->rec.w.run.host;
    st->cut = cut;
    st->pending = host_sim_pending(host, cut);
    uint64_t limit = candidates(st->pending), first = sim_mix(h->seed, cut) % limit;
    if (h->next[cut] >= limit)
        return false;
    st->apply = calloc(st->pending + 1, 1);
    sweep_legal_make(&st->legal, &h->rec.w.model, cut);
    uint64_t flushes = flushes_before(&h->rec.w.model, cut);
    for (; quota > 0 && h->next[cut] < limit && h->states < h->budget && !h->r->failed; quota--) {
        choose((first + h->next[cut]++ * 0x9e3779b1ULL) % limit, &h->rng, st->apply, st->pending);
        one_state(h, flushes);
    }
    sweep_legal_drop(&st->legal);
    free(st->apply);
    return h->next[cut] < limit;
}

static size_t *shuffled(struct sim_rng *r, size_t count)
{
    size_t *order = calloc(count, sizeof(*order));
    for (size_t i = 0; order && i < count; i++) {
        size_t j = sim_rng_below(r, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    return order;
}

static void hunt_all(struct hunt *h)
{
    size_t count = h->rec.cuts + 1;
    size_t *order = shuffled(&h->rng, count);
    h->next = calloc(count, sizeof(*h->next));
    if (!order || !h->next)
        abort();
    bool more = true;
    for (uint64_t quota = h->budget / count + 1; more && h->states < h->budget; quota *= 2) {
        more = false;
        for (size_t i = 0; i < count && h->states < h->budget && !h->r->failed; i++)
            more |= one_cut(h, order[i], quota);
    }
    h->r->crash_states += h->states;
    free(order);
    free(h->next);
    free(h->seen.slots);
}

static bool hunt_start(struct hunt *h)
{
    struct sweep_verdict v = {0};
    sweep_watch(h->program, h->subject, h->seed, "--cut 0 --apply - --tear 0");
    bool made = record(&h->rec, h->subject, h->seed, &v);
    sweep_note(h->r, &v, h->program, h->subject, h->seed, "--cut 0 --apply - --tear 0");
    if (!made)
        return false;
    h->st.rec = &h->rec;
    sweep_work_init(&h->st.w, h->subject, h->rec.w.run.host, h->seed);
    sim_rng_seed(&h->rng, sim_mix(h->seed, 5));
    return true;
}

static void hunt_end(struct hunt *h)
{
    sweep_work_drop(&h->st.w);
    record_end(&h->rec);
}

void sweep_crashes(const char *program, const struct sweep_subject *s, uint64_t seed,
                   uint64_t budget, unsigned foreign, struct sweep_result *r)
{
    struct hunt h = {.program = program, .subject = s, .seed = seed, .budget = budget, .r = r};
    if (!hunt_start(&h))
        return;
    if (s->foreign && foreign)
        h.every_foreign = MAX(1, budget / foreign);
    if (!r->failed)
        hunt_all(&h);
    hunt_end(&h);
}

void sweep_crash_one(const char *program, const struct sweep_subject *s, uint64_t seed, size_t cut,
                     const char *apply, uint64_t tear, struct sweep_result *r)
{
    struct hunt h = {.program = program, .subject = s, .seed = seed, .budget = 1, .r = r};
    if (!hunt_start(&h))
        return;
    struct host *rec = h.rec.w.run.host, *host;
    struct state *st = &h.st;
    if (sweep_trace())
        host_sim_print(rec, stdout);
    st->cut = MIN(cut, h.rec.cuts);
    st->tear = tear;
    st->pending = host_sim_pending(rec, st->cut);
    st->apply = calloc(st->pending + 1, 1);
    for (size_t i = 0; st->apply && i < st->pending && apply[i]; i++)
        st->apply[i] = (uint8_t)(apply[i] >= '0' && apply[i] <= '2' ? apply[i] - '0' : 0);
    sweep_legal_make(&st->legal, &h.rec.w.model, st->cut);
    if (!st->apply || host_sim_crash(rec, st->cut, st->apply, tear, &host) < 0)
        abort();
    if (s->foreign)
        foreign_look(st, host, r);
    if (!st->w.verdict.what)
        state_run(st, host);
    char *replay = replay_text(st);
    sweep_note(r, &st->w.verdict, program, s, seed, replay);
    free(replay);
    r->crash_states++;
    host_close(host);
    sweep_legal_drop(&st->legal);
    free(st->apply);
    hunt_end(&h);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* share.c - weights, budgets and minimums of a group of users (share.h has the rules). */
#include "block/share.h"

#include "block/option.h"

#define NS          1e9
#define UNIT        (64 * KiB) /* a request costs one, and one more for each of these bytes */
#define BRIM        0.05       /* seconds' worth that may come at once */
#define FIRST_DEPTH 8
#define MOST_DEPTH  256
#define WINDOW      16 /* requests that are looked at together */
#define PROBE_EVERY 64 /* windows; then one at a low depth, to learn what is fast */
#define SLOWER      1.5
#define AS_FAST     1.25

struct rate {
    double rate, level;
    uint64_t at;
};

struct waiting {
    struct waiting *next;
    struct co *co;
    uint64_t bytes;
    bool granted;
};

struct share {
    struct share *next, *prev; /* of the group's shares that have somebody waiting */
    struct share_group *group;
    struct share_wish wish;
    struct rate iops, bps;
    double min_tag; /* when the next request of the minimum is due, ns */
    double tag;     /* weighted cost so far: S2 */
    struct waiting *first, *last;
    unsigned under_way;
    struct share_stats stats;
};

struct share_group {
    struct worker *home;
    struct share_budget told;
    struct rate iops, bps;
    struct share *first; /* with somebody waiting */
    unsigned shares;
    double now_tag;   /* of who went last by weight */
    double under_way; /* cost */
    double depth, depth_before_probe;
    bool full; /* the depth held somebody back in this window */
    double base_ns, sum_ns;
    unsigned seen, windows;
    uint64_t since; /* requests that began before saw another depth */
    struct timer timer;
};

/* --- rates --- */

static void rate_set(struct rate *r, uint64_t rate)
{
    r->rate = (double)rate;
    r->level = MIN(r->level, BRIM * r->rate);
    r->at = worker_now();
}

/* Nanoseconds until the next may go. */
static double rate_wait(struct rate *r, uint64_t now)
{
    if (r->rate == 0)
        return 0;
    r->level = MAX(0.0, r->level - r->rate * (double)(now - r->at) / NS);
    r->at = now;
    double above = r->level - BRIM * r->rate;
    return above > 0 ? above / r->rate * NS : 0;
}

static void rate_take(struct rate *r, double amount)
{
    if (r->rate > 0)
        r->level += amount;
}

/* --- who goes next --- */

static double cost_of(uint64_t bytes)
{
    return 1 + (double)(bytes / UNIT);
}

static double own_wait(struct share *s, uint64_t now)
{
    double a = rate_wait(&s->iops, now), b = rate_wait(&s->bps, now);
    return MAX(a, b);
}

static double budget_wait(struct share_group *g, uint64_t now)
{
    double a = rate_wait(&g->iops, now), b = rate_wait(&g->bps, now);
    return MAX(a, b);
}

static bool has_room(const struct share_group *g, uint64_t bytes)
{
    return g->under_way == 0 || g->under_way + cost_of(bytes) <= g->depth;
}

static bool is_due(const struct share *s, uint64_t now)
{
    return s->wish.min_iops && s->min_tag <= (double)now;
}

static void charge(struct share *s, uint64_t bytes, uint64_t now)
{
    struct share_group *g = s->group;

    if (is_due(s, now)) /* at most a tenth of a second's worth is made up for */
        s->min_tag = MAX(s->min_tag, (double)now - NS / 10) + NS / (double)s->wish.min_iops;
    s->tag = MAX(s->tag, g->now_tag) + cost_of(bytes) / s->wish.weight;
    rate_take(&s->iops, 1);
    rate_take(&s->bps, (double)bytes);
    rate_take(&g->iops, 1);
    rate_take(&g->bps, (double)bytes);
    g->under_way += cost_of(bytes);
    s->under_way++;
    s->stats.passed++;
    s->stats.bytes += bytes;
}

static void unlist(struct share *s)
{
    *(s->prev ? &s->prev->next : &s->group->first) = s->next;
    if (s->next)
        s->next->prev = s->prev;
    s->prev = s->next = NULL;
}

static void enlist(struct share *s)
{
    s->prev = NULL;
    s->next = s->group->first;
    if (s->next)
        s->next->prev = s;
    s->group->first = s;
}

static void grant(struct share *s, uint64_t now)
{
    struct waiting *w = s->first;

    charge(s, w->bytes, now);
    s->first = w->next;
    if (!s->first) {
        s->last = NULL;
        unlist(s);
    }
    w->granted = true;
    co_wake(w->co);
}

/* The share whose turn it is; NULL: none may go now, *wait says for how long at the least. */
static struct share *pick(struct share_group *g, uint64_t now, double *wait)
{
    struct share *due = NULL, *behind = NULL;
    double budget = budget_wait(g, now);

    *wait = UINT32_MAX * NS;
    for (struct share *s = g->first; s; s = s->next) {
        double own = own_wait(s, now);

        if (own > 0) {
            *wait = MIN(*wait, own);
            continue;
        }
        if (is_due(s, now)) {
            if (!due || s->min_tag < due->min_tag)
                due = s;
        } else if (s->wish.min_iops) {
            *wait = MIN(*wait, s->min_tag - (double)now);
        }
        if (!behind || MAX(s->tag, g->now_tag) < MAX(behind->tag, g->now_tag))
            behind = s;
    }
    if (due)
        return due;
    if (behind && budget > 0)
        *wait = MIN(*wait, budget);
    if (!behind || budget > 0)
        return NULL;
    if (!has_room(g, behind->first->bytes)) {
        g->full = true;
        return NULL;
    }
    g->now_tag = MAX(behind->tag, g->now_tag);
    return behind;
}

static void dispatch(struct share_group *g);

static void on_timer(struct timer *t)
{
    dispatch(container_of(t, struct share_group, timer));
}

static void dispatch(struct share_group *g)
{
    uint64_t now = worker_now();
    double wait = 0;
    struct share *s;

    while (g->first && (s = pick(g, now, &wait)))
        grant(s, now);
    if (g->first)
        timer_arm(&g->timer, now + (uint64_t)MAX(wait, 1000), on_timer);
    else
        timer_cancel(&g->timer);
}

/* --- depth --- */

static void window_over(struct share_group *g)
{
    double mean = g->sum_ns / g->seen, step = MAX(1.0, (double)(unsigned)(g->depth / 8));

    g->sum_ns = g->seen = 0;
    if (g->depth_before_probe > 0) {
        g->base_ns = mean;
        g->depth = g->depth_before_probe;
        g->depth_before_probe = 0;
    } else if (++g->windows % PROBE_EVERY == 0) {
        g->depth_before_probe = g->depth;
        g->depth = MAX(1.0, (double)(unsigned)(g->depth / 4));
    } else if (g->base_ns == 0 || mean < g->base_ns) {
        g->base_ns = mean;
    } else if (mean > SLOWER * g->base_ns) {
        g->depth = MAX(1.0, g->depth - step);
    } else if (mean < AS_FAST * g->base_ns && g->full) {
        g->depth = MIN(MOST_DEPTH, g->depth + step);
    }
    g->full = false;
    g->since = worker_now();
}

static void adapt(struct share_group *g, const struct share_ticket *t)
{
    if (g->told.depth || t->began < g->since)
        return;
    g->sum_ns += (double)(worker_now() - t->began) / t->cost;
    if (++g->seen == WINDOW)
        window_over(g);
}

/* --- requests --- */

struct call {
    struct share *share;
    uint64_t bytes;
    struct share_ticket *ticket;
};

static void co_wait_turn(struct share *s, uint64_t bytes)
{
    struct waiting w = {.co = co_self(), .bytes = bytes};
    uint64_t since = worker_now();

    if (s->last) {
        s->last->next = &w;
    } else {
        s->first = &w;
        enlist(s);
    }
    s->last = &w;
    dispatch(s->group);
    while (!w.granted)
        co_suspend();
    uint64_t waited = worker_now() - since;
    s->stats.waited += waited > 0;
    s->stats.waited_ns += waited;
}

static int co_begin(void *arg)
{
    struct call *c = arg;
    struct share *s = c->share;
    struct share_group *g = s->group;
    uint64_t now = worker_now();

    if (!g->first && own_wait(s, now) == 0 && budget_wait(g, now) == 0 && has_room(g, c->bytes)) {
        g->now_tag = MAX(s->tag, g->now_tag);
        charge(s, c->bytes, now);
    } else {
        co_wait_turn(s, c->bytes);
    }
    *c->ticket =
        (struct share_ticket){.group = s->group, .cost = cost_of(c->bytes), .began = worker_now()};
    return 0;
}

void co_share_begin(struct share *s, uint64_t bytes, struct share_ticket *t)
{
    struct call c = {s, bytes, t};
    co_on(s->group->home, co_begin, &c);
}

static int co_end(void *arg)
{
    struct call *c = arg;
    struct share_ticket *t = c->ticket;

    c->share->under_way--;
    t->group->under_way = MAX(0.0, t->group->under_way - t->cost);
    adapt(t->group, t);
    if (t->group->first)
        dispatch(t->group);
    return 0;
}

void co_share_end(struct share *s, struct share_ticket *t)
{
    struct call c = {s, 0, t};
    co_on(t->group->home, co_end, &c);
}

/* --- life --- */

struct share_group *share_group_new(const struct share_budget *b)
{
    struct share_group *g = mem_zalloc(sizeof(*g));

    if (!g)
        return NULL;
    g->home = worker_self();
    g->depth = FIRST_DEPTH;
    share_group_set(g, b);
    return g;
}

void share_group_set(struct share_group *g, const struct share_budget *b)
{
    assert(g->home == worker_self());
    if (b->depth)
        g->depth = b->depth;
    else if (g->told.depth)
        g->depth = FIRST_DEPTH;
    g->depth_before_probe = 0;
    g->told = *b;
    rate_set(&g->iops, b->iops);
    rate_set(&g->bps, b->bps);
    dispatch(g);
}

void share_group_get(const struct share_group *g, struct share_budget *b)
{
    *b = g->told;
}

unsigned share_group_depth(const struct share_group *g)
{
    return (unsigned)g->depth;
}

unsigned share_group_count(const struct share_group *g)
{
    return g->shares;
}

void share_group_free(struct share_group *g)
{
    if (!g)
        return;
    assert(g->shares == 0 && !g->first);
    timer_cancel(&g->timer);
    mem_free(g);
}

struct share *share_join(struct share_group *g, const struct share_wish *w)
{
    struct share *s = mem_zalloc(sizeof(*s));

    if (!s)
        return NULL;
    s->group = g;
    g->shares++;
    share_set(s, w);
    return s;
}

void share_set(struct share *s, const struct share_wish *w)
{
    assert(s->group->home == worker_self());
    s->wish = *w;
    if (s->wish.weight == 0)
        s->wish.weight = 100;
    s->min_tag = (double)worker_now();
    rate_set(&s->iops, w->iops);
    rate_set(&s->bps, w->bps);
    dispatch(s->group);
}

void share_get(const struct share *s, struct share_wish *w)
{
    *w = s->wish;
}

void share_stats(const struct share *s, struct share_stats *out)
{
    *out = s->stats;
}

void share_move(struct share *s, struct share_group *to)
{
    struct share_group *from = s->group;

    assert(from->home == worker_self() && to->home == from->home);
    if (from == to)
        return;
    if (s->first)
        unlist(s);
    from->shares--;
    to->shares++;
    s->group = to;
    s->tag = to->now_tag;
    if (s->first)
        enlist(s);
    dispatch(from);
    dispatch(to);
}

void share_leave(struct share *s)
{
    if (!s)
        return;
    assert(!s->first && s->under_way == 0);
    s->group->shares--;
    mem_free(s);
}

struct share_group *share_group_of(const struct share *s)
{
    return s->group;
}

/* --- words --- */

static int number(const char *key, const char *value, uint64_t most, uint64_t *out,
                  struct blk_error *e)
{
    TRY(opts_parse_size(value, out, e));
    if (*out > most)
        return err_set(e, -ERANGE, "%s is at most %" PRIu64, key, most);
    return 0;
}

int share_wish_word(struct share_wish *w, const char *key, const char *value, struct blk_error *e)
{
    uint64_t n = 0;

    if (strcmp(key, "weight") == 0) {
        TRY(number(key, value, 10000, &n, e));
        w->weight = (unsigned)n;
        return n ? 0 : err_set(e, -ERANGE, "a weight is 1 to 10000");
    }
    if (strcmp(key, "min-iops") == 0)
        return number(key, value, 1000000000, &w->min_iops, e);
    if (strcmp(key, "iops") == 0)
        return number(key, value, 1000000000, &w->iops, e);
    if (strcmp(key, "bps") == 0)
        return number(key, value, 1ULL << 50, &w->bps, e);
    return err_set(e, -ENOENT, "there is no '%.40s': weight, min-iops, iops and bps are", key);
}

int share_budget_word(struct share_budget *b, const char *key, const char *value,
                      struct blk_error *e)
{
    uint64_t n = 0;

    if (strcmp(key, "depth") == 0) {
        TRY(number(key, value, 100000, &n, e));
        b->depth = (unsigned)n;
        return 0;
    }
    if (strcmp(key, "iops") == 0)
        return number(key, value, 1000000000, &b->iops, e);
    if (strcmp(key, "bps") == 0)
        return number(key, value, 1ULL << 50, &b->bps, e);
    return err_set(e, -ENOENT, "there is no '%.40s': iops, bps and depth are", key);
}

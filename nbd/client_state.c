/* SPDX-License-Identifier: BSD-3-Clause */
/* client_state.c - the connections of one client as a whole: up, lost, connected again.
 *
 *   lost       one connection broke: all are given up, calls in flight are lost and wait
 *   connected  one connection stands and the export is still the same; what was acknowledged and
 *              not flushed is written again on it; then the others connect, and calls go on
 *   given up   reconnect-delay has passed: calls fail with EIO at once. Connecting goes on. */
#ifdef HAVE_LIBNBD
#include "nbd/client.h"

#define FIRST_PAUSE (50 * 1000000ULL) /* ns between attempts; doubles up to */
#define LAST_PAUSE  (2000 * 1000000ULL)
#define PAUSE_STEP  (50 * 1000000ULL)
#define RESENDS     16 /* of one call: it may be what kills the server */

/* --- connecting --- */

/* Further connections, as many as the server lets in: one too few is no failure. */
static int co_connect_others(struct client *c)
{
    unsigned wanted = c->facts.multi_conn ? c->wanted : 1;
    struct client_facts facts;

    for (c->count = 1; c->count < wanted; c->count++) {
        struct client_link *l = &c->links[c->count];

        l->client = c;
        if (co_link_open(l, &facts, NULL) < 0)
            break;
    }
    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].broken)
            return -ENOTCONN;
    return 0;
}

static bool same_export(const struct client_facts *was, const struct client_facts *is)
{
    return is->size >= was->size && is->min_block <= was->min_block &&
           is->max_block >= was->max_block && (was->read_only || !is->read_only) &&
           is->flush == was->flush && (is->fua || !was->fua) && (is->trim || !was->trim) &&
           (is->zero || !was->zero) && (is->fast_zero || !was->fast_zero) &&
           (is->status || !was->status);
}

int co_client_connect(struct client *c, struct client_facts *facts, struct blk_error *e)
{
    c->count = 1;
    c->links[0].client = c;
    TRY(co_link_open(&c->links[0], facts, e));
    if (c->facts.max_block && !same_export(&c->facts, facts)) { /* not the first time */
        co_link_close(&c->links[0]);
        return err_set(e, -EIO,
                       "NBD server %.200s: the export has another size or other abilities since "
                       "the connection broke: open it anew",
                       c->where.text);
    }
    if (!c->facts.max_block)
        c->facts = *facts;
    int rc = co_replay(c, &c->links[0]);
    if (rc == 0)
        rc = co_connect_others(c);
    if (rc < 0)
        return err_errno(e, rc, "NBD server %.200s", c->where.text);
    c->up = true;
    c->gave_up = false;
    timer_cancel(&c->give_up);
    co_queue_wake_all(&c->changed);
    return 0;
}

/* --- losing --- */

static bool all_down(const struct client *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].h)
            return false;
    return true;
}

static void co_break_all(struct client *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (c->links[i].h)
            link_break(&c->links[i]);
    while (!all_down(c))
        co_queue_wait(&c->changed);
}

static void co_pause(struct client *c, uint64_t ns)
{
    for (uint64_t slept = 0; slept < ns && !atomic_load(&c->closing); slept += PAUSE_STEP)
        co_sleep(PAUSE_STEP);
}

static void co_reconnect(void *arg)
{
    struct client *c = arg;
    uint64_t pause = FIRST_PAUSE;

    co_break_all(c);
    while (!atomic_load(&c->closing)) {
        struct client_facts facts;

        if (co_client_connect(c, &facts, NULL) == 0)
            break;
        co_break_all(c);
        co_pause(c, pause);
        pause = MIN(2 * pause, LAST_PAUSE);
    }
    c->reconnecting = false;
    co_queue_wake_all(&c->changed);
}

static void give_up(struct client *c)
{
    c->gave_up = true;
    co_queue_wake_all(&c->changed);
}

static void on_give_up(struct timer *t)
{
    give_up(container_of(t, struct client, give_up));
}

void client_lost(struct client *c)
{
    if (!c->up || atomic_load(&c->closing) || c->reconnecting)
        return;
    c->up = false;
    if (!c->replay.limit && c->facts.flush && c->replay.flushed < c->replay.seq)
        c->replay.forgot = true;
    c->reconnecting = true;
    if (c->reconnect_ns)
        timer_arm(&c->give_up, worker_now() + c->reconnect_ns, on_give_up);
    else
        give_up(c);
    if (co_start_later(co_reconnect, c) < 0) {
        c->reconnecting = false;
        give_up(c);
    }
}

/* --- calls --- */

static struct client_link *least_busy(struct client *c)
{
    struct client_link *best = &c->links[0];

    for (unsigned i = 1; i < c->count; i++)
        if (c->links[i].in_flight < best->in_flight)
            best = &c->links[i];
    return best;
}

int co_client_call(struct client *c, struct client_call *call)
{
    call->client = c;
    for (unsigned tries = 0; tries < RESENDS; tries++) {
        while (!c->up && !c->gave_up)
            co_queue_wait(&c->changed);
        if (!c->up)
            return -EIO;
        int rc = co_link_call(least_busy(c), call);
        if (!call->lost)
            return rc;
        client_lost(c); /* if it is not said yet */
    }
    return -EIO;
}

void co_client_disconnect(struct client *c)
{
    atomic_store(&c->closing, true);
    give_up(c);
    while (c->reconnecting)
        co_queue_wait(&c->changed);
    timer_cancel(&c->give_up);
    c->up = false;
    for (unsigned i = 0; i < c->count; i++)
        co_link_close(&c->links[i]);
}
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* meta_batch.c - write-back: all that is dirty at one instant goes to the file in order of rank,
 * with flushes in between where order needs them, and no more.
 *
 * One batch runs at a time. Who asks while one runs waits for the next, which takes everything that
 * was dirty when he asked; so many callers share one. Neighbouring pages are gathered into one
 * write, some writes are in flight together. Deferred calls run after their batch, in a coroutine
 * of their own: they wait for requests, which may be waiting for a write-back. */
#include "imgfmt/meta_private.h"

#define BACKGROUND_NS 1000000000ULL

struct batch {
    struct meta_page *pages[META_RANKS]; /* linked by batch_next */
    struct meta_deferred *deferred;
    unsigned data_rank;
    bool flush;
};

/* --- capture and undo --- */

static void capture(struct meta *m, struct batch *b)
{
    m->captured++;
    for (unsigned r = 0; r < META_RANKS; r++) {
        struct meta_page *p;
        while ((p = m->dirty[r])) {
            meta_unlist_dirty(m, p);
            p->batch = META_WAITING;
            p->batch_next = b->pages[r];
            b->pages[r] = p;
        }
    }
    b->deferred = take(m->deferred);
    m->deferred_end = &m->deferred;
    for (struct meta_deferred *d = b->deferred; d; d = d->next)
        d->taken = true;
    b->data_rank = m->data_rank;
    m->data_rank = META_NO_RANK;
    b->flush = m->want_flush || (b->deferred && !m->o.fresh);
    m->want_flush = false;
}

static void page_out(struct meta_page *p)
{
    mem_free(take(p->frozen));
    p->batch = META_OUT;
    p->batch_next = NULL;
}

/* Pages that were not written are dirty again. */
static void redirty(struct meta *m, struct meta_page *list)
{
    for (struct meta_page *p = list, *next; p; p = next) {
        next = p->batch_next;
        page_out(p);
        if (!p->dirty)
            meta_list_dirty(m, p);
    }
}

static void put_back_deferred(struct meta *m, struct meta_deferred *list)
{
    if (!list)
        return;
    struct meta_deferred *last = list;
    while (last->next)
        last = last->next;
    last->next = m->deferred;
    if (!m->deferred)
        m->deferred_end = &last->next;
    m->deferred = list;
}

static void undo(struct meta *m, struct batch *b)
{
    for (unsigned r = 0; r < META_RANKS; r++)
        redirty(m, b->pages[r]);
    put_back_deferred(m, b->deferred);
    m->data_rank = MIN(m->data_rank, b->data_rank);
    m->want_flush |= b->flush;
}

/* --- writing --- */

/* Merge sort by offset: no memory needed. */
static struct meta_page *sorted(struct meta_page *list)
{
    if (!list || !list->batch_next)
        return list;
    struct meta_page *slow = list, *fast = list->batch_next;
    while (fast && fast->batch_next) {
        slow = slow->batch_next;
        fast = fast->batch_next->batch_next;
    }
    struct meta_page *b = sorted(slow->batch_next);
    slow->batch_next = NULL;
    struct meta_page *a = sorted(list);
    struct meta_page *first = NULL, **end = &first;
    while (a && b) {
        struct meta_page **least = a->offset < b->offset ? &a : &b;
        *end = *least;
        end = &(*least)->batch_next;
        *least = *end;
    }
    *end = a ? a : b;
    return first;
}

const uint8_t *meta_page_contents(const struct meta_page *p)
{
    return p->frozen ? p->frozen : p->data;
}

static int co_write_lane(void *arg)
{
    struct meta_lane *lane = arg;
    struct meta *m = lane->meta;
    uint64_t page_bytes = m->o.page_bytes;
    uint64_t offset = lane->first->offset;
    unsigned i = 0;
    for (struct meta_page *p = lane->first; p; p = p->batch_next, i++) {
        memcpy(lane->buffer + i * page_bytes, meta_page_contents(p), page_bytes);
        p->batch = META_WRITING;
    }
    assert(i == lane->count);
    if (m->o.write_steps)
        blk_step(m->o.file, m->o.write_steps[lane->first->rank]);
    int rc = co_blk_write_buf(m->o.file, offset, lane->buffer, i * page_bytes, 0);
    if (rc < 0) {
        redirty(m, lane->first);
    } else {
        for (struct meta_page *p = lane->first, *next; p; p = next) {
            next = p->batch_next;
            page_out(p);
        }
    }
    lane->busy = false;
    return rc;
}

/* Cuts a run of neighbours off the front of *list into a free lane. */
static struct meta_lane *fill_lane(struct meta *m, struct meta_page **list)
{
    struct meta_lane *lane = m->lanes;
    while (lane->busy)
        lane++;
    assert(lane < m->lanes + META_LANES);
    unsigned most = META_LANE_BYTES / m->o.page_bytes;
    struct meta_page *last = *list;
    lane->busy = true;
    lane->first = last;
    lane->count = 1;
    while (lane->count < most && last->batch_next &&
           last->batch_next->offset == last->offset + m->o.page_bytes) {
        last = last->batch_next;
        lane->count++;
    }
    *list = last->batch_next;
    last->batch_next = NULL;
    return lane;
}

static int co_write_rank(struct meta *m, struct meta_page **list, bool settled)
{
    struct co_group g;
    for (struct meta_page *p = *list; p && m->o.may_write; p = p->batch_next)
        TRY(m->o.may_write(m->o.guard, p->offset, p->rank));
    co_group_init(&g, META_LANES);
    *list = sorted(*list);
    if (m->hooks.co_log && !m->o.fresh)
        TRY(m->hooks.co_log(m->hooks.arg, *list, settled));
    while (*list && !co_group_failed(&g)) {
        while (g.running >= META_LANES)
            co_queue_wait(&g.room);
        co_group_start(&g, co_write_lane, fill_lane(m, list));
    }
    return co_group_wait(&g);
}

/* All data and all pages written so far are durable. */
static int co_sync(struct meta *m)
{
    int rc = 0;
    if (m->o.data && m->o.data != m->o.file)
        rc = co_blk_flush(m->o.data);
    if (rc == 0)
        rc = co_blk_flush(m->o.file);
    if (rc == 0)
        m->unflushed = META_NO_RANK;
    return rc;
}

static bool must_sync_before(const struct meta *m, const struct batch *b, unsigned rank)
{
    return !m->o.fresh && (m->unflushed < rank || b->data_rank <= rank);
}

static int co_write_all(struct meta *m, struct batch *b)
{
    for (unsigned r = 0; r < META_RANKS; r++) {
        if (!b->pages[r])
            continue;
        if (must_sync_before(m, b, r)) {
            TRY(co_sync(m));
            b->data_rank = META_NO_RANK;
        }
        bool settled = m->unflushed == META_NO_RANK;
        m->unflushed = MIN(m->unflushed, r);
        TRY(co_write_rank(m, &b->pages[r], settled));
    }
    return b->flush ? co_sync(m) : 0;
}

/* --- in the background --- */

static void co_background(void *arg)
{
    struct meta *m = arg;
    m->pressed = false;
    int rc = co_meta_write_back(m, false);
    (void)rc; /* the next flush says it */
    m->background--;
    co_queue_wake_all(&m->background_end);
}

static void start_background(struct meta *m)
{
    m->background++;
    /* Later, never now: the page that made us start is about to change. */
    if (co_start_later(co_background, m) == 0)
        return;
    m->background--;
    m->pressed = false;
}

static void on_timer(struct timer *t)
{
    struct meta *m = container_of(t, struct meta, timer);
    m->timer_armed = false;
    if (m->error == 0)
        start_background(m);
}

static void arm_timer(struct meta *m)
{
    if (m->timer_armed || m->o.fresh || m->error < 0)
        return;
    m->timer_armed = true;
    timer_arm(&m->timer, worker_now() + BACKGROUND_NS, on_timer);
}

void meta_batch_wanted(struct meta *m)
{
    if (m->error < 0)
        return;
    if (!m->pressed && m->dirty_count * (uint64_t)m->o.page_bytes > m->o.limit_bytes / 4) {
        m->pressed = true;
        start_background(m);
    } else {
        arm_timer(m);
    }
}

/* --- deferred calls --- */

struct runner {
    struct meta *meta;
    struct meta_deferred *list;
};

static void co_run_deferred(void *arg)
{
    struct runner r = *(struct runner *)arg;
    mem_free(arg);
    for (struct meta_deferred *d = r.list, *next; d; d = next) {
        next = d->next; /* co_fn may free it */
        d->co_fn(d);
    }
    r.meta->deferred_running--;
    r.meta->background--;
    co_queue_wake_all(&r.meta->background_end);
}

/* In a coroutine of their own; false: none could be had. */
static bool start_deferred(struct meta *m, struct meta_deferred *list)
{
    struct runner *r = mem_alloc(sizeof(*r));
    if (!r)
        return false;
    *r = (struct runner){m, list};
    m->deferred_running++;
    m->background++;
    if (co_start_later(co_run_deferred, r) == 0)
        return true;
    m->deferred_running--;
    m->background--;
    mem_free(r);
    return false;
}

void meta_defer(struct meta *m, struct meta_deferred *d)
{
    d->next = NULL;
    d->taken = false;
    if (m->o.fresh) {
        d->taken = true;
        if (start_deferred(m, d))
            return;
        d->taken = false;
    }
    *m->deferred_end = d;
    m->deferred_end = &d->next;
    meta_batch_wanted(m);
}

void meta_data_before(struct meta *m, unsigned rank)
{
    m->data_rank = MIN(m->data_rank, rank);
}

/* --- the batch --- */

static int co_run_batch(struct meta *m)
{
    struct batch b = {0};
    m->running = true;
    capture(m, &b);
    int rc = co_write_all(m, &b);
    if (rc < 0) {
        m->error = rc; /* what the layers below lost by this, nobody knows: it stays failed */
        undo(m, &b);
    }
    if (rc == 0 && b.deferred && !start_deferred(m, b.deferred))
        put_back_deferred(m, b.deferred);
    m->running = false;
    m->completed++;
    m->last_rc = rc;
    co_queue_wake_all(&m->batch_end);
    if (m->dirty_count || m->deferred)
        arm_timer(m);
    return rc;
}

int co_meta_write_back(struct meta *m, bool flush)
{
    if (m->error < 0)
        return m->error;
    bool anything = m->dirty_count || m->deferred || flush;
    if (!anything && !m->running)
        return 0;
    uint64_t mine = m->captured + (anything ? 1 : 0);
    m->want_flush |= flush;
    while (m->running) {
        co_queue_wait(&m->batch_end);
        if (m->completed >= mine)
            return m->last_rc;
    }
    return m->error < 0 ? m->error : co_run_batch(m);
}

/* Deferred calls whose batch is done, but for which no coroutine could be had. */
static void co_run_stranded(struct meta *m)
{
    while (m->deferred && m->deferred->taken) {
        struct meta_deferred *d = m->deferred;
        m->deferred = d->next;
        if (!m->deferred)
            m->deferred_end = &m->deferred;
        d->co_fn(d);
    }
}

int co_meta_settle(struct meta *m, bool flush)
{
    int rc;
    do {
        rc = co_meta_write_back(m, flush);
        while (m->deferred_running)
            co_queue_wait(&m->background_end);
        if (rc == 0)
            co_run_stranded(m);
    } while (rc == 0 && (m->dirty_count || m->deferred));
    return rc;
}

int meta_batch_prepare(struct meta *m)
{
    if (m->lanes[0].buffer)
        return 0;
    uint8_t *memory = mem_aligned(META_LANES * META_LANE_BYTES);
    if (!memory)
        return -ENOMEM;
    for (unsigned i = 0; i < META_LANES; i++) {
        m->lanes[i].meta = m;
        m->lanes[i].buffer = memory + i * META_LANE_BYTES;
    }
    return 0;
}

void meta_batch_close(struct meta *m)
{
    m->timer_armed = true; /* never again */
    m->pressed = true;
    timer_cancel(&m->timer);
    while (m->background || m->running)
        co_queue_wait(m->background ? &m->background_end : &m->batch_end);
    mem_free(m->lanes[0].buffer);
}

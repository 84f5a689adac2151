/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_pool.c - what open volumes share: space, commits in the background, and the pool's own
 * verbs.
 *
 * Order for data blocks that were let go of:
 *  1. Requests that may read or write them have ended: a grace period, which begins at once, so
 * that a write which finds the pool full later need not wait for itself.
 *  2. The commit that lets go of them is durable (thin_meta.c).
 *  3. They are discarded in the data device.
 *  4. They may be taken again. */
#include "volumes/thin_pool.h"

#define COMMIT_AFTER 1000000000ULL /* ns after the first change */
#define POLL_NS      1000000ULL
#define AHEAD_MOST   (16 * MiB)    /* of the data's file, for which space is taken ahead */
#define AHEAD_LEAST  4             /* blocks in a row before that is done */
#define AHEAD_NEAR   64            /* blocks: writers that run side by side swap places */
#define RELEASE_NS   1000000000ULL /* for as long a write waits for space that is being released */

/* --- operations on the metadata ---------------------------------------------------------------
 */

static void work_ended(struct thin_pool *p)
{
    if (--p->background == 0)
        co_queue_wake_all(&p->idle);
}

static void co_commit_later(void *arg)
{
    struct thin_pool *p = arg;
    (void)!co_thin_commit(&p->meta); /* a failure stays: every later change and flush says it */
    work_ended(p);
}

static void on_timer(struct timer *t)
{
    struct thin_pool *p = container_of(t, struct thin_pool, timer);
    p->timer_armed = false;
    p->background++;
    if (co_start(co_commit_later, p) < 0)
        p->background--; /* the next change or flush sees to it */
}

int co_pool_begin(struct thin_pool *p, uint64_t blocks, bool frees)
{
    int rc = 0;
    for (unsigned tries = 0; tries < 2; tries++) {
        co_rwlock_write(&p->meta.lock);
        rc = thin_meta_room(&p->meta, blocks, frees);
        if (rc == 0)
            return 0;
        co_rwlock_unlock(&p->meta.lock);
        if (rc == -ENOSPC && tries == 0)
            TRY(co_thin_commit(&p->meta));
    }
    return rc;
}

void co_pool_settle(struct thin_pool *p)
{
    timer_cancel(&p->timer);
    while (p->background > 0)
        co_queue_wait(&p->idle);
}

/* --- space that was let go of -----------------------------------------------------------------
 */

static void co_grace(void *arg)
{
    struct thin_pool *p = arg;
    while (p->grace_done < p->grace_wanted) {
        uint64_t now = p->grace_wanted;
        co_blk_quiesce(p->dev); /* 1 */
        p->grace_done = now;
        co_queue_wake_all(&p->graced);
    }
    p->gracing = false;
    work_ended(p);
}

/* After an operation: what it let go of. */
static void see_freed(struct thin_pool *p)
{
    if (p->freed_seen == p->meta.space.freed_ever)
        return;
    p->freed_seen = p->meta.space.freed_ever;
    p->grace_wanted++;
    if (p->gracing)
        return;
    p->gracing = true;
    p->background++;
    if (co_start(co_grace, p) == 0)
        return;
    p->gracing = false; /* the next one, or who releases, tries again */
    p->background--;
}

void co_pool_pass(struct thin_pool *p)
{
    if (p->gracing)
        co_yield ();
}

int co_pool_end(struct thin_pool *p, uint64_t before, int rc)
{
    rc = thin_meta_done(&p->meta, before, rc);
    co_rwlock_unlock(&p->meta.lock);
    see_freed(p);
    if (p->meta.dirty && !p->timer_armed) {
        p->timer_armed = true;
        timer_arm(&p->timer, worker_now() + COMMIT_AFTER, on_timer);
    }
    return rc == -EBADMSG ? -EIO : rc;
}

struct release {
    struct thin_pool *pool;
    struct thin_runs runs;
    uint64_t grace;
};

static void co_release(void *arg)
{
    struct release *r = arg;
    struct thin_pool *p = r->pool;
    while (p->gracing && p->grace_done < r->grace)
        co_queue_wait(&p->graced);
    if (p->grace_done < r->grace)
        co_blk_quiesce(p->dev);
    for (size_t i = 0; i < r->runs.count; i++) {
        const struct thin_run *run = &r->runs.list[i];
        (void)!co_blk_discard(p->data, run->first * p->chunk, run->count * p->chunk); /* 3 */
        thin_unhold(&p->meta, run->first, run->count);                                /* 4 */
    }
    p->releasing--;
    p->told_low &= thin_data_free(&p->meta) <= p->low_water;
    thin_runs_drop(&r->runs);
    mem_free(r);
    work_ended(p);
}

/* Without memory the blocks stay held until the pool is opened anew. */
static void released(struct thin_meta *m, struct thin_runs *freed)
{
    struct thin_pool *p = container_of(m, struct thin_pool, meta);
    struct release *r = freed->count ? mem_alloc(sizeof(*r)) : NULL;
    if (!r) {
        thin_runs_drop(freed);
        return;
    }
    *r = (struct release){p, *freed, p->grace_wanted};
    p->background++;
    p->releasing++;
    if (co_start_later(co_release, r) == 0)
        return;
    p->background--;
    p->releasing--;
    thin_runs_drop(freed);
    mem_free(r);
}

static int co_settle_details(struct thin_meta *m)
{
    struct thin_pool *p = container_of(m, struct thin_pool, meta);
    for (struct thin_volume *v = p->volumes; v; v = v->next) {
        if (!v->detail_dirty)
            continue;
        TRY(co_thin_set_detail(m, v->id, &v->detail));
        v->detail_dirty = false;
    }
    return 0;
}

void pool_init(struct thin_pool *p)
{
    p->meta.released = released;
    p->meta.co_settle = co_settle_details;
}

/* --- space for writes -------------------------------------------------------------------------
 */

/* What @v may take now. */
static uint64_t allowance(const struct thin_volume *v)
{
    uint64_t free = thin_data_free(&v->pool->meta), claims = 0;
    for (const struct thin_volume *o = v->pool->volumes; o; o = o->next)
        claims += o == v ? 0 : volume_claim(o);
    return free - MIN(free, claims);
}

static void tell_low(struct thin_pool *p)
{
    if (p->told_low || thin_data_free(&p->meta) > p->low_water)
        return;
    p->told_low = true;
    blk_tell(p->dev, BLK_EV_LOW_WATER);
    for (struct thin_volume *v = p->volumes; v; v = v->next)
        blk_tell(v->dev, BLK_EV_LOW_WATER);
}

static int co_try_take(struct thin_volume *v, uint64_t count, struct thin_run *out, bool *zeroes)
{
    struct thin_pool *p = v->pool;
    TRY(co_pool_begin(p, 16, false));
    count = MIN(count, allowance(v));
    int rc = count ? co_thin_take(&p->meta, count, out) : -ENOSPC;
    *zeroes = rc == 0 && thin_took_zeroes(&p->meta, out);
    co_rwlock_unlock(&p->meta.lock);
    if (rc == 0 && p->low_water)
        tell_low(p);
    return rc;
}

static bool may_grow(const struct thin_pool *p)
{
    return p->data->size / p->chunk > p->meta.space.root.blocks;
}

int co_pool_take(struct thin_volume *v, uint64_t count, struct thin_run *out, bool *zeroes)
{
    struct thin_pool *p = v->pool;
    uint64_t began = worker_now();
    for (;;) {
        int rc = co_try_take(v, count, out, zeroes);
        if (rc != -ENOSPC)
            return rc == -EBADMSG ? -EIO : rc;
        uint64_t waited = worker_now() - began;
        if (p->meta.space.freed.count)
            TRY(co_thin_commit(&p->meta));
        else if (may_grow(p))
            TRY(co_pool_grow(p, NULL));
        else if (waited >= p->wait_ns && (!p->releasing || waited >= RELEASE_NS))
            return -ENOSPC;
        else
            co_sleep(POLL_NS);
    }
}

void pool_give_back(struct thin_pool *p, const struct thin_run *run)
{
    thin_unhold(&p->meta, run->first, run->count);
}

/* New blocks come one behind the other. Where the file is a hole, the file system finds its space
 * page by page, as each is written: a seventh of the CPU time of a 64 KiB write on ext4. In one go
 * it costs next to nothing; and never more is taken than has just been written. */
void co_pool_reserve_ahead(struct thin_pool *p, const struct thin_run *run)
{
    uint64_t end = run->first + run->count, blocks = p->data->size / p->chunk;
    bool follows =
        run->first + AHEAD_NEAR >= p->streak_end && run->first <= p->streak_end + AHEAD_NEAR;
    p->streak = follows ? p->streak + run->count : run->count;
    p->streak_end = follows ? MAX(p->streak_end, end) : end;
    if (p->no_ahead || p->streak < AHEAD_LEAST ||
        (run->first >= p->ahead.first && end <= p->ahead.first + p->ahead.count))
        return;
    uint64_t count = MIN(MIN(p->streak, AHEAD_MOST / p->chunk), blocks - MIN(blocks, run->first));
    if (count == 0)
        return;
    p->ahead = (struct thin_run){run->first, count}; /* those who come meanwhile do not wait */
    p->no_ahead = co_blk_reserve(p->data, run->first * p->chunk, count * p->chunk) < 0;
}

/* --- volumes ----------------------------------------------------------------------------------
 */

/* One of the pool's verbs, on its way home. */
struct call {
    struct thin_pool *pool;
    uint32_t id, of;
    uint64_t *bytes;
    struct blk_error *e;
};

static int co_at_home(int (*fn)(void *call), struct call c)
{
    return co_on(c.pool->dev->home, fn, &c);
}

static int told(struct blk_error *e, uint32_t id, int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case -EEXIST:
        return err_set(e, rc, "the pool has a volume %u already", id);
    case -ENOENT:
        return err_set(e, rc, "the pool has no volume %u", id);
    default:
        return err_errno(e, rc, "volume %u of the pool", id);
    }
}

static int co_finish(struct thin_pool *p, uint64_t before, int rc)
{
    rc = co_pool_end(p, before, rc);
    return rc < 0 ? rc : co_thin_commit(&p->meta);
}

static struct thin_volume *find_open(const struct thin_pool *p, uint32_t id)
{
    struct thin_volume *v = p->volumes;
    while (v && v->id != id)
        v = v->next;
    return v;
}

static int co_create(void *arg)
{
    const struct call *c = arg;
    struct thin_pool *p = c->pool;
    int rc = co_pool_begin(p, 24, false);
    if (rc == 0) {
        uint64_t before = p->meta.changes;
        rc = co_finish(p, before, co_thin_create(&p->meta, c->id));
    }
    return told(c->e, c->id, rc);
}

int co_pool_create(struct thin_pool *p, uint32_t id, struct blk_error *e)
{
    return co_at_home(co_create, (struct call){p, id, 0, NULL, e});
}

static int co_snap_locked(struct thin_pool *p, uint32_t id, uint32_t of, struct thin_volume *open)
{
    struct thin_meta *m = &p->meta;
    if (open && open->detail_dirty)
        TRY(co_thin_set_detail(m, of, &open->detail));
    TRY(co_thin_snap(m, id, of));
    if (!open)
        return 0;
    open->detail.snapped = m->super.time;
    open->detail_dirty = false;
    thin_cells_forget(&open->cells);
    return 0;
}

static int co_snap(void *arg)
{
    const struct call *c = arg;
    struct thin_pool *p = c->pool;
    struct thin_volume *open = find_open(p, c->of);
    if (open) {
        blk_ref(open->dev);
        co_blk_halt(open->dev);
    }
    int rc = co_pool_begin(p, 24, false);
    if (rc == 0) {
        uint64_t before = p->meta.changes;
        rc = co_pool_end(p, before, co_snap_locked(p, c->id, c->of, open));
    }
    if (open) {
        blk_go_on(open->dev);
        (void)!co_blk_close(open->dev, NULL);
    }
    if (rc == 0)
        rc = co_thin_commit(&p->meta);
    return told(c->e, rc == -ENOENT ? c->of : c->id, rc);
}

int co_pool_snap(struct thin_pool *p, uint32_t id, uint32_t of, struct blk_error *e)
{
    return co_at_home(co_snap, (struct call){p, id, of, NULL, e});
}

static int co_delete(void *arg)
{
    const struct call *c = arg;
    struct thin_pool *p = c->pool;
    if (find_open(p, c->id))
        return err_set(c->e, -EBUSY, "volume %u is open", c->id);
    int rc = co_pool_begin(p, 24, true);
    if (rc == 0) {
        uint64_t before = p->meta.changes;
        rc = co_finish(p, before, co_thin_delete(&p->meta, c->id));
    }
    return told(c->e, c->id, rc);
}

int co_pool_delete(struct thin_pool *p, uint32_t id, struct blk_error *e)
{
    return co_at_home(co_delete, (struct call){p, id, 0, NULL, e});
}

static int co_grow(void *arg)
{
    const struct call *c = arg;
    struct thin_pool *p = c->pool;
    struct thin_meta *m = &p->meta;
    uint64_t data = MAX(p->data->size / p->chunk, m->space.root.blocks);
    uint64_t metadata = MIN(m->dev->size / THIN_BLOCK, THIN_META_MOST);
    int rc = 0;
    if (metadata > m->meta_space.root.blocks) {
        co_rwlock_write(&m->lock);
        uint64_t before = m->changes;
        rc = co_finish(p, before, thin_meta_space_grow(m, metadata));
    }
    if (rc == 0)
        rc = co_pool_begin(p, 24 + (data - m->space.root.blocks) / THIN_PER_BITMAP, false);
    if (rc == 0) {
        uint64_t before = m->changes;
        rc = co_finish(p, before, co_thin_space_grow(m, MIN(data, THIN_DATA_MOST)));
    }
    p->told_low &= thin_data_free(m) <= p->low_water;
    return rc < 0 ? err_errno(c->e, rc, "the pool could not grow") : 0;
}

int co_pool_grow(struct thin_pool *p, struct blk_error *e)
{
    return co_at_home(co_grow, (struct call){p, 0, 0, NULL, e});
}

static int co_trim(void *arg)
{
    const struct call *c = arg;
    struct thin_pool *p = c->pool;
    struct thin_space *s = &p->meta.space;
    int rc = co_thin_commit(&p->meta); /* nothing that a crash could bring back is discarded */
    *c->bytes = 0;
    s->cursor = 0;
    s->rounds++;
    while (rc == 0) {
        struct thin_run run;
        uint64_t before = s->cursor;
        co_rwlock_write(&p->meta.lock);
        rc = co_thin_take(&p->meta, THIN_PER_BITMAP, &run);
        co_rwlock_unlock(&p->meta.lock);
        if (rc < 0)
            break;
        bool again = s->cursor <= before; /* it began from the front */
        if (!again)
            rc = co_blk_discard(p->data, run.first * p->chunk, run.count * p->chunk);
        thin_unhold(&p->meta, run.first, run.count);
        if (again || rc < 0)
            break;
        *c->bytes += run.count * p->chunk;
    }
    return rc < 0 && rc != -ENOSPC ? err_errno(c->e, rc, "the free blocks could not be discarded")
                                   : 0;
}

int co_pool_trim(struct thin_pool *p, uint64_t *bytes, struct blk_error *e)
{
    return co_at_home(co_trim, (struct call){p, 0, 0, bytes, e});
}

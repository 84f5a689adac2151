/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_meta.c - a pool's metadata: opening, copying what is to be changed, committing.
 *
 * Order of a commit:
 *  1. Data of all mappings in it is in the data device (they were made after it was written).
 *  2. The cut, under the lock: details, the data space map's index, the metadata space map go into
 *     blocks of their own; from here on the next transaction may begin (T4).
 *  3. The data device is flushed; meanwhile all blocks of the transaction are written, then the
 *     metadata device is flushed.
 *  4. The superblock is written: one sector counts. Flush.
 *  5. What the transaction let go of may be used again: metadata blocks at once, data blocks when
 *     nobody reads them any more and they were discarded below (pool.c).
 *  6. When a pool is opened for writing, the superblock that is seen may be one that a killed
 * process wrote and did not flush: it is made durable before anything else is written, for what it
 * lets go of the commit on disk may still need. A step that fails ends all changes (T5); what
 * stands on disk is the commit before, or this one.
 */
#include "volumes/thin_meta.h"

#define RESERVE_MOST 4096 /* blocks, as the kernel keeps */

/* --- opening ----------------------------------------------------------------------------------
 */

static int may_write(const struct thin_super *s, struct blk_error *e)
{
    if (s->flags & THIN_NEEDS_CHECK)
        return err_set(e, -EROFS,
                       "the pool is marked as to be checked: `lamina pool check "
                       "--clear-needs-check-flag` it first");
    if (s->compat_ro)
        return err_set(e, -EROFS, "the pool has features (0x%x) that allow only reading",
                       s->compat_ro);
    return 0;
}

static int co_load(struct thin_meta *m, struct blk_error *e)
{
    uint64_t blocks = m->dev->size / THIN_BLOCK;
    if (blocks < 8)
        return err_bad(e, -EINVAL, "%s is too small for a thin pool's metadata", m->dev->name);
    int rc = co_blk_read_buf(m->dev, 0, m->super_block, THIN_BLOCK);
    if (rc < 0)
        return err_errno(e, rc, "%s", m->dev->name);
    if (thin_super_parse(m->super_block, 0, blocks, &m->super, e) < 0)
        return err_prefix(e, "%s", m->dev->name);
    if (!m->writable)
        return 0;
    TRY(may_write(&m->super, e));
    rc = co_blk_flush(m->dev); /* 6 */
    if (rc < 0)
        return err_errno(e, rc, "%s", m->dev->name);
    rc = co_thin_meta_space_load(m);
    if (rc < 0)
        return err_errno(e, rc, "%s: the metadata space map cannot be read", m->dev->name);
    return co_thin_space_load(m, e);
}

int co_thin_meta_open(struct thin_meta *m, struct blk_device *dev, struct blk_device *data,
                      bool write, size_t cache_bytes, struct blk_error *e)
{
    *m = (struct thin_meta){.dev = dev, .data = data, .writable = write};
    m->super_block = mem_aligned(THIN_BLOCK);
    int rc = m->super_block ? thin_cache_init(&m->cache, dev, cache_bytes) : -ENOMEM;
    rc = rc < 0 ? err_set(e, rc, "out of memory") : co_load(m, e);
    if (rc < 0)
        thin_meta_close(m);
    return rc;
}

void thin_meta_close(struct thin_meta *m)
{
    thin_space_drop(m);
    thin_meta_space_drop(m);
    if (m->cache.buckets)
        thin_cache_drop(&m->cache);
    mem_free(m->super_block);
    m->super_block = NULL;
}

/* --- copying ----------------------------------------------------------------------------------
 */

int co_thin_make(struct thin_meta *m, enum thin_kind kind, uint64_t *number,
                 struct thin_block **out)
{
    TRY(thin_meta_take(m, number));
    m->dirty = true;
    m->changes++;
    return co_thin_new(&m->cache, *number, kind, out);
}

/* What a shared node refers to is referred to by its copy as well (T3). */
static int co_hold_all(struct thin_meta *m, const struct thin_tree *t, struct thin_block *b)
{
    bool leaf = thin_node_is_leaf(b->data);
    if (leaf && !t->co_hold)
        return 0;
    for (unsigned i = 0; i < thin_node_entries(b->data); i++) {
        if (leaf) {
            TRY(t->co_hold(m, thin_node_value(b->data, i)));
            continue;
        }
        uint64_t child = thin_node_child(b->data, i);
        if (thin_meta_count(m, child) == 0)
            return -EBADMSG;
        thin_meta_hold(m, child);
    }
    return 0;
}

static int co_copy(struct thin_meta *m, const struct thin_tree *t, struct thin_block *old,
                   uint64_t *number, struct thin_block **out)
{
    struct thin_block *b;
    uint64_t at;
    TRY(co_thin_make(m, old->kind, &at, &b));
    memcpy(b->data, old->data, THIN_BLOCK);
    int rc = t && thin_meta_count(m, old->number) > 1 ? co_hold_all(m, t, old) : 0;
    if (rc < 0) {
        thin_put(&m->cache, b);
        return rc;
    }
    thin_meta_drop(m, old->number);
    *number = at;
    *out = b;
    return 0;
}

int co_thin_shadow(struct thin_meta *m, const struct thin_tree *t, uint64_t *number,
                   struct thin_block **out)
{
    struct thin_block *b;
    TRY(t ? co_thin_node(&m->cache, t, *number, &b)
          : co_thin_get(&m->cache, *number, THIN_BITMAP, &b));
    uint32_t count = thin_meta_count(m, *number);
    int rc = count ? 0 : -EBADMSG;
    if (rc == 0 && count == 1 && thin_meta_is_fresh(m, *number)) {
        m->changes++;
        *out = b;
        return 0;
    }
    if (rc == 0)
        rc = co_copy(m, t, b, number, out);
    thin_put(&m->cache, b);
    return rc;
}

/* --- operations -------------------------------------------------------------------------------
 */

int thin_meta_room(const struct thin_meta *m, uint64_t blocks, bool frees)
{
    uint64_t reserve = MIN(RESERVE_MOST, m->meta_space.root.blocks / 10);
    if (m->failed)
        return m->failed;
    return m->meta_space.free >= blocks + (frees ? reserve / 2 : reserve) ? 0 : -ENOSPC;
}

int thin_meta_done(struct thin_meta *m, uint64_t before, int rc)
{
    if (rc < 0 && m->changes != before && !m->failed)
        m->failed = rc == -ENOSPC ? -EIO : rc;
    return rc;
}

/* --- committing -------------------------------------------------------------------------------
 */

/* Step 2. */
static int co_cut(struct thin_meta *m, struct thin_runs *freed, uint64_t *transaction)
{
    if (m->co_settle)
        TRY(m->co_settle(m));
    TRY(co_thin_space_settle(m));
    TRY(co_thin_meta_space_settle(m));
    m->super.data = m->space.root;
    m->super.metadata = m->meta_space.root;
    thin_super_encode(&m->super, m->super_block);
    thin_meta_space_cut(m);
    *freed = m->space.freed;
    m->space.freed = (struct thin_runs){0};
    *transaction = m->cache.transaction++;
    m->dirty = false;
    m->unsharing = m->unshared;
    m->unshared = false;
    return 0;
}

struct writing {
    struct thin_meta *m;
    uint64_t transaction;
};

static int co_flush_data(void *arg)
{
    struct writing *w = arg;
    return w->m->data ? co_blk_flush(w->m->data) : 0;
}

static int co_write_blocks(void *arg)
{
    struct writing *w = arg;
    TRY(co_thin_write_out(&w->m->cache, w->transaction));
    return co_blk_flush(w->m->dev);
}

/* Steps 3 and 4. */
static int co_write_all(struct thin_meta *m, uint64_t transaction)
{
    struct writing w = {m, transaction};
    struct co_group g;
    co_group_init(&g, 0);
    co_group_start(&g, co_flush_data, &w);
    co_group_start(&g, co_write_blocks, &w);
    TRY(co_group_wait(&g));
    TRY(co_blk_write_buf(m->dev, 0, m->super_block, THIN_BLOCK, 0));
    return co_blk_flush(m->dev);
}

static void release(struct thin_meta *m, struct thin_runs *freed)
{
    thin_meta_space_release(m);
    m->unsharing = false;
    if (m->released) {
        m->released(m, freed);
        return;
    }
    for (size_t i = 0; i < freed->count; i++)
        thin_unhold(m, freed->list[i].first, freed->list[i].count);
    thin_runs_drop(freed);
}

static int co_commit_locked(struct thin_meta *m)
{
    struct thin_runs freed = {0};
    uint64_t transaction;
    co_rwlock_write(&m->lock);
    bool dirty = m->dirty;
    int rc = m->failed ? m->failed : dirty ? co_cut(m, &freed, &transaction) : 0;
    if (rc < 0)
        m->failed = rc;
    co_rwlock_unlock(&m->lock);
    if (rc == 0)
        rc = dirty ? co_write_all(m, transaction) : co_flush_data(&(struct writing){m, 0});
    if (rc == 0 && dirty)
        release(m, &freed);
    if (rc < 0)
        thin_runs_drop(&freed);
    return rc;
}

int co_thin_commit(struct thin_meta *m)
{
    uint64_t want = m->commits_begun + 1;
    with_lock(&m->committing);
    if (m->failed)
        return m->failed;
    if (m->commits_done >= want)
        return 0;
    uint64_t begun = ++m->commits_begun;
    int rc = co_commit_locked(m);
    if (rc < 0 && !m->failed)
        m->failed = rc;
    if (rc == 0)
        m->commits_done = begun;
    return rc;
}

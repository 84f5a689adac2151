/* SPDX-License-Identifier: BSD-3-Clause */
/* meta.c - pages of an image's metadata in memory: finding, loading, changing and evicting them.
 *
 * Pages hang in a hash by offset and, once loaded, in one list by last use. A page that is pinned,
 * dirty or in a running write-back (meta_batch.c) is never evicted. Its data stays in one place for
 * life, so that look-ups need no lock: a write-back copies what it writes. */
#include "imgfmt/meta_private.h"

/* Page memory comes in slabs, each twice as large as the one before: an aligned allocation wastes
 * up to 4096 bytes, and a chain of a thousand images has few pages in each. */
#define SLAB_MIN_BYTES 4096
#define SLAB_MAX_BYTES (256 * KiB)

/* Memory for one page, or for several where pages are small. */
struct meta_slab {
    struct meta_slab *next;
    uint8_t *data;
    struct meta_page pages[];
};

static struct meta_page **bucket_of(const struct meta *m, uint64_t offset)
{
    uint64_t key = (offset / m->o.page_bytes) * 0x9e3779b97f4a7c15ULL;
    return &m->buckets[key >> 32 & (m->bucket_count - 1)];
}

static struct meta_page *find(const struct meta *m, uint64_t offset)
{
    struct meta_page *p = *bucket_of(m, offset);
    while (p && p->offset != offset)
        p = p->hash_next;
    return p;
}

/* More buckets, if memory allows. */
static void grow_hash(struct meta *m)
{
    size_t old_count = m->bucket_count;
    struct meta_page **old = m->buckets;
    struct meta_page **bigger = mem_array(old_count * 2, sizeof(*bigger));
    if (!bigger)
        return;
    m->buckets = bigger;
    m->bucket_count = old_count * 2;
    for (size_t i = 0; i < old_count; i++) {
        for (struct meta_page *p = old[i], *next; p; p = next) {
            next = p->hash_next;
            struct meta_page **b = bucket_of(m, p->offset);
            p->hash_next = *b;
            *b = p;
        }
    }
    mem_free(old);
}

static void hash_in(struct meta *m, struct meta_page *p)
{
    if (m->page_count >= m->bucket_count)
        grow_hash(m);
    struct meta_page **b = bucket_of(m, p->offset);
    p->hash_next = *b;
    *b = p;
    m->page_count++;
}

static void hash_out(struct meta *m, struct meta_page *p)
{
    struct meta_page **link = bucket_of(m, p->offset);
    while (*link != p)
        link = &(*link)->hash_next;
    *link = p->hash_next;
    m->page_count--;
}

static void lru_in(struct meta *m, struct meta_page *p)
{
    p->lru_prev = NULL;
    p->lru_next = m->lru_first;
    if (m->lru_first)
        m->lru_first->lru_prev = p;
    else
        m->lru_last = p;
    m->lru_first = p;
}

static void lru_out(struct meta *m, struct meta_page *p)
{
    if (p->lru_prev)
        p->lru_prev->lru_next = p->lru_next;
    else
        m->lru_first = p->lru_next;
    if (p->lru_next)
        p->lru_next->lru_prev = p->lru_prev;
    else
        m->lru_last = p->lru_prev;
    p->lru_prev = p->lru_next = NULL;
}

static void lru_touch(struct meta *m, struct meta_page *p)
{
    if (m->lru_first != p) {
        lru_out(m, p);
        lru_in(m, p);
    }
}

/* --- memory of pages --- */

static struct meta_page *page_alloc(struct meta *m)
{
    if (!m->spare) {
        m->slab_bytes = m->slab_bytes ? MIN(2 * m->slab_bytes, SLAB_MAX_BYTES) : SLAB_MIN_BYTES;
        size_t count = MAX(m->slab_bytes / m->o.page_bytes, 1);
        struct meta_slab *s = mem_zalloc(sizeof(*s) + count * sizeof(s->pages[0]));
        uint8_t *data = s ? mem_aligned(count * m->o.page_bytes) : NULL;
        if (!data) {
            mem_free(s);
            return NULL;
        }
        s->data = data;
        s->next = m->slabs;
        m->slabs = s;
        for (size_t i = 0; i < count; i++) {
            s->pages[i].data = data + i * m->o.page_bytes;
            s->pages[i].hash_next = m->spare;
            m->spare = &s->pages[i];
        }
    }
    struct meta_page *p = m->spare;
    m->spare = p->hash_next;
    uint8_t *data = p->data;
    memset(p, 0, sizeof(*p));
    p->data = data;
    return p;
}

static void page_free(struct meta *m, struct meta_page *p)
{
    assert(p->pins == 0 && !p->dirty && p->batch == META_OUT && !p->frozen && !p->published);
    p->hash_next = m->spare;
    m->spare = p;
}

void meta_unpublish(struct meta_page *p)
{
    if (p->published) {
        __atomic_store_n(p->published, NULL, __ATOMIC_SEQ_CST);
        p->published = NULL;
    }
}

/* --- eviction --- */

static bool over_limit(const struct meta *m)
{
    return (m->page_count + 1) * (uint64_t)m->o.page_bytes > m->o.limit_bytes;
}

static bool evictable(const struct meta_page *p)
{
    return p->pins == 0 && !p->dirty && p->batch == META_OUT;
}

/* Out of every list; its memory is not reused before nobody can be looking at it any more. */
static void co_drop_page(struct meta *m, struct meta_page *p)
{
    bool seen = p->published;
    meta_unpublish(p);
    lru_out(m, p);
    hash_out(m, p);
    if (seen && m->o.co_quiesce)
        m->o.co_quiesce(m->o.arg);
    page_free(m, p);
}

/* Evicts the page that was used longest ago; false: there is none that may go. */
static bool co_evict_one(struct meta *m)
{
    for (size_t tries = 2 * m->page_count; tries > 0 && m->lru_last; tries--) {
        struct meta_page *p = m->lru_last;
        if (evictable(p) && !__atomic_load_n(&p->used, __ATOMIC_RELAXED)) {
            co_drop_page(m, p);
            return true;
        }
        __atomic_store_n(&p->used, false, __ATOMIC_RELAXED);
        lru_touch(m, p);
    }
    return false;
}

static void co_make_room(struct meta *m)
{
    while (over_limit(m) && co_evict_one(m))
        ;
    if (!over_limit(m) || m->dirty_count == 0)
        return;
    if (co_meta_write_back(m, false) < 0)
        return; /* the error is said by the next flush; reads go on, beyond the limit */
    while (over_limit(m) && co_evict_one(m))
        ;
}

/* --- getting pages --- */

static int co_load(struct meta *m, struct meta_page *p)
{
    uint64_t file_bytes = m->o.file->size;
    uint64_t there = p->offset < file_bytes ? file_bytes - p->offset : 0;
    uint64_t bytes = MIN(there, m->o.page_bytes);
    memset(p->data + bytes, 0, m->o.page_bytes - bytes);
    if (m->o.load_steps)
        blk_step(m->o.file, m->o.load_steps[p->rank]);
    if (bytes)
        TRY(co_blk_read_buf(m->o.file, p->offset, p->data, bytes));
    if (m->hooks.loaded)
        m->hooks.loaded(m->hooks.arg, p);
    return 0;
}

/* A page that is there: waits until it is loaded. The caller's pin is taken. */
static int co_join(struct meta *m, struct meta_page *p)
{
    p->pins++;
    while (p->loading)
        co_queue_wait(&p->waiters);
    int rc = p->rc;
    if (rc < 0)
        meta_put(m, p);
    else
        lru_touch(m, p);
    return rc;
}

/* A page that was not there: in the hash from the start, so that others wait for this load. */
static int co_bring(struct meta *m, struct meta_page *p)
{
    p->pins = 1;
    p->loading = true;
    hash_in(m, p);
    p->rc = co_load(m, p);
    p->loading = false;
    co_queue_wake_all(&p->waiters);
    int rc = p->rc;
    if (rc < 0) {
        hash_out(m, p);
        meta_put(m, p);
        return rc;
    }
    lru_in(m, p);
    return 0;
}

int co_meta_get(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out)
{
    assert(offset % m->o.page_bytes == 0 && rank < META_RANKS);
    struct meta_page *p = find(m, offset);
    if (!p && over_limit(m)) {
        co_make_room(m); /* may suspend: somebody else may bring it meanwhile */
        p = find(m, offset);
    }
    int rc;
    if (p) {
        if (p->rank != rank)
            return -EIO;
        rc = co_join(m, p);
    } else {
        p = page_alloc(m);
        if (!p)
            return -ENOMEM;
        p->offset = offset;
        p->rank = rank;
        rc = co_bring(m, p);
    }
    if (rc == 0)
        *out = p;
    return rc;
}

int co_meta_new(struct meta *m, uint64_t offset, unsigned rank, struct meta_page **out)
{
    assert(offset % m->o.page_bytes == 0 && rank < META_RANKS);
    if (over_limit(m))
        co_make_room(m);
    struct meta_page *p = find(m, offset);
    if (p && (p->rank != rank || p->loading))
        return -EIO;
    bool found = p;
    if (!found) {
        p = page_alloc(m);
        if (!p)
            return -ENOMEM;
        p->offset = offset;
        p->rank = rank;
        hash_in(m, p);
        lru_in(m, p);
    }
    p->pins++;
    int rc = meta_touch(m, p);
    if (rc == 0) {
        memset(p->data, 0, m->o.page_bytes);
        *out = p;
        return 0;
    }
    p->pins--;
    if (!found) {
        lru_out(m, p);
        hash_out(m, p);
        page_free(m, p);
    }
    return rc;
}

struct meta_page *meta_peek(struct meta *m, uint64_t offset)
{
    struct meta_page *p = find(m, offset);
    if (!p || p->loading || p->rc < 0)
        return NULL;
    p->pins++;
    lru_touch(m, p);
    return p;
}

void meta_pin(struct meta *m, struct meta_page *p)
{
    assert(!p->loading);
    p->pins++;
    lru_touch(m, p);
}

void meta_put(struct meta *m, struct meta_page *p)
{
    assert(p->pins > 0);
    p->pins--;
    if (p->pins == 0 && p->rc < 0)
        page_free(m, p); /* it could not be loaded and is in no list */
}

void meta_publish(struct meta *m, struct meta_page *p, uint64_t key, struct meta_page **slot)
{
    assert(p->pins > 0 && !p->loading);
    if (p->published == slot && p->key == key)
        return;
    meta_unpublish(p);
    struct meta_page *before = *slot;
    if (before)
        meta_unpublish(before);
    p->key = key;
    p->published = slot;
    __atomic_store_n(slot, p, __ATOMIC_SEQ_CST);
}

void meta_unpublish_all(struct meta *m)
{
    for (size_t i = 0; i < m->bucket_count; i++)
        for (struct meta_page *p = m->buckets[i]; p; p = p->hash_next)
            meta_unpublish(p);
}

/* --- changing pages --- */

void meta_list_dirty(struct meta *m, struct meta_page *p)
{
    assert(!p->dirty);
    p->dirty = true;
    p->dirty_prev = NULL;
    p->dirty_next = m->dirty[p->rank];
    if (p->dirty_next)
        p->dirty_next->dirty_prev = p;
    m->dirty[p->rank] = p;
    m->dirty_count++;
}

void meta_unlist_dirty(struct meta *m, struct meta_page *p)
{
    assert(p->dirty);
    p->dirty = false;
    if (p->dirty_prev)
        p->dirty_prev->dirty_next = p->dirty_next;
    else
        m->dirty[p->rank] = p->dirty_next;
    if (p->dirty_next)
        p->dirty_next->dirty_prev = p->dirty_prev;
    p->dirty_prev = p->dirty_next = NULL;
    m->dirty_count--;
}

int meta_touch(struct meta *m, struct meta_page *p)
{
    assert(p->pins > 0 && !p->loading);
    if (m->error < 0)
        return m->error;
    if (p->dirty && p->batch == META_OUT)
        return 0;
    TRY(meta_batch_prepare(m));
    if (p->batch == META_WAITING && !p->frozen) {
        p->frozen = mem_aligned(m->o.page_bytes);
        if (!p->frozen)
            return -ENOMEM;
        memcpy(p->frozen, p->data, m->o.page_bytes);
    }
    if (!p->dirty) {
        meta_list_dirty(m, p);
        meta_batch_wanted(m);
    }
    return 0;
}

void co_meta_forget(struct meta *m, uint64_t offset, uint64_t bytes)
{
    uint32_t step = m->o.page_bytes;
    for (uint64_t at = align_down(offset, step); at < offset + bytes; at += step) {
        struct meta_page *p = find(m, at);
        while (p && p->batch != META_OUT) {
            co_queue_wait(&m->batch_end);
            p = find(m, at);
        }
        if (!p)
            continue;
        assert(p->pins == 0);
        if (p->dirty)
            meta_unlist_dirty(m, p);
        co_drop_page(m, p);
    }
}

/* --- life --- */

int meta_open(const struct meta_options *o, struct meta **out)
{
    assert(is_pow2(o->page_bytes) && o->page_bytes >= 512 && o->page_bytes <= 64 * KiB);
    struct meta *m = mem_zalloc(sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->bucket_count = 16;
    m->buckets = mem_array(m->bucket_count, sizeof(*m->buckets));
    if (!m->buckets) {
        mem_free(m);
        return -ENOMEM;
    }
    m->o = *o;
    m->data_rank = m->unflushed = META_NO_RANK;
    m->deferred_end = &m->deferred;
    *out = m;
    return 0;
}

void meta_set_hooks(struct meta *m, const struct meta_hooks *hooks)
{
    m->hooks = *hooks;
}

void meta_set_data(struct meta *m, struct blk_device *data)
{
    m->o.data = data;
}

void co_meta_close(struct meta *m)
{
    if (!m)
        return;
    meta_batch_close(m);
    meta_unpublish_all(m);
    for (struct meta_slab *s = m->slabs, *next; s; s = next) {
        next = s->next;
        mem_free(s->data);
        mem_free(s);
    }
    mem_free(m->buckets);
    mem_free(m);
}

int meta_error(const struct meta *m)
{
    return m->error;
}

bool meta_is_dirty(const struct meta *m)
{
    return m->dirty_count || m->running || m->deferred || m->deferred_running ||
           m->unflushed != META_NO_RANK;
}

uint64_t meta_bytes(const struct meta *m)
{
    return m->page_count * (uint64_t)m->o.page_bytes;
}

uint64_t meta_limit(const struct meta *m)
{
    return m->o.limit_bytes;
}

uint32_t meta_page_bytes(const struct meta *m)
{
    return m->o.page_bytes;
}

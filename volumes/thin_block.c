/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_block.c - the cache of metadata blocks: a hash by number, a list by last use, a list of what
 * is dirty. */
#include "volumes/thin_block.h"

#define BUCKETS_LEAST 64
#define RUN_MOST      64 /* blocks that are written together */

static struct thin_block **bucket_of(const struct thin_cache *c, uint64_t number)
{
    return &c->buckets[(number * 0x9e3779b97f4a7c15ULL >> 32) & (c->bucket_count - 1)];
}

static struct thin_block *find(const struct thin_cache *c, uint64_t number)
{
    struct thin_block *b = *bucket_of(c, number);
    while (b && b->number != number)
        b = b->hash_next;
    return b;
}

int thin_cache_init(struct thin_cache *c, struct blk_device *dev, size_t limit_bytes)
{
    size_t limit = MAX(limit_bytes / THIN_BLOCK, BUCKETS_LEAST);
    *c = (struct thin_cache){
        .dev = dev, .blocks = dev->size / THIN_BLOCK, .limit = limit, .transaction = 1};
    c->bucket_count = 1ULL << log2_floor(limit);
    c->buckets = mem_array(c->bucket_count, sizeof(struct thin_block *));
    return c->buckets ? 0 : -ENOMEM;
}

/* --- lists ------------------------------------------------------------------------------------
 */

static void use_in(struct thin_cache *c, struct thin_block *b)
{
    b->older = c->newest;
    b->newer = NULL;
    if (c->newest)
        c->newest->newer = b;
    else
        c->oldest = b;
    c->newest = b;
}

static void use_out(struct thin_cache *c, struct thin_block *b)
{
    *(b->newer ? &b->newer->older : &c->newest) = b->older;
    *(b->older ? &b->older->newer : &c->oldest) = b->newer;
}

static void dirty_in(struct thin_cache *c, struct thin_block *b)
{
    b->dirty = true;
    b->dirty_next = NULL;
    b->dirty_prev = c->dirty_last;
    *(c->dirty_last ? &c->dirty_last->dirty_next : &c->dirty_first) = b;
    c->dirty_last = b;
}

static void dirty_out(struct thin_cache *c, struct thin_block *b)
{
    b->dirty = false;
    *(b->dirty_prev ? &b->dirty_prev->dirty_next : &c->dirty_first) = b->dirty_next;
    *(b->dirty_next ? &b->dirty_next->dirty_prev : &c->dirty_last) = b->dirty_prev;
}

static void block_free(struct thin_cache *c, struct thin_block *b)
{
    struct thin_block **link = bucket_of(c, b->number);
    while (*link != b)
        link = &(*link)->hash_next;
    *link = b->hash_next;
    use_out(c, b);
    if (b->dirty)
        dirty_out(c, b);
    c->count--;
    mem_free(b->data);
    mem_free(b);
}

void thin_cache_drop(struct thin_cache *c)
{
    while (c->newest) {
        assert(c->newest->pins == 0);
        block_free(c, c->newest);
    }
    mem_free(c->buckets);
    c->buckets = NULL;
}

/* --- writing ----------------------------------------------------------------------------------
 */

/* It may be written together with the block before it. */
static bool goes_along(const struct thin_block *b, uint64_t transaction)
{
    return b && b->dirty && b->transaction <= transaction;
}

/* The dirty blocks around @b that follow each other, taken out of the dirty list and pinned. */
static unsigned take_run(struct thin_cache *c, struct thin_block *b, uint64_t transaction,
                         struct thin_block **run)
{
    uint64_t first = b->number;
    unsigned n = 0;
    while (first > 0 && b->number - first < RUN_MOST / 2 &&
           goes_along(find(c, first - 1), transaction))
        first--;
    while (n < RUN_MOST) {
        struct thin_block *next = find(c, first + n);
        if (!goes_along(next, transaction))
            break;
        dirty_out(c, next);
        next->pins++;
        run[n++] = next;
    }
    return n;
}

static int co_write_run(struct thin_cache *c, struct thin_block *const *run, unsigned n)
{
    auto_free struct iovec *iov = mem_array(n, sizeof(*iov));
    if (!iov)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        thin_seal(run[i]->kind, run[i]->number, run[i]->data);
        iov[i] = (struct iovec){run[i]->data, THIN_BLOCK};
    }
    struct vec from = {.iov = iov, .bytes = n * (uint64_t)THIN_BLOCK};
    return co_blk_write(c->dev, run[0]->number * THIN_BLOCK, &from, 0);
}

/* A block of an older transaction goes to the front, so that the list stays in order. */
static void dirty_again(struct thin_cache *c, struct thin_block *b)
{
    if (b->dirty)
        return;
    dirty_in(c, b);
    if (c->dirty_first == b)
        return;
    dirty_out(c, b);
    b->dirty = true;
    b->dirty_prev = NULL;
    b->dirty_next = c->dirty_first;
    c->dirty_first->dirty_prev = b;
    c->dirty_first = b;
}

static int co_write_around(struct thin_cache *c, struct thin_block *b, uint64_t transaction)
{
    auto_free struct thin_block **run = mem_array(RUN_MOST, sizeof(*run));
    if (!run)
        return -ENOMEM;
    unsigned n = take_run(c, b, transaction, run);
    int rc = co_write_run(c, run, n);
    for (unsigned i = 0; i < n; i++) {
        if (rc < 0)
            dirty_again(c, run[i]);
        run[i]->pins--;
    }
    return rc;
}

int co_thin_write_out(struct thin_cache *c, uint64_t transaction)
{
    while (c->dirty_first && c->dirty_first->transaction <= transaction)
        TRY(co_write_around(c, c->dirty_first, transaction));
    return 0;
}

/* --- room -------------------------------------------------------------------------------------
 */

/* Lets go of the oldest blocks that are not needed. */
static void shrink(struct thin_cache *c)
{
    struct thin_block *b = c->oldest;
    for (unsigned looked = 0; b && c->count >= c->limit && looked < 64; looked++) {
        struct thin_block *newer = b->newer;
        if (b->pins == 0 && !b->dirty && !b->loading)
            block_free(c, b);
        b = newer;
    }
}

static int co_make_room(struct thin_cache *c)
{
    if (c->count < c->limit)
        return 0;
    shrink(c);
    if (c->count < c->limit || !c->dirty_first)
        return 0;
    int rc = co_write_around(c, c->dirty_first, UINT64_MAX);
    shrink(c);
    return rc;
}

static struct thin_block *block_new(struct thin_cache *c, uint64_t number, enum thin_kind kind)
{
    struct thin_block *b = mem_zalloc(sizeof(*b));
    if (!b)
        return NULL;
    b->data = mem_aligned(THIN_BLOCK);
    if (!b->data) {
        mem_free(b);
        return NULL;
    }
    struct thin_block **bucket = bucket_of(c, number);
    b->number = number;
    b->kind = kind;
    b->hash_next = *bucket;
    *bucket = b;
    use_in(c, b);
    c->count++;
    b->pins = 1;
    return b;
}

/* --- getting ----------------------------------------------------------------------------------
 */

static int co_load(struct thin_cache *c, struct thin_block *b)
{
    b->loading = true;
    int rc = co_blk_read_buf(c->dev, b->number * THIN_BLOCK, b->data, THIN_BLOCK);
    c->bad = NULL;
    if (rc == 0)
        c->bad = thin_verify(b->kind, b->number, b->data);
    c->bad_number = b->number;
    b->rc = rc < 0 ? rc : c->bad ? -EBADMSG : 0;
    b->loading = false;
    co_queue_wake_all(&b->loaded);
    return b->rc;
}

/* A failed block is gone with its last pin. */
static int failed(struct thin_cache *c, struct thin_block *b)
{
    int rc = b->rc;
    if (--b->pins == 0)
        block_free(c, b);
    return rc;
}

int co_thin_get(struct thin_cache *c, uint64_t number, enum thin_kind kind, struct thin_block **out)
{
    if (number == 0 || number >= c->blocks) {
        c->bad = "it lies past the end of the device";
        c->bad_number = number;
        return -EBADMSG;
    }
    struct thin_block *b = find(c, number);
    if (!b) {
        TRY(co_make_room(c));
        b = find(c, number); /* meanwhile? */
    }
    if (b) {
        b->pins++;
        while (b->loading)
            co_queue_wait(&b->loaded);
        if (b->rc < 0)
            return failed(c, b);
        use_out(c, b);
        use_in(c, b);
    } else {
        b = block_new(c, number, kind);
        if (!b)
            return -ENOMEM;
        if (co_load(c, b) < 0)
            return failed(c, b);
    }
    if (b->kind != kind) {
        c->bad = "it is used as two kinds of block";
        c->bad_number = number;
        thin_put(c, b);
        return -EBADMSG;
    }
    *out = b;
    return 0;
}

int co_thin_new(struct thin_cache *c, uint64_t number, enum thin_kind kind, struct thin_block **out)
{
    TRY(co_make_room(c));
    struct thin_block *b = find(c, number);
    if (b && b->pins) { /* counted as free, and in use: damage */
        c->bad = "it is in use and counts no references";
        c->bad_number = number;
        return -EBADMSG;
    }
    if (b) {
        b->kind = kind;
        b->pins = 1;
    } else {
        b = block_new(c, number, kind);
        if (!b)
            return -ENOMEM;
    }
    memset(b->data, 0, THIN_BLOCK);
    thin_dirty(c, b);
    *out = b;
    return 0;
}

void thin_put(struct thin_cache *c, struct thin_block *b)
{
    assert(b->pins > 0);
    b->pins--;
}

void thin_dirty(struct thin_cache *c, struct thin_block *b)
{
    assert(!b->dirty || b->transaction == c->transaction);
    if (b->dirty)
        return;
    b->transaction = c->transaction;
    dirty_in(c, b);
}

void thin_forget(struct thin_cache *c, uint64_t number)
{
    struct thin_block *b = find(c, number);
    if (b && b->dirty && b->transaction == c->transaction) /* an older one still needs it */
        dirty_out(c, b);
}

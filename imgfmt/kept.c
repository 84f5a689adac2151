/* SPDX-License-Identifier: BSD-3-Clause */
/* kept.c - plain pieces of a compressed image, the least recently used thrown away first. */
#include "imgfmt/kept.h"

static struct kept **bucket_of(struct kept_list *l, uint64_t key)
{
    return &l->buckets[(key * 0x9e3779b97f4a7c15ULL) >> 58];
}
_Static_assert(KEPT_BUCKETS == 1 << (64 - 58), "six bits of the hash");

static void link_newest(struct kept_list *l, struct kept *k)
{
    k->newer = NULL;
    k->older = l->newest;
    *(l->newest ? &l->newest->newer : &l->oldest) = k;
    l->newest = k;
}

static void unlink_use(struct kept_list *l, struct kept *k)
{
    *(k->newer ? &k->newer->older : &l->newest) = k->older;
    *(k->older ? &k->older->newer : &l->oldest) = k->newer;
}

/* Nobody finds it any more; true if it was to be found. */
static bool forget(struct kept_list *l, struct kept *k)
{
    for (struct kept **at = bucket_of(l, k->key); *at; at = &(*at)->next) {
        if (*at != k)
            continue;
        *at = k->next;
        unlink_use(l, k);
        return true;
    }
    return false;
}

static void free_one(struct kept_list *l, struct kept *k)
{
    l->used -= k->bytes;
    mem_free(k->data);
    mem_free(k);
}

/* Memory of one that had to go, where the new one can have it: fresh memory costs page faults. */
static uint8_t *make_room(struct kept_list *l, size_t bytes)
{
    uint8_t *spare = NULL;
    for (struct kept *k = l->oldest, *newer; k && l->used + bytes > l->limit; k = newer) {
        newer = k->newer;
        if (k->pins)
            continue;
        forget(l, k);
        if (!spare && k->bytes == bytes)
            spare = take(k->data);
        free_one(l, k);
    }
    return spare;
}

void kept_init(struct kept_list *l, uint64_t limit)
{
    *l = (struct kept_list){.limit = limit};
}

void kept_drop(struct kept_list *l)
{
    while (l->oldest) {
        struct kept *k = l->oldest;
        assert(k->pins == 0);
        forget(l, k);
        free_one(l, k);
    }
    assert(l->used == 0);
}

struct kept *kept_find(struct kept_list *l, uint64_t key)
{
    struct kept *k = *bucket_of(l, key);
    while (k && k->key != key)
        k = k->next;
    if (!k)
        return NULL;
    unlink_use(l, k);
    link_newest(l, k);
    k->pins++;
    return k;
}

struct kept *kept_new(struct kept_list *l, uint64_t key, size_t bytes)
{
    auto_free uint8_t *data = make_room(l, bytes);
    if (!data)
        data = mem_aligned(MAX(bytes, 1));
    struct kept *k = data ? mem_zalloc(sizeof(*k)) : NULL;
    if (!k)
        return NULL;
    struct kept **at = bucket_of(l, key);
    k->data = take(data);
    k->key = key;
    k->bytes = bytes;
    k->pins = 1;
    k->loading = true;
    k->next = *at;
    *at = k;
    link_newest(l, k);
    l->used += bytes;
    return k;
}

void kept_filled(struct kept_list *l, struct kept *k, int rc)
{
    assert(k->loading && k->pins);
    k->loading = false;
    k->rc = rc;
    if (rc < 0)
        forget(l, k);
    co_queue_wake_all(&k->waiters);
}

int co_kept_wait(struct kept *k)
{
    assert(k->pins);
    while (k->loading)
        co_queue_wait(&k->waiters);
    return k->rc;
}

void kept_put(struct kept_list *l, struct kept *k)
{
    assert(k->pins);
    if (--k->pins == 0 && k->rc < 0)
        free_one(l, k);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* host_sim_store.c - the persistent page tree of the simulator, hashes and the random source.
 *
 * Memory comes from malloc(), not mem_alloc(): the disks are not part of the program under test, so
 * its allocation faults must not hit them. */
#include "block/host_sim_store.h"

#include <stdlib.h>

#define FAN_BITS 6
#define FAN      (1U << FAN_BITS)

struct sim_node {
    unsigned refs;
    bool hashed;
    uint64_t hash;    /* sum over pages of mix(page hash, index of the page) */
    void *child[FAN]; /* nodes, or pages at height 0 */
};

uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2));
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* Four lanes, so that the multiplications overlap. */
uint64_t sim_hash_bytes(const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    uint64_t lane[4] = {1, 2, 3, 4}, word[4];
    for (; count >= 32; count -= 32, at += 32) {
        memcpy(word, at, 32);
        for (unsigned i = 0; i < 4; i++) {
            lane[i] = (lane[i] ^ word[i]) * 0x9fb21c651e98df25ULL;
            lane[i] ^= lane[i] >> 29;
        }
    }
    uint64_t h = sim_mix(sim_mix(lane[0], lane[1]), sim_mix(lane[2], lane[3]));
    for (; count > 0; count--, at++)
        h = (h ^ *at) * 0x100000001b3ULL;
    return h;
}

struct sim_page *sim_page_new(void)
{
    struct sim_page *p = calloc(1, sizeof(*p));
    if (p)
        p->refs = 1;
    return p;
}

void sim_page_drop(struct sim_page *p)
{
    assert(p->refs > 0);
    if (--p->refs == 0)
        free(p);
}

static void node_drop(struct sim_node *n, unsigned height)
{
    assert(n->refs > 0);
    if (--n->refs > 0)
        return;
    for (unsigned i = 0; i < FAN; i++) {
        if (n->child[i] && height == 0)
            sim_page_drop(n->child[i]);
        else if (n->child[i])
            node_drop(n->child[i], height - 1);
    }
    free(n);
}

/* The node in *slot for writing: made, or copied if it has other owners. */
static struct sim_node *node_edit(void **slot, unsigned height)
{
    struct sim_node *n = *slot;
    if (n && n->refs == 1) {
        n->hashed = false;
        return n;
    }
    struct sim_node *own = calloc(1, sizeof(*own));
    if (!own)
        return NULL;
    if (n) {
        memcpy(own->child, n->child, sizeof(own->child));
        for (unsigned i = 0; i < FAN; i++) {
            if (!own->child[i])
                continue;
            if (height == 0)
                ((struct sim_page *)own->child[i])->refs++;
            else
                ((struct sim_node *)own->child[i])->refs++;
        }
        n->refs--;
    }
    own->refs = 1;
    *slot = own;
    return own;
}

struct sim_tree sim_tree_copy(const struct sim_tree *t)
{
    if (t->root)
        t->root->refs++;
    return *t;
}

void sim_tree_drop(struct sim_tree *t)
{
    if (t->root)
        node_drop(t->root, t->height);
    *t = (struct sim_tree){0};
}

static bool covers(const struct sim_tree *t, uint64_t at)
{
    unsigned bits = (t->height + 1) * FAN_BITS;
    return t->root && (bits >= 64 || at >> bits == 0);
}

/* Makes the tree high enough for index @at. */
static bool raise_to(struct sim_tree *t, uint64_t at)
{
    if (!t->root) {
        void *slot = NULL;
        if (!node_edit(&slot, 0))
            return false;
        t->root = slot;
        t->height = 0;
    }
    while (!covers(t, at)) {
        void *slot = NULL;
        struct sim_node *top = node_edit(&slot, t->height + 1);
        if (!top)
            return false;
        top->child[0] = t->root;
        t->root = top;
        t->height++;
    }
    return true;
}

static unsigned index_at(uint64_t at, unsigned height)
{
    return (unsigned)(at >> (height * FAN_BITS)) & (FAN - 1);
}

const struct sim_page *sim_tree_get(const struct sim_tree *t, uint64_t at)
{
    if (!covers(t, at))
        return NULL;
    const struct sim_node *n = t->root;
    for (unsigned h = t->height; h > 0 && n; h--)
        n = n->child[index_at(at, h)];
    return n ? n->child[index_at(at, 0)] : NULL;
}

/* The slot of page @at in nodes of our own. */
static void **page_slot(struct sim_tree *t, uint64_t at)
{
    if (!raise_to(t, at))
        return NULL;
    void **slot = (void **)&t->root;
    for (unsigned h = t->height;; h--) {
        struct sim_node *n = node_edit(slot, h);
        if (!n)
            return NULL;
        slot = &n->child[index_at(at, h)];
        if (h == 0)
            return slot;
    }
}

struct sim_page *sim_tree_edit(struct sim_tree *t, uint64_t at, bool *fresh)
{
    void **slot = page_slot(t, at);
    if (!slot)
        return NULL;
    struct sim_page *p = *slot;
    *fresh = !p;
    if (p && p->refs == 1) {
        p->hashed = false;
        return p;
    }
    struct sim_page *own = p ? malloc(sizeof(*own)) : calloc(1, sizeof(*own));
    if (!own)
        return NULL;
    if (p) {
        memcpy(own->bytes, p->bytes, SIM_PAGE);
        p->refs--;
    } else {
        t->pages++;
    }
    own->refs = 1;
    own->hashed = false;
    *slot = own;
    return own;
}

bool sim_tree_put(struct sim_tree *t, uint64_t at, struct sim_page *p)
{
    void **slot = page_slot(t, at);
    if (!slot)
        return false;
    p->refs++;
    if (*slot)
        sim_page_drop(*slot);
    else
        t->pages++;
    *slot = p;
    return true;
}

uint64_t sim_tree_next(const struct sim_tree *t, uint64_t at)
{
    while (covers(t, at)) {
        const struct sim_node *n = t->root;
        unsigned h = t->height;
        while (h > 0 && n->child[index_at(at, h)])
            n = n->child[index_at(at, h--)];
        if (h == 0 && n->child[index_at(at, 0)])
            return at;
        uint64_t step = 1ULL << (h * FAN_BITS);
        at = (at & ~(step - 1)) + step; /* the next sibling */
    }
    return UINT64_MAX;
}

bool sim_tree_clear(struct sim_tree *t, uint64_t from, uint64_t to)
{
    for (uint64_t at = sim_tree_next(t, from); at < to; at = sim_tree_next(t, at + 1)) {
        void **slot = page_slot(t, at);
        if (!slot)
            return false;
        sim_page_drop(*slot);
        *slot = NULL;
        t->pages--;
    }
    return true;
}

static uint64_t page_hash(struct sim_page *p)
{
    if (!p->hashed) {
        p->hash = mem_is_zero(p->bytes, SIM_PAGE) ? 0 : sim_hash_bytes(p->bytes, SIM_PAGE) | 1;
        p->hashed = true;
    }
    return p->hash;
}

static uint64_t node_hash(struct sim_node *n, unsigned height, uint64_t base)
{
    if (n->hashed)
        return n->hash;
    uint64_t sum = 0;
    for (unsigned i = 0; i < FAN; i++) {
        uint64_t at = base + ((uint64_t)i << (height * FAN_BITS));
        if (n->child[i] && height > 0) {
            sum += node_hash(n->child[i], height - 1, at);
        } else if (n->child[i]) {
            uint64_t h = page_hash(n->child[i]);
            sum += h ? sim_mix(h, at) : 0;
        }
    }
    n->hash = sum;
    n->hashed = true;
    return sum;
}

uint64_t sim_tree_hash(const struct sim_tree *t)
{
    return t->root ? node_hash(t->root, t->height, 0) : 0;
}

void sim_rng_seed(struct sim_rng *r, uint64_t seed)
{
    for (unsigned i = 0; i < 4; i++)
        r->s[i] = sim_mix(seed, i + 1);
}

static uint64_t rotate(uint64_t x, unsigned by)
{
    return (x << by) | (x >> (64 - by));
}

uint64_t sim_rng_next(struct sim_rng *r)
{
    uint64_t out = rotate(r->s[1] * 5, 7) * 9, t = r->s[1] << 17;
    r->s[2] ^= r->s[0];
    r->s[3] ^= r->s[1];
    r->s[1] ^= r->s[2];
    r->s[0] ^= r->s[3];
    r->s[2] ^= t;
    r->s[3] = rotate(r->s[3], 45);
    return out;
}

uint64_t sim_rng_below(struct sim_rng *r, uint64_t limit)
{
    assert(limit > 0);
    return (uint64_t)(((unsigned __int128)sim_rng_next(r) * limit) >> 64);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_refs.c - sparse counters in a tree of four levels over leaves of 256 counters. */
#include "imgfmt/qcow2_refs.h"

#define NODE_CHILDREN (1u << QCOW2_REFS_NODE_BITS)
#define LEAF_COUNTERS (1u << QCOW2_REFS_LEAF_BITS)

static void *make(struct qcow2_refs *r, size_t bytes)
{
    if (r->bytes + bytes > r->limit)
        return NULL;
    void *p = mem_zalloc(bytes);
    if (p)
        r->bytes += bytes;
    return p;
}

static int no_room(const struct qcow2_refs *r)
{
    return r->bytes + NODE_CHILDREN * sizeof(void *) > r->limit ? -EFBIG : -ENOMEM;
}

/* The leaf that counts @cluster; with @create never NULL but for want of memory. */
static uint32_t *leaf_of(struct qcow2_refs *r, uint64_t cluster, bool create)
{
    uint64_t index = cluster >> QCOW2_REFS_LEAF_BITS;
    void **node = (void **)&r->root;

    if (r->memo_valid && r->memo_index == index && (r->memo || !create))
        return r->memo;
    r->memo_valid = true;
    r->memo_index = index;
    r->memo = NULL;
    for (int level = QCOW2_REFS_LEVELS; level >= 0; level--) {
        if (!*node && create)
            *node =
                make(r, level ? NODE_CHILDREN * sizeof(void *) : LEAF_COUNTERS * sizeof(uint32_t));
        if (!*node)
            return NULL;
        if (level)
            node = (void **)*node +
                   ((index >> ((level - 1) * QCOW2_REFS_NODE_BITS)) & (NODE_CHILDREN - 1));
    }
    return r->memo = *node;
}

static uint32_t *counter_of(struct qcow2_refs *r, uint64_t cluster, bool create)
{
    if (cluster >> (QCOW2_REFS_LEAF_BITS + QCOW2_REFS_LEVELS * QCOW2_REFS_NODE_BITS))
        return NULL; /* no file reaches there */
    uint32_t *leaf = leaf_of(r, cluster, create);

    return leaf ? leaf + (cluster & (LEAF_COUNTERS - 1)) : NULL;
}

int qcow2_refs_add(struct qcow2_refs *r, uint64_t cluster, uint32_t mark)
{
    uint32_t *counter = counter_of(r, cluster, true);

    if (!counter)
        return no_room(r);
    if ((*counter & QCOW2_REFS_MAX) < QCOW2_REFS_MAX)
        ++*counter;
    *counter |= mark;
    return 0;
}

void qcow2_refs_sub(struct qcow2_refs *r, uint64_t cluster)
{
    uint32_t *counter = counter_of(r, cluster, false);

    if (counter && *counter & QCOW2_REFS_MAX && (*counter & QCOW2_REFS_MAX) < QCOW2_REFS_MAX)
        --*counter;
}

int qcow2_refs_set(struct qcow2_refs *r, uint64_t cluster, uint64_t count)
{
    uint32_t *counter = counter_of(r, cluster, count != 0);

    if (!counter)
        return count ? no_room(r) : 0;
    *counter = (*counter & ~QCOW2_REFS_MAX) | (uint32_t)MIN(count, QCOW2_REFS_MAX);
    return 0;
}

uint32_t qcow2_refs_get(struct qcow2_refs *r, uint64_t cluster)
{
    const uint32_t *counter = counter_of(r, cluster, false);

    return counter ? *counter & QCOW2_REFS_MAX : 0;
}

uint32_t qcow2_refs_marks(struct qcow2_refs *r, uint64_t cluster)
{
    const uint32_t *counter = counter_of(r, cluster, false);

    return counter ? *counter & ~QCOW2_REFS_MAX : 0;
}

/* In the part of the tree below @node that begins at cluster @base. */
static uint64_t next_below(void **node, int level, uint64_t base, uint64_t from)
{
    unsigned shift = QCOW2_REFS_LEAF_BITS + (unsigned)(level - 1) * QCOW2_REFS_NODE_BITS;

    if (level == 0) {
        const uint32_t *leaf = (const uint32_t *)node;
        for (uint64_t i = from > base ? from - base : 0; i < LEAF_COUNTERS; i++)
            if (leaf[i] & QCOW2_REFS_MAX)
                return base + i;
        return UINT64_MAX;
    }
    for (uint64_t i = from > base ? (from - base) >> shift : 0; i < NODE_CHILDREN; i++) {
        uint64_t at = base + (i << shift);
        uint64_t found = node[i] ? next_below(node[i], level - 1, at, from) : UINT64_MAX;
        if (found != UINT64_MAX)
            return found;
    }
    return UINT64_MAX;
}

uint64_t qcow2_refs_next(struct qcow2_refs *r, uint64_t from)
{
    return r->root ? next_below(r->root, QCOW2_REFS_LEVELS, 0, from) : UINT64_MAX;
}

static void drop(void **node, int level)
{
    if (!node)
        return;
    if (level)
        for (unsigned i = 0; i < NODE_CHILDREN; i++)
            drop(node[i], level - 1);
    mem_free(node);
}

void qcow2_refs_drop(struct qcow2_refs *r)
{
    drop(r->root, QCOW2_REFS_LEVELS);
    *r = (struct qcow2_refs){.limit = r->limit};
}

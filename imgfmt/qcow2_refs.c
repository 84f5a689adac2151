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
static uint16_t *leaf_of(struct qcow2_refs *r, uint64_t cluster, bool create)
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
            *node = make(r, level ? NODE_CHILDREN * sizeof(void *) : LEAF_COUNTERS * 2);
        if (!*node)
            return NULL;
        if (level)
            node = (void **)*node +
                   ((index >> ((level - 1) * QCOW2_REFS_NODE_BITS)) & (NODE_CHILDREN - 1));
    }
    return r->memo = *node;
}

int qcow2_refs_add(struct qcow2_refs *r, uint64_t cluster)
{
    assert(cluster < 1ULL << (QCOW2_REFS_LEAF_BITS + QCOW2_REFS_LEVELS * QCOW2_REFS_NODE_BITS));
    uint16_t *leaf = leaf_of(r, cluster, true);

    if (!leaf)
        return no_room(r);
    uint16_t *counter = leaf + (cluster & (LEAF_COUNTERS - 1));
    if (*counter < QCOW2_REFS_MAX)
        ++*counter;
    return 0;
}

uint32_t qcow2_refs_get(struct qcow2_refs *r, uint64_t cluster)
{
    uint16_t *leaf = leaf_of(r, cluster, false);

    return leaf ? leaf[cluster & (LEAF_COUNTERS - 1)] : 0;
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

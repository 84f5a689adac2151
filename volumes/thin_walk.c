/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_walk.c - a tree from end to end. A node whose keys lie outside of what its parent says is
 * passed, so none is met twice in a tree and a walk ends, whatever the blocks hold. */
#include "volumes/thin_meta.h"

struct step {
    uint64_t number, low, high; /* high: behind the last key; UINT64_MAX: none is too high */
    unsigned depth;
};

static int co_step(struct thin_cache *c, struct thin_walk *w, const struct step *s);

static int tell(struct thin_walk *w, uint64_t number, const char *wrong)
{
    return w->bad ? w->bad(w, number, wrong) : -EBADMSG;
}

static int co_children(struct thin_cache *c, struct thin_walk *w, const struct step *s,
                       const uint8_t *node)
{
    unsigned count = thin_node_entries(node);
    for (unsigned i = 0; i < count; i++) {
        struct step below = {.number = thin_node_child(node, i),
                             .low = thin_node_key(node, i),
                             .high = i + 1 < count ? thin_node_key(node, i + 1) : s->high,
                             .depth = s->depth + 1};
        TRY(co_step(c, w, &below));
    }
    return 0;
}

static int co_entries(struct thin_walk *w, struct thin_block *b)
{
    unsigned count = thin_node_entries(b->data);
    w->entries += count;
    for (unsigned i = 0; w->entry && i < count; i++)
        TRY(w->entry(w, thin_node_key(b->data, i), thin_node_value(b->data, i)));
    return 0;
}

static bool belongs(const struct step *s, const uint8_t *node)
{
    unsigned count = thin_node_entries(node);
    if (count == 0)
        return true;
    uint64_t last = thin_node_key(node, count - 1);
    return thin_node_key(node, 0) >= s->low && (s->high == UINT64_MAX || last < s->high);
}

static int co_step(struct thin_cache *c, struct thin_walk *w, const struct step *s)
{
    struct thin_block *b;
    w->depth = s->depth;
    int rc = w->node ? w->node(w, s->number) : 0;
    if (rc != 0)
        return MIN(rc, 0);
    if (s->depth == THIN_DEPTH_MOST)
        return tell(w, s->number, "the tree is too deep");
    rc = co_thin_node(c, w->tree, s->number, &b);
    if (rc == -ENOMEM)
        return rc;
    if (rc < 0)
        return tell(w, s->number, c->bad ? c->bad : "it cannot be read");
    if (!belongs(s, b->data))
        rc = tell(w, s->number, "its keys are not those that its parent says");
    else if (thin_node_is_leaf(b->data))
        rc = co_entries(w, b);
    else
        rc = co_children(c, w, s, b->data);
    thin_put(c, b);
    w->depth = s->depth;
    if (rc == 0 && w->left)
        w->left(w, s->number);
    return rc;
}

int co_thin_walk(struct thin_cache *c, struct thin_walk *w, uint64_t root)
{
    return co_step(c, w, &(struct step){.number = root, .high = UINT64_MAX});
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_btree.c - dm-thin's B+-trees: look-up, insert, remove.
 *
 * Changes go from the root down and copy what they must on the way (co_thin_shadow), and a node
 * that may overflow or run low is split or filled up before it is entered: so nothing has to go
 * back up. A child's keys lie between its key in the parent and the next one. */
#include "volumes/thin_meta.h"

int co_thin_node(struct thin_cache *c, const struct thin_tree *t, uint64_t number,
                 struct thin_block **out)
{
    TRY(co_thin_get(c, number, THIN_NODE, out));
    const uint8_t *data = (*out)->data;
    if (!thin_node_is_leaf(data) || thin_node_value_bytes(data) == t->value_bytes)
        return 0;
    thin_put(c, *out);
    c->bad = "it belongs to another kind of tree";
    c->bad_number = number;
    return -EBADMSG;
}

/* --- look-up ----------------------------------------------------------------------------------
 */

/* The leaf that @key belongs to, pinned; *next: where the keys of the leaf behind it begin. */
static int co_find_leaf(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t key,
                        struct thin_block **out, uint64_t *next)
{
    uint64_t at = root;
    *next = UINT64_MAX;
    for (unsigned depth = 0; depth < THIN_DEPTH_MOST; depth++) {
        TRY(co_thin_node(&m->cache, t, at, out));
        const uint8_t *node = (*out)->data;
        if (thin_node_is_leaf(node))
            return 0;
        unsigned i = (unsigned)MAX(thin_node_find(node, key), 0);
        if (i + 1 < thin_node_entries(node))
            *next = thin_node_key(node, i + 1);
        at = thin_node_child(node, i);
        thin_put(&m->cache, *out);
    }
    m->cache.bad = "the tree is too deep";
    m->cache.bad_number = at;
    return -EBADMSG;
}

int co_thin_lookup(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t key,
                   void *value)
{
    struct thin_block *leaf;
    uint64_t next;
    TRY(co_find_leaf(m, t, root, key, &leaf, &next));
    int i = thin_node_find(leaf->data, key);
    bool found = i >= 0 && thin_node_key(leaf->data, (unsigned)i) == key;
    if (found)
        memcpy(value, thin_node_value(leaf->data, (unsigned)i), t->value_bytes);
    thin_put(&m->cache, leaf);
    return found ? 0 : -ENOENT;
}

int co_thin_next(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t key,
                 uint64_t *found, void *value)
{
    for (;;) {
        struct thin_block *leaf;
        uint64_t next;
        TRY(co_find_leaf(m, t, root, key, &leaf, &next));
        int below = key ? thin_node_find(leaf->data, key - 1) : -1;
        unsigned i = (unsigned)(below + 1);
        bool here = i < thin_node_entries(leaf->data);
        if (here) {
            *found = thin_node_key(leaf->data, i);
            memcpy(value, thin_node_value(leaf->data, i), t->value_bytes);
        }
        thin_put(&m->cache, leaf);
        if (here)
            return 0;
        if (next == UINT64_MAX || next <= key)
            return -ENOENT;
        key = next;
    }
}

int co_thin_last(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t *key)
{
    struct thin_block *leaf;
    uint64_t next;
    TRY(co_find_leaf(m, t, root, UINT64_MAX, &leaf, &next));
    unsigned count = thin_node_entries(leaf->data);
    if (count)
        *key = thin_node_key(leaf->data, count - 1);
    thin_put(&m->cache, leaf);
    return count ? 0 : -ENOENT;
}

int co_thin_lookup_run(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t key,
                       unsigned count, uint64_t *values)
{
    uint64_t end = key + count, at = key;
    memset(values, 0xff, count * sizeof(*values));
    while (at < end) {
        struct thin_block *leaf;
        uint64_t next;
        TRY(co_find_leaf(m, t, root, at, &leaf, &next));
        int below = at ? thin_node_find(leaf->data, at - 1) : -1;
        for (unsigned i = (unsigned)(below + 1); i < thin_node_entries(leaf->data); i++) {
            uint64_t k = thin_node_key(leaf->data, i);
            if (k >= end)
                break;
            values[k - key] = thin_node_child(leaf->data, i);
        }
        thin_put(&m->cache, leaf);
        if (next <= at)
            break;
        at = next;
    }
    return 0;
}

int co_thin_is_alone(struct thin_meta *m, const struct thin_tree *t, uint64_t root, uint64_t key,
                     bool *alone)
{
    uint64_t at = root;
    *alone = true;
    for (unsigned depth = 0; depth < THIN_DEPTH_MOST; depth++) {
        struct thin_block *b;
        *alone = thin_meta_count(m, at) == 1;
        if (!*alone)
            return 0;
        TRY(co_thin_node(&m->cache, t, at, &b));
        bool leaf = thin_node_is_leaf(b->data);
        at = leaf ? 0 : thin_node_child(b->data, (unsigned)MAX(thin_node_find(b->data, key), 0));
        thin_put(&m->cache, b);
        if (leaf)
            return 0;
    }
    return -EBADMSG;
}

/* --- insert -----------------------------------------------------------------------------------
 */

int co_thin_tree_new(struct thin_meta *m, const struct thin_tree *t, uint64_t *root)
{
    struct thin_block *b;
    TRY(co_thin_make(m, THIN_NODE, root, &b));
    thin_node_init(b->data, true, t->value_bytes);
    thin_put(&m->cache, b);
    return 0;
}

static bool is_full(const struct thin_block *b)
{
    return thin_node_entries(b->data) == thin_node_room(b->data);
}

/* Nodes smaller than any that is written could not be split. */
static int check_room(struct thin_meta *m, const struct thin_block *b)
{
    if (thin_node_room(b->data) >= 9)
        return 0;
    m->cache.bad = "a node with room for next to nothing";
    m->cache.bad_number = b->number;
    return -EBADMSG;
}

/* The full @child, at @i of @parent, hands its upper part to a new node behind it. @key is about to
 * be inserted: at the end of everything the lower part stays well filled. */
static int co_split(struct thin_meta *m, struct thin_block *parent, unsigned i,
                    struct thin_block *child, uint64_t key)
{
    unsigned count = thin_node_entries(child->data);
    bool leaf = thin_node_is_leaf(child->data);
    bool at_end = key > thin_node_key(child->data, count - 1);
    unsigned upper = at_end ? count / 3 : count / 2;
    struct thin_block *fresh;
    uint64_t number;
    TRY(check_room(m, child));
    TRY(co_thin_make(m, THIN_NODE, &number, &fresh));
    thin_dirty(&m->cache, parent);
    thin_dirty(&m->cache, child);
    thin_node_init(fresh->data, leaf, thin_node_value_bytes(child->data));
    upper = MIN(upper, thin_node_room(fresh->data));
    thin_node_move_right(child->data, fresh->data, upper);
    le64 value = le64_of(number);
    thin_node_insert(parent->data, i + 1, thin_node_key(fresh->data, 0), &value);
    thin_put(&m->cache, fresh);
    return 0;
}

/* A new root over the old one, which is full. */
static int co_raise(struct thin_meta *m, uint64_t *root, struct thin_block **b)
{
    struct thin_block *top, *old = *b;
    uint64_t number;
    TRY(co_thin_make(m, THIN_NODE, &number, &top));
    le64 value = le64_of(*root);
    thin_node_init(top->data, false, 8);
    thin_node_insert(top->data, 0, thin_node_key(old->data, 0), &value);
    thin_put(&m->cache, old);
    *root = number;
    *b = top;
    return 0;
}

/* The child of @node that @key belongs to: to be changed, pinned, not full. */
static int co_enter_child(struct thin_meta *m, const struct thin_tree *t, struct thin_block *node,
                          uint64_t key, struct thin_block **out)
{
    for (;;) {
        unsigned i = (unsigned)MAX(thin_node_find(node->data, key), 0);
        uint64_t old = thin_node_child(node->data, i), number = old;
        TRY(co_thin_shadow(m, t, &number, out));
        thin_dirty(&m->cache, node);
        thin_node_set_child(node->data, i, number);
        if (key < thin_node_key(node->data, i))
            thin_node_set_key(node->data, i, key);
        if (!is_full(*out))
            return 0;
        int rc = co_split(m, node, i, *out, key);
        thin_put(&m->cache, *out);
        TRY(rc);
    }
}

static int co_insert_in_leaf(struct thin_meta *m, const struct thin_tree *t,
                             struct thin_block *leaf, uint64_t key, const void *value)
{
    int i = thin_node_find(leaf->data, key);
    if (i < 0 || thin_node_key(leaf->data, (unsigned)i) != key) {
        thin_dirty(&m->cache, leaf);
        thin_node_insert(leaf->data, (unsigned)(i + 1), key, value);
        return 0;
    }
    uint8_t old[THIN_VALUE_MOST];
    memcpy(old, thin_node_value(leaf->data, (unsigned)i), t->value_bytes);
    thin_dirty(&m->cache, leaf);
    memcpy(thin_node_value(leaf->data, (unsigned)i), value, t->value_bytes);
    return t->co_drop ? t->co_drop(m, old) : 0;
}

int co_thin_insert(struct thin_meta *m, const struct thin_tree *t, uint64_t *root, uint64_t key,
                   const void *value)
{
    struct thin_block *b, *child;
    TRY(co_thin_shadow(m, t, root, &b));
    if (is_full(b)) {
        int rc = check_room(m, b);
        if (rc == 0)
            rc = co_raise(m, root, &b);
        if (rc < 0) {
            thin_put(&m->cache, b);
            return rc;
        }
    }
    for (unsigned depth = 0; !thin_node_is_leaf(b->data); depth++) {
        int rc = depth < THIN_DEPTH_MOST ? co_enter_child(m, t, b, key, &child) : -EBADMSG;
        thin_put(&m->cache, b);
        TRY(rc);
        b = child;
    }
    int rc = co_insert_in_leaf(m, t, b, key, value);
    thin_put(&m->cache, b);
    return rc;
}

/* --- remove -----------------------------------------------------------------------------------
 */

static unsigned low_mark(const struct thin_block *b)
{
    return thin_node_room(b->data) / 3;
}

/* The child at @i of @node, to be changed, pinned. */
static int co_open_child(struct thin_meta *m, const struct thin_tree *t, struct thin_block *node,
                         unsigned i, struct thin_block **out)
{
    uint64_t number = thin_node_child(node->data, i);
    TRY(co_thin_shadow(m, t, &number, out));
    thin_dirty(&m->cache, node);
    thin_node_set_child(node->data, i, number);
    return 0;
}

/* The right one's entries go into the left one, which is at @i of @node. */
static void merge(struct thin_meta *m, struct thin_block *node, unsigned i, struct thin_block *left,
                  struct thin_block *right)
{
    thin_node_move_left(right->data, left->data, thin_node_entries(right->data));
    thin_node_remove(node->data, i + 1);
    thin_meta_drop(m, right->number);
}

static void even_out(struct thin_block *node, unsigned i, struct thin_block *left,
                     struct thin_block *right)
{
    unsigned a = thin_node_entries(left->data), b = thin_node_entries(right->data);
    unsigned want = (a + b) / 2;
    if (a < want)
        thin_node_move_left(right->data, left->data, want - a);
    else
        thin_node_move_right(left->data, right->data, a - want);
    thin_node_set_key(node->data, i + 1, thin_node_key(right->data, 0));
}

/* The child at @i runs low: it and a neighbour become one node, or share what they have. */
static int co_refill(struct thin_meta *m, const struct thin_tree *t, struct thin_block *node,
                     unsigned i)
{
    struct thin_block *left, *right;
    if (i + 1 == thin_node_entries(node->data))
        i--;
    TRY(co_open_child(m, t, node, i, &left));
    int rc = co_open_child(m, t, node, i + 1, &right);
    if (rc == 0 && thin_node_is_leaf(left->data) != thin_node_is_leaf(right->data)) {
        thin_put(&m->cache, right);
        rc = -EBADMSG;
    }
    if (rc == 0 && thin_node_room(left->data) != thin_node_room(right->data)) {
        thin_put(&m->cache, right); /* not of our making: they stay as they are */
    } else if (rc == 0) {
        unsigned room = thin_node_room(left->data);
        unsigned both = thin_node_entries(left->data) + thin_node_entries(right->data);
        thin_dirty(&m->cache, node);
        thin_dirty(&m->cache, left);
        thin_dirty(&m->cache, right);
        if (both <= room - room / 6)
            merge(m, node, i, left, right);
        else
            even_out(node, i, left, right);
        thin_put(&m->cache, right);
    }
    thin_put(&m->cache, left);
    return rc;
}

/* An inner root of one child gives way to it. */
static int co_lower(struct thin_meta *m, const struct thin_tree *t, uint64_t *root,
                    struct thin_block **b)
{
    while (!thin_node_is_leaf((*b)->data) && thin_node_entries((*b)->data) == 1) {
        struct thin_block *child;
        TRY(co_open_child(m, t, *b, 0, &child));
        thin_meta_drop(m, (*b)->number);
        thin_put(&m->cache, *b);
        *b = child;
        *root = child->number;
    }
    return 0;
}

/* Down to the leaf of @key; *b is the root at first. */
static int co_descend(struct thin_meta *m, const struct thin_tree *t, uint64_t *root, uint64_t key,
                      struct thin_block **b)
{
    for (unsigned depth = 0; !thin_node_is_leaf((*b)->data); depth++) {
        struct thin_block *child;
        if (depth == THIN_DEPTH_MOST)
            return -EBADMSG;
        unsigned i = (unsigned)MAX(thin_node_find((*b)->data, key), 0);
        TRY(co_open_child(m, t, *b, i, &child));
        bool low = thin_node_entries(child->data) <= low_mark(child);
        thin_put(&m->cache, low ? child : *b);
        if (!low) {
            *b = child;
            continue;
        }
        if (thin_node_entries((*b)->data) > 1)
            TRY(co_refill(m, t, *b, i));
        if ((*b)->number == *root)
            TRY(co_lower(m, t, root, b));
        if (thin_node_is_leaf((*b)->data))
            break;
        i = (unsigned)MAX(thin_node_find((*b)->data, key), 0);
        TRY(co_open_child(m, t, *b, i, &child));
        thin_put(&m->cache, *b);
        *b = child;
    }
    return 0;
}

int co_thin_remove(struct thin_meta *m, const struct thin_tree *t, uint64_t *root, uint64_t key)
{
    struct thin_block *b;
    uint8_t old[THIN_VALUE_MOST];
    TRY(co_thin_lookup(m, t, *root, key, old)); /* nothing is copied for nothing */
    TRY(co_thin_shadow(m, t, root, &b));
    int rc = co_descend(m, t, root, key, &b);
    int i = rc == 0 ? thin_node_find(b->data, key) : -1;
    if (rc == 0 && (i < 0 || thin_node_key(b->data, (unsigned)i) != key))
        rc = -EBADMSG;
    if (rc == 0) {
        thin_dirty(&m->cache, b);
        thin_node_remove(b->data, (unsigned)i);
    }
    thin_put(&m->cache, b);
    TRY(rc);
    return t->co_drop ? t->co_drop(m, old) : 0;
}

/* --- dropping a tree --------------------------------------------------------------------------
 */

static int co_drop_node(struct thin_meta *m, const struct thin_tree *t, uint64_t number,
                        unsigned depth)
{
    uint32_t count = thin_meta_count(m, number);
    bool last = count == 1;
    struct thin_block *b = NULL;
    int rc = 0;
    if (depth == THIN_DEPTH_MOST || count == 0)
        return -EBADMSG;
    if (last)
        TRY(co_thin_node(&m->cache, t, number, &b));
    for (unsigned i = 0; last && rc == 0 && i < thin_node_entries(b->data); i++) {
        if (!thin_node_is_leaf(b->data))
            rc = co_drop_node(m, t, thin_node_child(b->data, i), depth + 1);
        else if (t->co_drop)
            rc = t->co_drop(m, thin_node_value(b->data, i));
    }
    if (b)
        thin_put(&m->cache, b);
    if (rc == 0)
        thin_meta_drop(m, number);
    return rc;
}

int co_thin_tree_drop(struct thin_meta *m, const struct thin_tree *t, uint64_t root)
{
    return co_drop_node(m, t, root, 0);
}

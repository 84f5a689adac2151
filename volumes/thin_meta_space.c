/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_meta_space.c - which metadata blocks are used. The map describes the blocks that it lies in
 * itself; so all counts are kept in memory, four bytes each, and are written out anew where they
 * changed when a transaction ends. */
#include "volumes/thin_meta.h"

static bool bit(const uint64_t *set, uint64_t i)
{
    return set[i / 64] >> i % 64 & 1;
}

static void bit_set(uint64_t *set, uint64_t i)
{
    set[i / 64] |= 1ULL << i % 64;
}

static uint64_t words(const struct thin_meta *m)
{
    return div_up(m->meta_space.root.blocks, 64);
}

/* --- loading ----------------------------------------------------------------------------------
 */

int thin_meta_space_init(struct thin_meta *m, uint64_t blocks)
{
    struct thin_meta_space *s = &m->meta_space;
    uint64_t **const sets[] = {&s->fresh, &s->held, &s->freed, &s->freeing, &s->changed};
    bool ok = true;
    s->root.blocks = blocks;
    s->counts = mem_array(blocks, sizeof(*s->counts));
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        *sets[i] = mem_array(words(m), sizeof(uint64_t));
        ok &= *sets[i] != NULL;
    }
    if (!s->counts || !ok)
        return -ENOMEM;
    s->counts[0] = 1;
    s->root.allocated = 1;
    s->free = blocks - 1;
    return 0;
}

void thin_meta_space_drop(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    mem_free(s->counts);
    mem_free(s->fresh);
    mem_free(s->held);
    mem_free(s->freed);
    mem_free(s->freeing);
    mem_free(s->changed);
    *s = (struct thin_meta_space){0};
}

static int take_overflow(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    struct thin_meta_space *s = w->arg;
    if (key < s->root.blocks && s->counts[key] == 3)
        s->counts[key] = MAX(le32_get(*(const le32 *)value), 3);
    return 0;
}

static int co_load_bitmap(struct thin_meta *m, unsigned index)
{
    struct thin_meta_space *s = &m->meta_space;
    uint64_t base = index * (uint64_t)THIN_PER_BITMAP;
    unsigned end = (unsigned)MIN(THIN_PER_BITMAP, s->root.blocks - base);
    struct thin_block *b;
    TRY(co_thin_get(&m->cache, s->bitmaps[index], THIN_BITMAP, &b));
    for (unsigned i = 0; i < end; i++) {
        s->counts[base + i] = thin_bits_get(b->data, i);
        s->root.allocated += s->counts[base + i] > 0;
    }
    thin_put(&m->cache, b);
    return 0;
}

int co_thin_meta_space_load(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    struct thin_root from = m->super.metadata;
    unsigned count = (unsigned)div_up(from.blocks, THIN_PER_BITMAP);
    struct thin_block *b;
    assert(count <= THIN_INDEXES); /* thin_super_parse() */
    TRY(thin_meta_space_init(m, from.blocks));
    s->root = (struct thin_root){.blocks = from.blocks,
                                 .bitmap_root = from.bitmap_root,
                                 .overflow_root = from.overflow_root};
    TRY(co_thin_get(&m->cache, from.bitmap_root, THIN_INDEX, &b));
    const struct thin_index_disk *index = (const struct thin_index_disk *)(b->data + 16);
    for (unsigned i = 0; i < count; i++)
        s->bitmaps[i] = le64_get(index[i].number);
    thin_put(&m->cache, b);
    for (unsigned i = 0; i < count; i++)
        TRY(co_load_bitmap(m, i));
    s->free = from.blocks - s->root.allocated;
    struct thin_walk w = {.tree = &thin_overflow, .entry = take_overflow, .arg = s};
    return co_thin_walk(&m->cache, &w, from.overflow_root);
}

/* --- counts -----------------------------------------------------------------------------------
 */

static void count_changed(struct thin_meta_space *s, uint64_t number, uint32_t before)
{
    s->dirty_bitmaps[number / THIN_PER_BITMAP] = true;
    if (before >= 3 || s->counts[number] >= 3)
        bit_set(s->changed, number);
}

uint32_t thin_meta_count(const struct thin_meta *m, uint64_t number)
{
    return number < m->meta_space.root.blocks ? m->meta_space.counts[number] : 0;
}

bool thin_meta_is_fresh(const struct thin_meta *m, uint64_t number)
{
    return bit(m->meta_space.fresh, number);
}

int thin_meta_take(struct thin_meta *m, uint64_t *number)
{
    struct thin_meta_space *s = &m->meta_space;
    for (uint64_t i = 0; s->free && i < s->root.blocks; i++) {
        uint64_t at = s->cursor;
        s->cursor = at + 1 < s->root.blocks ? at + 1 : 0;
        if (s->counts[at] || bit(s->held, at))
            continue;
        s->counts[at] = 1;
        s->root.allocated++;
        s->free--;
        bit_set(s->fresh, at);
        count_changed(s, at, 0);
        *number = at;
        return 0;
    }
    return -ENOSPC;
}

void thin_meta_hold(struct thin_meta *m, uint64_t number)
{
    uint32_t before = m->meta_space.counts[number]++;
    assert(before > 0 && before < UINT32_MAX);
    count_changed(&m->meta_space, number, before);
}

void thin_meta_drop(struct thin_meta *m, uint64_t number)
{
    struct thin_meta_space *s = &m->meta_space;
    uint32_t before = s->counts[number]--;
    assert(before > 0);
    count_changed(s, number, before);
    m->unshared |= before > 1;
    if (before > 1)
        return;
    s->root.allocated--;
    bit_set(s->held, number);
    bit_set(s->freed, number);
    thin_forget(&m->cache, number);
}

/* @set has room for @words; what is new is zero. */
static int widen(uint64_t **set, uint64_t old_words, uint64_t new_words)
{
    uint64_t *grown = mem_resize(*set, new_words * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    memset(grown + old_words, 0, (new_words - old_words) * sizeof(*grown));
    *set = grown;
    return 0;
}

int thin_meta_space_grow(struct thin_meta *m, uint64_t blocks)
{
    struct thin_meta_space *s = &m->meta_space;
    uint64_t **const sets[] = {&s->fresh, &s->held, &s->freed, &s->freeing, &s->changed};
    uint64_t old = s->root.blocks;
    assert(blocks >= old && blocks <= THIN_META_MOST);
    for (size_t i = 0; i < ARRAY_LEN(sets); i++)
        TRY(widen(sets[i], words(m), div_up(blocks, 64)));
    uint32_t *counts = mem_resize(s->counts, blocks * sizeof(*counts));
    if (!counts)
        return -ENOMEM;
    memset(counts + old, 0, (blocks - old) * sizeof(*counts));
    s->counts = counts;
    s->root.blocks = blocks;
    s->free += blocks - old;
    for (uint64_t i = old / THIN_PER_BITMAP; i < div_up(blocks, THIN_PER_BITMAP); i++)
        s->dirty_bitmaps[i] = true;
    m->cache.blocks = MAX(m->cache.blocks, blocks);
    m->dirty = true;
    m->changes++;
    return 0;
}

/* --- the end of a transaction -----------------------------------------------------------------
 */

static int co_settle_overflow(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    for (uint64_t at = 0; at < s->root.blocks; at++) {
        if (s->changed[at / 64] == 0) {
            at |= 63;
            continue;
        }
        if (!bit(s->changed, at))
            continue;
        le32 exact = le32_of(s->counts[at]);
        int rc = s->counts[at] >= 3
                     ? co_thin_insert(m, &thin_overflow, &s->root.overflow_root, at, &exact)
                     : co_thin_remove(m, &thin_overflow, &s->root.overflow_root, at);
        if (rc < 0 && rc != -ENOENT)
            return rc;
    }
    memset(s->changed, 0, words(m) * sizeof(uint64_t));
    return 0;
}

/* Another block for it; the old one is let go of. */
static int co_move(struct thin_meta *m, enum thin_kind kind, uint64_t *number)
{
    struct thin_block *b;
    uint64_t old = *number;
    if (old && thin_meta_count(m, old) == 0)
        return -EBADMSG; /* of an image: the map's own block is not counted */
    TRY(co_thin_make(m, kind, number, &b));
    thin_put(&m->cache, b);
    if (old)
        thin_meta_drop(m, old);
    return 0;
}

/* A new place for a bitmap changes bitmaps: until all that change have one. */
static int co_place_bitmaps(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    bool again;
    do {
        again = false;
        for (unsigned i = 0; i < THIN_INDEXES; i++) {
            bool made = thin_meta_count(m, s->bitmaps[i]) && bit(s->fresh, s->bitmaps[i]);
            if (!s->dirty_bitmaps[i] || (s->bitmaps[i] && made))
                continue;
            TRY(co_move(m, THIN_BITMAP, &s->bitmaps[i]));
            again = true;
        }
    } while (again);
    return 0;
}

/* Gives how many are free. */
static unsigned fill_bitmap(const struct thin_meta_space *s, unsigned index, uint8_t *block)
{
    uint64_t base = index * (uint64_t)THIN_PER_BITMAP;
    unsigned end = (unsigned)MIN(THIN_PER_BITMAP, s->root.blocks - base), free = 0;
    for (unsigned i = 0; i < end; i++) {
        uint32_t count = MIN(s->counts[base + i], 3);
        free += count == 0;
        thin_bits_set(block, i, count);
    }
    return free + THIN_PER_BITMAP - end; /* as the kernel counts */
}

static int co_write_bitmap(struct thin_meta *m, unsigned i, struct thin_index_disk *entry)
{
    struct thin_meta_space *s = &m->meta_space;
    struct thin_block *b;
    TRY(co_thin_get(&m->cache, s->bitmaps[i], THIN_BITMAP, &b));
    thin_dirty(&m->cache, b);
    unsigned free = fill_bitmap(s, i, b->data);
    thin_put(&m->cache, b);
    *entry = (struct thin_index_disk){le64_of(s->bitmaps[i]), le32_of(free), le32_of(0)};
    return 0;
}

int co_thin_meta_space_settle(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    unsigned count = (unsigned)div_up(s->root.blocks, THIN_PER_BITMAP);
    struct thin_block *old = NULL, *b;
    uint64_t before = s->root.bitmap_root;
    TRY(co_settle_overflow(m));
    TRY(co_move(m, THIN_INDEX, &s->root.bitmap_root));
    TRY(co_place_bitmaps(m));
    TRY(co_thin_get(&m->cache, s->root.bitmap_root, THIN_INDEX, &b));
    int rc = before ? co_thin_get(&m->cache, before, THIN_INDEX, &old) : 0;
    if (rc == 0 && old)
        memcpy(b->data + 16, old->data + 16, THIN_BLOCK - 16);
    if (old)
        thin_put(&m->cache, old);
    struct thin_index_disk *index = (struct thin_index_disk *)(b->data + 16);
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        if (!s->dirty_bitmaps[i])
            continue;
        rc = co_write_bitmap(m, i, &index[i]);
        s->dirty_bitmaps[i] = false;
    }
    thin_dirty(&m->cache, b);
    thin_put(&m->cache, b);
    return rc;
}

void thin_meta_space_cut(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    uint64_t *empty = s->freeing;
    memset(s->fresh, 0, words(m) * sizeof(uint64_t));
    s->freeing = s->freed;
    s->freed = empty; /* thin_meta_space_release() emptied it */
}

void thin_meta_space_release(struct thin_meta *m)
{
    struct thin_meta_space *s = &m->meta_space;
    for (uint64_t i = 0; i < words(m); i++) {
        s->free += (uint64_t)__builtin_popcountll(s->freeing[i]);
        s->held[i] &= ~s->freeing[i];
        s->freeing[i] = 0;
    }
}

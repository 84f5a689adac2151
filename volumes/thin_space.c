/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_space.c - which data blocks are used: bitmaps of two bits per block in metadata blocks, an
 * index of them that is in memory whole, a tree for counts above two. */
#include "volumes/thin_meta.h"

/* --- runs of blocks ---------------------------------------------------------------------------
 */

bool thin_runs_add(struct thin_runs *r, uint64_t block)
{
    struct thin_run *last = r->count ? &r->list[r->count - 1] : NULL;
    if (last && last->first + last->count == block) {
        last->count++;
        return true;
    }
    if (r->count == r->room) {
        size_t room = r->room ? r->room * 2 : 64;
        struct thin_run *grown = mem_resize(r->list, room * sizeof(*grown));
        if (!grown)
            return false;
        r->list = grown;
        r->room = room;
    }
    r->list[r->count++] = (struct thin_run){block, 1};
    return true;
}

void thin_runs_drop(struct thin_runs *r)
{
    mem_free(r->list);
    *r = (struct thin_runs){0};
}

/* --- loading ----------------------------------------------------------------------------------
 */

static int take_entry(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    struct thin_space *s = w->arg;
    const struct thin_index_disk *d = (const struct thin_index_disk *)value;
    if (key >= s->bitmap_count)
        return -EBADMSG;
    s->bitmaps[key].at = le64_get(d->number);
    s->bitmaps[key].free = MIN(le32_get(d->free), THIN_PER_BITMAP);
    s->bitmaps[key].first_free = le32_get(d->first_free);
    return 0;
}

int co_thin_space_load(struct thin_meta *m, struct blk_error *e)
{
    struct thin_space *s = &m->space;
    s->root = m->super.data;
    s->bitmap_count = div_up(s->root.blocks, THIN_PER_BITMAP);
    assert(s->bitmap_count <= m->super.metadata.blocks); /* thin_super_parse() */
    s->bitmaps = mem_array(MAX(s->bitmap_count, 1), sizeof(*s->bitmaps));
    if (!s->bitmaps)
        return err_set(e, -ENOMEM, "out of memory");
    struct thin_walk w = {.tree = &thin_bitmaps, .entry = take_entry, .arg = s};
    int rc = co_thin_walk(&m->cache, &w, s->root.bitmap_root);
    for (size_t i = 0; rc == 0 && i < s->bitmap_count; i++)
        if (s->bitmaps[i].at == 0)
            rc = -EBADMSG;
    return rc < 0 ? err_errno(e, rc, "the index of the data space map cannot be read") : 0;
}

void thin_space_drop(struct thin_meta *m)
{
    for (size_t i = 0; i < m->space.bitmap_count && m->space.bitmaps; i++)
        mem_free(m->space.bitmaps[i].held);
    mem_free(m->space.bitmaps);
    m->space.bitmaps = NULL;
    thin_runs_drop(&m->space.freed);
}

/* --- held blocks ------------------------------------------------------------------------------
 */

static bool is_held(const struct thin_bitmap *b, unsigned i)
{
    return b->held && b->held[i / 64] >> i % 64 & 1;
}

static int make_held(struct thin_bitmap *b)
{
    if (!b->held)
        b->held = mem_array(THIN_PER_BITMAP / 64, sizeof(*b->held));
    return b->held ? 0 : -ENOMEM;
}

static void hold(struct thin_space *s, struct thin_bitmap *b, unsigned i)
{
    assert(!is_held(b, i));
    b->held[i / 64] |= 1ULL << i % 64;
    b->held_count++;
    s->held++;
}

void thin_unhold(struct thin_meta *m, uint64_t first, uint64_t count)
{
    for (uint64_t at = first; at < first + count; at++) {
        struct thin_bitmap *b = &m->space.bitmaps[at / THIN_PER_BITMAP];
        unsigned i = (unsigned)(at % THIN_PER_BITMAP);
        assert(is_held(b, i));
        b->held[i / 64] &= ~(1ULL << i % 64);
        b->held_count--;
        m->space.held--;
    }
}

uint64_t thin_data_free(const struct thin_meta *m)
{
    uint64_t used = m->space.root.allocated + m->space.held;
    return m->space.root.blocks - MIN(used, m->space.root.blocks);
}

/* --- counts -----------------------------------------------------------------------------------
 */

int co_thin_count(struct thin_meta *m, uint64_t data_block, uint32_t *count)
{
    struct thin_block *block;
    if (data_block >= m->space.root.blocks)
        return -EBADMSG;
    struct thin_bitmap *b = &m->space.bitmaps[data_block / THIN_PER_BITMAP];
    TRY(co_thin_get(&m->cache, b->at, THIN_BITMAP, &block));
    *count = thin_bits_get(block->data, (unsigned)(data_block % THIN_PER_BITMAP));
    thin_put(&m->cache, block);
    if (*count < 3)
        return 0;
    le32 exact;
    TRY(co_thin_lookup(m, &thin_overflow, m->space.root.overflow_root, data_block, &exact));
    *count = le32_get(exact);
    return 0;
}

static int co_set_bits(struct thin_meta *m, struct thin_bitmap *b, unsigned i, unsigned value)
{
    struct thin_block *block;
    uint64_t at = b->at;
    TRY(co_thin_shadow(m, NULL, &at, &block));
    thin_dirty(&m->cache, block);
    thin_bits_set(block->data, i, value);
    thin_put(&m->cache, block);
    if (at != b->at) {
        b->at = at;
        b->dirty = true;
    }
    return 0;
}

static int co_set_count(struct thin_meta *m, uint64_t data_block, uint32_t before, uint32_t now)
{
    uint64_t *overflow = &m->space.root.overflow_root;
    struct thin_bitmap *b = &m->space.bitmaps[data_block / THIN_PER_BITMAP];
    if (MIN(before, 3) != MIN(now, 3))
        TRY(co_set_bits(m, b, (unsigned)(data_block % THIN_PER_BITMAP), MIN(now, 3)));
    if (now >= 3) {
        le32 exact = le32_of(now);
        return co_thin_insert(m, &thin_overflow, overflow, data_block, &exact);
    }
    return before >= 3 ? co_thin_remove(m, &thin_overflow, overflow, data_block) : 0;
}

int co_thin_data_hold(struct thin_meta *m, uint64_t data_block)
{
    uint32_t count;
    TRY(co_thin_count(m, data_block, &count));
    if (count == UINT32_MAX)
        return -EMLINK;
    if (is_held(&m->space.bitmaps[data_block / THIN_PER_BITMAP],
                (unsigned)(data_block % THIN_PER_BITMAP)))
        return -EBADMSG; /* of an image: what refers to it was not counted */
    TRY(co_set_count(m, data_block, count, count + 1));
    if (count > 0)
        return 0;
    struct thin_bitmap *b = &m->space.bitmaps[data_block / THIN_PER_BITMAP];
    m->space.root.allocated++;
    b->free -= b->free > 0;
    b->first_free += b->first_free == data_block % THIN_PER_BITMAP;
    b->dirty = true;
    return 0;
}

/* What is let go of may have been written to. */
static void zeroes_end_at(struct thin_space *s, uint64_t block)
{
    if (block >= s->zeroes.first)
        s->zeroes.count = MIN(s->zeroes.count, block - s->zeroes.first);
}

int co_thin_data_drop(struct thin_meta *m, uint64_t data_block)
{
    uint32_t count;
    TRY(co_thin_count(m, data_block, &count));
    if (count == 0)
        return -EBADMSG;
    struct thin_bitmap *b = &m->space.bitmaps[data_block / THIN_PER_BITMAP];
    if (count == 1)
        TRY(make_held(b));
    TRY(co_set_count(m, data_block, count, count - 1));
    m->unshared |= count > 1;
    if (count > 1)
        return 0;
    unsigned i = (unsigned)(data_block % THIN_PER_BITMAP);
    m->space.root.allocated -= m->space.root.allocated > 0;
    b->free = MIN(b->free + 1, THIN_PER_BITMAP);
    b->first_free = MIN(b->first_free, i);
    b->dirty = true;
    hold(&m->space, b, i);
    zeroes_end_at(&m->space, data_block);
    m->space.freed_ever++;
    thin_runs_add(&m->space.freed, data_block); /* else it is not used before the pool is opened */
    return 0;
}

/* --- taking -----------------------------------------------------------------------------------
 */

/* In one bitmap, from entry @from on; *out->count 0: there is none. */
static int co_search(struct thin_meta *m, uint64_t bitmap, unsigned from, uint64_t count,
                     struct thin_run *out)
{
    struct thin_bitmap *b = &m->space.bitmaps[bitmap];
    uint64_t base = bitmap * THIN_PER_BITMAP;
    unsigned end = (unsigned)MIN(THIN_PER_BITMAP, m->space.root.blocks - base), i = from;
    struct thin_block *block;
    *out = (struct thin_run){0};
    if (b->free <= b->held_count)
        return 0;
    TRY(make_held(b));
    TRY(co_thin_get(&m->cache, b->at, THIN_BITMAP, &block));
    while ((i = thin_bits_find(block->data, i, end)) < end && is_held(b, i))
        i++;
    out->first = base + i;
    while (i < end && out->count < count && thin_bits_get(block->data, i) == 0 && !is_held(b, i)) {
        hold(&m->space, b, i++);
        out->count++;
    }
    thin_put(&m->cache, block);
    return 0;
}

int co_thin_take(struct thin_meta *m, uint64_t count, struct thin_run *out)
{
    struct thin_space *s = &m->space;
    if (thin_data_free(m) == 0)
        return -ENOSPC;
    uint64_t start = s->cursor < s->root.blocks ? s->cursor : 0;
    for (uint64_t i = 0; i <= s->bitmap_count; i++) {
        uint64_t bitmap = (start / THIN_PER_BITMAP + i) % s->bitmap_count;
        unsigned from =
            i == 0 ? (unsigned)(start % THIN_PER_BITMAP) : s->bitmaps[bitmap].first_free;
        TRY(co_search(m, bitmap, MIN(from, THIN_PER_BITMAP), count, out));
        if (out->count) {
            s->rounds += out->first < start;
            s->cursor = out->first + out->count;
            return 0;
        }
    }
    return -ENOSPC;
}

/* --- holes ------------------------------------------------------------------------------------
 */

bool thin_took_zeroes(struct thin_meta *m, const struct thin_run *run)
{
    struct thin_run *z = &m->space.zeroes;
    uint64_t end = run->first + run->count;
    if (run->first < z->first || end > z->first + z->count)
        return false;
    z->count -= end - z->first;
    z->first = end;
    return true;
}

int co_thin_ask_zeroes(struct thin_meta *m, const struct thin_run *run, bool *zeroes)
{
    struct thin_space *s = &m->space;
    uint64_t chunk = m->super.chunk_bytes, rounds = s->rounds, freed = s->freed_ever;
    uint64_t at = run->first * chunk;
    struct blk_extent x;
    unsigned depth;
    TRY(co_blk_map_chain(m->data, NULL, at, s->root.blocks * chunk - at, &x, &depth));
    *zeroes = x.flags & BLK_EXT_ZERO && x.bytes >= run->count * chunk;
    uint64_t first = MAX(s->cursor, run->first + run->count), end = run->first + x.bytes / chunk;
    if (*zeroes && end > first && rounds == s->rounds && freed == s->freed_ever)
        s->zeroes = (struct thin_run){first, end - first};
    return 0;
}

/* --- growing, settling ------------------------------------------------------------------------
 */

static int co_new_bitmap(struct thin_meta *m, struct thin_bitmap *b)
{
    struct thin_block *block;
    TRY(co_thin_make(m, THIN_BITMAP, &b->at, &block));
    thin_put(&m->cache, block);
    b->free = THIN_PER_BITMAP;
    b->dirty = true;
    return 0;
}

/* What lies behind the end of the last bitmap counts as free, as the kernel counts. */
static int co_recount(struct thin_meta *m, struct thin_bitmap *b)
{
    struct thin_block *block;
    TRY(co_thin_get(&m->cache, b->at, THIN_BITMAP, &block));
    b->free = 0;
    for (unsigned i = 0; i < THIN_PER_BITMAP; i++)
        b->free += thin_bits_get(block->data, i) == 0;
    b->dirty = true;
    thin_put(&m->cache, block);
    return 0;
}

int co_thin_space_grow(struct thin_meta *m, uint64_t blocks)
{
    struct thin_space *s = &m->space;
    size_t count = div_up(blocks, THIN_PER_BITMAP), old = s->bitmap_count;
    assert(blocks >= s->root.blocks && blocks <= THIN_DATA_MOST);
    if (blocks == s->root.blocks)
        return 0;
    struct thin_bitmap *grown = mem_resize(s->bitmaps, MAX(count, 1) * sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    s->bitmaps = grown;
    memset(grown + old, 0, (count - old) * sizeof(*grown));
    if (s->root.blocks % THIN_PER_BITMAP)
        TRY(co_recount(m, &grown[old - 1]));
    for (; s->bitmap_count < count; s->bitmap_count++)
        TRY(co_new_bitmap(m, &grown[s->bitmap_count]));
    s->root.blocks = blocks;
    m->dirty = true;
    m->changes++;
    return 0;
}

int co_thin_space_settle(struct thin_meta *m)
{
    struct thin_space *s = &m->space;
    for (size_t i = 0; i < s->bitmap_count; i++) {
        struct thin_bitmap *b = &s->bitmaps[i];
        struct thin_index_disk value = {le64_of(b->at), le32_of(b->free), le32_of(b->first_free)};
        if (!b->dirty)
            continue;
        TRY(co_thin_insert(m, &thin_bitmaps, &s->root.bitmap_root, i, &value));
        b->dirty = false;
    }
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* model.c - the sets of values that a sector may show, from the operations that reached it. */
#include "tests/lib/model.h"

#include <stdio.h>
#include <stdlib.h>

#define WORDS (MODEL_SECTOR / 8)

static void *grow(void *list, uint32_t count, uint32_t *room, size_t item)
{
    if (count < *room)
        return list;
    *room = MAX(4U, *room * 2);
    list = realloc(list, *room * item);
    if (!list)
        abort();
    return list;
}

void model_init(struct model *m, uint64_t size, uint64_t max_size, uint64_t base_size)
{
    *m = (struct model){.max_size = max_size, .base_size = base_size};
    m->sectors = calloc(max_size / MODEL_SECTOR, sizeof(*m->sectors));
    m->ops = grow(NULL, 0, &m->op_room, sizeof(*m->ops));
    m->sizes = grow(NULL, 0, &m->size_room, sizeof(*m->sizes));
    if (!m->sectors)
        abort();
    m->ops[0] = (struct model_op){.ok = true};
    m->op_count = 1;
    m->sizes[0] = (struct model_op){.bytes = size, .ok = true};
    m->size_count = 1;
    m->now = 1;
}

void model_drop(struct model *m)
{
    for (uint64_t i = 0; i < m->max_size / MODEL_SECTOR; i++)
        free(m->sectors[i].ops);
    free(m->sectors);
    free(m->ops);
    free(m->sizes);
}

uint64_t model_now(struct model *m)
{
    return m->now++;
}

static struct model_op begin(struct model *m, enum model_kind kind, uint64_t offset, uint64_t bytes,
                             uint64_t cut)
{
    return (struct model_op){.kind = kind,
                             .offset = offset,
                             .bytes = bytes,
                             .start = m->now++,
                             .end = MODEL_NEVER,
                             .start_cut = cut,
                             .flushed = MODEL_NEVER,
                             .flushed_cut = MODEL_NEVER};
}

#define FORGET_ABOVE 256   /* operations of one sector */
#define FORGET_AFTER 20000 /* in time: longer than any read is in flight */

static bool covers(const struct model_op *op)
{
    return op->ok && (op->kind == MODEL_WRITE || op->kind == MODEL_ZERO);
}

/* Long runs: what was covered, durably and long ago, no read can show any more. */
static void forget(struct model *m, struct model_sector *s)
{
    uint64_t cover = 0;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct model_op *op = &m->ops[s->ops[i]];
        if (covers(op) && op->flushed != MODEL_NEVER && op->flushed + FORGET_AFTER < m->now)
            cover = MAX(cover, op->start);
    }
    for (uint32_t i = 0; i < s->count; i++)
        if (m->ops[s->ops[i]].end >= cover)
            s->ops[kept++] = s->ops[i];
    s->count = kept;
}

uint32_t model_begin(struct model *m, enum model_kind kind, uint64_t offset, uint64_t bytes,
                     uint64_t cut)
{
    assert(offset % MODEL_SECTOR == 0 && bytes % MODEL_SECTOR == 0);
    assert(range_fits(offset, bytes, m->max_size));
    m->ops = grow(m->ops, m->op_count, &m->op_room, sizeof(*m->ops));
    uint32_t number = m->op_count++;
    m->ops[number] = begin(m, kind, offset, bytes, cut);
    for (uint64_t s = offset / MODEL_SECTOR; s < (offset + bytes) / MODEL_SECTOR; s++) {
        struct model_sector *sector = &m->sectors[s];
        if (!m->keep && sector->count == sector->room && sector->count >= FORGET_ABOVE)
            forget(m, sector);
        sector->ops = grow(sector->ops, sector->count, &sector->room, sizeof(*sector->ops));
        sector->ops[sector->count++] = number;
    }
    return number;
}

void model_end(struct model *m, uint32_t op, bool ok)
{
    m->ops[op].end = m->now++;
    m->ops[op].ok = ok;
}

void model_fua(struct model *m, uint32_t op, uint64_t cut)
{
    m->ops[op].flushed = m->now++;
    m->ops[op].flushed_cut = cut;
}

static void settle(struct model *m, struct model_op *ops, uint32_t count, uint64_t began,
                   uint64_t cut)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ops[i].ok && ops[i].end < began && ops[i].flushed == MODEL_NEVER) {
            ops[i].flushed = m->now;
            ops[i].flushed_cut = cut;
        }
    }
}

void model_flushed(struct model *m, uint64_t began, uint64_t cut)
{
    settle(m, m->ops, m->op_count, began, cut);
    settle(m, m->sizes, m->size_count, began, cut);
    m->now++;
}

static void doubt(struct model_op *ops, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (ops[i].flushed == MODEL_NEVER && ops[i].end != MODEL_NEVER && ops[i].start != 0)
            ops[i].ok = false;
}

void model_doubt(struct model *m)
{
    doubt(m->ops, m->op_count);
    doubt(m->sizes, m->size_count);
}

/* --- sizes --------------------------------------------------------------------------------------
 */

uint64_t model_size(const struct model *m)
{
    for (uint32_t i = m->size_count; i-- > 0;)
        if (m->sizes[i].ok)
            return m->sizes[i].bytes;
    return 0;
}

uint32_t model_resize_begin(struct model *m, uint64_t old, uint64_t size, uint64_t cut)
{
    assert(size <= m->max_size);
    m->sizes = grow(m->sizes, m->size_count, &m->size_room, sizeof(*m->sizes));
    m->sizes[m->size_count] = begin(m, MODEL_ZERO, 0, size, cut);
    /* What is cut off reads as zero if it ever comes back. */
    if (size < old)
        m->sizes[m->size_count].offset = model_begin(m, MODEL_ZERO, size, old - size, cut);
    return m->size_count++;
}

void model_resize_end(struct model *m, uint32_t size_op, bool ok)
{
    struct model_op *s = &m->sizes[size_op];
    if (s->offset)
        model_end(m, (uint32_t)s->offset, ok);
    s->end = m->now++;
    s->ok = ok;
}

/* The lowest and highest size that is legal, and whether @size is one of them. */
static bool sizes_at(const struct model *m, uint64_t cut, bool crash, uint64_t size, uint64_t *low,
                     uint64_t *high)
{
    uint64_t cover = 0;
    bool found = false;
    for (uint32_t i = 0; i < m->size_count; i++) {
        const struct model_op *s = &m->sizes[i];
        if (s->ok && (!crash || s->flushed_cut <= cut))
            cover = MAX(cover, s->start);
    }
    *low = UINT64_MAX;
    *high = 0;
    for (uint32_t i = 0; i < m->size_count; i++) {
        const struct model_op *s = &m->sizes[i];
        if (s->end < cover || (crash && s->start_cut > cut))
            continue;
        found |= s->bytes == size;
        *low = MIN(*low, s->bytes);
        *high = MAX(*high, s->bytes);
    }
    return found;
}

bool model_size_legal(const struct model *m, uint64_t size, uint64_t cut, bool crash)
{
    uint64_t low, high;
    return sizes_at(m, cut, crash, size, &low, &high);
}

bool model_size_between(const struct model *m, uint64_t size, uint64_t cut, bool crash)
{
    uint64_t low, high;
    return sizes_at(m, cut, crash, size, &low, &high) || (size >= low && size <= high);
}

/* --- contents -----------------------------------------------------------------------------------
 */

/* A third of all operations write what compresses well. */
static void fill_sector(uint32_t op, uint64_t sector, uint64_t *w)
{
    uint64_t key = ((uint64_t)op << 32 | (uint32_t)sector) * 0x9e3779b97f4a7c15ULL;
    key = (key ^ (key >> 29)) | 1;
    if (op % 3 == 0) {
        for (unsigned i = 0; i < WORDS; i++)
            w[i] = key;
    } else {
        for (unsigned i = 0; i < WORDS; i++)
            w[i] = (key + i) * (0xd1342543de82ef95ULL + 2 * i);
    }
    w[0] = 0x6c616d696e61ULL << 16 | 1;
    w[1] = op;
    w[2] = sector;
}

void model_fill(uint32_t op, uint64_t offset, void *to, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += MODEL_SECTOR) {
        uint64_t w[WORDS];
        fill_sector(op, (offset + at) / MODEL_SECTOR, w);
        memcpy((uint8_t *)to + at, w, sizeof(w));
    }
}

uint32_t model_value(uint64_t offset, const void *bytes)
{
    uint64_t head[3], w[WORDS];
    memcpy(head, bytes, sizeof(head));
    if (head[0] == 0)
        return mem_is_zero(bytes, MODEL_SECTOR) ? MODEL_ZEROES : MODEL_GARBAGE;
    if (head[1] == 0 || head[1] > MODEL_BASE || head[2] != offset / MODEL_SECTOR)
        return MODEL_GARBAGE;
    fill_sector((uint32_t)head[1], offset / MODEL_SECTOR, w);
    return memcmp(w, bytes, sizeof(w)) == 0 ? (uint32_t)head[1] : MODEL_GARBAGE;
}

/* --- legal sets ---------------------------------------------------------------------------------
 */

static uint32_t initial(const struct model *m, uint64_t sector)
{
    return sector * MODEL_SECTOR < m->base_size ? MODEL_BASE : MODEL_ZEROES;
}

struct adder {
    uint32_t *set;
    unsigned count, room;
};

static void add(struct adder *a, uint32_t value)
{
    for (unsigned i = 0; i < a->count; i++)
        if (a->set[i] == value)
            return;
    if (a->count < a->room)
        a->set[a->count++] = value;
}

static void add_op(struct adder *a, const struct model *m, uint64_t sector, uint32_t number)
{
    const struct model_op *op = &m->ops[number];
    add(a, op->kind == MODEL_WRITE ? number : MODEL_ZEROES);
    if (op->kind == MODEL_DISCARD_ANY)
        add(a, initial(m, sector));
}

unsigned model_legal_read(const struct model *m, uint64_t sector, uint64_t began, uint32_t *set,
                          unsigned room)
{
    const struct model_sector *s = &m->sectors[sector];
    struct adder a = {set, 0, room};
    uint64_t cover = 0; /* what ended before this is covered */
    for (uint32_t i = 0; i < s->count; i++) {
        const struct model_op *op = &m->ops[s->ops[i]];
        if (covers(op) && op->end < began)
            cover = MAX(cover, op->start);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct model_op *op = &m->ops[s->ops[i]];
        if (op->end < cover)
            continue;
        add_op(&a, m, sector, s->ops[i]);
        if (m->unflushed_any && !op->ok && op->end != MODEL_NEVER)
            add(&a, MODEL_ANY);
    }
    if (cover == 0)
        add(&a, initial(m, sector));
    return a.count;
}

unsigned model_legal_crash(const struct model *m, uint64_t sector, uint64_t cut, uint32_t *set,
                           unsigned room)
{
    const struct model_sector *s = &m->sectors[sector];
    struct adder a = {set, 0, room};
    uint64_t cover = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct model_op *op = &m->ops[s->ops[i]];
        if (covers(op) && op->flushed_cut <= cut)
            cover = MAX(cover, op->start);
    }
    for (uint32_t i = 0; i < s->count; i++) {
        const struct model_op *op = &m->ops[s->ops[i]];
        if (op->end < cover || op->start_cut > cut)
            continue;
        add_op(&a, m, sector, s->ops[i]);
        if (m->unflushed_any && op->flushed_cut > cut)
            add(&a, MODEL_ANY);
    }
    if (cover == 0)
        add(&a, initial(m, sector));
    return a.count;
}

bool model_may_read(const struct model *m, uint64_t sector, uint64_t began, uint32_t value)
{
    uint32_t set[MODEL_SET];
    unsigned n = model_legal_read(m, sector, began, set, MODEL_SET);
    for (unsigned i = 0; i < n; i++)
        if (set[i] == value || set[i] == MODEL_ANY)
            return true;
    return false;
}

static const char *value_text(uint32_t v, char *buf, size_t room)
{
    if (v == MODEL_ZEROES)
        return "zeroes";
    if (v == MODEL_BASE)
        return "the backing file's data";
    if (v == MODEL_GARBAGE)
        return "garbage";
    if (v == MODEL_ANY)
        return "anything";
    snprintf(buf, room, "op %u", v);
    return buf;
}

void model_set_text(const uint32_t *set, unsigned count, char *to, size_t room)
{
    size_t at = 0;
    if (room)
        *to = 0;
    for (unsigned i = 0; i < count && at + 40 < room; i++) {
        char one[32];
        at += (size_t)snprintf(to + at, room - at, "%s%s", i ? " or " : "",
                               value_text(set[i], one, sizeof(one)));
    }
}

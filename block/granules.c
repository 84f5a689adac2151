/* SPDX-License-Identifier: BSD-3-Clause */
/* granules.c - a set of pieces of a disk: one bit each. */
#include "block/granules.h"

int granules_init(struct granules *g, uint64_t size, bool in)
{
    *g = (struct granules){.size = size, .shift = log2_floor(GRANULE_LEAST)};
    while (size >> g->shift > GRANULES_MOST)
        g->shift++;
    uint64_t words = div_up(div_up(size, granule_bytes(g)), 64);
    g->words = mem_array(MAX(words, 1), sizeof(*g->words));
    if (!g->words)
        return -ENOMEM;
    if (in && size)
        granules_set(g, 0, size, true);
    return 0;
}

void granules_drop(struct granules *g)
{
    mem_free(take(g->words));
}

static bool get(const struct granules *g, uint64_t i)
{
    return g->words[i / 64] >> i % 64 & 1;
}

void granules_set(struct granules *g, uint64_t offset, uint64_t bytes, bool in)
{
    assert(bytes && range_fits(offset, bytes, g->size));
    uint64_t i = offset >> g->shift, end = ((offset + bytes - 1) >> g->shift) + 1;
    while (i < end) {
        uint64_t n = MIN(64 - i % 64, end - i);
        uint64_t mask = (n == 64 ? UINT64_MAX : (1ULL << n) - 1) << i % 64;
        if (in)
            g->words[i / 64] |= mask;
        else
            g->words[i / 64] &= ~mask;
        i += n;
    }
}

bool granules_run(const struct granules *g, uint64_t offset, uint64_t *bytes)
{
    assert(*bytes && range_fits(offset, *bytes, g->size));
    uint64_t i = offset >> g->shift, end = ((offset + *bytes - 1) >> g->shift) + 1;
    bool in = get(g, i);
    uint64_t whole = in ? UINT64_MAX : 0;
    for (i++; i < end && get(g, i) == in; i++)
        if (i % 64 == 0 && i + 64 <= end && g->words[i / 64] == whole)
            i += 63; /* the loop's own step is the 64th */
    *bytes = MIN(*bytes, (i << g->shift) - offset);
    return in;
}

void granules_widen(const struct granules *g, uint64_t *offset, uint64_t *bytes)
{
    uint64_t end = MIN(align_up(*offset + *bytes, granule_bytes(g)), g->size);
    *offset = align_down(*offset, granule_bytes(g));
    *bytes = end - *offset;
}

uint64_t granules_count(const struct granules *g)
{
    uint64_t sum = 0;
    for (uint64_t at = 0; at < g->size;) {
        uint64_t n = g->size - at;
        sum += granules_run(g, at, &n) ? n : 0;
        at += n;
    }
    return sum;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_space.c - the set of owned units: first fit from the lowest free one. */
#include "imgfmt/map_space.h"

void map_space_reset(struct map_space *s)
{
    if (s->used)
        memset(s->used, 0, s->words * sizeof(*s->used));
    s->next = s->lowest = s->touched = s->count = 0;
}

void map_space_drop(struct map_space *s)
{
    mem_free(s->used);
    *s = (struct map_space){0};
}

bool map_space_owned(const struct map_space *s, uint64_t unit)
{
    return unit / 64 < s->words && s->used[unit / 64] >> unit % 64 & 1;
}

static int make_room(struct map_space *s, uint64_t unit)
{
    if (unit >= MAP_SPACE_MOST)
        return -EFBIG;
    if (unit / 64 < s->words)
        return 0;
    uint64_t words = MAX(unit / 64 + 1, s->words * 2);
    uint64_t *bigger = mem_resize(s->used, words * sizeof(*bigger));
    if (!bigger)
        return -ENOMEM;
    memset(bigger + s->words, 0, (words - s->words) * sizeof(*bigger));
    s->used = bigger;
    s->words = words;
    return 0;
}

/* The first free unit at or behind @unit: full words are passed by at once. */
static uint64_t skip_owned(const struct map_space *s, uint64_t unit)
{
    while (unit < s->next && map_space_owned(s, unit))
        unit += unit % 64 == 0 && s->used[unit / 64] == UINT64_MAX ? 64 : 1;
    return unit;
}

int map_space_own(struct map_space *s, uint64_t unit, uint64_t span)
{
    if (span == 0)
        return 0;
    TRY(make_room(s, unit + span - 1));
    for (uint64_t u = unit; u < unit + span; u++) {
        s->count += !map_space_owned(s, u);
        s->used[u / 64] |= 1ULL << u % 64;
    }
    s->next = MAX(s->next, unit + span);
    s->touched = MAX(s->touched, unit + span);
    if (unit <= s->lowest)
        s->lowest = MAX(s->lowest, unit + span);
    return 0;
}

uint64_t map_space_find(struct map_space *s, uint64_t from, uint64_t span)
{
    s->lowest = skip_owned(s, s->lowest);
    uint64_t u = MAX(from, s->lowest), n = 0;
    while (n < span && u + n < s->next) {
        if (map_space_owned(s, u + n)) {
            u = skip_owned(s, u + n);
            n = 0;
        } else {
            n++;
        }
    }
    return u;
}

void map_space_let_go(struct map_space *s, uint64_t unit)
{
    assert(map_space_owned(s, unit));
    s->used[unit / 64] &= ~(1ULL << unit % 64);
    s->lowest = MIN(s->lowest, unit);
    s->count--;
    while (s->next > 0 && !map_space_owned(s, s->next - 1))
        s->next--;
}

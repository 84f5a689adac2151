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

int map_space_own(struct map_space *s, uint64_t unit)
{
    if (unit >= MAP_SPACE_MOST)
        return -EFBIG;
    if (unit / 64 >= s->words) {
        uint64_t words = MAX(unit / 64 + 1, s->words * 2);
        uint64_t *bigger = mem_resize(s->used, words * sizeof(*bigger));
        if (!bigger)
            return -ENOMEM;
        memset(bigger + s->words, 0, (words - s->words) * sizeof(*bigger));
        s->used = bigger;
        s->words = words;
    }
    s->used[unit / 64] |= 1ULL << unit % 64;
    s->next = MAX(s->next, unit + 1);
    s->touched = MAX(s->touched, unit + 1);
    s->count++;
    return 0;
}

int map_space_take(struct map_space *s, uint64_t from, uint64_t below, uint64_t *unit)
{
    uint64_t u = MAX(from, s->lowest); /* what lies below lowest is owned */
    while (u < s->next && map_space_owned(s, u))
        u++;
    if (u >= below)
        return -ENOSPC;
    if (from <= s->lowest)
        s->lowest = u;
    TRY(map_space_own(s, u));
    *unit = u;
    return 0;
}

int map_space_take_run(struct map_space *s, uint64_t below, uint64_t *count, uint64_t *first,
                       bool *reused)
{
    uint64_t touched = s->touched, n = 1;
    TRY(map_space_take(s, 0, below, first));
    *reused = *first < touched;
    for (; n < *count; n++) {
        uint64_t unit = *first + n;
        if (unit >= below || map_space_owned(s, unit) || (unit < touched) != *reused ||
            map_space_own(s, unit) < 0)
            break;
    }
    *count = n;
    return 0;
}

uint64_t map_space_find(const struct map_space *s, uint64_t from, uint64_t span)
{
    uint64_t u = MAX(from, s->lowest), n = 0;
    while (n < span && u + n < s->next) {
        if (map_space_owned(s, u + n)) {
            u += n + 1;
            n = 0;
        } else {
            n++;
        }
    }
    return u;
}

int map_space_own_span(struct map_space *s, uint64_t unit, uint64_t span)
{
    if (span == 0)
        return 0;
    bool fresh = !map_space_owned(s, unit + span - 1);
    TRY(map_space_own(s, unit + span - 1)); /* the only one that may need memory */
    s->count -= !fresh;
    for (uint64_t i = 0; i + 1 < span; i++) {
        s->count += !map_space_owned(s, unit + i);
        s->used[(unit + i) / 64] |= 1ULL << (unit + i) % 64;
    }
    return 0;
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

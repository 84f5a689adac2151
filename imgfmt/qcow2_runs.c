/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_runs.c - runs of free clusters: a sorted array, searched by halving. */
#include "imgfmt/qcow2.h"

/* The first run that ends at @at or behind it. */
static size_t runs_find(const struct qcow2_runs *r, uint64_t at)
{
    size_t low = 0, high = r->used;

    while (low < high) {
        size_t mid = (low + high) / 2;
        if (r->runs[mid].first + r->runs[mid].count < at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool runs_room(struct qcow2_runs *r)
{
    if (r->used < r->room)
        return true;
    size_t room = r->room ? r->room * 2 : 64;
    if (room > r->limit)
        return false;
    struct qcow2_run *more = mem_resize(r->runs, room * sizeof(*more));
    if (!more)
        return false;
    r->runs = more;
    r->room = room;
    return true;
}

bool qcow2_runs_add(struct qcow2_runs *r, uint64_t first, uint64_t count)
{
    size_t from = runs_find(r, first), to = from;
    uint64_t end = first + count;

    while (to < r->used && r->runs[to].first <= end) { /* touches: joined */
        first = MIN(first, r->runs[to].first);
        end = MAX(end, r->runs[to].first + r->runs[to].count);
        to++;
    }
    if (to == from) {
        if (!runs_room(r))
            return false;
        memmove(r->runs + from + 1, r->runs + from, (r->used - from) * sizeof(*r->runs));
        r->used++;
    } else {
        memmove(r->runs + from + 1, r->runs + to, (r->used - to) * sizeof(*r->runs));
        r->used -= to - from - 1;
    }
    r->runs[from] = (struct qcow2_run){first, end - first};
    return true;
}

uint64_t qcow2_runs_take(struct qcow2_runs *r, uint64_t want, uint64_t *first)
{
    size_t best = 0;

    if (r->used == 0 || want == 0)
        return 0;
    for (size_t i = 0; i < r->used && r->runs[best].count < want; i++)
        if (r->runs[i].count > r->runs[best].count)
            best = i;
    struct qcow2_run *run = &r->runs[best];
    uint64_t got = MIN(want, run->count);
    *first = run->first;
    run->first += got;
    run->count -= got;
    if (run->count == 0) {
        r->used--;
        memmove(run, run + 1, (r->used - best) * sizeof(*run));
    }
    return got;
}

void qcow2_runs_drop(struct qcow2_runs *r)
{
    mem_free(r->runs);
    *r = (struct qcow2_runs){.limit = r->limit};
}

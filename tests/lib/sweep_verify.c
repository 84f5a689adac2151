/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_verify.c - reading a whole device against the model; three fresh allocations after which
 * nothing else may have changed; the driver's own check. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/sweep_int.h"

#define CHUNK    (1 * MiB)
#define FRESH    3
#define FRESH_OP 0xf0000000U

static int co_read_values(struct sweep_work *w, uint32_t *values, uint64_t *count)
{
    uint64_t size = align_down(MIN(w->dev->size, w->model.max_size), MODEL_SECTOR);
    uint8_t *buf = aligned_alloc(4096, CHUNK);
    int rc = buf ? 0 : -ENOMEM;
    *count = size / MODEL_SECTOR;
    for (uint64_t at = 0; rc == 0 && at < size;) {
        uint64_t bytes = MIN(CHUNK, size - at);
        rc = co_blk_read_buf(w->dev, at, buf, bytes);
        for (uint64_t i = 0; rc == 0 && i < bytes; i += MODEL_SECTOR)
            values[(at + i) / MODEL_SECTOR] = model_value(at + i, buf + i);
        at += bytes;
    }
    free(buf);
    return rc;
}

int co_sweep_read_all(struct sweep_work *w)
{
    int rc = co_read_values(w, w->found, &w->found_count);
    if (rc < 0)
        sweep_broke(&w->verdict, BREAK_REPAIR, "reading the whole device: %s", strerror(-rc));
    return rc;
}

/* --- legal values -------------------------------------------------------------------------------
 */

void sweep_legal_make(struct sweep_legal *l, const struct model *m, uint64_t cut)
{
    l->cut = cut;
    l->sectors = m->max_size / MODEL_SECTOR;
    size_t room = l->sectors * 4, used = 0;
    l->at = malloc((l->sectors + 1) * sizeof(*l->at));
    l->values = malloc((room + MODEL_SET) * sizeof(*l->values));
    if (!l->at || !l->values)
        abort();
    for (uint64_t s = 0; s < l->sectors; s++) {
        if (used > room) {
            room *= 2;
            l->values = realloc(l->values, (room + MODEL_SET) * sizeof(*l->values));
            if (!l->values)
                abort();
        }
        l->at[s] = (uint32_t)used;
        used += model_legal_crash(m, s, cut, l->values + used, MODEL_SET);
    }
    l->at[l->sectors] = (uint32_t)used;
}

void sweep_legal_drop(struct sweep_legal *l)
{
    free(l->at);
    free(l->values);
}

static bool in_set(const struct sweep_legal *l, uint64_t sector, uint32_t value)
{
    for (uint32_t i = l->at[sector]; i < l->at[sector + 1]; i++)
        if (l->values[i] == value || l->values[i] == MODEL_ANY)
            return true;
    return false;
}

static void broken_sector(struct sweep_work *w, const struct sweep_legal *l, uint64_t sector)
{
    uint32_t set[MODEL_SET];
    unsigned n;
    char want[300], got[60];
    if (l) {
        n = l->at[sector + 1] - l->at[sector];
        memcpy(set, l->values + l->at[sector], n * sizeof(*set));
    } else {
        n = model_legal_read(&w->model, sector, UINT64_MAX, set, MODEL_SET);
    }
    model_set_text(set, n, want, sizeof(want));
    model_set_text(&w->found[sector], 1, got, sizeof(got));
    sweep_broke(&w->verdict, BREAK_LOST, "sector %" PRIu64 " shows %s, expected %s", sector, got,
                want);
}

void sweep_compare(struct sweep_work *w, const struct sweep_legal *l)
{
    for (uint64_t s = 0; s < w->found_count && !w->verdict.what; s++) {
        bool ok =
            l ? in_set(l, s, w->found[s]) : model_may_read(&w->model, s, UINT64_MAX, w->found[s]);
        if (!ok)
            broken_sector(w, l, s);
    }
}

/* --- fresh allocations --------------------------------------------------------------------------
 */

/* A place that the image does not hold yet, from @from on; falls back to @from. */
static uint64_t co_unallocated(struct sweep_work *w, uint64_t from, uint64_t bytes)
{
    uint64_t at = from, size = w->dev->size;
    for (unsigned i = 0; i < 64 && at + bytes <= size; i++) {
        struct blk_extent x;
        if (co_blk_map(w->dev, at, size - at, &x) < 0)
            return from;
        if (!(x.flags & BLK_EXT_ALLOCATED))
            return at;
        at = align_up(at + x.bytes, MODEL_SECTOR);
    }
    return from;
}

/* Writes it and puts it into what is expected. */
static int co_fresh_write(struct sweep_work *w, unsigned index, uint64_t at, uint64_t bytes)
{
    uint8_t *buf = w->slots[0].buffer;
    model_fill(FRESH_OP + index, at, buf, bytes);
    TRY(co_blk_write_buf(w->dev, at, buf, bytes, 0));
    for (uint64_t i = 0; i < bytes; i += MODEL_SECTOR)
        w->found[(at + i) / MODEL_SECTOR] = FRESH_OP + index;
    return 0;
}

static int co_fresh_writes(struct sweep_work *w)
{
    uint64_t size = align_down(MIN(w->dev->size, w->model.max_size), MODEL_SECTOR);
    uint64_t bytes = MIN(MIN(size, 4 * KiB), sweep_granule(w->run.subject));
    for (unsigned i = 0; i < FRESH; i++) {
        uint64_t from = align_down((size - bytes) / FRESH * i, MODEL_SECTOR);
        TRY(co_fresh_write(w, i, co_unallocated(w, from, bytes), bytes));
    }
    return co_blk_flush(w->dev);
}

void co_sweep_allocate(struct sweep_work *w)
{
    if (w->verdict.what || w->dev->size < MODEL_SECTOR)
        return;
    int rc = co_fresh_writes(w);
    if (rc < 0) {
        sweep_broke(&w->verdict, BREAK_REPAIR, "three fresh writes and a flush: %s", strerror(-rc));
        return;
    }
    uint64_t count, sectors = w->model.max_size / MODEL_SECTOR;
    uint32_t *again = calloc(sectors, sizeof(*again));
    rc = again ? co_read_values(w, again, &count) : -ENOMEM;
    if (rc < 0)
        sweep_broke(&w->verdict, BREAK_REPAIR, "reading after fresh writes: %s", strerror(-rc));
    for (uint64_t s = 0; rc == 0 && s < count; s++) {
        if (again[s] == w->found[s])
            continue;
        char had[60], has[60];
        model_set_text(&w->found[s], 1, had, sizeof(had));
        model_set_text(&again[s], 1, has, sizeof(has));
        sweep_broke(&w->verdict, BREAK_ALIAS,
                    "sector %" PRIu64 " changed from %s to %s by fresh writes elsewhere", s, had,
                    has);
    }
    free(again);
}

void co_sweep_clean(struct sweep_work *w)
{
    struct blk_error e = {0};
    uint64_t bad = 0;
    if (w->verdict.what)
        return;
    int rc = co_sweep_check(&w->run, w->dev, &bad, &e);
    if (rc < 0 || bad)
        sweep_broke(&w->verdict, BREAK_REPAIR, "own check: %" PRIu64 " corruptions: %s", bad,
                    e.text);
}

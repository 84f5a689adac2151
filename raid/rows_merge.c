/* SPDX-License-Identifier: BSD-3-Clause */
/* rows_merge.c - parts of a row become strips.
 *
 * Neighbours: who comes while another one writes to the row waits, in the order of places; when
 * that one has ended, the first of those who wait writes for all of them. So a stream of small
 * writes with several in flight costs few reads of old data and parity, and a single one waits for
 * nobody.
 *
 * Cutting: the pages where parts begin and end cut the row's columns into intervals, in each of
 * which every data chunk is untouched, touched in the odd bytes of a page, or wholly covered.
 * Intervals side by side with the same answers are one strip again. */
#include "block/worker.h"
#include "raid/rows.h"

#define PARTS_MOST  64 /* of a batch */
#define EDGES_MOST  (4 * PARTS_MOST)
#define STRIPS_MOST 16 /* of a batch at a time */

/* --- covering ----------------------------------------------------------------------------------
 */

uint64_t row_meet(const struct row_batch *b, const struct row_part *part, unsigned i, uint64_t at,
                  uint64_t bytes, uint64_t *in_part, uint64_t *in_strip)
{
    uint64_t start = i * b->a->shape.chunk + at;
    uint64_t from = MAX(start, part->at), to = MIN(start + bytes, part->at + part->bytes);
    if (from >= to)
        return 0;
    *in_part = from - part->at;
    *in_strip = from - start;
    return to - from;
}

enum row_cover row_cover(const struct row_batch *b, unsigned i, uint64_t at, uint64_t bytes)
{
    uint64_t in_part = 0, in_strip = 0, covered = 0;
    bool touched = false;
    for (const struct row_part *p = b->parts; p; p = p->next) {
        uint64_t n = row_meet(b, p, i, at, bytes, &in_part, &in_strip);
        touched |= n > 0;
        if (n > 0 && in_strip <= covered)
            covered = MAX(covered, in_strip + n);
    }
    return covered == bytes ? ROW_WHOLE : touched ? ROW_TOUCHED : ROW_UNTOUCHED;
}

uint8_t *row_direct(const struct row_batch *b, unsigned i, uint64_t at, uint64_t bytes)
{
    const struct row_part *p = b->parts;
    uint64_t in_part = 0, in_strip = 0;
    size_t flat;
    if (p->next || p->zero || row_meet(b, p, i, at, bytes, &in_part, &in_strip) != bytes)
        return NULL;
    struct vec v = vec_slice(&p->vec, in_part, bytes);
    uint8_t *memory = vec_first(&v, &flat);
    return flat == bytes && (uintptr_t)memory % PARITY_ALIGN == 0 ? memory : NULL;
}

/* --- cutting -----------------------------------------------------------------------------------
 */

static void add_edge(uint64_t *edges, unsigned *count, uint64_t at)
{
    unsigned i = *count;
    assert(*count < EDGES_MOST);
    while (i > 0 && edges[i - 1] > at)
        i--;
    if (i > 0 && edges[i - 1] == at)
        return;
    memmove(&edges[i + 1], &edges[i], (*count - i) * sizeof(*edges));
    edges[i] = at;
    ++*count;
}

static unsigned find_edges(const struct row_batch *b, uint64_t *edges)
{
    uint64_t chunk = b->a->shape.chunk;
    unsigned count = 0;
    for (const struct row_part *p = b->parts; p; p = p->next) {
        uint64_t end = p->at + p->bytes;
        add_edge(edges, &count, align_down(p->at % chunk, ROW_PAGE));
        add_edge(edges, &count, align_up((end - 1) % chunk + 1, ROW_PAGE));
        if (p->at / chunk != (end - 1) / chunk) {
            add_edge(edges, &count, 0);
            add_edge(edges, &count, chunk);
        }
    }
    return count;
}

struct strip_job {
    struct row_batch *b;
    uint64_t at, bytes;
};

static bool same_cover(const struct strip_job *j, const struct strip_job *k)
{
    for (unsigned i = 0; i < j->b->a->shape.data_disks; i++)
        if (row_cover(j->b, i, j->at, j->bytes) != row_cover(k->b, i, k->at, k->bytes))
            return false;
    return true;
}

static bool is_touched(const struct strip_job *j)
{
    for (unsigned i = 0; i < j->b->a->shape.data_disks; i++)
        if (row_cover(j->b, i, j->at, j->bytes) != ROW_UNTOUCHED)
            return true;
    return false;
}

static unsigned cut(struct row_batch *b, struct strip_job *jobs)
{
    uint64_t edges[EDGES_MOST];
    unsigned edge_count = find_edges(b, edges), count = 0;
    for (unsigned i = 0; i + 1 < edge_count; i++) {
        struct strip_job j = {b, edges[i], edges[i + 1] - edges[i]};
        struct strip_job *last = count ? &jobs[count - 1] : NULL;
        if (!is_touched(&j))
            continue;
        if (last && last->at + last->bytes == j.at && same_cover(last, &j))
            last->bytes += j.bytes;
        else
            jobs[count++] = j;
    }
    return count;
}

static int co_slices(void *arg)
{
    struct strip_job *j = arg;
    const struct rows *rows = j->b->a->engine_state;
    /* The other logs have one record for a whole row of any length; the journal has all of it. */
    uint64_t slice = j->b->whole && !j->b->a->journal ? ROW_SLICE : rows->slice;
    uint64_t start = j->b->row * j->b->a->shape.chunk + j->at;
    for (uint64_t done = 0, n; done < j->bytes; done += n) {
        n = rows_even(j->b->a, start + done, MIN(slice, j->bytes - done));
        TRY(j->b->co_strip(j->b->a, j->b, j->at + done, n));
    }
    return 0;
}

int co_rows_batch(struct row_batch *b)
{
    struct strip_job jobs[EDGES_MOST];
    unsigned count = cut(b, jobs);
    if (count == 1)
        return co_slices(&jobs[0]);
    struct co_group g;
    co_group_init(&g, STRIPS_MOST);
    for (unsigned i = 0; i < count; i++)
        co_group_start(&g, co_slices, &jobs[i]);
    return co_group_wait(&g);
}

/* --- merging -----------------------------------------------------------------------------------
 */

static struct row_gate **gate_of(struct rows *rows, uint64_t row)
{
    struct row_gate **g = &rows->gates[row % ARRAY_LEN(rows->gates)];
    while (*g && (*g)->row != row)
        g = &(*g)->next;
    return g;
}

static void gate_add(struct rows *rows, struct row_part *leader)
{
    struct row_gate **g = gate_of(rows, leader->row);
    assert(!*g);
    leader->gate = (struct row_gate){.row = leader->row};
    *g = &leader->gate;
}

static void queue_part(struct row_gate *g, struct row_part *part)
{
    struct row_part **at = &g->waiting;
    while (*at && (*at)->at < part->at)
        at = &(*at)->next;
    part->next = *at;
    *at = part;
}

static void wake(struct row_part *p, int rc)
{
    p->rc = rc;
    p->woken = true;
    co_wake(p->co);
}

/* Takes as many of those who wait as go into a batch, the first leads it, and the gate is its. */
static void hand_over(struct rows *rows, struct row_part *leader)
{
    struct row_gate **g = gate_of(rows, leader->row);
    struct row_part *first = leader->gate.waiting, *last = first;
    assert(*g == &leader->gate);
    *g = leader->gate.next;
    if (!first)
        return;
    for (unsigned n = 1; n < PARTS_MOST && last->next; n++)
        last = last->next;
    gate_add(rows, first);
    first->gate.waiting = take(last->next);
    first->leads = true;
    wake(first, 0);
}

static int co_lead(struct raid_array *a, struct row_part *part)
{
    struct rows *rows = a->engine_state;
    struct row_batch b = {.a = a, .row = part->row, .parts = part, .co_strip = co_strip_change};
    for (struct row_part *p = part; p; p = p->next)
        b.flags |= p->flags;
    int rc = co_rows_batch(&b);
    for (struct row_part *p = part->next, *next; p; p = next) {
        next = p->next;
        rows->merged++;
        wake(p, rc);
    }
    hand_over(rows, part);
    return rc;
}

int co_rows_merge(struct raid_array *a, struct row_part *part)
{
    struct rows *rows = a->engine_state;
    struct row_gate *g = *gate_of(rows, part->row);
    part->next = NULL;
    if (!g) {
        gate_add(rows, part);
        return co_lead(a, part);
    }
    part->co = co_self();
    queue_part(g, part);
    while (!part->woken)
        co_suspend();
    return part->leads ? co_lead(a, part) : part->rc;
}

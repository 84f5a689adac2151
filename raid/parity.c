/* SPDX-License-Identifier: BSD-3-Clause */
/* parity.c - parity through ISA-L.
 *
 * Whatever is lost is a sum of what is left:
 *
 *     block = p * P + q * Q + sum of (c + d * g^power) * D(power)
 *
 * so getting a block back is finding these four numbers, and one pass over the others for all that
 * are wanted at once. */
#include "raid/parity.h"

#ifdef HAVE_LIBISAL
#include <isa-l/erasure_code.h>
#include <isa-l/raid.h>
#endif

struct sum {
    uint8_t *to;
    uint8_t p, q, c, d;
};

/* --- sums of blocks, each times a number -------------------------------------------------------
 */

#ifdef HAVE_LIBISAL

#define TABLE       32 /* bytes that ISA-L wants for each factor */
#define TABLES_MOST 32 /* sources that are done in one pass */

struct sources {
    unsigned count;
    uint8_t *from[TABLES_MOST];
    uint8_t factors[2 * TABLES_MOST]; /* of the first sum, then of the second */
    bool begun;                       /* the results hold something already */
};

static void flush_sources(struct sources *s, const struct sum *sums, unsigned count, size_t bytes)
{
    uint8_t tables[2 * TABLES_MOST * TABLE], factors[2 * TABLES_MOST];
    uint8_t *to[2] = {sums[0].to, count > 1 ? sums[1].to : NULL};
    for (unsigned i = 0; i < count; i++)
        memcpy(factors + i * s->count, s->factors + i * TABLES_MOST, s->count);
    ec_init_tables((int)s->count, (int)count, factors, tables);
    if (!s->begun)
        ec_encode_data((int)bytes, (int)s->count, (int)count, tables, s->from, to);
    for (unsigned i = 0; i < s->count && s->begun; i++)
        ec_encode_data_update((int)bytes, (int)s->count, (int)count, (int)i, tables, s->from[i],
                              to);
    s->begun = true;
    s->count = 0;
}

static void add_source(struct sources *s, const struct sum *sums, unsigned count, uint8_t *from,
                       uint8_t first, uint8_t second, size_t bytes)
{
    if (!from || (first == 0 && second == 0))
        return;
    s->from[s->count] = from;
    s->factors[s->count] = first;
    s->factors[TABLES_MOST + s->count] = second;
    if (++s->count == TABLES_MOST)
        flush_sources(s, sums, count, bytes);
}

#else

static void add_to_sums(const struct sum *sums, unsigned count, const uint8_t *from, uint8_t first,
                        uint8_t second, size_t bytes)
{
    if (from && first)
        parity_plain_add(sums[0].to, from, first, bytes);
    if (from && second && count > 1)
        parity_plain_add(sums[1].to, from, second, bytes);
}

#endif

static uint8_t factor(const struct sum *s, uint8_t power)
{
    return s->c ^ parity_times(s->d, power);
}

/* Fills in one or two blocks; those, and only those, are not looked at. */
static void combine(const struct parity_row *r, const struct sum *sums, unsigned count,
                    size_t bytes)
{
    const struct sum none = {0}, *second = count > 1 ? &sums[1] : &none;
#ifdef HAVE_LIBISAL
    struct sources s = {0};
#define ADD(from, a, b) add_source(&s, sums, count, from, a, b, bytes)
#else
    for (unsigned i = 0; i < count; i++)
        memset(sums[i].to, 0, bytes);
#define ADD(from, a, b) add_to_sums(sums, count, from, a, b, bytes)
#endif
    uint8_t power = 1;
    for (unsigned i = 0; i < r->powers; i++, power = parity_times(power, 2))
        if (r->data[i] && r->data[i] != sums[0].to && r->data[i] != second->to)
            ADD(r->data[i], factor(&sums[0], power), factor(second, power));
    ADD(r->p, sums[0].p, second->p);
    ADD(r->q, sums[0].q, second->q);
#undef ADD
#ifdef HAVE_LIBISAL
    if (s.count)
        flush_sources(&s, sums, count, bytes);
    if (!s.begun) /* all sources were NULL */
        for (unsigned i = 0; i < count; i++)
            memset(sums[i].to, 0, bytes);
#endif
}

/* --- plain sums --------------------------------------------------------------------------------
 */

static void sum_some(uint8_t *to, uint8_t **blocks, unsigned count, size_t bytes)
{
    if (count == 1 && to != blocks[0])
        memcpy(to, blocks[0], bytes);
    if (count <= 1)
        return;
#ifdef HAVE_LIBISAL
    void *all[PARITY_POWERS_MOST + 3];
    memcpy(all, blocks, count * sizeof(all[0]));
    all[count] = to;
    xor_gen((int)count + 1, (int)bytes, all);
#else
    for (unsigned i = 0; i < count; i++)
        if (blocks[i] == to && i > 0) { /* its own old value comes first */
            blocks[i] = blocks[0];
            blocks[0] = to;
        }
    if (to != blocks[0])
        memcpy(to, blocks[0], bytes);
    for (unsigned i = 1; i < count; i++)
        parity_plain_add(to, blocks[i], 1, bytes);
#endif
}

void parity_sum(uint8_t *to, uint8_t *const *from, unsigned count, size_t bytes)
{
    uint8_t *blocks[PARITY_POWERS_MOST + 2];
    unsigned there = 0;
    assert(count > 0 && count <= ARRAY_LEN(blocks));
    for (unsigned i = 0; i < count; i++)
        if (from[i])
            blocks[there++] = from[i];
    if (there == 0)
        memset(to, 0, bytes);
    sum_some(to, blocks, there, bytes);
}

void parity_add(uint8_t *to, const uint8_t *from, uint8_t c, size_t bytes)
{
    if (c == 1) {
        uint8_t *both[2] = {to, (uint8_t *)from};
        sum_some(to, both, 2, bytes);
        return;
    }
#ifdef HAVE_LIBISAL
    uint8_t tables[TABLE];
    ec_init_tables(1, 1, &c, tables);
    ec_encode_data_update((int)bytes, 1, 1, 0, tables, (uint8_t *)from, &to);
#else
    parity_plain_add(to, from, c, bytes);
#endif
}

/* --- rows --------------------------------------------------------------------------------------
 */

/* True if pq_gen() can do it: two data blocks and more, with no gap between. */
static bool has_no_gap(const struct parity_row *r, unsigned *top)
{
    *top = r->powers;
    while (*top > 0 && !r->data[*top - 1])
        --*top;
    for (unsigned i = 0; i < *top; i++)
        if (!r->data[i])
            return false;
    return *top >= 2;
}

void parity_make(const struct parity_row *r, size_t bytes)
{
    assert(r->powers <= PARITY_POWERS_MOST && bytes % PARITY_ALIGN == 0);
    if (!r->q) {
        parity_sum(r->p, r->data, r->powers, bytes);
        return;
    }
#ifdef HAVE_LIBISAL
    unsigned top;
    if (has_no_gap(r, &top)) {
        void *all[PARITY_POWERS_MOST + 2];
        memcpy(all, r->data, top * sizeof(all[0]));
        all[top] = r->p;
        all[top + 1] = r->q;
        pq_gen((int)top + 2, (int)bytes, all);
        return;
    }
#endif
    struct sum both[2] = {{.to = r->p, .c = 1}, {.to = r->q, .d = 1}};
    struct parity_row data = {.powers = r->powers, .data = r->data};
    combine(&data, both, 2, bytes);
}

static void recover_one(const struct parity_row *r, unsigned lost, size_t bytes)
{
    if (lost == PARITY_Q) {
        combine(r, &(struct sum){.to = r->q, .d = 1}, 1, bytes);
        return;
    }
    uint8_t *blocks[PARITY_POWERS_MOST + 1], *to = lost == PARITY_P ? r->p : r->data[lost];
    unsigned count = 0;
    for (unsigned i = 0; i < r->powers; i++)
        if (i != lost)
            blocks[count++] = r->data[i];
    if (lost != PARITY_P)
        blocks[count++] = r->p;
    if (count == 0)
        memset(to, 0, bytes);
    else
        parity_sum(to, blocks, count, bytes);
}

/* One of data, @x, and one of the parities. */
static void recover_data_and_parity(const struct parity_row *r, unsigned x, unsigned parity,
                                    size_t bytes)
{
    uint8_t power = parity_power(x), back = parity_inverse(power);
    struct sum through_q[2] = {{.to = r->data[x], .q = back, .d = back},
                               {.to = r->p, .q = back, .d = back, .c = 1}};
    struct sum through_p[2] = {{.to = r->data[x], .p = 1, .c = 1},
                               {.to = r->q, .p = power, .c = power, .d = 1}};
    combine(r, parity == PARITY_P ? through_q : through_p, 2, bytes);
}

static void recover_two_data(const struct parity_row *r, unsigned x, unsigned y, size_t bytes)
{
    uint8_t gx = parity_power(x), gy = parity_power(y), back = parity_inverse(gx ^ gy);
    uint8_t px = parity_times(gy, back), py = parity_times(gx, back);
    struct sum both[2] = {{.to = r->data[x], .p = px, .c = px, .q = back, .d = back},
                          {.to = r->data[y], .p = py, .c = py, .q = back, .d = back}};
    combine(r, both, 2, bytes);
}

void parity_recover(const struct parity_row *r, const unsigned *lost, unsigned count, size_t bytes)
{
    assert(count <= (r->q ? 2u : 1u) && bytes % PARITY_ALIGN == 0);
    if (count == 0)
        return;
    unsigned a = lost[0], b = count > 1 ? lost[1] : a;
    if (a > b) {
        unsigned swap = a;
        a = b;
        b = swap;
    }
    if (a == b)
        recover_one(r, a, bytes);
    else if (a == PARITY_P)
        parity_make(r, bytes);
    else if (b >= PARITY_P)
        recover_data_and_parity(r, a, b, bytes);
    else
        recover_two_data(r, a, b, bytes);
}

/* --- checking ----------------------------------------------------------------------------------
 */

/* Of each wrong byte: which block it is if it is one. The same for all, or none. */
static unsigned blame(const struct parity_row *r, size_t bytes, const uint8_t *p_off,
                      const uint8_t *q_off)
{
    unsigned found = PARITY_UNKNOWN;
    for (size_t i = 0; i < bytes; i++) {
        unsigned here = PARITY_UNKNOWN;
        if (!p_off[i] && !q_off[i])
            continue;
        if (!q_off[i])
            here = PARITY_P;
        else if (!p_off[i])
            here = PARITY_Q;
        else
            for (unsigned n = 0; n < r->powers && here == PARITY_UNKNOWN; n++)
                if (r->data[n] && parity_times(p_off[i], parity_power(n)) == q_off[i])
                    here = n;
        if (here == PARITY_UNKNOWN || (found != PARITY_UNKNOWN && found != here))
            return PARITY_UNKNOWN;
        found = here;
    }
    return found;
}

bool parity_check(const struct parity_row *r, size_t bytes, uint8_t *scratch, unsigned *suspect)
{
    struct parity_row made = *r;
    made.p = scratch;
    made.q = r->q ? scratch + bytes : NULL;
    parity_make(&made, bytes);
    bool right = memcmp(made.p, r->p, bytes) == 0 && (!r->q || memcmp(made.q, r->q, bytes) == 0);
    if (right || !suspect)
        return right;
    *suspect = PARITY_UNKNOWN;
    if (r->q) {
        parity_add(made.p, r->p, 1, bytes);
        parity_add(made.q, r->q, 1, bytes);
        *suspect = blame(r, bytes, made.p, made.q);
    }
    return false;
}

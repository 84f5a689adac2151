/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_parity.c - parity against plain C, all pairs of lost blocks, rows with gaps, suspects. */
#include <check.h>
#include <stdlib.h>

#include "raid/parity.h"

#define BYTES 4096

struct row {
    unsigned powers;
    uint8_t *data[PARITY_POWERS_MOST], *keep[PARITY_POWERS_MOST];
    uint8_t *p, *q, *keep_p, *keep_q;
    struct parity_row r;
};

static uint64_t state;
static uint64_t next(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return state >> 33;
}

static uint8_t *block(bool filled)
{
    uint8_t *b = mem_aligned(BYTES);
    ck_assert_ptr_nonnull(b);
    for (size_t i = 0; i < BYTES; i++)
        b[i] = filled ? (uint8_t)next() : 0;
    return b;
}

/* @gaps: of 8 blocks so many are NULL. */
static void row_init(struct row *t, unsigned powers, unsigned gaps, bool with_q)
{
    *t = (struct row){.powers = powers};
    state = powers * 1000 + gaps;
    for (unsigned i = 0; i < powers; i++) {
        if (next() % 8 < gaps)
            continue;
        t->data[i] = block(true);
        t->keep[i] = block(false);
        memcpy(t->keep[i], t->data[i], BYTES);
    }
    t->p = block(false);
    t->q = with_q ? block(false) : NULL;
    t->keep_p = block(false);
    t->keep_q = block(false);
    t->r = (struct parity_row){powers, t->data, t->keep_p, with_q ? t->keep_q : NULL};
    parity_plain_make(&t->r, BYTES); /* the truth */
    t->r.p = t->p;
    t->r.q = t->q;
    parity_make(&t->r, BYTES);
}

static void row_drop(struct row *t)
{
    for (unsigned i = 0; i < t->powers; i++) {
        mem_free(t->data[i]);
        mem_free(t->keep[i]);
    }
    mem_free(t->p);
    mem_free(t->q);
    mem_free(t->keep_p);
    mem_free(t->keep_q);
}

static void row_is_whole(const struct row *t)
{
    for (unsigned i = 0; i < t->powers; i++)
        if (t->data[i])
            ck_assert_msg(memcmp(t->data[i], t->keep[i], BYTES) == 0, "block %u of %u", i,
                          t->powers);
    ck_assert_int_eq(memcmp(t->p, t->keep_p, BYTES), 0);
    if (t->q)
        ck_assert_int_eq(memcmp(t->q, t->keep_q, BYTES), 0);
}

START_TEST(the_field_is_the_one_of_md)
{
    ck_assert_uint_eq(parity_power(0), 1);
    ck_assert_uint_eq(parity_power(8), 0x1d);
    ck_assert_uint_eq(parity_power(255), 1);
    for (unsigned a = 1; a < 256; a++)
        ck_assert_uint_eq(parity_times((uint8_t)a, parity_inverse((uint8_t)a)), 1);
    /* worked out by hand: data 0x11, 0x22, 0x33 */
    uint8_t bytes[3][PARITY_ALIGN] __attribute__((aligned(64))), p[PARITY_ALIGN], q[PARITY_ALIGN];
    uint8_t *in_order[3] = {bytes[2], bytes[0], bytes[1]};
    uint8_t *with_holes[5] = {bytes[0], bytes[1], NULL, NULL, bytes[2]};
    for (unsigned i = 0; i < 3; i++)
        memset(bytes[i], 0x11 * (int)(i + 1), PARITY_ALIGN);
    struct parity_row r = {3, in_order, p, q};
    parity_plain_make(&r, PARITY_ALIGN);
    ck_assert(p[0] == 0x00 && q[5] == 0x99);
    r = (struct parity_row){5, with_holes, p, q};
    parity_plain_make(&r, PARITY_ALIGN);
    ck_assert_uint_eq(q[63], 0x42);
}
END_TEST

START_TEST(parity_is_that_of_plain_c)
{
    for (unsigned powers = 1; powers <= PARITY_POWERS_MOST; powers += powers < 40 ? 1 : 43)
        for (unsigned gaps = 0; gaps <= 8; gaps += 4)
            for (int with_q = 0; with_q < 2; with_q++) {
                struct row t;
                row_init(&t, powers, gaps, with_q);
                row_is_whole(&t);
                row_drop(&t);
            }
}
END_TEST

static void lose(struct row *t, unsigned which)
{
    uint8_t *b = which == PARITY_P ? t->p : which == PARITY_Q ? t->q : t->data[which];
    memset(b, 0xa5, BYTES);
}

static void lose_and_recover(struct row *t, unsigned a, unsigned b)
{
    unsigned lost[2] = {a, b};
    lose(t, a);
    lose(t, b);
    parity_recover(&t->r, lost, a == b ? 1 : 2, BYTES);
    row_is_whole(t);
}

/* All blocks of a row that are there, as parity_recover() calls them. */
static unsigned names(const struct row *t, unsigned *out)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t->powers; i++)
        if (t->data[i])
            out[n++] = i;
    out[n++] = PARITY_P;
    if (t->q)
        out[n++] = PARITY_Q;
    return n;
}

START_TEST(what_is_lost_comes_back)
{
    static const struct {
        unsigned powers, gaps;
        bool with_q;
    } rows[] = {{1, 0, true},  {2, 0, true},  {3, 0, true},  {7, 0, true},  {7, 3, true},
                {20, 5, true}, {40, 0, true}, {1, 0, false}, {5, 0, false}, {37, 2, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct row t;
        unsigned all[PARITY_POWERS_MOST + 2];
        row_init(&t, rows[i].powers, rows[i].gaps, rows[i].with_q);
        unsigned n = names(&t, all);
        for (unsigned a = 0; a < n; a++)
            for (unsigned b = 0; b < n; b++)
                if (a == b || t.q)
                    lose_and_recover(&t, all[a], all[b]);
        row_drop(&t);
    }
}
END_TEST

START_TEST(changed_blocks_are_added_to_parity)
{
    struct row t;
    row_init(&t, 6, 0, true);
    uint8_t *change = block(true);
    parity_add(t.data[4], change, 1, BYTES);
    parity_add(t.p, change, 1, BYTES);
    parity_add(t.q, change, parity_power(4), BYTES);
    parity_plain_add(t.keep[4], change, 1, BYTES);
    t.r.p = t.keep_p;
    t.r.q = t.keep_q;
    parity_plain_make(&t.r, BYTES);
    row_is_whole(&t);
    mem_free(change);
    row_drop(&t);
}
END_TEST

START_TEST(the_wrong_block_is_named)
{
    uint8_t *scratch = mem_aligned(2 * BYTES);
    struct row t;
    unsigned suspect, all[16];
    row_init(&t, 6, 1, true);
    unsigned n = names(&t, all);
    ck_assert(parity_check(&t.r, BYTES, scratch, &suspect));
    for (unsigned i = 0; i < n; i++) {
        uint8_t *b = all[i] == PARITY_P ? t.p : all[i] == PARITY_Q ? t.q : t.data[all[i]];
        b[17] ^= 0x40;
        b[BYTES - 1] ^= 0x33;
        ck_assert(!parity_check(&t.r, BYTES, scratch, &suspect));
        ck_assert_uint_eq(suspect, all[i]);
        parity_recover(&t.r, &suspect, 1, BYTES);
        row_is_whole(&t);
    }
    t.data[all[0]][1] ^= 1; /* two at once: no one block explains it */
    t.data[all[1]][2] ^= 1;
    ck_assert(!parity_check(&t.r, BYTES, scratch, &suspect));
    ck_assert_uint_eq(suspect, PARITY_UNKNOWN);
    row_drop(&t);
    row_init(&t, 3, 0, false); /* without Q nobody can tell */
    t.data[1][0] ^= 1;
    ck_assert(!parity_check(&t.r, BYTES, scratch, &suspect));
    ck_assert_uint_eq(suspect, PARITY_UNKNOWN);
    row_drop(&t);
    mem_free(scratch);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("raid_parity");
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, the_field_is_the_one_of_md);
    tcase_add_test(tc, parity_is_that_of_plain_c);
    tcase_add_test(tc, what_is_lost_comes_back);
    tcase_add_test(tc, changed_blocks_are_added_to_parity);
    tcase_add_test(tc, the_wrong_block_is_named);
    suite_add_tcase(s, tc);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* send.c - the stream of send and receive: the hash that follows changes, headers and records that
 * are written, read back, and refused where a number is wrong. */
#include <check.h>

#include "tests/lib/on_host.h"
#include "tools/send_format.h"

#define BLOCKS 7
#define SIZE   (BLOCKS * SEND_BLOCK - 1000)

/* --- sumhash --- */

static struct sumhash sum_of(uint8_t *disk, uint64_t size)
{
    struct sumhash s = {0};
    sumhash_add_blocks(&s, 0, disk, size);
    sumhash_add_size(&s, size);
    return s;
}

START_TEST(a_sum_follows_changes)
{
    static uint8_t disk[BLOCKS * SEND_BLOCK];
    uint64_t seed = 3;
    fill_random(&seed, disk, SIZE);
    struct sumhash s = sum_of(disk, SIZE);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t at = next_random(&seed) % BLOCKS * SEND_BLOCK, n = MIN(SEND_BLOCK, SIZE - at);
        struct sumhash was = {0}, now = {0};
        sumhash_add_blocks(&was, at, disk + at, n);
        if (i % 3 == 0)
            memset(disk + at, 0, n);
        else
            disk[at + next_random(&seed) % n] ^= 0x40;
        sumhash_add_blocks(&now, at, disk + at, n);
        sumhash_take(&s, &was);
        sumhash_add(&s, &now);
        struct sumhash whole = sum_of(disk, SIZE);
        ck_assert(sumhash_equal(&s, &whole));
    }
    sumhash_take_size(&s, SIZE);
    sumhash_add_size(&s, sizeof(disk)); /* what is added behind the end is zero */
    struct sumhash grown = sum_of(disk, sizeof(disk));
    ck_assert(sumhash_equal(&s, &grown));
}
END_TEST

START_TEST(a_sum_carries_and_is_text)
{
    struct sumhash one = {{1}}, s = {{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}}, back;
    const struct sumhash most = s, none = {0};
    char text[SUMHASH_TEXT];
    sumhash_add(&s, &one);
    ck_assert(sumhash_equal(&s, &none));
    sumhash_take(&s, &one);
    ck_assert(sumhash_equal(&s, &most));
    sumhash_print(&one, text);
    ck_assert_int_eq(strncmp(text, "0100000000000000000", 19), 0);
    ck_assert(sumhash_parse(text, &back) && sumhash_equal(&back, &one));
    text[63] = 'g';
    ck_assert(!sumhash_parse(text, &back));
    text[63] = 0;
    ck_assert(!sumhash_parse(text, &back));
}
END_TEST

/* --- the format --- */

static const struct send_header increment = {
    .increment = true, .size = SIZE, .base_size = 12345, .base = {{1, 2, 3, 4}}};

START_TEST(headers_come_back_or_are_refused)
{
    struct send_header_disk raw;
    struct send_header h;
    struct blk_error e;
    struct send_header rest = increment;
    rest.start = 3 * SEND_BLOCK;
    rest.passed.part[1] = 7;
    send_header_put(&rest, &raw);
    ck_assert_int_eq(send_header_parse(&raw, &h, &e), 0);
    ck_assert(h.increment && h.size == SIZE && h.base_size == 12345 && h.start == rest.start);
    ck_assert(sumhash_equal(&h.base, &rest.base) && sumhash_equal(&h.passed, &rest.passed));
    for (size_t i = 0; i < sizeof(raw); i++) {
        ((uint8_t *)&raw)[i] ^= 1;
        must(send_header_parse(&raw, &h, &e) < 0);
        ((uint8_t *)&raw)[i] ^= 1;
    }
    const struct send_header wrong[] = {
        {.size = (uint64_t)INT64_MAX + 1}, {.size = SIZE, .base_size = 1},
        {.size = SIZE, .base = {{1}}},     {.size = SIZE, .passed = {{1}}},
        {.size = SIZE, .start = 512},      {.size = SIZE, .start = BLOCKS * SEND_BLOCK},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        send_header_put(&wrong[i], &raw);
        ck_assert_int_eq(send_header_parse(&raw, &h, &e), -EINVAL);
    }
}
END_TEST

static int parse(const struct send_header *h, struct send_record r, struct send_place *p)
{
    static uint8_t payload[2 * SEND_DATA_MOST];
    struct send_record_disk raw;
    struct send_record out;
    struct blk_error e;
    send_record_put(&r, payload, &raw);
    struct send_place before = *p;
    int rc = send_record_parse(p, &raw, &out, &e);
    if (rc < 0)
        *p = before;
    else
        must(send_record_intact(&out, &raw, payload) && out.offset == r.offset);
    return rc;
}

START_TEST(records_have_their_shapes)
{
    const uint64_t B = SEND_BLOCK, last = SIZE - 6 * B;
    const struct {
        struct send_record r;
        bool good, full; /* also in a full stream */
    } cases[] = {
        {{SEND_DATA, B, 0, 0, 0, B}, true, true},
        {{SEND_DATA, 2 * B, 0, 0, 0, 2 * B}, true, true},
        {{SEND_DATA, last, 0, 0, 6 * B, last}, true, true},
        {{SEND_DATA, last, 0, 0, 5 * B, last}, false, false}, /* ends in a block */
        {{SEND_DATA, B, 0, 0, 6 * B, B}, false, false},       /* behind the end */
        {{SEND_DATA, B, 0, 0, 512, B}, false, false},         /* begins in a block */
        {{SEND_DATA, B, 0, 0, 0, 2 * B}, false, false},       /* payload too short */
        {{SEND_DATA, 0, 0, 0, 0, 0}, false, false},           /* nothing */
        {{SEND_DATA, B, 1, 0, 0, B}, false, false},           /* another number */
        {{SEND_DATA, B, 0, 0, ~B + 1, B}, false, false},      /* wraps */
        {{SEND_PACKED, 9, 0, 0, B, 2 * B}, true, true},
        {{SEND_PACKED, B, 0, 0, B, B}, false, false}, /* not shorter */
        {{SEND_PACKED, 0, 0, 0, B, B}, false, false},
        {{SEND_ZERO, 0, 0, 0, B, SIZE - B}, true, false},
        {{SEND_ZERO, 1, 0, 0, B, B}, false, false},
        {{SEND_POINT, 32, 0, 0, B, 0}, true, true},
        {{SEND_POINT, 32, 0, 0, B, B}, false, false},
        {{SEND_POINT, 64, 0, 0, B, 0}, false, false},
        {{SEND_END, 64, 0, 0, SIZE, 0}, true, true},
        {{SEND_END, 64, 0, 0, B, 0}, false, false}, /* before the end */
        {{SEND_END, 32, 0, 0, SIZE, 0}, false, false},
        {{(enum send_kind)6, 0, 0, 0, B, B}, false, false},
        {{(enum send_kind)0, 0, 0, 0, B, B}, false, false},
    };
    const struct send_header full = {.size = SIZE};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct send_place a = {.header = &increment}, b = {.header = &full};
        ck_assert_msg((parse(&increment, cases[i].r, &a) == 0) == cases[i].good, "case %zu", i);
        ck_assert_msg((parse(&full, cases[i].r, &b) == 0) == cases[i].full, "case %zu, full", i);
    }
    const struct send_header large = {.size = GiB};
    struct send_place p = {.header = &large};
    const struct send_record most = {.kind = SEND_DATA, .payload_bytes = MiB + B, .bytes = MiB + B};
    ck_assert_int_lt(parse(&large, most, &p), 0);
}
END_TEST

START_TEST(records_lie_in_order)
{
    struct send_place p = {.header = &increment};
    const uint64_t B = SEND_BLOCK;
    ck_assert_int_eq(parse(&increment, (struct send_record){SEND_ZERO, 0, 0, 0, B, 2 * B}, &p), 0);
    ck_assert_int_lt(parse(&increment, (struct send_record){SEND_ZERO, 0, 1, 0, 2 * B, B}, &p), 0);
    ck_assert_int_lt(parse(&increment, (struct send_record){SEND_POINT, 32, 1, 0, B, 0}, &p), 0);
    ck_assert_int_lt(parse(&increment, (struct send_record){SEND_ZERO, 0, 2, 0, 3 * B, B}, &p), 0);
    ck_assert_int_eq(parse(&increment, (struct send_record){SEND_ZERO, 0, 1, 0, 4 * B, B}, &p), 0);
    ck_assert(!p.ended);
    ck_assert_int_eq(parse(&increment, (struct send_record){SEND_END, 64, 2, 0, SIZE, 0}, &p), 0);
    ck_assert(p.ended);
}
END_TEST

START_TEST(any_changed_byte_is_seen)
{
    uint8_t payload[32];
    struct send_record_disk raw;
    struct send_record r = {.kind = SEND_POINT, .payload_bytes = 32, .offset = SEND_BLOCK}, out;
    struct blk_error e;
    uint64_t seed = 9;
    fill_random(&seed, payload, sizeof(payload));
    send_record_put(&r, payload, &raw);
    for (size_t i = 0; i < sizeof(raw) + sizeof(payload); i++) {
        uint8_t *at = i < sizeof(raw) ? (uint8_t *)&raw + i : payload + (i - sizeof(raw));
        struct send_place p = {.header = &increment};
        *at ^= 0x10;
        must(send_record_parse(&p, &raw, &out, &e) < 0 || !send_record_intact(&out, &raw, payload));
        *at ^= 0x10;
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("send");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_sum_follows_changes);
    tcase_add_test(t, a_sum_carries_and_is_text);
    tcase_add_test(t, headers_come_back_or_are_refused);
    tcase_add_test(t, records_have_their_shapes);
    tcase_add_test(t, records_lie_in_order);
    tcase_add_test(t, any_changed_byte_is_seen);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}

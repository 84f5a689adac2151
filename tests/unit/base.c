/* SPDX-License-Identifier: BSD-3-Clause */
/* base.c - checked arithmetic, memory that fails on demand, zero detection, error sentences, and
 * scatter lists. */
#include <check.h>
#include <stdlib.h>

#include "block/block.h"
#include "block/err.h"
#include "block/host.h"
#include "block/vec.h"

/* --- numbers ---------------------------------------------------------------------------------- */

START_TEST(arithmetic_says_no)
{
    uint64_t out;

    ck_assert(add_u64(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX);
    ck_assert(!add_u64(UINT64_MAX, 1, &out));
    ck_assert(mul_u64(1ULL << 32, (1ULL << 32) - 1, &out));
    ck_assert(!mul_u64(1ULL << 32, 1ULL << 32, &out));
    ck_assert(range_fits(10, 0, 10) && range_fits(0, 10, 10) && range_fits(9, 1, 10));
    ck_assert(!range_fits(11, 0, 10) && !range_fits(9, 2, 10));
    ck_assert(!range_fits(UINT64_MAX, 2, UINT64_MAX) && !range_fits(2, UINT64_MAX, UINT64_MAX));
    ck_assert_uint_eq(div_up(0, 7), 0);
    ck_assert_uint_eq(div_up(UINT64_MAX, 2), 1ULL << 63);
    ck_assert_uint_eq(align_up(4097, 4096), 8192);
    ck_assert_uint_eq(align_down(4097, 4096), 4096);
    ck_assert(is_pow2(1) && is_pow2(1ULL << 63) && !is_pow2(0) && !is_pow2(6));
    ck_assert_uint_eq(log2_floor(1), 0);
    ck_assert_uint_eq(log2_floor(UINT64_MAX), 63);
}
END_TEST

/* --- zeroes ----------------------------------------------------------------------------------- */

START_TEST(one_bit_anywhere_is_seen)
{
    static const size_t sizes[] = {1,  7,   8,   15,  16,   17,   63,  64,
                                   65, 255, 256, 257, 1000, 4096, 4111};
    static uint8_t buf[4096 + 64];

    for (size_t skew = 0; skew < 17; skew += 3) {
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            uint8_t *at = buf + skew;
            at[sizes[i]] = 1; /* just outside */
            ck_assert(mem_is_zero(at, sizes[i]));
            at[sizes[i]] = 0;
            for (size_t k = 0; k < sizes[i]; k++) {
                at[k] = (uint8_t)(1 << k % 8);
                ck_assert(!mem_is_zero(at, sizes[i]));
                at[k] = 0;
            }
        }
    }
    ck_assert(mem_is_zero(NULL, 0));
}
END_TEST

/* --- errors ----------------------------------------------------------------------------------- */

START_TEST(errors_are_sentences)
{
    struct blk_error e = {0};
    static char lots[1000];

    ck_assert_int_eq(err_set(&e, -EINVAL, "table at %d ends past the file", 7), -EINVAL);
    ck_assert_str_eq(e.text, "table at 7 ends past the file");
    ck_assert_int_eq(err_prefix(&e, "%s", "disk.vdi"), -EINVAL);
    ck_assert_str_eq(e.text, "disk.vdi: table at 7 ends past the file");
    ck_assert_int_eq(err_set(&e, -EIO, "%s", e.text), -EIO);
    ck_assert_str_eq(e.text, "disk.vdi: table at 7 ends past the file");
    ck_assert_int_eq(err_errno(&e, -ENOENT, "a.img"), -ENOENT);
    ck_assert_str_eq(e.text, "a.img: No such file or directory");
    ck_assert_int_eq(e.rc, -ENOENT);
    ck_assert_int_eq(err_set(NULL, -EIO, "x"), -EIO);
    ck_assert_int_eq(err_errno(NULL, -EIO, "x"), -EIO);
    ck_assert_int_eq(err_prefix(NULL, "x"), 0);
    memset(lots, 'x', sizeof(lots) - 1);
    err_set(&e, -EIO, "%s", lots);
    ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
    err_prefix(&e, "%s", lots);
    ck_assert_uint_eq(strlen(e.text), sizeof(e.text) - 1);
    err_errno(&e, -EIO, "%s", lots);
    ck_assert_ptr_nonnull(strstr(e.text, ": Input/output error"));
}
END_TEST

START_TEST(what_is_next_is_said_once)
{
    struct blk_error e = {0};
    char name[200];

    err_set(&e, -EIO, "it cannot be read");
    blk_next(&e, "`check FILE`; `copy FILE NEW`", "a.img");
    ck_assert_str_eq(e.next, "`check a.img`; `copy a.img NEW`");
    err_prefix(&e, "a.img");
    blk_next(&e, "something else", "a.img");
    ck_assert_str_eq(e.next, "`check a.img`; `copy a.img NEW`");
    err_set(&e, -EIO, "another sentence");
    ck_assert_str_eq(e.next, "");
    blk_next(&e, "`check FILE`", "it's $HOME.img");
    ck_assert_str_eq(e.next, "`check 'it'\\''s $HOME.img'`");
    for (size_t bytes = 0; bytes < sizeof(name); bytes++) { /* any length fits, or is FILE */
        memset(name, '\'', bytes);
        name[bytes] = 0;
        err_set(&e, -EIO, "it cannot be read");
        blk_next(&e, "FILE FILE FILE", name);
        ck_assert_uint_gt(strlen(e.next), 0);
        ck_assert(bytes > 0 && bytes <= 120 ? e.next[0] == '\''
                                            : strcmp(e.next, "FILE FILE FILE") == 0);
    }
    blk_next(NULL, "FILE", "a.img");
}
END_TEST

/* --- memory ----------------------------------------------------------------------------------- */

static int faults(void *arg)
{
    struct alloc_fault *fault = &worker_self()->alloc_fault;

    *fault = (struct alloc_fault){.countdown = 3};
    for (int i = 1; i <= 5; i++) {
        auto_free void *p = mem_alloc(10);
        ck_assert_int_eq(p == NULL, i == 3);
    }
    ck_assert_uint_eq(fault->seen, 3);
    *fault = (struct alloc_fault){.countdown = 2, .sticky = true};
    for (int i = 1; i <= 5; i++) {
        auto_free void *p = mem_aligned(10);
        ck_assert_int_eq(p == NULL, i >= 2);
    }
    ck_assert_uint_eq(fault->seen, 5);
    *fault = (struct alloc_fault){.countdown = 1, .sticky = true};
    ck_assert_ptr_null(mem_zalloc(1));
    ck_assert_ptr_null(mem_array(1, 1));
    ck_assert_ptr_null(mem_resize(NULL, 1));
    ck_assert_ptr_null(mem_strdup("x"));
    ck_assert_ptr_null(mem_printf("x"));
    *fault = (struct alloc_fault){.countdown = UINT64_MAX};
    auto_free char *text = mem_printf("%d-%s", 5, "five");
    ck_assert_str_eq(text, "5-five");
    ck_assert_uint_eq(fault->seen, 1);
    *fault = (struct alloc_fault){0};
    return 0;
}

START_TEST(the_nth_allocation_fails)
{
    struct runtime_options o = {0};
    struct runtime *rt;

    ck_assert_int_eq(host_open("threads", &o.host), 0);
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    ck_assert_int_eq(runtime_run(rt, faults, NULL), 0);
    runtime_close(rt);
    host_close(o.host);
}
END_TEST

START_TEST(allocations_are_checked)
{
    auto_free void *aligned = mem_aligned(4097);
    auto_free uint8_t *zeroed = mem_array(100, 3);

    ck_assert_uint_eq((uintptr_t)aligned % 4096, 0);
    ck_assert(mem_is_zero(zeroed, 300));
    ck_assert_ptr_null(mem_array(SIZE_MAX / 2, 3));
    ck_assert_ptr_null(mem_aligned(SIZE_MAX - 5));
    void *given = take(aligned);
    ck_assert_ptr_null(aligned);
    mem_free(given);
}
END_TEST

/* --- scatter lists ---------------------------------------------------------------------------- */

#define FLAT 1000

/* Random pieces over @flat, some empty, the last reaching past the end of the view. */
static struct vec random_vec(struct iovec iov[64], uint8_t *flat, size_t skip, size_t bytes)
{
    size_t at = 0;
    unsigned n = 0;

    while (at < skip + bytes && n < 63) {
        size_t len = (size_t)rand() % 50;
        if (at == 0 && len <= skip)
            len = skip + 1; /* the skip lies in the first piece */
        len = MIN(len, FLAT - at);
        iov[n++] = (struct iovec){flat + at, len};
        at += len;
    }
    iov[n] = (struct iovec){flat + at, FLAT - at};
    return (struct vec){.iov = iov, .skip = skip, .bytes = bytes};
}

START_TEST(a_view_is_the_bytes_it_shows)
{
    uint8_t flat[FLAT], copy[FLAT], back[FLAT];
    struct iovec iov[64], out[64];

    srand(1);
    for (int round = 0; round < 3000; round++) {
        for (size_t i = 0; i < FLAT; i++)
            copy[i] = flat[i] = (uint8_t)rand();
        size_t skip = (size_t)rand() % 30, bytes = (size_t)rand() % (FLAT - skip - 20);
        struct vec v = random_vec(iov, flat, skip, bytes);
        size_t at = (size_t)rand() % (bytes + 1), len = (size_t)rand() % (bytes - at + 1);
        struct vec part = vec_slice(&v, at, len);
        vec_to_buf(&part, back);
        ck_assert_uint_eq(part.bytes, len);
        ck_assert_mem_eq(back, copy + skip + at, len);

        unsigned max = 1 + (unsigned)rand() % 64, count;
        uint64_t covered = vec_export(&part, out, max, &count), sum = 0;
        ck_assert_uint_le(count, max);
        for (unsigned i = 0; i < count; i++) {
            ck_assert_uint_gt(out[i].iov_len, 0);
            ck_assert_mem_eq(out[i].iov_base, copy + skip + at + sum, out[i].iov_len);
            sum += out[i].iov_len;
        }
        ck_assert_uint_eq(sum, covered);
        if (max == 64)
            ck_assert_uint_eq(covered, len);

        vec_fill(&part, 0);
        ck_assert(vec_is_zero(&part));
        memset(copy + skip + at, 0, len);
        ck_assert_mem_eq(flat, copy, FLAT); /* nothing else was touched */
        memset(back, 9, len);
        vec_from_buf(&part, back);
        ck_assert_int_eq(vec_is_zero(&part), len == 0);
        memset(copy + skip + at, 9, len);
        ck_assert_mem_eq(flat, copy, FLAT);
    }
}
END_TEST

START_TEST(alignment_counts_every_piece)
{
    _Alignas(512) static uint8_t buf[4096];
    struct iovec iov[] = {{buf, 1024}, {buf + 2048, 0}, {buf + 2048, 512}, {buf + 3001, 9}};
    struct vec v = {.iov = iov, .skip = 512, .bytes = 1024};
    size_t len;

    ck_assert(vec_aligned(&v, 512));
    ck_assert(!vec_aligned(&v, 1024));
    ck_assert_ptr_eq(vec_first(&v, &len), buf + 512);
    ck_assert_uint_eq(len, 512);
    v.bytes = 1025;
    ck_assert(!vec_aligned(&v, 512));
    ck_assert(vec_aligned(&(struct vec){0}, 4096));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("base");
    TCase *tc = tcase_create("base");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, arithmetic_says_no);
    tcase_add_test(tc, one_bit_anywhere_is_seen);
    tcase_add_test(tc, errors_are_sentences);
    tcase_add_test(tc, what_is_next_is_said_once);
    tcase_add_test(tc, the_nth_allocation_fails);
    tcase_add_test(tc, allocations_are_checked);
    tcase_add_test(tc, a_view_is_the_bytes_it_shows);
    tcase_add_test(tc, alignment_counts_every_piece);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* codec.c - compressed clusters: what a reader with a window of exactly 4 KiB inflates, contexts
 * that are used again, and on several threads. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "imgfmt/codec.h"

#define MOST (2 * MiB)

static uint8_t *data, *packed, *back;

/* Inflates a byte per call: then zlib has nothing but its window to copy from, and refuses every
 * distance beyond it. True if @bytes of @data come out and the stream ends there. */
static bool strict_reader_takes(const uint8_t *from, size_t from_bytes, size_t bytes)
{
    z_stream z = {.next_in = (Bytef *)from, .avail_in = (uInt)from_bytes};
    size_t done = 0;
    int rc = inflateInit2(&z, -12);
    while (rc == Z_OK && done <= bytes) {
        z.next_out = back + done;
        z.avail_out = 1;
        rc = inflate(&z, Z_NO_FLUSH);
        done += z.avail_out == 0;
    }
    inflateEnd(&z);
    return rc == Z_STREAM_END && done == bytes && memcmp(back, data, bytes) == 0;
}

static void both_ways(struct codec *c, size_t bytes)
{
    size_t n = bytes - 1;
    int rc = codec_pack(c, data, bytes, packed, &n);
    if (rc < 0) {
        ck_assert_int_eq(rc, -ENOSPC);
        return;
    }
    ck_assert_uint_lt(n, bytes);
    if (c->kind == CODEC_DEFLATE_4K)
        ck_assert(strict_reader_takes(packed, n, bytes));
    memset(packed + n, 0xa5, 511);
    memset(back, 1, bytes);
    ck_assert_int_eq(codec_unpack(c, packed, n + 511, back, bytes), 0);
    ck_assert_int_eq(memcmp(back, data, bytes), 0);
    ck_assert_int_eq(codec_unpack(c, packed, n / 2, back, bytes), -EIO);
}

static void noise(size_t at, size_t bytes)
{
    for (size_t i = at; i < at + bytes; i++)
        data[i] = (uint8_t)(rand() >> 8);
}

/* Noise that repeats at a distance just inside or outside of the window, and other hard cases. */
static const struct adversary {
    size_t distance, bytes;
    unsigned flips; /* one byte in so many differs; 0: none */
} adversaries[] = {
    {4096, 64 * KiB, 0},  {4097, 64 * KiB, 0},  {4095, 64 * KiB, 50}, {4096, 64 * KiB, 300},
    {4098, 64 * KiB, 40}, {4100, 2 * MiB, 0},   {8192, 64 * KiB, 0},  {32768, 64 * KiB, 0},
    {32767, 2 * MiB, 90}, {1, 64 * KiB, 0},     {3, 64 * KiB, 0},     {258, 64 * KiB, 100},
    {259, 64 * KiB, 0},   {4096, 4 * KiB, 0},   {300, 512, 0},        {1, 512, 0},
    {5000, 16 * KiB, 0},  {65536, 64 * KiB, 0}, {4000, 2 * MiB, 2},   {4096, 2 * MiB, 0},
};

static void make_adversary(const struct adversary *a)
{
    noise(0, MIN(a->distance, a->bytes));
    for (size_t i = a->distance; i < a->bytes; i++)
        data[i] =
            a->flips && (unsigned)rand() % a->flips == 0 ? (uint8_t)rand() : data[i - a->distance];
}

static const struct {
    enum codec_kind kind;
    unsigned level;
} codecs[] = {
    {CODEC_DEFLATE_4K, 0}, {CODEC_DEFLATE_4K, 1}, {CODEC_DEFLATE_4K, 6},
    {CODEC_DEFLATE_4K, 9}, {CODEC_DEFLATE, 0},    {CODEC_DEFLATE, 6},
#ifdef HAVE_LIBZSTD
    {CODEC_ZSTD, 0},       {CODEC_ZSTD, 3},       {CODEC_ZSTD, 9},
#endif
};

START_TEST(hard_cases_stay_in_the_window)
{
    struct codec c;
    codec_init(&c, codecs[_i].kind, codecs[_i].level);
    for (size_t i = 0; i < ARRAY_LEN(adversaries); i++) {
        make_adversary(&adversaries[i]);
        both_ways(&c, adversaries[i].bytes);
    }
    for (size_t bytes = 512; bytes <= MOST; bytes *= 2) {
        memset(data, 0, bytes);
        both_ways(&c, bytes);
        noise(bytes / 2, bytes / 2);
        both_ways(&c, bytes);
    }
    codec_drop(&c);
}
END_TEST

/* This very program: code, tables, text, debugging data. */
START_TEST(real_bytes_stay_in_the_window)
{
    struct codec c;
    size_t n, clusters = 0;
    FILE *f = fopen("/proc/self/exe", "rb");
    ck_assert_ptr_nonnull(f);
    codec_init(&c, codecs[_i].kind, codecs[_i].level);
    while ((n = fread(data, 1, 64 * KiB, f)) == 64 * KiB && clusters++ < 40)
        both_ways(&c, n);
    ck_assert_uint_gt(clusters, 2);
    fclose(f);
    codec_drop(&c);
}
END_TEST

/* The reader above would notice: what zlib finds in a window of 32 KiB, it refuses. */
START_TEST(the_strict_reader_is_strict)
{
    z_stream z = {.next_in = data, .avail_in = 16 * KiB, .next_out = packed, .avail_out = MOST};
    make_adversary(&(struct adversary){4097, 16 * KiB, 0});
    ck_assert_int_eq(deflateInit2(&z, 6, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    ck_assert(!strict_reader_takes(packed, z.total_out, 16 * KiB));
    deflateEnd(&z);
}
END_TEST

START_TEST(noise_is_left_as_it_is)
{
    struct codec c;
    size_t n = 64 * KiB - 1;
    codec_init(&c, codecs[_i].kind, codecs[_i].level);
    noise(0, 64 * KiB);
    ck_assert_int_eq(codec_pack(&c, data, 64 * KiB, packed, &n), -ENOSPC);
    memset(data, 7, 64 * KiB); /* the context that gave up goes on */
    both_ways(&c, 64 * KiB);
    codec_drop(&c);
}
END_TEST

/* Smaller at a higher level, and a level is one context's for good. */
START_TEST(levels_differ)
{
    size_t sizes[10];
    for (size_t i = 0; i < 64 * KiB; i++)
        data[i] = (uint8_t)("storage of every kind, on any layer"[i * i % 31] + i / 4096);
    for (unsigned level = 0; level <= CODEC_LEVEL_MAX; level++) {
        struct codec c;
        codec_init(&c, CODEC_DEFLATE_4K, level);
        sizes[level] = 64 * KiB;
        ck_assert_int_eq(codec_pack(&c, data, 64 * KiB, packed, &sizes[level]), 0);
        codec_drop(&c);
    }
    ck_assert_uint_le(sizes[9], sizes[1]);
}
END_TEST

static void *packs_and_unpacks(void *arg)
{
    struct codec *c = arg;
    uint8_t *a = malloc(16 * KiB), *b = malloc(16 * KiB), *p = malloc(16 * KiB);
    for (unsigned i = 0; i < 50; i++) {
        size_t n = 16 * KiB;
        for (size_t k = 0; k < 16 * KiB; k++)
            a[k] = (uint8_t)(k * i / 97);
        if (codec_pack(c, a, 16 * KiB, p, &n) < 0 || codec_unpack(c, p, n, b, 16 * KiB) < 0 ||
            memcmp(a, b, 16 * KiB) != 0)
            abort();
    }
    free(a);
    free(b);
    free(p);
    return NULL;
}

START_TEST(threads_share_a_codec)
{
    struct codec c;
    pthread_t threads[4];
    codec_init(&c, codecs[_i].kind, codecs[_i].level);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, packs_and_unpacks, &c), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        pthread_join(threads[i], NULL);
    codec_drop(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("codec");
    TCase *tc = tcase_create("codec");
    data = malloc(MOST);
    packed = malloc(2 * MOST);
    back = malloc(MOST + 1);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, hard_cases_stay_in_the_window, 0, ARRAY_LEN(codecs));
    tcase_add_loop_test(tc, real_bytes_stay_in_the_window, 0, ARRAY_LEN(codecs));
    tcase_add_test(tc, the_strict_reader_is_strict);
    tcase_add_loop_test(tc, noise_is_left_as_it_is, 0, ARRAY_LEN(codecs));
    tcase_add_test(tc, levels_differ);
    tcase_add_loop_test(tc, threads_share_a_codec, 0, ARRAY_LEN(codecs));
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    free(data);
    free(packed);
    free(back);
    return failed != 0;
}

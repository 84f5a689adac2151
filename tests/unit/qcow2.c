/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.c - the pure parts of the qcow2 driver: header, entries, counts, runs, compressed bytes. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "imgfmt/qcow2_bitmap.h"
#include "imgfmt/qcow2_refs.h"

/* A valid header of version 3, 64 KiB clusters, 1 GiB. */
static struct qcow2_header plain_header(void)
{
    return (struct qcow2_header){
        .version = 3,
        .cluster_bits = 16,
        .size = 1 * GiB,
        .l1_entries = 2,
        .l1_offset = 3 * 64 * KiB,
        .refcount_table_offset = 64 * KiB,
        .refcount_table_clusters = 1,
        .refcount_order = 4,
    };
}

static uint8_t cluster[64 * KiB];

static int parse_as(struct qcow2_header *out, uint64_t file_bytes, struct blk_error *e)
{
    qcow2_header_put(out, false, cluster);
    struct qcow2_raw_header in = {
        .raw = cluster, .bytes = sizeof(cluster), .file_bytes = file_bytes};
    struct qcow2_header parsed;
    int rc = qcow2_header_parse(&in, &parsed, e);
    *out = parsed;
    return rc;
}

/* Builds from @h and parses again. */
static int round_trip(const struct qcow2_header *h, struct blk_error *e)
{
    struct qcow2_header built = *h;
    ck_assert_int_eq(qcow2_header_build(&built, &(struct qcow2_names){0}, cluster), 0);
    return parse_as(&built, 4 * 64 * KiB, e);
}

START_TEST(a_built_header_parses_to_itself)
{
    struct qcow2_header h = plain_header(), back;
    struct blk_error e = {0};
    h.compatible = QCOW2_LAZY_REFCOUNTS;
    h.incompatible = QCOW2_COMPRESSION;
    h.compression_type = QCOW2_ZSTD;
    ck_assert_int_eq(
        qcow2_header_build(&h, &(struct qcow2_names){"dir/base.raw", "raw", NULL}, cluster), 0);
    back = h;
    ck_assert_msg(parse_as(&back, 4 * 64 * KiB, &e) == 0, "%s", e.text);
    ck_assert_uint_eq(back.size, h.size);
    ck_assert_uint_eq(back.l1_offset, h.l1_offset);
    ck_assert_uint_eq(back.compression_type, QCOW2_ZSTD);
    ck_assert_uint_eq(back.header_bytes, 112);
    ck_assert_uint_eq(back.feature_names.bytes, 8 * 48);
    ck_assert_uint_eq(back.backing_name.bytes, 12);
    ck_assert_int_eq(memcmp(cluster + back.backing_name.offset, "dir/base.raw", 12), 0);
    ck_assert_int_eq(memcmp(cluster + back.backing_format.offset, "raw", 3), 0);
}
END_TEST

START_TEST(a_name_that_does_not_fit_is_refused)
{
    struct qcow2_header h = plain_header();
    char name[1200];
    memset(name, 'x', sizeof(name));
    name[1024] = 0;
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){name, "raw", NULL}, cluster),
                     -ENOSPC);
    name[1023] = 0;
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){name, "raw", NULL}, cluster), 0);
    h.cluster_bits = 9;
    name[370] = 0; /* 112 + 16 + 8 + 370 <= 512 */
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){name, "raw", NULL}, cluster), 0);
    ck_assert_uint_eq(h.backing_name.offset, 136);
    name[370] = 'x';
    name[377] = 0;
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){name, "raw", NULL}, cluster),
                     -ENOSPC);
}
END_TEST

/* One field each, at values no image may hold (the corpus of CVE-2014-0142 to 0147). */
START_TEST(bad_fields_are_refused)
{
    struct {
        size_t at, width;
        uint64_t value;
    } bad[] = {
        {0, 4, 0x514649fa},
        {4, 4, 1},
        {4, 4, 4},
        {4, 4, UINT32_MAX},
        {8, 8, 64 * KiB - 4}, /* with the length below */
        {8, 8, UINT64_MAX},
        {8, 8, 8},
        {20, 4, 8},
        {20, 4, 22},
        {20, 4, 0},
        {20, 4, UINT32_MAX},
        {24, 8, UINT64_MAX},
        {24, 8, 2ULL << 30},
        {36, 4, 0x7fffffff},
        {36, 4, 4 * MiB + 1},
        {36, 4, 1},
        {40, 8, 3 * 64 * KiB + 512},
        {40, 8, UINT64_MAX & ~0xffffULL},
        {40, 8, 4 * 64 * KiB},
        {40, 8, 0},
        {48, 8, 1},
        {48, 8, 0},
        {48, 8, 1ULL << 56},
        {56, 4, 0},
        {56, 4, 129},
        {56, 4, UINT32_MAX},
        {60, 4, 65537},
        {60, 4, UINT32_MAX},
        {96, 4, 7},
        {96, 4, UINT32_MAX},
        {100, 4, 0},
        {100, 4, 103},
        {100, 4, 109},
        {100, 4, 64 * KiB + 8},
        {100, 4, UINT32_MAX},
        {104, 1, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct qcow2_header h = plain_header(), out;
        struct blk_error e = {0};
        ck_assert_int_eq(
            qcow2_header_build(&h, &(struct qcow2_names){"base", "raw", NULL}, cluster), 0);
        qcow2_header_put(&h, false, cluster);
        for (size_t b = 0; b < bad[i].width; b++)
            cluster[bad[i].at + b] = (uint8_t)(bad[i].value >> (8 * (bad[i].width - 1 - b)));
        if (bad[i].at == 8)
            memcpy(cluster + 16, "\0\0\0\x08", 4);
        struct qcow2_raw_header in = {
            .raw = cluster, .bytes = sizeof(cluster), .file_bytes = 4 * 64 * KiB};
        ck_assert_msg(qcow2_header_parse(&in, &out, &e) < 0, "field at %zu, value %" PRIx64,
                      bad[i].at, bad[i].value);
        ck_assert_msg(e.text[0], "field at %zu has no sentence", bad[i].at);
    }
}
END_TEST

START_TEST(any_length_of_header_is_answered)
{
    struct qcow2_header h = plain_header(), out;
    struct blk_error e;
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){"base", "raw", NULL}, cluster),
                     0);
    qcow2_header_put(&h, false, cluster);
    for (size_t n = 0; n < 600; n++) {
        uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read too far */
        memcpy(exact, cluster, n);
        struct qcow2_raw_header in = {.raw = exact, .bytes = n, .file_bytes = n};
        ck_assert_int_lt(qcow2_header_parse(&in, &out, &e), 0);
        free(exact);
    }
}
END_TEST

START_TEST(an_extension_past_the_header_is_refused)
{
    struct qcow2_header h = plain_header(), out;
    struct blk_error e;
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){"base", "raw", NULL}, cluster),
                     0);
    qcow2_header_put(&h, false, cluster);
    memcpy(cluster + 116, "\xff\xff\xff\xff", 4);
    struct qcow2_raw_header in = {
        .raw = cluster, .bytes = sizeof(cluster), .file_bytes = 4 * 64 * KiB};
    ck_assert_int_eq(qcow2_header_parse(&in, &out, &e), -EINVAL);
}
END_TEST

START_TEST(what_cannot_be_handled_is_refused_by_name)
{
    struct {
        uint64_t incompatible, autoclear;
        uint32_t crypt, snapshots;
        int read, write;
        const char *word;
    } rows[] = {
        {0, 0, 0, 0, 0, 0, ""},
        {QCOW2_DATA_FILE, QCOW2_RAW_DATA, 0, 0, 0, 0, ""},
        {QCOW2_EXTENDED_L2, 0, 0, 0, 0, 0, ""},
        {1 << 5, 0, 0, 0, -ENOTSUP, -ENOTSUP, "bit 5"},
        {1ULL << 63, 0, 0, 0, -ENOTSUP, -ENOTSUP, "bit 63"},
        {0, 0, 1, 0, 0, -ENOTSUP, "AES"},
        {0, 0, 2, 0, 0, 0, ""},
        {0, 0, 3, 0, -ENOTSUP, -ENOTSUP, "method (3)"},
        {0, 0, 0, 3, 0, 0, ""},
        {QCOW2_DIRTY, 0, 0, 0, 0, 0, ""},
        {QCOW2_CORRUPT, 0, 0, 0, 0, -EACCES, "corrupt"},
        {0, QCOW2_BITMAPS, 0, 0, 0, 0, ""},
        {0, 1 << 7, 0, 0, 0, 0, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct qcow2_header h = plain_header();
        struct blk_error e = {0};
        h.incompatible = rows[i].incompatible;
        h.autoclear = rows[i].autoclear;
        h.crypt_method = rows[i].crypt;
        h.snapshot_count = rows[i].snapshots;
        h.bitmaps.bytes = 24;
        ck_assert_int_eq(qcow2_header_refuse(&h, cluster, false, &e), rows[i].read);
        ck_assert_int_eq(qcow2_header_refuse(&h, cluster, true, &e), rows[i].write);
        ck_assert_msg(strstr(e.text, rows[i].word), "row %zu: %s", i, e.text);
    }
}
END_TEST

START_TEST(an_unknown_feature_is_called_by_the_images_own_name)
{
    struct qcow2_header h = plain_header();
    struct blk_error e = {0};
    h.incompatible = 1; /* as if not known: the table is searched by bit */
    ck_assert_int_eq(round_trip(&h, &e), 0);
    h = plain_header();
    ck_assert_int_eq(qcow2_header_build(&h, &(struct qcow2_names){0}, cluster), 0);
    h.incompatible = 1ULL << 9;
    memcpy(cluster + h.feature_names.offset, "\x00\x09shiny", 8);
    ck_assert_int_eq(qcow2_header_refuse(&h, cluster, false, &e), -ENOTSUP);
    ck_assert_msg(strstr(e.text, "\"shiny\""), "%s", e.text);
}
END_TEST

/* --- entries --- */

START_TEST(entries_round_trip)
{
    for (uint32_t bits = 9; bits <= 21; bits++) {
        uint64_t top = align_down(QCOW2_OFFSET_MASK, 1ULL << bits);
        struct qcow2_entry in[] = {
            {MAP_HOLE, false, 0, 0, 0},           {MAP_ZERO, false, 0, 0, 0},
            {MAP_ZERO, true, 1ULL << bits, 0, 0}, {MAP_ZERO, false, top, 0, 0},
            {MAP_DATA, true, 1ULL << bits, 0, 0}, {MAP_DATA, false, top, 0, 0},
        };
        struct qcow2_header h = {.version = 3, .cluster_bits = bits};
        for (size_t i = 0; i < ARRAY_LEN(in); i++) {
            struct qcow2_entry out;
            struct qcow2_bits raw = qcow2_entry_encode(&h, &in[i]);
            ck_assert_uint_eq(raw.sub, 0);
            ck_assert_int_eq(qcow2_entry_decode(&h, raw, &out), 0);
            ck_assert_int_eq(out.state, in[i].state);
            ck_assert_uint_eq(out.offset, in[i].offset);
            ck_assert_int_eq(out.copied, in[i].copied);
        }
    }
}
END_TEST

START_TEST(packed_entries_cover_their_bytes)
{
    for (uint32_t bits = 9; bits <= 21; bits++) {
        for (int i = 0; i < 2000; i++) {
            uint64_t span = qcow2_packed_offset_max(bits) - (2 << bits);
            struct qcow2_entry in = {.state = MAP_PACKED}, out;
            in.offset = ((uint64_t)rand() << 31 | (uint64_t)rand()) % span;
            in.packed_bytes = 1 + (uint32_t)rand() % ((1u << bits) - 1);
            struct qcow2_header h = {.version = 3, .cluster_bits = bits};
            struct qcow2_bits raw = qcow2_entry_encode(&h, &in);
            ck_assert_int_eq(qcow2_entry_decode(&h, raw, &out), 0);
            ck_assert_int_eq(out.state, MAP_PACKED);
            ck_assert_uint_eq(out.offset, in.offset);
            ck_assert_uint_ge(out.packed_bytes, in.packed_bytes);
            ck_assert_uint_lt(out.packed_bytes, in.packed_bytes + 512);
            ck_assert_uint_eq((out.offset + out.packed_bytes) % 512, 0);
        }
    }
}
END_TEST

START_TEST(entries_no_image_holds_are_errors)
{
    struct qcow2_entry out;
    struct qcow2_header h = {.version = 3, .cluster_bits = 16};
    ck_assert_int_eq(qcow2_entry_decode(&h, (struct qcow2_bits){QCOW2_COPIED | 0x10200, 0}, &out),
                     -EIO);
    ck_assert_int_eq(qcow2_entry_decode(&h, (struct qcow2_bits){QCOW2_ZERO, 0}, &out), 0);
    h.version = 2;
    ck_assert_int_eq(qcow2_entry_decode(&h, (struct qcow2_bits){QCOW2_ZERO, 0}, &out), -EIO);
    for (int i = 0; i < 100000; i++) { /* any bits are answered */
        uint64_t raw = (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
        uint64_t sub = (uint64_t)rand() << 42 ^ (uint64_t)rand() << 21 ^ (uint64_t)rand();
        h.cluster_bits = 9 + (uint32_t)rand() % 13;
        h.version = 2 + (uint32_t)rand() % 2;
        h.incompatible = rand() & QCOW2_EXTENDED_L2;
        qcow2_entry_decode(&h, (struct qcow2_bits){raw, sub}, &out);
    }
}
END_TEST

START_TEST(counts_of_every_width)
{
    for (uint32_t order = 0; order <= 6; order++) {
        uint8_t block[512] = {0};
        uint64_t n = sizeof(block) * 8 >> order, expect[4096];
        for (uint64_t i = 0; i < n; i++) {
            expect[i] = ((uint64_t)rand() << 40 ^ (uint64_t)rand()) & qcow2_count_max(order);
            qcow2_count_set(block, order, i, ~expect[i] & qcow2_count_max(order));
        }
        for (uint64_t i = 0; i < n; i++)
            qcow2_count_set(block, order, i, expect[i]);
        for (uint64_t i = 0; i < n; i++)
            ck_assert_uint_eq(qcow2_count_get(block, order, i), expect[i]);
    }
}
END_TEST

START_TEST(counts_are_found)
{
    for (uint32_t order = 0; order <= 6; order++) {
        uint8_t block[512];
        uint64_t n = sizeof(block) * 8 >> order;
        for (int round = 0; round < 200; round++) {
            uint64_t at = (uint64_t)rand() % n, from = (uint64_t)rand() % (at + 1);
            memset(block, 0, sizeof(block));
            qcow2_count_set(block, order, at, 1);
            ck_assert_uint_eq(qcow2_count_find(block, order, from, n, false), at);
            ck_assert_uint_eq(qcow2_count_find(block, order, from, at, false), at);
            for (uint64_t i = 0; i < n; i++)
                qcow2_count_set(block, order, i, i == at ? 0 : 1);
            ck_assert_uint_eq(qcow2_count_find(block, order, from, n, true), at);
            ck_assert_uint_eq(qcow2_count_find(block, order, from, at, true), at);
        }
    }
}
END_TEST

/* --- runs, references --- */

START_TEST(runs_agree_with_an_array_of_bits)
{
    struct qcow2_runs runs = {.limit = 4096};
    bool model[2000] = {0};
    for (int step = 0; step < 20000; step++) {
        if (rand() % 2) {
            uint64_t first = (uint64_t)rand() % 1900, n = 1 + (uint64_t)rand() % 50;
            ck_assert(qcow2_runs_add(&runs, first, n));
            memset(model + first, 1, n);
        } else {
            uint64_t first, want = 1 + (uint64_t)rand() % 100;
            uint64_t got = qcow2_runs_take(&runs, want, &first);
            ck_assert_uint_le(got, want);
            for (uint64_t i = 0; i < got; i++) {
                ck_assert(model[first + i]);
                model[first + i] = false;
            }
        }
        uint64_t total = 0, expect = 0;
        for (size_t i = 0; i < runs.used; i++) {
            total += runs.runs[i].count;
            if (i)
                ck_assert(runs.runs[i - 1].first + runs.runs[i - 1].count < runs.runs[i].first);
        }
        for (size_t i = 0; i < ARRAY_LEN(model); i++)
            expect += model[i];
        ck_assert_uint_eq(total, expect);
    }
    qcow2_runs_drop(&runs);
}
END_TEST

START_TEST(references_are_counted_sparsely_and_bounded)
{
    struct qcow2_refs refs = {.limit = 16 * MiB};
    uint64_t far = (1ULL << 47) - 1;
    ck_assert_int_eq(qcow2_refs_add(&refs, 7, 0), 0);
    ck_assert_int_eq(qcow2_refs_add(&refs, far, QCOW2_SEEN_PLAIN), 0);
    ck_assert_int_eq(qcow2_refs_set(&refs, far, QCOW2_REFS_MAX - 1), 0);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(qcow2_refs_add(&refs, far, QCOW2_SEEN_PLAIN), 0);
    ck_assert_uint_eq(qcow2_refs_get(&refs, 7), 1);
    ck_assert_uint_eq(qcow2_refs_get(&refs, 8), 0);
    ck_assert_uint_eq(qcow2_refs_get(&refs, far), QCOW2_REFS_MAX);
    ck_assert_uint_eq(qcow2_refs_get(&refs, 1ULL << 40), 0);
    ck_assert_uint_eq(qcow2_refs_marks(&refs, far), QCOW2_SEEN_PLAIN);
    ck_assert_uint_eq(qcow2_refs_next(&refs, 0), 7);
    ck_assert_uint_eq(qcow2_refs_next(&refs, 8), far);
    ck_assert_uint_eq(qcow2_refs_next(&refs, far + 1), UINT64_MAX);
    qcow2_refs_sub(&refs, 7);
    ck_assert_uint_eq(qcow2_refs_next(&refs, 0), far);
    int rc = 0;
    for (uint64_t i = 0; i < 100000 && rc == 0; i++)
        rc = qcow2_refs_add(&refs, i << 20, 0);
    ck_assert_int_eq(rc, -EFBIG);
    qcow2_refs_drop(&refs);
}
END_TEST

/* --- compressed bytes --- */

static void pack_case(uint8_t type, unsigned level, uint32_t bits, const uint8_t *data)
{
    struct qcow2 q = {.header.compression_type = type, .header.cluster_bits = bits};
    size_t bytes = 1u << bits, packed_bytes = bytes;
    uint8_t *packed = malloc(2 * bytes), *back = malloc(bytes);
    struct map_cell cell = {.state = MAP_PACKED};

    q.map.cluster_bytes = bytes;
    qcow2_codec_init(&q, level);
    int rc = qcow2_pack(&q.map, data, packed, &packed_bytes);
    if (rc == 0) {
        ck_assert_uint_lt(packed_bytes, bytes);
        memset(packed + packed_bytes, 0xa5, 511); /* what lies behind is somebody else's */
        memset(back, 1, bytes);
        ck_assert_int_eq(qcow2_unpack(&q.map, &cell, packed, packed_bytes + 511, back), 0);
        ck_assert_int_eq(memcmp(back, data, bytes), 0);
        ck_assert_int_eq(qcow2_unpack(&q.map, &cell, packed, packed_bytes / 2, back), -EIO);
    } else {
        ck_assert_int_eq(rc, -ENOSPC);
    }
    codec_drop(&q.codec);
    free(packed);
    free(back);
}

START_TEST(packed_clusters_come_back)
{
    uint8_t *data = malloc(2 * MiB);
    for (uint32_t bits = 9; bits <= 21; bits += 3) {
        size_t bytes = 1u << bits;
        for (uint8_t type = QCOW2_ZLIB; type <= QCOW2_ZSTD; type++) {
#ifndef HAVE_LIBZSTD
            if (type == QCOW2_ZSTD)
                continue;
#endif
            memset(data, 0, bytes);
            pack_case(type, bits % 2 * 9, bits, data);
            for (size_t i = 0; i < bytes; i++)
                data[i] = (uint8_t)(i * i / 77 % 23);
            pack_case(type, bits % 2 * 9, bits, data);
            for (size_t i = 0; i < bytes; i++)
                data[i] = (uint8_t)rand();
            pack_case(type, bits % 2 * 9, bits, data);
        }
    }
    free(data);
}
END_TEST

START_TEST(noise_unpacks_to_an_error)
{
    uint8_t noise[1024], out[4096];
    struct map_cell cell = {.state = MAP_PACKED};
    for (int i = 0; i < 3000; i++) {
        struct qcow2 q = {.header.compression_type = (uint8_t)(i % 2), .map.cluster_bytes = 4096};
        qcow2_codec_init(&q, 0);
        for (size_t b = 0; b < sizeof(noise); b++)
            noise[b] = (uint8_t)rand();
        int rc = qcow2_unpack(&q.map, &cell, noise, 1 + (size_t)rand() % 1024, out);
        ck_assert(rc <= 0);
        codec_drop(&q.codec);
    }
}
END_TEST

START_TEST(list_entries_of_any_bytes_are_answered)
{
    uint8_t raw[2000];
    for (int i = 0; i < 20000; i++) {
        struct qcow2_snapshot s;
        struct qcow2_bitmap b;
        size_t n = (size_t)rand() % sizeof(raw);
        for (size_t at = 0; at < sizeof(raw); at++)
            raw[at] = rand() % 4 ? 0 : (uint8_t)rand();
        int64_t used = qcow2_snapshot_parse(raw, n, &s);
        if (used >= 0)
            ck_assert(s.name + s.name_bytes <= (char *)raw + n);
        used = qcow2_bitmap_parse(raw, n, &b);
        if (used >= 0)
            ck_assert(b.name + b.name_bytes <= (char *)raw + n && used <= (int64_t)n);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("qcow2");
    TCase *tc = tcase_create("pure");
    tcase_add_test(tc, a_built_header_parses_to_itself);
    tcase_add_test(tc, a_name_that_does_not_fit_is_refused);
    tcase_add_test(tc, bad_fields_are_refused);
    tcase_add_test(tc, any_length_of_header_is_answered);
    tcase_add_test(tc, an_extension_past_the_header_is_refused);
    tcase_add_test(tc, what_cannot_be_handled_is_refused_by_name);
    tcase_add_test(tc, an_unknown_feature_is_called_by_the_images_own_name);
    tcase_add_test(tc, entries_round_trip);
    tcase_add_test(tc, packed_entries_cover_their_bytes);
    tcase_add_test(tc, entries_no_image_holds_are_errors);
    tcase_add_test(tc, counts_of_every_width);
    tcase_add_test(tc, counts_are_found);
    tcase_add_test(tc, runs_agree_with_an_array_of_bits);
    tcase_add_test(tc, references_are_counted_sparsely_and_bounded);
    tcase_add_test(tc, packed_clusters_come_back);
    tcase_add_test(tc, noise_unpacks_to_an_error);
    tcase_add_test(tc, list_entries_of_any_bytes_are_answered);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

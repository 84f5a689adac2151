/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_extended.c - clusters in pieces: the arithmetic of pieces, the entries that say them, and
 * how much of a backing file a small write reads. */
#include <check.h>
#include <stdlib.h>

#include "imgfmt/map_private.h"
#include "imgfmt/qcow2.h"
#include "tests/lib/on_host.h"

static const struct qcow2_header wide = {
    .version = 3, .cluster_bits = 16, .incompatible = QCOW2_EXTENDED_L2};

/* --- entries --- */

/* What one subcluster is by the format's description: bits 0..31 here, 32..63 zero. */
static int expected(uint64_t sub, unsigned i)
{
    bool here = sub >> i & 1, zero = sub >> (32 + i) & 1;

    return here && zero ? -1 : here ? MAP_DATA : zero ? MAP_ZERO : MAP_HOLE;
}

static void must_decode(uint64_t offset, bool copied, uint64_t sub)
{
    struct map m = {.shape = {.cluster_bits = 16, .piece_bits = 11}};
    struct qcow2_bits bits = {offset | (copied ? QCOW2_COPIED : 0), sub}, back;
    struct qcow2_entry e;
    bool valid = offset || !(uint32_t)sub;

    for (unsigned i = 0; i < 32; i++)
        valid &= expected(sub, i) >= 0;
    int rc = qcow2_entry_decode(&wide, bits, &e);
    must(rc == (valid ? 0 : -EIO));
    if (!valid)
        return;
    struct map_cell cell = {.state = e.state, .offset = e.offset, .sub = e.sub};
    for (unsigned i = 0; i < 32; i++) {
        enum map_state state;
        uint64_t run = map_piece_run(&m, &cell, i * 2048 + 7, 64 * KiB - i * 2048 - 7, &state);
        must((int)state == expected(sub, i));
        for (unsigned k = i; k < 32 && k * 2048 < i * 2048 + 7 + run; k++)
            must(expected(sub, k) == expected(sub, i));
        must(e.state != MAP_PARTIAL || i * 2048 + 7 + run == 64 * KiB ||
             expected(sub, (unsigned)((i * 2048 + 7 + run) / 2048)) != expected(sub, i));
    }
    back = qcow2_entry_encode(&wide, &e);
    must(back.sub == sub);
    must(back.entry == (offset ? bits.entry : 0));
}

START_TEST(every_state_of_every_subcluster_round_trips)
{
    static const uint64_t offsets[] = {0, 64 * KiB, QCOW2_OFFSET_MASK & ~0xffffULL};
    uint64_t seed = 3, all = UINT32_MAX;

    for (size_t o = 0; o < ARRAY_LEN(offsets) * 2; o++) {
        uint64_t at = offsets[o / 2];
        for (unsigned i = 0; i < 32; i++) /* each pair of subclusters in each pair of states */
            for (unsigned k = 0; k < 32; k++)
                for (unsigned s = 0; s < 16; s++) {
                    uint64_t one = (uint64_t)(s & 1) << i | (uint64_t)(s >> 1 & 1) << (32 + i);
                    uint64_t two = (uint64_t)(s >> 2 & 1) << k | (uint64_t)(s >> 3) << (32 + k);
                    must_decode(at, o & 1, one | two);
                    must_decode(at, o & 1, all & ~one & ~(one >> 32) & ~(two >> 32));
                    must_decode(at, o & 1, (all << 32 & ~one & ~two) | (uint32_t)(one & ~two));
                }
        for (int n = 0; n < 20000; n++) {
            uint64_t here = next_random(&seed), zero = next_random(&seed) & next_random(&seed);
            must_decode(at, o & 1, (uint32_t)(here & ~zero) | zero << 32);
        }
        must_decode(at, o & 1, 0);
        must_decode(at, o & 1, all);
        must_decode(at, o & 1, all << 32);
    }
}
END_TEST

START_TEST(packed_entries_have_no_bitmap)
{
    struct qcow2_entry in = {.state = MAP_PACKED, .offset = 100000, .packed_bytes = 4000}, out;
    struct qcow2_bits bits = qcow2_entry_encode(&wide, &in);

    ck_assert_uint_eq(bits.sub, 0);
    bits.sub = 12345; /* the check names it; nobody believes it */
    ck_assert_int_eq(qcow2_entry_decode(&wide, bits, &out), 0);
    ck_assert_int_eq(out.state, MAP_PACKED);
    ck_assert_uint_eq(out.offset, 100000);
}
END_TEST

START_TEST(pieces_are_those_that_a_range_touches)
{
    struct map m = {.shape = {.cluster_bits = 14, .piece_bits = 9}};

    for (uint64_t from = 0; from < 16 * KiB; from += 64)
        for (uint64_t to = from + 1; to <= 16 * KiB; to += 191) {
            uint32_t want = 0;
            for (unsigned i = 0; i < 32; i++)
                want |= (uint32_t)(i * 512 < to && (i + 1) * 512 > from) << i;
            must(map_pieces_of(&m, from, to) == want);
        }
}
END_TEST

/* --- what is read from behind --- */

struct counter {
    uint64_t bytes;
};

static int co_counter_open(struct blk_device *dev, const struct opts *opts,
                           struct blk_opener *opener, struct blk_error *e)
{
    dev->state = mem_zalloc(sizeof(struct counter));
    dev->size = 4 * MiB;
    return dev->state ? 0 : -ENOMEM;
}

static int co_counter_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

static int co_counter_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct counter *c = dev->state;

    c->bytes += to->bytes;
    vec_fill(to, 0x55);
    return 0;
}

static const struct opt_desc no_options[] = {{0}};

static const struct blk_driver counter_driver = {
    .name = "counter",
    .open_options = no_options,
    .co_open = co_counter_open,
    .co_close = co_counter_close,
    .co_read = co_counter_read,
};

struct pair {
    struct blk_device *file, *backing, *dev;
    struct counter *read;
};

static void co_begin(struct pair *p, const char *options)
{
    struct blk_error e = {0};

    p->file = co_open_text(&mem_driver, "size=16M", NULL);
    p->backing = co_open_text(&counter_driver, "", NULL);
    p->read = p->backing->state;
    co_create_text(&qcow2_driver, options, p->file, 4 * MiB);
    struct blk_child children[] = {{"file", blk_ref(p->file)}, {"backing", blk_ref(p->backing)}};
    ck_assert_msg(co_blk_open(&qcow2_driver, "top", NULL, BLK_OPEN_WRITE, NULL, children, 2,
                              &p->dev, &e) == 0,
                  "%s", e.text);
}

static void co_end(struct pair *p)
{
    struct blk_check check = {0};
    struct blk_error e = {0};

    ck_assert_int_eq(co_blk_check(p->dev, &check, &e), 0);
    ck_assert_uint_eq(check.corruptions + check.leaks + check.check_errors, 0);
    co_close_ok(p->dev);
    co_close_ok(p->backing);
    co_close_ok(p->file);
}

/* Writes @bytes at @at; gives how much of the backing file that read. Then all of the cluster is as
 * it should be. */
static uint64_t co_cost(struct pair *p, uint64_t at, uint64_t bytes)
{
    static uint8_t data[64 * KiB], got[64 * KiB];
    uint64_t before = p->read->bytes, begin = align_down(at, 64 * KiB);

    memset(data, 0x77, bytes);
    ck_assert_int_eq(co_blk_write_buf(p->dev, at, data, bytes, 0), 0);
    uint64_t cost = p->read->bytes - before;
    ck_assert_int_eq(co_blk_read_buf(p->dev, begin, got, sizeof(got)), 0);
    for (uint64_t i = 0; i < sizeof(got); i++)
        must(got[i] == (begin + i >= at && begin + i < at + bytes ? 0x77 : 0x55));
    return cost;
}

static int small_writes(void *options)
{
    struct pair p;

    co_begin(&p, options);
    ck_assert_uint_eq(co_cost(&p, 64 * KiB, 4 * KiB), 0);               /* two whole subclusters */
    ck_assert_uint_eq(co_cost(&p, 2 * 64 * KiB + 1024, 4 * KiB), 2048); /* and two halves */
    ck_assert_uint_eq(co_cost(&p, 3 * 64 * KiB + 512, 512), 1536);
    ck_assert_uint_eq(co_cost(&p, 4 * 64 * KiB, 64 * KiB), 0);
    uint64_t before = p.read->bytes;
    uint8_t byte = 0x77;
    ck_assert_int_eq(co_blk_write_buf(p.dev, 64 * KiB + 100, &byte, 1, 0), 0); /* it is here */
    ck_assert_uint_eq(p.read->bytes, before);
    co_end(&p);
    return 0;
}

START_TEST(a_small_write_copies_its_subclusters_only)
{
    on_host(NULL, small_writes, "extended_l2=on,backing_file=b,backing_fmt=raw");
    on_host(NULL, small_writes,
            "extended_l2=on,backing_file=b,backing_fmt=raw,preallocation=metadata");
}
END_TEST

CO_TEST(without_them_the_cluster_is_copied)
{
    struct pair p;

    co_begin(&p, "backing_file=b,backing_fmt=raw");
    ck_assert_uint_eq(co_cost(&p, 64 * KiB, 4 * KiB), 60 * KiB);
    co_end(&p);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("qcow2_extended");
    TCase *tc = tcase_create("extended");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_state_of_every_subcluster_round_trips);
    tcase_add_test(tc, packed_entries_have_no_bitmap);
    tcase_add_test(tc, pieces_are_those_that_a_range_touches);
    tcase_add_test(tc, a_small_write_copies_its_subclusters_only);
    tcase_add_test(tc, without_them_the_cluster_is_copied);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_snapshot.c - snapshots inside qcow2: of one instant while writers go on, refused whole
 * where counts are too narrow, kept while they are read; and the bytes of their table. */
#include <check.h>

#include "imgfmt/qcow2.h"
#include "tests/lib/on_host.h"

#define SIZE (2 * MiB)

static struct blk_device *co_image(const char *options)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=0", NULL);
    co_create_text(&qcow2_driver, options, file, SIZE);
    return co_open_text(&qcow2_driver, "", file);
}

static void co_clean(struct blk_device *dev)
{
    struct blk_check c = {0};
    struct blk_error e = {0};
    must(co_blk_check(dev, &c, &e) == 0);
    must(c.corruptions == 0 && c.leaks == 0 && c.check_errors == 0);
}

static int co_take(struct blk_device *dev, const char *name)
{
    struct blk_snapshot s = {.name = (char *)name, .icount = UINT64_MAX};
    struct blk_error e = {0};
    return co_blk_snapshot_create(dev, &s, &e);
}

/* --- of one instant ------------------------------------------------------- */

#define WRITERS 8
#define TAKEN   12

struct load {
    struct blk_device *dev;
    bool stop;
    unsigned running;
    struct writer {
        struct load *load;
        uint64_t a, b;  /* places: b is written after a */
        uint64_t acked; /* both hold at least this */
        uint64_t random;
    } writers[WRITERS];
};

static void co_put(struct writer *w, uint64_t at, uint64_t number)
{
    uint64_t block[64];
    for (unsigned i = 0; i < 64; i++)
        block[i] = number;
    must(co_blk_write_buf(w->load->dev, at, block, sizeof(block), 0) == 0);
}

static void co_writer(void *arg)
{
    struct writer *w = arg;
    for (uint64_t n = 1; !w->load->stop; n++) {
        co_put(w, w->a, n);
        if (next_random(&w->random) % 2)
            co_yield ();
        co_put(w, w->b, n);
        w->acked = n;
        co_yield ();
    }
    w->load->running--;
}

static uint64_t co_get(struct blk_device *dev, uint64_t at)
{
    uint64_t block[64];
    must(co_blk_read_buf(dev, at, block, sizeof(block)) == 0);
    for (unsigned i = 1; i < 64; i++)
        must(block[i] == block[0]);
    return block[0];
}

static void co_look(struct load *l, const char *name, const uint64_t *acked)
{
    struct blk_device *inner;
    struct blk_error e = {0};
    char spec[16];
    snprintf(spec, sizeof(spec), "@%s", name);
    must(co_blk_inner_open(l->dev, spec, &inner, &e) == 0);
    must(!inner->writable && inner->size == SIZE);
    for (unsigned i = 0; i < WRITERS; i++) {
        uint64_t a = co_get(inner, l->writers[i].a), b = co_get(inner, l->writers[i].b);
        must(a == b || a == b + 1);
        must(b >= acked[i]);
    }
    uint64_t freed;
    must(co_blk_snapshot_delete(l->dev, name, &freed, &e) == -EBUSY);
    co_close_ok(inner);
}

static void co_take_some(struct load *l, uint64_t acked[TAKEN][WRITERS])
{
    char name[8];
    for (unsigned t = 0; t < TAKEN; t++) {
        for (unsigned i = 0; i < 5 + t; i++)
            co_yield ();
        for (unsigned i = 0; i < WRITERS; i++)
            acked[t][i] = l->writers[i].acked;
        snprintf(name, sizeof(name), "%u", t + 1);
        must(co_take(l->dev, name) == 0);
    }
}

static int co_under_load(void *arg)
{
    struct load l = {.dev = co_image("cluster_size=4k")};
    static uint64_t acked[TAKEN][WRITERS];
    struct blk_error e = {0};
    char name[8];
    uint64_t freed;
    for (unsigned i = 0; i < WRITERS; i++) {
        l.writers[i] = (struct writer){.load = &l, .random = i + 1};
        l.writers[i].a = (i * 37 % 64) * 32 * KiB + i * 512;
        l.writers[i].b = (i * 37 % 64 + 1) * 32 * KiB - 512;
        l.running++;
        must(co_start(co_writer, &l.writers[i]) == 0);
    }
    co_take_some(&l, acked);
    for (unsigned t = 0; t < TAKEN; t++) {
        snprintf(name, sizeof(name), "%u", t + 1);
        co_look(&l, name, acked[t]);
    }
    for (unsigned t = 0; t < TAKEN; t += 2) { /* the others stay whole while writers go on */
        snprintf(name, sizeof(name), "%u", t + 1);
        must(co_blk_snapshot_delete(l.dev, name, &freed, &e) == 0);
        co_yield ();
    }
    for (unsigned t = 1; t < TAKEN; t += 2) {
        snprintf(name, sizeof(name), "%u", t + 1);
        co_look(&l, name, acked[t]);
    }
    l.stop = true;
    while (l.running)
        co_yield ();
    co_clean(l.dev);
    co_close_ok(l.dev);
    return 0;
}

START_TEST(a_snapshot_is_of_one_instant_while_writers_go_on)
{
    ck_assert_int_eq(on_host("threads", co_under_load, NULL), 0);
}
END_TEST

/* --- narrow counts -------------------------------------------------------- */

static int co_narrow(void *arg)
{
    struct blk_device *dev = co_image("cluster_size=4k,refcount_bits=2");
    uint8_t block[4096] = {1};
    for (uint64_t at = 0; at < 256 * KiB; at += 4096)
        must(co_blk_write_buf(dev, at, block, sizeof(block), 0) == 0);
    must(co_take(dev, "one") == 0 && co_take(dev, "two") == 0);
    must(co_take(dev, "three") == -EINVAL); /* a count of 3 is the highest */
    co_clean(dev);
    must(co_blk_write_buf(dev, 8192, block, sizeof(block), 0) == 0);
    co_clean(dev);
    struct blk_snapshot *list;
    struct blk_error e = {0};
    size_t count;
    must(co_blk_snapshot_list(dev, &list, &count, &e) == 0 && count == 2);
    blk_snapshots_drop(list, count);
    co_close_ok(dev);

    dev = co_image("refcount_bits=1");
    must(co_take(dev, "one") == -EINVAL);
    must(co_take(dev, "") == -EINVAL);
    co_clean(dev);
    co_close_ok(dev);
    return 0;
}

START_TEST(what_counts_cannot_say_is_refused_whole)
{
    ck_assert_int_eq(on_host("threads", co_narrow, NULL), 0);
}
END_TEST

/* --- the table's bytes ---------------------------------------------------- */

START_TEST(an_entry_comes_back_as_it_was_put)
{
    static uint8_t raw[QCOW2_SNAPSHOT_PUT_MAX];
    struct qcow2_snapshot s = {.l1_offset = 1 << 20,
                               .l1_entries = 7,
                               .date_sec = 5,
                               .date_nsec = 6,
                               .vm_clock_nsec = 1ULL << 40,
                               .vm_state_bytes = 1ULL << 33,
                               .disk_bytes = 3 << 20,
                               .id = "12",
                               .id_bytes = 2,
                               .name = "name",
                               .name_bytes = 4},
                          back;
    uint64_t bytes = qcow2_snapshot_put(&s, raw);
    ck_assert_uint_eq(bytes % 8, 0);
    ck_assert_int_eq(qcow2_snapshot_parse(raw, bytes, &back), (int64_t)bytes);
    ck_assert_uint_eq(back.l1_offset, s.l1_offset);
    ck_assert_uint_eq(back.l1_entries, 7);
    ck_assert_uint_eq(back.vm_state_bytes, s.vm_state_bytes);
    ck_assert_uint_eq(back.disk_bytes, s.disk_bytes);
    ck_assert_uint_eq(back.vm_clock_nsec, s.vm_clock_nsec);
    ck_assert(back.has_disk_bytes && !back.has_icount);
    ck_assert(back.id_bytes == 2 && memcmp(back.id, "12", 2) == 0);
    ck_assert(back.name_bytes == 4 && memcmp(back.name, "name", 4) == 0);
    for (size_t n = 0; n < 40 + 24 + 6; n++)
        ck_assert_int_eq(qcow2_snapshot_parse(raw, n, &back), -EAGAIN);
    raw[38] = 4; /* 1,024 bytes of extra data may be, and more not */
    raw[39] = 0;
    ck_assert_int_gt(qcow2_snapshot_parse(raw, sizeof(raw), &back), 1024);
    raw[39] = 1;
    ck_assert_int_eq(qcow2_snapshot_parse(raw, sizeof(raw), &back), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2_snapshot");
    TCase *t = tcase_create("all");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_snapshot_is_of_one_instant_while_writers_go_on);
    tcase_add_test(t, what_counts_cannot_say_is_refused_whole);
    tcase_add_test(t, an_entry_comes_back_as_it_was_put);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_guard.c - the overlap guard: images in memory whose counts or tables lie. Nothing is
 * written onto a structure, the write fails, the corrupt bit is set. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "imgfmt/qcow2_bitmap.h"
#include "tests/lib/on_host.h"

#define CLUSTER (64 * KiB)

/* Where qcow2_create() and the first writes put things. */
enum { TABLE = 1, BLOCK = 2, L1 = 3, L2 = 4, DATA = 5 };

static uint8_t buf[CLUSTER], before[CLUSTER];

static struct blk_device *co_image(struct blk_device *file, unsigned flags)
{
    struct blk_child child = {.role = "file", .dev = blk_ref(file)};
    struct blk_device *dev;
    struct blk_error e = {0};
    json_t *tree = json_object();
    int rc = co_blk_open(&qcow2_driver, "image", tree, flags, NULL, &child, 1, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    json_decref(tree);
    return dev;
}

/* A sound image with one L2 table and four clusters of data. */
static struct blk_device *co_made(void)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=16M", NULL);
    co_create_text(&qcow2_driver, "", file, 1 * GiB);
    struct blk_device *dev = co_image(file, BLK_OPEN_WRITE);
    memset(buf, 7, sizeof(buf));
    for (uint64_t i = 0; i < 4; i++)
        ck_assert_int_eq(co_blk_write_buf(dev, i * CLUSTER, buf, CLUSTER, 0), 0);
    co_close_ok(dev);
    return file;
}

static void co_poke(struct blk_device *file, uint64_t at, uint64_t value, unsigned bytes)
{
    be64 raw = be64_of(value);
    ck_assert_int_eq(co_blk_write_buf(file, at, raw.b + 8 - bytes, bytes, 0), 0);
}

static bool co_is_marked(struct blk_device *file)
{
    be64 raw;
    ck_assert_int_eq(co_blk_read_buf(file, 72, &raw, sizeof(raw)), 0);
    return be64_get(raw) & QCOW2_CORRUPT;
}

/* Writes to new clusters until that fails; gives the error. */
static int co_write_on(struct blk_device *dev)
{
    int rc = 0;
    for (uint64_t i = 0; i < 8 && rc == 0; i++)
        rc = co_blk_write_buf(dev, (100 + i) * CLUSTER, buf, CLUSTER, 0);
    return rc < 0 ? rc : co_blk_flush(dev);
}

static void co_must_refuse(struct blk_device *file, uint64_t victim)
{
    ck_assert_int_eq(co_blk_read_buf(file, victim * CLUSTER, before, CLUSTER), 0);
    struct blk_device *dev = co_image(file, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_write_on(dev), -EIO);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, 512, 0), -EROFS);
    struct blk_error e = {0};
    (void)!co_blk_close(dev, &e);
    ck_assert(co_is_marked(file));
    ck_assert_int_eq(co_blk_read_buf(file, victim * CLUSTER, buf, CLUSTER), 0);
    if (victim)
        ck_assert_mem_eq(buf, before, CLUSTER);
    co_close_ok(file);
}

static int co_called_free(void *arg)
{
    uint64_t victim = *(const int *)arg;
    struct blk_device *file = co_made();
    co_poke(file, BLOCK * CLUSTER + 2 * victim, 0, 2);
    co_must_refuse(file, victim);
    return 0;
}

START_TEST(no_structure_is_handed_out_though_its_count_is_zero)
{
    static const int victims[] = {0, TABLE, BLOCK, L1, L2};
    for (size_t i = 0; i < ARRAY_LEN(victims); i++)
        on_host(NULL, co_called_free, (void *)&victims[i]);
}
END_TEST

CO_TEST(tables_that_lie_one_in_another_are_not_written)
{
    struct blk_device *file = co_made();
    co_poke(file, TABLE * CLUSTER + 8, L2 * CLUSTER, 8); /* block 1 lies on the L2 table */
    co_must_refuse(file, L2);
    return 0;
}

/* A page on its way to a place that belongs to another structure, by an error of ours. */
CO_TEST(no_page_goes_to_another_structures_place)
{
    static const struct {
        uint64_t at;
        unsigned rank;
    } rows[] = {{0, QCOW2_RANK_L2},
                {TABLE * CLUSTER + 4096, QCOW2_RANK_L2},
                {BLOCK * CLUSTER + 4096, QCOW2_RANK_L2},
                {L1 * CLUSTER, QCOW2_RANK_BLOCK},
                {L2 * CLUSTER + 8192, QCOW2_RANK_BLOCK},
                {L2 * CLUSTER + 8192, QCOW2_RANK_L1},
                {BLOCK * CLUSTER + 8192, QCOW2_RANK_TABLE}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct blk_device *file = co_made();
        struct blk_device *dev = co_image(file, BLK_OPEN_WRITE);
        struct meta *meta = qcow2_of_dev(dev)->map.meta;
        struct meta_page *page;
        struct blk_error e = {0};
        uint64_t cluster = align_down(rows[i].at, CLUSTER);
        ck_assert_int_eq(co_blk_write_buf(dev, 50 * CLUSTER, buf, CLUSTER, 0), 0);
        ck_assert_int_eq(co_blk_flush(dev), 0);
        ck_assert_int_eq(co_blk_read_buf(file, cluster, before, CLUSTER), 0);
        co_meta_forget(meta, rows[i].at, 4096);
        ck_assert_int_eq(co_meta_get(meta, rows[i].at, rows[i].rank, &page), 0);
        ck_assert_int_eq(meta_touch(meta, page), 0);
        page->data[8] ^= 1;
        meta_put(meta, page);
        ck_assert_int_eq(co_blk_flush(dev), -EIO);
        (void)!co_blk_close(dev, &e);
        ck_assert_msg(co_is_marked(file), "row %zu", i);
        ck_assert_int_eq(co_blk_read_buf(file, cluster, buf, CLUSTER), 0);
        if (cluster)
            ck_assert_msg(memcmp(buf, before, CLUSTER) == 0, "row %zu", i);
        co_close_ok(file);
    }
    return 0;
}

/* --- what lies in fixed ranges: snapshots and bitmaps --- */

enum range { SNAPSHOT_TABLE, SNAPSHOT_L1, BITMAP_DIRECTORY, RANGES };

/* With two snapshots (and writes between them) and a bitmap. */
static struct blk_device *co_made_with_ranges(void)
{
    struct blk_device *file = co_made(), *dev = co_image(file, BLK_OPEN_WRITE);
    struct blk_error e = {0};
    for (unsigned i = 0; i < 2; i++) {
        struct blk_snapshot s = {.name = (char *)(i ? "two" : "one"), .icount = UINT64_MAX};
        ck_assert_msg(co_blk_snapshot_create(dev, &s, &e) == 0, "%s", e.text);
        ck_assert_int_eq(co_blk_write_buf(dev, i * CLUSTER, buf, CLUSTER, 0), 0);
    }
    struct blk_bitmap_change add = {.action = BLK_BITMAP_ADD, .name = "map", .disabled = true};
    ck_assert_msg(co_blk_bitmap_change(dev, &add, &e) == 0, "%s", e.text);
    co_close_ok(dev);
    return file;
}

static int last_l1(void *arg, const struct qcow2_snapshot *s)
{
    *(uint64_t *)arg = s->l1_offset;
    return 0;
}

static int ignore_bitmap(void *arg, const struct qcow2_bitmap *b)
{
    (void)arg;
    (void)b;
    return 0;
}

static uint64_t co_where(struct qcow2 *q, enum range range)
{
    struct qcow2_bitmap_list list = {0};
    struct blk_error e = {0};
    uint64_t at = q->header.snapshots_offset;
    if (range == SNAPSHOT_L1)
        ck_assert_int_eq(co_qcow2_snapshots(q, last_l1, &at, &e), 0);
    if (range == BITMAP_DIRECTORY) {
        ck_assert_int_eq(co_qcow2_bitmaps(q, &list, ignore_bitmap, NULL, &e), 0);
        at = list.offset;
    }
    ck_assert_uint_gt(at, 0);
    return at;
}

static uint64_t co_where_in(struct blk_device *file, enum range range)
{
    struct blk_device *dev = co_image(file, 0);
    uint64_t at = co_where(qcow2_of_dev(dev), range);
    co_close_ok(dev);
    return at;
}

static void co_set_count(struct blk_device *file, uint64_t cluster, uint64_t count)
{
    be64 table, block;
    ck_assert_int_eq(co_blk_read_buf(file, 48, &table, 8), 0);
    ck_assert_int_eq(co_blk_read_buf(file, be64_get(table), &block, 8), 0);
    co_poke(file, be64_get(block) + 2 * cluster, count, 2);
}

/* QEMU reads the mark: it says so, and does not write to the image. */
static void co_qemu_sees_it(struct blk_device *file)
{
    char path[200], command[600];
    snprintf(path, sizeof(path), "%s/guard.XXXXXX", fast_folder());
    int fd = mkstemp(path);
    must(fd >= 0);
    uint8_t *all = malloc(file->size);
    if (system("qemu-img --version >/dev/null 2>&1") == 0) {
        ck_assert_int_eq(co_blk_read_buf(file, 0, all, file->size), 0);
        ck_assert_int_eq(pwrite(fd, all, file->size, 0), (ssize_t)file->size);
        snprintf(command, sizeof(command),
                 "qemu-img info --output=json %s | grep -q '\"corrupt\": true' && "
                 "! qemu-io -f qcow2 -c 'write 0 512' %s >/dev/null 2>&1",
                 path, path);
        ck_assert_int_eq(system(command), 0);
    }
    free(all);
    close(fd);
    unlink(path);
}

static int co_range_called_free(void *arg)
{
    struct blk_device *file = co_made_with_ranges();
    uint64_t at = co_where_in(file, *(const enum range *)arg);
    co_set_count(file, at / CLUSTER, 0);
    struct blk_device *dev = co_image(file, BLK_OPEN_WRITE);
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_read_buf(file, at, before, CLUSTER), 0);
    ck_assert_int_eq(co_write_on(dev), -EIO);
    ck_assert(!dev->writable || co_blk_write_buf(dev, 0, buf, 512, 0) == -EROFS);
    (void)!co_blk_close(dev, &e);
    ck_assert(co_is_marked(file));
    ck_assert_int_eq(co_blk_read_buf(file, at, buf, CLUSTER), 0);
    ck_assert_mem_eq(buf, before, CLUSTER);
    co_qemu_sees_it(file);
    co_close_ok(file);
    return 0;
}

START_TEST(no_range_is_handed_out_though_its_count_is_zero)
{
    on_host(NULL, co_range_called_free, &_i);
}
END_TEST

/* A page of each rank on its way to a range. */
static int co_page_onto_range(void *arg)
{
    enum range range = *(int *)arg / 4;
    unsigned rank = *(int *)arg % 4;
    struct blk_device *file = co_made_with_ranges(), *dev = co_image(file, BLK_OPEN_WRITE);
    struct meta *meta = qcow2_of_dev(dev)->map.meta;
    struct meta_page *page;
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_write_buf(dev, 50 * CLUSTER, buf, CLUSTER, 0), 0);
    ck_assert_int_eq(co_blk_flush(dev), 0);
    uint64_t at = co_where(qcow2_of_dev(dev), range);
    ck_assert_int_eq(co_blk_read_buf(file, at, before, CLUSTER), 0);
    ck_assert_int_eq(co_meta_get(meta, at, rank, &page), 0);
    ck_assert_int_eq(meta_touch(meta, page), 0);
    page->data[8] ^= 1;
    meta_put(meta, page);
    ck_assert_int_eq(co_blk_flush(dev), -EIO);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, 512, 0), -EROFS);
    (void)!co_blk_close(dev, &e);
    ck_assert(co_is_marked(file));
    ck_assert_int_eq(co_blk_read_buf(file, at, buf, CLUSTER), 0);
    ck_assert_mem_eq(buf, before, CLUSTER);
    if (rank == 0)
        co_qemu_sees_it(file);
    co_close_ok(file);
    return 0;
}

START_TEST(no_page_goes_to_a_range)
{
    on_host(NULL, co_page_onto_range, &_i);
}
END_TEST

/* Data: an entry that leads to the header's own tables. */
static int co_data_onto_table(void *arg)
{
    uint64_t victim = *(const int *)arg ? L1 : TABLE;
    struct blk_device *file = co_made();
    co_poke(file, L2 * CLUSTER, QCOW2_COPIED | victim * CLUSTER, 8);
    ck_assert_int_eq(co_blk_read_buf(file, victim * CLUSTER, before, CLUSTER), 0);
    struct blk_device *dev = co_image(file, BLK_OPEN_WRITE);
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, CLUSTER, 0), -EIO);
    ck_assert_int_eq(co_blk_write_buf(dev, 9 * CLUSTER, buf, CLUSTER, 0), -EROFS);
    (void)!co_blk_close(dev, &e);
    ck_assert(co_is_marked(file));
    ck_assert_int_eq(co_blk_read_buf(file, victim * CLUSTER, buf, CLUSTER), 0);
    ck_assert_mem_eq(buf, before, CLUSTER);
    co_qemu_sees_it(file);
    co_close_ok(file);
    return 0;
}

START_TEST(no_data_is_written_to_a_table)
{
    on_host(NULL, co_data_onto_table, &_i);
}
END_TEST

/* The set against an array. */
CO_TEST(the_set_holds_what_was_added)
{
    struct qcow2 q = {.header.cluster_bits = 9, .header.l1_offset = 1ULL << 50};
    static bool is[4096];
    uint64_t state = 5;
    q.header.refcount_table_offset = 1ULL << 51;
    q.guard.built = true;
    memset(is, 0, sizeof(is));
    for (int i = 0; i < 200000; i++) {
        uint64_t n = 1 + next_random(&state) % 4095;
        is[n] = next_random(&state) % 2;
        if (is[n])
            qcow2_guard_add(&q, n << 9, n & 1 ? QCOW2_GUARD_L2 : QCOW2_GUARD_BLOCK);
        else
            qcow2_guard_remove(&q, n << 9);
        uint64_t other = 1 + next_random(&state) % 4095;
        ck_assert(qcow2_guard_hits(&q, other, 1) == is[other]);
    }
    size_t count = 0;
    for (size_t n = 1; n < 4096; n++)
        count += is[n];
    ck_assert_uint_eq(count, q.guard.slots_used);
    qcow2_guard_drop(&q);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("qcow2_guard");
    TCase *tc = tcase_create("memory");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, no_structure_is_handed_out_though_its_count_is_zero);
    tcase_add_test(tc, tables_that_lie_one_in_another_are_not_written);
    tcase_add_test(tc, no_page_goes_to_another_structures_place);
    tcase_add_loop_test(tc, no_range_is_handed_out_though_its_count_is_zero, 0, RANGES);
    tcase_add_loop_test(tc, no_page_goes_to_a_range, 0, RANGES * 4);
    tcase_add_loop_test(tc, no_data_is_written_to_a_table, 0, 2);
    tcase_add_test(tc, the_set_holds_what_was_added);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

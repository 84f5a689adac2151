/* SPDX-License-Identifier: BSD-3-Clause */
/* recorded.c - bugs that other programs shipped in VHD, VHDX, VDI, QED and Parallels, each as a
 * test that its program fails. Those that only a crash shows (data on disk after the entry that
 * leads to it, footers that are missing) are every row of
 * tests/sweeps/{vhd,vhdx,vdi,qed,parallels}.c. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "block/fault.h"
#include "imgfmt/parallels.h"
#include "imgfmt/qed.h"
#include "imgfmt/vdi.h"
#include "imgfmt/vhd.h"
#include "imgfmt/vhdx.h"
#include "tests/lib/on_host.h"

struct subject {
    const struct blk_driver *driver;
    const char *create;
};
static const struct subject subjects[] = {
    {&vhd_driver, "force_size=on"},
    {&vhdx_driver, "block_size=1M"},
    {&vdi_driver, ""},
    {&qed_driver, ""},
    {&parallels_driver, ""},
};
#define DISK (16 * MiB)

static struct blk_device *co_new(const struct subject *s, uint64_t size)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=0", NULL);
    co_create_text(s->driver, s->create, file, size);
    return file;
}

static struct blk_device *co_open_it(const struct blk_driver *driver, struct blk_device *file)
{
    return co_open_text(driver, "", blk_ref(file));
}

#define PIECE (64 * KiB)

static int co_put(struct blk_device *dev, uint64_t at, int byte)
{
    static uint8_t buf[PIECE];
    memset(buf, byte, sizeof(buf));
    return co_blk_write_buf(dev, at, buf, sizeof(buf), 0);
}

static bool co_is(struct blk_device *dev, uint64_t at, int byte)
{
    static uint8_t buf[PIECE], want[PIECE];
    memset(want, byte, sizeof(want));
    return co_blk_read_buf(dev, at, buf, sizeof(buf)) == 0 && memcmp(buf, want, PIECE) == 0;
}

static void co_check_clean(struct blk_device *dev)
{
    struct blk_check c = {0};
    struct blk_error e = {0};
    must(co_blk_check(dev, &c, &e) == 0 && c.corruptions == 0);
}

/* --- after one call that failed --- */

/* Two writes to new places, of which something fails; who asked asks again for what was not done,
 * opening the image anew where that does not help. Then two more. */
static void co_write_four(const struct subject *s, struct blk_device *file, struct blk_device *dev,
                          struct blk_device *fault, const struct fault_rule *rule)
{
    fault_set(fault, rule);
    int a = co_put(dev, 0, 1), b = co_put(dev, 4 * MiB, 2), f = co_blk_flush(dev);
    fault_set(fault, NULL);
    if (a < 0)
        a = co_put(dev, 0, 1);
    if (b < 0)
        b = co_put(dev, 4 * MiB, 2);
    if (a == 0 && b == 0)
        f = co_blk_flush(dev);
    if (a < 0 || b < 0 || f < 0) {
        co_blk_close(dev, NULL);
        dev = co_open_it(s->driver, file);
        must(co_put(dev, 0, 1) == 0 && co_put(dev, 4 * MiB, 2) == 0);
    }
    must(co_put(dev, 8 * MiB, 3) == 0 && co_put(dev, 12 * MiB, 4) == 0);
    must(co_blk_flush(dev) == 0);
    co_blk_close(dev, NULL);
}

static bool co_one_fault(const struct subject *s, enum fault_op op, uint64_t n)
{
    struct fault_rule rule = {.op = op, .nth = n, .times = 1, .rc = -ENOSPC};
    struct blk_device *file = co_new(s, DISK);
    struct blk_device *fault = co_open_text(&fault_driver, "", blk_ref(file));
    struct blk_device *dev = co_open_text(s->driver, "", blk_ref(fault));
    co_write_four(s, file, dev, fault, &rule);
    bool fired = fault_fired(fault) > 0;
    co_close_ok(fault);
    dev = co_open_it(s->driver, file);
    must(co_is(dev, 0, 1) && co_is(dev, 4 * MiB, 2) && co_is(dev, 8 * MiB, 3) &&
         co_is(dev, 12 * MiB, 4));
    co_check_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
    return fired;
}

static int every_fault(void *arg)
{
    const struct subject *s = &subjects[*(int *)arg];
    static const enum fault_op ops[] = {FAULT_WRITE, FAULT_FLUSH, FAULT_ALL};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        for (uint64_t n = 1; co_one_fault(s, ops[i], n); n++)
            must(n < 200);
    return 0;
}

/* QEMU 7.2: VHD keeps the entry in memory and hands its place out again (27), VHDX keeps the entry
 * that its log refused (28), VDI and QED write "in place" what no entry on disk leads to (74). */
START_TEST(bugs_27_28_74_memory_says_more_than_the_file_after_a_failed_write)
{
    on_host(NULL, every_fault, &_i);
}
END_TEST

/* --- VHDX --- */

/* Disk2VHD writes both alike; they were taken for corrupt. */
CO_TEST(bug_30_two_headers_with_one_sequence_number)
{
    const struct subject s = {&vhdx_driver, "block_size=1M"};
    struct blk_device *file = co_new(&s, DISK);
    auto_free uint8_t *header = mem_alloc(4096);
    must(co_blk_read_buf(file, VHDX_HEADER_AT(0), header, 4096) == 0);
    must(co_blk_write_buf(file, VHDX_HEADER_AT(1), header, 4096, 0) == 0);
    for (int i = 0; i < 2; i++) {
        struct blk_device *dev = co_open_it(&vhdx_driver, file);
        must(i == 0 || co_is(dev, MiB, 7));
        must(co_put(dev, MiB, 7) == 0);
        co_close_ok(dev);
    }
    co_close_ok(file);
    return 0;
}

#define FIRST 500 /* blocks of 1 MiB around entry 512, where a page of the table begins */
#define LAST  523

/* The log's page was built 8 bytes off: 512 entries moved by one, and the last was lost. */
CO_TEST(bug_31a_an_entry_at_the_start_of_a_page_of_the_table)
{
    const struct subject s = {&vhdx_driver, "block_size=1M"};
    struct blk_device *file = co_new(&s, 600 * MiB);
    for (unsigned i = FIRST; i <= LAST; i++) { /* each by a writer of its own: one log entry */
        struct blk_device *dev = co_open_it(&vhdx_driver, file);
        must(co_put(dev, i * MiB, i % 251 + 1) == 0);
        co_close_ok(dev);
    }
    struct blk_device *dev = co_open_it(&vhdx_driver, file);
    for (unsigned i = FIRST; i <= LAST; i++)
        must(co_is(dev, i * MiB, i % 251 + 1));
    must(co_is(dev, 0, 0) && co_is(dev, (LAST + 1) * MiB, 0));
    co_check_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

/* "No valid VHDX header found" after one use. */
CO_TEST(bug_31_both_headers_are_whole_after_every_closing)
{
    const struct subject s = {&vhdx_driver, "block_size=1M"};
    struct blk_device *file = co_new(&s, DISK);
    auto_free struct vhdx_header_disk *raw = mem_array(2, sizeof(*raw));
    struct vhdx_header h;
    struct blk_error e = {0};
    for (unsigned use = 0; use < 5; use++) {
        struct blk_device *dev = co_open_it(&vhdx_driver, file);
        must(co_put(dev, use * MiB, 9) == 0);
        co_close_ok(dev);
        for (unsigned i = 0; i < 2; i++)
            must(co_blk_read_buf(file, VHDX_HEADER_AT(i), &raw[i], sizeof(raw[i])) == 0);
        struct vhdx_header_disk one[2] = {raw[0], raw[0]};
        must(vhdx_header_choose(one, file->size, &h, &e) == 0);
        one[0] = one[1] = raw[1];
        must(vhdx_header_choose(one, file->size, &h, &e) == 0);
    }
    co_close_ok(file);
    return 0;
}

/* Only the first 512 bytes of each were moved. */
CO_TEST(bug_33_sectors_of_4096_are_moved_whole)
{
    const struct subject s = {&vhdx_driver, "block_size=1M,logical_sector_size=4096"};
    struct blk_device *file = co_new(&s, DISK), *dev = co_open_it(&vhdx_driver, file);
    uint8_t data[3 * 4096], back[3 * 4096];
    uint64_t seed = 33;
    fill_random(&seed, data, sizeof(data));
    must(co_blk_write_buf(dev, 4096, data, sizeof(data), 0) == 0);
    co_close_ok(dev);
    dev = co_open_it(&vhdx_driver, file);
    must(co_blk_read_buf(dev, 4096, back, sizeof(back)) == 0);
    must(memcmp(data, back, sizeof(data)) == 0);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

/* --- VHD --- */

/* A request past the end overwrote what follows the disk. */
CO_TEST(bug_34_the_footer_of_a_fixed_disk_is_out_of_reach)
{
    const struct subject s = {&vhd_driver, "subformat=fixed,force_size=on"};
    struct blk_device *file = co_new(&s, MiB), *dev = co_open_it(&vhd_driver, file);
    uint8_t before[512], after[512], data[1024];
    memset(data, 1, sizeof(data));
    must(co_blk_read_buf(file, file->size - 512, before, 512) == 0);
    must(co_blk_write_buf(dev, MiB - 512, data, 1024, 0) < 0);
    must(co_blk_write_buf(dev, MiB, data, 512, 0) < 0);
    must(co_blk_write_buf(dev, UINT64_MAX - 511, data, 1024, 0) < 0);
    must(co_blk_write_zeroes(dev, MiB - 512, 1024, 0) < 0);
    must(co_blk_write_buf(dev, MiB - 512, data, 512, 0) == 0);
    co_close_ok(dev);
    must(co_blk_read_buf(file, file->size - 512, after, 512) == 0);
    must(memcmp(before, after, 512) == 0);
    co_close_ok(file);
    return 0;
}

static bool co_resize_fails(const struct subject *s, uint64_t to, uint64_t n)
{
    struct fault_rule rule = {.op = FAULT_ALL, .nth = n, .times = 1, .rc = -ENOSPC};
    struct blk_device *file = co_new(s, 8 * MiB);
    struct blk_device *fault = co_open_text(&fault_driver, "", blk_ref(file));
    struct blk_device *dev = co_open_text(&vhd_driver, "", blk_ref(fault));
    struct blk_error e = {0};
    uint8_t footer[512];
    must(co_put(dev, 0, 1) == 0 && co_put(dev, 3 * MiB, 2) == 0 && co_blk_flush(dev) == 0);
    fault_set(fault, &rule);
    int rc = co_blk_resize(dev, to, true, &e);
    bool fired = fault_fired(fault) > 0;
    fault_set(fault, NULL);
    co_blk_close(dev, NULL);
    co_close_ok(fault);
    must(co_blk_read_buf(file, file->size - 512, footer, 512) == 0 && vhd_is_footer(footer));
    dev = co_open_it(&vhd_driver, file);
    must(dev->size == to || (rc < 0 && dev->size == 8 * MiB));
    must(co_is(dev, 0, 1) && co_is(dev, 3 * MiB, 2));
    co_check_clean(dev);
    must(co_put(dev, dev->size - PIECE, 5) == 0 && co_is(dev, 3 * MiB, 2));
    co_close_ok(dev);
    co_close_ok(file);
    return fired;
}

/* Metadata was corrupt after a resize, the footer lost where space ran out. */
CO_TEST(bug_35_a_resize_without_space_leaves_a_whole_image_and_its_footer)
{
    const struct subject kinds[] = {{&vhd_driver, "force_size=on"},
                                    {&vhd_driver, "force_size=on,block_size=4k"},
                                    {&vhd_driver, "force_size=on,subformat=fixed"}};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        for (unsigned grow = 0; grow < 2; grow++)
            for (uint64_t n = 1; co_resize_fails(&kinds[i], grow ? 40 * MiB : 4 * MiB, n); n++)
                must(n < 400);
    return 0;
}

/* A scan of such images crashed. */
CO_TEST(bug_38_a_differencing_disk_without_a_parent)
{
    const struct subject s = {&vhd_driver, "force_size=on,backing_file=base.vhd,backing_fmt=vpc"};
    struct blk_device *file = co_new(&s, DISK), *dev;
    struct vhd_header_disk h;
    struct blk_error e = {0};
    must(co_blk_read_buf(file, 512, &h, sizeof(h)) == 0);
    memset(h.locators, 0, sizeof(h.locators));
    memset(h.parent_name, 0, sizeof(h.parent_name));
    vhd_seal_header(&h);
    must(co_blk_write_buf(file, 512, &h, sizeof(h), 0) == 0);
    must(co_try_open_text(&vhd_driver, "", BLK_OPEN_WRITE, blk_ref(file), &dev, &e) == -EINVAL);
    must(strstr(e.text, "does not name it"));
    co_close_ok(file);
    return 0;
}

/* --- QED --- */

#define TABLES 96 /* of 4 KiB each: more than the smallest cache holds */

/* A table was thrown out while it was used, and read again without the last change. */
CO_TEST(bug_20_tables_that_do_not_fit_into_the_cache_keep_their_changes)
{
    const struct subject s = {&qed_driver, "cluster_size=4k,table_size=1"};
    struct blk_device *file = co_new(&s, TABLES * 2 * MiB);
    struct blk_device *dev = co_open_text(&qed_driver, "cache-size=64k", blk_ref(file));
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < TABLES; i++)
            must(co_put(dev, i * 2 * MiB + round * PIECE, (int)(i + round) % 250 + 1) == 0);
    must(co_blk_flush(dev) == 0);
    co_close_ok(dev);
    dev = co_open_it(&qed_driver, file);
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < TABLES; i++)
            must(co_is(dev, i * 2 * MiB + round * PIECE, (int)(i + round) % 250 + 1));
    co_check_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("recorded");
    TCase *tc = tcase_create("recorded");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, bugs_27_28_74_memory_says_more_than_the_file_after_a_failed_write, 0,
                        ARRAY_LEN(subjects));
    tcase_add_test(tc, bug_30_two_headers_with_one_sequence_number);
    tcase_add_test(tc, bug_31a_an_entry_at_the_start_of_a_page_of_the_table);
    tcase_add_test(tc, bug_31_both_headers_are_whole_after_every_closing);
    tcase_add_test(tc, bug_33_sectors_of_4096_are_moved_whole);
    tcase_add_test(tc, bug_34_the_footer_of_a_fixed_disk_is_out_of_reach);
    tcase_add_test(tc, bug_35_a_resize_without_space_leaves_a_whole_image_and_its_footer);
    tcase_add_test(tc, bug_38_a_differencing_disk_without_a_parent);
    tcase_add_test(tc, bug_20_tables_that_do_not_fit_into_the_cache_keep_their_changes);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - VDI: the header's bounds, random work against an array of bytes, both ways against
 * qemu-img. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/fault.h"
#include "imgfmt/vdi.h"
#include "tests/lib/on_host.h"

static void create_on(struct blk_device *file, const char *options, uint64_t size, bool fresh)
{
    struct blk_error e = {0};
    struct blk_create c = {.file = file, .size = size, .fresh = fresh};
    ck_assert_msg(co_try_create_text(&vdi_driver, options, &c, &e) == 0, "create: %s", e.text);
}

static struct blk_device *open_on(struct blk_device *file, unsigned flags)
{
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    int rc = co_try_open_text(&vdi_driver, "", flags, blk_ref(file), &dev, &e);
    ck_assert_msg(rc == 0, "open: %s", e.text);
    return dev;
}

/* --- the header --- */

static struct vdi_header_disk good_header(void)
{
    struct vdi_header_disk raw = {0};
    raw.signature = le32_of(VDI_SIGNATURE);
    raw.version = le32_of(VDI_VERSION);
    raw.type = le32_of(VDI_DYNAMIC);
    raw.map_offset = le32_of(512);
    raw.data_offset = le32_of(1024);
    raw.sector_bytes = le32_of(512);
    raw.size = le64_of(100 * MiB);
    raw.block_bytes = le32_of(MiB);
    raw.blocks = le32_of(100);
    return raw;
}

START_TEST(header_bounds)
{
    struct vdi_header out;
    struct blk_error e;
    struct vdi_header_disk raw = good_header();
    ck_assert_int_eq(vdi_header_parse(&raw, 1024, false, &out, &e), 0);
    ck_assert_uint_eq(out.size, 100 * MiB);
#define REFUSED(field, value, rc)                                               \
    do {                                                                        \
        raw = good_header();                                                    \
        raw.field = value;                                                      \
        ck_assert_int_eq(vdi_header_parse(&raw, 1 * MiB, false, &out, &e), rc); \
        ck_assert(e.text[0]);                                                   \
    } while (0)
    REFUSED(signature, le32_of(0), -EINVAL);
    REFUSED(version, le32_of(0x20000), -ENOTSUP);
    REFUSED(type, le32_of(VDI_DIFFERENCING), -EINVAL); /* and no parent */
    REFUSED(type, le32_of(VDI_UNDO), -ENOTSUP);
    REFUSED(type, le32_of(77), -ENOTSUP);
    REFUSED(ids.parent[3], 1, -ENOTSUP);
    REFUSED(map_offset, le32_of(0), -EINVAL);
    REFUSED(map_offset, le32_of(513), -EINVAL);
    REFUSED(map_offset, le32_of(UINT32_MAX - 511), -EINVAL);
    REFUSED(data_offset, le32_of(512), -EINVAL);
    REFUSED(data_offset, le32_of(1025), -EINVAL);
    REFUSED(sector_bytes, le32_of(4096), -EINVAL);
    REFUSED(size, le64_of(100 * MiB + 1), -EINVAL);
    REFUSED(size, le64_of(UINT64_MAX), -EINVAL);
    REFUSED(block_bytes, le32_of(0), -EINVAL);
    REFUSED(block_bytes, le32_of(MiB + 1), -EINVAL);
    REFUSED(block_bytes, le32_of(1u << 31), -EINVAL);
    REFUSED(block_extra, le32_of(1), -ENOTSUP);
    REFUSED(blocks, le32_of(0x1fffff00), -EINVAL);
    REFUSED(blocks, le32_of(UINT32_MAX), -EINVAL);
#undef REFUSED
}
END_TEST

/* --- random work --- */

#define WORK_BYTES (9 * MiB + 512 * 3)

struct work {
    struct blk_device *file, *dev;
    uint8_t *model, *buffer;
    uint64_t seed;
    bool keeps_all; /* a static image: discard does nothing */
};

static void compare(struct work *w)
{
    ck_assert_int_eq(co_blk_read_buf(w->dev, 0, w->buffer, WORK_BYTES), 0);
    if (memcmp(w->buffer, w->model, WORK_BYTES) == 0)
        return;
    for (uint64_t i = 0; i < WORK_BYTES; i++)
        ck_assert_msg(w->buffer[i] == w->model[i], "byte %" PRIu64 ": %u, not %u", i, w->buffer[i],
                      w->model[i]);
}

static void one_step(struct work *w)
{
    uint64_t r = next_random(&w->seed);
    uint64_t most = r & 1 ? 3 * MiB : 20000;
    uint64_t at = next_random(&w->seed) % WORK_BYTES;
    uint64_t bytes = 1 + next_random(&w->seed) % MIN(most, WORK_BYTES - at);
    if (r >> 8 & 1) {
        at &= ~511ULL;
        bytes = MIN(align_up(bytes, 512), WORK_BYTES - at);
    }
    switch (r >> 16 & 7) {
    case 0:
        ck_assert_int_eq(co_blk_write_zeroes(w->dev, at, bytes, r >> 24 & 1 ? BLK_MAY_UNMAP : 0),
                         0);
        memset(w->model + at, 0, bytes);
        break;
    case 1:
        at = align_down(at, MiB);
        bytes = MIN(align_up(bytes, MiB), WORK_BYTES - at);
        ck_assert_int_eq(co_blk_discard(w->dev, at, bytes), 0);
        if (!w->keeps_all) /* no parent: a discarded block reads zero */
            memset(w->model + at, 0, bytes);
        break;
    case 2:
        ck_assert_int_eq(co_blk_flush(w->dev), 0);
        break;
    case 3:
        ck_assert_int_eq(co_blk_read_buf(w->dev, at, w->buffer, bytes), 0);
        ck_assert_mem_eq(w->buffer, w->model + at, bytes);
        break;
    default:
        fill_random(&w->seed, w->model + at, MIN(bytes, 4096));
        memset(w->model + at + MIN(bytes, 4096), r >> 32 & 0xff, bytes - MIN(bytes, 4096));
        ck_assert_int_eq(co_blk_write_buf(w->dev, at, w->model + at, bytes, r >> 24 & BLK_FUA), 0);
    }
}

static void check_clean_of_errors(struct blk_device *dev)
{
    struct blk_check c = {0};
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_check(dev, &c, &e), 0);
    ck_assert_uint_eq(c.corruptions, 0);
}

static void check_clean(struct blk_device *dev)
{
    struct blk_check c = {0};
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_check(dev, &c, &e), 0);
    ck_assert_uint_eq(c.corruptions, 0);
    ck_assert_uint_eq(c.leaks, 0);
}

static int random_work(void *arg)
{
    struct work w = {.seed = *(int *)arg};
    w.model = mem_zalloc(WORK_BYTES);
    w.buffer = mem_alloc(WORK_BYTES);
    w.file = co_open_text(&mem_driver, "size=0", NULL);
    create_on(w.file, "", WORK_BYTES, false);
    for (unsigned round = 0; round < 6; round++) {
        w.dev = open_on(w.file, BLK_OPEN_WRITE);
        ck_assert_uint_eq(w.dev->size, WORK_BYTES);
        check_clean(w.dev);
        compare(&w);
        for (unsigned i = 0; i < 60; i++)
            one_step(&w);
        compare(&w);
        co_close_ok(w.dev);
    }
    mem_free(w.model);
    mem_free(w.buffer);
    co_close_ok(w.file);
    return 0;
}

START_TEST(random_work_reads_back_and_closes_dense)
{
    on_host(NULL, random_work, &_i);
}
END_TEST

/* --- fresh images, repair, resizing --- */

CO_TEST(a_fresh_image_is_none_until_completed)
{
    struct blk_error e;
    struct blk_device *dev, *file = co_open_text(&mem_driver, "size=0", NULL);
    uint8_t byte = 5;
    create_on(file, "", 5 * MiB, true);
    ck_assert_int_eq(co_try_open_text(&vdi_driver, "", BLK_OPEN_WRITE, blk_ref(file), &dev, &e),
                     -EINVAL);
    dev = open_on(file, BLK_OPEN_WRITE | BLK_OPEN_FRESH);
    ck_assert_int_eq(co_blk_write_buf(dev, 3 * MiB, &byte, 1, 0), 0);
    co_close_ok(dev); /* closed without being completed: not an image */
    ck_assert_int_eq(co_try_open_text(&vdi_driver, "", BLK_OPEN_WRITE, blk_ref(file), &dev, &e),
                     -EINVAL);
    dev = open_on(file, BLK_OPEN_WRITE | BLK_OPEN_FRESH);
    ck_assert_int_eq(co_blk_complete(dev, &e), 0);
    co_close_ok(dev);
    dev = open_on(file, BLK_OPEN_WRITE);
    byte = 0;
    ck_assert_int_eq(co_blk_read_buf(dev, 3 * MiB, &byte, 1), 0);
    ck_assert_uint_eq(byte, 5);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

/* Makes an image of two blocks and puts @count into its header, @entry into its map's third. */
static struct blk_device *damaged(uint32_t count, uint32_t entry)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=0", NULL);
    uint8_t bytes[512];
    struct vdi_header_disk raw;
    memset(bytes, 3, sizeof(bytes));
    create_on(file, "", 5 * MiB, false);
    struct blk_device *dev = open_on(file, BLK_OPEN_WRITE);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, bytes, 512, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 1 * MiB, bytes, 512, 0), 0);
    co_close_ok(dev);
    ck_assert_int_eq(co_blk_read_buf(file, 0, &raw, sizeof(raw)), 0);
    ck_assert_uint_eq(le32_get(raw.allocated), 2);
    raw.allocated = le32_of(count);
    ck_assert_int_eq(co_blk_write_buf(file, 0, &raw, sizeof(raw), 0), 0);
    le32 third = le32_of(entry);
    ck_assert_int_eq(co_blk_write_buf(file, le32_get(raw.map_offset) + 8, &third, 4, 0), 0);
    return file;
}

static void check_finds(uint32_t count, uint32_t entry, uint64_t corruptions, uint64_t leaks)
{
    struct blk_error e;
    struct blk_device *file = damaged(count, entry), *dev = open_on(file, BLK_OPEN_WRITE);
    struct blk_check c = {0};
    ck_assert_int_eq(co_blk_check(dev, &c, &e), 0);
    ck_assert_uint_eq(c.corruptions, corruptions);
    ck_assert_uint_eq(c.leaks, leaks);
    uint8_t byte = 1;
    if (entry != VDI_FREE) { /* writing could do harm */
        struct blk_device *again = open_on(file, BLK_OPEN_WRITE);
        ck_assert_int_eq(co_blk_write_buf(again, 4 * MiB, &byte, 1, 0), -EROFS);
        co_close_ok(again);
    }
    c = (struct blk_check){.fix_leaks = true, .fix_errors = true};
    ck_assert_int_eq(co_blk_check(dev, &c, &e), 0);
    ck_assert_uint_eq(c.corruptions_fixed, corruptions);
    ck_assert_uint_eq(c.leaks_fixed, leaks);
    ck_assert_uint_eq(c.corruptions + c.leaks, 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 4 * MiB, &byte, 1, 0), 0);
    ck_assert_int_eq(co_blk_read_buf(dev, MiB, &byte, 1), 0);
    ck_assert_uint_eq(byte, 3);
    ck_assert_int_eq(co_blk_read_buf(dev, 2 * MiB, &byte, 1), 0); /* a double: a copy of its own */
    ck_assert_uint_eq(byte, entry == 1 ? 3 : 0);
    check_clean(dev);
    co_close_ok(dev);
    co_close_ok(file);
}

CO_TEST(check_finds_and_repairs_what_can_be)
{
    check_finds(2, VDI_FREE, 0, 0);
    check_finds(4, VDI_FREE, 0, 2);   /* the header counts too many: a leak */
    check_finds(1, VDI_FREE, 1, 0);   /* too few */
    check_finds(2, 1, 1, 0);          /* two entries own one block */
    check_finds(2, 0x7fffffff, 1, 0); /* out of range */
    return 0;
}

/* Sizes that make the map outgrow its room: it moves, and the first blocks with it. */
static int resizing(void *arg)
{
    static const uint64_t sizes[] = {9 * MiB + 512, 300 * GiB, 900 * GiB,       5 * MiB,
                                     512,           6 * MiB,   260 * GiB + 512, 10 * MiB};
    struct blk_error e;
    struct work w = {.seed = 4};
    w.model = mem_zalloc(WORK_BYTES);
    w.buffer = mem_alloc(WORK_BYTES);
    w.file = co_open_text(&mem_driver, "size=0", NULL);
    create_on(w.file, "", WORK_BYTES, false);
    w.dev = open_on(w.file, BLK_OPEN_WRITE);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        for (unsigned k = 0; k < 20 && w.dev->size >= WORK_BYTES; k++)
            one_step(&w);
        ck_assert_msg(co_blk_resize(w.dev, sizes[i], true, &e) == 0, "%s", e.text);
        ck_assert_uint_eq(w.dev->size, sizes[i]);
        if (sizes[i] < WORK_BYTES)
            memset(w.model + sizes[i], 0, WORK_BYTES - sizes[i]);
        uint64_t bytes = MIN(sizes[i], WORK_BYTES);
        ck_assert_int_eq(co_blk_read_buf(w.dev, 0, w.buffer, bytes), 0);
        ck_assert_mem_eq(w.buffer, w.model, bytes);
        if (i & 1) {
            co_close_ok(w.dev);
            w.dev = open_on(w.file, BLK_OPEN_WRITE);
            check_clean(w.dev);
        }
    }
    compare(&w);
    co_close_ok(w.dev);
    co_close_ok(w.file);
    mem_free(w.model);
    mem_free(w.buffer);
    return 0;
}

START_TEST(resizing_keeps_what_stays_and_shows_zeroes_behind)
{
    on_host(NULL, resizing, NULL);
}
END_TEST

/* --- growing, cut off --- */

#define NARROW_BLOCKS 100U

/* An image of which all blocks are owned, its map one sector, 28 entries short of full. */
static struct blk_device *narrow_image(void)
{
    struct blk_device *file = co_open_text(&mem_driver, "size=0", NULL);
    struct vdi_header_disk raw = good_header();
    uint8_t map[512], block[4096];
    memset(map, 0xff, sizeof(map));
    memset(block, 6, sizeof(block));
    raw.block_bytes = le32_of(sizeof(block));
    raw.size = le64_of(NARROW_BLOCKS * sizeof(block));
    raw.blocks = le32_of(NARROW_BLOCKS);
    ck_assert_int_eq(co_blk_write_buf(file, 0, &raw, sizeof(raw), 0), 0);
    ck_assert_int_eq(co_blk_write_buf(file, 512, map, sizeof(map), 0), 0);
    struct blk_device *dev = open_on(file, BLK_OPEN_WRITE);
    for (uint64_t i = 0; i < NARROW_BLOCKS; i++)
        ck_assert_int_eq(co_blk_write_buf(dev, i * sizeof(block), block, sizeof(block), 0), 0);
    co_close_ok(dev);
    return file;
}

/* What qemu-img check asks for: numbers below the count of blocks, none twice. */
static void numbers_are_low(struct blk_device *file)
{
    struct vdi_header_disk raw;
    bool seen[1000] = {0};
    ck_assert_int_eq(co_blk_read_buf(file, 0, &raw, sizeof(raw)), 0);
    for (uint32_t i = 0; i < le32_get(raw.blocks); i++) {
        le32 entry;
        ck_assert_int_eq(co_blk_read_buf(file, le32_get(raw.map_offset) + i * 4, &entry, 4), 0);
        uint32_t number = le32_get(entry);
        if (number == VDI_FREE)
            continue;
        ck_assert_uint_lt(number, le32_get(raw.blocks));
        ck_assert(!seen[number]);
        seen[number] = true;
    }
}

CO_TEST(growing_that_is_cut_off_leaves_numbers_that_peers_take)
{
    int rc = -EIO;
    for (unsigned nth = 1; rc < 0; nth++) {
        struct blk_error e;
        struct blk_device *file = narrow_image();
        struct blk_device *fault = co_open_text(&fault_driver, "", blk_ref(file));
        struct blk_device *dev = open_on(fault, BLK_OPEN_WRITE);
        struct fault_rule rule = {.op = FAULT_WRITE, .nth = nth, .rc = -EIO};
        fault_set(fault, &rule);
        rc = co_blk_resize(dev, 4096 * 300, true, &e);
        (void)!co_blk_close(dev, &e);
        co_close_ok(fault);
        numbers_are_low(file);
        dev = open_on(file, BLK_OPEN_WRITE);
        check_clean_of_errors(dev);
        co_close_ok(dev);
        co_close_ok(file);
        ck_assert_uint_lt(nth, 200);
    }
    return 0;
}

/* --- both ways against qemu-img --- */

static void run(const char *fmt, ...) printf_like(1, 2);
static void run(const char *fmt, ...)
{
    char command[500];
    va_list args;
    va_start(args, fmt);
    vsnprintf(command, sizeof(command), fmt, args);
    va_end(args);
    int rc = system(command);
    ck_assert_msg(rc == 0, "%s: status %d", command, rc);
}

static void put_file(const char *path, const uint8_t *bytes)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(bytes, 1, WORK_BYTES, f), WORK_BYTES);
    fclose(f);
}

static struct blk_device *open_file(const char *path)
{
    char options[300];
    snprintf(options, sizeof(options), "filename=%s", path);
    return co_open_text(&file_driver, options, NULL);
}

struct paths {
    char vdi[100], raw[100];
};

static void qemu_agrees(const struct paths *p, const uint8_t *model)
{
    run("qemu-img check -q -f vdi %s", p->vdi);
    put_file(p->raw, model);
    run("qemu-img compare -q -f vdi -F raw %s %s", p->vdi, p->raw);
}

static int both_ways(void *arg)
{
    int i = *(int *)arg;
    struct work w = {.seed = 1000 + i};
    struct paths p;
    const char *dir = getenv("TMPDIR");
    snprintf(p.vdi, sizeof(p.vdi), "%s/vdi-%d.vdi", dir ? dir : "/tmp", (int)getpid());
    snprintf(p.raw, sizeof(p.raw), "%s/vdi-%d.raw", dir ? dir : "/tmp", (int)getpid());
    w.model = mem_zalloc(WORK_BYTES);
    w.buffer = mem_alloc(WORK_BYTES);
    fill_random(&w.seed, w.model + 2 * MiB + 5000, 3 * MiB);
    put_file(p.raw, w.model);
    bool theirs = i % 2;
    if (theirs) {
        run("qemu-img convert -f raw -O vdi -o static=%s %s %s", i & 2 ? "on" : "off", p.raw,
            p.vdi);
    } else {
        run(": > %s", p.vdi);
        memset(w.model, 0, WORK_BYTES);
    }
    for (unsigned round = 0; round < 3; round++) {
        w.file = open_file(p.vdi);
        if (round == 0 && !theirs)
            create_on(w.file, i & 2 ? "static=on" : "", WORK_BYTES, false);
        w.dev = open_on(w.file, BLK_OPEN_WRITE);
        w.keeps_all = ((struct vdi *)w.dev->state)->h.type == VDI_STATIC;
        compare(&w);
        for (unsigned k = 0; k < 40; k++)
            one_step(&w);
        compare(&w);
        co_close_ok(w.dev);
        co_close_ok(w.file);
        qemu_agrees(&p, w.model);
    }
    unlink(p.vdi);
    unlink(p.raw);
    mem_free(w.model);
    mem_free(w.buffer);
    return 0;
}

START_TEST(qemu_img_agrees_both_ways)
{
    if (system("qemu-img --version >/dev/null 2>&1") == 0)
        on_host("threads", both_ways, &_i);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("vdi");
    TCase *tc = tcase_create("vdi");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, header_bounds);
    tcase_add_loop_test(tc, random_work_reads_back_and_closes_dense, 0, 8);
    tcase_add_test(tc, a_fresh_image_is_none_until_completed);
    tcase_add_test(tc, check_finds_and_repairs_what_can_be);
    tcase_add_test(tc, resizing_keeps_what_stays_and_shows_zeroes_behind);
    tcase_add_test(tc, growing_that_is_cut_off_leaves_numbers_that_peers_take);
    tcase_add_loop_test(tc, qemu_img_agrees_both_ways, 0, 4);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* layers.c - every small driver, alone and stacked, against a model that is an array of bytes. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/fault.h"
#include "block/log.h"
#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

#define DISK 200001ULL /* odd on purpose */

/* --- stacks ----------------------------------------------------------------------------------- */

static struct blk_device *co_mem(uint64_t size)
{
    char text[64];
    snprintf(text, sizeof(text), "size=%" PRIu64, size);
    return co_open_text(&mem_driver, text, NULL);
}

static struct blk_device *co_stack_mem(void)
{
    return co_mem(DISK);
}

static struct blk_device *co_stack_slice(void)
{
    return co_open_text(&slice_driver, "offset=777,size=200001", co_mem(DISK + 1000));
}

static struct blk_device *co_concat(struct blk_device *(*part)(uint64_t size))
{
    struct blk_child parts[3] = {
        {"child", part(70000)}, {"child", part(1)}, {"child", part(DISK - 70001)}};
    struct blk_device *dev = NULL;
    struct blk_error e = {0};
    int rc = co_blk_open(&concat_driver, NULL, NULL, BLK_OPEN_WRITE, NULL, parts, 3, &dev, &e);
    ck_assert_msg(rc == 0, "%s", e.text);
    return dev;
}

static struct blk_device *co_stack_concat(void)
{
    return co_concat(co_mem);
}

static struct blk_device *co_aligned_512(uint64_t size)
{
    return co_open_text(&fault_driver,
                        "op=read,nth=1,times=0,errno=none,delay=20000,request-align=512,"
                        "memory-align=512,max-transfer=5120,zero-align=4096",
                        co_mem(size));
}

static struct blk_device *co_stack_aligned_512(void)
{
    return co_aligned_512(DISK);
}

static struct blk_device *co_stack_aligned_4096(void)
{
    return co_open_text(&fault_driver,
                        "op=write,nth=1,times=0,errno=none,delay=10000,request-align=4096,"
                        "memory-align=4096",
                        co_mem(DISK));
}

static struct blk_device *co_stack_aligned_fixed(void)
{
    struct blk_device *mem = co_open_text(&mem_driver, "size=200001,growable=off", NULL);
    return co_open_text(&fault_driver, "request-align=4096,memory-align=512", mem);
}

static struct blk_device *co_stack_slice_of_aligned(void)
{
    return co_open_text(
        &slice_driver, "offset=777,size=200001",
        co_open_text(&fault_driver, "request-align=4096,max-transfer=8192", co_mem(DISK + 1000)));
}

static struct blk_device *co_stack_raw_log_concat(void)
{
    return co_open_text(&raw_driver, "",
                        co_open_text(&log_driver, "data=on", co_concat(co_aligned_512)));
}

static struct blk_device *co_stack_zeroes(void)
{
    return co_open_text(&zeroes_driver, "detect=unmap,discard=ignore", co_aligned_512(DISK));
}

static char scratch[64];

static struct blk_device *co_scratch_file(const char *options)
{
    char text[200];
    snprintf(text, sizeof(text), "filename=%s,%s", scratch, options);
    struct blk_device *file = co_open_text(&file_driver, text, NULL);
    ck_assert_int_eq(co_blk_resize(file, 0, true, NULL), 0);
    ck_assert_int_eq(co_blk_resize(file, DISK, true, NULL), 0);
    return co_open_text(&raw_driver, "", file);
}

static struct blk_device *co_stack_file(void)
{
    return co_scratch_file("cache=writeback");
}

static struct blk_device *co_stack_file_direct(void)
{
    return co_scratch_file("cache=none");
}

static struct blk_device *co_stack_file_through(void)
{
    return co_scratch_file("cache=directsync,discard=ignore");
}

static const struct stack {
    const char *name;
    struct blk_device *(*open)(void);
    bool on_disk;
} stacks[] = {
    {"mem", co_stack_mem, false},
    {"slice over mem", co_stack_slice, false},
    {"concat of mem", co_stack_concat, false},
    {"512-byte blocks, slow reads", co_stack_aligned_512, false},
    {"4096-byte blocks, slow writes", co_stack_aligned_4096, false},
    {"4096-byte blocks that cannot grow", co_stack_aligned_fixed, false},
    {"odd slice of 4096-byte blocks", co_stack_slice_of_aligned, false},
    {"raw over log over concat of blocks", co_stack_raw_log_concat, false},
    {"zeroes that are found", co_stack_zeroes, false},
    {"raw over file", co_stack_file, true},
    {"raw over file, O_DIRECT", co_stack_file_direct, true},
    {"raw over file, O_DIRECT and durable", co_stack_file_through, true},
};

/* --- the model -------------------------------------------------------------------------------- */

struct model {
    struct blk_device *dev;
    uint8_t *bytes;
    uint64_t from, end; /* the part of the disk that belongs to this one */
    uint64_t seed;
    unsigned steps;
};

/* A request's memory: up to four pieces at odd addresses. */
struct memory {
    uint8_t *base;
    struct iovec iov[4];
    struct vec vec;
};

static struct memory scatter(uint64_t *seed, uint64_t bytes)
{
    struct memory m = {.base = mem_aligned(bytes + 4 * 4096 + 64)};
    uint8_t *at = m.base;
    uint64_t left = bytes;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t part = i == 3 ? left : next_random(seed) % (left + 1);
        at += next_random(seed) % 3 == 0 ? next_random(seed) % 16 : 0;
        m.iov[i] = (struct iovec){at, part};
        at += part;
        left -= part;
    }
    m.vec = (struct vec){.bytes = bytes};
    return m;
}

static void step_read(struct model *m, uint64_t offset, uint64_t bytes)
{
    struct memory mem = scatter(&m->seed, bytes);
    mem.vec.iov = mem.iov;
    uint8_t *flat = mem_alloc(bytes + 1);
    must(co_blk_read(m->dev, offset, &mem.vec) == 0);
    vec_to_buf(&mem.vec, flat);
    must(memcmp(flat, m->bytes + offset, bytes) == 0);
    mem_free(flat);
    mem_free(mem.base);
}

static void step_write(struct model *m, uint64_t offset, uint64_t bytes)
{
    struct memory mem = scatter(&m->seed, bytes);
    mem.vec.iov = mem.iov;
    fill_random(&m->seed, m->bytes + offset, bytes);
    vec_from_buf(&mem.vec, m->bytes + offset);
    unsigned flags = next_random(&m->seed) % 8 == 0 ? BLK_FUA : 0;
    must(co_blk_write(m->dev, offset, &mem.vec, flags) == 0);
    mem_free(mem.base);
}

static void step_zeroes(struct model *m, uint64_t offset, uint64_t bytes)
{
    unsigned flags = next_random(&m->seed) & (BLK_MAY_UNMAP | BLK_NO_FALLBACK | BLK_FUA);
    int rc = co_blk_write_zeroes(m->dev, offset, bytes, flags);
    if (rc == -ENOTSUP && (flags & BLK_NO_FALLBACK)) /* then nothing was changed */
        return step_read(m, offset, bytes);
    must(rc == 0);
    memset(m->bytes + offset, 0, bytes);
}

static void step_discard(struct model *m, uint64_t offset, uint64_t bytes)
{
    uint8_t *now = mem_alloc(bytes + 1);
    must(co_blk_discard(m->dev, offset, bytes) == 0);
    must(co_blk_read_buf(m->dev, offset, now, bytes) == 0);
    for (uint64_t i = 0; i < bytes; i++)
        must(now[i] == 0 || now[i] == m->bytes[offset + i]);
    memcpy(m->bytes + offset, now, bytes);
    mem_free(now);
}

static void step_map(struct model *m, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        struct blk_extent ext;
        unsigned depth;
        must(co_blk_map_chain(m->dev, NULL, offset, bytes, &ext, &depth) == 0);
        must(ext.bytes > 0 && ext.bytes <= bytes && depth == 0);
        must((ext.flags & BLK_EXT_DATA) || (ext.flags & BLK_EXT_ZERO));
        if (ext.flags & BLK_EXT_ZERO)
            must(mem_is_zero(m->bytes + offset, ext.bytes));
        offset += ext.bytes;
        bytes -= ext.bytes;
    }
}

static int co_model_steps(void *arg)
{
    struct model *m = arg;
    for (unsigned i = 0; i < m->steps; i++) {
        uint64_t span = m->end - m->from;
        uint64_t offset = m->from + next_random(&m->seed) % (span + 1);
        uint64_t most = next_random(&m->seed) % 4 ? 3000 : span;
        uint64_t bytes = next_random(&m->seed) % (most + 1);
        bytes = MIN(bytes, m->end - offset);
        switch (next_random(&m->seed) % 10) {
        case 0:
        case 1:
        case 2:
            step_read(m, offset, bytes);
            break;
        case 3:
        case 4:
        case 5:
        case 6:
            step_write(m, offset, bytes);
            break;
        case 7:
            step_zeroes(m, offset, bytes);
            break;
        case 8:
            step_discard(m, offset, bytes);
            break;
        default:
            step_map(m, offset, bytes);
            if (i % 16 == 0)
                must(co_blk_flush(m->dev) == 0);
        }
    }
    return 0;
}

static int co_one_after_the_other(void *arg)
{
    const struct stack *stack = arg;
    uint8_t *bytes = mem_zalloc(DISK);
    struct model m = {stack->open(), bytes, 0, DISK, 11, stack->on_disk ? 300 : 1500};
    must(m.dev->size == DISK);
    co_model_steps(&m);
    m.from = 0;
    step_read(&m, 0, DISK);
    must(m.dev->size == DISK);
    co_close_ok(m.dev);
    mem_free(bytes);
    return 0;
}

/* Eight at once, each in a part of its own; the parts meet inside blocks, so read-modify-writes of
 * one and writes of another meet too. */
static int co_side_by_side(void *arg)
{
    const struct stack *stack = arg;
    uint8_t *bytes = mem_zalloc(DISK);
    struct blk_device *dev = stack->open();
    struct model parts[8];
    struct co_group group;
    co_group_init(&group, 0);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t begin = i * 5555ULL;
        parts[i] = (struct model){
            dev, bytes, begin, i == 7 ? DISK : begin + 5555, i + 1, stack->on_disk ? 60 : 300};
        co_group_start(&group, co_model_steps, &parts[i]);
    }
    must(co_group_wait(&group) == 0);
    struct model all = {dev, bytes, 0, DISK, 1, 0};
    step_read(&all, 0, DISK);
    co_close_ok(dev);
    mem_free(bytes);
    return 0;
}

START_TEST(random_requests_match_the_model)
{
    const struct stack *stack = &stacks[_i];
    snprintf(scratch, sizeof(scratch), "./layers-%d.raw", (int)getpid());
    fclose(fopen(scratch, "w"));
    on_host(NULL, co_one_after_the_other, (void *)stack);
    on_host(NULL, co_side_by_side, (void *)stack);
    remove(scratch);
}
END_TEST

/* --- fault, log ------------------------------------------------------------------------------- */

CO_TEST(faults_come_when_they_are_asked_for)
{
    struct blk_device *dev = co_open_text(&fault_driver, "", co_mem(10000));
    uint8_t a[1000], b[1000];
    memset(a, 7, sizeof(a));
    fault_set(dev, &(struct fault_rule){.op = FAULT_WRITE, .nth = 2, .times = 1, .rc = -ENOSPC});
    ck_assert_int_eq(co_blk_write_buf(dev, 0, a, 1000, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, a, 1000, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_write_buf(dev, 0, a, 1000, 0), 0);
    fault_set(dev, &(struct fault_rule){.op = FAULT_ALL, .nth = 1, .rc = -EIO});
    ck_assert_int_eq(co_blk_read_buf(dev, 0, a, 1000), -EIO);
    ck_assert_int_eq(co_blk_flush(dev), -EIO);
    ck_assert_int_eq(co_blk_discard(dev, 0, 10), -EIO);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 0, 10, 0), -EIO);
    fault_set(dev, &(struct fault_rule){
                       .op = FAULT_WRITE, .nth = 1, .times = 1, .rc = -EIO, .short_bytes = 10});
    memset(a, 9, sizeof(a));
    ck_assert_int_eq(co_blk_write_buf(dev, 0, a, 1000, 0), -EIO);
    fault_set(dev, NULL);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, b, 1000), 0);
    ck_assert_int_eq(b[9], 9);
    ck_assert_int_eq(b[10], 7);
    ck_assert_uint_eq(fault_fired(dev), 6);
    uint64_t before = worker_now();
    fault_set(dev, &(struct fault_rule){.op = FAULT_READ, .nth = 1, .delay_ns = 2000000});
    ck_assert_int_eq(co_blk_read_buf(dev, 0, b, 1000), 0);
    ck_assert_uint_ge(worker_now() - before, 2000000);
    co_close_ok(dev);
    return 0;
}

/* What goes down through it, as a log says. */
CO_TEST(zeroes_are_found_and_discards_dropped)
{
    struct blk_device *file = co_mem(0);
    struct blk_child children[] = {{"file", co_mem(10000)}, {"log", blk_ref(file)}};
    struct blk_device *log, *dev;
    struct blk_error e = {0};
    static const uint8_t zero[600];
    uint8_t odd[600] = {[599] = 1};
    ck_assert_int_eq(
        co_blk_open(&log_driver, "log", NULL, BLK_OPEN_WRITE, NULL, children, 2, &log, &e), 0);
    dev = co_open_text(&zeroes_driver, "detect=on,discard=ignore", log);
    ck_assert_int_eq(co_blk_write_buf(dev, 7, zero, sizeof(zero), BLK_FUA), 0);
    ck_assert_int_eq(co_blk_discard(dev, 0, 5000), 0);
    ck_assert_int_eq(co_blk_write_buf(dev, 7, odd, sizeof(odd), 0), 0);
    ck_assert_uint_eq(log_count(log), 2);
    ck_assert_int_eq(log_at(log, 0)->op, LOG_ZERO);
    ck_assert_int_eq(log_at(log, 0)->flags, BLK_FUA);
    ck_assert_int_eq(log_at(log, 1)->op, LOG_WRITE);
    co_close_ok(dev);
    co_close_ok(file);
    return 0;
}

CO_TEST(a_log_reads_back)
{
    struct blk_device *file = co_mem(0);
    struct blk_child children[] = {{"file", co_mem(10000)}, {"log", blk_ref(file)}};
    json_t *tree = json_pack("{s:b}", "data", 1);
    struct blk_device *dev;
    struct blk_error e = {0};
    ck_assert_int_eq(
        co_blk_open(&log_driver, "log", tree, BLK_OPEN_WRITE, NULL, children, 2, &dev, &e), 0);
    json_decref(tree);
    uint8_t a[100];
    memset(a, 3, sizeof(a));
    ck_assert_int_eq(co_blk_write_buf(dev, 50, a, 100, BLK_FUA), 0);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 60, 5, BLK_MAY_UNMAP), 0);
    ck_assert_int_eq(co_blk_discard(dev, 70, 5), 0);
    ck_assert_int_eq(co_blk_flush(dev), 0);
    ck_assert_uint_eq(log_count(dev), 4);
    ck_assert_int_eq(log_at(dev, 0)->flags, BLK_FUA);
    co_close_ok(dev);

    struct log_record *records;
    size_t count;
    ck_assert_int_eq(co_log_read(file, &records, &count, &e), 0);
    ck_assert_uint_eq(count, 4);
    ck_assert_int_eq(records[0].op, LOG_WRITE);
    ck_assert_uint_eq(records[0].offset, 50);
    ck_assert_mem_eq(records[0].data, a, 100);
    ck_assert_uint_eq(records[0].hash, log_hash(&VEC_BUF(a, 100)));
    ck_assert_int_eq(records[1].op, LOG_ZERO);
    ck_assert_uint_eq(records[1].flags, BLK_MAY_UNMAP);
    ck_assert_int_eq(records[2].op, LOG_DISCARD);
    ck_assert_int_eq(records[3].op, LOG_FLUSH);
    ck_assert_uint_eq(records[3].began, 3);
    log_drop(records, count);
    ck_assert_int_eq(co_blk_resize(file, file->size - 20, true, &e), 0); /* a torn tail */
    ck_assert_int_eq(co_log_read(file, &records, &count, &e), 0);
    ck_assert_uint_eq(count, 3);
    log_drop(records, count);
    co_close_ok(file);
    return 0;
}

/* --- bad options ------------------------------------------------------------------------------ */

CO_TEST(bad_options_are_refused_with_a_sentence)
{
    static const struct {
        const struct blk_driver *driver;
        const char *options;
    } rows[] = {
        {&slice_driver, "offset=1001"},
        {&slice_driver, "offset=500,size=501"},
        {&slice_driver, "size=8E"},
        {&raw_driver, "offset=1001"},
        {&raw_driver, "offset=900,size=200"},
        {&fault_driver, "request-align=3"},
        {&fault_driver, "request-align=512,max-transfer=100"},
        {&fault_driver, "op=nonsense"},
        {&slice_driver, "sise=10"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct blk_device *dev = NULL;
        struct blk_error e = {0};
        int rc = co_try_open_text(rows[i].driver, rows[i].options, 0, co_mem(1000), &dev, &e);
        ck_assert_msg(rc == -EINVAL || rc == -ERANGE, "%s: %d", rows[i].options, rc);
        ck_assert_msg(e.text[0] != 0, "%s", rows[i].options);
    }
    return 0;
}

int main(void)
{
    Suite *s = suite_create("layers");
    TCase *tc = tcase_create("layers");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, random_requests_match_the_model, 0, ARRAY_LEN(stacks));
    tcase_add_test(tc, faults_come_when_they_are_asked_for);
    tcase_add_test(tc, zeroes_are_found_and_discards_dropped);
    tcase_add_test(tc, a_log_reads_back);
    tcase_add_test(tc, bad_options_are_refused_with_a_sentence);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

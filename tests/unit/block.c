/* SPDX-License-Identifier: BSD-3-Clause */
/* block.c - the waist: ranges, defaults, fragments, the life of devices, chains. Random requests
 * against a model are in layers.c. */
#include <check.h>

#include "block/fault.h"
#include "block/host_sim.h"
#include "imgfmt/raw.h"
#include "tests/lib/on_host.h"

static struct blk_device *co_mem(const char *options)
{
    return co_open_text(&mem_driver, options, NULL);
}

/* --- a driver that does as little as a driver may --------------------------------------------- */

struct plain {
    unsigned flushes, writes, flags;
};

static int co_plain_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    dev->size = file->size;
    return 0;
}
static int co_plain_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return co_blk_read(dev->children[0].dev, offset, to);
}
static int co_plain_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                          unsigned flags)
{
    struct plain *p = dev->state;
    p->writes++;
    p->flags |= flags;
    return co_blk_write(dev->children[0].dev, offset, from, flags);
}
static int co_plain_flush(struct blk_device *dev)
{
    ((struct plain *)dev->state)->flushes++;
    return co_blk_flush(dev->children[0].dev);
}
static const struct blk_driver plain_driver = {
    .name = "plain",
    .co_open = co_plain_open,
    .co_read = co_plain_read,
    .co_write = co_plain_write,
    .co_flush = co_plain_flush,
};

/* One that holds nothing: all of it shows through from "backing". */
static int co_hole_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    dev->size = 100000;
    return 0;
}
static int co_hole_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                       struct blk_extent *out)
{
    uint64_t unit = 10000, index = offset / unit;
    *out = (struct blk_extent){.bytes = MIN(bytes, unit - offset % unit)};
    if (index == 0)
        out->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED;
    if (index == 1)
        out->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED;
    return 0;
}
static const struct blk_driver hole_driver = {
    .name = "hole", .co_open = co_hole_open, .co_map = co_hole_map};

/* A growable one of 4096-byte blocks that answers a while after the bytes are there. */
static int co_late_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    TRY(co_plain_open(dev, opts, opener, e));
    dev->limits.request_align = 4096;
    dev->limits.growable = true;
    return 0;
}
static int co_late_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct blk_device *child = dev->children[0].dev;
    struct vec inside = vec_slice(to, 0, MIN(to->bytes, child->size - offset));
    vec_fill(to, 0);
    return co_blk_read(child, offset, &inside);
}
static int co_late_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                         unsigned flags)
{
    int rc = co_blk_write(dev->children[0].dev, offset, from, flags);
    co_sleep(20000 * (1 + offset / 4096 % 7));
    return rc;
}
static int co_late_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    return co_blk_resize(dev->children[0].dev, size, shrink, e);
}
static const struct blk_driver late_driver = {
    .name = "late",
    .co_open = co_late_open,
    .co_read = co_late_read,
    .co_write = co_late_write,
    .co_resize = co_late_resize,
};

/* --- ranges and rights ------------------------------------------------------------------------ */

CO_TEST(out_of_range_is_an_error_not_a_crash)
{
    struct blk_device *mem = co_mem("size=1000,growable=off");
    uint8_t buf[2000] = {0};
    struct blk_extent ext;
    ck_assert_int_eq(co_blk_read_buf(mem, 990, buf, 10), 0);
    ck_assert_int_eq(co_blk_read_buf(mem, 990, buf, 11), -EINVAL);
    ck_assert_int_eq(co_blk_read_buf(mem, UINT64_MAX, buf, 2), -EINVAL);
    ck_assert_int_eq(co_blk_write_buf(mem, 990, buf, 11, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_write_buf(mem, UINT64_MAX - 1, buf, 11, 0), -EINVAL);
    ck_assert_int_eq(co_blk_write_zeroes(mem, 1000, 1, 0), -ENOSPC);
    ck_assert_int_eq(co_blk_write_zeroes(mem, 1, UINT64_MAX, 0), -EINVAL);
    ck_assert_int_eq(co_blk_discard(mem, 999, 2), -EINVAL);
    ck_assert_int_eq(co_blk_map(mem, 1000, 1, &ext), -EINVAL);
    ck_assert_int_eq(co_blk_map(mem, 10, 0, &ext), -EINVAL);
    ck_assert_int_eq(co_blk_read_buf(mem, 1000, buf, 0), 0);
    ck_assert_int_eq(co_blk_write_buf(mem, 1000, buf, 0, 0), 0);
    struct blk_place p;
    ck_assert(!blk_resolve(mem, 5000, 10, false, &p));
    co_close_ok(mem);
    return 0;
}

CO_TEST(a_read_only_device_takes_no_change)
{
    struct blk_device *mem;
    struct blk_error e = {0};
    uint8_t buf[10] = {0};
    ck_assert_int_eq(co_try_open_text(&mem_driver, "size=1000", 0, NULL, &mem, &e), 0);
    ck_assert_int_eq(co_blk_write_buf(mem, 0, buf, 10, 0), -EROFS);
    ck_assert_int_eq(co_blk_write_zeroes(mem, 0, 10, 0), -EROFS);
    ck_assert_int_eq(co_blk_discard(mem, 0, 10), -EROFS);
    ck_assert_int_eq(co_blk_resize(mem, 10, true, &e), -EROFS);
    ck_assert_int_eq(co_blk_flush(mem), 0);
    ck_assert_int_eq(co_blk_reopen(mem, true, &e), 0);
    ck_assert_int_eq(co_blk_write_buf(mem, 0, buf, 10, 0), 0);
    blk_mark_corrupt(mem);
    ck_assert_int_eq(co_blk_write_buf(mem, 0, buf, 10, 0), -EROFS);
    ck_assert_int_eq(co_blk_reopen(mem, true, &e), -EROFS);
    co_close_ok(mem);
    return 0;
}

/* --- fragments, edges ------------------------------------------------------------------------- */

CO_TEST(any_failed_fragment_fails_the_request)
{
    static uint8_t buf[40960];
    for (unsigned n = 1; n <= 10; n++) {
        struct blk_device *dev =
            co_open_text(&fault_driver, "max-transfer=4096", co_mem("size=40960"));
        fault_set(dev, &(struct fault_rule){.op = FAULT_WRITE, .nth = n, .times = 1, .rc = -EIO});
        ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, sizeof(buf), 0), -EIO);
        fault_set(dev, &(struct fault_rule){.op = FAULT_READ, .nth = n, .times = 1, .rc = -EIO});
        ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), -EIO);
        ck_assert_uint_eq(fault_fired(dev), 2);
        co_close_ok(dev);
    }
    return 0;
}

/* Bug 75 of the catalogue: what was not read must not be written. */
CO_TEST(a_failed_edge_read_fails_the_write)
{
    struct blk_device *mem = co_mem("size=8192");
    struct blk_device *dev = co_open_text(&fault_driver, "request-align=4096", blk_ref(mem));
    uint8_t before[8192], after[8192], data[100];
    memset(before, 0x55, sizeof(before));
    memset(data, 0xaa, sizeof(data));
    ck_assert_int_eq(co_blk_write_buf(mem, 0, before, sizeof(before), 0), 0);
    for (unsigned n = 1; n <= 2; n++) {
        fault_set(dev, &(struct fault_rule){
                           .op = FAULT_READ, .nth = n, .times = 1, .rc = -EIO, .short_bytes = 17});
        ck_assert_int_eq(co_blk_write_buf(dev, 4050, data, sizeof(data), 0), -EIO);
        ck_assert_int_eq(co_blk_read_buf(mem, 0, after, sizeof(after)), 0);
        ck_assert_mem_eq(before, after, sizeof(before));
    }
    fault_set(dev, NULL);
    ck_assert_int_eq(co_blk_write_buf(dev, 4050, data, sizeof(data), 0), 0);
    memcpy(before + 4050, data, sizeof(data));
    ck_assert_int_eq(co_blk_read_buf(mem, 0, after, sizeof(after)), 0);
    ck_assert_mem_eq(before, after, sizeof(before));
    co_close_ok(dev);
    co_close_ok(mem);
    return 0;
}

struct two_writes {
    struct blk_device *dev;
    uint64_t offset;
    uint8_t byte;
    uint64_t bytes;
};

static int co_write_byte(void *arg)
{
    const struct two_writes *w = arg;
    uint8_t *data = mem_aligned(w->bytes);
    memset(data, w->byte, w->bytes);
    int rc = co_blk_write_buf(w->dev, w->offset, data, w->bytes, 0);
    mem_free(data);
    return rc;
}

/* Two aligned writes that do not meet run in parallel; two edges of one block do not. In virtual
 * time. */
static int co_side_by_side(void *arg)
{
    struct blk_device *dev =
        co_open_text(&fault_driver, "request-align=4096,op=write,times=0,errno=none,delay=20000000",
                     co_mem("size=65536"));
    struct two_writes apart[] = {{dev, 0, 1, 4096}, {dev, 4096, 2, 4096}};
    struct two_writes edges[] = {{dev, 10, 3, 50}, {dev, 100, 4, 50}};
    struct co_group group;
    uint64_t start = worker_now();
    co_group_init(&group, 0);
    for (unsigned i = 0; i < 2; i++)
        co_group_start(&group, co_write_byte, &apart[i]);
    ck_assert_int_eq(co_group_wait(&group), 0);
    uint64_t parallel = worker_now() - start;
    start = worker_now();
    co_group_init(&group, 0);
    for (unsigned i = 0; i < 2; i++)
        co_group_start(&group, co_write_byte, &edges[i]);
    ck_assert_int_eq(co_group_wait(&group), 0);
    uint64_t serial = worker_now() - start;
    ck_assert_uint_ge(parallel, 20000000);
    ck_assert_uint_lt(parallel, 21000000);
    ck_assert_uint_ge(serial, 40000000);
    uint8_t back[150];
    ck_assert_int_eq(co_blk_read_buf(dev, 0, back, sizeof(back)), 0);
    ck_assert(back[9] == 1 && back[10] == 3 && back[59] == 3 && back[60] == 1 && back[100] == 4);
    co_close_ok(dev);
    return 0;
}

START_TEST(only_writes_that_meet_in_a_block_wait)
{
    struct host *h;
    ck_assert_int_eq(host_sim_open(&(struct sim_options){.seed = 1}, &h), 0);
    on_this_host(h, co_side_by_side, NULL);
    host_close(h);
}
END_TEST

/* --- defaults --------------------------------------------------------------------------------- */

CO_TEST(what_a_driver_leaves_out_has_a_default)
{
    struct blk_device *mem = co_mem("size=100000");
    struct blk_device *dev = co_open_text(&plain_driver, "", blk_ref(mem));
    struct plain state = {0};
    static uint8_t buf[100000];
    struct blk_extent ext;
    dev->state = &state;
    memset(buf, 5, sizeof(buf));
    ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, sizeof(buf), BLK_FUA), 0);
    ck_assert_uint_eq(state.flushes, 1); /* FUA made of a flush */
    ck_assert_uint_eq(state.flags & BLK_FUA, 0);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 1, 99998, BLK_NO_FALLBACK), -ENOTSUP);
    ck_assert_uint_eq(state.writes, 1);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 1, 99998, BLK_MAY_UNMAP | BLK_FUA), 0);
    ck_assert_uint_eq(state.flushes, 2);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), 0);
    ck_assert(buf[0] == 5 && buf[99999] == 5 && mem_is_zero(buf + 1, 99998));
    ck_assert_int_eq(co_blk_discard(dev, 0, 1), 0);
    ck_assert_int_eq(co_blk_map(dev, 7, 70000, &ext), 0);
    ck_assert_uint_eq(ext.flags, BLK_EXT_DATA | BLK_EXT_ALLOCATED);
    ck_assert_uint_eq(ext.bytes, 70000);
    struct blk_error e = {0};
    ck_assert_int_eq(co_blk_resize(dev, 10, true, &e), -ENOTSUP);
    ck_assert_str_eq(e.text, "Image format driver does not support resize");
    struct blk_check check = {0};
    ck_assert_int_eq(co_blk_check(dev, &check, &e), -ENOTSUP);
    ck_assert_str_eq(e.text, "This image format does not support checks");
    struct blk_info info;
    ck_assert_int_eq(co_blk_info(dev, &info, &e), 0);
    ck_assert_uint_eq(info.virtual_size, 100000);
    ck_assert_uint_eq(info.actual_size, 2 * 65536); /* mem's, through the child */
    blk_info_drop(&info);
    co_close_ok(dev);
    co_close_ok(mem);
    return 0;
}

CO_TEST(flush_reaches_every_child_and_gives_the_first_error)
{
    struct blk_child parts[2];
    for (unsigned i = 0; i < 2; i++)
        parts[i] = (struct blk_child){"child", co_open_text(&fault_driver, "", co_mem("size=10"))};
    struct blk_device *dev;
    ck_assert_int_eq(
        co_blk_open(&concat_driver, "", NULL, BLK_OPEN_WRITE, NULL, parts, 2, &dev, NULL), 0);
    ck_assert_int_eq(co_blk_flush(dev), 0);
    ck_assert_uint_eq(fault_seen(parts[0].dev, FAULT_FLUSH), 1);
    ck_assert_uint_eq(fault_seen(parts[1].dev, FAULT_FLUSH), 1);
    fault_set(parts[1].dev, &(struct fault_rule){.op = FAULT_FLUSH, .nth = 1, .rc = -EIO});
    ck_assert_int_eq(co_blk_flush(dev), -EIO);
    ck_assert_uint_eq(fault_seen(parts[0].dev, FAULT_FLUSH), 2);
    co_close_ok(dev);
    return 0;
}

/* Bugs 46, 49: never round outward. */
CO_TEST(odd_zeroes_stay_inside_the_request)
{
    struct blk_device *dev =
        co_open_text(&fault_driver, "zero-align=4096,request-align=512", co_mem("size=20000"));
    static uint8_t buf[20000];
    static const struct {
        uint64_t offset, bytes;
    } rows[] = {{1, 1},        {511, 2},      {4095, 2},  {4096, 4096}, {4097, 4095},
                {4000, 9000},  {0, 4095},     {8191, 1},  {19999, 1},   {12288, 7712},
                {12289, 7711}, {16384, 3616}, {0, 20000}, {100, 12188}, {16383, 3617}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        memset(buf, 1, sizeof(buf));
        ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, sizeof(buf), 0), 0);
        ck_assert_int_eq(co_blk_write_zeroes(dev, rows[i].offset, rows[i].bytes, 0), 0);
        ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), 0);
        for (uint64_t at = 0; at < sizeof(buf); at++)
            must(buf[at] == (at < rows[i].offset || at >= rows[i].offset + rows[i].bytes));
    }
    ck_assert_uint_eq(dev->size, 20000);
    co_close_ok(dev);
    return 0;
}

/* --- growing ---------------------------------------------------------------------------------- */

static int co_grow(struct blk_device *dev)
{
    uint8_t byte = 9, buf[3000];
    ck_assert_int_eq(co_blk_write_buf(dev, 1000, &byte, 1, 0), 0);
    ck_assert_uint_eq(dev->size, 1001);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 1500, 500, 0), 0);
    ck_assert_uint_eq(dev->size, 2000);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, 2000), 0);
    ck_assert(mem_is_zero(buf, 1000) && buf[1000] == 9 && mem_is_zero(buf + 1001, 999));
    return 0;
}

CO_TEST(a_growable_device_grows_to_the_byte)
{
    struct blk_device *mem = co_mem("size=0");
    co_grow(mem);
    co_close_ok(mem);
    mem = co_mem("size=0");
    struct blk_device *dev = co_open_text(&fault_driver, "request-align=512", blk_ref(mem));
    co_grow(dev);
    ck_assert_uint_eq(mem->size, 2000); /* padding was cut off again */
    co_close_ok(dev);
    co_close_ok(mem);
    return 0;
}

/* What a failed write left behind the end must not show when the device grows over it. */
CO_TEST(a_failed_growing_write_leaves_nothing_behind)
{
    struct blk_device *dev = co_open_text(&fault_driver, "", co_mem("size=1000"));
    uint8_t buf[4000];
    memset(buf, 7, sizeof(buf));
    fault_set(dev,
              &(struct fault_rule){
                  .op = FAULT_WRITE, .nth = 1, .times = 1, .rc = -ENOSPC, .short_bytes = 2000});
    ck_assert_int_eq(co_blk_write_buf(dev, 500, buf, 4000, 0), -ENOSPC);
    ck_assert_uint_eq(dev->size, 1000);
    ck_assert_int_eq(co_blk_write_buf(dev, 3999, buf, 1, 0), 0);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, 4000), 0);
    ck_assert(mem_is_zero(buf + 1000, 2999) && buf[3999] == 7);
    co_close_ok(dev);
    return 0;
}

static int co_append(void *arg)
{
    return co_write_byte(arg);
}

/* Odd appends side by side: nobody's padding or cutting takes another's bytes. */
CO_TEST(parallel_appends_lose_nothing)
{
    struct blk_device *dev = co_open_text(&late_driver, "", co_mem("size=0"));
    struct two_writes parts[40];
    struct co_group group;
    uint64_t seed = 5, end = 0;
    co_group_init(&group, 0);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        uint64_t slot = (i * 7) % ARRAY_LEN(parts); /* out of order */
        parts[i] = (struct two_writes){dev, slot * 3000, (uint8_t)(slot + 1),
                                       1 + next_random(&seed) % 3000};
        end = MAX(end, parts[i].offset + parts[i].bytes);
        co_group_start(&group, co_append, &parts[i]);
    }
    ck_assert_int_eq(co_group_wait(&group), 0);
    ck_assert_uint_eq(dev->size, end);
    uint8_t *all = mem_alloc(end);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, all, end), 0);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        for (uint64_t k = 0; k < 3000 && parts[i].offset + k < end; k++)
            must(all[parts[i].offset + k] == (k < parts[i].bytes ? parts[i].byte : 0));
    }
    mem_free(all);
    co_close_ok(dev);
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

struct slow {
    struct blk_device *dev;
    bool done;
    int rc;
};

static void slow_read(void *arg)
{
    struct slow *s = arg;
    uint8_t buf[100];
    s->rc = co_blk_read_buf(s->dev, 0, buf, sizeof(buf));
    s->done = true;
}

CO_TEST(closing_waits_for_the_last_request)
{
    struct blk_device *dev = co_open_text(&fault_driver, "op=read,times=0,errno=none,delay=5000000",
                                          co_mem("size=1000"));
    struct slow slow[3] = {{.dev = dev}, {.dev = dev}, {.dev = dev}};
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(co_start(slow_read, &slow[i]), 0);
    ck_assert(!slow[0].done && !slow[2].done);
    co_close_ok(dev);
    for (unsigned i = 0; i < 3; i++)
        ck_assert(slow[i].done && slow[i].rc == 0);
    return 0;
}

static void resize_and_check(void *arg)
{
    struct slow *s = arg;
    s->rc = co_blk_resize(s->dev, 500, true, NULL);
    s->done = true;
}

CO_TEST(a_resize_waits_and_makes_others_wait)
{
    struct blk_device *dev = co_open_text(&fault_driver, "op=read,times=1,errno=none,delay=5000000",
                                          co_mem("size=1000"));
    struct slow first = {.dev = dev}, resize = {.dev = dev};
    uint8_t buf[1000];
    ck_assert_int_eq(co_start(slow_read, &first), 0);
    ck_assert_int_eq(co_start(resize_and_check, &resize), 0);
    ck_assert(!first.done && !resize.done);
    /* behind the gate: the size is the new one when it runs */
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, 1000), -EINVAL);
    ck_assert(first.done && resize.done && first.rc == 0 && resize.rc == 0);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, 500), 0);
    co_close_ok(dev);
    return 0;
}

CO_TEST(quiesce_waits_for_older_requests_only)
{
    struct blk_device *mem = co_mem("size=1000");
    struct blk_device *dev =
        co_open_text(&fault_driver, "op=read,times=1,errno=none,delay=5000000", blk_ref(mem));
    struct slow old = {.dev = dev};
    ck_assert_int_eq(co_start(slow_read, &old), 0);
    co_blk_quiesce(mem); /* the request entered above it */
    ck_assert(old.done);
    co_blk_quiesce(mem);
    co_close_ok(dev);
    co_close_ok(mem);
    return 0;
}

struct ear {
    struct blk_listener listener;
    unsigned heard[4];
};

static void on_event(struct blk_listener *l, struct blk_device *dev, enum blk_event ev)
{
    container_of(l, struct ear, listener)->heard[ev]++;
}

CO_TEST(listeners_hear_of_sizes_and_damage)
{
    struct blk_device *mem = co_mem("size=1000");
    struct ear a = {.listener.on_event = on_event}, b = a;
    blk_listen(mem, &a.listener);
    blk_listen(mem, &b.listener);
    ck_assert_int_eq(co_blk_resize(mem, 2000, false, NULL), 0);
    blk_unlisten(mem, &a.listener);
    blk_mark_corrupt(mem);
    blk_mark_corrupt(mem);
    ck_assert_uint_eq(a.heard[BLK_EV_RESIZED], 1);
    ck_assert_uint_eq(b.heard[BLK_EV_RESIZED], 1);
    ck_assert_uint_eq(a.heard[BLK_EV_MARKED_CORRUPT], 0);
    ck_assert_uint_eq(b.heard[BLK_EV_MARKED_CORRUPT], 1);
    co_close_ok(mem);
    return 0;
}

CO_TEST(a_shared_child_lives_as_long_as_its_last_parent)
{
    struct blk_device *mem = co_mem("size=1000");
    struct blk_device *a = co_open_text(&slice_driver, "size=500", blk_ref(mem));
    struct blk_device *b = co_open_text(&slice_driver, "offset=500", mem);
    uint8_t byte = 3;
    co_close_ok(a);
    ck_assert_int_eq(co_blk_write_buf(b, 0, &byte, 1, 0), 0);
    co_close_ok(b);
    return 0;
}

/* All of the data path, called from a worker that is not the device's home. */
static int co_far_away(void *arg)
{
    struct blk_device *dev = arg;
    uint8_t a[5000], b[5000];
    struct blk_extent ext;
    unsigned depth;
    must(worker_self() != dev->home);
    for (unsigned i = 0; i < 50; i++) {
        memset(a, (int)i, sizeof(a));
        must(co_blk_write_buf(dev, i * 100, a, sizeof(a), 0) == 0);
        must(co_blk_read_buf(dev, i * 100, b, sizeof(b)) == 0);
        must(memcmp(a, b, sizeof(a)) == 0);
    }
    must(co_blk_write_zeroes(dev, 10, 100, 0) == 0);
    must(co_blk_discard(dev, 0, 5) == 0);
    must(co_blk_map(dev, 0, 100, &ext) == 0);
    must(co_blk_map_chain(dev, NULL, 0, 100, &ext, &depth) == 0);
    must(co_blk_flush(dev) == 0);
    must(co_blk_read_buf(dev, 99999, b, 10) == -EINVAL);
    struct blk_info info;
    must(co_blk_info(dev, &info, NULL) == 0 && info.virtual_size == 20000);
    blk_info_drop(&info);
    must(co_blk_resize(dev, 30000, false, NULL) == 0 && dev->size == 30000);
    must(co_blk_reopen(dev, false, NULL) == 0 && !dev->writable);
    return co_blk_close(dev, NULL);
}

static int co_from_home(void *arg)
{
    struct runtime *rt = worker_self()->runtime;
    struct blk_device *dev =
        co_open_text(&fault_driver, "request-align=512,op=write,times=0,errno=none,delay=1000",
                     co_mem("size=20000"));
    return co_on(runtime_worker(rt, 1), co_far_away, dev);
}

START_TEST(requests_from_other_workers_hop_home)
{
    struct runtime_options o = {.workers = 2};
    struct runtime *rt;
    ck_assert_int_eq(host_open(NULL, &o.host), 0);
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
    ck_assert_int_eq(runtime_run(rt, co_from_home, NULL), 0);
    runtime_close(rt);
    host_close(o.host);
}
END_TEST

/* --- chains ----------------------------------------------------------------------------------- */

CO_TEST(a_chain_of_a_thousand_layers_needs_no_deep_stack)
{
    struct blk_device *dev = co_mem("size=100000");
    struct blk_error e = {0};
    for (unsigned i = 0; i < 1024; i++)
        dev = co_open_text(i % 2 ? &plain_driver : &fault_driver, "", dev);
    for (struct blk_device *d = dev; d->child_count; d = d->children[0].dev) {
        static struct plain state;
        if (d->driver == &plain_driver)
            d->state = &state;
    }
    static uint8_t buf[100000];
    memset(buf, 3, sizeof(buf));
    ck_assert_int_eq(co_blk_write_buf(dev, 0, buf, sizeof(buf), BLK_FUA), 0);
    ck_assert_int_eq(co_blk_write_zeroes(dev, 5, 10, 0), 0);
    ck_assert_int_eq(co_blk_read_buf(dev, 0, buf, sizeof(buf)), 0);
    ck_assert(buf[4] == 3 && buf[5] == 0 && buf[99999] == 3);
    ck_assert_int_eq(co_blk_flush(dev), 0);
    ck_assert_int_eq(co_blk_discard(dev, 0, 100000), 0);
    ck_assert_int_eq(co_blk_close(dev, &e), 0);
    return 0;
}

static void expect(struct blk_device *dev, uint64_t offset, unsigned flags, uint64_t bytes,
                   unsigned depth)
{
    struct blk_extent ext;
    unsigned got;
    ck_assert_int_eq(co_blk_map_chain(dev, NULL, offset, dev->size - offset, &ext, &got), 0);
    ck_assert_uint_eq(ext.flags & ~BLK_EXT_PLACED, flags);
    ck_assert_uint_eq(ext.bytes, bytes);
    ck_assert_uint_eq(got, depth);
}

CO_TEST(a_chain_maps_as_qemu_says)
{
    enum { DATA = BLK_EXT_DATA, ZERO = BLK_EXT_ZERO, HERE = BLK_EXT_ALLOCATED };
    uint8_t byte = 1;
    struct blk_device *mem = co_mem("size=196608");
    ck_assert_int_eq(co_blk_write_buf(mem, 65536, &byte, 1, 0), 0);
    struct blk_device *base = co_open_text(&raw_driver, "size=77000", mem);
    struct blk_child child = {"backing", base};
    struct blk_device *top;
    ck_assert_int_eq(co_blk_open(&hole_driver, "", NULL, 0, NULL, &child, 1, &top, NULL), 0);
    expect(top, 0, DATA | HERE, 10000, 0);
    expect(top, 10000, ZERO | HERE, 10000, 0);
    expect(top, 20000, ZERO | HERE, 10000, 1); /* a hole of the file */
    expect(top, 60000, ZERO | HERE, 5536, 1);
    expect(top, 65536, DATA | HERE, 4464, 1);
    expect(top, 75000, DATA | HERE, 2000, 1); /* to the end of the base */
    expect(top, 77000, ZERO, 3000, 0);        /* behind it */
    struct blk_extent ext;
    unsigned depth;
    ck_assert_int_eq(co_blk_map_chain(top, base, 65536, 100, &ext, &depth), 0);
    ck_assert_uint_eq(ext.flags, 0); /* not above the base */
    ck_assert_int_eq(co_blk_map_chain(top, NULL, 65536, 100, &ext, &depth), 0);
    ck_assert(ext.flags & BLK_EXT_PLACED);
    ck_assert_ptr_eq(ext.child, mem);
    ck_assert_uint_eq(ext.child_offset, 65536);
    co_close_ok(top);
    return 0;
}

int main(void)
{
    Suite *s = suite_create("block");
    TCase *tc = tcase_create("waist");
    tcase_add_test(tc, out_of_range_is_an_error_not_a_crash);
    tcase_add_test(tc, a_read_only_device_takes_no_change);
    tcase_add_test(tc, any_failed_fragment_fails_the_request);
    tcase_add_test(tc, a_failed_edge_read_fails_the_write);
    tcase_add_test(tc, only_writes_that_meet_in_a_block_wait);
    tcase_add_test(tc, what_a_driver_leaves_out_has_a_default);
    tcase_add_test(tc, flush_reaches_every_child_and_gives_the_first_error);
    tcase_add_test(tc, odd_zeroes_stay_inside_the_request);
    tcase_add_test(tc, a_growable_device_grows_to_the_byte);
    tcase_add_test(tc, a_failed_growing_write_leaves_nothing_behind);
    tcase_add_test(tc, parallel_appends_lose_nothing);
    tcase_add_test(tc, closing_waits_for_the_last_request);
    tcase_add_test(tc, a_resize_waits_and_makes_others_wait);
    tcase_add_test(tc, quiesce_waits_for_older_requests_only);
    tcase_add_test(tc, listeners_hear_of_sizes_and_damage);
    tcase_add_test(tc, a_shared_child_lives_as_long_as_its_last_parent);
    tcase_add_test(tc, a_chain_of_a_thousand_layers_needs_no_deep_stack);
    tcase_add_test(tc, a_chain_maps_as_qemu_says);
    tcase_add_test(tc, requests_from_other_workers_hop_home);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}

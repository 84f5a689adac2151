/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_readonly.h - for fuzz targets of formats that are only read: what is done with a device that
 * could be opened. */
#ifndef FUZZ_READONLY_H
#define FUZZ_READONLY_H

#include "imgfmt/readonly.h"
#include "tests/fuzz/fuzz_stack.h"

static inline void co_fuzz_read(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e = {0};
    struct blk_info info = {0};
    struct blk_extent ext;
    uint8_t *buf = mem_alloc(64 * KiB);
    uint64_t size = dev->size;
    int rc = co_blk_info(dev, &info, &e);
    if (rc == 0)
        blk_info_drop(&info);
    for (size_t i = 0; buf && i + 3 <= bytes && i < 24 && size; i += 3) {
        uint64_t at = ((uint64_t)tail[i] << 33 ^ (uint64_t)tail[i + 1] << 14 ^ tail[i + 2]) % size;
        uint64_t n = MIN(1 + tail[i + 1] * 251ULL, size - at);
        rc |= co_blk_map(dev, at, n, &ext);
        rc |= co_blk_read_buf(dev, at, buf, n);
    }
    if (size)
        rc |= co_blk_read_buf(dev, size - 1, buf, 1);
    (void)rc;
    mem_free(buf);
}

/* The first few devices inside @dev. */
static inline void co_fuzz_inner(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e = {0};
    struct blk_inner *list;
    size_t count;
    if (co_blk_inner_list(dev, &list, &count, &e) < 0)
        return;
    for (size_t i = 0; i < MIN(count, 4); i++) {
        struct blk_device *inner;
        if (co_blk_inner_open(dev, list[i].name, &inner, &e) < 0)
            continue;
        co_fuzz_read(inner, tail, bytes);
        co_blk_close(inner, &e);
    }
    blk_inner_drop(list, count);
}

/* The disk ends where the input does, for some formats begin at their end; opened as info does,
 * which bounds the work. */
static inline int co_fuzz_facts(void *arg)
{
    const struct fuzz_input *in = arg;
    struct blk_error e = {0};
    struct blk_device *dev;
    struct blk_child file = {"file", NULL};
    json_t *tree = json_pack("{s:I,s:b}", "size", (json_int_t)in->bytes, "growable", 0);
    int rc = co_blk_open(&mem_driver, "disk", tree, BLK_OPEN_WRITE, NULL, NULL, 0, &file.dev, &e);
    json_decref(tree);
    if (rc < 0 || co_blk_write_buf(file.dev, 0, in->data, in->bytes, 0) < 0)
        abort();
    if (co_blk_open(in->driver, "image", NULL, BLK_OPEN_FACTS, NULL, &file, 1, &dev, &e) < 0)
        return 0;
    size_t tail = MIN(in->bytes, 160);
    in->co_use(dev, in->data + in->bytes - tail, tail);
    co_blk_close(dev, &e);
    return 0;
}

static inline void fuzz_stack_facts(struct fuzz_input in)
{
    fuzz_stack_with(co_fuzz_facts, &in);
}

#endif

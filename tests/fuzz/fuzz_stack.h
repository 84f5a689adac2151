/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_stack.h - for fuzz targets of image formats: the input's bytes as a disk in memory, a driver
 * opened on it, and a function that uses the device. One simulated runtime serves all inputs. */
#ifndef FUZZ_STACK_H
#define FUZZ_STACK_H

#include <stdlib.h>

#include "block/block.h"
#include "block/host_sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct fuzz_input {
    const struct blk_driver *driver;
    const uint8_t *data;
    size_t bytes;
    /* @tail: the input's last bytes, to draw requests from. */
    void (*co_use)(struct blk_device *dev, const uint8_t *tail, size_t tail_bytes);
};

/* The disk has 16 MiB behind the input's bytes and does not grow: no offset costs memory. */
static inline struct blk_device *co_fuzz_disk(const struct fuzz_input *in)
{
    struct blk_error e;
    struct blk_device *disk = NULL;
    json_t *tree =
        json_pack("{s:I,s:b}", "size", (json_int_t)(in->bytes + 16 * MiB), "growable", 0);
    int rc = co_blk_open(&mem_driver, "disk", tree, BLK_OPEN_WRITE, NULL, NULL, 0, &disk, &e);
    json_decref(tree);
    if (rc < 0 || co_blk_write_buf(disk, 0, in->data, in->bytes, 0) < 0)
        abort();
    return disk;
}

static inline int co_fuzz_input(void *arg)
{
    const struct fuzz_input *in = arg;
    struct blk_error e = {0};
    struct blk_device *dev;
    struct blk_child file = {"file", co_fuzz_disk(in)};
    unsigned flags = in->bytes % 4 ? BLK_OPEN_WRITE : 0;
    if (in->bytes % 8 == 7)
        flags |= BLK_OPEN_CHECK;
    if (co_blk_open(in->driver, "image", NULL, flags, NULL, &file, 1, &dev, &e) < 0)
        return 0;
    size_t tail = MIN(in->bytes, 160);
    in->co_use(dev, in->data + in->bytes - tail, tail);
    co_blk_close(dev, &e);
    return 0;
}

/* Runs @co_fn(@in) in the simulated runtime. */
static inline void fuzz_stack_with(int (*co_fn)(void *arg), void *in)
{
    static struct runtime *rt;
    struct runtime_options o = {.workers = 1, .pool_threads = 1};
    struct sim_options sim = {.seed = 1, .in_order = true};
    if (!rt && (host_sim_open(&sim, &o.host) < 0 || runtime_open(&o, &rt) < 0))
        abort();
    runtime_run(rt, co_fn, in);
}

static inline void fuzz_stack(struct fuzz_input in)
{
    fuzz_stack_with(co_fuzz_input, &in);
}

#endif

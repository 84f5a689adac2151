/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c - what the map engine itself costs, over a disk in memory: a look-up that hits, a small
 * read, an overwrite, and allocating writes. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "imgfmt/vdi.h"

#define IMAGE  (2 * GiB)
#define LOOPS  2000000u
#define WRITES 4096u

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

static struct blk_device *co_make(const struct blk_driver *driver, const char *create,
                                  struct blk_device **disk)
{
    struct blk_error e = {0};
    struct opts opts;
    struct blk_device *dev;
    json_t *tree = json_object();
    must(co_blk_open(&mem_driver, "disk", NULL, BLK_OPEN_WRITE, NULL, NULL, 0, disk, &e), e.text);
    must(opts_text_to_tree(create, NULL, tree, &e), e.text);
    must(opts_parse(driver->create_options, tree, &opts, &e), e.text);
    struct blk_create c = {.file = *disk, .opts = &opts, .size = IMAGE};
    must(driver->co_create(&c, &e), e.text);
    struct blk_child file = {"file", blk_ref(*disk)};
    must(co_blk_open(driver, "image", NULL, BLK_OPEN_WRITE, NULL, &file, 1, &dev, &e), e.text);
    opts_drop(&opts);
    json_decref(tree);
    return dev;
}

static void co_measure_hits(struct blk_device *dev)
{
    uint8_t buf[4096];
    struct blk_place place;
    uint64_t at = 1, hits = 0;
    double start = seconds();
    for (unsigned i = 0; i < LOOPS; i++) {
        at = at * 6364136223846793005 + 1442695040888963407;
        hits += dev->driver->resolve(dev, (at >> 20) & (256 * MiB - 4096), 4096, true, &place);
    }
    printf("%-8s resolve of a hit    %7.1f ns (%" PRIu64 " hits)\n", dev->driver->name,
           (seconds() - start) / LOOPS * 1e9, hits);
    start = seconds();
    for (unsigned i = 0; i < LOOPS / 4; i++) {
        at = at * 6364136223846793005 + 1442695040888963407;
        must(co_blk_read_buf(dev, (at >> 20) & (256 * MiB - 4096), buf, 4096), "read");
    }
    printf("%-8s read of 4 KiB       %7.1f ns\n", dev->driver->name,
           (seconds() - start) / (LOOPS / 4) * 1e9);
    start = seconds();
    for (unsigned i = 0; i < LOOPS / 4; i++) {
        at = at * 6364136223846793005 + 1442695040888963407;
        must(co_blk_write_buf(dev, (at >> 20) & (256 * MiB - 4096), buf, 4096, 0), "write");
    }
    printf("%-8s overwrite of 4 KiB  %7.1f ns\n", dev->driver->name,
           (seconds() - start) / (LOOPS / 4) * 1e9);
}

static void co_measure_allocation(struct blk_device *dev, uint64_t bytes, uint64_t total)
{
    uint8_t *buf = mem_aligned(bytes);
    memset(buf, 1, bytes);
    double start = seconds();
    for (uint64_t at = 0; at + bytes <= total; at += bytes)
        must(co_blk_write_buf(dev, at, buf, bytes, 0), "write");
    double wrote = seconds() - start;
    must(co_blk_flush(dev), "flush");
    printf("%-8s allocating, %7" PRIu64 " bytes each: %7.2f us, %5.2f GB/s; flush %.1f ms\n",
           dev->driver->name, bytes, wrote / (total / bytes) * 1e6, total / wrote / 1e9,
           (seconds() - start - wrote) * 1e3);
    mem_free(buf);
}

static int run(void *arg)
{
    static const struct {
        const char *driver, *create;
        uint64_t bytes, total;
    } rows[] = {
        {"vdi", "", 2 * MiB, 256 * MiB},
        {"vdi", "", 1 * MiB, 256 * MiB},
        {"vdi", "", 4096, 16 * MiB},
        {"qcow2", "", 2 * MiB, 256 * MiB},
        {"qcow2", "", 64 * KiB, 256 * MiB},
        {"qcow2", "", 4096, 64 * MiB},
        {"qcow2", "cluster_size=4k", 4096, 64 * MiB},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        const struct blk_driver *driver = blk_find_driver(blk_drivers, rows[i].driver);
        struct blk_device *disk;
        if (!driver)
            continue;
        struct blk_device *dev = co_make(driver, rows[i].create, &disk);
        co_measure_allocation(dev, rows[i].bytes, rows[i].total);
        if (rows[i].bytes == 2 * MiB)
            co_measure_hits(dev);
        must(co_blk_close(dev, NULL), "close");
        must(co_blk_close(disk, NULL), "close");
    }
    return 0;
}

int main(void)
{
    struct runtime_options o = {.workers = 1};
    struct runtime *rt;
    must(host_open("threads", &o.host), "host");
    must(runtime_open(&o, &rt), "runtime");
    runtime_run(rt, run, NULL);
    runtime_close(rt);
    host_close(o.host);
    return 0;
}

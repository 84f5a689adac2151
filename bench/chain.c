/* SPDX-License-Identifier: BSD-3-Clause */
/* chain.c - what a chain of qcow2 images costs per read, in this process: chains of 1, 2, 8 and 64,
 * each of which holds all of the disk, every layer its share of the clusters, scattered.
 *
 *   chain FOLDER    where the images are made and removed
 *
 * Many short slices of CPU time are measured, the chains by turns, and the lower quartile is told:
 * others use the machine too. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "imgfmt/qcow2.h"
#include "imgfmt/raw.h"

#define SIZE     (512 * MiB)
#define CLUSTER  (64 * KiB)
#define CLUSTERS (SIZE / CLUSTER)
#define SLICES   40u
#define READS    4000u
#define LONG     (1 * MiB)

static const unsigned depths[] = {1, 2, 8, 64};
#define CHAINS ARRAY_LEN(depths)

struct chain {
    struct blk_device *top;
    double small[SLICES], sequential[SLICES], map[SLICES];
};

static const char *folder;
static uint8_t buf[LONG];
static uint64_t state = 1;

static uint64_t draw(uint64_t below)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return (state >> 20) % below;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "chain: %s: %s\n", what, strerror(-rc));
        exit(1);
    }
}

/* --- making ----------------------------------------------------------------------------------- */

static void name_of(unsigned depth, unsigned layer, char to[300])
{
    snprintf(to, 300, "%s/chain.%u.%u", folder, depth, layer);
}

static struct blk_device *co_file(unsigned depth, unsigned layer, unsigned flags)
{
    char name[300];
    struct blk_device *file;
    struct blk_error e = {0};
    name_of(depth, layer, name);
    json_t *tree = json_pack("{s:s}", "filename", name);
    must(co_blk_open(&file_driver, name, tree, flags, NULL, NULL, 0, &file, &e), e.text);
    json_decref(tree);
    return file;
}

static struct blk_device *co_open(unsigned depth, unsigned layer, unsigned flags,
                                  struct blk_device *behind)
{
    struct blk_child children[2] = {{"file", co_file(depth, layer, flags)}, {"backing", behind}};
    struct blk_device *dev;
    struct blk_error e = {0};
    must(co_blk_open(layer ? &qcow2_driver : &raw_driver, "", NULL, flags, NULL, children,
                     behind ? 2 : 1, &dev, &e),
         e.text);
    return dev;
}

static void co_make_file(unsigned depth, unsigned layer)
{
    char name[300];
    struct opts o;
    struct blk_error e = {0};
    name_of(depth, layer, name);
    FILE *f = fopen(name, "w");
    must(f && ftruncate(fileno(f), layer ? 0 : SIZE) == 0 ? 0 : -EIO, name);
    fclose(f);
    if (layer == 0)
        return;
    json_t *tree = json_pack("{s:s, s:s}", "backing_file", "x", "backing_fmt", "raw");
    must(opts_parse(qcow2_create_options, tree, &o, &e), e.text);
    struct blk_device *file = co_file(depth, layer, BLK_OPEN_WRITE);
    struct blk_create create = {.file = file, .opts = &o, .size = SIZE};
    must(co_qcow2_create(&create, &e), e.text);
    must(co_blk_close(file, NULL), "close");
    opts_drop(&o);
    json_decref(tree);
}

/* Layer i holds clusters i, i + depth, ... of a random order. */
static struct blk_device *co_make(unsigned depth, const uint64_t *order)
{
    struct blk_device *below = NULL;
    for (unsigned layer = 0; layer <= depth; layer++) {
        co_make_file(depth, layer);
        struct blk_device *dev = co_open(depth, layer, layer ? BLK_OPEN_WRITE : 0, below);
        for (uint64_t i = layer - 1; layer && i < CLUSTERS; i += depth)
            must(co_blk_write_buf(dev, order[i] * CLUSTER, buf, CLUSTER, 0), "write");
        if (layer < depth)
            must(co_blk_reopen(dev, false, NULL), "reopen");
        below = dev;
    }
    return below;
}

static void remove_all(unsigned depth)
{
    char name[300];
    for (unsigned layer = 0; layer <= depth; layer++) {
        name_of(depth, layer, name);
        unlink(name);
    }
}

/* --- measuring -------------------------------------------------------------------------------- */

static double co_small(struct blk_device *dev)
{
    double start = seconds();
    for (unsigned i = 0; i < READS; i++)
        must(co_blk_read_buf(dev, draw(SIZE / 4096) * 4096, buf, 4096), "read");
    return (seconds() - start) / READS;
}

static double co_sequential(struct blk_device *dev)
{
    double start = seconds();
    for (uint64_t at = 0; at < SIZE / 8; at += LONG)
        must(co_blk_read_buf(dev, at, buf, LONG), "read");
    return (seconds() - start) / (SIZE / 8 / LONG);
}

static double co_map(struct blk_device *dev)
{
    struct blk_extent ext;
    unsigned depth;
    double start = seconds();
    for (uint64_t at = 0; at < SIZE / 8; at += ext.bytes)
        must(co_blk_map_chain(dev, NULL, at, SIZE - at, &ext, &depth), "map");
    return (seconds() - start) / (CLUSTERS / 8);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quartile(double all[SLICES])
{
    qsort(all, SLICES, sizeof(*all), compare);
    return all[SLICES / 4];
}

static void tell(struct chain *chains)
{
    double first[3] = {0};
    printf("%-12s %21s %27s %24s\n", "chain of", "4 KiB, random: ns", "1 MiB, in order: us",
           "map, per cluster: ns");
    for (unsigned i = 0; i < CHAINS; i++) {
        double now[3] = {quartile(chains[i].small) * 1e9, quartile(chains[i].sequential) * 1e6,
                         quartile(chains[i].map) * 1e9};
        if (i == 0)
            memcpy(first, now, sizeof(first));
        printf("%-12u %12.0f (%5.2f) %19.1f (%5.2f) %16.0f (%5.2f)\n", depths[i], now[0],
               now[0] / first[0], now[1], now[1] / first[1], now[2], now[2] / first[2]);
    }
}

static int run(void *arg)
{
    static uint64_t order[CLUSTERS];
    static struct chain chains[CHAINS];
    (void)arg;
    for (uint64_t i = 0; i < CLUSTERS; i++)
        order[i] = i;
    for (uint64_t i = CLUSTERS - 1; i > 0; i--) {
        uint64_t j = draw(i + 1), was = order[i];
        order[i] = order[j];
        order[j] = was;
    }
    for (unsigned i = 0; i < CHAINS; i++) {
        chains[i].top = co_make(depths[i], order);
        for (uint64_t at = 0; at < SIZE; at += 4096) /* all that can be cached is */
            must(co_blk_read_buf(chains[i].top, at, buf, 4096), "read");
    }
    for (unsigned n = 0; n < SLICES; n++) {
        for (unsigned i = 0; i < CHAINS; i++) {
            chains[i].small[n] = co_small(chains[i].top);
            chains[i].sequential[n] = co_sequential(chains[i].top);
            chains[i].map[n] = co_map(chains[i].top);
        }
    }
    tell(chains);
    for (unsigned i = 0; i < CHAINS; i++) {
        must(co_blk_close(chains[i].top, NULL), "close");
        remove_all(depths[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct runtime_options o = {.workers = 1};
    struct runtime *rt;
    folder = argc > 1 ? argv[1] : ".";
    must(host_open(NULL, &o.host), "host");
    must(runtime_open(&o, &rt), "runtime");
    runtime_run(rt, run, NULL);
    runtime_close(rt);
    host_close(o.host);
    return 0;
}

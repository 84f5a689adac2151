/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_repair.c - the proof over repair: before every opening the image is marked dirty and its
 * counts are spoiled, as a crash of somebody with lazy refcounts leaves them (and worse: the table
 * may lose an entry). So each opening rebuilds the refcount structure, and cuts and faults fall
 * into every step of that. */
#include "block/endian.h"
#include "tests/sweep.h"

#define ANY                                                                               \
    .write = 30, .fua = 3, .zeroes = 5, .unmap = 5, .discard = 6, .read = 10, .flush = 6, \
    .reopen = 4, .kill = 2, .hot = 6

static const struct sweep_profile small = {ANY, .max_bytes = 16 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 32 * KiB};

/* --- the damage ---------------------------------------------------------------------------------
 */

static int co_get64(struct blk_device *file, uint64_t at, uint64_t *out)
{
    be64 raw;
    TRY(co_blk_read_buf(file, at, &raw, sizeof(raw)));
    *out = be64_get(raw);
    return 0;
}

static int co_put64(struct blk_device *file, uint64_t at, uint64_t value)
{
    be64 raw = be64_of(value);
    return co_blk_write_buf(file, at, &raw, sizeof(raw), 0);
}

static int co_spoil(struct blk_device *file, uint64_t seed)
{
    uint64_t bits, table, block;
    uint8_t counts[300];
    TRY(co_get64(file, 72, &bits));
    TRY(co_put64(file, 72, bits | 1));
    TRY(co_blk_flush(file)); /* dirty is durable before a count is wrong */
    TRY(co_get64(file, 48, &table));
    TRY(co_get64(file, table, &block));
    if (block) {
        memset(counts, seed & 1 ? 0 : 0x11, sizeof(counts));
        TRY(co_blk_write_buf(file, block + 2 + (seed & 14), counts, sizeof(counts), 0));
    }
    return seed & 16 ? co_put64(file, table, 0) : 0;
}

static int co_open_spoiled(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, &file, e));
    int rc = co_spoil(file, run->seed + file->size / 512);
    int closed = co_blk_close(file, e);
    if (rc < 0 || closed < 0)
        return rc < 0 ? err_errno(e, rc, "cannot spoil the image") : closed;
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    rc = co_resolver_open_tree(&run->resolver, tree, BLK_OPEN_WRITE, out, e);
    json_decref(tree);
    return rc;
}

/* --- the rows -----------------------------------------------------------------------------------
 */

/* qemu-img is asked about the first row only: in the others a cut may leave what is to be repaired.
 */
#define DIRTY .format = "qcow2", .co_open = co_open_spoiled

static const struct sweep_subject rows[] = {
    {.name = "qcow2-lazy",
     .format = "qcow2",
     .foreign = "qcow2",
     .create = "cluster_size=4k,lazy_refcounts=on",
     .size = 2 * MiB,
     .profile = &small},
    {.name = "qcow2-dirty",
     DIRTY,
     .create = "cluster_size=4k,lazy_refcounts=on",
     .size = 2 * MiB,
     .profile = &small},
    {.name = "qcow2-dirty-512",
     DIRTY,
     .create = "cluster_size=512",
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-dirty-packed",
     DIRTY,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &packing},
    {.name = "qcow2-dirty-on-a-device",
     DIRTY,
     .create = "cluster_size=4k",
     .size = 2 * MiB,
     .profile = &small,
     .flags = SWEEP_BLOCK_DEVICE},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 200, 700);
}

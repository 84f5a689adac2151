/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_repair.c - the proof over repair: each opening finds damage and mends it, so cuts and
 * faults fall into every step of that.
 *
 *   dirty     the image is marked dirty and its counts are spoiled, as a crash of somebody with
 * lazy refcounts leaves them (and worse: the table may lose an entry); opening it for writing
 *             rebuilds the refcount structure
 *   mended    one class of damage (a table of them below), repaired as `check -r` does. Of the
 *             machines that a crash left (their seeds are large) every second one is repaired as it
 *             is, the others are damaged once more first */
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

static int co_open_top(struct sweep_run *run, unsigned flags, struct blk_device **out,
                       struct blk_error *e)
{
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file",
                             "filename", SWEEP_TOP);
    int rc = co_resolver_open_tree(&run->resolver, tree, flags, out, e);
    json_decref(tree);
    return rc;
}

static int co_open_spoiled(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, &file, e));
    int rc = co_spoil(file, run->seed + file->size / 512);
    int closed = co_blk_close(file, e);
    if (rc < 0 || closed < 0)
        return rc < 0 ? err_errno(e, rc, "cannot spoil the image") : closed;
    return co_open_top(run, BLK_OPEN_WRITE, out, e);
}

/* --- one class of damage, and its repair --------------------------------------------------------
 */

struct damage {
    /* Changes the file; @seed says where. */
    int (*co_do)(struct blk_device *file, uint64_t seed);
    uint64_t mark;   /* bits of the header that are durable before */
    bool leaks_only; /* `-r leaks` is enough */
};

#define CORRUPT 2ULL
#define COPIED  (1ULL << 63)
#define PACKED  (1ULL << 62)
#define OFFSET  0x00fffffffffffe00ULL

/* Counts of referenced and of free clusters that are too high. */
static int co_leak(struct blk_device *file, uint64_t seed)
{
    uint64_t table, block, count = 2 + seed % 3;
    TRY(co_get64(file, 48, &table));
    TRY(co_get64(file, table, &block));
    be16 raw = be16_of((uint16_t)count);
    for (uint64_t i = 0; i < 40; i++)
        TRY(co_blk_write_buf(file, block + 2 * ((seed * 7 + i * 3) % 256), &raw, 2, 0));
    return 0;
}

/* Calls @co_fn for some entries of the first L2 tables, and stores what it gives. */
static int co_each_entry(struct blk_device *file, uint64_t seed,
                         uint64_t (*change)(uint64_t entry, uint64_t n))
{
    uint64_t l1, table, entry, sizes;
    TRY(co_get64(file, 40, &l1));
    TRY(co_get64(file, 32, &sizes)); /* encryption and the number of L1 entries */
    for (uint64_t i = 0; i < MIN(sizes & 0xffffffff, 4); i++) {
        TRY(co_get64(file, l1 + i * 8, &table));
        for (uint64_t k = 0; table & OFFSET && k < 32; k++) {
            uint64_t at = (table & OFFSET) + (seed + k) % 64 * 8;
            TRY(co_get64(file, at, &entry));
            if (entry & OFFSET && !(entry & PACKED))
                TRY(co_put64(file, at, change(entry, seed + k)));
        }
        if (table & OFFSET)
            TRY(co_put64(file, l1 + i * 8, change(table, seed)));
    }
    return 0;
}

static uint64_t other_flag(uint64_t entry, uint64_t n)
{
    return n % 3 ? entry & ~COPIED : entry;
}

static int co_miss_flags(struct blk_device *file, uint64_t seed)
{
    return co_each_entry(file, seed, other_flag);
}

static uint64_t reserved_bits(uint64_t entry, uint64_t n)
{
    return n % 3 ? entry : entry | 1ULL << (56 + n % 6);
}

static int co_set_reserved(struct blk_device *file, uint64_t seed)
{
    return co_each_entry(file, seed, reserved_bits);
}

/* The first entry of the refcount table: gone, beside a cluster, beyond all files. */
static int co_spoil_table(struct blk_device *file, uint64_t seed)
{
    uint64_t table, block;
    TRY(co_get64(file, 48, &table));
    TRY(co_get64(file, table, &block));
    const uint64_t wrong[] = {0, block + 768, 1ULL << 50};
    return co_put64(file, table, wrong[seed % 3]);
}

/* The counts of everything are zero. */
static int co_lose_counts(struct blk_device *file, uint64_t seed)
{
    static const uint8_t zeroes[512];
    uint64_t table, block;
    TRY(co_get64(file, 48, &table));
    TRY(co_get64(file, table, &block));
    return co_blk_write_buf(file, block + seed % 4 * 64, zeroes, 256, 0);
}

static int co_only_mark(struct blk_device *file, uint64_t seed)
{
    (void)file;
    (void)seed;
    return 0;
}

static const struct damage leaks = {.co_do = co_leak, .leaks_only = true};
static const struct damage flags = {.co_do = co_miss_flags, .mark = CORRUPT};
static const struct damage reserved = {.co_do = co_set_reserved, .mark = CORRUPT};
static const struct damage tables = {.co_do = co_spoil_table, .mark = CORRUPT};
static const struct damage counts = {.co_do = co_lose_counts, .mark = CORRUPT};
static const struct damage marks = {.co_do = co_only_mark, .mark = CORRUPT | 1};

static int co_damage(struct sweep_run *run, const struct damage *d, struct blk_error *e)
{
    struct blk_device *file;
    uint64_t bits;
    TRY(co_resolver_open_file(&run->resolver, SWEEP_TOP, BLK_OPEN_WRITE, 0, &file, e));
    int rc = d->mark ? co_get64(file, 72, &bits) : 0;
    if (rc == 0 && d->mark)
        rc = co_put64(file, 72, bits | d->mark);
    if (rc == 0)
        rc = co_blk_flush(file);
    if (rc == 0)
        rc = d->co_do(file, run->seed + host_sim_count(run->host, SIM_WRITE));
    int closed = co_blk_close(file, e);
    return rc < 0 ? err_errno(e, rc, "cannot damage the image") : closed;
}

static int co_mend(struct sweep_run *run, const struct damage *d, struct blk_error *e)
{
    struct blk_device *dev;
    struct blk_check c = {.fix_leaks = true, .fix_errors = !d->leaks_only};
    TRY(co_open_top(run, BLK_OPEN_WRITE | BLK_OPEN_CHECK | BLK_OPEN_NO_BACKING, &dev, e));
    int rc = co_blk_check(dev, &c, e);
    if (rc == 0 && c.corruptions + c.check_errors + c.leaks > 0)
        rc = err_set(e, -EIO, "repair left %" PRIu64 " corruptions, %" PRIu64 " leaks",
                     c.corruptions, c.leaks);
    int closed = co_blk_close(dev, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

static int co_open_mended(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct damage *d = run->subject->arg;
    if (run->seed < 1000 || run->seed % 2)
        TRY(co_damage(run, d, e));
    TRY(co_mend(run, d, e));
    return co_open_top(run, BLK_OPEN_WRITE, out, e);
}

/* --- the rows -----------------------------------------------------------------------------------
 */

/* qemu-img is asked about the first row only: in the others a cut may leave what is to be repaired.
 */
#define DIRTY  .format = "qcow2", .co_open = co_open_spoiled
#define MENDED .format = "qcow2", .co_open = co_open_mended

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
    {.name = "qcow2-mended-leaks",
     MENDED,
     .arg = (void *)&leaks,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-mended-flags",
     MENDED,
     .arg = (void *)&flags,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "qcow2-mended-reserved",
     MENDED,
     .arg = (void *)&reserved,
     .create = "cluster_size=512",
     .size = 128 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "qcow2-mended-tables",
     MENDED,
     .arg = (void *)&tables,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &packing},
    {.name = "qcow2-mended-counts",
     MENDED,
     .arg = (void *)&counts,
     .create = "cluster_size=64k",
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &small},
    {.name = "qcow2-mended-marks",
     MENDED,
     .arg = (void *)&marks,
     .create = "cluster_size=4k,lazy_refcounts=on",
     .size = 1 * MiB,
     .profile = &small},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 300, 1000);
}

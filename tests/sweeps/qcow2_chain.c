/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_chain.c - the proof over commit, rebase and amend: before every opening the overlay is
 * committed into its base; or moved onto its base, to the base's other name, and off it again; or
 * turned to version 2 and back; or given counts of another width. Or, behind an overlay that stays
 * open, what it does not hold goes up and down between the layers there. What it shows never
 * changes, wherever the power goes or a call fails. */
#include "block/chain.h"
#include "tests/lib/sweep_chain.h"

#define ANY                                                                              \
    .write = 24, .fua = 2, .zeroes = 5, .unmap = 5, .discard = 4, .read = 6, .flush = 3, \
    .reopen = 6, .kill = 1, .hot = 4

static const struct sweep_profile small = {ANY, .max_bytes = 32 * KiB};
static const struct sweep_profile middle = {ANY, .max_bytes = 256 * KiB};
static const struct sweep_profile packing = {ANY, .compressed = 20, .max_bytes = 64 * KiB};

static const struct sweep_backing base_raw = {.format = "raw", .size = 768 * KiB};
static const struct sweep_backing base_qcow2 = {
    .format = "qcow2", .create = "cluster_size=16k", .size = 1 * MiB};
static const struct sweep_backing base_small = {.format = "qcow2", .size = 192 * KiB};

static const struct sweep_backing root_raw = {.format = "raw", .size = 512 * KiB};
static const struct sweep_backing root_qcow2 = {.format = "qcow2", .size = 1 * MiB};
static const struct sweep_backing middle_over_raw = {
    .format = "qcow2",
    .create = "backing_file=root.img,backing_fmt=raw,cluster_size=4k",
    .size = 768 * KiB,
    .below = &root_raw};
static const struct sweep_backing middle_over_qcow2 = {
    .format = "qcow2",
    .create = "backing_file=root.img,backing_fmt=qcow2",
    .size = 1 * MiB,
    .below = &root_qcow2};

static int co_amend_one(struct blk_device *top, const char *key, const char *value,
                        struct blk_error *e)
{
    struct opts opts = {0};
    json_t *tree = json_pack("{s:s}", key, value);
    int rc = opts_parse(top->driver->amend_options, tree, &opts, e);
    json_decref(tree);
    if (rc == 0)
        rc = co_blk_amend(top, &opts, e);
    opts_drop(&opts);
    return rc;
}

/* From version 3 to 2 and back. */
static int co_amend(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_info info;
    (void)run;
    TRY(co_blk_info(top, &info, e));
    const char *compat = json_string_value(json_object_get(info.specific, "compat"));
    bool old = compat && strcmp(compat, "0.10") == 0;
    blk_info_drop(&info);
    return co_amend_one(top, "compat", old ? "1.1" : "0.10", e);
}

/* Counts of the next width: wider, narrower, and around. */
static int co_amend_counts(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    static const char *const next[] = {"32", "8", "16", "4", "64", "2", "1"}; /* after 1 << i */
    struct blk_info info;
    (void)run;
    TRY(co_blk_info(top, &info, e));
    json_int_t bits = json_integer_value(json_object_get(info.specific, "refcount-bits"));
    blk_info_drop(&info);
    assert(bits >= 1 && bits <= 64);
    return co_amend_one(top, "refcount_bits", next[log2_floor((uint64_t)bits)], e);
}

static struct sweep_chain_work commits = {co_sweep_commit}, keeps = {co_sweep_commit_and_keep},
                               deeps = {co_sweep_commit_deep}, renames = {co_sweep_rename_base},
                               rebases = {co_sweep_rebase}, amends = {co_amend},
                               counts = {co_amend_counts};

/* --- behind an image in use ------------------------------------------------------------------ */

/* Small reads of everything: what lies behind @top is known to it then. */
static int co_read_all(struct blk_device *top)
{
    uint8_t *buf = buf_get(4 * KiB);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < top->size && rc == 0; at += 4 * KiB)
        rc = co_blk_read_buf(top, at, buf, MIN(4 * KiB, top->size - at));
    if (buf)
        buf_put(buf, 4 * KiB);
    return rc;
}

/* The middle writes down what it shows, here and there: it holds that itself then. */
static int co_pull_up(struct sweep_run *run, struct blk_device *mid)
{
    uint64_t random = run->seed + host_sim_count(run->host, SIM_READ);
    uint8_t *buf = buf_get(32 * KiB);
    int rc = buf ? 0 : -ENOMEM;
    for (unsigned i = 0; i < 4 && rc == 0; i++) {
        random = random * 6364136223846793005 + 1442695040888963407;
        uint64_t at = (random >> 20) % (mid->size / 512) * 512;
        uint64_t bytes = MIN(mid->size - at, 32 * KiB);
        rc = co_blk_read_buf(mid, at, buf, bytes);
        if (rc == 0)
            rc = co_blk_write_buf(mid, at, buf, bytes, 0);
    }
    if (buf)
        buf_put(buf, 32 * KiB);
    return rc;
}

/* Then it gives all it holds to the one below, and is empty. The two are read-only again after
 * each: else nothing would be remembered. */
static int co_shift(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_device *mid = blk_child(top, "backing"), *low = blk_child(mid, "backing");
    struct blk_commit work = {.top = mid, .base = low};
    int rc = co_read_all(top);
    if (rc < 0)
        return err_errno(e, rc, "the top cannot be read");
    TRY(co_blk_reopen(mid, true, e));
    rc = co_pull_up(run, mid);
    if (rc < 0)
        return err_errno(e, rc, "the middle cannot be written");
    TRY(co_blk_reopen(mid, false, e));
    rc = co_read_all(top);
    if (rc < 0)
        return err_errno(e, rc, "the top cannot be read");
    TRY(co_blk_reopen(mid, true, e));
    TRY(co_blk_reopen(low, true, e));
    TRY(co_blk_commit(&work, e));
    TRY(co_blk_reopen(low, false, e));
    return co_blk_reopen(mid, false, e);
}

/* The image stays open, so what it shows from now on is what it remembers. */
static int co_open_and_shift(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    TRY(co_sweep_open_as(run, SWEEP_TOP, run->subject->format, BLK_OPEN_WRITE, out, e));
    int rc = sweep_chain_works(run) ? co_shift(run, *out, e) : 0;
    if (rc < 0)
        co_blk_close(take(*out), NULL);
    return rc;
}

#define ROW .format = "qcow2", .foreign = "qcow2", .co_open = co_sweep_work_and_open
#define SHIFT \
    .format = "qcow2", .foreign = "qcow2", .co_open = co_open_and_shift, .profile = &middle
#define OVER_RAW   "backing_file=base.img,backing_fmt=raw,"
#define OVER_QCOW2 "backing_file=base.img,backing_fmt=qcow2,"

static const struct sweep_subject rows[] = {
    {.name = "commit-4k-to-raw",
     ROW,
     .arg = &commits,
     .create = OVER_RAW "cluster_size=4k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "commit-64k-to-qcow2",
     ROW,
     .arg = &commits,
     .create = OVER_QCOW2 "cluster_size=64k",
     .backing = &base_qcow2,
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "commit-512-to-smaller",
     ROW,
     .arg = &commits,
     .create = OVER_QCOW2 "cluster_size=512",
     .backing = &base_small,
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "commit-packed",
     ROW,
     .arg = &commits,
     .create = OVER_QCOW2 "cluster_size=16k",
     .backing = &base_qcow2,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &packing},
    {.name = "commit-extended",
     ROW,
     .arg = &commits,
     .create = OVER_QCOW2 "extended_l2=on,cluster_size=16k",
     .backing = &base_qcow2,
     .size = 2 * MiB,
     .granule = 512,
     .profile = &small},
    {.name = "commit-v2",
     ROW,
     .arg = &commits,
     .create = OVER_QCOW2 "compat=0.10,cluster_size=16k",
     .backing = &base_small,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "commit-keep-4k",
     ROW,
     .arg = &keeps,
     .create = OVER_RAW "cluster_size=4k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "commit-deep-4k",
     ROW,
     .arg = &deeps,
     .create = OVER_QCOW2 "cluster_size=4k",
     .backing = &middle_over_raw,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "commit-deep-64k",
     ROW,
     .arg = &deeps,
     .create = OVER_QCOW2 "cluster_size=64k",
     .backing = &middle_over_qcow2,
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "shift-4k",
     SHIFT,
     .create = OVER_QCOW2 "cluster_size=4k",
     .backing = &middle_over_raw,
     .size = 1 * MiB},
    {.name = "shift-64k",
     SHIFT,
     .create = OVER_QCOW2 "cluster_size=64k",
     .backing = &middle_over_qcow2,
     .size = 2 * MiB},
    {.name = "rebase-unsafe",
     ROW,
     .arg = &renames,
     .create = OVER_QCOW2 "cluster_size=512",
     .backing = &base_small,
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "rebase-4k-raw",
     ROW,
     .arg = &rebases,
     .create = OVER_RAW "cluster_size=4k",
     .backing = &base_raw,
     .size = 1 * MiB,
     .profile = &small},
    {.name = "rebase-64k-qcow2",
     ROW,
     .arg = &rebases,
     .create = OVER_QCOW2 "cluster_size=64k",
     .backing = &base_qcow2,
     .size = 2 * MiB,
     .granule = 64 * KiB,
     .profile = &middle},
    {.name = "rebase-512",
     ROW,
     .arg = &rebases,
     .create = OVER_QCOW2 "cluster_size=512",
     .backing = &base_small,
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "rebase-extended",
     ROW,
     .arg = &rebases,
     .create = OVER_QCOW2 "extended_l2=on,cluster_size=32k",
     .backing = &base_qcow2,
     .size = 2 * MiB,
     .granule = 1 * KiB,
     .profile = &small},
    {.name = "rebase-v2",
     ROW,
     .arg = &rebases,
     .create = OVER_QCOW2 "compat=0.10,cluster_size=16k",
     .backing = &base_small,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "amend-4k",
     ROW,
     .arg = &amends,
     .create = "cluster_size=4k",
     .size = 1 * MiB,
     .profile = &small},
    {.name = "amend-16k-over-qcow2",
     ROW,
     .arg = &amends,
     .create = OVER_QCOW2 "cluster_size=16k",
     .backing = &base_small,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small,
     .flags = SWEEP_DISCARD_ANY},
    {.name = "amend-counts-512",
     ROW,
     .arg = &counts,
     .create = "cluster_size=512",
     .size = 256 * KiB,
     .granule = 512,
     .profile = &small},
    {.name = "amend-counts-16k-over-qcow2",
     ROW,
     .arg = &counts,
     .create = OVER_QCOW2 "cluster_size=16k",
     .backing = &base_small,
     .size = 1 * MiB,
     .granule = 16 * KiB,
     .profile = &small},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 480, 1800);
}

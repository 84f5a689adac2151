/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_chain.c - the proof over commit, rebase and amend: before every opening the overlay is
 * committed into its base; or moved onto its base, to the base's other name, and off it again; or
 * turned to version 2 and back; or given counts of another width. What it shows never changes,
 * wherever the power goes or a call fails. */
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

#define ROW        .format = "qcow2", .foreign = "qcow2", .co_open = co_sweep_work_and_open
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

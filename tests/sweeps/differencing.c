/* SPDX-License-Identifier: BSD-3-Clause */
/* differencing.c - the proof over commit and rebase of images that say by a UUID who their parent
 * is, and of QED: before every opening the child is committed into its parent, which gets another
 * identity by that; or is told another name of the parent; or stands on none. A child that does not
 * know its parent any more would not open. */
#include "tests/lib/sweep_chain.h"

static const struct sweep_profile small = {.write = 24,
                                           .fua = 2,
                                           .zeroes = 5,
                                           .unmap = 5,
                                           .discard = 4,
                                           .read = 6,
                                           .flush = 3,
                                           .reopen = 6,
                                           .kill = 1,
                                           .hot = 4,
                                           .max_bytes = 32 * KiB};

static const struct sweep_backing vhd = {
    .format = "vpc", .create = "force_size=on,block_size=16k", .size = 768 * KiB};
static const struct sweep_backing vhdx = {
    .format = "vhdx", .create = "block_size=1M", .size = 2 * MiB};
static const struct sweep_backing qed = {
    .format = "qed", .create = "cluster_size=4k", .size = 512 * KiB};

static struct sweep_chain_work commits = {co_sweep_commit}, keeps = {co_sweep_commit_and_keep},
                               renames = {co_sweep_rename_base}, rebases = {co_sweep_rebase};

#define ROW .co_open = co_sweep_work_and_open, .profile = &small, .flags = SWEEP_DISCARD_ANY
#define OVER_VHD                                            \
    ROW, .format = "vpc", .backing = &vhd, .size = 1 * MiB, \
         .create = "backing_file=base.img,backing_fmt=vpc,force_size=on,block_size=32k"
#define OVER_VHDX                                             \
    ROW, .format = "vhdx", .backing = &vhdx, .size = 3 * MiB, \
         .create = "backing_file=base.img,backing_fmt=vhdx,block_size=1M"
#define OVER_QED                                                              \
    ROW, .format = "qed", .backing = &qed, .size = 1 * MiB, .foreign = "qed", \
         .create = "backing_file=base.img,backing_fmt=qed,cluster_size=4k"

static const struct sweep_subject rows[] = {
    {.name = "vhd-commit", OVER_VHD, .arg = &commits},
    {.name = "vhd-commit-keep", OVER_VHD, .arg = &keeps},
    {.name = "vhd-rename", OVER_VHD, .arg = &renames},
    {.name = "vhd-rebase", OVER_VHD, .arg = &rebases},
    {.name = "vhdx-commit", OVER_VHDX, .arg = &commits},
    {.name = "vhdx-commit-keep", OVER_VHDX, .arg = &keeps},
    {.name = "vhdx-rename", OVER_VHDX, .arg = &renames},
    {.name = "vhdx-rebase", OVER_VHDX, .arg = &rebases},
    {.name = "qed-commit", OVER_QED, .arg = &commits},
    {.name = "qed-rename", OVER_QED, .arg = &renames},
    {0},
};

int main(int argc, char **argv)
{
    return sweep_main(argc, argv, rows, 200, 600);
}

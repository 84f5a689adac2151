/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_chain.h - work on an overlay before it is opened, for rows of sweeps: what it shows never
 * changes, wherever the power goes or a call fails. */
#ifndef TESTS_SWEEP_CHAIN_H
#define TESTS_SWEEP_CHAIN_H

#include "tests/sweep.h"

struct sweep_chain_work { /* a row's arg */
    int (*co_do)(struct sweep_run *run, struct blk_device *top, struct blk_error *e);
};
/* Of the machines that a crash left (their seeds are large) every second one is looked at as it is.
 */
bool sweep_chain_works(const struct sweep_run *run);
int co_sweep_open_as(struct sweep_run *run, const char *path, const char *format, unsigned flags,
                     struct blk_device **out, struct blk_error *e);
/* A row's co_open: works on the overlay, closes it, opens it. */
int co_sweep_work_and_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e);

/* Into its base; the top is empty then, or keeps its copy. */
int co_sweep_commit(struct sweep_run *run, struct blk_device *top, struct blk_error *e);
int co_sweep_commit_and_keep(struct sweep_run *run, struct blk_device *top, struct blk_error *e);
/* By turns into the middle of three, and past it into the lowest. */
int co_sweep_commit_deep(struct sweep_run *run, struct blk_device *top, struct blk_error *e);
/* Only the name: the same file by another one. */
int co_sweep_rename_base(struct sweep_run *run, struct blk_device *top, struct blk_error *e);
/* Onto its base, to the base's other name, off it, and so on. Where an image that stands alone can
 * get no parent, it stays so. */
int co_sweep_rebase(struct sweep_run *run, struct blk_device *top, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* sweep_chain.c - commit and rebase as work on an overlay of a sweep. */
#include "tests/lib/sweep_chain.h"
#include "block/chain.h"

int co_sweep_open_as(struct sweep_run *run, const char *path, const char *format, unsigned flags,
                     struct blk_device **out, struct blk_error *e)
{
    json_t *tree = json_pack("{s:s, s:{s:s, s:s}}", "driver", format, "file", "driver", "file",
                             "filename", path);
    int rc = co_resolver_open_tree(&run->resolver, tree, flags, out, e);
    json_decref(tree);
    return rc;
}

int co_sweep_commit(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_commit work = {.top = top, .base = blk_child(top, "backing")};
    (void)run;
    TRY(co_blk_reopen(work.base, true, e));
    return co_blk_commit(&work, e);
}

/* What the image names next: its base, the base by another name (the header changes where it is in
 * use beyond its first sector), nothing, and so on. */
static int co_next_name(struct blk_device *top, const char **name, struct blk_error *e)
{
    struct blk_info info;
    TRY(co_blk_info(top, &info, e));
    *name = !info.backing_name                           ? "base.img"
            : strcmp(info.backing_name, "base.img") == 0 ? "./././base.img"
                                                         : NULL;
    blk_info_drop(&info);
    return 0;
}

/* What top shows goes into its base; top keeps its copy. */
int co_sweep_commit_and_keep(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_commit work = {.top = top, .base = blk_child(top, "backing"), .keep = true};
    (void)run;
    TRY(co_blk_reopen(work.base, true, e));
    return co_blk_commit(&work, e);
}

/* By turns into the middle of three (top is empty then), and past it into the lowest (top keeps
 * what the middle would hide). */
int co_sweep_commit_deep(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_device *mid = blk_child(top, "backing");
    struct blk_commit work = {.top = top, .base = mid};
    if (host_sim_count(run->host, SIM_WRITE) % 2) {
        work.base = blk_child(mid, "backing");
        work.keep = true;
    }
    TRY(co_blk_reopen(work.base, true, e));
    return co_blk_commit(&work, e);
}

static int co_stand_on(struct sweep_run *run, struct blk_device *top, const char *name, bool unsafe,
                       struct blk_error *e)
{
    const struct sweep_backing *base = run->subject->backing;
    struct blk_rebase work = {
        .image = top, .now = blk_child(top, "backing"), .name = name, .unsafe = unsafe};
    if (name) {
        work.format = base->format;
        TRY(co_sweep_open_as(run, SWEEP_BASE, base->format, 0, &work.next, e));
    }
    int rc = co_blk_rebase(&work, e);
    int closed = work.next ? co_blk_close(work.next, rc == 0 ? e : NULL) : 0;
    return rc < 0 ? rc : closed;
}

int co_sweep_rename_base(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    struct blk_info info;
    TRY(co_blk_info(top, &info, e));
    bool short_name = strcmp(info.backing_name, "base.img") == 0;
    blk_info_drop(&info);
    return co_stand_on(run, top, short_name ? "./././././base.img" : "base.img", true, e);
}

int co_sweep_rebase(struct sweep_run *run, struct blk_device *top, struct blk_error *e)
{
    const char *name;
    bool stays = !blk_child(top, "backing") && top->driver->co_identify_backing;
    TRY(co_next_name(top, &name, e));
    return stays ? 0 : co_stand_on(run, top, name, false, e);
}

bool sweep_chain_works(const struct sweep_run *run)
{
    return run->seed < 1000 || run->seed % 2 == 0;
}

int co_sweep_work_and_open(struct sweep_run *run, struct blk_device **out, struct blk_error *e)
{
    const struct sweep_chain_work *work = run->subject->arg;
    if (sweep_chain_works(run)) {
        struct blk_device *top;
        TRY(co_sweep_open_as(run, SWEEP_TOP, run->subject->format, BLK_OPEN_WRITE, &top, e));
        int rc = work->co_do(run, top, e);
        int closed = co_blk_close(top, rc == 0 ? e : NULL);
        TRY(rc < 0 ? rc : closed);
    }
    return co_sweep_open_as(run, SWEEP_TOP, run->subject->format, BLK_OPEN_WRITE, out, e);
}

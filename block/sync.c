/* SPDX-License-Identifier: BSD-3-Clause */
/* sync.c - keeping a device redundant, as a job: resync, recovery and scrub in steps, beside what
 * clients do. */
#include "block/block.h"
#include "block/job.h"

#define SAVE_NS (10 * 1000000000ull)

struct blk_device *blk_find_redundant(struct blk_device *dev)
{
    if (dev->driver->co_sync)
        return dev;
    for (size_t i = 0; i < dev->child_count; i++) {
        struct blk_device *found = blk_find_redundant(dev->children[i].dev);
        if (found)
            return found;
    }
    return NULL;
}

static int co_steps(struct job *j, struct blk_device *dev, struct blk_sync *s, struct blk_error *e)
{
    uint64_t saved_ns = worker_now();
    const char *doing = NULL;
    for (;;) {
        uint64_t was = s->at;
        TRY(co_blk_sync(dev, s, e));
        if (!s->doing)
            return 0;
        if (s->doing != doing) { /* the next kind of work */
            doing = s->doing;
            was = MIN(was, s->at);
            j->total = j->done + s->total - was;
        }
        TRY(co_job_step(j, s->at > was ? s->at - was : 0));
        if (worker_now() - saved_ns < SAVE_NS)
            continue;
        TRY(co_blk_sync_save(dev, e));
        saved_ns = worker_now();
    }
}

int co_job_sync(struct job *j, struct blk_device *dev, struct blk_sync *s, struct blk_error *e)
{
    int rc = co_steps(j, dev, s, e);
    int saved = co_blk_sync_save(dev, rc < 0 ? NULL : e);
    return rc < 0 ? rc : saved;
}

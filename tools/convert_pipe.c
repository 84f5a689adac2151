/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_pipe.c - convert into a pipe (pipe.h). */
#include "tools/convert.h"
#include "tools/pipe.h"

int co_convert_pipe_disk(struct convert *c)
{
    struct tool *t = c->make.tool;
    for (size_t i = 0; i < c->count; i++) {
        const struct convert_source *s = &c->sources[i];
        uint64_t bytes = MIN(s->bytes, s->dev->size);
        uint64_t end = i + 1 < c->count ? s[1].start : c->size;
        TRY(co_pipe_out(t, s->dev, bytes, &c->task.job, &c->task.error));
        TRY(co_pipe_zeroes(t, end - s->start - bytes,
                           &c->task.error)); /* an odd size, rounded up */
    }
    return 0;
}

int co_convert_pipe_image(struct convert *c)
{
    struct blk_device *spool = c->make.spool;
    return co_pipe_out(c->make.tool, spool, spool->size, NULL, &c->task.error);
}

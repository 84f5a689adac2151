/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_drop.c - a big copy does not push everything else out of the page cache.
 *
 * Every 256 MiB the kernel is told that what lies behind is not needed any more: of the sources'
 * files all but a stretch around the place where the copy is, of the target's all. For the target
 * the advice also starts write-back; what is clean by the next time goes then. Small copies leave
 * everything where it is: who reads the result next wants it in memory. */
#include <unistd.h>

#include "tools/convert.h"

#define STEP   (256 * MiB)
#define AROUND (64 * MiB) /* read ahead, and pieces in flight */
#define FILES  64

static uint64_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : UINT64_MAX;
}

/* True once more has come by than the memory should hold of one copy. */
static bool is_big(struct convert_drop *d)
{
    if (d->limit == 0)
        d->limit = memory_bytes() / 2;
    return d->seen > d->limit;
}

bool convert_drop_due(struct convert *c, uint64_t bytes)
{
    struct convert_drop *d = &c->drop;
    d->seen += bytes;
    d->since += bytes;
    if (d->mode == DROP_NEVER || d->since < STEP || (d->mode == DROP_IF_BIG && !is_big(d)))
        return false;
    d->since = 0;
    return true;
}

static void co_drop_range(struct host_file *f, uint64_t from, uint64_t to)
{
    if (to > from)
        (void)!co_host_advise(f, HOST_DONT_NEED, from, to == UINT64_MAX ? 0 : to - from);
}

static void co_drop_source(struct host_file *f, const struct blk_place *here)
{
    if (here->file != f) {
        co_drop_range(f, 0, UINT64_MAX);
        return;
    }
    co_drop_range(f, 0, here->offset > AROUND ? here->offset - AROUND : 0);
    co_drop_range(f, here->offset + AROUND, UINT64_MAX);
}

void co_convert_drop(struct convert *c, uint64_t offset)
{
    struct host_file *file[FILES];
    for (size_t i = 0; i < c->count; i++) {
        const struct convert_source *s = &c->sources[i];
        struct blk_place here = {0};
        bool inside = offset >= s->start && offset - s->start < s->dev->size;
        if (inside && !blk_resolve(s->dev, offset - s->start, 1, false, &here))
            here.file = NULL;
        unsigned count = blk_host_files(s->dev, file, FILES);
        for (unsigned k = 0; k < count; k++)
            co_drop_source(file[k], &here);
    }
    unsigned count = blk_host_files(c->target, file, FILES);
    for (unsigned k = 0; k < count; k++)
        co_drop_range(file[k], 0, UINT64_MAX);
}

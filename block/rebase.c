/* SPDX-License-Identifier: BSD-3-Clause */
/* rebase.c - an image comes to stand on another backing image and shows the same bytes.
 *
 *   1 where the image itself holds nothing, what it stands on now is compared with what it will
 *     stand on; what differs is written into the image
 *   2 the image is flushed: it shows the same bytes on either of the two
 *   3 its header names the other one (co_change_backing: old or new, nothing between). Where it
 *     says by a UUID who that is, it says of nobody in between, so that it opens after a crash
 * Past the end of a backing image there are zeroes, also in comparing. */
#include "block/alike.h"
#include "block/chain.h"
#include "block/pieces.h"

#define STEP_BYTES (1 * MiB)
#define MAX_STEP   (2 * MiB)
#define IN_FLIGHT  8
#define LEAST_UNIT 4096u

struct rebase {
    const struct blk_rebase *what;
    uint64_t unit; /* is written whole if anything in it differs */
    uint64_t step; /* what is compared at once */
};

/* One stretch as the two images show it. */
struct sides {
    uint8_t *old, *new;
};
/* The kind of a piece: who reads zero there. */
enum { OLD_ZERO = 1, NEW_ZERO = 2 };

static int co_read(struct blk_device *dev, uint64_t offset, uint8_t *to, uint64_t bytes, bool zero)
{
    if (!zero)
        return co_blk_read_buf(dev, offset, to, bytes);
    memset(to, 0, bytes);
    return 0;
}

/* Zeroes as a cell where something is hidden by it; where the old backing image does not reach, a
 * hole would do for it but not for the new one, so they are written. */
static int co_write(const struct rebase *r, uint64_t offset, const uint8_t *from, uint64_t bytes)
{
    const struct blk_rebase *w = r->what;
    if (w->now && offset + bytes <= w->now->size && mem_is_zero(from, bytes))
        return co_blk_write_zeroes(w->image, offset, bytes, BLK_MAY_UNMAP);
    uint64_t cluster = w->image->limits.cluster_size, end = offset + bytes;
    bool whole = cluster && offset % cluster == 0 && (end % cluster == 0 || end == w->image->size);
    return co_blk_write_buf(w->image, offset, from, bytes,
                            w->compress && whole ? BLK_COMPRESSED : 0);
}

/* Writes runs of units that differ. */
static int co_write_differences(const struct rebase *r, const struct sides *s, uint64_t offset,
                                uint64_t bytes)
{
    uint64_t run = 0, run_bytes = 0;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t n = MIN(r->unit - (offset + at) % r->unit, bytes - at);
        if (memcmp(s->old + at, s->new + at, n) != 0) {
            run = run_bytes ? run : at;
            run_bytes = at + n - run;
        } else if (run_bytes) {
            TRY(co_write(r, offset + run, s->old + run, run_bytes));
            run_bytes = 0;
        }
        at += n;
    }
    return run_bytes ? co_write(r, offset + run, s->old + run, run_bytes) : 0;
}

static int co_compare(const struct piece *p, const struct sides *s)
{
    const struct rebase *r = p->all->arg;
    TRY(co_read(r->what->now, p->offset, s->old, p->bytes, p->kind & OLD_ZERO));
    TRY(co_read(r->what->next, p->offset, s->new, p->bytes, p->kind & NEW_ZERO));
    return co_write_differences(r, s, p->offset, p->bytes);
}

static int co_piece(struct piece *p)
{
    const struct rebase *r = p->all->arg;
    struct sides s = {.old = buf_get(r->step), .new = buf_get(r->step)};
    int rc = s.old && s.new ? co_compare(p, &s) : -ENOMEM;
    if (s.old)
        buf_put(s.old, r->step);
    if (s.new)
        buf_put(s.new, r->step);
    return rc;
}

/* The front of [offset, +*bytes), which the image leaves to what is below, is given out if the two
 * may differ there; *bytes: how long it is. */
static int co_give(const struct rebase *r, struct pieces *p, uint64_t offset, uint64_t *bytes)
{
    const struct blk_rebase *w = r->what;
    struct blk_alike a;
    TRY(co_blk_alike(w->now, w->next, offset, bytes, &a));
    if (a.same) {
        pieces_pass(p, *bytes);
        return 0;
    }
    *bytes = MIN(*bytes, r->step - offset % r->step);
    pieces_give(p, offset, *bytes, (a.first_zero ? OLD_ZERO : 0) | (a.second_zero ? NEW_ZERO : 0));
    return 0;
}

/* Pieces behind fill clusters of the image with what it shows already, so what the walk sees of it
 * may be old but is never wrong. */
static int co_walk(const struct rebase *r, struct pieces *p)
{
    const struct blk_rebase *w = r->what;
    for (uint64_t at = 0; at < w->image->size && !pieces_stopped(p);) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(w->image, w->now, at, w->image->size - at, &ext, &depth));
        uint64_t bytes = ext.bytes;
        if (ext.flags & BLK_EXT_ALLOCATED)
            pieces_pass(p, bytes);
        else
            TRY(co_give(r, p, at, &bytes));
        at += bytes;
    }
    return 0;
}

static int co_write_all(const struct blk_rebase *w)
{
    uint64_t unit = MAX(w->image->limits.cluster_size, LEAST_UNIT);
    struct rebase r = {.what = w, .unit = unit, .step = MAX(STEP_BYTES, MIN(unit, MAX_STEP))};
    struct pieces p = {.co_work = co_piece, .arg = &r, .job = w->job, .limit = IN_FLIGHT};
    pieces_init(&p);
    int rc = co_walk(&r, &p);
    int done = pieces_wait(&p);
    return rc < 0 ? rc : done;
}

static int co_name_next(const struct blk_rebase *w, struct blk_error *e)
{
    if (w->name && w->image->driver->co_change_backing)
        TRY(co_blk_identify_backing(w->image, NULL, e));
    TRY(co_blk_change_backing(w->image, w->name, w->format, e));
    return w->name && w->next ? co_blk_identify_backing(w->image, w->next, e) : 0;
}

int co_blk_rebase(const struct blk_rebase *w, struct blk_error *e)
{
    assert(w->image->writable);
    if (w->job)
        w->job->total = w->image->size;
    int rc = 0;
    if (!w->unsafe && w->image->driver->co_change_backing) {
        rc = co_write_all(w); /* 1 */
        if (rc == 0)
            rc = co_blk_flush(w->image); /* 2 */
    }
    if (rc < 0)
        return err_errno(e, rc, "cannot write what differs into %s", w->image->name);
    rc = co_name_next(w, e); /* 3 */
    if (rc < 0 && e)
        err_prefix(e, "Could not change the backing file to '%s'", w->name ? w->name : "");
    return rc;
}

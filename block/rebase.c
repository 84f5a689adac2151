/* SPDX-License-Identifier: BSD-3-Clause */
/* rebase.c - an image comes to stand on another backing image and shows the same bytes.
 *
 *   1 where the image itself holds nothing, what it stands on now is compared with what it will
 *     stand on; what differs is written into the image
 *   2 the image is flushed: it shows the same bytes on either of the two
 *   3 its header names the other one (co_change_backing: old or new, nothing between)
 * Past the end of a backing image there are zeroes, also in comparing. */
#include "block/chain.h"

#define STEP_BYTES (1 * MiB)
#define LEAST_UNIT 4096u

struct rebase {
    const struct blk_rebase *what;
    uint64_t unit; /* is written whole if anything in it differs */
    uint8_t *old, *new;
};

/* What @dev (NULL: nothing) shows: *zero, for *bytes from @offset on. */
static int co_status(struct blk_device *dev, uint64_t offset, uint64_t *bytes, bool *zero)
{
    struct blk_extent ext;
    unsigned depth;
    *zero = true;
    if (!dev || offset >= dev->size)
        return 0;
    *bytes = MIN(*bytes, dev->size - offset);
    TRY(co_blk_map_chain(dev, NULL, offset, *bytes, &ext, &depth));
    *bytes = ext.bytes;
    *zero = ext.flags & BLK_EXT_ZERO;
    return 0;
}

/* True if both show the same place of the same file: layers that the two chains share. */
static bool same_place(const struct blk_rebase *w, uint64_t offset, uint64_t *bytes)
{
    struct blk_place a, b;
    if (!blk_resolve(w->now, offset, *bytes, false, &a) ||
        !blk_resolve(w->next, offset, *bytes, false, &b))
        return false;
    const struct host_stat *sa = &a.file->stat, *sb = &b.file->stat;
    if (a.offset != b.offset || sa->device != sb->device || sa->inode != sb->inode)
        return false;
    *bytes = MIN(a.bytes, b.bytes);
    return true;
}

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
    return co_blk_write_buf(w->image, offset, from, bytes, 0);
}

/* Writes runs of units that differ. */
static int co_write_differences(const struct rebase *r, uint64_t offset, uint64_t bytes)
{
    uint64_t run = 0, run_bytes = 0;
    for (uint64_t at = 0; at < bytes;) {
        uint64_t n = MIN(r->unit - (offset + at) % r->unit, bytes - at);
        if (memcmp(r->old + at, r->new + at, n) != 0) {
            run = run_bytes ? run : at;
            run_bytes = at + n - run;
        } else if (run_bytes) {
            TRY(co_write(r, offset + run, r->old + run, run_bytes));
            run_bytes = 0;
        }
        at += n;
    }
    return run_bytes ? co_write(r, offset + run, r->old + run, run_bytes) : 0;
}

/* The front of [offset, +*bytes), which the image leaves to what is below; *bytes: what was done.
 */
static int co_compare(const struct rebase *r, uint64_t offset, uint64_t *bytes)
{
    const struct blk_rebase *w = r->what;
    bool old_zero, new_zero;
    TRY(co_status(w->now, offset, bytes, &old_zero));
    TRY(co_status(w->next, offset, bytes, &new_zero));
    if (old_zero && new_zero)
        return 0;
    if (!old_zero && !new_zero && same_place(w, offset, bytes))
        return 0;
    *bytes = MIN(*bytes, STEP_BYTES - offset % STEP_BYTES);
    TRY(co_read(w->now, offset, r->old, *bytes, old_zero));
    TRY(co_read(w->next, offset, r->new, *bytes, new_zero));
    return co_write_differences(r, offset, *bytes);
}

static int co_walk(const struct rebase *r)
{
    const struct blk_rebase *w = r->what;
    for (uint64_t at = 0; at < w->image->size;) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(w->image, w->now, at, w->image->size - at, &ext, &depth));
        uint64_t bytes = ext.bytes;
        if (!(ext.flags & BLK_EXT_ALLOCATED))
            TRY(co_compare(r, at, &bytes));
        at += bytes;
        if (w->job)
            TRY(co_job_step(w->job, bytes));
    }
    return 0;
}

static int co_write_all(const struct blk_rebase *w)
{
    struct rebase r = {.what = w, .unit = MAX(w->image->limits.cluster_size, LEAST_UNIT)};
    r.old = buf_get(STEP_BYTES);
    r.new = buf_get(STEP_BYTES);
    int rc = r.old && r.new ? co_walk(&r) : -ENOMEM;
    if (r.old)
        buf_put(r.old, STEP_BYTES);
    if (r.new)
        buf_put(r.new, STEP_BYTES);
    return rc;
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
    rc = co_blk_change_backing(w->image, w->name, w->format, e); /* 3 */
    if (rc < 0 && e)
        err_prefix(e, "Could not change the backing file to '%s'", w->name ? w->name : "");
    return rc;
}

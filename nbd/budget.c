/* SPDX-License-Identifier: BSD-3-Clause */
/* budget.c - a layer under an image's file that lets it grow only within a budget that it shares
 * with others. What lies inside the file's length passes through; what goes past it is counted
 * first, and stays counted if it fails: what the file has taken is never more than what was
 * counted. */
#include "nbd/clones.h"

struct budgeted {
    struct blk_device *child;
    struct nbd_budget *budget;
    uint64_t counted; /* bytes of the file */
    bool fleeting;
};

static int count(struct budgeted *b, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes, more;

    if (end <= b->counted)
        return 0;
    more = end - b->counted;
    if (more > b->budget->limit || b->budget->used > b->budget->limit - more)
        return -ENOSPC;
    b->budget->used += more;
    b->counted = end;
    return 0;
}

static bool resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                    struct blk_place *out)
{
    const struct budgeted *b = dev->state;

    *out = (struct blk_place){.child = b->child, .offset = offset, .bytes = bytes};
    return true;
}

static int co_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    struct budgeted *b = dev->state;

    TRY(count(b, offset, from->bytes));
    return co_blk_write(b->child, offset, from, flags);
}

static int co_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct budgeted *b = dev->state;

    TRY(count(b, offset, bytes));
    return co_blk_write_zeroes(b->child, offset, bytes, flags);
}

static int co_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct budgeted *b = dev->state;

    TRY(count(b, offset, from->bytes));
    return co_blk_copy_from(b->child, offset, from);
}

static int co_flush(struct blk_device *dev)
{
    const struct budgeted *b = dev->state;

    return co_blk_flush(b->child);
}

static int co_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct budgeted *b = dev->state;

    if (count(b, 0, size) < 0)
        return err_set(e, -ENOSPC, "%s: the clones' space is used up", dev->name);
    TRY(co_blk_resize(b->child, size, shrink, e));
    b->budget->used -= b->counted - size;
    b->counted = size;
    return 0;
}

static int co_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                   struct blk_error *e)
{
    struct blk_device *child;
    struct budgeted *b;

    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    b = mem_zalloc(sizeof(*b));
    if (!b)
        return err_set(e, -ENOMEM, "out of memory");
    *b = (struct budgeted){.child = child, .counted = child->size};
    dev->state = b;
    dev->size = child->size;
    blk_inherit_limits(dev, child);
    dev->limits.growable = child->limits.growable;
    return 0;
}

static int co_close(struct blk_device *dev, struct blk_error *e)
{
    struct budgeted *b = dev->state;

    if (b->fleeting)
        b->budget->used -= b->counted;
    mem_free(b);
    return 0;
}

static const struct blk_driver budget_driver = {
    .name = "budget",
    .title = "a file that grows only within what is allowed",
    .is_filter = true,
    .handles_fua = true,
    .co_open = co_open,
    .co_close = co_close,
    .co_write = co_write,
    .co_write_zeroes = co_write_zeroes,
    .co_copy = co_copy,
    .co_flush = co_flush,
    .co_resize = co_resize,
    .resolve = resolve,
};

int co_nbd_budget_put(struct blk_device *file, struct nbd_budget *b, bool fleeting,
                      struct blk_device **out, struct blk_error *e)
{
    struct budgeted *own;
    const struct blk_child child = {.role = "file", .dev = file};
    int rc = co_blk_open(&budget_driver, file->name, NULL, BLK_OPEN_WRITE, NULL, &child, 1, out, e);

    if (rc < 0)
        return rc;
    own = (*out)->state;
    own->budget = b;
    own->fleeting = fleeting;
    return 0;
}

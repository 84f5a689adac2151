/* SPDX-License-Identifier: BSD-3-Clause */
/* slice.c - a part of another device. All work is resolve's: the rest goes through it to the child.
 */
#include "block/block.h"

struct slice {
    struct blk_device *child;
    uint64_t offset;
};

static bool slice_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                          struct blk_place *out)
{
    const struct slice *s = dev->state;
    *out = (struct blk_place){.child = s->child, .offset = s->offset + offset, .bytes = bytes};
    return true;
}

static const struct opt_desc slice_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the device to take a part of"},
    {.name = "offset", .type = OPT_SIZE, .preset = "0", .help = "where the part begins"},
    {.name = "size", .type = OPT_SIZE, .help = "its length (default: to the end)"},
    {0},
};

static int co_slice_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct blk_device *child;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &child, e));
    uint64_t offset = opts_number(opts, "offset");
    if (offset > child->size)
        return err_set(e, -EINVAL, "offset %" PRIu64 " lies past the end of %s (%" PRIu64 " bytes)",
                       offset, child->name, child->size);
    uint64_t size = opts_given(opts, "size") ? opts_number(opts, "size") : child->size - offset;
    if (!range_fits(offset, size, child->size))
        return err_set(e, -EINVAL,
                       "%" PRIu64 " bytes from %" PRIu64 " on reach past the end of %s (%" PRIu64
                       " bytes)",
                       size, offset, child->name, child->size);
    struct slice *s = mem_zalloc(sizeof(*s));
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    *s = (struct slice){.child = child, .offset = offset};
    dev->state = s;
    dev->size = size;
    blk_inherit_limits(dev, child);
    return 0;
}

static int co_slice_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver slice_driver = {
    .name = "slice",
    .title = "a part of another device",
    .is_filter = true,
    .stays_put = true,
    .open_options = slice_options,
    .co_open = co_slice_open,
    .co_close = co_slice_close,
    .resolve = slice_resolve,
};

int blk_show_slice(struct blk_device *dev, struct blk_device *child, uint64_t offset,
                   uint64_t bytes)
{
    assert(range_fits(offset, bytes, child->size));
    struct slice *s = mem_zalloc(sizeof(*s));
    if (!s)
        return -ENOMEM;
    int rc = blk_add_child(dev, "file", blk_ref(child));
    if (rc < 0) {
        co_blk_close(child, NULL); /* the reference; not the last one */
        mem_free(s);
        return rc;
    }
    *s = (struct slice){.child = child, .offset = offset};
    dev->driver = &slice_driver;
    dev->state = s;
    dev->size = bytes;
    blk_inherit_limits(dev, child);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* concat.c - devices one behind the other. resolve finds the child by binary search; the waist cuts
 * requests at the seams. */
#include "block/block.h"
#include "block/resolver.h"

struct concat {
    size_t count;
    uint64_t ends[]; /* of each child, in our offsets */
};

static bool concat_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    const struct concat *c = dev->state;
    size_t i = find_by_end(c->ends, sizeof(c->ends[0]), c->count, offset);
    uint64_t begin = i ? c->ends[i - 1] : 0;
    assert(offset >= begin && offset < c->ends[i]);
    *out = (struct blk_place){.child = dev->children[i].dev,
                              .offset = offset - begin,
                              .bytes = MIN(bytes, c->ends[i] - offset)};
    return true;
}

static const struct opt_desc concat_options[] = {
    {.name = "children", .type = OPT_CHILDREN, .help = "the devices, in order"},
    {0},
};

static int co_concat_open(struct blk_device *dev, const struct opts *opts,
                          struct blk_opener *opener, struct blk_error *e)
{
    if (dev->child_count == 0 && opener)
        TRY(co_opener_children(opener, dev, "children", "child", dev->open_flags, e));
    if (dev->child_count == 0)
        return err_set(e, -EINVAL, "the driver concat needs \"children\", a list of devices");
    struct concat *c = mem_zalloc(sizeof(*c) + dev->child_count * sizeof(c->ends[0]));
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    c->count = dev->child_count;
    blk_inherit_limits(dev, dev->children[0].dev);
    for (size_t i = 0; i < c->count; i++) {
        const struct blk_device *child = dev->children[i].dev;
        if (!add_u64(dev->size, child->size, &dev->size) || dev->size > INT64_MAX) {
            mem_free(c);
            return err_set(e, -EFBIG, "together the devices are too big");
        }
        c->ends[i] = dev->size;
        dev->limits.fresh_reads_zero &= child->limits.fresh_reads_zero;
        dev->limits.discard_reads_zero &= child->limits.discard_reads_zero;
        dev->limits.can_zero_fast &= child->limits.can_zero_fast;
        dev->limits.can_unmap &= child->limits.can_unmap;
    }
    dev->state = c;
    return 0;
}

static int co_concat_close(struct blk_device *dev, struct blk_error *e)
{
    mem_free(dev->state);
    return 0;
}

const struct blk_driver concat_driver = {
    .name = "concat",
    .title = "devices one behind the other",
    .is_filter = true,
    .stays_put = true,
    .open_options = concat_options,
    .co_open = co_concat_open,
    .co_close = co_concat_close,
    .resolve = concat_resolve,
};

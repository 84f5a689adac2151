/* SPDX-License-Identifier: BSD-3-Clause */
/* measure.c - how large a new image will be: the checked call, and the walk over the extents of
 * what it is to hold. Only extents are looked at, no data is read. */
#include "block/block.h"

int co_blk_measure(const struct blk_driver *driver, struct blk_measure *m, struct blk_error *e)
{
    assert(m->opts && m->size <= INT64_MAX);
    assert(!m->source || m->source->size <= m->size);
    m->required = m->fully_allocated = 0;
    if (!driver->co_measure)
        return err_set(e, -ENOTSUP, "Block driver '%s' does not support size measurement",
                       driver->name);
    int rc = driver->co_measure(m, e);
    assert(rc < 0 || m->required <= m->fully_allocated);
    return rc;
}

int co_blk_data_bytes(struct blk_device *dev, uint64_t unit, uint64_t *bytes)
{
    assert(is_pow2(unit));
    *bytes = 0;
    for (uint64_t at = 0; at < dev->size;) {
        struct blk_extent ext;
        unsigned depth;
        TRY(co_blk_map_chain(dev, NULL, at, dev->size - at, &ext, &depth));
        uint64_t end = at + ext.bytes;
        if (!(ext.flags & BLK_EXT_ZERO)) {
            end = align_up(end, unit); /* the rest of the unit is counted with it */
            *bytes += end - align_down(at, unit);
        }
        at = end;
    }
    return 0;
}

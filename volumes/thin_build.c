/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_build.c - metadata from a list of mappings.
 *
 * Order: 1. Block 0 is zeroed, flush: no pool. 2. An empty pool is made. 3. Devices and mappings go
 * into blocks of one transaction, which its commit makes the pool's. */
#include "volumes/thin_build.h"

int co_thin_build_begin(struct thin_build *b, struct blk_device *dev, const struct thin_super *like,
                        struct blk_error *e)
{
    *b = (struct thin_build){0};
    int rc = co_blk_write_zeroes(dev, 0, MIN(dev->size, THIN_BLOCK), 0);
    if (rc == 0)
        rc = co_blk_flush(dev);
    if (rc < 0)
        return err_errno(e, rc, "%s", dev->name);
    TRY(co_thin_format(dev, like->chunk_bytes, like->data.blocks, e));
    TRY(co_thin_meta_open(&b->m, dev, NULL, true, 64 * MiB, e));
    b->m.super.time = like->time;
    b->m.super.transaction = like->transaction;
    memcpy(b->m.super.uuid, like->uuid, sizeof(like->uuid));
    return 0;
}

static int failed(struct blk_error *e, int rc)
{
    return rc == -ENOSPC
               ? err_set(
                     e, rc,
                     "the metadata device is too small for the pool's mappings: take a larger one")
               : err_errno(e, rc, "the metadata could not be written");
}

int co_thin_build_device(struct thin_build *b, uint32_t id, const struct thin_detail *d,
                         struct blk_error *e)
{
    struct thin_detail there;
    if (id > THIN_ID_MOST || co_thin_detail(&b->m, id, &there) == 0)
        return err_set(e, -EINVAL, "device %u comes twice, or its number is too high", id);
    int rc = co_thin_tree_new(&b->m, &thin_mappings, &b->root);
    b->id = id;
    b->detail = *d;
    b->in_device = true;
    return rc < 0 ? failed(e, rc) : 0;
}

static int co_put(struct thin_build *b, const struct thin_extent *x)
{
    for (uint64_t i = 0; i < x->length; i++) {
        le64 value = le64_of(thin_mapping(x->data + i, x->time));
        TRY(co_thin_data_hold(&b->m, x->data + i));
        TRY(co_thin_insert(&b->m, &thin_mappings, &b->root, x->begin + i, &value));
    }
    return 0;
}

int co_thin_build_extent(struct thin_build *b, const struct thin_extent *x, struct blk_error *e)
{
    uint64_t end;
    if (!b->in_device)
        return err_set(e, -EINVAL, "a mapping comes before the device that it belongs to");
    if (!range_fits(x->data, x->length, b->m.space.root.blocks) ||
        !add_u64(x->begin, x->length, &end))
        return err_set(e, -EINVAL, "device %u maps block %" PRIu64 ", which the pool has not",
                       b->id, x->data);
    int rc = co_put(b, x);
    return rc < 0 ? failed(e, rc) : 0;
}

int co_thin_build_device_end(struct thin_build *b, struct blk_error *e)
{
    le64 value = le64_of(b->root);
    b->in_device = false;
    int rc = co_thin_insert(&b->m, &thin_devices, &b->m.super.mapping_root, b->id, &value);
    if (rc == 0)
        rc = co_thin_set_detail(&b->m, b->id, &b->detail);
    return rc < 0 ? failed(e, rc) : 0;
}

int co_thin_build_end(struct thin_build *b, int rc, struct blk_error *e)
{
    if (rc == 0) {
        b->m.dirty = true;
        rc = co_thin_commit(&b->m);
        if (rc < 0)
            failed(e, rc);
    }
    if (b->m.super_block)
        thin_meta_close(&b->m);
    return rc;
}

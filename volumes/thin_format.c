/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_format.c - the metadata of a new, empty pool. The superblock is written last, so until then
 * the device holds what it held, or no pool. */
#include "volumes/thin_meta.h"

static int co_make_trees(struct thin_meta *m, uint64_t blocks)
{
    TRY(co_thin_tree_new(m, &thin_overflow, &m->meta_space.root.overflow_root));
    TRY(co_thin_tree_new(m, &thin_bitmaps, &m->space.root.bitmap_root));
    TRY(co_thin_tree_new(m, &thin_overflow, &m->space.root.overflow_root));
    TRY(co_thin_tree_new(m, &thin_mappings, &m->super.mapping_root));
    TRY(co_thin_tree_new(m, &thin_details, &m->super.details_root));
    for (unsigned i = 0; i < div_up(m->meta_space.root.blocks, THIN_PER_BITMAP); i++)
        m->meta_space.dirty_bitmaps[i] = true;
    return co_thin_space_grow(m, blocks);
}

static int co_build(struct thin_meta *m, uint64_t blocks)
{
    uint64_t count = MIN(m->dev->size / THIN_BLOCK, THIN_META_MOST);
    m->super_block = mem_aligned(THIN_BLOCK);
    if (!m->super_block)
        return -ENOMEM;
    memset(m->super_block, 0, THIN_BLOCK);
    TRY(thin_cache_init(&m->cache, m->dev, 4 * MiB));
    TRY(thin_meta_space_init(m, count));
    m->super.metadata_blocks = count;
    TRY(co_make_trees(m, blocks));
    return co_thin_commit(m);
}

int co_thin_format(struct blk_device *dev, uint64_t chunk_bytes, uint64_t blocks,
                   struct blk_error *e)
{
    if (dev->size / THIN_BLOCK < 16)
        return err_set(e, -EINVAL, "a pool's metadata needs 64 KiB at the least");
    if (chunk_bytes < THIN_CHUNK_LEAST || chunk_bytes > THIN_CHUNK_MOST ||
        chunk_bytes % THIN_CHUNK_LEAST)
        return err_set(e, -EINVAL, "data blocks are 64 KiB to 1 GiB, in steps of 64 KiB");
    if (blocks > THIN_DATA_MOST)
        return err_set(e, -EINVAL, "more data blocks than can be numbered");
    struct thin_meta m = {
        .dev = dev, .writable = true, .super = {.version = 2, .chunk_bytes = chunk_bytes}};
    int rc = co_build(&m, blocks);
    thin_meta_close(&m);
    if (rc == -ENOSPC)
        return err_set(e, rc, "%s is too small to count %" PRIu64 " data blocks", dev->name,
                       blocks);
    return rc < 0 ? err_errno(e, rc, "%s", dev->name) : 0;
}

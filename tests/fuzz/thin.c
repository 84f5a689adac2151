/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.c - a sound pool's metadata, patched as the input says, its checksums put right: checked,
 * read, and if it opens for that written, snapshotted, deleted. Nothing may crash or hang.
 *
 * The input is a list of patches: which of the blocks that are used, where in it (in words of 8
 * bytes), 8 bytes. */
#include "tests/fuzz/fuzz_stack.h"
#include "volumes/thin_check.h"
#include "volumes/thin_extents.h"
#include "volumes/thin_pool.h"

#define BLOCKS     96 /* of metadata */
#define DATA       64 /* blocks */
#define PATCH      11
#define CHUNK      (64 * KiB)
#define META_BYTES (BLOCKS * (size_t)THIN_BLOCK)

static uint8_t sound[META_BYTES];
static struct {
    unsigned count, list[BLOCKS];
    enum thin_kind kinds[BLOCKS];
} used;

static struct blk_device *co_disk(uint64_t size)
{
    struct blk_error e;
    struct blk_device *disk = NULL;
    json_auto_t *tree = json_pack("{s:I}", "size", (json_int_t)size);
    if (co_blk_open(&mem_driver, "disk", tree, BLK_OPEN_WRITE, NULL, NULL, 0, &disk, &e) < 0)
        abort();
    return disk;
}

static int co_pool(struct blk_device *meta, struct blk_device *data, struct blk_device **out)
{
    struct blk_error e;
    struct blk_child children[] = {{"metadata", blk_ref(meta)}, {"data", blk_ref(data)}};
    return co_blk_open(&thin_driver, "pool", NULL, BLK_OPEN_WRITE, NULL, children, 2, out, &e);
}

static void co_write_some(struct blk_device *pool, const char *name, uint64_t at, uint64_t bytes)
{
    struct blk_device *dev;
    struct blk_error e;
    uint8_t *buf = mem_zalloc(bytes);
    if (!buf || co_blk_inner_open(pool, name, &dev, &e) < 0)
        abort();
    memset(buf, 7, bytes);
    if (co_blk_write_buf(dev, at, buf, bytes, 0) < 0)
        abort();
    mem_free(buf);
    co_blk_close(dev, &e);
}

/* Two volumes, a snapshot of each, blocks that two and three of them share. */
static void co_make_sound(void)
{
    struct blk_device *meta = co_disk(META_BYTES), *data = co_disk(DATA * CHUNK), *pool;
    struct blk_error e;
    if (co_thin_format(meta, CHUNK, DATA, &e) < 0 || co_pool(meta, data, &pool) < 0)
        abort();
    struct thin_pool *p = thin_pool_of(pool);
    if (co_pool_create(p, 1, &e) < 0 || co_pool_create(p, 2, &e) < 0)
        abort();
    co_write_some(pool, "1,size=2M", 0, 1 * MiB);
    if (co_pool_snap(p, 3, 1, &e) < 0 || co_pool_snap(p, 4, 1, &e) < 0)
        abort();
    co_write_some(pool, "3,size=2M", 64 * KiB, 256 * KiB);
    co_write_some(pool, "4,size=2M", 128 * KiB, 64 * KiB);
    co_write_some(pool, "2,size=2M", 128 * KiB, 64 * KiB);
    co_blk_close(pool, &e);
    if (co_blk_read_buf(meta, 0, sound, META_BYTES) < 0)
        abort();
    co_blk_close(data, &e);
    co_blk_close(meta, &e);
}

static void find_used(void)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned kind = THIN_SUPER; kind <= THIN_INDEX; kind++)
            if (!thin_verify((enum thin_kind)kind, i, sound + i * (size_t)THIN_BLOCK)) {
                used.kinds[used.count] = (enum thin_kind)kind;
                used.list[used.count++] = i;
            }
}

static void co_patch(struct blk_device *meta, const struct fuzz_input *in)
{
    uint8_t *image = mem_alloc(META_BYTES);
    if (!image)
        abort();
    memcpy(image, sound, META_BYTES);
    for (size_t at = 0; at + PATCH <= in->bytes; at += PATCH) {
        const uint8_t *p = in->data + at;
        unsigned i = p[0] % used.count, block = used.list[i];
        uint8_t *b = image + block * (size_t)THIN_BLOCK;
        memcpy(b + (p[1] | p[2] << 8) % 512 * 8, p + 3, 8);
        thin_seal(used.kinds[i], block, b);
    }
    if (co_blk_write_buf(meta, 0, image, META_BYTES, 0) < 0)
        abort();
    mem_free(image);
}

static void co_use_volume(struct blk_device *pool, const char *name)
{
    struct blk_device *dev;
    struct blk_error e;
    struct blk_extent x;
    uint8_t *buf = mem_zalloc(300 * KiB);
    if (buf && co_blk_inner_open(pool, name, &dev, &e) == 0) {
        (void)!co_blk_read_buf(dev, 0, buf, MIN(dev->size, 300 * KiB));
        (void)!co_blk_write_buf(dev, 0, buf, MIN(dev->size, 200 * KiB), 0);
        if (dev->size)
            (void)!co_blk_map(dev, 0, dev->size, &x);
        (void)!co_blk_discard(dev, 0, MIN(dev->size, 1 * MiB));
        (void)!co_blk_flush(dev);
        co_blk_close(dev, &e);
    }
    mem_free(buf);
}

static void co_use_pool(struct blk_device *pool)
{
    struct thin_pool *p = thin_pool_of(pool);
    struct blk_inner *list;
    struct blk_error e;
    size_t count;
    if (co_blk_inner_list(pool, &list, &count, &e) == 0)
        blk_inner_drop(list, count);
    co_use_volume(pool, "1");
    co_use_volume(pool, "3,size=2M");
    (void)!co_pool_snap(p, 9, 1, &e);
    co_use_volume(pool, "4,size=2M");
    (void)!co_pool_delete(p, 3, &e);
    (void)!co_pool_create(p, 12, &e);
    (void)!co_pool_grow(p, &e);
}

static int co_input(void *arg)
{
    struct blk_error e;
    struct thin_check check = {0};
    struct thin_reader reader = {0};
    struct thin_meta m;
    struct blk_device *pool;
    if (used.count == 0) {
        co_make_sound();
        find_used();
    }
    struct blk_device *meta = co_disk(META_BYTES), *data = co_disk((DATA + 8) * CHUNK);
    co_patch(meta, arg);
    (void)!co_thin_check(meta, &check, &e);
    if (co_thin_meta_open(&m, meta, NULL, false, 1 * MiB, &e) == 0) {
        (void)!co_thin_read(&m, NULL, &reader);
        thin_meta_close(&m);
    }
    if (co_pool(meta, data, &pool) == 0) {
        co_use_pool(pool);
        co_blk_close(pool, &e);
    }
    co_blk_close(data, &e);
    co_blk_close(meta, &e);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input in = {.data = data, .bytes = bytes};
    fuzz_stack_with(co_input, &in);
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* part.c - any bytes as a disk with partitions, in both kinds of tables: opened, each partition
 * read; then one is deleted, one added, one grown. The checksums of a GPT are put right first, else
 * nothing else would be seen. */
#include "tests/fuzz/fuzz_readonly.h"
#include "volumes/gpt.h"

static void co_change(struct blk_device *dev, const char *name)
{
    struct blk_error e = {0};
    struct opts *o = mem_zalloc(sizeof(*o));
    auto_free char *made = NULL;
    uint64_t bytes;
    if (!o || !dev->driver->co_inner_add ||
        opts_parse(dev->driver->inner_options, NULL, o, &e) < 0) {
        mem_free(o);
        return;
    }
    if (name)
        (void)!co_blk_inner_delete(dev, name, &e);
    (void)!co_blk_inner_add(dev, o, &made, &e);
    (void)!co_blk_inner_grow(dev, made, &bytes, &e);
    opts_drop(o);
    mem_free(o);
}

static void co_use(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e = {0};
    struct blk_inner *list;
    size_t count;
    co_fuzz_inner(dev, tail, bytes);
    if (!dev->writable || co_blk_inner_list(dev, &list, &count, &e) < 0)
        return;
    co_change(dev, count ? list[0].name : NULL);
    blk_inner_drop(list, count);
}

static void put_sums_right(uint8_t *data, size_t bytes, uint32_t sector)
{
    struct gpt_header_disk *d = (struct gpt_header_disk *)(data + sector);
    if (bytes < 2 * sector || memcmp(d->signature, "EFI PART", sizeof(d->signature)) != 0)
        return;
    uint64_t at = le64_get(d->entries_at), list;
    uint32_t header = MIN(MAX(le32_get(d->header_bytes), (uint32_t)sizeof(*d)), sector);
    d->header_bytes = le32_of(header);
    if (mul_u64(at, sector, &at) &&
        mul_u64(le32_get(d->entries), le32_get(d->entry_bytes), &list) &&
        range_fits(at, list, bytes))
        d->entries_crc = le32_of(gpt_crc(data + at, list));
    d->header_crc = le32_of(0);
    d->header_crc = le32_of(gpt_crc(d, header));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct blk_driver *const drivers[] = {&gpt_driver, &mbr_driver};
    if (bytes > 64 * KiB)
        return 0;
    uint8_t *copy = malloc(bytes + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, bytes);
    put_sums_right(copy, bytes, 512);
    put_sums_right(copy, bytes, 4096);
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++) {
        struct fuzz_input in = {
            .driver = drivers[i], .data = copy, .bytes = bytes, .co_use = co_use};
        fuzz_stack(in);
    }
    free(copy);
    return 0;
}

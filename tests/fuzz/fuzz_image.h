/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_image.h - any bytes as an image of one format in memory: opened, read, written, discarded,
 * resized, compacted, checked, repaired. Nothing may crash or hang; memory stays small. */
#ifndef TESTS_FUZZ_FUZZ_IMAGE_H
#define TESTS_FUZZ_FUZZ_IMAGE_H

#include "tests/fuzz/fuzz_stack.h"

static void co_fuzz_use(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_check check = {0}, repair = {.fix_leaks = true, .fix_errors = true};
    struct blk_error e;
    struct blk_extent ext;
    uint8_t *buf = mem_zalloc(64 * KiB);
    uint64_t size = dev->size;
    int rc = 0;
    if (bytes > 2 && tail[2] & 64 && dev->writable) /* before a write finds it corrupt */
        rc |= co_blk_check(dev, &repair, &e);
    for (size_t i = 0; buf && i + 3 <= bytes && i < 48 && size; i += 3) {
        uint64_t at = ((uint64_t)tail[i] << 20 | (uint64_t)tail[i + 1] << 9) % size;
        uint64_t n = MIN(1 + tail[i + 1] * 251ULL, size - at);
        switch (tail[i + 2] % 8) {
        case 0:
            rc |= co_blk_write_buf(dev, at, buf, n, tail[i] & BLK_FUA);
            break;
        case 1:
            rc |= co_blk_write_zeroes(dev, at, n, tail[i] & BLK_MAY_UNMAP);
            break;
        case 2:
            rc |= co_blk_discard(dev, at, MIN(size - at, 3 * MiB));
            break;
        case 3:
            rc |= co_blk_flush(dev);
            break;
        case 4:
            rc |= co_blk_resize(dev, align_down(at, 512), true, &e);
            size = dev->size;
            break;
        case 5:
            rc |= tail[i] & 1 ? co_blk_map(dev, at, n, &ext) : co_blk_compact(dev, &e);
            break;
        default:
            rc |= co_blk_read_buf(dev, at, buf, n);
        }
    }
    if (size)
        rc |= co_blk_read_buf(dev, size - 1, buf, 1);
    rc |= co_blk_check(dev, &check, &e);
    (void)rc;
    mem_free(buf);
}

static int fuzz_image(const struct blk_driver *driver, const uint8_t *data, size_t bytes)
{
    if (bytes <= 256 * KiB)
        fuzz_stack((struct fuzz_input){driver, data, bytes, co_fuzz_use});
    return 0;
}

#endif

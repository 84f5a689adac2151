/* SPDX-License-Identifier: BSD-3-Clause */
/* fuzz_readonly.h - for fuzz targets of formats that are only read: what is done with a device that
 * could be opened. */
#ifndef FUZZ_READONLY_H
#define FUZZ_READONLY_H

#include "imgfmt/readonly.h"
#include "tests/fuzz/fuzz_stack.h"

static inline void co_fuzz_read(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e = {0};
    struct blk_info info = {0};
    struct blk_extent ext;
    uint8_t *buf = mem_alloc(64 * KiB);
    uint64_t size = dev->size;
    int rc = co_blk_info(dev, &info, &e);
    if (rc == 0)
        blk_info_drop(&info);
    for (size_t i = 0; buf && i + 3 <= bytes && i < 24 && size; i += 3) {
        uint64_t at = ((uint64_t)tail[i] << 33 ^ (uint64_t)tail[i + 1] << 14 ^ tail[i + 2]) % size;
        uint64_t n = MIN(1 + tail[i + 1] * 251ULL, size - at);
        rc |= co_blk_map(dev, at, n, &ext);
        rc |= co_blk_read_buf(dev, at, buf, n);
    }
    if (size)
        rc |= co_blk_read_buf(dev, size - 1, buf, 1);
    (void)rc;
    mem_free(buf);
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* wrapped.c - any bytes as a gzip, xz, zstd or bzip2 file in memory, by what they begin with:
 * opened as `info` does, which bounds the work, and read. */
#include "tests/fuzz/fuzz_readonly.h"

static const struct blk_driver *driver_of(const uint8_t *data, size_t bytes)
{
    static const struct blk_driver *const drivers[] = {
        &gzip_driver,
#ifdef HAVE_LIBLZMA
        &xz_driver,
#endif
#ifdef HAVE_LIBZSTD
        &zstd_driver,
#endif
#ifdef HAVE_BZIP2
        &bzip2_driver,
#endif
    };
    struct blk_probe p = {.head = data,
                          .tail = data,
                          .head_bytes = bytes,
                          .tail_bytes = bytes,
                          .size = bytes,
                          .name = ""};
    const char *reason;
    for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
        if (drivers[i]->probe(&p, &reason) > 0)
            return drivers[i];
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct blk_driver *d = bytes <= 4 * KiB ? driver_of(data, bytes) : NULL;
    if (d)
        fuzz_stack_facts(
            (struct fuzz_input){.driver = d, .data = data, .bytes = bytes, .co_use = co_fuzz_read});
    return 0;
}

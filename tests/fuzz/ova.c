/* SPDX-License-Identifier: BSD-3-Clause */
/* ova.c - any bytes as an appliance in memory: opened, its manifest verified, each disk inside
 * opened and read. The checksums of the tar are put right first, else nothing else would be seen.
 */
#include <stdio.h>

#include "imgfmt/tar.h"
#include "tests/fuzz/fuzz_readonly.h"

static void co_use(struct blk_device *dev, const uint8_t *tail, size_t bytes)
{
    struct blk_error e = {0};
    struct blk_check check = {0};
    co_fuzz_read(dev, tail, bytes);
    (void)!co_blk_check(dev, &check, &e);
    co_fuzz_inner(dev, tail, bytes);
}

static void put_sums_right(uint8_t *data, size_t bytes)
{
    for (size_t at = 0; at + TAR_BLOCK <= bytes; at += TAR_BLOCK) {
        struct tar_header_disk *h = (struct tar_header_disk *)(data + at);
        if (memcmp(h->magic, "ustar", 5) != 0)
            continue;
        unsigned sum = 0;
        memset(h->sum, ' ', sizeof(h->sum));
        for (size_t i = 0; i < TAR_BLOCK; i++)
            sum += data[at + i];
        snprintf(h->sum, sizeof(h->sum), "%06o", sum);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 64 * KiB)
        return 0;
    uint8_t *copy = malloc(bytes + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, bytes);
    put_sums_right(copy, bytes);
    fuzz_stack_facts(
        (struct fuzz_input){.driver = &ova_driver, .data = copy, .bytes = bytes, .co_use = co_use});
    free(copy);
    return 0;
}

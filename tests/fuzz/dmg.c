/* SPDX-License-Identifier: BSD-3-Clause */
/* dmg.c - any bytes as a DMG in memory: opened, and read. Nothing may crash or hang; memory stays
 * small. */
#include "tests/fuzz/fuzz_readonly.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 64 * KiB)
        return 0;
    fuzz_stack_facts((struct fuzz_input){
        .driver = &dmg_driver, .data = data, .bytes = bytes, .co_use = co_fuzz_read});
    return 0;
}

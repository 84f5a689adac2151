/* SPDX-License-Identifier: BSD-3-Clause */
/* hdd.c - any bytes as the description of a Parallels disk: read, checked, shown. No image that it
 * names is opened. */
#include "imgfmt/hdd.h"
#include "tests/fuzz/fuzz_readonly.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 64 * KiB)
        return 0;
    fuzz_stack_facts((struct fuzz_input){
        .driver = &hdd_driver, .data = data, .bytes = bytes, .co_use = co_fuzz_read});
    return 0;
}

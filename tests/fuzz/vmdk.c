/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.c - any bytes as a VMDK image, sparse or a descriptor. */
#include "imgfmt/vmdk.h"
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return fuzz_image(&vmdk_driver, data, bytes);
}

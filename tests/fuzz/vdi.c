/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.c - any bytes as a VDI image. */
#include "imgfmt/vdi.h"
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return fuzz_image(&vdi_driver, data, bytes);
}

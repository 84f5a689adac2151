/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd.c - any bytes as a VHD image. */
#include "imgfmt/vhd.h"
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return fuzz_image(&vhd_driver, data, bytes);
}

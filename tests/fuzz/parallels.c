/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels.c - any bytes as a Parallels image. */
#include "imgfmt/parallels.h"
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return fuzz_image(&parallels_driver, data, bytes);
}

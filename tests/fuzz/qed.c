/* SPDX-License-Identifier: BSD-3-Clause */
/* qed.c - any bytes as a QED image. */
#include "imgfmt/qed.h"
#include "tests/fuzz/fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    return fuzz_image(&qed_driver, data, bytes);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - any bytes as the metadata text of a volume group: what can be read is written, and read
 * again as the same. The model is made of it where it can be. */
#include "volumes/lvm_meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct blk_error e = {0};
    struct lvm_text t;
    struct lvm_vg *vg;
    char *text, *again;
    size_t length, length_again;
    if (bytes > 64 * KiB || lvm_text_parse((const char *)data, bytes, &t, &e) < 0)
        return 0;
    must(lvm_text_build(&t, &text, &length) == 0);
    lvm_text_drop(&t);
    must(lvm_text_parse(text, length, &t, &e) == 0);
    must(lvm_text_build(&t, &again, &length_again) == 0);
    must(length == length_again && memcmp(text, again, length) == 0);
    if (lvm_vg_read(&t, &vg, &e) == 0) {
        for (size_t i = 0; i < vg->lv_count; i++)
            must(vg->lvs[i].weight > 0 && vg->lvs[i].extents > 0);
        lvm_vg_drop(vg);
    }
    mem_free(text);
    mem_free(again);
    return 0;
}

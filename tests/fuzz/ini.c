/* SPDX-License-Identifier: BSD-3-Clause */
/* ini.c - any bytes as a file that describes a server. */
#include "nbd/ini.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct blk_error e = {0};
    struct ini ini;
    int rc = ini_parse(data, size, &ini, &e);

    assert((rc < 0) == (e.text[0] != 0));
    for (size_t i = 0; rc == 0 && i < ini.count; i++) {
        const struct ini_entry *x = &ini.entries[i];

        assert(x->section && x->kind[0] && x->name);
        assert(!x->key == !x->value);
        assert(!x->key || (x->key[0] && strlen(x->value) <= INI_MAX_LINE));
    }
    ini_drop(&ini);
    return 0;
}

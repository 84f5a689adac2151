/* SPDX-License-Identifier: BSD-3-Clause */
/* vbox.c - any bytes as a .vbox file: searched for a disk. */
#include "imgfmt/vbox.h"
#include "block/uuid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const uint8_t zero[16];
    uint8_t uuid[16];
    char text[UUID_TEXT], *found;
    if (vbox_location((const char *)data, bytes, zero, &found) == 0)
        mem_free(found);
    if (bytes >= 16) { /* what is written is read again */
        uuid_text(data, text);
        if (!uuid_parse(text, uuid) || memcmp(uuid, data, 16) != 0)
            __builtin_trap();
    }
    return 0;
}

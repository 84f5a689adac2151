/* SPDX-License-Identifier: BSD-3-Clause */
/* uuid.c - UUIDs of images. */
#include <ctype.h>
#include <stdio.h>

#include "block/uuid.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *text, uint8_t uuid[16])
{
    bool braces = *text == '{';
    text += braces;
    for (unsigned i = 0; i < 16; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
            return false;
        int high = digit(text[0]), low = high < 0 ? -1 : digit(text[1]);
        if (low < 0)
            return false;
        uuid[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return strcmp(text, braces ? "}" : "") == 0;
}

void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT])
{
    for (unsigned i = 0; i < 16; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        text += sprintf(text, "%s%02x", dash ? "-" : "", uuid[i]);
    }
}

int uuid_choose(struct host *host, const char *text, uint8_t uuid[16], struct blk_error *e)
{
    if (text && *text)
        return uuid_parse(text, uuid)
                   ? 0
                   : err_set(e, -EINVAL,
                             "'%.60s' is no UUID, like 01234567-89ab-cdef-0123-456789abcdef", text);
    host_uuid(host, uuid);
    return 0;
}

void uuid_derive(const uint8_t uuid[16], uint8_t which, uint8_t out[16])
{
    uint64_t h = 0xcbf29ce484222325ULL ^ which; /* FNV-1a, two rounds over all */
    for (unsigned i = 0; i < 32; i++) {
        h = (h ^ uuid[i % 16]) * 0x100000001b3ULL;
        out[i % 16] = (uint8_t)(h >> 32);
    }
    out[6] = (out[6] & 0x0f) | 0x40;
    out[8] = (out[8] & 0x3f) | 0x80;
}

bool uuid_is_nil(const uint8_t uuid[16])
{
    static const uint8_t nil[16];
    return memcmp(uuid, nil, 16) == 0;
}

void uuid_swap(const uint8_t from[16], uint8_t to[16])
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    uint8_t copy[16];
    memcpy(copy, from, 16);
    for (unsigned i = 0; i < 16; i++)
        to[i] = copy[order[i]];
}

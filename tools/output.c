/* SPDX-License-Identifier: BSD-3-Clause */
/* output.c - sizes, texts and JSON values as verbs print them. */
#include "tools/output.h"

const char *output_size(uint64_t bytes, char *to, size_t to_bytes)
{
    static const char units[] = "\0KMGTPE";
    unsigned unit = 0;
    double shown = (double)bytes;
    /* From 1000 of a unit on the next one: 1000 KiB are 0.977 MiB. */
    while (shown >= 1000 && unit < 6) {
        shown /= 1024;
        unit++;
    }
    char name[3] = {units[unit], unit ? 'i' : '\0', '\0'};
    snprintf(to, to_bytes, "%0.3g %sB", shown, name);
    return to;
}

/* The length of the UTF-8 sequence at @s, 0 if it is none. */
static size_t sequence(const unsigned char *s)
{
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0)))
        return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)))
        return 0;
    return n;
}

json_t *output_text(const char *text)
{
    size_t bytes = strlen(text), at = 0;
    char *clean = mem_array(bytes + 1, 3);
    if (!clean)
        return NULL;
    for (size_t i = 0; i < bytes;) {
        size_t n = sequence((const unsigned char *)text + i);
        memcpy(clean + at, n ? text + i : "\xef\xbf\xbd", n ? n : 3);
        at += n ? n : 3;
        i += n ? n : 1;
    }
    json_t *value = json_stringn(clean, at);
    mem_free(clean);
    return value;
}

int output_json(json_t *value)
{
    int rc = value ? json_dumpf(value, stdout, JSON_INDENT(4) | JSON_ENSURE_ASCII) : -1;
    if (rc == 0)
        putchar('\n');
    else
        fputs("cannot print JSON: out of memory\n", stderr);
    json_decref(value);
    return rc ? 1 : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* utf16.c - UTF-16 to UTF-8 and back; strict: lone surrogates and overlong forms are refused. */
#include "block/utf16.h"

static unsigned unit_at(const uint8_t *b, bool big)
{
    return big ? (unsigned)b[0] << 8 | b[1] : (unsigned)b[1] << 8 | b[0];
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 0x3f));
        *to++ = (char)(0x80 | (c >> 6 & 0x3f));
        *to++ = (char)(0x80 | (c & 0x3f));
    }
    return to;
}

/* The character at *at, which moves behind it; UINT32_MAX: none. */
static uint32_t next_utf16(const uint8_t *from, size_t bytes, bool big, size_t *at)
{
    uint32_t c = unit_at(from + *at, big), low;
    *at += 2;
    if (c < 0xd800 || c > 0xdfff)
        return c;
    if (c > 0xdbff || *at + 2 > bytes)
        return UINT32_MAX;
    low = unit_at(from + *at, big);
    *at += 2;
    return low < 0xdc00 || low > 0xdfff ? UINT32_MAX
                                        : 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
}

char *utf16_to_text(const void *from, size_t bytes, bool big_endian)
{
    char *text = mem_alloc(bytes / 2 * 3 + 1), *to = text;
    for (size_t at = 0; text && at + 2 <= bytes;) {
        uint32_t c = next_utf16(from, bytes, big_endian, &at);
        if (c == 0)
            break;
        if (c == UINT32_MAX) {
            to = text;
            break;
        }
        to = put_utf8(to, c);
    }
    if (to == text)
        mem_free(take(text));
    else
        *to = '\0';
    return text;
}

/* The character at *s, which moves behind it; UINT32_MAX: none. */
static uint32_t next_utf8(const unsigned char **s)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    unsigned char first = *(*s)++;
    unsigned more = first < 0x80 ? 0 : first < 0xc0 ? 9 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if (more == 0)
        return first;
    if (more == 9 || first > 0xf4)
        return UINT32_MAX;
    uint32_t c = first & (0x3fu >> more);
    for (unsigned i = 0; i < more; i++, (*s)++) {
        if ((**s & 0xc0) != 0x80)
            return UINT32_MAX;
        c = c << 6 | (**s & 0x3f);
    }
    return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? UINT32_MAX : c;
}

static void put_unit(uint8_t *to, unsigned unit, bool big)
{
    to[big ? 0 : 1] = (uint8_t)(unit >> 8);
    to[big ? 1 : 0] = (uint8_t)unit;
}

size_t utf16_from_text(const char *text, bool big_endian, void *to, size_t room)
{
    const unsigned char *s = (const unsigned char *)text;
    uint8_t *out = to;
    size_t bytes = 0;
    while (*s) {
        uint32_t c = next_utf8(&s);
        size_t takes = c < 0x10000 ? 2 : 4;
        if (c == UINT32_MAX || bytes + takes > room)
            return 0;
        if (takes == 2) {
            put_unit(out + bytes, c, big_endian);
        } else {
            put_unit(out + bytes, 0xd800 + ((c - 0x10000) >> 10), big_endian);
            put_unit(out + bytes + 2, 0xdc00 + ((c - 0x10000) & 0x3ff), big_endian);
        }
        bytes += takes;
    }
    return bytes;
}

/* --- paths of Windows --- */

static char *turn(char *name, char from, char to)
{
    for (char *c = name; c && *c; c++)
        if (*c == from)
            *c = to;
    return name;
}

char *utf16_windows_path(const void *from, size_t bytes, bool big_endian)
{
    char *path = turn(utf16_to_text(from, bytes, big_endian), '\\', '/');
    if (!path)
        return NULL;
    bool absolute = path[0] && (path[1] == ':' || (path[0] == '/' && path[1] == '/'));
    const char *last = absolute ? strrchr(path, '/') : NULL, *rest = path;
    if (absolute)
        rest = last ? last + 1 : path + 2;
    else if (strncmp(path, "./", 2) == 0)
        rest = path + 2;
    memmove(path, rest, strlen(rest) + 1);
    if (!*path)
        mem_free(take(path));
    return path;
}

size_t utf16_from_path(const char *path, void *to, size_t room)
{
    auto_free char *name = mem_printf("%s%s", path[0] == '/' || path[0] == '.' ? "" : "./", path);
    return name ? utf16_from_text(turn(name, '/', '\\'), false, to, room) : 0;
}

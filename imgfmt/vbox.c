/* SPDX-License-Identifier: BSD-3-Clause */
/* vbox.c - VirtualBox's list of disks:
 *
 *   <HardDisk uuid="{...}" location="Snapshots/{...}.vdi" format="VDI"> <HardDisk .../> </HardDisk>
 *
 * Read as far as that goes: tags by their name, attributes between quotes, the five entities. */
#include <ctype.h>

#include "block/uuid.h"
#include "imgfmt/vbox.h"

#define TAG "<HardDisk"

struct text {
    const char *at, *end;
};

/* The value of attribute @name inside a tag, as it stands. */
static bool attribute(struct text tag, const char *name, struct text *value)
{
    size_t len = strlen(name);
    for (const char *p = tag.at; p < tag.end; p++) {
        if (*p == '"' || *p == '\'') { /* somebody else's value */
            p = memchr(p + 1, *p, (size_t)(tag.end - p - 1));
            if (!p)
                return false;
            continue;
        }
        if ((size_t)(tag.end - p) < len + 3 || memcmp(p, name, len) != 0 || p[len] != '=' ||
            !isspace((unsigned char)p[-1]) || (p[len + 1] != '"' && p[len + 1] != '\''))
            continue;
        value->at = p + len + 2;
        value->end = memchr(value->at, p[len + 1], (size_t)(tag.end - value->at));
        return value->end != NULL;
    }
    return false;
}

static char entity(struct text *t)
{
    static const struct {
        const char *name;
        char c;
    } known[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        size_t len = strlen(known[i].name);
        if ((size_t)(t->end - t->at) >= len && memcmp(t->at, known[i].name, len) == 0) {
            t->at += len;
            return known[i].c;
        }
    }
    return *t->at++;
}

static char *unescape(struct text t)
{
    char *out = mem_alloc((size_t)(t.end - t.at) + 1), *to = out;
    while (out && t.at < t.end)
        *to++ = entity(&t);
    if (out)
        *to = 0;
    return out;
}

static bool is_it(struct text tag, const uint8_t uuid[16])
{
    struct text value;
    char word[40];
    uint8_t found[16];
    if (!attribute(tag, "uuid", &value) || (size_t)(value.end - value.at) >= sizeof(word))
        return false;
    memcpy(word, value.at, (size_t)(value.end - value.at));
    word[value.end - value.at] = 0;
    return uuid_parse(word, found) && memcmp(found, uuid, 16) == 0;
}

int vbox_location(const char *text, size_t bytes, const uint8_t uuid[16], char **out)
{
    const char *end = text + bytes;
    *out = NULL;
    for (const char *p = text; (p = memmem(p, (size_t)(end - p), TAG, strlen(TAG)));) {
        struct text tag = {p + strlen(TAG), NULL}, value;
        tag.end = memchr(p, '>', (size_t)(end - p));
        if (!tag.end)
            return 0;
        if (is_it(tag, uuid) && attribute(tag, "location", &value) && value.at < value.end &&
            !memchr(value.at, 0, (size_t)(value.end - value.at))) {
            *out = unescape(value);
            return *out ? 0 : -ENOMEM;
        }
        p = tag.end;
    }
    return 0;
}

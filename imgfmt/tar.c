/* SPDX-License-Identifier: BSD-3-Clause */
/* tar.c - the index of a tar: headers are read one after the other, what lies between is skipped.
 *
 * Names and sizes that do not fit the old header come before it, in a file of their own: GNU's (L)
 * or pax' (x); sizes also as a big-endian number in the header itself. */
#include "imgfmt/tar.h"

#define EXTENSION_MAX (64 * KiB) /* of one pax header or long name */
#define HEADERS_MAX   (4 * TAR_FILES_MAX)

/* --- one header ------------------------------------------------------------------------------- */

/* Octal digits up to a blank or zero; or, with the top bit set, a number of 95 bits. */
static int parse_number(const char *field, size_t bytes, uint64_t *out)
{
    uint64_t v = 0;
    if (field[0] & 0x80) {
        for (size_t i = 0; i < bytes; i++) {
            uint8_t byte = i ? (uint8_t)field[i] : field[i] & 0x7f;
            if (v >> 55)
                return -EINVAL;
            v = v << 8 | byte;
        }
        *out = v;
        return 0;
    }
    size_t i = 0;
    while (i < bytes && field[i] == ' ')
        i++;
    for (; i < bytes && field[i] >= '0' && field[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(field[i] - '0'); /* 12 digits at most */
    *out = v;
    return i == bytes || field[i] == ' ' || field[i] == 0 ? 0 : -EINVAL;
}

static bool sum_is_right(const struct tar_header_disk *raw)
{
    const uint8_t *p = (const uint8_t *)raw;
    uint64_t told, sum = 8 * ' ';
    for (size_t i = 0; i < TAR_BLOCK; i++)
        if (i < offsetof(struct tar_header_disk, sum) ||
            i >= offsetof(struct tar_header_disk, type))
            sum += p[i];
    return parse_number(raw->sum, sizeof(raw->sum), &told) == 0 && told == sum;
}

int tar_header_parse(const struct tar_header_disk *raw, struct tar_header *out, struct blk_error *e)
{
    if (mem_is_zero(raw, TAR_BLOCK))
        return 0;
    if (!sum_is_right(raw))
        return err_bad(e, -EINVAL, "a header of the tar has a wrong checksum");
    out->type = raw->type ? raw->type : '0';
    if (parse_number(raw->size, sizeof(raw->size), &out->bytes) < 0)
        return err_bad(e, -EINVAL, "a header of the tar has no size");
    size_t prefix = memcmp(raw->magic, "ustar", 6) == 0 ? strnlen(raw->prefix, 155) : 0;
    size_t name = strnlen(raw->name, sizeof(raw->name)), at = 0;
    if (prefix) {
        memcpy(out->name, raw->prefix, prefix);
        out->name[prefix] = '/';
        at = prefix + 1;
    }
    memcpy(out->name + at, raw->name, name);
    out->name[at + name] = 0;
    return 1;
}

/* "LENGTH KEY=VALUE\n", the length counting all of it. */
int tar_pax_parse(const char *text, size_t bytes, struct tar_header *out, bool *has_name,
                  bool *has_size, struct blk_error *e)
{
    while (bytes > 0 && *text) {
        size_t length = 0, at = 0;
        for (; at < bytes && at < 7 && text[at] >= '0' && text[at] <= '9'; at++)
            length = length * 10 + (size_t)(text[at] - '0');
        if (at == 0 || at >= bytes || text[at] != ' ' || length <= at + 2 || length > bytes ||
            text[length - 1] != '\n')
            return err_bad(e, -EINVAL, "a pax header of the tar is broken");
        const char *key = text + at + 1, *end = text + length - 1;
        if (end - key > 5 && memcmp(key, "path=", 5) == 0) {
            size_t n = MIN((size_t)(end - key - 5), TAR_NAME_MAX);
            memcpy(out->name, key + 5, n);
            out->name[n] = 0;
            *has_name = true;
        } else if (end - key > 5 && memcmp(key, "size=", 5) == 0) {
            out->bytes = 0;
            for (key += 5; key < end; key++)
                if (*key < '0' || *key > '9' || !mul_u64(out->bytes, 10, &out->bytes) ||
                    !add_u64(out->bytes, (uint64_t)(*key - '0'), &out->bytes))
                    return err_bad(e, -EINVAL, "a pax header of the tar holds no size");
            *has_size = true;
        }
        text += length;
        bytes -= length;
    }
    return 0;
}

/* --- all of them ------------------------------------------------------------------------------ */

struct scan {
    struct blk_device *dev;
    struct tar *tar;
    struct tar_header h, next; /* next: what was told of the one to come */
    bool has_name, has_size;
    size_t room;
    struct blk_error *e;
};

static int add_file(struct scan *s, uint64_t offset)
{
    struct tar *t = s->tar;
    if (t->count == TAR_FILES_MAX)
        return err_bad(s->e, -EFBIG, "the tar holds more than %u files", TAR_FILES_MAX);
    if (t->count == s->room) {
        size_t room = MAX(2 * s->room, 16);
        struct tar_file *grown = mem_resize(t->files, room * sizeof(*grown));
        if (!grown)
            return err_set(s->e, -ENOMEM, "out of memory");
        t->files = grown;
        s->room = room;
    }
    const char *name = s->has_name ? s->next.name : s->h.name;
    char *copy = mem_strdup(strncmp(name, "./", 2) == 0 ? name + 2 : name);
    if (!copy)
        return err_set(s->e, -ENOMEM, "out of memory");
    t->files[t->count++] = (struct tar_file){copy, offset, s->h.bytes};
    return 0;
}

static int co_extension(struct scan *s, uint64_t offset)
{
    char *text = buf_get(EXTENSION_MAX);
    int rc = !text                        ? err_set(s->e, -ENOMEM, "out of memory")
             : s->h.bytes > EXTENSION_MAX ? err_bad(s->e, -EFBIG, "a name in the tar is too long")
                                          : co_blk_read_buf(s->dev, offset, text, s->h.bytes);
    if (rc == 0 && s->h.type == 'x') {
        rc = tar_pax_parse(text, s->h.bytes, &s->next, &s->has_name, &s->has_size, s->e);
    } else if (rc == 0) {
        size_t n = MIN(strnlen(text, s->h.bytes), TAR_NAME_MAX);
        memcpy(s->next.name, text, n);
        s->next.name[n] = 0;
        s->has_name = true;
    }
    buf_put(text, EXTENSION_MAX);
    return rc;
}

/* One header and what it stands before; *at goes behind it. 0: the tar ends. */
static int co_one(struct scan *s, uint64_t *at)
{
    struct tar_header_disk raw;
    uint64_t offset = *at + TAR_BLOCK;
    if (!range_fits(*at, TAR_BLOCK, s->dev->size))
        return 0;
    TRY(co_blk_read_buf(s->dev, *at, &raw, sizeof(raw)));
    int rc = tar_header_parse(&raw, &s->h, s->e);
    if (rc <= 0)
        return rc;
    bool extension = s->h.type == 'x' || s->h.type == 'L';
    if (s->has_size && !extension)
        s->h.bytes = s->next.bytes;
    if (!range_fits(offset, s->h.bytes, s->dev->size))
        return err_bad(s->e, -EINVAL, "the file '%.100s' reaches past the end of the tar",
                       s->has_name ? s->next.name : s->h.name);
    *at = offset + align_up(s->h.bytes, TAR_BLOCK);
    if (extension) {
        TRY(co_extension(s, offset));
        return 1;
    }
    if (s->h.type == '0' || s->h.type == '7')
        TRY(add_file(s, offset));
    s->has_name = s->has_size = false;
    return 1;
}

int co_tar_read(struct blk_device *dev, struct tar *out, struct blk_error *e)
{
    struct scan *s = mem_zalloc(sizeof(*s));
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    *s = (struct scan){.dev = dev, .tar = out, .e = e};
    e->rc = 0;
    uint64_t at = 0;
    int rc = 1;
    for (unsigned n = 0; rc == 1; n++)
        rc = n < HEADERS_MAX ? co_one(s, &at) : err_bad(e, -EFBIG, "the tar has too many headers");
    mem_free(s);
    if (rc < 0 && e->rc == 0)
        err_errno(e, rc, "the tar cannot be read");
    return rc;
}

void tar_drop(struct tar *t)
{
    for (size_t i = 0; i < t->count; i++)
        mem_free(t->files[i].name);
    mem_free(take(t->files));
    t->count = 0;
}

const struct tar_file *tar_find(const struct tar *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->files[i].name, name) == 0)
            return &t->files[i];
    return NULL;
}

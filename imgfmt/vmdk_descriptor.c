/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_descriptor.c - the text that says what a VMDK consists of.
 *
 *   # Disk DescriptorFile          a comment, and how a file is known for one
 *   CID=1234abcd                   changes with the contents
 *   parentCID=ffffffff             the parent's, when this one was made
 *   createType="monolithicSparse"
 *   parentFileNameHint="base.vmdk"
 *   RW 204800 SPARSE "disk.vmdk"   an extent: access, sectors, kind, file, offset in it
 *   ddb.adapterType = "ide"        the disk's data base; nobody here needs it
 *
 * Lines that are not known are passed over. */
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "imgfmt/vmdk.h"

static const char *const kinds[] = {"FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE", "SESPARSE"};

const char *vmdk_extent_word(enum vmdk_extent_kind kind)
{
    return kinds[kind];
}

/* Cuts the next word, or what is in quotes, off *at; NULL: there is none. */
static char *next_word(char **at)
{
    char *from = *at + strspn(*at, " \t");
    bool quoted = *from == '"';
    from += quoted;
    size_t length = strcspn(from, quoted ? "\"" : " \t");
    *at = from + length;
    if (**at)
        *(*at)++ = 0;
    return length || quoted ? from : NULL;
}

static bool number_of(const char *word, uint64_t *out)
{
    char *end;
    if (!word || *word < '0' || *word > '9')
        return false;
    *out = strtoull(word, &end, 10);
    return *end == 0 && *out <= INT64_MAX / 512;
}

static int parse_kind(const char *word, enum vmdk_extent_kind *out)
{
    for (size_t i = 0; word && i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i], word) == 0) {
            *out = (enum vmdk_extent_kind)i;
            return 0;
        }
    return -EINVAL;
}

static int parse_extent(struct vmdk_descriptor *d, char *line, struct blk_error *e)
{
    struct vmdk_extent x = {0}, *more;
    const char *access = next_word(&line), *sectors = next_word(&line), *kind = next_word(&line);
    uint64_t n = 0, offset = 0;
    if (!number_of(sectors, &n))
        return err_bad(e, -EINVAL, "an extent's size is no number of sectors");
    if (parse_kind(kind, &x.kind) < 0)
        return err_bad(e, -ENOTSUP, "extents of the kind %.40s are unknown", kind ? kind : "''");
    x.name = x.kind == VMDK_ZERO ? NULL : next_word(&line);
    if (x.kind != VMDK_ZERO && (!x.name || !*x.name))
        return err_bad(e, -EINVAL, "an extent names no file");
    const char *where = x.name ? next_word(&line) : NULL;
    if (where && !number_of(where, &offset))
        return err_bad(e, -EINVAL, "the offset of an extent is no number");
    x.writable = strcmp(access, "RW") == 0;
    x.accessible = strcmp(access, "NOACCESS") != 0;
    x.bytes = n * 512;
    x.offset = offset * 512;
    if (n == 0 || !add_u64(d->bytes, x.bytes, &d->bytes) || d->bytes > INT64_MAX)
        return err_bad(e, -EINVAL, "the extents' sizes make no disk");
    if (d->count == VMDK_EXTENTS_MOST)
        return err_bad(e, -EFBIG, "more than %d extents", VMDK_EXTENTS_MOST);
    if (is_pow2(d->count + 1) || d->count == 0) { /* room for twice as many */
        more = mem_resize(d->extents, 2 * (d->count + 1) * sizeof(*more));
        if (!more)
            return err_set(e, -ENOMEM, "out of memory");
        d->extents = more;
    }
    d->extents[d->count++] = x;
    return 0;
}

/* The line "key = value" becomes two strings; false: it is none. */
static bool cut_pair(char *line, char **key, char **value)
{
    char *equals = strchr(line, '=');
    if (!equals)
        return false;
    *equals = 0;
    *key = line + strspn(line, " \t");
    (*key)[strcspn(*key, " \t")] = 0;
    char *rest = equals + 1;
    *value = next_word(&rest);
    return *value != NULL;
}

static void take_pair(struct vmdk_descriptor *d, const char *key, const char *value)
{
    if (strcasecmp(key, "CID") == 0)
        d->cid = (uint32_t)strtoul(value, NULL, 16);
    else if (strcasecmp(key, "parentCID") == 0)
        d->parent_cid = (uint32_t)strtoul(value, NULL, 16);
    else if (strcasecmp(key, "createType") == 0)
        d->type = value;
    else if (strcasecmp(key, "parentFileNameHint") == 0)
        d->parent = value;
    else if (strcasecmp(key, "changeTrackPath") == 0)
        d->tracking = value;
}

static bool is_extent(const char *line)
{
    static const char *const words[] = {"RW ", "RDONLY ", "NOACCESS "};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strncmp(line, words[i], strlen(words[i])) == 0)
            return true;
    return false;
}

static int parse_line(struct vmdk_descriptor *d, char *line, struct blk_error *e)
{
    char *key, *value;
    line += strspn(line, " \t");
    if (*line == 0 || *line == '#')
        return 0;
    if (is_extent(line))
        return parse_extent(d, line, e);
    if (cut_pair(line, &key, &value))
        take_pair(d, key, value);
    return 0;
}

int vmdk_descriptor_parse(const char *text, struct vmdk_descriptor *out, struct blk_error *e)
{
    *out = (struct vmdk_descriptor){.parent_cid = VMDK_NO_PARENT, .type = ""};
    out->copy = mem_strdup(text);
    int rc = out->copy ? 0 : err_set(e, -ENOMEM, "out of memory");
    for (char *line = out->copy, *next; rc == 0 && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        line[strcspn(line, "\r")] = 0;
        rc = parse_line(out, line, e);
    }
    if (rc < 0)
        vmdk_descriptor_drop(out);
    else if (out->parent_cid == VMDK_NO_PARENT)
        out->parent = NULL;
    return rc;
}

void vmdk_descriptor_drop(struct vmdk_descriptor *d)
{
    mem_free(take(d->copy));
    mem_free(take(d->extents));
    d->parent = d->tracking = NULL;
    d->type = "";
    d->count = 0;
}

/* --- editing --- */

static bool has_key(const char *line, const char *key)
{
    size_t length = strlen(key);
    line += strspn(line, " \t");
    return strncasecmp(line, key, length) == 0 &&
           line[length + strspn(line + length, " \t")] == '=';
}

/* One line of @length bytes, edited, to @to; gives its length there. The parent's lines follow the
 * CID's, wherever they were. */
static size_t edit_line(char *to, const char *line, size_t length, const struct vmdk_edit *edit,
                        size_t *extents)
{
    const char *end = memchr(line, '\r', length) ? "\r\n" : "\n";
    if (has_key(line, "parentCID") || (edit->parent && has_key(line, "parentFileNameHint")))
        return 0;
    if (has_key(line, "CID")) {
        size_t n = (size_t)sprintf(to, "CID=%08" PRIx32 "%sparentCID=%08" PRIx32 "%s", edit->cid,
                                   end, edit->parent_cid, end);
        if (edit->parent && *edit->parent)
            n += (size_t)sprintf(to + n, "parentFileNameHint=\"%s\"%s", edit->parent, end);
        return n;
    }
    size_t indent = strspn(line, " \t");
    if (is_extent(line + indent) && (*extents)++ == edit->number && edit->bytes) {
        size_t at = indent + strcspn(line + indent, " ");
        at += strspn(line + at, " ");
        size_t rest = at + strcspn(line + at, " \r\n");
        return (size_t)sprintf(to, "%.*s%" PRIu64 "%.*s", (int)at, line, edit->bytes / 512,
                               (int)(length - rest), line + rest);
    }
    memcpy(to, line, length);
    if (has_key(line, "changeTrackPath"))
        to[indent] = '#';
    return length;
}

char *vmdk_descriptor_edit(const char *text, const struct vmdk_edit *edit)
{
    /* Two numbers, a size and a name are what can be longer than it was. */
    size_t name = edit->parent ? strlen(edit->parent) : 0, extents = 0, length;
    char *out = mem_alloc(strlen(text) + name + 128), *to = out;
    if (!out)
        return NULL;
    for (; *text; text += length) {
        length = strcspn(text, "\n");
        length += text[length] == '\n';
        to += edit_line(to, text, length, edit, &extents);
    }
    *to = 0;
    return out;
}

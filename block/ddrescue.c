/* SPDX-License-Identifier: BSD-3-Clause */
/* ddrescue.c - an image that GNU ddrescue made of a failing disk, with the map that says what of it
 * could be read. The rest answers EIO, so that redundancy above fills it instead of zeroes being
 * taken for data. Read-only.
 *
 *     # Mapfile. Created by GNU ddrescue ...        lines that begin with # are comments
 *     0x00120000     ?     1                        where it stood: position, status, pass
 *     0x00000000  0x00100000  +                     position, size, status: + is read
 *     0x00100000  0x00020000  -                     all others are not */
#include <stdlib.h>

#include "block/ddrescue.h"
#include "block/resolver.h"

/* --- the map -----------------------------------------------------------------------------------
 */

bool ddrescue_is_map(const char *head, size_t bytes)
{
    static const char begins[] = "# Mapfile.", before[] = "# Rescue Logfile.";
    return (bytes >= strlen(begins) && memcmp(head, begins, strlen(begins)) == 0) ||
           (bytes >= strlen(before) && memcmp(head, before, strlen(before)) == 0);
}

struct line {
    const char *at, *end;
};

/* The next line that is no comment and not empty; false: there is none. */
static bool next_line(struct line *rest, struct line *out)
{
    while (rest->at < rest->end) {
        const char *end = memchr(rest->at, '\n', (size_t)(rest->end - rest->at));
        *out = (struct line){rest->at, end ? end : rest->end};
        rest->at = end ? end + 1 : rest->end;
        while (out->at < out->end && strchr(" \t\r", *out->at) && *out->at)
            out->at++;
        if (out->at < out->end && *out->at != '#')
            return true;
    }
    return false;
}

/* A word; *len 0: there is none left. */
static const char *next_word(struct line *l, size_t *len)
{
    while (l->at < l->end && (*l->at == ' ' || *l->at == '\t'))
        l->at++;
    const char *word = l->at;
    while (l->at < l->end && *l->at != ' ' && *l->at != '\t' && *l->at != '\r')
        l->at++;
    *len = (size_t)(l->at - word);
    return word;
}

static bool next_number(struct line *l, uint64_t *out)
{
    char copy[24], *end;
    size_t len;
    const char *word = next_word(l, &len);
    if (len == 0 || len >= sizeof(copy) || *word < '0' || *word > '9')
        return false;
    memcpy(copy, word, len);
    copy[len] = '\0';
    errno = 0;
    *out = strtoull(copy, &end, 0);
    return errno == 0 && *end == '\0' && *out <= INT64_MAX;
}

/* Appended, or one with the run before. */
static int add_run(struct ddrescue_map *m, size_t *room, uint64_t offset, uint64_t bytes)
{
    struct ddrescue_run *last = m->count ? &m->runs[m->count - 1] : NULL;
    if (last && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return 0;
    }
    if (m->count == *room) {
        size_t more = *room ? *room * 2 : 64;
        struct ddrescue_run *grown = mem_resize(m->runs, more * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        m->runs = grown;
        *room = more;
    }
    m->runs[m->count++] = (struct ddrescue_run){offset, bytes};
    return 0;
}

int ddrescue_map_parse(const char *text, size_t bytes, struct ddrescue_map *out,
                       struct blk_error *e)
{
    struct line rest = {text, text + bytes}, line;
    size_t room = 0, len;
    uint64_t offset, length, end;
    *out = (struct ddrescue_map){0};
    if (!next_line(&rest, &line) || !next_number(&line, &offset))
        return err_set(e, -EINVAL,
                       "this is no map of ddrescue's: it does not begin with where ddrescue stood");
    while (next_line(&rest, &line)) {
        if (!next_number(&line, &offset) || !next_number(&line, &length) ||
            !add_u64(offset, length, &end) || end > INT64_MAX)
            return err_set(e, -EINVAL, "the map has a line that is none of ddrescue's");
        if (offset < out->end)
            return err_set(e, -EINVAL, "the map's blocks overlap at byte %" PRIu64, offset);
        const char *status = next_word(&line, &len);
        if (len != 1 || !strchr("?*/-+", *status))
            return err_set(e, -EINVAL, "the map has an unknown status at byte %" PRIu64, offset);
        if (*status == '+' && length > 0 && add_run(out, &room, offset, length) < 0)
            return err_set(e, -ENOMEM, "out of memory");
        out->end = end;
    }
    return 0;
}

void ddrescue_map_drop(struct ddrescue_map *m)
{
    mem_free(m->runs);
    *m = (struct ddrescue_map){0};
}

/* --- the layer ---------------------------------------------------------------------------------
 */

struct ddrescue {
    struct blk_device *file;
    struct ddrescue_map map;
};

/* How many of the bytes from @offset on were read; 0: the first was not. Else *until: how many were
 * not. */
static uint64_t good_bytes(const struct ddrescue *d, uint64_t offset, uint64_t bytes,
                           uint64_t *until)
{
    size_t low = 0, high = d->map.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct ddrescue_run *r = &d->map.runs[middle];
        if (r->offset + r->bytes <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    const struct ddrescue_run *r = low < d->map.count ? &d->map.runs[low] : NULL;
    uint64_t from = r ? MIN(r->offset, d->file->size) : UINT64_MAX;
    uint64_t to = r ? MIN(r->offset + r->bytes, d->file->size) : 0;
    if (from <= offset && offset < to)
        return MIN(bytes, to - offset);
    *until = from > offset ? MIN(bytes, from - offset) : bytes;
    return 0;
}

static bool ddrescue_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                             struct blk_place *out)
{
    const struct ddrescue *d = dev->state;
    uint64_t until, good = write ? 0 : good_bytes(d, offset, bytes, &until);
    *out = (struct blk_place){.child = d->file, .offset = offset, .bytes = good};
    return good > 0;
}

static int co_ddrescue_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct ddrescue *d = dev->state;
    uint64_t until;
    if (good_bytes(d, offset, to->bytes, &until) < to->bytes)
        return -EIO;
    return co_blk_read(d->file, offset, to);
}

static int co_ddrescue_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                             unsigned flags)
{
    return -EROFS;
}

static int co_ddrescue_flush(struct blk_device *dev)
{
    return 0; /* nothing ever waits to be written */
}

static int co_ddrescue_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                           struct blk_extent *out)
{
    const struct ddrescue *d = dev->state;
    uint64_t until, good = good_bytes(d, offset, bytes, &until);
    *out = (struct blk_extent){.flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED, .bytes = until};
    if (good)
        *out = (struct blk_extent){.flags = BLK_EXT_RECURSE | BLK_EXT_PLACED,
                                   .bytes = good,
                                   .child = d->file,
                                   .child_offset = offset};
    return 0;
}

static int co_ddrescue_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct ddrescue *d = dev->state;
    uint64_t read = 0;
    for (size_t i = 0; i < d->map.count; i++)
        read += d->map.runs[i].bytes;
    out->specific = json_pack("{s:I, s:I}", "rescued", (json_int_t)read, "missing",
                              (json_int_t)(dev->size - MIN(read, dev->size)));
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int co_read_map(struct blk_device *map, struct ddrescue_map *out, struct blk_error *e)
{
    if (map->size > DDRESCUE_TEXT_MOST)
        return err_set(e, -EFBIG, "a map of %" PRIu64 " bytes is more than is read", map->size);
    auto_free char *text = mem_alloc(map->size + 1);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(map, 0, text, map->size);
    if (rc < 0)
        return err_errno(e, rc, "the map cannot be read");
    return ddrescue_map_parse(text, map->size, out, e);
}

static int co_ddrescue_open(struct blk_device *dev, const struct opts *opts,
                            struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *file, *map;
    unsigned flags = dev->open_flags & BLK_OPEN_FORCE_SHARE;
    if (dev->open_flags & BLK_OPEN_WRITE)
        return err_set(e, -EROFS, "what ddrescue read is not written to: open it read-only");
    TRY(co_blk_want_child(dev, opener, "file", flags, &file, e));
    TRY(co_blk_want_child(dev, opener, "map", flags, &map, e));
    struct ddrescue *d = mem_zalloc(sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "out of memory");
    d->file = file;
    int rc = co_read_map(map, &d->map, e);
    if (rc < 0) {
        ddrescue_map_drop(&d->map);
        mem_free(d);
        return rc;
    }
    dev->state = d;
    dev->size = MAX(file->size, d->map.end);
    blk_inherit_limits(dev, file);
    return 0;
}

static int co_ddrescue_close(struct blk_device *dev, struct blk_error *e)
{
    struct ddrescue *d = dev->state;
    ddrescue_map_drop(&d->map);
    mem_free(d);
    return 0;
}

static int co_ddrescue_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return write ? err_set(e, -EROFS, "what ddrescue read is not written to") : 0;
}

static const struct opt_desc ddrescue_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "the image that ddrescue wrote"},
    {.name = "map", .type = OPT_CHILD, .help = "its map file"},
    {0},
};

const struct blk_driver ddrescue_driver = {
    .name = "ddrescue",
    .title = "an image and ddrescue's map of it: EIO where nothing was read",
    .stays_put = true,
    .open_options = ddrescue_options,
    .co_open = co_ddrescue_open,
    .co_close = co_ddrescue_close,
    .co_reopen = co_ddrescue_reopen,
    .co_read = co_ddrescue_read,
    .co_write = co_ddrescue_write,
    .co_flush = co_ddrescue_flush,
    .resolve = ddrescue_resolve,
    .co_map = co_ddrescue_map,
    .co_info = co_ddrescue_info,
};

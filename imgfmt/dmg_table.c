/* SPDX-License-Identifier: BSD-3-Clause */
/* dmg_table.c - the tables of a DMG: base64 in a property list (resource-fork, blkx, Data), or
 * records of a resource fork. Both are read in pieces; what is kept is one entry per chunk that
 * holds something. */
#include <stdlib.h>

#include "imgfmt/dmg.h"
#include "imgfmt/xml.h"

/* --- one table -------------------------------------------------------------------------------- */

void dmg_table_begin(struct dmg_table *t)
{
    t->piece_bytes = 0;
    t->in_table = false;
    t->chunks_left = 0;
}

static int begin_chunks(struct dmg_table *t, struct blk_error *e)
{
    const struct dmg_mish_disk *m = &t->piece.mish;
    if (be32_get(m->magic) != DMG_MISH)
        return err_bad(e, -EINVAL, "a table of chunks is damaged: it does not begin with \"mish\"");
    t->in_table = true;
    t->chunks_left = be32_get(m->chunks);
    t->first_sector = be64_get(m->sector);
    if (!add_u64(t->data_offset, be64_get(m->data_offset), &t->offset))
        return err_bad(e, -EINVAL,
                       "a table of chunks is damaged: it lies past the end of any file");
    return 0;
}

/* Where there is room for one more chunk; NULL: no memory. */
static struct dmg_chunk *next_chunk(struct dmg_table *t)
{
    if (t->count == t->room) {
        size_t room = MAX(t->room * 2, 64u);
        struct dmg_chunk *grown = mem_resize(t->chunks, room * sizeof(*grown));
        if (!grown)
            return NULL;
        t->chunks = grown;
        t->room = room;
    }
    return &t->chunks[t->count];
}

static int check_chunk(const struct dmg_table *t, const struct dmg_chunk *c, struct blk_error *e)
{
    switch (c->kind) {
    case DMG_RAW:
        if (c->bytes != c->sectors * DMG_SECTOR)
            return err_bad(e, -EINVAL, "a raw chunk of %" PRIu64 " sectors has %" PRIu64 " bytes",
                           c->sectors, c->bytes);
        break;
    case DMG_ADC:
    case DMG_ZLIB:
    case DMG_BZIP2:
    case DMG_LZFSE:
    case DMG_XZ:
        if (c->sectors > CHUNK_MOST / DMG_SECTOR || c->bytes > CHUNK_MOST || c->bytes == 0)
            return err_bad(e, -EINVAL,
                           "a chunk of %" PRIu64 " sectors in %" PRIu64
                           " bytes; a compressed one has 64 MiB at most",
                           c->sectors, c->bytes);
        break;
    default:
        return err_bad(e, -EINVAL, "a chunk is of the unknown kind 0x%08" PRIx32, c->kind);
    }
    if (!range_fits(c->offset, c->bytes, t->file_bytes))
        return err_bad(e, -EINVAL, "the chunk at sector %" PRIu64 " lies past the end of the file",
                       c->sector);
    return 0;
}

static bool holds_something(uint32_t kind)
{
    return kind != DMG_ZERO && kind != DMG_IGNORE;
}

static int add_chunk(struct dmg_table *t, struct blk_error *e)
{
    const struct dmg_chunk_disk *raw = &t->piece.chunk;
    struct dmg_chunk c = {.kind = be32_get(raw->kind),
                          .sectors = be64_get(raw->sectors),
                          .bytes = be64_get(raw->bytes)};
    uint64_t end;
    if (c.kind == DMG_COMMENT || c.kind == DMG_END || c.sectors == 0)
        return 0;
    if (!add_u64(t->first_sector, be64_get(raw->sector), &c.sector) ||
        !add_u64(c.sector, c.sectors, &end) || end > INT64_MAX / DMG_SECTOR)
        return err_bad(e, -EFBIG, "a chunk is damaged: it lies past the end of any disk");
    t->sectors = MAX(t->sectors, end);
    if (!holds_something(c.kind))
        return 0;
    if (!add_u64(t->offset, be64_get(raw->offset), &c.offset))
        return err_bad(e, -EINVAL, "a chunk is damaged: it lies past the end of any file");
    TRY(check_chunk(t, &c, e));
    if (t->count == DMG_CHUNKS_MAX)
        return err_bad(e, -EFBIG, "more than %u chunks", DMG_CHUNKS_MAX);
    struct dmg_chunk *to = next_chunk(t);
    if (!to)
        return err_set(e, -ENOMEM, "out of memory");
    *to = c;
    t->count++;
    return 0;
}

int dmg_table_feed(struct dmg_table *t, const uint8_t *bytes, size_t count, struct blk_error *e)
{
    while (count > 0 && !(t->in_table && t->chunks_left == 0)) {
        size_t whole = t->in_table ? sizeof(t->piece.chunk) : sizeof(t->piece.mish);
        size_t n = MIN(count, whole - t->piece_bytes);
        memcpy(t->piece.bytes + t->piece_bytes, bytes, n);
        t->piece_bytes += n;
        bytes += n;
        count -= n;
        if (t->piece_bytes < whole)
            break;
        t->piece_bytes = 0;
        if (!t->in_table) {
            TRY(begin_chunks(t, e));
        } else {
            TRY(add_chunk(t, e));
            t->chunks_left--;
        }
    }
    return 0;
}

static int by_sector(const void *a, const void *b)
{
    const struct dmg_chunk *x = a, *y = b;
    return x->sector < y->sector ? -1 : x->sector > y->sector;
}

int dmg_table_done(struct dmg_table *t, struct blk_error *e)
{
    if (t->count)
        qsort(t->chunks, t->count, sizeof(*t->chunks), by_sector);
    for (size_t i = 1; i < t->count; i++) {
        const struct dmg_chunk *before = &t->chunks[i - 1];
        if (before->sector + before->sectors > t->chunks[i].sector)
            return err_bad(e, -EINVAL, "two chunks hold sector %" PRIu64, t->chunks[i].sector);
    }
    return 0;
}

void dmg_table_drop(struct dmg_table *t)
{
    mem_free(take(t->chunks));
}

/* --- the property list ------------------------------------------------------------------------ */

enum { KEY_OTHER, KEY_BLKX, KEY_DATA };

struct plist {
    struct dmg_table *table;
    struct blk_error *e;
    unsigned depth, blkx_depth; /* of the array behind the key blkx; 0: not in it */
    int key;                    /* the last one */
    bool in_key, in_data;
    char text[8]; /* of a key */
    size_t text_bytes;
    uint32_t bits; /* base64 */
    unsigned bit_count, tables;
};

static int plist_start(void *arg, const char *name, const char **attributes)
{
    struct plist *p = arg;
    p->depth++;
    p->in_key = strcmp(name, "key") == 0;
    p->text_bytes = 0;
    if (strcmp(name, "array") == 0 && p->key == KEY_BLKX && p->blkx_depth == 0)
        p->blkx_depth = p->depth;
    p->in_data = p->blkx_depth && p->key == KEY_DATA && strcmp(name, "data") == 0;
    if (p->in_data) {
        p->bit_count = 0;
        p->tables++;
        dmg_table_begin(p->table);
    }
    return 0;
}

static int plist_end(void *arg, const char *name)
{
    struct plist *p = arg;
    if (p->in_key) {
        p->key = p->text_bytes == 4 && memcmp(p->text, "blkx", 4) == 0   ? KEY_BLKX
                 : p->text_bytes == 4 && memcmp(p->text, "Data", 4) == 0 ? KEY_DATA
                                                                         : KEY_OTHER;
        p->in_key = false;
    }
    if (p->depth == p->blkx_depth)
        p->blkx_depth = 0;
    p->in_data = false;
    p->depth--;
    return 0;
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static int feed_base64(struct plist *p, const char *text, size_t bytes)
{
    uint8_t out[1024];
    size_t made = 0;
    for (size_t i = 0; i < bytes; i++) {
        int value = base64_value(text[i]);
        if (value < 0) /* white space and the padding at the end */
            continue;
        p->bits = p->bits << 6 | (uint32_t)value;
        p->bit_count += 6;
        if (p->bit_count < 8)
            continue;
        p->bit_count -= 8;
        out[made++] = (uint8_t)(p->bits >> p->bit_count);
        if (made == sizeof(out)) {
            TRY(dmg_table_feed(p->table, out, made, p->e));
            made = 0;
        }
    }
    return dmg_table_feed(p->table, out, made, p->e);
}

static int plist_text(void *arg, const char *text, size_t bytes)
{
    struct plist *p = arg;
    if (p->in_data)
        return feed_base64(p, text, bytes);
    for (size_t i = 0; p->in_key && i < bytes && p->text_bytes < sizeof(p->text); i++)
        p->text[p->text_bytes++] = text[i];
    return 0;
}

static int co_read_plist(struct dmg_table *t, struct blk_device *file, const struct dmg_koly *koly,
                         struct blk_error *e)
{
    struct plist p = {.table = t, .e = e};
    struct xml_handler h = {.start = plist_start, .end = plist_end, .text = plist_text, .arg = &p};
    TRY(co_xml_parse(file, koly->xml_offset, koly->xml_bytes, &h, e));
    return p.tables ? 0 : err_bad(e, -EINVAL, "its property list holds no table of chunks");
}

/* --- the resource fork ------------------------------------------------------------------------ */

#define RECORD_STEP 4096u

static int co_read_record(struct dmg_table *t, struct blk_device *file, uint64_t at, uint64_t bytes,
                          struct blk_error *e)
{
    uint8_t buf[RECORD_STEP];
    dmg_table_begin(t);
    for (uint64_t done = 0, n; done < bytes; done += n) {
        n = MIN(bytes - done, RECORD_STEP);
        int rc = co_blk_read_buf(file, at + done, buf, n);
        if (rc < 0)
            return err_errno(e, rc, "the resource fork cannot be read");
        if (done == 0 && (n < 4 || memcmp(buf, "mish", 4) != 0))
            return 0; /* another kind of resource */
        TRY(dmg_table_feed(t, buf, n, e));
    }
    return 0;
}

/* The fork begins with where its data is; there are records, each with its length. */
static int co_read_fork(struct dmg_table *t, struct blk_device *file, const struct dmg_koly *koly,
                        struct blk_error *e)
{
    be32 head[4], length;
    int rc = koly->fork_bytes < sizeof(head)
                 ? -EINVAL
                 : co_blk_read_buf(file, koly->fork_offset, head, sizeof(head));
    uint64_t at = rc < 0 ? 0 : be32_get(head[0]), bytes = rc < 0 ? 0 : be32_get(head[2]);
    if (rc < 0 || !range_fits(at, bytes, koly->fork_bytes))
        return err_bad(e, rc < 0 ? rc : -EINVAL, "the resource fork is broken");
    uint64_t end = at + bytes;
    while (end - at > sizeof(length)) {
        rc = co_blk_read_buf(file, koly->fork_offset + at, &length, sizeof(length));
        if (rc < 0)
            return err_errno(e, rc, "the resource fork cannot be read");
        at += sizeof(length);
        if (be32_get(length) > end - at)
            return err_bad(e, -EINVAL, "a record of the resource fork reaches past its end");
        TRY(co_read_record(t, file, koly->fork_offset + at, be32_get(length), e));
        at += be32_get(length);
    }
    return 0;
}

int co_dmg_table_read(struct dmg_table *t, struct blk_device *file, const struct dmg_koly *koly,
                      struct blk_error *e)
{
    *t = (struct dmg_table){.file_bytes = file->size, .data_offset = koly->data_offset};
    if (koly->fork_bytes)
        TRY(co_read_fork(t, file, koly, e));
    else
        TRY(co_read_plist(t, file, koly, e));
    return dmg_table_done(t, e);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* dmg.c - Apple's universal disk images (UDIF), read only.
 *
 *   | data fork: chunks, each compressed in one of several ways | property list | koly 512 |
 *
 * The trailer says where a property list (or, in old ones, a resource fork) is, that one holds the
 * tables of chunks (dmg_table.c). What no chunk covers reads zero. */
#include "imgfmt/dmg.h"
#include "imgfmt/unpack.h"

struct dmg {
    struct chunks chunks;
    struct dmg_table table;
};

/* --- the trailer ------------------------------------------------------------------------------ */

int dmg_koly_parse(const struct dmg_koly_disk *raw, uint64_t file_bytes, struct dmg_koly *out,
                   struct blk_error *e)
{
    if (be32_get(raw->magic) != DMG_KOLY)
        return err_set(e, -EINVAL, "not a DMG: no \"koly\" at the end");
    *out = (struct dmg_koly){
        .data_offset = be64_get(raw->data_offset),
        .fork_offset = be64_get(raw->fork_offset),
        .fork_bytes = be64_get(raw->fork_bytes),
        .xml_offset = be64_get(raw->xml_offset),
        .xml_bytes = be64_get(raw->xml_bytes),
        .sectors = be64_get(raw->sectors),
    };
    if (be32_get(raw->segments) > 1)
        return err_set(e, -ENOTSUP,
                       "it is one of %u segments, and only whole images are read: `hdiutil "
                       "convert` on macOS joins them",
                       be32_get(raw->segments));
    if (out->data_offset > file_bytes ||
        !range_fits(out->fork_offset, out->fork_bytes, file_bytes) ||
        !range_fits(out->xml_offset, out->xml_bytes, file_bytes))
        return err_bad(e, -EINVAL, "what the trailer names lies past the end of the file");
    if (out->fork_bytes == 0 && out->xml_bytes == 0)
        return err_bad(e, -EINVAL, "the trailer names no table of chunks");
    if (out->sectors > INT64_MAX / DMG_SECTOR)
        return err_bad(e, -EFBIG, "%" PRIu64 " sectors are more than any disk has", out->sectors);
    return 0;
}

/* The trailer is the last 512 bytes; some files have a little behind it. */
static size_t find_koly(const uint8_t *tail, size_t bytes)
{
    for (size_t at = bytes - sizeof(struct dmg_koly_disk); at + 512 > bytes - 512; at--) {
        if (memcmp(tail + at, "koly", 4) == 0)
            return at;
        if (at == 0)
            break;
    }
    return SIZE_MAX;
}

static int dmg_probe(const struct blk_probe *p, const char **reason)
{
    size_t n = strlen(p->name);
    *reason = "the trailer \"koly\"";
    if (p->as_qemu)
        return n > 4 && strcmp(p->name + n - 4, ".dmg") == 0 ? 2 : 0;
    if (p->tail_bytes < sizeof(struct dmg_koly_disk))
        return 0;
    return memcmp(p->tail + p->tail_bytes - 512, "koly", 4) == 0 ? 90 : 0;
}

static int co_read_koly(struct blk_device *file, struct dmg_koly *out, struct blk_error *e)
{
    uint8_t tail[1023];
    struct dmg_koly_disk raw = {0};
    size_t n = MIN(file->size, sizeof(tail));
    if (n < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a DMG", file->size);
    int rc = co_blk_read_buf(file, file->size - n, tail, n);
    if (rc < 0)
        return err_errno(e, rc, "the trailer cannot be read");
    size_t at = find_koly(tail, n);
    if (at != SIZE_MAX)
        memcpy(&raw, tail + at, sizeof(raw));
    return dmg_koly_parse(&raw, file->size, out, e);
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* The first chunk that ends behind @sector; count: none does. */
static size_t find(const struct dmg_table *t, uint64_t sector)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->chunks[mid].sector + t->chunks[mid].sectors > sector)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static int co_dmg_find(struct chunks *chunks, uint64_t offset, struct chunk *out)
{
    const struct dmg_table *t = &container_of(chunks, struct dmg, chunks)->table;
    uint64_t sector = offset / DMG_SECTOR;
    size_t i = find(t, sector);
    if (i == t->count || t->chunks[i].sector > sector) { /* between two */
        uint64_t begin = i ? t->chunks[i - 1].sector + t->chunks[i - 1].sectors : 0;
        uint64_t end = i < t->count ? t->chunks[i].sector : t->sectors;
        *out = (struct chunk){
            .kind = CHUNK_ZERO, .offset = begin * DMG_SECTOR, .bytes = (end - begin) * DMG_SECTOR};
        return 0;
    }
    const struct dmg_chunk *c = &t->chunks[i];
    *out = (struct chunk){.kind = c->kind == DMG_RAW ? CHUNK_RAW : CHUNK_PACKED,
                          .offset = c->sector * DMG_SECTOR,
                          .bytes = c->sectors * DMG_SECTOR,
                          .packed_offset = c->offset,
                          .packed_bytes = c->bytes,
                          .how = c->kind};
    return 0;
}

static const struct {
    uint32_t kind;
    enum unpack_kind how;
} kinds[] = {
    {DMG_ADC, UNPACK_ADC}, {DMG_ZLIB, UNPACK_ZLIB}, {DMG_BZIP2, UNPACK_BZIP2}, {DMG_XZ, UNPACK_XZ}};

static int dmg_unpack(const struct chunk *chunk, const void *packed, void *plain)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (kinds[i].kind == chunk->how)
            return unpack(kinds[i].how, packed, chunk->packed_bytes, plain, chunk->bytes);
    return -ENOTSUP;
}

/* All kinds that occur can be read here. */
static int check_kinds(const struct dmg_table *t, struct blk_error *e)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->chunks[i].kind == DMG_LZFSE)
            return err_set(e, -ENOTSUP,
                           "its chunks are compressed with LZFSE, which cannot be read here: "
                           "`hdiutil convert -format UDZO` on macOS makes one that can");
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
            const char *missing =
                kinds[k].kind == t->chunks[i].kind ? unpack_missing(kinds[k].how) : NULL;
            if (missing)
                return err_set(e, -ENOTSUP, "this build cannot read its chunks: it has no %s",
                               missing);
        }
    }
    return 0;
}

/* --- the driver ------------------------------------------------------------------------------- */

static int co_open_parts(struct dmg *d, struct blk_device *dev, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct dmg_koly koly;
    TRY(co_readonly_file(dev, opener, &d->chunks.file, e));
    TRY(co_read_koly(d->chunks.file, &koly, e));
    TRY(co_dmg_table_read(&d->table, d->chunks.file, &koly, e));
    d->table.sectors = MAX(d->table.sectors, koly.sectors);
    return check_kinds(&d->table, e);
}

static int co_dmg_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct dmg *d = mem_zalloc(sizeof(*d));
    if (!d)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(d, dev, opener, e);
    if (rc < 0) {
        dmg_table_drop(&d->table);
        mem_free(d);
        return rc;
    }
    d->chunks.co_find = co_dmg_find;
    d->chunks.unpack = dmg_unpack;
    kept_init(&d->chunks.kept, opts_number(opts, "cache-size"));
    dev->state = d;
    dev->size = d->table.sectors * DMG_SECTOR;
    return 0;
}

static int co_dmg_close(struct blk_device *dev, struct blk_error *e)
{
    struct dmg *d = dev->state;
    kept_drop(&d->chunks.kept);
    dmg_table_drop(&d->table);
    mem_free(d);
    return 0;
}

static int co_dmg_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct dmg *d = dev->state;
    return co_chunks_read(&d->chunks, offset, to);
}

static int co_dmg_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    struct dmg *d = dev->state;
    return co_chunks_map(&d->chunks, offset, bytes, out);
}

static const struct opt_desc dmg_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the image lies in"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of inflated chunks kept in memory",
     .preset = "32M"},
    {0},
};

const struct blk_driver dmg_driver = {
    .name = "dmg",
    .title = "Apple disk image (read only)",
    .extensions = "dmg",
    .is_format = true,
    .open_options = dmg_options,
    .probe = dmg_probe,
    .co_open = co_dmg_open,
    .co_close = co_dmg_close,
    .co_reopen = co_readonly_reopen,
    .co_read = co_dmg_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_map = co_dmg_map,
};

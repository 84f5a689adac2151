/* SPDX-License-Identifier: BSD-3-Clause */
/* cloop.c - compressed loop images (Knoppix), version 2.0, read only.
 *
 *   | script 128 | block size | blocks | be64 offset of each block, and of the end | zlib streams |
 *
 * The table of offsets stays in the file; pages of it pass through the metadata cache. */
#include "imgfmt/cloop.h"
#include "imgfmt/chunks.h"
#include "imgfmt/meta.h"
#include "imgfmt/unpack.h"

#define TABLE_AT   sizeof(struct cloop_header_disk)
#define PAGE_BYTES 4096u

struct cloop {
    struct chunks chunks;
    struct cloop_header h;
    struct meta *meta;
};

int cloop_header_parse(const struct cloop_header_disk *raw, uint64_t file_bytes,
                       struct cloop_header *out, struct blk_error *e)
{
    out->block_bytes = be32_get(raw->block_bytes);
    out->blocks = be32_get(raw->blocks);
    if (memcmp(raw->script, "#!/bin/sh\n#V2.0 Format\n", 23) != 0)
        return err_wrong_format(e, "not a cloop image of version 2.0");
    if (out->block_bytes == 0 || out->block_bytes % 512 || out->block_bytes > CHUNK_MOST)
        return err_bad(e, -EINVAL, "the header says blocks of %u bytes, which no cloop image has",
                       out->block_bytes);
    if (!range_fits(TABLE_AT, (out->blocks + 1ULL) * 8, file_bytes))
        return err_bad(e, -EINVAL,
                       "a table of %u blocks reaches past the end of the file (%" PRIu64 " bytes)",
                       out->blocks, file_bytes);
    return 0;
}

static int cloop_probe(const struct blk_probe *p, const char **reason)
{
    static const char script[] = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t "
                                 "iso9660 /dev/cloop $1\n";
    size_t n = p->as_qemu ? sizeof(script) - 1 : 23;
    *reason = "the script that a cloop image begins with";
    return p->head_bytes >= TABLE_AT && memcmp(p->head, script, n) == 0 ? p->as_qemu ? 2 : 90 : 0;
}

static int co_offset(struct cloop *c, uint64_t block, uint64_t *out)
{
    uint64_t at = TABLE_AT + block * 8;
    struct meta_page *page;
    be64 raw;
    TRY(co_meta_get(c->meta, align_down(at, PAGE_BYTES), 0, &page));
    memcpy(&raw, page->data + at % PAGE_BYTES, sizeof(raw));
    *out = be64_get(raw);
    meta_put(c->meta, page);
    return 0;
}

static int co_cloop_find(struct chunks *chunks, uint64_t offset, struct chunk *out)
{
    struct cloop *c = container_of(chunks, struct cloop, chunks);
    uint64_t block = offset / c->h.block_bytes, begin, end;
    TRY(co_offset(c, block, &begin));
    TRY(co_offset(c, block + 1, &end));
    if (begin >= end)
        return -EIO;
    *out = (struct chunk){.kind = CHUNK_PACKED,
                          .offset = block * c->h.block_bytes,
                          .bytes = c->h.block_bytes,
                          .packed_offset = begin,
                          .packed_bytes = end - begin};
    return 0;
}

static int cloop_unpack(const struct chunk *chunk, const void *packed, void *plain)
{
    return unpack(UNPACK_ZLIB, packed, chunk->packed_bytes, plain, chunk->bytes);
}

static int co_open_parts(struct cloop *c, struct blk_device *dev, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct cloop_header_disk raw;
    struct blk_device *file;
    TRY(co_readonly_file(dev, opener, &file, e));
    if (file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a cloop image", file->size);
    int rc = co_blk_read_buf(file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    TRY(cloop_header_parse(&raw, file->size, &c->h, e));
    struct meta_options o = {.file = file, .page_bytes = PAGE_BYTES, .limit_bytes = 1 * MiB};
    rc = meta_open(&o, &c->meta);
    c->chunks.file = file;
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

static int co_cloop_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct cloop *c = mem_zalloc(sizeof(*c));
    if (!c)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(c, dev, opener, e);
    if (rc < 0) {
        co_meta_close(c->meta);
        mem_free(c);
        return rc;
    }
    c->chunks.co_find = co_cloop_find;
    c->chunks.unpack = cloop_unpack;
    kept_init(&c->chunks.kept, opts_number(opts, "cache-size"));
    dev->state = c;
    dev->size = (uint64_t)c->h.blocks * c->h.block_bytes;
    return 0;
}

static int co_cloop_close(struct blk_device *dev, struct blk_error *e)
{
    struct cloop *c = dev->state;
    kept_drop(&c->chunks.kept);
    co_meta_close(c->meta);
    mem_free(c);
    return 0;
}

static int co_cloop_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct cloop *c = dev->state;
    return co_chunks_read(&c->chunks, offset, to);
}

static int co_cloop_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                        struct blk_extent *out)
{
    struct cloop *c = dev->state;
    return co_chunks_map(&c->chunks, offset, bytes, out);
}

static const struct opt_desc cloop_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the image lies in"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of inflated blocks kept in memory",
     .preset = "16M"},
    {0},
};

const struct blk_driver cloop_driver = {
    .name = "cloop",
    .title = "compressed loop image (read only)",
    .extensions = "cloop",
    .is_format = true,
    .open_options = cloop_options,
    .probe = cloop_probe,
    .co_open = co_cloop_open,
    .co_close = co_cloop_close,
    .co_reopen = co_readonly_reopen,
    .co_read = co_cloop_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_map = co_cloop_map,
};

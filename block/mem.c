/* SPDX-License-Identifier: BSD-3-Clause */
/* mem.c - a disk in memory: chunks that are there once something was written to them.
 *
 * Nothing here suspends, so a request is atomic. A chunk that is not there reads as zero and maps
 * as a hole; past the size all bytes of a chunk are zero, so that growing shows zeroes. */
#include "block/block.h"

#define CHUNK (64 * KiB)

struct mem {
    uint8_t **chunks;
    size_t count; /* of the table; what lies past it is not there */
};

/* The part of [offset, +bytes) that lies in one chunk. */
struct part {
    uint64_t chunk, skip, bytes;
};

static struct part first_part(uint64_t offset, uint64_t bytes)
{
    uint64_t skip = offset % CHUNK;
    return (struct part){.chunk = offset / CHUNK, .skip = skip, .bytes = MIN(bytes, CHUNK - skip)};
}

static uint8_t *chunk_at(const struct mem *m, uint64_t chunk)
{
    return chunk < m->count ? m->chunks[chunk] : NULL;
}

/* The chunk, made if it is not there; NULL when out of memory. */
static uint8_t *chunk_make(struct mem *m, uint64_t chunk)
{
    if (chunk >= m->count) {
        uint64_t count = MAX(chunk + 1, m->count * 2), bytes;
        if (!mul_u64(count, sizeof(*m->chunks), &bytes) || bytes > SIZE_MAX / 2)
            return NULL;
        uint8_t **grown = mem_resize(m->chunks, bytes);
        if (!grown)
            return NULL;
        memset(grown + m->count, 0, (count - m->count) * sizeof(*grown));
        m->chunks = grown;
        m->count = count;
    }
    if (!m->chunks[chunk])
        m->chunks[chunk] = mem_zalloc(CHUNK);
    return m->chunks[chunk];
}

static int co_mem_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct mem *m = dev->state;
    for (uint64_t at = 0; at < to->bytes;) {
        struct part p = first_part(offset + at, to->bytes - at);
        struct vec piece = vec_slice(to, at, p.bytes);
        const uint8_t *chunk = chunk_at(m, p.chunk);
        if (chunk)
            vec_from_buf(&piece, chunk + p.skip);
        else
            vec_fill(&piece, 0);
        at += p.bytes;
    }
    return 0;
}

static int co_mem_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct mem *m = dev->state;
    for (uint64_t at = 0; at < from->bytes;) {
        struct part p = first_part(offset + at, from->bytes - at);
        struct vec piece = vec_slice(from, at, p.bytes);
        uint8_t *chunk = chunk_make(m, p.chunk);
        if (!chunk)
            return -ENOMEM;
        vec_to_buf(&piece, chunk + p.skip);
        at += p.bytes;
    }
    return 0;
}

static void clear(struct mem *m, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0 && offset / CHUNK < m->count) {
        struct part p = first_part(offset, bytes);
        uint8_t *chunk = chunk_at(m, p.chunk);
        if (chunk && p.bytes == CHUNK) {
            mem_free(chunk);
            m->chunks[p.chunk] = NULL;
        } else if (chunk) {
            memset(chunk + p.skip, 0, p.bytes);
        }
        offset += p.bytes;
        bytes -= p.bytes;
    }
}

static int co_mem_write_zeroes(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                               unsigned flags)
{
    clear(dev->state, offset, bytes);
    return 0;
}

static int co_mem_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    clear(dev->state, offset, bytes);
    return 0;
}

static int co_mem_flush(struct blk_device *dev)
{
    return 0;
}

static int co_mem_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                      struct blk_extent *out)
{
    const struct mem *m = dev->state;
    struct part p = first_part(offset, bytes);
    bool data = chunk_at(m, p.chunk) != NULL;
    uint64_t run = 0;
    for (; run < bytes; run += p.bytes) {
        p = first_part(offset + run, bytes - run);
        if ((chunk_at(m, p.chunk) != NULL) != data)
            break;
        if (p.chunk >= m->count) {
            run = bytes;
            break;
        }
    }
    *out = (struct blk_extent){.bytes = run,
                               .flags = BLK_EXT_ALLOCATED | BLK_EXT_PLACED |
                                        (data ? BLK_EXT_DATA : BLK_EXT_ZERO),
                               .child = dev,
                               .child_offset = offset};
    return 0;
}

static int co_mem_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    clear(dev->state, size, UINT64_MAX - size);
    return 0;
}

static int co_mem_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct mem *m = dev->state;
    out->actual_size = 0;
    for (size_t i = 0; i < m->count; i++)
        out->actual_size += m->chunks[i] ? CHUNK : 0;
    return 0;
}

static const struct opt_desc mem_options[] = {
    {.name = "size", .type = OPT_SIZE, .preset = "0", .max = INT64_MAX, .help = "bytes"},
    {.name = "growable",
     .type = OPT_BOOL,
     .preset = "on",
     .help = "writes past the end extend it, as they do a file"},
    {0},
};

static int co_mem_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    dev->state = mem_zalloc(sizeof(struct mem));
    if (!dev->state)
        return err_set(e, -ENOMEM, "out of memory");
    dev->size = opts_number(opts, "size");
    dev->limits.growable = opts_bool(opts, "growable");
    dev->limits.fresh_reads_zero = dev->limits.discard_reads_zero = true;
    dev->limits.can_zero_fast = dev->limits.can_unmap = true;
    return 0;
}

static int co_mem_close(struct blk_device *dev, struct blk_error *e)
{
    struct mem *m = dev->state;
    for (size_t i = 0; i < m->count; i++)
        mem_free(m->chunks[i]);
    mem_free(m->chunks);
    mem_free(m);
    return 0;
}

const struct blk_driver mem_driver = {
    .name = "mem",
    .title = "a disk in memory",
    .handles_fua = true,
    .open_options = mem_options,
    .co_open = co_mem_open,
    .co_close = co_mem_close,
    .co_read = co_mem_read,
    .co_write = co_mem_write,
    .co_write_zeroes = co_mem_write_zeroes,
    .co_discard = co_mem_discard,
    .co_flush = co_mem_flush,
    .co_map = co_mem_map,
    .co_resize = co_mem_resize,
    .co_info = co_mem_info,
};

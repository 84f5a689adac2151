/* SPDX-License-Identifier: BSD-3-Clause */
/* xz.c - a disk in a .xz file, read only.
 *
 * The index at the end of each stream says where blocks begin and how long all is. Within a block
 * there is no place to begin: `xz -T0` makes one per 24 MiB or so, plain `xz` only one of all. */
#ifdef HAVE_LIBLZMA
#include <lzma.h>
#endif

#include "imgfmt/stream.h"
#include "imgfmt/unpack.h"

#ifdef HAVE_LIBLZMA
/* Joining the indexes of n streams takes liblzma n * n steps: this allows some 5,000 of them, or
 * 100,000 blocks of one. index-size allows more. */
#define INDEX_MEMORY (2 * MiB)
#define STEP         (8 * KiB) /* of the index; each stream has one of its own */

struct xz {
    struct stream stream;
    lzma_index *index;
    uint64_t memory; /* of one decompressor, at most */
};

/* --- blocks ----------------------------------------------------------------------------------- */

static int xz_find(struct stream *s, uint64_t plain, struct stream_point *out)
{
    struct xz *x = container_of(s, struct xz, stream);
    lzma_index_iter at;
    lzma_index_iter_init(&at, x->index);
    if (lzma_index_iter_locate(&at, plain))
        return -EIO;
    *out = (struct stream_point){at.block.uncompressed_file_offset, at.block.compressed_file_offset,
                                 NULL};
    return 0;
}

struct block {
    lzma_stream z;
    lzma_block facts; /* liblzma looks at it to the end */
    lzma_check check;
    uint64_t unpadded, memory;
    bool begun;
};

static void *xz_begin(struct stream *s, const struct stream_point *p)
{
    struct xz *x = container_of(s, struct xz, stream);
    struct block *b = mem_zalloc(sizeof(*b));
    lzma_index_iter at;
    lzma_index_iter_init(&at, x->index);
    if (!b || lzma_index_iter_locate(&at, p->plain)) {
        mem_free(b);
        return NULL;
    }
    b->check = at.stream.flags->check;
    b->unpadded = at.block.unpadded_size;
    b->memory = x->memory;
    return b;
}

static void xz_end(void *decoder)
{
    struct block *b = decoder;
    lzma_end(&b->z);
    mem_free(b);
}

static void drop_filters(lzma_filter *filters)
{
    for (size_t i = 0; i < LZMA_FILTERS_MAX && filters[i].id != LZMA_VLI_UNKNOWN; i++)
        free(filters[i].options); /* liblzma's own */
}

/* *used: the header's length. -EFBIG: the dictionary is larger than may be. */
static int begin_block(struct block *b, const uint8_t *in, size_t bytes, size_t *used)
{
    lzma_filter filters[LZMA_FILTERS_MAX + 1];
    lzma_block *block = &b->facts;
    *block = (lzma_block){.version = 1, .check = b->check, .filters = filters};
    *used = bytes && in[0] ? lzma_block_header_size_decode(in[0]) : SIZE_MAX;
    block->header_size = (uint32_t)*used;
    if (*used > bytes || lzma_block_header_decode(block, NULL, in) != LZMA_OK)
        return -EIO;
    int rc = 0;
    if (lzma_raw_decoder_memusage(filters) > b->memory)
        rc = -EFBIG;
    else if (lzma_block_compressed_size(block, b->unpadded) != LZMA_OK ||
             lzma_block_decoder(&b->z, block) != LZMA_OK)
        rc = -EIO;
    drop_filters(filters);
    block->filters = NULL;
    b->begun = rc == 0;
    return rc;
}

static int xz_run(void *decoder, struct stream_step *step)
{
    struct block *b = decoder;
    if (!b->begun)
        TRY(begin_block(b, step->in, step->in_bytes, &step->in_used));
    b->z.next_in = step->in + step->in_used;
    b->z.avail_in = step->in_bytes - step->in_used;
    b->z.next_out = step->out;
    b->z.avail_out = step->out_bytes;
    lzma_ret rc = lzma_code(&b->z, LZMA_RUN);
    step->in_used = step->in_bytes - b->z.avail_in;
    step->out_made = step->out_bytes - b->z.avail_out;
    step->ended = rc == LZMA_STREAM_END;
    return rc == LZMA_OK || rc == LZMA_STREAM_END || rc == LZMA_BUF_ERROR ? 0
           : rc == LZMA_MEM_ERROR                                         ? -ENOMEM
                                                                          : -EIO;
}

static const struct stream_kind xz_kind = {
    .begin = xz_begin, .run = xz_run, .end = xz_end, .find = xz_find};

/* --- the index -------------------------------------------------------------------------------- */

static int co_feed_index(lzma_stream *z, struct blk_device *file, uint8_t *buf, struct blk_error *e)
{
    uint64_t at = 0;
    for (;;) {
        if (z->avail_in == 0) {
            uint64_t n = MIN(STEP, file->size - at);
            int rc = co_blk_read_buf(file, at, buf, n);
            if (rc < 0)
                return err_errno(e, rc, "the index cannot be read");
            z->next_in = buf;
            z->avail_in = n;
            at += n;
        }
        lzma_ret rc = lzma_code(z, at == file->size ? LZMA_FINISH : LZMA_RUN);
        if (rc == LZMA_STREAM_END)
            return 0;
        if (rc == LZMA_SEEK_NEEDED) {
            at = MIN(z->seek_pos, file->size);
            z->avail_in = 0;
        } else if (rc != LZMA_OK) {
            return rc == LZMA_MEM_ERROR ? err_set(e, -ENOMEM, "out of memory")
                   : rc == LZMA_MEMLIMIT_ERROR
                       ? err_set(e, -EINVAL, "its index is too large; index-size allows more")
                   : rc == LZMA_FORMAT_ERROR
                       ? err_set(e, -EINVAL, "not an xz file")
                       : err_bad(e, -EINVAL, "its index is damaged, or was cut short");
        }
    }
}

static int co_read_index(struct xz *x, struct blk_device *file, uint64_t memory,
                         struct blk_error *e)
{
    lzma_stream z = LZMA_STREAM_INIT;
    uint8_t *buf = buf_get(STEP);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "out of memory");
    if (rc == 0 && lzma_file_info_decoder(&z, &x->index, memory, file->size) != LZMA_OK)
        rc = err_set(e, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = co_feed_index(&z, file, buf, e);
    lzma_end(&z);
    buf_put(buf, STEP);
    return rc;
}

/* One of the first block, to say in words what reads would fail for. */
static int co_check_memory(struct xz *x, struct blk_error *e)
{
    uint8_t head[1024];
    size_t n = MIN(x->stream.file->size, sizeof(head)), used;
    struct stream_point p;
    if (x->stream.size == 0)
        return 0;
    TRY(xz_find(&x->stream, 0, &p));
    n = MIN(n, x->stream.file->size - MIN(p.packed, x->stream.file->size));
    struct block *b = xz_begin(&x->stream, &p);
    int rc = b ? co_blk_read_buf(x->stream.file, p.packed, head, n) : -ENOMEM;
    if (rc == 0)
        rc = begin_block(b, head, n, &used);
    if (b)
        xz_end(b);
    if (rc == -EFBIG)
        return err_set(e, rc,
                       "it needs more memory than %" PRIu64
                       " bytes to decompress; memory-limit allows more",
                       x->memory);
    return rc < 0 ? unpack_failed("xz", rc, e) : 0;
}

/* --- the driver ------------------------------------------------------------------------------- */

static int xz_probe(const struct blk_probe *p, const char **reason)
{
    *reason = "xz's signature";
    return !p->as_qemu && p->head_bytes >= 32 &&
                   memcmp(p->head,
                          "\xfd"
                          "7zXZ",
                          6) == 0
               ? 90
               : 0;
}

static int co_open_parts(struct xz *x, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *file;
    TRY(co_readonly_file(dev, opener, &file, e));
    if (file->size < 32)
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for an xz file", file->size);
    if (stream_init(&x->stream, &xz_kind, file, opts) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    x->memory = opts_number(opts, "memory-limit");
    uint64_t memory =
        opts_given(opts, "index-size") ? opts_number(opts, "index-size") : INDEX_MEMORY;
    TRY(co_read_index(x, file, memory, e));
    x->stream.size = lzma_index_uncompressed_size(x->index);
    if (opts_given(opts, "size") && opts_number(opts, "size") != x->stream.size)
        return err_bad(e, -EINVAL, "it says it holds %" PRIu64 " bytes, more than any disk",
                       x->stream.size);
    x->stream.cursor_count = x->memory > 64 * MiB ? 2 : STREAM_CURSORS;
    return co_check_memory(x, e);
}

static int co_xz_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                      struct blk_error *e)
{
    struct xz *x = mem_zalloc(sizeof(*x));
    if (!x)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(x, dev, opts, opener, e);
    dev->state = x;
    if (rc < 0) {
        stream_drop(&x->stream);
        lzma_index_end(x->index, NULL);
        mem_free(x);
        return rc;
    }
    dev->size = x->stream.size;
    return 0;
}

static int co_xz_close(struct blk_device *dev, struct blk_error *e)
{
    struct xz *x = dev->state;
    stream_drop(&x->stream);
    lzma_index_end(x->index, NULL);
    mem_free(x);
    return 0;
}

static int co_xz_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct xz *x = dev->state;
    return co_stream_read(&x->stream, offset, to);
}

static int co_xz_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    struct xz *x = dev->state;
    out->compressed = true;
    out->specific = json_pack("{s:I}", "blocks", (json_int_t)lzma_index_block_count(x->index));
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static const struct opt_desc xz_options[] = {
    STREAM_OPTIONS,
    {.name = "memory-limit",
     .type = OPT_SIZE,
     .help = "bytes that decompressing one block may take",
     .preset = "128M"},
    {0},
};

const struct blk_driver xz_driver = {
    .name = "xz",
    .title = "anything compressed with xz (read only)",
    .mend =
        "`xz -dc FILE >NEW` gives what comes before the damage; all of it is only in another copy",
    .extensions = "xz",
    .is_format = true,
    .inner_is_image = true,
    .open_options = xz_options,
    .probe = xz_probe,
    .co_open = co_xz_open,
    .co_close = co_xz_close,
    .co_reopen = co_readonly_reopen,
    .co_inner_list = co_readonly_inner_list,
    .co_inner_open = co_readonly_inner_open,
    .co_read = co_xz_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_info = co_xz_info,
};
#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* codec.c - compressing and inflating clusters: deflate by ISA-L (fast) or zlib (higher levels), in
 * a window of 4 KiB where that is asked for; inflating by libdeflate, then zlib; zstd.
 *
 * zlib with a window of 4 KiB costs ten times the CPU of ISA-L's level 2 for 8 % less space; with
 * 32 KiB, 13 times for 10 %. libdeflate's level 1 lies between: twice the CPU, 3 % less. */
#include <zlib.h>

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_LIBISAL
#include <isa-l/igzip_lib.h>
#endif
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#include <zstd_errors.h>
#endif

#include "imgfmt/codec.h"

#define ISAL_LEVEL      2
#define ZSTD_FAST_LEVEL 1
/* Level 1 looks for matches of 6 or 7 bytes and comes out 5 % larger than QEMU's level 3; of 5, 3 %
 * at the same speed. */
#define ZSTD_FAST_MATCH 5
#define ZSTD_WINDOW_MAX 25 /* log2 of the memory that a frame may ask for */

struct codec_context {
    struct codec_context *next;
    z_stream deflate, inflate;
    bool deflate_made, inflate_made;
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *libdeflate;
#endif
#ifdef HAVE_LIBISAL
    struct isal_zstream isal;
    uint8_t *isal_buffer;
#endif
#ifdef HAVE_LIBZSTD
    ZSTD_CCtx *zstd_pack;
    ZSTD_DCtx *zstd_unpack;
#endif
};

/* --- contexts --- */

static voidpf z_alloc(voidpf opaque, uInt items, uInt bytes)
{
    (void)opaque;
    return mem_array(items, bytes);
}

static void z_free(voidpf opaque, voidpf p)
{
    (void)opaque;
    mem_free(p);
}

static struct codec_context *context_get(struct codec *c)
{
    pthread_mutex_lock(&c->lock);
    struct codec_context *x = c->free;
    if (x)
        c->free = x->next;
    pthread_mutex_unlock(&c->lock);
    if (x || !(x = mem_zalloc(sizeof(*x))))
        return x;
    x->deflate.zalloc = x->inflate.zalloc = z_alloc;
    x->deflate.zfree = x->inflate.zfree = z_free;
    return x;
}

static void context_put(struct codec *c, struct codec_context *x)
{
    pthread_mutex_lock(&c->lock);
    x->next = c->free;
    c->free = x;
    pthread_mutex_unlock(&c->lock);
}

static void context_free(struct codec_context *x)
{
    if (x->deflate_made)
        deflateEnd(&x->deflate);
    if (x->inflate_made)
        inflateEnd(&x->inflate);
#ifdef HAVE_LIBDEFLATE
    libdeflate_free_decompressor(x->libdeflate);
#endif
#ifdef HAVE_LIBISAL
    mem_free(x->isal_buffer);
#endif
#ifdef HAVE_LIBZSTD
    ZSTD_freeCCtx(x->zstd_pack);
    ZSTD_freeDCtx(x->zstd_unpack);
#endif
    mem_free(x);
}

void codec_init(struct codec *c, enum codec_kind kind, unsigned level)
{
    *c = (struct codec){.kind = kind, .level = level};
    pthread_mutex_init(&c->lock, NULL);
}

void codec_drop(struct codec *c)
{
    while (c->free) {
        struct codec_context *x = c->free;
        c->free = x->next;
        context_free(x);
    }
    pthread_mutex_destroy(&c->lock);
}

/* --- deflate --- */

static int window_bits(const struct codec *c)
{
    return c->kind == CODEC_DEFLATE_4K ? 12 : 15;
}

#ifdef HAVE_LIBISAL
static int pack_isal(const struct codec *c, struct codec_context *x, const void *plain,
                     size_t bytes, void *packed, size_t *packed_bytes)
{
    struct isal_zstream *z = &x->isal;
    if (!x->isal_buffer && !(x->isal_buffer = mem_alloc(ISAL_DEF_LVL2_DEFAULT)))
        return -ENOMEM;
    isal_deflate_stateless_init(z);
    z->level = ISAL_LEVEL;
    z->level_buf = x->isal_buffer;
    z->level_buf_size = ISAL_DEF_LVL2_DEFAULT;
    z->hist_bits = (uint16_t)window_bits(c);
    z->end_of_stream = 1;
    z->next_in = (uint8_t *)plain;
    z->avail_in = (uint32_t)bytes;
    z->next_out = packed;
    z->avail_out = (uint32_t)*packed_bytes;
    int rc = isal_deflate_stateless(z);
    *packed_bytes = z->total_out;
    return rc == COMP_OK && z->avail_in == 0 ? 0 : -ENOSPC;
}
#endif

static int pack_zlib(const struct codec *c, struct codec_context *x, const void *plain,
                     size_t bytes, void *packed, size_t *packed_bytes)
{
    z_stream *z = &x->deflate;
    if (!x->deflate_made) {
        int told = c->level ? (int)c->level : Z_DEFAULT_COMPRESSION;
        if (deflateInit2(z, told, Z_DEFLATED, -window_bits(c), 9, Z_DEFAULT_STRATEGY) != Z_OK)
            return -ENOMEM;
        x->deflate_made = true;
    } else {
        deflateReset(z);
    }
    z->next_in = (Bytef *)plain;
    z->avail_in = (uInt)bytes;
    z->next_out = packed;
    z->avail_out = (uInt)*packed_bytes;
    int rc = deflate(z, Z_FINISH);
    *packed_bytes = z->total_out;
    return rc == Z_STREAM_END ? 0 : -ENOSPC;
}

static int unpack_zlib(struct codec_context *x, const void *packed, size_t packed_bytes,
                       void *plain, size_t bytes)
{
    z_stream *z = &x->inflate;
    if (!x->inflate_made) {
        if (inflateInit2(z, -15) != Z_OK)
            return -ENOMEM;
        x->inflate_made = true;
    } else {
        inflateReset(z);
    }
    z->next_in = (Bytef *)packed;
    z->avail_in = (uInt)packed_bytes;
    z->next_out = plain;
    z->avail_out = (uInt)bytes;
    int rc = inflate(z, Z_FINISH);
    /* A stream without its end mark is taken as long as the cluster is whole. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && z->avail_out == 0 ? 0 : -EIO;
}

static int pack_deflate(struct codec *c, struct codec_context *x, const void *plain, size_t bytes,
                        void *packed, size_t *packed_bytes)
{
#ifdef HAVE_LIBISAL
    if (c->level == 0)
        return pack_isal(c, x, plain, bytes, packed, packed_bytes);
#endif
    return pack_zlib(c, x, plain, bytes, packed, packed_bytes);
}

static int unpack_deflate(struct codec_context *x, const void *packed, size_t packed_bytes,
                          void *plain, size_t bytes)
{
#ifdef HAVE_LIBDEFLATE
    if (!x->libdeflate)
        x->libdeflate = libdeflate_alloc_decompressor();
    if (x->libdeflate && libdeflate_deflate_decompress(x->libdeflate, packed, packed_bytes, plain,
                                                       bytes, NULL) == LIBDEFLATE_SUCCESS)
        return 0;
#endif
    return unpack_zlib(x, packed, packed_bytes, plain, bytes);
}

/* --- zstd --- */

#ifdef HAVE_LIBZSTD
static int make_zstd_pack(struct codec *c, struct codec_context *x)
{
    int level = c->level ? (int)c->level : ZSTD_FAST_LEVEL;
    if (!(x->zstd_pack = ZSTD_createCCtx()))
        return -ENOMEM;
    ZSTD_CCtx_setParameter(x->zstd_pack, ZSTD_c_compressionLevel, level);
    if (c->level == 0)
        ZSTD_CCtx_setParameter(x->zstd_pack, ZSTD_c_minMatch, ZSTD_FAST_MATCH);
    /* Readers that stream find no content size to trip over. */
    ZSTD_CCtx_setParameter(x->zstd_pack, ZSTD_c_contentSizeFlag, 0);
    return 0;
}

static int pack_zstd(struct codec *c, struct codec_context *x, const void *plain, size_t bytes,
                     void *packed, size_t *packed_bytes)
{
    if (!x->zstd_pack)
        TRY(make_zstd_pack(c, x));
    size_t n = ZSTD_compress2(x->zstd_pack, packed, *packed_bytes, plain, bytes);
    if (ZSTD_isError(n))
        return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? -ENOMEM : -ENOSPC;
    *packed_bytes = n;
    return 0;
}

static int unpack_zstd(struct codec_context *x, const void *packed, size_t packed_bytes,
                       void *plain, size_t bytes)
{
    ZSTD_inBuffer in = {packed, packed_bytes, 0};
    ZSTD_outBuffer out = {plain, bytes, 0};
    if (!x->zstd_unpack) {
        if (!(x->zstd_unpack = ZSTD_createDCtx()))
            return -ENOMEM;
        ZSTD_DCtx_setParameter(x->zstd_unpack, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX);
    } else {
        ZSTD_DCtx_reset(x->zstd_unpack, ZSTD_reset_session_only);
    }
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t rc = ZSTD_decompressStream(x->zstd_unpack, &out, &in);
        if (ZSTD_isError(rc) || (in.pos == in_before && out.pos == out_before))
            break;
    }
    return out.pos == out.size ? 0 : -EIO;
}
#else
static int pack_zstd(struct codec *c, struct codec_context *x, const void *plain, size_t bytes,
                     void *packed, size_t *packed_bytes)
{
    return -ENOTSUP;
}

static int unpack_zstd(struct codec_context *x, const void *packed, size_t packed_bytes,
                       void *plain, size_t bytes)
{
    return -ENOTSUP;
}
#endif

/* --- both --- */

int codec_pack(struct codec *c, const void *plain, size_t bytes, void *packed, size_t *packed_bytes)
{
    struct codec_context *x = context_get(c);
    if (!x)
        return -ENOMEM;
    int rc = (c->kind == CODEC_ZSTD ? pack_zstd : pack_deflate)(c, x, plain, bytes, packed,
                                                                packed_bytes);
    context_put(c, x);
    return rc;
}

int codec_unpack(struct codec *c, const void *packed, size_t packed_bytes, void *plain,
                 size_t bytes)
{
    struct codec_context *x = context_get(c);
    if (!x)
        return -ENOMEM;
    int rc = (c->kind == CODEC_ZSTD ? unpack_zstd : unpack_deflate)(x, packed, packed_bytes, plain,
                                                                    bytes);
    context_put(c, x);
    return rc;
}

uint32_t codec_adler32(const void *plain, size_t bytes)
{
#ifdef HAVE_LIBDEFLATE
    return libdeflate_adler32(1, plain, bytes);
#else
    return (uint32_t)adler32_z(1, plain, bytes);
#endif
}

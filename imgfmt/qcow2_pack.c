/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_pack.c - compressed clusters: raw deflate with a window of 4 KiB, or zstd.
 *
 * Strict readers inflate with a window of 4 KiB, so we write no distance beyond it, but read any.
 * The descriptor counts whole sectors, so compressed bytes come with up to 511 bytes of others
 * behind them. Both functions run on pool threads and touch only their own buffers. */
#include <zlib.h>

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#endif

#include "imgfmt/qcow2.h"

#define WINDOW_BITS (-12) /* raw, 4 KiB */
#define ZSTD_LEVEL  1

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

static int inflate_zlib(const void *packed, size_t packed_bytes, void *cluster, size_t bytes)
{
    z_stream z = {
        .next_in = (Bytef *)packed,
        .avail_in = (uInt)packed_bytes,
        .next_out = cluster,
        .avail_out = (uInt)bytes,
        .zalloc = z_alloc,
        .zfree = z_free,
    };

    if (inflateInit2(&z, -15) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* A stream without its end mark is taken as long as the cluster is whole. */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && z.avail_out == 0 ? 0 : -EIO;
}

static int unpack_deflate(const void *packed, size_t packed_bytes, void *cluster, size_t bytes)
{
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (d) {
        enum libdeflate_result rc =
            libdeflate_deflate_decompress(d, packed, packed_bytes, cluster, bytes, NULL);
        libdeflate_free_decompressor(d);
        if (rc == LIBDEFLATE_SUCCESS)
            return 0;
    }
#endif
    return inflate_zlib(packed, packed_bytes, cluster, bytes);
}

static int pack_deflate(const void *cluster, size_t bytes, void *packed, size_t *packed_bytes)
{
    z_stream z = {
        .next_in = (Bytef *)cluster,
        .avail_in = (uInt)bytes,
        .next_out = packed,
        .avail_out = (uInt)*packed_bytes,
        .zalloc = z_alloc,
        .zfree = z_free,
    };

    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, 9, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return -ENOMEM;
    int rc = deflate(&z, Z_FINISH);
    *packed_bytes = z.total_out;
    deflateEnd(&z);
    return rc == Z_STREAM_END ? 0 : -ENOSPC;
}

#ifdef HAVE_LIBZSTD
static int unpack_zstd(const void *packed, size_t packed_bytes, void *cluster, size_t bytes)
{
    ZSTD_inBuffer in = {packed, packed_bytes, 0};
    ZSTD_outBuffer out = {cluster, bytes, 0};
    ZSTD_DCtx *d = ZSTD_createDCtx();

    if (!d)
        return -ENOMEM;
    ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, 25); /* memory that a frame may ask for */
    while (out.pos < out.size) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t rc = ZSTD_decompressStream(d, &out, &in);
        if (ZSTD_isError(rc) || (in.pos == in_before && out.pos == out_before))
            break;
    }
    ZSTD_freeDCtx(d);
    return out.pos == out.size ? 0 : -EIO;
}

static int pack_zstd(const void *cluster, size_t bytes, void *packed, size_t *packed_bytes)
{
    ZSTD_inBuffer in = {cluster, bytes, 0};
    ZSTD_outBuffer out = {packed, *packed_bytes, 0};
    ZSTD_CCtx *c = ZSTD_createCCtx();

    if (!c)
        return -ENOMEM;
    /* By the streaming call, so that readers that stream find no content size to trip over. */
    ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    size_t left = ZSTD_compressStream2(c, &out, &in, ZSTD_e_end);
    ZSTD_freeCCtx(c);
    *packed_bytes = out.pos;
    return left == 0 ? 0 : -ENOSPC;
}
#else
static int unpack_zstd(const void *packed, size_t packed_bytes, void *cluster, size_t bytes)
{
    return -ENOTSUP;
}

static int pack_zstd(const void *cluster, size_t bytes, void *packed, size_t *packed_bytes)
{
    return -ENOTSUP;
}
#endif

int qcow2_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                 size_t packed_bytes, void *cluster)
{
    bool zstd = qcow2_of(m)->header.compression_type == QCOW2_ZSTD;

    (void)cell;
    return (zstd ? unpack_zstd : unpack_deflate)(packed, packed_bytes, cluster, m->cluster_bytes);
}

int qcow2_pack(const struct map *m, const void *cluster, void *packed, size_t *packed_bytes)
{
    bool zstd = qcow2_of(m)->header.compression_type == QCOW2_ZSTD;
    size_t bytes = m->cluster_bytes;

    *packed_bytes = MIN(*packed_bytes, bytes - 1);
    return (zstd ? pack_zstd : pack_deflate)(cluster, bytes, packed, packed_bytes);
}

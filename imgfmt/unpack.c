/* SPDX-License-Identifier: BSD-3-Clause */
/* unpack.c - zlib (by libdeflate, else zlib), bzip2, xz and ADC, chunk by chunk. */
#include <zlib.h>

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef HAVE_BZIP2
#include <bzlib.h>
#endif
#ifdef HAVE_LIBLZMA
#include <lzma.h>
#endif

#include "imgfmt/unpack.h"

#define XZ_MEMORY (128 * MiB) /* what a chunk's dictionary may ask for */

static int unpack_zlib(const void *packed, size_t packed_bytes, void *plain, size_t bytes)
{
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
    if (!d)
        return -ENOMEM;
    enum libdeflate_result rc =
        libdeflate_zlib_decompress(d, packed, packed_bytes, plain, bytes, NULL);
    libdeflate_free_decompressor(d);
    return rc == LIBDEFLATE_SUCCESS ? 0 : -EIO;
#else
    uLongf made = bytes;
    int rc = uncompress(plain, &made, packed, packed_bytes);
    return rc == Z_OK && made == bytes ? 0 : rc == Z_MEM_ERROR ? -ENOMEM : -EIO;
#endif
}

#ifdef HAVE_BZIP2
static int unpack_bzip2(const void *packed, size_t packed_bytes, void *plain, size_t bytes)
{
    unsigned made = (unsigned)bytes;
    int rc = BZ2_bzBuffToBuffDecompress(plain, &made, (char *)packed, (unsigned)packed_bytes, 0, 0);
    return rc == BZ_OK && made == bytes ? 0 : rc == BZ_MEM_ERROR ? -ENOMEM : -EIO;
}
#endif

#ifdef HAVE_LIBLZMA
static int unpack_xz(const void *packed, size_t packed_bytes, void *plain, size_t bytes)
{
    uint64_t memory = XZ_MEMORY;
    size_t in = 0, out = 0;
    lzma_ret rc =
        lzma_stream_buffer_decode(&memory, 0, NULL, packed, &in, packed_bytes, plain, &out, bytes);
    return rc == LZMA_OK && out == bytes ? 0 : rc == LZMA_MEM_ERROR ? -ENOMEM : -EIO;
}
#endif

/* A byte says what follows: literals, or a copy of what came out before, by a short or long form.
 */
static int unpack_adc(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t bytes)
{
    size_t at = 0, made = 0;
    while (made < bytes && at < in_bytes) {
        uint8_t b = in[at];
        size_t head = b & 0x80 ? 1 : b & 0x40 ? 3 : 2;
        size_t count = b & 0x80 ? (b & 0x7f) + 1 : b & 0x40 ? (b & 0x3f) + 4 : (b >> 2) + 3;
        size_t literals = b & 0x80 ? count : 0;
        if (in_bytes - at < head + literals || count > bytes - made)
            return -EIO;
        if (literals) {
            memcpy(out + made, in + at + 1, count);
        } else {
            size_t back = 1 + (b & 0x40 ? in[at + 1] << 8 | in[at + 2] : (b & 3) << 8 | in[at + 1]);
            if (back > made)
                return -EIO;
            for (size_t i = 0; i < count; i++) /* it may run into its own output */
                out[made + i] = out[made + i - back];
        }
        made += count;
        at += head + literals;
    }
    return made == bytes ? 0 : -EIO;
}

int unpack(enum unpack_kind kind, const void *packed, size_t packed_bytes, void *plain,
           size_t bytes)
{
    if (packed_bytes > UINT32_MAX || bytes > UINT32_MAX)
        return -EFBIG;
    switch (kind) {
    case UNPACK_ZLIB:
        return unpack_zlib(packed, packed_bytes, plain, bytes);
#ifdef HAVE_BZIP2
    case UNPACK_BZIP2:
        return unpack_bzip2(packed, packed_bytes, plain, bytes);
#endif
#ifdef HAVE_LIBLZMA
    case UNPACK_XZ:
        return unpack_xz(packed, packed_bytes, plain, bytes);
#endif
    case UNPACK_ADC:
        return unpack_adc(packed, packed_bytes, plain, bytes);
    default:
        return -ENOTSUP;
    }
}

const char *unpack_missing(enum unpack_kind kind)
{
#ifndef HAVE_BZIP2
    if (kind == UNPACK_BZIP2)
        return "libbz2";
#endif
#ifndef HAVE_LIBLZMA
    if (kind == UNPACK_XZ)
        return "liblzma";
#endif
    (void)kind;
    return NULL;
}

int unpack_failed(const char *program, int rc, struct blk_error *e)
{
    if (rc != -EIO)
        return err_errno(e, rc, "it cannot be decompressed");
    return err_bad(e, rc, "what %s compressed is damaged, or was cut short", program);
}

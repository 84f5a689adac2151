/* SPDX-License-Identifier: BSD-3-Clause */
/* unpack.h - a chunk of compressed bytes to the plain ones, in one call.
 *
 * Any thread, several at once: nothing is kept between calls. */
#ifndef IMGFMT_UNPACK_H
#define IMGFMT_UNPACK_H

#include "block/err.h"

enum unpack_kind {
    UNPACK_ZLIB, /* deflate with zlib's header and checksum */
    UNPACK_BZIP2,
    UNPACK_XZ,  /* the .xz container */
    UNPACK_ADC, /* Apple Data Compression */
};

/* Exactly @bytes come out, or -EIO. -ENOTSUP: this build has no such library. */
must_use int unpack(enum unpack_kind kind, const void *packed, size_t packed_bytes, void *plain,
                    size_t bytes);
/* What is missing in this build for @kind; NULL: nothing. */
const char *unpack_missing(enum unpack_kind kind);

/* A file compressed with @program could not be decompressed: -EIO is damage. Gives @rc. */
int unpack_failed(const char *program, int rc, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* chunks.h - reading a disk that is stored as chunks which are decompressed whole: cloop, DMG,
 * bzip2.
 *
 * The format says which chunk an offset lies in; here they are read, inflated on the pool (some at
 * once), and those that are asked for in parts kept for a while. */
#ifndef IMGFMT_CHUNKS_H
#define IMGFMT_CHUNKS_H

#include "imgfmt/kept.h"
#include "imgfmt/readonly.h"

#define CHUNK_MOST (64 * MiB) /* plain or packed bytes of one chunk */

enum chunk_kind { CHUNK_ZERO, CHUNK_RAW, CHUNK_PACKED };

struct chunk {
    enum chunk_kind kind;
    uint64_t offset, bytes; /* of the disk; never empty */
    uint64_t packed_offset; /* in the file; of raw ones too */
    uint64_t packed_bytes;
    unsigned how; /* the format's own word to its unpack() */
};

struct chunks {
    struct blk_device *file;
    /* The chunk that covers @offset. Packed ones are at most CHUNK_MOST, both ways. */
    int (*co_find)(struct chunks *c, uint64_t offset, struct chunk *out);
    /* On the pool: exactly chunk->bytes come out, or -EIO. */
    int (*unpack)(const struct chunk *chunk, const void *packed, void *plain);
    struct kept_list kept;
};

/* The driver operations; @c is what the format keeps in its state. */
must_use int co_chunks_read(struct chunks *c, uint64_t offset, const struct vec *to);
must_use int co_chunks_map(struct chunks *c, uint64_t offset, uint64_t bytes,
                           struct blk_extent *out);

#endif

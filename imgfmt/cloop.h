/* SPDX-License-Identifier: BSD-3-Clause */
/* cloop.h - the header of compressed loop images, for their driver and its tests. */
#ifndef IMGFMT_CLOOP_H
#define IMGFMT_CLOOP_H

#include "block/endian.h"
#include "imgfmt/readonly.h"

struct cloop_header_disk { /* at offset 0, big endian; be64 offsets[blocks + 1] follow */
    char script[128];      /* "#!/bin/sh\n#V2.0 Format\n...": mounts itself */
    be32 block_bytes;
    be32 blocks;
};
_Static_assert(sizeof(struct cloop_header_disk) == 136, "cloop header");

struct cloop_header {
    uint32_t block_bytes, blocks;
};

must_use int cloop_header_parse(const struct cloop_header_disk *raw, uint64_t file_bytes,
                                struct cloop_header *out, struct blk_error *e);

#endif

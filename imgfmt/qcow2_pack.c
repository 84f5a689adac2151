/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_pack.c - compressed clusters: raw deflate with a window of 4 KiB, or zstd (codec.h).
 *
 * The descriptor counts whole sectors, so compressed bytes come with up to 511 bytes of others
 * behind them. Both functions run on pool threads and touch only their own buffers. */
#include "imgfmt/qcow2.h"

void qcow2_codec_init(struct qcow2 *q, unsigned level)
{
    bool zstd = q->header.compression_type == QCOW2_ZSTD;
    codec_init(&q->codec, zstd ? CODEC_ZSTD : CODEC_DEFLATE_4K, level);
}

int qcow2_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                 size_t packed_bytes, void *cluster)
{
    (void)cell;
    return codec_unpack(&qcow2_of(m)->codec, packed, packed_bytes, cluster, m->cluster_bytes);
}

int qcow2_pack(const struct map *m, const void *cluster, void *packed, size_t *packed_bytes)
{
    size_t bytes = m->cluster_bytes;

    *packed_bytes = MIN(*packed_bytes, bytes - 1);
    return codec_pack(&qcow2_of(m)->codec, cluster, bytes, packed, packed_bytes);
}

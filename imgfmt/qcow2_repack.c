/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_repack.c - compressed clusters come to lie one behind the other again.
 *
 * Several lie in one cluster of the file, which is free only when all of them are gone: what is
 * left in clusters with gaps is placed anew, as a write of the same bytes would be, with its order.
 * A chain of them that reaches across many clusters moves only as a whole: where no gap of the file
 * takes it, those of its end are placed anew one by one.
 * Images with snapshots are left as they are: who shares a compressed cluster, no count tells. */
#include "imgfmt/qcow2_compact.h"

#define FILE_CLUSTERS_MOST (8u << 20) /* of 4 bytes each in memory; larger files are left */
#define WASTE_PART         20         /* less than one in so many bytes is not worth it */

struct repack {
    struct qcow2 *q;
    uint32_t *used; /* of each cluster of the file: bytes of compressed clusters */
    uint64_t clusters;
    uint64_t tail; /* what lies from here on is placed anew, gaps or not; UINT64_MAX: nothing is */
};

/* The file's clusters that a compressed one touches, up to *last. */
static uint64_t reach(const struct repack *r, const struct map_cell *cell, uint64_t *last)
{
    unsigned bits = r->q->header.cluster_bits;
    *last = (cell->offset + cell->packed_bytes - 1) >> bits;
    return cell->offset >> bits;
}

static int note(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct repack *r = arg;
    uint64_t bits = r->q->header.cluster_bits, last;
    (void)cluster;
    if (cell->state != MAP_PACKED)
        return 0;
    uint64_t end = cell->offset + cell->packed_bytes;
    for (uint64_t i = reach(r, cell, &last); i <= last && i < r->clusters; i++)
        r->used[i] += MIN(end, (i + 1) << bits) - MAX(cell->offset, i << bits);
    (void)m;
    return 0;
}

static bool has_gaps(const struct repack *r, uint64_t i)
{
    uint64_t cluster = r->q->map.cluster_bytes;
    return i < r->clusters && r->used[i] && r->used[i] < cluster - cluster / 8;
}

static bool worth_it(const struct repack *r)
{
    uint64_t cluster = r->q->map.cluster_bytes, held = 0, wasted = 0;
    for (uint64_t i = 0; i < r->clusters; i++) {
        held += r->used[i] ? cluster : 0;
        wasted += has_gaps(r, i) ? cluster - r->used[i] : 0;
    }
    return wasted > cluster && wasted > held / WASTE_PART;
}

static int co_move(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct repack *r = arg;
    uint64_t last, first = reach(r, cell, &last);
    bool gaps = false;
    for (uint64_t i = first; i <= last && cell->state == MAP_PACKED; i++)
        gaps |= r->tail == UINT64_MAX ? has_gaps(r, i) : i >= r->tail && i < r->clusters;
    int rc = gaps ? co_map_repack(m, cluster) : 0;
    return rc == -EFBIG ? 0 : rc;
}

/* Clusters of the file that are in use. */
static int co_count_used(struct qcow2 *q, uint64_t clusters, uint64_t *used)
{
    with_lock(&q->alloc);
    *used = 0;
    for (uint64_t i = 0; i < clusters; i++) {
        uint64_t count;
        TRY(co_qcow2_count(q, i, &count));
        *used += count > 0;
    }
    return 0;
}

static int co_prepare(struct repack *r, bool tail, bool *go)
{
    r->tail = UINT64_MAX;
    if (!tail) {
        TRY(co_map_walk(&r->q->map, note, r));
        *go = worth_it(r);
        return 0;
    }
    TRY(co_count_used(r->q, r->clusters, &r->tail));
    *go = r->clusters - r->tail > r->clusters / WASTE_PART;
    return 0;
}

/* Without space for it the image stays as it is. */
int co_qcow2_repack(struct qcow2 *q, bool tail)
{
    struct repack r = {.q = q, .clusters = div_up(q->map.file->size, q->map.cluster_bytes)};
    bool go = false;

    if (q->header.snapshot_count || r.clusters > FILE_CLUSTERS_MOST)
        return 0;
    r.used = tail ? NULL : mem_zalloc(MAX(r.clusters, 1u) * sizeof(*r.used));
    if (!tail && !r.used)
        return -ENOMEM;
    int rc = co_prepare(&r, tail, &go);
    if (rc == 0 && go)
        rc = co_map_walk(&q->map, co_move, &r);
    mem_free(r.used);
    if (rc < 0 && rc != -ENOSPC)
        return rc;
    return go ? co_qcow2_settle(q, true) : 0;
}

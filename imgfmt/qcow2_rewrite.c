/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_rewrite.c - cluster 0 changes more than its fixed fields: another backing file, another
 * version, another list of bitmaps.
 *
 * Only a sector changes at once, and extensions or the name may lie beyond the first one. So what
 * lies beyond is first written where the header on disk does not look, and then the first sector
 * turns to it:
 *
 *   1 if the new cluster lies in one sector, or differs from the old one in bytes beyond it that
 *     nothing uses: those bytes -> F -> first sector
 *   2 else a cover between: the same contents behind everything in use (park), a filler extension
 *     in the first sector leading there: bytes -> F -> first sector; and then 1
 * After a crash the header is the old one, or the new one (perhaps parked: readers skip the filler
 * as they skip every extension that they do not know, and the next rewrite drops it). Extensions
 * that are not known here are carried over as they are. */
#include "imgfmt/qcow2.h"

struct builder {
    uint8_t *cluster;
    uint64_t at, room;
};

static bool put(struct builder *b, uint32_t type, const void *data, uint64_t bytes)
{
    uint64_t padded = align_up(bytes, 8);
    be32 head[2] = {be32_of(type), be32_of((uint32_t)bytes)};

    if (b->at + 8 + padded > b->room)
        return false;
    memcpy(b->cluster + b->at, head, 8);
    if (data)
        memcpy(b->cluster + b->at + 8, data, bytes);
    b->at += 8 + padded;
    return true;
}

/* The extension at *at, which moves behind it; false at the end. The header was validated. */
static bool next_extension(const uint8_t *cluster, uint64_t end, uint64_t *at, uint32_t *type,
                           struct qcow2_span *data)
{
    be32 head[2];

    if (*at + 8 > end)
        return false;
    memcpy(head, cluster + *at, 8);
    *type = be32_get(head[0]);
    *data = (struct qcow2_span){(uint32_t)*at + 8, be32_get(head[1])};
    if (*type == QCOW2_EXT_END || !range_fits(data->offset, data->bytes, end))
        return false;
    *at = MIN(align_up(data->offset + (uint64_t)data->bytes, 8), end);
    return true;
}

static uint64_t extensions_end(const struct qcow2_header *h)
{
    return h->backing_name.bytes ? h->backing_name.offset : qcow2_cluster_bytes(h);
}

uint32_t qcow2_cover_end(const uint8_t *cluster, const struct qcow2_header *h)
{
    uint64_t at = h->header_bytes, limit = extensions_end(h);
    uint32_t type;
    struct qcow2_span data;

    while (next_extension(cluster, limit, &at, &type, &data))
        ;
    at = MIN(at + 8, limit);
    return (uint32_t)MAX(at, h->backing_name.offset + (uint64_t)h->backing_name.bytes);
}

/* What stays as it is. */
struct carried {
    const uint8_t *old;
    const struct qcow2_header *header;
    bool drop_names, drop_bitmaps, drop_data;
};

static bool carry_over(struct builder *b, const struct carried *c)
{
    const uint8_t *old = c->old;
    const struct qcow2_header *h = c->header;
    uint64_t at = h->header_bytes, end = extensions_end(h);
    uint32_t type;
    struct qcow2_span data;

    while (next_extension(old, end, &at, &type, &data)) {
        if (type == QCOW2_EXT_BACKING_FORMAT || type == QCOW2_EXT_FILLER ||
            (type == QCOW2_EXT_FEATURE_NAMES && c->drop_names) ||
            (type == QCOW2_EXT_DATA_FILE && c->drop_data) ||
            (type == QCOW2_EXT_BITMAPS && c->drop_bitmaps))
            continue;
        if (!put(b, type, old + data.offset, data.bytes))
            return false;
    }
    return true;
}

int qcow2_cover_build(const struct qcow2_cover *cover, const uint8_t *old,
                      const struct qcow2_header *old_header, struct qcow2_cover_plan *plan,
                      uint8_t *cluster)
{
    struct qcow2_header h = *cover->header;
    size_t name_bytes = cover->backing_name ? strlen(cover->backing_name) : 0;
    size_t format_bytes = cover->backing_format ? strlen(cover->backing_format) : 0;
    size_t data_bytes = cover->data_name ? strlen(cover->data_name) : 0;
    struct builder b = {cluster, 0, qcow2_cluster_bytes(&h)};
    struct carried same = {old, old_header, plan->drop_names, cover->set_bitmaps, data_bytes != 0};

    if (name_bytes > QCOW2_MAX_BACKING_NAME || data_bytes > QCOW2_MAX_BACKING_NAME ||
        name_bytes + 8 > b.room || format_bytes > 63)
        return -ENOSPC;
    memset(cluster, 0, b.room);
    b.room -= name_bytes + 8;
    if (h.version < 3)
        h.header_bytes = QCOW2_V2_BYTES;
    else if (old_header->version < 3)
        h.header_bytes = sizeof(struct qcow2_header_disk);
    else
        h.header_bytes = old_header->header_bytes;
    if (h.header_bytes + 8 > QCOW2_SECTOR)
        return -ENOSPC; /* a header of the future: it does not change in one sector */
    memcpy(cluster, old, MIN(h.header_bytes, old_header->header_bytes));
    b.at = h.header_bytes;
    if (plan->park && !put(&b, QCOW2_EXT_FILLER, NULL, plan->park - b.at - 8))
        return -ENOSPC;
    /* First, so that the next list of bitmaps changes in one sector. */
    if (cover->bitmaps && !put(&b, QCOW2_EXT_BITMAPS, cover->bitmaps, QCOW2_EXT_BITMAPS_BYTES))
        return -ENOSPC;
    if (format_bytes && !put(&b, QCOW2_EXT_BACKING_FORMAT, cover->backing_format, format_bytes))
        return -ENOSPC;
    if (data_bytes && !put(&b, QCOW2_EXT_DATA_FILE, cover->data_name, data_bytes))
        return -ENOSPC;
    if (!carry_over(&b, &same) || b.at > b.room)
        return -ENOSPC;
    b.at += 8; /* the end mark */
    h.backing_name = (struct qcow2_span){0};
    if (name_bytes) {
        memcpy(cluster + b.at, cover->backing_name, name_bytes);
        h.backing_name = (struct qcow2_span){(uint32_t)b.at, (uint32_t)name_bytes};
    }
    plan->end = (uint32_t)(b.at + name_bytes);
    qcow2_header_put(&h, false, cluster);
    return 0;
}

/* --- writing -------------------------------------------------------------- */

/* Writes [from, to) of @cluster, then turns the first sector to it. */
static int co_turn(struct qcow2 *q, const uint8_t *cluster, uint64_t from, uint64_t to)
{
    uint8_t before[QCOW2_SECTOR];
    struct qcow2_header h;
    struct qcow2_raw_header in = {
        .raw = cluster,
        .bytes = q->map.cluster_bytes,
        .file_bytes = q->map.file->size,
        .damaged = true, /* tables are not what changes here */
    };

    TRY(qcow2_header_parse(&in, &h, NULL));
    if (from < to) {
        TRY(co_blk_write_buf(q->map.file, from, cluster + from, to - from, 0));
        TRY(q->map.fresh ? 0 : co_blk_flush(q->map.file));
    }
    memcpy(before, q->sector, sizeof(before));
    memcpy(q->sector, cluster, sizeof(before));
    int rc = co_qcow2_put_header(q, &h);
    if (rc < 0) /* what is written again is the old header: all it uses is still there */
        memcpy(q->sector, before, sizeof(before));
    return rc;
}

struct rewrite {
    uint8_t *old, *new, *parked; /* clusters */
    uint32_t old_end;
    struct qcow2_cover_plan plan, park;
    bool parks;
};

/* True if the first sector alone decides between the two. */
static bool turns_at_once(const struct rewrite *w)
{
    uint32_t shared = MIN(w->old_end, w->plan.end);
    return shared <= QCOW2_SECTOR ||
           memcmp(w->old + QCOW2_SECTOR, w->new + QCOW2_SECTOR, shared - QCOW2_SECTOR) == 0;
}

static int plan_rewrite(struct rewrite *w, const struct qcow2_cover *cover,
                        const struct qcow2_header *now, bool drop_names)
{
    w->plan = w->park = (struct qcow2_cover_plan){.drop_names = drop_names};
    w->parks = false;
    TRY(qcow2_cover_build(cover, w->old, now, &w->plan, w->new));
    if (turns_at_once(w))
        return 0;
    w->parks = true;
    w->park.park = (uint32_t)align_up(MAX(MAX(w->old_end, w->plan.end), QCOW2_SECTOR), 8);
    return qcow2_cover_build(cover, w->old, now, &w->park, w->parked);
}

static int co_rewrite(struct qcow2 *q, struct rewrite *w, const struct qcow2_cover *cover)
{
    uint64_t bytes = q->map.cluster_bytes, there = MIN(bytes, q->map.file->size);

    TRY(co_qcow2_sure_header(q));
    memset(w->old, 0, bytes);
    TRY(co_blk_read_buf(q->map.file, 0, w->old, there));
    memcpy(w->old, q->sector, QCOW2_SECTOR);
    w->old_end = qcow2_cover_end(w->old, &q->header);
    bool drops = cover->header->version < 3; /* version 2 has no features to name */
    int rc = plan_rewrite(w, cover, &q->header, drops);
    if (rc == -ENOSPC && !drops) /* the names are a courtesy */
        rc = plan_rewrite(w, cover, &q->header, true);
    TRY(rc);
    if (!w->parks)
        return co_turn(q, w->new, QCOW2_SECTOR, w->plan.end);
    TRY(co_turn(q, w->parked, w->park.park, w->park.end));
    /* It has happened; parked is as good, if this fails. */
    (void)!co_turn(q, w->new, QCOW2_SECTOR, w->plan.end);
    return 0;
}

int co_qcow2_rewrite(struct qcow2 *q, const struct qcow2_cover *cover)
{
    struct rewrite w = {0};
    uint64_t bytes = q->map.cluster_bytes;
    auto_free uint8_t *old = mem_aligned(bytes), *new = mem_aligned(bytes),
                      *parked = mem_aligned(bytes);

    assert_held(&q->alloc);
    assert(!q->hidden);
    if (!old || !new || !parked)
        return -ENOMEM;
    w.old = old;
    w.new = new;
    w.parked = parked;
    return co_rewrite(q, &w, cover);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_packed.c - compressed clusters: reading them through a few kept decompressed ones, and
 * writing them whole.
 *
 * Compression runs on the pool, on its own buffers. A reader of a whole cluster decompresses into a
 * buffer of its own; parts go through the kept clusters, so that small reads decompress once. */
#include "imgfmt/map_private.h"

#define PACKS_IN_FLIGHT 8
#define INLINE_BYTES    4096 /* less than this is not worth a trip to the pool */

struct unpack_job {
    struct map *map;
    const struct map_cell *cell;
    const uint8_t *packed;
    size_t packed_bytes;
    uint8_t *cluster;
};

static int run_unpack(void *arg)
{
    struct unpack_job *j = arg;
    return j->map->format->unpack(j->map, j->cell, j->packed, j->packed_bytes, j->cluster);
}

/* The decompressed cluster of @cell into @cluster. */
static int co_unpack(struct map *m, const struct map_cell *cell, uint8_t *cluster)
{
    if (cell->offset >= m->data->size || cell->packed_bytes == 0)
        return map_broken(m, "a compressed cluster lies past the end of the file");
    uint64_t bytes = MIN(cell->packed_bytes, m->data->size - cell->offset);
    uint8_t *packed = buf_get(bytes);
    if (!packed)
        return -ENOMEM;
    int rc = co_blk_read_buf(m->data, cell->offset, packed, bytes);
    if (rc == 0) {
        struct unpack_job j = {m, cell, packed, bytes, cluster};
        rc = m->cluster_bytes <= INLINE_BYTES ? run_unpack(&j) : co_offload(run_unpack, &j);
    }
    buf_put(packed, bytes);
    return rc;
}

/* --- kept clusters --- */

static struct map_unpacked *find_unpacked(struct map *m, uint64_t offset)
{
    for (unsigned i = 0; i < MAP_UNPACKED; i++)
        if (m->priv->unpacked[i].offset == offset)
            return &m->priv->unpacked[i];
    return NULL;
}

/* The one used longest ago that nobody looks at; NULL: all are in use. */
static struct map_unpacked *oldest_unpacked(struct map *m)
{
    struct map_unpacked *best = NULL;
    for (unsigned i = 0; i < MAP_UNPACKED; i++) {
        struct map_unpacked *u = &m->priv->unpacked[i];
        if (u->pins == 0 && (!best || u->used_at < best->used_at))
            best = u;
    }
    if (best && !best->cluster)
        best->cluster = mem_aligned(m->cluster_bytes);
    return best && best->cluster ? best : NULL;
}

void map_forget_unpacked(struct map *m, uint64_t offset)
{
    struct map_unpacked *u = find_unpacked(m, offset);
    if (u)
        u->offset = 0;
}

void map_free_unpacked(struct map *m)
{
    for (unsigned i = 0; i < MAP_UNPACKED; i++)
        mem_free(m->priv->unpacked[i].cluster);
}

static int co_fill_unpacked(struct map *m, const struct map_cell *cell, struct map_unpacked *u)
{
    u->offset = cell->offset;
    u->loading = true;
    u->rc = co_unpack(m, cell, u->cluster);
    u->loading = false;
    if (u->rc < 0)
        u->offset = 0;
    co_queue_wake_all(&u->waiters);
    return u->rc;
}

static int co_read_own(struct map *m, const struct map_cell *cell, uint32_t at,
                       const struct vec *to)
{
    uint8_t *cluster = buf_get(m->cluster_bytes);
    if (!cluster)
        return -ENOMEM;
    int rc = co_unpack(m, cell, cluster);
    if (rc == 0)
        vec_from_buf(to, cluster + at);
    buf_put(cluster, m->cluster_bytes);
    return rc;
}

int co_map_read_packed(struct map *m, const struct map_cell *cell, uint32_t at,
                       const struct vec *to)
{
    if (cell->offset == 0)
        return map_broken(m, "a compressed cluster lies on the header");
    struct map_unpacked *u = find_unpacked(m, cell->offset);
    if (!u && to->bytes == m->cluster_bytes) {
        size_t piece;
        uint8_t *whole = vec_first(to, &piece);
        if (piece == m->cluster_bytes)
            return co_unpack(m, cell, whole);
        return co_read_own(m, cell, at, to);
    }
    bool fill = !u;
    if (fill && !(u = oldest_unpacked(m)))
        return co_read_own(m, cell, at, to);
    u->pins++;
    u->used_at = ++m->priv->unpacked_clock;
    int rc = fill ? co_fill_unpacked(m, cell, u) : 0;
    while (u->loading)
        co_queue_wait(&u->waiters);
    if (rc == 0)
        rc = u->rc;
    if (rc == 0)
        vec_from_buf(to, u->cluster + at);
    u->pins--;
    return rc;
}

/* --- writing --- */

struct pack_job {
    struct map *map;
    uint64_t cluster;
    struct vec from; /* the last cluster may be short */
    uint8_t *plain, *packed;
    size_t packed_bytes;
    bool busy;
};

static int run_pack(void *arg)
{
    struct pack_job *j = arg;
    j->packed_bytes = j->map->cluster_bytes;
    vec_to_buf(&j->from, j->plain);
    memset(j->plain + j->from.bytes, 0, j->map->cluster_bytes - j->from.bytes);
    return j->map->format->pack(j->map, j->plain, j->packed, &j->packed_bytes);
}

static int co_write_plain(struct pack_job *j)
{
    struct map *m = j->map;
    uint64_t at = j->cluster << m->shape.cluster_bits, done = 0;
    struct map_source src = {.vec = &j->from, .offset = at};
    struct map_cell cell;
    TRY(co_map_cell(m, j->cluster, &cell));
    if (!map_in_place(&cell))
        return co_map_allocate(m, at, at + j->from.bytes, &src, &done);
    return co_blk_write(m->data, cell.offset, &j->from, 0);
}

/* Packed bytes are on their way to @now: the cell changes once they are written. */
static int co_commit_packed(struct pack_job *j, const struct map_cell *now)
{
    struct map *m = j->map;
    struct meta_page *page;
    uint64_t covered;
    TRY(co_blk_write_buf(m->data, now->offset, j->packed, j->packed_bytes, 0));
    TRY(co_map_page_to_write(m, j->cluster, &page, &covered));
    struct map_update u = {.cluster = j->cluster, .now = *now};
    int rc = map_entry_get(m, page, j->cluster, &u.old);
    if (rc == 0) {
        meta_data_before(m->meta, m->format->table_rank);
        rc = co_map_change(m, page, &u, 1, false);
    }
    meta_put(m->meta, page);
    return rc;
}

static int co_write_one(struct pack_job *j)
{
    struct map *m = j->map;
    int rc = m->cluster_bytes <= INLINE_BYTES ? run_pack(j) : co_offload(run_pack, j);
    if (rc == -ENOSPC)
        return co_write_plain(j);
    TRY(rc);
    TRY(meta_error(m->meta));
    struct map_cell now = {.state = MAP_PACKED, .packed_bytes = j->packed_bytes};
    bool reused;
    TRY(m->format->co_place_packed(m, j->packed_bytes, &now.offset, &reused));
    map_forget_unpacked(m, now.offset);
    rc = co_commit_packed(j, &now);
    if (rc < 0)
        map_unplace_one(m, &now);
    return rc;
}

static int co_pack_job(void *arg)
{
    struct pack_job *j = arg;
    struct map *m = j->map;
    struct co_range_hold hold;
    int rc = -ENOMEM;
    j->plain = buf_get(m->cluster_bytes);
    j->packed = buf_get(m->cluster_bytes);
    if (j->plain && j->packed) {
        uint64_t at = j->cluster << m->shape.cluster_bits;
        co_range_lock(&m->priv->writers, &hold, at, m->cluster_bytes, false);
        rc = co_write_one(j);
        co_range_unlock(&m->priv->writers, &hold);
    }
    if (j->plain)
        buf_put(j->plain, m->cluster_bytes);
    if (j->packed)
        buf_put(j->packed, m->cluster_bytes);
    j->busy = false;
    return rc;
}

int co_map_write_packed(struct map *m, uint64_t offset, const struct vec *from)
{
    uint64_t mask = m->cluster_bytes - 1, end = offset + from->bytes;
    if (!m->format->pack || !m->format->co_place_packed)
        return -ENOTSUP;
    if (offset & mask || (end & mask && end != m->shape.size))
        return -EINVAL;
    struct pack_job jobs[PACKS_IN_FLIGHT] = {0};
    struct co_group g;
    co_group_init(&g, PACKS_IN_FLIGHT);
    for (uint64_t at = offset; at < end && !co_group_failed(&g); at += m->cluster_bytes) {
        while (g.running >= PACKS_IN_FLIGHT)
            co_queue_wait(&g.room);
        struct pack_job *j = jobs;
        while (j->busy)
            j++;
        *j = (struct pack_job){.map = m,
                               .cluster = at >> m->shape.cluster_bits,
                               .from = vec_slice(from, at - offset, MIN(end - at, mask + 1)),
                               .busy = true};
        co_group_start(&g, co_pack_job, j);
    }
    return co_group_wait(&g);
}

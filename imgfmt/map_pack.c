/* SPDX-License-Identifier: BSD-3-Clause */
/* map_pack.c - writing compressed clusters.
 *
 * Clusters are compressed on the pool, several per trip; then, holding them alone, each is given
 * space of its own length, which as a rule lies behind the one before it, so that a batch is one
 * write and one change of a table page. What does not get smaller is stored as it is. */
#include "imgfmt/map_private.h"

#define BATCHES_IN_FLIGHT 4
#define RUN_CLUSTERS      16 /* placed and committed together */

struct pack_batch {
    struct map *map;
    uint64_t first; /* cluster */
    unsigned count;
    struct vec from;         /* the last cluster may be short */
    uint8_t *plain, *packed; /* one cluster; all compressed bytes, without gaps */
    uint32_t bytes[MAP_BATCH] /* compressed; 0: does not get smaller */;
    uint32_t at[MAP_BATCH]; /* in packed */
    bool busy;
};

/* The bytes of cluster @i, copied only where they lie in pieces or end early. */
static const uint8_t *plain_bytes(const struct pack_batch *b, unsigned i)
{
    uint64_t cluster = b->map->cluster_bytes, at = i * cluster;
    struct vec v = vec_slice(&b->from, at, MIN(cluster, b->from.bytes - at));
    size_t piece;
    const uint8_t *first = vec_first(&v, &piece);
    if (piece == cluster)
        return first;
    vec_to_buf(&v, b->plain);
    memset(b->plain + v.bytes, 0, cluster - v.bytes);
    return b->plain;
}

static int run_pack(void *arg)
{
    struct pack_batch *b = arg;
    uint32_t end = 0;
    for (unsigned i = 0; i < b->count; i++) {
        size_t bytes = b->map->cluster_bytes;
        int rc = b->map->format->pack(b->map, plain_bytes(b, i), b->packed + end, &bytes);
        if (rc < 0 && rc != -ENOSPC)
            return rc;
        b->at[i] = end;
        b->bytes[i] = rc == 0 ? (uint32_t)bytes : 0;
        end += b->bytes[i];
    }
    return 0;
}

/* --- as it is --- */

static int co_write_plain(const struct pack_batch *b, unsigned i, unsigned count)
{
    struct map *m = b->map;
    uint64_t start = b->first << m->shape.cluster_bits;
    struct map_source src = {.vec = &b->from, .offset = start};
    uint64_t end = MIN(start + (i + count) * m->cluster_bytes, start + b->from.bytes);
    for (uint64_t at = start + i * m->cluster_bytes, done; at < end; at += done) {
        struct map_cell cell;
        TRY(co_map_cell(m, at >> m->shape.cluster_bits, &cell));
        if (map_in_place(&cell)) {
            done = MIN(end - at, m->cluster_bytes);
            struct vec v = vec_slice(&b->from, at - start, done);
            TRY(co_blk_write(m->data, cell.offset, &v, 0));
        } else {
            TRY(co_map_allocate(m, at, end, &src, &done));
        }
    }
    return 0;
}

/* --- compressed --- */

/* One write for what lies together, in the file as in memory. */
static int co_write_bytes(const struct pack_batch *b, unsigned i, const struct map_update *u,
                          unsigned count)
{
    for (unsigned k = 0, next; k < count; k = next) {
        uint32_t bytes = b->bytes[i + k];
        for (next = k + 1; next < count && u[next].now.offset == u[k].now.offset + bytes; next++)
            bytes += b->bytes[i + next];
        blk_step(b->map->file, "write_compressed");
        TRY(co_blk_write_buf(map_packed_in(b->map), u[k].now.offset, b->packed + b->at[i + k],
                             bytes, 0));
    }
    return 0;
}

/* The bytes are on their way: the cells change. *done counts those that have. */
static int co_commit(struct map *m, struct map_update *u, unsigned count, unsigned *done)
{
    while (*done < count) {
        struct meta_page *page;
        uint64_t covered;
        unsigned n = 0;
        int rc = 0;
        TRY(co_map_page_to_write(m, u[*done].cluster, &page, &covered));
        for (; n < MIN(covered, count - *done) && rc == 0; n++)
            rc = map_entry_get(m, page, u[*done + n].cluster, &u[*done + n].old);
        if (rc == 0) {
            meta_data_before(m->meta, m->format->table_rank);
            rc = co_map_change(m, page, u + *done, n, false);
        }
        meta_put(m->meta, page);
        TRY(rc);
        *done += n;
    }
    return 0;
}

static int co_write_packed(const struct pack_batch *b, unsigned i, unsigned count)
{
    struct map *m = b->map;
    struct map_update u[RUN_CLUSTERS];
    unsigned placed = 0, done = 0;
    int rc = 0;
    for (; placed < count; placed++) {
        struct map_update *p = &u[placed];
        bool reused;
        *p = (struct map_update){.cluster = b->first + i + placed};
        p->now = (struct map_cell){.state = MAP_PACKED, .packed_bytes = b->bytes[i + placed]};
        rc = m->format->co_place_packed(m, p->now.packed_bytes, &p->now.offset, &reused);
        if (rc < 0)
            break;
        map_forget_unpacked(m, p->now.offset);
    }
    if (rc == 0)
        rc = co_write_bytes(b, i, u, count);
    if (rc == 0)
        rc = co_commit(m, u, count, &done);
    while (done < placed)
        map_unplace_one(m, &u[done++].now);
    return rc;
}

static int co_write_batch(const struct pack_batch *b)
{
    TRY(meta_error(b->map->meta));
    for (unsigned i = 0, n; i < b->count; i += n) {
        bool packed = b->bytes[i] > 0;
        for (n = 1; i + n < b->count && n < RUN_CLUSTERS && (b->bytes[i + n] > 0) == packed;)
            n++;
        TRY((packed ? co_write_packed : co_write_plain)(b, i, n));
    }
    return 0;
}

static int co_batch(void *arg)
{
    struct pack_batch *b = arg;
    struct map *m = b->map;
    uint64_t bytes = b->count * m->cluster_bytes;
    int rc = -ENOMEM;
    b->plain = buf_get(m->cluster_bytes);
    b->packed = buf_get(bytes);
    if (b->plain && b->packed)
        rc = bytes <= MAP_INLINE_BYTES ? run_pack(b) : co_offload(run_pack, b);
    if (rc == 0) {
        struct co_range_hold hold;
        uint64_t at = b->first << m->shape.cluster_bits;
        co_range_lock(&m->priv->writers, &hold, at, bytes, false);
        rc = co_write_batch(b);
        co_range_unlock(&m->priv->writers, &hold);
    }
    buf_put(b->plain, m->cluster_bytes);
    buf_put(b->packed, bytes);
    b->busy = false;
    return rc;
}

int co_map_write_packed(struct map *m, uint64_t offset, const struct vec *from)
{
    uint64_t mask = m->cluster_bytes - 1, end = offset + from->bytes;
    uint64_t step = map_pack_clusters(m) * m->cluster_bytes;
    if (!m->format->pack || !m->format->co_place_packed)
        return -ENOTSUP;
    if (offset & mask || (end & mask && end != m->shape.size))
        return -EINVAL;
    struct pack_batch batches[BATCHES_IN_FLIGHT];
    for (unsigned i = 0; i < BATCHES_IN_FLIGHT; i++)
        batches[i].busy = false;
    struct co_group g;
    co_group_init(&g, BATCHES_IN_FLIGHT);
    for (uint64_t at = offset; at < end && !co_group_failed(&g); at += step) {
        while (g.running >= BATCHES_IN_FLIGHT)
            co_queue_wait(&g.room);
        struct pack_batch *b = batches;
        while (b->busy)
            b++;
        uint64_t bytes = MIN(end - at, step);
        b->map = m;
        b->first = at >> m->shape.cluster_bits;
        b->count = (unsigned)div_up(bytes, m->cluster_bytes);
        b->from = vec_slice(from, at - offset, bytes);
        b->busy = true;
        co_group_start(&g, co_batch, b);
    }
    return co_group_wait(&g);
}

/* --- moved, as it is --- */

/* What the cell leads to may end before the cell says so, with the file. */
static int co_read_packed(struct map *m, const struct map_cell *cell, uint8_t *to)
{
    struct blk_device *file = map_packed_in(m);
    uint64_t there = cell->offset < file->size ? file->size - cell->offset : 0;
    uint64_t bytes = MIN(there, cell->packed_bytes);
    memset(to + bytes, 0, cell->packed_bytes - bytes);
    return bytes ? co_blk_read_buf(file, cell->offset, to, bytes) : -EIO;
}

static int co_repack_held(struct map *m, uint64_t cluster)
{
    struct pack_batch b = {.map = m, .first = cluster, .count = 1};
    struct map_cell cell;
    TRY(co_map_cell(m, cluster, &cell));
    if (cell.state != MAP_PACKED)
        return 0;
    if (cell.packed_bytes > m->cluster_bytes)
        return -EFBIG;
    b.bytes[0] = cell.packed_bytes;
    b.packed = buf_get(m->cluster_bytes);
    if (!b.packed)
        return -ENOMEM;
    int rc = co_read_packed(m, &cell, b.packed);
    if (rc == 0)
        rc = co_write_packed(&b, 0, 1);
    buf_put(b.packed, m->cluster_bytes);
    return rc;
}

int co_map_repack(struct map *m, uint64_t cluster)
{
    struct co_range_hold hold;
    TRY(meta_error(m->meta));
    co_range_lock(&m->priv->writers, &hold, cluster << m->shape.cluster_bits, m->cluster_bytes,
                  false);
    int rc = co_repack_held(m, cluster);
    co_range_unlock(&m->priv->writers, &hold);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* map_packed.c - reading compressed clusters.
 *
 * Inflating runs on the pool. Clusters that follow one another go there together, and what lies
 * together in the file is read together, straight into the reader's memory. Parts of a cluster go
 * through a few that are kept inflated, so that small reads inflate once. */
#include "imgfmt/map_private.h"

#define RUN_GAP 4096 /* bytes of others that are read along rather than read apart */

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
    if (cell->offset >= map_packed_in(m)->size || cell->packed_bytes == 0)
        return map_broken(m, "a compressed cluster lies past the end of the file");
    uint64_t bytes = MIN(cell->packed_bytes, map_packed_in(m)->size - cell->offset);
    uint8_t *packed = buf_get(bytes);
    if (!packed)
        return -ENOMEM;
    blk_step(m->file, "read_compressed");
    int rc = co_blk_read_buf(map_packed_in(m), cell->offset, packed, bytes);
    if (rc == 0) {
        struct unpack_job j = {m, cell, packed, bytes, cluster};
        rc = m->cluster_bytes <= MAP_INLINE_BYTES ? run_unpack(&j) : co_offload(run_unpack, &j);
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

void map_forget_all_unpacked(struct map *m)
{
    for (unsigned i = 0; i < MAP_UNPACKED; i++)
        m->priv->unpacked[i].offset = 0;
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

/* --- many at once --- */

struct unpack_run {
    struct map_packed_run *run;
    const uint8_t *packed;
    uint8_t *scratch; /* a cluster, where the reader's memory lies in pieces */
    const struct vec *to;
};

/* Where each cluster's compressed bytes come to lie in one buffer; its length, or -EIO. What lies
 * together in the file lies together there. */
static int64_t lay_out(struct map *m, struct map_packed_run *r)
{
    uint64_t end = 0; /* in the buffer */
    for (unsigned i = 0; i < r->count; i++) {
        struct map_cell *c = &r->cells[i];
        if (c->offset == 0 || c->offset >= map_packed_in(m)->size || c->packed_bytes == 0)
            return map_broken(m, "a compressed cluster lies on the header or past the end");
        c->packed_bytes = MIN(c->packed_bytes, map_packed_in(m)->size - c->offset);
        const struct map_cell *before = i ? &r->cells[i - 1] : NULL;
        if (before && c->offset >= before->offset &&
            c->offset - before->offset <= before->packed_bytes + RUN_GAP)
            r->at[i] = r->at[i - 1] + (uint32_t)(c->offset - before->offset);
        else
            r->at[i] = (uint32_t)end;
        end = MAX(end, (uint64_t)r->at[i] + c->packed_bytes);
    }
    return (int64_t)end;
}

/* True if cluster @i lies behind the one before it in the file as it does in the buffer. */
static bool goes_on(const struct map_packed_run *r, unsigned i)
{
    return r->cells[i].offset - r->cells[i - 1].offset == (uint64_t)r->at[i] - r->at[i - 1];
}

static int co_load_run(struct map *m, const struct map_packed_run *r, uint8_t *packed)
{
    for (unsigned i = 0, next; i < r->count; i = next) {
        uint64_t end = r->at[i] + r->cells[i].packed_bytes;
        for (next = i + 1; next < r->count && goes_on(r, next); next++)
            end = MAX(end, (uint64_t)r->at[next] + r->cells[next].packed_bytes);
        blk_step(m->file, "read_compressed");
        TRY(co_blk_read_buf(map_packed_in(m), r->cells[i].offset, packed + r->at[i],
                            end - r->at[i]));
    }
    return 0;
}

static int run_unpack_run(void *arg)
{
    struct unpack_run *j = arg;
    struct map *m = j->run->map;
    for (unsigned i = 0; i < j->run->count; i++) {
        const struct map_cell *c = &j->run->cells[i];
        struct vec part = vec_slice(j->to, i * m->cluster_bytes, m->cluster_bytes);
        uint8_t *plain = j->scratch;
        size_t piece = 0;
        if (!plain)
            plain = vec_first(&part, &piece);
        TRY(m->format->unpack(m, c, j->packed + j->run->at[i], c->packed_bytes, plain));
        if (j->scratch)
            vec_from_buf(&part, plain);
    }
    return 0;
}

int co_map_packed_run(struct map *m, uint64_t cluster, uint64_t most, struct map_packed_run *r)
{
    struct meta_page *page;
    uint64_t covered;
    TRY(co_map_page(m, cluster, &page, &covered));
    most = MIN(MIN(most, covered), map_pack_clusters(m));
    r->map = m;
    r->count = 0;
    int rc = 0;
    while (page && rc == 0 && r->count < most) {
        rc = map_entry_get(m, page, cluster + r->count, &r->cells[r->count]);
        if (rc < 0 || r->cells[r->count].state != MAP_PACKED)
            break;
        r->count++;
    }
    if (page)
        meta_put(m->meta, page);
    return r->count ? 0 : rc; /* what is wrong with the next one is said when it is its turn */
}

int co_map_read_packed_run(struct map_packed_run *r, const struct vec *to)
{
    struct map *m = r->map;
    int64_t bytes = lay_out(m, r);
    size_t piece;
    TRY((int)MIN(bytes, 0));
    vec_first(to, &piece);
    struct unpack_run j = {.run = r, .to = to};
    uint8_t *packed = buf_get((size_t)bytes);
    int rc = packed ? 0 : -ENOMEM;
    if (rc == 0 && piece < to->bytes && !(j.scratch = buf_get(m->cluster_bytes)))
        rc = -ENOMEM;
    if (rc == 0)
        rc = co_load_run(m, r, packed);
    j.packed = packed;
    if (rc == 0)
        rc = co_offload(run_unpack_run, &j);
    buf_put(j.scratch, m->cluster_bytes);
    buf_put(packed, (size_t)bytes);
    return rc;
}

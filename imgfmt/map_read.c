/* SPDX-License-Identifier: BSD-3-Clause */
/* map_read.c - reading through the map: run by run, several in flight where they do not lie
 * together.
 *
 * No lock is taken: space that a reader has seen is not reused before the reader has ended (M5).
 * Chains of backing devices are walked by a loop, so a deep one needs no deep stack. */
#include "imgfmt/map_private.h"

#define READS_IN_FLIGHT 8

int co_map_read_backing(struct map *m, uint64_t offset, const struct vec *to)
{
    for (uint64_t done = 0; done < to->bytes;) {
        struct blk_place p = {
            .child = m->backing, .offset = offset + done, .bytes = to->bytes - done};
        TRY(co_blk_find_behind(m->dev, &p));
        struct vec part = vec_slice(to, done, p.bytes);
        if (p.child)
            TRY(co_blk_read(p.child, p.offset, &part));
        else
            vec_fill(&part, 0);
        done += p.bytes;
    }
    return 0;
}

/* Clusters may reach past the end of the file, or lie there: never written, zero. */
static int co_read_data(struct map *m, uint64_t offset, const struct vec *to)
{
    uint64_t there = offset < m->data->size ? m->data->size - offset : 0;
    if (likely(to->bytes <= there))
        return co_blk_read(m->data, offset, to);
    struct vec rest = vec_slice(to, there, to->bytes - there);
    vec_fill(&rest, 0);
    if (there == 0)
        return 0;
    struct vec part = vec_slice(to, 0, there);
    return co_blk_read(m->data, offset, &part);
}

int co_map_partial(struct map *m, uint64_t cluster, const struct map_cell *cell, uint64_t at,
                   uint64_t *bytes, enum map_state *state)
{
    if (m->shape.piece_bits) {
        *bytes = map_piece_run(m, cell, at, *bytes, state);
        return 0;
    }
    uint32_t most = (uint32_t)*bytes, reaches = most;
    TRY(m->format->co_subrange(m, cell, cluster, (uint32_t)at, &reaches, state));
    *bytes = MIN(reaches, most);
    assert(*bytes && (*state == MAP_DATA || *state == MAP_ZERO || *state == MAP_HOLE));
    return 0;
}

static int co_read_partial(struct map *m, uint64_t cluster, const struct map_cell *cell,
                           uint32_t at, const struct vec *to)
{
    for (uint64_t done = 0; done < to->bytes;) {
        enum map_state state;
        uint64_t bytes = to->bytes - done;
        TRY(co_map_partial(m, cluster, cell, at + done, &bytes, &state));
        struct vec part = vec_slice(to, done, bytes);
        struct map_cell piece = {.state = state, .offset = cell->offset};
        TRY(co_map_read_cell(m, cluster, &piece, at + done, &part));
        done += bytes;
    }
    return 0;
}

int co_map_read_cell(struct map *m, uint64_t cluster, const struct map_cell *cell, uint32_t at,
                     const struct vec *to)
{
    switch (cell->state) {
    case MAP_HOLE:
        if (m->backing_missing && !(m->dev->open_flags & BLK_OPEN_CHECK))
            return -ENOTSUP; /* check reads what lies here, and nothing else */
        if (m->backing)
            return co_map_read_backing(m, (cluster << m->shape.cluster_bits) + at, to);
        break;
    case MAP_ZERO:
        break;
    case MAP_DATA:
        return co_read_data(m, cell->offset + at, to);
    case MAP_PARTIAL:
        return co_read_partial(m, cluster, cell, at, to);
    case MAP_PACKED:
        return co_map_read_packed(m, cell, at, to);
    }
    vec_fill(to, 0);
    return 0;
}

/* --- several at once --- */

struct read_job {
    struct map *map;
    uint64_t offset;
    struct map_cell cell;
    struct map_packed_run *packed; /* several clusters; NULL: one, or not compressed */
    struct vec to;
    bool busy;
};

static int co_read_job(void *arg)
{
    struct read_job *j = arg;
    int rc;
    if (j->packed)
        rc = co_map_read_packed_run(j->packed, &j->to);
    else
        rc = co_map_read_cell(j->map, j->offset >> j->map->shape.cluster_bits, &j->cell,
                              j->offset & (j->map->cluster_bytes - 1), &j->to);
    buf_put(j->packed, sizeof(*j->packed));
    j->busy = false;
    return rc;
}

/* Whole compressed clusters from @offset on go together. *out NULL: there are not two. */
static int co_find_packed(struct map *m, uint64_t offset, uint64_t bytes, struct map_run *run,
                          struct map_packed_run **out)
{
    uint64_t whole = bytes >> m->shape.cluster_bits;
    *out = NULL;
    if (run->cell.state != MAP_PACKED || offset & (m->cluster_bytes - 1) || whole < 2 ||
        map_pack_clusters(m) < 2)
        return 0;
    struct map_packed_run *r = buf_get(sizeof(*r));
    if (!r)
        return -ENOMEM;
    int rc = co_map_packed_run(m, offset >> m->shape.cluster_bits, whole, r);
    if (rc < 0 || r->count < 2) {
        buf_put(r, sizeof(*r));
        return rc;
    }
    run->bytes = r->count * m->cluster_bytes;
    *out = r;
    return 0;
}

static int co_read_rest(struct map *m, uint64_t offset, const struct vec *to, struct map_run run)
{
    struct read_job jobs[READS_IN_FLIGHT] = {0};
    struct co_group g;
    co_group_init(&g, READS_IN_FLIGHT);
    int rc = 0;
    for (uint64_t done = 0; done < to->bytes && !co_group_failed(&g); done += run.bytes) {
        if (done > 0)
            rc = co_map_run(m, offset + done, to->bytes - done, &run);
        if (rc < 0)
            break;
        while (g.running >= READS_IN_FLIGHT)
            co_queue_wait(&g.room);
        struct map_packed_run *packed;
        rc = co_find_packed(m, offset + done, to->bytes - done, &run, &packed);
        if (rc < 0)
            break;
        struct read_job *j = jobs;
        while (j->busy)
            j++;
        *j = (struct read_job){m,   offset + done, run.cell, packed, vec_slice(to, done, run.bytes),
                               true};
        co_group_start(&g, co_read_job, j);
    }
    int group_rc = co_group_wait(&g);
    return rc < 0 ? rc : group_rc;
}

int co_map_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct map *m = dev->state;
    struct map_run run;
    if (to->bytes == 0)
        return 0;
    TRY(co_map_run(m, offset, to->bytes, &run));
    if (run.bytes < to->bytes)
        return co_read_rest(m, offset, to, run);
    return co_map_read_cell(m, offset >> m->shape.cluster_bits, &run.cell,
                            offset & (m->cluster_bytes - 1), to);
}

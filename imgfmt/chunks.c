/* SPDX-License-Identifier: BSD-3-Clause */
/* chunks.c - reading a disk that is stored as compressed chunks.
 *
 * A whole chunk is inflated straight into the reader's memory; a part goes through the pieces that
 * are kept, so that small reads inflate once. */
#include "imgfmt/chunks.h"

#define IN_FLIGHT 8

struct unpack_job {
    struct chunks *chunks;
    const struct chunk *chunk;
    const void *packed;
    void *plain;
};

static int run_unpack(void *arg)
{
    struct unpack_job *j = arg;
    return j->chunks->unpack(j->chunk, j->packed, j->plain);
}

static int co_unpack(struct chunks *c, const struct chunk *chunk, void *plain)
{
    if (chunk->packed_bytes == 0 || chunk->packed_bytes > CHUNK_MOST || chunk->bytes > CHUNK_MOST ||
        !range_fits(chunk->packed_offset, chunk->packed_bytes, c->file->size))
        return -EIO;
    uint8_t *packed = buf_get(chunk->packed_bytes);
    if (!packed)
        return -ENOMEM;
    int rc = co_blk_read_buf(c->file, chunk->packed_offset, packed, chunk->packed_bytes);
    if (rc == 0) {
        struct unpack_job j = {c, chunk, packed, plain};
        rc = co_offload(run_unpack, &j);
    }
    buf_put(packed, chunk->packed_bytes);
    return rc;
}

static int co_read_packed(struct chunks *c, const struct chunk *chunk, uint64_t at,
                          const struct vec *to)
{
    struct kept *k = kept_find(&c->kept, chunk->offset);
    size_t piece;
    if (!k && to->bytes == chunk->bytes) {
        uint8_t *whole = vec_first(to, &piece);
        if (piece == chunk->bytes)
            return co_unpack(c, chunk, whole);
    }
    if (!k) {
        k = kept_new(&c->kept, chunk->offset, chunk->bytes);
        if (!k)
            return -ENOMEM;
        kept_filled(&c->kept, k, co_unpack(c, chunk, k->data));
    }
    int rc = co_kept_wait(k);
    if (rc == 0)
        vec_from_buf(to, k->data + at);
    kept_put(&c->kept, k);
    return rc;
}

static int co_read_one(struct chunks *c, const struct chunk *chunk, uint64_t at,
                       const struct vec *to)
{
    switch (chunk->kind) {
    case CHUNK_RAW:
        if (!range_fits(chunk->packed_offset, chunk->bytes, c->file->size))
            return -EIO;
        return co_blk_read(c->file, chunk->packed_offset + at, to);
    case CHUNK_PACKED:
        return co_read_packed(c, chunk, at, to);
    case CHUNK_ZERO:
        break;
    }
    vec_fill(to, 0);
    return 0;
}

struct read_job {
    struct chunks *chunks;
    struct chunk chunk;
    uint64_t at;
    struct vec to;
    bool busy;
};

static int co_read_job(void *arg)
{
    struct read_job *j = arg;
    int rc = co_read_one(j->chunks, &j->chunk, j->at, &j->to);
    j->busy = false;
    return rc;
}

int co_chunks_read(struct chunks *c, uint64_t offset, const struct vec *to)
{
    struct read_job jobs[IN_FLIGHT] = {0};
    struct co_group g;
    co_group_init(&g, IN_FLIGHT);
    int rc = 0;
    for (uint64_t done = 0, n; done < to->bytes && !co_group_failed(&g); done += n) {
        struct chunk chunk;
        rc = c->co_find(c, offset + done, &chunk);
        if (rc < 0)
            break;
        uint64_t at = offset + done - chunk.offset;
        assert(at < chunk.bytes);
        n = MIN(to->bytes - done, chunk.bytes - at);
        while (g.running >= IN_FLIGHT)
            co_queue_wait(&g.room);
        struct read_job *j = jobs;
        while (j->busy)
            j++;
        *j = (struct read_job){c, chunk, at, vec_slice(to, done, n), true};
        co_group_start(&g, co_read_job, j);
    }
    int group_rc = co_group_wait(&g);
    return rc < 0 ? rc : group_rc;
}

int co_chunks_map(struct chunks *c, uint64_t offset, uint64_t bytes, struct blk_extent *out)
{
    struct chunk chunk;
    TRY(c->co_find(c, offset, &chunk));
    uint64_t at = offset - chunk.offset;
    *out = (struct blk_extent){.bytes = MIN(bytes, chunk.bytes - at),
                               .flags = BLK_EXT_ALLOCATED | BLK_EXT_DATA};
    if (chunk.kind == CHUNK_ZERO)
        out->flags = BLK_EXT_ALLOCATED | BLK_EXT_ZERO;
    else if (chunk.kind == CHUNK_PACKED)
        out->flags |= BLK_EXT_COMPRESSED;
    if (chunk.kind == CHUNK_RAW) {
        out->flags |= BLK_EXT_PLACED;
        out->child = c->file;
        out->child_offset = chunk.packed_offset + at;
    }
    return 0;
}

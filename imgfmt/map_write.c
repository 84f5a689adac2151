/* SPDX-License-Identifier: BSD-3-Clause */
/* map_write.c - the one write path (map.h): lock, locate, place, fill, order, commit, show.
 *
 * Writes in place hold their clusters shared, so that many go on at once in one cluster while what
 * would take it away waits; allocating holds them alone. Neighbouring new clusters are placed,
 * written and committed together.
 *
 * Where clusters are kept in pieces, only the pieces that the caller's bytes touch are filled; what
 * else was in an old cluster that is left (shared, compressed) is copied as far as it was there. */
#include "imgfmt/map_private.h"

#define WRITE_PIECES 16

/* New clusters on their way: nothing of this is shown before commit. */
struct fresh_run {
    struct map *map;
    struct meta_page *page;
    struct map_update u[MAP_BATCH];
    uint64_t count;
    uint64_t at, end; /* virtual: what the source covers */
    uint64_t offset;  /* of the first cluster */
    bool reused;      /* the space may hold old bytes */
    bool own;         /* it is the space that a zero cell kept */
    bool taken_back;  /* it is the space that the cluster let go of a moment ago */
};

static uint64_t first_byte(const struct fresh_run *r)
{
    return r->u[0].cluster << r->map->shape.cluster_bits;
}

static uint64_t end_byte(const struct fresh_run *r)
{
    return first_byte(r) + r->count * r->map->cluster_bytes;
}

/* True if nothing but zeroes is seen there. */
static bool is_blank(const struct map *m, uint64_t cluster, const struct map_cell *cell)
{
    return cell->state == MAP_ZERO || (cell->state == MAP_HOLE && !map_hides(m, cluster));
}

static bool reads_zero(const struct fresh_run *r)
{
    return !r->reused && r->map->data->limits.fresh_reads_zero;
}

/* --- 2, 3: which clusters, and where to --- */

/* Neighbours that need new space, from @r->at on; at most what one page and one batch hold. */
static int gather(struct fresh_run *r, uint64_t covered)
{
    struct map *m = r->map;
    uint64_t cluster = r->at >> m->shape.cluster_bits;
    uint64_t last = (r->end - 1) >> m->shape.cluster_bits;
    uint64_t most = MIN(MIN(covered, last - cluster + 1), MAP_BATCH);
    for (r->count = 0; r->count < most; r->count++) {
        struct map_update *u = &r->u[r->count];
        u->cluster = cluster + r->count;
        TRY(map_entry_get(m, r->page, u->cluster, &u->old));
        /* Which sectors of it count, a format without pieces says elsewhere: it gets a new place.
         */
        bool moves = u->old.state == MAP_PARTIAL && !m->shape.piece_bits;
        bool kept = map_owns_space(&u->old) && u->old.state != MAP_DATA && !moves;
        if (r->count > 0 && (kept || map_in_place(&u->old)))
            break;
        r->own |= kept;
        if (kept) {
            r->count = 1;
            break;
        }
    }
    assert(r->count > 0 && !map_in_place(&r->u[0].old));
    return 0;
}

/* What is on its way to be released cannot be waited for inside a request, for which the release
 * waits. But a cluster may have back what it gave: whoever still looks at it looked for this
 * cluster. */
static bool take_back(struct fresh_run *r)
{
    if (!map_take_back(r->map, r->u[0].cluster, &r->offset))
        return false;
    r->taken_back = r->reused = true;
    r->count = 1;
    return true;
}

static int co_place_new(struct fresh_run *r)
{
    struct map *m = r->map;
    uint64_t given = r->count;
    if (m->shape.tight) {
        if (take_back(r))
            return 0;
        for (given = 1; given < r->count && !map_may_take_back(m, r->u[given].cluster);)
            given++;
        r->count = given;
    }
    int rc;
    while ((rc = m->format->co_place(m, &given, &r->offset, &r->reused)) == -ENOSPC) {
        if (take_back(r))
            return 0;
        if (!co_map_await_release(m))
            break;
    }
    TRY(rc);
    assert(given > 0 && given <= r->count);
    r->count = given;
    return 0;
}

/* The pieces of this cluster that the caller's bytes touch. */
static uint32_t touched(const struct fresh_run *r, const struct map_update *u)
{
    uint64_t begin = u->cluster << r->map->shape.cluster_bits;
    uint64_t from = MAX(r->at, begin), to = MIN(r->end, begin + r->map->cluster_bytes);

    return map_pieces_of(r->map, from - begin, to - begin);
}

/* Of a cluster in pieces: those touched are here now, the others as before. */
static void set_pieces(const struct fresh_run *r, struct map_update *u)
{
    uint32_t now = touched(r, u);

    map_set_pieces(&u->now, map_pieces_here(&u->old) | now, map_pieces_zero(&u->old) & ~now);
}

static int co_place_run(struct fresh_run *r)
{
    struct map *m = r->map;
    if (m->shape.fixed_places) {
        r->offset = first_byte(r);
        r->reused = true; /* or it is somebody's disk already */
    } else if (r->own) {
        r->offset = r->u[0].old.offset;
        r->reused = true;
    } else {
        TRY(co_place_new(r));
    }
    r->end = MIN(r->end, end_byte(r));
    for (uint64_t i = 0; i < r->count; i++) {
        r->u[i].now =
            (struct map_cell){.state = MAP_DATA, .offset = r->offset + i * m->cluster_bytes};
        if (m->shape.piece_bits)
            set_pieces(r, &r->u[i]);
    }
    return 0;
}

static void unplace_run(struct fresh_run *r)
{
    if (r->taken_back) {
        map_give_back(r->map, r->u[0].cluster, &r->u[0].now);
        return;
    }
    if (r->own || r->map->shape.fixed_places)
        return;
    for (uint64_t i = 0; i < r->count; i++)
        map_unplace_one(r->map, &r->u[i].now);
}

/* --- 4: the bytes --- */

/* What lies around the caller's bytes inside the first or last cluster. */
struct edge {
    uint64_t at, bytes; /* virtual */
    uint8_t *buffer;    /* NULL: zeroes, or nothing */
    bool zero;          /* must be written as zeroes */
};

/* Which bytes of one cluster are written: the caller's with what must stand around them. */
struct reach {
    uint64_t from, to; /* virtual */
};

static struct reach reach_of(const struct fresh_run *r, const struct map_update *u)
{
    const struct map *m = r->map;
    uint64_t begin = u->cluster << m->shape.cluster_bits;
    struct reach all = {begin, begin + m->cluster_bytes};

    if (m->shape.fixed_places) /* the data device need not be longer than the disk */
        all.to = MIN(all.to, m->shape.size);
    if (!m->shape.piece_bits)
        return all;
    uint32_t bytes_here = map_pieces_here(&u->old), now = touched(r, u);
    uint32_t write = r->own ? now : now | bytes_here;
    unsigned low = (unsigned)__builtin_ctz(write), high = 31 - (unsigned)__builtin_clz(write);
    struct reach some = {begin + ((uint64_t)low << m->shape.piece_bits),
                         begin + ((uint64_t)(high + 1) << m->shape.piece_bits)};
    some.to = MIN(some.to, all.to);
    if (r->own && bytes_here >> low & 1) /* what stands there already, stays */
        some.from = MAX(some.from, r->at);
    if (r->own && bytes_here >> high & 1)
        some.to = MIN(some.to, r->end);
    return some;
}

/* What is read around the caller's bytes: pieces that show what is behind still will, so that is
 * not fetched. */
static struct map_cell edge_cell(const struct fresh_run *r, const struct map_update *u)
{
    struct map_cell cell = u->old;

    if (r->map->shape.piece_bits && cell.state == MAP_PARTIAL) {
        uint32_t here = map_pieces_here(&cell), behind = ~here & ~touched(r, u);
        map_set_pieces(&cell, here, map_pieces_zero(&cell) | behind);
    }
    return cell;
}

static int co_fill_edge(struct fresh_run *r, const struct map_update *u, struct edge *e)
{
    struct map *m = r->map;
    if (e->bytes == 0)
        return 0;
    e->zero = !reads_zero(r);
    if (is_blank(m, u->cluster, &u->old))
        return 0;
    e->buffer = buf_get(e->bytes);
    if (!e->buffer)
        return -ENOMEM;
    struct vec to = VEC_BUF(e->buffer, e->bytes);
    struct map_cell cell = edge_cell(r, u);
    blk_step(m->file, "cow_read");
    TRY(co_map_read_cell(m, u->cluster, &cell, e->at & (m->cluster_bytes - 1), &to));
    if (mem_is_zero(e->buffer, e->bytes)) {
        buf_put(e->buffer, e->bytes);
        e->buffer = NULL;
    } else {
        e->zero = false;
    }
    return 0;
}

static int co_write_edge(struct fresh_run *r, const struct edge *e)
{
    uint64_t to = r->offset + (e->at - first_byte(r));
    if (e->buffer) {
        blk_step(r->map->file, "cow_write");
        return co_blk_write_buf(r->map->data, to, e->buffer, e->bytes, 0);
    }
    return e->zero && e->bytes ? co_blk_write_zeroes(r->map->data, to, e->bytes, 0) : 0;
}

/* Edges and the caller's bytes in one write, if they are few pieces; false: too many. */
static bool co_write_joined(struct fresh_run *r, struct edge *head, struct edge *tail,
                            const struct vec *data, int *rc)
{
    struct iovec pieces[WRITE_PIECES];
    unsigned n = 0, data_pieces;
    uint64_t at = head->buffer ? head->at : r->at;
    if (head->buffer)
        pieces[n++] = (struct iovec){head->buffer, head->bytes};
    if (vec_export(data, pieces + n, WRITE_PIECES - 2, &data_pieces) < data->bytes)
        return false;
    n += data_pieces;
    if (tail->buffer)
        pieces[n++] = (struct iovec){tail->buffer, tail->bytes};
    struct vec all = {.iov = pieces,
                      .bytes = data->bytes + (head->buffer ? head->bytes : 0) +
                               (tail->buffer ? tail->bytes : 0)};
    *rc = co_blk_write(r->map->data, r->offset + (at - first_byte(r)), &all, 0);
    return true;
}

static int co_write_source(struct fresh_run *r, struct edge *head, struct edge *tail,
                           const struct map_source *src)
{
    struct map *m = r->map;
    uint64_t to = r->offset + (r->at - first_byte(r)), bytes = r->end - r->at;
    int rc;
    if (src->vec) {
        struct vec data = vec_slice(src->vec, r->at - src->offset, bytes);
        if (co_write_joined(r, head, tail, &data, &rc)) {
            TRY(rc);
            buf_put(take(head->buffer), head->bytes);
            buf_put(take(tail->buffer), tail->bytes);
        } else {
            TRY(co_blk_write(m->data, to, &data, 0));
        }
    } else if (src->place) {
        struct blk_place from = *src->place;
        from.offset += r->at - src->offset;
        from.bytes = bytes;
        TRY(co_blk_copy_from(m->data, to, &from));
    } else if (!reads_zero(r)) {
        TRY(co_blk_write_zeroes(m->data, to, bytes, 0));
    }
    TRY(co_write_edge(r, head));
    return co_write_edge(r, tail);
}

static int co_write_bytes(struct fresh_run *r, const struct map_source *src)
{
    struct reach first = reach_of(r, &r->u[0]), last = reach_of(r, &r->u[r->count - 1]);
    struct edge head = {.at = first.from, .bytes = r->at - first.from};
    struct edge tail = {.at = r->end, .bytes = last.to - r->end};
    int rc = co_fill_edge(r, &r->u[0], &head);
    if (rc == 0)
        rc = co_fill_edge(r, &r->u[r->count - 1], &tail);
    if (rc == 0)
        rc = co_write_source(r, &head, &tail, src);
    if (head.buffer)
        buf_put(head.buffer, head.bytes);
    if (tail.buffer)
        buf_put(tail.buffer, tail.bytes);
    return rc;
}

/* --- 5, 6, 7 --- */

/* M1: does anything of what was there before, or of what the space held, need hiding? */
static bool needs_barrier(const struct fresh_run *r)
{
    if (!reads_zero(r))
        return true;
    for (uint64_t i = 0; i < r->count; i++)
        if (!is_blank(r->map, r->u[i].cluster, &r->u[i].old))
            return true;
    return false;
}

static int co_allocate_on_page(struct fresh_run *r, uint64_t covered, const struct map_source *src)
{
    struct map *m = r->map;
    TRY(gather(r, covered));
    TRY(co_place_run(r));
    int rc = co_write_bytes(r, src);
    if (rc == 0) {
        if (needs_barrier(r))
            meta_data_before(m->meta, m->format->table_rank);
        rc = co_map_change(m, r->page, r->u, r->count, false);
    }
    if (rc < 0)
        unplace_run(r);
    return rc;
}

int co_map_allocate(struct map *m, uint64_t at, uint64_t end, const struct map_source *src,
                    uint64_t *done)
{
    struct fresh_run *r = buf_get(sizeof(*r)); /* too large for a coroutine's stack */
    if (!r)
        return -ENOMEM;
    r->map = m;
    r->page = NULL;
    r->at = at;
    r->end = end;
    r->own = r->taken_back = r->reused = false;
    uint64_t covered;
    int rc = meta_error(m->meta);
    if (rc == 0)
        rc = co_map_page_to_write(m, at >> m->shape.cluster_bits, &r->page, &covered);
    if (rc == 0) {
        rc = co_allocate_on_page(r, covered, src);
        meta_put(m->meta, r->page);
    }
    *done = r->end - r->at;
    buf_put(r, sizeof(*r));
    return rc;
}

/* --- the range --- */

static int co_write_in_place(struct map *m, const struct map_run *run, uint64_t at, uint64_t bytes,
                             const struct map_source *src, unsigned flags)
{
    if (src->vec) {
        struct vec data = vec_slice(src->vec, at - src->offset, bytes);
        return co_blk_write(m->data, run->offset, &data, flags);
    }
    struct blk_place from = *src->place;
    from.offset += at - src->offset;
    from.bytes = bytes;
    return co_blk_copy_from(m->data, run->offset, &from);
}

/* True if the bytes from @at on lie where they may be overwritten, @run->bytes of them. */
static bool goes_in_place(const struct map *m, uint64_t at, struct map_run *run)
{
    enum map_state state;

    if (!m->shape.piece_bits || run->cell.state != MAP_PARTIAL)
        return map_in_place(&run->cell);
    run->bytes = map_piece_run(m, &run->cell, at & (m->cluster_bytes - 1), run->bytes, &state);
    return state == MAP_DATA && !run->cell.shared;
}

/* Writes [offset, end). *flush: what makes it durable is not all with the bytes: FUA went down with
 * them only where nothing else of the image was waiting to be written. */
static int co_write_range(struct map *m, uint64_t offset, uint64_t end,
                          const struct map_source *src, unsigned flags, bool *flush)
{
    struct co_range_hold hold;
    uint64_t mask = m->cluster_bytes - 1;
    uint64_t lock_end = (end + mask) & ~mask;
    bool shared = true;
    int rc = 0;
    co_range_lock(&m->priv->writers, &hold, offset & ~mask, lock_end - (offset & ~mask), true);
    for (uint64_t at = offset, done; at < end && rc == 0; at += done) {
        struct map_run run;
        done = 0;
        rc = co_map_run(m, at, end - at, &run);
        if (rc < 0)
            break;
        if (goes_in_place(m, at, &run)) {
            *flush |= meta_is_dirty(m->meta);
            done = run.bytes;
            rc = co_write_in_place(m, &run, at, done, src, *flush ? 0 : flags);
        } else if (shared) { /* alone from here to the end; what was seen may have changed */
            shared = false;
            co_range_unlock(&m->priv->writers, &hold);
            co_range_lock(&m->priv->writers, &hold, at & ~mask, lock_end - (at & ~mask), false);
        } else {
            *flush = true;
            rc = co_map_allocate(m, at, end, src, &done);
        }
    }
    co_range_unlock(&m->priv->writers, &hold);
    return rc;
}

int co_map_write(struct blk_device *dev, uint64_t offset, const struct vec *from, unsigned flags)
{
    struct map *m = dev->state;
    TRY(co_map_will_write(m));
    bool flush = flags & BLK_COMPRESSED;
    if (flush) {
        TRY(co_map_write_packed(m, offset, from));
    } else {
        struct map_source src = {.vec = from, .offset = offset};
        TRY(co_write_range(m, offset, offset + from->bytes, &src, flags & BLK_FUA, &flush));
    }
    return flags & BLK_FUA && flush ? co_map_flush(dev) : 0;
}

int co_map_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct map *m = dev->state;
    TRY(co_map_will_write(m));
    bool flush = false; /* nobody asks */
    struct map_source src = {.place = from, .offset = offset};
    return co_write_range(m, offset, offset + from->bytes, &src, 0, &flush);
}

/* --- moving --- */

/* A run of @buffer that is all zeroes or all not, in units of a block of the host's file. */
static uint64_t like_the_first(const uint8_t *buffer, uint64_t bytes, bool *zero)
{
    uint64_t at = MIN(4 * KiB, bytes);
    *zero = mem_is_zero(buffer, at);
    while (at < bytes && mem_is_zero(buffer + at, MIN(4 * KiB, bytes - at)) == *zero)
        at += MIN(4 * KiB, bytes - at);
    return at;
}

/* Zeroes take no space where they arrive: what had been punched out stays so. */
static int co_put_moved(struct map *m, uint64_t to, uint8_t *buffer, uint64_t bytes)
{
    uint64_t n;
    bool zero;
    for (uint64_t at = 0; at < bytes; at += n) {
        n = like_the_first(buffer + at, bytes - at, &zero);
        TRY(zero ? co_blk_write_zeroes(m->data, to + at, n, BLK_MAY_UNMAP)
                 : co_blk_write_buf(m->data, to + at, buffer + at, n, 0));
    }
    return 0;
}

/* The data of one cluster, and what leads it. */
static int co_copy_cluster(struct map *m, uint64_t from, uint64_t to)
{
    uint64_t bytes = m->cluster_bytes + m->shape.lead_bytes;
    from -= m->shape.lead_bytes;
    to -= m->shape.lead_bytes;
    uint64_t step = MIN(bytes, 1 * MiB);
    uint8_t *buffer = buf_get(step);
    int rc = buffer ? 0 : -ENOMEM;
    for (uint64_t done = 0; done < bytes && rc == 0; done += step) {
        uint64_t n = MIN(step, bytes - done);
        struct vec v = VEC_BUF(buffer, n);
        struct map_cell there = {.state = MAP_DATA, .offset = from + done};
        rc = co_map_read_cell(m, 0, &there, 0, &v);
        if (rc == 0)
            rc = co_put_moved(m, to + done, buffer, n);
    }
    if (buffer)
        buf_put(buffer, step);
    return rc;
}

static int co_move_locked(struct map *m, struct meta_page *page, struct map_update *u)
{
    TRY(map_entry_get(m, page, u->cluster, &u->old));
    /* Of a partly filled one, which sectors count stays said elsewhere. */
    bool movable = u->old.state == MAP_DATA || u->old.state == MAP_PARTIAL;
    if (!movable || u->old.shared || u->old.state != u->now.state)
        return -EINVAL;
    TRY(co_copy_cluster(m, u->old.offset, u->now.offset));
    meta_data_before(m->meta, m->format->table_rank);
    return co_map_change(m, page, u, 1, true);
}

int co_map_move(struct map *m, uint64_t cluster, const struct map_cell *to)
{
    struct map_update u = {.cluster = cluster, .now = *to};
    struct co_range_hold hold;
    struct meta_page *page;
    uint64_t covered;
    co_range_lock(&m->priv->writers, &hold, cluster << m->shape.cluster_bits, m->cluster_bytes,
                  false);
    int rc = co_map_page_to_write(m, cluster, &page, &covered);
    if (rc == 0) {
        rc = co_move_locked(m, page, &u);
        meta_put(m->meta, page);
    }
    co_range_unlock(&m->priv->writers, &hold);
    return rc;
}

static int co_put(struct map *m, uint64_t cluster, uint64_t from, const struct map_cell *now)
{
    /* Said to have been a hole, so nothing is let go of. */
    struct map_update u = {.cluster = cluster, .now = *now};
    struct meta_page *page;
    uint64_t covered;
    if (from)
        TRY(co_copy_cluster(m, from, now->offset));
    TRY(co_map_page_to_write(m, cluster, &page, &covered));
    if (from)
        meta_data_before(m->meta, m->format->table_rank);
    int rc = co_map_change(m, page, &u, 1, false);
    meta_put(m->meta, page);
    return rc;
}

int co_map_put(struct map *m, uint64_t cluster, const struct map_cell *now)
{
    return co_put(m, cluster, 0, now);
}

int co_map_put_copy(struct map *m, uint64_t cluster, uint64_t from, const struct map_cell *to)
{
    return co_put(m, cluster, from, to);
}

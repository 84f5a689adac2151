/* SPDX-License-Identifier: BSD-3-Clause */
/* map_release.c - space that entries let go of: queued, and given back when the change is durable
 * and nobody reads it any more (M5).
 *
 * What a cluster let go of but nobody else can have (shape.fixed_places), or keeps
 * (shape.discard_keeps), is only punched. The cluster may have been written again meanwhile, to the
 * same place: so it is looked at once more, and held while it is punched. */
#include "imgfmt/map_private.h"

struct map_release *map_release_room(struct map *m, size_t count)
{
    struct map_private *p = m->priv;
    struct map_release *r = p->open_release;
    if (r && !r->deferred.taken && r->count + count <= MAP_RELEASE_CELLS)
        return r;
    r = mem_alloc(sizeof(*r));
    if (!r)
        return NULL;
    memset(r, 0, offsetof(struct map_release, items));
    r->map = m;
    r->low = UINT64_MAX;
    r->next = p->releases;
    if (r->next)
        r->next->prev = r;
    p->releases = r;
    p->open_release = r;
    return r;
}

void map_release_free(struct map_release *r)
{
    struct map_private *p = r->map->priv;
    if (p->open_release == r)
        p->open_release = NULL;
    if (r->prev)
        r->prev->next = r->next;
    else
        p->releases = r->next;
    if (r->next)
        r->next->prev = r->prev;
    mem_free(r);
}

static bool follows(const struct map *m, const struct map_released *a, uint64_t count,
                    const struct map_released *b)
{
    return a->punch == b->punch && a->stays == b->stays &&
           (!a->stays || b->cluster == a->cluster + count) && a->cell.state != MAP_HOLE &&
           b->cell.state != MAP_HOLE && !a->cell.shared && !b->cell.shared &&
           a->cell.state != MAP_PACKED && b->cell.state != MAP_PACKED &&
           b->cell.offset == a->cell.offset + count * m->cluster_bytes;
}

/* How many items from the @i-th on go together. */
static unsigned run_of(const struct map_release *r, unsigned i)
{
    const struct map_released *first = &r->items[i];
    unsigned n = 1;
    while (i + n < r->count && follows(r->map, first, n, first + n))
        n++;
    return n;
}

static bool is_only_punched(const struct map *m, const struct map_released *r)
{
    return r->stays || m->shape.fixed_places;
}

/* --- punched, not released --- */

/* True if nothing of the cluster lies where @r says. */
static int co_is_empty(struct map *m, const struct map_released *r, bool *empty)
{
    struct map_cell cell;

    *empty = m->shape.fixed_places;
    if (r->cluster >= div_up(m->shape.size, m->cluster_bytes))
        return 0;
    TRY(co_map_cell(m, r->cluster, &cell));
    *empty =
        map_pieces_here(&cell) == 0 && (m->shape.fixed_places || cell.offset == r->cell.offset);
    return 0;
}

static void co_punch_held(struct map *m, const struct map_released *r, uint64_t count)
{
    for (uint64_t i = 0, n; i < count; i += n) {
        uint64_t at = r[i].cell.offset, end;
        bool empty = false;
        for (n = 0; i + n < count; n++)
            if (co_is_empty(m, &r[i + n], &empty) < 0 || !empty)
                break;
        end = MIN(at + n * m->cluster_bytes, m->data->size);
        if (at < end)
            (void)!co_blk_discard(m->data, at, end - at); /* a leak of the host's at worst */
        n += n == 0;
    }
}

static void co_punch(struct map *m, const struct map_released *r, uint64_t count)
{
    struct co_range_hold hold;

    co_range_lock(&m->priv->writers, &hold, r->cluster << m->shape.cluster_bits,
                  count * m->cluster_bytes, false);
    co_punch_held(m, r, count);
    co_range_unlock(&m->priv->writers, &hold);
}

/* --- released --- */

/* M5: what pointed at these is durably gone, and after the grace period nobody reads them. */
static void co_release_cells(struct meta_deferred *d)
{
    struct map_release *r = container_of(d, struct map_release, deferred);
    struct map *m = r->map;
    co_blk_quiesce(m->dev);
    m->priv->releasing++;
    for (unsigned i = 0, n; i < r->count; i += n) {
        const struct map_released *first = &r->items[i];
        n = run_of(r, i);
        r->done = i + n;
        if (first->cell.state == MAP_HOLE || is_only_punched(m, first))
            continue;
        if (first->cell.state == MAP_PACKED)
            map_forget_unpacked(m, first->cell.offset);
        m->format->co_release(m, &first->cell, n, first->punch);
    }
    m->priv->releasing--;
    co_queue_wake_all(&m->priv->released);
    for (unsigned i = 0, n; i < r->count; i += n) { /* waits for writers, who wait for releases */
        n = run_of(r, i);
        if (is_only_punched(m, &r->items[i]) && r->items[i].punch)
            co_punch(m, &r->items[i], n);
    }
    map_release_free(r);
}

bool co_map_await_release(struct map *m)
{
    if (m->priv->releasing == 0)
        return false;
    co_queue_wait(&m->priv->released);
    return true;
}

/* True if the update lets go of space. */
static bool lets_go(const struct map_update *u)
{
    return map_has_space(&u->old) && !(map_has_space(&u->now) && u->now.offset == u->old.offset);
}

/* True if the update keeps the space, and nothing lies in it any more. */
static bool only_keeps(const struct map *m, const struct map_update *u, bool punch)
{
    return punch && m->shape.discard_keeps && map_pieces_here(&u->old) &&
           u->now.state == MAP_ZERO && map_has_space(&u->now);
}

bool map_lets_go(const struct map *m, const struct map_update *u, bool punch)
{
    return lets_go(u) || only_keeps(m, u, punch);
}

void map_release_old(struct map *m, struct map_release *r, const struct map_update *u, size_t count,
                     bool punch)
{
    for (size_t i = 0; i < count; i++) {
        bool stays = only_keeps(m, &u[i], punch);
        if (!lets_go(&u[i]) && !stays)
            continue;
        r->items[r->count++] = (struct map_released){u[i].cluster, u[i].old, punch, stays};
        r->low = MIN(r->low, u[i].cluster);
        r->high = MAX(r->high, u[i].cluster);
    }
    if (!r->queued) {
        r->queued = true;
        r->deferred.co_fn = co_release_cells;
        meta_defer(m->meta, &r->deferred);
    }
}

static struct map_cell *find_released(const struct map *m, uint64_t cluster)
{
    for (struct map_release *r = m->priv->releases; r; r = r->next) {
        if (cluster < r->low || cluster > r->high)
            continue;
        for (unsigned i = r->done; i < r->count; i++)
            if (r->items[i].cluster == cluster && !r->items[i].stays &&
                map_owns_space(&r->items[i].cell))
                return &r->items[i].cell;
    }
    return NULL;
}

bool map_may_take_back(const struct map *m, uint64_t cluster)
{
    return find_released(m, cluster);
}

bool map_take_back(struct map *m, uint64_t cluster, uint64_t *offset)
{
    struct map_cell *cell = find_released(m, cluster);
    if (!cell)
        return false;
    *offset = cell->offset;
    cell->state = MAP_HOLE;
    return true;
}

void map_give_back(struct map *m, uint64_t cluster, const struct map_cell *cell)
{
    for (struct map_release *r = m->priv->releases; r; r = r->next) { /* the latest first */
        for (unsigned i = r->count; i > r->done; i--) {
            struct map_released *item = &r->items[i - 1];
            if (item->cluster == cluster && item->cell.state == MAP_HOLE &&
                item->cell.offset == cell->offset) {
                item->cell.state = MAP_DATA;
                return;
            }
        }
    }
    map_unplace_one(m, cell); /* it would have been released by now */
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_free.c - clusters on their way back.
 *
 * The engine lets go of space (after the change is durable and nobody reads it any more) from
 * places where waiting for qcow2.alloc could never end: a write-back that an allocation itself
 * waits for. So letting go only queues, and a coroutine of its own works the queue off: drop cached
 * pages, punch what will be free, lower the counts, and only then let the space be found. Out of
 * memory, a release is forgotten: a leak, which check repairs. */
#include "imgfmt/qcow2_alloc.h"

/* --- the queue ------------------------------------------------------------ */

static bool queue_room(struct qcow2 *q)
{
    if (q->release_count < q->release_room)
        return true;
    if (q->release_head) { /* what was worked off makes room */
        q->release_count -= q->release_head;
        memmove(q->releases, q->releases + q->release_head,
                q->release_count * sizeof(*q->releases));
        q->release_head = 0;
        if (q->release_count < q->release_room / 2 + 1)
            return true;
    }
    size_t room = q->release_room * 2;
    bool inside = q->releases == q->kept;
    struct qcow2_release *more =
        mem_resize(inside ? NULL : q->releases, room * sizeof(*q->releases));
    if (!more)
        return false;
    if (inside)
        memcpy(more, q->kept, sizeof(q->kept));
    q->releases = more;
    q->release_room = room;
    return true;
}

static void co_drain_in_background(void *arg)
{
    struct qcow2 *q = arg;

    co_qcow2_drain(q);
    q->background--;
    co_queue_wake_all(&q->idle);
}

void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct qcow2_release *last =
        q->release_count > q->release_head ? &q->releases[q->release_count - 1] : NULL;
    uint64_t low = q->map.cluster_bytes - 1;
    bool whole = !(offset & low) && !(bytes & low);

    assert(bytes);
    if (last && whole && last->flags == flags && !((last->offset | last->bytes) & low) &&
        (last->offset + last->bytes == offset || offset + bytes == last->offset)) {
        last->offset = MIN(last->offset, offset);
        last->bytes += bytes;
    } else if (queue_room(q)) {
        q->releases[q->release_count++] = (struct qcow2_release){offset, bytes, flags};
    } else {
        return; /* a leak */
    }
    if (q->draining || q->background)
        return;
    q->background++;
    if (co_start_later(co_drain_in_background, q) < 0)
        q->background--; /* the next release or the close will */
}

/* Lowers the counts of @n clusters (in one page) that all have @count. */
static int co_lower(struct qcow2 *q, uint64_t first, uint64_t n, uint64_t count, unsigned flags)
{
    if (count == 1 && flags & QCOW2_PUNCH) {
        uint32_t bits = q->header.cluster_bits;
        uint64_t packing = q->pack_at >> bits;
        if (q->pack_at && packing >= first && packing <= first + n)
            q->pack_at = 0; /* nothing may join while it is being punched */
        co_mutex_unlock(&q->alloc);
        (void)!co_blk_discard(q->map.file, first << bits, n << bits); /* counts are of this file */
        co_mutex_lock(&q->alloc);
    }
    TRY(co_qcow2_count_add(q, first, n, -1));
    if (count > 1)
        return 0;
    if (q->pack_at && (q->pack_at - 1) >> q->header.cluster_bits >= first &&
        (q->pack_at - 1) >> q->header.cluster_bits < first + n)
        q->pack_at = 0;
    for (uint64_t i = 0; i < n; i++)
        qcow2_guard_remove(q, (first + i) << q->header.cluster_bits);
    if (!qcow2_runs_add(&q->free, first, n))
        q->scan = MIN(q->scan, first);
    return 0;
}

/* One entry of the queue, one run of equal counts at a time. */
static void co_release_one(struct qcow2 *q, const struct qcow2_release *r)
{
    uint32_t bits = q->header.cluster_bits;
    uint64_t end = ((r->offset + r->bytes - 1) >> bits) + 1;

    if (r->flags & QCOW2_TABLE)
        co_meta_forget(q->map.meta, r->offset, r->bytes);
    for (uint64_t c = r->offset >> bits; c < end;) {
        uint64_t run = MIN(end - c, qcow2_page_run(q, c)), count = 0, same = run;
        with_lock(&q->alloc);
        int rc = co_qcow2_count_same(q, c, run, &count, &same);
        if (rc == 0 && count)
            rc = co_lower(q, c, same, count, r->flags);
        /* An error or a count of zero (a damaged image) changes nothing: a leak at worst. */
        c += same;
    }
}

void co_qcow2_drain(struct qcow2 *q)
{
    while (q->draining)
        co_queue_wait(&q->idle);
    q->draining = true;
    while (q->release_head < q->release_count) {
        struct qcow2_release one = q->releases[q->release_head++];
        if (q->release_head == q->release_count)
            q->release_head = q->release_count = 0;
        co_release_one(q, &one);
    }
    q->draining = false;
    co_queue_wake_all(&q->idle);
}

/* --- for the engine ------------------------------------------------------- */

static void release_cell(struct qcow2 *q, const struct map_cell *cell, uint64_t count,
                         unsigned flags)
{
    if (cell->state == MAP_PACKED)
        qcow2_release(q, cell->offset, cell->packed_bytes, flags);
    else if (cell->offset)
        qcow2_release(q, cell->offset, count << q->header.cluster_bits, flags);
}

void qcow2_unplace(struct map *m, const struct map_cell *cells, size_t count)
{
    for (size_t i = 0; i < count; i++)
        release_cell(qcow2_of(m), &cells[i], 1, 0);
}

void qcow2_unplace_table(struct map *m, uint64_t offset)
{
    qcow2_release(qcow2_of(m), offset, m->cluster_bytes, QCOW2_TABLE);
}

void co_qcow2_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch)
{
    release_cell(qcow2_of(m), cell, count, punch ? QCOW2_PUNCH : 0);
}

void co_qcow2_release_table(struct map *m, uint64_t offset)
{
    qcow2_release(qcow2_of(m), offset, m->cluster_bytes, QCOW2_TABLE);
}

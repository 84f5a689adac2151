/* SPDX-License-Identifier: BSD-3-Clause */
/* ppl.c - the partial parity log, written.
 *
 * Order:
 *  1. When the array is opened to be written, what there is is replayed. Superblocks say so, and
 *     that who is missing is out, since the log counts for it no more; then all areas are emptied,
 *     durably; then superblocks say dirty (A1).
 *  2. A header with the entries of all strips that wait is durable (FUA) on the member that has
 *     their parity, before the first block of them is written in place.
 *  3. The next header goes to the same place. So before it all strips of the one that is there are
 *     in place, and all members are flushed. That fails while one of them is torn.
 *  4. When all is in place and flushed, superblocks say clean, and the log does not count.
 *
 * Linux reads it the same way: it looks at the start of the area, and beyond only where headers
 * with higher numbers are, of which we leave none. */
#include "raid/ppl.h"

#include "block/crc32c.h"
#include "block/worker.h"

#define SECTOR 512

/* --- areas -------------------------------------------------------------------------------------
 */

void ppl_seal(struct ppl_head_disk *h)
{
    memset(h->reserved, 0xff, sizeof(h->reserved));
    h->crc = le32_of(0);
    h->crc = le32_of(crc32c(0, h, sizeof(*h)));
}

static uint64_t area_of(const struct md_super *s)
{
    return s->super_offset + (uint64_t)s->ppl_offset;
}

int co_ppl_clear(struct blk_device *dev, const struct md_super *s)
{
    struct ppl_head_disk *h = buf_get(PPL_HEAD);
    if (!h)
        return -ENOMEM;
    memset(h, 0, sizeof(*h));
    h->signature = le32_of(md_uuid_crc(s));
    ppl_seal(h);
    int rc = co_blk_write_zeroes(dev, area_of(s), s->ppl_bytes, 0);
    if (rc == 0)
        rc = co_blk_write_buf(dev, area_of(s), h, sizeof(*h), 0);
    if (rc == 0)
        rc = co_blk_flush(dev);
    buf_put(h, PPL_HEAD);
    return rc;
}

static int add_log(struct raid_member *m, struct blk_error *e)
{
    uint64_t bytes = m->super->ppl_bytes;
    if (bytes < PPL_HEAD + ROW_PAGE)
        return err_bad(e, -EINVAL, "%s: its partial parity log has no room for an entry",
                       member_name(m));
    m->ppl = mem_zalloc(sizeof(*m->ppl));
    if (!m->ppl)
        return err_set(e, -ENOMEM, "out of memory");
    *m->ppl = (struct ppl_log){
        .m = m, .start = area_of(m->super), .room = align_down(bytes - PPL_HEAD, ROW_PAGE)};
    return 0;
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* While it is not in sync a crash must not make it look as if it were: then the log says what is
 * right of all, and superblocks that dirty begins at 0. So the beginning is put in sync first. */
static int co_begin_sync(struct raid_array *a)
{
    if (!a->was_dirty || a->resync_at)
        return 0;
    uint64_t bytes = MIN(a->shape.chunk, a->shape.member);
    TRY(co_rows_resync(a, 0, bytes));
    TRY(co_array_flush(a));
    a->resync_at = bytes;
    return 0;
}

static int co_replay(struct raid_array *a)
{
    bool clean = false;
    if (!a->was_dirty)
        return 0;
    TRY(co_ppl_replay(a, &clean));
    if (clean) {
        a->was_dirty = false;
        a->super->resync_offset = UINT64_MAX;
    } else {
        TRY(co_begin_sync(a));
    }
    return co_array_write_supers(a);
}

static int co_empty_all(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        int rc = m->state == MEMBER_OUT ? 0 : co_ppl_clear(m->dev, m->super);
        if (rc == -ENOMEM)
            return rc;
        if (rc < 0)
            TRY(co_array_fail(a, m));
    }
    return 0;
}

int co_ppl_open(struct raid_array *a, struct blk_error *e)
{
    struct rows *rows = a->engine_state;
    if (!a->super || !ppl_is_in(a->super))
        return 0;
    if (a->shape.level->number != 5)
        return err_bad(e, -EINVAL, "a partial parity log is of raid5, and this is %s",
                       a->shape.level->name);
    a->ppl = mem_zalloc(sizeof(*a->ppl));
    if (!a->ppl)
        return err_set(e, -ENOMEM, "out of memory");
    a->ppl->signature = md_uuid_crc(a->super);
    for (unsigned i = 0; i < a->member_count; i++) {
        struct raid_member *m = &a->members[i];
        if (m->state == MEMBER_OUT)
            continue;
        TRY(add_log(m, e));
        rows->slice = MIN(rows->slice, m->ppl->room);
    }
    int rc = co_replay(a);
    if (rc == 0)
        rc = co_empty_all(a);
    return rc < 0 ? err_errno(e, rc, "the partial parity log cannot be replayed") : 0;
}

void ppl_close(struct raid_array *a)
{
    for (unsigned i = 0; i < a->member_count; i++)
        mem_free(take(a->members[i].ppl));
    mem_free(take(a->ppl));
}

/* --- entries -----------------------------------------------------------------------------------
 */

/* What @s changes, as an entry has it: data chunks behind each other. */
static void describe(const struct row_strip *s, struct ppl_hold *h)
{
    const struct raid_shape *shape = &s->a->shape;
    unsigned first = shape->data_disks, count = 0;
    for (unsigned i = 0; i < shape->data_disks; i++) {
        if (!s->block[raid_row_disk(&s->row, i)].written)
            continue;
        first = MIN(first, i);
        count++;
        assert(first + count == i + 1);
    }
    uint64_t row = s->offset / shape->chunk, at = s->offset % shape->chunk;
    h->s = s;
    h->offset = (row * shape->data_disks + first) * shape->chunk + at;
    h->data_bytes = count * s->bytes;
    h->partial_bytes = count < shape->data_disks ? s->bytes : 0;
}

/* New parity without what is new. */
static int make_partial(struct ppl_hold *h)
{
    const struct row_strip *s = h->s;
    const struct row_block *p = &s->block[s->row.p];
    if (!h->partial_bytes)
        return 0;
    h->partial = buf_get(h->partial_bytes);
    if (!h->partial)
        return -ENOMEM;
    if (p->fresh)
        memcpy(h->partial, p->fresh, s->bytes);
    else
        memset(h->partial, 0, s->bytes);
    for (unsigned i = 0; i < s->a->shape.data_disks; i++) {
        const struct row_block *b = &s->block[raid_row_disk(&s->row, i)];
        if (b->written && b->fresh)
            parity_add(h->partial, b->fresh, 1, s->bytes);
    }
    return 0;
}

static struct ppl_entry_disk entry_of(const struct ppl_hold *h)
{
    return (struct ppl_entry_disk){
        .sector = le64_of(h->offset / SECTOR),
        .partial_bytes = le32_of((uint32_t)h->partial_bytes),
        .data_bytes = le32_of((uint32_t)h->data_bytes),
        .parity_role = le32_of(h->s->row.p),
        .crc = le32_of(crc32c(0, h->partial, h->partial_bytes)),
    };
}

/* --- units -------------------------------------------------------------------------------------
 */

static void wake(struct ppl_hold *h, int rc)
{
    h->rc = rc;
    h->woken = true;
    if (h->co)
        co_wake(h->co);
}

/* The first that waits, if there is one, makes the next unit. */
static void hand_over(struct ppl_log *l)
{
    l->busy = l->waiting != NULL;
    if (!l->waiting)
        return;
    l->waiting->leads = true;
    wake(l->waiting, 0);
}

/* As many of those that wait as have room go into the header, and what they need behind it. Gives
 * the last one. */
static struct ppl_hold *gather(const struct ppl_log *l, struct ppl_head_disk *head,
                               struct iovec *iov, struct vec *v)
{
    struct ppl_hold *last = NULL;
    unsigned count = 0, pieces = 1;
    iov[0] = (struct iovec){head, PPL_HEAD};
    v->bytes = PPL_HEAD;
    for (struct ppl_hold *h = l->waiting; h && count < PPL_ENTRIES; h = h->next) {
        if (v->bytes + h->partial_bytes > PPL_HEAD + l->room)
            break;
        head->entry[count++] = entry_of(h);
        if (h->partial_bytes)
            iov[pieces++] = (struct iovec){h->partial, h->partial_bytes};
        v->bytes += h->partial_bytes;
        last = h;
    }
    head->count = le32_of(count);
    return last;
}

/* A member that does not take it is put out: then it has no parity that could be wrong. */
static int co_put(struct raid_array *a, struct ppl_log *l, const struct vec *v)
{
    if (l->m->state == MEMBER_OUT)
        return 0;
    int rc = co_blk_write(l->m->dev, l->start, v, BLK_FUA);
    a->ppl->units++;
    return rc < 0 && rc != -ENOMEM ? co_array_fail(a, l->m) : rc;
}

static int co_make_unit(struct raid_array *a, struct ppl_log *l, struct ppl_hold **last)
{
    struct iovec iov[1 + PPL_ENTRIES];
    struct vec v = {.iov = iov};
    int rc = l->used ? co_array_flush(a) : 0;
    struct ppl_head_disk *head = buf_get(PPL_HEAD);
    *last = l->waiting;
    if (!head)
        return -ENOMEM;
    memset(head, 0, sizeof(*head));
    *last = gather(l, head, iov, &v);
    head->signature = le32_of(a->ppl->signature);
    head->generation = le64_of(++a->ppl->generation);
    ppl_seal(head);
    if (rc == 0)
        rc = co_put(a, l, &v);
    buf_put(head, PPL_HEAD);
    return rc;
}

/* The caller is the first of those that wait. */
static void co_lead(struct raid_array *a, struct ppl_log *l)
{
    struct ppl_hold *last, *first = l->waiting, *next;
    l->busy = true;
    int rc = co_make_unit(a, l, &last);
    l->used |= rc == 0;
    l->waiting = take(last->next);
    if (!l->waiting)
        l->end = NULL;
    for (struct ppl_hold *h = first; h; h = next) {
        next = h->next;
        l->in_flight += rc == 0;
        h->log = rc == 0 ? l : NULL;
        wake(h, rc);
    }
    if (rc < 0)
        hand_over(l);
}

/* --- strips ------------------------------------------------------------------------------------
 */

static void co_queue_up(struct raid_array *a, struct ppl_log *l, struct ppl_hold *h)
{
    *(l->end ? &l->end->next : &l->waiting) = h;
    l->end = h;
    if (l->busy) {
        h->co = co_self();
        while (!h->woken)
            co_suspend();
        h->co = NULL;
    }
    if (h->leads || !h->woken)
        co_lead(a, l);
}

int co_ppl_strip(const struct row_strip *s, struct ppl_hold *h)
{
    struct raid_member *m = s->a->ppl ? array_writable(s->a, s->row.p) : NULL;
    *h = (struct ppl_hold){0};
    if (!m)
        return 0;
    int rc = m->ppl ? 0 : add_log(m, NULL); /* it came while the array was open */
    if (rc < 0)
        return rc;
    describe(s, h);
    rc = make_partial(h);
    if (rc == 0) {
        co_queue_up(s->a, m->ppl, h);
        rc = h->rc;
    }
    if (rc < 0)
        buf_put(h->partial, h->partial_bytes);
    return rc;
}

void ppl_end(struct ppl_hold *h)
{
    if (!h->log)
        return;
    buf_put(h->partial, h->partial_bytes);
    if (--h->log->in_flight == 0)
        hand_over(h->log);
}

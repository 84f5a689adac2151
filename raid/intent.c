/* SPDX-License-Identifier: BSD-3-Clause */
/* intent.c - the write-intent bitmap of an array that lives.
 *
 * Order:
 *  1. a bit is set in all members' bitmaps, durably (FUA), before data of its chunk is written, and
 *     after superblocks say dirty (A1): of an array of LVM2 a bit alone says that it is;
 *  2. it is cleared when no write to the chunk is under way or was of late, all members are in
 * sync, and their data has been flushed since; the header goes first, since it says up to which
 *     events bits were cleared;
 *  3. a bitmap's number of events is that of the superblocks that are written after it; one that is
 *     lower than the array's missed something, and counts as all set. For arrays of LVM2 it is
 *     sealed with the stripe log's session (log.h).
 * A bit too many costs a resync of its chunk, nothing else. */
#include "raid/intent.h"
#include "block/worker.h"
#include "raid/bitmap.h"
#include "raid/log.h"

#define PAGE         4096
#define SWEEP_NS     (5 * 1000000000ull)
#define PAGE_OF(bit) ((MD_BITMAP_HEADER + (bit) / 8) / PAGE)

struct raid_intent {
    struct raid_array *a;
    struct md_bitmap head;
    uint64_t bytes;       /* of header and bits, in sectors of the members */
    struct co_mutex lock; /* of changes of raw; taken behind a->state_lock */
    uint8_t *raw;         /* what is on the members, or is being written there */
    uint8_t *ready;       /* bits that are durably set: of begin's short way */
    uint8_t *used;        /* bits that were set or used since the last sweep */
    uint16_t *busy;       /* writes under way, by bit */
    uint64_t swept_ns;
    bool stale; /* what is on the members is too old: all of raw has to be written */
};

static bool bit_of(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

static void bit_put(uint8_t *bits, uint64_t i, bool value)
{
    uint8_t mask = (uint8_t)(1u << (i % 8));
    bits[i / 8] = (uint8_t)(value ? bits[i / 8] | mask : bits[i / 8] & ~mask);
}

static uint8_t *raw_bits(const struct raid_intent *n)
{
    return n->raw + MD_BITMAP_HEADER;
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* Whether @bytes of it lie where nothing else does. */
static bool has_room(const struct md_super *s, uint64_t bytes, uint64_t device)
{
    uint64_t at = s->super_offset + (uint64_t)s->bitmap_offset;
    uint64_t end = s->bitmap_offset < 0  ? s->super_offset
                   : s->data_offset > at ? s->data_offset
                   : s->bad_bytes && s->bad_offset > s->bitmap_offset
                       ? s->super_offset + (uint64_t)s->bad_offset
                       : device;
    return range_fits(at, bytes, MIN(end, device));
}

static int co_read_head(const struct raid_member *m, struct md_bitmap *out, struct blk_error *e)
{
    const struct md_super *s = m->super;
    auto_free uint8_t *raw = mem_aligned(PAGE);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(m->dev, s->super_offset + (uint64_t)s->bitmap_offset, raw,
                             MD_BITMAP_HEADER);
    if (rc < 0)
        return err_errno(e, rc, "%s: the bitmap cannot be read", member_name(m));
    TRY(md_bitmap_parse(raw, out, e));
    if (memcmp(out->uuid, s->uuid, sizeof(out->uuid)) != 0)
        return err_bad(e, -EINVAL, "%s: the bitmap is of another array", member_name(m));
    if (out->bits > MD_BITMAP_BITS_MOST || !has_room(s, md_bitmap_bytes(out), m->dev->size))
        return err_bad(e, -EINVAL, "%s: the superblock leaves the bitmap too little room",
                       member_name(m));
    return 0;
}

/* The newest that can be read; NULL: none. */
static int co_find(struct raid_array *a, struct md_bitmap *head, struct raid_member **from,
                   struct blk_error *e)
{
    int rc = err_bad(e, -EINVAL, "no member has the bitmap");
    *from = NULL;
    for (unsigned role = 0; role < a->shape.disks; role++) {
        struct raid_member *m = a->by_role[role];
        struct md_bitmap one;
        int got = m ? co_read_head(m, &one, e) : -ENODATA;
        rc = m ? got : rc;
        if (got < 0 || (*from && one.events <= head->events))
            continue;
        *from = m;
        *head = one;
    }
    return *from ? 0 : rc;
}

static int take_memory(struct raid_intent *n)
{
    uint64_t bits = n->head.bits, block = MAX(n->a->dev->limits.request_align, 512);
    n->bytes = align_up(md_bitmap_bytes(&n->head), block);
    n->raw = mem_aligned(align_up(n->bytes, PAGE));
    n->ready = mem_array(div_up(bits, 8) + 1, 1);
    n->used = mem_array(div_up(bits, 8) + 1, 1);
    n->busy = mem_array(bits + 1, sizeof(*n->busy));
    return n->raw && n->ready && n->used && n->busy ? 0 : -ENOMEM;
}

static int co_load(struct raid_intent *n, const struct raid_member *from, struct blk_error *e)
{
    const struct md_super *s = from->super;
    n->stale = n->head.events < n->a->super->events || n->head.state & MD_BITMAP_STALE ||
               n->a->super->reshaping;
    if (take_memory(n) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    int rc =
        co_blk_read_buf(from->dev, s->super_offset + (uint64_t)s->bitmap_offset, n->raw, n->bytes);
    if (rc < 0)
        return err_errno(e, rc, "%s: the bitmap cannot be read", member_name(from));
    if (n->stale)
        memset(raw_bits(n), 0xff, n->bytes - MD_BITMAP_HEADER);
    else
        memcpy(n->ready, raw_bits(n), div_up(n->head.bits, 8));
    n->head.state &= ~(unsigned)(MD_BITMAP_STALE | MD_BITMAP_WRITE_ERROR);
    memset(n->used, 0xff, div_up(n->head.bits, 8));
    return 0;
}

int co_intent_open(struct raid_array *a, struct raid_intent **out, struct blk_error *e)
{
    struct raid_member *from;
    *out = NULL;
    if (!a->super || !(a->super->features & MD_BITMAP) || a->shape.level->is_zoned)
        return 0;
    struct raid_intent *n = mem_zalloc(sizeof(*n));
    if (!n)
        return err_set(e, -ENOMEM, "out of memory");
    n->a = a;
    int rc = co_find(a, &n->head, &from, e);
    if (rc == 0 && n->head.sync_bytes < array_sync_bytes(a))
        rc = err_bad(e, -EINVAL, "the bitmap covers only %" PRIu64 " bytes of the array",
                     n->head.sync_bytes);
    if (rc == 0)
        rc = co_load(n, from, e);
    if (rc < 0)
        intent_close(n);
    else
        *out = n;
    return rc;
}

static void drop_memory(struct raid_intent *n)
{
    mem_free(n->raw);
    mem_free(n->ready);
    mem_free(n->used);
    mem_free(n->busy);
}

void intent_close(struct raid_intent *n)
{
    if (!n)
        return;
    drop_memory(n);
    mem_free(n);
}

/* --- writing pages -----------------------------------------------------------------------------
 */

struct page_write {
    const struct raid_intent *n;
    struct raid_member *m;
    uint64_t offset, bytes;
    int rc;
};

static int co_write_pages(void *arg)
{
    struct page_write *w = arg;
    const struct md_super *s = w->m->super;
    w->rc = co_blk_write_buf(w->m->dev, s->super_offset + (uint64_t)s->bitmap_offset + w->offset,
                             w->n->raw + w->offset, w->bytes, BLK_FUA);
    return 0;
}

/* Pages @first to @last, to all members that are written to. *failed as co_intent_head()'s. */
static int co_put_pages(struct raid_intent *n, uint64_t first, uint64_t last,
                        struct raid_member **failed)
{
    struct raid_array *a = n->a;
    struct co_group g;
    auto_free struct page_write *w = mem_array(a->member_count, sizeof(*w));
    assert_held(&n->lock);
    *failed = NULL;
    if (!w)
        return -ENOMEM;
    co_group_init(&g, 0);
    unsigned count = a->member_count;
    for (unsigned i = 0; i < count; i++) {
        struct raid_member *m = &a->members[i];
        w[i] = (struct page_write){.n = n,
                                   .m = m,
                                   .offset = first * PAGE,
                                   .bytes = MIN((last + 1) * PAGE, n->bytes) - first * PAGE};
        if (m->super && m->state != MEMBER_OUT)
            co_group_start(&g, co_write_pages, &w[i]);
    }
    int rc = co_group_wait(&g);
    for (unsigned i = 0; i < count && !*failed; i++)
        if (w[i].rc < 0)
            *failed = w[i].m;
    return rc;
}

/* A crash on the way leaves it stale, so that all counts as set. */
static int co_put_all(struct raid_intent *n, struct raid_member **failed)
{
    struct md_bitmap head = n->head;
    head.state |= MD_BITMAP_STALE;
    md_bitmap_build(&head, n->raw);
    TRY(co_put_pages(n, 0, 0, failed));
    if (!*failed)
        TRY(co_put_pages(n, 0, (n->bytes - 1) / PAGE, failed));
    n->stale = *failed != NULL;
    if (!n->stale)
        memcpy(n->ready, raw_bits(n), div_up(n->head.bits, 8));
    return 0;
}

int co_intent_head(struct raid_intent *n, struct raid_member **failed)
{
    with_lock(&n->lock);
    *failed = NULL;
    if (n->stale)
        TRY(co_put_all(n, failed));
    if (*failed)
        return 0;
    n->head.events = n->a->super->events;
    n->head.seal = log_seal(n->a);
    md_bitmap_build(&n->head, n->raw);
    return co_put_pages(n, 0, 0, failed);
}

int co_intent_copy_to(struct raid_intent *n, struct blk_device *dev, const struct md_super *s)
{
    with_lock(&n->lock);
    return co_blk_write_buf(dev, s->super_offset + (uint64_t)s->bitmap_offset, n->raw, n->bytes,
                            BLK_FUA);
}

/* --- setting -----------------------------------------------------------------------------------
 */

/* Of what [offset, +bytes) of the array is kept in sync by; levels with parity: whole rows. */
static struct intent_hold bits_of(const struct raid_intent *n, uint64_t offset, uint64_t bytes)
{
    const struct raid_shape *s = &n->a->shape;
    uint64_t end = offset + bytes - 1;
    if (s->level->parities) {
        uint64_t row = s->chunk * s->data_disks;
        offset = offset / row * s->chunk;
        end = end / row * s->chunk + s->chunk - 1;
    }
    return (struct intent_hold){offset / n->head.chunk,
                                MIN(end / n->head.chunk, n->head.bits - 1) + 1};
}

static bool all_ready(const struct raid_intent *n, const struct intent_hold *r)
{
    for (uint64_t i = r->first; i < r->end; i++)
        if (!bit_of(n->ready, i))
            return false;
    return true;
}

static int co_set(struct raid_intent *n, const struct intent_hold *r, struct raid_member **failed)
{
    with_lock(&n->lock);
    for (uint64_t i = r->first; i < r->end; i++)
        bit_put(raw_bits(n), i, true);
    TRY(co_put_pages(n, PAGE_OF(r->first), PAGE_OF(r->end - 1), failed));
    for (uint64_t i = r->first; i < r->end && !*failed; i++)
        bit_put(n->ready, i, true);
    return 0;
}

int co_intent_begin(struct raid_intent *n, uint64_t offset, uint64_t bytes,
                    struct intent_hold *hold)
{
    *hold = (struct intent_hold){0};
    if (!n || bytes == 0)
        return 0;
    *hold = bits_of(n, offset, bytes);
    for (uint64_t i = hold->first; i < hold->end; i++) {
        n->busy[i]++;
        bit_put(n->used, i, true);
    }
    int rc = all_ready(n, hold) ? 0 : co_array_mark_dirty(n->a);
    while (rc == 0 && !all_ready(n, hold)) {
        struct raid_member *failed = NULL;
        rc = co_set(n, hold, &failed);
        if (rc == 0 && failed) /* without the lock: its superblocks are written, and this head */
            rc = co_array_fail(n->a, failed);
    }
    if (rc < 0)
        intent_end(n, hold);
    return rc;
}

void intent_end(struct raid_intent *n, const struct intent_hold *hold)
{
    for (uint64_t i = hold->first; i < hold->end; i++)
        n->busy[i]--;
}

/* --- clearing ----------------------------------------------------------------------------------
 */

static bool may_clear(const struct raid_array *a)
{
    for (unsigned role = 0; role < a->shape.disks; role++)
        if (!a->by_role[role] || a->by_role[role]->state != MEMBER_IN_SYNC)
            return false;
    return !a->was_dirty && !a->super->reshaping;
}

/* Takes what may go out of @ready; gives how many there are. */
static uint64_t choose(struct raid_intent *n, bool all, uint8_t *going)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < n->head.bits; i++) {
        bool idle = n->busy[i] == 0 && (all || !bit_of(n->used, i));
        bool goes = idle && bit_of(raw_bits(n), i);
        bit_put(going, i, goes);
        count += goes;
        if (!idle || all)
            bit_put(n->used, i, n->busy[i] > 0);
    }
    return count;
}

/* After the flush: those that are still idle. */
static void drop_bits(struct raid_intent *n, const uint8_t *going)
{
    for (uint64_t i = 0; i < n->head.bits; i++) {
        if (!bit_of(going, i) || n->busy[i] || bit_of(n->used, i))
            continue;
        bit_put(raw_bits(n), i, false);
        bit_put(n->ready, i, false);
    }
}

/* @going: of @bits, which may be others by now. */
static int co_clear(struct raid_intent *n, const uint8_t *going, uint64_t bits,
                    struct raid_member **failed)
{
    with_lock(&n->lock);
    if (n->head.bits != bits || n->stale)
        return 0;
    uint64_t last = (n->bytes - 1) / PAGE;
    n->head.events_cleared = n->a->super->events;
    md_bitmap_build(&n->head, n->raw);
    TRY(co_put_pages(n, 0, 0, failed));
    if (*failed || !may_clear(n->a))
        return 0;
    drop_bits(n, going);
    return co_put_pages(n, 0, last, failed);
}

int co_intent_sweep(struct raid_intent *n, bool all)
{
    struct raid_member *failed = NULL;
    if (!n || !may_clear(n->a) || (!all && worker_now() - n->swept_ns < SWEEP_NS))
        return 0;
    n->swept_ns = worker_now();
    uint64_t bits = n->head.bits;
    auto_free uint8_t *going = mem_array(div_up(bits, 8) + 1, 1);
    if (!going)
        return -ENOMEM;
    if (choose(n, all, going) == 0)
        return 0;
    TRY(co_array_flush(n->a));
    TRY(co_clear(n, going, bits, &failed));
    return failed ? co_array_fail(n->a, failed) : 0;
}

/* --- other sizes -------------------------------------------------------------------------------
 */

void intent_set_all(struct raid_intent *n)
{
    if (!n)
        return;
    memset(raw_bits(n), 0xff, n->bytes - MD_BITMAP_HEADER);
    n->stale = true;
}

uint64_t intent_bytes_end(const struct raid_intent *n, const struct md_super *s)
{
    return s->super_offset + (uint64_t)s->bitmap_offset + n->bytes;
}

static bool fits(const struct raid_intent *n, const struct md_bitmap *head)
{
    uint64_t block = MAX(n->a->dev->limits.request_align, 512);
    uint64_t bytes = align_up(md_bitmap_bytes(head), block);
    bool all = head->bits <= MD_BITMAP_BITS_MOST;
    for (unsigned i = 0; i < n->a->member_count; i++) {
        const struct raid_member *m = &n->a->members[i];
        if (m->super && m->state != MEMBER_OUT)
            all &= has_room(m->super, bytes, m->dev->size);
    }
    return all;
}

/* What was set is set, and what is new. */
static void take_over(struct raid_intent *n, const struct raid_intent *was)
{
    memset(n->raw, 0, n->bytes);
    for (uint64_t i = 0; i < was->head.bits; i++)
        if (bit_of(raw_bits(was), i))
            bit_put(raw_bits(n), i * was->head.chunk / n->head.chunk, true);
    for (uint64_t i = was->head.sync_bytes / n->head.chunk; i < n->head.bits; i++)
        bit_put(raw_bits(n), i, true);
    memset(n->used, 0xff, div_up(n->head.bits, 8));
}

static int make_larger(const struct raid_intent *n, uint64_t sync_bytes, struct raid_intent *out,
                       struct blk_error *e)
{
    *out = (struct raid_intent){.a = n->a, .head = n->head};
    out->head.sync_bytes = sync_bytes;
    out->head.bits = div_up(sync_bytes, out->head.chunk);
    while (!fits(n, &out->head) && out->head.chunk < GiB) {
        out->head.chunk *= 2;
        out->head.bits = div_up(sync_bytes, out->head.chunk);
    }
    if (!fits(n, &out->head))
        return err_set(e, -ENOSPC, "the superblocks leave no room for a bitmap of a larger array");
    if (take_memory(out) < 0) {
        drop_memory(out);
        return err_set(e, -ENOMEM, "out of memory");
    }
    take_over(out, n);
    return 0;
}

int co_intent_resize(struct raid_intent *n, uint64_t sync_bytes, struct blk_error *e)
{
    struct raid_intent larger;
    if (!n || sync_bytes <= n->head.sync_bytes)
        return 0;
    with_lock(&n->lock);
    TRY(make_larger(n, sync_bytes, &larger, e));
    drop_memory(n);
    n->head = larger.head;
    n->bytes = larger.bytes;
    n->raw = larger.raw;
    n->ready = larger.ready;
    n->used = larger.used;
    n->busy = larger.busy;
    n->stale = true;
    return 0;
}

/* --- asking ------------------------------------------------------------------------------------
 */

bool intent_next(const struct raid_intent *n, uint64_t at, uint64_t *start, uint64_t *bytes)
{
    uint64_t i = at / n->head.chunk;
    while (i < n->head.bits && !bit_of(raw_bits(n), i))
        i++;
    if (i == n->head.bits)
        return false;
    *start = MAX(at, i * n->head.chunk);
    *bytes = (i + 1) * n->head.chunk - *start;
    return true;
}

bool intent_reaches(const struct raid_intent *n, uint64_t events)
{
    return events >= n->head.events_cleared;
}

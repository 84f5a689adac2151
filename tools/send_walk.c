/* SPDX-License-Identifier: BSD-3-Clause */
/* send_walk.c - the stream that a disk is sent as.
 *
 * One walk over the disk (inorder.h). Without a base, what reads zero is left out. With one, what
 * the bitmap calls clean is left out, and what both show from one place, or as zeroes; of the rest
 * both are read, and blocks that are the same are left out too. Comparing, hashing and packing are
 * done on the pool; records are numbered and written in the disk's order.
 *
 * After each POINT_BYTES of stream a point says the sum so far, which a receiver can go on from. */
#include "tools/send.h"

#include "block/alike.h"
#include "block/co.h"
#include "tools/hash.h"
#include "tools/pipe.h"

#define BLOCK        SEND_BLOCK
#define POINT_BYTES  (16 * MiB)
#define RECORD       sizeof(struct send_record_disk)
#define SLOT_RECORDS (INORDER_PIECE / BLOCK)
#define SLOT_BYTES   (INORDER_PIECE + SLOT_RECORDS * RECORD)

static_assert(INORDER_PIECE <= SEND_DATA_MOST && INORDER_BLOCK == BLOCK, "pieces become records");

/* --- what differs --- */

/* Whether [at, +*bytes) is known to be as in the base; *bytes may become fewer. */
static int co_unchanged(struct send *s, uint64_t at, uint64_t *bytes, bool *same)
{
    struct blk_bitmap_extent dirty = {.dirty = true, .bytes = *bytes};
    struct blk_alike a = {0};
    if (s->bitmap)
        TRY(co_blk_bitmap_read(s->dev, s->bitmap, at, *bytes, &dirty, &s->task.error));
    *bytes = MIN(*bytes, dirty.bytes);
    *same = !dirty.dirty;
    if (*same || !s->base)
        return 0;
    int rc = co_blk_alike(s->dev, s->base, at, bytes, &a);
    *same = a.same;
    return rc < 0 ? err_errno(&s->task.error, rc,
                              "error while reading block status at byte %" PRIu64, at)
                  : 0;
}

/* Whole blocks: what is the same in part of one is read. */
static int co_run(struct inorder *w, uint64_t at, uint64_t *run, enum inorder_kind *kind)
{
    struct send *s = w->arg;
    uint64_t bytes = w->bytes - at;
    bool same;
    TRY(co_unchanged(s, at, &bytes, &same));
    uint64_t to = at + bytes;
    if (to < w->bytes && same)
        to = align_down(to, BLOCK);
    *kind = same && to > at ? INORDER_SKIP : INORDER_DATA;
    *run = *kind == INORDER_SKIP ? to - at : MIN(align_up(MAX(to, at + 1), BLOCK), w->bytes) - at;
    return 0;
}

/* --- a piece, read --- */

static int get_slot(struct send *s, struct send_slot *slot)
{
    if (!slot->out)
        slot->out = mem_alloc(SLOT_BYTES);
    if (s->base && !slot->old)
        slot->old = mem_aligned(INORDER_PIECE);
    return slot->out && (slot->old || !s->base) ? 0 : -ENOMEM;
}

/* What the base shows of the piece's blocks; zeroes behind its end. */
static int co_more(struct inorder_piece *p)
{
    struct send *s = p->all->arg;
    struct send_slot *slot = &s->slots[p->slot];
    if (get_slot(s, slot) < 0)
        return err_set(&s->task.error, -ENOMEM, "out of memory");
    if (!s->base)
        return 0;
    uint64_t whole = align_up(p->bytes, BLOCK);
    uint64_t left = p->offset < s->base->size ? s->base->size - p->offset : 0, n = MIN(whole, left);
    memset(slot->old + n, 0, whole - n);
    int rc = n ? co_blk_read_buf(s->base, p->offset, slot->old, n) : 0;
    return rc < 0 ? err_errno(&s->task.error, rc, "error while reading the base at byte %" PRIu64,
                              p->offset)
                  : 0;
}

/* --- a piece, made into records: on the pool --- */

enum fate { FATE_LEAVE, FATE_ZERO, FATE_DATA };

/* Of the block at @at of the piece; sums it, if it has changed. */
static enum fate judge(struct send *s, const struct inorder_piece *p, uint64_t at)
{
    struct send_slot *slot = &s->slots[p->slot];
    uint64_t offset = p->offset + at;
    const uint8_t *now = p->data + at;
    bool zero = mem_is_zero(now, BLOCK), passed = offset < s->header.start;
    if (slot->old ? memcmp(now, slot->old + at, BLOCK) == 0 : zero && !s->header.increment)
        return FATE_LEAVE;
    sumhash_add_blocks(passed ? &slot->before : &slot->now, offset, now, BLOCK);
    if (slot->old)
        sumhash_add_blocks(&slot->was, offset, slot->old + at, BLOCK);
    return passed ? FATE_LEAVE : zero ? FATE_ZERO : FATE_DATA;
}

/* Adds the record of a run; its head is finished in add_head(). */
static int add_record(struct send *s, struct send_slot *slot, struct send_record *r,
                      const uint8_t *data)
{
    uint8_t *head = slot->out + slot->out_bytes, *payload = head + RECORD;
    size_t packed = r->bytes - r->bytes / 16;
    int rc = r->kind == SEND_DATA && s->compress
                 ? codec_pack(&s->codec, data, r->bytes, payload, &packed)
                 : -ENOSPC;
    if (rc < 0 && rc != -ENOSPC)
        return rc;
    if (rc == 0) {
        r->kind = SEND_PACKED;
        r->payload_bytes = (uint32_t)packed;
    } else if (r->kind == SEND_DATA) {
        memcpy(payload, data, r->bytes);
        r->payload_bytes = (uint32_t)r->bytes;
    }
    memcpy(head, r, sizeof(*r));
    slot->out_bytes += RECORD + r->payload_bytes;
    return 0;
}

static_assert(sizeof(struct send_record) <= sizeof(struct send_record_disk), "it waits there");

static int prepare(struct inorder_piece *p)
{
    struct send *s = p->all->arg;
    struct send_slot *slot = &s->slots[p->slot];
    uint64_t whole = align_up(p->bytes, BLOCK), run = 0;
    enum fate before = FATE_LEAVE;
    memset(p->data + p->bytes, 0, whole - p->bytes);
    slot->out_bytes = 0;
    slot->before = slot->now = slot->was = (struct sumhash){0};
    for (uint64_t at = 0; at <= whole; at += BLOCK) {
        enum fate fate = at < whole ? judge(s, p, at) : FATE_LEAVE;
        if (fate == before)
            continue;
        struct send_record r = {.kind = before == FATE_ZERO ? SEND_ZERO : SEND_DATA,
                                .offset = p->offset + run,
                                .bytes = MIN(at, p->bytes) - run};
        if (before != FATE_LEAVE)
            TRY(add_record(s, slot, &r, p->data + run));
        run = at;
        before = fate;
    }
    return 0;
}

/* --- written, in order: on a thread that may wait --- */

static int put(struct send *s, const void *bytes, size_t count)
{
    s->since_point += count;
    return pipe_write_all(s->task.tool, s->fd, bytes, count);
}

static int put_record(struct send *s, struct send_record r, const uint8_t *payload)
{
    uint8_t whole[RECORD + SEND_END_PAYLOAD];
    assert(r.payload_bytes <= SEND_END_PAYLOAD);
    r.number = s->number++;
    send_record_put(&r, payload, (struct send_record_disk *)whole);
    memcpy(whole + RECORD, payload, r.payload_bytes);
    return put(s, whole, RECORD + r.payload_bytes);
}

static void finish_heads(struct send *s, struct send_slot *slot)
{
    for (uint64_t at = 0; at < slot->out_bytes;) {
        struct send_record r;
        memcpy(&r, slot->out + at, sizeof(r));
        r.number = s->number++;
        send_record_put(&r, slot->out + at + RECORD, (struct send_record_disk *)(slot->out + at));
        at += RECORD + r.payload_bytes;
    }
}

static int put_point(struct send *s, uint64_t offset)
{
    uint8_t sum[SUMHASH_BYTES];
    struct send_record r = {.kind = SEND_POINT, .offset = offset, .payload_bytes = sizeof(sum)};
    sumhash_put(&s->sum, sum);
    TRY(put_record(s, r, sum));
    s->since_point = 0;
    return 0;
}

/* All before header.start was summed: is it what the receiver has? */
static int compare_start(struct send *s)
{
    s->at_start = true;
    s->stale = !sumhash_equal(&s->sum, &s->header.passed);
    return s->stale ? -ESTALE : 0;
}

static int use(struct inorder_piece *p)
{
    struct send *s = p->all->arg;
    struct send_slot *slot = &s->slots[p->slot];
    uint64_t end = p->offset + p->bytes;
    if (!p->data)
        return 0;
    sumhash_add(&s->sum, &slot->before);
    if (!s->at_start && end > s->header.start)
        TRY(compare_start(s));
    sumhash_add(&s->sum, &slot->now);
    sumhash_add(&s->was, &slot->was);
    finish_heads(s, slot);
    if (slot->out_bytes)
        TRY(put(s, slot->out, slot->out_bytes));
    return s->since_point >= POINT_BYTES && end < s->header.size ? put_point(s, end) : 0;
}

/* --- the whole --- */

/* The disk's hash: the base's, with what has changed; where that is not known, all of it is read.
 */
static int co_digest(struct send *s, struct sumhash *out)
{
    const struct send_header *h = &s->header;
    if (h->increment && (!s->base || h->size < h->base_size)) {
        TRY(co_hash_disk(s->dev, h->size, HASH_SUMHASH, NULL, s->digest, &s->task.error));
        bool good = sumhash_parse(s->digest, out);
        assert(good);
        return 0;
    }
    *out = h->base;
    if (h->increment)
        sumhash_take_size(out, h->base_size);
    sumhash_take(out, &s->was);
    sumhash_add(out, &s->sum);
    sumhash_add_size(out, h->size);
    sumhash_print(out, s->digest);
    return 0;
}

static int run_head(void *arg)
{
    struct send *s = arg;
    struct send_header_disk raw;
    send_header_put(&s->header, &raw);
    return put(s, &raw, sizeof(raw));
}

struct ending {
    struct send *s;
    struct sumhash digest;
};

static int run_end(void *arg)
{
    struct ending *n = arg;
    struct send *s = n->s;
    uint8_t payload[SEND_END_PAYLOAD];
    struct send_record r = {
        .kind = SEND_END, .offset = s->header.size, .payload_bytes = sizeof(payload)};
    if (!s->at_start)
        TRY(compare_start(s));
    sumhash_put(&n->digest, payload);
    sumhash_put(&s->sum, payload + SUMHASH_BYTES);
    return put_record(s, r, payload);
}

int co_send_stream(struct send *s)
{
    struct inorder *w = mem_zalloc(sizeof(*w));
    if (!w)
        return err_set(&s->task.error, -ENOMEM, "out of memory");
    *w = (struct inorder){.dev = s->dev,
                          .bytes = s->header.size,
                          .job = &s->task.job,
                          .error = &s->task.error,
                          .co_run = s->header.increment ? co_run : NULL,
                          .co_more = co_more,
                          .prepare = prepare,
                          .use = use,
                          .use_blocks = true,
                          .arg = s};
    codec_init(&s->codec, CODEC_ZSTD, 0);
    struct ending end = {.s = s};
    int rc = co_blocking(run_head, s);
    if (rc == 0)
        rc = co_inorder(w);
    if (rc == 0)
        rc = co_digest(s, &end.digest);
    if (rc == 0)
        rc = co_blocking(run_end, &end);
    if (rc < 0 && s->stale)
        err_set(&s->task.error, rc,
                "%s is not what was being sent: it, or its base, has changed since", s->image.text);
    else if (rc < 0 && rc != -ECANCELED && s->task.error.rc == 0)
        err_errno(&s->task.error, rc, "cannot write the stream");
    codec_drop(&s->codec);
    for (unsigned i = 0; i < INORDER_SLOTS; i++) {
        mem_free(take(s->slots[i].old));
        mem_free(take(s->slots[i].out));
    }
    mem_free(w);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* receive_apply.c - the records of a stream, written to a disk.
 *
 * One coroutine reads record after record into a few units of memory; each is checked, inflated and
 * summed on the pool, then written, several at once (pieces.h). Nothing of a record is believed
 * before its checksum but its lengths, which are bounded.
 *
 *   1 A record is written when it was found intact.
 *   2 At a point of the stream nothing is in flight, the sum is compared, the target is flushed,
 *     and then it is noted: all before the point is there.
 *   3 A stream that is received again is read up to the place that was noted, without writing; what
 *     it holds up to there must have the sum that was noted. */
#include "block/pieces.h"
#include "imgfmt/codec.h"
#include "tools/receive.h"

#define IN_FLIGHT 8
#define UNITS     (IN_FLIGHT + 1) /* one is being filled */
#define ZERO_STEP (1 * GiB)

struct apply;
struct unit {
    struct apply *k;
    bool busy, checked;
    struct send_record r;
    struct send_record_disk raw;
    uint8_t *payload, *plain;      /* of SEND_DATA_MOST each; owned */
    struct sumhash before, behind; /* of a->from */
};

struct apply {
    struct receive_apply *a;
    struct blk_error *e;
    struct send_place place;
    uint64_t done; /* the end of the last record */
    bool compared; /* what lies before a->from */
    struct sumhash before, behind;
    struct pieces pieces;
    struct unit units[UNITS];
    struct co_queue room;
    struct codec codec;
};

/* --- reading --- */

static int co_read(struct apply *k, void *to, size_t bytes)
{
    int rc = k->a->input->co_read(k->a->input, to, bytes);
    if (rc == -ENODATA)
        return err_set(
            k->e, rc, "the stream ends at byte %" PRIu64 " of the disk: received again, it goes on",
            k->done);
    return rc < 0 ? err_errno(k->e, rc, "cannot read the stream") : 0;
}

int co_receive_header(struct receive_input *in, struct send_header *out, struct blk_error *e)
{
    struct send_header_disk raw;
    int rc = in->co_read(in, &raw, sizeof(raw));
    if (rc == -ENODATA)
        return err_set(e, -EINVAL, "this is no stream of `lamina send`");
    if (rc < 0)
        return err_errno(e, rc, "cannot read the stream");
    return send_header_parse(&raw, out, e);
}

static struct unit *co_free_unit(struct apply *k)
{
    for (;;) {
        for (size_t i = 0; i < UNITS; i++) {
            struct unit *u = &k->units[i];
            if (u->busy)
                continue;
            u->busy = true;
            u->checked = false;
            u->before = u->behind = (struct sumhash){0};
            return u;
        }
        co_queue_wait(&k->room);
    }
}

static void unit_is_free(struct unit *u)
{
    u->busy = false;
    co_queue_wake_one(&u->k->room);
}

static int get_memory(struct unit *u)
{
    if (!u->payload)
        u->payload = mem_aligned(SEND_DATA_MOST);
    if (u->r.kind == SEND_PACKED && !u->plain)
        u->plain = mem_aligned(SEND_DATA_MOST);
    return u->payload && (u->r.kind != SEND_PACKED || u->plain) ? 0 : -ENOMEM;
}

/* --- a unit --- */

static const uint8_t *plain_data(const struct unit *u)
{
    return u->r.kind == SEND_PACKED ? u->plain : u->payload;
}

static int run_check(void *arg)
{
    struct unit *u = arg;
    const struct send_record *r = &u->r;
    uint64_t from = u->k->a->from, cut;
    if (!send_record_intact(r, &u->raw, u->payload))
        return -EBADMSG;
    if (r->kind == SEND_ZERO)
        return 0;
    if (r->kind == SEND_PACKED) {
        int rc = codec_unpack(&u->k->codec, u->payload, r->payload_bytes, u->plain, r->bytes);
        if (rc < 0)
            return rc == -EIO ? -EBADMSG : rc;
    }
    cut = from > r->offset ? MIN(from - r->offset, r->bytes) : 0;
    sumhash_add_blocks(&u->before, r->offset, plain_data(u), cut);
    sumhash_add_blocks(&u->behind, r->offset + cut, plain_data(u) + cut, r->bytes - cut);
    return 0;
}

static int damaged(struct apply *k, int rc, const struct send_record *r)
{
    if (k->e->rc != 0)
        return rc;
    if (rc == -EBADMSG)
        return err_set(k->e, rc, "record %" PRIu32 " of the stream is damaged", r->number);
    return err_errno(k->e, rc, "record %" PRIu32 " of the stream", r->number);
}

static int co_check(struct unit *u)
{
    struct apply *k = u->k;
    if (u->checked)
        return 0;
    int rc = co_offload(run_check, u);
    if (rc < 0)
        return damaged(k, rc, &u->r);
    sumhash_add(&k->before, &u->before);
    sumhash_add(&k->behind, &u->behind);
    u->checked = true;
    return 0;
}

static int co_zero(struct blk_device *dev, uint64_t offset, uint64_t end)
{
    for (uint64_t n; offset < end; offset += n) {
        n = MIN(end - offset, ZERO_STEP);
        TRY(co_blk_write_zeroes(dev, offset, n, BLK_MAY_UNMAP));
    }
    return 0;
}

static int co_write(struct unit *u)
{
    struct receive_apply *a = u->k->a;
    const struct send_record *r = &u->r;
    uint64_t end = r->offset + r->bytes, at = MAX(r->offset, a->from);
    if (at >= end)
        return 0;
    int rc = r->kind == SEND_ZERO
                 ? co_zero(a->target, at, end)
                 : co_blk_write_buf(a->target, at, plain_data(u) + (at - r->offset), end - at, 0);
    if (rc < 0 && u->k->e->rc == 0)
        err_errno(u->k->e, rc, "error while writing at byte %" PRIu64, at);
    return rc;
}

static int co_unit(struct piece *p)
{
    struct apply *k = p->all->arg;
    struct unit *u = &k->units[p->kind];
    int rc = co_check(u);
    if (rc == 0)
        rc = co_write(u);
    unit_is_free(u);
    return rc;
}

static void give(struct apply *k, struct unit *u)
{
    pieces_give(&k->pieces, u->r.offset, u->r.bytes, (unsigned)(u - k->units));
}

/* --- records, in order --- */

/* All that was given out is written. */
static int co_settle(struct apply *k)
{
    int rc = pieces_wait(&k->pieces);
    return rc < 0 && k->e->rc == 0 && rc != -ECANCELED ? err_errno(k->e, rc, "error while writing")
                                                       : rc;
}

/* Before anything behind a->from is written: what lies before it is what was written before. */
static int co_compare(struct apply *k, struct unit *u)
{
    TRY(co_settle(k));
    if (u)
        TRY(co_check(u));
    k->compared = true;
    if (sumhash_equal(&k->before, &k->a->before))
        return 0;
    return err_set(k->e, -ESTALE,
                   "this is not the stream that was being received: the disk that is sent, or its "
                   "base, has changed since");
}

/* A full stream leaves zeroes out. */
static int co_gap(struct apply *k, uint64_t to)
{
    struct receive_apply *a = k->a;
    uint64_t at = MAX(k->done, a->from);
    pieces_pass(&k->pieces, to - k->done);
    if (a->header.increment || a->reads_zero || at >= to)
        return 0;
    if (!k->compared)
        TRY(co_compare(k, NULL));
    int rc = co_zero(a->target, at, to);
    return rc < 0 ? err_errno(k->e, rc, "error while writing at byte %" PRIu64, at) : 0;
}

static int co_data(struct apply *k, struct unit *u)
{
    TRY(co_gap(k, u->r.offset));
    int rc = get_memory(u);
    if (rc < 0)
        return err_set(k->e, rc, "out of memory");
    TRY(co_read(k, u->payload, u->r.payload_bytes));
    if (!k->compared && u->r.offset + u->r.bytes > k->a->from)
        TRY(co_compare(k, u));
    give(k, u);
    return pieces_stopped(&k->pieces) ? co_settle(k) : 0;
}

/* A point, or the end: the sum of all that came must be the sender's. */
static int co_point(struct apply *k, const struct unit *u)
{
    struct receive_apply *a = k->a;
    uint8_t payload[SEND_END_PAYLOAD];
    const uint8_t *sum = payload + u->r.payload_bytes - SUMHASH_BYTES;
    TRY(co_read(k, payload, u->r.payload_bytes));
    if (!send_record_intact(&u->r, &u->raw, payload))
        return damaged(k, -EBADMSG, &u->r);
    TRY(co_gap(k, u->r.offset));
    TRY(co_settle(k));
    if (!k->compared && u->r.offset >= a->from)
        TRY(co_compare(k, NULL));
    struct sumhash all = k->before, said = sumhash_get(sum);
    sumhash_add(&all, &k->behind);
    if (!sumhash_equal(&all, &said))
        return err_set(k->e, -EBADMSG,
                       "the stream's sum at byte %" PRIu64 " is wrong: it is damaged", u->r.offset);
    if (u->r.kind == SEND_END)
        a->digest = sumhash_get(payload);
    else if (u->r.offset <= a->from)
        return 0;
    int rc = co_blk_flush(a->target);
    if (rc < 0)
        return err_errno(k->e, rc, "%s cannot be made durable", a->target->name);
    return a->co_note && u->r.kind == SEND_POINT ? a->co_note(a, u->r.offset, &all) : 0;
}

static int co_record(struct apply *k)
{
    struct unit *u = co_free_unit(k);
    bool data = false;
    int rc = co_read(k, &u->raw, sizeof(u->raw));
    if (rc == 0)
        rc = send_record_parse(&k->place, &u->raw, &u->r, k->e);
    if (rc == 0) {
        data = u->r.kind != SEND_POINT && u->r.kind != SEND_END;
        rc = data ? co_data(k, u) : co_point(k, u);
    }
    if (rc < 0 || !data)
        unit_is_free(u);
    k->done = k->place.offset;
    return rc;
}

/* The hash of a full stream's disk follows from its blocks. */
static int compare_digest(struct apply *k)
{
    struct sumhash all = k->before;
    sumhash_add(&all, &k->behind);
    sumhash_add_size(&all, k->a->header.size);
    if (k->a->header.increment || sumhash_equal(&all, &k->a->digest))
        return 0;
    return err_set(k->e, -EBADMSG, "the stream's hash of the disk is not that of its blocks");
}

int co_receive_apply(struct receive_apply *a, struct blk_error *e)
{
    struct apply *k = mem_zalloc(sizeof(*k));
    if (!k)
        return err_set(e, -ENOMEM, "out of memory");
    bool rest = a->header.start > 0;
    k->a = a;
    k->e = e;
    k->place = (struct send_place){.header = &a->header, .offset = a->header.start};
    k->done = a->header.start;
    k->compared = a->from == 0 || rest;
    k->before = rest ? a->before : (struct sumhash){0};
    k->pieces = (struct pieces){.co_work = co_unit, .arg = k, .job = a->job, .limit = IN_FLIGHT};
    for (size_t i = 0; i < UNITS; i++)
        k->units[i].k = k;
    codec_init(&k->codec, CODEC_ZSTD, 0);
    pieces_init(&k->pieces);
    pieces_pass(&k->pieces, k->done);
    int rc = 0;
    while (rc == 0 && !k->place.ended)
        rc = co_record(k);
    int left = pieces_wait(&k->pieces);
    rc = rc == 0 ? left : rc;
    if (rc == 0)
        rc = compare_digest(k);
    codec_drop(&k->codec);
    for (size_t i = 0; i < UNITS; i++) {
        mem_free(k->units[i].payload);
        mem_free(k->units[i].plain);
    }
    mem_free(k);
    return rc;
}

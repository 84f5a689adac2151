/* SPDX-License-Identifier: BSD-3-Clause */
/* request.c - what a request may be, and running it.
 *
 * A request is checked once, against a row of the command table and the export's facts, before
 * anything is allocated for it. Reads and plain overwrites that resolve answers and the host can do
 * at once are done on the spot, without a coroutine; all else is one coroutine per request. */
#include "nbd/connection.h"
#include "nbd/handshake.h"

#define CACHE_STEP  (64u << 10)  /* of reading ahead through a buffer */
#define ADVISE_STEP (16u << 20)  /* of telling the host */
#define CACHE_MOST  (1ULL << 30) /* of one request: it is a hint */
#define LONG_STEP   (1ULL << 32) /* of trims and zeroes that are longer */
#define MAP_STEPS   2048u        /* look-ups for one BLOCK_STATUS: a shorter answer is allowed */
#define MAP_BURST   128u         /* look-ups before others get their turn */

/* --- what may be asked --- */

static const struct command {
    const char *name;
    uint16_t flags; /* that are valid; FUA is with all */
    bool writes, has_range, has_data;
    bool at_home; /* walks the device itself, with a buffer; else each step finds its way home */
    int (*co_run)(struct nbd_request *r);
} commands[NBD_COMMANDS];

static uint32_t check_range(const struct nbd_ask *a, const struct nbd_session *s,
                            const struct nbd_facts *f, const char **why)
{
    if (!range_fits(a->offset, a->length, f->size)) {
        *why = "the range ends past the end of the export";
        return a->type == NBD_CMD_WRITE || a->type == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC
                                                                           : NBD_EINVAL;
    }
    if (s->align > 1 && ((a->offset | a->length) & (s->align - 1))) {
        *why = "not aligned to the advertised minimal block size";
        return NBD_EINVAL;
    }
    return 0;
}

static uint32_t check_status(const struct nbd_ask *a, const struct nbd_session *s,
                             const struct nbd_facts *f, const char **why)
{
    if (!s->agreed) {
        *why = "no meta context was agreed";
        return NBD_EINVAL;
    }
    if (a->flags & NBD_CMD_FLAG_PAYLOAD_LEN) /* what is asked comes with the payload */
        return 0;
    if (a->length == 0) {
        *why = "block status of no bytes";
        return NBD_EINVAL;
    }
    return check_range(a, s, f, why);
}

static uint16_t valid_flags(const struct command *c, const struct nbd_session *s)
{
    unsigned valid = c->flags | NBD_CMD_FLAG_FUA;

    if (!s->structured)
        valid &= ~(unsigned)NBD_CMD_FLAG_DF;
    if (!s->extended)
        valid &= ~(unsigned)NBD_CMD_FLAG_PAYLOAD_LEN;
    return (uint16_t)valid;
}

static uint32_t check(const struct nbd_ask *a, const struct nbd_session *s,
                      const struct nbd_facts *f, const char **why)
{
    const struct command *c;

    if (a->type >= NBD_COMMANDS) {
        *why = "this command is not known here";
        return NBD_EINVAL;
    }
    c = &commands[a->type];
    if (a->flags & ~valid_flags(c, s)) {
        *why = "a flag that this command does not know";
        return NBD_EINVAL;
    }
    if (c->writes && (f->flags & NBD_FLAG_READ_ONLY)) {
        *why = "the export is read-only";
        return NBD_EPERM;
    }
    if (a->type == NBD_CMD_BLOCK_STATUS)
        return check_status(a, s, f, why);
    if (c->has_data && a->length > f->max_block) {
        *why = "longer than the advertised maximum";
        return a->type == NBD_CMD_READ ? NBD_EOVERFLOW : NBD_EINVAL;
    }
    return c->has_range ? check_range(a, s, f, why) : 0;
}

/* Which of the two headers it is was agreed; a payload too long to be passed over is a breach. */
static int take_head(const void *raw, bool extended, struct nbd_ask *out)
{
    struct nbd_request_ext x;
    struct nbd_request_wire w;

    memcpy(&w, raw, sizeof(w)); /* they begin alike */
    if (be32_get(w.magic) != (extended ? NBD_EXT_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
        return -EPROTO;
    *out = (struct nbd_ask){
        .type = be16_get(w.type),
        .flags = be16_get(w.flags),
        .length = be32_get(w.length),
        .offset = be64_get(w.offset),
        .cookie = w.cookie,
    };
    if (extended) {
        memcpy(&x, raw, sizeof(x));
        out->length = be64_get(x.length);
    }
    if (out->type == NBD_CMD_WRITE || (extended && out->flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        if (out->length > UINT32_MAX)
            return -EPROTO;
        out->payload = (uint32_t)out->length;
    }
    return 0;
}

static bool is_filter(uint32_t bytes)
{
    return bytes >= sizeof(struct nbd_status_filter) && bytes % sizeof(be32) == 0 &&
           bytes <= sizeof(struct nbd_status_filter) + NBD_MAX_CONTEXTS * sizeof(be32);
}

int nbd_ask_parse(const void *raw, const struct nbd_session *s, const struct nbd_facts *f,
                  struct nbd_ask *out, uint32_t *error, const char **why)
{
    TRY(take_head(raw, s->extended, out));
    out->asked = s->agreed;
    *why = "";
    *error = check(out, s, f, why);
    if (*error == 0 && out->type == NBD_CMD_BLOCK_STATUS && out->payload &&
        !is_filter(out->payload)) {
        *why = "not a list of contexts";
        *error = NBD_EINVAL;
    }
    return 0;
}

uint64_t nbd_ask_memory(const struct nbd_ask *a)
{
    const struct command *c = &commands[a->type];

    return c->has_data ? a->length : c->at_home ? CACHE_STEP : 0;
}

uint32_t nbd_ask_narrow(struct nbd_ask *a, const void *payload, const struct nbd_session *s,
                        const struct nbd_facts *f, const char **why)
{
    struct nbd_status_filter head;
    const uint8_t *at = payload;

    memcpy(&head, at, sizeof(head));
    a->length = be64_get(head.length);
    a->flags &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
    a->asked = 0;
    for (size_t left = a->payload - sizeof(head); left; left -= sizeof(be32)) {
        be32 raw;
        uint32_t id;

        memcpy(&raw, at + a->payload - left, sizeof(raw));
        id = be32_get(raw);
        if (id - 1 >= NBD_MAX_CONTEXTS || !(s->agreed >> (id - 1) & 1) ||
            a->asked >> (id - 1) & 1) {
            *why = "a context that was not agreed, or one twice";
            return NBD_EINVAL;
        }
        a->asked |= 1u << (id - 1);
    }
    return check_status(a, s, f, why);
}

/* --- running --- */

static struct blk_device *dev_of(const struct nbd_request *r)
{
    return r->conn->export->dev;
}

static int co_read(struct nbd_request *r)
{
    struct vec to = VEC_BUF(r->data, r->ask.length);

    return co_blk_read_here(dev_of(r), r->ask.offset, &to);
}

static int co_write(struct nbd_request *r)
{
    struct vec from = VEC_BUF(r->data, r->ask.length);

    if (r->ask.flags & NBD_CMD_FLAG_FUA)
        return co_blk_write(dev_of(r), r->ask.offset, &from, BLK_FUA);
    return co_blk_write_here(dev_of(r), r->ask.offset, &from);
}

static int co_flush(struct nbd_request *r)
{
    return co_blk_flush(dev_of(r));
}

/* What is longer than any 32-bit request goes in steps: others get their turn, and a client that
 * has gone is noticed. */
static int co_in_steps(struct nbd_request *r, unsigned flags,
                       int (*co_step)(struct blk_device *dev, uint64_t at, uint64_t bytes,
                                      unsigned flags))
{
    uint64_t at = r->ask.offset, left = r->ask.length;

    while (left > LONG_STEP) {
        TRY(co_step(dev_of(r), at, LONG_STEP, flags & ~(unsigned)BLK_FUA));
        at += LONG_STEP;
        left -= LONG_STEP;
        co_yield ();
        if (r->conn->broken)
            return -ECANCELED;
    }
    TRY(co_step(dev_of(r), at, left, flags & ~(unsigned)BLK_FUA));
    return flags & BLK_FUA ? co_blk_flush(dev_of(r)) : 0;
}

static int co_trim_step(struct blk_device *dev, uint64_t at, uint64_t bytes, unsigned flags)
{
    return co_blk_discard(dev, at, bytes);
}

static int co_trim(struct nbd_request *r)
{
    return co_in_steps(r, r->ask.flags & NBD_CMD_FLAG_FUA ? BLK_FUA : 0, co_trim_step);
}

static int co_write_zeroes(struct nbd_request *r)
{
    unsigned flags = 0;

    if (r->ask.flags & NBD_CMD_FLAG_FUA)
        flags |= BLK_FUA;
    if (!(r->ask.flags & NBD_CMD_FLAG_NO_HOLE))
        flags |= BLK_MAY_UNMAP;
    if (r->ask.flags & NBD_CMD_FLAG_FAST_ZERO)
        flags |= BLK_NO_FALLBACK;
    if (r->ask.length <= LONG_STEP)
        return co_blk_write_zeroes(dev_of(r), r->ask.offset, r->ask.length, flags);
    return co_in_steps(r, flags, co_blk_write_zeroes);
}

/* Reads through a small buffer what no host file can be told about. */
static int co_cache_by_reading(struct nbd_request *r, uint64_t at, uint64_t bytes)
{
    int rc = 0;

    while (rc == 0 && bytes) {
        uint64_t n = MIN(bytes, CACHE_STEP);

        rc = co_blk_read_buf(dev_of(r), at, r->data, n);
        at += n;
        bytes -= n;
    }
    return rc;
}

static int co_cache(struct nbd_request *r)
{
    uint64_t at = r->ask.offset, end = at + MIN(r->ask.length, CACHE_MOST);

    while (at < end) {
        struct blk_place place;
        uint64_t n = MIN(end - at, CACHE_STEP);

        if (r->conn->broken)
            return -ECANCELED;

        if (blk_resolve(dev_of(r), at, MIN(end - at, ADVISE_STEP), false, &place)) {
            n = place.bytes;
            co_host_advise(place.file, HOST_WILL_NEED, place.offset, n);
        } else {
            TRY(co_cache_by_reading(r, at, n));
        }
        at += n;
    }
    return 0;
}

/* --- block status --- */

/* A run of one kind, in some context. */
struct run {
    uint64_t bytes;
    uint32_t value;
};

static int co_allocation_run(struct nbd_request *r, unsigned index, uint64_t at, uint64_t bytes,
                             struct run *out)
{
    struct blk_extent x;
    unsigned depth;

    TRY(co_blk_map_chain(dev_of(r), NULL, at, bytes, &x, &depth));
    out->bytes = x.bytes;
    if (index == NBD_DEPTH)
        out->value = x.flags & BLK_EXT_ALLOCATED ? depth + 1 : 0;
    else
        out->value = (x.flags & BLK_EXT_DATA ? 0 : NBD_EXTENT_HOLE) |
                     (x.flags & BLK_EXT_ZERO ? NBD_EXTENT_ZERO : 0);
    return 0;
}

static int co_dirty_run(struct nbd_request *r, unsigned index, uint64_t at, uint64_t bytes,
                        struct run *out)
{
    struct blk_error e = {0};
    struct blk_bitmap_extent x;

    TRY(co_blk_bitmap_read(dev_of(r), nbd_context_rest(r->conn->contexts, index), at, bytes, &x,
                           &e));
    *out = (struct run){x.bytes, x.dirty};
    return 0;
}

static size_t put_extent(uint8_t *to, bool extended, struct run run)
{
    struct nbd_extent_ext x = {be64_of(run.bytes), be64_of(run.value)};
    struct nbd_extent w = {be32_of((uint32_t)run.bytes), be32_of(run.value)};

    memcpy(to, extended ? (void *)&x : (void *)&w, extended ? sizeof(x) : sizeof(w));
    return extended ? sizeof(x) : sizeof(w);
}

/* One context's extents, neighbours that agree as one, to @to; at most @most of them. */
static int co_find_runs(struct nbd_request *r, unsigned index, uint8_t *to, uint32_t most,
                        uint32_t *count)
{
    uint64_t at = r->ask.offset, end = at + r->ask.length;
    struct run all = {0}, one;

    *count = 0;
    for (unsigned step = 1; at < end && step <= MAP_STEPS; step++) {
        TRY((index < NBD_FIRST_BITMAP ? co_allocation_run : co_dirty_run)(r, index, at, end - at,
                                                                          &one));
        one.bytes = MIN(one.bytes, end - at);
        if (one.bytes == 0)
            return -EIO;
        if (all.bytes && one.value != all.value) {
            to += put_extent(to, r->conn->session.extended, all);
            all.bytes = 0;
            if (++*count == most)
                return 0;
        }
        all.value = one.value;
        all.bytes += one.bytes;
        at += one.bytes;
        if (step % MAP_BURST == 0)
            co_yield ();
    }
    put_extent(to, r->conn->session.extended, all);
    ++*count;
    return 0;
}

/* How many extents of each context there may be, and how long one is. */
static uint32_t most_extents(const struct nbd_request *r)
{
    unsigned contexts = (unsigned)__builtin_popcount(r->ask.asked);

    return r->ask.flags & NBD_CMD_FLAG_REQ_ONE || !contexts ? 1 : NBD_MAX_EXTENTS / contexts;
}

static size_t extent_bytes(const struct nbd_request *r)
{
    return r->conn->session.extended ? sizeof(struct nbd_extent_ext) : sizeof(struct nbd_extent);
}

static int room_for_status(struct nbd_request *r)
{
    unsigned contexts = (unsigned)__builtin_popcount(r->ask.asked);

    return nbd_request_buf(r, sizeof(struct nbd_found) +
                                  MAX(contexts, 1u) * most_extents(r) * extent_bytes(r));
}

static int co_block_status(struct nbd_request *r)
{
    struct nbd_found *found = (struct nbd_found *)(void *)r->data;
    size_t at = sizeof(*found), each = extent_bytes(r);

    found->contexts = 0;
    for (unsigned i = 0; i < NBD_MAX_CONTEXTS; i++) {
        uint32_t count;

        if (!(r->ask.asked >> i & 1))
            continue;
        TRY(co_find_runs(r, i, r->data + at, most_extents(r), &count));
        found->of[found->contexts].id = i + 1;
        found->of[found->contexts].extents = count;
        found->of[found->contexts].at = at;
        found->of[found->contexts++].bytes = count * each;
        at += count * each;
    }
    return 0;
}

/* --- now or later --- */

static void count(struct nbd_request *r)
{
    struct nbd_export_stats *s = r->conn->stats;

    switch (r->ask.type) {
    case NBD_CMD_READ:
        s->reads++;
        s->read_bytes += r->ask.length;
        break;
    case NBD_CMD_WRITE:
        s->writes++;
        s->written_bytes += r->ask.length;
        break;
    case NBD_CMD_FLUSH:
        s->flushes++;
        break;
    default:
        s->others++;
    }
}

/* In its turn where exports share (sharing.h); flushes wait for nobody. */
static int co_run_in_turn(struct nbd_request *r, struct share *share)
{
    const struct command *c = &commands[r->ask.type];
    struct share_ticket t;
    int rc;

    if (!c->has_range)
        return c->co_run(r);
    co_share_begin(share, c->has_data ? r->ask.length : 0, &t);
    rc = c->co_run(r);
    co_share_end(share, &t);
    return rc;
}

static int co_run_here(void *arg)
{
    struct nbd_request *r = arg;
    struct share *share = r->conn->export->share;

    return share ? co_run_in_turn(r, share) : commands[r->ask.type].co_run(r);
}

static void co_run(void *arg)
{
    struct nbd_request *r = arg;

    if (commands[r->ask.type].at_home)
        nbd_reply(r, co_on(dev_of(r)->home, co_run_here, r));
    else
        nbd_reply(r, co_run_here(r));
}

static void run_later(struct nbd_request *r)
{
    if (co_start(co_run, r) < 0)
        nbd_reply(r, -ENOMEM);
}

static bool read_now(struct nbd_request *r)
{
    struct blk_device *dev = dev_of(r);
    uint64_t done = 0;

    while (done < r->ask.length) {
        struct blk_place place;

        if (!blk_resolve(dev, r->ask.offset + done, r->ask.length - done, false, &place))
            return false;
        struct vec to = VEC_BUF(r->data + done, place.bytes);
        if (host_read_now(place.file, place.offset, &to) != (int64_t)place.bytes)
            return false;
        done += place.bytes;
    }
    return true;
}

/* A part that was written before the rest had to wait is simply written again. */
static bool write_now(struct nbd_request *r, const uint8_t *from)
{
    struct blk_device *dev = dev_of(r);
    uint64_t done = 0;

    while (done < r->ask.length) {
        struct blk_place place;

        if (!blk_resolve(dev, r->ask.offset + done, r->ask.length - done, true, &place))
            return false;
        struct vec part = VEC_BUF(from + done, place.bytes);
        if (host_write_now(place.file, place.offset, &part) != (int64_t)place.bytes)
            return false;
        done += place.bytes;
    }
    return true;
}

/* A long read of what lies in the page cache is not copied there: the socket takes the pages. */
static bool send_from_file(struct nbd_request *r)
{
    struct blk_place place;

    return r->ask.length >= NBD_FILE_READ && !r->conn->stream->sealed &&
           blk_resolve_steady(dev_of(r), r->ask.offset, r->ask.length, false, &place) &&
           place.bytes == r->ask.length && host_resident(place.file, place.offset, place.bytes) &&
           nbd_request_hold_file(r, place.file, place.offset);
}

static int room_for_read(struct nbd_request *r)
{
    if (r->ask.length > NBD_SMALL_READ)
        return nbd_request_buf(r, r->ask.length);
    TRY(nbd_request_buf(r, NBD_HEAD_ROOM + r->ask.length));
    r->data += NBD_HEAD_ROOM;
    return 0;
}

/* What is sent from a file goes at once: its client takes it while the next one is looked for. */
static void run_read(struct nbd_request *r)
{
    struct nbd_conn *c = r->conn;

    if (!c->export->share && send_from_file(r)) {
        nbd_reply(r, 0);
        nbd_send(c);
    } else if (room_for_read(r) < 0)
        nbd_reply(r, -ENOMEM);
    else if (!c->export->share && read_now(r))
        nbd_reply(r, 0);
    else
        run_later(r);
}

static void run_write(struct nbd_request *r, const uint8_t *payload)
{
    if (!(r->ask.flags & NBD_CMD_FLAG_FUA) && !r->conn->export->share &&
        write_now(r, payload ? payload : r->data)) {
        nbd_reply(r, 0);
        return;
    }
    if (payload) { /* lies in the receive buffer, which goes on to the next requests */
        if (nbd_request_buf(r, r->ask.length) < 0) {
            nbd_reply(r, -ENOMEM);
            return;
        }
        memcpy(r->data, payload, r->ask.length);
    }
    run_later(r);
}

static void run_status(struct nbd_request *r, const uint8_t *payload)
{
    struct nbd_facts facts = nbd_facts_now(&r->conn->export->facts);
    const char *why = "";
    uint32_t error = 0;

    if (r->ask.payload)
        error =
            nbd_ask_narrow(&r->ask, payload ? payload : r->data, &r->conn->session, &facts, &why);
    nbd_request_drop_buf(r);
    if (error)
        nbd_reply_error(r, error, why);
    else if (room_for_status(r) < 0)
        nbd_reply(r, -ENOMEM);
    else
        run_later(r);
}

void nbd_request_run(struct nbd_request *r, const uint8_t *payload)
{
    count(r);
    if (r->ask.type == NBD_CMD_READ)
        run_read(r);
    else if (r->ask.type == NBD_CMD_WRITE)
        run_write(r, payload);
    else if (r->ask.type == NBD_CMD_BLOCK_STATUS)
        run_status(r, payload);
    else if (r->ask.type == NBD_CMD_CACHE && nbd_request_buf(r, CACHE_STEP) < 0)
        nbd_reply(r, -ENOMEM);
    else
        run_later(r);
}

static const struct command commands[NBD_COMMANDS] = {
    [NBD_CMD_READ] = {.name = "read",
                      .flags = NBD_CMD_FLAG_DF,
                      .has_range = true,
                      .has_data = true,
                      .co_run = co_read},
    [NBD_CMD_WRITE] = {.name = "write",
                       .flags = NBD_CMD_FLAG_PAYLOAD_LEN,
                       .writes = true,
                       .has_range = true,
                       .has_data = true,
                       .co_run = co_write},
    [NBD_CMD_DISC] = {.name = "disconnect"},
    [NBD_CMD_FLUSH] = {.name = "flush", .co_run = co_flush},
    [NBD_CMD_TRIM] = {.name = "trim", .writes = true, .has_range = true, .co_run = co_trim},
    [NBD_CMD_CACHE] = {.name = "cache", .has_range = true, .at_home = true, .co_run = co_cache},
    [NBD_CMD_WRITE_ZEROES] = {.name = "write zeroes",
                              .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
                              .writes = true,
                              .has_range = true,
                              .co_run = co_write_zeroes},
    [NBD_CMD_BLOCK_STATUS] = {.name = "block status",
                              .flags = NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN,
                              .has_range = true,
                              .at_home = true,
                              .co_run = co_block_status},
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* request.c - what a request may be, and running it.
 *
 * A request is checked once, against a row of the command table and the export's facts, before
 * anything is allocated for it. Reads and plain overwrites that resolve answers and the host can do
 * at once are done on the spot, without a coroutine; all else is one coroutine per request. */
#include "nbd/connection.h"
#include "nbd/handshake.h"

#define CACHE_STEP  (256u << 10) /* of reading ahead through a buffer */
#define ADVISE_STEP (16u << 20)  /* of telling the host */
#define MAP_STEPS   2048u        /* look-ups for one BLOCK_STATUS: a shorter answer is allowed */
#define MAP_BURST   128u         /* look-ups before others get their turn */

/* --- what may be asked --- */

static const struct command {
    const char *name;
    uint16_t flags; /* that are valid; FUA is with all */
    bool writes, has_range, has_data;
    int (*co_run)(struct nbd_request *r);
} commands[NBD_COMMANDS];

static bool beyond(uint64_t offset, uint32_t bytes, uint64_t size)
{
    return !range_fits(offset, bytes, size);
}

static uint32_t check_range(const struct nbd_ask *a, const struct command *c,
                            const struct nbd_session *s, const struct nbd_facts *f,
                            const char **why)
{
    if (c->has_data && a->length > f->max_block) {
        *why = "longer than the advertised maximum";
        return a->type == NBD_CMD_READ ? NBD_EOVERFLOW : NBD_EINVAL;
    }
    if (beyond(a->offset, a->length, f->size)) {
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

static uint32_t check(const struct nbd_ask *a, const struct nbd_session *s,
                      const struct nbd_facts *f, const char **why)
{
    const struct command *c;
    uint16_t valid;

    if (a->type >= NBD_COMMANDS) {
        *why = "this command is not known here";
        return NBD_EINVAL;
    }
    c = &commands[a->type];
    valid = c->flags | NBD_CMD_FLAG_FUA;
    if (!s->structured)
        valid &= (uint16_t)~NBD_CMD_FLAG_DF;
    if (a->flags & ~valid) {
        *why = "a flag that this command does not know";
        return NBD_EINVAL;
    }
    if (c->writes && (f->flags & NBD_FLAG_READ_ONLY)) {
        *why = "the export is read-only";
        return NBD_EPERM;
    }
    if (a->type == NBD_CMD_BLOCK_STATUS && (!s->allocation || a->length == 0)) {
        *why = s->allocation ? "block status of no bytes" : "no meta context was agreed";
        return NBD_EINVAL;
    }
    return c->has_range ? check_range(a, c, s, f, why) : 0;
}

int nbd_ask_parse(const struct nbd_request_wire *raw, const struct nbd_session *s,
                  const struct nbd_facts *f, struct nbd_ask *out, uint32_t *error, const char **why)
{
    if (be32_get(raw->magic) != NBD_REQUEST_MAGIC)
        return -EPROTO;
    *out = (struct nbd_ask){
        .type = be16_get(raw->type),
        .flags = be16_get(raw->flags),
        .length = be32_get(raw->length),
        .offset = be64_get(raw->offset),
        .cookie = raw->cookie,
    };
    *why = "";
    *error = check(out, s, f, why);
    return 0;
}

/* --- running --- */

static struct blk_device *dev_of(const struct nbd_request *r)
{
    return r->conn->export->dev;
}

static int co_read(struct nbd_request *r)
{
    return co_blk_read_buf(dev_of(r), r->ask.offset, r->data, r->ask.length);
}

static int co_write(struct nbd_request *r)
{
    unsigned flags = r->ask.flags & NBD_CMD_FLAG_FUA ? BLK_FUA : 0;

    return co_blk_write_buf(dev_of(r), r->ask.offset, r->data, r->ask.length, flags);
}

static int co_flush(struct nbd_request *r)
{
    return co_blk_flush(dev_of(r));
}

static int co_trim(struct nbd_request *r)
{
    TRY(co_blk_discard(dev_of(r), r->ask.offset, r->ask.length));
    return r->ask.flags & NBD_CMD_FLAG_FUA ? co_blk_flush(dev_of(r)) : 0;
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
    return co_blk_write_zeroes(dev_of(r), r->ask.offset, r->ask.length, flags);
}

/* Reads through a small buffer what no host file can be told about. */
static int co_cache_by_reading(struct nbd_request *r, uint64_t at, uint64_t bytes)
{
    int rc = r->buf ? 0 : nbd_request_buf(r, CACHE_STEP);

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
    uint64_t at = r->ask.offset, end = at + r->ask.length;

    while (at < end) {
        struct blk_place place;
        uint64_t n = MIN(end - at, CACHE_STEP);

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

static uint32_t extent_flags(const struct blk_extent *x)
{
    return (x->flags & BLK_EXT_DATA ? 0 : NBD_EXTENT_HOLE) |
           (x->flags & BLK_EXT_ZERO ? NBD_EXTENT_ZERO : 0);
}

/* Collects extents, merged where neighbours agree, into r->data. */
static int co_block_status(struct nbd_request *r)
{
    bool one = r->ask.flags & NBD_CMD_FLAG_REQ_ONE;
    uint64_t at = r->ask.offset, end = at + r->ask.length;
    unsigned count = 0, most = one ? 1 : NBD_MAX_EXTENTS;
    struct nbd_extent *list;
    uint32_t run = 0, flags = 0;

    TRY(nbd_request_buf(r, most * sizeof(*list)));
    list = (struct nbd_extent *)(void *)r->data;
    for (unsigned step = 1; at < end && step <= MAP_STEPS; step++) {
        struct blk_extent x;
        unsigned depth;

        TRY(co_blk_map_chain(dev_of(r), NULL, at, end - at, &x, &depth));
        x.bytes = MIN(x.bytes, end - at);
        if (x.bytes == 0)
            return -EIO;
        if (run && extent_flags(&x) != flags) {
            list[count++] = (struct nbd_extent){be32_of(run), be32_of(flags)};
            run = 0;
            if (count == most)
                break;
        }
        flags = extent_flags(&x);
        run += (uint32_t)x.bytes;
        at += x.bytes;
        if (step % MAP_BURST == 0)
            co_yield ();
    }
    if (run)
        list[count++] = (struct nbd_extent){be32_of(run), be32_of(flags)};
    r->filled = (uint32_t)(count * sizeof(*list));
    return 0;
}

static void count(struct nbd_request *r)
{
    struct nbd_export_stats *s = &r->conn->export->stats;

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

static void co_run(void *arg)
{
    struct nbd_request *r = arg;

    nbd_reply(r, commands[r->ask.type].co_run(r));
}

static void run_later(struct nbd_request *r)
{
    if (co_start(co_run, r) < 0)
        nbd_reply(r, -ENOMEM);
}

static bool read_now(struct nbd_request *r)
{
    struct blk_device *dev = dev_of(r);
    uint32_t done = 0;

    while (done < r->ask.length) {
        struct blk_place place;

        if (!blk_resolve(dev, r->ask.offset + done, r->ask.length - done, false, &place))
            return false;
        struct vec to = VEC_BUF(r->data + done, place.bytes);
        if (host_read_now(place.file, place.offset, &to) != (int64_t)place.bytes)
            return false;
        done += (uint32_t)place.bytes;
    }
    return true;
}

/* A part that was written before the rest had to wait is simply written again. */
static bool write_now(struct nbd_request *r, const uint8_t *from)
{
    struct blk_device *dev = dev_of(r);
    uint32_t done = 0;

    while (done < r->ask.length) {
        struct blk_place place;

        if (!blk_resolve(dev, r->ask.offset + done, r->ask.length - done, true, &place))
            return false;
        struct vec part = VEC_BUF(from + done, place.bytes);
        if (host_write_now(place.file, place.offset, &part) != (int64_t)place.bytes)
            return false;
        done += (uint32_t)place.bytes;
    }
    return true;
}

/* A long read of what lies in the page cache is not copied there: the socket takes the pages. */
static bool send_from_file(struct nbd_request *r)
{
    struct blk_place place;

    return r->ask.length >= NBD_FILE_READ && !r->conn->stream->sealed &&
           blk_resolve_steady(dev_of(r), r->ask.offset, r->ask.length, &place) &&
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

void nbd_request_run(struct nbd_request *r, const uint8_t *payload)
{
    count(r);
    if (r->ask.type == NBD_CMD_READ) {
        if (send_from_file(r))
            nbd_reply(r, 0);
        else if (room_for_read(r) < 0)
            nbd_reply(r, -ENOMEM);
        else if (read_now(r))
            nbd_reply(r, 0);
        else
            run_later(r);
        return;
    }
    if (r->ask.type == NBD_CMD_WRITE) {
        const uint8_t *from = payload ? payload : r->data;

        if (!(r->ask.flags & NBD_CMD_FLAG_FUA) && write_now(r, from)) {
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
    }
    run_later(r);
}

static const struct command commands[NBD_COMMANDS] = {
    [NBD_CMD_READ] = {"read", NBD_CMD_FLAG_DF, false, true, true, co_read},
    [NBD_CMD_WRITE] = {"write", 0, true, true, true, co_write},
    [NBD_CMD_DISC] = {"disconnect", 0, false, false, false, NULL},
    [NBD_CMD_FLUSH] = {"flush", 0, false, false, false, co_flush},
    [NBD_CMD_TRIM] = {"trim", 0, true, true, false, co_trim},
    [NBD_CMD_CACHE] = {"cache", 0, false, true, false, co_cache},
    [NBD_CMD_WRITE_ZEROES] = {"write zeroes", NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true,
                              true, false, co_write_zeroes},
    [NBD_CMD_BLOCK_STATUS] = {"block status", NBD_CMD_FLAG_REQ_ONE, false, true, false,
                              co_block_status},
};

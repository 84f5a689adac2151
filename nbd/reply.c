/* SPDX-License-Identifier: BSD-3-Clause */
/* reply.c - replies: put together in the request, queued, and sent many at a time.
 *
 * A small read's header lies in the bytes before its page-aligned data, so it is one piece. Long
 * reads are cut into chunks where they hold zeroes: a hole costs 32 bytes instead of its length.
 * Whatever is ready when a loop turn ends goes out by one sendmsg.
 *
 * Long reads of what lies in the page cache are a header and a piece of a file, sent by sendfile:
 * the socket then holds the pages themselves until the peer takes them. So only bytes that have
 * their place for good are sent so (blk_resolve_steady): what the peer gets is what was there at
 * some time between its question and its taking the answer. The device is held until all of it is
 * in the socket; a client that takes nothing for 0.2 s has the rest copied, so that it does
 * not hold up a change of the device. */
#include "nbd/connection.h"
#include "nbd/server.h"

#define BATCH_PIECES 512 /* per sendmsg; 8 KiB of a coroutine's stack */
#define HOLE_BLOCK   (64u << 10)
#define MAX_CHUNKS   64u
#define FILE_STEP    (256u << 10) /* of what is sent from a file between two looks at the cache */
#define WIDE_BYTES   (1u << 20)   /* room in the socket for clients that read in long pieces */

uint32_t nbd_errno_of(int rc)
{
    switch (-rc) {
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

/* --- sending --- */

/* Takes @bytes off the front of the queue; requests that are through are put back. */
static void take_off(struct nbd_conn *c, size_t bytes)
{
    struct nbd_latency *latency = c->stats->latency;
    uint64_t now = worker_now();

    while (c->out_first) {
        struct nbd_request *r = c->out_first;

        for (; r->pieces && bytes >= r->piece->iov_len; r->pieces--, r->piece++)
            bytes -= r->piece->iov_len;
        if (!r->pieces && r->file_left)
            return;
        if (r->pieces) {
            r->piece->iov_base = (uint8_t *)r->piece->iov_base + bytes;
            r->piece->iov_len -= bytes;
            return;
        }
        c->out_first = r->next;
        if (!c->out_first)
            c->out_last = NULL;
        nbd_latency_add(&latency[nbd_kind_of(r->ask.type)], now - r->began);
        nbd_request_put(r);
    }
}

/* A Unix socket holds 200 KiB at first: what is longer would take a wake of both sides for each. */
static void widen(struct nbd_conn *c)
{
    if (!c->wide && nbd_server_widens(c->server)) {
        c->wide = true;
        host_stream_widen(c->stream, WIDE_BYTES);
    }
}

/* One sendfile; as send_batch(). */
static int send_file(struct nbd_conn *c)
{
    struct nbd_request *r = c->out_first;
    int64_t sent = host_stream_send_file(c->stream, r->file, r->file_at, r->file_left);

    if (sent == -EAGAIN) {
        widen(c);
        return 0;
    }
    if (sent <= 0)
        return sent ? (int)sent : -EIO; /* shorter than a moment ago: the reply cannot be ended */
    r->file_at += (uint64_t)sent;
    r->file_left -= (uint64_t)sent;
    take_off(c, 0);
    return 1;
}

/* One sendmsg: 1 all of the batch went, 0 the socket is full, or a negative errno. */
static int send_batch(struct nbd_conn *c)
{
    struct iovec iov[BATCH_PIECES];
    unsigned n = 0;
    size_t bytes = 0;
    bool file_follows = false;
    int64_t sent;

    if (c->out_first->pieces == 0)
        return send_file(c);
    for (struct nbd_request *r = c->out_first; r && n < BATCH_PIECES; r = r->next) {
        for (unsigned i = 0; i < r->pieces && n < BATCH_PIECES; i++) {
            iov[n++] = r->piece[i];
            bytes += r->piece[i].iov_len;
        }
        file_follows = r->file_left > 0;
        if (file_follows)
            break;
    }
    sent = host_stream_sendv(c->stream, iov, n);
    if (sent < 0 && sent != -EAGAIN)
        return (int)sent;
    if (sent > 0)
        take_off(c, (size_t)sent);
    if (sent != (int64_t)bytes && (bytes > FILE_STEP || file_follows))
        widen(c);
    return sent == (int64_t)bytes;
}

static void drop_all(struct nbd_conn *c)
{
    while (c->out_first) {
        struct nbd_request *r = c->out_first;

        c->out_first = r->next;
        nbd_request_put(r);
    }
    c->out_last = NULL;
}

/* What is left to be sent from a file is sent from memory. */
static int co_copy_rest(struct nbd_request *r)
{
    struct host_file *file = r->file;
    uint64_t at = r->file_at, left = r->file_left;
    struct vec to;
    int64_t got;

    if (nbd_server_crowded(r->conn->server))
        return -ENOMEM;
    TRY(nbd_request_buf(r, left));
    to = (struct vec)VEC_BUF(r->data, left);
    got = co_host_read(file, at, &to);
    if (got != (int64_t)left)
        return got < 0 ? (int)got : -EIO;
    nbd_request_drop_file(r);
    if (!r->pieces)
        r->piece = r->own;
    r->piece[r->pieces++] = (struct iovec){.iov_base = r->data, .iov_len = left};
    return 0;
}

static int co_copy_rests(struct nbd_conn *c)
{
    for (struct nbd_request *r = c->out_first; r && !c->broken; r = r->next)
        if (r->file_left)
            TRY(co_copy_rest(r));
    return 0;
}

/* Has what is sent next from a file read, if it left the page cache since it was asked for. */
static int co_bring_in(struct nbd_conn *c)
{
    const struct nbd_request *r = c->out_first;
    uint64_t bytes = MIN(r->file_left, FILE_STEP);
    struct vec to;
    uint8_t *buf;
    int64_t got;

    if (r->pieces || !bytes || host_resident(r->file, r->file_at, bytes))
        return 1;
    buf = buf_get(FILE_STEP);
    if (!buf)
        return -ENOMEM;
    to = (struct vec)VEC_BUF(buf, bytes);
    got = co_host_read(r->file, r->file_at, &to);
    buf_put(buf, FILE_STEP);
    return got < 0 ? (int)got : 1;
}

/* A client that takes nothing for a whole time limit is dropped; a slow one, when others wait for
 * the memory that its answers hold. */
static int co_wait_writable(struct nbd_conn *c)
{
    uint64_t limit = nbd_server_limits(c->server)->slow_ns, waited = 0;

    if (!c->out_first->moving_since)
        c->out_first->moving_since = worker_now();
    for (;;) {
        uint64_t now = MIN(NBD_PATIENCE_NS, limit - waited);
        int rc = co_host_stream_wait(c->stream, HOST_WRITABLE, now);

        if (nbd_conn_stands_still(c->out_first, rc))
            return -ETIMEDOUT;
        if (rc != -ETIMEDOUT)
            return rc;
        TRY(co_copy_rests(c));
        waited += now;
        if (waited == limit)
            return -ETIMEDOUT;
    }
}

/* Runs while the socket is full. */
static void co_sender(void *arg)
{
    struct nbd_conn *c = arg;
    int rc = 0;

    while (c->out_first && !c->broken && rc >= 0) {
        rc = co_wait_writable(c);
        while (rc > 0 && c->out_first && !c->broken) {
            rc = co_bring_in(c);
            if (rc > 0)
                rc = send_batch(c);
        }
        nbd_conn_settle(c);
    }
    c->sending = false;
    if (rc < 0)
        nbd_conn_abort(c);
    if (c->broken)
        drop_all(c);
    nbd_conn_settle(c);
}

void nbd_send(struct nbd_conn *c)
{
    int rc = 1;

    if (c->sending)
        return;
    while (c->out_first && !c->broken && rc == 1)
        rc = send_batch(c);
    if (rc < 0)
        nbd_conn_abort(c);
    if (c->broken) {
        drop_all(c);
    } else if (c->out_first) {
        c->sending = true;
        if (co_start(co_sender, c) < 0) {
            c->sending = false;
            nbd_conn_abort(c);
            drop_all(c);
        }
    }
    nbd_conn_settle(c);
}

static void on_turn_end(struct turn_hook *h)
{
    struct nbd_conn *c = container_of(h, struct nbd_conn, hook);

    c->hooked = false;
    nbd_send(c);
}

static void queue(struct nbd_request *r)
{
    struct nbd_conn *c = r->conn;

    r->next = NULL;
    if (c->out_last)
        c->out_last->next = r;
    else
        c->out_first = r;
    c->out_last = r;
    if (!c->hooked && !c->sending) {
        c->hooked = true;
        worker_at_turn_end(&c->hook, on_turn_end);
    }
}

/* --- putting together --- */

static void piece(struct nbd_request *r, void *base, size_t bytes)
{
    r->piece[r->pieces++] = (struct iovec){.iov_base = base, .iov_len = bytes};
}

static void set_simple(struct nbd_simple_reply *h, const struct nbd_request *r, uint32_t error)
{
    *h = (struct nbd_simple_reply){
        .magic = be32_of(NBD_SIMPLE_MAGIC), .error = be32_of(error), .cookie = r->ask.cookie};
}

/* The header of a chunk with @bytes behind it; how long it is. */
static size_t set_chunk(uint8_t *to, const struct nbd_request *r, uint16_t type, bool last,
                        uint64_t bytes)
{
    bool extended = r->conn->session.extended;
    struct nbd_chunk_ext x = {
        .magic = be32_of(NBD_EXT_REPLY_MAGIC),
        .flags = be16_of(last ? NBD_CHUNK_DONE : 0),
        .type = be16_of(type),
        .cookie = r->ask.cookie,
        .offset = be64_of(r->ask.offset),
        .bytes = be64_of(bytes),
    };
    struct nbd_chunk w = {
        .magic = be32_of(NBD_STRUCTURED_MAGIC),
        .flags = x.flags,
        .type = x.type,
        .cookie = x.cookie,
        .bytes = be32_of((uint32_t)bytes),
    };

    memcpy(to, extended ? (void *)&x : (void *)&w, extended ? sizeof(x) : sizeof(w));
    return extended ? sizeof(x) : sizeof(w);
}

static void begin(struct nbd_request *r)
{
    r->piece = r->own;
    r->pieces = 0;
}

/* The header goes before the data where there is room for it. */
static void put_before_data(struct nbd_request *r, const void *head, size_t bytes)
{
    if (r->file) {
        memcpy(r->head, head, bytes);
        piece(r, r->head, bytes);
    } else if (r->data != r->buf) {
        memcpy(r->data - bytes, head, bytes);
        piece(r, r->data - bytes, bytes + r->ask.length);
    } else {
        memcpy(r->head, head, bytes);
        piece(r, r->head, bytes);
        piece(r, r->data, r->ask.length);
    }
}

static size_t set_hole(uint8_t *to, const struct nbd_request *r, uint32_t at, uint32_t bytes,
                       bool last)
{
    struct nbd_chunk_hole h = {be64_of(r->ask.offset + at), be32_of(bytes)};
    size_t head = set_chunk(to, r, NBD_CHUNK_HOLE, last, sizeof(h));

    memcpy(to + head, &h, sizeof(h));
    return head + sizeof(h);
}

static size_t set_data(uint8_t *to, const struct nbd_request *r, uint32_t at, uint32_t bytes,
                       bool last)
{
    struct nbd_chunk_data d = {be64_of(r->ask.offset + at)};
    size_t head = set_chunk(to, r, NBD_CHUNK_DATA, last, sizeof(d) + bytes);

    memcpy(to + head, &d, sizeof(d));
    return head + sizeof(d);
}

/* Where the run that begins at @at ends: all zero blocks, or none. */
static uint32_t run_end(const struct nbd_request *r, uint32_t at, uint32_t block, bool *zero)
{
    uint32_t end = at;

    do {
        uint32_t n = MIN(block, (uint32_t)r->ask.length - end);
        bool is_zero = mem_is_zero(r->data + end, n);

        if (end == at)
            *zero = is_zero;
        else if (is_zero != *zero)
            break;
        end += n;
    } while (end < r->ask.length);
    return end;
}

/* What a long reply of several chunks is made of; lies in r->more. */
struct chunk_list {
    struct iovec piece[2 * MAX_CHUNKS];
    uint8_t head[MAX_CHUNKS][sizeof(struct nbd_chunk_ext) + sizeof(struct nbd_chunk_hole)];
};

static struct chunk_list *get_list(struct nbd_request *r)
{
    struct chunk_list *list;

    r->more_bytes = sizeof(*list);
    r->more = buf_get(r->more_bytes);
    list = (struct chunk_list *)(void *)r->more;
    if (list)
        r->piece = list->piece;
    return list;
}

/* Chunks of data and holes. False: it is one run of data, or there is no memory for the list. */
static bool put_runs(struct nbd_request *r)
{
    uint32_t block = HOLE_BLOCK, at = 0, end;
    struct chunk_list *list;
    bool zero = false;

    while (r->ask.length / block >= MAX_CHUNKS)
        block *= 2;
    if (run_end(r, 0, block, &zero) == r->ask.length)
        return false;
    list = get_list(r);
    if (!list)
        return false;
    for (unsigned i = 0; at < r->ask.length; i++, at = end) {
        bool last;

        end = run_end(r, at, block, &zero);
        last = end == r->ask.length;
        piece(r, list->head[i], (zero ? set_hole : set_data)(list->head[i], r, at, end - at, last));
        if (!zero)
            piece(r, r->data + at, end - at);
    }
    return true;
}

static void put_read_structured(struct nbd_request *r)
{
    bool whole = r->ask.flags & NBD_CMD_FLAG_DF || r->file;
    uint32_t length = (uint32_t)r->ask.length;
    uint8_t head[NBD_HEAD_BYTES];

    if (length == 0)
        piece(r, r->head, set_chunk(r->head, r, NBD_CHUNK_NONE, true, 0));
    else if (!whole && mem_is_zero(r->data, length))
        piece(r, r->head, set_hole(r->head, r, 0, length, true));
    else if (whole || length < 2 * HOLE_BLOCK || !put_runs(r))
        put_before_data(r, head, set_data(head, r, 0, length, true));
}

static void put_read(struct nbd_request *r)
{
    struct nbd_simple_reply simple;

    if (r->conn->session.structured) {
        put_read_structured(r);
    } else {
        set_simple(&simple, r, 0);
        put_before_data(r, &simple, sizeof(simple));
    }
}

static size_t set_status(uint8_t *to, const struct nbd_request *r, unsigned i, bool last)
{
    const struct nbd_found *found = (const struct nbd_found *)(const void *)r->data;
    struct nbd_chunk_status_ext x = {be32_of(found->of[i].id), be32_of(found->of[i].extents)};
    bool extended = r->conn->session.extended;
    size_t own = extended ? sizeof(x) : sizeof(struct nbd_chunk_status), head;

    head = set_chunk(to, r, extended ? NBD_CHUNK_BLOCK_STATUS_EXT : NBD_CHUNK_BLOCK_STATUS, last,
                     own + found->of[i].bytes);
    memcpy(to + head, &x, own); /* they begin alike */
    return head + own;
}

/* One chunk for each context. False: no memory. */
static bool put_status(struct nbd_request *r)
{
    struct nbd_found *found = (struct nbd_found *)(void *)r->data;
    struct chunk_list *list = found->contexts > 1 ? get_list(r) : NULL;

    if (found->contexts == 0)
        piece(r, r->head, set_chunk(r->head, r, NBD_CHUNK_NONE, true, 0));
    if (found->contexts > 1 && !list)
        return false;
    for (unsigned i = 0; i < found->contexts; i++) {
        uint8_t *head = list ? list->head[i] : r->head;

        piece(r, head, set_status(head, r, i, i + 1 == found->contexts));
        piece(r, r->data + found->of[i].at, found->of[i].bytes);
    }
    return true;
}

static void put_done(struct nbd_request *r)
{
    nbd_request_drop_buf(r);
    if (r->conn->session.extended) {
        piece(r, r->head, set_chunk(r->head, r, NBD_CHUNK_NONE, true, 0));
    } else { /* a simple reply is allowed here whatever was agreed, and the shorter one */
        set_simple((struct nbd_simple_reply *)r->head, r, 0);
        piece(r, r->head, sizeof(struct nbd_simple_reply));
    }
}

void nbd_reply_error(struct nbd_request *r, uint32_t error, const char *why)
{
    nbd_request_drop_buf(r);
    begin(r);
    r->conn->stats->errors++;
    if (r->conn->session.structured) {
        size_t text = MIN(strlen(why), (size_t)100), head;
        struct nbd_chunk_error e = {be32_of(error), be16_of((uint16_t)text)};

        head = set_chunk(r->head, r, NBD_CHUNK_ERROR, true, sizeof(e) + text);
        memcpy(r->head + head, &e, sizeof(e));
        memcpy(r->head + head + sizeof(e), why, text);
        piece(r, r->head, head + sizeof(e) + text);
    } else {
        set_simple((struct nbd_simple_reply *)r->head, r, error);
        piece(r, r->head, sizeof(struct nbd_simple_reply));
    }
    queue(r);
}

void nbd_reply(struct nbd_request *r, int rc)
{
    if (rc < 0) {
        nbd_reply_error(r, nbd_errno_of(rc), strerror(-rc));
        return;
    }
    begin(r);
    if (r->ask.type == NBD_CMD_READ)
        put_read(r);
    else if (r->ask.type != NBD_CMD_BLOCK_STATUS)
        put_done(r);
    else if (!put_status(r)) {
        nbd_reply_error(r, NBD_ENOMEM, strerror(ENOMEM));
        return;
    }
    queue(r);
}

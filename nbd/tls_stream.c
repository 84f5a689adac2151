/* SPDX-License-Identifier: BSD-3-Clause */
/* tls_stream.c - a stream that seals what goes through another one.
 *
 * GnuTLS reads and writes memory only. For the handshake it runs on the pool (its big numbers want
 * more stack than a coroutine has) and the coroutine moves the bytes; after it, records are opened
 * and sealed where recv and sendv are called.
 *
 * Sending: up to BATCH bytes of the caller's pieces become records in @out, which go out by one
 * call. If the socket does not take all of it, the caller is told that nothing was sent (-EAGAIN)
 * and comes again with the same bytes in front, as after any EAGAIN; then the rest of the records
 * goes out, and it is told of these bytes. Buffers are held only while they have something. */
#include "nbd/tls_private.h"

#if HAVE_GNUTLS

#define RECORD   16384u         /* most bytes in one */
#define BATCH    (7 * RECORD)   /* bytes sealed at a time */
#define OUT_ROOM (128u << 10)   /* BATCH with what records add; all that a handshake says at once */
#define OUT_BUF  (2 * OUT_ROOM) /* and behind it a record being put together */
#define IN_ROOM  (64u << 10)

struct sealed {
    struct host_stream pub;
    struct host host; /* whose table has the functions of this stream, and nothing else */
    struct host_stream *inner;
    gnutls_session_t session;
    bool shaking; /* in the handshake: memory only */
    bool inner_ended;
    bool failed;

    uint8_t *in; /* received and not yet opened */
    size_t in_start, in_end;
    uint8_t *out; /* sealed and not yet sent */
    size_t out_start, out_end;
    uint64_t untold; /* bytes that @out is made of */
};

static struct sealed *sealed_of(const struct host_stream *s)
{
    return container_of(s, struct sealed, pub);
}

/* --- buffers --- */

static int hold_in(struct sealed *s)
{
    if (!s->in)
        s->in = buf_get(IN_ROOM);
    return s->in ? 0 : -ENOMEM;
}

static int hold_out(struct sealed *s)
{
    if (!s->out)
        s->out = buf_get(OUT_BUF);
    return s->out ? 0 : -ENOMEM;
}

static void drop_empty(struct sealed *s)
{
    if (s->in && s->in_start == s->in_end) {
        buf_put(s->in, IN_ROOM);
        s->in = NULL;
        s->in_start = s->in_end = 0;
    }
    if (s->out && s->out_start == s->out_end) {
        buf_put(s->out, OUT_BUF);
        s->out = NULL;
        s->out_start = s->out_end = 0;
    }
}

/* More of the inner stream into @in. The count, 0 at its end, -EAGAIN. */
static int64_t fill_in(struct sealed *s)
{
    int64_t n;

    TRY(hold_in(s));
    if (s->in_start == s->in_end)
        s->in_start = s->in_end = 0;
    if (s->in_end == IN_ROOM)
        return -EMSGSIZE; /* a handshake message beyond all measure */
    n = host_stream_recv(s->inner, s->in + s->in_end, IN_ROOM - s->in_end);
    if (n > 0)
        s->in_end += (size_t)n;
    if (n == 0)
        s->inner_ended = true;
    return n;
}

/* 0: all is out. */
static int send_out(struct sealed *s)
{
    while (s->out_start < s->out_end) {
        struct iovec iov = {s->out + s->out_start, s->out_end - s->out_start};
        int64_t n = host_stream_sendv(s->inner, &iov, 1);

        if (n < 0)
            return (int)n;
        s->out_start += (size_t)n;
    }
    return 0;
}

/* --- what GnuTLS calls --- */

static ssize_t pull(gnutls_transport_ptr_t p, void *to, size_t bytes)
{
    struct sealed *s = p;

    if (s->in_start == s->in_end && !s->shaking && !s->inner_ended) {
        int64_t n = fill_in(s);

        if (n < 0) {
            gnutls_transport_set_errno(s->session, n == -EAGAIN ? EAGAIN : EIO);
            return -1;
        }
    }
    if (s->in_start == s->in_end) {
        gnutls_transport_set_errno(s->session, EAGAIN);
        return s->inner_ended ? 0 : -1;
    }
    bytes = MIN(bytes, s->in_end - s->in_start);
    memcpy(to, s->in + s->in_start, bytes);
    s->in_start += bytes;
    return (ssize_t)bytes;
}

static ssize_t push(gnutls_transport_ptr_t p, const giovec_t *iov, int count)
{
    struct sealed *s = p;
    size_t bytes = 0;

    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    if (bytes > OUT_ROOM - s->out_end || !s->out) {
        gnutls_transport_set_errno(s->session, EIO);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        memcpy(s->out + s->out_end, iov[i].iov_base, iov[i].iov_len);
        s->out_end += iov[i].iov_len;
    }
    return (ssize_t)bytes;
}

/* --- the stream --- */

/* The count, 0: the end, -EAGAIN, or why the session is broken. */
static int64_t meaning(struct sealed *s, ssize_t n)
{
    if (n >= 0)
        return n;
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
        return -EAGAIN;
    s->failed = true;
    return n == GNUTLS_E_PREMATURE_TERMINATION ? 0 : -EPROTO;
}

static int64_t sealed_recv(struct host_stream *pub, void *to, size_t bytes)
{
    struct sealed *s = sealed_of(pub);
    size_t got = 0;
    int64_t n = 0;

    if (s->failed)
        return -EPROTO;
    TRY(hold_out(s)); /* it may have to answer a change of keys */
    while (got < bytes) {
        n = meaning(s, gnutls_record_recv(s->session, (uint8_t *)to + got, bytes - got));
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    if (n == -EAGAIN && s->out_start < s->out_end && !s->untold && send_out(s) == -EPIPE)
        s->failed = true;
    drop_empty(s);
    return got ? (int64_t)got : n;
}

/* Up to a record of the caller's bytes from @skip on: where they lie if they lie together, else
 * copied behind @out. */
static size_t next_record(struct sealed *s, const struct iovec *iov, unsigned count, size_t skip,
                          const uint8_t **out)
{
    uint8_t *gather = s->out + OUT_ROOM;
    size_t have = 0;

    while (count && skip >= iov->iov_len) {
        skip -= iov->iov_len;
        iov++;
        count--;
    }
    if (count && (count == 1 || iov->iov_len - skip >= RECORD)) {
        *out = (const uint8_t *)iov->iov_base + skip;
        return MIN(RECORD, iov->iov_len - skip);
    }
    *out = gather;
    for (; count && have < RECORD; iov++, count--, skip = 0) {
        size_t n = MIN(RECORD - have, iov->iov_len - skip);

        memcpy(gather + have, (const uint8_t *)iov->iov_base + skip, n);
        have += n;
    }
    return have;
}

static int64_t seal(struct sealed *s, const struct iovec *iov, unsigned count)
{
    size_t done = 0, bytes;
    const uint8_t *from;

    while (done + RECORD <= BATCH && (bytes = next_record(s, iov, count, done, &from)) > 0) {
        int64_t n = meaning(s, gnutls_record_send(s->session, from, bytes));

        if (n <= 0) { /* push() never lacks room in between */
            s->failed = true;
            return -EPROTO;
        }
        done += (size_t)n;
    }
    return (int64_t)done;
}

static int64_t sealed_sendv(struct host_stream *pub, const struct iovec *iov, unsigned count)
{
    struct sealed *s = sealed_of(pub);
    int64_t n = 0;

    if (s->failed)
        return -EPROTO;
    TRY(hold_out(s));
    TRY(send_out(s));
    if (!s->untold) {
        s->out_start = s->out_end = 0;
        n = seal(s, iov, count);
        if (n < 0)
            return n;
        s->untold = (uint64_t)n;
        TRY(send_out(s));
    }
    n = (int64_t)s->untold;
    s->untold = 0;
    drop_empty(s);
    return n;
}

static int co_sealed_wait(struct host_stream *pub, unsigned what, uint64_t timeout_ns)
{
    struct sealed *s = sealed_of(pub);

    if ((what & HOST_READABLE) && !s->failed &&
        (gnutls_record_check_pending(s->session) > 0 || s->in_start < s->in_end))
        return HOST_READABLE;
    return co_host_stream_wait(s->inner, what, timeout_ns);
}

static void sealed_shutdown(struct host_stream *pub)
{
    host_stream_shutdown(sealed_of(pub)->inner);
}

static void sealed_free(struct sealed *s)
{
    if (s->in)
        buf_put(s->in, IN_ROOM);
    if (s->out)
        buf_put(s->out, OUT_BUF);
    gnutls_deinit(s->session);
    mem_free(s);
}

static void sealed_close(struct host_stream *pub)
{
    struct sealed *s = sealed_of(pub);

    if (!s->failed && !s->untold && hold_out(s) == 0 && send_out(s) == 0) {
        s->out_start = s->out_end = 0;
        gnutls_bye(s->session, GNUTLS_SHUT_WR); /* so that the peer knows it has all */
        (void)!send_out(s);
    }
    host_stream_close(s->inner);
    sealed_free(s);
}

static const char *sealed_address(const struct host_stream *pub)
{
    return host_stream_address(sealed_of(pub)->inner);
}

static void sealed_peer(struct host_stream *pub, struct host_peer *out)
{
    host_stream_peer(sealed_of(pub)->inner, out);
}

static const struct host_ops sealed_ops = {
    .name = "tls",
    .stream_recv = sealed_recv,
    .stream_sendv = sealed_sendv,
    .co_stream_wait = co_sealed_wait,
    .stream_shutdown = sealed_shutdown,
    .stream_close = sealed_close,
    .stream_address = sealed_address,
    .stream_peer = sealed_peer,
};

/* --- the handshake --- */

/* On the pool: 0 done, -EAGAIN more bytes are needed, -EPROTO. */
static int shake(void *arg)
{
    struct sealed *s = arg;
    int rc;

    do
        rc = gnutls_handshake(s->session);
    while (rc < 0 && rc != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(rc));
    if (rc == GNUTLS_E_AGAIN)
        return -EAGAIN;
    if (rc < 0)
        gnutls_alert_send_appropriate(s->session, rc);
    return rc < 0 ? -EPROTO : 0;
}

static int co_send_out(struct sealed *s)
{
    int rc;

    while ((rc = send_out(s)) == -EAGAIN)
        TRY(co_host_stream_wait(s->inner, HOST_WRITABLE, 0));
    s->out_start = s->out_end = 0;
    return rc;
}

static int co_more_in(struct sealed *s)
{
    int64_t n;

    while ((n = fill_in(s)) == -EAGAIN)
        TRY(co_host_stream_wait(s->inner, HOST_READABLE, 0));
    return n == 0 ? -ECONNRESET : n < 0 ? (int)n : 0;
}

static int co_shake(struct sealed *s)
{
    TRY(hold_in(s));
    TRY(hold_out(s));
    for (;;) {
        int rc = co_offload(shake, s);
        int sent = co_send_out(s);

        if (rc != -EAGAIN)
            return rc < 0 ? rc : sent;
        TRY(sent);
        TRY(co_more_in(s));
    }
}

int co_nbd_tls_begin(struct nbd_tls *t, struct host_stream *inner, struct host_stream **out,
                     struct nbd_peer *peer)
{
    struct sealed *s = mem_zalloc(sizeof(*s));
    int rc;

    if (!s)
        return -ENOMEM;
    s->host.ops = &sealed_ops;
    s->pub = (struct host_stream){.host = &s->host, .sealed = true};
    s->inner = inner;
    s->shaking = true;
    rc = nbd_tls_session(t, &s->session);
    if (rc < 0) {
        mem_free(s);
        return rc;
    }
    gnutls_transport_set_ptr(s->session, s);
    gnutls_transport_set_pull_function(s->session, pull);
    gnutls_transport_set_vec_push_function(s->session, push);
    rc = co_shake(s);
    if (rc == 0)
        rc = nbd_tls_who(t, s->session, peer);
    if (rc < 0) {
        sealed_free(s);
        return rc;
    }
    s->shaking = false;
    drop_empty(s);
    *out = &s->pub;
    return 0;
}

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* connection.h - one client: what it sent and is not yet parsed, its requests in flight, the
 * replies that wait to be sent. Inside of nbd/; others use server.h.
 *
 *   connection.c  life, receiving, parsing
 *   greet.c       the handshake, from accept to the first request
 *   request.c     what a request may be, and running it
 *   reply.c       replies: put together, batched, sent
 *
 * The handshake runs on the server's worker, then everything of a connection runs on one worker,
 * its lane; what the server has to say to it there, it says by message. What blk_resolve() answers
 * is done there, all else of a request at the export's home. Three things may run for it: the
 * receiver (a coroutine from accept to end), requests (a coroutine each, if they cannot finish at
 * once), and the sender (the turn hook; a coroutine while the socket is full). The connection goes
 * when the receiver has ended and no request is in flight. */
#ifndef NBD_CONNECTION_H
#define NBD_CONNECTION_H

#include <stdatomic.h>

#include "nbd/context.h"
#include "nbd/export.h"
#include "nbd/proto.h"

struct nbd_server;
struct nbd_conn;

/* What both sides agreed on. */
struct nbd_session {
    bool structured; /* replies */
    bool extended;   /* headers; structured is true then */
    uint32_t agreed; /* contexts that BLOCK_STATUS tells of; 0: it may not be asked */
    uint32_t align;  /* what offsets and lengths keep to; 1: the client was told nothing */
};

/* A request, parsed. */
struct nbd_ask {
    uint16_t type, flags;
    uint32_t payload; /* bytes that follow the header */
    uint32_t asked;   /* BLOCK_STATUS: contexts */
    uint64_t offset, length;
    be64 cookie;
};

/* How long a request's header is. */
static inline size_t nbd_head_bytes(const struct nbd_session *s)
{
    return s->extended ? sizeof(struct nbd_request_ext) : sizeof(struct nbd_request_wire);
}

/* Pure. @raw: a whole header. -EPROTO: not a request at all, the connection is lost. Else *error is
 * 0 or the enum nbd_errno to answer, *why the sentence that goes with it. */
must_use int nbd_ask_parse(const void *raw, const struct nbd_session *s, const struct nbd_facts *f,
                           struct nbd_ask *out, uint32_t *error, const char **why);
/* About how much memory an ask without an error takes. */
uint64_t nbd_ask_memory(const struct nbd_ask *a);
/* Pure. The payload of a BLOCK_STATUS that has one: sets length and asked. 0 or the error. */
must_use uint32_t nbd_ask_narrow(struct nbd_ask *a, const void *payload,
                                 const struct nbd_session *s, const struct nbd_facts *f,
                                 const char **why);

/* The longest of a reply's heads, a text of 100 bytes included. */
#define NBD_HEAD_BYTES (sizeof(struct nbd_chunk_ext) + sizeof(struct nbd_chunk_error) + 100)
#define NBD_HEAD_ROOM  4096u       /* before small data: its last bytes hold the header */
#define NBD_SMALL_READ (28u << 10) /* up to here header and data are one piece */
#define NBD_FILE_READ  (32u << 10) /* from here on what is in the page cache goes out from there */

struct nbd_request {
    struct nbd_request *next; /* of the out queue, or of the free list */
    struct nbd_conn *conn;
    struct nbd_ask ask;
    uint64_t began; /* when it was received */
    /* When its payload began to come, or its answer to wait for the socket. */
    uint64_t moving_since;
    uint32_t filled; /* bytes of a write's payload that have come */
    uint8_t *buf;    /* from buf_get(), or NULL */
    size_t buf_bytes;
    uint8_t *data; /* inside buf */
    uint8_t *more; /* from buf_get(): heads and pieces of long replies; or NULL */
    size_t more_bytes;
    /* A read's data that is sent from the page cache, behind the pieces: what is left of it. The
     * export's device is held meanwhile. NULL: none. */
    struct host_file *file;
    uint64_t file_at, file_left;

    /* The reply, as it is sent; what was sent is taken off the front. */
    struct iovec *piece;
    unsigned pieces;
    struct iovec own[2];
    uint8_t head[NBD_HEAD_BYTES];
};

struct nbd_conn {
    struct nbd_conn *next, *prev; /* in one of the server's lists */
    struct nbd_server *server;
    struct host_stream *stream;
    struct nbd_export *export;      /* NULL until the handshake is through; held */
    struct nbd_writer *writer;      /* of the export */
    struct worker *lane;            /* where it is served; NULL until the handshake is through */
    struct nbd_export_stats *stats; /* the export's, of this lane */
    struct nbd_session session;
    struct nbd_contexts *contexts; /* of the session; a reference */
    struct timer deadline;         /* of the handshake */
    uint64_t entered_at;
    bool half_open; /* still in the handshake */
    bool told;      /* a message was posted to the lane */
    bool told_stop; /* nbd_conn_tell_stop() was called */
    struct worker_msg stop_msg, abort_msg;

    /* Receiving. @in is only held while it has bytes; a connection that waits has none but a part
     * of a header in @stash. */
    uint64_t received_at; /* the last time */
    uint8_t *in;
    size_t in_start, in_end;
    uint8_t stash[sizeof(struct nbd_request_ext)];
    size_t stashed;
    bool large;                  /* the request taken last had a long payload */
    uint64_t skip;               /* bytes of a refused write's payload still to come */
    struct nbd_request *filling; /* a write whose payload is coming */
    struct co_queue room;        /* the receiver, while too much is in flight */
    uint64_t wants;              /* memory for the request that is taken next */

    /* Sending. */
    struct nbd_request *out_first, *out_last;
    struct turn_hook hook;
    bool hooked;  /* the hook is armed */
    bool sending; /* the sender coroutine runs */
    bool wide;    /* the socket has been given more room */

    unsigned in_flight; /* requests taken and not yet answered, to the last byte sent */
    size_t memory;      /* bytes of their buffers, and of what is sent from files */
    bool stopping;      /* answer what is in flight, take no more */
    atomic_bool broken; /* the stream failed: replies are dropped */
    bool ending;        /* the receiver has ended and waits in @idle */
    struct co_queue idle;
    struct nbd_request *spare; /* free list */
    unsigned spares;
};

/* --- connection.c --- */

/* Starts serving @stream (taken, also on failure). */
must_use int nbd_conn_start(struct nbd_server *server, struct host_stream *stream);
/* The two that follow, from the server's worker to wherever the connection runs. Once each. */
void nbd_conn_tell_stop(struct nbd_conn *c);
void nbd_conn_tell_abort(struct nbd_conn *c);
/* No more requests are taken; what is in flight is answered, then the connection ends. */
void nbd_conn_stop(struct nbd_conn *c);
/* Now: requests in flight still run to their end, unanswered. */
void nbd_conn_abort(struct nbd_conn *c);
/* Something ended: wakes who waited for it. */
void nbd_conn_settle(struct nbd_conn *c);
struct nbd_request *nbd_request_get(struct nbd_conn *c); /* NULL: no memory */
void nbd_request_put(struct nbd_request *r);
/* A buffer for the request's data, counted. -ENOMEM. */
must_use int nbd_request_buf(struct nbd_request *r, size_t bytes);
void nbd_request_drop_buf(struct nbd_request *r);
/* The answer's data is sent from @file. False: the device is being changed. */
must_use bool nbd_request_hold_file(struct nbd_request *r, struct host_file *file, uint64_t at);
void nbd_request_drop_file(struct nbd_request *r);

/* Others wait for memory, and the data of this request does not move on: not at all during a wait
 * of NBD_PATIENCE_NS, which gave @waited, or less than 4 MiB a second. */
bool nbd_conn_stands_still(const struct nbd_request *r, int waited);
#define NBD_PATIENCE_NS 200000000ULL
#define NBD_SLOWEST_NS  240 /* for a byte */

/* --- greet.c --- */

#define NBD_GREET_IN (sizeof(struct nbd_option_head) + NBD_MAX_PAYLOAD)
/* The handshake. On success c->export and c->session are set, and @left (NBD_GREET_IN bytes) holds
 * the *bytes that the client sent behind it: requests already. */
must_use int co_nbd_greet(struct nbd_conn *c, uint8_t *left, size_t *bytes);

/* --- request.c --- */

/* Runs a request whose data (of a write: r->data, or @payload in passing) is there, to its reply.
 * May go on after it returned. */
void nbd_request_run(struct nbd_request *r, const uint8_t *payload);

static inline enum nbd_kind nbd_kind_of(uint16_t command)
{
    return command == NBD_CMD_READ    ? NBD_KIND_READ
           : command == NBD_CMD_WRITE ? NBD_KIND_WRITE
           : command == NBD_CMD_FLUSH ? NBD_KIND_FLUSH
                                      : NBD_KIND_OTHER;
}

/* --- reply.c --- */

/* Answers @r: @rc is 0 or a negative errno. */
void nbd_reply(struct nbd_request *r, int rc);
/* Answers with an NBD error number and a sentence. */
void nbd_reply_error(struct nbd_request *r, uint32_t error, const char *why);
/* Sends what is queued now, as far as the socket takes it. */
void nbd_send(struct nbd_conn *c);
uint32_t nbd_errno_of(int rc);

/* What BLOCK_STATUS has found, at the beginning of r->data: extents of each context that was asked
 * for lie behind it, as they travel. */
struct nbd_found {
    unsigned contexts;
    struct {
        uint32_t id, extents;
        size_t at, bytes; /* in r->data */
    } of[NBD_MAX_CONTEXTS];
};

/* Most extents in one answer to BLOCK_STATUS, of all contexts together. */
#define NBD_MAX_EXTENTS 4096u

#endif

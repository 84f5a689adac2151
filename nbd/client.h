/* SPDX-License-Identifier: BSD-3-Clause */
/* client.h - a remote export as a device, over libnbd. Inside of nbd/; others use client_driver.
 *
 *   client.c         the driver: options, sizes, requests
 *   client_link.c    one connection: handshake on the pool, two coroutines that let libnbd read and
 *                    write, the calls in flight
 *   client_state.c   the set of connections: up, lost, connected again
 *   client_replay.c  what the server acknowledged and may yet lose
 *
 * A call is one command on the wire, made by a coroutine that sleeps until it is answered. When one
 * connection is lost all are given up, because the server behind them may be another one now: after
 * connecting again what was not flushed is written once more, and only then calls go on. */
#ifndef NBD_CLIENT_H
#define NBD_CLIENT_H

#include <stdatomic.h>

#include "block/block.h"

struct nbd_handle; /* libnbd's */
struct client;

#define CLIENT_LINKS 16

enum client_op {
    CLIENT_READ,
    CLIENT_WRITE,
    CLIENT_FLUSH,
    CLIENT_TRIM,
    CLIENT_ZERO,
    CLIENT_STATUS,
    CLIENT_OPS
};

/* Extents as the server told them, from @offset on; merged. */
#define CLIENT_EXTENTS 256
struct client_extents {
    uint64_t offset;
    unsigned count;
    struct {
        uint64_t bytes;
        uint32_t flags;
    } list[CLIENT_EXTENTS];
};

struct client_entry; /* of the replay log */

struct client_call {
    struct client_call *next, *prev; /* of the link's */
    struct client *client;
    struct client_link *link;
    struct co *co;
    enum client_op op;
    uint32_t flags; /* libnbd's */
    uint64_t offset, bytes;
    void *buf;
    uint64_t seen; /* bytes of a read that came */
    bool odd;      /* not one after the other */
    struct client_extents *extents;
    struct client_entry *kept; /* goes to the log when it is acknowledged */
    bool again;                /* from the log: it was counted when it was new */
    bool done, lost;
    int rc;
};

/* What the server says of the export. */
struct client_facts {
    uint64_t size;
    uint32_t min_block, max_block;
    bool read_only, flush, fua, trim, zero, fast_zero, multi_conn, status;
};

/* How to get there; immutable. Texts are owned, NULL: not told. */
struct client_where {
    char *host, *port, *path; /* no host and no path: vsock */
    uint32_t cid;
    char *export, *certificates, *psk_file, *user;
    bool tls, verify;
    char *text; /* for messages */
};

struct client_link {
    struct client *client;
    struct nbd_handle *h; /* NULL: down */
    struct host_stream *stream;
    struct client_call *first;
    unsigned in_flight;
    unsigned pumps;         /* coroutines that serve it */
    unsigned direction;     /* what libnbd waited for when last looked at */
    struct co_queue turned; /* pumps for which there is nothing to wait for */
    bool broken;
};

/* In the order in which the server acknowledged them. */
struct client_replay {
    struct client_entry *first, *last;
    uint64_t bytes, limit;  /* limit 0: nothing is kept */
    uint64_t seq;           /* of the last change that was acknowledged */
    uint64_t flushed;       /* up to here it is durable */
    bool forgot;            /* a server went away with changes that were not: flushes fail */
    struct co_mutex making; /* room */
};

struct client {
    struct host *host;
    struct client_where where;
    struct client_facts facts;
    uint64_t reconnect_ns, open_ns;
    unsigned wanted; /* connections */

    struct client_link links[CLIENT_LINKS];
    unsigned count; /* that may be up */
    bool up;
    bool gave_up; /* calls fail at once, until it is up again */
    bool reconnecting;
    atomic_bool closing;
    struct timer give_up, goodbye;
    struct co_queue changed; /* any of the above */
    struct client_replay replay;
    struct client_extents seen; /* of a read-only device: the last answer */
};

/* --- client_link.c */
/* Connects and shakes hands; fills *facts. */
must_use int co_link_open(struct client_link *l, struct client_facts *facts, struct blk_error *e);
/* Says goodbye where it can; returns when it is down. */
void co_link_close(struct client_link *l);
/* Gives the connection up: its calls are lost. Comes to an end by itself (client_link_down). */
void link_break(struct client_link *l);
/* Puts the call on the wire and waits for its end. call->lost: nobody knows what became of it. */
int co_link_call(struct client_link *l, struct client_call *call);

/* --- client_state.c */
must_use int co_client_connect(struct client *c, struct client_facts *facts, struct blk_error *e);
/* For links: @l is about to go. */
void client_lost(struct client *c);
/* To its end, over as many connections as that takes. */
int co_client_call(struct client *c, struct client_call *call);
void co_client_disconnect(struct client *c);

/* --- client_replay.c */
/* Before a change: room for it in the log, by a flush if need be. -ENOMEM, or the flush's error. */
must_use int co_replay_prepare(struct client *c, struct client_call *call);
/* It was acknowledged. */
void replay_acknowledged(struct client *c, struct client_call *call);
/* It failed. */
void replay_drop(struct client *c, struct client_call *call);
int co_client_flush(struct client *c);
/* On a new connection, before anything else: all that is kept. */
must_use int co_replay(struct client *c, struct client_link *l);
void replay_end(struct client *c);

extern const struct blk_driver client_driver;

#endif

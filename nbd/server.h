/* SPDX-License-Identifier: BSD-3-Clause */
/* server.h - an NBD server: exports, where it listens, whom it lets in, how it stops. Lives on one
 * worker; its functions are called there. */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include <stdatomic.h>

#include "nbd/export.h"
#include "nbd/handshake.h"
#include "nbd/tls.h"

struct nbd_server;
struct nbd_conn;

/* What a peer can make us hold or wait for. Zero fields mean the defaults. */
struct nbd_limits {
    uint64_t handshake_ns; /* in all; 10 s */
    uint64_t slow_ns;      /* a client that takes no byte of its replies; 60 s */
    uint64_t stop_ns;      /* what a stop waits for requests in flight; 30 s */
    unsigned half_open;    /* clients in the handshake, beyond which the oldest goes; 100 */
    unsigned in_flight;    /* requests per client; 1024 */
    size_t memory;         /* bytes of requests in flight per client; 64 MiB */
    size_t total;          /* of all clients; 128 MiB, an eighth more for short requests, and one
                              request more for each worker */
};

/* Something happened that a log may tell. Texts are borrowed; NULL: none. */
struct nbd_event {
    const char *what; /* "client-in", "client-out", "handshake-failed", "stopping" */
    const char *export, *peer;
    unsigned clients; /* past the handshake, afterwards */
    uint64_t ns;      /* how long it was there */
};

struct nbd_server_options {
    struct host *host;
    unsigned max_clients; /* at once; more wait in the listen queue. 0: no limit */
    bool once;            /* ends when the last client that got through has gone */
    struct nbd_tls *tls;  /* borrowed; NULL: none */
    enum nbd_tls_mode tls_mode;
    struct nbd_limits limits;
    void (*on_event)(void *arg, const struct nbd_event *ev); /* NULL: nobody asks */
    void *event_arg;
};

must_use int nbd_server_open(const struct nbd_server_options *o, struct nbd_server **out,
                             struct blk_error *e);
/* Exports may be added at any time. */
struct nbd_exports *nbd_server_exports(struct nbd_server *s);
/* Clients on @x are told to stop (what is in flight is answered), nobody else gets it, then its
 * device is closed: its error. On the server's worker, like all of this. */
int co_nbd_server_remove(struct nbd_server *s, struct nbd_export *x, struct blk_error *e);
/* @address: as host.h writes them. A Unix socket that a dead server left behind is replaced. May be
 * called several times before it runs. No client is let in before co_nbd_server_run(). */
must_use int co_nbd_server_listen(struct nbd_server *s, const char *address, struct blk_error *e);
/* The same on a socket that somebody else made; takes @fd. */
must_use int nbd_server_listen_at(struct nbd_server *s, int fd, struct blk_error *e);
/* Where it listens first, as host.h writes addresses. */
const char *nbd_server_address(const struct nbd_server *s);
/* The one after @address (which this gave; NULL: the first); NULL: there are no more. */
const char *nbd_server_next_address(const struct nbd_server *s, const char *address);
/* The listening sockets' descriptors, for handing them on: a path of theirs is left alone then.
 * How many of at most @room. */
unsigned nbd_server_share(struct nbd_server *s, int *fds, unsigned room);
/* Removes the Unix socket at @address if nobody answers on it, as after a kill. True if it did. */
bool co_nbd_remove_dead_socket(struct host *h, const char *address);
/* Serves until nbd_server_stop(), or `once`: then every request in flight has been answered and no
 * client is left. */
void co_nbd_server_run(struct nbd_server *s);
/* Lets nobody in any more and ends; may be called at any time, and again. */
void nbd_server_stop(struct nbd_server *s);
/* Closes the exports' devices (flushed); their first error. */
int co_nbd_server_close(struct nbd_server *s, struct blk_error *e);
unsigned nbd_server_clients(const struct nbd_server *s);

/* --- for connections --- */

const struct nbd_limits *nbd_server_limits(const struct nbd_server *s);
/* What all clients' requests hold; any worker. Where that is too much, who has nothing in flight
 * waits, and whoever else stands still meanwhile, with memory in its hands, has to go. */
void nbd_server_hold(struct nbd_server *s, size_t bytes);
void nbd_server_unhold(struct nbd_server *s, size_t bytes);
/* Nothing more is to be held but what has_room() allows. */
bool nbd_server_crowded(struct nbd_server *s);
/* Is there room for a request that takes @bytes, of a client with nothing else in flight (@first)
 * or with something? The latter get half of it, and some is kept for short ones of the former. */
bool nbd_server_has_room(struct nbd_server *s, uint64_t bytes, bool first);
bool nbd_server_pressed(struct nbd_server *s);
/* Waits until there is room for a first request of @bytes. */
int co_nbd_server_wait_room(struct nbd_server *s, uint64_t bytes, const atomic_bool *broken);
/* False: so many clients already have more room in their sockets, which is memory of the kernel's;
 * true: one more. Any worker. */
bool nbd_server_widens(struct nbd_server *s);
struct worker *nbd_server_next_lane(struct nbd_server *s); /* workers in turn */
struct nbd_tls *nbd_server_tls(const struct nbd_server *s);
enum nbd_tls_mode nbd_server_tls_mode(const struct nbd_server *s);
void nbd_server_enter(struct nbd_server *s, struct nbd_conn *c);   /* begins the handshake */
void nbd_server_through(struct nbd_server *s, struct nbd_conn *c); /* has an export now */
void nbd_server_leave(struct nbd_server *s, struct nbd_conn *c);
void nbd_server_gone(struct nbd_server *s); /* nothing of a client that left runs any more */

#endif

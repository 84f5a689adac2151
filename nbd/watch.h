/* SPDX-License-Identifier: BSD-3-Clause */
/* watch.h - a server seen from outside: its counts for the control socket and for Prometheus, and
 * the words that steer who shares what. Lives on the server's worker.
 *
 *   watch.c     snapshots of all counts; the verbs `stats` and `throttle`
 *   metrics.c   the same in Prometheus' text format over HTTP/1.0
 *   sharing.c   groups of exports */
#ifndef NBD_WATCH_H
#define NBD_WATCH_H

#include "block/option.h"
#include "nbd/server.h"
#include "nbd/sharing.h"

struct nbd_metrics;

struct nbd_watch {
    struct nbd_server *server;
    struct nbd_sharing sharing;
    uint64_t since; /* when it began, the worker's clock */
    struct nbd_metrics *metrics;
};

/* What is known of one export at one moment. */
struct nbd_seen {
    char *name; /* owned */
    uint64_t size;
    bool read_only, shares;
    unsigned clients;
    struct nbd_export_stats stats;
    char *group; /* owned; NULL: in none */
    struct share_wish wish;
    struct share_stats share;
};

void nbd_watch_init(struct nbd_watch *w, struct nbd_server *s);
/* When the server's exports have gone. */
void nbd_watch_drop(struct nbd_watch *w);

/* All exports; *out is to be given to nbd_seen_drop(). -ENOMEM. */
must_use int co_nbd_watch_look(struct nbd_watch *w, struct nbd_seen **out, size_t *count);
void nbd_seen_drop(struct nbd_seen *list, size_t count);

/* Verbs of the control socket (docs/control.md). */
must_use int co_nbd_watch_stats(struct nbd_watch *w, json_t **result, struct blk_error *e);
must_use int co_nbd_watch_throttle(struct nbd_watch *w, const json_t *request, json_t **result,
                                   struct blk_error *e);

/* Listens at @address ("unix:PATH", "HOST:PORT" with a loopback HOST) until closed. */
must_use int co_nbd_metrics_open(struct nbd_watch *w, const char *address, struct blk_error *e);
void co_nbd_metrics_close(struct nbd_watch *w);
/* Gives *out, as host.h writes addresses; pure. -EINVAL: not a loopback address. */
must_use int nbd_metrics_address(const char *text, char **out, struct blk_error *e);

#endif

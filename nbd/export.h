/* SPDX-License-Identifier: BSD-3-Clause */
/* export.h - a device offered over NBD, under a name, with the facts that a client is told.
 *
 * Exports live on the server's worker. Each is on the list until it is taken off, and stays in
 * memory, with its device open, for as long as somebody holds it: a client from the moment it
 * chose it to its end. Sources (source.h) put exports on the list when they are asked for. */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include <stdatomic.h>

#include "block/block.h"
#include "block/share.h"
#include "nbd/context.h"
#include "nbd/stats.h"
#include "nbd/zone.h"

struct nbd_source;

#define NBD_MAX_LANES 64u /* workers that may serve clients */

/* What the handshake says of an export and the transmission keeps. */
struct nbd_facts {
    uint64_t size;
    uint16_t flags; /* enum nbd_export_flags; SEND_DF is the connection's */
    uint32_t min_block, preferred_block, max_block;
};

/* Facts change with the device, at its home, and are looked at wherever a client is served. */
void nbd_facts_publish(struct nbd_facts *to, const struct nbd_facts *from);
struct nbd_facts nbd_facts_now(const struct nbd_facts *from);

/* One of the hosts that may write to an export at the same time. */
struct nbd_writer {
    struct nbd_writer *next;
    unsigned clients;
    char host[];
};

#define NBD_EVENTS (BLK_EV_MARKED_CORRUPT + 1)

struct nbd_export {
    struct nbd_export *next;
    char *name;
    char *description;      /* NULL: none */
    struct blk_device *dev; /* a reference; NULL only where nothing is transmitted (tests) */
    struct nbd_facts facts; /* nbd_facts_now() */
    struct nbd_export_stats
        *stats[NBD_MAX_LANES];     /* by the worker that counts; NULL: no client yet */
    _Atomic(struct share *) share; /* of a group (sharing.h); NULL: requests wait for nobody */
    unsigned clients;              /* that are through the handshake */
    struct blk_listener listener;
    _Atomic(uint64_t) happened[NBD_EVENTS]; /* by enum blk_event */

    struct nbd_zone zone; /* who sees it */
    unsigned max_writers; /* hosts with clients on it while it is writable; 0: any number */
    struct nbd_writer *writers;
    bool preset;                   /* what the empty name means */
    const struct nbd_shown *shown; /* borrowed; NULL: all of the device */

    unsigned holds; /* see above */
    bool gone;      /* taken off the list: nobody else may choose it */
    struct co_queue unheld;
    struct nbd_source *source; /* that opened it; NULL: none, it stays */
    void *source_state;        /* the source's own */
    struct timer idle;         /* until a source's export is closed */
    struct nbd_exports *all;
};

struct nbd_exports {
    struct nbd_export *first, *last;
    size_t count;
    _Atomic(uint64_t) happened; /* events of all exports that there ever were */
    struct nbd_source *sources;
    /* Names that are being opened or closed; who wants one of them waits in @settled. */
    struct nbd_names busy;
    unsigned closers;        /* coroutines that close a source's export */
    struct co_queue settled; /* busy or closers changed */
};

struct nbd_export_options {
    const char *name;
    const char *description;     /* NULL: none */
    const struct nbd_zone *zone; /* copied; NULL: everybody */
    unsigned max_writers;        /* 0: any number */
    bool preset;
    const struct nbd_shown *shown; /* lives as long; NULL: all of the device */
};

/* Adds @dev (name unique, else -EEXIST). Takes the reference on @dev, also on failure. Read-only
 * where the device is. *out may be NULL. */
must_use int co_nbd_export_add(struct nbd_exports *all, struct blk_device *dev,
                               const struct nbd_export_options *o, struct nbd_export **out,
                               struct blk_error *e);
/* Takes @x off the list, waits until nobody holds it, closes the device (its error). Clients have
 * to be told before: co_nbd_server_remove() in server.h does both. */
int co_nbd_export_remove(struct nbd_export *x, struct blk_error *e);
/* Ends the sources, closes every device (all of them, whatever fails); the first error. Nobody may
 * hold any. */
int co_nbd_exports_close(struct nbd_exports *all, struct blk_error *e);
/* By a name of @bytes bytes, among those that @peer may see. The empty name also means the one
 * that is preset, else the first that is no source's. NULL: none. */
struct nbd_export *nbd_export_find(const struct nbd_exports *all, const void *name, size_t bytes,
                                   const struct nbd_peer *peer);
void nbd_facts_of(const struct blk_device *dev, struct nbd_facts *out);

/* What the clients that are served on worker number @lane count in; theirs from then on. -ENOMEM.
 */
must_use int nbd_export_stats_of(struct nbd_export *x, unsigned lane,
                                 struct nbd_export_stats **out);
/* The sum over all lanes, each asked there. */
void co_nbd_export_stats(const struct nbd_export *x, struct nbd_export_stats *out);

void nbd_export_hold(struct nbd_export *x);
/* For who only looks: it stays in memory, and a source closes it no later for that. */
void nbd_export_pin(struct nbd_export *x);
/* Of either. */
void nbd_export_release(struct nbd_export *x);
/* A client on @host begins, or ends. *out: to be given back; NULL where nobody counts. -EBUSY:
 * other hosts write to it, as many as may. */
must_use int nbd_export_enter(struct nbd_export *x, const char *host, struct nbd_writer **out);
void nbd_export_leave(struct nbd_export *x, struct nbd_writer *w);

#endif

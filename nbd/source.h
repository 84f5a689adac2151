/* SPDX-License-Identifier: BSD-3-Clause */
/* source.h - where exports come from that are opened when they are asked for: a folder, clones.
 *
 * A source knows names; the list of exports (export.h) sees to it that a name is opened once
 * however many ask for it at the same time, that it stays open while somebody holds it and for the
 * source's idle time after that, and that it is closed then. */
#ifndef NBD_SOURCE_H
#define NBD_SOURCE_H

#include "nbd/export.h"

struct nbd_source_ops {
    /* Pure: it may have an export of that name. */
    bool (*knows)(const struct nbd_source *s, const char *name);
    /* Adds the names that it has now. Those of open exports may be among them. */
    int (*co_list)(struct nbd_source *s, struct nbd_names *out);
    /* Opens the device (gives *dev), and whatever else it wants to keep in *state. */
    int (*co_open)(struct nbd_source *s, const char *name, struct blk_device **dev, void **state,
                   struct blk_error *e);
    /* An open export that is asked for again: true if it is out of date, and a new one is to take
     * its place. NULL: never. */
    bool (*co_stale)(struct nbd_source *s, const struct nbd_export *x);
    /* The device is closed; @state is dropped. NULL: nothing. */
    void (*co_closed)(struct nbd_source *s, void *state);
    void (*co_end)(struct nbd_source *s); /* frees it; none of its exports is open */
    bool on_golden;                       /* what its images stand on is others' as well */
};

struct nbd_source {
    struct nbd_source *next;
    const struct nbd_source_ops *ops;
    struct nbd_zone zone;
    unsigned max_writers;
    uint64_t idle_ns; /* that an export stays open when its last client has gone */
    /* Puts a layer on each device that was opened (taken, also on failure), at its home. NULL: none
     */
    int (*co_dress)(struct blk_device *dev, struct blk_device **out, struct blk_error *e);
    void (*say)(struct nbd_source *s, const char *sentence); /* an image that could not be opened */
    void *arg;                                               /* say's own */
};

/* Takes @s; its ops, zone and idle_ns are set. */
void nbd_source_add(struct nbd_exports *all, struct nbd_source *s);
/* True if a source that @peer may use (NULL: whoever steers the server) could have an export of
 * that name. */
bool nbd_sources_know(const struct nbd_exports *all, const char *name, const struct nbd_peer *peer);
/* True if @x may be out of date: co_nbd_sources_open() knows. */
bool nbd_source_doubts(const struct nbd_export *x);
/* Opens it, or finds that it is open: gives *out, held. -ENOENT: there is none. */
must_use int co_nbd_sources_open(struct nbd_exports *all, const char *name,
                                 const struct nbd_peer *peer, struct nbd_export **out,
                                 struct blk_error *e);
/* Adds what @peer may see of all sources. Names of open exports may be among them. */
must_use int co_nbd_sources_list(struct nbd_exports *all, const struct nbd_peer *peer,
                                 struct nbd_names *out);
/* For export.c: @x, a source's, is held by nobody any more; and all at the end. */
void nbd_source_idle(struct nbd_export *x);
void co_nbd_sources_end(struct nbd_exports *all);

#endif

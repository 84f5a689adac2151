/* SPDX-License-Identifier: BSD-3-Clause */
/* export.h - a device offered over NBD, under a name, with the facts that a client is told. */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "block/block.h"

/* What the handshake says of an export and the transmission keeps. */
struct nbd_facts {
    uint64_t size;
    uint16_t flags; /* enum nbd_export_flags; SEND_DF is the connection's */
    uint32_t min_block, preferred_block, max_block;
};

struct nbd_export_stats {
    uint64_t reads, read_bytes;
    uint64_t writes, written_bytes;
    uint64_t flushes, others, errors;
};

struct nbd_export {
    struct nbd_export *next;
    char *name;
    char *description;      /* NULL: none */
    struct blk_device *dev; /* a reference; NULL only where nothing is transmitted (tests) */
    struct nbd_facts facts;
    struct nbd_export_stats stats;
    unsigned clients;
    struct blk_listener listener;
};

struct nbd_exports {
    struct nbd_export *first, *last;
    size_t count;
};

/* Adds @dev under @name (unique, else -EEXIST). Takes the reference on @dev, also on failure.
 * Read-only where the device is. */
must_use int co_nbd_export_add(struct nbd_exports *all, struct blk_device *dev, const char *name,
                               const char *description, struct blk_error *e);
/* Closes every device (all of them, whatever fails); the first error. */
int co_nbd_exports_close(struct nbd_exports *all, struct blk_error *e);
/* By a name of @bytes bytes; the empty one is the first export's second name. NULL: none. */
struct nbd_export *nbd_export_find(const struct nbd_exports *all, const void *name, size_t bytes);
void nbd_facts_of(const struct blk_device *dev, struct nbd_facts *out);

#endif

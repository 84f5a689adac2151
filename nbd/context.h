/* SPDX-License-Identifier: BSD-3-Clause */
/* context.h - meta contexts: what BLOCK_STATUS can tell of an export.
 *
 *   base:allocation          holes and zeroes
 *   qemu:allocation-depth    0: nobody allocated it, 1: this image, 2: its backing image, ...
 *   qemu:dirty-bitmap:NAME   bit 0: dirty
 *
 * A context is known by its index; a set of them is a word with those bits; on the wire its id is
 * index + 1. What contexts an export has is looked up when a client asks, and stays as it was for
 * that client: the list is shared and never changes. Lists live on the server's worker. */
#ifndef NBD_CONTEXT_H
#define NBD_CONTEXT_H

#include "block/block.h"

#define NBD_MAX_CONTEXTS 32u

enum nbd_context { NBD_ALLOCATION, NBD_DEPTH, NBD_FIRST_BITMAP };

/* What of a device is shown, where that is told: else all there is. */
struct nbd_shown {
    bool depth;           /* qemu:allocation-depth */
    bool one_client;      /* there will never be a second one: no MULTI_CONN */
    const char **bitmaps; /* by name; borrowed */
    size_t bitmap_count;
};

/* NULL is the list without bitmaps. */
struct nbd_contexts {
    unsigned refs, bitmaps;
    bool no_depth;
    char *bitmap[NBD_MAX_CONTEXTS - NBD_FIRST_BITMAP];
};

struct nbd_contexts *nbd_contexts_ref(struct nbd_contexts *list);
void nbd_contexts_drop(struct nbd_contexts *list);
/* The contexts of @dev now, of them those @shown (NULL: all); those that cannot be read are left
 * out. *out may be NULL. */
must_use int co_nbd_contexts_of(struct blk_device *dev, const struct nbd_shown *shown,
                                struct nbd_contexts **out);

unsigned nbd_contexts_count(const struct nbd_contexts *list);
/* A context's name is both, one behind the other. */
const char *nbd_context_kind(unsigned index);
const char *nbd_context_rest(const struct nbd_contexts *list, unsigned index);
/* Whether a query of @bytes bytes means it; @listing: "qemu:" means all that begin so. */
bool nbd_context_meant(const struct nbd_contexts *list, unsigned index, const void *query,
                       size_t bytes, bool listing);

#endif

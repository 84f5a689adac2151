/* SPDX-License-Identifier: BSD-3-Clause */
/* clones.h - a source of exports: PREFIX/NAME is NAME's own copy-on-write clone of a golden image.
 *
 *   clones.c  names, making, opening, closing
 *   budget.c  the layer below each clone's image that bounds what all of them take */
#ifndef NBD_CLONES_H
#define NBD_CLONES_H

#include "block/resolver.h"
#include "nbd/source.h"

struct nbd_clones_options {
    struct host *host;
    const struct resolver *resolver; /* copied; what it borrows has to live as long */
    const char *prefix;
    const char *golden_name;   /* the file that @golden is; for clones that are kept */
    struct blk_device *golden; /* read-only; taken, also on failure */
    const char *keep;    /* the folder where clones stay; NULL: they go when they are closed */
    const char *scratch; /* else: the folder where they lie meanwhile */
    uint64_t space;      /* bytes that all clones may take */
};

#define NBD_NO_BUDGET UINT64_MAX

/* Gives *out: its zone, max_writers, idle_ns and say are still to be set. */
must_use int co_nbd_clones_open(const struct nbd_clones_options *o, struct nbd_source **out,
                                struct blk_error *e);

/* One clone that goes when it is closed, with nothing that bounds it; @golden is borrowed. Gives
 * *out. */
must_use int co_nbd_clone_alone(const struct nbd_clones_options *o, struct blk_device **out,
                                struct blk_error *e);

/* --- budget.c --- */

/* Shared by the layers of one home. */
struct nbd_budget {
    uint64_t limit, used;
};
/* Puts a layer over @file (taken, also on failure) that lets it grow only within @b: else -ENOSPC.
 * What it has is counted already. @fleeting: the file goes when it is closed, so that counts all of
 * it back. */
must_use int co_nbd_budget_put(struct blk_device *file, struct nbd_budget *b, bool fleeting,
                               struct blk_device **out, struct blk_error *e);

#endif

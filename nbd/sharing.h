/* SPDX-License-Identifier: BSD-3-Clause */
/* sharing.h - which exports share what with which: named groups of block/share.h. Lives on the
 * server's worker. An export has a share from the first time that it is told to have one, and keeps
 * it, then perhaps without any limits, until it is closed. */
#ifndef NBD_SHARING_H
#define NBD_SHARING_H

#include "nbd/export.h"

struct nbd_group {
    struct nbd_group *next;
    char *name; /* "": of exports that share and named none */
    struct share_group *share;
};

struct nbd_sharing {
    struct nbd_group *first;
};

/* Made when it is first named. -ENOMEM. */
must_use int nbd_group_get(struct nbd_sharing *all, const char *name, struct nbd_group **out);
/* The group that @x is in; NULL: none. */
struct nbd_group *nbd_group_of(const struct nbd_sharing *all, const struct nbd_export *x);
/* @group NULL: the one that it is in, or the one named "". */
must_use int nbd_share_set(struct nbd_sharing *all, struct nbd_export *x, const char *group,
                           const struct share_wish *w, struct blk_error *e);
/* When all exports have gone. */
void nbd_sharing_drop(struct nbd_sharing *all);

#endif

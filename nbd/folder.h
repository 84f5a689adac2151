/* SPDX-License-Identifier: BSD-3-Clause */
/* folder.h - a source of exports: every image in a folder. */
#ifndef NBD_FOLDER_H
#define NBD_FOLDER_H

#include "block/resolver.h"
#include "nbd/source.h"

struct nbd_folder_options {
    struct host *host;
    const struct resolver *resolver; /* copied; what it borrows has to live as long */
    const char *prefix;              /* "": names are the files' */
    const char *folder;
    const char *format; /* NULL: found out */
    bool read_only;
};

/* Gives *out: its zone, max_writers, idle_ns and say are still to be set. */
must_use int co_nbd_folder_open(const struct nbd_folder_options *o, struct nbd_source **out,
                                struct blk_error *e);

#endif

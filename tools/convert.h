/* SPDX-License-Identifier: BSD-3-Clause */
/* convert.h - the parts of convert: what is told (convert.c), opening and making (convert_open.c),
 * the walk and the copying (convert_copy.c). */
#ifndef TOOLS_CONVERT_H
#define TOOLS_CONVERT_H

#include "tools/make.h"
#include "tools/progress.h"

struct convert_source {
    struct blk_device *dev;
    uint64_t start; /* of its bytes in the target */
};

struct convert {
    struct make make; /* the target */
    struct job job;
    struct progress progress;
    struct blk_error error;

    /* told */
    char **names;
    size_t count; /* of sources */
    const char *format, *source_cache, *backing, *backing_format, *cache, *target_format;
    const char *snapshot; /* -l, as told; NULL: the disk as it is now */
    bool image_opts, target_image_opts;
    bool compress, into, target_is_zero, sync, offload, help;
    bool sparse_told;
    uint64_t sparse; /* zero runs of this many bytes are left out; 0: nothing is */
    uint64_t rate;
    unsigned in_flight;

    /* open */
    struct convert_source *sources;
    struct blk_device *target;
    uint64_t size;          /* of the sources together */
    bool target_reads_zero; /* what is not written reads zero */
    bool read_always;       /* bytes come up: -S, -c, direct I/O, or the target takes no copies */
    uint64_t unit;          /* of the target's space: pieces begin and end there */
    int signal;             /* that ended us; 0: none */
    bool listening;         /* the signals' coroutine runs */
    struct co_queue deaf;   /* its end */
};

must_use int co_convert_open(struct convert *c);
/* The job's body: copies everything. */
int co_convert_copy(struct job *j, struct blk_error *e);
/* Closes all; with @rc 0 the target takes its name. The first error. */
int co_convert_close(struct convert *c, int rc);

#endif

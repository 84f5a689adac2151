/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_extents.h - the mappings of devices as runs, out of metadata that may be damaged; and what
 * of a pool's data blocks is counted, sparsely. */
#ifndef VOLUMES_THIN_EXTENTS_H
#define VOLUMES_THIN_EXTENTS_H

#include "volumes/thin_meta.h"

struct thin_extent {
    uint64_t begin, data, length;
    uint32_t time;
};

/* What is read of the metadata. */
struct thin_reader {
    bool any_time; /* runs go on over changes of time */
    /* Either may be NULL. A negative value ends it. */
    int (*device)(struct thin_reader *r, uint32_t id, const struct thin_detail *d);
    int (*extent)(struct thin_reader *r, const struct thin_extent *x);
    int (*device_end)(struct thin_reader *r);
    void *arg;
    uint64_t bad;           /* nodes that could not be read and were passed */
    struct blk_error first; /* the first of them */
};

/* All devices, or (@id not NULL) one: -ENOENT. -EBADMSG: a device's mappings cannot be found. */
must_use int co_thin_read(struct thin_meta *m, const uint32_t *id, struct thin_reader *r);
/* @m: of @s, or of the metadata snapshot: -ENOENT: there is none. */
must_use int co_thin_use_snapshot(struct thin_meta *m);

/* Counts by data block. */
struct thin_counts {
    uint32_t **pages;
    uint64_t page_count;
};
must_use int thin_counts_init(struct thin_counts *c, uint64_t blocks);
void thin_counts_drop(struct thin_counts *c);
must_use int thin_counts_add(struct thin_counts *c, uint64_t block); /* past the end: nothing */
uint32_t thin_counts_get(const struct thin_counts *c, uint64_t block);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* stats.h - what is counted of an export's requests. The counts belong to the worker that serves
 * the export. Cheap: the clock is read once per batch received and once per batch sent, and a
 * request adds to a few words. */
#ifndef NBD_STATS_H
#define NBD_STATS_H

#include "block/base.h"

enum nbd_kind { NBD_KIND_READ, NBD_KIND_WRITE, NBD_KIND_FLUSH, NBD_KIND_OTHER, NBD_KINDS };

/* Bucket i counts what took less than 2^i microseconds and not less than half of that; the last
 * one everything slower (8 s and more). */
#define NBD_LATENCY_BUCKETS 24

struct nbd_latency {
    uint64_t bucket[NBD_LATENCY_BUCKETS + 1];
    uint64_t sum_ns;
};

struct nbd_export_stats {
    uint64_t reads, read_bytes;
    uint64_t writes, written_bytes;
    uint64_t flushes, others, errors;
    struct nbd_latency latency[NBD_KINDS]; /* from received to sent */
};

static inline unsigned nbd_latency_bucket(uint64_t ns)
{
    uint64_t us = ns / 1000;
    unsigned i = us ? log2_floor(us) + 1 : 0;

    return MIN(i, NBD_LATENCY_BUCKETS);
}

static inline void nbd_latency_add(struct nbd_latency *l, uint64_t ns)
{
    l->bucket[nbd_latency_bucket(ns)]++;
    l->sum_ns += ns;
}

static inline uint64_t nbd_latency_count(const struct nbd_latency *l)
{
    uint64_t n = 0;

    for (unsigned i = 0; i <= NBD_LATENCY_BUCKETS; i++)
        n += l->bucket[i];
    return n;
}

#endif

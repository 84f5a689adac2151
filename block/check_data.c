/* SPDX-License-Identifier: BSD-3-Clause */
/* check_data.c - the second half of a check that was asked to look at the data as well: every byte
 * that this layer stores is read, every compressed cluster inflated.
 *
 * Pieces of up to a MiB, some side by side. A piece that fails is read again cluster by cluster, so
 * that what is broken is counted and named, and nothing else. */
#include <stdio.h>

#include "block/waist.h"

#define PIECES      4u
#define PIECE_BYTES (1 * MiB)

struct piece {
    struct data_check *d;
    uint8_t *buf;
    uint64_t offset, bytes;
    bool packed, busy;
};

struct data_check {
    struct blk_device *dev;
    struct blk_check *c;
    uint64_t cluster;
    struct piece pieces[PIECES];
};

static void count_broken(struct piece *p, uint64_t at, int rc)
{
    struct blk_check *c = p->d->c;
    char text[160];

    snprintf(text, sizeof(text), "ERROR: the %s at guest offset 0x%" PRIx64 " cannot be %s: %s",
             p->packed ? "compressed cluster" : "data", at, p->packed ? "inflated" : "read",
             strerror(-rc));
    if (c->say)
        c->say(c, text);
    if (p->packed) {
        c->bad_packed++;
        c->corruptions++;
    } else {
        c->read_errors++;
        c->check_errors++;
    }
}

static int co_read_piece(void *arg)
{
    struct piece *p = arg;
    struct data_check *d = p->d;

    if (co_blk_read_buf(d->dev, p->offset, p->buf, p->bytes) < 0) {
        for (uint64_t at = p->offset; at < p->offset + p->bytes;) {
            uint64_t n = MIN(d->cluster - at % d->cluster, p->offset + p->bytes - at);
            int rc = co_blk_read_buf(d->dev, at, p->buf, n);
            if (rc < 0)
                count_broken(p, at, rc);
            at += n;
        }
    }
    p->busy = false;
    return 0;
}

static void co_start_piece(struct data_check *d, struct co_group *g, uint64_t offset,
                           const struct blk_extent *ext)
{
    struct piece *p = d->pieces;

    while (g->running >= PIECES)
        co_queue_wait(&g->room);
    while (p->busy)
        p++;
    assert(p < d->pieces + PIECES);
    p->busy = true;
    p->offset = offset;
    p->bytes = ext->bytes;
    p->packed = ext->flags & BLK_EXT_COMPRESSED;
    co_group_start(g, co_read_piece, p);
}

static void co_walk(struct data_check *d, struct co_group *g)
{
    struct blk_extent ext;

    for (uint64_t at = 0; at < d->dev->size; at += ext.bytes) {
        uint64_t most = MIN(PIECE_BYTES, d->dev->size - at);
        if (co_blk_map(d->dev, at, most, &ext) < 0) {
            d->c->check_errors++;
            ext.bytes = MIN(most, d->cluster - at % d->cluster);
            continue;
        }
        if (ext.flags & BLK_EXT_DATA)
            co_start_piece(d, g, at, &ext);
    }
}

int co_blk_check_data(struct blk_device *dev, struct blk_check *check)
{
    struct data_check d = {.dev = dev, .c = check};
    auto_free uint8_t *memory = mem_aligned(PIECES * PIECE_BYTES);
    struct co_group g;

    if (!memory)
        return -ENOMEM;
    d.cluster = MAX(dev->limits.cluster_size, 512U);
    for (unsigned i = 0; i < PIECES; i++)
        d.pieces[i] = (struct piece){.d = &d, .buf = memory + i * PIECE_BYTES};
    co_group_init(&g, PIECES);
    co_walk(&d, &g);
    return co_group_wait(&g);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* stream.h - random access to a long compressed stream, in bounded memory: gzip, xz, zstd.
 *
 * *Points* are where decompressing can begin: the start, those that the format has (xz blocks, zstd
 * frames), and states of the decompressor that were saved on the way (gzip). Few *cursors*
 * decompress from a point onward, piece by piece; pieces are kept for a while. Reading in order
 * never goes back; reading elsewhere begins at the nearest point before. */
#ifndef IMGFMT_STREAM_H
#define IMGFMT_STREAM_H

#include "imgfmt/kept.h"
#include "imgfmt/readonly.h"

#define STREAM_CURSORS  4
#define STREAM_IN_LEAST 4096 /* run() sees as much, but at the end of the file */

struct stream;

struct stream_point {
    uint64_t plain, packed;
    void *saved; /* a state to go on from; NULL: a decompressor begins there */
};

/* One call of run(): how much was used and made. */
struct stream_step {
    const uint8_t *in;
    size_t in_bytes;
    bool in_last; /* the file ends behind in */
    uint8_t *out;
    size_t out_bytes;
    size_t in_used, out_made; /* out */
    bool ended;               /* out: what this decompressor was begun for is over */
};

struct stream_kind {
    /* Gives a decompressor at @p; NULL: no memory. */
    void *(*begin)(struct stream *s, const struct stream_point *p);
    /* On the pool. -EIO: the stream is broken. */
    int (*run)(void *decoder, struct stream_step *step);
    void (*end)(void *decoder);
    /* A copy of its state to begin from; NULL: no memory. The member NULL: this cannot be done. */
    void *(*save)(const void *decoder);
    void (*drop)(void *saved);
    uint64_t saved_bytes;
    /* The format's own point at or before @plain; NULL: points are added by stream_add_point(). */
    int (*find)(struct stream *s, uint64_t plain, struct stream_point *out);
};

struct stream_cursor {
    void *decoder; /* NULL: begins at its next read */
    uint64_t plain;
    uint64_t packed; /* what comes into the buffer next */
    uint8_t *in;     /* [in_at, in_have) is to be used */
    size_t in_at, in_have;
    bool busy, used;
    uint64_t used_at;
};

struct stream {
    const struct stream_kind *kind;
    struct blk_device *file;
    uint64_t size; /* plain */
    bool estimated;
    unsigned cursor_count; /* at most STREAM_CURSORS */
    struct stream_cursor cursors[STREAM_CURSORS];
    struct co_queue moved; /* a cursor has made a piece, or is idle */
    uint64_t clock;
    struct stream_point *points; /* by plain; the first is the start */
    size_t point_count, point_room;
    uint64_t spacing, points_limit; /* of points that are kept: bytes between, bytes of memory */
    struct kept_list kept;
};

/* Options that all of them have. */
#define STREAM_OPTIONS                                                                        \
    {.name = "file", .type = OPT_CHILD, .help = "what is compressed"},                        \
        {.name = "size",                                                                      \
         .type = OPT_SIZE,                                                                    \
         .help = "its length when decompressed, where it is known: spares finding it out"},   \
        {.name = "cache-size",                                                                \
         .type = OPT_SIZE,                                                                    \
         .help = "bytes of decompressed pieces kept in memory",                               \
         .preset = "32M"},                                                                    \
    {                                                                                         \
        .name = "index-size", .type = OPT_SIZE,                                               \
        .help = "bytes of places to begin at kept in memory", .preset = "32M", .min = 1 * MiB \
    }

/* Fills what is not the format's; the size is still to be set. -ENOMEM. */
must_use int stream_init(struct stream *s, const struct stream_kind *kind, struct blk_device *file,
                         const struct opts *opts);
void stream_drop(struct stream *s);
/* Takes @saved, also on failure. Points too near to others are left out; where there are too many,
 * every second one goes. Memory that is short costs speed only. */
void stream_add_point(struct stream *s, uint64_t plain, uint64_t packed, void *saved);
/* Decompresses from the point @p on until what it begins ends (*ended), or @most bytes are out;
 * *plain and *packed: how far it came. Adds points. */
must_use int co_stream_measure(struct stream *s, const struct stream_point *p, uint64_t most,
                               bool *ended, uint64_t *plain, uint64_t *packed);
must_use int co_stream_read(struct stream *s, uint64_t offset, const struct vec *to);
/* Of a length that was told or found: what info says of it. */
must_use int stream_info(const struct stream *s, struct blk_info *out, struct blk_error *e);

/* What info may decompress to say how long it is. */
#define STREAM_GLANCE (96 * MiB)

#endif

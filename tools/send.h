/* SPDX-License-Identifier: BSD-3-Clause */
/* send.h - what the files of `lamina send` share.
 *
 *   send.c         what is told; opening; the base's identity; where the stream goes
 *   send_walk.c    what differs from the base, packed and written in order
 *   send_format.h  what is written */
#ifndef TOOLS_SEND_H
#define TOOLS_SEND_H

#include "imgfmt/codec.h"
#include "tools/inorder.h"
#include "tools/make.h"
#include "tools/send_format.h"
#include "tools/task.h"

/* What becomes of a piece of the disk. */
struct send_slot {
    uint8_t *old, *out; /* what the base shows; records, whose numbers and checksums are missing */
    uint64_t out_bytes;
    struct sumhash before, now, was; /* of changed blocks: before header.start, behind it; as they
                                        are in the base */
};

struct send {
    struct task task;
    /* told */
    struct image image, base_image;
    const char *bitmap; /* NULL: the layers say what differs */
    const char *out;
    bool compress, has_base_digest;
    struct make make; /* of the file that the stream goes into */
    /* open */
    struct blk_device *dev, *base; /* base NULL: none is told */
    struct send_header header;
    int fd;
    struct codec codec;
    struct send_slot slots[INORDER_SLOTS];
    /* so far */
    struct sumhash sum, was;
    uint32_t number;
    uint64_t since_point; /* bytes of stream */
    bool at_start;        /* what lies before header.start was compared, */
    bool stale;           /* and is not what it was */
    char digest[SUMHASH_TEXT];
};

/* Writes the stream, from its header to its end. */
must_use int co_send_stream(struct send *s);

#endif

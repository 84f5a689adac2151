/* SPDX-License-Identifier: BSD-3-Clause */
/* send_format.h - the stream between `lamina send` and `lamina receive` (docs/stream.md).
 *
 *     | header 128 | record 32 | payload | record 32 | payload | ... | record "end" | payload |
 *
 * Little endian. Records are numbered from 0 and lie in the order of the disk. What a full stream
 * does not mention is zero; what an increment does not mention is as in the base. Everything here
 * is pure: a receiver gives it what came, whoever sent it. */
#ifndef TOOLS_SEND_FORMAT_H
#define TOOLS_SEND_FORMAT_H

#include "block/endian.h"
#include "block/err.h"
#include "block/sumhash.h"

#define SEND_BLOCK     SUMHASH_BLOCK
#define SEND_DATA_MOST (1 * MiB) /* of a record with payload */

struct send_header_disk {
    char magic[8];
    le32 version;       /* 1 */
    le32 flags;         /* enum send_flags; others are refused */
    le64 size;          /* of the disk */
    le64 base_size;     /* 0 without SEND_INCREMENT */
    uint8_t base[32];   /* sumhash of the base; 0 without SEND_INCREMENT */
    le64 start;         /* nothing before it is in the stream: it goes on with one that broke */
    uint8_t passed[32]; /* sum of the changed blocks before start */
    uint8_t zero[20];
    le32 crc; /* CRC-32C of all before it */
};
static_assert(sizeof(struct send_header_disk) == 128, "stream header");

enum send_flags { SEND_INCREMENT = 1 };

struct send_header {
    bool increment;
    uint64_t size, base_size, start;
    struct sumhash base, passed;
};

struct send_record_disk {
    le32 kind;
    le32 payload_bytes;
    le64 offset, bytes; /* of the disk */
    le32 number;
    le32 crc; /* CRC-32C of all before it and of the payload */
};
static_assert(sizeof(struct send_record_disk) == 32, "stream record");

/* Of data, packed and zero: offset is a multiple of a block, bytes too but at the disk's end. */
enum send_kind {
    SEND_DATA = 1, /* bytes, at most SEND_DATA_MOST */
    SEND_PACKED,   /* the same as one frame of zstd that is shorter */
    SEND_ZERO,     /* no payload; only in increments */
    SEND_POINT,    /* all before offset was sent; payload: the sum of the blocks so far */
    SEND_END,      /* offset is the size; payload: sumhash of the disk, then as SEND_POINT */
};

struct send_record {
    enum send_kind kind;
    uint32_t payload_bytes, number, crc;
    uint64_t offset, bytes;
};

#define SEND_END_PAYLOAD (2 * SUMHASH_BYTES)

void send_header_put(const struct send_header *h, struct send_header_disk *to);
must_use int send_header_parse(const struct send_header_disk *raw, struct send_header *out,
                               struct blk_error *e);
/* With its checksum. */
void send_record_put(const struct send_record *r, const uint8_t *payload,
                     struct send_record_disk *to);
/* Where a reader is in a stream. */
struct send_place {
    const struct send_header *header;
    uint64_t offset; /* the next record lies there or behind */
    uint32_t number;
    bool ended;
};
/* The next record, which has to fit in there; moves @p behind it. The checksum is still to be
 * compared, once the payload is there: send_record_intact(). */
must_use int send_record_parse(struct send_place *p, const struct send_record_disk *raw,
                               struct send_record *out, struct blk_error *e);
bool send_record_intact(const struct send_record *r, const struct send_record_disk *raw,
                        const uint8_t *payload);

#endif

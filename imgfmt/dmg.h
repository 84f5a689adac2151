/* SPDX-License-Identifier: BSD-3-Clause */
/* dmg.h - Apple's universal disk images: what their driver (dmg.c), the reader of their tables
 * (dmg_table.c) and tests share. */
#ifndef IMGFMT_DMG_H
#define IMGFMT_DMG_H

#include "block/endian.h"
#include "imgfmt/chunks.h"

#define DMG_KOLY       0x6b6f6c79u
#define DMG_MISH       0x6d697368u
#define DMG_SECTOR     512u
#define DMG_CHUNKS_MAX (512u << 10) /* that hold something */

struct dmg_koly_disk { /* the file's last 512 bytes, big endian */
    be32 magic;        /* "koly" */
    be32 version;      /* 4 */
    be32 header_bytes; /* 512 */
    be32 flags;
    be64 running_fork;
    be64 data_offset, data_bytes; /* where the chunks are */
    be64 fork_offset, fork_bytes; /* a resource fork with the tables; 0: none */
    be32 segment, segments;
    uint8_t segment_id[16];
    be32 data_checksum_type, data_checksum_bits;
    uint8_t data_checksum[128];
    be64 xml_offset, xml_bytes; /* a property list with the tables; 0: none */
    uint8_t reserved[120];
    be32 checksum_type, checksum_bits;
    uint8_t checksum[128];
    be32 variant;
    be64 sectors;
    uint8_t reserved_2[12];
};
_Static_assert(sizeof(struct dmg_koly_disk) == 512, "koly trailer");

struct dmg_mish_disk {    /* a table of chunks: of one partition or what lies between, big endian */
    be32 magic;           /* "mish" */
    be32 version;         /* 1 */
    be64 sector, sectors; /* the part of the disk */
    be64 data_offset;     /* added to the chunks' */
    be32 buffers, descriptors;
    uint8_t reserved[24];
    be32 checksum_type, checksum_bits;
    uint8_t checksum[128];
    be32 chunks; /* that follow */
};
_Static_assert(sizeof(struct dmg_mish_disk) == 204, "mish header");

enum dmg_kind {
    DMG_ZERO = 0,
    DMG_RAW = 1,
    DMG_IGNORE = 2, /* zero as well */
    DMG_ADC = 0x80000004,
    DMG_ZLIB = 0x80000005,
    DMG_BZIP2 = 0x80000006,
    DMG_LZFSE = 0x80000007,
    DMG_XZ = 0x80000008,
    DMG_COMMENT = 0x7ffffffe,
    DMG_END = 0xffffffff,
};

struct dmg_chunk_disk {
    be32 kind;
    be32 comment;
    be64 sector, sectors; /* from the table's own first sector on */
    be64 offset, bytes;   /* in the data fork */
};
_Static_assert(sizeof(struct dmg_chunk_disk) == 40, "chunk of a DMG");

struct dmg_chunk {
    uint64_t sector, sectors, offset, bytes; /* offset: in the file */
    uint32_t kind;                           /* enum dmg_kind, of those that hold something */
};

struct dmg_koly {
    uint64_t data_offset, fork_offset, fork_bytes, xml_offset, xml_bytes, sectors;
};

/* The chunks of all tables: filled in the order of the file, then sorted. */
struct dmg_table {
    uint64_t file_bytes, data_offset;
    struct dmg_chunk *chunks; /* owned */
    size_t count, room;
    uint64_t sectors; /* where the last chunk ends */
    /* The table that is being read, in pieces of any length. */
    union {
        struct dmg_mish_disk mish;
        struct dmg_chunk_disk chunk;
        uint8_t bytes[204];
    } piece;
    size_t piece_bytes;
    bool in_table;
    uint64_t chunks_left, first_sector, offset;
};

must_use int dmg_koly_parse(const struct dmg_koly_disk *raw, uint64_t file_bytes,
                            struct dmg_koly *out, struct blk_error *e);

/* dmg_table.c: pure but for co_dmg_table_read(). */
void dmg_table_begin(struct dmg_table *t); /* a new "mish" begins with the next bytes */
must_use int dmg_table_feed(struct dmg_table *t, const uint8_t *bytes, size_t count,
                            struct blk_error *e);
/* Sorts; refuses chunks that overlap. */
must_use int dmg_table_done(struct dmg_table *t, struct blk_error *e);
/* All of it: from the property list or the resource fork. @t stays the caller's to drop. */
must_use int co_dmg_table_read(struct dmg_table *t, struct blk_device *file,
                               const struct dmg_koly *koly, struct blk_error *e);
void dmg_table_drop(struct dmg_table *t);

#endif

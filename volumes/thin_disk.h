/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_disk.h - dm-thin's pool metadata as it lies on disk, version 2. Pure: no I/O, no memory.
 *
 *   block 0     superblock: the roots of all below; one sector of it is meaningful
 *   nodes       B+-trees: mappings (thin id, then virtual block), details of devices,
 *               the data space map's index, overflows of both space maps
 *   bitmaps     two bits per block: 0, 1, 2 references; 3: the overflow tree says how many
 *   index       the metadata space map's list of its bitmaps
 *
 * All integers are little endian, a block is 4096 bytes, its checksum and its own number stand in
 * front. "Data block" means data_block_bytes of the data device. */
#ifndef VOLUMES_THIN_DISK_H
#define VOLUMES_THIN_DISK_H

#include "block/endian.h"
#include "block/err.h"

#define THIN_BLOCK       4096u
#define THIN_MAGIC       27022010u
#define THIN_INDEXES     255u                     /* bitmaps that a metadata index names */
#define THIN_PER_BITMAP  ((THIN_BLOCK - 16u) * 4) /* 16320 */
#define THIN_META_MOST   (THIN_INDEXES * (uint64_t)THIN_PER_BITMAP)
#define THIN_NODE_HEAD   32u
#define THIN_VALUE_MOST  24u
#define THIN_DEPTH_MOST  16u
#define THIN_ID_MOST     ((1u << 24) - 1)
#define THIN_DATA_MOST   (1ULL << 40) /* data blocks */
#define THIN_CHUNK_LEAST (64 * KiB)
#define THIN_CHUNK_MOST  (1 * GiB)
#define THIN_NEEDS_CHECK 1u
#define THIN_NODE_INNER  1u
#define THIN_NODE_LEAF   2u

enum thin_kind { THIN_SUPER, THIN_NODE, THIN_BITMAP, THIN_INDEX };

struct thin_root_disk { /* a space map's, in the superblock */
    le64 blocks;
    le64 allocated;   /* with at least one reference */
    le64 bitmap_root; /* of data: a tree; of metadata: the index block */
    le64 overflow_root;
};

struct thin_super_disk {
    le32 csum;
    le32 flags;
    le64 number; /* 0; of a metadata snapshot its own */
    uint8_t uuid[16];
    le64 magic;
    le32 version;
    le32 time;        /* counts snapshots */
    le64 transaction; /* the user's own number, lvm2's transaction_id */
    le64 held_root;   /* a metadata snapshot; 0: none */
    struct thin_root_disk data;
    uint8_t data_rest[96];
    struct thin_root_disk metadata;
    uint8_t metadata_rest[96];
    le64 mapping_root;
    le64 details_root;
    le32 chunk_sectors;
    le32 metadata_block_sectors; /* 8 */
    le64 metadata_blocks;        /* when it was made; what counts stands in the root */
    le32 compat;
    le32 compat_ro;
    le32 incompat;
};
static_assert(offsetof(struct thin_super_disk, metadata) == 192, "superblock");
static_assert(sizeof(struct thin_super_disk) == 364, "superblock");

struct thin_node_disk {
    le32 csum;
    le32 flags; /* THIN_NODE_INNER or THIN_NODE_LEAF */
    le64 number;
    le32 entries;
    le32 max_entries;
    le32 value_bytes;
    le32 padding;
    le64 keys[]; /* max_entries of them, then as many values */
};
static_assert(sizeof(struct thin_node_disk) == THIN_NODE_HEAD, "node");

struct thin_index_disk { /* one bitmap */
    le64 number;
    le32 free;
    le32 first_free; /* all below are in use; may be too low */
};
static_assert(sizeof(struct thin_index_disk) == 16, "index entry");

struct thin_detail_disk {
    le64 mapped;      /* blocks */
    le64 transaction; /* of the pool when it was made */
    le32 created;     /* superblock's time then */
    le32 snapped;     /* time of its last snapshot */
};
static_assert(sizeof(struct thin_detail_disk) == 24, "details");

struct thin_root {
    uint64_t blocks, allocated, bitmap_root, overflow_root;
};

struct thin_super {
    uint32_t flags, time;
    uint8_t uuid[16];
    uint64_t transaction, held_root, mapping_root, details_root;
    struct thin_root data, metadata;
    uint64_t chunk_bytes; /* of a data block */
    uint64_t metadata_blocks;
    uint32_t version, compat_ro;
};

struct thin_detail {
    uint64_t mapped, transaction;
    uint32_t created, snapped;
};

/* Writes checksum and number into a block. */
void thin_seal(enum thin_kind kind, uint64_t number, uint8_t *block);
/* NULL, or what is wrong with it: checksum, number, a node's bounds and order of keys. */
const char *thin_verify(enum thin_kind kind, uint64_t number, const uint8_t *block);

/* @file_blocks: of the metadata device. */
must_use int thin_super_parse(const uint8_t *block, uint64_t number, uint64_t file_blocks,
                              struct thin_super *out, struct blk_error *e);
/* Changes what may change of a superblock's bytes, which are kept otherwise; seals it. */
void thin_super_encode(const struct thin_super *s, uint8_t *block);

struct thin_detail thin_detail_get(const uint8_t *value);
void thin_detail_put(const struct thin_detail *d, uint8_t *value);

/* Entry @i of a bitmap: 0..3. */
unsigned thin_bits_get(const uint8_t *block, unsigned i);
void thin_bits_set(uint8_t *block, unsigned i, unsigned value);
/* The first entry of value 0 in [from, to), or @to. */
unsigned thin_bits_find(const uint8_t *block, unsigned from, unsigned to);

/* --- nodes: of blocks that thin_verify() accepted --- */

unsigned thin_node_most(unsigned value_bytes); /* entries of a new one */
void thin_node_init(uint8_t *block, bool leaf, unsigned value_bytes);
bool thin_node_is_leaf(const uint8_t *block);
unsigned thin_node_entries(const uint8_t *block);
unsigned thin_node_room(const uint8_t *block); /* max_entries */
unsigned thin_node_value_bytes(const uint8_t *block);
uint64_t thin_node_key(const uint8_t *block, unsigned i);
void thin_node_set_key(uint8_t *block, unsigned i, uint64_t key);
uint8_t *thin_node_value(uint8_t *block, unsigned i);
uint64_t thin_node_child(const uint8_t *block, unsigned i); /* a value of 8 bytes */
void thin_node_set_child(uint8_t *block, unsigned i, uint64_t value);
/* The last entry with a key <= @key; -1: all are higher. */
int thin_node_find(const uint8_t *block, uint64_t key);
void thin_node_insert(uint8_t *block, unsigned i, uint64_t key, const void *value);
void thin_node_remove(uint8_t *block, unsigned i);
/* Moves @count entries from the end of @from to the front of @to, or from the front of @from to the
 * end of @to. */
void thin_node_move_right(uint8_t *from, uint8_t *to, unsigned count);
void thin_node_move_left(uint8_t *from, uint8_t *to, unsigned count);

/* A mapping's value. */
static inline uint64_t thin_mapping(uint64_t data_block, uint32_t time)
{
    return data_block << 24 | (time & THIN_ID_MOST);
}
static inline uint64_t thin_mapping_block(uint64_t value)
{
    return value >> 24;
}
static inline uint32_t thin_mapping_time(uint64_t value)
{
    return value & THIN_ID_MOST;
}

#endif

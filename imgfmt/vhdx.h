/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx.h - what a VHDX image looks like (source: [MS-VHDX], Virtual Hard Disk v2 File Format).
 *
 *   | 0 identifier | 64K, 128K headers | 192K, 256K region tables | 1M log, metadata, block table,
 *   blocks: all in whole MiB, in any order |
 *
 * For vhdx.c (entries, driver), vhdx_parse.c (header, regions, metadata), vhdx_log.c (what a log
 * says), vhdx_write.c (headers, our log), vhdx_create.c, vhdx_parent.c and their tests. */
#ifndef IMGFMT_VHDX_H
#define IMGFMT_VHDX_H

#include "block/endian.h"
#include "imgfmt/map_backing.h"
#include "imgfmt/map_units.h"

#define VHDX_HEADER_AT(i)  ((1 + (uint64_t)(i)) * 64 * KiB)
#define VHDX_REGIONS_AT(i) ((3 + (uint64_t)(i)) * 64 * KiB)
#define VHDX_TABLE_BYTES   (64 * KiB) /* of a region table, and of the table of metadata */
#define VHDX_OTHERS        64         /* optional regions that are kept */
#define VHDX_LOG_MOST      (32 * MiB) /* a longer log is not replayed */
#define VHDX_SIZE_MOST     (64 * TiB)
#define VHDX_PAGE          4096u

enum vhdx_state { /* of an entry; bits 0 to 2 */
                  VHDX_NOT_PRESENT,
                  VHDX_UNDEFINED,
                  VHDX_ZERO,
                  VHDX_UNMAPPED,
                  VHDX_PRESENT = 6, /* of a sector bitmap too */
                  VHDX_PARTLY = 7,  /* which sectors, the chunk's sector bitmap says */
};

struct vhdx_header_disk { /* 4096 bytes, two of them; the valid one of the higher sequence counts */
    char signature[4];    /* "head" */
    le32 checksum;        /* CRC-32C over 4096, taken with zeroes here */
    le64 sequence;
    uint8_t file_write[16], data_write[16]; /* change with each session, with the contents */
    uint8_t log_guid[16];                   /* zeroes: the log is empty */
    le16 log_version;                       /* 0 */
    le16 version;                           /* 1 */
    le32 log_bytes;
    le64 log_offset;
    uint8_t reserved[4016];
};
static_assert(sizeof(struct vhdx_header_disk) == 4096, "VHDX header");

struct vhdx_region_disk {
    uint8_t guid[16];
    le64 offset;
    le32 bytes;
    le32 required; /* bit 0 */
};
struct vhdx_regions_disk { /* 64 KiB, two of them, alike */
    char signature[4];     /* "regi" */
    le32 checksum;
    le32 count;
    le32 reserved;
    struct vhdx_region_disk regions[2047];
    uint8_t rest[16];
};
static_assert(sizeof(struct vhdx_regions_disk) == VHDX_TABLE_BYTES, "VHDX regions");

struct vhdx_item_disk {
    uint8_t guid[16];
    le32 offset; /* in the metadata region, from 64 KiB on */
    le32 bytes;
    le32 flags; /* 1: a user's, 2: of the virtual disk, 4: required */
    le32 reserved;
};
struct vhdx_metadata_disk { /* 64 KiB at the start of the metadata region */
    char signature[8];      /* "metadata" */
    le16 reserved;
    le16 count;
    uint8_t reserved2[20];
    struct vhdx_item_disk items[2047];
};
static_assert(sizeof(struct vhdx_metadata_disk) == VHDX_TABLE_BYTES, "VHDX metadata");

struct vhdx_log_entry_disk { /* followed by descriptors, 32 bytes each; whole pages; then data */
    char signature[4];       /* "loge" */
    le32 checksum;           /* over the whole entry */
    le32 bytes;              /* of it, whole pages */
    le32 tail;               /* where in the log the oldest entry lies that still counts */
    le64 sequence;           /* one more than that of the entry before; not 0 */
    le32 descriptors;
    le32 reserved;
    uint8_t guid[16];     /* the header's */
    le64 flushed, length; /* of the file: at least so long; to be made so long */
};
static_assert(sizeof(struct vhdx_log_entry_disk) == 64, "VHDX log entry");
struct vhdx_descriptor_disk {
    char signature[4]; /* "desc": a page of data; "zero" */
    le32 trailing;     /* desc: the page's last 4 bytes */
    le64 leading;      /* desc: its first 8; zero: how many bytes are */
    le64 offset;       /* in the file */
    le64 sequence;     /* the entry's */
};
static_assert(sizeof(struct vhdx_descriptor_disk) == 32, "VHDX descriptor");
struct vhdx_log_data_disk {
    char signature[4];  /* "data" */
    le32 sequence_high; /* the entry's again */
    uint8_t bytes[4084];
    le32 sequence_low;
};
static_assert(sizeof(struct vhdx_log_data_disk) == VHDX_PAGE, "VHDX log data");

struct vhdx_locator_disk { /* the item "parent locator", then the entries */
    uint8_t type[16];
    le16 reserved;
    le16 count;
};
struct vhdx_locator_entry_disk { /* UTF-16; places count from the item's start */
    le32 key_offset, value_offset;
    le16 key_bytes, value_bytes;
};

/* GUIDs as they lie in the file. */
extern const uint8_t vhdx_guid_table[16], vhdx_guid_metadata[16], vhdx_guid_locator[16];
enum vhdx_item {
    VHDX_ITEM_FILE,     /* le32 block's bytes, le32 flags: 1 fixed, 2 has a parent */
    VHDX_ITEM_SIZE,     /* le64 */
    VHDX_ITEM_ID,       /* GUID of the virtual disk */
    VHDX_ITEM_LOGICAL,  /* le32 sector's bytes */
    VHDX_ITEM_PHYSICAL, /* le32 */
    VHDX_ITEM_PARENT,   /* locator */
    VHDX_ITEMS,
};
struct vhdx_item_known {
    uint8_t guid[16];
    uint32_t bytes; /* 0: any */
    const char *name;
};
extern const struct vhdx_item_known vhdx_items[VHDX_ITEMS];

/* --- what counts of it, after validation --- */

struct vhdx_header {
    unsigned slot; /* 0 or 1: which one it is */
    uint64_t sequence, log_offset;
    uint32_t log_bytes;
    uint8_t file_write[16], data_write[16], log_guid[16];
};
struct vhdx_region {
    uint64_t offset;
    uint32_t bytes;
};
struct vhdx_regions {
    struct vhdx_region table, metadata, others[VHDX_OTHERS];
    unsigned other_count;
};
struct vhdx_metadata {
    struct vhdx_region at[VHDX_ITEMS]; /* in the metadata region; bytes 0: it is not there */
    uint32_t block_bytes, logical, physical;
    bool fixed, has_parent;
    uint64_t size;
};

/* --- vhdx_parse.c: pure --- */

/* The one that counts of both. */
must_use int vhdx_header_choose(const struct vhdx_header_disk raw[2], uint64_t file_bytes,
                                struct vhdx_header *out, struct blk_error *e);
must_use int vhdx_regions_parse(const struct vhdx_regions_disk *raw, const struct vhdx_header *h,
                                struct vhdx_regions *out, struct blk_error *e);
/* Where the items lie: fills @out->at. */
must_use int vhdx_metadata_parse(const struct vhdx_metadata_disk *raw, uint32_t region_bytes,
                                 struct vhdx_metadata *out, struct blk_error *e);
/* What they say; @raw: the first 16 bytes of each. */
must_use int vhdx_items_parse(const uint8_t raw[VHDX_ITEMS][16], struct vhdx_metadata *out,
                              struct blk_error *e);
void vhdx_seal(void *structure, size_t bytes); /* its checksum, at byte 4 */
/* Clusters per sector bitmap, and entries of the table of a disk. */
uint64_t vhdx_chunk_ratio(const struct vhdx_metadata *d);
uint64_t vhdx_entries(const struct vhdx_metadata *d, uint64_t size);

/* --- vhdx_log.c: pure, over the bytes of a log in memory --- */

/* What a log does to the file: in order of sequence. */
struct vhdx_change {
    uint64_t offset, bytes; /* zeroes, where data is NULL; else a page */
    uint64_t order;
    const struct vhdx_descriptor_disk *desc;
    const struct vhdx_log_data_disk *data;
};
struct vhdx_replay {
    uint8_t *log; /* owned; NULL: nothing is to be replayed */
    uint64_t log_bytes;
    uint64_t length;           /* the file is to be so long at least */
    struct vhdx_change *pages; /* sorted by offset, the last one of each only */
    size_t page_count;
    struct vhdx_change *zeroes; /* in order */
    size_t zero_count;
};
/* Finds the sequence that counts in r->log and fills the rest. No valid entry: nothing to replay.
 */
must_use int vhdx_replay_find(struct vhdx_replay *r, const struct vhdx_header *h,
                              uint64_t file_bytes, struct blk_error *e);
void vhdx_replay_drop(struct vhdx_replay *r);
/* What [offset, +bytes) of the file is with the log replayed; @to holds what it is without. */
void vhdx_replay_patch(const struct vhdx_replay *r, uint64_t offset, void *to, uint64_t bytes);
/* The whole page that a change of data makes. */
void vhdx_change_page(const struct vhdx_change *c, void *page);

/* One entry for the log, to be written at one place; log_bytes long at most. */
struct vhdx_log_entry {
    uint64_t sequence, flushed, length;
    uint32_t tail;
    const uint8_t *guid;
};
/* Pages that fit into an entry of @bytes, and bytes of one of @pages. */
uint64_t vhdx_entry_bytes(uint64_t pages);
/* Page @i goes to @offset; then sealed. @to is vhdx_entry_bytes() long. */
void vhdx_entry_begin(void *to, const struct vhdx_log_entry *l, uint32_t pages);
void vhdx_entry_page(void *to, uint32_t i, uint64_t offset, const void *page);
void vhdx_entry_seal(void *to);

/* --- an open image --- */

/* Where our own log stands. */
struct vhdx_ring {
    uint64_t head, tail; /* the next entry; the oldest that counts */
    uint64_t used;       /* bytes from the tail on; 0: none counts */
    uint64_t sequence;   /* of the last entry */
};
struct vhdx_page { /* that is to be written */
    uint64_t offset;
    const void *bytes;
};

struct vhdx {
    struct map map; /* first: dev->state is a struct map * */
    struct map_units units;
    struct vhdx_header h;
    struct vhdx_regions regions;
    struct vhdx_metadata d;
    struct vhdx_replay replay; /* of somebody's log, while the image is open read-only */
    struct vhdx_ring log;
    bool direct; /* entries are written in place, in the engine's order; the log is empty */
    bool unsure; /* the file may say another size or table than we use */
    bool broken; /* what the log says may be half in place: nothing is written any more, who opens
                    the image again replays it */
    struct map_backing backing;
    uint64_t chunk_ratio; /* a power of two */
    unsigned chunk_bits;
    uint8_t linkage[16]; /* the parent's data_write as the locator says; zeroes: it says none */
};

static inline struct vhdx *vhdx_of(const struct map *m)
{
    return container_of((struct map *)m, struct vhdx, map);
}

/* Reads with the log replayed, zeroes past the end of the file. */
must_use int co_vhdx_read_meta(struct vhdx *v, uint64_t offset, void *to, uint64_t bytes);

/* Where chunk @chunk's sector bitmap lies; 0: it has none. */
must_use int co_vhdx_bitmap_place(struct map *m, uint64_t chunk, uint64_t *offset);

/* It has none any more, once the table is written back. */
must_use int co_vhdx_bitmap_drop(struct map *m, uint64_t chunk);

/* vhdx_write.c: hooks of map_units.h, and: */
int co_vhdx_begin(struct map *m);
int co_vhdx_end(struct map *m);
int co_vhdx_reserve(struct map *m);
int co_vhdx_publish(struct map *m);
/* Somebody's log goes into the file. */
must_use int co_vhdx_replay(struct vhdx *v, struct blk_error *e);
void vhdx_hook(struct vhdx *v); /* the cache asks us before it writes, and after it reads */
must_use int co_vhdx_direct(struct vhdx *v, bool direct);
/* Bytes of the metadata that change together, by the log. */
#define VHDX_EDIT_PAGES 5
struct vhdx_edit {
    unsigned count;
    struct vhdx_page pages[VHDX_EDIT_PAGES];
    uint8_t bytes[VHDX_EDIT_PAGES][VHDX_PAGE];
};
must_use int co_vhdx_edit(struct vhdx *v, struct vhdx_edit *edit, uint64_t offset,
                          const void *bytes, size_t count);
/* Durable when it returns, all of it or nothing after a crash. No session begins: children of this
 * image still know it. */
must_use int co_vhdx_apply(struct vhdx *v, const struct vhdx_edit *edit);

/* vhdx_create.c */
extern const struct opt_desc vhdx_create_options[];
int co_vhdx_create(const struct blk_create *c, struct blk_error *e);
int co_vhdx_measure(struct blk_measure *m, struct blk_error *e);

/* vhdx_parent.c: the name of the parent, from the locator. */
must_use int co_vhdx_parent_name(struct vhdx *v, struct blk_error *e);
must_use int vhdx_locator_parse(const uint8_t *raw, size_t bytes, char **name, uint8_t linkage[16],
                                struct blk_error *e);
#define VHDX_LOCATOR_ROOM 4096
/* A locator at @to, of VHDX_LOCATOR_ROOM bytes, for a parent of that name and data_write (NULL: not
 * known). Gives the bytes it takes; 0: the name is too long, or no UTF-8. */
size_t vhdx_locator_make(const char *name, const uint8_t *linkage, uint8_t *to);
/* data_write of an open VHDX image; NULL of anything else. */
const uint8_t *vhdx_identity(const struct blk_device *dev);
/* Driver operations. */
int co_vhdx_identify_backing(struct blk_device *dev, struct blk_device *backing,
                             struct blk_error *e);
int co_vhdx_change_backing(struct blk_device *dev, const char *name, const char *format,
                           struct blk_error *e);
int co_vhdx_opened(struct blk_device *dev, struct blk_error *e); /* it is the one that was meant */

extern const struct blk_driver vhdx_driver;

#endif

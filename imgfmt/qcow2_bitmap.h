/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_bitmap.h - persistent dirty bitmaps of a qcow2 image; what their files share:
 *
 *   qcow2_bitmap_table.c   the directory: bytes to structs and back
 *   qcow2_bitmap_bits.c    one bitmap's bits: in memory, from the file, to the file
 *   qcow2_bitmap.c         the list of an open image: recording, publishing, storing, resizing
 *   qcow2_bitmap_change.c  made, removed, cleared, enabled, disabled, merged; read
 *
 *   header extension -> directory -> entry: name, granularity, flags, bitmap table
 *   bitmap table -> clusters of bits; 0: all clean, 1: all dirty
 *
 * Everything runs at the device's home. */
#ifndef IMGFMT_QCOW2_BITMAP_H
#define IMGFMT_QCOW2_BITMAP_H

#include "imgfmt/qcow2_alloc.h"

#define QCOW2_MAX_BITMAPS         65535u
#define QCOW2_MAX_BITMAP_DIR      (65535 * 1024ULL)
#define QCOW2_MAX_BITMAP_NAME     1023u
#define QCOW2_MAX_BITMAP_EXTRA    1024u
#define QCOW2_MAX_BITMAP_BYTES    (512 * MiB) /* of one in the file, and in memory */
#define QCOW2_BITMAP_ENTRY_MAX    2072        /* bytes, with all that there may be */
#define QCOW2_MIN_GRANULARITY     9
#define QCOW2_MAX_GRANULARITY     31
#define QCOW2_BITMAP_DIRTY        1 /* the one type that there is */
#define QCOW2_BITMAP_ALL_DIRTY    1ULL
#define QCOW2_BITMAP_CELL_INVALID 0xff000000000001feULL

enum qcow2_bitmap_flag {
    QCOW2_BITMAP_IN_USE = 1,
    QCOW2_BITMAP_AUTO = 2,           /* enabled */
    QCOW2_BITMAP_EXTRA_HARMLESS = 4, /* usable by who does not know its extra data */
    QCOW2_BITMAP_FLAGS_KNOWN = 7,
};

/* The extension in the header. */
struct qcow2_bitmaps_disk {
    be32 count;
    be32 reserved;
    be64 directory_bytes;
    be64 directory_offset;
};
static_assert(sizeof(struct qcow2_bitmaps_disk) == QCOW2_EXT_BITMAPS_BYTES, "qcow2 bitmaps");

/* A directory entry; texts lie in the raw bytes, not terminated. */
struct qcow2_bitmap {
    uint64_t table_offset;
    uint32_t table_entries, flags;
    uint8_t type, granularity_bits;
    uint16_t name_bytes;
    uint32_t extra_bytes;
    const char *name;
    const uint8_t *extra;
};
/* Pure. Gives the bytes it takes, or -EINVAL. */
int64_t qcow2_bitmap_parse(const uint8_t *raw, size_t bytes, struct qcow2_bitmap *out);
/* The way back; gives the bytes it takes, qcow2_bitmap_entry_bytes(). */
uint64_t qcow2_bitmap_put(const struct qcow2_bitmap *b, uint8_t *to);
uint64_t qcow2_bitmap_entry_bytes(const struct qcow2_bitmap *b);
/* How many table entries a bitmap of a disk of @size has. */
uint64_t qcow2_bitmap_needs(uint64_t size, unsigned granularity_bits, unsigned cluster_bits);
/* False: it has something that is not known here, or does not fit the disk. */
bool qcow2_bitmap_usable(const struct qcow2_bitmap *b, uint64_t size, unsigned cluster_bits);

struct qcow2_bitmap_list {
    uint64_t offset, bytes; /* of the directory; 0: there is none */
    uint32_t count;
};
/* Calls @fn for every persistent bitmap that is valid. */
must_use int co_qcow2_bitmaps(struct qcow2 *q, struct qcow2_bitmap_list *list,
                              int (*fn)(void *arg, const struct qcow2_bitmap *b), void *arg,
                              struct blk_error *e);

/* --- one bitmap in memory ------------------------------------------------- */

/* One bit per granule, set with atomic operations: other workers look at them. */
struct qcow2_granules {
    uint64_t *words; /* owned; NULL: nothing is in memory */
    uint64_t count;  /* of bits */
};

struct qcow2_dirty {
    struct qcow2_bitmap disk; /* as the directory says; texts are owned by @raw */
    uint8_t *raw;
    char *name;
    enum { QCOW2_USABLE, QCOW2_INCONSISTENT, QCOW2_FOREIGN } kind;
    struct qcow2_granules bits;
    bool whole;               /* bits hold what the file holds as well */
    bool changed;             /* bits hold what the file does not */
    struct qcow2_dirty *next; /* that records */
};

/* Room for the bits of a disk of @size: none set. */
must_use int qcow2_granules_make(struct qcow2_granules *b, uint64_t size, unsigned granularity_bits,
                                 unsigned cluster_bits);
/* Sets [first, last]; true if one was not set. */
bool qcow2_granules_set(struct qcow2_granules *b, uint64_t first, uint64_t last);
bool qcow2_granules_all(const struct qcow2_granules *b, uint64_t first, uint64_t last);
/* The bit at @from, and where those like it end. */
uint64_t qcow2_granules_run(const struct qcow2_granules *b, uint64_t from, bool *set);
/* Brings what the file holds into memory, on top of what is there. */
must_use int co_qcow2_granules_load(struct qcow2 *q, struct qcow2_dirty *d, struct blk_error *e);

/* Space that a bitmap takes in the file, in clusters. */
struct qcow2_space {
    struct qcow2_run *runs;
    size_t count, room;
};
/* Writes @bits into new space, not durable yet. */
struct qcow2_stored {
    uint64_t table_offset;
    uint32_t table_entries;
    struct qcow2_space space; /* table and clusters */
};
must_use int co_qcow2_granules_store(struct qcow2 *q, const struct qcow2_granules *bits,
                                     struct qcow2_stored *out);
/* Adds what table and clusters of @b take. What cannot be read or remembered is left out: a leak.
 */
void co_qcow2_space_of(struct qcow2 *q, const struct qcow2_bitmap *b, struct qcow2_space *s);
/* Frees @s's memory; @release: and gives the space back. */
void co_qcow2_space_drop(struct qcow2 *q, struct qcow2_space *s, bool release);

/* --- the list ------------------------------------------------------------- */

/* What the list is to be: made from what it is, changed row by row, then published. */
struct qcow2_bitmap_row {
    struct qcow2_dirty *d;
    uint64_t table_offset;
    uint32_t table_entries, flags;
    struct qcow2_stored stored; /* the new table, where there is one */
};
struct qcow2_bitmap_rows {
    struct qcow2_bitmap_row *rows;      /* owned */
    uint32_t count;                     /* one more fits */
    struct qcow2_dirty **list;          /* owned, as long: becomes the list */
    struct qcow2_space old;             /* given back once it is published */
    struct qcow2_dirty *removed;        /* taken out of the list */
    const struct qcow2_header *resized; /* size and L1 table change with it; NULL: they stay */
};
must_use int qcow2_bitmap_rows_begin(struct qcow2 *q, struct qcow2_bitmap_rows *r);
/* Writes @bits for a row; what its table took before is given back later. */
must_use int co_qcow2_bitmap_row_store(struct qcow2 *q, struct qcow2_bitmap_rows *r,
                                       struct qcow2_bitmap_row *row,
                                       const struct qcow2_granules *bits);
/* Makes them the image's list, durably; on failure all is as it was. Frees @r either way. */
must_use int co_qcow2_bitmap_publish(struct qcow2 *q, struct qcow2_bitmap_rows *r,
                                     struct blk_error *e);
void co_qcow2_bitmap_rows_drop(struct qcow2 *q, struct qcow2_bitmap_rows *r);
/* Looks anew at which ones record. */
void qcow2_bitmaps_watch(struct qcow2 *q);
void qcow2_dirty_drop(struct qcow2_dirty *d);
/* A list entry of @b; NULL: no memory. */
struct qcow2_dirty *qcow2_dirty_make(const struct qcow2 *q, const struct qcow2_bitmap *b);
/* Reads the directory, once. */
must_use int co_qcow2_bitmaps_known(struct qcow2 *q, struct blk_error *e);
/* Before closing and before becoming read-only: stores what was recorded. Nothing is recorded
 * afterwards, unless they are armed again; what could not be stored is still there. */
must_use int co_qcow2_bitmaps_store(struct qcow2 *q, struct blk_error *e);
/* B1: marks them in the file; from here on what is written is recorded. */
must_use int co_qcow2_bitmaps_arm(struct qcow2 *q);
/* Those that are marked cannot be used any more. */
void qcow2_bitmaps_lose(struct qcow2 *q);
void qcow2_bitmaps_drop(struct qcow2 *q);
/* Says that it is, and what can be done: -EINVAL. */
int qcow2_bitmap_inconsistent(const struct qcow2_dirty *d, struct blk_error *e);
/* Whether the disk may become @size bytes long; and the header with that size, L1 table and all
 * bitmaps of that size in one step. */
must_use int qcow2_bitmaps_may_resize(struct qcow2 *q, uint64_t size, struct blk_error *e);
must_use int co_qcow2_bitmaps_put_size(struct qcow2 *q, const struct qcow2_header *h);
/* Before the first write: an extension that somebody's writes made stale goes. */
must_use int co_qcow2_bitmaps_forget_stale(struct qcow2 *q);

/* qcow2_bitmap_change.c: the driver's operations */
int co_qcow2_bitmap_list(struct blk_device *dev, struct blk_bitmap **out, size_t *count,
                         struct blk_error *e);
int co_qcow2_bitmap_change(struct blk_device *dev, const struct blk_bitmap_change *c,
                           struct blk_error *e);
int co_qcow2_bitmap_read(struct blk_device *dev, const char *name, uint64_t offset, uint64_t bytes,
                         struct blk_bitmap_extent *out, struct blk_error *e);

#endif

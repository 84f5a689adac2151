/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2.h - what the files of the qcow2 driver share: the header as a trusted struct, the entry
 * codec, and the allocator.
 *
 *   qcow2_header.c    cluster 0: bytes to struct and back; pure
 *   qcow2_entry.c     L1, L2 and refcount entries; pure
 *   qcow2_refcount.c  who owns which cluster: allocation, reference counts
 *   qcow2_table.c     new refcount blocks, a longer refcount table, runs for tables
 *   qcow2_free.c      clusters on their way back: the queue of releases
 *   qcow2_runs.c      runs of free clusters
 *   qcow2_pack.c      compressed clusters
 *   qcow2_create.c    an empty (or preallocated) image
 *   qcow2_rewrite.c   cluster 0 with other names and extensions, in steps that each leave a header
 *   qcow2_change.c    lets go of all contents; stands on another backing file
 *   qcow2_amend.c     another version, lazy refcounts, another size
 *   qcow2_amend_counts.c  reference counts of another width
 *   qcow2_amend_snapshots.c  whether snapshots can be those of a version 2 image
 *   qcow2_measure.c   how large an image will be
 *   qcow2_resize.c    grow and shrink
 *   qcow2_compact.h   a file without gaps: qcow2_compact_plan.c, qcow2_compact.c
 *   qcow2_data_file.c clusters in a file of their own
 *   qcow2_guard.c     no structure is written onto another
 *   qcow2_check.c     recounts all references, finds and repairs leaks
 *   qcow2_snapshot_table.c  the list of snapshots: bytes to structs and back
 *   qcow2_refwalk.c   every reference below an L1 table counted up or down; COPIED flags
 *   qcow2_shadow.c    a second refcount structure that takes the place of the first
 *   qcow2_snapshot.c  snapshots created, applied, deleted
 *   qcow2_repack.c    compressed clusters placed anew
 *   qcow2_inner.c     a snapshot as a device
 *   qcow2_bitmap.h    persistent bitmaps: qcow2_bitmap.c, _bits.c, _change.c, _table.c
 *   qcow2_info.c      facts for people and JSON
 *   qcow2.c           open, close, the durability rules, the driver's table
 *
 * Section numbers are those of the public format description (docs/interop/qcow2.txt of QEMU). */
#ifndef IMGFMT_QCOW2_H
#define IMGFMT_QCOW2_H

#include "block/endian.h"
#include "imgfmt/codec.h"
#include "imgfmt/map.h"

/* --- the header ----------------------------------------------------------- */

#define QCOW2_MAGIC            0x514649fbu
#define QCOW2_SECTOR           512u
#define QCOW2_MAX_L1_BYTES     (32 * MiB)
#define QCOW2_MAX_REFTABLE     (8 * MiB)
#define QCOW2_MAX_CRYPTO       (16 * MiB) /* of a LUKS header: 2 MiB is the longest that is made */
#define QCOW2_MAX_SNAPSHOTS    65536u
#define QCOW2_MAX_BACKING_NAME 1023u
#define QCOW2_SUBCLUSTER_BITS  5  /* of a cluster with an extended L2 entry: log2 of their number */
#define QCOW2_EXTENDED_MIN     14 /* cluster_bits with extended L2 entries, at least */
#define QCOW2_MAX_OFFSET       (1ULL << 56) /* entries hold bits 9 to 55 */

enum qcow2_incompatible {
    QCOW2_DIRTY = 1,
    QCOW2_CORRUPT = 2,
    QCOW2_DATA_FILE = 4,
    QCOW2_COMPRESSION = 8,
    QCOW2_EXTENDED_L2 = 16,
    QCOW2_INCOMPATIBLE_KNOWN = 31,
};
enum qcow2_compatible { QCOW2_LAZY_REFCOUNTS = 1 };
enum qcow2_autoclear { QCOW2_BITMAPS = 1, QCOW2_RAW_DATA = 2, QCOW2_AUTOCLEAR_KNOWN = 3 };
enum qcow2_compression_type { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };

/* At offset 0, big endian. Version 2 ends before @incompatible. */
struct qcow2_header_disk {
    be32 magic;                 /* "QFI" 0xfb */
    be32 version;               /* 2 or 3 */
    be64 backing_offset;        /* of the backing file's name; 0: none */
    be32 backing_bytes;         /* its length, no terminator */
    be32 cluster_bits;          /* 9 .. 21 */
    be64 size;                  /* virtual bytes */
    be32 crypt_method;          /* 0 none, 1 AES, 2 LUKS */
    be32 l1_entries;            /* of the active L1 table */
    be64 l1_offset;             /* cluster aligned */
    be64 refcount_table_offset; /* cluster aligned */
    be32 refcount_table_clusters;
    be32 snapshot_count;
    be64 snapshots_offset;    /* cluster aligned */
    be64 incompatible;        /* unknown bits: must not be opened */
    be64 compatible;          /* unknown bits: ignored */
    be64 autoclear;           /* unknown bits: cleared by who writes */
    be32 refcount_order;      /* width is 1 << order bits; version 2: 4 */
    be32 header_bytes;        /* of this header; 104, 112, or more from the future */
    uint8_t compression_type; /* with header_bytes > 104 */
    uint8_t padding[7];
};
static_assert(sizeof(struct qcow2_header_disk) == 112, "qcow2 header");
#define QCOW2_V2_BYTES 72u
#define QCOW2_V3_BYTES 104u

/* Header extensions: a type, a length, data padded to 8. */
enum qcow2_extension {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792acaU,
    QCOW2_EXT_FEATURE_NAMES = 0x6803f857U,
    QCOW2_EXT_BITMAPS = 0x23852875U,
    QCOW2_EXT_CRYPTO = 0x0537be77U,
    QCOW2_EXT_DATA_FILE = 0x44415441U,
    QCOW2_EXT_FILLER = 0x4c466c72U, /* our own, unknown to others: skips bytes that are in use */
};

enum qcow2_crypt_method { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };

/* A piece of cluster 0. */
struct qcow2_span {
    uint32_t offset, bytes; /* bytes 0: there is none */
};

/* The header after validation: every field may be used without another look. */
struct qcow2_header {
    uint32_t version;
    uint32_t cluster_bits;
    uint64_t size;
    uint32_t crypt_method;                /* enum qcow2_crypt_method */
    uint64_t crypto_offset, crypto_bytes; /* of the LUKS header in the file */
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression_type;
    /* In cluster 0: */
    struct qcow2_span backing_name, backing_format, data_file_name, feature_names, bitmaps, crypto;
};

/* @raw: the first @bytes of the file (at most a cluster; at least 512 unless the file is shorter);
 * @file_bytes: the file's length; @fresh: the magic is withheld (zero).
 * Checks all of security.md's limits; does not judge features (qcow2_header_refuse()). With
 * @damaged, tables beyond the end of the file are let through, for check. */
struct qcow2_raw_header {
    const uint8_t *raw;
    size_t bytes;
    uint64_t file_bytes;
    bool fresh, damaged;
};
must_use int qcow2_header_parse(const struct qcow2_raw_header *in, struct qcow2_header *out,
                                struct blk_error *e);
/* How many bytes of the file qcow2_header_parse() wants, from the first 512: the cluster size, or 0
 * when it is no qcow2 header. */
uint32_t qcow2_header_wants(const uint8_t *first, size_t bytes, bool fresh);
/* What this program cannot read (@write false) or not write right: a sentence, or 0. @raw gives the
 * names of unknown features. */
must_use int qcow2_header_refuse(const struct qcow2_header *h, const uint8_t *raw, bool write,
                                 struct blk_error *e);
/* Writes the fixed fields of @h over the first bytes of @sector (QCOW2_SECTOR long); what follows
 * them there stays. */
void qcow2_header_put(const struct qcow2_header *h, bool fresh, uint8_t *sector);
/* A whole header cluster for a new image, with extensions, the table of feature names where there
 * is room, and the names; sets the spans of @h. -ENOSPC: they do not fit. */
struct qcow2_names {
    const char *backing, *backing_format, *data_file; /* NULL: none */
};
must_use int qcow2_header_build(struct qcow2_header *h, const struct qcow2_names *names,
                                uint8_t *cluster);

static inline uint64_t qcow2_cluster_bytes(const struct qcow2_header *h)
{
    return 1ULL << h->cluster_bits;
}
static inline bool qcow2_extended(const struct qcow2_header *h)
{
    return h->incompatible & QCOW2_EXTENDED_L2;
}
static inline bool qcow2_has_data_file(const struct qcow2_header *h)
{
    return h->incompatible & QCOW2_DATA_FILE;
}
/* The data file is a raw image of the disk. */
static inline bool qcow2_raw_data(const struct qcow2_header *h)
{
    return qcow2_has_data_file(h) && h->autoclear & QCOW2_RAW_DATA;
}
/* Bytes of an L2 entry. */
static inline uint32_t qcow2_entry_bytes(const struct qcow2_header *h)
{
    return qcow2_extended(h) ? 16 : 8;
}
/* L1 entries that @size virtual bytes need. */
uint64_t qcow2_l1_needs(uint64_t size, const struct qcow2_header *h);

/* --- entries -------------------------------------------------------------- */

#define QCOW2_COPIED         (1ULL << 63) /* exactly one reference: may be written in place */
#define QCOW2_COMPRESSED     (1ULL << 62)
#define QCOW2_ZERO           1ULL
#define QCOW2_OFFSET_MASK    0x00fffffffffffe00ULL
#define QCOW2_L1_RESERVED    0x7f000000000001ffULL
#define QCOW2_L2_RESERVED    0x3f000000000001feULL
#define QCOW2_TABLE_RESERVED 0x1ffULL /* of a refcount table entry */

/* What an L2 entry of any bytes means. */
struct qcow2_entry {
    enum map_state state;
    bool copied;
    uint64_t offset;       /* 0: none; packed: any byte */
    uint32_t packed_bytes; /* up to the end of the last 512-byte sector */
    uint64_t sub;          /* MAP_PARTIAL: as in a map_cell */
};
/* An L2 entry as numbers. */
struct qcow2_bits {
    uint64_t entry;
    uint64_t sub; /* extended: its bitmap; else 0 */
};
/* Bits of an entry that is not compressed which mean nothing. */
static inline uint64_t qcow2_l2_reserved(const struct qcow2_header *h)
{
    return QCOW2_L2_RESERVED | (qcow2_extended(h) ? QCOW2_ZERO : 0);
}
struct qcow2_bits qcow2_bits_get(const struct qcow2_header *h, const void *entry);
void qcow2_bits_put(const struct qcow2_header *h, struct qcow2_bits bits, void *entry);
/* -EIO: no valid image holds it. */
int qcow2_entry_decode(const struct qcow2_header *h, struct qcow2_bits bits,
                       struct qcow2_entry *out);
struct qcow2_bits qcow2_entry_encode(const struct qcow2_header *h, const struct qcow2_entry *e);
/* The offset mask of a compressed cluster's descriptor. */
uint64_t qcow2_packed_offset_max(uint32_t cluster_bits);

/* Reference counts of 1 << @order bits in a block: widths below a byte are packed from the lowest
 * bit up, others are big endian. */
uint64_t qcow2_count_get(const uint8_t *block, uint32_t order, uint64_t index);
void qcow2_count_set(uint8_t *block, uint32_t order, uint64_t index, uint64_t count);
static inline uint64_t qcow2_count_max(uint32_t order)
{
    return order == 6 ? UINT64_MAX : (1ULL << (1u << order)) - 1;
}
/* The first index in [from, to) whose count is zero (@zero) or is not; @to: there is none. */
uint64_t qcow2_count_find(const uint8_t *block, uint32_t order, uint64_t from, uint64_t to,
                          bool zero);

/* --- free space ----------------------------------------------------------- */

/* Runs of clusters, sorted, never touching: what this session knows to be free. Bounded: what does
 * not fit is forgotten, and found again by the scan. */
struct qcow2_run {
    uint64_t first, count;
};
struct qcow2_runs {
    struct qcow2_run *runs;
    size_t used, room, limit;
};
/* Adds a run (parts of it may be there already); joins neighbours. false: forgotten (full, or no
 * memory). */
bool qcow2_runs_add(struct qcow2_runs *r, uint64_t first, uint64_t count);
/* Takes up to @want clusters that lie together; 0: empty. Prefers a run of the whole length. */
uint64_t qcow2_runs_take(struct qcow2_runs *r, uint64_t want, uint64_t *first);
void qcow2_runs_drop(struct qcow2_runs *r);

/* Space on its way back: one reference less on the clusters that a range of the file touches. */
enum qcow2_release_flags {
    QCOW2_PUNCH = 1, /* clusters whose count becomes zero are punched first */
    QCOW2_TABLE = 2, /* pages of it may be in the metadata cache */
};
struct qcow2_release {
    uint64_t offset, bytes;
    unsigned flags;
};

/* --- the open image ------------------------------------------------------- */

#define QCOW2_RELEASES_KEPT 64 /* that need no memory to be remembered */

/* What qcow2_guard.c knows of where structures lie. */
enum qcow2_guard_kind { QCOW2_GUARD_L2, QCOW2_GUARD_BLOCK };
struct qcow2_guard {
    bool built;
    uint64_t *slots; /* a hash set of clusters with their kind */
    size_t slot_room, slots_used;
    struct qcow2_run *ranges; /* clusters */
    size_t range_count;
};

/* Persistent bitmaps of an open image: qcow2_bitmap.h. */
struct qcow2_bitmaps {
    struct co_mutex lock;      /* goes before alloc */
    struct qcow2_dirty **list; /* owned, in the directory's order */
    uint32_t count;
    uint64_t at, bytes;            /* of the directory; bytes 0: there is none */
    bool known;                    /* the directory was read */
    bool watch;                    /* some record what is written */
    bool armed;                    /* those are marked in use on disk, so they may */
    struct qcow2_dirty *recording; /* the first of them */
};

struct qcow2 {
    struct map map; /* first: the engine's operations take dev->state */

    /* Immutable after open but for header, which changes under @alloc, and @sector with it. */
    struct qcow2_header header;
    uint8_t *sector;                     /* the file's first 512 bytes, as they are to be */
    uint32_t page_bytes;                 /* of the metadata cache */
    uint32_t block_order;                /* log2 of the counts in a refcount block */
    struct codec codec;                  /* of compressed clusters; on any thread */
    char *backing_name, *backing_format; /* NULL: none */
    char *full_backing_name;             /* NULL: none, or not to be known */
    bool hidden;                         /* the magic is withheld until co_complete */
    bool looked_for_holes;               /* map.shape.file_has_holes is known */
    bool backing_missing; /* the image names a backing file that was not to be opened */
    char *data_name;      /* of the external data file; NULL: it names none */
    bool data_missing;    /* it is not open (yet) */

    /* Lock order: the engine's, then alloc. Held over metadata I/O, never over a wait for a
     * write-back's deferred calls (they only queue here). */
    struct co_mutex alloc;
    /* Before alloc. Held by who changes the snapshots, and by who lists or opens them meanwhile. */
    struct co_mutex snapshots;
    bool header_unsure;  /* a write of the header failed: what the file says is not known */
    uint64_t next;       /* clusters from here up have never been handed out; UINT64_MAX: unknown */
    uint64_t used_end;   /* clusters below were used or lie inside the file when it was opened */
    uint64_t file_bytes; /* the file's length when it was opened */
    uint64_t scan;       /* the search for holes: clusters below were looked at */
    uint64_t table_seq;  /* raised when a refcount table entry changes */
    struct qcow2_runs free;
    struct qcow2_crypt *crypt; /* qcow2_crypt.c's; NULL: not encrypted */
    struct qcow2_guard guard;
    uint64_t pack_at; /* where the next compressed cluster may begin; 0: in a new host cluster */
    uint64_t memo_index,
        memo_block; /* the last refcount block that was looked up; memo_block 0: none */

    struct qcow2_release *releases;                   /* first in, first out */
    size_t release_head, release_count, release_room; /* [head, count) are to be done */
    struct qcow2_release kept[QCOW2_RELEASES_KEPT];
    unsigned background; /* coroutines of ours that still run */
    bool draining;
    struct co_queue idle;
    struct blk_listener listener; /* of the image itself: sets the corrupt bit */
    struct qcow2_view *views;     /* snapshots that are open as devices */
    struct qcow2_bitmaps bitmaps;
};

static inline struct qcow2 *qcow2_of(const struct map *m)
{
    return container_of(m, struct qcow2, map);
}
static inline struct qcow2 *qcow2_of_dev(const struct blk_device *dev)
{
    return container_of((struct map *)dev->state, struct qcow2, map);
}

/* Ranks of the metadata cache: own before publish. */
enum qcow2_rank { QCOW2_RANK_BLOCK, QCOW2_RANK_TABLE, QCOW2_RANK_L2, QCOW2_RANK_L1 };

/* qcow2.c */
extern const struct blk_driver qcow2_driver;
/* Writes the header's sector with @h's fields; durable when it returns (not in fresh mode). On
 * success @h is the image's header. */
must_use int co_qcow2_put_header(struct qcow2 *q, const struct qcow2_header *h);
/* After a failed write of the header the file may say what it was to say, or what it said: until it
 * has been written again nothing is allocated, written or called durable. Caller holds alloc. */
must_use int co_qcow2_sure_header(struct qcow2 *q);
int qcow2_root_decode(const struct map *m, const void *raw, uint64_t *offset, bool *shared);
/* Writes everything back, with all that was let go of counted (@flush: durable). */
must_use int co_qcow2_settle(struct qcow2 *q, bool flush);
/* The steps of opening that a snapshot's device takes too; qcow2_open_map() after the header. */
must_use int qcow2_open_map(struct qcow2 *q, const struct opts *opts, struct blk_error *e);
void qcow2_set_limits(struct qcow2 *q);
void co_qcow2_free(struct qcow2 *q);
/* Page size for the metadata cache of an image. */
uint32_t qcow2_page_bytes(uint32_t cluster_bits);
/* True if [offset, +bytes) touches the header, the active L1 table or the refcount table. */
static inline bool qcow2_hits_tables(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    const struct qcow2_header *h = &q->header;
    uint64_t table_bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;
    uint64_t end = offset + bytes;

    return offset < qcow2_cluster_bytes(h) ||
           (offset < h->l1_offset + h->l1_entries * 8ULL && end > h->l1_offset) ||
           (offset < h->refcount_table_offset + table_bytes && end > h->refcount_table_offset);
}

/* qcow2_refcount.c */
int co_qcow2_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused);
int co_qcow2_place_table(struct map *m, uint64_t *offset);
int co_qcow2_place_packed(struct map *m, uint32_t bytes, uint64_t *offset, bool *reused);
/* Before closing: the file needs no more than what was ever handed out. */
void co_qcow2_trim_file(struct qcow2 *q);
/* @clusters that lie together, counted; for tables. Caller holds alloc. */
must_use int co_qcow2_place_together(struct qcow2 *q, uint64_t clusters, uint64_t *offset);
/* The count of one cluster, 0 where there is no block. -EIO: the table points nowhere sensible. */
must_use int co_qcow2_count(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* Changes the counts of [first, +count) by @delta (1 or -1); they lie in one page of a block that
 * exists (qcow2_page_run()). All or none. Caller holds alloc. */
must_use int co_qcow2_count_add(struct qcow2 *q, uint64_t first, uint64_t count, int delta);
/* How many clusters from @first on share its page of counts. */
uint64_t qcow2_page_run(const struct qcow2 *q, uint64_t first);
/* The refcount block that counts @cluster: *offset 0 if there is none. Caller holds alloc. */
must_use int co_qcow2_block_of(struct qcow2 *q, uint64_t cluster, uint64_t *offset);

/* qcow2_free.c */
void qcow2_unplace(struct map *m, const struct map_cell *cells, size_t count);
void qcow2_unplace_table(struct map *m, uint64_t offset);
void co_qcow2_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch);
void co_qcow2_release_table(struct map *m, uint64_t offset);
/* Queues one reference less on a range of the file. Never fails: a leak at worst. */
void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t bytes, unsigned flags);
/* Works the queue off; caller holds nothing. */
void co_qcow2_drain(struct qcow2 *q);

/* qcow2_crypt.c: clusters encrypted with LUKS; q->crypt is NULL in images that are not. */
must_use int co_qcow2_open_crypt(struct qcow2 *q, const struct opts *opts,
                                 struct blk_opener *opener, struct blk_error *e);
/* Of an image with the old AES: what the engine reads, decrypted. Whole sectors. */
must_use int co_qcow2_aes_read(struct qcow2 *q, uint64_t offset, const struct vec *to);
static inline bool qcow2_is_aes(const struct qcow2 *q)
{
    return q->crypt && q->header.crypt_method == QCOW2_CRYPT_AES;
}
void qcow2_crypt_drop(struct qcow2 *q);
json_t *qcow2_crypt_info(const struct qcow2 *q);
/* What -o says of key slots, if anything. */
must_use int co_qcow2_amend_crypt(struct qcow2 *q, const struct opts *opts, struct blk_error *e);
/* Of an image to be made: the method and how long its LUKS header is, into @h; then that header. */
must_use int qcow2_crypt_take(const struct opts *o, struct qcow2_header *h, struct blk_error *e);
must_use int co_qcow2_make_crypt(const struct blk_create *c, const struct qcow2_header *h,
                                 struct blk_error *e);

/* qcow2_pack.c */
void qcow2_codec_init(struct qcow2 *q, unsigned level);
int qcow2_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                 size_t packed_bytes, void *cluster);
int qcow2_pack(const struct map *m, const void *cluster, void *packed, size_t *packed_bytes);

/* the rest of the driver's table */
extern const struct opt_desc qcow2_create_options[];
int co_qcow2_create(const struct blk_create *c, struct blk_error *e);
/* qcow2_rewrite.c: what cluster 0 is to say. */
struct qcow2_cover {
    const struct qcow2_header *header;         /* its fixed fields; spans are found anew */
    const char *backing_name, *backing_format; /* NULL: none */
    const char *data_name;                     /* NULL: as it is */
    bool set_bitmaps;    /* else the bitmaps extension is carried over like all others */
    const void *bitmaps; /* its QCOW2_EXT_BITMAPS_BYTES; NULL: there is none any more */
};
#define QCOW2_EXT_BITMAPS_BYTES 24
/* A header cluster as the rewrite lays it out: only [from, end) beyond the first sector is new. */
struct qcow2_cover_plan {
    uint32_t park;   /* extensions begin here, behind a filler; 0: behind the fixed fields */
    bool drop_names; /* leaves out the table of feature names */
    uint32_t end;    /* out: bytes in use */
};
/* Pure: writes what @cover and the extensions of @old say to @cluster. -ENOSPC: does not fit. */
must_use int qcow2_cover_build(const struct qcow2_cover *cover, const uint8_t *old,
                               const struct qcow2_header *old_header, struct qcow2_cover_plan *plan,
                               uint8_t *cluster);
/* How many bytes of a header cluster its extensions and the backing name use. */
uint32_t qcow2_cover_end(const uint8_t *cluster, const struct qcow2_header *h);
/* Caller holds alloc; all that the header relies on is durable. -ENOSPC: nothing was changed. */
must_use int co_qcow2_rewrite(struct qcow2 *q, const struct qcow2_cover *cover);
/* qcow2_amend.c */
extern const struct opt_desc qcow2_amend_options[];
int co_qcow2_amend(struct blk_device *dev, const struct opts *opts, struct blk_error *e);
/* qcow2_amend_counts.c: counts of 1 << @order bits. -EINVAL: one of them does not fit. */
must_use int co_qcow2_change_counts(struct qcow2 *q, uint32_t order, struct blk_error *e);
/* qcow2_amend_snapshots.c: refuses what a snapshot holds that version 2 cannot say. */
must_use int co_qcow2_check_old_snapshots(struct qcow2 *q, struct blk_error *e);
/* qcow2_change.c, qcow2_compact.c, qcow2_resize.c */
int co_qcow2_make_empty(struct blk_device *dev, struct blk_error *e);
int co_qcow2_change_backing(struct blk_device *dev, const char *name, const char *format,
                            struct blk_error *e);
int co_qcow2_compact(struct blk_device *dev, struct blk_error *e);
must_use int co_qcow2_drop_tables(struct qcow2 *q, uint64_t from);
/* The engine's view of @h: place and length of the L1 table, size. */
must_use int qcow2_reshape(struct qcow2 *q, const struct qcow2_header *h);
/* qcow2_data_file.c */
must_use int co_qcow2_ask_for_data(struct qcow2 *q, struct blk_opener *opener, struct blk_error *e);
/* Children may have come: where the clusters lie. */
void qcow2_data_opened(struct qcow2 *q);
/* The data file, if there is one, becomes at least as long (@shrink: as long) as the disk. */
must_use int co_qcow2_resize_data(struct qcow2 *q, uint64_t size, bool shrink, struct blk_error *e);
enum qcow2_preallocation { QCOW2_PRE_OFF, QCOW2_PRE_METADATA, QCOW2_PRE_FALLOC, QCOW2_PRE_FULL };
/* The data file of a new image: zeroes. */
must_use int co_qcow2_make_data(const struct blk_create *c, const char *name, uint64_t bytes,
                                enum qcow2_preallocation how, struct blk_error *e);
/* Cluster size, version, width of counts and compression of an image to be made. */
must_use int qcow2_take_shape(const struct opts *o, struct qcow2_header *h, struct blk_error *e);
int co_qcow2_measure(struct blk_measure *m, struct blk_error *e);
int co_qcow2_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e);
int co_qcow2_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e);
int co_qcow2_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e);

/* qcow2_bitmap.c: bitmaps that record. The device's writes call this before they change anything
 * that a guest sees; costs one look where nothing records. */
must_use int co_qcow2_record_all(struct qcow2 *q, uint64_t offset, uint64_t bytes);
bool qcow2_recorded_all(const struct qcow2 *q, uint64_t offset, uint64_t bytes);
static inline must_use int co_qcow2_record(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return likely(!q->bitmaps.watch) ? 0 : co_qcow2_record_all(q, offset, bytes);
}
/* True if a change there needs no recording any more; any worker. */
static inline bool qcow2_recorded(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return likely(!q->bitmaps.watch) || qcow2_recorded_all(q, offset, bytes);
}

/* qcow2_snapshot_table.c: a snapshot table entry; pure. Gives the bytes it takes, or
 * -EINVAL/-EAGAIN (more than @bytes). */
struct qcow2_snapshot {
    uint64_t l1_offset, date_sec, date_nsec, vm_clock_nsec, vm_state_bytes, disk_bytes, icount;
    uint32_t l1_entries;
    const char *id, *name; /* in the raw bytes, not terminated */
    uint16_t id_bytes, name_bytes;
    bool has_icount, has_disk_bytes;
};
int64_t qcow2_snapshot_parse(const uint8_t *raw, size_t bytes, struct qcow2_snapshot *out);
/* The way back; gives the bytes it takes, at most QCOW2_SNAPSHOT_PUT_MAX. */
#define QCOW2_SNAPSHOT_PUT_MAX (40 + 24 + 65535 + 65535 + 8)
uint64_t qcow2_snapshot_put(const struct qcow2_snapshot *s, uint8_t *to);
/* The whole table, raw: entries that stay are copied as they are. Free with mem_free(t->raw). */
struct qcow2_snapshot_table {
    uint8_t *raw;
    uint64_t bytes;
    uint32_t count;
};
must_use int co_qcow2_snapshot_table(struct qcow2 *q, struct qcow2_snapshot_table *out,
                                     struct blk_error *e);
/* The entry at *at, which moves to the next; the table was read whole, so it is there. */
void qcow2_snapshot_next(const struct qcow2_snapshot_table *t, uint64_t *at,
                         struct qcow2_snapshot *out);
/* Calls @fn for every snapshot of the table. */
must_use int co_qcow2_snapshots(struct qcow2 *q,
                                int (*fn)(void *arg, const struct qcow2_snapshot *s), void *arg,
                                struct blk_error *e);
/* How long the snapshot table is. */
must_use int co_qcow2_snapshot_bytes(struct qcow2 *q, uint64_t *bytes, struct blk_error *e);

/* qcow2_snapshot.c */
int co_qcow2_snapshot_list(struct blk_device *dev, struct blk_snapshot **out, size_t *count,
                           struct blk_error *e);
int co_qcow2_snapshot_create(struct blk_device *dev, const struct blk_snapshot *wanted,
                             struct blk_error *e);
int co_qcow2_snapshot_apply(struct blk_device *dev, const char *id, struct blk_error *e);
int co_qcow2_snapshot_delete(struct blk_device *dev, const char *id, uint64_t *freed,
                             struct blk_error *e);
/* How large the disk was then. */
uint64_t qcow2_snapshot_size(const struct qcow2 *q, const struct qcow2_snapshot *s);

/* qcow2_inner.c: a snapshot as a device, `x.qcow2//@name` */
int co_qcow2_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                        struct blk_error *e);
int co_qcow2_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                        struct blk_error *e);
/* Somebody reads the snapshot through a device. */
bool qcow2_snapshot_is_open(const struct qcow2 *q, const struct qcow2_snapshot *s);

#endif

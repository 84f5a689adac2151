/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk.h - what VMware's disks look like (source: VMware's technical note "Virtual Disk Format
 * 5.0"). For the vmdk files and their tests:
 *
 *   vmdk_descriptor.c  the text that says what a disk consists of; pure
 *   vmdk_text.c        the same, written anew: CID, size, parent
 *   vmdk_sparse.c      one sparse extent as a map
 *   vmdk_cowd.c        vmfsSparse: one such extent as a map
 *   vmdk_stream.c      what is only read: streamOptimized, scattered tables, seSparse
 *   vmdk_se.c          seSparse: headers and entries
 *   vmdk_out.c         streamOptimized, written
 *   vmdk_create.c      new images
 *   vmdk_extents.c     a descriptor's extents, one behind the other
 *   vmdk.c             the driver; parents */
#ifndef IMGFMT_VMDK_H
#define IMGFMT_VMDK_H

#include "block/endian.h"
#include "imgfmt/codec.h"
#include "imgfmt/map_backing.h"
#include "imgfmt/map_units.h"

#define VMDK_MAGIC        0x564d444bu /* "KDMV" */
#define VMDK_TABLE        512u        /* entries of a grain table */
#define VMDK_TABLE_BYTES  (VMDK_TABLE * 4u)
#define VMDK_NO_PARENT    UINT32_MAX
#define VMDK_ANY_PARENT   0u
#define VMDK_GRAIN        (64 * KiB)  /* of what we make */
#define VMDK_TEXT_ROOM    (20 * 512u) /* the same */
#define VMDK_TEXT_MOST    (1 * MiB)   /* of a descriptor */
#define VMDK_EXTENTS_MOST 8192
#define VMDK_AT_END       UINT64_MAX /* gd_sector: a footer at the end of the file says it */

enum vmdk_flags {
    VMDK_NEWLINES = 1,   /* the four bytes of header.newlines are what they should be */
    VMDK_REDUNDANT = 2,  /* there is a second grain directory */
    VMDK_ZERO_GRAIN = 4, /* entry 1: reads as zeroes */
    VMDK_COMPRESSED = 0x10000,
    VMDK_MARKERS = 0x20000,
};

struct vmdk_header_disk { /* at 0, little endian; places and sizes in sectors */
    le32 magic;
    le32 version; /* 1; 2 with zeroed grains; 3 written as a stream, or with change tracking */
    le32 flags;
    le64 capacity, grain;
    le64 descriptor_at, descriptor_size; /* 0: none in here */
    le32 table_entries;                  /* 512 */
    le64 rgd_at, gd_at;                  /* the redundant directory, the directory */
    le64 overhead;                       /* grains lie behind */
    uint8_t unclean;
    char newlines[4];
    le16 algorithm; /* 1: deflate (RFC 1950) */
    uint8_t pad[433];
};
static_assert(sizeof(struct vmdk_header_disk) == 512, "VMDK header");

struct vmdk_header {
    uint32_t version, flags;
    uint64_t size, grain_bytes; /* virtual bytes */
    uint64_t text_at, text_room;
    uint64_t gd_at, rgd_at, overhead; /* bytes */
    uint64_t tables;                  /* entries of a directory */
    bool unclean;
    uint32_t table_entries, entry_bytes; /* of a grain table, and of a directory's */
    uint64_t tables_at, grains_at;       /* seSparse: entries count from there */
    uint64_t next_free;                  /* vmfsSparse: bytes */
};

struct vmdk_marker_disk { /* before each compressed grain */
    le64 sector;          /* of the disk */
    le32 bytes;           /* that follow, deflated (RFC 1950) */
};
static_assert(sizeof(struct vmdk_marker_disk) == 12, "VMDK grain marker");

/* A grain that deflate could not make smaller, with its marker, in whole sectors. */
#define VMDK_PACKED_MOST(grain) align_up((grain) + (grain) / 512 + 64, 512)

#define VMDK_STORED_GRAIN (64 * KiB + 512) /* what a stream of ours takes for one */

enum vmdk_marker { VMDK_END_OF_STREAM, VMDK_GRAIN_TABLE, VMDK_GRAIN_DIRECTORY, VMDK_FOOTER };
struct vmdk_metadata_disk { /* before what is no grain */
    le64 sectors;           /* that follow */
    le32 zero, type;
    uint8_t pad[496];
};
static_assert(sizeof(struct vmdk_metadata_disk) == 512, "VMDK marker");

#define VMDK_COWD_MAGIC 0x44574f43u /* "COWD" */
#define VMDK_COWD_TABLE 4096u       /* entries of a grain table */

struct vmdk_cowd_disk { /* at 0: vmfsSparse, little endian; places and sizes in sectors */
    le32 magic, version, flags, capacity, grain, gd_at, tables, next_free;
    uint8_t kept[1616]; /* names, generations */
    le32 unclean;
    uint8_t pad[396];
};
static_assert(sizeof(struct vmdk_cowd_disk) == 2048, "vmfsSparse header");

struct vmdk_se_disk { /* at 0: seSparse, little endian; places and sizes in sectors */
    le64 magic, version;
    le64 capacity, grain, table; /* 8 sectors and 64: 4 KiB, 4096 entries */
    le64 flags, reserved[4];
    le64 volatile_at, volatile_sectors;
    le64 journal_header[2], journal[2];
    le64 gd_at, gd_sectors;
    le64 tables_at, tables_sectors;
    le64 bitmap[2], back_map[2];
    le64 grains_at, grains_sectors;
    uint8_t pad[304];
};
static_assert(sizeof(struct vmdk_se_disk) == 512, "seSparse header");

enum vmdk_extent_kind {
    VMDK_FLAT,
    VMDK_SPARSE,
    VMDK_ZERO,
    VMDK_VMFS,
    VMDK_VMFS_SPARSE,
    VMDK_SE_SPARSE,
};

struct vmdk_extent {
    enum vmdk_extent_kind kind;
    bool writable, accessible;
    uint64_t bytes, offset; /* offset: in a flat file */
    const char *name;       /* into the descriptor's text; NULL: VMDK_ZERO */
};

struct vmdk_descriptor {
    char *copy; /* of the text, cut into strings */
    uint32_t cid, parent_cid;
    const char *type, *parent, *tracking; /* parent, tracking: NULL where there is none */
    struct vmdk_extent *extents;
    size_t count;
    uint64_t bytes; /* of all extents */
};

/* Pure. @text ends with a zero byte. Gives *out; vmdk_descriptor_drop() it. */
must_use int vmdk_descriptor_parse(const char *text, struct vmdk_descriptor *out,
                                   struct blk_error *e);
void vmdk_descriptor_drop(struct vmdk_descriptor *d);
struct vmdk_edit {
    uint32_t cid, parent_cid;
    const char *parent; /* NULL: as it is; "": none */
    size_t number;      /* of the extent */
    uint64_t bytes;     /* that it has; 0: as before */
};
/* @text with that, and without change tracking; NULL: no memory. */
char *vmdk_descriptor_edit(const char *text, const struct vmdk_edit *edit);
const char *vmdk_extent_word(enum vmdk_extent_kind kind);

/* Pure. @fresh: the magic may still be missing. */
must_use int vmdk_header_parse(const struct vmdk_header_disk *raw, bool fresh,
                               struct vmdk_header *out, struct blk_error *e);

/* Extents as they are open. */
struct vmdk_part {
    struct blk_device *dev; /* borrowed: a child */
    uint64_t at;            /* in it */
    uint64_t end;           /* of the disk */
};

struct vmdk {
    struct map map; /* first: dev->state is a struct map * */
    struct map_units units;
    struct codec codec; /* VMDK_COMPRESSED */
    bool codec_made;
    struct vmdk_cowd_disk *cowd; /* vmfsSparse: its header */
    struct vmdk_out *out;        /* a stream on its way: vmdk_out.c's */
    struct vmdk_header h;
    uint64_t gt_at, rgt_at; /* where all grain tables lie one behind the other, and their twins; 0:
                               they do not, or there are none */
    bool tables_differ;     /* the twins, or may */
    bool tables_ours;       /* we have put them where they are, each into units of its own */
    char *text;             /* the descriptor; NULL: an extent that has none */
    bool text_unsure;       /* the file may have another one */
    /* Before the first change; and v->text edited, durably (vmdk_text.c). */
    int (*co_will_write)(struct vmdk *v);
    int (*co_tell)(struct vmdk *v, const struct vmdk_edit *edit);
    struct vmdk_descriptor d;
    struct map_backing backing;
    bool parent_told; /* by the caller, not by the image */
    json_t *shown;    /* the extents, for info */
    /* Of a descriptor: */
    struct vmdk_part *parts; /* NULL: they were not to be opened */
    struct co_mutex beginning;
    bool begun; /* the new CID is durable */
};

/* Entries of directories and tables, which are 32 bits of sectors, as bytes. */
static inline uint64_t vmdk_entry_get(const void *entry)
{
    le32 raw;
    memcpy(&raw, entry, sizeof(raw));
    return le32_get(raw) * 512ULL;
}

static inline void vmdk_entry_put(void *entry, uint64_t bytes)
{
    le32 raw = le32_of((uint32_t)(bytes / 512));
    memcpy(entry, &raw, sizeof(raw));
}

static inline struct vmdk *vmdk_of(const struct map *m)
{
    return container_of(m, struct vmdk, map);
}

/* vmdk_sparse.c: opens the file in @v->map.file, whose first sector is @raw. */
must_use int co_vmdk_open_sparse(struct vmdk *v, struct blk_device *dev,
                                 const struct vmdk_header_disk *raw, const struct opts *opts,
                                 struct blk_error *e);
/* vmdk_text.c. Another CID than @v's. */
uint32_t vmdk_new_cid(const struct vmdk *v, struct host *host);
struct vmdk_edit vmdk_as_it_is(const struct vmdk *v);
/* Not durable yet. -EMSGSIZE: it has no room, and nothing was done. */
must_use int co_vmdk_tell(struct vmdk *v, const struct vmdk_edit *edit);
int co_vmdk_change_backing(struct blk_device *dev, const char *name, const char *format,
                           struct blk_error *e);
int co_vmdk_identify_backing(struct blk_device *dev, struct blk_device *backing,
                             struct blk_error *e);
/* vmdk_extents.c: @v->text is there. Turns @dev into what the descriptor describes. */
must_use int co_vmdk_open_extents(struct vmdk *v, struct blk_device *dev, struct blk_opener *opener,
                                  struct blk_error *e);
/* vmdk.c */
must_use int co_vmdk_want_parent(struct vmdk *v, struct blk_opener *opener, struct blk_error *e);
must_use int vmdk_check_parent(const struct vmdk *v, struct blk_error *e);
int co_vmdk_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e);
void vmdk_drop(struct vmdk *v);
/* vmdk_cowd.c: the same for vmfsSparse; and a new extent. */
must_use int vmdk_cowd_parse(const struct vmdk_cowd_disk *raw, struct vmdk_header *out,
                             struct blk_error *e);
must_use int co_vmdk_open_cowd(struct vmdk *v, struct blk_device *dev, const struct opts *opts,
                               struct blk_error *e);
must_use int co_vmdk_create_cowd(const struct blk_create *c, uint64_t size, struct blk_error *e);
/* vmdk_stream.c: the same for what is only read: streams, seSparse, scattered tables. Sets the
 * driver. v->map.format: NULL where entries are 32 bits of sectors. */
must_use int co_vmdk_open_readonly(struct vmdk *v, struct blk_device *dev, const struct opts *opts,
                                   struct blk_error *e);
/* vmdk_se.c. The second one: its journal need not be replayed. */
must_use int vmdk_se_parse(const struct vmdk_se_disk *raw, struct vmdk_header *out,
                           struct blk_error *e);
must_use int co_vmdk_se_replayed(struct blk_device *file, const struct vmdk_se_disk *raw,
                                 struct blk_error *e);
extern const struct map_format vmdk_se_format;
/* vmdk_out.c: a stream that is to be written, just created. Sets the driver. */
must_use int co_vmdk_open_out(struct vmdk *v, struct blk_device *dev, struct blk_error *e);
void vmdk_out_drop(struct vmdk_out *o);
/* An empty one, with its text. */
must_use int co_vmdk_create_stream(const struct blk_create *c, uint64_t size, const char *text,
                                   struct blk_error *e);
/* Of files in which no grain is. */
uint64_t vmdk_cowd_empty_bytes(uint64_t size);
uint64_t vmdk_stream_empty_bytes(uint64_t size);
/* vmdk_create.c */
int co_vmdk_measure(struct blk_measure *m, struct blk_error *e);
int co_vmdk_create(const struct blk_create *c, struct blk_error *e);
extern const struct opt_desc vmdk_create_options[];

extern const struct blk_driver vmdk_driver;

#endif

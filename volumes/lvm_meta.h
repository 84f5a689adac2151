/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_meta.h - a volume group: physical volumes, logical volumes and the segments they consist of,
 * read from the text with every number checked.
 *
 * The text (lvm_text.h) stays the truth: names here point into it, and a change is made to it and
 * read again (lvm_change.h). Sizes are in extents where the name says so, else in bytes. No I/O.
 *
 * What holds for a group that was read:
 *  G1 Segments tile each logical volume from extent 0 on.
 *  G2 What segments lie on is inside their physical or logical volume.
 *  G3 No extent of a physical volume belongs to two segments.
 *  G4 No logical volume stands on itself. */
#ifndef VOLUMES_LVM_META_H
#define VOLUMES_LVM_META_H

#include "volumes/lvm_label.h"
#include "volumes/lvm_text.h"

struct blk_device;
struct lvm_lv;

#define LVM_NAME_MOST    127
#define LVM_PVS_MOST     1024
#define LVM_STRIPES_MOST 1024
#define LVM_WEIGHT_MOST  4096 /* devices that one logical volume may take to open */

struct lvm_pv {
    const char *name; /* pv0: what segments call it */
    char uuid[LVM_UUID + 1];
    uint64_t device_bytes; /* 0: not told */
    uint64_t start;        /* of its first extent */
    uint64_t extents;
    bool missing;           /* the text says that it was not there */
    struct blk_device *dev; /* NULL: it is not here. Whoever opened the group sets it */
    struct lvm_node *node;
};

/* A place that segments lie on: one of both. */
struct lvm_area {
    struct lvm_pv *pv;
    struct lvm_lv *lv;
    uint64_t extent; /* the first one there */
};

enum lvm_what {
    LVM_STRIPED, /* linear too: one stripe */
    LVM_ZERO,
    LVM_ERROR,
    LVM_MIRROR,
    LVM_RAID,
    LVM_POOL, /* thin-pool */
    LVM_THIN,
    LVM_SNAPSHOT, /* the hidden volume that ties a store of exceptions to its origin */
    LVM_OTHER,    /* known by name at most */
};

struct lvm_type {
    const char *name;
    enum lvm_what what;
    const char *level, *layout; /* LVM_RAID: as the driver md names them; layout NULL: has none */
    unsigned parities;          /* images that hold no data */
    const char *advice;         /* LVM_OTHER: why it is not read, and what to do */
};

struct lvm_segment {
    const struct lvm_type *type;
    const char *type_name; /* as written */
    struct lvm_node *node;
    uint64_t start, extents; /* of the logical volume */
    struct lvm_area *areas;  /* stripes, legs, images */
    struct lvm_area *metas;  /* LVM_RAID: of each image, where its superblock lies; NULL: none */
    unsigned area_count;
    uint64_t stripe_bytes; /* 0: not striped */
    uint64_t chunk_bytes;  /* LVM_POOL, LVM_SNAPSHOT */
    unsigned copies;       /* raid10 */
    bool reshaping;
    uint64_t transaction_id;        /* LVM_POOL, LVM_THIN */
    uint32_t device_id;             /* LVM_THIN */
    struct lvm_lv *metadata, *data; /* LVM_POOL */
    struct lvm_lv *pool;            /* LVM_THIN */
    struct lvm_lv *origin;          /* LVM_THIN, LVM_SNAPSHOT; NULL: none */
    struct lvm_lv *external_origin; /* LVM_THIN; NULL: none */
    struct lvm_lv *store;           /* LVM_SNAPSHOT */
    bool merging;                   /* LVM_SNAPSHOT, LVM_THIN */
    bool messages;                  /* LVM_POOL: some wait for the pool */
};

struct lvm_lv {
    const char *name;
    char uuid[LVM_UUID + 1];
    bool visible, writable;
    const char *strange; /* a status or flag that is not understood; NULL: none */
    uint64_t extents;
    struct lvm_segment *segments;
    unsigned segment_count;
    const struct lvm_segment *snapshot; /* the one whose store this is; NULL: none */
    bool has_snapshots;                 /* of the kind that copies on write */
    bool merged_into;                   /* one of them, or a thin one, is to replace it */
    unsigned weight;                    /* devices that it takes to open; 0: not known yet */
    struct lvm_node *node;
};

struct lvm_vg {
    struct lvm_text text; /* owned */
    struct lvm_node *node;
    const char *name;
    char uuid[LVM_UUID + 1];
    uint64_t seqno;
    uint64_t extent_bytes;
    bool writable, exported, resizeable;
    const char *foreign; /* why nothing of it may be changed here; NULL: it may */
    struct lvm_pv *pvs;
    size_t pv_count;
    struct lvm_lv *lvs;
    size_t lv_count;
    struct lvm_lv **by_name; /* sorted */
};

/* Takes @text, also on failure. Gives *out, to be dropped. */
must_use int lvm_vg_read(struct lvm_text *text, struct lvm_vg **out, struct blk_error *e);
void lvm_vg_drop(struct lvm_vg *vg);

struct lvm_lv *lvm_find_lv(const struct lvm_vg *vg, const char *name);
struct lvm_pv *lvm_find_pv(const struct lvm_vg *vg, const char *uuid);
static inline uint64_t lvm_lv_bytes(const struct lvm_vg *vg, const struct lvm_lv *lv)
{
    return lv->extents * vg->extent_bytes;
}
/* A name that LVM2 takes for a group, or for a logical volume that people make. */
must_use int lvm_check_name(const char *name, bool of_lv, struct blk_error *e);

/* What of the volume, or of those that it stands on, keeps it from being written to here; NULL:
 * nothing. For volumes of at most LVM_WEIGHT_MOST. */
const char *lvm_part_fixed(const struct lvm_lv *lv);

/* For lvm_meta.c: the segments of @lv, whose name and node are known, as those of all others. */
must_use int lvm_segments_read(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e);
/* G3, G4 and what follows from all segments together. */
must_use int lvm_segments_check(struct lvm_vg *vg, struct blk_error *e);
/* NULL: the type is not known. @name may end in +FLAGS. */
const struct lvm_type *lvm_type_by_name(const char *name);

#endif

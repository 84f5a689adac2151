/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.h - the VDI driver: what its two files share, and the header's parser for tests. */
#ifndef IMGFMT_VDI_H
#define IMGFMT_VDI_H

#include "block/endian.h"
#include "imgfmt/map.h"
#include "imgfmt/map_units.h"

extern const struct blk_driver vdi_driver;

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION   0x00010001u
#define VDI_FREE      0xffffffffu /* a hole */
#define VDI_ZERO      0xfffffffeu /* reads as zeroes, hides a parent */
#define VDI_BLOCK     (1 * MiB)   /* of the images that we make */

enum vdi_type { VDI_DYNAMIC = 1, VDI_STATIC = 2, VDI_UNDO = 3, VDI_DIFFERENCING = 4 };

/* UUIDs in Microsoft's order. modify: a new one with each session of writing. */
struct vdi_ids {
    uint8_t image[16], modify[16], parent[16], parent_modify[16];
};

struct vdi_header_disk { /* at 0, little endian */
    char text[64];       /* free text, ignored */
    le32 signature;
    le32 version;
    le32 header_bytes; /* of what follows version */
    le32 type;         /* enum vdi_type */
    le32 flags;
    char description[256];
    le32 map_offset, data_offset; /* bytes, multiples of 512 */
    le32 cylinders, heads, sectors, sector_bytes;
    le32 unused;
    le64 size; /* virtual bytes */
    le32 block_bytes, block_extra;
    le32 blocks;    /* entries of the map */
    le32 allocated; /* the number that the next new block gets */
    struct vdi_ids ids;
    uint8_t rest[56];
};
static_assert(sizeof(struct vdi_header_disk) == 512, "VDI header");
static_assert(offsetof(struct vdi_header_disk, map_offset) == 0x154, "VDI map offset");
static_assert(offsetof(struct vdi_header_disk, size) == 0x170, "VDI size");
static_assert(offsetof(struct vdi_header_disk, ids) == 0x188, "VDI uuid");

struct vdi_header {
    uint64_t size;
    uint32_t map_offset, data_offset, block_bytes, blocks, allocated;
    enum vdi_type type;
    struct vdi_ids ids;
};

/* Pure. @fresh: the signature may still be missing. */
must_use int vdi_header_parse(const struct vdi_header_disk *raw, uint64_t file_bytes, bool fresh,
                              struct vdi_header *out, struct blk_error *e);

struct vdi {
    struct map map; /* first: dev->state is a struct map * */
    struct map_units units;
    struct vdi_header h;      /* as it was read; allocated is kept up */
    struct meta_page *header; /* pinned from the first write on */
    char *parent_name;        /* differencing: as it was found, or its UUID; owned */
    bool parent_told;         /* by the caller: it need not be the one */
};

enum { VDI_RANK_HEADER, VDI_RANK_MAP };

/* vdi_parent.c. In create(): @parent (NULL: none) becomes the new image's. */
must_use int co_vdi_name_parent(struct blk_device *parent, struct vdi_header_disk *raw,
                                struct blk_error *e);
/* In open(): finds the parent and asks for it. */
must_use int co_vdi_want_parent(struct vdi *v, struct blk_opener *opener, struct blk_error *e);
/* Driver operations. */
int co_vdi_identify_backing(struct blk_device *dev, struct blk_device *backing,
                            struct blk_error *e);
int co_vdi_change_backing(struct blk_device *dev, const char *name, const char *format,
                          struct blk_error *e);
int co_vdi_opened(struct blk_device *dev, struct blk_error *e);
int co_vdi_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e);

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* vdi.h - what the two files of the VDI driver share, and the header's parser for tests. */
#ifndef IMGFMT_VDI_H
#define IMGFMT_VDI_H

#include "block/endian.h"
#include "imgfmt/map.h"
#include "imgfmt/map_space.h"

extern const struct blk_driver vdi_driver;

#define VDI_SIGNATURE 0xbeda107fu
#define VDI_VERSION   0x00010001u
#define VDI_FREE      0xffffffffu /* a hole */
#define VDI_ZERO      0xfffffffeu /* reads as zeroes, hides a parent */
#define VDI_BLOCK     (1 * MiB)   /* of the images that we make */

enum vdi_type { VDI_DYNAMIC = 1, VDI_STATIC = 2, VDI_UNDO = 3, VDI_DIFFERENCING = 4 };

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
    uint8_t uuid[16], uuid_snapshot[16], uuid_link[16], uuid_parent[16];
    uint8_t rest[56];
};
static_assert(sizeof(struct vdi_header_disk) == 512, "VDI header");
static_assert(offsetof(struct vdi_header_disk, map_offset) == 0x154, "VDI map offset");
static_assert(offsetof(struct vdi_header_disk, size) == 0x170, "VDI size");
static_assert(offsetof(struct vdi_header_disk, uuid) == 0x188, "VDI uuid");

struct vdi_header {
    uint64_t size;
    uint32_t map_offset, data_offset, block_bytes, blocks, allocated;
    enum vdi_type type;
};

/* Pure. @fresh: the signature may still be missing. */
must_use int vdi_header_parse(const struct vdi_header_disk *raw, uint64_t file_bytes, bool fresh,
                              struct vdi_header *out, struct blk_error *e);

struct vdi {
    struct map map; /* first: dev->state is a struct map * */
    struct vdi_header h;
    struct meta_page *header; /* pinned from the first write on */
    bool recognisable;        /* the signature is there */

    /* Which block numbers are owned, from the first write on. */
    struct map_space space;
};

/* What a walk over the map found. */
struct vdi_census {
    uint64_t count, twice, too_high; /* entries: that own a block; owned before; out of range */
};
/* Fills the set of owned blocks from the map. */
must_use int co_vdi_census(struct vdi *v, struct vdi_census *out);
uint64_t vdi_block_of(const struct vdi *v, const struct map_cell *cell);
/* The header's count, in the cached page. */
must_use int vdi_set_allocated(struct vdi *v, uint64_t allocated);
/* Changes the header's sector as @fill says and makes it durable (fresh: writes it). */
must_use int co_vdi_change_header(struct vdi *v,
                                  void (*fill)(struct vdi *v, struct vdi_header_disk *raw));
/* All is written back, block numbers are dense, the count is exact, the file ends behind the last
 * block. */
must_use int co_vdi_tidy(struct vdi *v);

int co_vdi_create(const struct blk_create *c, struct blk_error *e);
int co_vdi_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e);
int co_vdi_check(struct blk_device *dev, struct blk_check *check, struct blk_error *e);

#endif

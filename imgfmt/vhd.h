/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd.h - what a VHD image looks like (source: Microsoft, Virtual Hard Disk Image Format
 * Specification 1.0). For vhd*.c and their tests. */
#ifndef IMGFMT_VHD_H
#define IMGFMT_VHD_H

#include "block/endian.h"
#include "imgfmt/map_backing.h"
#include "imgfmt/map_units.h"

#define VHD_FREE         0xffffffffu /* an entry: no block */
#define VHD_BLOCK        (2 * MiB)   /* of the images that we make */
#define VHD_EPOCH        946684800u  /* time stamps count from 2000 */
#define VHD_LOCATORS     8
#define VHD_NAME_ROOM    2048          /* for each of the parent's names in images that we make */
#define VHD_SECTORS_MOST 0xff000000ULL /* of a disk: 2040 GiB */

/* Above this product a geometry says nothing, and the size alone counts. */
#define VHD_CHS_MOST (65535ULL * 16 * 255)

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_footer_disk { /* the last 512 bytes, and but for fixed images the first; big endian */
    char cookie[8];      /* "conectix" */
    be32 features;       /* bit 1 is always set */
    be32 version;        /* 1.0 */
    be64 header_offset;  /* all ones: fixed */
    be32 time;
    char creator[4]; /* who wrote "vpc " or "qemu" means the size that the geometry gives */
    be32 creator_version;
    char creator_host[4];
    be64 original_size, size; /* virtual bytes */
    be16 cylinders;
    uint8_t heads, sectors;
    be32 type;
    be32 checksum; /* all other bytes added up, inverted */
    uint8_t uuid[16];
    uint8_t saved_state;
    uint8_t reserved[427];
};
static_assert(sizeof(struct vhd_footer_disk) == 512, "VHD footer");

struct vhd_locator_disk {
    char platform[4]; /* "W2ru", "W2ku": UTF-16 little endian, relative and absolute; ... */
    be32 space;       /* of the name in the file: bytes, or sectors */
    be32 bytes;
    be32 reserved;
    be64 offset;
};

struct vhd_header_disk { /* dynamic and differencing, big endian */
    char cookie[8];      /* "cxsparse" */
    be64 next;
    be64 table_offset;
    be32 version; /* 1.0 */
    be32 entries;
    be32 block_bytes;
    be32 checksum;
    uint8_t parent_uuid[16];
    be32 parent_time;
    be32 reserved;
    be16 parent_name[256]; /* UTF-16 */
    struct vhd_locator_disk locators[VHD_LOCATORS];
    uint8_t rest[256];
};
static_assert(sizeof(struct vhd_header_disk) == 1024, "VHD header");

/* What counts of both after validation. */
struct vhd_header {
    enum vhd_type type;
    uint64_t size, header_offset, table_offset;
    uint32_t entries, block_bytes;
    uint64_t data_from; /* headers and names of parents end below it */
};

/* vhd_header.c */
uint32_t vhd_checksum(const void *bytes, size_t count, size_t skip_at);
void vhd_seal_footer(struct vhd_footer_disk *f);
void vhd_seal_header(struct vhd_header_disk *h);
bool vhd_is_footer(const void *bytes);
/* Pure. The footer, wherever it was found. @by_size: the size counts, whatever the geometry says.
 * @fresh: the cookie may still be missing. */
must_use int vhd_footer_parse(const struct vhd_footer_disk *raw, bool by_size, bool fresh,
                              struct vhd_header *out, struct blk_error *e);
/* Pure: the rest of @out. */
must_use int vhd_header_parse(const struct vhd_header_disk *raw, uint64_t file_bytes,
                              struct vhd_header *out, struct blk_error *e);
/* The geometry for a disk of @sectors, as the specification's appendix has it. */
struct vhd_geometry {
    uint16_t cylinders;
    uint8_t heads, sectors;
};
struct vhd_geometry vhd_geometry_of(uint64_t sectors);
static inline uint64_t vhd_geometry_sectors(const struct vhd_geometry *g)
{
    return (uint64_t)g->cylinders * g->heads * g->sectors;
}
struct vhd {
    struct map map; /* first: dev->state is a struct map *; of fixed images only file counts */
    struct map_units units;
    struct vhd_header h;
    struct vhd_footer_disk footer; /* as it is to be */
    struct vhd_header_disk header;
    struct map_backing backing;
    struct map_space whole; /* differencing: units whose bitmap is known to be all ones */
    bool differs;
    bool by_size;     /* how the size was read */
    bool footer_lost; /* there was none at the end */
    bool unsure;      /* the file may say another size or table than we use */
};

/* vhd.c: durable when they return (but in fresh mode). */
must_use int co_vhd_put_header(struct map *m);
must_use int co_vhd_put_footer(struct map *m); /* both of them */

/* vhd_parent.c: the name of the parent, from the header and its locators. */
must_use int co_vhd_parent_name(struct vhd *v, struct blk_error *e);
/* The spare header becomes ours. -EINVAL: there is none. */
must_use int co_vhd_take_spare(struct vhd *v);
must_use int co_vhd_drop_spare(struct vhd *v);
/* Driver operations. */
int co_vhd_opened(struct blk_device *dev, struct blk_error *e); /* it is the one that was meant */
int co_vhd_identify_backing(struct blk_device *dev, struct blk_device *backing,
                            struct blk_error *e);
int co_vhd_change_backing(struct blk_device *dev, const char *name, const char *format,
                          struct blk_error *e);

/* vhd_create.c */
extern const struct opt_desc vhd_create_options[];
int co_vhd_create(const struct blk_create *c, struct blk_error *e);
int co_vhd_measure(struct blk_measure *m, struct blk_error *e);

extern const struct blk_driver vhd_driver;

#endif

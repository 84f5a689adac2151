/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels.h - what a Parallels image looks like (source: the public description of the format,
 * docs/interop/parallels.txt of QEMU). For parallels.c and its tests. */
#ifndef IMGFMT_PARALLELS_H
#define IMGFMT_PARALLELS_H

#include "block/endian.h"
#include "imgfmt/map_units.h"

#define PARALLELS_OLD_MAGIC "WithoutFreeSpace" /* entries count sectors, the size has 32 bits */
#define PARALLELS_MAGIC     "WithouFreSpacExt" /* entries count clusters */
#define PARALLELS_VERSION   2
#define PARALLELS_IN_USE    0x746f6e59u /* somebody writes, or crashed while he did */
#define PARALLELS_CLOSED    0x312e3276u /* or 0 */

struct parallels_header_disk { /* at 0, little endian; the table follows it */
    char magic[16];
    le32 version;
    le32 heads, cylinders; /* for guests that ask */
    le32 cluster_sectors;
    le32 entries;
    le64 sectors; /* virtual */
    le32 in_use;
    le32 data_sector; /* where clusters begin; 0: behind the table */
    le32 flags;
    le64 extension_sector; /* of a cluster with dirty bitmaps; 0: none */
};
static_assert(sizeof(struct parallels_header_disk) == 64, "Parallels header");

struct parallels_header {
    uint64_t size, data_offset, extension_offset; /* bytes */
    uint32_t cluster_bytes, entries, in_use;
    bool old; /* entries count sectors */
};

/* Pure. @fresh: the magic may still be missing. */
must_use int parallels_header_parse(const struct parallels_header_disk *raw, uint64_t file_bytes,
                                    bool fresh, struct parallels_header *out, struct blk_error *e);

/* What an entry counts in: bytes. */
static inline uint64_t parallels_entry_unit(const struct parallels_header *h)
{
    return h->old ? 512 : h->cluster_bytes;
}

/* parallels_odd.c: for co_open(), where clusters are no power of two. Refuses an open to write. */
must_use int parallels_open_odd(struct blk_device *dev, struct blk_device *file,
                                const struct parallels_header *h, uint64_t cache_bytes,
                                struct blk_error *e);

struct parallels {
    struct map map; /* first: dev->state is a struct map * */
    struct map_units units;
    struct parallels_header h; /* as it was read */
    bool in_use;               /* what the header says of it now */
};

/* One of the options of create, in a folder too. */
#define PARALLELS_CLUSTER_OPTION                                                              \
    {                                                                                         \
        .name = "cluster_size", .type = OPT_SIZE, .help = "bytes that are allocated at once", \
        .preset = "1M", .min = 512, .max = 256 * MiB                                          \
    }

extern const struct blk_driver parallels_driver;

#endif

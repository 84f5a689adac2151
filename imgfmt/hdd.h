/* SPDX-License-Identifier: BSD-3-Clause */
/* hdd.h - a Parallels disk: a folder x.hdd with images in it, and DiskDescriptor.xml, which says
 * what they are to each other (source: the public description of the format,
 * docs/interop/prl-xml.txt of QEMU). hdd_descriptor.c has the text, hdd.c the device. */
#ifndef IMGFMT_HDD_H
#define IMGFMT_HDD_H

#include "block/block.h"

#define HDD_DESCRIPTOR "DiskDescriptor.xml"
#define HDD_TEXT_MOST  (4 * MiB)
#define HDD_PARTS_MOST 256  /* parts of a split disk */
#define HDD_SHOTS_MOST 1024 /* snapshots */

#define HDD_GUID 39 /* bytes of "{aabbccdd-...}" with a zero */

struct hdd_image { /* of one part, at one moment */
    char guid[HDD_GUID];
    bool plain; /* raw; else Parallels' own format */
    char *file;
};
struct hdd_part {        /* a stretch of the disk: images that stand on each other */
    uint64_t begin, end; /* bytes */
    struct hdd_image *images;
    size_t count;
};
struct hdd_shot {
    char guid[HDD_GUID], parent[HDD_GUID];
};
struct hdd_descriptor {
    uint64_t bytes; /* of the disk */
    bool padded, encrypted;
    char top[HDD_GUID];
    struct hdd_part *parts;
    size_t part_count;
    struct hdd_shot *shots;
    size_t shot_count;
};

/* The text in @file; parsed on the pool. Gives *out, also on failure: hdd_descriptor_drop(). */
must_use int co_hdd_descriptor_read(struct blk_device *file, struct hdd_descriptor *out,
                                    struct blk_error *e);
/* Pure. The parts make up the disk, none is encrypted, every one has the top image. */
must_use int hdd_descriptor_check(const struct hdd_descriptor *d, struct blk_error *e);
/* The image of @part that @guid names; NULL: none. */
const struct hdd_image *hdd_image_of(const struct hdd_part *part, const char *guid);
/* Whose contents the moment @guid stands on; NULL: none. */
const char *hdd_parent_of(const struct hdd_descriptor *d, const char *guid);
/* The disk has @bytes now, and its last part ends there: the text in @file says so, and is durable.
 * One write, of a page as a rule: a descriptor has no second copy. */
must_use int co_hdd_descriptor_resize(struct blk_device *file, uint64_t bytes, struct blk_error *e);
void hdd_descriptor_drop(struct hdd_descriptor *d);
/* A new one of a single image; NULL: no memory. @guid: of the top. */
struct hdd_new {
    uint64_t bytes, cylinders;
    unsigned heads, sectors;
    uint64_t cluster_bytes;
    bool plain;
    const char *file, *name;
};
char *hdd_descriptor_text(const struct hdd_new *n);

extern const struct blk_driver hdd_driver;

#endif

/* SPDX-License-Identifier: BSD-3-Clause */
/* ova.h - an appliance: a tar with a description (OVF), a manifest, and disks. What its files
 * share:
 *
 *   ova.c            the driver; a disk inside as a device
 *   ova_ovf.c        which disks there are: References and DiskSection of the description
 *   ova_manifest.c   the digests of all files */
#ifndef IMGFMT_OVA_H
#define IMGFMT_OVA_H

#include "imgfmt/readonly.h"
#include "imgfmt/tar.h"

#define OVA_DISKS_MAX 1024u

struct ovf_file {
    char *id, *href;
    uint64_t bytes;       /* UINT64_MAX: not told */
    uint64_t chunk_bytes; /* it is split in HREF.000000000, ...; 0: it is not */
    bool gzip, other;     /* compressed; other: in a way that is unknown */
};

struct ovf_disk {
    char *id, *file_id; /* file_id NULL: an empty disk, without a file */
    char *format;       /* what the description calls it; may be NULL */
    char *parent;       /* another disk that this one changes; NULL: none */
    uint64_t capacity;
};

struct ovf {
    struct ovf_file *files; /* owned */
    size_t file_count, file_room;
    struct ovf_disk *disks; /* owned */
    size_t disk_count, disk_room;
};

must_use int co_ovf_read(struct blk_device *dev, const struct tar_file *at, struct ovf *out,
                         struct blk_error *e);
void ovf_drop(struct ovf *o);
const struct ovf_file *ovf_file_of(const struct ovf *o, const struct ovf_disk *d); /* or NULL */
/* "byte * 2^30" and the like: how many bytes one is. -EINVAL. */
must_use int ovf_parse_unit(const char *text, uint64_t *bytes);

/* One line of a manifest: "SHA256(name)= digits". */
struct ova_digest {
    unsigned kind; /* of ova_manifest.c's table */
    char name[TAR_NAME_MAX + 1];
    uint8_t digest[64];
};
/* Pure; -EINVAL: it is none. */
must_use int ova_digest_parse(const char *line, size_t bytes, struct ova_digest *out);
/* Compares all that @manifest lists, and looks whether it lists all files. Calls @say for each
 * fault; *faults counts them. */
must_use int co_ova_verify(struct blk_device *dev, const struct tar *tar,
                           const struct tar_file *manifest,
                           void (*say)(void *arg, const char *sentence), void *arg,
                           uint64_t *faults, struct blk_error *e);

#endif

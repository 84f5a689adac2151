/* SPDX-License-Identifier: BSD-3-Clause */
/* tar.h - which files lie where in a tar: ustar, with GNU's and pax' long names and sizes. */
#ifndef IMGFMT_TAR_H
#define IMGFMT_TAR_H

#include "block/block.h"

#define TAR_BLOCK     512u
#define TAR_NAME_MAX  1023u
#define TAR_FILES_MAX 16384u

struct tar_header_disk {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8];
    char type;
    char link[100];
    char magic[6]; /* "ustar\0" of POSIX; GNU writes "ustar " */
    char version[2], owner[32], group[32], major[8], minor[8];
    char prefix[155]; /* POSIX: goes before the name */
    char padding[12];
};
_Static_assert(sizeof(struct tar_header_disk) == TAR_BLOCK, "tar header");

struct tar_header {
    char type;
    uint64_t bytes;
    char name[TAR_NAME_MAX + 1];
};

struct tar_file {
    char *name; /* without "./" in front */
    uint64_t offset, bytes;
};

struct tar {
    struct tar_file *files; /* owned, in the order of the tar */
    size_t count;
};

/* Pure. 1: a header; 0: a block of zeroes, which ends a tar; -EINVAL. */
must_use int tar_header_parse(const struct tar_header_disk *raw, struct tar_header *out,
                              struct blk_error *e);
/* Pure. What a pax header of @bytes says of the next file: the name, if it does, and the size. */
must_use int tar_pax_parse(const char *text, size_t bytes, struct tar_header *out, bool *has_name,
                           bool *has_size, struct blk_error *e);
must_use int co_tar_read(struct blk_device *dev, struct tar *out, struct blk_error *e);
void tar_drop(struct tar *t);
const struct tar_file *tar_find(const struct tar *t, const char *name); /* NULL: none */

#endif

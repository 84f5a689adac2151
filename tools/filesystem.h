/* SPDX-License-Identifier: BSD-3-Clause */
/* filesystem.h - what a device holds where it holds no other devices: a file system, swap space, an
 * encrypted container; by libblkid, if this build has it. */
#ifndef TOOLS_FILESYSTEM_H
#define TOOLS_FILESYSTEM_H

#include "block/block.h"

struct filesystem {
    char type[32];   /* "ext4"; "": nothing that is known */
    char label[260]; /* "": none */
    char uuid[64];
};

/* Reads the device's ends only. What cannot be read or told is no error. */
void co_filesystem_of(struct blk_device *dev, struct filesystem *out);

#endif

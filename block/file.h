/* SPDX-License-Identifier: BSD-3-Clause */
/* file.h - what the parts of the file driver share; nobody else includes it. */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "block/block.h"

enum file_locking { FILE_LOCK_ON, FILE_LOCK_OFF, FILE_LOCK_AUTO };

/* What a holder of the file does and what it lets others do. */
struct file_claim {
    bool write;     /* we write and resize; else we only read */
    bool share_all; /* we let others write beside us */
};

/* Takes QEMU's byte locks on @f and looks whether anybody holds a conflicting one. The message
 * names the holder where it can be known. */
must_use int co_file_lock(struct host_file *f, const char *name, struct file_claim claim,
                          enum file_locking mode, struct blk_error *e);
void file_unlock(struct host_file *f);

#endif

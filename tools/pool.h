/* SPDX-License-Identifier: BSD-3-Clause */
/* pool.h - what the verbs of `lamina pool` share.
 *
 *   pool.c          which verb; opening metadata, opening a pool
 *   pool_create.c   create, metadata-size
 *   pool_change.c   new, snap, rm, resize, trim: of an open pool
 *   pool_check.c    check, repair
 *   pool_dump.c     dump, delta: XML out        pool_restore.c   restore: XML in
 *   pool_ls.c       ls, rmap */
#ifndef TOOLS_POOL_H
#define TOOLS_POOL_H

#include "tools/task.h"
#include "volumes/thin_pool.h"

extern const struct command pool_create_command, pool_new_command, pool_snap_command,
    pool_rm_command, pool_resize_command, pool_trim_command;

/* The pool that @image names (`thin:meta.img,data.img`), open to be changed. */
must_use int co_pool_image_open(struct tool *t, struct image *image, struct blk_device **dev,
                                struct thin_pool **pool, struct blk_error *e);
/* A volume's number; a message and false if it is none. */
bool pool_id_told(const struct tool *t, const char *text, uint32_t *id);

#endif

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
    pool_rm_command, pool_resize_command, pool_trim_command, pool_check_command,
    pool_repair_command, pool_dump_command, pool_delta_command, pool_restore_command,
    pool_ls_command, pool_rmap_command, pool_metadata_size_command;

/* The pool that @image names (`thin:meta.img,data.img`), open to be changed. */
must_use int co_pool_image_open(struct tool *t, struct image *image, struct blk_device **dev,
                                struct thin_pool **pool, struct blk_error *e);
/* The device that @image names, for metadata that are made anew: refused where something else would
 * be lost (not a pool's own metadata), unless @force. */
must_use int co_pool_output_open(struct tool *t, struct image *image, bool force,
                                 struct blk_device **dev, struct blk_error *e);
/* A volume's number; a message and false if it is none. */
bool pool_id_told(const struct tool *t, const char *text, uint32_t *id);

/* What a person can do about damage below the superblock (blk_next). */
#define POOL_MEND \
    "`lamina pool repair -i FILE -o NEW` writes what can be read of it to another device"

enum { ARG_POOL_FORCE_ID = 820 };
#define ARG_POOL_FORCE                                                                        \
    {                                                                                         \
        ARG_POOL_FORCE_ID, "force", NULL,                                                     \
            "write over what is there: file systems, partitions, a physical volume", 0, false \
    }

/* --- verbs that look at metadata alone --- */

struct pool_look {
    struct task task; /* tool is told; pool_look_run() does the rest */
    struct image image;
    bool held;                                            /* --metadata-snap */
    int (*option)(void *verb, int id, const char *value); /* of args_read(); verb: this */
    int (*co_look)(struct pool_look *l); /* with @meta open; error into the task's */
    struct thin_meta meta;               /* the superblock stays good after it */
};
#define POOL_LOOK_OPTIONS                                                                          \
    ARG_IMAGE_FORMAT, ARG_IMAGE_OPTIONS,                                                           \
    {                                                                                              \
        'm', "metadata-snap", NULL, "the metadata snapshot instead of what is there now", 0, false \
    }
#define POOL_LOOK_PLACES(l)    \
    IMAGE_PLACES(&(l)->image), \
    {                          \
        'm', NULL, &(l)->held  \
    }
/* As args_read(); then there must be one operand, the metadata. */
must_use int pool_look_read(struct pool_look *l, int argc, char **argv,
                            const struct arg_place *places);
/* Opens it, calls co_look(), closes it: the exit status. */
int pool_look_run(struct pool_look *l);

#endif

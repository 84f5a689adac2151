/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_change.h - changes of a group, made to its text. Pure: nothing is on disk until
 * co_lvm_commit(), and the group's model shows a change only then; so one change at a time.
 *
 * What was changed and then not committed, or failed, is to be dropped: who goes on with the group
 * changes a copy of it. */
#ifndef VOLUMES_LVM_CHANGE_H
#define VOLUMES_LVM_CHANGE_H

#include "volumes/lvm_meta.h"

/* A run of extents of one physical volume that nothing lies on. */
struct lvm_run_free {
    struct lvm_pv *pv;
    uint64_t extent, extents;
};
/* Gives *out (mem_free), by volume and extent. */
must_use int lvm_free_runs(const struct lvm_vg *vg, struct lvm_run_free **out, size_t *count,
                           struct blk_error *e);
uint64_t lvm_free_extents(const struct lvm_vg *vg, const struct lvm_pv *pv); /* NULL: of all */

/* What extents are wanted. */
struct lvm_wanted {
    uint64_t extents;      /* a multiple of stripes */
    unsigned stripes;      /* 1: linear */
    uint64_t stripe_bytes; /* of more than one stripe */
    struct lvm_pv **only;  /* on these; NULL: on any that may be allocated from */
    size_t only_count;
};

struct lvm_volume_new {
    const char *name;
    const char *uuid;
    struct lvm_wanted space;
    bool hidden; /* a part of another volume: any name */
};
must_use int lvm_lv_create(struct lvm_vg *vg, const struct lvm_volume_new *n, struct blk_error *e);
/* By w->extents, with as many stripes as it has. */
must_use int lvm_lv_extend(struct lvm_vg *vg, struct lvm_lv *lv, const struct lvm_wanted *w,
                           struct blk_error *e);
/* To @extents, which are fewer. */
must_use int lvm_lv_reduce(struct lvm_vg *vg, struct lvm_lv *lv, uint64_t extents,
                           struct blk_error *e);
/* With what only it stands on. Refused while others need it. */
must_use int lvm_lv_remove(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e);
must_use int lvm_lv_rename(struct lvm_vg *vg, struct lvm_lv *lv, const char *name,
                           struct blk_error *e);

must_use int lvm_vg_copy(const struct lvm_vg *vg, struct lvm_vg **out, struct blk_error *e);
/* Thin pools and what is in them (lvm_change_thin.c). The pool is told by a message in the text,
 * which co_lvm_pool_settle() carries out after the commit. */
struct lvm_pool_new {
    const char *name;
    const char *uuids[3]; /* the pool's, its metadata's, its data's */
    struct lvm_wanted data, metadata;
    uint64_t chunk_bytes;
};
/* NAME, NAME_tmeta and NAME_tdata. Takes *vg; gives what it is then. */
must_use int lvm_pool_create(struct lvm_vg **vg, const struct lvm_pool_new *n, struct blk_error *e);
struct lvm_thin_new {
    const char *name, *uuid;
    struct lvm_lv *pool;
    struct lvm_lv *origin; /* a snapshot of that; NULL: empty */
    uint64_t extents;
};
must_use int lvm_thin_create(struct lvm_vg *vg, const struct lvm_thin_new *n, struct blk_error *e);
must_use int lvm_thin_remove(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e);
/* The pool has done what the messages said. */
void lvm_messages_drop(struct lvm_lv *pool);

/* Arrays and lost physical volumes: not here, or marked as missing (lvm_change_raid.c). */
bool lvm_pv_lost(const struct lvm_pv *pv);
bool lvm_lv_lost(const struct lvm_lv *lv); /* a part of it lies on one */
/* The text's mark. */
must_use int lvm_pv_set_missing(struct lvm_vg *vg, struct lvm_pv *pv, bool missing,
                                struct blk_error *e);
/* The first image of the array @lv that lies on a lost one, or on nothing any more. -ENOENT: there
 * is none; -EINVAL: @lv is no array that could do without one. */
must_use int lvm_image_lost(const struct lvm_vg *vg, const struct lvm_lv *lv, struct blk_error *e);
struct lvm_image_new {
    const char *lv;       /* the array's name */
    const char *uuids[2]; /* of the image's superblock, of its data */
    struct lvm_pv **only; /* on these; NULL: on any */
    size_t only_count;
};
/* The image gets places on physical volumes that no other one lies on, and the mark REBUILD, which
 * lets Linux take an image without a superblock. Takes *vg; gives what it is then. */
must_use int lvm_image_replace(struct lvm_vg **vg, const struct lvm_image_new *n, unsigned image,
                               struct blk_error *e);
/* Lost images of the array lie nowhere. Takes *vg; gives what it is then. */
must_use int lvm_images_drop(struct lvm_vg **vg, const char *lv, struct blk_error *e);
bool lvm_images_marked(const struct lvm_lv *lv);
void lvm_images_unmark(struct lvm_lv *lv);
/* Lost physical volumes leave the group. @force: with them volumes that cannot do without them;
 * arrays keep images that lie nowhere. Takes *vg; gives what it is then. */
must_use int lvm_vg_drop_lost(struct lvm_vg **vg, bool force, struct blk_error *e);

/* Tags of the group, a physical or a logical volume: @of is its node. Nothing changes where it is
 * there already, or not there. */
must_use int lvm_tag_add(struct lvm_vg *vg, struct lvm_node *of, const char *tag,
                         struct blk_error *e);
void lvm_tag_remove(struct lvm_node *of, const char *tag);

/* The text of a group without volumes. Gives *out. */
must_use int lvm_vg_create(const char *name, const char *uuid, uint64_t extent_bytes,
                           struct lvm_vg **out, struct blk_error *e);
must_use int lvm_vg_rename(struct lvm_vg *vg, const char *name, struct blk_error *e);
/* A physical volume of @device_bytes, whose extents begin at @start and may reach to @end. */
struct lvm_pv_new {
    const char *uuid, *device; /* device: a hint for people */
    uint64_t device_bytes, start, end;
};
must_use int lvm_pv_add(struct lvm_vg *vg, const struct lvm_pv_new *n, struct blk_error *e);
must_use int lvm_pv_remove(struct lvm_vg *vg, struct lvm_pv *pv, struct blk_error *e);

#endif

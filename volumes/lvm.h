/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.h - volume groups of LVM2 as devices.
 *
 *     lvm_text.h     the text: a tree, read, changed and written
 *     lvm_label.h    labels and headers of metadata areas
 *     lvm_meta.h     a group: physical and logical volumes, segments; all numbers checked
 *     lvm_change.h   changes of the text: volumes made, resized, removed; lvm_alloc.h: extents
 *     lvm_commit.h   what is written: labels, the text, in which order
 *     lvm.h          lvm_set.c    physical volumes that are here, the groups that they name
 *                    lvm.c        the driver: a container, whose inner devices are VG/LV
 *                    lvm_volume.c linear and striped volumes: a table that resolve looks up
 *                    lvm_snapshot.c snapshots that copy on write
 *                    lvm_raid.c   RAID: the driver md over images
 *                    lvm_belong.c which group a device belongs to
 *                    lvm_opened.c pools and arrays that are open, once for all that stand on them
 *                    lvm_thin.c   thin volumes: the driver thin over the pool's parts
 *                    lvm_pool.c   thin pools made, and told what the text says
 *     lvm_repair.h   images that are lost get other places, and are taken into their arrays
 *
 * All but the last three are pure. Everything here runs at the container's home. */
#ifndef VOLUMES_LVM_H
#define VOLUMES_LVM_H

#include "block/block.h"
#include "volumes/lvm_meta.h"

/* A physical volume that is here. */
struct lvm_member {
    struct blk_device *dev; /* borrowed: a child of the container */
    struct lvm_label label;
    struct lvm_locn texts[LVM_AREAS_MOST]; /* in label.areas; bytes 0: there is none */
    bool usable[LVM_AREAS_MOST];           /* the area's header is right */
    bool labelled;
    struct lvm_vg *vg; /* NULL: it belongs to none that is known */
};

/* A thin pool or an array that is open for the volumes on it. */
struct lvm_opened {
    const struct lvm_lv *lv,
        *external; /* of a pool: what shows where nothing was written, or NULL */
    struct blk_device *dev;
};

struct lvm_set {
    struct blk_device *dev; /* the container */
    struct lvm_member *members;
    size_t member_count;
    struct lvm_vg **vgs;
    size_t vg_count;
    struct lvm_opened *opened;
    size_t opened_count;
    bool partial;            /* changes are made though physical volumes are missing */
    bool unsure;             /* a commit failed midway: what is on disk is to be read anew */
    bool force;              /* arrays are read where single blocks may be wrong */
    struct co_mutex opening; /* held while a volume is opened, and those that it stands on */
};

/* NULL: @dev is no container of this driver. */
struct lvm_set *lvm_set_of(struct blk_device *dev);

/* Reads labels and texts of all children of s->dev. Gives everything in @s, to be dropped, also
 * after a failure. */
must_use int co_lvm_set_read(struct lvm_set *s, struct blk_error *e);
void lvm_set_drop(struct lvm_set *s);
/* NULL: there is none of that name. */
struct lvm_vg *lvm_set_find(const struct lvm_set *s, const char *vg_name);
struct lvm_member *lvm_set_member(const struct lvm_set *s, const struct lvm_pv *pv);

/* What opens a logical volume: fills @dev, as a driver's co_inner_open(). */
struct lvm_opening {
    struct lvm_set *set;
    struct lvm_vg *vg;
    struct lvm_lv *lv;
    struct blk_device *dev;
    const char *fixed; /* why it must not be written to, a literal; NULL: it may */
    struct blk_error *e;
};
/* o->dev has @child (taken, also on failure) from now on. */
must_use int co_lvm_keep_child(const struct lvm_opening *o, struct blk_device *child);
/* Opens the volume @lv, which o->dev stands on. Gives *out. */
must_use int co_lvm_open_below(const struct lvm_opening *o, const struct lvm_lv *lv,
                               struct blk_device **out);
/* The same, and keeps it: *out is borrowed. */
must_use int co_lvm_child_below(const struct lvm_opening *o, const struct lvm_lv *lv,
                                struct blk_device **out);

/* The volume @name of @vg, which is a group of @s, or a plan: a copy that is not committed. Hidden
 * ones too, and to be written as @s is. Gives *out. */
must_use int co_lvm_open_planned(struct lvm_set *s, struct lvm_vg *vg, const char *name,
                                 struct blk_device **out, struct blk_error *e);

/* lvm_opened.c. NULL: it is not open. */
const struct lvm_opened *lvm_opened_find(const struct lvm_set *s, const struct lvm_lv *lv);
/* Takes one->dev, also on failure; else it is open until all are closed. */
must_use int co_lvm_opened_add(const struct lvm_opening *o, const struct lvm_opened *one);
/* All of them; the first error. */
int co_lvm_opened_close(struct lvm_set *s, struct blk_error *e);

/* For volumes of one segment or more that lie on places: striped, linear, the first leg of a
 * mirror, zeroes. */
must_use int co_lvm_mapped_open(const struct lvm_opening *o);
must_use int co_lvm_snapshot_open(const struct lvm_opening *o);
must_use int co_lvm_raid_open(const struct lvm_opening *o);
must_use int co_lvm_thin_open(const struct lvm_opening *o);
/* o->dev is the volume, byte for byte what its child @child shows. */
must_use int co_lvm_show(const struct lvm_opening *o, struct blk_device *child);

/* As a driver's co_member_of(). */
int co_lvm_member_of(struct blk_device *dev, struct blk_member *out, struct blk_error *e);

extern const struct blk_driver lvm_driver;

#endif

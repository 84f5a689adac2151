/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.h - what the verbs of `lamina pv`, `vg` and `lv` share: lvm2's words over whatever can be
 * opened.
 *
 *   lvm_open.c     SET//VG/LV is a volume; SET a physical volume, lvm:PV,PV... or dir:FOLDER
 *   lvm.c          running, sizes, physical volumes by name
 *   lvm_report.c   lists, as lvm2 prints them for people and as JSON
 *   lvm_tag.c      pv | vg | lv change: tags
 *   lv_refresh.c   lv refresh | repair: images of arrays
 *   pv.c vg.c lv.c the other verbs; lv_thin.c: thin pools, thin volumes and their snapshots */
#ifndef TOOLS_LVM_H
#define TOOLS_LVM_H

#include "tools/image.h"
#include "tools/output.h"
#include "tools/task.h"
#include "volumes/lvm_commit.h"

/* A verb's run: what is told, what is open, what came of it. */
struct lvm_verb {
    /* told */
    struct tool *tool;
    struct task task;   /* by which it runs */
    const char *format; /* -f, of all physical volumes; NULL: probed */
    char **operands;
    int count;
    bool yes;                                             /* -y */
    int (*option)(void *verb, int id, const char *value); /* as struct command_line's */
    int (*co_work)(struct lvm_verb *v);
    /* open while co_work() runs, by co_lvm_verb_open() */
    struct blk_device *dev;
    struct lvm_set *set;
    char **texts; /* the set's members as people call them, in order; owned */
    size_t text_count;
    size_t at;         /* of a folder: which of its items the set is */
    struct lvm_vg *vg; /* NULL: none was named */
    struct lvm_lv *lv; /* NULL: none was named */
    char *vg_name;     /* as told; owned */
    /* kept */
    json_t *rows; /* of a list; owned */
    char *done;   /* the sentence that is printed when all went well; owned */
    struct blk_error error;
};

/* Entries of all verbs' tables. */
#define ARG_YES                                                          \
    {                                                                    \
        'y', "yes", NULL, "do what loses data, without asking", 0, false \
    }
#define LVM_PLACES(verb)          \
    {'f', &(verb)->format, NULL}, \
    {                             \
        'y', NULL, &(verb)->yes   \
    }

/* Reads the command line (@places ends with a zero id and has LVM_PLACES), runs v->co_work() with
 * at least @least operands, prints. The exit status. */
int lvm_verb_run(struct lvm_verb *v, int argc, char **argv, const struct arg_place *places,
                 int least);

/* How a place is named. */
enum lvm_named { LVM_NAMED_SET, LVM_NAMED_VG, LVM_NAMED_LV };
/* Opens the container that @place names, and @more physical volumes beside it. */
must_use int co_lvm_verb_open(struct lvm_verb *v, const char *place, enum lvm_named named,
                              char *const *more, size_t more_count, bool write);
/* A folder may hold several sets: v->set becomes the next one; false: there is none, or v->error.
 */
bool co_lvm_verb_next(struct lvm_verb *v);
/* Frees what is owned. */
void lvm_verb_drop(struct lvm_verb *v);
/* pv.c: makes a physical volume of @text. @keep: one that is in no group is left as it is. */
must_use int co_lvm_pv_make(struct lvm_verb *v, const char *text, bool keep);
/* The member whose device was told as @text; NULL after an error. */
struct lvm_member *lvm_verb_member(struct lvm_verb *v, const char *text);
/* The model's physical volumes that @texts name. Gives *out (mem_free), @count of them. */
must_use int lvm_verb_pvs(struct lvm_verb *v, char *const *texts, size_t count,
                          struct lvm_pv ***out);
/* Commits v->vg, which was changed, and says @done (printf's form) when the verb has ended. */
must_use int co_lvm_verb_commit(struct lvm_verb *v, const char *done, ...) printf_like(2, 3);
int lvm_verb_say(struct lvm_verb *v, const char *fmt, ...) printf_like(2, 3);

/* Sizes as lvm2 takes them: 10g, 1.5T, 512b, 64s; a bare number is in @unit bytes. */
must_use int lvm_parse_size(const char *text, uint64_t unit, uint64_t *bytes, struct blk_error *e);

/* lv_thin.c, of an open group: a pool of @n's name and data; a volume in one. */
must_use int co_lvm_thin_pool(struct lvm_verb *v, struct lvm_pool_new *n, const char *chunk,
                              const char *metadata);
must_use int co_lvm_thin(struct lvm_verb *v, const char *name, const char *pool, const char *size);
/* Opens what the first operand names: VG/LV with @name, or VG/LV@SNAP. */
must_use int co_lvm_snapshot(struct lvm_verb *v, const char *name);
must_use int co_lvm_thin_remove(struct lvm_verb *v); /* v->lv */

/* lvm_tag.c: lvchange, vgchange, pvchange. */
extern const struct command lv_change_command, vg_change_command, pv_change_command;

/* lv_refresh.c: lvchange --refresh, lvconvert --repair. */
extern const struct command lv_refresh_command, lv_repair_command;

/* lvm_report.c: rows of v->rows. */
must_use int lvm_report_pvs(struct lvm_verb *v);
must_use int lvm_report_vgs(struct lvm_verb *v);
must_use int lvm_report_lvs(struct lvm_verb *v, bool all);
/* Prints v->rows: @what is "pv", "vg" or "lv". */
int lvm_report_print(const struct lvm_verb *v, const char *what);

#endif

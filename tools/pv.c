/* SPDX-License-Identifier: BSD-3-Clause */
/* pv.c - lamina pv create | remove | list: physical volumes of LVM2. */
#include "tools/lvm.h"
#include "tools/occupied.h"

static const struct arg_desc change_options[] = {ARG_IMAGE_FORMAT, ARG_YES, ARG_SECRET, ARG_QUIET,
                                                 ARG_END};
static const struct arg_desc list_options[] = {ARG_IMAGE_FORMAT, ARG_SECRET, ARG_OUTPUT, ARG_END};

static int run_with(struct tool *t, int argc, char **argv, struct lvm_verb *v)
{
    const struct arg_place places[] = {LVM_PLACES(v), {0, NULL, NULL}};
    v->tool = t;
    return lvm_verb_run(v, argc, argv, places, 1);
}

/* --- create ------------------------------------------------------------------------------------
 */

/* Refuses what would be lost, unless -y. */
static int co_check_blank(struct lvm_verb *v, const char *text, struct blk_device *dev)
{
    size_t bytes = (size_t)MIN(dev->size, LVM_DATA_AT);
    if (v->yes)
        return 0;
    TRY(co_refuse_occupied(v->tool, dev, "-y", &v->error));
    auto_free uint8_t *buf = mem_aligned(bytes);
    if (!buf)
        return err_set(&v->error, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(dev, 0, buf, bytes);
    if (rc < 0)
        return err_errno(&v->error, rc, "%s cannot be read", text);
    return mem_is_zero(buf, bytes)
               ? 0
               : err_set(&v->error, -EEXIST,
                         "%s holds data in its first MiB, which would be lost: -y writes over it",
                         text);
}

static int co_make(struct lvm_verb *v, const char *text, struct blk_device *dev, bool keep)
{
    struct lvm_label label;
    struct blk_error none;
    uint8_t head[LVM_LABEL_SECTORS * LVM_SECTOR];
    size_t bytes = (size_t)MIN(dev->size, sizeof(head));
    int rc = co_blk_read_buf(dev, 0, head, bytes);
    if (rc < 0)
        return err_errno(&v->error, rc, "%s cannot be read", text);
    bool labelled = lvm_label_find(head, bytes, &label, &none) == 0;
    if (labelled && label.used)
        return err_set(&v->error, -EBUSY, "Can't initialize physical volume \"%s\" of a group",
                       text);
    if (labelled && keep)
        return 0;
    if (!labelled)
        TRY(co_check_blank(v, text, dev));
    TRY(co_lvm_pv_create(dev, &v->error));
    return lvm_verb_say(v, "Physical volume \"%s\" successfully created.", text);
}

int co_lvm_pv_make(struct lvm_verb *v, const char *text, bool keep)
{
    struct blk_device *dev;
    struct image image = {
        .text = text, .format = v->format, .flags = BLK_OPEN_WRITE, .trust = TRUST_WRITE};
    TRY(co_image_open(v->tool, &image, &dev, &v->error));
    int rc = co_make(v, text, dev, keep);
    return co_image_close(dev, rc, &v->error);
}

static int co_create(struct lvm_verb *v)
{
    for (int i = 0; i < v->count; i++)
        TRY(co_lvm_pv_make(v, v->operands[i], false));
    return 0;
}

static int create(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_create});
}

static const struct command pv_create_command = {
    .name = "pv create",
    .run = create,
    .usage = "pv create [OPTION]... PV...",
    .summary = "Make physical volumes: what is in their first MiB is lost",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina pv create disk.img",
};

/* --- remove ------------------------------------------------------------------------------------
 */

static int co_remove(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, NULL, LVM_NAMED_SET, v->operands, (size_t)v->count, true));
    for (size_t i = 0; i < v->set->member_count; i++) {
        struct lvm_member *m = &v->set->members[i];
        TRY(co_lvm_pv_remove(m, &v->error));
        TRY(lvm_verb_say(v, "Labels on physical volume \"%s\" successfully wiped.", v->texts[i]));
    }
    return 0;
}

static int remove_pv(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_remove});
}

static const struct command pv_remove_command = {
    .name = "pv remove",
    .run = remove_pv,
    .usage = "pv remove [OPTION]... PV...",
    .summary = "Take the labels off physical volumes of no group",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina pv remove disk.img",
};

/* --- list --------------------------------------------------------------------------------------
 */

static int co_list(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_SET, v->operands + 1, (size_t)v->count - 1,
                         false));
    do
        TRY(lvm_report_pvs(v));
    while (co_lvm_verb_next(v));
    return v->error.rc;
}

static int list(struct tool *t, int argc, char **argv)
{
    struct lvm_verb v = {.co_work = co_list};
    int rc = run_with(t, argc, argv, &v);
    if (rc == 0 && v.set)
        rc = lvm_report_print(&v, "pv");
    json_decref(v.rows);
    return rc;
}

static const struct command pv_list_command = {
    .name = "pv list",
    .run = list,
    .usage = "pv list [OPTION]... SET|PV...",
    .summary = "List physical volumes, as pvs does",
    .faces = FACE_LAMINA,
    .options = list_options,
    .notes = "  lamina pv list disk.img\n"
             "  lamina pv list lvm:disk0.img,disk1.img",
};

/* --- which verb --------------------------------------------------------------------------------
 */

static const struct command *const verbs[] = {&pv_create_command, &pv_remove_command,
                                              &pv_change_command, &pv_list_command, NULL};

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc no_options[] = {ARG_END};

const struct command pv_command = {
    .name = "pv",
    .run = run,
    .usage = "pv VERB [OPTION]... ...",
    .summary = "Physical volumes of LVM2",
    .faces = FACE_LAMINA,
    .verbs = verbs,
    .options = no_options,
};

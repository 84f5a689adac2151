/* SPDX-License-Identifier: BSD-3-Clause */
/* vg.c - lamina vg create | extend | reduce | rename | remove | list: volume groups of LVM2. */
#include "tools/lvm.h"

static const struct arg_desc change_options[] = {ARG_IMAGE_FORMAT, ARG_YES, ARG_SECRET, ARG_QUIET,
                                                 ARG_END};
enum { ARG_REMOVE_MISSING = ARG_LONG, ARG_RESTORE_MISSING, ARG_FORCE };
static const struct arg_desc extend_options[] = {
    {ARG_RESTORE_MISSING, "restoremissing", NULL,
     "PV was missing and is back: what is on it may be old", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_YES,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};
static const struct arg_desc reduce_options[] = {
    {ARG_REMOVE_MISSING, "removemissing", NULL, "take out those that are missing", 0, false},
    {ARG_FORCE, "force", NULL, "with removemissing: volumes that are lost with them, too", 0,
     false},
    ARG_IMAGE_FORMAT,
    ARG_YES,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};
static const struct arg_desc list_options[] = {ARG_IMAGE_FORMAT, ARG_SECRET, ARG_OUTPUT, ARG_END};
static const struct arg_desc create_options[] = {
    {'s', "physicalextentsize", "SIZE", "size of an extent (4m); a bare number: MiB", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_YES,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};

static int run_with(struct tool *t, int argc, char **argv, struct lvm_verb *v, int least)
{
    const struct arg_place places[] = {LVM_PLACES(v), {0, NULL, NULL}};
    v->tool = t;
    return lvm_verb_run(v, argc, argv, places, least);
}

/* --- create ------------------------------------------------------------------------------------
 */

struct create {
    struct lvm_verb verb;
    const char *extent;
};

/* Devices without a label get one, as in lvm2. */
static int co_prepare(struct lvm_verb *v, char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        TRY(co_lvm_pv_make(v, texts[i], true));
    return 0;
}

static int add_members(struct lvm_verb *v, char *const *texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct lvm_member *m = lvm_verb_member(v, texts[i]);
        if (!m)
            return v->error.rc;
        TRY(lvm_vg_add_member(v->vg, m, &v->error));
    }
    return 0;
}

static int co_create(struct lvm_verb *v)
{
    struct create *c = container_of(v, struct create, verb);
    char uuid[LVM_UUID + 1];
    const char *name = v->operands[0];
    uint64_t extent = 4 * MiB;
    if (c->extent)
        TRY(lvm_parse_size(c->extent, MiB, &extent, &v->error));
    TRY(lvm_check_name(name, false, &v->error));
    TRY(co_prepare(v, v->operands + 1, (size_t)v->count - 1));
    TRY(co_lvm_verb_open(v, NULL, LVM_NAMED_SET, v->operands + 1, (size_t)v->count - 1, true));
    lvm_uuid_new(v->tool->host, uuid);
    TRY(lvm_vg_create(name, uuid, extent, &v->vg, &v->error));
    int rc = add_members(v, v->operands + 1, (size_t)v->count - 1);
    if (rc == 0)
        rc = co_lvm_verb_commit(v, "Volume group \"%s\" successfully created", name);
    if (rc < 0)
        lvm_vg_drop(v->vg);
    return rc;
}

static int create(struct tool *t, int argc, char **argv)
{
    struct create c = {.verb = {.tool = t, .co_work = co_create}};
    const struct arg_place places[] = {
        LVM_PLACES(&c.verb), {'s', &c.extent, NULL}, {0, NULL, NULL}};
    return lvm_verb_run(&c.verb, argc, argv, places, 2);
}

static const struct command vg_create_command = {
    .name = "vg create",
    .run = create,
    .usage = "vg create [OPTION]... VG PV...",
    .summary = "Make a group of physical volumes, and those of what are none yet",
    .faces = FACE_LAMINA,
    .options = create_options,
    .notes = "  lamina create disk0.img 100G\n  lamina vg create vg0 disk0.img disk1.img",
};

/* --- extend, reduce ----------------------------------------------------------------------------
 */

/* What these two are told. */
struct members {
    struct lvm_verb verb;
    bool restore, remove, force;
};

static int run_members(struct tool *t, int argc, char **argv, struct members *m, int least)
{
    const struct arg_place places[] = {LVM_PLACES(&m->verb),
                                       {ARG_RESTORE_MISSING, NULL, &m->restore},
                                       {ARG_REMOVE_MISSING, NULL, &m->remove},
                                       {ARG_FORCE, NULL, &m->force},
                                       {0, NULL, NULL}};
    m->verb.tool = t;
    return lvm_verb_run(&m->verb, argc, argv, places, least);
}

/* The text's mark goes. What an array wrote meanwhile its images do not have: their superblocks say
 * so. */
static int co_restore(struct lvm_verb *v)
{
    size_t count = (size_t)v->count - 1;
    auto_free struct lvm_pv **pvs = NULL;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    TRY(lvm_verb_pvs(v, v->operands + 1, count, &pvs));
    for (size_t i = 0; i < count; i++) {
        if (!pvs[i]->missing)
            return err_set(&v->error, -EINVAL, "physical volume %s is not marked as missing",
                           v->operands[1 + i]);
        TRY(lvm_pv_set_missing(v->vg, pvs[i], false, &v->error));
    }
    v->set->partial = true; /* others may still be away */
    return co_lvm_verb_commit(v, "Volume group \"%s\" successfully extended", v->vg->name);
}

static int co_extend(struct lvm_verb *v)
{
    size_t count = (size_t)v->count - 1;
    if (container_of(v, struct members, verb)->restore)
        return co_restore(v);
    TRY(co_prepare(v, v->operands + 1, count));
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, v->operands + 1, count, true));
    TRY(add_members(v, v->operands + 1, count));
    v->set->partial = true; /* what arrays lost with another one finds room there */
    return co_lvm_verb_commit(v, "Volume group \"%s\" successfully extended", v->vg->name);
}

static int extend(struct tool *t, int argc, char **argv)
{
    return run_members(t, argc, argv, &(struct members){.verb.co_work = co_extend}, 2);
}

static const struct command vg_extend_command = {
    .name = "vg extend",
    .run = extend,
    .usage = "vg extend [OPTION]... SET//VG PV...",
    .summary = "Add physical volumes to a group",
    .faces = FACE_LAMINA,
    .options = extend_options,
    .notes = "Images of arrays on one that was missing are filled with what they missed by lv "
             "refresh.\n\n"
             "  lamina vg extend disk0.img//vg0 disk1.img\n"
             "  lamina vg extend --restoremissing lvm:disk0.img,disk1.img//vg0 disk1.img",
};

/* Those that are here again, and in the group no more. */
static int co_release_lost(struct lvm_verb *v, const bool *lost)
{
    for (size_t i = 0; i < v->set->member_count; i++)
        if (lost[i])
            TRY(co_lvm_release(&v->set->members[i], &v->error));
    return 0;
}

static int co_remove_missing(struct lvm_verb *v)
{
    struct lvm_vg *now;
    bool any = false;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    auto_free bool *lost = mem_array(v->set->member_count, sizeof(*lost));
    if (!lost)
        return err_set(&v->error, -ENOMEM, "out of memory");
    for (size_t i = 0; i < v->vg->pv_count; i++)
        any |= lvm_pv_lost(&v->vg->pvs[i]);
    if (!any)
        return lvm_verb_say(v, "Volume group \"%s\" is already consistent.", v->vg->name);
    for (size_t i = 0; i < v->set->member_count; i++) {
        const struct lvm_member *m = &v->set->members[i];
        lost[i] = m->vg == v->vg && lvm_find_pv(v->vg, m->label.uuid)->missing;
    }
    v->set->partial = true;
    TRY(lvm_vg_copy(v->vg, &now, &v->error));
    v->vg = now;
    int rc = lvm_vg_drop_lost(&v->vg, container_of(v, struct members, verb)->force, &v->error);
    if (rc == 0)
        rc = co_lvm_verb_commit(v, "Wrote out consistent volume group %s.", v->vg_name);
    if (rc < 0)
        lvm_vg_drop(v->vg);
    return rc < 0 ? rc : co_release_lost(v, lost);
}

static int co_reduce(struct lvm_verb *v)
{
    const struct members *told = container_of(v, struct members, verb);
    if (told->remove && v->count == 1)
        return co_remove_missing(v);
    if (told->remove || told->force || v->count < 2)
        return err_set(&v->error, -EINVAL,
                       "expecting physical volumes, or --removemissing [--force]");
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    for (int i = 1; i < v->count; i++) {
        struct lvm_member *m = lvm_verb_member(v, v->operands[i]);
        struct lvm_pv *pv = m ? lvm_find_pv(v->vg, m->label.uuid) : NULL;
        if (!pv)
            return m ? err_set(&v->error, -ENOENT,
                               "%s is not in the group %s; `lamina pv list` shows what is",
                               v->operands[i], v->vg->name)
                     : v->error.rc;
        TRY(lvm_pv_remove(v->vg, pv, &v->error));
        TRY(co_lvm_verb_commit(v, "Removed \"%s\" from volume group \"%s\"", v->operands[i],
                               v->vg->name));
        TRY(co_lvm_release(m, &v->error));
    }
    return 0;
}

static int reduce(struct tool *t, int argc, char **argv)
{
    return run_members(t, argc, argv, &(struct members){.verb.co_work = co_reduce}, 1);
}

static const struct command vg_reduce_command = {
    .name = "vg reduce",
    .run = reduce,
    .usage = "vg reduce [OPTION]... SET//VG [PV]...",
    .summary = "Take physical volumes that nothing lies on out of a group",
    .faces = FACE_LAMINA,
    .options = reduce_options,
    .notes = "With --removemissing those that are missing; with --force arrays lose the images "
             "that lay\n"
             "there, and volumes that cannot do without them go, whatever part of them is left.\n\n"
             "  lamina vg reduce --removemissing disk0.img//vg0\n"
             "  lamina vg reduce lvm:disk0.img,disk1.img//vg0 disk1.img",
};

/* --- rename, remove ----------------------------------------------------------------------------
 */

static int co_rename(struct lvm_verb *v)
{
    const char *to = v->operands[1];
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    if (lvm_set_find(v->set, to))
        return err_set(&v->error, -EEXIST, "Volume group \"%s\" already exists", to);
    TRY(lvm_vg_rename(v->vg, to, &v->error));
    return co_lvm_verb_commit(v, "Volume group \"%s\" successfully renamed to \"%s\"", v->vg_name,
                              to);
}

static int rename_vg(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_rename}, 2);
}

static const struct command vg_rename_command = {
    .name = "vg rename",
    .run = rename_vg,
    .usage = "vg rename [OPTION]... SET//VG NAME",
    .summary = "Give a group another name",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina vg rename disk0.img//vg0 old",
};

static int co_remove(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    TRY(co_lvm_vg_remove(v->set, v->vg, &v->error));
    return lvm_verb_say(v, "Volume group \"%s\" successfully removed", v->vg_name);
}

static int remove_vg(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lvm_verb){.co_work = co_remove}, 1);
}

static const struct command vg_remove_command = {
    .name = "vg remove",
    .run = remove_vg,
    .usage = "vg remove [OPTION]... SET//VG",
    .summary = "Remove a group that holds no volumes",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina vg remove disk0.img//vg0",
};

/* --- list --------------------------------------------------------------------------------------
 */

static int co_list(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_SET, v->operands + 1, (size_t)v->count - 1,
                         false));
    do
        TRY(lvm_report_vgs(v));
    while (co_lvm_verb_next(v));
    return v->error.rc;
}

static int list(struct tool *t, int argc, char **argv)
{
    struct lvm_verb v = {.co_work = co_list};
    int rc = run_with(t, argc, argv, &v, 1);
    if (rc == 0 && v.set)
        rc = lvm_report_print(&v, "vg");
    json_decref(v.rows);
    return rc;
}

static const struct command vg_list_command = {
    .name = "vg list",
    .run = list,
    .usage = "vg list [OPTION]... SET|PV...",
    .summary = "List groups, as vgs does",
    .faces = FACE_LAMINA,
    .options = list_options,
    .notes = "  lamina vg list disk0.img",
};

/* --- which verb --------------------------------------------------------------------------------
 */

static const struct command *const verbs[] = {
    &vg_create_command, &vg_extend_command, &vg_reduce_command, &vg_rename_command,
    &vg_remove_command, &vg_change_command, &vg_list_command,   NULL};

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc no_options[] = {ARG_END};

const struct command vg_command = {
    .name = "vg",
    .run = run,
    .usage = "vg VERB [OPTION]... ...",
    .summary = "Volume groups of LVM2",
    .faces = FACE_LAMINA,
    .verbs = verbs,
    .options = no_options,
    .notes = "SET is a physical volume, or lvm:PV,PV,...",
};

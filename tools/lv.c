/* SPDX-License-Identifier: BSD-3-Clause */
/* lv.c - lamina lv create | extend | reduce | rename | remove | list: logical volumes. What is
 * thin: lv_thin.c. */
#include <stdlib.h>

#include "tools/lvm.h"

enum { ARG_TYPE = ARG_LONG, ARG_POOL_METADATA, ARG_THINPOOL };

static const struct arg_desc change_options[] = {ARG_IMAGE_FORMAT, ARG_YES, ARG_SECRET, ARG_QUIET,
                                                 ARG_END};
#define ARG_SIZE                                                                                  \
    {                                                                                             \
        'L', "size", "[+|-]SIZE", "10g, 512m, ...; a bare number: MiB. Rounded up to extents", 0, \
            false                                                                                 \
    }
#define ARG_EXTENTS                                                                \
    {                                                                              \
        'l', "extents", "[+|-]N", "the same in extents, or N%FREE, N%VG", 0, false \
    }
static const struct arg_desc resize_options[] = {ARG_SIZE,   ARG_EXTENTS, ARG_IMAGE_FORMAT, ARG_YES,
                                                 ARG_SECRET, ARG_QUIET,   ARG_END};
static const struct arg_desc create_options[] = {
    {'n', "name", "NAME", "the volume's name (else lvol0, lvol1, ...)", 0, false},
    ARG_SIZE,
    ARG_EXTENTS,
    {'i', "stripes", "N", "stripe it over N physical volumes", 0, false},
    {'I', "stripesize", "SIZE", "size of a stripe's chunks (64k); a bare number: KiB", 0, false},
    {ARG_TYPE, "type", "TYPE", "linear (the default), striped, thin-pool or thin", 0, false},
    {'c', "chunksize", "SIZE", "size of a thin pool's blocks (64k); a bare number: KiB", 0, false},
    {ARG_POOL_METADATA, "poolmetadatasize", "SIZE",
     "size of a thin pool's metadata (else by the pool's size)", 0, false},
    {'V', "virtualsize", "SIZE", "size that a thin volume shows; a bare number: MiB", 0, false},
    {ARG_THINPOOL, "thinpool", "POOL", "the pool that a thin volume lies in", 0, false},
    {'s', "snapshot", NULL, "make a snapshot of the thin volume VG/LV", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_YES,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};
static const struct arg_desc list_options[] = {
    {'a', "all", NULL, "what LVM2 hides as well", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_OUTPUT,
    ARG_END};

/* What all verbs here may be told. */
struct lv_verb {
    struct lvm_verb verb;
    const char *name, *size, *extents, *stripes, *stripe_size;
    const char *type, *chunk_size, *pool_metadata, *virtual_size, *thinpool;
    bool all, snapshot;
};

static struct lv_verb *told(struct lvm_verb *v)
{
    return container_of(v, struct lv_verb, verb);
}

static int run_with(struct tool *t, int argc, char **argv, struct lv_verb *v, int least)
{
    const struct arg_place places[] = {LVM_PLACES(&v->verb),
                                       {'n', &v->name, NULL},
                                       {'L', &v->size, NULL},
                                       {'l', &v->extents, NULL},
                                       {'i', &v->stripes, NULL},
                                       {'I', &v->stripe_size, NULL},
                                       {ARG_TYPE, &v->type, NULL},
                                       {'c', &v->chunk_size, NULL},
                                       {ARG_POOL_METADATA, &v->pool_metadata, NULL},
                                       {'V', &v->virtual_size, NULL},
                                       {ARG_THINPOOL, &v->thinpool, NULL},
                                       {'s', NULL, &v->snapshot},
                                       {'a', NULL, &v->all},
                                       {0, NULL, NULL}};
    v->verb.tool = t;
    return lvm_verb_run(&v->verb, argc, argv, places, least);
}

/* --- how large ---------------------------------------------------------------------------------
 */

/* 100, 50%FREE or 50%VG. */
static int parse_extents(struct lvm_verb *v, const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    uint64_t n = strtoull(text, &end, 10), all = 0;
    for (size_t i = 0; i < v->vg->pv_count; i++)
        all += v->vg->pvs[i].extents;
    if (strcmp(end, "%FREE") == 0)
        all = lvm_free_extents(v->vg, NULL);
    else if (strcmp(end, "%VG") != 0 && *end)
        end = NULL;
    if (!end || end == text || *text == '-' || errno || (*end && n > 100))
        return err_set(&v->error, -EINVAL,
                       "'%s' is no number of extents: N, N%%FREE or N%%VG is expected", text);
    *out = *end ? all * n / 100 : n;
    return 0;
}

/* What -L or -l says in extents, without its sign: *sign. */
static int wanted_extents(struct lvm_verb *v, uint64_t *extents, char *sign)
{
    const struct lv_verb *l = told(v);
    const char *text = l->size ? l->size : l->extents;
    uint64_t bytes;
    if (!text || (l->size && l->extents))
        return err_set(&v->error, -EINVAL,
                       "Please specify either size or extents: -L SIZE or -l EXTENTS");
    *sign = *text == '+' || *text == '-' ? *text++ : 0;
    if (l->extents)
        return parse_extents(v, text, extents);
    TRY(lvm_parse_size(text, MiB, &bytes, &v->error));
    *extents = div_up(bytes, v->vg->extent_bytes);
    return 0;
}

/* --- create ------------------------------------------------------------------------------------
 */

static int read_stripes(struct lvm_verb *v, struct lvm_wanted *w)
{
    const struct lv_verb *l = told(v);
    char *end = "";
    unsigned long n = l->stripes ? strtoul(l->stripes, &end, 10) : 1;
    w->stripe_bytes = 64 * KiB;
    if (*end || n == 0 || n > v->vg->pv_count)
        return err_set(&v->error, -EINVAL,
                       "Number of stripes (%s) must be between 1 and %zu, the physical volumes",
                       l->stripes, v->vg->pv_count);
    w->stripes = (unsigned)n;
    if (l->stripe_size)
        TRY(lvm_parse_size(l->stripe_size, KiB, &w->stripe_bytes, &v->error));
    if (!is_pow2(w->stripe_bytes) || w->stripe_bytes < 4 * KiB)
        return err_set(&v->error, -EINVAL,
                       "Invalid stripe size %s: a power of two from 4 KiB on is expected",
                       l->stripe_size);
    return 0;
}

/* lvolN with the first number that is free. */
static char *free_name(const struct lvm_vg *vg)
{
    for (unsigned n = 0;; n++) {
        char *name = mem_printf("lvol%u", n);
        if (!name || !lvm_find_lv(vg, name))
            return name;
        mem_free(name);
    }
}

/* The front is zeroed, so that nothing sees there what was there before. */
static int co_wipe(struct lvm_verb *v, const char *lv)
{
    struct blk_device *dev;
    auto_free char *name = mem_printf("%s/%s", v->vg->name, lv);
    if (!name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    TRY(co_blk_inner_open(v->dev, name, &dev, &v->error));
    int rc = co_blk_write_zeroes(dev, 0, MIN(dev->size, 4 * KiB), 0);
    if (rc == 0)
        rc = co_blk_flush(dev);
    if (rc < 0)
        err_errno(&v->error, rc, "%s was made, and its front could not be zeroed", name);
    return co_image_close(dev, rc, &v->error);
}

/* What -L, -i and the PVs told say. Gives *only (mem_free), which @w points at. */
static int read_space(struct lvm_verb *v, struct lvm_wanted *w, struct lvm_pv ***only)
{
    char sign;
    TRY(wanted_extents(v, &w->extents, &sign));
    TRY(read_stripes(v, w));
    if (v->count > 1)
        TRY(lvm_verb_pvs(v, v->operands + 1, (size_t)v->count - 1, only));
    w->only = *only;
    w->only_count = (size_t)v->count - 1;
    if (w->extents == 0 || sign || w->extents > UINT64_MAX - w->stripes)
        return err_set(&v->error, -EINVAL,
                       "Unable to create a logical volume of that size: it is at least one extent, "
                       "without + or -");
    w->extents = div_up(w->extents, w->stripes) * w->stripes;
    return 0;
}

static int co_create_plain(struct lvm_verb *v, const char *name)
{
    char uuid[LVM_UUID + 1];
    auto_free struct lvm_pv **only = NULL;
    struct lvm_volume_new n = {.name = name, .uuid = uuid};
    TRY(read_space(v, &n.space, &only));
    lvm_uuid_new(v->tool->host, uuid);
    TRY(lvm_lv_create(v->vg, &n, &v->error));
    TRY(co_lvm_verb_commit(v, "Logical volume \"%s\" created.", name));
    return co_wipe(v, name);
}

static int co_create(struct lvm_verb *v)
{
    const struct lv_verb *l = told(v);
    if (l->snapshot)
        return co_lvm_snapshot(v, l->name);
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    auto_free char *name = l->name ? mem_strdup(l->name) : free_name(v->vg);
    if (!name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    if (l->virtual_size || (l->type && strcmp(l->type, "thin") == 0))
        return co_lvm_thin(v, name, l->thinpool, l->virtual_size);
    if (!l->type || strcmp(l->type, "linear") == 0 || strcmp(l->type, "striped") == 0)
        return co_create_plain(v, name);
    if (strcmp(l->type, "thin-pool") != 0)
        return err_set(&v->error, -EINVAL,
                       "volumes of type %.60s are not made here, but linear, striped, thin-pool "
                       "and thin",
                       l->type);
    auto_free struct lvm_pv **only = NULL;
    struct lvm_pool_new n = {.name = name};
    TRY(read_space(v, &n.data, &only));
    return co_lvm_thin_pool(v, &n, l->chunk_size, l->pool_metadata);
}

static int create(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lv_verb){.verb.co_work = co_create}, 1);
}

static const struct command lv_create_command = {
    .name = "lv create",
    .run = create,
    .usage = "lv create [OPTION]... SET//VG [PV]...",
    .summary = "Make a volume (linear, striped, thin), a thin pool or a thin snapshot",
    .faces = FACE_LAMINA,
    .options = create_options,
    .notes = "  lamina lv create -n root -L 10g disk0.img//vg0\n"
             "  lamina lv create -n fast -l 100%FREE -i 2 lvm:disk0.img,disk1.img//vg0\n"
             "  lamina lv create --type thin-pool -n pool -L 20g disk0.img//vg0\n"
             "  lamina lv create -n home -V 100g --thinpool pool disk0.img//vg0\n"
             "  lamina lv create -s disk0.img//vg0/home@monday         home.monday\n"
             "  lamina lv create -s -n now disk0.img//vg0/home         now",
};

/* --- extend, reduce ----------------------------------------------------------------------------
 */

/* Extents come in so many at a time. */
static uint64_t stripes_of(const struct lvm_lv *lv)
{
    const struct lvm_segment *last = &lv->segments[lv->segment_count - 1];
    if (last->type->what == LVM_POOL)
        last = &last->data->segments[last->data->segment_count - 1];
    return MAX(last->area_count, 1);
}

static int co_extend(struct lvm_verb *v)
{
    char sign;
    auto_free struct lvm_pv **only = NULL;
    struct lvm_wanted w = {.stripes = 1};
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    uint64_t to, stripes = stripes_of(v->lv);
    TRY(wanted_extents(v, &to, &sign));
    if (sign == '+' && !add_u64(to, v->lv->extents, &to))
        return err_set(&v->error, -ERANGE, "the new size is too large");
    if (to <= v->lv->extents || sign == '-' || to > UINT64_MAX - stripes)
        return err_set(&v->error, -EINVAL,
                       "New size given (%" PRIu64
                       " extents) not larger than existing size (%" PRIu64 " extents)",
                       to, v->lv->extents);
    if (v->count > 1)
        TRY(lvm_verb_pvs(v, v->operands + 1, (size_t)v->count - 1, &only));
    w.only = only;
    w.only_count = (size_t)v->count - 1;
    w.extents = div_up(to - v->lv->extents, stripes) * stripes;
    TRY(lvm_lv_extend(v->vg, v->lv, &w, &v->error));
    return co_lvm_verb_commit(v, "Logical volume %s/%s successfully resized.", v->vg->name,
                              v->lv->name);
}

static int extend(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lv_verb){.verb.co_work = co_extend}, 1);
}

static const struct command lv_extend_command = {
    .name = "lv extend",
    .run = extend,
    .usage = "lv extend [OPTION]... SET//VG/LV [PV]...",
    .summary = "Make a volume larger",
    .faces = FACE_LAMINA,
    .options = resize_options,
    .notes = "  lamina lv extend -L +10g disk.img//vg0/root",
};

static int co_reduce(struct lvm_verb *v)
{
    char sign;
    uint64_t to;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    uint64_t stripes = stripes_of(v->lv);
    TRY(wanted_extents(v, &to, &sign));
    if (sign == '-')
        to = to < v->lv->extents ? v->lv->extents - to : 0;
    if (sign == '+' || to == 0 || to >= v->lv->extents)
        return err_set(&v->error, -EINVAL,
                       "New size given (%" PRIu64 " extents) not less than existing size (%" PRIu64
                       " extents)",
                       to, v->lv->extents);
    if (!v->yes)
        return err_set(&v->error, -EPERM,
                       "THIS MAY DESTROY YOUR DATA: make the file system in %s/%s smaller first, "
                       "then say -y",
                       v->vg->name, v->lv->name);
    to = div_up(to, stripes) * stripes;
    if (to < v->lv->extents)
        TRY(lvm_lv_reduce(v->vg, v->lv, to, &v->error));
    return co_lvm_verb_commit(v, "Logical volume %s/%s successfully resized.", v->vg->name,
                              v->lv->name);
}

static int reduce(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lv_verb){.verb.co_work = co_reduce}, 1);
}

static const struct command lv_reduce_command = {
    .name = "lv reduce",
    .run = reduce,
    .usage = "lv reduce [OPTION]... SET//VG/LV",
    .summary = "Make a volume smaller: what is behind its new end is lost",
    .faces = FACE_LAMINA,
    .options = resize_options,
    .notes = "  lamina lv reduce -y -L -1g disk0.img//vg0/root",
};

/* --- rename, remove ----------------------------------------------------------------------------
 */

static int co_rename(struct lvm_verb *v)
{
    const char *to = v->operands[1];
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    TRY(lvm_verb_say(v, "Renamed \"%s\" to \"%s\" in volume group \"%s\"", v->lv->name, to,
                     v->vg->name));
    TRY(lvm_lv_rename(v->vg, v->lv, to, &v->error));
    return co_lvm_commit(v->set, &v->vg, "lamina lv rename", &v->error);
}

static int rename_lv(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lv_verb){.verb.co_work = co_rename}, 2);
}

static const struct command lv_rename_command = {
    .name = "lv rename",
    .run = rename_lv,
    .usage = "lv rename [OPTION]... SET//VG/LV NAME",
    .summary = "Give a volume another name",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina lv rename disk0.img//vg0/root old",
};

static int co_remove(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    if (!v->yes)
        return err_set(&v->error, -EPERM,
                       "%s/%s and all that is in it would be lost: with -y it is", v->vg->name,
                       v->lv->name);
    if (v->lv->segments[0].type->what == LVM_THIN)
        return co_lvm_thin_remove(v);
    TRY(lvm_lv_remove(v->vg, v->lv, &v->error));
    return co_lvm_verb_commit(v, "Logical volume \"%s\" successfully removed", v->lv->name);
}

static int remove_lv(struct tool *t, int argc, char **argv)
{
    return run_with(t, argc, argv, &(struct lv_verb){.verb.co_work = co_remove}, 1);
}

static const struct command lv_remove_command = {
    .name = "lv remove",
    .run = remove_lv,
    .usage = "lv remove [OPTION]... SET//VG/LV",
    .summary = "Remove a volume with all that is in it",
    .faces = FACE_LAMINA,
    .options = change_options,
    .notes = "  lamina lv remove -y disk0.img//vg0/root",
};

/* --- list --------------------------------------------------------------------------------------
 */

static int co_list(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_SET, v->operands + 1, (size_t)v->count - 1,
                         false));
    do
        TRY(lvm_report_lvs(v, told(v)->all));
    while (co_lvm_verb_next(v));
    return v->error.rc;
}

static int list(struct tool *t, int argc, char **argv)
{
    struct lv_verb v = {.verb.co_work = co_list};
    int rc = run_with(t, argc, argv, &v, 1);
    if (rc == 0 && v.verb.set)
        rc = lvm_report_print(&v.verb, "lv");
    json_decref(v.verb.rows);
    return rc;
}

static const struct command lv_list_command = {
    .name = "lv list",
    .run = list,
    .usage = "lv list [OPTION]... SET|PV...",
    .summary = "List volumes, as lvs does",
    .faces = FACE_LAMINA,
    .options = list_options,
    .notes = "  lamina lv list disk0.img",
};

/* --- which verb --------------------------------------------------------------------------------
 */

static const struct command *const verbs[] = {&lv_create_command,  &lv_extend_command,
                                              &lv_reduce_command,  &lv_rename_command,
                                              &lv_remove_command,  &lv_change_command,
                                              &lv_refresh_command, &lv_repair_command,
                                              &lv_list_command,    NULL};

static int run(struct tool *t, int argc, char **argv)
{
    return command_group(t, verbs, argc, argv);
}

static const struct arg_desc no_options[] = {ARG_END};

const struct command lv_command = {
    .name = "lv",
    .run = run,
    .usage = "lv VERB [OPTION]... ...",
    .summary = "Logical volumes of LVM2",
    .faces = FACE_LAMINA,
    .verbs = verbs,
    .options = no_options,
    .notes = "SET is a physical volume, or lvm:PV,PV,...",
};

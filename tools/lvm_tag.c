/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_tag.c - lamina pv | vg | lv change: tags put on and taken off, in lvm2's words. */
#include "tools/lvm.h"

#define CHANGES_MOST 64

enum { ARG_ADDTAG = ARG_LONG, ARG_DELTAG };

static const struct arg_desc options[] = {
    {ARG_ADDTAG, "addtag", "TAG", "put a tag on it; may be told more than once", 0, false},
    {ARG_DELTAG, "deltag", "TAG", "take a tag off, before others are put on", 0, false},
    ARG_IMAGE_FORMAT,
    ARG_SECRET,
    ARG_QUIET,
    ARG_END};

struct tagging {
    struct lvm_verb verb;
    struct {
        int id;
        const char *tag;
    } changes[CHANGES_MOST];
    unsigned count;
};

static int take_option(void *verb, int id, const char *value)
{
    struct tagging *t = container_of(verb, struct tagging, verb);
    if (t->count == CHANGES_MOST) {
        tool_misuse(t->verb.tool, "at most %d tags at once", CHANGES_MOST);
        return ARGS_BAD;
    }
    t->changes[t->count].id = id;
    t->changes[t->count++].tag = value;
    return 0;
}

static int retag(struct tagging *t, struct lvm_node *of)
{
    for (unsigned i = 0; i < t->count; i++)
        if (t->changes[i].id == ARG_DELTAG)
            lvm_tag_remove(of, t->changes[i].tag);
    for (unsigned i = 0; i < t->count; i++)
        if (t->changes[i].id == ARG_ADDTAG)
            TRY(lvm_tag_add(t->verb.vg, of, t->changes[i].tag, &t->verb.error));
    return 0;
}

static int run(struct tool *t, int argc, char **argv, int (*co_work)(struct lvm_verb *v), int least)
{
    struct tagging g = {.verb = {.tool = t, .co_work = co_work, .option = take_option}};
    const struct arg_place places[] = {LVM_PLACES(&g.verb), {0, NULL, NULL}};
    return lvm_verb_run(&g.verb, argc, argv, places, least);
}

/* --- lv ----------------------------------------------------------------------------------------
 */

static int co_change_lv(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_LV, NULL, 0, true));
    TRY(retag(container_of(v, struct tagging, verb), v->lv->node));
    return co_lvm_verb_commit(v, "Logical volume %s/%s changed.", v->vg->name, v->lv->name);
}

static int change_lv(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_change_lv, 1);
}

const struct command lv_change_command = {
    .name = "lv change",
    .run = change_lv,
    .usage = "lv change [OPTION]... SET//VG/LV",
    .summary = "Put tags on a volume, or take them off; of a thin one lamina.quota=SIZE and "
               "lamina.reserve=SIZE count when it is opened",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina lv change --addtag lamina.quota=10G disk0.img//vg0/home",
};

/* --- vg ----------------------------------------------------------------------------------------
 */

static int co_change_vg(struct lvm_verb *v)
{
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    TRY(retag(container_of(v, struct tagging, verb), v->vg->node));
    return co_lvm_verb_commit(v, "Volume group \"%s\" successfully changed", v->vg->name);
}

static int change_vg(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_change_vg, 1);
}

const struct command vg_change_command = {
    .name = "vg change",
    .run = change_vg,
    .usage = "vg change [OPTION]... SET//VG",
    .summary = "Put tags on a group, or take them off",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina vg change --addtag backup disk0.img//vg0",
};

/* --- pv ----------------------------------------------------------------------------------------
 */

static int co_change_pv(struct lvm_verb *v)
{
    auto_free struct lvm_pv **pvs = NULL;
    size_t count = (size_t)v->count - 1;
    TRY(co_lvm_verb_open(v, v->operands[0], LVM_NAMED_VG, NULL, 0, true));
    TRY(lvm_verb_pvs(v, v->operands + 1, count, &pvs));
    for (size_t i = 0; i < count; i++) {
        TRY(retag(container_of(v, struct tagging, verb), pvs[i]->node));
        if (i + 1 < count)
            TRY(lvm_verb_say(v, "Physical volume \"%s\" changed", v->operands[i + 1]));
    }
    return co_lvm_verb_commit(v, "Physical volume \"%s\" changed", v->operands[count]);
}

static int change_pv(struct tool *t, int argc, char **argv)
{
    return run(t, argc, argv, co_change_pv, 2);
}

const struct command pv_change_command = {
    .name = "pv change",
    .run = change_pv,
    .usage = "pv change [OPTION]... SET//VG PV...",
    .summary = "Put tags on physical volumes of a group, or take them off",
    .faces = FACE_LAMINA,
    .options = options,
    .notes = "  lamina pv change --addtag fast disk0.img//vg0 disk0.img",
};

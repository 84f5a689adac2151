/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - how the verbs of LVM open what they are told, run and print. */
#include "tools/lvm.h"

#include <stdarg.h>
#include <stdlib.h>

/* --- sizes -------------------------------------------------------------------------------------
 */

int lvm_parse_size(const char *text, uint64_t unit, uint64_t *bytes, struct blk_error *e)
{
    size_t digits = strspn(text, "0123456789.");
    char last = text[digits] ? text[strlen(text) - 1] : 0;
    auto_free char *number =
        mem_printf("%.*s%s", (int)digits, text, last == 's' || !last ? "" : text + digits);
    if (!number)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(opts_parse_size(number, bytes, e));
    if (last == 's')
        unit = LVM_SECTOR;
    if ((last == 's' || !last) && !mul_u64(*bytes, unit, bytes))
        return err_set(e, -ERANGE, "size '%.60s' is too large", text);
    return 0;
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* Cuts "//VG/LV" or "//VG" off @place, which becomes the set's spec. */
static int cut_names(struct lvm_verb *v, char *place, enum lvm_named named, char **lv)
{
    char *at = NULL, *slash;
    for (char *p = place; (p = strstr(p, "//")); p += 2)
        at = p;
    *lv = NULL;
    if (named == LVM_NAMED_SET)
        return 0;
    if (!at)
        return err_set(&v->error, -EINVAL, "%s: SET//VG%s is expected", place,
                       named == LVM_NAMED_LV ? "/LV" : "");
    *at = 0;
    v->vg_name = mem_strdup(at + 2);
    if (!v->vg_name)
        return err_set(&v->error, -ENOMEM, "out of memory");
    slash = strchr(v->vg_name, '/');
    if (!slash != (named == LVM_NAMED_VG))
        return err_set(&v->error, -EINVAL, "\"%s\" names a %s, not a %s", v->vg_name,
                       slash ? "volume" : "group", slash ? "group" : "volume");
    if (slash) {
        *slash = 0;
        *lv = slash + 1;
    }
    return 0;
}

/* -f says what is on a physical volume whose spec does not. */
static int set_format(const struct lvm_verb *v, json_t *member)
{
    if (!v->format || !json_is_object(member) || json_object_get(member, "driver"))
        return 0;
    return json_object_set_new(member, "driver", json_string(v->format));
}

/* A set's tree, or that of a set of one. */
static int co_set_tree(struct lvm_verb *v, struct resolver *r, const char *text, json_t **out)
{
    json_t *tree;
    TRY(co_resolver_parse(r, text, NULL, false, &tree, &v->error));
    const char *driver = json_string_value(json_object_get(tree, "driver"));
    if (driver && strcmp(driver, "lvm") == 0 && json_is_array(json_object_get(tree, "members"))) {
        *out = tree;
        return 0;
    }
    *out = json_pack("{s:s, s:[o]}", "driver", "lvm", "members", tree);
    return *out ? 0 : err_set(&v->error, -ENOMEM, "out of memory");
}

static int co_add_member(struct lvm_verb *v, struct resolver *r, json_t *members, const char *text)
{
    json_t *member;
    TRY(co_resolver_parse(r, text, NULL, false, &member, &v->error));
    return json_array_append_new(members, member) == 0
               ? 0
               : err_set(&v->error, -ENOMEM, "out of memory");
}

static int co_open_set(struct lvm_verb *v, struct resolver *r, const char *text, char *const *more,
                       size_t more_count, bool write)
{
    json_t *tree = NULL;
    int rc = text ? co_set_tree(v, r, text, &tree) : 0;
    if (!text)
        tree = json_pack("{s:s, s:[]}", "driver", "lvm", "members");
    json_t *members = json_object_get(tree, "members"), *member;
    size_t i;
    for (size_t m = 0; rc == 0 && m < more_count; m++)
        rc = co_add_member(v, r, members, more[m]);
    json_array_foreach (members, i, member)
        if (rc == 0 && set_format(v, member) < 0)
            rc = err_set(&v->error, -ENOMEM, "out of memory");
    if (rc == 0) /* facts: the container itself is wanted, not a volume in it */
        rc = co_resolver_open_tree(r, tree, BLK_OPEN_FACTS | (write ? BLK_OPEN_WRITE : 0), &v->dev,
                                   &v->error);
    json_decref(tree);
    return rc;
}

static int find_named(struct lvm_verb *v, const char *lv)
{
    if (!v->vg_name)
        return 0;
    v->vg = lvm_set_find(v->set, v->vg_name);
    if (!v->vg)
        return err_set(&v->error, -ENOENT, "Volume group \"%s\" not found", v->vg_name);
    v->lv = lv ? lvm_find_lv(v->vg, lv) : NULL;
    return v->lv || !lv ? 0
                        : err_set(&v->error, -ENOENT, "Failed to find logical volume \"%s/%s\"",
                                  v->vg_name, lv);
}

int co_lvm_verb_open(struct lvm_verb *v, const char *place, enum lvm_named named, char *const *more,
                     size_t more_count, bool write)
{
    struct resolver r;
    auto_free char *set = place ? mem_strdup(place) : NULL;
    char *lv = NULL;
    if (place && !set)
        return err_set(&v->error, -ENOMEM, "out of memory");
    if (set)
        TRY(cut_names(v, set, named, &lv));
    TRY(co_tool_resolver(v->tool, write ? TRUST_WRITE : TRUST_READ, NULL, &r, &v->error));
    int rc = co_open_set(v, &r, set, more, more_count, write);
    resolver_drop(&r);
    TRY(rc);
    v->set = lvm_set_of(v->dev);
    return find_named(v, lv);
}

struct lvm_member *lvm_verb_member(struct lvm_verb *v, const char *text)
{
    char uuid[LVM_UUID + 1];
    bool by_uuid = lvm_uuid_parse(text, uuid);
    for (size_t i = 0; i < v->set->member_count; i++) {
        struct lvm_member *m = &v->set->members[i];
        if (strcmp(m->dev->name, text) == 0 || (by_uuid && strcmp(m->label.uuid, uuid) == 0))
            return m;
    }
    err_set(&v->error, -ENOENT, "Failed to find physical volume \"%s\"", text);
    return NULL;
}

int lvm_verb_pvs(struct lvm_verb *v, char *const *texts, size_t count, struct lvm_pv ***out)
{
    struct lvm_pv **list = mem_array(MAX(count, 1), sizeof(*list));
    if (!list)
        return err_set(&v->error, -ENOMEM, "out of memory");
    *out = list;
    for (size_t i = 0; i < count; i++) {
        const struct lvm_member *m = lvm_verb_member(v, texts[i]);
        if (!m)
            return v->error.rc;
        list[i] = lvm_find_pv(v->vg, m->label.uuid);
        if (!list[i])
            return err_set(&v->error, -ENOENT,
                           "Physical Volume \"%s\" not found in Volume Group \"%s\".", texts[i],
                           v->vg->name);
    }
    return 0;
}

/* --- running -----------------------------------------------------------------------------------
 */

static int say(struct lvm_verb *v, const char *fmt, va_list args)
{
    char text[600];
    vsnprintf(text, sizeof(text), fmt, args);
    char *more = mem_printf("%s  %s\n", v->done ? v->done : "", text);
    if (!more)
        return err_set(&v->error, -ENOMEM, "out of memory");
    mem_free(v->done);
    v->done = more;
    return 0;
}

int lvm_verb_say(struct lvm_verb *v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int rc = say(v, fmt, args);
    va_end(args);
    return rc;
}

int co_lvm_verb_commit(struct lvm_verb *v, const char *done, ...)
{
    va_list args;
    auto_free char *why = mem_printf("lamina %s", v->tool->command->name);
    if (!why)
        return err_set(&v->error, -ENOMEM, "out of memory");
    va_start(args, done); /* names in it may be gone after the commit */
    int rc = say(v, done, args);
    va_end(args);
    return rc < 0 ? rc : co_lvm_commit(v->set, &v->vg, why, &v->error);
}

static int co_run(void *arg)
{
    struct lvm_verb *v = arg;
    int rc = v->co_work(v);
    return co_image_close(v->dev, rc, &v->error);
}

int lvm_verb_run(struct lvm_verb *v, int argc, char **argv, const struct arg_place *places,
                 int least)
{
    struct command_line line = {argc, argv, places, NULL, NULL};
    int id = args_read(v->tool, &line);
    if (id != ARGS_END)
        return id == ARGS_HELP ? 0 : 1;
    if (line.argc < least)
        return tool_misuse(v->tool, "expecting: %s", v->tool->command->usage);
    v->operands = line.argv;
    v->count = line.argc;
    int rc = tool_run(v->tool, 1, co_run, v);
    if (rc < 0)
        rc = tool_failed(v->tool, &v->error);
    else if (v->done && !v->tool->quiet)
        fputs(v->done, stdout);
    mem_free(v->vg_name);
    mem_free(v->done);
    return rc;
}

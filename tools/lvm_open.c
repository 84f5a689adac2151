/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_open.c - how the verbs of LVM open what they are told: physical volumes, sets of them, or a
 * folder in which there are groups. */
#include "block/heap.h"
#include "tools/lvm.h"

#include <stdlib.h>

/* --- what is told ------------------------------------------------------------------------------
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

/* A set's tree, or that of a set of one; of a folder its own. */
static int co_set_tree(struct lvm_verb *v, struct resolver *r, const char *text, json_t **out)
{
    json_t *tree;
    TRY(co_resolver_parse(r, text, NULL, false, &tree, &v->error));
    const char *driver = json_string_value(json_object_get(tree, "driver"));
    bool is_set =
        driver && (strcmp(driver, "dir") == 0 ||
                   (strcmp(driver, "lvm") == 0 && json_is_array(json_object_get(tree, "members"))));
    if (is_set) {
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

/* What people call a device: as they would write it. NULL: no memory. */
static char *spec_text(const json_t *tree)
{
    const char *driver = json_string_value(json_object_get(tree, "driver"));
    const char *name = json_string_value(json_object_get(tree, "filename"));
    const json_t *file = json_object_get(tree, "file"), *list = json_object_get(tree, "members");
    if (json_is_string(tree) || name)
        return mem_strdup(name ? name : json_string_value(tree));
    if (file)
        return spec_text(file);
    if (driver && strcmp(driver, "inner") == 0) {
        auto_free char *of = spec_text(json_object_get(tree, "of"));
        return of ? mem_printf("%s//%s", of, json_string_value(json_object_get(tree, "name")))
                  : NULL;
    }
    if (driver && strcmp(driver, "dir") == 0)
        return mem_printf("dir:%s", json_string_value(json_object_get(tree, "path")));
    char *text = mem_printf("%s:", driver ? driver : "");
    for (size_t i = 0; text && i < json_array_size(list); i++) {
        auto_free char *one = spec_text(json_array_get(list, i));
        char *longer = one ? mem_printf("%s%s%s", text, i ? "," : "", one) : NULL;
        mem_free(text);
        text = longer;
    }
    return text;
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* v->texts of a set whose members are @members. */
static int name_members(struct lvm_verb *v, const json_t *members)
{
    v->text_count = json_array_size(members);
    v->texts = mem_array(MAX(v->text_count, 1), sizeof(*v->texts));
    for (size_t i = 0; v->texts && i < v->text_count; i++) {
        v->texts[i] = spec_text(json_array_get(members, i));
        if (!v->texts[i])
            return err_set(&v->error, -ENOMEM, "out of memory");
    }
    return v->texts ? 0 : err_set(&v->error, -ENOMEM, "out of memory");
}

static void drop_texts(struct lvm_verb *v)
{
    for (size_t i = 0; v->texts && i < v->text_count; i++)
        mem_free(v->texts[i]);
    mem_free(take(v->texts));
}

/* The same of a set in a folder. */
static int name_items(struct lvm_verb *v, const struct heap *h, size_t set)
{
    drop_texts(v);
    v->text_count = 0;
    v->texts = mem_array(h->count, sizeof(*v->texts));
    for (size_t k = 0; v->texts && k < h->count; k++) {
        if (h->items[k].set != set)
            continue;
        v->texts[v->text_count] = mem_strdup(h->items[k].spec);
        if (!v->texts[v->text_count++])
            return err_set(&v->error, -ENOMEM, "out of memory");
    }
    return v->texts ? 0 : err_set(&v->error, -ENOMEM, "out of memory");
}

/* The folder's next set from item @at on that has the group, if one is named. What stands on it was
 * opened to be looked into; now the set changes. */
static int co_use_folder(struct lvm_verb *v, struct heap *h, size_t at)
{
    for (; at < h->count; at++) {
        struct blk_device *dev = h->items[at].dev;
        struct lvm_set *set = dev ? lvm_set_of(dev) : NULL;
        if (!set || h->items[at].parent != HEAP_NONE ||
            (v->vg_name && !lvm_set_find(set, v->vg_name)))
            continue;
        v->set = set;
        v->at = at;
        co_heap_close_above(h, at);
        TRY(co_lvm_opened_close(v->set, &v->error));
        return name_items(v, h, at);
    }
    return err_set(&v->error, -ENOENT, "the folder holds no %s \"%s\"",
                   v->vg_name ? "volume group" : "physical volumes", v->vg_name ? v->vg_name : "");
}

bool co_lvm_verb_next(struct lvm_verb *v)
{
    struct heap *h = heap_of(v->dev);
    struct blk_error told = v->error;
    if (h && co_use_folder(v, h, v->at + 1) == 0)
        return true;
    if (h && v->error.rc == -ENOENT)
        v->error = told;
    return false;
}

static int co_open_tree(struct lvm_verb *v, struct resolver *r, json_t *tree, bool write)
{
    json_t *members = json_object_get(tree, "members"), *member;
    size_t i;
    json_array_foreach (members, i, member)
        if (set_format(v, member) < 0)
            return err_set(&v->error, -ENOMEM, "out of memory");
    /* facts: the container itself is wanted, not a volume in it */
    TRY(co_resolver_open_tree(r, tree, BLK_OPEN_FACTS | (write ? BLK_OPEN_WRITE : 0), &v->dev,
                              &v->error));
    v->set = lvm_set_of(v->dev);
    return v->set ? name_members(v, members) : co_use_folder(v, heap_of(v->dev), 0);
}

static int co_open_set(struct lvm_verb *v, struct resolver *r, const char *text, char *const *more,
                       size_t more_count, bool write)
{
    json_t *tree = NULL;
    int rc = text ? co_set_tree(v, r, text, &tree) : 0;
    if (!text)
        tree = json_pack("{s:s, s:[]}", "driver", "lvm", "members");
    json_t *members = json_object_get(tree, "members");
    if (rc == 0 && more_count && !members)
        rc =
            err_set(&v->error, -EINVAL, "name the physical volumes of the group, not their folder");
    for (size_t m = 0; rc == 0 && m < more_count; m++)
        rc = co_add_member(v, r, members, more[m]);
    if (rc == 0)
        rc = co_open_tree(v, r, tree, write);
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
    return rc < 0 ? rc : find_named(v, lv);
}

void lvm_verb_drop(struct lvm_verb *v)
{
    drop_texts(v);
    mem_free(v->vg_name);
    mem_free(v->done);
}

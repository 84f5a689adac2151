/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_change.c - changes of the group itself and of its physical volumes. Logical volumes:
 * lvm_change_lv.c. */
#include "block/option.h"
#include "volumes/lvm_alloc.h"

#include <stdio.h>

static int add_words(struct lvm_text *t, struct lvm_node *in, const char *name,
                     const char *const *words)
{
    struct lvm_node *list = lvm_add(t, in, LVM_LIST, name);
    if (!list)
        return -ENOMEM;
    for (; *words; words++)
        TRY(lvm_list_add(t, list, *words));
    return 0;
}

/* --- the group ---------------------------------------------------------------------------------
 */

static int make_text(struct lvm_text *t, const char *name, const char *uuid, uint64_t extent_bytes)
{
    static const char *const status[] = {"RESIZEABLE", "READ", "WRITE", NULL}, *const none[] = {
                                                                                   NULL};
    char text[LVM_UUID_TEXT];
    lvm_uuid_text(uuid, text);
    struct lvm_node *vg = lvm_add(t, &t->root, LVM_SECTION, name);
    if (!vg)
        return -ENOMEM;
    TRY(lvm_set_text(t, vg, "id", text));
    TRY(lvm_set_number(t, vg, "seqno", 0));
    TRY(lvm_set_text(t, vg, "format", "lvm2"));
    TRY(add_words(t, vg, "status", status));
    TRY(add_words(t, vg, "flags", none));
    TRY(lvm_set_number(t, vg, "extent_size", extent_bytes / LVM_SECTOR));
    TRY(lvm_set_number(t, vg, "max_lv", 0));
    TRY(lvm_set_number(t, vg, "max_pv", 0));
    TRY(lvm_set_number(t, vg, "metadata_copies", 0));
    if (!lvm_add(t, vg, LVM_SECTION, "physical_volumes"))
        return -ENOMEM;
    TRY(lvm_set_text(t, &t->root, "contents", "Text Format Volume Group"));
    return lvm_set_number(t, &t->root, "version", 1);
}

int lvm_vg_create(const char *name, const char *uuid, uint64_t extent_bytes, struct lvm_vg **out,
                  struct blk_error *e)
{
    struct lvm_text t = {.root.kind = LVM_SECTION};
    TRY(lvm_check_name(name, false, e));
    if (extent_bytes < KiB || extent_bytes % LVM_SECTOR ||
        (!is_pow2(extent_bytes) && extent_bytes % (128 * KiB)))
        return err_set(e, -EINVAL,
                       "a physical extent of %" PRIu64 " bytes: a power of two from 1 KiB on, or a "
                       "multiple of 128 KiB is expected",
                       extent_bytes);
    if (make_text(&t, name, uuid, extent_bytes) < 0) {
        lvm_text_drop(&t);
        return err_set(e, -ENOMEM, "out of memory");
    }
    return lvm_vg_read(&t, out, e);
}

int lvm_vg_copy(const struct lvm_vg *vg, struct lvm_vg **out, struct blk_error *e)
{
    struct lvm_text tree;
    auto_free char *text = NULL;
    size_t bytes;
    TRY(lvm_no_memory(lvm_text_build(&vg->text, &text, &bytes), e));
    TRY(lvm_text_parse(text, bytes, &tree, e));
    TRY(lvm_vg_read(&tree, out, e));
    for (size_t i = 0; i < vg->pv_count; i++) {
        struct lvm_pv *pv = lvm_find_pv(*out, vg->pvs[i].uuid);
        if (pv) /* it was not taken out */
            pv->dev = vg->pvs[i].dev;
    }
    return 0;
}

int lvm_vg_rename(struct lvm_vg *vg, const char *name, struct blk_error *e)
{
    TRY(lvm_check_name(name, false, e));
    return lvm_no_memory(lvm_rename(&vg->text, vg->node, name), e);
}

/* --- physical volumes --------------------------------------------------------------------------
 */

/* pvN with the first number that is free. */
static void free_name(const struct lvm_node *in, char *name, size_t bytes)
{
    unsigned n = 0;
    do {
        snprintf(name, bytes, "pv%u", n++);
    } while (lvm_find(in, name, LVM_SECTION));
}

/* Looks at the text, where those stand too that were added a moment ago. */
static bool has_pv(const struct lvm_node *in, const char *uuid)
{
    char text[LVM_UUID_TEXT];
    lvm_uuid_text(uuid, text);
    for (const struct lvm_node *n = in->first; n; n = n->next) {
        const char *id = lvm_find_text(n, "id");
        if (id && strcmp(id, text) == 0)
            return true;
    }
    return false;
}

static int put_pv(struct lvm_vg *vg, const struct lvm_pv_new *n, struct lvm_node *in,
                  uint64_t extents)
{
    static const char *const status[] = {"ALLOCATABLE", NULL}, *const none[] = {NULL};
    struct lvm_text *t = &vg->text;
    char text[LVM_UUID_TEXT], name[24];
    lvm_uuid_text(n->uuid, text);
    free_name(in, name, sizeof(name));
    struct lvm_node *pv = lvm_add(t, in, LVM_SECTION, name);
    if (!pv)
        return -ENOMEM;
    TRY(lvm_set_text(t, pv, "id", text));
    TRY(lvm_set_text(t, pv, "device", n->device));
    TRY(add_words(t, pv, "status", status));
    TRY(add_words(t, pv, "flags", none));
    TRY(lvm_set_number(t, pv, "dev_size", n->device_bytes / LVM_SECTOR));
    TRY(lvm_set_number(t, pv, "pe_start", n->start / LVM_SECTOR));
    return lvm_set_number(t, pv, "pe_count", extents);
}

int lvm_pv_add(struct lvm_vg *vg, const struct lvm_pv_new *n, struct blk_error *e)
{
    struct lvm_node *in = lvm_find(vg->node, "physical_volumes", LVM_SECTION);
    uint64_t extents = n->end > n->start ? (n->end - n->start) / vg->extent_bytes : 0;
    if (!in || vg->pv_count == LVM_PVS_MOST)
        return err_set(e, -EFBIG, "%s takes no more physical volumes", vg->name);
    if (has_pv(in, n->uuid))
        return err_set(e, -EEXIST, "%s is in %s already", n->device, vg->name);
    if (extents == 0)
        return err_set(e, -ENOSPC, "%s is too small for one extent of %" PRIu64 " bytes", n->device,
                       vg->extent_bytes);
    return lvm_no_memory(put_pv(vg, n, in, extents), e);
}

int lvm_pv_remove(struct lvm_vg *vg, struct lvm_pv *pv, struct blk_error *e)
{
    if (vg->pv_count == 1)
        return err_set(e, -EBUSY, "%s is the last physical volume of %s", pv->name, vg->name);
    if (lvm_free_extents(vg, pv) != pv->extents)
        return err_set(e, -EBUSY, "physical volume %s is still in use: volumes lie on it",
                       pv->name);
    lvm_remove(lvm_find(vg->node, "physical_volumes", LVM_SECTION), pv->node);
    return 0;
}

/* --- tags --------------------------------------------------------------------------------------
 */

#define TAG_MOST 1024

static int check_tag(const char *tag, struct blk_error *e)
{
    size_t n = strspn(tag, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                           "_+.-/=!:&#");
    if (n > 0 && n <= TAG_MOST && tag[n] == 0 && *tag != '-')
        return 0;
    return err_set(e, -EINVAL,
                   "\"%.127s\" is no valid tag: letters, digits and _ + . - / = ! : & # (no - in "
                   "front), at most %d",
                   tag, TAG_MOST);
}

/* lamina.quota=SIZE and lamina.reserve=SIZE are what a thin volume's opener reads: of each one. */
static int check_size(const struct lvm_node *tags, const char *tag, struct blk_error *e)
{
    static const char *const keys[] = {"lamina.quota=", "lamina.reserve="};
    uint64_t bytes;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        size_t len = strlen(keys[i]);
        if (strncmp(tag, keys[i], len) != 0)
            continue;
        TRY(opts_parse_size(tag + len, &bytes, e));
        for (const struct lvm_node *n = tags ? tags->first : NULL; n; n = n->next)
            if (n->kind == LVM_STRING && strncmp(n->text, keys[i], len) == 0)
                return err_set(e, -EEXIST, "there is the tag %.60s: delete that first", n->text);
    }
    return 0;
}

int lvm_tag_add(struct lvm_vg *vg, struct lvm_node *of, const char *tag, struct blk_error *e)
{
    struct lvm_node *tags = lvm_find(of, "tags", LVM_LIST);
    TRY(check_tag(tag, e));
    if (lvm_list_has(of, "tags", tag))
        return 0;
    TRY(check_size(tags, tag, e));
    if (!tags)
        tags = lvm_add(&vg->text, of, LVM_LIST, "tags");
    return tags && lvm_list_add(&vg->text, tags, tag) == 0 ? 0
                                                           : err_set(e, -ENOMEM, "out of memory");
}

void lvm_tag_remove(struct lvm_node *of, const char *tag)
{
    struct lvm_node *tags = lvm_find(of, "tags", LVM_LIST);
    if (!tags)
        return;
    lvm_list_remove(tags, tag);
    if (!tags->first)
        lvm_remove(of, tags);
}

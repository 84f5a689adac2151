/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_meta.c - from the text to a volume group. Segments: lvm_segment.c; what must hold for all of
 * them together: lvm_check.c. */
#include "volumes/lvm_meta.h"

#include <stdlib.h>

#define SECTORS(n) ((n)*LVM_SECTOR)

static int missing_key(struct blk_error *e, const char *what, const char *name, const char *key)
{
    return err_bad(e, -EINVAL, "%s %.127s has no valid \"%s\"", what, name, key);
}

static int read_uuid(const struct lvm_node *n, char uuid[LVM_UUID + 1], const char *what,
                     struct blk_error *e)
{
    const char *text = lvm_find_text(n, "id");
    return text && lvm_uuid_parse(text, uuid) ? 0 : missing_key(e, what, n->name, "id");
}

/* Numbers of sectors are so small that bytes fit into 63 bits. */
static bool find_sectors(const struct lvm_node *n, const char *key, uint64_t *bytes)
{
    uint64_t sectors;
    if (!lvm_find_number(n, key, &sectors) || sectors > INT64_MAX / LVM_SECTOR)
        return false;
    *bytes = SECTORS(sectors);
    return true;
}

static size_t count_sections(const struct lvm_node *in)
{
    size_t n = 0;
    for (const struct lvm_node *s = in ? in->first : NULL; s; s = s->next)
        n += s->kind == LVM_SECTION;
    return n;
}

/* --- names -------------------------------------------------------------------------------------
 */

static bool is_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_.-");
    return n > 0 && n <= LVM_NAME_MOST && name[n] == 0 && *name != '-' && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static const char *reserved_part(const char *name)
{
    static const char *const fronts[] = {"pvmove", "snapshot"};
    static const char *const parts[] = {"_cdata",   "_cmeta",  "_corig", "_cpool",  "_cvol",
                                        "_wcorig",  "_mimage", "_mlog",  "_rimage", "_rmeta",
                                        "_tdata",   "_tmeta",  "_vdata", "_imeta",  "_iorig",
                                        "_pmspare", "_vorigin"};
    for (size_t i = 0; i < ARRAY_LEN(fronts); i++)
        if (strncmp(name, fronts[i], strlen(fronts[i])) == 0)
            return fronts[i];
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (strstr(name, parts[i]))
            return parts[i];
    return NULL;
}

int lvm_check_name(const char *name, bool of_lv, struct blk_error *e)
{
    const char *reserved = of_lv ? reserved_part(name) : NULL;
    if (reserved)
        return err_set(e, -EINVAL, "the name \"%.127s\" is reserved: it holds \"%s\"", name,
                       reserved);
    if (!is_name(name))
        return err_set(
            e, -EINVAL,
            "\"%.127s\" is no valid name: letters, digits and + _ . - (not in front), at "
            "most %d",
            name, LVM_NAME_MOST);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct lvm_lv *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_name(const void *name, const void *lv)
{
    return strcmp(name, (*(struct lvm_lv *const *)lv)->name);
}

struct lvm_lv *lvm_find_lv(const struct lvm_vg *vg, const char *name)
{
    struct lvm_lv **found =
        vg->lv_count ? bsearch(name, vg->by_name, vg->lv_count, sizeof(*vg->by_name), compare_name)
                     : NULL;
    return found ? *found : NULL;
}

struct lvm_pv *lvm_find_pv(const struct lvm_vg *vg, const char *uuid)
{
    for (size_t i = 0; i < vg->pv_count; i++)
        if (strcmp(vg->pvs[i].uuid, uuid) == 0)
            return &vg->pvs[i];
    return NULL;
}

/* --- the group ---------------------------------------------------------------------------------
 */

/* The first word of a list that is none of @known; NULL: all are. */
static const char *unknown_word(const struct lvm_node *n, const char *list,
                                const char *const *known)
{
    const struct lvm_node *words = lvm_find(n, list, LVM_LIST);
    for (const struct lvm_node *w = words ? words->first : NULL; w; w = w->next) {
        size_t i = 0;
        while (known[i] && (w->kind != LVM_STRING || strcmp(known[i], w->text) != 0))
            i++;
        if (!known[i])
            return w->kind == LVM_STRING ? w->text : "a number";
    }
    return NULL;
}

/* Why a group may only be read here. */
static const char *find_foreign(const struct lvm_vg *vg)
{
    const char *system = lvm_find_text(vg->node, "system_id");
    const char *lock = lvm_find_text(vg->node, "lock_type");
    if (system && *system)
        return "it belongs to the host that its system_id names";
    if ((lock && *lock && strcmp(lock, "none") != 0) ||
        lvm_list_has(vg->node, "status", "CLUSTERED") || lvm_list_has(vg->node, "status", "SHARED"))
        return "it is shared between hosts under locks";
    if (lvm_list_has(vg->node, "status", "PVMOVE"))
        return "a part of it is being moved to another physical volume";
    return vg->exported ? "it is exported" : vg->writable ? NULL : "it is read-only";
}

static int read_group(struct lvm_vg *vg, struct blk_error *e)
{
    static const char *const known[] = {"RESIZEABLE", "READ",   "WRITE",   "EXPORTED",     "PVMOVE",
                                        "CLUSTERED",  "SHARED", "PARTIAL", "WRITE_LOCKED", NULL};
    const struct lvm_node *n = vg->node;
    vg->name = n->name;
    TRY(lvm_check_name(n->name, false, e));
    TRY(read_uuid(n, vg->uuid, "the group", e));
    if (!lvm_find_number(n, "seqno", &vg->seqno))
        return missing_key(e, "the group", n->name, "seqno");
    if (!find_sectors(n, "extent_size", &vg->extent_bytes) || vg->extent_bytes == 0)
        return missing_key(e, "the group", n->name, "extent_size");
    const char *unknown = unknown_word(n, "status", known);
    if (unknown || !lvm_find(n, "status", LVM_LIST))
        return err_set(e, -ENOTSUP, "the group %.127s has the unknown status \"%.60s\"", n->name,
                       unknown ? unknown : "");
    vg->writable = lvm_list_has(n, "status", "WRITE");
    vg->exported = lvm_list_has(n, "status", "EXPORTED");
    vg->resizeable = lvm_list_has(n, "status", "RESIZEABLE");
    vg->foreign = find_foreign(vg);
    return 0;
}

static int read_pv(struct lvm_vg *vg, struct lvm_node *n, struct lvm_pv *pv, struct blk_error *e)
{
    uint64_t bytes, end;
    *pv = (struct lvm_pv){.name = n->name, .node = n};
    TRY(read_uuid(n, pv->uuid, "the physical volume", e));
    if (!find_sectors(n, "pe_start", &pv->start))
        return missing_key(e, "the physical volume", n->name, "pe_start");
    if (!lvm_find_number(n, "pe_count", &pv->extents) ||
        !mul_u64(pv->extents, vg->extent_bytes, &bytes) || !add_u64(pv->start, bytes, &end) ||
        end > INT64_MAX)
        return missing_key(e, "the physical volume", n->name, "pe_count");
    (void)find_sectors(n, "dev_size", &pv->device_bytes);
    pv->missing = lvm_list_has(n, "flags", "MISSING") || lvm_list_has(n, "status", "MISSING");
    return 0;
}

static int read_pvs(struct lvm_vg *vg, struct blk_error *e)
{
    const struct lvm_node *in = lvm_find(vg->node, "physical_volumes", LVM_SECTION);
    size_t count = count_sections(in);
    vg->pvs = mem_array(MAX(count, 1), sizeof(*vg->pvs));
    if (!vg->pvs)
        return err_set(e, -ENOMEM, "out of memory");
    if (count > LVM_PVS_MOST)
        return err_bad(e, -EFBIG, "the group has more than %d physical volumes", LVM_PVS_MOST);
    for (struct lvm_node *n = in ? in->first : NULL; n; n = n->next)
        if (n->kind == LVM_SECTION)
            TRY(read_pv(vg, n, &vg->pvs[vg->pv_count++], e));
    return 0;
}

/* --- logical volumes ---------------------------------------------------------------------------
 */

static int read_lv(struct lvm_node *n, struct lvm_lv *lv, struct blk_error *e)
{
    static const char *const status[] = {"READ",        "WRITE",        "VISIBLE",   "FIXED_MINOR",
                                         "PVMOVE",      "LOCKED",       "NOTSYNCED", "REBUILD",
                                         "WRITEMOSTLY", "WRITE_LOCKED", NULL};
    *lv = (struct lvm_lv){.name = n->name, .node = n};
    if (!is_name(n->name))
        return lvm_check_name(n->name, false, e);
    TRY(read_uuid(n, lv->uuid, "the logical volume", e));
    if (!lvm_find(n, "status", LVM_LIST))
        return missing_key(e, "the logical volume", n->name, "status");
    lv->strange = unknown_word(n, "status", status);
    lv->visible = lvm_list_has(n, "status", "VISIBLE");
    lv->writable = lvm_list_has(n, "status", "WRITE");
    return 0;
}

static int read_lvs(struct lvm_vg *vg, struct blk_error *e)
{
    const struct lvm_node *in = lvm_find(vg->node, "logical_volumes", LVM_SECTION);
    size_t count = count_sections(in);
    vg->lvs = mem_array(MAX(count, 1), sizeof(*vg->lvs));
    vg->by_name = mem_array(MAX(count, 1), sizeof(struct lvm_lv *));
    if (!vg->lvs || !vg->by_name)
        return err_set(e, -ENOMEM, "out of memory");
    for (struct lvm_node *n = in ? in->first : NULL; n; n = n->next) {
        if (n->kind != LVM_SECTION)
            continue;
        TRY(read_lv(n, &vg->lvs[vg->lv_count], e));
        vg->by_name[vg->lv_count] = &vg->lvs[vg->lv_count];
        vg->lv_count++;
    }
    qsort(vg->by_name, vg->lv_count, sizeof(*vg->by_name), compare_names);
    for (size_t i = 1; i < vg->lv_count; i++)
        if (strcmp(vg->by_name[i - 1]->name, vg->by_name[i]->name) == 0)
            return err_bad(e, -EINVAL, "two logical volumes are called %.127s",
                           vg->by_name[i]->name);
    return 0;
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static int read_all(struct lvm_vg *vg, struct blk_error *e)
{
    uint64_t version = 0;
    const struct lvm_node *root = &vg->text.root;
    const char *contents = lvm_find_text(root, "contents");
    for (struct lvm_node *n = root->first; n && !vg->node; n = n->next)
        vg->node = n->kind == LVM_SECTION ? n : NULL;
    if (!contents || strcmp(contents, "Text Format Volume Group") != 0 || !vg->node ||
        !lvm_find_number(root, "version", &version) || version != 1)
        return err_bad(e, -EINVAL, "the metadata is not a volume group's text of version 1");
    TRY(read_group(vg, e));
    TRY(read_pvs(vg, e));
    TRY(read_lvs(vg, e));
    for (size_t i = 0; i < vg->lv_count; i++)
        TRY(lvm_segments_read(vg, &vg->lvs[i], e));
    return lvm_segments_check(vg, e);
}

int lvm_vg_read(struct lvm_text *text, struct lvm_vg **out, struct blk_error *e)
{
    struct lvm_vg *vg = mem_zalloc(sizeof(*vg));
    if (!vg) {
        lvm_text_drop(text);
        return err_set(e, -ENOMEM, "out of memory");
    }
    vg->text = *text; /* nobody points at the root */
    *text = (struct lvm_text){0};
    int rc = read_all(vg, e);
    if (rc < 0)
        lvm_vg_drop(vg);
    else
        *out = vg;
    return rc;
}

void lvm_vg_drop(struct lvm_vg *vg)
{
    if (!vg)
        return;
    for (size_t i = 0; i < vg->lv_count; i++) {
        for (unsigned s = 0; s < vg->lvs[i].segment_count; s++)
            mem_free(vg->lvs[i].segments[s].areas);
        mem_free(vg->lvs[i].segments);
    }
    mem_free(vg->lvs);
    mem_free(vg->by_name);
    mem_free(vg->pvs);
    lvm_text_drop(&vg->text);
    mem_free(vg);
}

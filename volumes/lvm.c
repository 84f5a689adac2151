/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm.c - the driver: volume groups over their physical volumes, whose inner devices are the
 * logical volumes, VG/LV.
 *
 * VG/LV@SNAP is the snapshot of LV that is called SNAP, or else LV.SNAP. Volumes that LVM2 hides
 * (images, metadata) can be named as well, and read. */
#include <stdio.h>

#include "block/resolver.h"
#include "volumes/lvm_thin.h"

/* --- names -------------------------------------------------------------------------------------
 */

/* The volume called @name whose origin is @origin; NULL: it is none. */
static struct lvm_lv *snapshot_called(const struct lvm_vg *vg, const char *name,
                                      const struct lvm_lv *origin)
{
    struct lvm_lv *lv = lvm_find_lv(vg, name);
    if (!lv)
        return NULL;
    const struct lvm_segment *s = lv->snapshot ? lv->snapshot : &lv->segments[0];
    return s->origin == origin ? lv : NULL;
}

/* What there is instead, into the error; @vg NULL: of all groups. */
static int there_is(const struct lvm_set *s, const struct lvm_vg *vg, int rc, struct blk_error *e)
{
    char list[200] = "";
    size_t at = 0;
    for (size_t i = 0; i < s->vg_count; i++) {
        const struct lvm_vg *g = s->vgs[i];
        for (size_t k = 0; k < g->lv_count && (!vg || g == vg); k++)
            if (g->by_name[k]->visible && at < sizeof(list) - 1)
                at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%.60s/%.60s",
                                       at ? ", " : "", g->name, g->by_name[k]->name);
    }
    if (at >= sizeof(list))
        snprintf(list + sizeof(list) - 4, 4, "...");
    err_next(e, "%s%s", at ? "there are " : "it holds no volumes yet: `lamina lv create` makes one",
             list);
    return rc;
}

static int find_snapshot(const struct lvm_vg *vg, const char *lv_name, const char *snap,
                         struct lvm_lv **out, struct blk_error *e)
{
    const struct lvm_lv *origin = lvm_find_lv(vg, lv_name);
    if (!origin)
        return err_set(e, -ENOENT, "the group %s has no volume \"%.127s\"", vg->name, lv_name);
    *out = snapshot_called(vg, snap, origin);
    auto_free char *dotted = mem_printf("%s.%s", lv_name, snap);
    if (!dotted)
        return err_set(e, -ENOMEM, "out of memory");
    if (!*out)
        *out = snapshot_called(vg, dotted, origin);
    return *out ? 0
                : err_set(e, -ENOENT, "%s/%s has no snapshot \"%.127s\"", vg->name, lv_name, snap);
}

/* VG/LV or VG/LV@SNAP. */
static int find_volume(const struct lvm_set *s, const char *name, struct lvm_opening *o)
{
    auto_free char *copy = mem_strdup(name);
    if (!copy)
        return err_set(o->e, -ENOMEM, "out of memory");
    char *lv = strchr(copy, '/'), *at = lv ? strchr(lv, '@') : NULL;
    if (!lv)
        return there_is(
            s, NULL, err_set(o->e, -EINVAL, "\"%.200s\" names no volume: VG/LV is expected", name),
            o->e);
    *lv++ = 0;
    o->vg = lvm_set_find(s, copy);
    if (!o->vg)
        return there_is(s, NULL,
                        err_set(o->e, -ENOENT, "there is no volume group \"%.127s\"", copy), o->e);
    if (at) {
        *at++ = 0;
        return find_snapshot(o->vg, lv, at, &o->lv, o->e);
    }
    o->lv = lvm_find_lv(o->vg, lv);
    return o->lv
               ? 0
               : there_is(s, o->vg,
                          err_set(o->e, -ENOENT, "the group %s has no volume \"%.127s\"", copy, lv),
                          o->e);
}

/* --- opening a volume --------------------------------------------------------------------------
 */

/* Its text alone: what ties a snapshot to its origin. */
static int co_refuse_tie(const struct lvm_opening *o)
{
    return err_set(o->e, -EINVAL, "%s/%s ties a snapshot to its origin: name the snapshot, %s/%s",
                   o->vg->name, o->lv->name, o->vg->name, o->lv->segments[0].store->name);
}

static int co_refuse_type(const struct lvm_opening *o)
{
    const struct lvm_segment *s = &o->lv->segments[0];
    return err_set(o->e, -ENOTSUP, "%s/%s is of type %.60s, which is not read here: %s",
                   o->vg->name, o->lv->name, s->type_name, s->type->advice);
}

static int co_refuse_pool(const struct lvm_opening *o)
{
    return err_set(o->e, -EINVAL, "%s/%s is a thin pool: name a volume in it", o->vg->name,
                   o->lv->name);
}

static int co_refuse_error(const struct lvm_opening *o)
{
    return err_set(o->e, -EIO, "a part of %s/%s is of type error: it can never be read",
                   o->vg->name, o->lv->name);
}

static int (*const openers[])(const struct lvm_opening *o) = {
    [LVM_STRIPED] = co_lvm_mapped_open, [LVM_ZERO] = co_lvm_mapped_open,
    [LVM_ERROR] = co_refuse_error,      [LVM_MIRROR] = co_lvm_mapped_open,
    [LVM_RAID] = co_lvm_raid_open,      [LVM_POOL] = co_refuse_pool,
    [LVM_THIN] = co_lvm_thin_open,      [LVM_SNAPSHOT] = co_refuse_tie,
    [LVM_OTHER] = co_refuse_type,
};

/* True if segments of both types may stand in one volume. */
static bool go_together(enum lvm_what a, enum lvm_what b)
{
    return a == b || openers[a] == openers[b];
}

static int co_open_lv(const struct lvm_opening *o)
{
    const struct lvm_lv *lv = o->lv;
    if (lv->strange)
        return err_set(o->e, -ENOTSUP, "%s/%s has the status \"%.60s\", which is not understood",
                       o->vg->name, lv->name, lv->strange);
    for (unsigned i = 1; i < lv->segment_count; i++)
        if (!go_together(lv->segments[0].type->what, lv->segments[i].type->what))
            return err_set(o->e, -ENOTSUP, "%s/%s consists of %.60s and %.60s", o->vg->name,
                           lv->name, lv->segments[0].type_name, lv->segments[i].type_name);
    return openers[lv->segments[0].type->what](o);
}

/* Why nobody may write to it; NULL: one may. */
static const char *why_fixed(const struct lvm_opening *o)
{
    if (o->vg->foreign)
        return o->vg->foreign;
    if (!o->lv->writable)
        return "it is read-only";
    if (o->lv->snapshot)
        return "snapshots that copy on write are read only here";
    if (o->lv->has_snapshots)
        return "it has snapshots that copy on write, which are not kept up here";
    if (!o->lv->visible)
        return "it is a part of another volume";
    return lvm_part_fixed(o->lv);
}

static int check_weight(const struct lvm_opening *o)
{
    if (o->lv->weight <= LVM_WEIGHT_MOST)
        return 0;
    return err_set(o->e, -EMLINK, "%s/%s stands on more than %d volumes", o->vg->name, o->lv->name,
                   LVM_WEIGHT_MOST);
}

static int co_open_top(struct lvm_opening *o)
{
    TRY(check_weight(o));
    o->fixed = why_fixed(o);
    if (o->dev->open_flags & BLK_OPEN_WRITE && o->fixed)
        return err_set(o->e, -EROFS, "%s/%s cannot be written to: %s", o->vg->name, o->lv->name,
                       o->fixed);
    if (o->lv->merged_into)
        return err_set(o->e, -EBUSY, "a snapshot is being merged into %s/%s: let Linux finish that",
                       o->vg->name, o->lv->name);
    return o->lv->snapshot ? co_lvm_snapshot_open(o) : co_open_lv(o);
}

/* Also for volumes below, which are opened while the lock is held. */
static int co_lvm_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                             struct blk_error *e)
{
    struct lvm_set *s = container->state;
    struct lvm_opening o = {.set = s, .dev = dev, .e = e};
    TRY(find_volume(s, name, &o));
    if (s->opening.holder == co_self())
        return co_open_lv(&o);
    with_lock(&s->opening);
    return co_open_top(&o);
}

/* A thin pool: `//7` behind it is a device in it, whatever the text calls that. To be read only:
 * the text and the pool count their changes together. */
static int co_lvm_inner_container(struct blk_device *container, const char *name,
                                  struct blk_device **out, struct blk_error *e)
{
    struct lvm_set *s = container->state;
    struct blk_error none = {0};
    struct lvm_opening o = {.set = s, .dev = container, .e = &none};
    if (find_volume(s, name, &o) < 0 || o.lv->segments[0].type->what != LVM_POOL ||
        s->opening.holder == co_self())
        return -ENOENT;
    o.e = e;
    if (container->open_flags & BLK_OPEN_WRITE)
        return co_refuse_pool(&o);
    TRY(check_weight(&o));
    with_lock(&s->opening);
    TRY(co_lvm_pool_find(&o, o.lv, out));
    (void)blk_ref(*out);
    return 0;
}

int co_lvm_keep_child(const struct lvm_opening *o, struct blk_device *child)
{
    int rc = blk_add_child(o->dev, "member", child);
    if (rc == 0)
        return 0;
    co_blk_close(child, NULL);
    return err_set(o->e, rc, "out of memory");
}

int co_lvm_open_below(const struct lvm_opening *o, const struct lvm_lv *lv, struct blk_device **out)
{
    assert_held(&o->set->opening);
    auto_free char *name = mem_printf("%s/%s", o->vg->name, lv->name);
    if (!name)
        return err_set(o->e, -ENOMEM, "out of memory");
    return co_blk_inner_open(o->set->dev, name, out, o->e);
}

int co_lvm_open_planned(struct lvm_set *s, struct lvm_vg *vg, const char *name,
                        struct blk_device **out, struct blk_error *e)
{
    with_lock(&s->opening);
    size_t i = 0;
    while (i < s->vg_count && strcmp(s->vgs[i]->uuid, vg->uuid) != 0)
        i++;
    assert(i < s->vg_count);
    struct lvm_vg *kept = s->vgs[i];
    struct lvm_opening o = {.set = s, .vg = vg, .lv = lvm_find_lv(vg, name), .e = e};
    if (!o.lv)
        return err_set(e, -ENOENT, "the group %s has no volume %s", vg->name, name);
    TRY(check_weight(&o));
    s->vgs[i] = vg;
    int rc = co_lvm_open_below(&o, o.lv, out);
    s->vgs[i] = kept;
    return rc;
}

int co_lvm_child_below(const struct lvm_opening *o, const struct lvm_lv *lv,
                       struct blk_device **out)
{
    TRY(co_lvm_open_below(o, lv, out));
    return co_lvm_keep_child(o, *out);
}

/* --- the list ----------------------------------------------------------------------------------
 */

/* What people see: not the volume that only ties a snapshot to its origin, but the snapshot. */
static bool is_shown(const struct lvm_lv *lv)
{
    return (lv->visible || lv->snapshot) && lv->segments[0].type->what != LVM_SNAPSHOT;
}

static const char *kind_of(const struct lvm_lv *lv)
{
    const struct lvm_segment *s = &lv->segments[0];
    if (s->type->what == LVM_POOL)
        return "pool";
    return lv->snapshot || (s->type->what == LVM_THIN && s->origin) ? "snapshot" : "volume";
}

static int list_one(const struct lvm_vg *vg, const struct lvm_lv *lv, struct blk_inner *out)
{
    const struct lvm_lv *shown = lv->snapshot ? lv->snapshot->origin : lv;
    *out = (struct blk_inner){.name = mem_printf("%s/%s", vg->name, lv->name),
                              .kind = mem_strdup(kind_of(lv)),
                              .bytes = lvm_lv_bytes(vg, shown)};
    return out->name && out->kind ? 0 : -ENOMEM;
}

static int co_lvm_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                             struct blk_error *e)
{
    const struct lvm_set *s = dev->state;
    size_t room = 1, n = 0;
    int rc = 0;
    for (size_t g = 0; g < s->vg_count; g++)
        room += s->vgs[g]->lv_count;
    struct blk_inner *list = mem_array(room, sizeof(*list));
    for (size_t g = 0; list && g < s->vg_count; g++)
        for (size_t i = 0; rc == 0 && i < s->vgs[g]->lv_count; i++)
            if (is_shown(&s->vgs[g]->lvs[i]))
                rc = list_one(s->vgs[g], &s->vgs[g]->lvs[i], &list[n++]);
    if (!list || rc < 0) {
        blk_inner_drop(list, n);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *out = list;
    *count = n;
    return 0;
}

/* --- facts -------------------------------------------------------------------------------------
 */

static json_t *tags_of(const struct lvm_node *of)
{
    const struct lvm_node *tags = lvm_find(of, "tags", LVM_LIST);
    json_t *list = json_array();
    for (const struct lvm_node *n = tags ? tags->first : NULL; n; n = n->next)
        if (n->kind == LVM_STRING)
            json_array_append_new(list, json_from_text(n->text));
    return list;
}

static json_t *lv_facts(const struct lvm_vg *vg, const struct lvm_lv *lv)
{
    char uuid[LVM_UUID_TEXT];
    lvm_uuid_text(lv->uuid, uuid);
    return json_pack("{s:s, s:s, s:s, s:I, s:o}", "name", lv->name, "uuid", uuid, "type",
                     lv->snapshot ? "snapshot" : lv->segments[0].type_name, "size",
                     (json_int_t)lvm_lv_bytes(vg, lv->snapshot ? lv->snapshot->origin : lv), "tags",
                     tags_of(lv->node));
}

static json_t *pv_facts(const struct lvm_pv *pv)
{
    char uuid[LVM_UUID_TEXT];
    lvm_uuid_text(pv->uuid, uuid);
    return json_pack("{s:s, s:o, s:b, s:o}", "uuid", uuid, "device",
                     pv->dev ? json_from_text(pv->dev->name) : json_null(), "missing", !pv->dev,
                     "tags", tags_of(pv->node));
}

static json_t *vg_facts(const struct lvm_vg *vg)
{
    char uuid[LVM_UUID_TEXT];
    json_t *pvs = json_array(), *lvs = json_array();
    lvm_uuid_text(vg->uuid, uuid);
    for (size_t i = 0; i < vg->pv_count; i++)
        json_array_append_new(pvs, pv_facts(&vg->pvs[i]));
    for (size_t i = 0; i < vg->lv_count; i++)
        if (is_shown(&vg->lvs[i]))
            json_array_append_new(lvs, lv_facts(vg, &vg->lvs[i]));
    return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "name", vg->name, "uuid", uuid, "seqno",
                     (json_int_t)vg->seqno, "extent-size", (json_int_t)vg->extent_bytes, "tags",
                     tags_of(vg->node), "physical-volumes", pvs, "logical-volumes", lvs);
}

static int co_lvm_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct lvm_set *s = dev->state;
    json_t *groups = json_array();
    for (size_t i = 0; groups && i < s->vg_count; i++)
        json_array_append_new(groups, vg_facts(s->vgs[i]));
    out->specific = groups ? json_pack("{s:o}", "volume-groups", groups) : NULL;
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- the container -----------------------------------------------------------------------------
 */

static const struct opt_desc lvm_options[] = {
    {.name = "members", .type = OPT_CHILDREN, .help = "the physical volumes, in any order"},
    {.name = "file", .type = OPT_CHILD, .help = "or the only one"},
    {.name = "force", .type = OPT_BOOL, .help = "read arrays where single blocks may be wrong"},
    {0},
};

static int co_children(struct blk_device *dev, struct blk_opener *opener, struct blk_error *e)
{
    struct blk_device *file;
    if (dev->child_count > 0)
        return 0;
    if (opener && opener_has(opener, "members"))
        return co_opener_children(opener, dev, "members", "member", dev->open_flags, e);
    return co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e);
}

static int co_lvm_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    TRY(co_children(dev, opener, e));
    struct lvm_set *s = mem_zalloc(sizeof(*s));
    if (!s)
        return err_set(e, -ENOMEM, "out of memory");
    s->dev = dev;
    s->force = opts_bool(opts, "force");
    int rc = co_lvm_set_read(s, e);
    if (rc < 0) {
        lvm_set_drop(s);
        return rc;
    }
    dev->state = s;
    return 0;
}

static int co_lvm_close(struct blk_device *dev, struct blk_error *e)
{
    struct lvm_set *s = dev->state;
    int rc = co_lvm_opened_close(s, e);
    lvm_set_drop(s);
    return rc;
}

static int co_lvm_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return -EINVAL; /* it has no bytes of its own */
}

static int lvm_probe(const struct blk_probe *p, const char **reason)
{
    struct lvm_label label;
    struct blk_error e;
    *reason = "a label of LVM2";
    return lvm_label_find(p->head, p->head_bytes, &label, &e) == 0 ? 90 : 0;
}

struct lvm_set *lvm_set_of(struct blk_device *dev)
{
    return dev->driver == &lvm_driver ? dev->state : NULL;
}

const struct blk_driver lvm_driver = {
    .name = "lvm",
    .title = "volume groups of LVM2",
    .mend = "name all physical volumes of its group (lvm:PV,PV,...), each keeps the same text; "
            "where none is whole, vgcfgrestore writes it back from /etc/lvm/backup of the machine "
            "that used it",
    .only_inner = true,
    .open_options = lvm_options,
    .probe = lvm_probe,
    .co_open = co_lvm_open,
    .co_close = co_lvm_close,
    .co_member_of = co_lvm_member_of,
    .co_inner_list = co_lvm_inner_list,
    .co_inner_open = co_lvm_inner_open,
    .co_inner_container = co_lvm_inner_container,
    .co_read = co_lvm_read,
    .co_info = co_lvm_info,
};

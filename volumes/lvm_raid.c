/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_raid.c - RAID volumes: the driver md over the images.
 *
 * Linux' dm-raid keeps a superblock and a bitmap at the begin of each image's metadata volume. Both
 * volumes of an image, one behind the other, are what md has as a member with its superblock in
 * front (`superblocks=dm-raid`). Level 0 needs none, and an array that Linux never started has none
 * yet: their members are the images alone.
 *
 * An array is opened once for all that stands on it: two that write would not know of each other's
 * parity. */
#include "volumes/lvm.h"

#define DM_RAID_MAGIC 0x64526d44u /* DmRd */

struct image {
    struct blk_device *meta, *data; /* NULL: it is not here */
};

struct raid_open {
    const struct lvm_opening *o;
    const struct lvm_segment *seg;
    struct image *images;
    struct blk_child *children; /* for md, which takes them */
    bool supers;                /* dm-raid has started it */
    uint64_t meta_bytes;
};

static bool is_redundant(const struct raid_open *r)
{
    return strcmp(r->seg->type->level, "0") != 0;
}

/* --- images ------------------------------------------------------------------------------------
 */

/* True if an error means that a part is not here, which redundancy makes up for. */
static bool is_absence(int rc)
{
    return rc == -ENODEV || rc == -EIO;
}

/* *out: NULL: it is not here. */
static int co_open_part(const struct raid_open *r, const struct lvm_lv *lv, struct blk_device **out)
{
    int rc = co_lvm_open_below(r->o, lv, out);
    if (rc < 0)
        *out = NULL;
    if (rc < 0 && is_redundant(r) && is_absence(rc)) {
        *r->o->e = (struct blk_error){0};
        return 0;
    }
    return rc;
}

static int co_look_for_super(struct raid_open *r, struct blk_device *meta)
{
    le32 magic;
    if (meta->size < sizeof(magic))
        return 0;
    int rc = co_blk_read_buf(meta, 0, &magic, sizeof(magic));
    if (rc < 0 && !is_absence(rc))
        return err_errno(r->o->e, rc, "cannot read the state of %s", r->o->lv->name);
    r->supers |= rc == 0 && le32_get(magic) == DM_RAID_MAGIC;
    if (r->meta_bytes && r->meta_bytes != meta->size)
        return err_bad(r->o->e, -EINVAL, "the metadata of %s differ in size", r->o->lv->name);
    r->meta_bytes = meta->size;
    return 0;
}

static int co_open_images(struct raid_open *r)
{
    for (unsigned i = 0; i < r->seg->area_count; i++) {
        struct image *m = &r->images[i];
        TRY(co_open_part(r, r->seg->areas[i].lv, &m->data));
        if (!r->seg->metas || !is_redundant(r))
            continue;
        TRY(co_open_part(r, r->seg->metas[i].lv, &m->meta));
        if (m->meta)
            TRY(co_look_for_super(r, m->meta));
    }
    return 0;
}

static int judge(const struct raid_open *r)
{
    if (r->seg->reshaping)
        return err_set(r->o->e, -EBUSY, "%s is being reshaped: let Linux finish that",
                       r->o->lv->name);
    if (r->supers || !is_redundant(r) || !(r->o->dev->open_flags & BLK_OPEN_WRITE))
        return 0;
    return err_set(r->o->e, -EROFS, "%s cannot be written to: Linux has not started it yet",
                   r->o->lv->name);
}

/* --- the array ---------------------------------------------------------------------------------
 */

/* What md has for image @i: both parts, the image alone, or the null device for `missing`. */
static int co_make_member(const struct raid_open *r, unsigned i, struct blk_device **out)
{
    struct image *m = &r->images[i];
    unsigned flags = r->o->dev->open_flags;
    if (!m->data || (r->supers && !m->meta))
        return co_blk_open(&null_driver, "missing", NULL, flags, NULL, NULL, 0, out, r->o->e);
    if (!r->supers) {
        *out = take(m->data);
        return 0;
    }
    const char *name = r->seg->areas[i].lv->name;
    struct blk_child parts[] = {{"child", take(m->meta)}, {"child", take(m->data)}};
    return co_blk_open(&concat_driver, name, NULL, flags, NULL, parts, 2, out, r->o->e);
}

static json_t *md_options(const struct raid_open *r)
{
    const struct lvm_segment *s = r->seg;
    json_t *tree = json_pack("{s:s, s:b}", "level", s->type->level, "force", r->o->set->force);
    int rc = tree ? 0 : -1;
    if (rc == 0 && s->type->layout)
        rc = json_object_set_new(tree, "layout", json_string(s->type->layout));
    if (rc == 0 && strcmp(s->type->level, "10") == 0)
        rc = json_object_set_new(tree, "layout", json_sprintf("n%u", s->copies));
    if (rc == 0 && s->stripe_bytes)
        rc = json_object_set_new(tree, "chunk", json_integer((json_int_t)s->stripe_bytes));
    if (rc == 0 && r->supers)
        rc = json_object_set_new(tree, "superblocks", json_string("dm-raid"));
    if (rc == 0 && r->supers)
        rc = json_object_set_new(tree, "data-offset", json_integer((json_int_t)r->meta_bytes));
    if (rc == 0)
        return tree;
    json_decref(tree);
    return NULL;
}

static int co_open_md(const struct raid_open *r, struct blk_device **out)
{
    const struct lvm_opening *o = r->o;
    const struct blk_driver *md = blk_find_driver(blk_drivers, "md");
    json_auto_t *tree = md_options(r);
    if (!md || !tree)
        return err_set(o->e, -ENOTSUP, "this build has no driver \"md\"");
    unsigned count = r->seg->area_count, made = 0;
    int rc = 0;
    for (; rc == 0 && made < count; made += rc == 0) {
        r->children[made] = (struct blk_child){"member", NULL};
        rc = co_make_member(r, made, &r->children[made].dev);
    }
    if (rc == 0)
        return co_blk_open(md, o->lv->name, tree, o->dev->open_flags, NULL, r->children, count, out,
                           o->e);
    while (made-- > 0)
        co_blk_close(r->children[made].dev, NULL);
    return rc;
}

static int co_open_array(const struct lvm_opening *o, struct blk_device **out)
{
    struct raid_open r = {.o = o, .seg = &o->lv->segments[0]};
    unsigned count = r.seg->area_count;
    auto_free struct image *images = mem_array(count, sizeof(*images));
    auto_free struct blk_child *children = mem_array(count, sizeof(*children));
    if (!images || !children)
        return err_set(o->e, -ENOMEM, "out of memory");
    r.images = images;
    r.children = children;
    int rc = co_open_images(&r);
    if (rc == 0)
        rc = judge(&r);
    if (rc == 0)
        rc = co_open_md(&r, out);
    for (unsigned i = 0; i < count; i++) {
        co_blk_close(images[i].meta, NULL);
        co_blk_close(images[i].data, NULL);
    }
    return rc;
}

int co_lvm_raid_open(const struct lvm_opening *o)
{
    const struct lvm_opened *open = lvm_opened_find(o->set, o->lv);
    struct blk_device *md = open ? open->dev : NULL;
    if (o->lv->segment_count > 1)
        return err_set(o->e, -ENOTSUP, "%s consists of several arrays", o->lv->name);
    if (!open) {
        TRY(co_open_array(o, &md));
        TRY(co_lvm_opened_add(o, &(struct lvm_opened){.lv = o->lv, .dev = md}));
    }
    if (md->size < lvm_lv_bytes(o->vg, o->lv))
        return err_set(o->e, -EINVAL, "the images of %s hold %" PRIu64 " bytes, not %" PRIu64,
                       o->lv->name, md->size, lvm_lv_bytes(o->vg, o->lv));
    TRY(co_lvm_keep_child(o, blk_ref(md)));
    return co_lvm_show(o, md);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_raid.c - RAID volumes: the driver md over the images, without superblocks of md's.
 *
 * Linux' dm-raid keeps its own superblock at the begin of each image's metadata volume: who failed,
 * who is being rebuilt, whether parity agrees. Here they only decide which images take part; what
 * is written to a level with redundancy would have to be noted there, so those are read only. */
#include "volumes/lvm.h"

#define DM_RAID_MAGIC    0x64526d44u /* DmRd */
#define DM_RAID_EXTENDED 1           /* compat: the fields from @flags on are valid */
#define DM_RAID_RESHAPE  1           /* flags: it is being reshaped */

struct dm_raid_disk {
    le32 magic;
    le32 compat;
    le32 devices;
    le32 position; /* of this image */
    le64 events;
    le64 failed;          /* images, a bit each */
    le64 recovery_offset; /* sectors of this image that are right; all ones: all */
    le64 resync_offset;   /* sectors of the array whose copies agree; all ones: all */
    le32 level, layout, stripe_sectors;
    le32 flags;
    le64 reshape_position;
    uint8_t reshape[48];
    le64 failed_more[3]; /* images from 64 on */
};
_Static_assert(offsetof(struct dm_raid_disk, failed_more) == 120, "what dm-raid has there");

struct image {
    struct blk_device *dev; /* NULL: it is not here */
    bool known;             /* it has a superblock */
    struct dm_raid_disk super;
};

struct raid_open {
    const struct lvm_opening *o;
    const struct lvm_segment *seg;
    struct image *images;
    struct blk_child *children; /* for md, which takes them */
    const struct dm_raid_disk *freshest;
};

/* --- what the superblocks say ------------------------------------------------------------------
 */

/* True if an error means that a part is not here, which redundancy makes up for. */
static bool is_absence(int rc)
{
    return rc == -ENODEV || rc == -EIO;
}

static int co_read_super(const struct raid_open *r, unsigned i)
{
    struct blk_device *meta = NULL;
    struct image *m = &r->images[i];
    int rc = co_lvm_open_below(r->o, r->seg->metas[i].lv, &meta);
    if (rc == 0 && meta->size >= sizeof(m->super))
        rc = co_blk_read_buf(meta, 0, &m->super, sizeof(m->super));
    co_blk_close(meta, NULL);
    m->known = rc == 0 && le32_get(m->super.magic) == DM_RAID_MAGIC;
    if (m->known &&
        (le32_get(m->super.position) != i || le32_get(m->super.devices) != r->seg->area_count))
        return err_set(r->o->e, -EINVAL, "image %u of %s says that it is image %u of %u", i,
                       r->o->lv->name, le32_get(m->super.position), le32_get(m->super.devices));
    if (rc == 0 || is_absence(rc))
        return 0;
    return r->o->e->rc ? rc : err_errno(r->o->e, rc, "cannot read the state of %s", r->o->lv->name);
}

static void find_freshest(struct raid_open *r)
{
    for (unsigned i = 0; i < r->seg->area_count; i++) {
        const struct image *m = &r->images[i];
        if (m->known && (!r->freshest || le64_get(m->super.events) > le64_get(r->freshest->events)))
            r->freshest = &m->super;
    }
}

static bool has_failed(const struct dm_raid_disk *s, unsigned image)
{
    if (image < 64)
        return le64_get(s->failed) >> image & 1;
    if (!(le32_get(s->compat) & DM_RAID_EXTENDED) || image >= 256)
        return false;
    return le64_get(s->failed_more[image / 64 - 1]) >> image % 64 & 1;
}

/* An array that was never started has no superblocks: then all images are as good. */
static bool takes_part(const struct raid_open *r, unsigned i)
{
    const struct image *m = &r->images[i];
    if (!m->dev || !r->freshest)
        return m->dev;
    return m->known && !has_failed(r->freshest, i) &&
           le64_get(m->super.recovery_offset) == UINT64_MAX;
}

static bool is_dirty(const struct raid_open *r)
{
    return r->freshest && le64_get(r->freshest->resync_offset) != UINT64_MAX;
}

static int co_judge(const struct raid_open *r)
{
    unsigned out = 0;
    if (r->seg->reshaping || (r->freshest && le32_get(r->freshest->compat) & DM_RAID_EXTENDED &&
                              le32_get(r->freshest->flags) & DM_RAID_RESHAPE))
        return err_set(r->o->e, -EBUSY, "%s is being reshaped: let Linux finish that",
                       r->o->lv->name);
    for (unsigned i = 0; i < r->seg->area_count; i++)
        out += !takes_part(r, i);
    if (r->seg->type->parities && out && is_dirty(r) && !r->o->set->force)
        return err_set(r->o->e, -EUCLEAN,
                       "%s was being written to when it went down, and %u of its images are "
                       "missing: with force=on it is read, and single blocks may be wrong",
                       r->o->lv->name, out);
    return 0;
}

/* --- the array ---------------------------------------------------------------------------------
 */

static int co_open_images(struct raid_open *r)
{
    for (unsigned i = 0; i < r->seg->area_count; i++) {
        int rc = co_lvm_open_below(r->o, r->seg->areas[i].lv, &r->images[i].dev);
        if (rc < 0 && (!is_absence(rc) || strcmp(r->seg->type->level, "0") == 0))
            return rc;
        if (r->seg->metas)
            TRY(co_read_super(r, i));
    }
    *r->o->e = (struct blk_error){0};
    find_freshest(r);
    return co_judge(r);
}

/* The word that md has for a member that is not there: the null device. */
static int co_missing(const struct raid_open *r, struct blk_device **out)
{
    return co_blk_open(&null_driver, "missing", NULL, r->o->dev->open_flags, NULL, NULL, 0, out,
                       r->o->e);
}

static json_t *md_options(const struct lvm_segment *s)
{
    json_t *tree = json_pack("{s:s}", "level", s->type->level);
    int rc = tree ? 0 : -1;
    if (rc == 0 && s->type->layout)
        rc = json_object_set_new(tree, "layout", json_string(s->type->layout));
    if (rc == 0 && strcmp(s->type->level, "10") == 0)
        rc = json_object_set_new(tree, "layout", json_sprintf("n%u", s->copies));
    if (rc == 0 && s->stripe_bytes)
        rc = json_object_set_new(tree, "chunk", json_integer((json_int_t)s->stripe_bytes));
    if (rc == 0)
        return tree;
    json_decref(tree);
    return NULL;
}

static int co_open_md(const struct raid_open *r, struct blk_device **out)
{
    const struct lvm_opening *o = r->o;
    const struct blk_driver *md = blk_find_driver(blk_drivers, "md");
    json_auto_t *tree = md_options(r->seg);
    if (!md || !tree)
        return err_set(o->e, -ENOTSUP, "this build has no driver \"md\"");
    unsigned count = r->seg->area_count, made = 0;
    int rc = 0;
    for (; rc == 0 && made < count; made += rc == 0) {
        struct blk_device *dev = NULL;
        if (takes_part(r, made))
            dev = take(r->images[made].dev);
        else
            rc = co_missing(r, &dev);
        r->children[made] = (struct blk_child){"member", dev};
    }
    if (rc == 0)
        return co_blk_open(md, o->lv->name, tree, o->dev->open_flags, NULL, r->children, count, out,
                           o->e);
    while (made-- > 0)
        co_blk_close(r->children[made].dev, NULL);
    return rc;
}

static int co_show(const struct lvm_opening *o, struct blk_device *md)
{
    TRY(co_lvm_keep_child(o, md));
    if (md->size < lvm_lv_bytes(o->vg, o->lv))
        return err_set(o->e, -EINVAL, "the images of %s hold %" PRIu64 " bytes, not %" PRIu64,
                       o->lv->name, md->size, lvm_lv_bytes(o->vg, o->lv));
    return co_lvm_show(o, md);
}

int co_lvm_raid_open(const struct lvm_opening *o)
{
    struct raid_open r = {.o = o, .seg = &o->lv->segments[0]};
    unsigned count = r.seg->area_count;
    struct blk_device *md;
    if (o->lv->segment_count > 1)
        return err_set(o->e, -ENOTSUP, "%s consists of several arrays", o->lv->name);
    auto_free struct image *images = mem_array(count, sizeof(*images));
    auto_free struct blk_child *children = mem_array(count, sizeof(*children));
    if (!images || !children)
        return err_set(o->e, -ENOMEM, "out of memory");
    r.images = images;
    r.children = children;
    int rc = co_open_images(&r);
    if (rc == 0)
        rc = co_open_md(&r, &md);
    for (unsigned i = 0; i < count; i++)
        co_blk_close(images[i].dev, NULL);
    return rc < 0 ? rc : co_show(o, md);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_volume.c - logical volumes whose every byte has one place: linear, striped, the first leg of
 * a mirror, zeroes. All work is resolve's, which looks the place up in a table; so they are as fast
 * as what they lie on. */
#include "volumes/lvm.h"

struct lvm_run { /* a segment */
    uint64_t begin, end;
    uint64_t stripe_bytes; /* 0: one place */
    unsigned stripes, first;
};

struct lvm_place {
    struct blk_device *child;
    uint64_t offset;
};

struct lvm_volume {
    size_t run_count;
    struct lvm_run *runs;
    struct lvm_place *places;
    char uuid[LVM_UUID_TEXT];
    const char *type;  /* a literal or of the table of types */
    const char *fixed; /* why it must not be written to; NULL: it may */
};

static const struct lvm_run *find_run(const struct lvm_volume *v, uint64_t offset)
{
    size_t low = 0, high = v->run_count - 1;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (v->runs[mid].end > offset)
            high = mid;
        else
            low = mid + 1;
    }
    return &v->runs[low];
}

static bool volume_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    const struct lvm_volume *v = dev->state;
    const struct lvm_run *r = find_run(v, offset);
    assert(offset >= r->begin && offset < r->end);
    uint64_t at = offset - r->begin, here = r->end - offset;
    const struct lvm_place *p = &v->places[r->first];
    if (r->stripe_bytes) {
        uint64_t stripe = at / r->stripe_bytes, in = at % r->stripe_bytes;
        p += stripe % r->stripes;
        at = stripe / r->stripes * r->stripe_bytes + in;
        here = r->stripe_bytes - in;
    }
    *out =
        (struct blk_place){.child = p->child, .offset = p->offset + at, .bytes = MIN(bytes, here)};
    return true;
}

static void volume_drop(struct lvm_volume *v)
{
    if (!v)
        return;
    mem_free(v->runs);
    mem_free(v->places);
    mem_free(v);
}

static int co_volume_close(struct blk_device *dev, struct blk_error *e)
{
    volume_drop(dev->state);
    return 0;
}

static int co_volume_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    const struct lvm_volume *v = dev->state;
    return write && v->fixed
               ? err_set(e, -EROFS, "%s cannot be written to: %s", dev->name, v->fixed)
               : 0;
}

static int co_volume_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct lvm_volume *v = dev->state;
    out->specific = json_pack("{s:s, s:s, s:i}", "uuid", v->uuid, "type", v->type, "segments",
                              (int)v->run_count);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static const struct blk_driver volume_driver = {
    .name = "lvm-volume",
    .title = "a logical volume",
    .is_filter = true,
    .stays_put = true,
    .co_close = co_volume_close,
    .co_reopen = co_volume_reopen,
    .resolve = volume_resolve,
    .co_info = co_volume_info,
};

/* --- opening -----------------------------------------------------------------------------------
 */

/* A physical volume is a child once. */
static int co_pv_child(const struct lvm_opening *o, const struct lvm_pv *pv)
{
    if (!pv->dev) {
        err_set(o->e, -ENODEV, "%.127s lies on the physical volume %s (%.60s), which is not here",
                o->lv->name, pv->name, pv->uuid);
        err_next(o->e,
                 "name all files of the group, lvm:FILE,FILE,...//%.60s/%.60s, or the folder they "
                 "lie in, dir:FOLDER//%.60s/%.60s",
                 o->vg->name, o->lv->name, o->vg->name, o->lv->name);
        return -ENODEV;
    }
    for (size_t i = 0; i < o->dev->child_count; i++)
        if (o->dev->children[i].dev == pv->dev)
            return 0;
    return co_lvm_keep_child(o, blk_ref(pv->dev));
}

static int co_place(const struct lvm_opening *o, const struct lvm_area *a, uint64_t bytes,
                    struct lvm_place *out)
{
    uint64_t offset = a->extent * o->vg->extent_bytes + (a->pv ? a->pv->start : 0);
    struct blk_device *child;
    if (a->pv) {
        TRY(co_pv_child(o, a->pv));
        child = a->pv->dev;
    } else {
        TRY(co_lvm_child_below(o, a->lv, &child));
    }
    if (!range_fits(offset, bytes, child->size))
        return err_bad(o->e, -EINVAL, "%s ends at %" PRIu64 " bytes, before %.127s does",
                       child->name, child->size, o->lv->name);
    *out = (struct lvm_place){child, offset};
    return 0;
}

/* dm-zero: reads as zero, forgets what is written. */
static int co_zero_place(const struct lvm_opening *o, uint64_t bytes, struct lvm_place *out)
{
    json_auto_t *tree = json_pack("{s:I}", "size", (json_int_t)bytes);
    struct blk_device *child;
    if (!tree)
        return err_set(o->e, -ENOMEM, "out of memory");
    TRY(co_blk_open(&null_driver, "zeroes", tree, o->dev->open_flags, NULL, NULL, 0, &child, o->e));
    *out = (struct lvm_place){.child = child};
    return co_lvm_keep_child(o, child);
}

/* How many places of @s are looked at: of a mirror the first leg is as good as all. */
static unsigned places_of(const struct lvm_segment *s)
{
    return s->type->what == LVM_STRIPED ? s->area_count : 1;
}

static int co_add_run(const struct lvm_opening *o, struct lvm_volume *v,
                      const struct lvm_segment *s, unsigned *places)
{
    uint64_t unit = o->vg->extent_bytes;
    struct lvm_run *r = &v->runs[v->run_count++];
    *r = (struct lvm_run){.begin = s->start * unit,
                          .end = (s->start + s->extents) * unit,
                          .stripe_bytes = s->stripe_bytes,
                          .stripes = places_of(s),
                          .first = *places};
    uint64_t bytes = (r->end - r->begin) / r->stripes;
    if (s->stripe_bytes && unit % s->stripe_bytes)
        return err_bad(o->e, -EINVAL, "stripes of %" PRIu64 " bytes do not fit into the extents",
                       s->stripe_bytes);
    for (unsigned i = 0; i < r->stripes; i++) {
        struct lvm_place *p = &v->places[(*places)++];
        TRY(s->type->what == LVM_ZERO ? co_zero_place(o, bytes, p)
                                      : co_place(o, &s->areas[i], bytes, p));
    }
    return 0;
}

/* What the layers below are like; never written space holds what was there before. */
static void set_limits(struct blk_device *dev)
{
    blk_inherit_limits(dev, dev->children[0].dev);
    for (size_t i = 1; i < dev->child_count; i++) {
        const struct blk_limits *l = &dev->children[i].dev->limits;
        dev->limits.discard_reads_zero &= l->discard_reads_zero;
        dev->limits.can_zero_fast &= l->can_zero_fast;
        dev->limits.can_unmap &= l->can_unmap;
    }
    dev->limits.fresh_reads_zero = false;
}

static int co_fill(const struct lvm_opening *o, struct lvm_volume *v)
{
    size_t count = 0;
    unsigned places = 0;
    for (unsigned i = 0; i < o->lv->segment_count; i++)
        count += places_of(&o->lv->segments[i]);
    v->runs = mem_array(o->lv->segment_count, sizeof(*v->runs));
    v->places = mem_array(count, sizeof(*v->places));
    if (!v->runs || !v->places)
        return err_set(o->e, -ENOMEM, "out of memory");
    for (unsigned i = 0; i < o->lv->segment_count; i++)
        TRY(co_add_run(o, v, &o->lv->segments[i], &places));
    return 0;
}

static void become(const struct lvm_opening *o, struct lvm_volume *v, const char *type)
{
    v->type = type;
    v->fixed = o->fixed;
    lvm_uuid_text(o->lv->uuid, v->uuid);
    o->dev->driver = &volume_driver;
    o->dev->state = v;
    o->dev->size = lvm_lv_bytes(o->vg, o->lv);
    set_limits(o->dev);
}

int co_lvm_mapped_open(const struct lvm_opening *o)
{
    const struct lvm_segment *s = &o->lv->segments[0];
    struct lvm_volume *v = mem_zalloc(sizeof(*v));
    int rc = v ? co_fill(o, v) : err_set(o->e, -ENOMEM, "out of memory");
    if (rc < 0) {
        volume_drop(v);
        return rc;
    }
    become(o, v,
           s->type->what != LVM_STRIPED ? s->type->name
           : s->area_count > 1          ? "striped"
                                        : "linear");
    return 0;
}

int co_lvm_show(const struct lvm_opening *o, struct blk_device *child)
{
    struct lvm_volume *v = mem_zalloc(sizeof(*v));
    if (v) {
        v->runs = mem_array(1, sizeof(*v->runs));
        v->places = mem_array(1, sizeof(*v->places));
    }
    if (!v || !v->runs || !v->places) {
        volume_drop(v);
        return err_set(o->e, -ENOMEM, "out of memory");
    }
    v->run_count = 1;
    v->runs[0] = (struct lvm_run){.end = lvm_lv_bytes(o->vg, o->lv), .stripes = 1};
    v->places[0] = (struct lvm_place){.child = child};
    become(o, v, o->lv->segments[0].type->name);
    return 0;
}

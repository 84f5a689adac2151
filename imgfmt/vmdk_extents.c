/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_extents.c - what a descriptor describes: extents one behind the other, each a flat file's
 * stretch, a sparse extent, or zeroes.
 *
 * What is durable before what:
 *   1 the new CID -> the first change of a session
 *   2 growing: the last extent -> the text that says its size; shrinking: the text -> the extent
 *   3 a flush is a flush of every extent */
#include "imgfmt/vmdk.h"

#define SPLIT_MOST (2ULL * GiB)

static bool is_sparse(const struct vmdk_extent *x)
{
    return x->kind == VMDK_SPARSE || x->kind == VMDK_VMFS_SPARSE || x->kind == VMDK_SE_SPARSE;
}

static size_t find(const struct vmdk *v, uint64_t offset)
{
    return find_by_end(&v->parts[0].end, sizeof(v->parts[0]), v->d.count, offset);
}

static struct blk_place place_of(const struct vmdk *v, uint64_t offset, uint64_t bytes)
{
    size_t i = find(v, offset);
    const struct vmdk_part *p = &v->parts[i];
    uint64_t begin = p->end - v->d.extents[i].bytes;
    return (struct blk_place){
        .child = p->dev, .offset = p->at + (offset - begin), .bytes = MIN(bytes, p->end - offset)};
}

static bool extents_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                            struct blk_place *out)
{
    struct vmdk *v = dev->state;
    if (!v->parts || (write && !__atomic_load_n(&v->begun, __ATOMIC_SEQ_CST)))
        return false;
    *out = place_of(v, offset, bytes);
    return true;
}

/* --- the text --- */

static int co_tell(struct vmdk *v, const struct vmdk_edit *edit)
{
    int rc = co_vmdk_tell(v, edit);
    if (rc == 0 && !v->map.fresh)
        rc = co_blk_flush(v->map.file);
    v->text_unsure |= rc < 0 && rc != -EMSGSIZE;
    return rc;
}

static int co_begin(struct vmdk *v)
{
    if (!v->parts)
        return -ENOTSUP;
    with_lock(&v->beginning);
    if (v->begun)
        return 0;
    struct vmdk_edit edit = vmdk_as_it_is(v);
    edit.cid = vmdk_new_cid(v, v->map.dev->host);
    if (!v->map.fresh)
        TRY(co_tell(v, &edit));
    __atomic_store_n(&v->begun, true, __ATOMIC_SEQ_CST);
    return 0;
}

/* --- requests --- */

static int co_extents_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct vmdk *v = dev->state;
    if (!v->parts)
        return -ENOTSUP;
    for (uint64_t at = 0; at < to->bytes;) {
        struct blk_place p = place_of(v, offset + at, to->bytes - at);
        struct vec piece = vec_slice(to, at, p.bytes);
        TRY(co_blk_read(p.child, p.offset, &piece));
        at += p.bytes;
    }
    return 0;
}

static int co_extents_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                            unsigned flags)
{
    struct vmdk *v = dev->state;
    TRY(co_begin(v));
    for (uint64_t at = 0; at < from->bytes;) {
        struct blk_place p = place_of(v, offset + at, from->bytes - at);
        struct vec piece = vec_slice(from, at, p.bytes);
        TRY(co_blk_write(p.child, p.offset, &piece, flags));
        at += p.bytes;
    }
    return 0;
}

static int co_extents_zero(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct vmdk *v = dev->state;
    TRY(co_begin(v));
    for (struct blk_place p; bytes; offset += p.bytes, bytes -= p.bytes) {
        p = place_of(v, offset, bytes);
        TRY(co_blk_write_zeroes(p.child, p.offset, p.bytes, flags));
    }
    return 0;
}

static int co_extents_discard(struct blk_device *dev, uint64_t offset, uint64_t bytes)
{
    struct vmdk *v = dev->state;
    TRY(co_begin(v));
    for (struct blk_place p; bytes; offset += p.bytes, bytes -= p.bytes) {
        p = place_of(v, offset, bytes);
        TRY(co_blk_discard(p.child, p.offset, p.bytes));
    }
    return 0;
}

static int co_extents_copy(struct blk_device *dev, uint64_t offset, const struct blk_place *from)
{
    struct vmdk *v = dev->state;
    struct blk_place rest = *from;
    TRY(co_begin(v));
    while (rest.bytes) {
        struct blk_place to = place_of(v, offset, rest.bytes), part = rest;
        part.bytes = to.bytes;
        TRY(co_blk_copy_from(to.child, to.offset, &part));
        offset += to.bytes;
        rest.offset += to.bytes;
        rest.bytes -= to.bytes;
    }
    return 0;
}

/* As the extent itself says it; what it leaves to the parent is this device's to say. */
static int co_extents_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                          struct blk_extent *out)
{
    struct vmdk *v = dev->state;
    if (!v->parts)
        return -ENOTSUP;
    struct blk_place p = place_of(v, offset, bytes);
    if (is_sparse(&v->d.extents[find(v, offset)]))
        return co_blk_map(p.child, p.offset, p.bytes, out);
    *out = (struct blk_extent){.flags = BLK_EXT_PLACED | BLK_EXT_RECURSE,
                               .bytes = p.bytes,
                               .child = p.child,
                               .child_offset = p.offset};
    return 0;
}

/* --- size --- */

static int may_resize(const struct vmdk *v, uint64_t size, uint64_t *last, struct blk_error *e)
{
    const struct vmdk_extent *x = v->parts ? &v->d.extents[v->d.count - 1] : NULL;
    if (!x || x->kind == VMDK_ZERO)
        return err_set(e, -ENOTSUP, "its last extent is no file that could be resized");
    uint64_t before = v->d.bytes - x->bytes;
    if (size % 512 || size <= before)
        return err_set(e, -EINVAL,
                       "the size is a multiple of 512 bytes and more than the %" PRIu64
                       " of all extents but the last",
                       before);
    *last = size - before;
    if (v->d.count > 1 && *last > MAX(SPLIT_MOST, x->bytes))
        return err_set(e, -EFBIG, "that would take further extents; convert makes them");
    return 0;
}

static int co_resize_last(struct vmdk *v, uint64_t bytes, struct blk_error *e)
{
    struct vmdk_part *p = &v->parts[v->d.count - 1];
    struct vmdk_extent *x = &v->d.extents[v->d.count - 1];
    bool shrinks = bytes < x->bytes;
    if (!shrinks)
        TRY(co_blk_resize(p->dev, p->at + bytes, true, e));
    int rc = shrinks ? 0 : co_blk_flush(p->dev);
    struct vmdk_edit edit = vmdk_as_it_is(v);
    edit.number = v->d.count - 1;
    edit.bytes = bytes;
    if (rc == 0)
        rc = co_tell(v, &edit);
    if (rc < 0)
        return err_errno(e, rc, "the descriptor cannot be written");
    v->d.bytes = v->d.bytes - x->bytes + bytes;
    p->end = v->d.bytes;
    x->bytes = bytes;
    return shrinks ? co_blk_resize(p->dev, p->at + bytes, true, e) : 0;
}

static int co_extents_resize(struct blk_device *dev, uint64_t size, bool shrink,
                             struct blk_error *e)
{
    struct vmdk *v = dev->state;
    uint64_t last = 0;
    TRY(may_resize(v, size, &last, e));
    int rc = co_begin(v);
    rc = rc < 0 ? err_errno(e, rc, "the descriptor cannot be written") : co_resize_last(v, last, e);
    dev->size = v->d.bytes;
    return rc;
}

/* --- what each sparse extent does --- */

static struct blk_device *sparse(const struct vmdk *v, size_t i)
{
    return v->parts && is_sparse(&v->d.extents[i]) ? v->parts[i].dev : NULL;
}

static int co_extents_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    for (size_t i = 0; i < v->d.count; i++) {
        struct blk_check one = *c;
        one.total_clusters = one.allocated_clusters = one.fragmented_clusters = 0;
        one.data = false;
        if (!sparse(v, i))
            continue;
        TRY(co_blk_check(sparse(v, i), &one, e));
        one.total_clusters += c->total_clusters;
        one.allocated_clusters += c->allocated_clusters;
        one.fragmented_clusters += c->fragmented_clusters;
        one.image_end += c->image_end;
        one.data = c->data;
        *c = one;
    }
    return 0;
}

static int co_extents_compact(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    for (size_t i = 0; i < v->d.count; i++)
        if (sparse(v, i))
            TRY(co_blk_compact(sparse(v, i), e));
    return 0;
}

static int co_extents_make_empty(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    int rc = co_begin(v);
    if (rc < 0)
        return err_errno(e, rc, "the descriptor cannot be written");
    for (size_t i = 0; i < v->d.count; i++) {
        if (!sparse(v, i))
            return err_set(e, -ENOTSUP, "a flat extent cannot be emptied");
        TRY(co_blk_make_empty(sparse(v, i), e));
    }
    return 0;
}

/* First all data, then the byte that makes it a descriptor. */
static int co_extents_complete(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    int rc = co_blk_write_buf(v->map.file, 0, "#", 1, 0);
    return rc < 0 ? err_errno(e, rc, "the descriptor cannot be written") : 0;
}

/* --- opening --- */

static int co_open_zeroes(struct blk_device *dev, uint64_t bytes, struct blk_device **out,
                          struct blk_error *e)
{
    json_auto_t *tree = json_pack("{s:I}", "size", (json_int_t)bytes);
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_blk_open(&null_driver, "zeroes", tree, 0, NULL, NULL, 0, out, e));
    int rc = blk_add_child(dev, "zeroes", *out);
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

/* The stretch of the parent that lies behind a sparse extent. */
static int co_attach_parent(struct blk_device *extent, struct blk_device *parent, uint64_t at,
                            struct blk_error *e)
{
    struct map *m = extent->state;
    struct blk_child below = {.role = "file", .dev = parent};
    struct blk_device *slice;
    if (at >= parent->size)
        return 0;
    json_auto_t *tree = json_pack("{s:I, s:I}", "offset", (json_int_t)at, "size",
                                  (json_int_t)MIN(extent->size, parent->size - at));
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    blk_ref(parent);
    TRY(co_blk_open(&slice_driver, parent->name, tree, 0, NULL, &below, 1, &slice, e));
    int rc = blk_add_child(extent, "backing", slice);
    if (rc < 0) {
        co_blk_close(slice, NULL);
        return err_set(e, rc, "out of memory");
    }
    m->backing = slice;
    extent->limits.fresh_reads_zero = false;
    return 0;
}

static int co_find_part(struct vmdk *v, size_t i, struct blk_device *child, uint64_t begin,
                        struct blk_error *e)
{
    const struct vmdk_extent *x = &v->d.extents[i];
    struct vmdk_part *p = &v->parts[i];
    *p = (struct vmdk_part){child, is_sparse(x) ? 0 : x->offset, begin + x->bytes};
    if (!child)
        return co_open_zeroes(v->map.dev, x->bytes, &p->dev, e);
    if (!range_fits(p->at, x->bytes, child->size))
        return err_bad(e, -EINVAL,
                       "the extent %.200s has %" PRIu64 " bytes, fewer than the descriptor says",
                       x->name, child->size);
    struct blk_device *parent = blk_child(v->map.dev, "backing");
    if (is_sparse(x))
        ((struct map *)child->state)->backing_missing = v->map.backing_missing;
    return parent && is_sparse(x) ? co_attach_parent(child, parent, begin, e) : 0;
}

static void fill_limits(struct vmdk *v)
{
    struct blk_limits *l = &v->map.dev->limits;
    blk_inherit_limits(v->map.dev, v->parts[0].dev);
    for (size_t i = 0; i < v->d.count; i++) {
        const struct blk_limits *one = &v->parts[i].dev->limits;
        l->fresh_reads_zero &= one->fresh_reads_zero;
        l->discard_reads_zero &= one->discard_reads_zero;
        l->can_zero_fast &= one->can_zero_fast;
        l->can_unmap &= one->can_unmap;
        l->cluster_size = MAX(l->cluster_size, one->cluster_size);
    }
    l->growable = false;
}

/* Where only facts are asked for, nothing else is opened. */
static bool has_parts(const struct blk_device *dev)
{
    return !(dev->open_flags & BLK_OPEN_NO_DATA);
}

static int co_extents_opened(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    uint64_t begin = 0;
    size_t next = 0;
    if (!has_parts(dev))
        return 0;
    TRY(vmdk_check_parent(v, e));
    v->parts = mem_zalloc(v->d.count * sizeof(*v->parts));
    if (!v->parts)
        return err_set(e, -ENOMEM, "out of memory");
    size_t count = dev->child_count;
    for (size_t i = 0; i < v->d.count; begin += v->d.extents[i++].bytes) {
        struct blk_device *child = NULL;
        if (v->d.extents[i].kind != VMDK_ZERO) {
            while (next < count && !strstr(dev->children[next].role, "extent"))
                next++;
            if (next == count)
                return err_bad(e, -EINVAL, "an extent is missing");
            child = dev->children[next++].dev;
        }
        TRY(co_find_part(v, i, child, begin, e));
    }
    fill_limits(v);
    return 0;
}

static int show(struct vmdk *v, struct blk_opener *opener, const struct vmdk_extent *x)
{
    auto_free char *name = NULL;
    if (x->name && opener && opener_full_name(opener, x->name, &name) < 0)
        return -ENOMEM;
    json_t *one = json_pack("{s:I, s:o, s:s}", "virtual-size", (json_int_t)x->bytes, "filename",
                            json_from_text(name ? name : ""), "format", vmdk_extent_word(x->kind));
    return one ? json_array_append_new(v->shown, one) : -ENOMEM;
}

static int co_want_extents(struct vmdk *v, struct blk_device *dev, struct blk_opener *opener,
                           struct blk_error *e)
{
    unsigned flags = dev->open_flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE);
    for (size_t i = 0; i < v->d.count; i++) {
        const struct vmdk_extent *x = &v->d.extents[i];
        if (!x->accessible || (!x->writable && flags & BLK_OPEN_WRITE))
            return err_set(e, -EACCES, "the descriptor says that extent %zu %s", i,
                           x->accessible ? "is read only" : "cannot be accessed");
        if (show(v, opener, x) < 0)
            return err_set(e, -ENOMEM, "out of memory");
        if (x->kind == VMDK_ZERO || !has_parts(dev) || !opener)
            continue;
        TRY(co_opener_reference(opener, dev, is_sparse(x) ? "extent" : "data-extent", x->name,
                                is_sparse(x) ? "vmdk" : NULL, flags | BLK_OPEN_PART, e));
    }
    return 0;
}

static int co_extents_close(struct blk_device *dev, struct blk_error *e)
{
    vmdk_drop(dev->state);
    return 0;
}

static const struct blk_driver extents_driver = {
    .name = "vmdk",
    .title = "VMware disk (VMDK)",
    .is_format = true,
    .is_filter = true,
    .knows_backing = true,
    .open_options = map_units_open_options,
    .co_opened = co_extents_opened,
    .co_close = co_extents_close,
    .co_read = co_extents_read,
    .co_write = co_extents_write,
    .co_write_zeroes = co_extents_zero,
    .co_discard = co_extents_discard,
    .co_copy = co_extents_copy,
    .resolve = extents_resolve,
    .co_map = co_extents_map,
    .co_complete = co_extents_complete,
    .co_resize = co_extents_resize,
    .co_check = co_extents_check,
    .co_compact = co_extents_compact,
    .co_make_empty = co_extents_make_empty,
    .co_change_backing = co_vmdk_change_backing,
    .co_identify_backing = co_vmdk_identify_backing,
    .co_info = co_vmdk_info,
};

int co_vmdk_open_extents(struct vmdk *v, struct blk_device *dev, struct blk_opener *opener,
                         struct blk_error *e)
{
    if (v->d.count == 0)
        return err_bad(e, -EINVAL, "the descriptor names no extent");
    v->map.fresh = dev->open_flags & BLK_OPEN_FRESH;
    v->shown = json_array();
    v->co_tell = co_tell;
    v->co_will_write = co_begin;
    TRY(co_want_extents(v, dev, opener, e));
    TRY(co_vmdk_want_parent(v, opener, e));
    dev->size = v->d.bytes;
    dev->driver = &extents_driver;
    return 0;
}

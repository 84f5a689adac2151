/* SPDX-License-Identifier: BSD-3-Clause */
/* hdd.c - a Parallels disk as its folder x.hdd has it: every part of the disk is an image, which
 * may stand on others (the moments that snapshots keep). The descriptor says so and is only
 * changed when the disk gets another size; what is written goes to each part's top image, and those
 * below are opened to be read.
 *
 * The device is a filter: it says in which top image bytes lie, and they do the rest. */
#include "imgfmt/hdd.h"
#include "block/resolver.h"
#include "imgfmt/map_units.h"
#include "imgfmt/parallels.h"

struct hdd {
    struct hdd_descriptor d;
    struct blk_device *file;
    struct blk_device **tops; /* of each part; NULL before they are open */
};

/* --- found out --- */

static int hdd_probe(const struct blk_probe *p, const char **reason)
{
    static const char tag[] = "<Parallels_disk_image";
    size_t most = MIN(p->head_bytes, 1024);
    if (p->as_qemu || most < sizeof(tag) || p->head[0] == ' ')
        return 0;
    *reason = "a Parallels disk's description";
    return memmem(p->head, most, tag, sizeof(tag) - 1) ? 100 : 0;
}

/* --- opening --- */

/* The images of a part, the top one first; each is a reference of the descriptor. */
static int co_want_part(struct hdd *h, struct blk_device *dev, struct blk_opener *opener,
                        const struct hdd_part *part, struct blk_error *e)
{
    unsigned flags = dev->open_flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE);
    const char *role = "image";
    for (const char *guid = h->d.top; guid; guid = hdd_parent_of(&h->d, guid)) {
        const struct hdd_image *i = hdd_image_of(part, guid);
        TRY(co_opener_reference(opener, dev, role, i->file, i->plain ? "raw" : "parallels", flags,
                                e));
        flags &= ~(unsigned)BLK_OPEN_WRITE;
        role = "parent";
    }
    return 0;
}

static int co_open_parts(struct hdd *h, struct blk_device *dev, struct blk_opener *opener,
                         struct blk_error *e)
{
    uint8_t first;
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &h->file, e));
    int rc = h->file->size ? co_blk_read_buf(h->file, 0, &first, 1) : -EINVAL;
    if (rc < 0 || (first == ' ' && !(dev->open_flags & BLK_OPEN_FRESH)))
        return err_set(e, rc < 0 ? rc : -EINVAL, "not a Parallels disk's description");
    if (dev->open_flags & BLK_OPEN_WRITE && dev->open_flags & BLK_OPEN_NO_BACKING)
        return err_set(e, -ENOTSUP,
                       "the disk has no backing file, and cannot be written to without "
                       "its images");
    TRY(co_hdd_descriptor_read(h->file, &h->d, e));
    TRY(hdd_descriptor_check(&h->d, e));
    dev->size = h->d.bytes;
    if (!opener || dev->open_flags & BLK_OPEN_NO_BACKING)
        return 0;
    for (size_t i = 0; i < h->d.part_count; i++)
        TRY(co_want_part(h, dev, opener, &h->d.parts[i], e));
    return 0;
}

static int co_hdd_close(struct blk_device *dev, struct blk_error *e)
{
    struct hdd *h = dev->state;
    (void)e;
    hdd_descriptor_drop(&h->d);
    mem_free(h->tops);
    mem_free(h);
    return 0;
}

static int co_hdd_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct hdd *h = mem_zalloc(sizeof(*h));
    (void)opts;
    if (!h)
        return err_set(e, -ENOMEM, "out of memory");
    dev->state = h;
    int rc = co_open_parts(h, dev, opener, e);
    if (rc < 0)
        co_hdd_close(dev, NULL);
    return rc;
}

/* @above shows @below where it holds nothing. */
static int stand_on(struct blk_device *above, struct blk_device *below, struct blk_error *e)
{
    struct map *m = above->state;
    if (above->driver != &parallels_driver)
        return err_set(e, -EINVAL, "%s cannot stand on another image", above->name);
    int rc = blk_add_child(above, "backing", blk_ref(below));
    if (rc < 0) {
        co_blk_close(below, NULL);
        return err_set(e, rc, "out of memory");
    }
    m->backing = below;
    m->shape.stands_alone = false;
    above->limits.fresh_reads_zero = false;
    return 0;
}

/* The children of a part from @at on, in the order in which they were asked for. */
static int join_part(struct hdd *h, struct blk_device *dev, size_t number, size_t *at,
                     struct blk_error *e)
{
    const struct hdd_part *part = &h->d.parts[number];
    struct blk_device *above = NULL;
    for (const char *guid = h->d.top; guid; guid = hdd_parent_of(&h->d, guid), ++*at) {
        if (*at == dev->child_count)
            return err_bad(e, -EINVAL, "an image of storage %zu is missing", number);
        struct blk_device *child = dev->children[*at].dev;
        if (!above && child->size < part->end - part->begin)
            return err_bad(e, -EINVAL, "%s has %" PRIu64 " bytes, the descriptor says %" PRIu64,
                           child->name, child->size, part->end - part->begin);
        if (above)
            TRY(stand_on(above, child, e));
        else
            h->tops[number] = child;
        above = child;
    }
    return 0;
}

static void fill_limits(struct hdd *h, struct blk_device *dev)
{
    struct blk_limits *l = &dev->limits;
    blk_inherit_limits(dev, h->tops[0]);
    for (size_t i = 0; i < h->d.part_count; i++) {
        const struct blk_limits *one = &h->tops[i]->limits;
        l->fresh_reads_zero &= one->fresh_reads_zero;
        l->discard_reads_zero &= one->discard_reads_zero;
        l->can_zero_fast &= one->can_zero_fast;
        l->can_unmap &= one->can_unmap;
        l->cluster_size = MAX(l->cluster_size, one->cluster_size);
    }
    l->growable = false;
}

static int co_hdd_opened(struct blk_device *dev, struct blk_error *e)
{
    struct hdd *h = dev->state;
    size_t at = 1; /* behind "file" */
    if (dev->open_flags & BLK_OPEN_NO_BACKING)
        return 0;
    h->tops = mem_zalloc(h->d.part_count * sizeof(struct blk_device *));
    if (!h->tops)
        return err_set(e, -ENOMEM, "out of memory");
    for (size_t i = 0; i < h->d.part_count; i++)
        TRY(join_part(h, dev, i, &at, e));
    fill_limits(h, dev);
    return 0;
}

/* --- requests --- */

static size_t part_at(const struct hdd_descriptor *d, uint64_t offset)
{
    return find_by_end(&d->parts[0].end, sizeof(d->parts[0]), d->part_count, offset);
}

static bool hdd_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                        struct blk_place *out)
{
    const struct hdd *h = dev->state;
    size_t i = part_at(&h->d, offset);
    (void)write;
    if (!h->tops)
        return false;
    *out = (struct blk_place){.child = h->tops[i],
                              .offset = offset - h->d.parts[i].begin,
                              .bytes = MIN(bytes, h->d.parts[i].end - offset)};
    return true;
}

/* Opened for its facts only: no image is open. */
static int co_hdd_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct hdd *h = dev->state;
    struct blk_place p;
    for (uint64_t at = 0; at < to->bytes; at += p.bytes) {
        if (!h->tops)
            return -ENOTSUP;
        (void)hdd_resolve(dev, offset + at, to->bytes - at, false, &p);
        struct vec piece = vec_slice(to, at, p.bytes);
        TRY(co_blk_read(p.child, p.offset, &piece));
    }
    return 0;
}

/* --- the whole disk --- */

static int co_check_one(struct blk_device *image, struct blk_check *c, bool fix,
                        struct blk_error *e)
{
    struct blk_check one = *c;
    if (image->driver != &parallels_driver)
        return 0;
    one.total_clusters = one.allocated_clusters = one.fragmented_clusters = 0;
    one.data = false;
    one.fix_leaks &= fix;
    one.fix_errors &= fix;
    TRY(co_blk_check(image, &one, e));
    one.total_clusters += c->total_clusters;
    one.allocated_clusters += c->allocated_clusters;
    one.fragmented_clusters += c->fragmented_clusters;
    one.data = c->data;
    one.fix_leaks = c->fix_leaks;
    one.fix_errors = c->fix_errors;
    *c = one;
    return 0;
}

/* The images below the top ones are only looked at. */
static int co_hdd_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    for (size_t i = 1; i < dev->child_count; i++) {
        bool top = strcmp(dev->children[i].role, "image") == 0;
        TRY(co_check_one(dev->children[i].dev, c, top, e));
    }
    return 0;
}

static int co_hdd_compact(struct blk_device *dev, struct blk_error *e)
{
    const struct hdd *h = dev->state;
    for (size_t i = 0; h->tops && i < h->d.part_count; i++)
        if (h->tops[i]->driver == &parallels_driver)
            TRY(co_blk_compact(h->tops[i], e));
    return 0;
}

/* As those who made it do: not with snapshots, whose images have a size of their own. Growing, the
 * image goes first, else the descriptor: nobody ever sees one that is too short. */
static int co_hdd_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct hdd *h = dev->state;
    struct hdd_part *last = &h->d.parts[h->d.part_count - 1];
    struct blk_device *top = h->tops ? h->tops[h->d.part_count - 1] : NULL;
    bool shrinks = size < last->end;
    if (!top)
        return err_set(e, -ENOTSUP, "none of its images is open");
    if (hdd_parent_of(&h->d, h->d.top))
        return err_set(e, -ENOTSUP, "it has snapshots: convert it to a disk of another size");
    if (size % 512 || size <= last->begin)
        return err_set(e, -EINVAL,
                       "the size is a multiple of 512 bytes and more than the %" PRIu64
                       " of all images but the last",
                       last->begin);
    if (!shrinks) {
        TRY(co_blk_resize(top, size - last->begin, shrink, e));
        int rc = co_blk_flush(top);
        if (rc < 0)
            return err_errno(e, rc, "%s cannot be made durable", top->name);
    }
    TRY(co_hdd_descriptor_resize(h->file, size, e));
    h->d.bytes = last->end = dev->size = size;
    return shrinks ? co_blk_resize(top, size - last->begin, shrink, e) : 0;
}

static int co_hdd_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct hdd *h = dev->state;
    json_t *images = json_array();
    for (size_t i = 0; i < h->d.part_count; i++) {
        const struct hdd_part *p = &h->d.parts[i];
        for (const char *guid = h->d.top; guid; guid = hdd_parent_of(&h->d, guid)) {
            const struct hdd_image *one = hdd_image_of(p, guid);
            json_t *file = json_string(one->file);
            json_t *shown =
                json_pack("{s:o, s:s, s:s, s:I}", "filename", file ? file : json_string(""), "guid",
                          one->guid, "format", one->plain ? "raw" : "parallels", "virtual-size",
                          (json_int_t)(p->end - p->begin));
            if (!shown || json_array_append_new(images, shown) < 0) {
                json_decref(images);
                return err_set(e, -ENOMEM, "out of memory");
            }
        }
    }
    out->cluster_size = dev->limits.cluster_size;
    out->specific = json_pack("{s:o}", "images", images);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* --- creating --- */

static const char *const types[] = {"expanding", "plain", NULL};

static const struct opt_desc hdd_create_options[] = {
    {.name = "type",
     .type = OPT_ENUM,
     .choices = types,
     .preset = "expanding",
     .help = "of the image inside (expanding, plain)"},
    PARALLELS_CLUSTER_OPTION,
    {0},
};

/* What the folder is called, without its ending; or the file, where it lies in none. */
static char *disk_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *end = slash ? slash : path + strlen(path ? path : ""), *from = end;
    while (from > path && from[-1] != '/')
        from--;
    return from < end && *from != '.' ? mem_printf("%.*s", (int)(end - from), from)
                                      : mem_strdup("harddisk.hdd");
}

static int co_fill_image(const struct blk_create *c, struct blk_device *file, uint64_t size,
                         struct blk_error *e)
{
    struct opts opts = {0};
    struct blk_create image = {.file = file, .size = size, .opts = &opts};
    if (opts_number(c->opts, "type") == 1)
        return co_blk_resize(file, size, false, e);
    json_auto_t *tree =
        json_pack("{s:I}", "cluster_size", (json_int_t)opts_number(c->opts, "cluster_size"));
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(opts_parse(parallels_driver.create_options, tree, &opts, e));
    int rc = parallels_driver.co_create(&image, e);
    opts_drop(&opts);
    return rc;
}

static int co_make_image(const struct blk_create *c, const char *name, uint64_t size,
                         struct blk_error *e)
{
    struct blk_create beside = *c;
    struct blk_device *file;
    if (!c->co_make_file)
        return err_set(e, -ENOTSUP, "a disk of several files cannot be made here");
    beside.beside = true;
    TRY(c->co_make_file(&beside, name, &file, e));
    int rc = co_fill_image(c, file, size, e);
    int closed = co_blk_close(file, rc == 0 ? e : NULL);
    return rc < 0 ? rc : closed;
}

/* First the image, then the text that names it; in fresh mode the text begins with blanks, and says
 * "xml" when all is complete. */
#define DECLARATION "<?xml version='1.0' encoding='UTF-8'?>"

static int co_hdd_create(const struct blk_create *c, struct blk_error *e)
{
    uint64_t size = align_up(c->size, 512);
    bool round = size % (16 * 32 * 512) == 0;
    auto_free char *name = disk_name(c->name ? c->name : c->file->name);
    auto_free char *file =
        name ? mem_printf("%s.0.{5fbaabe3-6958-40ff-92a7-860e329aab41}.hds", name) : NULL;
    struct hdd_new n = {.bytes = size,
                        .cylinders = round ? size / (16 * 32 * 512) : size / 512,
                        .heads = round ? 16 : 1,
                        .sectors = round ? 32 : 1,
                        .cluster_bytes = opts_number(c->opts, "cluster_size"),
                        .plain = opts_number(c->opts, "type") == 1,
                        .file = file,
                        .name = name};
    auto_free char *text = file ? hdd_descriptor_text(&n) : NULL;
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    if (size == 0)
        return err_set(e, -EINVAL, "a Parallels disk cannot be empty");
    assert(strncmp(text, DECLARATION, strlen(DECLARATION)) == 0);
    if (c->fresh)
        memset(text, ' ', strlen(DECLARATION));
    TRY(co_make_image(c, file, size, e));
    struct map_units_image image = {
        .end = strlen(text), .entry_bytes = 4, .last = {0, text, strlen(text)}};
    return co_map_units_create(c, &image, e);
}

static int co_hdd_complete(struct blk_device *dev, struct blk_error *e)
{
    struct hdd *h = dev->state;
    int rc = co_blk_write_buf(h->file, 0, DECLARATION, strlen(DECLARATION), 0);
    return rc < 0 ? err_errno(e, rc, "the descriptor cannot be written") : 0;
}

const struct blk_driver hdd_driver = {
    .name = "hdd",
    .title = "Parallels disk: a folder of images (DiskDescriptor.xml)",
    .mend = "FILE is XML, which an editor mends; a copy of it, DiskDescriptor.xml.Backup, may lie "
            "beside it, and each image in there opens by itself",
    .bundle_file = HDD_DESCRIPTOR,
    .extensions = "hdd",
    .is_format = true,
    .is_filter = true,
    .create_options = hdd_create_options,
    .probe = hdd_probe,
    .co_create = co_hdd_create,
    .co_open = co_hdd_open,
    .co_opened = co_hdd_opened,
    .co_close = co_hdd_close,
    .co_read = co_hdd_read,
    .resolve = hdd_resolve,
    .co_complete = co_hdd_complete,
    .co_resize = co_hdd_resize,
    .co_check = co_hdd_check,
    .co_compact = co_hdd_compact,
    .co_info = co_hdd_info,
};

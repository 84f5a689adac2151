/* SPDX-License-Identifier: BSD-3-Clause */
/* dir.c - dir:FOLDER: all that a folder holds, assembled (heap.h). Inner devices are its files, the
 * sets that their contents make (dir:nas//vg1/data), and what is inside of both
 * (dir:nas//disk1.img//p2). Nothing is written to the folder by opening it. */
#include "block/heap.h"

static int not_found(const char *name, struct blk_error *e)
{
    return err_set(e, -ENOENT, "the folder holds no \"%.200s\"; `lamina tree` shows what it holds",
                   name);
}

/* A file or a set of that name; sets go first. HEAP_NONE: there is none. */
static size_t find(const struct heap *h, const char *name)
{
    size_t found = HEAP_NONE;
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].parent == HEAP_NONE && strcmp(h->items[k].name, name) == 0)
            found = k;
    return found;
}

/* Two that write must not be one inside of the other. Volumes of one group do not meet, nor does
 * the group's driver give one out twice: @shared. */
static int take_item(struct heap *h, size_t at, bool shared, struct blk_error *e)
{
    if (!(h->flags & BLK_OPEN_WRITE))
        return 0;
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].taken && !(shared && k == at) &&
            (heap_stands_on(h, k, at) || heap_stands_on(h, at, k)))
            return err_set(e, -EBUSY,
                           "%s and %s are one inside of the other: only one is written to",
                           h->items[at].name, h->items[k].name);
    h->items[at].taken = true;
    return 0;
}

static int show(struct blk_device *dev, struct blk_device *inner, struct blk_error *e)
{
    int rc = blk_show_slice(dev, inner, 0, inner->size);
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

/* What is inside of the set @set: open since the heap looked into it, or opened now. */
static int co_show_in_set(struct heap *h, size_t set, const char *name, struct blk_device *dev,
                          struct blk_error *e)
{
    struct blk_device *inner = NULL;
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].parent == set && h->items[k].dev && strcmp(h->items[k].name, name) == 0)
            inner = blk_ref(h->items[k].dev);
    if (!inner)
        TRY(co_blk_inner_open(h->items[set].dev, name, &inner, e));
    int rc = take_item(h, set, true, e);
    if (rc == 0)
        rc = show(dev, inner, e);
    co_blk_close(inner, NULL);
    return rc;
}

static bool is_set(const struct heap_item *i)
{
    return i->parent == HEAP_NONE && i->dev && i->dev->driver->only_inner;
}

/* A pool in a group. */
static int co_find_in_sets(struct heap *h, const char *name, struct blk_device **out,
                           struct blk_error *e)
{
    int rc = -ENOENT;
    for (size_t k = 0; k < h->count && rc == -ENOENT; k++)
        if (is_set(&h->items[k]))
            rc = co_blk_inner_container(h->items[k].dev, name, out, e);
    return rc;
}

/* VG/LV is inside of a set that is no disk itself. */
static int co_open_in_sets(struct heap *h, const char *name, struct blk_device *dev,
                           struct blk_error *e)
{
    int rc = -ENOENT;
    for (size_t k = 0; k < h->count && rc == -ENOENT; k++)
        if (is_set(&h->items[k]))
            rc = co_show_in_set(h, k, name, dev, e);
    return rc == -ENOENT ? not_found(name, e) : rc;
}

static int co_dir_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                             struct blk_error *e)
{
    struct heap *h = container->state;
    size_t at = find(h, name);
    if (at == HEAP_NONE)
        return co_open_in_sets(h, name, dev, e);
    const struct heap_item *i = &h->items[at];
    if (!i->dev) {
        *e = i->error;
        return e->rc < 0 ? e->rc : not_found(name, e);
    }
    TRY(take_item(h, at, false, e));
    return show(dev, i->dev, e);
}

/* As written behind dir:FOLDER//; NULL: no memory. */
static char *name_of(const struct heap *h, const struct heap_item *i)
{
    if (i->parent == HEAP_NONE)
        return mem_strdup(i->name);
    const struct heap_item *parent = &h->items[i->parent];
    if (parent->parent == HEAP_NONE && parent->dev && parent->dev->driver->only_inner)
        return mem_strdup(i->name);
    auto_free char *before = name_of(h, parent);
    return before ? mem_printf("%s//%s", before, i->name) : NULL;
}

static int co_dir_inner_container(struct blk_device *container, const char *name,
                                  struct blk_device **out, struct blk_error *e)
{
    struct heap *h = container->state;
    size_t at = find(h, name);
    struct blk_device *dev = at == HEAP_NONE ? NULL : h->items[at].dev;
    if (at == HEAP_NONE)
        return co_find_in_sets(h, name, out, e);
    if (!dev || !dev->driver->only_inner)
        return -ENOENT;
    TRY(take_item(h, at, false, e));
    *out = blk_ref(dev);
    return 0;
}

static int co_dir_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                             struct blk_error *e)
{
    const struct heap *h = dev->state;
    struct blk_inner *list = mem_array(MAX(h->count, 1), sizeof(*list));
    bool ok = list;
    for (size_t k = 0; ok && k < h->count; k++) {
        const struct heap_item *i = &h->items[k];
        list[k] = (struct blk_inner){
            .name = name_of(h, i), .kind = mem_strdup(i->kind), .bytes = i->bytes};
        ok = list[k].name && list[k].kind;
    }
    if (!ok) {
        blk_inner_drop(list, list ? h->count : 0);
        return err_set(e, -ENOMEM, "out of memory");
    }
    *out = list;
    *count = h->count;
    return 0;
}

static int co_dir_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct resolver *r = opener_resolver(opener);
    const char *folder = opts_text(opts, "path");
    if (!r || !folder)
        return err_set(e, -EINVAL, "the driver dir needs \"path\", a folder");
    struct heap *h = mem_zalloc(sizeof(*h));
    if (!h)
        return err_set(e, -ENOMEM, "out of memory");
    struct resolver quiet = *r; /* what each file turned out to be is not worth a line */
    quiet.say = NULL;
    *h = (struct heap){.r = &quiet,
                       .folder = folder,
                       .flags = dev->open_flags & (BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE)};
    int rc = co_heap_add_folder(h, folder, e);
    if (rc == 0)
        rc = co_heap_look(h, e);
    h->r = NULL; /* theirs lives no longer than this */
    h->folder = NULL;
    dev->state = h;
    if (rc < 0) {
        co_heap_close(h);
        mem_free(h);
    }
    return rc;
}

static int co_dir_close(struct blk_device *dev, struct blk_error *e)
{
    co_heap_close(dev->state);
    mem_free(dev->state);
    return 0;
}

static int co_dir_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return -EINVAL; /* it has no bytes of its own */
}

static const struct opt_desc dir_options[] = {
    {.name = "path", .type = OPT_STRING, .help = "the folder", .required = true},
    {0},
};

struct heap *heap_of(struct blk_device *dev)
{
    return dev->driver == &dir_driver ? dev->state : NULL;
}

const struct blk_driver dir_driver = {
    .name = "dir",
    .title = "all that a folder holds, assembled",
    .only_inner = true,
    .open_options = dir_options,
    .co_open = co_dir_open,
    .co_close = co_dir_close,
    .co_inner_list = co_dir_inner_list,
    .co_inner_open = co_dir_inner_open,
    .co_inner_container = co_dir_inner_container,
    .co_read = co_dir_read,
};

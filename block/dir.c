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

/* A file or a set of that name; sets go first. NULL: there is none. */
static const struct heap_item *find(const struct heap *h, const char *name)
{
    const struct heap_item *found = NULL;
    for (size_t k = 0; k < h->count; k++)
        if (h->items[k].parent == HEAP_NONE && strcmp(h->items[k].name, name) == 0)
            found = &h->items[k];
    return found;
}

static int show(struct blk_device *dev, struct blk_device *inner, struct blk_error *e)
{
    int rc = blk_show_slice(dev, inner, 0, inner->size);
    return rc < 0 ? err_set(e, rc, "out of memory") : 0;
}

/* VG/LV is inside of a set that is no disk itself. */
static int co_open_in_sets(const struct heap *h, const char *name, struct blk_device *dev,
                           struct blk_error *e)
{
    int rc = -ENOENT;
    for (size_t k = 0; k < h->count && rc == -ENOENT; k++) {
        struct blk_device *set = h->items[k].dev, *inner = NULL;
        if (h->items[k].parent != HEAP_NONE || !set || !set->driver->only_inner)
            continue;
        rc = co_blk_inner_open(set, name, &inner, e);
        if (rc == 0)
            rc = show(dev, inner, e);
        co_blk_close(inner, NULL);
    }
    return rc == -ENOENT ? not_found(name, e) : rc;
}

static int co_dir_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                             struct blk_error *e)
{
    const struct heap *h = container->state;
    const struct heap_item *i = find(h, name);
    if (!i)
        return co_open_in_sets(h, name, dev, e);
    if (!i->dev) {
        *e = i->error;
        return e->rc < 0 ? e->rc : not_found(name, e);
    }
    if (i->dev->driver->only_inner)
        return err_set(e, -EINVAL, "\"%.200s\" holds devices and is none itself: name one", name);
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

const struct blk_driver dir_driver = {
    .name = "dir",
    .title = "all that a folder holds, assembled",
    .only_inner = true,
    .open_options = dir_options,
    .co_open = co_dir_open,
    .co_close = co_dir_close,
    .co_inner_list = co_dir_inner_list,
    .co_inner_open = co_dir_inner_open,
    .co_read = co_dir_read,
};

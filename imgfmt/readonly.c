/* SPDX-License-Identifier: BSD-3-Clause */
/* readonly.c - the few words that formats have in common which are read and never written. */
#include "imgfmt/readonly.h"

static int refuse(const struct blk_device *dev, struct blk_error *e)
{
    return err_set(e, -EROFS, "%s images can only be read: convert it to write to it",
                   dev->driver->name);
}

int co_readonly_file(struct blk_device *dev, struct blk_opener *opener, struct blk_device **file,
                     struct blk_error *e)
{
    if (dev->open_flags & BLK_OPEN_WRITE)
        return refuse(dev, e);
    return co_blk_want_child(dev, opener, "file", dev->open_flags & BLK_OPEN_FORCE_SHARE, file, e);
}

int co_readonly_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                      unsigned flags)
{
    return -EROFS;
}

int co_readonly_flush(struct blk_device *dev)
{
    return 0; /* nothing ever waits to be written */
}

int co_readonly_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return write ? refuse(dev, e) : 0;
}

/* --- one file inside another ------------------------------------------------------------------ */

static bool inside_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    *out = (struct blk_place){.child = dev->children[0].dev, .offset = offset, .bytes = bytes};
    return !write;
}

static const struct blk_driver inside_driver = {
    .name = "inside",
    .title = "a file inside another, read-only",
    .is_filter = true,
    .stays_put = true,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .co_reopen = co_readonly_reopen,
    .resolve = inside_resolve,
};

int readonly_show(struct blk_device *dev, struct blk_device *child, struct blk_error *e)
{
    if (blk_add_child(dev, "file", child) < 0) {
        co_blk_close(child, NULL);
        return err_set(e, -ENOMEM, "out of memory");
    }
    dev->driver = &inside_driver;
    dev->size = child->size;
    dev->writable = false;
    dev->open_flags &= ~(unsigned)BLK_OPEN_WRITE;
    return 0;
}

int co_readonly_inner_open(struct blk_device *container, const char *name, struct blk_device *dev,
                           struct blk_error *e)
{
    if (strcmp(name, "image") != 0)
        return err_set(e, -ENOENT, "what is compressed with %s is named //image",
                       container->driver->name);
    return readonly_show(dev, blk_ref(container), e);
}

int co_readonly_inner_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                           struct blk_error *e)
{
    struct blk_inner *one = mem_zalloc(sizeof(*one));
    bool ok = one && (one->name = mem_strdup("image")) && (one->kind = mem_strdup("file"));
    if (!ok) {
        blk_inner_drop(one, one ? 1 : 0);
        return err_set(e, -ENOMEM, "out of memory");
    }
    one->bytes = dev->size;
    *out = one;
    *count = 1;
    return 0;
}

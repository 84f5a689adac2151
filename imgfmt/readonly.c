/* SPDX-License-Identifier: BSD-3-Clause */
/* readonly.c - the few words that formats have in common which are read and never written. */
#include "imgfmt/readonly.h"

static int refuse(const struct blk_device *dev, struct blk_error *e)
{
    return err_set(e, -EROFS, "%s images are read only here", dev->driver->name);
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

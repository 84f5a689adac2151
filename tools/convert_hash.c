/* SPDX-License-Identifier: BSD-3-Clause */
/* convert_hash.c - convert --hash: the target is closed, opened again and read through its format,
 * so that what is told is what the next reader will see. It has its name only after that. */
#include "tools/convert.h"

static int co_open_again(struct convert *c, struct blk_device **out)
{
    if (!c->into)
        return co_make_look(&c->make, out, &c->task.error);
    struct image i = {.text = c->make.name,
                      .format = c->target_format,
                      .image_opts = c->target_image_opts,
                      .cache = c->cache,
                      .trust = TRUST_READ};
    return co_image_open(c->make.tool, &i, out, &c->task.error);
}

int co_convert_hash(struct convert *c)
{
    struct blk_error *e = &c->task.error;
    struct blk_device *dev;
    TRY(co_open_again(c, &dev));
    int rc = dev->size < c->size
                 ? err_set(e, -EIO, "%s is shorter than what was written to it", c->make.name)
                 : 0;
    if (rc == 0)
        rc = co_hash_disk(dev, c->size, c->hash.kind, &c->task.job, c->hash_text, e);
    if (rc == 0)
        rc = hash_compare(&c->hash, c->hash_text, c->make.name, e);
    return co_image_close(dev, rc, e);
}

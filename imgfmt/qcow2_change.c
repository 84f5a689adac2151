/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_change.c - an overlay lets go of its contents, or stands on another backing file.
 *
 *   make empty      entries become holes -> F -> their clusters are let go of (the engine's order);
 *                   then L1 entries -> F -> L2 tables. A crash leaves some clusters as they were.
 *   change backing  all the image holds -> F -> header (qcow2_rewrite.c) */
#include "imgfmt/qcow2.h"

int co_qcow2_make_empty(struct blk_device *dev, struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct map_shape shape = q->map.shape;

    if (q->data_missing)
        return err_set(e, -ENOTSUP, "the data file was not opened, so it cannot be emptied");
    if (q->backing_missing)
        return err_set(e, -ENOTSUP,
                       "the backing file was not opened, so its contents cannot take the place of "
                       "the image's");
    int rc = co_map_will_write(&q->map);
    if (rc == 0)
        rc = co_map_drop(&q->map, 0, div_up(q->header.size, q->map.cluster_bytes));
    if (rc == 0)
        rc = co_meta_write_back(q->map.meta, !q->map.fresh);
    if (rc == 0)
        rc = map_reshape(&q->map, &shape); /* no table stays pinned or published */
    if (rc == 0)
        rc = co_qcow2_drop_tables(q, 0);
    if (rc == 0)
        rc = map_reshape(&q->map, &shape);
    if (rc == 0)
        rc = co_qcow2_settle(q, !q->map.fresh);
    return rc < 0 ? err_errno(e, rc, "cannot empty the image") : 0;
}

static int take_name(char **to, const char *name)
{
    char *copy = name ? mem_strdup(name) : NULL;

    if (name && !copy)
        return -ENOMEM;
    mem_free(*to);
    *to = copy;
    return 0;
}

int co_qcow2_change_backing(struct blk_device *dev, const char *name, const char *format,
                            struct blk_error *e)
{
    struct qcow2 *q = qcow2_of_dev(dev);
    struct qcow2_cover cover = {.backing_name = name, .backing_format = format};

    if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
        return err_errno(e, -EINVAL, "the backing file's name is longer than %u bytes",
                         QCOW2_MAX_BACKING_NAME);
    int rc = co_map_will_write(&q->map);
    if (rc == 0)
        rc = co_meta_write_back(q->map.meta, !q->map.fresh);
    if (rc < 0)
        return err_errno(e, rc, "cannot write the image's tables back");
    co_mutex_lock(&q->alloc);
    struct qcow2_header h = q->header;
    cover.header = &h;
    rc = co_qcow2_rewrite(q, &cover);
    co_mutex_unlock(&q->alloc);
    if (rc == -ENOSPC)
        return err_set(e, rc, "No space left in the file header");
    if (rc == 0)
        rc = take_name(&q->backing_name, name);
    if (rc == 0)
        rc = take_name(&q->backing_format, format);
    return rc < 0 ? err_errno(e, rc, "cannot write the header") : 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* export.c - the list of exports, and what a device looks like to an NBD client. */
#include "nbd/export.h"

#include "nbd/proto.h"

/* A minimal block size that does not divide the size would leave a tail nobody may touch. */
static uint32_t min_block_of(const struct blk_device *dev)
{
    uint32_t align = dev->limits.request_align;

    if (align <= 1 || align > 65536 || !is_pow2(align) || dev->size % align != 0)
        return 1;
    return align;
}

void nbd_facts_of(const struct blk_device *dev, struct nbd_facts *out)
{
    uint64_t best = dev->limits.optimal_transfer;

    *out = (struct nbd_facts){.size = dev->size, .max_block = NBD_MAX_REQUEST};
    out->min_block = min_block_of(dev);
    out->preferred_block = MAX(4096, out->min_block);
    if (is_pow2(best) && best >= out->preferred_block && best <= 2 * MiB)
        out->preferred_block = (uint32_t)best;
    /* One device stands behind all connections, so a flush on one covers the others. */
    out->flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                 NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    if (dev->writable)
        out->flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    else
        out->flags |= NBD_FLAG_READ_ONLY;
}

static void on_event(struct blk_listener *l, struct blk_device *dev, enum blk_event ev)
{
    struct nbd_export *x = container_of(l, struct nbd_export, listener);

    if (ev == BLK_EV_RESIZED || ev == BLK_EV_MARKED_CORRUPT)
        nbd_facts_of(dev, &x->facts);
}

static void export_free(struct nbd_export *x)
{
    mem_free(x->name);
    mem_free(x->description);
    mem_free(x);
}

static int export_new(struct blk_device *dev, const char *name, const char *description,
                      struct nbd_export **out)
{
    struct nbd_export *x = mem_zalloc(sizeof(*x));

    if (!x)
        return -ENOMEM;
    x->dev = dev;
    x->name = mem_strdup(name);
    x->description = description ? mem_strdup(description) : NULL;
    if (!x->name || (description && !x->description)) {
        export_free(x);
        return -ENOMEM;
    }
    nbd_facts_of(dev, &x->facts);
    *out = x;
    return 0;
}

static int check_name(const struct nbd_exports *all, const char *name, struct blk_error *e)
{
    if (strlen(name) > NBD_MAX_NAME)
        return err_set(e, -ENAMETOOLONG, "an export's name has at most %u bytes", NBD_MAX_NAME);
    for (struct nbd_export *x = all->first; x; x = x->next)
        if (strcmp(x->name, name) == 0)
            return err_set(e, -EEXIST, "there are two exports named '%s'", name);
    return 0;
}

int co_nbd_export_add(struct nbd_exports *all, struct blk_device *dev, const char *name,
                      const char *description, struct blk_error *e)
{
    struct nbd_export *x = NULL;
    int rc = check_name(all, name, e);

    if (rc == 0 && (rc = export_new(dev, name, description, &x)) < 0)
        err_set(e, rc, "out of memory");
    if (rc < 0) {
        co_blk_close(dev, NULL);
        return rc;
    }
    x->listener.on_event = on_event;
    blk_listen(dev, &x->listener);
    if (all->last)
        all->last->next = x;
    else
        all->first = x;
    all->last = x;
    all->count++;
    return 0;
}

int co_nbd_exports_close(struct nbd_exports *all, struct blk_error *e)
{
    int rc = 0;

    while (all->first) {
        struct nbd_export *x = all->first;
        struct blk_error mine = {0};
        int closed;

        all->first = x->next;
        blk_unlisten(x->dev, &x->listener);
        closed = co_blk_close(x->dev, &mine);
        if (closed < 0 && rc == 0) {
            rc = closed;
            if (e)
                *e = mine;
        }
        export_free(x);
    }
    *all = (struct nbd_exports){0};
    return rc;
}

struct nbd_export *nbd_export_find(const struct nbd_exports *all, const void *name, size_t bytes)
{
    for (struct nbd_export *x = all->first; x; x = x->next)
        if (strlen(x->name) == bytes && memcmp(x->name, name, bytes) == 0)
            return x;
    return bytes == 0 ? all->first : NULL;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* thin.c - the driver "thin": a pool on dm-thin's metadata, over two devices. It is a container:
 * its volumes are named by their numbers, `thin:meta.img,data.img//7`. */
#include <stdio.h>

#include "volumes/thin_pool.h"

static const struct opt_desc thin_options[] = {
    {.name = "members", .type = OPT_CHILDREN, .help = "the metadata device and the data device"},
    {.name = "metadata", .type = OPT_CHILD, .help = "the metadata device, instead of members"},
    {.name = "data", .type = OPT_CHILD, .help = "the data device, instead of members"},
    {.name = "origin", .type = OPT_CHILD, .help = "what volumes show where nothing was written"},
    {.name = "size", .type = OPT_SIZE, .help = "of volumes (default: what is mapped of each)"},
    {.name = "wait",
     .type = OPT_INT,
     .preset = "0",
     .max = 1000000,
     .help = "seconds that a write waits for space (else it fails at once)"},
    {.name = "low-water",
     .type = OPT_SIZE,
     .preset = "0",
     .help = "free bytes at which an event is sent"},
    {.name = "no-overcommit",
     .type = OPT_BOOL,
     .help = "volumes that are open together fit into the pool whole"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .preset = "32M",
     .max = 4 * GiB,
     .help = "bytes of metadata kept in memory"},
    {0},
};

struct thin_pool *thin_pool_of(struct blk_device *dev)
{
    return dev->driver == &thin_driver ? dev->state : NULL;
}

/* --- opening ----------------------------------------------------------------------------------
 */

static int co_members(struct blk_device *dev, struct blk_opener *opener, struct blk_device **meta,
                      struct blk_device **data, struct blk_error *e)
{
    if (dev->child_count == 0 && opener && opener_has(opener, "members")) {
        TRY(co_opener_children(opener, dev, "members", "member", dev->open_flags, e));
        if (dev->child_count != 2)
            return err_set(e, -EINVAL, "a thin pool has two members: metadata, then data");
        *meta = dev->children[0].dev;
        *data = dev->children[1].dev;
        return 0;
    }
    TRY(co_blk_want_child(dev, opener, "metadata", dev->open_flags, meta, e));
    return co_blk_want_child(dev, opener, "data", dev->open_flags, data, e);
}

static int co_want_origin(struct blk_device *dev, struct blk_opener *opener, struct blk_error *e)
{
    unsigned flags = dev->open_flags & ~(unsigned)BLK_OPEN_WRITE;
    if (blk_child(dev, "origin") || (opener && opener_has(opener, "origin")))
        return co_blk_want_child(dev, opener, "origin", flags, NULL, e);
    return 0;
}

static int check_data(const struct thin_pool *p, struct blk_error *e)
{
    const struct thin_super *s = &p->meta.super;
    if (s->data.blocks <= p->data->size / p->chunk)
        return 0;
    if (!p->meta.writable)
        return 0; /* what lies past the end is an error when it is read */
    return err_set(e, -EINVAL,
                   "the pool has %" PRIu64 " blocks of %" PRIu64 " bytes, and %s is only %" PRIu64
                   " bytes long",
                   s->data.blocks, p->chunk, p->data->name, p->data->size);
}

static void set_options(struct thin_pool *p, const struct opts *o)
{
    p->size = opts_number(o, "size");
    p->wait_ns = opts_number(o, "wait") * 1000000000ULL;
    p->low_water = opts_number(o, "low-water") / p->chunk;
    p->no_overcommit = opts_bool(o, "no-overcommit");
}

static int co_thin_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                        struct blk_error *e)
{
    struct blk_device *meta;
    bool write = dev->open_flags & BLK_OPEN_WRITE;
    struct thin_pool *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_members(dev, opener, &meta, &p->data, e);
    if (rc == 0)
        rc = co_want_origin(dev, opener, e);
    if (rc == 0)
        rc = co_thin_meta_open(&p->meta, meta, p->data, write,
                               (size_t)opts_number(opts, "cache-size"), e);
    if (rc == 0) {
        p->dev = dev;
        p->origin = blk_child(dev, "origin");
        p->chunk = p->meta.super.chunk_bytes;
        rc = check_data(p, e);
        if (rc < 0)
            thin_meta_close(&p->meta);
    }
    if (rc < 0) {
        mem_free(p);
        return rc;
    }
    set_options(p, opts);
    pool_init(p);
    dev->state = p;
    return 0;
}

static int co_thin_close(struct blk_device *dev, struct blk_error *e)
{
    struct thin_pool *p = dev->state;
    int rc = 0;
    if (p->meta.writable) {
        co_pool_settle(p);
        rc = p->meta.dirty || p->meta.failed ? co_thin_commit(&p->meta) : 0;
        co_pool_settle(p);
    }
    thin_meta_close(&p->meta);
    mem_free(p);
    return rc < 0 ? err_errno(e, rc, "the pool could not be written") : 0;
}

static int co_thin_flush(struct blk_device *dev)
{
    struct thin_pool *p = dev->state;
    return co_thin_commit(&p->meta);
}

/* --- what is inside ---------------------------------------------------------------------------
 */

struct listing {
    struct thin_pool *pool;
    struct blk_inner *list;
    size_t count, room;
};

static int add_volume(struct thin_walk *w, uint64_t key, const uint8_t *value)
{
    struct listing *l = w->arg;
    struct thin_detail d = thin_detail_get(value);
    if (l->count == l->room) {
        size_t room = MAX(16, l->room * 2);
        struct blk_inner *grown = mem_resize(l->list, room * sizeof(*grown));
        if (!grown)
            return -ENOMEM;
        l->list = grown;
        l->room = room;
    }
    struct blk_inner *i = &l->list[l->count++];
    *i = (struct blk_inner){.name = mem_printf("%" PRIu64, key),
                            .kind = mem_strdup(d.created ? "snapshot" : "volume"),
                            .bytes = l->pool->size ? l->pool->size : d.mapped * l->pool->chunk};
    return i->name && i->kind ? 0 : -ENOMEM;
}

static int co_thin_list(struct blk_device *dev, struct blk_inner **out, size_t *count,
                        struct blk_error *e)
{
    struct thin_pool *p = dev->state;
    struct listing l = {.pool = p};
    struct thin_walk w = {.tree = &thin_details, .entry = add_volume, .arg = &l};
    co_rwlock_read(&p->meta.lock);
    int rc = co_thin_walk(&p->meta.cache, &w, p->meta.super.details_root);
    co_rwlock_unlock(&p->meta.lock);
    if (rc < 0) {
        blk_inner_drop(l.list, l.count);
        return err_errno(e, rc, "the volumes of the pool cannot be listed");
    }
    *out = l.list;
    *count = l.count;
    return 0;
}

static int co_thin_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct thin_pool *p = dev->state;
    const struct thin_super *s = &p->meta.super;
    const struct thin_root *data = p->meta.writable ? &p->meta.space.root : &s->data;
    out->virtual_size = data->blocks * p->chunk;
    out->cluster_size = (uint32_t)p->chunk;
    out->actual_size = data->allocated * p->chunk;
    out->specific = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "transaction", (json_int_t)s->transaction, "time",
        (json_int_t)s->time, "data-blocks", (json_int_t)data->blocks, "data-blocks-used",
        (json_int_t)data->allocated, "metadata-blocks", (json_int_t)s->metadata.blocks,
        "metadata-blocks-used", (json_int_t)s->metadata.allocated, "needs-check",
        (s->flags & THIN_NEEDS_CHECK) != 0);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

const struct blk_driver thin_driver = {
    .name = "thin",
    .title = "a thin pool of dm-thin",
    .mend = "nothing finds the mappings without their superblock: write a dump of the pool back "
            "(`lamina pool restore -i DUMP -o METADATA`), or take its metadata from a backup",
    .only_inner = true,
    .open_options = thin_options,
    .co_open = co_thin_open,
    .co_close = co_thin_close,
    .co_flush = co_thin_flush,
    .co_inner_list = co_thin_list,
    .co_inner_open = co_volume_open,
    .co_info = co_thin_info,
};

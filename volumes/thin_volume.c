/* SPDX-License-Identifier: BSD-3-Clause */
/* thin_volume.c - a thin volume as a device. Its mappings are cells in memory as far as they fit;
 * resolve looks at those, everything else asks the tree. */
#include <stdio.h>

#include "volumes/thin_pool.h"

/* --- mappings ---------------------------------------------------------------------------------
 */

static thin_cell cell_of(const struct thin_volume *v, uint64_t value)
{
    if (value == UINT64_MAX)
        return THIN_HOLE;
    return thin_cell_of(thin_mapping_block(value), v->detail.snapped <= thin_mapping_time(value));
}

/* Mappings that point past the data device are damage. */
static bool is_inside(const struct thin_pool *p, uint64_t value)
{
    uint64_t end;
    return value == UINT64_MAX ||
           (mul_u64(thin_mapping_block(value) + 1, p->chunk, &end) && end <= p->data->size);
}

static int co_load_page(struct thin_volume *v, uint64_t block, thin_cell *out)
{
    struct thin_meta *m = &v->pool->meta;
    uint64_t base = block / THIN_PAGE * THIN_PAGE, root;
    auto_free uint64_t *values = mem_array(THIN_PAGE, sizeof(*values));
    if (!values)
        return -ENOMEM;
    co_rwlock_read(&m->lock);
    int rc = co_thin_root(m, v->id, &root);
    if (rc == 0)
        rc = co_thin_lookup_run(m, &thin_mappings, root, base, THIN_PAGE, values);
    for (unsigned i = 0; rc == 0 && i < THIN_PAGE; i++) {
        if (!is_inside(v->pool, values[i]))
            rc = -EIO;
        values[i] = cell_of(v, values[i]);
    }
    if (rc == 0) {
        thin_cells_fill(&v->cells, base, values); /* without memory it is asked for again */
        *out = values[block - base];
    }
    co_rwlock_unlock(&m->lock);
    return rc == -EBADMSG || rc == -ENOENT ? -EIO : rc;
}

int co_volume_cell(struct thin_volume *v, uint64_t block, thin_cell *out)
{
    *out = thin_cells_get(&v->cells, block);
    return likely(*out) ? 0 : co_load_page(v, block, out);
}

static bool follows(thin_cell first, thin_cell c, uint64_t distance)
{
    if (!thin_cell_mapped(first))
        return c == first;
    return c == first + (distance << 1);
}

int co_volume_run(struct thin_volume *v, uint64_t block, thin_cell first, uint64_t most,
                  uint64_t *count)
{
    thin_cell c;
    for (*count = 1; *count < most; ++*count) {
        TRY(co_volume_cell(v, block + *count, &c));
        if (!follows(first, c, *count))
            break;
    }
    return 0;
}

/* --- reading ----------------------------------------------------------------------------------
 */

static bool volume_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                           struct blk_place *out)
{
    struct thin_volume *v = dev->state;
    struct thin_pool *p = v->pool;
    uint64_t block = offset / p->chunk, in = offset % p->chunk;
    thin_cell c = thin_cells_get(&v->cells, block);
    if (c == THIN_HOLE && !write && dev->backing) {
        *out = (struct blk_place){
            .child = dev->backing, .offset = offset, .bytes = MIN(bytes, p->chunk - in)};
        return true;
    }
    if (!thin_cell_mapped(c) || (write && !thin_cell_own(c)))
        return false;
    uint64_t together = p->chunk - in;
    for (uint64_t n = 1; together < bytes && follows(c, thin_cells_get(&v->cells, block + n), n);
         n++)
        together += p->chunk;
    *out = (struct blk_place){.child = p->data,
                              .offset = thin_cell_block(c) * p->chunk + in,
                              .bytes = MIN(bytes, together)};
    return true;
}

/* Where nothing was written: the origin, zeroes behind its end. */
static int co_read_behind(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    uint64_t there = dev->backing && offset < dev->backing->size
                         ? MIN(to->bytes, dev->backing->size - offset)
                         : 0;
    struct vec part = vec_slice(to, 0, there), rest = vec_slice(to, there, to->bytes - there);
    if (there)
        TRY(co_blk_read(dev->backing, offset, &part));
    vec_fill(&rest, 0);
    return 0;
}

static int co_volume_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    struct thin_volume *v = dev->state;
    uint64_t chunk = v->pool->chunk, count;
    for (uint64_t at = 0, n; at < to->bytes; at += n) {
        uint64_t block = (offset + at) / chunk, in = (offset + at) % chunk;
        thin_cell c;
        TRY(co_volume_cell(v, block, &c));
        TRY(co_volume_run(v, block, c, div_up(in + to->bytes - at, chunk), &count));
        n = MIN(to->bytes - at, count * chunk - in);
        struct vec part = vec_slice(to, at, n);
        TRY(thin_cell_mapped(c) ? co_blk_read(v->pool->data, thin_cell_block(c) * chunk + in, &part)
                                : co_read_behind(dev, offset + at, &part));
    }
    return 0;
}

/* How far the hole at @block goes, at most @most blocks. */
static int co_hole(struct thin_volume *v, uint64_t block, uint64_t most, uint64_t *count)
{
    struct thin_meta *m = &v->pool->meta;
    uint64_t root, found = block + most;
    le64 value;
    co_rwlock_read(&m->lock);
    int rc = co_thin_root(m, v->id, &root);
    if (rc == 0)
        rc = co_thin_next(m, &thin_mappings, root, block, &found, &value);
    co_rwlock_unlock(&m->lock);
    *count = rc == 0 ? MIN(MAX(found, block + 1) - block, most) : most;
    return rc == -ENOENT ? 0 : rc == -EBADMSG ? -EIO : rc;
}

static int co_volume_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                         struct blk_extent *out)
{
    struct thin_volume *v = dev->state;
    uint64_t chunk = v->pool->chunk, block = offset / chunk, in = offset % chunk, count;
    uint64_t most = div_up(in + bytes, chunk);
    thin_cell c;
    TRY(co_volume_cell(v, block, &c));
    bool mapped = thin_cell_mapped(c);
    TRY(mapped ? co_volume_run(v, block, c, most, &count) : co_hole(v, block, most, &count));
    *out = (struct blk_extent){.bytes = MIN(bytes, count * chunk - in)};
    if (mapped) {
        out->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_PLACED | BLK_EXT_RECURSE;
        out->child = v->pool->data;
        out->child_offset = thin_cell_block(c) * chunk + in;
    }
    return 0;
}

/* --- opening ----------------------------------------------------------------------------------
 */

static const struct opt_desc volume_options[] = {
    {.name = "size", .type = OPT_SIZE, .help = "of the volume (default: what is mapped)"},
    {.name = "quota", .type = OPT_SIZE, .help = "bytes that it may take of the pool"},
    {.name = "reserve", .type = OPT_SIZE, .help = "bytes of the pool that are kept for it"},
    {0},
};

/* Where the last mapped block ends, or the origin. */
static int co_natural_size(struct thin_volume *v, uint64_t *size)
{
    struct thin_pool *p = v->pool;
    uint64_t root, last;
    *size = p->origin ? p->origin->size : 0;
    int rc = co_thin_root(&p->meta, v->id, &root);
    if (rc == 0)
        rc = co_thin_last(&p->meta, &thin_mappings, root, &last);
    if (rc == -ENOENT)
        return 0;
    TRY(rc);
    uint64_t end;
    if (last == UINT64_MAX || !mul_u64(last + 1, p->chunk, &end) || end > INT64_MAX)
        return -EBADMSG;
    *size = MAX(*size, end);
    return 0;
}

uint64_t volume_claim(const struct thin_volume *v)
{
    return v->reserve > v->detail.mapped ? v->reserve - v->detail.mapped : 0;
}

/* What is promised to volumes that are open together must be there. */
static int check_promises(const struct thin_volume *v, uint64_t size, struct blk_error *e)
{
    const struct thin_pool *p = v->pool;
    uint64_t blocks = div_up(size, p->chunk), sum = 0;
    uint64_t promised = p->no_overcommit ? blocks : v->reserve;
    for (const struct thin_volume *o = p->volumes; p->no_overcommit && o; o = o->next)
        sum += div_up(o->dev->size, p->chunk);
    if (p->no_overcommit && sum + blocks > p->meta.space.root.blocks)
        return err_set(e, -ENOSPC, "the pool's volumes would be larger than the pool");
    uint64_t claims = promised > v->detail.mapped ? promised - v->detail.mapped : 0;
    for (const struct thin_volume *o = p->volumes; o; o = o->next)
        claims += volume_claim(o);
    if (claims > thin_data_free(&p->meta))
        return err_set(e, -ENOSPC, "the pool has too little space left for what is reserved");
    return 0;
}

static int co_find(struct thin_volume *v, const struct opts *o, struct blk_error *e)
{
    struct thin_pool *p = v->pool;
    struct blk_device *dev = v->dev;
    for (const struct thin_volume *other = p->volumes; other; other = other->next)
        if (other->id == v->id && (p->meta.writable || other->dev->writable))
            return err_set(e, -EBUSY, "thin volume %u is open already", v->id);
    co_rwlock_read(&p->meta.lock);
    int rc = co_thin_detail(&p->meta, v->id, &v->detail);
    if (rc == 0)
        rc = co_natural_size(v, &dev->size);
    co_rwlock_unlock(&p->meta.lock);
    if (rc == -ENOENT)
        return err_set(e, rc, "the pool has no volume %u", v->id);
    if (rc < 0)
        return err_errno(e, rc, "the mappings of volume %u cannot be read", v->id);
    if (opts_given(o, "size") || p->size)
        dev->size = opts_given(o, "size") ? opts_number(o, "size") : p->size;
    v->quota = opts_number(o, "quota") / p->chunk;
    v->reserve = div_up(opts_number(o, "reserve"), p->chunk);
    return p->meta.writable ? check_promises(v, dev->size, e) : 0;
}

static void set_limits(struct thin_volume *v)
{
    struct thin_pool *p = v->pool;
    struct blk_limits *l = &v->dev->limits;
    blk_inherit_limits(v->dev, p->data);
    l->fresh_reads_zero = l->discard_reads_zero = !p->origin;
    l->can_zero_fast = l->can_unmap = !p->origin;
    l->cluster_size = (uint32_t)p->chunk;
    l->discard_granularity = is_pow2(p->chunk) ? p->chunk : 1;
}

static int add_child(struct blk_device *dev, const char *role, struct blk_device *child)
{
    int rc = blk_add_child(dev, role, blk_ref(child));
    if (rc < 0)
        co_blk_close(child, NULL);
    return rc;
}

static int add_children(struct blk_device *dev, struct blk_device *container)
{
    const struct thin_pool *p = container->state;
    TRY(add_child(dev, "container", container));
    TRY(add_child(dev, "data", p->data));
    return p->origin ? add_child(dev, "backing", p->origin) : 0;
}

/* "7" or "7,size=10G". */
static int parse_name(const char *name, uint32_t *id, struct opts *o, struct blk_error *e)
{
    size_t digits = strspn(name, "0123456789");
    json_auto_t *tree = json_object();
    if (!tree)
        return err_set(e, -ENOMEM, "out of memory");
    if (digits == 0 || digits > 8 || (name[digits] && name[digits] != ','))
        return err_set(e, -ENOENT, "the volumes of a thin pool are named by their number: //7");
    *id = 0;
    for (size_t i = 0; i < digits; i++)
        *id = *id * 10 + (uint32_t)(name[i] - '0');
    if (name[digits])
        TRY(opts_text_to_tree(name + digits + 1, NULL, tree, e));
    return opts_parse(volume_options, tree, o, e);
}

static int co_open_named(struct thin_volume *v, const char *name, struct blk_error *e)
{
    auto_free struct opts *o = mem_zalloc(sizeof(*o));
    if (!o)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(parse_name(name, &v->id, o, e));
    int rc = co_find(v, o, e);
    opts_drop(o);
    return rc;
}

int co_volume_open(struct blk_device *container, const char *name, struct blk_device *dev,
                   struct blk_error *e)
{
    struct thin_pool *p = container->state;
    struct thin_volume *v = mem_zalloc(sizeof(*v));
    if (!v)
        return err_set(e, -ENOMEM, "out of memory");
    v->pool = p;
    v->dev = dev;
    int rc = co_open_named(v, name, e);
    if (rc == 0 && add_children(dev, container) < 0)
        rc = err_set(e, -ENOMEM, "out of memory");
    if (rc < 0) {
        mem_free(v);
        return rc;
    }
    if (p->no_overcommit)
        v->reserve = div_up(dev->size, p->chunk);
    dev->driver = &thin_volume_driver;
    dev->state = v;
    set_limits(v);
    v->next = p->volumes;
    p->volumes = v;
    return 0;
}

static int co_volume_flush(struct blk_device *dev)
{
    struct thin_volume *v = dev->state;
    return co_thin_commit(&v->pool->meta);
}

static int co_volume_close(struct blk_device *dev, struct blk_error *e)
{
    struct thin_volume *v = dev->state, **link = &v->pool->volumes;
    const struct thin_meta *m = &v->pool->meta;
    int rc = m->dirty || m->failed ? co_thin_commit(&v->pool->meta) : 0;
    while (*link != v)
        link = &(*link)->next;
    *link = v->next;
    thin_cells_drop(&v->cells);
    mem_free(v);
    return rc < 0 ? err_errno(e, rc, "the pool could not be written") : 0;
}

static int co_volume_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    struct thin_volume *v = dev->state;
    if (!write || v->pool->meta.writable)
        return 0;
    return err_set(e, -EROFS, "its thin pool is open read-only");
}

static int co_volume_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct thin_volume *v = dev->state;
    uint64_t from = size / v->pool->chunk * v->pool->chunk;
    if (size < dev->size) {
        uint64_t edge = MIN(from + v->pool->chunk, dev->size);
        int rc = size > from ? co_volume_zeroes(dev, size, edge - size, 0) : 0;
        from = size > from ? from + v->pool->chunk : from;
        if (rc == 0 && from < dev->size)
            rc = co_volume_discard(dev, from, dev->size - from);
        if (rc == 0)
            rc = co_thin_commit(&v->pool->meta);
        if (rc < 0)
            return err_errno(e, rc, "the end of the volume could not be let go of");
    }
    dev->size = size;
    return 0;
}

static int co_volume_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct thin_volume *v = dev->state;
    out->virtual_size = dev->size;
    out->cluster_size = (uint32_t)v->pool->chunk;
    out->actual_size = v->detail.mapped * v->pool->chunk;
    out->specific =
        json_pack("{s:I, s:I, s:I, s:I}", "id", (json_int_t)v->id, "mapped-blocks",
                  (json_int_t)v->detail.mapped, "creation-time", (json_int_t)v->detail.created,
                  "snapshotted-time", (json_int_t)v->detail.snapped);
    return out->specific ? 0 : err_set(e, -ENOMEM, "out of memory");
}

const struct blk_driver thin_volume_driver = {
    .name = "thin-volume",
    .title = "a volume of a thin pool",
    .handles_fua = true,
    .co_close = co_volume_close,
    .co_reopen = co_volume_reopen,
    .co_read = co_volume_read,
    .co_write = co_volume_write,
    .co_write_zeroes = co_volume_zeroes,
    .co_discard = co_volume_discard,
    .co_flush = co_volume_flush,
    .resolve = volume_resolve,
    .co_map = co_volume_map,
    .co_resize = co_volume_resize,
    .co_info = co_volume_info,
};

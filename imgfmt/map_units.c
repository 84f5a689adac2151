/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units.c - units of a file handed out and taken back; opening and closing what stands on them.
 *
 * What a place off the unit boundaries let go of stays owned until the next census: another one may
 * touch the same unit. */
#include "imgfmt/map_units_private.h"

/* --- places --- */

uint64_t map_units_number(const struct map *m, uint64_t offset)
{
    const struct map_units *u = m->units;
    return (offset - m->shape.lead_bytes - u->base) / u->unit_bytes;
}

void map_units_touch(struct map *m, uint64_t end)
{
    struct map_space *s = &m->units->space;
    s->touched = MAX(s->touched, units_below(m, end));
}

/* The ready co_extend: the file reads as zero up to there, whatever a crash leaves. */
static int co_grow_file(struct map *m, uint64_t end)
{
    struct map_units *u = m->units;
    struct blk_error ignored;
    if (end > m->file->size) {
        if (!m->file->limits.growable)
            return -ENOSPC;
        TRY(co_blk_resize(m->file, end + u->ahead_bytes, false, &ignored));
        if (!m->fresh)
            TRY(co_blk_flush(m->file));
    }
    u->prepared = m->file->size;
    return 0;
}

static int co_extend(struct map *m, uint64_t end)
{
    struct map_units *u = m->units;
    with_lock(&u->extending);
    if (end <= u->prepared)
        return 0;
    return u->ops->co_extend ? u->ops->co_extend(m, end) : co_grow_file(m, end);
}

static uint64_t place_limit(const struct map *m)
{
    const struct map_units *u = m->units;
    return u->dense ? m->shape.root_entries : u->limit ? u->limit : UINT64_MAX / u->unit_bytes / 2;
}

/* As many units as are free together from @unit on, in whole steps, and alike in whether they were
 * written before. */
static uint64_t alike(const struct map *m, uint64_t unit, uint64_t step, uint64_t most)
{
    const struct map_space *s = &m->units->space;
    bool reused = unit < s->touched;
    uint64_t n = step;
    for (uint64_t k; n + step <= most; n += step) {
        if ((unit + n < s->touched) != reused)
            break;
        for (k = 0; k < step && !map_space_owned(s, unit + n + k);)
            k++;
        if (k < step)
            break;
    }
    return n;
}

int co_map_units_take_span(struct map *m, struct units_request *r)
{
    struct map_units *u = m->units;
    uint64_t below = r->below ? r->below : place_limit(m);
    for (;;) { /* what was found may be gone when the file is extended */
        uint64_t unit = map_space_find(&u->space, r->from, r->step);
        if (unit + r->step > below)
            return -ENOSPC;
        uint64_t n = alike(m, unit, r->step, MIN(r->span, below - unit));
        if (units_offset(m, unit + n) > u->prepared) {
            TRY(co_extend(m, units_offset(m, unit + n)));
            continue;
        }
        r->unit = unit;
        r->reused = unit < u->space.touched;
        TRY(map_space_own(&u->space, unit, n));
        r->span = n;
        return 0;
    }
}

static void let_go(struct map *m, uint64_t unit, uint64_t span)
{
    struct map_units *u = m->units;
    for (uint64_t i = 0; i < span; i++)
        map_space_let_go(&u->space, unit + i);
    uint64_t around = MIN(unit, units_cluster_units(m) - 1); /* a run may begin before it */
    u->cluster_from = MIN(u->cluster_from, unit - around);
}

int co_map_units_take(struct map *m, uint64_t bytes, uint64_t *offset, bool *reused)
{
    uint64_t span = div_up(bytes, m->units->unit_bytes);
    struct units_request r = {.step = span, .span = span};
    TRY(co_map_units_take_span(m, &r));
    *offset = units_offset(m, r.unit);
    *reused = r.reused;
    return 0;
}

void map_units_let_go(struct map *m, uint64_t offset, uint64_t bytes)
{
    if (units_on_boundary(m, offset))
        let_go(m, (offset - m->units->base) / m->units->unit_bytes,
               div_up(bytes, m->units->unit_bytes));
}

/* --- hooks: clusters --- */

int co_map_units_place(struct map *m, uint64_t *count, uint64_t *offset, bool *reused)
{
    struct map_units *u = m->units;
    uint64_t step = units_cluster_units(m);
    /* Neighbours lie together only where nothing is between them. */
    bool together = step * u->unit_bytes == m->cluster_bytes;
    struct units_request r = {
        .from = step > 1 ? u->cluster_from : 0,
        .step = step,
        .span = together ? *count * step : step,
    };
    TRY(co_map_units_take_span(m, &r));
    if (step > 1)
        u->cluster_from = r.unit + r.span;
    *count = r.span / step;
    *offset = units_offset(m, r.unit) + m->shape.lead_bytes;
    *reused = r.reused;
    return 0;
}

void map_units_unplace(struct map *m, const struct map_cell *cells, size_t count)
{
    for (size_t i = 0; i < count; i++)
        map_units_let_go(m, cells[i].offset - m->shape.lead_bytes, units_place_bytes(m));
}

static void co_punch(struct map *m, uint64_t offset, uint64_t bytes)
{
    uint64_t there = offset < m->data->size ? m->data->size - offset : 0;
    int rc = there ? co_blk_discard(m->data, offset, MIN(there, bytes)) : 0;
    (void)rc; /* a hint; the space is ours again either way */
}

void co_map_units_release(struct map *m, const struct map_cell *cell, uint64_t count, bool punch)
{
    uint64_t lead = m->shape.lead_bytes, at = cell->offset - lead;
    if (punch)
        co_punch(m, at, lead + count * m->cluster_bytes);
    if (lead)
        co_meta_forget(m->meta, at, lead); /* the format may have had it there */
    for (uint64_t i = 0; i < count; i++)
        map_units_let_go(m, at + i * m->cluster_bytes, units_place_bytes(m));
}

/* --- hooks: tables --- */

int co_map_units_place_table(struct map *m, uint64_t *offset)
{
    bool reused;
    return co_map_units_take(m, units_table_units(m) * m->units->unit_bytes, offset, &reused);
}

void map_units_unplace_table(struct map *m, uint64_t offset)
{
    map_units_let_go(m, offset, units_table_units(m) * m->units->unit_bytes);
}

void co_map_units_release_table(struct map *m, uint64_t offset)
{
    uint64_t bytes = units_table_units(m) * m->units->unit_bytes;
    co_punch(m, offset, bytes);
    map_units_let_go(m, offset, bytes);
}

/* --- a session of writing --- */

int co_map_units_begin(struct map *m)
{
    struct map_units *u = m->units;
    struct map_units_census found;
    TRY(co_map_units_census(m, NULL, &found));
    if (map_units_bad_count(&found) && !u->repairing) {
        map_corrupt(m, "two entries own one place, or an entry is out of range");
        return -EROFS;
    }
    u->prepared = !u->ops->co_extend && !u->ahead_bytes ? UINT64_MAX : 0;
    if (u->ahead_bytes)
        u->prepared = m->file->size;
    uint64_t end = units_offset(m, u->space.next);
    if (u->ahead_bytes && m->file->limits.growable && end > m->file->size)
        TRY(co_grow_file(m, end)); /* the last cluster was as short as the disk */
    if (u->ops->co_begin)
        TRY(u->ops->co_begin(m));
    u->begun = true;
    return 0;
}

int co_map_units_finish(struct map *m)
{
    struct map_units *u = m->units;
    if (!u->begun)
        return 0;
    TRY(co_map_units_tidy(m));
    if (u->ops->co_end)
        TRY(u->ops->co_end(m));
    u->begun = false;
    map_write_ended(m);
    return co_map_units_fit(m);
}

int co_map_units_rewrite(struct map *m, uint64_t offset, unsigned rank,
                         void (*fill)(struct map *m, void *raw))
{
    struct meta_page *page;
    uint64_t at = align_down(offset, meta_page_bytes(m->meta));
    TRY(co_meta_write_back(m->meta, !m->fresh));
    TRY(co_meta_get(m->meta, at, rank, &page));
    int rc = meta_touch(m->meta, page);
    if (rc == 0)
        fill(m, page->data + (offset - at));
    meta_put(m->meta, page);
    TRY(rc);
    return co_meta_write_back(m->meta, !m->fresh);
}

/* --- life --- */

const struct opt_desc map_units_open_options[] = {
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of tables kept in memory",
     .preset = "8M",
     .min = 64 * KiB},
    {.name = "backing", .type = OPT_CHILD, .help = "instead of the parent that the image names"},
    {0},
};

/* Pages of the cache must not reach from the flat table into its neighbours. */
static uint32_t page_bytes_for(const struct map *m)
{
    const struct map_shape *s = &m->shape;
    uint64_t entry_bytes = s->levels == 1 ? s->entry_bytes : s->root_entry_bytes;
    uint64_t end = s->root_offset + s->root_entries * entry_bytes;
    uint32_t page = 4096;
    uint64_t room = s->root_offset < m->units->base ? m->units->base : end;
    while (page > 512 && (s->root_offset % page || align_up(end, page) > room ||
                          (s->levels == 2 && s->table_bytes % page)))
        page /= 2;
    return page;
}

static void fill_limits(struct map *m)
{
    struct blk_limits *l = &m->dev->limits;
    l->fresh_reads_zero = true; /* map_backing.c knows better */
    l->cluster_size = l->discard_granularity = m->cluster_bytes;
    l->can_zero_fast = m->file->limits.can_zero_fast;
    l->can_unmap = !m->shape.keeps_all;
    m->dev->size = m->shape.size;
    m->dev->state = m;
}

int co_map_units_open(struct map *m, uint64_t cache_bytes, struct blk_error *e)
{
    struct map_units *u = m->units;
    m->data = m->data ? m->data : m->file;
    struct meta_options o = {
        .file = m->file,
        .data = m->data,
        .page_bytes = u->page_bytes ? u->page_bytes : page_bytes_for(m),
        .limit_bytes = cache_bytes,
        .fresh = m->fresh,
    };
    assert(u->ops && u->unit_bytes % 512 == 0 && u->unit_bytes > 0);
    int rc = meta_open(&o, &m->meta);
    if (rc < 0)
        return err_set(e, rc, "out of memory");
    rc = map_attach(m, e);
    if (rc < 0) {
        co_map_detach(m);
        return rc;
    }
    assert(units_cluster_units(m) * u->unit_bytes >= units_place_bytes(m));
    fill_limits(m);
    return 0;
}

int co_map_units_close(struct map *m, struct blk_error *e)
{
    int rc = co_map_units_finish(m);
    co_map_detach(m);
    map_space_drop(&m->units->space);
    return rc < 0 ? err_errno(e, rc, "the tables cannot be written") : 0;
}

int co_map_units_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    int rc = write ? 0 : co_map_units_finish(dev->state);
    return rc < 0 ? err_errno(e, rc, "the tables cannot be written") : 0;
}

int co_map_units_complete(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    struct map_units *u = m->units;
    int rc = co_map_will_write(m);
    if (rc == 0)
        rc = co_map_units_finish(m);
    if (rc == 0) {
        u->unfinished = false;
        rc = u->ops->co_publish ? u->ops->co_publish(m) : 0;
        u->unfinished = rc < 0;
    }
    return rc < 0 ? err_errno(e, rc, "the image cannot be completed") : 0;
}

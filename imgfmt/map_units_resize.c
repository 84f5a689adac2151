/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_resize.c - a flat table (levels 2: the root) that grows and shrinks with its disk.
 *
 * Growing:
 *   1 room for the new entries: behind the table; or the first units are moved away, durably
 *     (UNITS_TABLE_STAYS, _FRONT); or new units (UNITS_TABLE_MOVES)
 *   2 the new entries, or the whole table anew, durable where nobody looks yet
 *   3 one publication: size, entries, and with them the table's place and base
 *   (with something behind the image: the table first, then zeroes over what comes to light,
 *   durable, then the size)
 * Shrinking: 1 the size published; 2 the tail's cells dropped, durable; 3 the gaps closed; 4 the
 * shorter table published.
 * A crash leaves the old size or the new one. */
#include "imgfmt/map_units_private.h"

#define PIECE (64 * KiB)

/* What a publication changes. */
struct layout {
    uint64_t size, offset, entries, base;
};

static uint32_t entry_bytes(const struct map *m)
{
    return m->shape.levels == 1 ? m->shape.entry_bytes : m->shape.root_entry_bytes;
}

static uint64_t entries_for(const struct map *m, uint64_t size)
{
    uint64_t clusters = div_up(size, m->cluster_bytes);
    if (m->units->ops->entries_for)
        return m->units->ops->entries_for(m, size);
    if (m->shape.levels == 2)
        return div_up(clusters, m->shape.table_entries);
    return clusters ? map_slot(m, clusters - 1) + 1 : 0;
}

static struct layout layout_of(const struct map *m)
{
    return (struct layout){m->shape.size, m->shape.root_offset, m->shape.root_entries,
                           m->units->base};
}

static int take_layout(struct map *m, const struct layout *l)
{
    struct map_shape shape = m->shape;
    shape.size = l->size;
    shape.root_offset = l->offset;
    shape.root_entries = l->entries;
    m->units->base = l->base;
    return map_reshape(m, &shape);
}

/* In memory; where places are numbered anew or the table owns others, counted again. */
static int co_adopt(struct map *m, const struct layout *l)
{
    struct layout before = layout_of(m);
    struct map_units_census found;
    TRY(take_layout(m, l));
    bool moved = l->base != before.base || l->offset != before.offset;
    return moved ? co_map_units_census(m, NULL, &found) : 0;
}

/* In memory and on disk. What failed is taken back without a look at the file, which may fail too:
 * the next change counts anew. */
static int co_publish(struct map *m, const struct layout *l)
{
    struct layout before = layout_of(m);
    int rc = co_adopt(m, l);
    if (rc == 0)
        rc = m->units->ops->co_publish(m);
    if (rc == 0)
        return 0;
    if (take_layout(m, &before) < 0)
        map_corrupt(m, "out of memory while a failed resize was taken back");
    m->units->begun = false;
    map_write_again(m);
    return rc;
}

/* --- writing entries --- */

/* What entries [from, from + count) are to be: those that exist, and new ones behind them. */
struct new_entries {
    const struct layout *to;
    uint64_t from, count;
};

static void put_hole(struct map *m, uint8_t *raw)
{
    struct map_cell hole = {.state = MAP_HOLE};
    if (m->shape.levels == 2)
        m->format->root_encode(m, 0, raw);
    else
        m->format->encode(m, &hole, raw);
}

/* An entry that counts from base says the same place from another one. */
static int rebase(struct map *m, uint64_t base, uint8_t *raw)
{
    struct map_cell cell = {0};
    uint64_t before = m->units->base;
    if (m->shape.levels == 2 || base == before)
        return 0;
    TRY(m->format->decode(m, raw, &cell));
    if (cell.offset == 0)
        return 0;
    m->units->base = base;
    m->format->encode(m, &cell, raw);
    m->units->base = before;
    return 0;
}

static int co_fill_piece(struct map *m, const struct new_entries *n, uint8_t *buffer)
{
    uint32_t bytes = entry_bytes(m);
    uint64_t there = n->from < m->shape.root_entries ? m->shape.root_entries - n->from : 0;
    there = MIN(there, n->count);
    memset(buffer, 0, n->count * bytes);
    if (there)
        TRY(co_blk_read_buf(m->file, m->shape.root_offset + n->from * bytes, buffer,
                            there * bytes));
    for (uint64_t i = 0; i < there; i++)
        TRY(rebase(m, n->to->base, buffer + i * bytes));
    for (uint64_t i = there; i < n->count; i++)
        put_hole(m, buffer + i * bytes);
    return 0;
}

/* Entries from @from on, where the new table is to be. All has been written back. */
static int co_write_entries(struct map *m, const struct layout *to, uint64_t from)
{
    uint32_t bytes = entry_bytes(m);
    uint8_t *buffer = buf_get(PIECE);
    int rc = buffer ? 0 : -ENOMEM;
    for (uint64_t done; from < to->entries && rc == 0; from += done) {
        done = MIN(to->entries - from, PIECE / bytes);
        struct new_entries n = {to, from, done};
        uint64_t at = to->offset + from * bytes;
        rc = co_fill_piece(m, &n, buffer);
        if (rc == 0)
            rc = co_blk_write_buf(m->file, at, buffer, done * bytes, 0);
        if (rc == 0)
            co_meta_forget(m->meta, at, done * bytes);
    }
    if (buffer)
        buf_put(buffer, PIECE);
    TRY(rc);
    return m->fresh ? 0 : co_blk_flush(m->file);
}

/* --- growing --- */

static uint64_t table_end(const struct map *m, const struct layout *l)
{
    return align_up(l->offset + l->entries * entry_bytes(m), meta_page_bytes(m->meta));
}

static int co_grow_in_place(struct map *m, const struct layout *to)
{
    TRY(co_write_entries(m, to, m->shape.root_entries));
    return co_publish(m, to);
}

/* More numbers for the blocks that have to move, where the table has the room: readers want numbers
 * below the count of entries. */
static int co_use_room(struct map *m, const struct layout *to)
{
    struct layout wide = layout_of(m);
    uint64_t room = align_down(m->units->base, meta_page_bytes(m->meta)) - wide.offset;
    wide.entries = MAX(wide.entries, MIN(to->entries, room / entry_bytes(m)));
    return wide.entries > m->shape.root_entries ? co_grow_in_place(m, &wide) : 0;
}

/* The first units make room. */
static int co_grow_over_units(struct map *m, struct layout *to)
{
    struct map_units *u = m->units;
    bool anew = u->table == UNITS_TABLE_FRONT;
    uint64_t page = meta_page_bytes(m->meta), bytes = to->entries * entry_bytes(m);
    uint64_t start = anew ? align_up(u->base, page) : to->offset;
    uint64_t units = div_up(align_up(start + bytes, page) - u->base, u->unit_bytes);
    if (anew)
        TRY(co_use_room(m, to));
    TRY(co_map_units_move_away(m, units));
    to->offset = start;
    to->base = units_offset(m, units);
    TRY(co_write_entries(m, to, anew ? 0 : m->shape.root_entries));
    return co_publish(m, to);
}

static int co_grow_elsewhere(struct map *m, struct layout *to)
{
    bool reused;
    uint64_t old = m->shape.root_offset, bytes = to->entries * entry_bytes(m);
    uint64_t old_end =
        table_end(m, &(struct layout){.offset = old, .entries = m->shape.root_entries});
    uint64_t room = align_up(bytes, meta_page_bytes(m->meta));
    TRY(co_map_units_take(m, room, &to->offset, &reused));
    int rc = to->offset % meta_page_bytes(m->meta) ? -EINVAL : co_write_entries(m, to, 0);
    if (rc == 0)
        rc = co_publish(m, to);
    if (rc < 0) {
        struct map_units_census found;
        TRY(co_map_units_census(m, NULL, &found));
        return rc;
    }
    co_meta_forget(m->meta, old, old_end - old);
    return 0;
}

static int co_grow_table(struct map *m, const struct layout *wanted)
{
    struct layout to = *wanted;
    if (to.entries == m->shape.root_entries)
        return to.size == m->shape.size ? 0 : co_publish(m, &to);
    if (to.offset < m->units->base && table_end(m, &to) <= m->units->base)
        return co_grow_in_place(m, &to);
    return m->units->table == UNITS_TABLE_MOVES ? co_grow_elsewhere(m, &to)
                                                : co_grow_over_units(m, &to);
}

static int co_grow(struct map *m, uint64_t size)
{
    struct layout to = layout_of(m);
    uint64_t before = to.size, dark = m->backing ? MIN(m->backing->size, size) : 0;
    to.entries = MAX(to.entries, entries_for(m, size));
    to.size = dark > before ? before : size;
    TRY(co_meta_settle(m->meta, !m->fresh));
    TRY(co_grow_table(m, &to));
    if (dark <= before)
        return 0;
    /* What comes to light is zero, whatever lies behind it. */
    TRY(co_map_write_zeroes(m->dev, before, dark - before, BLK_MAY_UNMAP));
    TRY(co_meta_settle(m->meta, !m->fresh));
    to = layout_of(m);
    to.size = size;
    return co_publish(m, &to);
}

/* New clusters of a static image are owned from the start. */
static int co_fill_static(struct map *m, uint64_t from)
{
    static const uint8_t zeroes[4096];
    for (uint64_t at = align_up(from, m->cluster_bytes); at < m->shape.size;
         at += m->cluster_bytes) {
        struct vec some = VEC_BUF(zeroes, MIN(sizeof(zeroes), m->shape.size - at));
        TRY(co_map_write(m->dev, at, &some, 0));
    }
    return co_meta_settle(m->meta, !m->fresh);
}

/* --- shrinking --- */

static int co_shrink(struct map *m, uint64_t size)
{
    struct layout to = layout_of(m);
    uint64_t keep = div_up(size, m->cluster_bytes), had = div_up(to.size, m->cluster_bytes);
    uint64_t tail = MIN(keep << m->shape.cluster_bits, to.size) - size;
    if (tail) /* what a later growth shows there is zero */
        TRY(co_map_write_zeroes(m->dev, size, tail, 0));
    to.size = size;
    TRY(co_meta_settle(m->meta, !m->fresh));
    TRY(co_publish(m, &to)); /* first: nobody may see what lies behind the tail */
    TRY(co_map_drop(m, keep, had));
    TRY(co_map_units_squeeze(m)); /* who shrinks wants a smaller file; and where the table is tight,
                                     all numbers are below the new count of entries */
    if (m->shape.levels == 2)
        return 0;
    to.entries = entries_for(m, size);
    return co_publish(m, &to);
}

/* --- emptying --- */

int co_map_units_make_empty(struct blk_device *dev, struct blk_error *e)
{
    struct map *m = dev->state;
    int rc = co_map_will_write(m);
    if (rc == 0)
        rc = co_map_drop(m, 0, div_up(m->shape.size, m->cluster_bytes));
    if (rc == 0)
        rc = co_map_units_finish(m);
    return rc < 0 ? err_errno(e, rc, "the image cannot be emptied") : 0;
}

/* --- both --- */

static int co_change_size(struct map *m, uint64_t size)
{
    uint64_t before = m->shape.size;
    uint64_t clusters = div_up(before, m->cluster_bytes);
    TRY(co_map_will_write(m));
    /* What a careless peer, or a crash, left behind the end. */
    TRY(co_map_drop(m, clusters, map_clusters_in_table(m)));
    if (size < before)
        return co_shrink(m, size);
    TRY(co_grow(m, size));
    return m->shape.keeps_all ? co_fill_static(m, before) : 0;
}

int co_map_units_resize(struct blk_device *dev, uint64_t size, bool shrink, struct blk_error *e)
{
    struct map *m = dev->state;
    uint64_t most = m->units->cluster_limit;
    if (size % 512)
        return err_set(e, -EINVAL, "the size of a %s image is a multiple of 512 bytes",
                       dev->driver->name);
    if (most && div_up(size, m->cluster_bytes) > most)
        return err_set(e, -EFBIG, "this %s image has at most %" PRIu64 " clusters of %" PRIu64,
                       dev->driver->name, most, m->cluster_bytes);
    int rc = co_change_size(m, size);
    dev->size = m->shape.size; /* it may have changed before something failed */
    return rc < 0 ? err_errno(e, rc, "the image cannot be resized") : 0;
}

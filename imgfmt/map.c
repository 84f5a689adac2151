/* SPDX-License-Identifier: BSD-3-Clause */
/* map.c - the map engine's ground: from a virtual cluster to its table entry, and changing entries.
 *
 * Table pages live in the metadata cache (meta.h). The index in front of it knows the loaded ones
 * by number, so that a look-up is: slot of the page number, compare, load the entry, decode.
 * resolve does just that, on any worker; everything else runs at home and loads what is missing. */
#include <stdio.h>

#include "imgfmt/map_private.h"

/* --- the index --- */

static struct meta_page *index_find(const struct map *m, uint64_t page_number)
{
    struct map_private *p = m->priv;
    struct meta_page *page =
        __atomic_load_n(&p->index[page_number & p->index_mask], __ATOMIC_SEQ_CST);
    return page && page->key == page_number ? page : NULL;
}

static uint64_t page_number_of(const struct map *m, uint64_t cluster)
{
    return map_slot(m, cluster) >> m->priv->page_bits;
}

static uint8_t *entry_at(const struct map *m, const struct meta_page *page, uint64_t slot)
{
    uint64_t in_page = slot & ((1ULL << m->priv->page_bits) - 1);
    return page->data + in_page * m->shape.entry_bytes;
}

/* Entries change by whole stores and are read by whole loads: other workers look at them. */
static void load_entry(const struct map *m, const uint8_t *from, uint64_t to[2])
{
    if (m->shape.entry_bytes == 4) {
        uint32_t v = __atomic_load_n((const uint32_t *)from, __ATOMIC_SEQ_CST);
        memcpy(to, &v, sizeof(v));
        return;
    }
    to[0] = __atomic_load_n((const uint64_t *)from, __ATOMIC_SEQ_CST);
    if (m->shape.entry_bytes == 16)
        to[1] = __atomic_load_n((const uint64_t *)from + 1, __ATOMIC_SEQ_CST);
}

static void store_entry(const struct map *m, const uint64_t from[2], uint8_t *to)
{
    if (m->shape.entry_bytes == 4) {
        uint32_t v;
        memcpy(&v, from, sizeof(v));
        __atomic_store_n((uint32_t *)to, v, __ATOMIC_SEQ_CST);
        return;
    }
    if (m->shape.entry_bytes == 16)
        __atomic_store_n((uint64_t *)to + 1, from[1], __ATOMIC_SEQ_CST);
    __atomic_store_n((uint64_t *)to, from[0], __ATOMIC_SEQ_CST);
}

static int cell_in(const struct map *m, const struct meta_page *page, uint64_t slot,
                   struct map_cell *out)
{
    uint64_t raw[2];
    load_entry(m, entry_at(m, page, slot), raw);
    memset(out, 0, sizeof(*out));
    TRY(m->format->decode(m, raw, out));
    bool strays =
        m->shape.fixed_places && map_has_space(out) && out->offset != slot << m->shape.cluster_bits;
    return strays ? -EIO : 0;
}

int map_entry_get(struct map *m, const struct meta_page *page, uint64_t cluster,
                  struct map_cell *out)
{
    int rc = cell_in(m, page, map_slot(m, cluster), out);
    return rc < 0 ? map_broken(m, "a table entry is invalid") : 0;
}

/* --- resolve --- */

/* Long entries are two words: who looks from another worker must not see half of a change. */
static uint32_t entry_changes(const struct map *m)
{
    return m->shape.entry_bytes < 16 ? 0 : __atomic_load_n(&m->priv->changes, __ATOMIC_SEQ_CST);
}

static void note_change(struct map *m)
{
    if (m->shape.entry_bytes == 16)
        __atomic_add_fetch(&m->priv->changes, 1, __ATOMIC_SEQ_CST);
}

/* How many bytes from @cluster's first on lie as @first does, at most @want; entries of one page.
 */
static uint64_t together(const struct map *m, const struct meta_page *page, uint64_t cluster,
                         const struct map_cell *first, uint64_t want)
{
    uint64_t bytes = m->cluster_bytes;
    uint64_t number = map_slot(m, cluster) >> m->priv->page_bits;
    while (bytes < want) {
        struct map_cell next;
        uint64_t slot = map_slot(m, ++cluster);
        if (slot >> m->priv->page_bits != number || cell_in(m, page, slot, &next) < 0 ||
            next.state != first->state || next.shared != first->shared)
            break;
        if ((first->state == MAP_DATA || first->state == MAP_ZERO) &&
            next.offset != (first->offset ? first->offset + bytes : 0))
            break;
        bytes += m->cluster_bytes;
    }
    return MIN(bytes, want);
}

bool map_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                 struct blk_place *out)
{
    struct map *m = dev->state;
    uint64_t cluster = offset >> m->shape.cluster_bits;
    uint64_t at = offset & (m->cluster_bytes - 1);
    uint64_t slot = map_slot(m, cluster);
    struct meta_page *page = index_find(m, slot >> m->priv->page_bits);
    struct map_cell cell;
    uint32_t changes = entry_changes(m);
    if (!page || cell_in(m, page, slot, &cell) < 0)
        return false;
    if (!__atomic_load_n(&page->used, __ATOMIC_RELAXED))
        __atomic_store_n(&page->used, true, __ATOMIC_RELAXED);

    struct blk_device *below;
    uint64_t below_at, here = m->cluster_bytes - at;
    enum map_state state = cell.state;
    if (state == MAP_PARTIAL && m->shape.piece_bits)
        here = map_piece_run(m, &cell, at, here, &state);
    if (state == MAP_DATA) {
        if (write && (cell.shared || !__atomic_load_n(&m->priv->may_write, __ATOMIC_SEQ_CST)))
            return false;
        below = m->data;
        below_at = cell.offset + at;
    } else if (state == MAP_HOLE && m->backing && !write) {
        below = m->backing;
        below_at = offset;
    } else {
        return false;
    }
    uint64_t below_size = __atomic_load_n(&below->size, __ATOMIC_RELAXED);
    if (below_at >= below_size)
        return false;
    if (here < bytes && state == cell.state)
        here = together(m, page, cluster, &cell, at + bytes) - at;
    *out = (struct blk_place){
        .child = below,
        .offset = below_at,
        .bytes = MIN(MIN(here, bytes), below_size - below_at),
    };
    return entry_changes(m) == changes && !(changes & 1);
}

/* --- finding table pages --- */

static uint64_t slots_per_table(const struct map *m)
{
    return m->shape.levels == 2 ? m->shape.table_entries : UINT64_MAX;
}

/* Clusters from @cluster on whose entries lie in one page (or, where there is none, one table). */
static uint64_t covered(const struct map *m, uint64_t cluster, bool whole_table)
{
    uint64_t slot = map_slot(m, cluster);
    uint64_t group = whole_table ? slots_per_table(m) : 1ULL << m->priv->page_bits;
    if (m->format->slot) { /* slots may have gaps: count */
        uint64_t n = 1;
        while (map_slot(m, cluster + n) / group == slot / group)
            n++;
        return n;
    }
    return group - slot % group;
}

static int root_entry(struct map *m, const struct meta_page *root, uint64_t table, uint64_t *offset,
                      bool *shared)
{
    uint64_t at = m->shape.root_offset + table * m->shape.root_entry_bytes;
    *shared = false;
    int rc = m->format->root_decode(m, root->data + at % m->priv->page_bytes, offset, shared);
    if (rc < 0 || *offset % m->priv->page_bytes)
        return map_broken(m, "a root entry is invalid");
    return 0;
}

static int co_root_page(struct map *m, uint64_t table, struct meta_page **out)
{
    if (table >= m->shape.root_entries)
        return map_broken(m, "the root table is too short");
    uint64_t at = m->shape.root_offset + table * m->shape.root_entry_bytes;
    return co_meta_get(m->meta, align_down(at, m->priv->page_bytes), m->format->root_rank, out);
}

static int co_table_page(struct map *m, uint64_t number, uint64_t page_at, struct meta_page **out)
{
    int rc = co_meta_get(m->meta, page_at, m->format->table_rank, out);
    if (rc < 0)
        return rc;
    meta_publish(m->meta, *out, number, &m->priv->index[number & m->priv->index_mask]);
    return 0;
}

/* Through the root. *out NULL: no table there, or (@to_write) one that is shared. */
static int co_page_by_root(struct map *m, uint64_t number, bool to_write, struct meta_page **out)
{
    uint64_t slot = number << m->priv->page_bits;
    uint64_t table = slot / m->shape.table_entries;
    uint64_t in_table = slot % m->shape.table_entries * m->shape.entry_bytes;
    struct meta_page *root;
    TRY(co_root_page(m, table, &root));
    uint64_t offset, again;
    bool shared;
    if (!to_write)
        co_map_read_ahead(m, root, number);
    int rc = root_entry(m, root, table, &offset, &shared);
    while (rc == 0) {
        *out = NULL;
        if (offset == 0 || (to_write && shared))
            break;
        rc = co_meta_get(m->meta, offset + in_table, m->format->table_rank, out);
        if (rc < 0)
            break;
        /* The table may have been replaced while its page was read. */
        rc = root_entry(m, root, table, &again, &shared);
        if (rc == 0 && again == offset) {
            meta_publish(m->meta, *out, number, &m->priv->index[number & m->priv->index_mask]);
            break;
        }
        meta_put(m->meta, *out);
        offset = again;
    }
    meta_put(m->meta, root);
    return rc;
}

int co_map_page(struct map *m, uint64_t cluster, struct meta_page **out, uint64_t *count)
{
    uint64_t number = page_number_of(m, cluster);
    struct meta_page *page = index_find(m, number);
    int rc = 0;
    if (page) {
        meta_pin(m->meta, page);
        *out = page;
    } else if (m->shape.levels == 1) {
        rc = co_table_page(m, number, m->shape.root_offset + number * m->priv->page_bytes, out);
    } else {
        rc = co_page_by_root(m, number, false, out);
    }
    if (rc == 0)
        *count = covered(m, cluster, !*out);
    return rc;
}

/* --- new tables (levels 2) --- */

/* The pages of a new table: zeroes, or what the old one holds. */
static int co_fill_table(struct map *m, uint64_t from, uint64_t to)
{
    for (uint64_t at = 0; at < m->shape.table_bytes; at += m->priv->page_bytes) {
        struct meta_page *new, *old = NULL;
        if (from)
            TRY(co_meta_get(m->meta, from + at, m->format->table_rank, &old));
        int rc = co_meta_new(m->meta, to + at, m->format->table_rank, &new);
        if (rc == 0) {
            if (old)
                memcpy(new->data, old->data, m->priv->page_bytes);
            meta_put(m->meta, new);
        }
        if (old) {
            meta_unpublish(old);
            meta_put(m->meta, old);
        }
        TRY(rc);
    }
    return 0;
}

/* A table that was replaced, until the change is durable. */
struct table_release {
    struct meta_deferred deferred;
    struct table_release *next; /* all there are, to be freed with the map */
    struct map *map;
    uint64_t offset;
};

static void co_release_old_table(struct meta_deferred *d)
{
    struct table_release *r = container_of(d, struct table_release, deferred);
    struct table_release **link = &r->map->priv->table_releases;
    co_blk_quiesce(r->map->dev);
    r->map->format->co_release_table(r->map, r->offset);
    while (*link != r)
        link = &(*link)->next;
    *link = r->next;
    mem_free(r);
}

/* Puts a new table where @root's entry says @old (0: none). */
static int co_replace_table(struct map *m, struct meta_page *root, uint64_t table, uint64_t old,
                            bool let_go)
{
    uint64_t offset;
    auto_free struct table_release *release = old && let_go ? mem_zalloc(sizeof(*release)) : NULL;
    if (old && let_go && !release)
        return -ENOMEM;
    TRY(m->format->co_place_table(m, &offset));
    int rc = co_fill_table(m, old, offset);
    if (rc == 0)
        rc = meta_touch(m->meta, root);
    if (rc < 0) {
        co_meta_forget(m->meta, offset, m->shape.table_bytes);
        m->format->unplace_table(m, offset);
        return rc;
    }
    uint64_t at = m->shape.root_offset + table * m->shape.root_entry_bytes;
    m->format->root_encode(m, offset, root->data + at % m->priv->page_bytes);
    if (release) {
        release->map = m;
        release->offset = old;
        release->deferred.co_fn = co_release_old_table;
        release->next = m->priv->table_releases;
        m->priv->table_releases = release;
        meta_defer(m->meta, &take(release)->deferred);
    }
    return 0;
}

static int co_make_table(struct map *m, uint64_t number)
{
    uint64_t table = (number << m->priv->page_bits) / m->shape.table_entries;
    struct meta_page *root;
    with_lock(&m->priv->new_tables);
    TRY(co_root_page(m, table, &root));
    uint64_t offset;
    bool shared;
    int rc = root_entry(m, root, table, &offset, &shared);
    if (rc == 0 && (offset == 0 || shared))
        rc = co_replace_table(m, root, table, offset, true);
    meta_put(m->meta, root);
    return rc;
}

int co_map_table(struct map *m, uint64_t number, uint64_t *offset)
{
    struct meta_page *root;
    bool shared;
    TRY(co_root_page(m, number, &root));
    int rc = root_entry(m, root, number, offset, &shared);
    meta_put(m->meta, root);
    return rc;
}

static int co_drop_table(struct map *m, struct meta_page *root, uint64_t table)
{
    uint64_t at = m->shape.root_offset + table * m->shape.root_entry_bytes;
    TRY(meta_touch(m->meta, root));
    m->format->root_encode(m, 0, root->data + at % m->priv->page_bytes);
    meta_unpublish_all(m->meta);
    return 0;
}

int co_map_table_anew(struct map *m, uint64_t number, bool drop, bool release)
{
    struct meta_page *root;
    bool shared;
    uint64_t offset;
    with_lock(&m->priv->new_tables);
    TRY(co_root_page(m, number, &root));
    int rc = root_entry(m, root, number, &offset, &shared);
    if (rc == 0)
        rc = drop ? co_drop_table(m, root, number)
                  : co_replace_table(m, root, number, offset, release);
    meta_put(m->meta, root);
    return rc;
}

int co_map_page_to_write(struct map *m, uint64_t cluster, struct meta_page **out, uint64_t *count)
{
    if (m->shape.levels == 1)
        return co_map_page(m, cluster, out, count);
    uint64_t number = page_number_of(m, cluster);
    for (;;) {
        TRY(co_page_by_root(m, number, true, out));
        if (*out)
            break;
        TRY(co_make_table(m, number));
    }
    *count = covered(m, cluster, false);
    return 0;
}

/* --- looking --- */

int co_map_cell(struct map *m, uint64_t cluster, struct map_cell *out)
{
    struct meta_page *page;
    uint64_t count;
    TRY(co_map_page(m, cluster, &page, &count));
    if (!page) {
        *out = (struct map_cell){.state = MAP_HOLE};
        return 0;
    }
    int rc = map_entry_get(m, page, cluster, out);
    meta_put(m->meta, page);
    return rc;
}

int co_map_run(struct map *m, uint64_t offset, uint64_t bytes, struct map_run *out)
{
    uint64_t cluster = offset >> m->shape.cluster_bits;
    uint64_t at = offset & (m->cluster_bytes - 1);
    struct meta_page *page;
    uint64_t count;
    TRY(co_map_page(m, cluster, &page, &count));
    uint64_t most = count > (bytes + at) >> m->shape.cluster_bits
                        ? bytes
                        : MIN(bytes, (count << m->shape.cluster_bits) - at);
    *out = (struct map_run){.cell.state = MAP_HOLE, .bytes = most};
    if (!page)
        return 0;
    int rc = map_entry_get(m, page, cluster, &out->cell);
    if (rc == 0) {
        if (out->cell.state == MAP_PACKED || out->cell.state == MAP_PARTIAL)
            out->bytes = MIN(most, m->cluster_bytes - at);
        else
            out->bytes = together(m, page, cluster, &out->cell, at + most) - at;
        out->offset = out->cell.offset + at;
    }
    meta_put(m->meta, page);
    return rc;
}

static void place(struct map *m, const struct map_run *run, struct blk_extent *out)
{
    out->flags |= BLK_EXT_PLACED;
    out->child = m->data;
    out->child_offset = run->offset;
}

int co_map_map(struct blk_device *dev, uint64_t offset, uint64_t bytes, struct blk_extent *out)
{
    struct map *m = dev->state;
    struct map_run run;
    TRY(co_map_run(m, offset, bytes, &run));
    enum map_state state = run.cell.state;
    if (state == MAP_PARTIAL)
        TRY(co_map_partial(m, offset >> m->shape.cluster_bits, &run.cell,
                           offset & (m->cluster_bytes - 1), &run.bytes, &state));
    *out = (struct blk_extent){.bytes = run.bytes};
    switch (state) {
    case MAP_HOLE:
        out->flags = map_has_backing(m)      ? 0
                     : m->shape.stands_alone ? BLK_EXT_ZERO | BLK_EXT_ALLOCATED
                                             : BLK_EXT_ZERO;
        if (run.cell.offset && !map_hides(m, offset >> m->shape.cluster_bits)) {
            place(m, &run, out); /* space of a cluster that is in pieces */
            out->flags |= BLK_EXT_ZERO;
        }
        break;
    case MAP_ZERO:
        out->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED;
        if (run.cell.offset) /* space is kept under it */
            place(m, &run, out);
        break;
    case MAP_DATA:
        if (run.offset >= m->data->size) { /* the file ends before it: never written */
            out->flags = BLK_EXT_ZERO | BLK_EXT_ALLOCATED;
            break;
        }
        out->bytes = MIN(run.bytes, m->data->size - run.offset);
        out->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED;
        if (m->shape.file_has_holes)
            out->flags |= BLK_EXT_RECURSE;
        place(m, &run, out);
        break;
    case MAP_PACKED:
        out->flags = BLK_EXT_DATA | BLK_EXT_ALLOCATED | BLK_EXT_COMPRESSED;
        break;
    case MAP_PARTIAL: /* is one of the others, piece by piece */
        break;
    }
    return 0;
}

uint64_t map_clusters_in_table(const struct map *m)
{
    uint64_t slots = m->shape.root_entries;
    if (m->shape.levels == 2 && !mul_u64(slots, m->shape.table_entries, &slots))
        return div_up(m->shape.size, m->cluster_bytes);
    if (!m->format->slot)
        return slots;
    uint64_t low = 0, high = slots; /* slots rise with clusters, and there are gaps */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (map_slot(m, middle) < slots)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A table that lies past the file's end and that nobody is making reads as holes: *clusters of it
 * can be left out. Else 0. */
static int co_past_the_file(struct map *m, uint64_t cluster, uint64_t *clusters)
{
    uint64_t offset;
    *clusters = 0;
    if (m->shape.levels == 1 || m->format->slot || cluster % m->shape.table_entries)
        return 0;
    TRY(co_map_table(m, cluster / m->shape.table_entries, &offset));
    struct meta_page *page = offset < m->file->size ? NULL : meta_peek(m->meta, offset);
    if (offset >= m->file->size && !page)
        *clusters = m->shape.table_entries;
    if (page)
        meta_put(m->meta, page);
    return 0;
}

int co_map_walk(struct map *m,
                int (*fn)(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg),
                void *arg)
{
    uint64_t end = div_up(m->shape.size, m->cluster_bytes);
    uint64_t count;
    if (m->units || (m->shape.levels == 1 && !m->format->slot))
        end = map_clusters_in_table(m); /* also those behind the end of the disk */
    for (uint64_t c = 0; c < end; c += count) {
        struct meta_page *page;
        TRY(co_past_the_file(m, c, &count));
        if (count)
            continue;
        TRY(co_map_page(m, c, &page, &count));
        count = MIN(count, end - c);
        int rc = 0;
        for (uint64_t i = 0; page && i < count && rc == 0; i++) {
            struct map_cell cell;
            rc = map_entry_get(m, page, c + i, &cell);
            if (rc == 0 && cell.state != MAP_HOLE)
                rc = fn(m, c + i, &cell, arg);
        }
        if (page)
            meta_put(m->meta, page);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* --- changing --- */

int co_map_change(struct map *m, struct meta_page *page, const struct map_update *u, size_t count,
                  bool punch)
{
    struct map_release *release = NULL;
    size_t gone = 0;
    if (m->format->co_prepare)
        TRY(m->format->co_prepare(m, u, count));
    for (size_t i = 0; i < count; i++)
        gone += map_lets_go(m, &u[i], punch);
    if (gone && !(release = map_release_room(m, gone)))
        return -ENOMEM;
    /* From here on nothing suspends. */
    TRY(meta_touch(m->meta, page));
    if (m->format->commit)
        TRY(m->format->commit(m, u, count));
    note_change(m);
    for (size_t i = 0; i < count; i++) { /* M2: data writes have returned; shown in this step */
        uint64_t raw[2] = {0};
        uint8_t *entry = entry_at(m, page, map_slot(m, u[i].cluster));
        load_entry(m, entry, raw); /* an encoder may keep bits it does not know */
        m->format->encode(m, &u[i].now, raw);
        store_entry(m, raw, entry);
    }
    note_change(m);
    if (gone)
        map_release_old(m, release, u, count, punch);
    return 0;
}

void map_unplace_one(struct map *m, const struct map_cell *cell)
{
    m->format->unplace(m, cell, 1);
}

int co_map_will_write(struct map *m)
{
    struct map_private *p = m->priv;
    if (likely(p->may_write))
        return 0;
    with_lock(&p->first_write);
    if (p->may_write)
        return 0;
    if (m->dev->marked_corrupt)
        return -EROFS;
    if (m->format->co_before_first_write)
        TRY(m->format->co_before_first_write(m));
    __atomic_store_n(&p->may_write, true, __ATOMIC_SEQ_CST);
    return 0;
}

void map_write_ended(struct map *m)
{
    __atomic_store_n(&m->priv->may_write, false, __ATOMIC_SEQ_CST);
}

void map_write_again(struct map *m)
{
    m->priv->flush_owed = true;
    map_write_ended(m);
}

int co_map_flush(struct blk_device *dev)
{
    struct map *m = dev->state;
    /* Also where beginning failed. */
    bool written = m->priv->may_write || m->priv->flush_owed || meta_error(m->meta);
    return written ? co_meta_write_back(m->meta, true) : 0;
}

/* --- life --- */

void map_corrupt(struct map *m, const char *sentence)
{
    if (m->priv->said_corrupt)
        return;
    m->priv->said_corrupt = true;
    if (m->dev->writable)
        fprintf(stderr, "%s: corrupt: %s; nothing more is written to it: check it\n",
                m->dev->name && m->dev->name[0] ? m->dev->name : m->dev->driver->name, sentence);
    blk_mark_corrupt(m->dev);
}

int map_broken(struct map *m, const char *sentence)
{
    map_corrupt(m, sentence);
    return -EIO;
}

static int make_index(struct map *m)
{
    struct map_private *p = m->priv;
    uint64_t slots = map_slot(m, div_up(m->shape.size, m->cluster_bytes));
    uint64_t pages = (slots >> p->page_bits) + 1;
    uint64_t most = 2 * meta_limit(m->meta) / p->page_bytes;
    uint64_t count = 16;
    while (count < pages && count < most)
        count *= 2;
    struct meta_page **index = mem_array(count, sizeof(*index));
    if (!index)
        return -ENOMEM;
    meta_unpublish_all(m->meta);
    mem_free(p->index);
    p->index = index;
    p->index_mask = count - 1;
    return 0;
}

int map_attach(struct map *m, struct blk_error *e)
{
    const struct map_shape *s = &m->shape;
    uint32_t page_bytes = meta_page_bytes(m->meta);
    assert(s->cluster_bits >= 9 && s->cluster_bits <= 28);
    assert(s->entry_bytes == 4 || s->entry_bytes == 8 || s->entry_bytes == 16);
    assert(s->levels == 1 || s->levels == 2);
    assert(!s->piece_bits || 1U << (s->cluster_bits - s->piece_bits) == MAP_PIECES);
    assert(s->levels == 1 || (is_pow2(s->table_entries) && s->table_bytes % page_bytes == 0 &&
                              s->table_bytes == s->table_entries * s->entry_bytes));
    /* A root is looked into entry by entry, a flat table page by page. */
    if (s->root_offset % (s->levels == 1 ? page_bytes : s->root_entry_bytes))
        return err_bad(e, -EINVAL, "the table at %" PRIu64 " is not aligned to %u bytes",
                       s->root_offset, s->levels == 1 ? page_bytes : s->root_entry_bytes);
    m->priv = mem_zalloc(sizeof(*m->priv));
    if (!m->priv)
        return err_set(e, -ENOMEM, "out of memory");
    m->cluster_bytes = 1ULL << s->cluster_bits;
    m->priv->page_bytes = page_bytes;
    m->priv->page_bits = log2_floor(page_bytes / s->entry_bytes);
    if (make_index(m) < 0) {
        mem_free(take(m->priv));
        return err_set(e, -ENOMEM, "out of memory");
    }
    return 0;
}

int map_reshape(struct map *m, const struct map_shape *shape)
{
    m->shape = *shape;
    map_forget_all_unpacked(m);
    if (make_index(m) < 0) /* the present one does as well: it is a matter of speed only */
        meta_unpublish_all(m->meta);
    return 0;
}

void co_map_detach(struct map *m)
{
    struct map_private *p = m->priv;
    co_meta_close(take(m->meta));
    if (!p)
        return;
    while (p->releases)
        map_release_free(p->releases);
    for (struct table_release *r = p->table_releases, *next; r; r = next) {
        next = r->next;
        mem_free(r);
    }
    map_free_unpacked(m);
    mem_free(p->index);
    mem_free(take(m->priv));
}

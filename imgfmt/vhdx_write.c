/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_write.c - what changes a VHDX beside its blocks: headers, the log, size and place of the
 * block table.
 *
 * What is durable before what:
 *   1 somebody's log replayed in place -> headers with an empty log
 *   2 a session's new GUIDs in a header, then in the other one -> the first change
 *   3 block data that hides older contents -> a log entry of the table's pages -> (first of a
 *     session) headers that name the log -> the pages in place
 *   4 pages in place -> an entry whose tail leaves theirs behind, and what overwrites it
 *   5 all in place -> headers with an empty log
 *   6 a change of the parent: one log entry; should it fail half way, nothing is written any more,
 *     and the next opening replays what the log says
 *   7 resizing, moving, repairing: the log is empty all the while, the engine orders single
 *     entries; the new size and the table's place are one log entry (region tables, metadata)
 * A header is written over the older of both, so one of them is always whole. */
#include "block/uuid.h"
#include "imgfmt/vhdx.h"

#define PAGES_AT_ONCE 64

static int co_sync(struct vhdx *v)
{
    return v->map.fresh ? 0 : co_blk_flush(v->map.file);
}

/* --- headers --- */

static int co_put_header(struct vhdx *v)
{
    auto_free struct vhdx_header_disk *raw = mem_zalloc(sizeof(*raw));
    if (!raw)
        return -ENOMEM;
    memcpy(raw->signature, "head", 4);
    raw->sequence = le64_of(v->h.sequence + 1);
    raw->version = le16_of(1);
    raw->log_bytes = le32_of(v->h.log_bytes);
    raw->log_offset = le64_of(v->h.log_offset);
    memcpy(raw->file_write, v->h.file_write, 16);
    memcpy(raw->data_write, v->h.data_write, 16);
    memcpy(raw->log_guid, v->h.log_guid, 16);
    vhdx_seal(raw, sizeof(*raw));
    unsigned slot = !v->h.slot;
    TRY(co_blk_write_buf(v->map.file, VHDX_HEADER_AT(slot), raw, sizeof(*raw), 0));
    TRY(co_sync(v));
    v->h.slot = slot;
    v->h.sequence++;
    return 0;
}

/* Both, so that the older one leads to no log that is gone. */
static int co_put_headers(struct vhdx *v)
{
    TRY(co_put_header(v));
    return co_put_header(v);
}

static int co_name_log(struct vhdx *v, const uint8_t guid[16])
{
    uint8_t before[16];
    memcpy(before, v->h.log_guid, 16);
    memcpy(v->h.log_guid, guid, 16);
    int rc = co_put_headers(v);
    if (rc < 0)
        memcpy(v->h.log_guid, before, 16);
    return rc;
}

/* --- somebody's log --- */

static int co_apply(struct vhdx *v)
{
    struct vhdx_replay *r = &v->replay;
    struct blk_device *file = v->map.file;
    struct blk_error ignored;
    uint8_t *page = buf_get(VHDX_PAGE);
    int rc = page ? 0 : -ENOMEM;
    if (rc == 0 && r->length > file->size)
        rc = co_blk_resize(file, align_up(r->length, MiB), false, &ignored);
    for (size_t i = 0; i < r->zero_count && rc == 0; i++) {
        uint64_t at = MIN(r->zeroes[i].offset, file->size);
        uint64_t bytes = MIN(r->zeroes[i].bytes, file->size - at);
        rc = bytes ? co_blk_write_zeroes(file, at, bytes, 0) : 0;
    }
    for (size_t i = 0; i < r->page_count && rc == 0; i++) {
        vhdx_replay_patch(r, r->pages[i].offset, page, VHDX_PAGE);
        rc = co_blk_write_buf(file, r->pages[i].offset, page, VHDX_PAGE, 0);
    }
    if (page)
        buf_put(page, VHDX_PAGE);
    return rc < 0 ? rc : co_sync(v);
}

int co_vhdx_replay(struct vhdx *v, struct blk_error *e)
{
    static const uint8_t none[16];
    if (!v->replay.log)
        return 0;
    int rc = co_apply(v);
    if (rc == 0)
        rc = co_name_log(v, none);
    if (rc < 0)
        return err_errno(e, rc, "the log cannot be replayed");
    vhdx_replay_drop(&v->replay);
    return 0;
}

/* --- our log --- */

/* Ready for @bytes more: from the start of the ring where they would go over its end, anew where
 * they would meet the tail. */
static int co_make_room(struct vhdx *v, uint64_t bytes, bool settled)
{
    struct vhdx_ring *l = &v->log;
    if (bytes > v->h.log_bytes)
        return -EFBIG;
    if (settled)
        l->used = 0;
    /* Entries are written at one place. What is left at the end is of no use then, and entries
     * have to follow one another: begin anew. */
    if (l->head + bytes <= v->h.log_bytes && l->used + bytes <= v->h.log_bytes)
        return 0;
    if (l->used)
        TRY(co_sync(v)); /* what the entries say is in place: they need not count any more */
    l->used = 0;
    if (l->head + bytes > v->h.log_bytes)
        l->head = 0;
    return 0;
}

/* Where nothing counts any more, the entry is its own tail. */
static int co_append(struct vhdx *v, const struct vhdx_page *pages, uint32_t count, bool settled)
{
    struct vhdx_ring *l = &v->log;
    uint64_t bytes = vhdx_entry_bytes(count);
    uint8_t guid[16];
    TRY(co_make_room(v, bytes, settled));
    bool first = uuid_is_nil(v->h.log_guid);
    if (first)
        host_uuid(v->map.dev->host, guid);
    struct vhdx_log_entry entry = {
        .sequence = l->sequence + 1,
        .flushed = align_down(v->map.file->size, MiB),
        .length = align_down(v->map.file->size, MiB),
        .tail = l->used ? l->tail : l->head,
        .guid = first ? guid : v->h.log_guid,
    };
    uint8_t *buffer = buf_get(bytes);
    if (!buffer)
        return -ENOMEM;
    vhdx_entry_begin(buffer, &entry, count);
    for (uint32_t i = 0; i < count; i++)
        vhdx_entry_page(buffer, i, pages[i].offset, pages[i].bytes);
    vhdx_entry_seal(buffer);
    int rc = co_blk_write_buf(v->map.file, v->h.log_offset + l->head, buffer, bytes, 0);
    buf_put(buffer, bytes);
    if (rc == 0)
        rc = co_sync(v);
    if (rc == 0 && first)
        rc = co_name_log(v, guid);
    TRY(rc);
    l->tail = entry.tail;
    l->sequence++;
    l->head += bytes;
    l->used += bytes;
    return 0;
}

static int co_log_pages(void *arg, const struct meta_page *list, bool settled)
{
    struct vhdx *v = arg;
    struct vhdx_page pages[PAGES_AT_ONCE];
    uint32_t count = 0;
    if (v->broken)
        return -EIO;
    if (v->direct)
        return 0;
    for (const struct meta_page *p = list; p; p = p->batch_next) {
        pages[count++] = (struct vhdx_page){p->offset, meta_page_contents(p)};
        if (count < PAGES_AT_ONCE && p->batch_next)
            continue;
        TRY(co_append(v, pages, count, settled));
        settled = false;
        count = 0;
    }
    return 0;
}

static void patch_page(void *arg, struct meta_page *page)
{
    struct vhdx *v = arg;
    vhdx_replay_patch(&v->replay, page->offset, page->data, VHDX_PAGE);
}

void vhdx_hook(struct vhdx *v)
{
    struct meta_hooks hooks = {.arg = v, .loaded = patch_page, .co_log = co_log_pages};
    meta_set_hooks(v->map.meta, &hooks);
}

/* All is in place, durable: the headers say so. */
static int co_empty_log(struct vhdx *v)
{
    static const uint8_t none[16];
    TRY(co_meta_settle(v->map.meta, !v->map.fresh));
    if (!uuid_is_nil(v->h.log_guid))
        TRY(co_name_log(v, none));
    v->log.used = 0;
    return 0;
}

int co_vhdx_direct(struct vhdx *v, bool direct)
{
    if (direct && v->units.begun)
        TRY(co_empty_log(v));
    v->direct = direct;
    return 0;
}

/* --- a session --- */

int co_vhdx_begin(struct map *m)
{
    struct vhdx *v = vhdx_of(m);
    struct vhdx_header before = v->h;
    if (m->fresh)
        return 0;
    if (v->broken)
        return -EIO;
    host_uuid(m->dev->host, v->h.file_write);
    host_uuid(m->dev->host, v->h.data_write);
    int rc = co_put_headers(v);
    if (rc < 0) { /* which of them is on disk, nobody knows */
        memcpy(v->h.file_write, before.file_write, 16);
        memcpy(v->h.data_write, before.data_write, 16);
        map_write_again(m); /* a flush must not succeed before that is settled */
    }
    return rc == 0 && v->unsure ? co_vhdx_publish(m) : rc;
}

int co_vhdx_end(struct map *m)
{
    struct vhdx *v = vhdx_of(m);
    return m->fresh ? 0 : v->broken ? -EIO : co_empty_log(v);
}

static int co_own_bitmaps(struct map *m)
{
    struct vhdx *v = vhdx_of(m);
    uint64_t chunks = div_up(div_up(m->shape.size, m->cluster_bytes), v->chunk_ratio), at;
    for (uint64_t i = 0; i < chunks && v->d.has_parent; i++) {
        TRY(co_vhdx_bitmap_place(m, i, &at));
        if (at)
            TRY(map_units_reserve(m, at, MiB));
    }
    return 0;
}

int co_vhdx_reserve(struct map *m)
{
    const struct vhdx *v = vhdx_of(m);
    const struct vhdx_regions *r = &v->regions;
    uint64_t table = align_up(MAX(m->shape.root_entries * 8, 1), MiB);
    if (m->shape.root_offset == r->table.offset) /* as long as somebody made it */
        table = MAX(table, r->table.bytes);
    TRY(map_units_reserve(m, v->h.log_offset, v->h.log_bytes));
    TRY(map_units_reserve(m, r->metadata.offset, r->metadata.bytes));
    TRY(map_units_reserve(m, m->shape.root_offset, table));
    for (unsigned i = 0; i < r->other_count; i++)
        TRY(map_units_reserve(m, r->others[i].offset, r->others[i].bytes));
    return co_own_bitmaps(m);
}

/* --- size and place of the table --- */

/* Both region tables have only the table's entry changed; all of it lies in their first page where
 * we made them, else wherever. */
static int change_regions(struct vhdx_regions_disk *raw, const struct vhdx_region *table)
{
    for (uint32_t i = 0; i < MIN(le32_get(raw->count), 2047); i++) {
        struct vhdx_region_disk *r = &raw->regions[i];
        if (memcmp(r->guid, vhdx_guid_table, 16) != 0)
            continue;
        r->offset = le64_of(table->offset);
        r->bytes = le32_of(table->bytes);
        vhdx_seal(raw, sizeof(*raw));
        return i * sizeof(*r) + 16 + sizeof(*r) <= VHDX_PAGE ? 0 : -ENOTSUP;
    }
    return -EINVAL;
}

struct publication {
    struct vhdx_regions_disk regions;
    uint8_t size_page[2 * VHDX_PAGE]; /* the item may lie across two */
};

static int co_prepare_pages(struct vhdx *v, struct publication *p, const struct vhdx_region *table,
                            struct vhdx_page pages[4])
{
    uint64_t item = v->regions.metadata.offset + v->d.at[VHDX_ITEM_SIZE].offset;
    uint64_t at = align_down(item, VHDX_PAGE);
    le64 size = le64_of(v->map.shape.size);
    struct blk_error ignored;
    struct vhdx_regions parsed;
    TRY(co_vhdx_read_meta(v, VHDX_REGIONS_AT(0), &p->regions, sizeof(p->regions)));
    if (vhdx_regions_parse(&p->regions, &v->h, &parsed, &ignored) < 0)
        TRY(co_vhdx_read_meta(v, VHDX_REGIONS_AT(1), &p->regions, sizeof(p->regions)));
    TRY(change_regions(&p->regions, table));
    TRY(co_vhdx_read_meta(v, at, p->size_page, sizeof(p->size_page)));
    memcpy(p->size_page + (item - at), &size, sizeof(size));
    pages[0] = (struct vhdx_page){VHDX_REGIONS_AT(0), &p->regions};
    pages[1] = (struct vhdx_page){VHDX_REGIONS_AT(1), &p->regions};
    pages[2] = (struct vhdx_page){at, p->size_page};
    pages[3] = (struct vhdx_page){at + VHDX_PAGE, p->size_page + VHDX_PAGE};
    return 0;
}

static int co_publish_pages(struct vhdx *v, const struct vhdx_page *pages, uint32_t count)
{
    TRY(co_append(v, pages, count, true));
    for (uint32_t i = 0; i < count; i++)
        TRY(co_blk_write_buf(v->map.file, pages[i].offset, pages[i].bytes, VHDX_PAGE, 0));
    TRY(co_sync(v));
    return co_empty_log(v);
}

/* --- metadata --- */

int co_vhdx_edit(struct vhdx *v, struct vhdx_edit *edit, uint64_t offset, const void *bytes,
                 size_t count)
{
    const uint8_t *from = bytes;
    while (count) {
        uint64_t at = align_down(offset, VHDX_PAGE), skip = offset - at;
        size_t n = MIN(count, VHDX_PAGE - skip);
        unsigned i = 0;
        while (i < edit->count && edit->pages[i].offset != at)
            i++;
        if (i == VHDX_EDIT_PAGES)
            return -EFBIG;
        if (i == edit->count) {
            TRY(co_vhdx_read_meta(v, at, edit->bytes[i], VHDX_PAGE));
            edit->pages[edit->count++] = (struct vhdx_page){at, edit->bytes[i]};
        }
        memcpy(edit->bytes[i] + skip, from, n);
        from += n;
        offset += n;
        count -= n;
    }
    return 0;
}

int co_vhdx_apply(struct vhdx *v, const struct vhdx_edit *edit)
{
    if (v->broken)
        return -EIO;
    if (v->unsure)
        TRY(co_map_will_write(&v->map));
    if (!v->units.begun)
        host_uuid(v->map.dev->host, v->h.file_write);
    TRY(co_empty_log(v));
    v->broken = true;
    TRY(co_publish_pages(v, edit->pages, edit->count));
    v->broken = false;
    return 0;
}

static int co_complete(struct vhdx *v)
{
    TRY(co_blk_write_buf(v->map.file, 0, "vhdxfile", 8, 0));
    return co_sync(v);
}

/* After a failure the log may hold the new state, which a replay would bring back: the next session
 * begins with publishing the old one, over it. */
int co_vhdx_publish(struct map *m)
{
    struct vhdx *v = vhdx_of(m);
    struct vhdx_region table = {m->shape.root_offset, v->regions.table.bytes};
    struct vhdx_page pages[4];
    uint64_t used = m->shape.root_entries * 8;
    if (m->fresh)
        return m->units->unfinished ? 0 : co_complete(v);
    if (table.offset != v->regions.table.offset) {
        table.bytes = align_up(used, MiB);
        TRY(co_blk_write_zeroes(m->file, table.offset + used, table.bytes - used, 0));
    }
    auto_free struct publication *p = mem_alloc(sizeof(*p));
    if (!p)
        return -ENOMEM;
    if (!v->unsure)
        TRY(co_empty_log(v));
    TRY(co_prepare_pages(v, p, &table, pages));
    v->unsure = true;
    TRY(co_publish_pages(v, pages, 4));
    v->unsure = false;
    v->regions.table = table;
    return 0;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* gpt_edit.c - changes of a GUID partition table, and their order on disk.
 *
 * A change is made in memory, on a table of its own; then both copies are written so that at each
 * moment one of them is whole:
 *
 *  1 The copy that was not read from (as a rule the one at the end): entries, header. A crash
 *    leaves the copy that was read from, which shows the old table.
 *  2 Flush.
 *  3 The copy that was read from, and the protective MBR. A crash may tear it; then the one of
 *    step 1 is found, for it lies in the disk's last sectors (or is the first one).
 *  4 Flush. Only now the table in memory is the new one.
 *  5 If the second copy moved (the disk has grown): its old header is wiped, and flushed, so that
 *    nobody takes it for the table of a disk that ends there. */
#include <stdlib.h>

#include "block/utf16.h"
#include "volumes/gpt.h"
#include "volumes/mbr.h"

#define ALIGN_BYTES MiB /* where partitions begin, as everybody's do */

const struct opt_desc gpt_create_options[] = {
    {.name = "sector-size",
     .type = OPT_ENUM,
     .choices = part_sector_sizes,
     .preset = "512",
     .help = "bytes in a sector of the disk"},
    {.name = "uuid", .type = OPT_STRING, .help = "of the disk (else a random one)"},
    {0},
};

const struct opt_desc gpt_inner_options[] = {
    {.name = "number", .type = OPT_INT, .min = 1, .max = 8192, .help = "N of pN (the first free)"},
    {.name = "start", .type = OPT_SIZE, .help = "where it begins (where there is room)"},
    {.name = "size", .type = OPT_SIZE, .help = "its length (all the room there)"},
    {.name = "type",
     .type = OPT_STRING,
     .preset = "linux",
     .help = "linux, swap, lvm, raid, uefi, ...; a code as 8300; or a GUID"},
    {.name = "label", .type = OPT_STRING, .help = "its name"},
    {.name = "uuid", .type = OPT_STRING, .help = "of the partition (else a random one)"},
    {0},
};

/* --- writing ------------------------------------------------------------------------------------
 */

/* A table on its way to the disk. */
struct change {
    struct blk_device *file;
    uint32_t sector_bytes;
    struct gpt_header first, second;
    uint8_t *entries; /* owned */
    uint64_t wipe;    /* sector of a header that is none any more; 0: none */
};

static int co_write_copy(const struct change *c, const struct gpt_header *h)
{
    auto_free uint8_t *raw = mem_aligned(c->sector_bytes);
    if (!raw)
        return -ENOMEM;
    memset(raw, 0, c->sector_bytes);
    gpt_header_build(h, raw);
    TRY(co_blk_write_buf(c->file, h->entries_at * c->sector_bytes, c->entries, gpt_entries_bytes(h),
                         0));
    return co_blk_write_buf(c->file, h->own * c->sector_bytes, raw, c->sector_bytes, 0);
}

/* The protective entry covers the disk; others (a hybrid table's) and the boot code stay. */
static int co_write_mbr(const struct change *c)
{
    struct mbr_disk m;
    uint64_t rest = c->file->size / c->sector_bytes - 1;
    TRY(co_blk_read_buf(c->file, 0, &m, sizeof(m)));
    if (!mbr_is_sane(&m) || !mbr_is_used(&m)) {
        memset(m.entries, 0, sizeof(m.entries));
        m.entries[0] = (struct mbr_entry_disk){.first_chs = {0, 2, 0},
                                               .type = MBR_GPT,
                                               .last_chs = {0xff, 0xff, 0xff},
                                               .start = le32_of(1)};
        m.signature[0] = 0x55;
        m.signature[1] = 0xaa;
    }
    struct mbr_entry_disk *d = &m.entries[0];
    if (d->type == MBR_GPT && le32_get(d->start) == 1)
        d->sectors = le32_of((uint32_t)MIN(rest, UINT32_MAX));
    return co_blk_write_buf(c->file, 0, &m, sizeof(m), 0);
}

static int co_write_first(const struct change *c)
{
    TRY(co_write_mbr(c));
    return co_write_copy(c, &c->first);
}

static int co_write_both(const struct change *c, bool first_first)
{
    TRY(first_first ? co_write_first(c) : co_write_copy(c, &c->second));
    TRY(co_blk_flush(c->file));
    TRY(first_first ? co_write_copy(c, &c->second) : co_write_first(c));
    return co_blk_flush(c->file);
}

static int co_wipe(const struct change *c)
{
    TRY(co_blk_write_zeroes(c->file, c->wipe * c->sector_bytes, c->sector_bytes, 0));
    return co_blk_flush(c->file);
}

/* Both headers, with the second copy in the disk's last sectors. */
static int place(struct change *c, const struct gpt_header *was, struct blk_error *e)
{
    uint64_t sectors = c->file->size / c->sector_bytes;
    uint64_t list = gpt_entries_sectors(was, c->sector_bytes);
    if (sectors < 2 * list + 4)
        return err_set(e, -ENOSPC, "the disk is too small for a partition table");
    c->first = *was;
    c->first.entries_crc = gpt_crc(c->entries, gpt_entries_bytes(was));
    c->first.own = 1;
    c->first.entries_at = 2;
    c->first.other = sectors - 1;
    c->first.first = MAX(was->first, 2 + list);
    c->first.last = sectors - 2 - list;
    c->second = c->first;
    c->second.own = sectors - 1;
    c->second.other = 1;
    c->second.entries_at = sectors - 1 - list;
    return 0;
}

/* Nothing may lie behind the room that is left. */
static int check_room(const struct gpt *g, const struct change *c, struct blk_error *e)
{
    uint64_t end = (c->first.last + 1) * c->sector_bytes;
    for (size_t i = 0; i < g->t.count; i++) {
        const struct part *p = &g->t.list[i];
        if (p->offset < c->first.first * c->sector_bytes || !range_fits(p->offset, p->bytes, end))
            return err_set(e, -EINVAL,
                           "p%u lies outside of what the table has room for: it ends at %" PRIu64
                           ", the room at %" PRIu64,
                           p->number, p->offset + p->bytes, end);
    }
    return 0;
}

/* A copy of @g that is to be changed; drop_draft(). */
static int draft_of(const struct gpt *g, struct gpt *draft, struct blk_error *e)
{
    uint64_t bytes = gpt_entries_bytes(&g->header);
    *draft = *g;
    draft->t.list = NULL;
    draft->t.count = 0;
    draft->entries = mem_aligned(bytes);
    if (!draft->entries)
        return err_set(e, -ENOMEM, "out of memory");
    memcpy(draft->entries, g->entries, bytes);
    return gpt_list(draft) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static void drop_draft(struct gpt *draft)
{
    part_forget_all(&draft->t);
    mem_free(draft->entries);
}

/* Writes @draft and makes it the table. */
static int co_publish(struct gpt *g, struct gpt *draft, struct blk_error *e)
{
    struct change c = {
        .file = g->t.file, .sector_bytes = g->t.sector_bytes, .entries = draft->entries};
    if (gpt_list(draft) < 0)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(place(&c, &draft->header, e));
    TRY(check_room(draft, &c, e));
    uint64_t old_second = g->from_second ? g->header.own : g->header.other;
    if (old_second < c.second.entries_at && g->second_good)
        c.wipe = old_second;
    int rc = co_write_both(&c, g->from_second);
    if (rc < 0)
        return err_errno(e, rc, "the partition table cannot be written");
    draft->header = c.first;
    draft->from_second = false;
    draft->first_good = draft->second_good = true;
    draft->damage[0] = '\0';
    struct gpt old = *g;
    *g = *draft;
    *draft = old;
    rc = c.wipe ? co_wipe(&c) : 0;
    return rc < 0 ? err_errno(e, rc, "the table's old second copy cannot be wiped") : 0;
}

/* --- creating -----------------------------------------------------------------------------------
 */

int co_gpt_create(const struct blk_create *c, struct blk_error *e)
{
    struct change new = {.file = c->file,
                         .sector_bytes = opts_number(c->opts, "sector-size") == 1 ? 4096 : 512};
    struct gpt_header h = {.entries = GPT_ENTRIES, .entry_bytes = sizeof(struct gpt_entry_disk)};
    TRY(uuid_choose(c->file->host, opts_text(c->opts, "uuid"), h.disk, e));
    auto_free uint8_t *entries = mem_aligned(gpt_entries_bytes(&h));
    if (!entries)
        return err_set(e, -ENOMEM, "out of memory");
    memset(entries, 0, gpt_entries_bytes(&h));
    new.entries = entries;
    TRY(place(&new, &h, e));
    int rc = co_write_both(&new, false);
    return rc < 0 ? err_errno(e, rc, "the partition table cannot be written") : 0;
}

/* --- adding -------------------------------------------------------------------------------------
 */

static int by_offset(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The room for @size bytes (0: the largest there is), from *start on where that is told (not 0). */
static int find_room(struct gpt *g, uint64_t *start, uint64_t *size, struct blk_error *e)
{
    uint64_t list = gpt_entries_sectors(&g->header, g->t.sector_bytes);
    uint64_t end = (g->t.file->size / g->t.sector_bytes - 1 - list) * g->t.sector_bytes;
    uint64_t at = g->header.first * g->t.sector_bytes, best = 0, best_bytes = 0;
    if (g->t.count)
        qsort(g->t.list, g->t.count, sizeof(*g->t.list), by_offset);
    for (size_t i = 0; i <= g->t.count; i++) {
        uint64_t until = i < g->t.count ? MIN(g->t.list[i].offset, end) : end;
        uint64_t from = *start ? *start : align_up(at, ALIGN_BYTES);
        uint64_t bytes = from >= at && from < until ? until - from : 0;
        if (bytes >= MAX(*size, 1) && bytes > best_bytes && !(*size && best_bytes)) {
            best = from;
            best_bytes = bytes;
        }
        if (i < g->t.count)
            at = MAX(at, g->t.list[i].offset + g->t.list[i].bytes);
    }
    if (!best_bytes)
        return err_set(e, -ENOSPC, "there is no room for a partition%s", *start ? " there" : "");
    *start = best;
    *size = *size ? *size : best_bytes;
    return 0;
}

/* Where it is to lie, in whole sectors. */
static int wanted_room(struct gpt *g, const struct opts *o, uint64_t *start, uint64_t *size,
                       struct blk_error *e)
{
    uint64_t sector = g->t.sector_bytes;
    *start = opts_given(o, "start") ? opts_number(o, "start") : 0;
    *size = opts_given(o, "size") ? opts_number(o, "size") : 0;
    if ((opts_given(o, "size") && *size == 0) || (opts_given(o, "start") && *start == 0) ||
        *size > g->t.file->size || *start % sector)
        return err_set(e, -EINVAL,
                       "a partition's start must be a multiple of %" PRIu64
                       ", and its length less than the disk's",
                       sector);
    *size = align_up(*size, sector);
    return find_room(g, start, size, e);
}

static int wanted_number(const struct gpt *g, const struct opts *o, unsigned *number,
                         struct blk_error *e)
{
    unsigned last = g->header.entries;
    if (opts_given(o, "number")) {
        uint64_t told = opts_number(o, "number");
        if (told > last || gpt_entry_used(gpt_entry(g, (unsigned)told)))
            return err_set(e, -EEXIST, "p%" PRIu64 " %s", told,
                           told > last ? "is more than the table has room for"
                                       : "is there already");
        *number = (unsigned)told;
        return 0;
    }
    for (unsigned n = 1; n <= last; n++)
        if (!gpt_entry_used(gpt_entry(g, n))) {
            *number = n;
            return 0;
        }
    return err_set(e, -ENOSPC, "the table has no room for another partition: delete one first");
}

static int fill_entry(struct gpt *g, const struct opts *o, struct gpt_entry_disk *d,
                      struct blk_error *e)
{
    uint8_t type[16], uuid[16];
    uint64_t start, size;
    const char *label = opts_text(o, "label");
    if (!part_type_parse(opts_text(o, "type"), type) || uuid_is_nil(type))
        return err_set(e, -EINVAL,
                       "'%.60s' is no type of partitions: a word (linux, swap, lvm, "
                       "raid, uefi), a code of sgdisk's (8300) or a GUID",
                       opts_text(o, "type"));
    TRY(uuid_choose(g->t.file->host, opts_text(o, "uuid"), uuid, e));
    TRY(wanted_room(g, o, &start, &size, e));
    memset(d, 0, sizeof(*d));
    if (label && *label && utf16_from_text(label, false, d->name, sizeof(d->name)) == 0)
        return err_set(e, -EINVAL, "the label is longer than 36 characters, or no UTF-8");
    uuid_swap(type, d->type);
    uuid_swap(uuid, d->uuid);
    d->first = le64_of(start / g->t.sector_bytes);
    d->last = le64_of((start + size) / g->t.sector_bytes - 1);
    return 0;
}

static int co_add(struct gpt *g, struct gpt *draft, const struct opts *o, char **name,
                  struct blk_error *e)
{
    unsigned number = 0;
    struct gpt_entry_disk d;
    TRY(wanted_number(draft, o, &number, e));
    TRY(fill_entry(draft, o, &d, e));
    memcpy(gpt_entry(draft, number), &d, sizeof(d));
    auto_free char *text = mem_printf("p%u", number);
    if (!text)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(co_publish(g, draft, e));
    *name = take(text);
    return 0;
}

int co_gpt_add(struct blk_device *dev, const struct opts *opts, char **name, struct blk_error *e)
{
    struct gpt *g = dev->state, draft;
    int rc = draft_of(g, &draft, e);
    if (rc == 0)
        rc = co_add(g, &draft, opts, name, e);
    drop_draft(&draft);
    return rc;
}

/* --- deleting, growing --------------------------------------------------------------------------
 */

static int no_such(const char *name, struct blk_error *e)
{
    return err_set(e, -ENOENT, "there is no partition%s%.60s", name ? " " : "", name ? name : "");
}

int co_gpt_delete(struct blk_device *dev, const char *name, struct blk_error *e)
{
    struct gpt *g = dev->state, draft;
    const struct part *p = part_find(&g->t, name);
    if (!p)
        return no_such(name, e);
    int rc = draft_of(g, &draft, e);
    if (rc == 0) {
        memset(gpt_entry(&draft, p->number), 0, g->header.entry_bytes);
        rc = co_publish(g, &draft, e);
    }
    drop_draft(&draft);
    return rc;
}

/* The end of the room behind @p: where the next one begins, or the second copy of the table. */
static int grow_entry(struct gpt *draft, const struct part *p, uint64_t *bytes, struct blk_error *e)
{
    uint64_t sector = draft->t.sector_bytes;
    uint64_t list = gpt_entries_sectors(&draft->header, draft->t.sector_bytes);
    uint64_t end = (draft->t.file->size / sector - 1 - list) * sector;
    end = part_next_start(&draft->t, p, end);
    if (end < p->offset + p->bytes)
        return err_set(e, -EINVAL, "p%u reaches past the end of the disk, or into another one",
                       p->number);
    /* As they begin, they end at a MiB, where that is no loss. */
    uint64_t even = align_down(end, ALIGN_BYTES);
    end = even > p->offset + p->bytes ? even : end;
    *bytes = end - p->offset;
    gpt_entry(draft, p->number)->last = le64_of(end / sector - 1);
    return 0;
}

int co_gpt_grow(struct blk_device *dev, const char *name, uint64_t *bytes, struct blk_error *e)
{
    struct gpt *g = dev->state, draft;
    const struct part *p = name ? part_find(&g->t, name) : part_last(&g->t);
    if (!p)
        return no_such(name, e);
    int rc = draft_of(g, &draft, e);
    if (rc == 0)
        rc = grow_entry(&draft, p, bytes, e);
    if (rc == 0)
        rc = co_publish(g, &draft, e);
    drop_draft(&draft);
    return rc;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* journal_disk.c - meta blocks of the journal parsed and sealed, and what of all records counts.
 * Bytes in, items out, no I/O; nothing of it is trusted.
 *
 * Of a stripe data are gathered until its parity comes: then all of them are whole. What comes
 * behind is alone again until the next parity, or until a flush says that the stripe is in place.
 */
#include "raid/journal.h"

#include "block/crc32c.h"

#define SECTOR        512
#define BLOCK_SECTORS (JOURNAL_BLOCK / SECTOR)

/* The register as it is, where others have it turned over. */
uint32_t journal_crc(uint32_t seed, const void *bytes, size_t count)
{
    return ~crc32c(seed, bytes, count);
}

void journal_seal(struct journal_meta_disk *m, uint32_t seed)
{
    m->crc = le32_of(0);
    m->crc = le32_of(journal_crc(seed, m, sizeof(*m)));
}

bool journal_is_meta(struct journal_meta_disk *m, uint32_t seed, uint64_t position)
{
    uint32_t crc = le32_get(m->crc), bytes = le32_get(m->bytes);
    m->crc = le32_of(0);
    return le32_get(m->magic) == JOURNAL_MAGIC && m->version == 1 &&
           le64_get(m->position) == position / SECTOR && bytes >= JOURNAL_HEAD &&
           bytes <= sizeof(*m) && crc == journal_crc(seed, m, sizeof(*m));
}

/* --- payloads ----------------------------------------------------------------------------------
 */

static int next_flush(const struct journal_meta_disk *m, unsigned *at, unsigned left,
                      struct journal_payload *out)
{
    const struct journal_flush_disk *f = (const void *)((const uint8_t *)m + *at);
    uint32_t bytes = le32_get(f->bytes);
    if (bytes % sizeof(f->stripe[0]) || bytes > left - sizeof(*f))
        return -EINVAL;
    out->stripes = f->stripe;
    out->stripe_count = bytes / (uint32_t)sizeof(f->stripe[0]);
    *at += (unsigned)sizeof(*f) + bytes;
    return 1;
}

int journal_next(const struct journal_meta_disk *m, const struct raid_shape *shape, unsigned *at,
                 struct journal_payload *out)
{
    const struct journal_payload_disk *p = (const void *)((const uint8_t *)m + *at);
    unsigned left = le32_get(m->bytes) - *at, kind;
    if (left == 0)
        return 0;
    if (left < sizeof(struct journal_flush_disk))
        return -EINVAL;
    kind = le16_get(p->kind);
    *out = (struct journal_payload){.kind = (enum journal_kind)kind};
    if (kind == JOURNAL_FLUSH)
        return next_flush(m, at, left, out);
    if (left < sizeof(*p) || kind > JOURNAL_FLUSH)
        return -EINVAL;
    out->blocks = kind == JOURNAL_DATA ? 1 : shape->level->parities;
    out->crc = p->crc;
    unsigned bytes = (unsigned)(sizeof(*p) + out->blocks * sizeof(p->crc[0]));
    if (le32_get(p->sectors) != out->blocks * BLOCK_SECTORS || bytes > left ||
        !mul_u64(le64_get(p->location), SECTOR, &out->location))
        return -EINVAL;
    *at += bytes;
    return 1;
}

static int add(struct journal_items *to, struct journal_item item)
{
    if (to->count == JOURNAL_ITEMS_MOST)
        return -EFBIG;
    if (to->count == to->room) {
        size_t room = MIN(to->room ? 2 * to->room : 256, JOURNAL_ITEMS_MOST);
        void *bigger = mem_resize(to->item, room * sizeof(item));
        if (!bigger)
            return -ENOMEM;
        to->item = bigger;
        to->room = room;
    }
    to->item[to->count++] = item;
    return 0;
}

/* Of the page of @role that begins at @offset in its data. */
static int add_page(struct journal_items *to, uint64_t offset, uint32_t block, uint32_t role,
                    enum journal_item_kind kind)
{
    if (offset % JOURNAL_BLOCK)
        return -EINVAL;
    return add(to, (struct journal_item){offset / JOURNAL_BLOCK, block, (uint16_t)role, kind});
}

static int add_data(const struct raid_shape *shape, const struct journal_payload *p, uint32_t block,
                    struct journal_items *to)
{
    if (!range_fits(p->location, JOURNAL_BLOCK, shape->size))
        return -EINVAL;
    struct raid_piece at = raid_place(shape, p->location, 0);
    return add_page(to, at.offset, block, at.disk, ITEM_DATA);
}

static int add_parity(const struct raid_shape *shape, const struct journal_payload *p,
                      uint32_t block, struct journal_items *to)
{
    if (!range_fits(p->location, JOURNAL_BLOCK, align_down(shape->member, shape->chunk)))
        return -EINVAL;
    struct raid_row row = raid_row(shape, p->location / shape->chunk);
    TRY(add_page(to, p->location, block, row.p, ITEM_PARITY));
    return p->blocks > 1 ? add_page(to, p->location, block + 1, row.q, ITEM_PARITY) : 0;
}

static int add_flushes(const struct journal_payload *p, uint32_t block, struct journal_items *to)
{
    uint64_t offset;
    for (unsigned i = 0; i < p->stripe_count; i++) {
        if (!mul_u64(le64_get(p->stripes[i]), SECTOR, &offset))
            return -EINVAL;
        TRY(add_page(to, offset, block, 0, ITEM_FLUSH));
    }
    return 0;
}

static int gather(const struct journal_meta_disk *m, const struct raid_shape *shape, uint32_t block,
                  struct journal_items *to)
{
    struct journal_payload p;
    unsigned at = JOURNAL_HEAD;
    int rc;
    for (block++; (rc = journal_next(m, shape, &at, &p)) > 0; block += p.blocks) {
        if (p.kind == JOURNAL_FLUSH)
            rc = add_flushes(&p, block, to);
        else if (p.kind == JOURNAL_DATA)
            rc = add_data(shape, &p, block, to);
        else
            rc = add_parity(shape, &p, block, to);
        TRY(rc);
    }
    return rc;
}

int journal_gather(const struct journal_meta_disk *m, const struct raid_shape *shape,
                   uint32_t block, struct journal_items *to)
{
    size_t before = to->count;
    int rc = gather(m, shape, block, to);
    if (rc < 0)
        to->count = before;
    return rc;
}

/* --- what counts -------------------------------------------------------------------------------
 */

/* Those of a page are in the order of the records. A flush has the number of the block that comes
 * next. */
static uint64_t order_of(const struct journal_item *item, bool by_page)
{
    return by_page ? item->page : (uint64_t)item->block << 16 | item->kind;
}

/* The highest bit in which items differ in that; 0: they do not. */
static uint64_t differing(const struct journal_item *item, size_t count, bool by_page)
{
    uint64_t bits = 0;
    for (size_t i = 1; i < count; i++)
        bits |= order_of(&item[i], by_page) ^ order_of(&item[0], by_page);
    return bits ? (uint64_t)1 << (63 - __builtin_clzll(bits)) : 0;
}

/* By page, then in the order of the records: bit by bit, those without it first. It takes no
 * memory, and no order makes it slow: there may be 48 MiB of them. */
static void sort_items(struct journal_item *item, size_t count)
{
    while (count > 1) {
        bool by_page = true;
        uint64_t bit = differing(item, count, by_page);
        if (bit == 0)
            bit = differing(item, count, by_page = false);
        if (bit == 0)
            return;
        size_t low = 0, high = count;
        while (low < high) {
            struct journal_item it = item[low];
            if (order_of(&it, by_page) & bit) {
                item[low] = item[--high];
                item[high] = it;
            } else {
                low++;
            }
        }
        sort_items(item, low);
        item += low;
        count -= low;
    }
}

/* Of one stripe, by role: the block that has it; 0: none. */
struct stripe {
    uint32_t whole[JOURNAL_DISKS_MOST], alone[JOURNAL_DISKS_MOST];
};

static void take_item(struct stripe *s, const struct journal_item *item, unsigned disks)
{
    if (item->kind == ITEM_FLUSH)
        memset(s, 0, sizeof(*s));
    if (item->kind == ITEM_DATA)
        s->alone[item->role] = item->block;
    if (item->kind != ITEM_PARITY)
        return;
    for (unsigned d = 0; d < disks; d++) {
        s->whole[d] = s->alone[d] ? s->alone[d] : s->whole[d];
        s->alone[d] = 0;
    }
    s->whole[item->role] = item->block;
}

/* In the place of the items that it was made of, which are no fewer. */
static size_t put_items(const struct stripe *s, uint64_t page, unsigned disks,
                        struct journal_items *to, size_t at)
{
    for (unsigned d = 0; d < disks; d++) {
        if (s->whole[d])
            to->item[at++] = (struct journal_item){page, s->whole[d], (uint16_t)d, ITEM_WHOLE};
        if (s->alone[d])
            to->item[at++] = (struct journal_item){page, s->alone[d], (uint16_t)d, ITEM_ALONE};
        to->alone += s->alone[d] != 0;
    }
    return at;
}

void journal_fold(struct journal_items *items, unsigned disks)
{
    struct stripe s;
    size_t kept = 0, i = 0;
    items->alone = 0;
    sort_items(items->item, items->count);
    while (i < items->count) {
        uint64_t page = items->item[i].page;
        memset(&s, 0, sizeof(s));
        for (; i < items->count && items->item[i].page == page; i++)
            take_item(&s, &items->item[i], disks);
        kept = put_items(&s, page, disks, items, kept);
    }
    items->count = kept;
}

size_t journal_find(const struct journal_items *items, uint64_t page)
{
    size_t low = 0, high = items->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (items->item[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* badblocks.c - see badblocks.h. */
#include "raid/badblocks.h"

#include "block/block.h"
#include "raid/super.h"

/* --- entries -----------------------------------------------------------------------------------
 */

static uint64_t entry_of(uint64_t start, uint64_t units)
{
    return start << 10 | units;
}

struct bad_range bad_range_of(uint64_t entry)
{
    uint64_t start = entry >> 10;
    return (struct bad_range){start, start + (entry & 1023)};
}

static unsigned entries_of(const struct bad_range *r)
{
    return (unsigned)div_up(r->end - r->start, BAD_LENGTH);
}

/* The range as entries, behind the @count that there are; false: there is no room for them. */
static bool put_entries(const struct bad_range *r, uint64_t *entries, unsigned *count,
                        unsigned room)
{
    if (entries_of(r) > room - *count)
        return false;
    for (uint64_t at = r->start; at < r->end; at += BAD_LENGTH)
        entries[(*count)++] = entry_of(at, MIN(BAD_LENGTH, r->end - at));
    return true;
}

static bool has_entry(const uint64_t *entries, unsigned count, uint64_t entry)
{
    for (unsigned i = 0; i < count; i++)
        if (entries[i] == entry)
            return true;
    return false;
}

/* --- what is bad now ---------------------------------------------------------------------------
 */

/* The first range that ends behind @unit. */
static unsigned find(const struct bad_list *l, uint64_t unit)
{
    unsigned low = 0, high = l->count;
    while (low < high) {
        unsigned mid = (low + high) / 2;
        if (l->range[mid].end > unit)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* Puts @count ranges in the place of those from @first to before @last. */
static void replace(struct bad_list *l, unsigned first, unsigned last,
                    const struct bad_range *ranges, unsigned count)
{
    memmove(&l->range[first + count], &l->range[last], (l->count - last) * sizeof(l->range[0]));
    memcpy(&l->range[first], ranges, count * sizeof(*ranges));
    l->count = l->count - (last - first) + count;
}

/* All units that [offset, +bytes) touches. */
static struct bad_range outward(const struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    return (struct bad_range){offset >> l->shift, ((offset + bytes - 1) >> l->shift) + 1};
}

/* With its neighbours, which it becomes one with: those from *first to before *last. */
static struct bad_range merged(const struct bad_list *l, struct bad_range r, unsigned *first,
                               unsigned *last)
{
    *first = *last = find(l, r.start ? r.start - 1 : 0);
    while (*last < l->count && l->range[*last].start <= r.end)
        ++*last;
    if (*first < *last) {
        r.start = MIN(r.start, l->range[*first].start);
        r.end = MAX(r.end, l->range[*last - 1].end);
    }
    return r;
}

static void add_range(struct bad_list *l, struct bad_range r)
{
    unsigned first, last;
    r = merged(l, r, &first, &last);
    replace(l, first, last, &r, 1);
}

bool bad_add(struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    unsigned first, last;
    struct bad_range r = merged(l, outward(l, offset, bytes), &first, &last);
    uint64_t entries = entries_of(&r);
    for (unsigned i = 0; i < l->count; i++)
        entries += i < first || i >= last ? entries_of(&l->range[i]) : 0;
    if (entries > l->room)
        return false;
    replace(l, first, last, &r, 1);
    return true;
}

bool bad_hits(const struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    if (likely(l->count == 0) || bytes == 0)
        return false;
    struct bad_range r = outward(l, offset, bytes);
    unsigned i = find(l, r.start);
    return i < l->count && l->range[i].start < r.end;
}

uint64_t bad_even(const struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = offset >> l->shift;
    unsigned i = find(l, unit);
    if (i == l->count)
        return bytes;
    const struct bad_range *r = &l->range[i];
    uint64_t edge = (r->start > unit ? r->start : r->end) << l->shift;
    return MIN(bytes, edge - offset);
}

/* What is left of the first range that it meets, and of the last. One in whose middle it lies
 * becomes two, if there is room; else it stays. */
void bad_clear(struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    struct bad_range left[2];
    unsigned count = 0;
    uint64_t start = div_up(offset, 1ull << l->shift), end = (offset + bytes) >> l->shift;
    unsigned first = find(l, start), last = first;
    while (last < l->count && l->range[last].start < end)
        last++;
    if (start >= end || first == last)
        return;
    if (l->range[first].start < start)
        left[count++] = (struct bad_range){l->range[first].start, start};
    if (l->range[last - 1].end > end)
        left[count++] = (struct bad_range){end, l->range[last - 1].end};
    if (l->count - (last - first) + count > l->room)
        return;
    replace(l, first, last, left, count);
    l->fewer = true;
}

void bad_parse(struct bad_list *l, const le64 *page)
{
    for (unsigned i = 0; i < l->room && le64_get(page[i]) != MD_BAD_END; i++) {
        struct bad_range r = bad_range_of(le64_get(page[i]));
        l->told[l->told_count++] = le64_get(page[i]);
        if (r.start < r.end && r.end <= UINT64_MAX >> l->shift)
            add_range(l, r);
    }
}

/* --- on the member -----------------------------------------------------------------------------
 */

int co_bad_load(struct blk_device *dev, const struct md_super *s, struct bad_list **out,
                struct blk_error *e)
{
    *out = NULL;
    if (s->bad_bytes == 0)
        return 0;
    if (s->bad_bytes > BAD_PAGE)
        return s->features & MD_BAD_BLOCKS
                   ? err_bad(
                         e, -EINVAL,
                         "the superblock is damaged: its list of bad blocks is longer than a page")
                   : 0;
    auto_free struct bad_list *l = mem_zalloc(sizeof(*l));
    auto_free le64 *page = mem_aligned(BAD_PAGE);
    if (!l || !page)
        return err_set(e, -ENOMEM, "out of memory");
    l->at = s->super_offset + (uint64_t)s->bad_offset;
    l->room = (unsigned)(s->bad_bytes / sizeof(le64));
    l->shift = s->bad_shift;
    if (s->features & MD_BAD_BLOCKS) {
        int rc = co_blk_read_buf(dev, l->at, page, s->bad_bytes);
        if (rc < 0)
            return err_errno(e, rc, "the list of bad blocks cannot be read");
        bad_parse(l, page);
        l->shown = true;
    }
    *out = take(l);
    return 0;
}

/* Writes the blocks of the page with entries @first to before @last, out of @count. */
static int co_put(struct blk_device *dev, const struct bad_list *l, const uint64_t *entries,
                  unsigned count, unsigned first, unsigned last)
{
    uint64_t block = MAX(dev->limits.request_align, 512), size = l->room * sizeof(le64);
    uint64_t from = align_down(first * sizeof(le64), block);
    uint64_t to = MIN(align_up(last * sizeof(le64), block), size);
    auto_free le64 *page = mem_aligned(BAD_PAGE);
    if (!page)
        return -ENOMEM;
    memset(page, 0xff, BAD_PAGE);
    for (unsigned i = 0; i < count; i++)
        page[i] = le64_of(entries[i]);
    return co_blk_write_buf(dev, l->at + from, (uint8_t *)page + from, to - from, BLK_FUA);
}

/* Behind the entries that are there; nothing of those is lost if it is torn. */
static int co_append(struct blk_device *dev, struct bad_list *l, unsigned count)
{
    unsigned before = l->told_count, end = MIN(count + 1, l->room); /* with the end mark */
    int rc = before < count ? co_put(dev, l, l->told, count, before, end) : 0;
    l->told_count = rc < 0 ? before : count;
    return rc;
}

int co_bad_tell(struct blk_device *dev, struct bad_list *l, uint64_t offset, uint64_t bytes)
{
    struct bad_range r = outward(l, offset, bytes);
    unsigned count = l->told_count;
    for (unsigned i = 0; i < l->told_count; i++)
        if (bad_range_of(l->told[i]).start <= r.start && bad_range_of(l->told[i]).end >= r.end)
            return 0;
    if (l->broken || !put_entries(&r, l->told, &count, l->room))
        return -ENOSPC;
    return co_append(dev, l, count);
}

/* The entries of @wanted that are there keep their order and move to the front. */
static int co_drop_others(struct blk_device *dev, struct bad_list *l, const uint64_t *wanted,
                          unsigned wanted_count)
{
    uint64_t block = MAX(dev->limits.request_align, 512) / sizeof(le64);
    unsigned count = 0, before = l->told_count;
    auto_free uint64_t *kept = mem_array(BAD_MOST, sizeof(*kept));
    if (!kept)
        return -ENOMEM;
    for (unsigned i = 0; i < before; i++)
        if (has_entry(wanted, wanted_count, l->told[i]) && !has_entry(kept, count, l->told[i]))
            kept[count++] = l->told[i];
    l->broken = true;
    for (unsigned at = 0; at < before && count < before; at += (unsigned)block)
        TRY(co_put(dev, l, kept, count, at, at + (unsigned)block));
    l->broken = false;
    memcpy(l->told, kept, count * sizeof(*kept));
    l->told_count = count;
    return 0;
}

int co_bad_forget(struct blk_device *dev, struct bad_list *l, const struct bad_list *before)
{
    auto_free struct bad_list *all = mem_alloc(sizeof(*all));
    auto_free uint64_t *wanted = mem_array(BAD_MOST, sizeof(*wanted));
    unsigned count = 0, told = l->told_count;
    bool fits = !l->broken && before->count + l->count <= BAD_MOST;
    if (!all || !wanted)
        return -ENOMEM;
    *all = *before;
    for (unsigned i = 0; i < l->count && fits; i++)
        add_range(all, l->range[i]);
    for (unsigned i = 0; i < all->count && fits; i++)
        fits = put_entries(&all->range[i], wanted, &count, l->room);
    for (unsigned i = 0; i < count && fits; i++) {
        bool there = has_entry(l->told, l->told_count, wanted[i]);
        fits = there || told < l->room;
        if (fits && !there)
            l->told[told++] = wanted[i];
    }
    if (!fits) /* what is on the member is more than what is bad: no harm */
        return 0;
    TRY(co_append(dev, l, told));
    return co_drop_others(dev, l, wanted, count);
}

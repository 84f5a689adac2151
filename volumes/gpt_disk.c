/* SPDX-License-Identifier: BSD-3-Clause */
/* gpt_disk.c - GPT's bytes to numbers and back, checked; no I/O. */
#include <zlib.h>

#include "block/utf16.h"
#include "volumes/gpt.h"

#define GPT_SIGNATURE "EFI PART"

uint32_t gpt_crc(const void *bytes, size_t count)
{
    return (uint32_t)crc32(0, bytes, (uInt)count);
}

static uint32_t header_crc(const uint8_t *raw, uint32_t header_bytes)
{
    static const uint8_t none[4];
    const size_t at = offsetof(struct gpt_header_disk, header_crc);
    uLong crc = crc32(0, raw, (uInt)at);
    crc = crc32(crc, none, sizeof(none));
    return (uint32_t)crc32(crc, raw + at + sizeof(none), (uInt)(header_bytes - at - sizeof(none)));
}

int gpt_header_parse(const uint8_t *raw, uint32_t sector_bytes, uint64_t own, uint64_t sectors,
                     struct gpt_header *out, struct blk_error *e)
{
    struct gpt_header_disk d;
    memcpy(&d, raw, sizeof(d));
    uint32_t header_bytes = le32_get(d.header_bytes);
    if (memcmp(d.signature, GPT_SIGNATURE, sizeof(d.signature)) != 0)
        return err_set(e, -ENODATA, "there is no header at sector %" PRIu64, own);
    if (le32_get(d.revision) >> 16 != 1)
        return err_bad(e, -EINVAL, "the header at sector %" PRIu64 " is of an unknown revision",
                       own);
    if (header_bytes < sizeof(d) || header_bytes > sector_bytes ||
        header_crc(raw, header_bytes) != le32_get(d.header_crc))
        return err_bad(e, -EINVAL, "the checksum of the header at sector %" PRIu64 " is wrong",
                       own);
    *out = (struct gpt_header){.own = le64_get(d.own),
                               .other = le64_get(d.other),
                               .first = le64_get(d.first),
                               .last = le64_get(d.last),
                               .entries_at = le64_get(d.entries_at),
                               .entries = le32_get(d.entries),
                               .entry_bytes = le32_get(d.entry_bytes),
                               .entries_crc = le32_get(d.entries_crc)};
    uuid_swap(d.disk, out->disk);
    if (out->own != own)
        return err_bad(e, -EINVAL, "the header at sector %" PRIu64 " was made for sector %" PRIu64,
                       own, out->own);
    if (out->entry_bytes < sizeof(struct gpt_entry_disk) || !is_pow2(out->entry_bytes) ||
        out->entries == 0 || gpt_entries_bytes(out) > GPT_ENTRIES_BYTES_MAX)
        return err_bad(e, -EINVAL,
                       "the header at sector %" PRIu64 " counts %" PRIu32 " entries of %" PRIu32
                       " bytes",
                       own, out->entries, out->entry_bytes);
    if (!range_fits(out->entries_at, gpt_entries_sectors(out, sector_bytes), sectors) ||
        out->entries_at < 2 || out->first > out->last)
        return err_bad(e, -EINVAL,
                       "the header at sector %" PRIu64 " has its entries at %" PRIu64
                       " and partitions from %" PRIu64 " to %" PRIu64,
                       own, out->entries_at, out->first, out->last);
    return 0;
}

void gpt_header_build(const struct gpt_header *h, uint8_t *raw)
{
    struct gpt_header_disk d = {.revision = le32_of(0x10000),
                                .header_bytes = le32_of(sizeof(d)),
                                .own = le64_of(h->own),
                                .other = le64_of(h->other),
                                .first = le64_of(h->first),
                                .last = le64_of(h->last),
                                .entries_at = le64_of(h->entries_at),
                                .entries = le32_of(h->entries),
                                .entry_bytes = le32_of(h->entry_bytes),
                                .entries_crc = le32_of(h->entries_crc)};
    memcpy(d.signature, GPT_SIGNATURE, sizeof(d.signature));
    uuid_swap(h->disk, d.disk);
    memcpy(raw, &d, sizeof(d));
    d.header_crc = le32_of(header_crc(raw, sizeof(d)));
    memcpy(raw, &d, sizeof(d));
}

bool gpt_entry_used(const struct gpt_entry_disk *d)
{
    return !mem_is_zero(d->type, sizeof(d->type));
}

static int list_one(struct gpt *g, unsigned number)
{
    const struct gpt_entry_disk *d = gpt_entry(g, number);
    uint64_t first = le64_get(d->first), last = le64_get(d->last), sectors;
    uint8_t type[16], uuid[16];
    if (!gpt_entry_used(d) || first > last || last > INT64_MAX / g->t.sector_bytes)
        return 0;
    struct part *p = part_add(&g->t);
    if (!p)
        return -ENOMEM;
    sectors = last - first + 1;
    uuid_swap(d->type, type);
    uuid_swap(d->uuid, uuid);
    p->number = number;
    p->offset = first * g->t.sector_bytes;
    p->bytes = sectors * g->t.sector_bytes;
    p->type_title = part_type_title(type);
    p->label = utf16_to_text(d->name, sizeof(d->name), false);
    uuid_text(type, p->type);
    uuid_text(uuid, p->uuid);
    return 0;
}

int gpt_list(struct gpt *g)
{
    part_forget_all(&g->t);
    for (unsigned n = 1; n <= g->header.entries; n++)
        TRY(list_one(g, n));
    return 0;
}

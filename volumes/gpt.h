/* SPDX-License-Identifier: BSD-3-Clause */
/* gpt.h - GUID partition tables: as they lie on disk, and in memory.
 *
 *   | protective MBR | header | entries | partitions ... | entries again | header again |
 *
 * The second header is the disk's last sector; each header says where the other one is, and is
 * sealed by a CRC-32, as the entries are. (UEFI specification, 5.3; numbers are little endian,
 * places are counted in sectors.) */
#ifndef VOLUMES_GPT_H
#define VOLUMES_GPT_H

#include "block/endian.h"
#include "volumes/part.h"

struct gpt_header_disk {
    char signature[8]; /* "EFI PART" */
    le32 revision;     /* 0x10000 */
    le32 header_bytes; /* 92 */
    le32 header_crc;   /* of header_bytes, itself zero */
    le32 reserved;     /* 0 */
    le64 own;          /* where this header lies */
    le64 other;        /* and the other one */
    le64 first, last;  /* that partitions may use */
    uint8_t disk[16];  /* GUID, Microsoft's order */
    le64 entries_at;   /* of this copy */
    le32 entries;      /* as many, used or not */
    le32 entry_bytes;  /* 128 times a power of two */
    le32 entries_crc;  /* of all of them */
};
static_assert(sizeof(struct gpt_header_disk) == 92, "GPT header");

struct gpt_entry_disk {
    uint8_t type[16]; /* GUID, Microsoft's order; zero: unused */
    uint8_t uuid[16]; /* likewise */
    le64 first, last; /* both are part of it */
    le64 attributes;
    uint8_t name[72]; /* UTF-16 */
};
static_assert(sizeof(struct gpt_entry_disk) == 128, "GPT entry");

#define GPT_ENTRIES_BYTES_MAX (1 * MiB)
#define GPT_ENTRIES           128

struct gpt_header {
    uint64_t own, other, first, last, entries_at; /* sectors */
    uint32_t entries, entry_bytes, entries_crc;
    uint8_t disk[16];
};

struct gpt {
    struct part_table t;          /* first */
    struct gpt_header header;     /* of the copy that was read */
    uint8_t *entries;             /* owned, as on disk */
    bool from_second;             /* that was the one at the end */
    bool first_good, second_good; /* copies */
    char damage[200];             /* what is wrong with the other copy; "": nothing */
};

/* --- gpt_disk.c: pure --------------------------------------------------------------------------
 */

/* @raw: one sector, found at @own of a disk of @sectors. */
must_use int gpt_header_parse(const uint8_t *raw, uint32_t sector_bytes, uint64_t own,
                              uint64_t sectors, struct gpt_header *out, struct blk_error *e);
/* Fills a zeroed sector. @h->entries_crc is that of the entries already. */
void gpt_header_build(const struct gpt_header *h, uint8_t *raw);
uint32_t gpt_crc(const void *bytes, size_t count);
static inline uint64_t gpt_entries_bytes(const struct gpt_header *h)
{
    return (uint64_t)h->entries * h->entry_bytes;
}
static inline uint64_t gpt_entries_sectors(const struct gpt_header *h, uint32_t sector_bytes)
{
    return div_up(gpt_entries_bytes(h), sector_bytes);
}
static inline struct gpt_entry_disk *gpt_entry(const struct gpt *g, unsigned number)
{
    assert(number >= 1 && number <= g->header.entries);
    return (struct gpt_entry_disk *)(g->entries + (size_t)(number - 1) * g->header.entry_bytes);
}
bool gpt_entry_used(const struct gpt_entry_disk *d);
/* g->t.list anew from g->entries. -ENOMEM. */
must_use int gpt_list(struct gpt *g);

/* --- gpt_edit.c --------------------------------------------------------------------------------
 */

extern const struct opt_desc gpt_create_options[], gpt_inner_options[];
int co_gpt_create(const struct blk_create *c, struct blk_error *e);
int co_gpt_add(struct blk_device *dev, const struct opts *opts, char **name, struct blk_error *e);
int co_gpt_delete(struct blk_device *dev, const char *name, struct blk_error *e);
int co_gpt_grow(struct blk_device *dev, const char *name, uint64_t *bytes, struct blk_error *e);

#endif

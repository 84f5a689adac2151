/* SPDX-License-Identifier: BSD-3-Clause */
/* vhdx_parse.c - headers, region table and metadata of a VHDX: bytes in, facts out, no I/O. */
#include "block/crc32c.h"
#include "block/uuid.h"
#include "imgfmt/vhdx.h"

#define CHECKSUM_AT  4
#define MOST_REGIONS 2047
#define MOST_ITEMS   2047

const uint8_t vhdx_guid_table[16] = {0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
                                     0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08};
const uint8_t vhdx_guid_metadata[16] = {0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
                                        0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e};
const uint8_t vhdx_guid_locator[16] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                       0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

const struct vhdx_item_known vhdx_items[VHDX_ITEMS] = {
    [VHDX_ITEM_FILE] = {{0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0,
                         0xaa, 0x44, 0xe7, 0x6b},
                        8,
                        "file parameters"},
    [VHDX_ITEM_SIZE] = {{0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe,
                         0xd8, 0x3b, 0xf4, 0xb8},
                        8,
                        "virtual disk size"},
    [VHDX_ITEM_ID] = {{0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0,
                       0x00, 0xc7, 0x46},
                      16,
                      "virtual disk id"},
    [VHDX_ITEM_LOGICAL] = {{0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33,
                            0xa8, 0xfa, 0xab, 0x5f},
                           4,
                           "logical sector size"},
    [VHDX_ITEM_PHYSICAL] = {{0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88,
                             0x52, 0x51, 0xc5, 0x56},
                            4,
                            "physical sector size"},
    [VHDX_ITEM_PARENT] = {{0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8,
                           0x48, 0x34, 0xab, 0x0c},
                          0,
                          "parent locator"},
};

static bool is_sealed(const void *structure, size_t bytes)
{
    le32 sum;
    memcpy(&sum, (const uint8_t *)structure + CHECKSUM_AT, sizeof(sum));
    return le32_get(sum) == crc32c_but(structure, bytes, CHECKSUM_AT);
}

void vhdx_seal(void *structure, size_t bytes)
{
    le32 sum = le32_of(crc32c_but(structure, bytes, CHECKSUM_AT));
    memcpy((uint8_t *)structure + CHECKSUM_AT, &sum, sizeof(sum));
}

/* --- the header --- */

static bool is_header(const struct vhdx_header_disk *raw)
{
    return memcmp(raw->signature, "head", 4) == 0 && is_sealed(raw, sizeof(*raw));
}

static int take_header(const struct vhdx_header_disk *raw, uint64_t file_bytes,
                       struct vhdx_header *out, struct blk_error *e)
{
    out->sequence = le64_get(raw->sequence);
    out->log_offset = le64_get(raw->log_offset);
    out->log_bytes = le32_get(raw->log_bytes);
    memcpy(out->file_write, raw->file_write, 16);
    memcpy(out->data_write, raw->data_write, 16);
    memcpy(out->log_guid, raw->log_guid, 16);
    if (le16_get(raw->version) != 1)
        return err_bad(e, -ENOTSUP, "VHDX version %u is unknown; 1 is", le16_get(raw->version));
    if (!uuid_is_nil(raw->log_guid) && le16_get(raw->log_version) != 0)
        return err_bad(e, -ENOTSUP, "a log of version %u is unknown; 0 is",
                       le16_get(raw->log_version));
    if (out->log_offset % MiB || out->log_bytes % MiB || out->log_offset < MiB ||
        out->log_bytes == 0 || !range_fits(out->log_offset, out->log_bytes, file_bytes))
        return err_bad(e, -EINVAL,
                       "the header puts a log of %u bytes at byte %" PRIu64 ", where it cannot be",
                       out->log_bytes, out->log_offset);
    if (out->sequence > UINT64_MAX / 2)
        return err_bad(e, -EINVAL, "header number %" PRIu64 " is too high", out->sequence);
    return 0;
}

int vhdx_header_choose(const struct vhdx_header_disk raw[2], uint64_t file_bytes,
                       struct vhdx_header *out, struct blk_error *e)
{
    bool good[2] = {is_header(&raw[0]), is_header(&raw[1])};
    uint64_t number[2] = {le64_get(raw[0].sequence), le64_get(raw[1].sequence)};
    if (!good[0] && !good[1])
        return err_bad(e, -EINVAL, "both headers are damaged");
    /* Some write both alike; then one is as good as the other. */
    if (good[0] && good[1] && number[0] == number[1] && memcmp(&raw[0], &raw[1], sizeof(raw[0])))
        return err_bad(e, -EINVAL, "both headers have number %" PRIu64 " and differ", number[0]);
    out->slot = !good[0] || (good[1] && number[1] > number[0]);
    return take_header(&raw[out->slot], file_bytes, out, e);
}

/* --- regions --- */

static bool overlap(const struct vhdx_region *a, const struct vhdx_region *b)
{
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

static int take_region(const struct vhdx_region_disk *raw, struct vhdx_regions *out,
                       struct blk_error *e)
{
    struct vhdx_region r = {le64_get(raw->offset), le32_get(raw->bytes)}, *to;
    char text[UUID_TEXT];
    uint8_t guid[16];
    if (r.offset % MiB || r.bytes % MiB || r.offset < MiB || r.bytes == 0 || r.offset > INT64_MAX)
        return err_bad(e, -EINVAL,
                       "the region table puts a region of %u bytes at byte %" PRIu64
                       ", where it cannot be",
                       r.bytes, r.offset);
    if (memcmp(raw->guid, vhdx_guid_table, 16) == 0) {
        to = &out->table;
    } else if (memcmp(raw->guid, vhdx_guid_metadata, 16) == 0) {
        to = &out->metadata;
    } else if (le32_get(raw->required) & 1) {
        uuid_swap(raw->guid, guid);
        uuid_text(guid, text);
        return err_bad(e, -ENOTSUP, "the image needs region %s, which is unknown", text);
    } else if (out->other_count == VHDX_OTHERS) {
        return err_bad(e, -EFBIG, "more than %d optional regions", VHDX_OTHERS);
    } else {
        to = &out->others[out->other_count++];
    }
    if (to->bytes)
        return err_bad(e, -EINVAL, "a region is named twice");
    *to = r;
    return 0;
}

static int check_regions(const struct vhdx_regions *r, const struct vhdx_header *h,
                         struct blk_error *e)
{
    const struct vhdx_region *all[VHDX_OTHERS + 3];
    struct vhdx_region log = {h->log_offset, h->log_bytes};
    unsigned n = 0;
    all[n++] = &log;
    all[n++] = &r->table;
    all[n++] = &r->metadata;
    for (unsigned i = 0; i < r->other_count; i++)
        all[n++] = &r->others[i];
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < i; k++)
            if (overlap(all[i], all[k]))
                return err_bad(e, -EINVAL, "the regions at %" PRIu64 " and %" PRIu64 " overlap",
                               all[i]->offset, all[k]->offset);
    return 0;
}

int vhdx_regions_parse(const struct vhdx_regions_disk *raw, const struct vhdx_header *h,
                       struct vhdx_regions *out, struct blk_error *e)
{
    uint32_t count = le32_get(raw->count);
    *out = (struct vhdx_regions){0};
    if (memcmp(raw->signature, "regi", 4) != 0 || !is_sealed(raw, sizeof(*raw)))
        return err_bad(e, -EINVAL, "the region table is damaged");
    if (count > MOST_REGIONS)
        return err_bad(e, -EINVAL, "a region table of %u entries; %u at most", count, MOST_REGIONS);
    for (uint32_t i = 0; i < count; i++)
        TRY(take_region(&raw->regions[i], out, e));
    if (!out->table.bytes || !out->metadata.bytes)
        return err_bad(e, -EINVAL, "the image has no %s region",
                       out->table.bytes ? "metadata" : "block table");
    return check_regions(out, h, e);
}

/* --- metadata --- */

static int refuse_item(const struct vhdx_item_disk *raw, struct blk_error *e)
{
    char text[UUID_TEXT];
    uint8_t guid[16];
    uuid_swap(raw->guid, guid);
    uuid_text(guid, text);
    return err_bad(e, -ENOTSUP, "the image needs metadata item %s, which is unknown", text);
}

static int take_item(const struct vhdx_item_disk *raw, uint32_t region_bytes,
                     struct vhdx_metadata *out, struct blk_error *e)
{
    struct vhdx_region at = {le32_get(raw->offset), le32_get(raw->bytes)};
    uint32_t flags = le32_get(raw->flags);
    unsigned i = 0;
    while (i < VHDX_ITEMS && memcmp(raw->guid, vhdx_items[i].guid, 16) != 0)
        i++;
    if (i == VHDX_ITEMS || flags & 1)
        return flags & 4 ? refuse_item(raw, e) : 0;
    if (out->at[i].bytes)
        return err_bad(e, -EINVAL, "%s is given twice", vhdx_items[i].name);
    if (at.offset < VHDX_TABLE_BYTES || at.bytes == 0 || at.bytes > MiB ||
        !range_fits(at.offset, at.bytes, region_bytes) ||
        (vhdx_items[i].bytes && at.bytes != vhdx_items[i].bytes))
        return err_bad(e, -EINVAL, "%s cannot take %u bytes at %" PRIu64, vhdx_items[i].name,
                       at.bytes, at.offset);
    out->at[i] = at;
    return 0;
}

int vhdx_metadata_parse(const struct vhdx_metadata_disk *raw, uint32_t region_bytes,
                        struct vhdx_metadata *out, struct blk_error *e)
{
    uint16_t count = le16_get(raw->count);
    *out = (struct vhdx_metadata){0};
    if (memcmp(raw->signature, "metadata", 8) != 0)
        return err_bad(e, -EINVAL, "the table of metadata is damaged");
    if (count > MOST_ITEMS)
        return err_bad(e, -EINVAL, "%u items of metadata; %u at most", count, MOST_ITEMS);
    for (uint16_t i = 0; i < count; i++)
        TRY(take_item(&raw->items[i], region_bytes, out, e));
    for (unsigned i = 0; i < VHDX_ITEM_PARENT; i++)
        if (!out->at[i].bytes)
            return err_bad(e, -EINVAL, "the metadata does not say the %s", vhdx_items[i].name);
    return 0;
}

static uint32_t number(const uint8_t *raw)
{
    le32 n;
    memcpy(&n, raw, sizeof(n));
    return le32_get(n);
}

static bool is_sector(uint32_t bytes)
{
    return bytes == 512 || bytes == 4096;
}

int vhdx_items_parse(const uint8_t raw[VHDX_ITEMS][16], struct vhdx_metadata *out,
                     struct blk_error *e)
{
    uint32_t flags = number(raw[VHDX_ITEM_FILE] + 4);
    le64 size;
    memcpy(&size, raw[VHDX_ITEM_SIZE], sizeof(size));
    out->size = le64_get(size);
    out->block_bytes = number(raw[VHDX_ITEM_FILE]);
    out->logical = number(raw[VHDX_ITEM_LOGICAL]);
    out->physical = number(raw[VHDX_ITEM_PHYSICAL]);
    out->fixed = flags & 1;
    out->has_parent = flags & 2;
    if (!is_pow2(out->block_bytes) || out->block_bytes < MiB || out->block_bytes > 256 * MiB)
        return err_bad(e, -EINVAL,
                       "the metadata says blocks of %u bytes; VHDX has 1 MiB to 256 MiB",
                       out->block_bytes);
    if (!is_sector(out->logical) || !is_sector(out->physical))
        return err_bad(e, -EINVAL,
                       "the metadata says sectors of %u and %u bytes; VHDX has 512 and 4096",
                       out->logical, out->physical);
    if (out->size % out->logical || out->size > VHDX_SIZE_MOST)
        return err_bad(e, -EINVAL,
                       "the metadata says a disk of %" PRIu64 " bytes, which is not possible",
                       out->size);
    if (out->has_parent && !out->at[VHDX_ITEM_PARENT].bytes)
        return err_bad(e, -EINVAL, "the image has a parent, and does not name it");
    return 0;
}

uint64_t vhdx_chunk_ratio(const struct vhdx_metadata *d)
{
    return (8 * MiB) * d->logical / d->block_bytes;
}

uint64_t vhdx_entries(const struct vhdx_metadata *d, uint64_t size)
{
    uint64_t blocks = div_up(size, d->block_bytes), ratio = vhdx_chunk_ratio(d);
    if (d->has_parent)
        return div_up(blocks, ratio) * (ratio + 1);
    return blocks ? blocks + (blocks - 1) / ratio : 0;
}

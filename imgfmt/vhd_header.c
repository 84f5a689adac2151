/* SPDX-License-Identifier: BSD-3-Clause */
/* vhd_header.c - footer and header of VHD images: bytes to trusted structs; pure. */
#include "imgfmt/vhd.h"

uint32_t vhd_checksum(const void *bytes, size_t count, size_t skip_at)
{
    const uint8_t *b = bytes;
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += i >= skip_at && i < skip_at + 4 ? 0 : b[i];
    return ~sum;
}

#define FOOTER_SUM(f) vhd_checksum(f, sizeof(*(f)), offsetof(struct vhd_footer_disk, checksum))
#define HEADER_SUM(h) vhd_checksum(h, sizeof(*(h)), offsetof(struct vhd_header_disk, checksum))

void vhd_seal_footer(struct vhd_footer_disk *f)
{
    f->checksum = be32_of(FOOTER_SUM(f));
}

void vhd_seal_header(struct vhd_header_disk *h)
{
    h->checksum = be32_of(HEADER_SUM(h));
}

bool vhd_is_footer(const void *bytes)
{
    return memcmp(bytes, "conectix", 8) == 0;
}

/* Programs that mean the size in the footer. Others (Virtual PC, QEMU by default) mean the
 * geometry. */
static bool creator_means_size(const char *creator)
{
    static const char sizes[][5] = {"win ", "qem2", "d2v ", "CTXS", "tap", "wa"};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        if (strncmp(creator, sizes[i], 4) == 0)
            return true;
    return false;
}

int vhd_footer_parse(const struct vhd_footer_disk *raw, bool by_size, bool fresh,
                     struct vhd_header *out, struct blk_error *e)
{
    uint32_t type = be32_get(raw->type);
    struct vhd_geometry g = {be16_get(raw->cylinders), raw->heads, raw->sectors};
    uint64_t by_geometry = vhd_geometry_sectors(&g);
    if (!vhd_is_footer(raw) && !(fresh && raw->cookie[0] == 0))
        return err_wrong_format(e, "not a VHD image");
    if (be32_get(raw->checksum) != FOOTER_SUM(raw))
        return err_bad(e, -EINVAL, "the footer's checksum is wrong");
    if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFFERENCING)
        return err_bad(e, -ENOTSUP,
                       "VHD type %u is unknown; 2 (fixed), 3 (dynamic), 4 (differencing) are",
                       type);
    uint64_t sectors = be64_get(raw->size) / 512;
    if (!by_size && !creator_means_size(raw->creator) && by_geometry && by_geometry != VHD_CHS_MOST)
        sectors = by_geometry;
    if (sectors > UINT32_MAX && type != VHD_FIXED)
        return err_bad(e, -EFBIG, "a disk of %" PRIu64 " sectors is too large for VHD", sectors);
    if (sectors > INT64_MAX / 512)
        return err_bad(e, -EFBIG, "a disk of %" PRIu64 " sectors is too large", sectors);
    *out = (struct vhd_header){
        .type = type, .size = sectors * 512, .header_offset = be64_get(raw->header_offset)};
    return 0;
}

/* Where what the header names ends; a locator's space is in bytes, or (by some) in sectors. */
static uint64_t locators_end(const struct vhd_header_disk *raw, uint64_t end, uint64_t file_bytes)
{
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator_disk *l = &raw->locators[i];
        uint64_t at = be64_get(l->offset), space = be32_get(l->space), stop;
        space = space < 512 ? space * 512 : space;
        if (l->platform[0] && add_u64(at, space, &stop) && stop <= file_bytes)
            end = MAX(end, stop);
    }
    return end;
}

int vhd_header_parse(const struct vhd_header_disk *raw, uint64_t file_bytes, struct vhd_header *out,
                     struct blk_error *e)
{
    out->table_offset = be64_get(raw->table_offset);
    out->entries = be32_get(raw->entries);
    out->block_bytes = be32_get(raw->block_bytes);
    uint64_t table_bytes = out->entries * 4ULL, header_end = out->header_offset + sizeof(*raw);
    if (memcmp(raw->cookie, "cxsparse", 8) != 0)
        return err_bad(e, -EINVAL, "there is no dynamic disk header at %" PRIu64,
                       out->header_offset);
    if (be32_get(raw->checksum) != HEADER_SUM(raw))
        return err_bad(e, -EINVAL, "the dynamic disk header's checksum is wrong");
    if (!is_pow2(out->block_bytes) || out->block_bytes < 4096 || out->block_bytes > 256 * MiB)
        return err_bad(
            e, -EINVAL,
            "the header says blocks of %u bytes: not a power of two from 4 KiB to 256 MiB",
            out->block_bytes);
    if (out->table_offset % 512 || out->table_offset < 512 ||
        !range_fits(out->table_offset, table_bytes, file_bytes))
        return err_bad(e, -EINVAL,
                       "the header puts the table of %u entries at byte %" PRIu64
                       ", where it cannot be",
                       out->entries, out->table_offset);
    if (out->size > out->entries * (uint64_t)out->block_bytes)
        return err_bad(e, -EINVAL, "%u blocks of %u bytes are too few for a disk of %" PRIu64,
                       out->entries, out->block_bytes, out->size);
    out->data_from = align_up(locators_end(raw, MAX(header_end, 512), file_bytes), 512);
    return 0;
}

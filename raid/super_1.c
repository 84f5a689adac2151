/* SPDX-License-Identifier: BSD-3-Clause */
/* super_1.c - superblocks of versions 1.0, 1.1 and 1.2. They differ in where they lie; the number
 * behind the point is not stored. */
#include "raid/super.h"

#define SECTOR 512

/* The sum of all little-endian words of the part that counts, its own field left out. */
static uint32_t checksum(const uint8_t *raw, unsigned max_dev)
{
    uint64_t sum = 0, bytes = 256 + 2 * (uint64_t)max_dev, at = 0;
    le32 word;
    for (; at + 4 <= bytes; at += 4) {
        memcpy(&word, raw + at, sizeof(word));
        if (at != offsetof(struct md_super_1, checksum))
            sum += le32_get(word);
    }
    if (at < bytes) {
        le16 half;
        memcpy(&half, raw + at, sizeof(half));
        sum += le16_get(half);
    }
    return (uint32_t)((sum & UINT32_MAX) + (sum >> 32));
}

/* Sectors as bytes; false if that cannot be. */
static bool to_bytes(le64 sectors, uint64_t *out)
{
    return mul_u64(le64_get(sectors), SECTOR, out) && *out <= INT64_MAX;
}

static int64_t signed_bytes(uint32_t sectors)
{
    return (int64_t)(int32_t)sectors * SECTOR;
}

static int bad(struct blk_error *e, const char *what, uint64_t value)
{
    return err_bad(e, -EINVAL, "the superblock is damaged: %s is %" PRIu64, what, value);
}

/* Whether @offset from the superblock on @bytes lie on the device before or behind the data. */
static bool extra_fits(const struct md_super *s, int64_t offset, uint64_t bytes, uint64_t device)
{
    int64_t at = (int64_t)s->super_offset + offset;
    if (at < 0 || !range_fits((uint64_t)at, bytes, device))
        return false;
    uint64_t begin = (uint64_t)at, end = begin + bytes;
    bool on_data = begin < s->data_offset + s->data_size && end > s->data_offset;
    bool on_super = begin < s->super_offset + 256 && end > s->super_offset;
    return bytes == 0 || (!on_data && !on_super);
}

static int parse_places(const struct md_super_1 *d, uint64_t bytes, struct md_super *s,
                        struct blk_error *e)
{
    uint64_t place;
    if (!to_bytes(d->super_offset, &place) || place != s->super_offset)
        return bad(e, "its own place (sector)", le64_get(d->super_offset));
    if (!to_bytes(d->data_offset, &s->data_offset))
        return bad(e, "the data's offset (sectors)", le64_get(d->data_offset));
    if (!to_bytes(d->data_size, &s->data_size) || s->data_size < 10 * SECTOR)
        return bad(e, "the data's size (sectors)", le64_get(d->data_size));
    uint64_t end = s->version == MD_1_0 ? s->super_offset : bytes;
    if (!range_fits(s->data_offset, s->data_size, end))
        return err_bad(e, -EINVAL,
                       "the superblock says that the data ends %" PRIu64
                       " bytes behind the member, which has "
                       "been cut off",
                       s->data_offset + s->data_size - end);
    if (s->version != MD_1_0 && s->data_offset < s->super_offset + md_super_bytes(s, SECTOR))
        return bad(e, "the data's offset (sectors)", le64_get(d->data_offset));
    return 0;
}

static int parse_extras(const struct md_super_1 *d, uint64_t bytes, struct md_super *s,
                        struct blk_error *e)
{
    if (s->features & MD_BITMAP) {
        s->bitmap_offset = signed_bytes(le32_get(d->bitmap_offset));
        if (!extra_fits(s, s->bitmap_offset, MD_BITMAP_HEADER, bytes))
            return err_bad(e, -EINVAL,
                           "the superblock is damaged: it puts the bitmap over something else");
    }
    if (s->features & (MD_PPL | MD_MULTIPLE_PPLS)) {
        s->ppl_offset = (int64_t)(int16_t)le16_get(d->ppl.offset) * SECTOR;
        s->ppl_bytes = le16_get(d->ppl.sectors) * (uint64_t)SECTOR;
        if (!extra_fits(s, s->ppl_offset, s->ppl_bytes, bytes))
            return err_bad(
                e, -EINVAL,
                "the superblock is damaged: it puts the partial parity log over something else");
    }
    s->bad_bytes = le16_get(d->bad_sectors) * (uint64_t)SECTOR;
    s->bad_offset = signed_bytes(le32_get(d->bad_offset));
    if (d->bad_shift > 40)
        return bad(e, "the unit of bad blocks (bits)", d->bad_shift);
    s->bad_shift = d->bad_shift + 9u;
    if (s->bad_offset == 0)
        s->bad_bytes = 0;
    if (!extra_fits(s, s->bad_offset, s->bad_bytes, bytes))
        return err_bad(e, -EINVAL,
                       "the superblock is damaged: it puts the bad block log over something else");
    return 0;
}

static int parse_reshape(const struct md_super_1 *d, uint64_t bytes, struct md_super *s,
                         struct blk_error *e)
{
    if (!(s->features & MD_RESHAPE))
        return 0;
    s->reshaping = true;
    s->new_level = (int32_t)le32_get(d->new_level);
    s->delta_disks = (int32_t)le32_get(d->delta_disks);
    s->new_layout = le32_get(d->new_layout);
    s->new_chunk = le32_get(d->new_chunk) * (uint64_t)SECTOR;
    if (s->features & MD_NEW_OFFSET)
        s->new_offset = signed_bytes(le32_get(d->new_offset));
    s->backwards = s->delta_disks < 0 || (s->features & MD_BACKWARDS);
    if (!to_bytes(d->reshape_position, &s->reshape_position))
        return bad(e, "the reshape's position (sectors)", le64_get(d->reshape_position));
    uint64_t end = s->version == MD_1_0 ? s->super_offset : bytes;
    int64_t begin = s->version == MD_1_0 ? 0 : (int64_t)md_super_end(s);
    int64_t moved = (int64_t)s->data_offset + s->new_offset;
    if (moved < begin || !range_fits((uint64_t)moved, s->size, end))
        return bad(e, "what is added to the data's offset (sectors)", le32_get(d->new_offset));
    if (s->delta_disks > MD_ROLES_1 || s->delta_disks < -(int)MD_ROLES_1 ||
        (int)s->disks - s->delta_disks < 1)
        return bad(e, "the number of members that are added", le32_get(d->delta_disks));
    return 0;
}

static int parse_state(const struct md_super_1 *d, struct md_super *s, struct blk_error *e)
{
    s->events = le64_get(d->events);
    s->resync_offset = le64_get(d->resync_offset);
    if (s->resync_offset != UINT64_MAX && !to_bytes(d->resync_offset, &s->resync_offset))
        return bad(e, "the resync's position (sectors)", le64_get(d->resync_offset));
    bool counts = s->features & (MD_RECOVERY | MD_JOURNAL);
    if (counts && !to_bytes(d->recovery_offset, &s->recovery_offset))
        return bad(e, "the recovery's position (sectors)", le64_get(d->recovery_offset));
    s->number = le32_get(d->dev_number);
    if (s->number >= MD_ROLES_1)
        return bad(e, "the member's number", s->number);
    s->role_count = le32_get(d->max_dev);
    for (unsigned i = 0; i < s->role_count; i++)
        s->roles[i] = le16_get(d->roles[i]);
    return 0;
}

static int parse_features(const struct md_super_1 *d, struct md_super *s, struct blk_error *e)
{
    s->features = le32_get(d->features);
    if (s->features & ~(unsigned)MD_KNOWN_FEATURES)
        return err_set(e, -EINVAL, "the array has features (0x%x) that are not known here",
                       s->features & ~(unsigned)MD_KNOWN_FEATURES);
    if (s->features & MD_CLUSTERED)
        return err_set(e, -EINVAL, "the array is clustered (md-cluster), which is not read here");
    unsigned logs = !!(s->features & MD_BITMAP) + !!(s->features & MD_JOURNAL) +
                    !!(s->features & MD_PPL) + !!(s->features & MD_MULTIPLE_PPLS);
    if (logs > 1)
        return err_bad(
            e, -EINVAL,
            "the superblock is damaged: it says more than one of bitmap, journal and PPL");
    static const uint8_t zero[32];
    s->read_only = memcmp(d->pad3, zero, sizeof(zero)) != 0;
    return 0;
}

int md_super_1_parse(enum md_version v, const uint8_t *raw, uint64_t bytes, struct md_super *s,
                     struct blk_error *e)
{
    const struct md_super_1 *d = (const struct md_super_1 *)raw;
    if (le32_get(d->magic) != MD_MAGIC || le32_get(d->major) != 1)
        return -ENODATA;
    if (le64_get(d->super_offset) != s->super_offset / SECTOR)
        return -ENODATA; /* of another version, found at a place that both could have */
    if (le32_get(d->max_dev) > MD_ROLES_1)
        return bad(e, "the number of roles", le32_get(d->max_dev));
    if (checksum(raw, le32_get(d->max_dev)) != le32_get(d->checksum))
        return err_bad(e, -EINVAL, "the superblock is damaged: its checksum is wrong");
    TRY(parse_features(d, s, e));
    memcpy(s->uuid, d->set_uuid, sizeof(s->uuid));
    memcpy(s->name, d->set_name, sizeof(d->set_name));
    memcpy(s->device_uuid, d->device_uuid, sizeof(s->device_uuid));
    s->ctime = le64_get(d->ctime) & ((1ull << 40) - 1);
    s->utime = le64_get(d->utime) & ((1ull << 40) - 1);
    s->level = (int32_t)le32_get(d->level);
    s->layout = s->level == 0 && !(s->features & MD_RAID0_LAYOUT) ? 0 : le32_get(d->layout);
    s->disks = le32_get(d->disks);
    s->chunk = le32_get(d->chunk) * (uint64_t)SECTOR;
    s->devflags = d->devflags;
    s->corrected_reads = le32_get(d->corrected_reads);
    if (s->disks > MD_ROLES_1)
        return bad(e, "the number of members", s->disks);
    if (!to_bytes(d->size, &s->size))
        return bad(e, "the members' size (sectors)", le64_get(d->size));
    TRY(parse_state(d, s, e));
    TRY(parse_places(d, bytes, s, e));
    bool has_data = md_super_role(s, s->number) != MD_ROLE_JOURNAL;
    if (s->level > 0 && has_data && s->size > s->data_size)
        return bad(e, "the members' size (sectors)", le64_get(d->size));
    TRY(parse_extras(d, bytes, s, e));
    return parse_reshape(d, bytes, s, e);
}

/* --- writing -----------------------------------------------------------------------------------
 */

static le32 to_sectors32(int64_t bytes)
{
    return le32_of((uint32_t)(bytes / SECTOR));
}

static void build_extras(const struct md_super *s, struct md_super_1 *d)
{
    if (s->features & MD_BITMAP) {
        d->bitmap_offset = to_sectors32(s->bitmap_offset);
    } else if (s->features & (MD_PPL | MD_MULTIPLE_PPLS)) {
        d->ppl.offset = le16_of((uint16_t)(s->ppl_offset / SECTOR));
        d->ppl.sectors = le16_of((uint16_t)(s->ppl_bytes / SECTOR));
    } else {
        d->bitmap_offset = le32_of(0);
    }
    d->bad_shift = s->bad_shift ? (uint8_t)(s->bad_shift - 9) : 0;
    d->bad_sectors = le16_of((uint16_t)(s->bad_bytes / SECTOR));
    d->bad_offset = to_sectors32(s->bad_offset);
}

static void build_reshape(const struct md_super *s, struct md_super_1 *d)
{
    d->new_level = le32_of(s->reshaping ? (uint32_t)s->new_level : 0);
    d->reshape_position = le64_of(s->reshaping ? s->reshape_position / SECTOR : 0);
    d->delta_disks = le32_of(s->reshaping ? (uint32_t)s->delta_disks : 0);
    d->new_layout = le32_of(s->reshaping ? s->new_layout : 0);
    d->new_chunk = le32_of(s->reshaping ? (uint32_t)(s->new_chunk / SECTOR) : 0);
    d->new_offset = s->reshaping ? to_sectors32(s->new_offset) : le32_of(0);
}

void md_super_1_build(struct md_super *s)
{
    struct md_super_1 *d = (struct md_super_1 *)s->raw;
    d->magic = le32_of(MD_MAGIC);
    d->major = le32_of(1);
    d->features = le32_of(s->features);
    memcpy(d->set_uuid, s->uuid, sizeof(d->set_uuid));
    memcpy(d->set_name, s->name, sizeof(d->set_name));
    memcpy(d->device_uuid, s->device_uuid, sizeof(d->device_uuid));
    d->ctime = le64_of(s->ctime);
    d->utime = le64_of(s->utime);
    d->level = le32_of((uint32_t)s->level);
    d->layout = le32_of(s->layout);
    d->size = le64_of(s->size / SECTOR);
    d->chunk = le32_of((uint32_t)(s->chunk / SECTOR));
    d->disks = le32_of(s->disks);
    build_extras(s, d);
    build_reshape(s, d);
    d->data_offset = le64_of(s->data_offset / SECTOR);
    d->data_size = le64_of(s->data_size / SECTOR);
    d->super_offset = le64_of(s->super_offset / SECTOR);
    d->recovery_offset =
        le64_of(s->recovery_offset == UINT64_MAX ? 0 : s->recovery_offset / SECTOR);
    d->dev_number = le32_of(s->number);
    d->corrected_reads = le32_of(s->corrected_reads);
    d->devflags = (uint8_t)s->devflags;
    d->events = le64_of(s->events);
    d->resync_offset =
        le64_of(s->resync_offset == UINT64_MAX ? UINT64_MAX : s->resync_offset / SECTOR);
    d->max_dev = le32_of(s->role_count);
    for (unsigned i = 0; i < s->role_count; i++)
        d->roles[i] = le16_of(s->roles[i]);
    d->checksum = le32_of(checksum(s->raw, s->role_count));
}

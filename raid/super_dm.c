/* SPDX-License-Identifier: BSD-3-Clause */
/* super_dm.c - the superblock that Linux' dm-raid keeps of each image of an array of LVM2.
 *
 * It has no UUID, no checksum and no table of roles, but a bit for each image that failed; here
 * these become roles. Positions that are all ones say "all of it". The write-intent bitmap follows
 * at 4 KiB, in md's own format. Both lie in front of the data, in a volume of their own, which who
 * opens the array puts there. */
#include "raid/super.h"

#define SECTOR       512
#define MAGIC        0x64526d44u /* DmRd */
#define IMAGES_MOST  256         /* that there are bits for */
#define IMAGES_FIRST 64          /* before there were the fields from new_level on */

enum { HAS_MORE = 1 };  /* compat: the fields from new_level on are valid */
enum { RESHAPING = 1 }; /* flags */

struct dm_super {
    le32 magic, compat;
    le32 images, position;
    le64 events;
    le64 failed;          /* images, a bit each */
    le64 recovery_offset; /* sectors of this image that are right */
    le64 resync_offset;   /* sectors that agree: of an image; level 10: of the array */
    le32 level, layout, stripe_sectors;
    le32 flags;
    le64 reshape_position;
    le32 new_level, new_layout, new_stripe_sectors, delta_images;
    le64 array_sectors;
    le64 data_offset, new_data_offset; /* sectors of the image */
    le64 sectors;                      /* of the image */
    le64 failed_more[3];               /* images from 64 on */
    le32 incompat;
};
static_assert(offsetof(struct dm_super, failed_more) == 120, "dm-raid superblock");
static_assert(offsetof(struct dm_super, incompat) == 144, "dm-raid superblock");

static bool has_more(const struct dm_super *d)
{
    return le32_get(d->compat) & HAS_MORE;
}

static le64 *failed_word(struct dm_super *d, unsigned image)
{
    return image < IMAGES_FIRST ? &d->failed : &d->failed_more[image / 64 - 1];
}

static bool has_failed(struct dm_super *d, unsigned image)
{
    return le64_get(*failed_word(d, image)) >> image % 64 & 1;
}

static int bad(struct blk_error *e, const char *what, uint64_t value)
{
    return err_bad(e, -EINVAL, "the superblock of dm-raid is damaged: %s is %" PRIu64, what, value);
}

/* Sectors, all ones as they are. */
static bool to_position(le64 sectors, uint64_t *out)
{
    *out = le64_get(sectors);
    return *out == UINT64_MAX || (mul_u64(*out, SECTOR, out) && *out <= INT64_MAX);
}

static le64 from_position(uint64_t bytes)
{
    return le64_of(bytes == UINT64_MAX ? bytes : bytes / SECTOR);
}

static int parse_state(struct dm_super *d, struct md_super *s, struct blk_error *e)
{
    s->events = le64_get(d->events);
    if (!to_position(d->resync_offset, &s->resync_offset))
        return bad(e, "the resync's position (sectors)", le64_get(d->resync_offset));
    if (!to_position(d->recovery_offset, &s->recovery_offset))
        return bad(e, "the recovery's position (sectors)", le64_get(d->recovery_offset));
    if (s->recovery_offset != UINT64_MAX)
        s->features |= MD_RECOVERY;
    s->number = le32_get(d->position);
    s->role_count = s->disks;
    for (unsigned i = 0; i < s->disks; i++)
        s->roles[i] = has_failed(d, i) ? MD_ROLE_FAULTY : (uint16_t)i;
    return 0;
}

/* Where the data lies; @bytes: of superblock, bitmap and image together. */
static int parse_places(const struct dm_super *d, uint64_t bytes, struct md_super *s,
                        struct blk_error *e)
{
    uint64_t more = 0;
    if (has_more(d) &&
        (!to_position(d->data_offset, &more) || !add_u64(s->data_offset, more, &s->data_offset)))
        return bad(e, "the data's offset (sectors)", le64_get(d->data_offset));
    if (s->data_offset < MD_SUPER_BYTES || s->data_offset >= bytes)
        return bad(e, "the data's offset", s->data_offset);
    s->data_size = s->size = align_down(bytes - s->data_offset, SECTOR);
    return 0;
}

int md_super_dm_parse(const uint8_t *raw, uint64_t bytes, uint64_t data_offset,
                      struct md_super *out, struct blk_error *e)
{
    *out = (struct md_super){
        .version = MD_DM_RAID, .data_offset = data_offset, .head_bytes = data_offset};
    memcpy(out->raw, raw, MD_SUPER_BYTES);
    struct dm_super *d = (struct dm_super *)out->raw;
    unsigned most = has_more(d) ? IMAGES_MOST : IMAGES_FIRST;
    if (le32_get(d->magic) != MAGIC)
        return -ENODATA;
    if (le32_get(d->incompat))
        return err_set(e, -ENOTSUP,
                       "the superblock of dm-raid is of a newer kernel than is known here");
    if (has_more(d) && (le32_get(d->flags) & RESHAPING))
        return err_set(e, -EBUSY, "the array is being reshaped: let Linux finish that");
    out->level = (int32_t)le32_get(d->level);
    out->layout = le32_get(d->layout);
    out->chunk = le32_get(d->stripe_sectors) * (uint64_t)SECTOR;
    out->disks = le32_get(d->images);
    if (out->disks == 0 || out->disks > most)
        return bad(e, "the number of images", out->disks);
    if (le32_get(d->position) >= out->disks)
        return bad(e, "the image's number", le32_get(d->position));
    out->features = MD_BITMAP; /* all levels that have a superblock keep one */
    out->bitmap_offset = MD_SUPER_BYTES;
    TRY(parse_places(d, bytes, out, e));
    return parse_state(d, out, e);
}

void md_super_dm_build(struct md_super *s)
{
    struct dm_super *d = (struct dm_super *)s->raw;
    d->magic = le32_of(MAGIC);
    d->images = le32_of(s->disks);
    d->position = le32_of(s->number);
    d->level = le32_of((uint32_t)s->level);
    d->layout = le32_of(s->layout);
    d->stripe_sectors = le32_of((uint32_t)(s->chunk / SECTOR));
    d->events = le64_of(s->events);
    d->resync_offset = from_position(s->resync_offset);
    d->recovery_offset = from_position(s->recovery_offset);
    d->failed = le64_of(0);
    if (has_more(d))
        memset(d->failed_more, 0, sizeof(d->failed_more));
    for (unsigned i = 0; i < s->disks; i++)
        if (md_super_role(s, i) == MD_ROLE_FAULTY) {
            le64 *word = failed_word(d, i);
            *word = le64_of(le64_get(*word) | 1ull << i % 64);
        }
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* foreign_imsm.c - Intel's metadata: one block, the same on all disks, little-endian. Its first
 * sector is the disk's second to last; what does not fit there lies in the sectors before that.
 *
 *     head, disks (48 bytes each), volumes: a head, one map or two (the second while it changes)
 *
 * A disk's own number is not stored: it is the one whose serial number it has. */
#include "block/endian.h"
#include "raid/foreign.h"

#define SECTOR     512
#define SIGNATURE  "Intel Raid ISM Cfg Sig. "
#define BYTES_MOST (IMSM_TAIL - SECTOR) /* of the block: what lies in the tail */

struct imsm_head {
    char signature[24], version[8];
    le32 checksum, bytes;
    le32 family, generation, error_log_bytes, attributes;
    uint8_t disks, volumes, pad0[6];
    le32 first_family;
    uint8_t pad1[148];
};
static_assert(sizeof(struct imsm_head) == 216, "head of Intel's metadata");

struct imsm_disk {
    char serial[16];
    le32 sectors, scsi, status, owner, sectors_high;
    uint8_t pad[12];
};
static_assert(sizeof(struct imsm_disk) == 48, "disk in Intel's metadata");

struct imsm_volume {
    char name[16];
    le32 sectors, sectors_high;
    uint8_t pad0[56];
    uint8_t checkpoint[8], changing, change, dirty;
    uint8_t pad1[21];
};
static_assert(sizeof(struct imsm_volume) == 112, "volume in Intel's metadata");
enum { CHANGE_MOVES = 3, CHANGE_STATE = 4 }; /* others only make copies and parity agree */

struct imsm_map {
    le32 offset, sectors, stripes; /* in each member; sectors may be more than the stripes are */
    le16 strip;                    /* sectors */
    uint8_t state, level, members, domains, failed, pad0;
    le32 offset_high, sectors_high, stripes_high;
    uint8_t pad1[16];
    le32 disk[]; /* by slot: number of the disk; the highest byte is flags */
};
static_assert(sizeof(struct imsm_map) == 48, "map in Intel's metadata");
#define DISK_NUMBER  0xffffffu
#define DISK_REBUILT (1u << 24) /* its data is not there yet */

struct reader {
    const uint8_t *raw;
    size_t bytes, at;
};

/* The next @bytes; NULL: that is more than there are. */
static const void *next(struct reader *r, size_t bytes)
{
    const void *p = r->raw + r->at;
    if (bytes > r->bytes - r->at)
        return NULL;
    r->at += bytes;
    return p;
}

static int cut(struct blk_error *e)
{
    return err_bad(e, -EINVAL, "Intel's metadata end in the middle of a table");
}

static uint64_t sectors_of(le32 low, le32 high)
{
    return (uint64_t)le32_get(high) << 32 | le32_get(low);
}

static const struct imsm_map *next_map(struct reader *r)
{
    const struct imsm_map *m = next(r, sizeof(*m));
    return m && next(r, m->members * sizeof(m->disk[0])) ? m : NULL;
}

static int take_level(const struct imsm_map *m, struct foreign_volume *v)
{
    v->level = m->level == 1 && m->members > 2 ? 10 : m->level;
    v->layout = v->level == 10 ? 0x102 : 0; /* level 5: left-asymmetric */
    return v->level == 0 || v->level == 1 || v->level == 5 || v->level == 10;
}

static int take_map(const struct imsm_map *m, const struct imsm_map *other,
                    const struct imsm_volume *d, struct foreign_volume *v, struct blk_error *e)
{
    uint64_t stripes = sectors_of(m->stripes, m->stripes_high), used;
    uint64_t room = sectors_of(m->sectors, m->sectors_high);
    uint64_t offset = sectors_of(m->offset, m->offset_high);
    uint64_t parts = m->level == 1 || m->level == 10 ? MAX(m->domains, 1) : 1; /* of the stripes */
    v->disks = m->members;
    v->chunk = le16_get(m->strip) * (uint64_t)SECTOR;
    if (!take_level(m, v))
        v->cannot = "its level is not known";
    else if (d->changing && (d->change == CHANGE_MOVES || d->change == CHANGE_STATE))
        v->cannot = "its shape is being changed";
    else if (other && other->members != m->members)
        v->cannot = "the number of its members is being changed";
    if (v->level == 1)
        used = sectors_of(d->sectors, d->sectors_high);
    else if (!mul_u64(stripes, le16_get(m->strip) * parts, &used))
        used = UINT64_MAX;
    if (used == 0 || used > room || !mul_u64(used, SECTOR, &v->used) ||
        !mul_u64(offset, SECTOR, &v->offset) || v->offset > INT64_MAX || v->used > INT64_MAX)
        return err_bad(e, -EINVAL, "Intel's metadata: a volume's size is damaged");
    return 0;
}

/* It stands in specs, where it must not be a path or a URL. mdadm may take a device's name for it.
 */
static void clean_serial(char *serial)
{
    const char *slash = strrchr(serial, '/');
    if (slash)
        memmove(serial, slash + 1, strlen(slash + 1) + 1);
    for (char *c = serial; *c; c++)
        if (strchr(",:/?={", *c))
            *c = '_';
}

static int take_slots(const struct imsm_head *h, const struct imsm_disk *disks,
                      const struct imsm_map *m, struct foreign_volume *v, struct blk_error *e)
{
    for (unsigned i = 0; i < MIN(m->members, v->disks); i++) {
        uint32_t word = le32_get(m->disk[i]), number = word & DISK_NUMBER;
        if (number >= h->disks)
            return err_bad(e, -EINVAL, "Intel's metadata are damaged: a volume names disk %u of %u",
                           number, h->disks);
        v->out[i] |= (word & DISK_REBUILT) != 0;
        foreign_text(v->serial[i], disks[number].serial);
        clean_serial(v->serial[i]);
    }
    return 0;
}

static int take_volume(const struct imsm_head *h, const struct imsm_disk *disks, struct reader *r,
                       struct foreign_volume *v, struct blk_error *e)
{
    const struct imsm_volume *d = next(r, sizeof(*d));
    const struct imsm_map *m = d ? next_map(r) : NULL;
    const struct imsm_map *other = m && d->changing ? next_map(r) : NULL;
    if (!m || (d->changing && !other))
        return cut(e);
    if (m->members == 0 || m->members > FOREIGN_DISKS)
        return err_set(e, -ENOTSUP, "Intel's metadata: a volume has %u members, which is not read",
                       m->members);
    le32 first = le32_get(h->first_family) ? h->first_family : h->family;
    memcpy(v->id, &first, sizeof(first));
    memcpy(v->id + 8, d->name, sizeof(d->name));
    foreign_text(v->name, d->name);
    v->slot = RAID_NO_DISK;
    TRY(take_map(m, other, d, v, e));
    if (other) /* who is rebuilt stands in the one that it was before */
        TRY(take_slots(h, disks, other, v, e));
    return take_slots(h, disks, m, v, e);
}

static int parse(const uint8_t *raw, size_t bytes, struct foreign *out, struct blk_error *e)
{
    struct reader r = {raw, bytes, 0};
    const struct imsm_head *h = next(&r, sizeof(*h));
    const struct imsm_disk *disks = h ? next(&r, h->disks * sizeof(*disks)) : NULL;
    if (!disks)
        return cut(e);
    *out = (struct foreign){.family = "Intel (IMSM)", .generation = le32_get(h->generation)};
    if (h->volumes > FOREIGN_VOLUMES)
        return err_set(e, -ENOTSUP, "Intel's metadata: %u volumes are more than are read",
                       h->volumes);
    for (; out->count < h->volumes; out->count++)
        TRY(take_volume(h, disks, &r, &out->volume[out->count], e));
    return 0;
}

static uint32_t checksum(const uint8_t *raw, size_t bytes)
{
    uint32_t sum = 0;
    le32 word;
    for (size_t at = 0; at + sizeof(word) <= bytes; at += sizeof(word)) {
        memcpy(&word, raw + at, sizeof(word));
        if (at != offsetof(struct imsm_head, checksum))
            sum += le32_get(word);
    }
    return sum;
}

int foreign_imsm_parse(const uint8_t *tail, uint64_t bytes, struct foreign *out,
                       struct blk_error *e)
{
    if (bytes < 2 * SECTOR)
        return -ENODATA;
    const uint8_t *first = tail + bytes - 2 * SECTOR;
    const struct imsm_head *h = (const struct imsm_head *)first;
    if (memcmp(h->signature, SIGNATURE, sizeof(h->signature)) != 0)
        return -ENODATA;
    size_t size = le32_get(h->bytes);
    size_t more = size > SECTOR ? align_up(size - SECTOR, SECTOR) : 0;
    if (size < sizeof(*h) || size > BYTES_MOST || more > bytes - 2 * SECTOR)
        return err_bad(e, -EINVAL, "Intel's metadata are damaged: they say they are %zu bytes long",
                       size);
    auto_free uint8_t *raw = mem_alloc(SECTOR + more);
    if (!raw)
        return err_set(e, -ENOMEM, "out of memory");
    memcpy(raw, first, SECTOR);
    memcpy(raw + SECTOR, first - more, more);
    if (checksum(raw, size) != le32_get(h->checksum))
        return err_bad(e, -EINVAL, "Intel's metadata: the checksum is wrong");
    return parse(raw, size, out, e);
}

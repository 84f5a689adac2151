/* SPDX-License-Identifier: BSD-3-Clause */
/* foreign_ddf.c - SNIA's Disk Data Format, big-endian: an anchor in the last sector, which says
 * where the headers are (a primary and a secondary one), and behind each header its sections, in
 * sectors from it. Each structure has a CRC-32, taken with all ones in its place and, as mdadm and
 * controllers do, not inverted at either end. */
#include <zlib.h>

#include "block/endian.h"
#include "raid/foreign.h"

#define MAGIC_HEADER  0xde11de11u
#define MAGIC_DISKS   0x22222222u
#define MAGIC_DISK    0x33333333u
#define MAGIC_VOLUMES 0xddddddddu
#define MAGIC_CONFIG  0xeeeeeeeeu

struct ddf_seal { /* all structures begin with it */
    be32 magic, crc;
};
struct ddf_section {
    be32 sector, sectors;
};
struct ddf_header {
    struct ddf_seal seal;
    uint8_t guid[24], revision[8];
    be32 sequence, time;
    uint8_t pad0[48];
    be64 primary, secondary; /* sectors of the disk; all ones: there is none */
    uint8_t type, pad1[15];
    be16 disks_most, volumes_most, configs_most;
    be16 config_sectors; /* of a record */
    be16 slots_most;     /* entries in a record's tables */
    uint8_t pad2[54];
    struct ddf_section controller, disks, volumes, configs, disk;
    uint8_t pad3[280];
};
static_assert(sizeof(struct ddf_header) == DDF_SECTOR, "DDF header");

struct ddf_table { /* of disks, of volumes: then entries */
    struct ddf_seal seal;
    be16 used, most;
    uint8_t pad[52];
};
static_assert(sizeof(struct ddf_table) == 64, "DDF table");
struct ddf_disk_entry {
    uint8_t guid[24];
    be32 reference;
    be16 type, state;
    uint8_t pad[32];
};
static_assert(sizeof(struct ddf_disk_entry) == 64, "DDF disk");
enum { DISK_ONLINE = 1, DISK_FAILED = 2, DISK_REBUILDING = 4, DISK_MISSING = 64 };
struct ddf_volume_entry {
    uint8_t guid[24], pad[24];
    char name[16];
};
static_assert(sizeof(struct ddf_volume_entry) == 64, "DDF volume");

struct ddf_this_disk {
    struct ddf_seal seal;
    uint8_t guid[24];
    be32 reference;
};

struct ddf_config { /* of one volume, or of one mirror of a volume of several */
    struct ddf_seal seal;
    uint8_t guid[24];
    be32 time, sequence;
    uint8_t pad0[24];
    be16 disks;
    uint8_t chunk_shift, level, qualifier; /* chunk: sectors */
    uint8_t mirrors, mirror, secondary_level;
    be64 sectors, volume_sectors; /* sectors: of each disk */
    uint8_t pad1[424];
    be32 reference[]; /* of the disks, by slot; behind the table be64: where the data begins */
};
static_assert(sizeof(struct ddf_config) == 512, "DDF configuration record");

/* What a header's sections are read from. */
struct view {
    const uint8_t *raw;
    uint64_t bytes;
    const struct ddf_header *header;
    const struct ddf_table *disks, *volumes; /* NULL: damaged, or none */
    uint64_t disk_count, volume_count;
    uint32_t reference; /* of this disk */
};

static bool is_whole(const void *raw, uint32_t magic, uint64_t bytes)
{
    static const uint8_t ones[4] = {0xff, 0xff, 0xff, 0xff};
    const struct ddf_seal *s = raw;
    const uint8_t *all = raw;
    if (be32_get(s->magic) != magic)
        return false;
    uLong crc = crc32(UINT32_MAX, all, sizeof(s->magic)); /* its register begins with zeroes */
    crc = crc32(crc, ones, sizeof(ones));
    crc = crc32(crc, all + sizeof(*s), (uInt)(bytes - sizeof(*s)));
    return (crc ^ UINT32_MAX) == be32_get(s->crc);
}

static bool place_of(be64 sector, uint64_t member_bytes, uint64_t *out)
{
    return mul_u64(be64_get(sector), DDF_SECTOR, out) &&
           range_fits(*out, 2 * DDF_SECTOR, member_bytes);
}

int foreign_ddf_anchor(const uint8_t *sector, uint64_t member_bytes, uint64_t place[2],
                       struct blk_error *e)
{
    const struct ddf_header *h = (const struct ddf_header *)sector;
    if (be32_get(h->seal.magic) != MAGIC_HEADER)
        return -ENODATA;
    if (!is_whole(h, MAGIC_HEADER, sizeof(*h)))
        return err_bad(e, -EINVAL, "DDF: the checksum of the anchor is wrong");
    if (!place_of(h->primary, member_bytes, &place[0]))
        place[0] = UINT64_MAX;
    if (!place_of(h->secondary, member_bytes, &place[1]))
        place[1] = UINT64_MAX;
    return 0;
}

/* True if it lies in @bytes. */
static bool section_fits(const struct ddf_section *s, uint64_t bytes, uint64_t *at, uint64_t *size)
{
    *at = be32_get(s->sector) * (uint64_t)DDF_SECTOR;
    *size = be32_get(s->sectors) * (uint64_t)DDF_SECTOR;
    return *size >= DDF_SECTOR && range_fits(*at, *size, bytes);
}

int foreign_ddf_header(const uint8_t *sector, uint64_t *bytes, struct blk_error *e)
{
    const struct ddf_header *h = (const struct ddf_header *)sector;
    const struct ddf_section *sections[] = {&h->disks, &h->volumes, &h->configs, &h->disk};
    uint64_t at, size;
    if (!is_whole(h, MAGIC_HEADER, sizeof(*h)))
        return err_bad(e, -EINVAL, "DDF: the checksum of a header is wrong");
    *bytes = DDF_SECTOR;
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        if (!section_fits(sections[i], DDF_MOST, &at, &size))
            return err_bad(e, -EINVAL, "DDF: a section lies outside of the metadata");
        *bytes = MAX(*bytes, at + size);
    }
    return 0;
}

/* --- levels ------------------------------------------------------------------------------------
 */

static const struct {
    uint8_t level, qualifier;
    int md_level;
    uint32_t layout;
} levels[] = {
    {0x00, 0, 0, 0}, {0x01, 0, 1, 0}, {0x01, 1, 1, 0},  {0x04, 1, 4, 0}, /* parity last */
    {0x05, 0, 5, 1}, {0x05, 2, 5, 0}, {0x05, 3, 5, 2}, /* right-, left-asymmetric, left- */
    {0x06, 1, 6, 8}, {0x06, 2, 6, 9}, {0x06, 3, 6, 10}, {0x11, 0, 10, 0x102},
};
enum { LEVEL_MIRROR = 1, SECONDARY_STRIPED = 0, SECONDARY_SPANNED = 3 };

/* Mirrors that are striped are md's level 10, with as many copies as a mirror has disks. */
static void take_level(const struct ddf_config *c, struct foreign_volume *v)
{
    bool striped =
        c->secondary_level == SECONDARY_STRIPED || c->secondary_level == SECONDARY_SPANNED;
    if (c->mirrors > 1) {
        v->level = 10;
        v->layout = 0x100u | be16_get(c->disks);
        if (c->level != LEVEL_MIRROR || !striped || be16_get(c->disks) > 3)
            v->cannot = "its two levels are no mirrors that are striped";
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (levels[i].level == c->level && levels[i].qualifier == c->qualifier) {
            v->level = levels[i].md_level;
            v->layout = levels[i].layout;
            return;
        }
    v->cannot = "md has no such level";
}

/* --- the parts ---------------------------------------------------------------------------------
 */

/* NULL: it is damaged. @count: entries that lie in it. */
static const struct ddf_table *table_of(const struct view *w, const struct ddf_section *s,
                                        uint32_t magic, uint64_t *count)
{
    uint64_t at, size;
    *count = 0;
    if (!section_fits(s, w->bytes, &at, &size) || !is_whole(w->raw + at, magic, size))
        return NULL;
    const struct ddf_table *t = (const struct ddf_table *)(w->raw + at);
    *count = MIN(be16_get(t->most), (size - sizeof(*t)) / sizeof(struct ddf_disk_entry));
    return t;
}

static bool counts(const struct view *w, uint32_t reference)
{
    const struct ddf_disk_entry *d =
        w->disks ? (const struct ddf_disk_entry *)(w->disks + 1) : NULL;
    for (uint64_t i = 0; i < w->disk_count; i++)
        if (be32_get(d[i].reference) == reference) {
            unsigned state = be16_get(d[i].state);
            return state & DISK_ONLINE && !(state & (DISK_FAILED | DISK_REBUILDING | DISK_MISSING));
        }
    return true;
}

static void take_name(const struct view *w, struct foreign_volume *v)
{
    const struct ddf_volume_entry *d =
        w->volumes ? (const struct ddf_volume_entry *)(w->volumes + 1) : NULL;
    for (uint64_t i = 0; i < w->volume_count; i++)
        if (memcmp(d[i].guid, v->id, sizeof(v->id)) == 0)
            foreign_text(v->name, d[i].name);
}

static int take_config(const struct view *w, const struct ddf_config *c, struct foreign_volume *v,
                       struct blk_error *e)
{
    unsigned disks = be16_get(c->disks), first = c->mirrors > 1 ? c->mirror * disks : 0;
    unsigned room = be16_get(w->header->slots_most);
    const be64 *places = (const be64 *)(c->reference + room);
    *v = (struct foreign_volume){.slot = RAID_NO_DISK, .disks = disks * MAX(c->mirrors, 1)};
    memcpy(v->id, c->guid, sizeof(v->id));
    if (disks == 0 || disks > room || v->disks > FOREIGN_DISKS || first + disks > v->disks)
        return err_set(e, -ENOTSUP, "DDF: a volume has %u members; at most 64 are read", v->disks);
    if (!mul_u64(be64_get(c->sectors), DDF_SECTOR, &v->used) || v->used > INT64_MAX || !v->used)
        return err_bad(e, -EINVAL, "DDF: a volume's size is damaged");
    take_level(c, v);
    take_name(w, v);
    if (!v->cannot && raid_level_by_number(v->level)->has_chunk && c->chunk_shift > 30)
        return err_bad(e, -EINVAL,
                       "DDF: a volume says chunks of 2^%u sectors, which are impossible",
                       c->chunk_shift);
    v->chunk = (uint64_t)DDF_SECTOR << MIN(c->chunk_shift, 30);
    for (unsigned i = 0; i < disks; i++) {
        v->out[first + i] = !counts(w, be32_get(c->reference[i]));
        if (be32_get(c->reference[i]) != w->reference)
            continue;
        v->slot = first + i;
        if (!mul_u64(be64_get(places[i]), DDF_SECTOR, &v->offset) || v->offset > INT64_MAX)
            return err_bad(e, -EINVAL, "DDF: a volume's place is damaged");
    }
    return 0;
}

/* Records that are damaged are no records. */
static int take_configs(const struct view *w, struct foreign *out, struct blk_error *e)
{
    uint64_t at, size, step = be16_get(w->header->config_sectors) * (uint64_t)DDF_SECTOR;
    uint64_t least =
        sizeof(struct ddf_config) + be16_get(w->header->slots_most) * (sizeof(be32) + sizeof(be64));
    if (!section_fits(&w->header->configs, w->bytes, &at, &size) || step < least)
        return err_bad(e, -EINVAL,
                       "DDF: the header is damaged: it says records of %" PRIu64 " bytes", step);
    for (uint64_t end = at + size; end - at >= step; at += step) {
        if (!is_whole(w->raw + at, MAGIC_CONFIG, step))
            continue;
        if (out->count == FOREIGN_VOLUMES)
            return err_set(e, -ENOTSUP, "DDF: more than %d volumes", FOREIGN_VOLUMES);
        const struct ddf_config *c = (const struct ddf_config *)(w->raw + at);
        TRY(take_config(w, c, &out->volume[out->count], e));
        out->count += out->volume[out->count].slot != RAID_NO_DISK;
    }
    return 0;
}

int foreign_ddf_parse(const uint8_t *raw, uint64_t bytes, struct foreign *out, struct blk_error *e)
{
    struct view w = {.raw = raw, .bytes = bytes, .header = (const struct ddf_header *)raw};
    uint64_t at, size;
    if (bytes < DDF_SECTOR || !section_fits(&w.header->disk, bytes, &at, &size) ||
        !is_whole(raw + at, MAGIC_DISK, DDF_SECTOR))
        return err_bad(e, -EINVAL, "DDF: what the disk says of itself is damaged");
    *out = (struct foreign){.family = "DDF", .generation = be32_get(w.header->sequence)};
    w.reference = be32_get(((const struct ddf_this_disk *)(raw + at))->reference);
    w.disks = table_of(&w, &w.header->disks, MAGIC_DISKS, &w.disk_count);
    w.volumes = table_of(&w, &w.header->volumes, MAGIC_VOLUMES, &w.volume_count);
    return take_configs(&w, out, e);
}

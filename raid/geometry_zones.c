/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry_zones.c - linear and level 0: the array as a list of zones.
 *
 *     members      0    1    2          array
 *                 +--+ +--+ +--+
 *                 |  | |  | |  |        zone 0: striped over 0, 1, 2
 *                 |  | +--+ |  |
 *                 |  |      |  |        zone 1: striped over 0, 2
 *                 |  |      +--+
 *                 |  |                  zone 2: 0 alone
 *                 +--+
 *
 * A linear array has a zone per member. In the *original* layout the chunk's number in the whole
 * array says which member of a zone has it, in the *alternate* one its number in the zone. */
#include "raid/geometry.h"

static const struct raid_zone *zone_at(const struct raid_shape *s, uint64_t offset)
{
    return &s->zones[find_by_end(&s->zones[0].end, sizeof(s->zones[0]), s->zone_count, offset)];
}

struct raid_piece raid_zone_place(const struct raid_shape *s, uint64_t offset)
{
    const struct raid_zone *z = zone_at(s, offset);
    uint64_t at = offset - z->start;
    if (z->disks == 1)
        return (struct raid_piece){z->disk[0], z->member_offset + at, z->end - offset};
    uint64_t row = at / (s->chunk * z->disks), in = at % s->chunk;
    uint64_t number = (s->layout == RAID0_ORIGINAL ? offset : at) / s->chunk;
    return (struct raid_piece){z->disk[number % z->disks], z->member_offset + row * s->chunk + in,
                               s->chunk - in};
}

/* Appends a zone of the members that hold more than @from, up to @to in each. */
static int add_zone(struct raid_shape *s, const uint64_t *members, uint64_t from, uint64_t to)
{
    struct raid_zone *z = &s->zones[s->zone_count];
    *z = (struct raid_zone){.start = s->size, .member_offset = from};
    z->disk = mem_array(s->disks, sizeof(z->disk[0]));
    if (!z->disk)
        return -ENOMEM;
    s->zone_count++;
    for (uint32_t d = 0; d < s->disks; d++)
        if (members[d] > from)
            z->disk[z->disks++] = d;
    uint64_t bytes;
    if (!mul_u64(to - from, z->disks, &bytes) || !add_u64(s->size, bytes, &z->end))
        return -EFBIG;
    s->size = z->end;
    return 0;
}

static int add_linear(struct raid_shape *s, const uint64_t *members)
{
    for (uint32_t d = 0; d < s->disks; d++) {
        struct raid_zone *z = &s->zones[s->zone_count++];
        *z = (struct raid_zone){.start = s->size, .disks = 1};
        z->disk = mem_array(1, sizeof(z->disk[0]));
        if (!z->disk)
            return -ENOMEM;
        z->disk[0] = d;
        if (!add_u64(s->size, members[d], &z->end))
            return -EFBIG;
        s->size = z->end;
    }
    return 0;
}

static int add_striped(struct raid_shape *s, const uint64_t *members)
{
    for (uint64_t from = 0;;) {
        uint64_t to = 0; /* the next size up */
        for (uint32_t d = 0; d < s->disks; d++)
            if (members[d] > from && (to == 0 || members[d] < to))
                to = members[d];
        if (to == 0)
            return 0;
        TRY(add_zone(s, members, from, to));
        from = to;
    }
}

/* Two zones of several members each: then the two layouts differ. */
static bool layout_matters(const struct raid_shape *s)
{
    return s->zone_count > 1 && s->zones[1].disks > 1;
}

int raid_zones_init(struct raid_shape *s, const uint64_t *members, struct blk_error *e)
{
    auto_free uint64_t *whole = mem_array(s->disks, sizeof(*whole));
    s->zones = mem_array(s->disks, sizeof(*s->zones));
    if (!whole || !s->zones)
        return err_set(e, -ENOMEM, "out of memory");
    for (uint32_t d = 0; d < s->disks; d++) {
        whole[d] = s->chunk ? members[d] - members[d] % s->chunk : members[d];
        if (whole[d] == 0)
            return err_set(e, -EINVAL, "member %u has no room for data", d);
    }
    bool linear = s->level->number == RAID_LINEAR;
    int rc = linear ? add_linear(s, whole) : add_striped(s, whole);
    if (rc < 0)
        return err_set(e, rc, rc == -ENOMEM ? "out of memory" : "the array is too big");
    if (!linear && s->layout != RAID0_ORIGINAL && s->layout != RAID0_ALTERNATE) {
        if (s->layout != 0 || layout_matters(s))
            return err_set(e, -EINVAL,
                           "the members differ in size, and the superblocks do not say by which of "
                           "two layouts the array was written: tell it (layout=original: Linux up "
                           "to 3.13 and from 5.4 on, layout=alternate: Linux 3.14 to 5.3)");
        s->layout = RAID0_ALTERNATE;
    }
    return 0;
}

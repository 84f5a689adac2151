/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry.c - the table of levels, and what is the same for all of them. */
#include "raid/geometry.h"

static int raid1_prepare(struct raid_shape *s, struct blk_error *e)
{
    s->copies = s->disks;
    s->size = s->member;
    return 0;
}

static const struct raid_level levels[] = {
    {.name = "linear",
     .number = RAID_LINEAR,
     .disks_min = 1,
     .disks_max = RAID_DISKS_MOST,
     .is_zoned = true},
    {.name = "raid0",
     .number = 0,
     .disks_min = 1,
     .disks_max = RAID_DISKS_MOST,
     .has_chunk = true,
     .is_zoned = true,
     .default_layout = RAID0_ORIGINAL},
    {.name = "raid1",
     .number = 1,
     .disks_min = 1,
     .disks_max = RAID_COPIES_MOST,
     .prepare = raid1_prepare},
    {.name = "raid4",
     .number = 4,
     .disks_min = 2,
     .disks_max = RAID_PARITY_MOST,
     .has_chunk = true,
     .parities = 1,
     .prepare = raid_rows_prepare},
    {.name = "raid5",
     .number = 5,
     .disks_min = 2,
     .disks_max = RAID_PARITY_MOST,
     .has_chunk = true,
     .parities = 1,
     .default_layout = LEFT_SYMMETRIC,
     .prepare = raid_rows_prepare},
    {.name = "raid6",
     .number = 6,
     .disks_min = 4,
     .disks_max = RAID_PARITY_MOST,
     .has_chunk = true,
     .parities = 2,
     .default_layout = LEFT_SYMMETRIC,
     .prepare = raid_rows_prepare},
    {.name = "raid10",
     .number = 10,
     .disks_min = 2,
     .disks_max = RAID_DISKS_MOST,
     .has_chunk = true,
     .default_layout = 0x102,
     .prepare = raid10_prepare},
};

const struct raid_level *raid_level_by_number(int number)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (levels[i].number == number)
            return &levels[i];
    return NULL;
}

/* mdadm's words. */
const struct raid_level *raid_level_by_name(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } other[] = {{"stripe", 0}, {"mirror", 1}, {"0", 0},   {"1", 1},           {"4", 4},
                 {"5", 5},      {"6", 6},      {"10", 10}, {"-1", RAID_LINEAR}};
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (strcmp(levels[i].name, name) == 0)
            return &levels[i];
    for (size_t i = 0; i < ARRAY_LEN(other); i++)
        if (strcmp(other[i].name, name) == 0)
            return raid_level_by_number(other[i].number);
    return NULL;
}

/* --- shapes ------------------------------------------------------------------------------------
 */

static int check_wanted(const struct raid_level *l, const struct raid_wanted *w,
                        struct blk_error *e)
{
    if (w->disks < l->disks_min || w->disks > l->disks_max)
        return err_set(e, -EINVAL, "%s takes %u to %u members, not %u", l->name, l->disks_min,
                       l->disks_max, w->disks);
    if (l->has_chunk && (w->chunk < 4 * KiB || w->chunk > GiB || w->chunk % (4 * KiB) != 0))
        return err_set(e, -EINVAL,
                       "a chunk of %" PRIu64 " bytes: it must be 4 KiB to 1 GiB, and a "
                       "multiple of 4 KiB",
                       w->chunk);
    if (l->has_chunk && !l->is_zoned && !is_pow2(w->chunk))
        return err_set(e, -EINVAL, "a chunk of %" PRIu64 " bytes: %s needs a power of two",
                       w->chunk, l->name);
    return 0;
}

/* Bytes that are used of each member of a level that is not zoned. */
static int member_bytes(const struct raid_wanted *w, uint64_t *out, struct blk_error *e)
{
    uint64_t least = UINT64_MAX;
    for (unsigned d = 0; d < w->disks && w->members; d++)
        least = MIN(least, w->members[d]);
    if (w->used > least)
        return err_set(e, -EINVAL,
                       "%" PRIu64 " bytes are used of each member, but one holds %" PRIu64, w->used,
                       least);
    *out = w->used ? w->used : least;
    if (*out > INT64_MAX || *out < MAX(w->chunk, 512))
        return err_set(e, -EINVAL,
                       "members of %" PRIu64 " bytes are too small, or too large, for an array",
                       *out);
    return 0;
}

int raid_shape_init(struct raid_shape *out, const struct raid_wanted *w, struct blk_error *e)
{
    const struct raid_level *l = raid_level_by_number(w->level);
    if (!l)
        return err_set(e, -EINVAL, "level %d is not known", w->level);
    TRY(check_wanted(l, w, e));
    struct raid_shape s = {
        .level = l, .layout = w->layout, .disks = w->disks, .chunk = w->chunk, .copies = 1};
    int rc;
    if (l->is_zoned) {
        rc = raid_zones_init(&s, w->members, e);
    } else {
        rc = member_bytes(w, &s.member, e);
        if (rc == 0)
            rc = l->prepare(&s, e);
    }
    if (rc == 0 && s.size > INT64_MAX)
        rc = err_set(e, -EFBIG, "the array is too big");
    if (rc < 0)
        raid_shape_drop(&s);
    else
        *out = s;
    return rc;
}

void raid_shape_drop(struct raid_shape *s)
{
    for (unsigned i = 0; i < s->zone_count; i++)
        mem_free(s->zones[i].disk);
    mem_free(s->zones);
    *s = (struct raid_shape){0};
}

/* --- places ------------------------------------------------------------------------------------
 */

static struct raid_piece row_place(const struct raid_shape *s, uint64_t offset)
{
    uint64_t chunk = offset / s->chunk, in = offset % s->chunk, number = chunk / s->data_disks;
    struct raid_row row = raid_row(s, number);
    return (struct raid_piece){raid_row_disk(&row, chunk % s->data_disks), number * s->chunk + in,
                               s->chunk - in};
}

struct raid_piece raid_place(const struct raid_shape *s, uint64_t offset, unsigned copy)
{
    assert(offset < s->size && copy < s->copies);
    if (s->level->is_zoned)
        return raid_zone_place(s, offset);
    if (s->level->parities)
        return row_place(s, offset);
    if (s->near)
        return raid10_place(s, offset, copy);
    return (struct raid_piece){copy, offset, s->size - offset};
}

/* Whether one copy of each chunk is there. */
static bool enough_10(const struct raid_shape *s, const bool *there)
{
    /* After as many chunks as there are disks the pattern repeats. */
    for (uint64_t k = 0; k < MIN(s->disks, s->size / s->chunk); k++) {
        bool any = false;
        for (unsigned c = 0; c < s->copies && !any; c++)
            any = there[raid10_place(s, k * s->chunk, c).disk];
        if (!any)
            return false;
    }
    return true;
}

bool raid_enough(const struct raid_shape *s, const bool *there)
{
    unsigned missing = 0;
    for (unsigned d = 0; d < s->disks; d++)
        missing += !there[d];
    if (s->near)
        return enough_10(s, there);
    return missing <= (s->level->number == 1 ? s->disks - 1 : s->level->parities);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* geometry_10.c - level 10: copies in the same row (near), in another part of the members or in the
 * next row (far, offset).
 *
 *     near 2, 3 disks     far 2, 4 disks        offset 2, 4 disks
 *     0 0 1               0 1 2 3               0 1 2 3
 *     1 2 2               4 5 6 7               3 0 1 2
 *     3 3 4               ...                   4 5 6 7
 *                         3 0 1 2               7 4 5 6
 *                         7 4 5 6
 *
 * The layout's bits: 0 to 7 near copies, 8 to 15 far copies, 16 offset, 17 and 18 how far copies
 * stay among sets of disks (0: one set; 1: a fault of old kernels, refused; 2: near x far disks).
 */
#include "raid/geometry.h"

static int sizes(struct raid_shape *s, struct blk_error *e)
{
    uint64_t used = s->member / s->chunk, chunks, copies;
    if (!mul_u64(used / s->far, s->disks, &chunks))
        return err_set(e, -EFBIG, "the array is too big");
    chunks /= s->near;
    if (chunks == 0)
        return err_set(e, -EINVAL, "the members have no room for data");
    if (!mul_u64(chunks, s->copies, &copies) || !mul_u64(chunks, s->chunk, &s->size))
        return err_set(e, -EFBIG, "the array is too big");
    used = div_up(copies, s->disks);
    s->stride = s->offset_copies ? s->chunk : used / s->far * s->chunk;
    return 0;
}

int raid10_prepare(struct raid_shape *s, struct blk_error *e)
{
    unsigned sets = s->layout >> 17 & 3;
    s->near = s->layout & 0xff;
    s->far = s->layout >> 8 & 0xff;
    s->offset_copies = s->layout >> 16 & 1;
    s->copies = s->near * s->far;
    if (s->layout >> 19 || sets == 3)
        return err_set(e, -EINVAL, "layout 0x%x of raid10 is not known", s->layout);
    if (sets == 1)
        return err_set(e, -EINVAL, "layout 0x%x of raid10 is one that old kernels wrote by mistake",
                       s->layout);
    if (s->copies < 2 || s->copies > s->disks)
        return err_set(e, -EINVAL, "raid10 over %u disks cannot have %u near and %u far copies",
                       s->disks, s->near, s->far);
    if (s->offset_copies && s->near > 1 && s->disks % s->near != 0)
        return err_set(e, -EINVAL,
                       "raid10 with %u near copies and offset ones needs a multiple of %u disks",
                       s->near, s->near);
    s->far_set = sets == 2 ? s->copies : s->disks;
    return sizes(s, e);
}

/* The disk that has the next far copy. The last set takes the disks that are left over. */
static uint32_t next_far(const struct raid_shape *s, uint32_t disk)
{
    uint32_t set = disk / s->far_set, count = s->disks / s->far_set;
    if (set + 1 >= count) {
        uint32_t base = (count - 1) * s->far_set;
        return base + (disk - base + s->near) % (s->disks - base);
    }
    return set * s->far_set + (disk - set * s->far_set + s->near) % s->far_set;
}

struct raid_piece raid10_place(const struct raid_shape *s, uint64_t offset, unsigned copy)
{
    uint64_t first = offset / s->chunk * s->near + copy % s->near;
    uint64_t row = first / s->disks, in = offset % s->chunk;
    uint32_t disk = first % s->disks;
    if (s->offset_copies)
        row *= s->far;
    uint64_t at = row * s->chunk + in;
    for (unsigned f = copy / s->near; f > 0; f--) {
        disk = next_far(s, disk);
        at += s->stride;
    }
    return (struct raid_piece){disk, at, s->chunk - in};
}

/* Chunks of which a copy may lie in a row of @disk are those of one row of first copies; which of
 * them it is, raid10_place() says. */
bool raid10_find(const struct raid_shape *s, uint32_t disk, uint64_t offset, uint64_t *array)
{
    uint64_t in = offset % s->chunk, at = offset - in, row = at / s->chunk;
    for (unsigned f = 0; f < s->far; f++) {
        uint64_t back = f * s->stride / s->chunk; /* rows from a first copy to this far one */
        if (row < back || (s->offset_copies && (row - back) % s->far != 0))
            continue;
        uint64_t first = s->offset_copies ? (row - back) / s->far : row - back;
        for (uint64_t d = 0; d < s->disks; d++) {
            uint64_t chunk = (first * s->disks + d) / s->near;
            for (unsigned copy = 0; copy < s->copies && chunk < s->size / s->chunk; copy++) {
                struct raid_piece p = raid10_place(s, chunk * s->chunk, copy);
                if (p.disk != disk || p.offset != at)
                    continue;
                *array = chunk * s->chunk + in;
                return true;
            }
        }
    }
    return false;
}

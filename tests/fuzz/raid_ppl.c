/* SPDX-License-Identifier: BSD-3-Clause */
/* raid_ppl.c - any bytes as entries of a partial parity log: what one is taken to say lies in one
 * row of the array, whose parity is the log's member's, and in the members' data.
 *
 * The input's first byte says how many members there are, and whose log it is; then come entries.
 */
#include "raid/ppl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void must(bool yes)
{
    if (!yes)
        __builtin_trap();
}

static void use(const struct raid_shape *shape, const struct ppl_entry_disk *e, uint32_t role)
{
    struct ppl_span p;
    if (!ppl_span_of(shape, e, role, &p))
        return;
    uint64_t row = shape->chunk * shape->data_disks;
    must(p.row.p == role && p.first < p.last && p.last <= shape->size);
    must(p.first / row == (p.last - 1) / row);
    must(p.columns > 0 && range_fits(p.offset, p.columns, shape->member));
    must(p.offset / shape->chunk == (p.offset + p.columns - 1) / shape->chunk);
    must(p.chunks > 0 && p.chunks <= shape->data_disks);
    for (unsigned i = 0; i < p.chunks && p.first + i * shape->chunk < p.last; i++)
        must(p.index + i < shape->data_disks && raid_row_disk(&p.row, p.index + i) != role);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct raid_shape shape;
    struct blk_error e = {0};
    struct ppl_entry_disk entry;
    if (bytes == 0)
        return 0;
    struct raid_wanted w = {.level = 5,
                            .layout = LEFT_SYMMETRIC,
                            .disks = 3 + data[0] % 8,
                            .chunk = 16 * KiB,
                            .used = MiB};
    must(raid_shape_init(&shape, &w, &e) == 0);
    for (size_t at = 1; at + sizeof(entry) <= bytes; at += sizeof(entry)) {
        memcpy(&entry, data + at, sizeof(entry));
        use(&shape, &entry, data[0] / 8u % w.disks);
    }
    raid_shape_drop(&shape);
    return 0;
}

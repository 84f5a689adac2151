/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_create.c - a new image: the file as long as it is to be, its table piece by piece, and
 * last the bytes that make it an image. And how long it will be. */
#include "imgfmt/map_units.h"

#define PIECE (64 * KiB)

static int co_make_room(struct blk_device *file, uint64_t end, struct blk_error *e)
{
    if (file->limits.growable)
        return co_blk_resize(file, end, true, e);
    if (end > file->size)
        return err_set(e, -ENOSPC, "%s has %" PRIu64 " bytes, %" PRIu64 " are needed", file->name,
                       file->size, end);
    return 0;
}

static int co_write_table(struct blk_device *file, const struct map_units_image *i)
{
    uint64_t total = i->entries;
    if (i->table_bytes)
        total = i->table_bytes / i->entry_bytes;
    uint8_t *buffer = buf_get(PIECE);
    int rc = buffer ? 0 : -ENOMEM;
    for (uint64_t at = 0, n; at < total && rc == 0; at += n) {
        n = MIN(total - at, PIECE / i->entry_bytes);
        if (i->fill)
            i->fill(i->arg, at, n, buffer);
        else
            memset(buffer, 0, n * i->entry_bytes);
        rc = co_blk_write_buf(file, i->table_offset + at * i->entry_bytes, buffer,
                              n * i->entry_bytes, 0);
    }
    if (buffer)
        buf_put(buffer, PIECE);
    return rc;
}

static int co_write_pieces(struct blk_device *file, const struct map_units_image *i)
{
    for (size_t k = 0; k < i->piece_count; k++)
        TRY(co_blk_write_buf(file, i->pieces[k].offset, i->pieces[k].bytes, i->pieces[k].length,
                             0));
    if (i->zero_bytes && !file->limits.fresh_reads_zero)
        TRY(co_blk_write_zeroes(file, i->zero_offset, i->zero_bytes, 0));
    return 0;
}

static int co_write_last(struct blk_device *file, const struct map_units_piece *p, bool fresh)
{
    if (!fresh)
        TRY(co_blk_flush(file));
    TRY(co_blk_write_buf(file, p->offset, p->bytes, p->length, 0));
    return fresh ? 0 : co_blk_flush(file);
}

int co_map_units_create(const struct blk_create *c, const struct map_units_image *i,
                        struct blk_error *e)
{
    TRY(co_make_room(c->file, i->end, e));
    int rc = co_write_table(c->file, i);
    if (rc == 0)
        rc = co_write_pieces(c->file, i);
    if (rc == 0)
        rc = co_write_last(c->file, &i->last, c->fresh);
    return rc < 0 ? err_errno(e, rc, "the image cannot be written") : 0;
}

/* --- measuring --- */

/* Bytes of the file for what of the source lies in pieces of @covers, @takes each. */
static int co_for_data(struct blk_measure *m, uint64_t covers, uint64_t takes, uint64_t *sum)
{
    uint64_t data;
    TRY(co_blk_data_bytes(m->source, covers, &data));
    *sum += div_up(data, covers) * takes;
    return 0;
}

int co_map_units_measure(struct blk_measure *m, const struct map_units_measure *u,
                         struct blk_error *e)
{
    uint64_t tables = u->table_bytes ? div_up(u->size, u->table_covers) * u->table_bytes : 0;
    uint64_t all = u->empty_bytes + div_up(u->size, u->cluster_bytes) * u->unit_bytes + tables;
    m->required = u->empty_bytes;
    m->fully_allocated = all;
    if (m->source && u->overlay) {
        m->required = all;
    } else if (m->source && u->unit_bytes) {
        int rc = co_for_data(m, u->cluster_bytes, u->unit_bytes, &m->required);
        if (rc == 0 && u->table_bytes)
            rc = co_for_data(m, u->table_covers, u->table_bytes, &m->required);
        if (rc < 0)
            return err_errno(e, rc, "Unable to get block status");
    }
    return 0;
}

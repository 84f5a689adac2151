/* SPDX-License-Identifier: BSD-3-Clause */
/* map_units_create.c - a new image: the file as long as it is to be, its table piece by piece, and
 * last the bytes that make it an image. */
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

/* SPDX-License-Identifier: BSD-3-Clause */
/* bitmap.c - the write-intent bitmap's header and size. */
#include "raid/bitmap.h"

#define SECTOR      512
#define CHUNK_LEAST 4096
#define CHUNK_MOST  (1ull << 40)

int md_bitmap_parse(const uint8_t *raw, struct md_bitmap *out, struct blk_error *e)
{
    const struct md_bitmap_super *d = (const struct md_bitmap_super *)raw;
    unsigned version = le32_get(d->version);
    uint64_t chunk = le32_get(d->chunk), sectors = le64_get(d->sync_size);
    if (le32_get(d->magic) != MD_BITMAP_MAGIC)
        return err_bad(e, -EINVAL, "the bitmap is damaged: it does not begin as one");
    if (version != 4)
        return err_set(e, -ENOTSUP, "the bitmap is of version %u, which is not known here",
                       version);
    if (!is_pow2(chunk) || chunk < SECTOR)
        return err_bad(e, -EINVAL, "the bitmap is damaged: it says chunks of %" PRIu64 " bytes",
                       chunk);
    *out = (struct md_bitmap){.events = le64_get(d->events),
                              .events_cleared = le64_get(d->events_cleared),
                              .chunk = chunk,
                              .state = le32_get(d->state),
                              .daemon_sleep = le32_get(d->daemon_sleep),
                              .write_behind = le32_get(d->write_behind)};
    memcpy(out->uuid, d->uuid, sizeof(out->uuid));
    if (out->events & MD_BITMAP_SEAL) {
        out->seal = out->events & ~(uint64_t)MD_BITMAP_EVENTS;
        out->events &= MD_BITMAP_EVENTS;
    }
    if (!mul_u64(sectors, SECTOR, &out->sync_bytes) || out->sync_bytes > INT64_MAX)
        return err_bad(e, -EINVAL,
                       "the bitmap is damaged: it says that it covers %" PRIu64 " sectors",
                       sectors);
    out->bits = div_up(out->sync_bytes, chunk);
    return 0;
}

void md_bitmap_build(const struct md_bitmap *b, uint8_t *raw)
{
    struct md_bitmap_super *d = (struct md_bitmap_super *)raw;
    d->magic = le32_of(MD_BITMAP_MAGIC);
    d->version = le32_of(4);
    memcpy(d->uuid, b->uuid, sizeof(d->uuid));
    d->events = le64_of(b->events | b->seal);
    d->events_cleared = le64_of(b->events_cleared);
    d->sync_size = le64_of(b->sync_bytes / SECTOR);
    d->state = le32_of(b->state);
    d->chunk = le32_of((uint32_t)b->chunk);
    d->daemon_sleep = le32_of(b->daemon_sleep);
    d->write_behind = le32_of(b->write_behind);
}

uint64_t md_bitmap_bytes(const struct md_bitmap *b)
{
    return MD_BITMAP_HEADER + div_up(b->bits, 8);
}

uint64_t md_bitmap_chunk(uint64_t sync_bytes, uint64_t room)
{
    uint64_t chunk = CHUNK_LEAST;
    while (chunk < CHUNK_MOST && div_up(sync_bytes, chunk) > (room - MD_BITMAP_HEADER) * 8)
        chunk *= 2;
    return chunk;
}

int co_bitmap_make(struct blk_device *dev, uint64_t offset, uint64_t room,
                   const struct md_bitmap *b, bool all)
{
    auto_free uint8_t *raw = mem_aligned(room);
    if (!raw)
        return -ENOMEM;
    memset(raw, 0, MD_BITMAP_HEADER);
    memset(raw + MD_BITMAP_HEADER, all ? 0xff : 0, room - MD_BITMAP_HEADER);
    md_bitmap_build(b, raw);
    return co_blk_write_buf(dev, offset, raw, room, 0);
}

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_snapshot.c - snapshots that copy on write (dm-snapshot), read-only: the origin, and before it
 * a store of chunks that have changed on either side since.
 *
 *     | header | area 0 | E chunks | area 1 | E chunks | ...        all of one chunk's size
 *
 * An area has E pairs: which chunk of the origin, where in the store it lies. They are read once
 * and sorted; then each byte has one place and resolve looks it up. */
#include "volumes/lvm.h"

#include <stdlib.h>

#define MAGIC           0x70416e53u /* SnAp */
#define EXCEPTIONS_MOST (16u << 20)
#define READ_BYTES      (64 * KiB)

struct store_header_disk {
    le32 magic;
    le32 valid; /* 0: it has been too small once, and is lost */
    le32 version;
    le32 chunk_sectors;
};

struct exception_disk {
    le64 old_chunk; /* of the origin */
    le64 new_chunk; /* of the store; 0 ends the list */
};

struct exception {
    uint64_t old_chunk, new_chunk;
};

struct lvm_snapshot {
    struct blk_device *origin, *store;
    uint64_t chunk_bytes;
    struct exception *list; /* by old_chunk */
    size_t count, room;
};

/* --- reading the store -------------------------------------------------------------------------
 */

static int co_read_header(struct lvm_snapshot *s, bool *fresh, struct blk_error *e)
{
    struct store_header_disk raw;
    if (s->store->size < sizeof(raw))
        return err_bad(e, -EINVAL,
                       "the snapshot is damaged: its store is too small to hold a header");
    int rc = co_blk_read_buf(s->store, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "cannot read the snapshot's store");
    *fresh = le32_get(raw.magic) == 0;
    if (*fresh)
        return 0;
    uint64_t sectors = le32_get(raw.chunk_sectors);
    if (le32_get(raw.magic) != MAGIC || le32_get(raw.version) != 1 || !is_pow2(sectors) ||
        sectors > MiB)
        return err_bad(e, -EINVAL,
                       "the snapshot is damaged: its store does not begin with a header");
    if (le32_get(raw.valid) == 0)
        return err_set(e, -EIO, "the snapshot is invalid: its store was full once");
    s->chunk_bytes = sectors * LVM_SECTOR;
    return 0;
}

static int keep(struct lvm_snapshot *s, struct exception x, struct blk_error *e)
{
    if (x.new_chunk >= s->store->size / s->chunk_bytes || x.old_chunk > INT64_MAX / s->chunk_bytes)
        return err_bad(e, -EINVAL,
                       "the snapshot is damaged: its store names a chunk outside of itself");
    if (s->count == EXCEPTIONS_MOST)
        return err_bad(e, -EFBIG, "the snapshot's store has more than %u chunks", EXCEPTIONS_MOST);
    if (s->count == s->room) {
        size_t room = MAX(s->room * 2, (size_t)256);
        struct exception *grown = mem_resize(s->list, room * sizeof(*grown));
        if (!grown)
            return err_set(e, -ENOMEM, "out of memory");
        s->list = grown;
        s->room = room;
    }
    s->list[s->count++] = x;
    return 0;
}

/* A piece of an area. *end: the list does. */
static int co_read_piece(struct lvm_snapshot *s, uint64_t at, struct exception_disk *buf,
                         size_t bytes, bool *end, struct blk_error *e)
{
    int rc = co_blk_read_buf(s->store, at, buf, bytes);
    if (rc < 0)
        return err_errno(e, rc, "cannot read the snapshot's store");
    for (size_t i = 0; i < bytes / sizeof(*buf) && !*end; i++) {
        struct exception x = {le64_get(buf[i].old_chunk), le64_get(buf[i].new_chunk)};
        *end = x.new_chunk == 0;
        if (!*end)
            TRY(keep(s, x, e));
    }
    return 0;
}

static int co_read_exceptions(struct lvm_snapshot *s, struct blk_error *e)
{
    uint64_t each = s->chunk_bytes / sizeof(struct exception_disk);
    size_t piece = (size_t)MIN(s->chunk_bytes, READ_BYTES);
    auto_free void *buf = mem_aligned(piece);
    bool end = false;
    if (!buf)
        return err_set(e, -ENOMEM, "out of memory");
    for (uint64_t chunk = 1; !end && chunk < s->store->size / s->chunk_bytes; chunk += each + 1)
        for (uint64_t at = 0; at < s->chunk_bytes && !end; at += piece)
            TRY(co_read_piece(s, chunk * s->chunk_bytes + at, buf, piece, &end, e));
    return 0;
}

static int by_old_chunk(const void *a, const void *b)
{
    const struct exception *x = a, *y = b;
    return x->old_chunk < y->old_chunk ? -1 : x->old_chunk > y->old_chunk;
}

/* --- the device --------------------------------------------------------------------------------
 */

/* The first exception of @chunk or behind it; the count: there is none. */
static size_t find(const struct lvm_snapshot *s, uint64_t chunk)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->list[mid].old_chunk < chunk)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool snapshot_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                             struct blk_place *out)
{
    const struct lvm_snapshot *s = dev->state;
    uint64_t chunk = offset / s->chunk_bytes, in = offset % s->chunk_bytes;
    size_t i = find(s, chunk);
    if (i < s->count && s->list[i].old_chunk == chunk) {
        *out = (struct blk_place){.child = s->store,
                                  .offset = s->list[i].new_chunk * s->chunk_bytes + in,
                                  .bytes = MIN(bytes, s->chunk_bytes - in)};
        return !write;
    }
    uint64_t until = i < s->count ? s->list[i].old_chunk * s->chunk_bytes : UINT64_MAX;
    *out = (struct blk_place){
        .child = s->origin, .offset = offset, .bytes = MIN(bytes, until - offset)};
    return !write;
}

static int co_snapshot_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                             unsigned flags)
{
    return -EROFS;
}

static int co_snapshot_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return write ? err_set(e, -EROFS, "snapshots that copy on write are read only here") : 0;
}

static void snapshot_drop(struct lvm_snapshot *s)
{
    mem_free(s->list);
    mem_free(s);
}

static int co_snapshot_close(struct blk_device *dev, struct blk_error *e)
{
    snapshot_drop(dev->state);
    return 0;
}

static const struct blk_driver snapshot_driver = {
    .name = "lvm-snapshot",
    .title = "a snapshot that copies on write, read-only",
    .is_filter = true,
    .stays_put = true,
    .co_close = co_snapshot_close,
    .co_reopen = co_snapshot_reopen,
    .co_write = co_snapshot_write,
    .resolve = snapshot_resolve,
};

static int co_fill(const struct lvm_opening *o, struct lvm_snapshot *s)
{
    const struct lvm_segment *seg = o->lv->snapshot;
    bool fresh = false;
    TRY(co_lvm_child_below(o, seg->origin, &s->origin));
    TRY(co_lvm_child_below(o, seg->store, &s->store));
    s->chunk_bytes = seg->chunk_bytes;
    TRY(co_read_header(s, &fresh, o->e));
    if (!fresh)
        TRY(co_read_exceptions(s, o->e));
    qsort(s->list, s->count, sizeof(*s->list), by_old_chunk);
    return 0;
}

int co_lvm_snapshot_open(const struct lvm_opening *o)
{
    struct lvm_snapshot *s = mem_zalloc(sizeof(*s));
    int rc = s ? co_fill(o, s) : err_set(o->e, -ENOMEM, "out of memory");
    if (rc < 0) {
        if (s)
            snapshot_drop(s);
        return rc;
    }
    o->dev->driver = &snapshot_driver;
    o->dev->state = s;
    o->dev->size = s->origin->size;
    return 0;
}

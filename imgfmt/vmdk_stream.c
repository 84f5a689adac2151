/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_stream.c - VMDK extents that are only read: streamOptimized, seSparse (vmdk_se.c), and
 * sparse ones whose tables lie scattered.
 *
 *   stream | header | descriptor | marker, deflated grain | ... | GD | footer | end of stream |
 *
 * An entry is the place of a marker; how long the grain is, the marker says, so the engine is told
 * the most that it can be. A header that names no directory (VMDK_AT_END) says that the footer, the
 * last sector but one, is the header that counts. Reading is map.c's. */
#include "imgfmt/vmdk.h"

/* --- the footer --- */

static int co_read_footer(struct vmdk *v, struct blk_error *e)
{
    struct vmdk_header_disk raw;
    uint64_t size = v->map.file->size, text_at = v->h.text_at, room = v->h.text_room;
    if (size < 3 * 512 || size % 512)
        return err_bad(e, -EINVAL, "the stream ends before its footer");
    int rc = co_blk_read_buf(v->map.file, size - 1024, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the footer cannot be read");
    rc = vmdk_header_parse(&raw, false, &v->h, e);
    if (rc < 0)
        return err_prefix(e, "the stream's footer");
    if (v->h.gd_at == VMDK_AT_END)
        return err_bad(e, -EINVAL, "the stream's footer names no grain directory");
    v->h.text_at = text_at;
    v->h.text_room = room;
    return 0;
}

/* --- entries --- */

static int stream_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    const struct vmdk_header *h = &vmdk_of(m)->h;
    uint64_t at = vmdk_entry_get(entry);
    bool packed = h->flags & VMDK_COMPRESSED, zero = at == 512 && h->flags & VMDK_ZERO_GRAIN;
    out->state = at == 0 ? MAP_HOLE : zero ? MAP_ZERO : packed ? MAP_PACKED : MAP_DATA;
    if (at == 0 || zero)
        return 0;
    out->offset = at;
    out->packed_bytes = packed ? (uint32_t)VMDK_PACKED_MOST(h->grain_bytes) : 0;
    return 0;
}

static void stream_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    memset(entry, 0, 4); /* nobody writes */
}

static int stream_root_decode(const struct map *m, const void *entry, uint64_t *offset,
                              bool *shared)
{
    *offset = vmdk_entry_get(entry);
    *shared = false;
    return 0;
}

/* Bytes of the disk in the grain behind @marker: QEMU compresses no more of the last one. */
static size_t bytes_on_disk(const struct map *m, const struct vmdk_marker_disk *marker)
{
    uint64_t size = m->shape.size, at = MIN(le64_get(marker->sector), size / 512) * 512;
    return MIN(size - at, m->cluster_bytes);
}

static int stream_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                         size_t packed_bytes, void *cluster)
{
    struct vmdk *v = vmdk_of(m);
    const uint8_t *from = packed;
    size_t bytes = packed_bytes, plain = m->cluster_bytes, less = 0;
    if (v->h.flags & VMDK_MARKERS) {
        struct vmdk_marker_disk marker;
        if (packed_bytes < sizeof(marker))
            return -EIO;
        memcpy(&marker, packed, sizeof(marker));
        from += sizeof(marker);
        bytes = le32_get(marker.bytes);
        if (bytes > packed_bytes - sizeof(marker))
            return -EIO;
        less = bytes_on_disk(m, &marker);
    }
    /* RFC 1950: two bytes, the first two of which say deflate; no dictionary; Adler-32 behind. */
    if (bytes < 6 || (from[0] & 15) != 8 || (from[0] * 256 + from[1]) % 31 || from[1] & 32)
        return -EIO;
    int rc = codec_unpack(&v->codec, from + 2, bytes - 2, cluster, plain);
    if (rc == -EIO && less && less < plain) {
        rc = codec_unpack(&v->codec, from + 2, bytes - 2, cluster, less);
        memset((uint8_t *)cluster + less, 0, plain - less);
        plain = less;
    }
    TRY(rc);
    if (!(v->h.flags & VMDK_MARKERS)) /* its end is not known */
        return 0;
    const uint8_t *sum = from + bytes - 4;
    uint32_t told = (uint32_t)sum[0] << 24 | sum[1] << 16 | sum[2] << 8 | sum[3];
    return codec_adler32(cluster, plain) == told ? 0 : -EIO;
}

static const struct map_format stream_format = {
    .decode = stream_decode,
    .encode = stream_encode,
    .root_decode = stream_root_decode,
    .unpack = stream_unpack,
    .table_rank = 0,
    .root_rank = 1,
};
static const struct map_units_ops no_ops;

/* --- the driver --- */

static int count_cell(struct map *m, uint64_t cluster, const struct map_cell *cell, void *arg)
{
    struct blk_check *c = arg;
    if (cell->offset == 0)
        return 0;
    c->allocated_clusters++;
    c->compressed_clusters += cell->state == MAP_PACKED;
    c->corruptions += cell->offset >= m->file->size;
    return 0;
}

static int co_stream_check(struct blk_device *dev, struct blk_check *c, struct blk_error *e)
{
    struct map *m = dev->state;
    uint64_t before = c->corruptions;
    c->total_clusters = div_up(m->shape.size, m->cluster_bytes);
    c->image_end = m->file->size;
    int rc = co_map_walk(m, count_cell, c);
    map_units_say(c, c->corruptions - before, "entries are out of range");
    return rc < 0 ? err_errno(e, rc, "the image cannot be checked") : 0;
}

static int co_stream_opened(struct blk_device *dev, struct blk_error *e)
{
    TRY(co_map_opened(dev, e));
    return vmdk_check_parent(dev->state, e);
}

static int co_stream_close(struct blk_device *dev, struct blk_error *e)
{
    struct vmdk *v = dev->state;
    int rc = co_map_units_close(&v->map, e);
    vmdk_drop(v);
    return rc;
}

static int co_stream_reopen(struct blk_device *dev, bool write, struct blk_error *e)
{
    return write
               ? err_set(e, -EROFS, "this kind of VMDK can only be read: convert it to write to it")
               : 0;
}

static const struct blk_driver stream_driver = {
    .name = "vmdk",
    .title = "VMware disk (VMDK)",
    .is_format = true,
    .knows_backing = true,
    .open_options = map_units_open_options,
    .co_opened = co_stream_opened,
    .co_close = co_stream_close,
    .co_reopen = co_stream_reopen,
    .co_read = co_map_read,
    .resolve = map_resolve,
    .co_map = co_map_map,
    .co_check = co_stream_check,
    .co_info = co_vmdk_info,
};

static void fill_map(struct vmdk *v, struct blk_device *dev)
{
    const struct vmdk_header *h = &v->h;
    v->map.dev = dev;
    v->map.format = v->map.format ? v->map.format : &stream_format;
    v->map.units = &v->units;
    v->map.shape = (struct map_shape){.size = h->size,
                                      .cluster_bits = log2_floor(h->grain_bytes),
                                      .entry_bytes = (uint8_t)h->entry_bytes,
                                      .levels = 2,
                                      .table_entries = h->table_entries,
                                      .table_bytes = h->table_entries * h->entry_bytes,
                                      .root_entry_bytes = (uint8_t)h->entry_bytes,
                                      .root_offset = h->gd_at,
                                      .root_entries = h->tables};
    v->units.ops = &no_ops;
    v->units.unit_bytes = MAX(h->grain_bytes, (uint64_t)h->table_entries * h->entry_bytes);
    v->units.page_bytes = 512;
}

int co_vmdk_open_readonly(struct vmdk *v, struct blk_device *dev, const struct opts *opts,
                          struct blk_error *e)
{
    if (v->h.flags & VMDK_COMPRESSED && dev->open_flags & BLK_OPEN_FRESH)
        return co_vmdk_open_out(v, dev, e);
    if (dev->open_flags & BLK_OPEN_WRITE)
        return err_set(e, -EROFS,
                       "this kind of VMDK (streamOptimized, seSparse, or with scattered "
                       "tables) can only be read: convert it to write to it");
    if (v->h.gd_at == VMDK_AT_END)
        TRY(co_read_footer(v, e));
    if (v->h.gd_at == 0 ||
        !range_fits(v->h.gd_at, v->h.tables * v->h.entry_bytes, v->map.file->size))
        return err_bad(e, -EINVAL, "the grain directory ends past the file");
    codec_init(&v->codec, CODEC_DEFLATE, 0);
    v->codec_made = true;
    fill_map(v, dev);
    int rc = co_map_units_open(&v->map, opts_number(opts, "cache-size"), e);
    if (rc == 0)
        dev->driver = &stream_driver;
    return rc;
}

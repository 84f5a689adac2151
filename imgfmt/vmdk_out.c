/* SPDX-License-Identifier: BSD-3-Clause */
/* vmdk_out.c - streamOptimized images, written: what ESXi and ovftool take.
 *
 *   | header: directory "at end" | descriptor | marker, grain ... | marker, grain table | ... |
 *   | marker, directory | marker, footer: the header with the directory's place | end of stream |
 *
 * Whoever writes gives whole grains, each once, several requests at a time; they are deflated on
 * the pool. What is ready waits in order of its place until WINDOW bytes of it are there, so that
 * grains lie in ascending order however the requests ended; a table follows its last grain. One
 * that comes later still goes behind, and its table is written again at the end.
 *
 * The file counts when its header has its signature, which is written last. */
#include "imgfmt/vmdk.h"

#define FIRST      VMDK_GRAIN /* where grains begin */
#define WINDOW     (24 * MiB) /* of deflated grains that wait */
#define BATCH_MOST 8          /* grains deflated in one trip to the pool */

/* Deflated grains that follow one another. */
struct batch {
    struct batch *next;
    struct vmdk *v;
    struct vec from;
    uint64_t grain; /* the first */
    unsigned count;
    uint8_t *plain, *packed;
    uint32_t bytes[BATCH_MOST]; /* in packed, in whole sectors */
    uint64_t total;
};

struct table {
    bool written; /* as it is */
    uint64_t at;
    le32 entries[VMDK_TABLE];
};

struct vmdk_out {
    struct co_mutex appending;
    struct batch *waiting; /* in order */
    uint64_t waiting_bytes;
    struct table **tables; /* v->h.tables */
    uint64_t table_count;
    uint64_t last_table; /* that a grain was written of */
    uint64_t end;        /* of the file so far */
    struct vmdk_header_disk header;
};

/* --- deflating --- */

/* As stored blocks: what deflate would make larger. */
static size_t store(const uint8_t *plain, uint8_t *to)
{
    size_t out = 0;
    for (size_t at = 0, n; at < VMDK_GRAIN; at += n) {
        n = MIN(VMDK_GRAIN - at, 65535);
        to[out++] = at + n == VMDK_GRAIN;
        to[out++] = n & 255;
        to[out++] = (uint8_t)(n >> 8);
        to[out++] = ~n & 255;
        to[out++] = (uint8_t)(~n >> 8);
        memcpy(to + out, plain + at, n);
        out += n;
    }
    return out;
}

/* Marker, RFC 1950 around deflate, zeroes to the sector's end; gives the bytes, or -errno. */
static int64_t pack_grain(struct vmdk *v, uint64_t grain, const uint8_t *plain, uint8_t *to)
{
    const size_t room = VMDK_PACKED_MOST(VMDK_GRAIN);
    struct vmdk_marker_disk marker;
    uint8_t *z = to + sizeof(marker);
    size_t bytes = VMDK_GRAIN - 16;
    z[0] = 0x78;
    z[1] = 0x01;
    int rc = codec_pack(&v->codec, plain, VMDK_GRAIN, z + 2, &bytes);
    if (rc == -ENOSPC)
        bytes = store(plain, z + 2);
    else if (rc < 0)
        return rc;
    uint32_t sum = codec_adler32(plain, VMDK_GRAIN);
    for (unsigned i = 0; i < 4; i++)
        z[2 + bytes + i] = (uint8_t)(sum >> (24 - 8 * i));
    bytes += 6;
    marker.sector = le64_of(grain * (VMDK_GRAIN / 512));
    marker.bytes = le32_of((uint32_t)bytes);
    memcpy(to, &marker, sizeof(marker));
    size_t all = align_up(sizeof(marker) + bytes, 512);
    assert(all <= room && all <= VMDK_STORED_GRAIN);
    memset(to + sizeof(marker) + bytes, 0, all - sizeof(marker) - bytes);
    return (int64_t)all;
}

/* The bytes of grain @i, copied only where they lie in pieces or end early. */
static const uint8_t *plain_bytes(const struct batch *b, unsigned i)
{
    uint64_t at = (uint64_t)i * VMDK_GRAIN;
    struct vec piece = vec_slice(&b->from, at, MIN(VMDK_GRAIN, b->from.bytes - at));
    size_t together;
    const uint8_t *first = vec_first(&piece, &together);
    if (together == VMDK_GRAIN)
        return first;
    vec_to_buf(&piece, b->plain);
    memset(b->plain + piece.bytes, 0, VMDK_GRAIN - piece.bytes);
    return b->plain;
}

static int run_pack(void *arg)
{
    struct batch *b = arg;
    for (unsigned i = 0; i < b->count; i++) {
        const uint8_t *plain = plain_bytes(b, i);
        b->bytes[i] = 0;
        if (mem_is_zero(plain, VMDK_GRAIN))
            continue;
        int64_t rc = pack_grain(b->v, b->grain + i, plain, b->packed + b->total);
        if (rc < 0)
            return (int)rc;
        b->bytes[i] = (uint32_t)rc;
        b->total += (uint64_t)rc;
    }
    return 0;
}

/* --- appending --- */

static int co_append(struct vmdk *v, const void *bytes, uint64_t length)
{
    TRY(co_blk_write_buf(v->map.file, v->out->end, bytes, length, 0));
    v->out->end += length;
    return 0;
}

static int co_append_marker(struct vmdk *v, enum vmdk_marker type, uint64_t bytes)
{
    struct vmdk_metadata_disk m = {.sectors = le64_of(bytes / 512), .type = le32_of(type)};
    return co_append(v, &m, sizeof(m));
}

static int co_append_table(struct vmdk *v, uint64_t number)
{
    struct table *t = v->out->tables[number];
    if (!t || t->written)
        return 0;
    TRY(co_append_marker(v, VMDK_GRAIN_TABLE, VMDK_TABLE_BYTES));
    t->at = v->out->end;
    TRY(co_append(v, t->entries, VMDK_TABLE_BYTES));
    t->written = true;
    return 0;
}

static int co_enter(struct vmdk *v, uint64_t grain, uint64_t at)
{
    struct vmdk_out *o = v->out;
    struct table **t = &o->tables[grain / VMDK_TABLE];
    if (at / 512 > UINT32_MAX)
        return -EFBIG;
    if (!*t)
        *t = mem_zalloc(sizeof(**t));
    if (!*t)
        return -ENOMEM;
    if (le32_get((*t)->entries[grain % VMDK_TABLE]))
        return -ENOTSUP; /* written once */
    (*t)->entries[grain % VMDK_TABLE] = le32_of((uint32_t)(at / 512));
    (*t)->written = false;
    o->last_table = grain / VMDK_TABLE;
    return 0;
}

/* The grains of a batch up to one of another table go in one write. */
static int co_append_batch(struct vmdk *v, const struct batch *b)
{
    uint64_t done = 0;
    for (unsigned i = 0, n; i < b->count; i += n) {
        uint64_t table = (b->grain + i) / VMDK_TABLE, at = v->out->end, bytes = 0;
        if (v->out->last_table != table)
            TRY(co_append_table(v, v->out->last_table));
        at = v->out->end;
        for (n = 0; i + n < b->count && (b->grain + i + n) / VMDK_TABLE == table; n++) {
            if (b->bytes[i + n])
                TRY(co_enter(v, b->grain + i + n, at + bytes));
            bytes += b->bytes[i + n];
        }
        if (bytes)
            TRY(co_append(v, b->packed + done, bytes));
        done += bytes;
    }
    return 0;
}

static void batch_drop(struct batch *b)
{
    mem_free(b->packed);
    mem_free(b);
}

static int co_append_first(struct vmdk *v)
{
    struct batch *b = v->out->waiting;
    v->out->waiting = b->next;
    v->out->waiting_bytes -= b->total;
    int rc = co_append_batch(v, b);
    batch_drop(b);
    return rc;
}

static int co_queue_batch(struct vmdk *v, struct batch *b)
{
    struct vmdk_out *o = v->out;
    with_lock(&o->appending);
    struct batch **link = &o->waiting;
    while (*link && (*link)->grain < b->grain)
        link = &(*link)->next;
    b->next = *link;
    *link = b;
    o->waiting_bytes += b->total;
    while (o->waiting_bytes > WINDOW)
        TRY(co_append_first(v));
    return 0;
}

static int co_write_batch(struct vmdk *v, uint64_t grain, struct vec from)
{
    struct batch *b = mem_zalloc(sizeof(*b));
    if (!b)
        return -ENOMEM;
    *b = (struct batch){.v = v, .from = from, .grain = grain};
    b->count = (unsigned)div_up(from.bytes, VMDK_GRAIN);
    b->plain = mem_alloc(VMDK_GRAIN);
    b->packed = mem_alloc(b->count * VMDK_PACKED_MOST(VMDK_GRAIN));
    int rc = b->plain && b->packed ? co_offload(run_pack, b) : -ENOMEM;
    mem_free(take(b->plain));
    if (rc == 0 && b->total) {
        uint8_t *smaller = mem_resize(b->packed, b->total);
        b->packed = smaller ? smaller : b->packed;
        return co_queue_batch(v, b);
    }
    batch_drop(b);
    return rc;
}

/* --- requests --- */

static int co_out_write(struct blk_device *dev, uint64_t offset, const struct vec *from,
                        unsigned flags)
{
    struct vmdk *v = dev->state;
    uint64_t end = offset + from->bytes;
    if (offset % VMDK_GRAIN || (end % VMDK_GRAIN && end != dev->size))
        return -ENOTSUP; /* a stream takes whole grains */
    for (uint64_t at = 0, n; at < from->bytes; at += n) {
        n = MIN((uint64_t)BATCH_MOST * VMDK_GRAIN, from->bytes - at);
        TRY(co_write_batch(v, (offset + at) / VMDK_GRAIN, vec_slice(from, at, n)));
    }
    return 0;
}

static bool any_written(const struct vmdk_out *o, uint64_t from, uint64_t to)
{
    for (uint64_t g = from; g < to; g++) {
        const struct table *t = o->tables[g / VMDK_TABLE];
        if (!t)
            g |= VMDK_TABLE - 1;
        else if (le32_get(t->entries[g % VMDK_TABLE]))
            return true;
    }
    for (const struct batch *b = o->waiting; b; b = b->next)
        if (b->grain < to && b->grain + b->count > from)
            return true;
    return false;
}

static int co_out_zero(struct blk_device *dev, uint64_t offset, uint64_t bytes, unsigned flags)
{
    struct vmdk *v = dev->state;
    return any_written(v->out, offset / VMDK_GRAIN, div_up(offset + bytes, VMDK_GRAIN)) ? -ENOTSUP
                                                                                        : 0;
}

static int co_out_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    return -ENOTSUP; /* it is on its way out */
}

/* --- the end --- */

static int co_append_directory(struct vmdk *v)
{
    struct vmdk_out *o = v->out;
    uint64_t bytes = align_up(o->table_count * 4, 512);
    auto_free uint8_t *raw = mem_zalloc(MAX(bytes, 1));
    if (!raw)
        return -ENOMEM;
    for (uint64_t i = 0; i < o->table_count; i++)
        vmdk_entry_put(raw + i * 4, o->tables[i] ? o->tables[i]->at : 0);
    TRY(co_append_marker(v, VMDK_GRAIN_DIRECTORY, bytes));
    o->header.gd_at = le64_of(o->end / 512);
    return bytes ? co_append(v, raw, bytes) : 0;
}

static int co_finish(struct vmdk *v)
{
    struct vmdk_out *o = v->out;
    struct blk_error ignored;
    while (o->waiting)
        TRY(co_append_first(v));
    for (uint64_t i = 0; i < o->table_count; i++)
        TRY(co_append_table(v, i));
    TRY(co_append_directory(v));
    o->header.magic = le32_of(VMDK_MAGIC);
    TRY(co_append_marker(v, VMDK_FOOTER, 512));
    TRY(co_append(v, &o->header, sizeof(o->header)));
    TRY(co_append_marker(v, VMDK_END_OF_STREAM, 0));
    if (v->map.file->limits.growable && v->map.file->size != o->end)
        TRY(co_blk_resize(v->map.file, o->end, true, &ignored));
    o->header.gd_at = le64_of(VMDK_AT_END);
    return co_blk_write_buf(v->map.file, 0, &o->header, sizeof(o->header), 0);
}

static int co_out_complete(struct blk_device *dev, struct blk_error *e)
{
    int rc = co_finish(dev->state);
    return rc < 0 ? err_errno(e, rc, "the stream cannot be completed") : 0;
}

void vmdk_out_drop(struct vmdk_out *o)
{
    if (!o)
        return;
    while (o->waiting) {
        struct batch *b = o->waiting;
        o->waiting = b->next;
        batch_drop(b);
    }
    for (uint64_t i = 0; o->tables && i < o->table_count; i++)
        mem_free(o->tables[i]);
    mem_free(o->tables);
    mem_free(o);
}

static int co_out_close(struct blk_device *dev, struct blk_error *e)
{
    vmdk_drop(dev->state);
    return 0;
}

static int co_out_opened(struct blk_device *dev, struct blk_error *e)
{
    return 0;
}

static const struct blk_driver out_driver = {
    .name = "vmdk",
    .title = "VMware disk (VMDK)",
    .is_format = true,
    .knows_backing = true,
    .open_options = map_units_open_options,
    .co_opened = co_out_opened,
    .co_close = co_out_close,
    .co_read = co_out_read,
    .co_write = co_out_write,
    .co_write_zeroes = co_out_zero,
    .co_complete = co_out_complete,
    .co_info = co_vmdk_info,
};

int co_vmdk_open_out(struct vmdk *v, struct blk_device *dev, struct blk_error *e)
{
    struct vmdk_out *o = mem_zalloc(sizeof(*o));
    v->out = o;
    if (!o || !(o->tables = mem_zalloc(MAX(v->h.tables, 1) * sizeof(*o->tables))))
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(v->map.file, 0, &o->header, sizeof(o->header));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    if (v->h.grain_bytes != VMDK_GRAIN)
        return err_set(e, -EINVAL, "a stream is written in grains of 64 KiB");
    o->table_count = v->h.tables;
    o->end = FIRST;
    codec_init(&v->codec, CODEC_DEFLATE, 0);
    v->codec_made = true;
    dev->size = v->h.size;
    dev->limits.cluster_size = VMDK_GRAIN;
    dev->limits.fresh_reads_zero = dev->limits.can_zero_fast = true;
    dev->driver = &out_driver;
    return 0;
}

/* --- creating --- */

/* Header and text; markers of directory, footer and end; the directory; the footer. */
uint64_t vmdk_stream_empty_bytes(uint64_t size)
{
    return FIRST + align_up(div_up(size, (uint64_t)VMDK_GRAIN * VMDK_TABLE) * 4, 512) + 4 * 512;
}

/* As if nothing was written: complete, or, where it is fresh, all but the signature. */
int co_vmdk_create_stream(const struct blk_create *c, uint64_t size, const char *text,
                          struct blk_error *e)
{
    struct vmdk_out o = {.end = FIRST,
                         .table_count = div_up(size, (uint64_t)VMDK_GRAIN * VMDK_TABLE)};
    struct vmdk v = {.out = &o, .map.file = c->file};
    auto_free char *room = mem_zalloc(VMDK_TEXT_ROOM);
    auto_free struct table **tables = mem_zalloc(MAX(o.table_count, 1) * sizeof(*tables));
    if (!room || !tables)
        return err_set(e, -ENOMEM, "out of memory");
    if (strlen(text) >= VMDK_TEXT_ROOM || size > (uint64_t)UINT32_MAX / 128 * VMDK_GRAIN)
        return err_set(e, -EFBIG, "the disk or its name is too large for a stream");
    o.tables = tables;
    memcpy(room, text, strlen(text));
    o.header = (struct vmdk_header_disk){
        .magic = le32_of(0),
        .version = le32_of(3),
        .flags = le32_of(VMDK_NEWLINES | VMDK_COMPRESSED | VMDK_MARKERS),
        .table_entries = le32_of(VMDK_TABLE),
        .newlines = {'\n', ' ', '\r', '\n'},
        .algorithm = le16_of(1),
    };
    o.header.capacity = le64_of(size / 512);
    o.header.grain = le64_of(VMDK_GRAIN / 512);
    o.header.descriptor_at = le64_of(1);
    o.header.descriptor_size = le64_of(VMDK_TEXT_ROOM / 512);
    o.header.gd_at = le64_of(VMDK_AT_END);
    o.header.overhead = le64_of(FIRST / 512);
    int rc = c->file->limits.growable ? co_blk_resize(c->file, FIRST, true, e) : 0;
    TRY(rc);
    rc = co_blk_write_buf(c->file, 0, &o.header, sizeof(o.header), 0);
    if (rc == 0)
        rc = co_blk_write_buf(c->file, 512, room, VMDK_TEXT_ROOM, 0);
    if (rc == 0 && !c->fresh)
        rc = co_finish(&v);
    if (rc == 0 && !c->fresh)
        rc = co_blk_flush(c->file);
    return rc < 0 ? err_errno(e, rc, "the image cannot be written") : 0;
}

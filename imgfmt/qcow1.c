/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow1.c - QEMU's first copy-on-write format, read only.
 *
 *   | header 48 | name of the backing file | L1: be64 per L2 table | L2 tables, clusters |
 *
 * An L1 entry is the place of an L2 table, an L2 entry that of a cluster; 0: not here. With bit 63
 * the cluster is raw deflate, and the bits above the place say how many bytes. Reading is map.c's,
 * of an encrypted image through old_aes.c. */
#include "imgfmt/qcow1.h"
#include "imgfmt/codec.h"
#include "imgfmt/map_backing.h"
#include "imgfmt/old_aes.h"

#define PACKED (1ULL << 63)

struct qcow1 {
    struct map map; /* first: the engine's operations find it there */
    struct qcow1_header h;
    struct codec codec;
    struct crypt *crypt; /* of encrypted images; NULL: no key */
    struct map_backing backing;
};

static struct qcow1 *qcow1_of(const struct map *m)
{
    return container_of(m, struct qcow1, map);
}

/* --- the header ------------------------------------------------------------------------------- */

static int parse_sizes(struct qcow1_header *h, struct blk_error *e)
{
    if (h->cluster_bits < 9 || h->cluster_bits > 16)
        return err_bad(e, -EINVAL, "the header says clusters of 2^%u bytes; qcow has 2^9 to 2^16",
                       h->cluster_bits);
    if (h->l2_bits < 6 || h->l2_bits > 13)
        return err_bad(e, -EINVAL, "the header says tables of 2^%u entries; qcow has 2^6 to 2^13",
                       h->l2_bits);
    if (h->size < 2 || h->size > INT64_MAX)
        return err_bad(e, -EINVAL,
                       "the header says a disk of %" PRIu64 " bytes, which cannot be one", h->size);
    h->l1_entries = div_up(h->size, 1ULL << (h->cluster_bits + h->l2_bits));
    if (h->l1_entries > INT32_MAX / 8)
        return err_bad(e, -EFBIG, "%" PRIu64 " tables are more than the format allows",
                       h->l1_entries);
    if (h->l1_offset % 8 || h->l1_offset < sizeof(struct qcow1_header_disk) ||
        h->l1_offset > INT64_MAX)
        return err_bad(e, -EINVAL,
                       "the header puts the L1 table at byte %" PRIu64 ", where it cannot be",
                       h->l1_offset);
    if (h->backing_offset && h->backing_bytes > QCOW1_BACKING_MOST)
        return err_bad(e, -EINVAL,
                       "the header says that the backing file's name has %" PRIu32
                       " bytes; at most %d are possible",
                       h->backing_bytes, QCOW1_BACKING_MOST);
    return 0;
}

int qcow1_header_parse(const struct qcow1_header_disk *raw, struct qcow1_header *out,
                       struct blk_error *e)
{
    if (be32_get(raw->magic) != QCOW1_MAGIC)
        return err_wrong_format(e, "not a qcow image");
    if (be32_get(raw->version) != 1)
        return err_set(
            e, -ENOTSUP,
            "the header says version %u; qcow is version 1, and what came later is qcow2",
            be32_get(raw->version));
    if (be32_get(raw->crypt) > 1)
        return err_bad(e, -EINVAL, "encryption method %u is unknown", be32_get(raw->crypt));
    *out = (struct qcow1_header){
        .size = be64_get(raw->size),
        .l1_offset = be64_get(raw->l1_offset),
        .backing_offset = be64_get(raw->backing_offset),
        .backing_bytes = be32_get(raw->backing_bytes),
        .cluster_bits = raw->cluster_bits,
        .l2_bits = raw->l2_bits,
        .encrypted = be32_get(raw->crypt) == 1,
    };
    return parse_sizes(out, e);
}

static int qcow1_probe(const struct blk_probe *p, const char **reason)
{
    struct qcow1_header_disk raw;
    if (p->head_bytes < sizeof(raw))
        return 0;
    memcpy(&raw, p->head, sizeof(raw));
    *reason = "the qcow signature, version 1";
    return be32_get(raw.magic) == QCOW1_MAGIC && be32_get(raw.version) == 1 ? 100 : 0;
}

/* --- entries ---------------------------------------------------------------------------------- */

static int qcow1_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    unsigned bits = m->shape.cluster_bits;
    be64 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint64_t v = be64_get(raw);
    if (v & PACKED) {
        out->state = MAP_PACKED;
        out->offset = v & ((1ULL << (63 - bits)) - 1);
        out->packed_bytes = (v >> (63 - bits)) & ((1U << bits) - 1);
    } else {
        out->state = v ? MAP_DATA : MAP_HOLE;
        out->offset = v;
    }
    return v & PACKED || v % 512 == 0 ? 0 : -EIO;
}

static int qcow1_root_decode(const struct map *m, const void *entry, uint64_t *offset, bool *shared)
{
    be64 raw;
    memcpy(&raw, entry, sizeof(raw));
    *offset = be64_get(raw);
    *shared = false;
    return *offset <= INT64_MAX ? 0 : -EIO;
}

static int qcow1_unpack(const struct map *m, const struct map_cell *cell, const void *packed,
                        size_t packed_bytes, void *cluster)
{
    return codec_unpack(&qcow1_of(m)->codec, packed, packed_bytes, cluster, m->cluster_bytes);
}

static const struct map_format qcow1_format = {
    .decode = qcow1_decode,
    .root_decode = qcow1_root_decode,
    .unpack = qcow1_unpack,
};

/* --- open ------------------------------------------------------------------------------------- */

static int make_map(struct qcow1 *q, struct blk_device *dev, uint64_t limit, struct blk_error *e)
{
    uint64_t table_bytes = 8ULL << q->h.l2_bits;
    q->map.dev = dev;
    q->map.data = q->map.file;
    q->map.format = &qcow1_format;
    q->map.shape = (struct map_shape){
        .size = q->h.size,
        .cluster_bits = q->h.cluster_bits,
        .entry_bytes = 8,
        .levels = 2,
        .table_entries = 1U << q->h.l2_bits,
        .table_bytes = (uint32_t)table_bytes,
        .root_entry_bytes = 8,
        .root_offset = q->h.l1_offset,
        .root_entries = q->h.l1_entries,
    };
    struct meta_options o = {
        .file = q->map.file,
        .page_bytes = (uint32_t)MIN(4096, MIN(table_bytes, 1ULL << q->h.cluster_bits)),
        .limit_bytes = limit,
    };
    int rc = meta_open(&o, &q->map.meta);
    return rc < 0 ? err_set(e, rc, "out of memory") : map_attach(&q->map, e);
}

static int co_read_name(struct qcow1 *q, struct blk_error *e)
{
    const struct qcow1_header *h = &q->h;
    if (h->backing_offset == 0 || h->backing_bytes == 0)
        return 0;
    if (!range_fits(h->backing_offset, h->backing_bytes, q->map.file->size))
        return err_bad(e, -EINVAL, "the name of the backing file lies past the end of the file");
    q->backing.name = mem_zalloc(h->backing_bytes + 1);
    if (!q->backing.name)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(q->map.file, h->backing_offset, q->backing.name, h->backing_bytes);
    return rc < 0 ? err_errno(e, rc, "the name of the backing file cannot be read") : 0;
}

static void co_free(struct qcow1 *q)
{
    co_map_detach(&q->map);
    codec_drop(&q->codec);
    crypt_drop(q->crypt);
    map_backing_drop(&q->backing);
    mem_free(q);
}

static int co_open_parts(struct qcow1 *q, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct qcow1_header_disk raw = {0};
    TRY(co_readonly_file(dev, opener, &q->map.file, e));
    if (q->map.file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a qcow image",
                       q->map.file->size);
    int rc = co_blk_read_buf(q->map.file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    TRY(qcow1_header_parse(&raw, &q->h, e));
    if (q->h.encrypted && !(dev->open_flags & (BLK_OPEN_NO_DATA | BLK_OPEN_FACTS)))
        TRY(co_old_aes_open(opts, opener, &q->crypt, e));
    TRY(co_read_name(q, e));
    TRY(make_map(q, dev, opts_number(opts, "cache-size"), e));
    return co_map_backing_want(&q->map, &q->backing, opener, e);
}

static int co_qcow1_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                         struct blk_error *e)
{
    struct qcow1 *q = mem_zalloc(sizeof(*q));
    if (!q)
        return err_set(e, -ENOMEM, "out of memory");
    codec_init(&q->codec, CODEC_DEFLATE_4K, 0);
    int rc = co_open_parts(q, dev, opts, opener, e);
    if (rc < 0) {
        co_free(q);
        return rc;
    }
    dev->state = q;
    dev->size = q->h.size;
    dev->limits.cluster_size = 1U << q->h.cluster_bits;
    dev->limits.request_align = q->h.encrypted ? 512 : 1;
    return 0;
}

static int co_qcow1_close(struct blk_device *dev, struct blk_error *e)
{
    co_free(dev->state);
    return 0;
}

/* --- the driver ------------------------------------------------------------------------------- */

/* --- reading ---------------------------------------------------------------------------------- */

static int co_qcow1_read(struct blk_device *dev, uint64_t offset, const struct vec *to)
{
    const struct qcow1 *q = dev->state;
    return q->h.encrypted ? co_old_aes_read(dev, q->crypt, offset, to)
                          : co_map_read(dev, offset, to);
}

static int co_qcow1_map(struct blk_device *dev, uint64_t offset, uint64_t bytes,
                        struct blk_extent *out)
{
    const struct qcow1 *q = dev->state;
    TRY(co_map_map(dev, offset, bytes, out));
    if (q->h.encrypted) /* what lies there is not what is shown */
        out->flags &= ~(unsigned)(BLK_EXT_PLACED | BLK_EXT_RECURSE);
    return 0;
}

static bool qcow1_resolve(struct blk_device *dev, uint64_t offset, uint64_t bytes, bool write,
                          struct blk_place *out)
{
    const struct qcow1 *q = dev->state;
    return !q->h.encrypted && map_resolve(dev, offset, bytes, write, out);
}

static int co_qcow1_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct qcow1 *q = dev->state;
    out->encrypted = q->h.encrypted;
    return map_backing_info(&q->backing, out, e);
}

static const struct opt_desc qcow1_options[] = {
    {.name = "file", .type = OPT_CHILD, .help = "what the image lies in"},
    {.name = "backing", .type = OPT_CHILD, .help = "what shows through where nothing was written"},
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of tables kept in memory",
     .preset = "8M",
     .min = 64 * KiB},
    OLD_AES_SECRET,
    {0},
};

const struct blk_driver qcow1_driver = {
    .name = "qcow",
    .title = "QEMU copy-on-write, version 1 (read only)",
    .extensions = "qcow",
    .is_format = true,
    .open_options = qcow1_options,
    .probe = qcow1_probe,
    .co_open = co_qcow1_open,
    .co_opened = co_map_opened,
    .co_close = co_qcow1_close,
    .co_reopen = co_readonly_reopen,
    .co_read = co_qcow1_read,
    .co_write = co_readonly_write,
    .co_flush = co_readonly_flush,
    .resolve = qcow1_resolve,
    .co_map = co_qcow1_map,
    .co_info = co_qcow1_info,
};

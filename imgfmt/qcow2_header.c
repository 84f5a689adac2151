/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_header.c - cluster 0 of a qcow2 image: bytes in, trusted struct out, and back.
 *
 *   | header 72 (v2) or 104.. (v3) | extensions: type be32, length be32, data padded to 8 | end 0 |
 *   | backing file's name | zeroes to the end of the cluster |
 *
 * Pure: no I/O, nothing allocated. A change of the header on disk is a change of the first sector
 * only, so extensions, also unknown ones, stay as they are. */
#include "imgfmt/qcow2.h"

struct feature_name_disk {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    char name[46]; /* padded with zeroes, not terminated when full */
};
static_assert(sizeof(struct feature_name_disk) == 48, "qcow2 feature name");

static const struct feature_name_disk feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

uint64_t qcow2_l1_needs(uint64_t size, const struct qcow2_header *h)
{
    unsigned bits = h->cluster_bits + h->cluster_bits - log2_floor(qcow2_entry_bytes(h));

    return (size >> bits) + ((size & ((1ULL << bits) - 1)) != 0);
}

static uint32_t header_cluster_bits(const uint8_t *first, size_t bytes, bool fresh)
{
    struct qcow2_header_disk d;

    if (bytes < QCOW2_V2_BYTES)
        return 0;
    memcpy(&d, first, QCOW2_V2_BYTES);
    if (be32_get(d.magic) != (fresh ? 0 : QCOW2_MAGIC))
        return 0;
    uint32_t bits = be32_get(d.cluster_bits);
    return bits >= 9 && bits <= 21 ? bits : 0;
}

uint32_t qcow2_header_wants(const uint8_t *first, size_t bytes, bool fresh)
{
    uint32_t bits = header_cluster_bits(first, bytes, fresh);

    return bits ? 1u << bits : 0;
}

static void take_fields(const struct qcow2_header_disk *d, struct qcow2_header *h)
{
    h->version = be32_get(d->version);
    h->backing_name.offset = (uint32_t)MIN(be64_get(d->backing_offset), UINT32_MAX);
    h->backing_name.bytes = be32_get(d->backing_bytes);
    h->cluster_bits = be32_get(d->cluster_bits);
    h->size = be64_get(d->size);
    h->crypt_method = be32_get(d->crypt_method);
    h->l1_entries = be32_get(d->l1_entries);
    h->l1_offset = be64_get(d->l1_offset);
    h->refcount_table_offset = be64_get(d->refcount_table_offset);
    h->refcount_table_clusters = be32_get(d->refcount_table_clusters);
    h->snapshot_count = be32_get(d->snapshot_count);
    h->snapshots_offset = be64_get(d->snapshots_offset);
    if (h->version < 3) {
        h->refcount_order = 4;
        h->header_bytes = QCOW2_V2_BYTES;
        return;
    }
    h->incompatible = be64_get(d->incompatible);
    h->compatible = be64_get(d->compatible);
    h->autoclear = be64_get(d->autoclear);
    h->refcount_order = be32_get(d->refcount_order);
    h->header_bytes = be32_get(d->header_bytes);
    h->compression_type = h->header_bytes > QCOW2_V3_BYTES ? d->compression_type : 0;
}

static int check_basics(const struct qcow2_header *h, struct blk_error *e)
{
    uint64_t cluster = qcow2_cluster_bytes(h);

    if (h->version >= 3 && h->header_bytes < QCOW2_V3_BYTES)
        return err_bad(e, -EINVAL,
                       "the qcow2 header says it is %" PRIu32 " bytes long; version 3 "
                       "has at least 104",
                       h->header_bytes);
    if (h->header_bytes > cluster || h->header_bytes % 8)
        return err_bad(e, -EINVAL,
                       "the qcow2 header says it is %" PRIu32 " bytes long; that does "
                       "not fit a cluster of %" PRIu64,
                       h->header_bytes, cluster);
    if (h->refcount_order > 6)
        return err_bad(e, -EINVAL,
                       "the qcow2 header says reference counts of 2^%" PRIu32
                       " bits; at most 64 bits are possible",
                       h->refcount_order);
    if (qcow2_extended(h) && h->cluster_bits < QCOW2_EXTENDED_MIN)
        return err_bad(
            e, -EINVAL,
            "extended L2 entries need clusters of 16 KiB or more; the image has clusters "
            "of %" PRIu64 " bytes",
            cluster);
    bool typed = h->incompatible & QCOW2_COMPRESSION;
    if (typed != (h->compression_type != QCOW2_ZLIB))
        return err_bad(e, -EINVAL, "compression type %u and its feature bit disagree",
                       h->compression_type);
    if (h->size > INT64_MAX)
        return err_bad(e, -EFBIG, "a virtual size of %" PRIu64 " bytes is too large", h->size);
    return 0;
}

/* A table of the file: aligned, and inside it unless the image may be damaged. */
static int check_table(const struct qcow2_raw_header *in, uint32_t cluster_bits, const char *what,
                       uint64_t offset, uint64_t bytes, struct blk_error *e)
{
    uint64_t end;

    if (offset & ((1ULL << cluster_bits) - 1) || offset == 0)
        return err_bad(e, -EINVAL, "%s at %" PRIu64 " does not begin at a cluster", what, offset);
    if (!add_u64(offset, bytes, &end) || end > QCOW2_MAX_OFFSET)
        return err_bad(e, -EINVAL, "%s at %" PRIu64 " lies beyond what a file can hold", what,
                       offset);
    if (!in->damaged && end > in->file_bytes)
        return err_bad(e, -EINVAL,
                       "%s at %" PRIu64 " ends past the file (%" PRIu64 " bytes): the "
                       "image is cut short",
                       what, offset, in->file_bytes);
    return 0;
}

static int check_tables(const struct qcow2_raw_header *in, const struct qcow2_header *h,
                        struct blk_error *e)
{
    uint64_t l1_bytes = (uint64_t)h->l1_entries * 8;
    uint64_t table_bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    if (l1_bytes > QCOW2_MAX_L1_BYTES)
        return err_bad(e, -EFBIG, "the L1 table has %" PRIu32 " entries; at most %llu are allowed",
                       h->l1_entries, QCOW2_MAX_L1_BYTES / 8);
    if (qcow2_l1_needs(h->size, h) > h->l1_entries)
        return err_bad(e, -EINVAL,
                       "the L1 table (%" PRIu32 " entries) is too small for %" PRIu64 " bytes",
                       h->l1_entries, h->size);
    if (h->l1_entries)
        TRY(check_table(in, h->cluster_bits, "the L1 table", h->l1_offset, l1_bytes, e));
    if (h->refcount_table_clusters == 0 && !in->damaged)
        return err_bad(e, -EINVAL, "the image has no reference count table");
    if (table_bytes > QCOW2_MAX_REFTABLE)
        return err_bad(e, -EFBIG,
                       "the reference count table takes %" PRIu64 " bytes; at most %llu "
                       "are allowed",
                       table_bytes, QCOW2_MAX_REFTABLE);
    if (table_bytes)
        TRY(check_table(in, h->cluster_bits, "the reference count table", h->refcount_table_offset,
                        table_bytes, e));
    if (h->snapshot_count > QCOW2_MAX_SNAPSHOTS)
        return err_bad(e, -EFBIG,
                       "the qcow2 header says %" PRIu32 " snapshots; at most %u are allowed",
                       h->snapshot_count, QCOW2_MAX_SNAPSHOTS);
    if (h->snapshot_count)
        TRY(check_table(in, h->cluster_bits, "the snapshot table", h->snapshots_offset,
                        (uint64_t)h->snapshot_count * 40, e));
    return 0;
}

static void note_extension(struct qcow2_header *h, uint32_t type, struct qcow2_span at)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        h->backing_format = at;
        break;
    case QCOW2_EXT_FEATURE_NAMES:
        h->feature_names = at;
        break;
    case QCOW2_EXT_BITMAPS:
        h->bitmaps = at;
        break;
    case QCOW2_EXT_DATA_FILE:
        h->data_file_name = at;
        break;
    case QCOW2_EXT_CRYPTO:
        h->crypto = at;
        break;
    default: /* unknown ones are kept by not being touched */
        break;
    }
}

static int take_extensions(const struct qcow2_raw_header *in, struct qcow2_header *h, size_t end,
                           struct blk_error *e)
{
    size_t at = h->header_bytes;

    while (at + 8 <= end) {
        be32 type, length;
        memcpy(&type, in->raw + at, 4);
        memcpy(&length, in->raw + at + 4, 4);
        uint64_t bytes = be32_get(length);
        if (be32_get(type) == QCOW2_EXT_END)
            return 0;
        at += 8;
        if (!range_fits(at, bytes, end))
            return err_bad(e, -EINVAL,
                           "header extension 0x%08" PRIx32 " at %zu is %" PRIu64
                           " bytes long and ends past the header",
                           be32_get(type), at - 8, bytes);
        note_extension(h, be32_get(type), (struct qcow2_span){(uint32_t)at, (uint32_t)bytes});
        at = MIN(align_up(at + bytes, 8), end);
    }
    return 0;
}

static int take_names(const struct qcow2_raw_header *in, struct qcow2_header *h,
                      struct blk_error *e)
{
    uint64_t cluster = MIN(qcow2_cluster_bytes(h), in->bytes);
    struct qcow2_span *name = &h->backing_name;
    size_t extensions_end = cluster;

    if (name->offset == 0) {
        name->bytes = 0;
    } else {
        if (name->bytes > QCOW2_MAX_BACKING_NAME)
            return err_bad(e, -EINVAL,
                           "the backing file's name is %" PRIu32 " bytes long; at most "
                           "%u are allowed",
                           name->bytes, QCOW2_MAX_BACKING_NAME);
        if (name->offset < h->header_bytes || !range_fits(name->offset, name->bytes, cluster))
            return err_bad(e, -EINVAL, "the backing file's name lies outside the header cluster");
        if (memchr(in->raw + name->offset, 0, name->bytes))
            return err_bad(e, -EINVAL, "the backing file's name holds a zero byte");
        extensions_end = name->offset;
    }
    TRY(take_extensions(in, h, extensions_end, e));
    if (h->backing_format.bytes > 63 ||
        memchr(in->raw + h->backing_format.offset, 0, h->backing_format.bytes))
        return err_bad(e, -EINVAL,
                       "the name of the backing file's format is damaged: it is too long, or holds "
                       "a zero byte");
    if (h->data_file_name.bytes > QCOW2_MAX_BACKING_NAME ||
        memchr(in->raw + h->data_file_name.offset, 0, h->data_file_name.bytes))
        return err_bad(e, -EINVAL,
                       "the data file's name is damaged: it is too long, or holds a zero byte");
    if (h->bitmaps.bytes && h->bitmaps.bytes != 24)
        return err_bad(e, -EINVAL, "the bitmaps extension is %" PRIu32 " bytes long instead of 24",
                       h->bitmaps.bytes);
    return 0;
}

/* Where the LUKS header of an encrypted image lies. */
static int take_crypto(const struct qcow2_raw_header *in, struct qcow2_header *h,
                       struct blk_error *e)
{
    be64 at[2];

    if (h->crypt_method != QCOW2_CRYPT_LUKS)
        return 0;
    if (h->crypto.bytes != sizeof(at))
        return err_bad(e, -EINVAL,
                       "the image is encrypted, but does not say where its LUKS header "
                       "is");
    memcpy(at, in->raw + h->crypto.offset, sizeof(at));
    h->crypto_offset = be64_get(at[0]);
    h->crypto_bytes = be64_get(at[1]);
    if (h->crypto_bytes == 0 || h->crypto_bytes > QCOW2_MAX_CRYPTO)
        return err_bad(e, -EINVAL,
                       "the qcow2 header says a LUKS header of %" PRIu64
                       " bytes; 1 to %llu are allowed",
                       h->crypto_bytes, QCOW2_MAX_CRYPTO);
    return check_table(in, h->cluster_bits, "the LUKS header", h->crypto_offset, h->crypto_bytes,
                       e);
}

int qcow2_header_parse(const struct qcow2_raw_header *in, struct qcow2_header *out,
                       struct blk_error *e)
{
    struct qcow2_header_disk d = {0};

    *out = (struct qcow2_header){0};
    if (in->bytes < QCOW2_V2_BYTES)
        return err_wrong_format(e, "not a qcow2 image: the file has only %zu bytes", in->bytes);
    memcpy(&d, in->raw, MIN(in->bytes, sizeof(d)));
    if (be32_get(d.magic) != (in->fresh ? 0 : QCOW2_MAGIC))
        return err_wrong_format(e, "not a qcow2 image: it does not begin with QFI\\xfb");
    uint32_t version = be32_get(d.version);
    if (version != 2 && version != 3)
        return err_bad(e, -ENOTSUP, "qcow2 version %" PRIu32 " is not known; versions 2 and 3 are",
                       version);
    if (!header_cluster_bits(in->raw, in->bytes, in->fresh))
        return err_bad(e, -EINVAL,
                       "the qcow2 header says clusters of 2^%" PRIu32
                       " bytes; 2^9 to 2^21 are possible",
                       be32_get(d.cluster_bits));
    if (version == 3 && in->bytes < QCOW2_V3_BYTES)
        return err_bad(e, -EINVAL, "the qcow2 header is cut short");
    take_fields(&d, out);
    TRY(check_basics(out, e));
    if (out->header_bytes > in->bytes)
        return err_bad(e, -EINVAL, "the qcow2 header is cut short");
    TRY(check_tables(in, out, e));
    TRY(take_names(in, out, e));
    return take_crypto(in, out, e);
}

/* --- features ------------------------------------------------------------- */

static int refuse_unknown(const struct qcow2_header *h, const uint8_t *raw, uint64_t unknown,
                          struct blk_error *e)
{
    unsigned bit = (unsigned)__builtin_ctzll(unknown);

    for (uint32_t at = 0; at + 48 <= h->feature_names.bytes; at += 48) {
        struct feature_name_disk f;
        memcpy(&f, raw + h->feature_names.offset + at, sizeof(f));
        if (f.type == 0 && f.bit == bit)
            return err_set(e, -ENOTSUP,
                           "the image needs the qcow2 feature \"%.46s\" (incompatible "
                           "bit %u), which is not known here: the program that wrote it reads it",
                           f.name, bit);
    }
    return err_bad(e, -ENOTSUP,
                   "the image needs a qcow2 feature that is not known here (incompatible bit %u): "
                   "the program that wrote it reads it",
                   bit);
}

static int refuse_reading(const struct qcow2_header *h, const uint8_t *raw, struct blk_error *e)
{
    uint64_t unknown = h->incompatible & ~(uint64_t)QCOW2_INCOMPATIBLE_KNOWN;

    if (unknown)
        return refuse_unknown(h, raw, unknown, e);
    if (h->crypt_method > QCOW2_CRYPT_LUKS)
        return err_bad(e, -ENOTSUP,
                       "the image is encrypted by a method (%" PRIu32 ") that is not known",
                       h->crypt_method);
    if (h->compression_type > QCOW2_ZSTD)
        return err_bad(e, -ENOTSUP, "compression type %u is not known; zlib (0) and zstd (1) are",
                       h->compression_type);
    return 0;
}

static int refuse_writing(const struct qcow2_header *h, struct blk_error *e)
{
    if (h->crypt_method == QCOW2_CRYPT_AES)
        return err_set(e, -ENOTSUP,
                       "the image is encrypted with qcow2's old AES, which is broken by design: it "
                       "is read only (convert it)");
    if (h->incompatible & QCOW2_CORRUPT)
        return err_set(e, -EACCES,
                       "the image is marked corrupt; open it read-only, or repair it "
                       "with check -r all");
    return 0;
}

int qcow2_header_refuse(const struct qcow2_header *h, const uint8_t *raw, bool write,
                        struct blk_error *e)
{
    TRY(refuse_reading(h, raw, e));
    return write ? refuse_writing(h, e) : 0;
}

/* --- the way back --------------------------------------------------------- */

void qcow2_header_put(const struct qcow2_header *h, bool fresh, uint8_t *sector)
{
    struct qcow2_header_disk d;

    memcpy(&d, sector, sizeof(d));
    d.magic = be32_of(fresh ? 0 : QCOW2_MAGIC);
    d.version = be32_of(h->version);
    d.backing_offset = be64_of(h->backing_name.bytes ? h->backing_name.offset : 0);
    d.backing_bytes = be32_of(h->backing_name.bytes);
    d.cluster_bits = be32_of(h->cluster_bits);
    d.size = be64_of(h->size);
    d.crypt_method = be32_of(h->crypt_method);
    d.l1_entries = be32_of(h->l1_entries);
    d.l1_offset = be64_of(h->l1_offset);
    d.refcount_table_offset = be64_of(h->refcount_table_offset);
    d.refcount_table_clusters = be32_of(h->refcount_table_clusters);
    d.snapshot_count = be32_of(h->snapshot_count);
    d.snapshots_offset = be64_of(h->snapshots_offset);
    size_t bytes = QCOW2_V2_BYTES;
    if (h->version >= 3) {
        d.incompatible = be64_of(h->incompatible);
        d.compatible = be64_of(h->compatible);
        d.autoclear = be64_of(h->autoclear);
        d.refcount_order = be32_of(h->refcount_order);
        d.header_bytes = be32_of(h->header_bytes);
        d.compression_type = h->compression_type;
        bytes = h->header_bytes > QCOW2_V3_BYTES ? QCOW2_V3_BYTES + 1 : QCOW2_V3_BYTES;
    }
    memcpy(sector, &d, bytes);
}

/* Appends an extension at *at; false if it does not leave room for the end mark. */
static bool put_extension(uint8_t *cluster, size_t room, size_t *at, uint32_t type,
                          const void *data, size_t bytes, struct qcow2_span *span)
{
    size_t padded = align_up(bytes, 8);
    be32 head[2] = {be32_of(type), be32_of((uint32_t)bytes)};

    if (*at + 8 + padded + 8 > room)
        return false;
    memcpy(cluster + *at, head, 8);
    memcpy(cluster + *at + 8, data, bytes);
    *span = (struct qcow2_span){(uint32_t)*at + 8, (uint32_t)bytes};
    *at += 8 + padded;
    return true;
}

int qcow2_header_build(struct qcow2_header *h, const struct qcow2_names *names, uint8_t *cluster)
{
    const char *backing_name = names->backing, *backing_format = names->backing_format;
    size_t room = qcow2_cluster_bytes(h);
    size_t name_bytes = backing_name ? strlen(backing_name) : 0;
    size_t at;

    if (name_bytes > QCOW2_MAX_BACKING_NAME || name_bytes > room)
        return -ENOSPC;
    room -= name_bytes;
    memset(cluster, 0, qcow2_cluster_bytes(h));
    h->header_bytes = h->version >= 3 ? sizeof(struct qcow2_header_disk) : QCOW2_V2_BYTES;
    at = h->header_bytes;
    if (backing_format &&
        !put_extension(cluster, room, &at, QCOW2_EXT_BACKING_FORMAT, backing_format,
                       strlen(backing_format), &h->backing_format))
        return -ENOSPC;
    if (names->data_file &&
        (strlen(names->data_file) > QCOW2_MAX_BACKING_NAME ||
         !put_extension(cluster, room, &at, QCOW2_EXT_DATA_FILE, names->data_file,
                        strlen(names->data_file), &h->data_file_name)))
        return -ENOSPC;
    if (h->crypt_method == QCOW2_CRYPT_LUKS) {
        be64 where[2] = {be64_of(h->crypto_offset), be64_of(h->crypto_bytes)};
        if (!put_extension(cluster, room, &at, QCOW2_EXT_CRYPTO, where, sizeof(where), &h->crypto))
            return -ENOSPC;
    }
    /* The names are a courtesy: left out where the cluster is too small. */
    if (h->version >= 3 && room > 512)
        put_extension(cluster, room, &at, QCOW2_EXT_FEATURE_NAMES, feature_names,
                      sizeof(feature_names), &h->feature_names);
    at += 8; /* the end mark */
    h->backing_name = (struct qcow2_span){0};
    if (name_bytes) {
        if (at > room)
            return -ENOSPC;
        memcpy(cluster + at, backing_name, name_bytes);
        h->backing_name = (struct qcow2_span){(uint32_t)at, (uint32_t)name_bytes};
    }
    qcow2_header_put(h, true, cluster);
    return 0;
}

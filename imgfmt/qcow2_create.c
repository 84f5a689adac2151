/* SPDX-License-Identifier: BSD-3-Clause */
/* qcow2_create.c - writes an empty or a preallocated qcow2 image.
 *
 *   | header | refcount table | refcount blocks | L1 | [LUKS header] | [L2 tables | data clusters]
 * |
 *
 * All sizes follow from the virtual size, so nothing is allocated: every table is a sequence of
 * entries in order and is written as such. The refcount table is made long enough for the whole
 * image where that costs little. The header comes last (without its magic for a fresh image). */
#include "imgfmt/luks.h"
#include "imgfmt/qcow2.h"

#define CHUNK             (1 * MiB)
#define SPARE_TABLE_BYTES (1 * MiB) /* the refcount table is made for a full image up to here */

static const char *const compat_names[] = {"0.10", "1.1", "v2", "v3", NULL};
static const char *const compression_names[] = {"zlib", "zstd", NULL};
static const char *const preallocation_names[] = {"off", "metadata", "falloc", "full", NULL};
#define ALL_HERE ((uint64_t)UINT32_MAX)
#define ALL_ZERO (ALL_HERE << 32)

const struct opt_desc qcow2_create_options[] = {
    {.name = "size", .type = OPT_SIZE, .help = "virtual disk size"},
    {.name = "compat",
     .type = OPT_ENUM,
     .help = "compatibility level",
     .preset = "1.1",
     .choices = compat_names},
    {.name = "backing_file", .type = OPT_STRING, .help = "file name of a base image"},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "format of the base image"},
    {.name = "cluster_size",
     .type = OPT_SIZE,
     .help = "bytes, a power of two from 512 to 2M",
     .preset = "64K"},
    {.name = "preallocation",
     .type = OPT_ENUM,
     .help = "what is allocated at once",
     .preset = "off",
     .choices = preallocation_names},
    {.name = "lazy_refcounts",
     .type = OPT_BOOL,
     .help = "postpone reference count updates",
     .preset = "off"},
    {.name = "refcount_bits",
     .type = OPT_INT,
     .help = "width of a reference count, a power of two up to 64",
     .preset = "16"},
    {.name = "compression_type",
     .type = OPT_ENUM,
     .help = "how compressed clusters are stored",
     .preset = "zlib",
     .choices = compression_names},
    {.name = "extended_l2", .type = OPT_BOOL, .help = "subclusters", .preset = "off"},
    {.name = "data_file", .type = OPT_STRING, .help = "file name of an external data file"},
    {.name = "data_file_raw",
     .type = OPT_BOOL,
     .help = "the external data file stays a raw image",
     .preset = "off"},
    {.name = "encryption",
     .type = OPT_BOOL,
     .help = "encrypt with AES (deprecated)",
     .preset = "off"},
    {.name = "encrypt.format",
     .type = OPT_STRING,
     .help = "Encrypt the image, format choices: 'luks'"},
    LUKS_CREATE_OPTIONS("encrypt."),
    {.name = "nocow",
     .type = OPT_BOOL,
     .help = "no copy-on-write of the file (btrfs)",
     .preset = "off"},
    {0},
};

/* What is asked for, and where everything comes to lie, in clusters. */
struct layout {
    struct qcow2_header header;
    const char *backing_name, *backing_format;
    const char *data_name;
    enum qcow2_preallocation preallocation;
    bool zero_entries; /* preallocated data clusters are to be marked as zeroes */
    uint64_t bitmap;   /* of their entries, where they are extended */
    uint64_t table_at, table_clusters;
    uint64_t blocks_at, blocks;
    uint64_t l1_at, l1_clusters;
    uint64_t crypto_at, crypto_clusters; /* the LUKS header */
    uint64_t l2_at, l2_tables;           /* preallocated */
    uint64_t data_at, data_clusters;
    uint64_t mapped; /* clusters that have an entry; they lie here or in the data file */
    uint64_t total;
};

/* --- options -------------------------------------------------------------- */

static int take_data_file(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    const char *name = opts_text(o, "data_file");

    if (name && *name) {
        h->incompatible |= QCOW2_DATA_FILE;
        if (h->version < 3)
            return err_set(e, -EINVAL,
                           "External data files are only supported with compatibility level 1.1 "
                           "and above (use version=v3 or greater)");
    }
    if (!opts_bool(o, "data_file_raw"))
        return 0;
    if (!qcow2_has_data_file(h))
        return err_set(e, -EINVAL, "data-file-raw requires data-file");
    h->autoclear |= QCOW2_RAW_DATA;
    return 0;
}

static int take_version(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    uint64_t bits = opts_number(o, "refcount_bits");
    uint64_t compat = opts_number(o, "compat");

    h->version = compat == 1 || compat == 3 ? 3 : 2;
    if (!is_pow2(bits) || bits > 64)
        return err_set(e, -EINVAL,
                       "Refcount width must be a power of two and may not exceed 64 bits");
    h->refcount_order = log2_floor(bits);
    h->compression_type = (uint8_t)opts_number(o, "compression_type");
    if (h->compression_type)
        h->incompatible |= QCOW2_COMPRESSION;
    if (opts_bool(o, "lazy_refcounts"))
        h->compatible |= QCOW2_LAZY_REFCOUNTS;
    if (opts_bool(o, "extended_l2"))
        h->incompatible |= QCOW2_EXTENDED_L2;
    TRY(take_data_file(o, h, e));
    if (h->version >= 3)
        return 0;
    if (qcow2_extended(h))
        return err_set(e, -EINVAL,
                       "Extended L2 entries are only supported with compatibility level 1.1 and "
                       "above (use version=v3 or greater)");
    if (bits != 16)
        return err_set(e, -EINVAL,
                       "Different refcount widths than 16 bits require compatibility "
                       "level 1.1 or above (use version=v3 or greater)");
    if (h->compatible)
        return err_set(e, -EINVAL,
                       "Lazy refcounts only supported with compatibility level 1.1 and "
                       "above (use version=v3 or greater)");
    if (h->compression_type)
        return err_set(e, -EINVAL,
                       "Non-zlib compression type is only supported with compatibility "
                       "level 1.1 and above (use version=v3 or greater)");
    return 0;
}

int qcow2_take_shape(const struct opts *o, struct qcow2_header *h, struct blk_error *e)
{
    uint64_t cluster = opts_number(o, "cluster_size");

    if (!is_pow2(cluster) || cluster < 512 || cluster > 2 * MiB)
        return err_set(e, -EINVAL, "Cluster size must be a power of two between 512 and 2048k");
    h->cluster_bits = log2_floor(cluster);
    TRY(take_version(o, h, e));
    if (qcow2_extended(h) && h->cluster_bits < QCOW2_EXTENDED_MIN)
        return err_set(e, -EINVAL,
                       "Extended L2 entries are only supported with cluster sizes of at least %u "
                       "bytes",
                       1U << QCOW2_EXTENDED_MIN);
    return qcow2_crypt_take(o, h, e);
}

static int take_options(const struct blk_create *c, struct layout *l, struct blk_error *e)
{
    const struct opts *o = c->opts;
    struct qcow2_header *h = &l->header;

    TRY(qcow2_take_shape(o, h, e));
#ifndef HAVE_LIBZSTD
    if (h->compression_type == QCOW2_ZSTD)
        return err_set(e, -ENOTSUP, "this lamina was built without libzstd");
#endif
    l->preallocation = (enum qcow2_preallocation)opts_number(o, "preallocation");
    l->backing_name = opts_text(o, "backing_file");
    l->backing_format = opts_text(o, "backing_fmt");
    if (l->backing_name && !*l->backing_name)
        l->backing_name = NULL;
    if (l->backing_name && !l->backing_format)
        return err_set(e, -EINVAL, "a backing file needs its format beside it (backing_fmt)");
    if (!l->backing_name && l->backing_format)
        return err_set(e, -EINVAL, "Backing format cannot be used without backing file");
    if (l->backing_name && l->preallocation != QCOW2_PRE_OFF && !qcow2_extended(h))
        return err_set(e, -EINVAL,
                       "Backing file and preallocation can only be used at the same "
                       "time if extended_l2 is on");
    if (l->backing_name && qcow2_raw_data(h))
        return err_set(e, -EINVAL,
                       "Backing file and data-file-raw cannot be used at the same time");
    if (qcow2_has_data_file(h))
        l->data_name = opts_text(o, "data_file");
    if (qcow2_raw_data(h) &&
        l->preallocation == QCOW2_PRE_OFF) /* it is the disk: all of it is there */
        l->preallocation = QCOW2_PRE_METADATA;
    l->zero_entries = !l->data_name && l->preallocation == QCOW2_PRE_METADATA && h->version >= 3 &&
                      !c->file->limits.fresh_reads_zero;
    if (h->crypt_method && l->preallocation != QCOW2_PRE_OFF) { /* zeroes there are noise */
        if (h->version < 3)
            return err_set(e, -ENOTSUP,
                           "preallocated space of an encrypted image of version 2 would read as "
                           "noise (use compat=1.1)");
        l->zero_entries = true;
    }
    if (qcow2_extended(h)) /* behind a backing file the space is kept, and nothing lies there yet */
        l->bitmap = l->backing_name ? 0 : l->zero_entries ? ALL_ZERO : ALL_HERE;
    return 0;
}

/* --- layout --------------------------------------------------------------- */

/* Clusters that an image needs which has every cluster allocated, counts included. */
static uint64_t add_counts(uint64_t others, uint32_t block_order, uint32_t table_order,
                           uint64_t *blocks, uint64_t *table)
{
    *blocks = *table = 0;
    for (;;) {
        uint64_t total = others + *blocks + *table;
        uint64_t b = div_up(total, 1ULL << block_order);
        uint64_t t = div_up(b, 1ULL << table_order);
        if (b == *blocks && t == *table)
            return total;
        *blocks = b;
        *table = t;
    }
}

static int lay_out(struct layout *l, uint64_t size, struct blk_error *e)
{
    struct qcow2_header *h = &l->header;
    uint32_t bits = h->cluster_bits, table_order = bits - 3;
    uint32_t block_order = bits + 3 - h->refcount_order;
    uint64_t blocks, spare;

    if (size > INT64_MAX - 511 || qcow2_l1_needs(size, h) > QCOW2_MAX_L1_BYTES / 8)
        return err_set(e, -EFBIG, "The image size is too large (try using a larger cluster size)");
    h->size = align_up(size, 512);
    h->l1_entries = (uint32_t)qcow2_l1_needs(h->size, h);
    l->l1_clusters = div_up(h->l1_entries * 8ULL, 1ULL << bits);
    uint64_t l2 = h->l1_entries, data = div_up(h->size, 1ULL << bits);
    l->crypto_clusters = div_up(h->crypto_bytes, 1ULL << bits);
    add_counts(1 + l->l1_clusters + l->crypto_clusters + l2 + data, block_order, table_order,
               &blocks, &spare);
    if (l->preallocation != QCOW2_PRE_OFF) {
        l->l2_tables = l2;
        l->mapped = data;
        l->data_clusters = l->data_name ? 0 : data;
    }
    spare = MIN(spare, MAX(SPARE_TABLE_BYTES >> bits, 1));
    uint64_t others = 1 + l->l1_clusters + l->crypto_clusters + l->l2_tables + l->data_clusters;
    l->total = add_counts(others, block_order, table_order, &l->blocks, &l->table_clusters);
    if (spare > l->table_clusters) {
        l->table_clusters = spare;
        do {
            blocks = l->blocks;
            l->total = others + spare + blocks;
            l->blocks = div_up(l->total, 1ULL << block_order);
        } while (l->blocks != blocks);
    }
    if (l->table_clusters << bits > QCOW2_MAX_REFTABLE || l->total > QCOW2_MAX_OFFSET >> bits)
        return err_set(e, -EFBIG, "The image size is too large (try using a larger cluster size)");
    l->table_at = 1;
    l->blocks_at = l->table_at + l->table_clusters;
    l->l1_at = l->blocks_at + l->blocks;
    l->crypto_at = l->l1_at + l->l1_clusters;
    l->l2_at = l->crypto_at + l->crypto_clusters;
    l->data_at = l->l2_at + l->l2_tables;
    h->crypto_offset = l->crypto_at << bits;
    h->l1_offset = l->l1_clusters ? l->l1_at << bits : 0;
    h->refcount_table_offset = l->table_at << bits;
    h->refcount_table_clusters = (uint32_t)l->table_clusters;
    return 0;
}

/* --- writing -------------------------------------------------------------- */

struct writer {
    struct blk_device *file;
    uint8_t *buf; /* CHUNK bytes */
};

/* Writes @entries entries of 8 bytes (or 16: @wide, with @second in the other half) at @offset: the
 * first @used say @first, @first + @step, ...; the others are zero. */
struct sequence {
    uint64_t offset, entries, used, first, step, flags, second;
    bool wide;
};

static int co_write_sequence(struct writer *w, const struct sequence *s)
{
    uint64_t bytes = s->wide ? 16 : 8, per_chunk = CHUNK / bytes;

    for (uint64_t at = 0; at < s->entries; at += per_chunk) {
        uint64_t n = MIN(per_chunk, s->entries - at);
        if (at >= s->used && w->file->limits.growable && at + n < s->entries) {
            TRY(co_blk_write_zeroes(w->file, s->offset + at * bytes, n * bytes, BLK_MAY_UNMAP));
            continue;
        }
        for (uint64_t i = 0; i < n; i++) {
            bool used = at + i < s->used;
            be64 raw[2] = {be64_of(used ? (s->first + (at + i) * s->step) | s->flags : 0),
                           be64_of(used ? s->second : 0)};
            memcpy(w->buf + i * bytes, raw, bytes);
        }
        TRY(co_blk_write_buf(w->file, s->offset + at * bytes, w->buf, n * bytes, 0));
    }
    return 0;
}

/* The refcount blocks: a one for every cluster of the layout. */
static int co_write_counts(struct writer *w, const struct layout *l)
{
    uint32_t bits = l->header.cluster_bits, order = l->header.refcount_order;
    uint64_t bytes = l->blocks << bits, start = l->blocks_at << bits;

    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        uint64_t n = MIN(CHUNK, bytes - at);
        uint64_t base = at * 8 >> order, counts = n * 8 >> order;
        memset(w->buf, 0, n);
        for (uint64_t i = 0; i < counts && base + i < l->total; i++)
            qcow2_count_set(w->buf, order, i, 1);
        TRY(co_blk_write_buf(w->file, start + at, w->buf, n, 0));
    }
    return 0;
}

static int co_write_tables(struct writer *w, const struct layout *l)
{
    uint32_t bits = l->header.cluster_bits;
    uint64_t cluster = 1ULL << bits, per_cluster = cluster / 8;
    bool wide = qcow2_extended(&l->header);
    struct sequence table = {
        .offset = l->table_at << bits,
        .entries = l->table_clusters * per_cluster,
        .used = l->blocks,
        .first = l->blocks_at << bits,
        .step = cluster,
    };
    struct sequence l1 = {
        .offset = l->l1_at << bits,
        .entries = l->l1_clusters * per_cluster,
        .used = l->l2_tables,
        .first = l->l2_at << bits,
        .step = cluster,
        .flags = QCOW2_COPIED,
    };
    struct sequence l2 = {
        .offset = l->l2_at << bits,
        .entries = (l->l2_tables << bits) / qcow2_entry_bytes(&l->header),
        .used = l->mapped,
        .first = l->data_name ? 0 : l->data_at << bits,
        .step = cluster,
        .flags = QCOW2_COPIED | (l->zero_entries && !wide ? QCOW2_ZERO : 0),
        .second = l->bitmap,
        .wide = wide,
    };

    TRY(co_write_sequence(w, &table));
    TRY(co_write_counts(w, l));
    TRY(co_write_sequence(w, &l1));
    return co_write_sequence(w, &l2);
}

static int co_write_data(struct writer *w, const struct layout *l)
{
    uint32_t bits = l->header.cluster_bits;
    uint64_t at = l->data_at << bits, end = l->total << bits;
    bool zeroes = l->preallocation == QCOW2_PRE_METADATA && !l->zero_entries &&
                  !w->file->limits.fresh_reads_zero;

    if (l->preallocation == QCOW2_PRE_OFF || l->data_clusters == 0)
        return w->file->size < end && l->mapped ? co_blk_resize(w->file, end, false, NULL) : 0;
    if (l->preallocation == QCOW2_PRE_FALLOC || zeroes)
        return co_blk_write_zeroes(w->file, at, end - at, 0);
    if (l->preallocation == QCOW2_PRE_METADATA)
        return w->file->size < end ? co_blk_resize(w->file, end, false, NULL) : 0;
    memset(w->buf, 0, CHUNK);
    for (; at < end; at += CHUNK)
        TRY(co_blk_write_buf(w->file, at, w->buf, MIN(CHUNK, end - at), 0));
    return 0;
}

static int co_write_image(const struct blk_create *c, struct layout *l, const uint8_t *cluster,
                          struct blk_error *e)
{
    struct writer w = {.file = c->file, .buf = mem_aligned(CHUNK)};
    auto_free uint8_t *buf = w.buf;
    uint8_t sector[QCOW2_SECTOR] = {0};
    uint64_t bytes = qcow2_cluster_bytes(&l->header);

    if (!buf)
        return -ENOMEM;
    if (!c->file->limits.growable && c->file->size < l->total << l->header.cluster_bits)
        return -ENOSPC;
    /* Whatever was here is no image from now on. */
    TRY(co_blk_write_buf(c->file, 0, sector, sizeof(sector), 0));
    TRY(co_write_tables(&w, l));
    if (l->crypto_clusters)
        TRY(co_blk_write_zeroes(c->file, l->header.crypto_offset,
                                l->crypto_clusters << l->header.cluster_bits, BLK_MAY_UNMAP));
    TRY(co_qcow2_make_crypt(c, &l->header, e));
    TRY(co_write_data(&w, l));
    if (bytes > sizeof(sector))
        TRY(co_blk_write_buf(c->file, sizeof(sector), cluster + sizeof(sector),
                             bytes - sizeof(sector), 0));
    if (!c->fresh)
        TRY(co_blk_flush(c->file));
    memcpy(sector, cluster, sizeof(sector));
    qcow2_header_put(&l->header, c->fresh, sector);
    TRY(co_blk_write_buf(c->file, 0, sector, sizeof(sector), 0));
    return c->fresh ? 0 : co_blk_flush(c->file);
}

int co_qcow2_create(const struct blk_create *c, struct blk_error *e)
{
    auto_free struct layout *l = mem_zalloc(sizeof(*l));
    auto_free uint8_t *cluster = NULL;

    if (!l)
        return err_errno(e, -ENOMEM, "cannot create the image");
    TRY(take_options(c, l, e));
    TRY(lay_out(l, c->size, e));
    cluster = mem_aligned(qcow2_cluster_bytes(&l->header));
    if (!cluster)
        return err_errno(e, -ENOMEM, "cannot create the image");
    struct qcow2_names names = {l->backing_name, l->backing_format, l->data_name};
    if (qcow2_header_build(&l->header, &names, cluster) < 0)
        return err_set(e, -EINVAL,
                       "the name of the backing file or the data file is too long: at most 1023 "
                       "bytes, and it must fit the first cluster");
    if (l->data_name)
        TRY(co_qcow2_make_data(c, l->data_name, l->header.size, l->preallocation, e));
    struct blk_error why = {0};
    int rc = co_write_image(c, l, cluster, &why);
    if (rc < 0 && why.text[0])
        return err_set(e, rc, "%s", why.text);
    return rc < 0 ? err_errno(e, rc, "cannot write the image") : 0;
}

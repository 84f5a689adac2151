/* SPDX-License-Identifier: BSD-3-Clause */
/* qed.c - QED, QEMU's enhanced disk.
 *
 *   | header, backing file's name | L1 | L2 tables and clusters, in order of first write |
 *
 * L1 and all L2 tables are of one size; an L1 entry is the place of an L2 table, an L2 entry that
 * of a cluster, le64 both. 0: not here. 1 in L2: zeroes.
 *
 * What is durable before what:
 *   1 "need check" -> the first change of a session; cleared <- the last one
 *   2 cluster data -> L2 entry, where the cluster hides older contents or was used before
 *   3 L2 table -> L1 entry
 *   4 the file is as long as any place that an entry names
 *   5 a new name of a backing file, where no name was or the old one cannot be read -> header */
#include "imgfmt/qed.h"

enum { RANK_HEADER, RANK_L2, RANK_L1 };

#define AHEAD_BYTES  (64 * MiB)
#define NAME_MOST    1023
#define LARGEST_DISK (1ULL << 62)

/* --- the header --- */

static uint64_t table_entries(const struct qed_header *h)
{
    return (uint64_t)h->table_clusters * h->cluster_bytes / 8;
}

static int parse_places(const struct qed_header *h, uint64_t file_bytes, struct blk_error *e)
{
    uint64_t header = (uint64_t)h->header_clusters * h->cluster_bytes;
    uint64_t table = (uint64_t)h->table_clusters * h->cluster_bytes;
    uint64_t n = table_entries(h);
    if (h->header_clusters == 0 || header > file_bytes)
        return err_bad(e, -EINVAL, "the header's %u clusters end past the file (%" PRIu64 " bytes)",
                       h->header_clusters, file_bytes);
    if (h->l1_offset % h->cluster_bytes || h->l1_offset < header ||
        !range_fits(h->l1_offset, table, file_bytes))
        return err_bad(e, -EINVAL,
                       "the header puts the L1 table at byte %" PRIu64 ", where it cannot be",
                       h->l1_offset);
    if (div_up(h->size, h->cluster_bytes) > n * n || h->size > LARGEST_DISK)
        return err_bad(e, -EINVAL, "the tables are too small for a disk of %" PRIu64 " bytes",
                       h->size);
    if (h->size % 512)
        return err_bad(e, -EINVAL,
                       "the header says a disk of %" PRIu64 " bytes, which is no multiple of 512",
                       h->size);
    if (h->features & QED_BACKING_FILE &&
        (h->backing_bytes == 0 || h->backing_bytes > NAME_MOST ||
         !range_fits(h->backing_offset, h->backing_bytes, header)))
        return err_bad(e, -EINVAL, "the backing file's name lies outside of the header");
    return 0;
}

int qed_header_parse(const struct qed_header_disk *raw, uint64_t file_bytes, bool fresh,
                     struct qed_header *out, struct blk_error *e)
{
    uint32_t magic = le32_get(raw->magic);
    *out = (struct qed_header){
        .cluster_bytes = le32_get(raw->cluster_bytes),
        .table_clusters = le32_get(raw->table_clusters),
        .header_clusters = le32_get(raw->header_clusters),
        .features = le64_get(raw->features),
        .autoclear = le64_get(raw->autoclear),
        .l1_offset = le64_get(raw->l1_offset),
        .size = le64_get(raw->size),
    };
    if (magic != QED_MAGIC && !(fresh && magic == 0))
        return err_wrong_format(e, "not a QED image");
    if (out->features & ~(uint64_t)QED_FEATURES_KNOWN)
        return err_bad(e, -ENOTSUP,
                       "the image needs features (0x%" PRIx64 ") that are not known here",
                       out->features & ~(uint64_t)QED_FEATURES_KNOWN);
    if (!is_pow2(out->cluster_bytes) || out->cluster_bytes < 4 * KiB ||
        out->cluster_bytes > 64 * MiB)
        return err_bad(e, -EINVAL, "the header says clusters of %u bytes; QED has 4 KiB to 64 MiB",
                       out->cluster_bytes);
    if (!is_pow2(out->table_clusters) || out->table_clusters > 16)
        return err_bad(e, -EINVAL,
                       "the header says tables of %u clusters; QED has 1, 2, 4, 8 or 16",
                       out->table_clusters);
    if (out->features & QED_BACKING_FILE) {
        out->backing_offset = le32_get(raw->backing_offset);
        out->backing_bytes = le32_get(raw->backing_bytes);
    }
    return parse_places(out, file_bytes, e);
}

static int qed_probe(const struct blk_probe *p, const char **reason)
{
    le32 magic;
    if (p->head_bytes < sizeof(struct qed_header_disk))
        return 0;
    memcpy(&magic, p->head, sizeof(magic));
    if (le32_get(magic) != QED_MAGIC)
        return 0;
    *reason = "it begins with QED";
    return 100;
}

/* --- entries --- */

static struct qed *qed_of(const struct map *m)
{
    return container_of(m, struct qed, map);
}

static int qed_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    le64 raw;
    memcpy(&raw, entry, sizeof(raw));
    uint64_t at = le64_get(raw);
    out->state = at == 0 ? MAP_HOLE : at == QED_ZERO_CLUSTER ? MAP_ZERO : MAP_DATA;
    out->offset = out->state == MAP_DATA ? at : 0;
    return out->offset % m->cluster_bytes ? -EIO : 0;
}

static void qed_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    uint64_t at = cell->state == MAP_HOLE ? 0 : QED_ZERO_CLUSTER;
    le64 raw = le64_of(cell->state == MAP_DATA ? cell->offset : at);
    memcpy(entry, &raw, sizeof(raw));
}

static int qed_root_decode(const struct map *m, const void *entry, uint64_t *offset, bool *shared)
{
    le64 raw;
    memcpy(&raw, entry, sizeof(raw));
    *offset = le64_get(raw);
    *shared = false;
    return *offset % m->cluster_bytes ? -EIO : 0;
}

static void qed_root_encode(const struct map *m, uint64_t offset, void *entry)
{
    le64 raw = le64_of(offset);
    memcpy(entry, &raw, sizeof(raw));
}

/* --- the header's facts that change --- */

static void put_header(struct map *m, void *at)
{
    const struct qed_header *h = &qed_of(m)->h;
    struct qed_header_disk *raw = at;
    raw->magic = le32_of(m->units->unfinished ? 0 : QED_MAGIC);
    raw->features = le64_of(h->features);
    raw->autoclear = le64_of(0); /* none is known */
    raw->size = le64_of(m->shape.size);
    raw->backing_offset = le32_of(h->backing_offset);
    raw->backing_bytes = le32_of(h->backing_bytes);
}

static int co_put_header(struct map *m)
{
    return co_map_units_rewrite(m, 0, RANK_HEADER, put_header);
}

static int co_mark(struct map *m, bool need_check)
{
    struct qed *q = qed_of(m);
    uint64_t before = q->h.features;
    q->h.features = (before & ~(uint64_t)QED_NEED_CHECK) | (need_check ? QED_NEED_CHECK : 0);
    int rc = co_put_header(m);
    if (rc < 0)
        q->h.features = before;
    return rc;
}

static int co_qed_begin(struct map *m)
{
    return co_mark(m, true);
}

static int co_qed_end(struct map *m)
{
    return co_mark(m, false);
}

static int co_qed_reserve(struct map *m)
{
    return map_units_reserve(m, m->shape.root_offset, m->shape.table_bytes);
}

/* The census of the next writer is the check that the mark asks for. */
static int co_qed_check(struct map *m, struct blk_check *c)
{
    return co_map_units_marked(m, c, qed_of(m)->h.features & QED_NEED_CHECK);
}

static const struct map_units_ops qed_units = {
    .co_reserve = co_qed_reserve,
    .co_begin = co_qed_begin,
    .co_end = co_qed_end,
    .co_publish = co_put_header,
    .co_check = co_qed_check,
};

static const struct map_format qed_format = {
    .decode = qed_decode,
    .encode = qed_encode,
    .root_decode = qed_root_decode,
    .root_encode = qed_root_encode,
    MAP_UNITS_HOOKS,
    .table_rank = RANK_L2,
    .root_rank = RANK_L1,
};

/* --- creating --- */

static int take_options(const struct opts *opts, uint64_t size, struct qed_header *h,
                        struct blk_error *e)
{
    const char *name = opts_text(opts, "backing_file"), *format = opts_text(opts, "backing_fmt");
    *h = (struct qed_header){
        .cluster_bytes = opts_number(opts, "cluster_size"),
        .table_clusters = opts_number(opts, "table_size"),
        .header_clusters = 1,
        .size = align_up(size, 512),
    };
    h->l1_offset = h->cluster_bytes;
    if (name && *name) {
        if (!format || !*format)
            return err_set(e, -EINVAL, "a backing file needs its format beside it (backing_fmt)");
        h->features = QED_BACKING_FILE | (strcmp(format, "raw") == 0 ? QED_BACKING_RAW : 0);
        h->backing_offset = sizeof(struct qed_header_disk);
        h->backing_bytes = MIN(strlen(name), UINT16_MAX);
    }
    return 0;
}

static void new_header(struct qed_header_disk *raw, const struct qed_header *h, bool fresh)
{
    *raw = (struct qed_header_disk){
        .magic = le32_of(fresh ? 0 : QED_MAGIC),
        .cluster_bytes = le32_of(h->cluster_bytes),
        .table_clusters = le32_of(h->table_clusters),
        .header_clusters = le32_of(h->header_clusters),
        .features = le64_of(h->features),
        .l1_offset = le64_of(h->l1_offset),
        .size = le64_of(h->size),
        .backing_offset = le32_of(h->backing_offset),
        .backing_bytes = le32_of(h->backing_bytes),
    };
}

static int co_qed_create(const struct blk_create *c, struct blk_error *e)
{
    struct qed_header h, checked;
    struct qed_header_disk raw;
    TRY(take_options(c->opts, c->size, &h, e));
    new_header(&raw, &h, c->fresh);
    uint64_t end = h.l1_offset + table_entries(&h) * 8;
    TRY(qed_header_parse(&raw, end, c->fresh, &checked, e));
    struct map_units_piece name = {h.backing_offset, opts_text(c->opts, "backing_file"),
                                   h.backing_bytes};
    struct map_units_image image = {
        .end = end,
        .table_offset = h.l1_offset,
        .entries = table_entries(&h),
        .entry_bytes = 8,
        .pieces = &name,
        .piece_count = h.backing_bytes ? 1 : 0,
        .last = {0, &raw, sizeof(raw)},
    };
    return co_map_units_create(c, &image, e);
}

static int co_qed_measure(struct blk_measure *m, struct blk_error *e)
{
    struct qed_header h, checked;
    struct qed_header_disk raw;
    TRY(take_options(m->opts, m->size, &h, e));
    new_header(&raw, &h, false);
    uint64_t n = table_entries(&h);
    TRY(qed_header_parse(&raw, h.l1_offset + n * 8, false, &checked, e));
    struct map_units_measure u = {.size = h.size,
                                  .empty_bytes = h.l1_offset + n * 8,
                                  .cluster_bytes = h.cluster_bytes,
                                  .unit_bytes = h.cluster_bytes,
                                  .table_bytes = n * 8,
                                  .table_covers = n * h.cluster_bytes,
                                  .overlay = opts_given(m->opts, "backing_file")};
    return co_map_units_measure(m, &u, e);
}

/* --- another backing file --- */

/* The name goes where the header cluster has room beside the old one, which stays readable. */
static int place_name(const struct qed_header *h, size_t bytes, uint32_t *at)
{
    uint64_t begin = sizeof(struct qed_header_disk);
    uint64_t old_end = (uint64_t)h->backing_offset + h->backing_bytes;
    uint64_t end = (uint64_t)h->header_clusters * h->cluster_bytes;
    bool before = h->backing_bytes && begin + bytes <= h->backing_offset;
    *at = before || !h->backing_bytes ? begin : MAX(begin, old_end);
    return *at + bytes <= end ? 0 : -ENOSPC;
}

static int co_change_name(struct qed *q, const char *name, const char *format)
{
    struct qed_header before = q->h;
    size_t bytes = name ? strlen(name) : 0;
    uint32_t at = 0;
    if (bytes)
        TRY(place_name(&q->h, bytes, &at));
    TRY(co_map_will_write(&q->map));
    if (bytes) {
        TRY(co_meta_write_back(q->map.meta, true));
        co_meta_forget(q->map.meta, 0, (uint64_t)q->h.header_clusters * q->h.cluster_bytes);
        TRY(co_blk_write_buf(q->map.file, at, name, bytes, 0));
        TRY(co_blk_flush(q->map.file));
    }
    before.features = q->h.features;
    q->h.features &= ~(uint64_t)(QED_BACKING_FILE | QED_BACKING_RAW);
    if (bytes)
        q->h.features |= QED_BACKING_FILE;
    if (bytes && format && strcmp(format, "raw") == 0)
        q->h.features |= QED_BACKING_RAW;
    q->h.backing_offset = at;
    q->h.backing_bytes = bytes;
    int rc = co_put_header(&q->map);
    if (rc < 0)
        q->h = before;
    return rc;
}

static int co_qed_change_backing(struct blk_device *dev, const char *name, const char *format,
                                 struct blk_error *e)
{
    struct qed *q = dev->state;
    struct map_backing now = {.name = name ? mem_strdup(name) : NULL};
    if (name && strlen(name) > NAME_MOST)
        return err_set(e, -EINVAL, "the backing file's name is longer than %d bytes", NAME_MOST);
    int rc = name && !now.name ? -ENOMEM : co_change_name(q, name, format);
    if (rc == 0) {
        map_backing_drop(&q->backing);
        q->backing.name = take(now.name);
    }
    map_backing_drop(&now);
    return rc < 0 ? err_errno(e, rc, "cannot write the header") : 0;
}

/* --- the driver --- */

static void fill_map(struct qed *q, struct blk_device *dev, struct blk_device *file)
{
    const struct qed_header *h = &q->h;
    uint64_t n = table_entries(h);
    q->map = (struct map){
        .dev = dev,
        .file = file,
        .format = &qed_format,
        .units = &q->units,
        .fresh = dev->open_flags & BLK_OPEN_FRESH,
        .shape = {.size = h->size,
                  .cluster_bits = log2_floor(h->cluster_bytes),
                  .entry_bytes = 8,
                  .levels = 2,
                  .table_entries = n,
                  .table_bytes = n * 8,
                  .root_entry_bytes = 8,
                  .root_offset = h->l1_offset,
                  .root_entries = n},
    };
    q->units.ops = &qed_units;
    q->units.base = (uint64_t)h->header_clusters * h->cluster_bytes;
    q->units.unit_bytes = h->cluster_bytes;
    q->units.cluster_limit = MIN(n * n, LARGEST_DISK / h->cluster_bytes);
    q->units.ahead_bytes = AHEAD_BYTES;
    q->units.aligned = true;
}

static int co_read_name(struct qed *q, struct blk_error *e)
{
    const struct qed_header *h = &q->h;
    if (h->backing_bytes == 0)
        return 0;
    q->backing.name = mem_zalloc(h->backing_bytes + 1);
    q->backing.format = h->features & QED_BACKING_RAW ? mem_strdup("raw") : NULL;
    if (!q->backing.name || (h->features & QED_BACKING_RAW && !q->backing.format))
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_blk_read_buf(q->map.file, h->backing_offset, q->backing.name, h->backing_bytes);
    return rc < 0 ? err_errno(e, rc, "the backing file's name cannot be read") : 0;
}

static int co_open_parts(struct qed *q, struct blk_device *dev, const struct opts *opts,
                         struct blk_opener *opener, struct blk_error *e)
{
    struct qed_header_disk raw;
    struct blk_device *file;
    unsigned pass = BLK_OPEN_WRITE | BLK_OPEN_FORCE_SHARE;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags & pass, &file, e));
    if (file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a QED image", file->size);
    int rc = co_blk_read_buf(file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    TRY(qed_header_parse(&raw, file->size, dev->open_flags & BLK_OPEN_FRESH, &q->h, e));
    q->units.unfinished = le32_get(raw.magic) != QED_MAGIC;
    fill_map(q, dev, file);
    TRY(co_read_name(q, e));
    TRY(co_map_units_open(&q->map, opts_number(opts, "cache-size"), e));
    rc = co_map_backing_want(&q->map, &q->backing, opener, e);
    if (rc < 0)
        co_map_detach(&q->map);
    return rc;
}

static int co_qed_open(struct blk_device *dev, const struct opts *opts, struct blk_opener *opener,
                       struct blk_error *e)
{
    struct qed *q = mem_zalloc(sizeof(*q));
    if (!q)
        return err_set(e, -ENOMEM, "out of memory");
    int rc = co_open_parts(q, dev, opts, opener, e);
    if (rc == 0)
        return co_map_opened(dev, e);
    map_backing_drop(&q->backing);
    mem_free(q);
    dev->state = NULL;
    return rc;
}

static int co_qed_close(struct blk_device *dev, struct blk_error *e)
{
    struct qed *q = dev->state;
    int rc = co_map_units_close(&q->map, e);
    map_backing_drop(&q->backing);
    mem_free(q);
    return rc;
}

static int co_qed_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct qed *q = dev->state;
    out->cluster_size = q->h.cluster_bytes;
    out->has_dirty = true;
    out->dirty = !q->units.begun && q->h.features & QED_NEED_CHECK;
    return map_backing_info(&q->backing, out, e);
}

static const struct opt_desc qed_create_options[] = {
    {.name = "backing_file", .type = OPT_STRING, .help = "file name of a base image"},
    {.name = "backing_fmt", .type = OPT_STRING, .help = "format of the base image"},
    {.name = "cluster_size",
     .type = OPT_SIZE,
     .help = "bytes that are allocated at once",
     .preset = "64k",
     .min = 4 * KiB,
     .max = 64 * MiB},
    {.name = "table_size",
     .type = OPT_SIZE,
     .help = "of L1 and L2 tables, in clusters",
     .preset = "4",
     .min = 1,
     .max = 16},
    {0},
};

const struct blk_driver qed_driver = {
    .name = "qed",
    .title = "QEMU enhanced disk",
    .extensions = "qed",
    MAP_UNITS_DRIVER,
    .create_options = qed_create_options,
    .probe = qed_probe,
    .co_create = co_qed_create,
    .co_measure = co_qed_measure,
    .measure_is_ours = true,
    .co_open = co_qed_open,
    .co_opened = co_map_opened,
    .co_close = co_qed_close,
    .co_change_backing = co_qed_change_backing,
    .co_info = co_qed_info,
};

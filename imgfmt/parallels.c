/* SPDX-License-Identifier: BSD-3-Clause */
/* parallels.c - Parallels expanding disks.
 *
 *   | header 64 | table: le32 per cluster | ... | clusters in order of first write |
 *
 * An entry is the cluster's place counted from the start of the file, in clusters or (old magic) in
 * sectors; 0 is a hole. There is no entry for zeroes.
 *
 * What is durable before what:
 *   1 "in use" in the header -> the first change of a session; "closed" <- the last one
 *   2 cluster data -> its entry, where the place was used before
 *   3 the file is as long as any place that an entry names (peers call anything behind its end
 * corrupt) 4 the header's extension (dirty bitmaps that we do not keep up) is let go of with 1 */
#include "imgfmt/parallels.h"

#define RANK 0 /* of the header and the table, which share a page */

#define HEADER_BYTES   sizeof(struct parallels_header_disk)
#define HEADER_ENTRIES (HEADER_BYTES / 4) /* to the engine the table begins with the header */
#define MOST_ENTRIES   (INT32_MAX / 4)    /* that peers open */
#define AHEAD_BYTES    (64 * MiB)
#define DISK_HEADS     16
#define DISK_SECTORS   32

/* --- the header --- */

static int parse_geometry(const struct parallels_header_disk *raw, struct parallels_header *out,
                          uint64_t file_bytes, struct blk_error *e)
{
    uint64_t table_end = HEADER_BYTES + out->entries * 4ULL;
    if (out->entries > MOST_ENTRIES || table_end > file_bytes)
        return err_bad(e, -EINVAL, "the table of %u entries ends past the file (%" PRIu64 " bytes)",
                       out->entries, file_bytes);
    out->data_offset = le32_get(raw->data_sector) * 512ULL;
    if (out->data_offset == 0)
        out->data_offset = align_up(table_end, 512);
    if (out->data_offset < table_end)
        return err_bad(e, -EINVAL, "the table of %u entries reaches into the data at %" PRIu64,
                       out->entries, out->data_offset);
    if (!out->old) /* places are whole clusters of the file */
        out->data_offset = div_up(out->data_offset, out->cluster_bytes) * out->cluster_bytes;
    if (out->size > out->entries * (uint64_t)out->cluster_bytes)
        return err_bad(e, -EINVAL, "%u clusters of %u bytes are too few for a disk of %" PRIu64,
                       out->entries, out->cluster_bytes, out->size);
    return 0;
}

int parallels_header_parse(const struct parallels_header_disk *raw, uint64_t file_bytes, bool fresh,
                           struct parallels_header *out, struct blk_error *e)
{
    uint32_t version = le32_get(raw->version);
    uint64_t cluster = le32_get(raw->cluster_sectors) * 512ULL, sectors = le64_get(raw->sectors);
    bool old = memcmp(raw->magic, PARALLELS_OLD_MAGIC, 16) == 0;
    if (!old && !fresh && memcmp(raw->magic, PARALLELS_MAGIC, 16) != 0)
        return err_wrong_format(e, "not a Parallels image");
    if (version != PARALLELS_VERSION)
        return err_bad(e, -ENOTSUP, "Parallels version %u is unknown; 2 is", version);
    if (cluster < 512 || cluster > 256 * MiB)
        return err_bad(e, -EINVAL,
                       "the header says clusters of %" PRIu64 " bytes; 512 to 256 MiB are possible",
                       cluster);
    if (old)
        sectors &= UINT32_MAX;
    if (sectors > (1ULL << 62) / 512)
        return err_bad(e, -EFBIG, "a disk of %" PRIu64 " sectors is too large", sectors);
    *out = (struct parallels_header){
        .size = sectors * 512,
        .cluster_bytes = cluster,
        .entries = le32_get(raw->entries),
        .in_use = le32_get(raw->in_use),
        .old = old,
    };
    if (le64_get(raw->extension_sector) < (1ULL << 54))
        out->extension_offset = le64_get(raw->extension_sector) * 512;
    return parse_geometry(raw, out, file_bytes, e);
}

static int parallels_probe(const struct blk_probe *p, const char **reason)
{
    if (p->head_bytes < HEADER_BYTES || (memcmp(p->head, PARALLELS_MAGIC, 16) != 0 &&
                                         memcmp(p->head, PARALLELS_OLD_MAGIC, 16) != 0))
        return 0;
    le32 version;
    memcpy(&version, p->head + 16, sizeof(version));
    if (le32_get(version) != PARALLELS_VERSION)
        return 0;
    *reason = "the Parallels magic at byte 0";
    return 100;
}

/* --- the entry --- */

static struct parallels *parallels_of(const struct map *m)
{
    return container_of(m, struct parallels, map);
}

static int parallels_decode(const struct map *m, const void *entry, struct map_cell *out)
{
    le32 raw;
    memcpy(&raw, entry, sizeof(raw));
    out->offset = le32_get(raw) * parallels_entry_unit(&parallels_of(m)->h);
    out->state = out->offset ? MAP_DATA : MAP_HOLE;
    return 0;
}

static void parallels_encode(const struct map *m, const struct map_cell *cell, void *entry)
{
    le32 raw = le32_of(
        cell->state == MAP_DATA ? cell->offset / parallels_entry_unit(&parallels_of(m)->h) : 0);
    memcpy(entry, &raw, sizeof(raw));
}

static uint64_t parallels_slot(const struct map *m, uint64_t cluster)
{
    return HEADER_ENTRIES + cluster;
}

/* --- the header's facts that change --- */

static void fill_header(struct map *m, void *at)
{
    struct parallels_header_disk *raw = at;
    const struct parallels *p = parallels_of(m);
    if (!m->units->unfinished)
        memcpy(raw->magic, p->h.old ? PARALLELS_OLD_MAGIC : PARALLELS_MAGIC, 16);
    raw->entries = le32_of(m->shape.root_entries - HEADER_ENTRIES);
    raw->sectors = le64_of(m->shape.size / 512);
    raw->data_sector = le32_of(m->units->base / 512);
    raw->in_use = le32_of(p->in_use ? PARALLELS_IN_USE : PARALLELS_CLOSED);
    if (p->in_use)
        raw->extension_sector = le64_of(0);
}

static int co_say(struct map *m)
{
    return co_map_units_rewrite(m, 0, RANK, fill_header);
}

static int co_parallels_begin(struct map *m)
{
    struct parallels *p = parallels_of(m);
    p->in_use = true;
    TRY(co_say(m));
    p->h.in_use = PARALLELS_IN_USE;
    if (p->h.extension_offset)
        map_units_let_go(m, p->h.extension_offset, m->cluster_bytes);
    p->h.extension_offset = 0;
    return 0;
}

static int co_parallels_end(struct map *m)
{
    struct parallels *p = parallels_of(m);
    p->in_use = false;
    TRY(co_say(m));
    p->h.in_use = PARALLELS_CLOSED;
    return 0;
}

static int co_parallels_reserve(struct map *m)
{
    uint64_t at = parallels_of(m)->h.extension_offset;
    return at ? map_units_reserve(m, at, m->cluster_bytes) : 0;
}

static int co_parallels_publish(struct map *m)
{
    if (m->units->base / 512 > UINT32_MAX ||
        (parallels_of(m)->h.old && m->shape.size / 512 > UINT32_MAX))
        return -EFBIG;
    return co_say(m);
}

static int co_parallels_check(struct map *m, struct blk_check *c)
{
    return co_map_units_marked(m, c, parallels_of(m)->h.in_use == PARALLELS_IN_USE);
}

static const struct map_units_ops parallels_units = {
    .co_reserve = co_parallels_reserve,
    .co_begin = co_parallels_begin,
    .co_end = co_parallels_end,
    .co_publish = co_parallels_publish,
    .co_check = co_parallels_check,
};

static const struct map_format parallels_format = {
    .decode = parallels_decode,
    .encode = parallels_encode,
    MAP_UNITS_HOOKS,
    .slot = parallels_slot,
    .table_rank = RANK,
};

/* --- creating --- */

static void new_header(struct parallels_header_disk *raw, uint64_t size, uint64_t cluster)
{
    uint64_t entries = div_up(size, cluster);
    uint64_t data = align_up(HEADER_BYTES + entries * 4, cluster);
    memset(raw, 0, sizeof(*raw));
    memcpy(raw->magic, PARALLELS_MAGIC, 16);
    raw->version = le32_of(PARALLELS_VERSION);
    raw->heads = le32_of(DISK_HEADS);
    raw->cylinders = le32_of(MIN(div_up(size / 512, DISK_HEADS * DISK_SECTORS), UINT32_MAX));
    raw->cluster_sectors = le32_of(cluster / 512);
    raw->entries = le32_of(entries);
    raw->sectors = le64_of(size / 512);
    raw->data_sector = le32_of(data / 512);
}

static int choose(const struct opts *opts, uint64_t size, struct parallels_header_disk *raw,
                  struct blk_error *e)
{
    uint64_t cluster = opts_number(opts, "cluster_size");
    if (!is_pow2(cluster))
        return err_set(e, -EINVAL, "cluster_size must be a power of two");
    if (div_up(size, cluster) > MOST_ENTRIES)
        return err_set(e, -EFBIG, "a disk of %" PRIu64 " bytes needs larger clusters than %" PRIu64,
                       size, cluster);
    new_header(raw, align_up(size, 512), cluster);
    return 0;
}

static int co_parallels_measure(struct blk_measure *m, struct blk_error *e)
{
    struct parallels_header_disk raw;
    TRY(choose(m->opts, m->size, &raw, e));
    struct map_units_measure u = {.size = m->size,
                                  .empty_bytes = le32_get(raw.data_sector) * 512ULL,
                                  .cluster_bytes = le32_get(raw.cluster_sectors) * 512ULL,
                                  .unit_bytes = le32_get(raw.cluster_sectors) * 512ULL};
    return co_map_units_measure(m, &u, e);
}

static int co_parallels_create(const struct blk_create *c, struct blk_error *e)
{
    struct parallels_header_disk raw;
    TRY(choose(c->opts, c->size, &raw, e));
    if (c->fresh)
        memset(raw.magic, 0, sizeof(raw.magic));
    struct map_units_image image = {
        .end = le32_get(raw.data_sector) * 512ULL,
        .table_offset = HEADER_BYTES,
        .table_bytes = le32_get(raw.data_sector) * 512ULL - HEADER_BYTES,
        .entries = le32_get(raw.entries),
        .entry_bytes = 4,
        .last = {0, &raw, sizeof(raw)},
    };
    return co_map_units_create(c, &image, e);
}

/* --- the driver --- */

static void fill_map(struct parallels *p, struct blk_device *dev, struct blk_device *file)
{
    const struct parallels_header *h = &p->h;
    p->map = (struct map){
        .dev = dev,
        .file = file,
        .format = &parallels_format,
        .units = &p->units,
        .fresh = dev->open_flags & BLK_OPEN_FRESH,
        .shape = {.size = h->size,
                  .cluster_bits = log2_floor(h->cluster_bytes),
                  .entry_bytes = 4,
                  .levels = 1,
                  .root_entries = HEADER_ENTRIES + h->entries,
                  .no_zero_cells = true,
                  .stands_alone = true},
    };
    p->units = (struct map_units){
        .ops = &parallels_units,
        .base = h->data_offset,
        .unit_bytes = h->cluster_bytes,
        .cluster_limit = MOST_ENTRIES,
        .ahead_bytes = AHEAD_BYTES,
        .table = UNITS_TABLE_STAYS,
        .unfinished = p->units.unfinished,
    };
}

static int co_parallels_open(struct blk_device *dev, const struct opts *opts,
                             struct blk_opener *opener, struct blk_error *e)
{
    struct parallels_header_disk raw;
    struct blk_device *file;
    bool fresh = dev->open_flags & BLK_OPEN_FRESH;
    TRY(co_blk_want_child(dev, opener, "file", dev->open_flags, &file, e));
    if (file->size < sizeof(raw))
        return err_bad(e, -EINVAL, "%" PRIu64 " bytes are too few for a Parallels image",
                       file->size);
    int rc = co_blk_read_buf(file, 0, &raw, sizeof(raw));
    if (rc < 0)
        return err_errno(e, rc, "the header cannot be read");
    auto_free struct parallels *p = mem_zalloc(sizeof(*p));
    if (!p)
        return err_set(e, -ENOMEM, "out of memory");
    TRY(parallels_header_parse(&raw, file->size, fresh, &p->h, e));
    if (!is_pow2(p->h.cluster_bytes))
        return parallels_open_odd(dev, file, &p->h, opts_number(opts, "cache-size"), e);
    p->units.unfinished = raw.magic[0] == 0;
    fill_map(p, dev, file);
    TRY(co_map_units_open(&p->map, opts_number(opts, "cache-size"), e));
    (void)take(p); /* the device's now */
    return 0;
}

static int co_parallels_close(struct blk_device *dev, struct blk_error *e)
{
    struct parallels *p = dev->state;
    int rc = co_map_units_close(&p->map, e);
    mem_free(p);
    return rc;
}

static int co_parallels_info(struct blk_device *dev, struct blk_info *out, struct blk_error *e)
{
    const struct parallels *p = dev->state;
    out->cluster_size = p->h.cluster_bytes;
    out->has_dirty = true;
    out->dirty = !p->units.begun && p->h.in_use == PARALLELS_IN_USE;
    return 0;
}

static const struct opt_desc parallels_open_options[] = {
    {.name = "cache-size",
     .type = OPT_SIZE,
     .help = "bytes of the table kept in memory",
     .preset = "8M",
     .min = 64 * KiB},
    {0},
};

static const struct opt_desc parallels_create_options[] = {
    PARALLELS_CLUSTER_OPTION,
    {0},
};

const struct blk_driver parallels_driver = {
    .name = "parallels",
    .title = "Parallels expanding disk",
    .extensions = "hds hdd",
    MAP_UNITS_REQUESTS,
    .open_options = parallels_open_options,
    .create_options = parallels_create_options,
    .probe = parallels_probe,
    .co_create = co_parallels_create,
    .co_measure = co_parallels_measure,
    .measure_is_ours = true,
    .co_open = co_parallels_open,
    .co_close = co_parallels_close,
    .co_reopen = co_map_units_reopen,
    .co_resize = co_map_units_resize,
    .co_check = co_map_units_check,
    .co_compact = co_map_units_compact,
    .co_info = co_parallels_info,
};

/* SPDX-License-Identifier: BSD-3-Clause */
/* lvm_segment.c - the segments of logical volumes: a table of the types there are, and what each
 * must say. */
#include "volumes/lvm_meta.h"

#include <stdio.h>
#include <stdlib.h>

/* Linux' dm-raid starts each of these with md's level and layout; raid4 is level 5 with the parity
 * in the first image. */
static const struct lvm_type types[] = {
    {.name = "striped", .what = LVM_STRIPED},
    {.name = "linear", .what = LVM_STRIPED},
    {.name = "zero", .what = LVM_ZERO},
    {.name = "error", .what = LVM_ERROR},
    {.name = "mirror", .what = LVM_MIRROR},
    {.name = "raid0", .what = LVM_RAID, .level = "0"},
    {.name = "raid0_meta", .what = LVM_RAID, .level = "0"},
    {.name = "raid1", .what = LVM_RAID, .level = "1"},
    {"raid4", LVM_RAID, "5", "parity-first", 1, NULL},
    {"raid5", LVM_RAID, "5", "left-symmetric", 1, NULL},
    {"raid5_la", LVM_RAID, "5", "left-asymmetric", 1, NULL},
    {"raid5_ra", LVM_RAID, "5", "right-asymmetric", 1, NULL},
    {"raid5_ls", LVM_RAID, "5", "left-symmetric", 1, NULL},
    {"raid5_rs", LVM_RAID, "5", "right-symmetric", 1, NULL},
    {"raid5_n", LVM_RAID, "5", "parity-last", 1, NULL},
    {"raid6", LVM_RAID, "6", "ddf-zero-restart", 2, NULL},
    {"raid6_zr", LVM_RAID, "6", "ddf-zero-restart", 2, NULL},
    {"raid6_nr", LVM_RAID, "6", "ddf-N-restart", 2, NULL},
    {"raid6_nc", LVM_RAID, "6", "ddf-N-continue", 2, NULL},
    {"raid6_n_6", LVM_RAID, "6", "parity-last", 2, NULL},
    {"raid6_la_6", LVM_RAID, "6", "left-asymmetric-6", 2, NULL},
    {"raid6_ra_6", LVM_RAID, "6", "right-asymmetric-6", 2, NULL},
    {"raid6_ls_6", LVM_RAID, "6", "left-symmetric-6", 2, NULL},
    {"raid6_rs_6", LVM_RAID, "6", "right-symmetric-6", 2, NULL},
    {.name = "raid10", .what = LVM_RAID, .level = "10"},
    {.name = "raid10_near", .what = LVM_RAID, .level = "10"},
    {.name = "thin-pool", .what = LVM_POOL},
    {.name = "thin", .what = LVM_THIN},
    {.name = "snapshot", .what = LVM_SNAPSHOT},
    {"cache", LVM_OTHER, NULL, NULL, 0,
     "the newest blocks may lie in its cache alone: take that off with lvconvert "
     "--uncache"},
    {"cache-pool", LVM_OTHER, NULL, NULL, 0,
     "it caches another volume and has no contents of its own"},
    {"writecache", LVM_OTHER, NULL, NULL, 0,
     "the newest blocks may lie in its cache alone: take that off with lvconvert "
     "--splitcache"},
    {"vdo", LVM_OTHER, NULL, NULL, 0,
     "its blocks are deduplicated and compressed: copy it where Linux has activated it"},
    {"vdo-pool", LVM_OTHER, NULL, NULL, 0,
     "it holds volumes of VDO and has no contents of its own"},
    {"integrity", LVM_OTHER, NULL, NULL, 0,
     "checksums lie between its blocks: take them out with lvconvert --raidintegrity n"},
};
static const struct lvm_type other_type = {
    .name = "other", .what = LVM_OTHER, .advice = "copy it where Linux has activated it"};

/* Flags behind a + that change nothing for a reader of LVM2's own kinds. */
static bool flags_are_known(const char *flags)
{
    static const char *const known[] = {"RESHAPE_DATA_OFFSET", "REMOVE_AFTER_RESHAPE",
                                        "METADATA_FORMAT", "CROP_METADATA"};
    while (*flags == '+') {
        size_t len = strcspn(++flags, "+"), i = 0;
        while (i < ARRAY_LEN(known) &&
               (strlen(known[i]) != len || memcmp(known[i], flags, len) != 0))
            i++;
        if (i == ARRAY_LEN(known))
            return false;
        flags += len;
    }
    return true;
}

const struct lvm_type *lvm_type_by_name(const char *name)
{
    size_t len = strcspn(name, "+");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strlen(types[i].name) == len && memcmp(types[i].name, name, len) == 0)
            return types[i].what == LVM_OTHER || flags_are_known(name + len) ? &types[i] : NULL;
    return NULL;
}

/* --- places ------------------------------------------------------------------------------------
 */

struct reading {
    struct lvm_vg *vg;
    struct lvm_lv *lv;
    struct lvm_segment *seg;
    struct blk_error *e;
};

static int wrong(const struct reading *r, const char *what)
{
    return err_bad(r->e, -EINVAL, "segment at extent %" PRIu64 " of %.127s: %s", r->seg->start,
                   r->lv->name, what);
}

/* A physical volume's name goes first. */
static int find_place(const struct reading *r, const char *name, struct lvm_area *out)
{
    for (size_t i = 0; i < r->vg->pv_count && !out->pv; i++)
        if (strcmp(r->vg->pvs[i].name, name) == 0)
            out->pv = &r->vg->pvs[i];
    if (!out->pv)
        out->lv = lvm_find_lv(r->vg, name);
    return out->pv || out->lv ? 0 : wrong(r, "it lies on a volume that is not there");
}

static size_t list_length(const struct lvm_node *list)
{
    size_t n = 0;
    for (const struct lvm_node *v = list ? list->first : NULL; v; v = v->next)
        n++;
    return n;
}

static int make_areas(const struct reading *r, size_t count, bool with_metas)
{
    struct lvm_segment *s = r->seg;
    if (count == 0 || count > LVM_STRIPES_MOST)
        return wrong(r, "it lies on no volumes, or on too many");
    s->areas = mem_array(count * (1 + with_metas), sizeof(*s->areas));
    if (!s->areas)
        return err_set(r->e, -ENOMEM, "out of memory");
    s->metas = with_metas ? s->areas + count : NULL;
    s->area_count = (unsigned)count;
    return 0;
}

/* ["pv0", 7, "pv1", 0]: a name and an extent each. */
static int read_places(const struct reading *r, const char *key, const char *count_key)
{
    uint64_t count;
    const struct lvm_node *list = lvm_find(r->seg->node, key, LVM_LIST);
    if (!lvm_find_number(r->seg->node, count_key, &count) || list_length(list) % 2 ||
        list_length(list) / 2 != count)
        return wrong(r, "it does not say on what it lies");
    TRY(make_areas(r, count, false));
    const struct lvm_node *n = list->first;
    for (unsigned i = 0; i < r->seg->area_count; i++, n = n->next->next) {
        if (n->kind != LVM_STRING || n->next->kind != LVM_NUMBER || n->next->number < 0)
            return wrong(r, "a place is not a name and an extent");
        TRY(find_place(r, n->text, &r->seg->areas[i]));
        r->seg->areas[i].extent = (uint64_t)n->next->number;
    }
    return 0;
}

/* ["x_rmeta_0", "x_rimage_0", ...], or images only. Names of volumes that are gone are those of
 * type "error". */
static int read_images(const struct reading *r)
{
    const struct lvm_node *list = lvm_find(r->seg->node, "raids", LVM_LIST);
    bool pairs = list;
    uint64_t count;
    if (!list)
        list = lvm_find(r->seg->node, "raid0_lvs", LVM_LIST);
    if ((!lvm_find_number(r->seg->node, "device_count", &count) &&
         !lvm_find_number(r->seg->node, "stripe_count", &count)) ||
        list_length(list) != count * (1 + pairs))
        return wrong(r, "it does not say on what it lies");
    TRY(make_areas(r, count, pairs));
    const struct lvm_node *n = list->first;
    for (unsigned i = 0; i < count * (1 + pairs); i++, n = n->next) {
        struct lvm_area *a = pairs && i % 2 == 0 ? r->seg->metas : r->seg->areas;
        if (n->kind != LVM_STRING)
            return wrong(r, "an image has no name");
        TRY(find_place(r, n->text, &a[i / (1 + pairs)]));
        if (!a[i / (1 + pairs)].lv)
            return wrong(r, "an image is not a logical volume");
    }
    return 0;
}

/* --- each type ---------------------------------------------------------------------------------
 */

/* Sectors under @key as bytes; a power of two of at least 4 KiB. */
static int read_power(const struct reading *r, const char *key, uint64_t *out)
{
    uint64_t sectors;
    if (!lvm_find_number(r->seg->node, key, &sectors) || !is_pow2(sectors) || sectors < 8 ||
        sectors > GiB)
        return wrong(r, "its chunks have no valid size");
    *out = sectors * LVM_SECTOR;
    return 0;
}

static int read_striped(const struct reading *r)
{
    TRY(read_places(r, "stripes", "stripe_count"));
    if (r->seg->area_count > 1)
        TRY(read_power(r, "stripe_size", &r->seg->stripe_bytes));
    if (r->seg->extents % r->seg->area_count)
        return wrong(r, "its stripes are not equally long");
    return 0;
}

static int read_mirror(const struct reading *r)
{
    return read_places(r, "mirrors", "mirror_count");
}

static int read_raid(const struct reading *r)
{
    struct lvm_segment *s = r->seg;
    uint64_t copies = 2;
    bool mirrored = strcmp(s->type->level, "1") == 0;
    TRY(read_images(r));
    if (!mirrored)
        TRY(read_power(r, "stripe_size", &s->stripe_bytes));
    if (lvm_find_number(s->node, "data_copies", &copies) && (copies == 0 || copies > s->area_count))
        return wrong(r, "it has no valid number of copies");
    if (s->area_count <= s->type->parities)
        return wrong(r, "it has too few images");
    s->copies = (unsigned)copies;
    s->reshaping = lvm_find(s->node, "reshape_count", LVM_NUMBER) ||
                   lvm_find(s->node, "data_offset", LVM_NUMBER);
    return 0;
}

static int read_lv_name(const struct reading *r, const char *key, bool must, struct lvm_lv **out)
{
    const char *name = lvm_find_text(r->seg->node, key);
    *out = name ? lvm_find_lv(r->vg, name) : NULL;
    return *out || (!name && !must) ? 0 : wrong(r, "it names a volume that is not there");
}

static int read_pool(const struct reading *r)
{
    struct lvm_segment *s = r->seg;
    TRY(read_lv_name(r, "metadata", true, &s->metadata));
    TRY(read_lv_name(r, "pool", true, &s->data));
    uint64_t sectors;
    if (!lvm_find_number(s->node, "chunk_size", &sectors) || sectors < 128 || sectors > 2097152 ||
        sectors % 128)
        return wrong(r, "its chunks have no valid size");
    s->chunk_bytes = sectors * LVM_SECTOR;
    if (!lvm_find_number(s->node, "transaction_id", &s->transaction_id))
        return wrong(r, "it has no transaction_id");
    for (const struct lvm_node *n = s->node->first; n; n = n->next)
        s->messages |= n->kind == LVM_SECTION && strncmp(n->name, "message", 7) == 0;
    return 0;
}

static int read_thin(const struct reading *r)
{
    struct lvm_segment *s = r->seg;
    uint64_t id;
    TRY(read_lv_name(r, "thin_pool", true, &s->pool));
    TRY(read_lv_name(r, "origin", false, &s->origin));
    TRY(read_lv_name(r, "external_origin", false, &s->external_origin));
    if (!lvm_find_number(s->node, "device_id", &id) || id >= 1 << 24 ||
        !lvm_find_number(s->node, "transaction_id", &s->transaction_id))
        return wrong(r, "it has no valid device_id and transaction_id");
    s->device_id = (uint32_t)id;
    s->merging = lvm_find(s->node, "merge", LVM_STRING);
    return 0;
}

static int read_snapshot(const struct reading *r)
{
    struct lvm_segment *s = r->seg;
    uint64_t sectors;
    s->merging = lvm_find(s->node, "merging_store", LVM_STRING);
    TRY(read_lv_name(r, "origin", true, &s->origin));
    TRY(read_lv_name(r, s->merging ? "merging_store" : "cow_store", true, &s->store));
    if (!lvm_find_number(s->node, "chunk_size", &sectors) || !is_pow2(sectors) || sectors > 1 << 20)
        return wrong(r, "its chunks have no valid size");
    s->chunk_bytes = sectors * LVM_SECTOR;
    return 0;
}

static int read_nothing(const struct reading *r)
{
    return 0;
}

static int (*const readers[])(const struct reading *r) = {
    [LVM_STRIPED] = read_striped, [LVM_ZERO] = read_nothing,      [LVM_ERROR] = read_nothing,
    [LVM_MIRROR] = read_mirror,   [LVM_RAID] = read_raid,         [LVM_POOL] = read_pool,
    [LVM_THIN] = read_thin,       [LVM_SNAPSHOT] = read_snapshot, [LVM_OTHER] = read_nothing,
};

/* --- a volume's segments -----------------------------------------------------------------------
 */

static int read_segment(const struct reading *r)
{
    struct lvm_segment *s = r->seg;
    if (!lvm_find_number(s->node, "start_extent", &s->start) ||
        !lvm_find_number(s->node, "extent_count", &s->extents) || s->extents == 0)
        return wrong(r, "it has no valid start_extent and extent_count");
    s->type_name = lvm_find_text(s->node, "type");
    if (!s->type_name)
        return wrong(r, "it has no type");
    s->type = lvm_type_by_name(s->type_name);
    if (!s->type)
        s->type = &other_type;
    return readers[s->type->what](r);
}

static bool is_segment(const struct lvm_node *n)
{
    return n->kind == LVM_SECTION && strncmp(n->name, "segment", 7) == 0 &&
           strspn(n->name + 7, "0123456789") == strlen(n->name + 7) && n->name[7];
}

static int by_start(const void *a, const void *b)
{
    const struct lvm_segment *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* G1. */
static int tile(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e)
{
    uint64_t bytes;
    qsort(lv->segments, lv->segment_count, sizeof(*lv->segments), by_start);
    for (unsigned i = 0; i < lv->segment_count; i++) {
        if (lv->segments[i].start != lv->extents)
            return err_bad(e, -EINVAL,
                           "the segments of %.127s leave a gap or overlap at extent "
                           "%" PRIu64,
                           lv->name, lv->extents);
        if (!add_u64(lv->extents, lv->segments[i].extents, &lv->extents) ||
            !mul_u64(lv->extents, vg->extent_bytes, &bytes) || bytes > INT64_MAX)
            return err_bad(e, -EFBIG, "%.127s is too big", lv->name);
    }
    return 0;
}

int lvm_segments_read(struct lvm_vg *vg, struct lvm_lv *lv, struct blk_error *e)
{
    size_t count = 0;
    uint64_t told;
    for (const struct lvm_node *n = lv->node->first; n; n = n->next)
        count += is_segment(n);
    if (!lvm_find_number(lv->node, "segment_count", &told) || told != count || count == 0)
        return err_bad(e, -EINVAL, "%.127s does not have as many segments as it says", lv->name);
    lv->segments = mem_array(count, sizeof(*lv->segments));
    if (!lv->segments)
        return err_set(e, -ENOMEM, "out of memory");
    for (struct lvm_node *n = lv->node->first; n; n = n->next) {
        if (!is_segment(n))
            continue;
        struct lvm_segment *s = &lv->segments[lv->segment_count++];
        s->node = n;
        TRY(read_segment(&(struct reading){vg, lv, s, e}));
    }
    return tile(vg, lv, e);
}
